/*
 * parsetree: a statement's text to its parse tree, by PostgreSQL's own parser (libpg_query). Pure.
 *
 * The tree comes as JSON: libpg_query writes it four times as fast as its protobuf form, reading it takes no second library, and
 * its nodes and members have names where protobuf has numbers, which change from version to version.
 *
 * The parser recurses on the caller's stack, some 160 bytes for each level of the statement. So whoever calls it bounds the
 * nesting first, see dbha__parsetree_nesting.
 */
#ifndef DBHA_POLICY_PARSETREE_H
#define DBHA_POLICY_PARSETREE_H

#include <stdbool.h>

struct parsetree {
	char *json; /* NULL: there is none, since the text could not be parsed */
	char *stderr_buffer;
	void *error;
};

/* Whether the library was built with libpg_query. */
bool dbha__parsetree_available(void);

void dbha__parsetree_make(const char *sql, struct parsetree *tree);
void dbha__parsetree_free(struct parsetree *tree);

/*
 * No text nests deeper than this. A level of a parse tree needs an operator, a bracket or a word of two letters at least, so these are
 * counted: far too many for an ordinary statement, whose lists are flat, and never too few.
 */
int dbha__parsetree_nesting(const char *sql);

#endif
