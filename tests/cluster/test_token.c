/*
 * test_token: the text that carries what a session has written and seen to another one: there and back, damaged, of another cluster, of
 * a timeline that nobody has seen, without a primary, over fork(), without a thread, for a role that may not see everything.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"
#include "fresh.h"
#include "talk.h"
#include "work.h"

static struct cluster c;

static void made(void)
{
	fresh_cluster(&c, "3 --set max_standby_streaming_delay=0");
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

/* A read of the session, until a standby has served it; what it showed. */
static long by_standby(dbha_session *s)
{
	struct look l;
	WAIT_FOR((l = look(s)).code == DBHA_OK && l.route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	return l.n;
}

/* ---- there and back ------------------------------------------------------------------------------------------------ */

START_TEST(what_the_giver_saw_the_taker_sees)
{
	char token[DBHA_TOKEN_MAX], again[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha_session *a = placed_session(open_all(&c, NULL)), *b = open_session(open_all(&c, NULL));
	dbha *other = open_all(&c, NULL);
	hold_both();
	long n = raise_row(a);
	ASSERT_LOOK(look_as(b, DBHA_CONSISTENCY_EVENTUAL), n - 1, READ, STANDBY);
	token_of(a, token);
	ck_assert_uint_gt(strlen(token), 0);
	for (const char *p = token; *p; p++)
		ck_assert_msg(isalnum((unsigned char)*p) || *p == '.', "\"%s\" does not fit a cookie", token);
	token_of(a, again);
	ck_assert_str_eq(token, again);
	ASSERT_OK(dbha_session_set_token(b, token, &err), err);
	ASSERT_LOOK(look(b), n, BEHIND, PRIMARY);
	ASSERT_LOOK(look_with(other, token, 20000), n, BEHIND, PRIMARY);
	go_on_both();
	ck_assert_int_eq(by_standby(a), n);
	ck_assert_int_eq(by_standby(b), n);
	WAIT_FOR(look_with(other, token, 20000).route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	ck_assert_int_eq(look_with(other, token, 20000).n, n);
	c.intact = true;
}
END_TEST

START_TEST(who_has_done_nothing_has_an_empty_token_and_an_empty_one_changes_nothing)
{
	char token[DBHA_TOKEN_MAX] = "x";
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	token_of(s, token);
	ck_assert_str_eq(token, "");
	ASSERT_OK(dbha_session_set_token(s, "", &err), err);
	ASSERT_OK(dbha_session_set_token(s, NULL, &err), err);
	token_of(s, token);
	ck_assert_str_eq(token, "");
	struct look l = look_with(h, "", 20000);
	ASSERT_OK(l.code, l.err);
	ASSERT_CODE(dbha_session_token(NULL, token, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_session_token(s, NULL, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_session_set_token(NULL, "", &err), USAGE, err);
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_CODE(dbha_session_token(s, token, 0, &err), USAGE, err);
	ASSERT_OK(dbha_session_rollback(s, 0, &err), err);
	c.intact = true;
}
END_TEST

/* What was only read is on the token too; and so is what was written before the first read. */
START_TEST(reads_and_early_writes_are_on_the_token)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *writer = open_session(h), *taker = open_session(h);
	hold_replay(&c, 3);
	long n = raise_row(writer);
	token_of(writer, token);
	ck_assert_uint_gt(strlen(token), 0);
	hold_replay(&c, 2);
	ck_assert_int_eq(look_with(h, token, 20000).n, n);
	go_on_replay(&c, 2);
	/* A reader that has come to the one standby that has it; the taker must not go to the other one. */
	dbha_session *reader = NULL;
	do {
		close_session(reader);
		reader = open_session(h);
	} while (look(reader).n != n);
	token_of(reader, token);
	ASSERT_OK(dbha_session_set_token(taker, token, &err), err);
	for (int i = 0; i < 50; i++)
		ck_assert_int_eq(look(taker).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

/* Of two tokens the later one counts, whichever came first. */
START_TEST(an_older_token_takes_nothing_back)
{
	char older[DBHA_TOKEN_MAX], newer[DBHA_TOKEN_MAX], now[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *a = placed_session(h), *b = open_session(h);
	raise_row(a);
	token_of(a, older);
	hold_both();
	long n = raise_row(a);
	token_of(a, newer);
	ck_assert_str_ne(older, newer);
	ASSERT_OK(dbha_session_set_token(b, newer, &err), err);
	ASSERT_OK(dbha_session_set_token(b, older, &err), err);
	ck_assert_int_eq(look(b).n, n);
	token_of(b, now);
	ck_assert_str_ne(now, older);
	go_on_both();
	c.intact = true;
}
END_TEST

/* ---- damage --------------------------------------------------------------------------------------------------------- */

static void expect_refused(dbha *h, dbha_session *s, const char *token)
{
	dbha_error err = {0};
	int code = dbha_session_set_token(s, token, &err);
	ck_assert_msg(code == DBHA_ERR_USAGE, "session: \"%s\" is %s", token, dbha_code_name(code));
	struct look l = look_with(h, token, 5000);
	ck_assert_msg(l.code == DBHA_ERR_USAGE, "dbha_exec: \"%s\" is %s", token, dbha_code_name(l.code));
	ck_assert_int_eq(l.err.attempts, 0);
}

/* A good one with a piece cut out at `at` and another one put there. */
static void expect_refused_with(dbha *h, dbha_session *s, const char *good, size_t at, size_t cut, const char *piece)
{
	char token[256];
	snprintf(token, sizeof token, "%.*s%s%s", (int)at, good, piece, good + at + cut);
	if (strcmp(token, good) != 0)
		expect_refused(h, s, token);
}

static void expect_fields_refused(dbha *h, dbha_session *s, const char *good)
{
	static const char *const instead[] = {"",
	                                      "-1",
	                                      "+1",
	                                      " 1",
	                                      "1 ",
	                                      "0x1",
	                                      "1e3",
	                                      "g1",
	                                      "1/23",
	                                      "ü",
	                                      "%31",
	                                      "é1",
	                                      "99999999999999999999999999999999999999",
	                                      "fffffffffffffffffffffffffffffffffffffff"};
	for (size_t at = 0; at <= strlen(good); at++) {
		if (at > 0 && good[at - 1] != '.')
			continue;
		size_t length = strcspn(good + at, ".");
		for (size_t i = 0; i < sizeof instead / sizeof instead[0]; i++)
			expect_refused_with(h, s, good, at, length, instead[i]);
		expect_refused_with(h, s, good, at, 0, "-");
		expect_refused_with(h, s, good, at, 0, "+");
		expect_refused_with(h, s, good, at, 0, " ");
		expect_refused_with(h, s, good, at, 0, ".");
	}
}

START_TEST(a_damaged_token_is_refused)
{
	static const char *const never[] = {".",      "..",         "...",     "....",     "0",
	                                    "1",      " ",          "\n",      "v1",       "1.2.3",
	                                    "null",   "none",       "0/0",     "é",        "1.2.3.4",
	                                    "1.2.3.", "..........", "2.1.1.1", "99.1.1.1", "'; DROP TABLE rows; --"};
	char good[DBHA_TOKEN_MAX], now[DBHA_TOKEN_MAX], longest[10000];
	dbha *h = open_all(&c, NULL);
	dbha_session *a = placed_session(h), *s = open_session(h);
	raise_row(a);
	token_of(a, good);
	printf("# a token: %s\n", good);
	for (size_t i = 0; i < sizeof never / sizeof never[0]; i++)
		expect_refused(h, s, never[i]);
	memset(longest, '1', sizeof longest);
	longest[sizeof longest - 1] = '\0';
	expect_refused(h, s, longest);
	expect_fields_refused(h, s, good);
	/* Cut off anywhere, as a NUL in it would; one character too many, or another one, anywhere. */
	for (size_t at = 0; good[at]; at++) {
		char cut[DBHA_TOKEN_MAX];
		snprintf(cut, sizeof cut, "%.*s", (int)at, good);
		if (at > 0)
			expect_refused(h, s, cut);
		expect_refused_with(h, s, good, at, 0, "0");
		expect_refused_with(h, s, good, at, 1, "");
		expect_refused_with(h, s, good, at, 1, "z");
		expect_refused_with(h, s, good, at, 1, good[at] == '7' ? "3" : "7");
	}
	expect_refused_with(h, s, good, strlen(good), 0, "0");
	expect_refused_with(h, s, good, strlen(good), 0, "\n");
	expect_refused_with(h, s, good, strlen(good), 0, " ");
	token_of(s, now);
	ck_assert_str_eq(now, ""); /* nothing of all that has changed it */
	c.intact = true;
}
END_TEST

/* ---- other clusters, other timelines -------------------------------------------------------------------------------- */

START_TEST(a_token_of_another_cluster_is_refused)
{
	static struct cluster other;
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	fresh_cluster(&other, "1");
	dbha_session *there = placed_session(open_all(&other, NULL));
	raise_row(there);
	token_of(there, token);
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	ASSERT_CODE(dbha_session_set_token(s, token, &err), FOREIGN, err);
	ASSERT_OK(look(s).code, err);
	ASSERT_CODE(look_with(h, token, 5000).code, FOREIGN, err);
	/* Before the cluster has been looked at, it cannot be known. */
	dbha *fresh = open_handle(cluster_url(&c, NULL, NULL));
	ASSERT_CODE(look_with(fresh, token, 5000).code, FOREIGN, err);
	fresh = open_handle(cluster_url(&c, NULL, NULL));
	s = open_session(fresh);
	int code = dbha_session_set_token(s, token, &err);
	ck_assert(code == DBHA_OK || code == DBHA_ERR_FOREIGN);
	if (code == DBHA_OK) {
		struct look l = look(s);
		ASSERT_CODE(l.code, FOREIGN, l.err);
	}
	cluster_destroy(&other);
	c.intact = true;
}
END_TEST

/*
 * Node 2 is promoted while node 1 lives, and one handle knows node 2 alone: its token is of a timeline that the other handle, which knows
 * nodes 1 and 3, has never seen. Nobody there can say whether what is behind it was replayed.
 */
START_TEST(a_token_of_a_timeline_that_nobody_has_seen_is_no_answer)
{
	char hosts[80], token[DBHA_TOKEN_MAX];
	dbha_error err;
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d", cluster_port(&c, 1), cluster_port(&c, 3));
	dbha *old = open_hosts(&c, hosts, NULL);
	ASSERT_OK(dbha_wait(old, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	promote(&c, 2);
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d", cluster_port(&c, 2));
	dbha *new = open_hosts(&c, hosts, NULL);
	dbha_session *s = placed_session(new);
	raise_row(s);
	token_of(s, token);
	struct look l = look_with(old, token, 700);
	ck_assert_int_ne(l.code, DBHA_OK);
	ck_assert_int_ge(l.took_ms, 500);
	ck_assert_int_le(l.took_ms, 700 + SLACK_MS);
	printf("# %s: %s\n", dbha_code_name(l.code), l.err.message);
	ASSERT_HAS(l.err.message, "timeline 2");
	ck_assert(l.err.retry_safe);
	l = look_with(old, NULL, 5000);
	ASSERT_OK(l.code, l.err);
	/* Its own session as well; without the token the handle goes on. */
	dbha_session *t = open_session(old);
	ASSERT_OK(dbha_session_set_token(t, token, &err), err);
	l = look_within(t, DBHA_CONSISTENCY_DEFAULT, 500);
	ck_assert_int_ne(l.code, DBHA_OK);
	ASSERT_HAS(l.err.message, "timeline 2");
	ASSERT_OK(look_within(t, DBHA_CONSISTENCY_EVENTUAL, 5000).code, err);
	handles_close();
	cluster_do(&c, "kill 2");
	cluster_do(&c, "rejoin 2 1");
	c.intact = true;
}
END_TEST

/* ---- without a primary ---------------------------------------------------------------------------------------------- */

START_TEST(without_a_primary_a_standby_that_has_replayed_it_serves)
{
	char token[DBHA_TOKEN_MAX], later[DBHA_TOKEN_MAX];
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *a = placed_session(h), *b = placed_session(h);
	long n = raise_row(a);
	token_of(a, token);
	ck_assert_int_eq(look(a).n, n);
	cluster_all_catch_up(&c);
	hold_both();
	raise_row(b);
	token_of(b, later);
	cluster_do(&c, "kill 1");
	struct look l = look_with(h, token, 10000);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
	l = look(a);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n);
	ck_assert_int_eq(l.route.role, DBHA_ROLE_STANDBY);
	/* What no standby has replayed is waited for, and comes. */
	l = look_with(h, later, 600);
	ASSERT_CODE(l.code, NO_NODE, l.err);
	ck_assert_int_ge(l.took_ms, 500);
	ck_assert_int_le(l.took_ms, 600 + SLACK_MS);
	go_on_both();
	l = look_with(h, later, 15000);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n + 1);
	l = look(b);
	ASSERT_OK(l.code, l.err);
	ck_assert_int_eq(l.n, n + 1);
	cluster_do(&c, "start 1");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	c.intact = true;
}
END_TEST

/* A session that never read knows no position, and the server that could have told it is gone: it must not guess. */
START_TEST(a_write_whose_position_nobody_can_tell_is_not_guessed)
{
	dbha_error err;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = open_session(h);
	hold_both();
	long n = raise_row(s);
	cluster_do(&c, "kill 1");
	struct look l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 600);
	ck_assert_msg(l.code != DBHA_OK, "shows %ld after %ld: %s", l.n, n, dbha_reason_name(l.route.reason));
	ck_assert_int_le(l.took_ms, 600 + SLACK_MS);
	ASSERT_OK(look_within(s, DBHA_CONSISTENCY_EVENTUAL, 5000).code, err);
	cluster_do(&c, "start 1");
	go_on_both();
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ASSERT_LOOK(look(s), n, UNPLACED, PRIMARY);
	c.intact = true;
}
END_TEST

/* ---- surroundings --------------------------------------------------------------------------------------------------- */

START_TEST(without_a_thread_it_is_the_same)
{
	char token[DBHA_TOKEN_MAX];
	dbha *h = open_all(&c, "monitor=off"), *other = open_handle(cluster_url(&c, NULL, "monitor=off"));
	dbha_session *s = placed_session(h);
	hold_both();
	long n = raise_row(s);
	ASSERT_LOOK(look(s), n, BEHIND, PRIMARY);
	token_of(s, token);
	ASSERT_LOOK(look_with(other, token, 20000), n, BEHIND, PRIMARY);
	go_on_both();
	ck_assert_int_eq(by_standby(s), n);
	c.intact = true;
}
END_TEST

#ifndef __SANITIZE_THREAD__ /* it cannot bear threads in a forked child */

static int in_child(dbha_session *s, dbha *h, const char *token, long n)
{
	struct look l = look_with(h, token, 15000);
	if (l.code != DBHA_OK || l.n != n)
		return 1;
	l = look_within(s, DBHA_CONSISTENCY_DEFAULT, 15000);
	if (l.code != DBHA_OK || l.n != n)
		return 2;
	return l.route.role == DBHA_ROLE_PRIMARY ? 0 : 3;
}

START_TEST(a_child_knows_what_the_parent_knew)
{
	char token[DBHA_TOKEN_MAX];
	int status;
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	hold_both();
	long n = raise_row(s);
	token_of(s, token);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(c.keeper_fd);
		_exit(in_child(s, h, token, n));
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	ck_assert_int_eq(WEXITSTATUS(status), 0);
	ck_assert_int_eq(look(s).n, n);
	go_on_both();
	c.intact = true;
}
END_TEST

#endif

/*
 * Without the right to read pg_stat_wal_receiver a standby's timeline is known late. That must cost reads on standbys and nothing else.
 * The failover loses nothing: both standbys had everything.
 */
START_TEST(a_role_that_may_not_see_everything_stays_right_after_a_failover)
{
	dbha_error err;
	cluster_ask(&c, 1, "REVOKE pg_read_all_stats FROM app");
	dbha *h = open_all(&c, NULL);
	dbha_session *s = placed_session(h);
	long n = raise_row(s);
	cluster_all_catch_up(&c);
	cluster_do(&c, "kill 1");
	promote(&c, 2);
	cluster_do(&c, "follow 3 2");
	ck_assert_int_eq(look(s).n, n);
	for (int i = 0; i < 100; i++) {
		if (i == 30)
			hold_replay(&c, 3);
		if (i == 60)
			go_on_replay(&c, 3);
		n = raise_row(s);
		for (int k = 0; k < 3; k++)
			ck_assert_int_eq(look(s).n, n);
	}
	dbha_event event;
	ck_assert(!event_within(h, DBHA_EVENT_LOST_WRITES, 0, &event));
	cluster_do(&c, "rejoin 1 2");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	ck_assert_int_eq(look(s).n, n);
	/* Once a standby has written down on which timeline it is, it serves again. */
	cluster_ask(&c, 2, "CHECKPOINT");
	n = raise_row(s);
	ck_assert_int_eq(by_standby(s), n);
	c.intact = true;
}
END_TEST

static void mended(void)
{
	cluster_destroy(&c);
}

int main(void)
{
	Suite *suite = suite_create("token");
	ADD_TEST(suite, what_the_giver_saw_the_taker_sees, made, NULL, 60);
	ADD_TEST(suite, who_has_done_nothing_has_an_empty_token_and_an_empty_one_changes_nothing, made, NULL, 30);
	ADD_TEST(suite, reads_and_early_writes_are_on_the_token, made, NULL, 60);
	ADD_TEST(suite, an_older_token_takes_nothing_back, made, NULL, 60);
	ADD_TEST(suite, a_damaged_token_is_refused, made, NULL, 60);
	ADD_TEST(suite, a_token_of_another_cluster_is_refused, made, NULL, 60);
	ADD_TEST(suite, without_a_thread_it_is_the_same, made, NULL, 60);
#ifndef __SANITIZE_THREAD__
	ADD_TEST(suite, a_child_knows_what_the_parent_knew, made, NULL, 60);
#endif
	ADD_TEST(suite, without_a_primary_a_standby_that_has_replayed_it_serves, made, NULL, 90);
	ADD_TEST(suite, a_write_whose_position_nobody_can_tell_is_not_guessed, made, NULL, 90);
	ADD_TEST(suite, a_token_of_a_timeline_that_nobody_has_seen_is_no_answer, made, NULL, 90);
	ADD_TEST(suite, a_role_that_may_not_see_everything_stays_right_after_a_failover, made, mended, 90);
	return run_suite(suite, &c);
}
