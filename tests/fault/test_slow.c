/*
 * test_slow: slow is not dead, and no is not silence. Servers that are overloaded, full, starting, or refuse us: each has its own
 * state and its reason, in dbha_status and in `dbha status`; a primary that works is not left for it, and the other nodes
 * are used meanwhile.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster.h"
#include "net.h"
#include "work.h"

#define BURNERS_MAX 256
#define PLAIN_MAX   (30 + BURNERS_MAX)

static struct cluster c;

/* Sessions that keep every core of this machine busy, four on each. */
static int burners(void)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	ck_assert_int_gt(cores, 0);
	return cores > BURNERS_MAX / 4 ? BURNERS_MAX : (int)cores * 4;
}

static void servers(void)
{
	char arguments[64];
	if (c.keeper)
		return;
	snprintf(arguments, sizeof arguments, "3 --set max_connections=%d", 22 + burners());
	cluster_with_rows(&c, arguments, "id bigint");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION burn(seconds float) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE n bigint := 0; "
	            "until timestamptz := clock_timestamp() + make_interval(secs => seconds); BEGIN "
	            "WHILE clock_timestamp() < until LOOP n := n + 1; END LOOP; RETURN n; END $$");
	cluster_all_catch_up(&c);
}

/* What `dbha status` prints of the cluster. */
static const char *status_output(const char *url)
{
	static char text[8192];
	char command[1024];
	snprintf(command, sizeof command, "./examples/dbha status '%s' 2>&1", url);
	FILE *status = popen(command, "r");
	ck_assert(status != NULL);
	text[fread(text, 1, sizeof text - 1, status)] = '\0';
	pclose(status);
	return text;
}

/* One node is in this state for this reason, and the others do its work: for a handle that was not there before. */
static void expect_state(int node, dbha_state state, const char *reason, const char *url)
{
	dbha_error err;
	dbha *late = open_handle(url);
	ASSERT_OK(dbha_wait(late, DBHA_WAIT_PROBED, PATIENCE_MS, &err), err);
	dbha_node_status status = node_status(late, node - 1);
	ck_assert_msg(status.state == (int)state, "node %d is %s: %s", node, dbha_state_name(status.state), status.why);
	ASSERT_HAS(status.why, reason);
	for (int i = 0; i < 20; i++)
		fetch(late, DBHA_READ, "SELECT 1");
	if (node != 1)
		fetch(late, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	close_handle(late, 0);
	const char *printed = status_output(url);
	ASSERT_HAS(printed, dbha_state_name(state));
	ASSERT_HAS(printed, reason);
}

/* A handle that was there all the time has not left the primary. */
static void expect_no_failover(dbha *h)
{
	dbha_event event;
	ck_assert_int_eq(cluster_status(h).primary, 0);
	ck_assert(!event_within(h, DBHA_EVENT_NO_PRIMARY, 0, &event));
	ck_assert_uint_eq(counters(h, -1).primary_changes, 1);
	ck_assert_uint_eq(node_status(h, 0).generation, 1);
}

/* ---- slow ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_primary_at_full_load_with_slow_queries_is_not_left)
{
	char options[64], nervously[128];
	int n = burners();
	snprintf(options, sizeof options, "pool_max_size=%d", n);
	snprintf(nervously, sizeof nervously, "%s&probe_profile=aggressive", options);
	dbha *h = open_all(&c, options);
	dbha *nervous = open_all(&c, nervously);
	static struct statement slow[BURNERS_MAX];
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < n; i++)
			statement_start(&slow[i], i % 2 ? h : nervous, DBHA_WRITE, 60000, "SELECT burn(2)");
		for (int i = 0; i < n; i++)
			statement_join(&slow[i]);
		for (int i = 0; i < n; i++)
			ASSERT_OK(slow[i].code, slow[i].err);
	}
	ck_assert_uint_eq(counters(h, -1).retries, 0);
	ck_assert_uint_eq(counters(nervous, -1).retries, 0);
	printf("# probes of a primary at full load: %llu answered, %llu failed; %llu answered, %llu failed (aggressive)\n",
	       (unsigned long long)counters(h, 0).probes, (unsigned long long)counters(h, 0).probes_failed,
	       (unsigned long long)counters(nervous, 0).probes, (unsigned long long)counters(nervous, 0).probes_failed);
	expect_no_failover(h);
	expect_no_failover(nervous);
}
END_TEST

/* ---- full ---------------------------------------------------------------------------------------------------------- */

static PGconn *plain[PLAIN_MAX];
static int n_plain;

/* Takes every connection of a node that role app can get. */
static void fill(int node)
{
	char conninfo[256];
	snprintf(conninfo, sizeof conninfo, "host=127.0.0.1 port=%d user=app password=%s dbname=app connect_timeout=5",
	         cluster_port(&c, node), cluster_password(&c));
	for (;;) {
		ck_assert_int_lt(n_plain, PLAIN_MAX);
		plain[n_plain] = PQconnectdb(conninfo);
		if (PQstatus(plain[n_plain]) != CONNECTION_OK)
			break;
		n_plain++;
	}
	ASSERT_HAS(PQerrorMessage(plain[n_plain]), "reserved");
	PQfinish(plain[n_plain]);
}

static void empty(void)
{
	while (n_plain > 0)
		PQfinish(plain[--n_plain]);
}

START_TEST(a_full_standby_is_passed_over)
{
	fill(2);
	expect_state(2, DBHA_STATE_FULL, "53300", cluster_url(&c, "1 2 3", NULL));
	empty();
}
END_TEST

START_TEST(a_full_primary_is_not_left_and_what_is_open_goes_on)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	fill(1);
	for (int i = 0; i < 50; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (2)");
	/* The one connection is taken: more would have to be made. */
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows VALUES (3)", &err), POOL, err);
	ASSERT_HAS(err.message, "53300");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FULL, PATIENCE_MS);
	ASSERT_HAS(node_status(h, 0).why, "53300");
	dbha_release(lease);
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (4)");
	expect_no_failover(h);
	expect_state(1, DBHA_STATE_FULL, "53300", cluster_url(&c, NULL, NULL));
	/* One that comes now can write as soon as there is room. */
	static struct statement waiting;
	dbha *late = open_handle(cluster_url(&c, NULL, NULL));
	statement_start(&waiting, late, DBHA_WRITE, 20000, "INSERT INTO rows VALUES (5)");
	WAIT_FOR(node_status(late, 0).state == DBHA_STATE_FULL, PATIENCE_MS);
	empty();
	statement_join(&waiting);
	ASSERT_OK(waiting.code, waiting.err);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 3"), 0);
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_UP, PATIENCE_MS);
}
END_TEST

/* ---- starting ------------------------------------------------------------------------------------------------------ */

static void set_in_file(int node, const char *line)
{
	char path[256];
	snprintf(path, sizeof path, "%s/node%d.conf", c.dir, node);
	FILE *file = fopen(path, "a");
	ck_assert(file != NULL);
	fprintf(file, "%s\n", line);
	fclose(file);
}

START_TEST(a_standby_that_does_not_accept_connections_yet_is_passed_over)
{
	dbha *h = open_all(&c, NULL);
	cluster_do(&c, "stop 3");
	set_in_file(3, "hot_standby = off");
	cluster_do(&c, "start 3");
	WAIT_FOR(node_status(h, 2).state == DBHA_STATE_STARTING, PATIENCE_MS);
	expect_state(3, DBHA_STATE_STARTING, "57P03", cluster_url(&c, "1 2 3", NULL));
	expect_no_failover(h);
	cluster_do(&c, "stop 3");
	set_in_file(3, "hot_standby = on");
	cluster_do(&c, "start 3");
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
}
END_TEST

/* ---- refused ------------------------------------------------------------------------------------------------------- */

/* In front of what the node's pg_hba.conf says; NULL: only that again. */
static void set_hba(int node, const char *line)
{
	char shell[512];
	snprintf(shell, sizeof shell,
	         "cd %s && { [ -f node%d.hba.old ] || cp node%d.hba.conf node%d.hba.old; } && "
	         "{ echo '%s'; cat node%d.hba.old; } >node%d.hba.conf",
	         c.dir, node, node, node, line ? line : "", node, node);
	ck_assert_int_eq(system(shell), 0);
	cluster_ask(&c, node, "SELECT pg_reload_conf()");
	WAIT_FOR(cluster_count(&c, node, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'reject'") ==
	             (line != NULL),
	         PATIENCE_MS);
}

START_TEST(a_standby_that_refuses_us_is_passed_over)
{
	dbha *h = open_all(&c, NULL);
	set_hba(2, "host all app 127.0.0.1/32 reject");
	expect_state(2, DBHA_STATE_REFUSED, "28000", cluster_url(&c, "1 2 3", NULL));
	for (int i = 0; i < 20; i++)
		fetch(h, DBHA_READ, "SELECT 1");
	set_hba(2, NULL);
	expect_no_failover(h);
}
END_TEST

START_TEST(a_wrong_password_on_one_node_is_told_and_the_others_are_used)
{
	char path[256], url[512];
	snprintf(path, sizeof path, "%s/wrong.pgpass", c.dir);
	FILE *file = fopen(path, "w");
	ck_assert(file != NULL);
	ck_assert_int_eq(fchmod(fileno(file), 0600), 0);
	fprintf(file, "127.0.0.1:%d:*:app:wrong\n127.0.0.1:*:*:app:%s\n", cluster_port(&c, 3), cluster_password(&c));
	fclose(file);
	for (int first = 1; first <= 3; first += 2) {
		snprintf(url, sizeof url, "postgresql://app@127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d/app?passfile=%s",
		         cluster_port(&c, first), cluster_port(&c, 2), cluster_port(&c, 4 - first), path);
		dbha *late = open_handle(url);
		fetch(late, DBHA_WRITE, "INSERT INTO rows VALUES (6)");
		for (int i = 0; i < 20; i++)
			ck_assert_str_eq(fetch(late, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
		dbha_node_status status = node_status(late, first == 1 ? 2 : 0);
		ck_assert_int_eq(status.state, DBHA_STATE_REFUSED);
		ASSERT_HAS(status.why, "28P01");
		ASSERT_HAS(status_output(url), "28P01");
	}
}
END_TEST

START_TEST(a_primary_that_refuses_new_connections_is_not_left)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	set_hba(1, "host all app 127.0.0.1/32 reject");
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows VALUES (7)", &err), POOL, err);
	ASSERT_HAS(err.message, "28000");
	ck_assert_int_eq(cluster_status(h).primary, 0);
	dbha_release(lease);
	for (int i = 0; i < 50; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (8)");
	expect_no_failover(h);
	expect_state(1, DBHA_STATE_REFUSED, "28000", cluster_url(&c, NULL, NULL));
	set_hba(1, NULL);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 7"), 0);
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_UP, PATIENCE_MS);
}
END_TEST

static void old_password(void)
{
	cluster_ask(&c, 1, "ALTER ROLE app PASSWORD '%s'", cluster_password(&c));
	for (int node = 2; node <= 3; node++)
		cluster_catch_up(&c, node, 1);
}

/* The password is changed in the cluster and not in the application: a mistake of every day. */
START_TEST(a_primary_with_another_password_by_now_is_not_left)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
	cluster_ask(&c, 1, "ALTER ROLE app PASSWORD 'changed-by-somebody'");
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	ASSERT_CODE(run(h, DBHA_WRITE, 500, "INSERT INTO rows VALUES (9)", &err), POOL, err);
	ASSERT_HAS(err.message, "28P01");
	dbha_node_status primary = node_status(h, 0);
	ck_assert_int_eq(primary.state, DBHA_STATE_REFUSED);
	ck_assert_int_eq(primary.role, DBHA_ROLE_PRIMARY);
	ASSERT_HAS(primary.why, "28P01");
	ASSERT_HAS_NOT(primary.why, cluster_password(&c));
	const char *printed = status_output(cluster_url(&c, NULL, NULL));
	ASSERT_HAS(printed, dbha_state_name(DBHA_STATE_REFUSED));
	ASSERT_HAS(printed, "28P01");
	dbha_release(lease);
	for (int i = 0; i < 50; i++)
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (10)");
	expect_no_failover(h);
	old_password();
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 9"), 0);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 10"), 50);
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_UP, PATIENCE_MS);
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("slow");
	ADD_TEST(suite, a_primary_at_full_load_with_slow_queries_is_not_left, servers, NULL, 90);
	ADD_TEST(suite, a_full_standby_is_passed_over, servers, empty, 60);
	ADD_TEST(suite, a_full_primary_is_not_left_and_what_is_open_goes_on, servers, empty, 60);
	ADD_TEST(suite, a_standby_that_does_not_accept_connections_yet_is_passed_over, servers, NULL, 60);
	ADD_TEST(suite, a_standby_that_refuses_us_is_passed_over, servers, NULL, 60);
	ADD_TEST(suite, a_wrong_password_on_one_node_is_told_and_the_others_are_used, servers, NULL, 60);
	ADD_TEST(suite, a_primary_that_refuses_new_connections_is_not_left, servers, NULL, 60);
	ADD_TEST(suite, a_primary_with_another_password_by_now_is_not_left, servers, old_password, 60);
	return run_suite(suite, &c);
}
