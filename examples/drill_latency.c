/*
 * drill_latency.c: adds durations to a histogram and reads percentiles from it.
 */
#include "drill_latency.h"

/* Above 64, a value has `shift` bits more than the six that are kept; the top one of these six is always set. */
static int bucket_of(int64_t us)
{
	if (us < 64)
		return us < 0 ? 0 : (int)us;
	int shift = 63 - __builtin_clzll((unsigned long long)us) - 5;
	int bucket = 64 + (shift - 1) * 32 + (int)((us >> shift) - 32);
	return bucket < DRILL_LATENCY_BUCKETS ? bucket : DRILL_LATENCY_BUCKETS - 1;
}

/* The largest value that falls into a bucket. */
static int64_t top_of(int bucket)
{
	if (bucket < 64)
		return bucket;
	int shift = (bucket - 64) / 32 + 1;
	return (((int64_t)(bucket - 64) % 32 + 33) << shift) - 1;
}

void drill_latency_add(struct drill_latency *latency, int64_t us)
{
	latency->count++;
	latency->buckets[bucket_of(us)]++;
	if (us > latency->max_us)
		latency->max_us = us;
}

void drill_latency_merge(struct drill_latency *into, const struct drill_latency *from)
{
	into->count += from->count;
	if (from->max_us > into->max_us)
		into->max_us = from->max_us;
	for (int i = 0; i < DRILL_LATENCY_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

int64_t drill_latency_percentile(const struct drill_latency *latency, double per_cent)
{
	int64_t wanted = (int64_t)((double)latency->count * per_cent / 100 + 0.999999);
	int64_t seen = 0;
	for (int i = 0; i < DRILL_LATENCY_BUCKETS; i++) {
		seen += latency->buckets[i];
		if (seen >= wanted && seen > 0)
			return top_of(i) < latency->max_us ? top_of(i) : latency->max_us;
	}
	return 0;
}
