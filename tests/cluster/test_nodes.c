/*
 * test_nodes: every way in which a list of hosts can be wrong, dead, odd or hostile: what the calls do, what they say, and
 * what dbha_status shows.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"

static struct cluster c, other, twins;

static void servers(void)
{
	if (c.keeper)
		return;
	/* Also on ::1 where there is IPv6, and a conflict on a standby cancels the query at once. */
	cluster_with_rows(&c,
	                  "3 --set listen_addresses=127.0.0.1,::1 --set max_standby_streaming_delay=0 "
	                  "--set hot_standby_feedback=off",
	                  "id int");
	for (int node = 1; node <= 3; node++) {
		char hba[256];
		snprintf(hba, sizeof hba, "%s/node%d.hba.conf", c.dir, node);
		FILE *file = fopen(hba, "a");
		ck_assert(file != NULL);
		fputs("host all all ::1/128 scram-sha-256\n", file);
		fclose(file);
		cluster_ask(&c, node, "SELECT pg_reload_conf()");
	}
}

static void two_clusters(void)
{
	servers();
	if (!other.keeper)
		cluster_create(&other, "1");
}

/* ---- sockets of the test's own ------------------------------------------------------------------------------------ */

static int listen_anywhere(int *port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	ck_assert_int_eq(listen(fd, 64), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	*port = ntohs(address.sin_port);
	return fd;
}

/* A port on which nobody listens. */
static int dead_port(void)
{
	int port;
	close(listen_anywhere(&port));
	return port;
}

/* A server that is none: reads what it is sent, says this, and closes. */
struct liar {
	int fd;
	const char *says;
	size_t length;
};

static void *lie(void *arg)
{
	struct liar *liar = arg;
	for (int client; (client = accept(liar->fd, NULL, NULL)) >= 0; close(client)) {
		char question[1024];
		if (liar->says && (recv(client, question, sizeof question, 0) < 0 ||
		                   send(client, liar->says, liar->length, MSG_NOSIGNAL) < 0))
			continue;
	}
	return NULL;
}

/* ---- order and death ------------------------------------------------------------------------------------------------- */

START_TEST(the_primary_is_found_whatever_the_order_of_the_hosts)
{
	static const char *const orders[] = {"1 2 3", "3 2 1", "2 3 1", "2 1", "3 1 2"};
	for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
		dbha *h = open_handle(cluster_url(&c, orders[i], NULL));
		ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT pg_is_in_recovery()"), "f");
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
		ck_assert_int_eq(cluster_status(h).primary, (int)(strchr(orders[i], '1') - orders[i]) / 2);
		close_handle(h, 1000);
	}
}
END_TEST

START_TEST(dead_hosts_in_front_delay_nothing)
{
	char hosts[256];
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", dead_port(), dead_port(),
	         cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, NULL);
	int64_t began = now_ms();
	fetch(h, DBHA_WRITE, "SELECT 1");
	ck_assert_int_lt(now_ms() - began, 500);
	dbha_node_status dead = node_status(h, 0);
	ck_assert_int_eq(dead.state, DBHA_STATE_DOWN);
	ASSERT_HAS(dead.why, "refused");
	ck_assert_int_eq(dead.role, DBHA_ROLE_UNKNOWN);
	ck_assert_int_eq(dead.seen_ms_ago, -1);
	ck_assert_int_eq(cluster_status(h).primary, 2);
}
END_TEST

START_TEST(with_all_hosts_dead_a_call_ends_with_its_deadline_and_names_them)
{
	char hosts[256], a[32], b[32];
	snprintf(a, sizeof a, "127.0.0.1:%d", dead_port());
	snprintf(b, sizeof b, "127.0.0.1:%d", dead_port());
	snprintf(hosts, sizeof hosts, "%s,%s", a, b);
	dbha *h = open_hosts(&c, hosts, NULL);
	dbha_error err;
	int64_t best = INT64_MAX;
	for (int i = 0; i < 3; i++) {
		int64_t began = now_ms();
		ASSERT_CODE(run(h, i ? DBHA_READ : DBHA_WRITE, 200, "SELECT 1", &err), NO_NODE, err);
		best = now_ms() - began < best ? now_ms() - began : best;
	}
	ck_assert_int_le(best, 200 + SLACK_MS);
	ASSERT_HAS(err.message, a);
	ASSERT_HAS(err.message, b);
	ASSERT_HAS(err.message, "refused");
	ASSERT_CODE(dbha_wait(h, DBHA_WAIT_ANY, 100, &err), NO_NODE, err);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, 1000, &err), err);
}
END_TEST

/* ---- names, sockets, families ------------------------------------------------------------------------------------------ */

START_TEST(a_name_with_several_addresses_is_tried_at_each_of_them)
{
	char hosts[64];
	snprintf(hosts, sizeof hosts, "localhost:%d", cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, NULL);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 1"), "1");
	ck_assert_str_eq(node_status(h, 0).name, hosts);
	/* The other cluster listens on 127.0.0.1 only: where localhost is ::1 first, the second address has to do. */
	snprintf(hosts, sizeof hosts, "localhost:%d", cluster_port(&other, 1));
	char url[256];
	snprintf(url, sizeof url, "postgresql://app:%s@%s/app", cluster_password(&other), hosts);
	ck_assert_str_eq(fetch(open_handle(url), DBHA_WRITE, "SELECT 1"), "1");
}
END_TEST

START_TEST(a_name_that_does_not_resolve_is_reported_and_holds_up_nobody)
{
	char hosts[128];
	snprintf(hosts, sizeof hosts, "no-such-host.invalid:5432,127.0.0.1:%d", cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, "probe_timeout=1s");
	int64_t began = now_ms();
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT 1"), "1");
	ck_assert_int_lt(now_ms() - began, 2000);
	ck_assert_uint_gt(strlen(node_status(h, 0).why), 0);
	dbha *alone = open_hosts(&c, "no-such-host.invalid:5432", NULL);
	dbha_error err;
	began = now_ms();
	ASSERT_CODE(run(alone, DBHA_WRITE, 500, "SELECT 1", &err), NO_NODE, err);
	ck_assert_int_lt(now_ms() - began, 1000);
	ASSERT_HAS(err.message, "no-such-host.invalid");
}
END_TEST

START_TEST(a_unix_socket_directory_is_a_host)
{
	char conninfo[512];
	snprintf(conninfo, sizeof conninfo, "host=%s,%s port=%d,%d user=app password=%s dbname=app", c.dir, c.dir,
	         cluster_port(&c, 2), cluster_port(&c, 1), cluster_password(&c));
	dbha *h = open_handle(conninfo);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT inet_server_addr() IS NULL AND NOT pg_is_in_recovery()"), "t");
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	ASSERT_HAS(node_status(h, 0).name, c.dir);
}
END_TEST

START_TEST(an_ipv6_literal_is_a_host)
{
	char hosts[64];
	int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	bool available = fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
	close(fd);
	if (!available) {
		fputs("an_ipv6_literal_is_a_host: no IPv6 on this machine, not tried\n", stderr);
		return;
	}
	snprintf(hosts, sizeof hosts, "[::1]:%d,[::1]:%d", cluster_port(&c, 2), cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, NULL);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT inet_server_addr()"), "::1");
	ASSERT_HAS(node_status(h, 0).name, "::1");
}
END_TEST

START_TEST(the_same_server_twice_is_no_split_brain)
{
	char hosts[128];
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,localhost:%d", cluster_port(&c, 1), cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, NULL);
	dbha_error err;
	int code = run(h, DBHA_WRITE, 3000, "SELECT 1", &err);
	ASSERT_OK(code, err);
}
END_TEST

/* ---- foreigners and twins ------------------------------------------------------------------------------------------------ */

START_TEST(a_host_of_another_cluster_is_refused_by_name)
{
	char hosts[256], foreign[32], sql[128];
	/* So that it is not the password that tells them apart. */
	snprintf(sql, sizeof sql, "ALTER ROLE app PASSWORD '%s'", cluster_password(&c));
	cluster_ask(&other, 1, "%s", sql);
	cluster_ask(&other, 1, "CREATE TABLE IF NOT EXISTS rows (id int)");
	cluster_ask(&other, 1, "GRANT ALL ON rows TO app");
	snprintf(foreign, sizeof foreign, "127.0.0.1:%d", cluster_port(&other, 1));
	snprintf(hosts, sizeof hosts, "%s,127.0.0.1:%d,127.0.0.1:%d", foreign, cluster_port(&c, 1), cluster_port(&c, 2));
	dbha *h = open_hosts(&c, hosts, NULL);
	dbha_event event;
	for (int i = 0; i < 10; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	ck_assert_int_eq(cluster_count(&other, 1, "SELECT count(*) FROM rows"), 0);
	dbha_node_status node = node_status(h, 0);
	ck_assert_int_eq(node.state, DBHA_STATE_FOREIGN);
	ASSERT_HAS(node.why, "system identifier");
	ASSERT_HAS(node.why, cluster_ask(&other, 1, "SELECT system_identifier FROM pg_control_system()"));
	ck_assert(event_within(h, DBHA_EVENT_FOREIGN, 0, &event));
	ASSERT_HAS(event.text, foreign);
	ck_assert_int_eq(event.node, 0);

	/* Once the cluster is known, the foreigner serves nothing, not even when it alone is left. */
	cluster_do(&c, "stop 2");
	cluster_do(&c, "stop 1");
	dbha_error err;
	int write = run(h, DBHA_WRITE, 1000, "INSERT INTO rows VALUES (2)", &err);
	int read = run(h, DBHA_READ, 1000, "SELECT 1", &err);
	cluster_do(&c, "start 1");
	cluster_do(&c, "start 2");
	ck_assert_msg(write == DBHA_ERR_FOREIGN || write == DBHA_ERR_NO_NODE, "write: %s", dbha_code_name(write));
	ck_assert_msg(read == DBHA_ERR_FOREIGN || read == DBHA_ERR_NO_NODE, "read: %s", dbha_code_name(read));
	ASSERT_HAS(err.message, foreign);
	ck_assert_int_eq(cluster_count(&other, 1, "SELECT count(*) FROM rows"), 0);
	fetch(h, DBHA_WRITE, "SELECT 1");
}
END_TEST

/* Node 2's data directory becomes a copy of node 1's, made while that was stopped: the same cluster, the same timeline. */
static void make_twins(void)
{
	char shell[512];
	cluster_with_rows(&twins, "3", "id int");
	cluster_do(&twins, "kill 2");
	cluster_do(&twins, "stop 1");
	snprintf(shell, sizeof shell, "cd %s && rm -rf node2 && cp -a node1 node2 && rm -f node2.upstream.conf", twins.dir);
	ck_assert_int_eq(system(shell), 0);
	cluster_do(&twins, "start 1");
}

static void no_twins(void)
{
	cluster_destroy(&twins);
}

START_TEST(two_primaries_on_one_timeline_are_a_split_brain_for_writes_only)
{
	dbha *h = open_handle(cluster_url(&twins, NULL, NULL));
	dbha_error err;
	dbha_event event;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	cluster_do(&twins, "start 2");
	WAIT_FOR(cluster_status(h).split_brain, PATIENCE_MS);
	long before =
	    cluster_count(&twins, 1, "SELECT count(*) FROM rows") + cluster_count(&twins, 2, "SELECT count(*) FROM rows");
	for (int i = 0; i < 5; i++) {
		int64_t began = now_ms();
		ASSERT_CODE(run(h, DBHA_WRITE, 0, "INSERT INTO rows VALUES (2)", &err), SPLIT_BRAIN, err);
		ASSERT_CODE(run(h, DBHA_DEFAULT, 0, "INSERT INTO rows VALUES (2)", &err), SPLIT_BRAIN, err);
		ck_assert_int_lt(now_ms() - began, 1000);
		fetch(h, DBHA_READ, "SELECT 1");
	}
	ck_assert(err.retry_safe);
	for (int node = 0; node < 2; node++)
		ASSERT_HAS(err.message, node_status(h, node).name);
	ck_assert_ptr_null(dbha_acquire(h, DBHA_WRITE, 0, &err));
	ck_assert_int_eq(err.code, DBHA_ERR_SPLIT_BRAIN);
	ASSERT_CODE(dbha_wait(h, DBHA_WAIT_PRIMARY, 500, &err), SPLIT_BRAIN, err);
	ck_assert_int_eq(cluster_status(h).primary, -1);
	ck_assert(event_within(h, DBHA_EVENT_SPLIT_BRAIN, 1000, &event));

	/* A read that is a write must not slip through, nor a handle that comes only now, reads included without a standby. */
	ck_assert_int_ne(run(h, DBHA_READ, 500, "INSERT INTO rows VALUES (3)", &err), DBHA_OK);
	dbha *late = open_handle(cluster_url(&twins, "1 2", NULL));
	ASSERT_CODE(run(late, DBHA_WRITE, 5000, "INSERT INTO rows VALUES (2)", &err), SPLIT_BRAIN, err);
	ASSERT_OK(run(late, DBHA_READ, 5000, "SELECT count(*) FROM rows", &err), err);
	ck_assert_int_ne(run(late, DBHA_READ, 500, "INSERT INTO rows VALUES (3)", &err), DBHA_OK);
	ck_assert_int_eq(cluster_count(&twins, 1, "SELECT count(*) FROM rows") +
	                     cluster_count(&twins, 2, "SELECT count(*) FROM rows"),
	                 before);

	cluster_do(&twins, "stop 2");
	ASSERT_OK(run(h, DBHA_WRITE, 5000, "INSERT INTO rows VALUES (4)", &err), err);
	ck_assert(event_within(h, DBHA_EVENT_HEALED, 1000, &event));
	ck_assert_int_eq(cluster_count(&twins, 1, "SELECT count(*) FROM rows WHERE id = 4"), 1);
}
END_TEST

/* ---- hostile hosts ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_host_that_accepts_and_never_answers_costs_one_probe_timeout)
{
	char hosts[256];
	int port;
	int fd = listen_anywhere(&port);
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d", port, cluster_port(&c, 1));
	int64_t best = INT64_MAX;
	for (int i = 0; i < 3; i++) {
		dbha *h = open_hosts(&c, hosts, "probe_timeout=400ms");
		int64_t began = now_ms();
		fetch(h, DBHA_WRITE, "SELECT 1");
		int64_t took = now_ms() - began;
		best = took < best ? took : best;
		began = now_ms();
		for (int k = 0; k < 100; k++)
			fetch(h, DBHA_WRITE, "SELECT 1");
		ck_assert_int_lt(now_ms() - began, 400); /* the second call knows */
		ck_assert_int_eq(node_status(h, 0).state, DBHA_STATE_SILENT);
		ASSERT_HAS(node_status(h, 0).why, "no answer");
		close_handle(h, 1000);
	}
	ck_assert_int_le(best, 400 + SLACK_MS);
	dbha *alone =
	    open_hosts(&c, "192.0.2.1:5432", "probe_timeout=200ms&connect_timeout=60"); /* TEST-NET: nobody, or no route */
	dbha_error err;
	int64_t began = now_ms();
	ASSERT_CODE(run(alone, DBHA_WRITE, 500, "SELECT 1", &err), NO_NODE, err);
	ck_assert_int_lt(now_ms() - began, 500 + 2 * SLACK_MS);
	close(fd);
}
END_TEST

START_TEST(a_host_that_closes_or_talks_nonsense_is_passed_over)
{
	static const char http[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
	static const char zeros[64];
	static const char endless[] = "R\x7f\xff\xff\xff";
	static const char refusal[] = "N";
	static struct liar liars[] = {
	    {.says = NULL},
	    {.says = http, .length = sizeof http - 1},
	    {.says = zeros, .length = sizeof zeros},
	    {.says = endless, .length = sizeof endless - 1},
	    {.says = refusal, .length = 1},
	};
	char hosts[512] = "";
	size_t n = sizeof liars / sizeof liars[0];
	for (size_t i = 0; i < n; i++) {
		int port;
		liars[i].fd = listen_anywhere(&port);
		start_thread(lie, &liars[i]);
		snprintf(hosts + strlen(hosts), sizeof hosts - strlen(hosts), "127.0.0.1:%d,", port);
	}
	snprintf(hosts + strlen(hosts), sizeof hosts - strlen(hosts), "127.0.0.1:%d", cluster_port(&c, 1));
	dbha *h = open_hosts(&c, hosts, "probe_timeout=500ms");
	dbha_error err;
	int code = run(h, DBHA_WRITE, 5000, "SELECT 1", &err);
	bool all_down = true;
	for (size_t i = 0; i < n; i++)
		all_down = all_down && node_status(h, (int)i).state >= DBHA_STATE_SILENT && *node_status(h, (int)i).why;
	for (size_t i = 0; i < n; i++)
		shutdown(liars[i].fd, SHUT_RDWR);
	join_threads();
	for (size_t i = 0; i < n; i++)
		close(liars[i].fd);
	ASSERT_OK(code, err);
	ck_assert(all_down);
}
END_TEST

START_TEST(a_recovery_conflict_on_a_standby_costs_no_error)
{
	dbha *h = open_handle(cluster_url(&c, NULL, NULL));
	dbha_error err;
	static const char read[] = "SELECT count(*) FROM rows, pg_sleep(0.02)";
	for (int i = 0; i < 10; i++) {
		static const char *const changes[] = {"INSERT INTO rows SELECT generate_series(1, 300)", "DELETE FROM rows",
		                                      "VACUUM rows"};
		for (int k = 0; k < 3; k++)
			cluster_ask(&c, 1, "%s", changes[k]);
		ASSERT_OK(run(h, DBHA_READ, 10000, read, &err), err);
	}
	/* With a lock that replays in the middle of the read, which then is cancelled for sure. */
	for (int i = 0; i < 5; i++) {
		dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
		ck_assert(lease != NULL);
		ck_assert(PQsendQuery(dbha_conn_pq(lease),
		                      "BEGIN; LOCK rows IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(0.1); COMMIT"));
		PQflush(dbha_conn_pq(lease));
		ASSERT_OK(run(h, DBHA_READ, 10000, "SELECT count(*) FROM rows, pg_sleep(0.15)", &err), err);
		for (PGresult *result; (result = PQgetResult(dbha_conn_pq(lease)));)
			PQclear(result);
		dbha_release(lease);
	}
}
END_TEST

START_TEST(every_node_has_its_role_timeline_and_position_in_the_status)
{
	dbha *h = open_handle(cluster_url(&c, NULL, "probe_interval=100ms"));
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_cluster_status status = cluster_status(h);
	ck_assert_int_eq(status.nodes, 3);
	ck_assert_int_eq(status.primary, 0);
	ck_assert_uint_eq(status.timeline, 1);
	ck_assert(!status.split_brain);
	ck_assert_uint_eq(status.system_identifier,
	                  strtoull(cluster_ask(&c, 1, "SELECT system_identifier FROM pg_control_system()"), NULL, 10));
	cluster_ask(&c, 1, "INSERT INTO rows VALUES (7)");
	uint64_t lsn = strtoull(cluster_ask(&c, 1, "SELECT pg_current_wal_lsn() - '0/0'"), NULL, 10);
	for (int i = 0; i < 3; i++) {
		WAIT_FOR(node_status(h, i).lsn >= lsn, PATIENCE_MS);
		WAIT_FOR(node_status(h, i).lag_ms == 0 || (i && node_status(h, i).lag_ms < 300), PATIENCE_MS);
		dbha_node_status node = node_status(h, i);
		ck_assert_int_eq(node.role, i ? DBHA_ROLE_STANDBY : DBHA_ROLE_PRIMARY);
		ck_assert_int_eq(node.state, DBHA_STATE_UP);
		ck_assert_uint_eq(node.timeline, 1);
		ck_assert_int_gt(node.latency_us, 0);
		ck_assert_int_ge(node.seen_ms_ago, 0);
		ck_assert_str_eq(node.why, "");
	}
}
END_TEST

/* ---- sockets of the library ------------------------------------------------------------------------------------------- */

static int socket_option(int fd, int level, int option)
{
	int value = -1;
	socklen_t size = sizeof value;
	ck_assert_int_eq(getsockopt(fd, level, option, &value, &size), 0);
	return value;
}

static void expect_socket(int fd, int idle_s, int user_timeout_ms)
{
	ck_assert_int_ne(socket_option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	ck_assert_int_eq(socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), idle_s);
	ck_assert_int_eq(socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 3);
	ck_assert_int_eq(socket_option(fd, IPPROTO_TCP, TCP_KEEPCNT), 3);
	ck_assert_int_eq(socket_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), user_timeout_ms);
}

/* Every socket of this process that leads to a server of the cluster over TCP; how many there are. */
static int expect_sockets(int idle_s, int user_timeout_ms)
{
	int found = 0;
	for (int fd = 0; fd < 1024; fd++) {
		struct sockaddr_in peer = {.sin_family = AF_UNSPEC};
		socklen_t size = sizeof peer;
		if (getpeername(fd, (struct sockaddr *)&peer, &size) != 0 || peer.sin_family != AF_INET)
			continue;
		bool ours = false;
		for (int node = 1; node <= c.nodes; node++)
			ours = ours || ntohs(peer.sin_port) == cluster_port(&c, node);
		if (!ours)
			continue;
		expect_socket(fd, idle_s, user_timeout_ms);
		found++;
	}
	return found;
}

static void expect_keepalives(const char *options, int idle_s, int user_timeout_ms)
{
	dbha_error err;
	dbha *h = open_handle(cluster_url(&c, NULL, options));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_conn *writing = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert_ptr_nonnull(writing);
	dbha_conn *reading = dbha_acquire(h, DBHA_READ, 0, &err);
	ck_assert_ptr_nonnull(reading);
	expect_socket(PQsocket(dbha_conn_pq(writing)), idle_s, user_timeout_ms);
	expect_socket(PQsocket(dbha_conn_pq(reading)), idle_s, user_timeout_ms);
	/* The probes' connections are sockets too: one to each node, beside the two leases. */
	ck_assert_int_ge(expect_sockets(idle_s, user_timeout_ms), 3 + 2);
	dbha_release(writing);
	dbha_release(reading);
	close_handle(h, 1000);
}

START_TEST(every_socket_has_keepalives_and_a_timeout_for_what_nobody_acknowledges)
{
	expect_keepalives(NULL, 10, 15000);
	expect_keepalives("tcp_user_timeout=0&keepalives_idle=77", 77, 0);
}
END_TEST

static void nothing_left(void)
{
	cluster_destroy(&other);
}

int main(void)
{
	Suite *suite = suite_create("nodes");
	ADD_TEST(suite, the_primary_is_found_whatever_the_order_of_the_hosts, servers, NULL, 60);
	ADD_TEST(suite, dead_hosts_in_front_delay_nothing, servers, NULL, 30);
	ADD_TEST(suite, with_all_hosts_dead_a_call_ends_with_its_deadline_and_names_them, servers, NULL, 30);
	ADD_TEST(suite, a_name_that_does_not_resolve_is_reported_and_holds_up_nobody, servers, NULL, 30);
	ADD_TEST(suite, a_unix_socket_directory_is_a_host, servers, NULL, 30);
	ADD_TEST(suite, an_ipv6_literal_is_a_host, servers, NULL, 30);
	ADD_TEST(suite, the_same_server_twice_is_no_split_brain, servers, NULL, 30);
	ADD_TEST(suite, a_host_that_accepts_and_never_answers_costs_one_probe_timeout, servers, NULL, 30);
	ADD_TEST(suite, a_host_that_closes_or_talks_nonsense_is_passed_over, servers, NULL, 30);
	ADD_TEST(suite, a_recovery_conflict_on_a_standby_costs_no_error, servers, NULL, 60);
	ADD_TEST(suite, every_node_has_its_role_timeline_and_position_in_the_status, servers, NULL, 30);
	ADD_TEST(suite, every_socket_has_keepalives_and_a_timeout_for_what_nobody_acknowledges, servers, NULL, 30);
	ADD_TEST(suite, a_name_with_several_addresses_is_tried_at_each_of_them, two_clusters, NULL, 30);
	ADD_TEST(suite, a_host_of_another_cluster_is_refused_by_name, two_clusters, nothing_left, 60);
	ADD_TEST(suite, two_primaries_on_one_timeline_are_a_split_brain_for_writes_only, make_twins, no_twins, 60);
	return run_suite(suite, &c);
}
