/*
 * session_stream: a result row by row. It holds its connection until its end; until its first row is there it is run as any other
 * statement is, wherever that has to be, and again where that is certainly harmless.
 *
 * What is open (streaming.open) is what the caller has not been told the end of. The wire's part of it (streaming.wire) may have ended
 * before: a small result has come whole with its first row.
 */
#include <stdio.h>
#include <string.h>

#include "batch.h"
#include "canceller.h"
#include "clock.h"
#include "error.h"
#include "exec.h"
#include "session.h"
#include "verb.h"

/* What a result that is given up may take to end by itself, before the server is asked to end it. */
#define ALONE_US ((int64_t)10000)

/* ---- a step of whatever is open ------------------------------------------------------------------------------------ */

void dbha__session_step(dbha_session *s, struct statement *st, dbha_request *request, int timeout_ms, PGresult **result,
                        dbha_error *err)
{
	*request = (dbha_request){
	    .size = sizeof *request, .sql = s->streaming.verb, .intent = s->streaming.intent, .timeout_ms = timeout_ms};
	dbha__session_statement(s, st, request, result, err);
	st->stream = &s->streaming.wire;
	st->continued = true;
	st->in_transaction = s->tx == TX_OPEN;
	st->call.sent = s->streaming.attempts - 1;
}

void dbha__session_end_stream(dbha_session *s)
{
	dbha__stream_fini(&s->streaming.wire);
	s->streaming.open = STREAM_NONE;
}

/* ---- opening -------------------------------------------------------------------------------------------------------- */

/* BEGIN has a round trip of its own: libpq's pipelines know no COPY, and end with their last row. */
static bool run_before(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	if (!st->before)
		return true;
	dbha__exec(conn, st->before, st->call.deadline, attempt);
	if (attempt->end != ATTEMPT_OK)
		return false;
	PQclear(attempt->result);
	attempt->result = NULL;
	return true;
}

static void open_rows(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	if (run_before(st, conn, attempt))
		dbha__stream_rows(st->stream, conn, st->request, st->call.deadline, attempt);
}

static void open_copy_in(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	if (run_before(st, conn, attempt))
		dbha__stream_copy(st->stream, conn, st->request, STREAM_COPY_IN, st->call.deadline, attempt);
}

static void open_copy_out(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	if (run_before(st, conn, attempt))
		dbha__stream_copy(st->stream, conn, st->request, STREAM_COPY_OUT, st->call.deadline, attempt);
}

void dbha__session_opening(dbha_session *s, struct statement *st)
{
	static statement_step *const steps[] = {NULL, open_rows, open_copy_in, open_copy_out};
	if (s->batch)
		dbha__batch_attach(s->batch, st);
	if (!s->streaming.opening)
		return;
	st->step = steps[s->streaming.open];
	st->stream = &s->streaming.wire;
}

static int check(const char *what, enum stream_kind kind, const dbha_request *rq, dbha_error *err)
{
	PGresult *none;
	int code = dbha__statement_check(what, rq, &none, err);
	if (code != DBHA_OK)
		return code;
	if (rq->flags & DBHA_TOKEN)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: DBHA_TOKEN is not for a session: it has one, dbha_session_token tells it", what);
	if (rq->flags & DBHA_SERVER_TIMEOUT)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: DBHA_SERVER_TIMEOUT: its time limit is that of one call, and a server would apply it to "
		                  "all of the result",
		                  what);
	if (kind == STREAM_ROWS)
		return DBHA_OK;
	if (dbha__verb(rq->sql) != VERB_COPY)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.sql does not begin with COPY", what);
	if (rq->n_params > 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: request.n_params is %d: COPY takes no parameters", what,
		                  rq->n_params);
	return DBHA_OK;
}

/* A statement that was no stream has been done, and a result of its own is all there is. */
static int without_stream(dbha_session *s, const char *what, enum stream_kind kind, PGresult *result, dbha_error *err)
{
	if (kind == STREAM_ROWS) {
		if (result)
			s->streaming.wire.ahead = result;
		return DBHA_OK;
	}
	PQclear(result);
	return dbha__fail(err, DBHA_ERR_USAGE,
	                  "%s: the statement moves no data between server and client, and has been executed: use "
	                  "dbha_session_exec for it",
	                  what);
}

static int open_entered(dbha_session *s, const char *what, enum stream_kind kind, const dbha_request *rq,
                        dbha_error *err)
{
	PGresult *result = NULL;
	s->streaming = (struct streaming){.open = kind, .opening = true, .intent = rq->intent, .attempts = 1};
	snprintf(s->streaming.verb, sizeof s->streaming.verb, "%s", rq->sql + strspn(rq->sql, " \t\r\n\f\v"));
	int code = dbha__session_run(s, rq, &result, err);
	s->streaming.opening = false;
	if (code != DBHA_OK)
		PQclear(result);
	else if (s->streaming.wire.kind == STREAM_NONE)
		code = without_stream(s, what, kind, result, err);
	if (code != DBHA_OK)
		dbha__session_end_stream(s);
	return code;
}

int dbha__session_open_stream(dbha_session *s, const char *what, enum stream_kind kind, const dbha_request *request,
                              dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	int code = check(what, kind, request, err);
	if (code != DBHA_OK)
		return code;
	code = dbha__session_enter(s, what, err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, open_entered(s, what, kind, request, err), err);
}

int dbha_session_query(dbha_session *s, const dbha_request *request, dbha_error *err)
{
	return dbha__session_open_stream(s, "dbha_session_query", STREAM_ROWS, request, err);
}

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static void next_rows(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	(void)conn;
	dbha__stream_next(st->stream, st->call.deadline, attempt);
}

static int fetch(dbha_session *s, int timeout_ms, PGresult **rows, dbha_error *err)
{
	/* On older libpq every row is a call: what is there costs no more than the look. */
	*rows = dbha__stream_at_hand(&s->streaming.wire);
	if (*rows)
		return DBHA_OK;
	if (s->streaming.wire.kind == STREAM_NONE) {
		dbha__session_end_stream(s);
		return DBHA_OK;
	}
	struct statement st;
	dbha_request request;
	dbha__session_step(s, &st, &request, timeout_ms, rows, err);
	st.step = next_rows;
	int code = dbha__session_go_on(s, &st);
	if (code != DBHA_OK)
		dbha__session_end_stream(s);
	return code;
}

int dbha_session_fetch(dbha_session *s, int timeout_ms, PGresult **rows, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!rows)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_fetch: rows is NULL: give it the address of a PGresult *");
	*rows = NULL;
	if (timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_fetch: timeout_ms is %d: 0 or more", timeout_ms);
	int code = dbha__session_enter_stream(s, "dbha_session_fetch", STREAM_ROWS, err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, fetch(s, timeout_ms, rows, err), err);
}

/* ---- giving up ------------------------------------------------------------------------------------------------------ */

/*
 * A short rest is read to its end; for a long one the server is asked to stop. Unless it says that it has stopped, the request may have
 * come too late: then nobody else gets the connection, see after_cancel in statement.c. (The answer to a refused COPY looks the same.)
 */
static void give_up(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	int64_t until = dbha__clock_now() + ALONE_US;
	bool refuses = st->stream->kind == STREAM_COPY_IN;
	if (dbha__stream_drain(st->stream, until, attempt))
		return;
	until += CONN_DRAIN_US;
	dbha__canceller_send(conn);
	dbha__stream_drain(st->stream, until, attempt);
	bool stopped = !refuses && strcmp(attempt->sqlstate, "57014") == 0;
	bool settled = attempt->end != ATTEMPT_TIMEOUT && dbha__canceller_settle(conn, until);
	conn->doubtful = conn->doubtful || !stopped || !settled || !conn->direct;
	attempt->in_doubt = !settled;
}

/* What giving up has cost, beside the result. */
static int cost(const dbha_session *s, bool in_transaction, int code, dbha_error *err)
{
	if (!in_transaction && !s->state_lost)
		return DBHA_OK;
	/* It may have stopped, and its connection be closed nonetheless, because the request is not known to have been acted on. */
	bool closed_by_us = !s->slot && (code == DBHA_ERR_TIMEOUT || strcmp(err->sqlstate, "57014") == 0);
	if (!closed_by_us)
		return code;
	if (s->state_lost)
		return dbha__fail(err, DBHA_ERR_STATE_LOST,
		                  "what was given up did not end in time, and its connection was closed, to which the session "
		                  "was pinned (by %s): call dbha_session_reset",
		                  s->lost_state);
	dbha__fail(err, DBHA_ERR_ROLLED_BACK,
	           "what was given up did not end in time, and its connection was closed: the transaction is rolled back");
	err->retry_safe = true;
	return err->code;
}

static int finish(dbha_session *s, dbha_error *err)
{
	bool in_transaction = s->tx != TX_NONE;
	int code = DBHA_OK;
	dbha_error met;
	if (s->streaming.wire.kind != STREAM_NONE) {
		PGresult *result = NULL;
		struct statement st;
		dbha_request request;
		dbha__session_step(s, &st, &request, 0, &result, &met);
		st.step = give_up;
		code = dbha__session_go_on(s, &st);
		PQclear(result);
	}
	dbha__session_end_stream(s);
	if (code != DBHA_OK)
		code = cost(s, in_transaction, code, &met);
	if (code != DBHA_OK)
		*err = met;
	return code;
}

int dbha_session_finish(dbha_session *s, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_finish: the session is NULL");
	if (s->streaming.open == STREAM_NONE)
		return DBHA_OK;
	int code = dbha__session_enter_stream(s, "dbha_session_finish", s->streaming.open, err);
	if (code != DBHA_OK) /* in a forked child it was the parent's, and is over */
		return s->streaming.open == STREAM_NONE ? DBHA_OK : code;
	return dbha__session_leave(s, finish(s, err), err);
}
