/*
 * exec: dbha_exec, one statement without a session.
 */
#include "consistency.h"
#include "error.h"
#include "explain.h"
#include "session.h"

/* How far the primary has come is known, or is asked now. */
#define ASK_MS 200

static void tell_verified(dbha_session *s, dbha_result_route *route)
{
	dbha_error unwanted;
	if (dbha_session_token(s, route->token, ASK_MS, &unwanted) != DBHA_OK)
		dbha__explain_no_token(route, "no token: how far the primary has come was asked, and not answered in time");
}

static void tell(const struct statement *st, struct causal *causal)
{
	dbha_result_route *route = st->request->route;
	const char *why = dbha__consistency_tell(st->call.h, causal, &st->seen);
	if (why)
		dbha__explain_no_token(route, why);
	else
		dbha__token_print(&causal->floor, route->token);
}

static int run_verified(dbha *h, const dbha_request *request, int64_t deadline, PGresult **result, dbha_error *err)
{
	dbha_session s;
	int code = dbha__session_init(&s, h, err);
	if (code != DBHA_OK)
		return code;
	s.deadline_cap = deadline;
	s.causal.tracks = request->flags & DBHA_TOKEN;
	code = dbha__verified_run(&s, request, result, err);
	if (code == DBHA_OK && request->flags & DBHA_TOKEN)
		tell_verified(&s, request->route);
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
	st.tells = request->flags & DBHA_TOKEN;
	int code = dbha__statement_run(&st);
	if (code == DBHA_OK && st.tells)
		tell(&st, &causal);
	return code;
}

int dbha_exec(dbha *h, const dbha_request *request, PGresult **result, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	int code = dbha__statement_check("dbha_exec", request, result, err);
	if (code == DBHA_OK && request->flags & DBHA_TOKEN && !request->route)
		code = dbha__fail(err, DBHA_ERR_USAGE, "dbha_exec: DBHA_TOKEN without request.route: there is no place for it");
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
