/*
 * engine_send: what can be sent: from a request that is ready to a statement on its way, alone, in a group that shares its Sync, or with what is asked
 * before it.
 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "tell.h"

/* As statement.c has it, where a statement goes to another node than the one before. */
static void note_node(dbha_engine *e, struct call *call, const struct dbha_conn *slot)
{
	int node = dbha__call_node(call, slot);
	if (call->last_node >= 0 && call->last_node != node) {
		STATS_ADD(&e->h->stats[node], reroutes, 1);
		dbha__tell_rerouted(e->h, call->last_name, node, call->reason, call->trouble);
	}
	call->last_node = node;
	call->last_name = slot->node_name;
}

/* Whether the session may write when it is to, and may not when it must not; see call.c. The command goes before the statement. */
static void fit(struct lane *lane, bool writes)
{
	struct conn *conn = lane->slot->conn;
	if (conn->read_only_set != writes || !conn->direct)
		return;
	if (lane->pipe.open > 0)
		dbha__pipe_sync(&lane->pipe);
	dbha__pipe_say(&lane->pipe,
	               writes ? "RESET default_transaction_read_only" : "SET default_transaction_read_only = on");
	conn->read_only_set = !writes;
}

/*
 * Whether it may share its Sync. Its answer comes when all of them are done, and the error of one is in the way of those behind it: so they are
 * reads, each known to be quick. That it is a read is its caller's word, which is not enough where others depend on it; see begin_group.
 */
static bool may_share(const struct lane *lane, const struct request *request)
{
	const struct conn *conn = lane->slot->conn;
	return request->call.intent == DBHA_READ && request->quick && !request->alone && !request->apart &&
	       !request->unprepared && !request->call.guard && !(request->rq.flags & ~DBHA_IDEMPOTENT) && conn->direct;
}

/*
 * In a session that can write, a read that is none might be done and then undone by the error of one behind it, after its caller was told: there the
 * transaction is made read-only. Elsewhere it is. False: not on this connection, or not yet, since its server is only being asked.
 */
static bool begin_group(struct lane *lane)
{
	const struct conn *conn = lane->slot->conn;
	if (conn->sharing == SHARING_UNKNOWN)
		dbha__pipe_guard(&lane->pipe, 0);
	if (conn->sharing != SHARING_YES)
		return false;
	return conn->read_only_set || dbha__pipe_guard(&lane->pipe, PIPE_OPEN);
}

/* Who is the last of his group brings the Sync. Returns how to send it. */
static unsigned join_group(const dbha_engine *e, struct lane *lane, struct request *request)
{
	bool last = e->ready[0].n == 0;
	bool begun = lane->pipe.open > 0;
	bool worth_it = e->ready[0].n + 1 >= ENGINE_GROUP_MIN;
	lane->group = begun ? lane->group + 1 : 1;
	request->shares = may_share(lane, request) && (begun || (worth_it && begin_group(lane)));
	request->guarded = request->shares && !lane->slot->conn->read_only_set;
	if (!request->shares && begun)
		dbha__pipe_sync(&lane->pipe);
	return request->shares && !last && lane->group < ENGINE_GROUP ? PIPE_OPEN : 0;
}

/* With verify_commit: without its commit, which follows when its mark is here. */
static bool send_verified(struct lane *lane, struct request *request, unsigned how, struct attempt *refused)
{
	if (!dbha__verify_begin(request, &how)) {
		dbha__attempt_begin(refused);
		refused->end = ATTEMPT_NOT_SENT;
		snprintf(refused->message, sizeof refused->message, "out of memory");
		return false;
	}
	if (!dbha__pipe_send(&lane->pipe, &request->rq, how, request, refused))
		return false;
	dbha__pipe_hold(&lane->pipe, &request->verify->hold, how);
	lane->unplaced += (request->rq.flags & DBHA_TOKEN) != 0;
	return true;
}

static bool send_statement(const dbha_engine *e, struct lane *lane, struct request *request, struct attempt *refused)
{
	unsigned how = request->unprepared || request->soils ? PIPE_UNPREPARED : 0;
	how |= join_group(e, lane, request);
	if (request->bundle && !request->call.guard) {
		dbha__bundle_begin(lane, request);
		return true;
	}
	if (request->verified)
		return send_verified(lane, request, how, refused);
	dbha__verify_free(request);
	if (dbha__fresh_concerns(request))
		return dbha__fresh_send(lane, request, how, refused);
	return dbha__pipe_send(&lane->pipe, &request->rq, how, request, refused);
}

static void send_on(dbha_engine *e, struct lane *lane, struct request *request, const struct decision *decision)
{
	struct call *call = &request->call;
	struct attempt refused;
	note_node(e, call, lane->slot);
	call->rounds++;
	if (lane->pipe.n == 0)
		lane->head_us = e->now;
	fit(lane, decision->route.writes);
	if (!send_statement(e, lane, request, &refused)) {
		dbha__engine_follow(e, NULL, request, &refused);
		return;
	}
	atomic_fetch_sub(&e->waiting, 1);
	call->sent++;
	e->sent++;
	request->state = REQUEST_SENT;
	request->lane = lane;
	lane->writes += call->intent != DBHA_READ;
	lane->alone = request->alone || request->verified;
	lane->verifying = request->verified && !request->alone;
	dbha__alarm_set(e, request, call->deadline);
}

/* There is no node to send it to. */
static void send_nowhere(dbha_engine *e, struct request *request, const struct decision *decision)
{
	dbha_error err;
	if (dbha__call_judge_route(&request->call, decision, &err) != DBHA_OK) {
		dbha__engine_fail_unsent(e, request, &err);
		return;
	}
	dbha__monitor_alarm(&e->h->monitor);
	dbha__engine_take_out(e, request);
	dbha__engine_park(e, request, decision->version == e->version ? CLOCK_NEVER : e->now);
}

/*
 * What commits on the way, or must not be in a transaction, cannot be verified; see dbha__verified_wanted. On a standby there is nothing to verify,
 * but it may have to be asked what it has replayed.
 */
static bool is_to_be_verified(const dbha_engine *e, const struct request *request, const struct route *route)
{
	return e->verifies && route->writes && request->call.intent != DBHA_READ && !request->bundle &&
	       dbha__retry_atomic(request->rq.sql);
}

/* Sends a request that is ready, or parks it. False: there is no room, it stays where it is. */
static bool dispatch(dbha_engine *e, struct request *request)
{
	struct decision decision = {0};
	dbha__call_decide(&request->call, &decision);
	if (decision.route.end != ROUTE_NODE) {
		send_nowhere(e, request, &decision);
		return true;
	}
	request->verified = is_to_be_verified(e, request, &decision.route);
	struct node_lanes *node = &e->nodes[decision.route.node];
	struct lane *lane = dbha__lane_choose(e, &decision, request);
	if (lane) {
		dbha__call_note_route(&request->call, &decision.route);
		dbha__fresh_meet(lane, request);
		dbha__engine_take_out(e, request);
		send_on(e, lane, request, &decision);
		return true;
	}
	if (e->now >= node->not_before_us || !node->failed)
		return false;
	dbha__call_avoid(&request->call, decision.route.node);
	dbha__engine_take_out(e, request);
	dbha__engine_park(e, request, node->not_before_us);
	return true;
}

void dbha__engine_send(dbha_engine *e)
{
	/* By turns, since they may be for the same node. */
	unsigned first = e->turn++;
	for (unsigned i = 0; i < 3; i++) {
		struct ready *ready = &e->ready[(first + i) % 3];
		struct request *request;
		while ((request = dbha__ready_peek(ready)) && dispatch(e, request))
			;
	}
}
