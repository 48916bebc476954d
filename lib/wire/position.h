/*
 * position: where the primary's WAL stands, and how far a standby has replayed it, as one SELECT each.
 */
#ifndef DBHA_WIRE_POSITION_H
#define DBHA_WIRE_POSITION_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "token.h"

/*
 * A SELECT without parameters, for any role: the position behind everything that has been committed, and its timeline. On a standby: NULL.
 * With synchronous_commit=off what was committed is not flushed yet, and others see it nonetheless: so it is the insert position.
 */
const char *dbha__position_sql(void);

/* Reads its result (text format). False: it is of a standby, or nonsense; `token`, whose system identifier stays, is as it was. */
bool dbha__position_read(const PGresult *result, struct token *token);

/*
 * The same for how far a standby has replayed; of a primary it is where its recovery ended, or NULL, which is 0. keeps_snapshot: whether what
 * follows in the same transaction sees what was there before this was answered (REPEATABLE READ and SERIALIZABLE).
 */
const char *dbha__replayed_sql(void);
uint64_t dbha__replayed_read(const PGresult *result, bool *keeps_snapshot);

/*
 * The same of whoever is asked, for what was done there before: of a primary its position, of a standby what it has replayed. One question for
 * both, because a standby may be promoted between a statement and the question behind it.
 */
struct seen_position {
	struct token
	    at; /* its system identifier stays; timeline 0: there was no answer, or it is of a standby which may not tell */
	bool replayed; /* it is of a standby */
	bool told;     /* at.lsn is the answer */
};
const char *dbha__seen_sql(void);
void dbha__seen_read(const PGresult *result, struct seen_position *seen);

#endif
