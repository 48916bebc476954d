/*
 * exec: dbha_exec, one statement without a session.
 */
#include "consistency.h"
#include "error.h"
#include "session.h"

static int run_verified(dbha *h, const dbha_request *request, int64_t deadline, PGresult **result, dbha_error *err)
{
	dbha_session s;
	int code = dbha__session_init(&s, h, err);
	if (code != DBHA_OK)
		return code;
	s.deadline_cap = deadline;
	code = dbha__verified_run(&s, request, result, err);
	dbha__session_fini(&s);
	return code;
}

static int run(dbha *h, const dbha_request *request, PGresult **result, dbha_error *err)
{
	struct statement st;
	struct causal causal = {0};
	dbha__statement_begin(&st, h, request, result, err);
	dbha__statement_classify(&st);
	if (dbha__verified_wanted(h, request) && st.call.intent != DBHA_READ)
		return run_verified(h, request, st.call.deadline, result, err);
	if (request->consistency)
		st.call.consistency = request->consistency;
	if (request->token && request->token[0]) {
		int code = dbha__consistency_token(h, "dbha_exec", request->token, &causal, err);
		if (code != DBHA_OK)
			return code;
		st.call.causal = st.call.consistency == DBHA_CONSISTENCY_SESSION ? &causal : NULL;
	}
	return dbha__statement_run(&st);
}

int dbha_exec(dbha *h, const dbha_request *request, PGresult **result, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	int code = dbha__statement_check("dbha_exec", request, result, err);
	if (code != DBHA_OK)
		return code;
	code = dbha__life_enter(h, err);
	if (code != DBHA_OK)
		return code;
	code = dbha__consistency_check(h, "dbha_exec", request->consistency, err);
	if (code == DBHA_OK)
		code = run(h, request, result, err);
	dbha__life_leave(h);
	return code;
}
