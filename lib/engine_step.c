/*
 * engine_step: one step of an engine: what has come, what is due, what can be sent. It never waits.
 *
 * What an answer means is decided where dbha_exec decides it (judgement, call); here is only what takes the place of its waiting: a pause is
 * a moment in a heap, a wait for the view a place among the parked, a wait for a connection a place among the ready.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call_fail.h"
#include "clock.h"
#include "engine.h"
#include "error.h"
#include "routing.h"
#include "tell.h"
#include "wait.h"

/* monitor=off: how often the cluster is looked at while there is something to do. */
#define TURN_US  ((int64_t)5000)
#define EVENTS   64
/* How soon those who are ready look again, where there is nothing to wait for. */
#define READY_US ((int64_t)500)
/* How long the answer to the question for a token may take once the request is done, as in flush.c. */
#define TOKEN_US ((int64_t)200000)
/*
 * So many answers are taken in one step, or a few more: then what takes their place is sent, while the servers are at the rest. All at once
 * would have the servers wait for the client and the client for the servers, in turns.
 */
#define ANSWERS  64
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
	const struct memo *memo = dbha__memo_of(e, request);
	request->soils = memo->soils;
	request->alone = memo->soils || memo->slow || request->bundle;
	request->quick = memo->quick && !memo->slow && !memo->no_read && !memo->may_set;
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
	else if (request->state == REQUEST_PLACING)
		dbha__request_remove(&request->lane->placing, request);
}

/* Of one that is in no queue any more. err: with a code other than DBHA_OK. */
static void complete(dbha_engine *e, struct request *request, int code, const dbha_error *err)
{
	dbha__alarm_remove(e, request);
	/* It counts again, as one that nobody has fetched; what was not sent does so still. */
	if (request->state == REQUEST_SENT || request->state == REQUEST_PLACING || request->state == REQUEST_RESOLVING)
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
	bool stopped = attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0;
	if (request->canceled && (stopped || attempt->end == ATTEMPT_NOT_SENT))
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
	bool committing = dbha__verify_is_committing(request) || dbha__bundle_is_committing(request);
	struct statement_facts facts = {
	    .reads = reads,
	    .repeatable = request->rq.flags & DBHA_IDEMPOTENT && !dbha__verify_is_committing(request),
	    .uncommitted = (request->verify || request->bundle) && !committing,
	    .atomic = reads || dbha__retry_atomic(sql),
	    .runs_code = dbha__retry_runs_code(sql),
	};
	*judged = (struct judgement){.continued = false};
	dbha__judge(call, &facts, attempt, judged);
}

/* What became of a COMMIT that was lost is known, or never will be. */
static void follow_outcome(dbha_engine *e, struct request *request)
{
	struct call *call = &request->call;
	dbha_error err;
	int code = dbha__verify_report(request, &err);
	bool ends = e->aborting || request->canceled || e->now >= call->deadline;
	if (code == DBHA_ERR_LOST && !ends && dbha__judge_spend_retry(e->h)) {
		STATS_ADD(&e->h->handle_stats, retries, 1);
		snprintf(call->trouble, sizeof call->trouble, "%.80s: %.160s", call->last_name, request->verify->why);
		park(e, request, e->now + dbha__call_backoff_us(call));
		return;
	}
	complete(e, request, code, &err);
}

static void lose_commit(dbha_engine *e, struct request *request, struct attempt *attempt)
{
	PQclear(attempt->result);
	if (request->rq.flags & DBHA_TOKEN)
		dbha__fresh_give_up(request);
	if (dbha__verify_lost(e, request)) {
		follow_outcome(e, request);
		return;
	}
	request->state = REQUEST_RESOLVING;
	dbha__alarm_set(e, request, CLOCK_NEVER);
}

/*
 * Behind a guard a session that can write says what a standby says. The text shares no Sync from then on: each time the others would have to
 * be sent again.
 */
static void note_no_read(dbha_engine *e, struct request *request, const struct attempt *attempt)
{
	struct call *call = &request->call;
	bool refused = attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "25006") == 0;
	call->on_standby = call->on_standby || (request->guarded && refused);
	if (dbha__judge_standby_says_no(call, attempt))
		dbha__memo_of(e, request)->no_read = true;
}

/* The end of an attempt, which has failed. */
static void follow_failure(dbha_engine *e, struct request *request, struct attempt *attempt)
{
	struct call *call = &request->call;
	struct judgement judged;
	judge(request, attempt, &judged);
	if (dbha__verify_is_committing(request) && judged.retry.outcome_unknown) {
		lose_commit(e, request, attempt);
		return;
	}
	note_no_read(e, request, attempt);
	/* A batch that writes cannot be verified. */
	bool may_write = !(request->bundle && e->verifies);
	if (may_write && dbha__judge_standby_says_no(call, attempt) && !e->aborting && !request->canceled) {
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

static void complete_placed(dbha_engine *e, struct request *request)
{
	take_out(e, request);
	request->lane = NULL;
	complete(e, request, DBHA_OK, NULL);
}

/* The answer to the question for its token is behind it, if the question could be sent. */
static void await_token(dbha_engine *e, struct lane *lane, struct request *request)
{
	int64_t patience = e->now + TOKEN_US;
	request->state = REQUEST_PLACING;
	request->lane = lane;
	dbha__request_append(&lane->placing, request);
	dbha__alarm_set(e, request, patience < request->call.deadline ? patience : request->call.deadline);
	dbha__fresh_give_up(request); /* until it has come */
	if (!lane->asked && !lane->unplaced)
		complete_placed(e, request);
}

/* The end of an attempt. lane: that it was answered on; NULL: it was not. */
static void follow(dbha_engine *e, struct lane *lane, struct request *request, struct attempt *attempt)
{
	struct call *call = &request->call;
	dbha__judge_count(call, attempt);
	if (attempt->end != ATTEMPT_OK) {
		follow_failure(e, request, attempt);
		return;
	}
	if (call->refused) {
		STATS_ADD(&e->h->stats[call->last_node], not_reads, 1);
		dbha__routing_remember_write(e->h, request->rq.sql);
	}
	STATS_ADD(&e->h->handle_stats, transactions, request->verify != NULL);
	request->result = attempt->result;
	if (lane && request->rq.flags & DBHA_TOKEN)
		await_token(e, lane, request);
	else
		complete(e, request, DBHA_OK, NULL);
}

/* One that was sent and is in a queue again counts. */
static void recount(dbha_engine *e, const struct request *request)
{
	if (request->state == REQUEST_READY || request->state == REQUEST_PARKED)
		atomic_fetch_add(&e->waiting, 1);
}

static void take_found(dbha_engine *e)
{
	struct request *request = e->verifies ? dbha__verify_found(e) : NULL;
	for (struct request *next; request; request = next) {
		next = request->next;
		follow_outcome(e, request);
		recount(e, request);
	}
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static void leave(dbha_engine *e, struct lane *lane, struct request *request)
{
	lane->writes -= request->call.intent != DBHA_READ;
	lane->closing = lane->closing || request->soils;
	lane->alone = lane->verifying = false;
	lane->bundle = NULL;
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
	/* Nobody of us has stopped a commit that is verified. */
	return answer->unreplicated && !request->late && !request->verify && answer->attempt.end == ATTEMPT_OK;
}

/* What was said behind the deadline is believed, but see dbha__attempt_judge_late. */
static void judge_late(struct lane *lane, struct pipe_answer *answer)
{
	struct conn *conn = lane->slot->conn;
	conn->unreplicated = answer->unreplicated;
	dbha__attempt_judge_late(conn, &answer->attempt);
	conn->unreplicated = false;
}

/*
 * What has taken long is alone the next time; what was quick is not, any more. The answers of those that share a Sync come together,
 * and which of them took long nobody knows: if they did, each is by itself the next time.
 */
static void note_time(dbha_engine *e, const struct lane *lane, const struct request *request)
{
	struct memo *memo = dbha__memo_of(e, request);
	if (request->shares) {
		memo->quick = memo->quick && e->now - lane->since_us <= ENGINE_SLOW_US;
		return;
	}
	memo->slow = e->now - lane->head_us > ENGINE_SLOW_US;
	memo->quick = e->now - lane->head_us <= ENGINE_QUICK_US;
}

static void again_at_once(dbha_engine *e, struct request *request, PGresult *result)
{
	PQclear(result);
	atomic_fetch_add(&e->waiting, 1);
	make_ready(e, request, true);
}

/* Its standby is behind, or has not said: what was read does not count. */
static void go_round(dbha_engine *e, struct request *request, PGresult *result)
{
	struct call *call = &request->call;
	dbha_error err;
	if (request->canceled || e->aborting) {
		PQclear(result);
		dbha__fail(&err, request->canceled ? DBHA_ERR_CANCELED : DBHA_ERR_CLOSED, "%s before a standby had caught up",
		           request->canceled ? "canceled" : "the engine was stopped");
		fail_unsent(e, request, &err);
		return;
	}
	if (request->guard == GUARD_AGAIN) {
		again_at_once(e, request, result);
		return;
	}
	PQclear(result);
	atomic_fetch_add(&e->waiting, 1);
	if (dbha__call_note_behind(call, call->last_node, e->now) || e->now >= call->deadline)
		park(e, request, e->now + CALL_BEHIND_NAP_US);
	else
		make_ready(e, request, true);
}

/* Its question was sent alone, and is answered: now it goes itself, over the same connection. */
static void follow_asked(dbha_engine *e, struct lane *lane, struct request *request, struct attempt *attempt)
{
	bool ends = request->canceled || e->aborting || e->now >= request->call.deadline;
	/* Not before all answers are taken: then it goes as one whose standby is known to have it. */
	bool goes = request->guard == GUARD_HAS && !ends && !lane->closing && !dbha__pipe_has_news(&lane->pipe);
	if (goes) {
		PQclear(attempt->result);
		if (dbha__fresh_send_asked(lane, request, attempt))
			return;
	}
	leave(e, lane, request);
	if (request->guard == GUARD_HAS)
		request->guard = GUARD_AGAIN;
	if (!goes && request->guard != GUARD_SENT) {
		go_round(e, request, attempt->result);
		return;
	}
	/* It was never sent itself; where its question was lost, that is all there is to say. */
	request->call.sent--;
	if (!goes)
		attempt->end = ATTEMPT_NOT_SENT;
	follow(e, NULL, request, attempt);
	if (request->state == REQUEST_READY || request->state == REQUEST_PARKED)
		atomic_fetch_add(&e->waiting, 1);
}

static void take_question(dbha_engine *e, struct lane *lane, struct pipe_answer *answer)
{
	struct request *request = answer->owner;
	lane->head_us = e->now;
	if (lane->pipe.n == 0)
		lane->idle_us = e->now;
	if (answer->owner == lane) {
		dbha__fresh_place(e, lane, answer);
		while (lane->placing.first)
			complete_placed(e, lane->placing.first);
	} else if (request) {
		dbha__fresh_take_guard(lane, request, answer);
		if (request->asks_first) {
			follow_asked(e, lane, request, &answer->attempt);
			return;
		}
	}
	PQclear(answer->attempt.result);
}

/* One that has failed was in the way of others. It is by itself from now on, and so is its text until it has succeeded. */
static void leave_group(dbha_engine *e, struct request *request)
{
	request->apart = true;
	dbha__memo_of(e, request)->quick = false;
}

/*
 * It was not executed, because of an error of one before it that was none of its business. That is no attempt and costs it nothing; the
 * second time it has a Sync of its own, so that this cannot happen to it again. False: there is no second time.
 */
static bool goes_again_apart(dbha_engine *e, struct request *request, struct attempt *attempt)
{
	request->apart = true;
	request->call.rounds--;
	e->sent--;
	if (!e->aborting && !request->canceled && e->now < request->call.deadline) {
		again_at_once(e, request, attempt->result);
		return true;
	}
	if (e->now >= request->call.deadline)
		dbha__attempt_timed_out(attempt);
	return false;
}

/* What has become of the batch is known: it is in its `end`. */
static void end_batch(dbha_engine *e, struct lane *lane)
{
	struct request *request = lane->bundle;
	struct bundle *b = request->bundle;
	struct pipe_answer answer = {.attempt = b->end, .unreplicated = b->unreplicated};
	struct attempt *attempt = &answer.attempt;
	b->end.result = NULL;
	dbha__pipe_disown(&lane->pipe, request);
	leave(e, lane, request);
	request->call.sent -= attempt->end == ATTEMPT_NOT_SENT;
	bool again = !e->aborting && !request->canceled && e->now < request->call.deadline;
	if (again && b->mended && !request->unprepared) {
		request->unprepared = true;
		again_at_once(e, request, attempt->result);
		return;
	}
	if (request->late || is_weakened(request, &answer))
		judge_late(lane, &answer);
	follow(e, lane, request, attempt);
	recount(e, request);
}

/* Its Sync was not sent: it is rolled back, and that is certain. */
static void abandon_batch(dbha_engine *e, struct lane *lane)
{
	struct request *request = lane->bundle;
	struct attempt *end = &request->bundle->end;
	dbha__lane_cancel(lane);
	dbha__pipe_break(&lane->pipe);
	if (request->canceled) {
		end->end = ATTEMPT_ERROR;
		snprintf(end->sqlstate, sizeof end->sqlstate, "57014");
		snprintf(end->message, sizeof end->message, "canceled before it was committed");
	} else {
		dbha__attempt_timed_out(end);
	}
	end_batch(e, lane);
}

/* Of one that is on its way there: whether it can be. */
static bool may_abandon_batch(const struct lane *lane)
{
	return lane->bundle && !lane->bundle->bundle->synced && lane->bundle->bundle->end.end == ATTEMPT_OK;
}

static void take_answer(dbha_engine *e, struct lane *lane, struct pipe_answer *answer)
{
	if (dbha__bundle_take(lane, answer)) {
		lane->head_us = e->now;
		if (dbha__bundle_is_over(lane))
			end_batch(e, lane);
		return;
	}
	if (answer->question) {
		take_question(e, lane, answer);
		return;
	}
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
	if (dbha__fresh_is_void(request, answer)) {
		go_round(e, request, attempt->result);
		return;
	}
	dbha__fresh_fetched(request, lane);
	request->call.sent -= attempt->end == ATTEMPT_NOT_SENT;
	if (answer->aborted && goes_again_apart(e, request, attempt))
		return;
	if (request->shares && attempt->end != ATTEMPT_OK)
		leave_group(e, request);
	bool again = !e->aborting && !request->canceled && e->now < request->call.deadline;
	bool unmarked = dbha__verify_is_unmarked(request) && attempt->end == ATTEMPT_ERROR;
	if (again && (unmarked || (answer->mended && !request->unprepared))) {
		request->unprepared = request->unprepared || answer->mended;
		again_at_once(e, request, attempt->result);
		return;
	}
	if (again && is_victim(lane, request, attempt)) {
		again_at_once(e, request, attempt->result);
		return;
	}
	if (request->late || is_weakened(request, answer))
		judge_late(lane, answer);
	follow(e, lane, request, attempt);
	recount(e, request);
}

/* It has been executed, and is not to be committed any more. */
static void roll_back(dbha_engine *e, struct lane *lane, struct request *request)
{
	struct attempt attempt;
	dbha__pipe_disown(&lane->pipe, request);
	leave(e, lane, request);
	lane->closing = true;
	dbha__attempt_begin(&attempt);
	if (!request->canceled) {
		dbha__attempt_timed_out(&attempt);
	} else {
		attempt.end = ATTEMPT_ERROR;
		snprintf(attempt.sqlstate, sizeof attempt.sqlstate, "57014");
		snprintf(attempt.message, sizeof attempt.message, "canceled before it was committed");
	}
	follow(e, NULL, request, &attempt);
}

/* The oldest one waits for its commit. */
static void end_transaction(dbha_engine *e, struct lane *lane)
{
	struct request *request = dbha__pipe_owner(&lane->pipe, 0);
	if (!request || !dbha__pipe_awaits(&lane->pipe))
		return;
	/* One whose time is over would be of unknown outcome in a moment. */
	bool unwanted = request->canceled || request->late || e->now >= request->call.deadline;
	if (unwanted && lane->pipe.head.end == ATTEMPT_OK)
		roll_back(e, lane, request);
	else
		dbha__verify_commit(request, &lane->pipe);
}

static void take_answers(dbha_engine *e, struct lane *lane)
{
	struct pipe_answer answer;
	if (lane->state != LANE_OPEN)
		return;
	struct conn *conn = lane->slot->conn;
	lane->since_us = lane->head_us;
	while (dbha__pipe_next(&lane->pipe, &answer)) {
		e->taken++;
		take_answer(e, lane, &answer);
	}
	end_transaction(e, lane);
	/* It may have ended while nothing of the batch was on its way. */
	if (dbha__bundle_is_over(lane))
		end_batch(e, lane);
	/* The sooner all are looked at, the better: see statement.c. */
	if (dbha__conn_was_promoted(conn))
		dbha__monitor_alarm(&e->h->monitor);
}

/* What was canceled and has come to its turn is stopped now. */
static void stop_canceled(dbha_engine *e, struct lane *lane)
{
	if (may_abandon_batch(lane) && lane->bundle->canceled) {
		abandon_batch(e, lane);
		return;
	}
	int n = lane->state == LANE_OPEN && lane->stops ? dbha__pipe_front(&lane->pipe) : 0;
	for (int i = 0; i < n; i++) {
		struct request *request = dbha__pipe_owner(&lane->pipe, i);
		if (!request || !request->canceled || request->cancel_sent || dbha__verify_is_committing(request))
			continue;
		request->cancel_sent = true;
		dbha__lane_cancel(lane);
	}
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
	/* What is not committed there must not be by what is sent next; what is being committed would be met by it. */
	lane->closing = lane->closing || request->verify || request->bundle;
	dbha__attempt_begin(&attempt);
	dbha__attempt_timed_out(&attempt);
	attempt.prepared_only = request->asks_first;
	follow(e, NULL, request, &attempt);
}

/* The server may be at it. */
static bool is_at_front(const struct lane *lane, const struct request *request)
{
	int i = dbha__pipe_front(&lane->pipe);
	while (i > 0 && dbha__pipe_owner(&lane->pipe, i - 1) != request)
		i--;
	return i > 0;
}

/*
 * The server is asked to stop what it is doing now, and has a moment to say what has become of it. One that is not its turn yet cannot be
 * stopped: it is executed, or not, and its caller does not wait for that. Nor can a commit: that would end the wait for a synchronous
 * standby, and nothing else.
 */
static void out_of_time_sent(dbha_engine *e, struct request *request)
{
	struct lane *lane = request->lane;
	if (may_abandon_batch(lane)) {
		abandon_batch(e, lane);
		return;
	}
	bool at_front = lane->bundle || is_at_front(lane, request);
	if (!at_front || request->late) {
		give_up(e, request);
		return;
	}
	request->late = true;
	/* What stops one of those that share a Sync ends them all. */
	if (!request->cancel_sent && !dbha__verify_is_committing(request) && !(request->shares && lane->canceled))
		dbha__lane_cancel(lane);
	dbha__alarm_set(e, request, request->call.deadline + CONN_DRAIN_US);
}

static void ring(dbha_engine *e, struct request *request)
{
	bool over = e->now >= request->call.deadline;
	if (request->state == REQUEST_PLACING) {
		complete_placed(e, request);
		return;
	}
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
		follow(e, NULL, request, &refused);
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
		fail_unsent(e, request, &err);
		return;
	}
	dbha__monitor_alarm(&e->h->monitor);
	take_out(e, request);
	park(e, request, decision->version == e->version ? CLOCK_NEVER : e->now);
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
		bool unsent = request && (request->state == REQUEST_READY || request->state == REQUEST_PARKED);
		if (unsent && !request->refused)
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
	if (e->verifies)
		dbha__verifier_cut(&e->verifier);
	/* Those whose COMMIT is asked for are the last of the heap. */
	while (e->heap_n > 0 && e->heap[0]->state != REQUEST_RESOLVING) {
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
	for (struct request *request = e->over.first, *next; request; request = next) {
		next = request->next;
		n++;
		if (!request->fetch)
			continue;
		dbha__request_remove(&e->over, request);
		atomic_fetch_sub(&e->waiting, 1);
		dbha__fresh_fetch_end(e, request);
	}
	dbha__mutex_lock(&e->lock);
	bool was_empty = !e->completed.first;
	if (!e->over.first) {
		was_empty = false;
	} else if (was_empty) {
		e->completed = e->over;
	} else {
		e->completed.last->next = e->over.first;
		e->over.first->prev = e->completed.last;
		e->completed.last = e->over.last;
	}
	e->live -= n;
	/* Under the lock, as it is taken back. */
	if (was_empty && e->expecting > 0 && !e->told_set) {
		dbha__wake_signal(&e->told);
		e->told_set = true;
	}
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
	bool busy = false, gone = false;
	for (int i = 0; i < e->h->n_places; i++) {
		struct node_lanes *node = &e->nodes[i];
		dbha__lane_make_way(e, i);
		for (int k = 0; k < e->connections; k++) {
			struct lane *lane = &node->lanes[k];
			bool was_open = lane->state == LANE_OPEN;
			dbha__bundle_feed(lane);
			if (dbha__bundle_is_over(lane))
				end_batch(e, lane);
			dbha__fresh_ask(lane);
			dbha__lane_push(e, lane);
			int64_t own = dbha__lane_tend(e, lane);
			gone = gone || (was_open && lane->state == LANE_NONE);
			busy = busy || (lane->state != LANE_NONE && (lane->state != LANE_OPEN || lane->pipe.n > 0));
			wake = own < wake ? own : wake;
		}
		/* Somebody who is ready may be waiting for that. */
		bool waits = anybody_ready(e) && node->not_before_us > e->now;
		wake = waits && node->not_before_us < wake ? node->not_before_us : wake;
	}
	/* A connection has gone back since those who are ready looked for one, or nothing is under way that would bring the next step. */
	if ((gone || !busy) && anybody_ready(e) && wake > e->now + READY_US)
		wake = e->now + READY_US;
	return wake;
}

static void hear_lanes(dbha_engine *e)
{
	int n = e->h->n_places * e->connections;
	/* A connection is heard to the end, see dbha__pipe_has_news; those that are left for the next step come first there. */
	for (int i = 0; i < n && e->taken < ANSWERS; i++) {
		int at = e->first_heard;
		struct lane *lane = &e->nodes[at / e->connections].lanes[at % e->connections];
		if (lane->state != LANE_NONE) {
			dbha__lane_hear(e, lane);
			take_answers(e, lane);
			stop_canceled(e, lane);
		}
		e->first_heard = (at + 1) % n;
	}
}

int64_t dbha__engine_step(dbha_engine *e)
{
	bool turns = e->h->shared_key != NULL;
	if (turns)
		dbha__life_turn(e->h, 0);
	e->wake_heard = false;
	e->taken = 0;
	poll_sockets(e);
	e->now = dbha__clock_now();
	take_submitted(e);
	hear_lanes(e);
	take_found(e);
	follow_view(e);
	ring_alarms(e);
	if (e->aborting)
		abort_all(e);
	else if (atomic_load_explicit(&e->h->closed, memory_order_acquire))
		fail_all_unsent(e);
	dispatch_all(e);
	int64_t wake = tend_lanes(e);
	publish(e);
	if (e->taken >= ANSWERS)
		wake = e->now;
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
	if (request->state == REQUEST_SENT || request->state == REQUEST_RESOLVING)
		return true;
	if (request->state == REQUEST_PLACING) {
		complete_placed(e, request);
		return true;
	}
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
		if (request->tag != tag || request->canceled || request->fetch)
			continue;
		struct lane *lane = request->lane;
		cancel(e, request);
		if (lane) {
			lane->stops = true;
			stop_canceled(e, lane);
		}
		publish(e);
		return true;
	}
	return false;
}
