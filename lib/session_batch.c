/*
 * session_batch: a batch in a session: in its transaction, on the connection that it is pinned to, or on its own. It goes the way of a
 * statement of the session (session_exec.c), which carries the batch where a statement carries a text.
 */
#include <string.h>

#include "batch.h"
#include "clock.h"
#include "error.h"
#include "session.h"

/* Within a deadline, of which something may have been spent already. */
static int64_t put_cap(dbha_session *s, int64_t deadline)
{
	int64_t cap = s->deadline_cap;
	s->deadline_cap = cap && cap < deadline ? cap : deadline;
	return cap;
}

/* Each a transaction of its own that can be asked for: then none can travel with another. */
static int run_each_verified(dbha_session *s, struct batch *b, dbha_error *err)
{
	const dbha_batch_request *rq = b->rq;
	for (int i = 0; i < rq->n; i++) {
		dbha_error own = {.code = DBHA_OK};
		PGresult *result = NULL;
		dbha_request one = rq->requests[i];
		one.intent = b->as_one.intent;
		one.flags |= rq->flags;
		one.timeout_ms = rq->timeout_ms;
		if (dbha__clock_now() >= s->deadline_cap)
			return dbha__fail(err, DBHA_ERR_TIMEOUT, "%s: the deadline passed before it was sent", b->what);
		if (atomic_load_explicit(&s->cancel.asked, memory_order_relaxed))
			return dbha__fail(err, DBHA_ERR_CANCELED, "%s: canceled before it was sent", b->what);
		int code = dbha__verified_run(s, &one, &result, &own);
		dbha__batch_note(b, i, code, result, &own);
	}
	return DBHA_OK;
}

static int run_verified(dbha_session *s, struct batch *b, PGresult **result, dbha_error *err)
{
	if (b->rq->each)
		return run_each_verified(s, b, err);
	s->batch = b;
	int code = dbha__verified_run(s, &b->as_one, result, err);
	s->batch = NULL;
	return code;
}

int dbha__batch_verified(dbha *h, struct batch *b, int64_t deadline, PGresult **result, dbha_error *err)
{
	dbha_session s;
	int code = dbha__session_init(&s, h, err);
	if (code != DBHA_OK)
		return code;
	s.deadline_cap = deadline;
	code = run_verified(&s, b, result, err);
	dbha__session_fini(&s);
	return code;
}

/* In a transaction: what takes effect at its COMMIT is in any of the texts. */
static void note_all(dbha_session *s, const dbha_batch_request *rq)
{
	for (int i = 0; i < rq->n; i++)
		if (i == 0 || rq->requests[i].sql != rq->requests[i - 1].sql)
			dbha__session_note(s, rq->requests[i].sql);
}

static int run_alone(dbha_session *s, struct batch *b, PGresult **result, dbha_error *err)
{
	struct call call;
	dbha__call_begin(&call, s->h, b->as_one.intent, b->as_one.timeout_ms);
	dbha__call_set_deadline(&call);
	int64_t cap = put_cap(s, call.deadline);
	call.deadline = s->deadline_cap;
	dbha__batch_classify(b, &call);
	int code;
	if (b->rq->each && b->as_one.intent != DBHA_READ && s->h->config.options.verify_commit) {
		code = run_each_verified(s, b, err);
	} else {
		s->batch = b;
		code = dbha__session_run(s, &b->as_one, result, err);
		s->batch = NULL;
	}
	s->deadline_cap = cap;
	return code;
}

static int run(dbha_session *s, struct batch *b, PGresult **result, dbha_error *err)
{
	if (s->tx != TX_NONE && b->rq->each)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: batch.each is 1 in a transaction, where nothing is for itself: its end is theirs",
		                  b->what);
	if (s->tx == TX_NONE && !s->slot)
		return run_alone(s, b, result, err);
	if (s->tx == TX_BEGUN || s->tx == TX_OPEN)
		note_all(s, b->rq);
	s->batch = b;
	int code = dbha__session_run(s, &b->as_one, result, err);
	s->batch = NULL;
	return code;
}

int dbha_session_batch(dbha_session *s, const dbha_batch_request *rq, dbha_error *err)
{
	dbha_error unwanted;
	struct batch b;
	PGresult *result = NULL;
	if (!err)
		err = &unwanted;
	int code = dbha__batch_init(&b, "dbha_session_batch", rq, err);
	if (code != DBHA_OK)
		return code;
	code = dbha__session_enter(s, "dbha_session_batch", err);
	int entered = code;
	if (code == DBHA_OK && rq->n > 0)
		code = run(s, &b, &result, err);
	code = dbha__batch_finish(&b, code, result, err);
	if (entered == DBHA_OK)
		code = dbha__session_leave(s, code, err);
	dbha__batch_fini(&b);
	return code;
}
