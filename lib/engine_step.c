/*
 * engine_step: one step of an engine: what has come, what is due, what can be sent. It never waits.
 *
 * What an answer means is decided where dbha_exec decides it (judgement, call); here is only what takes the place of its waiting: a pause is
 * a moment in a heap, a wait for the view a place among the parked, a wait for a connection a place among the ready.
 */
#include <stdlib.h>
#include <string.h>

#include "call_fail.h"
#include "clock.h"
#include "engine.h"
#include "error.h"
#include "tell.h"
#include "wait.h"

/* monitor=off: how often the cluster is looked at while there is something to do. */
#define TURN_US  ((int64_t)5000)
#define EVENTS   64
/* How soon those who are ready look again, where there is nothing to wait for. */
#define READY_US ((int64_t)500)
/* At least so long between two looks at a node that has refused a write: the backoff may be none. */
#define LOOK_US  ((int64_t)1000)

/* ---- where a request is ---------------------------------------------------------------------------------------- */

static struct ready *ready_of(dbha_engine *e, const struct request *request)
{
	return &e->ready[request->alone ? 2 : request->call.intent != DBHA_READ];
}

static void make_ready(dbha_engine *e, struct request *request, bool first)
{
	struct call *call = &request->call;
	int64_t limit = ms_to_us(e->h->config.options.pool_timeout_ms);
	request->pool_deadline = limit && e->now + limit < call->deadline ? e->now + limit : call->deadline;
	const struct memo *memo = dbha__memo_of(e, request->rq.sql);
	request->soils = memo->soils;
	request->alone = memo->soils || memo->slow;
	request->state = REQUEST_READY;
	dbha__ready_add(ready_of(e, request), request, first);
	dbha__alarm_set(e, request, request->pool_deadline);
}

static void park(dbha_engine *e, struct request *request, int64_t until)
{
	request->state = REQUEST_PARKED;
	request->due_us = until;
	dbha__request_append(&e->parked, request);
	dbha__alarm_set(e, request, until < request->call.deadline ? until : request->call.deadline);
}

/* Out of the queue it stands in. */
static void take_out(dbha_engine *e, struct request *request)
{
	if (request->state == REQUEST_READY)
		dbha__ready_remove(ready_of(e, request), request);
	else if (request->state == REQUEST_PARKED)
		dbha__request_remove(&e->parked, request);
}

/* Of one that is in no queue any more. err: with a code other than DBHA_OK. */
static void complete(dbha_engine *e, struct request *request, int code, const dbha_error *err)
{
	dbha__alarm_remove(e, request);
	/* It counts again, as one that nobody has fetched; what was not sent does so still. */
	if (request->state == REQUEST_SENT)
		atomic_fetch_add(&e->waiting, 1);
	request->state = REQUEST_OVER;
	request->code = code;
	if (code != DBHA_OK) {
		request->retry_safe = err->retry_safe;
		request->outcome_unknown = err->outcome_unknown;
		request->error = malloc(sizeof *err);
		if (request->error)
			*request->error = *err;
	}
	dbha__request_append(&e->over, request);
}

/* One that ends without an attempt that could be judged: earlier ones may have been made. */
static void fail_unsent(dbha_engine *e, struct request *request, dbha_error *err)
{
	err->retry_safe = !request->call.maybe_done;
	err->outcome_unknown = request->call.maybe_done;
	err->attempts = request->call.sent;
	take_out(e, request);
	complete(e, request, err->code, err);
}

/* ---- what became of an attempt --------------------------------------------------------------------------------- */

static void report(dbha_engine *e, struct request *request, const struct attempt *attempt,
                   const struct judgement *judged)
{
	dbha_error err;
	int code = dbha__judge_report(&request->call, attempt, judged, &err);
	if (request->canceled && attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0)
		code = err.code = DBHA_ERR_CANCELED;
	request->result = attempt->result;
	complete(e, request, code, &err);
}

static void go_again(dbha_engine *e, struct request *request, struct attempt *attempt, const struct judgement *judged)
{
	struct call *call = &request->call;
	dbha__judge_again(call, attempt, judged);
	if (e->now >= call->deadline) {
		report(e, request, attempt, judged);
		return;
	}
	PQclear(attempt->result);
	/* None the first time, because the cause is most often this one connection. */
	if (call->rounds > 1)
		park(e, request, e->now + dbha__call_backoff_us(call));
	else
		make_ready(e, request, true);
}

/* Until it is known whether the node is still what it was taken for. */
static bool hold_refused(dbha_engine *e, struct request *request, const struct attempt *attempt,
                         const struct judgement *judged)
{
	struct refused *refused = malloc(sizeof *refused);
	if (!refused)
		return false;
	refused->attempt = *attempt;
	refused->judged = *judged;
	dbha__judge_begin_look(&request->call, e->now, &refused->look);
	request->refused = refused;
	park(e, request, e->now);
	return true;
}

static void look_again(dbha_engine *e, struct request *request)
{
	struct refused *refused = request->refused;
	struct call *call = &request->call;
	enum looked looked = dbha__judge_look(call, &refused->look);
	if (looked == LOOKED_LATER && e->now < refused->look.until && !e->aborting) {
		park(e, request, e->now + LOOK_US + dbha__call_backoff_us(call));
		return;
	}
	request->refused = NULL;
	bool final = looked == LOOKED_FINAL || e->aborting || (looked == LOOKED_LATER && refused->look.waited);
	if (final || !dbha__judge_may_send_again(call))
		report(e, request, &refused->attempt, &refused->judged);
	else
		go_again(e, request, &refused->attempt, &refused->judged);
	free(refused);
}

static void judge(struct request *request, const struct attempt *attempt, struct judgement *judged)
{
	struct call *call = &request->call;
	const char *sql = request->rq.sql;
	bool reads = call->intent == DBHA_READ;
	struct statement_facts facts = {
	    .reads = reads,
	    .repeatable = request->rq.flags & DBHA_IDEMPOTENT,
	    .atomic = reads || dbha__retry_atomic(sql),
	    .runs_code = dbha__retry_runs_code(sql),
	};
	*judged = (struct judgement){.continued = false};
	dbha__judge(call, &facts, attempt, judged);
}

/* The end of an attempt, which has failed. */
static void follow_failure(dbha_engine *e, struct request *request, struct attempt *attempt)
{
	struct call *call = &request->call;
	struct judgement judged;
	judge(request, attempt, &judged);
	if (dbha__judge_standby_says_no(call, attempt) && !e->aborting && !request->canceled) {
		go_again(e, request, attempt, &judged);
		return;
	}
	enum finality finality = dbha__judge_finality(call, attempt, &judged.retry);
	bool ends = finality == FINAL || e->aborting || request->canceled;
	if (!ends && finality == FINAL_IF_REFUSED_FOR_GOOD && hold_refused(e, request, attempt, &judged))
		return;
	if (ends || !dbha__judge_may_send_again(call))
		report(e, request, attempt, &judged);
	else
		go_again(e, request, attempt, &judged);
}

static void follow(dbha_engine *e, struct request *request, struct attempt *attempt)
{
	struct call *call = &request->call;
	dbha__judge_count(call, attempt);
	if (attempt->end != ATTEMPT_OK) {
		follow_failure(e, request, attempt);
		return;
	}
	if (call->refused)
		STATS_ADD(&e->h->stats[call->last_node], not_reads, 1);
	request->result = attempt->result;
	complete(e, request, DBHA_OK, NULL);
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void leave(dbha_engine *e, struct lane *lane, struct request *request)
{
	lane->writes -= request->call.intent != DBHA_READ;
	lane->closing = lane->closing || request->soils;
	lane->alone = false;
	if (lane->pipe.n == 0)
		lane->idle_us = e->now;
	request->lane = NULL;
}

/*
 * A cancel request names a connection and not a statement: it may have hit one that came after the one it was meant for. That one was
 * rolled back, and is run again.
 */
static bool is_victim(const struct lane *lane, const struct request *request, const struct attempt *attempt)
{
	return lane->canceled && !request->late && !request->cancel_sent && attempt->end == ATTEMPT_ERROR &&
	       strcmp(attempt->sqlstate, "57014") == 0;
}

/* The same in the wait for a synchronous standby: it was done, and is less safe than it should be. */
static bool is_weakened(const struct request *request, const struct pipe_answer *answer)
{
	return answer->unreplicated && !request->late && answer->attempt.end == ATTEMPT_OK;
}

/* What was said behind the deadline is believed, but see dbha__attempt_judge_late. */
static void judge_late(struct lane *lane, struct pipe_answer *answer)
{
	struct conn *conn = lane->slot->conn;
	conn->unreplicated = answer->unreplicated;
	dbha__attempt_judge_late(conn, &answer->attempt);
	conn->unreplicated = false;
}

/* What has taken long is alone the next time; what was quick is not, any more. */
static void note_time(dbha_engine *e, const struct lane *lane, const struct request *request)
{
	dbha__memo_of(e, request->rq.sql)->slow = e->now - lane->head_us > ENGINE_SLOW_US;
}

static void again_at_once(dbha_engine *e, struct request *request, struct attempt *attempt)
{
	PQclear(attempt->result);
	atomic_fetch_add(&e->waiting, 1);
	make_ready(e, request, true);
}

static void take_answer(dbha_engine *e, struct lane *lane, struct pipe_answer *answer)
{
	struct request *request = answer->owner;
	struct attempt *attempt = &answer->attempt;
	if (request && (attempt->end == ATTEMPT_OK || request->late))
		note_time(e, lane, request);
	lane->head_us = e->now;
	if (!request) {
		PQclear(attempt->result);
		if (lane->pipe.n == 0)
			lane->idle_us = e->now;
		return;
	}
	leave(e, lane, request);
	request->call.sent -= attempt->end == ATTEMPT_NOT_SENT;
	bool again = !e->aborting && !request->canceled && e->now < request->call.deadline;
	if (again && answer->mended && !request->unprepared) {
		request->unprepared = true;
		again_at_once(e, request, attempt);
		return;
	}
	if (again && is_victim(lane, request, attempt)) {
		again_at_once(e, request, attempt);
		return;
	}
	if (request->late || is_weakened(request, answer))
		judge_late(lane, answer);
	follow(e, request, attempt);
	/* It is in a queue again, and counts. */
	if (request->state == REQUEST_READY || request->state == REQUEST_PARKED)
		atomic_fetch_add(&e->waiting, 1);
}

static void take_answers(dbha_engine *e, struct lane *lane)
{
	struct pipe_answer answer;
	if (lane->state != LANE_OPEN)
		return;
	struct conn *conn = lane->slot->conn;
	while (dbha__pipe_next(&lane->pipe, &answer))
		take_answer(e, lane, &answer);
	/* The sooner all are looked at, the better: see statement.c. */
	if (dbha__conn_was_promoted(conn))
		dbha__monitor_alarm(&e->h->monitor);
}

/* What was canceled and has come to its turn is stopped now. */
static void stop_canceled(struct lane *lane)
{
	struct request *head = lane->state == LANE_OPEN ? dbha__pipe_head(&lane->pipe) : NULL;
	if (!head || !head->canceled || head->cancel_sent)
		return;
	head->cancel_sent = true;
	dbha__lane_cancel(lane);
}

/* ---- alarms ----------------------------------------------------------------------------------------------------- */

static void out_of_time_unsent(dbha_engine *e, struct request *request)
{
	dbha_error err;
	struct decision decision = {0};
	dbha__call_decide(&request->call, &decision);
	if (request->state == REQUEST_READY && decision.route.end == ROUTE_NODE)
		dbha__call_fail_pool(&request->call, decision.route.node, false, &err);
	else
		dbha__call_found_none(&request->call, &err);
	fail_unsent(e, request, &err);
}

/* Its answer does not matter any more. */
static void give_up(dbha_engine *e, struct request *request)
{
	struct attempt attempt;
	struct lane *lane = request->lane;
	dbha__pipe_disown(&lane->pipe, request);
	leave(e, lane, request);
	dbha__attempt_begin(&attempt);
	dbha__attempt_timed_out(&attempt);
	follow(e, request, &attempt);
}

/*
 * The server is asked to stop what it is doing now, and has a moment to say what has become of it. One that is not its turn yet cannot be
 * stopped: it is executed, or not, and its caller does not wait for that.
 */
static void out_of_time_sent(dbha_engine *e, struct request *request)
{
	struct lane *lane = request->lane;
	bool head = dbha__pipe_head(&lane->pipe) == request;
	if (!head || request->late) {
		give_up(e, request);
		return;
	}
	request->late = true;
	if (!request->cancel_sent)
		dbha__lane_cancel(lane);
	dbha__alarm_set(e, request, request->call.deadline + CONN_DRAIN_US);
}

static void ring(dbha_engine *e, struct request *request)
{
	bool over = e->now >= request->call.deadline;
	if (request->state == REQUEST_SENT) {
		out_of_time_sent(e, request);
		return;
	}
	if (request->state == REQUEST_PARKED && (request->refused || !over)) {
		take_out(e, request);
		if (request->refused)
			look_again(e, request);
		else
			make_ready(e, request, false);
		return;
	}
	out_of_time_unsent(e, request);
}

static void ring_alarms(dbha_engine *e)
{
	while (e->heap_n > 0 && e->heap[0]->alarm_us <= e->now)
		ring(e, e->heap[0]);
}

/* ---- what is new ------------------------------------------------------------------------------------------------ */

/* The view has changed: whoever waits may look again. */
static void unpark(dbha_engine *e)
{
	struct request_list list = e->parked;
	e->parked = (struct request_list){NULL, NULL};
	for (struct request *request = list.first, *next; request; request = next) {
		next = request->next;
		if (request->refused)
			look_again(e, request);
		else
			make_ready(e, request, false);
	}
}

static void follow_view(dbha_engine *e)
{
	const struct view *view = dbha__view_borrow(&e->h->view);
	bool changed = view->version != e->version;
	e->version = view->version;
	for (int i = 0; changed && i < e->h->n_places; i++)
		e->nodes[i].generation = view->nodes[i].generation;
	dbha__view_return(&e->h->view);
	if (changed)
		unpark(e);
}

static void take_submitted(dbha_engine *e)
{
	dbha__mutex_lock(&e->lock);
	struct request *request = e->submitted.first;
	e->submitted = (struct request_list){NULL, NULL};
	bool abort = e->abort;
	dbha__mutex_unlock(&e->lock);
	for (struct request *next; request; request = next) {
		next = request->next;
		if (dbha__alarm_set(e, request, request->call.deadline)) {
			make_ready(e, request, false);
			continue;
		}
		dbha_error err;
		dbha__no_memory(&err);
		err.retry_safe = true;
		complete(e, request, DBHA_ERR_MEMORY, &err);
	}
	e->aborting = e->aborting || abort;
}

static void poll_sockets(dbha_engine *e)
{
	void *ready[EVENTS];
	int n = dbha__poller_look(&e->poller, ready, EVENTS);
	for (int i = 0; i < n; i++) {
		struct lane *lane = ready[i];
		if (lane)
			lane->heard = true;
		else
			e->wake_heard = true;
	}
	if (e->wake_heard)
		dbha__wake_drain(&e->wake);
}

/* ---- sending ---------------------------------------------------------------------------------------------------- */

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
	dbha__pipe_say(&lane->pipe,
	               writes ? "RESET default_transaction_read_only" : "SET default_transaction_read_only = on");
	conn->read_only_set = !writes;
}

static void send_on(dbha_engine *e, struct lane *lane, struct request *request, const struct decision *decision)
{
	struct call *call = &request->call;
	struct attempt refused;
	dbha__call_note_route(call, &decision->route);
	note_node(e, call, lane->slot);
	call->rounds++;
	fit(lane, decision->route.writes);
	unsigned how = request->unprepared || request->soils ? PIPE_UNPREPARED : 0;
	if (!dbha__pipe_send(&lane->pipe, &request->rq, how, request, &refused)) {
		follow(e, request, &refused);
		return;
	}
	atomic_fetch_sub(&e->waiting, 1);
	call->sent++;
	e->sent++;
	request->state = REQUEST_SENT;
	request->lane = lane;
	lane->writes += call->intent != DBHA_READ;
	lane->alone = request->alone;
	if (lane->pipe.n == 1)
		lane->head_us = e->now;
	dbha__alarm_set(e, request, call->deadline);
}

/* There is no node to send it to. */
static void send_nowhere(dbha_engine *e, struct request *request, const struct decision *decision)
{
	dbha_error err;
	if (dbha__call_judge_route(&request->call, decision, &err) != DBHA_OK) {
		fail_unsent(e, request, &err);
		return;
	}
	dbha__monitor_alarm(&e->h->monitor);
	take_out(e, request);
	park(e, request, decision->version == e->version ? CLOCK_NEVER : e->now);
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
	struct node_lanes *node = &e->nodes[decision.route.node];
	struct lane *lane = dbha__lane_choose(e, &decision, request->alone);
	if (lane) {
		take_out(e, request);
		send_on(e, lane, request, &decision);
		return true;
	}
	if (e->now >= node->not_before_us || !node->failed)
		return false;
	dbha__call_avoid(&request->call, decision.route.node);
	take_out(e, request);
	park(e, request, node->not_before_us);
	return true;
}

static void dispatch_all(dbha_engine *e)
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

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void fail_closed(dbha_engine *e, struct request *request)
{
	dbha_error err;
	dbha__fail(&err, DBHA_ERR_CLOSED, "the engine was stopped before it was sent");
	fail_unsent(e, request, &err);
}

/* The handle is closed: nothing can be sent any more. */
static void fail_all_unsent(dbha_engine *e)
{
	for (int i = e->heap_n - 1; i >= 0; i--) {
		struct request *request = i < e->heap_n ? e->heap[i] : NULL;
		if (request && request->state != REQUEST_SENT && !request->refused)
			fail_closed(e, request);
	}
}

static void abort_all(dbha_engine *e)
{
	for (int i = 0; i < e->h->n_places * e->connections; i++) {
		struct lane *lane = &e->nodes[i / e->connections].lanes[i % e->connections];
		if (lane->state != LANE_OPEN)
			continue;
		lane->pipe.broken = true;
		dbha__conn_cut(lane->slot->conn);
		take_answers(e, lane);
	}
	while (e->heap_n > 0) {
		struct request *request = e->heap[0];
		if (!request->refused) {
			fail_closed(e, request);
			continue;
		}
		take_out(e, request);
		look_again(e, request);
	}
}

/* ---- the step --------------------------------------------------------------------------------------------------- */

static void publish(dbha_engine *e)
{
	int n = 0;
	if (e->sent)
		atomic_fetch_add_explicit(&e->h->piped, e->sent, memory_order_relaxed);
	e->sent = 0;
	if (!e->over.first)
		return;
	for (const struct request *request = e->over.first; request; request = request->next)
		n++;
	dbha__mutex_lock(&e->lock);
	bool was_empty = !e->completed.first;
	if (was_empty) {
		e->completed = e->over;
	} else {
		e->completed.last->next = e->over.first;
		e->over.first->prev = e->completed.last;
		e->completed.last = e->over.last;
	}
	e->live -= n;
	dbha__cond_broadcast(&e->news);
	dbha__mutex_unlock(&e->lock);
	e->over = (struct request_list){NULL, NULL};
	if (e->threaded && was_empty)
		dbha__wake_signal(&e->told);
}

static bool anybody_ready(const dbha_engine *e)
{
	return e->ready[0].n + e->ready[1].n + e->ready[2].n > 0;
}

static int64_t tend_lanes(dbha_engine *e)
{
	int64_t wake = CLOCK_NEVER;
	bool busy = false;
	for (int i = 0; i < e->h->n_places; i++) {
		struct node_lanes *node = &e->nodes[i];
		for (int k = 0; k < e->connections; k++) {
			struct lane *lane = &node->lanes[k];
			dbha__lane_push(e, lane);
			int64_t own = dbha__lane_tend(e, lane);
			busy = busy || (lane->state != LANE_NONE && (lane->state != LANE_OPEN || lane->pipe.n > 0));
			wake = own < wake ? own : wake;
		}
		/* Somebody who is ready may be waiting for that. */
		bool waits = anybody_ready(e) && node->not_before_us > e->now;
		wake = waits && node->not_before_us < wake ? node->not_before_us : wake;
	}
	/* Connections have gone back since those who are ready looked for one, and nothing is under way that would bring the next step. */
	if (!busy && anybody_ready(e) && wake > e->now + READY_US)
		wake = e->now + READY_US;
	return wake;
}

static void hear_lanes(dbha_engine *e)
{
	for (int i = 0; i < e->h->n_places; i++)
		for (int k = 0; k < e->connections; k++) {
			struct lane *lane = &e->nodes[i].lanes[k];
			if (lane->state == LANE_NONE)
				continue;
			dbha__lane_hear(e, lane);
			take_answers(e, lane);
			stop_canceled(lane);
		}
}

int64_t dbha__engine_step(dbha_engine *e)
{
	bool turns = e->h->shared_key != NULL;
	if (turns)
		dbha__life_turn(e->h, 0);
	e->wake_heard = false;
	poll_sockets(e);
	e->now = dbha__clock_now();
	take_submitted(e);
	hear_lanes(e);
	follow_view(e);
	ring_alarms(e);
	if (e->aborting)
		abort_all(e);
	else if (atomic_load_explicit(&e->h->closed, memory_order_acquire))
		fail_all_unsent(e);
	dispatch_all(e);
	int64_t wake = tend_lanes(e);
	publish(e);
	if (e->heap_n > 0 && e->heap[0]->alarm_us < wake)
		wake = e->heap[0]->alarm_us;
	if (turns && e->heap_n > 0 && e->now + TURN_US < wake)
		wake = e->now + TURN_US;
	return wake;
}

/* ---- cancel ----------------------------------------------------------------------------------------------------- */

static bool cancel(dbha_engine *e, struct request *request)
{
	request->canceled = true;
	if (request->state == REQUEST_SENT)
		return true;
	dbha_error err;
	struct refused *refused = request->refused;
	request->refused = NULL;
	if (refused)
		PQclear(refused->attempt.result);
	free(refused);
	dbha__fail(&err, DBHA_ERR_CANCELED, "canceled before it was sent");
	fail_unsent(e, request, &err);
	return true;
}

bool dbha__engine_cancel(dbha_engine *e, uint64_t tag)
{
	e->now = dbha__clock_now();
	take_submitted(e);
	for (int i = 0; i < e->heap_n; i++) {
		struct request *request = e->heap[i];
		if (request->tag != tag || request->canceled)
			continue;
		struct lane *lane = request->lane;
		cancel(e, request);
		if (lane)
			stop_canceled(lane);
		publish(e);
		return true;
	}
	return false;
}
