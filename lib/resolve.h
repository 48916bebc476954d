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
};

struct resolve {
	const struct xact_mark *mark;
	int64_t deadline;  /* monotonic us */
	const char *token; /* of its row in the outcome table; NULL: it has none */
};

/*
 * The handle has been entered (dbha__life_enter). Blocks at most until the deadline. why: one line for people, with the xid and the
 * position where the outcome is UNKNOWN. node: the name of the server that gave the answer, or "".
 */
enum outcome dbha__resolve(dbha *h, const struct resolve *what, char *why, size_t why_size,
                           char node[DBHA_NODE_NAME_MAX]);

#endif
