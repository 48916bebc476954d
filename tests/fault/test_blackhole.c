/*
 * test_blackhole: the primary's packets vanish, a standby is promoted, and an application goes on. How long after the
 * promoted node accepts writes is the first one acknowledged: where the silence had been noticed, and where it had not?
 *
 * Ten runs of each on one cluster, the old primary comes back before it is rebuilt, and must
 * not get a row. When the promoted node accepts writes, it is asked itself, past the library.
 */
#include <stdio.h>
#include <stdlib.h>

#include "cluster.h"
#include "net.h"
#include "work.h"

#define RUNS                10
/* The defaults of probe_interval and of what was promised for a silence that was noticed. */
#define PROBE_INTERVAL_MS   1000
#define NOTICED_MEDIAN_MS   15
#define NOTICED_WORST_MS    100
#define UNNOTICED_MARGIN_MS 100

static struct cluster c;
static int primary = 1, standby = 2; /* they change places in each run; node 3 is a standby throughout */

static void servers(void)
{
	cluster_with_rows(&c, "3", "id bigint");
}

/* The first acknowledgement of a write begun after the black hole: one that was on its way then was the old primary's. */
static int64_t first_write_us(struct load *load)
{
	WAIT_FOR(atomic_load(&load->marked_us) > 0, PATIENCE_MS);
	return atomic_load(&load->marked_us);
}

static void swap_roles(void)
{
	int old = primary;
	primary = standby;
	standby = old;
}

/* The old primary is there again, as it was. It must not get a row more. */
static void old_primary_returns(dbha *h, struct load *load)
{
	long before = cluster_count(&c, standby, "SELECT count(*) FROM rows");
	heal(cluster_port(&c, standby));
	WAIT_FOR(node_status(h, standby - 1).state == DBHA_STATE_FENCED, PATIENCE_MS);
	load_expect_writes(load, 20);
	load_expect_reads(load, 20);
	ck_assert_int_eq(cluster_count(&c, standby, "SELECT count(*) FROM rows"), before);
	ck_assert_int_eq(cluster_status(h).primary, primary - 1);
}

static void fail_over(bool noticed, struct figures *figures)
{
	/* How long the silence took to be noticed is not what is measured: a shorter probe_timeout shortens the test. */
	dbha *h = open_all(&c, noticed ? "probe_timeout=300ms" : NULL);
	struct load *load = load_start(h, true);
	load_expect_writes(load, 20);
	load_expect_reads(load, 20);
	black_hole(cluster_port(&c, primary));
	if (noticed)
		WAIT_FOR(node_status(h, primary - 1).state == DBHA_STATE_SILENT, PATIENCE_MS);
	load_mark(load);
	swap_roles();
	int64_t accepts = promote(&c, primary);
	int64_t acknowledged = first_write_us(load);
	figures_add(figures, acknowledged > accepts ? acknowledged - accepts : 0);
	old_primary_returns(h, load);
	load_stop(load);
	load_expect_no_errors(load, 1); /* at most the one under way when the packets vanished */
	ck_assert_int_eq(load_duplicates(&c, primary), 0);
	handles_close();
	load_free(load);
	cluster_ask(&c, primary, "TRUNCATE rows");
	/* Not "follow": it may have had more of the old primary than the one that was promoted. */
	cluster_do(&c, "rejoin 3 %d", primary);
	cluster_do(&c, "rejoin %d %d", standby, primary);
}

START_TEST(after_a_silence_that_was_noticed_the_first_write_comes_at_once)
{
	static struct figures figures = {.name =
	                                     "black hole noticed, promotion, first write after the node accepts writes"};
	for (int i = 0; i < RUNS; i++)
		fail_over(true, &figures);
	figures_print(&figures);
	ck_assert_int_le(figures_median_us(&figures) / 1000, NOTICED_MEDIAN_MS);
	ck_assert_int_le(figures_worst_us(&figures) / 1000, NOTICED_WORST_MS);
}
END_TEST

START_TEST(after_a_silence_that_was_not_noticed_the_first_write_comes_within_a_probe_interval)
{
	static struct figures figures = {.name =
	                                     "black hole unnoticed, promotion, first write after the node accepts writes"};
	for (int i = 0; i < RUNS; i++)
		fail_over(false, &figures);
	figures_print(&figures);
	ck_assert_int_le(figures_worst_us(&figures) / 1000, PROBE_INTERVAL_MS + UNNOTICED_MARGIN_MS);
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("blackhole");
	ADD_TEST(suite, after_a_silence_that_was_noticed_the_first_write_comes_at_once, servers, heal_all, 200);
	ADD_TEST(suite, after_a_silence_that_was_not_noticed_the_first_write_comes_within_a_probe_interval, servers,
	         heal_all, 200);
	return run_suite(suite, &c);
}
