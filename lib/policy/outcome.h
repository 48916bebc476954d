/*
 * outcome: whether a transaction of an earlier life of the primary can be in the history of the server that is asked now.
 *
 * A status of pg_xact_status() is about a number, and numbers are used again. "Committed" may be said of another transaction
 * with the same one; any other answer is true whatever has happened, because a transaction that had committed in
 * this history would have kept its number. So the rule only has to tell whether "committed" may be believed. Pure.
 */
#ifndef DBHA_POLICY_OUTCOME_H
#define DBHA_POLICY_OUTCOME_H

#include <stddef.h>
#include <stdint.h>

#include "history.h"

/* What is known of a transaction that has written. */
struct xact_mark {
	uint64_t xid;      /* 64 bit, with its epoch; 0: nothing written yet */
	uint64_t lsn;      /* pg_current_wal_insert_lsn(), taken in the same statement as the xid, behind the first write */
	uint32_t timeline; /* of the primary it ran on, as are the rest */
	int64_t started_us;  /* pg_postmaster_start_time(), as struct observation has it */
	uint64_t replay_lsn; /* pg_last_wal_replay_lsn(); 0: NULL */
	int32_t pid;         /* of its backend */
};

enum outcome_rule {
	OUTCOME_ASK,           /* its status there is its own */
	OUTCOME_DOUBT,         /* "committed" may be said of another transaction; anything else is true */
	OUTCOME_NOT_COMMITTED, /* certainly not in this history: its commit would lie behind the end of what came over */
	OUTCOME_STALE,         /* the server asked is behind the transaction's own timeline: it says nothing */
};

/*
 * asked: the primary that is to be asked, as it is now. why (may be NULL): the reason, one line for people; empty with OUTCOME_ASK of
 * the very life in which the transaction ran.
 */
enum outcome_rule dbha__outcome_rule(const struct xact_mark *mark, const struct incarnation *asked,
                                     const struct history *history, char *why, size_t why_size);

/* The life of the primary in which the transaction ran. */
struct incarnation dbha__outcome_incarnation(const struct xact_mark *mark);

#endif
