/*
 * pipe: the statements of many requests on one connection, without waiting for one answer before the next is sent: libpq's pipeline
 * mode. A statement has a Sync of its own, so that it is a transaction of its own and its error is its own; or, where its sender has asked
 * for that, it shares the next one's, and those up to there are one transaction: its error is theirs.
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
#include "stmtcache.h"

/* What was sent for one owner. */
struct pipe_item {
	void *owner;              /* NULL: one of ours, or of somebody who has given up */
	unsigned parts;           /* that are still to be answered */
	unsigned hints;           /* of what it leaves in the session */
	char name[STMT_NAME_MAX]; /* of the prepared statement that it runs; "": none */
};

struct pipe {
	struct conn *conn;
	struct pipe_item *items; /* a ring */
	int size, first, n;
	struct attempt head; /* of the oldest item, as far as it has come */
	bool mended, aborted;
	int empty; /* in a row: NULLs where a Sync was expected */
	int burst; /* sent since the last push */
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
	PIPE_OPEN =
	    2, /* without a Sync: it shares that of the next one that has one, which must come before anything is waited for */
	PIPE_RETURNS = 4, /* its text comes again: it is prepared at once, although it was never seen here before */
};

/*
 * Sends a statement; how: bits of the above. False: nothing of it was sent, and `refused` says why; others are not touched by that, those that are
 * open excepted where the pipe is dead then.
 */
bool dbha__pipe_send(struct pipe *pipe, const dbha_request *request, unsigned how, void *owner,
                     struct attempt *refused);

/* The Sync of those that are open, if the one that was to bring it did not come. A failure breaks the pipe. */
void dbha__pipe_sync(struct pipe *pipe);

/* Sends a command of our own, before what is sent next. A failure breaks the pipe. */
void dbha__pipe_say(struct pipe *pipe, const char *sql);

/* At the end of a burst: lets everything go. What cannot leave yet is `unsent`, and goes with the next call. */
void dbha__pipe_push(struct pipe *pipe);

/* Takes in what has come. */
void dbha__pipe_hear(struct pipe *pipe);

/* The oldest item, if it has been answered, or never will be. */
bool dbha__pipe_next(struct pipe *pipe, struct pipe_answer *answer);

/* The owner of the oldest item; and an owner that does not want his answer any more. */
void *dbha__pipe_head(const struct pipe *pipe);
void dbha__pipe_disown(struct pipe *pipe, const void *owner);

/* Whether anybody waits for something. */
bool dbha__pipe_has_owner(const struct pipe *pipe);

#endif
