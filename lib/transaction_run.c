/*
 * transaction_run: dbha_transaction: a function as a transaction, and again where that helps.
 */
#include <stdio.h>
#include <string.h>

#include "backoff.h"
#include "clock.h"
#include "judgement.h"
#include "error.h"
#include "session.h"

/* One run, and what it ended with. */
struct run {
	char cause[6]; /* the SQLSTATE that the transaction failed with; "": it did not fail by itself */
	bool whole;    /* the function has left its end to us */
};

/* Whatever it takes: the next run needs a session without a transaction. */
static void roll_back(dbha_session *s)
{
	dbha_error ignored;
	if (s->tx == TX_NONE || dbha_session_rollback(s, 0, &ignored) == DBHA_OK)
		return;
	dbha__session_let_go(s, true);
	s->tx = TX_NONE;
}

/* One run from BEGIN to its end. The function's own mind is ROLLED_BACK without a word of the library's. */
static int run_once(dbha_session *s, const dbha_transaction_options *options, dbha_transaction_function function,
                    int attempt, void *argument, struct run *run, dbha_error *err)
{
	memset(run, 0, sizeof *run);
	int code = dbha__session_begin(s, "dbha_transaction", options, err);
	if (code != DBHA_OK)
		return code;
	bool commits = function(s, attempt, argument) == 0;
	run->whole = s->tx != TX_NONE;
	if (commits) {
		code = dbha_session_commit(s, 0, err);
		memcpy(run->cause, s->cause, sizeof run->cause);
		return code;
	}
	*err = s->last;
	memcpy(run->cause, s->cause, sizeof run->cause);
	if (err->code == DBHA_OK) {
		dbha__fail(err, DBHA_ERR_ROLLED_BACK, "the function given to dbha_transaction asked for a rollback");
		err->retry_safe = true;
	}
	roll_back(s);
	return err->code;
}

/*
 * Whether the same transaction could end better. What counts is the error that it failed with: what came behind that, or of the COMMIT
 * that the function asked for in spite of it, is only its echo.
 */
static bool helps(const struct run *run, const dbha_transaction_options *options, const dbha_error *err)
{
	bool over = err->code == DBHA_ERR_SERVER || err->code == DBHA_ERR_ROLLED_BACK;
	/* A transaction that may not write by its own wish will be refused everywhere. */
	bool own_wish = options && options->read_only && strcmp(run->cause, "25006") == 0;
	return over && run->whole && !own_wish && !err->outcome_unknown && dbha__retry_transaction(run->cause);
}

bool dbha__session_pause(dbha_session *s, int pauses)
{
	struct call call;
	dbha__call_begin(&call, s->h, DBHA_WRITE, 0);
	call.deadline = s->deadline_cap;
	call.pauses = pauses;
	call.cancel = &s->cancel;
	return dbha__call_pause(&call);
}

static int run_all(dbha_session *s, const dbha_transaction_options *options, dbha_transaction_function function,
                   void *argument, dbha_error *err)
{
	int max = options ? options->attempts_max : 0;
	for (int attempt = 1;; attempt++) {
		struct run run;
		int code = run_once(s, options, function, attempt, argument, &run, err);
		if (code == DBHA_OK)
			return code;
		err->attempts = attempt;
		if (!helps(&run, options, err) || (max && attempt >= max))
			return code;
		if (!dbha__judge_spend_retry(s->h)) {
			STATS_ADD(&s->h->handle_stats, retries_refused, 1);
			return code;
		}
		if (!dbha__session_pause(s, attempt - 1))
			return code;
		STATS_ADD(&s->h->handle_stats, retries, 1);
	}
}

int dbha_transaction(dbha *h, const dbha_transaction_options *options, dbha_transaction_function function,
                     void *argument, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!function)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_transaction: function is NULL");
	int code = dbha__life_enter(h, err);
	if (code != DBHA_OK)
		return code;
	dbha_session s;
	code = dbha__session_init(&s, h, err);
	if (code == DBHA_OK) {
		int timeout_ms = options && options->timeout_ms > 0 ? options->timeout_ms : h->config.options.call_timeout_ms;
		s.deadline_cap = dbha__clock_now() + ms_to_us(timeout_ms);
		code = run_all(&s, options, function, argument, err);
		dbha__session_fini(&s);
	}
	dbha__life_leave(h);
	return code;
}
