#include "stats.h"

void dbha__stats_sum(struct stats *stats, dbha_counters *sum)
{
#define DBHA_XX(name, text) sum->name += atomic_load_explicit(&stats->name, memory_order_relaxed);
	DBHA_STATS_MAP(DBHA_XX)
#undef DBHA_XX
}

void dbha__stats_move(struct stats *from, struct stats *to)
{
#define DBHA_XX(name, text)                                                                                            \
	atomic_fetch_add_explicit(&to->name, atomic_exchange_explicit(&from->name, 0, memory_order_relaxed),               \
	                          memory_order_relaxed);
	DBHA_STATS_MAP(DBHA_XX)
#undef DBHA_XX
}
