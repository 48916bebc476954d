/*
 * test_view: what is published stays as it was for who took it, and those who wait for the cluster to change are woken.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "unit.h"
#include "view.h"

#define THREADS   8
#define PUBLISHED 3000
#define FAR_US    ((int64_t)600 * 1000000) /* further than any test may last */

/* A view in which every part tells the version, so that a mixture of two would be seen. */
static struct view view_of_version(uint64_t version)
{
	struct view view;
	dbha__topology_init(&view, CONFIG_NODES_MAX);
	view.version = version;
	view.timeline = (uint32_t)version;
	for (int i = 0; i < view.n_nodes; i++)
		view.nodes[i].lsn = version;
	return view;
}

static bool is_of_one_version(const struct view *view)
{
	bool whole = view->timeline == (uint32_t)view->version;
	for (int i = 0; i < view->n_nodes; i++)
		whole = whole && view->nodes[i].lsn == view->version;
	return whole;
}

static void publish(struct view_holder *holder, uint64_t version)
{
	struct view view = view_of_version(version);
	ck_assert(dbha__view_publish(holder, &view));
}

static void begin(struct view_holder *holder)
{
	ck_assert_int_eq(dbha__view_init(holder, 3), 0);
}

START_TEST(the_first_view_knows_nothing)
{
	struct view_holder holder;
	begin(&holder);
	struct shared_view *shared = dbha__view_take(&holder);
	ck_assert_int_eq(shared->view.n_nodes, 3);
	ck_assert_int_eq(shared->view.primary, -1);
	ck_assert(!shared->view.settled);
	dbha__view_drop(shared);
	dbha__view_drop(NULL);
	dbha__view_fini(&holder);
}
END_TEST

START_TEST(a_view_that_was_taken_never_changes)
{
	struct view_holder holder;
	begin(&holder);
	publish(&holder, 1);
	struct shared_view *one = dbha__view_take(&holder);
	struct shared_view *again = dbha__view_take(&holder);
	ck_assert_ptr_eq(one, again);
	dbha__view_drop(again);
	publish(&holder, 2);
	publish(&holder, 3);
	struct shared_view *three = dbha__view_take(&holder);
	ck_assert_uint_eq(one->view.version, 1);
	ck_assert(is_of_one_version(&one->view));
	ck_assert_uint_eq(three->view.version, 3);
	dbha__view_fini(&holder);
	/* Both outlive the holder. */
	ck_assert_uint_eq(one->view.version, 1);
	ck_assert_uint_eq(three->view.version, 3);
	dbha__view_drop(one);
	dbha__view_drop(three);
}
END_TEST

START_TEST(what_is_published_is_a_copy)
{
	struct view_holder holder;
	begin(&holder);
	struct view view = view_of_version(9);
	ck_assert(dbha__view_publish(&holder, &view));
	memset(&view, 0xff, sizeof view);
	struct shared_view *shared = dbha__view_take(&holder);
	ck_assert_uint_eq(shared->view.version, 9);
	ck_assert(is_of_one_version(&shared->view));
	dbha__view_drop(shared);
	dbha__view_fini(&holder);
}
END_TEST

START_TEST(a_wait_that_is_over_does_not_begin)
{
	struct view_holder holder;
	begin(&holder);
	publish(&holder, 5);
	ck_assert(dbha__view_wait(&holder, 4, 0));
	ck_assert(dbha__view_wait(&holder, 4, CLOCK_NEVER));
	ck_assert(dbha__view_wait(&holder, 6, CLOCK_NEVER)); /* another one, not a higher one */
	ck_assert(!dbha__view_wait(&holder, 5, 0));
	ck_assert(!dbha__view_wait(&holder, 5, dbha__clock_now()));
	dbha__view_close(&holder);
	ck_assert(!dbha__view_wait(&holder, 5, CLOCK_NEVER));
	ck_assert(!dbha__view_wait(&holder, 4, CLOCK_NEVER));
	dbha__view_fini(&holder);
}
END_TEST

struct waiter {
	pthread_t thread;
	struct view_holder *holder;
	uint64_t version;
	int64_t deadline;
	pthread_barrier_t *ready;
	bool changed;
};

struct waiters {
	pthread_barrier_t ready;
	struct waiter list[THREADS];
};

static void *wait_once(void *arg)
{
	struct waiter *waiter = arg;
	pthread_barrier_wait(waiter->ready);
	waiter->changed = dbha__view_wait(waiter->holder, waiter->version, waiter->deadline);
	return NULL;
}

/* All have begun when this returns; some wait already, others are about to: both must be served. */
static void start_waiters(struct waiters *waiters, struct view_holder *holder, uint64_t version, int64_t deadline)
{
	pthread_barrier_init(&waiters->ready, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++) {
		struct waiter *waiter = &waiters->list[i];
		*waiter = (struct waiter){.holder = holder, .version = version, .deadline = deadline, .ready = &waiters->ready};
		ck_assert_int_eq(pthread_create(&waiter->thread, NULL, wait_once, waiter), 0);
	}
	pthread_barrier_wait(&waiters->ready);
}

/* How many saw another version. */
static int join_waiters(struct waiters *waiters)
{
	int changed = 0;
	for (int i = 0; i < THREADS; i++) {
		pthread_join(waiters->list[i].thread, NULL);
		changed += waiters->list[i].changed;
	}
	pthread_barrier_destroy(&waiters->ready);
	return changed;
}

START_TEST(a_new_version_wakes_everybody)
{
	for (int round = 0; round < 50; round++) {
		struct view_holder holder;
		struct waiters waiters;
		begin(&holder);
		publish(&holder, 1);
		start_waiters(&waiters, &holder, 1, round % 2 ? CLOCK_NEVER : dbha__clock_now() + FAR_US);
		publish(&holder, 2);
		ck_assert_int_eq(join_waiters(&waiters), THREADS);
		dbha__view_fini(&holder);
	}
}
END_TEST

/* A heartbeat is published too, for the status; nobody waits for that. */
START_TEST(the_same_version_wakes_nobody)
{
	struct view_holder holder;
	struct waiters waiters;
	begin(&holder);
	publish(&holder, 1);
	start_waiters(&waiters, &holder, 1, CLOCK_NEVER);
	for (int i = 0; i < 100; i++)
		publish(&holder, 1);
	dbha__view_close(&holder);
	ck_assert_int_eq(join_waiters(&waiters), 0);
	dbha__view_fini(&holder);
}
END_TEST

START_TEST(closing_wakes_everybody)
{
	for (int round = 0; round < 50; round++) {
		struct view_holder holder;
		struct waiters waiters;
		begin(&holder);
		start_waiters(&waiters, &holder, 0, CLOCK_NEVER);
		dbha__view_close(&holder);
		ck_assert_int_eq(join_waiters(&waiters), 0);
		dbha__view_fini(&holder);
	}
}
END_TEST

START_TEST(a_deadline_ends_a_wait)
{
	struct view_holder holder;
	struct waiters waiters;
	begin(&holder);
	int64_t deadline = dbha__clock_now() + 1000;
	start_waiters(&waiters, &holder, 0, deadline);
	ck_assert_int_eq(join_waiters(&waiters), 0);
	ck_assert_int_ge(dbha__clock_now(), deadline);
	dbha__view_fini(&holder);
}
END_TEST

/* Readers take, look and drop while views are published; each sees whole views, never an older one after a newer. */
static void *read_views(void *arg)
{
	struct view_holder *holder = arg;
	uint64_t last = 0;
	uintptr_t wrong = 0;
	while (last < PUBLISHED) {
		struct shared_view *shared = dbha__view_take(holder);
		wrong += !is_of_one_version(&shared->view) || shared->view.version < last;
		last = shared->view.version;
		dbha__view_drop(shared);
	}
	return (void *)wrong;
}

/* The same by waiting for each change: no change may be slept through, the last one above all. */
static void *follow_views(void *arg)
{
	struct view_holder *holder = arg;
	uint64_t last = 0;
	uintptr_t wrong = 0;
	while (last < PUBLISHED) {
		wrong += !dbha__view_wait(holder, last, CLOCK_NEVER);
		struct shared_view *shared = dbha__view_take(holder);
		wrong += shared->view.version <= last;
		last = shared->view.version;
		dbha__view_drop(shared);
	}
	return (void *)wrong;
}

START_TEST(readers_and_followers_see_whole_views_in_order)
{
	struct view_holder holder;
	pthread_t threads[THREADS];
	begin(&holder);
	struct view zero = view_of_version(0);
	ck_assert(dbha__view_publish(&holder, &zero));
	for (int i = 0; i < THREADS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, i % 2 ? read_views : follow_views, &holder), 0);
	for (uint64_t version = 1; version <= PUBLISHED; version++) {
		struct view view = view_of_version(version);
		if (!dbha__view_publish(&holder, &view))
			ck_abort_msg("out of memory at version %llu", (unsigned long long)version);
	}
	for (int i = 0; i < THREADS; i++) {
		void *wrong;
		pthread_join(threads[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
	dbha__view_fini(&holder);
}
END_TEST

static bool was_woken(struct wake *wake)
{
	struct pollfd item = {.fd = wake->read_fd, .events = POLLIN};
	bool woken = poll(&item, 1, 0) > 0;
	dbha__wake_drain(wake);
	return woken;
}

START_TEST(watchers_are_told_of_a_new_version_and_of_the_end)
{
	struct view_holder holder;
	struct wake wakes[3];
	struct view_watcher watchers[3];
	begin(&holder);
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(dbha__wake_init(&wakes[i]), 0);
		watchers[i] = (struct view_watcher){.wake = &wakes[i]};
		dbha__view_watch(&holder, &watchers[i]);
	}
	publish(&holder, 5);
	publish(&holder, 5);
	for (int i = 0; i < 3; i++)
		ck_assert(was_woken(&wakes[i]));
	publish(&holder, 5); /* the same one again */
	for (int i = 0; i < 3; i++)
		ck_assert(!was_woken(&wakes[i]));
	/* Each can go, whatever its place in the list. */
	static const int order[] = {1, 2, 0};
	for (int gone = 0; gone < 3; gone++) {
		dbha__view_unwatch(&holder, &watchers[order[gone]]);
		ck_assert(!watchers[order[gone]].watching);
		publish(&holder, 6 + (uint64_t)gone);
		for (int i = 0; i < 3; i++)
			ck_assert_int_eq(was_woken(&wakes[order[i]]), i > gone);
	}
	dbha__view_watch(&holder, &watchers[0]);
	dbha__view_close(&holder);
	ck_assert(was_woken(&wakes[0]));
	/* In a child they are nobody's. */
	dbha__view_reset_after_fork(&holder, 3);
	ck_assert(!watchers[0].watching);
	ck_assert(!was_woken(&wakes[0]));
	publish(&holder, 99);
	ck_assert(!was_woken(&wakes[0]));
	for (int i = 0; i < 3; i++)
		dbha__wake_fini(&wakes[i]);
	dbha__view_fini(&holder);
}
END_TEST

START_TEST(a_child_begins_with_nothing_known)
{
	struct view_holder holder;
	begin(&holder);
	struct view view = view_of_version(41);
	view.settled = true;
	view.primary = 2;
	ck_assert(dbha__view_publish(&holder, &view));
	dbha__view_reset_after_fork(&holder, 3);
	struct shared_view *shared = dbha__view_take(&holder);
	ck_assert_uint_gt(shared->view.version, 41);
	ck_assert(!shared->view.settled);
	ck_assert_int_eq(shared->view.primary, -1);
	ck_assert_int_eq(shared->view.n_nodes, 3);
	ck_assert_uint_eq(shared->view.nodes[0].lsn, 0);
	dbha__view_drop(shared);
	dbha__view_fini(&holder);
}
END_TEST

static Suite *view_suite(void)
{
	TCase *tcase = tcase_create("view");
	tcase_set_timeout(tcase, 120);
	tcase_add_test(tcase, the_first_view_knows_nothing);
	tcase_add_test(tcase, a_view_that_was_taken_never_changes);
	tcase_add_test(tcase, what_is_published_is_a_copy);
	tcase_add_test(tcase, a_wait_that_is_over_does_not_begin);
	tcase_add_test(tcase, a_new_version_wakes_everybody);
	tcase_add_test(tcase, the_same_version_wakes_nobody);
	tcase_add_test(tcase, closing_wakes_everybody);
	tcase_add_test(tcase, a_deadline_ends_a_wait);
	tcase_add_test(tcase, readers_and_followers_see_whole_views_in_order);
	tcase_add_test(tcase, watchers_are_told_of_a_new_version_and_of_the_end);
	tcase_add_test(tcase, a_child_begins_with_nothing_known);
	Suite *suite = suite_create("view");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(view_suite)
