/*
 * verified: verify_commit=on. A single write becomes a transaction of its own, whose outcome can be asked for where its COMMIT is lost;
 * where it was not done, it is done again.
 */
#include <stdio.h>

#include "clock.h"
#include "judgement.h"
#include "error.h"
#include "session.h"

bool dbha__verified_wanted(const dbha *h, const dbha_request *request)
{
	/* What commits on the way, or must not be in a transaction, cannot be verified so. */
	return h->config.options.verify_commit && request->intent != DBHA_READ && dbha__retry_atomic(request->sql);
}

/* A transaction that was lost as a whole, of one statement, is a statement that was not executed. */
static int as_lost(int code, dbha_error *err)
{
	if (code == DBHA_ERR_ROLLED_BACK) {
		err->code = DBHA_ERR_LOST;
		snprintf(err->sqlstate, sizeof err->sqlstate, "%s", dbha__code_sqlstate(DBHA_ERR_LOST));
	}
	return err->code;
}

static int run_once(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	int code = dbha__session_begin(s, "verify_commit", NULL, err);
	if (code == DBHA_OK)
		code = dbha__session_run(s, request, result, err);
	if (code == DBHA_OK) {
		PGresult *committed = NULL;
		dbha_request commit = {.size = sizeof commit, .sql = "COMMIT", .flags = DBHA_UNPREPARED};
		code = dbha__session_commit(s, &commit, &committed, err);
		PQclear(committed);
	}
	if (s->tx != TX_NONE) {
		/* It has failed on its server, or was lost: nobody waits for the end of that. */
		dbha__session_let_go(s, true);
		s->tx = TX_NONE;
	}
	return code;
}

int dbha__verified_run(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	int timeout_ms = request->timeout_ms > 0 ? request->timeout_ms : s->h->config.options.call_timeout_ms;
	int64_t cap = s->deadline_cap;
	int64_t deadline = dbha__clock_now() + ms_to_us(timeout_ms);
	s->deadline_cap = cap && cap < deadline ? cap : deadline;
	int code;
	for (int attempt = 0;; attempt++) {
		code = run_once(s, request, result, err);
		bool again = code == DBHA_ERR_ROLLED_BACK && !err->outcome_unknown && dbha__judge_spend_retry(s->h);
		if (!again || !dbha__session_pause(s, attempt))
			break;
		STATS_ADD(&s->h->handle_stats, retries, 1);
		PQclear(*result);
		*result = NULL;
	}
	s->deadline_cap = cap;
	if (code == DBHA_OK)
		return code;
	if (err->outcome_unknown || code != DBHA_ERR_SERVER) {
		PQclear(*result);
		*result = NULL;
	}
	return as_lost(code, err);
}
