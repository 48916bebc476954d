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

/* How a standby has to stand to what the reader has seen. */
enum fresh {
	FRESH_KNOWN, /* known to have replayed it */
	FRESH_ASKED, /* to be asked with the read */
	FRESH_ANY,
};

/* One choice: a query, and what it comes down to on this view. */
struct choice {
	const struct view *view;
	const struct route_query *query;
	struct causal_need need;
	enum fresh fresh;
};

/* Known to have replayed it. What it has just said itself counts for more than what was known: it has crashed since then. */
static bool is_known_to_have(const struct choice *c, int i)
{
	return dbha__causal_has(&c->view->nodes[i], &c->need.floor) && !(c->query->behind & 1u << i);
}

static bool is_fresh(const struct choice *c, int i)
{
	const struct node_view *node = &c->view->nodes[i];
	switch (c->fresh) {
	case FRESH_KNOWN:
		return is_known_to_have(c, i);
	case FRESH_ASKED:
		return dbha__causal_may_have(node, &c->need.floor) && !(c->query->behind & 1u << i);
	case FRESH_ANY:
		break;
	}
	return true;
}

/* While there is no primary nobody is known to be ahead, and what is known grows no older. */
static bool is_too_old(const struct view *view, const struct route_query *query, const struct node_view *node)
{
	if (node->behind)
		return true;
	if (query->bounded_ms == 0 || view->primary < 0)
		return false;
	return node->fresh_us < 0 || (query->now_us - node->fresh_us) / 1000 > query->bounded_ms;
}

static bool serves_reads(const struct choice *c, int i)
{
	const struct node_view *node = &c->view->nodes[i];
	return node->role == DBHA_ROLE_STANDBY && dbha__topology_usable(node) && !is_too_old(c->view, c->query, node) &&
	       is_fresh(c, i);
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
static int pick_from_standbys(const struct choice *c, bool healthy)
{
	const struct view *view = c->view;
	const struct route_query *query = c->query;
	int candidates[CONFIG_NODES_MAX], warming[CONFIG_NODES_MAX];
	int n = 0, n_warming = 0;
	for (int i = 0; i < view->n_nodes; i++) {
		if (!serves_reads(c, i) || avoided(query, i) || (healthy && view->nodes[i].state != DBHA_STATE_UP))
			continue;
		if (sits_out(view, query, i))
			warming[n_warming++] = i;
		else
			candidates[n++] = i;
	}
	return n > 0 ? better_of_two(view, query, candidates, n) : better_of_two(view, query, warming, n_warming);
}

/* The same for what the reader has seen: the standby that has it in any case, one that is known to have it, one to be asked. */
static int pick_fresh(struct choice *c, bool healthy, struct route *route)
{
	int node = -1;
	route->guard = false;
	c->fresh = c->need.floor.timeline ? FRESH_KNOWN : FRESH_ANY;
	if (c->need.primary)
		return -1;
	if (c->need.stick >= 0) {
		c->fresh = FRESH_ANY;
		if (serves_reads(c, c->need.stick)) {
			route->reason = DBHA_REASON_SAME;
			return c->need.stick;
		}
		return -1;
	}
	node = pick_from_standbys(c, healthy);
	if (node >= 0) {
		route->reason = c->need.floor.timeline ? DBHA_REASON_REPLAYED : DBHA_REASON_READ;
		route->known_us = c->view->nodes[node].seen_us - c->view->nodes[node].latency_us;
	}
	if (node >= 0 || !c->need.floor.timeline)
		return node;
	c->fresh = FRESH_ASKED;
	node = pick_from_standbys(c, healthy);
	route->guard = node >= 0;
	route->reason = DBHA_REASON_GUARDED;
	return node;
}

static int pick_standby(struct choice *c, struct route *route)
{
	int healthy = pick_fresh(c, true, route);
	return healthy >= 0 ? healthy : pick_fresh(c, false, route);
}

/* In a split brain reads go on, on either primary: which one is right is not known, but both hold the past. */
static int pick_disputed(const struct choice *c, bool healthy)
{
	for (int i = 0; i < c->view->n_nodes; i++) {
		const struct node_view *node = &c->view->nodes[i];
		if (node->role == DBHA_ROLE_PRIMARY && dbha__topology_usable(node) && !avoided(c->query, i) &&
		    (!healthy || node->state == DBHA_STATE_UP))
			return i;
	}
	return -1;
}

static int pick_primary(const struct choice *c, bool for_reads)
{
	if (!for_reads || !c->view->split_brain)
		return c->view->primary;
	int healthy = pick_disputed(c, true);
	return healthy >= 0 ? healthy : pick_disputed(c, false);
}

static int pick_read_only(struct choice *c, struct route *route)
{
	const struct view *view = c->view;
	int standby = pick_standby(c, route);
	if (standby >= 0)
		return standby;
	return view->primary >= 0 && view->nodes[view->primary].read_only ? view->primary : -1;
}

/* libpq's `any`: the first in the list. What says nothing may write, so that a split brain leaves only standbys. */
static int pick_first(const struct choice *c, struct route *route)
{
	const struct view *view = c->view;
	for (int i = 0; i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		bool disputed = view->split_brain && node->role == DBHA_ROLE_PRIMARY;
		bool lacks =
		    node->role == DBHA_ROLE_STANDBY && (c->need.primary || !is_known_to_have(c, i)) && c->need.stick != i;
		if (!dbha__topology_usable(node) || disputed || avoided(c->query, i) || lacks)
			continue;
		route->known_us = node->seen_us - node->latency_us;
		if (node->role == DBHA_ROLE_STANDBY && c->need.stick == i)
			route->reason = DBHA_REASON_SAME;
		else if (node->role == DBHA_ROLE_STANDBY && c->need.floor.timeline)
			route->reason = DBHA_REASON_REPLAYED;
		return i;
	}
	return -1;
}

/* Why a read goes to the primary. */
static enum dbha_reason why_primary(const struct choice *c)
{
	if (c->query->on_primary)
		return DBHA_REASON_CONSISTENCY;
	if (c->need.primary)
		return DBHA_REASON_UNPLACED;
	for (int i = 0; i < c->view->n_nodes; i++) {
		const struct node_view *node = &c->view->nodes[i];
		if (node->role == DBHA_ROLE_STANDBY && dbha__topology_usable(node) && c->need.floor.timeline &&
		    !is_too_old(c->view, c->query, node) && !is_known_to_have(c, i))
			return DBHA_REASON_BEHIND;
	}
	return DBHA_REASON_NO_STANDBY;
}

/* A healthy standby, else a healthy primary, else whatever there is: a suspect may take seconds to be known as silent. */
static int pick_standby_first(struct choice *c, struct route *route)
{
	bool only = c->query->on_primary;
	int node = only ? -1 : pick_fresh(c, true, route);
	if (node >= 0)
		return node;
	int primary = pick_primary(c, c->query->intent == DBHA_READ && !only);
	bool well = primary >= 0 && c->view->nodes[primary].state == DBHA_STATE_UP && !avoided(c->query, primary);
	if (!only && !well)
		node = pick_fresh(c, false, route);
	if (node >= 0)
		return node;
	route->guard = false;
	route->reason = why_primary(c);
	return primary;
}

static int pick(struct choice *c, struct route *route)
{
	const struct view *view = c->view;
	route->reason = c->query->intent == DBHA_WRITE ? DBHA_REASON_WRITE : DBHA_REASON_TARGET;
	route->guard = false;
	switch (wanted(c->query)) {
	case WANT_PRIMARY:
		return view->primary;
	case WANT_PRIMARY_READ_WRITE:
		return view->primary >= 0 && !view->nodes[view->primary].read_only ? view->primary : -1;
	case WANT_STANDBY_FIRST:
		return pick_standby_first(c, route);
	case WANT_STANDBY_ONLY:
		return pick_standby(c, route);
	case WANT_READ_ONLY:
		return pick_read_only(c, route);
	case WANT_ANY:
		break;
	}
	return pick_first(c, route);
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

/* Where nothing can be said for or against a node: of the token, or of the cluster, in which two primaries have its timeline. */
static enum route_end judge_token(const struct choice *c, bool reads)
{
	const struct token *floor = &c->need.floor;
	if (!reads || !(floor->timeline || c->need.primary))
		return ROUTE_NODE;
	if (floor->system_identifier && c->view->system_identifier &&
	    floor->system_identifier != c->view->system_identifier)
		return ROUTE_OTHER_TOKEN;
	if (c->view->split_brain)
		return ROUTE_SPLIT_BRAIN;
	/* Promoted, and not seen yet by us: whatever we know is older than the token. */
	return c->view->timeline && floor->timeline > c->view->timeline ? ROUTE_WAIT : ROUTE_NODE;
}

static struct causal_need need_of(const struct route_query *query, const struct view *view)
{
	struct causal_need need = {.stick = -1};
	if (query->causal)
		need = dbha__causal_need(query->causal, view, query->avoid);
	/* A role that may not read the timelines cannot be told which standby has what. */
	need.primary = need.primary || (need.floor.timeline && !view->timeline);
	return need;
}

/* Everything that fits has failed once in this call; after its pause it is tried again rather than nothing. */
static int pick_again(const struct choice *c, struct route *route)
{
	struct route_query again = *c->query;
	struct choice second = {.view = c->view, .query = &again};
	if (!again.avoid && !again.behind)
		return -1;
	again.avoid = again.behind = 0;
	second.need = need_of(&again, c->view);
	return pick(&second, route);
}

struct route dbha__route(const struct view *view, const struct route_query *query)
{
	struct route route = {.end = ROUTE_WAIT, .node = -1};
	struct choice choice = {.view = view, .query = query};
	enum wanted want = wanted(query);
	bool writes_only = want == WANT_PRIMARY || want == WANT_PRIMARY_READ_WRITE;
	bool may_write = writes_only || query->on_primary || want == WANT_ANY ||
	                 (want == WANT_STANDBY_FIRST && query->intent != DBHA_READ);
	if (!view->settled)
		return route;
	choice.need = need_of(query, view);
	route.floor = choice.need.floor;
	route.end = judge_token(&choice, !writes_only);
	if (route.end != ROUTE_NODE)
		return route;
	route.end = ROUTE_WAIT;
	route.node = pick(&choice, &route);
	if (route.node < 0)
		route.node = pick_again(&choice, &route);
	if (route.node >= 0) {
		route.end = ROUTE_NODE;
		/* On a primary every connection may write, unless it is one of two: then not even a mislabelled read may. */
		route.writes = view->nodes[route.node].role == DBHA_ROLE_PRIMARY && !view->split_brain;
		if (query->intent == DBHA_DEFAULT &&
		    (route.reason == DBHA_REASON_READ || route.reason == DBHA_REASON_NO_STANDBY))
			route.reason = DBHA_REASON_TARGET;
	} else if (view->split_brain && may_write) {
		route.end = ROUTE_SPLIT_BRAIN;
	} else if (every_node_is(view, DBHA_STATE_FOREIGN)) {
		route.end = ROUTE_FOREIGN;
	} else if (every_node_is(view, DBHA_STATE_REFUSED)) {
		route.end = ROUTE_REFUSED;
	}
	return route;
}
