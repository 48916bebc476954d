/*
 * function_book: what is known of the functions, operators, types and relations of a database, as far as it decides whether a
 * statement that names them may run on a standby. Pure.
 *
 * A name that is not in the book is doubtful: it may have come into being after the book was made. A name without a schema is as
 * good as the worst of that name in any schema, since nobody here knows the search_path. What is in the catalog is believed: a
 * user's function that is declared STABLE and writes nevertheless is refused by the standby (25006), which is not silent, and
 * one that is declared STABLE and takes an advisory lock is a bug that PostgreSQL's documentation forbids. `write_functions` is for those.
 *
 * A book is made once (new, add, finish), and then read by any number of threads.
 */
#ifndef DBHA_POLICY_FUNCTION_BOOK_H
#define DBHA_POLICY_FUNCTION_BOOK_H

#include <stdbool.h>
#include <stddef.h>

struct function_book;

/* In the order from bad to good, which the catalog's query relies on: as digits they stand in its answer. */
enum book_verdict {
	BOOK_UNKNOWN = -1,
	BOOK_WRITE,    /* the user says so: write_functions */
	BOOK_DENIED,   /* the library's own list: declared stable or immutable, and yet of no use on a standby */
	BOOK_VOLATILE, /* or hides something volatile, or is no plain relation */
	BOOK_HARMLESS,
};

/* The kinds of names. */
#define BOOK_FUNCTION  'f'
#define BOOK_ATTRIBUTE 'a' /* doubtful functions of one row, which can be written as its column: row.function */
#define BOOK_OPERATOR  'o'
#define BOOK_TYPE      't'
#define BOOK_RELATION  'r'
#define BOOK_TROUBLE   'g' /* something volatile that can hide in any statement */

struct function_book *dbha__function_book_new(void);
void dbha__function_book_free(struct function_book *book); /* NULL is allowed */

/* Adds names, separated by line ends, of one kind, schema and verdict ('0' to '3'). False: nonsense, or out of memory. */
bool dbha__function_book_add(struct function_book *book, char kind, const char *schema, char verdict,
                             const char *names);

/* After the last name, before the first question. False: out of memory. */
bool dbha__function_book_finish(struct function_book *book);

/* schema: NULL where none is named. */
enum book_verdict dbha__function_book_ask(const struct function_book *book, char kind, const char *schema,
                                          const char *name);

/* NULL, or what makes every statement doubtful: "an implicit cast". */
const char *dbha__function_book_trouble(const struct function_book *book);

/* How many names, and how many bytes of memory. */
size_t dbha__function_book_names(const struct function_book *book, size_t *bytes);

/* ---- the lists, as regular expressions for the catalog's query ------------------------------------------------ */

struct book_patterns {
	char *deny, *allow, *views; /* the library's own */
	char *read, *write;         /* the options read_functions and write_functions */
};

/*
 * read, write: "name, schema.name, prefix*", as names stand in the catalog; NULL or "": none. False: out of memory, or a list with a
 * character that belongs in no such list; `wrong` is then where it stands, or NULL.
 */
bool dbha__book_patterns_init(struct book_patterns *patterns, const char *read, const char *write, const char **wrong);
void dbha__book_patterns_fini(struct book_patterns *patterns);

/* The library's own lists, for the documents: kind is "deny", "allow" or "views"; false behind the last. */
bool dbha__book_list(int i, const char **kind, const char **names, const char **why);

#endif
