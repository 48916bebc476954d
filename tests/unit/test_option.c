/*
 * test_option: the table of options: defaults, ranges, units, words, printing, suggestions, messages.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "option.h"
#include "unit.h"

static const struct option *find(const char *name)
{
	const struct option *option = dbha__option_find(name);
	ck_assert_msg(option, "no option %s", name);
	return option;
}

static int *member(struct config_options *options, const char *name)
{
	return (int *)(void *)((char *)options + find(name)->offset);
}

/* The table again, by its specification and not by the code. */
static const struct expected {
	const char *name, *type, *default_value;
	int value, min, max;
} expected[] = {
    {"target_session_attrs", "enum", "primary", TARGET_PRIMARY, TARGET_ANY, TARGET_PREFER_STANDBY},
    {"call_timeout", "time", "30s", 30000, 1, 86400000},
    {"connect_timeout", "time", "5s", 5000, 100, 3600000},
    {"pool_min_size", "integer", "1", 1, 0, 1000},
    {"pool_max_size", "integer", "10", 10, 1, 10000},
    {"pool_timeout", "time", "0", 0, 0, 86400000},
    {"pool_max_waiting", "integer", "0", 0, 0, 1000000},
    {"pool_max_idle", "time", "10min", 600000, 1, 604800000},
    {"pool_max_lifetime", "time", "1h", 3600000, 0, 604800000},
    {"pool_max_connecting", "integer", "3", 3, 1, 100},
    {"monitor", "enum", "on", MONITOR_ON, MONITOR_OFF, MONITOR_ON},
    {"discover", "enum", "off", DISCOVER_OFF, DISCOVER_OFF, DISCOVER_DNS},
    {"resolve_interval", "time", "30s", 30000, 1000, 3600000},
    {"probe_profile", "enum", "normal", PROBE_NORMAL, PROBE_NORMAL, PROBE_AGGRESSIVE},
    {"probe_interval", "time", "1s", 1000, 100, 3600000},
    {"probe_interval_fast", "time", "5ms", 5, 1, 10000},
    {"probe_timeout", "time", "600ms", 600, 10, 60000},
    {"probe_failures", "integer", "3", 3, 1, 100},
    {"max_lag", "time or size", "0", 0, 0, 86400000},
    {"consistency", "enum", "session", 0, 0, 3},
    {"max_wait", "time", "0", 0, 0, 60000},
    {"routing", "enum", "intent", ROUTING_INTENT, ROUTING_INTENT, ROUTING_AUTO},
    {"retry_backoff", "time", "10ms", 10, 1, 60000},
    {"retry_backoff_max", "time", "1s", 1000, 1, 600000},
    {"load_balance_hosts", "enum", "random", LOAD_BALANCE_RANDOM, LOAD_BALANCE_DISABLE, LOAD_BALANCE_RANDOM},
    {"retry_budget", "integer", "20", 20, 0, 100},
    {"verify_commit", "enum", "off", 0, 0, 1},
    {"statement_cache_size", "integer", "100", 100, 0, 10000},
    {"commit_terminate", "enum", "off", 0, 0, 1},
    {"log_level", "enum", "off", 0, 0, 4},
};
#define N_EXPECTED (sizeof expected / sizeof expected[0])

START_TEST(every_option_is_there)
{
	struct config_options options;
	ck_assert_int_eq(dbha__options_init(&options, NULL), DBHA_OK);
	for (size_t i = 0; i < N_EXPECTED; i++) {
		const struct expected *e = &expected[i];
		ck_assert_str_eq(find(e->name)->info.type, e->type);
		ck_assert_str_eq(find(e->name)->info.default_value, e->default_value);
		ck_assert_msg(*member(&options, e->name) == e->value, "%s: %d", e->name, *member(&options, e->name));
		char buf[OPTION_PRINT_MAX];
		ck_assert_str_eq(dbha__option_print(find(e->name), &options, buf), e->default_value);
	}
	ck_assert_ptr_null(options.log_file);
	ck_assert_str_eq(find("log_file")->info.type, "text");
	/* And those that are no numbers: log_file, fence_file, outcome_table, accept_cluster, and two lists of functions. */
	ck_assert_ptr_null(options.fence_file);
	ck_assert_ptr_null(options.outcome_table);
	ck_assert_ptr_null(options.read_functions);
	ck_assert_ptr_null(options.write_functions);
	ck_assert_int_eq(options.max_lag_bytes, 0);
	ck_assert_uint_eq(options.accept_cluster, 0);
	ck_assert_ptr_nonnull(dbha__option_at((int)N_EXPECTED + 5));
	ck_assert_ptr_null(dbha__option_at((int)N_EXPECTED + 6));
	ck_assert_ptr_null(dbha__option_at(-1));
	ck_assert_ptr_null(dbha__option_find("host"));
	ck_assert_ptr_null(dbha__option_find(""));
}
END_TEST

/* Two options may not share a member, and each one's text is a sentence. */
START_TEST(the_table_is_sound)
{
	for (int i = 0; dbha__option_at(i); i++) {
		const struct option *a = dbha__option_at(i);
		size_t length = strlen(a->info.text);
		ck_assert_msg(length > 10 && a->info.text[length - 1] == '.', "%s: %s", a->info.name, a->info.text);
		ck_assert(*a->info.accepted);
		for (int j = 0; j < i; j++) {
			ck_assert_str_ne(a->info.name, dbha__option_at(j)->info.name);
			ck_assert_uint_ne(a->offset, dbha__option_at(j)->offset);
		}
	}
	ck_assert_ptr_nonnull(strstr(find("target_session_attrs")->info.text, "because work that says nothing may write"));
}
END_TEST

/* `accepted` is text by hand: "LOW to HIGH" must print what min and max are. */
START_TEST(accepted_tells_the_range)
{
	for (int i = 0; dbha__option_at(i); i++) {
		const struct option *option = dbha__option_at(i);
		struct config_options low = {0}, high = {0};
		char low_text[OPTION_PRINT_MAX], high_text[OPTION_PRINT_MAX], range[80];
		if (option->type == OPTION_TIME || option->type == OPTION_INTEGER || option->type == OPTION_LAG) {
			*member(&low, option->info.name) = option->min;
			*member(&high, option->info.name) = option->max;
			snprintf(range, sizeof range, "%s to %s", dbha__option_print(option, &low, low_text),
			         dbha__option_print(option, &high, high_text));
			ck_assert_msg(strncmp(option->info.accepted, range, strlen(range)) == 0, "%s: %s, not %s",
			              option->info.name, option->info.accepted, range);
		} else if (option->type == OPTION_ENUM) {
			for (int w = 0; option->words[w]; w++)
				ck_assert_msg(strstr(option->info.accepted, option->words[w]), "%s", option->words[w]);
		}
	}
}
END_TEST

START_TEST(ranges_are_inclusive)
{
	for (size_t i = 0; i < N_EXPECTED; i++) {
		const struct expected *e = &expected[i];
		const char *unit = strncmp(e->type, "time", 4) == 0 ? "ms" : "";
		struct config_options options = {0};
		char text[32];
		if (strcmp(e->type, "enum") == 0)
			continue;
		const int inside[] = {e->min, e->max}, outside[] = {e->min - 1, e->max + 1};
		for (int j = 0; j < 2; j++) {
			snprintf(text, sizeof text, "%d%s", inside[j], unit);
			ck_assert_msg(dbha__option_parse(find(e->name), text, NULL, &options, NULL) == DBHA_OK, "%s %s", e->name,
			              text);
			ck_assert_int_eq(*member(&options, e->name), inside[j]);
			snprintf(text, sizeof text, "%d%s", outside[j], unit);
			ck_assert_msg(dbha__option_parse(find(e->name), text, NULL, &options, NULL) == DBHA_ERR_CONFIG, "%s %s",
			              e->name, text);
			ck_assert_int_eq(*member(&options, e->name), inside[j]);
		}
	}
}
END_TEST

static const struct value {
	const char *name, *text;
	int value; /* -1: refused */
} values[] = {
    /* units; a bare number is milliseconds */
    {"call_timeout", "200ms", 200},
    {"call_timeout", "200", 200},
    {"call_timeout", "5s", 5000},
    {"call_timeout", "5 s", 5000},
    {"call_timeout", "2min", 120000},
    {"call_timeout", "3h", 10800000},
    {"call_timeout", "1d", 86400000},
    {"call_timeout", "1.5s", 1500},
    {"call_timeout", "0.25min", 15000},
    {"call_timeout", "0.5ms", -1},
    {"call_timeout", "1.0005s", -1},
    {"call_timeout", "1.s", -1},
    {"call_timeout", ".5s", -1},
    {"call_timeout", "100us", -1},
    {"call_timeout", "5S", -1},
    {"call_timeout", "5m", -1},
    {"call_timeout", "5sec", -1},
    {"call_timeout", "5s ", -1},
    {"call_timeout", " 5s", -1},
    {"call_timeout", "", -1},
    {"call_timeout", "s", -1},
    {"call_timeout", "-1", -1},
    {"call_timeout", "+5s", -1},
    {"call_timeout", "1e3", -1},
    {"call_timeout", "0x10", -1},
    {"call_timeout", "0", -1},
    {"call_timeout", "2d", -1},
    {"call_timeout", "99999999999999999999", -1},
    {"call_timeout", "99999999999999999999.5d", -1},
    {"call_timeout", "0.99999999999999999999d", -1},
    {"call_timeout", "999999999d", -1},
    /* connect_timeout: a bare number is seconds; libpq's "no limit" is refused */
    {"connect_timeout", "3", 3000},
    {"connect_timeout", "0.5", 500},
    {"connect_timeout", "250ms", 250},
    {"connect_timeout", "1min", 60000},
    {"connect_timeout", "0", -1},
    {"connect_timeout", "-1", -1},
    {"connect_timeout", "99ms", -1},
    {"connect_timeout", "3601", -1},
    /* whole numbers */
    {"pool_max_size", "25", 25},
    {"pool_max_size", "025", 25},
    {"pool_max_size", "0", -1},
    {"pool_max_size", "2.5", -1},
    {"pool_max_size", "10k", -1},
    {"pool_max_size", "ten", -1},
    {"pool_max_size", "", -1},
    {"pool_max_size", "-5", -1},
    {"pool_max_size", "4294967306", -1},
    {"pool_max_size", "18446744073709551626", -1},
    {"pool_min_size", "0", 0},
    {"statement_cache_size", "0", 0},
    {"pool_timeout", "0", 0},
    {"pool_max_lifetime", "0s", 0},
    {"max_lag", "10s", 10000},
    {"max_lag", "1500", 1500},
    {"max_lag", "0", 0},
    {"max_lag", "2d", -1},
    {"max_lag", "16mb", -1},
    {"max_lag", "16 MiB", -1},
    {"max_lag", "1K", -1},
    {"max_lag", "-1B", -1},
    {"max_lag", "0.5B", -1},
    {"max_lag", "0.3kB", -1},
    {"max_lag", "1025TB", -1},
    {"max_lag", "999999999TB", -1},
    {"max_lag", "1.999999999TB", -1},
    {"max_lag", "0.999999999TB", -1},
    {"max_lag", "MB", -1},
    {"max_lag", "", -1},
    /* words */
    {"target_session_attrs", "any", TARGET_ANY},
    {"target_session_attrs", "read-write", TARGET_READ_WRITE},
    {"target_session_attrs", "read-only", TARGET_READ_ONLY},
    {"target_session_attrs", "primary", TARGET_PRIMARY},
    {"target_session_attrs", "standby", TARGET_STANDBY},
    {"target_session_attrs", "prefer-standby", TARGET_PREFER_STANDBY},
    {"target_session_attrs", "master", -1},
    {"target_session_attrs", "Primary", -1},
    {"target_session_attrs", "prefer_standby", -1},
    {"target_session_attrs", "3", -1},
    {"target_session_attrs", "", -1},
    {"log_level", "off", 0},
    {"log_level", "error", 1},
    {"log_level", "warning", 2},
    {"log_level", "info", 3},
    {"log_level", "debug", 4},
    {"log_level", "0", 0},
    {"log_level", "4", 4},
    {"log_level", "5", -1},
    {"log_level", "-1", -1},
    {"log_level", "verbose", -1},
};

START_TEST(a_value_is_parsed_or_refused)
{
	const struct value *v = &values[_i];
	struct config_options options;
	dbha_error err = {0};
	ck_assert_int_eq(dbha__options_init(&options, NULL), DBHA_OK);
	int before = *member(&options, v->name);
	int rc = dbha__option_parse(find(v->name), v->text, NULL, &options, &err);
	if (v->value >= 0) {
		ck_assert_msg(rc == DBHA_OK, "%s=%s: %s", v->name, v->text, err.message);
		ck_assert_int_eq(*member(&options, v->name), v->value);
		return;
	}
	char quoted[80];
	snprintf(quoted, sizeof quoted, "\"%s\"", v->text);
	ck_assert_msg(rc == DBHA_ERR_CONFIG, "%s=%s was taken", v->name, v->text);
	ck_assert_int_eq(*member(&options, v->name), before);
	ck_assert_str_eq(err.sqlstate, "22023");
	ck_assert_msg(strstr(err.message, v->name) && strstr(err.message, quoted) &&
	                  strstr(err.message, find(v->name)->info.accepted),
	              "%s", err.message);
}
END_TEST

START_TEST(connect_timeout_says_why_zero_is_refused)
{
	struct config_options options = {0};
	dbha_error err = {0};
	dbha__option_parse(find("connect_timeout"), "0", "PGCONNECT_TIMEOUT", &options, &err);
	ck_assert_ptr_nonnull(strstr(err.message, "no limit in libpq, is refused"));
	ck_assert_ptr_nonnull(strstr(err.message, "from PGCONNECT_TIMEOUT"));
}
END_TEST

START_TEST(times_are_printed_in_the_unit_that_fits)
{
	static const struct {
		int ms;
		const char *text;
	} cases[] = {{0, "0"},           {1, "1ms"},       {999, "999ms"},    {1000, "1s"},
	             {1500, "1500ms"},   {60000, "1min"},  {61000, "61s"},    {3600000, "1h"},
	             {5400000, "90min"}, {86400000, "1d"}, {604800000, "7d"}, {90000000, "25h"}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct config_options options = {.max_lag_ms = cases[i].ms}, again = {0};
		char buf[OPTION_PRINT_MAX];
		const char *text = dbha__option_print(find("max_lag"), &options, buf);
		ck_assert_str_eq(text, cases[i].text);
		if (cases[i].ms <= 86400000) {
			ck_assert_int_eq(dbha__option_parse(find("max_lag"), text, NULL, &again, NULL), DBHA_OK);
			ck_assert_int_eq(again.max_lag_ms, cases[i].ms);
		}
	}
}
END_TEST

static const struct size {
	const char *text;
	int64_t bytes;
	const char *printed;
} sizes[] = {
    {"1B", 1, "1B"},
    {"1023B", 1023, "1023B"},
    {"1024B", 1024, "1kB"},
    {"64kB", 65536, "64kB"},
    {"16MB", 16777216, "16MB"},
    {"16 MB", 16777216, "16MB"},
    {"1.5GB", 1610612736, "1536MB"},
    {"4GB", 4294967296, "4GB"},
    {"0.5TB", 549755813888, "512GB"},
    {"1024TB", 1125899906842624, "1024TB"},
};

/* Of a time and a size the one said last counts, and what is printed is what was meant. */
START_TEST(a_lag_is_a_time_or_a_size)
{
	const struct size *row = &sizes[_i];
	struct config_options options = {.max_lag_ms = 5000}, again = {0};
	char buf[OPTION_PRINT_MAX];
	const struct option *option = find("max_lag");
	ck_assert_msg(dbha__option_parse(option, row->text, NULL, &options, NULL) == DBHA_OK, "%s", row->text);
	ck_assert_int_eq(options.max_lag_bytes, row->bytes);
	ck_assert_int_eq(options.max_lag_ms, 0);
	ck_assert_str_eq(dbha__option_print(option, &options, buf), row->printed);
	ck_assert_int_eq(dbha__option_parse(option, buf, NULL, &again, NULL), DBHA_OK);
	ck_assert_int_eq(again.max_lag_bytes, row->bytes);
	ck_assert_int_eq(dbha__option_parse(option, "70s", NULL, &options, NULL), DBHA_OK);
	ck_assert_int_eq(options.max_lag_bytes, 0);
	ck_assert_int_eq(options.max_lag_ms, 70000);
	ck_assert_str_eq(dbha__option_print(option, &options, buf), "70s");
	ck_assert_int_eq(dbha__option_parse(option, "0kB", NULL, &again, NULL), DBHA_OK);
	ck_assert_int_eq(again.max_lag_bytes, 0);
	ck_assert_str_eq(dbha__option_print(option, &again, buf), "0");
}
END_TEST

START_TEST(a_refused_lag_changes_nothing_and_names_the_units)
{
	struct config_options options = {.max_lag_bytes = 42};
	dbha_error err;
	ck_assert_int_eq(dbha__option_parse(find("max_lag"), "16mb", NULL, &options, &err), DBHA_ERR_CONFIG);
	ck_assert_int_eq(options.max_lag_bytes, 42);
	ck_assert_int_eq(options.max_lag_ms, 0);
	ck_assert_ptr_nonnull(strstr(err.message, "B, kB, MB, GB, TB, as in 16MB"));
}
END_TEST

START_TEST(texts_are_owned_and_copied)
{
	struct config_options a, b;
	char buf[OPTION_PRINT_MAX], path[] = "/tmp/a";
	ck_assert_int_eq(dbha__options_init(&a, NULL), DBHA_OK);
	ck_assert_ptr_null(dbha__option_print(find("log_file"), &a, buf));
	ck_assert_int_eq(dbha__option_parse(find("log_file"), "stderr", NULL, &a, NULL), DBHA_OK);
	ck_assert_int_eq(dbha__option_parse(find("log_file"), path, NULL, &a, NULL), DBHA_OK);
	path[5] = 'b';
	a.pool_max_size = 77;
	/* Every text, so that one which is new in the table is not forgotten. */
	for (int i = 0; dbha__option_at(i); i++)
		if (dbha__option_at(i)->type == OPTION_TEXT && dbha__option_at(i) != find("log_file"))
			ck_assert_int_eq(dbha__option_parse(dbha__option_at(i), dbha__option_at(i)->info.name, NULL, &a, NULL),
			                 DBHA_OK);
	ck_assert_int_eq(dbha__options_copy(&b, &a, NULL), DBHA_OK);
	dbha__options_fini(&a);
	ck_assert_str_eq(b.read_functions, "read_functions");
	ck_assert_str_eq(b.write_functions, "write_functions");
	ck_assert_str_eq(b.fence_file, "fence_file");
	ck_assert_str_eq(b.log_file, "/tmp/a");
	ck_assert_int_eq(b.pool_max_size, 77);
	ck_assert_int_eq(dbha__option_parse(find("log_file"), "", NULL, &b, NULL), DBHA_OK);
	ck_assert_ptr_null(b.log_file);
	dbha__options_fini(&b);
}
END_TEST

START_TEST(a_cluster_is_a_system_identifier_or_not_set)
{
	static const char *const bad[] = {"0", "-1", "1x", " 1", "18446744073709551616", "99999999999999999999", "0x10"};
	struct config_options options;
	char buf[OPTION_PRINT_MAX];
	dbha_error err;
	const struct option *option = find("accept_cluster");
	ck_assert_int_eq(dbha__options_init(&options, NULL), DBHA_OK);
	ck_assert_ptr_null(dbha__option_print(option, &options, buf));
	ck_assert_int_eq(dbha__option_parse(option, "18446744073709551615", NULL, &options, NULL), DBHA_OK);
	ck_assert_uint_eq(options.accept_cluster, UINT64_MAX);
	ck_assert_str_eq(dbha__option_print(option, &options, buf), "18446744073709551615");
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ck_assert_msg(dbha__option_parse(option, bad[i], NULL, &options, &err) == DBHA_ERR_CONFIG, "%s", bad[i]);
		ck_assert_ptr_nonnull(strstr(err.message, "accept_cluster: \""));
		ck_assert_uint_eq(options.accept_cluster, UINT64_MAX);
	}
	ck_assert_int_eq(dbha__option_parse(option, "", NULL, &options, NULL), DBHA_OK);
	ck_assert_uint_eq(options.accept_cluster, 0);
	dbha__options_fini(&options);
}
END_TEST

START_TEST(variables_are_named_after_options)
{
	char name[OPTION_ENV_MAX];
	dbha__option_env(find("target_session_attrs"), name);
	ck_assert_str_eq(name, "DBHA_TARGET_SESSION_ATTRS");
	dbha__option_env(find("max_lag"), name);
	ck_assert_str_eq(name, "DBHA_MAX_LAG");
}
END_TEST

START_TEST(a_misspelt_name_is_guessed)
{
	static const struct {
		const char *word, *guess;
	} cases[] = {{"pool_size", "pool_max_size"},
	             {"pool_max_siez", "pool_max_size"},
	             {"poolmaxsize", "pool_max_size"},
	             {"call_timout", "call_timeout"},
	             {"probe_intervall", "probe_interval"},
	             {"retry_backof", "retry_backoff"},
	             {"loglevel", "log_level"},
	             {"x", NULL},
	             {"", NULL},
	             {"frobnicate", NULL},
	             {"a_word_that_is_so_long_that_it_cannot_be_any_option_of_ours", NULL}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct option_guess guess = {.word = cases[i].word};
		dbha__option_guess_own(&guess);
		if (cases[i].guess)
			ck_assert_msg(guess.best && strcmp(guess.best, cases[i].guess) == 0, "%s: %s", cases[i].word,
			              guess.best ? guess.best : "nothing");
		else
			ck_assert_msg(!guess.best, "%s: %s", cases[i].word, guess.best);
	}
}
END_TEST

START_TEST(shown_values_are_short_and_printable)
{
	char much[500];
	memset(much, 'x', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	ck_assert_str_eq(dbha__option_shown("a\nb\033c\177").text, "a?b?c?");
	ck_assert_str_eq(dbha__option_shown("").text, "");
	ck_assert_str_eq(dbha__option_shown("p\xc3\xb6st").text, "p\xc3\xb6st");
	struct option_shown shown = dbha__option_shown(much);
	ck_assert_uint_eq(strlen(shown.text), OPTION_SHOWN_MAX - 1);
	ck_assert_str_eq(shown.text + strlen(shown.text) - 3, "...");
}
END_TEST

static Suite *option_suite(void)
{
	TCase *tcase = tcase_create("option");
	tcase_add_test(tcase, every_option_is_there);
	tcase_add_test(tcase, the_table_is_sound);
	tcase_add_test(tcase, accepted_tells_the_range);
	tcase_add_test(tcase, ranges_are_inclusive);
	tcase_add_loop_test(tcase, a_value_is_parsed_or_refused, 0, sizeof values / sizeof values[0]);
	tcase_add_test(tcase, connect_timeout_says_why_zero_is_refused);
	tcase_add_test(tcase, times_are_printed_in_the_unit_that_fits);
	tcase_add_loop_test(tcase, a_lag_is_a_time_or_a_size, 0, sizeof sizes / sizeof sizes[0]);
	tcase_add_test(tcase, a_refused_lag_changes_nothing_and_names_the_units);
	tcase_add_test(tcase, texts_are_owned_and_copied);
	tcase_add_test(tcase, a_cluster_is_a_system_identifier_or_not_set);
	tcase_add_test(tcase, variables_are_named_after_options);
	tcase_add_test(tcase, a_misspelt_name_is_guessed);
	tcase_add_test(tcase, shown_values_are_short_and_printable);
	Suite *suite = suite_create("option");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(option_suite)
