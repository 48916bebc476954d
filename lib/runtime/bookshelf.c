#include "bookshelf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Statements of an application that are worth remembering, and what they take at most; half a kilobyte each. */
#define VERDICTS_MAX      4096
#define REFUSED_MAX       512
#define BYTES_A_STATEMENT 1024

/* No book has it: what is found with it was put there for good. */
#define NO_GENERATION 0

int dbha__bookshelf_init(struct bookshelf *shelf, bool classifies)
{
	memset(shelf, 0, sizeof *shelf);
	shelf->entries_max = classifies ? VERDICTS_MAX : REFUSED_MAX;
	int rc = dbha__mutex_init(&shelf->lock, RANK_BOOKSHELF);
	if (rc || !classifies)
		return rc;
	struct classcache *verdicts = dbha__classcache_new(VERDICTS_MAX, VERDICTS_MAX * BYTES_A_STATEMENT);
	atomic_store(&shelf->verdicts, verdicts);
	return verdicts ? 0 : ENOMEM;
}

void dbha__bookshelf_fini(struct bookshelf *shelf)
{
	dbha__bookshelf_drop(shelf->current);
	dbha__classcache_free(atomic_load(&shelf->verdicts));
	dbha__mutex_fini(&shelf->lock);
}

/* ---- books ------------------------------------------------------------------------------------------------------------ */

struct book *dbha__bookshelf_take(struct bookshelf *shelf)
{
	dbha__mutex_lock(&shelf->lock);
	struct book *book = shelf->current;
	if (book)
		atomic_fetch_add_explicit(&book->refs, 1, memory_order_relaxed);
	dbha__mutex_unlock(&shelf->lock);
	return book;
}

void dbha__bookshelf_drop(struct book *book)
{
	if (!book || atomic_fetch_sub_explicit(&book->refs, 1, memory_order_acq_rel) != 1)
		return;
	dbha__function_book_free(book->names);
	free(book);
}

bool dbha__bookshelf_due(struct bookshelf *shelf, int64_t age_us, int64_t now)
{
	if (now < atomic_load_explicit(&shelf->rest_us, memory_order_relaxed))
		return false;
	return atomic_load_explicit(&shelf->generation, memory_order_acquire) == NO_GENERATION ||
	       now - atomic_load_explicit(&shelf->read_us, memory_order_relaxed) >= age_us;
}

bool dbha__bookshelf_claim(struct bookshelf *shelf, int64_t age_us, int64_t now)
{
	if (!dbha__bookshelf_due(shelf, age_us, now))
		return false;
	dbha__mutex_lock(&shelf->lock);
	/* Once more: somebody may have come back with one meanwhile. */
	bool claimed = !shelf->fetching && dbha__bookshelf_due(shelf, age_us, now);
	if (claimed)
		shelf->fetching = true;
	dbha__mutex_unlock(&shelf->lock);
	return claimed;
}

static struct book *bind(struct function_book *names, const struct classify_limits *limits)
{
	struct book *book = names ? malloc(sizeof *book) : NULL;
	if (!book) {
		dbha__function_book_free(names);
		return NULL;
	}
	*book = (struct book){.names = names, .limits = *limits};
	atomic_init(&book->refs, 1);
	return book;
}

static int64_t later(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

void dbha__bookshelf_put(struct bookshelf *shelf, struct function_book *names, const struct classify_limits *limits,
                         int64_t began_us, int64_t now)
{
	struct book *book = bind(names, limits), *old = NULL;
	int64_t took = now - began_us;
	int64_t rest = book ? began_us + BOOK_REST * took : now + later(BOOK_RETRY_US, BOOK_REST_FAILED * took);
	dbha__mutex_lock(&shelf->lock);
	if (book) {
		book->generation = ++shelf->made;
		old = shelf->current;
		shelf->current = book;
		atomic_store_explicit(&shelf->read_us, began_us, memory_order_relaxed);
		atomic_store_explicit(&shelf->generation, book->generation, memory_order_release);
	}
	atomic_store_explicit(&shelf->rest_us, rest, memory_order_relaxed);
	shelf->fetching = false;
	dbha__mutex_unlock(&shelf->lock);
	dbha__bookshelf_drop(old);
}

/* ---- statements ------------------------------------------------------------------------------------------------------- */

bool dbha__bookshelf_find(struct bookshelf *shelf, const char *sql, struct classify_verdict *verdict)
{
	struct classcache *verdicts = atomic_load_explicit(&shelf->verdicts, memory_order_acquire);
	uint64_t generation = atomic_load_explicit(&shelf->generation, memory_order_acquire);
	return verdicts && dbha__classcache_find(verdicts, sql, generation, verdict);
}

/* Under the lock, so that fork, which takes it, sees one cache before and after. */
static struct classcache *cache_for_writes(struct bookshelf *shelf)
{
	dbha__mutex_lock(&shelf->lock);
	struct classcache *verdicts = atomic_load(&shelf->verdicts);
	if (!verdicts) {
		verdicts = dbha__classcache_new(shelf->entries_max, shelf->entries_max * BYTES_A_STATEMENT);
		atomic_store_explicit(&shelf->verdicts, verdicts, memory_order_release);
	}
	dbha__mutex_unlock(&shelf->lock);
	return verdicts;
}

void dbha__bookshelf_remember_write(struct bookshelf *shelf, const char *sql)
{
	struct classcache *verdicts = cache_for_writes(shelf);
	if (!verdicts)
		return;
	dbha__classcache_remember_write(verdicts, sql);
	atomic_store_explicit(&shelf->remembers, true, memory_order_release);
}

bool dbha__bookshelf_is_write(struct bookshelf *shelf, const char *sql)
{
	struct classify_verdict verdict;
	if (!atomic_load_explicit(&shelf->remembers, memory_order_acquire))
		return false;
	return dbha__classcache_find(atomic_load_explicit(&shelf->verdicts, memory_order_acquire), sql, NO_GENERATION,
	                             &verdict);
}

/* ---- fork ------------------------------------------------------------------------------------------------------------- */

void dbha__bookshelf_lock_for_fork(struct bookshelf *shelf) NO_ANALYSIS
{
	dbha__mutex_lock_for_fork(&shelf->lock);
	struct classcache *verdicts = atomic_load(&shelf->verdicts);
	if (verdicts)
		dbha__classcache_lock_for_fork(verdicts);
}

void dbha__bookshelf_unlock_after_fork(struct bookshelf *shelf) NO_ANALYSIS
{
	struct classcache *verdicts = atomic_load(&shelf->verdicts);
	if (verdicts)
		dbha__classcache_unlock_after_fork(verdicts);
	dbha__mutex_unlock_after_fork(&shelf->lock);
}

void dbha__bookshelf_reset_after_fork(struct bookshelf *shelf)
{
	dbha__mutex_lock(&shelf->lock);
	shelf->fetching = false;
	dbha__mutex_unlock(&shelf->lock);
}
