/*
 * test_listen_blackhole: the packets of the primary that a listener listens to vanish: with a promotion, and without one, when they come
 * back after a while. Nothing tells the listener's socket, in neither case.
 */
#include <stdio.h>

#include "cluster.h"
#include "hear.h"
#include "net.h"
#include "work.h"

static struct cluster c;

static void servers(void)
{
	cluster_with_rows(&c, "3", "id int");
}

static void mend(void)
{
	listeners_close();
	heal_all();
}

static struct stream *begin_stream(void)
{
	dbha *sender = open_all(&c, NULL);
	dbha *h = open_all(&c, NULL);
	struct stream *s = stream_start(sender, listen_to(h, "stream"));
	stream_hear(s, 50);
	return s;
}

START_TEST(in_a_black_hole_a_promotion_ends_the_wait)
{
	static struct figures noticed = {.name = "black hole noticed, promotion: gap told after the node accepts writes"};
	static struct figures unnoticed = {.name =
	                                       "black hole unnoticed, promotion: gap told after the node accepts writes"};
	for (int i = 0; i < 4; i++) {
		struct stream *s = begin_stream();
		dbha *observer = open_all(&c, NULL);
		black_hole(cluster_port(&c, 1));
		if (i % 2 == 0)
			WAIT_FOR(node_status(observer, 0).state == DBHA_STATE_SILENT, PATIENCE_MS);
		int64_t promoted = promote(&c, 2);
		stream_hear_gap(s);
		figures_add(i % 2 == 0 ? &noticed : &unnoticed, s->gap_us > promoted ? s->gap_us - promoted : 0);
		stream_hear(s, 200);
		heal(cluster_port(&c, 1));
		WAIT_FOR(node_status(observer, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
		stream_hear(s, 200);
		stream_end(s);
		ck_assert_int_eq(s->gaps, 1);
		stream_free(s);
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

/*
 * The same primary is there again. What TCP delivers late is complete; where TCP takes too long to try again, the connection is replaced.
 * Either way it is not the 15 minutes that a kernel takes to give a connection up.
 */
START_TEST(after_a_black_hole_the_stream_goes_on_soon)
{
	static struct figures figures = {.name = "black hole of 8 s healed, first number heard after"};
	struct stream *s = begin_stream();
	dbha *observer = open_all(&c, NULL);
	black_hole(cluster_port(&c, 1));
	WAIT_FOR(node_status(observer, 0).state == DBHA_STATE_SILENT, PATIENCE_MS);
	dbha_notification nothing = {.down_ms = 0};
	for (int64_t end = now_ms() + PATIENCE_MS; nothing.down_ms < 5000; nothing = stream_hear_nothing(s, 100))
		ck_assert_int_lt(now_ms(), end);
	ASSERT_HAS(nothing.text, "has not answered");
	heal(cluster_port(&c, 1));
	int64_t healed = now_us();
	stream_hear(s, 1);
	figures_add(&figures, now_us() - healed);
	stream_hear(s, 200);
	stream_end(s);
	figures_print(&figures);
	ck_assert_int_le(figures_worst_us(&figures) / 1000, 6000);
	ck_assert_int_le(s->gaps, 1);
	stream_free(s);
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("listen_blackhole");
	ADD_TEST(suite, in_a_black_hole_a_promotion_ends_the_wait, servers, mend, 120);
	ADD_TEST(suite, after_a_black_hole_the_stream_goes_on_soon, servers, mend, 60);
	return run_suite(suite, &c);
}
