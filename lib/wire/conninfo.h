/*
 * conninfo: a URL or keyword/value text -> pairs, by libpq's own parser, with the library's own options taken out
 * first.
 *
 * No message made here repeats a password: of what libpq says about a text, everything it quotes from that text is
 * taken out, and a text in which an unencoded "@" makes it unclear where the password ends is refused without any
 * detail.
 */
#ifndef DBHA_WIRE_CONNINFO_H
#define DBHA_WIRE_CONNINFO_H

#include "config.h"

/*
 * Parses text into out: libpq's keywords and the library's own options, the latter not yet validated. Unknown keywords
 * are refused by name. On failure out may hold some pairs; dbha__pairs_fini(out) in either case.
 */
int dbha__conninfo_parse(const char *text, struct config_pairs *out, dbha_error *err);

/*
 * Whether text may hold parts of a password where libpq sees something else, so that no message about it, whoever makes
 * it, may repeat any of its values.
 */
bool dbha__conninfo_is_ambiguous(const char *text);

/* The refusal of such a text. origin: "DATABASE_URL", or NULL. Returns DBHA_ERR_CONFIG. */
int dbha__conninfo_refuse_ambiguous(const char *origin, dbha_error *err);

/* Reads DB_HOST DB_PORT DB_NAME DB_USER DB_PASS into out; those not set or empty are left out. */
int dbha__conninfo_from_env(config_getenv *getenv, void *data, struct config_pairs *out, dbha_error *err);

#endif
