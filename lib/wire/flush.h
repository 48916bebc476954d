/*
 * flush: a statement together with what belongs to it, sent at once and answered in one round trip: the BEGIN before it, the
 * server's own time limit, and the mark of its transaction behind it (see policy/outcome.h); a question whether the standby has
 * replayed enough before all of it, and one for its position behind it, behind a Sync of its own. libpq's pipeline
 * mode.
 */
#ifndef DBHA_WIRE_FLUSH_H
#define DBHA_WIRE_FLUSH_H

#include <stdbool.h>
#include <stdint.h>

#include "attempt.h"
#include "conn.h"
#include "dbha.h"
#include "mark.h"
#include "position.h"
#include "token.h"

struct flush {
	const dbha_request *before;  /* BEGIN ..., or another statement to run before it; NULL: none */
	int server_timeout_ms;       /* statement_timeout for it; 0: leave it alone */
	const dbha_request *request; /* the statement */
	struct xact_mark *mark; /* filled in if the transaction has an id by now, else its xid is 0; NULL: do not ask */
	/*
	 * What the server has to have replayed before the statement begins; NULL: nothing. The question travels in the statement's own
	 * transaction, which is cheaper by a wake-up of the client, and says which isolation that has: in one of REPEATABLE READ the
	 * statement would use the snapshot of the question, which is older than its answer. Then it has not been answered, and
	 * from then on it has a Sync of its own on this connection.
	 */
	const struct token *floor;
	bool floor_apart;  /* it must not share its transaction with anything */
	int floor_wait_ms; /* how long the server waits for that, if it can; 0: not at all */
	bool behind;       /* out: it has not, so whatever `attempt` says is of too old a state */
	struct seen_position
	    *position;     /* filled in with how far the server had come behind the statement; NULL: do not ask */
	bool anywhere;     /* of a standby, too; else of the primary only */
	bool mark_refused; /* out: it was the question for the mark that failed */
	bool
	    unprepared; /* out: a prepared statement of ours was no good any more; nothing was executed, and it is prepared anew the next time */
};

/*
 * As dbha__exec. `attempt` is about all of it: an error may be one of `before`, and then the statement was not executed. The first
 * error ends the rest, as in any pipeline.
 */
void dbha__flush_run(struct conn *conn, struct flush *flush, int64_t deadline, struct attempt *attempt);

#endif
