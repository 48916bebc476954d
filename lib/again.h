/*
 * again: whether a statement that has failed on one connection goes round again, for callers that wait: the second look at a node that
 * refused a write, and the pause. What a failure means is said by judgement.
 */
#ifndef DBHA_AGAIN_H
#define DBHA_AGAIN_H

#include "judgement.h"

/* Whether to go round again after a failure; pauses before it. If not, what was judged is to be reported. */
bool dbha__again(struct call *call, const struct attempt *attempt, const struct judgement *judged);

#endif
