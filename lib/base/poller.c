#include "poller.h"

#include "dbha_build.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <unistd.h>
#if defined(HAVE_SYS_EPOLL_H) && defined(HAVE_SYS_TIMERFD_H)
#include <sys/epoll.h>
#include <sys/timerfd.h>
#define HAVE_EPOLL 1
#endif

#include "clock.h"

#ifdef HAVE_EPOLL

#define LOOK_MAX 64

static bool control(const struct poller *p, int how, int fd, void *who, bool writable)
{
	struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0u), .data.ptr = who};
	return epoll_ctl(p->fd, how, fd, &event) == 0;
}

int dbha__poller_init(struct poller *p)
{
	p->armed_us = CLOCK_NEVER;
	p->full = false;
	p->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	p->fd = p->timer_fd < 0 ? -1 : epoll_create1(EPOLL_CLOEXEC);
	return p->fd >= 0 && dbha__poller_add(p, p->timer_fd, NULL) ? 0 : -1;
}

bool dbha__poller_add(struct poller *p, int fd, void *who)
{
	return control(p, EPOLL_CTL_ADD, fd, who, false);
}

bool dbha__poller_change(struct poller *p, int fd, void *who, bool writable)
{
	return control(p, EPOLL_CTL_MOD, fd, who, writable);
}

void dbha__poller_remove(struct poller *p, int fd)
{
	epoll_ctl(p->fd, EPOLL_CTL_DEL, fd, NULL);
}

int dbha__poller_look(struct poller *p, void **who, int max)
{
	struct epoll_event events[LOOK_MAX];
	int most = max < LOOK_MAX ? max : LOOK_MAX;
	int n = epoll_wait(p->fd, events, most, 0);
	p->full = n == most;
	for (int i = 0; i < n; i++)
		who[i] = events[i].data.ptr;
	return n > 0 ? n : 0;
}

void dbha__poller_arm(struct poller *p, int64_t at)
{
	struct itimerspec when = {.it_value = {.tv_sec = 0}};
	if (at != CLOCK_NEVER) {
		at += at == 0; /* all zeros would disarm it */
		when.it_value.tv_sec = at / 1000000;
		when.it_value.tv_nsec = at % 1000000 * 1000;
	}
	if (timerfd_settime(p->timer_fd, TFD_TIMER_ABSTIME, &when, NULL) == 0)
		p->armed_us = at;
}

#else

int dbha__poller_init(struct poller *p)
{
	*p = POLLER_CLOSED;
	errno = ENOSYS;
	return -1;
}

bool dbha__poller_add(struct poller *p, int fd, void *who)
{
	(void)p, (void)fd, (void)who;
	return false;
}

bool dbha__poller_change(struct poller *p, int fd, void *who, bool writable)
{
	(void)p, (void)fd, (void)who, (void)writable;
	return false;
}

void dbha__poller_remove(struct poller *p, int fd)
{
	(void)p, (void)fd;
}

int dbha__poller_look(struct poller *p, void **who, int max)
{
	(void)p, (void)who, (void)max;
	return 0;
}

void dbha__poller_arm(struct poller *p, int64_t at)
{
	(void)p, (void)at;
}

#endif

bool dbha__poller_is_ready(const struct poller *p)
{
	struct pollfd item = {.fd = p->fd, .events = POLLIN};
	return poll(&item, 1, 0) > 0;
}

void dbha__poller_fini(struct poller *p)
{
	if (p->fd >= 0)
		close(p->fd);
	if (p->timer_fd >= 0)
		close(p->timer_fd);
	*p = POLLER_CLOSED;
}
