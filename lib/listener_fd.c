/*
 * listener_fd: one descriptor for a program with an event loop of its own, the same for the listener's whole life: an epoll
 * descriptor that stands for the socket of now, for the wake-ups of the view and the pool, and for the time at which the listener
 * wants to look again. Sockets come and go behind it.
 */
#include "dbha_build.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#if defined(HAVE_SYS_EPOLL_H) && defined(HAVE_SYS_TIMERFD_H)
#include <sys/epoll.h>
#include <sys/timerfd.h>
#define HAVE_DESCRIPTOR 1
#endif

#include "clock.h"
#include "error.h"
#include "fork.h"
#include "listener.h"

#ifdef HAVE_DESCRIPTOR
static bool watch(const dbha_listener *l, int fd)
{
	struct epoll_event event = {.events = EPOLLIN};
	return epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0;
}

/*
 * The descriptor that only we close: libpq closes its own when the connection breaks, after which it could not be taken out by
 * its number, though it would be watched for as long as ours is open.
 */
void dbha__listener_fd_attach(dbha_listener *l)
{
	/* Where the kernel has no memory for it, the timer brings us here often enough. */
	if (l->epoll_fd >= 0)
		watch(l, l->slot->conn->guard_fd);
}

void dbha__listener_fd_detach(dbha_listener *l)
{
	if (l->epoll_fd >= 0)
		epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, l->slot->conn->guard_fd, NULL);
}

static void set_timer(dbha_listener *l, int64_t at)
{
	struct itimerspec when = {.it_value = {.tv_sec = 0}};
	if (at != CLOCK_NEVER) {
		at += at == 0; /* all zeros would disarm it */
		when.it_value.tv_sec = at / 1000000;
		when.it_value.tv_nsec = at % 1000000 * 1000;
	}
	if (timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
		l->armed_us = at;
}

/* What was set and has gone off stays readable until it is set anew, also to the same time. */
void dbha__listener_fd_arm(dbha_listener *l, bool more)
{
	if (l->epoll_fd < 0)
		return;
	if (l->timer_us != l->armed_us || l->armed_us <= dbha__clock_now())
		set_timer(l, l->timer_us);
	if (more && !l->nudged)
		dbha__wake_signal(&l->wake);
	l->nudged = l->nudged || more;
}

void dbha__listener_fd_close(dbha_listener *l)
{
	if (l->epoll_fd >= 0)
		close(l->epoll_fd);
	if (l->timer_fd >= 0)
		close(l->timer_fd);
	l->epoll_fd = l->timer_fd = -1;
}

static bool open_descriptor(dbha_listener *l)
{
	l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	l->epoll_fd = l->timer_fd < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
	if (l->epoll_fd < 0)
		return false;
	return watch(l, l->timer_fd) && watch(l, l->wake.read_fd) && (!l->slot || watch(l, l->slot->conn->guard_fd));
}
#else
void dbha__listener_fd_attach(dbha_listener *l)
{
	(void)l;
}

void dbha__listener_fd_detach(dbha_listener *l)
{
	(void)l;
}

void dbha__listener_fd_arm(dbha_listener *l, bool more)
{
	(void)l;
	(void)more;
}

void dbha__listener_fd_close(dbha_listener *l)
{
	(void)l;
}

static bool open_descriptor(dbha_listener *l)
{
	(void)l;
	errno = ENOSYS;
	return false;
}
#endif

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
	if (l->epoll_fd >= 0)
		return l->epoll_fd;
	if (!open_descriptor(l)) {
		dbha__fail(err, DBHA_ERR_SYSTEM, "no descriptor for the listener: %s", strerror(errno));
		dbha__listener_fd_close(l);
		return -1;
	}
	/* Whatever is due already: the first call finds it. */
	l->armed_us = 0;
	dbha__listener_fd_arm(l, true);
	return l->epoll_fd;
}
