/*
 * test_close: dbha_close in the middle of everything: calls that wait, statements that run, leases that are out, connects
 * under way; and that a closed handle leaves nothing behind, here or on the server.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"

static struct cluster c;

static void servers(void)
{
	cluster_with_rows(&c, "2", "id int");
}

static dbha *open_both(const char *options)
{
	return open_handle(cluster_url(&c, NULL, options));
}

/* A call in a thread of its own. */
struct call {
	dbha *h;
	dbha_intent intent;
	int timeout_ms;
	const char *sql; /* NULL: dbha_wait for every node; "acquire": dbha_acquire */
	pthread_t thread;
	int code;
	int64_t ended_ms;
	dbha_error err;
};

static void *make_call(void *arg)
{
	struct call *call = arg;
	if (!call->sql) {
		call->code = dbha_wait(call->h, DBHA_WAIT_ALL, call->timeout_ms, &call->err);
	} else if (strcmp(call->sql, "acquire") == 0) {
		dbha_conn *lease = dbha_acquire(call->h, call->intent, call->timeout_ms, &call->err);
		call->code = lease ? DBHA_OK : call->err.code;
		dbha_release(lease);
	} else {
		call->code = run(call->h, call->intent, call->timeout_ms, call->sql, &call->err);
	}
	call->ended_ms = now_ms();
	return NULL;
}

static void begin(struct call *call, dbha *h, dbha_intent intent, const char *sql)
{
	*call = (struct call){.h = h, .intent = intent, .sql = sql, .timeout_ms = 30000};
	call->thread = start_thread(make_call, call);
}

static void expect_running(int node, const char *text)
{
	WAIT_FOR(cluster_count(&c, node,
	                       "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%s' AND "
	                       "pid <> pg_backend_pid()",
	                       text) > 0,
	         PATIENCE_MS);
}

static int entries(const char *path)
{
	int n = 0;
	DIR *dir = opendir(path);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static long connections_of(const char *name)
{
	return cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE application_name = '%s'", name) +
	       cluster_count(&c, 2, "SELECT count(*) FROM pg_stat_activity WHERE application_name = '%s'", name);
}

/* ---- calls that wait ------------------------------------------------------------------------------------------------ */

START_TEST(calls_that_wait_for_a_node_are_ended_as_closed)
{
	static struct call calls[3];
	dbha *h = open_handle("postgresql://app@127.0.0.1:1,127.0.0.1:2/app");
	begin(&calls[0], h, DBHA_WRITE, "SELECT 1");
	begin(&calls[1], h, DBHA_READ, "acquire");
	begin(&calls[2], h, DBHA_READ, NULL);
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PROBED, PATIENCE_MS, &err), err);
	run(h, DBHA_WRITE, 50, "SELECT 1", &err); /* the others have had the time to begin */
	int64_t began = now_ms();
	close_handle(h, 10000); /* they hold no work: the drain is not for them */
	ck_assert_int_lt(now_ms() - began, 1000);
	join_threads();
	for (int i = 0; i < 3; i++)
		ASSERT_CODE(calls[i].code, CLOSED, calls[i].err);
}
END_TEST

START_TEST(calls_that_wait_for_the_pool_are_ended_as_closed)
{
	static struct call calls[10];
	dbha *h = open_both("pool_max_size=1");
	dbha_error err;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	for (int i = 0; i < 10; i++)
		begin(&calls[i], h, DBHA_WRITE, i % 2 ? "acquire" : "INSERT INTO rows VALUES (1)");
	WAIT_FOR(node_status(h, 0).pool_waiting == 10, PATIENCE_MS);
	int64_t began = now_ms();
	close_handle(h, 0);
	ck_assert_int_lt(now_ms() - began, 1000);
	join_threads();
	for (int i = 0; i < 10; i++) {
		ASSERT_CODE(calls[i].code, CLOSED, calls[i].err);
		ck_assert(calls[i].err.retry_safe);
	}
	dbha_release(lease);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 1"), 0);
}
END_TEST

/* ---- statements that run ---------------------------------------------------------------------------------------------- */

START_TEST(running_statements_are_let_finish_within_the_drain)
{
	static struct call write, read;
	dbha *h = open_both(NULL);
	begin(&write, h, DBHA_WRITE, "INSERT INTO rows SELECT 2 FROM pg_sleep(0.4)");
	begin(&read, h, DBHA_READ, "SELECT count(*) FROM rows, pg_sleep(0.4)");
	expect_running(1, "INSERT INTO rows SELECT 2%%");
	expect_running(2, "SELECT count(*) FROM rows%%");
	int64_t began = now_ms();
	close_handle(h, 20000);
	int64_t took = now_ms() - began;
	join_threads();
	ASSERT_OK(write.code, write.err);
	ASSERT_OK(read.code, read.err);
	ck_assert_int_lt(took, 5000);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 2"), 1);
}
END_TEST

START_TEST(statements_that_outlast_the_drain_are_cut_and_not_repeated)
{
	static struct call write, read;
	dbha *h = open_both("application_name=cut");
	begin(&write, h, DBHA_WRITE, "INSERT INTO rows SELECT 3 FROM pg_sleep(30)");
	begin(&read, h, DBHA_READ, "SELECT count(*) FROM rows, pg_sleep(30)");
	expect_running(1, "INSERT INTO rows SELECT 3%%");
	expect_running(2, "SELECT count(*) FROM rows%%");
	int64_t began = now_ms();
	close_handle(h, 200);
	int64_t took = now_ms() - began;
	join_threads();
	ck_assert_int_ge(took, 199);
	ck_assert_int_le(took, 200 + 10 * SLACK_MS);
	ck_assert_int_lt(write.ended_ms - began, 1200);
	ck_assert_int_lt(read.ended_ms - began, 1200);
	ASSERT_CODE(write.code, UNKNOWN, write.err);
	ck_assert(write.err.outcome_unknown);
	ck_assert_int_ne(read.code, DBHA_OK);
	ck_assert_int_eq(
	    cluster_count(&c, 1,
	                  "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO rows SELECT 3%%' "
	                  "AND application_name <> 'cut'"),
	    0);
	cluster_ask(&c, 1, "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'cut'");
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 3"), 0);
}
END_TEST

/* ---- leases ------------------------------------------------------------------------------------------------------------ */

struct holder {
	dbha_conn *lease;
	atomic_int state; /* 1: its query has been begun, 2: ended */
	bool failed;
};

static void *hold(void *arg)
{
	struct holder *holder = arg;
	atomic_store(&holder->state, 1);
	PGresult *result = PQexec(dbha_conn_pq(holder->lease), "SELECT pg_sleep(30)");
	holder->failed = PQresultStatus(result) == PGRES_FATAL_ERROR;
	PQclear(result);
	atomic_store(&holder->state, 2);
	dbha_release(holder->lease); /* after the close: the last one frees the handle */
	return NULL;
}

START_TEST(leases_are_cut_by_the_close_and_may_be_released_after_it)
{
	static struct holder holders[4];
	dbha *h = open_both("application_name=holder");
	dbha_error err;
	memset(holders, 0, sizeof holders);
	for (int i = 0; i < 4; i++) {
		holders[i].lease = dbha_acquire(h, i % 2 ? DBHA_READ : DBHA_WRITE, 0, &err);
		ck_assert(holders[i].lease != NULL);
	}
	dbha_conn *quiet = dbha_acquire(h, DBHA_WRITE, 0, &err);
	lease_fetch(quiet, "BEGIN");
	lease_fetch(quiet, "INSERT INTO rows VALUES (4)");
	for (int i = 0; i < 4; i++)
		start_thread(hold, &holders[i]);
	expect_running(1, "SELECT pg_sleep(30)");
	expect_running(2, "SELECT pg_sleep(30)");
	int64_t began = now_ms();
	close_handle(h, 100);
	ck_assert_int_lt(now_ms() - began, 1500);
	join_threads();
	ck_assert_int_lt(now_ms() - began, 5000);
	for (int i = 0; i < 4; i++)
		ck_assert(holders[i].failed);
	ASSERT_HAS(dbha_conn_node(quiet), "127.0.0.1:");
	PGresult *result = PQexec(dbha_conn_pq(quiet), "COMMIT");
	ck_assert_int_eq(PQresultStatus(result), PGRES_FATAL_ERROR);
	PQclear(result);
	dbha_release(quiet);
	cluster_ask(&c, 1,
	            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'holder'");
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 4"), 0);
}
END_TEST

static void *release_soon(void *arg)
{
	lease_fetch(arg, "SELECT pg_sleep(0.2)");
	dbha_release(arg);
	return NULL;
}

START_TEST(the_drain_ends_as_soon_as_the_last_lease_is_back)
{
	dbha *h = open_both(NULL);
	dbha_error err;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	ck_assert(lease != NULL);
	start_thread(release_soon, lease);
	int64_t began = now_ms();
	close_handle(h, 20000);
	int64_t took = now_ms() - began;
	join_threads();
	ck_assert_int_lt(took, 3000);
}
END_TEST

/* ---- nothing left -------------------------------------------------------------------------------------------------------- */

START_TEST(many_lives_leak_no_descriptor_no_thread_and_no_connection)
{
	const char *url = cluster_url(&c, NULL, "application_name=life");
	char copy[512];
	dbha_error err;
	snprintf(copy, sizeof copy, "%s", url);
	close_handle(open_handle(copy), 0);
	int fds = 0, threads = 0;
	for (int i = 0; i < 101; i++) {
		dbha *h = open_handle(copy);
		if (i % 4 == 0)
			fetch(h, DBHA_WRITE, "SELECT 1");
		if (i % 4 <= 1)
			fetch(h, DBHA_READ, "SELECT 1");
		if (i % 4 == 2)
			run(h, DBHA_WRITE, 1, "SELECT 1", &err); /* closed in the middle of its first connects */
		if (i % 8 == 5)
			dbha_release(dbha_acquire(h, DBHA_WRITE, 0, &err));
		close_handle(h, i % 2 ? 0 : 1000);
		if (i == 0) { /* what libraries below open once and keep is there by now */
			fds = entries("/proc/self/fd");
			threads = entries("/proc/self/task");
		}
	}
	WAIT_FOR(entries("/proc/self/task") == threads, 2000);
	ck_assert_int_eq(entries("/proc/self/fd"), fds);
	WAIT_FOR(connections_of("life") == 0, PATIENCE_MS);
}
END_TEST

START_TEST(a_handle_that_is_never_used_starts_nothing)
{
	const char *url = cluster_url(&c, NULL, "application_name=unused&pool_min_size=3");
	int fds = entries("/proc/self/fd");
	int threads = entries("/proc/self/task");
	dbha *handles[20];
	for (int i = 0; i < 20; i++)
		handles[i] = dbha_open(url, NULL);
	ck_assert_int_eq(entries("/proc/self/fd"), fds);
	ck_assert_int_eq(entries("/proc/self/task"), threads);
	int64_t began = now_ms();
	for (int i = 0; i < 20; i++)
		dbha_close(handles[i], 10000);
	ck_assert_int_lt(now_ms() - began, 500);
	ck_assert_int_eq(entries("/proc/self/fd"), fds);
	ck_assert_int_eq(connections_of("unused"), 0);
}
END_TEST

START_TEST(a_close_does_not_wait_for_connects_and_lookups_under_way)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	ck_assert_int_eq(listen(fd, 16), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	char url[256];
	snprintf(url, sizeof url,
	         "postgresql://app@127.0.0.1:%d,192.0.2.1:5432,no-such-host.invalid:1/app?probe_timeout=20s",
	         ntohs(address.sin_port));
	for (int i = 0; i < 3; i++) {
		dbha_error err;
		dbha *h = open_handle(url);
		ASSERT_CODE(run(h, DBHA_WRITE, 50, "SELECT 1", &err), NO_NODE, err);
		int64_t began = now_ms();
		close_handle(h, 0);
		ck_assert_int_lt(now_ms() - began, 500);
	}
	close(fd);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("close");
	ADD_TEST(suite, calls_that_wait_for_a_node_are_ended_as_closed, servers, NULL, 60);
	ADD_TEST(suite, calls_that_wait_for_the_pool_are_ended_as_closed, servers, NULL, 30);
	ADD_TEST(suite, running_statements_are_let_finish_within_the_drain, servers, NULL, 30);
	ADD_TEST(suite, statements_that_outlast_the_drain_are_cut_and_not_repeated, servers, NULL, 30);
	ADD_TEST(suite, leases_are_cut_by_the_close_and_may_be_released_after_it, servers, NULL, 30);
	ADD_TEST(suite, the_drain_ends_as_soon_as_the_last_lease_is_back, servers, NULL, 30);
	ADD_TEST(suite, many_lives_leak_no_descriptor_no_thread_and_no_connection, servers, NULL, 60);
	ADD_TEST(suite, a_handle_that_is_never_used_starts_nothing, servers, NULL, 30);
	ADD_TEST(suite, a_close_does_not_wait_for_connects_and_lookups_under_way, servers, NULL, 30);
	return run_suite(suite, &c);
}
