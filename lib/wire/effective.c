#include "effective.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "keywords.h"
#include "option.h"
#include "redact.h"

/* No value of any libpq keyword; libpq repeats it in its message, by which we know that it got that far. */
#define SENTINEL "dbha-asks-libpq"

/*
 * Makes libpq merge and check options without connecting. PQconnectStartParams fills in the service file, the
 * environment and the defaults, checks every option, and only then resolves names and opens a socket. One option that
 * it must refuse stops it in between, and PQconninfo() on the failed connection shows what every option came to. Which
 * option it is decides how much is checked before: target_session_attrs comes last, sslmode early.
 *
 * Own options of `given` are left out. Returns NULL when out of memory; the caller calls PQfinish.
 */
static PGconn *ask_libpq(const struct config_pairs *given, const char *stop_at)
{
	size_t size = (size_t)given->n + 2;
	const char **keywords = calloc(size, sizeof *keywords), **values = calloc(size, sizeof *values);
	PGconn *pg = NULL;
	if (keywords && values) {
		int n = 0;
		for (int i = 0; i < given->n; i++) {
			const char *keyword = given->items[i].keyword;
			if (dbha__option_find(keyword) || strcmp(keyword, stop_at) == 0)
				continue;
			keywords[n] = keyword;
			values[n++] = given->items[i].value;
		}
		keywords[n] = stop_at;
		values[n] = SENTINEL;
		struct c_locale locale;
		dbha__c_locale_enter(&locale);
		pg = PQconnectStartParams(keywords, values, 0);
		dbha__c_locale_leave(&locale);
	}
	free(keywords);
	free(values);
	return pg;
}

/* Whether libpq accepted everything it checks before the sentinel. */
static bool got_to_sentinel(const PGconn *pg)
{
	return strstr(PQerrorMessage(pg), SENTINEL);
}

/* Given by the caller, a variable, or a service file: not merely libpq's compiled default. */
static bool was_set(const PQconninfoOption *o, const struct config_pairs *given)
{
	if (!o->val || !*o->val || strcmp(o->val, SENTINEL) == 0)
		return false;
	/*
	 * libpq finds its password file at connect, in the same way as it did now; `service` is passed on for that as well. And
	 * sslcertmode (libpq 16) it fills with a default that it does not list as one.
	 */
	if (strcmp(o->keyword, "passfile") == 0 || strcmp(o->keyword, "sslcertmode") == 0)
		return dbha__pairs_get(given, o->keyword);
	const char *variable = o->envvar ? getenv(o->envvar) : NULL;
	return dbha__pairs_get(given, o->keyword) || (variable && *variable) || !o->compiled ||
	       strcmp(o->val, o->compiled) != 0;
}

static int collect(PGconn *pg, const struct config_pairs *given, struct effective *out, dbha_error *err)
{
	PQconninfoOption *all = PQconninfo(pg);
	int rc = all ? DBHA_OK : dbha__no_memory(err);
	for (PQconninfoOption *o = all; rc == DBHA_OK && o && o->keyword; o++) {
		if (was_set(o, given))
			rc = dbha__pairs_set(&out->pairs, o->keyword, o->val, err);
		if (rc == DBHA_OK && strcmp(o->keyword, "port") == 0 && o->compiled &&
		    !(out->default_port = strdup(o->compiled)))
			rc = dbha__no_memory(err);
	}
	PQconninfoFree(all);
	/* PQconninfo() leaves out keywords that PGconn has no member for, such as service. */
	for (int i = 0; rc == DBHA_OK && i < given->n; i++) {
		const struct config_pair *pair = &given->items[i];
		if (!dbha__option_find(pair->keyword) && !dbha__pairs_get(&out->pairs, pair->keyword))
			rc = dbha__pairs_set(&out->pairs, pair->keyword, pair->value, err);
	}
	return rc;
}

/* The value that a message of libpq quotes whole, if it is no secret and holds none. */
static const char *quoted_value(const char *message, const struct config_pairs *pairs)
{
	const char *password = dbha__pairs_get(pairs, "password");
	for (int i = 0; i < pairs->n; i++) {
		const char *value = pairs->items[i].value;
		char quoted[80];
		snprintf(quoted, sizeof quoted, "\"%s\"", value);
		if (!dbha__keyword_is_secret(pairs->items[i].keyword) && strstr(message, quoted) &&
		    !(password && strstr(value, password)))
			return value;
	}
	return NULL;
}

/* Wrong numbers of hosts and ports in our words, which name the option; anything else in libpq's. */
static int refuse_resolved(const PGconn *pg, const struct effective *resolved, dbha_error *err)
{
	const struct config_pairs *pairs = &resolved->pairs;
	int rc = dbha__config_check_counts(dbha__pairs_get(pairs, "host"), dbha__pairs_get(pairs, "hostaddr"),
	                                   dbha__pairs_get(pairs, "port"), err);
	if (rc != DBHA_OK)
		return rc;
	const char *message = PQerrorMessage(pg), *allowed = quoted_value(message, pairs);
	return dbha__fail(err, DBHA_ERR_CONFIG, "libpq does not accept the options: %s",
	                  dbha__redact(message, allowed).text);
}

/* With target_session_attrs as the sentinel its own value is hidden; the second question shows it. */
static int resolve_target(const struct config_pairs *given, struct effective *out, dbha_error *err)
{
	PGconn *pg = ask_libpq(given, "sslmode");
	PQconninfoOption *all = pg ? PQconninfo(pg) : NULL;
	int rc = all ? DBHA_OK : dbha__no_memory(err);
	for (PQconninfoOption *o = all; rc == DBHA_OK && o && o->keyword; o++)
		if (strcmp(o->keyword, "target_session_attrs") == 0 && was_set(o, &(struct config_pairs){0}))
			rc = dbha__pairs_set(&out->pairs, o->keyword, o->val, err);
	PQconninfoFree(all);
	PQfinish(pg);
	return rc;
}

/*
 * Asks with hosts, port, user and password given, so that no variable, no password file and no list of another length
 * has a say. keyword and value are added; keyword may be NULL. Returns NULL when out of memory.
 */
static PGconn *ask_alone(const char *host, const char *hostaddr, const char *keyword, const char *value)
{
	const char *const fixed[][2] = {
	    {"host", host}, {"hostaddr", hostaddr}, {"port", "5432"}, {"user", "x"}, {"password", "x"}, {keyword, value},
	};
	struct config_pairs pairs = {0};
	int rc = DBHA_OK;
	for (size_t i = 0; rc == DBHA_OK && i < sizeof fixed / sizeof fixed[0]; i++)
		if (fixed[i][0])
			rc = dbha__pairs_set(&pairs, fixed[i][0], fixed[i][1], NULL);
	PGconn *pg = rc == DBHA_OK ? ask_libpq(&pairs, "target_session_attrs") : NULL;
	dbha__pairs_fini(&pairs);
	return pg;
}

/* PQhost() of a connection that never began tells where an empty host leads. The lists have two empty entries. */
static int resolve_host(struct effective *out, dbha_error *err)
{
	PGconn *pg = ask_alone(",", ",", NULL, NULL);
	if (!pg)
		return dbha__no_memory(err);
	const char *host = PQhost(pg);
	out->default_host = strdup(host && *host ? host : "localhost");
	PQfinish(pg);
	return out->default_host ? DBHA_OK : dbha__no_memory(err);
}

int dbha__effective_resolve(const struct config_pairs *given, struct effective *out, dbha_error *err)
{
	*out = (struct effective){0};
	PGconn *pg = ask_libpq(given, "target_session_attrs");
	int rc = pg ? collect(pg, given, out, err) : dbha__no_memory(err);
	if (rc == DBHA_OK && !got_to_sentinel(pg))
		rc = refuse_resolved(pg, out, err);
	PQfinish(pg);
	if (rc == DBHA_OK)
		rc = resolve_target(given, out, err);
	return rc == DBHA_OK ? resolve_host(out, err) : rc;
}

void dbha__effective_fini(struct effective *resolved)
{
	dbha__pairs_fini(&resolved->pairs);
	free(resolved->default_host);
	free(resolved->default_port);
	*resolved = (struct effective){0};
}

static int check_known(const char *keyword, dbha_error *err)
{
	PQconninfoOption *defaults = dbha__keywords_of_libpq();
	if (!defaults)
		return dbha__no_memory(err);
	int rc = dbha__keyword_known(defaults, keyword) ? DBHA_OK : dbha__keyword_refuse(defaults, keyword, err);
	PQconninfoFree(defaults);
	return rc;
}

static int check_value(const char *keyword, const char *value, dbha_error *err)
{
	PGconn *pg = ask_alone("localhost", "127.0.0.1", keyword, value);
	if (!pg)
		return dbha__no_memory(err);
	int rc = DBHA_OK;
	if (!got_to_sentinel(pg))
		rc = dbha__fail(err, DBHA_ERR_CONFIG, "%s: \"%s\" is not accepted by libpq: %s", keyword,
		                dbha__option_shown(value).text, dbha__redact(PQerrorMessage(pg), value).text);
	PQfinish(pg);
	return rc;
}

int dbha__effective_check(const char *keyword, const char *value, dbha_error *err)
{
	int rc = check_known(keyword, err);
	if (rc != DBHA_OK || !*value || dbha__keyword_is_secret(keyword))
		return rc;
	if (strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 || strcmp(keyword, "port") == 0)
		return dbha__config_check_list(keyword, value, err);
	return check_value(keyword, value, err);
}
