#include "mark.h"

#include <stdlib.h>
#include <string.h>

/*
 * The position is taken behind the first write, so a history that reaches it has the number of the transaction in it; and before
 * the commit, so a history that does not reach it cannot have the commit. Timeline and start time are those of struct
 * observation, to be compared with them. A standby has no position to insert at: NULL there, and not an error.
 */
static const char mark_sql[] =
    "SELECT pg_catalog.pg_current_xact_id_if_assigned(), w.lsn, pg_catalog.pg_walfile_name(w.lsn), "
    "(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, "
    "pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_backend_pid() "
    "FROM (SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END AS lsn) "
    "AS w";

enum column {
	COL_XID,
	COL_LSN,
	COL_WALFILE,
	COL_STARTED,
	COL_REPLAY,
	COL_PID,
	N_COLUMNS,
};

const char *dbha__mark_sql(void)
{
	return mark_sql;
}

/* A number of digits alone, above 0 and at most `max`. */
static bool read_number(const char *text, uint64_t max, uint64_t *number)
{
	uint64_t n = 0;
	for (; text && *text; text++) {
		if (*text < '0' || *text > '9' || n > (max - (uint64_t)(*text - '0')) / 10)
			return false;
		n = n * 10 + (uint64_t)(*text - '0');
	}
	*number = n;
	return n > 0;
}

/* 1 to 8 hexadecimal digits; returns the first character behind them, or NULL. */
static const char *read_hex(const char *text, uint32_t *number)
{
	size_t n = strspn(text, "0123456789abcdefABCDEF");
	if (n < 1 || n > 8)
		return NULL;
	char digits[9] = "";
	memcpy(digits, text, n);
	*number = (uint32_t)strtoul(digits, NULL, 16);
	return text + n;
}

bool dbha__lsn_read(const char *text, uint64_t *lsn)
{
	uint32_t high, low;
	const char *slash = text ? read_hex(text, &high) : NULL;
	if (!slash || *slash != '/')
		return false;
	const char *end = read_hex(slash + 1, &low);
	if (!end || *end)
		return false;
	*lsn = (uint64_t)high << 32 | low;
	return true;
}

bool dbha__timeline_read(const char *walfile, uint32_t *timeline)
{
	if (!walfile || strlen(walfile) != 24 || strspn(walfile, "0123456789ABCDEF") != 24)
		return false;
	char digits[9] = "";
	memcpy(digits, walfile, 8);
	*timeline = (uint32_t)strtoul(digits, NULL, 16);
	return *timeline > 0;
}

static const char *text_of(const PGresult *result, enum column column)
{
	return PQgetisnull(result, 0, (int)column) ? NULL : PQgetvalue(result, 0, (int)column);
}

static bool is_one_row_of_text(const PGresult *result)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1 || PQnfields(result) != N_COLUMNS)
		return false;
	for (int i = 0; i < N_COLUMNS; i++)
		if (PQfformat(result, i) != 0)
			return false;
	return true;
}

bool dbha__mark_read(const PGresult *result, struct xact_mark *mark)
{
	struct xact_mark read = {0};
	uint64_t started, pid;
	if (!is_one_row_of_text(result))
		return false;
	if (!read_number(text_of(result, COL_XID), UINT64_MAX, &read.xid) ||
	    !dbha__lsn_read(text_of(result, COL_LSN), &read.lsn) || read.lsn == 0 ||
	    !dbha__timeline_read(text_of(result, COL_WALFILE), &read.timeline) ||
	    !read_number(text_of(result, COL_STARTED), INT64_MAX, &started) ||
	    !read_number(text_of(result, COL_PID), INT32_MAX, &pid))
		return false;
	const char *replay = text_of(result, COL_REPLAY);
	if (replay && !dbha__lsn_read(replay, &read.replay_lsn))
		return false;
	read.started_us = (int64_t)started;
	read.pid = (int32_t)pid;
	*mark = read;
	return true;
}

bool dbha__mark_is_there(const PGresult *result)
{
	return PQntuples(result) != 1 || PQnfields(result) < 1 || !PQgetisnull(result, 0, COL_XID);
}
