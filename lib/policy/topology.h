/*
 * topology: what is known of the cluster, and how an observation changes it.
 *
 * apply(view, observation) -> new view and events. Pure: no clock, no I/O, no memory of its own. All of P1 is decided
 * here: the highest timeline ever seen on the cluster is kept, a primary below it is fenced, two primaries on it are a
 * split brain, a server with another system identifier is foreign.
 *
 * Settling: until every node has answered or failed once, nothing is routed. A process that starts while a stale primary
 * is listed first must not write to it just because it answered first; and which cluster is ours, where the hosts disagree,
 * is told by the majority of those that answered (the first listed on a tie).
 */
#ifndef DBHA_POLICY_TOPOLOGY_H
#define DBHA_POLICY_TOPOLOGY_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "dbha.h"
#include "history.h"

#define TOPOLOGY_EVENTS_MAX (2 * CONFIG_NODES_MAX + 4)

/* Why a node did not answer. */
enum failure {
	FAILURE_NONE = 0,
	FAILURE_SILENT,      /* a deadline passed: it may be slow, stopped or cut off */
	FAILURE_LOST,        /* an open connection ended: its own re-connect will tell */
	FAILURE_UNREACHABLE, /* connection refused, no route, no such socket, no address */
	FAILURE_STARTING,    /* 57P03 */
	FAILURE_FULL,        /* 53300 */
	FAILURE_REFUSED,     /* 28xxx, 3D000 and the like: it is alive and does not want us */
	FAILURE_DISK_FULL,   /* 53100, met by a statement */
};

/* What one probe of one node found, or why it found nothing. */
struct observation {
	int node;
	int64_t at_us; /* monotonic, when it ended */
	enum failure failure;
	const char *why; /* of a failure, for people; borrowed; may be NULL */
	/* The rest is of an answer. What the role of the probe may not read is 0. */
	bool kept; /* over a connection that was open: whether the server lets in new ones it does not tell */
	bool in_recovery;
	bool read_only; /* default_transaction_read_only is on */
	uint64_t system_identifier;
	uint32_t timeline;
	uint64_t lsn;        /* of a primary what it has flushed, of a standby what it has replayed */
	uint64_t replay_lsn; /* of a primary: where its recovery ended; 0: NULL, it had none */
	int64_t started_us;  /* pg_postmaster_start_time(), unix us */
	int64_t latency_us;
};

/*
 * A trouble that does not keep the node from answering probes over an open connection (FULL, REFUSED, DISK_FULL) is shown until
 * this long after the last report of it, or until it is disproved.
 */
#define TROUBLE_HOLD_US ((int64_t)5000000)

/*
 * A node that comes back is given work by and by: a sixteenth of its share of the reads at first, and twice as much after each
 * of these. Its caches are cold, and every process that uses it has seen it come back within the same second.
 */
#define WARMING_STEP_US ((int64_t)1000000)
#define WARMING_STEPS   4

/* Whether there is a node at this place (discover=dns; otherwise each place has its node, for ever). */
enum presence {
	PRESENT = 0,
	LEAVING, /* its address is gone: no new work, what runs may end; its past still binds (a fence) */
	VACANT,  /* nobody is here */
};

/* One node as last seen. */
struct node_view {
	enum presence presence;
	/* NULL: as in the configuration; "" where nobody is. Lives as long as the handle, so that anybody may keep it. */
	const char *name;
	enum dbha_state state;
	enum dbha_role role; /* as last seen, kept while the node is silent or down */
	bool seen;           /* answered or failed at least once */
	bool foreign;        /* it last answered for another cluster */
	bool fenced;         /* its last role was a primary below the cluster's timeline */
	bool disputed;       /* one of two primaries on one timeline */
	bool read_only;
	bool was_writable; /* a primary that has been seen with sessions that write: read-only ones may be for a while */
	bool unwatched;    /* since its last answer it may have had a life that nobody saw */
	uint32_t timeline;
	uint32_t followed; /* the timeline of which it was a standby in this very life, see policy/lives; 0: not known */
	uint64_t lsn;
	uint64_t replay_lsn; /* of a primary, see struct observation */
	uint64_t system_identifier;
	int64_t started_us;
	int64_t latency_us;    /* of the last answer; -1: never answered */
	int64_t round_trip_us; /* of probes over a kept connection, smoothed; 0: none was answered yet */
	int64_t back_us;       /* monotonic, when it last came back from an outage, or restarted; 0: never */
	int warming;           /* it came back a while ago: it takes one read in 2^warming of its share; 0: all */
	int64_t seen_us;       /* monotonic, of the last answer; -1: never */
	int64_t lag_ms;        /* -1: not known */
	int64_t lag_bytes;     /* -1: not known */
	int64_t fresh_us;      /* monotonic: it has replayed all that the primary had by then; -1: not known */
	bool behind;           /* it lags by more than max_lag, see dbha__lag_behind */
	int64_t observed_us;   /* monotonic, of the last observation, be it a failure; -1: never */
	enum failure trouble;  /* see TROUBLE_HOLD_US; FAILURE_NONE: there is none */
	int64_t trouble_us;    /* when it was reported last */
	int silences;          /* probes without an answer, in a row */
	/* Connections of an older one are closed; goes up at a restart, at fencing, and when the node becomes disputed. */
	uint64_t generation;
	char why[DBHA_WHY_MAX];
};

struct view {
	uint64_t version;           /* goes up when routing may come out differently */
	bool settled;               /* every node has been seen */
	uint64_t system_identifier; /* of the cluster; 0 until settled or not readable */
	uint32_t timeline;          /* the highest one seen */
	int64_t observed_us;        /* of the node observed longest ago; -1: not all have been, or all are silent */
	int primary;                /* index, or -1 */
	bool split_brain;
	uint64_t acceptable;  /* takes the place of system_identifier as soon as a node answers for it; 0: none */
	bool identified_only; /* there is a fence file: a node whose system identifier may not be read is not used */
	char
	    fence_trouble[DBHA_WHY_MAX]; /* why the fence file does not hold what is known; "": it does, or there is none */
	struct history history;          /* the lives of its primaries */
	int n_nodes;
	struct node_view nodes[CONFIG_NODES_MAX];
};

struct topology_event {
	enum dbha_event_kind kind;
	int node; /* or -1 */
};

struct topology_events {
	int n;
	struct topology_event list[TOPOLOGY_EVENTS_MAX];
};

/* A view of n nodes of which nothing is known. */
void dbha__topology_init(struct view *view, int n_nodes);

/*
 * Applies `observation` to `view` in place and appends what happened to `events`. probe_failures: how many silences in a
 * row make a node SILENT.
 */
void dbha__topology_apply(struct view *view, const struct observation *observation, int probe_failures,
                          struct topology_events *events);

/*
 * What is known from elsewhere, an earlier process or another one: which cluster is ours, and a timeline of it. A cluster other than
 * the view's takes its place, with its own timeline; a timeline of the same cluster is only ever raised.
 */
void dbha__topology_remember(struct view *view, uint64_t system_identifier, uint32_t timeline,
                             struct topology_events *events);

/* ---- places, with discover=dns ------------------------------------------------------------------------------ */

/* Before anything else: the places from `first` on are vacant. They keep nobody from settling. */
void dbha__topology_reserve(struct view *view, int first);

/* A new node has come to a place that was vacant or waited for its address: nothing is known of it, a new generation. */
void dbha__topology_arrive(struct view *view, int place, const char *name);

/* The node leaves: it is given no new work, and is not asked any more. `why` is for people. */
void dbha__topology_leave(struct view *view, int place, const char *why, struct topology_events *events);

/* It is back before it has gone: to be asked again, and used when it has answered. */
void dbha__topology_return(struct view *view, int place);

/* It has gone: the place is vacant, in a new generation. */
void dbha__topology_vacate(struct view *view, int place, struct topology_events *events);

/* The node can be given work of some kind: it is there and answers, its role is known, and it is neither fenced nor foreign. */
bool dbha__topology_usable(const struct node_view *node);

#endif
