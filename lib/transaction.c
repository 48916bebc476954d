/*
 * transaction: begins and ends a session's transaction, and its savepoints. What became of a COMMIT whose answer was lost is asked
 * of the cluster.
 */
#include <stdio.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "exec.h"
#include "outcome_table.h"
#include "resolve.h"
#include "session.h"
#include "sessionstate.h"
#include "verb.h"

static int not_in_transaction(const char *what, dbha_error *err)
{
	dbha__fail(err, DBHA_ERR_USAGE, "%s: there is no transaction in progress", what);
	snprintf(err->sqlstate, sizeof err->sqlstate, "25P01");
	return err->code;
}

/* ---- begin ------------------------------------------------------------------------------------------------- */

static const char *const isolation_words[] = {"", " ISOLATION LEVEL READ COMMITTED", " ISOLATION LEVEL REPEATABLE READ",
                                              " ISOLATION LEVEL SERIALIZABLE"};

static int check_options(const char *what, const dbha_transaction_options *options, dbha_error *err)
{
	if (options->size != sizeof *options)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: options.size is %zu, not %zu: set it to sizeof(dbha_transaction_options)", what,
		                  options->size, sizeof *options);
	if (options->isolation < DBHA_ISOLATION_DEFAULT || options->isolation > DBHA_SERIALIZABLE)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: options.isolation is %d: a dbha_isolation", what,
		                  options->isolation);
	if (options->timeout_ms < 0 || options->attempts_max < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: options.timeout_ms is %d, attempts_max %d: 0 or more", what,
		                  options->timeout_ms, options->attempts_max);
	return DBHA_OK;
}

void dbha__session_new_transaction(dbha_session *s)
{
	s->read_only = s->serializable = s->notified = false;
	memset(&s->mark, 0, sizeof s->mark);
	memset(&s->last, 0, sizeof s->last);
	s->cause[0] = '\0';
}

int dbha__session_begin(dbha_session *s, const char *what, const dbha_transaction_options *options, dbha_error *err)
{
	static const dbha_transaction_options none = {.size = sizeof none};
	if (!options)
		options = &none;
	int code = check_options(what, options, err);
	if (code != DBHA_OK)
		return code;
	if (s->tx != TX_NONE) {
		dbha__fail(err, DBHA_ERR_USAGE, "%s: there is already a transaction in progress", what);
		snprintf(err->sqlstate, sizeof err->sqlstate, "25001");
		return err->code;
	}
	dbha__session_new_transaction(s);
	s->tx = TX_BEGUN;
	s->read_only = options->read_only;
	s->serializable = options->isolation == DBHA_SERIALIZABLE;
	snprintf(s->begin, sizeof s->begin, "BEGIN%s%s%s", isolation_words[options->isolation],
	         options->read_only ? " READ ONLY" : "", options->deferrable ? " DEFERRABLE" : "");
	return DBHA_OK;
}

int dbha_session_begin(dbha_session *s, const dbha_transaction_options *options, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	int code = dbha__session_enter(s, "dbha_session_begin", err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, dbha__session_begin(s, "dbha_session_begin", options, err), err);
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

/* The result that a server would have given. */
static void make_result(PGresult **result)
{
	if (!*result)
		*result = dbha__attempt_empty_result();
}

static int fail_rolled_back(dbha_session *s, dbha_error *err, const char *why)
{
	STATS_ADD(&s->h->handle_stats, transactions_rolled_back, 1);
	dbha__fail(err, DBHA_ERR_ROLLED_BACK, "the transaction is rolled back: %s", why);
	snprintf(err->node, sizeof err->node, "%s", s->node);
	err->retry_safe = true;
	return err->code;
}

/* Of what was set in the transaction only that stays which a rollback does not undo. */
static void undo_uses(dbha_session *s, const struct statement *st)
{
	/* A connection that was lost has been given back, although `slot` still has its address. */
	if (!st->connection_lost)
		s->slot->conn->used = s->used_before | dbha__sessionstate_survivors(s->slot->conn->used);
}

/* The row that a transaction leaves in the outcome table, written in the same flush as COMMIT. */
struct row {
	char token[OUTCOME_TOKEN_MAX];
	char sql[OUTCOME_SQL_MAX];
	const char *values[1];
	dbha_request insert;
};

/* NULL: there is no such table, or nothing that could get lost. */
static const dbha_request *make_row(dbha_session *s, struct row *row)
{
	dbha *h = s->h;
	bool wrote = s->mark.xid || (atomic_load(&h->marks_refused) && !s->read_only);
	row->token[0] = '\0';
	if (!h->config.options.outcome_table || !wrote)
		return NULL;
	dbha__outcome_token(dbha__life_random(h), dbha__life_random(h), row->token);
	dbha__outcome_table_insert(h->config.options.outcome_table, row->sql);
	row->values[0] = row->token;
	row->insert = (dbha_request){.size = sizeof row->insert, .sql = row->sql, .n_params = 1, .values = row->values};
	return &row->insert;
}

/* The connection was lost while COMMIT was under way. */
static int resolve(dbha_session *s, const struct statement *st, const struct row *row, PGresult **result,
                   dbha_error *err)
{
	char why[DBHA_WHY_MAX + 128];
	if (!s->mark.xid && !atomic_load(&s->h->marks_refused) && !s->notified)
		return fail_rolled_back(s, err, "its connection was lost during COMMIT; it had written nothing");
	struct resolve what = {.mark = &s->mark, .deadline = st->call.deadline, .token = row->token[0] ? row->token : NULL};
	enum outcome outcome = dbha__resolve(s->h, &what, why, sizeof why, err->node);
	if (outcome != OUTCOME_UNKNOWN)
		STATS_ADD(&s->h->handle_stats, commits_resolved, 1);
	if (outcome == OUTCOME_ABORTED)
		return fail_rolled_back(s, err, why);
	if (outcome == OUTCOME_COMMITTED) {
		STATS_ADD(&s->h->handle_stats, transactions, 1);
		make_result(result);
		return DBHA_OK;
	}
	return dbha__resolve_fail(s->h, why, s->node, err);
}

/* The server has answered; a failed transaction answers COMMIT with ROLLBACK, which is no error to the server. */
static int ended(dbha_session *s, const struct statement *st, dbha_error *err)
{
	bool rolled_back = dbha__attempt_was_rolled_back(*st->result);
	if (!rolled_back) {
		STATS_ADD(&s->h->handle_stats, transactions, 1);
		return DBHA_OK;
	}
	undo_uses(s, st);
	return fail_rolled_back(s, err, s->last.code ? s->last.message : "it had failed before COMMIT");
}

/* With AND CHAIN it is of the same kind as the one before. */
static void next_transaction(dbha_session *s)
{
	bool read_only = s->read_only, serializable = s->serializable;
	dbha__session_new_transaction(s);
	s->read_only = read_only;
	s->serializable = serializable;
}

/* After COMMIT or ROLLBACK on the held connection; with AND CHAIN the next transaction is open there already. */
static void follow_end(dbha_session *s, const struct statement *st)
{
	s->tx = TX_NONE;
	if (st->connection_lost) {
		dbha__session_forget_slot(s);
		dbha__session_lost(s);
	} else if (dbha__conn_state(s->slot->conn) == CONN_IN_TRANSACTION) {
		s->tx = TX_OPEN;
		s->used_before = s->slot->conn->used;
		next_transaction(s);
	} else {
		dbha__session_settle(s);
	}
}

/* Where no server has seen the end of a transaction, AND CHAIN is up to us: it would have begun the next one in any case. */
static void chain(dbha_session *s, const char *sql)
{
	if (s->tx != TX_NONE || !dbha__verb_chains(sql))
		return;
	next_transaction(s);
	s->tx = s->begin[0] ? TX_BEGUN : TX_FAILED;
}

/* Where it was not COMMIT that failed but the row before it, the transaction is still open. */
static void end_on_server(dbha_session *s, struct statement *st)
{
	if (st->connection_lost || !dbha__conn_has_failed(s->slot->conn))
		return;
	if (dbha__exec_command(s->slot->conn, "ROLLBACK", st->call.deadline))
		return;
	st->connection_lost = true;
	st->kept = NULL;
	dbha__call_return(s->h, s->slot, false);
}

static int commit_on_server(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	struct statement st;
	struct row row;
	unsigned used = s->slot->conn->used;
	dbha__session_statement(s, &st, request, result, err);
	st.call.intent = DBHA_WRITE;
	st.in_transaction = st.may_commit = true;
	st.before = make_row(s, &row);
	/* With AND CHAIN the question would be the next transaction's first statement. */
	if (!dbha__verb_chains(request->sql))
		dbha__session_place(s, &st);
	int code = dbha__statement_run_on_kept(&st);
	if (st.connection_lost && st.judged.retry.outcome_unknown) {
		s->used_before = used; /* what the transaction has set may have become the session's, and is lost */
		follow_end(s, &st);
		return resolve(s, &st, &row, result, err);
	}
	if (code != DBHA_OK)
		end_on_server(s, &st);
	if (code == DBHA_OK) {
		code = ended(s, &st, err);
		if (st.connection_lost && code == DBHA_OK)
			s->used_before = used; /* behind the answer to COMMIT, and with it what the transaction has set */
	} else if (code == DBHA_ERR_LOST) {
		code = fail_rolled_back(s, err, "the connection was lost before COMMIT");
	} else {
		STATS_ADD(&s->h->handle_stats, transactions_rolled_back, 1);
		undo_uses(s, &st);
	}
	follow_end(s, &st);
	return code;
}

int dbha__session_commit(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	int code = DBHA_OK;
	switch (s->tx) {
	case TX_NONE:
		return not_in_transaction("COMMIT", err);
	case TX_BEGUN:
		s->tx = TX_NONE;
		make_result(result);
		break;
	case TX_OPEN:
		code = commit_on_server(s, request, result, err);
		break;
	case TX_FAILED:
	case TX_LOST:
		s->tx = TX_NONE;
		code = fail_rolled_back(s, err, s->last.code ? s->last.message : "its connection was lost");
		break;
	}
	chain(s, request->sql);
	return code;
}

/* False: the server refused to, as it does where the text is no ROLLBACK after all. */
static bool rollback_on_server(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	struct statement st;
	dbha__session_statement(s, &st, request, result, err);
	st.call.intent = DBHA_WRITE;
	st.call.cancel = NULL; /* there is nothing to be gained by it */
	st.in_transaction = true;
	int code = dbha__statement_run_on_kept(&st);
	if (code == DBHA_ERR_SERVER && !st.connection_lost)
		return false;
	if (code != DBHA_OK && !st.connection_lost) {
		/* Not done in time: whether it still will be, nobody waits to hear. */
		st.connection_lost = true;
		dbha__call_return(s->h, s->slot, false);
	}
	undo_uses(s, &st);
	follow_end(s, &st);
	return true;
}

int dbha__session_rollback(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	if (s->tx == TX_NONE)
		return not_in_transaction("ROLLBACK", err);
	if (s->tx == TX_OPEN && !rollback_on_server(s, request, result, err))
		return err->code;
	STATS_ADD(&s->h->handle_stats, transactions_rolled_back, 1);
	/* Wherever it was, it is over: what a server does not hear of, it rolls back by itself. */
	if (s->tx != TX_OPEN) {
		s->tx = TX_NONE;
		next_transaction(s);
	}
	chain(s, request->sql);
	make_result(result);
	return DBHA_OK;
}

typedef int end_function(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err);

static int end(dbha_session *s, const char *what, const char *sql, int timeout_ms, end_function *function,
               dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: timeout_ms is %d: 0 or more", what, timeout_ms);
	int code = dbha__session_enter(s, what, err);
	if (code != DBHA_OK)
		return code;
	PGresult *result = NULL;
	dbha_request request = {
	    .size = sizeof request, .sql = sql, .flags = DBHA_UNPREPARED, .timeout_ms = timeout_ms, .intent = DBHA_WRITE};
	code = function(s, &request, &result, err);
	PQclear(result);
	return dbha__session_leave(s, code, err);
}

int dbha_session_commit(dbha_session *s, int timeout_ms, dbha_error *err)
{
	return end(s, "dbha_session_commit", "COMMIT", timeout_ms, dbha__session_commit, err);
}

int dbha_session_rollback(dbha_session *s, int timeout_ms, dbha_error *err)
{
	return end(s, "dbha_session_rollback", "ROLLBACK", timeout_ms, dbha__session_rollback, err);
}

/* ---- savepoints -------------------------------------------------------------------------------------------- */

/* "SAVEPOINT \"name\"". False: the name is too long for an identifier, or empty. */
static bool with_name(const char *verb, const char *name, char *sql, size_t size)
{
	size_t used = (size_t)snprintf(sql, size, "%s \"", verb);
	size_t length = strlen(name);
	if (length == 0 || length > 63 || used + 2 * length + 2 > size)
		return false;
	for (; *name; name++) {
		if (*name == '"')
			sql[used++] = '"';
		sql[used++] = *name;
	}
	sql[used++] = '"';
	sql[used] = '\0';
	return true;
}

static int in_transaction_only(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err)
{
	return s->tx == TX_NONE ? not_in_transaction(request->sql, err) : dbha__session_run(s, request, result, err);
}

static int savepoint(dbha_session *s, const char *what, const char *verb, const char *name, int timeout_ms,
                     dbha_error *err)
{
	char sql[192];
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!name || !with_name(verb, name, sql, sizeof sql))
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: name is NULL, empty or longer than 63 bytes", what);
	return end(s, what, sql, timeout_ms, in_transaction_only, err);
}

int dbha_savepoint(dbha_session *s, const char *name, int timeout_ms, dbha_error *err)
{
	return savepoint(s, "dbha_savepoint", "SAVEPOINT", name, timeout_ms, err);
}

int dbha_savepoint_release(dbha_session *s, const char *name, int timeout_ms, dbha_error *err)
{
	return savepoint(s, "dbha_savepoint_release", "RELEASE SAVEPOINT", name, timeout_ms, err);
}

int dbha_savepoint_rollback(dbha_session *s, const char *name, int timeout_ms, dbha_error *err)
{
	return savepoint(s, "dbha_savepoint_rollback", "ROLLBACK TO SAVEPOINT", name, timeout_ms, err);
}
