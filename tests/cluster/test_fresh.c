/*
 * test_fresh: how fresh a read is in each mode, per handle, session and call; where it goes for that, and why; in transactions, streams and
 * COPY, in pinned sessions; what a session sticks to, and what happens when that is lost.
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "fresh.h"
#include "talk.h"
#include "work.h"

/* So seldom that a test is over before the second look: what a standby has replayed since then only a guard can tell. */
#define NO_NEWS "probe_interval=1min"

static struct cluster c;

static void made(void)
{
	fresh_cluster(&c, "3 --set max_standby_streaming_delay=0");
}

static void unmade(void)
{
	cluster_destroy(&c);
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

/* ---- reasons -------------------------------------------------------------------------------------------------------- */

static dbha_result_route route_of(dbha_session *s, const dbha_request *like)
{
	PGresult *result;
	dbha_error err;
	dbha_result_route route = {.size = sizeof route};
	dbha_request rq = *like;
	rq.route = &route;
	rq.timeout_ms = 20000;
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	PQclear(result);
	return route;
}

#define ASSERT_REASON(s, why, ...)                                                                                     \
	do {                                                                                                               \
		dbha_result_route got_route = route_of(s, &DBHA_REQUEST(__VA_ARGS__));                                         \
		ck_assert_str_eq(dbha_reason_name(got_route.reason), dbha_reason_name(DBHA_REASON_##why));                     \
		ck_assert_int_ge(got_route.attempts, 1);                                                                       \
		ck_assert_uint_gt(strlen(got_route.node), 0);                                                                  \
	} while (0)

START_TEST(the_route_says_why)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NULL), *slow = open_all(&c, NO_NEWS);
	dbha_session *s = open_session(h);
	ASSERT_REASON(s, WRITE, .sql = "UPDATE rows SET n = n + 1", .intent = DBHA_WRITE);
	ASSERT_REASON(s, UNPLACED, .sql = "SELECT n FROM rows", .intent = DBHA_READ);
	ASSERT_REASON(s, TARGET, .sql = "SELECT 1");
	ASSERT_REASON(s, CONSISTENCY, .sql = "SELECT 1", .intent = DBHA_READ, .consistency = DBHA_CONSISTENCY_PRIMARY);
	ASSERT_REASON(s, READ, .sql = "SELECT 1", .intent = DBHA_READ, .consistency = DBHA_CONSISTENCY_EVENTUAL);
	cluster_all_catch_up(&c);
	token_of(s, token);
	WAIT_FOR(look_with(h, token, 20000).route.reason == DBHA_REASON_REPLAYED, PATIENCE_MS);
	WAIT_FOR(look(s).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	ASSERT_REASON(s, SAME, .sql = "SELECT n FROM rows", .intent = DBHA_READ);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	talk_ask(s, "SELECT 1");
	ASSERT_REASON(s, TRANSACTION, .sql = "SELECT 1", .intent = DBHA_READ);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	talk_ask(s, "SET work_mem = '5MB'");
	ASSERT_REASON(s, PINNED, .sql = "SELECT 1", .intent = DBHA_READ);
	close_session(s);

	cluster_ask(&c, 1, "CREATE SEQUENCE IF NOT EXISTS numbers; GRANT ALL ON SEQUENCE numbers TO app");
	cluster_all_catch_up(&c);
	s = open_session(h);
	ASSERT_REASON(s, REFUSED, .sql = "SELECT nextval('numbers')", .intent = DBHA_READ,
	              .consistency = DBHA_CONSISTENCY_EVENTUAL);
	ck_assert_int_ge(counters(h, -1).not_reads, 1);

	s = placed_session(slow);
	long n = raise_row(s);
	cluster_all_catch_up(&c);
	ASSERT_LOOK(look(s), n, GUARDED, STANDBY);
	ck_assert_int_ge(counters(slow, -1).guards, 1);
	hold_both();
	n = raise_row(s);
	ASSERT_LOOK(look(s), n, BEHIND, PRIMARY);
	go_on_both();
	c.intact = true;
}
END_TEST

/*
 * In a REPEATABLE READ transaction the read would use the snapshot of the question, which is older than its answer: the first answer on a connection
 * tells that, and is not believed. From then on the question has a transaction of its own.
 */
START_TEST(a_snapshot_that_is_older_than_the_answer_is_not_read_from)
{
	dbha *h =
	    open_all(&c, NO_NEWS "&pool_max_size=1&options=-c%20default_transaction_isolation%3Drepeatable%5C%20read");
	dbha_session *s = placed_session(h);
	int guarded = 0, behind = 0;
	for (int i = 0; i < 12; i++) {
		long n = raise_row(s);
		cluster_all_catch_up(&c);
		struct look l = look(s);
		ASSERT_OK(l.code, l.err);
		ck_assert_int_eq(l.n, n);
		guarded += l.route.reason == DBHA_REASON_GUARDED;
		behind += l.route.reason == DBHA_REASON_BEHIND;
	}
	/* At most once on each of the two connections to a standby, and at least once. */
	ck_assert_int_ge(counters(h, -1).guards_behind, 1);
	ck_assert_int_le(behind, 2);
	ck_assert_int_ge(guarded, 10);
	c.intact = true;
}
END_TEST

/* Its error comes behind the statement's answer, before the end of the transaction, and before the answer to the question for the position. */
START_TEST(a_constraint_that_is_checked_at_the_end_is_reported_as_such)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	cluster_ask(&c, 1,
	            "DROP TABLE IF EXISTS late; CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); "
	            "INSERT INTO late VALUES (1); GRANT ALL ON late TO app");
	for (int i = 0; i < 4; i++) { /* unprepared, and prepared */
		ASSERT_CODE(talk_as(s, DBHA_WRITE, "INSERT INTO late VALUES (1)", &err), SERVER, err);
		ck_assert_str_eq(err.sqlstate, "23505");
		ck_assert(!err.outcome_unknown);
		ASSERT_OK(talk_as(s, DBHA_WRITE, "UPDATE late SET id = 1", &err), err);
	}
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM late"), 1);
	c.intact = true;
}
END_TEST

START_TEST(without_standbys_the_primary_says_so)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	long n = raise_row(s);
	cluster_do(&c, "kill 2");
	cluster_do(&c, "kill 3");
	WAIT_FOR(node_status(h, 1).state != DBHA_STATE_UP && node_status(h, 2).state != DBHA_STATE_UP, PATIENCE_MS);
	ASSERT_LOOK(look(s), n, NO_STANDBY, PRIMARY);
	ASSERT_LOOK(look_as(s, DBHA_CONSISTENCY_EVENTUAL), n, NO_STANDBY, PRIMARY);
	cluster_do(&c, "start 2");
	cluster_do(&c, "start 3");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	c.intact = true;
}
END_TEST

static int by_standbys(dbha *h)
{
	return (int)(counters(h, 1).statements + counters(h, 2).statements);
}

/* ---- modes ---------------------------------------------------------------------------------------------------------- */

START_TEST(the_call_comes_before_the_session_and_that_before_the_handle)
{
	dbha_error err;
	dbha *session = open_all(&c, NULL), *eventual = open_all(&c, "consistency=eventual"),
	     *primary = open_all(&c, "consistency=primary");
	dbha_session *s = placed_session(session), *e = placed_session(eventual), *p = placed_session(primary);
	hold_both();
	long n = raise_row(s);
	ASSERT_LOOK(look(s), n, BEHIND, PRIMARY);
	ASSERT_LOOK(look_as(s, DBHA_CONSISTENCY_EVENTUAL), n - 1, READ, STANDBY);
	ASSERT_LOOK(look_as(s, DBHA_CONSISTENCY_PRIMARY), n, CONSISTENCY, PRIMARY);
	ASSERT_LOOK(look(s), n, BEHIND, PRIMARY);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_EVENTUAL, &err), err);
	ASSERT_LOOK(look(s), n - 1, READ, STANDBY);
	ASSERT_LOOK(look_as(s, DBHA_CONSISTENCY_SESSION), n, BEHIND, PRIMARY);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_PRIMARY, &err), err);
	ASSERT_LOOK(look(s), n, CONSISTENCY, PRIMARY);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_DEFAULT, &err), err);
	ASSERT_LOOK(look(s), n, BEHIND, PRIMARY);

	n = raise_row(e);
	ASSERT_LOOK(look(e), n - 2, READ, STANDBY);
	ASSERT_OK(dbha_session_set_consistency(e, DBHA_CONSISTENCY_SESSION, &err), err);
	struct look l = look(e);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);

	n = raise_row(p);
	for (int i = 0; i < 100; i++)
		ASSERT_LOOK(look(p), n, CONSISTENCY, PRIMARY);
	ASSERT_LOOK(look_stream(p), n, CONSISTENCY, PRIMARY);
	ASSERT_LOOK(look_copy(p), n, CONSISTENCY, PRIMARY);
	ASSERT_LOOK(look_with(primary, NULL, 20000), n, CONSISTENCY, PRIMARY);
	ck_assert_int_eq(by_standbys(primary), 0);
	ASSERT_LOOK(look_as(p, DBHA_CONSISTENCY_EVENTUAL), n - 3, READ, STANDBY);
	ck_assert_int_eq(by_standbys(primary), 1);
	go_on_both();
	c.intact = true;
}
END_TEST

START_TEST(a_mode_that_makes_no_sense_is_refused)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	ASSERT_CODE(dbha_session_set_consistency(NULL, DBHA_CONSISTENCY_SESSION, &err), USAGE, err);
	ASSERT_CODE(dbha_session_set_consistency(s, -1, &err), USAGE, err);
	ASSERT_CODE(dbha_session_set_consistency(s, 5, &err), USAGE, err);
	ASSERT_CODE(dbha_session_set_consistency(s, DBHA_CONSISTENCY_BOUNDED, &err), CONFIG, err);
	ASSERT_HAS(err.message, "max_lag");
	struct look l = look_as(s, 5);
	ASSERT_CODE(l.code, USAGE, l.err);
	l = look_as(s, -1);
	ASSERT_CODE(l.code, USAGE, l.err);
	l = look_as(s, DBHA_CONSISTENCY_BOUNDED);
	ASSERT_CODE(l.code, CONFIG, l.err);
	l = look(s);
	ASSERT_OK(l.code, l.err);
	ck_assert(dbha_open(cluster_url(&c, NULL, "consistency=bounded"), &err) == NULL);
	ck_assert_int_eq(err.code, DBHA_ERR_CONFIG);
	c.intact = true;
}
END_TEST

/* A standby is the older the longer its replay is held, while the primary writes. */
START_TEST(bounded_is_as_old_as_max_lag_and_no_older)
{
	dbha *narrow = open_all(&c, "consistency=bounded&max_lag=400ms&probe_interval=100ms"),
	     *wide = open_all(&c, "consistency=bounded&max_lag=1h");
	dbha_session *s = placed_session(narrow), *w = placed_session(wide);
	hold_both();
	long n = raise_row(w);
	ASSERT_LOOK(look(w), n - 1, READ, STANDBY);
	WAIT_FOR(node_status(narrow, 1).lag_ms > 400 && node_status(narrow, 2).lag_ms > 400, PATIENCE_MS);
	for (int i = 0; i < 50; i++)
		ASSERT_LOOK(look(s), n, NO_STANDBY, PRIMARY);
	ASSERT_LOOK(look(w), n - 1, READ, STANDBY);
	go_on_both();
	struct look l;
	WAIT_FOR((l = look(s)).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	ck_assert_int_eq(l.n, n);
	ck_assert_int_le(l.route.lag_ms, 400);
	c.intact = true;
}
END_TEST

/* ---- waiting for replay ---------------------------------------------------------------------------------------------- */

static void *go_on_later(void *arg)
{
	(void)arg;
	poll(NULL, 0, 300);
	go_on_both();
	return NULL;
}

START_TEST(a_read_waits_for_replay_up_to_max_wait)
{
	dbha *patient = open_all(&c, "max_wait=10s"), *brief = open_all(&c, "max_wait=200ms"), *none = open_all(&c, NULL);
	dbha_session *p = placed_session(patient), *b = placed_session(brief), *s = placed_session(none);
	hold_both();
	long n = raise_row(s);
	struct look l = look(s);
	ASSERT_LOOK(l, n, BEHIND, PRIMARY);
	ck_assert_int_lt(l.took_ms, 200);
	n = raise_row(b);
	l = look(b);
	ASSERT_LOOK(l, n, BEHIND, PRIMARY);
	ck_assert_int_ge(l.took_ms, 150);
	ck_assert_int_lt(l.took_ms, 2000);
	n = raise_row(p);
	pthread_t later = start_thread(go_on_later, NULL);
	l = look(p);
	join_thread(later);
	ck_assert_int_ge(l.took_ms, 150);
	ck_assert_int_lt(l.took_ms, 5000);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
	ck_assert_msg(l.route.reason == DBHA_REASON_GUARDED || l.route.reason == DBHA_REASON_REPLAYED, "%s",
	              dbha_reason_name(l.route.reason));
	c.intact = true;
}
END_TEST

/* The deadline of the call comes before max_wait. */
START_TEST(waiting_for_replay_ends_with_the_call)
{
	dbha *h = open_all(&c, "max_wait=1min");
	dbha_session *s = placed_session(h);
	hold_both();
	raise_row(s);
	struct look l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 400);
	ck_assert_int_le(l.took_ms, 400 + SLACK_MS);
	go_on_both();
	c.intact = true;
}
END_TEST

/* ---- transactions, streams, pinned sessions --------------------------------------------------------------------------- */

/* The first look of a read-only transaction, and the last. */
static struct look look_read_only(dbha_session *s, int isolation)
{
	dbha_error err;
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1, .isolation = isolation), &err), err);
	struct look l = look(s), again = look(s);
	ASSERT_OK(again.code, again.err);
	ck_assert_int_eq(again.n, l.n);
	ck_assert_int_eq(again.route.reason, DBHA_REASON_TRANSACTION);
	ck_assert_str_eq(again.route.node, l.route.node);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	return l;
}

START_TEST(read_only_transactions_obey_the_token)
{
	dbha *h = open_all(&c, NULL), *slow = open_all(&c, NO_NEWS);
	dbha_session *s = placed_session(h), *g = placed_session(slow);
	hold_both();
	long n = raise_row(s);
	struct look l = look_read_only(s, DBHA_READ_COMMITTED);
	ck_assert_int_eq(l.n, n);
	ck_assert_int_eq(l.route.role, DBHA_ROLE_PRIMARY);
	ck_assert_int_eq(look_read_only(s, DBHA_REPEATABLE_READ).n, n);
	n = raise_row(g);
	ck_assert_int_eq(look_read_only(g, DBHA_REPEATABLE_READ).n, n);
	go_on_both();
	cluster_all_catch_up(&c);
	WAIT_FOR(look_read_only(s, DBHA_REPEATABLE_READ).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	l = look_read_only(s, DBHA_READ_COMMITTED);
	ck_assert_int_ge(l.n, n - 1);
	l = look_read_only(g, DBHA_REPEATABLE_READ);
	ck_assert_int_eq(l.n, n);
	c.intact = true;
}
END_TEST

/* What is read carelessly in between, on a standby that is behind, does not make that standby the one to go on with. */
static void expect_nothing_forgotten(dbha_session *s)
{
	dbha_error err;
	hold_both();
	long n = raise_row(s);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_EVENTUAL, &err), err);
	ck_assert_int_lt(look(s).n, n);
	ck_assert_int_lt(look_read_only(s, DBHA_REPEATABLE_READ).n, n);
	ck_assert_int_lt(look_stream(s).n, n);
	ck_assert_int_lt(look_copy(s).n, n);
	ASSERT_OK(dbha_session_set_consistency(s, DBHA_CONSISTENCY_DEFAULT, &err), err);
	/* Only the first statement of a transaction is asked how fresh it wants to be. */
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	ck_assert_int_lt(look_as(s, DBHA_CONSISTENCY_EVENTUAL).n, n);
	ck_assert_int_lt(look(s).n, n);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(look(s).n, n);
	go_on_both();
	cluster_all_catch_up(&c);
}

START_TEST(a_careless_read_in_between_forgets_nothing)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *fresh = open_session(h), *placed = placed_session(h), *on_standby = placed_session(h);
	expect_nothing_forgotten(fresh);
	expect_nothing_forgotten(placed);
	WAIT_FOR(look(on_standby).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	expect_nothing_forgotten(on_standby);
	c.intact = true;
}
END_TEST

START_TEST(what_a_transaction_wrote_is_seen_after_it)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	hold_both();
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	long n = raise_row(s);
	struct look l = look(s);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	ck_assert_int_eq(l.route.reason, DBHA_REASON_TRANSACTION);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(look(s).n, n);
	/* As text, and rolled back: that is nothing to wait for, but nothing that was seen before is forgotten either. */
	talk_ask(s, "BEGIN");
	n = raise_row(s);
	talk_ask(s, "COMMIT");
	ck_assert_int_eq(look(s).n, n);
	talk_ask(s, "BEGIN");
	raise_row(s);
	talk_ask(s, "ROLLBACK");
	ck_assert_int_eq(look(s).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

START_TEST(streams_and_copies_obey_the_token)
{
	dbha *h = open_all(&c, NULL), *slow = open_all(&c, NO_NEWS);
	dbha_session *s = placed_session(h), *g = placed_session(slow);
	hold_both();
	long n = raise_row(s);
	ASSERT_LOOK(look_stream(s), n, BEHIND, PRIMARY);
	ck_assert_int_eq(look_stream(s).n, n);
	n = raise_row(s);
	ASSERT_LOOK(look_copy(s), n, BEHIND, PRIMARY);
	ck_assert_int_eq(look_copy(s).n, n);
	go_on_both();
	n = raise_row(g);
	cluster_all_catch_up(&c);
	ASSERT_LOOK(look_stream(g), n, GUARDED, STANDBY);
	n = raise_row(g);
	cluster_all_catch_up(&c);
	ASSERT_LOOK(look_copy(g), n, GUARDED, STANDBY);
	struct look l;
	WAIT_FOR((l = look_stream(s)).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	ck_assert_int_ge(l.n, n - 2);
	c.intact = true;
}
END_TEST

/* COPY FROM STDIN and a write that is read row by row are writes as any other. */
START_TEST(writes_by_copy_and_by_stream_are_seen)
{
	dbha_error err;
	PGresult *result;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	talk_ask(s, "DELETE FROM rows WHERE id > 1");
	hold_both();
	ASSERT_OK(dbha_session_copy_in(s, &DBHA_REQUEST(.sql = "COPY rows FROM STDIN", .intent = DBHA_WRITE), &err), err);
	ASSERT_OK(dbha_session_copy_put(s, "2\t7\n", 4, 0, &err), err);
	ASSERT_OK(dbha_session_copy_end(s, NULL, 0, &result, &err), err);
	PQclear(result);
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT n FROM rows WHERE id = 2", .intent = DBHA_READ);
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	ck_assert_int_eq(PQntuples(result), 1);
	PQclear(result);
	rq.sql = "UPDATE rows SET n = n + 1 WHERE id = 2 RETURNING n";
	rq.intent = DBHA_WRITE;
	ASSERT_OK(dbha_session_query(s, &rq, &err), err);
	for (;;) {
		ASSERT_OK(dbha_session_fetch(s, 0, &result, &err), err);
		if (!result)
			break;
		PQclear(result);
	}
	rq.sql = "SELECT n FROM rows WHERE id = 2";
	rq.intent = DBHA_READ;
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	ck_assert_str_eq(PQgetvalue(result, 0, 0), "8");
	PQclear(result);
	talk_ask(s, "DELETE FROM rows WHERE id > 1");
	go_on_both();
	c.intact = true;
}
END_TEST

/* A session that is pinned to a standby cannot go elsewhere. What it must not do is to show less than the token says. */
START_TEST(a_pinned_session_shows_nothing_stale)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *a = placed_session(h), *s = open_session(h);
	cluster_all_catch_up(&c);
	ASSERT_OK(talk_as(s, DBHA_READ, "SET work_mem = '5MB'", &err), err);
	ck_assert_int_eq(talk_status(s).pinned, 1);
	hold_both();
	long n = raise_row(a);
	token_of(a, token);
	ASSERT_OK(dbha_session_set_token(s, token, &err), err);
	struct look l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 700);
	printf("# pinned: %s, %ld (%ld), %s: %s\n", dbha_code_name(l.code), l.n, n, dbha_reason_name(l.route.reason),
	       l.code ? l.err.message : "");
	ck_assert(l.code != DBHA_OK || l.n == n);
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 700);
	ck_assert(l.code != DBHA_OK || l.n == n);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	go_on_both();
	ASSERT_OK(dbha_session_begin(s, &DBHA_TRANSACTION(.read_only = 1), &err), err);
	l = look_within(s, DBHA_CONSISTENCY_DEFAULT, PATIENCE_MS);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	ASSERT_OK(dbha_session_commit(s, 0, &err), err);
	ck_assert_int_eq(talk_status(s).pinned, 1);
	WAIT_FOR((l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 5000)).code == DBHA_OK, PATIENCE_MS);
	ck_assert_int_eq(l.n, n);
	/* One that is pinned to the primary writes and reads there. */
	dbha_session *p = open_session(h);
	talk_ask(p, "SET work_mem = '5MB'");
	n = raise_row(p);
	ASSERT_LOOK(look(p), n, PINNED, PRIMARY);
	/* What it was only shown there counts afterwards as well. */
	cluster_all_catch_up(&c);
	hold_both();
	n = raise_row(a);
	ASSERT_LOOK(look(p), n, PINNED, PRIMARY);
	ASSERT_OK(dbha_session_reset(p, &err), err);
	ck_assert_int_eq(look(p).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

/* ---- what a session sticks to ------------------------------------------------------------------------------------------ */

/* A session without writes, on the standby that has more; the other one is behind. Returns what it has seen. */
static long reader_on_2(dbha *h, dbha_session **reader)
{
	dbha_session *writer = placed_session(h);
	cluster_all_catch_up(&c);
	hold_replay(&c, 3);
	long n = raise_row(writer);
	cluster_catch_up(&c, 2, 1);
	struct look l;
	*reader = NULL;
	do {
		close_session(*reader);
		*reader = open_session(h);
		l = look(*reader);
		ASSERT_OK(l.code, l.err);
	} while (l.n != n || l.route.role != DBHA_ROLE_STANDBY);
	ck_assert_int_eq(talk_status(*reader).backend_pid, 0);
	return n;
}

START_TEST(reads_stay_on_a_standby_and_do_not_go_back)
{
	dbha *h = open_all(&c, NULL);
	dbha_session *s;
	long n = reader_on_2(h, &s);
	for (int i = 0; i < 200; i++) {
		struct look l = look(s);
		ASSERT_OK(l.code, l.err);
		ck_assert_int_eq(l.n, n);
		ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
	}
	go_on_both();
	c.intact = true;
}
END_TEST

/* Only the other standby is left, and it is behind. */
START_TEST(when_its_standby_dies_reads_do_not_go_back)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s;
	long n = reader_on_2(h, &s);
	cluster_do(&c, "kill 2");
	for (int i = 0; i < 50; i++) {
		struct look l = look(s);
		ASSERT_OK(l.code, l.err);
		ck_assert_int_eq(l.n, n);
	}
	cluster_do(&c, "start 2");
	go_on_both();
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	c.intact = true;
}
END_TEST

static void apply_delay(int node, const char *delay)
{
	cluster_ask(&c, node, "ALTER SYSTEM SET recovery_min_apply_delay = '%s'", delay);
	cluster_ask(&c, node, "SELECT pg_reload_conf()");
}

/* Node 2 crashes and comes back, and then replays no commit any more. True: it has less than it had shown. */
static bool comes_back_with_less(long n)
{
	apply_delay(2, "1h");
	cluster_do(&c, "kill 2");
	cluster_do(&c, "start 2");
	return cluster_count(&c, 2, "SELECT n FROM rows WHERE id = 1") < n;
}

static bool is_dead(PGconn *pg)
{
	PGresult *result = PQexec(pg, "SELECT 1");
	bool dead = PQresultStatus(result) != PGRES_TUPLES_OK;
	PQclear(result);
	return dead;
}

/* The same of one backend, which ends all of them, and leaves the postmaster as it is. */
static bool a_backend_crashes(long n)
{
	char server[64];
	PGconn *victim = cluster_admin(&c, 2), *witness = cluster_admin(&c, 2);
	apply_delay(2, "1h");
	ck_assert_int_eq(kill(PQbackendPID(victim), SIGKILL), 0);
	WAIT_FOR(is_dead(witness), PATIENCE_MS);
	PQfinish(victim);
	PQfinish(witness);
	snprintf(server, sizeof server, "host=127.0.0.1 port=%d", cluster_port(&c, 2));
	WAIT_FOR(PQping(server) == PQPING_OK, PATIENCE_MS);
	return cluster_count(&c, 2, "SELECT n FROM rows WHERE id = 1") < n;
}

static void expect_no_way_back(dbha_session *s, long n)
{
	for (int i = 0; i < 50; i++) {
		struct look l = look(s);
		ASSERT_OK(l.code, l.err);
		ck_assert_msg(l.n == n, "shows %ld after %ld: %s, %s", l.n, n, l.route.node, dbha_reason_name(l.route.reason));
	}
}

/*
 * The same server comes back after a crash with less than it had shown: it is another generation, and no longer the one that the session has
 * read from. One session reads before anybody has noticed, another one only when the server is in order again. How much less the server has is its
 * own affair; several tries make sure that it was.
 */
START_TEST(a_standby_that_comes_back_with_less_is_not_the_same)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	int older[2] = {0};
	cluster_ask(&c, 1, "CHECKPOINT");
	cluster_all_catch_up(&c);
	cluster_ask(&c, 2, "CHECKPOINT");
	for (int i = 0; i < 8 && !(older[0] && older[1]); i++) {
		dbha_session *s;
		long n = reader_on_2(h, &s);
		uint64_t generation = node_status(h, 1).generation;
		older[i % 2] += comes_back_with_less(n);
		if (i % 2)
			WAIT_FOR(node_status(h, 1).generation > generation && node_status(h, 1).state == DBHA_STATE_UP,
			         PATIENCE_MS);
		expect_no_way_back(s, n);
		ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
		expect_no_way_back(s, n);
		apply_delay(2, "0");
		go_on_replay(&c, 3);
		cluster_all_catch_up(&c);
		close_session(s);
	}
	printf("# it came back with less %d and %d times\n", older[0], older[1]);
	ck_assert(older[0] && older[1]);
	c.intact = true;
}
END_TEST

/* ---- conflicts with recovery -------------------------------------------------------------------------------------------- */

/* The one standby of the handle cancels the read for the sake of replay; the primary answers. */
/*
 * Nobody but those whose connections are gone can tell: the server has the same start time, and so the same generation. A session reads as soon
 * as the server can be reached again.
 */
START_TEST(a_standby_whose_backend_crashed_is_not_trusted_either)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	int older = 0;
	cluster_ask(&c, 1, "CHECKPOINT");
	cluster_all_catch_up(&c);
	cluster_ask(&c, 2, "CHECKPOINT");
	for (int i = 0; i < 8 && older < 2; i++) {
		dbha_session *s;
		long n = reader_on_2(h, &s);
		older += a_backend_crashes(n);
		WAIT_FOR(node_status(h, 1).state == DBHA_STATE_UP && node_status(h, 1).pool_idle > 0, PATIENCE_MS);
		expect_no_way_back(s, n);
		apply_delay(2, "0");
		go_on_replay(&c, 3);
		cluster_all_catch_up(&c);
		ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
		close_session(s);
	}
	printf("# after the crash of a backend it had less %d times\n", older);
	ck_assert_int_gt(older, 0);
	c.intact = true;
}
END_TEST

START_TEST(a_conflict_with_recovery_costs_no_error)
{
	static struct statement reader;
	static char hosts[80], token[DBHA_TOKEN_MAX];
	static dbha_result_route route;
	dbha_error err;
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d", cluster_port(&c, 1), cluster_port(&c, 2));
	dbha *h = open_hosts(&c, hosts, NULL);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	dbha_session *s = placed_session(h);
	raise_row(s);
	token_of(s, token);
	cluster_all_catch_up(&c);
	WAIT_FOR(look_with(h, token, 20000).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	route = (dbha_result_route){.size = sizeof route};
	statement_start_request(&reader, h,
	                        &DBHA_REQUEST(.sql = "SELECT n, pg_sleep(1) FROM rows", .intent = DBHA_READ,
	                                      .timeout_ms = 20000, .token = token, .route = &route));
	expect_running(&c, 2, "SELECT n, pg_sleep%");
	cluster_ask(&c, 1,
	            "BEGIN; LOCK TABLE rows IN ACCESS EXCLUSIVE MODE; CREATE TABLE gone (i int); DROP TABLE gone; COMMIT");
	statement_join(&reader);
	ASSERT_OK(reader.code, reader.err);
	ck_assert_str_eq(dbha_role_name(route.role), "primary");
	ck_assert_int_ge(route.attempts, 2);
	printf("# after a conflict: %s, %s\n", dbha_reason_name(route.reason), route.why);
	ck_assert(event_within(h, DBHA_EVENT_REROUTED, 1000, NULL));
	c.intact = true;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fresh");
	ADD_TEST(suite, the_route_says_why, made, NULL, 60);
	ADD_TEST(suite, the_call_comes_before_the_session_and_that_before_the_handle, made, NULL, 60);
	ADD_TEST(suite, a_mode_that_makes_no_sense_is_refused, made, NULL, 30);
	ADD_TEST(suite, bounded_is_as_old_as_max_lag_and_no_older, made, NULL, 60);
	ADD_TEST(suite, a_read_waits_for_replay_up_to_max_wait, made, NULL, 60);
	ADD_TEST(suite, waiting_for_replay_ends_with_the_call, made, NULL, 60);
	ADD_TEST(suite, read_only_transactions_obey_the_token, made, NULL, 60);
	ADD_TEST(suite, what_a_transaction_wrote_is_seen_after_it, made, NULL, 60);
	ADD_TEST(suite, a_careless_read_in_between_forgets_nothing, made, NULL, 60);
	ADD_TEST(suite, streams_and_copies_obey_the_token, made, NULL, 60);
	ADD_TEST(suite, writes_by_copy_and_by_stream_are_seen, made, NULL, 60);
	ADD_TEST(suite, a_pinned_session_shows_nothing_stale, made, NULL, 60);
	ADD_TEST(suite, a_conflict_with_recovery_costs_no_error, made, NULL, 60);
	ADD_TEST(suite, reads_stay_on_a_standby_and_do_not_go_back, made, NULL, 60);
	ADD_TEST(suite, when_its_standby_dies_reads_do_not_go_back, made, NULL, 60);
	ADD_TEST(suite, a_standby_that_comes_back_with_less_is_not_the_same, made, NULL, 120);
	ADD_TEST(suite, a_standby_whose_backend_crashed_is_not_trusted_either, made, NULL, 120);
	ADD_TEST(suite, a_snapshot_that_is_older_than_the_answer_is_not_read_from, made, NULL, 60);
	ADD_TEST(suite, a_constraint_that_is_checked_at_the_end_is_reported_as_such, made, NULL, 60);
	ADD_TEST(suite, without_standbys_the_primary_says_so, made, unmade, 60);
	return run_suite(suite, &c);
}
