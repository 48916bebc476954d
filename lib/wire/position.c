#include "position.h"

#include <string.h>

#include "mark.h"

static const char position_sql[] =
    "SELECT w.lsn, pg_catalog.pg_walfile_name(w.lsn) "
    "FROM (SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS lsn) "
    "AS w";

static const char replayed_sql[] =
    "SELECT pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.current_setting('transaction_isolation')";

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
