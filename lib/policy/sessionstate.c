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
    {"temp", USE_TEMP},
    {"temporary", USE_TEMP},
    {"pg_temp", USE_TEMP},
    {"set_config", USE_SETTINGS},
    {"setseed", USE_SETTINGS},
    {"pg_advisory_lock", USE_LOCKS},
    {"pg_advisory_lock_shared", USE_LOCKS},
    {"pg_try_advisory_lock", USE_LOCKS},
    {"pg_try_advisory_lock_shared", USE_LOCKS},
    {"dblink_connect", USE_LIBRARY},
    {"hold", USE_CURSORS},
};

/* Those that stand in a DO block, whose tag is only "DO". */
static const struct hint in_blocks[] = {
    {"set", USE_SETTINGS}, {"listen", USE_LISTEN},   {"prepare", USE_PREPARED},
    {"load", USE_LIBRARY}, {"declare", USE_CURSORS}, {"execute", USE_ASKED},
};

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static unsigned use_of_word(const char *at, size_t length)
{
	for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
		if (strlen(hints[i].word) == length && strncasecmp(at, hints[i].word, length) == 0)
			return hints[i].use;
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

unsigned dbha__sessionstate_hints(const char *sql)
{
	unsigned use = 0;
	const char *first = NULL;
	size_t first_length = 0;
	for (const char *at = sql; *at;) {
		if (!is_letter(*at)) {
			at++;
			continue;
		}
		const char *end = at;
		while (is_letter(*end))
			end++;
		if (!first) {
			first = at;
			first_length = (size_t)(end - at);
		}
		if (end - at > 3 && strchr("tpsdhTPSDH", *at))
			use |= use_of_word(at, (size_t)(end - at));
		at = end;
	}
	/* HOLD is a word of DECLARE; elsewhere it is somebody's column. */
	bool declares = first && first_length == 7 && strncasecmp(first, "declare", 7) == 0;
	if (!declares)
		use &= ~(unsigned)USE_CURSORS;
	if (first && first_length == 2 && strncasecmp(first, "do", 2) == 0)
		use |= use_of_block(sql);
	/* SET LOCAL and SET TRANSACTION end with the transaction; their tag is that of SET. */
	bool sets = first && first_length == 3 && strncasecmp(first, "set", 3) == 0;
	if (sets && !dbha__verb_has_word(sql, "local") && !dbha__verb_has_word(sql, "transaction"))
		use |= USE_SETTINGS;
	return use;
}

static bool begins(const char *tag, const char *with)
{
	return strncmp(tag, with, strlen(with)) == 0;
}

/* What a DISCARD, a RESET, and others of the kind take away. */
static unsigned undone_by(const char *tag)
{
	if (begins(tag, "DISCARD ALL"))
		return ~(unsigned)USE_LIBRARY;
	if (begins(tag, "DISCARD TEMP"))
		return USE_TEMP;
	if (begins(tag, "DEALLOCATE ALL"))
		return USE_PREPARED;
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
