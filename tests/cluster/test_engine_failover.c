/*
 * test_engine_failover: connections that are ended and primaries that die with thousands of requests in flight: each gets one completion, and
 * the rows, counted on the server, say whether it was the truth.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cutter.h"
#include "pipe_work.h"
#include "work.h"

static struct cluster c;
static struct book book;
static struct cutter cutter;

static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id bigint");
	memset(&book, 0, sizeof book);
}

static void done(void)
{
	engines_close();
	handles_close();
	if (cutter.running)
		cutter_stop(&cutter);
}

/* How often each tag is in the table of a node. */
static void count_rows(int node, int *rows)
{
	PGconn *admin = cluster_admin(&c, node);
	PGresult *result = PQexec(admin, "SELECT id, count(*) FROM rows WHERE id >= 0 GROUP BY id");
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	memset(rows, 0, BOOK_MAX * sizeof *rows);
	for (int i = 0; i < PQntuples(result); i++)
		rows[atoi(PQgetvalue(result, i, 0))] = atoi(PQgetvalue(result, i, 1));
	PQclear(result);
	PQfinish(admin);
}

/*
 * Nothing is there twice; what was not done is not there; what was done is, but for what the servers have lost, which is
 * at most `lost`.
 */
static void expect_truth(int node, int lost)
{
	static int rows[BOOK_MAX];
	int done_twice = 0, missing = 0, not_done = 0, unknown = 0;
	count_rows(node, rows);
	for (int i = 0; i < book.submitted; i++) {
		const struct entry *entry = &book.entries[i];
		done_twice += rows[i] > 1;
		missing += entry->code == DBHA_OK && rows[i] == 0;
		not_done += entry->code != DBHA_OK && entry->safe && rows[i] > 0;
		unknown += entry->unknown;
		ck_assert_msg(entry->code == DBHA_OK || entry->safe != entry->unknown, "tag %d: both, or neither", i);
	}
	printf("%d requests: %d done, %d unknown, %d others; of the done %d are missing\n", book.submitted,
	       book_count(&book, 0, book.submitted, DBHA_OK), unknown,
	       book.submitted - unknown - book_count(&book, 0, book.submitted, DBHA_OK), missing);
	fflush(stdout);
	ck_assert_int_eq(done_twice, 0);
	ck_assert_int_eq(not_done, 0);
	ck_assert_int_le(missing, lost);
}

static void insert_many(dbha_engine *e, int n)
{
	for (int i = 0; i < n; i++)
		submit_insert(e, (uint64_t)(book.submitted + i));
	book.submitted += n;
}

/* Takes completions until there are so many, as an application does that goes on meanwhile. */
static void complete_some(dbha_engine *e, int n)
{
	while (book.completed < n) {
		dbha_completion got = await_completion(e);
		book_enter(&book, &got);
	}
}

/* ---- connections -------------------------------------------------------------------------------------------------- */

START_TEST(a_backend_that_is_terminated_costs_no_write)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10000});
	insert_many(e, 8000);
	for (int i = 1; i <= 5; i++) {
		complete_some(e, i * 1000);
		cluster_ask(&c, 1,
		            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app' AND query "
		            "LIKE 'INSERT INTO rows%%'");
	}
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	/* "Terminated" is said before anything is done; only the one whose commit was under way may be unknown. */
	expect_truth(1, 0);
	int unknown = book_count(&book, 0, book.submitted, DBHA_ERR_UNKNOWN);
	ck_assert_int_le(unknown, 20);
	ck_assert_int_eq(book_count(&book, 0, book.submitted, DBHA_OK), book.submitted - unknown);
	ck_assert_uint_ge(counters(h, 0).closed_broken, 5);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(reads_survive_the_loss_of_a_standby)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10000});
	for (int i = 0; i < 10000; i++)
		submit_read(e, (uint64_t)i);
	book.submitted = 10000;
	complete_some(e, 1000);
	cluster_do(&c, "kill 2");
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
	cluster_do(&c, "start 2");
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(reads_on_a_frozen_standby_are_run_elsewhere)
{
	dbha *h = open_all(&c, "probe_interval=200ms&probe_timeout=200ms&probe_failures=2");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10000});
	cluster_do(&c, "pause 2");
	for (int i = 0; i < 2000; i++)
		submit_read(e, (uint64_t)i);
	book.submitted = 2000;
	book_await(&book, e, 5000);
	cluster_do(&c, "resume 2");
	book_expect_once(&book);
	ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* All of them are done, and not one of the answers comes: whoever says "not done", or does them again, is found out. */
START_TEST(writes_whose_answers_are_lost_are_unknown_and_not_repeated)
{
	char host[32];
	cutter_start(&cutter, cluster_port(&c, 1));
	snprintf(host, sizeof host, "127.0.0.1:%d", cutter.port);
	dbha *h = open_hosts(&c, host, "sslmode=disable&gssencmode=disable");
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .depth = 40});
	cutter_arm(&cutter, &(struct cut){.marker = "INSERT INTO rows", .kind = CUT_DROP, .direction = REPLY});
	for (int i = 0; i < 40; i++)
		submit_insert(e, (uint64_t)i);
	/* Of a read nothing is lost with its answer. */
	for (int i = 40; i < 60; i++)
		submit_read(e, (uint64_t)i);
	book.submitted = 60;
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	int unknown = book_count(&book, 0, 40, DBHA_ERR_UNKNOWN);
	ck_assert_int_ge(unknown, 20);
	ck_assert_int_eq(book_count(&book, 40, 20, DBHA_OK), 20);
	ck_assert_int_ge(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 20);
	book.submitted = 40;
	expect_truth(1, 0);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* ---- the primary -------------------------------------------------------------------------------------------------- */

START_TEST(without_a_primary_writes_end_with_their_deadline)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 2000});
	cluster_do(&c, "stop 1 fast");
	int64_t began = now_ms();
	for (int i = 0; i < 1000; i++)
		submit_sql(e, i % 2 ? DBHA_READ : DBHA_WRITE, 1000, i % 2 ? "SELECT 1" : "INSERT INTO rows VALUES (-1)",
		           (uint64_t)i);
	book.submitted = 1000;
	book_await(&book, e, PATIENCE_MS);
	ck_assert_int_le(now_ms() - began, 1000 + 2 * SLACK_MS);
	for (int i = 0; i < 1000; i++)
		ck_assert_int_eq(book.entries[i].code, i % 2 ? DBHA_OK : DBHA_ERR_NO_NODE);
	ASSERT_HAS(book.first_error.message, "looked for a primary");
	ck_assert(book.first_error.retry_safe);
	cluster_do(&c, "start 1");
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

START_TEST(an_orderly_stop_and_a_promotion_cost_no_write)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 20000, .thread = 1});
	insert_many(e, 10000);
	complete_some(e, 2000);
	cluster_do(&c, "stop 1 fast");
	promote(&c, 2);
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	expect_truth(2, 0);
	/* Of each connection one may have been between its commit and the word of it. */
	ck_assert_int_le(book_count(&book, 0, book.submitted, DBHA_ERR_UNKNOWN), 4);
	done();
}
END_TEST

static void kill_and_promote(int thread)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 20000, .thread = thread, .depth = 256});
	insert_many(e, 10000);
	complete_some(e, 1500);
	cluster_do(&c, "kill 1");
	promote(&c, 3);
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	/* Replication is asynchronous: what was acknowledged last may be lost with the server. */
	expect_truth(3, 1000);
	int unknown = book_count(&book, 0, book.submitted, DBHA_ERR_UNKNOWN);
	/* No more than were on their way; the rest was never sent to the old primary, and is done on the new one. */
	ck_assert_int_le(unknown, 4 * 256);
	ck_assert_int_ge(book_count(&book, 0, book.submitted, DBHA_OK), 10000 - unknown);
	insert_many(e, 1000);
	book_await(&book, e, PATIENCE_MS);
	ck_assert_int_eq(book_count(&book, 10000, 1000, DBHA_OK), 1000);
	/* It comes back, is fenced, and nothing goes there any more. */
	cluster_do(&c, "start 1");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
	insert_many(e, 1000);
	book_await(&book, e, PATIENCE_MS);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id >= 10000"), 0);
	ck_assert_int_eq(cluster_count(&c, 3, "SELECT count(*) FROM rows WHERE id >= 10000"), 2000);
	done();
}

START_TEST(after_a_kill_and_a_promotion_each_of_10000_has_the_truth)
{
	kill_and_promote(0);
}
END_TEST

START_TEST(after_a_kill_and_a_promotion_each_of_10000_has_the_truth_with_a_thread)
{
	kill_and_promote(1);
}
END_TEST

START_TEST(a_frozen_primary_is_cut_at_the_promotion)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 20000});
	insert_many(e, 5000);
	complete_some(e, 1000);
	cluster_do(&c, "pause 1");
	promote(&c, 2);
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	static int before[BOOK_MAX];
	count_rows(2, before);
	cluster_do(&c, "resume 1");
	int unknown = book_count(&book, 0, book.submitted, DBHA_ERR_UNKNOWN);
	ck_assert_int_le(unknown, 4 * 64);
	expect_truth(2, 1000);
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
	done();
}
END_TEST

START_TEST(a_write_that_a_read_only_primary_refuses_waits_until_that_is_over)
{
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 2000});
	insert_many(e, 100);
	book_await(&book, e, PATIENCE_MS);
	cluster_ask(&c, 1, "ALTER SYSTEM SET default_transaction_read_only = on");
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	WAIT_FOR(strcmp(cluster_ask(&c, 1, "SHOW default_transaction_read_only"), "on") == 0, PATIENCE_MS);
	insert_many(e, 100);
	int64_t until = now_ms() + 300;
	while (now_ms() < until) {
		dbha_completion got = {.size = sizeof got};
		ck_assert_int_eq(dbha_next_completion(e, &got, 50, NULL), 0);
	}
	cluster_ask(&c, 1, "BEGIN READ WRITE; COMMIT");
	PGconn *admin = cluster_admin(&c, 1);
	PQclear(PQexec(admin, "SET default_transaction_read_only = off"));
	PQclear(PQexec(admin, "ALTER SYSTEM RESET default_transaction_read_only"));
	PQclear(PQexec(admin, "SELECT pg_reload_conf()"));
	PQfinish(admin);
	book_await(&book, e, PATIENCE_MS);
	ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
	expect_truth(1, 0);
	done();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine_failover");
	ADD_TEST(suite, a_backend_that_is_terminated_costs_no_write, servers, done, 60);
	ADD_TEST(suite, writes_whose_answers_are_lost_are_unknown_and_not_repeated, servers, done, 60);
	ADD_TEST(suite, reads_survive_the_loss_of_a_standby, servers, done, 60);
	ADD_TEST(suite, reads_on_a_frozen_standby_are_run_elsewhere, servers, done, 60);
	ADD_TEST(suite, without_a_primary_writes_end_with_their_deadline, servers, done, 60);
	ADD_TEST(suite, a_write_that_a_read_only_primary_refuses_waits_until_that_is_over, servers, done, 60);
	ADD_TEST(suite, an_orderly_stop_and_a_promotion_cost_no_write, servers, done, 60);
	ADD_TEST(suite, after_a_kill_and_a_promotion_each_of_10000_has_the_truth, servers, done, 90);
	ADD_TEST(suite, after_a_kill_and_a_promotion_each_of_10000_has_the_truth_with_a_thread, servers, done, 90);
	ADD_TEST(suite, a_frozen_primary_is_cut_at_the_promotion, servers, done, 60);
	return run_suite(suite, &c);
}
