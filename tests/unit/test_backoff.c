/*
 * test_backoff: the bounds of a pause, and that pauses are spread evenly over them.
 */
#include <limits.h>
#include <stdio.h>

#include "backoff.h"
#include "unit.h"

#define DRAWS 100000
#define BINS  20

/* The pause before retry n is drawn from 0 to limit_ms. */
static const struct row {
	int base_ms, cap_ms, n;
	int64_t limit_ms;
} rows[] = {
    {10, 1000, 0, 10},
    {10, 1000, 1, 20},
    {10, 1000, 2, 40},
    {10, 1000, 6, 640},
    {10, 1000, 7, 1000},
    {10, 1000, 8, 1000},
    {10, 1000, 1000, 1000},
    {10, 1000, INT_MAX, 1000},
    {1, 1, 0, 1},
    {1, 1, 5, 1},
    {1, 600000, 19, 524288},
    {1, 600000, 20, 600000},
    {60000, 600000, 3, 480000},
    {60000, 600000, 63, 600000},
    {INT_MAX, INT_MAX, 0, INT_MAX},
    {INT_MAX, INT_MAX, 64, INT_MAX},
    {1, INT_MAX, 64, INT_MAX},
    {500, 100, 0, 100},
    {500, 100, 3, 100},
    {0, 1000, 5, 0},
    {10, 0, 5, 0},
    {0, 0, 0, 0},
};

static struct rng seeded(const char *what)
{
	struct rng rng = {dbha__rng_entropy(what)};
	printf("backoff, %s: seed %llu\n", what, (unsigned long long)rng.state);
	fflush(stdout);
	return rng;
}

/* Half of 100,000 draws above the middle, a twentieth in each twentieth; seven standard deviations are not seen. */
START_TEST(a_pause_is_drawn_evenly_from_its_bounds)
{
	const struct row *row = &rows[_i];
	struct rng rng = seeded("bounds");
	int64_t limit_us = row->limit_ms * 1000;
	int bins[BINS] = {0};
	int64_t least = INT64_MAX;
	int64_t most = -1;
	for (int i = 0; i < DRAWS; i++) {
		int64_t pause = dbha__backoff_us(&rng, row->base_ms, row->cap_ms, row->n);
		if (pause < 0 || pause > limit_us)
			ck_abort_msg("base %d, cap %d, n %d: %lld us, limit %lld", row->base_ms, row->cap_ms, row->n,
			             (long long)pause, (long long)limit_us);
		least = pause < least ? pause : least;
		most = pause > most ? pause : most;
		bins[pause * BINS / (limit_us + 1)]++;
	}
	if (limit_us == 0)
		return;
	ck_assert_int_le(least, limit_us / 100);
	ck_assert_int_ge(most, limit_us - limit_us / 100);
	for (int i = 0; i < BINS; i++)
		ck_assert_msg(bins[i] > DRAWS / BINS - 500 && bins[i] < DRAWS / BINS + 500, "bin %d of %d: %d draws", i, BINS,
		              bins[i]);
}
END_TEST

/* Full jitter: clients that failed together come back apart. */
START_TEST(two_clients_do_not_come_back_together)
{
	struct rng a = seeded("one client");
	struct rng b = {a.state + 1};
	int together = 0;
	for (int i = 0; i < DRAWS; i++) {
		int64_t apart = dbha__backoff_us(&a, 10, 1000, 7) - dbha__backoff_us(&b, 10, 1000, 7);
		together += apart > -1000 && apart < 1000;
	}
	/* Within 1 ms of each other in a second: 2 in 1000 by chance. */
	ck_assert_int_lt(together, DRAWS * 3 / 1000);
}
END_TEST

START_TEST(a_seed_replays_its_pauses)
{
	struct rng a = {99};
	struct rng b = {99};
	for (int n = 0; n < 1000; n++)
		ck_assert_int_eq(dbha__backoff_us(&a, 10, 1000, n % 12), dbha__backoff_us(&b, 10, 1000, n % 12));
}
END_TEST

static Suite *backoff_suite(void)
{
	TCase *tcase = tcase_create("backoff");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, a_pause_is_drawn_evenly_from_its_bounds, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, two_clients_do_not_come_back_together);
	tcase_add_test(tcase, a_seed_replays_its_pauses);
	Suite *suite = suite_create("backoff");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(backoff_suite)
