/*
 * batch: n statements on their way, as one struct statement whose step is a volley: so the way to a node, the deadline, the cancel and
 * what goes again are those of any statement. For dbha_batch and for sessions.
 */
#ifndef DBHA_BATCH_H
#define DBHA_BATCH_H

#include <stdbool.h>

#include "dbha.h"
#include "statement.h"
#include "volley.h"

struct batch {
	const char *what; /* the public function */
	const dbha_batch_request *rq;
	dbha_request as_one;       /* what is said of all of them, and the text that the judgement is about */
	struct volley_item *items; /* n */
	struct volley volley;
	struct statement *st; /* with which it is run now */
	int culprit;          /* each=0: whose error it was; -1: no one's */
	int first;            /* each=1: the first that has failed for good, which `first_error` is about; n: none */
	dbha_error first_error;
	bool has_pending;       /* each=1: one failed that goes again if anything does; `pending` says how */
	bool pending_not_begun; /* and it certainly was not begun */
	struct attempt pending;
	bool mended; /* each=1: one met a preparation that was gone */
	int answers; /* of this attempt */
};

/* Checks what the application gave. flags: those that all of it may have. */
int dbha__batch_check(const char *what, const dbha_batch_request *rq, uint32_t flags, dbha_error *err);

/* Whether a request has this text; NULL: it has not. */
bool dbha__batch_has_text(const dbha_request *rq, const char *sql);

/* What is said of all of them at once, with the text of the first. */
dbha_request dbha__batch_as_one(const dbha_batch_request *rq);

/* Checks what the application gave, sets what comes back to nothing, and begins. End it with dbha__batch_fini. */
int dbha__batch_init(struct batch *b, const char *what, const dbha_batch_request *rq, dbha_error *err);
void dbha__batch_fini(struct batch *b);

/* What all of it means to do, where its caller has not said it: a read only where each of them is one. The call has its deadline. */
void dbha__batch_classify(struct batch *b, const struct call *call);

/* The statement is this batch. */
void dbha__batch_attach(struct batch *b, struct statement *st);

/* It is over, with this code and the statement's own result, which it takes. Returns the code to report. */
int dbha__batch_finish(struct batch *b, int code, PGresult *result, dbha_error *err);

/* each=1: what became of one that was run by itself; takes the result. */
void dbha__batch_note(struct batch *b, int index, int code, PGresult *result, const dbha_error *err);

#endif
