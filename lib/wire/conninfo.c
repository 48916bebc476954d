/*
 * conninfo: a URL or keyword/value text -> pairs, by libpq's own parser. See conninfo.h.
 *
 * The order of things: the text is cut into keyword/value pieces by libpq's quoting rules (scan_*); pieces that are
 * ours are decoded and kept, the others are copied verbatim into `rest`, which goes to PQconninfoParse. So libpq alone
 * decides what its keywords mean, and ours never reach it.
 */
#include "conninfo.h"

#include <ctype.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "keywords.h"
#include "option.h"
#include "redact.h"

#define FORMS "accepted: postgresql://user:password@host1:5432,host2/db?option=value or \"host=h1,h2 option=value\""

/* ---- Cutting the text into pieces ---- */

struct scan {
	const char *at; /* what has not been read yet */
	char *keyword;  /* of the last piece, decoded */
	char *value;    /* as long as the text at most, like the others */
	char *rest;     /* what is for libpq, verbatim */
	size_t n_rest;
	bool after_secret; /* the piece before was a password: a word behind it may be the rest of it */
};

static int scan_init(struct scan *scan, const char *text, dbha_error *err)
{
	size_t size = strlen(text) + 1;
	*scan = (struct scan){.at = text, .keyword = malloc(size), .value = malloc(size), .rest = malloc(size)};
	if (!scan->keyword || !scan->value || !scan->rest)
		return dbha__no_memory(err);
	scan->rest[0] = '\0';
	return DBHA_OK;
}

static void scan_fini(struct scan *scan)
{
	free(scan->keyword);
	free(scan->value);
	free(scan->rest);
}

static void keep_rest(struct scan *scan, const char *from, size_t length)
{
	memcpy(scan->rest + scan->n_rest, from, length);
	scan->n_rest += length;
	scan->rest[scan->n_rest] = '\0';
}

static const char *skip_space(const char *at)
{
	while (isspace((unsigned char)*at))
		at++;
	return at;
}

/*
 * Copies a value by libpq's rules: quoted or not, a backslash takes the next character. NULL: the quote is not closed.
 */
static const char *read_value(const char *at, char *value)
{
	bool quoted = *at == '\'';
	if (quoted)
		at++;
	while (*at && (quoted ? *at != '\'' : !isspace((unsigned char)*at))) {
		if (*at == '\\' && !*++at)
			break;
		*value++ = *at++;
	}
	*value = '\0';
	if (quoted && *at != '\'')
		return NULL;
	return quoted ? at + 1 : at;
}

/* Reads the next "keyword = value". False at the end, or where libpq has to say what is wrong. */
static bool scan_word(struct scan *scan)
{
	const char *at = skip_space(scan->at);
	size_t length = 0;
	while (at[length] && at[length] != '=' && !isspace((unsigned char)at[length]))
		length++;
	memcpy(scan->keyword, at, length);
	scan->keyword[length] = '\0';
	at = skip_space(at + length);
	if (*at != '=' || !(at = read_value(skip_space(at + 1), scan->value)))
		return false;
	scan->at = at;
	return true;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
	                              : -1;
}

/* Percent-decoding. False where it is malformed or holds a NUL; libpq then says so. */
static bool decode(char *out, const char *in, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		if (in[i] == '%') {
			int high = i + 2 < length ? hex_digit(in[i + 1]) : -1, low = i + 2 < length ? hex_digit(in[i + 2]) : -1;
			if (high < 0 || low < 0 || high + low == 0)
				return false;
			*out++ = (char)(high * 16 + low);
			i += 2;
		} else {
			*out++ = in[i];
		}
	}
	*out = '\0';
	return true;
}

/* Reads the next "keyword=value" of a URL's query. False where it is malformed. */
static bool scan_parameter(struct scan *scan)
{
	size_t length = strcspn(scan->at, "&"), name = strcspn(scan->at, "=&");
	const char *at = scan->at;
	if (name == length || memchr(at + name + 1, '=', length - name - 1))
		return false;
	if (!decode(scan->keyword, at, name) || !decode(scan->value, at + name + 1, length - name - 1))
		return false;
	scan->at += length;
	return true;
}

/* Takes an own option into out. *ours says whether it was one. An unknown keyword is refused. */
static int take_own(struct scan *scan, const PQconninfoOption *defaults, struct config_pairs *out, bool *ours,
                    dbha_error *err)
{
	*ours = dbha__option_find(scan->keyword);
	if (*ours)
		return dbha__pairs_set(out, scan->keyword, scan->value, err);
	if (dbha__keyword_known(defaults, scan->keyword))
		return DBHA_OK;
	if (scan->after_secret)
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "password: the word behind it is no known option; accepted: a password with spaces in single "
		                  "quotes, password='...'");
	return dbha__keyword_refuse(defaults, scan->keyword, err);
}

static int split_words(struct scan *scan, const PQconninfoOption *defaults, struct config_pairs *out, dbha_error *err)
{
	for (;;) {
		bool ours;
		const char *begin = scan->at;
		if (!scan_word(scan))
			break;
		int rc = take_own(scan, defaults, out, &ours, err);
		if (rc != DBHA_OK)
			return rc;
		if (!ours)
			keep_rest(scan, begin, (size_t)(scan->at - begin));
		scan->after_secret = dbha__keyword_is_secret(scan->keyword);
	}
	keep_rest(scan, scan->at, strlen(scan->at));
	return DBHA_OK;
}

/*
 * libpq takes the last of two; SQLAlchemy's "?host=a:1&host=b:2" would lose its first host without a word. "ssl=true"
 * is libpq's own courtesy to users of JDBC.
 */
static int check_parameter(const struct scan *scan, struct config_pairs *seen, bool *known, dbha_error *err)
{
	const char *keyword = scan->keyword;
	*known = strcmp(keyword, "ssl") == 0;
	if (*known && strcmp(scan->value, "true") != 0)
		return dbha__fail(err, DBHA_ERR_CONFIG, "ssl: \"%s\" is not accepted; accepted: true; see also sslmode",
		                  dbha__option_shown(scan->value).text);
	if (strcmp(keyword, "host") != 0 && strcmp(keyword, "hostaddr") != 0 && strcmp(keyword, "port") != 0)
		return DBHA_OK;
	if (dbha__pairs_get(seen, keyword))
		return dbha__fail(err, DBHA_ERR_CONFIG, "%s: given twice in the query of the URL; accepted: one list, a,b,c",
		                  keyword);
	return dbha__pairs_set(seen, keyword, "seen", err);
}

static int split_query(struct scan *scan, const PQconninfoOption *defaults, struct config_pairs *out, dbha_error *err)
{
	struct config_pairs seen = {0};
	int rc = DBHA_OK;
	char separator = '?';
	while (rc == DBHA_OK && *scan->at) {
		bool known, ours = false;
		const char *begin = scan->at;
		if (!scan_parameter(scan))
			break;
		rc = check_parameter(scan, &seen, &known, err);
		if (rc == DBHA_OK && !known)
			rc = take_own(scan, defaults, out, &ours, err);
		if (!ours) {
			keep_rest(scan, &separator, 1);
			keep_rest(scan, begin, (size_t)(scan->at - begin));
			separator = '&';
		}
		/* A "&" at the very end is an empty parameter, which libpq takes without a word. */
		if (*scan->at == '&')
			scan->at++;
	}
	if (*scan->at) {
		keep_rest(scan, &separator, 1);
		keep_rest(scan, scan->at, strlen(scan->at));
	}
	dbha__pairs_fini(&seen);
	return rc;
}

/* ---- URLs ---- */

/* The parts of a URL, cut where libpq cuts it. */
struct url {
	const char *after_scheme;
	const char *user_end; /* the "@" behind user and password; NULL: there is none */
	const char *query;    /* the "?", or the end of the text */
};

/* The length of "scheme://", 0 where text is no URL. */
static size_t scheme_length(const char *text)
{
	size_t n = 0;
	while (isalnum((unsigned char)text[n]) || (n && text[n] && strchr("+-._", text[n])))
		n++;
	return n && strncmp(text + n, "://", 3) == 0 ? n + 3 : 0;
}

static bool scheme_is_ours(const char *text, size_t length)
{
	static const char *const names[] = {"postgresql", "postgres"};
	for (size_t i = 0; i < 2; i++) {
		size_t n = strlen(names[i]);
		if (strncmp(text, names[i], n) != 0)
			continue;
		/* "://", or "+DRIVER://" with at least one letter. */
		if (text[n] == ':' || (text[n] == '+' && length > n + 4))
			return true;
	}
	return false;
}

static bool url_cut(const char *text, struct url *url)
{
	size_t length = scheme_length(text);
	if (!length)
		return false;
	url->after_scheme = text + length;
	const char *at = url->after_scheme + strcspn(url->after_scheme, "@/");
	url->user_end = *at == '@' ? at : NULL;
	const char *hosts = url->user_end ? at + 1 : url->after_scheme;
	url->query = hosts + strcspn(hosts, "?");
	return true;
}

/* The first "@" that is not the one behind the user; NULL where there is none. */
static const char *stray_at(const struct url *url)
{
	return strchr(url->user_end ? url->user_end + 1 : url->after_scheme, '@');
}

bool dbha__conninfo_is_ambiguous(const char *text)
{
	struct url url;
	return url_cut(text, &url) && stray_at(&url);
}

/*
 * In the query it may well be a value. In front of it libpq would take the rest of a password for a host or a database.
 */
static bool is_misread(const char *text)
{
	struct url url;
	return url_cut(text, &url) && stray_at(&url) && stray_at(&url) < url.query;
}

int dbha__conninfo_refuse_ambiguous(const char *origin, dbha_error *err)
{
	return dbha__fail(
	    err, DBHA_ERR_CONFIG,
	    "%s: refused, and no part of it is shown because a password may be in it: a URL may hold one \"@\", "
	    "in front of the hosts; accepted: \"@\" as %%40, \"/\" as %%2F, \":\" as %%3A, \"?\" as %%3F in a "
	    "user name, password, or value",
	    origin ? origin : "the URL");
}

static int split_url(struct scan *scan, const PQconninfoOption *defaults, struct config_pairs *out, dbha_error *err)
{
	struct url url = {0};
	size_t scheme = scheme_length(scan->at);
	if (!url_cut(scan->at, &url) || !scheme_is_ours(scan->at, scheme))
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "the URL: scheme \"%.*s\" is not accepted; accepted: postgresql://, postgres://, "
		                  "postgresql+DRIVER://",
		                  scheme < 40 ? (int)scheme - 3 : 40, scan->at);
	keep_rest(scan, "postgresql://", strlen("postgresql://") < scheme ? strlen("postgresql://") : 0);
	if (!scan->n_rest)
		keep_rest(scan, scan->at, scheme);
	keep_rest(scan, url.after_scheme, (size_t)(url.query - url.after_scheme));
	scan->at = *url.query ? url.query + 1 : url.query;
	return split_query(scan, defaults, out, err);
}

/*
 * In "postgresql://u:secret/db" the host was forgotten and the password is where a port would be; so it is in
 * "postgresql://me@corp:secret/db", where the user holds an "@". So a bad port of a URL is never repeated.
 */
static int check_url_port(const char *text, const char *port, dbha_error *err)
{
	if (!scheme_length(text) || dbha__config_check_list("port", port, NULL) == DBHA_OK)
		return DBHA_OK;
	return dbha__fail(err, DBHA_ERR_CONFIG,
	                  "port: what follows a \":\" behind a host in the URL (not shown, it may be a password) is not "
	                  "accepted; accepted: 1 to 65535; a user and a password are written user:password@host");
}

/* ---- Parsing ---- */

/* libpq writes one empty port for each host where a URL names none; that says no more than one default port does. */
static int add_parsed(const PQconninfoOption *o, struct config_pairs *out, dbha_error *err)
{
	const char *value = o->val;
	if (!value || !*value || dbha__option_find(o->keyword))
		return DBHA_OK;
	if (strcmp(o->keyword, "port") == 0 && strspn(value, ",") == strlen(value) && o->compiled)
		value = o->compiled;
	return dbha__pairs_set(out, o->keyword, value, err);
}

static int parse_rest(const char *text, const char *rest, struct config_pairs *out, dbha_error *err)
{
	char *message = NULL;
	struct c_locale locale;
	dbha__c_locale_enter(&locale);
	PQconninfoOption *parsed = PQconninfoParse(rest, &message);
	dbha__c_locale_leave(&locale);

	int rc = DBHA_OK;
	if (!parsed && message)
		rc = dbha__fail(err, DBHA_ERR_CONFIG, "the connection text is not accepted: %s; " FORMS,
		                dbha__redact(message, NULL).text);
	else if (!parsed)
		rc = dbha__no_memory(err);
	for (PQconninfoOption *o = parsed; rc == DBHA_OK && o && o->keyword; o++) {
		if (strcmp(o->keyword, "port") == 0 && o->val)
			rc = check_url_port(text, o->val, err);
		if (rc == DBHA_OK)
			rc = add_parsed(o, out, err);
	}
	PQconninfoFree(parsed);
	PQfreemem(message);
	return rc;
}

int dbha__conninfo_parse(const char *text, struct config_pairs *out, dbha_error *err)
{
	struct scan scan = {0};
	PQconninfoOption *defaults = dbha__keywords_of_libpq();
	int rc = defaults ? scan_init(&scan, text, err) : dbha__no_memory(err);
	if (rc == DBHA_OK)
		rc = scheme_length(text) ? split_url(&scan, defaults, out, err) : split_words(&scan, defaults, out, err);
	if (rc == DBHA_OK)
		rc = parse_rest(text, scan.rest, out, err);
	if ((rc == DBHA_ERR_CONFIG && dbha__conninfo_is_ambiguous(text)) || (rc == DBHA_OK && is_misread(text)))
		rc = dbha__conninfo_refuse_ambiguous(NULL, err);
	scan_fini(&scan);
	PQconninfoFree(defaults);
	return rc;
}

int dbha__conninfo_from_env(config_getenv *getenv, void *data, struct config_pairs *out, dbha_error *err)
{
	static const char *const names[][2] = {
	    {"DB_HOST", "host"}, {"DB_PORT", "port"}, {"DB_NAME", "dbname"}, {"DB_USER", "user"}, {"DB_PASS", "password"},
	};
	int rc = DBHA_OK;
	for (size_t i = 0; rc == DBHA_OK && i < sizeof names / sizeof names[0]; i++) {
		const char *value = getenv(names[i][0], data);
		if (value && *value)
			rc = dbha__pairs_set(out, names[i][1], value, err);
	}
	return rc;
}
