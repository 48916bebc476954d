#include "work.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t now_us(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- one statement ----------------------------------------------------------------------------------------------- */

static void *run_statement(void *arg)
{
	struct statement *s = arg;
	PGresult *result;
	s->began_us = now_us();
	if (s->pg) {
		result = PQexec(s->pg, s->rq.sql);
		s->code = PQresultStatus(result) == PGRES_TUPLES_OK ? DBHA_OK : DBHA_ERR_LOST;
	} else {
		s->code = dbha_exec(s->h, &s->rq, &result, &s->err);
	}
	s->ended_us = now_us();
	PQclear(result);
	atomic_store(&s->done, true);
	return NULL;
}

void statement_start(struct statement *s, dbha *h, dbha_intent intent, int timeout_ms, const char *sql)
{
	statement_start_request(s, h, &DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = timeout_ms));
}

void statement_start_request(struct statement *s, dbha *h, const dbha_request *rq)
{
	memset(s, 0, sizeof *s);
	s->h = h;
	s->rq = *rq;
	s->thread = start_thread(run_statement, s);
}

void statement_start_on(struct statement *s, PGconn *pg, const char *sql)
{
	memset(s, 0, sizeof *s);
	s->pg = pg;
	s->rq.sql = sql;
	s->thread = start_thread(run_statement, s);
}

void statement_join(struct statement *s)
{
	WAIT_FOR(atomic_load(&s->done), 60000);
	join_thread(s->thread);
}

void expect_running(const struct cluster *c, int node, const char *text)
{
	WAIT_FOR(cluster_count(c, node,
	                       "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%s' AND "
	                       "pid <> pg_backend_pid()",
	                       text) > 0,
	         PATIENCE_MS);
}

/* ---- a load ------------------------------------------------------------------------------------------------------ */

static bool load_goes_on(const struct load *load)
{
	if (load->gently)
		poll(NULL, 0, 3);
	return !atomic_load(&load->stop) && !atomic_load(&threads_stop);
}

static void count_error(struct load *load, atomic_long *errors, const dbha_error *err)
{
	if (atomic_fetch_add(errors, 1) == 0)
		load->first_error = *err;
}

static void note_write(struct load *load, int64_t began_us)
{
	long long unset = 0;
	if (began_us >= atomic_load(&load->mark_us))
		atomic_compare_exchange_strong(&load->marked_us, &unset, now_us());
}

static void *write_rows(void *arg)
{
	struct load *load = arg;
	while (load_goes_on(load) && atomic_load(&load->next_id) < LOAD_IDS_MAX) {
		char id[24];
		const char *values[] = {id};
		PGresult *result;
		dbha_error err;
		long number = atomic_fetch_add(&load->next_id, 1);
		snprintf(id, sizeof id, "%ld", number);
		dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows (id) VALUES ($1)", .intent = DBHA_WRITE, .n_params = 1,
		                               .values = values, .timeout_ms = 20000);
		int64_t began = now_us();
		int code = dbha_exec(load->h, &rq, &result, &err);
		PQclear(result);
		load->acknowledged[number] = code == DBHA_OK;
		if (code == DBHA_OK) {
			note_write(load, began);
			atomic_fetch_add(&load->writes, 1);
		} else if (err.outcome_unknown) {
			atomic_fetch_add(&load->unknown, 1);
		} else {
			count_error(load, &load->write_errors, &err);
		}
	}
	return NULL;
}

static void *read_rows(void *arg)
{
	struct load *load = arg;
	while (load_goes_on(load)) {
		dbha_error err;
		if (run(load->h, DBHA_READ, 5000, "SELECT count(*) FROM (SELECT FROM rows LIMIT 10) AS head", &err) == DBHA_OK)
			atomic_fetch_add(&load->reads, 1);
		else
			count_error(load, &load->read_errors, &err);
	}
	return NULL;
}

struct load *load_start(dbha *h, bool gently)
{
	struct load *load = calloc(1, sizeof *load);
	ck_assert(load != NULL);
	load->h = h;
	load->gently = gently;
	load->writer = start_thread(write_rows, load);
	load->reader = start_thread(read_rows, load);
	return load;
}

void load_mark(struct load *load)
{
	atomic_store(&load->mark_us, now_us());
	atomic_store(&load->marked_us, 0);
}

void load_stop(struct load *load)
{
	atomic_store(&load->stop, true);
	join_thread(load->writer);
	join_thread(load->reader);
}

void load_free(struct load *load)
{
	free(load);
}

void load_expect_writes(struct load *load, long more)
{
	long from = atomic_load(&load->writes);
	WAIT_FOR(atomic_load(&load->writes) >= from + more, PATIENCE_MS);
}

void load_expect_reads(struct load *load, long more)
{
	long from = atomic_load(&load->reads);
	WAIT_FOR(atomic_load(&load->reads) >= from + more, PATIENCE_MS);
}

void load_expect_no_errors(const struct load *load, long unknown)
{
	ck_assert_msg(atomic_load(&load->read_errors) + atomic_load(&load->write_errors) == 0, "%s",
	              load->first_error.message);
	ck_assert_int_le(atomic_load(&load->unknown), unknown);
}

long load_missing(const struct load *load, const struct cluster *c, int node)
{
	PGconn *pg = cluster_admin(c, node);
	PGresult *result = PQexec(pg, "SELECT DISTINCT id FROM rows WHERE id >= 0");
	bool *there = calloc(LOAD_IDS_MAX, sizeof *there);
	long gone = 0;
	for (int i = 0; i < PQntuples(result); i++)
		there[atol(PQgetvalue(result, i, 0))] = true;
	for (long id = 0; id < LOAD_IDS_MAX; id++)
		gone += load->acknowledged[id] && !there[id];
	free(there);
	PQclear(result);
	PQfinish(pg);
	return gone;
}

long load_duplicates(const struct cluster *c, int node)
{
	return cluster_count(c, node, "SELECT count(*) - count(DISTINCT id) FROM rows WHERE id >= 0");
}

/* ---- promotions -------------------------------------------------------------------------------------------------- */

/* When a node first accepts a write, asked past the library. watch_start returns once it asks. */
struct watch {
	pthread_t thread;
	PGconn *pg;
	atomic_bool asked;
	_Atomic int64_t accepted_us;
};

/* Over the Unix socket, by the superuser, who may keep his refused tries out of the server's log. */
static void *watch_node(void *arg)
{
	struct watch *watch = arg;
	int64_t end = now_us() + (int64_t)PATIENCE_MS * 1000;
	while (!watch->accepted_us && now_us() < end && !atomic_load(&threads_stop)) {
		int64_t sent = now_us();
		PGresult *result = PQexec(watch->pg, "SELECT pg_current_xact_id()");
		if (PQresultStatus(result) == PGRES_TUPLES_OK)
			watch->accepted_us = sent;
		PQclear(result);
		atomic_store(&watch->asked, true);
		struct timespec pause = {.tv_nsec = 200000};
		nanosleep(&pause, NULL);
	}
	return NULL;
}

static void watch_start(struct watch *watch, const struct cluster *c, int node)
{
	memset(watch, 0, sizeof *watch);
	watch->pg = cluster_admin(c, node);
	PQclear(PQexec(watch->pg, "SET log_min_messages = panic; SET log_min_error_statement = panic"));
	watch->thread = start_thread(watch_node, watch);
	WAIT_FOR(atomic_load(&watch->asked), PATIENCE_MS);
}

static int64_t watch_join(struct watch *watch)
{
	join_thread(watch->thread);
	PQfinish(watch->pg);
	ck_assert_msg(watch->accepted_us > 0, "the promoted node accepts no writes");
	return watch->accepted_us;
}

int64_t promote(const struct cluster *c, int node)
{
	static struct watch watch;
	watch_start(&watch, c, node);
	ck_assert_int_eq(watch.accepted_us, 0);
	cluster_do(c, "promote %d", node);
	return watch_join(&watch);
}

void back_to_node_1(const struct cluster *c, int primary)
{
	cluster_do(c, "rejoin 1 %d", primary);
	promote(c, 1);
	cluster_do(c, "rejoin 2 1");
	cluster_do(c, "rejoin 3 1");
}

/* ---- figures ----------------------------------------------------------------------------------------------------- */

void figures_add(struct figures *figures, int64_t us)
{
	ck_assert_int_lt(figures->n, 64);
	int at = figures->n++;
	for (; at > 0 && figures->us[at - 1] > us; at--)
		figures->us[at] = figures->us[at - 1];
	figures->us[at] = us;
}

int64_t figures_median_us(struct figures *figures)
{
	int n = figures->n;
	return n ? (figures->us[(n - 1) / 2] + figures->us[n / 2]) / 2 : -1;
}

int64_t figures_worst_us(struct figures *figures)
{
	return figures->n ? figures->us[figures->n - 1] : -1;
}

void figures_print(struct figures *figures)
{
	printf("# %s: median %.1f ms, worst %.1f ms of %d\n", figures->name, (double)figures_median_us(figures) / 1000,
	       (double)figures_worst_us(figures) / 1000, figures->n);
}

int count_in_file(const char *path, const char *text)
{
	char line[4096];
	int n = 0;
	FILE *file = fopen(path, "r");
	while (file && fgets(line, sizeof line, file))
		n += strstr(line, text) != NULL;
	if (file)
		fclose(file);
	return n;
}
