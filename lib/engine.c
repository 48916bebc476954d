/*
 * engine: dbha_engine_open, dbha_submit and the other public calls of an engine, and the thread that waits and steps, where it is wanted.
 */
#include "engine.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "clock.h"
#include "consistency.h"
#include "error.h"
#include "explain.h"
#include "fork.h"
#include "statement.h"
#include "thread.h"

#define CONNECTIONS   4
#define DEPTH         64
#define DEPTH_MAX     4096
#define QUEUE         1024
#define QUEUE_MAX     10000000
/* How often stopping looks whether all is done. */
#define DRAIN_LOOK_US ((int64_t)10000)
/* How long stopping waits for the last step of another thread. */
#define STOP_US       ((int64_t)5000000)

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static int take_option(const char *name, int value, int otherwise, int most, int *out, dbha_error *err)
{
	if (value < 0 || value > most)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_engine_open: %s is %d: 1 to %d, or 0 for %d", name, value, most,
		                  otherwise);
	*out = value ? value : otherwise;
	return DBHA_OK;
}

static int take_options(dbha_engine *e, const dbha_engine_options *o, dbha_error *err)
{
	static const dbha_engine_options none = {.size = sizeof none};
	o = o ? o : &none;
	if (o->size != sizeof *o)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "dbha_engine_open: options.size is %zu, not %zu: set it to sizeof(dbha_engine_options)",
		                  o->size, sizeof *o);
	int code = take_option("connections", o->connections, CONNECTIONS, ENGINE_LANES_MAX, &e->connections, err);
	if (code == DBHA_OK)
		code = take_option("depth", o->depth, DEPTH, DEPTH_MAX, &e->depth, err);
	if (code == DBHA_OK)
		code = take_option("queue", o->queue, QUEUE, QUEUE_MAX, &e->queue, err);
	if (code == DBHA_OK && o->thread != 0 && o->thread != 1)
		code = dbha__fail(err, DBHA_ERR_USAGE, "dbha_engine_open: thread is %d: 0 or 1", o->thread);
	e->threaded = o->thread;
	return code;
}

static bool open_descriptors(dbha_engine *e)
{
	return dbha__poller_init(&e->poller) == 0 && dbha__wake_init(&e->wake) == 0 && dbha__wake_init(&e->told) == 0 &&
	       dbha__poller_add(&e->poller, e->wake.read_fd, NULL);
}

static bool init_locks(dbha_engine *e)
{
	return dbha__mutex_init(&e->stepping, RANK_ENGINE) == 0 && dbha__mutex_init(&e->lock, RANK_QUEUE) == 0 &&
	       dbha__cond_init(&e->news) == 0 && dbha__verifier_init(&e->verifier);
}

static void free_engine(dbha_engine *e)
{
	dbha__poller_fini(&e->poller);
	dbha__wake_fini(&e->wake);
	dbha__wake_fini(&e->told);
	for (int i = 0; i < MEMO_SIZE; i++)
		free(e->memo[i].sql);
	dbha__request_free_spares(e);
	free(e->heap);
	free(e->nodes);
	free(e);
}

static void *run(void *arg);

static int set_up(dbha_engine *e, dbha_error *err)
{
	e->nodes = calloc((size_t)e->h->n_places, sizeof *e->nodes);
	if (!e->nodes)
		return dbha__no_memory(err);
	for (int i = 0; i < e->h->n_places; i++)
		for (int k = 0; k < ENGINE_LANES_MAX; k++)
			e->nodes[i].lanes[k].node = i;
	if (!open_descriptors(e) || !init_locks(e))
		return dbha__fail(err, DBHA_ERR_SYSTEM, "no descriptor for an engine: %s", strerror(errno));
	int rc = e->threaded ? dbha__thread_start(&e->thread, run, e) : 0;
	if (rc)
		return dbha__fail(err, DBHA_ERR_SYSTEM, "the engine's thread could not be started: %s", strerror(rc));
	e->running = e->threaded;
	return DBHA_OK;
}

dbha_engine *dbha_engine_open(dbha *h, const dbha_engine_options *options, dbha_error *err)
{
	if (dbha__life_enter(h, err) != DBHA_OK)
		return NULL;
	dbha_engine *e = calloc(1, sizeof *e);
	int code = e ? DBHA_OK : dbha__no_memory(err);
	if (e) {
		e->h = h;
		e->verifies = h->config.options.verify_commit;
		e->fork_generation = dbha__fork_generation();
		e->poller = POLLER_CLOSED;
		e->wake.read_fd = e->wake.write_fd = e->told.read_fd = e->told.write_fd = -1;
		code = take_options(e, options, err);
	}
	if (code == DBHA_OK)
		code = set_up(e, err);
	if (code != DBHA_OK) {
		if (e)
			free_engine(e);
		dbha__life_leave(h);
		return NULL;
	}
	e->watcher.wake = &e->wake;
	dbha__view_watch(&h->view, &e->watcher);
	atomic_fetch_add(&h->kept, 1); /* closing tells it, and does not wait for it */
	atomic_fetch_add(&h->piped_most, h->n_places * e->connections * e->depth);
	dbha__wake_signal(&e->wake);
	return e;
}

/* ---- what every call begins with --------------------------------------------------------------------------------- */

static int enter(const dbha_engine *e, const char *what, dbha_error *err)
{
	if (!e)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: the engine is NULL", what);
	if (e->fork_generation != dbha__fork_generation())
		return dbha__fail(err, DBHA_ERR_FORKED,
		                  "%s: the engine was opened before fork() and is the parent's: open another one", what);
	return DBHA_OK;
}

/* ---- submitting -------------------------------------------------------------------------------------------------- */

/* Threads are numbered as they come; so the first 64 are each a group of their own. */
static unsigned char own_group(void)
{
	static _Atomic unsigned n_threads;
	static _Thread_local unsigned number; /* 0: none yet */
	if (!number)
		number = 1 + atomic_fetch_add_explicit(&n_threads, 1, memory_order_relaxed);
	return (unsigned char)(number % GROUPS);
}

static int check(dbha_engine *e, const dbha_request *rq, dbha_error *err)
{
	PGresult *unused;
	int code = dbha__statement_check("dbha_submit", rq, &unused, err);
	if (code != DBHA_OK)
		return code;
	if (rq->route)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_submit: request.route is of no use: it comes with the completion");
	if (rq->flags & (DBHA_PIN | DBHA_SERVER_TIMEOUT))
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_submit: DBHA_PIN and DBHA_SERVER_TIMEOUT are not for an engine");
	return dbha__consistency_check(e->h, "dbha_submit", rq->consistency, err);
}

static int hand_over(dbha_engine *e, const char *what, struct request *request, dbha_error *err)
{
	dbha__mutex_lock(&e->lock);
	bool closed = e->closed;
	bool first = !e->submitted.first;
	if (!closed) {
		dbha__request_append(&e->submitted, request);
		e->live++;
	}
	dbha__mutex_unlock(&e->lock);
	if (closed)
		return dbha__fail(err, DBHA_ERR_CLOSED, "%s: the engine is stopped", what);
	if (first)
		dbha__wake_signal(&e->wake);
	return DBHA_OK;
}

/* The catalog is read by the engine, as one more request. */
static void submit_fetch(dbha_engine *e)
{
	dbha_error err;
	struct request *fetch = dbha__fresh_fetch_new(e);
	if (!fetch)
		return;
	fetch->group = own_group();
	atomic_fetch_add(&e->waiting, 1);
	if (hand_over(e, "dbha_submit", fetch, &err) == DBHA_OK)
		return;
	atomic_fetch_sub(&e->waiting, 1);
	fetch->code = err.code;
	dbha__fresh_fetch_end(e, fetch);
}

static int refuse_full(dbha_engine *e, const char *what, dbha_error *err)
{
	atomic_fetch_sub(&e->waiting, 1);
	dbha__fail(err, DBHA_ERR_POOL,
	           "%s: the queue is full: %d requests have not been sent, or their completions not fetched", what,
	           e->queue);
	if (err)
		err->retry_safe = true;
	return DBHA_ERR_POOL;
}

/* It counts already. request: NULL: `own` says why. */
static int submit(dbha_engine *e, const char *what, struct request *request, dbha_error *own, dbha_error *err)
{
	int code = request ? DBHA_OK : own->code;
	if (request) {
		if (request->claimed)
			submit_fetch(e);
		request->group = own_group();
		code = hand_over(e, what, request, own);
	}
	if (code == DBHA_OK)
		return DBHA_OK;
	dbha__request_free(e, request);
	atomic_fetch_sub(&e->waiting, 1);
	own->retry_safe = true;
	if (err)
		*err = *own;
	return code;
}

int dbha_submit(dbha_engine *e, const dbha_request *rq, uint64_t tag, dbha_error *err)
{
	int code = enter(e, "dbha_submit", err);
	if (code == DBHA_OK)
		code = check(e, rq, err);
	if (code != DBHA_OK)
		return code;
	if (atomic_fetch_add(&e->waiting, 1) >= e->queue)
		return refuse_full(e, "dbha_submit", err);
	dbha_error own;
	return submit(e, "dbha_submit", dbha__request_new(e, rq, tag, &own), &own, err);
}

static int check_batch(dbha_engine *e, const dbha_batch_request *rq, dbha_error *err)
{
	static const char what[] = "dbha_submit_batch";
	int code = dbha__batch_check(what, rq, DBHA_IDEMPOTENT | DBHA_UNPREPARED | DBHA_TOKEN, err);
	if (code != DBHA_OK)
		return code;
	if (rq->n == 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: batch.n is 0: there is nothing to do", what);
	if (rq->each)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: batch.each is 1: hand each of them to dbha_submit, which completes each by itself",
		                  what);
	if (rq->results || rq->codes || rq->failed || rq->route)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: batch.results, codes, failed and route are of no use: they come with the completion",
		                  what);
	return dbha__consistency_check(e->h, what, rq->consistency, err);
}

/* What its commit came to, where the answer to that is lost, would have to be asked for. */
static struct request *refuse_unverified(dbha_engine *e, struct request *request, dbha_error *own)
{
	if (!request || !e->verifies || request->call.intent == DBHA_READ)
		return request;
	dbha__fail(own, DBHA_ERR_CONFIG,
	           "dbha_submit_batch: with verify_commit=on a batch that writes is not for an engine: use dbha_batch, or "
	           "dbha_submit for each of them");
	if (request->claimed)
		submit_fetch(e);
	dbha__request_free(e, request);
	return NULL;
}

int dbha_submit_batch(dbha_engine *e, const dbha_batch_request *rq, uint64_t tag, dbha_error *err)
{
	static const char what[] = "dbha_submit_batch";
	int code = enter(e, what, err);
	if (code == DBHA_OK)
		code = check_batch(e, rq, err);
	if (code != DBHA_OK)
		return code;
	if (atomic_fetch_add(&e->waiting, 1) >= e->queue)
		return refuse_full(e, what, err);
	dbha_error own;
	struct request *request = dbha__request_new_batch(e, rq, tag, &own);
	return submit(e, what, refuse_unverified(e, request, &own), &own, err);
}

/* ---- stepping ---------------------------------------------------------------------------------------------------- */

/*
 * What a step has left, because more has come than it takes in at one time, leaves the descriptor readable: an application that watches for
 * edges would not be told of it again. A signal of our own is an edge. Whoever waits in our own calls looks at the level.
 */
static void tell_what_is_left(dbha_engine *e)
{
	bool possible = e->poller.full;
	for (int i = 0; i < e->h->n_places && !possible; i++)
		for (int k = 0; k < e->connections && !possible; k++)
			possible = dbha__lane_may_have_left(&e->nodes[i].lanes[k]);
	if (possible && dbha__poller_is_ready(&e->poller))
		dbha__wake_signal(&e->wake);
}

/*
 * The timer may go off too early, and then a step finds nothing to do and sets it anew: so it is not set back for every request that is
 * done before its deadline. What has gone off stays readable until it is set.
 */
static int64_t step(dbha_engine *e)
{
	dbha__mutex_lock(&e->stepping);
	int64_t wake = dbha__engine_step(e);
	/* At once: a fifth of the price of the timer. */
	if (wake <= e->now)
		dbha__wake_signal(&e->wake);
	else if (wake < e->poller.armed_us || e->poller.armed_us <= e->now)
		dbha__poller_arm(&e->poller, wake);
	if (atomic_load_explicit(&e->watched, memory_order_relaxed))
		tell_what_is_left(e);
	dbha__mutex_unlock(&e->stepping);
	return wake;
}

int dbha_engine_step(dbha_engine *e, int64_t *wait_us, dbha_error *err)
{
	int code = enter(e, "dbha_engine_step", err);
	if (code != DBHA_OK)
		return code;
	if (e->threaded)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_engine_step: this engine has a thread that does it");
	int64_t wake = step(e);
	int64_t now = dbha__clock_now();
	if (wait_us)
		*wait_us = wake == CLOCK_NEVER ? -1 : wake > now ? wake - now : 0;
	return DBHA_OK;
}

/* Until there is something to do. The timer is in the descriptor. */
static void wait_for_work(const dbha_engine *e, int64_t deadline)
{
	struct pollfd item = {.fd = e->poller.fd, .events = POLLIN};
	poll(&item, 1, dbha__clock_poll_ms(dbha__clock_now(), deadline));
}

static void *run(void *arg)
{
	dbha_engine *e = arg;
	while (!atomic_load_explicit(&e->stop, memory_order_acquire)) {
		wait_for_work(e, CLOCK_NEVER);
		step(e);
	}
	return NULL;
}

int dbha_engine_fd(dbha_engine *e, dbha_error *err)
{
	if (enter(e, "dbha_engine_fd", err) != DBHA_OK)
		return -1;
	atomic_store_explicit(&e->watched, !e->threaded, memory_order_relaxed);
	return e->threaded ? e->told.read_fd : e->poller.fd;
}

int dbha_submit_cancel(dbha_engine *e, uint64_t tag, dbha_error *err)
{
	int code = enter(e, "dbha_submit_cancel", err);
	if (code != DBHA_OK)
		return code;
	dbha__mutex_lock(&e->stepping);
	bool found = dbha__engine_cancel(e, tag);
	dbha__mutex_unlock(&e->stepping);
	if (!found)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_submit_cancel: nothing with the tag %llu is under way",
		                  (unsigned long long)tag);
	/* Without a thread the application learns of the completion by its descriptor. */
	dbha__wake_signal(&e->wake);
	return DBHA_OK;
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

static struct request *take_completed(dbha_engine *e)
{
	dbha__mutex_lock(&e->lock);
	struct request *request = e->completed.first;
	if (request)
		dbha__request_remove(&e->completed, request);
	bool emptied = !e->completed.first;
	/* Under the lock: behind it somebody may have told of the next one. */
	if (emptied && (e->threaded || e->told_set))
		dbha__wake_drain(&e->told);
	e->told_set = e->told_set && !emptied;
	dbha__mutex_unlock(&e->lock);
	if (request)
		atomic_fetch_sub(&e->waiting, 1);
	return request;
}

static void explain(const struct request *request, dbha_result_route *out)
{
	dbha__explain(&request->call, &request->classified, request->call.reason, out);
	if (request->code != DBHA_OK || !(request->rq.flags & DBHA_TOKEN))
		return;
	if (request->no_token)
		dbha__explain_no_token(out, request->no_token);
	else
		dbha__token_print(&request->causal.floor, out->token);
}

static void give_results(struct request *request, dbha_completion *out)
{
	struct bundle *b = request->bundle;
	out->results = NULL;
	out->n_results = 0;
	out->failed = b && request->code != DBHA_OK ? b->culprit : -1;
	if (!b || request->code != DBHA_OK)
		return;
	out->results = b->results;
	out->n_results = b->n;
	b->results = NULL;
}

static void give(dbha_engine *e, struct request *request, dbha_completion *out)
{
	out->tag = request->tag;
	out->code = request->code;
	out->result = request->result;
	request->result = NULL;
	/* Of the texts their first byte: they are a thousand, for every completion. */
	dbha_error *error = &out->error;
	error->code = error->attempts = 0;
	error->retry_safe = error->outcome_unknown = false;
	error->sqlstate[0] = error->node[0] = error->message[0] = '\0';
	if (request->error) {
		*error = *request->error;
	} else if (request->code != DBHA_OK) {
		dbha__fail(&out->error, request->code, "there is no memory for the message");
		out->error.retry_safe = request->retry_safe;
		out->error.outcome_unknown = request->outcome_unknown;
	}
	explain(request, &out->route);
	give_results(request, out);
	dbha__request_free(e, request);
}

void dbha_completion_clear(dbha_completion *completion)
{
	if (!completion)
		return;
	for (int i = 0; i < completion->n_results; i++)
		PQclear(completion->results[i]);
	free(completion->results);
	PQclear(completion->result);
	completion->result = NULL;
	completion->results = NULL;
	completion->n_results = 0;
}

/* Whether there is one; else it is told of the next. change: 1, and -1 when it does not wait any more. */
static bool expect_one(dbha_engine *e, int change)
{
	dbha__mutex_lock(&e->lock);
	e->expecting += change;
	bool there = e->completed.first;
	dbha__mutex_unlock(&e->lock);
	return there;
}

/* For one, or for something to do: another thread may step as well, and it may be that one which takes the answer. */
static void wait_for_either(dbha_engine *e, int64_t deadline)
{
	struct pollfd items[] = {{.fd = e->poller.fd, .events = POLLIN}, {.fd = e->told.read_fd, .events = POLLIN}};
	if (!expect_one(e, 1))
		poll(items, 2, dbha__clock_poll_ms(dbha__clock_now(), deadline));
	expect_one(e, -1);
}

static void await_completion(dbha_engine *e, int64_t deadline)
{
	if (!e->threaded) {
		step(e);
		wait_for_either(e, deadline);
		return;
	}
	dbha__mutex_lock(&e->lock);
	if (!e->completed.first)
		dbha__cond_wait(&e->news, &e->lock, deadline);
	dbha__mutex_unlock(&e->lock);
}

int dbha_next_completion(dbha_engine *e, dbha_completion *out, int timeout_ms, dbha_error *err)
{
	if (enter(e, "dbha_next_completion", err) != DBHA_OK)
		return -1;
	if (!out || out->size != sizeof *out || timeout_ms < 0) {
		dbha__fail(err, DBHA_ERR_USAGE,
		           "dbha_next_completion: the completion must not be NULL, its size must be set, the timeout 0 ms or "
		           "more");
		return -1;
	}
	int64_t deadline = timeout_ms > 0 ? dbha__clock_now() + ms_to_us(timeout_ms) : 0;
	struct request *request;
	while (!(request = take_completed(e))) {
		if (timeout_ms == 0 || dbha__clock_now() >= deadline)
			return 0;
		await_completion(e, deadline);
	}
	give(e, request, out);
	return 1;
}

/* ---- the end ----------------------------------------------------------------------------------------------------- */

static int count_live(dbha_engine *e)
{
	dbha__mutex_lock(&e->lock);
	int live = e->live;
	dbha__mutex_unlock(&e->lock);
	return live;
}

/* Until nothing is under way any more. */
static void drain(dbha_engine *e, int64_t deadline)
{
	while (count_live(e) > 0 && dbha__clock_now() < deadline) {
		if (!e->threaded) {
			/* Another thread may step as well, and take what would have ended the wait. */
			int64_t look = dbha__clock_now() + DRAIN_LOOK_US;
			step(e);
			if (count_live(e) > 0)
				wait_for_work(e, look < deadline ? look : deadline);
			continue;
		}
		dbha__mutex_lock(&e->lock);
		if (e->live > 0)
			dbha__cond_wait(&e->news, &e->lock, deadline);
		dbha__mutex_unlock(&e->lock);
	}
}

static void stop_thread(dbha_engine *e)
{
	if (!e->running)
		return;
	atomic_store_explicit(&e->stop, true, memory_order_release);
	dbha__wake_signal(&e->wake);
	pthread_join(e->thread, NULL);
	e->running = false;
}

static void let_go(dbha_engine *e)
{
	dbha__mutex_lock(&e->stepping);
	for (int i = 0; i < e->h->n_places; i++)
		for (int k = 0; k < e->connections; k++)
			dbha__lane_give_back(e, &e->nodes[i].lanes[k]);
	dbha__mutex_unlock(&e->stepping);
}

void dbha_engine_stop(dbha_engine *e, int drain_ms)
{
	if (!e || e->fork_generation != dbha__fork_generation() || e->stopped)
		return;
	dbha__mutex_lock(&e->lock);
	e->closed = true;
	dbha__mutex_unlock(&e->lock);
	if (drain_ms > 0)
		drain(e, dbha__clock_now() + ms_to_us(drain_ms));
	dbha__mutex_lock(&e->lock);
	e->abort = true;
	dbha__mutex_unlock(&e->lock);
	dbha__wake_signal(&e->wake);
	drain(e, dbha__clock_now() + STOP_US);
	dbha__verifier_stop(e);
	stop_thread(e);
	step(e); /* what the verifier has said last */
	let_go(e);
	e->stopped = true;
}

void dbha_engine_close(dbha_engine *e)
{
	if (!e)
		return;
	/* In a child everything else may be in the middle of a step that nobody will end. */
	if (e->fork_generation != dbha__fork_generation()) {
		if (e->watcher.watching)
			dbha__life_follow_fork(e->h);
		dbha__poller_fini(&e->poller);
		dbha__wake_fini(&e->wake);
		dbha__wake_fini(&e->told);
		return;
	}
	dbha_engine_stop(e, 0);
	struct request *request;
	while ((request = take_completed(e)))
		dbha__request_free(e, request);
	dbha__view_unwatch(&e->h->view, &e->watcher);
	atomic_fetch_sub(&e->h->piped_most, e->h->n_places * e->connections * e->depth);
	atomic_fetch_sub(&e->h->kept, 1);
	dbha__life_leave(e->h);
	dbha__verifier_fini(&e->verifier);
	dbha__cond_fini(&e->news);
	dbha__mutex_fini(&e->lock);
	dbha__mutex_fini(&e->stepping);
	free_engine(e);
}
