/*
 * test_poolrules: how many connects to begin, who may wait, and when a connection is too old.
 */
#include <stdio.h>

#include "poolrules.h"
#include "unit.h"

#define HOUR_MS 3600000

/* min, max, connecting at most; idle, used, connecting, waiting -> how many to begin. */
static const struct wanted_row {
	int min_size, max_size, max_connecting;
	struct pool_counts counts;
	int wanted;
} wanted_rows[] = {
    /* Nobody waits, nothing is missing. */
    {0, 10, 3, {0, 0, 0, 0}, 0},
    {1, 10, 3, {1, 0, 0, 0}, 0},
    {1, 10, 3, {0, 1, 0, 0}, 0},
    {1, 10, 3, {0, 0, 1, 0}, 0},
    {5, 10, 3, {9, 0, 0, 0}, 0},
    /* Up to the minimum. */
    {1, 10, 3, {0, 0, 0, 0}, 1},
    {5, 10, 3, {0, 0, 0, 0}, 3},
    {5, 10, 8, {0, 0, 0, 0}, 5},
    {5, 10, 3, {2, 1, 1, 0}, 1},
    {5, 10, 3, {0, 0, 2, 0}, 1},
    {5, 10, 3, {0, 0, 3, 0}, 0},
    /* One for each waiter who is not served by a connect under way. */
    {0, 10, 3, {0, 0, 0, 1}, 1},
    {0, 10, 3, {0, 0, 0, 2}, 2},
    {0, 10, 3, {0, 0, 0, 50}, 3},
    {0, 10, 3, {0, 0, 1, 1}, 0},
    {0, 10, 3, {0, 0, 1, 2}, 1},
    {0, 10, 3, {0, 0, 2, 1}, 0},
    {0, 10, 3, {0, 4, 0, 1}, 1},
    /* Waiters and the minimum are served by the same connects, not by two each. */
    {5, 10, 8, {0, 0, 0, 2}, 5},
    {5, 10, 8, {0, 0, 0, 7}, 7},
    {5, 10, 8, {0, 3, 0, 1}, 2},
    /* Never above the maximum, those under way included. */
    {0, 10, 3, {0, 10, 0, 5}, 0},
    {0, 10, 3, {0, 9, 0, 5}, 1},
    {0, 10, 3, {0, 8, 1, 5}, 1},
    {0, 10, 3, {0, 9, 1, 5}, 0},
    {10, 10, 100, {3, 3, 0, 0}, 4},
    {0, 1, 3, {0, 0, 0, 9}, 1},
    /* Never more at a time than allowed. */
    {0, 100, 1, {0, 0, 0, 9}, 1},
    {0, 100, 1, {0, 0, 1, 9}, 0},
    {0, 100, 3, {0, 0, 2, 9}, 1},
    {0, 100, 3, {0, 0, 3, 9}, 0},
    /* A limit that was lowered below what there is. */
    {0, 5, 3, {4, 4, 0, 2}, 0},
    {0, 50, 2, {0, 0, 4, 20}, 0},
};

START_TEST(connects_begin_as_wanted)
{
	const struct wanted_row *row = &wanted_rows[_i];
	struct pool_limits limits = {
	    .min_size = row->min_size, .max_size = row->max_size, .max_connecting = row->max_connecting};
	ck_assert_int_eq(dbha__pool_wanted(&limits, &row->counts), row->wanted);
}
END_TEST

START_TEST(no_counts_break_a_limit)
{
	struct rng rng = {dbha__rng_entropy(wanted_rows)};
	uint64_t seed = rng.state;
	printf("poolrules: seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < 100000; i++) {
		struct pool_limits limits = {.max_size = 1 + (int)dbha__rng_below(&rng, 30),
		                             .max_connecting = 1 + (int)dbha__rng_below(&rng, 5)};
		limits.min_size = (int)dbha__rng_below(&rng, (uint64_t)limits.max_size + 1);
		struct pool_counts counts = {.idle = (int)dbha__rng_below(&rng, 12),
		                             .used = (int)dbha__rng_below(&rng, 12),
		                             .connecting = (int)dbha__rng_below(&rng, 5),
		                             .waiting = (int)dbha__rng_below(&rng, 20)};
		int total = counts.idle + counts.used + counts.connecting;
		int wanted = dbha__pool_wanted(&limits, &counts);
		bool room = total < limits.max_size && counts.connecting < limits.max_connecting;
		bool need = counts.waiting > counts.connecting || total < limits.min_size;
		if (wanted < 0 || (wanted > 0 && total + wanted > limits.max_size) ||
		    (wanted > 0 && counts.connecting + wanted > limits.max_connecting) || (wanted > 0) != (room && need))
			ck_abort_msg("seed %llu, draw %d: min %d max %d at once %d, idle %d used %d connecting %d waiting %d: %d",
			             (unsigned long long)seed, i, limits.min_size, limits.max_size, limits.max_connecting,
			             counts.idle, counts.used, counts.connecting, counts.waiting, wanted);
	}
}
END_TEST

START_TEST(the_queue_has_a_limit_or_none)
{
	static const struct {
		int max_waiting, waiting;
		bool may;
	} cases[] = {{0, 0, true}, {0, 1000000, true}, {1, 0, true}, {1, 1, false},
	             {3, 2, true}, {3, 3, false},      {3, 4, false}};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct pool_limits limits = {.max_size = 1, .max_waiting = cases[i].max_waiting};
		struct pool_counts counts = {.waiting = cases[i].waiting};
		ck_assert_msg(dbha__pool_may_wait(&limits, &counts) == cases[i].may, "%d of %d wait", cases[i].waiting,
		              cases[i].max_waiting);
	}
}
END_TEST

START_TEST(lifetimes_end_apart)
{
	struct pool_limits limits = {.max_lifetime_ms = HOUR_MS};
	struct rng rng = {dbha__rng_entropy(&limits)};
	printf("poolrules, lifetimes: seed %llu\n", (unsigned long long)rng.state);
	int64_t now = 5000000;
	int64_t hour = (int64_t)HOUR_MS * 1000;
	int bins[10] = {0};
	for (int i = 0; i < 100000; i++) {
		int64_t lives = dbha__pool_expiry(&limits, now, &rng) - now;
		if (lives > hour || lives < hour - hour / 4)
			ck_abort_msg("a lifetime of %lld us", (long long)lives);
		bins[(hour - lives) * 10 / (hour / 4 + 1)]++;
	}
	for (int i = 0; i < 10; i++)
		ck_assert_msg(bins[i] > 9400 && bins[i] < 10600, "bin %d: %d", i, bins[i]);
	limits.max_lifetime_ms = 0;
	ck_assert_int_eq(dbha__pool_expiry(&limits, now, &rng), INT64_MAX);
	limits.max_lifetime_ms = 1;
	int64_t expiry = dbha__pool_expiry(&limits, now, &rng);
	ck_assert(expiry >= now + 750 && expiry <= now + 1000);
}
END_TEST

/* min_size, max_idle_ms; idle and used; how long idle, in us. */
static const struct {
	int min_size, max_idle_ms, idle, used;
	int64_t idle_us;
	bool too_long;
} idle_rows[] = {
    {0, 100, 1, 0, 99999, false},
    {0, 100, 1, 0, 100000, false},
    {0, 100, 1, 0, 100001, true},
    {1, 100, 1, 0, 999999, false},
    {1, 100, 2, 0, 999999, true},
    {2, 100, 1, 1, 999999, false},
    {2, 100, 1, 2, 999999, true},
    {2, 100, 2, 2, 50000, false},
    {0, 604800000, 5, 5, 604800000000, false},
    {0, 604800000, 5, 5, 604800000001, true},
};

START_TEST(idle_ones_go_down_to_the_minimum)
{
	struct pool_limits limits = {
	    .min_size = idle_rows[_i].min_size, .max_size = 10, .max_idle_ms = idle_rows[_i].max_idle_ms};
	struct pool_counts counts = {.idle = idle_rows[_i].idle, .used = idle_rows[_i].used};
	int64_t since = 123456789;
	ck_assert_int_eq(dbha__pool_idle_too_long(&limits, &counts, since + idle_rows[_i].idle_us, since),
	                 idle_rows[_i].too_long);
}
END_TEST

static Suite *poolrules_suite(void)
{
	TCase *tcase = tcase_create("poolrules");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, connects_begin_as_wanted, 0, sizeof wanted_rows / sizeof wanted_rows[0]);
	tcase_add_test(tcase, no_counts_break_a_limit);
	tcase_add_test(tcase, the_queue_has_a_limit_or_none);
	tcase_add_test(tcase, lifetimes_end_apart);
	tcase_add_loop_test(tcase, idle_ones_go_down_to_the_minimum, 0, sizeof idle_rows / sizeof idle_rows[0]);
	Suite *suite = suite_create("poolrules");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(poolrules_suite)
