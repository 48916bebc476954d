#include "flush.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "position.h"
#include "retry.h"
#include "sessionstate.h"
#include "stmtcache.h"
#include "wait.h"

/* What one answer of the pipeline belongs to. */
enum item_kind {
	ITEM_ASIDE,   /* only its failure matters */
	ITEM_PREPARE, /* of a statement that stays prepared under `name` */
	ITEM_MAIN,    /* the statement itself */
	ITEM_MARK,
	ITEM_WAIT,     /* for the floor; whatever it says, the next one counts */
	ITEM_REPLAYED, /* whether the floor is there */
	ITEM_POSITION,
	ITEM_SYNC, /* of what stands before it and does not belong to the statement, or behind it */
	ITEM_END,  /* the statement's own Sync: what has become of it is known */
};

struct item {
	enum item_kind kind;
	bool aside; /* not of the statement's own transaction: whatever becomes of it, the statement is not touched by it */
	char name[24];
};

#define ITEMS_MAX 24

/* How long the answer to the position may take once the statement is over: it is not worth more, the next read asks again. */
#define ASIDE_US ((int64_t)200000)

struct pipeline {
	struct conn *conn;
	struct flush *flush;
	struct attempt *attempt;
	int64_t deadline;
	bool drained; /* the deadline has been put off */
	bool aside;   /* what is being sent is */
	bool torn;    /* not all of it could be sent, but the statement was */
	bool settled; /* the statement is over, and `attempt` is the truth */
	bool late;    /* by then its deadline had passed */
	int n;
	struct item items[ITEMS_MAX];
};

/* ---- sending ----------------------------------------------------------------------------------------------- */

static void push(struct pipeline *p, enum item_kind kind, const char *name)
{
	struct item *item = &p->items[p->n++];
	item->kind = kind;
	item->aside = p->aside;
	snprintf(item->name, sizeof item->name, "%s", name);
}

static bool send_text(struct pipeline *p, const char *sql)
{
	push(p, ITEM_ASIDE, "");
	return PQsendQueryParams(p->conn->pg, sql, 0, NULL, NULL, NULL, NULL, 0);
}

static bool send_unnamed(struct pipeline *p, const dbha_request *rq, enum item_kind kind)
{
	push(p, kind, "");
	return PQsendQueryParams(p->conn->pg, rq->sql, rq->n_params, rq->types, rq->values, rq->lengths, rq->formats,
	                         rq->result_format);
}

static bool send_prepared(struct pipeline *p, const dbha_request *rq, enum item_kind kind, const struct stmt *stmt)
{
	PGconn *pg = p->conn->pg;
	if (stmt->advice == STMT_PREPARE) {
		push(p, ITEM_PREPARE, stmt->name);
		if (!PQsendPrepare(pg, stmt->name, rq->sql, rq->n_params, rq->types))
			return false;
	}
	push(p, kind, stmt->name);
	return PQsendQueryPrepared(pg, stmt->name, rq->n_params, rq->values, rq->lengths, rq->formats, rq->result_format);
}

/* A statement by way of the cache. What it pushes out there is deallocated behind it: by then nothing uses it any more. */
static bool send_statement(struct pipeline *p, const dbha_request *rq, enum item_kind kind, unsigned *hints)
{
	struct conn *conn = p->conn;
	if (!conn->statements || !conn->direct || (rq->flags & DBHA_UNPREPARED)) {
		*hints = dbha__sessionstate_hints(rq->sql);
		return send_unnamed(p, rq, kind);
	}
	struct stmt stmt;
	dbha__stmtcache_use(conn->statements, rq->sql, rq->n_params, rq->types, &stmt);
	*hints = stmt.hints;
	bool sent = stmt.advice == STMT_ONCE ? send_unnamed(p, rq, kind) : send_prepared(p, rq, kind, &stmt);
	char sql[64];
	snprintf(sql, sizeof sql, "DEALLOCATE %s", stmt.evicted);
	return sent && (!stmt.evicted[0] || send_text(p, sql));
}

/* Until the end of the transaction that it runs in. */
static bool send_timeout(struct pipeline *p)
{
	char sql[96];
	snprintf(sql, sizeof sql, "SELECT pg_catalog.set_config('statement_timeout', '%d', true)",
	         p->flush->server_timeout_ms);
	return send_text(p, sql);
}

/* Not the last one: where libpq can, it goes out with what comes behind it. */
static bool send_sync(struct pipeline *p, enum item_kind kind)
{
	push(p, kind, "");
#ifdef HAVE_PQSENDPIPELINESYNC
	return PQsendPipelineSync(p->conn->pg);
#else
	return PQpipelineSync(p->conn->pg);
#endif
}

/* PostgreSQL 19: waits for the position in the server. It is a statement of its own, and no more than a courtesy. */
static bool send_wait(struct pipeline *p)
{
	const struct flush *flush = p->flush;
	char sql[96];
	if (flush->floor_wait_ms == 0 || PQserverVersion(p->conn->pg) < 190000 || !p->conn->direct)
		return true;
	snprintf(sql, sizeof sql, "WAIT FOR LSN '%X/%X' WITH (TIMEOUT '%dms', NO_THROW)",
	         (unsigned)(flush->floor->lsn >> 32), (unsigned)flush->floor->lsn, flush->floor_wait_ms);
	push(p, ITEM_WAIT, "");
	return PQsendQueryParams(p->conn->pg, sql, 0, NULL, NULL, NULL, NULL, 0) && send_sync(p, ITEM_SYNC);
}

/*
 * libpq before 17 sends at each Sync. Held back by the kernel all of it goes out as one packet, and wakes the server once. Where there is no
 * such thing (a Unix socket, another system) it goes out in two.
 */
static void cork(const struct conn *conn, int on)
{
#if !defined(HAVE_PQSENDPIPELINESYNC) && defined(TCP_CORK)
	setsockopt(conn->guard_fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on);
#else
	(void)conn;
	(void)on;
#endif
}

static bool send_question(struct pipeline *p, const char *sql, enum item_kind kind)
{
	unsigned hints;
	dbha_request ask = {.size = sizeof ask, .sql = sql};
	return send_statement(p, &ask, kind, &hints);
}

static bool send_guard(struct pipeline *p)
{
	bool apart = p->flush->before || p->flush->floor_apart || p->conn->guards_apart;
	p->aside = true;
	if (!send_wait(p))
		return false;
	p->aside = apart;
	bool sent = send_question(p, dbha__replayed_sql(), ITEM_REPLAYED) && (!apart || send_sync(p, ITEM_SYNC));
	p->aside = false;
	return sent;
}

/* Behind the statement's end. Whether it can be sent does not matter to the statement, which is on its way. */
static void send_position(struct pipeline *p)
{
	int n = p->n;
	p->aside = true;
	p->torn = !send_question(p, p->flush->anywhere ? dbha__seen_sql() : dbha__position_sql(), ITEM_POSITION);
	push(p, ITEM_SYNC, "");
	p->torn = p->torn || !PQpipelineSync(p->conn->pg);
	if (p->torn)
		p->n = n;
}

static bool send_all(struct pipeline *p, unsigned *hints)
{
	const struct flush *flush = p->flush;
	unsigned unwanted;
	if (flush->floor && !send_guard(p))
		return false;
	if (flush->before && !send_statement(p, flush->before, ITEM_ASIDE, &unwanted))
		return false;
	if (flush->server_timeout_ms && !send_timeout(p))
		return false;
	if (!send_statement(p, flush->request, ITEM_MAIN, hints))
		return false;
	if (flush->mark && !send_question(p, dbha__mark_sql(), ITEM_MARK))
		return false;
	if (flush->position) {
		if (!send_sync(p, ITEM_END))
			return false;
		send_position(p);
		return true;
	}
	push(p, ITEM_END, "");
	return PQpipelineSync(p->conn->pg);
}

/* ---- collecting -------------------------------------------------------------------------------------------- */

/*
 * Whether it was the server who will not answer this question: it has no such function, or the role may not call it (class 42). A
 * connection that was lost in the middle of the answer, a cancel or a shutdown would say something of this one time only.
 */
static bool refuses(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	return sqlstate && strncmp(sqlstate, "42", 2) == 0;
}

static void take_replayed(struct pipeline *p, const struct item *item, const PGresult *result)
{
	bool keeps_snapshot;
	p->flush->behind = dbha__replayed_read(result, &keeps_snapshot) < p->flush->floor->lsn;
	if (item->aside || !keeps_snapshot)
		return;
	p->flush->behind = true;
	p->conn->guards_apart = true;
}

static void take_position(const struct flush *flush, const PGresult *result)
{
	if (flush->anywhere)
		dbha__seen_read(result, flush->position);
	else
		flush->position->told = dbha__position_read(result, &flush->position->at);
}

/* One result of one item. */
static void take(struct pipeline *p, const struct item *item, PGresult *result)
{
	struct attempt *attempt = p->attempt;
	ExecStatusType status = PQresultStatus(result);
	bool failed = status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE;
	bool unprepared =
	    failed && item->kind != ITEM_PREPARE && item->name[0] && dbha__attempt_mend_cache(p->conn, result, item->name);
	if (item->kind == ITEM_PREPARE && !failed && status != PGRES_PIPELINE_ABORTED)
		dbha__stmtcache_prepared(p->conn->statements, item->name);
	else if (item->kind == ITEM_PREPARE)
		dbha__stmtcache_refused(p->conn->statements, item->name);
	if (item->kind == ITEM_MARK && status == PGRES_TUPLES_OK)
		p->flush->mark_refused = !dbha__mark_read(result, p->flush->mark) && dbha__mark_is_there(result);
	if (item->kind == ITEM_REPLAYED)
		take_replayed(p, item, result);
	if (item->kind == ITEM_POSITION)
		take_position(p->flush, result);
	if (item->aside) {
		PQclear(result);
		return;
	}
	bool first_failure = failed && attempt->end == ATTEMPT_OK;
	if (item->kind == ITEM_MARK && first_failure && !unprepared && refuses(result))
		p->flush->mark_refused = true;
	p->flush->unprepared = p->flush->unprepared || unprepared;
	if (first_failure || (item->kind == ITEM_MAIN && status != PGRES_PIPELINE_ABORTED))
		dbha__attempt_take(attempt, result);
	else
		PQclear(result);
}

/* Until PQgetResult does not block; at the deadline the server is asked to stop, once for the whole pipeline. */
static enum waited wait_for_result(struct pipeline *p)
{
	enum waited waited = dbha__wait_result(p->conn, p->deadline);
	if (waited != WAITED_TIMEOUT || p->drained)
		return waited;
	p->drained = true;
	return dbha__wait_drain(p->conn, &p->deadline) ? dbha__wait_result(p->conn, p->deadline) : waited;
}

/* The results of one item, up to the NULL behind them. */
static enum waited collect_item(struct pipeline *p, const struct item *item)
{
	for (;;) {
		enum waited waited = wait_for_result(p);
		if (waited != WAITED_READY)
			return waited;
		PGresult *result = PQgetResult(p->conn->pg);
		if (!result)
			return WAITED_READY;
		if (dbha__attempt_is_copy(result)) {
			dbha__attempt_refuse_copy(p->conn, p->attempt, result);
			return WAITED_BROKEN;
		}
		take(p, item, result);
		if (PQstatus(p->conn->pg) != CONNECTION_OK)
			return WAITED_BROKEN;
	}
}

/* The statement is over. What comes behind it is waited for no longer than it is worth. */
static void settle(struct pipeline *p)
{
	int64_t patience = dbha__clock_now() + ASIDE_US;
	dbha__attempt_judge(p->conn, p->attempt);
	if (p->conn->late)
		dbha__attempt_judge_late(p->conn, p->attempt);
	p->late = p->conn->late;
	p->settled = true;
	p->drained = true;
	p->deadline = patience < p->deadline ? patience : p->deadline;
}

/*
 * A Sync's result has no NULL behind it. Before it comes what went wrong at the end of the transaction, such as a constraint that is only
 * checked there.
 */
static enum waited collect_sync(struct pipeline *p, enum item_kind kind)
{
	PGconn *pg = p->conn->pg;
	for (int nothing = 0; nothing < 2;) {
		enum waited waited = wait_for_result(p);
		if (waited != WAITED_READY)
			return waited;
		PGresult *result = PQgetResult(pg);
		ExecStatusType status = PQresultStatus(result);
		nothing += result == NULL;
		if (kind == ITEM_END && status == PGRES_FATAL_ERROR && result)
			dbha__attempt_take(p->attempt, result);
		else
			PQclear(result);
		if (status == PGRES_PIPELINE_SYNC) {
			if (kind == ITEM_END)
				settle(p);
			return WAITED_READY;
		}
		if (PQstatus(pg) != CONNECTION_OK)
			return WAITED_BROKEN;
	}
	return WAITED_BROKEN;
}

static enum waited collect(struct pipeline *p)
{
	enum waited waited = dbha__wait_flush(p->conn, p->deadline);
	for (int i = 0; i < p->n && waited == WAITED_READY; i++) {
		const struct item *item = &p->items[i];
		bool sync = item->kind == ITEM_SYNC || item->kind == ITEM_END;
		waited = sync ? collect_sync(p, item->kind) : collect_item(p, item);
	}
	if (waited != WAITED_READY)
		return waited;
	return !p->torn && PQexitPipelineMode(p->conn->pg) ? WAITED_READY : WAITED_BROKEN;
}

/* The end of a pipeline that has not come to its end. */
static void judge(struct pipeline *p, enum waited waited)
{
	struct conn *conn = p->conn;
	if (waited == WAITED_TIMEOUT)
		dbha__attempt_timed_out(p->attempt);
	else if (waited == WAITED_BROKEN && PQstatus(conn->pg) == CONNECTION_OK)
		dbha__attempt_lost(conn, p->attempt);
	else
		dbha__attempt_judge(conn, p->attempt);
	if (conn->late)
		dbha__attempt_judge_late(conn, p->attempt);
}

/* The statement is over, but what was asked for behind it did not come, or not in time: nobody can use the connection any more. */
static void give_up(struct pipeline *p)
{
	p->conn->late = p->late;
	p->conn->doubtful = true;
	p->attempt->in_doubt = true;
	dbha__conn_cut(p->conn);
}

static void run_once(struct conn *conn, struct flush *flush, int64_t deadline, struct attempt *attempt)
{
	struct pipeline p = {.conn = conn, .flush = flush, .attempt = attempt, .deadline = deadline};
	unsigned hints = 0;
	dbha__wait_begin(conn);
	dbha__attempt_begin(attempt);
	flush->mark_refused = false;
	flush->unprepared = false;
	flush->behind = flush->floor != NULL; /* until the standby has said otherwise */
	if (flush->position)
		*flush->position = (struct seen_position){.told = false};
	if (!PQenterPipelineMode(conn->pg)) {
		dbha__attempt_not_sent(conn, attempt);
		return;
	}
	if (flush->position)
		cork(conn, 1);
	bool sent = send_all(&p, &hints);
	if (flush->position)
		cork(conn, 0);
	if (!sent) {
		/* Half a pipeline has no way back; none of it has been committed. */
		dbha__attempt_not_sent(conn, attempt);
		dbha__conn_cut(conn);
		return;
	}
	enum waited waited = collect(&p);
	if (p.settled && (waited != WAITED_READY || conn->late != p.late))
		give_up(&p);
	else if (waited != WAITED_READY)
		judge(&p, waited);
	dbha__attempt_note_use(conn, flush->request, hints, attempt);
}

/* A statement whose preparation turned out to be no good has not been executed; outside a transaction it is sent once more, as dbha__exec does it. */
static bool is_mended(const struct conn *conn, const struct flush *flush, const struct attempt *attempt)
{
	return flush->unprepared && attempt->end == ATTEMPT_ERROR && !flush->before && !conn->late &&
	       dbha__conn_state(conn) == CONN_IDLE && !dbha__retry_runs_code(flush->request->sql);
}

void dbha__flush_run(struct conn *conn, struct flush *flush, int64_t deadline, struct attempt *attempt)
{
	run_once(conn, flush, deadline, attempt);
	if (!is_mended(conn, flush, attempt) || dbha__clock_now() >= deadline)
		return;
	PQclear(attempt->result);
	run_once(conn, flush, deadline, attempt);
}
