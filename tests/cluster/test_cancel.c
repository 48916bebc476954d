/*
 * test_cancel: dbha_cancel from another thread: while a statement runs, while its call waits for a connection or for a primary, and while
 * nothing runs; and that it never hits what another session does.
 */
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "talk.h"
#include "work.h"

static struct cluster c;

static void server(void)
{
	cluster_with_rows(&c, "1", "id int");
}

/* A statement of a session in a thread of its own. */
struct spoken {
	dbha_session *s;
	const char *sql;
	int code;
	dbha_error err;
	atomic_bool done;
};

static void *speak(void *arg)
{
	struct spoken *spoken = arg;
	spoken->code = talk_as(spoken->s, DBHA_WRITE, spoken->sql, &spoken->err);
	atomic_store(&spoken->done, true);
	return NULL;
}

static struct spoken spoken;

static void speak_in_a_thread(dbha_session *s, const char *sql)
{
	memset(&spoken, 0, sizeof spoken);
	spoken.s = s;
	spoken.sql = sql;
	start_thread(speak, &spoken);
}

/* Once. How long the call went on, in ms. */
static int64_t cancel_it(dbha_session *s)
{
	dbha_error err;
	int64_t began = now_ms();
	ASSERT_OK(dbha_cancel(s, &err), err);
	WAIT_FOR(atomic_load(&spoken.done), PATIENCE_MS);
	int64_t ms = now_ms() - began;
	join_threads();
	return ms;
}

START_TEST(a_running_statement_is_canceled)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_session *s = talk_open(h);
	dbha_error err;
	speak_in_a_thread(s, "SELECT 'alone', pg_sleep(15)");
	expect_running(&c, 1, "SELECT %alone%");
	ck_assert_int_lt(cancel_it(s), 1000);
	ASSERT_STATE(spoken.code, CANCELED, "57014", spoken.err);
	talk_ask(s, "SELECT 1");
	/* In a transaction the connection stays, and the transaction has failed. */
	for (int first = 0; first <= 1; first++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		if (!first)
			talk_ask(s, "INSERT INTO rows VALUES (1)");
		speak_in_a_thread(s, "SELECT 'inside', pg_sleep(15)");
		expect_running(&c, 1, "SELECT %inside%");
		ck_assert_int_lt(cancel_it(s), 1000);
		ASSERT_STATE(spoken.code, CANCELED, "57014", spoken.err);
		ck_assert(spoken.err.retry_safe && !spoken.err.outcome_unknown);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_ERROR);
		ck_assert_int_gt(talk_status(s).backend_pid, 0);
		ASSERT_STATE(talk(s, "SELECT 1", &err), SERVER, "25P02", err);
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	}
	/* Marks go on: it was not the question for one that was refused. */
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	ck_assert_uint_gt(talk_status(s).xid, 0);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	/* What is set stays. */
	talk_ask(s, "SET work_mem = '99kB'");
	speak_in_a_thread(s, "SELECT 'pinned', pg_sleep(15)");
	expect_running(&c, 1, "SELECT %pinned%");
	cancel_it(s);
	ASSERT_CODE(spoken.code, CANCELED, spoken.err);
	ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "99kB");
	dbha_session_close(s);
}
END_TEST

START_TEST(a_wait_is_canceled)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_session *s = talk_open(h);
	dbha_error err;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 5000, &err);
	ck_assert_ptr_nonnull(lease);
	for (int in_transaction = 0; in_transaction <= 1; in_transaction++) {
		if (in_transaction)
			ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		speak_in_a_thread(s, "INSERT INTO rows VALUES (2)");
		WAIT_FOR(node_status(h, 0).pool_waiting == 1, PATIENCE_MS);
		ck_assert_int_lt(cancel_it(s), 1000);
		ASSERT_STATE(spoken.code, CANCELED, "57014", spoken.err);
		ck_assert(spoken.err.retry_safe);
		ck_assert_int_eq(node_status(h, 0).pool_waiting, 0);
	}
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	dbha_release(lease);
	talk_ask(s, "SELECT 1");
	/* And without a primary. */
	cluster_do(&c, "stop %d fast", 1);
	WAIT_FOR(cluster_status(h).primary < 0, PATIENCE_MS);
	speak_in_a_thread(s, "INSERT INTO rows VALUES (2)");
	poll(NULL, 0, 50);
	ck_assert_int_lt(cancel_it(s), 1000);
	ASSERT_STATE(spoken.code, CANCELED, "57014", spoken.err);
	cluster_do(&c, "start %d", 1);
	talk_ask(s, "SELECT 1");
	dbha_session_close(s);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 0);
}
END_TEST

START_TEST(nothing_in_progress_is_not_canceled_later)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int i = 0; i < 20; i++) {
		ASSERT_OK(dbha_cancel(s, &err), err);
		talk_ask(s, "SELECT pg_sleep(0.002)");
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		ASSERT_OK(dbha_cancel(s, &err), err);
		talk_ask(s, "SELECT pg_sleep(0.002)");
		ASSERT_OK(dbha_cancel(s, &err), err);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	}
	dbha_session_close(s);
}
END_TEST

/* ---- nobody else's ------------------------------------------------------------------------------------------------- */

static struct {
	dbha *h;
	dbha_session *target;
	atomic_long canceled, others, wrong, done, unexpected;
	dbha_error first;
} hammered;

static void *short_statements(void *arg)
{
	(void)arg;
	while (!atomic_load(&threads_stop)) {
		dbha_error err;
		int code = talk_as(hammered.target, DBHA_WRITE, "SELECT pg_sleep(0.001)", &err);
		if (code == DBHA_ERR_CANCELED)
			atomic_fetch_add(&hammered.canceled, 1);
		else if (code != DBHA_OK && atomic_fetch_add(&hammered.unexpected, 1) == 0)
			hammered.first = err;
		atomic_fetch_add(&hammered.done, 1);
	}
	return NULL;
}

static void *innocent_statements(void *arg)
{
	dbha_session *s = arg;
	while (!atomic_load(&threads_stop)) {
		dbha_error err;
		if (talk_as(s, DBHA_WRITE, "SELECT pg_sleep(0.001)", &err) != DBHA_OK &&
		    atomic_fetch_add(&hammered.wrong, 1) == 0)
			hammered.first = err;
		atomic_fetch_add(&hammered.others, 1);
	}
	return NULL;
}

START_TEST(no_cancel_hits_another_session)
{
	dbha_error err;
	memset(&hammered, 0, sizeof hammered);
	hammered.h = open_all(&c, "pool_max_size=1");
	hammered.target = talk_open(hammered.h);
	dbha_session *innocent = talk_open(hammered.h);
	start_thread(short_statements, NULL);
	start_thread(innocent_statements, innocent);
	/* In twos, so that the second one may come when the first has ended the statement. */
	for (int i = 0; i < 1000; i++) {
		ASSERT_OK(dbha_cancel(hammered.target, &err), err);
		if (i % 2)
			poll(NULL, 0, 3);
	}
	atomic_store(&threads_stop, true);
	join_threads();
	atomic_store(&threads_stop, false);
	ck_assert_msg(atomic_load(&hammered.wrong) == 0, "%ld of %ld: %s", atomic_load(&hammered.wrong),
	              atomic_load(&hammered.others), hammered.first.message);
	ck_assert_msg(atomic_load(&hammered.unexpected) == 0, "%s", hammered.first.message);
	ck_assert_int_gt(atomic_load(&hammered.canceled), 10);
	ck_assert_int_gt(atomic_load(&hammered.others), 10);
	printf("canceled %ld of %ld, beside %ld others\n", atomic_load(&hammered.canceled), atomic_load(&hammered.done),
	       atomic_load(&hammered.others));
	dbha_session_close(hammered.target);
	dbha_session_close(innocent);
}
END_TEST

/* A cancel that comes before its statement has a connection is not forgotten. */
START_TEST(a_cancel_between_the_call_and_its_connection_counts)
{
	dbha_error err;
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_session *s = talk_open(h);
	int missed = 0;
	for (int i = 0; i < 30; i++) {
		speak_in_a_thread(s, "SELECT pg_sleep(0.5)");
		/* At any moment from the very beginning of the call on. */
		for (int k = 0; k < i * 20; k++)
			atomic_load(&spoken.done);
		while (!atomic_load(&spoken.done)) {
			ASSERT_OK(dbha_cancel(s, &err), err);
			sched_yield();
		}
		join_threads();
		missed += spoken.code != DBHA_ERR_CANCELED;
	}
	ck_assert_int_eq(missed, 0);
	dbha_session_close(s);
}
END_TEST

static Suite *cancel_suite(void)
{
	Suite *suite = suite_create("cancel");
	ADD_TEST(suite, a_running_statement_is_canceled, server, handles_close, 60);
	ADD_TEST(suite, a_wait_is_canceled, server, handles_close, 60);
	ADD_TEST(suite, nothing_in_progress_is_not_canceled_later, server, handles_close, 60);
	ADD_TEST(suite, no_cancel_hits_another_session, server, handles_close, 60);
	ADD_TEST(suite, a_cancel_between_the_call_and_its_connection_counts, server, handles_close, 60);
	return suite;
}

int main(void)
{
	return run_suite(cancel_suite(), &c);
}
