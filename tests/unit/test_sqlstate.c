/*
 * test_sqlstate: what the end of an attempt means: for the statement, the connection, the node, and for trying again.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "sqlstate.h"

struct row {
	enum attempt_end end;
	const char *sqlstate;
	bool answered;
	enum effect effect;
	enum again again;
	bool keep, alarm;
};

#define REFUSED(state, effect, again, keep, alarm)                                                                     \
	{                                                                                                                  \
		ATTEMPT_ERROR, state, false, EFFECT_##effect, AGAIN_##again, keep, alarm                                       \
	}
/* The same after a result had come: only the commit is open. */
#define AFTER_ANSWER(state, effect, again, keep, alarm)                                                                \
	{                                                                                                                  \
		ATTEMPT_ERROR, state, true, EFFECT_##effect, AGAIN_##again, keep, alarm                                        \
	}

/* The connection ended with it. */
#define FATAL(state, answered, effect, again)                                                                          \
	{                                                                                                                  \
		ATTEMPT_FATAL, state, answered, EFFECT_##effect, AGAIN_##again, false, true                                    \
	}

static const struct row rows[] = {
    {ATTEMPT_OK, "", true, EFFECT_NONE, AGAIN_NEVER, true, false},
    {ATTEMPT_NO_CONNECTION, "", false, EFFECT_NONE, AGAIN_ELSEWHERE, false, false},
    {ATTEMPT_NOT_SENT, "", false, EFFECT_NONE, AGAIN_HERE, false, true},
    {ATTEMPT_LOST, "", false, EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true},
    {ATTEMPT_LOST, "", true, EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true},
    {ATTEMPT_TIMEOUT, "", false, EFFECT_UNKNOWN, AGAIN_NEVER, false, true},
    {ATTEMPT_TIMEOUT, "", true, EFFECT_UNKNOWN, AGAIN_NEVER, false, true},
    /* The node is not what it was. */
    REFUSED("25006", NONE, ELSEWHERE, false, true),
    REFUSED("57P03", NONE, ELSEWHERE, false, true),
    REFUSED("53300", NONE, ELSEWHERE, false, false),
    /* Rolled back as a whole. */
    REFUSED("40001", ROLLED_BACK, HERE, true, false),
    REFUSED("40P01", ROLLED_BACK, HERE, true, false),
    REFUSED("57P01", ROLLED_BACK, ELSEWHERE, false, true),
    REFUSED("25P03", ROLLED_BACK, HERE, false, false),
    REFUSED("57014", ROLLED_BACK, NEVER, true, false),
    /* Between statements. */
    REFUSED("57P05", NONE, HERE, false, false),
    REFUSED("26000", NONE, HERE, true, false),
    /* Nobody can say. */
    REFUSED("57P02", UNKNOWN, ELSEWHERE, false, true),
    REFUSED("40003", UNKNOWN, ELSEWHERE, false, true),
    REFUSED("08000", UNKNOWN, ELSEWHERE, false, true),
    REFUSED("08003", UNKNOWN, ELSEWHERE, false, true),
    REFUSED("08006", UNKNOWN, ELSEWHERE, false, true),
    REFUSED("08007", UNKNOWN, ELSEWHERE, false, true),
    /* Ordinary: it would fail again. */
    REFUSED("23505", ROLLED_BACK, NEVER, true, false),
    REFUSED("08P01", ROLLED_BACK, NEVER, true, false), /* a wrong number of parameters */
    REFUSED("42601", ROLLED_BACK, NEVER, true, false),
    REFUSED("42P01", ROLLED_BACK, NEVER, true, false),
    REFUSED("40000", ROLLED_BACK, NEVER, true, false),
    REFUSED("40002", ROLLED_BACK, NEVER, true, false),
    REFUSED("25001", ROLLED_BACK, NEVER, true, false),
    REFUSED("25P02", ROLLED_BACK, NEVER, true, false),
    REFUSED("53100", ROLLED_BACK, NEVER, true, false),
    REFUSED("53200", ROLLED_BACK, NEVER, true, false),
    REFUSED("55P03", ROLLED_BACK, NEVER, true, false),
    REFUSED("0A000", ROLLED_BACK, NEVER, true, false),
    REFUSED("P0001", ROLLED_BACK, NEVER, true, false),
    REFUSED("XX000", ROLLED_BACK, NEVER, true, false),
    REFUSED("00000", ROLLED_BACK, NEVER, true, false),
    REFUSED("", ROLLED_BACK, NEVER, true, false),
    /* Near misses of the rows above: a prefix must not catch them. */
    REFUSED("18006", ROLLED_BACK, NEVER, true, false),
    REFUSED("57P00", ROLLED_BACK, NEVER, true, false),
    REFUSED("25007", ROLLED_BACK, NEVER, true, false),
    /* A commit that fails on a living connection is rolled back. */
    AFTER_ANSWER("23503", ROLLED_BACK, NEVER, true, false),
    AFTER_ANSWER("40001", ROLLED_BACK, HERE, true, false),
    AFTER_ANSWER("40P01", ROLLED_BACK, HERE, true, false),
    AFTER_ANSWER("57014", ROLLED_BACK, NEVER, true, false),
    /* One that ends the connection may have come before or after the commit. */
    AFTER_ANSWER("57P01", UNKNOWN, ELSEWHERE, false, true),
    AFTER_ANSWER("25P03", UNKNOWN, HERE, false, false),
    AFTER_ANSWER("57P02", UNKNOWN, ELSEWHERE, false, true),
    AFTER_ANSWER("08006", UNKNOWN, ELSEWHERE, false, true),
    /* ... and what was answered has begun: "never began" cannot be true. 57P05 even comes only after the commit. */
    AFTER_ANSWER("57P05", UNKNOWN, HERE, false, false),
    AFTER_ANSWER("57P03", UNKNOWN, ELSEWHERE, false, true),
    AFTER_ANSWER("53300", UNKNOWN, ELSEWHERE, false, false),
    FATAL("57P01", false, ROLLED_BACK, ELSEWHERE),
    FATAL("57P01", true, UNKNOWN, ELSEWHERE),
    FATAL("57P02", false, UNKNOWN, ELSEWHERE),
    FATAL("57P03", false, NONE, ELSEWHERE),
    FATAL("57P05", false, NONE, HERE),
    FATAL("08P01", false, UNKNOWN, ELSEWHERE), /* a pooler that lost its server */
    FATAL("08P01", true, UNKNOWN, ELSEWHERE),
    FATAL("25P04", true, UNKNOWN, NEVER),
    FATAL("XX000", true, UNKNOWN, NEVER),
    FATAL("40001", true, UNKNOWN, HERE),
};

START_TEST(an_end_is_judged)
{
	const struct row *row = &rows[_i];
	struct verdict verdict = dbha__sqlstate_judge(row->end, row->sqlstate, row->answered);
	char name[64];
	snprintf(name, sizeof name, "end %d, SQLSTATE \"%s\", answered %d", (int)row->end, row->sqlstate, row->answered);
	ck_assert_msg(verdict.effect == row->effect, "%s: effect %d, expected %d", name, (int)verdict.effect,
	              (int)row->effect);
	/* What cannot be undone or known is for policy/retry to hold back; the table only says whether it could work. */
	ck_assert_msg(verdict.again == row->again, "%s: again %d, expected %d", name, (int)verdict.again, (int)row->again);
	ck_assert_msg(verdict.keep == row->keep, "%s: keep %d", name, verdict.keep);
	ck_assert_msg(verdict.alarm == row->alarm, "%s: alarm %d", name, verdict.alarm);
}
END_TEST

/* Over every class and some of what may stand behind it: only the codes named above are anything but ordinary. */
START_TEST(no_other_code_is_special)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
	static const char *const tails[] = {"000", "001", "003", "006", "P00", "P04", "014", "999"};
	int special = 0;
	for (const char *a = digits; *a; a++) {
		for (const char *b = digits; *b; b++) {
			for (size_t i = 0; i < sizeof tails / sizeof tails[0]; i++) {
				char state[6];
				snprintf(state, sizeof state, "%c%c%s", *a, *b, tails[i]);
				struct verdict verdict = dbha__sqlstate_judge(ATTEMPT_ERROR, state, false);
				special += verdict.effect != EFFECT_ROLLED_BACK || verdict.again != AGAIN_NEVER;
			}
		}
	}
	/* Class 08 with its eight tails, 25006, 26000, 40001, 40003. */
	ck_assert_int_eq(special, 8 + 4);
}
END_TEST

/* A connection is never kept where its session ended, or where an answer to the old statement may still come. */
START_TEST(a_doubtful_connection_is_not_kept)
{
	for (int end = ATTEMPT_OK; end <= ATTEMPT_FATAL; end++)
		if (end != ATTEMPT_OK && end != ATTEMPT_ERROR)
			ck_assert(!dbha__sqlstate_judge((enum attempt_end)end, "", false).keep);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].end == ATTEMPT_ERROR && rows[i].effect == EFFECT_UNKNOWN)
			ck_assert(!dbha__sqlstate_judge(ATTEMPT_ERROR, rows[i].sqlstate, rows[i].answered).keep);
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("sqlstate");
	tcase_add_loop_test(tcase, an_end_is_judged, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, no_other_code_is_special);
	tcase_add_test(tcase, a_doubtful_connection_is_not_kept);
	Suite *suite = suite_create("sqlstate");
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
