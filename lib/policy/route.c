#include "route.h"

#include "rng.h"

/* What a query comes down to, once the target has spoken for work that says nothing. */
enum wanted {
	WANT_PRIMARY,
	WANT_PRIMARY_READ_WRITE, /* libpq's read-write: a primary whose sessions are not read-only by default */
	WANT_STANDBY_FIRST,
	WANT_STANDBY_ONLY,
	WANT_READ_ONLY, /* libpq's read-only: a standby, or a primary whose sessions are read-only by default */
	WANT_ANY,
};

static enum wanted wanted(const struct route_query *query)
{
	if (query->intent == DBHA_WRITE)
		return WANT_PRIMARY;
	if (query->intent == DBHA_READ)
		return WANT_STANDBY_FIRST;
	switch (query->target) {
	case TARGET_ANY:
		return WANT_ANY;
	case TARGET_READ_WRITE:
		return WANT_PRIMARY_READ_WRITE;
	case TARGET_READ_ONLY:
		return WANT_READ_ONLY;
	case TARGET_STANDBY:
		return WANT_STANDBY_ONLY;
	case TARGET_PREFER_STANDBY:
		return WANT_STANDBY_FIRST;
	case TARGET_PRIMARY:
		break;
	}
	return WANT_PRIMARY;
}

const char *dbha__route_wanted(const struct route_query *query)
{
	switch (wanted(query)) {
	case WANT_PRIMARY:
		return "a primary";
	case WANT_PRIMARY_READ_WRITE:
		return "a primary with read-write sessions";
	case WANT_STANDBY_FIRST:
		return "a standby or a primary";
	case WANT_STANDBY_ONLY:
		return "a standby";
	case WANT_READ_ONLY:
		return "a node with read-only sessions";
	case WANT_ANY:
		break;
	}
	return "any node";
}

static bool avoided(const struct route_query *query, int i)
{
	return query->avoid & (1u << i);
}

static bool serves_reads(const struct view *view, const struct route_query *query, int i)
{
	const struct node_view *node = &view->nodes[i];
	return node->role == DBHA_ROLE_STANDBY && dbha__topology_usable(node) && !(query->max_lag_ms > 0 && node->behind);
}

/*
 * Round trips below this are alike. On a loopback or in one rack they differ by tens of microseconds for no reason but the
 * scheduler's, and what a statement costs there is not its way.
 */
#define ROUND_TRIP_FLOOR_US 1000

static int64_t round_trip(const struct view *view, int i)
{
	int64_t us = view->nodes[i].round_trip_us;
	return us > ROUND_TRIP_FLOOR_US ? us : ROUND_TRIP_FLOOR_US;
}

/*
 * Whether b is the better choice: who would answer sooner, by the work it has times the time it takes. While neither takes
 * twice the time of the other, the work alone decides: otherwise, of two standbys at 3.0 and 3.1 ms, a caller who is alone
 * would never ask the second. Twice the time is no accident of measuring any more.
 */
static bool is_better(const struct view *view, const struct route_query *query, int b, int a)
{
	int64_t time_a = round_trip(view, a), time_b = round_trip(view, b);
	int64_t work_a = query->load ? query->load[a] + 1 : 1, work_b = query->load ? query->load[b] + 1 : 1;
	if (time_a <= 2 * time_b && time_b <= 2 * time_a)
		return work_b < work_a;
	return work_b * time_b < work_a * time_a;
}

/*
 * Two random choices, the better one wins (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001):
 * nearly as even as asking all, without the herd that runs to the one best node. Two different ones: of two standbys the one
 * that hangs would otherwise be asked every fourth time.
 */
static int better_of_two(const struct view *view, const struct route_query *query, const int *candidates, int n)
{
	if (n < 2 || query->in_order)
		return n > 0 ? candidates[0] : -1;
	struct rng rng = {query->random};
	int first = (int)dbha__rng_below(&rng, (uint64_t)n);
	int second = (int)dbha__rng_below(&rng, (uint64_t)n - 1);
	second += second >= first;
	int a = candidates[first], b = candidates[second];
	return is_better(view, query, b, a) ? b : a;
}

/* A node that has come back a moment ago takes part in some of the choices only, more and more of them. */
static bool sits_out(const struct view *view, const struct route_query *query, int i)
{
	/* Other bits for each node, and others than those that choose between them. */
	struct rng rng = {query->random ^ (uint64_t)(i + 1) << 32};
	return view->nodes[i].warming > 0 && dbha__rng_below(&rng, 1u << view->nodes[i].warming) > 0;
}

/* A standby to read from, -1 if there is none. healthy: only one that is up, not one that is suspected or full. */
static int pick_from_standbys(const struct view *view, const struct route_query *query, bool healthy)
{
	int candidates[CONFIG_NODES_MAX], warming[CONFIG_NODES_MAX];
	int n = 0, n_warming = 0;
	for (int i = 0; i < view->n_nodes; i++) {
		if (!serves_reads(view, query, i) || avoided(query, i) || (healthy && view->nodes[i].state != DBHA_STATE_UP))
			continue;
		if (sits_out(view, query, i))
			warming[n_warming++] = i;
		else
			candidates[n++] = i;
	}
	return n > 0 ? better_of_two(view, query, candidates, n) : better_of_two(view, query, warming, n_warming);
}

static int pick_standby(const struct view *view, const struct route_query *query)
{
	int healthy = pick_from_standbys(view, query, true);
	return healthy >= 0 ? healthy : pick_from_standbys(view, query, false);
}

/* In a split brain reads go on, on either primary: which one is right is not known, but both hold the past. */
static int pick_disputed(const struct view *view, const struct route_query *query, bool healthy)
{
	for (int i = 0; i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		if (node->role == DBHA_ROLE_PRIMARY && dbha__topology_usable(node) && !avoided(query, i) &&
		    (!healthy || node->state == DBHA_STATE_UP))
			return i;
	}
	return -1;
}

static int pick_primary(const struct view *view, const struct route_query *query, bool for_reads)
{
	if (!for_reads || !view->split_brain)
		return view->primary;
	int healthy = pick_disputed(view, query, true);
	return healthy >= 0 ? healthy : pick_disputed(view, query, false);
}

static int pick_read_only(const struct view *view, const struct route_query *query)
{
	int standby = pick_standby(view, query);
	if (standby >= 0)
		return standby;
	return view->primary >= 0 && view->nodes[view->primary].read_only ? view->primary : -1;
}

/* libpq's `any`: the first in the list. What says nothing may write, so that a split brain leaves only standbys. */
static int pick_first(const struct view *view, const struct route_query *query)
{
	for (int i = 0; i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		bool disputed = view->split_brain && node->role == DBHA_ROLE_PRIMARY;
		if (dbha__topology_usable(node) && !disputed && !avoided(query, i))
			return i;
	}
	return -1;
}

/* A healthy standby, else a healthy primary, else whatever there is: a suspect may take seconds to be known as silent. */
static int pick_standby_first(const struct view *view, const struct route_query *query)
{
	int node = pick_from_standbys(view, query, true);
	if (node >= 0)
		return node;
	int primary = pick_primary(view, query, query->intent == DBHA_READ);
	if (primary >= 0 && view->nodes[primary].state == DBHA_STATE_UP && !avoided(query, primary))
		return primary;
	node = pick_from_standbys(view, query, false);
	return node >= 0 ? node : primary;
}

static int pick(const struct view *view, const struct route_query *query)
{
	switch (wanted(query)) {
	case WANT_PRIMARY:
		return view->primary;
	case WANT_PRIMARY_READ_WRITE:
		return view->primary >= 0 && !view->nodes[view->primary].read_only ? view->primary : -1;
	case WANT_STANDBY_FIRST:
		return pick_standby_first(view, query);
	case WANT_STANDBY_ONLY:
		return pick_standby(view, query);
	case WANT_READ_ONLY:
		return pick_read_only(view, query);
	case WANT_ANY:
		break;
	}
	return pick_first(view, query);
}

static bool every_node_is(const struct view *view, enum dbha_state state)
{
	int n = 0;
	for (int i = 0; i < view->n_nodes; i++) {
		bool present = view->nodes[i].presence == PRESENT;
		if (present && view->nodes[i].state != state)
			return false;
		n += present;
	}
	return n > 0;
}

struct route dbha__route(const struct view *view, const struct route_query *query)
{
	struct route route = {.end = ROUTE_WAIT, .node = -1};
	enum wanted want = wanted(query);
	bool may_write = want == WANT_PRIMARY || want == WANT_PRIMARY_READ_WRITE || want == WANT_ANY ||
	                 (want == WANT_STANDBY_FIRST && query->intent != DBHA_READ);
	if (!view->settled)
		return route;
	route.node = pick(view, query);
	if (route.node < 0 && query->avoid) {
		/* Everything that fits has failed once in this call; after its pause it is tried again rather than nothing. */
		struct route_query again = *query;
		again.avoid = 0;
		route.node = pick(view, &again);
	}
	if (route.node >= 0) {
		route.end = ROUTE_NODE;
		/* On a primary every connection may write, unless it is one of two: then not even a mislabelled read may. */
		route.writes = view->nodes[route.node].role == DBHA_ROLE_PRIMARY && !view->split_brain;
	} else if (view->split_brain && may_write) {
		route.end = ROUTE_SPLIT_BRAIN;
	} else if (every_node_is(view, DBHA_STATE_FOREIGN)) {
		route.end = ROUTE_FOREIGN;
	} else if (every_node_is(view, DBHA_STATE_REFUSED)) {
		route.end = ROUTE_REFUSED;
	}
	return route;
}
