/*
 * test_engine_fresh: how fresh the requests of an engine are, and the tokens that requests tell (DBHA_TOKEN), also of dbha_exec; and
 * routing=auto of an engine.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cutter.h"
#include "fresh.h"
#include "pipe_work.h"
#include "work.h"

/* The primary's position is not known by accident. */
#define NO_NEWS     "probe_interval=1min"
#define REPEATABLE  "&options=-c%20default_transaction_isolation%3Drepeatable%5C%20read"
#define SLOTS       64
#define READS       4 /* of a slot, behind each of its writes */
#define STORM_READS 8000
#define READ_SQL    "SELECT n FROM rows WHERE id = $1::int"
#define WRITE_SQL   "UPDATE rows SET n = n + 1 WHERE id = $1::int RETURNING n"
#define ANY_MS      20000

static struct cluster c;
static struct cutter cutter;

static void made(void)
{
	fresh_cluster(&c, "3");
	cluster_ask(&c, 1, "INSERT INTO rows SELECT i, 0 FROM generate_series(2, %d) AS i ON CONFLICT DO NOTHING", SLOTS);
	cluster_all_catch_up(&c);
}

static void done(void)
{
	engines_close();
	handles_close();
	if (cutter.running)
		cutter_stop(&cutter);
}

static void broken(void)
{
	done();
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

/* ---- one request ----------------------------------------------------------------------------------------------------- */

static void submit_row(dbha_engine *e, const dbha_request *like, int row, uint64_t tag)
{
	char text[16];
	const char *values[] = {text};
	dbha_error err;
	dbha_request rq = *like;
	snprintf(text, sizeof text, "%d", row);
	rq.sql = rq.intent == DBHA_WRITE ? WRITE_SQL : READ_SQL;
	rq.n_params = 1;
	rq.values = values;
	ASSERT_OK(dbha_submit(e, &rq, tag, &err), err);
}

static long value_of(dbha_completion *got)
{
	ASSERT_OK(got->code, got->error);
	ck_assert_int_eq(PQntuples(got->result), 1);
	long n = atol(PQgetvalue(got->result, 0, 0));
	PQclear(got->result);
	return n;
}

/* Row 1, up by one or as it is. */
static struct look one(dbha_engine *e, const dbha_request *like)
{
	struct look l = {.n = -1, .took_ms = now_ms()};
	submit_row(e, like, 1, 1);
	dbha_completion got = await_completion(e);
	l.took_ms = now_ms() - l.took_ms;
	l.code = got.code;
	l.route = got.route;
	l.err = got.error;
	if (got.code == DBHA_OK)
		l.n = value_of(&got);
	return l;
}

#define RAISE(e, ...) one(e, &DBHA_REQUEST(.intent = DBHA_WRITE, .timeout_ms = ANY_MS, __VA_ARGS__))
#define LOOK(e, ...)  one(e, &DBHA_REQUEST(.intent = DBHA_READ, __VA_ARGS__))

static struct look raised(dbha_engine *e)
{
	struct look l = RAISE(e, .flags = DBHA_TOKEN);
	ASSERT_OK(l.code, l.err);
	ck_assert_msg(l.route.token[0], "%s", l.route.why);
	return l;
}

/* ---- thousands in flight --------------------------------------------------------------------------------------------- */

enum kind { WRITES, READS_OWN, WALKS };

/* Who writes a row, reads it so often, and begins anew; and beside him one who only reads it, one read behind the other. */
struct slot {
	long n;
	int left;
	long seen;
	char token[DBHA_TOKEN_MAX], walk[DBHA_TOKEN_MAX];
};

static struct storm {
	dbha_engine *e;
	bool tokens;
	long wanted, in_flight, writes, reads, standby, guarded, replayed, behind, guards_behind, stale, backwards, untold;
	struct slot slots[SLOTS];
} storm;

static void send(enum kind kind, int i)
{
	struct slot *slot = &storm.slots[i];
	dbha_request rq = DBHA_REQUEST(.intent = kind == WRITES ? DBHA_WRITE : DBHA_READ, .timeout_ms = ANY_MS);
	if (storm.tokens)
		rq.token = kind == WALKS ? slot->walk : slot->token;
	else
		rq.consistency = DBHA_CONSISTENCY_EVENTUAL;
	if (storm.tokens && kind != READS_OWN)
		rq.flags = DBHA_TOKEN;
	submit_row(storm.e, &rq, i + 1, (uint64_t)kind << 32 | (uint64_t)i);
	storm.in_flight++;
}

static void count_read(const dbha_result_route *route)
{
	storm.reads++;
	storm.standby += route->role == DBHA_ROLE_STANDBY;
	storm.guarded += route->reason == DBHA_REASON_GUARDED;
	storm.replayed += route->reason == DBHA_REASON_REPLAYED;
	storm.behind += route->reason == DBHA_REASON_BEHIND;
}

static void keep_token(char token[DBHA_TOKEN_MAX], const dbha_result_route *route)
{
	storm.untold += storm.tokens && !route->token[0];
	if (route->token[0])
		snprintf(token, DBHA_TOKEN_MAX, "%s", route->token);
}

static void follow(dbha_completion *got)
{
	bool more = storm.reads < storm.wanted;
	int i = (int)(got->tag & 0xffff);
	enum kind kind = (enum kind)(got->tag >> 32);
	struct slot *slot = &storm.slots[i];
	dbha_result_route route = got->route;
	long n = value_of(got);
	storm.in_flight--;
	if (kind == WRITES) {
		storm.writes++;
		slot->n = n;
		keep_token(slot->token, &route);
		for (slot->left = 0; slot->left < READS; slot->left++)
			send(READS_OWN, i);
		return;
	}
	count_read(&route);
	if (kind == READS_OWN) {
		storm.stale += n < slot->n;
		if (--slot->left == 0 && more)
			send(WRITES, i);
		return;
	}
	storm.backwards += n < slot->seen;
	slot->seen = n;
	keep_token(slot->walk, &route);
	if (more)
		send(WALKS, i);
}

/* Meanwhile one standby after the other stops replaying for a while. */
static void disturb(int turn)
{
	if (turn % 2)
		go_on_both();
	else
		hold_replay(&c, 2 + turn / 2 % 2);
}

static void run_storm(const char *name, const char *options, bool tokens)
{
	int turn = 0;
	memset(&storm, 0, sizeof storm);
	dbha *h = open_all(&c, options);
	storm.e = open_engine(h, (dbha_engine_options){.queue = 2000, .thread = 1});
	storm.tokens = tokens;
	storm.wanted = STORM_READS;
	for (int i = 0; i < SLOTS; i++) {
		send(WRITES, i);
		send(WALKS, i);
	}
	while (storm.in_flight > 0) {
		dbha_completion got = await_completion(storm.e);
		follow(&got);
		if (storm.reads / 400 > turn)
			disturb(turn++);
	}
	go_on_both();
	storm.guards_behind = (long)counters(h, -1).guards_behind;
	printf("# %s: %ld writes, %ld reads, %ld by standbys, %ld guarded, %ld known, %ld on the primary; "
	       "a standby was behind %ld times; %ld stale, %ld backwards, %ld without a token\n",
	       name, storm.writes, storm.reads, storm.standby, storm.guarded, storm.replayed, storm.behind,
	       storm.guards_behind, storm.stale, storm.backwards, storm.untold);
}

static void expect_fresh(void)
{
	ck_assert_int_eq(storm.stale, 0);
	ck_assert_int_eq(storm.backwards, 0);
	ck_assert_int_ge(storm.reads, STORM_READS);
	ck_assert_int_ge(storm.standby, STORM_READS / 10);
	ck_assert_int_ge(storm.guarded, 100);
	ck_assert_int_ge(storm.guards_behind, 20);
	ck_assert_int_le(storm.untold, (storm.reads + storm.writes) / 100);
}

START_TEST(nothing_stale_is_read_with_a_token)
{
	run_storm("tokens", NULL, true);
	expect_fresh();
	c.intact = true;
}
END_TEST

START_TEST(nothing_stale_is_read_in_repeatable_read)
{
	run_storm("repeatable read", NO_NEWS REPEATABLE, true);
	expect_fresh();
	c.intact = true;
}
END_TEST

/* The same storm, and what it has to find. */
START_TEST(without_tokens_the_same_requests_read_stale_rows)
{
	run_storm("no tokens", NULL, false);
	ck_assert_int_gt(storm.stale, 0); /* and some go backwards, but not every time */
	c.intact = true;
}
END_TEST

/* ---- guards ---------------------------------------------------------------------------------------------------------- */

START_TEST(a_standby_that_is_behind_is_not_believed)
{
	dbha *h = open_all(&c, NO_NEWS);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	hold_both();
	struct look w = raised(e);
	ck_assert_int_eq(w.route.reason, DBHA_REASON_WRITE);
	ASSERT_LOOK(LOOK(e, .consistency = DBHA_CONSISTENCY_EVENTUAL), w.n - 1, READ, STANDBY);
	struct look l = LOOK(e, .token = w.route.token);
	ASSERT_LOOK(l, w.n, BEHIND, PRIMARY);
	ASSERT_HAS(l.route.why, "has not replayed");
	ck_assert_int_eq(l.route.attempts, 3);
	ck_assert_uint_eq(counters(h, -1).guards_behind, 2);
	go_on_both();
	cluster_all_catch_up(&c);
	ASSERT_LOOK(LOOK(e, .token = w.route.token), w.n, GUARDED, STANDBY);
	c.intact = true;
}
END_TEST

/* Once a connection has said how far it is, it is not asked for less. */
START_TEST(most_reads_need_no_question)
{
	dbha *h = open_all(&c, NO_NEWS);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .thread = 1});
	struct look w = raised(e);
	cluster_all_catch_up(&c);
	int guarded = 0;
	for (int i = 0; i < 200; i++) {
		struct look l = LOOK(e, .token = w.route.token);
		ASSERT_OK(l.code, l.err);
		ck_assert_int_eq(l.n, w.n);
		ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
		guarded += l.route.reason == DBHA_REASON_GUARDED;
	}
	/* One on each connection; those that have rested go back to their pool, and are asked anew. */
	ck_assert_int_ge(guarded, 1);
	ck_assert_int_le(guarded, 60);
	ck_assert_uint_eq(counters(h, -1).guards, (unsigned)guarded);
	c.intact = true;
}
END_TEST

START_TEST(a_read_waits_for_replay_up_to_max_wait)
{
	dbha *h = open_all(&c, NO_NEWS "&max_wait=10s");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	hold_both();
	struct look w = raised(e);
	submit_row(e, &DBHA_REQUEST(.intent = DBHA_READ, .token = w.route.token), 1, 1);
	WAIT_FOR(counters(h, -1).guards_behind >= 5, PATIENCE_MS);
	go_on_both();
	dbha_completion got = await_completion(e);
	ck_assert_int_eq(got.route.role, DBHA_ROLE_STANDBY);
	ck_assert_int_eq(value_of(&got), w.n);
	hold_both();
	w = raised(e);
	struct look l = LOOK(e, .token = w.route.token, .timeout_ms = 300);
	ASSERT_CODE(l.code, NO_NODE, l.err);
	ck_assert(l.err.retry_safe && !l.err.outcome_unknown);
	ck_assert_int_ge(l.took_ms, 290);
	ck_assert_int_le(l.took_ms, 300 + SLACK_MS);
	go_on_both();
	c.intact = true;
}
END_TEST

/* Of what nobody has called a read the question goes alone: it is not executed for nothing. */
START_TEST(what_may_write_is_not_executed_for_nothing)
{
	dbha *h = open_all(&c, NO_NEWS "&target_session_attrs=prefer-standby");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	hold_both();
	struct look w = raised(e);
	/* Each execution takes a second, and only the primary's counts. */
	dbha_error err;
	dbha_request slow = DBHA_REQUEST(.sql = "SELECT n FROM rows, pg_sleep(1) WHERE id = 1", .token = w.route.token);
	int64_t began = now_ms();
	ASSERT_OK(dbha_submit(e, &slow, 1, &err), err);
	dbha_completion got = await_completion(e);
	ck_assert_int_le(now_ms() - began, 1900);
	ck_assert_int_eq(value_of(&got), w.n);
	ck_assert_int_eq(got.route.reason, DBHA_REASON_BEHIND);
	ck_assert_int_eq(got.route.attempts, 3);
	go_on_both();
	cluster_all_catch_up(&c);
	ASSERT_LOOK(one(e, &DBHA_REQUEST(.intent = DBHA_DEFAULT, .token = w.route.token)), w.n, GUARDED, STANDBY);
	c.intact = true;
}
END_TEST

/* Nor is it read without being asked for where its commit would be verified. */
START_TEST(what_is_verified_on_a_standby_is_as_fresh)
{
	dbha *h = open_all(&c, NO_NEWS "&target_session_attrs=prefer-standby&verify_commit=on");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	hold_both();
	struct look w = raised(e);
	ASSERT_LOOK(one(e, &DBHA_REQUEST(.intent = DBHA_DEFAULT, .token = w.route.token)), w.n, BEHIND, PRIMARY);
	go_on_both();
	cluster_all_catch_up(&c);
	ASSERT_LOOK(one(e, &DBHA_REQUEST(.intent = DBHA_DEFAULT, .token = w.route.token)), w.n, GUARDED, STANDBY);
	c.intact = true;
}
END_TEST

START_TEST(a_snapshot_that_is_older_than_the_answer_is_not_read_from)
{
	dbha *h = open_all(&c, NO_NEWS REPEATABLE);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.connections = 1, .thread = 1});
	int again = 0;
	for (int i = 0; i < 12; i++) {
		struct look w = raised(e);
		cluster_all_catch_up(&c);
		struct look l = LOOK(e, .token = w.route.token);
		ASSERT_OK(l.code, l.err);
		ck_assert_int_eq(l.n, w.n);
		ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
		again += l.route.attempts - 1;
	}
	ck_assert_uint_eq(counters(h, -1).guards_behind, 0);
	/* The first time on its connection it is sent again, and not any more then. */
	ck_assert_int_ge(again, 1);
	ck_assert_int_le(again, 4);
	c.intact = true;
}
END_TEST

/* ---- what reads tell ------------------------------------------------------------------------------------------------- */

/* What one standby has shown the other one, which is behind, does not unshow. */
START_TEST(reads_that_carry_tokens_do_not_go_back)
{
	dbha *h = open_all(&c, NO_NEWS);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	hold_replay(&c, 3);
	struct look w = RAISE(e, .flags = 0), first;
	cluster_catch_up(&c, 2, 1);
	WAIT_FOR((first = LOOK(e, .consistency = DBHA_CONSISTENCY_EVENTUAL, .flags = DBHA_TOKEN)).n == w.n, PATIENCE_MS);
	ck_assert_int_eq(first.route.role, DBHA_ROLE_STANDBY);
	ck_assert_msg(first.route.token[0], "%s", first.route.why);
	char token[DBHA_TOKEN_MAX];
	snprintf(token, sizeof token, "%s", first.route.token);
	for (int i = 0; i < 100; i++) {
		struct look l = LOOK(e, .token = token, .flags = DBHA_TOKEN);
		ASSERT_OK(l.code, l.err);
		ck_assert_int_eq(l.n, w.n);
		ck_assert_str_ne(l.route.node, node_status(h, 2).name);
		snprintf(token, sizeof token, "%s", l.route.token);
	}
	go_on_both();
	c.intact = true;
}
END_TEST

/* The timeline that a role may not be told is the newest that is known. */
START_TEST(a_role_that_is_told_no_timeline_has_tokens_as_well)
{
	dbha *h = open_all(&c, NO_NEWS);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	char written[DBHA_TOKEN_MAX];
	snprintf(written, sizeof written, "%s", raised(e).route.token);
	cluster_ask(&c, 1, "REVOKE pg_read_all_stats FROM app");
	cluster_all_catch_up(&c);
	struct look l = LOOK(e, .flags = DBHA_TOKEN);
	ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
	cluster_ask(&c, 1, "GRANT pg_read_all_stats TO app");
	ck_assert_msg(l.route.token[0], "%s", l.route.why);
	/* "1.SYSTEM.TIMELINE.": of one cluster and one timeline. */
	ck_assert_int_eq(strncmp(l.route.token, written, (size_t)(strstr(written, ".1.") + 3 - written)), 0);
	c.intact = true;
}
END_TEST

START_TEST(dbha_exec_tells_tokens)
{
	dbha *h = open_all(&c, NO_NEWS), *verified = open_all(&c, NO_NEWS "&verify_commit=on");
	dbha *const handles[] = {h, verified};
	PGresult *result;
	dbha_error err;
	dbha_result_route route = {.size = sizeof route};
	for (int i = 0; i < 2; i++) {
		dbha_request rq = DBHA_REQUEST(.sql = "UPDATE rows SET n = n + 1 WHERE id = 1 RETURNING n",
		                               .intent = DBHA_WRITE, .flags = DBHA_TOKEN, .route = &route);
		hold_both();
		ASSERT_OK(dbha_exec(handles[i], &rq, &result, &err), err);
		long n = atol(PQgetvalue(result, 0, 0));
		PQclear(result);
		ck_assert_msg(route.token[0], "%s", route.why);
		ASSERT_LOOK(look_with(h, route.token, ANY_MS), n, BEHIND, PRIMARY);
		go_on_both();
		cluster_all_catch_up(&c);
		char token[DBHA_TOKEN_MAX];
		rq = DBHA_REQUEST(.sql = "SELECT n FROM rows WHERE id = 1", .intent = DBHA_READ, .flags = DBHA_TOKEN,
		                  .route = &route);
		ASSERT_OK(dbha_exec(handles[i], &rq, &result, &err), err);
		PQclear(result);
		ck_assert_int_eq(route.role, DBHA_ROLE_STANDBY);
		ck_assert_msg(route.token[0], "%s", route.why);
		snprintf(token, sizeof token, "%s", route.token);
		/* A read on the primary tells where that is. */
		rq.consistency = DBHA_CONSISTENCY_PRIMARY;
		rq.token = token;
		ASSERT_OK(dbha_exec(handles[i], &rq, &result, &err), err);
		PQclear(result);
		ck_assert_msg(route.role == DBHA_ROLE_PRIMARY && route.token[0], "%s", route.why);
	}
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT 1", .flags = DBHA_TOKEN);
	ASSERT_CODE(dbha_exec(h, &rq, &result, &err), USAGE, err);
	dbha_session *s = open_session(h);
	rq.route = &route;
	ASSERT_CODE(dbha_session_exec(s, &rq, &result, &err), USAGE, err);
	ASSERT_CODE(dbha_session_query(s, &rq, &err), USAGE, err);
	c.intact = true;
}
END_TEST

/* ---- a position that does not come ----------------------------------------------------------------------------------- */

/* Where the answer to the marked statement ends. */
static long end_of_first_answer(void)
{
	static struct cut_report report;
	cutter_disarm(&cutter, &report);
	ck_assert(report.found);
	for (int i = 0; i < report.n_messages; i++) {
		const struct cut_message *message = &report.messages[i];
		if (message->direction == REPLY && message->type == 'Z' &&
		    message->start + message->length < report.forwarded[REPLY])
			return message->start + message->length;
	}
	ck_abort_msg("nothing came behind its answer");
	return -1;
}

static dbha *open_cut(void)
{
	char host[32];
	dbha_error err;
	cutter_start(&cutter, cluster_port(&c, 1));
	snprintf(host, sizeof host, "127.0.0.1:%d", cutter.port);
	dbha *h = open_hosts(&c, host, "sslmode=disable&gssencmode=disable&" NO_NEWS);
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	return h;
}

START_TEST(what_is_done_is_done_also_where_its_position_is_lost)
{
	static const enum cut_kind kinds[] = {CUT_RESET, CUT_END, CUT_SILENT, CUT_DELAY};
	dbha_engine *e = open_engine(open_cut(), (dbha_engine_options){.connections = 1, .thread = 1});
	struct cut cut = {.marker = "UPDATE rows SET n", .kind = CUT_NONE, .direction = REPLY, .delay_ms = 1000};
	cutter_arm(&cutter, &cut);
	long n = RAISE(e, .flags = DBHA_TOKEN | DBHA_UNPREPARED).n;
	long at = end_of_first_answer();
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		static struct cut_report report;
		cut.kind = kinds[i];
		/* The end of its answer, and a byte in the middle of what comes behind. */
		cut.at = at + 7 * (long)(i % 2);
		cutter_arm(&cutter, &cut);
		struct look w = RAISE(e, .flags = DBHA_TOKEN | DBHA_UNPREPARED);
		cutter_disarm(&cutter, &report);
		ck_assert(report.found && report.cutting);
		ASSERT_OK(w.code, w.err);
		ck_assert_int_eq(w.n, ++n);
		ck_assert_str_eq(w.route.token, "");
		ASSERT_HAS(w.route.why, "no token");
		ck_assert_int_le(w.took_ms, 200 + 300 + SLACK_MS);
	}
	struct look w = RAISE(e, .flags = DBHA_TOKEN);
	ASSERT_OK(w.code, w.err);
	ck_assert_int_eq(w.n, ++n);
	c.intact = true;
}
END_TEST

/* ---- failover -------------------------------------------------------------------------------------------------------- */

START_TEST(a_token_outlives_its_primary)
{
	dbha_event event;
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	struct look w = raised(e);
	cluster_all_catch_up(&c);
	cluster_do(&c, "kill 1");
	promote(&c, 2);
	cluster_do(&c, "follow 3 2");
	struct look l = LOOK(e, .token = w.route.token, .flags = DBHA_TOKEN, .timeout_ms = ANY_MS);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, w.n);
	w = RAISE(e, .token = w.route.token, .flags = DBHA_TOKEN);
	ASSERT_OK(w.code, w.err);
	ck_assert_msg(strstr(w.route.token, ".2.") != NULL, "\"%s\": %s", w.route.token, w.route.why);
	l = LOOK(e, .token = w.route.token, .timeout_ms = ANY_MS);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, w.n);
	/* Until the standby that has changed sides serves with it, and tells one. */
	WAIT_FOR((l = LOOK(e, .token = w.route.token, .flags = DBHA_TOKEN)).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	ck_assert_int_eq(l.n, w.n);
	ck_assert_msg(strstr(l.route.token, ".2.") != NULL, "\"%s\": %s", l.route.token, l.route.why);
	ck_assert(!event_within(h, DBHA_EVENT_LOST_WRITES, 0, &event));
}
END_TEST

static void stop_receiving(int node)
{
	cluster_ask(&c, node, "ALTER SYSTEM SET primary_conninfo = ''");
	cluster_ask(&c, node, "SELECT pg_reload_conf()");
	WAIT_FOR(cluster_count(&c, node, "SELECT count(*) FROM pg_stat_wal_receiver") == 0, PATIENCE_MS);
}

START_TEST(what_a_failover_has_lost_is_told)
{
	dbha_event event = {.size = sizeof event};
	dbha *h = open_all(&c, NULL);
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	cluster_all_catch_up(&c);
	stop_receiving(2);
	stop_receiving(3);
	struct look w = raised(e);
	cluster_do(&c, "kill 1");
	cluster_do(&c, "promote 2");
	struct look l;
	/* It may have been served by a standby that has all there is. */
	WAIT_FOR((l = LOOK(e, .token = w.route.token, .timeout_ms = ANY_MS)).n == w.n - 1, PATIENCE_MS);
	ck_assert(event_within(h, DBHA_EVENT_LOST_WRITES, PATIENCE_MS, &event));
	printf("# %s\n", event.text);
}
END_TEST

/* ---- routing=auto ---------------------------------------------------------------------------------------------------- */

static struct look auto_of(dbha_engine *e, const char *sql)
{
	struct look l = {.n = -1};
	submit_sql(e, DBHA_DEFAULT, ANY_MS, sql, 1);
	dbha_completion got = await_completion(e);
	ASSERT_OK(got.code, got.error);
	l.route = got.route;
	PQclear(got.result);
	return l;
}

START_TEST(with_auto_reads_go_to_standbys_and_the_rest_to_the_primary)
{
	dbha *h = open_all(&c, "routing=auto");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	struct look l;
	unsigned submitted = 0;
	cluster_ask(&c, 1, "CREATE FUNCTION lies() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS "
	            "'BEGIN UPDATE rows SET n = n + 1 WHERE id = 2; RETURN 1; END'");
	cluster_ask(&c, 1,
	            "CREATE OR REPLACE FUNCTION lies() RETURNS int LANGUAGE plpgsql STABLE AS "
	            "'BEGIN RETURN writes(); END'");
	cluster_all_catch_up(&c);
	do {
		l = auto_of(e, "SELECT n FROM rows WHERE id = 1");
		submitted++;
		ck_assert_msg(l.route.role == DBHA_ROLE_STANDBY || l.route.why[0], "on the primary, and nothing says why");
		ck_assert_uint_lt(submitted, 100000);
	} while (l.route.role != DBHA_ROLE_STANDBY);
	ck_assert_uint_gt(submitted, 1);
	for (int i = 0; i < 50; i++) {
		ck_assert_int_eq(auto_of(e, "SELECT n FROM rows WHERE id = 1").route.role, DBHA_ROLE_STANDBY);
		ck_assert_int_eq(auto_of(e, "SELECT count(*) FROM rows").route.intent, DBHA_READ);
		l = auto_of(e, "UPDATE rows SET n = n + 1 WHERE id = 1");
		ck_assert_int_eq(l.route.role, DBHA_ROLE_PRIMARY);
		ck_assert_msg(l.route.why[0], "nothing says why");
		ck_assert_int_eq(auto_of(e, "SELECT n FROM rows WHERE id = 1 FOR UPDATE").route.role, DBHA_ROLE_PRIMARY);
		submitted += 4;
	}
	for (int i = 0; i < 3; i++) {
		l = auto_of(e, "SELECT lies()");
		ck_assert_int_eq(l.route.role, DBHA_ROLE_PRIMARY);
		ck_assert_int_eq(l.route.reason == DBHA_REASON_REFUSED, i == 0);
		ck_assert_int_eq(l.route.attempts, i == 0 ? 2 : 1);
		submitted++;
	}
	/* One question for the catalog, and one read that was refused. */
	ck_assert_uint_eq(counters(h, -1).statements, submitted + 2);
	ck_assert_uint_eq(counters(h, -1).not_reads, 1);
	cluster_ask(&c, 1, "DROP FUNCTION lies(); DROP FUNCTION writes()");
	c.intact = true;
}
END_TEST

/* Nobody else fetches the catalog while somebody has claimed that. */
START_TEST(an_engine_that_ends_leaves_no_claim_behind)
{
	dbha *h = open_all(&c, "routing=auto");
	dbha_engine *e = open_engine(h, (dbha_engine_options){.thread = 1});
	submit_sql(e, DBHA_DEFAULT, ANY_MS, "SELECT n FROM rows WHERE id = 1", 1);
	dbha_engine_stop(e, 0);
	PGresult *result;
	dbha_error err;
	dbha_result_route route = {.size = sizeof route};
	dbha_request rq = DBHA_REQUEST(.sql = "SELECT n FROM rows WHERE id = 1", .route = &route);
	int64_t until = now_ms() + PATIENCE_MS;
	do {
		ASSERT_OK(dbha_exec(h, &rq, &result, &err), err);
		PQclear(result);
		ck_assert_msg(now_ms() < until, "no read on a standby: %s", route.why);
		short_pause();
	} while (route.role != DBHA_ROLE_STANDBY);
	c.intact = true;
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("engine_fresh");
	ADD_TEST(suite, a_standby_that_is_behind_is_not_believed, made, done, 60);
	ADD_TEST(suite, most_reads_need_no_question, made, done, 60);
	ADD_TEST(suite, a_read_waits_for_replay_up_to_max_wait, made, done, 60);
	ADD_TEST(suite, what_is_verified_on_a_standby_is_as_fresh, made, done, 60);
	ADD_TEST(suite, what_may_write_is_not_executed_for_nothing, made, done, 60);
	ADD_TEST(suite, a_snapshot_that_is_older_than_the_answer_is_not_read_from, made, done, 60);
	ADD_TEST(suite, reads_that_carry_tokens_do_not_go_back, made, done, 60);
	ADD_TEST(suite, a_role_that_is_told_no_timeline_has_tokens_as_well, made, done, 60);
	ADD_TEST(suite, dbha_exec_tells_tokens, made, done, 60);
	ADD_TEST(suite, what_is_done_is_done_also_where_its_position_is_lost, made, done, 60);
	ADD_TEST(suite, with_auto_reads_go_to_standbys_and_the_rest_to_the_primary, made, done, 60);
	ADD_TEST(suite, an_engine_that_ends_leaves_no_claim_behind, made, done, 60);
	ADD_TEST(suite, nothing_stale_is_read_with_a_token, made, done, 120);
	ADD_TEST(suite, nothing_stale_is_read_in_repeatable_read, made, done, 120);
	ADD_TEST(suite, without_tokens_the_same_requests_read_stale_rows, made, done, 120);
	ADD_TEST(suite, a_token_outlives_its_primary, made, broken, 90);
	ADD_TEST(suite, what_a_failover_has_lost_is_told, made, broken, 90);
	return run_suite(suite, &c);
}
