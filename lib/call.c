#include "call.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "backoff.h"
#include "call_fail.h"
#include "cancel.h"
#include "canceller.h"
#include "clock.h"
#include "error.h"
#include "exec.h"
#include "reset.h"
#include "tell.h"

/* Changing what a session may do, or the end of a reset: one round trip, which must not take the whole call. */
#define TIDY_US          ((int64_t)1000000)
/*
 * A connection that has rested this long is looked at before use: one system call, which tells a statement that was never
 * sent from one whose fate is unknown. In a busy loop it would cost half a per cent and tell nothing. More than a tick of the
 * coarse clock, by which the rest is measured.
 */
#define LOOK_AFTER_US    8000
/* How long a call that has to be routed anew waits for the view that told the pool to send it away. */
#define VIEW_GAP_US      1000
/* How often a wait that can be canceled looks whether it was. */
#define CANCEL_LOOK_US   20000
/* A timeout beyond this may begin at the coarse clock's time. */
#define COARSE_ENOUGH_US ((int64_t)2000000)

void dbha__call_begin(struct call *call, dbha *h, dbha_intent intent, int timeout_ms)
{
	memset(call, 0, offsetof(struct call, trouble) + 1);
	call->h = h;
	call->intent = intent;
	call->consistency = h->config.options.consistency + 1;
	call->timeout_us = ms_to_us(timeout_ms > 0 ? timeout_ms : h->config.options.call_timeout_ms);
	call->last_node = -1;
}

void dbha__call_set_deadline(struct call *call)
{
	if (call->deadline)
		return;
	/* The coarse clock is a few ms behind: nothing to a long timeout, and a fifth of the price. */
	call->began_us = call->timeout_us > COARSE_ENOUGH_US ? dbha__clock_coarse() : dbha__clock_now();
	call->deadline = call->began_us + call->timeout_us;
}

void dbha__call_running(struct call *call, struct conn *conn)
{
	struct cancel *cancel = call->cancel;
	dbha__mutex_lock(&cancel->lock);
	cancel->running = conn;
	if (conn) {
		/* It may have been asked for before there was anything to cancel. */
		cancel->sent = atomic_load_explicit(&cancel->asked, memory_order_relaxed);
		if (cancel->sent)
			dbha__canceller_send(conn);
	}
	dbha__mutex_unlock(&cancel->lock);
}

static bool is_canceled(const struct call *call)
{
	return call->cancel && atomic_load_explicit(&call->cancel->asked, memory_order_relaxed);
}

/* Until the view is another one than `version`, or until then; false: that has passed, or the call was canceled. */
static bool wait_for_change(const struct call *call, uint64_t version, int64_t until)
{
	while (call->cancel) {
		int64_t look = dbha__clock_now() + CANCEL_LOOK_US;
		if (look >= until || is_canceled(call))
			break;
		if (dbha__life_wait_view(call->h, version, look))
			return true;
	}
	return !is_canceled(call) && dbha__life_wait_view(call->h, version, until);
}

int dbha__call_node(const struct call *call, const struct dbha_conn *slot)
{
	return (int)(slot->pool - call->h->pools);
}

/* ---- routing ----------------------------------------------------------------------------------------------- */

static void route(struct call *call, struct route_query *query, struct decision *decision)
{
	dbha *h = call->h;
	int load[CONFIG_NODES_MAX];
	query->avoid = call->avoid;
	query->behind = call->behind;
	if (query->intent != DBHA_WRITE && h->n_places > 1) {
		for (int i = 0; i < h->n_places; i++)
			load[i] = atomic_load_explicit(&h->pools[i].load, memory_order_relaxed);
		query->load = load;
		query->random = dbha__life_random(h);
	}
	if (query->bounded_ms)
		query->now_us = dbha__clock_now();
	struct token lost;
	const struct view *view = dbha__view_borrow(&h->view);
	bool has_lost = call->causal && dbha__causal_follow(call->causal, view, &lost);
	decision->route = dbha__route(view, query);
	decision->version = view->version;
	if (decision->route.node >= 0)
		decision->generation = view->nodes[decision->route.node].generation;
	dbha__view_return(&h->view);
	query->load = NULL;
	if (has_lost)
		dbha__tell_lost(h, &lost, &call->causal->floor);
}

void dbha__call_note_route(struct call *call, const struct route *route)
{
	call->on_standby = !route->writes;
	call->reason = route->reason;
	call->guard = route->guard;
	call->floor = route->floor;
	call->known_us = route->known_us;
}

/* The way of a write while all is well, in one word that no reader ever writes to. False: look at the view. */
static bool route_write(struct call *call, const struct route_query *query, struct decision *decision)
{
	if (query->intent != DBHA_WRITE && (query->intent != DBHA_DEFAULT || query->target != TARGET_PRIMARY))
		return false;
	uint64_t way = atomic_load_explicit(&call->h->view.write_way, memory_order_acquire);
	if (way == 0)
		return false;
	decision->route = (struct route){
	    .end = ROUTE_NODE,
	    .node = (int)(way & 0xff) - 1,
	    .writes = true,
	    .reason = query->intent == DBHA_WRITE ? DBHA_REASON_WRITE : DBHA_REASON_TARGET,
	};
	decision->generation = way >> 8; /* the pool compares it under its lock */
	return true;
}

bool dbha__call_nap(struct call *call, int64_t us)
{
	int64_t now = dbha__clock_now();
	int64_t until = now + us < call->deadline ? now + us : call->deadline;
	struct shared_view *shared = dbha__view_take(&call->h->view);
	uint64_t version = shared->view.version;
	dbha__view_drop(shared);
	wait_for_change(call, version, until);
	return dbha__clock_now() < call->deadline && !is_canceled(call);
}

int64_t dbha__call_backoff_us(struct call *call)
{
	const struct config_options *options = &call->h->config.options;
	struct rng rng = {.state = dbha__life_random(call->h)};
	return dbha__backoff_us(&rng, options->retry_backoff_ms, options->retry_backoff_max_ms, call->pauses++);
}

bool dbha__call_pause(struct call *call)
{
	return dbha__call_nap(call, dbha__call_backoff_us(call));
}

/* Whether the session may write when it is to, and may not when it must not. One round trip where that has to be changed. */
static bool fits(struct call *call, struct dbha_conn *slot, bool writes)
{
	struct conn *conn = slot->conn;
	/* Behind a pooler a setting would fall on other people's sessions. */
	if (conn->read_only_set != writes || !conn->direct)
		return true;
	int64_t until = dbha__clock_now() + TIDY_US;
	if (until > call->deadline)
		until = call->deadline;
	const char *sql = writes ? "RESET default_transaction_read_only" : "SET default_transaction_read_only = on";
	if (!dbha__exec_command(conn, sql, until))
		return false;
	conn->read_only_set = !writes;
	return true;
}

/* Whether its last user's traces are gone. */
static bool settled(const struct call *call, struct conn *conn)
{
	int64_t until = dbha__clock_now() + TIDY_US;
	return !conn->resetting || dbha__reset_finish(conn, until < call->deadline ? until : call->deadline);
}

/*
 * Whether a connection out of the pool is alive, and fit for what it is wanted for: the session of a standby was made
 * read-only, and when it is promoted it is opened up; in a split brain the session of a primary is made read-only.
 */
static bool ready_for(struct call *call, struct dbha_conn *slot, bool writes)
{
	/* Looked at last: the end of a connection stands behind what is still to be read. */
	bool alive = settled(call, slot->conn) && (slot->rested_us <= LOOK_AFTER_US || !dbha__conn_is_dead(slot->conn));
	if (alive && fits(call, slot, writes))
		return true;
	/* Each dead connection is met once, so that this needs no pause; what it means the monitor finds out. */
	dbha__monitor_alarm(&call->h->monitor);
	dbha__call_return(call->h, slot, false);
	return false;
}

static enum acquire_end take(struct call *call, const struct decision *decision, struct dbha_conn **slot)
{
	dbha *h = call->h;
	int64_t now = dbha__clock_now();
	if (!call->pool_deadline) {
		int64_t limit = ms_to_us(h->config.options.pool_timeout_ms);
		call->pool_deadline = limit && now + limit < call->deadline ? now + limit : call->deadline;
	}
	/* Its place in the queue is kept by its ticket, so that it may leave the queue for a look. */
	int64_t look = now + CANCEL_LOOK_US;
	int64_t deadline = call->cancel && look < call->pool_deadline ? look : call->pool_deadline;
	struct acquire how = {
	    .ticket = call->ticket,
	    .generation = decision->generation,
	    .now = now,
	    .deadline = deadline,
	    .connector = &h->wake,
	    .turn = h->shared_key ? dbha__life_turn : NULL,
	    .arg = h,
	};
	struct stats *stats = &h->stats[decision->route.node];
	enum acquire_end end = dbha__pool_acquire(&h->pools[decision->route.node], &how, slot);
	/* Handed out at another time than now: by somebody who gave it back, on the coarse clock, so ours has to be read again. */
	if (*slot && (*slot)->since_us != now)
		STATS_ADD(stats, wait_us, dbha__clock_now() - now);
	return end;
}

void dbha__call_avoid(struct call *call, int node)
{
	struct pool_report report;
	dbha__pool_report(&call->h->pools[node], 0, &report);
	snprintf(call->trouble, sizeof call->trouble, "%.80s: %.160s", dbha__life_node_name(call->h, node),
	         report.connect_why);
	call->avoid |= 1u << node;
	dbha__monitor_alarm(&call->h->monitor);
}

/* Waits for the view to become another one. False: it is time to give up. */
static bool wait_for_view(struct call *call, uint64_t version)
{
	dbha__monitor_alarm(&call->h->monitor);
	return wait_for_change(call, version, call->deadline);
}

int dbha__call_judge_route(struct call *call, const struct decision *decision, dbha_error *err)
{
	switch (decision->route.end) {
	case ROUTE_SPLIT_BRAIN:
		dbha__call_fail_refused(call, DBHA_ERR_SPLIT_BRAIN,
		                        "two primaries on the same timeline, writes are refused until one of them goes away",
		                        err);
		return err->code;
	case ROUTE_FOREIGN:
		dbha__call_fail_refused(call, DBHA_ERR_FOREIGN, "no node belongs to this cluster", err);
		return err->code;
	case ROUTE_REFUSED:
		dbha__call_fail_refused(call, DBHA_ERR_NO_NODE, "every node refuses the connection", err);
		return err->code;
	case ROUTE_OTHER_TOKEN:
		return dbha__fail(err, DBHA_ERR_FOREIGN, "the token is of cluster %llu, which is another one",
		                  (unsigned long long)decision->route.floor.system_identifier);
	case ROUTE_WAIT:
	case ROUTE_NODE:
		break;
	}
	if (atomic_load(&call->h->closed))
		dbha__call_fail_closed(err);
	return atomic_load(&call->h->closed) ? DBHA_ERR_CLOSED : DBHA_OK;
}

/* What a route that leads to no node means for the call. True: look again. */
static bool no_route(struct call *call, const struct route_query *query, const struct decision *decision,
                     dbha_error *err)
{
	if (dbha__call_judge_route(call, decision, err) != DBHA_OK)
		return false;
	if (wait_for_view(call, decision->version) || dbha__clock_now() < call->deadline)
		return true;
	dbha__call_fail_no_node(call, query, err);
	return false;
}

/* What a pool that gave no connection means for the call. True: look again. */
static bool no_slot(struct call *call, const struct route_query *query, const struct decision *decision,
                    enum acquire_end end, dbha_error *err)
{
	int node = decision->route.node;
	switch (end) {
	case ACQUIRE_TIMEOUT:
		if (dbha__clock_now() < call->pool_deadline)
			return true; /* it only looked up, see take */
		dbha__call_fail_pool(call, node, false, err);
		return false;
	case ACQUIRE_TOO_MANY:
		dbha__call_fail_pool(call, node, true, err);
		return false;
	case ACQUIRE_STOPPED:
		dbha__call_fail_closed(err);
		return false;
	case ACQUIRE_REROUTE:
		dbha__life_wait_view(call->h, decision->version, dbha__clock_now() + VIEW_GAP_US);
		break;
	case ACQUIRE_NO_CONNECTION:
		dbha__call_avoid(call, node);
		dbha__call_pause(call);
		break;
	case ACQUIRED:
		break;
	}
	if (dbha__clock_now() < call->deadline)
		return true;
	dbha__call_fail_no_node(call, query, err);
	return false;
}

static struct dbha_conn *connection_in_time(struct call *call, struct route_query *query, dbha_error *err)
{
	/* Its place in the order of arrival; who finds an idle connection needs none. */
	if (!call->ticket)
		call->ticket = 1 + atomic_fetch_add_explicit(&call->h->next_ticket, 1, memory_order_relaxed);
	for (;;) {
		struct decision decision = {0};
		struct dbha_conn *slot = NULL;
		bool again;
		if (is_canceled(call)) {
			dbha__call_fail_canceled(err);
			return NULL;
		}
		route(call, query, &decision);
		if (decision.route.end == ROUTE_NODE) {
			enum acquire_end end = take(call, &decision, &slot);
			dbha__call_note_route(call, &decision.route);
			if (slot && ready_for(call, slot, decision.route.writes))
				return slot;
			again = no_slot(call, query, &decision, end, err);
		} else {
			again = no_route(call, query, &decision, err);
		}
		if (!again)
			return NULL;
	}
}

/* The common case, in which there is nothing to wait for and so no need of a deadline. NULL: it is not that case. */
static struct dbha_conn *connection_at_once(struct call *call, struct route_query *query)
{
	struct decision decision = {0};
	if (!route_write(call, query, &decision))
		route(call, query, &decision);
	if (decision.route.end != ROUTE_NODE)
		return NULL;
	struct pool *pool = &call->h->pools[decision.route.node];
	struct dbha_conn *slot = dbha__pool_try(pool, decision.generation, dbha__clock_coarse());
	if (!slot)
		return NULL;
	dbha__call_note_route(call, &decision.route);
	bool plain = slot->rested_us <= LOOK_AFTER_US && slot->conn->read_only_set != decision.route.writes &&
	             !slot->conn->resetting;
	if (plain)
		return slot;
	dbha__call_set_deadline(call);
	return ready_for(call, slot, decision.route.writes) ? slot : NULL;
}

static struct route_query query_of(const struct call *call)
{
	const struct config_options *options = &call->h->config.options;
	return (struct route_query){
	    .intent = call->intent,
	    .target = (enum target)options->target_session_attrs,
	    .bounded_ms = call->consistency == DBHA_CONSISTENCY_BOUNDED ? options->max_lag_ms : 0,
	    .on_primary = call->consistency == DBHA_CONSISTENCY_PRIMARY && call->intent == DBHA_READ,
	    .causal = call->causal,
	    .in_order = options->load_balance_hosts == LOAD_BALANCE_DISABLE,
	};
}

void dbha__call_found_none(struct call *call, dbha_error *err)
{
	struct route_query query = query_of(call);
	dbha__call_fail_no_node(call, &query, err);
}

/* See dbha__causal_is_since. */
bool dbha__call_is_of_known_life(struct call *call, const struct dbha_conn *slot)
{
	/* Behind a pooler nobody sees how old the server's own connection is. */
	bool direct = slot->conn->direct;
	if (call->reason == DBHA_REASON_REPLAYED && (!direct || slot->connected_us > call->known_us)) {
		call->guard = true;
		call->reason = DBHA_REASON_GUARDED;
	}
	return call->reason != DBHA_REASON_SAME || (direct && dbha__causal_is_since(call->causal, slot->connected_us));
}

bool dbha__call_note_behind(struct call *call, int node, int64_t now)
{
	STATS_ADD(&call->h->stats[node], guards_behind, 1);
	STATS_ADD(&call->h->stats[node], retries, 1);
	snprintf(call->trouble, sizeof call->trouble, "%.80s: has not replayed %X/%X", call->last_name,
	         (unsigned)(call->floor.lsn >> 32), (unsigned)call->floor.lsn);
	call->behind_us = call->behind_us ? call->behind_us : now;
	bool waits = now - call->behind_us < ms_to_us(call->h->config.options.max_wait_ms);
	bool again = call->behind & 1u << node;
	if (!waits)
		call->behind |= 1u << node;
	return waits || again;
}

void dbha__call_decide(struct call *call, struct decision *decision)
{
	struct route_query query = query_of(call);
	if (!route_write(call, &query, decision))
		route(call, &query, decision);
}

struct dbha_conn *dbha__call_connection(struct call *call, dbha_error *err)
{
	struct route_query query = query_of(call);
	call->pool_deadline = 0;
	bool canceled = is_canceled(call);
	if (call->h->shared_key && !canceled) {
		dbha__call_set_deadline(call);
		dbha__life_refresh(call->h, call->deadline);
	}
	struct dbha_conn *slot = canceled ? NULL : connection_at_once(call, &query);
	while (!slot || !dbha__call_is_of_known_life(call, slot)) {
		if (slot) {
			dbha__call_return(call->h, slot, true);
			dbha__causal_doubt(call->causal);
		}
		dbha__call_set_deadline(call);
		slot = connection_in_time(call, &query, err);
		if (!slot)
			break;
	}
	if (!slot) {
		/* Nothing has been sent by this attempt; an earlier one of the same call may have been executed. */
		err->retry_safe = !call->maybe_done;
		err->outcome_unknown = call->maybe_done;
		err->attempts = call->sent;
	}
	return slot;
}

/* ---- coming back ------------------------------------------------------------------------------------------- */

/* What its user has left in it is undone; the answer to that is met by the next user. */
static bool tidy(struct dbha_conn *slot)
{
	enum conn_state state = dbha__conn_state(slot->conn);
	/* A cancel request on its way would stop what the next one does. */
	if (state == CONN_UNUSABLE || slot->conn->doubtful || dbha__conn_cancel_under_way(slot->conn))
		return false;
	if (state == CONN_IDLE && slot->conn->used == 0)
		return true;
	if (state == CONN_IN_TRANSACTION)
		STATS_ADD(slot->pool->stats, rollbacks, 1);
	STATS_ADD(slot->pool->stats, resets, 1);
	return dbha__reset_send(slot->conn);
}

void dbha__call_return(dbha *h, struct dbha_conn *slot, bool reusable)
{
	bool keep = reusable && tidy(slot);
	struct dbha_conn *unwanted = dbha__pool_release(slot->pool, slot, keep, dbha__clock_coarse());
	if (!unwanted)
		return;
	dbha__pool_dispose(unwanted);
	/* Its place is free: somebody may be waiting for a connect that could not be made before. */
	dbha__wake_signal(&h->wake);
}
