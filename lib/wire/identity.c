#include "identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/*
 * The timeline of a primary is the first 8 hex digits of its current WAL file's name: right after a promotion
 * pg_control_checkpoint() still has the old one. pg_walfile_name() fails on a standby. Its timeline is in pg_control_recovery(), which
 * for minutes after a promotion elsewhere, until the next restartpoint, may have the one before; the WAL receiver has it at once,
 * for a role with pg_read_all_stats. A promotion may come between two columns: where the WAL file has a name, it is a primary.
 *
 * Of a primary the position is what it has flushed: standbys are given no more, and what a crash leaves is no less. Where its recovery
 * ended says which life of it this is, and stands still, so that a standby's replay position serves for both.
 */
#define BASIC_COLUMNS                                                                                                  \
	"pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('default_transaction_read_only'), "                    \
	"(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, pg_catalog.pg_backend_pid()"
#define FULL_COLUMNS                                                                                                   \
	", CASE WHEN NOT pg_catalog.pg_is_in_recovery() "                                                                  \
	"THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()) END"                                             \
	", CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() "                             \
	"ELSE pg_catalog.pg_current_wal_flush_lsn() END"                                                                   \
	", (SELECT system_identifier FROM pg_catalog.pg_control_system())"                                                 \
	", (SELECT GREATEST(min_recovery_end_timeline, (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)) "       \
	"FROM pg_catalog.pg_control_recovery())"                                                                           \
	", pg_catalog.pg_last_wal_replay_lsn()"

/* A second statement of the same message, with the backend's pid as libpq was told it. */
#define MAKE_READER                                                                                                    \
	"; SELECT pg_catalog.set_config('default_transaction_read_only', 'on', false) "                                    \
	"WHERE pg_catalog.pg_is_in_recovery() AND pg_catalog.pg_backend_pid() = %d"

enum column {
	COL_IN_RECOVERY,
	COL_READ_ONLY,
	COL_STARTED,
	COL_PID,
	COL_WALFILE,
	COL_LSN,
	COL_SYSTEM_IDENTIFIER,
	COL_RECOVERY_TIMELINE,
	COL_REPLAY,
	N_COLUMNS_BASIC = COL_WALFILE,
};

bool dbha__identity_ask(struct conn *conn, bool make_reader)
{
	char sql[1400];
	int used = snprintf(sql, sizeof sql, "SELECT %s%s", BASIC_COLUMNS, conn->basic_identity ? "" : FULL_COLUMNS);
	if (make_reader)
		snprintf(sql + used, sizeof sql - (size_t)used, MAKE_READER, PQbackendPID(conn->pg));
	conn->identity = IDENTITY_ASKED;
	conn->wants_reader = make_reader;
	return PQsendQuery(conn->pg, sql);
}

static const char *text_of(const PGresult *result, enum column column)
{
	int i = (int)column;
	if (i >= PQnfields(result) || PQgetisnull(result, 0, i))
		return NULL;
	return PQgetvalue(result, 0, i);
}

static uint64_t number_of(const PGresult *result, enum column column)
{
	const char *text = text_of(result, column);
	return text ? strtoull(text, NULL, 10) : 0;
}

/* "16/B374D848" */
static uint64_t lsn_of(const char *text)
{
	char *slash;
	if (!text)
		return 0;
	uint64_t high = strtoull(text, &slash, 16);
	return *slash == '/' ? high << 32 | strtoull(slash + 1, NULL, 16) : 0;
}

static uint32_t timeline_of(const char *walfile)
{
	char digits[9] = "";
	strncat(digits, walfile, 8);
	return (uint32_t)strtoul(digits, NULL, 16);
}

static void read_row(const PGresult *result, struct observation *observation)
{
	const char *walfile = text_of(result, COL_WALFILE);
	observation->in_recovery = !walfile && strcmp(PQgetvalue(result, 0, COL_IN_RECOVERY), "t") == 0;
	observation->read_only = strcmp(PQgetvalue(result, 0, COL_READ_ONLY), "on") == 0;
	observation->started_us = (int64_t)number_of(result, COL_STARTED);
	observation->system_identifier = number_of(result, COL_SYSTEM_IDENTIFIER);
	observation->lsn = lsn_of(text_of(result, COL_LSN));
	observation->replay_lsn = observation->in_recovery ? 0 : lsn_of(text_of(result, COL_REPLAY));
	observation->timeline = walfile ? timeline_of(walfile) : (uint32_t)number_of(result, COL_RECOVERY_TIMELINE);
}

/* insufficient_privilege, undefined_function: a role that may not look, or a server before PostgreSQL 10. */
static bool may_not_read(const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	return state && (strcmp(state, "42501") == 0 || strcmp(state, "42883") == 0);
}

static void take_result(struct conn *conn, const PGresult *result, struct observation *observation)
{
	bool rows = PQresultStatus(result) == PGRES_TUPLES_OK;
	if (rows && PQnfields(result) >= N_COLUMNS_BASIC && PQntuples(result) == 1) {
		read_row(result, observation);
		conn->standby = observation->in_recovery;
		/*
		 * A pooler in between tells libpq a pid of its own. What the parameters report of the role is then of whichever
		 * server the pooler met first, and is looked at by nobody here.
		 */
		conn->direct = number_of(result, COL_PID) == (uint64_t)PQbackendPID(conn->pg);
		conn->identity = IDENTITY_READ;
	} else if (rows) {
		conn->read_only_set = PQntuples(result) == 1;
	} else if (PQresultStatus(result) == PGRES_FATAL_ERROR && !conn->basic_identity && may_not_read(result)) {
		conn->identity = IDENTITY_REFUSED;
	}
}

static enum conn_poll end_of_answer(struct conn *conn)
{
	if (conn->identity == IDENTITY_READ && PQstatus(conn->pg) == CONNECTION_OK)
		return CONN_READY;
	if (conn->identity != IDENTITY_REFUSED)
		return CONN_FAILED;
	conn->basic_identity = true;
	return dbha__identity_ask(conn, conn->wants_reader) ? CONN_WANT_READ : CONN_FAILED;
}

enum conn_poll dbha__identity_answer(struct conn *conn, struct observation *observation)
{
	if (!PQconsumeInput(conn->pg))
		return CONN_FAILED;
	int flush = PQflush(conn->pg);
	if (flush != 0)
		return flush > 0 ? CONN_WANT_WRITE : CONN_FAILED;
	while (!PQisBusy(conn->pg)) {
		PGresult *result = PQgetResult(conn->pg);
		if (!result)
			return end_of_answer(conn);
		take_result(conn, result, observation);
		PQclear(result);
	}
	return CONN_WANT_READ;
}
