/*
 * test_names: hosts that are names, and a name server that is slow, knows nothing, or changes its mind at a failover. A real one,
 * the test's own, at the address that /etc/resolv.conf has in this program's namespace.
 */
#include <stdio.h>
#include <string.h>

#include "cluster.h"
#include "net.h"
#include "work.h"
#include "zone.h"

/* Addresses at which the nodes can be reached besides 127.0.0.1, all at one port, as hosts of their own would be. */
#define ADDRESS_1 "127.0.0.11"
#define ADDRESS_2 "127.0.0.12"
#define PORT      7000

static struct cluster c;

static void servers(void)
{
	zone_start();
	if (c.keeper)
		return;
	cluster_with_rows(&c, "2", "id bigint");
	net_lead(ADDRESS_1, PORT, cluster_port(&c, 1));
	net_lead(ADDRESS_2, PORT, cluster_port(&c, 2));
}

/* ---- slow ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_name_server_that_takes_ten_seconds_holds_up_no_call_and_no_other_node)
{
	char hosts[128];
	dbha_error err;
	zone_set("db.test", ADDRESS_2);
	zone_delay(10000);
	snprintf(hosts, sizeof hosts, "db.test:%d,127.0.0.1:%d", PORT, cluster_port(&c, 1));
	int64_t opened = now_ms();
	dbha *alone = open_hosts(&c, "db.test:7000", NULL);
	dbha *h = open_hosts(&c, hosts, NULL);
	ck_assert_int_lt(now_ms() - opened, 500);
	/* The node that is given by its address is used once the other has failed its first probe. */
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	ck_assert_int_lt(now_ms() - opened, 2000);
	ASSERT_HAS(node_status(h, 0).why, "name");
	int64_t worst = 0;
	for (int i = 0; i < 5; i++) {
		int64_t began = now_us();
		ASSERT_CODE(run(alone, i % 2 ? DBHA_READ : DBHA_WRITE, 300, "SELECT 1", &err), NO_NODE, err);
		worst = now_us() - began - 300000 > worst ? now_us() - began - 300000 : worst;
		ASSERT_HAS(err.message, "db.test");
		began = now_ms();
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
		fetch(h, DBHA_READ, "SELECT 1");
		ck_assert_int_lt(now_ms() - began, 500);
	}
	printf("# beyond the deadline, name server asked for 10 s: worst %.1f ms of 5\n", (double)worst / 1000);
	ck_assert_int_le(worst / 1000, SLACK_MS);
	/* A handle can go while its lookups hang. */
	dbha *brief = open_hosts(&c, "db.test:7000", NULL);
	ASSERT_CODE(run(brief, DBHA_READ, 100, "SELECT 1", &err), NO_NODE, err);
	int64_t began = now_ms();
	close_handle(brief, 0);
	ck_assert_int_lt(now_ms() - began, 500);
	/* The answer comes, and the node with it. */
	ck_assert_int_lt(now_ms() - opened, 9000);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, 2 * PATIENCE_MS, &err), err);
	ck_assert_int_ge(now_ms() - opened, 9900);
	ck_assert_str_eq(fetch(alone, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
}
END_TEST

/* ---- unknown ------------------------------------------------------------------------------------------------------- */

START_TEST(a_name_that_does_not_exist_is_told_and_used_once_it_does)
{
	char hosts[128];
	dbha_error err;
	snprintf(hosts, sizeof hosts, "new.test:%d,127.0.0.1:%d", PORT, cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, NULL);
	int64_t began = now_ms();
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (2)");
	ck_assert_int_lt(now_ms() - began, 500); /* an answer, and no silence: nothing to wait for */
	dbha_node_status node = node_status(h, 0);
	ck_assert_int_eq(node.state, DBHA_STATE_DOWN);
	ASSERT_HAS(node.why, "new.test");
	ck_assert_int_gt(zone_questions(), 0);
	zone_set("new.test", ADDRESS_2);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	/* What is known stays known when the name server forgets it. */
	zone_set("new.test", "");
	for (int i = 0; i < 20; i++)
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery() FROM pg_sleep(0.1)"), "t");
}
END_TEST

/* ---- moving -------------------------------------------------------------------------------------------------------- */

/* As a virtual name in front of a pair of servers does. The name server is told after the promotion, not at once. */
START_TEST(a_name_that_moves_at_a_failover_takes_the_writes_with_it)
{
	static struct statement write;
	zone_set("primary.test", ADDRESS_1);
	dbha *h = open_hosts(&c, "primary.test:7000", NULL);
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (3)");
	cluster_catch_up(&c, 2, 1);
	black_hole(cluster_port(&c, 1));
	statement_start(&write, h, DBHA_WRITE, 3000, "INSERT INTO rows VALUES (4)");
	promote(&c, 2);
	zone_set("primary.test", ADDRESS_2);
	int64_t moved = now_us();
	statement_join(&write); /* it was sent to the old address, and nobody can say more of it */
	ck_assert(write.code == DBHA_ERR_UNKNOWN || write.code == DBHA_ERR_TIMEOUT);
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (5)");
	printf("# black hole behind a name: written at its new address %.0f ms after it moved\n",
	       (double)(now_us() - moved) / 1000);
	ck_assert_int_lt((now_us() - moved) / 1000, 8000);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 5"), 1);
	ck_assert_uint_eq(cluster_status(h).timeline, 2);

	/* The old server is there again, and the name goes back to it: a mistake that must not become a write. */
	heal(cluster_port(&c, 1));
	zone_set("primary.test", ADDRESS_1);
	cluster_do(&c, "stop 2");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
	ASSERT_HAS(node_status(h, 0).why, "timeline 1");
	dbha_error err;
	for (int i = 0; i < 3; i++)
		ASSERT_CODE(run(h, DBHA_WRITE, 200, "INSERT INTO rows VALUES (6)", &err), NO_NODE, err);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id > 4"), 0);
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("names");
	ADD_TEST(suite, a_name_server_that_takes_ten_seconds_holds_up_no_call_and_no_other_node, servers, NULL, 60);
	ADD_TEST(suite, a_name_that_does_not_exist_is_told_and_used_once_it_does, servers, NULL, 60);
	ADD_TEST(suite, a_name_that_moves_at_a_failover_takes_the_writes_with_it, servers, heal_all, 60);
	return run_suite(suite, &c);
}
