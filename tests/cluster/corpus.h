/*
 * corpus: the statements of tests/cluster/classify, each with what it truly is.
 *
 * A file has one statement a line, behind a letter and a blank; a line that begins with "| " goes on with the statement before it, behind
 * a line end; "#" begins a comment.
 *
 *   R  a read, with the same answer from every node       V  a read whose answer varies by itself
 *   W  not a read, or doubtful by the rules               E  an error everywhere
 *   S  declared a read, and refused by a standby (25006)
 */
#ifndef CORPUS_H
#define CORPUS_H

#include <stdbool.h>

struct corpus_statement {
	char is;
	const char *file; /* "django.txt" */
	int line;
	char *sql;
};

#define CORPUS_MAX 2000

struct corpus {
	struct corpus_statement statements[CORPUS_MAX];
	int n;
};

/* Adds a file; false: it cannot be read, or is not written as above. */
bool corpus_add(struct corpus *corpus, const char *directory, const char *file);
void corpus_free(struct corpus *corpus);

/* A file as one text, which the caller frees; NULL: it cannot be read. */
char *corpus_text(const char *directory, const char *file);

#endif
