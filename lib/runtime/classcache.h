/*
 * classcache: what was found out about the statements seen last, by their text, so that a statement is parsed once and not each time.
 *
 * Bounded in entries and bytes, least recently used first out. Split into parts with a lock each, by the hash of the text, so that
 * threads seldom meet; a lock is held for one look-up or one change. Texts are compared as a whole: two statements never share an entry.
 */
#ifndef DBHA_RUNTIME_CLASSCACHE_H
#define DBHA_RUNTIME_CLASSCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "classify.h"
#include "dbha.h"
#include "function_book.h"

struct classcache;

/* For at most this many statements and bytes, both shared out among the parts. NULL: out of memory. */
struct classcache *dbha__classcache_new(size_t entries_max, size_t bytes_max);
void dbha__classcache_free(struct classcache *cache); /* NULL is allowed */

/* What was put with the same text and generation of the book. Any thread. */
bool dbha__classcache_find(struct classcache *cache, const char *sql, uint64_t generation,
                           struct classify_verdict *verdict);

/* A text that is too long for the cache, or for which there is no memory, is not kept. Any thread. */
void dbha__classcache_put(struct classcache *cache, const char *sql, uint64_t generation,
                          const struct classify_verdict *verdict);

/* A standby has refused it: a write from now on, whatever the book says, until it is forgotten for others. Any thread. */
void dbha__classcache_remember_write(struct classcache *cache, const char *sql);

/* How many statements, and how many bytes. Any thread. */
size_t dbha__classcache_size(struct classcache *cache, size_t *bytes);

/* The same before and after fork, as with any mutex of the library. */
void dbha__classcache_lock_for_fork(struct classcache *cache);
void dbha__classcache_unlock_after_fork(struct classcache *cache);

/*
 * All of it: the intent of a statement whose caller named none. book: NULL while there is none; generation: of the book, a new number for
 * each, never 0. verdict: why. Never blocks for long: a statement that is not in the cache is parsed by the caller's thread, without a lock.
 */
dbha_intent dbha__classify_intent(struct classcache *cache, const struct function_book *book, uint64_t generation,
                                  const struct classify_limits *limits, const char *sql,
                                  struct classify_verdict *verdict);

#endif
