/*
 * observe: dbha_status, dbha_stats, dbha_wait and dbha_next_event: the handle seen from inside.
 */
#include <stdio.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "dbha.h"
#include "error.h"
#include "stats.h"

/* ---- status ------------------------------------------------------------------------------------------------ */

/* Copies as much as the caller, who may have been compiled with a smaller struct, has room for. */
static void copy_out(void *to, size_t to_size, const void *from, size_t from_size)
{
	memcpy(to, from, to_size < from_size ? to_size : from_size);
}

static void describe_node(dbha *h, const struct view *view, int i, int64_t now, dbha_node_status *out)
{
	const struct node_view *node = &view->nodes[i];
	struct pool_report report;
	dbha__pool_report(&h->pools[i], now, &report);
	*out = (dbha_node_status){
	    .role = node->role,
	    .state = node->state,
	    .timeline = node->timeline,
	    .lsn = node->lsn,
	    .lag_ms = node->lag_ms,
	    .lag_bytes = node->lag_bytes,
	    .latency_us = node->latency_us,
	    .seen_ms_ago = node->seen_us < 0 ? -1 : (now - node->seen_us) / 1000,
	    .generation = node->generation,
	    .pool_idle = report.counts.idle,
	    .pool_used = report.counts.used,
	    .pool_connecting = report.counts.connecting,
	    .pool_waiting = report.counts.waiting,
	};
	snprintf(out->name, sizeof out->name, "%s", dbha__life_name_in(h, view, i));
	snprintf(out->why, sizeof out->why, "%s", node->why);
	out->system_identifier = node->system_identifier;
}

/* Without the vacant places behind the last node; those between nodes are shown, so that a node keeps its index. */
static int nodes_shown(const struct view *view)
{
	int n = view->n_nodes;
	while (n > 1 && view->nodes[n - 1].presence == VACANT)
		n--;
	return n;
}

static void describe_cluster(const struct view *view, dbha_cluster_status *out)
{
	*out = (dbha_cluster_status){
	    .system_identifier = view->system_identifier,
	    .timeline = view->timeline,
	    .primary = view->primary,
	    .nodes = nodes_shown(view),
	    .split_brain = view->split_brain,
	    .version = view->version,
	};
	snprintf(out->fence_trouble, sizeof out->fence_trouble, "%s", view->fence_trouble);
}

int dbha_status(dbha *h, dbha_cluster_status *cluster, dbha_node_status *nodes, int nodes_max, dbha_error *err)
{
	if (!cluster || cluster->size < sizeof cluster->size || nodes_max < 0 || (nodes_max > 0 && !nodes) ||
	    (nodes_max > 0 && nodes->size < sizeof nodes->size)) {
		dbha__fail(err, DBHA_ERR_USAGE,
		           "dbha_status: cluster must not be NULL, its size and the size of nodes[0] must be set");
		return -1;
	}
	if (dbha__life_enter(h, err) != DBHA_OK)
		return -1;
	dbha__life_refresh(h, dbha__clock_now() + ms_to_us(h->config.options.call_timeout_ms));
	struct shared_view *shared = dbha__view_take(&h->view);
	int64_t now = dbha__clock_now();
	dbha_cluster_status own;
	describe_cluster(&shared->view, &own);
	own.size = cluster->size;
	copy_out(cluster, cluster->size, &own, sizeof own);

	int n = own.nodes < nodes_max ? own.nodes : nodes_max;
	size_t stride = n > 0 ? nodes->size : 0;
	for (int i = 0; i < n; i++) {
		dbha_node_status node;
		describe_node(h, &shared->view, i, now, &node);
		node.size = stride;
		copy_out((char *)nodes + (size_t)i * stride, stride, &node, sizeof node);
	}
	dbha__view_drop(shared);
	dbha__life_leave(h);
	return n;
}

int dbha_accept_cluster(dbha *h, uint64_t system_identifier, dbha_error *err)
{
	int code = dbha__life_enter(h, err);
	if (code != DBHA_OK)
		return code;
	const char *path = h->config.options.fence_file;
	if (!path || system_identifier == 0)
		code = dbha__fail(err, DBHA_ERR_USAGE, "dbha_accept_cluster: %s",
		                  path ? "0 is no system identifier"
		                       : "the handle has no fence_file, so there is nothing to accept");
	else
		code = dbha__fence_file_accept(path, system_identifier, err);
	if (code == DBHA_OK)
		dbha__monitor_alarm(&h->monitor);
	dbha__life_leave(h);
	return code;
}

int dbha_stats(dbha *h, int node, dbha_counters *out, dbha_error *err)
{
	if (!out || out->size < sizeof out->size)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_stats: out must not be NULL, and its size must be set");
	int code = dbha__life_enter(h, err);
	if (code != DBHA_OK)
		return code;
	dbha_counters own = {0};
	if (node < -1 || node >= h->n_places) {
		code = dbha__fail(err, DBHA_ERR_USAGE, "dbha_stats: node is %d: -1 for the sum, or 0 to %d", node,
		                  h->n_places - 1);
	} else {
		for (int i = 0; i < h->n_places; i++)
			if (node < 0 || node == i)
				dbha__stats_sum(&h->stats[i], &own);
		if (node < 0)
			dbha__stats_sum(&h->handle_stats, &own);
		own.size = out->size;
		copy_out(out, out->size, &own, sizeof own);
	}
	dbha__life_leave(h);
	return code;
}

/* ---- events ------------------------------------------------------------------------------------------------ */

int dbha_next_event(dbha *h, dbha_event *event, dbha_error *err)
{
	if (!event || event->size < sizeof event->size) {
		dbha__fail(err, DBHA_ERR_USAGE, "dbha_next_event: event must not be NULL, and its size must be set");
		return -1;
	}
	if (dbha__life_enter(h, err) != DBHA_OK)
		return -1;
	dbha__life_refresh(h, 0);
	dbha_event own;
	bool any = dbha__events_pop(&h->events, &own);
	if (any) {
		own.size = event->size;
		copy_out(event, event->size, &own, sizeof own);
	}
	dbha__life_leave(h);
	return any;
}

/* ---- waiting ----------------------------------------------------------------------------------------------- */

static bool serves(const struct node_view *node, enum dbha_role role)
{
	return dbha__topology_usable(node) && node->role == role;
}

static bool is_reached(const struct view *view, dbha_wait_for what)
{
	int up = 0, standbys = 0, present = 0;
	for (int i = 0; i < view->n_nodes; i++) {
		present += view->nodes[i].presence == PRESENT;
		up += view->nodes[i].state == DBHA_STATE_UP;
		standbys += serves(&view->nodes[i], DBHA_ROLE_STANDBY);
	}
	switch (what) {
	case DBHA_WAIT_PRIMARY:
		return view->settled && view->primary >= 0;
	case DBHA_WAIT_STANDBY:
		return view->settled && standbys > 0;
	case DBHA_WAIT_ANY:
		return up > 0;
	case DBHA_WAIT_ALL:
		return up == present;
	case DBHA_WAIT_PROBED:
		break;
	}
	return view->settled;
}

static int give_up(struct call *call, dbha_wait_for what, dbha_error *err)
{
	static const char *const words[] = {"a primary", "a standby", "any node", "every node",
	                                    "a first answer of every node"};
	int code = atomic_load(&call->h->closed) ? DBHA_ERR_CLOSED : DBHA_ERR_NO_NODE;
	dbha__fail(err, code, "waited for %s for %lld ms; ", words[what],
	           (long long)(dbha__clock_now() - call->began_us) / 1000);
	err->retry_safe = true;
	dbha__call_describe_fence(call->h, err->message, sizeof err->message);
	dbha__call_describe_nodes(call->h, err->message, sizeof err->message);
	return code;
}

static int wait_until(struct call *call, dbha_wait_for what, dbha_error *err)
{
	dbha *h = call->h;
	for (;;) {
		struct shared_view *shared = dbha__view_take(&h->view);
		bool reached = is_reached(&shared->view, what);
		bool split = shared->view.split_brain && what == DBHA_WAIT_PRIMARY;
		uint64_t version = shared->view.version;
		dbha__view_drop(shared);
		if (reached)
			return DBHA_OK;
		if (split)
			return dbha__fail(err, DBHA_ERR_SPLIT_BRAIN, "two primaries on the same timeline");
		if (!dbha__life_wait_view(h, version, call->deadline) &&
		    (atomic_load(&h->closed) || dbha__clock_now() >= call->deadline))
			return give_up(call, what, err);
	}
}

int dbha_wait(dbha *h, dbha_wait_for what, int timeout_ms, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (what < DBHA_WAIT_PRIMARY || what > DBHA_WAIT_PROBED || timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_wait: what is %d, timeout %d ms: a dbha_wait_for and 0 ms or more",
		                  (int)what, timeout_ms);
	int code = dbha__life_enter(h, err);
	if (code != DBHA_OK)
		return code;
	struct call call;
	dbha__call_begin(&call, h, DBHA_DEFAULT, timeout_ms);
	dbha__call_set_deadline(&call);
	dbha__life_refresh(h, call.deadline);
	code = wait_until(&call, what, err);
	dbha__life_leave(h);
	return code;
}
