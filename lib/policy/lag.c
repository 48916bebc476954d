#include "lag.h"

static void thin_older_half(struct lag_history *history)
{
	int half = history->n / 2;
	int kept = 0;
	for (int i = 0; i < history->n; i++)
		if (i >= half || i % 2 == 0)
			history->samples[kept++] = history->samples[i];
	history->n = kept;
}

void dbha__lag_sample(struct lag_history *history, int64_t at_us, uint64_t lsn)
{
	while (history->n > 0 && history->samples[history->n - 1].lsn > lsn)
		history->n--;
	/* An idle primary: only the time moves. The first sample of the position is kept, it says since when it stands. */
	if (history->n > 1 && history->samples[history->n - 1].lsn == lsn && history->samples[history->n - 2].lsn == lsn) {
		history->samples[history->n - 1].at_us = at_us;
		return;
	}
	if (history->n == LAG_SAMPLES_MAX)
		thin_older_half(history);
	history->samples[history->n++] = (struct lag_sample){at_us, lsn};
}

/* The newest sample that was taken by `seen_us`, or the oldest of all. */
static int newest_by(const struct lag_history *history, int64_t seen_us)
{
	int newest = history->n - 1;
	while (newest > 0 && history->samples[newest].at_us > seen_us)
		newest--;
	return newest;
}

/*
 * When the primary is known to have stood at this sample's position, by `seen_us`. Of a primary at rest there are the first
 * sample and the last one, which moves on with every look at any node: at each moment between them it stood there as well.
 */
static int64_t stood_until(const struct lag_history *history, int newest, int64_t seen_us)
{
	const struct lag_sample *sample = &history->samples[newest];
	bool at_rest = newest + 1 < history->n && sample[1].lsn == sample->lsn;
	return at_rest && seen_us > sample->at_us ? seen_us : sample->at_us;
}

int64_t dbha__lag_ms(const struct lag_history *history, uint64_t lsn, int64_t seen_us)
{
	if (history->n == 0)
		return -1;
	int newest = newest_by(history, seen_us);
	const struct lag_sample *samples = history->samples;
	if (samples[newest].lsn <= lsn)
		return 0;
	int64_t until_us = stood_until(history, newest, seen_us);
	for (int i = newest - 1; i >= 0; i--)
		if (samples[i].lsn <= lsn)
			return (until_us - samples[i].at_us) / 1000;
	return until_us > samples[0].at_us ? (until_us - samples[0].at_us) / 1000 : -1;
}

int64_t dbha__lag_fresh_us(const struct lag_history *history, uint64_t lsn, int64_t seen_us)
{
	int newest = history->n > 0 ? newest_by(history, seen_us) : -1;
	if (newest >= 0 && history->samples[newest].lsn <= lsn)
		return stood_until(history, newest, seen_us);
	while (newest >= 0 && history->samples[newest].lsn > lsn)
		newest--;
	return newest >= 0 ? history->samples[newest].at_us : -1;
}

bool dbha__lag_known(const struct lag_history *history, uint64_t lsn)
{
	return history->n > 0 && history->samples[0].lsn <= lsn;
}

int64_t dbha__lag_bytes(const struct lag_history *history, uint64_t lsn, int64_t seen_us)
{
	if (history->n == 0)
		return -1;
	uint64_t newest = history->samples[newest_by(history, seen_us)].lsn;
	return newest > lsn ? (int64_t)(newest - lsn) : 0;
}

bool dbha__lag_behind(bool was, int64_t lag, int64_t max_lag, bool has_primary)
{
	if (max_lag == 0)
		return false;
	if (lag < 0)
		return has_primary || was;
	/* 0 of three quarters of a millisecond would never be reached by less than 1. */
	int64_t limit = was ? max_lag - max_lag / 4 : max_lag;
	return lag > limit;
}
