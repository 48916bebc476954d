/*
 * test_engine_meet: where the rules of an engine meet each other, and the other callers of its handle: a connection that goes back while
 * another is busy, a pool that the engine has to itself, one connection for everything.
 */
#include <poll.h>
#include <string.h>

#include "pipe_work.h"

static struct cluster c;
static struct book book;

static void servers(void)
{
	cluster_intact_with_rows(&c, "2", "id bigint PRIMARY KEY");
	memset(&book, 0, sizeof book);
}

static void done(void)
{
	engines_close();
	handles_close();
	cluster_ask(&c, 1, "TRUNCATE rows");
	c.intact = true;
}

/* Nothing is completed in this time. */
static void expect_nothing(dbha_engine *e, int ms)
{
	dbha_completion none = {.size = sizeof none};
	ck_assert_int_eq(dbha_next_completion(e, &none, ms, NULL), 0);
}

/* Behind a cancel a connection takes nothing new, and goes back. Who waits for its place must not wait for the other connection. */
START_TEST(a_connection_that_goes_back_is_not_missed)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2, .thread = 1});
	dbha_error err;
	submit_sql(e, DBHA_WRITE, 0, "SELECT pg_sleep(6)", 1000);
	expect_nothing(e, 200);
	submit_sql(e, DBHA_WRITE, 0, "SELECT pg_sleep(7)", 1001);
	expect_nothing(e, 300);
	for (int i = 0; i < 20; i++)
		submit_insert(e, (uint64_t)i);
	expect_nothing(e, 100);
	ASSERT_OK(dbha_submit_cancel(e, 1001, &err), err);
	book.submitted = 21;
	book_await(&book, e, 3000);
	ck_assert_int_eq(book.entries[1001].code, DBHA_ERR_CANCELED);
	ck_assert_int_eq(book_count(&book, 0, 20, DBHA_OK), 20);
}
END_TEST

/* For each that is completed another is submitted. */
static void *keep_busy(void *arg)
{
	dbha_engine *e = arg;
	dbha_error err;
	const dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_WRITE);
	while (!atomic_load(&threads_stop)) {
		dbha_completion got = {.size = sizeof got};
		if (dbha_next_completion(e, &got, 100, &err) != 1)
			continue;
		PQclear(got.result);
		dbha_submit(e, &rq, 1, &err);
	}
	return NULL;
}

static dbha_engine *open_busy(dbha *h, int connections)
{
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = connections, .thread = 1});
	for (uint64_t i = 0; i < 200; i++)
		submit_sql(e, DBHA_WRITE, 0, "SELECT 1", i);
	start_thread(keep_busy, e);
	return e;
}

static void not_busy_any_more(void)
{
	atomic_store(&threads_stop, true);
	join_threads();
	atomic_store(&threads_stop, false);
}

/* More connections than the pool has: so its own places in the queue are there as well. */
static void check_others_get_their_turn(int connections)
{
	dbha *h = open_all(&c, "pool_max_size=2");
	dbha_error err;
	open_busy(h, connections);
	WAIT_FOR(counters(h, -1).statements > 1000, PATIENCE_MS);
	for (int i = 0; i < 20; i++)
		ASSERT_OK(run(h, DBHA_WRITE, 3000, "SELECT 2", &err), err);
	not_busy_any_more();
}

START_TEST(a_call_gets_its_turn_beside_an_engine_that_has_the_pool)
{
	check_others_get_their_turn(2);
}
END_TEST

START_TEST(a_call_gets_its_turn_beside_an_engine_that_wants_more)
{
	check_others_get_their_turn(4);
}
END_TEST

START_TEST(two_engines_share_a_pool)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	open_busy(h, 1);
	WAIT_FOR(counters(h, -1).statements > 1000, PATIENCE_MS);
	dbha_engine *other = open_engine(h, (dbha_engine_options){.connections = 1});
	for (int i = 0; i < 20; i++)
		submit_sql(other, DBHA_WRITE, 0, "SELECT 2", (uint64_t)i);
	book.submitted = 20;
	book_await(&book, other, 3000);
	ck_assert_int_eq(book_count(&book, 0, 20, DBHA_OK), 20);
	not_busy_any_more();
}
END_TEST

static void *step_by_descriptor(void *arg)
{
	dbha_engine *e = arg;
	struct pollfd item = {.fd = dbha_engine_fd(e, NULL), .events = POLLIN};
	while (!atomic_load(&threads_stop)) {
		poll(&item, 1, 100);
		dbha_engine_step(e, NULL, NULL);
	}
	return NULL;
}

/* One thread steps, another waits for completions, without a thread of the library: whoever sees the answer first, it is not left lying. */
START_TEST(who_waits_learns_of_what_another_thread_has_stepped)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	start_thread(step_by_descriptor, e);
	start_thread(step_by_descriptor, e);
	for (uint64_t i = 0; i < 1000; i++) {
		submit_sql(e, DBHA_WRITE, 0, "SELECT 1", i);
		int64_t began = now_ms();
		dbha_completion got = await_completion(e);
		ck_assert_int_eq(got.code, DBHA_OK);
		ck_assert_int_lt(now_ms() - began, 1500);
		PQclear(got.result);
	}
	not_busy_any_more();
}
END_TEST

START_TEST(one_connection_is_enough_for_everything)
{
	dbha *h = open_all(&c, "pool_max_size=1&verify_commit=on");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .depth = 1});
	dbha_error err;
	for (uint64_t i = 0; i < 300; i++) {
		dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1", .flags = DBHA_TOKEN);
		rq.intent = i % 2 ? DBHA_WRITE : DBHA_READ;
		if (i % 3 == 0)
			submit_insert(e, i);
		else if (i % 3 == 1)
			submit_read(e, i);
		else
			ASSERT_OK(dbha_submit(e, &rq, i, &err), err);
	}
	book.submitted = 300;
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	ck_assert_int_eq(book_count(&book, 0, 300, DBHA_OK), 300);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 100);
}
END_TEST

/* ---- everything at a time ----------------------------------------------------------------------------------------- */

#define STORM 12000
#define QUEUE 400

static char token[DBHA_TOKEN_MAX];

/* One of everything, by turns that do not repeat soon. */
static int submit_any(dbha_engine *e, uint64_t tag)
{
	static const char *const texts[] = {"SELECT 1",
	                                    "SELECT 2 + 2",
	                                    "SELECT 1 / 0",
	                                    "SELECT pg_sleep(0.005)",
	                                    "SET work_mem = '1MB'",
	                                    "INSERT INTO rows SELECT 1 WHERE false",
	                                    "SELECT count(*) FROM rows"};
	static uint64_t state = 1;
	dbha_error err;
	state = state * 6364136223846793005u + 1442695040888963407u;
	unsigned die = (unsigned)(state >> 40);
	dbha_request rq = DBHA_REQUEST(.sql = texts[die % 7]);
	rq.intent = die / 7 % 3;
	rq.flags = (die / 21 % 4 == 0 ? DBHA_TOKEN : 0) | (die / 84 % 4 == 0 ? DBHA_IDEMPOTENT : 0);
	rq.token = die / 336 % 3 == 0 ? token : NULL;
	rq.timeout_ms = die / 1008 % 5 == 0 ? 1 + (int)(die / 5040 % 40) : 0;
	int code = dbha_submit(e, &rq, tag, &err);
	if (code == DBHA_OK && die / 2016 % 9 == 0)
		dbha_submit_cancel(e, tag - die % 50 % (tag + 1), &err);
	return code;
}

static void take_any(dbha_engine *e)
{
	dbha_completion got = await_completion(e);
	if (got.code == DBHA_OK && got.route.token[0])
		memcpy(token, got.route.token, sizeof token);
	book_enter(&book, &got);
}

/* As many as its queue holds, no more and no fewer: whatever was submitted before has been forgotten. */
static void expect_room_for(dbha *h, dbha_engine *e, int n)
{
	dbha_error err;
	const dbha_request rq = DBHA_REQUEST(.sql = "SELECT 3", .intent = DBHA_WRITE, .timeout_ms = PATIENCE_MS);
	int taken = 0;
	while (taken <= n && dbha_submit(e, &rq, 1, &err) == DBHA_OK) {
		/* What is on its way does not count: one after the other. */
		uint64_t before = counters(h, -1).statements;
		int64_t until = now_ms() + PATIENCE_MS;
		while (counters(h, -1).statements == before && now_ms() < until)
			dbha_engine_step(e, NULL, &err);
		taken++;
	}
	ck_assert_int_eq(taken, n);
}

static void check_storm(const char *options)
{
	dbha *h = open_all(&c, options);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 3, .queue = QUEUE, .depth = 20});
	token[0] = '\0';
	while (book.completed < STORM) {
		while (book.submitted < STORM && submit_any(e, (uint64_t)book.submitted) == DBHA_OK)
			book.submitted++;
		take_any(e);
		if (book.completed % 2000 == 1000)
			cluster_ask(&c, 1 + book.completed / 2000 % 2,
			            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'");
	}
	book_expect_once(&book);
	ck_assert_int_gt(book_count(&book, 0, STORM, DBHA_OK), STORM / 4);
	ck_assert_int_gt(book_count(&book, 0, STORM, DBHA_ERR_CANCELED), 0);
	expect_room_for(h, e, QUEUE);
}

START_TEST(whatever_becomes_of_them_they_are_counted_once)
{
	check_storm(NULL);
}
END_TEST

START_TEST(whatever_becomes_of_them_they_are_counted_once_verified)
{
	check_storm("verify_commit=on&routing=auto");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine_meet");
	ADD_TEST(suite, a_connection_that_goes_back_is_not_missed, servers, done, 60);
	ADD_TEST(suite, a_call_gets_its_turn_beside_an_engine_that_has_the_pool, servers, done, 60);
	ADD_TEST(suite, a_call_gets_its_turn_beside_an_engine_that_wants_more, servers, done, 60);
	ADD_TEST(suite, two_engines_share_a_pool, servers, done, 60);
	ADD_TEST(suite, who_waits_learns_of_what_another_thread_has_stepped, servers, done, 60);
	ADD_TEST(suite, one_connection_is_enough_for_everything, servers, done, 60);
	ADD_TEST(suite, whatever_becomes_of_them_they_are_counted_once, servers, done, 60);
	ADD_TEST(suite, whatever_becomes_of_them_they_are_counted_once_verified, servers, done, 60);
	return run_suite(suite, &c);
}
