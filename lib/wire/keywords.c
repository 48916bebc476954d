#include "keywords.h"

#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "option.h"

bool dbha__keyword_is_secret(const char *keyword)
{
	static const char *const secrets[] = {"password", "sslpassword", "oauth_client_secret", "scram_client_key",
	                                      "scram_server_key"};
	for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++)
		if (strcmp(secrets[i], keyword) == 0)
			return true;
	return false;
}

/* Keywords of newer versions of libpq, for a message that helps. */
static const struct newer {
	const char *keyword;
	int version;
} newer_keywords[] = {
    {"require_auth", 16},         {"sslcertmode", 16},      {"gssdelegation", 17},       {"sslnegotiation", 17},
    {"min_protocol_version", 18}, {"oauth_client_id", 18},  {"oauth_client_secret", 18}, {"oauth_issuer", 18},
    {"oauth_scope", 18},          {"scram_client_key", 18}, {"scram_server_key", 18},    {"max_protocol_version", 18},
    {"servicefile", 18},          {"sslkeylogfile", 18},
};

bool dbha__keyword_known(const PQconninfoOption *defaults, const char *keyword)
{
	for (; defaults->keyword; defaults++)
		if (strcmp(defaults->keyword, keyword) == 0)
			return true;
	return false;
}

int dbha__keyword_refuse(const PQconninfoOption *defaults, const char *keyword, dbha_error *err)
{
	struct option_shown shown = dbha__option_shown(keyword);
	int version = PQlibVersion() / 10000;
	for (size_t i = 0; i < sizeof newer_keywords / sizeof newer_keywords[0]; i++)
		if (strcmp(newer_keywords[i].keyword, keyword) == 0)
			return dbha__fail(
			    err, DBHA_ERR_CONFIG,
			    "%s: not known to libpq %d, it came with libpq %d; accepted: leave it out, or use a newer "
			    "libpq",
			    shown.text, version, newer_keywords[i].version);

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

/* libpq's list of keywords. An empty text gives it without reading the environment or a service file. */
PQconninfoOption *dbha__keywords_of_libpq(void)
{
	return PQconninfoParse("", NULL);
}
