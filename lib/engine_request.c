/*
 * engine_request: a request of an engine: its copy, the queues it stands in, its alarm.
 */
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "batch.h"
#include "consistency.h"
#include "engine.h"
#include "error.h"
#include "routing.h"
#include "sessionstate.h"

/* ---- the copy ------------------------------------------------------------------------------------------------- */

/* A piece of the memory behind a request. In the first round, with base NULL, only its size is counted. */
struct packer {
	char *base;
	size_t used;
};

static void *pack(struct packer *p, const void *data, size_t length, size_t alignment)
{
	p->used = (p->used + alignment - 1) & ~(alignment - 1);
	char *to = p->base ? p->base + p->used : NULL;
	p->used += length;
	if (to && length)
		memcpy(to, data, length);
	return to;
}

static size_t length_of(const dbha_request *rq, int i)
{
	bool binary = rq->formats && rq->formats[i] == 1;
	return binary ? (size_t)rq->lengths[i] : strlen(rq->values[i]) + 1;
}

static void pack_values(struct packer *p, const dbha_request *rq, dbha_request *copy)
{
	size_t n = (size_t)rq->n_params;
	const char **values = pack(p, rq->values, n * sizeof *values, _Alignof(char *));
	for (int i = 0; i < rq->n_params; i++) {
		if (!rq->values[i])
			continue;
		const char *value = pack(p, rq->values[i], length_of(rq, i), 1);
		if (values)
			values[i] = value;
	}
	copy->values = values;
}

static void pack_parameters(struct packer *p, const dbha_request *rq, dbha_request *copy)
{
	size_t n = (size_t)rq->n_params;
	*copy = *rq;
	if (n > 0)
		pack_values(p, rq, copy);
	if (n > 0 && rq->types)
		copy->types = pack(p, rq->types, n * sizeof *rq->types, _Alignof(unsigned));
	if (n > 0 && rq->lengths)
		copy->lengths = pack(p, rq->lengths, n * sizeof *rq->lengths, _Alignof(int));
	if (n > 0 && rq->formats)
		copy->formats = pack(p, rq->formats, n * sizeof *rq->formats, _Alignof(int));
	copy->token = NULL;
	copy->route = NULL;
}

static void pack_request(struct packer *p, const dbha_request *rq, dbha_request *copy)
{
	pack_parameters(p, rq, copy);
	copy->sql = pack(p, rq->sql, strlen(rq->sql) + 1, 1);
}

/* A text that comes again is there once. */
static struct bundle *pack_batch(struct packer *p, const dbha_batch_request *rq)
{
	const struct bundle begun = {.n = rq->n, .culprit = -1};
	struct bundle *bundle = pack(p, &begun, sizeof begun, _Alignof(struct bundle));
	dbha_request *requests = pack(p, rq->requests, (size_t)rq->n * sizeof *requests, _Alignof(dbha_request));
	const char *sql = NULL;
	if (bundle)
		bundle->requests = requests;
	for (int i = 0; i < rq->n; i++) {
		const dbha_request *one = &rq->requests[i];
		dbha_request unwanted = {0};
		dbha_request *copy = requests ? &requests[i] : &unwanted;
		pack_parameters(p, one, copy);
		if (i == 0 || !dbha__batch_has_text(one, rq->requests[i - 1].sql))
			sql = pack(p, one->sql, strlen(one->sql) + 1, 1);
		copy->sql = sql;
	}
	return bundle;
}

static int read_token(struct request *request, const dbha_request *rq, dbha_error *err)
{
	struct call *call = &request->call;
	if (rq->consistency)
		call->consistency = rq->consistency;
	if (!rq->token || !rq->token[0])
		return DBHA_OK;
	int code = dbha__consistency_token(call->h, "dbha_submit", rq->token, &request->causal, err);
	if (code == DBHA_OK && call->consistency == DBHA_CONSISTENCY_SESSION)
		call->causal = &request->causal;
	return code;
}

/* As dbha__statement_classify, by what is known already. Of a batch `sql` is one of its texts; what it takes is the whole of it. */
static void classify(struct request *request, const char *sql)
{
	struct call *call = &request->call;
	if (call->intent == DBHA_READ && dbha__routing_is_write(call->h, sql)) {
		request->classified = (struct classify_verdict){.is = CLASS_WRITE, .why = WHY_REFUSED_BEFORE};
		call->intent = DBHA_WRITE;
	}
	if (call->intent != DBHA_DEFAULT)
		return;
	bool claimed;
	call->intent = dbha__routing_known(call->h, sql, &request->classified, &claimed);
	request->claimed = request->claimed || claimed;
}

/* A read only where each of them is one. */
static void classify_batch(struct request *request, dbha_intent said)
{
	const struct bundle *b = request->bundle;
	for (int i = 0; i < b->n; i++) {
		if (i > 0 && b->requests[i].sql == b->requests[i - 1].sql)
			continue;
		request->call.intent = said;
		classify(request, b->requests[i].sql);
		if (request->call.intent != DBHA_READ)
			return;
	}
}

static struct request *allocate(dbha_engine *e, size_t size)
{
	bool spare = size <= REQUEST_BLOCK;
	struct request *request = NULL;
	if (spare) {
		dbha__mutex_lock(&e->lock);
		request = e->spares;
		if (request) {
			e->spares = request->next;
			e->n_spares--;
		}
		dbha__mutex_unlock(&e->lock);
	}
	if (!request)
		request = malloc(spare ? REQUEST_BLOCK : size);
	if (!request)
		return NULL;
	memset(request, 0, sizeof *request);
	request->spare = spare;
	return request;
}

static void release(dbha_engine *e, struct request *request)
{
	if (request->spare) {
		dbha__mutex_lock(&e->lock);
		bool kept = e->n_spares < REQUEST_SPARES;
		if (kept) {
			request->next = e->spares;
			e->spares = request;
			e->n_spares++;
		}
		dbha__mutex_unlock(&e->lock);
		if (kept)
			return;
	}
	free(request);
}

void dbha__request_free_spares(dbha_engine *e)
{
	for (struct request *request = e->spares, *next; request; request = next) {
		next = request->next;
		free(request);
	}
	e->spares = NULL;
}

/* rq: borrowed. */
static bool begin(dbha_engine *e, struct request *request, const dbha_request *rq, uint64_t tag, dbha_error *err)
{
	dbha__call_begin(&request->call, e->h, rq->intent, rq->timeout_ms);
	dbha__call_set_deadline(&request->call);
	request->tag = tag;
	request->heap_at = -1;
	return read_token(request, rq, err) == DBHA_OK;
}

struct request *dbha__request_new(dbha_engine *e, const dbha_request *rq, uint64_t tag, dbha_error *err)
{
	struct packer packer = {.base = NULL};
	dbha_request unwanted;
	pack_request(&packer, rq, &unwanted);
	struct request *request = allocate(e, sizeof *request + packer.used);
	if (!request) {
		dbha__no_memory(err);
		return NULL;
	}
	packer = (struct packer){.base = (char *)(request + 1)};
	pack_request(&packer, rq, &request->rq);
	if (!begin(e, request, rq, tag, err)) {
		release(e, request);
		return NULL;
	}
	/* Last: what it claims has to be given back. */
	classify(request, request->rq.sql);
	return request;
}

struct request *dbha__request_new_batch(dbha_engine *e, const dbha_batch_request *rq, uint64_t tag, dbha_error *err)
{
	struct packer packer = {.base = NULL};
	pack_batch(&packer, rq);
	struct request *request = allocate(e, sizeof *request + packer.used);
	PGresult **results = calloc((size_t)rq->n, sizeof(PGresult *));
	if (!request || !results) {
		free(results);
		if (request)
			release(e, request);
		dbha__no_memory(err);
		return NULL;
	}
	packer = (struct packer){.base = (char *)(request + 1)};
	request->bundle = pack_batch(&packer, rq);
	request->bundle->results = results;
	dbha__attempt_begin(&request->bundle->end);
	const dbha_request as_one = dbha__batch_as_one(rq);
	request->rq = as_one;
	request->rq.sql = request->bundle->requests[0].sql;
	request->rq.token = NULL;
	if (!begin(e, request, &as_one, tag, err)) {
		free(results);
		release(e, request);
		return NULL;
	}
	classify_batch(request, rq->intent);
	return request;
}

void dbha__request_free(dbha_engine *e, struct request *request)
{
	if (!request)
		return;
	if (request->refused)
		PQclear(request->refused->attempt.result);
	PQclear(request->result);
	free(request->refused);
	free(request->fetch);
	dbha__bundle_free(request);
	dbha__verify_free(request);
	free(request->error);
	release(e, request);
}

/* ---- alone ----------------------------------------------------------------------------------------------------- */

/*
 * One that may leave something behind for those that come after it on its connection, or is no transaction of its own, or holds a
 * conversation, has the connection to itself. So has one of which it cannot be told: it costs time, and nothing else.
 */
static bool soils(const char *sql)
{
	return !dbha__retry_atomic(sql) || dbha__sessionstate_hints(sql) != 0;
}

/* Eight bytes at a time, each mixed by the multiplier of Knuth's for 64 bits. */
static unsigned slot_of(const char *sql)
{
	size_t length = strlen(sql);
	uint64_t hash = length, word;
	for (; length >= sizeof word; sql += sizeof word, length -= sizeof word) {
		memcpy(&word, sql, sizeof word);
		hash = (hash ^ word) * 6364136223846793005u;
		hash ^= hash >> 32;
	}
	word = 0;
	memcpy(&word, sql, length);
	hash = (hash ^ word) * 6364136223846793005u;
	return (unsigned)(hash >> 32) % MEMO_SIZE;
}

struct memo *dbha__memo_of(dbha_engine *e, const struct request *request)
{
	const char *sql = request->rq.sql;
	struct memo *memo = e->last_memo;
	if (memo && memo->sql && strcmp(memo->sql, sql) == 0)
		return memo;
	e->last_memo = memo = &e->memo[slot_of(sql)];
	if (memo->sql && strcmp(memo->sql, sql) == 0)
		return memo;
	free(memo->sql);
	memo->sql = strlen(sql) <= MEMO_SQL_MAX ? strdup(sql) : NULL;
	memo->soils = soils(sql);
	memo->may_set = dbha__sessionstate_may_set(sql);
	memo->slow = memo->quick = memo->no_read = false;
	return memo;
}

/* ---- lists ---------------------------------------------------------------------------------------------------- */

void dbha__request_append(struct request_list *list, struct request *request)
{
	request->next = NULL;
	request->prev = list->last;
	if (list->last)
		list->last->next = request;
	else
		list->first = request;
	list->last = request;
}

static void prepend(struct request_list *list, struct request *request)
{
	request->prev = NULL;
	request->next = list->first;
	if (list->first)
		list->first->prev = request;
	else
		list->last = request;
	list->first = request;
}

void dbha__request_remove(struct request_list *list, struct request *request)
{
	if (request->prev)
		request->prev->next = request->next;
	else
		list->first = request->next;
	if (request->next)
		request->next->prev = request->prev;
	else
		list->last = request->prev;
	request->next = request->prev = NULL;
}

/* ---- ready ---------------------------------------------------------------------------------------------------- */

void dbha__ready_add(struct ready *ready, struct request *request, bool first)
{
	struct request_list *group = &ready->groups[request->group];
	if (first)
		prepend(group, request);
	else
		dbha__request_append(group, request);
	ready->some |= (uint64_t)1 << request->group;
	ready->n++;
}

/* The first of the next group that has any, from `turn` on. */
struct request *dbha__ready_peek(const struct ready *ready)
{
	if (!ready->some)
		return NULL;
	uint64_t from = ready->some & ~(((uint64_t)1 << ready->turn) - 1);
	int group = __builtin_ctzll(from ? from : ready->some);
	return ready->groups[group].first;
}

void dbha__ready_remove(struct ready *ready, struct request *request)
{
	struct request_list *group = &ready->groups[request->group];
	if (group->first == request)
		ready->turn = (request->group + 1u) % GROUPS;
	dbha__request_remove(group, request);
	if (!group->first)
		ready->some &= ~((uint64_t)1 << request->group);
	ready->n--;
}

/* ---- alarms: a binary heap ------------------------------------------------------------------------------------- */

static void place(dbha_engine *e, struct request *request, int at)
{
	e->heap[at] = request;
	request->heap_at = at;
}

static void sift_up(dbha_engine *e, struct request *request, int at)
{
	while (at > 0 && e->heap[(at - 1) / 2]->alarm_us > request->alarm_us) {
		place(e, e->heap[(at - 1) / 2], at);
		at = (at - 1) / 2;
	}
	place(e, request, at);
}

static void sift_down(dbha_engine *e, struct request *request, int at)
{
	for (;;) {
		int child = 2 * at + 1;
		if (child + 1 < e->heap_n && e->heap[child + 1]->alarm_us < e->heap[child]->alarm_us)
			child++;
		if (child >= e->heap_n || e->heap[child]->alarm_us >= request->alarm_us)
			break;
		place(e, e->heap[child], at);
		at = child;
	}
	place(e, request, at);
}

static void settle(dbha_engine *e, struct request *request, int at)
{
	if (at > 0 && e->heap[(at - 1) / 2]->alarm_us > request->alarm_us)
		sift_up(e, request, at);
	else
		sift_down(e, request, at);
}

bool dbha__alarm_set(dbha_engine *e, struct request *request, int64_t at)
{
	bool same = request->heap_at >= 0 && request->alarm_us == at;
	request->alarm_us = at;
	if (same)
		return true;
	if (request->heap_at >= 0) {
		settle(e, request, request->heap_at);
		return true;
	}
	if (e->heap_n == e->heap_size) {
		int size = e->heap_size ? 2 * e->heap_size : 64;
		struct request **heap = realloc(e->heap, (size_t)size * sizeof(struct request *));
		if (!heap)
			return false;
		e->heap = heap;
		e->heap_size = size;
	}
	sift_up(e, request, e->heap_n++);
	return true;
}

void dbha__alarm_remove(dbha_engine *e, struct request *request)
{
	int at = request->heap_at;
	if (at < 0)
		return;
	request->heap_at = -1;
	struct request *last = e->heap[--e->heap_n];
	if (last != request)
		settle(e, last, at);
}
