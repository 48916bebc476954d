/*
 * test_bookshelf: when a new book is due and who fetches it; that a replaced one serves those who hold it; what is remembered.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bookshelf.h"
#include "unit.h"

#define SECOND ((int64_t)1000000)
#define START  (1000 * SECOND)

static struct bookshelf shelf;

static void open_shelf(void)
{
	ck_assert_int_eq(dbha__bookshelf_init(&shelf, true), 0);
}

static void close_shelf(void)
{
	dbha__bookshelf_fini(&shelf);
}

static struct function_book *new_names(void)
{
	struct function_book *names = dbha__function_book_new();
	ck_assert(names && dbha__function_book_add(names, BOOK_FUNCTION, "public", '3', "f") &&
	          dbha__function_book_finish(names));
	return names;
}

/* A fetch of so long, which has succeeded or not. */
static void fetch(int64_t began, int64_t took, bool good)
{
	ck_assert(dbha__bookshelf_claim(&shelf, 0, began));
	dbha__bookshelf_put(&shelf, good ? new_names() : NULL, &CLASSIFY_LIMITS, began, began + took);
}

START_TEST(the_first_who_needs_a_book_fetches_it_and_nobody_else)
{
	ck_assert_ptr_null(dbha__bookshelf_take(&shelf));
	ck_assert(dbha__bookshelf_due(&shelf, BOOK_AGE_US, START));
	ck_assert(dbha__bookshelf_claim(&shelf, BOOK_AGE_US, START));
	ck_assert(!dbha__bookshelf_claim(&shelf, 0, START));
	ck_assert(!dbha__bookshelf_claim(&shelf, 0, START + 100 * SECOND));
	ck_assert_ptr_null(dbha__bookshelf_take(&shelf));
	dbha__bookshelf_put(&shelf, new_names(), &CLASSIFY_LIMITS, START, START + 1000);
	struct book *book = dbha__bookshelf_take(&shelf);
	ck_assert_ptr_nonnull(book);
	ck_assert_uint_ne(book->generation, 0);
	dbha__bookshelf_drop(book);
	dbha__bookshelf_drop(NULL);
}
END_TEST

/* Counted from the beginning of the fetch: what was made meanwhile may be missing. */
START_TEST(a_book_is_due_by_its_age)
{
	fetch(START, 100000, true);
	ck_assert(!dbha__bookshelf_due(&shelf, BOOK_AGE_NEWS_US, START + BOOK_AGE_NEWS_US - 1));
	ck_assert(dbha__bookshelf_due(&shelf, BOOK_AGE_NEWS_US, START + BOOK_AGE_NEWS_US));
	ck_assert(!dbha__bookshelf_due(&shelf, BOOK_AGE_US, START + BOOK_AGE_US - 1));
	ck_assert(dbha__bookshelf_due(&shelf, BOOK_AGE_US, START + BOOK_AGE_US));
	ck_assert(!dbha__bookshelf_due(&shelf, INT64_MAX, START + BOOK_AGE_US));
}
END_TEST

START_TEST(after_a_failure_there_is_peace)
{
	fetch(START, 1000, false);
	int64_t end = START + 1000;
	ck_assert_ptr_null(dbha__bookshelf_take(&shelf));
	ck_assert(!dbha__bookshelf_due(&shelf, 0, end + BOOK_RETRY_US - 1));
	ck_assert(dbha__bookshelf_due(&shelf, 0, end + BOOK_RETRY_US));
	fetch(end + BOOK_RETRY_US, 2 * SECOND, false);
	end += BOOK_RETRY_US + 2 * SECOND;
	ck_assert(!dbha__bookshelf_due(&shelf, 0, end + 20 * SECOND - 1));
	ck_assert(dbha__bookshelf_due(&shelf, 0, end + 20 * SECOND));
	/* The old one stays, if there is one. */
	fetch(end + 20 * SECOND, 1000, true);
	fetch(end + 60 * SECOND, 1000, false);
	struct book *book = dbha__bookshelf_take(&shelf);
	ck_assert_ptr_nonnull(book);
	dbha__bookshelf_drop(book);
}
END_TEST

START_TEST(what_takes_long_is_not_fetched_often)
{
	fetch(START, 2 * SECOND, true);
	ck_assert(!dbha__bookshelf_due(&shelf, BOOK_AGE_NEWS_US, START + 200 * SECOND - 1));
	ck_assert(dbha__bookshelf_due(&shelf, BOOK_AGE_NEWS_US, START + 200 * SECOND));
}
END_TEST

START_TEST(a_replaced_book_serves_who_holds_it)
{
	struct classify_verdict verdict, read = {.is = CLASS_READ};
	fetch(START, 1000, true);
	struct book *first = dbha__bookshelf_take(&shelf);
	dbha__classcache_put(atomic_load(&shelf.verdicts), "SELECT 1", first->generation, &read);
	ck_assert(dbha__bookshelf_find(&shelf, "SELECT 1", &verdict));
	fetch(START + 400 * SECOND, 1000, true);
	struct book *second = dbha__bookshelf_take(&shelf);
	ck_assert_ptr_ne(first, second);
	ck_assert_uint_ne(first->generation, second->generation);
	ck_assert_int_eq(dbha__function_book_ask(first->names, BOOK_FUNCTION, NULL, "f"), BOOK_HARMLESS);
	/* Its verdicts are not those of the new one. */
	ck_assert(!dbha__bookshelf_find(&shelf, "SELECT 1", &verdict));
	dbha__bookshelf_drop(first);
	dbha__bookshelf_drop(second);
}
END_TEST

START_TEST(a_refusal_is_remembered_for_all_books)
{
	struct classify_verdict verdict;
	ck_assert(!dbha__bookshelf_is_write(&shelf, "SELECT f()"));
	dbha__bookshelf_remember_write(&shelf, "SELECT f()");
	ck_assert(dbha__bookshelf_is_write(&shelf, "SELECT f()"));
	ck_assert(!dbha__bookshelf_is_write(&shelf, "SELECT g()"));
	fetch(START, 1000, true);
	ck_assert(dbha__bookshelf_is_write(&shelf, "SELECT f()"));
	ck_assert(dbha__bookshelf_find(&shelf, "SELECT f()", &verdict));
	ck_assert_int_eq(verdict.why, WHY_REFUSED_BEFORE);
	/* A verdict is no refusal. */
	dbha__classcache_put(atomic_load(&shelf.verdicts), "SELECT g()", 1, &(struct classify_verdict){.is = CLASS_WRITE});
	ck_assert(!dbha__bookshelf_is_write(&shelf, "SELECT g()"));
}
END_TEST

/* routing=intent: no memory is taken before there is something to remember. */
START_TEST(without_classifying_there_is_a_cache_for_refusals_only)
{
	struct bookshelf plain;
	struct classify_verdict verdict;
	ck_assert_int_eq(dbha__bookshelf_init(&plain, false), 0);
	ck_assert_ptr_null(atomic_load(&plain.verdicts));
	ck_assert(!dbha__bookshelf_find(&plain, "SELECT f()", &verdict));
	ck_assert(!dbha__bookshelf_is_write(&plain, "SELECT f()"));
	dbha__bookshelf_remember_write(&plain, "SELECT f()");
	ck_assert(dbha__bookshelf_is_write(&plain, "SELECT f()"));
	dbha__bookshelf_fini(&plain);
}
END_TEST

/* ---- threads ---------------------------------------------------------------------------------------------------------- */

static _Atomic int fetching, fetched;

/* Whoever may fetches; the others look things up in whatever book there is. Nothing asserts in here. */
static void *reader(void *arg)
{
	uint64_t last = 0;
	for (int i = 0; i < 20000; i++) {
		int64_t now = START + (int64_t)i * 100000;
		char sql[32];
		snprintf(sql, sizeof sql, "SELECT %d", i % 50);
		if (dbha__bookshelf_claim(&shelf, BOOK_AGE_NEWS_US, now)) {
			if (atomic_fetch_add(&fetching, 1) != 0)
				return arg;
			atomic_fetch_sub(&fetching, 1);
			dbha__bookshelf_put(&shelf, i % 7 ? new_names() : NULL, &CLASSIFY_LIMITS, now, now + 10);
			atomic_fetch_add(&fetched, 1);
		}
		struct book *book = dbha__bookshelf_take(&shelf);
		if (book && (book->generation < last ||
		             dbha__function_book_ask(book->names, BOOK_FUNCTION, NULL, "f") != BOOK_HARMLESS))
			return arg;
		last = book ? book->generation : last;
		dbha__bookshelf_drop(book);
		if (i % 100 == 0)
			dbha__bookshelf_remember_write(&shelf, sql);
		else
			dbha__bookshelf_is_write(&shelf, sql);
	}
	return NULL;
}

START_TEST(one_fetches_at_a_time)
{
	pthread_t threads[4];
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, reader, &shelf), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
	ck_assert_int_gt(fetched, 10);
}
END_TEST

/* The fetch of the parent's is never ended in the child, where its thread is not. */
START_TEST(in_a_child_the_book_and_the_memory_stay_and_the_fetch_is_free)
{
	fetch(START, 1000, true);
	dbha__bookshelf_remember_write(&shelf, "SELECT f()");
	ck_assert(dbha__bookshelf_claim(&shelf, BOOK_AGE_US, START + BOOK_AGE_US));
	dbha__bookshelf_lock_for_fork(&shelf);
	pid_t pid = fork();
	dbha__bookshelf_unlock_after_fork(&shelf);
	if (pid == 0) {
		bool kept = !dbha__bookshelf_claim(&shelf, BOOK_AGE_US, START + BOOK_AGE_US);
		dbha__bookshelf_reset_after_fork(&shelf);
		bool free_again = dbha__bookshelf_claim(&shelf, BOOK_AGE_US, START + BOOK_AGE_US);
		struct book *book = dbha__bookshelf_take(&shelf);
		_exit(kept && free_again && book && dbha__bookshelf_is_write(&shelf, "SELECT f()") ? 0 : 1);
	}
	int status = -1;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("bookshelf");
	TCase *tests = tcase_create("bookshelf");
	tcase_add_checked_fixture(tests, open_shelf, close_shelf);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, the_first_who_needs_a_book_fetches_it_and_nobody_else);
	tcase_add_test(tests, a_book_is_due_by_its_age);
	tcase_add_test(tests, after_a_failure_there_is_peace);
	tcase_add_test(tests, what_takes_long_is_not_fetched_often);
	tcase_add_test(tests, a_replaced_book_serves_who_holds_it);
	tcase_add_test(tests, a_refusal_is_remembered_for_all_books);
	tcase_add_test(tests, without_classifying_there_is_a_cache_for_refusals_only);
	tcase_add_test(tests, one_fetches_at_a_time);
	tcase_add_test(tests, in_a_child_the_book_and_the_memory_stay_and_the_fetch_is_free);
	suite_add_tcase(suite, tests);
	return suite;
}

UNIT_MAIN(make_suite)
