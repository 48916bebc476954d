/*
 * test_exec: dbha_exec on real servers: parameters, prepared statements and their repair, errors, deadlines, misuse, and
 * where each intent and target goes.
 */
#include <arpa/inet.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster.h"

static struct cluster c;

static void servers(void)
{
	if (c.keeper)
		return;
	cluster_create(&c, "3");
	cluster_ask(&c, 1, "CREATE TABLE counted (id int, who text DEFAULT current_user)");
	cluster_ask(&c, 1, "GRANT ALL ON counted TO app");
	cluster_catch_up(&c, 2, 1);
	cluster_catch_up(&c, 3, 1);
}

static dbha *open_one(const char *options)
{
	return open_handle(cluster_url(&c, NULL, options));
}

static long rows(int id)
{
	return cluster_count(&c, 1, "SELECT count(*) FROM counted WHERE id = %d", id);
}

/* ---- parameters ---------------------------------------------------------------------------------------------- */

START_TEST(parameters_reach_the_server_as_text_and_as_binary)
{
	dbha *h = open_one(NULL);
	dbha_error err;
	PGresult *result;
	uint32_t wire = htonl(41);
	const char *values[] = {"7", (const char *)&wire, NULL, "it's \\ 'quoted'; --", "\xc3\xa9"};
	const int lengths[] = {0, sizeof wire, 0, 0, 2};
	const int formats[] = {0, 1, 0, 0, 1};
	const unsigned types[] = {23, 23, 25, 25, 25};
	for (int binary = 0; binary <= 1; binary++) {
		dbha_request rq =
		    DBHA_REQUEST(.sql = "SELECT $1::int + $2::int, $3::text, $4::text, length($5::text)", .intent = DBHA_WRITE,
		                 .n_params = 5, .types = binary ? types : NULL, .values = values, .lengths = lengths,
		                 .formats = formats, .result_format = binary);
		ASSERT_OK(dbha_exec(h, &rq, &result, &err), err);
		ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
		if (binary) {
			uint32_t sum;
			memcpy(&sum, PQgetvalue(result, 0, 0), sizeof sum);
			ck_assert_uint_eq(ntohl(sum), 48);
		} else {
			ck_assert_str_eq(PQgetvalue(result, 0, 0), "48");
			ck_assert_str_eq(PQgetvalue(result, 0, 3), "1");
		}
		ck_assert(PQgetisnull(result, 0, 1));
		ck_assert_str_eq(PQgetvalue(result, 0, 2), values[3]);
		PQclear(result);
	}
}
END_TEST

START_TEST(the_same_text_with_other_types_is_another_statement)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	PGresult *result;
	const char *values[] = {"1"};
	const unsigned types[] = {23, 25, 20, 23};
	const char *names[] = {"integer", "text", "bigint", "integer"};
	for (int i = 0; i < 4; i++) {
		dbha_request rq = DBHA_REQUEST(.sql = "SELECT pg_typeof($1)", .intent = DBHA_WRITE, .n_params = 1,
		                               .types = &types[i], .values = values);
		ASSERT_OK(dbha_exec(h, &rq, &result, &err), err);
		ck_assert_str_eq(PQgetvalue(result, 0, 0), names[i]);
		PQclear(result);
	}
}
END_TEST

START_TEST(a_wrong_number_of_parameters_is_the_servers_error_and_leaves_the_connection_usable)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	PGresult *result;
	const char *values[] = {"1", "2"};
	int pid = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	for (int i = 0; i < 2; i++) {
		dbha_request rq =
		    DBHA_REQUEST(.sql = "SELECT $1::int", .intent = DBHA_WRITE, .n_params = 2 * i, .values = values);
		ASSERT_CODE(dbha_exec(h, &rq, &result, &err), SERVER, err);
		ck_assert_str_eq(err.sqlstate, "08P01");
		PQclear(result);
	}
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
}
END_TEST

START_TEST(large_parameters_and_results_pass_whole)
{
	enum { BYTES = 8 << 20 };
	dbha *h = open_one(NULL);
	dbha_error err;
	PGresult *result;
	char *large = malloc(BYTES + 1);
	memset(large, 'x', BYTES);
	large[BYTES] = '\0';
	const char *values[] = {large};
	ASSERT_OK(
	    dbha_exec(h, &DBHA_REQUEST(.sql = "SELECT $1::text || 'y'", .n_params = 1, .values = values), &result, &err),
	    err);
	ck_assert_int_eq(PQgetlength(result, 0, 0), BYTES + 1);
	PQclear(result);
	free(large);
}
END_TEST

/* ---- prepared statements --------------------------------------------------------------------------------------- */

static int prepared(dbha *h)
{
	dbha_error err;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	int n = atoi(lease_fetch(lease, "SELECT count(*) FROM pg_prepared_statements"));
	dbha_release(lease);
	return n;
}

static void in_a_lease(dbha *h, const char *sql)
{
	dbha_error err;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	lease_fetch(lease, sql);
	dbha_release(lease);
}

START_TEST(a_statement_is_prepared_once_and_used_again)
{
	dbha *h = open_one("pool_max_size=1");
	for (int i = 0; i < 20; i++)
		ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 42"), "42");
	ck_assert_int_eq(prepared(h), 1);
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	int used = atoi(lease_fetch(lease, "SELECT generic_plans + custom_plans FROM pg_prepared_statements"));
	dbha_release(lease);
	ck_assert_int_ge(used, 18);
}
END_TEST

START_TEST(unprepared_leaves_nothing_on_the_server)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	PGresult *result;
	for (int i = 0; i < 3; i++) {
		dbha_request rq = DBHA_REQUEST(.sql = "SELECT 43", .intent = DBHA_WRITE, .flags = DBHA_UNPREPARED);
		ASSERT_OK(dbha_exec(h, &rq, &result, &err), err);
		PQclear(result);
	}
	ck_assert_int_eq(prepared(h), 0);
}
END_TEST

START_TEST(a_statement_cache_of_zero_prepares_nothing)
{
	dbha *h = open_one("pool_max_size=1&statement_cache_size=0");
	for (int i = 0; i < 5; i++)
		fetch(h, DBHA_WRITE, "SELECT 42");
	ck_assert_int_eq(prepared(h), 0);
}
END_TEST

START_TEST(the_least_recently_used_statement_is_evicted_on_the_server_too)
{
	dbha *h = open_one("pool_max_size=1&statement_cache_size=3");
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 10; i++)
			ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT %d", i)), i);
	fetch(h, DBHA_WRITE, "SELECT 8");
	fetch(h, DBHA_WRITE, "SELECT 77");
	fetch(h, DBHA_WRITE, "SELECT 77");
	ck_assert_int_le(prepared(h), 3);
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	const char *kept = lease_fetch(lease, "SELECT string_agg(statement, ' ') FROM pg_prepared_statements");
	dbha_release(lease);
	ASSERT_HAS(kept, "SELECT 8");
	ASSERT_HAS(kept, "SELECT 77");
}
END_TEST

START_TEST(statements_that_were_deallocated_behind_our_back_are_repaired)
{
	dbha *h = open_one("pool_max_size=1");
	static const char *const ways[] = {"DEALLOCATE ALL", "DISCARD ALL"};
	for (int i = 0; i < 6; i++) {
		for (int k = 0; k < 3; k++)
			fetch(h, DBHA_WRITE, "INSERT INTO counted VALUES (%d)", 500 + i);
		in_a_lease(h, ways[i % 2]);
		fetch(h, DBHA_WRITE, "INSERT INTO counted VALUES (%d)", 500 + i);
		fetch(h, DBHA_WRITE, "INSERT INTO counted VALUES (%d)", 500 + i);
		ck_assert_int_eq(rows(500 + i), 5);
	}
}
END_TEST

/* Run through the library, both are seen at once: the next statement does not have to fail first. */
START_TEST(statements_that_are_deallocated_through_the_library_are_prepared_anew)
{
	dbha *h = open_one("pool_max_size=1");
	static const char *const ways[] = {"DEALLOCATE ALL", "DISCARD ALL", "deallocate all", "/* all */ DISCARD ALL"};
	fetch(h, DBHA_WRITE, "SELECT 1");
	int pid = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	cluster_ask(&c, 1, "SELECT pg_stat_reset()");
	long rolled_back = cluster_count(&c, 1, "SELECT xact_rollback FROM pg_stat_database WHERE datname = 'app'");
	for (int i = 0; i < 4; i++) {
		for (int k = 0; k < 3; k++)
			fetch(h, DBHA_WRITE, "INSERT INTO counted VALUES (%d)", 520 + i);
		fetch(h, DBHA_WRITE, "%s", ways[i]);
		ck_assert_str_eq(
		    fetch(h, DBHA_WRITE, "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'INSERT%%'"), "0");
		for (int k = 0; k < 3; k++)
			fetch(h, DBHA_WRITE, "INSERT INTO counted VALUES (%d)", 520 + i);
		ck_assert_int_eq(rows(520 + i), 6);
	}
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
	/* A session's figures are all there once it has ended. */
	close_handle(h, 1000);
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) == 0, PATIENCE_MS);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT xact_rollback FROM pg_stat_database WHERE datname = 'app'"),
	                 rolled_back);
}
END_TEST

/* DISCARD ALL takes away that a standby's session is read-only; that is put back before it serves again. */
START_TEST(a_standbys_session_stays_read_only_whatever_is_discarded)
{
	dbha *h = open_handle(cluster_url(&c, "2", "pool_max_size=1&target_session_attrs=any"));
	static const char *const ways[] = {"DISCARD ALL", "RESET ALL", "RESET default_transaction_read_only",
	                                   "SET default_transaction_read_only = off"};
	for (int i = 0; i < 4; i++) {
		ck_assert_str_eq(fetch(h, DBHA_READ, "SHOW default_transaction_read_only"), "on");
		fetch(h, DBHA_READ, "%s", ways[i]);
	}
	ck_assert_str_eq(fetch(h, DBHA_READ, "SHOW default_transaction_read_only"), "on");
}
END_TEST

static int session_run(dbha_session *s, const char *sql, dbha_error *err)
{
	PGresult *result;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE), &result, err);
	PQclear(result);
	return code;
}

/* An error has ended the transaction: it is reported, and met once. */
START_TEST(in_a_transaction_a_preparation_that_is_no_good_is_reported_once)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	static const char *const breaks[][2] = {
	    {"ALTER TABLE bent ADD COLUMN more text", "0A000"},
	    {"DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$", "26000"}, /* its tag does not tell */
	};
	fetch(h, DBHA_WRITE, "CREATE TABLE bent (id int)");
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_msg(s != NULL, "%s", err.message);
	for (int i = 0; i < 2; i++) {
		for (int k = 0; k < 3; k++)
			ASSERT_OK(session_run(s, "SELECT * FROM bent", &err), err);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(session_run(s, "INSERT INTO counted VALUES (540)", &err), err);
		ASSERT_OK(session_run(s, breaks[i][0], &err), err);
		ASSERT_CODE(session_run(s, "SELECT * FROM bent", &err), SERVER, err);
		ck_assert_str_eq(err.sqlstate, breaks[i][1]);
		ASSERT_CODE(session_run(s, i ? "SELECT 1002" : "SELECT 1001", &err), SERVER, err);
		ck_assert_str_eq(err.sqlstate, "25P02");
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(session_run(s, "SELECT 1", &err), err);
		ASSERT_OK(session_run(s, "SELECT * FROM bent", &err), err);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	}
	dbha_session_close(s);
	ck_assert_int_eq(rows(540), 0);
}
END_TEST

/* Nobody has seen anything of such a transaction yet: it begins once more. And its mark is still asked for afterwards. */
START_TEST(the_first_statement_of_a_transaction_is_repaired)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_msg(s != NULL, "%s", err.message);
	for (int i = 0; i < 6; i++) {
		dbha_session_status status = {.size = sizeof status};
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(session_run(s, "INSERT INTO counted VALUES (550)", &err), err);
		ASSERT_OK(session_run(s, "INSERT INTO counted VALUES (550)", &err), err);
		ASSERT_OK(dbha_session_status_get(s, &status, &err), err);
		ck_assert_uint_ne(status.xid, 0);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		ck_assert_int_eq(rows(550), 2 * (i + 1));
		if (i % 2)
			in_a_lease(h, "DEALLOCATE ALL");
	}
	dbha_session_close(s);
}
END_TEST

START_TEST(in_the_transaction_of_a_lease_the_server_reports_and_the_library_mends)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	for (int k = 0; k < 3; k++)
		fetch(h, DBHA_WRITE, "SELECT 42");
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert_msg(lease != NULL, "%s", err.message);
	PGconn *pg = dbha_conn_pq(lease);
	PQclear(PQexec(pg, "BEGIN"));
	PQclear(PQexec(pg, "PREPARE mine AS SELECT 1"));
	PQclear(PQexec(pg, "DEALLOCATE ALL"));
	PGresult *result = PQexec(pg, "EXECUTE mine");
	ck_assert_str_eq(PQresultErrorField(result, PG_DIAG_SQLSTATE), "26000");
	PQclear(result);
	ck_assert_int_eq(PQtransactionStatus(pg), PQTRANS_INERROR);
	dbha_release(lease);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 42"), "42");
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 42"), "42");
}
END_TEST

START_TEST(a_cached_plan_whose_result_changed_is_repaired)
{
	dbha *h = open_one("pool_max_size=1");
	fetch(h, DBHA_WRITE, "CREATE TABLE shape (a int)");
	fetch(h, DBHA_WRITE, "INSERT INTO shape VALUES (1)");
	for (int i = 0; i < 4; i++) {
		dbha_error err;
		PGresult *result;
		for (int k = 0; k < 3; k++) {
			ASSERT_OK(dbha_exec(h, &DBHA_REQUEST(.sql = "SELECT * FROM shape", .intent = DBHA_WRITE), &result, &err),
			          err);
			ck_assert_int_eq(PQnfields(result), 1 + i);
			PQclear(result);
		}
		cluster_ask(&c, 1, "ALTER TABLE shape ADD COLUMN c%d text DEFAULT 'x'", i);
	}
}
END_TEST

/* ---- errors ---------------------------------------------------------------------------------------------------- */

START_TEST(server_errors_come_with_their_sqlstate_and_fields)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	PGresult *result;
	static const char *const cases[][2] = {
	    {"SELEKT 1", "42601"},
	    {"SELECT * FROM nowhere", "42P01"},
	    {"SELECT 1/0", "22012"},
	    {"SELECT 'x'::int", "22P02"},
	    {"", "00000"},
	    {"SELECT 1; SELECT 2", "42601"},
	    {"INSERT INTO uniq VALUES (1)", "23505"},
	};
	fetch(h, DBHA_WRITE, "CREATE TABLE uniq (id int CONSTRAINT only_one PRIMARY KEY)");
	fetch(h, DBHA_WRITE, "INSERT INTO uniq VALUES (1)");
	int pid = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		for (int k = 0; k < 2; k++) { /* once while it is prepared, once from the cache */
			int code = dbha_exec(h, &DBHA_REQUEST(.sql = cases[i][0], .intent = DBHA_WRITE), &result, &err);
			if (!*cases[i][0]) {
				ASSERT_OK(code, err);
				ck_assert_int_eq(PQresultStatus(result), PGRES_EMPTY_QUERY);
			} else {
				ASSERT_CODE(code, SERVER, err);
				ck_assert_str_eq(err.sqlstate, cases[i][1]);
				ck_assert_msg(result != NULL, "%s: no result", cases[i][0]);
				ck_assert_str_eq(PQresultErrorField(result, PG_DIAG_SQLSTATE), cases[i][1]);
				ASSERT_HAS(err.node, "127.0.0.1:");
				ck_assert(!err.outcome_unknown);
			}
			PQclear(result);
		}
	}
	ck_assert_int_eq(
	    dbha_exec(h, &DBHA_REQUEST(.sql = "INSERT INTO uniq VALUES (1)", .intent = DBHA_WRITE), &result, &err),
	    DBHA_ERR_SERVER);
	ck_assert_str_eq(PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME), "only_one");
	PQclear(result);
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
}
END_TEST

START_TEST(a_constraint_that_fails_at_commit_is_an_error_and_no_success)
{
	dbha *h = open_one(NULL);
	dbha_error err;
	fetch(h, DBHA_WRITE, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
	ASSERT_OK(run(h, DBHA_WRITE, 0, "INSERT INTO late VALUES (1)", &err), err);
	ASSERT_CODE(run(h, DBHA_WRITE, 0, "INSERT INTO late VALUES (1)", &err), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "23505");
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 1);
}
END_TEST

START_TEST(copy_is_refused_with_advice)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	static const char *const copies[] = {"COPY counted FROM STDIN",
	                                     "COPY (SELECT generate_series(1, 100000)) TO STDOUT"};
	for (int i = 0; i < 4; i++) {
		ASSERT_CODE(run(h, DBHA_WRITE, 3000, copies[i % 2], &err), SERVER, err);
		ck_assert_str_eq(err.sqlstate, "0A000");
		ASSERT_HAS(err.message, i % 2 ? "dbha_session_copy_out" : "dbha_session_copy_in");
		ck_assert(err.outcome_unknown == (i % 2 == 1)); /* COPY TO may have been of a writing query */
		ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 1"), "1");
	}
}
END_TEST

START_TEST(notices_print_nothing)
{
	char path[] = "/tmp/dbha-notices.XXXXXX";
	int file = mkstemp(path);
	int saved = dup(STDERR_FILENO);
	dbha *h = open_one(NULL);
	dup2(file, STDERR_FILENO);
	dbha_error err;
	int code = run(h, DBHA_WRITE, 0, "DO $$BEGIN RAISE WARNING 'to whom it may concern'; END$$", &err);
	int code2 = run(h, DBHA_WRITE, 0, "DROP TABLE IF EXISTS never_there", &err);
	dup2(saved, STDERR_FILENO);
	close(saved);
	off_t written = lseek(file, 0, SEEK_END);
	close(file);
	unlink(path);
	ck_assert_int_eq(code, DBHA_OK);
	ck_assert_int_eq(code2, DBHA_OK);
	ck_assert_int_eq(written, 0);
}
END_TEST

/* ---- deadlines --------------------------------------------------------------------------------------------------- */

START_TEST(a_statement_ends_with_its_deadline)
{
	dbha *h = open_one(NULL);
	dbha_error err;
	int64_t best = INT64_MAX; /* of three: a busy machine may delay one */
	fetch(h, DBHA_READ, "SELECT 1");
	for (int i = 0; i < 3; i++) {
		int64_t began = now_ms();
		ASSERT_CODE(run(h, i ? DBHA_WRITE : DBHA_READ, 300, "SELECT pg_sleep(20)", &err), TIMEOUT, err);
		int64_t took = now_ms() - began;
		ck_assert_int_ge(took, 299);
		best = took < best ? took : best;
		ck_assert_str_eq(err.sqlstate, "57014");
		ck_assert_int_eq(err.attempts, 1);
	}
	ck_assert_int_le(best, 300 + SLACK_MS);
}
END_TEST

/* A long wait has no timer of its own: the background thread ends it. */
START_TEST(a_long_wait_ends_with_its_deadline_too)
{
	dbha *h = open_one("application_name=long_wait");
	dbha_error err;
	int64_t best = INT64_MAX;
	for (int i = 0; i < 3; i++) {
		int64_t began = now_ms();
		ASSERT_CODE(run(h, i ? DBHA_WRITE : DBHA_READ, 2400 + 300 * i, "SELECT pg_sleep(60)", &err), TIMEOUT, err);
		int64_t late = now_ms() - began - (2400 + 300 * i);
		ck_assert_int_ge(late, -20); /* the coarse clock's tick */
		best = late < best ? late : best;
		ck_assert_str_eq(err.sqlstate, "57014");
	}
	ck_assert_int_le(best, SLACK_MS);
	WAIT_FOR(cluster_count(&c, 1,
	                       "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'long_wait' AND "
	                       "state = 'active' AND query LIKE '%%pg_sleep(60)%%'") == 0,
	         3000);
	/* What ends in time is left alone, and its connection serves on. */
	int pid = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	fetch(h, DBHA_WRITE, "SELECT pg_sleep(2.5)");
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
}
END_TEST

/* Nobody is at it any more: what it was to do is done by now, or never will be. */
static void expect_ended(const char *pattern)
{
	WAIT_FOR(cluster_count(&c, 1,
	                       "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
	                       "AND query LIKE '%s'",
	                       pattern) == 0,
	         PATIENCE_MS);
}

/* The timeouts that a server answered in time, as it does unless the machine is too busy; the others are of unknown outcome. */
static int stopped_in_time(dbha *h, dbha_intent intent, int timeout_ms, const char *sql, int times)
{
	dbha_error err;
	int stopped = 0;
	for (int i = 0; i < times; i++) {
		int pid = atoi(fetch(h, intent, "SELECT pg_backend_pid()"));
		int64_t began = now_ms();
		ASSERT_CODE(run(h, intent, timeout_ms, sql, &err), TIMEOUT, err);
		ck_assert_int_le(now_ms() - began, timeout_ms + 10 * SLACK_MS);
		ck_assert_str_eq(err.sqlstate, "57014");
		ck_assert(err.retry_safe == !err.outcome_unknown);
		if (strstr(err.message, "stopped") == NULL)
			continue;
		ck_assert(err.retry_safe);
		stopped += atoi(fetch(h, intent, "SELECT pg_backend_pid()")) == pid;
	}
	return stopped;
}

START_TEST(a_write_at_its_deadline_is_stopped_and_its_connection_serves_on)
{
	static const char write[] =
	    "WITH nap AS MATERIALIZED (SELECT pg_sleep(60)) INSERT INTO counted SELECT 900 FROM nap";
	dbha *h = open_one("pool_max_size=1");
	/* Unnamed, prepared, from the cache; then by the patrol, which ends the waits without a timer. */
	ck_assert_int_ge(stopped_in_time(h, DBHA_WRITE, 200, write, 6), SANITIZED ? 1 : 3);
	ck_assert_int_ge(stopped_in_time(h, DBHA_WRITE, 2300, write, 3), 1);
	expect_ended("%SELECT 900%");
	ck_assert_int_eq(rows(900), 0);
}
END_TEST

START_TEST(a_read_of_a_standby_is_stopped_at_its_deadline_and_its_connection_serves_on)
{
	dbha *h = open_handle(cluster_url(&c, "2", "pool_max_size=1&target_session_attrs=any"));
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	ck_assert_int_ge(stopped_in_time(h, DBHA_READ, 200, "SELECT pg_sleep(60)", 5), SANITIZED ? 1 : 3);
}
END_TEST

/* A function may take a cancel for something to go on from; what the server then says is what has happened. */
START_TEST(a_statement_that_ends_well_behind_its_deadline_has_ended_well)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	int done = 0;
	fetch(h, DBHA_WRITE,
	      "CREATE FUNCTION stubborn(id int) RETURNS int LANGUAGE plpgsql AS $$BEGIN BEGIN PERFORM pg_sleep(60); "
	      "EXCEPTION WHEN query_canceled THEN INSERT INTO counted VALUES ($1); END; RETURN 7; END$$");
	for (int i = 0; i < 5; i++) {
		char sql[64];
		PGresult *result;
		snprintf(sql, sizeof sql, "SELECT stubborn(%d)", 910 + i);
		int pid = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
		dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE, .timeout_ms = i == 4 ? 2300 : 200);
		int code = dbha_exec(h, &rq, &result, &err);
		if (code == DBHA_OK) {
			ck_assert_str_eq(PQgetvalue(result, 0, 0), "7");
			ck_assert_int_eq(rows(910 + i), 1);
			done++;
		} else {
			ASSERT_CODE(code, TIMEOUT, err);
			ck_assert_msg(err.outcome_unknown || rows(910 + i) == 0, "%s", err.message);
			PQclear(result);
			continue;
		}
		PQclear(result);
		/* Whether the request had come for this statement the client cannot know: it does not use the session again. */
		ck_assert_int_ne(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
	}
	ck_assert_int_ge(done, SANITIZED ? 1 : 3);
}
END_TEST

START_TEST(what_commits_in_the_middle_is_of_unknown_outcome_at_its_deadline)
{
	dbha *h = open_one(NULL);
	dbha_error err;
	fetch(h, DBHA_WRITE,
	      "CREATE PROCEDURE half(id int) LANGUAGE plpgsql AS $$BEGIN INSERT INTO counted VALUES ($1); COMMIT; "
	      "PERFORM pg_sleep(60); END$$");
	ASSERT_CODE(run(h, DBHA_WRITE, 300, "CALL half(920)", &err), TIMEOUT, err);
	ck_assert(err.outcome_unknown);
	ck_assert(!err.retry_safe);
	expect_ended("CALL half%");
	ck_assert_int_eq(rows(920), 1);
}
END_TEST

/* The server calls such a commit done when it is asked to stop waiting; its standby need not have it. */
START_TEST(a_commit_that_waits_for_its_synchronous_standby_at_the_deadline_is_of_unknown_outcome)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	int code = DBHA_OK;
	fetch(h, DBHA_WRITE, "SELECT 1");
	cluster_ask(&c, 1, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	for (int64_t until = now_ms() + PATIENCE_MS; code == DBHA_OK && now_ms() < until;)
		code = run(h, DBHA_WRITE, 300, "INSERT INTO counted VALUES (930)", &err);
	long written = rows(930);
	int next = run(h, DBHA_WRITE, 2300, "INSERT INTO counted VALUES (931)", &(dbha_error){0});
	cluster_ask(&c, 1, "ALTER SYSTEM RESET synchronous_standby_names");
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	ASSERT_CODE(code, TIMEOUT, err);
	ck_assert(err.outcome_unknown);
	ck_assert(!err.retry_safe);
	ck_assert_int_ge(written, 1);
	ck_assert_int_eq(next, DBHA_ERR_TIMEOUT);
	WAIT_FOR(run(h, DBHA_WRITE, 300, "INSERT INTO counted VALUES (932)", &err) == DBHA_OK, PATIENCE_MS);
}
END_TEST

static int session_state(dbha_session *s)
{
	dbha_error err;
	dbha_session_status status = {.size = sizeof status};
	ASSERT_OK(dbha_session_status_get(s, &status, &err), err);
	return status.state;
}

/* The transaction has failed and the session goes on with its connection, if the server has said in time that it stopped. */
START_TEST(a_statement_of_a_transaction_is_stopped_at_its_deadline)
{
	dbha *h = open_one("pool_max_size=1");
	dbha_error err;
	PGresult *result;
	int stopped[2] = {0};
	fetch(h, DBHA_WRITE, "SELECT 1");
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_msg(s != NULL, "%s", err.message);
	for (int i = 0; i < 6; i++) {
		/* The first statement of its transaction, in one flush with BEGIN; or a later one; or one that the patrol ends. */
		int timeout_ms = i == 5 ? 2300 : 200;
		dbha_request nap = DBHA_REQUEST(.sql = "INSERT INTO counted SELECT 940 FROM pg_sleep(60)", .intent = DBHA_WRITE,
		                                .timeout_ms = timeout_ms);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		if (i % 2)
			ASSERT_OK(session_run(s, "INSERT INTO counted VALUES (940)", &err), err);
		ASSERT_CODE(dbha_session_exec(s, &nap, &result, &err), TIMEOUT, err);
		ck_assert_ptr_null(result);
		ck_assert(err.retry_safe && !err.outcome_unknown); /* nothing of it is committed, however it ended */
		ck_assert_int_eq(session_state(s), DBHA_SESSION_IN_ERROR);
		stopped[i % 2] += strstr(err.message, "stopped") != NULL;
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ck_assert_int_eq(session_state(s), DBHA_SESSION_IDLE);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(session_run(s, "INSERT INTO counted VALUES (941)", &err), err);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		ck_assert_int_eq(rows(941), i + 1);
	}
	dbha_session_close(s);
	ck_assert_int_ge(stopped[0], 1);
	ck_assert_int_ge(stopped[1], 1);
	ck_assert_int_eq(rows(940), 0);
}
END_TEST

/* A COMMIT is not asked to stop, which would only make it one without its standby: it goes on waiting on the server. */
static void commit_at_its_deadline(int timeout_ms)
{
	static const char waiting[] =
	    "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'patient'";
	dbha *h = open_one("application_name=patient");
	dbha_error err;
	dbha_session *s = dbha_session_open(h, &err);
	ck_assert_msg(s != NULL, "%s", err.message);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_OK(session_run(s, "INSERT INTO counted VALUES (950)", &err), err);
	int code = dbha_session_commit(s, timeout_ms, &err);
	/* Its backend hears of the closed connection only when it has something to say: until then it is seen to wait. */
	long still = cluster_count(&c, 1, waiting);
	dbha_session_close(s);
	close_handle(h, 0);
	ck_assert_msg(code != DBHA_OK && err.outcome_unknown, "%s", dbha_code_name(code));
	ck_assert_int_eq(still, 1);
}

static void let_commits_go(void)
{
	cluster_ask(&c, 1, "ALTER SYSTEM RESET synchronous_standby_names");
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 0,
	         PATIENCE_MS);
}

static void hold_commits(void)
{
	dbha_error err;
	dbha *h = open_one("pool_max_size=1");
	cluster_ask(&c, 1, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	WAIT_FOR(run(h, DBHA_WRITE, 300, "INSERT INTO counted VALUES (951)", &err) != DBHA_OK, PATIENCE_MS);
}

START_TEST(a_commit_that_waits_for_its_synchronous_standby_is_not_asked_to_stop)
{
	hold_commits();
	commit_at_its_deadline(300);
	let_commits_go();
	hold_commits();
	commit_at_its_deadline(2300); /* without a timer of its own */
}
END_TEST

/* The worst neighbours: calls that end at their deadlines, just when the server's own statement_timeout would end them too. */
static atomic_long struck, unstruck;

static void *be_impatient(void *arg)
{
	dbha_error err;
	for (int i = 0; i < 25 && !atomic_load(&threads_stop); i++)
		run(arg, DBHA_WRITE, 60, "SELECT pg_sleep(5)", &err);
	return NULL;
}

static void *be_innocent(void *arg)
{
	dbha_error err;
	for (int i = 0; i < 200 && !atomic_load(&threads_stop); i++) {
		int code = run(arg, DBHA_WRITE, 5000, "SELECT pg_sleep(0.005)", &err);
		atomic_fetch_add(code == DBHA_OK ? &unstruck : &struck, 1);
		if (code != DBHA_OK && atomic_load(&struck) == 1)
			fprintf(stderr, "struck: %s\n", err.message);
	}
	return NULL;
}

START_TEST(the_cancel_of_one_call_strikes_no_other)
{
	/* More work than connections, so that each is used again at once. */
	dbha *h = open_one("pool_max_size=4&options=-c%20statement_timeout%3D60");
	atomic_store(&struck, 0);
	atomic_store(&unstruck, 0);
	fetch(h, DBHA_WRITE, "SELECT 1");
	for (int i = 0; i < 4; i++) {
		start_thread(be_impatient, h);
		start_thread(be_innocent, h);
	}
	join_threads();
	ck_assert_int_eq(atomic_load(&struck), 0);
	ck_assert_int_eq(atomic_load(&unstruck), 4 * 200);
}
END_TEST

START_TEST(what_timed_out_does_not_go_on_running_on_the_server)
{
	dbha *h = open_one("application_name=timed_out");
	dbha_error err;
	for (int i = 0; i < 5; i++)
		ASSERT_CODE(run(h, DBHA_WRITE, 300, "SELECT pg_sleep(60)", &err), TIMEOUT, err);
	WAIT_FOR(cluster_count(&c, 1,
	                       "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'timed_out' AND "
	                       "state = 'active' AND query LIKE '%%pg_sleep(60)%%'") == 0,
	         3000);
}
END_TEST

START_TEST(misuse_is_refused)
{
	dbha *h = open_one(NULL);
	dbha_error err;
	PGresult *result = (PGresult *)&err;
	dbha_request good = DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_WRITE);
	const int one = 1;
	const char *value = "x";
	dbha_request bad[] = {good, good, good, good, good, good, good, good, good, good, good, good};
	int n = 0;
	bad[n++].size = 0;
	bad[n++].size = sizeof(dbha_request) + 8;
	bad[n++].sql = NULL;
	bad[n++].n_params = -1;
	bad[n++].n_params = 65536;
	bad[n++].n_params = INT_MIN;
	bad[n++].n_params = 1; /* and no values */
	bad[n++].timeout_ms = -1;
	bad[n++].flags = 0x80000000u;
	bad[n++].intent = (dbha_intent)3;
	bad[n++].result_format = 2;
	bad[n].n_params = 1;
	bad[n].values = &value;
	bad[n++].formats = &one; /* binary without a length */
	for (int i = 0; i < n; i++) {
		memset(&err, 0, sizeof err);
		result = (PGresult *)&err;
		int code = dbha_exec(h, &bad[i], &result, &err);
		ck_assert_msg(code == DBHA_ERR_USAGE, "case %d: %s", i, dbha_code_name(code));
		ck_assert_int_eq(err.code, DBHA_ERR_USAGE);
		ck_assert_str_eq(err.sqlstate, "22023");
		ck_assert_uint_gt(strlen(err.message), 10);
		ck_assert_ptr_null(result);
		ck_assert_int_eq(dbha_exec(h, &bad[i], &result, NULL), DBHA_ERR_USAGE);
	}
	ck_assert_int_eq(dbha_exec(NULL, &good, &result, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_exec(h, NULL, &result, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_exec(h, &good, NULL, &err), DBHA_ERR_USAGE);
	ck_assert_ptr_null(dbha_acquire(NULL, DBHA_WRITE, 0, &err));
	ck_assert_int_eq(err.code, DBHA_ERR_USAGE);
	ck_assert_ptr_null(dbha_acquire(h, (dbha_intent)-1, 0, &err));
	ck_assert_ptr_null(dbha_acquire(h, DBHA_WRITE, -5, &err));
	ck_assert_ptr_null(dbha_conn_pq(NULL));
	ck_assert_ptr_null(dbha_conn_node(NULL));
	dbha_release(NULL);
	dbha_close(NULL, 0);
	ck_assert_int_eq(dbha_wait(NULL, DBHA_WAIT_ANY, 0, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_wait(h, (dbha_wait_for)9, 0, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_status(h, NULL, NULL, 0, &err), -1);
	ck_assert_int_eq(dbha_stats(h, 3, &(dbha_counters){.size = sizeof(dbha_counters)}, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_stats(h, -2, &(dbha_counters){.size = sizeof(dbha_counters)}, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_stats(h, 0, NULL, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_next_event(h, NULL, &err), -1);
	ck_assert_int_eq(dbha_next_event(NULL, &(dbha_event){.size = sizeof(dbha_event)}, &err), -1);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 1"), "1");
}
END_TEST

/* ---- where it goes ------------------------------------------------------------------------------------------------ */

START_TEST(a_read_that_turns_out_to_be_a_write_is_done_once_on_the_primary)
{
	dbha *h = open_one(NULL);
	dbha_error err;
	for (int i = 0; i < 5; i++) {
		ASSERT_OK(run(h, DBHA_READ, 0, "INSERT INTO counted VALUES (600)", &err), err);
		ck_assert_int_eq(rows(600), i + 1);
	}
	fetch(h, DBHA_WRITE, "CREATE SEQUENCE numbers");
	cluster_catch_up(&c, 2, 1);
	cluster_catch_up(&c, 3, 1);
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT nextval('numbers')"), "1");
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT nextval('numbers')"), "2");
}
END_TEST

/* The other ways in which a standby refuses: 0A000 for what is not replicated, 55000 for what only a primary can say. */
START_TEST(a_read_that_a_standby_cannot_do_during_recovery_is_done_on_the_primary)
{
	static const char *const reads[] = {
	    "SELECT * FROM not_replicated",
	    "CREATE TEMPORARY TABLE passing (id int)",
	    "SELECT pg_walfile_name(pg_current_wal_lsn())",
	};
	dbha *h = open_one(NULL);
	dbha_error err;
	fetch(h, DBHA_WRITE, "CREATE UNLOGGED TABLE not_replicated (id int)");
	cluster_catch_up(&c, 2, 1);
	cluster_catch_up(&c, 3, 1);
	int failed = 0;
	for (size_t i = 0; i < sizeof reads / sizeof reads[0]; i++) {
		if (run(h, DBHA_READ, 0, reads[i], &err) == DBHA_OK)
			continue;
		failed++;
		fprintf(stderr, "%s: %s %s\n", reads[i], err.sqlstate, err.message);
	}
	ck_assert_int_eq(failed, 0);
}
END_TEST

START_TEST(each_target_session_attrs_sends_default_work_where_libpq_would)
{
	static const char *const targets[][2] = {
	    {"any", ""},      {"read-write", "f"}, {"read-only", "t"},
	    {"primary", "f"}, {"standby", "t"},    {"prefer-standby", "t"},
	};
	for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++) {
		char options[64];
		snprintf(options, sizeof options, "target_session_attrs=%s", targets[i][0]);
		dbha *h = open_one(options);
		const char *recovery = fetch(h, DBHA_DEFAULT, "SELECT pg_is_in_recovery()");
		if (*targets[i][1])
			ck_assert_msg(strcmp(recovery, targets[i][1]) == 0, "%s: pg_is_in_recovery() is %s", targets[i][0],
			              recovery);
		/* What says what it is goes where it belongs, whatever the target. */
		ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT pg_is_in_recovery()"), "f");
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
		close_handle(h, 1000);
	}
	dbha_error err;
	dbha *alone = open_handle(cluster_url(&c, "2", "target_session_attrs=prefer-standby"));
	ck_assert_str_eq(fetch(alone, DBHA_DEFAULT, "SELECT pg_is_in_recovery()"), "t");
	alone = open_handle(cluster_url(&c, "1", "target_session_attrs=prefer-standby"));
	ck_assert_str_eq(fetch(alone, DBHA_DEFAULT, "SELECT pg_is_in_recovery()"), "f");
	alone = open_handle(cluster_url(&c, "1", "target_session_attrs=standby"));
	ASSERT_CODE(run(alone, DBHA_DEFAULT, 200, "SELECT 1", &err), NO_NODE, err);
	ASSERT_HAS(err.message, "a standby");
}
END_TEST

START_TEST(sessions_for_reads_are_read_only_and_those_for_writes_are_not)
{
	dbha *h = open_one(NULL);
	ck_assert_str_eq(fetch(h, DBHA_READ, "SHOW default_transaction_read_only"), "on");
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SHOW default_transaction_read_only"), "off");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("exec");
	ADD_TEST(suite, parameters_reach_the_server_as_text_and_as_binary, servers, NULL, 60);
	ADD_TEST(suite, the_same_text_with_other_types_is_another_statement, servers, NULL, 30);
	ADD_TEST(suite, a_wrong_number_of_parameters_is_the_servers_error_and_leaves_the_connection_usable, servers, NULL,
	         30);
	ADD_TEST(suite, large_parameters_and_results_pass_whole, servers, NULL, 30);
	ADD_TEST(suite, a_statement_is_prepared_once_and_used_again, servers, NULL, 30);
	ADD_TEST(suite, unprepared_leaves_nothing_on_the_server, servers, NULL, 30);
	ADD_TEST(suite, a_statement_cache_of_zero_prepares_nothing, servers, NULL, 30);
	ADD_TEST(suite, the_least_recently_used_statement_is_evicted_on_the_server_too, servers, NULL, 30);
	ADD_TEST(suite, statements_that_were_deallocated_behind_our_back_are_repaired, servers, NULL, 30);
	ADD_TEST(suite, a_cached_plan_whose_result_changed_is_repaired, servers, NULL, 30);
	ADD_TEST(suite, statements_that_are_deallocated_through_the_library_are_prepared_anew, servers, NULL, 60);
	ADD_TEST(suite, a_standbys_session_stays_read_only_whatever_is_discarded, servers, NULL, 30);
	ADD_TEST(suite, in_a_transaction_a_preparation_that_is_no_good_is_reported_once, servers, NULL, 30);
	ADD_TEST(suite, the_first_statement_of_a_transaction_is_repaired, servers, NULL, 30);
	ADD_TEST(suite, in_the_transaction_of_a_lease_the_server_reports_and_the_library_mends, servers, NULL, 30);
	ADD_TEST(suite, server_errors_come_with_their_sqlstate_and_fields, servers, NULL, 30);
	ADD_TEST(suite, a_constraint_that_fails_at_commit_is_an_error_and_no_success, servers, NULL, 30);
	ADD_TEST(suite, copy_is_refused_with_advice, servers, NULL, 30);
	ADD_TEST(suite, notices_print_nothing, servers, NULL, 30);
	ADD_TEST(suite, a_statement_ends_with_its_deadline, servers, NULL, 30);
	ADD_TEST(suite, a_long_wait_ends_with_its_deadline_too, servers, NULL, 60);
	ADD_TEST(suite, a_write_at_its_deadline_is_stopped_and_its_connection_serves_on, servers, NULL, 60);
	ADD_TEST(suite, a_read_of_a_standby_is_stopped_at_its_deadline_and_its_connection_serves_on, servers, NULL, 30);
	ADD_TEST(suite, a_statement_that_ends_well_behind_its_deadline_has_ended_well, servers, NULL, 30);
	ADD_TEST(suite, what_commits_in_the_middle_is_of_unknown_outcome_at_its_deadline, servers, NULL, 30);
	ADD_TEST(suite, a_commit_that_waits_for_its_synchronous_standby_at_the_deadline_is_of_unknown_outcome, servers,
	         NULL, 60);
	ADD_TEST(suite, a_statement_of_a_transaction_is_stopped_at_its_deadline, servers, NULL, 60);
	ADD_TEST(suite, a_commit_that_waits_for_its_synchronous_standby_is_not_asked_to_stop, servers, let_commits_go, 60);
	ADD_TEST(suite, the_cancel_of_one_call_strikes_no_other, servers, NULL, 60);
	ADD_TEST(suite, what_timed_out_does_not_go_on_running_on_the_server, servers, NULL, 30);
	ADD_TEST(suite, misuse_is_refused, servers, NULL, 30);
	ADD_TEST(suite, a_read_that_turns_out_to_be_a_write_is_done_once_on_the_primary, servers, NULL, 30);
	ADD_TEST(suite, a_read_that_a_standby_cannot_do_during_recovery_is_done_on_the_primary, servers, NULL, 30);
	ADD_TEST(suite, each_target_session_attrs_sends_default_work_where_libpq_would, servers, NULL, 30);
	ADD_TEST(suite, sessions_for_reads_are_read_only_and_those_for_writes_are_not, servers, NULL, 30);
	return run_suite(suite, &c);
}
