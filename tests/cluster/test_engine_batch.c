/*
 * test_engine_batch: batches handed to an engine: one completion each, all or nothing, beside thousands of other requests, and through the loss of
 * the primary; the rows, counted on the server, say whether what was said of them is the truth.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cutter.h"
#include "pipe_work.h"

#define BATCH_MAX 5000
/* Tags of single requests; those of batches begin at 0. */
#define SINGLE    1000000

static struct cluster c;
static struct book book;
static PGconn *locker;
static struct cutter cutter;
static char ids[BATCH_MAX][24];
static const char *values[BATCH_MAX][2];
static dbha_request requests[BATCH_MAX];

/* In deferred rows a number may not be there twice when the transaction ends. */
static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id bigint, filler text, once int UNIQUE DEFERRABLE INITIALLY DEFERRED");
	memset(&book, 0, sizeof book);
	locker = NULL;
}

static void done(void)
{
	PQfinish(locker);
	locker = NULL;
	engines_close();
	handles_close();
	if (cutter.running)
		cutter_stop(&cutter);
}

/* n inserts of this number. */
static dbha_batch_request inserts(int n, uint64_t number, const char *filler)
{
	for (int i = 0; i < n; i++) {
		snprintf(ids[i], sizeof ids[i], "%llu", (unsigned long long)number);
		values[i][0] = ids[i];
		values[i][1] = filler;
		requests[i] =
		    DBHA_REQUEST(.sql = "INSERT INTO rows (id, filler) VALUES ($1, $2)", .n_params = 2, .values = values[i]);
	}
	return DBHA_BATCH(.requests = requests, .n = n, .intent = DBHA_WRITE);
}

/* n reads, each of its place. */
static dbha_batch_request reads(int n)
{
	for (int i = 0; i < n; i++) {
		snprintf(ids[i], sizeof ids[i], "%d", i);
		values[i][0] = ids[i];
		requests[i] = DBHA_REQUEST(.sql = "SELECT $1::bigint", .n_params = 1, .values = values[i]);
	}
	return DBHA_BATCH(.requests = requests, .n = n, .intent = DBHA_READ);
}

static void submit(dbha_engine *e, const dbha_batch_request *batch, uint64_t tag)
{
	dbha_error err;
	ASSERT_OK(dbha_submit_batch(e, batch, tag, &err), err);
}

static long rows_of(int node, uint64_t number)
{
	return cluster_count(&c, node, "SELECT count(*) FROM rows WHERE id = %llu", (unsigned long long)number);
}

static dbha_engine *open_one(const char *options, dbha_engine_options how)
{
	return open_engine(open_all(&c, options), how);
}

/* The completion of the batch 0, whatever else comes meanwhile. */
static dbha_completion await_batch(dbha_engine *e, int *others)
{
	for (;;) {
		dbha_completion got = await_completion(e);
		if (got.tag < SINGLE)
			return got;
		ASSERT_OK(got.code, got.error);
		*others += 1;
		dbha_completion_clear(&got);
	}
}

static void lock_rows(void)
{
	locker = cluster_admin(&c, 1);
	PQclear(PQexec(locker, "BEGIN"));
	PGresult *locked = PQexec(locker, "LOCK TABLE rows");
	ck_assert_int_eq(PQresultStatus(locked), PGRES_COMMAND_OK);
	PQclear(locked);
}

static void expect_waiting(void)
{
	WAIT_FOR(
	    cluster_count(&c, 1,
	                  "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'") == 1,
	    PATIENCE_MS);
}

/* ---- done ---------------------------------------------------------------------------------------------------------- */

START_TEST(results_come_in_order_beside_thousands_of_others)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 10000});
	int singles = 0, batches = 0;
	for (int i = 0; i < 40; i++) {
		dbha_batch_request batch = reads(i % 10 ? 50 : 700);
		submit(e, &batch, (uint64_t)i);
		for (int k = 0; k < 100; k++)
			submit_read(e, (uint64_t)(SINGLE + 100 * i + k));
	}
	/* Nothing of it is borrowed. */
	memset(requests, 0xff, sizeof requests);
	memset(ids, 'x', sizeof ids);
	while (singles + batches < 40 + 4000) {
		dbha_completion got = await_completion(e);
		ASSERT_OK(got.code, got.error);
		ck_assert_int_eq(got.failed, -1);
		bool single = got.tag >= SINGLE;
		singles += single;
		batches += !single;
		ck_assert_int_eq(got.n_results, single ? 0 : got.tag % 10 ? 50 : 700);
		ck_assert((got.result != NULL) == single);
		for (int i = 0; i < got.n_results; i++)
			ck_assert_int_eq(atoi(PQgetvalue(got.results[i], 0, 0)), i);
		dbha_completion_clear(&got);
		ck_assert_ptr_null(got.results);
	}
	ck_assert_int_eq(batches, 40);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* Much more than fits between the two of them; what comes back is as much again. */
START_TEST(a_large_one_starves_nobody)
{
	static char filler[1001];
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.connections = 2, .queue = 10000});
	memset(filler, 'f', 1000);
	dbha_batch_request batch = inserts(BATCH_MAX, 1, filler);
	for (int i = 0; i < BATCH_MAX; i++)
		requests[i].sql = "INSERT INTO rows (id, filler) VALUES ($1, $2) RETURNING filler";
	submit(e, &batch, 0);
	int others = 0, submitted = 0;
	dbha_completion got = {.size = sizeof got};
	do {
		while (submitted - others < 50)
			submit_insert(e, (uint64_t)(SINGLE + submitted++));
		got = await_completion(e);
		if (got.tag < SINGLE)
			break;
		ASSERT_OK(got.code, got.error);
		others++;
		dbha_completion_clear(&got);
	} while (true);
	ASSERT_OK(got.code, got.error);
	printf("beside a batch of %d: %d single writes\n", BATCH_MAX, others);
	ck_assert_int_ge(others, 50);
	ck_assert_int_eq(got.n_results, BATCH_MAX);
	for (int i = 0; i < got.n_results; i++)
		ck_assert_int_eq(PQgetlength(got.results[i], 0, 0), 1000);
	dbha_completion_clear(&got);
	ck_assert_int_eq(rows_of(1, 1), BATCH_MAX);
	for (; others < submitted; others++) {
		got = await_completion(e);
		dbha_completion_clear(&got);
	}
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(a_token_makes_a_read_see_it)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 100});
	int others = 0;
	for (int n = 3; n < 600; n += 300) {
		dbha_batch_request batch = inserts(n, (uint64_t)n, "x");
		batch.flags = DBHA_TOKEN;
		submit(e, &batch, 0);
		dbha_completion got = await_batch(e, &others);
		ASSERT_OK(got.code, got.error);
		ck_assert_msg(got.route.token[0], "%s", got.route.why);
		char token[sizeof got.route.token];
		memcpy(token, got.route.token, sizeof token);
		dbha_completion_clear(&got);
		batch = reads(3);
		char sql[80];
		snprintf(sql, sizeof sql, "SELECT count(*) FROM rows WHERE id = %d", n);
		requests[2] = DBHA_REQUEST(.sql = sql);
		batch.token = token;
		submit(e, &batch, 0);
		got = await_batch(e, &others);
		ASSERT_OK(got.code, got.error);
		ck_assert_int_eq(atoi(PQgetvalue(got.results[2], 0, 0)), n);
		dbha_completion_clear(&got);
	}
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* ---- not done ------------------------------------------------------------------------------------------------------ */

static void check_error_at(dbha_engine *e, int n, int at)
{
	int others = 0;
	dbha_batch_request batch = inserts(n, (uint64_t)n, "x");
	requests[at] = DBHA_REQUEST(.sql = "SELECT 1/0");
	for (int i = 0; i < 50; i++)
		submit_insert(e, (uint64_t)(SINGLE + i));
	submit(e, &batch, 0);
	dbha_completion got = await_batch(e, &others);
	ASSERT_CODE(got.code, SERVER, got.error);
	ck_assert_str_eq(got.error.sqlstate, "22012");
	char place[32];
	snprintf(place, sizeof place, "requests[%d]", at);
	ASSERT_HAS(got.error.message, place);
	ck_assert_int_eq(got.failed, at);
	ck_assert_ptr_null(got.results);
	ck_assert_ptr_nonnull(got.result);
	ck_assert(!got.error.outcome_unknown);
	dbha_completion_clear(&got);
	ck_assert_int_eq(rows_of(1, (uint64_t)n), 0);
	for (; others < 50; others++) {
		got = await_completion(e);
		ASSERT_OK(got.code, got.error);
		dbha_completion_clear(&got);
	}
}

START_TEST(an_error_undoes_all_of_it_and_nothing_else)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 100});
	check_error_at(e, 10, 0);
	check_error_at(e, 11, 5);
	check_error_at(e, 12, 11);
	check_error_at(e, 1000, 0);
	check_error_at(e, 1001, 600);
	check_error_at(e, 1002, 1001);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(an_error_at_the_end_is_no_ones)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 100});
	for (int n = 10; n <= 1000; n *= 10) {
		int others = 0;
		dbha_batch_request batch = inserts(n, 7, "x");
		for (int i = 0; i < n; i++)
			requests[i].sql = "INSERT INTO rows (id, filler, once) VALUES ($1, $2, 5)";
		submit(e, &batch, 0);
		dbha_completion got = await_batch(e, &others);
		ASSERT_CODE(got.code, SERVER, got.error);
		ck_assert_str_eq(got.error.sqlstate, "23505");
		ck_assert_int_eq(got.failed, -1);
		ck_assert(!got.error.outcome_unknown);
		dbha_completion_clear(&got);
		ck_assert_int_eq(rows_of(1, 7), 0);
	}
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(behind_its_deadline_it_is_not_done)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 100});
	for (int n = 10; n <= 1000; n *= 10) {
		int others = 0;
		lock_rows();
		dbha_batch_request batch = inserts(n, 8, "x");
		batch.timeout_ms = 300;
		int64_t began = now_ms();
		submit(e, &batch, 0);
		dbha_completion got = await_batch(e, &others);
		ck_assert_int_le(now_ms() - began, 300 + 2 * SLACK_MS);
		ASSERT_CODE(got.code, TIMEOUT, got.error);
		ck_assert_msg(got.error.retry_safe && !got.error.outcome_unknown, "%s", got.error.message);
		dbha_completion_clear(&got);
		PQfinish(locker);
		locker = NULL;
		batch = inserts(n, 9, "x");
		submit(e, &batch, 0);
		got = await_batch(e, &others);
		ASSERT_OK(got.code, got.error);
		dbha_completion_clear(&got);
		ck_assert_int_eq(rows_of(1, 8), 0);
	}
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(a_cancel_stops_all_of_it)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 100, .thread = 1});
	for (int n = 10; n <= 1000; n *= 10) {
		dbha_error err;
		int others = 0;
		lock_rows();
		dbha_batch_request batch = inserts(n, 8, "x");
		submit(e, &batch, 5);
		expect_waiting();
		ASSERT_OK(dbha_submit_cancel(e, 5, &err), err);
		dbha_completion got = await_batch(e, &others);
		ASSERT_CODE(got.code, CANCELED, got.error);
		ck_assert(!got.error.outcome_unknown);
		dbha_completion_clear(&got);
		PQfinish(locker);
		locker = NULL;
		batch = inserts(n, 9, "x");
		submit(e, &batch, 0);
		got = await_batch(e, &others);
		ASSERT_OK(got.code, got.error);
		dbha_completion_clear(&got);
		ck_assert_int_eq(rows_of(1, 8), 0);
	}
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(nonsense_is_refused)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 1});
	dbha_error err;
	int failed;
	dbha_batch_request batch = reads(3);
	ASSERT_CODE(dbha_submit_batch(NULL, &batch, 1, &err), USAGE, err);
	ASSERT_CODE(dbha_submit_batch(e, NULL, 1, &err), USAGE, err);
	batch.size = 3;
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	batch = reads(3);
	batch.each = 1;
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	ASSERT_HAS(err.message, "dbha_submit");
	batch = reads(0);
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	batch = reads(3);
	batch.failed = &failed;
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	batch = reads(3);
	batch.token = "rubbish";
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	batch = reads(3);
	requests[2].sql = "BEGIN";
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	ASSERT_HAS(err.message, "requests[2]");
	batch = reads(3);
	batch.flags = DBHA_PIN;
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), USAGE, err);
	dbha_completion_clear(NULL);
	/* None of them takes a place, and one does. */
	batch = reads(3);
	submit(e, &batch, 1);
	ASSERT_CODE(dbha_submit_batch(e, &batch, 2, &err), POOL, err);
	ck_assert(err.retry_safe);
	done();
	e = open_one("verify_commit=on", (dbha_engine_options){.queue = 10});
	batch = inserts(3, 1, "x");
	ASSERT_CODE(dbha_submit_batch(e, &batch, 1, &err), CONFIG, err);
	batch = reads(3);
	submit(e, &batch, 1);
	dbha_completion got = await_completion(e);
	ASSERT_OK(got.code, got.error);
	dbha_completion_clear(&got);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* ---- lost ---------------------------------------------------------------------------------------------------------- */

/* Sizes of what leaves in one burst, and of what does not. */
static int size_of(int tag)
{
	return tag % 10 ? 20 : 300;
}

static void submit_many(dbha_engine *e, int n)
{
	for (int i = 0; i < n; i++, book.submitted++) {
		dbha_batch_request batch = inserts(size_of(book.submitted), (uint64_t)book.submitted, "x");
		submit(e, &batch, (uint64_t)book.submitted);
	}
}

static void enter_one(dbha_engine *e)
{
	dbha_completion got = await_completion(e);
	ck_assert_int_eq(got.n_results, got.code == DBHA_OK ? size_of((int)got.tag) : 0);
	book_enter(&book, &got);
	got.result = NULL;
	dbha_completion_clear(&got);
}

static void enter_until(dbha_engine *e, int n)
{
	while (book.completed < n)
		enter_one(e);
}

/* How many rows each batch has on a node. */
static void count_rows(int node, int *rows)
{
	PGconn *admin = cluster_admin(&c, node);
	PGresult *result = PQexec(admin, "SELECT id, count(*) FROM rows GROUP BY id");
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	memset(rows, 0, BOOK_MAX * sizeof *rows);
	for (int i = 0; i < PQntuples(result); i++)
		rows[atoi(PQgetvalue(result, i, 0))] = atoi(PQgetvalue(result, i, 1));
	PQclear(result);
	PQfinish(admin);
}

/* Each is there as a whole or not at all, once, and what was said of it is true. lost: what the servers may have lost of what was done. */
static void expect_truth(int node, int lost, int most_unknown)
{
	static int rows[BOOK_MAX];
	int unknown = 0, missing = 0;
	book_expect_once(&book);
	count_rows(node, rows);
	for (int i = 0; i < book.submitted; i++) {
		const struct entry *entry = &book.entries[i];
		ck_assert_msg(rows[i] == 0 || rows[i] == size_of(i), "batch %d: %d rows", i, rows[i]);
		ck_assert_msg(entry->code == DBHA_OK || entry->safe != entry->unknown, "batch %d: both, or neither", i);
		ck_assert_msg(entry->code == DBHA_OK || entry->unknown || !rows[i], "batch %d was not done, and is there", i);
		unknown += entry->unknown;
		missing += entry->code == DBHA_OK && rows[i] == 0;
	}
	printf("%d batches: %d done, %d unknown; of the done %d are missing\n", book.submitted,
	       book_count(&book, 0, book.submitted, DBHA_OK), unknown, missing);
	ck_assert_int_le(missing, lost);
	ck_assert_int_le(unknown, most_unknown);
}

/* Where it was between its commit and the word of it, that is not known: of each connection one at most. */
START_TEST(a_backend_that_is_terminated_costs_no_more_than_a_commit)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 1000});
	submit_many(e, 500);
	for (int i = 1; i <= 4; i++) {
		enter_until(e, 100 * i);
		cluster_ask(&c, 1,
		            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app' AND query "
		            "LIKE 'INSERT INTO rows%%'");
	}
	enter_until(e, book.submitted);
	expect_truth(1, 0, 4 * 4);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(after_a_kill_and_a_promotion_each_is_whole_or_not_there)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 10000, .thread = 1});
	submit_many(e, 3000);
	enter_until(e, 100);
	cluster_do(&c, "kill 1");
	int before = 0;
	for (dbha_completion got = {.size = sizeof got}; dbha_next_completion(e, &got, 0, NULL) == 1; before++) {
		book_enter(&book, &got);
		got.result = NULL;
		dbha_completion_clear(&got);
	}
	/* Else there was nothing in flight to be lost. */
	ck_assert_int_lt(100 + before, book.submitted);
	cluster_do(&c, "promote 3");
	enter_until(e, book.submitted);
	/* Replication is asynchronous: what was acknowledged last may be lost with the server. */
	expect_truth(3, 500, 4);
	ck_assert_int_ge(book_count(&book, 0, book.submitted, DBHA_OK), book.submitted - 4);
	done();
}
END_TEST

/*
 * Its answers do not come. What left in one burst is done, and whoever says otherwise, or does it again, is found out; of what is longer the Sync
 * was not sent: it is certainly not done, and goes again.
 */
START_TEST(whose_answers_are_lost_is_unknown_only_where_its_end_was_sent)
{
	char host[32];
	for (int n = 10; n <= 1000; n *= 10) {
		cutter_start(&cutter, cluster_port(&c, 1));
		snprintf(host, sizeof host, "127.0.0.1:%d", cutter.port);
		dbha *h = open_hosts(&c, host, "sslmode=disable&gssencmode=disable");
		dbha_error err;
		int others = 0;
		ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
		dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
		cutter_arm(&cutter, &(struct cut){.marker = "INSERT INTO rows", .kind = CUT_DROP, .direction = REPLY});
		dbha_batch_request batch = inserts(n, (uint64_t)n, "x");
		submit(e, &batch, 0);
		dbha_completion got = await_batch(e, &others);
		if (n <= 128)
			ASSERT_CODE(got.code, UNKNOWN, got.error);
		else
			ASSERT_OK(got.code, got.error);
		ck_assert_int_eq(got.error.outcome_unknown, n <= 128);
		ck_assert_uint_eq(counters(h, 0).retries, n > 128);
		dbha_completion_clear(&got);
		WAIT_FOR(rows_of(1, (uint64_t)n) > 0, PATIENCE_MS);
		ck_assert_int_eq(rows_of(1, (uint64_t)n), n);
		done();
	}
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(stopping_at_once_says_what_became_of_each)
{
	dbha_engine *e = open_one(NULL, (dbha_engine_options){.queue = 1000});
	submit_many(e, 400);
	enter_until(e, 50);
	dbha_engine_stop(e, 0);
	enter_until(e, book.submitted);
	/* What the servers were at goes on for a moment. */
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_locks WHERE relation = 'rows'::regclass") == 0, PATIENCE_MS);
	expect_truth(1, 0, 4);
	ck_assert_int_ge(book_count(&book, 0, book.submitted, DBHA_ERR_CLOSED), 100);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine_batch");
	ADD_TEST(suite, results_come_in_order_beside_thousands_of_others, servers, done, 60);
	ADD_TEST(suite, a_large_one_starves_nobody, servers, done, 60);
	ADD_TEST(suite, a_token_makes_a_read_see_it, servers, done, 60);
	ADD_TEST(suite, an_error_undoes_all_of_it_and_nothing_else, servers, done, 60);
	ADD_TEST(suite, an_error_at_the_end_is_no_ones, servers, done, 60);
	ADD_TEST(suite, behind_its_deadline_it_is_not_done, servers, done, 60);
	ADD_TEST(suite, a_cancel_stops_all_of_it, servers, done, 60);
	ADD_TEST(suite, nonsense_is_refused, servers, done, 60);
	ADD_TEST(suite, a_backend_that_is_terminated_costs_no_more_than_a_commit, servers, done, 60);
	ADD_TEST(suite, whose_answers_are_lost_is_unknown_only_where_its_end_was_sent, servers, done, 60);
	ADD_TEST(suite, stopping_at_once_says_what_became_of_each, servers, done, 60);
	ADD_TEST(suite, after_a_kill_and_a_promotion_each_is_whole_or_not_there, servers, done, 90);
	return run_suite(suite, &c);
}
