/*
 * verb: the first words of a statement, where they decide something before it is sent. Pure.
 *
 * No parser: blanks, comments and empty statements are skipped as the server's scanner skips them, and then there is a word. What begins
 * otherwise is VERB_UNKNOWN, and whoever asks takes the careful way.
 */
#ifndef DBHA_POLICY_VERB_H
#define DBHA_POLICY_VERB_H

#include <stdbool.h>

enum verb {
	VERB_UNKNOWN,
	VERB_OTHER,
	VERB_BEGIN,    /* BEGIN, START TRANSACTION */
	VERB_COMMIT,   /* COMMIT, END, PREPARE TRANSACTION: with it a transaction may come to be done */
	VERB_ROLLBACK, /* ROLLBACK, ABORT: of the whole transaction */
	VERB_COPY,
};

enum verb dbha__verb(const char *sql);

/* Whether `word` is one of the words of a text, whatever its case. A word is made of letters, digits and underscores. */
bool dbha__verb_has_word(const char *text, const char *word);

#endif
