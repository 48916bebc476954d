/*
 * open_loop: how long a statement takes where they come at their own times, dbha_engine beside a pool of the same library.
 *
 *   open_loop URL [--rounds 20] [--slice-ms 1000] [--loads 30,60,80] [--connections 4] [--depth 64] [--threads 8]
 *             [--statement select|update] [--seed N] [--json FILE]
 *
 * How it measures. First what the pool can do: so many threads of dbha_exec on as many connections, each as fast as it can. Then, for each
 * load (per cent of that), slices of both sides in random order. In a slice statements come at random times drawn beforehand
 * (exponential gaps), the same for both sides. The pool: the next free thread takes the next statement, when its time has come. The engine:
 * one thread submits what is due, and otherwise waits in poll for its descriptor. The time of a statement runs from the moment at which it was
 * to be submitted, not from the one at which somebody got to it, so that a side that is late pays for it. The ratios of the
 * 50th and 99th percentiles are made within a round.
 *
 * How to read it. The clients and the server share the processors: at high loads the queue before the processors is what is measured, and who
 * takes less of them has the shorter queue.
 */
#define _GNU_SOURCE /* ppoll */
#include "bench.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define ROWS 10000

static const char usage[] = "open_loop URL [--rounds 20] [--slice-ms 1000] [--loads 30,60,80] [--connections 4] "
                            "[--depth 64] [--threads 8] [--statement select|update] [--seed N] [--json FILE]";

enum side {
	POOL,
	ENGINE,
	N_SIDES,
};

static const char *const side_names[N_SIDES] = {"pool", "engine"};

static char table[64];
static char statement[160];
static bool writes;
static dbha *handles[N_SIDES];
static dbha_engine *engine;

/* What comes in a slice. */
static struct {
	int n;
	int64_t *at; /* since `began`, ns */
	double *us;  /* what each took */
	int64_t began;
	atomic_int next;
} plan;

static void make_table(PGconn *conn)
{
	char sql[512];
	snprintf(table, sizeof table, "dbha_bench_open_%ld", (long)getpid());
	snprintf(sql, sizeof sql,
	         "CREATE TABLE %s (aid int PRIMARY KEY, bid int, abalance int, filler char(84)) WITH (fillfactor = 50);"
	         "INSERT INTO %s SELECT i, 1, i %% 1000, '' FROM generate_series(1, %d) i",
	         table, table, ROWS);
	command(conn, sql);
	snprintf(sql, sizeof sql, "VACUUM ANALYZE %s", table);
	command(conn, sql);
}

static void use_result(PGresult *result)
{
	ExecStatusType wanted = writes ? PGRES_COMMAND_OK : PGRES_TUPLES_OK;
	if (PQresultStatus(result) != wanted || (!writes && PQntuples(result) != 1))
		die("not done: %s", PQresultErrorMessage(result));
	PQclear(result);
}

static dbha_request request_of(char text[12], const char *const *values, uint64_t *random)
{
	snprintf(text, 12, "%d", (int)(random_next(random) % ROWS) + 1);
	return DBHA_REQUEST(.sql = statement, .intent = writes ? DBHA_WRITE : DBHA_READ, .n_params = 1, .values = values);
}

static void exec_one(uint64_t *random)
{
	char text[12];
	const char *values[] = {text};
	PGresult *result = NULL;
	dbha_error err;
	dbha_request rq = request_of(text, values, random);
	if (dbha_exec(handles[POOL], &rq, &result, &err) != DBHA_OK)
		die("dbha: %s", err.message);
	use_result(result);
}

/* ---- what is planned --------------------------------------------------------------------------------------------- */

/* -ln(u) for u in (0, 1], by halving; a table of logarithms is not worth a library. */
static double exponential(uint64_t *random)
{
	double u = (double)((random_next(random) >> 11) + 1) / 9007199254740992.0;
	double sum = 0;
	while (u < 0.5) {
		u *= 2;
		sum += 0.69314718055994531;
	}
	/* ln u = 2 artanh((u - 1) / (u + 1)) */
	double z = (1 - u) / (1 + u), square = z * z, power = z, series = 0;
	for (int k = 1; k < 24; k += 2, power *= square)
		series += power / k;
	return sum + 2 * series;
}

static void draw(double rate, long ms, uint64_t *random)
{
	double at = 0, end = (double)ms * 1e6, mean = 1e9 / rate;
	plan.n = 0;
	for (;;) {
		at += mean * exponential(random);
		if (at >= end)
			return;
		if ((plan.n & 4095) == 0) {
			plan.at = realloc(plan.at, (size_t)(plan.n + 4096) * sizeof *plan.at);
			plan.us = realloc(plan.us, (size_t)(plan.n + 4096) * sizeof *plan.us);
			if (!plan.at || !plan.us)
				die("out of memory");
		}
		plan.at[plan.n++] = (int64_t)at;
	}
}

static void note(int i)
{
	plan.us[i] = (double)(now_ns() - plan.began - plan.at[i]) / 1000;
}

static void wait_until(int64_t ns)
{
	struct timespec left;
	int64_t wait = ns - now_ns();
	if (wait <= 0)
		return;
	left = (struct timespec){.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
	nanosleep(&left, NULL);
}

/* ---- the two sides ------------------------------------------------------------------------------------------------ */

static long work_closed(struct worker *worker, const atomic_bool *stop)
{
	long n = 0;
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++)
		exec_one(&worker->random);
	return n;
}

static long work_pool(struct worker *worker, const atomic_bool *stop)
{
	long n = 0;
	(void)stop;
	prctl(PR_SET_TIMERSLACK, 1);
	for (;; n++) {
		int i = atomic_fetch_add(&plan.next, 1);
		if (i >= plan.n)
			return n;
		wait_until(plan.began + plan.at[i]);
		exec_one(&worker->random);
		note(i);
	}
}

static void submit(int i, uint64_t *random)
{
	char text[12];
	const char *values[] = {text};
	dbha_error err;
	dbha_request rq = request_of(text, values, random);
	if (dbha_submit(engine, &rq, (uint64_t)i, &err) != DBHA_OK)
		die("dbha: %s", err.message);
}

static long complete_all(void)
{
	long n = 0;
	dbha_error err;
	dbha_completion done = {.size = sizeof done};
	while (dbha_next_completion(engine, &done, 0, &err) == 1) {
		if (done.code != DBHA_OK)
			die("dbha: %s", done.error.message);
		note((int)done.tag);
		use_result(done.result);
		n++;
	}
	return n;
}

/* Until the descriptor tells something, or the next one is due. */
static void await_news(int fd, int next)
{
	struct pollfd item = {.fd = fd, .events = POLLIN};
	int64_t wait = next < plan.n ? plan.began + plan.at[next] - now_ns() : 1000000000;
	struct timespec timeout = {.tv_sec = wait / 1000000000, .tv_nsec = wait % 1000000000};
	if (wait > 0)
		ppoll(&item, 1, &timeout, NULL);
}

static long work_engine(struct worker *worker, const atomic_bool *stop)
{
	long n = 0;
	int fd = dbha_engine_fd(engine, NULL);
	(void)stop;
	prctl(PR_SET_TIMERSLACK, 1);
	for (int next = 0; n < plan.n;) {
		int64_t now = now_ns() - plan.began;
		while (next < plan.n && plan.at[next] <= now)
			submit(next++, &worker->random);
		if (dbha_engine_step(engine, NULL, NULL) != DBHA_OK)
			die("dbha: no step");
		n += complete_all();
		if (n < plan.n)
			await_news(fd, next);
	}
	return n;
}

/* ---- measuring ---------------------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double percentile(double p)
{
	return plan.us[(int)(p * (plan.n - 1))];
}

static void run_slice(struct crew *crew, enum side side, double *p50, double *p99, double *cpu)
{
	atomic_store(&plan.next, 0);
	plan.began = now_ns() + 1000000;
	crew_slice(crew, side == POOL ? work_pool : work_engine, 1, cpu);
	qsort(plan.us, (size_t)plan.n, sizeof *plan.us, compare);
	*p50 = percentile(0.5);
	*p99 = percentile(0.99);
}

static double capacity(struct crew *crew, long ms)
{
	struct series rates = {0};
	for (int i = 0; i < 6; i++) {
		double rate = crew_slice(crew, work_closed, ms, NULL);
		if (i > 0)
			series_add(&rates, rate);
	}
	double median = series_spread(&rates).median;
	series_free(&rates);
	return median;
}

static void report(const char *what, struct series *series, FILE *json, bool comma)
{
	struct spread spread = series_spread(series);
	printf("    %-18s %9.3f  (95 %%: %.3f to %.3f; quartiles %.3f %.3f)\n", what, spread.median, spread.low,
	       spread.high, spread.q1, spread.q3);
	if (json && comma)
		fputs(", ", json);
	json_spread(json, what, &spread);
	series_free(series);
}

struct numbers {
	struct series p50[N_SIDES], p99[N_SIDES], cpu[N_SIDES], ratio50, ratio99;
};

static void print_numbers(struct numbers *n, FILE *json)
{
	char name[32];
	for (int side = 0; side < N_SIDES; side++) {
		snprintf(name, sizeof name, "%s_p50_us", side_names[side]);
		report(name, &n->p50[side], json, side > 0);
		snprintf(name, sizeof name, "%s_p99_us", side_names[side]);
		report(name, &n->p99[side], json, true);
		snprintf(name, sizeof name, "%s_cpu_us", side_names[side]);
		report(name, &n->cpu[side], json, true);
	}
	report("p50_ratio", &n->ratio50, json, true);
	report("p99_ratio", &n->ratio99, json, true);
}

static void measure(struct crew *crews[N_SIDES], double rate, long rounds, long ms, uint64_t *random,
                    struct numbers *numbers)
{
	for (long round = -1; round < rounds; round++) {
		double p50[N_SIDES], p99[N_SIDES], cpu[N_SIDES];
		int first = (int)(random_next(random) % N_SIDES);
		draw(rate, ms, random);
		for (int i = 0; i < N_SIDES; i++) {
			int side = (first + i) % N_SIDES;
			run_slice(crews[side], (enum side)side, &p50[side], &p99[side], &cpu[side]);
		}
		for (int side = 0; round >= 0 && side < N_SIDES; side++) {
			series_add(&numbers->p50[side], p50[side]);
			series_add(&numbers->p99[side], p99[side]);
			series_add(&numbers->cpu[side], cpu[side] / 1000);
		}
		if (round >= 0) {
			series_add(&numbers->ratio50, p50[ENGINE] / p50[POOL]);
			series_add(&numbers->ratio99, p99[ENGINE] / p99[POOL]);
		}
	}
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--rounds",  "--slice-ms",  "--loads", "--connections", "--depth",
	                                    "--threads", "--statement", "--seed",  "--json",        NULL};
	struct args args = {argc, argv};
	const char *url = args_url(&args, names, usage);
	long rounds = args_number(&args, "--rounds", 20, 1, 100000), ms = args_number(&args, "--slice-ms", 1000, 1, 60000);
	int connections = (int)args_number(&args, "--connections", 4, 1, 32);
	int depth = (int)args_number(&args, "--depth", 64, 1, 4096);
	int threads = (int)args_number(&args, "--threads", 8, 1, 256);
	uint64_t seed = (uint64_t)args_number(&args, "--seed", (long)(now_ns() % 1000000), 0, 1000000000), random = seed;
	int loads[16], n_loads = args_list(&args, "--loads", "30,60,80", loads, 16);
	FILE *json = json_open(args_text(&args, "--json", NULL));
	PGconn *conn = connect_by_hand(url);
	dbha_engine_options options = DBHA_ENGINE_OPTIONS(.connections = connections, .depth = depth, .queue = 1000000);
	struct crew crews[N_SIDES], *both[N_SIDES] = {&crews[POOL], &crews[ENGINE]};
	dbha_error err;
	writes = strcmp(args_text(&args, "--statement", "select"), "update") == 0;
	print_where(url, seed);
	make_table(conn);
	snprintf(statement, sizeof statement,
	         writes ? "UPDATE %s SET abalance = abalance + 1 WHERE aid = $1" : "SELECT abalance FROM %s WHERE aid = $1",
	         table);
	handles[POOL] = open_handle(url, threads, threads);
	handles[ENGINE] = open_handle(url, connections, connections);
	engine = dbha_engine_open(handles[ENGINE], &options, &err);
	if (!engine)
		die("dbha: %s", err.message);
	crew_start(&crews[POOL], threads, &random);
	crew_start(&crews[ENGINE], 1, &random);
	double most = capacity(&crews[POOL], ms < 500 ? ms : 500);
	printf("%s: the pool does %.0f /s with %d threads\n", statement, most, threads);
	if (json)
		fprintf(json,
		        "{\"benchmark\": \"open_loop\", \"statement\": \"%s\", \"capacity_per_second\": %.6g, \"results\": [",
		        writes ? "update" : "select", most);
	for (int i = 0; i < n_loads; i++) {
		struct numbers numbers = {0};
		double rate = most * loads[i] / 100;
		measure(both, rate, rounds, ms, &random, &numbers);
		printf("  load %d %%: %.0f /s\n", loads[i], rate);
		if (json)
			fprintf(json, "%s{\"load_percent\": %d, ", i ? ", " : "", loads[i]);
		print_numbers(&numbers, json);
		if (json)
			fputs("}", json);
		fflush(stdout);
	}
	if (json) {
		fputs("]}\n", json);
		fclose(json);
	}
	crew_end(&crews[POOL]);
	crew_end(&crews[ENGINE]);
	dbha_engine_close(engine);
	for (int side = 0; side < N_SIDES; side++)
		dbha_close(handles[side], 1000);
	char sql[160];
	snprintf(sql, sizeof sql, "DROP TABLE %s", table);
	command(conn, sql);
	PQfinish(conn);
	free(plan.at);
	free(plan.us);
	return 0;
}
