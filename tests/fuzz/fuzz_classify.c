/*
 * fuzz_classify: a libFuzzer target. Any text is classified, with a small book, on whatever stack there is: no crash, no leak, the same
 * verdict twice. And what is called a read stays one when it is wrapped into another query, and stops being one next to a write.
 *
 * The first byte of the input chooses what is done with the rest, so that seeds can be read and written by hand:
 *   e  the text is classified as in a session of another encoding, without standard strings
 *   b  the text is taken for names of a book
 *   l  the text is taken for a list of function names
 *   anything else: the whole input is a statement
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct classify_limits plain = {65536, 2000, true, true};
static const struct classify_limits other = {4096, 500, false, false};

/* What a sanitizer would do: the input is kept and the run ends. */
static void must(bool held, const char *what, const char *text)
{
	if (held)
		return;
	fprintf(stderr, "fuzz_classify: %s\n text: %s\n", what, text);
	abort();
}

static const struct function_book *small_book(void)
{
	static struct function_book *book;
	if (book)
		return book;
	book = dbha__function_book_new();
	must(book != NULL, "memory", "");
	must(dbha__function_book_add(book, 'f', "pg_catalog", '3', "count\nlower\nnow\nextract\ngenerate_series\nsum") &&
	         dbha__function_book_add(book, 'f', "pg_catalog", '2', "nextval\npg_advisory_lock") &&
	         dbha__function_book_add(book, 'o', "pg_catalog", '3', "=\n<\n>\n+\n-\n*\n/\n||\n~~\n->") &&
	         dbha__function_book_add(book, 't', "pg_catalog", '3', "int4\ntext\njsonb\nbool\ninterval") &&
	         dbha__function_book_add(book, 'r', "public", '3', "t\nusers\nplain\nauth_user") &&
	         dbha__function_book_add(book, 'r', "public", '2', "v") && dbha__function_book_finish(book),
	     "the book", "");
	return book;
}

static struct classify_verdict classify(const char *sql, const struct classify_limits *limits)
{
	char why[200];
	struct classify_verdict verdict = dbha__classify(sql, limits, small_book());
	must(verdict.why < N_CLASSIFY_WHYS && memchr(verdict.name, '\0', sizeof verdict.name) != NULL, "a verdict", sql);
	must(verdict.is == CLASS_WRITE || verdict.why == WHY_READ || verdict.why == WHY_HINT_STANDBY, "why a read", sql);
	must(dbha__classify_reason(&verdict, why, sizeof why)[0] != '\0', "a reason", sql);
	return verdict;
}

/* Whatever a text that is a read ends in, it has ended: what comes behind it on another line is another statement, or no SQL at all. */
static void check_neighbours(const char *sql, struct classify_verdict verdict)
{
	size_t room = strlen(sql) + 100;
	char *text = malloc(room);
	if (!text || verdict.why != WHY_READ || !dbha__classify_available())
		goto done;
	snprintf(text, room, "%s\n;DELETE FROM t", sql);
	must(classify(text, &plain).is == CLASS_WRITE, "a read before a write", text);
	snprintf(text, room, "DELETE FROM t; %s", sql);
	must(classify(text, &plain).is == CLASS_WRITE, "a read behind a write", text);
done:
	free(text);
}

static void try_book(const char *names)
{
	struct function_book *book = dbha__function_book_new();
	if (book && dbha__function_book_add(book, 'f', names, '2', names) && dbha__function_book_finish(book)) {
		char first[100];
		snprintf(first, sizeof first, "%.*s", (int)strcspn(names, "\n"), names);
		must(strlen(first) >= 99 || !*names || dbha__function_book_ask(book, 'f', NULL, first) == BOOK_VOLATILE,
		     "a name that is lost", names);
	}
	dbha__function_book_free(book);
}

static void try_list(const char *list)
{
	struct book_patterns patterns;
	const char *wrong;
	if (!dbha__book_patterns_init(&patterns, list, list, &wrong))
		must(!wrong || (wrong >= list && wrong < list + strlen(list)), "where the list is wrong", list);
	else
		dbha__book_patterns_fini(&patterns);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	struct classify_verdict once = classify(text, &plain), twice = classify(text, &plain);
	must(once.is == twice.is && once.why == twice.why && strcmp(once.name, twice.name) == 0, "two verdicts", text);
	check_neighbours(text, once);
	if (*text == 'e')
		classify(text + 1, &other);
	else if (*text == 'b')
		try_book(text + 1);
	else if (*text == 'l')
		try_list(text + 1);
	free(text);
	return 0;
}
