/*
 * test_transaction: transactions on real servers. What the server sees of them, in how many packets they travel, what is run again and
 * what is reported where their connection is lost, and that a failed one is never called committed.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay.h"
#include "talk.h"
#include "work.h"

static struct cluster c;
static struct relay relay;

static void servers(void)
{
	cluster_with_rows(&c, "2 --set max_prepared_transactions=5", "id int PRIMARY KEY, n int");
	cluster_ask(&c, 1, "TRUNCATE rows");
}

static void after(void)
{
	handles_close();
	relay_stop(&relay);
}

static dbha *open_relayed(const char *options)
{
	char hosts[64];
	relay_start(&relay, cluster_port(&c, 1));
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d", relay.port);
	dbha *h = open_hosts(&c, hosts, options);
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, PATIENCE_MS, &err), err);
	return h;
}

static void begin(dbha_session *s)
{
	dbha_error err;
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
}

static long rows(const char *where)
{
	return cluster_count(&c, 1, "SELECT count(*) FROM rows WHERE %s", where);
}

/* ---- what the server sees ----------------------------------------------------------------------------------------- */

START_TEST(the_server_sees_what_was_asked_for)
{
	static const char *const levels[] = {"read committed", "read committed", "repeatable read", "serializable"};
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int isolation = 0; isolation <= 3; isolation++)
		for (int flags = 0; flags <= 3; flags++) {
			int read_only = flags & 1, deferrable = flags >> 1;
			char expected[128];
			snprintf(expected, sizeof expected, "%s %s %s", levels[isolation], read_only ? "on" : "off",
			         deferrable ? "on" : "off");
			ASSERT_OK(dbha_session_begin(
			              s,
			              &DBHA_TRANSACTION(.isolation = isolation, .read_only = read_only, .deferrable = deferrable),
			              &err),
			          err);
			ck_assert_str_eq(talk_ask(s, "SELECT concat_ws(' ', current_setting('transaction_isolation'), "
			                             "current_setting('transaction_read_only'), "
			                             "current_setting('transaction_deferrable'))"),
			                 expected);
			bool on_standby = *talk_ask(s, "SELECT pg_is_in_recovery()") == 't';
			ck_assert_msg(on_standby == (read_only && isolation != DBHA_SERIALIZABLE), "%s: %s", expected,
			              on_standby ? "on the standby" : "on the primary");
			ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		}
	dbha_session_close(s);
}
END_TEST

START_TEST(a_read_only_transaction_runs_where_it_can)
{
	dbha_error err;
	dbha *alone = open_handle(cluster_url(&c, "1", NULL));
	dbha_session *s = talk_open(alone);
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	ck_assert_str_eq(talk_ask(s, "SELECT pg_is_in_recovery()"), "f");
	ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (1)", &err), SERVER, "25006", err);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	dbha_session_close(s);
	/* A standby refuses what the default makes of it: it ends on the primary. */
	dbha *both = open_handle(cluster_url(&c, NULL, "options=-c%20default_transaction_isolation%3Dserializable"));
	s = talk_open(both);
	ck_assert_str_eq(fetch(both, DBHA_WRITE, "SHOW default_transaction_isolation"), "serializable");
	for (int i = 0; i < 3; i++) {
		ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
		ck_assert_str_eq(talk_ask(s, "SELECT pg_is_in_recovery()"), "f");
		ck_assert_str_eq(talk_ask(s, "SELECT current_setting('transaction_isolation')"), "serializable");
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	}
	dbha_session_close(s);
}
END_TEST

/* ---- in one flush -------------------------------------------------------------------------------------------------- */

/* How often the client has spoken since `before`; nobody else may speak meanwhile. */
static long bursts_since(long before)
{
	return atomic_load(&relay.bursts) - before;
}

START_TEST(begin_the_first_statement_and_the_mark_travel_together)
{
	dbha *h = open_relayed("pool_max_size=1&probe_interval=60s");
	dbha_session *s = talk_open(h);
	dbha_error err;
	/* The third time everything is prepared. */
	for (int i = 0; i < 4; i++) {
		talk_ask(s, "SELECT 1");
		poll(NULL, 0, 20); /* what was left of the last transaction is said */
		begin(s);
		ck_assert_uint_eq(talk_status(s).xid, 0);
		ck_assert_int_eq(talk_status(s).backend_pid, 0);
		long before = atomic_load(&relay.bursts);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", 4);
		ck_assert_int_eq(bursts_since(before), 1);
		uint64_t xid = talk_status(s).xid;
		ck_assert_uint_gt(xid, 0);
		ck_assert_uint_gt(talk_status(s).lsn, 0);
		before = atomic_load(&relay.bursts);
		ck_assert_uint_eq(strtoull(talk_ask(s, "SELECT pg_current_xact_id_if_assigned()"), NULL, 10), xid);
		ck_assert_int_le(bursts_since(before), 2); /* it may have to be prepared first */
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ck_assert_uint_eq(talk_status(s).xid, 0);
	}
	/* Once it is committed it may still be asked for. */
	begin(s);
	talk_ask(s, "INSERT INTO rows VALUES (5)");
	uint64_t xid = talk_status(s).xid;
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_uint_eq(talk_status(s).xid, xid);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT pg_xact_status('%llu')", (unsigned long long)xid), "committed");
	dbha_session_close(s);
}
END_TEST

START_TEST(reads_are_given_no_id)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	begin(s);
	for (int i = 0; i < 4; i++) {
		talk_ask(s, "SELECT count(*) FROM rows");
		ck_assert_uint_eq(talk_status(s).xid, 0);
	}
	ck_assert_str_eq(talk_ask(s, "SELECT pg_current_xact_id_if_assigned() IS NULL"), "t");
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	ck_assert_uint_gt(talk_status(s).xid, 0);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	dbha_session_close(s);
}
END_TEST

START_TEST(a_mark_stays_until_the_end_of_its_transaction)
{
	static const char *const more[] = {
	    "/* a comment */ INSERT INTO rows VALUES (2)",
	    "-- another\nSELECT 1",
	    "(SELECT 1)",
	    "SAVEPOINT a",
	    "ROLLBACK TO a",
	    "ROLLBACK /* not all */ TO SAVEPOINT a",
	};
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	begin(s);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	uint64_t xid = talk_status(s).xid;
	for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
		talk_ask(s, "%s", more[i]);
		ck_assert_uint_eq(talk_status(s).xid, xid);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_TRANSACTION);
	}
	ck_assert_uint_eq(counters(h, -1).transactions, 0);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_uint_eq(counters(h, -1).transactions, 1);
	/* READ ONLY is only a beginning. */
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1, .isolation = DBHA_SERIALIZABLE), &err), err);
	talk_ask(s, "SET TRANSACTION READ WRITE");
	talk_ask(s, "INSERT INTO rows VALUES (3)");
	ck_assert_uint_gt(talk_status(s).xid, 0);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	dbha_session_close(s);
	ck_assert_int_eq(rows("true"), 3);
}
END_TEST

START_TEST(no_snapshot_is_taken_before_the_callers_first_query)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	talk_ask(s, "INSERT INTO rows VALUES (1, 0)");
	static const char *const first[] = {"SET LOCAL lock_timeout = '10s'", "SAVEPOINT a", "SHOW work_mem",
	                                    "LOCK TABLE rows IN SHARE ROW EXCLUSIVE MODE"};
	for (int i = 0; i < 4; i++) {
		ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.isolation = DBHA_REPEATABLE_READ), &err), err);
		talk_ask(s, "%s", first[i]);
		if (i < 3)
			cluster_ask(&c, 1, "UPDATE rows SET n = n + 1");
		talk_ask(s, "LOCK TABLE rows IN SHARE ROW EXCLUSIVE MODE");
		/* What was committed before the lock was got is seen, and may be changed. */
		char expected[16];
		snprintf(expected, sizeof expected, "%d", i < 3 ? i + 1 : 3);
		ck_assert_str_eq(talk_ask(s, "SELECT n FROM rows"), expected);
		talk_ask(s, "UPDATE rows SET n = n");
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	}
	begin(s);
	talk_ask(s, "SET TRANSACTION READ WRITE");
	talk_ask(s, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
	ck_assert_str_eq(talk_ask(s, "SHOW transaction_isolation"), "serializable");
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	dbha_session_close(s);
}
END_TEST

START_TEST(a_role_that_may_not_ask_for_marks_has_transactions)
{
	cluster_ask(&c, 1, "REVOKE EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() FROM public");
	dbha *h = open_all(&c, "pool_max_size=2");
	dbha_error err;
	for (int pinned = 0; pinned <= 1; pinned++) {
		dbha_session *s = talk_open(h);
		if (pinned)
			talk_ask(s, "SET work_mem = '99kB'");
		begin(s);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", 2 * pinned);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", 2 * pinned + 1);
		ck_assert_uint_eq(talk_status(s).xid, 0);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		dbha_session_close(s);
		close_handle(h, 0);
		h = open_all(&c, "pool_max_size=2");
	}
	ck_assert_int_eq(rows("true"), 4);
	cluster_ask(&c, 1, "GRANT EXECUTE ON FUNCTION pg_current_xact_id_if_assigned() TO public");
}
END_TEST

/* ---- losses -------------------------------------------------------------------------------------------------------- */

/* Ends whoever runs this text, once it runs. */
static void *terminate_runner(void *arg)
{
	const char *text = arg;
	PGconn *pg = cluster_admin(&c, 1);
	char sql[300];
	snprintf(
	    sql, sizeof sql,
	    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%s' AND pid <> "
	    "pg_backend_pid()",
	    text);
	for (int n = 0, i = 0; n == 0 && i < 5000 && !atomic_load(&threads_stop); i++) {
		PGresult *result = PQexec(pg, sql);
		n = PQntuples(result);
		PQclear(result);
		short_pause();
	}
	PQfinish(pg);
	return NULL;
}

static void terminate_when_running(const char *text)
{
	start_thread(terminate_runner, (void *)text);
}

START_TEST(the_first_statement_survives_the_loss_of_its_connection)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_session *s = talk_open(h);
	dbha_error err;
	/* While it rests. */
	int pid = atoi(talk_ask(s, "SELECT pg_backend_pid()"));
	begin(s);
	cluster_ask(&c, 1, "SELECT pg_terminate_backend(%d)", pid);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	/* While it runs. */
	begin(s);
	terminate_when_running("INSERT INTO rows SELECT 2%%");
	talk_ask(s, "INSERT INTO rows SELECT 2 FROM pg_sleep(0.5)");
	join_threads();
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_uint_ge(counters(h, -1).retries, 1);
	/* BEGIN as text, with a comment before it. */
	pid = atoi(talk_ask(s, "SELECT pg_backend_pid()"));
	talk_ask(s, "/* c */ BEGIN");
	ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_TRANSACTION);
	talk_ask(s, "INSERT INTO rows VALUES (3)");
	talk_ask(s, "-- c\nCOMMIT");
	dbha_session_close(s);
	ck_assert_int_eq(rows("true"), 3);
}
END_TEST

START_TEST(a_later_statement_reports_the_transaction_rolled_back)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int how = 0; how <= 3; how++) {
		begin(s);
		talk_ask(s, "INSERT INTO rows VALUES (1)");
		if (how % 2) {
			terminate_when_running("SELECT %%pg_sleep(9.5)%%");
			ASSERT_STATE(talk(s, "SELECT 1 FROM pg_sleep(9.5)", &err), ROLLED_BACK, "40000", err);
			join_threads();
		} else {
			talk_terminate(&c, 1, s);
			ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (2)", &err), ROLLED_BACK, "40000", err);
		}
		ck_assert(err.retry_safe && !err.outcome_unknown);
		ck_assert_str_ne(err.node, "");
		for (int i = 0; i < 2; i++) {
			ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_ERROR);
			ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (3)", &err), SERVER, "25P02", err);
			ASSERT_STATE(dbha_savepoint(s, "a", 0, &err), SERVER, "25P02", err);
		}
		if (how < 2) {
			ASSERT_STATE(dbha_session_commit(s, 0, &err), ROLLED_BACK, "40000", err);
			ck_assert(err.retry_safe);
		} else {
			ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		}
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
		ck_assert_str_eq(talk_ask(s, "SELECT count(*) FROM rows"), "0");
	}
	/* Found out by COMMIT: nothing was sent, and so it is certain. */
	begin(s);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	talk_terminate(&c, 1, s);
	ASSERT_STATE(dbha_session_commit(s, 0, &err), ROLLED_BACK, "40000", err);
	ck_assert(err.retry_safe);
	/* And by ROLLBACK. */
	begin(s);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	talk_terminate(&c, 1, s);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	ck_assert_uint_eq(counters(h, -1).transactions, 0);
	ck_assert_uint_eq(counters(h, -1).transactions_rolled_back, 6);
	dbha_session_close(s);
	ck_assert_int_eq(rows("true"), 0);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------------- */

START_TEST(a_failed_transaction_is_never_called_committed)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	static const char *const ends[] = {"COMMIT", "END", "/* x */ COMMIT WORK", "--x\nEND TRANSACTION", ";COMMIT;"};
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	for (size_t i = 0; i <= sizeof ends / sizeof ends[0]; i++) {
		begin(s);
		talk_ask(s, "INSERT INTO rows VALUES (2)");
		ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (1)", &err), SERVER, "23505", err);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_ERROR);
		ASSERT_STATE(talk(s, "SELECT 1", &err), SERVER, "25P02", err);
		int code = i ? talk(s, ends[i - 1], &err) : dbha_session_commit(s, 0, &err);
		ASSERT_STATE(code, ROLLED_BACK, "40000", err);
		ck_assert(err.retry_safe && !err.outcome_unknown);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	}
	/* What COMMIT itself fails with. */
	talk_ask(s, "CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
	for (int text = 0; text <= 1; text++) {
		begin(s);
		talk_ask(s, "INSERT INTO late VALUES (1), (1)");
		int code = text ? talk(s, "COMMIT", &err) : dbha_session_commit(s, 0, &err);
		ASSERT_STATE(code, SERVER, "23505", err);
		ck_assert(err.retry_safe && !err.outcome_unknown);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	}
	dbha_session *other = talk_open(h);
	talk_ask(s, "INSERT INTO late VALUES (10)");
	dbha_transaction_options serializable = DBHA_TRANSACTION(.isolation = DBHA_SERIALIZABLE);
	dbha_session *both[] = {s, other};
	for (int i = 0; i < 2; i++) {
		ASSERT_OK(dbha_session_begin(both[i], &serializable, &err), err);
		talk_ask(both[i], "SELECT sum(id) FROM late");
	}
	for (int i = 0; i < 2; i++)
		talk_ask(both[i], "INSERT INTO late VALUES (%d)", 20 + i);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ASSERT_STATE(dbha_session_commit(other, 0, &err), SERVER, "40001", err);
	ck_assert(err.retry_safe && !err.outcome_unknown);
	dbha_session_close(other);
	talk_ask(s, "DROP TABLE late");
	dbha_session_close(s);
	ck_assert_int_eq(rows("true"), 1);
}
END_TEST

START_TEST(text_ends_and_begins_as_the_functions_do)
{
	static const char *const begins[] = {"BEGIN", "START TRANSACTION", "/*a*/ begin work",
	                                     "--\nBEGIN ISOLATION LEVEL "
	                                     "SERIALIZABLE"};
	static const char *const aborts[] = {"ROLLBACK", "ABORT", "/*a*/ rollback work", "ABORT TRANSACTION;"};
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int i = 0; i < 4; i++) {
		talk_ask(s, "%s", begins[i]);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_TRANSACTION);
		ASSERT_STATE(talk(s, begins[i], &err), SERVER, "25001", err);
		talk_ask(s, "INSERT INTO rows VALUES (1)");
		ck_assert_uint_gt(talk_status(s).xid, 0);
		talk_ask(s, "%s", aborts[i]);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	}
	/* In a transaction whose BEGIN has not been sent yet. */
	for (int i = 0; i < 4; i++) {
		begin(s);
		ASSERT_STATE(talk(s, begins[i], &err), SERVER, "25001", err);
		talk_ask(s, "%s", aborts[i]);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	}
	/* No ROLLBACK after all. */
	begin(s);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	ASSERT_STATE(talk(s, "ROLLBACK AND NONSENSE", &err), SERVER, "42601", err);
	ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_ERROR);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	begin(s);
	ASSERT_CODE(talk(s, "COPY rows FROM STDIN", &err), USAGE, err);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	dbha_session_close(s);
	ck_assert_int_eq(rows("true"), 0);
}
END_TEST

START_TEST(and_chain_leaves_no_statement_outside)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_session *s = talk_open(h);
	dbha_error err;
	/* On the server, before anything was sent, and after the connection was lost. */
	for (int how = 0; how <= 4; how++) {
		if (how == 4)
			talk_ask(s, "BEGIN ISOLATION LEVEL REPEATABLE READ");
		else
			ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.isolation = DBHA_REPEATABLE_READ), &err), err);
		if (how != 1)
			talk_ask(s, "SELECT 1");
		if (how >= 2) {
			talk_terminate(&c, 1, s);
			ASSERT_CODE(talk(s, "SELECT 1", &err), ROLLED_BACK, err);
		}
		if (how == 3)
			ASSERT_CODE(talk(s, "COMMIT AND CHAIN", &err), ROLLED_BACK, err);
		else
			ASSERT_OK(talk(s, how == 0 ? "COMMIT AND CHAIN" : "ROLLBACK AND CHAIN", &err), err);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_TRANSACTION);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", how);
		ck_assert_uint_gt(talk_status(s).xid, 0);
		ck_assert_str_eq(talk_ask(s, "SHOW transaction_isolation"), "repeatable read");
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	}
	dbha_session_close(s);
	ck_assert_int_eq(rows("true"), 0);
}
END_TEST

START_TEST(two_phases_are_not_made_up)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int empty = 0; empty <= 1; empty++) {
		begin(s);
		if (!empty)
			talk_ask(s, "INSERT INTO rows VALUES (1)");
		talk_ask(s, "/* two */ PREPARE TRANSACTION 'x%d'", empty);
		ck_assert_msg(talk_status(s).state == DBHA_SESSION_IDLE, "%d: state %d", empty, talk_status(s).state);
		begin(s);
		ASSERT_STATE(talk(s, "COMMIT PREPARED 'x0'", &err), SERVER, "25001", err);
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM pg_prepared_xacts"), 1);
		talk_ask(s, empty ? "ROLLBACK PREPARED 'x1'" : "COMMIT PREPARED 'x0'");
	}
	dbha_session_close(s);
	ck_assert_int_eq(rows("id = 1"), 1);
}
END_TEST

START_TEST(savepoints_have_any_name)
{
	static const char *const names[] = {"a",        "B c",
	                                    "\"",       "x\"; DROP TABLE rows; --",
	                                    "\xc3\xa9", "123456789012345678901234567890123456789012345678901234567890123"};
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int i = 0; i < 6; i++) {
		begin(s);
		ASSERT_OK(dbha_savepoint(s, names[i], 0, &err), err);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", i);
		ASSERT_CODE(talk(s, "SELECT 1/0", &err), SERVER, err);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_ERROR);
		ASSERT_OK(dbha_savepoint_rollback(s, names[i], 0, &err), err);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_TRANSACTION);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", 100 + i);
		ASSERT_OK(dbha_savepoint_release(s, names[i], 0, &err), err);
		ASSERT_STATE(dbha_savepoint_release(s, names[i], 0, &err), SERVER, "3B001", err);
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		begin(s);
		ASSERT_OK(dbha_savepoint(s, names[i], 0, &err), err);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", i);
		ASSERT_OK(dbha_savepoint_rollback(s, names[i], 0, &err), err);
		talk_ask(s, "INSERT INTO rows VALUES (%d)", 100 + i);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	}
	dbha_session_close(s);
	ck_assert_int_eq(rows("id >= 100"), 6);
	ck_assert_int_eq(rows("true"), 6);
}
END_TEST

/* ---- with the loss of the primary; the last test, its cluster is not as before --------------------------------------- */

START_TEST(the_first_statement_survives_the_loss_of_the_primary)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = talk_open(h), *t = talk_open(h), *reader = talk_open(h);
	dbha_error err;
	talk_ask(s, "INSERT INTO rows VALUES (0)");
	begin(t);
	talk_ask(t, "INSERT INTO rows VALUES (7)");
	talk_as(reader, DBHA_READ, "SELECT 1", &err); /* a connection that was made to a standby */
	cluster_catch_up(&c, 2, 1);
	begin(s);
	cluster_do(&c, "kill %d", 1);
	cluster_do(&c, "promote %d", 2);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	/* Also on a connection made before the promotion its mark is known, so that COMMIT can be asked about. */
	ck_assert_uint_gt(talk_status(s).xid, 0);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ASSERT_STATE(talk(t, "SELECT 1", &err), ROLLED_BACK, "40000", err);
	ASSERT_OK(dbha_session_rollback(t, 0, &err), err);
	for (int i = 2; i < 8; i++) {
		begin(reader);
		talk_ask(reader, "INSERT INTO rows VALUES (%d)", i);
		ck_assert_uint_gt(talk_status(reader).xid, 0);
		ASSERT_OK(dbha_session_commit(reader, 0, &err), err);
	}
	dbha_session_close(s);
	dbha_session_close(t);
	dbha_session_close(reader);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM rows"), 8);
}
END_TEST

static Suite *transaction_suite(void)
{
	Suite *suite = suite_create("transaction");
	ADD_TEST(suite, the_server_sees_what_was_asked_for, servers, after, 60);
	ADD_TEST(suite, a_read_only_transaction_runs_where_it_can, servers, after, 60);
	ADD_TEST(suite, begin_the_first_statement_and_the_mark_travel_together, servers, after, 60);
	ADD_TEST(suite, reads_are_given_no_id, servers, after, 60);
	ADD_TEST(suite, a_mark_stays_until_the_end_of_its_transaction, servers, after, 60);
	ADD_TEST(suite, no_snapshot_is_taken_before_the_callers_first_query, servers, after, 60);
	ADD_TEST(suite, a_role_that_may_not_ask_for_marks_has_transactions, servers, after, 60);
	ADD_TEST(suite, the_first_statement_survives_the_loss_of_its_connection, servers, after, 60);
	ADD_TEST(suite, a_later_statement_reports_the_transaction_rolled_back, servers, after, 60);
	ADD_TEST(suite, a_failed_transaction_is_never_called_committed, servers, after, 60);
	ADD_TEST(suite, text_ends_and_begins_as_the_functions_do, servers, after, 60);
	ADD_TEST(suite, and_chain_leaves_no_statement_outside, servers, after, 60);
	ADD_TEST(suite, two_phases_are_not_made_up, servers, after, 60);
	ADD_TEST(suite, savepoints_have_any_name, servers, after, 60);
	ADD_TEST(suite, the_first_statement_survives_the_loss_of_the_primary, servers, after, 90);
	return suite;
}

int main(void)
{
	return run_suite(transaction_suite(), &c);
}
