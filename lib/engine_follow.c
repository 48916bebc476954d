/*
 * engine_follow: what becomes of a request of an engine when an attempt has ended: done, again, or reported.
 *
 * What an answer means is decided where dbha_exec decides it (judgement, call); here is only what takes the place of its waiting: a pause is
 * a moment in a heap, a wait for the view a place among the parked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "routing.h"

/* At least so long between two looks at a node that has refused a write: the backoff may be none. */
#define LOOK_US  ((int64_t)1000)
/* How long the answer to the question for a token may take once the request is done, as in flush.c. */
#define TOKEN_US ((int64_t)200000)

static void report(dbha_engine *e, struct request *request, const struct attempt *attempt,
                   const struct judgement *judged)
{
	dbha_error err;
	int code = dbha__judge_report(&request->call, attempt, judged, &err);
	bool stopped = attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0;
	if (request->canceled && (stopped || attempt->end == ATTEMPT_NOT_SENT))
		code = err.code = DBHA_ERR_CANCELED;
	request->result = attempt->result;
	dbha__engine_complete(e, request, code, &err);
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
		dbha__engine_park(e, request, e->now + dbha__call_backoff_us(call));
	else
		dbha__engine_make_ready(e, request, true);
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
	dbha__engine_park(e, request, e->now);
	return true;
}

void dbha__engine_look_again(dbha_engine *e, struct request *request)
{
	struct refused *refused = request->refused;
	struct call *call = &request->call;
	enum looked looked = dbha__judge_look(call, &refused->look);
	if (looked == LOOKED_LATER && e->now < refused->look.until && !e->aborting) {
		dbha__engine_park(e, request, e->now + LOOK_US + dbha__call_backoff_us(call));
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
		dbha__engine_park(e, request, e->now + dbha__call_backoff_us(call));
		return;
	}
	dbha__engine_complete(e, request, code, &err);
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

void dbha__engine_complete_placed(dbha_engine *e, struct request *request)
{
	dbha__engine_take_out(e, request);
	request->lane = NULL;
	dbha__engine_complete(e, request, DBHA_OK, NULL);
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
		dbha__engine_complete_placed(e, request);
}

/* The end of an attempt. lane: that it was answered on; NULL: it was not. */
void dbha__engine_follow(dbha_engine *e, struct lane *lane, struct request *request, struct attempt *attempt)
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
		dbha__engine_complete(e, request, DBHA_OK, NULL);
}

/* One that was sent and is in a queue again counts. */
void dbha__engine_recount(dbha_engine *e, const struct request *request)
{
	if (request->state == REQUEST_READY || request->state == REQUEST_PARKED)
		atomic_fetch_add(&e->waiting, 1);
}

void dbha__engine_take_found(dbha_engine *e)
{
	struct request *request = e->verifies ? dbha__verify_found(e) : NULL;
	for (struct request *next; request; request = next) {
		next = request->next;
		follow_outcome(e, request);
		dbha__engine_recount(e, request);
	}
}
