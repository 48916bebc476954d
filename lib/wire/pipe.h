/*
 * pipe: the statements of many requests on one connection, without waiting for one answer before the next is sent: libpq's pipeline
 * mode. A statement has a Sync of its own, so that it is a transaction of its own and its error is its own; or, where its sender has asked
 * for that, it shares the next one's, and those up to there are one transaction: its error is theirs. Or its Sync, which is its commit, is held
 * back until its sender knows by what mark the transaction can be found again.
 *
 * Nothing here waits, and nothing here knows a deadline. What was sent is answered in that order; each answer comes out as a struct
 * attempt, as from exec, together with whatever its owner gave with it.
 */
#ifndef DBHA_WIRE_PIPE_H
#define DBHA_WIRE_PIPE_H

#include <stdbool.h>

#include "attempt.h"
#include "conn.h"
#include "dbha.h"
#include "mark.h"
#include "stmtcache.h"

/* A statement whose commit is held back. Its sender's, and there for as long as the statement is on its way. */
struct pipe_hold {
	struct xact_mark
	    mark; /* of its transaction, when it waits for its commit; xid 0: it has written nothing, or was not asked */
	bool mark_refused;        /* it was the question for the mark that failed */
	bool committing;          /* its Sync was sent: what becomes of it is up to the server from then on */
	PGresult *result;         /* what the statement has said, while the answer to its commit is awaited */
	char name[STMT_NAME_MAX]; /* of the question, where that is prepared; "": it is not */
};

/* What was sent for one owner. */
struct pipe_item {
	void *owner;              /* NULL: one of ours, or of somebody who has given up */
	unsigned parts;           /* that are still to be answered */
	bool ours;                /* nobody's from the beginning */
	bool guard;               /* see dbha__pipe_guard */
	unsigned hints;           /* of what it leaves in the session */
	bool question;            /* one of ours, see PIPE_QUESTION */
	struct pipe_hold *hold;   /* NULL: none */
	bool held;                /* its Sync was not sent yet */
	char name[STMT_NAME_MAX]; /* of the prepared statement that it runs; "": none */
};

struct pipe {
	struct conn *conn;
	struct pipe_item *items; /* a ring */
	int size, first, n;
	struct attempt head; /* of the oldest item, as far as it has come */
	bool mended, aborted;
	int empty; /* in a row: NULLs where a Sync was expected */
	int ours;  /* of the items: those that are nobody's */
	int burst; /* sent since the last push, for somebody */
	int syncs; /* since then */
	int open;  /* sent since the last Sync */
	char (
	    *evicted)[STMT_NAME_MAX]; /* to be deallocated behind the next Sync, n_evicted of them, room for evicted_size */
	int n_evicted, evicted_size;
	bool unsent; /* not everything has left: the socket has to become writable */
	bool corked;
	bool refused;   /* the oldest item was a COPY: what is known of it is all there is to know */
	bool dead;      /* nothing more can be sent; what has come is still to be read */
	bool broken;    /* the connection has ended: nothing more will be answered */
	bool last_word; /* and the server has said so to the oldest item: it has not begun with those behind */
};

/* What became of one item. */
struct pipe_answer {
	void *owner;
	struct attempt attempt;
	bool mended;       /* a prepared statement of ours was gone: nothing was done, it is to be sent again, unprepared */
	bool aborted;      /* one that it shares its Sync with had failed before: it was not executed; ATTEMPT_NOT_SENT */
	bool question;     /* as it was sent: with PIPE_QUESTION */
	bool unreplicated; /* it was committed, but its wait for a synchronous standby was broken off */
};

/* Begins, on a connection on which nothing is under way. False: out of memory, or the connection is no good. */
bool dbha__pipe_begin(struct pipe *pipe, struct conn *conn);

/*
 * Ends. True: the connection is in order, and out of pipeline mode; nothing may be under way then. What is, is forgotten.
 */
bool dbha__pipe_end(struct pipe *pipe);

enum pipe_how {
	PIPE_UNPREPARED = 1,
	PIPE_QUESTION = 16, /* one of ours, whose answer its owner wants beside that of a statement, or for several */
	PIPE_OPEN =
	    2, /* without a Sync: it shares that of the next one that has one, which must come before anything is waited for */
	PIPE_HELD =
	    4, /* its Sync is held back; dbha__pipe_hold follows, and nothing else is sent before dbha__pipe_commit */
	PIPE_ASK = 8,      /* dbha__pipe_hold: with the question for the mark of its transaction */
	PIPE_GUARD = 32,   /* it is that of dbha__pipe_guard */
	PIPE_RETURNS = 64, /* its text comes again: it is prepared at once, although it was never seen here before */
};

/*
 * Sends a statement; how: bits of the above. False: nothing of it was sent, and `refused` says why; others are not touched by that, those that are
 * open excepted where the pipe is dead then.
 */
bool dbha__pipe_send(struct pipe *pipe, const dbha_request *request, unsigned how, void *owner,
                     struct attempt *refused);

/*
 * Behind a statement that was sent with PIPE_HELD: has the server answer it. how: bits of the above, as for the statement. A failure breaks the
 * pipe; then nothing is committed.
 */
void dbha__pipe_hold(struct pipe *pipe, struct pipe_hold *hold, unsigned how);

/* Whether a Sync is held back: then nothing else may be sent. */
bool dbha__pipe_holds(const struct pipe *pipe);

/* Whether the oldest item waits for its commit: all of it has been answered (an error is in head.end), only its Sync was not sent. */
bool dbha__pipe_awaits(const struct pipe *pipe);

/*
 * Sends that: behind `row`, a statement of the same transaction; NULL: none. With an error in head.end it ends the transaction all the same,
 * and only the connection is in order again.
 */
void dbha__pipe_commit(struct pipe *pipe, const dbha_request *row);

/*
 * Opens a transaction of reads: what writes in it is refused with 25006, as on a standby, and does not depend on what comes behind it.
 * Its answer says whether reads may share a transaction on this connection at all (conn->sharing): where transactions are
 * serializable, what was read is not certain before the commit. how: PIPE_OPEN, or 0, which only asks. False: it could not be sent.
 */
bool dbha__pipe_guard(struct pipe *pipe, unsigned how);

/* The Sync of those that are open, if the one that was to bring it did not come. A failure breaks the pipe. */
void dbha__pipe_sync(struct pipe *pipe);

/* Sends a command of our own, before what is sent next. A failure breaks the pipe. */
void dbha__pipe_say(struct pipe *pipe, const char *sql);

/* Has the server send what it has to say to those that are open, which have no Sync yet. A failure breaks the pipe. */
void dbha__pipe_ask_answers(struct pipe *pipe);

/* Nothing more is sent, the Sync of those that are open included: their transaction is rolled back when the server notices. */
void dbha__pipe_break(struct pipe *pipe);

/* At the end of a burst: lets everything go. What cannot leave yet is `unsent`, and goes with the next call. */
void dbha__pipe_push(struct pipe *pipe);

/*
 * Whether there is an answer that nobody has taken, although nothing was taken in since: libpq reads while it sends, where it cannot send. Where that is
 * because the server has closed the connection, the next thing that is sent or taken in makes libpq forget all answers that it has read and
 * not given out, the server's last word among them. So they are fetched before.
 */
bool dbha__pipe_has_news(const struct pipe *pipe);

/* Takes in what has come; not as long as there is news. */
void dbha__pipe_hear(struct pipe *pipe);

/* The oldest item, if it has been answered, or never will be. */
bool dbha__pipe_next(struct pipe *pipe, struct pipe_answer *answer);

/* How many the server may be at: the oldest item, and those that share its Sync; and the owner of the i-th item, NULL: nobody, or it is a question. */
int dbha__pipe_front(const struct pipe *pipe);
void *dbha__pipe_owner(const struct pipe *pipe, int i);

/*
 * An owner that does not want his answer any more. One whose Sync was held back is rolled back: nothing can be sent any more, and the connection has
 * to be closed.
 */
void dbha__pipe_disown(struct pipe *pipe, const void *owner);

/* Whether anybody waits for something. */
bool dbha__pipe_has_owner(const struct pipe *pipe);

#endif
