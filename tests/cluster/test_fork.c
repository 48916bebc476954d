/*
 * test_fork: a handle over fork(). The child gets connections of its own; the parent's see not a byte of it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"

static struct cluster c;
static char ssl_options[64] = "sslmode=disable"; /* of the handles in the tests that run twice */

/* ThreadSanitizer ends a forked child of a process with threads, unless told otherwise. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

static void servers(void)
{
	char shell[1024];
	snprintf(ssl_options, sizeof ssl_options, "sslmode=disable");
	if (c.keeper)
		return;
	cluster_with_rows(&c, "2", "id int");
	/* TLS on both nodes, if there is openssl to make a certificate with. */
	snprintf(
	    shell, sizeof shell,
	    "cd %s && openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out cert.pem -days 2 "
	    "2>/dev/null && chmod 600 key.pem && chown --reference=node1 key.pem cert.pem && "
	    "printf \"ssl = on\\nssl_cert_file = '%s/cert.pem'\\nssl_key_file = '%s/key.pem'\\n\" >>common.conf",
	    c.dir, c.dir, c.dir);
	if (system(shell) != 0)
		return;
	for (int node = 1; node <= 2; node++)
		cluster_ask(&c, node, "SELECT pg_reload_conf()");
	for (int node = 1; node <= 2; node++)
		WAIT_FOR(*cluster_ask(&c, node, "SHOW ssl") == 'o' && *cluster_ask(&c, node, "SHOW ssl_cert_file") == '/',
		         PATIENCE_MS);
}

static void servers_with_tls(void)
{
	servers();
	if (strcmp(cluster_ask(&c, 1, "SHOW ssl"), "on") == 0)
		snprintf(ssl_options, sizeof ssl_options, "sslmode=require");
	else
		fputs("no openssl on this machine: TLS over fork is not tried\n", stderr);
}

/* What the threads of the parent had in hand is nobody's in a child: the leak check is for the parent alone. */
static int is_child;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return is_child;
}

static dbha *open_both(const char *name)
{
	char options[160];
	snprintf(options, sizeof options, "%s&application_name=%s", ssl_options, name);
	dbha *h = open_handle(cluster_url(&c, NULL, options));
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	return h;
}

/*
 * Runs a function in a child and returns its exit status: 0 if it returns true. The child leaves by exit(), as programs do,
 * with all their handlers, unless told to leave by _exit().
 */
static int in_child(bool (*function)(void *), void *arg, bool normally)
{
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		is_child = 1;
		alarm(20);
		signal(SIGALRM, SIG_DFL);
		int status = function(arg) ? 0 : 1;
		if (normally)
			exit(status);
		_exit(status);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* In a child nothing may assert: the test goes on in the parent. Reports on stderr. */
static bool query_ok(dbha *h, dbha_intent intent, const char *sql, char *value, size_t size)
{
	PGresult *result;
	dbha_error err;
	int code = dbha_exec(h, &DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = 10000), &result, &err);
	if (code != DBHA_OK)
		fprintf(stderr, "in the child: %s: %s\n", sql, err.message);
	else if (value)
		snprintf(value, size, "%s", PQntuples(result) ? PQgetvalue(result, 0, 0) : "");
	PQclear(result);
	return code == DBHA_OK;
}

/* The backends of this name on a node, as the server knows them: any that went, came or changed shows. */
static void backends(char *text, size_t size, int node, const char *name)
{
	snprintf(text, size, "%s",
	         cluster_ask(&c, node,
	                     "SELECT string_agg(pid || ' ' || backend_start, ',' ORDER BY pid) FROM pg_stat_activity "
	                     "WHERE application_name = '%s'",
	                     name));
}

/* ---- the child's own connections ----------------------------------------------------------------------------- */

struct family {
	dbha *h;
	dbha_conn *lease;
	int parents_pid;
};

static bool use_it(void *arg)
{
	struct family *family = arg;
	char pid[32];
	if (!query_ok(family->h, DBHA_WRITE, "SELECT pg_backend_pid()", pid, sizeof pid))
		return false;
	if (atoi(pid) == family->parents_pid) {
		fprintf(stderr, "the child uses the parent's backend\n");
		return false;
	}
	for (int i = 0; i < 20; i++)
		if (!query_ok(family->h, i % 2 ? DBHA_READ : DBHA_WRITE, "SELECT count(*) FROM rows", NULL, 0))
			return false;
	return query_ok(family->h, DBHA_WRITE, "INSERT INTO rows VALUES (1)", NULL, 0);
}

static bool use_and_close_it(void *arg)
{
	bool ok = use_it(arg);
	dbha_close(((struct family *)arg)->h, 1000);
	return ok;
}

static bool close_it(void *arg)
{
	dbha_close(((struct family *)arg)->h, 1000);
	return true;
}

static bool leave_it(void *arg)
{
	(void)arg;
	return true;
}

/* The parent's lease is only memory here: it must be possible to give it back, and to look at it. */
static bool release_the_lease(void *arg)
{
	struct family *family = arg;
	PGresult *result = PQexec(dbha_conn_pq(family->lease), "INSERT INTO rows VALUES (66)");
	bool dead = PQresultStatus(result) == PGRES_FATAL_ERROR;
	PQclear(result);
	dbha_release(family->lease);
	return dead && use_it(arg);
}

START_TEST(a_child_has_connections_of_its_own_and_the_parents_see_not_a_byte)
{
	static bool (*const lives[])(void *) = {close_it, leave_it, use_it, use_and_close_it, release_the_lease};
	for (int i = 0; i < (CHILD_MAY_HAVE_THREADS ? 10 : 4); i++) {
		struct family family = {.h = open_both("parent")};
		char before[2][512], after[2][512];
		dbha_error err;
		fetch(family.h, DBHA_WRITE, "TRUNCATE rows");
		fetch(family.h, DBHA_READ, "SELECT 1");
		family.lease = dbha_acquire(family.h, DBHA_WRITE, 0, &err);
		ck_assert(family.lease != NULL);
		family.parents_pid = PQbackendPID(dbha_conn_pq(family.lease));
		lease_fetch(family.lease, "BEGIN");
		lease_fetch(family.lease, "INSERT INTO rows VALUES (100)");
		dbha_conn *other = dbha_acquire(family.h, DBHA_WRITE, 0, &err); /* and an idle one in the pool */
		ck_assert(other != NULL);
		dbha_release(other);
		for (int node = 1; node <= 2; node++)
			backends(before[node - 1], sizeof before[0], node, "parent");

		int status = in_child(lives[i / 2], &family, i % 2 == 0);
		ck_assert_msg(status == 0, "life %d: exit status %d", i / 2, status);

		/* The child's own ones go by themselves; the parent's are all there, and no one was made again. */
		for (int node = 1; node <= 2; node++) {
			int64_t end = now_ms() + 5000;
			do
				backends(after[node - 1], sizeof after[0], node, "parent");
			while (strcmp(after[node - 1], before[node - 1]) != 0 && now_ms() < end);
			ck_assert_str_eq(after[node - 1], before[node - 1]);
		}
		ck_assert_str_eq(lease_fetch(family.lease, "SELECT count(*) FROM rows WHERE id = 100"), "1");
		lease_fetch(family.lease, "COMMIT");
		dbha_release(family.lease);
		ck_assert_str_eq(fetch(family.h, DBHA_WRITE, "SELECT count(*) FROM rows WHERE id = 100"), "1");
		ck_assert_str_eq(fetch(family.h, DBHA_WRITE, "SELECT count(*) FROM rows WHERE id = 66"), "0");
		fetch(family.h, DBHA_READ, "SELECT 1");
		ck_assert_uint_eq(counters(family.h, -1).closed_broken, 0);
		close_handle(family.h, 1000);
		WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'parent'") == 0,
		         PATIENCE_MS);
	}
}
END_TEST

START_TEST(the_connections_of_this_run_are_as_the_test_says)
{
	dbha *h = open_both("tls");
	const char *expected = strstr(ssl_options, "require") ? "t" : "f";
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), expected);
}
END_TEST

/* ---- grandchildren, unused handles ------------------------------------------------------------------------------ */

static bool child_of_child(void *arg)
{
	struct family *family = arg;
	if (!use_it(family))
		return false;
	char pid[32];
	if (!query_ok(family->h, DBHA_WRITE, "SELECT pg_backend_pid()", pid, sizeof pid))
		return false;
	struct family next = {.h = family->h, .parents_pid = atoi(pid)};
	if (in_child(use_it, &next, true) != 0)
		return false;
	return use_it(family); /* after its own child has gone */
}

START_TEST(a_grandchild_works_too)
{
	struct family family = {.h = open_both("grand")};
	family.parents_pid = atoi(fetch(family.h, DBHA_WRITE, "SELECT pg_backend_pid()"));
	ck_assert_int_eq(in_child(child_of_child, &family, true), 0);
	ck_assert_int_eq(atoi(fetch(family.h, DBHA_WRITE, "SELECT pg_backend_pid()")), family.parents_pid);
}
END_TEST

START_TEST(a_handle_that_was_never_used_starts_in_the_child)
{
	struct family family = {.h = open_handle(cluster_url(&c, NULL, ssl_options))};
	ck_assert_int_eq(in_child(use_it, &family, true), 0);
	ck_assert_int_eq(in_child(close_it, &family, true), 0);
	fetch(family.h, DBHA_WRITE, "SELECT 1");
}
END_TEST

static bool sees_nothing_yet(void *arg)
{
	dbha *h = ((struct family *)arg)->h;
	dbha_counters sum = {.size = sizeof sum};
	dbha_event event = {.size = sizeof event};
	bool empty =
	    dbha_next_event(h, &event, NULL) == 0 || event.kind == DBHA_EVENT_NODE || event.kind == DBHA_EVENT_PRIMARY;
	return dbha_stats(h, -1, &sum, NULL) == DBHA_OK && sum.statements == 0 && sum.acquires == 0 && empty && use_it(arg);
}

START_TEST(a_child_counts_from_zero)
{
	struct family family = {.h = open_both("zero")};
	for (int i = 0; i < 10; i++)
		fetch(family.h, DBHA_WRITE, "SELECT 1");
	ck_assert_int_eq(in_child(sees_nothing_yet, &family, true), 0);
	ck_assert_uint_ge(counters(family.h, -1).statements, 10);
}
END_TEST

/* ---- while other threads are busy ---------------------------------------------------------------------------------- */

static atomic_long busy_errors, busy_done;

static void *busy(void *arg)
{
	dbha *h = arg;
	for (int i = 0; !atomic_load(&threads_stop); i++) {
		dbha_error err;
		int code;
		if (i % 4 == 3) {
			dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 10000, &err);
			code = lease ? DBHA_OK : err.code;
			dbha_release(lease);
		} else {
			code = run(h, i % 2 ? DBHA_READ : DBHA_WRITE, 10000, "SELECT count(*) FROM rows", &err);
		}
		if (code != DBHA_OK && atomic_fetch_add(&busy_errors, 1) == 0)
			fprintf(stderr, "a busy thread of the parent: %s\n", err.message);
		atomic_fetch_add(&busy_done, 1);
	}
	return NULL;
}

static void *open_and_close(void *arg)
{
	(void)arg;
	while (!atomic_load(&threads_stop)) {
		dbha *h = dbha_open("postgresql://nobody@127.0.0.1:1/none?probe_interval=100ms", NULL);
		run(h, DBHA_READ, 5, "SELECT 1", NULL);
		dbha_close(h, 0);
	}
	return NULL;
}

START_TEST(forks_while_other_threads_are_busy_hang_nobody_and_break_nothing)
{
	struct family family = {.h = open_both("busy")};
	atomic_store(&busy_errors, 0);
	for (int i = 0; i < 6; i++)
		start_thread(busy, family.h);
	start_thread(open_and_close, NULL);
	for (int i = 0; i < 60; i++) {
		long done = atomic_load(&busy_done);
		int status = in_child(i % 3 == 0 ? use_and_close_it : i % 3 == 1 ? use_it : close_it, &family, i % 2);
		ck_assert_msg(status == 0, "child %d: exit status %d", i, status);
		WAIT_FOR(atomic_load(&busy_done) > done + 10, PATIENCE_MS);
	}
	atomic_store(&threads_stop, true);
	join_threads();
	atomic_store(&threads_stop, false);
	ck_assert_int_eq(atomic_load(&busy_errors), 0);
	ck_assert_uint_eq(counters(family.h, -1).closed_broken, 0);
}
END_TEST

/* ---- what the parent has seen ------------------------------------------------------------------------------------ */

static bool cannot_write(void *arg)
{
	dbha_error err;
	int code = run(((struct family *)arg)->h, DBHA_WRITE, 1500, "INSERT INTO rows VALUES (666)", &err);
	if (code != DBHA_ERR_NO_NODE)
		fprintf(stderr, "in the child: %s\n", dbha_code_name(code));
	return code == DBHA_ERR_NO_NODE;
}

/* Only the stale primary is left when the process forks: the child has never seen the higher timeline itself. */
START_TEST(a_child_knows_the_timeline_that_its_parent_has_seen)
{
	struct family family = {.h = open_both("fenced")};
	fetch(family.h, DBHA_WRITE, "SELECT 1");
	cluster_do(&c, "kill 1");
	cluster_do(&c, "promote 2");
	fetch(family.h, DBHA_WRITE, "INSERT INTO rows VALUES (2) RETURNING id");
	ck_assert_int_eq(cluster_status(family.h).timeline, 2);
	cluster_do(&c, "start 1");
	WAIT_FOR(node_status(family.h, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
	cluster_do(&c, "kill 2");
	ck_assert_int_eq(in_child(cannot_write, &family, true), 0);
	ck_assert(cannot_write(&family));
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id = 666"), 0);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fork");
	ADD_TEST(suite, the_connections_of_this_run_are_as_the_test_says, servers, NULL, 60);
	ADD_TEST(suite, a_child_has_connections_of_its_own_and_the_parents_see_not_a_byte, servers, NULL, 60);
	add_test(suite, "with_tls_the_connections_are_as_the_test_says", the_connections_of_this_run_are_as_the_test_says,
	         servers_with_tls, NULL, 30);
	add_test(suite, "with_tls_a_child_has_connections_of_its_own_and_the_parents_see_not_a_byte",
	         a_child_has_connections_of_its_own_and_the_parents_see_not_a_byte, servers_with_tls, NULL, 60);
	if (CHILD_MAY_HAVE_THREADS) {
		ADD_TEST(suite, a_grandchild_works_too, servers, NULL, 30);
		ADD_TEST(suite, a_handle_that_was_never_used_starts_in_the_child, servers, NULL, 30);
		ADD_TEST(suite, a_child_counts_from_zero, servers, NULL, 30);
	}
	/* The sanitizers' own allocators are not made for it: a lock that another thread held at fork stays locked in the child. */
	if (!SANITIZED)
		ADD_TEST(suite, forks_while_other_threads_are_busy_hang_nobody_and_break_nothing, servers, NULL, 60);
	if (CHILD_MAY_HAVE_THREADS)
		ADD_TEST(suite, a_child_knows_the_timeline_that_its_parent_has_seen, servers, NULL,
		         60); /* leaves node 2 dead */
	return run_suite(suite, &c);
}
