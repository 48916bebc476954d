#include "verb.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#define BLANKS  " \t\r\n\f\v"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789"

/* A word of a text: where it begins, and its length; 0: there is none, but the end or something else. */
struct word {
	const char *at;
	size_t length;
};

/* Block comments nest (PostgreSQL, 4.1.5 Comments); the end of the text ends any comment. */
static const char *behind_block(const char *text)
{
	int depth = 0;
	do {
		if (strncmp(text, "/*", 2) == 0) {
			depth++;
			text += 2;
		} else if (strncmp(text, "*/", 2) == 0) {
			depth--;
			text += 2;
		} else {
			text++;
		}
	} while (depth > 0 && *text);
	return text;
}

const char *dbha__verb_skip_comment(const char *text)
{
	if (strncmp(text, "--", 2) == 0)
		return text + strcspn(text, "\r\n");
	return strncmp(text, "/*", 2) == 0 ? behind_block(text) : text;
}

/* Past blanks and comments. */
static const char *skip(const char *text)
{
	for (const char *before = NULL; text != before;) {
		before = text;
		text = dbha__verb_skip_comment(text + strspn(text, BLANKS));
	}
	return text;
}

static struct word word_at(const char *text)
{
	text = skip(text);
	return (struct word){text, strspn(text, LETTERS)};
}

/* The first word of a statement; empty statements before it do not count, for the server neither. */
static struct word first_word(const char *sql)
{
	struct word word = word_at(sql);
	while (word.length == 0 && *word.at == ';')
		word = word_at(word.at + 1);
	return word;
}

static bool is(struct word word, const char *text)
{
	return strlen(text) == word.length && strncasecmp(word.at, text, word.length) == 0;
}

static bool is_one_of(struct word word, const char *const *texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is(word, texts[i]))
			return true;
	return false;
}

/* What COMMIT and ROLLBACK have in common: with TO, PREPARED, or anything else behind them they end no transaction. */
static enum verb verb_of_end(struct word first, enum verb end)
{
	struct word second = word_at(first.at + first.length);
	if (second.length == 0)
		return end;
	if (is(second, "work") || is(second, "transaction"))
		return verb_of_end(second, end);
	if (is(second, "and"))
		return end;
	return is(second, "to") ? VERB_QUIET : VERB_OTHER;
}

static enum verb verb_of_prepare(struct word first)
{
	return is(word_at(first.at + first.length), "transaction") ? VERB_PREPARE_TRANSACTION : VERB_OTHER;
}

enum verb dbha__verb(const char *sql)
{
	static const char *const commits[] = {"commit", "end"};
	static const char *const begins[] = {"begin", "start"};
	static const char *const rollbacks[] = {"rollback", "abort"};
	static const char *const quiet[] = {"set",  "reset",      "show",   "savepoint", "release",
	                                    "lock", "deallocate", "listen", "unlisten",  "close"};
	struct word first = first_word(sql);
	if (first.length == 0)
		return *first.at == '(' ? VERB_OTHER : VERB_UNKNOWN;
	if (is_one_of(first, commits, 2))
		return verb_of_end(first, VERB_COMMIT);
	if (is_one_of(first, begins, 2))
		return VERB_BEGIN;
	if (is_one_of(first, rollbacks, 2))
		return verb_of_end(first, VERB_ROLLBACK);
	if (is(first, "copy"))
		return VERB_COPY;
	if (is_one_of(first, quiet, sizeof quiet / sizeof quiet[0]))
		return VERB_QUIET;
	return is(first, "prepare") ? verb_of_prepare(first) : VERB_OTHER;
}

bool dbha__verb_chains(const char *sql)
{
	struct word word = first_word(sql);
	word = word_at(word.at + word.length);
	if (is(word, "work") || is(word, "transaction"))
		word = word_at(word.at + word.length);
	return is(word, "and") && is(word_at(word.at + word.length), "chain");
}

bool dbha__verb_begins(const char *sql, const char *first, const char *second)
{
	struct word word = first_word(sql);
	return is(word, first) && (!second || is(word_at(word.at + word.length), second));
}

bool dbha__verb_has_word(const char *text, const char *word)
{
	size_t length = strlen(word);
	for (const char *at = text + strcspn(text, LETTERS); *at; at += strcspn(at, LETTERS)) {
		size_t n = strspn(at, LETTERS);
		if (n == length && strncasecmp(at, word, n) == 0)
			return true;
		at += n;
	}
	return false;
}
