/*
 * lag: how far behind the primary a standby is, in seconds and in bytes.
 *
 * The primary's position is sampled over time; a standby's lag is how much older than the newest sample the newest one is
 * that the standby has replayed. Unlike now() - pg_last_xact_replay_timestamp() this is 0 on an idle primary, and grows on
 * a standby that is cut off. While there is no primary it stands still: nothing is known to have been missed.
 */
#ifndef DBHA_POLICY_LAG_H
#define DBHA_POLICY_LAG_H

#include <stdbool.h>
#include <stdint.h>

#define LAG_SAMPLES_MAX 256

struct lag_sample {
	int64_t at_us;
	uint64_t lsn;
};

/* Samples in rising order of time and LSN. When full, every second one of the older half is dropped: the history gets
 * coarser with age and reaches back for hours. */
struct lag_history {
	int n;
	struct lag_sample samples[LAG_SAMPLES_MAX];
};

/*
 * The primary was at `lsn` at `at_us`. After a failover the new primary may stand before samples of the old one: those are
 * of a history that no longer exists and are dropped.
 */
void dbha__lag_sample(struct lag_history *history, int64_t at_us, uint64_t lsn);

/*
 * The lag of a standby that had replayed up to `lsn` when it was asked at `seen_us`; -1 where no sample is known. It is held
 * against what was known of the primary at that time: what the primary has written since is no lag of a standby that
 * was not asked since. Exact to the time between two samples. Of a standby behind everything that is remembered
 * it is only a floor: as old as the oldest sample, at least.
 */
int64_t dbha__lag_ms(const struct lag_history *history, uint64_t lsn, int64_t seen_us);
/* Until when it has everything, as far as the primary has been looked at: monotonic; -1 where that is not known. */
int64_t dbha__lag_fresh_us(const struct lag_history *history, uint64_t lsn, int64_t seen_us);
int64_t dbha__lag_bytes(const struct lag_history *history, uint64_t lsn, int64_t seen_us);

/* Whether the lag is the lag, and not its floor. A handle that was just opened cannot tell a second from a week. */
bool dbha__lag_known(const struct lag_history *history, uint64_t lsn);

/*
 * Whether a standby is too far behind for reads; lag and limit are both in milliseconds, or both in bytes. A lag that is not known
 * (-1) is too much, except while there is no primary: then nobody is known to be ahead, and the verdict stays as it was. Who was
 * behind has to come down to three quarters of the limit, so that a lag near the limit does not send the readers to and fro.
 * max_lag 0: never.
 */
bool dbha__lag_behind(bool was, int64_t lag, int64_t max_lag, bool has_primary);

#endif
