/*
 * test_lag: how far behind the standbys are, as dbha_status tells it, against what the servers themselves say: at rest, with a paused
 * replay, with a receiver that is cut off, and after another node has become the primary; and who serves reads under max_lag.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"

/*
 * The probes come every 100 ms, and the lag is exact to the time between two samples of the primary. What is called level
 * may be two of them old, and some more on a machine that is busy with other things.
 */
#define EVERY    "probe_interval=100ms"
#define LEVEL_MS 400

static struct cluster c;

static void servers(void)
{
	if (c.keeper)
		return;
	cluster_create(&c, "3");
	cluster_ask(&c, 1, "CREATE TABLE rows (id bigint)");
	cluster_ask(&c, 1, "GRANT ALL ON rows TO app");
	cluster_catch_up(&c, 2, 1);
	cluster_catch_up(&c, 3, 1);
}

/* ---- what happens to a standby ------------------------------------------------------------------------------------- */

static void pause_replay(int node)
{
	cluster_ask(&c, node, "SELECT pg_wal_replay_pause()");
	WAIT_FOR(strcmp(cluster_ask(&c, node, "SELECT pg_get_wal_replay_pause_state()"), "paused") == 0, PATIENCE_MS);
}

static void resume_replay(int node)
{
	cluster_ask(&c, node, "SELECT pg_wal_replay_resume()");
}

/* NULL: what the harness has set. */
static void set_upstream(int node, const char *conninfo)
{
	if (conninfo)
		cluster_ask(&c, node, "ALTER SYSTEM SET primary_conninfo = '%s'", conninfo);
	else
		cluster_ask(&c, node, "ALTER SYSTEM RESET primary_conninfo");
	cluster_ask(&c, node, "SELECT pg_reload_conf()");
}

/* Its receiver ends, and finds nobody at the port from which it shall receive now. */
static void cut_receiver(int node)
{
	set_upstream(node, "host=127.0.0.1 port=1 user=repl");
	WAIT_FOR(cluster_count(&c, node, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == 0,
	         PATIENCE_MS);
}

static void set_apply_delay(int node, int ms)
{
	cluster_ask(&c, node, "ALTER SYSTEM SET recovery_min_apply_delay = %d", ms);
	cluster_ask(&c, node, "SELECT pg_reload_conf()");
}

/* A test that failed in the middle leaves nothing to the next one. */
static void undo(void)
{
	for (int node = 2; node <= 3; node++) {
		resume_replay(node);
		set_upstream(node, NULL);
		set_apply_delay(node, 0);
	}
}

/* ---- a load --------------------------------------------------------------------------------------------------------- */

/* Small transactions, some hundred a second, past the library. */
static struct writer {
	PGconn *pg;
	pthread_t thread;
	atomic_bool stop;
	atomic_long written;
} writer;

static void *write_rows(void *arg)
{
	struct writer *w = arg;
	while (!atomic_load(&w->stop) && !atomic_load(&threads_stop)) {
		PGresult *result = PQexec(w->pg, "INSERT INTO rows SELECT generate_series(1, 10)");
		if (PQresultStatus(result) == PGRES_COMMAND_OK)
			atomic_fetch_add(&w->written, 1);
		PQclear(result);
		short_pause();
	}
	PQfinish(w->pg);
	return NULL;
}

/* Returns when something is written. */
static void start_writing(int node)
{
	writer.pg = cluster_admin(&c, node);
	atomic_store(&writer.stop, false);
	atomic_store(&writer.written, 0);
	writer.thread = start_thread(write_rows, &writer);
	WAIT_FOR(atomic_load(&writer.written) > 0, PATIENCE_MS);
}

static void stop_writing(void)
{
	atomic_store(&writer.stop, true);
	join_thread(writer.thread);
}

/* ---- what is expected ------------------------------------------------------------------------------------------------ */

static long true_lag_bytes(int standby, int primary)
{
	char lsn[32];
	snprintf(lsn, sizeof lsn, "%s", cluster_ask(&c, primary, "SELECT pg_current_wal_lsn()"));
	return cluster_count(&c, standby, "SELECT '%s' - pg_last_wal_replay_lsn()", lsn);
}

static void expect_true_bytes(dbha *h, int standby, int primary)
{
	WAIT_FOR(node_status(h, standby - 1).lag_bytes == true_lag_bytes(standby, primary), PATIENCE_MS);
}

static void expect_level(dbha *h, int standby, int primary)
{
	WAIT_FOR(node_status(h, standby - 1).lag_ms == 0 && node_status(h, standby - 1).lag_bytes == 0, PATIENCE_MS);
	ck_assert_int_eq(true_lag_bytes(standby, primary), 0);
	ck_assert_int_eq(node_status(h, primary - 1).lag_ms, 0);
	ck_assert_int_eq(node_status(h, primary - 1).lag_bytes, 0);
}

/*
 * The lag of a standby that has replayed nothing since some moment between `from` and `to` grows with the clock, at least
 * to `until_ms`, while that of the other one does not. Told too late is less bad than never, so the bounds are wider there.
 */
static void expect_growth(dbha *h, int standby, int other, int64_t from, int64_t to, int until_ms)
{
	int64_t last_ms = -1, last_bytes = -1;
	int steps = 0;
	for (dbha_node_status node; (node = node_status(h, standby - 1)).lag_ms < until_ms; short_pause()) {
		int64_t now = now_ms();
		ck_assert_msg(node.lag_ms >= last_ms && node.lag_bytes >= last_bytes, "%lld ms, %lld B, after %lld ms, %lld B",
		              (long long)node.lag_ms, (long long)node.lag_bytes, (long long)last_ms, (long long)last_bytes);
		ck_assert_msg(node.lag_ms <= now - from + LEVEL_MS, "%lld ms, cut off for %lld ms only", (long long)node.lag_ms,
		              (long long)(now - from));
		ck_assert_msg(node.lag_ms >= now - to - 2 * LEVEL_MS, "%lld ms, cut off for %lld ms", (long long)node.lag_ms,
		              (long long)(now - to));
		ck_assert_int_eq(node.state, DBHA_STATE_UP);
		if (other)
			ck_assert_int_le(node_status(h, other - 1).lag_ms, LEVEL_MS);
		steps += node.lag_ms > last_ms;
		last_ms = node.lag_ms;
		last_bytes = node.lag_bytes;
	}
	ck_assert_int_gt(steps, 5);
	ck_assert_int_gt(last_bytes, 0);
}

/* The ports that serve some reads, as a set of nodes: 1 << node. */
static unsigned who_reads(dbha *h, int times)
{
	unsigned nodes = 0;
	for (int i = 0; i < times; i++) {
		int port = atoi(fetch(h, DBHA_READ, "SELECT inet_server_port()"));
		for (int node = 1; node <= c.nodes; node++)
			nodes |= port == cluster_port(&c, node) ? 1u << node : 0;
	}
	return nodes;
}

#define NODE(n) (1u << (n))

/* ---- the lag ----------------------------------------------------------------------------------------------------------- */

/*
 * Where nothing is written, the age of the last transaction grows on a standby that misses nothing. The server's own
 * records of what is running, every 15 s at most, may show for a moment.
 */
START_TEST(at_rest_nobody_lags)
{
	dbha *h = open_all(&c, EVERY);
	cluster_ask(&c, 1, "INSERT INTO rows VALUES (1)");
	for (int node = 2; node <= 3; node++) {
		cluster_catch_up(&c, node, 1);
		expect_level(h, node, 1);
	}
	static const char age[] = "SELECT 1000 * EXTRACT(epoch FROM now() - pg_last_xact_replay_timestamp())";
	while (cluster_count(&c, 2, age) < 2000)
		for (int node = 1; node <= 3; node++)
			ck_assert_int_le(node_status(h, node - 1).lag_ms, LEVEL_MS / 2);
	for (int node = 2; node <= 3; node++)
		expect_level(h, node, 1);
}
END_TEST

START_TEST(a_standby_whose_replay_is_paused_lags_more_and_more)
{
	dbha *h = open_all(&c, EVERY);
	expect_level(h, 3, 1);
	int64_t from = now_ms();
	pause_replay(3);
	start_writing(1);
	int64_t to = now_ms();
	expect_growth(h, 3, 2, from, to, 2000);
	stop_writing();
	expect_true_bytes(h, 3, 1);
	/* It has missed something, and misses it longer with every moment in which nothing is written: at each look. */
	expect_growth(h, 3, 2, from, to, 4000);
	expect_true_bytes(h, 3, 1);
	resume_replay(3);
	expect_level(h, 3, 1);
}
END_TEST

/* What it says of itself is that it has replayed all it has: only the primary's position tells more. */
START_TEST(a_standby_whose_receiver_is_cut_lags_more_and_more)
{
	dbha *h = open_all(&c, EVERY);
	expect_level(h, 3, 1);
	int64_t from = now_ms();
	cut_receiver(3);
	start_writing(1);
	expect_growth(h, 3, 2, from, now_ms(), 2000);
	ck_assert_str_eq(cluster_ask(&c, 3, "SELECT pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn()"), "t");
	stop_writing();
	expect_true_bytes(h, 3, 1);
	set_upstream(3, NULL);
	expect_level(h, 3, 1);
}
END_TEST

/* ---- max_lag ------------------------------------------------------------------------------------------------------------ */

START_TEST(a_standby_that_lags_too_much_serves_no_reads_until_it_has_caught_up)
{
	dbha *h = open_all(&c, EVERY "&max_lag=500ms");
	dbha *any = open_all(&c, EVERY);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	pause_replay(3);
	start_writing(1);
	WAIT_FOR(node_status(h, 2).lag_ms > 500, PATIENCE_MS);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(who_reads(h, 20), NODE(2));
	/* It is up and well, and who sets no limit reads from it. */
	ck_assert_int_eq(node_status(h, 2).state, DBHA_STATE_UP);
	WAIT_FOR(who_reads(any, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);

	/* Both: the primary is left, which lags behind nobody. */
	pause_replay(2);
	WAIT_FOR(node_status(h, 1).lag_ms > 500, PATIENCE_MS);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(who_reads(h, 20), NODE(1));
	resume_replay(2);
	WAIT_FOR(who_reads(h, 20) == NODE(2), PATIENCE_MS);
	resume_replay(3);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	stop_writing();
}
END_TEST

/* The same in bytes, of what only one of them has not replayed, on a primary at rest: by time that lag would only grow. */
START_TEST(a_limit_in_bytes_is_one_of_wal)
{
	dbha *h = open_all(&c, EVERY "&max_lag=1MB");
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	pause_replay(3);
	cluster_ask(&c, 1, "SELECT pg_logical_emit_message(false, 'lag', repeat('x', 600000))");
	WAIT_FOR(node_status(h, 2).lag_bytes > 500000, PATIENCE_MS);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	cluster_ask(&c, 1, "SELECT pg_logical_emit_message(false, 'lag', repeat('x', 600000))");
	WAIT_FOR(node_status(h, 2).lag_bytes > 1 << 20, PATIENCE_MS);
	for (int i = 0; i < 10; i++)
		ck_assert_uint_eq(who_reads(h, 20), NODE(2));
	resume_replay(3);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
}
END_TEST

/*
 * A handle that comes now has seen the primary for a moment only, and cannot tell two seconds from a week. That it knows of no
 * more lag than it is old itself must not let the standby serve reads.
 */
START_TEST(a_handle_that_comes_late_does_not_read_from_a_standby_that_lags_too_much)
{
	pause_replay(3);
	start_writing(1);
	static const char age[] = "SELECT 1000 * EXTRACT(epoch FROM now() - pg_last_xact_replay_timestamp())";
	WAIT_FOR(cluster_count(&c, 3, age) > 2500, PATIENCE_MS);
	dbha *h = open_all(&c, EVERY "&max_lag=2s");
	for (int64_t end = now_ms() + 3000; now_ms() < end;)
		ck_assert_uint_eq(who_reads(h, 20) & NODE(3), 0);
	ck_assert_int_gt(node_status(h, 2).lag_ms, 2000);
	resume_replay(3);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	stop_writing();
}
END_TEST

/*
 * A standby that replays 3.4 s late, between three quarters of the limit and the limit: it serves reads if it was never
 * beyond the limit, and no more once it was.
 */
START_TEST(who_lagged_too_much_has_to_come_down_to_three_quarters)
{
	dbha *h = open_all(&c, EVERY "&max_lag=4s");
	dbha_node_status node;
	set_apply_delay(3, 3400);
	start_writing(1);
	WAIT_FOR(node_status(h, 2).lag_ms > 3200, PATIENCE_MS);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	node = node_status(h, 2);
	ck_assert_msg(node.lag_ms > 3000 && node.lag_ms <= 4000, "%lld ms", (long long)node.lag_ms);
	pause_replay(3);
	WAIT_FOR(node_status(h, 2).lag_ms > 4000, PATIENCE_MS);
	resume_replay(3);
	WAIT_FOR(node_status(h, 2).lag_ms <= 3900, PATIENCE_MS);
	for (int64_t end = now_ms() + 1000; now_ms() < end;) {
		ck_assert_uint_eq(who_reads(h, 100), NODE(2));
		node = node_status(h, 2);
		ck_assert_msg(node.lag_ms > 3000 && node.lag_ms <= 4000, "%lld ms", (long long)node.lag_ms);
	}
	set_apply_delay(3, 0);
	WAIT_FOR(who_reads(h, 20) == (NODE(2) | NODE(3)), PATIENCE_MS);
	ck_assert_int_le(node_status(h, 2).lag_ms, 3000);
	stop_writing();
}
END_TEST

/* ---- another primary: the last test, the old one is gone ---------------------------------------------------------------- */

/*
 * The old primary has written much that the new one never got: measured against those samples the new primary's own
 * position would be behind, and a level standby would seem to lag for as long as it takes to write as much again.
 */
START_TEST(after_a_timeline_switch_the_lag_is_that_behind_the_new_primary)
{
	dbha *h = open_all(&c, EVERY);
	for (int node = 2; node <= 3; node++)
		expect_level(h, node, 1);
	cut_receiver(3);
	cut_receiver(2);
	start_writing(1);
	cluster_ask(&c, 1, "INSERT INTO rows SELECT generate_series(1, 100000)");
	for (int node = 2; node <= 3; node++)
		WAIT_FOR(node_status(h, node - 1).lag_ms > 1000 && node_status(h, node - 1).lag_bytes > 5000000, PATIENCE_MS);
	stop_writing();
	cluster_do(&c, "kill 1");
	WAIT_FOR(cluster_status(h).primary == -1, PATIENCE_MS);
	cluster_do(&c, "promote 2");
	WAIT_FOR(cluster_status(h).primary == 1, PATIENCE_MS);
	for (int node = 2; node <= 3; node++)
		set_upstream(node, NULL); /* the new primary's own goes with its base backups */
	cluster_do(&c, "follow 3 2");
	expect_level(h, 3, 2);
	ck_assert_int_eq(node_status(h, 0).lag_ms, -1);

	int64_t from = now_ms();
	pause_replay(3);
	start_writing(2);
	expect_growth(h, 3, 0, from, now_ms(), 1000);
	stop_writing();
	expect_true_bytes(h, 3, 2);
	resume_replay(3);
	expect_level(h, 3, 2);
	cluster_do(&c, "rejoin 1 2");
	WAIT_FOR(node_status(h, 0).role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	expect_level(h, 1, 2);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("lag");
	ADD_TEST(suite, at_rest_nobody_lags, servers, NULL, 60);
	ADD_TEST(suite, a_standby_whose_replay_is_paused_lags_more_and_more, servers, undo, 60);
	ADD_TEST(suite, a_standby_whose_receiver_is_cut_lags_more_and_more, servers, undo, 60);
	ADD_TEST(suite, a_standby_that_lags_too_much_serves_no_reads_until_it_has_caught_up, servers, undo, 60);
	ADD_TEST(suite, a_limit_in_bytes_is_one_of_wal, servers, undo, 60);
	ADD_TEST(suite, a_handle_that_comes_late_does_not_read_from_a_standby_that_lags_too_much, servers, undo, 60);
	ADD_TEST(suite, who_lagged_too_much_has_to_come_down_to_three_quarters, servers, undo, 60);
	ADD_TEST(suite, after_a_timeline_switch_the_lag_is_that_behind_the_new_primary, servers, NULL, 90);
	return run_suite(suite, &c);
}
