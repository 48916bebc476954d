/*
 * dbha: opening and closing a handle, and the names of things.
 */
#include "dbha.h"

#include "dbha_build.h"

#include "config_internal.h"
#include "error.h"
#include "life.h"

const char *dbha_version(void)
{
	return PACKAGE_VERSION;
}

dbha *dbha_open_config(const dbha_config *config, dbha_error *err)
{
	if (!config) {
		dbha__fail(err, DBHA_ERR_USAGE, "dbha_open_config: config is NULL: make one with dbha_config_new");
		return NULL;
	}
	struct config built;
	if (dbha__config_build(config, &built, err) != DBHA_OK)
		return NULL;
	dbha *h = dbha__life_new(&built, err);
	dbha__config_fini(&built);
	return h;
}

dbha *dbha_open(const char *conninfo, dbha_error *err)
{
	dbha_config *config = dbha_config_new(conninfo, err);
	if (!config)
		return NULL;
	dbha *h = dbha_open_config(config, err);
	dbha_config_free(config);
	return h;
}

void dbha_close(dbha *h, int drain_ms)
{
	if (h)
		dbha__life_close(h, drain_ms);
}
