#include "volley.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "cancel.h"
#include "clock.h"
#include "position.h"
#include "wait.h"

/* What is given to libpq before the answers are looked at again: about what it sends at once. */
#define CHUNK_BYTES 65536
#define CHUNK       128
/*
 * Where each has its own Sync: on their way at one time. More would not be faster, and of these a lost connection leaves the fate
 * unknown.
 */
#define WINDOW      256
/* How often a wait that can be canceled looks whether it was. */
#define CANCEL_US   ((int64_t)20000)
/* How long the answer to the position may take, see flush.c. */
#define ASIDE_US    ((int64_t)200000)

/* ---- sending ----------------------------------------------------------------------------------------------- */

/* Owners that are no statements: each is its own address. */
static void *begin_of(struct volley *v)
{
	return &v->before;
}

static void *mark_of(struct volley *v)
{
	return &v->mark;
}

static void *position_of(struct volley *v)
{
	return &v->position;
}

static bool is_dead(const struct volley *v)
{
	return v->pipe.dead || v->pipe.broken;
}

static bool is_canceled(const struct volley *v)
{
	return v->canceled && atomic_load_explicit(v->canceled, memory_order_relaxed);
}

/* Nothing that is in the transaction may be committed without the rest of it. */
static void break_off(struct volley *v)
{
	v->closed = true;
	v->pipe.dead = true;
	dbha__conn_cut(v->conn);
}

static void fail(struct volley *v, int index, const struct attempt *attempt)
{
	*v->end = *attempt;
	v->failed = index;
}

/* Something of the library's own, in front of or behind the statements. */
static void send_own(struct volley *v, const dbha_request *rq, unsigned how, void *owner)
{
	struct attempt refused;
	if (dbha__pipe_send(&v->pipe, rq, how, owner, &refused))
		return;
	fail(v, -1, &refused);
	break_off(v);
}

static size_t size_of(const dbha_request *rq)
{
	size_t size = 64;
	for (int i = 0; i < rq->n_params; i++) {
		bool binary = rq->formats && rq->formats[i] == 1;
		if (rq->values[i])
			size += binary ? (size_t)rq->lengths[i] : strlen(rq->values[i]);
	}
	return size;
}

static bool has_text(const dbha_request *a, const dbha_request *b)
{
	return a->sql == b->sql || strcmp(a->sql, b->sql) == 0;
}

static unsigned how_to_send(const struct volley *v, int i)
{
	bool unprepared = v->unprepared || v->items[i].unprepared;
	bool returns = i + 1 < v->n && has_text(&v->requests[i], &v->requests[i + 1]);
	return (v->together ? PIPE_OPEN : 0u) | (unprepared ? PIPE_UNPREPARED : 0u) | (returns ? PIPE_RETURNS : 0u);
}

/* libpq does not take it: with others in one transaction that is the end of all. */
static void refused(struct volley *v, int i, struct pipe_answer *answer)
{
	if (!v->together) {
		v->items[i].waits = answer->attempt.end == ATTEMPT_NOT_SENT;
		if (!v->items[i].waits) {
			v->take(v->arg, i, answer);
			return;
		}
		fail(v, -1, &answer->attempt);
		v->closed = true;
		return;
	}
	fail(v, i, &answer->attempt);
	break_off(v);
}

static void send_one(struct volley *v, int i)
{
	struct pipe_answer answer = {.owner = &v->items[i]};
	v->items[i].waits = false;
	v->items[i].on_way = true;
	if (dbha__pipe_send(&v->pipe, &v->requests[i], how_to_send(v, i), &v->items[i], &answer.attempt))
		return;
	v->items[i].on_way = false;
	refused(v, i, &answer);
}

/* The end of the transaction, and what is asked for in it and behind it. */
static void send_end(struct volley *v)
{
	const dbha_request mark = {.size = sizeof mark, .sql = dbha__mark_sql()};
	const dbha_request position = {.size = sizeof position, .sql = dbha__position_sql()};
	bool failed = v->end->end != ATTEMPT_OK;
	v->closed = true;
	if (v->together && v->mark && !failed)
		send_own(v, &mark, PIPE_OPEN, mark_of(v));
	if (v->together && !is_dead(v)) {
		v->synced = true;
		dbha__pipe_sync(&v->pipe);
	}
	/* Where it cannot be asked for, nobody knows it: that is no failure of the statements. */
	struct attempt unwanted;
	if (v->position && !failed && !is_dead(v))
		dbha__pipe_send(&v->pipe, &position, 0, position_of(v), &unwanted);
}

/* Everything but its Sync was sent, and is not answered. */
static bool is_held(const struct volley *v)
{
	return v->flushed && v->pipe.n > 0;
}

static bool has_room(const struct volley *v)
{
	return !v->closed && !is_held(v) && !is_dead(v) && !v->pipe.unsent && (v->together || v->pipe.n < WINDOW);
}

/* Behind the last of them. */
static void send_rest(struct volley *v)
{
	bool holds = v->together && v->holds && v->chunks > 0 && v->pipe.n > 0;
	if (!holds) {
		send_end(v);
		return;
	}
	if (!v->flushed && PQsendFlushRequest(v->conn->pg))
		v->flushed = v->pipe.unsent = true;
	else if (!v->flushed)
		send_end(v);
}

/* As much as goes at once. What cannot leave yet has to, before more is given: so the memory for it is bounded. */
static void feed(struct volley *v)
{
	size_t bytes = 0;
	v->closed = v->closed || (!v->together && is_canceled(v));
	if (v->closed || is_dead(v) || v->pipe.unsent)
		return;
	if (v->before && !v->begun)
		send_own(v, v->before, PIPE_OPEN | PIPE_UNPREPARED, begin_of(v));
	v->begun = true;
	for (int n = 0; n < CHUNK && bytes < CHUNK_BYTES && v->next < v->n; v->next++) {
		if (!v->items[v->next].waits)
			continue;
		if (v->closed || is_dead(v) || (!v->together && v->pipe.n >= WINDOW))
			return;
		bytes += size_of(&v->requests[v->next]);
		n++;
		send_one(v, v->next);
	}
	if (v->next < v->n)
		v->chunks++;
	else if (!v->closed && !is_dead(v))
		send_rest(v);
}

/* ---- answers ----------------------------------------------------------------------------------------------- */

/* The statements are over. What comes behind them is waited for no longer than it is worth. */
static void settle(struct volley *v)
{
	int64_t patience = dbha__clock_now() + ASIDE_US;
	v->settled = true;
	v->late = v->conn->late;
	v->drained = true;
	v->deadline = patience < v->deadline ? patience : v->deadline;
}

/* The first failure is that of the transaction; the server passes over the rest, up to its Sync. */
static void take_failure(struct volley *v, int index, struct pipe_answer *answer)
{
	if (v->end->end != ATTEMPT_OK || answer->aborted) {
		PQclear(answer->attempt.result);
		return;
	}
	v->mended = answer->mended;
	/* Where it is not the end of the transaction that failed, this end cannot have come. */
	answer->attempt.answered = v->answered == v->n && index < 0;
	fail(v, index, &answer->attempt);
	if (!v->closed && !is_dead(v))
		send_end(v);
}

/* Of the statement that it is the answer to; -1: it is none's. */
static int index_of(struct volley *v, const struct pipe_answer *answer)
{
	bool own = !answer->owner || answer->owner == begin_of(v) || answer->owner == mark_of(v);
	return own ? -1 : (int)((struct volley_item *)answer->owner - v->items);
}

/* Whether it was the server who will not answer this question, see flush.c. */
static bool refuses(const struct attempt *attempt)
{
	return attempt->end == ATTEMPT_ERROR && strncmp(attempt->sqlstate, "42", 2) == 0;
}

static void take_mark(struct volley *v, struct pipe_answer *answer)
{
	struct attempt *attempt = &answer->attempt;
	if (attempt->end != ATTEMPT_OK) {
		v->mark_refused = v->end->end == ATTEMPT_OK && !answer->mended && refuses(attempt);
		take_failure(v, -1, answer);
		return;
	}
	v->mark_refused = !dbha__mark_read(attempt->result, v->mark) && dbha__mark_is_there(attempt->result);
	PQclear(attempt->result);
}

static void take_together(struct volley *v, struct pipe_answer *answer)
{
	int index = index_of(v, answer);
	if (index >= 0)
		v->items[index].on_way = false;
	/* The first without an owner, behind the Sync, is the Sync. */
	bool ends = !answer->owner && v->synced && !v->settled;
	if (answer->owner == mark_of(v)) {
		take_mark(v, answer);
	} else if (answer->attempt.end != ATTEMPT_OK && (answer->owner || ends)) {
		take_failure(v, index, answer);
	} else if (index >= 0 && v->end->end == ATTEMPT_OK) {
		v->answered++;
		v->take(v->arg, index, answer);
	} else {
		PQclear(answer->attempt.result);
	}
	v->unsafe = v->unsafe || answer->unreplicated;
	if (ends)
		settle(v);
}

static void take_one(struct volley *v, struct pipe_answer *answer)
{
	int index = index_of(v, answer);
	v->items[index].on_way = false;
	v->take(v->arg, index, answer);
}

static void take_answer(struct volley *v, struct pipe_answer *answer)
{
	if (answer->owner == position_of(v)) {
		if (answer->attempt.end == ATTEMPT_OK)
			dbha__position_read(answer->attempt.result, v->position);
		PQclear(answer->attempt.result);
	} else if (v->together) {
		take_together(v, answer);
	} else if (answer->owner) {
		take_one(v, answer);
	} else {
		PQclear(answer->attempt.result);
	}
}

static void take_answers(struct volley *v)
{
	struct pipe_answer answer;
	while (dbha__pipe_next(&v->pipe, &answer))
		take_answer(v, &answer);
	bool only_position = !v->together && v->closed && v->position && dbha__pipe_owner(&v->pipe, 0) == position_of(v);
	if (only_position && !v->settled)
		settle(v);
}

/* ---- waiting ----------------------------------------------------------------------------------------------- */

/*
 * A cancel request stops one statement, or none if it comes between two. So it is sent again while the answers do not come. What has
 * not been sent is not: but with others in one transaction it is, so that there is something to stop.
 */
static void stop_again(struct volley *v)
{
	struct conn *conn = v->conn;
	if (!is_canceled(v) || v->settled)
		return;
	v->closed = v->closed || !v->together;
	if (conn->ask_to_stop && !dbha__conn_cancel_under_way(conn))
		conn->ask_to_stop(conn);
}

/* False: the deadline has passed, and the moment behind it. */
static bool await(struct volley *v)
{
	short events = (short)(POLLIN | (v->pipe.unsent ? POLLOUT : 0));
	int64_t look = v->canceled ? dbha__clock_now() + CANCEL_US : v->deadline;
	int64_t until = look < v->deadline ? look : v->deadline;
	enum waited waited = dbha__wait_socket(v->conn, events, until);
	if (waited == WAITED_READY)
		dbha__pipe_hear(&v->pipe);
	if (waited == WAITED_BROKEN)
		v->pipe.broken = true;
	if (waited != WAITED_TIMEOUT)
		return true;
	if (until < v->deadline) {
		stop_again(v);
		return true;
	}
	/* A transaction that is not whole is not worth a moment more: its end was not sent, and will not be. */
	if (v->drained || (v->together && !v->synced))
		return false;
	v->drained = true;
	v->closed = true;
	return dbha__wait_drain(v->conn, &v->deadline);
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

/* Those on their way when the time was up. */
static void time_out(struct volley *v)
{
	for (int i = 0; i < v->n; i++) {
		struct pipe_answer answer = {.owner = &v->items[i]};
		if (!v->items[i].on_way)
			continue;
		v->items[i].on_way = false;
		dbha__attempt_begin(&answer.attempt);
		dbha__attempt_timed_out(&answer.attempt);
		if (v->together)
			continue;
		dbha__pipe_disown(&v->pipe, &v->items[i]);
		v->take(v->arg, i, &answer);
	}
	if (v->end->end == ATTEMPT_OK)
		dbha__attempt_timed_out(v->end);
}

/* The statements are over, but what was asked for behind them did not come: nobody can use the connection any more. */
static void give_up(struct volley *v)
{
	v->conn->late = v->late;
	v->conn->doubtful = true;
	v->end->in_doubt = true;
	dbha__conn_cut(v->conn);
}

/* That was never sent. */
static bool has_left_any(const struct volley *v)
{
	for (int i = v->next; i < v->n; i++)
		if (v->items[i].waits)
			return true;
	return false;
}

/* The connection is over, or the time, before all was sent. */
static void end_short(struct volley *v)
{
	struct attempt *end = v->end;
	if (end->end != ATTEMPT_OK || v->settled || !(v->together ? !v->synced : has_left_any(v)))
		return;
	if (is_dead(v)) {
		dbha__attempt_lost(v->conn, end);
		if (!end->message[0])
			snprintf(end->message, sizeof end->message, "the connection was cut");
	} else if (!v->together && is_canceled(v)) {
		end->end = ATTEMPT_ERROR;
		snprintf(end->sqlstate, sizeof end->sqlstate, "57014");
		snprintf(end->message, sizeof end->message, "canceled before it was sent");
	} else {
		dbha__attempt_timed_out(end);
	}
}

static bool is_over(const struct volley *v)
{
	return v->pipe.n == 0 && (v->closed || is_dead(v));
}

void dbha__volley_run(struct volley *v, struct conn *conn, int64_t deadline, struct attempt *end)
{
	dbha__wait_begin(conn);
	dbha__attempt_begin(end);
	v->conn = conn;
	v->end = end;
	v->deadline = deadline;
	v->next = v->answered = v->chunks = 0;
	v->flushed = false;
	v->failed = -1;
	v->begun = v->closed = v->settled = v->drained = v->late = false;
	v->synced = v->unsafe = v->mended = v->mark_refused = false;
	if (!dbha__pipe_begin(&v->pipe, conn)) {
		end->end = ATTEMPT_NOT_SENT;
		snprintf(end->message, sizeof end->message, "the connection cannot be used, or there is no memory");
		return;
	}
	bool in_time = true;
	while (in_time && !is_over(v)) {
		feed(v);
		dbha__pipe_push(&v->pipe);
		take_answers(v);
		if (is_over(v))
			break;
		if (has_room(v) && dbha__clock_now() < v->deadline)
			dbha__pipe_hear(&v->pipe);
		else
			in_time = await(v);
	}
	end_short(v);
	if (!in_time && !v->settled)
		time_out(v);
	if (!dbha__pipe_end(&v->pipe) || !in_time) {
		if (v->settled)
			give_up(v);
		dbha__conn_cut(conn);
	}
	conn->unreplicated = v->unsafe;
}
