#include "xactstatus.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mark.h"

/* As the mark has them. One statement, so that a pooler cannot give the status to another server than the life. */
#define LIFE                                                                                                           \
	"CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN "                                                               \
	"pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END, "                \
	"(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, "                                  \
	"pg_catalog.pg_last_wal_replay_lsn()"

enum column {
	COL_TIMELINE,
	COL_STARTED,
	COL_REPLAY,
	COL_STATUS,
};

static void ask(struct conn *conn, const char *sql, int n_params, const char *const *params, int64_t deadline,
                struct attempt *attempt)
{
	dbha_request request = {
	    .size = sizeof request, .sql = sql, .flags = DBHA_UNPREPARED, .n_params = n_params, .values = params};
	dbha__exec(conn, &request, deadline, attempt);
}

static void done_with(struct attempt *attempt)
{
	PQclear(attempt->result);
	attempt->result = NULL;
}

static const char *text_of(const PGresult *result, enum column column)
{
	return PQgetisnull(result, 0, (int)column) ? NULL : PQgetvalue(result, 0, (int)column);
}

static void read_life(const PGresult *result, struct incarnation *is)
{
	const char *timeline = text_of(result, COL_TIMELINE);
	is->timeline = timeline ? (uint32_t)strtoul(timeline, NULL, 16) : 0;
	is->started_us = (int64_t)strtoull(PQgetvalue(result, 0, COL_STARTED), NULL, 10);
	if (!dbha__lsn_read(text_of(result, COL_REPLAY), &is->replay_lsn))
		is->replay_lsn = 0;
}

static enum xact_status status_of(const char *text)
{
	if (!text)
		return XACT_TOO_OLD;
	if (strcmp(text, "committed") == 0)
		return XACT_COMMITTED;
	if (strcmp(text, "aborted") == 0)
		return XACT_ABORTED;
	return strcmp(text, "in progress") == 0 ? XACT_IN_PROGRESS : XACT_FAILED;
}

static bool is_row(const struct attempt *attempt, int n_columns)
{
	return attempt->end == ATTEMPT_OK && PQntuples(attempt->result) == 1 && PQnfields(attempt->result) == n_columns;
}

/* "transaction ID is in the future": the number has not been given out there; who says so is asked again. */
static void ask_for_life(struct conn *conn, int64_t deadline, struct xact_answer *answer)
{
	ask(conn, "SELECT " LIFE, 0, NULL, deadline, &answer->attempt);
	if (is_row(&answer->attempt, COL_STATUS)) {
		read_life(answer->attempt.result, &answer->is);
		answer->status = XACT_NEVER;
	}
	done_with(&answer->attempt);
}

void dbha__xact_ask(struct conn *conn, uint64_t xid, int64_t deadline, struct xact_answer *answer)
{
	char number[24];
	const char *params[] = {number};
	snprintf(number, sizeof number, "%" PRIu64, xid);
	answer->status = XACT_FAILED;
	answer->is = (struct incarnation){0};
	ask(conn, "SELECT " LIFE ", pg_catalog.pg_xact_status($1::pg_catalog.xid8)", 1, params, deadline, &answer->attempt);
	bool in_the_future = answer->attempt.end == ATTEMPT_ERROR && strcmp(answer->attempt.sqlstate, "22023") == 0;
	if (is_row(&answer->attempt, COL_STATUS + 1)) {
		read_life(answer->attempt.result, &answer->is);
		answer->status = status_of(text_of(answer->attempt.result, COL_STATUS));
	}
	done_with(&answer->attempt);
	if (in_the_future)
		ask_for_life(conn, deadline, answer);
}

bool dbha__xact_terminate(struct conn *conn, const struct xact_mark *mark, int64_t deadline)
{
	char pid[16], xid[16];
	const char *params[] = {pid, xid};
	struct attempt attempt;
	snprintf(pid, sizeof pid, "%d", (int)mark->pid);
	snprintf(xid, sizeof xid, "%" PRIu32, (uint32_t)mark->xid); /* without its epoch, as pg_stat_activity has it */
	ask(conn,
	    "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity "
	    "WHERE pid = $1::pg_catalog.int4 AND backend_xid = $2::pg_catalog.xid",
	    2, params, deadline, &attempt);
	bool told = is_row(&attempt, 1) && strcmp(PQgetvalue(attempt.result, 0, 0), "t") == 0;
	done_with(&attempt);
	return told;
}

bool dbha__xact_look_up(struct conn *conn, const char *sql, const char *token, int64_t deadline,
                        struct attempt *attempt)
{
	ask(conn, sql, 1, &token, deadline, attempt);
	bool found = is_row(attempt, 1);
	done_with(attempt);
	return found;
}
