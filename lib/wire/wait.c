#include "wait.h"

#include <errno.h>
#include <poll.h>

#include "clock.h"

/* Without a timer: at the deadline the patrol asks the server to stop, later it cuts; either ends the wait. */
static enum waited wait_patrolled(struct conn *conn, struct pollfd *item, int64_t deadline)
{
	int n;
	dbha__overdue_begin(&conn->wait_until, deadline);
	do
		n = poll(item, 1, -1);
	while (n < 0 && errno == EINTR);
	int64_t word = dbha__overdue_end(&conn->wait_until);
	conn->late = conn->late || word < 0;
	if (word == OVERDUE_CUT)
		return WAITED_TIMEOUT;
	return n > 0 ? WAITED_READY : WAITED_BROKEN;
}

static enum waited wait_timed(struct pollfd *item, int64_t deadline)
{
	for (;;) {
		int64_t now = dbha__clock_now();
		if (now >= deadline)
			return WAITED_TIMEOUT;
		int n = poll(item, 1, dbha__clock_poll_ms(now, deadline));
		if (n > 0)
			return WAITED_READY;
		if (n < 0 && errno != EINTR)
			return WAITED_BROKEN;
	}
}

enum waited dbha__wait_socket(struct conn *conn, short events, int64_t deadline)
{
	struct pollfd item = {.fd = PQsocket(conn->pg), .events = events};
	if (item.fd < 0)
		return WAITED_BROKEN;
	/* A server that does not even take the statement is not asked to stop it: such a wait has its timer. */
	if (conn->patrolled && !(events & POLLOUT) && deadline - dbha__clock_coarse() > 2 * CONN_PATROL_US)
		return wait_patrolled(conn, &item, deadline);
	return wait_timed(&item, deadline);
}

void dbha__wait_begin(struct conn *conn)
{
	conn->late = false;
	conn->unreplicated = false;
}

bool dbha__wait_drain(struct conn *conn, int64_t *deadline)
{
	if (atomic_load_explicit(&conn->uncancelable, memory_order_relaxed))
		return false;
	if (!conn->late && !(conn->ask_to_stop && conn->ask_to_stop(conn)))
		return false;
	conn->late = true;
	*deadline += CONN_DRAIN_US;
	return true;
}

enum waited dbha__wait_flush(struct conn *conn, int64_t deadline)
{
	int rc;
	while ((rc = PQflush(conn->pg)) > 0) {
		enum waited waited = dbha__wait_socket(conn, POLLIN | POLLOUT, deadline);
		if (waited != WAITED_READY)
			return waited;
		if (!PQconsumeInput(conn->pg))
			return WAITED_BROKEN;
	}
	return rc < 0 ? WAITED_BROKEN : WAITED_READY;
}

enum waited dbha__wait_result(struct conn *conn, int64_t deadline)
{
	while (PQisBusy(conn->pg)) {
		enum waited waited = dbha__wait_socket(conn, POLLIN, deadline);
		if (waited != WAITED_READY)
			return waited;
		/* On failure PQgetResult has a last result to give, which says why. */
		if (!PQconsumeInput(conn->pg))
			return WAITED_READY;
	}
	return WAITED_READY;
}
