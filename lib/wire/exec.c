#include "exec.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "retry.h"
#include "stmtcache.h"
#include "wait.h"

static bool is_copy(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);
	return status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH;
}

static void describe_error(struct attempt *attempt, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	dbha__conn_first_line(attempt->sqlstate, sizeof attempt->sqlstate, state ? state : "");
	dbha__conn_first_line(attempt->message, sizeof attempt->message, message ? message : PQresultErrorMessage(result));
}

/*
 * COPY needs a conversation that one call cannot hold. The protocol has no way back but to end it, and the connection goes
 * with it. COPY FROM has then done nothing. COPY TO has: the Sync went out in the same message, and its query may have been
 * a writing one.
 */
static void refuse_copy(struct conn *conn, struct attempt *attempt, PGresult *result)
{
	attempt->copied_out = PQresultStatus(result) != PGRES_COPY_IN;
	PQclear(result);
	dbha__conn_cut(conn);
	attempt->end = ATTEMPT_ERROR;
	snprintf(attempt->sqlstate, sizeof attempt->sqlstate, "0A000");
	snprintf(attempt->message, sizeof attempt->message, "COPY needs a connection of its own: use dbha_acquire");
}

/*
 * One result more. The first error stays: behind a server's FATAL message libpq adds one of its own, without a SQLSTATE,
 * when the connection ends. An error that comes after a good result is of the commit, and takes its place.
 */
static void take_result(struct attempt *attempt, PGresult *result)
{
	bool failed = PQresultStatus(result) == PGRES_FATAL_ERROR || PQresultStatus(result) == PGRES_BAD_RESPONSE;
	bool had_error = attempt->end == ATTEMPT_ERROR;
	if (had_error || (!failed && attempt->result)) {
		PQclear(result);
		return;
	}
	PQclear(attempt->result);
	attempt->result = result;
	if (failed) {
		attempt->end = ATTEMPT_ERROR;
		describe_error(attempt, result);
	} else {
		attempt->answered = true;
	}
}

static void lost(struct conn *conn, struct attempt *attempt)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	attempt->end = ATTEMPT_LOST;
	if (!attempt->message[0])
		dbha__conn_first_line(attempt->message, sizeof attempt->message, PQerrorMessage(conn->pg));
}

/* A connection that broke without a word from the server is a lost one; with a word, the word counts. */
static void judge_end(struct conn *conn, struct attempt *attempt)
{
	bool nameless = attempt->end == ATTEMPT_ERROR && !attempt->sqlstate[0];
	bool broken = PQstatus(conn->pg) != CONNECTION_OK;
	if (nameless || (broken && attempt->end == ATTEMPT_OK) || (attempt->end == ATTEMPT_OK && !attempt->result))
		lost(conn, attempt);
	else if (broken)
		attempt->end = ATTEMPT_FATAL;
	/* What a pooler says when it loses its server, or goes itself, says nothing of the statement. */
	if (!conn->direct && (attempt->end == ATTEMPT_FATAL || strncmp(attempt->sqlstate, "08", 2) == 0))
		lost(conn, attempt);
}

static void timed_out(struct attempt *attempt, enum attempt_end end, const char *message)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	attempt->end = end;
	snprintf(attempt->message, sizeof attempt->message, "%s", message);
}

static void not_in_time(struct attempt *attempt)
{
	timed_out(attempt, ATTEMPT_TIMEOUT, "no answer before the deadline of the call");
}

/*
 * Behind the deadline, when the server had been asked to stop, its word counts as at any other time. But a commit that was
 * stopped in its wait for a synchronous standby is called done by the server and is less than the caller has asked for.
 */
static void judge_late(const struct conn *conn, struct attempt *attempt)
{
	if (attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0)
		timed_out(attempt, ATTEMPT_CANCELLED, "not done before the deadline of the call, and stopped");
	else if (attempt->end == ATTEMPT_OK && conn->unreplicated)
		timed_out(attempt, ATTEMPT_TIMEOUT,
		          "committed, but not confirmed by the synchronous standby before the deadline of the call");
	else if (attempt->end == ATTEMPT_LOST)
		not_in_time(attempt);
}

/* Until the server has said everything; false: nothing came by the deadline, or the connection broke, as `attempt` says. */
static bool take_results(struct conn *conn, int64_t deadline, struct attempt *attempt)
{
	enum waited waited;
	while ((waited = dbha__wait_result(conn, deadline)) == WAITED_READY) {
		PGresult *result = PQgetResult(conn->pg);
		if (!result) {
			judge_end(conn, attempt);
			return true;
		}
		if (is_copy(result)) {
			refuse_copy(conn, attempt, result);
			return true;
		}
		take_result(attempt, result);
	}
	if (waited == WAITED_BROKEN)
		lost(conn, attempt);
	return waited == WAITED_BROKEN;
}

/* drains: what is not answered by the deadline is worth a cancel request, and a moment more. */
static void collect(struct conn *conn, int64_t deadline, bool drains, struct attempt *attempt)
{
	enum waited waited = dbha__wait_flush(conn, deadline);
	if (waited == WAITED_BROKEN)
		lost(conn, attempt);
	else if (waited == WAITED_TIMEOUT)
		not_in_time(attempt);
	else if (!take_results(conn, deadline, attempt) &&
	         !(drains && dbha__wait_drain(conn, &deadline) && take_results(conn, deadline, attempt)))
		not_in_time(attempt);
	if (conn->late)
		judge_late(conn, attempt);
}

static void begin_attempt(struct conn *conn, struct attempt *attempt)
{
	conn->late = false;
	conn->unreplicated = false;
	attempt->end = ATTEMPT_OK;
	attempt->result = NULL;
	attempt->answered = false;
	attempt->prepared_only = false;
	attempt->copied_out = false;
	attempt->in_doubt = false;
	attempt->sqlstate[0] = '\0';
	attempt->message[0] = '\0';
}

/*
 * libpq refused to send, and nothing has left. A connection that was dead before is one thing; on a live one it is the
 * arguments that libpq does not accept, or memory that it did not get, and another connection would not help.
 */
static void not_sent(struct conn *conn, struct attempt *attempt)
{
	bool dead = PQstatus(conn->pg) != CONNECTION_OK;
	attempt->end = dead ? ATTEMPT_NOT_SENT : ATTEMPT_ERROR;
	snprintf(attempt->sqlstate, sizeof attempt->sqlstate, "%s", dead ? "" : "22023");
	dbha__conn_first_line(attempt->message, sizeof attempt->message, PQerrorMessage(conn->pg));
}

static void run_unnamed(struct conn *conn, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	begin_attempt(conn, attempt);
	if (PQsendQueryParams(conn->pg, rq->sql, rq->n_params, rq->types, rq->values, rq->lengths, rq->formats,
	                      rq->result_format))
		collect(conn, deadline, true, attempt);
	else
		not_sent(conn, attempt);
}

static void run_prepared(struct conn *conn, const dbha_request *rq, const char *name, int64_t deadline,
                         struct attempt *attempt)
{
	begin_attempt(conn, attempt);
	if (PQsendQueryPrepared(conn->pg, name, rq->n_params, rq->values, rq->lengths, rq->formats, rq->result_format))
		collect(conn, deadline, true, attempt);
	else
		not_sent(conn, attempt);
}

/* Whatever became of a preparation, the statement itself was not sent. */
static void never_executed(struct attempt *attempt)
{
	attempt->answered = false;
	if (attempt->end == ATTEMPT_LOST || attempt->end == ATTEMPT_FATAL)
		attempt->end = ATTEMPT_NOT_SENT;
	attempt->prepared_only = attempt->end == ATTEMPT_TIMEOUT || attempt->end == ATTEMPT_CANCELLED;
}

/* After a preparation: whether there is time left for the statement itself. */
static bool in_time(const struct conn *conn, int64_t deadline, struct attempt *attempt)
{
	if (!conn->late && dbha__clock_now() < deadline)
		return true;
	not_in_time(attempt);
	attempt->prepared_only = true;
	return false;
}

/* True: the statement is prepared. False: `attempt` says why; the statement itself has not been sent. */
static bool prepare(struct conn *conn, const dbha_request *rq, const char *name, int64_t deadline,
                    struct attempt *attempt)
{
	begin_attempt(conn, attempt);
	if (PQsendPrepare(conn->pg, name, rq->sql, rq->n_params, rq->types))
		collect(conn, deadline, false, attempt);
	else
		not_sent(conn, attempt);
	if (attempt->end == ATTEMPT_OK) {
		PQclear(attempt->result);
		attempt->result = NULL;
		dbha__stmtcache_prepared(conn->statements, name);
		return in_time(conn, deadline, attempt);
	}
	dbha__stmtcache_refused(conn->statements, name);
	never_executed(attempt);
	return false;
}

bool dbha__exec_command(struct conn *conn, const char *sql, int64_t deadline)
{
	struct attempt attempt;
	begin_attempt(conn, &attempt);
	if (PQsendQuery(conn->pg, sql))
		collect(conn, deadline, false, &attempt);
	else
		not_sent(conn, &attempt);
	PQclear(attempt.result);
	return attempt.end == ATTEMPT_OK && !conn->late;
}

/* False: it took too long, or the connection is gone; `attempt` says so. That the server did not know the name is fine. */
static bool deallocate(struct conn *conn, const char *name, int64_t deadline, struct attempt *attempt)
{
	char sql[64];
	snprintf(sql, sizeof sql, "DEALLOCATE %s", name);
	begin_attempt(conn, attempt);
	if (PQsendQuery(conn->pg, sql))
		collect(conn, deadline, false, attempt);
	else
		not_sent(conn, attempt);
	PQclear(attempt->result);
	attempt->result = NULL;
	if (attempt->end == ATTEMPT_OK || attempt->end == ATTEMPT_ERROR)
		return in_time(conn, deadline, attempt);
	never_executed(attempt);
	return false;
}

/*
 * Two errors of a prepared statement are about the preparation, and say that nothing was executed: the server no longer
 * has it (26000), or its result changed shape with a table ("cached plan must not change result type", which has only the
 * general code 0A000; the name of the function that raised it is not translated, unlike the text).
 */
static bool must_prepare_anew(const struct attempt *attempt, const dbha_request *rq, const char *name)
{
	/* A procedure may have met either error in a statement of its own, after it had committed others. */
	if (attempt->end != ATTEMPT_ERROR || dbha__retry_runs_code(rq->sql))
		return false;
	if (strcmp(attempt->sqlstate, "26000") == 0)
		return strstr(attempt->message, name);
	const char *function = PQresultErrorField(attempt->result, PG_DIAG_SOURCE_FUNCTION);
	return strcmp(attempt->sqlstate, "0A000") == 0 && function && strcmp(function, "RevalidateCachedQuery") == 0;
}

void dbha__exec(struct conn *conn, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	/* Behind a pooler a name may be somebody else's statement by the time it is executed. */
	if (!conn->statements || !conn->direct || (rq->flags & DBHA_UNPREPARED)) {
		run_unnamed(conn, rq, deadline, attempt);
		return;
	}
	struct stmt stmt;
	dbha__stmtcache_use(conn->statements, rq->sql, rq->n_params, rq->types, &stmt);
	if (stmt.evicted[0] && !deallocate(conn, stmt.evicted, deadline, attempt))
		return;
	if (stmt.advice == STMT_ONCE) {
		run_unnamed(conn, rq, deadline, attempt);
		return;
	}
	if (stmt.advice == STMT_PREPARE && !prepare(conn, rq, stmt.name, deadline, attempt))
		return;
	run_prepared(conn, rq, stmt.name, deadline, attempt);
	if (!must_prepare_anew(attempt, rq, stmt.name))
		return;
	PQclear(attempt->result);
	char name[sizeof stmt.evicted];
	snprintf(name, sizeof name, "%s", stmt.name);
	dbha__stmtcache_refused(conn->statements, stmt.name);
	if (deallocate(conn, name, deadline, attempt))
		run_unnamed(conn, rq, deadline, attempt);
}
