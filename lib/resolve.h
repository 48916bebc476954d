#ifndef DBHA_RESOLVE_H
#define DBHA_RESOLVE_H
#include "dbha.h"
#include "outcome.h"
enum outcome { OUTCOME_COMMITTED, OUTCOME_ABORTED, OUTCOME_UNKNOWN };
struct resolve {
	const struct xact_mark *mark;
	int64_t deadline;
	const char *token;
};
enum outcome dbha__resolve(dbha *h, const struct resolve *what, char *why, size_t why_size,
                           char node[DBHA_NODE_NAME_MAX]);
#endif
