/*
 * resolve: what became of a transaction whose COMMIT was lost. Finds the primary and asks it, until there is an answer or the
 * deadline has passed. docs/outcome.md has the rules.
 */
#ifndef DBHA_RESOLVE_H
#define DBHA_RESOLVE_H

#include <stddef.h>
#include <stdint.h>

#include "dbha.h"
#include "outcome.h"

enum outcome {
	OUTCOME_COMMITTED,
	OUTCOME_ABORTED, /* it is certainly not, and will not be, committed in the history of this cluster */
	OUTCOME_UNKNOWN,
	OUTCOME_LATER, /* there is no answer yet, and somebody else is to have his turn: see `until` */
};

struct cancel;

struct resolve {
	const struct xact_mark *mark;
	int64_t deadline;  /* monotonic us */
	const char *token; /* of its row in the outcome table; NULL: it has none */
	/* Of who has several to ask for. All of it 0: it goes on until there is an answer. */
	int64_t until;         /* nothing is waited for any longer, and the call comes again: OUTCOME_LATER */
	int64_t ask_us;        /* how long one question may take */
	struct cancel *cancel; /* ends the waiting */
	/* From one call to the next, all 0 before the first. */
	int64_t terminate_us; /* when to end a backend that still runs it; INT64_MAX: never, or not again */
	int64_t view_us;      /* until when the view is waited for; 0: it was not necessary yet */
	int64_t pause_us;
	uint64_t ticket; /* in the order of arrival of calls */
};

/*
 * The handle has been entered (dbha__life_enter). Blocks at most until the deadline, or until `until` and for one question more. why: one line for people, with the xid and the
 * position where the outcome is UNKNOWN. node: the name of the server that gave the answer, or "".
 */
enum outcome dbha__resolve(dbha *h, struct resolve *what, char *why, size_t why_size, char node[DBHA_NODE_NAME_MAX]);

/* Of one whose outcome is unknown, after all: counts it, and says so. Returns the code. */
int dbha__resolve_fail(dbha *h, const char *why, const char *node, dbha_error *err);

#endif
