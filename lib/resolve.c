#include "resolve.h"
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
enum outcome dbha__resolve(dbha *h, const struct resolve *what, char *why, size_t why_size,
                           char node[DBHA_NODE_NAME_MAX])
{
	(void)h;
	(void)what;
	(void)node;
	snprintf(why, why_size, "the cluster was not asked");
	return OUTCOME_UNKNOWN;
}
const char *dbha__mark_sql(void);
bool dbha__mark_read(const PGresult *result, struct xact_mark *mark);
const char *dbha__mark_sql(void) { return "SELECT pg_catalog.pg_current_xact_id_if_assigned()"; }
bool dbha__mark_read(const PGresult *result, struct xact_mark *mark)
{
	mark->xid = PQgetisnull(result, 0, 0) ? 0 : strtoull(PQgetvalue(result, 0, 0), NULL, 10);
	return mark->xid;
}
