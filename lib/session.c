#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "canceller.h"
#include "clock.h"
#include "error.h"
#include "fork.h"
#include "sessionstate.h"

/* ---- its connection ---------------------------------------------------------------------------------------- */

void dbha__session_hold(dbha_session *s, struct dbha_conn *slot)
{
	/* One that holds a connection is worth waiting for when the handle is closed. */
	if (!s->slot)
		atomic_fetch_sub(&s->h->kept, 1);
	s->slot = slot;
	snprintf(s->node, sizeof s->node, "%s", slot->node_name);
}

void dbha__session_forget_slot(dbha_session *s)
{
	s->slot = NULL;
	atomic_fetch_add(&s->h->kept, 1);
	/* What has come whole may still be read. */
	if (s->streaming.wire.kind != STREAM_NONE)
		dbha__session_end_stream(s);
}

void dbha__session_let_go(dbha_session *s, bool reusable)
{
	struct dbha_conn *slot = s->slot;
	if (!slot)
		return;
	/* The server need not go on for nobody; a COPY FROM ends with its connection. */
	if (s->streaming.wire.kind != STREAM_NONE)
		dbha__canceller_send(slot->conn);
	dbha__session_forget_slot(s);
	dbha__call_return(s->h, slot, reusable);
}

void dbha__session_lost(dbha_session *s)
{
	unsigned used = s->used_before;
	if (s->slot)
		dbha__session_let_go(s, false);
	if (s->tx != TX_NONE)
		s->tx = TX_LOST;
	s->used_before = 0;
	if (!used)
		return;
	s->state_lost = true;
	dbha__sessionstate_words(used, s->lost_state, sizeof s->lost_state);
}

void dbha__session_settle(dbha_session *s)
{
	if (!s->slot)
		return;
	s->used_before = s->slot->conn->used;
	if (!s->used_before)
		dbha__session_let_go(s, true);
}

/* ---- opening and closing ----------------------------------------------------------------------------------- */

int dbha__session_init(dbha_session *s, dbha *h, dbha_error *err)
{
	memset(s, 0, sizeof *s);
	if (dbha__mutex_init(&s->cancel.lock, RANK_SESSION) != 0)
		return dbha__fail(err, DBHA_ERR_SYSTEM, "no mutex for the session");
	s->h = h;
	s->fork_generation = dbha__fork_generation();
	atomic_fetch_add(&h->refs, 1);
	atomic_fetch_add(&h->kept, 1);
	return DBHA_OK;
}

/* In a child: the connection was the parent's, and so is the reference to the handle, which may be gone here. */
static void forget_parent(dbha_session *s)
{
	struct dbha_conn *slot = s->slot;
	dbha__session_end_stream(s);
	if (!slot)
		return;
	/* Before its pool is taken apart it is still on its list. */
	if (!slot->orphan)
		dbha__life_follow_fork(slot->handle);
	dbha__pool_dispose(slot);
	s->slot = NULL;
}

void dbha__session_fini(dbha_session *s)
{
	if (s->fork_generation != dbha__fork_generation()) {
		forget_parent(s);
		return;
	}
	dbha__session_let_go(s, true);
	dbha__session_end_stream(s);
	dbha__mutex_fini(&s->cancel.lock);
	atomic_fetch_sub(&s->h->kept, 1);
	dbha__life_leave(s->h);
}

dbha_session *dbha_session_open(dbha *h, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (dbha__life_enter(h, err) != DBHA_OK)
		return NULL;
	dbha_session *s = malloc(sizeof *s);
	if (!s)
		dbha__fail(err, DBHA_ERR_MEMORY, "no memory for a session");
	else if (dbha__session_init(s, h, err) != DBHA_OK) {
		free(s);
		s = NULL;
	}
	dbha__life_leave(h);
	return s;
}

void dbha_session_close(dbha_session *s)
{
	if (!s)
		return;
	dbha__session_fini(s);
	free(s);
}

/* ---- calls ------------------------------------------------------------------------------------------------- */

/* In a forked child: the session goes on as the child's, without what it had in the parent. */
static void follow_fork(dbha_session *s)
{
	unsigned generation = dbha__fork_generation();
	if (s->fork_generation == generation)
		return;
	dbha__life_follow_fork(s->h);
	bool had = s->slot != NULL;
	forget_parent(s);
	s->fork_generation = generation;
	dbha__mutex_init(&s->cancel.lock, RANK_SESSION); /* another thread of the parent may have held it */
	atomic_fetch_add(&s->h->refs, 1);
	atomic_fetch_add(&s->h->kept, 1);
	dbha__causal_doubt(&s->causal); /* generations are counted anew */
	if (had)
		dbha__session_lost(s);
}

/* The transaction of dbha_transaction has no time left: nothing is sent for it any more. */
static int check_time(const dbha_session *s, dbha_error *err)
{
	if (s->deadline_cap == 0 || dbha__clock_now() < s->deadline_cap)
		return DBHA_OK;
	return dbha__fail(err, DBHA_ERR_TIMEOUT, "the deadline of the transaction has passed");
}

static int fail_state_lost(const dbha_session *s, dbha_error *err)
{
	return dbha__fail(err, DBHA_ERR_STATE_LOST,
	                  "the connection that the session was pinned to is lost, and with it what was set there (%s): "
	                  "call dbha_session_reset, or open another session, and set it again",
	                  s->lost_state);
}

int dbha__session_enter(dbha_session *s, const char *what, dbha_error *err)
{
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: the session is NULL: open one with dbha_session_open", what);
	follow_fork(s);
	if (s->streaming.open != STREAM_NONE)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "%s: a result is being read, or a COPY is in progress: go on to its end, or call "
		                  "dbha_session_finish",
		                  what);
	atomic_store_explicit(&s->cancel.asked, false, memory_order_relaxed);
	int code = dbha__life_enter(s->h, err);
	if (code != DBHA_OK)
		return code;
	code = s->state_lost ? fail_state_lost(s, err) : check_time(s, err);
	if (code != DBHA_OK)
		dbha__life_leave(s->h);
	return code;
}

/* An error that only says that there was one before. */
static bool is_echo(const dbha_session *s, const dbha_error *err)
{
	return s->cause[0] && s->last.code && strcmp(err->sqlstate, "25P02") == 0;
}

int dbha__session_enter_stream(dbha_session *s, const char *what, enum stream_kind kind, dbha_error *err)
{
	static const char *const names[] = {
	    [STREAM_NONE] = "nothing",
	    [STREAM_ROWS] = "no result is being read",
	    [STREAM_COPY_IN] = "no COPY FROM STDIN is in progress",
	    [STREAM_COPY_OUT] = "no COPY TO STDOUT is in progress",
	};
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: the session is NULL: open one with dbha_session_open", what);
	follow_fork(s);
	if (s->streaming.open != kind)
		return dbha__fail(err, DBHA_ERR_USAGE, "%s: %s in this session", what, names[kind]);
	atomic_store_explicit(&s->cancel.asked, false, memory_order_relaxed);
	return dbha__life_enter(s->h, err);
}

int dbha__session_leave(dbha_session *s, int code, const dbha_error *err)
{
	if (code == DBHA_OK) {
		/* Whatever it was, it is undone: after an error only ROLLBACK, and ROLLBACK TO SAVEPOINT, succeed. */
		s->cause[0] = '\0';
	} else if (!is_echo(s, err)) {
		s->last = *err;
		if (!s->cause[0])
			memcpy(s->cause, err->sqlstate, sizeof s->cause);
	}
	dbha__life_leave(s->h);
	return code;
}

void dbha__session_statement(dbha_session *s, struct statement *st, const dbha_request *request, PGresult **result,
                             dbha_error *err)
{
	dbha__statement_begin(st, s->h, request, result, err);
	dbha__call_set_deadline(&st->call);
	if (s->deadline_cap && s->deadline_cap < st->call.deadline)
		st->call.deadline = s->deadline_cap;
	st->call.cancel = &s->cancel;
	st->causal = &s->causal;
	if (request->consistency || s->consistency)
		st->call.consistency = request->consistency ? request->consistency : s->consistency;
	st->keeps = true;
	st->kept = s->slot;
}

int dbha_session_reset(dbha_session *s, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_reset: the session is NULL");
	follow_fork(s);
	dbha__session_let_go(s, true);
	dbha__session_end_stream(s);
	s->tx = TX_NONE;
	dbha__session_new_transaction(s);
	s->used_before = 0;
	s->state_lost = false;
	s->lost_state[0] = '\0';
	return DBHA_OK;
}

int dbha_cancel(dbha_session *s, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!s)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_cancel: the session is NULL");
	if (s->fork_generation != dbha__fork_generation())
		return DBHA_OK;
	atomic_store_explicit(&s->cancel.asked, true, memory_order_relaxed);
	dbha__mutex_lock(&s->cancel.lock);
	if (s->cancel.running) {
		s->cancel.sent = true;
		dbha__canceller_send(s->cancel.running);
	}
	dbha__mutex_unlock(&s->cancel.lock);
	return DBHA_OK;
}

static int state_of(const dbha_session *s)
{
	if (s->state_lost)
		return DBHA_SESSION_LOST;
	switch (s->tx) {
	case TX_NONE:
		return DBHA_SESSION_IDLE;
	case TX_BEGUN:
		return DBHA_SESSION_IN_TRANSACTION;
	case TX_OPEN:
		return dbha__conn_has_failed(s->slot->conn) ? DBHA_SESSION_IN_ERROR : DBHA_SESSION_IN_TRANSACTION;
	case TX_FAILED:
	case TX_LOST:
		break;
	}
	return DBHA_SESSION_IN_ERROR;
}

int dbha_session_status_get(dbha_session *s, dbha_session_status *out, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!s || !out || out->size != sizeof *out)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "dbha_session_status_get: a session, and a dbha_session_status with its size set");
	follow_fork(s);
	*out = (dbha_session_status){.size = sizeof *out, .state = state_of(s), .xid = s->mark.xid, .lsn = s->mark.lsn};
	unsigned used = s->slot ? s->slot->conn->used : 0;
	out->pinned = used != 0;
	dbha__sessionstate_words(used, out->pinned_by, sizeof out->pinned_by);
	out->backend_pid = s->slot ? dbha__conn_backend_pid(s->slot->conn) : 0;
	snprintf(out->node, sizeof out->node, "%s", s->node);
	return DBHA_OK;
}
