#include "pipe_work.h"

#include <stdio.h>
#include <string.h>

static dbha_engine *engines[16];

dbha_engine *open_engine(dbha *h, dbha_engine_options options)
{
	dbha_error err;
	options.size = sizeof options;
	dbha_engine *e = dbha_engine_open(h, &options, &err);
	ck_assert_msg(e != NULL, "%s", e ? "" : err.message);
	for (int i = 0; i < 16; i++) {
		if (!engines[i]) {
			engines[i] = e;
			return e;
		}
	}
	ck_abort_msg("too many engines");
	return NULL;
}

void engines_close(void)
{
	for (int i = 0; i < 16; i++) {
		dbha_engine_close(engines[i]);
		engines[i] = NULL;
	}
}

static void submit_number(dbha_engine *e, dbha_intent intent, const char *sql, uint64_t tag)
{
	char text[24];
	const char *values[] = {text};
	dbha_error err;
	snprintf(text, sizeof text, "%llu", (unsigned long long)tag);
	dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = intent, .n_params = 1, .values = values);
	ASSERT_OK(dbha_submit(e, &rq, tag, &err), err);
}

void submit_insert(dbha_engine *e, uint64_t tag)
{
	submit_number(e, DBHA_WRITE, "INSERT INTO rows (id) VALUES ($1)", tag);
}

void submit_read(dbha_engine *e, uint64_t tag)
{
	submit_number(e, DBHA_READ, "SELECT $1::bigint", tag);
}

void submit_sql(dbha_engine *e, dbha_intent intent, int timeout_ms, const char *sql, uint64_t tag)
{
	dbha_error err;
	dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = timeout_ms);
	ASSERT_OK(dbha_submit(e, &rq, tag, &err), err);
}

dbha_completion await_completion(dbha_engine *e)
{
	dbha_error err;
	dbha_completion completion = {.size = sizeof completion};
	int got = dbha_next_completion(e, &completion, PATIENCE_MS, &err);
	ck_assert_msg(got == 1, "no completion within %d ms", PATIENCE_MS);
	return completion;
}

void book_enter(struct book *book, dbha_completion *completion)
{
	ck_assert_uint_lt(completion->tag, BOOK_MAX);
	struct entry *entry = &book->entries[completion->tag];
	entry->completions++;
	entry->code = completion->code;
	entry->unknown = completion->error.outcome_unknown;
	entry->safe = completion->error.retry_safe;
	memcpy(entry->sqlstate, completion->error.sqlstate, sizeof entry->sqlstate);
	if (completion->code != DBHA_OK && (!book->first_error.code || book->first_error.code == DBHA_ERR_UNKNOWN))
		book->first_error = completion->error;
	book->completed++;
	PQclear(completion->result);
}

void book_await(struct book *book, dbha_engine *e, int timeout_ms)
{
	int64_t until = now_ms() + timeout_ms;
	while (book->completed < book->submitted) {
		dbha_error err;
		dbha_completion completion = {.size = sizeof completion};
		int left = (int)(until - now_ms());
		int got = left > 0 ? dbha_next_completion(e, &completion, left, &err) : 0;
		ck_assert_msg(got == 1, "%d of %d completed within %d ms", book->completed, book->submitted, timeout_ms);
		book_enter(book, &completion);
	}
}

int book_count(const struct book *book, int from, int n, int code)
{
	int count = 0;
	for (int i = from; i < from + n; i++)
		count += book->entries[i].completions > 0 && book->entries[i].code == code;
	return count;
}

void book_expect_once(const struct book *book)
{
	for (int i = 0; i < book->submitted; i++)
		ck_assert_msg(book->entries[i].completions == 1, "tag %d has %d completions", i, book->entries[i].completions);
}
