/*
 * monitor: observes every node, keeps the topology, publishes it.
 *
 * monitor_step(now) does what is due and what has become ready, and never blocks; the thread around it only waits. At most
 * one probe is under way per node, over a connection that is kept. Probes come every probe_interval; all at once when a call
 * meets a failure; every probe_interval_fast while there is no primary. A kept connection also speaks by itself: the
 * end of its stream is seen at once.
 */
#ifndef DBHA_RUNTIME_MONITOR_H
#define DBHA_RUNTIME_MONITOR_H

#include <poll.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "dial.h"
#include "events.h"
#include "fence_file.h"
#include "lag.h"
#include "places.h"
#include "pool.h"
#include "resolver.h"
#include "rng.h"
#include "topology.h"
#include "trace.h"
#include "view.h"
#include "wake.h"

enum probe_phase {
	PROBE_RESTING,   /* until due_us */
	PROBE_RESOLVING, /* until the resolver knows an address, or the deadline */
	PROBE_DIALING,
	PROBE_ASKING, /* over the kept connection */
};

struct probe {
	enum probe_phase phase;
	struct conn *conn; /* kept between probes; NULL if there is none */
	struct dial dial;
	struct observation observation;
	int64_t began_us;
	int64_t deadline;
	int64_t due_us;
	int dial_failures;     /* in a row */
	int64_t not_before_us; /* the next dial after one that failed */
	bool
	    in_step; /* the last one was at the time of an incident, as in every other process: leave their step at the next rest */
	bool old;            /* monitor=off: nobody looked while its answer may have come: ask again */
	uint64_t statements; /* that the node had done by the beginning of the probe, or of its extension */
};

/* What the monitor works on and with; it owns none of it. */
struct monitor_world {
	const struct config *config;
	struct resolver *resolver;
	struct kept_names *names;
	struct view_holder *holder;
	struct pool *pools;         /* one per node */
	struct stats *stats;        /* one per node */
	struct stats *handle_stats; /* what concerns no single node */
	struct events *events;
	const struct trace *trace;
	struct wake *wake;
	struct fence_file *fence; /* NULL: none, as if it had no path */
	const char *shared_key;   /* see dbha__shared_key; NULL: a thread watches, and nothing is shared */
};

/* A trouble that a call has met on a node. */
struct report {
	enum failure failure;
	char why[DBHA_WHY_MAX];
};

struct monitor {
	struct monitor_world world;
	struct view view; /* the working copy; only the stepping thread touches it */
	struct lag_history lag;
	int64_t sampled_us; /* when the primary was seen whose position is its newest sample */
	struct places places;
	struct probe probes[CONFIG_NODES_MAX];
	struct rng rng;
	_Atomic(struct report *) reports[CONFIG_NODES_MAX]; /* of calls, until the next step */
	_Atomic bool alarmed;                               /* somebody met a failure: probe all nodes now */
	int64_t alarm_us;                                   /* when that was done last */
	int64_t no_primary_since_us;                        /* -1: there is one */
};

void dbha__monitor_init(struct monitor *monitor, const struct monitor_world *world, int64_t now);

/* Begins with what another handle of the process has seen, if it is fresh. Before the first step. */
void dbha__monitor_adopt(struct monitor *monitor, int64_t now);

/*
 * By the connector, on the same thread: a new connection to a node was answered by another server than the monitor knows
 * there (a virtual address or a proxy has moved). What it said counts as an observation, and the kept connection is doubted.
 */
void dbha__monitor_contradicted(struct monitor *monitor, int node, const struct observation *seen, int64_t now);

/* The name of a node. The stepping thread; what is returned lives as long as the handle. */
const char *dbha__monitor_name(const struct monitor *monitor, int node);

/* Closes the probe connections. */
void dbha__monitor_fini(struct monitor *monitor);

/* Any thread: all nodes are to be probed at once. Cheap; many at a time count as one. */
void dbha__monitor_alarm(struct monitor *monitor);

/*
 * Any thread: a call has met a trouble of the node that its probes do not meet (FAILURE_DISK_FULL). Shown in the topology; of
 * several at a time the newest.
 */
void dbha__monitor_report(struct monitor *monitor, int node, enum failure failure, const char *why);

/* By the connector, on the same thread: the node lets nobody new in, or does again (seen, not NULL). */
void dbha__monitor_closed_door(struct monitor *monitor, int node, enum failure failure, const char *why, int64_t now);
void dbha__monitor_open_door(struct monitor *monitor, int node, const struct observation *seen, int64_t now);

/* Fills one pollfd per node (fd -1 where there is nothing to wait for). */
void dbha__monitor_watch(const struct monitor *monitor, struct pollfd *items);

/* Does what is due at `now` and what `items` (after poll) report; returns when it wants to be called next. */
int64_t dbha__monitor_step(struct monitor *monitor, int64_t now, const struct pollfd *items);

/*
 * Nobody has stepped for gap_us (monitor=off, between two calls): what is under way was not looked at, so that its time stood still.
 */
void dbha__monitor_skip(struct monitor *monitor, int64_t gap_us);

/* In a forked child: the probe connections are the parent's. */
void dbha__monitor_abandon(struct monitor *monitor, int dev_null);

#endif
