#include "exec.h"

#include <stdio.h>
#include <string.h>

#include "retry.h"
#include "sessionstate.h"
#include "stmtcache.h"
#include "wait.h"

bool dbha__attempt_is_copy(const PGresult *result)
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
void dbha__attempt_refuse_copy(struct conn *conn, struct attempt *attempt, PGresult *result)
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
void dbha__attempt_take(struct attempt *attempt, PGresult *result)
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

void dbha__attempt_lost(struct conn *conn, struct attempt *attempt)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	attempt->end = ATTEMPT_LOST;
	if (!attempt->message[0])
		dbha__conn_first_line(attempt->message, sizeof attempt->message, PQerrorMessage(conn->pg));
}

/* A connection that broke without a word from the server is a lost one; with a word, the word counts. */
void dbha__attempt_judge(struct conn *conn, struct attempt *attempt)
{
	bool nameless = attempt->end == ATTEMPT_ERROR && !attempt->sqlstate[0];
	bool broken = PQstatus(conn->pg) != CONNECTION_OK;
	if (nameless || (broken && attempt->end == ATTEMPT_OK) || (attempt->end == ATTEMPT_OK && !attempt->result))
		dbha__attempt_lost(conn, attempt);
	else if (broken)
		attempt->end = ATTEMPT_FATAL;
	/* What a pooler says when it loses its server, or goes itself, says nothing of the statement. */
	if (!conn->direct && (attempt->end == ATTEMPT_FATAL || strncmp(attempt->sqlstate, "08", 2) == 0))
		dbha__attempt_lost(conn, attempt);
}

void dbha__attempt_timed_out(struct attempt *attempt)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	attempt->end = ATTEMPT_TIMEOUT;
	snprintf(attempt->message, sizeof attempt->message, "no answer before the deadline of the call");
}

static void collect(struct conn *conn, int64_t deadline, struct attempt *attempt)
{
	enum waited waited = dbha__wait_flush(conn, deadline);
	while (waited == WAITED_READY) {
		waited = dbha__wait_result(conn, deadline);
		if (waited != WAITED_READY)
			break;
		PGresult *result = PQgetResult(conn->pg);
		if (!result) {
			dbha__attempt_judge(conn, attempt);
			return;
		}
		if (dbha__attempt_is_copy(result)) {
			dbha__attempt_refuse_copy(conn, attempt, result);
			return;
		}
		dbha__attempt_take(attempt, result);
	}
	if (waited == WAITED_TIMEOUT)
		dbha__attempt_timed_out(attempt);
	else
		dbha__attempt_lost(conn, attempt);
}

void dbha__attempt_begin(struct attempt *attempt)
{
	attempt->end = ATTEMPT_OK;
	attempt->result = NULL;
	attempt->answered = false;
	attempt->prepared_only = false;
	attempt->copied_out = false;
	attempt->sqlstate[0] = '\0';
	attempt->message[0] = '\0';
}

/*
 * libpq refused to send, and nothing has left. A connection that was dead before is one thing; on a live one it is the
 * arguments that libpq does not accept, or memory that it did not get, and another connection would not help.
 */
void dbha__attempt_not_sent(struct conn *conn, struct attempt *attempt)
{
	bool dead = PQstatus(conn->pg) != CONNECTION_OK;
	attempt->end = dead ? ATTEMPT_NOT_SENT : ATTEMPT_ERROR;
	snprintf(attempt->sqlstate, sizeof attempt->sqlstate, "%s", dead ? "" : "22023");
	dbha__conn_first_line(attempt->message, sizeof attempt->message, PQerrorMessage(conn->pg));
}

static void run_unnamed(struct conn *conn, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (PQsendQueryParams(conn->pg, rq->sql, rq->n_params, rq->types, rq->values, rq->lengths, rq->formats,
	                      rq->result_format))
		collect(conn, deadline, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
}

static void run_prepared(struct conn *conn, const dbha_request *rq, const char *name, int64_t deadline,
                         struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (PQsendQueryPrepared(conn->pg, name, rq->n_params, rq->values, rq->lengths, rq->formats, rq->result_format))
		collect(conn, deadline, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
}

/* Whatever became of a preparation, the statement itself was not sent. */
static void never_executed(struct attempt *attempt)
{
	attempt->answered = false;
	if (attempt->end == ATTEMPT_LOST || attempt->end == ATTEMPT_FATAL)
		attempt->end = ATTEMPT_NOT_SENT;
	attempt->prepared_only = attempt->end == ATTEMPT_TIMEOUT;
}

/* True: the statement is prepared. False: `attempt` says why; the statement itself has not been sent. */
static bool prepare(struct conn *conn, const dbha_request *rq, const char *name, int64_t deadline,
                    struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (PQsendPrepare(conn->pg, name, rq->sql, rq->n_params, rq->types))
		collect(conn, deadline, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
	if (attempt->end == ATTEMPT_OK) {
		PQclear(attempt->result);
		attempt->result = NULL;
		dbha__stmtcache_prepared(conn->statements, name);
		return true;
	}
	dbha__stmtcache_refused(conn->statements, name);
	never_executed(attempt);
	return false;
}

bool dbha__exec_command(struct conn *conn, const char *sql, int64_t deadline)
{
	struct attempt attempt;
	dbha__attempt_begin(&attempt);
	if (PQsendQuery(conn->pg, sql))
		collect(conn, deadline, &attempt);
	else
		dbha__attempt_not_sent(conn, &attempt);
	PQclear(attempt.result);
	return attempt.end == ATTEMPT_OK;
}

/* False: it took too long, or the connection is gone; `attempt` says so. That the server did not know the name is fine. */
static bool deallocate(struct conn *conn, const char *name, int64_t deadline, struct attempt *attempt)
{
	char sql[64];
	snprintf(sql, sizeof sql, "DEALLOCATE %s", name);
	dbha__attempt_begin(attempt);
	if (PQsendQuery(conn->pg, sql))
		collect(conn, deadline, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
	PQclear(attempt->result);
	attempt->result = NULL;
	if (attempt->end == ATTEMPT_OK || attempt->end == ATTEMPT_ERROR)
		return true;
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

/* What the statement has left in its session. The common ones leave nothing, and that is seen at once. */
void dbha__exec_note_use(struct conn *conn, const dbha_request *rq, unsigned hints, const struct attempt *attempt)
{
	if (rq->flags & DBHA_PIN)
		hints |= USE_ASKED;
	if (attempt->end != ATTEMPT_OK) {
		conn->used |= dbha__sessionstate_survivors(hints);
		return;
	}
	bool tagged = PQresultStatus(attempt->result) == PGRES_COMMAND_OK;
	if (hints || tagged)
		conn->used = dbha__sessionstate_after(conn->used, hints, tagged ? PQcmdStatus(attempt->result) : "");
}

/* Runs it prepared; once more unprepared where the preparation turned out to be no good. */
static void run_cached(struct conn *conn, const dbha_request *rq, const struct stmt *stmt, int64_t deadline,
                       struct attempt *attempt)
{
	if (stmt->evicted[0] && !deallocate(conn, stmt->evicted, deadline, attempt))
		return;
	if (stmt->advice == STMT_ONCE) {
		run_unnamed(conn, rq, deadline, attempt);
		return;
	}
	if (stmt->advice == STMT_PREPARE && !prepare(conn, rq, stmt->name, deadline, attempt))
		return;
	run_prepared(conn, rq, stmt->name, deadline, attempt);
	if (!must_prepare_anew(attempt, rq, stmt->name))
		return;
	PQclear(attempt->result);
	char name[sizeof stmt->evicted];
	snprintf(name, sizeof name, "%s", stmt->name);
	dbha__stmtcache_refused(conn->statements, stmt->name);
	if (deallocate(conn, name, deadline, attempt))
		run_unnamed(conn, rq, deadline, attempt);
}

void dbha__exec(struct conn *conn, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	/* Behind a pooler a name may be somebody else's statement by the time it is executed. */
	if (!conn->statements || !conn->direct || (rq->flags & DBHA_UNPREPARED)) {
		run_unnamed(conn, rq, deadline, attempt);
		dbha__exec_note_use(conn, rq, dbha__sessionstate_hints(rq->sql), attempt);
		return;
	}
	struct stmt stmt;
	dbha__stmtcache_use(conn->statements, rq->sql, rq->n_params, rq->types, &stmt);
	run_cached(conn, rq, &stmt, deadline, attempt);
	dbha__exec_note_use(conn, rq, stmt.hints, attempt);
}
