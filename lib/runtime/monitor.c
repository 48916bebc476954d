#include "monitor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "identity.h"
#include "shared.h"

/* Alarms closer together than this count as one: a thousand failing calls are one piece of news. */
#define ALARM_GAP_US      2000
/* After this long without a primary the search slows down to a tenth of the rate, then to the ordinary interval. */
#define SEARCH_HARD_US    (30 * (int64_t)1000000)
#define SEARCH_LONG_US    (300 * (int64_t)1000000)
#define SEARCH_SLOWER     10
/* Connects to a node that is down, while there is no primary or calls ask for it: one in so many milliseconds. */
#define DIAL_PAUSE_MAX_MS 100

/* What the file knows binds this process from its first observation on. */
static void begin_with_fence(struct monitor *monitor)
{
	struct topology_events none = {0};
	const struct fence_file *fence = monitor->world.fence;
	if (!fence || !fence->path)
		return;
	const struct fence_entry *first = dbha__fence_first(&fence->stored);
	monitor->view.identified_only = true;
	if (first)
		dbha__topology_remember(&monitor->view, first->system_identifier, first->timeline, &none);
	monitor->view.acceptable = dbha__fence_file_acceptable(fence);
}

void dbha__monitor_init(struct monitor *monitor, const struct monitor_world *world, int64_t now)
{
	memset(monitor, 0, sizeof *monitor);
	monitor->world = *world;
	dbha__topology_init(&monitor->view, dbha__discover_places(world->config));
	dbha__topology_reserve(&monitor->view, world->config->n_nodes);
	dbha__places_init(&monitor->places, world->config, world->resolver, world->names);
	/* After fork what the parent has seen still binds the child (P1). */
	const struct view *known = dbha__view_borrow(world->holder);
	monitor->view.version = known->version;
	monitor->view.timeline = known->timeline;
	monitor->view.system_identifier = known->system_identifier;
	dbha__view_return(world->holder);
	begin_with_fence(monitor);
	monitor->rng.state = dbha__rng_entropy(monitor);
	monitor->alarm_us = now - ALARM_GAP_US;
	monitor->no_primary_since_us = -1;
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		monitor->probes[i].due_us = now;
		monitor->probes[i].in_step = true;
	}
}

const char *dbha__monitor_name(const struct monitor *monitor, int i)
{
	const char *name = monitor->view.nodes[i].name;
	return name ? name : monitor->world.config->nodes[i].name;
}

void dbha__monitor_fini(struct monitor *monitor)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		dbha__dial_drop(&monitor->probes[i].dial);
		dbha__conn_close(monitor->probes[i].conn);
		monitor->probes[i].conn = NULL;
		free(atomic_exchange(&monitor->reports[i], NULL));
	}
}

void dbha__monitor_alarm(struct monitor *monitor)
{
	if (!atomic_exchange_explicit(&monitor->alarmed, true, memory_order_relaxed))
		dbha__wake_signal(monitor->world.wake);
}

void dbha__monitor_report(struct monitor *monitor, int node, enum failure failure, const char *why)
{
	struct report *report = malloc(sizeof *report);
	if (!report)
		return; /* the next one will be seen */
	report->failure = failure;
	snprintf(report->why, sizeof report->why, "%s", why);
	free(atomic_exchange(&monitor->reports[node], report));
	dbha__wake_signal(monitor->world.wake);
}

/* ---- when ------------------------------------------------------------------------------------------------- */

/* x with up to a tenth taken off at random: the probes of many processes do not march in step. */
static int64_t jittered(struct monitor *monitor, int64_t us)
{
	return us - (int64_t)dbha__rng_below(&monitor->rng, (uint64_t)us / 10 + 1);
}

static bool searching(const struct monitor *monitor, int64_t now)
{
	return monitor->no_primary_since_us >= 0 && now - monitor->no_primary_since_us < SEARCH_LONG_US;
}

/*
 * How long to leave a node alone that could not be connected to: longer with each failure, and drawn from half of that to
 * one and a half, because what made this process dial has made all the others dial in the same millisecond.
 */
static int64_t dial_pause(struct monitor *monitor, const struct probe *probe)
{
	int64_t pause = ms_to_us(monitor->world.config->options.probe_interval_fast_ms);
	for (int i = 0; i < probe->dial_failures && pause < ms_to_us(DIAL_PAUSE_MAX_MS); i++)
		pause *= 2;
	if (pause > ms_to_us(DIAL_PAUSE_MAX_MS))
		pause = ms_to_us(DIAL_PAUSE_MAX_MS);
	return pause / 2 + (int64_t)dbha__rng_below(&monitor->rng, (uint64_t)pause + 1);
}

/* Asking over an open connection is cheap; connecting to a node that is down is not, for anybody, however many want it. */
static int64_t earliest(const struct probe *probe, int64_t now)
{
	bool free = probe->conn || probe->dial_failures == 0 || probe->not_before_us < now;
	return free ? now : probe->not_before_us;
}

/* How long to rest before the next probe of a node. */
static int64_t pause_of(struct monitor *monitor, struct probe *probe, int64_t now)
{
	const struct config_options *options = &monitor->world.config->options;
	int64_t pause = ms_to_us(options->probe_interval_fast_ms), most = ms_to_us(options->probe_interval_ms);
	if (!searching(monitor, now)) {
		bool in_step = probe->in_step;
		probe->in_step = false;
		return in_step ? (int64_t)dbha__rng_below(&monitor->rng, (uint64_t)most) : jittered(monitor, most);
	}
	if (now - monitor->no_primary_since_us > SEARCH_HARD_US)
		pause *= SEARCH_SLOWER;
	pause = jittered(monitor, pause < most ? pause : most);
	int64_t closed = earliest(probe, now) - now;
	return pause > closed ? pause : closed;
}

/* A suspect that let its time pass is asked again at once: the silence has paced it, and others wait for the verdict. */
static void rest(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	const struct node_view *node = &monitor->view.nodes[i];
	bool urgent = node->state == DBHA_STATE_SUSPECT && node->silences > 0;
	probe->phase = PROBE_RESTING;
	probe->due_us = urgent ? now : now + pause_of(monitor, probe, now);
}

static void probe_all_now(struct monitor *monitor, int64_t now)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		struct probe *probe = &monitor->probes[i];
		int64_t at = earliest(probe, now);
		probe->in_step = true;
		if (probe->phase == PROBE_RESTING && at < probe->due_us)
			probe->due_us = at;
	}
}

/* ---- publishing ------------------------------------------------------------------------------------------- */

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
		probe_all_now(monitor, now);
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

static void update_lag(struct monitor *monitor, int64_t now)
{
	struct view *view = &monitor->view;
	if (view->primary >= 0 && view->nodes[view->primary].lsn)
		dbha__lag_sample(&monitor->lag, now, view->nodes[view->primary].lsn);
	int max_lag_ms = monitor->world.config->options.max_lag_ms;
	for (int i = 0; i < view->n_nodes; i++) {
		struct node_view *node = &view->nodes[i];
		bool standby = node->role == DBHA_ROLE_STANDBY && node->lsn;
		bool primary = i == view->primary;
		node->lag_ms = standby ? dbha__lag_ms(&monitor->lag, node->lsn, node->seen_us) : primary ? 0 : -1;
		node->lag_bytes = standby ? dbha__lag_bytes(&monitor->lag, node->lsn, node->seen_us) : primary ? 0 : -1;
		int64_t known_ms = dbha__lag_known(&monitor->lag, node->lsn) ? node->lag_ms : -1;
		bool behind = standby && dbha__lag_behind(node->behind, known_ms, max_lag_ms, view->primary >= 0);
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
		probe_all_now(monitor, now);
	}
}

void dbha__monitor_adopt(struct monitor *monitor, int64_t now)
{
	struct view known;
	struct lag_history lag;
	struct topology_events none = {0};
	if (!monitor->world.shared_key || monitor->places.discovers ||
	    !dbha__shared_load(monitor->world.shared_key, &known, &lag))
		return;
	int64_t interval = ms_to_us(monitor->world.config->options.probe_interval_ms);
	int64_t due = known.observed_us + interval;
	if (!known.settled || known.primary < 0 || now >= due) {
		/* Too old to be routed by; but what it was the highest timeline of binds this handle too (P1). */
		bool same = !monitor->view.system_identifier || monitor->view.system_identifier == known.system_identifier;
		if (same && known.timeline > monitor->view.timeline)
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

static void observe(struct monitor *monitor, int i, const struct observation *seen, int64_t now)
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
	consult_fence(monitor, &events, now);
	update_lag(monitor, now);
	follow_primary(monitor, now);
	publish(monitor, &events);
	if (monitor->view.nodes[i].state == DBHA_STATE_SILENT && others_usable(monitor, i))
		dbha__pool_cut_movable(&monitor->world.pools[i]);
}

static void observe_failure(struct monitor *monitor, int i, enum failure failure, const char *why, int64_t now)
{
	struct observation observation = {.failure = failure, .why = why};
	observe(monitor, i, &observation, now);
}

/* ---- one probe -------------------------------------------------------------------------------------------- */

static void dial(struct monitor *monitor, int i, const struct addresses *addresses, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	const struct config *config = monitor->world.config;
	struct dial_plan plan = {
	    .config = config, .node = dbha__places_node(&monitor->places, i), .reach_us = probe->deadline - now};
	int64_t limit = now + ms_to_us(config->options.connect_timeout_ms);
	probe->phase = PROBE_DIALING;
	dbha__dial_begin(&probe->dial, &plan, addresses, now, limit > probe->deadline ? limit : probe->deadline);
}

static void dial_failed(struct monitor *monitor, int i, enum failure failure, const char *why, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	probe->dial_failures++;
	probe->not_before_us = probe->began_us + dial_pause(monitor, probe);
	dbha__places_refresh(&monitor->places, i, now);
	observe_failure(monitor, i, failure, why, now);
	rest(monitor, i, now);
}

/* Looks the address up and begins to connect; waits for the resolver where it has to. */
static void resolve(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	struct addresses addresses;
	char why[DBHA_WHY_MAX];
	switch (dbha__places_lookup(&monitor->places, i, now, &addresses, why, sizeof why)) {
	case RESOLVED:
		dial(monitor, i, &addresses, now);
		return;
	case RESOLVE_FAILED:
		dial_failed(monitor, i, FAILURE_UNREACHABLE, why, now);
		return;
	case RESOLVE_PENDING:
		break;
	}
	probe->phase = PROBE_RESOLVING;
	if (now >= probe->deadline)
		dial_failed(monitor, i, FAILURE_SILENT, "its host name could not be resolved in time", now);
}

static uint64_t statements_of(const struct monitor *monitor, int i)
{
	return atomic_load_explicit(&monitor->world.stats[i].statements, memory_order_relaxed);
}

/* Gives the probe under way another probe_timeout. */
static void extend(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	probe->deadline = now + ms_to_us(monitor->world.config->options.probe_timeout_ms);
	probe->statements = statements_of(monitor, i);
}

/*
 * No answer in time. The question stays open, because a server that is only slow will answer it, and one that was frozen
 * answers the moment it thaws. And a node that has done statements meanwhile is not silent, whatever became of our question:
 * then false.
 */
static bool unanswered(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	bool silent = probe->statements == statements_of(monitor, i);
	char why[DBHA_WHY_MAX];
	snprintf(why, sizeof why, "no answer to a probe for %lld ms", (long long)(now - probe->began_us) / 1000);
	if (silent)
		observe_failure(monitor, i, FAILURE_SILENT, why, now);
	extend(monitor, i, now);
	return silent;
}

static void begin(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	probe->began_us = now;
	extend(monitor, i, now);
	memset(&probe->observation, 0, sizeof probe->observation);
	if (probe->conn && dbha__identity_ask(probe->conn, false)) {
		probe->phase = PROBE_ASKING;
		return;
	}
	dbha__conn_close(probe->conn);
	probe->conn = NULL;
	resolve(monitor, i, now);
}

static void answered(struct monitor *monitor, int i, const struct observation *observation, int64_t latency_us,
                     int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	struct observation seen = *observation;
	seen.latency_us = latency_us;
	seen.kept = probe->phase == PROBE_ASKING;
	probe->dial_failures = 0;
	observe(monitor, i, &seen, now);
	rest(monitor, i, now);
}

static void step_dialing(struct monitor *monitor, int i, bool ready, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	switch (dbha__dial_step(&probe->dial, now, ready)) {
	case DIAL_BUSY:
		if (now >= probe->deadline)
			unanswered(monitor, i, now);
		return;
	case DIAL_READY:
		probe->conn = dbha__dial_take(&probe->dial);
		answered(monitor, i, &probe->dial.observation, now - probe->began_us, now);
		return;
	case DIAL_FAILED:
		dial_failed(monitor, i, probe->dial.observation.failure, probe->dial.why, now);
		return;
	}
}

/* The kept connection ended. Why, a new one will tell; it is made at once. */
static void lost(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	char why[DBHA_WHY_MAX];
	dbha__conn_failure(probe->conn, why, sizeof why);
	dbha__conn_close(probe->conn);
	probe->conn = NULL;
	observe_failure(monitor, i, FAILURE_LOST, why, now);
	probe_all_now(monitor, now);
	begin(monitor, i, now);
}

/* A silent node is asked over a new connection; its kept one may hang in a network that has forgotten it. */
static void doubt_silent(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	if (monitor->view.nodes[i].silences < monitor->world.config->options.probe_failures)
		return;
	dbha__conn_close(probe->conn);
	probe->conn = NULL;
	rest(monitor, i, now);
}

/* The kept connection may lead to another server than a new one would. */
static void ask_anew(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	dbha__conn_close(probe->conn);
	probe->conn = NULL;
	begin(monitor, i, now);
}

static void step_asking(struct monitor *monitor, int i, bool ready, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	enum conn_poll poll = ready ? dbha__identity_answer(probe->conn, &probe->observation) : CONN_WANT_READ;
	if (poll == CONN_READY)
		answered(monitor, i, &probe->observation, now - probe->began_us, now);
	else if (poll == CONN_FAILED)
		lost(monitor, i, now);
	else if (now >= probe->deadline && unanswered(monitor, i, now))
		doubt_silent(monitor, i, now);
}

static void step_probe(struct monitor *monitor, int i, bool ready, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	if (monitor->view.nodes[i].presence != PRESENT)
		return;
	switch (probe->phase) {
	case PROBE_RESTING:
		if (ready && probe->conn && dbha__conn_is_dead(probe->conn))
			lost(monitor, i, now);
		else if (now >= probe->due_us)
			begin(monitor, i, now);
		break;
	case PROBE_RESOLVING:
		resolve(monitor, i, now);
		break;
	case PROBE_DIALING:
		step_dialing(monitor, i, ready, now);
		break;
	case PROBE_ASKING:
		step_asking(monitor, i, ready, now);
		break;
	}
}

/* ---- places ------------------------------------------------------------------------------------------------- */

/* Nothing of the node that was here is to meet the next one. */
static void begin_place_anew(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	dbha__dial_drop(&probe->dial);
	dbha__conn_close(probe->conn);
	free(atomic_exchange(&monitor->reports[i], NULL));
	memset(probe, 0, sizeof *probe);
	probe->due_us = now;
}

static void arrive(struct monitor *monitor, int i, int64_t now)
{
	begin_place_anew(monitor, i, now);
	dbha__pool_dispose(dbha__pool_drain(&monitor->world.pools[i], false));
	dbha__topology_arrive(&monitor->view, i, dbha__places_name(&monitor->places, i));
	dbha__trace(monitor->world.trace, TRACE_INFO, "%s is a new node", dbha__monitor_name(monitor, i));
}

static void leave(struct monitor *monitor, int i, struct topology_events *events, int64_t now)
{
	char why[DBHA_WHY_MAX];
	snprintf(why, sizeof why, "its address is gone from the answer for %.180s",
	         dbha__places_node(&monitor->places, i)->host);
	begin_place_anew(monitor, i, now);
	dbha__topology_leave(&monitor->view, i, why, events);
	dbha__pool_dispose(dbha__pool_drain(&monitor->world.pools[i], true));
}

static void come_back(struct monitor *monitor, int i, int64_t now)
{
	dbha__pool_dispose(dbha__pool_drain(&monitor->world.pools[i], false));
	dbha__topology_return(&monitor->view, i);
	monitor->probes[i].due_us = now;
}

/* Those whose last connection has come back are gone. What they counted stays in the sum of the handle. */
static bool let_go(struct monitor *monitor, struct topology_events *events)
{
	bool any = false;
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		if (monitor->view.nodes[i].presence != LEAVING || !dbha__pool_is_empty(&monitor->world.pools[i]))
			continue;
		dbha__trace(monitor->world.trace, TRACE_INFO, "%s has left", dbha__monitor_name(monitor, i));
		dbha__places_vacate(&monitor->places, i);
		dbha__topology_vacate(&monitor->view, i, events);
		dbha__stats_move(&monitor->world.stats[i], monitor->world.handle_stats);
		any = true;
	}
	return any;
}

static void say_too_many(struct monitor *monitor, int unplaced)
{
	if (unplaced == 0 || monitor->places.said_too_many)
		return;
	monitor->places.said_too_many = true;
	dbha__trace(monitor->world.trace, TRACE_WARNING,
	            "discover=dns: more addresses than the %d places for nodes: %d are left out", CONFIG_NODES_MAX,
	            unplaced);
}

static void take_changes(struct monitor *monitor, const struct discover_changes *changes,
                         struct topology_events *events, int64_t now)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		uint32_t bit = UINT32_C(1) << i;
		if (changes->left & bit)
			leave(monitor, i, events, now);
		if (changes->back & bit)
			come_back(monitor, i, now);
		if (changes->taken & bit)
			arrive(monitor, i, now);
		if (changes->freed & bit) {
			begin_place_anew(monitor, i, now);
			dbha__topology_vacate(&monitor->view, i, events);
		}
	}
	say_too_many(monitor, changes->unplaced);
}

/* With discover=dns: nodes come and go with the answers of the resolver. Returns when it is to be asked again. */
static int64_t discover(struct monitor *monitor, int64_t now)
{
	struct topology_events events = {0};
	bool changed = let_go(monitor, &events);
	/* In the search for a primary a new address may be the answer, and nothing fails that would ask for it. */
	int64_t wake = dbha__resolver_keep_fresh(monitor->world.resolver, now, searching(monitor, now));
	if (dbha__places_news(&monitor->places)) {
		struct discover_changes changes = dbha__places_update(&monitor->places);
		take_changes(monitor, &changes, &events, now);
		changed = true;
	}
	if (changed) {
		consult_fence(monitor, &events, now);
		update_lag(monitor, now);
		follow_primary(monitor, now);
		publish(monitor, &events);
	}
	return wake;
}

/*
 * Without it: a name that has moved away from a primary. The old one may live on and answer as if nothing had happened: who
 * has the address now is asked. (A standby is left alone: the name of several may lead to each of them by turns.)
 */
static void follow_names(struct monitor *monitor, int64_t now)
{
	if (!dbha__places_news(&monitor->places))
		return;
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		struct addresses known;
		const struct conn *conn = monitor->probes[i].conn;
		dbha__resolver_known(monitor->world.resolver, i, &known);
		if (known.n > 0 && conn && monitor->view.nodes[i].role == DBHA_ROLE_PRIMARY &&
		    !dbha__addresses_hold(&known, dbha__conn_address(conn)))
			ask_anew(monitor, i, now);
	}
}

/* ---- stepping ----------------------------------------------------------------------------------------------- */

static int64_t wake_of(const struct probe *probe)
{
	switch (probe->phase) {
	case PROBE_RESTING:
		return probe->due_us;
	case PROBE_DIALING: {
		int64_t wake = dbha__dial_wake(&probe->dial);
		return wake < probe->deadline ? wake : probe->deadline;
	}
	case PROBE_RESOLVING:
	case PROBE_ASKING:
		break;
	}
	return probe->deadline;
}

void dbha__monitor_contradicted(struct monitor *monitor, int i, const struct observation *seen, int64_t now)
{
	observe(monitor, i, seen, now);
	if (monitor->probes[i].conn)
		ask_anew(monitor, i, now);
}

void dbha__monitor_closed_door(struct monitor *monitor, int i, enum failure failure, const char *why, int64_t now)
{
	observe_failure(monitor, i, failure, why, now);
}

void dbha__monitor_open_door(struct monitor *monitor, int i, const struct observation *seen, int64_t now)
{
	enum dbha_state state = monitor->view.nodes[i].state;
	struct observation fresh = *seen;
	fresh.latency_us = monitor->view.nodes[i].latency_us;
	if (state == DBHA_STATE_FULL || state == DBHA_STATE_REFUSED)
		observe(monitor, i, &fresh, now);
}

void dbha__monitor_watch(const struct monitor *monitor, struct pollfd *items)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		const struct probe *probe = &monitor->probes[i];
		items[i] = (struct pollfd){.fd = -1};
		if (probe->phase == PROBE_DIALING && probe->dial.conn)
			items[i] = (struct pollfd){.fd = dbha__conn_fd(probe->dial.conn), .events = probe->dial.events};
		else if (probe->conn)
			items[i] = (struct pollfd){.fd = dbha__conn_fd(probe->conn), .events = POLLIN};
	}
}

static void take_reports(struct monitor *monitor, int64_t now)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		/* Most often there is none, and a look is cheaper than an exchange. */
		if (!atomic_load_explicit(&monitor->reports[i], memory_order_relaxed))
			continue;
		struct report *report = atomic_exchange(&monitor->reports[i], NULL);
		observe_failure(monitor, i, report->failure, report->why, now);
		free(report);
	}
}

int64_t dbha__monitor_step(struct monitor *monitor, int64_t now, const struct pollfd *items)
{
	int64_t wake = CLOCK_NEVER;
	bool alarm_due = now - monitor->alarm_us >= ALARM_GAP_US;
	if (alarm_due && atomic_exchange_explicit(&monitor->alarmed, false, memory_order_relaxed)) {
		monitor->alarm_us = now;
		probe_all_now(monitor, now);
	} else if (atomic_load_explicit(&monitor->alarmed, memory_order_relaxed)) {
		wake = monitor->alarm_us + ALARM_GAP_US;
	}
	take_reports(monitor, now);
	if (monitor->places.discovers) {
		int64_t again = discover(monitor, now);
		wake = again < wake ? again : wake;
	} else {
		follow_names(monitor, now);
	}
	for (int i = 0; i < monitor->view.n_nodes; i++)
		step_probe(monitor, i, items[i].revents != 0, now);
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		int64_t own = monitor->view.nodes[i].presence == PRESENT ? wake_of(&monitor->probes[i]) : CLOCK_NEVER;
		wake = own < wake ? own : wake;
	}
	return wake;
}

void dbha__monitor_skip(struct monitor *monitor, int64_t gap_us)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		struct probe *probe = &monitor->probes[i];
		if (probe->phase == PROBE_RESTING)
			continue; /* when the next one is due does not depend on who looks */
		probe->began_us += gap_us;
		probe->deadline += gap_us;
		dbha__dial_skip(&probe->dial, gap_us);
	}
}

void dbha__monitor_abandon(struct monitor *monitor, int dev_null)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		if (monitor->probes[i].conn)
			dbha__conn_abandon(monitor->probes[i].conn, dev_null);
		if (monitor->probes[i].dial.conn)
			dbha__conn_abandon(monitor->probes[i].dial.conn, dev_null);
	}
}
