/*
 * test_lag: the history of the primary's position, and the lag of a standby that follows from it.
 */
#include <stdio.h>

#include "lag.h"
#include "rng.h"
#include "unit.h"

#define SAMPLES 8
#define SECOND  1000000
#define NOW     INT64_MAX /* the standby was asked after the last sample */

/* Samples (second, LSN), then a standby's position and its lag. n: how many samples are kept. */
static const struct row {
	const char *name;
	int n_samples;
	struct {
		int64_t second;
		uint64_t lsn;
	} samples[SAMPLES];
	uint64_t replayed;
	int64_t lag_ms, lag_bytes;
	int n;
} rows[] = {
    {"nothing is known", 0, {{0, 0}}, 500, -1, -1, 0},
    {"the standby is level", 1, {{10, 1000}}, 1000, 0, 0, 1},
    {"the standby was asked later than the primary", 1, {{10, 1000}}, 1500, 0, 0, 1},
    {"one sample behind", 3, {{10, 1000}, {11, 2000}, {12, 3000}}, 2000, 1000, 1000, 3},
    {"between two samples: the older one is what it has", 3, {{10, 1000}, {11, 2000}, {12, 3000}}, 2999, 1000, 1, 3},
    {"at the oldest sample", 3, {{10, 1000}, {11, 2000}, {12, 3000}}, 1000, 2000, 2000, 3},
    {"before the oldest sample", 3, {{10, 1000}, {11, 2000}, {12, 3000}}, 999, 2000, 2001, 3},
    {"an idle primary: a level standby does not lag",
     4,
     {{10, 1000}, {11, 1000}, {12, 1000}, {99, 1000}},
     1000,
     0,
     0,
     2},
    {"an idle primary: a standby behind lags more and more",
     5,
     {{10, 1000}, {11, 2000}, {12, 2000}, {13, 2000}, {60, 2000}},
     1500,
     50000,
     500,
     3},
    {"an idle primary that wrote again: the standby is behind since the last moment of rest",
     5,
     {{10, 1000}, {11, 1000}, {50, 1000}, {51, 2000}, {52, 3000}},
     1000,
     2000,
     2000,
     4},
    {"a new primary before the old one's samples: those are dropped",
     4,
     {{10, 1000}, {11, 2000}, {12, 3000}, {13, 1500}},
     1500,
     0,
     0,
     2},
    {"a standby ahead of the new primary does not lag",
     4,
     {{10, 1000}, {11, 2000}, {12, 3000}, {13, 1500}},
     3000,
     0,
     0,
     2},
    {"a new primary before everything", 4, {{10, 1000}, {11, 2000}, {12, 3000}, {13, 500}}, 500, 0, 0, 1},
    {"a new primary exactly at an old sample", 4, {{10, 1000}, {11, 2000}, {12, 3000}, {13, 2000}}, 2000, 0, 0, 3},
    {"large positions", 2, {{10, 0x7fffffff00000000}, {11, 0x7fffffff80000000}}, 0x7fffffff7fffffff, 1000, 1, 2},
};

START_TEST(lag_is_read_from_the_history)
{
	const struct row *row = &rows[_i];
	struct lag_history history = {.n = 0};
	for (int i = 0; i < row->n_samples; i++)
		dbha__lag_sample(&history, row->samples[i].second * SECOND, row->samples[i].lsn);
	int64_t lag_ms = dbha__lag_ms(&history, row->replayed, NOW);
	int64_t lag_bytes = dbha__lag_bytes(&history, row->replayed, NOW);
	ck_assert_msg(lag_ms == row->lag_ms, "%s: %lld ms, expected %lld", row->name, (long long)lag_ms,
	              (long long)row->lag_ms);
	ck_assert_msg(lag_bytes == row->lag_bytes, "%s: %lld bytes, expected %lld", row->name, (long long)lag_bytes,
	              (long long)row->lag_bytes);
	ck_assert_msg(history.n == row->n, "%s: %d samples, expected %d", row->name, history.n, row->n);
}
END_TEST

/*
 * A handle that was just opened has one sample of the primary. A standby behind it may be behind by a second or by a
 * week: "0 ms" would let it serve reads that have a limit. What is not known is -1.
 */
START_TEST(a_standby_behind_all_that_is_remembered_is_not_called_level)
{
	struct lag_history history = {.n = 0};
	dbha__lag_sample(&history, 10 * SECOND, 0x5000000000);
	ck_assert_int_eq(dbha__lag_bytes(&history, 0x1000000000, NOW), 0x4000000000);
	ck_assert_int_ne(dbha__lag_ms(&history, 0x1000000000, NOW), 0);
}
END_TEST

START_TEST(a_cut_off_standby_lags_more_with_every_sample)
{
	struct lag_history history = {.n = 0};
	dbha__lag_sample(&history, 0, 1000);
	int64_t before = 0;
	for (int i = 1; i < 5000; i++) {
		dbha__lag_sample(&history, (int64_t)i * SECOND, 1000 + (uint64_t)i * 100);
		int64_t now = dbha__lag_ms(&history, 1000, NOW);
		ck_assert_msg(now > before, "after %d samples: %lld ms, before %lld", i, (long long)now, (long long)before);
		before = now;
	}
	ck_assert_int_eq(before, 4999000);
}
END_TEST

/* Samples of seconds 10, 11 and 12 at 1000, 2000 and 3000; then where a standby was, and when it was asked. */
static const struct asked_row {
	uint64_t replayed;
	int64_t seen_us;
	int64_t lag_ms, lag_bytes;
} asked_rows[] = {
    /* What the primary writes between the standby's last probe and its next one is not held against it. */
    {2500, 11 * SECOND + 1, 0, 0}, {1900, 11 * SECOND, 1000, 100}, {1900, 12 * SECOND, 2000, 1100},
    {1000, 9 * SECOND, 0, 0},      {900, 9 * SECOND, -1, 100},
};

START_TEST(a_standby_is_judged_by_the_time_it_was_asked)
{
	const struct asked_row *row = &asked_rows[_i];
	struct lag_history history = {.n = 0};
	for (int i = 0; i < 3; i++)
		dbha__lag_sample(&history, (10 + i) * SECOND, 1000 * (1 + (uint64_t)i));
	ck_assert_int_eq(dbha__lag_ms(&history, row->replayed, row->seen_us), row->lag_ms);
	ck_assert_int_eq(dbha__lag_bytes(&history, row->replayed, row->seen_us), row->lag_bytes);
}
END_TEST

/*
 * Of a primary at rest only the newest moment is kept, which moves on whenever any node is asked. What a standby lagged when
 * it was asked, before that, must not become less by it.
 */
START_TEST(the_lag_behind_a_primary_at_rest_does_not_shrink_until_the_next_look)
{
	struct lag_history history = {.n = 0};
	dbha__lag_sample(&history, 10 * SECOND, 1000);
	for (int second = 11; second <= 20; second++)
		dbha__lag_sample(&history, second * SECOND, 2000);
	for (int second = 20; second <= 30; second++) {
		dbha__lag_sample(&history, second * SECOND, 2000);
		ck_assert_int_eq(dbha__lag_ms(&history, 1500, 20 * SECOND), 10000);
		ck_assert_int_eq(dbha__lag_ms(&history, 2000, 20 * SECOND), 0);
		ck_assert_int_eq(dbha__lag_ms(&history, 900, 20 * SECOND), 10000);
		ck_assert_int_eq(dbha__lag_bytes(&history, 1500, 20 * SECOND), 500);
	}
	dbha__lag_sample(&history, 31 * SECOND, 3000);
	ck_assert_int_eq(dbha__lag_ms(&history, 1500, 20 * SECOND), 10000);
	ck_assert_int_eq(dbha__lag_ms(&history, 2000, 31 * SECOND), 1000);
}
END_TEST

/* Behind the oldest sample the lag is a floor: whoever lags by a week must not be let in because we have looked for a second. */
START_TEST(a_lag_is_known_where_a_sample_is_as_old)
{
	struct lag_history history = {.n = 0};
	ck_assert(!dbha__lag_known(&history, 1000));
	dbha__lag_sample(&history, 10 * SECOND, 1000);
	dbha__lag_sample(&history, 11 * SECOND, 2000);
	ck_assert(!dbha__lag_known(&history, 999));
	ck_assert(dbha__lag_known(&history, 1000));
	ck_assert(dbha__lag_known(&history, 5000));
	dbha__lag_sample(&history, 12 * SECOND, 500); /* another primary */
	ck_assert(dbha__lag_known(&history, 999));
	ck_assert(!dbha__lag_known(&history, 499));
}
END_TEST

static const struct behind_row {
	bool was;
	int64_t lag, max_lag; /* in whatever unit */
	bool has_primary;
	bool is;
} behind_rows[] = {
    {false, 1000, 1000, true, false},
    {false, 1001, 1000, true, true},
    {true, 1000, 1000, true, true},
    {true, 751, 1000, true, true},
    {true, 750, 1000, true, false},
    {true, 0, 1000, true, false},
    {false, -1, 1000, true, true},
    {true, -1, 1000, true, true},
    {false, -1, 1000, false, false},
    {true, -1, 1000, false, true},
    {false, 1001, 1000, false, true},
    {true, 9999, 0, true, false},
    {true, -1, 0, true, false},
    {true, 1, 1, true, false},
    {true, 2, 1, true, true},
    {false, (int64_t)9 << 40, (int64_t)8 << 40, true, true},
    {true, (int64_t)7 << 40, (int64_t)8 << 40, true, true},
    {true, (int64_t)6 << 40, (int64_t)8 << 40, true, false},
};

START_TEST(who_is_behind_has_to_come_back_some_way)
{
	const struct behind_row *row = &behind_rows[_i];
	ck_assert_int_eq(dbha__lag_behind(row->was, row->lag, row->max_lag, row->has_primary), row->is);
}
END_TEST

/*
 * Without a primary no samples come. That time passes makes no standby lag more; what it replays meanwhile, from the
 * archive say, makes it lag less.
 */
START_TEST(while_there_is_no_primary_lag_stands_still)
{
	struct lag_history history = {.n = 0};
	dbha__lag_sample(&history, 10 * SECOND, 1000);
	dbha__lag_sample(&history, 11 * SECOND, 2000);
	dbha__lag_sample(&history, 12 * SECOND, 3000);
	for (int64_t asked = 12; asked < 100000; asked *= 2) {
		ck_assert_int_eq(dbha__lag_ms(&history, 1000, asked * SECOND), 2000);
		ck_assert_int_eq(dbha__lag_bytes(&history, 1000, asked * SECOND), 2000);
		ck_assert_int_eq(dbha__lag_ms(&history, 2500, asked * SECOND), 1000);
		ck_assert_int_eq(dbha__lag_bytes(&history, 2500, asked * SECOND), 500);
		ck_assert_int_eq(dbha__lag_ms(&history, 3000, asked * SECOND), 0);
	}
	/* The next primary's first sample is held against the last one: the time between them counts again. */
	dbha__lag_sample(&history, 60 * SECOND, 4000);
	ck_assert_int_eq(dbha__lag_ms(&history, 1000, 61 * SECOND), 50000);
	ck_assert_int_eq(dbha__lag_ms(&history, 3000, 61 * SECOND), 48000);
}
END_TEST

static void check_order(const struct lag_history *history)
{
	if (history->n < 1 || history->n > LAG_SAMPLES_MAX)
		ck_abort_msg("%d samples", history->n);
	for (int i = 1; i < history->n; i++)
		if (history->samples[i].at_us <= history->samples[i - 1].at_us ||
		    history->samples[i].lsn < history->samples[i - 1].lsn)
			ck_abort_msg("sample %d of %d is out of order", i, history->n);
}

/* Thinning loses detail in the past, never the reach, never the newest half. */
START_TEST(a_full_history_gets_coarser_and_reaches_as_far)
{
	struct lag_history history = {.n = 0};
	for (int i = 0; i < 100000; i++) {
		dbha__lag_sample(&history, (int64_t)i * SECOND, 1000 + (uint64_t)i);
		check_order(&history);
		if (history.samples[0].at_us != 0)
			ck_abort_msg("after %d samples the oldest is of second %lld", i,
			             (long long)history.samples[0].at_us / SECOND);
		int dense = i < LAG_SAMPLES_MAX / 2 - 1 ? i : LAG_SAMPLES_MAX / 2 - 1;
		if (dbha__lag_ms(&history, 1000 + (uint64_t)(i - dense), NOW) != (int64_t)dense * 1000)
			ck_abort_msg("after %d samples the newest half has gaps", i);
	}
	ck_assert_int_eq(dbha__lag_ms(&history, 1000, NOW), 99999000);
}
END_TEST

/*
 * Against a history that forgets nothing: at a sample's own position the thinned one never says less, and in its newest
 * half it says the same.
 */
START_TEST(thinning_never_flatters)
{
	enum { N = 3000 };
	static struct lag_sample all[N];
	uint64_t seed = dbha__rng_entropy(all);
	struct rng rng = {seed};
	struct lag_history history = {.n = 0};
	uint64_t lsn = 1000;
	int64_t at = 0;
	printf("lag: seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < N; i++) {
		at += 1000 * (int64_t)(1 + dbha__rng_below(&rng, 2000));
		lsn += dbha__rng_below(&rng, 3) * dbha__rng_below(&rng, 100000);
		all[i] = (struct lag_sample){at, lsn};
		dbha__lag_sample(&history, at, lsn);
		uint64_t replayed = all[dbha__rng_below(&rng, (uint64_t)i + 1)].lsn;
		int newest = i;
		while (all[newest].lsn > replayed)
			newest--;
		int64_t truth = (at - all[newest].at_us) / 1000;
		int64_t told = dbha__lag_ms(&history, replayed, NOW);
		if (told < truth)
			ck_abort_msg("seed %llu, sample %d: %lld ms, but it is %lld", (unsigned long long)seed, i, (long long)told,
			             (long long)truth);
		if (i - newest < LAG_SAMPLES_MAX / 2 - 1 && told != truth)
			ck_abort_msg("seed %llu, sample %d: %lld ms, but it is only %lld", (unsigned long long)seed, i,
			             (long long)told, (long long)truth);
	}
}
END_TEST

/* Failovers now and then, each before or behind what the old primary had written: the order holds all the same. */
START_TEST(failovers_keep_the_order)
{
	struct lag_history history = {.n = 0};
	uint64_t seed = dbha__rng_entropy(&history);
	struct rng rng = {seed};
	uint64_t lsn = 1000000;
	printf("lag, failovers: seed %llu\n", (unsigned long long)seed);
	for (int i = 0; i < 100000; i++) {
		if (dbha__rng_below(&rng, 50) == 0)
			lsn -= dbha__rng_below(&rng, lsn < 100000 ? lsn : 100000);
		else
			lsn += dbha__rng_below(&rng, 2) * dbha__rng_below(&rng, 5000);
		dbha__lag_sample(&history, (int64_t)(i + 1) * 1000, lsn);
		check_order(&history);
		if (dbha__lag_ms(&history, lsn, NOW) != 0 || dbha__lag_bytes(&history, lsn, NOW) != 0)
			ck_abort_msg("seed %llu, sample %d: the primary itself lags", (unsigned long long)seed, i);
	}
}
END_TEST

static Suite *lag_suite(void)
{
	TCase *tcase = tcase_create("lag");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, lag_is_read_from_the_history, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, a_standby_behind_all_that_is_remembered_is_not_called_level);
	tcase_add_test(tcase, a_cut_off_standby_lags_more_with_every_sample);
	tcase_add_loop_test(tcase, a_standby_is_judged_by_the_time_it_was_asked, 0,
	                    sizeof asked_rows / sizeof asked_rows[0]);
	tcase_add_test(tcase, the_lag_behind_a_primary_at_rest_does_not_shrink_until_the_next_look);
	tcase_add_test(tcase, a_lag_is_known_where_a_sample_is_as_old);
	tcase_add_loop_test(tcase, who_is_behind_has_to_come_back_some_way, 0, sizeof behind_rows / sizeof behind_rows[0]);
	tcase_add_test(tcase, while_there_is_no_primary_lag_stands_still);
	tcase_add_test(tcase, a_full_history_gets_coarser_and_reaches_as_far);
	tcase_add_test(tcase, thinning_never_flatters);
	tcase_add_test(tcase, failovers_keep_the_order);
	Suite *suite = suite_create("lag");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(lag_suite)
