/*
 * test_corners: what belongs to freshness (a question before a statement, a position behind it, a token) where it meets something else: a
 * chained transaction, a pinned session, a lost or silent connection, a changed table, a pooler, a handle of one node, a second primary. It
 * must cost nothing there: no stale row, no second execution, no state that is lost in silence, no connection or time that is waited for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "cutter.h"
#include "fresh.h"
#include "relay.h"
#include "talk.h"
#include "work.h"

/* So seldom that a test is over before the second look: what a standby has replayed since then only a question can tell. */
#define NO_NEWS "probe_interval=1min"

static struct cluster c;
static struct cutter cutter;
static struct relay relay;
static FILE *bouncer;

static void made(void)
{
	fresh_cluster(&c, "3 --set max_standby_streaming_delay=0");
}

/* What stood before a node; behind a test, however it ended. */
static void cleared(void)
{
	cutter_stop(&cutter);
	relay_stop(&relay);
	if (bouncer)
		pclose(bouncer);
	bouncer = NULL;
}

static void hold_both(void)
{
	hold_replay(&c, 2);
	hold_replay(&c, 3);
}

static void go_on_both(void)
{
	go_on_replay(&c, 2);
	go_on_replay(&c, 3);
}

/* A handle that reaches node 1 at this port, and the standbys directly. */
static dbha *open_behind(int port, const char *options)
{
	char hosts[128];
	dbha_error err;
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", port, cluster_port(&c, 2),
	         cluster_port(&c, 3));
	dbha *h = open_hosts(&c, hosts, options);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	return h;
}

/* ---- chained transactions --------------------------------------------------------------------------------------------- */

START_TEST(a_chained_transaction_begins_with_its_own_first_statement)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	raise_row(s);
	talk_ask(s, "COMMIT AND CHAIN");
	talk_ask(s, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE");
	ck_assert_str_eq(talk_ask(s, "SHOW transaction_isolation"), "serializable");
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	c.intact = true;
}
END_TEST

START_TEST(a_chained_transaction_has_the_snapshot_of_its_own_first_query)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.isolation = DBHA_REPEATABLE_READ), &err), err);
	long n = raise_row(s);
	talk_ask(s, "COMMIT AND CHAIN");
	ck_assert_str_eq(talk_ask(s, "SHOW transaction_isolation"), "repeatable read");
	cluster_ask(&c, 1, "UPDATE rows SET n = n + 1");
	ck_assert_int_eq(atol(talk_ask(s, "SELECT n FROM rows")), n + 1);
	cluster_ask(&c, 1, "UPDATE rows SET n = n + 1");
	ck_assert_int_eq(atol(talk_ask(s, "SELECT n FROM rows")), n + 1);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(look(s).n, n + 2);
	c.intact = true;
}
END_TEST

/* ---- the connection ends between a statement's answer and its position's ------------------------------------------------- */

static long end_of_first_answer(const struct cut_report *report)
{
	for (int i = 0; i < report->n_messages; i++) {
		const struct cut_message *message = &report->messages[i];
		if (message->direction == REPLY && message->type == 'Z')
			return message->start + message->length;
	}
	ck_abort_msg("it was not answered");
	return -1;
}

static void arm(const char *marker, enum cut_kind kind, long at)
{
	struct cut cut = {.kind = kind, .direction = REPLY, .at = at};
	snprintf(cut.marker, sizeof cut.marker, "%s", marker);
	cutter_arm(&cutter, &cut);
}

/* Where the answer to the statement ends, by the report of a run that was only looked at. */
static long place_of_the_cut(void)
{
	static struct cut_report report;
	cutter_disarm(&cutter, &report);
	ck_assert(report.found);
	long at = end_of_first_answer(&report);
	ck_assert_int_lt(at, report.forwarded[REPLY]);
	return at;
}

static void expect_cut(void)
{
	static struct cut_report report;
	cutter_disarm(&cutter, &report);
	ck_assert(report.found && report.cutting && report.done);
}

/* Sets something for the session, by `sql` or before it. */
static void set_with(dbha_session *s, const char *sql, enum cut_kind kind, long at)
{
	bool commits = strcmp(sql, "COMMIT") == 0;
	if (commits)
		talk_ask(s, "BEGIN");
	if (commits)
		talk_ask(s, "SET work_mem = '6MB'");
	arm(sql, kind, at);
	talk_ask(s, "%s", sql);
}

START_TEST(what_was_set_on_a_connection_that_is_lost_behind_the_answer_is_told_as_lost)
{
	static const char *const sqls[] = {"SET work_mem = '6MB'", "COMMIT"};
	dbha_error err;
	cutter_start(&cutter, cluster_port(&c, 1));
	dbha *h = open_behind(cutter.port, "sslmode=disable");
	for (int i = 0; i < 2; i++) {
		dbha_session *s = placed_session(h);
		set_with(s, sqls[i], CUT_NONE, 0);
		long at = place_of_the_cut();
		ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "6MB");
		ASSERT_OK(dbha_session_reset(s, &err), err);
		set_with(s, sqls[i], CUT_RESET, at);
		expect_cut();
		for (int k = 0; k < 2; k++)
			ASSERT_STATE(talk_as(s, DBHA_WRITE, "SHOW work_mem", &err), STATE_LOST, "08006", err);
		ASSERT_HAS(err.message, "settings");
		ck_assert_int_eq(talk_status(s).state, DBHA_SESSION_LOST);
		ASSERT_OK(dbha_session_reset(s, &err), err);
		ck_assert_str_ne(talk_ask(s, "SHOW work_mem"), "6MB");
		dbha_session_close(s);
	}
	c.intact = true;
}
END_TEST

START_TEST(a_write_does_not_wait_for_its_position_until_its_deadline)
{
	PGresult *result;
	dbha_error err;
	cutter_start(&cutter, cluster_port(&c, 1));
	dbha *h = open_behind(cutter.port, "sslmode=disable");
	dbha_session *s = placed_session(h);
	dbha_request rq =
	    DBHA_REQUEST(.sql = "UPDATE rows SET n = n + 1 WHERE id = 1", .intent = DBHA_WRITE, .timeout_ms = 10000);
	long before = cluster_count(&c, 1, "SELECT n FROM rows");
	long at = 0;
	for (int cut = 0; cut <= 1; cut++) {
		arm("n + 1", cut ? CUT_SILENT : CUT_NONE, at);
		int64_t began = now_ms();
		ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
		ck_assert_str_eq(PQcmdTuples(result), "1");
		PQclear(result);
		ck_assert_int_lt(now_ms() - began, 200 + 10 * SLACK_MS);
		if (cut)
			expect_cut();
		else
			at = place_of_the_cut();
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT n FROM rows"), before + 2);
	ck_assert_int_eq(look(s).n, before + 2);
	c.intact = true;
}
END_TEST

/* ---- careless reads --------------------------------------------------------------------------------------------------- */

START_TEST(an_eventual_transaction_in_between_forgets_no_write)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	cluster_all_catch_up(&c);
	hold_both();
	long n = raise_row(s);
	ck_assert_int_eq(look(s).n, n);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_EVENTUAL, &err), err);
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	ck_assert_int_eq(atol(talk_ask(s, "SELECT n FROM rows")), n - 1);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_SESSION, &err), err);
	ck_assert_int_eq(look(s).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

/* prefer-standby: nobody has called it a read, and it goes to a standby all the same. */
START_TEST(an_eventual_call_without_intent_forgets_no_write)
{
	PGresult *result;
	dbha_error err;
	dbha *h = open_all(&c, "target_session_attrs=prefer-standby");
	dbha_session *s = placed_session(h);
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT n FROM rows", .consistency = DBHA_CONSISTENCY_EVENTUAL);
	cluster_all_catch_up(&c);
	hold_both();
	long n = raise_row(s);
	ck_assert_int_eq(look(s).n, n);
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	ck_assert_int_eq(atol(PQgetvalue(result, 0, 0)), n - 1);
	PQclear(result);
	ck_assert_int_eq(look(s).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

START_TEST(what_was_read_on_the_primary_for_its_own_sake_has_been_seen)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h), *writer = placed_session(h);
	cluster_all_catch_up(&c);
	hold_both();
	ck_assert_int_eq(look(s).code, DBHA_OK);
	long n = raise_row(writer);
	ASSERT_LOOK(look_as(s, DBHA_CONSISTENCY_PRIMARY), n, CONSISTENCY, PRIMARY);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(look(s).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("corners");
	ADD_TEST(suite, a_chained_transaction_begins_with_its_own_first_statement, made, NULL, 30);
	ADD_TEST(suite, a_chained_transaction_has_the_snapshot_of_its_own_first_query, made, NULL, 30);
	ADD_TEST(suite, what_was_set_on_a_connection_that_is_lost_behind_the_answer_is_told_as_lost, made, cleared, 30);
	ADD_TEST(suite, a_write_does_not_wait_for_its_position_until_its_deadline, made, cleared, 30);
	ADD_TEST(suite, an_eventual_transaction_in_between_forgets_no_write, made, NULL, 30);
	ADD_TEST(suite, an_eventual_call_without_intent_forgets_no_write, made, NULL, 30);
	ADD_TEST(suite, what_was_read_on_the_primary_for_its_own_sake_has_been_seen, made, NULL, 30);
	return run_suite(suite, &c);
}
