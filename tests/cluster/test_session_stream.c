/*
 * test_session_stream: results row by row and COPY in sessions, as an application sees them: where they go, in and out of transactions, what a
 * loss means, and that the session is free behind them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"

static struct cluster c;
static dbha *h;
static dbha_session *s;
static dbha_error err;

static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id int, text text");
	h = open_all(&c, "application_name=streaming");
	s = dbha_session_open(h, &err);
	ck_assert(s != NULL);
}

/* What broke nothing leaves the servers to the next test. */
static void after(void)
{
	dbha_session_close(s);
	s = NULL;
}

/* ---- small things ------------------------------------------------------------------------------------------------- */

static int query(const char *sql, dbha_intent intent, int timeout_ms)
{
	memset(&err, 0, sizeof err);
	return dbha_session_query(s, &DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = timeout_ms), &err);
}

static int copy_in(const char *sql)
{
	memset(&err, 0, sizeof err);
	return dbha_session_copy_in(s, &DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE), &err);
}

static int copy_out(const char *sql, dbha_intent intent)
{
	memset(&err, 0, sizeof err);
	return dbha_session_copy_out(s, &DBHA_REQUEST(.sql = sql, .intent = intent), &err);
}

static int put(const char *text)
{
	return dbha_session_copy_put(s, text, strlen(text), 0, &err);
}

/* Ends the COPY; how many rows its tag says, or -1 where it failed. */
static int end_copy(int *code, const char *refusal)
{
	PGresult *result;
	*code = dbha_session_copy_end(s, refusal, 0, &result, &err);
	int rows = *code == DBHA_OK && !refusal ? atoi(PQcmdTuples(result)) : -1;
	PQclear(result);
	return rows;
}

/* Fetches to the end; how many rows. */
static int fetch_all(int *code, int timeout_ms)
{
	PGresult *rows;
	int n = 0;
	while ((*code = dbha_session_fetch(s, timeout_ms, &rows, &err)) == DBHA_OK && rows) {
		n += PQntuples(rows);
		PQclear(rows);
	}
	PQclear(rows);
	return n;
}

static int exec(const char *sql)
{
	PGresult *result;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE), &result, &err);
	PQclear(result);
	return code;
}

static dbha_session_status status(void)
{
	dbha_session_status now = {.size = sizeof now};
	ASSERT_OK(dbha_session_status_get(s, &now, &err), err);
	return now;
}

/* The session is as one that has done nothing: no connection, no transaction. */
static void assert_free(void)
{
	int used = 0;
	for (int i = 0; i < c.nodes; i++)
		used += node_status(h, i).pool_used;
	ck_assert_int_eq(used, 0);
	ck_assert_int_eq(status().backend_pid, 0);
	ck_assert_int_eq(status().state, DBHA_SESSION_IDLE);
	ASSERT_OK(exec("SELECT 1"), err);
}

static long rows_on(int node)
{
	return cluster_count(&c, node, "SELECT count(*) FROM rows");
}

static void terminate(int pid)
{
	for (int node = 1; node <= c.nodes; node++)
		cluster_ask(&c, node, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %d", pid);
	for (int node = 1; node <= c.nodes; node++)
		WAIT_FOR(cluster_count(&c, node, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) == 0,
		         PATIENCE_MS);
}

/* No backend of ours does anything. */
static void wait_until_idle(void)
{
	for (int node = 1; node <= c.nodes; node++)
		WAIT_FOR(cluster_count(&c, node,
		                       "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streaming' AND state "
		                       "<> 'idle'") == 0,
		         PATIENCE_MS);
}

static void leave_intact(void)
{
	dbha_session_close(s);
	s = NULL;
	cluster_as_before(&c, h);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

START_TEST(a_large_read_is_fetched_from_a_standby)
{
	int code;
	int64_t began = now_ms();
	ASSERT_OK(query("SELECT i, pg_is_in_recovery(), repeat('x', 100) FROM generate_series(1, 1000000) i", DBHA_READ, 0),
	          err);
	PGresult *rows;
	ASSERT_OK(dbha_session_fetch(s, 0, &rows, &err), err);
	ck_assert_str_eq(PQgetvalue(rows, 0, 1), "t");
	int n = PQntuples(rows);
	PQclear(rows);
	ck_assert_int_gt(status().backend_pid, 0);
	ck_assert_int_eq(status().state, DBHA_SESSION_IDLE);
	n += fetch_all(&code, 0);
	ASSERT_OK(code, err);
	ck_assert_int_eq(n, 1000000);
	printf("1,000,000 rows through a session: %lld ms\n", (long long)(now_ms() - began));
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(the_end_is_told_once_and_behind_it_there_is_nothing)
{
	PGresult *rows;
	static const char *const statements[][2] = {
	    {"SELECT 1 WHERE false", "SELECT 0"},
	    {"INSERT INTO rows VALUES (1), (2)", "INSERT 0 2"},
	    {"DELETE FROM rows", "DELETE 2"},
	    {"/* a comment */ SELECT 1 WHERE false", "SELECT 0"},
	};
	for (int i = 0; i < 4; i++) {
		ASSERT_OK(query(statements[i][0], DBHA_WRITE, 0), err);
		ASSERT_OK(dbha_session_fetch(s, 0, &rows, &err), err);
		ck_assert_str_eq(PQcmdStatus(rows), statements[i][1]);
		ck_assert_int_eq(PQntuples(rows), 0);
		PQclear(rows);
		ASSERT_OK(dbha_session_fetch(s, 0, &rows, &err), err);
		ck_assert_ptr_null(rows);
		ASSERT_CODE(dbha_session_fetch(s, 0, &rows, &err), USAGE, err);
		ASSERT_OK(dbha_session_finish(s, &err), err);
		assert_free();
	}
	leave_intact();
}
END_TEST

START_TEST(a_read_that_writes_is_done_on_the_primary)
{
	int code;
	ASSERT_OK(query("INSERT INTO rows SELECT generate_series(1, 1000) RETURNING id", DBHA_READ, 0), err);
	ck_assert_int_eq(fetch_all(&code, 0), 1000);
	ASSERT_OK(code, err);
	ck_assert_int_eq(rows_on(1), 1000);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(errors_of_a_query_are_told_by_it_or_by_the_fetch_that_meets_them)
{
	int code;
	ASSERT_CODE(query("SELECT 1 / 0", DBHA_READ, 0), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "22012");
	assert_free();
	ASSERT_OK(query("SELECT 1 / (5001 - i) FROM generate_series(1, 10000) i", DBHA_READ, 0), err);
	ck_assert_int_eq(fetch_all(&code, 0), 5000);
	ASSERT_CODE(code, SERVER, err);
	ck_assert_str_eq(err.sqlstate, "22012");
	ASSERT_HAS(err.node, "127.0.0.1:");
	ck_assert_int_eq(err.attempts, 1);
	ck_assert(!err.outcome_unknown);
	ASSERT_CODE(dbha_session_fetch(s, 0, &(PGresult *){NULL}, &err), USAGE, err);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(while_a_result_is_read_nothing_else_is_done)
{
	int code;
	PGresult *result = NULL;
	ASSERT_OK(query("SELECT generate_series(1, 100000)", DBHA_READ, 0), err);
	ASSERT_CODE(exec("SELECT 1"), USAGE, err);
	ASSERT_HAS(err.message, "dbha_session_finish");
	ASSERT_CODE(query("SELECT 1", DBHA_READ, 0), USAGE, err);
	ASSERT_CODE(dbha_session_begin(s, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_commit(s, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_session_rollback(s, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint(s, "a", 0, &err), USAGE, err);
	ASSERT_CODE(copy_in("COPY rows FROM STDIN"), USAGE, err);
	ASSERT_CODE(put("1\tx\n"), USAGE, err);
	ASSERT_CODE(dbha_session_copy_end(s, NULL, 0, &result, &err), USAGE, err);
	char *data;
	size_t length;
	ASSERT_CODE(dbha_session_copy_get(s, 0, &data, &length, &err), USAGE, err);
	ck_assert_int_eq(fetch_all(&code, 0), 100000);
	ASSERT_OK(code, err);
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_CODE(dbha_session_fetch(s, 0, &result, &err), USAGE, err);
	ASSERT_CODE(exec("SELECT 1"), USAGE, err);
	ASSERT_OK(dbha_session_finish(s, &err), err);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(a_result_is_given_up_within_its_time)
{
	int64_t best = INT64_MAX;
	for (int i = 0; i < 4 || (i < 20 && best > SLACK_MS); i++) {
		PGresult *rows;
		if (i != 3)
			ASSERT_OK(query("SELECT generate_series(1, 1000000000), repeat('x', 100)", DBHA_READ, 0), err);
		else
			ASSERT_OK(copy_out("COPY (SELECT generate_series(1, 1000000000)) TO STDOUT", DBHA_READ), err);
		if (i < 2) {
			ASSERT_OK(dbha_session_fetch(s, 0, &rows, &err), err);
			PQclear(rows);
		}
		int64_t began = now_ms();
		ASSERT_OK(dbha_session_finish(s, &err), err);
		int64_t took = now_ms() - began;
		best = took < best ? took : best;
		assert_free();
		wait_until_idle();
	}
	printf("given up within %lld ms\n", (long long)best);
	ck_assert_int_le(best, SLACK_MS);
	leave_intact();
}
END_TEST

START_TEST(a_session_that_is_closed_or_reset_gives_its_result_up)
{
	ASSERT_OK(query("SELECT generate_series(1, 1000000000), repeat('x', 100)", DBHA_READ, 0), err);
	ASSERT_OK(dbha_session_reset(s, &err), err);
	assert_free();
	wait_until_idle();
	ASSERT_OK(query("SELECT generate_series(1, 1000000000), repeat('x', 100)", DBHA_READ, 0), err);
	dbha_session_close(s);
	wait_until_idle();
	s = dbha_session_open(h, &err);
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\n"), err);
	dbha_session_close(s);
	wait_until_idle();
	ck_assert_int_eq(rows_on(1), 0);
	s = dbha_session_open(h, &err);
	/* A result that has come whole holds no connection; nobody need fetch it. */
	ASSERT_OK(query("SELECT 1 WHERE false", DBHA_READ, 0), err);
	dbha_session_close(s);
	s = dbha_session_open(h, &err);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(a_handle_that_is_closed_ends_the_results_of_its_sessions)
{
	dbha *other = open_all(&c, NULL);
	dbha_session *t = dbha_session_open(other, &err);
	ASSERT_OK(
	    dbha_session_query(t, &DBHA_REQUEST(.sql = "SELECT generate_series(1, 1000000000)", .intent = DBHA_READ), &err),
	    err);
	close_handle(other, 0);
	PGresult *rows;
	int64_t end = now_ms() + PATIENCE_MS;
	int code;
	while ((code = dbha_session_fetch(t, 1000, &rows, &err)) == DBHA_OK && rows && now_ms() < end)
		PQclear(rows);
	ck_assert_int_ne(code, DBHA_OK);
	PQclear(rows);
	dbha_session_close(t);
	leave_intact();
}
END_TEST

START_TEST(a_fetch_ends_with_its_deadline)
{
	int64_t best = INT64_MAX;
	int code;
	for (int i = 0; i < 3; i++) {
		ASSERT_OK(query("SELECT repeat('x', 2000), pg_sleep(CASE i WHEN 250 THEN 60 ELSE 0 END) FROM "
		                "generate_series(1, 300) i",
		                DBHA_READ, 0),
		          err);
		int64_t began = now_ms();
		ck_assert_int_ge(fetch_all(&code, 300), 1);
		int64_t took = now_ms() - began;
		ASSERT_CODE(code, TIMEOUT, err);
		best = took < best ? took : best;
		assert_free();
	}
	ck_assert_int_le(best, 300 + SLACK_MS);
	wait_until_idle();
	ASSERT_CODE(query("SELECT pg_sleep(60)", DBHA_READ, 200), TIMEOUT, err);
	assert_free();
	leave_intact();
}
END_TEST

static void *cancel_later(void *arg)
{
	(void)arg;
	WAIT_FOR(cluster_count(&c, 1,
	                       "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%pg_sleep(CASE%%' AND pid <> "
	                       "pg_backend_pid() AND wait_event = 'PgSleep'") == 1,
	         PATIENCE_MS);
	dbha_cancel(s, NULL);
	return NULL;
}

START_TEST(another_thread_cancels_a_fetch)
{
	int code;
	ASSERT_OK(
	    query("SELECT repeat('x', 2000), pg_sleep(CASE i WHEN 250 THEN 60 ELSE 0 END) FROM generate_series(1, 300) i",
	          DBHA_WRITE, 0),
	    err);
	pthread_t thread = start_thread(cancel_later, NULL);
	int64_t began = now_ms();
	fetch_all(&code, 30000);
	join_thread(thread);
	ASSERT_CODE(code, CANCELED, err);
	ck_assert_str_eq(err.sqlstate, "57014");
	ck_assert_int_lt(now_ms() - began, 15000);
	assert_free();
	leave_intact();
}
END_TEST

/* ---- COPY ------------------------------------------------------------------------------------------------------------ */

START_TEST(data_goes_in_and_comes_out)
{
	enum { N = 200000 };
	int code;
	char line[64];
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	int64_t began = now_ms();
	for (int i = 0; i < N; i++) {
		size_t length = (size_t)sprintf(line, "%d\tline %d\n", i, i);
		ASSERT_OK(dbha_session_copy_put(s, line, length, 0, &err), err);
	}
	ck_assert_int_eq(end_copy(&code, NULL), N);
	ASSERT_OK(code, err);
	printf("%d rows in: %lld ms\n", N, (long long)(now_ms() - began));
	assert_free();
	ck_assert_int_eq(rows_on(1), N);
	cluster_all_catch_up(&c);

	ASSERT_OK(copy_out("COPY (SELECT *, pg_is_in_recovery() FROM rows ORDER BY id) TO STDOUT", DBHA_READ), err);
	char *data;
	size_t length;
	for (int i = 0; i < N; i++) {
		ASSERT_OK(dbha_session_copy_get(s, 0, &data, &length, &err), err);
		int expected = sprintf(line, "%d\tline %d\tt\n", i, i);
		bool same = data && length == (size_t)expected && strcmp(data, line) == 0;
		PQfreemem(data);
		ck_assert_msg(same, "line %d", i);
	}
	ASSERT_OK(dbha_session_copy_get(s, 0, &data, &length, &err), err);
	ck_assert_ptr_null(data);
	ck_assert_uint_eq(length, 0);
	ASSERT_CODE(dbha_session_copy_get(s, 0, &data, &length, &err), USAGE, err);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(a_copy_that_fails_keeps_nothing_and_may_be_done_again)
{
	int code;
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\nno number\ty\n"), err);
	end_copy(&code, NULL);
	ASSERT_CODE(code, SERVER, err);
	ck_assert_str_eq(err.sqlstate, "22P02");
	ck_assert(err.retry_safe && !err.outcome_unknown);
	assert_free();
	/* Told in the middle. */
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("no number\ty\n"), err);
	int64_t end = now_ms() + PATIENCE_MS;
	while ((code = put("1\tx\n")) == DBHA_OK && now_ms() < end)
		short_pause();
	ASSERT_CODE(code, SERVER, err);
	ck_assert_str_eq(err.sqlstate, "22P02");
	ASSERT_CODE(put("1\tx\n"), USAGE, err);
	assert_free();
	/* Refused. */
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\n"), err);
	PGresult *result;
	ASSERT_OK(dbha_session_copy_end(s, "second thoughts", 0, &result, &err), err);
	ASSERT_HAS(PQresultErrorMessage(result), "second thoughts");
	PQclear(result);
	assert_free();
	ck_assert_int_eq(rows_on(1), 0);
	leave_intact();
}
END_TEST

START_TEST(what_is_no_copy_is_refused)
{
	char *data;
	size_t length;
	PGresult *rows;
	const char *value = "1";
	static const char *const no_copies[] = {"SELECT 1", "", "INSERT INTO rows VALUES (1)", "COPYING", "COMMIT"};
	for (int i = 0; i < 5; i++) {
		ASSERT_CODE(copy_in(no_copies[i]), USAGE, err);
		ASSERT_CODE(copy_out(no_copies[i], DBHA_READ), USAGE, err);
	}
	ASSERT_CODE(query("COPY rows FROM STDIN", DBHA_WRITE, 0), USAGE, err);
	ASSERT_HAS(err.message, "dbha_session_copy_in");
	ASSERT_CODE(exec("COPY rows TO STDOUT"), USAGE, err);
	ASSERT_CODE(
	    dbha_session_copy_in(s, &DBHA_REQUEST(.sql = "COPY rows FROM STDIN", .n_params = 1, .values = &value), &err),
	    USAGE, err);
	ASSERT_CODE(
	    dbha_session_copy_in(s, &DBHA_REQUEST(.sql = "COPY rows FROM STDIN", .flags = DBHA_SERVER_TIMEOUT), &err),
	    USAGE, err);
	ASSERT_CODE(dbha_session_query(s, &DBHA_REQUEST(.sql = "SELECT 1", .flags = DBHA_SERVER_TIMEOUT), &err), USAGE,
	            err);
	/* In the other direction, which the server says; and one that moves nothing between server and client. */
	ASSERT_CODE(copy_in("COPY rows TO STDOUT"), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "0A000");
	ASSERT_CODE(copy_out("COPY rows FROM STDIN", DBHA_WRITE), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "0A000");
	cluster_ask(&c, 1, "GRANT pg_write_server_files TO app");
	ASSERT_CODE(copy_out("COPY rows TO '/dev/null'", DBHA_WRITE), USAGE, err);
	ASSERT_HAS(err.message, "has been executed");
	ASSERT_OK(exec("COPY rows TO '/dev/null'"), err);
	cluster_ask(&c, 1, "REVOKE pg_write_server_files FROM app");
	/* Two statements. */
	ASSERT_CODE(copy_in("COPY rows FROM STDIN; SELECT 1"), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "42601");
	assert_free();

	/* Nothing, and nonsense. */
	ASSERT_CODE(dbha_session_query(NULL, &DBHA_REQUEST(.sql = "SELECT 1"), &err), USAGE, err);
	ASSERT_CODE(dbha_session_query(s, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_query(s, &DBHA_REQUEST(.sql = NULL), &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_in(NULL, &DBHA_REQUEST(.sql = "COPY rows FROM STDIN"), &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_in(s, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_out(NULL, &DBHA_REQUEST(.sql = "COPY rows TO STDOUT"), &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_out(s, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_fetch(NULL, 0, &rows, &err), USAGE, err);
	ASSERT_CODE(dbha_session_fetch(s, 0, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_fetch(s, 0, &rows, &err), USAGE, err);
	ck_assert_ptr_null(rows);
	ASSERT_CODE(dbha_session_finish(NULL, &err), USAGE, err);
	ASSERT_OK(dbha_session_finish(s, &err), err);
	ASSERT_CODE(dbha_session_copy_put(NULL, "", 0, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_put(s, "", 0, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_end(NULL, NULL, 0, &rows, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_end(s, NULL, 0, &rows, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_get(NULL, 0, &data, &length, &err), USAGE, err);
	ck_assert_int_eq(dbha_session_fetch(s, 0, &rows, NULL), DBHA_ERR_USAGE);
	ASSERT_OK(query("SELECT generate_series(1, 100000)", DBHA_READ, 0), err);
	ASSERT_CODE(dbha_session_fetch(s, -1, &rows, &err), USAGE, err);
	ASSERT_OK(dbha_session_finish(s, NULL), err);
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_CODE(dbha_session_copy_put(s, NULL, 1, 0, &err), USAGE, err);
	ASSERT_OK(dbha_session_copy_put(s, NULL, 0, 0, &err), err);
	ASSERT_CODE(dbha_session_copy_put(s, "", 0, -1, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_end(s, NULL, -1, &rows, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_end(s, NULL, 0, NULL, &err), USAGE, err);
	ASSERT_OK(dbha_session_copy_end(s, NULL, 0, &rows, NULL), err);
	PQclear(rows);
	ASSERT_OK(copy_out("COPY rows TO STDOUT", DBHA_READ), err);
	ASSERT_CODE(dbha_session_copy_get(s, 0, NULL, &length, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_get(s, 0, &data, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_copy_get(s, -1, &data, &length, &err), USAGE, err);
	ASSERT_OK(dbha_session_copy_get(s, 0, &data, &length, NULL), err);
	ck_assert_ptr_null(data);
	assert_free();
	leave_intact();
}
END_TEST

/* ---- in transactions --------------------------------------------------------------------------------------------------- */

START_TEST(streams_are_part_of_their_transaction)
{
	int code;
	for (int commit = 0; commit <= 1; commit++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
		int pid = status().backend_pid;
		ck_assert_int_eq(status().state, DBHA_SESSION_IN_TRANSACTION);
		ASSERT_OK(put("1\tx\n2\ty\n"), err);
		ck_assert_int_eq(end_copy(&code, NULL), 2);
		ASSERT_OK(code, err);
		ck_assert_int_eq(status().state, DBHA_SESSION_IN_TRANSACTION);
		/* By this its COMMIT can be resolved, though nothing but a COPY has written. */
		ck_assert_uint_gt(status().xid, 0);
		ASSERT_OK(query("SELECT id FROM rows", DBHA_READ, 0), err);
		ck_assert_int_eq(status().state, DBHA_SESSION_IN_TRANSACTION);
		ck_assert_int_eq(fetch_all(&code, 0), 2);
		ASSERT_OK(code, err);
		ASSERT_OK(query("INSERT INTO rows SELECT generate_series(10, 109) RETURNING id", DBHA_WRITE, 0), err);
		ck_assert_int_eq(fetch_all(&code, 0), 100);
		ASSERT_OK(exec("INSERT INTO rows VALUES (3)"), err);
		ck_assert_int_eq(status().backend_pid, pid);
		ck_assert_int_eq(rows_on(1), 0);
		ASSERT_OK(commit ? dbha_session_commit(s, 0, &err) : dbha_session_rollback(s, 0, &err), err);
		ck_assert_int_eq(rows_on(1), commit ? 103 : 0);
		assert_free();
	}
	/* The first and only one. */
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_OK(query("DELETE FROM rows RETURNING id", DBHA_WRITE, 0), err);
	ck_assert_int_eq(fetch_all(&code, 0), 103);
	ck_assert_uint_gt(status().xid, 0);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(rows_on(1), 0);
	/* Text works as the functions do. */
	ASSERT_OK(query("BEGIN", DBHA_WRITE, 0), err);
	fetch_all(&code, 0);
	ck_assert_int_eq(status().state, DBHA_SESSION_IN_TRANSACTION);
	ASSERT_OK(query("INSERT INTO rows VALUES (1)", DBHA_WRITE, 0), err);
	fetch_all(&code, 0);
	ASSERT_OK(query("COMMIT", DBHA_WRITE, 0), err);
	fetch_all(&code, 0);
	ASSERT_OK(code, err);
	ck_assert_int_eq(rows_on(1), 1);
	assert_free();
	/* A transaction that only reads is one on a standby. */
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	ASSERT_OK(query("SELECT pg_is_in_recovery() FROM generate_series(1, 100)", DBHA_READ, 0), err);
	PGresult *rows;
	ASSERT_OK(dbha_session_fetch(s, 0, &rows, &err), err);
	ck_assert_str_eq(PQgetvalue(rows, 0, 0), "t");
	PQclear(rows);
	fetch_all(&code, 0);
	ASSERT_OK(code, err);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(an_error_of_a_stream_fails_its_transaction)
{
	int code;
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_OK(exec("INSERT INTO rows VALUES (1)"), err);
	ASSERT_OK(dbha_savepoint(s, "before", 0, &err), err);
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("no number\tx\n"), err);
	end_copy(&code, NULL);
	ASSERT_CODE(code, SERVER, err);
	ck_assert_int_eq(status().state, DBHA_SESSION_IN_ERROR);
	ASSERT_OK(dbha_savepoint_rollback(s, "before", 0, &err), err);
	ASSERT_OK(query("SELECT 1 / (5001 - i) FROM generate_series(1, 10000) i", DBHA_READ, 0), err);
	fetch_all(&code, 0);
	ASSERT_CODE(code, SERVER, err);
	ck_assert_int_eq(status().state, DBHA_SESSION_IN_ERROR);
	ASSERT_OK(dbha_savepoint_rollback(s, "before", 0, &err), err);
	/* Given up: a short rest costs nothing. */
	ASSERT_OK(query("SELECT generate_series(1, 100)", DBHA_READ, 0), err);
	ASSERT_OK(dbha_session_finish(s, &err), err);
	ck_assert_int_eq(status().state, DBHA_SESSION_IN_TRANSACTION);
	/* A refused COPY is what was asked for, and an error to the transaction all the same. */
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("5\tx\n"), err);
	end_copy(&code, "no");
	ASSERT_OK(code, err);
	ck_assert_int_eq(status().state, DBHA_SESSION_IN_ERROR);
	ASSERT_OK(dbha_savepoint_rollback(s, "before", 0, &err), err);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(rows_on(1), 1);
	assert_free();
	leave_intact();
}
END_TEST

/* A long rest is given up with an error; where the server was not quick enough, with the transaction's connection. */
START_TEST(a_long_result_that_is_given_up_fails_its_transaction)
{
	int failed = 0;
	for (int i = 0; i < 20 && failed < 2; i++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(exec("INSERT INTO rows VALUES (1)"), err);
		ASSERT_OK(dbha_savepoint(s, "before", 0, &err), err);
		ASSERT_OK(query("SELECT generate_series(1, 1000000000), repeat('x', 100)", DBHA_READ, 0), err);
		int code = dbha_session_finish(s, &err);
		ck_assert_int_eq(status().state, DBHA_SESSION_IN_ERROR);
		if (code == DBHA_ERR_SERVER) {
			failed++;
			ck_assert_str_eq(err.sqlstate, "57014");
			ASSERT_OK(dbha_savepoint_rollback(s, "before", 0, &err), err);
			ASSERT_OK(exec("INSERT INTO rows VALUES (2)"), err);
			ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		} else {
			ASSERT_CODE(code, ROLLED_BACK, err);
			ck_assert_str_eq(err.sqlstate, "40000");
			ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		}
	}
	/* A sanitizer makes reading what has already been sent take longer than there is time for. */
	ck_assert(SANITIZED || failed == 2);
	ck_assert_int_eq(rows_on(1), 2 * failed);
	assert_free();
	leave_intact();
}
END_TEST

static int copy_and_fail_once(dbha_session *session, int attempt, void *argument)
{
	PGresult *result = NULL;
	int *attempts = argument;
	*attempts = attempt;
	dbha_error local;
	if (dbha_session_copy_in(session, &DBHA_REQUEST(.sql = "COPY rows FROM STDIN"), &local) != DBHA_OK ||
	    dbha_session_copy_put(session, "1\tx\n2\ty\n", 8, 0, &local) != DBHA_OK)
		return 1;
	if (attempt == 1) {
		dbha_session_status now = {.size = sizeof now};
		dbha_session_status_get(session, &now, &local);
		terminate(now.backend_pid);
	}
	int code = dbha_session_copy_end(session, NULL, 0, &result, &local);
	PQclear(result);
	return code;
}

START_TEST(a_transaction_with_a_copy_is_run_again_where_its_connection_is_lost)
{
	int attempts = 0;
	ASSERT_OK(dbha_transaction(h, NULL, copy_and_fail_once, &attempts, &err), err);
	ck_assert_int_eq(attempts, 2);
	ck_assert_int_eq(rows_on(1), 2);
	leave_intact();
}
END_TEST

/* ---- losses -------------------------------------------------------------------------------------------------------- */

static const char *const long_read = "SELECT i, repeat('x', 1000) FROM generate_series(1, 300000) i";
static const char *const long_write = "INSERT INTO rows SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i "
                                      "RETURNING *";

START_TEST(a_result_that_is_cut_off_is_never_taken_for_a_whole_one)
{
	int code;
	ASSERT_OK(query(long_read, DBHA_READ, 0), err);
	terminate(status().backend_pid);
	int n = fetch_all(&code, 0);
	ck_assert_int_lt(n, 300000);
	ck_assert_msg(code == DBHA_ERR_LOST || (code == DBHA_ERR_SERVER && strcmp(err.sqlstate, "57P01") == 0), "%s: %s",
	              dbha_code_name(code), err.message);
	ck_assert(err.retry_safe && !err.outcome_unknown);
	assert_free();
	/* A write: it may have been done. Here it was not, and if the server says that, it is known. */
	ASSERT_OK(query(long_write, DBHA_WRITE, 0), err);
	terminate(status().backend_pid);
	fetch_all(&code, 0);
	ck_assert_msg((code == DBHA_ERR_UNKNOWN && err.outcome_unknown && !err.retry_safe) ||
	                  (code == DBHA_ERR_SERVER && strcmp(err.sqlstate, "57P01") == 0),
	              "%s: %s", dbha_code_name(code), err.message);
	ck_assert_int_eq(rows_on(1), 0);
	assert_free();
	leave_intact();
}
END_TEST

START_TEST(a_loss_in_a_transaction_rolls_it_back)
{
	int code;
	for (int i = 0; i < 3; i++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(exec("INSERT INTO rows VALUES (1)"), err);
		if (i == 0) {
			ASSERT_OK(query(long_read, DBHA_READ, 0), err);
			terminate(status().backend_pid);
			fetch_all(&code, 0);
		} else {
			ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
			ASSERT_OK(put("1\tx\n"), err);
			terminate(status().backend_pid);
			end_copy(&code, i == 1 ? NULL : "no");
		}
		bool told = code == DBHA_ERR_SERVER && strcmp(err.sqlstate, "57P01") == 0;
		bool as_refused = i == 2 && code == DBHA_OK;
		ck_assert_msg(code == DBHA_ERR_ROLLED_BACK || told || as_refused, "%s: %s", dbha_code_name(code), err.message);
		if (code == DBHA_ERR_ROLLED_BACK)
			ck_assert_str_eq(err.sqlstate, "40000");
		ck_assert(as_refused || (err.retry_safe && !err.outcome_unknown));
		ck_assert_int_eq(status().state, DBHA_SESSION_IN_ERROR);
		ASSERT_CODE(query("SELECT 1", DBHA_READ, 0), SERVER, err);
		ck_assert_str_eq(err.sqlstate, "25P02");
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		assert_free();
	}
	ck_assert_int_eq(rows_on(1), 0);
	leave_intact();
}
END_TEST

START_TEST(a_copy_whose_connection_is_lost_before_its_end_is_safe_to_repeat)
{
	int code;
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\n"), err);
	terminate(status().backend_pid);
	end_copy(&code, NULL);
	ck_assert_msg(code == DBHA_ERR_LOST || (code == DBHA_ERR_SERVER && strcmp(err.sqlstate, "57P01") == 0), "%s: %s",
	              dbha_code_name(code), err.message);
	ck_assert(err.retry_safe && !err.outcome_unknown);
	ck_assert_int_eq(rows_on(1), 0);
	assert_free();
	/* Refused, and lost: nothing is kept, as wanted. */
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	terminate(status().backend_pid);
	end_copy(&code, "no");
	ASSERT_OK(code, err);
	assert_free();
	leave_intact();
}
END_TEST

/*
 * The server is killed without a word, by the loss of one of its backends: before the end of a COPY was sent nothing is kept, behind it
 * nobody knows. (The end hangs in a trigger, so that it is certainly on its way.)
 */
static void *kill_backend(void *arg)
{
	(void)arg;
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1,
	         PATIENCE_MS);
	int pid = atoi(cluster_ask(&c, 1, "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"));
	kill(pid, SIGKILL);
	return NULL;
}

START_TEST(a_copy_whose_connection_is_lost_behind_its_end_is_unknown)
{
	int code;
	cluster_ask(&c, 1,
	            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS "
	            "$$BEGIN PERFORM pg_sleep(60); RETURN NULL; END$$");
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\n"), err);
	kill(status().backend_pid, SIGKILL);
	end_copy(&code, NULL);
	/* The others are told 57P02 then; ours has no last word, unless its end was on its way when it died. */
	ck_assert_msg(code == DBHA_ERR_LOST || code == DBHA_ERR_UNKNOWN, "%s: %s", dbha_code_name(code), err.message);
	ck_assert(err.retry_safe == (code == DBHA_ERR_LOST));

	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, PATIENCE_MS, &err), err);
	ASSERT_OK(exec("SELECT 1"), err);
	WAIT_FOR(cluster_count(&c, 1, "SELECT 1 FROM pg_trigger WHERE false") == 0, PATIENCE_MS);
	cluster_ask(&c, 1, "CREATE TRIGGER hang AFTER INSERT ON rows EXECUTE FUNCTION hang()");
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\n"), err);
	pthread_t thread = start_thread(kill_backend, NULL);
	end_copy(&code, NULL);
	join_thread(thread);
	ASSERT_CODE(code, UNKNOWN, err);
	ck_assert_str_eq(err.sqlstate, "08007");
	ck_assert(err.outcome_unknown && !err.retry_safe);
	ck_assert_int_eq(status().state, DBHA_SESSION_IDLE);
}
END_TEST

START_TEST(a_pinned_session_streams_on_its_own_connection)
{
	int code;
	ASSERT_OK(exec("CREATE TEMPORARY TABLE mine (id int)"), err);
	int pid = status().backend_pid;
	ck_assert_int_gt(pid, 0);
	ASSERT_OK(copy_in("COPY mine FROM STDIN"), err);
	ASSERT_OK(put("1\n2\n3\n"), err);
	ck_assert_int_eq(end_copy(&code, NULL), 3);
	ASSERT_OK(query("SELECT * FROM mine", DBHA_READ, 0), err);
	ck_assert_int_eq(fetch_all(&code, 0), 3);
	ASSERT_OK(code, err);
	ck_assert_int_eq(status().backend_pid, pid);
	ASSERT_OK(query("SELECT generate_series(1, 1000)", DBHA_READ, 0), err);
	ASSERT_OK(dbha_session_finish(s, &err), err);
	ck_assert_int_eq(status().backend_pid, pid);
	/* A long rest is given up with the connection and what was set there, if the server is not quick enough. */
	ASSERT_OK(query("SELECT generate_series(1, 1000000000), repeat('x', 100)", DBHA_READ, 0), err);
	code = dbha_session_finish(s, &err);
	if (code != DBHA_OK) {
		ASSERT_CODE(code, STATE_LOST, err);
		ASSERT_OK(dbha_session_reset(s, &err), err);
		ASSERT_OK(exec("CREATE TEMPORARY TABLE mine (id int)"), err);
	} else {
		ck_assert_int_eq(status().backend_pid, pid);
	}
	ASSERT_OK(query(long_read, DBHA_READ, 0), err);
	terminate(status().backend_pid);
	fetch_all(&code, 0);
	ck_assert_msg(code == DBHA_ERR_STATE_LOST || (code == DBHA_ERR_SERVER && strcmp(err.sqlstate, "57P01") == 0),
	              "%s: %s", dbha_code_name(code), err.message);
	ASSERT_CODE(query("SELECT 1", DBHA_READ, 0), STATE_LOST, err);
	ASSERT_OK(dbha_session_reset(s, &err), err);
	assert_free();
	/* A stream pins as any statement does. */
	ASSERT_OK(query("SELECT set_config('work_mem', '9MB', false) FROM generate_series(1, 100)", DBHA_WRITE, 0), err);
	fetch_all(&code, 0);
	ASSERT_OK(code, err);
	ck_assert_int_eq(status().pinned, 1);
	ASSERT_OK(dbha_session_reset(s, &err), err);
	assert_free();
	leave_intact();
}
END_TEST

/* ---- fork ------------------------------------------------------------------------------------------------------------- */

static int in_child(void)
{
	PGresult *rows;
	if (dbha_session_fetch(s, 1000, &rows, &err) != DBHA_ERR_USAGE || rows)
		return 1;
	if (dbha_session_finish(s, &err) != DBHA_OK)
		return 2;
#ifndef __SANITIZE_THREAD__
	int code;
	if (query("SELECT generate_series(1, 1000)", DBHA_READ, 0) != DBHA_OK || fetch_all(&code, 0) != 1000)
		return 3;
#endif
	dbha_session_close(s);
	return 0;
}

START_TEST(over_fork_a_result_is_the_parents)
{
	int code, status_of_child;
	ASSERT_OK(query(long_read, DBHA_READ, 0), err);
	pid_t child = fork();
	if (child == 0)
		_exit(in_child());
	ck_assert_int_eq(waitpid(child, &status_of_child, 0), child);
	ck_assert_int_eq(fetch_all(&code, 0), 300000);
	ASSERT_OK(code, err);
	ck_assert_int_eq(WEXITSTATUS(status_of_child), 0);
	assert_free();
	leave_intact();
}
END_TEST

/* ---- failover --------------------------------------------------------------------------------------------------------- */

static void *kill_node(void *arg)
{
	int *killed = arg;
	int64_t end = now_ms() + PATIENCE_MS;
	while (now_ms() < end && !*killed) {
		for (int node = 2; node <= 3 && !*killed; node++)
			if (cluster_count(&c, node, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0)
				*killed = node;
		short_pause();
	}
	if (*killed)
		cluster_do(&c, "kill %d", *killed);
	return NULL;
}

/* Before the first row nobody has seen anything: the read goes elsewhere. Behind it, it cannot. */
START_TEST(a_read_goes_elsewhere_until_its_first_row_is_there)
{
	static int killed;
	int code;
	killed = 0;
	pthread_t thread = start_thread(kill_node, &killed);
	ASSERT_OK(query("SELECT i, pg_sleep(CASE i WHEN 1 THEN 1 ELSE 0 END) FROM generate_series(1, 100000) i", DBHA_READ,
	                20000),
	          err);
	join_thread(thread);
	ck_assert_int_gt(killed, 0);
	ck_assert_int_eq(fetch_all(&code, 0), 100000);
	ASSERT_OK(code, err);
	ck_assert_int_ge((long)counters(h, -1).reroutes, 1);
	char port[16];
	snprintf(port, sizeof port, ":%d", cluster_port(&c, killed));
	ASSERT_HAS_NOT(status().node, port);
	assert_free();

	ASSERT_OK(query(long_read, DBHA_READ, 0), err);
	for (int node = 1; node <= 3; node++) {
		snprintf(port, sizeof port, ":%d", cluster_port(&c, node));
		if (strstr(status().node, port))
			cluster_do(&c, "kill %d", node);
	}
	ck_assert_int_lt(fetch_all(&code, 0), 300000);
	ck_assert_msg(code == DBHA_ERR_LOST || code == DBHA_ERR_SERVER, "%s: %s", dbha_code_name(code), err.message);
	ck_assert(err.retry_safe);
	if (code == DBHA_ERR_LOST)
		ASSERT_HAS(err.message, "the rest of it did not come");
	ASSERT_OK(query("SELECT generate_series(1, 1000)", DBHA_READ, 0), err);
	ck_assert_int_eq(fetch_all(&code, 0), 1000);
	ASSERT_OK(code, err);
}
END_TEST

/* A COPY FROM waits for the new primary, as any write; one in progress is lost with the old one. */
START_TEST(a_copy_meets_a_failover)
{
	int code;
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("1\tx\n"), err);
	cluster_do(&c, "kill 1");
	end_copy(&code, NULL);
	ck_assert_msg(code == DBHA_ERR_LOST || code == DBHA_ERR_SERVER, "%s: %s", dbha_code_name(code), err.message);
	ck_assert(err.retry_safe && !err.outcome_unknown);
	cluster_do(&c, "promote 2");
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("2\ty\n"), err);
	ck_assert_int_eq(end_copy(&code, NULL), 1);
	ASSERT_OK(code, err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 2"), 1);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 1);
}
END_TEST

START_TEST(it_works_without_a_thread)
{
	int code;
	dbha_session_close(s);
	close_handle(h, 0);
	h = open_handle(cluster_url(&c, NULL, "monitor=off&application_name=streaming"));
	s = dbha_session_open(h, &err);
	ASSERT_OK(query("SELECT generate_series(1, 100000)", DBHA_READ, 0), err);
	ck_assert_int_eq(fetch_all(&code, 0), 100000);
	ASSERT_OK(code, err);
	ASSERT_OK(copy_in("COPY rows FROM STDIN"), err);
	ASSERT_OK(put("2\ty\n"), err);
	ck_assert_int_eq(end_copy(&code, NULL), 1);
	ASSERT_OK(query("SELECT generate_series(1, 1000000000), repeat('x', 100)", DBHA_READ, 0), err);
	ASSERT_OK(dbha_session_finish(s, &err), err);
	assert_free();
	leave_intact();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("session_stream");
#define ADD(test, limit_s) ADD_TEST(suite, test, servers, after, limit_s)
	ADD(a_large_read_is_fetched_from_a_standby, 60);
	ADD(the_end_is_told_once_and_behind_it_there_is_nothing, 60);
	ADD(a_read_that_writes_is_done_on_the_primary, 60);
	ADD(errors_of_a_query_are_told_by_it_or_by_the_fetch_that_meets_them, 60);
	ADD(while_a_result_is_read_nothing_else_is_done, 60);
	ADD(a_result_is_given_up_within_its_time, 60);
	ADD(a_session_that_is_closed_or_reset_gives_its_result_up, 60);
	ADD(a_handle_that_is_closed_ends_the_results_of_its_sessions, 60);
	ADD(a_fetch_ends_with_its_deadline, 60);
	ADD(another_thread_cancels_a_fetch, 60);
	ADD(data_goes_in_and_comes_out, 60);
	ADD(a_copy_that_fails_keeps_nothing_and_may_be_done_again, 60);
	ADD(what_is_no_copy_is_refused, 60);
	ADD(streams_are_part_of_their_transaction, 60);
	ADD(an_error_of_a_stream_fails_its_transaction, 60);
	ADD(a_long_result_that_is_given_up_fails_its_transaction, 60);
	ADD(a_transaction_with_a_copy_is_run_again_where_its_connection_is_lost, 60);
	ADD(a_result_that_is_cut_off_is_never_taken_for_a_whole_one, 60);
	ADD(a_loss_in_a_transaction_rolls_it_back, 60);
	ADD(a_copy_whose_connection_is_lost_before_its_end_is_safe_to_repeat, 60);
	ADD(a_pinned_session_streams_on_its_own_connection, 60);
	ADD(over_fork_a_result_is_the_parents, 60);
	ADD(it_works_without_a_thread, 60);
	ADD(a_copy_whose_connection_is_lost_behind_its_end_is_unknown, 90);
	ADD(a_read_goes_elsewhere_until_its_first_row_is_there, 120);
	ADD(a_copy_meets_a_failover, 120);
	return run_suite(suite, &c);
}
