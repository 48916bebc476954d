/*
 * test_failover: primaries and standbys that die, stop, freeze, restart and come back, under an application that goes on.
 * A test that has broken the cluster for good leaves it to nobody; the next one gets a new one. What was written where, the servers themselves are asked.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "relay.h"
#include "work.h"

/* Fast enough that a frozen server is noticed within the patience of a test. */
#define QUICK_PROBES "probe_interval=200ms&probe_timeout=200ms&probe_failures=2"

static struct cluster c;

static void servers(void)
{
	/* A row carries the start time of the server that took it: what a returned old primary took after its return shows. */
	cluster_intact_with_rows(&c, "3", "id bigint, started timestamptz DEFAULT pg_postmaster_start_time()");
}

/* Rows that a server took since it was last started. */
static long rows_since_start(int node)
{
	return cluster_count(&c, node, "SELECT count(*) FROM rows WHERE started = pg_postmaster_start_time()");
}

/* ---- the primary goes ------------------------------------------------------------------------------------------ */

START_TEST(after_a_kill_and_a_promotion_the_old_primary_is_never_written_again)
{
	dbha *h = open_all(&c, NULL);
	struct load *load = load_start(h, false);
	load_expect_writes(load, 200);
	cluster_do(&c, "kill 1");
	promote(&c, 2);
	load_expect_writes(load, 200);
	cluster_do(&c, "start 1");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
	load_expect_writes(load, 500);
	dbha_node_status old = node_status(h, 0);
	ASSERT_HAS(old.why, "timeline 1");
	ASSERT_HAS(old.why, "timeline 2");

	/* A handle that was not there when it happened must find out before its first write, whatever the order. */
	static const char *const orders[] = {"1 2 3", "3 1 2", "1 3 2"};
	for (int i = 0; i < 3; i++) {
		dbha *late = open_handle(cluster_url(&c, orders[i], NULL));
		fetch(late, DBHA_WRITE, "INSERT INTO rows (id) VALUES (%d)", -1 - i);
		dbha_conn *lease = dbha_acquire(late, DBHA_DEFAULT, 0, NULL);
		lease_fetch(lease, "INSERT INTO rows (id) VALUES (-9)");
		dbha_release(lease);
	}
	load_stop(load);
	ck_assert_int_eq(rows_since_start(1), 0);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id < 0"), 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id < 0"), 6);
	load_expect_no_errors(load, 1); /* at most the one under way when the primary died */
	ck_assert_int_eq(load_duplicates(&c, 2), 0);
	ck_assert_int_eq(counters(h, -1).primary_changes, 2);
	load_free(load); /* some rows may be missing: replication is asynchronous */
}
END_TEST

START_TEST(an_orderly_stop_and_a_promotion_lose_nothing_and_cost_no_error)
{
	dbha *h = open_all(&c, NULL);
	struct load *load = load_start(h, false);
	load_expect_writes(load, 200);
	cluster_do(&c, "stop 1 fast");
	promote(&c, 3);
	load_expect_writes(load, 200);
	load_stop(load);
	load_expect_no_errors(load, 1);
	ck_assert_int_eq(load_duplicates(&c, 3), 0);
	ck_assert_int_eq(load_missing(load, &c, 3), 0);
	load_free(load);
}
END_TEST

START_TEST(a_restart_of_the_primary_costs_no_error_and_starts_a_new_generation)
{
	dbha *h = open_all(&c, NULL);
	dbha_conn *leases[5];
	for (int i = 0; i < 5; i++)
		leases[i] = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	for (int i = 0; i < 5; i++)
		dbha_release(leases[i]); /* five idle connections that will die */
	uint64_t before = node_status(h, 0).generation;
	int pid = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	cluster_do(&c, "restart 1");
	for (int i = 0; i < 20; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (%d)", i);
	ck_assert_int_ne(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 20);
	ck_assert_uint_gt(node_status(h, 0).generation, before);
	ck_assert(event_within(h, DBHA_EVENT_RESTARTED, 1000, NULL));
	ck_assert_int_eq(counters(h, -1).primary_changes, 2);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(backends_that_were_terminated_while_idle_cost_no_error)
{
	dbha *h = open_all(&c, "pool_min_size=3&application_name=victim");
	for (int i = 0; i < 5; i++) {
		WAIT_FOR(node_status(h, 0).pool_idle >= 2, PATIENCE_MS);
		cluster_ask(&c, 1,
		            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'victim'");
		fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (%d)", i);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 5);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_statement_in_flight_when_its_primary_dies_is_unknown_and_not_repeated)
{
	dbha *h = open_all(&c, NULL);
	static struct statement plain, repeatable;
	statement_start(&plain, h, DBHA_WRITE, 10000, "INSERT INTO rows (id) SELECT 1 FROM pg_sleep(4)");
	statement_start(&repeatable, h, DBHA_WRITE, 10000,
	                "/* may be repeated */ INSERT INTO rows (id) SELECT 2 FROM pg_sleep(0.9)");
	statement_join(&repeatable);
	ASSERT_OK(repeatable.code, repeatable.err);
	statement_start_request(&repeatable, h,
	                        &DBHA_REQUEST(.sql = "INSERT INTO rows (id) SELECT 3 FROM pg_sleep(0.9)",
	                                      .intent = DBHA_WRITE, .timeout_ms = 20000, .flags = DBHA_IDEMPOTENT));
	expect_running(&c, 1, "INSERT INTO rows (id) SELECT 1%%");
	expect_running(&c, 1, "INSERT INTO rows (id) SELECT 3%%");
	int64_t killed = now_us();
	cluster_do(&c, "kill 1");
	statement_join(&plain);
	ASSERT_CODE(plain.code, UNKNOWN, plain.err);
	ck_assert_str_eq(plain.err.sqlstate, "08007");
	ck_assert(plain.err.outcome_unknown);
	ck_assert(!plain.err.retry_safe);
	ck_assert_int_eq(plain.err.attempts, 1);
	ck_assert_int_lt((plain.ended_us - killed) / 1000, 2000);
	ASSERT_HAS(plain.err.message, "unknown");
	promote(&c, 2);
	statement_join(&repeatable);
	ASSERT_OK(repeatable.code, repeatable.err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 1"), 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 3"), 1);
	ck_assert_int_ge(counters(h, -1).unknown_outcomes, 1);
}
END_TEST

START_TEST(a_write_waits_for_the_new_primary_and_is_woken)
{
	dbha *h = open_all(&c, NULL);
	cluster_do(&c, "kill 1");
	WAIT_FOR(cluster_status(h).primary < 0, PATIENCE_MS);
	static struct statement b[3];
	for (int i = 0; i < 3; i++)
		statement_start(&b[i], h, DBHA_WRITE, 10000, "INSERT INTO rows (id) VALUES (1)");
	dbha_error err;
	ASSERT_CODE(dbha_wait(h, DBHA_WAIT_PRIMARY, 300, &err), NO_NODE, err);
	for (int i = 0; i < 3; i++)
		ck_assert(!atomic_load(&b[i].done));
	promote(&c, 2);
	int64_t promoted = now_us();
	for (int i = 0; i < 3; i++) {
		statement_join(&b[i]);
		ASSERT_OK(b[i].code, b[i].err);
		ck_assert_int_le((b[i].ended_us - promoted) / 1000, 4 * SLACK_MS);
	}
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 3);
}
END_TEST

START_TEST(without_a_primary_a_write_ends_with_its_deadline_and_reads_go_on)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	int64_t best = INT64_MAX;
	cluster_do(&c, "kill 1");
	for (int i = 0; i < 3; i++) {
		int64_t began = now_ms();
		ASSERT_CODE(run(h, DBHA_WRITE, 300, "INSERT INTO rows (id) VALUES (1)", &err), NO_NODE, err);
		best = now_ms() - began < best ? now_ms() - began : best;
		ck_assert_str_eq(err.sqlstate, "08001");
		ck_assert(err.retry_safe);
		ck_assert(!err.outcome_unknown);
		ck_assert_int_eq(err.attempts, 0);
		for (int node = 0; node < 3; node++)
			ASSERT_HAS(err.message, node_status(h, node).name);
		ASSERT_HAS(err.message, "standby");
		fetch(h, DBHA_READ, "SELECT 1");
		began = now_ms();
		ck_assert_ptr_null(dbha_acquire(h, DBHA_WRITE, 300, &err));
		ck_assert_int_eq(err.code, DBHA_ERR_NO_NODE);
		best = now_ms() - began < best ? now_ms() - began : best;
	}
	ck_assert_int_ge(best, 299);
	ck_assert_int_le(best, 300 + SLACK_MS);
	cluster_do(&c, "start 1");
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_frozen_primary_is_fenced_at_the_promotion_and_its_leases_are_cut)
{
	dbha *h = open_all(&c, QUICK_PROBES);
	static struct statement b, write;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	statement_start_on(&b, dbha_conn_pq(lease), "SELECT pg_sleep(3600)");
	expect_running(&c, 1, "SELECT pg_sleep(3600)");
	cluster_do(&c, "pause 1");
	/* Into a server that will not answer. */
	statement_start(&write, h, DBHA_WRITE, 10000, "INSERT INTO rows (id) VALUES (1)");
	promote(&c, 2);
	int64_t promoted = now_us();
	WAIT_FOR(atomic_load(&b.done) && atomic_load(&write.done), PATIENCE_MS);
	ck_assert_int_lt((b.ended_us - promoted) / 1000, 2000);
	ck_assert_int_eq(b.code, DBHA_ERR_LOST);
	statement_join(&b);
	statement_join(&write);
	dbha_release(lease);
	fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (2)");
	ck_assert(event_within(h, DBHA_EVENT_FENCED, 1000, NULL));
	cluster_do(&c, "resume 1");
	for (int i = 10; i < 60; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (%d)", i);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id > 1"), 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id > 1"), 51);
	ck_assert_int_eq(load_duplicates(&c, 2), 0);
	/* The write into the frozen server: acknowledged means that it is on the new primary, unknown means not repeated. */
	long there = cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 1");
	if (write.code == DBHA_OK) {
		ck_assert_int_eq(there, 1);
	} else {
		ck_assert(write.err.outcome_unknown);
		ck_assert_int_eq(there, 0);
	}
}
END_TEST

/* ---- generations ------------------------------------------------------------------------------------------------- */

START_TEST(a_standby_promoted_under_its_open_connections_is_written_over_them)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	cluster_do(&c, "stop 3");
	int pid = atoi(fetch(h, DBHA_READ, "SELECT pg_backend_pid()"));
	ck_assert_str_eq(fetch(h, DBHA_READ, "SHOW port"), cluster_ask(&c, 2, "SHOW port"));
	cluster_do(&c, "kill 1");
	promote(&c, 2);
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
	fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (1)");
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SHOW default_transaction_read_only"), "off");
	/* Reads have nowhere else to go now, and still find their way. */
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT count(*) FROM rows"), "1");
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	lease_fetch(lease, "INSERT INTO rows (id) VALUES (2)");
	dbha_release(lease);
}
END_TEST

/* Nothing has failed and no probe is due for a minute: only the reply to a read tells. */
START_TEST(the_next_reply_of_a_promoted_standby_fences_the_old_primary)
{
	dbha *h = open_all(&c, "probe_interval=1min");
	fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (1)");
	fetch(h, DBHA_READ, "SELECT 1");
	promote(&c, 2);
	ck_assert_int_eq(cluster_status(h).primary, 0); /* an idle connection hears nothing */
	for (int64_t end = now_ms() + PATIENCE_MS; cluster_status(h).primary != 1 && now_ms() < end; short_pause())
		fetch(h, DBHA_READ, "SELECT 1");
	ck_assert_int_eq(cluster_status(h).primary, 1);
	ck_assert_int_eq(node_status(h, 0).state, DBHA_STATE_FENCED);
	fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (2)");
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 2"), 1);
}
END_TEST

START_TEST(an_error_of_an_older_generation_does_not_blacken_its_node)
{
	dbha *h = open_all(&c, NULL);
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	cluster_do(&c, "restart 1");
	WAIT_FOR(node_status(h, 0).generation > 1 && node_status(h, 0).state == DBHA_STATE_UP, PATIENCE_MS);
	fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (1)");
	WAIT_FOR(!event_within(h, DBHA_EVENT_PRIMARY, 0, NULL), 1000); /* what is in the queue is about the restart */
	uint64_t generation = node_status(h, 0).generation;
	PGresult *result = PQexec(dbha_conn_pq(lease), "SELECT 1");
	ck_assert_int_eq(PQresultStatus(result), PGRES_FATAL_ERROR);
	PQclear(result);
	dbha_release(lease);
	for (int i = 0; i < 20; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (2)");
	ck_assert_int_eq(node_status(h, 0).state, DBHA_STATE_UP);
	ck_assert_uint_eq(node_status(h, 0).generation, generation);
	ck_assert(!event_within(h, DBHA_EVENT_NO_PRIMARY, 0, NULL));
	cluster_as_before(&c, h);
}
END_TEST

/* ---- standbys ------------------------------------------------------------------------------------------------------ */

START_TEST(standbys_that_die_or_come_back_cost_no_error)
{
	dbha *h = open_all(&c, NULL);
	struct load *load = load_start(h, false);
	load_expect_writes(load, 100);
	cluster_do(&c, "kill 2");
	load_expect_writes(load, 100);
	cluster_do(&c, "stop 3 immediate");
	load_expect_writes(load, 100);
	load_expect_reads(load, 51); /* the primary serves them now */
	cluster_do(&c, "start 2");
	cluster_do(&c, "start 3");
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	load_stop(load);
	load_expect_no_errors(load, 0);
	ck_assert_int_eq(load_missing(load, &c, 1), 0);
	load_free(load);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_read_in_flight_on_a_standby_that_dies_is_run_elsewhere)
{
	dbha *h = open_all(&c, NULL);
	static struct statement b;
	cluster_do(&c, "stop 3");
	statement_start(&b, h, DBHA_READ, 10000, "SELECT 'in flight' FROM pg_sleep(1)");
	expect_running(&c, 2, "SELECT ''in flight''%%");
	cluster_do(&c, "kill 2");
	statement_join(&b);
	ASSERT_OK(b.code, b.err);
	cluster_do(&c, "start 3");
	cluster_do(&c, "start 2");
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_read_in_flight_on_a_standby_that_freezes_is_run_elsewhere)
{
	dbha *h = open_all(&c, QUICK_PROBES);
	static struct statement b;
	cluster_do(&c, "stop 3");
	statement_start(&b, h, DBHA_READ, 10000, "SELECT 'in flight' FROM pg_sleep(1)");
	int64_t began = now_us();
	expect_running(&c, 2, "SELECT ''in flight''%%");
	cluster_do(&c, "pause 2");
	statement_join(&b);
	cluster_do(&c, "resume 2");
	ASSERT_OK(b.code, b.err);
	ck_assert_int_lt((b.ended_us - began) / 1000, 5000);
	cluster_do(&c, "start 3");
	cluster_as_before(&c, h);
}
END_TEST

/* ---- an address that moves ---------------------------------------------------------------------------------------- */

static struct relay
    relay; /* a virtual address: new connections lead elsewhere, those that are open stay where they are */

static void no_relay(void)
{
	relay_stop(&relay);
}

/* The old primary lives on, and the kept connections still lead to it. What a new one says of the timeline must count. */
START_TEST(an_address_that_moves_to_the_new_primary_takes_the_writes_with_it)
{
	char url[256];
	relay_start(&relay, cluster_port(&c, 1));
	snprintf(url, sizeof url, "postgresql://app:%s@127.0.0.1:%d/app?pool_max_size=20", cluster_password(&c),
	         relay.port);
	dbha *h = open_handle(url);
	fetch(h, DBHA_WRITE, "SELECT 1");
	cluster_do(&c, "promote 2");
	WAIT_FOR(*cluster_ask(&c, 2, "SELECT pg_is_in_recovery()") == 'f', PATIENCE_MS);
	atomic_store(&relay.server_port, cluster_port(&c, 2));
	dbha_conn *leases[8] = {NULL};
	for (int i = 0; i < 8 && cluster_status(h).timeline < 2; i++)
		leases[i] = dbha_acquire(h, DBHA_WRITE, 5000, NULL);
	WAIT_FOR(cluster_status(h).timeline == 2, PATIENCE_MS);
	for (int i = 0; i < 10; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (777) RETURNING id");
	for (int i = 0; i < 8; i++)
		dbha_release(leases[i]);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 777"), 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 777"), 10);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("failover");
	ADD_TEST(suite, a_restart_of_the_primary_costs_no_error_and_starts_a_new_generation, servers, NULL, 60);
	ADD_TEST(suite, backends_that_were_terminated_while_idle_cost_no_error, servers, NULL, 60);
	ADD_TEST(suite, an_error_of_an_older_generation_does_not_blacken_its_node, servers, NULL, 60);
	ADD_TEST(suite, standbys_that_die_or_come_back_cost_no_error, servers, NULL, 60);
	ADD_TEST(suite, a_read_in_flight_on_a_standby_that_dies_is_run_elsewhere, servers, NULL, 60);
	ADD_TEST(suite, without_a_primary_a_write_ends_with_its_deadline_and_reads_go_on, servers, NULL, 60);
	ADD_TEST(suite, a_read_in_flight_on_a_standby_that_freezes_is_run_elsewhere, servers, NULL, 60);
	ADD_TEST(suite, after_a_kill_and_a_promotion_the_old_primary_is_never_written_again, servers, NULL, 90);
	ADD_TEST(suite, an_orderly_stop_and_a_promotion_lose_nothing_and_cost_no_error, servers, NULL, 60);
	ADD_TEST(suite, a_statement_in_flight_when_its_primary_dies_is_unknown_and_not_repeated, servers, NULL, 60);
	ADD_TEST(suite, a_write_waits_for_the_new_primary_and_is_woken, servers, NULL, 60);
	ADD_TEST(suite, a_frozen_primary_is_fenced_at_the_promotion_and_its_leases_are_cut, servers, NULL, 60);
	ADD_TEST(suite, the_next_reply_of_a_promoted_standby_fences_the_old_primary, servers, NULL, 60);
	ADD_TEST(suite, a_standby_promoted_under_its_open_connections_is_written_over_them, servers, NULL, 60);
	ADD_TEST(suite, an_address_that_moves_to_the_new_primary_takes_the_writes_with_it, servers, no_relay, 60);
	return run_suite(suite, &c);
}
