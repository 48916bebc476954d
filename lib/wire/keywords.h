/*
 * keywords: which keywords the libpq of this process knows, what to say of one it does not, and which values are secret.
 */
#ifndef DBHA_WIRE_KEYWORDS_H
#define DBHA_WIRE_KEYWORDS_H

#include <stdbool.h>

#include <libpq-fe.h>

#include "dbha.h"

/* A keyword whose value is never shown. */
bool dbha__keyword_is_secret(const char *keyword);

/* All of libpq's keywords, for PQconninfoFree; NULL when out of memory. */
PQconninfoOption *dbha__keywords_of_libpq(void);

bool dbha__keyword_known(const PQconninfoOption *keywords, const char *keyword);

/* The refusal of an unknown keyword, with what was probably meant. Returns DBHA_ERR_CONFIG. */
int dbha__keyword_refuse(const PQconninfoOption *keywords, const char *keyword, dbha_error *err);

#endif
