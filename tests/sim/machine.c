/*
 * What stands in for lib/base/sync, thread and wake, and, by the linker's --wrap, for the clocks, the entropy and the calls of libc
 * that block. All of it waits on the scheduler and not in the kernel.
 *
 * At every operation on a mutex a thread may lose the processor, for microseconds or now and then for milliseconds: so the orders
 * in which real threads could run are among the histories, although only one runs at a time. Ranks are checked as in lib/base/sync.c.
 */
#include "machine.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "clock.h"
#include "rng.h"
#include "sync.h"
#include "thread.h"
#include "wake.h"

#define FDS_MAX     65536
#define FD_FIRST    100000 /* no descriptor of the kernel has such a number */
#define LONG_MAX_US (3 * SIM_MS)

struct descriptor {
	sim_ready *ready;
	void *object;
	struct co *poller;
};

static struct descriptor fds[FDS_MAX];
static int n_fds;
static int preemption;
static int64_t wall_offset;

void machine_reset(void)
{
	n_fds = 0;
	preemption = 0;
	wall_offset = 0;
}

void machine_set_preemption(int per_mille)
{
	preemption = per_mille;
}

void machine_step_clock(int64_t us)
{
	wall_offset += us;
}

/* ---- clocks, chance ---------------------------------------------------------------------------------------- */

int64_t __wrap_dbha__clock_now(void);
int64_t __wrap_dbha__clock_coarse(void);
int64_t __wrap_dbha__clock_unix(void);
uint64_t __wrap_dbha__rng_entropy(const void *salt);

int64_t __wrap_dbha__clock_now(void)
{
	return sim_now();
}

/* With a tick of 4 ms. */
int64_t __wrap_dbha__clock_coarse(void)
{
	return sim_now() / (4 * SIM_MS) * (4 * SIM_MS);
}

int64_t __wrap_dbha__clock_unix(void)
{
	return 1800000000 * SIM_S + sim_now() + wall_offset;
}

uint64_t __wrap_dbha__rng_entropy(const void *salt)
{
	(void)salt; /* an address: another one in every run */
	return (uint64_t)sim_between(0, INT64_MAX - 1);
}

/* ---- mutexes and conditions -------------------------------------------------------------------------------- */

/* In the place of pthread's own; zeroes, as PTHREAD_MUTEX_INITIALIZER has them, are an open mutex. */
struct lock {
	struct co *owner;
	struct co *waiting;
};

static struct lock *lock_of(struct mutex *mutex)
{
	_Static_assert(sizeof(struct lock) <= sizeof(pthread_mutex_t), "no room");
	return (struct lock *)(void *)&mutex->m;
}

static struct co **list_of(struct cond *cond)
{
	return (struct co **)(void *)&cond->c;
}

static void append(struct co **list, struct co *co)
{
	while (*list)
		list = &(*list)->next;
	co->next = NULL;
	*list = co;
}

static bool take_out(struct co **list, const struct co *co)
{
	while (*list && *list != co)
		list = &(*list)->next;
	bool found = *list;
	if (found)
		*list = co->next;
	return found;
}

static struct co *take_first(struct co **list)
{
	struct co *co = *list;
	if (co)
		*list = co->next;
	return co;
}

static void preempt(void)
{
	if (preemption && sim_chance(preemption))
		co_sleep(sim_chance(30) ? sim_between(0, LONG_MAX_US) : sim_between(0, 60));
}

int dbha__mutex_init(struct mutex *mutex, enum mutex_rank rank)
{
	*lock_of(mutex) = (struct lock){NULL, NULL};
	mutex->rank = rank;
	return 0;
}

void dbha__mutex_fini(struct mutex *mutex)
{
	if (lock_of(mutex)->owner)
		abort(); /* destroyed while held */
}

static void lock(struct mutex *mutex)
{
	struct lock *lock = lock_of(mutex);
	while (lock->owner) {
		append(&lock->waiting, co_self());
		co_wait(SIM_NEVER);
	}
	lock->owner = co_self();
}

static void unlock(struct mutex *mutex)
{
	struct lock *lock = lock_of(mutex);
	if (lock->owner != co_self())
		abort(); /* not held by this thread */
	lock->owner = NULL;
	struct co *next = take_first(&lock->waiting);
	if (next)
		co_wake(next);
}

void dbha__mutex_lock(struct mutex *mutex)
{
	unsigned bit = 1u << mutex->rank;
	if (co_self()->held >= bit)
		abort(); /* a mutex of this or a higher rank is held already */
	preempt();
	lock(mutex);
	co_self()->held |= bit;
}

void dbha__mutex_unlock(struct mutex *mutex)
{
	co_self()->held &= ~(1u << mutex->rank);
	unlock(mutex);
	preempt();
}

void dbha__mutex_lock_for_fork(struct mutex *mutex)
{
	lock(mutex);
}

void dbha__mutex_unlock_after_fork(struct mutex *mutex)
{
	unlock(mutex);
}

int dbha__cond_init(struct cond *cond)
{
	*list_of(cond) = NULL;
	return 0;
}

void dbha__cond_fini(struct cond *cond)
{
	if (*list_of(cond))
		abort(); /* somebody waits */
}

void dbha__cond_signal(struct cond *cond)
{
	struct co *co = take_first(list_of(cond));
	if (co)
		co_wake(co);
}

void dbha__cond_broadcast(struct cond *cond)
{
	while (*list_of(cond))
		dbha__cond_signal(cond);
}

bool dbha__cond_wait(struct cond *cond, struct mutex *mutex, int64_t deadline)
{
	append(list_of(cond), co_self());
	unlock(mutex);
	bool woken = co_wait(deadline);
	if (!woken)
		take_out(list_of(cond), co_self());
	lock(mutex);
	return woken;
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

int dbha__thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
	struct co *co = co_start(run, arg, !thread);
	if (thread)
		*thread = (pthread_t)co;
	return 0;
}

int __wrap_pthread_join(pthread_t thread, void **result);

int __wrap_pthread_join(pthread_t thread, void **result)
{
	(void)result;
	co_join((struct co *)thread); /* NOLINT: the number is the pointer of dbha__thread_start */
	return 0;
}

/* ---- descriptors ------------------------------------------------------------------------------------------- */

int machine_open(sim_ready *ready, void *object)
{
	if (n_fds == FDS_MAX) {
		fprintf(stderr, "sim: more than %d descriptors in one history\n", FDS_MAX);
		exit(2);
	}
	fds[n_fds] = (struct descriptor){ready, object, NULL};
	return FD_FIRST + n_fds++;
}

void machine_notify(int fd)
{
	struct co *poller = fds[fd - FD_FIRST].poller;
	if (poller)
		co_wake(poller);
}

static int look(struct pollfd *items, nfds_t n)
{
	int found = 0;
	for (nfds_t i = 0; i < n; i++) {
		items[i].revents = 0;
		if (items[i].fd < 0)
			continue;
		const struct descriptor *d = &fds[items[i].fd - FD_FIRST];
		short ready = d->ready(d->object);
		items[i].revents = (short)(ready & (items[i].events | POLLHUP | POLLERR));
		found += items[i].revents != 0;
	}
	return found;
}

static void set_poller(const struct pollfd *items, nfds_t n, struct co *co)
{
	for (nfds_t i = 0; i < n; i++)
		if (items[i].fd >= 0)
			fds[items[i].fd - FD_FIRST].poller = co;
}

int __wrap_poll(struct pollfd *items, nfds_t n, int timeout_ms);

/* A look takes a little time, so that nobody can look for ever in no time. */
int __wrap_poll(struct pollfd *items, nfds_t n, int timeout_ms)
{
	int64_t until = timeout_ms < 0 ? SIM_NEVER : sim_now() + timeout_ms * SIM_MS;
	int found = look(items, n);
	if (found > 0 || timeout_ms == 0) {
		co_sleep(1);
		return found;
	}
	bool woken = true;
	while (found == 0 && woken) {
		set_poller(items, n, co_self());
		woken = co_wait(until);
		set_poller(items, n, NULL);
		found = look(items, n);
	}
	return found;
}

/* ---- wake -------------------------------------------------------------------------------------------------- */

static short wake_ready(void *object)
{
	const bool *signalled = object;
	return *signalled ? POLLIN : 0;
}

static bool *flag_of(const struct wake *wake)
{
	return fds[wake->read_fd - FD_FIRST].object;
}

int dbha__wake_init(struct wake *wake)
{
	wake->read_fd = wake->write_fd = machine_open(wake_ready, sched_alloc(sizeof(bool)));
	return 0;
}

void dbha__wake_fini(struct wake *wake)
{
	wake->read_fd = wake->write_fd = -1;
}

void dbha__wake_signal(struct wake *wake)
{
	*flag_of(wake) = true;
	machine_notify(wake->read_fd);
}

void dbha__wake_drain(struct wake *wake)
{
	*flag_of(wake) = false;
}
