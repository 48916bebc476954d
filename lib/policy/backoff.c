#include "backoff.h"

int64_t dbha__backoff_us(struct rng *rng, int base_ms, int cap_ms, int n)
{
	int64_t limit = (int64_t)base_ms * 1000;
	int64_t cap = (int64_t)cap_ms * 1000;
	for (int i = 0; i < n && limit < cap; i++)
		limit *= 2;
	if (limit > cap)
		limit = cap;
	return (int64_t)dbha__rng_below(rng, (uint64_t)limit + 1);
}
