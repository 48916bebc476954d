/*
 * test_corners: what belongs to freshness (a question before a statement, a position behind it, a token) where it meets something else: a
 * chained transaction, a pinned session, a lost or silent connection, a changed table, a pooler, a handle of one node, a second primary. It
 * must cost nothing there: no stale row, no second execution, no state that is lost in silence, no connection or time that is waited for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bouncer.h"
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
	bouncer_stop(bouncer);
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

/* Something is set for the session, by the statement that is cut or in the transaction that it ends. */
static void set_with(dbha_session *s, const char *sql, enum cut_kind kind, long at)
{
	if (strcmp(sql, "COMMIT") == 0) {
		talk_ask(s, "BEGIN");
		talk_ask(s, "SET work_mem = '6MB'");
	}
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
		close_session(s);
	}
	c.intact = true;
}
END_TEST

/* How long it took, in ms. */
static int64_t write_with(dbha_session *s, const char *sql, enum cut_kind kind, long at)
{
	if (strcmp(sql, "COMMIT") == 0) {
		talk_ask(s, "BEGIN");
		raise_row(s);
	}
	arm(sql, kind, at);
	int64_t began = now_ms();
	talk_ask(s, "%s", sql);
	return now_ms() - began;
}

/* The server says nothing any more behind the answer. */
START_TEST(a_write_does_not_wait_for_its_position_until_its_deadline)
{
	static const char *const sqls[] = {"UPDATE rows SET n = n + 1", "COMMIT"};
	cutter_start(&cutter, cluster_port(&c, 1));
	dbha *h = open_behind(cutter.port, "sslmode=disable");
	dbha_session *s = placed_session(h);
	long before = cluster_count(&c, 1, "SELECT n FROM rows");
	for (int i = 0; i < 2; i++) {
		write_with(s, sqls[i], CUT_NONE, 0);
		long at = place_of_the_cut();
		ck_assert_int_lt(write_with(s, sqls[i], CUT_SILENT, at), 200 + 10 * SLACK_MS);
		expect_cut();
		ck_assert_int_eq(look(s).n, before + 2 * (i + 1));
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT n FROM rows"), before + 4);
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

/* ---- pinned to a standby ---------------------------------------------------------------------------------------------- */

static struct look look_for_a_moment(dbha_session *s)
{
	return look_within(s, DBHA_CONSISTENCY_DEFAULT, 500);
}

static int say_within(dbha_session *s, const char *sql, int timeout_ms, dbha_error *err)
{
	PGresult *result;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .timeout_ms = timeout_ms), &result, err);
	PQclear(result);
	return code;
}

static dbha_session *pinned_to_a_standby(dbha *h)
{
	dbha_error err;
	dbha_session *s = open_session(h);
	ASSERT_OK(talk_as(s, DBHA_READ, "SET work_mem = '5MB'", &err), err);
	ck_assert_int_eq(talk_status(s).pinned, 1);
	return s;
}

/* From now on the session has to see a row that no standby has; what it is. */
static long let_it_be_behind(dbha_session *s, dbha_session *writer)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	cluster_all_catch_up(&c);
	hold_both();
	long n = raise_row(writer);
	token_of(writer, token);
	ASSERT_OK(dbha_session_set_token(s, token, &err), err);
	return n;
}

/* Its first read, or BEGIN itself, waits for replay. */
START_TEST(a_transaction_of_a_pinned_session_waits_for_replay)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *writer = placed_session(h), *s = pinned_to_a_standby(h), *t = pinned_to_a_standby(h);
	long n = let_it_be_behind(s, writer);
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	struct look l = look_for_a_moment(s);
	ASSERT_CODE(l.code, NO_NODE, l.err);
	ck_assert(l.err.retry_safe);
	ck_assert_int_le(l.took_ms, 500 + SLACK_MS);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	go_on_both();
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	l = look(s);
	ASSERT_LOOK(l, n, TRANSACTION, STANDBY);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);

	n = let_it_be_behind(t, writer);
	ASSERT_CODE(say_within(t, "BEGIN", 500, &err), NO_NODE, err);
	ck_assert_int_eq(talk_status(t).state, DBHA_SESSION_IDLE);
	go_on_both();
	ASSERT_OK(talk(t, "BEGIN", &err), err);
	ASSERT_LOOK(look(t), n, TRANSACTION, STANDBY);
	ASSERT_OK(talk(t, "ROLLBACK", &err), err);
	ck_assert_str_eq(talk_ask(t, "SHOW work_mem"), "5MB");
	c.intact = true;
}
END_TEST

/* What a session says in a thread of its own, since it waits. */
struct spoken {
	dbha_session *s;
	const char *sql; /* NULL: it asks for its token */
	char token[DBHA_TOKEN_MAX];
	int code;
	dbha_error err;
};

static void *speak(void *arg)
{
	struct spoken *spoken = arg;
	if (spoken->sql)
		spoken->code = talk_as(spoken->s, DBHA_READ, spoken->sql, &spoken->err);
	else
		spoken->code = dbha_session_token(spoken->s, spoken->token, 20000, &spoken->err);
	return NULL;
}

static int node_of(dbha_session *s)
{
	char port[16];
	dbha_session_status status = talk_status(s);
	for (int node = 1; node <= c.nodes; node++) {
		snprintf(port, sizeof port, ":%d", cluster_port(&c, node));
		if (strstr(status.node, port))
			return node;
	}
	ck_abort_msg("\"%s\" is no node", status.node);
	return 0;
}

/* It begins while the standby is behind, and must end well once replay has gone on. */
static void say_while_behind(dbha_session *s, dbha_session *writer, const char *sql)
{
	static struct spoken spoken;
	static const char asked[] =
	    "SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND query NOT LIKE 'SET work_mem%%'";
	int node = node_of(s), pid = talk_status(s).backend_pid;
	let_it_be_behind(s, writer);
	spoken = (struct spoken){.s = s, .sql = sql};
	pthread_t thread = start_thread(speak, &spoken);
	WAIT_FOR(cluster_count(&c, node, asked, pid) == 1, PATIENCE_MS);
	go_on_both();
	join_thread(thread);
	ASSERT_OK(spoken.code, spoken.err);
}

START_TEST(a_statement_of_a_pinned_session_that_has_to_wait_is_executed_once)
{
	static const char append[] = "SELECT set_config('a.b', coalesce(current_setting('a.b', true), '') || 'x', false)";
	dbha *h = open_all(&c, NULL);
	dbha_session *writer = placed_session(h), *s = pinned_to_a_standby(h), *t = pinned_to_a_standby(h);
	say_while_behind(s, writer, "PREPARE mine AS SELECT 1");
	ck_assert_str_eq(talk_ask(s, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'"), "1");
	say_while_behind(t, writer, append);
	ck_assert_str_eq(talk_ask(t, "SELECT current_setting('a.b')"), "x");
	c.intact = true;
}
END_TEST

/* Nobody has called it a read. A server's log tells how often it was executed there. */
START_TEST(a_statement_without_intent_is_not_executed_where_it_comes_too_early)
{
	char sql[100], line[60], path[160];
	int times = 0;
	dbha_error err;
	dbha *h = open_all(&c, "target_session_attrs=prefer-standby");
	dbha_session *s = placed_session(h);
	cluster_all_catch_up(&c);
	hold_both();
	long n = raise_row(s);
	snprintf(sql, sizeof sql, "DO $$BEGIN RAISE LOG 'executed in round %%', %ld; END$$", n);
	snprintf(line, sizeof line, "LOG:  executed in round %ld", n);
	ASSERT_OK(talk(s, sql, &err), err);
	ck_assert_int_ge(counters(h, -1).guards_behind, 1);
	for (int node = 1; node <= 3; node++) {
		snprintf(path, sizeof path, "%s/node%d.log", c.dir, node);
		times += count_in_file(path, line);
	}
	ck_assert_int_eq(times, 1);
	go_on_both();
	c.intact = true;
}
END_TEST

/* ---- tokens where there is little choice ------------------------------------------------------------------------------- */

START_TEST(a_handle_of_one_standby_obeys_a_token)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NULL), *one = open_handle(cluster_url(&c, "2", "target_session_attrs=any"));
	ASSERT_OK(dbha_wait(one, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_session *writer = placed_session(h), *s = open_session(one);
	cluster_all_catch_up(&c);
	hold_both();
	long n = raise_row(writer);
	token_of(writer, token);
	ASSERT_OK(dbha_session_set_token(s, token, &err), err);
	for (int i = 0; i <= 1; i++) {
		struct look l = i ? look_for_a_moment(s) : look_with(one, token, 500);
		ASSERT_CODE(l.code, NO_NODE, l.err);
		ck_assert_int_le(l.took_ms, 500 + SLACK_MS);
	}
	go_on_both();
	struct look l = look(s);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	l = look_with(one, token, 20000);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	c.intact = true;
}
END_TEST

/* The only connection there may be is its own. */
START_TEST(the_token_of_a_session_that_holds_the_primary_needs_no_other_connection)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, "pool_max_size=1"), *other = open_all(&c, NULL);
	dbha_session *s = placed_session(h), *taker = open_session(other);
	talk_ask(s, "SET work_mem = '5MB'");
	hold_both();
	long n = atol(talk_ask(s, "UPDATE rows SET n = n + 1 RETURNING n"));
	ASSERT_OK(dbha_session_token(s, token, 5000, &err), err);
	ck_assert_int_eq(talk_status(s).pinned, 1);
	ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "5MB");
	ASSERT_OK(dbha_session_set_token(taker, token, &err), err);
	ck_assert_int_eq(look(taker).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

/* Seen from the transaction that holds the lock: what it was told of others once stays the same unless it is forgotten. */
static bool waits_for_pg_proc(PGconn *admin)
{
	static const char sql[] = "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND "
	                          "relation = 'pg_proc'::regclass AND query LIKE '%pg_walfile_name%'";
	PQclear(PQexec(admin, "SELECT pg_stat_clear_snapshot()"));
	PGresult *result = PQexec(admin, sql);
	bool waits = PQntuples(result) == 1;
	PQclear(result);
	return waits;
}

/* The question for the position needs functions; a connection that has called none has to look them up, and is kept from it. */
static void cancel_the_question(dbha_session *s)
{
	static struct spoken spoken;
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	PGconn *admin = cluster_admin(&c, 1);
	PQclear(PQexec(admin, "BEGIN; LOCK TABLE pg_proc IN ACCESS EXCLUSIVE MODE"));
	spoken = (struct spoken){.s = s};
	pthread_t thread = start_thread(speak, &spoken);
	WAIT_FOR(waits_for_pg_proc(admin), PATIENCE_MS);
	ASSERT_OK(dbha_cancel(s, &err), err);
	join_thread(thread);
	PQfinish(admin);
	ASSERT_STATE(spoken.code, CANCELED, "57014", spoken.err);
	ck_assert_str_eq(spoken.token, "");
	token_of(s, token);
	ck_assert_uint_gt(strlen(token), 0);
}

START_TEST(a_token_that_is_canceled_says_so)
{
	dbha *h = open_all(&c, NO_NEWS "&pool_max_size=1");
	talk_ask(open_session(h), "SELECT"); /* the connection */
	cancel_the_question(placed_session(h));
	handles_close();
	/* One that holds its connection: what it writes there brings no position along. */
	dbha_session *s = open_session(open_all(&c, NO_NEWS));
	talk_ask(s, "SET work_mem = '5MB'");
	talk_ask(s, "DELETE FROM rows WHERE id = 7");
	cancel_the_question(s);
	ck_assert_int_eq(talk_status(s).pinned, 1);
	ck_assert_str_eq(talk_ask(s, "SHOW work_mem"), "5MB");
	c.intact = true;
}
END_TEST

START_TEST(a_token_asked_for_on_a_lost_connection_does_not_hide_what_was_lost_with_it)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NO_NEWS);
	dbha_session *s = open_session(h);
	talk_ask(s, "SET work_mem = '5MB'");
	talk_ask(s, "DELETE FROM rows WHERE id = 7");
	talk_terminate(&c, 1, s);
	int code = dbha_session_token(s, token, 5000, &err);
	printf("# %s: %s\n", dbha_code_name(code), code ? err.message : token);
	ck_assert(code == DBHA_OK || !token[0]);
	ASSERT_STATE(talk(s, "SHOW work_mem", &err), STATE_LOST, "08006", err);
	ASSERT_HAS(err.message, "settings");
	ASSERT_OK(dbha_session_reset(s, &err), err);
	token_of(s, token);
	ck_assert_uint_gt(strlen(token), 0);
	c.intact = true;
}
END_TEST

START_TEST(a_malformed_token_leaves_a_route_that_says_nothing)
{
	PGresult *result;
	dbha_error err;
	dbha_result_route route;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_READ, .token = "nonsense", .route = &route);
	for (int i = 0; i <= 1; i++) {
		memset(&route, 'x', sizeof route);
		route.size = sizeof route;
		int code = i ? dbha_session_exec(s, &rq, &result, &err) : dbha_exec(h, &rq, &result, &err);
		ASSERT_CODE(code, USAGE, err);
		ck_assert_int_eq(route.reason, DBHA_REASON_NONE);
		ck_assert_int_eq(route.attempts, 0);
		ck_assert_str_eq(route.node, "");
		ck_assert_str_eq(route.why, "");
	}
	c.intact = true;
}
END_TEST

/* ---- a changed table --------------------------------------------------------------------------------------------------- */

static void make_wide(void)
{
	cluster_ask(&c, 1, "CREATE TABLE wide AS SELECT 1 AS id, 1 AS n");
	cluster_ask(&c, 1, "GRANT ALL ON wide TO app");
	cluster_all_catch_up(&c);
}

/* Often enough to be prepared. */
#define OFTEN 6

START_TEST(a_write_whose_preparation_is_spoilt_is_sent_again)
{
	static const char update[] = "UPDATE wide SET n = n + 1 RETURNING *";
	dbha_error err;
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_session *s = placed_session(h);
	make_wide();
	for (int i = 0; i < OFTEN; i++)
		talk_ask(s, update);
	for (int i = 0; i < 3; i++) {
		cluster_ask(&c, 1, "ALTER TABLE wide ADD COLUMN x%d int", i);
		ASSERT_OK(talk(s, update, &err), err);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT n FROM wide"), 1 + OFTEN + 3);
	cluster_ask(&c, 1, "DROP TABLE wide");
	c.intact = true;
}
END_TEST

/* Behind a write of its own, so that the standby has to be asked. */
static void expect_a_guarded_read(dbha_session *s)
{
	PGresult *result;
	dbha_error err;
	dbha_result_route route = {.size = sizeof route};
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT * FROM wide", .intent = DBHA_READ, .route = &route);
	raise_row(s);
	cluster_all_catch_up(&c);
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	PQclear(result);
	ck_assert_msg(route.reason == DBHA_REASON_GUARDED, "%s: %s", dbha_reason_name(route.reason), route.why);
	ck_assert_int_eq(route.role, DBHA_ROLE_STANDBY);
}

START_TEST(a_read_whose_preparation_is_spoilt_is_not_taken_for_a_write)
{
	dbha_error err;
	dbha *h = open_handle(cluster_url(&c, "1 2", NO_NEWS "&pool_max_size=1"));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_session *s = placed_session(h);
	make_wide();
	for (int i = 0; i < OFTEN; i++)
		expect_a_guarded_read(s);
	for (int i = 0; i < 3; i++) {
		cluster_ask(&c, 1, "ALTER TABLE wide ADD COLUMN x%d int", i);
		expect_a_guarded_read(s);
	}
	ck_assert_int_eq(counters(h, -1).not_reads, 0);
	cluster_ask(&c, 1, "DROP TABLE wide");
	c.intact = true;
}
END_TEST

/* ---- a silent primary -------------------------------------------------------------------------------------------------- */

#define BOUND_MS 400

/* It lives and writes; only this handle does not hear of it. As long as it counts as the primary, what it may have written counts. */
START_TEST(bounded_holds_while_the_primary_is_silent)
{
	char hosts[80];
	dbha_error err;
	int early = 0, late = 0;
	relay_start(&relay, cluster_port(&c, 1));
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d", relay.port, cluster_port(&c, 2));
	dbha *h = open_hosts(&c, hosts, "sslmode=disable&consistency=bounded&max_lag=400ms&probe_interval=100ms");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_session *s = open_session(h);
	cluster_all_catch_up(&c);
	WAIT_FOR(look(s).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	hold_replay(&c, 2);
	atomic_store(&relay.delay_ms, 60000);
	long n = atol(cluster_ask(&c, 1, "UPDATE rows SET n = n + 1 RETURNING n"));
	int64_t written = now_ms();
	while (cluster_status(h).primary >= 0 && now_ms() < written + 6000) {
		int64_t began = now_ms();
		struct look l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 100);
		if (cluster_status(h).primary < 0)
			break;
		bool is_late = began > written + BOUND_MS;
		ck_assert_msg(!is_late || l.code != DBHA_OK || l.n >= n, "an old row, %lld ms after the write",
		              (long long)(began - written));
		early += !is_late && l.code == DBHA_OK;
		late += is_late;
		short_pause();
	}
	printf("# while the primary was silent: %d reads within the bound, %d behind it\n", early, late);
	ck_assert_int_gt(late, 0);
	go_on_replay(&c, 2);
	c.intact = true;
}
END_TEST

/* ---- a pooler ---------------------------------------------------------------------------------------------------------- */

static void apply_delay(const char *delay)
{
	cluster_ask(&c, 2, "ALTER SYSTEM SET recovery_min_apply_delay = '%s'", delay);
	cluster_ask(&c, 2, "SELECT pg_reload_conf()");
}

/*
 * The connection to the pooler outlives the server behind it. How much less the server has when it comes back is its own affair; several
 * tries make sure that it had.
 */
START_TEST(a_standby_that_comes_back_with_less_behind_a_pooler_is_not_trusted)
{
	int port, less = 0;
	char hosts[80];
	dbha_error err;
	bouncer = bouncer_start(&c, 2, "transaction", &port);
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d", cluster_port(&c, 1), port);
	dbha *h = open_hosts(&c, hosts, NO_NEWS);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	cluster_ask(&c, 1, "CHECKPOINT");
	cluster_all_catch_up(&c);
	cluster_ask(&c, 2, "CHECKPOINT");
	dbha_session *writer = placed_session(h);
	for (int i = 0; i < 6 && less < 2; i++) {
		long n = raise_row(writer);
		cluster_all_catch_up(&c);
		dbha_session *s = open_session(h);
		ASSERT_LOOK(look(s), n, READ, STANDBY);
		apply_delay("1h");
		cluster_do(&c, "kill 2");
		cluster_do(&c, "start 2");
		less += cluster_count(&c, 2, "SELECT n FROM rows WHERE id = 1") < n;
		for (int k = 0; k < 10; k++) {
			struct look l = look(s);
			ASSERT_OK(l.code, l.err);
			ck_assert_msg(l.n == n, "shows %ld after %ld: %s", l.n, n, dbha_reason_name(l.route.reason));
		}
		apply_delay("0");
		cluster_all_catch_up(&c);
		close_session(s);
	}
	printf("# behind a pooler it came back with less %d times\n", less);
	ck_assert_int_gt(less, 0);
	c.intact = true;
}
END_TEST

/* ---- a second primary -------------------------------------------------------------------------------------------------- */

/* Node 2 has been promoted; node 1 does not know. A session of its handle writes and gives its token. */
static long write_on_the_new_primary(char token[DBHA_TOKEN_MAX])
{
	dbha_error err;
	dbha *h = open_handle(cluster_url(&c, "2", NULL));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_PRIMARY, PATIENCE_MS, &err), err);
	dbha_session *s = placed_session(h);
	long n = raise_row(s);
	token_of(s, token);
	return n;
}

static void make_node_2_a_standby_again(void)
{
	handles_close();
	cluster_do(&c, "kill 2");
	cluster_do(&c, "rejoin 2 1");
	cluster_all_catch_up(&c);
}

/* A position says nothing of a server on another timeline, be it ever so far. */
START_TEST(a_session_pinned_to_a_standby_of_the_old_primary_shows_nothing_stale)
{
	char token[DBHA_TOKEN_MAX], position[32];
	dbha_error err;
	dbha *h = open_handle(cluster_url(&c, "1 3", NULL));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_session *s = pinned_to_a_standby(h);
	promote(&c, 2);
	long n = write_on_the_new_primary(token);
	snprintf(position, sizeof position, "%s", cluster_ask(&c, 2, "SELECT pg_current_wal_insert_lsn()"));
	cluster_ask(&c, 1, "SELECT pg_logical_emit_message(false, 'test', repeat('x', 1000000))");
	cluster_catch_up(&c, 3, 1);
	ck_assert_str_eq(cluster_ask(&c, 3, "SELECT pg_last_wal_replay_lsn() > '%s'", position), "t");
	ASSERT_OK(dbha_session_set_token(s, token, &err), err);
	struct look l = look_for_a_moment(s);
	ck_assert_msg(l.code != DBHA_OK, "shows %ld after %ld", l.n, n);
	printf("# %s: %s\n", dbha_code_name(l.code), l.err.message);
	ck_assert(l.err.retry_safe);
	ck_assert_int_le(l.took_ms, 500 + SLACK_MS);
	make_node_2_a_standby_again();
	c.intact = true;
}
END_TEST

/* It goes to the one primary that the handle can see, and so does the question for its position. */
START_TEST(a_write_on_the_old_primary_takes_nothing_back)
{
	char token[DBHA_TOKEN_MAX], now[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_handle(cluster_url(&c, "1 3", NULL));
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_session *s = placed_session(h);
	promote(&c, 2);
	long n = write_on_the_new_primary(token);
	ASSERT_OK(dbha_session_set_token(s, token, &err), err);
	ASSERT_OK(talk_as(s, DBHA_WRITE, "UPDATE rows SET n = n", &err), err);
	struct look l = look_for_a_moment(s);
	ck_assert_msg(l.code != DBHA_OK, "shows %ld after %ld", l.n, n);
	ASSERT_HAS(l.err.message, "timeline 2");
	token_of(s, now);
	ck_assert_str_eq(now, token);
	ck_assert(!event_within(h, DBHA_EVENT_LOST_WRITES, 0, NULL));
	make_node_2_a_standby_again();
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
	ADD_TEST(suite, a_transaction_of_a_pinned_session_waits_for_replay, made, NULL, 30);
	ADD_TEST(suite, a_statement_of_a_pinned_session_that_has_to_wait_is_executed_once, made, NULL, 30);
	ADD_TEST(suite, a_statement_without_intent_is_not_executed_where_it_comes_too_early, made, NULL, 30);
	ADD_TEST(suite, a_handle_of_one_standby_obeys_a_token, made, NULL, 30);
	ADD_TEST(suite, the_token_of_a_session_that_holds_the_primary_needs_no_other_connection, made, NULL, 30);
	ADD_TEST(suite, a_token_that_is_canceled_says_so, made, NULL, 30);
	ADD_TEST(suite, a_token_asked_for_on_a_lost_connection_does_not_hide_what_was_lost_with_it, made, NULL, 30);
	ADD_TEST(suite, a_malformed_token_leaves_a_route_that_says_nothing, made, NULL, 30);
	ADD_TEST(suite, a_write_whose_preparation_is_spoilt_is_sent_again, made, NULL, 30);
	ADD_TEST(suite, a_read_whose_preparation_is_spoilt_is_not_taken_for_a_write, made, NULL, 30);
	ADD_TEST(suite, bounded_holds_while_the_primary_is_silent, made, cleared, 30);
	ADD_TEST(suite, a_standby_that_comes_back_with_less_behind_a_pooler_is_not_trusted, made, cleared, 60);
	ADD_TEST(suite, a_session_pinned_to_a_standby_of_the_old_primary_shows_nothing_stale, made, NULL, 60);
	ADD_TEST(suite, a_write_on_the_old_primary_takes_nothing_back, made, NULL, 60);
	return run_suite(suite, &c);
}
