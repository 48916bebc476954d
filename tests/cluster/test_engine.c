/*
 * test_engine: many requests at a time over few connections, while the cluster is as it was made. What becomes of them in a failover is
 * tested in test_engine_failover.
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pipe_work.h"

static struct cluster c;
static struct book book;
static PGconn *locker; /* who holds a lock that others wait for */

static void servers(void)
{
	cluster_intact_with_rows(&c, "2", "id bigint PRIMARY KEY");
	memset(&book, 0, sizeof book);
}

static void done(void)
{
	PQfinish(locker);
	locker = NULL;
	engines_close();
	handles_close();
	cluster_ask(&c, 1, "TRUNCATE rows");
	c.intact = true;
}

static void expect_number(dbha_completion *got, uint64_t number)
{
	ASSERT_OK(got->code, got->error);
	ck_assert_int_eq(PQntuples(got->result), 1);
	char text[24];
	snprintf(text, sizeof text, "%llu", (unsigned long long)number);
	ck_assert_str_eq(PQgetvalue(got->result, 0, 0), text);
}

/* ---- what comes back ------------------------------------------------------------------------------------------- */

START_TEST(each_request_is_completed_once_with_its_own_result)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 5000});
	for (int i = 0; i < 4000; i++) {
		if (i % 2)
			submit_read(e, (uint64_t)i);
		else
			submit_insert(e, (uint64_t)i);
	}
	book.submitted = 4000;
	while (book.completed < 4000) {
		dbha_completion got = await_completion(e);
		if (got.tag % 2) {
			expect_number(&got, got.tag);
			ck_assert_int_eq(got.route.role, DBHA_ROLE_STANDBY);
		} else {
			ASSERT_OK(got.code, got.error);
			ck_assert_str_eq(PQcmdStatus(got.result), "INSERT 0 1");
			ck_assert_str_eq(got.route.node, node_status(h, 0).name);
			ck_assert_int_eq(got.route.reason, DBHA_REASON_WRITE);
		}
		ck_assert_int_eq(got.route.attempts, 1);
		book_enter(&book, &got);
	}
	book_expect_once(&book);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 2000);
	ck_assert_uint_ge(counters(h, -1).statements, 4000);
	ck_assert_uint_eq(counters(h, -1).retries, 0);
}
END_TEST

START_TEST(what_was_submitted_is_copied)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10});
	char sql[64] = "SELECT $1::text, length($2::bytea), $3::int IS NULL";
	char text[8] = "first";
	char bytes[3] = {0, 1, 2};
	const char *values[] = {text, bytes, NULL};
	int lengths[] = {0, 3, 0}, formats[] = {0, 1, 0};
	unsigned types[] = {25, 17, 23};
	dbha_error err;
	dbha_request rq = DBHA_REQUEST(.sql = sql, .n_params = 3, .types = types, .values = values, .lengths = lengths,
	                               .formats = formats);
	ASSERT_OK(dbha_submit(e, &rq, 7, &err), err);
	memset(sql, 'x', sizeof sql - 1);
	memset(text, 'x', sizeof text - 1);
	memset(bytes, 'x', sizeof bytes);
	memset(values, 0, sizeof values);
	memset(lengths, 0, sizeof lengths);
	memset(formats, 0, sizeof formats);
	memset(types, 0, sizeof types);
	dbha_completion got = await_completion(e);
	ASSERT_OK(got.code, got.error);
	ck_assert_uint_eq(got.tag, 7);
	ck_assert_str_eq(PQgetvalue(got.result, 0, 0), "first");
	ck_assert_str_eq(PQgetvalue(got.result, 0, 1), "3");
	ck_assert_str_eq(PQgetvalue(got.result, 0, 2), "t");
	PQclear(got.result);
}
END_TEST

START_TEST(an_error_is_its_own_and_nobody_elses)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	/* A wrong text twice and more: it is to be prepared when it comes back, and the server refuses that. */
	for (int i = 0; i < 300; i++) {
		if (i % 3 == 0)
			submit_insert(e, (uint64_t)i);
		else if (i % 3 == 1)
			submit_insert(e, (uint64_t)i - 1); /* a key that is there */
		else
			submit_sql(e, DBHA_WRITE, 0, "SELECT nonsense FROM nowhere", (uint64_t)i);
	}
	book.submitted = 300;
	book_await(&book, e, PATIENCE_MS);
	for (int i = 0; i < 300; i += 3) {
		/* Both with one tag: one is done, the other refused. */
		ck_assert_int_eq(book.entries[i].completions, 2);
		ck_assert_int_eq(book.entries[i + 2].code, DBHA_ERR_SERVER);
		ck_assert_str_eq(book.entries[i + 2].sqlstate, "42P01");
		ck_assert(book.entries[i + 2].safe && !book.entries[i + 2].unknown);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 100);
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
}
END_TEST

START_TEST(an_error_at_the_commit_is_an_error)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	cluster_ask(&c, 1, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON late TO app");
	for (int i = 0; i < 40; i++)
		submit_sql(e, DBHA_WRITE, 0, i % 2 ? "INSERT INTO late VALUES (1), (1)" : "SELECT 1", (uint64_t)i);
	book.submitted = 40;
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	for (int i = 0; i < 40; i++) {
		ck_assert_int_eq(book.entries[i].code, i % 2 ? DBHA_ERR_SERVER : DBHA_OK);
		ck_assert_str_eq(book.entries[i].sqlstate, i % 2 ? "23505" : "");
		ck_assert(!book.entries[i].unknown);
	}
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
	cluster_ask(&c, 1, "DROP TABLE late");
}
END_TEST

START_TEST(a_plan_that_has_changed_shape_is_mended)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	cluster_ask(&c, 1, "CREATE TABLE shape (a int); INSERT INTO shape VALUES (1); GRANT ALL ON shape TO app");
	for (int round = 0; round < 3; round++) {
		book.submitted += 30;
		for (int i = 0; i < 30; i++)
			submit_sql(e, DBHA_WRITE, 0, "SELECT * FROM shape", (uint64_t)(round * 30 + i));
		book_await(&book, e, PATIENCE_MS);
		ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
		cluster_ask(&c, 1, "ALTER TABLE shape ADD COLUMN b%d int", round);
	}
	book_expect_once(&book);
	cluster_ask(&c, 1, "DROP TABLE shape");
}
END_TEST

START_TEST(a_read_that_writes_goes_to_the_primary)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 100});
	for (int i = 0; i < 50; i++) {
		char sql[80];
		snprintf(sql, sizeof sql, "INSERT INTO rows VALUES (%d)", i);
		submit_sql(e, DBHA_READ, 0, sql, (uint64_t)i);
	}
	book.submitted = 50;
	while (book.completed < 50) {
		dbha_completion got = await_completion(e);
		ASSERT_OK(got.code, got.error);
		ck_assert_int_eq(got.route.reason, DBHA_REASON_REFUSED);
		book_enter(&book, &got);
	}
	book_expect_once(&book);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 50);
}
END_TEST

/* ---- alone ----------------------------------------------------------------------------------------------------- */

START_TEST(what_changes_its_session_changes_nobody_elses)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2});
	static const char *const alone[] = {
	    "BEGIN",
	    "SET work_mem = '123kB'",
	    "CREATE TEMP TABLE passing (a int)",
	    "SELECT pg_advisory_lock(4711)",
	    "SELECT set_config('work_mem', '123kB', false)",
	    "PREPARE mine AS SELECT 1",
	};
	for (int i = 0; i < 300; i++) {
		if (i % 3 == 0)
			submit_sql(e, DBHA_WRITE, 0, alone[i / 3 % 6], (uint64_t)i);
		else if (i % 3 == 1)
			submit_insert(e, (uint64_t)i);
		else
			submit_sql(e, DBHA_WRITE, 0, "SELECT current_setting('work_mem')", (uint64_t)i);
	}
	book.submitted = 300;
	while (book.completed < 300) {
		dbha_completion got = await_completion(e);
		ASSERT_OK(got.code, got.error);
		if (got.tag % 3 == 2)
			ck_assert_str_ne(PQgetvalue(got.result, 0, 0), "123kB");
		book_enter(&book, &got);
	}
	book_expect_once(&book);
	/* Of the rows none was in a transaction of somebody else's. */
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 100);
	engines_close();
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0, PATIENCE_MS);
}
END_TEST

START_TEST(copy_is_refused_and_costs_nobody_else_anything)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2});
	for (int i = 0; i < 60; i++) {
		if (i % 20 == 5)
			submit_sql(e, DBHA_WRITE, 0, "COPY rows FROM STDIN", (uint64_t)i);
		else
			submit_insert(e, (uint64_t)i);
	}
	book.submitted = 60;
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	for (int i = 0; i < 60; i++) {
		ck_assert_int_eq(book.entries[i].code, i % 20 == 5 ? DBHA_ERR_SERVER : DBHA_OK);
		ck_assert_str_eq(book.entries[i].sqlstate, i % 20 == 5 ? "0A000" : "");
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 57);
}
END_TEST

/* The first time nobody knows. From then on the quick ones do not stand behind it. */
START_TEST(what_is_known_to_be_slow_lets_the_others_go_on)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2});
	submit_sql(e, DBHA_WRITE, 0, "SELECT pg_sleep(0.2)", 0);
	dbha_completion got = await_completion(e);
	PQclear(got.result);
	for (int round = 0; round < 3; round++) {
		int64_t began = now_ms();
		/* More of them than connections: they must not take all. */
		for (int i = 0; i < 3; i++)
			submit_sql(e, DBHA_WRITE, 0, "SELECT pg_sleep(0.2)", (uint64_t)i);
		for (int i = 3; i < 200; i++)
			submit_insert(e, (uint64_t)(1000 * round + i));
		for (int i = 3; i < 200; i++) {
			got = await_completion(e);
			ASSERT_OK(got.code, got.error);
			ck_assert_uint_ge(got.tag, 3);
			PQclear(got.result);
		}
		ck_assert_int_lt(now_ms() - began, 200);
		for (int i = 0; i < 3; i++) {
			got = await_completion(e);
			ASSERT_OK(got.code, got.error);
			PQclear(got.result);
		}
		ck_assert_int_ge(now_ms() - began, 600);
	}
	/* It leaves nothing behind, and its connection goes on as it is. */
	ck_assert_uint_eq(counters(h, -1).resets, 0);
}
END_TEST

/* ---- bounds ---------------------------------------------------------------------------------------------------- */

START_TEST(beyond_its_queue_it_takes_nothing)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10});
	dbha_error err;
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_WRITE);
	for (int i = 0; i < 10; i++)
		submit_insert(e, (uint64_t)i);
	ASSERT_CODE(dbha_submit(e, &rq, 10, &err), POOL, err);
	ck_assert(err.retry_safe && !err.outcome_unknown);
	ASSERT_HAS(err.message, "10 requests");
	/* Sent and answered, but not fetched: still there. */
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK && counters(h, -1).statements >= 10, PATIENCE_MS);
	ASSERT_CODE(dbha_submit(e, &rq, 10, &err), POOL, err);
	dbha_completion got = await_completion(e);
	PQclear(got.result);
	ASSERT_OK(dbha_submit(e, &rq, 10, &err), err);
	for (int i = 0; i < 10; i++) {
		got = await_completion(e);
		ASSERT_OK(got.code, got.error);
		PQclear(got.result);
	}
	ck_assert_int_eq(dbha_next_completion(e, &got, 0, &err), 0);
}
END_TEST

/* Of a connection no more than `depth` have been sent: the rest can still be called back. */
START_TEST(no_more_than_depth_are_on_their_way_on_a_connection)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2, .depth = 3});
	locker = cluster_admin(&c, 1);
	PQclear(PQexec(locker, "BEGIN; LOCK TABLE rows"));
	for (int i = 0; i < 20; i++)
		submit_insert(e, (uint64_t)i);
	book.submitted = 20;
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK &&
	             cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 2,
	         PATIENCE_MS);
	dbha_error err;
	int called_back = 0;
	for (int i = 0; i < 20; i++)
		ASSERT_OK(dbha_submit_cancel(e, (uint64_t)i, &err), err);
	dbha_completion got = {.size = sizeof got};
	while (dbha_next_completion(e, &got, 0, &err) == 1) {
		ASSERT_CODE(got.code, CANCELED, got.error);
		called_back += strstr(got.error.message, "before it was sent") != NULL;
		book_enter(&book, &got);
	}
	ck_assert_int_eq(called_back, 14);
	PQclear(PQexec(locker, "ROLLBACK"));
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
}
END_TEST

struct submitter {
	dbha_engine *e;
	int first, n;
};

static void *submit_some(void *arg)
{
	struct submitter *s = arg;
	char text[24];
	const char *values[] = {text};
	for (int i = 0; i < s->n; i++) {
		snprintf(text, sizeof text, "%d", s->first + i);
		dbha_request rq =
		    DBHA_REQUEST(.sql = "SELECT $1::bigint", .intent = DBHA_WRITE, .n_params = 1, .values = values);
		while (dbha_submit(s->e, &rq, (uint64_t)(s->first + i), NULL) != DBHA_OK && !threads_stop)
			short_pause();
	}
	return NULL;
}

START_TEST(who_submits_much_does_not_stand_before_who_submits_little)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .depth = 4, .queue = 6000});
	static struct submitter much = {.n = 5000}, little = {.first = 5000, .n = 10};
	much.e = little.e = e;
	join_thread(start_thread(submit_some, &much));
	join_thread(start_thread(submit_some, &little));
	int last_little = 0;
	for (int i = 0; i < 5010; i++) {
		dbha_completion got = await_completion(e);
		expect_number(&got, got.tag);
		if (got.tag >= 5000)
			last_little = i;
		PQclear(got.result);
	}
	ck_assert_int_lt(last_little, 40);
}
END_TEST

/* ---- deadlines and cancels --------------------------------------------------------------------------------------- */

START_TEST(a_deadline_is_kept_wherever_the_request_is)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .depth = 4});
	locker = cluster_admin(&c, 1);
	PQclear(PQexec(locker, "BEGIN; LOCK TABLE rows"));
	int64_t began = now_ms();
	dbha_error err;
	for (int i = 0; i < 8; i++) {
		char sql[80];
		snprintf(sql, sizeof sql, "INSERT INTO rows VALUES (%d)", i);
		/* The fifth and later ones are not sent before the first is over. */
		dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE, .timeout_ms = 300);
		ASSERT_OK(dbha_submit(e, &rq, (uint64_t)i, &err), err);
	}
	submit_sql(e, DBHA_WRITE, 10000, "SELECT 1", 8);
	book.submitted = 9;
	for (int i = 0; i < 8; i++) {
		dbha_completion got = await_completion(e);
		ck_assert_int_ge(now_ms() - began, 300);
		ck_assert_int_le(now_ms() - began, 300 + SLACK_MS);
		book_enter(&book, &got);
	}
	/* The first one was stopped by the server, which has said so. */
	ck_assert_int_eq(book.entries[0].code, DBHA_ERR_TIMEOUT);
	ck_assert(book.entries[0].safe && !book.entries[0].unknown);
	for (int i = 1; i < 4; i++) {
		ck_assert_int_eq(book.entries[i].code, DBHA_ERR_TIMEOUT);
		ck_assert(!book.entries[i].safe && book.entries[i].unknown);
	}
	for (int i = 4; i < 8; i++) {
		ck_assert_int_eq(book.entries[i].code, DBHA_ERR_POOL);
		ck_assert(book.entries[i].safe && !book.entries[i].unknown);
	}
	PQclear(PQexec(locker, "ROLLBACK"));
	book_await(&book, e, PATIENCE_MS);
	ck_assert_int_eq(book.entries[8].code, DBHA_OK);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 0 OR id >= 4"), 0);
	book_expect_once(&book);
}
END_TEST

START_TEST(a_cancel_stops_one_and_harms_no_other)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	dbha_error err;
	submit_sql(e, DBHA_WRITE, 0, "SELECT pg_sleep(60)", 0);
	for (int i = 1; i < 50; i++)
		submit_insert(e, (uint64_t)i);
	book.submitted = 50;
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK &&
	             cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1,
	         PATIENCE_MS);
	ASSERT_OK(dbha_submit_cancel(e, 0, &err), err);
	book_await(&book, e, PATIENCE_MS);
	ck_assert_int_eq(book.entries[0].code, DBHA_ERR_CANCELED);
	ck_assert_str_eq(book.entries[0].sqlstate, "57014");
	ck_assert_int_eq(book_count(&book, 1, 49, DBHA_OK), 49);
	book_expect_once(&book);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 49);
	ASSERT_CODE(dbha_submit_cancel(e, 0, &err), USAGE, err);
}
END_TEST

/* ---- the descriptor, the thread ---------------------------------------------------------------------------------- */

START_TEST(the_descriptor_tells_when_to_step)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 2000});
	dbha_error err;
	int fd = dbha_engine_fd(e, &err);
	int steps = 0;
	for (int i = 0; i < 1000; i++)
		submit_read(e, (uint64_t)i);
	submit_sql(e, DBHA_READ, 1000, "SELECT pg_sleep(20)", 1000);
	book.submitted = 1001;
	while (book.completed < book.submitted) {
		struct pollfd item = {.fd = fd, .events = POLLIN};
		ck_assert_int_eq(poll(&item, 1, PATIENCE_MS), 1);
		ASSERT_OK(dbha_engine_step(e, NULL, &err), err);
		steps++;
		dbha_completion got = {.size = sizeof got};
		while (dbha_next_completion(e, &got, 0, &err) == 1)
			book_enter(&book, &got);
	}
	ck_assert_int_eq(book_count(&book, 0, 1000, DBHA_OK), 1000);
	ck_assert_int_eq(book.entries[1000].code, DBHA_ERR_TIMEOUT);
	ck_assert_int_eq(dbha_engine_fd(e, &err), fd);
	ck_assert_int_lt(steps, 1500);
	/* With nothing to do it rests; its connections go back meanwhile. */
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK && node_status(h, 1).pool_used == 0, PATIENCE_MS);
	/* The timer may go off once for what is over already. */
	struct pollfd item = {.fd = fd, .events = POLLIN};
	int64_t wait_us = 0;
	int wakes = 0;
	do
		dbha_engine_step(e, &wait_us, NULL);
	while (poll(&item, 1, 200) != 0 && ++wakes < 3);
	ck_assert_int_lt(wakes, 3);
	ck_assert_int_eq(wait_us, -1);
}
END_TEST

START_TEST(a_thread_does_it_where_that_is_wanted)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1, .queue = 20000});
	dbha_error err;
	static struct submitter submitters[8];
	pthread_t threads[8];
	struct pollfd item = {.fd = dbha_engine_fd(e, &err), .events = POLLIN};
	ck_assert_int_eq(poll(&item, 1, 0), 0);
	ASSERT_CODE(dbha_engine_step(e, NULL, &err), USAGE, err);
	for (int i = 0; i < 8; i++) {
		submitters[i] = (struct submitter){.e = e, .first = i * 1000, .n = 1000};
		threads[i] = start_thread(submit_some, &submitters[i]);
	}
	book.submitted = 8000;
	ck_assert_int_eq(poll(&item, 1, PATIENCE_MS), 1);
	while (book.completed < 8000) {
		dbha_completion got = await_completion(e);
		expect_number(&got, got.tag);
		book_enter(&book, &got);
	}
	for (int i = 0; i < 8; i++)
		join_thread(threads[i]);
	book_expect_once(&book);
	ck_assert_int_eq(poll(&item, 1, 0), 0);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------------ */

static void fill_and_stop(int thread, int drain_ms)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = thread, .queue = 5000});
	dbha_error err;
	for (int i = 0; i < 3000; i++)
		submit_insert(e, (uint64_t)i);
	book.submitted = 3000;
	if (drain_ms == 0) {
		dbha_completion got = await_completion(e);
		book_enter(&book, &got);
	}
	dbha_engine_stop(e, drain_ms);
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1");
	ASSERT_CODE(dbha_submit(e, &rq, 3000, &err), CLOSED, err);
	dbha_completion got = {.size = sizeof got};
	while (dbha_next_completion(e, &got, 0, &err) == 1)
		book_enter(&book, &got);
	book_expect_once(&book);
	ck_assert_int_eq(node_status(h, 0).pool_used, 0);
}

static void check_stopping_drains_what_was_accepted(int thread)
{
	fill_and_stop(thread, 10000);
	ck_assert_int_eq(book_count(&book, 0, 3000, DBHA_OK), 3000);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 3000);
}

START_TEST(stopping_drains_what_was_accepted)
{
	check_stopping_drains_what_was_accepted(0);
}
END_TEST

START_TEST(stopping_drains_what_was_accepted_with_a_thread)
{
	check_stopping_drains_what_was_accepted(1);
}
END_TEST

static void check_stopping_at_once_says_what_became_of_each(int thread)
{
	fill_and_stop(thread, 0);
	int ok = book_count(&book, 0, 3000, DBHA_OK), closed = book_count(&book, 0, 3000, DBHA_ERR_CLOSED);
	int unknown = book_count(&book, 0, 3000, DBHA_ERR_UNKNOWN);
	ck_assert_int_eq(ok + closed + unknown, 3000);
	ck_assert_int_gt(closed, 0);
	ck_assert_int_gt(unknown, 0);
	/* Until the backends have seen that nobody is there any more. */
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO rows%%'") == 0,
	         PATIENCE_MS);
	for (int i = 0; i < 3000; i++) {
		const struct entry *entry = &book.entries[i];
		ck_assert(entry->safe == (entry->code == DBHA_ERR_CLOSED) &&
		          entry->unknown == (entry->code == DBHA_ERR_UNKNOWN));
		if (i % 10 && entry->code == DBHA_OK)
			continue;
		long there = cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = %d", i);
		ck_assert(entry->code == DBHA_ERR_UNKNOWN || there == (entry->code == DBHA_OK));
	}
}

START_TEST(stopping_at_once_says_what_became_of_each)
{
	check_stopping_at_once_says_what_became_of_each(0);
}
END_TEST

START_TEST(stopping_at_once_says_what_became_of_each_with_a_thread)
{
	check_stopping_at_once_says_what_became_of_each(1);
}
END_TEST

START_TEST(closing_the_handle_ends_what_was_accepted)
{
	dbha *h = dbha_open(cluster_url(&c, NULL, NULL), NULL);
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .depth = 4});
	for (int i = 0; i < 100; i++)
		submit_sql(e, DBHA_WRITE, 0, "SELECT pg_sleep(1)", (uint64_t)i);
	book.submitted = 100;
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK && node_status(h, 0).pool_used == 1, PATIENCE_MS);
	dbha_close(h, 0);
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	ck_assert_int_eq(book_count(&book, 0, 100, DBHA_OK), 0);
	ck_assert_int_ge(book_count(&book, 0, 100, DBHA_ERR_CLOSED), 90);
	engines_close();
}
END_TEST

static void check_in_a_child_it_is_dead_and_sends_nothing(int thread)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = thread});
	dbha_error err;
	for (int i = 0; i < 500; i++)
		submit_insert(e, (uint64_t)i);
	book.submitted = 500;
	/* A sanitizer's allocator is not made for a fork while another thread is in it: the child would wait for ever. */
	if (thread && SANITIZED)
		book_await(&book, e, PATIENCE_MS);
	pid_t pid = fork();
	if (pid == 0) {
		dbha_completion got = {.size = sizeof got};
		dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows VALUES (-1)", .intent = DBHA_WRITE);
		alarm(20);
		bool good = dbha_submit(e, &rq, 0, &err) == DBHA_ERR_FORKED;
		good = good && dbha_engine_step(e, NULL, &err) == DBHA_ERR_FORKED && err.code == DBHA_ERR_FORKED;
		good = good && dbha_next_completion(e, &got, 100, &err) == -1 && dbha_engine_fd(e, &err) == -1;
		dbha_engine_stop(e, 100);
		dbha_engine_close(e);
		if (CHILD_MAY_HAVE_THREADS)
			good = good && run(h, DBHA_WRITE, 0, "INSERT INTO rows VALUES (-2)", &err) == DBHA_OK;
		dbha_close(h, 0);
		_exit(good ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
	book_await(&book, e, PATIENCE_MS);
	ck_assert_int_eq(book_count(&book, 0, 500, DBHA_OK), 500);
	book_expect_once(&book);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 500 + CHILD_MAY_HAVE_THREADS);
}

START_TEST(in_a_child_it_is_dead_and_sends_nothing)
{
	check_in_a_child_it_is_dead_and_sends_nothing(0);
}
END_TEST

START_TEST(in_a_child_it_is_dead_and_sends_nothing_with_a_thread)
{
	check_in_a_child_it_is_dead_and_sends_nothing(1);
}
END_TEST

START_TEST(nonsense_is_refused)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	dbha_engine_options options = DBHA_ENGINE_OPTIONS(.depth = -1);
	dbha_completion got = {.size = sizeof got};
	dbha_result_route route = {.size = sizeof route};
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1", .route = &route);
	ck_assert_ptr_null(dbha_engine_open(NULL, NULL, &err));
	ck_assert_ptr_null(dbha_engine_open(h, &options, &err));
	ASSERT_CODE(err.code, USAGE, err);
	options = (dbha_engine_options){.size = 1};
	ck_assert_ptr_null(dbha_engine_open(h, &options, &err));
	ASSERT_CODE(err.code, USAGE, err);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 1});
	ASSERT_CODE(dbha_submit(NULL, &rq, 1, &err), USAGE, err);
	ASSERT_CODE(dbha_submit(e, NULL, 1, &err), USAGE, err);
	ASSERT_CODE(dbha_submit(e, &rq, 1, &err), USAGE, err);
	rq = DBHA_REQUEST(.sql = "SELECT 1", .flags = DBHA_PIN);
	ASSERT_CODE(dbha_submit(e, &rq, 1, &err), USAGE, err);
	rq = DBHA_REQUEST(.sql = "SELECT 1", .token = "rubbish", .intent = DBHA_READ);
	ASSERT_CODE(dbha_submit(e, &rq, 1, &err), USAGE, err);
	/* None of them takes a place. */
	rq = DBHA_REQUEST(.sql = "SELECT 1");
	ASSERT_OK(dbha_submit(e, &rq, 1, NULL), err);
	ck_assert_int_eq(dbha_next_completion(NULL, &got, 0, &err), -1);
	ck_assert_int_eq(dbha_next_completion(e, NULL, 0, &err), -1);
	got.size = 3;
	ck_assert_int_eq(dbha_next_completion(e, &got, 0, &err), -1);
	ck_assert_int_eq(dbha_engine_fd(NULL, NULL), -1);
	ASSERT_CODE(dbha_engine_step(NULL, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_submit_cancel(e, 99, &err), USAGE, err);
	dbha_engine_stop(NULL, 0);
	dbha_engine_close(NULL);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine");
	ADD_TEST(suite, each_request_is_completed_once_with_its_own_result, servers, done, 60);
	ADD_TEST(suite, what_was_submitted_is_copied, servers, done, 60);
	ADD_TEST(suite, an_error_is_its_own_and_nobody_elses, servers, done, 60);
	ADD_TEST(suite, an_error_at_the_commit_is_an_error, servers, done, 60);
	ADD_TEST(suite, a_plan_that_has_changed_shape_is_mended, servers, done, 60);
	ADD_TEST(suite, a_read_that_writes_goes_to_the_primary, servers, done, 60);
	ADD_TEST(suite, what_changes_its_session_changes_nobody_elses, servers, done, 60);
	ADD_TEST(suite, copy_is_refused_and_costs_nobody_else_anything, servers, done, 60);
	ADD_TEST(suite, what_is_known_to_be_slow_lets_the_others_go_on, servers, done, 60);
	ADD_TEST(suite, beyond_its_queue_it_takes_nothing, servers, done, 60);
	ADD_TEST(suite, no_more_than_depth_are_on_their_way_on_a_connection, servers, done, 60);
	ADD_TEST(suite, who_submits_much_does_not_stand_before_who_submits_little, servers, done, 60);
	ADD_TEST(suite, a_deadline_is_kept_wherever_the_request_is, servers, done, 60);
	ADD_TEST(suite, a_cancel_stops_one_and_harms_no_other, servers, done, 60);
	ADD_TEST(suite, the_descriptor_tells_when_to_step, servers, done, 60);
	ADD_TEST(suite, a_thread_does_it_where_that_is_wanted, servers, done, 60);
	ADD_TEST(suite, closing_the_handle_ends_what_was_accepted, servers, done, 60);
	ADD_TEST(suite, nonsense_is_refused, servers, done, 60);
	ADD_TEST(suite, stopping_drains_what_was_accepted, servers, done, 60);
	ADD_TEST(suite, stopping_drains_what_was_accepted_with_a_thread, servers, done, 60);
	ADD_TEST(suite, stopping_at_once_says_what_became_of_each, servers, done, 60);
	ADD_TEST(suite, stopping_at_once_says_what_became_of_each_with_a_thread, servers, done, 60);
	ADD_TEST(suite, in_a_child_it_is_dead_and_sends_nothing, servers, done, 60);
	ADD_TEST(suite, in_a_child_it_is_dead_and_sends_nothing_with_a_thread, servers, done, 60);
	return run_suite(suite, &c);
}
