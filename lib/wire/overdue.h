/*
 * overdue: one word between a thread that waits for an answer without a timer, and the patrol that comes by.
 *
 * Arming and disarming the timer of poll(2) costs half a microsecond, as much as all the rest of the library's work on a
 * statement. So a long wait on a connection that is patrolled has none: the word says until when it may last. At that
 * time the patrol (dbha__pool_patrol) asks the server to stop, and CONN_DRAIN_US later it cuts the connection; both wake the
 * waiting thread. Each step is a compare-and-exchange: a wait that has just ended can neither be asked to stop nor be cut,
 * so that what the connection is used for next is safe; and a wait that was asked to stop is told so when it ends.
 */
#ifndef DBHA_WIRE_OVERDUE_H
#define DBHA_WIRE_OVERDUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* The word: 0, nobody waits; D > 0, until D; -D, until D, and the server has been asked to stop; this one, it has been cut. */
#define OVERDUE_CUT INT64_MIN

typedef _Atomic int64_t overdue_word;

static inline void dbha__overdue_begin(overdue_word *word, int64_t deadline)
{
	atomic_store_explicit(word, deadline, memory_order_release);
}

/* Ends the wait; the word as the patrol has left it: below 0, it was overdue. */
static inline int64_t dbha__overdue_end(overdue_word *word)
{
	return atomic_exchange_explicit(word, 0, memory_order_acq_rel);
}

/* The patrol's step. False: the wait it was meant for has ended. */
static inline bool dbha__overdue_step(overdue_word *word, int64_t from, int64_t to)
{
	return atomic_compare_exchange_strong_explicit(word, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

#endif
