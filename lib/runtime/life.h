/*
 * life: what a handle is made of; its lazy start, its stop in two phases, and its new beginning in a forked child.
 *
 * References keep the memory: one of dbha_open, one per call in progress, lease, session and listener. dbha_close gives up the
 * first; who gives up the last one frees.
 */
#ifndef DBHA_RUNTIME_LIFE_H
#define DBHA_RUNTIME_LIFE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "bookshelf.h"
#include "config.h"
#include "connector.h"
#include "events.h"
#include "fence_file.h"
#include "loop.h"
#include "monitor.h"
#include "pool.h"
#include "resolver.h"
#include "stats.h"
#include "sync.h"
#include "trace.h"
#include "view.h"
#include "wake.h"

/* The padding is meant: what every call writes shares no cache line with what it only reads. */
struct dbha { /* NOLINT(clang-analyzer-optin.performance.Padding) */
	struct config config;
	int n_places; /* for nodes: pools, stats, rows of the view */
	struct kept_names names;
	_Alignas(64) _Atomic int refs; /* written by every call: not on the line of what is only read */
	_Alignas(64) _Atomic bool closed;
	_Atomic bool started;
	_Atomic unsigned fork_generation; /* of the process it runs in */
	_Atomic uint64_t next_ticket;     /* order of arrival of calls */
	_Atomic uint64_t randomness;
	_Atomic int kept; /* of refs, those of sessions that do nothing now, and of listeners: no reason to wait at close */
	_Atomic bool marks_refused;    /* the role may not ask what wire/mark asks */
	_Atomic int64_t retries_spent; /* see policy/budget */
	_Atomic int64_t piped;         /* statements that engines have sent, which take no connection each */
	_Atomic int piped_most;        /* and how many they can have under way at one moment */
	_Atomic unsigned lost_told;    /* the timeline for which LOST_WRITES was told last */
	int64_t began_us;              /* when it was started in this process */
	struct mutex lock;             /* starting, stopping, reviving */
	struct trace trace;
	struct wake wake;
	struct resolver *resolver;
	struct view_holder view;
	struct events events;
	struct fence_file fence;   /* of the loop, once it runs; before, under `lock` */
	struct stats handle_stats; /* what concerns no single node */
	_Alignas(64) struct stats stats[CONFIG_NODES_MAX];
	struct pool pools[CONFIG_NODES_MAX];
	struct monitor monitor;
	struct connector connector;
	struct loop loop;
	struct bookshelf bookshelf;
	char *shared_key;         /* monitor=off, see dbha__shared_key; else NULL */
	struct dbha *next, *prev; /* the process's handles, for fork */
};

/* Builds a handle; nothing is connected and no thread runs yet. Copies `config`. NULL with `err` filled. */
dbha *dbha__life_new(const struct config *config, dbha_error *err);

/*
 * Enters a public call: checks h, starts the handle if this is its first call in this process, and takes a reference.
 * DBHA_OK, or the code of the error it has reported.
 */
int dbha__life_enter(dbha *h, dbha_error *err);

/* In a forked child, before its first call: makes the handle the child's own. Otherwise nothing. */
void dbha__life_follow_fork(dbha *h);

/* Leaves: gives the reference back. */
void dbha__life_leave(dbha *h);

/*
 * With monitor=off: looks at the cluster where that is due, without waiting; and if what is known is old, waits for news, at most until
 * `deadline`. With a thread: nothing. No lock may be held.
 */
void dbha__life_refresh(dbha *h, int64_t deadline);

/* As dbha__view_wait; with monitor=off the caller's thread does meanwhile what the background thread would do. */
bool dbha__life_wait_view(dbha *h, uint64_t version, int64_t deadline);

/* One turn of that for whoever waits for something else: false, another thread is at it. */
bool dbha__life_turn(void *h, int64_t until);

/* Closes, see dbha_close. */
void dbha__life_close(dbha *h, int drain_ms);

/* The name of the node that is at a place now. Any thread; what is returned lives as long as the handle. */
const char *dbha__life_node_name(dbha *h, int place);

/* The same, as a view has it. */
const char *dbha__life_name_in(const dbha *h, const struct view *view, int place);

/* 64 random bits, from any thread. */
uint64_t dbha__life_random(dbha *h);

#endif
