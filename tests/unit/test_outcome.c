/*
 * test_outcome: what became of a transaction, as far as its mark, the primary that is asked and what was seen of the cluster tell. Looks
 * at nodes go into a view, as they do in the library, and the rule is asked about marks of each life that the view has seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "history.h"
#include "mark.h"
#include "outcome.h"
#include "outcome_table.h"
#include "topology.h"
#include "unit.h"

#define STEPS_MAX 12
#define MS        ((int64_t)1000)

enum look_kind {
	END,
	PRIMARY,
	STANDBY,
	DIALED_PRIMARY, /* over a new connection: whether the server is in the same life it does not prove */
	DIALED_STANDBY,
	FAILS,
};

/* One look at a node. started: in its own life; replay and lsn as the server tells them. */
struct look {
	enum look_kind kind;
	int node;
	uint32_t timeline;
	int64_t started;
	uint64_t replay;
	uint64_t lsn;
	enum failure failure;
	int64_t after_ms; /* since the look before; 0: 10 */
};

struct mark_case {
	const char *name;
	struct look looks[STEPS_MAX];
	/* The transaction's: timeline, started, replay, lsn. */
	uint32_t timeline;
	int64_t started;
	uint64_t replay;
	uint64_t lsn;
	struct incarnation asked;
	enum outcome_rule expected;
};

#define SEEN(what, n, tl, since, recovered, position)                                                                  \
	{                                                                                                                  \
		.kind = (what), .node = (n), .timeline = (tl), .started = (since), .replay = (recovered), .lsn = (position)    \
	}
#define A_LIVES SEEN(PRIMARY, 0, 1, 100, 0, 500), SEEN(STANDBY, 1, 1, 200, 0, 500), SEEN(STANDBY, 2, 1, 300, 0, 500)
#define LOST(n)                                                                                                        \
	{                                                                                                                  \
		FAILS, n, .failure = FAILURE_LOST                                                                              \
	}
#define REFUSES(n)                                                                                                     \
	{                                                                                                                  \
		FAILS, n, .failure = FAILURE_UNREACHABLE                                                                       \
	}
#define STARTS(n)                                                                                                      \
	{                                                                                                                  \
		FAILS, n, .failure = FAILURE_STARTING                                                                          \
	}
#define IN_A(position) .timeline = 1, .started = 100, .replay = 0, .lsn = (position)

static const struct mark_case cases[] = {
    /* ---- the same life ---- */
    {"the same life", {A_LIVES}, IN_A(600), {1, 100, 0}, OUTCOME_ASK},
    {"the same life, of which nothing was seen", {{.kind = END}}, IN_A(600), {1, 100, 0}, OUTCOME_ASK},

    /* ---- a promotion that was watched ---- */
    {"promoted, replicated",
     {A_LIVES, LOST(0), REFUSES(0), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(900),
     {2, 200, 900},
     OUTCOME_ASK},
    {"promoted, not replicated",
     {A_LIVES, LOST(0), REFUSES(0), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(901),
     {2, 200, 900},
     OUTCOME_NOT_COMMITTED},
    {"promoted, not replicated, and nothing was seen",
     {{.kind = END}},
     IN_A(901),
     {2, 200, 900},
     OUTCOME_NOT_COMMITTED},
    {"promoted, replicated, but nothing was seen", {{.kind = END}}, IN_A(800), {2, 200, 900}, OUTCOME_DOUBT},
    {"promoted while the old primary lives on",
     {A_LIVES, SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(900),
     {2, 200, 900},
     OUTCOME_ASK},
    {"promoted while the old primary is silent",
     {A_LIVES, {.kind = FAILS, .node = 0, .failure = FAILURE_SILENT}, SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(900),
     {2, 200, 900},
     OUTCOME_ASK},

    /* ---- promotions of which something was not seen ---- */
    {"the connection to the standby was lost: it may have crashed since its promotion",
     {A_LIVES, LOST(0), LOST(1), SEEN(DIALED_PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(800),
     {2, 200, 900},
     OUTCOME_DOUBT},
    {"a new connection was the first to see it",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 1, 2, 200, 900, 950), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(800),
     {2, 200, 900},
     OUTCOME_DOUBT},
    {"the connection was lost and a new one saw the standby again",
     {A_LIVES, LOST(0), LOST(1), SEEN(DIALED_STANDBY, 1, 1, 200, 0, 880), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(900),
     {2, 200, 900},
     OUTCOME_ASK},
    {"the standby restarted before its promotion and was not seen since",
     {A_LIVES, LOST(0), LOST(1), SEEN(DIALED_PRIMARY, 1, 2, 222, 900, 950)},
     IN_A(800),
     {2, 222, 900},
     OUTCOME_DOUBT},
    {"the old primary was seen to start again: others may have written there",
     {A_LIVES, LOST(0), STARTS(0), REFUSES(0), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(800),
     {2, 200, 900},
     OUTCOME_DOUBT},
    {"the same, but the first write had been flushed by then",
     {A_LIVES, LOST(0), STARTS(0), REFUSES(0), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(500),
     {2, 200, 900},
     OUTCOME_ASK},
    {"the same, but behind the switch point",
     {A_LIVES, LOST(0), STARTS(0), REFUSES(0), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(901),
     {2, 200, 900},
     OUTCOME_NOT_COMMITTED},
    {"nobody looked at the old primary for long",
     {A_LIVES,
      {.kind = FAILS, .node = 0, .failure = FAILURE_LOST, .after_ms = 60000},
      SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(800),
     {2, 200, 900},
     OUTCOME_DOUBT},
    {"the old primary had another life when the promotion was seen",
     {A_LIVES, LOST(0), SEEN(DIALED_STANDBY, 0, 1, 111, 0, 900), SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     IN_A(800),
     {2, 200, 900},
     OUTCOME_DOUBT},
    {"the standby says timeline 1, but has become 3: it may have followed 2",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 3, 200, 900, 950)},
     IN_A(800),
     {3, 200, 900},
     OUTCOME_DOUBT},
    {"what is behind its position is not there all the same",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 3, 200, 900, 950)},
     IN_A(901),
     {3, 200, 900},
     OUTCOME_NOT_COMMITTED},

    /* ---- the server asked is behind ---- */
    {"a stale primary",
     {A_LIVES, SEEN(PRIMARY, 1, 2, 200, 900, 950)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 960,
     {1, 100, 0},
     OUTCOME_STALE},

    /* ---- two in a row ---- */
    {"two promotions, before both",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), SEEN(STANDBY, 2, 2, 300, 0, 950), LOST(1),
      SEEN(PRIMARY, 2, 3, 300, 990, 999)},
     IN_A(900),
     {3, 300, 990},
     OUTCOME_ASK},
    {"two promotions, lost at the first",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), SEEN(STANDBY, 2, 2, 300, 0, 950), LOST(1),
      SEEN(PRIMARY, 2, 3, 300, 990, 999)},
     IN_A(930),
     {3, 300, 990},
     OUTCOME_NOT_COMMITTED},
    {"two promotions, lost at the second",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), SEEN(STANDBY, 2, 2, 300, 0, 950), LOST(1),
      SEEN(PRIMARY, 2, 3, 300, 990, 999)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 991,
     {3, 300, 990},
     OUTCOME_NOT_COMMITTED},
    {"two promotions, between the two",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), SEEN(STANDBY, 2, 2, 300, 0, 950), LOST(1),
      SEEN(PRIMARY, 2, 3, 300, 990, 999)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 990,
     {3, 300, 990},
     OUTCOME_ASK},
    {"two promotions, the second standby still says 1",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), SEEN(STANDBY, 2, 1, 300, 0, 950), LOST(1),
      SEEN(PRIMARY, 2, 3, 300, 990, 999)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 990,
     {3, 300, 990},
     OUTCOME_DOUBT},

    /* ---- two apart from each other, on one timeline ---- */
    {"the other standby became timeline 2 as well: ours was lost with the first",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), REFUSES(1), SEEN(PRIMARY, 2, 2, 300, 920, 999)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 921,
     {2, 300, 920},
     OUTCOME_NOT_COMMITTED},
    {"the same, and the position does not tell",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), REFUSES(1), SEEN(PRIMARY, 2, 2, 300, 920, 999)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 910,
     {2, 300, 920},
     OUTCOME_DOUBT},
    {"the same, and where the old primary had recovered itself says nothing of it",
     {SEEN(PRIMARY, 0, 1, 100, 50, 500), SEEN(STANDBY, 1, 1, 200, 0, 500), SEEN(STANDBY, 2, 1, 300, 0, 500), LOST(0),
      SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), REFUSES(1), SEEN(PRIMARY, 2, 2, 300, 920, 999)},
     .timeline = 2,
     .started = 200,
     .replay = 900,
     .lsn = 910,
     {2, 300, 920},
     OUTCOME_DOUBT},
    {"of the old primary the second had more than the first",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), REFUSES(1), SEEN(PRIMARY, 2, 2, 300, 920, 999)},
     IN_A(910),
     {2, 300, 920},
     OUTCOME_ASK},
    {"who followed timeline 2 followed one of the two",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), REFUSES(1), SEEN(PRIMARY, 2, 2, 300, 920, 999),
      SEEN(DIALED_STANDBY, 0, 2, 111, 0, 950), LOST(2), SEEN(PRIMARY, 0, 3, 111, 990, 999)},
     .timeline = 2,
     .started = 300,
     .replay = 920,
     .lsn = 980,
     {3, 111, 990},
     OUTCOME_DOUBT},

    /* ---- restarts in place ---- */
    {"crashed, not flushed",
     {A_LIVES, LOST(0), STARTS(0), SEEN(DIALED_PRIMARY, 0, 1, 111, 700, 750)},
     IN_A(701),
     {1, 111, 700},
     OUTCOME_NOT_COMMITTED},
    {"crashed, flushed as we know",
     {A_LIVES, LOST(0), STARTS(0), SEEN(DIALED_PRIMARY, 0, 1, 111, 700, 750)},
     IN_A(500),
     {1, 111, 700},
     OUTCOME_ASK},
    {"crashed, and perhaps more than once",
     {A_LIVES, LOST(0), STARTS(0), SEEN(DIALED_PRIMARY, 0, 1, 111, 700, 750)},
     IN_A(501),
     {1, 111, 700},
     OUTCOME_DOUBT},
    {"crashed with the postmaster alive, not flushed",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 100, 700, 750)},
     IN_A(701),
     {1, 100, 700},
     OUTCOME_NOT_COMMITTED},
    {"crashed with the postmaster alive, perhaps more than once",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 100, 700, 750)},
     IN_A(600),
     {1, 100, 700},
     OUTCOME_DOUBT},
    {"crashed twice, lost at the first",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 100, 700, 750), LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 100, 800, 850)},
     IN_A(750),
     {1, 100, 800},
     OUTCOME_NOT_COMMITTED},
    {"crashed twice, written in between, of which nothing was seen",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 100, 700, 750), LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 100, 900, 950)},
     .timeline = 1,
     .started = 100,
     .replay = 800,
     .lsn = 850,
     {1, 100, 900},
     OUTCOME_DOUBT},
    {"the same, as the first of all that is known of that timeline",
     {SEEN(PRIMARY, 0, 2, 100, 300, 350), LOST(0), SEEN(DIALED_PRIMARY, 0, 2, 100, 900, 950)},
     .timeline = 2,
     .started = 100,
     .replay = 500,
     .lsn = 600,
     {2, 100, 900},
     OUTCOME_DOUBT},
    {"restarted cleanly, flushed as we know",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 111, 0, 750)},
     IN_A(500),
     {1, 111, 0},
     OUTCOME_ASK},
    {"restarted cleanly, but a crash before it is possible",
     {A_LIVES, LOST(0), SEEN(DIALED_PRIMARY, 0, 1, 111, 0, 750)},
     IN_A(600),
     {1, 111, 0},
     OUTCOME_DOUBT},
    {"restarted cleanly, and nothing was seen", {{.kind = END}}, IN_A(10), {1, 111, 0}, OUTCOME_DOUBT},

    /* ---- promoted, and restarted since ---- */
    {"promoted, seen, restarted cleanly: replicated",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), SEEN(DIALED_PRIMARY, 1, 2, 222, 0, 999)},
     IN_A(900),
     {2, 222, 0},
     OUTCOME_ASK},
    {"promoted, seen, restarted cleanly: not replicated",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), SEEN(DIALED_PRIMARY, 1, 2, 222, 0, 999)},
     IN_A(901),
     {2, 222, 0},
     OUTCOME_NOT_COMMITTED},
    {"promoted, seen, crashed: not replicated, but before the end of the crash recovery",
     {A_LIVES, LOST(0), SEEN(PRIMARY, 1, 2, 200, 900, 950), LOST(1), SEEN(DIALED_PRIMARY, 1, 2, 222, 980, 999)},
     IN_A(960),
     {2, 222, 980},
     OUTCOME_NOT_COMMITTED},
    {"promoted, not seen, restarted cleanly",
     {SEEN(DIALED_PRIMARY, 1, 2, 222, 0, 999)},
     IN_A(901),
     {2, 222, 0},
     OUTCOME_DOUBT},
    {"promoted, not seen, crashed: the position is not the switch point",
     {SEEN(DIALED_PRIMARY, 1, 2, 222, 980, 999)},
     IN_A(960),
     {2, 222, 980},
     OUTCOME_DOUBT},

    /* ---- what may not be read ---- */
    {"the timeline may not be read", {A_LIVES}, IN_A(600), {0, 100, 0}, OUTCOME_STALE},
};

static void apply(struct view *view, const struct look *look, int64_t *now)
{
	struct topology_events events = {0};
	bool standby = look->kind == STANDBY || look->kind == DIALED_STANDBY;
	*now += (look->after_ms ? look->after_ms : 10) * MS;
	struct observation o = {
	    .node = look->node,
	    .at_us = *now,
	    .failure = look->kind == FAILS ? look->failure : FAILURE_NONE,
	    .kept = look->kind == PRIMARY || look->kind == STANDBY,
	    .in_recovery = standby,
	    .system_identifier = 7001,
	    .timeline = look->timeline,
	    .lsn = look->lsn,
	    .replay_lsn = standby ? 0 : look->replay,
	    .started_us = look->started,
	    .latency_us = 100,
	};
	dbha__topology_apply(view, &o, 3, &events);
}

static void look_at(struct view *view, const struct look *looks)
{
	int64_t now = 1000000;
	dbha__topology_init(view, 3);
	/* Settled before the first look of the case: the nodes that nobody has looked at are down. */
	for (int i = 0; i < 3; i++)
		apply(view, &(struct look){.kind = FAILS, .node = i, .failure = FAILURE_UNREACHABLE}, &now);
	for (int i = 0; i < 3; i++)
		view->nodes[i].unwatched = false;
	for (int i = 0; i < STEPS_MAX && looks[i].kind != END; i++)
		apply(view, &looks[i], &now);
}

START_TEST(a_case_is_decided)
{
	const struct mark_case *c = &cases[_i];
	struct view view;
	char why[240];
	look_at(&view, c->looks);
	struct xact_mark mark = {730, c->lsn, c->timeline, c->started, c->replay, 4711};
	enum outcome_rule rule = dbha__outcome_rule(&mark, &c->asked, &view.history, why, sizeof why);
	ck_assert_msg(rule == c->expected, "%s: %d, not %d (%s)", c->name, rule, c->expected, why);
	ck_assert_msg((rule == OUTCOME_ASK) == !why[0], "%s: \"%s\"", c->name, why);
	ck_assert_int_eq(dbha__outcome_rule(&mark, &c->asked, &view.history, NULL, 0), rule);
}
END_TEST

START_TEST(another_cluster_has_another_history)
{
	struct view view;
	struct topology_events events = {0};
	look_at(&view, (struct look[STEPS_MAX]){A_LIVES});
	ck_assert_int_eq(view.history.n, 1);
	dbha__topology_remember(&view, 9009, 5, &events);
	ck_assert_int_eq(view.history.n, 0);
}
END_TEST

/* ---- the history alone ------------------------------------------------------------------------------------------ */

START_TEST(the_oldest_lives_are_forgotten)
{
	struct history history = {0};
	for (int i = 1; i <= 3 * HISTORY_MAX; i++) {
		struct sighting seen = {.is = {7, 100, (uint64_t)i * 10}, .flushed_lsn = (uint64_t)i * 10 + 5, .node = 1};
		dbha__history_see(&history, &seen);
		dbha__history_see(&history, &seen);
	}
	ck_assert_int_eq(history.n, HISTORY_MAX);
	struct xact_mark old = {730, 30, 7, 100, 20, 1}, known = {730, 400, 7, 100, 400, 1};
	const struct incarnation *now = &history.list[HISTORY_MAX - 1].is;
	ck_assert_int_eq(dbha__outcome_rule(&old, now, &history, NULL, 0), OUTCOME_DOUBT);
	ck_assert_int_eq(dbha__outcome_rule(&known, now, &history, NULL, 0), OUTCOME_ASK);
	known.lsn = 411;
	ck_assert_int_eq(dbha__outcome_rule(&known, now, &history, NULL, 0), OUTCOME_NOT_COMMITTED);
	/* Every link leads to an entry that is there, or is seen to lead nowhere. */
	for (int i = 1; i < HISTORY_MAX; i++)
		ck_assert_int_eq(history.list[i].back, 1);
}
END_TEST

START_TEST(lives_that_cannot_be_told_apart_are_not_kept)
{
	struct history history = {0};
	dbha__history_see(&history, &(struct sighting){.is = {0, 100, 10}, .flushed_lsn = 20, .node = 0});
	dbha__history_see(&history, &(struct sighting){.is = {1, 0, 10}, .flushed_lsn = 20, .node = 0});
	ck_assert_int_eq(history.n, 0);
}
END_TEST

START_TEST(a_flushed_position_only_grows)
{
	struct history history = {0};
	dbha__history_see(&history, &(struct sighting){.is = {1, 100, 10}, .flushed_lsn = 20, .node = 0});
	dbha__history_see(&history, &(struct sighting){.is = {1, 100, 10}, .flushed_lsn = 15, .node = 0});
	ck_assert_uint_eq(history.list[0].flushed_lsn, 20);
	dbha__history_see(&history, &(struct sighting){.is = {1, 100, 10}, .flushed_lsn = 25, .node = 0});
	ck_assert_uint_eq(history.list[0].flushed_lsn, 25);
	ck_assert_int_eq(history.n, 1);
}
END_TEST

/* The position lies below what was flushed before: no recovery of that server can have ended there. */
START_TEST(another_server_at_the_same_place_is_no_restart)
{
	struct history history = {0};
	dbha__history_see(&history, &(struct sighting){.is = {2, 100, 10}, .flushed_lsn = 500, .node = 1});
	dbha__history_see(&history, &(struct sighting){.is = {2, 200, 300}, .flushed_lsn = 310, .node = 1});
	dbha__history_see(&history, &(struct sighting){.is = {2, 300, 320}, .flushed_lsn = 330, .node = 2});
	ck_assert_int_eq(history.list[1].back, 0);
	ck_assert_int_eq(history.list[2].back, 0);
}
END_TEST

/* ---- marks ------------------------------------------------------------------------------------------------------ */

#define N_COLUMNS 6

static PGresult *row_of(const char *const *values, int n)
{
	PGresult *result = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	PGresAttDesc columns[N_COLUMNS + 1];
	static char name[] = "c";
	memset(columns, 0, sizeof columns);
	for (int i = 0; i < n; i++)
		columns[i].name = name;
	ck_assert(PQsetResultAttrs(result, n, columns));
	for (int i = 0; i < n; i++)
		ck_assert(PQsetvalue(result, 0, i, (char *)values[i], values[i] ? (int)strlen(values[i]) : -1));
	return result;
}

struct mark_text {
	const char *values[N_COLUMNS];
	bool good;
};

static const struct mark_text mark_texts[] = {
    {{"730", "16/B374D848", "000000020000001600000000", "1790000000000001", "16/B3000000", "4711"}, true},
    {{"730", "16/B374D848", "000000020000001600000000", "1790000000000001", NULL, "4711"}, true},
    {{"18446744073709551615", "FFFFFFFF/FFFFFFFF", "FFFFFFFF0000000000000000", "9223372036854775807", "0/1",
      "2147483647"},
     true},
    {{NULL, "16/B374D848", "000000020000001600000000", "1790000000000001", NULL, "4711"}, false}, /* nothing written */
    {{"0", "16/B374D848", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"18446744073709551616", "1/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"-5", "1/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"7x", "1/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"", "1/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", NULL, NULL, "1", NULL, "4711"}, false}, /* a standby */
    {{"730", "1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", "0/0", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", "1/", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", "/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", "1/1/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", "123456789/1", "000000020000001600000000", "1", NULL, "4711"}, false},
    {{"730", "1/1", "00000002", "1", NULL, "4711"}, false},
    {{"730", "1/1", "000000000000001600000000", "1", NULL, "4711"}, false}, /* no timeline 0 */
    {{"730", "1/1", "00000002.history", "1", NULL, "4711"}, false},
    {{"730", "1/1", "000000020000001600000000", "9223372036854775808", NULL, "4711"}, false},
    {{"730", "1/1", "000000020000001600000000", "1", "x", "4711"}, false},
    {{"730", "1/1", "000000020000001600000000", "1", NULL, "2147483648"}, false},
    {{"730", "1/1", "000000020000001600000000", "1", NULL, NULL}, false},
};

START_TEST(a_mark_is_read_or_refused)
{
	const struct mark_text *text = &mark_texts[_i];
	struct xact_mark mark, before;
	memset(&mark, 0xff, sizeof mark);
	before = mark;
	PGresult *result = row_of(text->values, N_COLUMNS);
	ck_assert_int_eq(dbha__mark_read(result, &mark), text->good);
	if (!text->good)
		ck_assert(mark.xid == before.xid && mark.lsn == before.lsn && mark.timeline == before.timeline &&
		          mark.started_us == before.started_us && mark.replay_lsn == before.replay_lsn &&
		          mark.pid == before.pid);
	PQclear(result);
}
END_TEST

START_TEST(a_mark_is_read_whole)
{
	struct xact_mark mark;
	PGresult *result = row_of(mark_texts[0].values, N_COLUMNS);
	ck_assert(dbha__mark_read(result, &mark));
	ck_assert_uint_eq(mark.xid, 730);
	ck_assert_uint_eq(mark.lsn, 0x16b374d848);
	ck_assert_uint_eq(mark.timeline, 2);
	ck_assert_int_eq(mark.started_us, 1790000000000001);
	ck_assert_uint_eq(mark.replay_lsn, 0x16b3000000);
	ck_assert_int_eq(mark.pid, 4711);
	PQclear(result);
}
END_TEST

START_TEST(what_is_no_mark_is_refused)
{
	struct xact_mark mark;
	static const char *const values[N_COLUMNS + 1] = {"1", "1/1", "000000020000001600000000", "1", "1/1", "1", "1"};
	PGresult *wide = row_of(values, N_COLUMNS + 1), *narrow = row_of(values, 1);
	PGresult *error = PQmakeEmptyPGresult(NULL, PGRES_FATAL_ERROR), *empty = PQmakeEmptyPGresult(NULL, PGRES_TUPLES_OK);
	ck_assert(!dbha__mark_read(wide, &mark));
	ck_assert(!dbha__mark_read(narrow, &mark));
	ck_assert(!dbha__mark_read(error, &mark));
	ck_assert(!dbha__mark_read(empty, &mark));
	ck_assert(!dbha__mark_read(NULL, &mark));
	PQclear(wide);
	PQclear(narrow);
	PQclear(error);
	PQclear(empty);
}
END_TEST

/* ---- the outcome table ------------------------------------------------------------------------------------------ */

START_TEST(the_name_of_the_table_is_quoted)
{
	static const char *const names[][2] = {
	    {"outcomes", "\"outcomes\""},
	    {"app.Outcomes", "\"app\".\"Outcomes\""},
	    {"a\"; DROP TABLE b; --", "\"a\"\"; DROP TABLE b; --\""},
	    {"\"\"", "\"\"\"\"\"\""},
	    {"", ""},
	    {".", ""},
	    {"a.", ""},
	    {".a", ""},
	    {"a.b.c", ""},
	    {"a\tb", ""},
	};
	char quoted[OUTCOME_TABLE_MAX];
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		ck_assert_int_eq(dbha__outcome_table_quote(names[i][0], quoted), names[i][1][0] != '\0');
		ck_assert_str_eq(quoted, names[i][1]);
	}
}
END_TEST

/* The longest name, all of quotes, fits into the texts to its last byte. */
START_TEST(the_longest_name_fits)
{
	char name[2 * OUTCOME_NAME_BYTES + 2], quoted[OUTCOME_TABLE_MAX], sql[OUTCOME_SQL_MAX];
	memset(name, '"', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	ck_assert(!dbha__outcome_table_quote(name, quoted));
	name[OUTCOME_NAME_BYTES] = '.';
	ck_assert(dbha__outcome_table_quote(name, quoted));
	ck_assert_uint_eq(strlen(quoted), OUTCOME_TABLE_MAX - 1);
	dbha__outcome_table_insert(name, sql);
	ck_assert_ptr_nonnull(strstr(sql, "($1::pg_catalog.uuid)"));
	dbha__outcome_table_look_up(name, sql);
	ck_assert_ptr_nonnull(strstr(sql, "= $1::pg_catalog.uuid"));
}
END_TEST

START_TEST(a_token_is_a_uuid)
{
	char token[OUTCOME_TOKEN_MAX];
	dbha__outcome_token(0xf, UINT64_MAX, token);
	ck_assert_str_eq(token, "000000000000000fffffffffffffffff");
}
END_TEST

static Suite *outcome_suite(void)
{
	TCase *tcase = tcase_create("outcome");
	tcase_add_loop_test(tcase, a_case_is_decided, 0, sizeof cases / sizeof cases[0]);
	tcase_add_test(tcase, another_cluster_has_another_history);
	tcase_add_test(tcase, the_oldest_lives_are_forgotten);
	tcase_add_test(tcase, lives_that_cannot_be_told_apart_are_not_kept);
	tcase_add_test(tcase, a_flushed_position_only_grows);
	tcase_add_test(tcase, another_server_at_the_same_place_is_no_restart);
	tcase_add_loop_test(tcase, a_mark_is_read_or_refused, 0, sizeof mark_texts / sizeof mark_texts[0]);
	tcase_add_test(tcase, a_mark_is_read_whole);
	tcase_add_test(tcase, what_is_no_mark_is_refused);
	tcase_add_test(tcase, the_name_of_the_table_is_quoted);
	tcase_add_test(tcase, the_longest_name_fits);
	tcase_add_test(tcase, a_token_is_a_uuid);
	Suite *suite = suite_create("outcome");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(outcome_suite)
