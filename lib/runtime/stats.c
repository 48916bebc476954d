#include "stats.h"

void dbha__stats_sum(struct stats *stats, dbha_counters *sum)
{
#define DBHA_XX(name, text) sum->name += atomic_load_explicit(&stats->name, memory_order_relaxed);
	DBHA_STATS_MAP(DBHA_XX)
#undef DBHA_XX
}
