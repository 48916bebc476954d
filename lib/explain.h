/*
 * explain: where a statement went, and why, as its caller is told: dbha_result_route. For dbha_exec, sessions and engines.
 */
#ifndef DBHA_EXPLAIN_H
#define DBHA_EXPLAIN_H

#include "call.h"
#include "classify.h"
#include "dbha.h"

/* Fills `out`, its token excepted, which becomes "". classified: what routing=auto took it for, else all 0. reason: of the last connection, unless more is known. */
void dbha__explain(const struct call *call, const struct classify_verdict *classified, enum dbha_reason reason,
                   dbha_result_route *out);

/* There is no token, although it was asked for: why, appended to what there is to say. */
void dbha__explain_no_token(dbha_result_route *out, const char *why);

#endif
