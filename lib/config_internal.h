/*
 * config_internal: what the other public calls see of a dbha_config.
 */
#ifndef DBHA_CONFIG_INTERNAL_H
#define DBHA_CONFIG_INTERNAL_H

#include "config.h"

struct dbha_config {
	struct config_pairs set;  /* by dbha_config_set */
	struct config_pairs text; /* the URL or conninfo text, or what DATABASE_URL or DB_* said in its place */
	struct config_pairs env;  /* DBHA_* as they were when the configuration was made, under the variables' names */
	const char *text_origin;  /* NULL: given by the caller, above DBHA_*; else the variable, below DBHA_* */
	char *shown;              /* what dbha_config_get returned last */
};

/*
 * Everything together, for dbha_open_config. Reads libpq's environment, service file and nothing else. On success the
 * caller owns out and ends it with dbha__config_fini; on failure it holds nothing.
 */
int dbha__config_build(const dbha_config *config, struct config *out, dbha_error *err);

#endif
