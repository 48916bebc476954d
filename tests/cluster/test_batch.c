/*
 * test_batch: many statements at a time, in one transaction or each for itself, while the cluster is as it was made. What becomes of them
 * when a server dies is tested in test_batch_failover.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch_work.h"
#include "fresh.h"

static struct cluster c;
static PGconn *locker;

static void servers(void)
{
	cluster_intact_with_rows(&c, "2", "id bigint PRIMARY KEY, filler text");
	cluster_all_catch_up(&c);
}

static void done(void)
{
	PQfinish(locker);
	locker = NULL;
	handles_close();
	packs_free();
	cluster_ask(&c, 1, "TRUNCATE rows");
	c.intact = true;
}

static long rows(void)
{
	return cluster_count(&c, 1, "SELECT count(*) FROM rows");
}

static void lock_row(const char *id)
{
	char sql[80];
	snprintf(sql, sizeof sql, "BEGIN; UPDATE rows SET filler = 'locked' WHERE id = %s", id);
	locker = cluster_admin(&c, 1);
	PQclear(PQexec(locker, sql));
}

#define EXPECT_BLOCKED                                                                                                 \
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") > 0,         \
	         PATIENCE_MS)

static void expect_results_in_order(const struct pack *p)
{
	for (int i = 0; i < p->n; i++) {
		ck_assert_int_eq(p->codes[i], DBHA_OK);
		ck_assert_int_eq(PQntuples(p->results[i]), 1);
		ck_assert_str_eq(PQgetvalue(p->results[i], 0, 0), p->ids[i]);
	}
	ck_assert_int_eq(p->failed, -1);
}

static const char *state_of(const struct pack *p, int i)
{
	const char *state = p->results[i] ? PQresultErrorField(p->results[i], PG_DIAG_SQLSTATE) : NULL;
	return state ? state : "";
}

/* ---- what comes back ------------------------------------------------------------------------------------------- */

START_TEST(results_come_in_order)
{
	dbha *h = open_all(&c, NULL);
	for (int each = 0; each <= 1; each++) {
		struct pack *p = pack_inserts(1000, each, "some");
		ASSERT_OK(fire(p, h), p->err);
		expect_results_in_order(p);
		ck_assert_int_eq(rows(), 1000);
		ck_assert_int_eq(p->route.attempts, 1);
		ck_assert_int_eq(p->route.role, DBHA_ROLE_PRIMARY);
		long xids = cluster_count(&c, 1, "SELECT count(DISTINCT xmin::text) FROM rows");
		ck_assert_int_eq(xids, each ? 1000 : 1);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
}
END_TEST

START_TEST(one_error_is_the_error_of_all_or_of_one)
{
	dbha *h = open_all(&c, NULL);
	struct pack *p = pack_inserts(500, 0, NULL);
	p->values[57][0] = "3";
	ASSERT_CODE(fire(p, h), SERVER, p->err);
	ck_assert_str_eq(p->err.sqlstate, "23505");
	ASSERT_HAS(p->err.message, "requests[57]");
	ck_assert(p->err.retry_safe && !p->err.outcome_unknown);
	ck_assert_int_eq(p->failed, 57);
	ck_assert_int_eq(p->codes[57], DBHA_ERR_SERVER);
	ck_assert_int_eq(pack_count(p, DBHA_ERR_ROLLED_BACK), 499);
	ck_assert_str_eq(state_of(p, 57), "23505");
	ck_assert_ptr_null(p->results[3]);
	ck_assert_int_eq(rows(), 0);
	/* The connection is in order. */
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
	p->rq.each = 1;
	p->values[100][0] = "nonsense";
	ASSERT_CODE(fire(p, h), SERVER, p->err);
	ck_assert_str_eq(p->err.sqlstate, "23505");
	ASSERT_HAS(p->err.message, "requests[57]");
	ck_assert_int_eq(p->failed, 57);
	ck_assert_int_eq(pack_count(p, DBHA_ERR_SERVER), 2);
	ck_assert_int_eq(pack_count(p, DBHA_OK), 498);
	ck_assert_str_eq(state_of(p, 100), "22P02");
	ck_assert_str_eq(PQgetvalue(p->results[499], 0, 0), "499");
	ck_assert_int_eq(rows(), 498);
	ck_assert_uint_eq(counters(h, -1).closed_broken, 0);
	ck_assert_uint_eq(counters(h, -1).retries, 0);
}
END_TEST

START_TEST(a_wrong_text_many_times_is_as_many_errors)
{
	dbha *h = open_all(&c, NULL);
	struct pack *p = pack_texts(300, 1, "SELECT nonsense FROM nowhere");
	for (int i = 0; i < 300; i += 3)
		pack_text(p, i, "SELECT 1");
	ASSERT_CODE(fire(p, h), SERVER, p->err);
	for (int i = 0; i < 300; i++)
		ck_assert_str_eq(i % 3 ? state_of(p, i) : PQgetvalue(p->results[i], 0, 0), i % 3 ? "42P01" : "1");
	ck_assert_int_eq(p->failed, 1);
}
END_TEST

START_TEST(an_error_at_the_end_is_no_ones)
{
	dbha *h = open_all(&c, NULL);
	cluster_ask(&c, 1, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT ALL ON late TO app");
	struct pack *p = pack_texts(20, 0, "INSERT INTO late VALUES (1)");
	ASSERT_CODE(fire(p, h), SERVER, p->err);
	ck_assert_str_eq(p->err.sqlstate, "23505");
	ck_assert_int_eq(p->failed, -1);
	ck_assert_int_eq(pack_count(p, DBHA_ERR_ROLLED_BACK), 20);
	ck_assert_ptr_null(p->results[0]);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 0);
	p->rq.each = 1;
	ASSERT_CODE(fire(p, h), SERVER, p->err);
	ck_assert_int_eq(p->failed, 1);
	ck_assert_int_eq(pack_count(p, DBHA_OK), 1);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 1);
	cluster_ask(&c, 1, "DROP TABLE late");
}
END_TEST

START_TEST(a_text_that_comes_again_is_parsed_once)
{
	for (int each = 0; each <= 1; each++) {
		dbha *h = open_all(&c, "pool_max_size=1");
		struct pack *p = pack_inserts(600, each, NULL);
		ASSERT_OK(fire(p, h), p->err);
		const char *plans =
		    fetch(h, DBHA_WRITE,
		          "SELECT count(*) || ' ' || sum(generic_plans + custom_plans) FROM pg_prepared_statements "
		          "WHERE statement LIKE 'INSERT INTO rows%%'");
		ck_assert_str_eq(plans, "1 600");
		close_handle(h, 0);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
}
END_TEST

START_TEST(a_plan_that_has_changed_shape_is_mended)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	for (int each = 0; each <= 1; each++) {
		struct pack *p = pack_texts(50, each, "SELECT * FROM rows");
		struct pack *last = pack_inserts(1, each, NULL);
		ASSERT_OK(fire(p, h), p->err);
		cluster_ask(&c, 1, "ALTER TABLE rows ADD COLUMN more int");
		ASSERT_OK(fire(p, h), p->err);
		ck_assert_int_eq(PQnfields(p->results[49]), 3);
		ck_assert_int_eq(PQnfields(p->results[0]), 3);
		cluster_ask(&c, 1, "ALTER TABLE rows DROP COLUMN more");
		ASSERT_OK(fire(last, h), last->err);
		cluster_ask(&c, 1, "TRUNCATE rows");
		fetch(h, DBHA_WRITE, "DEALLOCATE ALL");
	}
}
END_TEST

/* ---- much -------------------------------------------------------------------------------------------------- */

static void large(int each)
{
	static char filler[1025];
	memset(filler, 'x', sizeof filler - 1);
	dbha *h = open_all(&c, NULL);
	struct pack *p = pack_inserts(10000, each, filler);
	p->rq.timeout_ms = 60000;
	ASSERT_OK(fire(p, h), p->err);
	expect_results_in_order(p);
	ck_assert_int_eq(rows(), 10000);
	struct pack *reads = pack_texts(10000, each, "SELECT repeat('y', 10240)");
	reads->rq.timeout_ms = 60000;
	reads->rq.intent = DBHA_READ;
	ASSERT_OK(fire(reads, h), reads->err);
	for (int i = 0; i < 10000; i++)
		ck_assert_int_eq(PQgetlength(reads->results[i], 0, 0), 10240);
	ck_assert_int_eq(reads->route.role, DBHA_ROLE_STANDBY);
	/* Both sides at once. */
	struct pack *both = pack_inserts(3000, each, filler);
	both->rq.timeout_ms = 60000;
	for (int i = 0; i < 3000; i++)
		both->requests[i].sql = "SELECT repeat($2, 20), $1";
	ASSERT_OK(fire(both, h), both->err);
	ck_assert_int_eq(PQgetlength(both->results[2999], 0, 0), 20480);
	ck_assert_str_eq(PQgetvalue(both->results[2999], 0, 1), "2999");
}

START_TEST(much_at_a_time_comes_through_together)
{
	large(0);
}
END_TEST

START_TEST(much_at_a_time_comes_through_each)
{
	large(1);
}
END_TEST

/* ---- input ------------------------------------------------------------------------------------------------- */

START_TEST(what_is_not_plain_is_refused_before_anything_is_sent)
{
	static const char *const texts[] = {"BEGIN",
	                                    "COMMIT",
	                                    "COPY rows FROM STDIN",
	                                    "SET work_mem = '1MB'",
	                                    "VACUUM",
	                                    "CALL something()",
	                                    "LISTEN rows",
	                                    "SELECT pg_advisory_lock(1)",
	                                    "DO $$BEGIN END$$",
	                                    "PREPARE x AS SELECT 1",
	                                    "/* */ SELECT 1",
	                                    "",
	                                    "SELECT set_config('a.b', '', false)"};
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		struct pack *p = pack_inserts(10, (int)i % 2, NULL);
		pack_text(p, 7, texts[i]);
		ASSERT_CODE(i % 3 ? fire(p, h) : fire_in(p, s), USAGE, p->err);
		ASSERT_HAS(p->err.message, "requests[7]");
		ck_assert_int_eq(pack_count(p, DBHA_ERR_USAGE), 10);
		ck_assert_int_eq(p->failed, -1);
	}
	ck_assert_int_eq(rows(), 0);
}
END_TEST

START_TEST(nonsense_is_refused)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	struct pack *p = pack_inserts(3, 0, NULL);
	dbha_batch_request rq;
	ASSERT_CODE(dbha_batch(NULL, NULL, NULL), USAGE, err);
	ASSERT_CODE(dbha_batch(h, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_batch(NULL, &p->rq, &err), USAGE, err);
	ck_assert_int_eq(pack_count(p, DBHA_ERR_USAGE), 3);
	ASSERT_CODE(dbha_session_batch(NULL, &p->rq, &err), USAGE, err);
	ASSERT_CODE(dbha_session_batch(s, NULL, &err), USAGE, err);
	struct {
		dbha_batch_request rq;
		const char *word;
	} bad[] = {
	    {{.size = 1}, "size"},
	    {DBHA_BATCH(.n = 1), "requests is NULL"},
	    {DBHA_BATCH(.n = -1, .requests = p->requests), "batch.n"},
	    {DBHA_BATCH(.n = 1000001, .requests = p->requests), "batch.n"},
	    {DBHA_BATCH(.n = 3, .requests = p->requests, .each = 2), "each"},
	    {DBHA_BATCH(.n = 3, .requests = p->requests, .flags = DBHA_PIN), "flags"},
	    {DBHA_BATCH(.n = 3, .requests = p->requests, .timeout_ms = -1), "timeout_ms"},
	    {DBHA_BATCH(.n = 3, .requests = p->requests, .intent = (dbha_intent)9), "intent"},
	    {DBHA_BATCH(.n = 3, .requests = p->requests, .consistency = 9), "consistency"},
	    {DBHA_BATCH(.n = 3, .requests = p->requests, .token = "rubbish", .intent = DBHA_READ), "token"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ASSERT_CODE(dbha_batch(h, &bad[i].rq, &err), USAGE, err);
		ASSERT_HAS(err.message, bad[i].word);
		ASSERT_CODE(dbha_session_batch(s, &bad[i].rq, &err), USAGE, err);
	}
	dbha_request wrong[] = {
	    {.size = 1},
	    DBHA_REQUEST(.sql = NULL),
	    DBHA_REQUEST(.sql = "SELECT 1", .n_params = -1),
	    DBHA_REQUEST(.sql = "SELECT $1", .n_params = 1),
	    DBHA_REQUEST(.sql = "SELECT 1", .timeout_ms = 5),
	    DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_READ),
	    DBHA_REQUEST(.sql = "SELECT 1", .flags = DBHA_IDEMPOTENT),
	    DBHA_REQUEST(.sql = "SELECT 1", .result_format = 2),
	    DBHA_REQUEST(.sql = "SELECT 1", .token = ""),
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		p->requests[2] = wrong[i];
		ASSERT_CODE(fire(p, h), USAGE, p->err);
		ASSERT_HAS(p->err.message, "requests[2]");
	}
	ck_assert_int_eq(rows(), 0);
	/* NULL wherever it may be, and nothing to do. */
	rq = DBHA_BATCH(.n = 2, .requests = p->requests);
	for (int each = 0; each <= 1; each++) {
		rq.each = each;
		ck_assert_int_eq(dbha_batch(h, &rq, NULL), DBHA_OK);
		ck_assert_int_eq(dbha_batch(h, &rq, NULL), DBHA_ERR_SERVER);
		ck_assert_int_eq(rows(), 2);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
	rq = DBHA_BATCH(.failed = &p->failed);
	ASSERT_OK(dbha_batch(h, &rq, &err), err);
	ASSERT_OK(dbha_session_batch(s, &rq, &err), err);
	ck_assert_int_eq(p->failed, -1);
}
END_TEST

/* ---- where it goes ------------------------------------------------------------------------------------------ */

START_TEST(reads_go_to_a_standby_and_what_writes_to_the_primary)
{
	for (int each = 0; each <= 1; each++) {
		dbha *h = open_all(&c, "routing=auto");
		struct pack *p = pack_texts(40, each, "SELECT count(*) FROM rows");
		p->rq.intent = DBHA_DEFAULT;
		ASSERT_OK(fire(p, h), p->err);
		ck_assert_int_eq(p->route.role, DBHA_ROLE_STANDBY);
		ck_assert_int_eq(p->route.intent, DBHA_READ);
		/* One among them that is none. */
		pack_text(p, 20, "INSERT INTO rows VALUES (1, 'x')");
		ASSERT_OK(fire(p, h), p->err);
		ck_assert_int_eq(p->route.role, DBHA_ROLE_PRIMARY);
		ck_assert_int_eq(rows(), 1);
		ck_assert_uint_eq(counters(h, -1).not_reads, 0);
		/* One that its caller takes for one: the standby refuses it. */
		cluster_ask(&c, 1, "TRUNCATE rows");
		dbha *plain = open_all(&c, NULL);
		p->rq.intent = DBHA_READ;
		ASSERT_OK(fire(p, plain), p->err);
		ck_assert_int_eq(p->route.role, DBHA_ROLE_PRIMARY);
		ck_assert_int_eq(p->route.reason, DBHA_REASON_REFUSED);
		ck_assert_int_eq(rows(), 1);
		ck_assert_uint_eq(counters(plain, -1).not_reads, 1);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
}
END_TEST

START_TEST(a_session_reads_its_own_batch)
{
	for (int each = 0; each <= 1; each++) {
		dbha *h = open_all(&c, NULL);
		dbha_session *s = open_session(h);
		struct pack *read = pack_texts(3, each, "SELECT count(*) FROM rows");
		read->rq.intent = DBHA_READ;
		ASSERT_OK(fire_in(read, s), read->err); /* from now on it knows its positions */
		hold_replay(&c, 2);
		struct pack *write = pack_inserts(200, each, NULL);
		ASSERT_OK(fire_in(write, s), write->err);
		ASSERT_OK(fire_in(read, s), read->err);
		ck_assert_str_eq(PQgetvalue(read->results[2], 0, 0), "200");
		ck_assert_int_eq(read->route.role, DBHA_ROLE_PRIMARY);
		go_on_replay(&c, 2);
		cluster_all_catch_up(&c);
		ASSERT_OK(fire_in(read, s), read->err);
		ck_assert_str_eq(PQgetvalue(read->results[0], 0, 0), "200");
		/* The position came with the batch: a standby that has replayed it will do. */
		ck_assert_int_eq(read->route.role, DBHA_ROLE_STANDBY);
		char token[DBHA_TOKEN_MAX];
		token_of(s, token);
		read->rq.token = token;
		ASSERT_OK(fire(read, h), read->err);
		ck_assert_str_eq(PQgetvalue(read->results[1], 0, 0), "200");
		close_session(s);
		cluster_ask(&c, 1, "TRUNCATE rows");
		cluster_all_catch_up(&c);
	}
}
END_TEST

/* ---- sessions ---------------------------------------------------------------------------------------------- */

static dbha_session_status status_of(dbha_session *s)
{
	dbha_session_status status = {.size = sizeof status};
	dbha_error err;
	ASSERT_OK(dbha_session_status_get(s, &status, &err), err);
	return status;
}

START_TEST(in_a_transaction_it_is_a_part_of_it)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	struct pack *first = pack_inserts(100, 0, NULL), *second = pack_inserts(200, 0, NULL);
	memmove(second->requests, second->requests + 100, 100 * sizeof *second->requests);
	second->rq.n = 100;
	for (int commits = 0; commits <= 1; commits++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		first->rq.each = 1;
		ASSERT_CODE(fire_in(first, s), USAGE, first->err);
		first->rq.each = 0;
		ASSERT_OK(fire_in(first, s), first->err); /* takes BEGIN along */
		expect_results_in_order(first);
		ck_assert_uint_gt(status_of(s).xid, 0); /* and the mark */
		ASSERT_OK(fire_in(second, s), second->err);
		ck_assert_int_eq(second->route.reason, DBHA_REASON_TRANSACTION);
		ck_assert_int_eq(rows(), 0);
		ASSERT_OK(commits ? dbha_session_commit(s, 0, &err) : dbha_session_rollback(s, 0, &err), err);
		ck_assert_int_eq(rows(), commits ? 200 : 0);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(DISTINCT xmin::text) FROM rows"), 1);
}
END_TEST

START_TEST(an_error_in_a_transaction_leaves_it_failed)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	PGresult *result;
	dbha_request one = DBHA_REQUEST(.sql = "INSERT INTO rows VALUES (1000, NULL)");
	for (int open = 0; open <= 1; open++) {
		struct pack *p = pack_inserts(50, 0, NULL);
		p->values[20][0] = "7";
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		if (open) {
			ASSERT_OK(dbha_session_exec(s, &one, &result, &err), err);
			PQclear(result);
		}
		ASSERT_CODE(fire_in(p, s), SERVER, p->err);
		ck_assert_int_eq(p->failed, 20);
		ck_assert_str_eq(p->err.sqlstate, "23505");
		ck_assert_int_eq(status_of(s).state, DBHA_SESSION_IN_ERROR);
		ASSERT_CODE(fire_in(p, s), SERVER, p->err);
		ck_assert_str_eq(p->err.sqlstate, "25P02");
		ck_assert_int_eq(pack_count(p, DBHA_OK), 0);
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	}
	ck_assert_int_eq(rows(), 0);
}
END_TEST

START_TEST(a_pinned_session_runs_it_on_its_connection)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	PGresult *result;
	dbha_request set = DBHA_REQUEST(.sql = "CREATE TEMP TABLE mine (id int)");
	ASSERT_OK(dbha_session_exec(s, &set, &result, &err), err);
	PQclear(result);
	for (int each = 0; each <= 1; each++) {
		struct pack *p = pack_texts(30, each, "INSERT INTO mine VALUES (1)");
		pack_text(p, 29, "SELECT count(*) FROM mine");
		ASSERT_OK(fire_in(p, s), p->err);
		ck_assert_str_eq(PQgetvalue(p->results[29], 0, 0), each ? "58" : "29");
		ck_assert_int_eq(p->route.reason, DBHA_REASON_PINNED);
	}
}
END_TEST

/* ---- time -------------------------------------------------------------------------------------------------- */

START_TEST(a_deadline_is_that_of_all_of_it)
{
	dbha *h = open_all(&c, NULL);
	cluster_ask(&c, 1, "INSERT INTO rows VALUES (5000, '')");
	lock_row("5000");
	for (int round = 0; round <= 2; round++) {
		int each = round == 0;
		struct pack *p = pack_inserts(round == 2 ? 100 : 1000, each, NULL);
		pack_text(p, round == 2 ? 50 : 500, "UPDATE rows SET filler = 'mine' WHERE id = 5000");
		p->rq.timeout_ms = 400;
		ASSERT_CODE(fire(p, h), TIMEOUT, p->err);
		ck_assert_int_ge(p->took_ms, 390);
		ck_assert_int_le(p->took_ms, 400 + SLACK_MS);
		if (each)
			ck_assert_int_eq(pack_count(p, DBHA_OK) + pack_count(p, DBHA_ERR_TIMEOUT) + pack_count(p, DBHA_ERR_UNKNOWN),
			                 1000);
		if (each)
			ck_assert_int_ge(pack_count(p, DBHA_OK), 500);
		/* One that is not long had its end sent: the server says that it has stopped, if it finds the time. */
		if (round == 2 && !p->err.outcome_unknown)
			ck_assert_msg(p->failed == 50, "%d: %s", p->failed, p->err.message);
		if (round == 1)
			ck_assert_int_eq(pack_count(p, DBHA_ERR_TIMEOUT), 1000);
		ck_assert(round != 1 || (p->err.retry_safe && !p->err.outcome_unknown));
		WAIT_FOR(cluster_count(&c, 1,
		                       "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND usename = 'app'") == 0,
		         PATIENCE_MS);
		long there = rows() - 1;
		ck_assert_int_ge(there, pack_count(p, DBHA_OK));
		ck_assert_int_le(there, pack_count(p, DBHA_OK) + pack_count(p, DBHA_ERR_UNKNOWN));
		cluster_ask(&c, 1, "DELETE FROM rows WHERE id < 5000");
	}
}
END_TEST

START_TEST(a_frozen_server_costs_no_more_than_the_deadline)
{
	static char filler[1025];
	memset(filler, 'x', sizeof filler - 1);
	dbha *h = open_all(&c, NULL);
	for (int round = 0; round <= 3; round++) {
		struct pack *p = pack_inserts(round < 2 ? 60 : 20000, round % 2, filler);
		ASSERT_OK(run(h, DBHA_WRITE, 5000, "SELECT 1", &p->err), p->err);
		p->rq.timeout_ms = 500;
		cluster_do(&c, "pause %d", 1);
		fire(p, h);
		cluster_do(&c, "resume %d", 1);
		ASSERT_CODE(p->code, TIMEOUT, p->err);
		ck_assert_int_le(p->took_ms, 500 + SLACK_MS);
		/* What had not been sent whole was certainly not done. */
		ck_assert_msg(p->err.outcome_unknown == (round != 2), "round %d: %s", round, p->err.message);
		if (round == 3)
			ck_assert_int_ge(pack_count(p, DBHA_ERR_TIMEOUT), 20000 - 256);
		/* Whatever it may still do, it has done when nobody is connected any more. */
		WAIT_FOR(cluster_count(
		             &c, 1, "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'INSERT%%'") ==
		             0,
		         PATIENCE_MS);
		pack_expect_truth(p, &c, 1);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
}
END_TEST

START_TEST(a_cancel_ends_it)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	cluster_ask(&c, 1, "INSERT INTO rows VALUES (5000, '')");
	lock_row("5000");
	for (int round = 0; round <= 2; round++) {
		int each = round == 1;
		struct pack *p = pack_inserts(1000, each, NULL);
		pack_text(p, 100, "UPDATE rows SET filler = 'mine' WHERE id = 5000");
		pack_text(p, 101, "UPDATE rows SET filler = 'mine' WHERE id = 5000");
		if (round == 2)
			ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		fire_in_a_thread(p, NULL, s);
		EXPECT_BLOCKED;
		int64_t began = now_ms();
		ASSERT_OK(dbha_cancel(s, &err), err);
		WAIT_FOR(atomic_load(&p->done), PATIENCE_MS);
		ck_assert_int_lt(now_ms() - began, 1000);
		join_threads();
		ASSERT_CODE(p->code, CANCELED, p->err);
		ck_assert_int_eq(p->failed, 100);
		ck_assert_int_eq(p->codes[100], DBHA_ERR_CANCELED);
		ck_assert_int_eq(p->codes[101], each ? DBHA_ERR_CANCELED : p->codes[102]);
		ck_assert_int_eq(p->codes[999], each ? DBHA_ERR_CANCELED : p->codes[0]);
		if (!each)
			ck_assert_int_eq(pack_count(p, DBHA_OK), 0);
		if (round == 2)
			ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ck_assert_int_eq(rows(), 1 + pack_count(p, DBHA_OK));
		cluster_ask(&c, 1, "DELETE FROM rows WHERE id < 5000");
	}
	struct pack *p = pack_inserts(10, 0, NULL);
	ASSERT_OK(fire_in(p, s), p->err);
}
END_TEST

START_TEST(with_verify_commit_it_is_a_transaction_that_can_be_asked_for)
{
	dbha *h = open_all(&c, "verify_commit=on");
	dbha_session *s = open_session(h);
	for (int round = 0; round < 4; round++) {
		struct pack *p = pack_inserts(100, round % 2, NULL);
		ASSERT_OK(round < 2 ? fire(p, h) : fire_in(p, s), p->err);
		expect_results_in_order(p);
		ck_assert_int_eq(rows(), 100);
		p->values[50][0] = "1000";
		ASSERT_CODE(round < 2 ? fire(p, h) : fire_in(p, s), SERVER, p->err);
		ck_assert_int_eq(p->failed, 0);
		ck_assert_str_eq(state_of(p, 0), "23505");
		ck_assert_int_eq(pack_count(p, DBHA_OK), round % 2);
		ck_assert_int_eq(rows(), 100 + round % 2);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
	ck_assert_uint_gt(counters(h, -1).transactions, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("batch");
	ADD_TEST(suite, results_come_in_order, servers, done, 60);
	ADD_TEST(suite, one_error_is_the_error_of_all_or_of_one, servers, done, 60);
	ADD_TEST(suite, a_wrong_text_many_times_is_as_many_errors, servers, done, 60);
	ADD_TEST(suite, an_error_at_the_end_is_no_ones, servers, done, 60);
	ADD_TEST(suite, a_text_that_comes_again_is_parsed_once, servers, done, 60);
	ADD_TEST(suite, a_plan_that_has_changed_shape_is_mended, servers, done, 60);
	ADD_TEST(suite, much_at_a_time_comes_through_together, servers, done, 120);
	ADD_TEST(suite, much_at_a_time_comes_through_each, servers, done, 120);
	ADD_TEST(suite, what_is_not_plain_is_refused_before_anything_is_sent, servers, done, 60);
	ADD_TEST(suite, nonsense_is_refused, servers, done, 60);
	ADD_TEST(suite, reads_go_to_a_standby_and_what_writes_to_the_primary, servers, done, 60);
	ADD_TEST(suite, a_session_reads_its_own_batch, servers, done, 60);
	ADD_TEST(suite, in_a_transaction_it_is_a_part_of_it, servers, done, 60);
	ADD_TEST(suite, an_error_in_a_transaction_leaves_it_failed, servers, done, 60);
	ADD_TEST(suite, a_pinned_session_runs_it_on_its_connection, servers, done, 60);
	ADD_TEST(suite, a_deadline_is_that_of_all_of_it, servers, done, 60);
	ADD_TEST(suite, a_frozen_server_costs_no_more_than_the_deadline, servers, done, 60);
	ADD_TEST(suite, a_cancel_ends_it, servers, done, 60);
	ADD_TEST(suite, with_verify_commit_it_is_a_transaction_that_can_be_asked_for, servers, done, 60);
	return run_suite(suite, &c);
}
