/*
 * fairness: many threads on a small pool. Who is served, how often, and how long does the unluckiest wait?
 *
 *   fairness URL [--threads 200] [--pool 25] [--seconds 5] [--rounds 3] [--sql "SELECT pg_sleep(0.002)"] [--seed N]
 *                [--json FILE]
 *
 * Each thread does the same for --seconds: acquire, one statement, release. All start together at a barrier. Two sides
 * alternate, in random order: `dbha`, and `hand`, a pool as one writes it over libpq (bench.h: a mutex, a condition
 * variable, a stack), which serves whoever comes first to the lock. Both pools are full of open connections before the
 * start. `cold` is the library once more with an empty pool, which has to make its connections while 200 threads wait.
 *
 * A wait is the time a thread spends in acquire, as the thread itself sees it, from the barrier on, the first and the
 * last ones included. With everybody at the barrier at once the first round is uneven by arithmetic (25 wait for
 * nothing, the last ones for seven statements); served in order, all later waits are alike: (threads - pool) / pool
 * statements. So the longest wait divided by the mean wait is close to 1 for a queue and large for a free-for-all. The
 * figure to reach: at most 1.5.
 *
 * What is also in it: how long the machine takes to run a thread that was woken, and statements that take longer
 * because the server had no processor; both make the longest wait longer on a busy machine. `longest statement` shows
 * the latter. A single pause of the machine lengthens one wait of everybody; `p99.9 / mean` beside the longest tells
 * one such pause from a pool that is unfair.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

static const char usage[] = "fairness URL [--threads 200] [--pool 25] [--seconds 5] [--rounds 3] [--sql \"SELECT "
                            "pg_sleep(0.002)\"] [--seed N]\n"
                            "             [--json FILE]";

enum side {
	DBHA,
	HAND,
	COLD,
	N_SIDES,
};

static const char *const side_names[N_SIDES] = {"dbha", "hand", "cold"};

static const char *url;
static const char *sql;
static int pool_size;
static dbha *handle;
static struct hand_pool pool;
static struct thread_waits {
	struct series us;
	int64_t longest_statement;
} * waits; /* one a thread */

/* ---- one turn -------------------------------------------------------------------------------------------------- */

static void run_statement(struct thread_waits *mine, PGconn *conn)
{
	int64_t began = now_ns();
	command(conn, sql);
	int64_t took = now_ns() - began;
	if (took > mine->longest_statement)
		mine->longest_statement = took;
}

static long work_dbha(struct worker *worker, const atomic_bool *stop)
{
	struct thread_waits *mine = &waits[worker->index];
	dbha_error err;
	long n = 0;
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++) {
		int64_t began = now_ns();
		dbha_conn *conn = dbha_acquire(handle, DBHA_WRITE, 0, &err);
		if (!conn)
			die("dbha: %s", err.message);
		series_add(&mine->us, (double)(now_ns() - began) / 1000);
		run_statement(mine, dbha_conn_pq(conn));
		dbha_release(conn);
	}
	return n;
}

static long work_hand(struct worker *worker, const atomic_bool *stop)
{
	struct thread_waits *mine = &waits[worker->index];
	long n = 0;
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++) {
		int64_t began = now_ns();
		PGconn *conn = hand_pool_acquire(&pool);
		series_add(&mine->us, (double)(now_ns() - began) / 1000);
		run_statement(mine, conn);
		hand_pool_release(&pool, conn);
	}
	return n;
}

/* ---- one run --------------------------------------------------------------------------------------------------- */

struct outcome {
	double per_second;
	int threads_served;
	long least, most; /* turns of a thread */
	double mean_us, p999_us, longest_us, first_longest_us, longest_statement_us;
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;
	return (x > y) - (x < y);
}

static void sum_up(const struct crew *crew, struct outcome *out)
{
	struct series all = {0};
	out->least = crew->workers[0].count;
	for (int i = 0; i < crew->n; i++) {
		long count = crew->workers[i].count;
		out->threads_served += count > 0;
		out->least = count < out->least ? count : out->least;
		out->most = count > out->most ? count : out->most;
		for (int k = 0; k < waits[i].us.n; k++)
			series_add(&all, waits[i].us.values[k]);
		if (waits[i].us.n > 0 && waits[i].us.values[0] > out->first_longest_us)
			out->first_longest_us = waits[i].us.values[0];
		double statement_us = (double)waits[i].longest_statement / 1000;
		if (statement_us > out->longest_statement_us)
			out->longest_statement_us = statement_us;
	}
	struct spread spread = series_spread(&all);
	qsort(all.values, (size_t)all.n, sizeof *all.values, compare);
	out->mean_us = spread.mean;
	out->longest_us = spread.max;
	out->p999_us = all.values[(int)(0.999 * (all.n - 1))];
	series_free(&all);
}

static void open_side(enum side side)
{
	if (side == HAND)
		hand_pool_open(&pool, url, pool_size);
	else
		handle = open_handle(url, pool_size, side == COLD ? 0 : pool_size);
}

static void close_side(enum side side)
{
	if (side == HAND)
		hand_pool_close(&pool);
	else
		dbha_close(handle, 1000);
}

static struct outcome run_side(enum side side, int threads, long ms, uint64_t *random)
{
	struct outcome out = {0};
	struct crew crew;
	waits = calloc((size_t)threads, sizeof *waits);
	if (!waits)
		die("out of memory");
	open_side(side);
	crew_start(&crew, threads, random);
	out.per_second = crew_slice(&crew, side == HAND ? work_hand : work_dbha, ms, NULL);
	sum_up(&crew, &out);
	crew_end(&crew);
	close_side(side);
	for (int i = 0; i < threads; i++)
		series_free(&waits[i].us);
	free(waits);
	return out;
}

static void print_outcome(enum side side, int threads, const struct outcome *o, FILE *json, bool first)
{
	printf(
	    "    %s  served %d/%d, turns a thread %ld to %ld, %.0f /s; wait: mean %.2f ms, longest %.2f ms = %.2f x mean, "
	    "p99.9 = %.2f x mean; longest first wait %.2f ms; longest statement %.2f ms\n",
	    side_names[side], o->threads_served, threads, o->least, o->most, o->per_second, o->mean_us / 1000,
	    o->longest_us / 1000, o->longest_us / o->mean_us, o->p999_us / o->mean_us, o->first_longest_us / 1000,
	    o->longest_statement_us / 1000);
	fflush(stdout);
	if (json)
		fprintf(json,
		        "%s{\"side\": \"%s\", \"served\": %d, \"least_turns\": %ld, \"most_turns\": %ld, \"per_second\": %.1f, "
		        "\"wait_mean_us\": %.1f, \"wait_longest_us\": %.1f, \"longest_to_mean\": %.3f, \"p999_to_mean\": %.3f, "
		        "\"first_longest_us\": %.1f, \"statement_longest_us\": %.1f}",
		        first ? "" : ", ", side_names[side], o->threads_served, o->least, o->most, o->per_second, o->mean_us,
		        o->longest_us, o->longest_us / o->mean_us, o->p999_us / o->mean_us, o->first_longest_us,
		        o->longest_statement_us);
}

/* ---- all runs -------------------------------------------------------------------------------------------------- */

static void print_ratios(struct series *ratio)
{
	printf("longest wait / mean wait over the rounds\n");
	for (int side = 0; side < N_SIDES; side++) {
		struct spread spread = series_spread(&ratio[side]);
		printf("    %s  median %.2f  min %.2f  max %.2f\n", side_names[side], spread.median, spread.min, spread.max);
		series_free(&ratio[side]);
	}
}

static void run_rounds(int threads, long ms, long rounds, uint64_t *random, FILE *json)
{
	struct series ratio[N_SIDES] = {0};
	for (long round = 0; round < rounds; round++) {
		int from = (int)(random_next(random) % N_SIDES);
		int step = (random_next(random) >> 63) ? 1 : 2;
		for (int i = 0; i < N_SIDES; i++) {
			enum side side = (enum side)((from + i * step) % N_SIDES);
			struct outcome out = run_side(side, threads, ms, random);
			print_outcome(side, threads, &out, json, round == 0 && i == 0);
			series_add(&ratio[side], out.longest_us / out.mean_us);
		}
	}
	print_ratios(ratio);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--threads", "--pool", "--seconds", "--rounds",
	                                    "--sql",     "--seed", "--json",    NULL};
	struct args args = {argc, argv};
	url = args_url(&args, names, usage);
	sql = args_text(&args, "--sql", "SELECT pg_sleep(0.002)");
	int threads = (int)args_number(&args, "--threads", 200, 1, 2000);
	pool_size = (int)args_number(&args, "--pool", 25, 1, 1000);
	long seconds = args_number(&args, "--seconds", 5, 1, 3600);
	long rounds = args_number(&args, "--rounds", 3, 1, 1000);
	uint64_t seed = (uint64_t)args_number(&args, "--seed", (long)(now_ns() % 1000000), 0, 1000000000);
	uint64_t random = seed;
	FILE *json = json_open(args_text(&args, "--json", NULL));
	print_where(url, seed);
	printf("%d threads on a pool of %d, %ld s each: %s\n", threads, pool_size, seconds, sql);
	if (json)
		fprintf(json, "{\"benchmark\": \"fairness\", \"seed\": %llu, \"threads\": %d, \"pool\": %d, \"runs\": [",
		        (unsigned long long)seed, threads, pool_size);
	run_rounds(threads, seconds * 1000, rounds, &random, json);
	if (json) {
		fputs("]}\n", json);
		fclose(json);
	}
	return 0;
}
