/*
 * pipe_work: what the tests of the engine share: engines that a failed test does not leave open, and a book in which every tag that was
 * submitted is struck out once.
 */
#ifndef PIPE_WORK_H
#define PIPE_WORK_H

#include "cluster.h"

/* Opens an engine that engines_close() closes. Must succeed. */
dbha_engine *open_engine(dbha *h, dbha_engine_options options);
void engines_close(void);

/* What became of the tags 0, 1, 2 ... */
#define BOOK_MAX 1000000

struct entry {
	int completions;
	int code;
	bool unknown, safe;
	char sqlstate[6];
};

struct book {
	struct entry entries[BOOK_MAX];
	int submitted, completed;
	dbha_error first_error;
};

/* "INSERT INTO rows (id) VALUES (tag)", or a read of the same number. Must be accepted. */
void submit_insert(dbha_engine *e, uint64_t tag);
void submit_read(dbha_engine *e, uint64_t tag);
void submit_sql(dbha_engine *e, dbha_intent intent, int timeout_ms, const char *sql, uint64_t tag);

/* The next completion; must come. The caller clears its result. */
dbha_completion await_completion(dbha_engine *e);

/* Writes a completion into a book and clears its result. */
void book_enter(struct book *book, dbha_completion *completion);

/* Until all that were submitted to it are completed, stepping an engine without a thread. */
void book_await(struct book *book, dbha_engine *e, int timeout_ms);

/* How many tags from `from` on, `n` of them, ended with a code. */
int book_count(const struct book *book, int from, int n, int code);

/* Every tag below `submitted` has exactly one completion. */
void book_expect_once(const struct book *book);

#endif
