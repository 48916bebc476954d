/*
 * pool: the connections to one node. Checkout, direct hand-over to the longest waiter, drain.
 *
 * The pool never connects and never closes: under its lock it reserves places and takes connections out; connects are made
 * by the connector, closes by whoever called, outside the lock. A connection that comes back while somebody waits goes
 * straight to the one who has waited longest (by ticket, which a call keeps while it moves from node to node); while
 * anybody waits, nobody is served past the queue.
 *
 * "open" follows the topology: a pool is open while its node can be given work. Whoever waits at a pool that closes is sent
 * away to be routed anew.
 */
#ifndef DBHA_RUNTIME_POOL_H
#define DBHA_RUNTIME_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "dbha.h"
#include "poolrules.h"
#include "stats.h"
#include "sync.h"

struct pool;

/* A place in a pool with its connection; handed to the application, it is the lease. */
struct dbha_conn {
	struct conn *conn;
	struct pool *pool;
	dbha *handle;
	const char *node_name;
	uint64_t generation;
	int64_t connected_us; /* since then the server has not crashed: not even one of its backends, which would end all */
	int64_t expires_us;
	int64_t since_us;  /* used or idle since */
	int64_t rested_us; /* used: how long it had been idle before */
	bool used;
	_Atomic bool movable;                  /* used: what runs on it may just as well be run elsewhere */
	bool cut;                              /* its socket has been shut down */
	bool orphan;                           /* over fork: of a pool that started anew; it is freed at release */
	struct dbha_conn *all_next, *all_prev; /* every place of the pool */
	struct dbha_conn *idle_next, *idle_prev;
};

enum acquire_end {
	ACQUIRED,
	ACQUIRE_REROUTE,       /* the node is not what it was: look at the topology again */
	ACQUIRE_NO_CONNECTION, /* it could not be connected to, and there is no connection to wait for */
	ACQUIRE_TIMEOUT,
	ACQUIRE_TOO_MANY, /* pool_max_waiting callers wait already */
	ACQUIRE_STOPPED,
};

/*
 * A caller in the queue: on its own stack while it waits there, or of somebody who does not wait in the queue, is told by `wake` that
 * it has been served, and then asks (dbha__pool_ask).
 */
struct waiter {
	struct wake *wake;  /* NULL: it waits for `served` */
	struct cond served; /* only with wake == NULL */
	uint64_t ticket;
	bool done;
	enum acquire_end end;
	struct dbha_conn *slot;
	struct waiter *next, *prev;
};

struct pool {
	/* What every acquire and release touches lies in two cache lines, which travel from processor to processor. */
	_Alignas(64) struct mutex lock;
	struct dbha_conn *idle_newest;
	struct waiter *first;
	uint64_t generation;
	struct pool_counts counts;
	_Atomic int load; /* counts.used and counts.waiting together, for those who route without the lock */
	bool open;
	bool stopped;  /* for good */
	bool draining; /* no connection joins or comes back for use */
	struct dbha_conn *idle_oldest;
	struct stats *stats;
	struct waiter *last;
	struct dbha_conn *all;
	const char *name; /* of the node */
	struct pool_limits limits;
	int64_t connect_failed_us; /* when a connect failed last; 0: the last one was made */
	int connects_failed;       /* since the last one was made */
	char connect_why[DBHA_WHY_MAX];
};

int dbha__pool_init(struct pool *pool, const char *name, const struct pool_limits *limits, struct stats *stats);

/* Frees an empty pool. */
void dbha__pool_fini(struct pool *pool);

/* What an acquire asks for. */
struct acquire {
	uint64_t ticket;     /* order of arrival */
	uint64_t generation; /* of the node, as it was routed to */
	int64_t now;
	int64_t deadline;
	struct wake *connector; /* signalled when a connection has to be made */
	/* What the caller does while it waits, see dbha__life_turn; NULL: nothing, a thread does it. */
	bool (*turn)(void *arg, int64_t until);
	void *arg;
};

/* Takes an idle connection if nobody waits for one; NULL otherwise. Never blocks. */
struct dbha_conn *dbha__pool_try(struct pool *pool, uint64_t generation, int64_t now);

/* Takes a connection, waiting for one if need be. */
enum acquire_end dbha__pool_acquire(struct pool *pool, const struct acquire *how, struct dbha_conn **out);

/*
 * The same without waiting. True: it has ended, `waiter` says how. False: the waiter stands in the queue and keeps its place; its wake is
 * signalled when it has been served or sent away. The waiter has `wake` set; `how` needs no deadline.
 */
bool dbha__pool_ask(struct pool *pool, const struct acquire *how, struct waiter *waiter);

/* Whether a waiter that stands in the queue has been served or sent away; it then says how. */
bool dbha__pool_answered(struct pool *pool, struct waiter *waiter);

/* Leaves the queue. NULL, or a connection that was handed to the waiter meanwhile: it is given back with dbha__pool_release. */
struct dbha_conn *dbha__pool_unask(struct pool *pool, struct waiter *waiter);

/*
 * Gives a connection back. reusable: it is in order and may serve somebody else. Returns NULL, or the connection, taken out
 * of the pool: the caller closes it with dbha__pool_dispose.
 */
struct dbha_conn *dbha__pool_release(struct pool *pool, struct dbha_conn *slot, bool reusable, int64_t now);

/* Closes the connection and frees the place, one or a list linked by all_next. NULL is allowed. No lock may be held. */
void dbha__pool_dispose(struct dbha_conn *list);

/* ---- for the connector -------------------------------------------------------------------------------------- */

/*
 * Reserves places for as many connects as are wanted now, so that at most `most` are under way; returns how many are new. Each
 * ends with one of the two below.
 */
int dbha__pool_claim(struct pool *pool, int most);

/* A connect has succeeded: the new connection joins. NULL, or the place itself if the pool does not want it any more. */
struct dbha_conn *dbha__pool_connected(struct pool *pool, struct dbha_conn *slot, int64_t now);

/*
 * A connect has failed. Those who wait for nothing else are sent away with ACQUIRE_NO_CONNECTION: when it was the last one under way,
 * or when more have failed, one after the other, than can be under way at a time.
 */
void dbha__pool_connect_failed(struct pool *pool, const char *why, int64_t now);

/* Takes out what has been idle or alive too long, or was closed by the server: a list for dbha__pool_dispose. */
struct dbha_conn *dbha__pool_expired(struct pool *pool, int64_t now);

/*
 * The patrol: where somebody waits for an answer beyond his deadline it asks the server to stop, and CONN_DRAIN_US later it cuts the
 * connection. Returns when to come again, at most CONN_PATROL_US from now.
 */
int64_t dbha__pool_patrol(struct pool *pool, int64_t now);

/* ---- for the monitor ---------------------------------------------------------------------------------------- */

/*
 * Follows the topology. A new generation: every older connection is cut at once, in use or not; the idle ones are returned
 * for dbha__pool_dispose. Not open: waiters are sent away. Idle connections stay: the node may come back as it was.
 */
struct dbha_conn *dbha__pool_follow(struct pool *pool, bool open, uint64_t generation);

/*
 * Draining: the node leaves. What is in use may go on to its end and is closed when it comes back; the idle connections are returned
 * for dbha__pool_dispose. false ends it.
 */
struct dbha_conn *dbha__pool_drain(struct pool *pool, bool draining);

/* No connection is there or being made. */
bool dbha__pool_is_empty(struct pool *pool);

/*
 * The node is silent and others are not: the reads that wait for it are cut, so that their callers run them elsewhere.
 * Anything else waits on: a slow statement is not a dead host.
 */
void dbha__pool_cut_movable(struct pool *pool);

/* For good: sends waiters away and returns the idle connections. With `cut`, those in use are cut. */
struct dbha_conn *dbha__pool_stop(struct pool *pool, bool cut);

/* ---- for messages and status -------------------------------------------------------------------------------- */

struct pool_report {
	struct pool_counts counts;
	int64_t longest_use_us; /* of the connection held longest; 0 if none is held */
	int64_t connect_failed_us;
	char connect_why[DBHA_WHY_MAX];
};

void dbha__pool_report(struct pool *pool, int64_t now, struct pool_report *report);

/* In a forked child, before anything else is called: everything in the pool is the parent's. */
void dbha__pool_abandon(struct pool *pool, int dev_null);

/* In a forked child, once: forgets the parent's connections. Those of other threads are leaked, they may be in mid-call. */
void dbha__pool_reset_after_fork(struct pool *pool);

#endif
