#include "pipe.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "dbha_build.h"
#include "sessionstate.h"

/* The answers to one item, in this order. */
enum part {
	PART_PREPARE = 1,
	PART_MAIN = 2,
	PART_MARK_PREPARE = 4, /* of the question for the mark */
	PART_MARK = 8,
	PART_ROW = 16,   /* what its commit brings along: only its failure matters */
	PART_OWN = 32,   /* a command of ours: likewise */
	PART_EVICT = 64, /* of a statement that the cache has let go: not even that */
	PART_SYNC = 128,
};

/* From the parts of a statement to those of the question behind it. */
#define MARK_SHIFT 2

#define SIZE_FIRST 16
/* A Sync follows the last NULL directly; more of them means that we have lost our place. */
#define EMPTY_MAX  3

bool dbha__pipe_begin(struct pipe *p, struct conn *conn)
{
	memset(p, 0, sizeof *p);
	dbha__attempt_begin(&p->head);
	p->items = calloc(SIZE_FIRST, sizeof *p->items);
	if (!p->items || !PQenterPipelineMode(conn->pg)) {
		free(p->items);
		p->items = NULL;
		return false;
	}
	p->size = SIZE_FIRST;
	p->conn = conn;
	return true;
}

bool dbha__pipe_end(struct pipe *p)
{
	bool good = !p->broken && !p->dead && p->n == 0 && !p->unsent && PQexitPipelineMode(p->conn->pg);
	PQclear(p->head.result);
	free(p->evicted);
	free(p->items);
	memset(p, 0, sizeof *p);
	return good;
}

/* ---- sending ----------------------------------------------------------------------------------------------- */

static struct pipe_item *item_at(const struct pipe *p, int i)
{
	return &p->items[(p->first + i) & (p->size - 1)];
}

static bool grow(struct pipe *p)
{
	struct pipe_item *items = calloc((size_t)p->size * 2, sizeof *items);
	if (!items)
		return false;
	for (int i = 0; i < p->n; i++)
		items[i] = *item_at(p, i);
	free(p->items);
	p->items = items;
	p->size *= 2;
	p->first = 0;
	return true;
}

/* NULL: out of memory. */
static struct pipe_item *append(struct pipe *p, void *owner)
{
	if (p->n == p->size && !grow(p))
		return NULL;
	struct pipe_item *item = item_at(p, p->n++);
	*item = (struct pipe_item){.owner = owner, .ours = !owner};
	p->ours += item->ours;
	return item;
}

/* We have lost our place, or cannot go on. What the server has said before, its last word maybe, is still to be read. */
static void break_off(struct pipe *p)
{
	p->dead = true;
	dbha__conn_cut(p->conn);
}

/*
 * Before libpq 17 each Sync is a send() of its own. From the second one of a burst on the kernel is told to hold them together, so that
 * the server does not wake up for each of them. The first one leaves at once: most often there is no other, and where there
 * is, the server may as well begin. On a Unix socket there is no such thing.
 */
static void cork(struct pipe *p)
{
#ifndef HAVE_PQSENDPIPELINESYNC
	int on = 1;
	if (p->syncs > 0 && !p->corked && setsockopt(p->conn->guard_fd, IPPROTO_TCP, TCP_CORK, &on, sizeof on) == 0)
		p->corked = true;
#else
	(void)p;
#endif
}

static bool send_sync(struct pipe *p)
{
#ifdef HAVE_PQSENDPIPELINESYNC
	return PQsendPipelineSync(p->conn->pg);
#else
	return PQpipelineSync(p->conn->pg);
#endif
}

static bool send_unnamed(const struct pipe *p, const dbha_request *rq)
{
	return PQsendQueryParams(p->conn->pg, rq->sql, rq->n_params, rq->types, rq->values, rq->lengths, rq->formats,
	                         rq->result_format);
}

/* Behind the next Sync, and with one of its own: where the server has lost it already, that is nobody's error. No memory: it stays there. */
static void evict_later(struct pipe *p, const char *name)
{
	if (p->n_evicted == p->evicted_size) {
		int size = p->evicted_size ? 2 * p->evicted_size : 4;
		char(*evicted)[STMT_NAME_MAX] = realloc(p->evicted, (size_t)size * sizeof *evicted);
		if (!evicted)
			return;
		p->evicted = evicted;
		p->evicted_size = size;
	}
	snprintf(p->evicted[p->n_evicted++], STMT_NAME_MAX, "%s", name);
}

/*
 * By way of the cache, which is told at once that the statement is prepared: the next with its text is sent before the answer is here.
 * Where the server refuses the preparation, those behind find the name gone, and are mended.
 */
static unsigned send_cached(struct pipe *p, const dbha_request *rq, unsigned how, char name[STMT_NAME_MAX],
                            unsigned *hints)
{
	PGconn *pg = p->conn->pg;
	struct stmt stmt;
	unsigned parts = 0;
	dbha__stmtcache_use(p->conn->statements, rq->sql, rq->n_params, rq->types, &stmt);
	*hints = stmt.hints;
	if (stmt.evicted[0])
		evict_later(p, stmt.evicted);
	if (stmt.advice == STMT_ONCE && how & PIPE_RETURNS)
		dbha__stmtcache_use(p->conn->statements, rq->sql, rq->n_params, rq->types, &stmt);
	if (stmt.advice == STMT_ONCE) {
		parts = send_unnamed(p, rq) ? PART_MAIN : 0;
	} else {
		dbha__conn_first_line(name, STMT_NAME_MAX, stmt.name);
		if (stmt.advice == STMT_PREPARE && PQsendPrepare(pg, stmt.name, rq->sql, rq->n_params, rq->types)) {
			parts |= PART_PREPARE;
			dbha__stmtcache_prepared(p->conn->statements, name);
		}
		bool named = stmt.advice == STMT_PREPARED || parts & PART_PREPARE;
		if (named &&
		    PQsendQueryPrepared(pg, name, rq->n_params, rq->values, rq->lengths, rq->formats, rq->result_format))
			parts |= PART_MAIN;
	}
	return parts;
}

/* What of a statement was sent. how: as for dbha__pipe_send. */
static unsigned send_statement(struct pipe *p, const dbha_request *rq, unsigned how, char name[STMT_NAME_MAX],
                               unsigned *hints)
{
	const struct conn *conn = p->conn;
	if (!(how & PIPE_UNPREPARED) && conn->statements && conn->direct && !(rq->flags & DBHA_UNPREPARED))
		return send_cached(p, rq, how, name, hints);
	*hints = dbha__sessionstate_hints(rq->sql);
	return send_unnamed(p, rq) ? PART_MAIN : 0;
}

/* Whatever of an item was sent is closed by its Sync. Without one the pipe has no way on. */
static void close_item(struct pipe *p, struct pipe_item *item)
{
	item->parts |= PART_SYNC;
	p->open = 0;
	cork(p);
	if (!send_sync(p))
		break_off(p);
	p->unsent = true;
	p->syncs++;
}

/* The last item, of which nothing was sent. */
static void take_back(struct pipe *p)
{
	p->n--;
	p->ours -= item_at(p, p->n)->ours;
}

/* A command that belongs to nobody. */
static bool send_own(struct pipe *p, const char *sql, enum part part)
{
	struct pipe_item *item = append(p, NULL);
	if (item && PQsendQueryParams(p->conn->pg, sql, 0, NULL, NULL, NULL, NULL, 0)) {
		item->parts = part;
		close_item(p, item);
		return true;
	}
	if (item)
		take_back(p);
	return false;
}

static void send_evictions(struct pipe *p)
{
	char sql[64];
	for (int i = 0; i < p->n_evicted; i++) {
		snprintf(sql, sizeof sql, "DEALLOCATE %s", p->evicted[i]);
		send_own(p, sql, PART_EVICT);
	}
	p->n_evicted = 0;
}

bool dbha__pipe_send(struct pipe *p, const dbha_request *rq, unsigned how, void *owner, struct attempt *refused)
{
	struct conn *conn = p->conn;
	struct pipe_item *item = append(p, owner);
	dbha__attempt_begin(refused);
	if (!item) {
		refused->end = ATTEMPT_NOT_SENT;
		snprintf(refused->message, sizeof refused->message, "out of memory");
		return false;
	}
	item->question = how & PIPE_QUESTION;
	cork(p);
	item->parts = send_statement(p, rq, how, item->name, &item->hints);
	item->guard = how & PIPE_GUARD;
	if (item->guard)
		item->hints = 0;
	bool sent = item->parts & PART_MAIN;
	if (!sent) {
		dbha__attempt_not_sent(conn, refused);
		item->owner = NULL;
		p->dead = p->dead || refused->end == ATTEMPT_NOT_SENT;
	}
	p->unsent = p->unsent || sent;
	p->burst += sent && owner;
	item->held = sent && how & PIPE_HELD;
	if (item->held)
		item->parts |= PART_SYNC;
	else if (sent && how & PIPE_OPEN)
		p->open++;
	else if (item->parts && how & PIPE_OPEN)
		break_off(p); /* a Sync would end the transaction of those before it without this one */
	else if (item->parts)
		close_item(p, item);
	else
		take_back(p);
	if (p->n_evicted && p->open == 0 && !item->held)
		send_evictions(p);
	return sent;
}

void dbha__pipe_hold(struct pipe *p, struct pipe_hold *hold, unsigned how)
{
	const dbha_request question = {.size = sizeof question, .sql = dbha__mark_sql()};
	struct pipe_item *item = item_at(p, p->n - 1);
	unsigned hints, parts = how & PIPE_ASK ? send_statement(p, &question, how, hold->name, &hints) : 0;
	item->hold = hold;
	item->parts |= parts << MARK_SHIFT;
	if ((how & PIPE_ASK && !(parts & PART_MAIN)) || !PQsendFlushRequest(p->conn->pg))
		break_off(p);
	p->unsent = true;
	p->burst++;
}

bool dbha__pipe_holds(const struct pipe *p)
{
	return p->n > 0 && item_at(p, p->n - 1)->held;
}

bool dbha__pipe_awaits(const struct pipe *p)
{
	return p->n > 0 && item_at(p, 0)->held && item_at(p, 0)->parts == PART_SYNC;
}

void dbha__pipe_commit(struct pipe *p, const dbha_request *row)
{
	struct pipe_item *item = item_at(p, 0);
	struct pipe_hold *hold = item->hold;
	bool done = p->head.end == ATTEMPT_OK;
	if (done && row && !send_unnamed(p, row)) {
		break_off(p);
		return;
	}
	item->held = false;
	if (done) {
		item->parts |= row ? PART_ROW : 0;
		/* An answer that is lost takes what the head has with it. */
		hold->result = p->head.result;
		p->head.result = NULL;
		hold->committing = true;
	}
	close_item(p, item);
	send_evictions(p);
}

bool dbha__pipe_guard(struct pipe *p, unsigned how)
{
	/* It ends with its transaction, and cannot be taken back in it: by then there is a snapshot. */
	static const dbha_request guard = DBHA_REQUEST(.sql = "SELECT pg_catalog.current_setting('transaction_isolation'), "
	                                                      "pg_catalog.set_config('transaction_read_only', 'on', true)");
	struct attempt unsent;
	if (!dbha__pipe_send(p, &guard, how | PIPE_GUARD, NULL, &unsent))
		return false;
	if (p->conn->sharing == SHARING_UNKNOWN)
		p->conn->sharing = SHARING_ASKED;
	return true;
}

void dbha__pipe_sync(struct pipe *p)
{
	struct pipe_item *item = p->open ? append(p, NULL) : NULL;
	if (item)
		close_item(p, item);
	else if (p->open)
		break_off(p);
	if (p->n_evicted)
		send_evictions(p);
}

void dbha__pipe_ask_answers(struct pipe *p)
{
	if (!PQsendFlushRequest(p->conn->pg))
		break_off(p);
	p->unsent = true;
}

void dbha__pipe_break(struct pipe *p)
{
	break_off(p);
	p->open = 0;
}

void dbha__pipe_say(struct pipe *p, const char *sql)
{
	if (!send_own(p, sql, PART_OWN))
		break_off(p);
}

void dbha__pipe_push(struct pipe *p)
{
	int off = 0;
	if (p->corked)
		setsockopt(p->conn->guard_fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off);
	p->corked = false;
	p->burst = p->syncs = 0;
	if (!p->unsent)
		return;
	/* An end that it meets shows where the answers are taken in. */
	p->unsent = PQflush(p->conn->pg) > 0;
}

/* ---- hearing ----------------------------------------------------------------------------------------------- */

bool dbha__pipe_has_news(const struct pipe *p)
{
	return p->n > 0 && !PQisBusy(p->conn->pg);
}

void dbha__pipe_hear(struct pipe *p)
{
	if (dbha__pipe_has_news(p))
		return;
	/* That it failed shows in its status, behind what can still be read. */
	PQconsumeInput(p->conn->pg);
}

/* One that was passed over because another had failed is not prepared either. */
static void take_prepared(struct pipe *p, const struct pipe_item *item, PGresult *result, bool failed)
{
	if (failed || PQresultStatus(result) == PGRES_PIPELINE_ABORTED)
		dbha__stmtcache_refused(p->conn->statements, item->name);
	if (failed)
		dbha__attempt_take(&p->head, result);
	else
		PQclear(result);
}

/* Whether it was the server who will not answer this question, see flush. */
static bool refuses(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	return sqlstate && strncmp(sqlstate, "42", 2) == 0;
}

/* The first error is the one that counts: the question is passed over behind one of the statement. */
static void take_mark(struct pipe *p, struct pipe_hold *hold, unsigned part, PGresult *result, bool failed)
{
	ExecStatusType status = PQresultStatus(result);
	bool ours = failed && p->head.end == ATTEMPT_OK;
	bool mended = ours && part == PART_MARK && hold->name[0] && dbha__attempt_mend_cache(p->conn, result, hold->name);
	p->mended = p->mended || mended;
	if (part == PART_MARK_PREPARE && (failed || status == PGRES_PIPELINE_ABORTED))
		dbha__stmtcache_refused(p->conn->statements, hold->name);
	if (part == PART_MARK && status == PGRES_TUPLES_OK)
		hold->mark_refused = !dbha__mark_read(result, &hold->mark) && dbha__mark_is_there(result);
	else if (ours && !mended && refuses(result))
		hold->mark_refused = true;
	if (ours)
		dbha__attempt_take(&p->head, result);
	else
		PQclear(result);
}

static void take_guard(struct conn *conn, const PGresult *result)
{
	const char *isolation = PQgetvalue(result, 0, 0);
	bool shares = strcmp(isolation, "read committed") == 0 || strcmp(isolation, "read uncommitted") == 0;
	conn->sharing = shares ? SHARING_YES : SHARING_NO;
}

/* One result of the oldest item. An error that comes for its Sync is of its commit, or the last word of the connection. */
static void take(struct pipe *p, const struct pipe_item *item, unsigned part, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);
	bool failed = status == PGRES_FATAL_ERROR || status == PGRES_BAD_RESPONSE;
	bool mended = part == PART_MAIN && failed && item->name[0] && dbha__attempt_mend_cache(p->conn, result, item->name);
	p->mended = p->mended || mended;
	if (part & (PART_MARK_PREPARE | PART_MARK) && item->hold) {
		take_mark(p, item->hold, part, result, failed);
		return;
	}
	/* The session is not as it should be. */
	if (part == PART_OWN && failed)
		p->conn->doubtful = true;
	if (item->guard && status == PGRES_TUPLES_OK)
		take_guard(p->conn, result);
	p->aborted = p->aborted || (part == PART_MAIN && status == PGRES_PIPELINE_ABORTED && p->head.end == ATTEMPT_OK);
	if (part == PART_PREPARE)
		take_prepared(p, item, result, failed);
	else if ((failed && part != PART_EVICT) || (part == PART_MAIN && status != PGRES_PIPELINE_ABORTED))
		dbha__attempt_take(&p->head, result);
	else
		PQclear(result);
}

static unsigned lowest(unsigned parts)
{
	return parts & ~(parts - 1);
}

/* Hands the oldest item out. */
static void hand_out(struct pipe *p, struct pipe_answer *answer)
{
	static const dbha_request plain = {.size = sizeof plain};
	struct pipe_item *item = item_at(p, 0);
	answer->owner = item->owner;
	answer->question = item->question;
	answer->attempt = p->head;
	answer->mended = p->mended && p->head.end == ATTEMPT_ERROR;
	answer->aborted = p->aborted && p->head.end == ATTEMPT_NOT_SENT;
	answer->unreplicated = p->conn->unreplicated;
	p->conn->unreplicated = false;
	if (item->hints || p->head.result)
		dbha__attempt_note_use(p->conn, &plain, item->hints, &p->head);
	p->first = (p->first + 1) & (p->size - 1);
	p->n--;
	p->ours -= item->ours;
	p->mended = p->aborted = false;
	p->empty = 0;
	dbha__attempt_begin(&p->head);
}

/*
 * What ends the connection ends an item with a Sync there, where the end of the connection shows. One that shares the Sync of others has
 * only the word for it.
 */
static void take_last_word(struct pipe *p, const struct pipe_item *item)
{
	const char *severity = PQresultErrorField(p->head.result, PG_DIAG_SEVERITY_NONLOCALIZED);
	if (p->head.end != ATTEMPT_ERROR || item->parts & PART_SYNC || !severity || strcmp(severity, "ERROR") == 0)
		return;
	p->head.end = ATTEMPT_FATAL;
	p->broken = p->last_word = true;
}

/* The oldest item has come to its end. */
static void finish(struct pipe *p, struct pipe_answer *answer)
{
	const struct pipe_item *item = item_at(p, 0);
	if (item->hold && p->head.end == ATTEMPT_OK) {
		p->head.result = item->hold->result;
		item->hold->result = NULL;
	}
	bool empty = !p->head.result && p->head.end == ATTEMPT_OK;
	if (empty && p->aborted) {
		p->head.end = ATTEMPT_NOT_SENT;
		snprintf(p->head.message, sizeof p->head.message, "another of its transaction had failed before it");
	} else if (!empty || item->owner) {
		dbha__attempt_judge(p->conn, &p->head);
		take_last_word(p, item);
	}
	hand_out(p, answer);
}

/*
 * The connection has ended. The server works its way through what it was sent: where its last word was to the oldest item, or to none
 * of them, those behind were not begun. Without a word nobody knows how far it has come.
 */
static void fail_head(struct pipe *p, struct pipe_answer *answer)
{
	const char *message = PQerrorMessage(p->conn->pg);
	if (p->refused) {
		p->refused = false;
	} else if (p->last_word || (p->aborted && p->head.end == ATTEMPT_OK)) {
		p->head.end = ATTEMPT_NOT_SENT;
		snprintf(p->head.message, sizeof p->head.message, "the server had closed the connection before it began");
	} else if (p->head.end == ATTEMPT_OK && !p->head.result) {
		p->head.end = ATTEMPT_LOST;
		dbha__conn_first_line(p->head.message, sizeof p->head.message, *message ? message : "the connection was cut");
	} else if (PQstatus(p->conn->pg) == CONNECTION_OK) {
		dbha__attempt_lost(p->conn, &p->head);
	} else {
		dbha__attempt_judge(p->conn, &p->head);
		p->last_word = p->head.end == ATTEMPT_FATAL;
	}
	hand_out(p, answer);
}

/* libpq's own word for the end of a connection has no SQLSTATE. */
static bool is_end(const struct pipe *p, const PGresult *result)
{
	return PQstatus(p->conn->pg) != CONNECTION_OK && PQresultStatus(result) == PGRES_FATAL_ERROR &&
	       !PQresultErrorField(result, PG_DIAG_SQLSTATE);
}

/* One step of the oldest item. True: it is over. */
static bool follow(struct pipe *p)
{
	struct pipe_item *item = item_at(p, 0);
	unsigned part = lowest(item->parts);
	PGresult *result = PQgetResult(p->conn->pg);
	if (!result) {
		if (part != PART_SYNC)
			item->parts &= ~part;
		else
			p->broken = ++p->empty > EMPTY_MAX;
		return item->parts == 0;
	}
	p->empty = 0;
	if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
		PQclear(result);
		p->broken = part != PART_SYNC;
		return part == PART_SYNC;
	}
	if (dbha__attempt_is_copy(result)) {
		dbha__attempt_refuse_copy(p->conn, &p->head, result);
		p->broken = p->refused = true;
		return false;
	}
	p->broken = p->broken || is_end(p, result);
	take(p, item, part, result);
	return false;
}

bool dbha__pipe_next(struct pipe *p, struct pipe_answer *answer)
{
	while (p->n > 0 && !p->broken) {
		if (dbha__pipe_awaits(p)) {
			if (PQstatus(p->conn->pg) == CONNECTION_OK)
				return false;
			break;
		}
		if (PQisBusy(p->conn->pg))
			return false;
		if (follow(p)) {
			finish(p, answer);
			return true;
		}
	}
	if (PQstatus(p->conn->pg) != CONNECTION_OK)
		p->broken = true;
	if (p->n == 0)
		return false;
	fail_head(p, answer);
	return true;
}

int dbha__pipe_front(const struct pipe *p)
{
	int n = 0;
	while (n < p->n && !(item_at(p, n)->parts & PART_SYNC))
		n++;
	return n < p->n ? n + 1 : n;
}

void *dbha__pipe_owner(const struct pipe *p, int i)
{
	return i < p->n && !item_at(p, i)->question ? item_at(p, i)->owner : NULL;
}

void dbha__pipe_disown(struct pipe *p, const void *owner)
{
	for (int i = 0; i < p->n; i++) {
		struct pipe_item *item = item_at(p, i);
		if (item->owner != owner)
			continue;
		item->owner = NULL;
		item->hold = NULL;
		if (item->held)
			break_off(p);
	}
}

bool dbha__pipe_has_owner(const struct pipe *p)
{
	for (int i = 0; i < p->n; i++)
		if (item_at(p, i)->owner)
			return true;
	return false;
}
