/*
 * engine_verify: verify_commit=on for the writes of an engine. The commit of such a write is sent when the mark of its transaction is here; where
 * the answer to that is lost, a thread asks the cluster what became of it, by the rules of docs/outcome.md.
 *
 * The thread begins with the first lost COMMIT, since most engines never see one. It asks for those that are lost at one time by turns: one
 * whose old session does not end must not use up the time of the others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "engine.h"
#include "error.h"
#include "thread.h"
#include "verb.h"

/*
 * How long one of them has its turn, while there is nothing to ask, and how long a question may take. Stopping the engine waits for that, and a
 * turn can have three of them.
 */
#define TURN_US ((int64_t)100000)
#define ASK_US  ((int64_t)1000000)

/* ---- before the commit ----------------------------------------------------------------------------------------- */

bool dbha__verify_begin(struct request *request, unsigned *how)
{
	struct verify *verify = request->verify ? request->verify : malloc(sizeof *verify);
	if (!verify)
		return false;
	if (request->verify)
		PQclear(verify->hold.result);
	memset(verify, 0, sizeof *verify);
	request->verify = verify;
	*how |= PIPE_HELD;
	if (!atomic_load_explicit(&request->call.h->marks_refused, memory_order_relaxed))
		*how |= PIPE_ASK;
	return true;
}

void dbha__verify_free(struct request *request)
{
	if (request->verify)
		PQclear(request->verify->hold.result);
	free(request->verify);
	request->verify = NULL;
}

bool dbha__verify_is_committing(const struct request *request)
{
	return request->verify && request->verify->hold.committing;
}

/* What it may have written cannot be told from its mark. */
static bool is_unmarked(const struct request *request)
{
	return atomic_load_explicit(&request->call.h->marks_refused, memory_order_relaxed);
}

bool dbha__verify_is_unmarked(const struct request *request)
{
	if (!request->verify || !request->verify->hold.mark_refused)
		return false;
	atomic_store(&request->call.h->marks_refused, true);
	return true;
}

void dbha__verify_commit(struct request *request, struct pipe *pipe)
{
	struct verify *verify = request->verify;
	dbha *h = request->call.h;
	const char *table = h->config.options.outcome_table;
	const char *values[] = {verify->token};
	char sql[OUTCOME_SQL_MAX];
	const dbha_request row = {.size = sizeof row, .sql = sql, .n_params = 1, .values = values};
	dbha__verify_is_unmarked(request);
	if (!table || !(verify->hold.mark.xid || is_unmarked(request))) {
		dbha__pipe_commit(pipe, NULL);
		return;
	}
	dbha__outcome_token(dbha__life_random(h), dbha__life_random(h), verify->token);
	dbha__outcome_table_insert(table, sql);
	dbha__pipe_commit(pipe, &row);
}

/* ---- the thread ------------------------------------------------------------------------------------------------ */

/* One turn. False: there is no answer yet. */
static bool ask(dbha_engine *e, struct verify *verify)
{
	struct resolve *what = &verify->what;
	/* dbha_close waits for it as for a call. */
	atomic_fetch_add_explicit(&e->h->refs, 1, memory_order_relaxed);
	what->until = dbha__clock_now() + TURN_US;
	verify->outcome = dbha__resolve(e->h, what, verify->why, sizeof verify->why, verify->node);
	dbha__life_leave(e->h);
	return verify->outcome != OUTCOME_LATER;
}

static struct request *next_lost(dbha_engine *e) REQUIRES(e->lock)
{
	struct verifier *v = &e->verifier;
	while (!v->lost.first && !v->stop)
		dbha__cond_wait(&v->wanted, &e->lock, CLOCK_NEVER);
	struct request *request = v->lost.first;
	if (request)
		dbha__request_remove(&v->lost, request);
	return request;
}

static void *run(void *arg)
{
	dbha_engine *e = arg;
	struct verifier *v = &e->verifier;
	struct request *request;
	dbha__mutex_lock(&e->lock);
	while ((request = next_lost(e))) {
		dbha__mutex_unlock(&e->lock);
		bool known = ask(e, request->verify);
		dbha__mutex_lock(&e->lock);
		dbha__request_append(known ? &v->found : &v->lost, request);
		if (known)
			dbha__wake_signal(&e->wake);
	}
	dbha__mutex_unlock(&e->lock);
	return NULL;
}

static bool start(dbha_engine *e)
{
	struct verifier *v = &e->verifier;
	if (!v->running)
		v->running = dbha__thread_start(&v->thread, run, e) == 0;
	return v->running;
}

bool dbha__verifier_init(struct verifier *v)
{
	return dbha__mutex_init(&v->cancel.lock, RANK_SESSION) == 0 && dbha__cond_init(&v->wanted) == 0;
}

void dbha__verifier_fini(struct verifier *v)
{
	dbha__cond_fini(&v->wanted);
	dbha__mutex_fini(&v->cancel.lock);
}

void dbha__verifier_cut(struct verifier *v)
{
	atomic_store_explicit(&v->cancel.asked, true, memory_order_relaxed);
}

void dbha__verifier_stop(dbha_engine *e)
{
	struct verifier *v = &e->verifier;
	dbha__verifier_cut(v);
	dbha__mutex_lock(&e->lock);
	v->stop = true;
	dbha__cond_signal(&v->wanted);
	dbha__mutex_unlock(&e->lock);
	if (v->running)
		pthread_join(v->thread, NULL);
	v->running = false;
}

/* ---- behind a lost one ------------------------------------------------------------------------------------------ */

static bool know(struct verify *verify, enum outcome outcome, const char *why)
{
	verify->outcome = outcome;
	snprintf(verify->why, sizeof verify->why, "%s", why);
	return true;
}

/* NOTIFY takes effect at the commit, and leaves no mark. */
static bool may_notify(const struct request *request)
{
	return dbha__verb_has_word(request->rq.sql, "pg_notify");
}

bool dbha__verify_lost(dbha_engine *e, struct request *request)
{
	struct verify *verify = request->verify;
	if (!verify->hold.mark.xid && !is_unmarked(request) && !may_notify(request))
		return know(verify, OUTCOME_ABORTED, "its connection was lost during COMMIT; it had written nothing");
	if (e->aborting)
		return know(verify, OUTCOME_UNKNOWN, "the engine was stopped before that could be asked");
	verify->what = (struct resolve){
	    .mark = &verify->hold.mark,
	    .deadline = request->call.deadline,
	    .token = verify->token[0] ? verify->token : NULL,
	    .ask_us = ASK_US,
	    .cancel = &e->verifier.cancel,
	};
	/* Then it does not wait, and says where to look for it. */
	if (e->now >= request->call.deadline) {
		ask(e, verify);
		return true;
	}
	if (!start(e))
		return know(verify, OUTCOME_UNKNOWN, "there is no thread to ask with");
	dbha__mutex_lock(&e->lock);
	dbha__request_append(&e->verifier.lost, request);
	dbha__cond_signal(&e->verifier.wanted);
	dbha__mutex_unlock(&e->lock);
	return false;
}

struct request *dbha__verify_found(dbha_engine *e)
{
	dbha__mutex_lock(&e->lock);
	struct request *request = e->verifier.found.first;
	e->verifier.found = (struct request_list){NULL, NULL};
	dbha__mutex_unlock(&e->lock);
	return request;
}

int dbha__verify_report(struct request *request, dbha_error *err)
{
	struct verify *verify = request->verify;
	struct call *call = &request->call;
	dbha *h = call->h;
	if (verify->outcome != OUTCOME_UNKNOWN)
		STATS_ADD(&h->handle_stats, commits_resolved, 1);
	if (verify->outcome == OUTCOME_COMMITTED) {
		STATS_ADD(&h->handle_stats, transactions, 1);
		request->result = verify->hold.result;
		verify->hold.result = NULL;
		return DBHA_OK;
	}
	if (verify->outcome == OUTCOME_ABORTED) {
		STATS_ADD(&h->handle_stats, transactions_rolled_back, 1);
		dbha__fail(err, DBHA_ERR_LOST, "the transaction is rolled back: %s", verify->why);
		snprintf(err->node, sizeof err->node, "%s", call->last_name);
		err->retry_safe = !call->maybe_done;
		err->outcome_unknown = call->maybe_done;
	} else {
		dbha__resolve_fail(h, verify->why, call->last_name, err);
	}
	err->attempts = call->sent;
	return err->code;
}
