/*
 * test_discover: discover=dns on real servers and a real name server. Three servers are reached as 127.0.0.N:5432, as pods
 * are behind one name: a packet filter leads each address to a server's own port, so that a server can get another address, or
 * an address another server, while those who are connected stay connected. Runs in namespaces of its own (enter.sh).
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"
#include "net.h"
#include "work.h"
#include "zone.h"

#define ALL     "127.0.0.1 127.0.0.2 127.0.0.3"
#define OPTIONS "resolve_interval=1s&probe_interval=200ms"

static struct cluster c;

/* ---- the world ---------------------------------------------------------------------------------------------------- */

/* New connections to address:5432 lead to this node. */
static void lead(const char *address, int node)
{
	net_lead(address, 5432, cluster_port(&c, node));
}

static void world(void)
{
	cluster_intact_with_rows(&c, "3", "id bigint, node text DEFAULT current_setting('cluster_name')");
	cluster_ask(&c, 1, "TRUNCATE rows");
	cluster_all_catch_up(&c);
	net_lead_nowhere();
	lead("127.0.0.1", 1);
	lead("127.0.0.2", 2);
	lead("127.0.0.3", 3);
	zone_start();
	zone_set("pg.test", ALL);
}

static const char *url(const char *hosts, const char *options)
{
	static char text[1024];
	snprintf(text, sizeof text, "postgresql://app:%s@%s/app?" OPTIONS "&%s", cluster_password(&c), hosts, options);
	return text;
}

static dbha *open_discovering(void)
{
	return open_handle(url("pg.test:5432", "discover=dns"));
}

/* ---- what a handle sees ---------------------------------------------------------------------------------------------- */

#define NODES_MAX 32

/* All nodes; returns how many. */
static int all_nodes(dbha *h, dbha_node_status nodes[NODES_MAX])
{
	dbha_cluster_status cluster = {.size = sizeof cluster};
	dbha_error err;
	nodes[0].size = sizeof nodes[0];
	int n = dbha_status(h, &cluster, nodes, NODES_MAX, &err);
	ck_assert_msg(n > 0, "%s", n > 0 ? "" : err.message);
	ck_assert_int_eq(n, cluster.nodes);
	return n;
}

/* The index of the node at an address, -1 if there is none; it is copied to `node`. */
static int find_node(dbha *h, const char *address, dbha_node_status *node)
{
	dbha_node_status nodes[NODES_MAX];
	char part[64];
	snprintf(part, sizeof part, "[%s]:", address);
	*node = (dbha_node_status){0};
	int n = all_nodes(h, nodes);
	for (int i = 0; i < n; i++) {
		if (!strstr(nodes[i].name, part))
			continue;
		*node = nodes[i];
		return i;
	}
	return -1;
}

/* The node at an address; name[0] is 0 if there is none. */
static dbha_node_status node_at(dbha *h, const char *address)
{
	dbha_node_status node;
	find_node(h, address, &node);
	return node;
}

static int index_of(dbha *h, const char *address)
{
	dbha_node_status node;
	return find_node(h, address, &node);
}

static bool is(dbha *h, const char *address, dbha_role role, dbha_state state)
{
	dbha_node_status node = node_at(h, address);
	return node.name[0] && node.role == (int32_t)role && node.state == (int32_t)state;
}

static bool is_gone(dbha *h, const char *address)
{
	return node_at(h, address).name[0] == '\0';
}

static void all_three_up(dbha *h)
{
	WAIT_FOR(is(h, "127.0.0.1", DBHA_ROLE_PRIMARY, DBHA_STATE_UP), PATIENCE_MS);
	WAIT_FOR(is(h, "127.0.0.2", DBHA_ROLE_STANDBY, DBHA_STATE_UP), PATIENCE_MS);
	WAIT_FOR(is(h, "127.0.0.3", DBHA_ROLE_STANDBY, DBHA_STATE_UP), PATIENCE_MS);
}

/* Whether one of many reads comes from a node. */
static bool reads_from(dbha *h, const char *node)
{
	for (int i = 0; i < 30; i++)
		if (strcmp(fetch(h, DBHA_READ, "SELECT current_setting('cluster_name')"), node) == 0)
			return true;
	return false;
}

/* A standby that has looked slow for a moment is given nothing until its next probes. */
static void expect_reads_from(dbha *h, const char *node)
{
	WAIT_FOR(reads_from(h, node), PATIENCE_MS);
}

static const char *writes_to(dbha *h)
{
	return fetch(h, DBHA_WRITE, "INSERT INTO rows (id) VALUES (1) RETURNING node");
}

static void end_without_errors(struct load *load)
{
	load_expect_writes(load, 4);
	load_expect_reads(load, 4);
	load_stop(load);
	load_expect_no_errors(load, 0);
	load_free(load);
}

/* ---- the tests ---------------------------------------------------------------------------------------------------- */

START_TEST(three_addresses_are_three_nodes)
{
	dbha *h = open_discovering();
	dbha_error err;
	ck_assert_int_eq(cluster_status(h).nodes, 1); /* nobody takes the vacant places for nodes */
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, PATIENCE_MS, &err), err);
	ck_assert_int_eq(cluster_status(h).nodes, 3);
	all_three_up(h);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_str_eq(node_at(h, "127.0.0.2").name, "pg.test[127.0.0.2]:5432");
	ck_assert_str_eq(writes_to(h), "node1");
	expect_reads_from(h, "node2");
	expect_reads_from(h, "node3");
	ck_assert(!reads_from(h, "node1"));
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert_str_eq(dbha_conn_node(lease), "pg.test[127.0.0.1]:5432");
	dbha_release(lease);
	ASSERT_CODE(run(h, DBHA_WRITE, 0, "SELECT 1/0", &err), SERVER, err);
	ck_assert_str_eq(err.node, "pg.test[127.0.0.1]:5432");
	c.intact = true;
}
END_TEST

/* Without it the name is one node: the first address that accepts. */
START_TEST(without_discover_the_name_is_one_node)
{
	dbha *h = open_handle(url("pg.test:5432", "discover=off"));
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, PATIENCE_MS, &err), err);
	ck_assert_int_eq(cluster_status(h).nodes, 1);
	ck_assert_str_eq(node_status(h, 0).name, "pg.test:5432");
	c.intact = true;
}
END_TEST

START_TEST(a_failover_between_addresses)
{
	dbha *h = open_discovering();
	all_three_up(h);
	struct load *load = load_start(h, true);
	load_expect_writes(load, 6);
	cluster_do(&c, "kill 1");
	cluster_do(&c, "promote 2");
	WAIT_FOR(is(h, "127.0.0.2", DBHA_ROLE_PRIMARY, DBHA_STATE_UP), PATIENCE_MS);
	ck_assert_str_eq(writes_to(h), "node2");
	cluster_do(&c, "rejoin 1 2");
	WAIT_FOR(is(h, "127.0.0.1", DBHA_ROLE_STANDBY, DBHA_STATE_UP), PATIENCE_MS);
	/* The killed primary may have taken a row whose answer was lost: that one error is honest. */
	load_stop(load);
	load_expect_no_errors(load, 1);
	load_free(load);
}
END_TEST

/* A standby that seems slow for a while, on a busy machine, gets no read meanwhile. */
static dbha_conn *lease_on(dbha *h, dbha_intent intent, const char *address)
{
	char part[64];
	snprintf(part, sizeof part, "[%s]:", address);
	for (int64_t end = now_ms() + PATIENCE_MS; now_ms() < end; short_pause()) {
		dbha_error err;
		dbha_conn *lease = dbha_acquire(h, intent, 0, &err);
		ck_assert_msg(lease != NULL, "%s", lease ? "" : err.message);
		if (strstr(dbha_conn_node(lease), part))
			return lease;
		dbha_release(lease);
	}
	ck_abort_msg("no connection to %s within %d ms", address, PATIENCE_MS);
	return NULL;
}

START_TEST(an_address_that_vanishes_drains_and_comes_back)
{
	dbha *h = open_discovering();
	all_three_up(h);
	int place = index_of(h, "127.0.0.2");
	uint64_t generation = node_at(h, "127.0.0.2").generation;
	struct load *load = load_start(h, true);
	dbha_conn *lease = lease_on(h, DBHA_READ, "127.0.0.2");

	zone_set("pg.test", "127.0.0.1 127.0.0.3");
	WAIT_FOR(node_at(h, "127.0.0.2").state == DBHA_STATE_ABSENT, PATIENCE_MS);
	ASSERT_HAS(node_at(h, "127.0.0.2").why, "pg.test");
	ck_assert(!reads_from(h, "node2"));
	/* What is in use goes on, and keeps the place and its name. */
	ck_assert_str_eq(lease_fetch(lease, "SELECT current_setting('cluster_name')"), "node2");
	WAIT_FOR(node_at(h, "127.0.0.2").pool_used == 1, PATIENCE_MS);
	ck_assert_int_eq(node_at(h, "127.0.0.2").pool_idle, 0);
	ck_assert_str_eq(dbha_conn_node(lease), "pg.test[127.0.0.2]:5432");
	dbha_release(lease);
	WAIT_FOR(is_gone(h, "127.0.0.2"), PATIENCE_MS);
	WAIT_FOR(cluster_count(&c, 2, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") == 0, PATIENCE_MS);
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err); /* of those that are there */

	zone_set("pg.test", ALL);
	WAIT_FOR(is(h, "127.0.0.2", DBHA_ROLE_STANDBY, DBHA_STATE_UP), PATIENCE_MS);
	ck_assert_int_eq(index_of(h, "127.0.0.2"), place);
	ck_assert_uint_gt(node_at(h, "127.0.0.2").generation, generation);
	WAIT_FOR(reads_from(h, "node2"), PATIENCE_MS);
	end_without_errors(load);
	c.intact = true;
}
END_TEST

/* As when a pod is made anew: the same server behind another address. Here the primary, without a failover. */
START_TEST(a_server_moves_to_a_new_address)
{
	dbha *h = open_discovering();
	all_three_up(h);
	struct load *load = load_start(h, true);
	lead("127.0.0.9", 1);
	zone_set("pg.test", "127.0.0.9 127.0.0.2 127.0.0.3");
	WAIT_FOR(is(h, "127.0.0.9", DBHA_ROLE_PRIMARY, DBHA_STATE_UP), PATIENCE_MS);
	WAIT_FOR(is_gone(h, "127.0.0.1"), PATIENCE_MS);
	ck_assert_str_eq(writes_to(h), "node1");
	/* And one that is added. */
	lead("127.0.0.4", 3);
	zone_set("pg.test", "127.0.0.9 127.0.0.2 127.0.0.3 127.0.0.4");
	WAIT_FOR(is(h, "127.0.0.4", DBHA_ROLE_STANDBY, DBHA_STATE_UP), PATIENCE_MS);
	ck_assert_int_eq(cluster_status(h).nodes, 5); /* 127.0.0.1's place is vacant, and another one is taken first */
	end_without_errors(load);
	c.intact = true;
}
END_TEST

/* Many times, so that places are used again, while others read the names. */
START_TEST(addresses_come_and_go)
{
	dbha *h = open_discovering();
	all_three_up(h);
	struct load *load = load_start(h, true);
	for (int round = 0; round < (SANITIZED ? 8 : 14); round++) {
		char address[32], zone[128];
		snprintf(address, sizeof address, "127.0.1.%d", round % 5 + 1);
		lead(address, 2);
		snprintf(zone, sizeof zone, "127.0.0.1 %s 127.0.0.3", address);
		zone_set("pg.test", zone);
		WAIT_FOR(is(h, address, DBHA_ROLE_STANDBY, DBHA_STATE_UP), PATIENCE_MS);
		WAIT_FOR(reads_from(h, "node2"), PATIENCE_MS);
	}
	/* Who left has not taken its counts along. */
	uint64_t done = (uint64_t)(atomic_load(&load->writes) + atomic_load(&load->reads));
	ck_assert_uint_ge(counters(h, -1).statements, done);
	end_without_errors(load);
	/* At most: three to begin with, and five more. */
	ck_assert_int_le(cluster_status(h).nodes, 8);
	c.intact = true;
}
END_TEST

/* P1: who works on a primary that leaves is cut when another one is promoted. */
START_TEST(a_leaving_primary_is_fenced)
{
	dbha *h = open_discovering();
	all_three_up(h);
	dbha_conn *lease = lease_on(h, DBHA_WRITE, "127.0.0.1");
	lease_fetch(lease, "INSERT INTO rows (id) VALUES (3)");
	zone_set("pg.test", "127.0.0.2 127.0.0.3");
	WAIT_FOR(node_at(h, "127.0.0.1").state == DBHA_STATE_ABSENT, PATIENCE_MS);
	lease_fetch(lease, "INSERT INTO rows (id) VALUES (4)");
	cluster_do(&c, "promote 2");
	WAIT_FOR(is(h, "127.0.0.2", DBHA_ROLE_PRIMARY, DBHA_STATE_UP), PATIENCE_MS);
	PGresult *result = PQexec(dbha_conn_pq(lease), "INSERT INTO rows (id) VALUES (5)");
	ck_assert_int_ne((int)PQresultStatus(result), (int)PGRES_COMMAND_OK);
	PQclear(result);
	dbha_release(lease);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 5"), 0);
	ck_assert_str_eq(writes_to(h), "node2");
	/* And when its address comes back, it is fenced. */
	WAIT_FOR(is_gone(h, "127.0.0.1"), PATIENCE_MS);
	zone_set("pg.test", ALL);
	WAIT_FOR(node_at(h, "127.0.0.1").state == DBHA_STATE_FENCED, PATIENCE_MS);
	for (int i = 0; i < 20; i++)
		ck_assert_str_eq(writes_to(h), "node2");
}
END_TEST

/* Until so many more lookups have been made. */
static void lookups(int n)
{
	long before = zone_questions();
	WAIT_FOR(zone_questions() >= before + n, PATIENCE_MS);
}

START_TEST(a_name_server_in_trouble_changes_nothing)
{
	static const enum zone_mood moods[] = {ZONE_FAILS, ZONE_EMPTY, ZONE_SILENT, ZONE_ANSWERS};
	dbha *h = open_discovering();
	all_three_up(h);
	struct load *load = load_start(h, true);
	for (size_t i = 0; i < sizeof moods / sizeof moods[0]; i++) {
		zone_mood(moods[i]);
		if (moods[i] == ZONE_ANSWERS)
			zone_set("pg.test", ""); /* the last round: the name does not exist */
		lookups(3);
		all_three_up(h);
		ck_assert_int_eq(cluster_status(h).nodes, 3);
	}
	end_without_errors(load);
	c.intact = true;
}
END_TEST

/* One lookup at a time, whoever asks, and nobody waits for it beyond his deadline. */
START_TEST(a_silent_name_server_costs_nobody_his_deadline)
{
	dbha_error err;
	zone_mood(ZONE_SILENT);
	dbha *h = open_handle(url("pg.test:5432,pg.test:5433,PG.test:5434", "discover=dns"));
	int64_t began = now_ms();
	for (int i = 0; i < 6; i++) {
		int64_t start = now_ms();
		ASSERT_CODE(run(h, DBHA_WRITE, 400, "SELECT 1", &err), NO_NODE, err);
		ck_assert_int_le(now_ms() - start, 400 + SLACK_MS);
		ASSERT_HAS(err.message, "pg.test:5433");
	}
	/* A question is given up after a second and asked anew, for one name: three hosts make it no more. */
	int64_t seconds = (now_ms() - began) / 1000 + 1;
	ck_assert_msg(zone_questions() <= seconds + 1, "%ld questions in %d s", zone_questions(), (int)seconds);
	zone_mood(ZONE_FAILS);
	WAIT_FOR(strstr(node_status(h, 0).why, "could not translate host name \"pg.test\""), PATIENCE_MS);
	ck_assert_int_eq(node_status(h, 0).state, DBHA_STATE_DOWN);
	zone_mood(ZONE_ANSWERS);
	WAIT_FOR(is(h, "127.0.0.1", DBHA_ROLE_PRIMARY, DBHA_STATE_UP), PATIENCE_MS);
	ck_assert_str_eq(writes_to(h), "node1");
	c.intact = true;
}
END_TEST

/*
 * The lookup has taken so long that the name has counted as a failed node; then a stale primary answers first, for the real one
 * takes its time: nothing is written before all have been seen.
 */
START_TEST(a_late_answer_does_not_settle_early)
{
	dbha_error err;
	cluster_do(&c, "promote 2");
	WAIT_FOR(*cluster_ask(&c, 2, "SELECT pg_is_in_recovery()") == 'f', PATIENCE_MS);
	zone_mood(ZONE_SILENT);
	dbha *h = open_handle(url("pg.test:5432", "discover=dns&probe_timeout=3s"));
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_SILENT || node_status(h, 0).state == DBHA_STATE_DOWN, PATIENCE_MS);
	ASSERT_CODE(run(h, DBHA_WRITE, 100, "SELECT 1", &err), NO_NODE, err);
	cluster_do(&c, "pause 2");
	zone_mood(ZONE_ANSWERS);
	WAIT_FOR(node_at(h, "127.0.0.1").role == DBHA_ROLE_PRIMARY, PATIENCE_MS);
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows (id) VALUES (7)", &err), NO_NODE, err);
	cluster_do(&c, "resume 2");
	ck_assert_str_eq(writes_to(h), "node2");
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 7"), 0);
	WAIT_FOR(node_at(h, "127.0.0.1").state == DBHA_STATE_FENCED, PATIENCE_MS);
}
END_TEST

/*
 * A name leads to a server that says nothing, and then to another one, while a stale primary, a host by its number, has answered: that
 * the silent one leaves must not settle the view before the newcomer has been asked.
 */
START_TEST(who_leaves_does_not_settle_for_who_comes)
{
	dbha_error err;
	cluster_do(&c, "promote 2");
	WAIT_FOR(*cluster_ask(&c, 2, "SELECT pg_is_in_recovery()") == 'f', PATIENCE_MS);
	cluster_do(&c, "pause 2");
	cluster_do(&c, "pause 3");
	zone_set("a.test", "127.0.0.3");
	/* Nobody has kept silent for long enough to count as seen before the name has moved. */
	dbha *h = open_handle(url("a.test:5432,127.0.0.1:5432", "discover=dns&probe_timeout=30s&connect_timeout=30s"));
	ASSERT_CODE(run(h, DBHA_WRITE, 100, "SELECT 1", &err), NO_NODE, err);
	WAIT_FOR(!is_gone(h, "127.0.0.3"), PATIENCE_MS);
	WAIT_FOR(node_status(h, 1).role == DBHA_ROLE_PRIMARY, PATIENCE_MS);
	zone_set("a.test", "127.0.0.2");
	WAIT_FOR(!is_gone(h, "127.0.0.2"), PATIENCE_MS);
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows (id) VALUES (7)", &err), NO_NODE, err);
	ck_assert_int_eq(cluster_status(h).primary, -1);
	cluster_do(&c, "resume 2");
	ck_assert_str_eq(writes_to(h), "node2");
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 7"), 0);
	ck_assert_int_eq(node_status(h, 1).state, DBHA_STATE_FENCED);
}
END_TEST

START_TEST(more_addresses_than_places)
{
	char many[2048] = ALL, log[256], command[512];
	dbha_error err;
	for (int i = 0; i < 37; i++) /* nobody listens there */
		snprintf(many + strlen(many), sizeof many - strlen(many), " 127.0.2.%d", i + 1);
	snprintf(log, sizeof log, "%s/discover.log", c.dir);
	snprintf(command, sizeof command, "discover=dns&log_level=info&log_file=%s", log);
	zone_set("pg.test", many);
	dbha *h = open_handle(url("pg.test:5432", command));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, PATIENCE_MS, &err), err);
	ck_assert_int_eq(cluster_status(h).nodes, 32);
	lookups(3);
	ck_assert_int_eq(count_in_file(log, "more addresses than the 32 places"), 1);
	/* When some are gone, those that had been left out get their places. */
	zone_set("pg.test", ALL);
	all_three_up(h);
	ck_assert_str_eq(writes_to(h), "node1");
	for (int i = 0; i < 37; i++) {
		char address[32];
		snprintf(address, sizeof address, "127.0.2.%d", i + 1);
		WAIT_FOR(is_gone(h, address), PATIENCE_MS);
	}
	c.intact = true;
}
END_TEST

/* Two hosts of the URL, one of which leads to what the other has already; and one by its number. */
START_TEST(hosts_that_overlap)
{
	dbha_error err;
	zone_set("a.test", "127.0.0.1 127.0.0.2");
	zone_set("b.test", "127.0.0.2 127.0.0.3");
	dbha *h = open_handle(url("a.test:5432,b.test:5432,127.0.0.3:5432", "discover=dns"));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	int named = 0;
	for (int i = 0; i < cluster_status(h).nodes; i++)
		named += node_status(h, i).name[0] != '\0';
	ck_assert_int_eq(named, 3);
	ck_assert_str_eq(node_status(h, 2).name, "127.0.0.3:5432");
	ck_assert_str_eq(writes_to(h), "node1");
	expect_reads_from(h, "node2");
	expect_reads_from(h, "node3");
	c.intact = true;
}
END_TEST

/* ---- fork -------------------------------------------------------------------------------------------------------- */

#ifndef __SANITIZE_THREAD__ /* which ends a child that starts threads */

/* In a child nothing may assert. */
static bool child_is_served(dbha *h)
{
	dbha_error err;
	dbha_cluster_status cluster = {.size = sizeof cluster};
	bool ok = run(h, DBHA_WRITE, 10000, "INSERT INTO rows (id) VALUES (6)", &err) == DBHA_OK &&
	          run(h, DBHA_READ, 10000, "SELECT 1", &err) == DBHA_OK;
	if (!ok)
		fprintf(stderr, "in the child: %s\n", err.message);
	return ok && dbha_wait(h, DBHA_WAIT_ALL, 10000, &err) == DBHA_OK && dbha_status(h, &cluster, NULL, 0, &err) == 0 &&
	       cluster.nodes == 3;
}

static void in_child(dbha *h)
{
	int status;
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		alarm(20);
		signal(SIGALRM, SIG_DFL);
		bool ok = child_is_served(h);
		dbha_close(h, 0);
		_exit(ok ? 0 : 1);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}

START_TEST(a_child_discovers_for_itself)
{
	dbha *h = open_discovering();
	in_child(h); /* before the parent has done anything */
	all_three_up(h);
	dbha_conn *lease = lease_on(h, DBHA_WRITE, "127.0.0.1");
	in_child(h);
	/* With a node that is just leaving, and its connection in use. */
	zone_set("pg.test", "127.0.0.2 127.0.0.3 127.0.0.9");
	lead("127.0.0.9", 1);
	WAIT_FOR(node_at(h, "127.0.0.1").state == DBHA_STATE_ABSENT, PATIENCE_MS);
	in_child(h);
	ck_assert_str_eq(lease_fetch(lease, "SELECT current_setting('cluster_name')"), "node1");
	dbha_release(lease);
	WAIT_FOR(is_gone(h, "127.0.0.1"), PATIENCE_MS);
	WAIT_FOR(is(h, "127.0.0.9", DBHA_ROLE_PRIMARY, DBHA_STATE_UP), PATIENCE_MS);
	ck_assert_str_eq(writes_to(h), "node1");
	c.intact = true;
}
END_TEST

#endif

/* ---- the command ------------------------------------------------------------------------------------------------- */

static const char *output_of(const char *arguments)
{
	static char out[8192];
	char command[1200];
	snprintf(command, sizeof command, "./examples/dbha %s '%s'", arguments, url("pg.test:5432", "discover=dns"));
	FILE *pipe = popen(command, "re");
	ck_assert_ptr_nonnull(pipe);
	size_t n = fread(out, 1, sizeof out - 1, pipe);
	out[n] = '\0';
	ck_assert_int_eq(pclose(pipe), 0);
	return out;
}

START_TEST(dbha_status_shows_each_address)
{
	const char *text = output_of("status");
	for (int i = 1; i <= 3; i++) {
		char name[64];
		snprintf(name, sizeof name, "pg.test[127.0.0.%d]:5432", i);
		ASSERT_HAS(text, name);
	}
	int lines = 0;
	for (const char *at = text; *at; at++)
		lines += *at == '\n';
	ck_assert_msg(lines == 6 || lines == 7, "%s",
	              text); /* head, rule, three nodes, the verdict, and perhaps an empty line */
	ASSERT_HAS(text, "pg.test[127.0.0.1]:5432 accepts writes");
	ASSERT_HAS_NOT(text, "absent");
	text = output_of("status --json");
	ASSERT_HAS(text, "\"primary\": \"pg.test[127.0.0.1]:5432\"");
	int names = 0;
	for (const char *at = text; (at = strstr(at, "\"name\": \"pg.test[127.0.0.")); at++)
		names++;
	ck_assert_int_eq(names, 3);
	ASSERT_HAS_NOT(text, "\"name\": \"\"");
	ASSERT_HAS_NOT(text, "absent");
	c.intact = true;
}
END_TEST

/* ---- one node per name: the name moves ------------------------------------------------------------------------------ */

/* Whether a write is done by this node. One that was under way when its connection was cut may have been done or not. */
static bool writes_reach(dbha *h, const char *node, int *unknown)
{
	PGresult *result;
	dbha_error err;
	dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows (id) VALUES (1) RETURNING node", .intent = DBHA_WRITE);
	int code = dbha_exec(h, &rq, &result, &err);
	bool there = code == DBHA_OK && strcmp(PQgetvalue(result, 0, 0), node) == 0;
	PQclear(result);
	if (code != DBHA_OK) {
		ASSERT_CODE(code, UNKNOWN, err);
		*unknown += 1;
	}
	return there;
}

/* The old primary lives on and answers, but the name has moved to the promoted standby: writes follow the name. */
START_TEST(writes_follow_a_name_that_moves_from_a_living_primary)
{
	zone_set("writer.test", "127.0.0.1");
	dbha *h = open_handle(url("writer.test:5432", "discover=off"));
	int unknown = 0;
	ck_assert_str_eq(writes_to(h), "node1");
	cluster_do(&c, "promote 2");
	WAIT_FOR(*cluster_ask(&c, 2, "SELECT pg_is_in_recovery()") == 'f', PATIENCE_MS);
	zone_set("writer.test", "127.0.0.2");
	WAIT_FOR(writes_reach(h, "node2", &unknown), 5000);
	ck_assert_int_le(unknown, 1);
	for (int i = 0; i < 20; i++)
		ck_assert_str_eq(writes_to(h), "node2");
	/* Nothing is left of the connections to the old one. */
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") == 0, PATIENCE_MS);
}
END_TEST

START_TEST(a_name_that_moves_at_a_failover)
{
	zone_set("writer.test", "127.0.0.1");
	dbha *h = open_handle(url("writer.test:5432", "discover=off"));
	ck_assert_str_eq(writes_to(h), "node1");
	cluster_do(&c, "kill 1");
	cluster_do(&c, "promote 2");
	zone_set("writer.test", "127.0.0.2");
	ck_assert_str_eq(writes_to(h), "node2");
}
END_TEST

int main(void)
{
	net_require();
	/* A name server that does not answer is given up after a second: glibc's own word for that is in the environment. */
	setenv("RES_OPTIONS", "timeout:1 attempts:1", 1);
	Suite *suite = suite_create("discover");
	ADD_TEST(suite, three_addresses_are_three_nodes, world, NULL, 60);
	ADD_TEST(suite, without_discover_the_name_is_one_node, world, NULL, 60);
	ADD_TEST(suite, dbha_status_shows_each_address, world, NULL, 60);
	ADD_TEST(suite, an_address_that_vanishes_drains_and_comes_back, world, NULL, 60);
	ADD_TEST(suite, a_server_moves_to_a_new_address, world, NULL, 60);
	ADD_TEST(suite, addresses_come_and_go, world, NULL, 90);
	ADD_TEST(suite, a_name_server_in_trouble_changes_nothing, world, NULL, 90);
	ADD_TEST(suite, a_silent_name_server_costs_nobody_his_deadline, world, NULL, 60);
	ADD_TEST(suite, more_addresses_than_places, world, NULL, 60);
	ADD_TEST(suite, hosts_that_overlap, world, NULL, 60);
#ifndef __SANITIZE_THREAD__
	ADD_TEST(suite, a_child_discovers_for_itself, world, NULL, 90);
#endif
	ADD_TEST(suite, a_failover_between_addresses, world, NULL, 90);
	ADD_TEST(suite, a_leaving_primary_is_fenced, world, NULL, 90);
	ADD_TEST(suite, a_late_answer_does_not_settle_early, world, NULL, 90);
	ADD_TEST(suite, who_leaves_does_not_settle_for_who_comes, world, NULL, 90);
	ADD_TEST(suite, writes_follow_a_name_that_moves_from_a_living_primary, world, NULL, 90);
	ADD_TEST(suite, a_name_that_moves_at_a_failover, world, NULL, 90);
	return run_suite(suite, &c);
}
