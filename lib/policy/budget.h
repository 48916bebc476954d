/*
 * budget: how many statements may be sent again, so that trouble is not made worse by those who meet it. A token bucket. Pure.
 *
 * Each statement earns a share of a retry, `percent` of one; each retry spends one. Beside that:
 *
 * - The bucket holds one retry for every connection the handle may have, and BUDGET_FLOOR_PER_S more. What makes many calls
 *   fail at one moment is the loss of a node, and each statement that fails by it has used up a connection to find out. So
 *   the loss of a node, and of all of them one after the other, never exhausts a bucket that was full: reads move elsewhere
 *   without an error. To fail more often than there are connections, they have to be made again first, which takes the time
 *   in which a busy handle earns new retries and a quiet one gets the floor.
 * - BUDGET_FLOOR_PER_S retries a second are free, so that a quiet handle, which earns next to nothing, gets over an ordinary
 *   deadlock or a restart.
 *
 * A fifth (the default) is enough for a bad day, on which one statement in six fails once, and puts a fifth on top of the load of
 * a server that fails them all. Without a bound, a server that answers every statement with a serialization
 * failure is asked by each caller again and again until its deadline.
 *
 * The state is one number, so that threads share it without a lock: what has been spent, never more than a bucket behind
 * what has been earned.
 */
#ifndef DBHA_POLICY_BUDGET_H
#define DBHA_POLICY_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_FLOOR_PER_S 10

struct budget {
	int percent;     /* of the statements; 0: no limit */
	int connections; /* that the handle may have in all */
};

/* What has been earned since the beginning, a full bucket included. statements: sent for the first time, since then. */
int64_t dbha__budget_earned(const struct budget *budget, int64_t statements, int64_t elapsed_us);

/* Spends one retry: false if there is none left, and *spent stays. Begin with *spent = 0: the bucket is full. */
bool dbha__budget_spend(const struct budget *budget, int64_t earned, int64_t *spent);

#endif
