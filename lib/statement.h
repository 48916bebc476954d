/*
 * statement: one statement on its way: route, take a connection, send, wait; then done, again, or report. For dbha_exec, and for sessions,
 * which may keep the connection afterwards.
 */
#ifndef DBHA_STATEMENT_H
#define DBHA_STATEMENT_H

#include <stdbool.h>

#include "call.h"
#include "causal.h"
#include "classify.h"
#include "dbha.h"
#include "exec.h"
#include "judgement.h"
#include "outcome.h"
#include "position.h"
#include "stream.h"

struct batch;
struct statement;

/* What an attempt does instead of sending the request and waiting for its end: a step of a stream. */
typedef void statement_step(struct statement *st, struct conn *conn, struct attempt *attempt);

struct statement {
	struct call call;
	const dbha_request *request;
	PGresult **result; /* NULL'ed by check */
	dbha_error *err;   /* never NULL */
	/* For a session; all NULL or false for dbha_exec. */
	const dbha_request *before; /* run before it in the same flush; NULL: nothing */
	bool begins;                /* `before` begins a transaction */
	bool in_transaction;        /* it begins one, or its connection is in one: nothing is done before its COMMIT */
	bool may_commit;            /* it may itself be the COMMIT */
	struct causal *causal;      /* what the session has seen, to be kept; NULL: nobody asks */
	bool places;                /* on the primary, its position is asked for with the statement */
	bool tells;                 /* DBHA_TOKEN: wherever it is, how far that has come is asked behind it */
	struct xact_mark *mark;     /* filled in where the transaction has written; NULL: not asked for */
	struct dbha_conn *kept; /* in: the connection to run it on; out: the one that the session has to keep; NULL: none */
	bool keeps;             /* may keep one */
	statement_step *step;   /* NULL: none */
	struct stream
	    *stream; /* what the step begins or goes on with; as long as that is in progress the connection is kept */
	struct batch *batch; /* what the step sends; NULL: no batch */
	bool continued;      /* an earlier call has begun it: nobody else can do it */
	/* What its text was taken for, where that was looked at; else all 0. */
	struct classify_verdict classified;
	/* Out, of the last attempt. */
	bool behind;               /* the standby had not replayed enough: there is no attempt to speak of */
	struct seen_position seen; /* how far its node had come behind it, where that was asked */
	unsigned left;             /* what it had set on a connection that was lost behind its end; 0: nothing */
	bool undone; /* its connection was lost before the end of its transaction was sent: it is rolled back */
	struct judgement judged;
	bool mark_refused; /* it was the question for the mark that failed; no transaction of the handle will ask again */
	bool
	    unprepared; /* a prepared statement of the library's was gone from its session; the next attempt prepares it anew */
	bool connection_lost; /* the one in `kept` has been given back, it was no good any more */
};

/* Checks what the application gave. `what` is the name of the public function. */
int dbha__statement_check(const char *what, const dbha_request *request, PGresult **result, dbha_error *err);

/* Begins it: everything 0 but these. */
void dbha__statement_begin(struct statement *st, dbha *h, const dbha_request *request, PGresult **result,
                           dbha_error *err);

/*
 * Of one that is neither in a transaction nor on a kept connection, before it is run: what it means to do, where its caller has not said it
 * (routing=auto), or has said it wrongly before. See routing.h.
 */
void dbha__statement_classify(struct statement *st);

/* Runs it to its end, wherever that has to be. DBHA_OK, or the code of the error reported. */
int dbha__statement_run(struct statement *st);

/* Runs it on the connection in `kept`, once. The connection stays there, or is given back where it is no good any more. */
int dbha__statement_run_on_kept(struct statement *st);

#endif
