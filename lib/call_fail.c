#include "call_fail.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "fence.h"

void dbha__call_describe_nodes(dbha *h, char *message, size_t size)
{
	struct shared_view *shared = dbha__view_take(&h->view);
	size_t used = strlen(message);
	int n_named = 0;
	for (int i = 0; i < shared->view.n_nodes && used < size; i++) {
		const struct node_view *node = &shared->view.nodes[i];
		if (node->presence == VACANT)
			continue;
		const char *role = node->role == DBHA_ROLE_UNKNOWN ? "" : dbha_role_name(node->role);
		int n = snprintf(message + used, size - used, "%s%s is %s%s%s%s%s%s", n_named++ ? "; " : "",
		                 dbha__life_name_in(h, &shared->view, i), dbha_state_name(node->state), *role ? " as a " : "",
		                 role, node->why[0] ? " (" : "", node->why, node->why[0] ? ")" : "");
		used += n > 0 ? (size_t)n : 0;
	}
	dbha__view_drop(shared);
}

uint64_t dbha__call_describe_fence(dbha *h, char *message, size_t size)
{
	const char *path = h->config.options.fence_file;
	if (!path)
		return 0;
	struct shared_view *shared = dbha__view_take(&h->view);
	const struct view *view = &shared->view;
	uint64_t other = dbha__fence_other_cluster(view);
	size_t used = strlen(message);
	if (other)
		snprintf(
		    message + used, size - used,
		    "the nodes belong to cluster %llu, but fence_file \"%.150s\" remembers cluster %llu: if it was rebuilt, "
		    "accept it with \"dbha status --accept-cluster\", or in a service with accept_cluster=%llu; ",
		    (unsigned long long)other, path, (unsigned long long)view->system_identifier, (unsigned long long)other);
	else if (dbha__fence_knows_alone(view))
		snprintf(message + used, size - used, "timeline %u is known from fence_file \"%.150s\", and no node is on it; ",
		         (unsigned)view->timeline, path);
	dbha__view_drop(shared);
	return other;
}

void dbha__call_fail_no_node(struct call *call, const struct route_query *query, dbha_error *err)
{
	long long ms = (long long)(dbha__clock_now() - call->began_us) / 1000;
	STATS_ADD(&call->h->handle_stats, timeouts, 1);
	char token[96] = "";
	if (query->causal && query->causal->floor.timeline && query->intent != DBHA_WRITE)
		snprintf(token, sizeof token, " that has replayed %X/%X of timeline %u",
		         (unsigned)(query->causal->floor.lsn >> 32), (unsigned)query->causal->floor.lsn,
		         (unsigned)query->causal->floor.timeline);
	dbha__fail(err, DBHA_ERR_NO_NODE, "looked for %s%s for %lld ms and found none%s%s; ", dbha__route_wanted(query),
	           token, ms, call->trouble[0] ? "; last trouble: " : "", call->trouble);
	/* Not before the deadline: the nodes that do not answer may be ours. */
	if (dbha__call_describe_fence(call->h, err->message, sizeof err->message)) {
		err->code = DBHA_ERR_FOREIGN;
		snprintf(err->sqlstate, sizeof err->sqlstate, "%s", dbha__code_sqlstate(DBHA_ERR_FOREIGN));
	}
	dbha__call_describe_nodes(call->h, err->message, sizeof err->message);
}

void dbha__call_fail_refused(struct call *call, int code, const char *what, dbha_error *err)
{
	dbha__fail(err, code, "%s: ", what);
	if (code == DBHA_ERR_FOREIGN)
		dbha__call_describe_fence(call->h, err->message, sizeof err->message);
	dbha__call_describe_nodes(call->h, err->message, sizeof err->message);
}

/* Who holds the connections, for how long, and whether more could be made: what somebody who sizes a pool has to know. */
void dbha__call_fail_pool(struct call *call, int node, bool too_many, dbha_error *err)
{
	dbha *h = call->h;
	int64_t now = dbha__clock_now();
	struct pool_report report;
	dbha__pool_report(&h->pools[node], now, &report);
	const char *name = dbha__life_node_name(h, node);
	STATS_ADD(&h->stats[node], pool_refused, 1);
	char failing[DBHA_WHY_MAX + 32] = "";
	if (report.connect_failed_us)
		snprintf(failing, sizeof failing, "; connects are failing: %s", report.connect_why);
	char waited[64];
	if (too_many)
		snprintf(waited, sizeof waited, "pool_max_waiting (%d) callers wait already",
		         h->pools[node].limits.max_waiting);
	else
		snprintf(waited, sizeof waited, "waited %lld ms", (long long)(now - call->began_us) / 1000);
	dbha__fail(
	    err, DBHA_ERR_POOL,
	    "no connection to %s came free: %s; %d of pool_max_size %d are held, the longest for %lld ms, %d are being "
	    "made, %d callers wait%s",
	    name, waited, report.counts.used, h->pools[node].limits.max_size, (long long)report.longest_use_us / 1000,
	    report.counts.connecting, report.counts.waiting, failing);
	snprintf(err->node, sizeof err->node, "%s", name);
}

void dbha__call_fail_canceled(dbha_error *err)
{
	dbha__fail(err, DBHA_ERR_CANCELED, "canceled by dbha_cancel while it waited for a connection");
}

void dbha__call_fail_closed(dbha_error *err)
{
	dbha__fail(err, DBHA_ERR_CLOSED, "the handle was closed while the call was waiting");
}
