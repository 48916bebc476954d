/*
 * view: publishes the topology. What is published never changes again; readers take a reference and drop it, and those who
 * wait for the cluster to change are woken.
 */
#ifndef DBHA_RUNTIME_VIEW_H
#define DBHA_RUNTIME_VIEW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "sync.h"
#include "topology.h"
#include "wake.h"

struct shared_view {
	_Atomic int refs;
	struct view view;
};

/* Somebody who waits for other things as well: told by `wake`, as those who wait in dbha__view_wait are. */
struct view_watcher {
	struct wake *wake;
	bool watching; /* false again in a forked child */
	struct view_watcher *next, *prev;
};

/* The padding is meant: write_way shares its cache line with nothing that is written. */
struct view_holder { /* NOLINT(clang-analyzer-optin.performance.Padding) */
	struct mutex lock;
	struct cond changed;
	struct shared_view *current; /* never NULL between init and fini */
	struct view_watcher *watchers;
	bool closed;
	/*
	 * Where a write goes while there is one undisputed primary: its generation, shifted left by 8, and its index + 1; 0: look
	 * at the view. Read by every statement, so it has a cache line that changes only with the cluster.
	 */
	_Alignas(64) _Atomic uint64_t write_way;
};

/* 0, or an errno. The first view knows nothing of n_nodes nodes. */
int dbha__view_init(struct view_holder *holder, int n_nodes);
void dbha__view_fini(struct view_holder *holder);

/* Publishes a copy; false when out of memory (the old one stays). Waiters wake if the version is another one. */
bool dbha__view_publish(struct view_holder *holder, const struct view *view);

/* The view of now; give it back with dbha__view_drop. Any thread. */
struct shared_view *dbha__view_take(struct view_holder *holder);
void dbha__view_drop(struct shared_view *shared);

/*
 * The view of now for a few instructions, under the holder's lock: cheaper than a reference. Only pure functions may be
 * called before it is returned.
 */
const struct view *dbha__view_borrow(struct view_holder *holder) ACQUIRES(holder->lock);
void dbha__view_return(struct view_holder *holder) RELEASES(holder->lock);

/* Blocks until the version is not `version`, the holder is closed (false), or `deadline` has passed (false). */
bool dbha__view_wait(struct view_holder *holder, uint64_t version, int64_t deadline);

/* From now on its wake is signalled when the version has changed, and when the holder is closed; until unwatch. Any thread. */
void dbha__view_watch(struct view_holder *holder, struct view_watcher *watcher);
void dbha__view_unwatch(struct view_holder *holder, struct view_watcher *watcher);

/* Wakes everybody; from now on nobody waits. */
void dbha__view_close(struct view_holder *holder);

/* In a forked child, before any other thread exists: nothing is known again, and nobody waits. */
void dbha__view_reset_after_fork(struct view_holder *holder, int n_nodes);

#endif
