#include "sessionstate.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "verb.h"

/* A word in the text of a statement, and what it may leave behind. */
static const struct hint {
	const char *word;
	unsigned use;
} hints[] = {
    {"pg_temp", USE_TEMP},
    {"set_config", USE_SETTINGS},
    {"setseed", USE_SETTINGS},
    {"pg_advisory_lock", USE_LOCKS},
    {"pg_advisory_lock_shared", USE_LOCKS},
    {"pg_try_advisory_lock", USE_LOCKS},
    {"pg_try_advisory_lock_shared", USE_LOCKS},
    {"dblink_connect", USE_LIBRARY},
    {"dblink_connect_u", USE_LIBRARY},
};

/* Words that mean something only behind these: a column may be called temp, or hold. */
static const struct {
	const char *word;
	const char *behind[6];
	unsigned use;
} pairs[] = {
    {"temp", {"create", "replace", "into", "local", "global"}, USE_TEMP},
    {"temporary", {"create", "replace", "into", "local", "global"}, USE_TEMP},
    {"hold", {"with"}, USE_CURSORS},
};

/* Those that stand in a DO block, whose tag is only "DO". */
static const struct hint in_blocks[] = {
    {"set", USE_SETTINGS}, {"reset", USE_SETTINGS},  {"listen", USE_LISTEN}, {"prepare", USE_PREPARED},
    {"load", USE_LIBRARY}, {"declare", USE_CURSORS}, {"execute", USE_ASKED},
};

struct word {
	const char *at;
	size_t length;
};

static bool is(struct word word, const char *text)
{
	return strlen(text) == word.length && strncasecmp(word.at, text, word.length) == 0;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/*
 * The next word from *at on, and *at behind it. What stands in quotes counts, since a block is written in them; what stands in a
 * comment does not. *quote is the quote that is open. Length 0: the end.
 */
static struct word next_word(const char **at, char *quote)
{
	const char *text = *at;
	while (*text && !is_letter(*text)) {
		const char *behind = *quote ? text : dbha__verb_skip_comment(text);
		if (behind != text) {
			text = behind;
			continue;
		}
		if (*text == *quote)
			*quote = '\0';
		else if (!*quote && (*text == '\'' || *text == '"'))
			*quote = *text;
		text++;
	}
	struct word word = {text, 0};
	while (is_letter(*text))
		text++;
	word.length = (size_t)(text - word.at);
	*at = text;
	return word;
}

static unsigned use_of_word(struct word word, struct word before)
{
	/* By far the most words are none of these, and are told by two letters. */
	if (word.length < 4 || !strchr("tpsdhTPSDH", *word.at))
		return 0;
	for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
		if (is(word, hints[i].word))
			return hints[i].use;
	for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
		for (int k = 0; is(word, pairs[i].word) && pairs[i].behind[k]; k++)
			if (is(before, pairs[i].behind[k]))
				return pairs[i].use;
	return 0;
}

static unsigned use_of_block(const char *sql)
{
	unsigned use = 0;
	for (size_t i = 0; i < sizeof in_blocks / sizeof in_blocks[0]; i++)
		if (dbha__verb_has_word(sql, in_blocks[i].word))
			use |= in_blocks[i].use;
	return use;
}

/* SET LOCAL, SET TRANSACTION and SET CONSTRAINTS end with the transaction; their tag is that of SET. */
static bool sets(const char *sql)
{
	return dbha__verb_begins(sql, "set", NULL) && !dbha__verb_begins(sql, "set", "local") &&
	       !dbha__verb_begins(sql, "set", "transaction") && !dbha__verb_begins(sql, "set", "constraints");
}

unsigned dbha__sessionstate_hints(const char *sql)
{
	unsigned use = 0;
	char quote = '\0';
	const char *at = sql;
	struct word before = {"", 0};
	for (struct word word; (word = next_word(&at, &quote)).length > 0; before = word)
		use |= use_of_word(word, before);
	/* A function's body may say WITH HOLD too; outside a block only DECLARE does it. */
	if (use & USE_CURSORS && !dbha__verb_begins(sql, "declare", NULL))
		use &= ~(unsigned)USE_CURSORS;
	if (dbha__verb_begins(sql, "do", NULL))
		use |= use_of_block(sql);
	return sets(sql) ? use | USE_SETTINGS : use;
}

static bool begins(const char *tag, const char *with)
{
	return strncmp(tag, with, strlen(with)) == 0;
}

/*
 * What a DISCARD and others of the kind take away. RESET ALL does not take the role away that SET ROLE has set, and its tag is that of
 * any RESET; UNLISTEN * has the tag of any UNLISTEN.
 */
static unsigned undone_by(const char *tag)
{
	if (begins(tag, "DISCARD ALL"))
		return ~(unsigned)USE_LIBRARY;
	if (begins(tag, "DISCARD TEMP"))
		return USE_TEMP;
	if (begins(tag, "DEALLOCATE ALL"))
		return USE_PREPARED;
	if (begins(tag, "CLOSE CURSOR ALL"))
		return USE_CURSORS;
	return 0;
}

unsigned dbha__sessionstate_after(unsigned used, unsigned hinted, const char *tag)
{
	used |= hinted;
	switch (tag[0]) {
	case 'L':
		if (begins(tag, "LISTEN"))
			used |= USE_LISTEN;
		else if (begins(tag, "LOAD"))
			used |= USE_LIBRARY;
		break;
	case 'P':
		/* Not PREPARE TRANSACTION. */
		if (strcmp(tag, "PREPARE") == 0)
			used |= USE_PREPARED;
		break;
	case 'C':
	case 'D':
		used &= ~undone_by(tag);
		break;
	default:
		break;
	}
	return used;
}

unsigned dbha__sessionstate_survivors(unsigned used)
{
	return used & (unsigned)(USE_LOCKS | USE_PREPARED | USE_LIBRARY | USE_ASKED);
}

/* Prepared by the user, with PREPARE or over the protocol; the library's own statements stay, they are known by their names. */
#define DEALLOCATE_OTHERS                                                                                              \
	"DO $dbha$DECLARE n pg_catalog.text; BEGIN FOR n IN SELECT name FROM pg_catalog.pg_prepared_statements "           \
	"WHERE name OPERATOR(pg_catalog.!~) '^dbha_[0-9]+$' LOOP "                                                         \
	"EXECUTE pg_catalog.format('DEALLOCATE %I', n); END LOOP; END$dbha$"

static void add(char *sql, size_t size, const char *statement)
{
	size_t used = strlen(sql);
	if (used < size)
		snprintf(sql + used, size - used, "%s%s", used ? "; " : "", statement);
}

/* What stands before a parenthesis in the everyday statement: words of SQL, types, and functions of the server's that compute something. */
static const char *const harmless[] = {
    "abs",       "all",        "and",      "any",      "array_agg",  "as",      "avg",       "between",
    "by",        "cast",       "ceil",     "char",     "coalesce",   "concat",  "count",     "date",
    "date_part", "date_trunc", "distinct", "else",     "except",     "exists",  "extract",   "filter",
    "floor",     "from",       "greatest", "in",       "intersect",  "is",      "join",      "json_agg",
    "jsonb_agg", "least",      "left",     "length",   "like",       "limit",   "lower",     "max",
    "md5",       "min",        "mod",      "not",      "now",        "nullif",  "numeric",   "offset",
    "on",        "or",         "over",     "position", "rank",       "replace", "right",     "round",
    "row",       "row_number", "select",   "some",     "string_agg", "substr",  "substring", "sum",
    "then",      "timestamp",  "to_char",  "to_date",  "trim",       "union",   "unnest",    "upper",
    "using",     "values",     "varchar",  "when",     "where",      "with",
};

static bool is_harmless(struct word word)
{
	for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
		if (is(word, harmless[i]))
			return true;
	return false;
}

/* Part of a name, for all that is not ASCII, too. */
static bool is_in_name(char c)
{
	return is_letter(c) || c == '$' || c == '"' || c == '.' || (unsigned char)c >= 0x80;
}

bool dbha__sessionstate_may_set(const char *sql)
{
	for (const char *at = strchr(sql, '('); at; at = strchr(at + 1, '(')) {
		const char *end = at;
		while (end > sql && strchr(" \t\r\n\f\v", end[-1]))
			end--;
		const char *begin = end;
		while (begin > sql && is_in_name(begin[-1]))
			begin--;
		bool comment = end > sql + 1 && end[-1] == '/' && end[-2] == '*';
		if (comment || (begin < end && !is_harmless((struct word){begin, (size_t)(end - begin)})))
			return true;
	}
	return false;
}

/* As DISCARD ALL does it (its manual page lists the same steps), but only what is needed, and without our own statements. */
const char *dbha__sessionstate_reset(unsigned used, bool rollback, bool on_standby, char *sql, size_t size)
{
	sql[0] = '\0';
	if (used & USE_LIBRARY)
		return NULL;
	if (rollback)
		add(sql, size, "ROLLBACK");
	if (used & (USE_CURSORS | USE_ASKED))
		add(sql, size, "CLOSE ALL");
	if (used & (USE_SETTINGS | USE_ASKED))
		add(sql, size, "SET SESSION AUTHORIZATION DEFAULT; RESET ALL");
	if (used & (USE_LISTEN | USE_ASKED) && !on_standby)
		add(sql, size, "UNLISTEN *");
	if (used & (USE_LOCKS | USE_ASKED))
		add(sql, size, "SELECT pg_catalog.pg_advisory_unlock_all()");
	if (used & (USE_PREPARED | USE_ASKED))
		add(sql, size, DEALLOCATE_OTHERS);
	if (used & (USE_TEMP | USE_ASKED))
		add(sql, size, "DISCARD TEMP");
	if (used & USE_ASKED)
		add(sql, size, "DISCARD SEQUENCES");
	return sql;
}

void dbha__sessionstate_words(unsigned used, char *text, size_t size)
{
	static const char *const words[] = {"settings",         "temporary tables",  "LISTEN",
	                                    "advisory locks",   "cursors WITH HOLD", "prepared statements",
	                                    "a loaded library", "DBHA_PIN"};
	size_t at = 0;
	text[0] = '\0';
	for (size_t i = 0; i < sizeof words / sizeof words[0] && at < size; i++)
		if (used & 1u << i) {
			int n = snprintf(text + at, size - at, "%s%s", at ? ", " : "", words[i]);
			at += n > 0 ? (size_t)n : 0;
		}
}
