/*
 * shared: what the handles of a process have seen of a cluster, kept for the next one. With monitor=off a handle may live for one
 * request only: it begins with the view of the one before, instead of asking every node again.
 */
#ifndef DBHA_RUNTIME_SHARED_H
#define DBHA_RUNTIME_SHARED_H

#include <stdbool.h>

#include "config.h"
#include "lag.h"
#include "topology.h"

/*
 * What handles must have in common to see the same: nodes, role, database, TLS and the like, but no secret. Owned by the caller; NULL:
 * out of memory.
 */
char *dbha__shared_key(const struct config *config);

/* Any thread. Keeps a copy; without memory for it, nothing. */
void dbha__shared_store(const char *key, const struct view *view, const struct lag_history *lag);

/* Fills in what is known, and returns true; false: nothing. How old it is says view->observed_us. */
bool dbha__shared_load(const char *key, struct view *view, struct lag_history *lag);

void dbha__shared_lock_for_fork(void);
void dbha__shared_unlock_after_fork(void);

#endif
