/*
 * routing: what a statement means to do, where its caller has not said it: routing=auto. And which statements standbys have refused.
 */
#ifndef DBHA_ROUTING_H
#define DBHA_ROUTING_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "catalog.h"
#include "classify.h"
#include "dbha.h"
#include "life.h"

/*
 * DBHA_READ, or DBHA_DEFAULT: a write, or doubtful; with routing=intent always, and `verdict` is left as it is. May fetch the catalog, for at
 * most half of the time that the call has left, which has its deadline; what goes wrong with that is nobody's error: the answer is DBHA_DEFAULT.
 */
dbha_intent dbha__routing_intent(const struct call *call, const char *sql, struct classify_verdict *verdict);

/*
 * The same by what is known already, for who must not wait. claimed: the catalog is to be fetched, and it is the caller who does that: he runs the
 * request of dbha__routing_ask, and ends it with dbha__routing_put in any case.
 */
dbha_intent dbha__routing_known(dbha *h, const char *sql, struct classify_verdict *verdict, bool *claimed);

/* Fills `question`, whose patterns its caller ends with dbha__book_patterns_fini. False: out of memory. */
struct catalog_question {
	struct book_patterns patterns;
	const char *values[CATALOG_PARAMS];
	dbha_request request; /* of the above */
};
bool dbha__routing_ask(const dbha *h, struct catalog_question *question);

/* Takes ownership of `names`; NULL: it was not read, because of `trouble`. limits: of the connection that it was read over. */
void dbha__routing_put(dbha *h, struct function_book *names, const struct classify_limits *limits, int64_t began_us,
                       const char *trouble);

/* A standby has refused it (25006, 0A000, 55000) and the primary has executed it: a write from now on. */
void dbha__routing_remember_write(dbha *h, const char *sql);

/* Whether it was remembered: also of a statement that its caller calls a read, which then saves a round trip. */
bool dbha__routing_is_write(dbha *h, const char *sql);

#endif
