/*
 * test_batch_failover: what is said of a batch whose server dies in the middle of it, held against the rows that are there afterwards.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch_work.h"
#include "fresh.h"

static struct cluster c;
static char filler[1025];

static void servers(void)
{
	memset(filler, 'x', sizeof filler - 1);
	cluster_destroy(&c);
	c.intact = false;
	cluster_with_rows(&c, "2", "id bigint PRIMARY KEY, filler text");
	cluster_ask(
	    &c, 1,
	    "CREATE TABLE gate (id int PRIMARY KEY, n int); INSERT INTO gate VALUES (1, 0); GRANT ALL ON gate TO app");
	cluster_all_catch_up(&c);
}

static void done(void)
{
	handles_close();
	packs_free();
}

/* Who comes to the gate waits there, until the server is gone. */
static const char gate[] = "UPDATE gate SET n = n + 1 WHERE id = 1";
static PGconn *keeper;

static void close_gate(void)
{
	keeper = cluster_admin(&c, 1);
	PQclear(PQexec(keeper, "BEGIN; UPDATE gate SET n = -1"));
}

static void await_at_gate(void)
{
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") > 0,
	         PATIENCE_MS);
}

/* By SIGKILL, and the standby takes over. */
static void fail_over(void)
{
	cluster_do(&c, "kill %d", 1);
	cluster_do(&c, "promote %d", 2);
	PQfinish(keeper);
	keeper = NULL;
}

static void await_end(struct pack *p)
{
	WAIT_FOR(atomic_load(&p->done), 2 * PATIENCE_MS);
	join_threads();
}

/* ---- at a known place --------------------------------------------------------------------------------------------- */

START_TEST(what_was_not_sent_whole_goes_again)
{
	dbha *h = open_all(&c, NULL);
	/* More than the buffers of a socket that nobody reads from. */
	struct pack *p = pack_inserts(40000, 0, filler);
	pack_text(p, 0, gate);
	close_gate();
	fire_in_a_thread(p, h, NULL);
	await_at_gate();
	fail_over();
	await_end(p);
	ASSERT_OK(p->code, p->err);
	ck_assert_int_eq(p->route.attempts, 2);
	p->codes[0] = DBHA_ERR_UNKNOWN; /* leaves no row */
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 39999);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT n FROM gate"), 1);
	pack_expect_truth(&(struct pack){.n = p->n, .codes = p->codes, .rq = {.each = 1}}, &c, 2);
}
END_TEST

static struct pack *lose_whole(int n, const char *options, uint32_t flags)
{
	dbha *h = open_all(&c, options);
	struct pack *p = pack_inserts(n, 0, NULL);
	pack_text(p, n / 2, gate);
	p->rq.flags = flags;
	close_gate();
	fire_in_a_thread(p, h, NULL);
	await_at_gate();
	fail_over();
	await_end(p);
	return p;
}

START_TEST(what_was_sent_whole_is_unknown)
{
	struct pack *p = lose_whole(100, NULL, 0);
	ASSERT_CODE(p->code, UNKNOWN, p->err);
	ck_assert(p->err.outcome_unknown && !p->err.retry_safe);
	ck_assert_str_eq(p->err.sqlstate, "08007");
	ck_assert_int_eq(pack_count(p, DBHA_ERR_UNKNOWN), 100);
	ck_assert_int_eq(p->failed, -1);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 0);
}
END_TEST

START_TEST(what_is_long_has_its_end_sent_when_it_is_answered)
{
	struct pack *p = lose_whole(200, NULL, 0);
	ASSERT_OK(p->code, p->err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 199);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT n FROM gate"), 1);
}
END_TEST

START_TEST(what_is_idempotent_goes_again)
{
	struct pack *p = lose_whole(100, NULL, DBHA_IDEMPOTENT);
	ASSERT_OK(p->code, p->err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 99);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT n FROM gate"), 1);
}
END_TEST

START_TEST(with_verify_commit_it_goes_again)
{
	struct pack *p = lose_whole(100, "verify_commit=on", 0);
	ASSERT_OK(p->code, p->err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 99);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT n FROM gate"), 1);
}
END_TEST

START_TEST(in_a_transaction_it_is_rolled_back)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	PGresult *result;
	dbha_request one = DBHA_REQUEST(.sql = "INSERT INTO rows VALUES (1000, NULL)");
	struct pack *p = pack_inserts(200, 0, NULL);
	pack_text(p, 100, gate);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_OK(dbha_session_exec(s, &one, &result, &err), err);
	PQclear(result);
	close_gate();
	fire_in_a_thread(p, NULL, s);
	await_at_gate();
	fail_over();
	await_end(p);
	ASSERT_CODE(p->code, ROLLED_BACK, p->err);
	ck_assert(p->err.retry_safe);
	ck_assert_int_eq(pack_count(p, DBHA_ERR_ROLLED_BACK), 200);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	/* The same again, from its beginning: the batch is the first statement now. */
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_OK(fire_in(p, s), p->err);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 199);
}
END_TEST

START_TEST(as_the_first_of_a_transaction_it_goes_again)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	dbha_error err;
	struct pack *p = pack_inserts(200, 0, NULL);
	pack_text(p, 100, gate);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	close_gate();
	fire_in_a_thread(p, NULL, s);
	await_at_gate();
	fail_over();
	await_end(p);
	ASSERT_OK(p->code, p->err);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 199);
}
END_TEST

START_TEST(each_that_was_not_begun_goes_on_elsewhere)
{
	dbha *h = open_all(&c, NULL);
	struct pack *p = pack_inserts(5000, 1, NULL);
	pack_text(p, 1000, gate);
	close_gate();
	fire_in_a_thread(p, h, NULL);
	await_at_gate();
	WAIT_FOR(cluster_count(&c, 2, "SELECT count(*) FROM rows") == 1000, PATIENCE_MS);
	fail_over();
	await_end(p);
	ASSERT_CODE(p->code, UNKNOWN, p->err);
	ck_assert_int_eq(p->failed, 1000);
	ASSERT_HAS(p->err.message, "requests[1000]");
	int unknown = pack_count(p, DBHA_ERR_UNKNOWN);
	ck_assert_int_ge(unknown, 1);
	ck_assert_int_le(unknown, 256);
	ck_assert_int_eq(pack_count(p, DBHA_OK), 5000 - unknown);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 5000 - unknown);
	pack_expect_truth(p, &c, 2);
}
END_TEST

START_TEST(each_read_goes_on_elsewhere)
{
	dbha *h = open_all(&c, NULL);
	struct pack *p = pack_texts(3000, 1, "SELECT 1");
	pack_text(p, 500, "SELECT pg_sleep(1)");
	p->rq.intent = DBHA_READ;
	fire_in_a_thread(p, h, NULL);
	WAIT_FOR(cluster_count(&c, 2, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == 1,
	         PATIENCE_MS);
	cluster_do(&c, "kill %d", 2);
	await_end(p);
	ASSERT_OK(p->code, p->err);
	ck_assert_int_eq(pack_count(p, DBHA_OK), 3000);
	ck_assert_int_eq(p->route.role, DBHA_ROLE_PRIMARY);
	for (int i = 0; i < 3000; i++)
		ck_assert_int_eq(PQntuples(p->results[i]), 1);
}
END_TEST

/* The old primary lives, and nobody writes there any more. */
START_TEST(a_promotion_elsewhere_takes_it_along)
{
	for (int each = 0; each <= 1; each++) {
		servers();
		dbha *h = open_all(&c, NULL);
		struct pack *p = pack_inserts(1000, each, NULL);
		pack_text(p, 500, gate);
		close_gate();
		fire_in_a_thread(p, h, NULL);
		await_at_gate();
		WAIT_FOR(!each || cluster_count(&c, 2, "SELECT count(*) FROM rows") == 500, PATIENCE_MS);
		cluster_do(&c, "promote %d", 2);
		await_end(p);
		PQfinish(keeper);
		keeper = NULL;
		ck_assert_str_eq(p->route.node, node_status(h, 1).name);
		if (each) {
			int unknown = pack_count(p, DBHA_ERR_UNKNOWN);
			ASSERT_CODE(p->code, UNKNOWN, p->err);
			ck_assert_int_le(unknown, 256);
			ck_assert_int_eq(pack_count(p, DBHA_OK), 1000 - unknown);
			ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 1000 - unknown);
		} else {
			ASSERT_OK(p->code, p->err);
			ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 999);
			ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 0);
		}
		done();
	}
}
END_TEST

/* ---- at any place ------------------------------------------------------------------------------------------------- */

/* Killed after some of it, and started again as it was: what is there then is what was done. */
static void kill_at_any_place(int each, const char *options, bool orderly)
{
	int ends[3] = {0};
	for (int round = 0; round < 8; round++) {
		dbha *h = open_all(&c, options);
		struct pack *p = pack_inserts(each ? 6000 : 20000, each, NULL);
		fire_in_a_thread(p, h, NULL);
		int64_t until = now_ms() + 10 + 25 * round;
		while (now_ms() < until && !atomic_load(&p->done))
			short_pause();
		cluster_do(&c, "%s 1%s", orderly ? "stop" : "kill", orderly ? " fast" : "");
		cluster_do(&c, "start %d", 1);
		await_end(p);
		close_handle(h, 0);
		ends[p->code == DBHA_OK ? 0 : p->err.outcome_unknown ? 1 : 2]++;
		pack_expect_truth(p, &c, 1);
		cluster_ask(&c, 1, "TRUNCATE rows");
	}
	printf("each=%d%s: done %d, unknown %d, not done %d\n", each, orderly ? ", stopped" : "", ends[0], ends[1],
	       ends[2]);
}

START_TEST(killed_at_any_place_it_is_all_or_nothing)
{
	kill_at_any_place(0, NULL, false);
}
END_TEST

START_TEST(killed_at_any_place_it_is_all_or_nothing_with_verify_commit)
{
	kill_at_any_place(0, "verify_commit=on", false);
}
END_TEST

START_TEST(killed_at_any_place_each_is_as_its_code_says)
{
	kill_at_any_place(1, NULL, false);
}
END_TEST

START_TEST(stopped_at_any_place_each_is_as_its_code_says)
{
	kill_at_any_place(1, NULL, true);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("batch_failover");
	ADD_TEST(suite, what_was_not_sent_whole_goes_again, servers, done, 90);
	ADD_TEST(suite, what_was_sent_whole_is_unknown, servers, done, 90);
	ADD_TEST(suite, what_is_long_has_its_end_sent_when_it_is_answered, servers, done, 90);
	ADD_TEST(suite, what_is_idempotent_goes_again, servers, done, 90);
	ADD_TEST(suite, with_verify_commit_it_goes_again, servers, done, 90);
	ADD_TEST(suite, in_a_transaction_it_is_rolled_back, servers, done, 90);
	ADD_TEST(suite, as_the_first_of_a_transaction_it_goes_again, servers, done, 90);
	ADD_TEST(suite, each_that_was_not_begun_goes_on_elsewhere, servers, done, 90);
	ADD_TEST(suite, each_read_goes_on_elsewhere, servers, done, 90);
	ADD_TEST(suite, a_promotion_elsewhere_takes_it_along, NULL, done, 120);
	ADD_TEST(suite, killed_at_any_place_it_is_all_or_nothing, servers, done, 180);
	ADD_TEST(suite, killed_at_any_place_it_is_all_or_nothing_with_verify_commit, servers, done, 180);
	ADD_TEST(suite, killed_at_any_place_each_is_as_its_code_says, servers, done, 180);
	ADD_TEST(suite, stopped_at_any_place_each_is_as_its_code_says, servers, done, 180);
	return run_suite(suite, &c);
}
