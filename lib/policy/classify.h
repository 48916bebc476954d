/*
 * classify: a statement's text -> a read, which may run on a standby, or not certainly one (routing=auto). Pure.
 *
 * By PostgreSQL's own parse tree and by what the server's catalog says of the names in it (function_book), never by looking for words.
 * The tree is read against a table of what is known to be harmless: nodes and their members. What is not in the table is
 * doubtful, and so is a name that is not in the book. So a new kind of node, in a later PostgreSQL, is a write until somebody has
 * thought about it. docs/routing.md has the rules.
 *
 * What this is not: a barrier. Reads run in sessions that are read-only on servers in recovery, where whatever changes data is refused.
 */
#ifndef DBHA_POLICY_CLASSIFY_H
#define DBHA_POLICY_CLASSIFY_H

#include <stdbool.h>
#include <stddef.h>

#include "function_book.h"

enum statement_class {
	CLASS_WRITE, /* or doubtful */
	CLASS_READ,
};

#define CLASSIFY_WHYS(X)                                                                                               \
	X(READ, "a read")                                                                                                  \
	X(HINT_STANDBY, "the hint in its comment")                                                                         \
	X(HINT_PRIMARY, "the hint in its comment")                                                                         \
	X(REFUSED_BEFORE, "a standby has refused it before")                                                               \
	X(NO_PARSER, "built without libpg_query")                                                                          \
	X(NO_BOOK, "the catalog has not been read yet")                                                                    \
	X(TOO_LONG, "the text is too long to be looked at")                                                                \
	X(TOO_DEEP, "the text may be nested too deeply")                                                                   \
	X(ENCODING, "characters beyond ASCII in a client_encoding that is not UTF8")                                       \
	X(BACKSLASH, "a backslash while standard_conforming_strings is off")                                               \
	X(NOT_PARSED, "not parsed")                                                                                        \
	X(EMPTY, "no statement")                                                                                           \
	X(TWO_STATEMENTS, "two statements")                                                                                \
	X(STATEMENT, "%s is not known to be a read")                                                                       \
	X(PART, "%s is not known to be harmless")                                                                          \
	X(LOCKING, "a locking clause")                                                                                     \
	X(INTO, "SELECT INTO")                                                                                             \
	X(WRITING_CTE, "a WITH that writes")                                                                               \
	X(EXPLAIN_ANALYZE, "EXPLAIN ANALYZE")                                                                              \
	X(COPY, "COPY other than TO STDOUT")                                                                               \
	X(SETTING, "setting %s is about the server")                                                                       \
	X(FUNCTION_VOLATILE, "function %s is volatile")                                                                    \
	X(FUNCTION_DENIED, "function %s is about the server, or runs statements")                                          \
	X(FUNCTION_WRITE, "function %s is in write_functions")                                                             \
	X(FUNCTION_UNKNOWN, "function %s is not known")                                                                    \
	X(ATTRIBUTE, "%s may be a function that is volatile")                                                              \
	X(OPERATOR, "operator %s is volatile or not known")                                                                \
	X(TYPE, "type %s is not known, or runs a volatile function")                                                       \
	X(RELATION, "relation %s is not a table, or hides something volatile")                                             \
	X(RELATION_UNKNOWN, "relation %s is not known")                                                                    \
	X(SAMPLE, "TABLESAMPLE %s")                                                                                        \
	X(TROUBLE, "the database has %s that runs a volatile function")

enum classify_why {
#define X(name, text) WHY_##name,
	CLASSIFY_WHYS(X)
#undef X
	    N_CLASSIFY_WHYS,
};

/* NAMEDATALEN, and what a name in this library's messages needs at most. */
#define CLASSIFY_NAME_MAX 64

struct classify_verdict {
	enum statement_class is;
	enum classify_why why;
	char name[CLASSIFY_NAME_MAX]; /* what it is about; "" where `why` says all */
};

struct classify_limits {
	size_t length_max;     /* bytes of text */
	int nesting_max;       /* see parsetree.h; 160 bytes of the caller's stack each */
	bool utf8;             /* client_encoding is UTF8; otherwise only ASCII is looked at */
	bool standard_strings; /* standard_conforming_strings is on; otherwise no text with a backslash is */
};

/* 64 kB of text; 320 kB of stack in the worst case, and a few for an ordinary statement. */
#define CLASSIFY_LIMITS ((struct classify_limits){65536, 2000, true, true})

bool dbha__classify_available(void);

/* book: NULL: nothing is known yet, so that only hints decide. */
struct classify_verdict dbha__classify(const char *sql, const struct classify_limits *limits,
                                       const struct function_book *book);

/* For people, one line: "function nextval is volatile". Returns text. */
const char *dbha__classify_reason(const struct classify_verdict *verdict, char *text, size_t size);

#endif
