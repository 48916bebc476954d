#include "exec.h"

#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "retry.h"
#include "sessionstate.h"
#include "stmtcache.h"
#include "wait.h"

/* Until the server has said everything, or the connection breaks; false: until the deadline, and not everything has come. */
static bool take_results(struct conn *conn, int64_t deadline, struct attempt *attempt)
{
	enum waited waited;
	while ((waited = dbha__wait_result(conn, deadline)) == WAITED_READY) {
		PGresult *result = PQgetResult(conn->pg);
		if (!result) {
			dbha__attempt_judge(conn, attempt);
			return true;
		}
		if (dbha__attempt_is_copy(result)) {
			dbha__attempt_refuse_copy(conn, attempt, result);
			return true;
		}
		dbha__attempt_take(attempt, result);
	}
	if (waited == WAITED_BROKEN)
		dbha__attempt_lost(conn, attempt);
	return waited == WAITED_BROKEN;
}

/* drains: what is not answered by the deadline is worth a cancel request, and a moment more. */
static void collect(struct conn *conn, int64_t deadline, bool drains, struct attempt *attempt)
{
	enum waited waited = dbha__wait_flush(conn, deadline);
	if (waited == WAITED_BROKEN)
		dbha__attempt_lost(conn, attempt);
	else if (waited == WAITED_TIMEOUT ||
	         (!take_results(conn, deadline, attempt) &&
	          !(drains && dbha__wait_drain(conn, &deadline) && take_results(conn, deadline, attempt))))
		dbha__attempt_timed_out(attempt);
	if (conn->late)
		dbha__attempt_judge_late(conn, attempt);
}

static void run_unnamed(struct conn *conn, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (PQsendQueryParams(conn->pg, rq->sql, rq->n_params, rq->types, rq->values, rq->lengths, rq->formats,
	                      rq->result_format))
		collect(conn, deadline, true, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
}

static void run_prepared(struct conn *conn, const dbha_request *rq, const char *name, int64_t deadline,
                         struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (PQsendQueryPrepared(conn->pg, name, rq->n_params, rq->values, rq->lengths, rq->formats, rq->result_format))
		collect(conn, deadline, true, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
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
	dbha__attempt_timed_out(attempt);
	attempt->prepared_only = true;
	return false;
}

/* True: the statement is prepared. False: `attempt` says why; the statement itself has not been sent. */
static bool prepare(struct conn *conn, const dbha_request *rq, const char *name, int64_t deadline,
                    struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	if (PQsendPrepare(conn->pg, name, rq->sql, rq->n_params, rq->types))
		collect(conn, deadline, false, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
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
	dbha__wait_begin(conn);
	dbha__attempt_begin(&attempt);
	if (PQsendQuery(conn->pg, sql))
		collect(conn, deadline, false, &attempt);
	else
		dbha__attempt_not_sent(conn, &attempt);
	PQclear(attempt.result);
	return attempt.end == ATTEMPT_OK && !conn->late;
}

/* False: it took too long, or the connection is gone; `attempt` says so. That the server did not know the name is fine. */
static bool deallocate(struct conn *conn, const char *name, int64_t deadline, struct attempt *attempt)
{
	char sql[64];
	snprintf(sql, sizeof sql, "DEALLOCATE %s", name);
	dbha__attempt_begin(attempt);
	if (PQsendQuery(conn->pg, sql))
		collect(conn, deadline, false, attempt);
	else
		dbha__attempt_not_sent(conn, attempt);
	PQclear(attempt->result);
	attempt->result = NULL;
	if (attempt->end == ATTEMPT_OK || attempt->end == ATTEMPT_ERROR)
		return in_time(conn, deadline, attempt);
	never_executed(attempt);
	return false;
}

/* Runs it prepared; once more unprepared where the preparation turned out to be no good, outside a transaction. */
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
	/* A procedure may have met such an error in a statement of its own, after it had committed others. */
	if (attempt->end != ATTEMPT_ERROR || dbha__retry_runs_code(rq->sql))
		return;
	char name[sizeof stmt->evicted];
	snprintf(name, sizeof name, "%s", stmt->name);
	if (!dbha__attempt_mend_cache(conn, attempt->result, name))
		return;
	/* The error has ended the transaction, if there was one: what is left is to prepare it anew when it comes again. */
	if (dbha__conn_state(conn) != CONN_IDLE)
		return;
	PQclear(attempt->result);
	if (deallocate(conn, name, deadline, attempt))
		run_unnamed(conn, rq, deadline, attempt);
}

void dbha__exec(struct conn *conn, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	dbha__wait_begin(conn);
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
