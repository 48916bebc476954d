/*
 * test_nothread: monitor=off. No thread watches; the calls do, and the handles of the process share what they have seen.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"

#define OFF "monitor=off&application_name=nothread"

static struct cluster c;

static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id int, started timestamptz DEFAULT pg_postmaster_start_time()");
}

static int threads_now(void)
{
	int n = 0;
	DIR *tasks = opendir("/proc/self/task");
	ck_assert_ptr_nonnull(tasks);
	for (const struct dirent *entry; (entry = readdir(tasks));)
		n += entry->d_name[0] != '.';
	closedir(tasks);
	return n;
}

static long sessions(int node)
{
	return cluster_count(&c, node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'nothread'");
}

/* Time in which nobody calls the library: the point of these tests. */
static void idle(int ms)
{
	struct timespec pause = {ms / 1000, ms % 1000 * 1000000L};
	nanosleep(&pause, NULL);
}

/* ---- one handle --------------------------------------------------------------------------------------------------- */

START_TEST(no_thread_is_started_and_everything_works)
{
	int before = threads_now();
	dbha *h = open_handle(cluster_url(&c, NULL, OFF));
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1) RETURNING id");
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT pg_is_in_recovery()"), "f");
	ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_int_eq(cluster_status(h).primary, 0);
	ck_assert_int_eq(threads_now(), before);
	c.intact = true;
}
END_TEST

START_TEST(a_failover_is_followed_by_the_calls)
{
	dbha *h = open_handle(cluster_url(&c, NULL, OFF));
	dbha_error err;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1) RETURNING id");
	cluster_do(&c, "kill %d", 1);
	cluster_do(&c, "promote %d", 2);
	ASSERT_OK(run(h, DBHA_WRITE, 20000, "INSERT INTO rows VALUES (2)", &err), err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 2"), 1);
	ck_assert_int_eq(cluster_status(h).primary, 1);
}
END_TEST

/* While the process slept the cluster has moved on, and the old primary is up again and takes writes. */
START_TEST(after_a_sleep_the_first_write_goes_to_the_new_primary)
{
	dbha *h = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=200ms"));
	dbha_error err;
	fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1) RETURNING id");
	cluster_do(&c, "promote %d", 2);
	WAIT_FOR(strcmp(cluster_ask(&c, 2, "SELECT pg_is_in_recovery()"), "f") == 0, PATIENCE_MS);
	idle(500);
	/* The old primary has never stopped: its connections are open and it would take the row. */
	ASSERT_OK(run(h, DBHA_WRITE, 10000, "INSERT INTO rows VALUES (3)", &err), err);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows WHERE id = 3"), 1);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 3"), 0);
	ck_assert_int_eq(node_status(h, 0).state, DBHA_STATE_FENCED);
}
END_TEST

START_TEST(time_in_which_nobody_looked_is_no_silence)
{
	dbha *h = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=200ms&probe_timeout=250ms&probe_failures=1"));
	fetch(h, DBHA_WRITE, "SELECT 1");
	for (int i = 0; i < 10; i++) {
		idle(350); /* a probe is due, is sent by the next look, and is answered while nobody looks */
		for (int node = 0; node < 3; node++) {
			int state = (int)node_status(h, node).state;
			ck_assert_msg(state == DBHA_STATE_UP, "node %d is %s: %s", node + 1, dbha_state_name(state),
			              node_status(h, node).why);
		}
	}
	c.intact = true;
}
END_TEST

/* What was so when somebody looked last is no answer: the primary has died since, and nobody has seen it. */
START_TEST(a_wait_does_not_believe_an_old_view)
{
	dbha *h = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=100ms"));
	dbha_error err;
	fetch(h, DBHA_WRITE, "SELECT 1");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, 1000, &err), err);
	cluster_do(&c, "kill %d", 1);
	idle(300);
	ASSERT_CODE(dbha_wait(h, DBHA_WAIT_PRIMARY, 500, &err), NO_NODE, err);
	cluster_do(&c, "promote %d", 2);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, PATIENCE_MS, &err), err);
	ck_assert_int_eq(cluster_status(h).primary, 1);
}
END_TEST

/* How many of the calls of a process that calls now and then waited for a probe, while a standby was frozen. */
static int calls_that_waited(int probe_failures)
{
	char options[160];
	dbha_error err;
	int waited = 0;
	snprintf(options, sizeof options, OFF "&probe_interval=100ms&probe_timeout=600ms&probe_failures=%d",
	         probe_failures);
	dbha *h = open_handle(cluster_url(&c, NULL, options));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	cluster_do(&c, "pause %d", 3);
	for (int i = 0; i < probe_failures + 5; i++) {
		idle(300);
		int64_t began = now_ms();
		fetch(h, DBHA_WRITE, "SELECT 1");
		waited += now_ms() - began >= 400;
	}
	ck_assert_int_eq(node_status(h, 2).state, DBHA_STATE_SILENT);
	cluster_do(&c, "resume %d", 3);
	WAIT_FOR(node_status(h, 2).state == DBHA_STATE_UP, PATIENCE_MS);
	close_handle(h, 0);
	return waited;
}

/* A silence costs the call that meets it; when the standby is known to be silent, nobody waits for it any more. */
START_TEST(a_frozen_standby_does_not_slow_every_call)
{
	ck_assert_int_le(calls_that_waited(1), 1);
	ck_assert_int_le(calls_that_waited(3), 3);
	c.intact = true;
}
END_TEST

START_TEST(a_call_ends_with_its_deadline)
{
	dbha *h = open_handle(cluster_url(&c, "1 2", OFF));
	dbha_error err;
	fetch(h, DBHA_WRITE, "SELECT 1");
	cluster_do(&c, "pause %d", 1);
	int64_t began = now_ms();
	ASSERT_CODE(run(h, DBHA_WRITE, 700, "SELECT 1", &err), TIMEOUT, err);
	ck_assert_int_le(now_ms() - began, 700 + SLACK_MS);
	began = now_ms();
	int code = run(h, DBHA_WRITE, 700, "SELECT 1", &err);
	ck_assert_msg(code != DBHA_OK, "a frozen server answered");
	ck_assert_int_le(now_ms() - began, 700 + SLACK_MS);
	cluster_do(&c, "resume %d", 1);
	ASSERT_OK(run(h, DBHA_WRITE, 10000, "SELECT 1", &err), err);
	c.intact = true;
}
END_TEST

/* ---- several handles, threads, processes --------------------------------------------------------------------------- */

START_TEST(the_next_handle_asks_nobody_again)
{
	dbha *first = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=10s"));
	fetch(first, DBHA_WRITE, "SELECT 1");
	close_handle(first, 0);
	WAIT_FOR(sessions(1) + sessions(2) + sessions(3) == 0, PATIENCE_MS);
	for (int i = 0; i < 5; i++) {
		dbha *h = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=10s"));
		fetch(h, DBHA_WRITE, "SELECT 1");
		ck_assert_int_eq((int)counters(h, -1).probes, 0);
		ck_assert_int_eq(sessions(2) + sessions(3), 0);
		ck_assert_int_eq(sessions(1), 1);
		close_handle(h, 0);
	}
	/* Another role may see another cluster: nothing is shared with it. */
	dbha *other = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=10s&options=-cwork_mem%3D1MB"));
	fetch(other, DBHA_WRITE, "SELECT 1");
	ck_assert_int_ge((int)counters(other, -1).probes, 3);
	c.intact = true;
}
END_TEST

START_TEST(what_one_handle_has_seen_binds_the_next)
{
	dbha *first = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=100ms"));
	dbha_error err;
	fetch(first, DBHA_WRITE, "SELECT 1");
	cluster_do(&c, "promote %d", 2);
	WAIT_FOR(strcmp(cluster_ask(&c, 2, "SELECT pg_is_in_recovery()"), "f") == 0, PATIENCE_MS);
	WAIT_FOR(cluster_status(first).timeline == 2, PATIENCE_MS);
	close_handle(first, 0);
	cluster_do(&c, "kill %d", 2);
	cluster_do(&c, "kill %d", 3);
	idle(300); /* its view is too old to be used, its timeline is not */
	dbha *second = open_handle(cluster_url(&c, NULL, OFF "&probe_interval=100ms"));
	ASSERT_CODE(run(second, DBHA_WRITE, 1000, "INSERT INTO rows VALUES (4)", &err), NO_NODE, err);
	ASSERT_HAS(err.message, "fenced");
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 4"), 0);
}
END_TEST

static void *use(void *arg)
{
	dbha *h = arg;
	static atomic_long served;
	dbha_error err;
	for (int i = 0; i < 50; i++)
		if (run(h, i % 2 ? DBHA_READ : DBHA_WRITE, 10000, "SELECT pg_sleep(0.001)", &err) == DBHA_OK)
			atomic_fetch_add(&served, 1);
	return &served;
}

START_TEST(threads_take_turns)
{
	dbha *h = open_handle(cluster_url(&c, NULL, OFF "&pool_max_size=2"));
	pthread_t threads[8];
	atomic_long *served = NULL;
	for (int i = 0; i < 8; i++)
		threads[i] = start_thread(use, h);
	for (int i = 0; i < 8; i++)
		join_thread(threads[i]);
	served = use(h);
	ck_assert_int_eq(atomic_load(served), 9 * 50);
	c.intact = true;
}
END_TEST

static void *wait_for_nobody(void *arg)
{
	dbha_error err;
	return run(arg, DBHA_WRITE, 5000, "SELECT pg_sleep(5)", &err) == DBHA_OK ? arg : NULL;
}

/* Some wait for a primary that is not there, others for a place in a pool, each looking at the sockets in its turn. */
START_TEST(a_close_ends_the_turns_of_those_who_wait)
{
	for (int i = 0; i < 5; i++) {
		dbha *h = open_handle(cluster_url(&c, i % 2 ? "2 3" : NULL, OFF "&pool_max_size=1"));
		pthread_t threads[6];
		dbha_error err;
		ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, PATIENCE_MS, &err), err);
		for (int k = 0; k < 6; k++)
			threads[k] = start_thread(wait_for_nobody, h);
		idle(30);
		close_handle(h, 0);
		for (int k = 0; k < 6; k++)
			join_thread(threads[k]);
	}
	c.intact = true;
}
END_TEST

START_TEST(a_child_starts_anew)
{
	dbha *h = open_handle(cluster_url(&c, NULL, OFF));
	int parent = atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		dbha_error err;
		PGresult *result = NULL;
		dbha_request rq = DBHA_REQUEST(.sql = "SELECT pg_backend_pid()", .intent = DBHA_WRITE, .timeout_ms = 10000);
		int code = dbha_exec(h, &rq, &result, &err);
		bool other = code == DBHA_OK && atoi(PQgetvalue(result, 0, 0)) != parent;
		_exit(other ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), parent);
	c.intact = true;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("nothread");
	ADD_TEST(suite, no_thread_is_started_and_everything_works, servers, NULL, 30);
	ADD_TEST(suite, time_in_which_nobody_looked_is_no_silence, servers, NULL, 30);
	ADD_TEST(suite, a_frozen_standby_does_not_slow_every_call, servers, NULL, 60);
	ADD_TEST(suite, a_call_ends_with_its_deadline, servers, NULL, 30);
	ADD_TEST(suite, the_next_handle_asks_nobody_again, servers, NULL, 30);
	ADD_TEST(suite, threads_take_turns, servers, NULL, 60);
	ADD_TEST(suite, a_close_ends_the_turns_of_those_who_wait, servers, NULL, 60);
	ADD_TEST(suite, a_child_starts_anew, servers, NULL, 30);
	ADD_TEST(suite, a_wait_does_not_believe_an_old_view, servers, NULL, 90);
	ADD_TEST(suite, a_failover_is_followed_by_the_calls, servers, NULL, 90);
	ADD_TEST(suite, after_a_sleep_the_first_write_goes_to_the_new_primary, servers, NULL, 90);
	ADD_TEST(suite, what_one_handle_has_seen_binds_the_next, servers, NULL, 90);
	return run_suite(suite, &c);
}
