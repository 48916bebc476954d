/*
 * test_names: the tables of the public header: numbers that never change, names that say one thing each, SQLSTATEs.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "dbha.h"
#include "error.h"
#include "unit.h"

struct word {
	const char *name;
	int number;
	const char *word; /* an error's SQLSTATE; what dbha_state_name and dbha_event_name give */
	const char *text;
};

#define DBHA_XX(name, number, word, text) {#name, number, word, text},
static const struct word errors[] = {DBHA_ERROR_MAP(DBHA_XX)};
static const struct word states[] = {DBHA_STATE_MAP(DBHA_XX)};
static const struct word events[] = {DBHA_EVENT_MAP(DBHA_XX)};
#undef DBHA_XX
#define COUNT(table) (int)(sizeof(table) / sizeof(table)[0])

/* As published. A line may be added at the end, never changed: programs and bindings have these numbers compiled in. */
static const struct word published_errors[] = {
    {"OK", 0, "00000", ""},      {"USAGE", 1, "22023", ""},        {"CONFIG", 2, "22023", ""},
    {"MEMORY", 3, "53200", ""},  {"TIMEOUT", 4, "57014", ""},      {"NO_NODE", 5, "08001", ""},
    {"POOL", 6, "53300", ""},    {"LOST", 7, "08006", ""},         {"UNKNOWN", 8, "08007", ""},
    {"SERVER", 9, "", ""},       {"SPLIT_BRAIN", 10, "08004", ""}, {"FOREIGN", 11, "08004", ""},
    {"CLOSED", 12, "08003", ""}, {"FORKED", 13, "08003", ""},      {"SYSTEM", 14, "58000", ""},
};
static const struct word published_states[] = {
    {"UNKNOWN", 0, "unknown", ""}, {"UP", 1, "up", ""},           {"SUSPECT", 2, "suspect", ""},
    {"SILENT", 3, "silent", ""},   {"DOWN", 4, "down", ""},       {"STARTING", 5, "starting", ""},
    {"FULL", 6, "full", ""},       {"REFUSED", 7, "refused", ""}, {"FENCED", 8, "fenced", ""},
    {"FOREIGN", 9, "foreign", ""},
};
static const struct word published_events[] = {
    {"PRIMARY", 1, "primary", ""}, {"NO_PRIMARY", 2, "no-primary", ""}, {"NODE", 3, "node", ""},
    {"FENCED", 4, "fenced", ""},   {"FOREIGN", 5, "foreign", ""},       {"SPLIT_BRAIN", 6, "split-brain", ""},
    {"HEALED", 7, "healed", ""},   {"RESTARTED", 8, "restarted", ""},
};

static void check_unique(const struct word *table, int n, bool words)
{
	for (int i = 0; i < n; i++) {
		for (int k = 0; k < i; k++) {
			ck_assert_msg(table[i].number != table[k].number, "%s and %s have one number", table[i].name,
			              table[k].name);
			ck_assert_msg(strcmp(table[i].name, table[k].name) != 0, "%s is there twice", table[i].name);
			ck_assert_msg(!words || strcmp(table[i].word, table[k].word) != 0, "\"%s\" is there twice", table[i].word);
			ck_assert_msg(strcmp(table[i].text, table[k].text) != 0, "%s and %s say the same", table[i].name,
			              table[k].name);
		}
		ck_assert_msg(strlen(table[i].text) > 5, "%s has no text", table[i].name);
	}
}

static void check_published(const struct word *table, int n, const struct word *published, int n_published)
{
	ck_assert_int_ge(n, n_published);
	for (int i = 0; i < n_published; i++) {
		ck_assert_str_eq(table[i].name, published[i].name);
		ck_assert_msg(table[i].number == published[i].number, "%s is %d", table[i].name, table[i].number);
		ck_assert_str_eq(table[i].word, published[i].word);
	}
}

START_TEST(numbers_and_names_are_unique)
{
	check_unique(errors, COUNT(errors), false);
	check_unique(states, COUNT(states), true);
	check_unique(events, COUNT(events), true);
}
END_TEST

START_TEST(numbers_and_words_stay_as_published)
{
	check_published(errors, COUNT(errors), published_errors, COUNT(published_errors));
	check_published(states, COUNT(states), published_states, COUNT(published_states));
	check_published(events, COUNT(events), published_events, COUNT(published_events));
	ck_assert_int_eq(DBHA_OK, 0);
	ck_assert_int_eq(DBHA_ERR_OK, 0);
	ck_assert_int_eq(DBHA_DEFAULT, 0);
	ck_assert_int_eq(DBHA_READ, 1);
	ck_assert_int_eq(DBHA_WRITE, 2);
	ck_assert_int_eq(DBHA_ROLE_UNKNOWN, 0);
	ck_assert_int_eq(DBHA_ROLE_PRIMARY, 1);
	ck_assert_int_eq(DBHA_ROLE_STANDBY, 2);
	ck_assert_uint_eq(DBHA_IDEMPOTENT, 1);
	ck_assert_uint_eq(DBHA_UNPREPARED, 2);
	ck_assert_int_eq(DBHA_WAIT_PRIMARY, 0);
	ck_assert_int_eq(DBHA_WAIT_STANDBY, 1);
	ck_assert_int_eq(DBHA_WAIT_ANY, 2);
	ck_assert_int_eq(DBHA_WAIT_ALL, 3);
	ck_assert_int_eq(DBHA_WAIT_PROBED, 4);
}
END_TEST

START_TEST(every_code_has_a_name_and_a_sqlstate)
{
	for (int i = 0; i < COUNT(errors); i++) {
		const char *sqlstate = dbha__code_sqlstate(errors[i].number);
		ck_assert_str_eq(dbha_code_name(errors[i].number), errors[i].name);
		ck_assert_str_eq(sqlstate, errors[i].word);
		if (errors[i].number == DBHA_ERR_SERVER) {
			ck_assert_str_eq(sqlstate, ""); /* it is the server's */
			continue;
		}
		ck_assert_msg(strlen(sqlstate) == 5, "%s: \"%s\"", errors[i].name, sqlstate);
		for (const char *at = sqlstate; *at; at++)
			ck_assert_msg(isdigit((unsigned char)*at) || isupper((unsigned char)*at), "%s: \"%s\"", errors[i].name,
			              sqlstate);
	}
}
END_TEST

START_TEST(every_state_and_event_has_its_word)
{
	for (int i = 0; i < COUNT(states); i++)
		ck_assert_str_eq(dbha_state_name(states[i].number), states[i].word);
	for (int i = 0; i < COUNT(events); i++)
		ck_assert_str_eq(dbha_event_name(events[i].number), events[i].word);
	ck_assert_str_eq(dbha_role_name(DBHA_ROLE_UNKNOWN), "unknown");
	ck_assert_str_eq(dbha_role_name(DBHA_ROLE_PRIMARY), "primary");
	ck_assert_str_eq(dbha_role_name(DBHA_ROLE_STANDBY), "standby");
}
END_TEST

START_TEST(other_numbers_mean_nothing)
{
	static const int others[] = {-1, -100, 18, 99, 1 << 30, -1 - 0x7fffffff};
	for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
		ck_assert_str_eq(dbha_code_name(others[i]), "?");
		ck_assert_str_eq(dbha__code_sqlstate(others[i]), "");
		ck_assert_str_eq(dbha_state_name(others[i]), "?");
		ck_assert_str_eq(dbha_event_name(others[i]), "?");
		ck_assert_str_eq(dbha_role_name(others[i]), "?");
	}
	ck_assert_str_eq(dbha_event_name(0), "?");
}
END_TEST

static Suite *names_suite(void)
{
	TCase *tcase = tcase_create("names");
	tcase_add_test(tcase, numbers_and_names_are_unique);
	tcase_add_test(tcase, numbers_and_words_stay_as_published);
	tcase_add_test(tcase, every_code_has_a_name_and_a_sqlstate);
	tcase_add_test(tcase, every_state_and_event_has_its_word);
	tcase_add_test(tcase, other_numbers_mean_nothing);
	Suite *suite = suite_create("names");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(names_suite)
