/*
 * engine_place: where a request of an engine is: ready, parked, over; and the moves between them. Only the step calls these.
 */
#include <stdlib.h>

#include "clock.h"
#include "engine.h"

static struct ready *ready_of(dbha_engine *e, const struct request *request)
{
	return &e->ready[request->alone ? 2 : request->call.intent != DBHA_READ];
}

void dbha__engine_make_ready(dbha_engine *e, struct request *request, bool first)
{
	struct call *call = &request->call;
	int64_t limit = ms_to_us(e->h->config.options.pool_timeout_ms);
	request->pool_deadline = limit && e->now + limit < call->deadline ? e->now + limit : call->deadline;
	const struct memo *memo = dbha__memo_of(e, request);
	request->soils = memo->soils;
	request->alone = memo->soils || memo->slow || request->bundle;
	request->quick = memo->quick && !memo->slow && !memo->no_read && !memo->may_set;
	request->state = REQUEST_READY;
	dbha__ready_add(ready_of(e, request), request, first);
	dbha__alarm_set(e, request, request->pool_deadline);
}

void dbha__engine_park(dbha_engine *e, struct request *request, int64_t until)
{
	request->state = REQUEST_PARKED;
	request->due_us = until;
	dbha__request_append(&e->parked, request);
	dbha__alarm_set(e, request, until < request->call.deadline ? until : request->call.deadline);
}

/* Out of the queue it stands in. */
void dbha__engine_take_out(dbha_engine *e, struct request *request)
{
	if (request->state == REQUEST_READY)
		dbha__ready_remove(ready_of(e, request), request);
	else if (request->state == REQUEST_PARKED)
		dbha__request_remove(&e->parked, request);
	else if (request->state == REQUEST_PLACING)
		dbha__request_remove(&request->lane->placing, request);
}

/* Of one that is in no queue any more. err: with a code other than DBHA_OK. */
void dbha__engine_complete(dbha_engine *e, struct request *request, int code, const dbha_error *err)
{
	dbha__alarm_remove(e, request);
	/* It counts again, as one that nobody has fetched; what was not sent does so still. */
	if (request->state == REQUEST_SENT || request->state == REQUEST_PLACING || request->state == REQUEST_RESOLVING)
		atomic_fetch_add(&e->waiting, 1);
	request->state = REQUEST_OVER;
	request->code = code;
	if (code != DBHA_OK) {
		request->retry_safe = err->retry_safe;
		request->outcome_unknown = err->outcome_unknown;
		request->error = malloc(sizeof *err);
		if (request->error)
			*request->error = *err;
	}
	dbha__request_append(&e->over, request);
}

/* One that ends without an attempt that could be judged: earlier ones may have been made. */
void dbha__engine_fail_unsent(dbha_engine *e, struct request *request, dbha_error *err)
{
	err->retry_safe = !request->call.maybe_done;
	err->outcome_unknown = request->call.maybe_done;
	err->attempts = request->call.sent;
	dbha__engine_take_out(e, request);
	dbha__engine_complete(e, request, err->code, err);
}
