#include "fresh.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "talk.h"

static const char sql[] = "SELECT n FROM rows WHERE id = 1";

void fresh_cluster(struct cluster *c, const char *arguments)
{
	bool there = c->intact;
	if (!there)
		cluster_destroy(c);
	c->intact = false;
	if (there)
		return;
	cluster_with_rows(c, arguments, "id int PRIMARY KEY, n bigint");
	cluster_ask(c, 1, "INSERT INTO rows VALUES (1, 0)");
	cluster_ask(c, 1, "GRANT pg_read_all_stats TO app");
	cluster_all_catch_up(c);
}

static struct look begin_look(void)
{
	return (struct look){.n = -1, .route = {.size = sizeof(dbha_result_route)}, .took_ms = now_ms()};
}

static struct look end_look(struct look l, const PGresult *result)
{
	l.took_ms = now_ms() - l.took_ms;
	if (l.code == DBHA_OK && PQntuples(result) == 1)
		l.n = atol(PQgetvalue(result, 0, 0));
	return l;
}

struct look look_within(dbha_session *s, int consistency, int timeout_ms)
{
	PGresult *result;
	struct look l = begin_look();
	dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = DBHA_READ, .timeout_ms = timeout_ms,
	                               .consistency = consistency, .route = &l.route);
	l.code = dbha_session_exec(s, &rq, &result, &l.err);
	l = end_look(l, result);
	PQclear(result);
	return l;
}

struct look look_as(dbha_session *s, int consistency)
{
	return look_within(s, consistency, 20000);
}

struct look look(dbha_session *s)
{
	return look_as(s, DBHA_CONSISTENCY_DEFAULT);
}

struct look look_with(dbha *h, const char *token, int timeout_ms)
{
	PGresult *result;
	struct look l = begin_look();
	dbha_request rq =
	    DBHA_REQUEST(.sql = sql, .intent = DBHA_READ, .timeout_ms = timeout_ms, .token = token, .route = &l.route);
	l.code = dbha_exec(h, &rq, &result, &l.err);
	l = end_look(l, result);
	PQclear(result);
	return l;
}

struct look look_stream(dbha_session *s)
{
	PGresult *rows;
	struct look l = begin_look();
	dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = DBHA_READ, .timeout_ms = 20000, .route = &l.route);
	l.code = dbha_session_query(s, &rq, &l.err);
	bool more = l.code == DBHA_OK;
	while (more) {
		l.code = dbha_session_fetch(s, 20000, &rows, &l.err);
		more = l.code == DBHA_OK && rows;
		if (more && PQntuples(rows) == 1)
			l.n = atol(PQgetvalue(rows, 0, 0));
		PQclear(rows);
	}
	return l;
}

struct look look_copy(dbha_session *s)
{
	char *data;
	size_t length;
	struct look l = begin_look();
	dbha_request rq = DBHA_REQUEST(.sql = "COPY (SELECT n FROM rows WHERE id = 1) TO STDOUT", .intent = DBHA_READ,
	                               .timeout_ms = 20000, .route = &l.route);
	l.code = dbha_session_copy_out(s, &rq, &l.err);
	bool more = l.code == DBHA_OK;
	while (more) {
		l.code = dbha_session_copy_get(s, 20000, &data, &length, &l.err);
		more = l.code == DBHA_OK && data;
		if (more) {
			l.n = atol(data);
			PQfreemem(data);
		}
	}
	return l;
}

long raise_row(dbha_session *s)
{
	PGresult *result;
	dbha_error err;
	dbha_request rq = DBHA_REQUEST(.sql = "UPDATE rows SET n = n + 1 WHERE id = 1 RETURNING n", .intent = DBHA_WRITE,
	                               .timeout_ms = 20000);
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	long n = atol(PQgetvalue(result, 0, 0));
	PQclear(result);
	return n;
}

#define SESSIONS_MAX 64

static dbha_session *sessions[SESSIONS_MAX];

static void close_sessions(void)
{
	for (int i = 0; i < SESSIONS_MAX; i++) {
		dbha_session_close(sessions[i]);
		sessions[i] = NULL;
	}
}

static int place_of(const dbha_session *s)
{
	int i = 0;
	while (i < SESSIONS_MAX && sessions[i] != s)
		i++;
	ck_assert_int_lt(i, SESSIONS_MAX);
	return i;
}

dbha_session *open_session(dbha *h)
{
	before_handles_close = close_sessions;
	return sessions[place_of(NULL)] = talk_open(h);
}

void close_session(dbha_session *s)
{
	sessions[place_of(s)] = NULL;
	dbha_session_close(s);
}

dbha_session *placed_session(dbha *h)
{
	dbha_session *s = open_session(h);
	struct look l = look(s);
	ASSERT_OK(l.code, l.err);
	return s;
}

void token_of(dbha_session *s, char token[DBHA_TOKEN_MAX])
{
	dbha_error err;
	ASSERT_OK(dbha_session_token(s, token, 20000, &err), err);
}

void hold_replay(const struct cluster *c, int node)
{
	cluster_ask(c, node, "SELECT pg_wal_replay_pause()");
	/* It gets there with the next record, or at once where there is none. */
	WAIT_FOR(strcmp(cluster_ask(c, node, "SELECT pg_get_wal_replay_pause_state()"), "paused") == 0, PATIENCE_MS);
}

void go_on_replay(const struct cluster *c, int node)
{
	cluster_ask(c, node, "SELECT pg_wal_replay_resume()");
}
