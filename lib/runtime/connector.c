#include "connector.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backoff.h"
#include "canceller.h"
#include "clock.h"

#define MAINTAIN_US ((int64_t)1000000)

void dbha__connector_init(struct connector *connector, struct monitor *monitor, dbha *handle, int64_t now)
{
	memset(connector, 0, sizeof *connector);
	connector->world = monitor->world;
	connector->monitor = monitor;
	connector->handle = handle;
	connector->maintain_us = now + MAINTAIN_US;
	connector->rng.state = dbha__rng_entropy(connector);
	for (int i = 0; i < monitor->view.n_nodes; i++)
		connector->width[i] = monitor->world.config->options.pool_max_connecting;
}

static void free_attempt(struct connect_attempt *attempt)
{
	dbha__dial_drop(&attempt->dial);
	dbha__pool_dispose(attempt->slot);
	free(attempt);
}

void dbha__connector_fini(struct connector *connector)
{
	while (connector->attempts) {
		struct connect_attempt *attempt = connector->attempts;
		connector->attempts = attempt->next;
		free_attempt(attempt);
	}
	connector->n_attempts = 0;
}

/* ---- beginning -------------------------------------------------------------------------------------------- */

static struct connect_attempt *new_attempt(int node)
{
	struct connect_attempt *attempt = calloc(1, sizeof *attempt);
	if (!attempt)
		return NULL;
	attempt->node = node;
	attempt->slot = calloc(1, sizeof *attempt->slot);
	if (attempt->slot)
		return attempt;
	free(attempt);
	return NULL;
}

static void count_failure(struct connector *connector, int node, const char *why, int64_t now)
{
	const struct config_options *options = &connector->world.config->options;
	int64_t pause = dbha__backoff_us(&connector->rng, options->retry_backoff_ms, options->retry_backoff_max_ms,
	                                 connector->failures[node]++);
	connector->not_before_us[node] = now + pause;
	connector->width[node] = 1;
	STATS_ADD(&connector->world.stats[node], connects_failed, 1);
	dbha__pool_connect_failed(&connector->world.pools[node], why, now);
}

/* One connect that the pool has reserved a place for. False: it has failed already. */
static bool begin(struct connector *connector, int node, const struct addresses *addresses, int64_t now)
{
	const struct config *config = connector->world.config;
	struct connect_attempt *attempt = new_attempt(node);
	if (!attempt) {
		count_failure(connector, node, "out of memory", now);
		return false;
	}
	struct dial_plan plan = {
	    .config = config,
	    .node = dbha__places_node(&connector->monitor->places, node),
	    .statements = config->options.statement_cache_size,
	    .reader = true,
	};
	attempt->generation = connector->monitor->view.nodes[node].generation;
	dbha__dial_begin(&attempt->dial, &plan, addresses, now, now + ms_to_us(config->options.connect_timeout_ms));
	attempt->next = connector->attempts;
	connector->attempts = attempt;
	connector->n_attempts++;
	return true;
}

/*
 * Slow start. After an outage every process wants its connections back from a server that is cold and may not bear it: each
 * begins with one connect at a time, after a short pause of random length, and each that succeeds allows one more, up to
 * pool_max_connecting. A node that becomes the primary, which all writers turn to at once, is spared in the same way, but
 * without the pause: writes are waiting. A failure leads back to one.
 */
static void follow_node(struct connector *connector, int node, int64_t now)
{
	const struct config_options *options = &connector->world.config->options;
	const struct node_view *known = &connector->monitor->view.nodes[node];
	/* A view that was taken over from another handle may tell of a return long ago. */
	bool back = known->back_us != connector->back_us[node] && known->warming > 0;
	bool other_role = known->role != connector->role[node] && connector->role[node] != DBHA_ROLE_UNKNOWN;
	if (back) {
		connector->failures[node] = 0; /* what failed was before */
		connector->not_before_us[node] =
		    now + dbha__backoff_us(&connector->rng, options->retry_backoff_ms, options->retry_backoff_max_ms, 0);
	}
	if (back || other_role)
		connector->width[node] = 1;
	connector->back_us[node] = known->back_us;
	connector->role[node] = known->role;
}

static void begin_wanted(struct connector *connector, int node, int64_t now)
{
	struct addresses addresses;
	char why[DBHA_WHY_MAX];
	if (now < connector->not_before_us[node] || connector->monitor->view.nodes[node].presence != PRESENT)
		return;
	enum resolve_end end = dbha__places_lookup(&connector->monitor->places, node, now, &addresses, why, sizeof why);
	if (end == RESOLVE_PENDING)
		return; /* the resolver wakes us */
	int n = dbha__pool_claim(&connector->world.pools[node], connector->width[node]);
	for (int i = 0; i < n; i++) {
		if (end == RESOLVED)
			begin(connector, node, &addresses, now);
		else
			count_failure(connector, node, why, now);
	}
}

/* ---- ending ----------------------------------------------------------------------------------------------- */

/*
 * The server that answered must be the one the topology knows by this generation: same cluster, same start, same role. If
 * it is not, the monitor has to look before anybody uses it.
 */
static bool is_as_known(const struct connector *connector, const struct connect_attempt *attempt)
{
	const struct node_view *known = &connector->monitor->view.nodes[attempt->node];
	const struct observation *seen = &attempt->dial.observation;
	bool same_role = seen->in_recovery == (known->role == DBHA_ROLE_STANDBY);
	bool same_start = !seen->started_us || seen->started_us == known->started_us;
	bool same_cluster = !seen->system_identifier || seen->system_identifier == known->system_identifier;
	bool not_behind = seen->in_recovery || !seen->timeline || seen->timeline >= connector->monitor->view.timeline;
	return attempt->generation == known->generation && same_role && same_start && same_cluster && not_behind;
}

/* Whether there is a thread that patrols, and nothing in it that waits for a disk. */
static bool may_patrol(const struct connector *connector)
{
	const struct monitor_world *world = &connector->world;
	bool writes_files = (world->fence && world->fence->path) || world->config->options.log_level != TRACE_OFF;
	return !world->shared_key && !writes_files;
}

static void connected(struct connector *connector, struct connect_attempt *attempt, int64_t now)
{
	int node = attempt->node;
	struct pool *pool = &connector->world.pools[node];
	if (!is_as_known(connector, attempt)) {
		/* A lower standby is no contradiction: an address may lead to one of several by turns. */
		const struct observation *seen = &attempt->dial.observation;
		if (!seen->in_recovery || seen->timeline > connector->monitor->view.timeline)
			dbha__monitor_contradicted(connector->monitor, node, seen, now);
		else
			dbha__monitor_alarm(connector->monitor);
		count_failure(connector, node, "the server that answered is not as it was last seen", now);
		return;
	}
	struct dbha_conn *slot = attempt->slot;
	attempt->slot = NULL;
	slot->conn = dbha__dial_take(&attempt->dial);
	slot->conn->patrolled = may_patrol(connector);
	slot->conn->ask_to_stop = dbha__canceller_send;
	slot->pool = pool;
	slot->handle = connector->handle;
	slot->node_name = dbha__monitor_name(connector->monitor, node);
	slot->generation = attempt->generation;
	slot->connected_us = now;
	slot->expires_us = dbha__pool_expiry(&pool->limits, now, &connector->rng);
	connector->failures[node] = 0;
	connector->not_before_us[node] = 0;
	if (connector->width[node] < connector->world.config->options.pool_max_connecting)
		connector->width[node]++;
	STATS_ADD(&connector->world.stats[node], connects, 1);
	dbha__monitor_open_door(connector->monitor, node, &attempt->dial.observation, now);
	dbha__pool_dispose(dbha__pool_connected(pool, slot, now));
}

static void failed(struct connector *connector, struct connect_attempt *attempt, int64_t now)
{
	enum failure failure = attempt->dial.observation.failure;
	/* A server that lets nobody new in is not a dead one; anything else the monitor should look into. */
	if (failure == FAILURE_FULL || failure == FAILURE_REFUSED)
		dbha__monitor_closed_door(connector->monitor, attempt->node, failure, attempt->dial.why, now);
	else
		dbha__monitor_alarm(connector->monitor);
	count_failure(connector, attempt->node, attempt->dial.why, now);
}

static int64_t step_attempts(struct connector *connector, int64_t now, const struct pollfd *items)
{
	int64_t wake = CLOCK_NEVER;
	int i = 0;
	for (struct connect_attempt **link = &connector->attempts; *link; i++) {
		struct connect_attempt *attempt = *link;
		enum dial_end end = dbha__dial_step(&attempt->dial, now, items[i].revents != 0);
		bool outdated = attempt->generation != connector->monitor->view.nodes[attempt->node].generation;
		if (end == DIAL_BUSY && !outdated) {
			int64_t own = dbha__dial_wake(&attempt->dial);
			wake = own < wake ? own : wake;
			link = &attempt->next;
			continue;
		}
		*link = attempt->next;
		connector->n_attempts--;
		if (end == DIAL_READY)
			connected(connector, attempt, now);
		else if (end == DIAL_BUSY)
			dbha__pool_connect_failed(&connector->world.pools[attempt->node], "its node was restarted or fenced", now);
		else
			failed(connector, attempt, now);
		free_attempt(attempt);
	}
	return wake;
}

static void maintain(struct connector *connector, int64_t now)
{
	for (int i = 0; i < connector->monitor->view.n_nodes; i++)
		dbha__pool_dispose(dbha__pool_expired(&connector->world.pools[i], now));
	connector->maintain_us = now + MAINTAIN_US;
}

/* Ends the waits that have no timer of their own, see struct conn. */
static void patrol(struct connector *connector, int64_t now)
{
	connector->patrol_us = now + CONN_PATROL_US;
	for (int i = 0; i < connector->monitor->view.n_nodes; i++) {
		int64_t next = dbha__pool_patrol(&connector->world.pools[i], now);
		connector->patrol_us = next < connector->patrol_us ? next : connector->patrol_us;
	}
}

int dbha__connector_count(const struct connector *connector)
{
	return connector->n_attempts;
}

void dbha__connector_watch(const struct connector *connector, struct pollfd *items)
{
	int i = 0;
	for (const struct connect_attempt *attempt = connector->attempts; attempt; attempt = attempt->next, i++)
		items[i] = (struct pollfd){
		    .fd = attempt->dial.conn ? dbha__conn_fd(attempt->dial.conn) : -1,
		    .events = attempt->dial.events,
		};
}

int64_t dbha__connector_step(struct connector *connector, int64_t now, const struct pollfd *items)
{
	if (now >= connector->maintain_us)
		maintain(connector, now);
	if (now >= connector->patrol_us)
		patrol(connector, now);
	int64_t wake = step_attempts(connector, now, items);
	int before = connector->n_attempts;
	for (int i = 0; i < connector->monitor->view.n_nodes; i++) {
		follow_node(connector, i, now);
		begin_wanted(connector, i, now);
		if (connector->not_before_us[i] > now && connector->not_before_us[i] < wake)
			wake = connector->not_before_us[i];
	}
	if (connector->n_attempts != before)
		wake = now; /* the new ones' sockets are not in the poll set yet */
	wake = connector->patrol_us < wake ? connector->patrol_us : wake;
	return connector->maintain_us < wake ? connector->maintain_us : wake;
}

void dbha__connector_skip(struct connector *connector, int64_t gap_us)
{
	for (struct connect_attempt *attempt = connector->attempts; attempt; attempt = attempt->next)
		dbha__dial_skip(&attempt->dial, gap_us);
}

void dbha__connector_abandon(struct connector *connector, int dev_null)
{
	for (struct connect_attempt *attempt = connector->attempts; attempt; attempt = attempt->next)
		if (attempt->dial.conn)
			dbha__conn_abandon(attempt->dial.conn, dev_null);
}
