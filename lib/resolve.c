#include "resolve.h"

#include <stdio.h>

enum outcome dbha__resolve(dbha *h, const struct resolve *what, char *why, size_t why_size,
                           char node[DBHA_NODE_NAME_MAX])
{
	(void)h;
	(void)what;
	(void)node;
	snprintf(why, why_size, "the cluster was not asked");
	return OUTCOME_UNKNOWN;
}
