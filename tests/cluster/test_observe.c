/*
 * test_observe: the cluster seen through dbha_status, dbha_stats, dbha_wait, events and the log; that no password is ever
 * shown; and the same behind PgBouncer, which hides what the servers report.
 */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster.h"

static struct cluster c;

static void servers(void)
{
	cluster_with_rows(&c, "3", "id int");
}

/* ---- status and counters ----------------------------------------------------------------------------------------- */

START_TEST(callers_with_smaller_and_larger_structs_get_what_they_have_room_for)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	struct {
		dbha_cluster_status status;
		char behind[16];
	} small;
	memset(&small, 0x5a, sizeof small);
	small.status.size = offsetof(dbha_cluster_status, nodes);
	ck_assert_int_eq(dbha_status(h, &small.status, NULL, 0, &err), 0);
	ck_assert_int_eq(small.status.primary, 0);
	ck_assert_int_eq(small.status.nodes, 0x5a5a5a5a); /* not touched */
	ck_assert_int_eq(small.behind[0], 0x5a);

	struct {
		dbha_node_status node;
		char newer[32];
	} large[3];
	memset(large, 0x5a, sizeof large);
	dbha_cluster_status status = {.size = sizeof status};
	large[0].node.size = sizeof large[0];
	ck_assert_int_eq(dbha_status(h, &status, &large[0].node, 3, &err), 3);
	for (int i = 0; i < 3; i++) {
		ck_assert_str_eq(large[i].node.name, node_status(h, i).name);
		ck_assert_int_eq(large[i].newer[0], 0x5a);
	}
	dbha_node_status two[2] = {{.size = sizeof two[0]}};
	ck_assert_int_eq(dbha_status(h, &status, two, 2, &err), 2);
	ck_assert_int_eq(status.nodes, 3);
	ck_assert_int_eq(dbha_status(h, &(dbha_cluster_status){.size = 0}, NULL, 0, &err), -1);
	ck_assert_int_eq(err.code, DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_status(h, &status, two, -1, &err), -1);
	ck_assert_int_eq(dbha_status(h, &status, NULL, 1, &err), -1);
}
END_TEST

START_TEST(counters_count_what_happened_where_it_happened)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	for (int i = 0; i < 10; i++)
		fetch(h, DBHA_WRITE, "SELECT 1");
	for (int i = 0; i < 10; i++)
		fetch(h, DBHA_READ, "SELECT 1");
	ASSERT_CODE(run(h, DBHA_WRITE, 0, "SELECT 1/0", &err), SERVER, err);
	ASSERT_CODE(run(h, DBHA_WRITE, 20, "SELECT pg_sleep(1)", &err), TIMEOUT, err);
	dbha_release(dbha_acquire(h, DBHA_WRITE, 0, &err));
	dbha_counters sum = counters(h, -1), primary = counters(h, 0), two = counters(h, 1), three = counters(h, 2);
	ck_assert_uint_eq(sum.statements, 21);
	ck_assert_uint_eq(primary.statements, 11);
	ck_assert_uint_eq(two.statements + three.statements, 10);
	ck_assert_uint_eq(sum.statement_errors, 1);
	ck_assert_uint_eq(sum.timeouts, 1);
	ck_assert_uint_eq(sum.acquires, 23);
	ck_assert_uint_ge(sum.connects, 2);
	ck_assert_uint_ge(sum.probes, 3);
	ck_assert_uint_eq(sum.primary_changes, 1);
	ck_assert_uint_eq(sum.retries, 0);
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	ck_assert_int_eq(node_status(h, 0).pool_used, 1);
	dbha_release(lease);
	ck_assert_int_eq(node_status(h, 0).pool_used, 0);
	ck_assert_int_ge(node_status(h, 0).pool_idle, 1);
}
END_TEST

/* ---- what watching costs the servers ----------------------------------------------------------------------------- */

#define WATCHED   "test_observe_watched"
#define WATCHING  2000
#define NODES_MAX 3

/* "PID" of the only session that the handle has on a node; "" for none, "PID PID" for two. */
static void watched_sessions(PGconn *oracle, char *pids, size_t size)
{
	PGresult *result = PQexec(oracle, "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity "
	                                  "WHERE application_name = '" WATCHED "'");
	ck_assert_msg(PQntuples(result) == 1, "%s", PQerrorMessage(oracle));
	snprintf(pids, size, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
}

/* Looked at every few milliseconds: a connect with its password takes as long, and would be seen. */
START_TEST(each_node_is_probed_over_one_connection_that_is_kept)
{
	dbha *h = open_all(&c, "pool_min_size=0&probe_interval=100ms&application_name=" WATCHED);
	PGconn *oracles[NODES_MAX];
	char first[NODES_MAX][128], pids[128];
	uint64_t probes[NODES_MAX];
	int looks = 0;
	for (int i = 0; i < NODES_MAX; i++) {
		oracles[i] = cluster_admin(&c, i + 1);
		watched_sessions(oracles[i], first[i], sizeof first[i]);
		ck_assert_msg(first[i][0] && !strchr(first[i], ' '), "node %d: sessions \"%s\"", i + 1, first[i]);
		probes[i] = counters(h, i).probes;
	}
	for (int64_t end = now_ms() + WATCHING; now_ms() < end; looks++) {
		for (int i = 0; i < NODES_MAX; i++) {
			watched_sessions(oracles[i], pids, sizeof pids);
			ck_assert_msg(strcmp(pids, first[i]) == 0, "node %d, look %d: sessions \"%s\", at first \"%s\"", i + 1,
			              looks, pids, first[i]);
		}
		short_pause();
	}
	ck_assert_int_gt(looks, 50);
	for (int i = 0; i < NODES_MAX; i++) {
		PQfinish(oracles[i]);
		/* It was asked all the time, and by one observation at a time, which then rests for an interval. */
		uint64_t asked = counters(h, i).probes - probes[i];
		ck_assert_msg(asked >= WATCHING / 100 / 3 && asked <= WATCHING / 100 * 2, "node %d: %llu probes", i + 1,
		              (unsigned long long)asked);
		ck_assert_uint_eq(counters(h, i).probes_failed, 0);
	}
}
END_TEST

/* ---- waiting --------------------------------------------------------------------------------------------------------- */

static void expect_timeout(dbha *h, dbha_wait_for what, const char *word)
{
	dbha_error err;
	int64_t best = INT64_MAX;
	for (int i = 0; i < 3; i++) {
		int64_t began = now_ms();
		ASSERT_CODE(dbha_wait(h, what, 150, &err), NO_NODE, err);
		best = now_ms() - began < best ? now_ms() - began : best;
	}
	ck_assert_int_ge(best, 149);
	ck_assert_int_le(best, 150 + SLACK_MS);
	ASSERT_HAS(err.message, word);
	for (int i = 0; i < 3; i++)
		ASSERT_HAS(err.message, node_status(h, i).name);
	ck_assert(err.retry_safe);
}

START_TEST(each_kind_of_wait_ends_when_its_state_is_there_and_else_in_time)
{
	dbha *h = open_handle(cluster_url(&c, NULL, NULL));
	dbha_error err;
	for (int what = DBHA_WAIT_PRIMARY; what <= DBHA_WAIT_PROBED; what++)
		ASSERT_OK(dbha_wait(h, (dbha_wait_for)what, PATIENCE_MS, &err), err);
	cluster_do(&c, "stop 3");
	WAIT_FOR(node_status(h, 2).state == DBHA_STATE_DOWN, PATIENCE_MS);
	expect_timeout(h, DBHA_WAIT_ALL, "every node");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_STANDBY, 100, &err), err);
	cluster_do(&c, "stop 2");
	WAIT_FOR(node_status(h, 1).state == DBHA_STATE_DOWN, PATIENCE_MS);
	expect_timeout(h, DBHA_WAIT_STANDBY, "a standby");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, 100, &err), err);
	cluster_do(&c, "stop 1");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_DOWN, PATIENCE_MS);
	expect_timeout(h, DBHA_WAIT_PRIMARY, "a primary");
	expect_timeout(h, DBHA_WAIT_ANY, "any node");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, 100, &err), err);
	for (int node = 1; node <= 3; node++)
		cluster_do(&c, "start %d", node);
	for (int what = DBHA_WAIT_PRIMARY; what <= DBHA_WAIT_PROBED; what++)
		ASSERT_OK(dbha_wait(h, (dbha_wait_for)what, PATIENCE_MS, &err), err);
}
END_TEST

/* ---- secrets and the log ------------------------------------------------------------------------------------------------ */

static const char *contents(const char *path)
{
	static char text[1 << 20];
	FILE *file = fopen(path, "r");
	ck_assert_msg(file != NULL, "%s", path);
	text[fread(text, 1, sizeof text - 1, file)] = '\0';
	fclose(file);
	return text;
}

/* A short life with some trouble: good and bad statements, a password that is refused, hosts that are dead. */
static void live(const char *options, const char *password)
{
	char more[512], hosts[128];
	dbha_error err;
	dbha_event event = {.size = sizeof event};
	snprintf(more, sizeof more, "%s", options);
	dbha *h = open_all(&c, more);
	fetch(h, DBHA_WRITE, "SELECT 1");
	run(h, DBHA_WRITE, 0, "DO $$BEGIN RAISE WARNING 'on stderr?'; END$$", &err);
	ASSERT_CODE(run(h, DBHA_WRITE, 0, "SELEKT", &err), SERVER, err);
	for (int i = 0; i < 2; i++) {
		snprintf(hosts, sizeof hosts, "postgresql://app:x%s@127.0.0.1:%d,127.0.0.1:1/app?%s", password,
		         cluster_port(&c, 1), options);
		dbha *bad = open_handle(hosts);
		ASSERT_CODE(run(bad, DBHA_WRITE, 200, "SELECT 1", &err), NO_NODE, err);
		ASSERT_HAS_NOT(err.message, password);
		ASSERT_CODE(dbha_wait(bad, DBHA_WAIT_ALL, 50, &err), NO_NODE, err);
		ASSERT_HAS_NOT(err.message, password);
		for (int k = 0; k < 2; k++)
			ASSERT_HAS_NOT(node_status(bad, k).why, password);
		while (dbha_next_event(bad, &event, NULL) == 1)
			ASSERT_HAS_NOT(event.text, password);
	}
	handles_close();
}

START_TEST(nothing_is_written_unless_asked_and_never_a_password)
{
	char path[300], options[400], password[64], output[320];
	snprintf(password, sizeof password, "%s", cluster_password(&c));
	snprintf(path, sizeof path, "%s/../%s.log", c.dir, strrchr(c.dir, '/') + 1);
	snprintf(output, sizeof output, "%s.out", path);
	int saved_out = dup(STDOUT_FILENO), saved_err = dup(STDERR_FILENO);
	int file = open(output, O_CREAT | O_RDWR | O_TRUNC | O_APPEND, 0600);
	fflush(NULL);
	dup2(file, STDOUT_FILENO);
	dup2(file, STDERR_FILENO);
	live("log_level=off", password);
	live("log_level=debug", password); /* and no file */
	snprintf(options, sizeof options, "log_file=%s", path);
	live(options, password); /* and no level */
	bool made = access(path, F_OK) == 0;
	snprintf(options, sizeof options, "log_file=%s&log_level=debug", path);
	live(options, password);
	off_t printed = lseek(file, 0, SEEK_END);
	live("log_file=stderr&log_level=info", password);
	off_t asked_for = lseek(file, 0, SEEK_END);
	fflush(NULL);
	dup2(saved_out, STDOUT_FILENO);
	dup2(saved_err, STDERR_FILENO);
	close(saved_out);
	close(saved_err);
	close(file);
	ck_assert_msg(printed == 0, "%s", contents(output));
	ck_assert(!made);
	ck_assert_int_gt(asked_for, 100);
	ASSERT_HAS_NOT(contents(output), password);
	ASSERT_HAS(contents(path), "primary");
	ASSERT_HAS_NOT(contents(path), password);
	struct stat meta;
	ck_assert_int_eq(stat(path, &meta), 0);
	ck_assert_int_eq(meta.st_mode & 07, 0);
	unlink(path);
	unlink(output);
}
END_TEST

START_TEST(a_refused_url_does_not_show_its_password)
{
	static const char *const bad[] = {
	    "postgresql://app:s3cr3tWord@h1:notaport/db",
	    "postgresql://app:s3cr3tWord@h1:1,h2:2,h3:x/db",
	    "postgresql://app:s3cr3tWord@h1/db?no_such_option=1",
	    "postgresql://app:s3cr3tWord@h1/db?pool_max_size=0",
	    "postgresql://app:s3cr3tWord@h1/db?password=s3cr3tWord&sslmode=maybe",
	    "postgresql://app:s3cr3tWord%ZZ@h1/db",
	    "postgresql://app:s3cr3tWord@[::1/db",
	    "postgresql://app:s3cr3tWord@h1/db?call_timeout=never",
	    "postgresql:/app:s3cr3tWord@h1/db",
	    "mysql://app:s3cr3tWord@h1/db",
	    "host=h1 user=app password=s3cr3tWord no_such_option=1",
	    "host=h1 user=app password='s3cr3tWord",
	    "host=h1 user=app password s3cr3tWord",
	    "host=h1,h2 port=1,2,3 user=app password=s3cr3tWord",
	    "postgresql+a b://app:s3cr3tWord@h1/db",
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		dbha_error err = {.code = 0};
		dbha *h = dbha_open(bad[i], &err);
		ck_assert_msg(h == NULL, "accepted: %s", bad[i]);
		ck_assert_int_eq(err.code, DBHA_ERR_CONFIG);
		ck_assert_uint_gt(strlen(err.message), 10);
		ck_assert_msg(!strstr(err.message, "s3cr3tWord"), "%s: %s", bad[i], err.message);
	}
	dbha_config *config = dbha_config_new("postgresql://app:s3cr3tWord@h1/db", NULL);
	ck_assert(config != NULL);
	ck_assert_str_eq(dbha_config_get(config, "password"), "********");
	dbha_config_free(config);
}
END_TEST

/* ---- behind a pooler ------------------------------------------------------------------------------------------------------ */

/* PgBouncer in transaction mode in front of one node; ends with this program, because its standard input does. */
static FILE *start_bouncer(int node, int *port)
{
	char ini[192], shell[1024];
	*port = cluster_port(&c, node) - 10000; /* the harness uses 20000 to 29999 */
	snprintf(ini, sizeof ini, "%s/bouncer%d.ini", c.dir, node);
	FILE *file = fopen(ini, "w");
	ck_assert(file != NULL);
	fprintf(file,
	        "[databases]\napp = host=127.0.0.1 port=%d dbname=app user=app password=%s\n[pgbouncer]\nlisten_addr = "
	        "127.0.0.1\n"
	        "listen_port = %d\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
	        "logfile = %s/bouncer%d.log\nlog_stats = 0\nserver_reset_query_always = 0\n",
	        cluster_port(&c, node), cluster_password(&c), *port, c.dir, node);
	fclose(file);
	snprintf(shell, sizeof shell,
	         "export PATH=$PATH:/usr/sbin; chown --reference=%s/node1 %s; owner=$(stat -c %%U %s/node1); "
	         "if [ $(id -u) = 0 ]; then as=\"-u $owner\"; fi; pgbouncer -q $as %s 2>/dev/null & cat >/dev/null; kill "
	         "$!; wait",
	         c.dir, ini, c.dir, ini);
	FILE *bouncer = popen(shell, "we");
	ck_assert(bouncer != NULL);
	return bouncer;
}

/* The same question to both sessions that the pooler may have, which two open transactions keep apart: "off off". */
static const char *in_both_sessions(int port, const char *sql)
{
	static char values[256];
	char conninfo[128];
	PGconn *pg[2];
	values[0] = '\0';
	snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%d user=app dbname=app", port);
	for (int i = 0; i < 2; i++) {
		pg[i] = PQconnectdb(conninfo);
		ck_assert_msg(PQstatus(pg[i]) == CONNECTION_OK, "%s", PQerrorMessage(pg[i]));
		PQclear(PQexec(pg[i], "BEGIN"));
	}
	for (int i = 0; i < 2; i++) {
		PGresult *result = PQexec(pg[i], sql);
		size_t used = strlen(values);
		snprintf(values + used, sizeof values - used, "%s%s", i ? " " : "",
		         PQntuples(result) ? PQgetvalue(result, 0, 0) : PQerrorMessage(pg[i]));
		PQclear(result);
		PQfinish(pg[i]);
	}
	return values;
}

static atomic_long mixed_errors;

static void *mixed_work(void *arg)
{
	for (int i = 0; i < 100; i++) {
		dbha_error err;
		if (run(arg, i % 2 ? DBHA_READ : DBHA_WRITE, 5000, "SELECT count(*) FROM rows", &err) != DBHA_OK &&
		    atomic_fetch_add(&mixed_errors, 1) == 0)
			fprintf(stderr, "behind PgBouncer: %s\n", err.message);
	}
	return NULL;
}

START_TEST(behind_pgbouncer_roles_are_asked_for_and_no_session_is_changed)
{
	int ports[2];
	FILE *bouncers[2];
	char url[256];
	for (int i = 0; i < 2; i++)
		bouncers[i] = start_bouncer(2 - i, &ports[i]); /* the standby's first */
	snprintf(url, sizeof url, "postgresql://app@127.0.0.1:%d,127.0.0.1:%d/app?probe_interval=100ms", ports[0],
	         ports[1]);
	dbha *h = open_handle(url);
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_int_eq(cluster_status(h).primary, 1);
	ck_assert_int_eq(node_status(h, 0).role, DBHA_ROLE_STANDBY);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT pg_is_in_recovery()"), "f");
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	ASSERT_OK(run(h, DBHA_READ, 0, "INSERT INTO rows VALUES (2)", &err), err);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT count(*) FROM rows"), "2");

	for (int i = 0; i < 8; i++)
		start_thread(mixed_work, h);
	join_threads();
	ck_assert_int_eq(atomic_load(&mixed_errors), 0);

	/* Sessions are shared with others, who must not find them read-only, with other settings or with our statements. */
	handles_close();
	for (int i = 0; i < 2; i++) {
		ck_assert_str_eq(in_both_sessions(ports[i], "SHOW default_transaction_read_only"), "off off");
		ck_assert_str_eq(in_both_sessions(ports[i], "SELECT count(*) FROM pg_prepared_statements"), "0 0");
		ck_assert_str_eq(in_both_sessions(ports[i],
		                                  "SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN "
		                                  "('application_name', 'client_encoding', 'DateStyle', 'TimeZone', "
		                                  "'standard_conforming_strings')"),
		                 "0 0");
	}
	for (int i = 0; i < 2; i++)
		pclose(bouncers[i]);
}
END_TEST

/* A pooler passes a cancel request on, and the answer counts; but when the request has come to its end only the pooler knows. */
START_TEST(behind_pgbouncer_a_statement_is_stopped_at_its_deadline)
{
	int port;
	char url[256];
	dbha_error err;
	FILE *bouncer = start_bouncer(1, &port);
	snprintf(url, sizeof url, "postgresql://app@127.0.0.1:%d/app?pool_max_size=2", port);
	dbha *h = open_handle(url);
	fetch(h, DBHA_WRITE, "SELECT 1");
	int stopped = 0;
	for (int i = 0; i < 6; i++) {
		const char *sql = "INSERT INTO rows SELECT 77 FROM pg_sleep(60)";
		ASSERT_CODE(run(h, DBHA_WRITE, i == 5 ? 2300 : 200, sql, &err), TIMEOUT, err);
		ck_assert(err.retry_safe == !err.outcome_unknown);
		stopped += err.retry_safe;
		for (int k = 0; k < 20; k++)
			fetch(h, DBHA_WRITE, "SELECT pg_sleep(0.001)");
	}
	ck_assert_int_ge(stopped, SANITIZED ? 0 : 3);
	ck_assert_uint_ge(counters(h, 0).closed_broken, 6);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 77"), 0);
	handles_close();
	pclose(bouncer);
}
END_TEST

/* ---- events: the last test, it breaks the cluster --------------------------------------------------------------------------- */

static dbha_event expect_event(dbha *h, int kind, int node)
{
	dbha_event event;
	ck_assert_msg(event_within(h, kind, PATIENCE_MS, &event), "no event %s", dbha_event_name(kind));
	ck_assert_int_eq(event.node, node);
	return event;
}

START_TEST(the_events_of_a_failover_come_in_a_sensible_order)
{
	dbha *h = open_all(&c, NULL);
	dbha_event found = expect_event(h, DBHA_EVENT_PRIMARY, 0);
	ck_assert_uint_eq(found.timeline, 1);
	ASSERT_HAS(found.text, node_status(h, 0).name);
	cluster_do(&c, "restart 3");
	expect_event(h, DBHA_EVENT_RESTARTED, 2);
	cluster_do(&c, "kill 1");
	dbha_event lost = expect_event(h, DBHA_EVENT_NO_PRIMARY, 0);
	ck_assert_uint_eq(lost.timeline, 1);
	cluster_do(&c, "promote 2");
	/* The old one is shut out in the same moment in which the new one is found, before anybody is sent there. */
	dbha_event fenced = expect_event(h, DBHA_EVENT_FENCED, 0);
	ck_assert_uint_eq(fenced.timeline, 2);
	ASSERT_HAS(fenced.text, node_status(h, 0).name);
	dbha_event next = expect_event(h, DBHA_EVENT_PRIMARY, 1);
	ck_assert_uint_eq(next.timeline, 2);
	ck_assert_int_ge(lost.monotonic_us, found.monotonic_us);
	ck_assert_int_ge(fenced.monotonic_us, lost.monotonic_us);
	ck_assert_int_ge(next.monotonic_us, fenced.monotonic_us);
	ck_assert_int_gt(next.unix_us, 1600000000000000LL);
	cluster_do(&c, "start 1");
	dbha_event returned;
	do
		ck_assert(event_within(h, DBHA_EVENT_NODE, PATIENCE_MS, &returned));
	while (returned.node != 0 || !strstr(returned.text, "fenced"));
	ck_assert_uint_eq(cluster_status(h).timeline, 2);
	cluster_do(&c, "rejoin 1 2");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_UP && node_status(h, 0).role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	cluster_do(&c, "follow 3 2");
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert(!event_within(h, DBHA_EVENT_NO_PRIMARY, 0, NULL));
	ck_assert_uint_eq(counters(h, -1).primary_changes, 2);
	ck_assert_uint_eq(counters(h, -1).events_dropped, 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("observe");
	ADD_TEST(suite, callers_with_smaller_and_larger_structs_get_what_they_have_room_for, servers, NULL, 60);
	ADD_TEST(suite, counters_count_what_happened_where_it_happened, servers, NULL, 30);
	ADD_TEST(suite, each_node_is_probed_over_one_connection_that_is_kept, servers, NULL, 30);
	ADD_TEST(suite, a_refused_url_does_not_show_its_password, servers, NULL, 30);
	ADD_TEST(suite, nothing_is_written_unless_asked_and_never_a_password, servers, NULL, 60);
	ADD_TEST(suite, behind_pgbouncer_roles_are_asked_for_and_no_session_is_changed, servers, NULL, 60);
	ADD_TEST(suite, behind_pgbouncer_a_statement_is_stopped_at_its_deadline, servers, NULL, 60);
	ADD_TEST(suite, each_kind_of_wait_ends_when_its_state_is_there_and_else_in_time, servers, NULL, 60);
	ADD_TEST(suite, the_events_of_a_failover_come_in_a_sensible_order, servers, NULL, 60);
	return run_suite(suite, &c);
}
