/*
 * route: intent + view + load -> the node to use, or what stands in the way. Pure.
 */
#ifndef DBHA_POLICY_ROUTE_H
#define DBHA_POLICY_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "causal.h"
#include "topology.h"

enum route_end {
	ROUTE_NODE,        /* use `node` */
	ROUTE_WAIT,        /* nothing fits now: wait until the view changes */
	ROUTE_SPLIT_BRAIN, /* two primaries on one timeline: refused, waiting could end in a guess */
	ROUTE_FOREIGN,     /* every node is of another cluster: waiting does not help */
	ROUTE_REFUSED,     /* every node refuses us (password, database): waiting does not help */
	ROUTE_OTHER_TOKEN, /* the token is of another cluster */
};

struct route_query {
	enum dbha_intent intent;
	enum target target; /* decides for DBHA_DEFAULT */
	/* How old at most a standby may be, with the age of what is known of it; 0: only who is `behind` is left out. */
	int64_t bounded_ms;
	int64_t now_us;              /* monotonic, with bounded_ms */
	bool on_primary;             /* a read that has to go to the primary */
	const struct causal *causal; /* what the reader has seen; NULL: whatever a standby has is good enough */
	uint32_t behind; /* bit i: node i has just said that it has not replayed it; used only if nothing else fits */
	uint32_t avoid;  /* bit i: node i has just failed this call; used only if nothing else fits */
	bool in_order;   /* the first usable standby of the list serves, not one by choice */
	uint64_t random; /* for the choice between standbys */
	const int *load; /* per node: connections in use and callers waiting for one; may be NULL */
};

struct route {
	enum route_end end;
	int node;
	bool writes; /* the connection must be one that may write */
	bool guard;  /* whether it has replayed what the reader has seen is to be asked with the read */
	enum dbha_reason reason;
	struct token floor; /* of a read with `causal`: what it has to have replayed; timeline 0: nothing */
	int64_t
	    known_us; /* REPLAYED: when that was seen; a connection made since then is asked with the read nonetheless */
};

struct route dbha__route(const struct view *view, const struct route_query *query);

/* The words for what a query looks for: "a primary", "a standby". */
const char *dbha__route_wanted(const struct route_query *query);

#endif
