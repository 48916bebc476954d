/*
 * test_stmtcache: when a statement is prepared, which one makes room, and that no name is ever used twice.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "sessionstate.h"
#include "stmtcache.h"
#include "unit.h"

static struct stmt use(struct stmtcache *cache, const char *sql)
{
	struct stmt stmt;
	memset(&stmt, 0xff, sizeof stmt);
	dbha__stmtcache_use(cache, sql, 0, NULL, &stmt);
	return stmt;
}

/* The second use and the word of the server: from now on it is prepared. Copies the name out. */
static void prepare(struct stmtcache *cache, const char *sql, char name[24])
{
	use(cache, sql);
	struct stmt stmt = use(cache, sql);
	ck_assert_int_eq((int)stmt.advice, STMT_PREPARE);
	snprintf(name, 24, "%s", stmt.name);
	dbha__stmtcache_prepared(cache, name);
}

START_TEST(a_statement_is_prepared_when_it_comes_back)
{
	struct stmtcache *cache = dbha__stmtcache_new(4);
	struct stmt stmt = use(cache, "SELECT 1");
	ck_assert_int_eq((int)stmt.advice, STMT_ONCE);
	ck_assert_str_eq(stmt.evicted, "");
	ck_assert_str_eq(stmt.name, "");
	stmt = use(cache, "SELECT 1");
	ck_assert_int_eq((int)stmt.advice, STMT_PREPARE);
	ck_assert_str_ne(stmt.name, "");
	/* Until the server has said yes it is not prepared. */
	stmt = use(cache, "SELECT 1");
	ck_assert_int_eq((int)stmt.advice, STMT_PREPARE);
	char name[24];
	snprintf(name, sizeof name, "%s", stmt.name);
	dbha__stmtcache_prepared(cache, name);
	for (int i = 0; i < 3; i++) {
		stmt = use(cache, "SELECT 1");
		ck_assert_int_eq((int)stmt.advice, STMT_PREPARED);
		ck_assert_str_eq(stmt.name, name);
		ck_assert_str_eq(stmt.evicted, "");
	}
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(what_a_text_may_leave_behind_is_known_each_time)
{
	struct stmtcache *cache = dbha__stmtcache_new(2);
	for (int i = 0; i < 4; i++) {
		ck_assert_uint_eq(use(cache, "SELECT pg_advisory_lock(1)").hints, USE_LOCKS);
		ck_assert_uint_eq(use(cache, "SELECT 1").hints, 0);
		if (i == 2)
			ck_assert_uint_eq(use(cache, "/* a */ SET x = 1").hints, USE_SETTINGS);
	}
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(text_is_compared_whole_and_copied)
{
	struct stmtcache *cache = dbha__stmtcache_new(8);
	char sql[] = "SELECT 12345678";
	char name[24];
	prepare(cache, sql, name);
	sql[14] = '9';
	ck_assert_int_eq((int)use(cache, sql).advice, STMT_ONCE);
	ck_assert_int_eq((int)use(cache, "SELECT 12345678").advice, STMT_PREPARED);
	ck_assert_int_eq((int)use(cache, "SELECT 1234567").advice, STMT_ONCE);
	ck_assert_int_eq((int)use(cache, "SELECT 12345678 ").advice, STMT_ONCE);
	ck_assert_int_eq((int)use(cache, "select 12345678").advice, STMT_ONCE);
	ck_assert_int_eq((int)use(cache, "").advice, STMT_ONCE);
	ck_assert_int_eq((int)use(cache, "").advice, STMT_PREPARE);
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(parameter_types_are_part_of_a_statement)
{
	static const unsigned int4[] = {23, 23};
	static const unsigned text[] = {23, 25};
	struct stmtcache *cache = dbha__stmtcache_new(8);
	struct stmt stmt;
	const char *sql = "SELECT $1, $2";
	const struct {
		int n;
		const unsigned *types;
	} uses[] = {{2, NULL}, {2, int4}, {2, text}, {1, int4}};
	char names[4][24];
	for (size_t round = 0; round < 2; round++) {
		for (size_t i = 0; i < 4; i++) {
			dbha__stmtcache_use(cache, sql, uses[i].n, uses[i].types, &stmt);
			ck_assert_int_eq((int)stmt.advice, round ? STMT_PREPARE : STMT_ONCE);
			snprintf(names[i], sizeof names[i], "%s", stmt.name);
		}
	}
	for (size_t i = 0; i < 4; i++)
		for (size_t k = 0; k < i; k++)
			ck_assert_str_ne(names[i], names[k]);
	/* No types given: how many parameters there are is in the text. */
	dbha__stmtcache_use(cache, sql, 0, int4, &stmt);
	ck_assert_str_eq(stmt.name, names[0]);
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(the_least_recently_used_makes_room)
{
	struct stmtcache *cache = dbha__stmtcache_new(3);
	char a[24], b[24], c[24];
	prepare(cache, "A", a);
	prepare(cache, "B", b);
	prepare(cache, "C", c);
	use(cache, "A");
	ck_assert_str_eq(use(cache, "D").evicted, b);
	ck_assert_int_eq((int)use(cache, "A").advice, STMT_PREPARED);
	ck_assert_str_eq(use(cache, "E").evicted, c);
	/* D was never prepared: the server has nothing to forget. */
	ck_assert_str_eq(use(cache, "F").evicted, "");
	ck_assert_str_eq(use(cache, "G").evicted, a);
	ck_assert_int_eq((int)use(cache, "A").advice, STMT_ONCE);
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(a_cache_of_one_works)
{
	struct stmtcache *cache = dbha__stmtcache_new(1);
	char a[24];
	prepare(cache, "A", a);
	ck_assert_str_eq(use(cache, "B").evicted, a);
	ck_assert_str_eq(use(cache, "A").evicted, "");
	ck_assert_int_eq((int)use(cache, "A").advice, STMT_PREPARE);
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(a_refused_statement_begins_anew_under_another_name)
{
	struct stmtcache *cache = dbha__stmtcache_new(3);
	char a[24];
	prepare(cache, "A", a);
	dbha__stmtcache_refused(cache, a);
	struct stmt stmt = use(cache, "A");
	ck_assert_int_eq((int)stmt.advice, STMT_ONCE);
	ck_assert_str_eq(stmt.evicted, "");
	stmt = use(cache, "A");
	ck_assert_int_eq((int)stmt.advice, STMT_PREPARE);
	ck_assert_str_ne(stmt.name, a);
	/* Names nobody knows do nothing. */
	dbha__stmtcache_refused(cache, a);
	dbha__stmtcache_refused(cache, "");
	dbha__stmtcache_prepared(cache, a);
	dbha__stmtcache_prepared(cache, "dbha_99");
	ck_assert_int_eq((int)use(cache, "A").advice, STMT_PREPARE);
	dbha__stmtcache_free(cache);
}
END_TEST

/* The place of a refused statement is free: nobody who is prepared has to go while it is. */
START_TEST(what_the_server_has_forgotten_is_prepared_anew_under_other_names)
{
	struct stmtcache *cache = dbha__stmtcache_new(3);
	char names[3][24];
	static const char *const texts[] = {"SELECT 1", "SELECT 2", "SELECT 3"};
	for (int i = 0; i < 3; i++) {
		use(cache, texts[i]);
		snprintf(names[i], sizeof names[i], "%s", use(cache, texts[i]).name);
		if (i < 2)
			dbha__stmtcache_prepared(cache, names[i]);
	}
	dbha__stmtcache_clear(cache);
	dbha__stmtcache_clear(NULL);
	for (int i = 0; i < 3; i++) {
		struct stmt stmt = use(cache, texts[i]);
		ck_assert_int_eq(stmt.advice, STMT_PREPARE);
		ck_assert((strcmp(stmt.name, names[i]) == 0) == (i == 2)); /* what the server never had keeps its name */
		dbha__stmtcache_refused(cache, names[0]);                  /* means nobody any more */
	}
	/* Nothing of it is left on the server to be deallocated. */
	for (int i = 4; i < 8; i++) {
		char sql[24];
		snprintf(sql, sizeof sql, "SELECT %d", i);
		ck_assert_str_eq(use(cache, sql).evicted, "");
	}
	dbha__stmtcache_free(cache);
}
END_TEST

START_TEST(a_refused_statement_makes_room)
{
	struct stmtcache *cache = dbha__stmtcache_new(2);
	char a[24], b[24];
	prepare(cache, "A", a);
	prepare(cache, "B", b);
	dbha__stmtcache_refused(cache, b);
	struct stmt stmt = use(cache, "C");
	ck_assert_msg(stmt.evicted[0] == '\0', "%s had to go although a place was free", stmt.evicted);
	ck_assert_int_eq((int)use(cache, "A").advice, STMT_PREPARED);
	dbha__stmtcache_free(cache);
	dbha__stmtcache_free(NULL);
}
END_TEST

/* ---- against a list that is searched from end to end -------------------------------------------------------- */

#define MODEL_MAX 40

struct model_entry {
	int sql;
	int uses;
	bool prepared;
	char name[24];
};

struct model {
	int n, size;
	struct model_entry entries[MODEL_MAX]; /* the newest first */
};

static int model_find(const struct model *model, int sql)
{
	for (int i = 0; i < model->n; i++)
		if (model->entries[i].sql == sql)
			return i;
	return -1;
}

/* Moves entry i to the front, or a new one; the name of a prepared one that falls off the end goes to `evicted`. */
static void model_touch(struct model *model, int i, int sql, char evicted[24])
{
	evicted[0] = '\0';
	if (i < 0) {
		i = model->n < model->size ? model->n++ : model->n - 1;
		if (model->entries[i].prepared)
			memcpy(evicted, model->entries[i].name, 24);
		memset(&model->entries[i], 0, sizeof model->entries[i]);
		model->entries[i].sql = sql;
	}
	for (; i > 0; i--) {
		struct model_entry entry = model->entries[i];
		model->entries[i] = model->entries[i - 1];
		model->entries[i - 1] = entry;
	}
	model->entries[0].uses++;
}

#define AGREE(condition, step)                                                                                         \
	do {                                                                                                               \
		if (!(condition))                                                                                              \
			ck_abort_msg("seed %llu, size %d, step %d: %s", (unsigned long long)seed, size, step, #condition);         \
	} while (0)

static void compare_with_model(int size, uint64_t seed)
{
	struct rng rng = {seed};
	struct stmtcache *cache = dbha__stmtcache_new(size);
	struct model model = {.size = size};
	for (int step = 0; step < 5000; step++) {
		char sql[40], evicted[24];
		int which = (int)dbha__rng_below(&rng, (uint64_t)size * 2 + 1);
		snprintf(sql, sizeof sql, "SELECT %d FROM a_table", which);
		model_touch(&model, model_find(&model, which), which, evicted);
		struct stmt stmt = use(cache, sql);
		AGREE(strcmp(stmt.evicted, evicted) == 0, step);
		AGREE((stmt.advice == STMT_ONCE) == (model.entries[0].uses == 1), step);
		AGREE((stmt.advice == STMT_PREPARED) == model.entries[0].prepared, step);
		if (stmt.advice == STMT_PREPARED)
			AGREE(strcmp(stmt.name, model.entries[0].name) == 0, step);
		if (stmt.advice == STMT_PREPARE && dbha__rng_below(&rng, 2)) {
			model.entries[0].prepared = true;
			snprintf(model.entries[0].name, 24, "%s", stmt.name);
			dbha__stmtcache_prepared(cache, model.entries[0].name);
		}
	}
	dbha__stmtcache_free(cache);
}

START_TEST(a_random_load_agrees_with_a_plain_list)
{
	static const int sizes[] = {1, 2, 3, 7, 8, 9, 17, MODEL_MAX};
	uint64_t seed = dbha__rng_entropy(sizes);
	printf("stmtcache: seed %llu\n", (unsigned long long)seed);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
		for (uint64_t k = 0; k < 10; k++)
			compare_with_model(sizes[i], seed + k);
}
END_TEST

static Suite *stmtcache_suite(void)
{
	TCase *tcase = tcase_create("stmtcache");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, a_statement_is_prepared_when_it_comes_back);
	tcase_add_test(tcase, text_is_compared_whole_and_copied);
	tcase_add_test(tcase, parameter_types_are_part_of_a_statement);
	tcase_add_test(tcase, the_least_recently_used_makes_room);
	tcase_add_test(tcase, a_cache_of_one_works);
	tcase_add_test(tcase, a_refused_statement_begins_anew_under_another_name);
	tcase_add_test(tcase, what_the_server_has_forgotten_is_prepared_anew_under_other_names);
	tcase_add_test(tcase, a_refused_statement_makes_room);
	tcase_add_test(tcase, what_a_text_may_leave_behind_is_known_each_time);
	tcase_add_test(tcase, a_random_load_agrees_with_a_plain_list);
	Suite *suite = suite_create("stmtcache");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(stmtcache_suite)
