/*
 * test_budget: what a handle may spend on retries: a full bucket at first, a share of the traffic, a floor, never more at a
 * time than the bucket holds.
 */

#include "budget.h"
#include "rng.h"
#include "unit.h"

#define SECOND ((int64_t)1000000)

/* After so many statements in so many seconds, with `before` retries spent at the beginning: how many more there are. */
static const struct row {
	struct budget budget;
	int64_t statements;
	double seconds;
	int before;
	int left;
} rows[] = {
    /* The bucket: a retry for each connection, and a second's floor. */
    {{20, 30}, 0, 0, 0, 40},
    {{20, 30}, 0, 0, 39, 1},
    {{20, 30}, 0, 0, 40, 0},
    {{20, 1}, 0, 0, 0, 11},
    {{1, 320}, 0, 0, 0, 330},
    /* The share of the statements. */
    {{20, 30}, 100, 0, 40, 20},
    {{20, 30}, 4, 0, 40, 0},
    {{20, 30}, 5, 0, 40, 1},
    {{1, 30}, 100, 0, 40, 1},
    {{100, 30}, 7, 0, 40, 7},
    /* The floor of a handle that has nothing to do. */
    {{20, 30}, 0, 0.05, 40, 0},
    {{20, 30}, 0, 0.1, 40, 1},
    {{20, 30}, 0, 1, 40, 10},
    {{1, 30}, 10, 1, 40, 10},
    /* What is not spent does not pile up. */
    {{20, 30}, 1000000, 0, 40, 40},
    {{20, 30}, 0, 86400 * 365, 40, 40},
    {{20, 30}, 1000000000000, 86400 * 365, 0, 40},
};

static int spend_all(const struct budget *budget, int64_t earned, int64_t *spent, int most)
{
	int n = 0;
	while (n < most && dbha__budget_spend(budget, earned, spent))
		n++;
	return n;
}

START_TEST(retries_are_bounded)
{
	const struct row *row = &rows[_i];
	int64_t spent = 0;
	int before = spend_all(&row->budget, dbha__budget_earned(&row->budget, 0, 0), &spent, row->before);
	ck_assert_int_eq(before, row->before);
	int64_t earned = dbha__budget_earned(&row->budget, row->statements, (int64_t)(row->seconds * (double)SECOND));
	int left = spend_all(&row->budget, earned, &spent, 100000);
	ck_assert_msg(left == row->left, "row %d: %d left, expected %d", _i, left, row->left);
}
END_TEST

START_TEST(a_refusal_costs_nothing)
{
	struct budget budget = {20, 30};
	int64_t spent = 0;
	spend_all(&budget, dbha__budget_earned(&budget, 0, 0), &spent, 1000);
	int64_t before = spent;
	for (int i = 0; i < 1000; i++)
		ck_assert(!dbha__budget_spend(&budget, dbha__budget_earned(&budget, 4, 0), &spent));
	ck_assert_int_eq(spent, before);
	ck_assert(dbha__budget_spend(&budget, dbha__budget_earned(&budget, 5, 0), &spent));
}
END_TEST

START_TEST(zero_is_no_limit)
{
	struct budget budget = {0, 1};
	int64_t spent = 0;
	ck_assert_int_eq(spend_all(&budget, dbha__budget_earned(&budget, 0, 0), &spent, 100000), 100000);
}
END_TEST

/* Every statement fails, and is sent again as often as it may be: the load goes up by the share and no more. */
START_TEST(a_storm_is_bounded_by_the_share)
{
	struct budget budget = {1 + _i % 100, 30};
	int64_t spent = 0, retries = 0, now = 0;
	struct rng rng = {(uint64_t)_i};
	for (int64_t statements = 1; statements <= 100000; statements++) {
		now += (int64_t)dbha__rng_below(&rng, 2000); /* a thousand a second */
		retries += spend_all(&budget, dbha__budget_earned(&budget, statements, now), &spent, 20);
	}
	int64_t most = 40 + 1000 * budget.percent + now * BUDGET_FLOOR_PER_S / SECOND;
	ck_assert_int_le(retries, most);
	ck_assert_int_ge(retries, most - 5);
}
END_TEST

/* Losses of a node, one every few seconds: each connection fails once, and none of them is refused. */
START_TEST(a_busy_handle_that_loses_a_node_again_and_again_is_not_refused)
{
	struct budget budget = {20, 3 * 10};
	int64_t spent = 0;
	for (int64_t at = 1; at < 200; at += 2) /* two seconds at 100 statements a second */
		ck_assert_int_eq(spend_all(&budget, dbha__budget_earned(&budget, at * 100, at * SECOND), &spent, 30), 30);
}
END_TEST

static Suite *budget_suite(void)
{
	TCase *tcase = tcase_create("budget");
	tcase_add_loop_test(tcase, retries_are_bounded, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, a_refusal_costs_nothing);
	tcase_add_test(tcase, zero_is_no_limit);
	tcase_add_loop_test(tcase, a_storm_is_bounded_by_the_share, 0, 100);
	tcase_add_test(tcase, a_busy_handle_that_loses_a_node_again_and_again_is_not_refused);
	Suite *suite = suite_create("budget");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(budget_suite)
