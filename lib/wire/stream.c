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
	dbha__attempt_note_use(s->conn, &known, s->hints, attempt);
}

/* A COPY that nobody asked for. */
static void refuse_copy(struct stream *s, PGresult *result, struct attempt *attempt)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	s->kind = STREAM_NONE;
	dbha__attempt_refuse_copy(s->conn, attempt, result);
}

/* Reads on to the next rows, or to the end. Those that nobody wants are thrown away, and as they may never stop coming, not for ever. */
static void read_on(struct stream *s, bool rows_wanted, int64_t deadline, struct attempt *attempt)
{
	for (;;) {
		enum waited waited = s->over ? WAITED_READY : dbha__wait_result(s->conn, deadline);
		if (waited != WAITED_READY) {
			dbha__stream_broke_off(s, waited == WAITED_TIMEOUT, attempt);
			return;
		}
		PGresult *result = s->over ? s->over : PQgetResult(s->conn->pg);
		s->over = NULL;
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
		} else if (rows_wanted) {
			attempt->result = result;
			return;
		} else {
			PQclear(result);
			if (dbha__clock_now() >= deadline) {
				dbha__stream_broke_off(s, true, attempt);
				return;
			}
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
	if (!PQsendPrepare(s->conn->pg, "", sql, 0, NULL)) {
		not_sent(s, attempt);
		return false;
	}
	dbha__stream_read_end(s, deadline, attempt);
	attempt->answered = false;
	if (attempt->end == ATTEMPT_OK) {
		PQclear(attempt->result);
		return true;
	}
	if (attempt->end == ATTEMPT_LOST || attempt->end == ATTEMPT_FATAL)
		attempt->end = ATTEMPT_NOT_SENT;
	attempt->prepared_only = attempt->end == ATTEMPT_TIMEOUT;
	return false;
}

/* The first answer to COPY; what it is not, is read to its end. */
static void begin_copy(struct stream *s, enum stream_kind wanted, int64_t deadline, struct attempt *attempt)
{
	ExecStatusType invitation = wanted == STREAM_COPY_IN ? PGRES_COPY_IN : PGRES_COPY_OUT;
	enum waited waited = dbha__wait_flush(s->conn, deadline);
	if (waited == WAITED_READY)
		waited = dbha__wait_result(s->conn, deadline);
	if (waited != WAITED_READY) {
		dbha__stream_broke_off(s, waited == WAITED_TIMEOUT, attempt);
		return;
	}
	PGresult *result = PQgetResult(s->conn->pg);
	if (PQresultStatus(result) == invitation) {
		PQclear(result);
		s->kind = wanted;
		s->copies = true;
		s->undone = wanted == STREAM_COPY_IN;
		s->sent_us = dbha__clock_coarse();
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
	s->hints = hints_of(rq);
	dbha__attempt_begin(attempt);
	s->kind = STREAM_ROWS;
	if (PQsendQuery(conn->pg, rq->sql))
		begin_copy(s, wanted, deadline, attempt);
	else
		not_sent(s, attempt);
}

/* ---- giving up -------------------------------------------------------------------------------------------------- */

/* The data of COPY TO, thrown away. */
static void drain_copy_out(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	char *data;
	size_t length;
	do {
		dbha__stream_get(s, deadline, &data, &length, attempt);
		PQfreemem(data);
		if (s->kind != STREAM_NONE && attempt->end == ATTEMPT_OK && dbha__clock_now() >= deadline)
			dbha__stream_broke_off(s, true, attempt);
	} while (s->kind == STREAM_COPY_OUT && attempt->end == ATTEMPT_OK);
}

bool dbha__stream_drain(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	PQclear(s->ahead);
	s->ahead = NULL;
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
		drain_copy_out(s, deadline, attempt);
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
