/*
 * poolrules: the decisions of a pool, from its counts: how many connects to begin, which connection is too old. Pure.
 */
#ifndef DBHA_POLICY_POOLRULES_H
#define DBHA_POLICY_POOLRULES_H

#include <stdbool.h>
#include <stdint.h>

#include "rng.h"

struct pool_limits {
	int min_size;
	int max_size;
	int max_connecting;
	int max_waiting; /* 0: no limit */
	int max_idle_ms;
	int max_lifetime_ms; /* 0: no limit */
};

struct pool_counts {
	int idle;
	int used;
	int connecting;
	int waiting;
};

/*
 * How many more connects to begin now: one for each waiter who is not served by a connect under way, and as many as are
 * missing to min_size; never above max_size in all or max_connecting at a time.
 */
int dbha__pool_wanted(const struct pool_limits *limits, const struct pool_counts *counts);

/* Whether one more caller may queue up. */
bool dbha__pool_may_wait(const struct pool_limits *limits, const struct pool_counts *counts);

/*
 * When a connection made now is to be closed: max_lifetime less up to a quarter of it, drawn at random, so that
 * connections made together are not re-made together. INT64_MAX for no limit.
 */
int64_t dbha__pool_expiry(const struct pool_limits *limits, int64_t now_us, struct rng *rng);

/* Whether the connection idle longest, since `idle_since_us`, is one too many. */
bool dbha__pool_idle_too_long(const struct pool_limits *limits, const struct pool_counts *counts, int64_t now_us,
                              int64_t idle_since_us);

#endif
