/*
 * history: one of them, from its seed to its end.
 */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include "world.h"

/* What came of it is in `world`. */
void history_run(uint64_t seed, bool tracing, bool names_move);

#endif
