/*
 * error: fills a caller's dbha_error. Nothing here allocates.
 */
#ifndef DBHA_BASE_ERROR_H
#define DBHA_BASE_ERROR_H

#include "dbha.h"

/*
 * Writes code, its default SQLSTATE and the message into err and clears the rest; err may be NULL. A message that does not
 * fit is cut. Returns code, so that a caller can write `return dbha__fail(err, DBHA_ERR_USAGE, "...");`.
 */
int dbha__fail(dbha_error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Out of memory is said everywhere with the same words. Returns DBHA_ERR_MEMORY. */
static inline int dbha__no_memory(dbha_error *err)
{
	dbha__fail(err, DBHA_ERR_MEMORY, "out of memory");
	return DBHA_ERR_MEMORY;
}

/* The default SQLSTATE of a code, five characters. */
const char *dbha__code_sqlstate(int code);

#endif
