/*
 * sessionstate: what a statement leaves behind in its server session, beyond its own transaction, and what undoes it. Pure.
 *
 * The command tag tells most of it. What a function does (an advisory lock, set_config) and whether a table is temporary it
 * does not tell; there the words of the statement have to do, and a word too many costs a reset that was not needed. What a
 * function hides in its body is seen by nobody here: docs/sessions.md says so.
 */
#ifndef DBHA_POLICY_SESSIONSTATE_H
#define DBHA_POLICY_SESSIONSTATE_H

#include <stdbool.h>
#include <stddef.h>

enum session_use {
	USE_SETTINGS = 1, /* SET, set_config, SET ROLE */
	USE_TEMP = 2,     /* temporary tables, and others of the kind */
	USE_LISTEN = 4,
	USE_LOCKS = 8,     /* advisory locks of the session */
	USE_CURSORS = 16,  /* cursors WITH HOLD */
	USE_PREPARED = 32, /* PREPARE */
	USE_LIBRARY = 64,  /* LOAD: nothing undoes it */
	USE_ASKED = 128,   /* the caller said so (DBHA_PIN), or had the connection to himself: nobody knows */
};

/* What can be known from the text of a statement, before it is run. For the common ones 0. */
unsigned dbha__sessionstate_hints(const char *sql);

/*
 * Whether a statement calls a function of which it is not known that it changes no setting: then it may change one until the end of its transaction,
 * and what comes behind it there would see that. Only names before a parenthesis are looked at; what a view, a policy or an operator calls is not
 * seen.
 */
bool dbha__sessionstate_may_set(const char *sql);

/*
 * What the session has used in all, after a statement with this command tag has succeeded. used: before it. hints: of its text. A
 * DISCARD ALL, or DEALLOCATE ALL, takes away what it undoes.
 */
unsigned dbha__sessionstate_after(unsigned used, unsigned hints, const char *tag);

/* Of what was set in a transaction that was rolled back, what stays: it is not transactional. */
unsigned dbha__sessionstate_survivors(unsigned used);

/*
 * The statements, in one text, that make a session as it was when it began; beginning with a ROLLBACK, if that is wanted. "": nothing
 * to do. NULL: no statement can, the connection has to be closed. on_standby: the session cannot listen there, and may
 * not UNLISTEN.
 */
const char *dbha__sessionstate_reset(unsigned used, bool rollback, bool on_standby, char *sql, size_t size);

/* For people: "settings, temporary tables". */
void dbha__sessionstate_words(unsigned used, char *text, size_t size);

#endif
