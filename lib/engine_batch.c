/*
 * engine_batch: a batch of an engine: n statements that are one request and one transaction. It has its lane to itself. Step by step libpq is given
 * as much of it as leaves at once, so that it holds up no other lane and takes no more memory than it has to; meanwhile answers are read, so that
 * the server never waits for us.
 *
 * As in volley.c, one that leaves in one burst has its Sync, which is the commit, behind it; of a longer one the Sync is sent when all is
 * answered: what is lost before was certainly not done.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "batch.h"
#include "engine.h"

/* What is given to libpq in one step: about what it sends at once. See volley.c. */
#define CHUNK_BYTES 65536
#define CHUNK       128

void dbha__bundle_clear(struct bundle *b)
{
	for (int i = 0; b->results && i < b->n; i++) {
		PQclear(b->results[i]);
		b->results[i] = NULL;
	}
	PQclear(b->end.result);
	dbha__attempt_begin(&b->end);
}

void dbha__bundle_free(struct request *request)
{
	struct bundle *b = request->bundle;
	if (!b)
		return;
	dbha__bundle_clear(b);
	free(b->results);
	b->results = NULL;
}

void dbha__bundle_begin(struct lane *lane, struct request *request)
{
	struct bundle *b = request->bundle;
	dbha__bundle_clear(b);
	b->next = b->out = 0;
	b->culprit = -1;
	b->is_long = b->asked = b->synced = b->committing = b->over = b->unreplicated = b->mended = false;
	lane->bundle = request;
}

bool dbha__bundle_is_committing(const struct request *request)
{
	return request->bundle && request->bundle->committing;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

/* The first failure is that of the transaction. It is told of the statement, unless it is the connection's. */
static void fail(struct request *request, int index, const struct attempt *attempt)
{
	struct bundle *b = request->bundle;
	b->end = *attempt;
	/* Where it is not the end of the transaction that failed, this end cannot have come. */
	b->end.answered = index < 0;
	b->culprit = attempt->end == ATTEMPT_ERROR ? index : -1;
	if (b->culprit < 0)
		return;
	snprintf(b->end.message, sizeof b->end.message, "requests[%d]: %.220s", index, attempt->message);
	request->rq.sql = b->requests[index].sql;
}

static size_t size_of(const dbha_request *rq)
{
	size_t size = 64;
	for (int i = 0; i < rq->n_params; i++) {
		bool binary = rq->formats && rq->formats[i] == 1;
		if (rq->values[i])
			size += binary ? (size_t)rq->lengths[i] : strlen(rq->values[i]);
	}
	return size;
}

static bool send_one(struct lane *lane, int i)
{
	struct request *request = lane->bundle;
	const struct bundle *b = request->bundle;
	struct attempt refused;
	bool unprepared = request->unprepared || request->rq.flags & DBHA_UNPREPARED;
	bool returns = i + 1 < b->n && b->requests[i].sql == b->requests[i + 1].sql;
	unsigned how = PIPE_OPEN | (unprepared ? PIPE_UNPREPARED : 0u) | (returns ? PIPE_RETURNS : 0u);
	if (dbha__pipe_send(&lane->pipe, &b->requests[i], how, request, &refused))
		return true;
	dbha__pipe_break(&lane->pipe);
	fail(request, i, &refused);
	return false;
}

static void send_sync(struct lane *lane)
{
	struct bundle *b = lane->bundle->bundle;
	b->synced = true;
	b->committing = b->end.end == ATTEMPT_OK;
	dbha__pipe_sync(&lane->pipe);
	lane->unplaced += b->committing && lane->bundle->rq.flags & DBHA_TOKEN;
}

/* Behind the last of them. */
static void send_rest(struct lane *lane)
{
	struct bundle *b = lane->bundle->bundle;
	if (!b->is_long || b->out == b->n) {
		send_sync(lane);
	} else if (!b->asked) {
		b->asked = true;
		dbha__pipe_ask_answers(&lane->pipe);
	}
}

static bool is_closed(const struct lane *lane)
{
	const struct bundle *b = lane->bundle ? lane->bundle->bundle : NULL;
	return !b || lane->state != LANE_OPEN || b->synced || lane->pipe.dead || lane->pipe.broken;
}

void dbha__bundle_feed(struct lane *lane)
{
	size_t bytes = 0;
	if (is_closed(lane) || dbha__pipe_has_news(&lane->pipe))
		return;
	struct bundle *b = lane->bundle->bundle;
	if (b->end.end != ATTEMPT_OK) {
		send_sync(lane);
		return;
	}
	/* What cannot leave yet has to, before more is given. */
	if (lane->pipe.unsent && b->next < b->n && b->next > 0)
		return;
	for (int n = 0; n < CHUNK && bytes < CHUNK_BYTES && b->next < b->n; n++) {
		bytes += size_of(&b->requests[b->next]);
		if (!send_one(lane, b->next))
			return;
		b->next++;
	}
	if (b->next < b->n)
		b->is_long = true;
	else
		send_rest(lane);
}

bool dbha__bundle_wants_more(const struct lane *lane)
{
	return !is_closed(lane) && !lane->pipe.unsent && lane->bundle->bundle->next < lane->bundle->bundle->n;
}

/* ---- answers --------------------------------------------------------------------------------------------------- */

static void take_part(struct request *request, struct pipe_answer *answer)
{
	struct bundle *b = request->bundle;
	struct attempt *attempt = &answer->attempt;
	int i = b->out++;
	if (b->end.end != ATTEMPT_OK || answer->aborted) {
		PQclear(attempt->result);
		return;
	}
	/* The last word is counted where it is judged. */
	if (attempt->end == ATTEMPT_OK) {
		b->results[i] = attempt->result;
		if (i > 0)
			dbha__judge_count(&request->call, attempt);
		return;
	}
	b->mended = answer->mended;
	fail(request, i, attempt);
}

/* Its Sync is the first without an owner, behind all that was sent of it. */
static void take_sync(struct request *request, struct pipe_answer *answer)
{
	struct bundle *b = request->bundle;
	b->over = true;
	if (b->end.end == ATTEMPT_OK && answer->attempt.end != ATTEMPT_OK)
		fail(request, -1, &answer->attempt);
	else
		PQclear(answer->attempt.result);
}

bool dbha__bundle_take(struct lane *lane, struct pipe_answer *answer)
{
	struct request *request = lane->bundle;
	if (!request || answer->question)
		return false;
	struct bundle *b = request->bundle;
	bool ends = !answer->owner && b->synced && b->out == b->next;
	if (answer->owner != request && !ends)
		return false;
	b->unreplicated = b->unreplicated || answer->unreplicated;
	if (ends)
		take_sync(request, answer);
	else
		take_part(request, answer);
	return true;
}

bool dbha__bundle_is_over(struct lane *lane)
{
	if (!lane->bundle)
		return false;
	struct bundle *b = lane->bundle->bundle;
	if (b->over)
		return true;
	if (!lane->pipe.broken && !lane->pipe.dead)
		return false;
	/* What has come before the end is still read. */
	if (b->end.end == ATTEMPT_OK && lane->pipe.n > 0)
		return false;
	if (b->end.end == ATTEMPT_OK) {
		dbha__attempt_lost(lane->slot->conn, &b->end);
		if (!b->end.message[0])
			snprintf(b->end.message, sizeof b->end.message, "the connection was cut");
	}
	return true;
}
