/*
 * test_stream: rows one by one and COPY on a real server, seen from the wire: what is held in memory, how each kind of end is told,
 * and that the connection is in order behind it. Links the floors themselves, unlike the other cluster tests.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "canceller.h"
#include "clock.h"
#include "cluster.h"
#include "pool.h"
#include "stream.h"

/* What a client may hold of 100 MB that pass through it: libpq's buffers and ours, a few times over. */
#define RESIDENT_KB_MAX 4096

static struct cluster c;
static dbha_conn *lease;
static struct stream s;
static struct attempt attempt;

static void servers(void)
{
	if (c.keeper)
		return;
	cluster_create(&c, "1");
	cluster_ask(&c, 1, "CREATE TABLE copied (id int, text text)");
	cluster_ask(&c, 1, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
	cluster_ask(&c, 1, "GRANT ALL ON copied, late TO app");
}

/* ---- small things ------------------------------------------------------------------------------------------------- */

static int64_t in_ms(int ms)
{
	return dbha__clock_now() + ms_to_us(ms);
}

static void connect_to(const char *url)
{
	dbha_error err;
	lease = dbha_acquire(open_handle(url), DBHA_WRITE, 0, &err);
	ck_assert_msg(lease != NULL, "%s", lease ? "" : err.message);
	dbha__conn_take_back(lease->conn);
}

static void connected(void)
{
	servers();
	connect_to(cluster_url(&c, NULL, "application_name=streamed&pool_max_size=1"));
}

static void clear(void)
{
	PQclear(attempt.result);
	attempt.result = NULL;
}

static void disconnected(void)
{
	clear();
	dbha__stream_fini(&s);
	dbha_release(lease);
	lease = NULL;
}

static int backend(void)
{
	return PQbackendPID(lease->conn->pg);
}

/* What the connection says to a statement, by way of a stream; must succeed. */
static int ask_number(const char *sql)
{
	dbha__stream_rows(&s, lease->conn, &DBHA_REQUEST(.sql = sql), in_ms(5000), &attempt);
	ck_assert_msg(attempt.end == ATTEMPT_OK, "%s: %s", sql, attempt.message);
	dbha__stream_next(&s, in_ms(5000), &attempt);
	ck_assert_int_eq(PQntuples(attempt.result), 1);
	int number = atoi(PQgetvalue(attempt.result, 0, 0));
	clear();
	ck_assert(dbha__stream_drain(&s, in_ms(5000), &attempt));
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	clear();
	return number;
}

/* The connection is free, and answers what it is asked and not what it was asked before. */
static void assert_in_order(int pid)
{
	clear();
	ck_assert_int_eq(s.kind, STREAM_NONE);
	ck_assert_int_eq(dbha__conn_state(lease->conn), CONN_IDLE);
	for (int i = 41; i < 45; i++) {
		char sql[32];
		snprintf(sql, sizeof sql, "SELECT %d", i);
		ck_assert_int_eq(ask_number(sql), i);
	}
	ck_assert_int_eq(ask_number("SELECT pg_backend_pid()"), pid);
}

static void assert_error(const char *sqlstate)
{
	ck_assert_msg(attempt.end == ATTEMPT_ERROR, "end %d: %s", attempt.end, attempt.message);
	ck_assert_str_eq(attempt.sqlstate, sqlstate);
}

static void begin_rows(const char *sql, int timeout_ms)
{
	dbha__stream_rows(&s, lease->conn, &DBHA_REQUEST(.sql = sql), in_ms(timeout_ms), &attempt);
}

static void begin_copy(const char *sql, enum stream_kind kind)
{
	dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = sql), kind, in_ms(10000), &attempt);
	ck_assert_msg(attempt.end == ATTEMPT_OK && s.kind == kind, "%s: %s", sql, attempt.message);
}

/* Takes rows until there are no more; how many. The last result is left in `attempt`. */
static int take_rows(int timeout_ms)
{
	int rows = 0;
	for (;;) {
		dbha__stream_next(&s, in_ms(timeout_ms), &attempt);
		if (attempt.end != ATTEMPT_OK || !attempt.result || PQntuples(attempt.result) == 0)
			return rows;
		rows += PQntuples(attempt.result);
		clear();
	}
}

static bool put(const char *data, size_t length, int timeout_ms)
{
	dbha__stream_put(&s, data, length, in_ms(timeout_ms), &attempt);
	return attempt.end == ATTEMPT_OK;
}

static bool put_text(const char *text)
{
	return put(text, strlen(text), 10000);
}

static void end_copy(const char *refusal)
{
	dbha__stream_end(&s, refusal, in_ms(10000), &attempt);
}

/* Line `i` of what is copied, 100 bytes. */
static size_t make_line(char *line, int i)
{
	return (size_t)sprintf(line, "%d\t%0*d\n", i, 98 - snprintf(NULL, 0, "%d", i), i);
}

static long copied(void)
{
	return cluster_count(&c, 1, "SELECT count(*) FROM copied");
}

static void empty(void)
{
	cluster_ask(&c, 1, "TRUNCATE copied");
}

static long resident_kb(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	ck_assert(file && fscanf(file, "%*d %ld", &pages) == 1);
	fclose(file);
	return pages * 4;
}

static void assert_resident(long before)
{
	long grown = resident_kb() - before;
	ck_assert_msg(SANITIZED || grown < RESIDENT_KB_MAX, "%ld kB more than before", grown);
}

static void wait_for_backend_idle(int pid)
{
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND state = 'idle'", pid) == 1,
	         PATIENCE_MS);
}

static void terminate(int pid)
{
	cluster_ask(&c, 1, "SELECT pg_terminate_backend(%d)", pid);
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid) == 0, PATIENCE_MS);
}

/* ---- rows --------------------------------------------------------------------------------------------------------- */

START_TEST(a_million_rows_pass_through_little_memory)
{
	int pid = backend(), rows = 0;
	long before = resident_kb();
	begin_rows("SELECT i, repeat('x', 100) FROM generate_series(1, 1000000) i", 20000);
	int64_t began = now_ms();
	for (;;) {
		dbha__stream_next(&s, in_ms(5000), &attempt);
		ck_assert_int_eq(attempt.end, ATTEMPT_OK);
		int n = PQntuples(attempt.result);
		if (n == 0)
			break;
		rows += n;
		ck_assert_int_eq(atoi(PQgetvalue(attempt.result, n - 1, 0)), rows);
		if (rows % 100000 == 0)
			assert_resident(before);
		clear();
	}
	printf("1,000,000 rows in %lld ms, %ld kB more\n", (long long)(now_ms() - began), resident_kb() - before);
	ck_assert_int_eq(rows, 1000000);
	ck_assert_int_eq(PQresultStatus(attempt.result), PGRES_TUPLES_OK);
	ck_assert_str_eq(PQcmdStatus(attempt.result), "SELECT 1000000");
	ck_assert_int_eq(PQnfields(attempt.result), 2);
	clear();
	dbha__stream_next(&s, in_ms(5000), &attempt);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	ck_assert_ptr_null(attempt.result);
	assert_in_order(pid);
}
END_TEST

START_TEST(a_statement_without_rows_has_its_own_result_and_then_none)
{
	int pid = backend();
	static const char *const statements[][2] = {
	    {"SELECT 1 WHERE false", "SELECT 0"},
	    {"DELETE FROM late WHERE id = -1", "DELETE 0"},
	    {"SET work_mem = '8MB'", "SET"},
	};
	for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
		begin_rows(statements[i][0], 5000);
		dbha__stream_next(&s, in_ms(5000), &attempt);
		ck_assert_int_eq(attempt.end, ATTEMPT_OK);
		ck_assert_str_eq(PQcmdStatus(attempt.result), statements[i][1]);
		ck_assert(attempt.answered);
		clear();
		dbha__stream_next(&s, in_ms(5000), &attempt);
		ck_assert_int_eq(attempt.end, ATTEMPT_OK);
		ck_assert_ptr_null(attempt.result);
	}
	assert_in_order(pid);
}
END_TEST

START_TEST(an_error_in_the_middle_comes_behind_the_rows_before_it)
{
	int pid = backend();
	begin_rows("SELECT 1 / (50001 - i) FROM generate_series(1, 100000) i", 5000);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	int rows = take_rows(5000);
	assert_error("22012");
	ck_assert(!attempt.answered);
	ck_assert_int_eq(rows, 50000);
	ck_assert(attempt.result != NULL);
	assert_in_order(pid);
}
END_TEST

START_TEST(an_error_at_once_is_told_by_the_start)
{
	int pid = backend();
	static const char *const bad[][2] = {
	    {"SELECT 1 / 0", "22012"}, {"SELEKT 1", "42601"}, {"SELECT 1; SELECT 2", "42601"}};
	for (size_t i = 0; i < 3; i++) {
		begin_rows(bad[i][0], 5000);
		assert_error(bad[i][1]);
		assert_in_order(pid);
	}
}
END_TEST

START_TEST(the_end_comes_behind_the_commit)
{
	int pid = backend();
	cluster_ask(&c, 1, "TRUNCATE late");
	cluster_ask(&c, 1, "INSERT INTO late VALUES (7)");
	begin_rows("INSERT INTO late SELECT generate_series(1, 1000) RETURNING id", 5000);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	ck_assert_int_eq(take_rows(5000), 1000);
	assert_error("23505");
	ck_assert(attempt.answered);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 1);
	assert_in_order(pid);
}
END_TEST

START_TEST(a_connection_cut_in_the_middle_is_told_behind_what_came_before)
{
	begin_rows("SELECT i, repeat('x', 1000) FROM generate_series(1, 1000000) i", 5000);
	terminate(backend());
	int rows = take_rows(5000);
	ck_assert_msg(attempt.end == ATTEMPT_LOST || attempt.end == ATTEMPT_FATAL, "end %d", attempt.end);
	ck_assert(!attempt.answered);
	ck_assert_int_gt(rows, 0);
	ck_assert_int_lt(rows, 1000000);
	ck_assert_uint_gt(strlen(attempt.message), 10);
	ck_assert_int_eq(s.kind, STREAM_NONE);
	ck_assert_int_eq(dbha__conn_state(lease->conn), CONN_UNUSABLE);
	dbha__stream_next(&s, in_ms(5000), &attempt);
	ck_assert_ptr_null(attempt.result);
}
END_TEST

/*
 * The server was asked to stop at the deadline, has said that it has, and its connection is in order. False: a busy machine did not let it
 * say so in time, the connection is another one, and the test may try again.
 */
static bool was_stopped(int pid)
{
	if (attempt.end == ATTEMPT_TIMEOUT) {
		disconnected();
		connected();
		return false;
	}
	ck_assert_msg(attempt.end == ATTEMPT_CANCELLED, "end %d: %s", attempt.end, attempt.message);
	ck_assert_str_eq(attempt.sqlstate, "57014");
	ck_assert(dbha__canceller_settle(lease->conn, in_ms(5000)));
	assert_in_order(pid);
	return true;
}

/* Also one that is so far away that the background thread has to end it. */
START_TEST(the_deadline_passes_between_two_rows)
{
	static const int timeouts[] = {300, 2600};
	for (int i = 0; i < 2; i++) {
		int64_t best = INT64_MAX;
		int pid;
		do {
			pid = backend();
			begin_rows("SELECT i, repeat('x', 2000), pg_sleep(CASE i WHEN 250 THEN 60 ELSE 0 END) FROM "
			           "generate_series(1, 300) i",
			           5000);
			int64_t began = now_ms();
			ck_assert_int_ge(take_rows(timeouts[i]), 1);
			int64_t took = now_ms() - began;
			ck_assert_int_ge(took, timeouts[i] - 20);
			best = took < best ? took : best;
		} while (!was_stopped(pid));
		ck_assert_int_le(best, timeouts[i] + SLACK_MS + 20);
	}
}
END_TEST

START_TEST(a_start_ends_with_its_deadline_too)
{
	int pid;
	do {
		pid = backend();
		int64_t began = now_ms();
		begin_rows("SELECT pg_sleep(60)", 200);
		ck_assert_int_le(now_ms() - began, 200 + 2 * SLACK_MS);
	} while (!was_stopped(pid));
	do {
		char *data = NULL;
		size_t length;
		pid = backend();
		dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "COPY (SELECT pg_sleep(60)) TO STDOUT"),
		                  STREAM_COPY_OUT, in_ms(200), &attempt);
		if (attempt.end == ATTEMPT_OK)
			dbha__stream_get(&s, in_ms(200), &data, &length, &attempt);
		ck_assert_ptr_null(data);
	} while (!was_stopped(pid));
}
END_TEST

/* What comes behind the deadline is late, and a result with a hole is none: it is never an end without an error. */
START_TEST(rows_behind_the_deadline_are_no_result)
{
	for (int i = 0; i < 20; i++) {
		begin_rows("SELECT i, repeat('x', 9000), pg_sleep(0.02) FROM generate_series(1, 5) i", 5000);
		int rows = take_rows(3 + i);
		ck_assert_msg(attempt.end != ATTEMPT_OK || rows == 5, "%d rows", rows);
		ck_assert_msg(attempt.end == ATTEMPT_OK || attempt.end == ATTEMPT_CANCELLED || attempt.end == ATTEMPT_TIMEOUT,
		              "end %d", attempt.end);
		disconnected();
		connected();
	}
}
END_TEST

START_TEST(what_is_given_up_early_frees_its_backend)
{
	int pid = backend();
	int64_t best = INT64_MAX;
	for (int i = 0; i < 3 || (i < 20 && best > SLACK_MS); i++) {
		begin_rows("SELECT generate_series(1, 1000000000), repeat('x', 100)", 20000);
		dbha__stream_next(&s, in_ms(5000), &attempt);
		clear();
		int64_t began = now_ms();
		ck_assert(!dbha__stream_drain(&s, in_ms(10), &attempt));
		ck_assert_int_eq(attempt.end, ATTEMPT_TIMEOUT);
		ck_assert_int_le(now_ms() - began, 10 + SLACK_MS);
		dbha__canceller_send(lease->conn);
		ck_assert(dbha__stream_drain(&s, in_ms(2000), &attempt));
		int64_t took = now_ms() - began;
		best = took < best ? took : best;
		assert_error("57014");
		assert_in_order(pid);
		wait_for_backend_idle(pid);
	}
	printf("given up within %lld ms\n", (long long)best);
	ck_assert_int_le(best, SLACK_MS);
}
END_TEST

START_TEST(a_small_rest_is_given_up_without_a_cancel)
{
	int pid = backend();
	begin_rows("SELECT generate_series(1, 1000)", 5000);
	ck_assert(dbha__stream_drain(&s, in_ms(2000), &attempt));
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	assert_in_order(pid);
}
END_TEST

START_TEST(parameters_and_binary_rows_pass)
{
	int pid = backend();
	const char *values[] = {"3"};
	dbha__stream_rows(
	    &s, lease->conn,
	    &DBHA_REQUEST(.sql = "SELECT generate_series(1, $1::int)", .n_params = 1, .values = values, .result_format = 1),
	    in_ms(5000), &attempt);
	dbha__stream_next(&s, in_ms(5000), &attempt);
	ck_assert_int_eq(PQfformat(attempt.result, 0), 1);
	ck_assert_int_eq(PQgetlength(attempt.result, 0, 0), 4);
	clear();
	take_rows(5000);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	assert_in_order(pid);
}
END_TEST

/* ---- COPY, in and out ----------------------------------------------------------------------------------------------- */

enum { LINES = 1000000 };

/* 100 MB, line by line, and back. */
START_TEST(a_hundred_megabytes_go_in_and_come_out_through_little_memory)
{
	int pid = backend();
	char line[128];
	long before = resident_kb();
	int64_t began = now_ms();
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	for (int i = 0; i < LINES; i++) {
		ck_assert(put(line, make_line(line, i), 10000));
		if (i % 100000 == 0)
			assert_resident(before);
	}
	end_copy(NULL);
	ck_assert_msg(attempt.end == ATTEMPT_OK, "%s", attempt.message);
	ck_assert_str_eq(PQcmdStatus(attempt.result), "COPY 1000000");
	ck_assert(!s.undone);
	assert_in_order(pid);
	printf("100 MB in: %lld ms, %ld kB more\n", (long long)(now_ms() - began), resident_kb() - before);
	ck_assert_int_eq(copied(), LINES);

	began = now_ms();
	begin_copy("COPY (SELECT * FROM copied ORDER BY id) TO STDOUT", STREAM_COPY_OUT);
	char *data;
	size_t length;
	for (int i = 0; i < LINES; i++) {
		dbha__stream_get(&s, in_ms(10000), &data, &length, &attempt);
		ck_assert_msg(attempt.end == ATTEMPT_OK && data, "line %d: %s", i, attempt.message);
		bool same = length == make_line(line, i) && memcmp(data, line, length) == 0;
		PQfreemem(data);
		ck_assert_msg(same, "line %d", i);
		if (i % 100000 == 0)
			assert_resident(before);
	}
	dbha__stream_get(&s, in_ms(10000), &data, &length, &attempt);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	ck_assert_ptr_null(data);
	ck_assert_str_eq(PQcmdStatus(attempt.result), "COPY 1000000");
	printf("100 MB out: %lld ms\n", (long long)(now_ms() - began));
	assert_in_order(pid);
}
END_TEST

/* The same in one call with all of it. */
START_TEST(one_put_may_hold_everything)
{
	enum { N = 200000 };
	int pid = backend();
	char *all = malloc(N * 101 + 1);
	size_t length = 0;
	for (int i = 0; i < N; i++)
		length += make_line(all + length, i);
	empty();
	long before = resident_kb();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	bool done = put(all, length, 10000);
	assert_resident(before);
	free(all);
	ck_assert(done);
	end_copy(NULL);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	assert_in_order(pid);
	ck_assert_int_eq(copied(), N);
}
END_TEST

START_TEST(a_copy_of_nothing_is_done)
{
	int pid = backend();
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	ck_assert(put("", 0, 1000));
	end_copy(NULL);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	ck_assert_str_eq(PQcmdStatus(attempt.result), "COPY 0");
	assert_in_order(pid);
	char *data;
	size_t length;
	begin_copy("COPY copied TO STDOUT", STREAM_COPY_OUT);
	dbha__stream_get(&s, in_ms(1000), &data, &length, &attempt);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	ck_assert_ptr_null(data);
	assert_in_order(pid);
}
END_TEST

START_TEST(a_constraint_that_fails_at_the_end_of_a_copy_is_an_error)
{
	int pid = backend();
	cluster_ask(&c, 1, "TRUNCATE late");
	begin_copy("COPY late FROM STDIN", STREAM_COPY_IN);
	ck_assert(put_text("1\n2\n1\n"));
	end_copy(NULL);
	assert_error("23505");
	ck_assert(!s.undone); /* the end had been sent: it is the error that says so */
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 0);
	assert_in_order(pid);
}
END_TEST

START_TEST(a_refused_copy_keeps_nothing)
{
	int pid = backend();
	char line[128];
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	for (int i = 0; i < 10000; i++)
		ck_assert(put(line, make_line(line, i), 10000));
	end_copy("the file ends in the middle of a line");
	assert_error("57014");
	ASSERT_HAS(attempt.message, "the file ends in the middle of a line");
	ck_assert(s.undone);
	ck_assert_int_eq(copied(), 0);
	assert_in_order(pid);
}
END_TEST

/* Puts lines until that fails, at most `lines`; how many. */
static int put_lines(int lines)
{
	char line[128];
	for (int i = 0; i < lines; i++)
		if (!put(line, make_line(line, i), 10000))
			return i;
	return lines;
}

START_TEST(wrong_data_is_told_before_everything_has_been_sent)
{
	int pid = backend();
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	ck_assert(put_text("no number\tx\n"));
	int lines = put_lines(LINES);
	assert_error("22P02");
	ck_assert(s.undone);
	printf("wrong data: told behind %d lines\n", lines);
	ck_assert_int_lt(lines, LINES);
	ck_assert_int_eq(copied(), 0);
	assert_in_order(pid);
}
END_TEST

START_TEST(wrong_data_at_the_end_is_told_by_the_end)
{
	int pid = backend();
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	put_lines(10);
	ck_assert(put_text("no number\tx\n"));
	end_copy(NULL);
	assert_error("22P02");
	ck_assert_int_eq(copied(), 0);
	assert_in_order(pid);
}
END_TEST

/* The server fails before it has read anything, a Sync included: the next statement must not take the answer to that for its own. */
START_TEST(a_copy_that_fails_before_its_first_line_leaves_nothing_behind)
{
	int pid = backend();
	cluster_ask(&c, 1, "CREATE TABLE closed (id int)");
	cluster_ask(&c, 1, "GRANT ALL ON closed TO app");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
	            "$$BEGIN RAISE 'closed' USING ERRCODE = '55P02'; END$$");
	cluster_ask(&c, 1, "CREATE TRIGGER t BEFORE INSERT ON closed EXECUTE FUNCTION refuse()");
	for (int i = 0; i < 20; i++) {
		dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "COPY closed FROM STDIN"), STREAM_COPY_IN, in_ms(10000),
		                  &attempt);
		ck_assert_int_eq(attempt.end, ATTEMPT_OK);
		if (i % 2 == 0)
			put_text("1\n");
		if (attempt.end == ATTEMPT_OK)
			end_copy(NULL);
		assert_error("55P02");
		assert_in_order(pid);
	}
	cluster_ask(&c, 1, "DROP TABLE closed");
}
END_TEST

/* Notices come while data goes; one that looks like an error from its middle on is none. */
START_TEST(notices_do_not_stop_a_copy)
{
	int pid = backend();
	cluster_ask(&c, 1, "CREATE TABLE noisy (id int, text text)");
	cluster_ask(&c, 1, "GRANT ALL ON noisy TO app");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION noise() RETURNS trigger LANGUAGE plpgsql AS "
	            "$$BEGIN RAISE NOTICE '%%', repeat('SERROR E', 100) USING HINT = 'E', DETAIL = 'SE'; "
	            "PERFORM pg_notify('noise', 'E'); RETURN NEW; END$$");
	cluster_ask(&c, 1, "CREATE TRIGGER t BEFORE INSERT ON noisy FOR EACH ROW EXECUTE FUNCTION noise()");
	begin_copy("COPY noisy FROM STDIN", STREAM_COPY_IN);
	ck_assert_msg(put_lines(50000) == 50000, "%s", attempt.message);
	end_copy(NULL);
	ck_assert_msg(attempt.end == ATTEMPT_OK, "%s", attempt.message);
	assert_in_order(pid);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM noisy"), 50000);
	cluster_ask(&c, 1, "DROP TABLE noisy");
}
END_TEST

START_TEST(a_slow_reader_gets_everything)
{
	int pid = backend(), rows = 0;
	begin_rows("SELECT i, repeat('x', 10000) FROM generate_series(1, 2000) i", 5000);
	long before = resident_kb();
	for (;;) {
		dbha__stream_next(&s, in_ms(5000), &attempt);
		ck_assert_int_eq(attempt.end, ATTEMPT_OK);
		if (PQntuples(attempt.result) == 0)
			break;
		rows += PQntuples(attempt.result);
		clear();
		if (rows % 10 == 0)
			short_pause();
	}
	ck_assert_int_eq(rows, 2000);
	assert_resident(before);
	assert_in_order(pid);
}
END_TEST

/* Who puts little and seldom learns of an error meanwhile, too. */
START_TEST(a_slow_writer_is_told_of_an_error_before_the_end)
{
	int pid = backend(), puts = 0;
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	ck_assert(put_text("no number\tx\n"));
	int64_t end = now_ms() + PATIENCE_MS;
	while (put_text("1\ty\n") && now_ms() < end) {
		short_pause();
		puts++;
	}
	assert_error("22P02");
	ck_assert_int_lt(puts, 5000);
	assert_in_order(pid);
}
END_TEST

START_TEST(a_slow_writer_gets_everything_in)
{
	int pid = backend();
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	char line[128];
	for (int i = 0; i < 300; i++) {
		size_t length = make_line(line, i);
		ck_assert(put(line, length / 2, 1000));
		short_pause();
		ck_assert(put(line + length / 2, length - length / 2, 1000));
	}
	end_copy(NULL);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	assert_in_order(pid);
	ck_assert_int_eq(copied(), 300);
}
END_TEST

/* A server that does not take what is put: memory stays small, the deadline holds, and nothing is kept. */
START_TEST(a_put_ends_with_its_deadline_and_nothing_is_kept)
{
	int pid = backend();
	cluster_ask(&c, 1, "CREATE TABLE slow (id int, text text)");
	cluster_ask(&c, 1, "GRANT ALL ON slow TO app");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS "
	            "$$BEGIN PERFORM pg_sleep(60); RETURN NEW; END$$");
	cluster_ask(&c, 1, "CREATE TRIGGER t BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION sleep()");
	begin_copy("COPY slow FROM STDIN", STREAM_COPY_IN);
	long before = resident_kb();
	int64_t began = 0;
	char line[128];
	for (int i = 0; i < LINES && attempt.end == ATTEMPT_OK; i++) {
		began = now_ms();
		put(line, make_line(line, i), 300);
	}
	ck_assert_int_eq(attempt.end, ATTEMPT_TIMEOUT);
	ck_assert_int_le(now_ms() - began, 300 + SLACK_MS);
	ck_assert(s.undone);
	assert_resident(before);
	/* What was given up may be drained behind a cancel request. */
	dbha__canceller_send(lease->conn);
	ck_assert(dbha__stream_drain(&s, in_ms(5000), &attempt));
	assert_error("57014");
	assert_in_order(pid);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM slow"), 0);
}
END_TEST

START_TEST(a_connection_lost_before_the_end_of_a_copy_has_kept_nothing)
{
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	ck_assert_int_eq(put_lines(1000), 1000);
	terminate(backend());
	ck_assert_int_lt(put_lines(LINES), LINES);
	ck_assert_msg(attempt.end == ATTEMPT_FATAL || attempt.end == ATTEMPT_LOST, "end %d", attempt.end);
	ck_assert(s.undone);
	ck_assert_int_eq(s.kind, STREAM_NONE);
	ck_assert_int_eq(copied(), 0);
}
END_TEST

/* It is lost, and nobody has noticed, when the end is to be sent. */
START_TEST(a_connection_found_lost_at_the_end_of_a_copy_has_kept_nothing)
{
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	ck_assert_int_eq(put_lines(10), 10);
	terminate(backend());
	end_copy(NULL);
	ck_assert_msg(attempt.end == ATTEMPT_FATAL || attempt.end == ATTEMPT_LOST, "end %d", attempt.end);
	ck_assert(s.undone);
	ck_assert_int_eq(copied(), 0);
}
END_TEST

/* At its deadline a server that works is asked to stop; one that does not answer leaves it unknown. */
START_TEST(the_end_of_a_copy_at_its_deadline)
{
	int pid;
	cluster_ask(&c, 1, "CREATE TABLE hung (id int)");
	cluster_ask(&c, 1, "GRANT ALL ON hung TO app");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS "
	            "$$BEGIN PERFORM pg_sleep(60); RETURN NULL; END$$");
	cluster_ask(&c, 1, "CREATE TRIGGER t AFTER INSERT ON hung EXECUTE FUNCTION hang()");
	do {
		pid = backend();
		begin_copy("COPY hung FROM STDIN", STREAM_COPY_IN);
		ck_assert(put_text("1\n"));
		dbha__stream_end(&s, NULL, in_ms(300), &attempt);
	} while (!was_stopped(pid));

	begin_copy("COPY hung FROM STDIN", STREAM_COPY_IN);
	ck_assert(put_text("1\n"));
	kill(pid, SIGSTOP);
	int64_t began = now_ms();
	dbha__stream_end(&s, NULL, in_ms(300), &attempt);
	int64_t took = now_ms() - began;
	kill(pid, SIGCONT);
	ck_assert_int_eq(attempt.end, ATTEMPT_TIMEOUT);
	ck_assert_int_le(took, 300 + SLACK_MS);
	ck_assert(!s.undone);
}
END_TEST

START_TEST(a_copy_out_that_is_cut_is_told)
{
	char *data;
	size_t length;
	begin_copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 1000000)) TO STDOUT", STREAM_COPY_OUT);
	terminate(backend());
	int lines = 0;
	for (;; lines++) {
		dbha__stream_get(&s, in_ms(5000), &data, &length, &attempt);
		if (!data)
			break;
		PQfreemem(data);
	}
	ck_assert_msg(attempt.end == ATTEMPT_LOST || attempt.end == ATTEMPT_FATAL, "end %d", attempt.end);
	ck_assert_int_lt(lines, 1000000);
	ck_assert_int_eq(s.kind, STREAM_NONE);
}
END_TEST

START_TEST(an_error_in_the_middle_of_a_copy_out_is_told)
{
	int pid = backend(), lines = 0;
	char *data;
	size_t length;
	begin_copy("COPY (SELECT 1 / (50001 - i) FROM generate_series(1, 100000) i) TO STDOUT", STREAM_COPY_OUT);
	for (;; lines++) {
		dbha__stream_get(&s, in_ms(5000), &data, &length, &attempt);
		if (!data)
			break;
		PQfreemem(data);
	}
	assert_error("22012");
	ck_assert_int_eq(lines, 50000);
	assert_in_order(pid);
}
END_TEST

START_TEST(a_copy_out_is_given_up_early)
{
	int pid = backend();
	begin_copy("COPY (SELECT generate_series(1, 1000000000), repeat('x', 100)) TO STDOUT", STREAM_COPY_OUT);
	int64_t began = now_ms();
	ck_assert(!dbha__stream_drain(&s, in_ms(10), &attempt));
	ck_assert_int_le(now_ms() - began, 10 + SLACK_MS);
	dbha__canceller_send(lease->conn);
	ck_assert(dbha__stream_drain(&s, in_ms(2000), &attempt));
	assert_error("57014");
	assert_in_order(pid);
	wait_for_backend_idle(pid);
}
END_TEST

START_TEST(a_copy_in_is_given_up_early)
{
	int pid = backend();
	empty();
	begin_copy("COPY copied FROM STDIN", STREAM_COPY_IN);
	ck_assert_int_eq(put_lines(5000), 5000);
	ck_assert(dbha__stream_drain(&s, in_ms(2000), &attempt));
	assert_error("57014");
	ck_assert_int_eq(copied(), 0);
	assert_in_order(pid);
}
END_TEST

/* ---- what is no COPY, or the other one -------------------------------------------------------------------------------- */

START_TEST(a_copy_is_one_statement)
{
	int pid = backend();
	empty();
	cluster_ask(&c, 1, "INSERT INTO copied VALUES (1)");
	static const char *const two[] = {"DELETE FROM copied; COPY copied FROM STDIN",
	                                  "COPY copied FROM STDIN; DELETE FROM copied"};
	for (int i = 0; i < 2; i++) {
		dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = two[i]), STREAM_COPY_IN, in_ms(5000), &attempt);
		assert_error("42601");
		assert_in_order(pid);
	}
	ck_assert_int_eq(copied(), 1);
}
END_TEST

START_TEST(a_statement_that_copies_nothing_has_been_done)
{
	int pid = backend();
	empty();
	dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "INSERT INTO copied VALUES (5)"), STREAM_COPY_OUT,
	                  in_ms(5000), &attempt);
	ck_assert_int_eq(attempt.end, ATTEMPT_OK);
	ck_assert_str_eq(PQcmdStatus(attempt.result), "INSERT 0 1");
	assert_in_order(pid);
	dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "COPY nowhere FROM STDIN"), STREAM_COPY_IN, in_ms(5000),
	                  &attempt);
	assert_error("42P01");
	assert_in_order(pid);
}
END_TEST

START_TEST(a_copy_in_the_other_direction_ends_the_connection)
{
	dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "COPY copied TO STDOUT"), STREAM_COPY_IN, in_ms(5000),
	                  &attempt);
	assert_error("0A000");
	ASSERT_HAS(attempt.message, "dbha_session_copy_out");
	ck_assert(attempt.copied_out);
	ck_assert_int_eq(s.kind, STREAM_NONE);
	disconnected();
	connected();
	dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "COPY copied FROM STDIN"), STREAM_COPY_OUT, in_ms(5000),
	                  &attempt);
	assert_error("0A000");
	ASSERT_HAS(attempt.message, "dbha_session_copy_in");
	ck_assert(!attempt.copied_out);
	disconnected();
	connected();
	begin_rows("COPY copied FROM STDIN", 5000);
	assert_error("0A000");
}
END_TEST

START_TEST(a_dead_connection_is_told_as_such)
{
	terminate(backend());
	begin_rows("SELECT 1", 5000);
	ck_assert_msg(attempt.end == ATTEMPT_FATAL || attempt.end == ATTEMPT_LOST, "end %d", attempt.end);
	clear();
	/* Now libpq knows, and sends nothing any more. */
	begin_rows("SELECT 1", 5000);
	ck_assert_int_eq(attempt.end, ATTEMPT_NOT_SENT);
	dbha__stream_copy(&s, lease->conn, &DBHA_REQUEST(.sql = "COPY copied FROM STDIN"), STREAM_COPY_IN, in_ms(5000),
	                  &attempt);
	ck_assert_int_eq(attempt.end, ATTEMPT_NOT_SENT);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("stream");
#define ADD(test, limit_s) ADD_TEST(suite, test, connected, disconnected, limit_s)
	ADD(a_million_rows_pass_through_little_memory, 60);
	ADD(a_statement_without_rows_has_its_own_result_and_then_none, 30);
	ADD(an_error_in_the_middle_comes_behind_the_rows_before_it, 30);
	ADD(an_error_at_once_is_told_by_the_start, 30);
	ADD(the_end_comes_behind_the_commit, 30);
	ADD(a_connection_cut_in_the_middle_is_told_behind_what_came_before, 30);
	ADD(the_deadline_passes_between_two_rows, 30);
	ADD(a_start_ends_with_its_deadline_too, 30);
	ADD(rows_behind_the_deadline_are_no_result, 60);
	ADD(what_is_given_up_early_frees_its_backend, 30);
	ADD(a_small_rest_is_given_up_without_a_cancel, 30);
	ADD(parameters_and_binary_rows_pass, 30);
	ADD(a_hundred_megabytes_go_in_and_come_out_through_little_memory, 120);
	ADD(one_put_may_hold_everything, 60);
	ADD(a_copy_of_nothing_is_done, 30);
	ADD(a_constraint_that_fails_at_the_end_of_a_copy_is_an_error, 30);
	ADD(a_refused_copy_keeps_nothing, 30);
	ADD(wrong_data_is_told_before_everything_has_been_sent, 60);
	ADD(wrong_data_at_the_end_is_told_by_the_end, 30);
	ADD(a_copy_that_fails_before_its_first_line_leaves_nothing_behind, 30);
	ADD(notices_do_not_stop_a_copy, 60);
	ADD(a_slow_reader_gets_everything, 30);
	ADD(a_slow_writer_is_told_of_an_error_before_the_end, 30);
	ADD(a_slow_writer_gets_everything_in, 30);
	ADD(a_put_ends_with_its_deadline_and_nothing_is_kept, 60);
	ADD(a_connection_lost_before_the_end_of_a_copy_has_kept_nothing, 30);
	ADD(a_connection_found_lost_at_the_end_of_a_copy_has_kept_nothing, 30);
	ADD(the_end_of_a_copy_at_its_deadline, 30);
	ADD(a_copy_out_that_is_cut_is_told, 30);
	ADD(an_error_in_the_middle_of_a_copy_out_is_told, 30);
	ADD(a_copy_out_is_given_up_early, 30);
	ADD(a_copy_in_is_given_up_early, 30);
	ADD(a_copy_is_one_statement, 30);
	ADD(a_statement_that_copies_nothing_has_been_done, 30);
	ADD(a_copy_in_the_other_direction_ends_the_connection, 30);
	ADD(a_dead_connection_is_told_as_such, 30);
	return run_suite(suite, &c);
}
