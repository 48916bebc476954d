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
	VERB_BEGIN,               /* BEGIN, START TRANSACTION */
	VERB_COMMIT,              /* COMMIT, END: with it a transaction may come to be done */
	VERB_ROLLBACK,            /* ROLLBACK, ABORT: of the whole transaction */
	VERB_PREPARE_TRANSACTION, /* ends the transaction of the session, which may be committed later */
	VERB_QUIET, /* SET, SAVEPOINT, LOCK and others that write nothing and take no snapshot, so that none may be taken behind them */
	VERB_COPY,
};

enum verb dbha__verb(const char *sql);

/* Of a COMMIT or ROLLBACK: whether the next transaction begins with it (AND CHAIN). */
bool dbha__verb_chains(const char *sql);

/* Whether a statement begins with this word, and goes on with that one; second NULL: with whatever. */
bool dbha__verb_begins(const char *sql, const char *first, const char *second);

/* Past a comment, if one begins here; else `text`. */
const char *dbha__verb_skip_comment(const char *text);

/* Whether `word` is one of the words of a text, whatever its case. A word is made of letters, digits and underscores. */
bool dbha__verb_has_word(const char *text, const char *word);

#endif
