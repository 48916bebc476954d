/*
 * session_token: how fresh a session's reads are, and its token: what it has written and seen, for another session to see as well.
 */
#include <string.h>

#include "consistency.h"
#include "error.h"
#include "position.h"
#include "session.h"

/* Whether this statement has to see what the session has seen. */
static bool follows(const struct statement *st)
{
	return st->call.consistency == DBHA_CONSISTENCY_SESSION;
}

void dbha__session_place(const dbha_session *s, struct statement *st)
{
	bool seen = follows(st) || st->call.consistency == DBHA_CONSISTENCY_PRIMARY;
	/* With one node there is nowhere else to go. */
	st->places = s->causal.tracks && seen && s->h->n_places > 1;
}

/* Asks the primary where it stands: all that the session has seen is before that. */
static int ask_position(dbha_session *s, const dbha_request *like, int64_t deadline, dbha_error *err)
{
	struct statement st;
	PGresult *result = NULL;
	dbha_request ask = {.size = sizeof ask,
	                    .sql = dbha__position_sql(),
	                    .intent = DBHA_WRITE,
	                    .flags = DBHA_IDEMPOTENT, /* a question: it may be asked of the next primary as well */
	                    .timeout_ms = like->timeout_ms};
	struct token position = {0};
	dbha__statement_begin(&st, s->h, &ask, &result, err);
	dbha__call_set_deadline(&st.call);
	if (deadline && deadline < st.call.deadline)
		st.call.deadline = deadline;
	st.call.cancel = &s->cancel;
	/* A session that holds a connection of the primary needs no other one, which it might wait for in vain. */
	st.kept = s->slot && !s->slot->conn->standby ? s->slot : NULL;
	int code = st.kept ? dbha__statement_run_on_kept(&st) : dbha__statement_run(&st);
	if (st.connection_lost) {
		dbha__session_forget_slot(s);
		dbha__session_lost(s);
	}
	if (code == DBHA_ERR_SERVER && strcmp(err->sqlstate, "57014") == 0 && s->cancel.sent)
		code = err->code = DBHA_ERR_CANCELED;
	if (code == DBHA_OK && !dbha__position_read(result, &position))
		code = dbha__fail(err, DBHA_ERR_LOST, "the primary did not tell its position (%s)", st.call.last_name);
	if (code == DBHA_OK)
		dbha__consistency_at(s->h, &s->causal, &position);
	PQclear(result);
	return code;
}

int dbha__session_follow_pinned(dbha_session *s, struct statement *st)
{
	const dbha_request *rq = st->request;
	int code = dbha__consistency_check(s->h, "request", rq->consistency, st->err);
	if (code == DBHA_OK && rq->token && rq->token[0])
		code = dbha__consistency_token(s->h, "request", rq->token, &s->causal, st->err);
	if (code == DBHA_OK && follows(st))
		st->call.causal = &s->causal;
	return code;
}

int dbha__session_follow(dbha_session *s, struct statement *st)
{
	const dbha_request *rq = st->request;
	int target = s->h->config.options.target_session_attrs;
	bool wants_primary = st->call.intent == DBHA_WRITE ||
	                     (st->call.intent == DBHA_DEFAULT && (target == TARGET_PRIMARY || target == TARGET_READ_WRITE));
	int code = dbha__session_follow_pinned(s, st);
	if (code != DBHA_OK || !st->call.causal || wants_primary)
		return code;
	s->causal.tracks = true;
	/*
	 * A single read goes to the primary then, and brings the position along. A transaction or a stream cannot, and is worth a round
	 * trip; and where only a standby will do, the primary cannot serve it.
	 */
	bool standby_only = st->call.intent == DBHA_DEFAULT && target != TARGET_PREFER_STANDBY;
	if ((standby_only || s->tx == TX_BEGUN || s->streaming.opening) && s->causal.seen == SEEN_PRIMARY)
		return ask_position(s, rq, st->call.deadline, st->err);
	return DBHA_OK;
}

/* ---- the public calls -------------------------------------------------------------------------------------- */

int dbha_session_set_consistency(dbha_session *s, int consistency, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_set_consistency: the session is NULL");
	int code = dbha__consistency_check(s->h, "dbha_session_set_consistency", consistency, err);
	if (code == DBHA_OK)
		s->consistency = consistency;
	return code;
}

int dbha_session_set_token(dbha_session *s, const char *token, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_set_token: the session is NULL");
	if (!token || !token[0])
		return DBHA_OK;
	return dbha__consistency_token(s->h, "dbha_session_set_token", token, &s->causal, err);
}

/* What was seen on a standby, where a later look at the primary has told enough. True: it is on the floor now. */
static bool placed_by_view(dbha_session *s)
{
	struct causal_need need = dbha__causal_need(&s->causal, dbha__view_borrow(&s->h->view), UINT32_MAX);
	dbha__view_return(&s->h->view);
	if (need.primary)
		return false;
	s->causal.floor = need.floor;
	s->causal.seen = SEEN_NOTHING;
	return true;
}

static int make_token(dbha_session *s, char token[DBHA_TOKEN_MAX], int timeout_ms, dbha_error *err)
{
	const dbha_request like = {.timeout_ms = timeout_ms};
	int code = DBHA_OK;
	if (s->tx != TX_NONE)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_token: the session is in a transaction");
	if (s->causal.seen != SEEN_NOTHING && !placed_by_view(s))
		code = ask_position(s, &like, 0, err);
	if (code != DBHA_OK || !s->causal.floor.timeline)
		return code;
	struct token out = s->causal.floor;
	if (!out.system_identifier) {
		out.system_identifier = dbha__view_borrow(&s->h->view)->system_identifier;
		dbha__view_return(&s->h->view);
	}
	dbha__token_print(&out, token);
	return DBHA_OK;
}

int dbha_session_token(dbha_session *s, char token[DBHA_TOKEN_MAX], int timeout_ms, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!token || timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "dbha_session_token: token is %s, timeout_ms is %d: room for DBHA_TOKEN_MAX bytes, 0 or more",
		                  token ? "given" : "NULL", timeout_ms);
	token[0] = '\0';
	int code = dbha__session_enter(s, "dbha_session_token", err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, make_token(s, token, timeout_ms, err), err);
}
