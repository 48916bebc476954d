/*
 * engine_answer: what has come on a connection of an engine: each answer finds its request, and what it was in company with.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "wait.h"

void dbha__engine_leave(dbha_engine *e, struct lane *lane, struct request *request)
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
	dbha__engine_make_ready(e, request, true);
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
		dbha__engine_fail_unsent(e, request, &err);
		return;
	}
	if (request->guard == GUARD_AGAIN) {
		again_at_once(e, request, result);
		return;
	}
	PQclear(result);
	atomic_fetch_add(&e->waiting, 1);
	if (dbha__call_note_behind(call, call->last_node, e->now) || e->now >= call->deadline)
		dbha__engine_park(e, request, e->now + CALL_BEHIND_NAP_US);
	else
		dbha__engine_make_ready(e, request, true);
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
	dbha__engine_leave(e, lane, request);
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
	dbha__engine_follow(e, NULL, request, attempt);
	dbha__engine_recount(e, request);
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
			dbha__engine_complete_placed(e, lane->placing.first);
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
void dbha__engine_end_batch(dbha_engine *e, struct lane *lane)
{
	struct request *request = lane->bundle;
	struct bundle *b = request->bundle;
	struct pipe_answer answer = {.attempt = b->end, .unreplicated = b->unreplicated};
	struct attempt *attempt = &answer.attempt;
	b->end.result = NULL;
	dbha__pipe_disown(&lane->pipe, request);
	dbha__engine_leave(e, lane, request);
	request->call.sent -= attempt->end == ATTEMPT_NOT_SENT;
	bool again = !e->aborting && !request->canceled && e->now < request->call.deadline;
	if (again && b->mended && !request->unprepared) {
		request->unprepared = true;
		again_at_once(e, request, attempt->result);
		return;
	}
	if (request->late || is_weakened(request, &answer))
		judge_late(lane, &answer);
	dbha__engine_follow(e, lane, request, attempt);
	dbha__engine_recount(e, request);
}

/* Its Sync was not sent: it is rolled back, and that is certain. */
void dbha__engine_abandon(dbha_engine *e, struct lane *lane)
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
	dbha__engine_end_batch(e, lane);
}

/* Of one that is on its way there: whether it can be. */
bool dbha__engine_may_abandon(const struct lane *lane)
{
	return lane->bundle && !lane->bundle->bundle->synced && lane->bundle->bundle->end.end == ATTEMPT_OK;
}

static void take_answer(dbha_engine *e, struct lane *lane, struct pipe_answer *answer)
{
	if (dbha__bundle_take(lane, answer)) {
		lane->head_us = e->now;
		if (dbha__bundle_is_over(lane))
			dbha__engine_end_batch(e, lane);
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
	dbha__engine_leave(e, lane, request);
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
	dbha__engine_follow(e, lane, request, attempt);
	dbha__engine_recount(e, request);
}

/* It has been executed, and is not to be committed any more. */
static void roll_back(dbha_engine *e, struct lane *lane, struct request *request)
{
	struct attempt attempt;
	dbha__pipe_disown(&lane->pipe, request);
	dbha__engine_leave(e, lane, request);
	lane->closing = true;
	dbha__attempt_begin(&attempt);
	if (!request->canceled) {
		dbha__attempt_timed_out(&attempt);
	} else {
		attempt.end = ATTEMPT_ERROR;
		snprintf(attempt.sqlstate, sizeof attempt.sqlstate, "57014");
		snprintf(attempt.message, sizeof attempt.message, "canceled before it was committed");
	}
	dbha__engine_follow(e, NULL, request, &attempt);
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

void dbha__engine_take_answers(dbha_engine *e, struct lane *lane)
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
		dbha__engine_end_batch(e, lane);
	/* The sooner all are looked at, the better: see statement.c. */
	if (dbha__conn_was_promoted(conn))
		dbha__monitor_alarm(&e->h->monitor);
}

/* What was canceled and has come to its turn is stopped now. */
void dbha__engine_stop_canceled(dbha_engine *e, struct lane *lane)
{
	if (dbha__engine_may_abandon(lane) && lane->bundle->canceled) {
		dbha__engine_abandon(e, lane);
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
