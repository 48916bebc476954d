#include "talk.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

dbha_session *talk_open(dbha *h)
{
	dbha_error err;
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_msg(s != NULL, "%s", s ? "" : err.message);
	return s;
}

int talk_as(dbha_session *s, dbha_intent intent, const char *sql, dbha_error *err)
{
	PGresult *result;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = 20000), &result, err);
	PQclear(result);
	return code;
}

int talk(dbha_session *s, const char *sql, dbha_error *err)
{
	return talk_as(s, DBHA_DEFAULT, sql, err);
}

const char *talk_ask(dbha_session *s, const char *format, ...)
{
	static char values[16][512];
	static int next;
	char sql[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(sql, sizeof sql, format, args);
	va_end(args);
	dbha_error err;
	PGresult *result;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .timeout_ms = 20000), &result, &err);
	ck_assert_msg(code == DBHA_OK, "%s: %s: %s", sql, dbha_code_name(code), code ? err.message : "");
	char *value = values[next++ % 16];
	snprintf(value, sizeof values[0], "%s", PQntuples(result) ? PQgetvalue(result, 0, 0) : PQcmdStatus(result));
	PQclear(result);
	return value;
}

dbha_session_status talk_status(dbha_session *s)
{
	dbha_error err;
	dbha_session_status status = {.size = sizeof status};
	ASSERT_OK(dbha_session_status_get(s, &status, &err), err);
	return status;
}

void talk_terminate(const struct cluster *c, int node, dbha_session *s)
{
	int pid = talk_status(s).backend_pid;
	ck_assert_int_gt(pid, 0);
	cluster_ask(c, node, "SELECT pg_terminate_backend(%d)", pid);
	WAIT_FOR(cluster_count(c, node, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) == 0, PATIENCE_MS);
}
