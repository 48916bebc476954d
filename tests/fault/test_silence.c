/*
 * test_silence: nodes that stop answering without closing their sockets, their packets dropped or their processes stopped.
 * How soon that is known, that nothing which may still end well is killed for it, and that a promotion ends what cannot.
 */
#include <stdio.h>

#include "cluster.h"
#include "net.h"
#include "work.h"

/* From the last packet to the state: probe_interval + probe_timeout x probe_failures at most. */
#define AGGRESSIVE          "probe_profile=aggressive"
#define AGGRESSIVE_LIMIT_MS 1000
#define DEFAULT_LIMIT_MS    3000

static struct cluster c;

static void servers(void)
{
	cluster_with_rows(&c, "3", "id bigint");
}

/* ---- how soon it is known ---------------------------------------------------------------------------------------- */

/* Two handles look at one node that falls silent. Nobody uses it: their own probes must find out. */
static void measure_silence(int node, bool by_packets, struct figures *ordinary, struct figures *aggressive)
{
	dbha *slow = open_all(&c, NULL);
	dbha *fast = open_all(&c, AGGRESSIVE);
	dbha_event event;
	if (!by_packets)
		cluster_do(&c, "pause %d", node);
	else
		black_hole(cluster_port(&c, node));
	int64_t began = now_us();
	WAIT_FOR(node_status(fast, node - 1).state == DBHA_STATE_SILENT, PATIENCE_MS);
	figures_add(aggressive, now_us() - began);
	WAIT_FOR(node_status(slow, node - 1).state == DBHA_STATE_SILENT, PATIENCE_MS);
	figures_add(ordinary, now_us() - began);
	ASSERT_HAS(node_status(fast, node - 1).why, "no answer");
	ck_assert(event_within(fast, DBHA_EVENT_NODE, 0, &event));

	if (!by_packets)
		cluster_do(&c, "resume %d", node);
	else
		heal(cluster_port(&c, node));
	dbha_error err;
	ASSERT_OK(dbha_wait(slow, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ASSERT_OK(dbha_wait(fast, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_str_eq(node_status(slow, node - 1).why, "");
	handles_close();
}

START_TEST(a_node_whose_packets_vanish_is_known_silent_in_time)
{
	static struct figures ordinary = {.name = "packets dropped, silent after (defaults)"};
	static struct figures aggressive = {.name = "packets dropped, silent after (aggressive)"};
	for (int i = 0; i < 3; i++)
		measure_silence(i < 2 ? 3 : 1, true, &ordinary, &aggressive);
	figures_print(&ordinary);
	figures_print(&aggressive);
	ck_assert_int_le(figures_worst_us(&ordinary) / 1000, DEFAULT_LIMIT_MS);
	ck_assert_int_le(figures_worst_us(&aggressive) / 1000, AGGRESSIVE_LIMIT_MS);
}
END_TEST

START_TEST(a_node_whose_processes_are_stopped_is_known_silent_in_time)
{
	static struct figures ordinary = {.name = "processes stopped, silent after (defaults)"};
	static struct figures aggressive = {.name = "processes stopped, silent after (aggressive)"};
	measure_silence(2, false, &ordinary, &aggressive);
	measure_silence(1, false, &ordinary, &aggressive);
	figures_print(&ordinary);
	figures_print(&aggressive);
	ck_assert_int_le(figures_worst_us(&ordinary) / 1000, DEFAULT_LIMIT_MS);
	ck_assert_int_le(figures_worst_us(&aggressive) / 1000, AGGRESSIVE_LIMIT_MS);
}
END_TEST

/* ---- what silence does ------------------------------------------------------------------------------------------- */

START_TEST(silence_alone_kills_no_write_and_no_lease)
{
	dbha *h = open_all(&c, AGGRESSIVE);
	static struct statement write;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, NULL);
	ck_assert(PQsendQuery(dbha_conn_pq(lease), "SELECT 'leased' FROM pg_sleep(1)"));
	PQflush(dbha_conn_pq(lease));
	statement_start(&write, h, DBHA_WRITE, 20000, "INSERT INTO rows SELECT 1 FROM pg_sleep(1)");
	expect_running(&c, 1, "INSERT INTO rows SELECT 1%%");
	black_hole(cluster_port(&c, 1));
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_SILENT, PATIENCE_MS);
	/* It has been done by now, and its answer was lost on the way. */
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 1") == 1, PATIENCE_MS);
	ck_assert(!atomic_load(&write.done));
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	heal(cluster_port(&c, 1));
	statement_join(&write);
	ASSERT_OK(write.code, write.err);
	PGresult *result = PQgetResult(dbha_conn_pq(lease));
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	ck_assert_str_eq(PQgetvalue(result, 0, 0), "leased");
	PQclear(result);
	ck_assert_ptr_null(PQgetResult(dbha_conn_pq(lease)));
	dbha_release(lease);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 1"), 1);
	WAIT_FOR(cluster_status(h).primary == 0, PATIENCE_MS);
	ck_assert_uint_eq(node_status(h, 0).generation, 1);
}
END_TEST

/* A read is no loss: it goes where somebody answers, as soon as the silence is known. */
START_TEST(a_read_leaves_a_silent_standby_and_no_connects_are_thrown_at_it)
{
	dbha *h = open_all(&c, AGGRESSIVE "&call_timeout=20s");
	static struct statement read;
	cluster_do(&c, "stop 3");
	WAIT_FOR(node_status(h, 2).state == DBHA_STATE_DOWN, PATIENCE_MS);
	statement_start(&read, h, DBHA_READ, 20000, "SELECT 'moved' FROM pg_sleep(0.7)");
	expect_running(&c, 2, "SELECT ''moved''%%");
	black_hole(cluster_port(&c, 2));
	int64_t began = now_us();
	long syns = net_syns(cluster_port(&c, 2));
	statement_join(&read);
	ASSERT_OK(read.code, read.err);
	ck_assert_int_lt((read.ended_us - began) / 1000, AGGRESSIVE_LIMIT_MS + 700 + 10 * SLACK_MS);
	int reads = 0;
	for (int64_t end = now_ms() + 1500; now_ms() < end; reads++)
		fetch(h, DBHA_READ, "SELECT 1 FROM pg_sleep(0.01)");
	/* One probe at a time, each given up after its timeout; the pool's connects wait for the probes. */
	long sent = net_syns(cluster_port(&c, 2)) - syns;
	printf("# SYN packets to a silent standby: %ld in %lld ms, with %d reads served elsewhere\n", sent,
	       (long long)(now_us() - began) / 1000, reads);
	ck_assert_int_le(sent, 25);
	heal(cluster_port(&c, 2));
	cluster_do(&c, "start 3");
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
}
END_TEST

/* ---- silence and a promotion ------------------------------------------------------------------------------------- */

/* Sockets that are closed here and still have something to deliver to a port, by the kernel's own table. */
static int undelivered(int port)
{
	char line[256];
	int n = 0;
	FILE *table = fopen("/proc/net/tcp", "r");
	ck_assert(table != NULL);
	while (fgets(line, sizeof line, table)) {
		unsigned remote = 0, state = 0;
		if (sscanf(line, " %*d: %*[0-9A-F]:%*x %*[0-9A-F]:%x %x", &remote, &state) == 2)
			n += (int)remote == port && (state == 4 || state == 11); /* FIN_WAIT1, CLOSING */
	}
	fclose(table);
	return n;
}

START_TEST(silence_and_a_promotion_cut_a_running_write_at_once)
{
	static struct figures noticed = {.name = "silence noticed, then a promotion: running write cut after"};
	static struct figures unnoticed = {.name = "promotion before the silence was noticed: running write cut after"};
	static struct statement write, vanished;
	for (int i = 0; i < 2; i++) {
		dbha *h = open_all(&c, NULL);
		statement_start(&write, h, DBHA_WRITE, 30000, "INSERT INTO rows SELECT 2 FROM pg_sleep(3600)");
		expect_running(&c, 1, "INSERT INTO rows SELECT 2%%");
		fetch(h, DBHA_WRITE, "SELECT 1"); /* leaves an idle connection for the write that will vanish */
		black_hole(cluster_port(&c, 1));
		statement_start(&vanished, h, DBHA_WRITE, 30000, "INSERT INTO rows VALUES (4)");
		if (i == 0)
			WAIT_FOR(node_status(h, 0).state == DBHA_STATE_SILENT, PATIENCE_MS);
		int64_t promoted = promote(&c, 2);
		statement_join(&write);
		statement_join(&vanished);
		figures_add(i == 0 ? &noticed : &unnoticed, write.ended_us - promoted);
		ASSERT_CODE(write.code, UNKNOWN, write.err);
		ck_assert(write.err.outcome_unknown);
		ASSERT_CODE(vanished.code, UNKNOWN, vanished.err);
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (3)");
		ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 2"), 0);
		/* When it is back, it stays shut out. */
		heal(cluster_port(&c, 1));
		WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
		ck_assert_int_eq(cluster_status(h).primary, 1);
		/* And what was on its way to it when it was shut out is not executed now. */
		WAIT_FOR(node_status(h, 0).seen_ms_ago < 1000 && undelivered(cluster_port(&c, 1)) == 0, PATIENCE_MS);
		ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 4"), 0);
		handles_close();
		back_to_node_1(&c, 2);
	}
	figures_print(&noticed);
	figures_print(&unnoticed);
	ck_assert_int_le(figures_worst_us(&noticed) / 1000, 2 * SLACK_MS);
	ck_assert_int_le(figures_worst_us(&unnoticed) / 1000, 1000 + 2 * SLACK_MS); /* one probe interval */
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("silence");
	ADD_TEST(suite, a_node_whose_packets_vanish_is_known_silent_in_time, servers, heal_all, 60);
	ADD_TEST(suite, a_node_whose_processes_are_stopped_is_known_silent_in_time, servers, NULL, 60);
	ADD_TEST(suite, silence_alone_kills_no_write_and_no_lease, servers, heal_all, 60);
	ADD_TEST(suite, a_read_leaves_a_silent_standby_and_no_connects_are_thrown_at_it, servers, heal_all, 60);
	ADD_TEST(suite, silence_and_a_promotion_cut_a_running_write_at_once, servers, heal_all, 90);
	return run_suite(suite, &c);
}
