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

int64_t dbha__lag_ms(const struct lag_history *history, uint64_t lsn)
{
	if (history->n == 0)
		return -1;
	const struct lag_sample *newest = &history->samples[history->n - 1];
	for (int i = history->n - 1; i >= 0; i--)
		if (history->samples[i].lsn <= lsn)
			return (newest->at_us - history->samples[i].at_us) / 1000;
	/* Behind everything that is remembered: at least as old as the oldest sample, if there is more than one. */
	return history->n > 1 ? (newest->at_us - history->samples[0].at_us) / 1000 : -1;
}

int64_t dbha__lag_bytes(const struct lag_history *history, uint64_t lsn)
{
	if (history->n == 0)
		return -1;
	uint64_t newest = history->samples[history->n - 1].lsn;
	return newest > lsn ? (int64_t)(newest - lsn) : 0;
}
