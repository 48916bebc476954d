/*
 * engine_fresh: how fresh the requests of an engine are (docs/consistency.md), in the manner of an engine, which waits for nothing.
 *
 * Before a read whose standby is not known to have replayed what it has to see, the standby is asked, as flush.c does it: in the same
 * transaction, or with a Sync of its own. What a connection has answered is remembered with it: a server in recovery does not go back while a
 * connection to it lives. So most reads need no question.
 *
 * Behind a burst with requests that are to have a token, one question serves them all: what it says is of a time after each of their
 * commits, since one connection executes in order. They are done by then, and whatever becomes of the question does not touch that.
 */
#include <stdlib.h>
#include <string.h>

#include "catalog.h"
#include "clock.h"
#include "consistency.h"
#include "engine.h"
#include "error.h"
#include "position.h"
#include "routing.h"

bool dbha__fresh_concerns(const struct request *request)
{
	return request->call.guard || request->rq.flags & DBHA_TOKEN;
}

/* ---- before a read --------------------------------------------------------------------------------------------- */

/* What must not be executed for nothing, or is much, and what was thrown away once already. */
static bool asks_first(const struct request *request)
{
	const struct call *call = &request->call;
	return call->guard && (request->bundle || call->intent != DBHA_READ || call->behind_us);
}

void dbha__fresh_meet(const struct lane *lane, struct request *request)
{
	struct call *call = &request->call;
	/* A token knows of no particular standby (DBHA_REASON_SAME), so that this is no reason to look for another. */
	dbha__call_is_of_known_life(call, lane->slot);
	if (call->guard && lane->slot->conn->direct && lane->replayed >= call->floor.lsn) {
		call->guard = false;
		call->reason = DBHA_REASON_REPLAYED;
	}
	/* What was said before it was sent the last time says nothing any more. */
	request->guard = GUARD_NONE;
	request->asks_first = asks_first(request);
}

static bool ask(struct lane *lane, const char *sql, unsigned how, void *owner)
{
	struct attempt unwanted;
	const dbha_request question = {.size = sizeof question, .sql = sql};
	return dbha__pipe_send(&lane->pipe, &question, how | PIPE_QUESTION, owner, &unwanted);
}

static bool send_it(struct lane *lane, struct request *request, unsigned how, struct attempt *refused)
{
	bool sent = dbha__pipe_send(&lane->pipe, &request->rq, how, request, refused);
	/* The question before it has no owner any more. */
	if (!sent)
		dbha__pipe_disown(&lane->pipe, request);
	lane->unplaced += sent && request->rq.flags & DBHA_TOKEN;
	return sent;
}

bool dbha__fresh_send(struct lane *lane, struct request *request, unsigned how, struct attempt *refused)
{
	struct call *call = &request->call;
	struct conn *conn = lane->slot->conn;
	/* Nothing else may be in its transaction. */
	dbha__pipe_sync(&lane->pipe);
	if (!call->guard)
		return send_it(lane, request, how, refused);
	STATS_ADD(&call->h->stats[call->last_node], guards, 1);
	request->guard = GUARD_SENT;
	request->guard_apart = request->asks_first || request->soils || conn->guards_apart;
	unsigned question = (how & PIPE_UNPREPARED) | (request->guard_apart ? 0 : PIPE_OPEN);
	if (!ask(lane, dbha__replayed_sql(), question, request)) {
		dbha__attempt_begin(refused);
		dbha__attempt_not_sent(conn, refused);
		return false;
	}
	return request->asks_first || send_it(lane, request, how, refused);
}

bool dbha__fresh_send_asked(struct lane *lane, struct request *request, struct attempt *refused)
{
	unsigned how = request->unprepared || request->soils ? PIPE_UNPREPARED : 0;
	request->asks_first = false;
	if (request->bundle) {
		dbha__bundle_begin(lane, request);
		return true;
	}
	dbha__pipe_sync(&lane->pipe);
	return send_it(lane, request, how, refused);
}

/* Nothing is wrong with the server: what was prepared was gone, or a cancel request has hit the question. */
static bool is_chance(const struct lane *lane, const struct request *request, const struct pipe_answer *answer)
{
	return (answer->mended && !request->unprepared) ||
	       (lane->canceled && answer->attempt.end == ATTEMPT_ERROR && strcmp(answer->attempt.sqlstate, "57014") == 0);
}

void dbha__fresh_take_guard(struct lane *lane, struct request *request, const struct pipe_answer *answer)
{
	struct conn *conn = lane->slot->conn;
	if (answer->attempt.end == ATTEMPT_ERROR) {
		request->guard = is_chance(lane, request, answer) ? GUARD_AGAIN : GUARD_BEHIND;
		request->unprepared = request->unprepared || answer->mended;
		return;
	}
	if (answer->attempt.end != ATTEMPT_OK)
		return;
	bool keeps_snapshot;
	uint64_t lsn = dbha__replayed_read(answer->attempt.result, &keeps_snapshot);
	lane->replayed = lsn > lane->replayed ? lsn : lane->replayed;
	request->guard = lsn >= request->call.floor.lsn ? GUARD_HAS : GUARD_BEHIND;
	/* The read behind it uses the snapshot of the question, which is older than its answer. */
	if (!keeps_snapshot || request->guard_apart)
		return;
	conn->guards_apart = true;
	request->guard = request->guard == GUARD_HAS ? GUARD_AGAIN : GUARD_BEHIND;
}

bool dbha__fresh_is_void(const struct request *request, const struct pipe_answer *answer)
{
	if (request->guard == GUARD_NONE || request->guard == GUARD_HAS)
		return false;
	return answer->attempt.end == ATTEMPT_OK || answer->attempt.end == ATTEMPT_ERROR || answer->aborted;
}

/* ---- behind a burst -------------------------------------------------------------------------------------------- */

void dbha__fresh_ask(struct lane *lane)
{
	/* Behind the commit, where that is held back. */
	if (lane->state != LANE_OPEN || !lane->unplaced || dbha__pipe_holds(&lane->pipe))
		return;
	lane->unplaced = 0;
	if (lane->pipe.broken || lane->pipe.dead)
		return;
	dbha__pipe_sync(&lane->pipe);
	lane->asked += ask(lane, dbha__seen_sql(), 0, lane);
}

void dbha__fresh_place(dbha_engine *e, struct lane *lane, const struct pipe_answer *answer)
{
	struct seen_position seen = {.told = false};
	lane->asked--;
	if (answer->attempt.end == ATTEMPT_OK)
		dbha__seen_read(answer->attempt.result, &seen);
	if (seen.told && seen.replayed && seen.at.lsn > lane->replayed)
		lane->replayed = seen.at.lsn;
	for (struct request *request = lane->placing.first; request; request = request->next)
		request->no_token = dbha__consistency_tell(e->h, &request->causal, &seen);
}

void dbha__fresh_give_up(struct request *request)
{
	const struct seen_position none = {.told = false};
	request->no_token = dbha__consistency_tell(request->call.h, &request->causal, &none);
}

/* ---- routing=auto ---------------------------------------------------------------------------------------------- */

struct request *dbha__fresh_fetch_new(dbha_engine *e)
{
	struct catalog_question question;
	struct request *request = NULL;
	dbha_error unwanted;
	int64_t now = dbha__clock_now();
	if (dbha__routing_ask(e->h, &question)) {
		request = dbha__request_new(e, &question.request, 0, &unwanted);
		dbha__book_patterns_fini(&question.patterns);
	}
	struct fetch *fetch = request ? malloc(sizeof *fetch) : NULL;
	if (!fetch) {
		dbha__request_free(e, request);
		dbha__routing_put(e->h, NULL, &CLASSIFY_LIMITS, now, "out of memory");
		return NULL;
	}
	*fetch = (struct fetch){.limits = CLASSIFY_LIMITS, .began_us = now};
	request->fetch = fetch;
	return request;
}

void dbha__fresh_fetched(struct request *request, const struct lane *lane)
{
	if (request->fetch)
		dbha__catalog_settings(lane->slot->conn->pg, &request->fetch->limits);
}

void dbha__fresh_fetch_end(dbha_engine *e, struct request *request)
{
	const struct fetch *fetch = request->fetch;
	struct function_book *names = request->code == DBHA_OK ? dbha__catalog_read(request->result) : NULL;
	const char *trouble = request->error ? request->error->message : "its answer makes no sense, or it was given up";
	dbha__routing_put(e->h, names, &fetch->limits, fetch->began_us, trouble);
	dbha__request_free(e, request);
}
