/*
 * listener_fd: one descriptor for a program with an event loop of its own, the same for the listener's whole life: a poller that
 * stands for the socket of now, for the wake-ups of the view and the pool, and for the time at which the listener
 * wants to look again. Sockets come and go behind it.
 */
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "fork.h"
#include "listener.h"

static bool is_open(const dbha_listener *l)
{
	return l->poller.fd >= 0;
}

/*
 * The descriptor that only we close: libpq closes its own when the connection breaks, after which it could not be taken out by
 * its number, though it would be watched for as long as ours is open.
 */
void dbha__listener_fd_attach(dbha_listener *l)
{
	/* Where the kernel has no memory for it, the timer brings us here often enough. */
	if (is_open(l))
		dbha__poller_add(&l->poller, l->slot->conn->guard_fd, NULL);
}

void dbha__listener_fd_detach(dbha_listener *l)
{
	if (is_open(l))
		dbha__poller_remove(&l->poller, l->slot->conn->guard_fd);
}

/* What was set and has gone off stays readable until it is set anew, also to the same time. */
void dbha__listener_fd_arm(dbha_listener *l, bool more)
{
	if (!is_open(l))
		return;
	if (l->timer_us != l->poller.armed_us || l->poller.armed_us <= dbha__clock_now())
		dbha__poller_arm(&l->poller, l->timer_us);
	if (more && !l->nudged)
		dbha__wake_signal(&l->wake);
	l->nudged = l->nudged || more;
}

void dbha__listener_fd_close(dbha_listener *l)
{
	dbha__poller_fini(&l->poller);
}

static bool open_descriptor(dbha_listener *l)
{
	return dbha__poller_init(&l->poller) == 0 && dbha__poller_add(&l->poller, l->wake.read_fd, NULL) &&
	       (!l->slot || dbha__poller_add(&l->poller, l->slot->conn->guard_fd, NULL));
}

int dbha_listener_fd(dbha_listener *l, dbha_error *err)
{
	if (!l) {
		dbha__fail(err, DBHA_ERR_USAGE, "dbha_listener_fd: the listener is NULL");
		return -1;
	}
	if (l->fork_generation != dbha__fork_generation()) {
		dbha__listener_forked(err);
		return -1;
	}
	if (is_open(l))
		return l->poller.fd;
	if (!open_descriptor(l)) {
		dbha__fail(err, DBHA_ERR_SYSTEM, "no descriptor for the listener: %s", strerror(errno));
		dbha__listener_fd_close(l);
		return -1;
	}
	/* Whatever is due already: the first call finds it. */
	dbha__listener_fd_arm(l, true);
	return l->poller.fd;
}
