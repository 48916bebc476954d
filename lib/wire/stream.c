#include "stream.h"

#include "clock.h"
#include "dbha_build.h"
#include "sessionstate.h"
#include "stream_end.h"
#include "wait.h"

/*
 * Rows of one chunk, on libpq 17: enough to share out the cost of a result, and few enough that a statement which finds a row now
 * and then does not keep them back for long.
 */
#define CHUNK_ROWS 100

static bool is_rows(const PGresult *result)
{
#ifdef HAVE_PQSETCHUNKEDROWSMODE
	if (PQresultStatus(result) == PGRES_TUPLES_CHUNK)
		return true;
#endif
	return PQresultStatus(result) == PGRES_SINGLE_TUPLE;
}

static void ask_for_rows(PGconn *pg)
{
#ifdef HAVE_PQSETCHUNKEDROWSMODE
	PQsetChunkedRowsMode(pg, CHUNK_ROWS);
#else
	PQsetSingleRowMode(pg);
#endif
}

/* ---- how it ended --------------------------------------------------------------------------------------------- */

/* libpq refused to send. */
static void not_sent(struct stream *s, struct attempt *attempt)
{
	s->kind = STREAM_NONE;
	dbha__attempt_not_sent(s->conn, attempt);
}

void dbha__stream_broke_off(struct stream *s, bool timeout, struct attempt *attempt)
{
	if (timeout) {
		dbha__attempt_timed_out(attempt);
		return;
	}
	s->kind = STREAM_NONE;
	dbha__attempt_lost(s->conn, attempt);
}

/* No result is to come. What the statement has left in its session is known only now. */
static void judge_end(struct stream *s, struct attempt *attempt)
{
	const dbha_request known = {.size = sizeof known};
	s->kind = STREAM_NONE;
	dbha__attempt_judge(s->conn, attempt);
	if (s->conn->late)
		dbha__attempt_judge_late(s->conn, attempt);
	/* What was asked for and thrown away has not been answered in time, though the server has done it. */
	if (s->late_rows && attempt->end == ATTEMPT_OK)
		dbha__attempt_timed_out(attempt);
	dbha__attempt_note_use(s->conn, &known, s->hints, attempt);
}

bool dbha__stream_ask_to_stop(struct stream *s, int64_t *deadline)
{
	if (s->stopping || !dbha__wait_drain(s->conn, deadline))
		return false;
	s->stopping = true;
	return true;
}

/* A COPY that nobody asked for. */
static void refuse_copy(struct stream *s, PGresult *result, struct attempt *attempt)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	s->kind = STREAM_NONE;
	dbha__attempt_refuse_copy(s->conn, attempt, result);
}

/* One result more, or NULL at the end. At the deadline the server is asked to stop, and has a moment more. */
static enum waited next_result(struct stream *s, int64_t *deadline, PGresult **result)
{
	*result = s->over;
	s->over = NULL;
	if (*result)
		return WAITED_READY;
	enum waited waited = dbha__wait_result(s->conn, *deadline);
	bool asked = (waited == WAITED_TIMEOUT || s->conn->late) && dbha__stream_ask_to_stop(s, deadline);
	if (waited == WAITED_TIMEOUT && asked)
		waited = dbha__wait_result(s->conn, *deadline);
	if (waited == WAITED_READY)
		*result = PQgetResult(s->conn->pg);
	return waited;
}

/* Rows that nobody wants, or that come too late. As they may never stop coming, this is not for ever. */
static bool throw_away(struct stream *s, PGresult *rows, bool wanted, int64_t deadline)
{
	PQclear(rows);
	s->late_rows = s->late_rows || wanted;
	return dbha__clock_now() < deadline;
}

/* Reads on to the next rows, or to the end. */
static void read_on(struct stream *s, bool rows_wanted, int64_t deadline, struct attempt *attempt)
{
	for (;;) {
		PGresult *result = NULL;
		enum waited waited = next_result(s, &deadline, &result);
		if (waited != WAITED_READY) {
			dbha__stream_broke_off(s, waited == WAITED_TIMEOUT, attempt);
			return;
		}
		if (!result) {
			judge_end(s, attempt);
			return;
		}
		if (dbha__attempt_is_copy(result)) {
			refuse_copy(s, result, attempt);
			return;
		}
		if (!is_rows(result)) {
			dbha__attempt_take(attempt, result);
		} else if (rows_wanted && !s->stopping) {
			attempt->result = result;
			return;
		} else if (!throw_away(s, result, rows_wanted, deadline)) {
			dbha__stream_broke_off(s, true, attempt);
			return;
		}
	}
}

void dbha__stream_read_end(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	s->kind = STREAM_ROWS;
	enum waited waited = dbha__wait_flush(s->conn, deadline);
	if (waited == WAITED_TIMEOUT)
		dbha__stream_broke_off(s, true, attempt);
	else /* broken or not: the server may have had a last word */
		read_on(s, false, deadline, attempt);
}

/* ---- rows ----------------------------------------------------------------------------------------------------- */

/* What the statement may leave behind in its session, as far as its request shows. */
static unsigned hints_of(const dbha_request *rq)
{
	return dbha__sessionstate_hints(rq->sql) | (rq->flags & DBHA_PIN ? (unsigned)USE_ASKED : 0);
}

void dbha__stream_rows(struct stream *s, struct conn *conn, const dbha_request *rq, int64_t deadline,
                       struct attempt *attempt)
{
	*s = (struct stream){.conn = conn, .kind = STREAM_ROWS, .hints = hints_of(rq)};
	dbha__attempt_begin(attempt);
	dbha__wait_begin(conn);
	if (!PQsendQueryParams(conn->pg, rq->sql, rq->n_params, rq->types, rq->values, rq->lengths, rq->formats,
	                       rq->result_format)) {
		not_sent(s, attempt);
		return;
	}
	ask_for_rows(conn->pg);
	enum waited waited = dbha__wait_flush(conn, deadline);
	if (waited != WAITED_READY) {
		dbha__stream_broke_off(s, waited == WAITED_TIMEOUT, attempt);
		return;
	}
	read_on(s, true, deadline, attempt);
	if (attempt->end != ATTEMPT_OK)
		return;
	s->ahead = attempt->result;
	attempt->result = NULL;
}

void dbha__stream_next(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (s->ahead) {
		attempt->result = s->ahead;
		attempt->answered = s->kind == STREAM_NONE;
		s->ahead = NULL;
	} else if (s->kind == STREAM_ROWS) {
		read_on(s, true, deadline, attempt);
	}
}

PGresult *dbha__stream_at_hand(struct stream *s)
{
	PGresult *rows = s->ahead;
	s->ahead = NULL;
	if (rows || s->kind != STREAM_ROWS || s->over || PQisBusy(s->conn->pg))
		return rows;
	rows = PQgetResult(s->conn->pg);
	if (!rows || is_rows(rows))
		return rows;
	s->over = rows;
	return NULL;
}

/* ---- the beginning of COPY -------------------------------------------------------------------------------------- */

/*
 * COPY is sent with the simple protocol. With the extended one libpq sends a Sync behind the statement, which the server
 * swallows where it reads data, but answers where it fails before that: then there are two answers, and the second would be taken
 * for the end of the next statement. The simple protocol would execute several statements, so the server parses the text first:
 * that accepts one, and does nothing yet. True: it has accepted this one.
 */
static bool parse(struct stream *s, const char *sql, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	dbha__wait_begin(s->conn);
	if (!PQsendPrepare(s->conn->pg, "", sql, 0, NULL)) {
		not_sent(s, attempt);
		return false;
	}
	dbha__stream_read_end(s, deadline, attempt);
	attempt->answered = false;
	if (attempt->end == ATTEMPT_OK) {
		PQclear(attempt->result);
		attempt->result = NULL;
		return true;
	}
	if (attempt->end == ATTEMPT_LOST || attempt->end == ATTEMPT_FATAL)
		attempt->end = ATTEMPT_NOT_SENT;
	attempt->prepared_only = attempt->end == ATTEMPT_TIMEOUT || attempt->end == ATTEMPT_CANCELLED;
	return false;
}

/* The first answer to COPY; what it is not, is read to its end. */
static void begin_copy(struct stream *s, enum stream_kind wanted, int64_t deadline, struct attempt *attempt)
{
	ExecStatusType invitation = wanted == STREAM_COPY_IN ? PGRES_COPY_IN : PGRES_COPY_OUT;
	enum waited waited = dbha__wait_flush(s->conn, deadline);
	PGresult *result = NULL;
	if (waited == WAITED_READY)
		waited = next_result(s, &deadline, &result);
	if (waited != WAITED_READY) {
		dbha__stream_broke_off(s, waited == WAITED_TIMEOUT, attempt);
		return;
	}
	if (PQresultStatus(result) == invitation) {
		PQclear(result);
		s->kind = wanted;
		s->copies = true;
		s->undone = wanted == STREAM_COPY_IN;
		s->sent_us = dbha__clock_coarse();
		/* Too late to begin. (A server says that it copies out with its first data, or with the error that ends it.) */
		s->late_rows = s->stopping;
		if (s->stopping)
			dbha__stream_drain(s, deadline, attempt);
	} else if (result && dbha__attempt_is_copy(result)) {
		refuse_copy(s, result, attempt);
	} else {
		if (result)
			dbha__attempt_take(attempt, result);
		read_on(s, false, deadline, attempt);
	}
}

void dbha__stream_copy(struct stream *s, struct conn *conn, const dbha_request *rq, enum stream_kind wanted,
                       int64_t deadline, struct attempt *attempt)
{
	*s = (struct stream){.conn = conn};
	if (!parse(s, rq->sql, deadline, attempt))
		return;
	if (conn->late || dbha__clock_now() >= deadline) {
		dbha__attempt_timed_out(attempt);
		attempt->prepared_only = true;
		return;
	}
	s->hints = hints_of(rq);
	dbha__attempt_begin(attempt);
	s->kind = STREAM_ROWS;
	if (PQsendQuery(conn->pg, rq->sql))
		begin_copy(s, wanted, deadline, attempt);
	else
		not_sent(s, attempt);
}

/* ---- giving up -------------------------------------------------------------------------------------------------- */

bool dbha__stream_drain(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	PQclear(s->ahead);
	s->ahead = NULL;
	s->stopping = true; /* by whoever gives up, if he wants it */
	switch (s->kind) {
	case STREAM_NONE:
		break;
	case STREAM_ROWS:
		dbha__stream_read_end(s, deadline, attempt);
		break;
	case STREAM_COPY_IN:
		dbha__stream_end(s, "given up by the client", deadline, attempt);
		break;
	case STREAM_COPY_OUT:
		dbha__stream_drain_copy(s, deadline, attempt);
		break;
	}
	return s->kind == STREAM_NONE;
}

void dbha__stream_fini(struct stream *s)
{
	PQclear(s->ahead);
	PQclear(s->over);
	s->ahead = s->over = NULL;
	s->kind = STREAM_NONE;
}
