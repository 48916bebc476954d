/*
 * test_routing: routing=auto on real servers. Where a statement went is told by the servers' own logs (log_statement=all), in which each
 * statement of a test is known by a comment.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"

#define AUTO    "routing=auto"
#define NODE(n) (1u << (n))
#define ALL     (NODE(2) | NODE(3))
#define THREADS 8

/* Which of the two is none of this test's business: of one that answers twice as fast it is always the one. */
#define EXPECT_STANDBYS(nodes)                                                                                         \
	do {                                                                                                               \
		unsigned who = (nodes);                                                                                        \
		ck_assert_msg(who != 0 && (who & NODE(1)) == 0, "%s: nodes 0x%x", #nodes, who);                                \
	} while (0)

static struct cluster c;

/* ThreadSanitizer ends a forked child of a process with threads, unless told otherwise. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

static const char *const functions[] = {
    "CREATE FUNCTION writes(mark text) RETURNS int LANGUAGE plpgsql AS "
    "'BEGIN INSERT INTO rows VALUES (1, mark); RETURN 1; END'",
    /* Declared as what it is not: it is PL/pgSQL's own statements that may not write in a stable function. */
    "CREATE FUNCTION lies(mark text) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN writes(mark); END'",
    "CREATE FUNCTION lazy() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 7; END'",
    "CREATE FUNCTION honest() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 7; END'",
    "CREATE SEQUENCE numbers",
    "CREATE UNLOGGED TABLE fleeting (id int)",
    "GRANT ALL ON fleeting TO app",
    "GRANT ALL ON numbers TO app",
};

static void servers(void)
{
	if (!c.intact)
		cluster_destroy(&c);
	c.intact = true;
	if (c.keeper)
		return;
	cluster_with_rows(&c, "3 --set log_statement=all", "id int, mark text");
	for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++)
		cluster_ask(&c, 1, "%s", functions[i]);
	cluster_all_catch_up(&c);
}

/* ---- what the servers have seen ------------------------------------------------------------------------------------ */

/* How many times a node has been asked for a statement with this in its text. */
static int asked(int node, const char *text)
{
	char path[160], line[8192];
	int n = 0;
	snprintf(path, sizeof path, "%s/node%d.log", c.dir, node);
	FILE *log = fopen(path, "r");
	ck_assert_msg(log != NULL, "%s", path);
	while (fgets(line, sizeof line, log))
		n += strstr(line, "LOG:  ") != NULL && strstr(line, "execute") != NULL && strstr(line, text) != NULL;
	fclose(log);
	return n;
}

static int asked_standbys(const char *text)
{
	return asked(2, text) + asked(3, text);
}

/* A comment that no statement had before. */
static const char *new_mark(char mark[32])
{
	static atomic_int last;
	snprintf(mark, 32, "/* %d:%d */", (int)getpid(), atomic_fetch_add(&last, 1));
	return mark;
}

/* Runs it so many times; the nodes that were asked. */
static unsigned who_runs(dbha *h, dbha_intent intent, int times, const char *sql)
{
	char mark[32];
	unsigned nodes = 0;
	int n = 0;
	new_mark(mark);
	for (int i = 0; i < times; i++)
		fetch(h, intent, "%s %s", sql, mark);
	for (int node = 1; node <= 3; node++) {
		nodes |= asked(node, mark) ? NODE(node) : 0;
		n += asked(node, mark);
	}
	ck_assert_msg(n == times, "%s: %d times for %d calls", sql, n, times);
	return nodes;
}

static long rows_marked(const char *mark)
{
	return cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE mark = '%s'", mark);
}

/* ---- reads and writes ----------------------------------------------------------------------------------------------- */

static const char *const reads[] = {
    "SELECT count(*) FROM rows", "SELECT 1",   "WITH a AS (SELECT * FROM rows) SELECT * FROM a ORDER BY id LIMIT 3",
    "SELECT honest()",           "TABLE rows", "SHOW search_path",
};

static const char *const writes[] = {
    "INSERT INTO rows VALUES (1)",   "UPDATE rows SET id = 2 WHERE id = 1",
    "SELECT * FROM rows FOR UPDATE", "WITH a AS (DELETE FROM rows RETURNING *) SELECT * FROM a",
    "SELECT nextval('numbers')",     "SELECT lazy()",
    "SELECT pg_is_in_recovery()",    "SELECT pg_advisory_xact_lock(7)",
};

START_TEST(reads_go_to_the_standbys_and_the_rest_to_the_primary)
{
	dbha *h = open_all(&c, AUTO);
	for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++)
		EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, reads[i]));
	for (size_t i = 0; i < sizeof writes / sizeof writes[0]; i++)
		ck_assert_msg(who_runs(h, DBHA_DEFAULT, 2, writes[i]) == NODE(1), "%s", writes[i]);
	/* What its caller says counts more. */
	ck_assert_uint_eq(who_runs(h, DBHA_WRITE, 5, "SELECT 1"), NODE(1));
	EXPECT_STANDBYS(who_runs(h, DBHA_READ, 20, "SELECT lazy()"));
	ck_assert_int_eq(asked(1, "pg_proc") + asked_standbys("pg_proc"), 1);
}
END_TEST

START_TEST(with_intent_nobody_asks_the_catalog)
{
	dbha *h = open_all(&c, NULL);
	int before = asked(1, "pg_proc") + asked_standbys("pg_proc");
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"), NODE(1));
	ck_assert_int_eq(asked(1, "pg_proc") + asked_standbys("pg_proc"), before);
}
END_TEST

START_TEST(hints_decide_before_the_catalog_is_read)
{
	dbha *h = open_all(&c, AUTO);
	dbha_error err;
	ASSERT_OK(run(h, DBHA_DEFAULT, 0, "/* dbha:primary */ SELECT 'hint-1'", &err), err);
	ASSERT_OK(run(h, DBHA_DEFAULT, 0, "/* dbha:standby */ SELECT lazy(), 'hint-2'", &err), err);
	ck_assert_int_eq(asked(1, "hint-1"), 1);
	ck_assert_int_eq(asked_standbys("hint-1"), 0);
	ck_assert_int_eq(asked(1, "hint-2"), 0);
	ck_assert_int_eq(asked_standbys("hint-2"), 1);
	ck_assert_uint_eq(counters(h, -1).statements, 2);
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
}
END_TEST

START_TEST(lists_of_functions_count_more_than_the_catalog)
{
	dbha *h = open_all(&c, AUTO "&read_functions=la*&write_functions=public.honest");
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT lazy()"));
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 5, "SELECT honest()"), NODE(1));
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
}
END_TEST

/* ---- sessions ------------------------------------------------------------------------------------------------------- */

static int session_run(dbha_session *s, const char *sql, unsigned flags, dbha_error *err)
{
	PGresult *result;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .flags = flags), &result, err);
	PQclear(result);
	return code;
}

static void session_do(dbha_session *s, const char *sql, const char *mark, unsigned flags)
{
	char text[256];
	dbha_error err;
	snprintf(text, sizeof text, "%s %s", sql, mark);
	ASSERT_OK(session_run(s, text, flags, &err), err);
}

static unsigned who_was_asked(const char *mark)
{
	unsigned nodes = 0;
	for (int node = 1; node <= 3; node++)
		nodes |= asked(node, mark) ? NODE(node) : 0;
	return nodes;
}

START_TEST(a_session_reads_from_standbys_but_not_in_a_transaction_or_pinned)
{
	dbha *h = open_all(&c, AUTO);
	dbha_error err;
	char mark[32];
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_ptr_nonnull(s);
	session_do(s, "SELECT count(*) FROM rows", new_mark(mark), 0);
	ck_assert_uint_ne(who_was_asked(mark) & ALL, 0);

	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	session_do(s, "SELECT count(*) FROM rows", new_mark(mark), 0);
	session_do(s, "SELECT count(*) FROM rows", mark, 0);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_uint_eq(who_was_asked(mark), NODE(1));

	session_do(s, "BEGIN", new_mark(mark), 0);
	session_do(s, "SELECT count(*) FROM rows", mark, 0);
	session_do(s, "COMMIT", mark, 0);
	ck_assert_int_eq(asked(1, mark), 3);
	ck_assert_uint_eq(who_was_asked(mark) & ALL, 0);

	/* It stays with its session, and what follows may be a transaction that writes. */
	session_do(s, "SELECT 1", new_mark(mark), DBHA_PIN);
	ck_assert_uint_eq(who_was_asked(mark), NODE(1));
	session_do(s, "SELECT 2", new_mark(mark), 0);
	ck_assert_uint_eq(who_was_asked(mark), NODE(1));
	ASSERT_OK(dbha_session_reset(s, &err), err);

	session_do(s, "SET application_name = 'mine'", new_mark(mark), 0);
	session_do(s, "SELECT 3", mark, 0);
	ck_assert_uint_eq(who_was_asked(mark), NODE(1));
	dbha_session_close(s);
}
END_TEST

START_TEST(a_result_row_by_row_comes_from_a_standby)
{
	dbha *h = open_all(&c, AUTO);
	dbha_error err;
	PGresult *row = NULL;
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_ptr_nonnull(s);
	ASSERT_OK(dbha_session_query(s, &DBHA_REQUEST(.sql = "SELECT 'stream-1' FROM generate_series(1, 3)"), &err), err);
	int n = 0;
	do {
		PQclear(row);
		ASSERT_OK(dbha_session_fetch(s, 0, &row, &err), err);
		n += PQresultStatus(row) == PGRES_TUPLES_OK ? 0 : PQntuples(row);
	} while (PQresultStatus(row) != PGRES_TUPLES_OK);
	PQclear(row);
	ck_assert_int_eq(n, 3);
	dbha_session_close(s);
	ck_assert_int_eq(asked_standbys("stream-1"), 1);
	ck_assert_int_eq(asked(1, "stream-1"), 0);
}
END_TEST

START_TEST(what_is_verified_at_commit_is_no_read)
{
	dbha *h = open_all(&c, AUTO "&verify_commit=on");
	char mark[32];
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT count(*) FROM rows"));
	fetch(h, DBHA_DEFAULT, "INSERT INTO rows VALUES (1, '%s')", new_mark(mark));
	ck_assert_int_eq(rows_marked(mark), 1);
	ck_assert_uint_eq(who_was_asked(mark), NODE(1));
	ck_assert_uint_eq(counters(h, -1).transactions, 1);
}
END_TEST

/* ---- a read that is none -------------------------------------------------------------------------------------------- */

static void refused_once(const char *options, dbha_intent intent)
{
	dbha *h = open_all(&c, options);
	char mark[32], sql[128];
	snprintf(sql, sizeof sql, "SELECT lies('%s')", new_mark(mark));
	for (int i = 1; i <= 5; i++) {
		fetch(h, intent, "%s", sql);
		ck_assert_int_eq(rows_marked(mark), i);
		ck_assert_int_eq(asked_standbys(mark), 1);
		ck_assert_uint_eq(counters(h, -1).not_reads, 1);
	}
	ck_assert_uint_eq(counters(h, -1).statement_errors, 1);
	/* Another handle has its own experience. */
	fetch(open_all(&c, options), intent, "%s", sql);
	ck_assert_int_eq(rows_marked(mark), 6);
	ck_assert_int_eq(asked_standbys(mark), 2);
}

START_TEST(a_read_that_writes_is_run_once_on_the_primary_and_remembered)
{
	refused_once(AUTO, DBHA_DEFAULT);
}
END_TEST

START_TEST(what_its_caller_calls_a_read_is_remembered_too)
{
	refused_once("routing=intent", DBHA_READ);
	refused_once(AUTO, DBHA_READ);
}
END_TEST

/* What the primary refuses as well says nothing about reads. */
START_TEST(what_failed_on_the_primary_is_not_remembered)
{
	dbha *h = open_all(&c, AUTO);
	dbha_error err;
	for (int i = 1; i <= 3; i++) {
		ASSERT_CODE(run(h, DBHA_READ, 0, "SELECT currval('numbers'), 'unborn'", &err), SERVER, err);
		ck_assert_str_eq(err.sqlstate, "55000");
		ck_assert_int_eq(asked_standbys("unborn"), i);
		ck_assert_int_eq(asked(1, "unborn"), i);
	}
	ck_assert_uint_eq(counters(h, -1).not_reads, 0);
}
END_TEST

START_TEST(nothing_is_rerouted_or_remembered_in_a_transaction)
{
	/* What the session has seen is not to matter: after a refusal its connection is not used again, and a new one may know less. */
	dbha *h = open_all(&c, AUTO "&consistency=eventual");
	dbha_error err;
	char mark[32], sql[128];
	snprintf(sql, sizeof sql, "SELECT lies('%s')", new_mark(mark));
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_ptr_nonnull(s);
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	ASSERT_OK(session_run(s, "SELECT 1", 0, &err), err);
	ASSERT_CODE(session_run(s, sql, 0, &err), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "25006");
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	ck_assert_int_eq(asked(1, mark), 0);
	ck_assert_int_eq(asked_standbys(mark), 1);
	ck_assert_int_eq(rows_marked(mark), 0);
	/* A standby is asked again, since nobody has executed it. */
	ASSERT_OK(session_run(s, sql, 0, &err), err);
	ck_assert_int_eq(asked_standbys(mark), 2);
	ck_assert_int_eq(rows_marked(mark), 1);

	/* The first statement takes its BEGIN along to the primary. What is right for a transaction is not for all. */
	dbha_session_close(s);
	s = dbha_session_open(h, &err);
	ck_assert_ptr_nonnull(s);
	/* It is refused where it is planned, of which the log tells nothing but the error. */
	unsigned long refused = counters(h, -1).statement_errors;
	snprintf(sql, sizeof sql, "SELECT * FROM fleeting %s", new_mark(mark));
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	ASSERT_OK(session_run(s, sql, 0, &err), err);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(asked(1, mark), 1);
	ck_assert_uint_eq(counters(h, -1).statement_errors, refused + 1);
	for (int i = 1; i <= 2; i++) {
		ASSERT_OK(run(h, DBHA_READ, 0, sql, &err), err);
		ck_assert_uint_eq(counters(h, -1).statement_errors, refused + 2);
		ck_assert_int_eq(asked(1, mark), i + 1);
	}
	dbha_session_close(s);
}
END_TEST

/* ---- the book ------------------------------------------------------------------------------------------------------- */

/* It is doubtful until the book is half a minute old; nobody has to open anything anew. */
START_TEST(a_function_that_is_made_later_becomes_known)
{
	dbha *h = open_all(&c, AUTO);
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
	int64_t began = now_ms();
	cluster_ask(&c, 1, "CREATE FUNCTION made_later() RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 7; END'");
	cluster_all_catch_up(&c);
	int before = asked(1, "pg_proc") + asked_standbys("pg_proc");
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 20, "SELECT made_later()"), NODE(1));
	ck_assert_int_eq(asked(1, "pg_proc") + asked_standbys("pg_proc"), before);
	/* A handle that comes now knows it at once. */
	EXPECT_STANDBYS(who_runs(open_all(&c, AUTO), DBHA_DEFAULT, 20, "SELECT made_later()"));
	/* A sanitizer makes the fetch slow, and a slow one rests for a hundred times as long as it took. */
	if (!SANITIZED) {
		WAIT_FOR(who_runs(h, DBHA_DEFAULT, 1, "SELECT made_later()") != NODE(1), 45000);
		ck_assert_int_gt(now_ms() - began, 25000);
		ck_assert_int_eq(asked(1, "pg_proc") + asked_standbys("pg_proc"), before + 2);
	}
	cluster_ask(&c, 1, "DROP FUNCTION made_later()");
}
END_TEST

/* The caller is told nothing of it: the primary executes whatever it is. */
START_TEST(without_the_catalog_everything_goes_to_the_primary)
{
	c.intact = false;
	cluster_ask(&c, 1, "REVOKE SELECT ON pg_proc FROM PUBLIC");
	cluster_all_catch_up(&c);
	dbha *h = open_all(&c, AUTO);
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"), NODE(1));
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 2, "INSERT INTO rows VALUES (1)"), NODE(1));
	ck_assert_uint_eq(counters(h, -1).statement_errors, 1);
	cluster_ask(&c, 1, "GRANT SELECT ON pg_proc TO PUBLIC");
	cluster_all_catch_up(&c);
	WAIT_FOR(who_runs(h, DBHA_DEFAULT, 1, "SELECT 1") != NODE(1), PATIENCE_MS);
	ck_assert_uint_eq(counters(h, -1).statement_errors, 1);
	c.intact = true;
}
END_TEST

START_TEST(a_server_that_stops_the_query_for_the_catalog_stops_nobody_else)
{
	dbha *h = open_all(&c, AUTO "&options=-c%20statement_timeout%3D15");
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 10, "SELECT 1"), NODE(1));
	ck_assert_uint_eq(counters(h, -1).statement_errors, 1);
}
END_TEST

/* A standby that does not answer costs half of the time of the call that asks it for the catalog, not the call. */
START_TEST(a_frozen_standby_costs_no_call)
{
	dbha *h = open_all(&c, AUTO "&probe_timeout=5s&probe_interval=10s");
	dbha_error err;
	c.intact = false;
	cluster_do(&c, "pause 2");
	cluster_do(&c, "pause 3");
	int64_t began = now_ms();
	ASSERT_OK(run(h, DBHA_DEFAULT, 2000, "INSERT INTO rows VALUES (1, 'frozen')", &err), err);
	ck_assert_int_lt(now_ms() - began, 2000);
	ck_assert_int_ge(now_ms() - began, 900);
	/* The next one does not try again. */
	began = now_ms();
	ASSERT_OK(run(h, DBHA_DEFAULT, 2000, "INSERT INTO rows VALUES (1, 'frozen')", &err), err);
	ck_assert_int_lt(now_ms() - began, 500);
	cluster_do(&c, "resume 2");
	cluster_do(&c, "resume 3");
	ck_assert_int_eq(rows_marked("frozen"), 2);
	c.intact = true;
}
END_TEST

static void *run_canceled(void *session)
{
	static dbha_error err;
	PGresult *result;
	dbha_session_exec(session, &DBHA_REQUEST(.sql = "INSERT INTO rows VALUES (1, 'canceled')"), &result, &err);
	PQclear(result);
	return &err;
}

static bool on_range(int node, const char *what)
{
	return cluster_count(&c, node,
	                     "SELECT count(*) FROM pg_locks WHERE relation = 'pg_catalog.pg_range'::regclass AND %s",
	                     what) > 0;
}

START_TEST(who_waits_for_the_catalog_can_be_canceled)
{
	dbha *h = open_all(&c, AUTO);
	dbha_error err;
	void *ended;
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_ptr_nonnull(s);
	/* Of a catalog that nothing else of this test needs; standbys lock it as well. */
	PGconn *admin = cluster_admin(&c, 1);
	PQclear(PQexec(admin, "BEGIN; LOCK TABLE pg_catalog.pg_range IN ACCESS EXCLUSIVE MODE"));
	cluster_ask(&c, 1, "INSERT INTO rows VALUES (1, 'flushed')"); /* and with it the lock's record */
	for (int node = 2; node <= 3; node++)
		WAIT_FOR(on_range(node, "granted"), PATIENCE_MS);
	pthread_t thread;
	ck_assert_int_eq(pthread_create(&thread, NULL, run_canceled, s), 0);
	WAIT_FOR(on_range(2, "NOT granted") || on_range(3, "NOT granted"), PATIENCE_MS);
	int64_t began = now_ms();
	ASSERT_OK(dbha_cancel(s, &err), err);
	pthread_join(thread, &ended);
	ck_assert_int_lt(now_ms() - began, 2000);
	PQfinish(admin);
	ASSERT_CODE(((dbha_error *)ended)->code, CANCELED, *(dbha_error *)ended);
	ck_assert_int_eq(rows_marked("canceled"), 0);
	dbha_session_close(s);
}
END_TEST

/* In SJIS a byte of a character can be a backslash: nothing beyond ASCII is looked at. */
START_TEST(the_connection_says_how_to_read_a_text)
{
	dbha *h = open_all(&c, AUTO "&client_encoding=SJIS");
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 'abc'"));
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 5, "SELECT '\x83\x5c'"), NODE(1));
	dbha *utf8 = open_all(&c, AUTO "&client_encoding=UTF8");
	EXPECT_STANDBYS(who_runs(utf8, DBHA_DEFAULT, 20, "SELECT '\xc3\xa4'"));
	EXPECT_STANDBYS(who_runs(utf8, DBHA_DEFAULT, 20, "SELECT 'a\\b'"));
	dbha *old = open_all(&c, AUTO "&options=-c%20standard_conforming_strings%3Doff");
	EXPECT_STANDBYS(who_runs(old, DBHA_DEFAULT, 20, "SELECT 'ab'"));
	ck_assert_uint_eq(who_runs(old, DBHA_DEFAULT, 5, "SELECT 'a\\\\b'"), NODE(1));
}
END_TEST

/* ---- no thread, fork, many threads ------------------------------------------------------------------------------- */

START_TEST(it_needs_no_background_thread)
{
	dbha *h = open_handle(cluster_url(&c, NULL, AUTO "&monitor=off"));
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
	ck_assert_uint_eq(who_runs(h, DBHA_DEFAULT, 5, "INSERT INTO rows VALUES (1)"), NODE(1));
}
END_TEST

/* Without Check's own words: they are the parent's. */
static int in_the_child(dbha *h, const char *lie)
{
	dbha_error err;
	char mark[32], sql[64];
	new_mark(mark);
	for (int i = 0; i < 10; i++) {
		snprintf(sql, sizeof sql, "SELECT 1 %s", mark);
		if (run(h, DBHA_DEFAULT, 0, sql, &err) != DBHA_OK)
			return 1;
	}
	if (asked(1, mark) != 0 || asked_standbys(mark) != 10)
		return 2;
	if (run(h, DBHA_DEFAULT, 0, lie, &err) != DBHA_OK)
		return 3;
	return 0;
}

static void fork_with(const char *options)
{
	dbha *h = open_all(&c, options);
	char mark[32], lie[64];
	snprintf(lie, sizeof lie, "SELECT lies('%s')", new_mark(mark));
	fetch(h, DBHA_DEFAULT, "%s", lie);
	ck_assert_int_eq(asked_standbys(mark), 1);
	int books = asked(1, "pg_proc") + asked_standbys("pg_proc");
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		alarm(30);
		_exit(in_the_child(h, lie));
	}
	int status = -1;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(status == 0, "the child: %d", status);
	ck_assert_int_eq(asked_standbys(mark), 1);
	ck_assert_int_eq(rows_marked(mark), 2);
	ck_assert_int_eq(asked(1, "pg_proc") + asked_standbys("pg_proc"), books);
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
}

START_TEST(a_child_keeps_what_is_known)
{
#ifndef __SANITIZE_THREAD__
	fork_with(AUTO);
#endif
	fork_with(AUTO "&monitor=off");
}
END_TEST

#define READS 200

static dbha *shared_handle;
static atomic_int failures, wrong;

/* One statement, to its role, or -1. */
static int role_of(const char *sql)
{
	dbha_result_route route = {.size = sizeof route};
	PGresult *result;
	int code = dbha_exec(shared_handle, &DBHA_REQUEST(.sql = sql, .route = &route), &result, NULL);
	PQclear(result);
	return code == DBHA_OK ? route.role : -1;
}

/* Until so many of its reads came from standbys: while one thread fetches, those of the others go to the primary. */
static void *work(void *arg)
{
	long id = (long)(intptr_t)arg;
	char sql[128];
	int from_standbys = 0;
	for (int i = 0; from_standbys < READS && !atomic_load(&threads_stop); i++) {
		snprintf(sql, sizeof sql, "SELECT count(*), %d FROM rows WHERE id = 77", i % 10);
		int role = role_of(sql);
		atomic_fetch_add(&failures, role < 0);
		/* Once there is a book, there always is one. */
		atomic_fetch_add(&wrong, from_standbys > 0 && role != DBHA_ROLE_STANDBY);
		from_standbys += role == DBHA_ROLE_STANDBY;
		if (from_standbys == 0 || from_standbys % 20 != 0)
			continue;
		snprintf(sql, sizeof sql, "SELECT lies('thread-lie') WHERE %ld >= 0", id);
		atomic_fetch_add(&failures, role_of(sql) != DBHA_ROLE_PRIMARY);
		snprintf(sql, sizeof sql, "INSERT INTO rows VALUES (%ld, 'thread-write')", id);
		atomic_fetch_add(&failures, role_of(sql) != DBHA_ROLE_PRIMARY);
	}
	return NULL;
}

START_TEST(eight_threads_share_one_book)
{
	int books = asked(1, "pg_proc") + asked_standbys("pg_proc");
	shared_handle = open_all(&c, AUTO);
	for (long i = 0; i < THREADS; i++)
		start_thread(work, (void *)(intptr_t)i);
	join_threads();
	ck_assert_int_eq(failures, 0);
	ck_assert_int_eq(wrong, 0);
	ck_assert_int_eq(asked(1, "pg_proc") + asked_standbys("pg_proc"), books + 1);
	ck_assert_int_eq(asked_standbys("thread-write"), 0);
	ck_assert_int_eq(rows_marked("thread-write"), THREADS * READS / 20);
	ck_assert_int_eq(rows_marked("thread-lie"), THREADS * READS / 20);
	/* A text of each thread's own, each refused once. */
	ck_assert_int_eq(asked_standbys("thread-lie"), THREADS);
}
END_TEST

/* ---- without a primary: the last test ------------------------------------------------------------------------------- */

START_TEST(reads_outlive_the_primary)
{
	dbha *h = open_all(&c, AUTO);
	dbha *fresh = open_all(&c, AUTO);
	dbha_error err;
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
	c.intact = false;
	cluster_do(&c, "kill 1");
	WAIT_FOR(cluster_status(h).primary == -1, PATIENCE_MS);
	WAIT_FOR(cluster_status(fresh).primary == -1, PATIENCE_MS);
	/* Also for a handle that has to read the catalog first. */
	EXPECT_STANDBYS(who_runs(fresh, DBHA_DEFAULT, 20, "SELECT 1"));
	EXPECT_STANDBYS(who_runs(h, DBHA_DEFAULT, 20, "SELECT 1"));
	ASSERT_CODE(run(h, DBHA_DEFAULT, 300, "INSERT INTO rows VALUES (1)", &err), NO_NODE, err);
	ck_assert(err.retry_safe);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("routing");
	ADD_TEST(suite, reads_go_to_the_standbys_and_the_rest_to_the_primary, servers, NULL, 60);
	ADD_TEST(suite, with_intent_nobody_asks_the_catalog, servers, NULL, 60);
	ADD_TEST(suite, hints_decide_before_the_catalog_is_read, servers, NULL, 60);
	ADD_TEST(suite, lists_of_functions_count_more_than_the_catalog, servers, NULL, 60);
	ADD_TEST(suite, a_session_reads_from_standbys_but_not_in_a_transaction_or_pinned, servers, NULL, 60);
	ADD_TEST(suite, a_result_row_by_row_comes_from_a_standby, servers, NULL, 60);
	ADD_TEST(suite, what_is_verified_at_commit_is_no_read, servers, NULL, 60);
	ADD_TEST(suite, a_read_that_writes_is_run_once_on_the_primary_and_remembered, servers, NULL, 60);
	ADD_TEST(suite, what_its_caller_calls_a_read_is_remembered_too, servers, NULL, 60);
	ADD_TEST(suite, what_failed_on_the_primary_is_not_remembered, servers, NULL, 60);
	ADD_TEST(suite, nothing_is_rerouted_or_remembered_in_a_transaction, servers, NULL, 60);
	ADD_TEST(suite, without_the_catalog_everything_goes_to_the_primary, servers, NULL, 60);
	ADD_TEST(suite, a_server_that_stops_the_query_for_the_catalog_stops_nobody_else, servers, NULL, 60);
	ADD_TEST(suite, a_frozen_standby_costs_no_call, servers, NULL, 60);
	ADD_TEST(suite, who_waits_for_the_catalog_can_be_canceled, servers, NULL, 60);
	ADD_TEST(suite, the_connection_says_how_to_read_a_text, servers, NULL, 60);
	ADD_TEST(suite, it_needs_no_background_thread, servers, NULL, 60);
	ADD_TEST(suite, a_child_keeps_what_is_known, servers, NULL, 60);
	ADD_TEST(suite, eight_threads_share_one_book, servers, NULL, 60);
	ADD_TEST(suite, a_function_that_is_made_later_becomes_known, servers, NULL, 90);
	ADD_TEST(suite, reads_outlive_the_primary, servers, NULL, 60);
	return run_suite(suite, &c);
}
