/*
 * test_sqlstate: what the end of an attempt means: for the statement, the connection, the node, and for trying again.
 */
#include <stdio.h>

#include "contract.h"
#include "sqlstate.h"
#include "unit.h"

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
#define LAST_WORDS(state, answered, effect, again, alarm)                                                              \
	{                                                                                                                  \
		ATTEMPT_FATAL, state, answered, EFFECT_##effect, AGAIN_##again, false, alarm                                   \
	}

static const struct row rows[] = {
    {ATTEMPT_OK, "", true, EFFECT_NONE, AGAIN_NEVER, true, false},
    {ATTEMPT_NO_CONNECTION, "", false, EFFECT_NONE, AGAIN_ELSEWHERE, false, false},
    {ATTEMPT_NOT_SENT, "", false, EFFECT_NONE, AGAIN_HERE, false, true},
    {ATTEMPT_LOST, "", false, EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true},
    {ATTEMPT_LOST, "", true, EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true},
    {ATTEMPT_TIMEOUT, "", false, EFFECT_UNKNOWN, AGAIN_NEVER, false, true},
    {ATTEMPT_TIMEOUT, "", true, EFFECT_UNKNOWN, AGAIN_NEVER, false, true},
    {ATTEMPT_CANCELLED, "57014", false, EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false},
    {ATTEMPT_CANCELLED, "57014", true, EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false},
    /* The node is not what it was. */
    REFUSED("25006", NONE, ELSEWHERE, false, true),
    LAST_WORDS("57P03", false, NONE, ELSEWHERE, true),
    LAST_WORDS("53300", false, NONE, ELSEWHERE, false),
    /* Rolled back as a whole. */
    REFUSED("40001", ROLLED_BACK, HERE, true, false),
    REFUSED("40P01", ROLLED_BACK, HERE, true, false),
    LAST_WORDS("57P01", false, ROLLED_BACK, ELSEWHERE, true),
    LAST_WORDS("25P03", false, ROLLED_BACK, HERE, false),
    REFUSED("57014", ROLLED_BACK, NEVER, true, false),
    /* Between statements. */
    LAST_WORDS("57P05", false, NONE, HERE, false),
    REFUSED("26000", ROLLED_BACK, NEVER, true, false), /* our own names are mended before it comes to this */
    /* Nobody can say. */
    LAST_WORDS("57P02", false, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("40003", false, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("08000", false, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("08003", false, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("08006", false, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("08007", false, UNKNOWN, ELSEWHERE, true),
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
    LAST_WORDS("57P01", true, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("25P03", true, UNKNOWN, HERE, false),
    LAST_WORDS("57P02", true, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("08006", true, UNKNOWN, ELSEWHERE, true),
    /* ... and what was answered has begun: "never began" cannot be true. 57P05 even comes only after the commit. */
    LAST_WORDS("57P05", true, UNKNOWN, HERE, false),
    LAST_WORDS("57P03", true, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("53300", true, UNKNOWN, ELSEWHERE, false),
    LAST_WORDS("08P01", false, UNKNOWN, ELSEWHERE, true), /* a pooler that lost its server */
    LAST_WORDS("08P01", true, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("25P04", true, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("XX000", true, UNKNOWN, ELSEWHERE, true),
    LAST_WORDS("40001", true, UNKNOWN, ELSEWHERE, true),
    /* On a living connection these come from a foreign server, or out of a RAISE: ordinary errors. */
    REFUSED("08006", ROLLED_BACK, NEVER, true, false),
    REFUSED("53300", ROLLED_BACK, NEVER, true, false),
    REFUSED("57P01", ROLLED_BACK, NEVER, true, false),
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
	/* 25006 and 40001. */
	ck_assert_int_eq(special, 2);
}
END_TEST

/* A connection is never kept where its session ended, or where an answer to the old statement may still come. */
START_TEST(a_doubtful_connection_is_not_kept)
{
	for (int end = ATTEMPT_OK; end <= ATTEMPT_CANCELLED; end++)
		if (end != ATTEMPT_OK && end != ATTEMPT_ERROR && end != ATTEMPT_CANCELLED)
			ck_assert(!dbha__sqlstate_judge((enum attempt_end)end, "", false).keep);
}
END_TEST

/* ---- the contract as tables ---------------------------------------------------------------------------------- */

/* Of PostgreSQL's appendix A. */
static const char *const classes[] = {"00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P",
                                      "0Z", "10", "20", "21", "22", "23", "24", "25", "26", "27", "28",
                                      "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40", "42",
                                      "44", "53", "54", "55", "57", "58", "72", "F0", "HV", "P0", "XX"};

static void check_table(const struct contract_row *table, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		size_t length = strlen(table[i].code);
		ck_assert_msg(length == 5 || length == 2 || (length == 0 && i == n - 1), "row \"%s\"", table[i].code);
		ck_assert_msg(strlen(table[i].why) > 10 && table[i].why[strlen(table[i].why) - 1] == '.', "%s: why",
		              table[i].code);
		ck_assert_msg(strlen(table[i].name) > 5, "%s: name", table[i].code);
		for (size_t k = 0; k < i; k++)
			ck_assert_msg(strcmp(table[i].code, table[k].code) != 0, "%s has two rows", table[i].code);
	}
	ck_assert_str_eq(table[n - 1].code, "");
}

START_TEST(each_class_and_each_end_has_its_row)
{
	size_t n_errors, n_words, n_ends;
	const struct contract_row *errors = dbha__contract_errors(&n_errors);
	const struct contract_row *words = dbha__contract_last_words(&n_words);
	const struct contract_end *ends = dbha__contract_ends(&n_ends);
	check_table(errors, n_errors);
	check_table(words, n_words);
	for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
		bool found = false;
		for (size_t k = 0; k < n_errors; k++)
			found = found || strcmp(errors[k].code, classes[i]) == 0;
		ck_assert_msg(found, "class %s has no row", classes[i]);
	}
	ck_assert_uint_eq(n_ends, ATTEMPT_CANCELLED + 1);
	for (size_t i = 0; i < n_ends; i++)
		ck_assert(ends[i].name && ends[i].transaction && ends[i].why);
}
END_TEST

/* An error on a living session has ended its transaction; one that ended the session has not left it usable. */
START_TEST(no_row_contradicts_what_kind_it_is_of)
{
	size_t n;
	const struct contract_row *table = dbha__contract_errors(&n);
	for (size_t i = 0; i < n; i++) {
		ck_assert_msg(table[i].verdict.effect != EFFECT_UNKNOWN, "%s", table[i].code);
		ck_assert_msg(table[i].verdict.again != AGAIN_NEVER || table[i].verdict.keep, "%s", table[i].code);
		ck_assert_msg(table[i].verdict.again == AGAIN_NEVER || table[i].transaction,
		              "%s: its statement is run again, its transaction is not", table[i].code);
	}
	table = dbha__contract_last_words(&n);
	for (size_t i = 0; i < n; i++)
		ck_assert_msg(!table[i].verdict.keep && table[i].transaction == dbha__sqlstate_transaction(table[i].code), "%s",
		              table[i].code);
}
END_TEST

static Suite *sqlstate_suite(void)
{
	TCase *tcase = tcase_create("sqlstate");
	tcase_add_loop_test(tcase, an_end_is_judged, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, no_other_code_is_special);
	tcase_add_test(tcase, a_doubtful_connection_is_not_kept);
	tcase_add_test(tcase, each_class_and_each_end_has_its_row);
	tcase_add_test(tcase, no_row_contradicts_what_kind_it_is_of);
	Suite *suite = suite_create("sqlstate");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(sqlstate_suite)
