/*
 * mark: takes the mark of a transaction, by which its outcome can be told later.
 */
#ifndef DBHA_WIRE_MARK_H
#define DBHA_WIRE_MARK_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "outcome.h"

/*
 * One SELECT without parameters that fetches the mark of the transaction it runs in. Its xid is NULL where none is assigned, and it
 * never assigns one. It does not fail on a primary, where any role may run it.
 */
const char *dbha__mark_sql(void);

/* Reads its result (text format). False: no xid yet, or nonsense; the mark stays as it was. */
bool dbha__mark_read(const PGresult *result, struct xact_mark *mark);

/* Whether there is an xid in it: what dbha__mark_read could not read then is not "nothing written". */
bool dbha__mark_is_there(const PGresult *result);

/* "16/B374D848", and nothing else. */
bool dbha__lsn_read(const char *text, uint64_t *lsn);

/* The timeline in the name of a WAL file: the first 8 of its 24 hexadecimal digits. */
bool dbha__timeline_read(const char *walfile, uint32_t *timeline);

#endif
