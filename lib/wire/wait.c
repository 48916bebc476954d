#include "wait.h"

#include <errno.h>
#include <poll.h>

#include "clock.h"

/* Without a timer: at the deadline the patrol cuts the connection, which ends the wait. */
static enum waited wait_patrolled(struct conn *conn, struct pollfd *item, int64_t deadline)
{
	int n;
	atomic_store_explicit(&conn->wait_until_us, deadline, memory_order_relaxed);
	do
		n = poll(item, 1, -1);
	while (n < 0 && errno == EINTR);
	atomic_store_explicit(&conn->wait_until_us, 0, memory_order_relaxed);
	if (atomic_load_explicit(&conn->overdue, memory_order_acquire))
		return WAITED_TIMEOUT;
	return n > 0 ? WAITED_READY : WAITED_BROKEN;
}

enum waited dbha__wait_socket(struct conn *conn, short events, int64_t deadline)
{
	struct pollfd item = {.fd = PQsocket(conn->pg), .events = events};
	if (item.fd < 0)
		return WAITED_BROKEN;
	if (conn->patrolled && deadline - dbha__clock_coarse() > 2 * CONN_PATROL_US)
		return wait_patrolled(conn, &item, deadline);
	for (;;) {
		int64_t now = dbha__clock_now();
		if (now >= deadline)
			return WAITED_TIMEOUT;
		int n = poll(&item, 1, dbha__clock_poll_ms(now, deadline));
		if (n > 0)
			return WAITED_READY;
		if (n < 0 && errno != EINTR)
			return WAITED_BROKEN;
	}
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
