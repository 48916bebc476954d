/*
 * xactstatus: asks one server what became of a transaction, and in which life of its own it answers.
 */
#ifndef DBHA_WIRE_XACTSTATUS_H
#define DBHA_WIRE_XACTSTATUS_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "exec.h"
#include "outcome.h"

enum xact_status {
	XACT_COMMITTED,
	XACT_ABORTED,
	XACT_IN_PROGRESS,
	XACT_NEVER,   /* no transaction has had that number there yet */
	XACT_TOO_OLD, /* it is over, and how it ended is no longer known */
	XACT_FAILED,  /* there was no answer, see `attempt` */
};

struct xact_answer {
	enum xact_status status;
	struct incarnation is;  /* of the server that answered; its timeline is 0 on a standby */
	struct attempt attempt; /* without its result */
};

/* Blocks until the deadline (monotonic us) at most. */
void dbha__xact_ask(struct conn *conn, uint64_t xid, int64_t deadline, struct xact_answer *answer);

/* Ends the backend `pid` if it runs that very transaction. True: it was told to. */
bool dbha__xact_terminate(struct conn *conn, const struct xact_mark *mark, int64_t deadline);

/* Whether the row of a token is in a table, by the text of dbha__outcome_table_look_up. attempt: how it ended. */
bool dbha__xact_look_up(struct conn *conn, const char *sql, const char *token, int64_t deadline,
                        struct attempt *attempt);

#endif
