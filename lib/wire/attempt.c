#include "attempt.h"

#include <stdio.h>
#include <string.h>

#include "sessionstate.h"
#include "stmtcache.h"

void dbha__attempt_begin(struct attempt *attempt)
{
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
void dbha__attempt_not_sent(struct conn *conn, struct attempt *attempt)
{
	bool dead = PQstatus(conn->pg) != CONNECTION_OK;
	attempt->end = dead ? ATTEMPT_NOT_SENT : ATTEMPT_ERROR;
	snprintf(attempt->sqlstate, sizeof attempt->sqlstate, "%s", dead ? "" : "22023");
	dbha__conn_first_line(attempt->message, sizeof attempt->message, PQerrorMessage(conn->pg));
}

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
	snprintf(attempt->message, sizeof attempt->message,
	         "COPY needs a conversation: use dbha_session_copy_in or dbha_session_copy_out");
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

static void end_late(struct attempt *attempt, enum attempt_end end, const char *message)
{
	PQclear(attempt->result);
	attempt->result = NULL;
	attempt->end = end;
	snprintf(attempt->message, sizeof attempt->message, "%s", message);
}

void dbha__attempt_timed_out(struct attempt *attempt)
{
	end_late(attempt, ATTEMPT_TIMEOUT, "no answer before the deadline of the call");
}

void dbha__attempt_judge_late(const struct conn *conn, struct attempt *attempt)
{
	if (attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0)
		end_late(attempt, ATTEMPT_CANCELLED, "not done before the deadline of the call, and stopped");
	else if (attempt->end == ATTEMPT_OK && conn->unreplicated)
		end_late(attempt, ATTEMPT_TIMEOUT,
		         "committed, but not confirmed by the synchronous standby before the deadline of the call");
	else if (attempt->end == ATTEMPT_LOST)
		dbha__attempt_timed_out(attempt);
}

bool dbha__attempt_mend_cache(struct conn *conn, const PGresult *result, const char *name)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
	bool gone = state && strcmp(state, "26000") == 0 && message && strstr(message, name);
	bool bent = state && strcmp(state, "0A000") == 0 && function && strcmp(function, "RevalidateCachedQuery") == 0;
	if (gone)
		dbha__stmtcache_clear(conn->statements);
	else if (bent)
		dbha__stmtcache_refused(conn->statements, name);
	return gone || bent;
}

/* Two tags undo what the library itself has left there. */
static void follow_tag(struct conn *conn, const char *tag)
{
	if (strcmp(tag, "DISCARD ALL") == 0 || strcmp(tag, "DEALLOCATE ALL") == 0)
		dbha__stmtcache_clear(conn->statements);
	/* Reported by PostgreSQL 14 and newer, whoever has changed it. Behind a pooler nothing was set. */
	const char *read_only = PQparameterStatus(conn->pg, "default_transaction_read_only");
	if (conn->read_only_set && read_only && strcmp(read_only, "off") == 0)
		conn->read_only_set = false;
}

/* What the statement has left in its session. The common ones leave nothing, and that is seen at once. */
void dbha__attempt_note_use(struct conn *conn, const dbha_request *rq, unsigned hints, const struct attempt *attempt)
{
	if (rq->flags & DBHA_PIN)
		hints |= USE_ASKED;
	if (attempt->end != ATTEMPT_OK) {
		conn->used |= dbha__sessionstate_survivors(hints);
		return;
	}
	bool tagged = PQresultStatus(attempt->result) == PGRES_COMMAND_OK;
	const char *tag = tagged ? PQcmdStatus(attempt->result) : "";
	if (tag[0] == 'D' || tag[0] == 'R' || tag[0] == 'S')
		follow_tag(conn, tag);
	if (hints || tagged)
		conn->used = dbha__sessionstate_after(conn->used, hints, tag);
}

PGresult *dbha__attempt_empty_result(void)
{
	return PQmakeEmptyPGresult(NULL, PGRES_COMMAND_OK);
}

bool dbha__attempt_was_rolled_back(const PGresult *result)
{
	/* libpq wants to be able to write to a result that it only reads. */
	return strcmp(PQcmdStatus((PGresult *)result), "ROLLBACK") == 0;
}
