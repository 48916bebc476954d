/*
 * tell: events that calls find out, where the monitor cannot: a statement that went on elsewhere, and writes that were lost.
 */
#ifndef DBHA_TELL_H
#define DBHA_TELL_H

#include "life.h"
#include "token.h"

/* What somebody had seen (`token`) is not in the history of the timeline of now, which left it at `floor`. Told once for each timeline. */
void dbha__tell_lost(dbha *h, const struct token *token, const struct token *floor);

/* A statement that was tried on the node `from` goes on to this one, for this reason. */
void dbha__tell_rerouted(dbha *h, const char *from, int node, enum dbha_reason reason, const char *trouble);

#endif
