/*
 * test_shared: what the handles of a process share: kept by key, no secret in the key, the oldest makes room.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared.h"
#include "unit.h"

static struct view view_of(uint32_t timeline)
{
	struct view view;
	dbha__topology_init(&view, 2);
	view.timeline = timeline;
	return view;
}

static char text[32];
static const char *key_number(int i)
{
	snprintf(text, sizeof text, "cluster %d", i);
	return text;
}

START_TEST(what_was_stored_is_loaded)
{
	struct view view = view_of(7), got;
	struct lag_history lag = {.n = 0}, got_lag = {.n = 0};
	dbha__lag_sample(&lag, 5, 100);
	ck_assert(!dbha__shared_load("a", &got, &got_lag));
	dbha__shared_store("a", &view, &lag);
	ck_assert(dbha__shared_load("a", &got, &got_lag));
	ck_assert_uint_eq(got.timeline, 7);
	ck_assert_int_eq(got_lag.n, 1);
	view = view_of(8);
	dbha__shared_store("a", &view, &lag);
	ck_assert(dbha__shared_load("a", &got, &got_lag));
	ck_assert_uint_eq(got.timeline, 8);
	ck_assert(!dbha__shared_load("b", &got, &got_lag));
}
END_TEST

/* By a handle that has not asked the new primary yet. */
START_TEST(an_older_timeline_does_not_take_the_place_of_a_newer_one)
{
	struct lag_history lag = {.n = 0};
	struct view view = view_of(5), got;
	view.system_identifier = 77;
	dbha__shared_store("t", &view, &lag);
	view.timeline = 4;
	dbha__shared_store("t", &view, &lag);
	ck_assert(dbha__shared_load("t", &got, &lag));
	ck_assert_uint_eq(got.timeline, 5);
	/* Of another cluster, which has been accepted in its place, timelines say nothing. */
	view.system_identifier = 78;
	dbha__shared_store("t", &view, &lag);
	ck_assert(dbha__shared_load("t", &got, &lag));
	ck_assert_uint_eq(got.timeline, 4);
}
END_TEST

START_TEST(the_one_stored_longest_ago_makes_room)
{
	struct lag_history lag = {.n = 0};
	struct view got;
	for (int i = 0; i < 8; i++) {
		struct view view = view_of((uint32_t)i + 1);
		dbha__shared_store(key_number(i), &view, &lag);
	}
	struct view again = view_of(100);
	dbha__shared_store(key_number(0), &again, &lag);
	dbha__shared_store("one more", &again, &lag);
	ck_assert(!dbha__shared_load(key_number(1), &got, &lag));
	ck_assert(dbha__shared_load(key_number(0), &got, &lag));
	ck_assert_uint_eq(got.timeline, 100);
	for (int i = 2; i < 8; i++) {
		ck_assert_msg(dbha__shared_load(key_number(i), &got, &lag), "%d", i);
		ck_assert_uint_eq(got.timeline, (uint32_t)i + 1);
	}
}
END_TEST

START_TEST(a_key_has_nodes_and_role_and_no_secret)
{
	struct config_pair pairs[] = {{(char *)"user", (char *)"u"}, {(char *)"password", (char *)"hidden"}};
	struct config config = {.n_nodes = 1, .pairs = pairs, .n_pairs = 2};
	config.nodes[0].host = (char *)"h";
	config.nodes[0].port = (char *)"5432";
	char *one = dbha__shared_key(&config);
	ck_assert_ptr_null(strstr(one, "hidden"));
	config.nodes[0].port = (char *)"5433";
	char *other_port = dbha__shared_key(&config);
	config.nodes[0].port = (char *)"5432";
	pairs[0].value = (char *)"v";
	char *other_user = dbha__shared_key(&config);
	pairs[0].value = (char *)"u";
	char *same = dbha__shared_key(&config);
	ck_assert_str_eq(one, same);
	ck_assert_str_ne(one, other_port);
	ck_assert_str_ne(one, other_user);
	free(one);
	free(other_port);
	free(other_user);
	free(same);
}
END_TEST

static void *churn(void *arg)
{
	struct lag_history lag = {.n = 0};
	char key[16];
	for (int i = 0; i < 2000; i++) {
		struct view view = view_of((uint32_t)(i % 12) + 1), got;
		snprintf(key, sizeof key, "k%d", i % 12);
		dbha__shared_store(key, &view, &lag);
		if (dbha__shared_load(key, &got, &lag) && got.timeline != (uint32_t)(i % 12) + 1)
			return arg;
	}
	return NULL;
}

START_TEST(threads_see_whole_views)
{
	pthread_t threads[4];
	void *wrong;
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, churn, threads), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(threads[i], &wrong);
		ck_assert_ptr_null(wrong);
	}
}
END_TEST

static Suite *shared_suite(void)
{
	TCase *tcase = tcase_create("shared");
	tcase_add_test(tcase, what_was_stored_is_loaded);
	tcase_add_test(tcase, an_older_timeline_does_not_take_the_place_of_a_newer_one);
	tcase_add_test(tcase, the_one_stored_longest_ago_makes_room);
	tcase_add_test(tcase, a_key_has_nodes_and_role_and_no_secret);
	tcase_add_test(tcase, threads_see_whole_views);
	Suite *suite = suite_create("shared");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(shared_suite)
