/*
 * consistency: what a caller says of how fresh a read has to be, checked; and what a position of the primary says of what was seen before.
 */
#ifndef DBHA_CONSISTENCY_H
#define DBHA_CONSISTENCY_H

#include "causal.h"
#include "life.h"
#include "position.h"

/* Whether a dbha_consistency makes sense with this handle. DBHA_OK, or the code of the error reported. */
int dbha__consistency_check(dbha *h, const char *what, int consistency, dbha_error *err);

/* Reads a token into what has to be seen. The same; then nothing has changed. */
int dbha__consistency_token(dbha *h, const char *what, const char *text, struct causal *causal, dbha_error *err);

/* The position of the primary behind everything that was done. What is found to be lost by it is told. */
void dbha__consistency_at(dbha *h, struct causal *causal, const struct token *position);

/*
 * What has been seen by a request with DBHA_TOKEN, by how far its server had come behind it (`seen`): `causal`, which has what it had to see, has
 * that as well then, with its system identifier. NULL, or why it is not known.
 */
const char *dbha__consistency_tell(dbha *h, struct causal *causal, const struct seen_position *seen);

#endif
