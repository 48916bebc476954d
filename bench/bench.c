#include "bench.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

void die(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	fputc('\n', stderr);
	exit(1);
}

static int64_t read_clock(clockid_t id)
{
	struct timespec ts;
	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t now_ns(void)
{
	return read_clock(CLOCK_MONOTONIC);
}

int64_t process_cpu_ns(void)
{
	return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

void sleep_ms(long ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
	nanosleep(&ts, NULL);
}

uint64_t random_next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* ---- arguments ------------------------------------------------------------------------------------------------- */

static bool known(const char *const *names, const char *name)
{
	for (; *names; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

const char *args_url(const struct args *args, const char *const *names, const char *usage)
{
	if (args->argc < 2 || strncmp(args->argv[1], "--", 2) == 0)
		die("%s", usage);
	for (int i = 2; i < args->argc; i += 2)
		if (!known(names, args->argv[i]) || i + 1 == args->argc)
			die("%s: unknown, or without a value\n%s", args->argv[i], usage);
	return args->argv[1];
}

const char *args_text(const struct args *args, const char *name, const char *otherwise)
{
	for (int i = 2; i + 1 < args->argc; i += 2)
		if (strcmp(args->argv[i], name) == 0)
			return args->argv[i + 1];
	return otherwise;
}

static long parse_number(const char *name, const char *text, long least, long most)
{
	char *end;
	long value = strtol(text, &end, 10);
	if (end == text || *end || value < least || value > most)
		die("%s: \"%s\": a number from %ld to %ld is expected", name, text, least, most);
	return value;
}

long args_number(const struct args *args, const char *name, long otherwise, long least, long most)
{
	const char *text = args_text(args, name, NULL);
	return text ? parse_number(name, text, least, most) : otherwise;
}

int args_list(const struct args *args, const char *name, const char *otherwise, int *list, int size)
{
	char *copy = strdup(args_text(args, name, otherwise));
	char *rest = NULL;
	int n = 0;
	for (char *item = strtok_r(copy, ",", &rest); item; item = strtok_r(NULL, ",", &rest)) {
		if (n == size)
			die("%s: at most %d numbers", name, size);
		list[n++] = (int)parse_number(name, item, 1, 1000);
	}
	free(copy);
	return n;
}

/* ---- spreads --------------------------------------------------------------------------------------------------- */

void series_add(struct series *series, double value)
{
	if (series->n == series->size) {
		series->size = series->size ? 2 * series->size : 64;
		series->values = realloc(series->values, (size_t)series->size * sizeof *series->values);
		if (!series->values)
			die("out of memory");
	}
	series->values[series->n++] = value;
}

void series_free(struct series *series)
{
	free(series->values);
	*series = (struct series){0};
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;
	return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double q)
{
	double at = q * (n - 1);
	int below = (int)at;
	if (below >= n - 1)
		return sorted[n - 1];
	return sorted[below] + (at - below) * (sorted[below + 1] - sorted[below]);
}

static double clamp(double value, double low, double high)
{
	return value < low ? low : value > high ? high : value;
}

static double square_root(double x)
{
	double root = x > 1 ? x : 1;
	for (int i = 0; i < 60; i++)
		root = (root + x / root) / 2;
	return root;
}

struct spread series_spread(const struct series *series)
{
	struct spread spread = {.n = series->n};
	if (series->n == 0)
		return spread;
	size_t bytes = (size_t)series->n * sizeof(double);
	double *sorted = malloc(bytes);
	if (!sorted)
		die("out of memory");
	memcpy(sorted, series->values, bytes);
	qsort(sorted, (size_t)series->n, sizeof *sorted, compare);
	int n = series->n;
	spread.min = sorted[0];
	spread.q1 = quantile(sorted, n, 0.25);
	spread.median = quantile(sorted, n, 0.5);
	spread.q3 = quantile(sorted, n, 0.75);
	spread.max = sorted[n - 1];
	for (int i = 0; i < n; i++)
		spread.mean += sorted[i] / n;
	/* The number of values below the median is binomial(n, 1/2); its normal approximation gives the two ranks. */
	double half = 0.98 * square_root(n);
	spread.low = sorted[(int)clamp(n / 2.0 - half - 0.5, 0, n - 1)];
	spread.high = sorted[(int)clamp(n / 2.0 + half, 0, n - 1)];
	free(sorted);
	return spread;
}

void json_spread(FILE *json, const char *name, const struct spread *s)
{
	if (json)
		fprintf(json,
		        "\"%s\": {\"n\": %d, \"median\": %.6g, \"median_low\": %.6g, \"median_high\": %.6g, \"min\": %.6g, "
		        "\"q1\": %.6g, \"q3\": %.6g, \"max\": %.6g, \"mean\": %.6g}",
		        name, s->n, s->median, s->low, s->high, s->min, s->q1, s->q3, s->max, s->mean);
}

FILE *json_open(const char *path)
{
	if (!path)
		return NULL;
	FILE *json = fopen(path, "w");
	if (!json)
		die("%s cannot be written", path);
	return json;
}

/* ---- the two sides --------------------------------------------------------------------------------------------- */

PGconn *connect_by_hand(const char *url)
{
	const char *const keywords[] = {"dbname", "target_session_attrs", NULL};
	const char *const values[] = {url, "primary", NULL};
	PGconn *conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(conn) != CONNECTION_OK)
		die("libpq: %s", PQerrorMessage(conn));
	return conn;
}

void command(PGconn *conn, const char *sql)
{
	PGresult *result = PQexec(conn, sql);
	ExecStatusType status = PQresultStatus(result);
	if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
		die("%s: %s", sql, PQerrorMessage(conn));
	PQclear(result);
}

static void set_option(dbha_config *config, const char *name, int value)
{
	char text[16];
	dbha_error err;
	snprintf(text, sizeof text, "%d", value);
	if (dbha_config_set(config, name, text, &err) != DBHA_OK)
		die("dbha: %s", err.message);
}

/* Leases held at the same time are as many connections. */
static void fill_pool(dbha *h, int ready)
{
	dbha_conn *held[1000];
	dbha_error err;
	if (ready > 1000)
		die("at most 1000 connections");
	for (int i = 0; i < ready; i++)
		if (!(held[i] = dbha_acquire(h, DBHA_WRITE, 0, &err)))
			die("dbha: %s", err.message);
	for (int i = 0; i < ready; i++)
		dbha_release(held[i]);
}

dbha *open_handle(const char *url, int size, int ready)
{
	dbha_error err;
	dbha_config *config = dbha_config_new(url, &err);
	if (!config)
		die("dbha: %s", err.message);
	set_option(config, "pool_max_size", size);
	dbha *h = dbha_open_config(config, &err);
	if (!h)
		die("dbha: %s", err.message);
	dbha_config_free(config);
	fill_pool(h, ready);
	return h;
}

void print_where(const char *url, uint64_t seed)
{
	PGconn *conn = connect_by_hand(url);
	int version = PQlibVersion();
	printf("libdbha %s, libpq %d.%d, server %s at %s:%s, %ld processors, seed %llu\n", dbha_version(), version / 10000,
	       version % 10000, PQparameterStatus(conn, "server_version"), PQhost(conn), PQport(conn),
	       sysconf(_SC_NPROCESSORS_ONLN), (unsigned long long)seed);
	PQfinish(conn);
}

/* ---- threads that work in slices ------------------------------------------------------------------------------- */

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	struct crew *crew = worker->crew;
	for (;;) {
		pthread_barrier_wait(&crew->begin);
		if (!crew->work)
			return NULL;
		worker->began = now_ns();
		int64_t cpu = read_clock(CLOCK_THREAD_CPUTIME_ID);
		worker->count = crew->work(worker, &crew->stop);
		worker->cpu = read_clock(CLOCK_THREAD_CPUTIME_ID) - cpu;
		worker->ended = now_ns();
		pthread_barrier_wait(&crew->end);
	}
}

void crew_start(struct crew *crew, int n, uint64_t *random)
{
	crew->n = n;
	crew->workers = calloc((size_t)n, sizeof *crew->workers);
	if (!crew->workers || pthread_barrier_init(&crew->begin, NULL, (unsigned)n + 1) ||
	    pthread_barrier_init(&crew->end, NULL, (unsigned)n + 1))
		die("out of memory");
	for (int i = 0; i < n; i++) {
		struct worker *worker = &crew->workers[i];
		worker->crew = crew;
		worker->index = i;
		worker->random = random_next(random);
		if (pthread_create(&worker->thread, NULL, worker_main, worker))
			die("no thread");
	}
}

double crew_slice(struct crew *crew, work_function work, long ms, double *cpu_each)
{
	crew->work = work;
	atomic_store(&crew->stop, false);
	pthread_barrier_wait(&crew->begin);
	sleep_ms(ms);
	atomic_store(&crew->stop, true);
	pthread_barrier_wait(&crew->end);

	long count = 0;
	int64_t cpu = 0;
	int64_t began = INT64_MAX;
	int64_t ended = 0;
	for (int i = 0; i < crew->n; i++) {
		const struct worker *worker = &crew->workers[i];
		count += worker->count;
		cpu += worker->cpu;
		began = worker->began < began ? worker->began : began;
		ended = worker->ended > ended ? worker->ended : ended;
	}
	if (count == 0)
		die("a slice of %ld ms in which nothing was done", ms);
	if (cpu_each)
		*cpu_each = (double)cpu / (double)count;
	return (double)count * 1e9 / (double)(ended - began);
}

void crew_end(struct crew *crew)
{
	crew->work = NULL;
	pthread_barrier_wait(&crew->begin);
	for (int i = 0; i < crew->n; i++)
		pthread_join(crew->workers[i].thread, NULL);
	pthread_barrier_destroy(&crew->begin);
	pthread_barrier_destroy(&crew->end);
	free(crew->workers);
}

/* ---- a pool by hand -------------------------------------------------------------------------------------------- */

void hand_pool_open(struct hand_pool *pool, const char *url, int size)
{
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->given_back, NULL);
	pool->size = pool->n_idle = size;
	pool->idle = calloc((size_t)size, sizeof *pool->idle);
	if (!pool->idle)
		die("out of memory");
	for (int i = 0; i < size; i++)
		pool->idle[i] = connect_by_hand(url);
}

void hand_pool_close(struct hand_pool *pool)
{
	for (int i = 0; i < pool->n_idle; i++)
		PQfinish(pool->idle[i]);
	free(pool->idle);
	pthread_cond_destroy(&pool->given_back);
	pthread_mutex_destroy(&pool->lock);
}

PGconn *hand_pool_acquire(struct hand_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	while (pool->n_idle == 0)
		pthread_cond_wait(&pool->given_back, &pool->lock);
	PGconn *conn = pool->idle[--pool->n_idle];
	pthread_mutex_unlock(&pool->lock);
	return conn;
}

void hand_pool_release(struct hand_pool *pool, PGconn *conn)
{
	if (PQstatus(conn) != CONNECTION_OK || PQtransactionStatus(conn) != PQTRANS_IDLE)
		die("a connection came back broken or in a transaction");
	pthread_mutex_lock(&pool->lock);
	pool->idle[pool->n_idle++] = conn;
	pthread_cond_signal(&pool->given_back);
	pthread_mutex_unlock(&pool->lock);
}
