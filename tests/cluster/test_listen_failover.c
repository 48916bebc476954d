/*
 * test_listen_failover: a numbered stream of notifications through everything that can happen to a primary. The numbers that are heard may
 * jump only where a gap was told, and what was sent after it was told must come. How long until it is told is measured from the moment
 * at which the promoted node accepts writes.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "cluster.h"
#include "hear.h"
#include "work.h"

static struct cluster c;

static void three_servers(void)
{
	cluster_intact_with_rows(&c, "3", "id int");
}

static void one_server(void)
{
	cluster_destroy(&c);
	cluster_with_rows(&c, "1", "id int");
}

static void stop_listening(void)
{
	listeners_close();
}

/* A stream whose listener and sender have a handle each, as two processes would. */
static struct stream *begin_stream(const char *options)
{
	dbha *sender = open_all(&c, NULL);
	dbha *h = open_all(&c, options);
	struct stream *s = stream_start(sender, listen_to(h, "stream"));
	stream_hear(s, 50);
	return s;
}

static void end_stream(struct stream *s, long gaps)
{
	stream_hear(s, 100);
	stream_end(s);
	ck_assert_int_eq(s->gaps, gaps);
	ck_assert_int_gt(atomic_load(&s->acknowledged), 150);
	stream_free(s);
}

static void hear_the_gap_of(struct stream *s, int64_t promoted_us, int node, struct figures *figures)
{
	stream_hear_gap(s);
	figures_add(figures, s->gap_us > promoted_us ? s->gap_us - promoted_us : 0);
	char port[16];
	snprintf(port, sizeof port, ":%d", cluster_port(&c, node));
	ASSERT_HAS(s->gap.node, port);
	stream_hear(s, 100);
}

START_TEST(a_primary_is_killed_and_a_standby_promoted)
{
	static struct figures figures = {.name = "kill -9, promotion: gap told after the node accepts writes"};
	struct stream *s = begin_stream(NULL);
	cluster_do(&c, "kill 1");
	int64_t promoted = promote(&c, 2);
	hear_the_gap_of(s, promoted, 2, &figures);
	/* The old primary comes back as it was: nobody listens there. */
	cluster_do(&c, "start 1");
	stream_hear(s, 500);
	ck_assert_int_eq(terminate_listeners(&c, 1), 0);
	end_stream(s, 1);
	figures_print(&figures);
	ck_assert_int_le(figures_worst_us(&figures) / 1000, 1000 + 2 * SLACK_MS);
}
END_TEST

START_TEST(a_primary_is_stopped_and_a_standby_promoted)
{
	static struct figures figures = {.name = "fast stop, promotion: gap told after the node accepts writes"};
	struct stream *s = begin_stream(NULL);
	cluster_do(&c, "stop 1 fast");
	int64_t promoted = promote(&c, 3);
	hear_the_gap_of(s, promoted, 3, &figures);
	end_stream(s, 1);
	figures_print(&figures);
	ck_assert_int_le(figures_worst_us(&figures) / 1000, 1000 + 2 * SLACK_MS);
}
END_TEST

/* The sockets stay open and the kernel acknowledges: only the view tells. */
START_TEST(a_primary_is_frozen_and_a_standby_promoted)
{
	static struct figures noticed = {.name = "SIGSTOP noticed, promotion: gap told after the node accepts writes"};
	static struct figures unnoticed = {.name = "SIGSTOP unnoticed, promotion: gap told after the node accepts writes"};
	for (int i = 0; i < 2; i++) {
		struct stream *s = begin_stream(NULL);
		dbha *observer = open_all(&c, NULL);
		cluster_do(&c, "pause 1");
		if (i == 0)
			WAIT_FOR(node_status(observer, 0).state == DBHA_STATE_SILENT, PATIENCE_MS);
		int64_t promoted = promote(&c, 2);
		hear_the_gap_of(s, promoted, 2, i == 0 ? &noticed : &unnoticed);
		/* It thaws, and is a primary still. */
		cluster_do(&c, "resume 1");
		WAIT_FOR(node_status(observer, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
		stream_hear(s, 200);
		WAIT_FOR(terminate_listeners(&c, 1) == 0, PATIENCE_MS);
		end_stream(s, 1);
		listeners_close();
		handles_close();
		back_to_node_1(&c, 2);
	}
	figures_print(&noticed);
	figures_print(&unnoticed);
	ck_assert_int_le(figures_worst_us(&noticed) / 1000, 1000);
	ck_assert_int_le(figures_worst_us(&unnoticed) / 1000, 1000 + 2 * SLACK_MS); /* one probe interval */
}
END_TEST

/* A server that was only frozen has lost nothing. */
START_TEST(a_primary_that_thaws_unreplaced_costs_no_gap)
{
	struct stream *s = begin_stream(NULL);
	dbha *observer = open_all(&c, NULL);
	cluster_do(&c, "pause 1");
	WAIT_FOR(node_status(observer, 0).state == DBHA_STATE_SILENT, PATIENCE_MS);
	/* The owner can see that nothing could come: it has been asked for, and nobody has answered. */
	dbha_notification nothing = {.down_ms = 0};
	for (int64_t end = now_ms() + PATIENCE_MS; nothing.down_ms == 0; nothing = stream_hear_nothing(s, 100))
		ck_assert_int_lt(now_ms(), end);
	ASSERT_HAS(nothing.text, "has not answered");
	cluster_do(&c, "resume 1");
	end_stream(s, 0);
}
END_TEST

/*
 * One connection is dead and its node is well: nothing ends, and the view has nothing to say. The server's own process is frozen here;
 * a firewall that has forgotten a connection looks the same from this side.
 */
static void freeze_one_backend(const char *options, struct figures *figures)
{
	struct stream *s = begin_stream(options);
	long pid =
	    cluster_count(&c, 1,
	                  "SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND (query LIKE 'LISTEN%%' OR query "
	                  "= '' AND state = 'idle')");
	ck_assert_int_gt(pid, 1);
	ck_assert_int_eq(kill((pid_t)pid, SIGSTOP), 0);
	int64_t began = now_us();
	stream_hear_gap(s);
	figures_add(figures, s->gap_us - began);
	kill((pid_t)pid, SIGCONT);
	ASSERT_HAS(s->gap.text, "did not answer");
	end_stream(s, 1);
	listeners_close();
	handles_close();
}

START_TEST(a_dead_connection_to_a_node_that_is_well_is_noticed)
{
	static struct figures ordinary = {.name = "one server process frozen, gap told after (defaults)"};
	static struct figures aggressive = {.name = "one server process frozen, gap told after (aggressive)"};
	freeze_one_backend(NULL, &ordinary);
	freeze_one_backend("probe_profile=aggressive", &aggressive);
	figures_print(&ordinary);
	figures_print(&aggressive);
	/* 2 x probe_interval + probe_timeout x probe_failures, a look each 100 ms, and the new connection. */
	ck_assert_int_le(figures_worst_us(&ordinary) / 1000, 3800 + 300 + 2 * SLACK_MS);
	ck_assert_int_le(figures_worst_us(&aggressive) / 1000, 1100 + 300 + 2 * SLACK_MS);
}
END_TEST

START_TEST(the_only_server_restarts)
{
	static struct figures figures = {.name = "restart of the only server: gap told after the restart"};
	struct stream *s = begin_stream(NULL);
	for (int i = 0; i < 3; i++) {
		cluster_do(&c, i == 1 ? "kill 1" : "stop 1 fast");
		cluster_do(&c, "start 1");
		int64_t up = now_us();
		hear_the_gap_of(s, up, 1, &figures);
	}
	end_stream(s, 3);
	figures_print(&figures);
	ck_assert_int_le(figures_worst_us(&figures) / 1000, 3000);
}
END_TEST

/* Everything in turn, with the same listener. */
START_TEST(a_stream_through_many_faults_jumps_only_where_a_gap_was_told)
{
	struct stream *s = begin_stream("probe_profile=aggressive");
	int primary = 1, standby = 2;
	for (int i = 0; i < 6; i++) {
		ck_assert_int_eq(terminate_listeners(&c, primary), 1);
		stream_hear_gap(s);
		stream_hear(s, 20 + 10 * i);
		cluster_do(&c, "%s %d", i % 3 == 0 ? "kill" : i % 3 == 1 ? "stop" : "pause", primary);
		promote(&c, standby);
		stream_hear_gap(s);
		stream_hear(s, 200);
		if (i % 3 == 2)
			cluster_do(&c, "resume %d", primary);
		cluster_do(&c, "rejoin %d %d", primary, standby);
		cluster_do(&c, "rejoin 3 %d", standby);
		int old = primary;
		primary = standby;
		standby = old;
		stream_hear(s, 200);
	}
	end_stream(s, 12);
}
END_TEST

/* An event loop that never waits in the library follows as well. */
START_TEST(calls_that_never_wait_follow_a_failover)
{
	for (int off = 0; off < 2; off++) {
		dbha *h = open_all(&c, off ? "monitor=off&probe_interval=200ms" : NULL);
		dbha_listener *l = listen_to(h, "loop");
		dbha_error err;
		dbha_notification got = {.size = sizeof got};
		int rc;
		cluster_do(&c, "kill 1");
		int64_t promoted = promote(&c, 2);
		for (int64_t end = now_ms() + PATIENCE_MS; (rc = dbha_listener_next(l, 0, &got, &err)) == 0;) {
			ck_assert_int_lt(now_ms(), end);
			short_pause();
		}
		/* Without a thread the probes are no faster than the calls. */
		ck_assert_int_le((now_us() - promoted) / 1000, 1000 + 2 * SLACK_MS);
		printf("# with a timeout of 0%s: gap told %.1f ms after the node accepts writes\n", off ? ", monitor=off" : "",
		       (double)(now_us() - promoted) / 1000);
		ck_assert_int_eq(rc, 1);
		ck_assert_int_eq(got.kind, DBHA_GAP);
		notify(h, "loop", "there");
		expect_notify(l, "loop", "there");
		listeners_close();
		handles_close();
		back_to_node_1(&c, 2);
	}
	c.intact = true;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("listen_failover");
	ADD_TEST(suite, calls_that_never_wait_follow_a_failover, three_servers, stop_listening, 90);
	ADD_TEST(suite, a_primary_that_thaws_unreplaced_costs_no_gap, three_servers, stop_listening, 60);
	ADD_TEST(suite, a_dead_connection_to_a_node_that_is_well_is_noticed, three_servers, stop_listening, 60);
	ADD_TEST(suite, a_primary_is_killed_and_a_standby_promoted, three_servers, stop_listening, 60);
	ADD_TEST(suite, a_primary_is_stopped_and_a_standby_promoted, three_servers, stop_listening, 60);
	ADD_TEST(suite, a_primary_is_frozen_and_a_standby_promoted, three_servers, stop_listening, 90);
	ADD_TEST(suite, a_stream_through_many_faults_jumps_only_where_a_gap_was_told, three_servers, stop_listening, 180);
	ADD_TEST(suite, the_only_server_restarts, one_server, stop_listening, 60);
	return run_suite(suite, &c);
}
