/*
 * catalog: the one query that fetches from a server what routing=auto has to know: which functions, operators, types and relations
 * are harmless to read with. Its answer goes into policy/function_book.
 *
 * Any role may run it, on a primary or a standby. It takes the server some 60 ms of work and answers with some 40 kB, so it is asked
 * seldom, and by one caller at a time (runtime/bookshelf); a database that has a great many objects of its own gets an answer with the
 * most dangerous first, and what is left out is doubtful.
 */
#ifndef DBHA_WIRE_CATALOG_H
#define DBHA_WIRE_CATALOG_H

#include <libpq-fe.h>
#include <stdbool.h>

#include "classify.h"
#include "function_book.h"

#define CATALOG_PARAMS 6

/* SELECT with CATALOG_PARAMS parameters, all of them text. */
const char *dbha__catalog_sql(void);

/* The values of its parameters, which live as long as `patterns`. */
void dbha__catalog_params(const struct book_patterns *patterns, const char *values[CATALOG_PARAMS]);

/*
 * Makes a book of its result (text format). NULL: the result is an error or nonsense, or memory is out. The result stays the
 * caller's.
 */
struct function_book *dbha__catalog_read(const PGresult *result);

/* Puts down what the server has told of a connection's client_encoding and standard_conforming_strings. No round trip. */
void dbha__catalog_settings(const PGconn *pg, struct classify_limits *limits);

#endif
