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
#include <locale.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "option.h"

#define FORMS "accepted: postgresql://user:password@host1:5432,host2/db?option=value or \"host=h1,h2 option=value\""

/*
 * libpq translates its messages; the redaction below has to know their quotes, and ours are English anyway. The locale
 * of the thread is changed, not that of the process.
 */
struct c_locale {
	locale_t c;
	locale_t before;
};

static void c_locale_enter(struct c_locale *l)
{
	l->c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	l->before = l->c ? uselocale(l->c) : (locale_t)0;
}

static void c_locale_leave(const struct c_locale *l)
{
	if (!l->c)
		return;
	uselocale(l->before);
	freelocale(l->c);
}

/* ---- Secrets ---- */

bool dbha__conninfo_is_secret(const char *keyword)
{
	static const char *const secrets[] = {"password", "sslpassword", "oauth_client_secret", "scram_client_key",
	                                      "scram_server_key"};
	for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++)
		if (strcmp(secrets[i], keyword) == 0)
			return true;
	return false;
}

struct redacted {
	char text[320];
};

/* Whether what stands between quotes may stay: libpq's own punctuation, or the one value the caller allows. */
static bool may_show(const char *quoted, size_t length, const char *allowed)
{
	static const char *const punctuation[] = {"=", "]", ":", "/"};
	for (size_t i = 0; i < sizeof punctuation / sizeof punctuation[0]; i++)
		if (length == 1 && *quoted == *punctuation[i])
			return true;
	return allowed && strlen(allowed) == length && memcmp(allowed, quoted, length) == 0;
}

/*
 * A message of libpq in one line, without what it quotes from the input. A quoted piece may hold quotes itself, so that
 * from the first piece not known to be harmless everything goes, up to the last quote of the message.
 */
static struct redacted redact(const char *message, const char *allowed)
{
	struct redacted out;
	const char *last = strrchr(message, '"');
	size_t n = 0;
	while (*message && n < sizeof out.text - 8) {
		char c = *message++;
		if (c != '\n')
			out.text[n++] = c;
		if (c != '"')
			continue;
		const char *end = strchr(message, '"');
		if (!end || !may_show(message, (size_t)(end - message), allowed)) {
			memcpy(out.text + n, "...\"", 4);
			n += 4;
			message = last >= message ? last + 1 : message + strlen(message);
			continue;
		}
		n += (size_t)snprintf(out.text + n, sizeof out.text - n, "%.*s\"", (int)(end - message), message);
		n = n < sizeof out.text ? n : sizeof out.text - 1;
		message = end + 1;
	}
	out.text[n] = '\0';
	return out;
}

/* ---- Keywords ---- */

/* Keywords of newer versions of libpq, for a message that helps. */
static const struct newer {
	const char *keyword;
	int version;
} newer_keywords[] = {
    {"load_balance_hosts", 16},   {"require_auth", 16},         {"sslcertmode", 16},      {"gssdelegation", 17},
    {"sslnegotiation", 17},       {"min_protocol_version", 18}, {"oauth_client_id", 18},  {"oauth_client_secret", 18},
    {"oauth_issuer", 18},         {"oauth_scope", 18},          {"scram_client_key", 18}, {"scram_server_key", 18},
    {"max_protocol_version", 18}, {"servicefile", 18},          {"sslkeylogfile", 18},
};

static bool libpq_knows(const PQconninfoOption *defaults, const char *keyword)
{
	for (; defaults->keyword; defaults++)
		if (strcmp(defaults->keyword, keyword) == 0)
			return true;
	return false;
}

static int refuse_keyword(const PQconninfoOption *defaults, const char *keyword, dbha_error *err)
{
	struct option_shown shown = dbha__option_shown(keyword);
	int version = PQlibVersion() / 10000;
	for (size_t i = 0; i < sizeof newer_keywords / sizeof newer_keywords[0]; i++)
		if (strcmp(newer_keywords[i].keyword, keyword) == 0)
			return dbha__fail(
			    err, DBHA_ERR_CONFIG,
			    "%s: not known to libpq %d, it came with libpq %d; accepted: leave it out, or use a newer "
			    "libpq%s",
			    shown.text, version, newer_keywords[i].version,
			    i == 0 ? " (this library spreads reads over the standbys by itself)" : "");

	struct option_guess guess = {.word = keyword};
	dbha__option_guess_own(&guess);
	for (const PQconninfoOption *o = defaults; o->keyword; o++)
		dbha__option_guess(&guess, o->keyword);
	if (guess.best)
		return dbha__fail(err, DBHA_ERR_CONFIG, "unknown option \"%s\"; did you mean %s?", shown.text, guess.best);
	return dbha__fail(err, DBHA_ERR_CONFIG,
	                  "unknown option \"%s\"; accepted: the options of this library and the keywords of libpq %d",
	                  shown.text, version);
}

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
	if (libpq_knows(defaults, scan->keyword))
		return DBHA_OK;
	if (scan->after_secret)
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "password: the word behind it is no known option; accepted: a password with spaces in single "
		                  "quotes, password='...'");
	return refuse_keyword(defaults, scan->keyword, err);
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
		scan->after_secret = dbha__conninfo_is_secret(scan->keyword);
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
	c_locale_enter(&locale);
	PQconninfoOption *parsed = PQconninfoParse(rest, &message);
	c_locale_leave(&locale);

	int rc = DBHA_OK;
	if (!parsed && message)
		rc = dbha__fail(err, DBHA_ERR_CONFIG, "the connection text is not accepted: %s; " FORMS,
		                redact(message, NULL).text);
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

/* libpq's list of keywords. An empty text gives it without reading the environment or a service file. */
static PQconninfoOption *libpq_keywords(void)
{
	return PQconninfoParse("", NULL);
}

int dbha__conninfo_parse(const char *text, struct config_pairs *out, dbha_error *err)
{
	struct scan scan = {0};
	PQconninfoOption *defaults = libpq_keywords();
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

/* ---- What libpq makes of it ---- */

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
		c_locale_enter(&locale);
		pg = PQconnectStartParams(keywords, values, 0);
		c_locale_leave(&locale);
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
	 * libpq finds its password file at connect, in the same way as it did now; `service` is passed on for that as well.
	 */
	if (strcmp(o->keyword, "passfile") == 0)
		return dbha__pairs_get(given, o->keyword);
	const char *variable = o->envvar ? getenv(o->envvar) : NULL;
	return dbha__pairs_get(given, o->keyword) || (variable && *variable) || !o->compiled ||
	       strcmp(o->val, o->compiled) != 0;
}

static int collect(PGconn *pg, const struct config_pairs *given, struct conninfo_resolved *out, dbha_error *err)
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
		if (!dbha__conninfo_is_secret(pairs->items[i].keyword) && strstr(message, quoted) &&
		    !(password && strstr(value, password)))
			return value;
	}
	return NULL;
}

/* Wrong numbers of hosts and ports in our words, which name the option; anything else in libpq's. */
static int refuse_resolved(const PGconn *pg, const struct conninfo_resolved *resolved, dbha_error *err)
{
	const struct config_pairs *pairs = &resolved->pairs;
	int rc = dbha__config_check_counts(dbha__pairs_get(pairs, "host"), dbha__pairs_get(pairs, "hostaddr"),
	                                   dbha__pairs_get(pairs, "port"), err);
	if (rc != DBHA_OK)
		return rc;
	const char *message = PQerrorMessage(pg), *allowed = quoted_value(message, pairs);
	return dbha__fail(err, DBHA_ERR_CONFIG, "libpq does not accept the options: %s", redact(message, allowed).text);
}

/* With target_session_attrs as the sentinel its own value is hidden; the second question shows it. */
static int resolve_target(const struct config_pairs *given, struct conninfo_resolved *out, dbha_error *err)
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
static int resolve_host(struct conninfo_resolved *out, dbha_error *err)
{
	PGconn *pg = ask_alone(",", ",", NULL, NULL);
	if (!pg)
		return dbha__no_memory(err);
	const char *host = PQhost(pg);
	out->default_host = strdup(host && *host ? host : "localhost");
	PQfinish(pg);
	return out->default_host ? DBHA_OK : dbha__no_memory(err);
}

int dbha__conninfo_resolve(const struct config_pairs *given, struct conninfo_resolved *out, dbha_error *err)
{
	*out = (struct conninfo_resolved){0};
	PGconn *pg = ask_libpq(given, "target_session_attrs");
	int rc = pg ? collect(pg, given, out, err) : dbha__no_memory(err);
	if (rc == DBHA_OK && !got_to_sentinel(pg))
		rc = refuse_resolved(pg, out, err);
	PQfinish(pg);
	if (rc == DBHA_OK)
		rc = resolve_target(given, out, err);
	return rc == DBHA_OK ? resolve_host(out, err) : rc;
}

void dbha__conninfo_fini(struct conninfo_resolved *resolved)
{
	dbha__pairs_fini(&resolved->pairs);
	free(resolved->default_host);
	free(resolved->default_port);
	*resolved = (struct conninfo_resolved){0};
}

/* ---- One keyword ---- */

static int check_known(const char *keyword, dbha_error *err)
{
	PQconninfoOption *defaults = libpq_keywords();
	if (!defaults)
		return dbha__no_memory(err);
	int rc = libpq_knows(defaults, keyword) ? DBHA_OK : refuse_keyword(defaults, keyword, err);
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
		                dbha__option_shown(value).text, redact(PQerrorMessage(pg), value).text);
	PQfinish(pg);
	return rc;
}

int dbha__conninfo_check(const char *keyword, const char *value, dbha_error *err)
{
	int rc = check_known(keyword, err);
	if (rc != DBHA_OK || !*value || dbha__conninfo_is_secret(keyword))
		return rc;
	if (strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 || strcmp(keyword, "port") == 0)
		return dbha__config_check_list(keyword, value, err);
	return check_value(keyword, value, err);
}
