/*
 * drill_latency.h: a histogram of durations in microseconds that keeps 3 per cent of precision in 4 kB.
 *
 * Up to 64 us each value has its own bucket; above, each power of two has 32. One thread fills one; they are merged
 * afterwards.
 */
#ifndef DRILL_LATENCY_H
#define DRILL_LATENCY_H

#include <stdint.h>

#define DRILL_LATENCY_BUCKETS (64 + 32 * 31) /* up to 2^37 us, more than a day */

struct drill_latency {
	int64_t count;
	int64_t max_us;
	uint32_t buckets[DRILL_LATENCY_BUCKETS];
};

void drill_latency_add(struct drill_latency *latency, int64_t us);
void drill_latency_merge(struct drill_latency *into, const struct drill_latency *from);

/* The duration that `per_cent` of all calls did not exceed, from 0 to 100; 0 if there were none. */
int64_t drill_latency_percentile(const struct drill_latency *latency, double per_cent);

#endif
