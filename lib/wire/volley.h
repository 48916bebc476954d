/*
 * volley: n statements sent one behind the other on one connection while the answers are read, so that neither side waits for the
 * other however much there is to say: in one transaction, behind one Sync, or each behind its own. Waits, with a deadline; nothing
 * here knows what an end means.
 */
#ifndef DBHA_WIRE_VOLLEY_H
#define DBHA_WIRE_VOLLEY_H

#include <stdbool.h>
#include <stdint.h>

#include "attempt.h"
#include "conn.h"
#include "dbha.h"
#include "mark.h"
#include "pipe.h"
#include "token.h"

/* One statement of many. */
struct volley_item {
	bool waits;      /* to be sent */
	bool on_way;     /* sent, not answered */
	bool unprepared; /* what was prepared for it was gone */
	bool maybe_done; /* an attempt that is being repeated may have been executed */
	bool refused;    /* by its server, in its last attempt */
};

/*
 * An answer; its result is the taker's. With `together` only of those that went well, and of the first that did not.
 */
typedef void volley_taker(void *arg, int index, struct pipe_answer *answer);

struct volley {
	const dbha_request *requests;
	struct volley_item *items; /* n of each; those that wait are sent */
	int n;
	bool together; /* one Sync for all of them; else each has its own */
	/*
	 * With `together`: more than leaves at once does not get its Sync before it is answered. That costs a round trip, and what is lost
	 * on the long way there was certainly not done.
	 */
	bool holds;
	bool unprepared;            /* all of them */
	const dbha_request *before; /* with `together`: BEGIN; NULL: none */
	struct xact_mark *mark;     /* likewise, asked for behind them; NULL: not asked for */
	struct token *position;     /* of the primary behind all of it, see struct flush; NULL: not asked for */
	_Atomic bool *canceled;     /* somebody wants it to end; NULL: nobody can */
	volley_taker *take;
	void *arg;
	/* Out. */
	int failed;        /* with `together`: the first whose error it was; -1: no one's */
	bool synced;       /* the Sync that commits has been given to libpq: until then certainly nothing was done */
	bool unsafe;       /* committed, but its wait for a synchronous standby was broken off */
	bool mended;       /* a prepared statement of ours was no good any more: nothing of it was executed */
	bool mark_refused; /* it was the question for the mark that failed */
	/* Its own. */
	struct conn *conn;
	struct pipe pipe;
	struct attempt *end;
	int64_t deadline;
	int next;     /* of the statements */
	int answered; /* with `together`: statements that went well */
	bool begun;   /* `before` was sent */
	int chunks;   /* sent before the last one */
	bool flushed; /* the answers were asked for, the Sync is held back */
	bool closed;  /* nothing more is sent */
	bool settled; /* the statements are over; what is still to come is the position */
	bool drained; /* the deadline was put off */
	bool late;    /* the deadline had passed when it was settled */
};

/*
 * Runs those that wait. `end`: with `together` how all of it ended, the result of the first error its own; else OK, or how the
 * connection ended: what is not answered by then has been given to `take` as an attempt, or still waits.
 */
void dbha__volley_run(struct volley *v, struct conn *conn, int64_t deadline, struct attempt *end);

#endif
