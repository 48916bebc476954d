#ifndef DBHA_WIRE_OUTCOME_H
#define DBHA_WIRE_OUTCOME_H
#include <stdbool.h>
#include <libpq-fe.h>
#include "../policy/outcome.h"
const char *dbha__mark_sql(void);
bool dbha__mark_read(const PGresult *result, struct xact_mark *mark);
#endif
