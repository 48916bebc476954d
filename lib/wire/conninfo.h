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

/*
 * Whether libpq knows a keyword and takes the value, for a keyword that is no option of ours. What the value says
 * together with others is not looked at.
 */
int dbha__conninfo_check(const char *keyword, const char *value, dbha_error *err);

/* A keyword whose value is never shown. */
bool dbha__conninfo_is_secret(const char *keyword);

struct conninfo_resolved {
	struct config_pairs pairs; /* everything given explicitly, by libpq's environment, or by its service file */
	char *default_host;        /* where libpq goes for an empty host: its socket directory, or "localhost" */
	char *default_port;
};

/*
 * Completes given pairs the way libpq would at connect: service file, PG* variables. Values that are libpq's compiled
 * defaults are left out, so that whichever libpq connects applies its own. Own options in `given` are passed over; but
 * connect_timeout and target_session_attrs come out where the environment or the service file sets them (the service
 * file's target_session_attrs=any cannot be told from libpq's default and is taken for it). Password files are left to
 * libpq. Reads files, but no network and no DNS. dbha__conninfo_fini(out) in either case.
 */
int dbha__conninfo_resolve(const struct config_pairs *given, struct conninfo_resolved *out, dbha_error *err);
void dbha__conninfo_fini(struct conninfo_resolved *resolved);

#endif
