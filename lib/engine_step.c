/*
 * engine_step: one step of an engine: what has come, what is due, what can be sent. It never waits. And the end of an engine, and cancels.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call_fail.h"
#include "clock.h"
#include "engine.h"
#include "error.h"
#include "wait.h"

/* monitor=off: how often the cluster is looked at while there is something to do. */
#define TURN_US  ((int64_t)5000)
/* How soon those who are ready look again, where there is nothing to wait for. */
#define READY_US ((int64_t)500)
#define EVENTS   64
/*
 * When so many answers have been taken in one step, the connections that are left have to wait for the next: what takes their place is sent
 * first, while the servers are at the rest. All at once would have the servers wait for the client and the client for the servers, in turns.
 */
#define ANSWERS  64

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
	dbha__engine_fail_unsent(e, request, &err);
}

/* Its answer does not matter any more. */
static void give_up(dbha_engine *e, struct request *request)
{
	struct attempt attempt;
	struct lane *lane = request->lane;
	dbha__pipe_disown(&lane->pipe, request);
	dbha__engine_leave(e, lane, request);
	/* What is not committed there must not be by what is sent next; what is being committed would be met by it. */
	lane->closing = lane->closing || request->verify || request->bundle;
	dbha__attempt_begin(&attempt);
	dbha__attempt_timed_out(&attempt);
	attempt.prepared_only = request->asks_first;
	dbha__engine_follow(e, NULL, request, &attempt);
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
	if (dbha__engine_may_abandon(lane)) {
		dbha__engine_abandon(e, lane);
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
		dbha__engine_complete_placed(e, request);
		return;
	}
	if (request->state == REQUEST_SENT) {
		out_of_time_sent(e, request);
		return;
	}
	if (request->state == REQUEST_PARKED && (request->refused || !over)) {
		dbha__engine_take_out(e, request);
		if (request->refused)
			dbha__engine_look_again(e, request);
		else
			dbha__engine_make_ready(e, request, false);
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
			dbha__engine_look_again(e, request);
		else
			dbha__engine_make_ready(e, request, false);
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
			dbha__engine_make_ready(e, request, false);
			continue;
		}
		dbha_error err;
		dbha__no_memory(&err);
		err.retry_safe = true;
		dbha__engine_complete(e, request, DBHA_ERR_MEMORY, &err);
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

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void fail_closed(dbha_engine *e, struct request *request)
{
	dbha_error err;
	dbha__fail(&err, DBHA_ERR_CLOSED, "the engine was stopped before it was sent");
	dbha__engine_fail_unsent(e, request, &err);
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
		dbha__engine_take_answers(e, lane);
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
		dbha__engine_take_out(e, request);
		dbha__engine_look_again(e, request);
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
				dbha__engine_end_batch(e, lane);
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
			dbha__engine_take_answers(e, lane);
			dbha__engine_stop_canceled(e, lane);
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
	dbha__engine_take_found(e);
	follow_view(e);
	ring_alarms(e);
	if (e->aborting)
		abort_all(e);
	else if (atomic_load_explicit(&e->h->closed, memory_order_acquire))
		fail_all_unsent(e);
	dbha__engine_send(e);
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
		dbha__engine_complete_placed(e, request);
		return true;
	}
	dbha_error err;
	struct refused *refused = request->refused;
	request->refused = NULL;
	if (refused)
		PQclear(refused->attempt.result);
	free(refused);
	dbha__fail(&err, DBHA_ERR_CANCELED, "canceled before it was sent");
	dbha__engine_fail_unsent(e, request, &err);
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
			dbha__engine_stop_canceled(e, lane);
		}
		publish(e);
		return true;
	}
	return false;
}
