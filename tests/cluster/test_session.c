/*
 * test_session: sessions on real servers. They share connections until they set something, what they have set is gone before another
 * one gets the connection, and a session whose connection is lost does not go on with other settings.
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
	if (c.keeper)
		return;
	cluster_with_rows(&c, "2", "id int PRIMARY KEY, who text");
	cluster_ask(&c, 1, "CREATE ROLE other");
	cluster_ask(&c, 1, "GRANT other TO app");
	cluster_all_catch_up(&c);
}

static void after(void)
{
	handles_close();
	relay_stop(&relay);
}

/* One connection to the primary, for whoever wants it. */
static dbha *open_narrow(const char *options)
{
	char all[160];
	snprintf(all, sizeof all, "pool_max_size=1%s%s", options ? "&" : "", options ? options : "");
	dbha *h = open_all(&c, all);
	fetch(h, DBHA_WRITE, "SELECT 1");
	return h;
}

/* ---- one connection for many ------------------------------------------------------------------------------------ */

START_TEST(idle_sessions_share_one_connection)
{
	dbha *h = open_narrow(NULL);
	dbha_session *sessions[50];
	const char *pid = fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()");
	for (int i = 0; i < 50; i++)
		sessions[i] = talk_open(h);
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 50; i++) {
			ck_assert_str_eq(talk_ask(sessions[i], "SELECT pg_backend_pid()"), pid);
			ck_assert_int_eq(talk_status(sessions[i]).backend_pid, 0);
			ck_assert_int_eq(talk_status(sessions[i]).pinned, 0);
			ck_assert_int_eq(talk_status(sessions[i]).state, DBHA_SESSION_IDLE);
			ck_assert_str_ne(talk_status(sessions[i]).node, "");
		}
	ck_assert_uint_eq(counters(h, 0).resets, 0);
	for (int i = 0; i < 50; i++)
		dbha_session_close(sessions[i]);
}
END_TEST

START_TEST(two_sessions_share_no_transaction_and_no_setting)
{
	dbha *h = open_all(&c, "pool_max_size=2");
	dbha_session *a = talk_open(h), *b = talk_open(h);
	dbha_error err;
	ASSERT_OK(dbha_session_begin(a, NULL, &err), err);
	talk_ask(a, "INSERT INTO rows VALUES (1, 'a')");
	talk_ask(a, "SET work_mem = '77kB'");
	ck_assert_str_eq(talk_ask(b, "SELECT count(*) FROM rows"), "0");
	ck_assert_str_ne(talk_ask(b, "SHOW work_mem"), "77kB");
	ASSERT_OK(dbha_session_begin(b, NULL, &err), err);
	talk_ask(b, "INSERT INTO rows VALUES (2, 'b')");
	ck_assert_int_ne(talk_status(a).backend_pid, talk_status(b).backend_pid);
	ASSERT_OK(dbha_session_rollback(b, 0, &err), err);
	ASSERT_OK(dbha_session_commit(a, 0, &err), err);
	ck_assert_str_eq(talk_ask(a, "SHOW work_mem"), "77kB");
	ck_assert_str_eq(talk_ask(b, "SELECT string_agg(id::text, ' ') FROM rows"), "1");
	for (int i = 0; i < 20; i++)
		ck_assert_str_ne(talk_ask(b, "SHOW work_mem"), "77kB");
	dbha_session_close(a);
	ck_assert_str_ne(talk_ask(b, "SHOW work_mem"), "77kB");
	dbha_session_close(b);
	cluster_ask(&c, 1, "TRUNCATE rows");
}
END_TEST

/* ---- what is set ---------------------------------------------------------------------------------------------- */

struct state {
	const char *sql[3];
	const char *look; /* "t" while it is there, asked on the same backend */
	const char *pinned_by;
};

static const struct state states[] = {
    {{"SET work_mem = '123kB'"}, "SELECT current_setting('work_mem') = '123kB'", "settings"},
    {{"/* c */ SET work_mem = '123kB'"}, "SELECT current_setting('work_mem') = '123kB'", "settings"},
    {{"SELECT set_config('my.own', 'x', false)"},
     "SELECT current_setting('my.own', true) IS NOT DISTINCT FROM 'x'",
     "settings"},
    {{"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE"},
     "SELECT current_setting('transaction_isolation') = 'serializable'",
     "settings"},
    {{"SET application_name = 'local transaction'"},
     "SELECT current_setting('application_name') = 'local transaction'",
     "settings"},
    {{"SET ROLE other"}, "SELECT current_user = 'other' OR current_setting('role') = 'other'", "settings"},
    {{"SET SESSION AUTHORIZATION app", "SET ROLE other"},
     "SELECT current_user = 'other' OR current_setting('role') = 'other'",
     "settings"},
    {{"SET default_transaction_read_only = on"}, "SELECT current_setting('transaction_read_only') = 'on'", "settings"},
    {{"CREATE TEMP TABLE mine (a int)"}, "SELECT to_regclass('mine') IS NOT NULL", "temporary tables"},
    {{"SELECT 1 AS a INTO TEMP mine"}, "SELECT to_regclass('mine') IS NOT NULL", "temporary tables"},
    {{"BEGIN", "CREATE TEMP TABLE mine (a int)", "COMMIT"},
     "SELECT to_regclass('mine') IS NOT NULL",
     "temporary tables"},
    {{"LISTEN news"}, "SELECT count(*) > 0 FROM pg_listening_channels()", "LISTEN"},
    {{"SELECT pg_advisory_lock(77)"},
     "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
     "advisory locks"},
    {{"BEGIN", "SELECT pg_advisory_lock(77)", "ROLLBACK"},
     "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
     "advisory locks"},
    {{"BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "COMMIT"},
     "SELECT count(*) > 0 FROM pg_cursors WHERE is_holdable",
     "cursors WITH HOLD"},
    {{"PREPARE mine AS SELECT 1"},
     "SELECT count(*) > 0 FROM pg_prepared_statements WHERE name = 'mine'",
     "prepared statements"},
    {{"BEGIN", "PREPARE mine AS SELECT 1", "ROLLBACK"},
     "SELECT count(*) > 0 FROM pg_prepared_statements WHERE name = 'mine'",
     "prepared statements"},
    {{"DO $$BEGIN SET work_mem = '123kB'; END$$"}, "SELECT current_setting('work_mem') = '123kB'", "settings"},
};

#define N_STATES ((int)(sizeof states / sizeof states[0]))

START_TEST(what_is_set_pins_and_is_gone_for_the_next_one)
{
	dbha *h = open_narrow(NULL);
	for (int i = 0; i < N_STATES; i++) {
		const struct state *state = &states[i];
		dbha_session *a = talk_open(h), *b = talk_open(h);
		ck_assert_str_eq(talk_ask(b, "%s", state->look), "f");
		const char *pid = talk_ask(b, "SELECT pg_backend_pid()");
		const char *ours = talk_ask(b, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'dbha%%'");
		for (int k = 0; k < 3 && state->sql[k]; k++)
			talk_ask(a, "%s", state->sql[k]);
		ck_assert_msg(talk_status(a).pinned == 1, "not pinned by %s", state->sql[0]);
		ck_assert_str_eq(talk_status(a).pinned_by, state->pinned_by);
		ck_assert_int_eq(talk_status(a).backend_pid, atoi(pid));
		ck_assert_str_eq(talk_ask(a, "%s", state->look), "t");
		dbha_session_close(a);
		/* The same connection, without what was set, and with the library's own statements. */
		ck_assert_str_eq(talk_ask(b, "SELECT pg_backend_pid()"), pid);
		ck_assert_msg(*talk_ask(b, "%s", state->look) == 'f', "left behind: %s", state->sql[0]);
		ck_assert_int_ge(atoi(talk_ask(b, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'dbha%%'")),
		                 atoi(ours));
		dbha_session_close(b);
	}
	/* Some were prepared by then, or nothing was shown. */
	ck_assert_int_gt(atoi(fetch(h, DBHA_WRITE, "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'dbha%%'")),
	                 0);
}
END_TEST

START_TEST(dbha_exec_leaves_nothing_behind)
{
	dbha *h = open_narrow(NULL);
	int tried = 0;
	for (int i = 0; i < N_STATES; i++) {
		if (states[i].sql[1])
			continue;
		const char *pid = fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()");
		fetch(h, DBHA_WRITE, "%s", states[i].sql[0]);
		ck_assert_msg(*fetch(h, DBHA_WRITE, "%s", states[i].look) == 'f', "left behind: %s", states[i].sql[0]);
		ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()"), pid);
		tried++;
	}
	ck_assert_uint_ge(counters(h, 0).resets, (uint64_t)tried);
}
END_TEST

START_TEST(a_lease_comes_back_clean)
{
	dbha *h = open_narrow(NULL);
	dbha_error err;
	for (int i = 0; i < N_STATES; i++) {
		dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 5000, &err);
		ck_assert_msg(lease != NULL, "%s", lease ? "" : err.message);
		for (int k = 0; k < 3 && states[i].sql[k]; k++)
			lease_fetch(lease, states[i].sql[k]);
		ck_assert_str_eq(lease_fetch(lease, states[i].look), "t");
		int pid = PQbackendPID(dbha_conn_pq(lease));
		dbha_release(lease);
		ck_assert_msg(*fetch(h, DBHA_WRITE, "%s", states[i].look) == 'f', "left behind: %s", states[i].sql[0]);
		ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
	}
}
END_TEST

START_TEST(another_users_identity_is_gone_for_the_next_one)
{
	char url[512];
	snprintf(url, sizeof url, "host=%s port=%d user=postgres dbname=app pool_max_size=1", c.dir, cluster_port(&c, 1));
	dbha *h = open_handle(url);
	dbha_session *a = talk_open(h), *b = talk_open(h);
	const char *pid = talk_ask(b, "SELECT pg_backend_pid()");
	talk_ask(a, "SET SESSION AUTHORIZATION other");
	ck_assert_str_eq(talk_ask(a, "SELECT session_user"), "other");
	dbha_session_close(a);
	ck_assert_str_eq(talk_ask(b, "SELECT session_user"), "postgres");
	ck_assert_str_eq(talk_ask(b, "SELECT pg_backend_pid()"), pid);
	a = talk_open(h);
	talk_ask(b, "SELECT 1");
	talk_ask(a, "SET SESSION AUTHORIZATION app");
	talk_ask(a, "SET ROLE other");
	dbha_session_close(a);
	ck_assert_str_eq(talk_ask(b, "SELECT session_user || current_user || current_setting('role')"),
	                 "postgrespostgresnone");
	dbha_session_close(b);
}
END_TEST

START_TEST(what_ends_by_itself_does_not_pin)
{
	static const char *const quiet[] = {
	    "SELECT pg_advisory_xact_lock(1)",
	    "SET LOCAL work_mem = '99kB'",
	    "SELECT 1 AS temp",
	    "SELECT 1 AS hold",
	    "DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1",
	    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
	    "SET CONSTRAINTS ALL IMMEDIATE",
	    "SELECT 1 /* set_config */",
	};
	static const char *const undone[] = {
	    "SET work_mem = '99kB'",
	    "CREATE TEMP TABLE mine (a int)",
	    "LISTEN news",
	    "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
	};
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (size_t i = 0; i < sizeof quiet / sizeof quiet[0]; i++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		talk_ask(s, "%s", quiet[i]);
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		ck_assert_msg(!talk_status(s).pinned, "pinned by %s: %s", quiet[i], talk_status(s).pinned_by);
	}
	for (size_t i = 0; i < sizeof undone / sizeof undone[0]; i++) {
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		talk_ask(s, "%s", undone[i]);
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ck_assert_msg(!talk_status(s).pinned, "pinned by %s: %s", undone[i], talk_status(s).pinned_by);
		/* The same where COMMIT turns out to be a ROLLBACK. */
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		talk_ask(s, "%s", undone[i]);
		ASSERT_CODE(talk(s, "SELECT 1/0", &err), SERVER, err);
		ASSERT_CODE(dbha_session_commit(s, 0, &err), ROLLED_BACK, err);
		ck_assert_msg(!talk_status(s).pinned, "pinned by %s: %s", undone[i], talk_status(s).pinned_by);
	}
	ck_assert_str_ne(talk_ask(s, "SHOW work_mem"), "99kB");
	dbha_session_close(s);
}
END_TEST

START_TEST(discard_all_unpins_and_the_library_goes_on)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	for (int round = 0; round < 3; round++) {
		/* Prepared by now, and the mark too. */
		for (int i = 0; i < 3; i++) {
			ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
			talk_ask(s, "INSERT INTO rows VALUES (%d)", i);
			ck_assert_uint_gt(talk_status(s).xid, 0);
			ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
			talk_ask(s, "SELECT 7");
		}
		talk_ask(s, "SET work_mem = '99kB'");
		ck_assert_int_eq(talk_status(s).pinned, 1);
		talk_ask(s, round == 0 ? "DISCARD ALL" : round == 1 ? "SELECT 7" : "DEALLOCATE ALL");
		ck_assert_int_eq(talk_status(s).pinned, round != 0);
		ck_assert_str_eq(talk_ask(s, "SELECT 7"), "7");
		ASSERT_OK(dbha_session_reset(s, &err), err);
		ck_assert_int_eq(talk_status(s).pinned, 0);
		ck_assert_str_ne(talk_ask(s, "SHOW work_mem"), "99kB");
	}
	/* Behind our back: the transaction's first statement, and the question behind it, are repaired without the caller seeing it. */
	talk_ask(s, "DO $$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$");
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	talk_ask(s, "INSERT INTO rows VALUES (0)");
	ck_assert_uint_gt(talk_status(s).xid, 0);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	dbha_session_close(s);
}
END_TEST

START_TEST(a_changed_table_is_repaired_in_the_first_statement_of_a_transaction)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	cluster_ask(&c, 1, "CREATE TABLE changing (a int)");
	cluster_ask(&c, 1, "GRANT ALL ON changing TO app");
	for (int pinned = 0; pinned <= 1; pinned++) {
		if (pinned)
			talk_ask(s, "SET work_mem = '99kB'");
		for (int i = 0; i < 3; i++)
			talk_ask(s, "SELECT * FROM changing");
		cluster_ask(&c, 1, "ALTER TABLE changing ADD COLUMN b%d int", pinned);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		talk_ask(s, "SELECT * FROM changing");
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		/* In the middle of one nothing can be repaired; the next one has it prepared anew. */
		for (int i = 0; i < 3; i++)
			talk_ask(s, "SELECT * FROM changing");
		cluster_ask(&c, 1, "ALTER TABLE changing ADD COLUMN c%d int", pinned);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		talk_ask(s, "SELECT 1");
		ASSERT_STATE(talk(s, "SELECT * FROM changing", &err), SERVER, "0A000", err);
		ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
		ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
		talk_ask(s, "SELECT 1");
		talk_ask(s, "SELECT * FROM changing");
		ASSERT_OK(dbha_session_commit(s, 0, &err), err);
		ck_assert_int_eq(talk_status(s).pinned, pinned);
	}
	dbha_session_close(s);
	cluster_ask(&c, 1, "DROP TABLE changing");
}
END_TEST

START_TEST(a_session_on_a_standby_stays_read_only)
{
	static const char *const tries[] = {
	    "SET default_transaction_read_only = off",
	    "RESET default_transaction_read_only",
	    "RESET ALL",
	    "DISCARD ALL",
	    "SELECT set_config('default_transaction_read_only', 'off', false)",
	    "SELECT pg_advisory_lock(5)",
	    "PREPARE mine AS SELECT 1",
	    "SET work_mem = '99kB'",
	};
	dbha *h = open_narrow(NULL);
	dbha_error err;
	for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
		dbha_session *s = talk_open(h);
		ck_assert_str_eq(fetch(h, DBHA_READ, "SHOW default_transaction_read_only"), "on");
		ASSERT_OK(talk_as(s, DBHA_READ, tries[i], &err), err);
		dbha_session_close(s);
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
		ck_assert_msg(strcmp(fetch(h, DBHA_READ, "SHOW default_transaction_read_only"), "on") == 0, "after %s",
		              tries[i]);
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
		ck_assert_str_ne(fetch(h, DBHA_READ, "SHOW work_mem"), "99kB");
	}
}
END_TEST

START_TEST(dbha_pin_pins_and_everything_is_reset)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	PGresult *result;
	cluster_ask(&c, 1,
	            "CREATE FUNCTION hidden() RETURNS void LANGUAGE plpgsql AS "
	            "$$BEGIN EXECUTE 'SET work_mem = ''88kB'''; EXECUTE 'CREATE TEMP TABLE mine (a int)'; END$$");
	int pid = atoi(talk_ask(s, "SELECT pg_backend_pid()"));
	ASSERT_OK(dbha_session_exec(s, &DBHA_REQUEST(.sql = "SELECT hidden()", .flags = DBHA_PIN), &result, &err), err);
	PQclear(result);
	ck_assert_str_eq(talk_status(s).pinned_by, "DBHA_PIN");
	ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "88kB");
	dbha_session_close(s);
	ck_assert_str_ne(fetch(h, DBHA_WRITE, "SHOW work_mem"), "88kB");
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT to_regclass('mine') IS NULL"), "t");
	ck_assert_int_eq(atoi(fetch(h, DBHA_WRITE, "SELECT pg_backend_pid()")), pid);
}
END_TEST

START_TEST(a_read_only_refusal_takes_nothing_from_a_session)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	talk_ask(s, "SET work_mem = '99kB'");
	talk_ask(s, "SET default_transaction_read_only = on");
	ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (1)", &err), SERVER, "25006", err);
	ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "99kB");
	talk_ask(s, "SET default_transaction_read_only = off");
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	talk_ask(s, "SELECT 1");
	ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (1)", &err), SERVER, "25006", err);
	ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IN_ERROR);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "99kB");
	dbha_session_close(s);
	ck_assert_str_ne(fetch(h, DBHA_WRITE, "SHOW work_mem"), "99kB");
}
END_TEST

/* ---- what is lost ---------------------------------------------------------------------------------------------- */

START_TEST(a_pinned_session_that_lost_its_connection_says_so_until_it_is_reset)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	talk_ask(s, "SET work_mem = '99kB'");
	talk_terminate(&c, 1, s);
	for (int i = 0; i < 3; i++) {
		ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (1)", &err), STATE_LOST, "08006", err);
		ASSERT_HAS(err.message, "settings");
		ASSERT_HAS(err.message, "dbha_session_reset");
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_LOST);
		ck_assert_int_eq(talk_status(s).pinned, 0);
	}
	ASSERT_CODE(dbha_session_begin(s, NULL, &err), STATE_LOST, err);
	ASSERT_CODE(dbha_session_commit(s, 0, &err), STATE_LOST, err);
	ASSERT_CODE(dbha_session_rollback(s, 0, &err), STATE_LOST, err);
	ASSERT_CODE(dbha_savepoint(s, "a", 0, &err), STATE_LOST, err);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 0);
	ASSERT_OK(dbha_session_reset(s, &err), err);
	ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	ck_assert_str_ne(talk_ask(s, "SHOW work_mem"), "99kB");
	/* In a transaction of its own too: first that is rolled back, then the rest is said. */
	talk_ask(s, "CREATE TEMP TABLE mine (a int)");
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	talk_ask(s, "INSERT INTO rows VALUES (1)");
	talk_terminate(&c, 1, s);
	ASSERT_STATE(talk(s, "INSERT INTO rows VALUES (2)", &err), ROLLED_BACK, "40000", err);
	ASSERT_CODE(talk(s, "SELECT 1", &err), STATE_LOST, err);
	ASSERT_HAS(err.message, "temporary tables");
	ASSERT_OK(dbha_session_reset(s, &err), err);
	talk_ask(s, "SELECT 1");
	dbha_session_close(s);
}
END_TEST

START_TEST(a_write_in_doubt_on_a_pinned_session_is_unknown_first)
{
	dbha_error err;
	char hosts[64];
	relay_start(&relay, cluster_port(&c, 1));
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d", relay.port);
	dbha *h = open_hosts(&c, hosts, "pool_max_size=1");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, PATIENCE_MS, &err), err);
	dbha_session *s = talk_open(h);
	talk_ask(s, "SET work_mem = '99kB'");
	int pid = talk_status(s).backend_pid;
	static struct statement killer;
	PGconn *admin = cluster_admin(&c, 1);
	char sql[200];
	snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d) FROM (SELECT pg_sleep(0.3)) AS a", pid);
	statement_start_on(&killer, admin, sql);
	/* The server's last words are not among those that tell: the statement runs code. */
	ASSERT_STATE(talk(s, "DO $$BEGIN PERFORM pg_sleep(10); END$$", &err), UNKNOWN, "08007", err);
	ck_assert(err.outcome_unknown);
	statement_join(&killer);
	PQfinish(admin);
	ASSERT_STATE(talk(s, "SELECT 1", &err), STATE_LOST, "08006", err);
	ASSERT_OK(dbha_session_reset(s, &err), err);
	talk_ask(s, "SELECT 1");
	dbha_session_close(s);
}
END_TEST

/* ---- the server's own time limit --------------------------------------------------------------------------------- */

START_TEST(the_server_gets_the_remaining_time_for_one_statement)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	PGresult *result;
	const char *before = fetch(h, DBHA_WRITE, "SHOW statement_timeout");
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT setting FROM pg_settings WHERE name = 'statement_timeout'",
	                               .flags = DBHA_SERVER_TIMEOUT, .timeout_ms = 5000);
	for (int i = 0; i < 4; i++) {
		ASSERT_OK(i % 2 ? dbha_exec(h, &rq, &result, &err) : dbha_session_exec(s, &rq, &result, &err), err);
		int ms = atoi(PQgetvalue(result, 0, 0));
		PQclear(result);
		ck_assert_int_gt(ms, 4000);
		ck_assert_int_le(ms, 5000);
		ck_assert_str_eq(fetch(h, DBHA_WRITE, "SHOW statement_timeout"), before);
		ck_assert_int_eq(talk_status(s).pinned, 0);
	}
	ck_assert_uint_eq(counters(h, 0).resets, 0);
	/* And it is obeyed: the server ends the statement of a client that does not. */
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 5000, &err);
	dbha_release(lease);
	rq.sql = "SELECT pg_sleep(20)";
	rq.timeout_ms = 400;
	int64_t began = now_ms();
	int code = dbha_exec(h, &rq, &result, &err);
	ASSERT_CODE(code, TIMEOUT, err);
	ck_assert(err.retry_safe && !err.outcome_unknown);
	PQclear(result);
	ck_assert_int_lt(now_ms() - began, 400 + 10 * SLACK_MS);
	dbha_session_close(s);
}
END_TEST

/* ---- misuse ------------------------------------------------------------------------------------------------------ */

START_TEST(misuse_is_refused)
{
	dbha *h = open_narrow(NULL);
	dbha_session *s = talk_open(h);
	dbha_error err;
	PGresult *result = (PGresult *)&err;
	ck_assert_ptr_null(dbha_session_open(NULL, &err));
	ck_assert_int_eq(err.code, DBHA_ERR_USAGE);
	ck_assert_ptr_null(dbha_session_open(NULL, NULL));
	dbha_session_close(NULL);
	ASSERT_CODE(dbha_session_exec(NULL, &DBHA_REQUEST(.sql = "SELECT 1"), &result, &err), USAGE, err);
	ck_assert_ptr_null(result);
	ASSERT_CODE(dbha_session_exec(s, NULL, &result, &err), USAGE, err);
	ASSERT_CODE(dbha_session_exec(s, &DBHA_REQUEST(.sql = NULL), &result, &err), USAGE, err);
	ASSERT_CODE(dbha_session_exec(s, &DBHA_REQUEST(.sql = "SELECT 1"), NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_exec(s, &DBHA_REQUEST(.sql = "SELECT 1", .flags = 0x8000), &result, &err), USAGE, err);
	ck_assert_int_eq(dbha_session_exec(NULL, NULL, NULL, NULL), DBHA_ERR_USAGE);
	ASSERT_CODE(dbha_session_begin(NULL, NULL, &err), USAGE, err);
	dbha_transaction_options nonsense[] = {
	    {.size = 3},
	    DBHA_TRANSACTION(.isolation = 4),
	    DBHA_TRANSACTION(.isolation = -1),
	    DBHA_TRANSACTION(.timeout_ms = -1),
	    DBHA_TRANSACTION(.attempts_max = -1),
	};
	for (size_t i = 0; i < sizeof nonsense / sizeof nonsense[0]; i++) {
		ASSERT_CODE(dbha_session_begin(s, &nonsense[i], &err), USAGE, err);
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_IDLE);
	}
	ASSERT_STATE(dbha_session_commit(s, 0, &err), USAGE, "25P01", err);
	ASSERT_STATE(dbha_session_rollback(s, 0, &err), USAGE, "25P01", err);
	ASSERT_STATE(dbha_savepoint(s, "a", 0, &err), USAGE, "25P01", err);
	ASSERT_CODE(dbha_session_commit(NULL, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_session_rollback(NULL, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint(NULL, "a", 0, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint_release(NULL, "a", 0, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint_rollback(NULL, "a", 0, &err), USAGE, err);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_STATE(dbha_session_begin(s, NULL, &err), USAGE, "25001", err);
	ASSERT_CODE(dbha_session_commit(s, -1, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint(s, NULL, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint(s, "", 0, &err), USAGE, err);
	char name[66] = "";
	memset(name, '"', 64);
	ASSERT_CODE(dbha_savepoint(s, name, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_savepoint(s, "a", -1, &err), USAGE, err);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	ASSERT_CODE(dbha_session_reset(NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_cancel(NULL, &err), USAGE, err);
	dbha_session_status status = {.size = 1};
	ASSERT_CODE(dbha_session_status_get(s, &status, &err), USAGE, err);
	ASSERT_CODE(dbha_session_status_get(s, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_session_status_get(NULL, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_transaction(h, NULL, NULL, NULL, &err), USAGE, err);
	ASSERT_CODE(dbha_transaction(NULL, NULL, NULL, NULL, &err), USAGE, err);
	ck_assert_int_eq(dbha_session_reset(s, NULL), DBHA_OK);
	ck_assert_int_eq(dbha_cancel(s, NULL), DBHA_OK);
	talk_ask(s, "SELECT 1");
	dbha_session_close(s);
}
END_TEST

static Suite *session_suite(void)
{
	Suite *suite = suite_create("session");
	ADD_TEST(suite, idle_sessions_share_one_connection, servers, after, 60);
	ADD_TEST(suite, two_sessions_share_no_transaction_and_no_setting, servers, after, 60);
	ADD_TEST(suite, what_is_set_pins_and_is_gone_for_the_next_one, servers, after, 60);
	ADD_TEST(suite, dbha_exec_leaves_nothing_behind, servers, after, 60);
	ADD_TEST(suite, a_lease_comes_back_clean, servers, after, 60);
	ADD_TEST(suite, another_users_identity_is_gone_for_the_next_one, servers, after, 60);
	ADD_TEST(suite, what_ends_by_itself_does_not_pin, servers, after, 60);
	ADD_TEST(suite, discard_all_unpins_and_the_library_goes_on, servers, after, 60);
	ADD_TEST(suite, a_changed_table_is_repaired_in_the_first_statement_of_a_transaction, servers, after, 60);
	ADD_TEST(suite, a_session_on_a_standby_stays_read_only, servers, after, 60);
	ADD_TEST(suite, dbha_pin_pins_and_everything_is_reset, servers, after, 60);
	ADD_TEST(suite, a_read_only_refusal_takes_nothing_from_a_session, servers, after, 60);
	ADD_TEST(suite, a_pinned_session_that_lost_its_connection_says_so_until_it_is_reset, servers, after, 60);
	ADD_TEST(suite, a_write_in_doubt_on_a_pinned_session_is_unknown_first, servers, after, 60);
	ADD_TEST(suite, the_server_gets_the_remaining_time_for_one_statement, servers, after, 60);
	ADD_TEST(suite, misuse_is_refused, servers, after, 60);
	return suite;
}

int main(void)
{
	return run_suite(session_suite(), &c);
}
