/*
 * bookshelf: the book of a handle, in which routing=auto looks names up (policy/function_book): which one it is now, when the next one is
 * due and who fetches it; and the cache of the verdicts that were reached with it.
 *
 * The shelf fetches nothing itself. A caller who finds a new book due claims the fetch, so that one does it at a time, and puts what it
 * has read upon the shelf; the others go on with the old book, or without one. Who has taken a book keeps it for as long as it
 * likes, replaced or not. What is asked for every statement is read without a lock.
 */
#ifndef DBHA_RUNTIME_BOOKSHELF_H
#define DBHA_RUNTIME_BOOKSHELF_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "classcache.h"
#include "classify.h"
#include "function_book.h"
#include "sync.h"

#define BOOK_AGE_US      ((int64_t)300000000) /* a book is replaced at this age */
/* Or at this one, if a statement names something that is not in it: that may have come into being since. */
#define BOOK_AGE_NEWS_US ((int64_t)30000000)
#define BOOK_RETRY_US    ((int64_t)5000000) /* after a fetch that failed */
/* A fetch that took long is not repeated before this many times that long: 1 % of somebody's time, at most. */
#define BOOK_REST        100
#define BOOK_REST_FAILED 10

struct book {
	_Atomic int refs;
	uint64_t generation; /* never 0, and never that of another book of the handle */
	struct function_book *names;
	struct classify_limits limits; /* of the connections of the handle, as the one was that it was read over */
};

struct bookshelf {
	struct mutex lock;
	struct book *current; /* NULL: none yet */
	uint64_t made;        /* generations given out */
	bool fetching;        /* somebody has claimed the next one */
	size_t entries_max;   /* of the cache */
	/* Written under the lock, read without. */
	_Atomic(struct classcache *) verdicts; /* NULL: not needed yet; once there it stays */
	_Atomic uint64_t generation;           /* of the current book; 0: none */
	_Atomic int64_t read_us;               /* when it was read */
	_Atomic int64_t rest_us;               /* nobody fetches before */
	_Atomic bool remembers;                /* there are writes in the cache that standbys have refused */
};

/* 0, or an errno. classifies: routing=auto; without it there is no cache before something has to be remembered. */
int dbha__bookshelf_init(struct bookshelf *shelf, bool classifies);
void dbha__bookshelf_fini(struct bookshelf *shelf);

/* The current book; NULL: none. Give it back with dbha__bookshelf_drop, which allows NULL. Any thread. */
struct book *dbha__bookshelf_take(struct bookshelf *shelf);
void dbha__bookshelf_drop(struct book *book);

/* Whether another book should be fetched by somebody who cannot use one that is older than `age_us`. No lock. Any thread. */
bool dbha__bookshelf_due(struct bookshelf *shelf, int64_t age_us, int64_t now);

/* The same; true: it is the caller who fetches, and ends that with dbha__bookshelf_put. Any thread. */
bool dbha__bookshelf_claim(struct bookshelf *shelf, int64_t age_us, int64_t now);

/* The end of a fetch that began at `began_us`. Takes ownership of `names`; NULL: it has failed. Any thread. */
void dbha__bookshelf_put(struct bookshelf *shelf, struct function_book *names, const struct classify_limits *limits,
                         int64_t began_us, int64_t now);

/* What is known of a statement without a book: of the current generation, or that a standby has refused it. No verdict: false. */
bool dbha__bookshelf_find(struct bookshelf *shelf, const char *sql, struct classify_verdict *verdict);

/* A standby has refused it. Where there is no memory for that, it is not remembered. */
void dbha__bookshelf_remember_write(struct bookshelf *shelf, const char *sql);
bool dbha__bookshelf_is_write(struct bookshelf *shelf, const char *sql);

void dbha__bookshelf_lock_for_fork(struct bookshelf *shelf);
void dbha__bookshelf_unlock_after_fork(struct bookshelf *shelf);

/* In a forked child: the book and the cache stay; who was fetching is not here. */
void dbha__bookshelf_reset_after_fork(struct bookshelf *shelf);

#endif
