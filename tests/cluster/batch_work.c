#include "batch_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PACKS_MAX 64

static struct pack *packs[PACKS_MAX];
static int n_packs;

static void *zeros(size_t n, size_t size)
{
	void *memory = calloc(n, size);
	ck_assert_ptr_nonnull(memory);
	return memory;
}

static struct pack *pack_new(int n, int each)
{
	struct pack *p = zeros(1, sizeof *p);
	ck_assert_int_lt(n_packs, PACKS_MAX);
	packs[n_packs++] = p;
	p->n = n;
	p->requests = zeros((size_t)n, sizeof *p->requests);
	p->values = zeros((size_t)n, sizeof *p->values);
	p->ids = zeros((size_t)n, sizeof *p->ids);
	p->results = zeros((size_t)n, sizeof *p->results);
	p->codes = zeros((size_t)n, sizeof *p->codes);
	p->rq = DBHA_BATCH(.requests = p->requests, .n = n, .each = each, .intent = DBHA_WRITE, .timeout_ms = 20000,
	                   .results = p->results, .codes = p->codes, .failed = &p->failed, .route = &p->route);
	p->route.size = sizeof p->route;
	return p;
}

struct pack *pack_inserts(int n, int each, const char *filler)
{
	struct pack *p = pack_new(n, each);
	for (int i = 0; i < n; i++) {
		snprintf(p->ids[i], sizeof p->ids[i], "%d", i);
		p->values[i][0] = p->ids[i];
		p->values[i][1] = filler;
		p->requests[i] =
		    DBHA_REQUEST(.sql = "INSERT INTO rows VALUES ($1, $2) RETURNING id", .n_params = 2, .values = p->values[i]);
	}
	return p;
}

struct pack *pack_texts(int n, int each, const char *sql)
{
	struct pack *p = pack_new(n, each);
	for (int i = 0; i < n; i++)
		p->requests[i] = DBHA_REQUEST(.sql = sql);
	return p;
}

void pack_text(struct pack *p, int i, const char *sql)
{
	p->requests[i] = DBHA_REQUEST(.sql = sql);
}

static void clear_results(struct pack *p)
{
	for (int i = 0; i < p->n; i++) {
		PQclear(p->results[i]);
		p->results[i] = NULL;
	}
}

void packs_free(void)
{
	while (n_packs > 0) {
		struct pack *p = packs[--n_packs];
		clear_results(p);
		free(p->requests);
		free(p->values);
		free(p->ids);
		free(p->results);
		free(p->codes);
		free(p);
	}
}

static int run_pack(struct pack *p)
{
	clear_results(p);
	/* What is not written to shows. */
	for (int i = 0; i < p->n; i++)
		p->codes[i] = -1;
	p->failed = -2;
	memset(&p->err, 0, sizeof p->err);
	p->took_ms = now_ms();
	p->code = p->s ? dbha_session_batch(p->s, &p->rq, &p->err) : dbha_batch(p->h, &p->rq, &p->err);
	p->took_ms = now_ms() - p->took_ms;
	return p->code;
}

int fire(struct pack *p, dbha *h)
{
	p->h = h;
	p->s = NULL;
	return run_pack(p);
}

int fire_in(struct pack *p, dbha_session *s)
{
	p->s = s;
	return run_pack(p);
}

static void *run_in_a_thread(void *arg)
{
	struct pack *p = arg;
	run_pack(p);
	atomic_store(&p->done, true);
	return NULL;
}

void fire_in_a_thread(struct pack *p, dbha *h, dbha_session *s)
{
	p->h = h;
	p->s = s;
	atomic_store(&p->done, false);
	start_thread(run_in_a_thread, p);
}

int pack_count(const struct pack *p, int code)
{
	int n = 0;
	for (int i = 0; i < p->n; i++)
		n += p->codes[i] == code;
	return n;
}

static void expect_all_or_nothing(const struct pack *p, long there)
{
	if (p->code == DBHA_OK)
		ck_assert_int_eq(there, p->n);
	else if (p->err.outcome_unknown)
		ck_assert_msg(there == 0 || there == p->n, "%ld rows of %d", there, p->n);
	else
		ck_assert_msg(there == 0, "%ld rows, but: %s", there, p->err.message);
}

void pack_expect_truth(const struct pack *p, const struct cluster *c, int node)
{
	PGconn *admin = cluster_admin(c, node);
	PGresult *rows = PQexec(admin, "SELECT id FROM rows ORDER BY id");
	ck_assert_int_eq(PQresultStatus(rows), PGRES_TUPLES_OK);
	char *there = zeros((size_t)p->n, 1);
	for (int i = 0; i < PQntuples(rows); i++) {
		long id = atol(PQgetvalue(rows, i, 0));
		ck_assert_msg(id >= 0 && id < p->n && !there[id], "row %ld", id);
		there[id] = 1;
	}
	long all = PQntuples(rows);
	PQclear(rows);
	PQfinish(admin);
	int lies = 0, lie = -1;
	for (int i = 0; i < p->n; i++) {
		bool done = p->codes[i] == DBHA_OK;
		bool wrong = p->codes[i] == -1 || (p->codes[i] != DBHA_ERR_UNKNOWN && done != (there[i] == 1));
		lies += wrong;
		lie = wrong ? i : lie;
	}
	free(there);
	ck_assert_msg(lies == 0, "%d lies, such as %s for %d", lies, dbha_code_name(lie < 0 ? 0 : p->codes[lie]), lie);
	if (!p->rq.each)
		expect_all_or_nothing(p, all);
}
