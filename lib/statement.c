#include "statement.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "again.h"
#include "canceller.h"
#include "clock.h"
#include "consistency.h"
#include "error.h"
#include "explain.h"
#include "flush.h"
#include "position.h"
#include "routing.h"
#include "tell.h"
#include "verb.h"

int dbha__statement_check(const char *what, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	if (!result)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: result is NULL: give it the address of a PGresult *", what);
	*result = NULL;
	if (!rq)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request is NULL", what);
	if (rq->size != sizeof *rq)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.size is %zu, not %zu: set it to sizeof(dbha_request)", what,
		                  rq->size, sizeof *rq);
	if (!rq->sql)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.sql is NULL", what);
	if (rq->n_params < 0 || rq->n_params > 65535)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.n_params is %d: 0 to 65535 are possible", what,
		                  rq->n_params);
	if (rq->n_params > 0 && !rq->values)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.values is NULL for %d parameters", what, rq->n_params);
	if (rq->result_format != 0 && rq->result_format != 1)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.result_format is %d: 0 (text) or 1 (binary)", what,
		                  rq->result_format);
	if (rq->flags & ~(DBHA_IDEMPOTENT | DBHA_UNPREPARED | DBHA_SERVER_TIMEOUT | DBHA_PIN | DBHA_TOKEN))
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.flags is 0x%x: unknown bits are set", what,
		                  (unsigned)rq->flags);
	if (rq->timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.timeout_ms is %d: 0 or more", what, rq->timeout_ms);
	if (rq->consistency < DBHA_CONSISTENCY_DEFAULT || rq->consistency > DBHA_CONSISTENCY_PRIMARY)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.consistency is %d: a dbha_consistency", what,
		                  rq->consistency);
	if (rq->route && rq->route->size != sizeof *rq->route)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: request.route->size is %zu, not %zu: set it to sizeof(dbha_result_route)", what,
		                  rq->route->size, sizeof *rq->route);
	if (rq->route)
		*rq->route = (dbha_result_route){.size = sizeof *rq->route, .lag_ms = -1, .lag_bytes = -1};
	if (rq->intent < DBHA_DEFAULT || rq->intent > DBHA_WRITE)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.intent is %d: DBHA_DEFAULT, DBHA_READ or DBHA_WRITE", what,
		                  (int)rq->intent);
	for (int i = 0; rq->formats && i < rq->n_params; i++)
		if (rq->formats[i] == 1 && rq->values[i] && !rq->lengths)
			return dbha__fail(err, DBHA_ERR_USAGE, "%s: parameter %d is binary, but request.lengths is NULL", what,
			                  i + 1);
	return DBHA_OK;
}

/* The time that is left, for the server: it may not be 0, which would be no limit. */
#define SERVER_LIMIT_US                                                                                                \
	10000 /* how much earlier it may come, since it counts in whole milliseconds and from its own beginning */

static int server_timeout_ms(const struct call *call)
{
	int64_t left = (call->deadline - dbha__clock_now()) / 1000;
	return left < 1 ? 1 : left > INT32_MAX ? INT32_MAX : (int)left;
}

/*
 * Has the standby replayed enough? In a round trip of its own: before what cannot travel with the question (a stream), what must not be executed
 * for nothing (nobody has said that it only reads), and what was thrown away once already. False: it has not, or there is no answer, as
 * `attempt` says.
 */
static bool ask_first(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	const dbha_request ask = {.size = sizeof ask, .sql = dbha__replayed_sql()};
	bool keeps_snapshot;
	dbha__exec(conn, &ask, st->call.deadline, attempt);
	bool answered = attempt->end == ATTEMPT_OK || attempt->end == ATTEMPT_ERROR;
	st->behind = answered && dbha__replayed_read(attempt->result, &keeps_snapshot) < st->call.floor.lsn;
	if (answered) {
		PQclear(attempt->result);
		dbha__attempt_begin(attempt);
		return !st->behind;
	}
	/* The statement itself was not sent. */
	attempt->prepared_only = attempt->end == ATTEMPT_TIMEOUT || attempt->end == ATTEMPT_CANCELLED;
	if (!attempt->prepared_only)
		attempt->end = ATTEMPT_NOT_SENT;
	return false;
}

static bool asks_first(const struct statement *st)
{
	const struct call *call = &st->call;
	return call->guard && (st->step || call->intent != DBHA_READ || call->behind_us);
}

/* What the server may wait for the standby to catch up, where it can. */
static int floor_wait_ms(const struct call *call)
{
	int wait_ms = call->h->config.options.max_wait_ms;
	int64_t left_ms = wait_ms ? (call->deadline - dbha__clock_now()) / 2000 : 0;
	return wait_ms < left_ms ? wait_ms : left_ms > 0 ? (int)left_ms : 0;
}

/* Sends it, alone or with what belongs to it. */
static void send(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	st->behind = st->undone = false;
	st->seen = (struct seen_position){.told = false};
	bool asked = asks_first(st);
	if (asked && !ask_first(st, conn, attempt))
		return;
	if (st->step) {
		st->step(st, conn, attempt);
		return;
	}
	bool guarded = st->call.guard && !asked;
	const dbha_request *rq = st->request;
	/* A statement that commits on the way cannot run behind another one in the same message. */
	bool limited = rq->flags & DBHA_SERVER_TIMEOUT && (st->in_transaction || dbha__retry_atomic(rq->sql));
	struct flush flush = {
	    .before = st->before,
	    .server_timeout_ms = limited ? server_timeout_ms(&st->call) : 0,
	    .request = rq,
	    .mark = st->mark,
	    .floor = guarded ? &st->call.floor : NULL,
	    .floor_apart = guarded && !dbha__retry_atomic(rq->sql),
	    .floor_wait_ms = guarded ? floor_wait_ms(&st->call) : 0,
	    .position = st->tells || (st->places && !st->call.on_standby) ? &st->seen : NULL,
	    .anywhere = st->tells,
	};
	if (!flush.before && !flush.mark && !limited && !flush.floor && !flush.position) {
		dbha__exec(conn, rq, st->call.deadline, attempt);
		return;
	}
	dbha__flush_run(conn, &flush, st->call.deadline, attempt);
	st->behind = flush.behind && (attempt->end == ATTEMPT_OK || attempt->end == ATTEMPT_ERROR);
	/* The server's own limit is a moment earlier or later than ours, and means the same. */
	bool stopped = attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0;
	if (limited && stopped && dbha__clock_now() + SERVER_LIMIT_US >= st->call.deadline) {
		attempt->end = ATTEMPT_CANCELLED;
		PQclear(attempt->result);
		attempt->result = NULL;
	}
	if (flush.mark_refused)
		atomic_store(&st->call.h->marks_refused, true);
	st->mark_refused = flush.mark_refused;
	st->unprepared = flush.unprepared;
}

/*
 * What a cancel request leaves behind. After the server has said that it stopped, and the request is known to have been acted on, the
 * connection is as good as before. After any other answer it may have come too late for this statement: then nobody else gets
 * the connection, although it is most likely in order. A pooler may pass the request on when it likes. A session that is
 * bound to the connection goes on with it only if the request has been acted on; else what it holds there is given up.
 */
static void after_cancel(const struct statement *st, struct conn *conn, struct attempt *attempt)
{
	int64_t now = dbha__clock_now();
	int64_t until = (now < st->call.deadline ? now : st->call.deadline) + CONN_DRAIN_US;
	bool stopped = attempt->end == ATTEMPT_CANCELLED || strcmp(attempt->sqlstate, "57014") == 0;
	bool settled = attempt->end != ATTEMPT_TIMEOUT && dbha__canceller_settle(conn, until);
	if (!stopped || !settled || !conn->direct)
		conn->doubtful = true;
	if (attempt->end == ATTEMPT_OK && conn->late && !settled && st->keeps) {
		dbha__attempt_timed_out(attempt);
		attempt->answered = false;
	}
	attempt->in_doubt = attempt->in_doubt || (conn->late && !settled);
}

static void attempt_on(struct statement *st, struct dbha_conn *slot, struct attempt *attempt)
{
	struct call *call = &st->call;
	call->rounds++;
	bool movable = call->intent == DBHA_READ && (!st->in_transaction || st->begins) && !st->continued;
	atomic_store_explicit(&slot->movable, movable, memory_order_relaxed);
	if (st->mark && atomic_load_explicit(&call->h->marks_refused, memory_order_relaxed))
		st->mark = NULL;
	/* Once a COMMIT is sent, a cancel would only end the wait for a synchronous standby: it would be committed, and less safe. */
	atomic_store_explicit(&slot->conn->uncancelable, st->may_commit, memory_order_relaxed);
	bool cancelable = call->cancel && !st->may_commit;
	if (cancelable)
		dbha__call_running(call, slot->conn);
	slot->conn->late = slot->conn->unreplicated = false;
	send(st, slot->conn, attempt);
	if (cancelable)
		dbha__call_running(call, NULL);
	atomic_store_explicit(&slot->conn->uncancelable, false, memory_order_relaxed);
	/* A step of a stream, which the patrol may have ended, has not looked at that. */
	if (slot->conn->late)
		dbha__attempt_judge_late(slot->conn, attempt);
	if (slot->conn->late || (cancelable && call->cancel->sent))
		after_cancel(st, slot->conn, attempt);
	atomic_store_explicit(&slot->movable, false, memory_order_relaxed);
	call->sent += attempt->end != ATTEMPT_NOT_SENT;
	/* A promotion elsewhere says that the primary we know may be stale: the sooner all are looked at, the better. */
	if (dbha__conn_was_promoted(slot->conn))
		dbha__monitor_alarm(&call->h->monitor);
	/* Its caller is about to leave; the server need not go on for nobody. */
	if (attempt->end == ATTEMPT_TIMEOUT && !slot->conn->late && !st->may_commit)
		dbha__canceller_send(slot->conn);
}

/* The answer has begun, and is not over yet. */
static bool goes_on(const struct statement *st, const struct attempt *attempt)
{
	return st->stream && attempt->end == ATTEMPT_OK && st->stream->kind != STREAM_NONE;
}

/* What its session has seen now. */
static void note_seen(struct statement *st, const struct dbha_conn *slot, const struct attempt *attempt)
{
	const struct call *call = &st->call;
	bool careless = call->intent == DBHA_READ && !call->causal && call->consistency != DBHA_CONSISTENCY_PRIMARY;
	if (!st->causal || attempt->end == ATTEMPT_NOT_SENT || careless)
		return;
	if (call->on_standby && !call->causal)
		dbha__causal_again(st->causal, call->last_node, slot->generation, dbha__clock_now());
	else if (call->on_standby && attempt->end == ATTEMPT_OK)
		dbha__causal_on_standby(st->causal, call->last_node, slot->generation, dbha__clock_now());
	else if (!call->on_standby && (!st->seen.at.timeline || st->seen.replayed))
		dbha__causal_on_primary(st->causal);
	else if (!call->on_standby)
		dbha__consistency_at(call->h, st->causal, &st->seen.at);
}

/* What an attempt means: for the connection, for the node, for the caller. */
static void judge(struct statement *st, const struct dbha_conn *slot, struct attempt *attempt)
{
	struct call *call = &st->call;
	const dbha_request *rq = st->request;
	if (!goes_on(st, attempt))
		dbha__judge_count(call, attempt);
	note_seen(st, slot, attempt);
	*st->result = attempt->result;
	/* A read that has turned into a write is judged as one. */
	bool reads = call->intent == DBHA_READ;
	bool copies = st->stream && st->stream->copies;
	bool undone = st->undone || (st->stream && st->stream->undone);
	bool failed = attempt->end != ATTEMPT_OK;
	struct statement_facts facts = {
	    .reads = reads,
	    .repeatable = rq->flags & DBHA_IDEMPOTENT,
	    .uncommitted = undone || (st->in_transaction && !st->may_commit),
	    /* In a transaction nothing can commit on the way, and an error of COMMIT itself has rolled back. */
	    .atomic = reads || copies || st->in_transaction || (failed && dbha__retry_atomic(rq->sql)),
	    .runs_code = failed && !st->in_transaction && dbha__retry_runs_code(rq->sql),
	};
	dbha__judge(call, &facts, attempt, &st->judged);
	st->judged.continued = st->continued;
	st->judged.may_commit = st->may_commit;
}

/* Whether the session has to go on with this connection: it is in a transaction, or has left something of its own there. */
static bool must_keep(const struct statement *st, const struct dbha_conn *slot, const struct attempt *attempt)
{
	if (goes_on(st, attempt))
		return true;
	if (!st->keeps)
		return false;
	enum conn_state state = dbha__conn_state(slot->conn);
	return state == CONN_IN_TRANSACTION || (state == CONN_IDLE && attempt->end == ATTEMPT_OK && slot->conn->used);
}

/* The primary has executed what a standby would not. Next time nobody asks a standby. */
static void remember_write(const struct statement *st)
{
	dbha *h = st->call.h;
	STATS_ADD(&h->stats[st->call.last_node], not_reads, 1);
	if (!st->in_transaction)
		dbha__routing_remember_write(h, st->request->sql);
}

/* DBHA_OK: it goes again; else the code of the error reported. */
static int go_round_behind(struct statement *st, int node)
{
	struct call *call = &st->call;
	bool naps = dbha__call_note_behind(call, node, dbha__clock_now());
	/* Canceled, it is said so where the next connection is looked for. */
	if (naps && !dbha__call_nap(call, CALL_BEHIND_NAP_US) && dbha__clock_now() >= call->deadline) {
		dbha__call_found_none(call, st->err);
		st->err->retry_safe = true;
		st->err->attempts = call->sent;
		return st->err->code;
	}
	return DBHA_OK;
}

/* One round: a connection, an attempt, and what it means. True: it is over, with `code`. */
static bool run_once(struct statement *st, int *code)
{
	struct call *call = &st->call;
	dbha *h = call->h;
	struct dbha_conn *slot = dbha__call_connection(call, st->err);
	if (!slot) {
		*code = st->err->code;
		return true;
	}
	int node = dbha__call_node(call, slot);
	if (call->last_node >= 0 && call->last_node != node) {
		STATS_ADD(&h->stats[node], reroutes, 1);
		dbha__tell_rerouted(h, call->last_name, node, call->reason, call->trouble);
	}
	call->last_node = node;
	call->last_name = slot->node_name;

	struct attempt attempt;
	attempt_on(st, slot, &attempt);
	if (call->guard)
		STATS_ADD(&h->stats[node], guards, 1);
	if (st->behind) {
		PQclear(attempt.result);
		dbha__call_return(h, slot, !attempt.in_doubt);
		*code = go_round_behind(st, node);
		return *code != DBHA_OK;
	}
	judge(st, slot, &attempt);
	*code = DBHA_OK;
	if (attempt.end == ATTEMPT_OK) {
		if (call->refused)
			remember_write(st);
		if (must_keep(st, slot, &attempt)) {
			st->kept = slot;
		} else {
			st->left = st->keeps ? slot->conn->used : 0;
			dbha__call_return(h, slot, true);
		}
		return true;
	}
	/* The pool may have it before the next attempt, which may be for this very node. */
	bool over = st->judged.retry.action == RETRY_REPORT && must_keep(st, slot, &attempt) && !attempt.in_doubt &&
	            !dbha__judge_standby_says_no(call, &attempt);
	if (over)
		st->kept = slot;
	else
		dbha__call_return(h, slot, st->judged.verdict.keep);
	if (over || !dbha__again(call, &attempt, &st->judged)) {
		*code = dbha__judge_report(call, &attempt, &st->judged, st->err);
		return true;
	}
	PQclear(attempt.result);
	*st->result = NULL;
	return false;
}

void dbha__statement_begin(struct statement *st, dbha *h, const dbha_request *request, PGresult **result,
                           dbha_error *err)
{
	memset(&st->request, 0, sizeof *st - offsetof(struct statement, request));
	dbha__call_begin(&st->call, h, request->intent, request->timeout_ms);
	st->request = request;
	st->result = result;
	st->err = err;
}

void dbha__statement_classify(struct statement *st)
{
	struct call *call = &st->call;
	const dbha_request *rq = st->request;
	if (call->intent == DBHA_READ && dbha__routing_is_write(call->h, rq->sql)) {
		st->classified = (struct classify_verdict){.is = CLASS_WRITE, .why = WHY_REFUSED_BEFORE};
		call->intent = DBHA_WRITE;
	}
	/* What is to stay with its session stays where a transaction could follow it. */
	if (call->intent != DBHA_DEFAULT || rq->flags & DBHA_PIN || call->h->config.options.routing != ROUTING_AUTO)
		return;
	dbha__call_set_deadline(call);
	call->intent = dbha__routing_intent(call, rq->sql, &st->classified);
}

static void explain(const struct statement *st, enum dbha_reason reason)
{
	if (st->request->route)
		dbha__explain(&st->call, &st->classified, reason, st->request->route);
}

int dbha__statement_run(struct statement *st)
{
	int code;
	dbha__call_set_deadline(&st->call);
	while (!run_once(st, &code))
		;
	explain(st, st->call.reason);
	return code;
}

/*
 * Whether a kept connection is found dead before anything is sent: then it is certain that nothing was done. In the middle of a
 * transaction that is certain anyway, and is not worth the system call.
 */
static bool dead_before(const struct statement *st, struct dbha_conn *slot)
{
	return (st->may_commit || !st->in_transaction) && !st->continued && dbha__conn_is_dead(slot->conn);
}

static void not_sent(struct statement *st, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	attempt->end = ATTEMPT_NOT_SENT;
	snprintf(attempt->message, sizeof attempt->message, "the server had closed the connection");
	st->mark_refused = st->unprepared = false;
}

/* Whether the session can go on with its connection. */
static bool goes_on_with(const struct statement *st, struct dbha_conn *slot, const struct attempt *attempt)
{
	if (dbha__conn_state(slot->conn) == CONN_UNUSABLE && !goes_on(st, attempt))
		return false;
	/* News of the server, or of the transaction being read-only: what the session has there stays, but is for nobody else. */
	bool read_only = attempt->end == ATTEMPT_ERROR && !attempt->in_doubt && strcmp(attempt->sqlstate, "25006") == 0;
	slot->conn->doubtful = slot->conn->doubtful || read_only;
	return st->judged.verdict.keep || read_only;
}

/* What a session that is pinned to a standby has seen otherwise, by a token: before a statement on its own, and before a transaction. */
static void guard_kept(struct statement *st)
{
	struct call *call = &st->call;
	bool within = st->in_transaction && !st->begins && dbha__verb(st->request->sql) != VERB_BEGIN;
	if (!call->causal || !call->on_standby || within || st->continued)
		return;
	struct token lost;
	const struct view *view = dbha__view_borrow(&call->h->view);
	bool has_lost = dbha__causal_follow(call->causal, view, &lost);
	struct causal_need need = dbha__causal_need(call->causal, view, 0);
	dbha__view_return(&call->h->view);
	call->guard = need.stick != call->last_node && need.floor.timeline;
	call->floor = need.floor;
	if (has_lost)
		dbha__tell_lost(call->h, &lost, &call->causal->floor);
}

/* Of a standby that is on an older timeline, as far as is known, a position says nothing. */
static bool may_be_asked(const struct call *call)
{
	bool may = dbha__view_borrow(&call->h->view)->nodes[call->last_node].timeline >= call->floor.timeline;
	dbha__view_return(&call->h->view);
	return may;
}

/* It can go nowhere else: its standby is asked until it has replayed enough. False: not before the deadline. */
static bool attempt_on_kept(struct statement *st, struct dbha_conn *slot, struct attempt *attempt)
{
	struct call *call = &st->call;
	guard_kept(st);
	while (call->guard) {
		bool asked = may_be_asked(call);
		if (asked && ask_first(st, slot->conn, attempt))
			break;
		if (asked && !st->behind)
			return true; /* its connection is lost, as `attempt` says */
		if (!dbha__call_nap(call, CALL_BEHIND_NAP_US))
			return false;
	}
	call->guard = false;
	attempt_on(st, slot, attempt);
	return true;
}

static int kept_is_behind(const struct statement *st)
{
	const struct call *call = &st->call;
	bool canceled = dbha__clock_now() < call->deadline;
	dbha__fail(st->err, canceled ? DBHA_ERR_CANCELED : DBHA_ERR_NO_NODE,
	           "the session is pinned to a standby (%s) that has not replayed %X/%X, which it has to see",
	           call->last_name, (unsigned)(call->floor.lsn >> 32), (unsigned)call->floor.lsn);
	st->err->retry_safe = true;
	st->err->attempts = call->sent;
	return st->err->code;
}

int dbha__statement_run_on_kept(struct statement *st)
{
	struct call *call = &st->call;
	struct dbha_conn *slot = st->kept;
	struct attempt attempt;
	dbha__call_set_deadline(call);
	call->on_standby = slot->conn->standby;
	call->last_node = dbha__call_node(call, slot);
	call->last_name = slot->node_name;
	if (dead_before(st, slot))
		not_sent(st, &attempt);
	else if (!attempt_on_kept(st, slot, &attempt)) {
		explain(st, DBHA_REASON_PINNED);
		st->kept = NULL; /* nothing has become of it: the session has it as before */
		return kept_is_behind(st);
	}
	judge(st, slot, &attempt);
	explain(st, st->in_transaction ? DBHA_REASON_TRANSACTION : DBHA_REASON_PINNED);
	if (!goes_on_with(st, slot, &attempt)) {
		st->connection_lost = true;
		st->kept = NULL;
		dbha__call_return(call->h, slot, false);
	}
	return attempt.end == ATTEMPT_OK ? DBHA_OK : dbha__judge_report(call, &attempt, &st->judged, st->err);
}
