/*
 * drill_gauge.h: finds the outages in a stream of answers: one gauge for writes, one for reads.
 *
 * An outage is the time from the last answered call before it to the first answered call after it, whichever thread
 * made them: as long as anybody gets answers, there is none. Not every pause is one; a thread that sleeps between
 * calls, or a slow disk, makes pauses too. A pause counts
 *
 *   - if it is longer than 100 ms, than five times the pace that the drill keeps, and than five times the median pause
 *     so far (a cluster that answers every 150 ms is slow, not down), or
 *   - if it is 10 ms or longer and a call failed in it, or
 *   - if it is 10 ms or longer and the library reported an event in it that explains it, such as a lost primary.
 *
 * The last of these is decided at the end, because events arrive later than the answers they explain.
 */
#ifndef DRILL_GAUGE_H
#define DRILL_GAUGE_H

#include "drill_latency.h"

#include <dbha.h>

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* The same moment on both clocks: one for durations, one to compare with other programs. */
struct drill_instant {
	int64_t monotonic_us;
	int64_t unix_us;
};

struct drill_instant drill_now(void);

struct drill_outage {
	struct drill_instant start;
	struct drill_instant end;
	bool certain; /* counts whether or not an event explains it */
	bool open;    /* it was not over when the drill ended */
	char cause[2 * DBHA_WHY_MAX + 64];
};

struct drill_gauge {
	pthread_mutex_t lock;
	/* Set before the threads start. */
	bool reads;
	int64_t quiet_us; /* no shorter pause is an outage by its length alone */
	/* Under the lock until the threads have ended. */
	struct drill_instant last;  /* the last answer, or the start */
	struct drill_instant ended; /* when the last thread stopped */
	bool troubled;              /* a call has failed since `last` */
	char trouble[DBHA_WHY_MAX];
	char first_failure[DBHA_WHY_MAX]; /* of the whole drill, for the report */
	struct drill_latency pauses;      /* between answers */
	struct drill_outage *outages;
	int n_outages;
	int allocated;
};

void drill_gauge_init(struct drill_gauge *gauge, bool reads, int64_t quiet_us);
void drill_gauge_start(struct drill_gauge *gauge);
void drill_gauge_free(struct drill_gauge *gauge);

/* Any thread: a call was answered at this moment. */
void drill_gauge_answer(struct drill_gauge *gauge, struct drill_instant now);

/* Any thread: a call failed. */
void drill_gauge_trouble(struct drill_gauge *gauge, const char *message);

/* Any thread: this thread makes no more calls. */
void drill_gauge_end(struct drill_gauge *gauge, struct drill_instant now);

/*
 * Copies the certain outage that comes after the first `*seen` entries and moves `*seen` behind it; false if there is
 * none. For showing outages while the drill runs.
 */
bool drill_gauge_next(struct drill_gauge *gauge, int *seen, struct drill_outage *outage);

/*
 * After all threads have ended: closes an outage that is still open, gives each its cause from the events that happened
 * in it, and removes the pauses that nothing explains.
 */
void drill_gauge_finish(struct drill_gauge *gauge, const dbha_event *events, int n_events);

/* The length of the longest outage; 0 if there was none. */
int64_t drill_gauge_longest_us(const struct drill_gauge *gauge);

#endif
