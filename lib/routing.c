#include "routing.h"

#include "catalog.h"
#include "clock.h"
#include "error.h"
#include "exec.h"
#include "statement.h"

/* The longest that a caller waits for the catalog, which takes a server half a second where it has thousands of objects. */
#define FETCH_MAX_US ((int64_t)10000000)

/* ---- the catalog ------------------------------------------------------------------------------------------------------ */

struct fetch {
	struct statement st; /* first */
	struct classify_limits limits;
};

/* The settings by which the parser has to read texts are those of the connection, which nobody else sees. */
static void read_with_settings(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	struct fetch *fetch = (struct fetch *)st;
	dbha__exec(conn, st->request, st->call.deadline, attempt);
	dbha__catalog_settings(conn->pg, &fetch->limits);
}

bool dbha__routing_ask(const dbha *h, struct catalog_question *question)
{
	const struct config_options *options = &h->config.options;
	const char *wrong;
	if (!dbha__book_patterns_init(&question->patterns, options->read_functions, options->write_functions, &wrong))
		return false;
	dbha__catalog_params(&question->patterns, question->values);
	question->request = (dbha_request){.size = sizeof question->request,
	                                   .sql = dbha__catalog_sql(),
	                                   .intent = DBHA_READ,
	                                   .flags = DBHA_UNPREPARED,
	                                   .timeout_ms = (int)(FETCH_MAX_US / 1000),
	                                   .n_params = CATALOG_PARAMS,
	                                   .values = question->values};
	return true;
}

static struct function_book *read_catalog(const struct call *call, int64_t until, struct classify_limits *limits,
                                          dbha_error *err)
{
	struct catalog_question question;
	dbha__fail(err, DBHA_ERR_MEMORY, "out of memory");
	if (!dbha__routing_ask(call->h, &question))
		return NULL;
	PGresult *result = NULL;
	struct fetch fetch = {.limits = CLASSIFY_LIMITS};
	dbha__statement_begin(&fetch.st, call->h, &question.request, &result, err);
	fetch.st.call.cancel = call->cancel;
	fetch.st.step = read_with_settings;
	dbha__call_set_deadline(&fetch.st.call);
	if (until < fetch.st.call.deadline)
		fetch.st.call.deadline = until;
	struct function_book *book = NULL;
	if (dbha__statement_run(&fetch.st) == DBHA_OK && !(book = dbha__catalog_read(result)))
		dbha__fail(err, DBHA_ERR_SERVER, "its answer makes no sense");
	*limits = fetch.limits;
	PQclear(result);
	dbha__book_patterns_fini(&question.patterns);
	return book;
}

/* By the caller whose turn it is. What stands in the way is for the log: the statement goes to the primary, where it is right as well. */
static bool fetch_book(const struct call *call)
{
	dbha *h = call->h;
	dbha_error err;
	struct classify_limits limits;
	int64_t began = dbha__clock_now();
	int64_t patience = (call->deadline - began) / 2;
	int64_t until = began + (patience < FETCH_MAX_US ? patience : FETCH_MAX_US);
	struct function_book *names = read_catalog(call, until, &limits, &err);
	bool fetched = names != NULL;
	dbha__routing_put(h, names, &limits, began, err.message);
	return fetched;
}

void dbha__routing_put(dbha *h, struct function_book *names, const struct classify_limits *limits, int64_t began_us,
                       const char *trouble)
{
	int64_t now = dbha__clock_now();
	bool fetched = names != NULL;
	dbha__bookshelf_put(&h->bookshelf, names, limits, began_us, now);
	if (fetched)
		dbha__trace(&h->trace, TRACE_DEBUG, "routing: the catalog was read in %lld ms",
		            (long long)(now - began_us) / 1000);
	else
		dbha__trace(&h->trace, TRACE_WARNING, "routing: the catalog was not read: %s", trouble);
}

/* ---- a statement ------------------------------------------------------------------------------------------------------ */

/* How old the book may be that a verdict was reached with, until it is worth another one. */
static int64_t age_for(const struct classify_verdict *verdict)
{
	switch (verdict->why) {
	case WHY_NO_BOOK:
		return 0;
	case WHY_FUNCTION_UNKNOWN:
	case WHY_RELATION_UNKNOWN:
	case WHY_TYPE:
	case WHY_OPERATOR:
		return BOOK_AGE_NEWS_US;
	case WHY_HINT_STANDBY:
	case WHY_HINT_PRIMARY:
	case WHY_REFUSED_BEFORE:
	case WHY_NO_PARSER:
	case WHY_TOO_LONG:
	case WHY_TOO_DEEP:
		return INT64_MAX; /* no book says otherwise */
	default:
		return BOOK_AGE_US;
	}
}

static void judge(struct bookshelf *shelf, const char *sql, struct classify_verdict *verdict)
{
	if (dbha__bookshelf_find(shelf, sql, verdict))
		return;
	struct book *book = dbha__bookshelf_take(shelf);
	if (book)
		dbha__classify_intent(atomic_load(&shelf->verdicts), book->names, book->generation, &book->limits, sql,
		                      verdict);
	else
		*verdict = dbha__classify(sql, &CLASSIFY_LIMITS, NULL);
	dbha__bookshelf_drop(book);
}

dbha_intent dbha__routing_known(dbha *h, const char *sql, struct classify_verdict *verdict, bool *claimed)
{
	*claimed = false;
	if (h->config.options.routing != ROUTING_AUTO)
		return DBHA_DEFAULT;
	judge(&h->bookshelf, sql, verdict);
	int64_t age = age_for(verdict);
	*claimed = age < INT64_MAX && dbha__bookshelf_claim(&h->bookshelf, age, dbha__clock_coarse());
	return verdict->is == CLASS_READ ? DBHA_READ : DBHA_DEFAULT;
}

dbha_intent dbha__routing_intent(const struct call *call, const char *sql, struct classify_verdict *verdict)
{
	bool claimed;
	dbha_intent intent = dbha__routing_known(call->h, sql, verdict, &claimed);
	if (!claimed || !fetch_book(call))
		return intent;
	judge(&call->h->bookshelf, sql, verdict);
	return verdict->is == CLASS_READ ? DBHA_READ : DBHA_DEFAULT;
}

void dbha__routing_remember_write(dbha *h, const char *sql)
{
	dbha__bookshelf_remember_write(&h->bookshelf, sql);
}

bool dbha__routing_is_write(dbha *h, const char *sql)
{
	return dbha__bookshelf_is_write(&h->bookshelf, sql);
}
