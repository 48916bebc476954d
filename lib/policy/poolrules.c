#include "poolrules.h"

static int min_int(int a, int b)
{
	return a < b ? a : b;
}

int dbha__pool_wanted(const struct pool_limits *limits, const struct pool_counts *counts)
{
	int total = counts->idle + counts->used + counts->connecting;
	int for_waiters = counts->waiting - counts->connecting;
	int for_minimum = limits->min_size - total;
	int wanted = for_waiters > for_minimum ? for_waiters : for_minimum;
	wanted = min_int(wanted, limits->max_size - total);
	wanted = min_int(wanted, limits->max_connecting - counts->connecting);
	return wanted > 0 ? wanted : 0;
}

bool dbha__pool_may_wait(const struct pool_limits *limits, const struct pool_counts *counts)
{
	return limits->max_waiting == 0 || counts->waiting < limits->max_waiting;
}

int64_t dbha__pool_expiry(const struct pool_limits *limits, int64_t now_us, struct rng *rng)
{
	if (limits->max_lifetime_ms == 0)
		return INT64_MAX;
	int64_t lifetime = (int64_t)limits->max_lifetime_ms * 1000;
	return now_us + lifetime - (int64_t)dbha__rng_below(rng, (uint64_t)lifetime / 4 + 1);
}

bool dbha__pool_idle_too_long(const struct pool_limits *limits, const struct pool_counts *counts, int64_t now_us,
                              int64_t idle_since_us)
{
	return counts->idle + counts->used > limits->min_size &&
	       now_us - idle_since_us > (int64_t)limits->max_idle_ms * 1000;
}
