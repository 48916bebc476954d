#include "monitor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "identity.h"
#include "monitor_parts.h"

/* Alarms closer together than this count as one: a thousand failing calls are one piece of news. */
#define ALARM_GAP_US      2000
/* monitor=off: an answer that may have lain in the socket for longer than this while nobody looked is not what is so now. */
#define ANSWER_OLD_US     20000
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

bool dbha__monitor_searching(const struct monitor *monitor, int64_t now)
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
	if (!dbha__monitor_searching(monitor, now)) {
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

void dbha__monitor_probe_all(struct monitor *monitor, int64_t now)
{
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		struct probe *probe = &monitor->probes[i];
		int64_t at = earliest(probe, now);
		probe->in_step = true;
		if (probe->phase == PROBE_RESTING && at < probe->due_us)
			probe->due_us = at;
	}
}

/* ---- one probe -------------------------------------------------------------------------------------------- */

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

static void dial(struct monitor *monitor, int i, const struct addresses *addresses, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	const struct config *config = monitor->world.config;
	/* What the name took is not the server's fault. */
	if (probe->phase == PROBE_RESOLVING)
		extend(monitor, i, now);
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
	dbha__monitor_observe_failure(monitor, i, failure, why, now);
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
		dbha__monitor_observe_failure(monitor, i, FAILURE_SILENT, why, now);
	extend(monitor, i, now);
	return silent;
}

static void begin(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	probe->began_us = now;
	extend(monitor, i, now);
	memset(&probe->observation, 0, sizeof probe->observation);
	probe->old = false;
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
	if (probe->old) {
		begin(monitor, i, now);
		return;
	}
	struct observation seen = *observation;
	seen.latency_us = latency_us;
	seen.kept = probe->phase == PROBE_ASKING;
	probe->dial_failures = 0;
	dbha__monitor_observe(monitor, i, &seen, now);
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
	dbha__monitor_observe_failure(monitor, i, FAILURE_LOST, why, now);
	dbha__monitor_probe_all(monitor, now);
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
void dbha__monitor_ask_anew(struct monitor *monitor, int i, int64_t now)
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

/* What the connector has told changes when the next probes are due; the monitor has said its time before. */
static void step_again(const struct monitor *monitor)
{
	dbha__wake_signal(monitor->world.wake);
}

void dbha__monitor_contradicted(struct monitor *monitor, int i, const struct observation *seen, int64_t now)
{
	dbha__monitor_observe(monitor, i, seen, now);
	step_again(monitor);
	if (monitor->probes[i].conn)
		dbha__monitor_ask_anew(monitor, i, now);
}

void dbha__monitor_closed_door(struct monitor *monitor, int i, enum failure failure, const char *why, int64_t now)
{
	dbha__monitor_observe_failure(monitor, i, failure, why, now);
	step_again(monitor);
}

void dbha__monitor_open_door(struct monitor *monitor, int i, const struct observation *seen, int64_t now)
{
	enum dbha_state state = monitor->view.nodes[i].state;
	struct observation fresh = *seen;
	fresh.latency_us = monitor->view.nodes[i].latency_us;
	if (state != DBHA_STATE_FULL && state != DBHA_STATE_REFUSED)
		return;
	dbha__monitor_observe(monitor, i, &fresh, now);
	step_again(monitor);
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
		dbha__monitor_observe_failure(monitor, i, report->failure, report->why, now);
		free(report);
	}
}

int64_t dbha__monitor_step(struct monitor *monitor, int64_t now, const struct pollfd *items)
{
	int64_t wake = CLOCK_NEVER;
	bool alarm_due = now - monitor->alarm_us >= ALARM_GAP_US;
	if (alarm_due && atomic_exchange_explicit(&monitor->alarmed, false, memory_order_relaxed)) {
		monitor->alarm_us = now;
		dbha__monitor_probe_all(monitor, now);
	} else if (atomic_load_explicit(&monitor->alarmed, memory_order_relaxed)) {
		wake = monitor->alarm_us + ALARM_GAP_US;
	}
	take_reports(monitor, now);
	if (monitor->places.discovers) {
		int64_t again = dbha__monitor_discover(monitor, now);
		wake = again < wake ? again : wake;
	} else {
		dbha__monitor_follow_names(monitor, now);
	}
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		/* What poll(2) reported of the socket of a probe that has been begun anew meanwhile is not of its new one. */
		bool ready = items[i].revents != 0 && monitor->probes[i].began_us != now;
		step_probe(monitor, i, ready, now);
	}
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
		probe->old = probe->old || gap_us > ANSWER_OLD_US;
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
