/*
 * test_engine_verify: verify_commit=on in an engine. Primaries that are killed, restarted and frozen under thousands of writes, answers to
 * commits that are lost: what is said to be done is there once, what is said not to be is not, and unknown is what nobody can know.
 * test_outcome has the same for a cut at every byte.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cutter.h"
#include "pipe_work.h"
#include "work.h"

#define VERIFY "verify_commit=on"

static struct cluster c;
static struct book book;
static struct cutter cutter;

static void made(const char *arguments)
{
	cluster_intact_with_rows(&c, arguments, "id bigint");
	memset(&book, 0, sizeof book);
}

static void servers(void)
{
	made("3");
}

static void wait_for_standby(const char *name)
{
	cluster_ask(&c, 1, "ALTER SYSTEM SET synchronous_standby_names = '%s'", name);
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	WAIT_FOR(strcmp(cluster_ask(&c, 1, "SHOW synchronous_standby_names"), name) == 0, PATIENCE_MS);
}

/* Node 3 has whatever was answered; it waits for nobody when it is the primary. */
static void synchronous_servers(void)
{
	made("3");
	wait_for_standby("node3");
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") == 1,
	         PATIENCE_MS);
}

static void done(void)
{
	engines_close();
	handles_close();
	if (cutter.running)
		cutter_stop(&cutter);
}

/* The next test may have it; primary is node 1 again, or has never been another. */
static void done_and_mended(void)
{
	done();
	cluster_as_before(&c, open_all(&c, NULL));
	handles_close();
}

static void insert_many(dbha_engine *e, int n)
{
	for (int i = 0; i < n; i++)
		submit_insert(e, (uint64_t)(book.submitted + i));
	book.submitted += n;
}

/* Of inserts. What is done has its result, wherever it was when its connection was lost. */
static void complete_some(dbha_engine *e, int n)
{
	while (book.completed < n) {
		dbha_completion got = await_completion(e);
		if (got.code == DBHA_OK)
			ck_assert_str_eq(PQcmdStatus(got.result), "INSERT 0 1");
		book_enter(&book, &got);
	}
}

static void complete_all(dbha_engine *e)
{
	complete_some(e, book.submitted);
}

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

/* One completion each, and the truth in it. Returns how many are unknown. */
static int expect_truth(int node)
{
	static int rows[BOOK_MAX];
	int twice = 0, missing = 0, not_done = 0, unknown = 0, others = 0;
	book_expect_once(&book);
	count_rows(node, rows);
	for (int i = 0; i < book.submitted; i++) {
		const struct entry *entry = &book.entries[i];
		twice += rows[i] > 1;
		missing += entry->code == DBHA_OK && rows[i] == 0;
		not_done += entry->code != DBHA_OK && !entry->unknown && rows[i] > 0;
		unknown += entry->unknown;
		others += entry->code != DBHA_OK && !entry->unknown;
		ck_assert_msg(entry->code == DBHA_OK || entry->safe != entry->unknown, "tag %d: both, or neither", i);
		ck_assert_msg(!entry->unknown || strcmp(entry->sqlstate, "08007") == 0, "tag %d: unknown with %s", i,
		              entry->sqlstate);
	}
	printf("# %d writes: %d done, %d unknown, %d others\n", book.submitted, book.submitted - unknown - others, unknown,
	       others);
	fflush(stdout);
	ck_assert_int_eq(twice, 0);
	ck_assert_int_eq(missing, 0);
	ck_assert_int_eq(not_done, 0);
	return unknown;
}

static void expect_all_done(int node)
{
	ck_assert_int_eq(expect_truth(node), 0);
	ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
}

/* ---- as it is when nothing happens ------------------------------------------------------------------------------- */

START_TEST(writes_are_done_with_their_results_and_reads_beside_them)
{
	dbha *h = open_all(&c, VERIFY "&statement_cache_size=3");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10000});
	for (int i = 0; i < 3000; i++) {
		char sql[80];
		snprintf(sql, sizeof sql, "INSERT INTO rows VALUES (%d) RETURNING id", i);
		if (i % 3 == 0)
			submit_insert(e, (uint64_t)i);
		else if (i % 3 == 1)
			submit_read(e, (uint64_t)i);
		else
			submit_sql(e, DBHA_WRITE, 0, sql, (uint64_t)i); /* none is prepared: each is another */
	}
	book.submitted = 3000;
	while (book.completed < 3000) {
		dbha_completion got = await_completion(e);
		ASSERT_OK(got.code, got.error);
		char text[24];
		snprintf(text, sizeof text, "%d", (int)got.tag);
		if (got.tag % 3 == 0)
			ck_assert_str_eq(PQcmdStatus(got.result), "INSERT 0 1");
		else
			ck_assert_str_eq(PQgetvalue(got.result, 0, 0), text);
		ck_assert_int_eq(got.route.attempts, 1);
		book_enter(&book, &got);
	}
	book_expect_once(&book);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 2000);
	ck_assert_uint_eq(counters(h, -1).transactions, 2000);
	ck_assert_uint_eq(counters(h, -1).retries, 0);
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
	done_and_mended();
}
END_TEST

START_TEST(errors_of_the_statement_and_of_the_commit_are_errors)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2});
	cluster_ask(&c, 1, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON late TO app");
	static const char *const texts[] = {"INSERT INTO late VALUES (1), (1)", "INSERT INTO nowhere VALUES (1)",
	                                    "INSERT INTO rows VALUES (0)", "SELECT 1/0"};
	static const char *const states[] = {"23505", "42P01", "", "22012"};
	for (int i = 0; i < 400; i++)
		submit_sql(e, DBHA_WRITE, 0, texts[i % 4], (uint64_t)i);
	book.submitted = 400;
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	for (int i = 0; i < 400; i++) {
		ck_assert_str_eq(book.entries[i].sqlstate, states[i % 4]);
		ck_assert(!book.entries[i].unknown);
		ck_assert_int_eq(book.entries[i].code, i % 4 == 2 ? DBHA_OK : DBHA_ERR_SERVER);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 100);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 0);
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
	cluster_ask(&c, 1, "DROP TABLE late");
	done_and_mended();
}
END_TEST

START_TEST(a_plan_that_has_changed_shape_or_is_gone_is_mended)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	cluster_ask(&c, 1, "CREATE TABLE shape (a int); INSERT INTO shape VALUES (1); GRANT ALL ON shape TO app");
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 20; i++)
			submit_sql(e, DBHA_WRITE, 0, "UPDATE shape SET a = a RETURNING *", (uint64_t)(book.submitted + i));
		book.submitted += 20;
		book_await(&book, e, PATIENCE_MS);
		ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
		cluster_ask(&c, 1, "ALTER TABLE shape ADD COLUMN b%d int", round);
	}
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
	cluster_ask(&c, 1, "DROP TABLE shape");
	done_and_mended();
}
END_TEST

START_TEST(what_is_alone_or_turns_out_to_write_is_verified_too)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2});
	submit_sql(e, DBHA_WRITE, 0, "SELECT pg_advisory_lock(1)", 0);
	submit_sql(e, DBHA_READ, 0, "INSERT INTO rows VALUES (1)", 1); /* a standby refuses it */
	submit_sql(e, DBHA_WRITE, 0, "/* not known to be atomic */ INSERT INTO rows VALUES (2)", 2);
	submit_sql(e, DBHA_WRITE, 0, "CREATE TABLE made (id int)", 3);
	book.submitted = 4;
	book_await(&book, e, PATIENCE_MS);
	book_expect_once(&book);
	ck_assert_msg(!book.first_error.code, "%s", book.first_error.message);
	ck_assert_uint_eq(counters(h, -1).transactions, 2);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 2);
	cluster_ask(&c, 1, "DROP TABLE made");
	done_and_mended();
}
END_TEST

START_TEST(a_role_that_may_not_ask_for_marks_writes_all_the_same)
{
	cluster_ask(&c, 1, "REVOKE EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() FROM public");
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){0});
	insert_many(e, 200);
	book_await(&book, e, PATIENCE_MS);
	cluster_ask(&c, 1, "GRANT EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() TO public");
	expect_all_done(1);
	done_and_mended();
}
END_TEST

/* ---- before the commit and behind it ----------------------------------------------------------------------------- */

static void hold_commits(bool held)
{
	wait_for_standby(held ? "nobody" : "");
}

static bool has_committing(dbha_engine *e)
{
	dbha_engine_step(e, NULL, NULL);
	return cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") > 0;
}

START_TEST(before_its_commit_a_write_is_stopped_and_undone)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1});
	dbha_error err;
	submit_sql(e, DBHA_WRITE, 300, "INSERT INTO rows SELECT 1 FROM pg_sleep(5)", 0);
	dbha_completion got = await_completion(e);
	ASSERT_CODE(got.code, TIMEOUT, got.error);
	ck_assert(got.error.retry_safe && !got.error.outcome_unknown);
	submit_sql(e, DBHA_WRITE, 0, "INSERT INTO rows SELECT 2 FROM pg_sleep(5)", 2);
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK &&
	             cluster_count(&c, 1,
	                           "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO rows SELECT 2%%'"
	                           " AND state = 'active'") == 1,
	         PATIENCE_MS);
	ASSERT_OK(dbha_submit_cancel(e, 2, &err), err);
	got = await_completion(e);
	ASSERT_CODE(got.code, CANCELED, got.error);
	ck_assert(got.error.retry_safe && !got.error.outcome_unknown);
	PQclear(got.result);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 0);
	done_and_mended();
}
END_TEST

/* They are done a few ms before their deadlines, or behind them, or would be: at each point on the way from the statement to its commit. */
START_TEST(whenever_its_deadline_comes_what_is_said_is_true)
{
	dbha *h = open_all(&c, VERIFY "&pool_min_size=8&pool_max_connecting=8");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 10});
	for (int i = 0; i < 128; i++) {
		char sql[96];
		/* One that has to be connected to first is too late. */
		if (i % 4 == 0)
			WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK && node_status(h, 0).pool_idle >= 4, PATIENCE_MS);
		int ms = 276 + i % 32;
		snprintf(sql, sizeof sql, "INSERT INTO rows SELECT %d FROM pg_sleep(0.%03d)", i, ms);
		submit_sql(e, DBHA_WRITE, 300, sql, (uint64_t)i);
		book.submitted++;
		if (i % 4 == 3)
			complete_all(e);
	}
	/* What is under way when its caller is told ends in a moment. */
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'") ==
	             0,
	         PATIENCE_MS);
	int unknown = expect_truth(1);
	ck_assert_int_le(unknown, 12); /* their commit takes more than the 30 ms that it has */
	int done_in_time = book_count(&book, 0, 128, DBHA_OK), too_late = book_count(&book, 0, 128, DBHA_ERR_TIMEOUT);
	ck_assert_msg(done_in_time >= 10 && too_late >= 10, "%d done in time, %d too late", done_in_time, too_late);
	done_and_mended();
}
END_TEST

START_TEST(behind_its_commit_nobody_stops_it)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 2});
	dbha_error err;
	hold_commits(true);
	submit_sql(e, DBHA_WRITE, 0, "INSERT INTO rows VALUES (1)", 1);
	WAIT_FOR(has_committing(e), PATIENCE_MS);
	ASSERT_OK(dbha_submit_cancel(e, 1, &err), err);
	submit_sql(e, DBHA_WRITE, 500, "INSERT INTO rows VALUES (2)", 2);
	int64_t began = now_ms();
	dbha_completion got = await_completion(e);
	/* The one whose time is over is told so, and where to look for it. */
	ck_assert_uint_eq(got.tag, 2);
	ASSERT_CODE(got.code, UNKNOWN, got.error);
	ck_assert(got.error.outcome_unknown && !got.error.retry_safe);
	ASSERT_HAS(got.error.message, "transaction ");
	ASSERT_HAS(got.error.message, "no time left");
	ck_assert_int_le(now_ms() - began, 500 + SLACK_MS + 30);
	/* A cancel request would have made it visible. */
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 1"), 0);
	hold_commits(false);
	got = await_completion(e);
	ck_assert_uint_eq(got.tag, 1);
	ASSERT_OK(got.code, got.error);
	PQclear(got.result);
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM rows") == 2, PATIENCE_MS);
	done_and_mended();
}
END_TEST

/* ---- answers that are lost ---------------------------------------------------------------------------------------- */

static dbha *open_behind_cutter(const char *options)
{
	char host[32], all[160];
	dbha_error err;
	cutter_start(&cutter, cluster_port(&c, 1));
	snprintf(host, sizeof host, "127.0.0.1:%d", cutter.port);
	snprintf(all, sizeof all, "sslmode=disable&gssencmode=disable&" VERIFY "%s", options);
	dbha *h = open_hosts(&c, host, all);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	return h;
}

/* Under load every connection is reset, over and over: commits are lost on both sides of being done. */
START_TEST(resets_in_the_middle_cost_nothing_and_leave_nothing_unknown)
{
	dbha *h = open_behind_cutter("&retry_budget=100");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 3000});
	insert_many(e, 3000);
	for (int i = 1; i <= 10; i++) {
		complete_some(e, i * 250);
		cutter_reset_all(&cutter);
	}
	complete_all(e);
	expect_all_done(1);
	/* None of those that went again has kept or lost a place in the queue. */
	for (int i = 0; i < 3000; i++)
		submit_read(e, 0);
	dbha_error err;
	ASSERT_CODE(dbha_submit(e, &DBHA_REQUEST(.sql = "SELECT 1"), 0, &err), POOL, err);
	ck_assert_uint_ge(counters(h, -1).commits_resolved, 1);
	printf("# %llu commits resolved\n", (unsigned long long)counters(h, -1).commits_resolved);
	done_and_mended();
}
END_TEST

START_TEST(backends_that_are_terminated_cost_nothing)
{
	dbha *h = open_all(&c, VERIFY "&retry_budget=100");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 10000, .thread = 1});
	insert_many(e, 3000);
	for (int i = 1; i <= 10; i++) {
		complete_some(e, i * 250);
		cluster_ask(&c, 1,
		            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app' AND "
		            "query LIKE 'INSERT INTO rows%%'");
	}
	complete_all(e);
	expect_all_done(1);
	done_and_mended();
}
END_TEST

/*
 * The commits wait for a standby, and then their answers are lost, of all four connections at one time: they are in progress, and stay so
 * until the standby is no longer waited for. The first of them must not keep the others from being asked for.
 */
START_TEST(those_lost_at_one_time_are_asked_for_by_turns)
{
	dbha *h = open_behind_cutter("");
	dbha_engine *e = open_engine(h, (dbha_engine_options){0});
	hold_commits(true);
	insert_many(e, 3);
	WAIT_FOR(has_committing(e) &&
	             cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 3,
	         PATIENCE_MS);
	/* One is let go, whichever of them is not the first to be asked for. */
	cutter_reset_all(&cutter);
	WAIT_FOR(dbha_engine_step(e, NULL, NULL) == DBHA_OK && counters(h, -1).closed_broken >= 3, PATIENCE_MS);
	cluster_ask(&c, 1, "SELECT pg_cancel_backend(max(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
	complete_some(e, 1);
	cluster_ask(&c, 1, "SELECT pg_cancel_backend(min(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
	complete_some(e, 2);
	hold_commits(false);
	complete_all(e);
	expect_all_done(1);
	ck_assert_uint_eq(counters(h, -1).commits_resolved, 3);
	ck_assert_uint_eq(counters(h, -1).retries, 0);
	done_and_mended();
}
END_TEST

/* ---- the primary -------------------------------------------------------------------------------------------------- */

static void kill_and_promote(int thread)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 20000, .thread = thread, .connections = 16});
	insert_many(e, 6000);
	complete_some(e, 1500);
	cluster_do(&c, "kill 1");
	promote(&c, 3);
	complete_all(e);
	expect_all_done(3);
	printf("# %llu commits resolved\n", (unsigned long long)counters(h, -1).commits_resolved);
	done();
}

START_TEST(after_a_kill_and_a_promotion_all_are_done)
{
	kill_and_promote(0);
}
END_TEST

START_TEST(after_a_kill_and_a_promotion_all_are_done_with_a_thread)
{
	kill_and_promote(1);
}
END_TEST

START_TEST(after_a_freeze_and_a_promotion_all_are_done)
{
	dbha *h = open_all(&c, VERIFY);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 20000, .connections = 16});
	insert_many(e, 5000);
	complete_some(e, 1000);
	cluster_do(&c, "pause 1");
	promote(&c, 3);
	complete_all(e);
	expect_all_done(3);
	printf("# %llu commits resolved\n", (unsigned long long)counters(h, -1).commits_resolved);
	cluster_do(&c, "resume 1");
	done();
}
END_TEST

static void restart(const char *options, int unknown_max)
{
	dbha *h = open_all(&c, options);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.queue = 20000, .connections = 8});
	insert_many(e, 6000);
	for (int i = 1; i <= 3; i++) {
		complete_some(e, i * 1000);
		cluster_do(&c, i == 2 ? "stop 1 fast" : "kill 1");
		cluster_do(&c, "start 1");
	}
	complete_all(e);
	int unknown = expect_truth(1);
	ck_assert_int_le(unknown, unknown_max);
	ck_assert_int_eq(book_count(&book, 0, book.submitted, DBHA_OK), book.submitted - unknown);
	done_and_mended();
}

/* In place a crash may hide another: what was committed within the last look is unknown, where nobody has written it down. */
START_TEST(after_restarts_in_place_only_the_last_commits_can_be_unknown)
{
	restart(VERIFY, 3 * 8);
}
END_TEST

START_TEST(after_restarts_in_place_the_outcome_table_knows)
{
	cluster_ask(&c, 1,
	            "CREATE TABLE outcomes (token uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now()); "
	            "GRANT ALL ON outcomes TO app");
	restart(VERIFY "&outcome_table=outcomes", 0);
	/* A row for each that has committed, and for no other. */
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM outcomes"), 6000);
	cluster_ask(&c, 1, "DROP TABLE outcomes");
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------------ */

/* Some that wait for their commit are lost with their server, and there is no other: they are being asked for. */
static dbha_engine *lose_some(dbha **h, int thread)
{
	*h = open_all(&c, VERIFY "&call_timeout=60s");
	dbha_engine *e = open_engine(*h, (dbha_engine_options){.thread = thread});
	hold_commits(true);
	insert_many(e, 4);
	int64_t until = now_ms() + PATIENCE_MS;
	while (now_ms() < until &&
	       cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") < 4)
		if (!thread)
			dbha_engine_step(e, NULL, NULL);
	cluster_do(&c, "kill 1");
	WAIT_FOR((thread || dbha_engine_step(e, NULL, NULL) == DBHA_OK) && counters(*h, 0).closed_broken >= 4, PATIENCE_MS);
	ck_assert_int_eq(book.completed, 0);
	return e;
}

static void back_up(void)
{
	done();
	cluster_do(&c, "start 1");
	hold_commits(false);
	cluster_as_before(&c, open_all(&c, NULL));
	handles_close();
}

static void stop_while_resolving(int thread)
{
	dbha *h;
	dbha_engine *e = lose_some(&h, thread);
	int64_t began = now_ms();
	dbha_engine_stop(e, 0);
	ck_assert_int_le(now_ms() - began, 200 + SLACK_MS);
	book_await(&book, e, 1000);
	book_expect_once(&book);
	ck_assert_int_eq(book_count(&book, 0, 4, DBHA_ERR_UNKNOWN), 4);
	ASSERT_HAS(book.first_error.message, "transaction ");
	back_up();
}

START_TEST(stopping_does_not_wait_for_an_outcome)
{
	stop_while_resolving(0);
}
END_TEST

START_TEST(stopping_does_not_wait_for_an_outcome_with_a_thread)
{
	stop_while_resolving(1);
}
END_TEST

START_TEST(closing_the_handle_does_not_wait_for_an_outcome)
{
	dbha *h;
	dbha_engine *e = lose_some(&h, 0);
	int64_t began = now_ms();
	close_handle(h, 0);
	book_await(&book, e, 1000);
	ck_assert_int_le(now_ms() - began, 200 + SLACK_MS);
	book_expect_once(&book);
	ck_assert_int_eq(book_count(&book, 0, 4, DBHA_ERR_UNKNOWN), 4);
	back_up();
}
END_TEST

START_TEST(in_a_child_the_outcome_is_the_parents)
{
	dbha *h;
	dbha_engine *e = lose_some(&h, 0);
	pid_t pid = fork();
	if (pid == 0) {
		alarm(20);
		dbha_error err;
		dbha_completion got = {.size = sizeof got};
		bool good = dbha_engine_step(e, NULL, &err) == DBHA_ERR_FORKED &&
		            dbha_next_completion(e, &got, 0, &err) == -1 && err.code == DBHA_ERR_FORKED;
		dbha_engine_stop(e, 100);
		dbha_engine_close(e);
		dbha_close(h, 0);
		_exit(good ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with %d", status);
	/* The server comes back: in the life before its end they had committed, but nobody has seen that. */
	cluster_do(&c, "start 1");
	hold_commits(false);
	complete_all(e);
	expect_truth(1);
	ck_assert_int_eq(book_count(&book, 0, 4, DBHA_OK) + book_count(&book, 0, 4, DBHA_ERR_UNKNOWN), 4);
	done_and_mended();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine_verify");
	ADD_TEST(suite, writes_are_done_with_their_results_and_reads_beside_them, servers, done, 60);
	ADD_TEST(suite, errors_of_the_statement_and_of_the_commit_are_errors, servers, done, 60);
	ADD_TEST(suite, a_plan_that_has_changed_shape_or_is_gone_is_mended, servers, done, 60);
	ADD_TEST(suite, what_is_alone_or_turns_out_to_write_is_verified_too, servers, done, 60);
	ADD_TEST(suite, a_role_that_may_not_ask_for_marks_writes_all_the_same, servers, done, 60);
	ADD_TEST(suite, before_its_commit_a_write_is_stopped_and_undone, servers, done, 60);
	ADD_TEST(suite, whenever_its_deadline_comes_what_is_said_is_true, servers, done, 60);
	ADD_TEST(suite, behind_its_commit_nobody_stops_it, servers, done, 60);
	ADD_TEST(suite, resets_in_the_middle_cost_nothing_and_leave_nothing_unknown, servers, done, 60);
	ADD_TEST(suite, backends_that_are_terminated_cost_nothing, servers, done, 60);
	ADD_TEST(suite, those_lost_at_one_time_are_asked_for_by_turns, servers, done, 60);
	ADD_TEST(suite, stopping_does_not_wait_for_an_outcome, servers, done, 60);
	ADD_TEST(suite, stopping_does_not_wait_for_an_outcome_with_a_thread, servers, done, 60);
	ADD_TEST(suite, closing_the_handle_does_not_wait_for_an_outcome, servers, done, 60);
	ADD_TEST(suite, in_a_child_the_outcome_is_the_parents, servers, done, 60);
	ADD_TEST(suite, after_restarts_in_place_only_the_last_commits_can_be_unknown, servers, done, 90);
	ADD_TEST(suite, after_restarts_in_place_the_outcome_table_knows, servers, done, 90);
	ADD_TEST(suite, after_a_kill_and_a_promotion_all_are_done, synchronous_servers, done, 90);
	ADD_TEST(suite, after_a_kill_and_a_promotion_all_are_done_with_a_thread, synchronous_servers, done, 90);
	ADD_TEST(suite, after_a_freeze_and_a_promotion_all_are_done, synchronous_servers, done, 90);
	return run_suite(suite, &c);
}
