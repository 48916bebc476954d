/*
 * option: the one table of the library's own options: name, type, default, range, text, and the member of struct
 * config_options each one fills. Parses, validates, prints. Pure: no environment, no libpq.
 */
#ifndef DBHA_POLICY_OPTION_H
#define DBHA_POLICY_OPTION_H

#include "config.h"

enum option_type {
	OPTION_TIME,    /* int, milliseconds */
	OPTION_INTEGER, /* int */
	OPTION_ENUM,    /* int, index into words */
	OPTION_TEXT,    /* char *, owned by struct config_options, NULL where not set */
	OPTION_CLUSTER, /* uint64_t, a system identifier, 0 where not set */
	OPTION_LAG      /* int, milliseconds; and max_lag_bytes of struct config_options: at most one of them is not 0 */
};

struct option {
	dbha_option_info info; /* what dbha_option() shows */
	enum option_type type;
	int min; /* both inclusive, milliseconds for a time; a size has 0 to OPTION_BYTES_MAX */
	int max;
	int bare_ms;              /* what a number without a unit means: 1 is milliseconds, 1000 is seconds */
	const char *const *words; /* of an enum, ended by NULL; the index is the value */
	size_t offset;            /* of the member of struct config_options */
};

#define OPTION_BYTES_MAX ((int64_t)1 << 50) /* 1024TB */

#define OPTION_ENV_MAX   64 /* longest name of an environment variable, with its NUL */
#define OPTION_PRINT_MAX 32 /* longest printed value of anything but a text, with its NUL */
#define OPTION_SHOWN_MAX 72

/* The option at an index from 0, NULL past the end; the option of that name, NULL if there is none. */
const struct option *dbha__option_at(int index);
const struct option *dbha__option_find(const char *name);

/* What a profile makes of an option that nobody has set; NULL: nothing, its default stays. */
const char *dbha__option_of_profile(const struct option *option, int profile);

/* The environment variable of an option: DBHA_CALL_TIMEOUT. */
void dbha__option_env(const struct option *option, char name[OPTION_ENV_MAX]);

/*
 * Parses value into the option's member of out, which stays as it is where the value is refused. origin says where
 * the value came from, for the message; NULL says nothing. The message is "name: "value" is not accepted ...".
 */
int dbha__option_parse(const struct option *option, const char *value, const char *origin, struct config_options *out,
                       dbha_error *err);

/* The value in the unit that fits it best: "5s", "read-write". NULL for a text or a cluster that is not set. May return buf. */
const char *dbha__option_print(const struct option *option, const struct config_options *in,
                               char buf[OPTION_PRINT_MAX]);

/* Fills in every default. Whatever out held is forgotten, not freed. */
int dbha__options_init(struct config_options *out, dbha_error *err);
void dbha__options_fini(struct config_options *options);
int dbha__options_copy(struct config_options *out, const struct config_options *in, dbha_error *err);

/* A search for the name that a misspelt one was meant to be. Start with {word, NULL, 0} and offer candidates. */
struct option_guess {
	const char *word;
	const char *best; /* NULL while nothing is near enough */
	int distance;
};
void dbha__option_guess(struct option_guess *guess, const char *candidate);

/* Offers the names of the table. */
void dbha__option_guess_own(struct option_guess *guess);

/* A value made fit for a message: cut, and without control characters. Use it inside one expression. */
struct option_shown {
	char text[OPTION_SHOWN_MAX];
};
struct option_shown dbha__option_shown(const char *value);

#endif
