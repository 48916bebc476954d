/*
 * again: whether a statement that has failed on one connection goes round again, and what it takes for that: a second look at a node that
 * refused a write, a pause, a retry of the budget. What a failure means is said by policy/retry.
 */
#ifndef DBHA_AGAIN_H
#define DBHA_AGAIN_H

#include "attempt.h"
#include "call.h"
#include "retry.h"
#include "sqlstate.h"

/* Whether to go round again after a failure; pauses before it. If not, `retry` is what to report. */
bool dbha__again(struct call *call, const struct attempt *attempt, const struct verdict *verdict,
                 const struct retry *retry);

/*
 * A read that turned out to be something only a primary does: a write (25006), an unlogged or temporary table, a sequence
 * or WAL function (0A000, 55000). Without effect on the standby, it is run on the primary, as a write. The codes have other
 * uses; then the primary says the same, and that is reported.
 */
bool dbha__again_standby_says_no(const struct call *call, const struct attempt *attempt);

/* Spends a retry of the handle's budget. False: there is none left. */
bool dbha__again_spend(dbha *h);

#endif
