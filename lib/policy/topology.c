#include "topology.h"

#include <stdio.h>
#include <string.h>

#include "lives.h"

static void add_event(struct topology_events *events, enum dbha_event_kind kind, int node)
{
	if (events->n < TOPOLOGY_EVENTS_MAX)
		events->list[events->n++] = (struct topology_event){kind, node};
}

void dbha__topology_init(struct view *view, int n_nodes)
{
	memset(view, 0, sizeof *view);
	view->n_nodes = n_nodes;
	view->primary = -1;
	view->observed_us = -1;
	for (int i = 0; i < n_nodes; i++) {
		struct node_view *node = &view->nodes[i];
		node->latency_us = node->seen_us = node->observed_us = node->lag_ms = node->lag_bytes = -1;
		node->generation = 1;
	}
}

bool dbha__topology_usable(const struct node_view *node)
{
	if (node->presence != PRESENT || node->fenced || node->foreign || node->role == DBHA_ROLE_UNKNOWN)
		return false;
	/*
	 * FULL and REFUSED concern new connections: a server that is full or has a new password still serves those that are
	 * open. One without disk space still reads, and some writes fit. Leaving it for that would be a failover for nothing.
	 */
	return node->state == DBHA_STATE_UP || node->state == DBHA_STATE_SUSPECT || node->state == DBHA_STATE_FULL ||
	       node->state == DBHA_STATE_REFUSED || node->state == DBHA_STATE_DISK_FULL;
}

static void set_why(struct node_view *node, const char *why)
{
	snprintf(node->why, sizeof node->why, "%s", why ? why : "");
}

/* Whether what was reported of a node still holds although it answers. */
static bool still_troubled(const struct node_view *node, const struct observation *o)
{
	if (node->trouble == FAILURE_NONE || o->at_us - node->trouble_us >= TROUBLE_HOLD_US)
		return false;
	bool shown =
	    node->state == DBHA_STATE_FULL || node->state == DBHA_STATE_REFUSED || node->state == DBHA_STATE_DISK_FULL;
	return shown && (node->trouble == FAILURE_DISK_FULL || o->kept);
}

/*
 * The round trip with a new one taken in: an exponentially weighted mean, a quarter of each new value, so that a server that
 * is slow again and again stays so between its better moments. Of each two in a row the shorter counts: one probe alone
 * that was slow is more often the fault of a busy process than of the server, and says nothing.
 */
static int64_t smoothed(const struct node_view *node, int64_t latency_us)
{
	bool slower = node->latency_us >= 0 && latency_us > node->latency_us;
	int64_t value = slower ? node->latency_us : latency_us;
	return node->round_trip_us ? node->round_trip_us + (value - node->round_trip_us) / 4 : value;
}

/*
 * An answer: takes over what was seen; a restarted server starts a new generation. What could not be read this time (0)
 * stays as it was: not being told a timeline or an identifier is no reason to trust a server that has been judged by it.
 */
static void take_answer(struct node_view *node, const struct observation *o, struct topology_events *events)
{
	if (node->started_us && o->started_us && node->started_us != o->started_us) {
		node->generation++;
		add_event(events, DBHA_EVENT_RESTARTED, o->node);
	}
	/* The reason stays with the state. */
	if (!still_troubled(node, o)) {
		node->trouble = FAILURE_NONE;
		node->state = DBHA_STATE_UP;
		set_why(node, NULL);
	}
	enum dbha_role role = o->in_recovery ? DBHA_ROLE_STANDBY : DBHA_ROLE_PRIMARY;
	if (o->timeline || node->role != role)
		node->timeline = o->timeline;
	node->role = role;
	node->read_only = o->read_only;
	node->was_writable = role == DBHA_ROLE_PRIMARY && (node->was_writable || !o->read_only);
	node->lsn = o->lsn;
	node->replay_lsn = o->replay_lsn;
	if (o->system_identifier)
		node->system_identifier = o->system_identifier;
	if (o->started_us)
		node->started_us = o->started_us;
	if (o->kept)
		node->round_trip_us = smoothed(node, o->latency_us);
	node->latency_us = o->latency_us;
	node->seen_us = o->at_us;
	node->silences = 0;
}

static enum dbha_state state_after(const struct node_view *node, enum failure failure, int probe_failures)
{
	switch (failure) {
	case FAILURE_SILENT:
		return node->silences >= probe_failures ? DBHA_STATE_SILENT : DBHA_STATE_SUSPECT;
	case FAILURE_LOST:
		/* Only a hint; what was silent or down before is not better known now. */
		return node->state == DBHA_STATE_UP ? DBHA_STATE_SUSPECT : node->state;
	case FAILURE_STARTING:
		return DBHA_STATE_STARTING;
	case FAILURE_FULL:
		return DBHA_STATE_FULL;
	case FAILURE_REFUSED:
		return DBHA_STATE_REFUSED;
	case FAILURE_DISK_FULL:
		return DBHA_STATE_DISK_FULL;
	case FAILURE_UNREACHABLE:
	case FAILURE_NONE:
		break;
	}
	return DBHA_STATE_DOWN;
}

static void take_failure(struct node_view *node, const struct observation *o, int probe_failures)
{
	/* A call met it before whatever has happened since: it revives nobody. */
	if (o->failure == FAILURE_DISK_FULL && !dbha__topology_usable(node))
		return;
	/* Any other failure is a sign of life, except a lost connection, which is a sign of nothing. */
	if (o->failure == FAILURE_SILENT)
		node->silences++;
	else if (o->failure != FAILURE_LOST)
		node->silences = 0;
	if (o->failure == FAILURE_FULL || o->failure == FAILURE_REFUSED || o->failure == FAILURE_DISK_FULL) {
		node->trouble = o->failure;
		node->trouble_us = o->at_us;
	}
	enum dbha_state was = node->state;
	node->state = state_after(node, o->failure, probe_failures);
	/* A node that never answered has nothing to be suspected of: its first silence is all that is known. */
	if (node->state == DBHA_STATE_SUSPECT && node->role == DBHA_ROLE_UNKNOWN)
		node->state = DBHA_STATE_SILENT;
	/* Silence after a clear reason (refused, full) does not make the reason less true. */
	if (o->failure == FAILURE_SILENT && node->state == DBHA_STATE_SUSPECT && was != DBHA_STATE_UP &&
	    was != DBHA_STATE_UNKNOWN)
		node->state = was;
	set_why(node, o->why);
}

/* The system identifier that most answering nodes have; on a tie the one listed first; 0 if none can be read. */
static uint64_t majority_identifier(const struct view *view)
{
	uint64_t best = 0;
	int best_votes = 0;
	for (int i = 0; i < view->n_nodes; i++) {
		uint64_t candidate = view->nodes[i].system_identifier;
		int votes = 0;
		for (int k = 0; k < view->n_nodes; k++)
			votes += candidate && view->nodes[k].system_identifier == candidate;
		if (votes > best_votes) {
			best = candidate;
			best_votes = votes;
		}
	}
	return best;
}

static bool ever_answered(const struct view *view)
{
	bool answered = view->system_identifier || view->timeline; /* in this process, or before it was forked */
	for (int i = 0; i < view->n_nodes; i++)
		answered = answered || view->nodes[i].role != DBHA_ROLE_UNKNOWN;
	return answered;
}

/* Which cluster it belongs to is asked by the fence file, and its answer did not say. */
static bool is_unidentified(const struct view *view, const struct node_view *node)
{
	return view->identified_only && node->role != DBHA_ROLE_UNKNOWN && !node->system_identifier;
}

static bool is_foreign(const struct view *view, const struct node_view *node)
{
	if (is_unidentified(view, node))
		return true;
	return view->system_identifier && node->system_identifier && node->system_identifier != view->system_identifier;
}

/*
 * If nobody answered when the view settled, which cluster is ours is still open: the first to answer must not decide it
 * alone. Every node is looked at once more.
 */
static void begin_anew(struct view *view, int answering)
{
	view->settled = false;
	for (int i = 0; i < view->n_nodes; i++)
		view->nodes[i].seen = i == answering || view->nodes[i].presence != PRESENT;
}

static bool answers_for(const struct view *view, uint64_t system_identifier)
{
	for (int i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].presence == PRESENT && view->nodes[i].system_identifier == system_identifier)
			return true;
	return false;
}

static void replace_cluster(struct view *view, uint64_t system_identifier)
{
	view->system_identifier = system_identifier;
	view->timeline = 0;
	view->acceptable = 0;
	view->history.n = 0;
}

static void settle(struct view *view)
{
	bool settled = true;
	for (int i = 0; i < view->n_nodes; i++)
		settled = settled && view->nodes[i].seen;
	view->settled = view->settled || settled;
	if (view->settled && !view->system_identifier)
		view->system_identifier = majority_identifier(view);
	if (view->settled && view->acceptable && answers_for(view, view->acceptable))
		replace_cluster(view, view->acceptable);
}

static void say_why_foreign(const struct view *view, struct node_view *node)
{
	if (is_unidentified(view, node))
		snprintf(
		    node->why, sizeof node->why,
		    "this role may not read its system identifier (pg_control_system), without which fence_file cannot tell "
		    "which cluster it belongs to");
	else
		snprintf(node->why, sizeof node->why,
		         "system identifier %llu, but this cluster's is %llu: another cluster, or one that was rebuilt",
		         (unsigned long long)node->system_identifier, (unsigned long long)view->system_identifier);
}

static void judge_foreign(struct view *view, struct topology_events *events)
{
	for (int i = 0; i < view->n_nodes; i++) {
		struct node_view *node = &view->nodes[i];
		bool was_foreign = node->foreign;
		node->foreign = is_foreign(view, node);
		if (node->foreign && !was_foreign)
			add_event(events, DBHA_EVENT_FOREIGN, i);
		if (was_foreign && !node->foreign && node->state == DBHA_STATE_FOREIGN) {
			/* Its cluster has been accepted. When it was judged it had answered. */
			node->state = DBHA_STATE_UP;
			set_why(node, NULL);
		}
		if (!node->foreign || node->state != DBHA_STATE_UP)
			continue;
		node->state = DBHA_STATE_FOREIGN;
		say_why_foreign(view, node);
	}
}

static void raise_timeline(struct view *view)
{
	/*
	 * A standby counts too: its timeline exists because a primary was promoted to it. Before settling it is not known
	 * whose timeline is whose.
	 */
	for (int i = 0; view->settled && i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		if (!node->foreign && node->timeline > view->timeline)
			view->timeline = node->timeline;
	}
}

static void say_why_fenced(struct node_view *node, uint32_t timeline)
{
	if (node->timeline)
		snprintf(
		    node->why, sizeof node->why,
		    "a primary on timeline %u, but the cluster is on timeline %u: never written to; rejoin it with pg_rewind",
		    (unsigned)node->timeline, (unsigned)timeline);
	else
		snprintf(
		    node->why, sizeof node->why,
		    "a primary whose timeline this role may not read (pg_walfile_name), in a cluster on timeline %u: it may be "
		    "stale, so it is never written to",
		    (unsigned)timeline);
}

/*
 * A primary below the cluster's timeline is stale, whether it answers or not. The generation goes up once, so that every
 * connection to it is shut down. One whose timeline may not be read (0), while that of others could be, might be.
 */
static void judge_fence(struct view *view, struct topology_events *events)
{
	for (int i = 0; i < view->n_nodes; i++) {
		struct node_view *node = &view->nodes[i];
		bool stale = node->role == DBHA_ROLE_PRIMARY && node->timeline < view->timeline && !node->foreign;
		if (stale && !node->fenced) {
			node->generation++;
			add_event(events, DBHA_EVENT_FENCED, i);
		}
		node->fenced = stale;
		if (stale && node->state == DBHA_STATE_UP) {
			node->state = DBHA_STATE_FENCED;
			say_why_fenced(node, view->timeline);
		}
	}
}

/* Two names for one server: the start time is in microseconds, two servers do not share it. */
static bool same_server(const struct node_view *a, const struct node_view *b)
{
	return a->started_us && a->started_us == b->started_us && a->system_identifier == b->system_identifier;
}

static bool is_candidate(const struct node_view *node)
{
	return node->role == DBHA_ROLE_PRIMARY && dbha__topology_usable(node);
}

/* It was a primary of this timeline when it was seen last, and may still be one, out of sight. */
static bool is_unseen_primary(const struct node_view *node)
{
	return node->role == DBHA_ROLE_PRIMARY && !node->fenced && !node->foreign && !dbha__topology_usable(node);
}

/*
 * Which of two primaries on one timeline is right nobody here can know. What is open to either may be in the middle of a
 * write, a lease or a statement that is still being prepared among it; so it is shut down, as at fencing. Reads come back
 * over new connections. One that is out of sight while another serves is shut out as well, before it comes back.
 */
static void judge_disputed(struct view *view, int found, bool several)
{
	for (int i = 0; i < view->n_nodes; i++) {
		struct node_view *node = &view->nodes[i];
		bool disputed = several && is_candidate(node);
		if (found >= 0 && is_unseen_primary(node))
			disputed = !same_server(node, &view->nodes[found]);
		if (disputed && !node->disputed)
			node->generation++;
		node->disputed = disputed;
	}
}

static void find_primary(struct view *view, struct topology_events *events)
{
	int found = -1;
	int count = 0, answering = 0;
	for (int i = 0; view->settled && i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		if (!is_candidate(node) || (found >= 0 && same_server(node, &view->nodes[found])))
			continue;
		found = found < 0 ? i : found;
		count++;
		answering += node->state != DBHA_STATE_SUSPECT;
	}
	/*
	 * Of a suspect only the past is known: it may be another name of the very server that has just restarted and answered. Until its
	 * own probe has decided, there is no primary and no split brain either.
	 */
	bool split = count > 1 && (view->split_brain || answering > 1);
	if (split != view->split_brain)
		add_event(events, split ? DBHA_EVENT_SPLIT_BRAIN : DBHA_EVENT_HEALED, -1);
	view->split_brain = split;
	judge_disputed(view, found, count > 1);

	int primary = count == 1 ? found : -1;
	if (primary == view->primary)
		return;
	if (primary >= 0)
		add_event(events, DBHA_EVENT_PRIMARY, primary);
	else if (!split)
		add_event(events, DBHA_EVENT_NO_PRIMARY, view->primary);
	view->primary = primary;
}

/* Whose connections are all made anew, because of what another node has said too, is spared like one that was away. */
static void follow_generations(struct view *view, const uint64_t *before, const struct observation *o)
{
	for (int i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].generation != before[i] && dbha__topology_usable(&view->nodes[i]))
			view->nodes[i].back_us = o->at_us;
}

/* A node that was seen out of service warms up when it is back. The first sight of a node is no return. */
static void follow_return(struct node_view *node, const struct node_view *before, const struct observation *o)
{
	if (dbha__topology_usable(node) && before->seen && !dbha__topology_usable(before))
		node->back_us = o->at_us;
	int64_t steps = node->back_us ? (o->at_us - node->back_us) / WARMING_STEP_US : WARMING_STEPS;
	node->warming = steps < WARMING_STEPS ? WARMING_STEPS - (int)steps : 0;
}

/* What the nodes together come to, after one of them has changed. */
static void judge(struct view *view, struct topology_events *events)
{
	settle(view);
	judge_foreign(view, events);
	raise_timeline(view);
	judge_fence(view, events);
	find_primary(view, events);
	dbha__lives_follow(view);
}

void dbha__topology_remember(struct view *view, uint64_t system_identifier, uint32_t timeline,
                             struct topology_events *events)
{
	bool same = view->system_identifier == system_identifier;
	if (same && timeline <= view->timeline)
		return;
	if (!same)
		replace_cluster(view, system_identifier);
	view->timeline = timeline > view->timeline ? timeline : view->timeline;
	judge(view, events);
	view->version++;
}

/* ---- places ------------------------------------------------------------------------------------------------- */

/* Forgets a node. Its generations go on: no connection of the last one can be taken for one of the next. */
static void forget(struct node_view *node)
{
	*node = (struct node_view){
	    .generation = node->generation + 1,
	    .latency_us = -1,
	    .seen_us = -1,
	    .observed_us = -1,
	    .lag_ms = -1,
	    .lag_bytes = -1,
	};
}

static void make_vacant(struct node_view *node)
{
	forget(node);
	node->presence = VACANT;
	node->name = "";
	node->state = DBHA_STATE_ABSENT;
	node->seen = true;
}

void dbha__topology_reserve(struct view *view, int first)
{
	for (int i = first; i < view->n_nodes; i++)
		make_vacant(&view->nodes[i]);
}

void dbha__topology_arrive(struct view *view, int place, const char *name)
{
	struct node_view *node = &view->nodes[place];
	forget(node);
	node->name = name;
	view->version++;
}

void dbha__topology_leave(struct view *view, int place, const char *why, struct topology_events *events)
{
	struct node_view *node = &view->nodes[place];
	node->presence = LEAVING;
	node->state = DBHA_STATE_ABSENT;
	node->seen = true;
	node->trouble = FAILURE_NONE;
	set_why(node, why);
	judge(view, events);
	add_event(events, DBHA_EVENT_NODE, place);
	view->version++;
}

void dbha__topology_return(struct view *view, int place)
{
	struct node_view *node = &view->nodes[place];
	node->presence = PRESENT;
	node->state = DBHA_STATE_UNKNOWN;
	node->silences = 0;
	set_why(node, NULL);
	view->version++;
}

void dbha__topology_vacate(struct view *view, int place, struct topology_events *events)
{
	make_vacant(&view->nodes[place]);
	judge(view, events);
	view->version++;
}

/* ---- observations ------------------------------------------------------------------------------------------- */

/* Whether a waiter could be routed differently by the new state of a node. */
static bool routes_differently(const struct node_view *a, const struct node_view *b)
{
	return a->state != b->state || a->role != b->role || a->fenced != b->fenced || a->foreign != b->foreign ||
	       a->read_only != b->read_only || a->generation != b->generation || a->timeline != b->timeline ||
	       a->seen != b->seen;
}

/* A silent node is looked at by waiting for it, and nothing is routed there: it makes nobody's knowledge old. */
static bool counts_as_looked_at(const struct node_view *node)
{
	return node->presence == PRESENT && node->state != DBHA_STATE_SILENT;
}

static int64_t oldest_observation(const struct view *view)
{
	int64_t oldest = INT64_MAX;
	for (int i = 0; i < view->n_nodes; i++)
		if (counts_as_looked_at(&view->nodes[i]) && view->nodes[i].observed_us < oldest)
			oldest = view->nodes[i].observed_us;
	return oldest < INT64_MAX ? oldest : -1;
}

void dbha__topology_apply(struct view *view, const struct observation *o, int probe_failures,
                          struct topology_events *events)
{
	if (o->node < 0 || o->node >= view->n_nodes || view->nodes[o->node].presence != PRESENT)
		return;
	struct node_view *node = &view->nodes[o->node];
	struct node_view before = *node;
	uint64_t generations[CONFIG_NODES_MAX] = {0};
	for (int i = 0; i < view->n_nodes; i++)
		generations[i] = view->nodes[i].generation;
	bool was_settled = view->settled;
	bool was_split = view->split_brain;
	uint32_t old_timeline = view->timeline;
	uint64_t old_cluster = view->system_identifier;
	int old_primary = view->primary;

	dbha__lives_look(node, o);
	node->seen = true;
	node->observed_us = o->at_us;
	if (o->failure == FAILURE_NONE && view->settled && !ever_answered(view))
		begin_anew(view, o->node);
	if (o->failure == FAILURE_NONE)
		take_answer(node, o, events);
	else
		take_failure(node, o, probe_failures);

	judge(view, events);
	view->observed_us = oldest_observation(view); /* of the nodes as they are now: who is silent does not count */
	follow_generations(view, generations, o);
	follow_return(node, &before, o);

	if (before.state != node->state || before.role != node->role)
		add_event(events, DBHA_EVENT_NODE, o->node);
	if (routes_differently(&before, node) || was_settled != view->settled || was_split != view->split_brain ||
	    old_timeline != view->timeline || old_cluster != view->system_identifier || old_primary != view->primary)
		view->version++;
}
