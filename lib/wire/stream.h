/*
 * stream: what is too large to hold: a result row by row, and COPY, which is a conversation. One stream on one connection.
 *
 * Each step ends at its deadline and says in a struct attempt how it ended, as exec does. What has come is handed on at once and
 * what is put is sent before more is taken, so that neither side of a large transfer is held in memory.
 *
 * An attempt that did not end with ATTEMPT_OK has ended the stream. At the deadline the server is asked to stop, as exec has it; where
 * that does not end it soon it is ATTEMPT_TIMEOUT, and the connection is to be closed.
 */
#ifndef DBHA_WIRE_STREAM_H
#define DBHA_WIRE_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "attempt.h"
#include "conn.h"
#include "dbha.h"

enum stream_kind {
	STREAM_NONE, /* nothing is in progress: the connection is free, or broken */
	STREAM_ROWS, /* results are to come, rows or only the last one */
	STREAM_COPY_IN,
	STREAM_COPY_OUT,
};

struct stream {
	struct conn *conn;
	enum stream_kind kind;
	PGresult *ahead; /* rows, or the end of them, that have been read and nobody has taken yet */
	PGresult *over;  /* a result without rows that was met; what it means is to be found out */
	unsigned hints;  /* of what the statement leaves behind, see policy/sessionstate */
	bool copies;     /* it is a COPY, and has begun */
	/*
	 * A COPY FROM STDIN whose end was never sent, or was a refusal: whatever else became of it, the server cannot have kept
	 * anything of it. Stays true behind the end of the stream.
	 */
	bool undone;
	bool stopping;   /* the server was asked to stop: rows are not wanted any more */
	bool late_rows;  /* that was at a deadline, and rows came behind it */
	size_t unsent;   /* COPY FROM: bytes put since everything was out */
	int64_t sent_us; /* COPY FROM: when everything was out, on the coarse clock */
};

/* Sends a statement, unprepared, and waits for its first row, or its end. Rows come one by one, on libpq 17 in chunks. */
void dbha__stream_rows(struct stream *s, struct conn *conn, const dbha_request *request, int64_t deadline,
                       struct attempt *attempt);

/*
 * The next rows, as attempt->result. The last result but none has no rows: PGRES_TUPLES_OK, or PGRES_COMMAND_OK for a statement
 * without any, and comes when the server has committed; behind it the result is NULL.
 */
void dbha__stream_next(struct stream *s, int64_t deadline, struct attempt *attempt);

/* Rows that are there without waiting; NULL: there are none, and dbha__stream_next knows more. */
PGresult *dbha__stream_at_hand(struct stream *s);

/*
 * The text of a request: begins COPY FROM STDIN (STREAM_COPY_IN) or COPY TO STDOUT (STREAM_COPY_OUT). A statement that is neither has been done when this
 * returns: then `kind` is STREAM_NONE, and attempt->result is its result. COPY in the other direction is an error, and ends the
 * connection.
 */
void dbha__stream_copy(struct stream *s, struct conn *conn, const dbha_request *request, enum stream_kind wanted,
                       int64_t deadline, struct attempt *attempt);

/* COPY FROM: takes data, of any length and cut anywhere. Blocks while the server is behind by more than what is kept back. */
void dbha__stream_put(struct stream *s, const char *data, size_t length, int64_t deadline, struct attempt *attempt);

/* The same where nothing has to be sent yet. False: nothing was taken, and dbha__stream_put has to do it. */
bool dbha__stream_put_at_once(struct stream *s, const char *data, size_t length);

/*
 * COPY FROM: the end. refusal: why it is not to be done, which the server gives back as an error; NULL: it is complete, and
 * attempt->result the server's result.
 */
void dbha__stream_end(struct stream *s, const char *refusal, int64_t deadline, struct attempt *attempt);

/* COPY TO: the next data, freed by PQfreemem; NULL at the end, when the server has committed. */
void dbha__stream_get(struct stream *s, int64_t deadline, char **data, size_t *length, struct attempt *attempt);

/* The same if it is there without waiting. NULL: dbha__stream_get knows more. */
char *dbha__stream_get_at_once(struct stream *s, size_t *length);

/*
 * Gives up what is still to come: reads it and throws it away, and refuses a COPY FROM. True: that was the end, see `attempt`.
 * False: not until the deadline; it may be tried again, behind a cancel request.
 */
bool dbha__stream_drain(struct stream *s, int64_t deadline, struct attempt *attempt);

/* Forgets the stream, wherever it is. Its connection is in order only if `kind` was STREAM_NONE. */
void dbha__stream_fini(struct stream *s);

#endif
