/*
 * session_exec: a statement in a session: the first one of a transaction, one in it, one on the connection that the session is pinned to,
 * or one on its own.
 */
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "exec.h"
#include "session.h"
#include "verb.h"

/* Of our own making: the code says SERVER, because that is how a server would refuse the same. */
static int fail_as_server(dbha_error *err, const char *sqlstate, bool retry_safe, const char *text)
{
	dbha__fail(err, DBHA_ERR_SERVER, "%s", text);
	snprintf(err->sqlstate, sizeof err->sqlstate, "%s", sqlstate);
	err->retry_safe = retry_safe;
	return DBHA_ERR_SERVER;
}

/* In a transaction nothing is lost but the transaction: it can be run again as a whole. The server's last words, if any, stay. */
static int as_rolled_back(const dbha_session *s, int code, dbha_error *err)
{
	if (code != DBHA_ERR_LOST && (code != DBHA_ERR_SERVER || s->tx != TX_LOST))
		return code;
	char node[DBHA_NODE_NAME_MAX], why[DBHA_MESSAGE_MAX];
	memcpy(node, err->node, sizeof node);
	memcpy(why, err->message, sizeof why);
	int attempts = err->attempts;
	dbha__fail(err, DBHA_ERR_ROLLED_BACK, "the connection was lost before COMMIT, the transaction is rolled back: %s",
	           why);
	memcpy(err->node, node, sizeof node);
	err->retry_safe = true;
	err->attempts = attempts;
	return err->code;
}

/* What the server said of a cancel request of ours. */
static int as_canceled(const dbha_session *s, int code, dbha_error *err)
{
	if (code != DBHA_ERR_SERVER || strcmp(err->sqlstate, "57014") != 0 || !s->cancel.sent)
		return code;
	err->code = DBHA_ERR_CANCELED;
	return err->code;
}

/* After a statement on the held connection: whether that lives, and what transaction it is in. */
static void follow(dbha_session *s, const struct statement *st)
{
	if (st->connection_lost) {
		dbha__session_forget_slot(s);
		dbha__session_lost(s);
		return;
	}
	if (!st->kept)
		return;
	if (!s->slot)
		dbha__session_hold(s, st->kept);
	if (dbha__conn_state(st->kept->conn) == CONN_IN_TRANSACTION) {
		s->tx = TX_OPEN;
		return;
	}
	s->tx = TX_NONE;
	dbha__session_settle(s);
}

/* What a statement says of its transaction before it is run. */
static void note(dbha_session *s, const char *sql)
{
	if (dbha__verb_has_word(sql, "notify") || dbha__verb_has_word(sql, "pg_notify"))
		s->notified = true;
	/* SET TRANSACTION READ WRITE, in whatever form. */
	bool sets = dbha__verb_begins(sql, "set", NULL) || dbha__verb_has_word(sql, "set_config");
	if (sets && (dbha__verb_has_word(sql, "write") || dbha__verb_has_word(sql, "transaction_read_only")))
		s->read_only = false;
}

/*
 * The mark is asked for until the transaction has one. Not behind what cannot have written: the question takes a snapshot, and in
 * a REPEATABLE READ transaction the snapshot has to wait for the first query of the caller's (behind a LOCK TABLE, say).
 */
static struct xact_mark *wanted_mark(dbha_session *s, const char *sql)
{
	return s->read_only || s->mark.xid || dbha__verb(sql) == VERB_QUIET ? NULL : &s->mark;
}

static void mark(dbha_session *s, const struct statement *st, int code)
{
	s->unmarked = s->unmarked || (code == DBHA_OK && st->unmarked && !s->mark.xid);
}

/*
 * Whether the first statement failed for something that the caller has nothing to do with, and is not there any more. Then nothing of the
 * transaction stays, and it is begun once more.
 */
static bool begins_again(dbha_session *s, struct statement *st)
{
	if (st->connection_lost || !(st->mark_refused || st->plan_lost))
		return false;
	if (s->slot && !dbha__exec_command(s->slot->conn, "ROLLBACK", st->call.deadline)) {
		st->connection_lost = true;
		st->kept = NULL;
		dbha__call_return(s->h, s->slot, false);
		return false;
	}
	if (!s->slot && st->kept)
		dbha__call_return(s->h, st->kept, true);
	PQclear(*st->result);
	*st->result = NULL;
	return true;
}

/* Each of them can happen twice at most: of the statement, and of the question for its mark. */
#define ROUNDS_MAX 4

/*
 * The first statement of a transaction takes BEGIN along. Nobody has seen anything of the transaction yet: where it fails by the loss
 * of a connection, or of the primary, it is run again as a single statement is.
 */
static int run_first(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	const dbha_request begin = {.size = sizeof begin, .sql = s->begin, .flags = DBHA_UNPREPARED};
	int64_t deadline = INT64_MAX;
	int code, round = 0;
	do {
		dbha__session_statement(s, &st, rq, result, err);
		deadline = st.call.deadline = st.call.deadline < deadline ? st.call.deadline : deadline;
		st.call.intent = rq->intent == DBHA_WRITE ? DBHA_WRITE : DBHA_DEFAULT;
		if (s->read_only)
			st.call.intent = s->serializable ? DBHA_WRITE : DBHA_READ;
		st.before = &begin;
		st.begins = st.in_transaction = true;
		st.may_commit = dbha__verb(rq->sql) == VERB_PREPARE_TRANSACTION;
		st.mark = wanted_mark(s, rq->sql);
		code = s->slot ? dbha__statement_run_on_kept(&st) : dbha__statement_run(&st);
	} while (code != DBHA_OK && ++round < ROUNDS_MAX && begins_again(s, &st));
	mark(s, &st, code);
	follow(s, &st);
	if (s->tx == TX_BEGUN && code == DBHA_OK)
		s->tx = TX_NONE; /* it has ended it itself: PREPARE TRANSACTION */
	else if (s->tx == TX_BEGUN)
		s->tx = code == DBHA_ERR_SERVER ? TX_FAILED : TX_LOST;
	return as_rolled_back(s, code, err);
}

static int run_in_transaction(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, rq, result, err);
	st.call.intent = DBHA_WRITE;
	st.in_transaction = true;
	st.mark = wanted_mark(s, rq->sql);
	int code = dbha__statement_run_on_kept(&st);
	mark(s, &st, code);
	follow(s, &st);
	return as_rolled_back(s, code, err);
}

/* BEGIN as text does nothing that would last: it is run again, and after AND CHAIN. */
static bool begins_as_text(dbha_session *s, const char *sql)
{
	if (dbha__verb(sql) != VERB_BEGIN)
		return false;
	dbha__session_forget_transaction(s);
	s->read_only = s->serializable = false;
	s->begin[0] = '\0';
	if (strlen(sql) < sizeof s->begin)
		memcpy(s->begin, sql, strlen(sql) + 1);
	return true;
}

/* On the connection that the session is pinned to: once, since no other connection has what was set there. */
static int run_pinned(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, rq, result, err);
	st.in_transaction = begins_as_text(s, rq->sql);
	int code = dbha__statement_run_on_kept(&st);
	follow(s, &st);
	if (code != DBHA_ERR_LOST || !s->state_lost)
		return code;
	char why[DBHA_MESSAGE_MAX];
	memcpy(why, err->message, sizeof why);
	return dbha__fail(err, DBHA_ERR_STATE_LOST,
	                  "the connection that the session was pinned to (by %s) is lost: call dbha_session_reset, or open "
	                  "another session, and set it again; %s",
	                  s->lost_state, why);
}

static int run_alone(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, rq, result, err);
	dbha__session_forget_transaction(s);
	st.in_transaction = begins_as_text(s, rq->sql);
	int code = dbha__statement_run(&st);
	if (st.call.last_name)
		snprintf(s->node, sizeof s->node, "%s", st.call.last_name);
	follow(s, &st);
	return code;
}

static int run(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	enum verb verb = dbha__verb(rq->sql);
	if (verb == VERB_COPY)
		return dbha__fail(err, DBHA_ERR_USAGE, "COPY needs dbha_session_copy_in or dbha_session_copy_out");
	if (s->tx != TX_NONE && verb == VERB_BEGIN)
		return fail_as_server(err, "25001", false, "there is already a transaction in progress");
	if (s->tx == TX_NONE && s->slot)
		return run_pinned(s, rq, result, err);
	if (s->tx == TX_NONE)
		return dbha__verified_wanted(s->h, rq) ? dbha__verified_run(s, rq, result, err) : run_alone(s, rq, result, err);
	if (verb == VERB_COMMIT || (verb == VERB_PREPARE_TRANSACTION && s->tx != TX_BEGUN))
		return dbha__session_commit(s, rq, result, err);
	if (verb == VERB_ROLLBACK)
		return dbha__session_rollback(s, rq, result, err);
	if (s->tx == TX_FAILED || s->tx == TX_LOST)
		return fail_as_server(err, "25P02", true, "the transaction is over, it was rolled back: end it with ROLLBACK");
	note(s, rq->sql);
	return s->tx == TX_BEGUN ? run_first(s, rq, result, err) : run_in_transaction(s, rq, result, err);
}

int dbha__session_run(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	return as_canceled(s, run(s, rq, result, err), err);
}

int dbha_session_exec(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	int code = dbha__statement_check("dbha_session_exec", request, result, err);
	if (code != DBHA_OK)
		return code;
	code = dbha__session_enter(s, "dbha_session_exec", err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, dbha__session_run(s, request, result, err), err);
}
