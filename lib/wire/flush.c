#include "flush.h"

#include <stdio.h>
#include <string.h>

#include "sessionstate.h"
#include "stmtcache.h"
#include "wait.h"

/* What one answer of the pipeline belongs to. */
enum item_kind {
	ITEM_ASIDE,   /* only its failure matters */
	ITEM_PREPARE, /* of a statement that stays prepared under `name` */
	ITEM_MAIN,    /* the statement itself */
	ITEM_MARK,
};

struct item {
	enum item_kind kind;
	char name[24];
};

#define ITEMS_MAX 12

struct pipeline {
	struct conn *conn;
	struct flush *flush;
	struct attempt *attempt;
	int64_t deadline;
	bool drained; /* the deadline has been put off */
	int n;
	struct item items[ITEMS_MAX];
};

/* ---- sending ----------------------------------------------------------------------------------------------- */

static void push(struct pipeline *p, enum item_kind kind, const char *name)
{
	struct item *item = &p->items[p->n++];
	item->kind = kind;
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

static bool send_mark(struct pipeline *p)
{
	unsigned hints;
	dbha_request ask = {.size = sizeof ask, .sql = dbha__mark_sql()};
	return send_statement(p, &ask, ITEM_MARK, &hints);
}

static bool send_all(struct pipeline *p, unsigned *hints)
{
	const struct flush *flush = p->flush;
	unsigned unwanted;
	return (!flush->before || send_statement(p, flush->before, ITEM_ASIDE, &unwanted)) &&
	       (flush->server_timeout_ms == 0 || send_timeout(p)) && send_statement(p, flush->request, ITEM_MAIN, hints) &&
	       (!flush->mark || send_mark(p)) && PQpipelineSync(p->conn->pg);
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

static enum waited collect(struct pipeline *p)
{
	enum waited waited = dbha__wait_flush(p->conn, p->deadline);
	for (int i = 0; i < p->n && waited == WAITED_READY; i++)
		waited = collect_item(p, &p->items[i]);
	if (waited == WAITED_READY)
		waited = wait_for_result(p);
	if (waited != WAITED_READY)
		return waited;
	PGresult *sync = PQgetResult(p->conn->pg);
	bool synced = PQresultStatus(sync) == PGRES_PIPELINE_SYNC;
	PQclear(sync);
	return synced && PQexitPipelineMode(p->conn->pg) ? WAITED_READY : WAITED_BROKEN;
}

void dbha__flush_run(struct conn *conn, struct flush *flush, int64_t deadline, struct attempt *attempt)
{
	struct pipeline p = {.conn = conn, .flush = flush, .attempt = attempt, .deadline = deadline};
	unsigned hints = 0;
	dbha__wait_begin(conn);
	dbha__attempt_begin(attempt);
	flush->mark_refused = false;
	flush->unprepared = false;
	if (!PQenterPipelineMode(conn->pg)) {
		dbha__attempt_not_sent(conn, attempt);
		return;
	}
	if (!send_all(&p, &hints)) {
		/* Half a pipeline has no way back; none of it has been committed. */
		dbha__attempt_not_sent(conn, attempt);
		dbha__conn_cut(conn);
		return;
	}
	enum waited waited = collect(&p);
	if (waited == WAITED_TIMEOUT)
		dbha__attempt_timed_out(attempt);
	else if (waited == WAITED_BROKEN && PQstatus(conn->pg) == CONNECTION_OK)
		dbha__attempt_lost(conn, attempt);
	else
		dbha__attempt_judge(conn, attempt);
	if (conn->late)
		dbha__attempt_judge_late(conn, attempt);
	dbha__attempt_note_use(conn, flush->request, hints, attempt);
}
