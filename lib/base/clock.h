/*
 * clock: monotonic time in microseconds, deadlines as points on it, and the wall clock for people.
 */
#ifndef DBHA_BASE_CLOCK_H
#define DBHA_BASE_CLOCK_H

#include <stdint.h>

#define CLOCK_NEVER INT64_MAX

/* CLOCK_MONOTONIC in microseconds. */
int64_t dbha__clock_now(void);

/*
 * The same clock as of its last tick, a few milliseconds ago at most, at a fifth of the cost: for what only has to be roughly
 * right, such as how long a connection has been idle.
 */
int64_t dbha__clock_coarse(void);

/* CLOCK_REALTIME in microseconds since 1970; never used to measure a duration. */
int64_t dbha__clock_unix(void);

/* The milliseconds to give poll(2) so that it does not return before `deadline`: rounded up, 0 if past, -1 for NEVER. */
int dbha__clock_poll_ms(int64_t now, int64_t deadline);

static inline int64_t ms_to_us(int64_t ms)
{
	return ms * 1000;
}

#endif
