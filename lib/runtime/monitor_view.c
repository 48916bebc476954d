/*
 * monitor_view: what an observation does: the topology, the lag, the fence file, and then, in this order, the pools and the view.
 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "monitor_parts.h"
#include "shared.h"

static void publish_event(struct monitor *monitor, const struct topology_event *change)
{
	const struct view *view = &monitor->view;
	dbha_event event = {
	    .size = sizeof event,
	    .kind = change->kind,
	    .node = change->node,
	    .timeline = view->timeline,
	    .unix_us = dbha__clock_unix(),
	    .monotonic_us = dbha__clock_now(),
	};
	if (change->node >= 0) {
		const struct node_view *node = &view->nodes[change->node];
		snprintf(event.text, sizeof event.text, "%.80s: %s %s%s%.150s", dbha__monitor_name(monitor, change->node),
		         dbha_role_name(node->role), dbha_state_name(node->state), node->why[0] ? ": " : "", node->why);
	} else if (change->kind == DBHA_EVENT_FENCE_FILE) {
		snprintf(event.text, sizeof event.text, "%s",
		         view->fence_trouble[0] ? view->fence_trouble : "all is well again");
	}
	if (dbha__events_push(monitor->world.events, &event))
		STATS_ADD(monitor->world.handle_stats, events_dropped, 1);
	if (change->kind == DBHA_EVENT_PRIMARY)
		STATS_ADD(monitor->world.handle_stats, primary_changes, 1);
	enum trace_level level =
	    change->kind == DBHA_EVENT_NODE || change->kind == DBHA_EVENT_PRIMARY ? TRACE_INFO : TRACE_WARNING;
	dbha__trace(monitor->world.trace, level, "%s (timeline %u) %s", dbha_event_name(change->kind),
	            (unsigned)view->timeline, event.text);
}

static void follow_view(struct monitor *monitor)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		const struct node_view *node = &monitor->view.nodes[i];
		bool open = monitor->view.settled && dbha__topology_usable(node);
		dbha__pool_dispose(dbha__pool_follow(&monitor->world.pools[i], open, node->generation));
	}
}

static void say_fence_trouble(struct monitor *monitor, struct topology_events *events)
{
	struct view *view = &monitor->view;
	if (strcmp(view->fence_trouble, monitor->world.fence->trouble) == 0)
		return;
	memcpy(view->fence_trouble, monitor->world.fence->trouble, sizeof view->fence_trouble);
	if (events->n < TOPOLOGY_EVENTS_MAX)
		events->list[events->n++] = (struct topology_event){DBHA_EVENT_FENCE_FILE, -1};
}

/* Another cluster may show a higher timeline than the file knows of it, and that has to be in the file too. */
static bool take_from_fence(struct monitor *monitor, struct topology_events *events)
{
	struct view *view = &monitor->view;
	const struct fence_entry *first = dbha__fence_first(&monitor->world.fence->stored);
	if (!first || (first->system_identifier == view->system_identifier && first->timeline <= view->timeline))
		return false;
	/* It has just taken the place of that one, by accept_cluster, and the file could not be written yet. */
	if (view->system_identifier && view->system_identifier == dbha__fence_file_acceptable(monitor->world.fence))
		return false;
	bool other = view->system_identifier && first->system_identifier != view->system_identifier;
	if (other)
		dbha__trace(monitor->world.trace, TRACE_WARNING,
		            "fence_file: cluster %llu has been accepted in the place of %llu",
		            (unsigned long long)first->system_identifier, (unsigned long long)view->system_identifier);
	dbha__topology_remember(view, first->system_identifier, first->timeline, events);
	return true;
}

/*
 * The fence file has to know a timeline before anybody writes on it, so it comes before the view. The pools come before both: what is
 * fenced is cut without waiting for a disk.
 */
static void consult_fence(struct monitor *monitor, struct topology_events *events, int64_t now)
{
	struct fence_file *fence = monitor->world.fence;
	struct view *view = &monitor->view;
	if (!fence || !fence->path)
		return;
	follow_view(monitor);
	dbha__fence_file_keep(fence, view->system_identifier, view->timeline, now);
	if (take_from_fence(monitor, events)) {
		dbha__fence_file_keep(fence, view->system_identifier, view->timeline, now);
		dbha__monitor_probe_all(monitor, now);
	}
	view->acceptable = dbha__fence_file_acceptable(fence);
	say_fence_trouble(monitor, events);
}

/*
 * First the pools, then the view: whoever has seen a timeline finds every connection of a fenced node cut already, and
 * whoever is routed to a node finds its pool open.
 */
static void publish(struct monitor *monitor, const struct topology_events *events)
{
	follow_view(monitor);
	dbha__view_publish(monitor->world.holder, &monitor->view);
	if (monitor->world.shared_key && !monitor->places.discovers) /* the places of a name are each handle's own */
		dbha__shared_store(monitor->world.shared_key, &monitor->view, &monitor->lag);
	for (int i = 0; i < events->n; i++)
		publish_event(monitor, &events->list[i]);
}

/* By whichever limit is set. In time a lag may be a floor only; in bytes two positions say all. */
static bool is_behind(const struct monitor *monitor, const struct node_view *node)
{
	const struct config_options *options = &monitor->world.config->options;
	bool has_primary = monitor->view.primary >= 0;
	if (options->max_lag_bytes)
		return dbha__lag_behind(node->behind, node->lag_bytes, options->max_lag_bytes, has_primary);
	int64_t known_ms = dbha__lag_known(&monitor->lag, node->lsn) ? node->lag_ms : -1;
	return dbha__lag_behind(node->behind, known_ms, options->max_lag_ms, has_primary);
}

static void update_lag(struct monitor *monitor, int64_t now)
{
	struct view *view = &monitor->view;
	const struct node_view *known = view->primary >= 0 ? &view->nodes[view->primary] : NULL;
	/* Only what was seen: of a primary that has fallen silent nobody knows where it stands now. */
	if (known && known->lsn && known->seen_us != monitor->sampled_us) {
		dbha__lag_sample(&monitor->lag, now, known->lsn);
		monitor->sampled_us = known->seen_us;
	}
	for (int i = 0; i < view->n_nodes; i++) {
		struct node_view *node = &view->nodes[i];
		bool standby = node->role == DBHA_ROLE_STANDBY && node->lsn;
		bool primary = i == view->primary;
		node->lag_ms = standby ? dbha__lag_ms(&monitor->lag, node->lsn, node->seen_us) : primary ? 0 : -1;
		node->lag_bytes = standby ? dbha__lag_bytes(&monitor->lag, node->lsn, node->seen_us) : primary ? 0 : -1;
		node->fresh_us = standby ? dbha__lag_fresh_us(&monitor->lag, node->lsn, node->seen_us) : -1;
		bool behind = standby && is_behind(monitor, node);
		if (behind != node->behind)
			view->version++; /* a read may be waiting for just this */
		node->behind = behind;
	}
}

/* The primary was lost, or found: the pace of the probes changes with it. */
static void follow_primary(struct monitor *monitor, int64_t now)
{
	bool has = monitor->view.primary >= 0 || !monitor->view.settled;
	if (has) {
		monitor->no_primary_since_us = -1;
	} else if (monitor->no_primary_since_us < 0) {
		monitor->no_primary_since_us = now;
		dbha__monitor_probe_all(monitor, now);
	}
}

void dbha__monitor_changed(struct monitor *monitor, struct topology_events *events, int64_t now)
{
	consult_fence(monitor, events, now);
	update_lag(monitor, now);
	follow_primary(monitor, now);
	publish(monitor, events);
}

void dbha__monitor_adopt(struct monitor *monitor, int64_t now)
{
	struct view known;
	struct lag_history lag;
	struct topology_events none = {0};
	if (!monitor->world.shared_key || monitor->places.discovers ||
	    !dbha__shared_load(monitor->world.shared_key, &known, &lag))
		return;
	/* In a forked child the parent has left its own word, and that may be a later one. */
	bool same = !monitor->view.system_identifier || monitor->view.system_identifier == known.system_identifier;
	if (!same || known.timeline < monitor->view.timeline)
		return;
	int64_t interval = ms_to_us(monitor->world.config->options.probe_interval_ms);
	int64_t due = known.observed_us + interval;
	if (!known.settled || known.primary < 0 || now >= due) {
		/* Too old to be routed by; but its timeline binds this handle too (P1). */
		monitor->view.timeline = known.timeline;
		if (!monitor->view.system_identifier)
			monitor->view.system_identifier = known.system_identifier;
		return;
	}
	uint64_t version = monitor->view.version;
	monitor->view = known;
	monitor->view.version = version + 1;
	monitor->lag = lag;
	consult_fence(monitor, &none, now);
	for (int i = 0; i < known.n_nodes; i++)
		monitor->probes[i].due_us = due;
	publish(monitor, &none);
}

static bool others_usable(const struct monitor *monitor, int i)
{
	for (int k = 0; k < monitor->view.n_nodes; k++)
		if (k != i && dbha__topology_usable(&monitor->view.nodes[k]))
			return true;
	return false;
}

void dbha__monitor_observe(struct monitor *monitor, int i, const struct observation *seen, int64_t now)
{
	struct topology_events events = {0};
	struct observation observation = *seen;
	if (monitor->view.nodes[i].presence != PRESENT)
		return; /* somebody still speaks of a node that has left */
	observation.node = i;
	observation.at_us = now;
	if (observation.failure == FAILURE_NONE)
		STATS_ADD(&monitor->world.stats[i], probes, 1);
	else
		STATS_ADD(&monitor->world.stats[i], probes_failed, 1);
	dbha__topology_apply(&monitor->view, &observation, monitor->world.config->options.probe_failures, &events);
	dbha__monitor_changed(monitor, &events, now);
	if (monitor->view.nodes[i].state == DBHA_STATE_SILENT && others_usable(monitor, i))
		dbha__pool_cut_movable(&monitor->world.pools[i]);
}

void dbha__monitor_observe_failure(struct monitor *monitor, int i, enum failure failure, const char *why, int64_t now)
{
	struct observation observation = {.failure = failure, .why = why};
	dbha__monitor_observe(monitor, i, &observation, now);
}
