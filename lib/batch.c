#include "batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "consistency.h"
#include "error.h"
#include "routing.h"
#include "session.h"
#include "sessionstate.h"

#define BATCH_MAX 1000000

/* ---- checks ------------------------------------------------------------------------------------------------ */

/* What is of the batch, and not of one in it; and what cannot be one of many. NULL: it is in order. */
static const char *wrong_with(const dbha_request *rq)
{
	if (rq->intent != DBHA_DEFAULT || rq->timeout_ms || rq->consistency || rq->token || rq->route)
		return "intent, timeout_ms, consistency, token and route are the batch's: leave them out";
	if (rq->flags & ~DBHA_UNPREPARED)
		return "flags are the batch's, but for DBHA_UNPREPARED";
	return NULL;
}

/* Of a text. */
static const char *wrong_text(const char *sql)
{
	if (!dbha__retry_atomic(sql))
		return "it does not begin with SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES or TABLE: it may commit on "
		       "the "
		       "way, or need a conversation";
	if (dbha__sessionstate_hints(sql))
		return "it may leave something in its session";
	return NULL;
}

static int check_one(const char *what, int index, const dbha_request *rq, dbha_error *err)
{
	char name[64];
	PGresult *none;
	if (dbha__statement_check(what, rq, &none, err) == DBHA_OK)
		return DBHA_OK;
	snprintf(name, sizeof name, "%s: requests[%d]", what, index);
	return dbha__statement_check(name, rq, &none, err);
}

bool dbha__batch_has_text(const dbha_request *rq, const char *sql)
{
	return sql && (rq->sql == sql || strcmp(rq->sql, sql) == 0);
}

static int check_requests(const char *what, const dbha_batch_request *rq, dbha_error *err)
{
	const char *checked = NULL;
	for (int i = 0; i < rq->n; i++) {
		const dbha_request *one = &rq->requests[i];
		/* A route of one's own would be written to. */
		const char *wrong = one->size == sizeof *one ? wrong_with(one) : NULL;
		int code = wrong ? DBHA_OK : check_one(what, i, one, err);
		if (code != DBHA_OK)
			return code;
		if (!wrong && !dbha__batch_has_text(one, checked))
			wrong = wrong_text(one->sql);
		if (wrong)
			return dbha__fail(err, DBHA_ERR_USAGE, "%s: requests[%d]: %s", what, i, wrong);
		checked = one->sql;
	}
	return DBHA_OK;
}

static int check(const char *what, const dbha_batch_request *rq, uint32_t flags, dbha_error *err)
{
	if (rq->n < 0 || rq->n > BATCH_MAX)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: batch.n is %d: 0 to %d are possible", what, rq->n, BATCH_MAX);
	if (rq->n > 0 && !rq->requests)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: batch.requests is NULL for %d statements", what, rq->n);
	if (rq->each != 0 && rq->each != 1)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: batch.each is %d: 0 (all or nothing) or 1", what, rq->each);
	if (rq->flags & ~flags)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: batch.flags is 0x%x: DBHA_IDEMPOTENT%s and DBHA_UNPREPARED are possible", what,
		                  (unsigned)rq->flags, flags & DBHA_TOKEN ? ", DBHA_TOKEN" : "");
	/* The rest is checked as it is with one. */
	PGresult *none;
	dbha_request as_one = {.size = sizeof as_one,
	                       .sql = "",
	                       .intent = rq->intent,
	                       .timeout_ms = rq->timeout_ms,
	                       .consistency = rq->consistency,
	                       .route = rq->route};
	int code = dbha__statement_check(what, &as_one, &none, err);
	return code == DBHA_OK ? check_requests(what, rq, err) : code;
}

int dbha__batch_check(const char *what, const dbha_batch_request *rq, uint32_t flags, dbha_error *err)
{
	if (!rq)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: batch is NULL", what);
	if (rq->size != sizeof *rq)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: batch.size is %zu, not %zu: set it to sizeof(dbha_batch_request)",
		                  what, rq->size, sizeof *rq);
	return check(what, rq, flags, err);
}

/* ---- its beginning ----------------------------------------------------------------------------------------- */

static void set_nothing(const dbha_batch_request *rq, int code)
{
	bool counted = rq->n > 0 && rq->n <= BATCH_MAX;
	for (int i = 0; counted && rq->results && i < rq->n; i++)
		rq->results[i] = NULL;
	for (int i = 0; counted && rq->codes && i < rq->n; i++)
		rq->codes[i] = code;
	if (rq->failed)
		*rq->failed = -1;
}

dbha_request dbha__batch_as_one(const dbha_batch_request *rq)
{
	return (dbha_request){.size = sizeof(dbha_request),
	                      .sql = rq->n > 0 ? rq->requests[0].sql : "",
	                      .intent = rq->intent,
	                      .flags = rq->flags,
	                      .timeout_ms = rq->timeout_ms,
	                      .consistency = rq->consistency,
	                      .token = rq->token,
	                      .route = rq->route};
}

int dbha__batch_init(struct batch *b, const char *what, const dbha_batch_request *rq, dbha_error *err)
{
	memset(b, 0, sizeof *b);
	int code = dbha__batch_check(what, rq, DBHA_IDEMPOTENT | DBHA_UNPREPARED, err);
	if (!rq || rq->size != sizeof *rq)
		return DBHA_ERR_USAGE;
	set_nothing(rq, code);
	if (code != DBHA_OK)
		return code;
	b->what = what;
	b->rq = rq;
	b->first = rq->n;
	b->culprit = -1;
	b->as_one = dbha__batch_as_one(rq);
	b->items = calloc((size_t)rq->n + 1, sizeof *b->items);
	if (!b->items) {
		set_nothing(rq, DBHA_ERR_MEMORY);
		dbha__no_memory(err);
		return DBHA_ERR_MEMORY;
	}
	for (int i = 0; i < rq->n; i++)
		b->items[i].waits = true;
	return DBHA_OK;
}

void dbha__batch_fini(struct batch *b)
{
	free(b->items);
	b->items = NULL;
}

void dbha__batch_classify(struct batch *b, const struct call *call)
{
	dbha *h = call->h;
	const char *looked_at = NULL;
	dbha_intent said = b->as_one.intent;
	bool finds_out = said == DBHA_DEFAULT && h->config.options.routing == ROUTING_AUTO;
	if (said != DBHA_READ && !finds_out)
		return;
	for (int i = 0; i < b->rq->n; i++) {
		const dbha_request *one = &b->rq->requests[i];
		struct classify_verdict verdict;
		if (dbha__batch_has_text(one, looked_at))
			continue;
		looked_at = one->sql;
		if (said == DBHA_READ && dbha__routing_is_write(h, one->sql))
			b->as_one.intent = DBHA_WRITE;
		if (said == DBHA_READ)
			continue;
		if (dbha__routing_intent(call, one->sql, &verdict) != DBHA_READ)
			return;
	}
	if (said == DBHA_DEFAULT)
		b->as_one.intent = DBHA_READ;
}

/* ---- results ----------------------------------------------------------------------------------------------- */

static void put_result(const struct batch *b, int i, PGresult *result)
{
	if (!b->rq->results) {
		PQclear(result);
		return;
	}
	PQclear(b->rq->results[i]);
	b->rq->results[i] = result;
}

static void put_code(const struct batch *b, int i, int code)
{
	if (b->rq->codes)
		b->rq->codes[i] = code;
}

/* ---- all or nothing ---------------------------------------------------------------------------------------- */

static void take_together(void *arg, int i, struct pipe_answer *answer)
{
	struct batch *b = arg;
	put_result(b, i, answer->attempt.result);
	if (b->answers++ > 0)
		dbha__judge_count(&b->st->call, &answer->attempt);
}

/* Everything is sent, also what an earlier attempt had sent. */
static void begin_anew(struct batch *b)
{
	for (int i = 0; i < b->rq->n; i++) {
		b->items[i].waits = true;
		put_result(b, i, NULL);
	}
	b->answers = 0;
	b->culprit = -1;
}

/* What is said of it names the statement. */
static void name_culprit(struct batch *b, struct attempt *attempt)
{
	char words[sizeof attempt->message];
	int i = b->culprit;
	if (i < 0)
		return;
	memcpy(words, attempt->message, sizeof words);
	snprintf(attempt->message, sizeof attempt->message, "requests[%d]: %.220s", i, words);
	b->as_one.sql = b->rq->requests[i].sql;
}

/* Nothing was executed, and nobody has seen it: it is sent once more, unprepared. */
static bool is_mended(const struct batch *b, const struct conn *conn, const struct attempt *attempt)
{
	return b->volley.mended && attempt->end == ATTEMPT_ERROR && !b->st->in_transaction && !conn->late &&
	       dbha__conn_state(conn) == CONN_IDLE && dbha__clock_now() < b->st->call.deadline;
}

static void fire_together(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	struct batch *b = st->batch;
	struct volley *v = &b->volley;
	v->holds = !st->in_transaction;
	v->before = st->before;
	v->mark = st->mark;
	v->take = take_together;
	begin_anew(b);
	dbha__volley_run(v, conn, st->call.deadline, attempt);
	if (is_mended(b, conn, attempt)) {
		PQclear(attempt->result);
		begin_anew(b);
		v->unprepared = true;
		dbha__volley_run(v, conn, st->call.deadline, attempt);
	}
	if (v->mark_refused)
		atomic_store(&st->call.h->marks_refused, true);
	st->mark_refused = v->mark_refused;
	st->unprepared = v->mended;
	st->undone = attempt->end != ATTEMPT_OK && !v->synced;
	b->culprit = attempt->end == ATTEMPT_ERROR ? v->failed : -1;
	name_culprit(b, attempt);
}

/* ---- each for itself --------------------------------------------------------------------------------------- */

static bool is_canceled(const struct batch *b)
{
	const struct cancel *cancel = b->st->call.cancel;
	return cancel && atomic_load_explicit(&cancel->asked, memory_order_relaxed);
}

/* The code of one that has failed, for its place in the list. */
static int code_of(int code, bool outcome_unknown)
{
	return outcome_unknown ? DBHA_ERR_UNKNOWN : code;
}

static void prefix(const struct batch *b, int index, dbha_error *err)
{
	char words[DBHA_MESSAGE_MAX];
	memcpy(words, err->message, sizeof words);
	snprintf(err->message, sizeof err->message, "%s: requests[%d]: %.760s", b->what, index, words);
}

/* One that will not go again. */
static void fail_for_good(struct batch *b, int i, const struct attempt *attempt, const struct judgement *judged)
{
	dbha_error err;
	int code = dbha__judge_report(&b->st->call, attempt, judged, &err);
	if (code == DBHA_ERR_SERVER && is_canceled(b) && strcmp(attempt->sqlstate, "57014") == 0)
		code = err.code = DBHA_ERR_CANCELED;
	put_code(b, i, code_of(code, err.outcome_unknown || b->items[i].maybe_done));
	if (i > b->first)
		return;
	prefix(b, i, &err);
	err.attempts++;
	b->first = i;
	b->first_error = err;
}

/* What the whole attempt is judged by, of those that go again: rather one that tells of the connection. */
static void keep_pending(struct batch *b, const struct attempt *attempt, bool not_begun)
{
	if (b->has_pending && b->pending.end != ATTEMPT_ERROR)
		return;
	if (b->has_pending && attempt->end == ATTEMPT_ERROR)
		return;
	b->has_pending = true;
	b->pending_not_begun = not_begun;
	b->pending = *attempt;
	b->pending.result = NULL;
}

/* One that has failed: again, as dbha_exec would do it, or not. */
static void take_failure(struct batch *b, int i, struct attempt *attempt)
{
	struct call *call = &b->st->call;
	struct volley_item *item = &b->items[i];
	bool reads = call->intent == DBHA_READ;
	struct statement_facts facts = {
	    .reads = reads, .repeatable = b->as_one.flags & DBHA_IDEMPOTENT, .atomic = true, .uncommitted = false};
	struct judgement judged = {.continued = false};
	dbha__judge(call, &facts, attempt, &judged);
	bool says_no = dbha__judge_standby_says_no(call, attempt);
	bool again = says_no || judged.retry.action != RETRY_REPORT;
	put_result(b, i, attempt->result);
	if (!again || is_canceled(b)) {
		fail_for_good(b, i, attempt, &judged);
		return;
	}
	if (says_no)
		b->as_one.sql = b->rq->requests[i].sql;
	item->waits = true;
	item->refused = attempt->end == ATTEMPT_ERROR;
	item->maybe_done = item->maybe_done || (judged.verdict.effect == EFFECT_UNKNOWN && !reads);
	keep_pending(b, attempt, attempt->end == ATTEMPT_NOT_SENT);
}

/* What was said behind the deadline, or of a commit that its standby has not confirmed, see the engine. */
static void judge_late(struct conn *conn, struct pipe_answer *answer)
{
	if (!conn->late && !(answer->unreplicated && answer->attempt.end == ATTEMPT_OK))
		return;
	conn->unreplicated = answer->unreplicated;
	dbha__attempt_judge_late(conn, &answer->attempt);
	conn->unreplicated = false;
}

static void take_each(void *arg, int i, struct pipe_answer *answer)
{
	struct batch *b = arg;
	struct volley_item *item = &b->items[i];
	struct attempt *attempt = &answer->attempt;
	if (answer->mended && !item->unprepared && !b->volley.conn->late) {
		PQclear(attempt->result);
		item->waits = item->unprepared = b->mended = true;
		return;
	}
	judge_late(b->volley.conn, answer);
	if (b->answers++ > 0)
		dbha__judge_count(&b->st->call, attempt);
	if (attempt->end == ATTEMPT_OK) {
		put_result(b, i, attempt->result);
		put_code(b, i, DBHA_OK);
	} else {
		take_failure(b, i, attempt);
	}
}

static bool any_waits(const struct batch *b)
{
	for (int i = 0; i < b->rq->n; i++)
		if (b->items[i].waits)
			return true;
	return false;
}

/*
 * The attempt of all of them: done, where each has its end; else that of one that has not. What the others ended with is said in their
 * own codes.
 */
static void fire_each(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	struct batch *b = st->batch;
	b->volley.take = take_each;
	b->has_pending = false;
	b->answers = 0;
	do {
		b->mended = false;
		dbha__volley_run(&b->volley, conn, st->call.deadline, attempt);
	} while (b->mended && attempt->end == ATTEMPT_OK && dbha__conn_state(conn) == CONN_IDLE);
	if (!any_waits(b)) {
		bool in_doubt = attempt->in_doubt;
		dbha__attempt_begin(attempt);
		attempt->in_doubt = in_doubt;
		return;
	}
	bool not_begun = true;
	/* Out of time is out of time; else one that was sent says more than those that were not. */
	if (b->has_pending && attempt->end != ATTEMPT_TIMEOUT) {
		bool in_doubt = attempt->in_doubt;
		not_begun = b->pending_not_begun;
		*attempt = b->pending;
		attempt->in_doubt = in_doubt;
	}
	st->undone = not_begun;
	if (attempt->end == ATTEMPT_OK) {
		/* The connection is not as it should be, although nothing was heard of it. */
		attempt->end = ATTEMPT_NOT_SENT;
		snprintf(attempt->message, sizeof attempt->message, "the connection could not be used any more");
	}
	/* It was not sent, but others were. */
	if (attempt->end == ATTEMPT_NOT_SENT && b->answers > 0)
		attempt->end = ATTEMPT_LOST;
}

/* ---- its way ----------------------------------------------------------------------------------------------- */

static void fire(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	struct batch *b = st->batch;
	struct call *call = &st->call;
	b->st = st;
	b->volley = (struct volley){
	    .requests = b->rq->requests,
	    .items = b->items,
	    .n = b->rq->n,
	    .together = !b->rq->each,
	    .unprepared = b->rq->flags & DBHA_UNPREPARED,
	    .position = st->places && !call->on_standby ? &st->seen.at : NULL,
	    .canceled = call->cancel ? &call->cancel->asked : NULL,
	    .arg = b,
	};
	if (b->rq->each)
		fire_each(st, conn, attempt);
	else
		fire_together(st, conn, attempt);
}

void dbha__batch_attach(struct batch *b, struct statement *st)
{
	st->step = fire;
	st->batch = b;
}

/* ---- its end ----------------------------------------------------------------------------------------------- */

static int finish_together(struct batch *b, int code, PGresult *result, const dbha_error *err)
{
	int others = err->code == DBHA_ERR_SERVER ? DBHA_ERR_ROLLED_BACK : code_of(code, err->outcome_unknown);
	if (b->rq->failed)
		*b->rq->failed = b->culprit;
	for (int i = 0; i < b->rq->n; i++) {
		put_result(b, i, NULL);
		put_code(b, i, i == b->culprit ? code_of(code, err->outcome_unknown) : others);
	}
	if (b->culprit >= 0)
		put_result(b, b->culprit, result);
	else
		PQclear(result);
	return code;
}

/* One that was not done, and for which there is no other attempt. */
static int code_of_rest(const struct batch *b, int i, int code)
{
	if (b->items[i].maybe_done)
		return DBHA_ERR_UNKNOWN;
	if (b->items[i].refused && code == DBHA_ERR_SERVER)
		return DBHA_ERR_SERVER;
	return code == DBHA_ERR_UNKNOWN || code == DBHA_ERR_SERVER ? DBHA_ERR_LOST : code;
}

static int finish_each(struct batch *b, int code, dbha_error *err)
{
	int first = b->rq->n;
	for (int i = 0; code != DBHA_OK && i < b->rq->n; i++) {
		if (!b->items[i].waits)
			continue;
		put_code(b, i, code_of_rest(b, i, code));
		first = first < i ? first : i;
	}
	if (b->rq->failed && (b->first < b->rq->n || first < b->rq->n))
		*b->rq->failed = b->first < first ? b->first : first;
	if (b->first > first)
		return code;
	if (b->first < b->rq->n)
		*err = b->first_error;
	/* The statements are over; what was wrong behind them is wrong with what comes next. */
	return b->first < b->rq->n ? err->code : DBHA_OK;
}

int dbha__batch_finish(struct batch *b, int code, PGresult *result, dbha_error *err)
{
	if (b->rq->each) {
		PQclear(result);
		return finish_each(b, code, err);
	}
	if (code == DBHA_OK) {
		PQclear(result);
		return code;
	}
	return finish_together(b, code, result, err);
}

void dbha__batch_note(struct batch *b, int i, int code, PGresult *result, const dbha_error *err)
{
	b->items[i].waits = false;
	put_result(b, i, result);
	put_code(b, i, code == DBHA_OK ? code : code_of(code, err->outcome_unknown));
	if (code == DBHA_OK || i > b->first)
		return;
	b->first = i;
	b->first_error = *err;
	prefix(b, i, &b->first_error);
}

/* ---- dbha_batch -------------------------------------------------------------------------------------------- */

static int run(dbha *h, struct batch *b, PGresult **result, dbha_error *err)
{
	struct statement st;
	struct causal causal = {0};
	dbha__statement_begin(&st, h, &b->as_one, result, err);
	dbha__call_set_deadline(&st.call);
	dbha__batch_classify(b, &st.call);
	st.call.intent = b->as_one.intent;
	if (b->as_one.intent != DBHA_READ && h->config.options.verify_commit)
		return dbha__batch_verified(h, b, st.call.deadline, result, err);
	if (b->as_one.consistency)
		st.call.consistency = b->as_one.consistency;
	if (b->as_one.token && b->as_one.token[0]) {
		int code = dbha__consistency_token(h, b->what, b->as_one.token, &causal, err);
		if (code != DBHA_OK)
			return code;
		st.call.causal = st.call.consistency == DBHA_CONSISTENCY_SESSION ? &causal : NULL;
	}
	dbha__batch_attach(b, &st);
	return dbha__statement_run(&st);
}

int dbha_batch(dbha *h, const dbha_batch_request *rq, dbha_error *err)
{
	dbha_error unwanted;
	struct batch b;
	PGresult *result = NULL;
	if (!err)
		err = &unwanted;
	int code = dbha__batch_init(&b, "dbha_batch", rq, err);
	if (code != DBHA_OK)
		return code;
	int entered = code = dbha__life_enter(h, err);
	if (code == DBHA_OK)
		code = dbha__consistency_check(h, "dbha_batch", rq->consistency, err);
	if (code == DBHA_OK && rq->n > 0)
		code = run(h, &b, &result, err);
	code = dbha__batch_finish(&b, code, result, err);
	if (entered == DBHA_OK)
		dbha__life_leave(h);
	dbha__batch_fini(&b);
	return code;
}
