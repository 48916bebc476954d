/*
 * config: the public calls of a configuration. They keep the layers apart and ask policy/config what they come to.
 */
#include "config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conninfo.h"
#include "effective.h"
#include "keywords.h"
#include "error.h"
#include "option.h"

/* ---- Layers ---- */

static const char *process_env(const char *name, void *data)
{
	(void)data;
	return getenv(name);
}

static const char *kept_env(const char *name, void *data)
{
	return dbha__pairs_get(data, name);
}

/* The layers of one configuration, highest first, with what libpq adds below them. */
struct gathered {
	struct effective resolved;
	struct config_pairs env;
	struct config_layer layers[3];
	struct config_input input;
};

/* What was given explicitly, `set` over `text`. */
static int merge_given(const dbha_config *config, struct config_pairs *out, dbha_error *err)
{
	const struct config_pairs *const layers[] = {&config->text, &config->set};
	int rc = DBHA_OK;
	for (int i = 0; i < 2; i++)
		for (int j = 0; rc == DBHA_OK && j < layers[i]->n; j++)
			if (*layers[i]->items[j].value)
				rc = dbha__pairs_set(out, layers[i]->items[j].keyword, layers[i]->items[j].value, err);
	return rc;
}

static int gather(const dbha_config *config, struct gathered *g, dbha_error *err)
{
	struct config_pairs given = {0};
	*g = (struct gathered){.env = config->env};
	int rc = merge_given(config, &given, err);
	if (rc == DBHA_OK)
		rc = dbha__effective_resolve(&given, &g->resolved, err);
	dbha__pairs_fini(&given);

	g->layers[0] = (struct config_layer){&config->set, "dbha_config_set"};
	g->layers[1] = (struct config_layer){&config->text, config->text_origin};
	g->layers[2] = (struct config_layer){&g->resolved.pairs, "libpq's environment or service file"};
	g->input = (struct config_input){
	    .layers = g->layers,
	    .n_layers = 3,
	    .env_rank = config->text_origin ? 1 : 2,
	    .getenv = kept_env,
	    .getenv_data = &g->env,
	    .default_host = g->resolved.default_host,
	    .default_port = g->resolved.default_port,
	};
	return rc;
}

static void gathered_fini(struct gathered *g)
{
	dbha__effective_fini(&g->resolved);
}

int dbha__config_build(const dbha_config *config, struct config *out, dbha_error *err)
{
	struct gathered g;
	memset(out, 0, sizeof *out);
	int rc = gather(config, &g, err);
	if (rc == DBHA_OK)
		rc = dbha__config_init(out, &g.input, err);
	gathered_fini(&g);
	return rc;
}

/* ---- dbha_config_new ---- */

static int keep_env(dbha_config *config, dbha_error *err)
{
	const struct option *option;
	int rc = DBHA_OK;
	for (int i = 0; rc == DBHA_OK && (option = dbha__option_at(i)); i++) {
		char name[OPTION_ENV_MAX];
		dbha__option_env(option, name);
		const char *value = getenv(name);
		if (value)
			rc = dbha__pairs_set(&config->env, name, value, err);
	}
	return rc;
}

/* So that whatever is wrong with a value of the text or the environment is refused at once. */
static int check_values(const dbha_config *config, dbha_error *err)
{
	struct gathered g;
	int rc = gather(config, &g, err);
	if (rc == DBHA_OK)
		rc = dbha__config_check(&g.input, err);
	gathered_fini(&g);
	return rc;
}

static int read_text(dbha_config *config, const char *text, dbha_error *err)
{
	int rc = dbha__conninfo_parse(text, &config->text, err);
	return rc == DBHA_OK ? check_values(config, err) : rc;
}

static int read_given(dbha_config *config, const char *text, dbha_error *err)
{
	int rc = read_text(config, text, err);
	if (rc == DBHA_ERR_CONFIG && dbha__conninfo_is_ambiguous(text))
		rc = dbha__conninfo_refuse_ambiguous(NULL, err);
	return rc;
}

static int read_database_url(dbha_config *config, const char *text, dbha_error *err)
{
	dbha_error inner;
	config->text_origin = "DATABASE_URL";
	int rc = read_text(config, text, &inner);
	if (rc == DBHA_ERR_CONFIG && dbha__conninfo_is_ambiguous(text))
		return dbha__conninfo_refuse_ambiguous("DATABASE_URL", err);
	return rc == DBHA_OK ? rc : dbha__fail(err, rc, "with DATABASE_URL: %s", inner.message);
}

static int read_db_variables(dbha_config *config, dbha_error *err)
{
	dbha_error inner;
	config->text_origin = "the variables DB_*";
	int rc = dbha__conninfo_from_env(process_env, NULL, &config->text, &inner);
	if (rc == DBHA_OK)
		rc = check_values(config, &inner);
	if (rc != DBHA_OK)
		dbha__fail(err, rc, "%s%s", config->text.n ? "with the variables DB_*: " : "", inner.message);
	return rc;
}

dbha_config *dbha_config_new(const char *conninfo, dbha_error *err)
{
	dbha_config *config = calloc(1, sizeof *config);
	if (!config) {
		dbha__fail(err, DBHA_ERR_MEMORY, "out of memory");
		return NULL;
	}
	const char *url = getenv("DATABASE_URL");
	int rc = keep_env(config, err);
	if (rc == DBHA_OK && conninfo && *conninfo)
		rc = read_given(config, conninfo, err);
	else if (rc == DBHA_OK && url && *url)
		rc = read_database_url(config, url, err);
	else if (rc == DBHA_OK)
		rc = read_db_variables(config, err);
	if (rc == DBHA_OK)
		return config;
	dbha_config_free(config);
	return NULL;
}

void dbha_config_free(dbha_config *config)
{
	if (!config)
		return;
	dbha__pairs_fini(&config->set);
	dbha__pairs_fini(&config->text);
	dbha__pairs_fini(&config->env);
	free(config->shown);
	free(config);
}

/* ---- dbha_config_set, dbha_config_get ---- */

static int check_own(const struct option *option, const char *value, dbha_error *err)
{
	struct config_options scratch = {0};
	int rc = dbha__option_parse(option, value, NULL, &scratch, err);
	dbha__options_fini(&scratch);
	return rc;
}

int dbha_config_set(dbha_config *config, const char *name, const char *value, dbha_error *err)
{
	if (!config || !name || !value)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_config_set: %s is NULL",
		                  !config ? "config"
		                  : !name ? "name"
		                          : "value");
	const struct option *option = dbha__option_find(name);
	int rc = option ? check_own(option, value, err) : dbha__effective_check(name, value, err);
	return rc == DBHA_OK ? dbha__pairs_set(&config->set, name, value, err) : rc;
}

static const char *get_own(const struct option *option, const struct gathered *g, char **shown)
{
	struct config_options options;
	char buf[OPTION_PRINT_MAX];
	if (dbha__config_read_options(&options, &g->input, NULL) != DBHA_OK)
		return NULL;
	const char *text = dbha__option_print(option, &options, buf);
	*shown = text ? strdup(text) : NULL;
	dbha__options_fini(&options);
	return *shown;
}

static const char *get_libpq(const char *name, const struct gathered *g, char **shown)
{
	const char *value = NULL;
	for (int i = 0; i < g->input.n_layers && !value; i++)
		value = dbha__pairs_get(g->layers[i].pairs, name);
	if (value && dbha__keyword_is_secret(name))
		value = "********";
	*shown = value ? strdup(value) : NULL;
	return *shown;
}

const char *dbha_config_get(dbha_config *config, const char *name)
{
	if (!config || !name)
		return NULL;
	struct gathered g;
	const struct option *option = dbha__option_find(name);
	free(config->shown);
	config->shown = NULL;
	/* Hosts and ports that do not match yet are no reason to hide the other options. */
	gather(config, &g, NULL);
	const char *value = option ? get_own(option, &g, &config->shown) : get_libpq(name, &g, &config->shown);
	gathered_fini(&g);
	return value;
}

const dbha_option_info *dbha_option(int index)
{
	const struct option *option = dbha__option_at(index);
	return option ? &option->info : NULL;
}
