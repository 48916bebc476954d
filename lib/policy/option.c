/*
 * option: the table of the library's options, and the parser, validator and printer that read it.
 */
#include "option.h"

#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "error.h"

/* In the order of enum target. */
static const char *const target_words[] = {"any",     "read-write",     "read-only", "primary",
                                           "standby", "prefer-standby", NULL};
/* In the order of enum load_balance. */
static const char *const balance_words[] = {"disable", "random", NULL};
/* In the order of the levels of base/trace. */
static const char *const level_words[] = {"off", "error", "warning", "info", "debug", NULL};

/* In the order of enum probe_profile. */
static const char *const profile_words[] = {"normal", "aggressive", NULL};

/* Of a switch; in the order of enum monitor_mode. */
static const char *const switch_words[] = {"off", "on", NULL};
/* In the order of enum discover. */
static const char *const discover_words[] = {"off", "dns", NULL};

/* In the order of enum dbha_consistency, from SESSION on. */
static const char *const consistency_words[] = {"session", "bounded", "eventual", "primary", NULL};
/* In the order of enum routing. */
static const char *const routing_words[] = {"intent", "auto", NULL};

#define SECOND 1000
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

#define TIME_ROW(name, member, def, low, high, bare, accepted, text)                                                   \
	{                                                                                                                  \
		{name, "time", def, accepted, text}, OPTION_TIME, low, high, bare, NULL,                                       \
		    offsetof(struct config_options, member)                                                                    \
	}
#define INTEGER_ROW(name, def, low, high, accepted, text)                                                              \
	{                                                                                                                  \
		{#name, "integer", def, accepted, text}, OPTION_INTEGER, low, high, 1, NULL,                                   \
		    offsetof(struct config_options, name)                                                                      \
	}
#define ENUM_ROW(name, def, words, accepted, text)                                                                     \
	{                                                                                                                  \
		{#name, "enum", def, accepted, text}, OPTION_ENUM, 0, INT_MAX, 1, words, offsetof(struct config_options, name) \
	}
#define TEXT_ROW(name, accepted, text)                                                                                 \
	{                                                                                                                  \
		{#name, "text", "", accepted, text}, OPTION_TEXT, 0, 0, 1, NULL, offsetof(struct config_options, name)         \
	}
#define LAG_ROW(name, member, def, low, high, accepted, text)                                                          \
	{                                                                                                                  \
		{name, "time or size", def, accepted, text}, OPTION_LAG, low, high, 1, NULL,                                   \
		    offsetof(struct config_options, member)                                                                    \
	}
#define CLUSTER_ROW(name, accepted, text)                                                                              \
	{                                                                                                                  \
		{#name, "text", "", accepted, text}, OPTION_CLUSTER, 0, 0, 1, NULL, offsetof(struct config_options, name)      \
	}

/*
 * The order is the order of the manual. `accepted` is written out by hand because it is a constant string of the public
 * interface; tests/unit/test_option.c holds it against min, max and the words.
 */
static const struct option options[] = {
    ENUM_ROW(target_session_attrs, "primary", target_words,
             "any, read-write, read-only, primary, standby, prefer-standby",
             "Which node serves work that does not say whether it reads or writes, with libpq's meaning. libpq's own "
             "default is any; here it is primary, because work that says nothing may write."),
    ENUM_ROW(
        load_balance_hosts, "random", balance_words, "disable, random",
        "Which of several standbys serves a read. random: of two drawn at random the one with less work in flight and "
        "the shorter round trip; disable: the first usable one of the list. libpq's own default is disable."),
    TIME_ROW("call_timeout", call_timeout_ms, "30s", 1, DAY, 1, "1ms to 1d",
             "Deadline of a call that names none: DNS, connecting, waiting, execution and retries together."),
    TIME_ROW("connect_timeout", connect_timeout_ms, "5s", 100, HOUR, SECOND,
             "100ms to 1h; a bare number is seconds, as in libpq; 0 or less, no limit in libpq, is refused",
             "Limit of one connection attempt to one node."),
    INTEGER_ROW(pool_max_size, "10", 1, 10000, "1 to 10000", "Most connections to each node."),
    INTEGER_ROW(pool_min_size, "1", 0, 1000, "0 to 1000",
                "Connections kept open to each node (none with monitor=off)."),
    TIME_ROW("pool_timeout", pool_timeout_ms, "0", 0, DAY, 1, "0 to 1d",
             "Longest wait for a connection of the pool; 0: the deadline of the call alone decides."),
    INTEGER_ROW(pool_max_waiting, "0", 0, 1000000, "0 to 1000000",
                "Most callers that may wait for a connection to one node; 0: no limit."),
    TIME_ROW("pool_max_idle", pool_max_idle_ms, "10min", 1, 7 * DAY, 1, "1ms to 7d",
             "A connection above pool_min_size that nobody needed for this long is closed."),
    TIME_ROW("pool_max_lifetime", pool_max_lifetime_ms, "1h", 0, 7 * DAY, 1, "0 to 7d",
             "A connection is replaced at this age, give or take some jitter; 0: no limit."),
    INTEGER_ROW(pool_max_connecting, "3", 1, 100, "1 to 100",
                "Connection attempts under way at one time to each node, so that a failover is no stampede."),
    ENUM_ROW(monitor, "on", switch_words, "on, off",
             "Whether a background thread watches the nodes. off, for short-lived processes: the calls do it while "
             "they wait, "
             "and the handles of a process share what they have seen."),
    ENUM_ROW(discover, "off", discover_words, "off, dns",
             "What a host name with several addresses is. off: one node, its addresses are tried in turn; dns: each "
             "address is a node of its own, which comes and goes with the answer of the name server."),
    TIME_ROW("resolve_interval", resolve_interval_ms, "30s", SECOND, HOUR, 1, "1s to 1h",
             "A host name is looked up again at this age; at failures, and while there is no primary, each second."),
    ENUM_ROW(probe_profile, "normal", profile_words, "normal, aggressive",
             "How soon a silent node is noticed, as defaults of the three options that follow. normal: within 2.8 s; "
             "aggressive: within 0.85 s (probe_interval 250ms, probe_timeout 200ms, probe_failures 3)."),
    TIME_ROW("probe_interval", probe_interval_ms, "1s", 100, HOUR, 1, "100ms to 1h",
             "Time between two health probes of a node."),
    TIME_ROW("probe_interval_fast", probe_interval_fast_ms, "5ms", 1, 10 * SECOND, 1, "1ms to 10s",
             "Time between two health probes of a node while there is no primary."),
    TIME_ROW("probe_timeout", probe_timeout_ms, "600ms", 10, MINUTE, 1, "10ms to 1min",
             "A probe without an answer for this long has failed."),
    INTEGER_ROW(probe_failures, "3", 1, 100, "1 to 100", "Failed probes in a row before a node counts as silent."),
    LAG_ROW("max_lag", max_lag_ms, "0", 0, DAY, "0 to 1d, or in WAL 0B to 1024TB",
            "A standby that lags by more than this, in time (5s) or in WAL (16MB), serves no reads; 0: no limit."),
    ENUM_ROW(consistency, "session", consistency_words, "session, bounded, eventual, primary",
             "How fresh a read has to be. session: a session sees its own writes, and its reads never go back in time; "
             "bounded: not "
             "older than max_lag; eventual: whatever a standby has; primary: reads go to the primary."),
    TIME_ROW("max_wait", max_wait_ms, "0", 0, MINUTE, 1, "0 to 1min",
             "How long a read of a session waits for a standby to replay what the session has written before it goes "
             "to the primary."),
    ENUM_ROW(routing, "intent", routing_words, "intent, auto",
             "Who says that a statement is a read where its caller has not. intent: nobody, target_session_attrs "
             "decides; auto: the "
             "statement itself, by PostgreSQL's parser and the server's catalog (docs/routing.md; needs libpg_query)."),
    TEXT_ROW(read_functions, "a list such as \"lazy, billing.total, calc_*\"",
             "Functions that routing=auto takes for harmless, whatever the catalog says."),
    TEXT_ROW(write_functions, "a list such as \"audit, billing.close_*\"",
             "Functions that routing=auto takes for writes, whatever the catalog says."),
    TIME_ROW("retry_backoff", retry_backoff_ms, "10ms", 1, MINUTE, 1, "1ms to 1min",
             "Upper bound of the first random pause between two attempts; it doubles with each one."),
    TIME_ROW("retry_backoff_max", retry_backoff_max_ms, "1s", 1, 10 * MINUTE, 1, "1ms to 10min",
             "Largest upper bound of the random pause between two attempts."),
    INTEGER_ROW(
        retry_budget, "20", 0, 100, "0 to 100",
        "Most statements sent again, in percent of the handle's statements, beside a burst for every connection "
        "it may hold and ten a second; beyond it a failed statement is reported, not tried again. 0: no limit."),
    ENUM_ROW(
        verify_commit, "off", switch_words, "on, off",
        "Whether a single write outside a transaction is made one of its own, so that its outcome can be found out "
        "where the connection is lost: two round trips for it instead of one, and then never a doubt that the "
        "cluster can clear."),
    INTEGER_ROW(statement_cache_size, "100", 0, 10000, "0 to 10000",
                "Prepared statements kept per connection; 0: nothing is prepared, as some poolers need."),
    TEXT_ROW(
        fence_file, "an absolute path; processes of one user and one cluster may share it",
        "Where the highest timeline seen outlives the process, so that one which starts while only a stale primary can "
        "be reached refuses to write on it; not set: nowhere."),
    CLUSTER_ROW(
        accept_cluster, "a system identifier, 1 to 18446744073709551615; only with fence_file",
        "The one cluster that may take the place of the one in fence_file, after it was rebuilt: it is accepted "
        "when a node with this identifier answers."),
    TEXT_ROW(outcome_table, "the name of a table, taken literally, or SCHEMA.TABLE; each at most 63 bytes",
             "Where each transaction that writes leaves a row, so that what became of it can be told even where its "
             "status cannot; "
             "\"dbha outcome-table\" makes it; not set: nowhere."),
    ENUM_ROW(commit_terminate, "off", switch_words, "off, on",
             "Whether a session that still runs a transaction whose COMMIT was lost is ended, after half of the time "
             "that the call has "
             "left, so that its outcome is known within the deadline."),
    ENUM_ROW(log_level, "off", level_words, "off, error, warning, info, debug, or their numbers 0 to 4",
             "How much is written to log_file."),
    TEXT_ROW(log_file, "a path, or stderr", "Where the log goes; not set: nowhere."),
};

#define N_OPTIONS ((int)(sizeof options / sizeof options[0]))

const struct option *dbha__option_at(int index)
{
	return index >= 0 && index < N_OPTIONS ? &options[index] : NULL;
}

const struct option *dbha__option_find(const char *name)
{
	for (int i = 0; i < N_OPTIONS; i++)
		if (strcmp(options[i].info.name, name) == 0)
			return &options[i];
	return NULL;
}

const char *dbha__option_of_profile(const struct option *option, int profile)
{
	static const char *const aggressive[][2] = {
	    {"probe_interval", "250ms"},
	    {"probe_timeout", "200ms"},
	};
	for (size_t i = 0; profile == PROBE_AGGRESSIVE && i < sizeof aggressive / sizeof aggressive[0]; i++)
		if (strcmp(option->info.name, aggressive[i][0]) == 0)
			return aggressive[i][1];
	return NULL;
}

void dbha__option_env(const struct option *option, char name[OPTION_ENV_MAX])
{
	snprintf(name, OPTION_ENV_MAX, "DBHA_%s", option->info.name);
	/* Not toupper(): a Turkish locale would make another letter of the i. */
	for (char *c = name; *c; c++)
		if (*c >= 'a' && *c <= 'z')
			*c = (char)(*c - 'a' + 'A');
}

/* ---- Parsing ---- */

/* The largest one first; a unit without a name ends the list. */
struct unit {
	const char *name;
	int64_t size;
};
static const struct unit times[] = {{"d", DAY}, {"h", HOUR}, {"min", MINUTE}, {"s", SECOND}, {"ms", 1}, {0}};
static const struct unit sizes[] = {{"TB", (int64_t)1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20},
                                    {"kB", 1 << 10},          {"B", 1},        {0}};

/* What a unit's name stands for; 0 for one that is not known. As in PostgreSQL, case matters. */
static int64_t unit_size(const struct unit *unit, const char *name, int bare)
{
	if (!*name)
		return bare;
	for (; unit->name; unit++)
		if (strcmp(name, unit->name) == 0)
			return unit->size;
	return 0;
}

/* Reads up to nine digits, which always fit. Moves *text behind them and returns how many there were. */
static int read_digits(const char **text, int64_t *number)
{
	int n = 0;
	for (*number = 0; **text >= '0' && **text <= '9'; ++*text)
		if (++n <= 9)
			*number = *number * 10 + (**text - '0');
	return n;
}

/* Anything of more than nine digits is beyond every range of the table; -1 is never inside one. */
static int64_t parse_integer(const char *text)
{
	int64_t number;
	int n = read_digits(&text, &number);
	return n < 1 || n > 9 || *text ? -1 : number;
}

/*
 * "5s", "1.5 min", "200". bare: what a number without a unit counts in; 0: it needs one. Returns -1 where it is no such
 * quantity, no whole number of the smallest unit, or beyond all reason.
 */
static int64_t parse_quantity(const char *text, const struct unit *units, int bare)
{
	int64_t whole, fraction = 0, scale = 1;
	int n = read_digits(&text, &whole), n_fraction = 0;
	if (*text == '.') {
		text++;
		n_fraction = read_digits(&text, &fraction);
		if (n_fraction < 1 || n_fraction > 9)
			return -1;
	}
	while (*text == ' ')
		text++;
	int64_t unit = unit_size(units, text, bare);
	if (n < 1 || n > 9 || unit == 0 || __builtin_mul_overflow(whole, unit, &whole) ||
	    __builtin_mul_overflow(fraction, unit, &fraction))
		return -1;
	for (int i = 0; i < n_fraction; i++)
		scale *= 10;
	return fraction % scale || __builtin_add_overflow(whole, fraction / scale, &whole) ? -1 : whole;
}

/* The index of a word, or its number. */
static int64_t parse_enum(const char *text, const char *const *words, bool numbers)
{
	int n = 0;
	for (; words[n]; n++)
		if (strcmp(words[n], text) == 0)
			return n;
	int64_t number = numbers ? parse_integer(text) : -1;
	return number < n ? number : -1;
}

static int refuse(const struct option *option, const char *value, const char *origin, dbha_error *err)
{
	const char *kind = option->type == OPTION_TIME ? " (units ms, s, min, h, d, as in 200ms)"
	                   : option->type == OPTION_LAG
	                       ? " (units ms, s, min, h, d, as in 5s; B, kB, MB, GB, TB, as in 16MB)"
	                   : option->type == OPTION_INTEGER ? " (a whole number)"
	                                                    : "";
	return dbha__fail(err, DBHA_ERR_CONFIG, "%s: \"%s\"%s%s is not accepted; accepted: %s%s", option->info.name,
	                  dbha__option_shown(value).text, origin ? " from " : "", origin ? origin : "",
	                  option->info.accepted, kind);
}

static int parse_text(char **member, const char *value, dbha_error *err)
{
	char *copy = NULL;
	if (*value && !(copy = strdup(value)))
		return dbha__no_memory(err);
	free(*member);
	*member = copy;
	return DBHA_OK;
}

/* A system identifier; nothing at all is 0, not set. */
static bool parse_cluster(uint64_t *member, const char *value)
{
	uint64_t number = 0;
	for (const char *c = value; *c; c++) {
		if (*c < '0' || *c > '9' || number > (UINT64_MAX - (uint64_t)(*c - '0')) / 10)
			return false;
		number = number * 10 + (uint64_t)(*c - '0');
	}
	if (*value && number == 0)
		return false;
	*member = number;
	return true;
}

/* Of the two the last one that was said counts. */
static bool parse_lag(const struct option *option, const char *value, struct config_options *out)
{
	int64_t ms = parse_quantity(value, times, option->bare_ms);
	int64_t bytes = ms < 0 ? parse_quantity(value, sizes, 0) : 0;
	if (ms > option->max || bytes < 0 || bytes > OPTION_BYTES_MAX)
		return false;
	out->max_lag_ms = ms < 0 ? 0 : (int)ms;
	out->max_lag_bytes = bytes;
	return true;
}

int dbha__option_parse(const struct option *option, const char *value, const char *origin, struct config_options *out,
                       dbha_error *err)
{
	void *member = (char *)out + option->offset;
	if (option->type == OPTION_TEXT)
		return parse_text(member, value, err);
	if (option->type == OPTION_CLUSTER)
		return parse_cluster(member, value) ? DBHA_OK : refuse(option, value, origin, err);
	if (option->type == OPTION_LAG)
		return parse_lag(option, value, out) ? DBHA_OK : refuse(option, value, origin, err);

	int64_t number = -1;
	if (option->type == OPTION_TIME)
		number = parse_quantity(value, times, option->bare_ms);
	else if (option->type == OPTION_INTEGER)
		number = parse_integer(value);
	else
		number = parse_enum(value, option->words, option->words == level_words);
	if (number < option->min || number > option->max)
		return refuse(option, value, origin, err);
	*(int *)member = (int)number;
	return DBHA_OK;
}

/* ---- Printing ---- */

/* In the largest unit that it is a whole number of; 0 needs none. */
static const char *print_quantity(int64_t number, const struct unit *unit, char buf[OPTION_PRINT_MAX])
{
	while (number && number % unit->size != 0)
		unit++;
	snprintf(buf, OPTION_PRINT_MAX, "%" PRId64 "%s", number ? number / unit->size : 0, number ? unit->name : "");
	return buf;
}

const char *dbha__option_print(const struct option *option, const struct config_options *in, char buf[OPTION_PRINT_MAX])
{
	const void *member = (const char *)in + option->offset;
	if (option->type == OPTION_TEXT)
		return *(char *const *)member;
	if (option->type == OPTION_CLUSTER) {
		uint64_t cluster = *(const uint64_t *)member;
		snprintf(buf, OPTION_PRINT_MAX, "%" PRIu64, cluster);
		return cluster ? buf : NULL;
	}
	int number = *(const int *)member;
	if (option->type == OPTION_ENUM)
		return option->words[number];
	if (option->type == OPTION_LAG && in->max_lag_bytes)
		return print_quantity(in->max_lag_bytes, sizes, buf);
	if (option->type == OPTION_TIME || option->type == OPTION_LAG)
		return print_quantity(number, times, buf);
	snprintf(buf, OPTION_PRINT_MAX, "%d", number);
	return buf;
}

struct option_shown dbha__option_shown(const char *value)
{
	struct option_shown shown;
	size_t n = 0;
	/* Room is left for the dots and the NUL. */
	for (; n < sizeof shown.text - 4 && value[n]; n++) {
		unsigned char c = (unsigned char)value[n];
		shown.text[n] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	memcpy(shown.text + n, value[n] ? "..." : "", value[n] ? 4 : 1);
	return shown;
}

/* ---- All of them ---- */

int dbha__options_init(struct config_options *out, dbha_error *err)
{
	memset(out, 0, sizeof *out);
	for (int i = 0; i < N_OPTIONS; i++) {
		int rc = dbha__option_parse(&options[i], options[i].info.default_value, "the table of defaults", out, err);
		if (rc != DBHA_OK)
			return rc;
	}
	return DBHA_OK;
}

static char **text_of(const struct option *option, struct config_options *o)
{
	return (char **)(void *)((char *)o + option->offset);
}

void dbha__options_fini(struct config_options *o)
{
	for (int i = 0; i < N_OPTIONS; i++)
		if (options[i].type == OPTION_TEXT) {
			free(*text_of(&options[i], o));
			*text_of(&options[i], o) = NULL;
		}
}

int dbha__options_copy(struct config_options *out, const struct config_options *in, dbha_error *err)
{
	*out = *in;
	for (int i = 0; i < N_OPTIONS; i++)
		if (options[i].type == OPTION_TEXT)
			*text_of(&options[i], out) = NULL;
	int rc = DBHA_OK;
	for (int i = 0; rc == DBHA_OK && i < N_OPTIONS; i++) {
		const char *text = options[i].type == OPTION_TEXT ? dbha__option_print(&options[i], in, NULL) : NULL;
		if (text)
			rc = parse_text(text_of(&options[i], out), text, err);
	}
	return rc;
}

/* ---- "did you mean" ---- */

#define GUESS_MAX 40 /* no option is longer; a longer word is no misspelling of one */

static int least(int a, int b)
{
	return a < b ? a : b;
}

/* Insertions, deletions, changes and swaps of neighbours that lead from a to b. Both are shorter than GUESS_MAX. */
static int edit_distance(const char *a, const char *b)
{
	int rows[3][GUESS_MAX + 1];
	int n = (int)strlen(b);
	for (int j = 0; j <= n; j++)
		rows[0][j] = j;
	for (int i = 1; a[i - 1]; i++) {
		int *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
		row[0] = i;
		for (int j = 1; j <= n; j++) {
			row[j] = above[j - 1] + (a[i - 1] != b[j - 1]);
			row[j] = least(row[j], least(above[j], row[j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				row[j] = least(row[j], above2[j - 2] + 1);
		}
	}
	return rows[strlen(a) % 3][n];
}

void dbha__option_guess(struct option_guess *guess, const char *candidate)
{
	size_t length = strlen(guess->word);
	if (length >= GUESS_MAX || strlen(candidate) >= GUESS_MAX)
		return;
	/* Half of a word may be wrong ("pool_size"), but beyond four letters it is another word. */
	int distance = edit_distance(guess->word, candidate), limit = least((int)length / 2, 4);
	if (distance <= limit && (!guess->best || distance < guess->distance)) {
		guess->best = candidate;
		guess->distance = distance;
	}
}

void dbha__option_guess_own(struct option_guess *guess)
{
	for (int i = 0; i < N_OPTIONS; i++)
		dbha__option_guess(guess, options[i].info.name);
}
