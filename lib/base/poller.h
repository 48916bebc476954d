/*
 * poller: one descriptor that stands for many, and for a moment in time: what an application puts into its own event loop. On Linux an epoll
 * descriptor with a timerfd inside. Where there is none of these, dbha__poller_init fails with ENOSYS, and nothing else is called.
 *
 * It is level-triggered: what is not taken in is told again.
 */
#ifndef DBHA_BASE_POLLER_H
#define DBHA_BASE_POLLER_H

#include <stdbool.h>
#include <stdint.h>

struct poller {
	int fd; /* readable when something is ready, or when the time has come; -1: not open */
	int timer_fd;
	bool full;        /* the last look found as many as it could take: there may be more */
	int64_t armed_us; /* what the timer is set to (monotonic us); CLOCK_NEVER: not at all */
};

#define POLLER_CLOSED ((struct poller){.fd = -1, .timer_fd = -1})

/* 0, or -1 with errno; to be ended with dbha__poller_fini in either case. The timer is not set. */
int dbha__poller_init(struct poller *p);
void dbha__poller_fini(struct poller *p);

/*
 * Watches a descriptor for reading, and if wanted for writing. who: what dbha__poller_look gives back for it. A descriptor is taken out
 * before it is closed. Where the kernel has no memory for it nothing is told of it: false.
 */
bool dbha__poller_add(struct poller *p, int fd, void *who);
bool dbha__poller_change(struct poller *p, int fd, void *who, bool writable);
void dbha__poller_remove(struct poller *p, int fd);

/* What is ready now, without waiting: `who` of at most `max` of them, NULL for the timer. How many. */
int dbha__poller_look(struct poller *p, void **who, int max);

/* Whether something is ready, the timer included. */
bool dbha__poller_is_ready(const struct poller *p);

/* When the descriptor becomes readable by itself. What has gone off stays readable until it is set anew, also to the same time. */
void dbha__poller_arm(struct poller *p, int64_t at);

#endif
