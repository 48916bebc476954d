#include "position.h"

#include <stdlib.h>
#include <string.h>

#include "mark.h"

static const char position_sql[] =
    "SELECT w.lsn, pg_catalog.pg_walfile_name(w.lsn) "
    "FROM (SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS lsn) "
    "AS w";

static const char replayed_sql[] =
    "SELECT pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.current_setting('transaction_isolation')";

/*
 * Who is in recovery still has been so before. The timeline of a standby is that of what it has received, which is no lower than that of
 * what it has replayed; not every role is told.
 */
static const char seen_sql[] =
    "SELECT w.lsn, CASE WHEN NOT w.replays THEN pg_catalog.pg_walfile_name(w.lsn) END, w.replays, "
    "CASE WHEN w.replays THEN (SELECT r.received_tli FROM pg_catalog.pg_stat_wal_receiver AS r) END "
    "FROM (SELECT s.replays, CASE WHEN s.replays THEN pg_catalog.pg_last_wal_replay_lsn() "
    "ELSE pg_catalog.pg_current_wal_insert_lsn() END AS lsn "
    "FROM (SELECT pg_catalog.pg_is_in_recovery() AS replays) AS s) AS w";

const char *dbha__position_sql(void)
{
	return position_sql;
}

const char *dbha__replayed_sql(void)
{
	return replayed_sql;
}

static const char *text_of(const PGresult *result, int column)
{
	bool there = PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) == 1 && PQnfields(result) > column &&
	             !PQgetisnull(result, 0, column);
	return there ? PQgetvalue(result, 0, column) : NULL;
}

bool dbha__position_read(const PGresult *result, struct token *token)
{
	struct token read = {.system_identifier = token->system_identifier};
	if (!dbha__lsn_read(text_of(result, 0), &read.lsn) || !dbha__timeline_read(text_of(result, 1), &read.timeline))
		return false;
	*token = read;
	return true;
}

uint64_t dbha__replayed_read(const PGresult *result, bool *keeps_snapshot)
{
	uint64_t lsn;
	const char *isolation = text_of(result, 1);
	*keeps_snapshot =
	    isolation && strcmp(isolation, "read committed") != 0 && strcmp(isolation, "read uncommitted") != 0;
	return dbha__lsn_read(text_of(result, 0), &lsn) ? lsn : 0;
}

const char *dbha__seen_sql(void)
{
	return seen_sql;
}

void dbha__seen_read(const PGresult *result, struct seen_position *seen)
{
	const char *replays = text_of(result, 2);
	const char *timeline = text_of(result, 3);
	seen->at.timeline = 0;
	seen->replayed = replays && *replays == 't';
	seen->told = replays && dbha__lsn_read(text_of(result, 0), &seen->at.lsn);
	if (seen->told && seen->replayed)
		seen->at.timeline = timeline ? (uint32_t)strtoul(timeline, NULL, 10) : 0;
	else if (seen->told)
		seen->told = dbha__timeline_read(text_of(result, 1), &seen->at.timeline);
}
