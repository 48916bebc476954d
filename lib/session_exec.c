/*
 * session_exec: a statement in a session: the first one of a transaction, one in it, one on the connection that the session is pinned to,
 * or one on its own.
 */
#include <stdio.h>
#include <string.h>

#include "error.h"
#include "exec.h"
#include "mark.h"
#include "session.h"
#include "sessionstate.h"
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
	if (st->left) {
		s->used_before = st->left;
		dbha__session_lost(s);
	}
	if (!st->kept)
		return;
	if (!s->slot)
		dbha__session_hold(s, st->kept);
	if (st->stream && st->stream->kind != STREAM_NONE) {
		s->tx = st->begins ? TX_OPEN : s->tx;
		return;
	}
	if (dbha__conn_state(st->kept->conn) == CONN_IN_TRANSACTION) {
		s->tx = TX_OPEN;
		return;
	}
	s->tx = TX_NONE;
	dbha__session_settle(s);
}

/* What a statement says of its transaction before it is run. */
void dbha__session_note(dbha_session *s, const char *sql)
{
	/* Both have no effect before COMMIT, and leave no mark: the query of a cursor WITH HOLD is run to its end there. */
	if (dbha__verb_has_word(sql, "notify") || dbha__verb_has_word(sql, "pg_notify") || dbha__verb_has_word(sql, "hold"))
		s->notified = true;
	/* SET TRANSACTION READ WRITE, in whatever form. */
	bool sets = dbha__verb_begins(sql, "set", NULL) || dbha__verb_has_word(sql, "set_config");
	if (sets && (dbha__verb_has_word(sql, "write") || dbha__verb_has_word(sql, "transaction_read_only")))
		s->read_only = false;
}

/*
 * The mark is asked for until the transaction has one. On a standby as well, where it has none: the server may have been promoted without
 * our having heard of it. Not behind what cannot have written: the question takes a snapshot, and in a REPEATABLE READ
 * transaction the snapshot has to wait for the first query of the caller's (behind a LOCK TABLE, say). What is written to temporary
 * tables leaves no trace of the transaction in the WAL: while there are any, a later mark is the better one.
 */
static struct xact_mark *wanted_mark(dbha_session *s, const char *sql)
{
	bool temp = s->slot && s->slot->conn->used & USE_TEMP;
	return s->read_only || (s->mark.xid && !temp) || dbha__verb(sql) == VERB_QUIET ? NULL : &s->mark;
}

/* With a stream the mark cannot travel: it is asked for behind its end, since nothing else may tell what has been written. */
static int learn_mark(dbha_session *s, const struct statement *st, int code)
{
	bool ended = st->stream && st->stream->kind == STREAM_NONE;
	struct xact_mark *mark = wanted_mark(s, st->request->sql);
	if (!ended || code != DBHA_OK || s->tx != TX_OPEN || !mark || atomic_load(&s->h->marks_refused))
		return code;
	if (st->stream->stopping) {
		/* It was given up, for which there is no time. The next statement asks; until then nobody says that nothing was written. */
		s->notified = true;
		return code;
	}
	struct statement question;
	PGresult *result = NULL;
	dbha_request rq = {.size = sizeof rq, .sql = dbha__mark_sql(), .intent = DBHA_WRITE};
	dbha__session_statement(s, &question, &rq, &result, st->err);
	question.call.deadline = st->call.deadline;
	question.in_transaction = true;
	code = dbha__statement_run_on_kept(&question);
	bool refused = code == DBHA_OK ? !dbha__mark_read(result, mark) && dbha__mark_is_there(result)
	                               : code == DBHA_ERR_SERVER && strncmp(st->err->sqlstate, "42", 2) == 0;
	if (refused)
		atomic_store(&s->h->marks_refused, true);
	PQclear(result);
	follow(s, &question);
	return code;
}

/*
 * Whether the first statement failed for something that the caller has nothing to do with, and is not there any more. Then nothing of the
 * transaction stays, and it is begun once more.
 */
static bool begins_again(dbha_session *s, struct statement *st)
{
	if (st->connection_lost || !(st->mark_refused || st->unprepared))
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
		code = s->slot ? dbha__session_follow_pinned(s, &st) : dbha__session_follow(s, &st);
		if (code != DBHA_OK)
			return code;
		st.before = &begin;
		st.begins = st.in_transaction = true;
		st.may_commit = dbha__verb(rq->sql) == VERB_PREPARE_TRANSACTION;
		st.mark = wanted_mark(s, rq->sql);
		dbha__session_opening(s, &st);
		code = s->slot ? dbha__statement_run_on_kept(&st) : dbha__statement_run(&st);
	} while (code != DBHA_OK && ++round < ROUNDS_MAX && begins_again(s, &st));
	follow(s, &st);
	if (s->tx == TX_BEGUN && code == DBHA_OK)
		s->tx = TX_NONE; /* it has ended it itself: PREPARE TRANSACTION */
	else if (s->tx == TX_BEGUN)
		s->tx = code == DBHA_ERR_SERVER ? TX_FAILED : TX_LOST;
	return as_rolled_back(s, learn_mark(s, &st, code), err);
}

static int run_in_transaction(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, rq, result, err);
	st.call.intent = DBHA_WRITE;
	st.in_transaction = true;
	st.mark = wanted_mark(s, rq->sql);
	dbha__session_opening(s, &st);
	int code = dbha__statement_run_on_kept(&st);
	follow(s, &st);
	return as_rolled_back(s, learn_mark(s, &st, code), err);
}

/* BEGIN as text does nothing that would last: it is run again, and after AND CHAIN. */
static bool begins_as_text(dbha_session *s, const char *sql)
{
	if (dbha__verb(sql) != VERB_BEGIN)
		return false;
	dbha__session_new_transaction(s);
	s->begin[0] = '\0';
	if (strlen(sql) < sizeof s->begin)
		memcpy(s->begin, sql, strlen(sql) + 1);
	return true;
}

/* The end of the connection that the session was pinned to is the end of what was set there. */
static int as_state_lost(const dbha_session *s, int code, dbha_error *err)
{
	if (code != DBHA_ERR_LOST || !s->state_lost)
		return code;
	char why[DBHA_MESSAGE_MAX];
	memcpy(why, err->message, sizeof why);
	return dbha__fail(err, DBHA_ERR_STATE_LOST,
	                  "the connection that the session was pinned to (by %s) is lost: call dbha_session_reset, or open "
	                  "another session, and set it again; %s",
	                  s->lost_state, why);
}

/* On the connection that the session is pinned to: once, since no other connection has what was set there. */
static int run_pinned(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, rq, result, err);
	st.in_transaction = begins_as_text(s, rq->sql);
	int code = dbha__session_follow_pinned(s, &st);
	if (code != DBHA_OK)
		return code;
	dbha__session_opening(s, &st);
	code = dbha__statement_run_on_kept(&st);
	follow(s, &st);
	return as_state_lost(s, code, err);
}

/* Within the deadline of the call, of which finding out what the statement is may have taken some. */
static int run_verified(dbha_session *s, const struct statement *st)
{
	int64_t cap = s->deadline_cap;
	s->deadline_cap = st->call.deadline;
	int code = dbha__verified_run(s, st->request, st->result, st->err);
	s->deadline_cap = cap;
	return code;
}

static int run_alone(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, rq, result, err);
	st.in_transaction = begins_as_text(s, rq->sql);
	/* A batch has been looked at as a whole. */
	if (!st.in_transaction && !s->batch)
		dbha__statement_classify(&st);
	if (dbha__verified_wanted(s->h, rq) && st.call.intent != DBHA_READ && !s->streaming.opening)
		return run_verified(s, &st);
	int code = dbha__session_follow(s, &st);
	if (code != DBHA_OK)
		return code;
	if (!st.in_transaction)
		dbha__session_place(s, &st);
	dbha__session_opening(s, &st);
	code = dbha__statement_run(&st);
	if (st.call.last_name)
		snprintf(s->node, sizeof s->node, "%s", st.call.last_name);
	s->streaming.intent = st.call.intent;
	s->streaming.attempts = st.call.sent;
	follow(s, &st);
	return code;
}

int dbha__session_go_on(dbha_session *s, struct statement *st)
{
	bool in_transaction = s->tx != TX_NONE;
	int code = dbha__statement_run_on_kept(st);
	/* It may have been sent while an earlier step was under way. */
	s->streaming.canceled = s->cancel.sent = s->streaming.canceled || s->cancel.sent;
	follow(s, st);
	if (in_transaction)
		code = as_rolled_back(s, learn_mark(s, st, code), st->err);
	return as_canceled(s, as_state_lost(s, code, st->err), st->err);
}

/* COPY to and from files of the server's is a statement like others. */
static bool talks_to_client(const char *copy)
{
	return dbha__verb_has_word(copy, "stdin") || dbha__verb_has_word(copy, "stdout");
}

static int run(dbha_session *s, const dbha_request *rq, PGresult **result, dbha_error *err)
{
	enum verb verb = dbha__verb(rq->sql);
	bool copies = s->streaming.opening && s->streaming.open != STREAM_ROWS;
	if (verb == VERB_COPY && !copies && talks_to_client(rq->sql))
		return dbha__fail(err, DBHA_ERR_USAGE, "COPY needs dbha_session_copy_in or dbha_session_copy_out");
	if (s->tx != TX_NONE && verb == VERB_BEGIN)
		return fail_as_server(err, "25001", false, "there is already a transaction in progress");
	if (s->tx == TX_NONE)
		dbha__session_new_transaction(s);
	if (s->tx == TX_NONE && s->slot)
		return run_pinned(s, rq, result, err);
	if (s->tx == TX_NONE)
		return run_alone(s, rq, result, err);
	if (verb == VERB_COMMIT || (verb == VERB_PREPARE_TRANSACTION && s->tx != TX_BEGUN))
		return dbha__session_commit(s, rq, result, err);
	if (verb == VERB_ROLLBACK)
		return dbha__session_rollback(s, rq, result, err);
	if (s->tx == TX_FAILED || s->tx == TX_LOST)
		return fail_as_server(err, "25P02", true, "the transaction is over, it was rolled back: end it with ROLLBACK");
	dbha__session_note(s, rq->sql);
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
	if (code == DBHA_OK && request->flags & DBHA_TOKEN)
		code =
		    dbha__fail(err, DBHA_ERR_USAGE,
		               "dbha_session_exec: DBHA_TOKEN is not for a session: it has one, dbha_session_token tells it");
	if (code != DBHA_OK)
		return code;
	code = dbha__session_enter(s, "dbha_session_exec", err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, dbha__session_run(s, request, result, err), err);
}
