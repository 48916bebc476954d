/*
 * test_sessions: sessions where things end around them: the handle is closed, the process forks, many threads have one each, a pooler
 * stands in between.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bouncer.h"
#include "talk.h"
#include "work.h"

static struct cluster c;

/* ThreadSanitizer ends a forked child of a process with threads, unless told otherwise. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

/* What the threads of the parent had in hand is nobody's in a child: the leak check is for the parent alone. */
static int is_child;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return is_child;
}

static void servers(void)
{
	cluster_with_rows(&c, "2", "id int PRIMARY KEY, n int");
	cluster_ask(&c, 1, "TRUNCATE rows");
}

/* ---- the handle is closed ---------------------------------------------------------------------------------------- */

static void expect_closed(dbha_session *s)
{
	dbha_error err;
	ASSERT_CODE(talk(s, "SELECT 1", &err), CLOSED, err);
	ASSERT_CODE(dbha_session_begin(s, NULL, &err), CLOSED, err);
	ASSERT_CODE(dbha_session_commit(s, 0, &err), CLOSED, err);
	ASSERT_CODE(dbha_session_rollback(s, 0, &err), CLOSED, err);
	ASSERT_CODE(dbha_savepoint(s, "a", 0, &err), CLOSED, err);
	ASSERT_OK(dbha_cancel(s, &err), err);
	ASSERT_OK(dbha_session_reset(s, &err), err);
	talk_status(s);
}

START_TEST(idle_sessions_do_not_delay_a_close)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *sessions[3];
	dbha_error err;
	for (int i = 0; i < 3; i++) {
		sessions[i] = talk_open(h);
		if (i > 0)
			talk_ask(sessions[i], "SELECT 1");
	}
	ASSERT_OK(dbha_session_begin(sessions[2], NULL, &err), err);
	int64_t began = now_ms();
	close_handle(h, 5000);
	ck_assert_int_lt(now_ms() - began, 1000);
	for (int i = 0; i < 3; i++) {
		expect_closed(sessions[i]);
		dbha_session_close(sessions[i]);
	}
}
END_TEST

static void *commit_soon(void *arg)
{
	dbha_session *s = arg;
	poll(NULL, 0, 200);
	dbha_session_commit(s, 0, NULL);
	return NULL;
}

START_TEST(a_transaction_is_drained_and_then_cut)
{
	/* Nobody ends it. */
	for (int pinned = 0; pinned <= 1; pinned++) {
		dbha *h = open_all(&c, "application_name=cut");
		dbha_session *s = talk_open(h);
		dbha_error err;
		if (pinned) {
			talk_ask(s, "SET work_mem = '99kB'");
		} else {
			ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
			talk_ask(s, "INSERT INTO rows VALUES (1)");
		}
		int64_t began = now_ms();
		close_handle(h, 300);
		ck_assert_int_ge(now_ms() - began, 290);
		ck_assert_int_lt(now_ms() - began, 2000);
		WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cut'") == 0,
		         PATIENCE_MS);
		expect_closed(s);
		dbha_session_close(s);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 0);
	/* A call that is in a session goes on in the drain: a COMMIT does not, since it is a new call. */
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	talk_ask(s, "INSERT INTO rows VALUES (2)");
	start_thread(commit_soon, s);
	close_handle(h, 600);
	join_threads();
	dbha_session_close(s);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 0);
}
END_TEST

/* ---- fork ----------------------------------------------------------------------------------------------------------- */

#ifndef __SANITIZE_THREAD__

/* In a child nothing may assert: it says what is wrong by its status. */
static bool child_code(int code, int expected, const char *what)
{
	if (code != expected)
		fprintf(stderr, "in the child: %s: %s\n", what, dbha_code_name(code));
	return code == expected;
}

static dbha_session *idle, *begun, *busy, *pinned;

static bool use_all(void)
{
	dbha_error err;
	bool good = child_code(talk(idle, "SELECT 1", &err), DBHA_OK, "idle");
	/* Nothing had been sent of it: it is the child's own now. */
	good = child_code(talk(begun, "INSERT INTO rows VALUES (10)", &err), DBHA_OK, "begun") && good;
	good = child_code(dbha_session_commit(begun, 0, &err), DBHA_OK, "commit") && good;
	good = child_code(talk(busy, "INSERT INTO rows VALUES (11)", &err), DBHA_ERR_SERVER, "in a transaction") && good;
	good = child_code(dbha_session_commit(busy, 0, &err), DBHA_ERR_ROLLED_BACK, "its commit") && good;
	good = child_code(talk(busy, "SELECT 1", &err), DBHA_OK, "after it") && good;
	good = child_code(talk(pinned, "SELECT 1", &err), DBHA_ERR_STATE_LOST, "pinned") && good;
	good = child_code(dbha_cancel(pinned, &err), DBHA_OK, "cancel") && good;
	good = child_code(dbha_session_reset(pinned, &err), DBHA_OK, "reset") && good;
	good = child_code(talk(pinned, "SELECT 1", &err), DBHA_OK, "after the reset") && good;
	return good;
}

static void close_all(void)
{
	dbha_session_close(idle);
	dbha_session_close(begun);
	dbha_session_close(busy);
	dbha_session_close(pinned);
}

static int in_child(int how, dbha *h)
{
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		is_child = 1;
		alarm(30);
		signal(SIGALRM, SIG_DFL);
		bool good = how == 0 ? use_all() : true;
		if (how != 2)
			close_all();
		dbha_close(h, 0);
		_exit(good ? 0 : 1);
	}
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

START_TEST(a_child_has_lost_what_its_parent_goes_on_with)
{
	dbha *h = open_all(&c, NULL);
	dbha_error err;
	for (int how = 0; how <= 2; how++) {
		idle = talk_open(h);
		begun = talk_open(h);
		busy = talk_open(h);
		pinned = talk_open(h);
		talk_ask(idle, "SELECT 1");
		ASSERT_OK(dbha_session_begin(begun, NULL, &err), err);
		ASSERT_OK(dbha_session_begin(busy, NULL, &err), err);
		talk_ask(busy, "INSERT INTO rows VALUES (%d)", how);
		talk_ask(pinned, "SET work_mem = '99kB'");
		int pids[] = {talk_status(busy).backend_pid, talk_status(pinned).backend_pid};
		ck_assert_int_eq(in_child(how, h), 0);
		/* The parent has lost nothing. */
		ck_assert_int_eq(talk_status(busy).backend_pid, pids[0]);
		ck_assert_str_eq(talk_ask(busy, "SELECT count(*) FROM rows WHERE id < 10"), how == 0   ? "1"
		                                                                            : how == 1 ? "2"
		                                                                                       : "3");
		ASSERT_OK(dbha_session_commit(busy, 0, &err), err);
		ck_assert_str_eq(talk_ask(pinned, "SHOW work_mem"), "99kB");
		ck_assert_int_eq(talk_status(pinned).backend_pid, pids[1]);
		talk_ask(begun, "SELECT 1");
		ASSERT_OK(dbha_session_commit(begun, 0, &err), err);
		talk_ask(idle, "SELECT 1");
		close_all();
	}
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT string_agg(id::text, ' ' ORDER BY id) FROM rows"), "0 1 2 10");
}
END_TEST

#endif

/* ---- many threads ----------------------------------------------------------------------------------------------------- */

#define THREADS 16
#define ROUNDS  (SANITIZED ? 20 : 60)

static dbha *shared;
static atomic_long wrong;
static dbha_session *sessions[THREADS];

static bool odd_round(dbha_session *s, int me)
{
	char sql[80];
	dbha_error err;
	snprintf(sql, sizeof sql, "UPDATE rows SET n = n + 1 WHERE id = %d", me);
	return dbha_session_begin(s, NULL, &err) == DBHA_OK && talk(s, sql, &err) == DBHA_OK &&
	       talk(s, "SELECT 1", &err) == DBHA_OK && dbha_session_commit(s, 0, &err) == DBHA_OK;
}

static bool even_round(dbha_session *s, int round)
{
	dbha_error err;
	if (round % 8 == 0)
		return talk(s, "SET work_mem = '99kB'", &err) == DBHA_OK && talk(s, "SELECT 1", &err) == DBHA_OK &&
		       dbha_session_reset(s, &err) == DBHA_OK;
	return dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err) == DBHA_OK &&
	       talk(s, "SELECT count(*) FROM rows", &err) == DBHA_OK && dbha_session_rollback(s, 0, &err) == DBHA_OK;
}

static void *one_of_many(void *arg)
{
	int me = (int)(intptr_t)arg;
	dbha_session *s = sessions[me];
	for (int round = 0; round < ROUNDS; round++)
		if (!(round % 2 ? odd_round(s, me) : even_round(s, round)))
			atomic_fetch_add(&wrong, 1);
	return NULL;
}

static void *cancel_nobody(void *arg)
{
	/* Of a session that another thread uses; what is not running is not canceled. */
	while (!atomic_load(&threads_stop)) {
		dbha_cancel(arg, NULL);
		short_pause();
	}
	return NULL;
}

START_TEST(sixteen_threads_have_a_session_each)
{
	shared = open_all(&c, "pool_max_size=4");
	cluster_ask(&c, 1, "INSERT INTO rows SELECT i, 0 FROM generate_series(0, %d) AS i", THREADS - 1);
	atomic_store(&wrong, 0);
	dbha_session *other = talk_open(shared);
	pthread_t canceler = start_thread(cancel_nobody, other);
	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++) {
		sessions[i] = talk_open(shared);
		threads[i] = start_thread(one_of_many, (void *)(intptr_t)i);
	}
	for (int i = 0; i < 50; i++)
		talk(other, "SELECT pg_sleep(0.002)", NULL);
	for (int i = 0; i < THREADS; i++)
		join_thread(threads[i]);
	atomic_store(&threads_stop, true);
	join_thread(canceler);
	atomic_store(&threads_stop, false);
	ck_assert_int_eq(atomic_load(&wrong), 0);
	for (int i = 0; i < THREADS; i++)
		dbha_session_close(sessions[i]);
	dbha_session_close(other);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT min(n) FROM rows"), ROUNDS / 2);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT max(n) FROM rows"), ROUNDS / 2);
	ck_assert_str_ne(fetch(shared, DBHA_WRITE, "SHOW work_mem"), "99kB");
}
END_TEST

/* ---- behind a pooler -------------------------------------------------------------------------------------------------- */

START_TEST(transactions_work_behind_pgbouncer)
{
	static const char *const modes[] = {"transaction", "session"};
	for (int i = 0; i < 2; i++) {
		int port;
		char url[160];
		dbha_error err;
		FILE *bouncer = bouncer_start(&c, 1, modes[i], &port);
		snprintf(url, sizeof url, "postgresql://app@127.0.0.1:%d/app?pool_max_size=3", port);
		dbha *h = open_handle(url);
		ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, PATIENCE_MS, &err), err);
		dbha_session *a = talk_open(h), *b = talk_open(h);
		for (int round = 0; round < 4; round++) {
			int id = 10 * i + 2 * round;
			ASSERT_OK(dbha_session_begin(a, NULL, &err), err);
			ASSERT_OK(dbha_session_begin(b, NULL, &err), err);
			talk_ask(a, "INSERT INTO rows VALUES (%d)", id);
			talk_ask(b, "INSERT INTO rows VALUES (%d)", id + 1);
			uint64_t xid = talk_status(a).xid;
			ck_assert_uint_gt(xid, 0);
			ck_assert_uint_ne(talk_status(b).xid, xid);
			ck_assert_str_eq(talk_ask(a, "SELECT pg_current_xact_id()"),
			                 cluster_ask(&c, 1, "SELECT %llu", (unsigned long long)xid));
			ASSERT_OK(dbha_session_commit(a, 0, &err), err);
			ASSERT_OK(dbha_session_rollback(b, 0, &err), err);
			ck_assert_str_eq(cluster_ask(&c, 1, "SELECT pg_xact_status('%llu')", (unsigned long long)xid), "committed");
		}
		ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE id / 10 = %d", i), 4);
		dbha_session_close(a);
		dbha_session_close(b);
		handles_close();
		bouncer_stop(bouncer);
	}
}
END_TEST

static Suite *sessions_suite(void)
{
	Suite *suite = suite_create("sessions");
	ADD_TEST(suite, idle_sessions_do_not_delay_a_close, servers, handles_close, 60);
	ADD_TEST(suite, a_transaction_is_drained_and_then_cut, servers, handles_close, 60);
#ifndef __SANITIZE_THREAD__
	ADD_TEST(suite, a_child_has_lost_what_its_parent_goes_on_with, servers, handles_close, 60);
#endif
	ADD_TEST(suite, sixteen_threads_have_a_session_each, servers, handles_close, 90);
	ADD_TEST(suite, transactions_work_behind_pgbouncer, servers, handles_close, 60);
	return suite;
}

int main(void)
{
	return run_suite(sessions_suite(), &c);
}
