/*
 * call_fail: what a call reports that found no connection: what it looked for, for how long, and what stands in the way on each node.
 */
#ifndef DBHA_CALL_FAIL_H
#define DBHA_CALL_FAIL_H

#include "call.h"

/* The deadline has passed without a node of the kind that the query wants. */
void dbha__call_fail_no_node(struct call *call, const struct route_query *query, dbha_error *err);

/* No use in waiting: `what` says why. */
void dbha__call_fail_refused(struct call *call, int code, const char *what, dbha_error *err);

/* Who holds the connections of the node, for how long, and whether more could be made. too_many: it was not even waited for one. */
void dbha__call_fail_pool(struct call *call, int node, bool too_many, dbha_error *err);

void dbha__call_fail_canceled(dbha_error *err);
void dbha__call_fail_closed(dbha_error *err);

#endif
