/*
 * vtime: virtual time. An ordered queue of events, and threads that are coroutines: one runs at a time, it gives way only
 * where it would block or where it is preempted on purpose, and while all of them wait the clock jumps to the next event. So
 * a history of minutes takes milliseconds, and one seed gives one history, bit for bit.
 */
#ifndef SIM_VTIME_H
#define SIM_VTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rng.h"

#define SIM_MS    ((int64_t)1000)
#define SIM_S     ((int64_t)1000000)
#define SIM_NEVER INT64_MAX

/* A thread. The members are the scheduler's, except where said. */
struct co {
	struct co *next; /* in the list of who waits for a mutex or a condition (machine.c) */
	uint64_t waits;  /* counts its waits, so that an alarm of an earlier one is known as such */
	bool waiting;
	bool woken;
	bool done;
	bool detached;
	unsigned held; /* ranks of the mutexes it holds (machine.c) */
	struct co *joiner;
	void *(*run)(void *arg);
	void *arg;
	void *context;
};

/* The virtual time in microseconds. */
int64_t sim_now(void);

/* Begins a history: no events, no threads, time at its start. Whatever is left of the one before is dropped. */
void sched_reset(uint64_t seed);

/* Calls fn(arg, number) at `at`, on no thread: it must not block. Events of one time run in the order they were made in. */
void sched_at(int64_t at, void (*fn)(void *arg, uint64_t number), void *arg, uint64_t number);

/* Runs events until no thread is left, or something is wrong: then a line that says what, else NULL. */
const char *sched_run(void);

/* Memory that lives until the next history, cleared. */
void *sched_alloc(size_t size);

/* Starts a thread, which first runs when the running one gives way. */
struct co *co_start(void *(*run)(void *arg), void *arg, bool detached);
struct co *co_self(void);

/* Waits for co_wake (true), or until `until` (false). */
bool co_wait(int64_t until);
void co_wake(struct co *co);
void co_sleep(int64_t us);
void co_join(struct co *co);

/* ---- chance: one stream for the whole history --------------------------------------------------------------- */

/* Evenly from low to high, both included. */
int64_t sim_between(int64_t low, int64_t high);
bool sim_chance(int per_mille);

#endif
