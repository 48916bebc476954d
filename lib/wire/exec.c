#include "exec.h"

#include <stdio.h>
#include <string.h>

#include "retry.h"
#include "sessionstate.h"
#include "stmtcache.h"
#include "wait.h"

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

static bool must_prepare_anew(const struct attempt *attempt, const dbha_request *rq, const char *name)
{
	/* A procedure may have met such an error in a statement of its own, after it had committed others. */
	return attempt->end == ATTEMPT_ERROR && !dbha__retry_runs_code(rq->sql) &&
	       dbha__attempt_is_of_plan(attempt->result, name);
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
		dbha__attempt_note_use(conn, rq, dbha__sessionstate_hints(rq->sql), attempt);
		return;
	}
	struct stmt stmt;
	dbha__stmtcache_use(conn->statements, rq->sql, rq->n_params, rq->types, &stmt);
	run_cached(conn, rq, &stmt, deadline, attempt);
	dbha__attempt_note_use(conn, rq, stmt.hints, attempt);
}
