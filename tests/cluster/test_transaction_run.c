/*
 * test_transaction_run: dbha_transaction on a real server: what it runs again (real write skew, a real deadlock, a terminated backend),
 * what it does not, and that it ends in time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "talk.h"

static struct cluster c;

static void server(void)
{
	cluster_with_rows(&c, "1", "id int PRIMARY KEY, n int");
	cluster_ask(&c, 1, "TRUNCATE rows");
	cluster_ask(&c, 1, "INSERT INTO rows VALUES (1, 0), (2, 0)");
}

/* A function of one statement at a time; its attempts are counted. */
struct work {
	dbha *h;
	dbha_transaction_options options;
	const char *sql[4];      /* run at each attempt */
	const char *first;       /* at the first attempt only, before */
	int first_attempts;      /* how many are the first; 0: 1 */
	bool swallows, gives_up; /* what it returns: 0 after errors, 1 without any */
	bool waits;              /* at the first attempt for the others, behind its first statement */
	int attempts, wrong_numbers;
	int code;
	dbha_error err;
};

static pthread_barrier_t barrier;

static int do_work(dbha_session *s, int attempt, void *arg)
{
	struct work *work = arg;
	dbha_error err;
	work->attempts++;
	work->wrong_numbers += attempt != work->attempts;
	/* What the first statement of a transaction meets is run again without the function seeing it. */
	talk(s, "SELECT 'begun'", &err);
	int firsts = work->first_attempts ? work->first_attempts : 1;
	int failed = work->first && attempt <= firsts && talk(s, work->first, &err) != DBHA_OK;
	for (int i = 0; i < 4 && work->sql[i]; i++) {
		failed += talk(s, work->sql[i], &err) != DBHA_OK;
		if (i == 0 && work->waits && attempt == 1)
			pthread_barrier_wait(&barrier);
	}
	return work->gives_up ? 1 : failed && !work->swallows;
}

static void *run_work(void *arg)
{
	struct work *work = arg;
	work->options.size = sizeof work->options;
	work->code = dbha_transaction(work->h, &work->options, do_work, work, &work->err);
	return NULL;
}

/* Runs it here. Returns the code; after a success the error says nothing. */
static int run_here(struct work *work)
{
	run_work(work);
	ck_assert_int_eq(work->wrong_numbers, 0);
	return work->code;
}

static dbha *open_server(const char *options)
{
	return open_handle(cluster_url(&c, NULL, options));
}

#define RAISE(state) "DO $$BEGIN RAISE EXCEPTION 'so' USING ERRCODE = '" state "'; END$$"

/* ---- again -------------------------------------------------------------------------------------------------------- */

START_TEST(a_transaction_that_succeeds_runs_once)
{
	dbha *h = open_server(NULL);
	struct work work = {.h = h, .sql = {"UPDATE rows SET n = n + 1"}};
	ASSERT_OK(run_here(&work), work.err);
	ck_assert_int_eq(work.attempts, 1);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT sum(n) FROM rows"), "2");
	ck_assert_uint_eq(counters(h, -1).transactions, 1);
	ck_assert_uint_eq(counters(h, -1).retries, 0);
	/* An empty one is nothing, and no error. */
	struct work nothing = {.h = h};
	ASSERT_OK(run_here(&nothing), nothing.err);
}
END_TEST

static struct work pair[2];

static void run_pair(void)
{
	ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
	for (int i = 0; i < 2; i++)
		start_thread(run_work, &pair[i]);
	join_threads();
	pthread_barrier_destroy(&barrier);
	for (int i = 0; i < 2; i++) {
		ASSERT_OK(pair[i].code, pair[i].err);
		ck_assert_int_eq(pair[i].wrong_numbers, 0);
	}
}

START_TEST(write_skew_is_run_again)
{
	dbha *h = open_server(NULL);
	for (int i = 0; i < 2; i++)
		pair[i] = (struct work){.h = h, .options = {.isolation = DBHA_SERIALIZABLE}, .waits = true};
	/* Each writes what the other has read: not both may be done. */
	pair[0].sql[0] = pair[1].sql[0] = "SELECT sum(n) FROM rows";
	pair[0].sql[1] = "UPDATE rows SET n = (SELECT sum(n) + 1 FROM rows) WHERE id = 1";
	pair[1].sql[1] = "UPDATE rows SET n = (SELECT sum(n) + 1 FROM rows) WHERE id = 2";
	run_pair();
	ck_assert_int_ge(pair[0].attempts + pair[1].attempts, 3);
	/* One after the other: 1, and 1 + 1. Both at once would be 1 and 1. */
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT sum(n) FROM rows"), "3");
}
END_TEST

START_TEST(a_deadlock_is_run_again)
{
	dbha *h = open_server(NULL);
	for (int i = 0; i < 2; i++)
		pair[i] = (struct work){.h = h, .waits = true};
	pair[0].sql[0] = pair[1].sql[1] = "UPDATE rows SET n = n + 1 WHERE id = 1";
	pair[0].sql[1] = pair[1].sql[0] = "UPDATE rows SET n = n + 1 WHERE id = 2";
	run_pair();
	ck_assert_int_eq(pair[0].attempts + pair[1].attempts, 3);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT string_agg(n::text, ' ') FROM rows"), "2 2");
}
END_TEST

START_TEST(what_helps_is_run_again_and_nothing_else)
{
	static const struct {
		const char *first;
		bool swallows, again;
		int code;
		const char *sqlstate;
	} cases[] = {
	    {RAISE("40001"), false, true, 0, NULL},
	    {RAISE("40P01"), false, true, 0, NULL},
	    {RAISE("25006"), false, true, 0, NULL},
	    {"SELECT pg_terminate_backend(pg_backend_pid())", false, true, 0, NULL},
	    /* The function says that all is well, and the server knows better. */
	    {RAISE("40001"), true, true, 0, NULL},
	    {"SELECT pg_terminate_backend(pg_backend_pid())", true, true, 0, NULL},
	    /* It would end the same way. */
	    {RAISE("23505"), false, false, DBHA_ERR_SERVER, "23505"},
	    {RAISE("P0001"), false, false, DBHA_ERR_SERVER, "P0001"},
	    {"SELECT 1/0", false, false, DBHA_ERR_SERVER, "22012"},
	    {"SELECT 1/0", true, false, DBHA_ERR_ROLLED_BACK, "40000"},
	    {RAISE("23505"), true, false, DBHA_ERR_ROLLED_BACK, "40000"},
	};
	dbha *h = open_server(NULL);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct work later = {.h = h, .first = cases[i].first, .swallows = cases[i].swallows};
		later.sql[0] = "UPDATE rows SET n = n + 1 WHERE id = 1";
		long before = cluster_count(&c, 1, "SELECT n FROM rows WHERE id = 1");
		int code = run_here(&later);
		long done = cluster_count(&c, 1, "SELECT n FROM rows WHERE id = 1") - before;
		ck_assert_msg(code == cases[i].code, "%s: %s", cases[i].first, code ? later.err.message : "OK");
		ck_assert_int_eq(done, code == DBHA_OK);
		if (!cases[i].again) {
			ck_assert_int_eq(later.attempts, 1);
			ck_assert_str_eq(later.err.sqlstate, cases[i].sqlstate);
			ck_assert(!later.err.outcome_unknown);
		}
	}
}
END_TEST

START_TEST(a_later_error_is_told_from_its_echo)
{
	dbha *h = open_server(NULL);
	/* 40001 in the second statement, 25P02 in the third: it is the first of them that counts. */
	struct work work = {.h = h, .first = "UPDATE rows SET n = n + 1", .first_attempts = 9};
	cluster_ask(&c, 1, "CREATE SEQUENCE once");
	cluster_ask(&c, 1, "GRANT ALL ON once TO app");
	work.sql[0] = "DO $$BEGIN IF nextval('once') = 1 THEN RAISE EXCEPTION 'so' USING ERRCODE = '40001'; END IF; END$$";
	work.sql[1] = "SELECT 1";
	work.sql[2] = "SELECT 2";
	ASSERT_OK(run_here(&work), work.err);
	ck_assert_int_eq(work.attempts, 2);
	/* A lost connection, and what is said behind it. */
	cluster_ask(&c, 1, "ALTER SEQUENCE once RESTART");
	struct work lost = {.h = h, .first = "UPDATE rows SET n = n + 1", .first_attempts = 9};
	lost.sql[0] = "SELECT CASE WHEN nextval('once') = 1 THEN pg_terminate_backend(pg_backend_pid()) END";
	lost.sql[1] = "SELECT 1";
	ASSERT_OK(run_here(&lost), lost.err);
	ck_assert_int_eq(lost.attempts, 2);
	/* What a savepoint has mended is not held against it: it is the end that fails. */
	cluster_ask(&c, 1, "ALTER SEQUENCE once RESTART");
	struct work mended = {.h = h, .first = "SAVEPOINT a", .first_attempts = 9, .swallows = true};
	mended.sql[0] = "INSERT INTO rows VALUES (1, 1)";
	mended.sql[1] = "ROLLBACK TO a";
	mended.sql[2] = work.sql[0];
	ASSERT_OK(run_here(&mended), mended.err);
	ck_assert_int_eq(mended.attempts, 2);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT string_agg(n::text, ' ') FROM rows"), "2 2");
}
END_TEST

START_TEST(its_own_wish_is_respected)
{
	dbha *h = open_server(NULL);
	struct work own = {.h = h, .sql = {"UPDATE rows SET n = 9"}, .gives_up = true};
	ASSERT_STATE(run_here(&own), ROLLED_BACK, "40000", own.err);
	ck_assert_int_eq(own.attempts, 1);
	ck_assert(own.err.retry_safe);
	struct work reads = {
	    .h = h, .options = {.read_only = 1, .timeout_ms = 5000}, .sql = {"SELECT 1", "UPDATE rows SET n = 9"}};
	ASSERT_STATE(run_here(&reads), SERVER, "25006", reads.err);
	ck_assert_int_eq(reads.attempts, 1);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT sum(n) FROM rows"), "0");
}
END_TEST

/* It ends its own transaction, which it may not: at least nothing is done twice. */
static int end_it_oneself(dbha_session *s, int attempt, void *arg)
{
	dbha_error err;
	talk(s, "UPDATE rows SET n = n + 1", &err);
	talk(s, "COMMIT", &err);
	talk(s, RAISE("40001"), &err);
	*(int *)arg = attempt;
	return 1;
}

/* Everything on the same handle, and another transaction in it. */
static int nest(dbha_session *s, int attempt, void *arg)
{
	dbha_error err;
	struct work *inner = arg;
	(void)attempt;
	return talk(s, "UPDATE rows SET n = n + 1 WHERE id = 1", &err) ||
	       run(inner->h, DBHA_WRITE, 0, "UPDATE rows SET n = n + 1 WHERE id = 2", &err) || run_here(inner) ||
	       dbha_session_begin(s, NULL, &err) != DBHA_ERR_USAGE;
}

START_TEST(what_a_function_does_besides)
{
	dbha *h = open_server(NULL);
	dbha_error err;
	int attempts = 0;
	ck_assert_int_ne(dbha_transaction(h, NULL, end_it_oneself, &attempts, &err), DBHA_OK);
	ck_assert_int_eq(attempts, 1);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT sum(n) FROM rows"), "2");
	struct work inner = {.h = h, .sql = {"UPDATE rows SET n = n + 1 WHERE id = 2"}};
	ASSERT_OK(dbha_transaction(h, NULL, nest, &inner, &err), err);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT string_agg(n::text, ' ' ORDER BY id) FROM rows"), "2 3");
}
END_TEST

/* ---- not for ever ------------------------------------------------------------------------------------------------- */

START_TEST(attempts_and_time_and_budget_end_it)
{
	dbha *h = open_server(NULL);
	struct work three = {.h = h, .options = {.attempts_max = 3}, .sql = {"SELECT 1", RAISE("40001")}};
	ASSERT_STATE(run_here(&three), SERVER, "40001", three.err);
	ck_assert_int_eq(three.attempts, 3);
	ck_assert_int_eq(three.err.attempts, 3);

	int64_t began = now_ms();
	struct work late = {.h = h, .options = {.timeout_ms = 400}, .sql = {"SELECT 1", "SELECT pg_sleep(20)", "SELECT 1"}};
	ASSERT_CODE(run_here(&late), TIMEOUT, late.err);
	ck_assert_int_eq(late.attempts, 1);
	ck_assert_int_lt(now_ms() - began, 400 + 2 * SLACK_MS);

	began = now_ms();
	struct work again = {.h = h, .options = {.timeout_ms = 700}, .sql = {"SELECT 1", RAISE("40001")}};
	ck_assert_int_ne(run_here(&again), DBHA_OK);
	ck_assert_int_gt(again.attempts, 1);
	ck_assert_int_lt(now_ms() - began, 700 + 2 * SLACK_MS);
	close_handle(h, 0);

	h = open_server("retry_budget=1&pool_max_size=1&retry_backoff=1ms&retry_backoff_max=1ms");
	struct work poor = {.h = h, .options = {.timeout_ms = 10000}, .sql = {"SELECT 1", RAISE("40001")}};
	ASSERT_STATE(run_here(&poor), SERVER, "40001", poor.err);
	ck_assert_uint_ge(counters(h, -1).retries_refused, 1);
	ck_assert_int_gt(poor.attempts, 1);
	/* It has left nothing behind, and nothing open. */
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%%'"), 0);
}
END_TEST

static Suite *transaction_run_suite(void)
{
	Suite *suite = suite_create("transaction_run");
	ADD_TEST(suite, a_transaction_that_succeeds_runs_once, server, handles_close, 60);
	ADD_TEST(suite, write_skew_is_run_again, server, handles_close, 60);
	ADD_TEST(suite, a_deadlock_is_run_again, server, handles_close, 60);
	ADD_TEST(suite, what_helps_is_run_again_and_nothing_else, server, handles_close, 60);
	ADD_TEST(suite, a_later_error_is_told_from_its_echo, server, handles_close, 60);
	ADD_TEST(suite, its_own_wish_is_respected, server, handles_close, 60);
	ADD_TEST(suite, what_a_function_does_besides, server, handles_close, 60);
	ADD_TEST(suite, attempts_and_time_and_budget_end_it, server, handles_close, 60);
	return suite;
}

int main(void)
{
	return run_suite(transaction_run_suite(), &c);
}
