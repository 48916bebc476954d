/*
 * sync: mutexes with a rank, and condition variables on the monotonic clock.
 *
 * A thread takes mutexes in rising rank only. Developer builds (--enable-developer) keep the ranks a thread holds and stop
 * at the first violation; clang's -Wthread-safety checks the annotations at compile time. The order and its reasons are in
 * HACKING.md. Under a mutex: no libpq, no I/O that can block, no formatting.
 */
#ifndef DBHA_BASE_SYNC_H
#define DBHA_BASE_SYNC_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__clang__)
#define CAPABILITY(name) __attribute__((capability(name)))
#define REQUIRES(...)    __attribute__((requires_capability(__VA_ARGS__)))
#define ACQUIRES(...)    __attribute__((acquire_capability(__VA_ARGS__)))
#define RELEASES(...)    __attribute__((release_capability(__VA_ARGS__)))
#define NO_ANALYSIS      __attribute__((no_thread_safety_analysis))
#else
#define CAPABILITY(name)
#define REQUIRES(...)
#define ACQUIRES(...)
#define RELEASES(...)
#define NO_ANALYSIS
#endif

enum mutex_rank {
	RANK_REGISTRY = 1, /* the process's list of handles (fork) */
	RANK_HANDLE,       /* starting and stopping a handle */
	RANK_ENGINE,       /* one per engine, while it steps */
	RANK_STEPPING,     /* the loop, while it steps */
	RANK_SESSION,      /* one per session: what dbha_cancel may touch */
	RANK_POOL,         /* one per node; two are never held together, except at fork */
	RANK_VIEW,
	RANK_RESOLVER,
	RANK_EVENTS,
	RANK_SHARED, /* what handles of the process share, monitor=off */
	RANK_BOOKSHELF,
	RANK_CLASSCACHE,
	RANK_QUEUE, /* one per engine: what was submitted, and what is completed */
};

struct CAPABILITY("mutex") mutex {
	pthread_mutex_t m;
	enum mutex_rank rank;
};

struct cond {
	pthread_cond_t c;
};

int dbha__mutex_init(struct mutex *mutex, enum mutex_rank rank);
void dbha__mutex_fini(struct mutex *mutex);
void dbha__mutex_lock(struct mutex *mutex) ACQUIRES(mutex);
void dbha__mutex_unlock(struct mutex *mutex) RELEASES(mutex);

/* Locks without looking at ranks: at fork every mutex of the library is taken, several of one rank among them. */
void dbha__mutex_lock_for_fork(struct mutex *mutex) ACQUIRES(mutex);
void dbha__mutex_unlock_after_fork(struct mutex *mutex) RELEASES(mutex);

int dbha__cond_init(struct cond *cond);
void dbha__cond_fini(struct cond *cond);
void dbha__cond_signal(struct cond *cond);
void dbha__cond_broadcast(struct cond *cond);

/* Waits until signalled, or woken for no reason, or `deadline` (monotonic us) has passed; false if it has passed. */
bool dbha__cond_wait(struct cond *cond, struct mutex *mutex, int64_t deadline) REQUIRES(mutex);

#endif
