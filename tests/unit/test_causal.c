/*
 * policy/token and policy/causal: the text of a token, what a session has to see, and which node has it.
 */
#include <stdio.h>
#include <string.h>

#include "causal.h"
#include "route.h"
#include "unit.h"

/* ---- tokens ------------------------------------------------------------------------------------------------ */

START_TEST(a_token_comes_back_as_it_went)
{
	static const struct token tokens[] = {
	    {7318273645342341234u, 2, 0x16B374D848u}, {0, 1, 0}, {UINT64_MAX, UINT32_MAX, UINT64_MAX}, {1, 1, 1}};
	for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
		char text[DBHA_TOKEN_MAX];
		struct token read = {0};
		dbha__token_print(&tokens[i], text);
		ck_assert_msg(strspn(text, "0123456789abcdefABCDEF.") == strlen(text), "%s", text);
		ck_assert_msg(dbha__token_read(text, &read), "%s", text);
		ck_assert(read.system_identifier == tokens[i].system_identifier && read.timeline == tokens[i].timeline &&
		          read.lsn == tokens[i].lsn);
	}
}
END_TEST

START_TEST(what_is_no_token_is_refused)
{
	static const struct token token = {7318273645342341234u, 2, 0x16B374D848u};
	char text[DBHA_TOKEN_MAX], damaged[DBHA_TOKEN_MAX + 8];
	struct token read = {1, 1, 1};
	dbha__token_print(&token, text);
	/* Every shorter one, and every one with another character somewhere. */
	for (size_t n = 0; n < strlen(text); n++) {
		snprintf(damaged, sizeof damaged, "%.*s", (int)n, text);
		ck_assert_msg(!dbha__token_read(damaged, &read), "%s", damaged);
		for (const char *c = "0127a.-+ %"; *c; c++) {
			snprintf(damaged, sizeof damaged, "%s", text);
			damaged[n] = *c;
			ck_assert_msg(*c == text[n] || !dbha__token_read(damaged, &read), "%s", damaged);
		}
	}
	snprintf(damaged, sizeof damaged, "%s0", text);
	ck_assert(!dbha__token_read(damaged, &read));
	ck_assert(!dbha__token_read(NULL, &read));
	ck_assert(!dbha__token_read("1.99999999999999999999.1.1.0000", &read));
	ck_assert(!dbha__token_read("1.1.4294967296.1.0000", &read));
	ck_assert_int_eq(read.timeline, 1);
}
END_TEST

/* ---- what a session needs ---------------------------------------------------------------------------------- */

#define SECOND ((int64_t)1000000)

/* A primary (0) and two standbys, all seen at 10 s after asking for 1 ms; the primary stands at 1000, standby 1 at 900, 2 at 800. */
static struct view three_nodes(void)
{
	static const uint64_t lsn[] = {1000, 900, 800};
	struct view view;
	dbha__topology_init(&view, 3);
	view.settled = true;
	view.timeline = 1;
	view.system_identifier = 5;
	view.primary = 0;
	for (int i = 0; i < 3; i++) {
		struct node_view *node = &view.nodes[i];
		node->role = i ? DBHA_ROLE_STANDBY : DBHA_ROLE_PRIMARY;
		node->state = DBHA_STATE_UP;
		node->timeline = 1;
		node->generation = 1;
		node->lsn = lsn[i];
		node->seen_us = 10 * SECOND;
		node->latency_us = 1000;
		node->lag_ms = 0;
	}
	return view;
}

static struct causal with_floor(uint64_t lsn)
{
	return (struct causal){.floor = {.timeline = 1, .lsn = lsn}};
}

/* Where a read of the session goes, asked a few times for all choices there are: "1", "12", "0!" (the primary), "2?" (with a guard). */
static const char *where(const struct view *view, const struct causal *causal, const struct route_query *like)
{
	static char text[16];
	bool at[3] = {false};
	struct route_query query = *like;
	struct route route = {0};
	query.intent = DBHA_READ;
	query.causal = causal;
	for (uint64_t i = 0; i < 64; i++) {
		query.random = i * 0x9e3779b97f4a7c15u;
		route = dbha__route(view, &query);
		if (route.end != ROUTE_NODE)
			return route.end == ROUTE_WAIT ? "wait" : route.end == ROUTE_OTHER_TOKEN ? "other" : "no";
		at[route.node] = true;
	}
	size_t used = 0;
	for (int i = 0; i < 3; i++)
		if (at[i])
			text[used++] = (char)('0' + i);
	text[used] = '\0';
	strcat(text, at[0] ? "!" : route.guard ? "?" : "");
	return text;
}

static const struct route_query plain;

START_TEST(a_floor_leaves_those_who_have_it)
{
	struct view view = three_nodes();
	struct causal none = {0};
	ck_assert_str_eq(where(&view, &none, &plain), "12");
	struct causal low = with_floor(800), middle = with_floor(801), high = with_floor(901);
	ck_assert_str_eq(where(&view, &low, &plain), "12");
	ck_assert_str_eq(where(&view, &middle, &plain), "1");
	/* Nobody is known to have it: one is asked, and then the primary. */
	ck_assert_str_eq(where(&view, &high, &plain), "12?");
	struct route_query asked = {.behind = 1u << 1};
	ck_assert_str_eq(where(&view, &high, &asked), "2?");
	asked.behind |= 1u << 2;
	ck_assert_str_eq(where(&view, &high, &asked), "0!");
	/* Without one, those who were asked are asked again. */
	view.primary = -1;
	view.nodes[0].state = DBHA_STATE_DOWN;
	ck_assert_str_eq(where(&view, &high, &asked), "12?");
}
END_TEST

/* It has crashed since it was seen, and has come back with less: what it says itself counts. */
START_TEST(who_has_said_that_it_has_less_than_is_known_is_not_asked_again)
{
	struct view view = three_nodes();
	struct causal middle = with_floor(801);
	struct route_query asked = {.behind = 1u << 1};
	ck_assert_str_eq(where(&view, &middle, &plain), "1");
	ck_assert_str_eq(where(&view, &middle, &asked), "2?");
	asked.behind |= 1u << 2;
	ck_assert_str_eq(where(&view, &middle, &asked), "0!");
	view.primary = -1;
	view.nodes[0].state = DBHA_STATE_DOWN;
	ck_assert_str_eq(where(&view, &middle, &asked), "1");
}
END_TEST

START_TEST(who_was_far_behind_is_not_asked)
{
	struct view view = three_nodes();
	struct causal high = with_floor(901);
	view.nodes[1].lag_ms = 5000;
	ck_assert_str_eq(where(&view, &high, &plain), "2?");
	view.nodes[2].lag_ms = 5000;
	ck_assert_str_eq(where(&view, &high, &plain), "0!");
}
END_TEST

START_TEST(a_standby_of_an_older_timeline_has_nothing_of_the_newer)
{
	struct view view = three_nodes();
	struct causal causal = with_floor(850);
	view.timeline = view.nodes[0].timeline = causal.floor.timeline = 2;
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	view.nodes[1].timeline = 2;
	ck_assert_str_eq(where(&view, &causal, &plain), "1");
	/* One that nobody has seen yet. */
	causal.floor.timeline = 3;
	ck_assert_str_eq(where(&view, &causal, &plain), "wait");
	view.timeline = 0;
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
}
END_TEST

START_TEST(a_token_of_another_cluster_is_refused)
{
	struct view view = three_nodes();
	struct causal causal = with_floor(1);
	causal.floor.system_identifier = 6;
	ck_assert_str_eq(where(&view, &causal, &plain), "other");
	causal.floor.system_identifier = 5;
	ck_assert_str_eq(where(&view, &causal, &plain), "12");
}
END_TEST

START_TEST(in_a_split_brain_nobody_can_say_who_has_it)
{
	struct view view = three_nodes();
	struct causal causal = with_floor(1), wrote = {.seen = SEEN_PRIMARY}, none = {0};
	view.split_brain = true;
	view.primary = -1;
	ck_assert_str_eq(where(&view, &causal, &plain), "no");
	ck_assert_str_eq(where(&view, &wrote, &plain), "no");
	ck_assert_str_eq(where(&view, &none, &plain), "12");
}
END_TEST

START_TEST(a_session_stays_with_its_standby)
{
	struct view view = three_nodes();
	struct causal causal = with_floor(850);
	dbha__causal_on_standby(&causal, 2, 1, 11 * SECOND);
	ck_assert_str_eq(where(&view, &causal, &plain), "2");
	/* Restarted, or failed in this call: where it was is not known, so it is the primary. */
	view.nodes[2].generation = 2;
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	view.nodes[2].generation = 1;
	struct route_query failed = {.avoid = 1u << 2};
	ck_assert_str_eq(where(&view, &causal, &failed), "0!");
	view.nodes[2].state = DBHA_STATE_SUSPECT;
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	/* Unless the primary was asked since: what it had then is enough. */
	view.nodes[0].seen_us = 12 * SECOND;
	view.nodes[0].lsn = 900;
	ck_assert_str_eq(where(&view, &causal, &plain), "1");
	view.nodes[0].lsn = 901;
	ck_assert_str_eq(where(&view, &causal, &plain), "1?");
	/* Asked for before the read, and answered after it, is not enough. */
	view.nodes[0].latency_us = 2 * SECOND;
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	/* The position of the primary is enough as well, of the statement after. */
	const struct token position = {5, 1, 880};
	ck_assert(!dbha__causal_at(&causal, &position));
	ck_assert_str_eq(where(&view, &causal, &plain), "1");
}
END_TEST

START_TEST(what_was_done_on_the_primary_needs_its_position)
{
	struct view view = three_nodes();
	struct causal causal = {0};
	const struct token position = {5, 1, 1000};
	dbha__causal_on_primary(&causal);
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	/* Not even a look at it since then tells: what is committed may not be flushed yet. */
	view.nodes[0].seen_us = 100 * SECOND;
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	/* A read from a standby in between, of another kind, does not make it known. */
	dbha__causal_on_standby(&causal, 1, 1, 1);
	ck_assert_str_eq(where(&view, &causal, &plain), "0!");
	ck_assert(!dbha__causal_at(&causal, &position));
	ck_assert_str_eq(where(&view, &causal, &plain), "12?");
	/* One short of it has lost something. */
	const struct token less = {5, 1, 999};
	ck_assert(dbha__causal_at(&causal, &less));
	ck_assert(causal.floor.lsn == 999);
}
END_TEST

START_TEST(a_token_is_seen_beside_what_was_seen)
{
	struct causal causal = with_floor(500);
	const struct token less = {5, 1, 400}, more = {5, 1, 600}, newer = {5, 2, 1};
	dbha__causal_on_standby(&causal, 1, 1, 1);
	dbha__causal_see(&causal, &less);
	ck_assert(causal.floor.lsn == 500 && causal.seen == SEEN_STANDBY);
	/* What was seen on the standby is not in the token. */
	dbha__causal_see(&causal, &more);
	ck_assert(causal.floor.lsn == 600 && causal.seen == SEEN_PRIMARY);
	dbha__causal_see(&causal, &newer);
	ck_assert(causal.floor.lsn == 1 && causal.floor.timeline == 2);
}
END_TEST

/* ---- after a failover -------------------------------------------------------------------------------------- */

static void add_life(struct view *view, uint32_t timeline, uint64_t replay_lsn, uint8_t back)
{
	view->history.list[view->history.n++] =
	    (struct history_entry){.is = {timeline, 1000 + view->history.n, replay_lsn}, .back = back};
	view->timeline = timeline;
}

START_TEST(after_a_failover_the_floor_moves_on)
{
	struct view view = three_nodes();
	struct token lost;
	struct causal kept = with_floor(700), gone = with_floor(701);
	add_life(&view, 1, 0, 0);
	add_life(&view, 2, 700, 1);
	ck_assert(!dbha__causal_follow(&kept, &view, &lost));
	ck_assert(kept.floor.timeline == 2 && kept.floor.lsn == 700);
	ck_assert(dbha__causal_follow(&gone, &view, &lost));
	ck_assert(gone.floor.timeline == 2 && gone.floor.lsn == 700 && lost.lsn == 701 && lost.timeline == 1);
	/* Once. */
	ck_assert(!dbha__causal_follow(&gone, &view, &lost));
}
END_TEST

START_TEST(of_several_switches_the_lowest_counts)
{
	struct view view = three_nodes();
	struct token lost;
	struct causal causal = with_floor(650), side = with_floor(650);
	add_life(&view, 1, 0, 0);
	add_life(&view, 2, 600, 1);
	add_life(&view, 3, 900, 1);
	ck_assert(dbha__causal_follow(&causal, &view, &lost));
	ck_assert(causal.floor.timeline == 3 && causal.floor.lsn == 600);
	/* Timeline 3 came out of 1: what 2 was does not matter. */
	view.history.list[2].back = 2;
	ck_assert(!dbha__causal_follow(&side, &view, &lost));
	ck_assert(side.floor.timeline == 3 && side.floor.lsn == 650);
}
END_TEST

START_TEST(while_there_is_no_primary_of_the_new_timeline_nothing_moves)
{
	struct view view = three_nodes();
	struct token lost;
	struct causal causal = with_floor(650);
	add_life(&view, 1, 0, 0);
	view.timeline = 2;
	ck_assert(!dbha__causal_follow(&causal, &view, &lost));
	ck_assert_int_eq(causal.floor.timeline, 1);
	add_life(&view, 2, 600, 1);
	view.primary = -1;
	ck_assert(!dbha__causal_follow(&causal, &view, &lost));
	ck_assert_int_eq(causal.floor.timeline, 1);
}
END_TEST

static Suite *causal_suite(void)
{
	Suite *suite = suite_create("causal");
	TCase *tokens = tcase_create("tokens");
	tcase_add_test(tokens, a_token_comes_back_as_it_went);
	tcase_add_test(tokens, what_is_no_token_is_refused);
	suite_add_tcase(suite, tokens);
	TCase *reads = tcase_create("reads");
	tcase_add_test(reads, a_floor_leaves_those_who_have_it);
	tcase_add_test(reads, who_has_said_that_it_has_less_than_is_known_is_not_asked_again);
	tcase_add_test(reads, who_was_far_behind_is_not_asked);
	tcase_add_test(reads, a_standby_of_an_older_timeline_has_nothing_of_the_newer);
	tcase_add_test(reads, a_token_of_another_cluster_is_refused);
	tcase_add_test(reads, in_a_split_brain_nobody_can_say_who_has_it);
	tcase_add_test(reads, a_session_stays_with_its_standby);
	tcase_add_test(reads, what_was_done_on_the_primary_needs_its_position);
	tcase_add_test(reads, a_token_is_seen_beside_what_was_seen);
	suite_add_tcase(suite, reads);
	TCase *failover = tcase_create("failover");
	tcase_add_test(failover, after_a_failover_the_floor_moves_on);
	tcase_add_test(failover, of_several_switches_the_lowest_counts);
	tcase_add_test(failover, while_there_is_no_primary_of_the_new_timeline_nothing_moves);
	suite_add_tcase(suite, failover);
	return suite;
}

UNIT_MAIN(causal_suite)
