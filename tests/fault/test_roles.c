/*
 * test_roles: servers whose roles are not what they were: promoted under open connections, switched over, standbys of standbys,
 * second primaries, backups and strangers at an address that was somebody else's, nodes that flap, primaries that are told
 * to be read-only. Split brain on one timeline is in tests/cluster/test_nodes.c.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "net.h"
#include "work.h"

#define SECOND_PRIMARIES 10

static struct cluster c, other;

static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id bigint");
}

/* ---- promotions ------------------------------------------------------------------------------------------------------ */

/* The library has not looked since: the session itself refuses. */
START_TEST(a_write_over_a_read_connection_is_refused_though_its_node_was_promoted)
{
	dbha *h = open_all(&c, "probe_interval=1h");
	dbha_conn *lease = NULL;
	while (!lease) { /* one to node 2 */
		lease = dbha_acquire(h, DBHA_READ, 0, NULL);
		if (strcmp(dbha_conn_node(lease), node_status(h, 1).name) != 0) {
			dbha_release(lease);
			lease = NULL;
		}
	}
	lease_fetch(lease, "SELECT 1");
	promote(&c, 2);
	PGresult *result = PQexec(dbha_conn_pq(lease), "INSERT INTO rows VALUES (1)");
	ck_assert_int_eq(PQresultStatus(result), PGRES_FATAL_ERROR);
	ck_assert_str_eq(PQresultErrorField(result, PG_DIAG_SQLSTATE), "25006");
	PQclear(result);
	ck_assert_str_eq(lease_fetch(lease, "SELECT pg_is_in_recovery()"), "f");
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 0);
	dbha_release(lease);

	/* By dbha_exec it is run as the write that it is, once, on the primary that is found by looking again. */
	cluster_do(&c, "kill 1");
	dbha_error err;
	ASSERT_OK(run(h, DBHA_READ, 10000, "INSERT INTO rows VALUES (2)", &err), err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 2"), 1);
}
END_TEST

START_TEST(a_planned_switchover_there_and_back_loses_nothing_and_costs_no_error)
{
	dbha *h = open_all(&c, NULL);
	struct load *load = load_start(h, true);
	int primary = 1;
	for (int i = 0; i < 2; i++) {
		int next = 3 - primary;
		load_expect_writes(load, 50);
		cluster_do(&c, "stop %d fast", primary); /* waits until its standbys have everything */
		promote(&c, next);
		cluster_do(&c, "follow 3 %d", next);
		load_expect_writes(load, 50);
		cluster_do(&c, "rejoin %d %d", primary, next);
		WAIT_FOR(node_status(h, primary - 1).state == DBHA_STATE_UP &&
		             node_status(h, primary - 1).role == DBHA_ROLE_STANDBY,
		         PATIENCE_MS);
		load_expect_reads(load, 50);
		cluster_catch_up(&c, primary, next);
		primary = next;
	}
	load_stop(load);
	load_expect_no_errors(load, 2); /* at most the one under way at each stop */
	ck_assert_int_eq(load_missing(load, &c, 1), 0);
	ck_assert_int_eq(load_duplicates(&c, 1), 0);
	load_free(load);
	ck_assert_uint_eq(cluster_status(h).timeline, 3);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_standby_of_a_standby_serves_reads_and_goes_along_with_a_promotion)
{
	cluster_do(&c, "cascade 3 2");
	dbha *h = open_all(&c, NULL);
	dbha_node_status last = node_status(h, 2);
	ck_assert_int_eq(last.role, DBHA_ROLE_STANDBY);
	struct load *load = load_start(h, true);
	load_expect_writes(load, 50);
	cluster_do(&c, "kill 1");
	promote(&c, 2); /* nobody re-points node 3: it streams on from the same server */
	load_expect_writes(load, 50);
	/* A standby tells the timeline it follows as soon as it has written that down itself. */
	cluster_ask(&c, 2, "CHECKPOINT");
	cluster_catch_up(&c, 3, 2);
	cluster_ask(&c, 3, "CHECKPOINT");
	WAIT_FOR(node_status(h, 2).timeline == cluster_status(h).timeline, PATIENCE_MS);
	WAIT_FOR(node_status(h, 2).lag_ms >= 0 && node_status(h, 2).lag_ms < 3000, PATIENCE_MS);
	load_stop(load);
	load_expect_no_errors(load, 1);
	load_free(load);
	ck_assert_int_eq(cluster_status(h).primary, 1);
	cluster_catch_up(&c, 3, 2);
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	handles_close();
	back_to_node_1(&c, 2);
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* ---- second primaries ------------------------------------------------------------------------------------------------ */

/* Both live, both are reached: the writer writes on, as fast as it can. Rows carry the number of the run. */
static void second_primary(int run_number, int lower, int higher)
{
	char path[300], options[400];
	snprintf(path, sizeof path, "%s/second%d.log", c.dir, run_number);
	snprintf(options, sizeof options, "log_file=%s&log_level=warning", path);
	dbha *h = open_all(&c, options);
	struct load *load = load_start(h, false);
	load_expect_writes(load, 50);
	promote(&c, higher);
	WAIT_FOR(cluster_status(h).primary == higher - 1, PATIENCE_MS);
	/* From here on the higher timeline has been seen. What was sent before may still arrive; not one more is acknowledged. */
	long seen = atomic_load(&load->next_id) + 1;
	load_expect_writes(load, 50);
	WAIT_FOR(node_status(h, lower - 1).state == DBHA_STATE_FENCED && node_status(h, lower - 1).seen_ms_ago < 1000,
	         PATIENCE_MS);
	load_expect_writes(load, 50);
	load_expect_reads(load, 10);
	load_stop(load);
	load_expect_no_errors(load, 1);
	ck_assert_int_eq(cluster_count(&c, lower, "SELECT count(*) FROM rows WHERE id >= %ld", seen), 0);
	ck_assert_int_ge(cluster_count(&c, higher, "SELECT count(*) FROM rows WHERE id >= %ld", seen), 90);
	load_free(load);
	ASSERT_HAS(node_status(h, lower - 1).why, "never written to");
	close_handle(h, 0);
	ck_assert_int_eq(count_in_file(path, "fenced (timeline"), 1); /* said once */
	cluster_ask(&c, higher, "TRUNCATE rows");
	cluster_do(&c, "rejoin %d %d", lower, higher);
	cluster_do(&c, "rejoin 3 %d", higher);
}

START_TEST(of_two_primaries_the_higher_timeline_gets_every_write)
{
	for (int i = 0; i < SECOND_PRIMARIES; i++)
		second_primary(i, i % 2 ? 2 : 1, i % 2 ? 1 : 2);
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* A copy of the data directory from before the promotion, started where a standby was: same cluster, older timeline. */
START_TEST(a_restored_backup_of_the_same_cluster_is_shut_out)
{
	char shell[512], url[600];
	cluster_do(&c, "stop 3");
	snprintf(shell, sizeof shell, "cd %s && cp -a node3 backup3 && rm -f backup3/standby.signal", c.dir);
	ck_assert_int_eq(system(shell), 0);
	cluster_do(&c, "start 3");
	dbha *h = open_all(&c, NULL);
	cluster_do(&c, "stop 1 fast");
	promote(&c, 2);
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	cluster_do(&c, "stop 3");
	snprintf(shell, sizeof shell, "cd %s && rm -rf node3 && mv backup3 node3 && rm -f node3.upstream.conf", c.dir);
	ck_assert_int_eq(system(shell), 0);
	cluster_do(&c, "start 3");
	ck_assert_str_eq(cluster_ask(&c, 3, "SELECT pg_is_in_recovery()"), "f");
	WAIT_FOR(node_status(h, 2).state == DBHA_STATE_FENCED, PATIENCE_MS);
	/* Also for one that finds it first in its list. */
	snprintf(url, sizeof url, "%s", cluster_url(&c, "3 2 1", NULL));
	dbha *late = open_handle(url);
	for (int i = 0; i < 50; i++) {
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (2)");
		fetch(late, DBHA_WRITE, "INSERT INTO rows VALUES (2)");
		ck_assert_str_eq(fetch(late, DBHA_READ, "SELECT count(*) > 0 FROM rows"), "t"); /* the backup has none */
	}
	ck_assert_int_eq(cluster_count(&c, 3, "SELECT count(*) FROM rows"), 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 2"), 100);
	ck_assert_int_eq(node_status(late, 0).state, DBHA_STATE_FENCED);
	handles_close();
	back_to_node_1(&c, 2);
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

static void servers_and_others(void)
{
	servers();
	cluster_create(&other, "1");
}

static void no_others(void)
{
	cluster_destroy(&other);
}

/* Somebody starts another cluster's server where a standby was, while we are looking. */
START_TEST(a_foreign_server_at_an_address_that_was_ours_is_never_used)
{
	char url[512], sql[128];
	snprintf(sql, sizeof sql, "ALTER ROLE app PASSWORD '%s'", cluster_password(&c));
	cluster_ask(&other, 1, "%s", sql); /* so that it is not the password that tells them apart */
	cluster_ask(&other, 1, "CREATE TABLE rows (id bigint)");
	cluster_ask(&other, 1, "GRANT ALL ON rows TO app");
	cluster_do(&c, "stop 3");
	net_lead("127.0.0.13", 7000, cluster_port(&c, 2));
	snprintf(url, sizeof url, "postgresql://app:%s@127.0.0.1:%d,127.0.0.13:7000/app", cluster_password(&c),
	         cluster_port(&c, 1));
	dbha *h = open_handle(url);
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	net_lead("127.0.0.13", 7000, cluster_port(&other, 1));
	cluster_do(&c, "kill 2");
	for (int i = 0; i < 50; i++) {
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (3)");
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT count(*) > 0 FROM rows"), "t");
	}
	WAIT_FOR(node_status(h, 1).state == DBHA_STATE_FOREIGN, PATIENCE_MS);
	ASSERT_HAS(node_status(h, 1).why, "system identifier");
	ck_assert(event_within(h, DBHA_EVENT_FOREIGN, 0, NULL));
	/* Nor when it is all that is left. */
	cluster_do(&c, "stop 1");
	ASSERT_CODE(run(h, DBHA_READ, 500, "SELECT 1", &err), NO_NODE, err);
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows VALUES (4)", &err), NO_NODE, err);
	ck_assert_int_eq(cluster_count(&other, 1, "SELECT count(*) FROM rows"), 0);
	cluster_do(&c, "start 1");
	cluster_do(&c, "start 2");
	cluster_do(&c, "start 3");
	handles_close();
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

/* ---- unrest ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_standby_that_flaps_costs_no_read)
{
	dbha *h = open_all(&c, NULL);
	struct load *load = load_start(h, true);
	long before = net_syns(cluster_port(&c, 2));
	int64_t began = now_ms();
	for (int i = 0; i < 5; i++) {
		load_expect_reads(load, 20);
		cluster_do(&c, "kill 2");
		load_expect_reads(load, 20);
		cluster_do(&c, "start 2");
		WAIT_FOR(node_status(h, 1).state == DBHA_STATE_UP, PATIENCE_MS);
	}
	load_stop(load);
	load_expect_no_errors(load, 0);
	printf("# a standby that flapped 5 times in %lld ms: %ld reads, %ld writes, 0 errors, %ld SYN packets to it\n",
	       (long long)(now_ms() - began), atomic_load(&load->reads), atomic_load(&load->writes),
	       net_syns(cluster_port(&c, 2)) - before);
	load_free(load);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_primary_that_flaps_costs_no_read_and_repeats_no_write)
{
	dbha *h = open_all(&c, NULL);
	struct load *load = load_start(h, true);
	for (int i = 0; i < 4; i++) {
		load_expect_writes(load, 20);
		load_expect_reads(load, 20);
		cluster_do(&c, "kill 1");
		load_expect_reads(load, 20);
		cluster_do(&c, "start 1");
	}
	load_expect_writes(load, 20);
	load_stop(load);
	load_expect_no_errors(load, 4); /* at most the one under way at each kill */
	ck_assert_int_eq(load_duplicates(&c, 1), 0);
	ck_assert_int_eq(load_missing(load, &c, 1), 0); /* fsync is off, but the machine has not lost power */
	load_free(load);
	cluster_as_before(&c, h);
}
END_TEST

static void read_only_sessions(const char *value)
{
	cluster_ask(&c, 1, "ALTER SYSTEM SET default_transaction_read_only = %s", value);
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	WAIT_FOR(strcmp(cluster_ask(&c, 1, "SHOW default_transaction_read_only"), value) == 0, PATIENCE_MS);
}

/* As some managed services do for a while around a switchover, or when a disk fills. */
START_TEST(a_write_waits_while_its_primary_is_told_to_be_read_only_and_is_done_once)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	static struct statement waiting;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	read_only_sessions("on");
	int64_t began = now_ms();
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows VALUES (2)", &err), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "25006");
	ck_assert(!err.outcome_unknown);
	ck_assert_int_le(now_ms() - began, 500 + SLACK_MS);
	ck_assert_int_eq(cluster_status(h).primary, 0);
	fetch(h, DBHA_READ, "SELECT 1");
	statement_start(&waiting, h, DBHA_WRITE, 15000, "INSERT INTO rows VALUES (3)");
	WAIT_FOR(counters(h, 0).statement_errors >= 2, PATIENCE_MS);
	ck_assert(!atomic_load(&waiting.done));
	read_only_sessions("off");
	int64_t off = now_us();
	statement_join(&waiting);
	ASSERT_OK(waiting.code, waiting.err);
	printf("# a write to a primary with read-only sessions: done %.0f ms after they were no longer\n",
	       (double)(waiting.ended_us - off) / 1000);
	ck_assert_int_lt((waiting.ended_us - off) / 1000, 1500);
	ck_assert(!event_within(h, DBHA_EVENT_NO_PRIMARY, 0, NULL));
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 2"), 0);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 3"), 1);
	cluster_as_before(&c, h);
}
END_TEST

/* Where that is how it is meant, nobody has to wait for the refusal. */
START_TEST(a_write_to_a_primary_that_was_never_seen_writable_is_refused_at_once)
{
	dbha_error err;
	read_only_sessions("on");
	dbha *h = open_all(&c, NULL);
	int64_t began = now_ms();
	ASSERT_CODE(run(h, DBHA_WRITE, 10000, "INSERT INTO rows VALUES (1)", &err), SERVER, err);
	ck_assert_int_lt(now_ms() - began, 1000);
	read_only_sessions("off");
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	cluster_as_before(&c, h);
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("roles");
	ADD_TEST(suite, a_standby_that_flaps_costs_no_read, servers, NULL, 60);
	ADD_TEST(suite, a_primary_that_flaps_costs_no_read_and_repeats_no_write, servers, NULL, 60);
	ADD_TEST(suite, a_write_waits_while_its_primary_is_told_to_be_read_only_and_is_done_once, servers, NULL, 60);
	ADD_TEST(suite, a_write_to_a_primary_that_was_never_seen_writable_is_refused_at_once, servers, NULL, 60);
	ADD_TEST(suite, a_foreign_server_at_an_address_that_was_ours_is_never_used, servers_and_others, no_others, 60);
	ADD_TEST(suite, a_planned_switchover_there_and_back_loses_nothing_and_costs_no_error, servers, NULL, 60);
	ADD_TEST(suite, a_standby_of_a_standby_serves_reads_and_goes_along_with_a_promotion, servers, NULL, 60);
	ADD_TEST(suite, a_restored_backup_of_the_same_cluster_is_shut_out, servers, NULL, 60);
	ADD_TEST(suite, of_two_primaries_the_higher_timeline_gets_every_write, servers, NULL, 120);
	ADD_TEST(suite, a_write_over_a_read_connection_is_refused_though_its_node_was_promoted, servers, NULL, 60);
	return run_suite(suite, &c);
}
