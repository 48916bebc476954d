/*
 * test_classcache: verdicts by text: bounded, by generation, and the refusals that outlive a generation.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classcache.h"
#include "unit.h"

static const struct classify_verdict read_verdict = {.is = CLASS_READ, .why = WHY_READ};

static struct classcache *new_cache(size_t entries, size_t bytes)
{
	struct classcache *cache = dbha__classcache_new(entries, bytes);
	ck_assert_ptr_nonnull(cache);
	return cache;
}

static const char *number(int i)
{
	static _Thread_local char text[32];
	snprintf(text, sizeof text, "SELECT %d", i);
	return text;
}

START_TEST(what_was_put_is_found_for_its_generation)
{
	struct classcache *cache = new_cache(100, 100000);
	struct classify_verdict verdict;
	ck_assert(!dbha__classcache_find(cache, "SELECT 1", 1, &verdict));
	dbha__classcache_put(cache, "SELECT 1", 1, &read_verdict);
	ck_assert(dbha__classcache_find(cache, "SELECT 1", 1, &verdict));
	ck_assert_int_eq(verdict.is, CLASS_READ);
	ck_assert(!dbha__classcache_find(cache, "SELECT 1", 2, &verdict));
	ck_assert(!dbha__classcache_find(cache, "SELECT 1 ", 1, &verdict));
	ck_assert(!dbha__classcache_find(cache, "", 1, &verdict));
	dbha__classcache_put(cache, "SELECT 1", 2, &(struct classify_verdict){.is = CLASS_WRITE, .why = WHY_LOCKING});
	ck_assert(!dbha__classcache_find(cache, "SELECT 1", 1, &verdict));
	ck_assert(dbha__classcache_find(cache, "SELECT 1", 2, &verdict));
	ck_assert_int_eq(verdict.why, WHY_LOCKING);
	dbha__classcache_free(cache);
	dbha__classcache_free(NULL);
}
END_TEST

START_TEST(a_refusal_stays)
{
	struct classcache *cache = new_cache(100, 100000);
	struct classify_verdict verdict;
	dbha__classcache_put(cache, "SELECT f()", 1, &read_verdict);
	dbha__classcache_remember_write(cache, "SELECT f()");
	for (uint64_t generation = 1; generation < 4; generation++) {
		dbha__classcache_put(cache, "SELECT f()", generation, &read_verdict);
		ck_assert(dbha__classcache_find(cache, "SELECT f()", generation, &verdict));
		ck_assert_int_eq(verdict.is, CLASS_WRITE);
		ck_assert_int_eq(verdict.why, WHY_REFUSED_BEFORE);
	}
	dbha__classcache_remember_write(cache, "SELECT f()");
	size_t bytes;
	ck_assert_uint_eq(dbha__classcache_size(cache, &bytes), 1);
	dbha__classcache_free(cache);
}
END_TEST

START_TEST(it_is_bounded_in_entries_and_in_bytes_and_forgets_the_oldest)
{
	size_t bytes, n;
	struct classify_verdict verdict;
	struct classcache *cache = new_cache(64, 1 << 20);
	for (int i = 0; i < 10000; i++) {
		dbha__classcache_put(cache, number(i), 1, &read_verdict);
		ck_assert_msg(dbha__classcache_find(cache, number(i), 1, &verdict), "the newest, %d", i);
		dbha__classcache_put(cache, "SELECT used", 1, &read_verdict);
		ck_assert(dbha__classcache_find(cache, "SELECT used", 1, &verdict));
	}
	n = dbha__classcache_size(cache, &bytes);
	ck_assert_msg(n >= 32 && n <= 72, "%zu", n);
	ck_assert(!dbha__classcache_find(cache, number(0), 1, &verdict));
	dbha__classcache_free(cache);

	cache = new_cache(100000, 80000);
	for (int i = 0; i < 10000; i++)
		dbha__classcache_put(cache, number(i), 1, &read_verdict);
	n = dbha__classcache_size(cache, &bytes);
	ck_assert_msg(bytes <= 80000 && n > 100, "%zu entries, %zu bytes", n, bytes);
	char *giant = malloc(20001);
	memset(giant, 'x', 20000);
	giant[20000] = '\0';
	dbha__classcache_put(cache, giant, 1, &read_verdict);
	ck_assert(!dbha__classcache_find(cache, giant, 1, &verdict));
	ck_assert_uint_eq(dbha__classcache_size(cache, &bytes), n);
	free(giant);
	dbha__classcache_free(cache);
}
END_TEST

/* Each thread puts reads of even numbers and writes of odd ones, and believes nothing else. */
static void *hammer(void *arg)
{
	struct classcache *cache = arg;
	for (int i = 0; i < 20000; i++) {
		int k = i * 7919 % 300;
		struct classify_verdict verdict, right = {.is = k % 2 ? CLASS_WRITE : CLASS_READ};
		if (!dbha__classcache_find(cache, number(k), 1, &verdict))
			dbha__classcache_put(cache, number(k), 1, &right);
		else if (verdict.is != right.is)
			return cache;
	}
	return NULL;
}

START_TEST(threads_see_whole_verdicts)
{
	struct classcache *cache = new_cache(128, 1 << 20);
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, cache), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	dbha__classcache_free(cache);
}
END_TEST

START_TEST(the_intent_comes_from_the_cache_the_second_time)
{
	struct classcache *cache = new_cache(100, 100000);
	struct classify_limits limits = CLASSIFY_LIMITS;
	struct classify_verdict verdict;
	size_t bytes;
	ck_assert_int_eq(dbha__classify_intent(cache, NULL, 0, &limits, "SELECT 1", &verdict), DBHA_WRITE);
	ck_assert_uint_eq(dbha__classcache_size(cache, &bytes), 0); /* what is not known yet is not kept */
	struct function_book *book = dbha__function_book_new();
	ck_assert(dbha__function_book_finish(book));
	dbha_intent expected = dbha__classify_available() ? DBHA_READ : DBHA_WRITE;
	ck_assert_int_eq(dbha__classify_intent(cache, book, 1, &limits, "SELECT 1", &verdict), expected);
	ck_assert_int_eq(dbha__classify_intent(cache, book, 1, &limits, "SELECT 1", &verdict), expected);
	ck_assert_uint_eq(dbha__classcache_size(cache, &bytes), 1);
	ck_assert_int_eq(dbha__classify_intent(cache, book, 1, &limits, "/* dbha:standby */ DELETE FROM t", &verdict),
	                 DBHA_READ);
	dbha__classcache_remember_write(cache, "SELECT 1");
	ck_assert_int_eq(dbha__classify_intent(cache, book, 2, &limits, "SELECT 1", &verdict), DBHA_WRITE);
	dbha__function_book_free(book);
	dbha__classcache_free(cache);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("classcache");
	TCase *tests = tcase_create("classcache");
	tcase_add_test(tests, what_was_put_is_found_for_its_generation);
	tcase_add_test(tests, a_refusal_stays);
	tcase_add_test(tests, it_is_bounded_in_entries_and_in_bytes_and_forgets_the_oldest);
	tcase_add_test(tests, threads_see_whole_verdicts);
	tcase_add_test(tests, the_intent_comes_from_the_cache_the_second_time);
	suite_add_tcase(suite, tests);
	return suite;
}

UNIT_MAIN(make_suite)
