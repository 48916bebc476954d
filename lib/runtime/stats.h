/*
 * stats: counters of a node or of a handle, added to without a lock.
 */
#ifndef DBHA_RUNTIME_STATS_H
#define DBHA_RUNTIME_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "dbha.h"

struct stats {
#define DBHA_XX(name, text) _Atomic uint64_t name;
	DBHA_STATS_MAP(DBHA_XX)
#undef DBHA_XX
};

/* Adds n to one counter. Relaxed: a counter orders nothing. */
#define STATS_ADD(stats, name, n) atomic_fetch_add_explicit(&(stats)->name, (uint64_t)(n), memory_order_relaxed)

/* Adds every counter of `from` to `to` and leaves 0, while others go on counting. */
void dbha__stats_move(struct stats *from, struct stats *to);

/* Adds every counter of `stats` to `sum`. */
void dbha__stats_sum(struct stats *stats, dbha_counters *sum);

#endif
