/*
 * prepared_select: a prepared SELECT by primary key, dbha_exec beside PQexecPrepared.
 *
 *   prepared_select URL [--threads 1,8] [--slices 200] [--slice-ms 100] [--intent write] [--seed N] [--json FILE]
 *   prepared_select URL --once N --side libpq|dbha      N statements of one side and nothing else, for callgrind
 *
 * How it measures. In a slice all threads work for one side, until they are told to stop. Slices come in pairs, one of
 * each side, in random order; the ratio is made within a pair (dbha / libpq, more is better), so that what else the
 * machine is doing falls on both. Before the first pair one slice of each side runs that is not counted.
 *
 * The length of a slice matters with 8 threads: the same library came out at 0.93 to 0.96 with 20 ms and at 1.00 with
 * 100 ms. Probably the library pays at the start of a slice (its connections have rested and are looked at, threads
 * meet other ones than before; by hand each keeps its own); that has not been proved. Run it with --slice-ms 20 as
 * well, and report both.
 *
 * What is the same: the server, the URL, the statement, the keys (one generator), the text parameter, what is done with
 * the result, and the number of connections (one a thread on either side; those of the other side are idle meanwhile).
 * By hand each thread has a connection of its own and prepares once. Through the library all threads share one handle.
 *
 * What is not: the library finds the primary, takes a connection out of a pool and gives it back, keeps a deadline,
 * counts, and probes in the background. By hand there is none of it: PQexecPrepared waits for ever, on one server, and
 * a thread that shares its connection with nobody needs no pool. A ratio of 1 would mean that all of this costs
 * nothing.
 *
 * How to read it. Median, then the 95 % limits of the median, then quartiles and extremes over the pairs; on a busy
 * machine single pairs are far off, and only the limits of the median say anything. `client CPU` is what the calling
 * threads spent on a statement, user and system; the line of differences is made within pairs and needs far fewer of
 * them than the rates. The background thread works during the slices of both sides, so that the ratio does not hold its
 * cost: it is printed apart, as a share of one processor. instructions.sh counts instructions, which no other load
 * disturbs.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROWS 10000

static const char usage[] = "prepared_select URL [--threads 1,8] [--slices 200] [--slice-ms 100] [--intent write|read|none] "
                            "[--seed N] [--json FILE]\n"
                            "prepared_select URL --once N --side libpq|dbha";

enum side {
	LIBPQ,
	DBHA,
	N_SIDES,
};

static const char *const side_names[N_SIDES] = {"libpq", "dbha"};

static char table[64];
static char statement[160];
static dbha *handle;
static dbha_intent intent = DBHA_WRITE;
static PGconn **by_hand; /* one a thread */

/* ---- the table ------------------------------------------------------------------------------------------------- */

static void make_table(PGconn *conn)
{
	char sql[512];
	snprintf(table, sizeof table, "dbha_bench_accounts_%ld", (long)getpid());
	snprintf(sql, sizeof sql,
	         "CREATE TABLE %s (aid int PRIMARY KEY, bid int, abalance int, filler char(84));"
	         "INSERT INTO %s SELECT i, 1, i %% 1000, '' FROM generate_series(1, %d) i",
	         table, table, ROWS);
	command(conn, sql);
	snprintf(sql, sizeof sql, "VACUUM ANALYZE %s", table);
	command(conn, sql);
	snprintf(statement, sizeof statement, "SELECT abalance FROM %s WHERE aid = $1", table);
}

static void drop_table(PGconn *conn)
{
	char sql[160];
	snprintf(sql, sizeof sql, "DROP TABLE %s", table);
	command(conn, sql);
}

/* ---- one statement --------------------------------------------------------------------------------------------- */

/* The same for both sides: the row must be there, its value is looked at, the result is freed. */
static void use_result(PGresult *result, int key)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		die("no row for the key %d: %s", key, PQresultErrorMessage(result));
	if (atoi(PQgetvalue(result, 0, 0)) != key % 1000)
		die("a wrong row for the key %d", key);
	PQclear(result);
}

static void select_libpq(PGconn *conn, int key)
{
	char text[12];
	const char *values[] = {text};
	snprintf(text, sizeof text, "%d", key);
	use_result(PQexecPrepared(conn, "by_key", 1, values, NULL, NULL, 0), key);
}

static void select_dbha(int key)
{
	char text[12];
	const char *values[] = {text};
	PGresult *result;
	dbha_error err;
	snprintf(text, sizeof text, "%d", key);
	dbha_request request = DBHA_REQUEST(.sql = statement, .intent = intent, .n_params = 1, .values = values);
	if (dbha_exec(handle, &request, &result, &err) != DBHA_OK)
		die("dbha: %s", err.message);
	use_result(result, key);
}

static int next_key(uint64_t *random)
{
	return (int)(random_next(random) % ROWS) + 1;
}

static long work_libpq(struct worker *worker, const atomic_bool *stop)
{
	PGconn *conn = by_hand[worker->index];
	long n = 0;
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++)
		select_libpq(conn, next_key(&worker->random));
	return n;
}

static long work_dbha(struct worker *worker, const atomic_bool *stop)
{
	long n = 0;
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++)
		select_dbha(next_key(&worker->random));
	return n;
}

/* ---- both sides, for a number of threads ------------------------------------------------------------------------ */

static void open_sides(const char *url, int threads)
{
	by_hand = calloc((size_t)threads, sizeof *by_hand);
	if (!by_hand)
		die("out of memory");
	for (int i = 0; i < threads; i++) {
		by_hand[i] = connect_by_hand(url);
		PGresult *result = PQprepare(by_hand[i], "by_key", statement, 1, NULL);
		if (PQresultStatus(result) != PGRES_COMMAND_OK)
			die("libpq: %s", PQerrorMessage(by_hand[i]));
		PQclear(result);
	}
	handle = open_handle(url, threads, threads);
}

static void close_sides(int threads)
{
	dbha_close(handle, 1000);
	for (int i = 0; i < threads; i++)
		PQfinish(by_hand[i]);
	free(by_hand);
}

struct outcome {
	struct series rate[N_SIDES], cpu[N_SIDES], ratio, extra_cpu;
	double background; /* CPU of the library's thread, as a share of one processor */
};

/* Nobody calls, so that what the process spends is the background thread's. */
static double watch_background(void)
{
	int64_t began = now_ns();
	int64_t cpu = process_cpu_ns();
	sleep_ms(1500);
	return (double)(process_cpu_ns() - cpu) / (double)(now_ns() - began);
}

static void measure(const char *url, int threads, long pairs, long ms, uint64_t *random, struct outcome *out)
{
	static const work_function works[N_SIDES] = {work_libpq, work_dbha};
	struct crew crew;
	open_sides(url, threads);
	crew_start(&crew, threads, random);
	for (long pair = -1; pair < pairs; pair++) {
		double rate[N_SIDES];
		double cpu[N_SIDES];
		int first = (int)(random_next(random) >> 63);
		for (int i = 0; i < N_SIDES; i++) {
			int side = i ^ first;
			rate[side] = crew_slice(&crew, works[side], ms, &cpu[side]);
		}
		if (pair < 0)
			continue;
		for (int side = 0; side < N_SIDES; side++) {
			series_add(&out->rate[side], rate[side]);
			series_add(&out->cpu[side], cpu[side] / 1000);
		}
		series_add(&out->ratio, rate[DBHA] / rate[LIBPQ]);
		series_add(&out->extra_cpu, (cpu[DBHA] - cpu[LIBPQ]) / 1000);
	}
	out->background = watch_background();
	crew_end(&crew);
	close_sides(threads);
}

static void print_side(const char *side, const struct series *rates, const struct series *cpus, FILE *json)
{
	struct spread rate = series_spread(rates);
	struct spread cpu = series_spread(cpus);
	char name[32];
	printf("    %-5s  %8.0f /s  (quartiles %.0f %.0f; extremes %.0f %.0f)  client CPU %.2f us\n", side, rate.median,
	       rate.q1, rate.q3, rate.min, rate.max, cpu.median);
	if (!json)
		return;
	fputs(", ", json);
	snprintf(name, sizeof name, "%s_per_second", side);
	json_spread(json, name, &rate);
	fputs(", ", json);
	snprintf(name, sizeof name, "%s_cpu_us", side);
	json_spread(json, name, &cpu);
}

static void print_outcome(int threads, const struct outcome *out, FILE *json)
{
	struct spread ratio = series_spread(&out->ratio);
	struct spread extra = series_spread(&out->extra_cpu);
	printf(
	    "%d thread%s  dbha / libpq  %.4f  (95 %%: %.4f to %.4f; quartiles %.3f %.3f; extremes %.3f %.3f; %d pairs)\n",
	    threads, threads == 1 ? " " : "s", ratio.median, ratio.low, ratio.high, ratio.q1, ratio.q3, ratio.min,
	    ratio.max, ratio.n);
	if (json)
		fprintf(json, "{\"threads\": %d, ", threads);
	json_spread(json, "ratio", &ratio);
	for (int side = 0; side < N_SIDES; side++)
		print_side(side_names[side], &out->rate[side], &out->cpu[side], json);
	printf("    dbha - libpq: client CPU %+.2f us  (95 %%: %+.2f to %+.2f); background thread %.2f %% of a processor\n",
	       extra.median, extra.low, extra.high, 100 * out->background);
	fflush(stdout);
	if (!json)
		return;
	fputs(", ", json);
	json_spread(json, "extra_cpu_us", &extra);
	fprintf(json, ", \"background_share\": %.5f}", out->background);
}

static void free_outcome(struct outcome *out)
{
	series_free(&out->ratio);
	series_free(&out->extra_cpu);
	for (int side = 0; side < N_SIDES; side++) {
		series_free(&out->rate[side]);
		series_free(&out->cpu[side]);
	}
}

static void compare_sides(const struct args *args, const char *url)
{
	int threads[16];
	int n = args_list(args, "--threads", "1,8", threads, 16);
	long pairs = args_number(args, "--slices", 200, 1, 100000);
	long ms = args_number(args, "--slice-ms", 100, 1, 60000);
	uint64_t seed = (uint64_t)args_number(args, "--seed", (long)(now_ns() % 1000000), 0, 1000000000);
	uint64_t random = seed;
	FILE *json = json_open(args_text(args, "--json", NULL));
	print_where(url, seed);
	if (json)
		fprintf(json, "{\"benchmark\": \"prepared_select\", \"seed\": %llu, \"slice_ms\": %ld, \"results\": [",
		        (unsigned long long)seed, ms);
	for (int i = 0; i < n; i++) {
		struct outcome out = {0};
		measure(url, threads[i], pairs, ms, &random, &out);
		if (json && i > 0)
			fputs(", ", json);
		print_outcome(threads[i], &out, json);
		free_outcome(&out);
	}
	if (json) {
		fputs("]}\n", json);
		fclose(json);
	}
}

/* Both sides are opened, so that all but the statements is the same; 10 statements in front make plans generic. */
static void run_once(const char *url, const char *side, long n)
{
	uint64_t random = 1;
	bool through_libpq = strcmp(side, side_names[LIBPQ]) == 0;
	if (!through_libpq && strcmp(side, side_names[DBHA]) != 0)
		die("--side: libpq or dbha");
	open_sides(url, 1);
	for (long i = 0; i < n + 10; i++) {
		if (through_libpq)
			select_libpq(by_hand[0], next_key(&random));
		else
			select_dbha(next_key(&random));
	}
	close_sides(1);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--threads", "--slices", "--slice-ms", "--intent", "--seed",
	                                    "--json",    "--once",   "--side",     NULL};
	struct args args = {argc, argv};
	const char *url = args_url(&args, names, usage);
	const char *word = args_text(&args, "--intent", "write");
	if (strcmp(word, "none") != 0 && strcmp(word, "read") != 0 && strcmp(word, "write") != 0)
		die("--intent: read, write or none (with routing=auto the statement decides)");
	intent = strcmp(word, "none") == 0 ? DBHA_DEFAULT : strcmp(word, "read") == 0 ? DBHA_READ : DBHA_WRITE;
	long once = args_number(&args, "--once", 0, 1, 1000000000);
	PGconn *conn = connect_by_hand(url);
	make_table(conn);
	if (once)
		run_once(url, args_text(&args, "--side", "dbha"), once);
	else
		compare_sides(&args, url);
	drop_table(conn);
	PQfinish(conn);
	return 0;
}
