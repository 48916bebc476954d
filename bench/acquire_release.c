/*
 * acquire_release: what it costs to take a connection out of an idle pool and to give it back.
 *
 *   acquire_release URL [--batches 4000] [--batch 1000] [--threads 2,8] [--slices 20] [--slice-ms 100] [--seed N]
 *                       [--json FILE]
 *   acquire_release URL --once N --side hand|dbha       N pairs of one side and nothing else, for callgrind
 *
 * libpq has no pool. Beside the library stands the least a program can do without one (bench.h, a pool by hand: a mutex
 * and a stack of connections, a look at what comes back); two more lines say what the machine charges for the parts
 * that either is made of: an uncontended mutex, a reading of the monotonic clock. The pool by hand has no deadline, no
 * order of arrival, no routing, no lifetime, no counters and no closing: it is the floor, not a peer.
 *
 * Uncontended: one thread, batches of each kind in random order; the minimum is what the code costs, the median what it
 * costs on this machine as it is now. Contended: 2 and 8 threads on a pool of 8, so that nobody ever waits for a
 * connection: what is seen is the lock. Each does nothing but acquire and release, which no program does: it is the
 * worst case. `ns a thread` is the time between two acquires of the same thread; with more threads than processors most
 * of it is waiting for a processor.
 *
 * Rested: one acquire + release after 12 ms of idleness. A connection that has rested is looked at before it is
 * handed out (one system call), and the caches have gone cold; the line by hand shows the latter alone.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#define POOL_SIZE 8
#define REST_MS   12

static const char usage[] =
    "acquire_release URL [--batches 4000] [--batch 1000] [--threads 2,8] [--slices 20] [--slice-ms 100] [--seed N]\n"
    "                    [--json FILE]\n"
    "acquire_release URL --once N --side hand|dbha";

static dbha *handle;
static struct hand_pool pool;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* ---- the kinds ------------------------------------------------------------------------------------------------- */

static void once_dbha(void)
{
	dbha_conn *conn = dbha_acquire(handle, DBHA_WRITE, 0, NULL);
	if (!conn)
		die("dbha: no connection");
	dbha_release(conn);
}

static void once_hand(void)
{
	hand_pool_release(&pool, hand_pool_acquire(&pool));
}

static void once_mutex(void)
{
	pthread_mutex_lock(&mutex);
	pthread_mutex_unlock(&mutex);
}

static void once_clock(void)
{
	now_ns();
}

enum kind {
	KIND_DBHA,
	KIND_HAND,
	KIND_MUTEX,
	KIND_CLOCK,
	N_KINDS,
};

static const struct {
	const char *name;
	void (*once)(void);
} kinds[N_KINDS] = {
    {"dbha", once_dbha},
    {"hand", once_hand},
    {"mutex", once_mutex},
    {"clock", once_clock},
};

/* ---- one thread ------------------------------------------------------------------------------------------------ */

static void shuffle(int *order, int n, uint64_t *random)
{
	for (int i = 0; i < n; i++)
		order[i] = i;
	for (int i = n - 1; i > 0; i--) {
		int k = (int)(random_next(random) % (uint64_t)(i + 1));
		int kept = order[i];
		order[i] = order[k];
		order[k] = kept;
	}
}

static double time_batch(void (*once)(void), long n)
{
	int64_t began = now_ns();
	for (long i = 0; i < n; i++)
		once();
	return (double)(now_ns() - began) / (double)n;
}

static void print_kinds(const char *what, struct series *ns, int n_kinds, FILE *json)
{
	printf("%s\n", what);
	for (int kind = 0; kind < n_kinds; kind++) {
		struct spread spread = series_spread(&ns[kind]);
		printf("    %-5s  min %7.1f ns  median %7.1f ns  (quartiles %.1f %.1f; %d batches)\n", kinds[kind].name,
		       spread.min, spread.median, spread.q1, spread.q3, spread.n);
		if (json && kind > 0)
			fputs(", ", json);
		json_spread(json, kinds[kind].name, &spread);
		series_free(&ns[kind]);
	}
}

static void uncontended(long batches, long batch, uint64_t *random, FILE *json)
{
	struct series ns[N_KINDS] = {0};
	for (long i = 0; i < batches; i++) {
		int order[N_KINDS];
		shuffle(order, N_KINDS, random);
		for (int k = 0; k < N_KINDS; k++)
			series_add(&ns[order[k]], time_batch(kinds[order[k]].once, batch));
	}
	print_kinds("uncontended, 1 thread", ns, N_KINDS, json);
}

static void rested(long times, uint64_t *random, FILE *json)
{
	struct series ns[2] = {0};
	for (long i = 0; i < times; i++) {
		int order[2];
		shuffle(order, 2, random);
		for (int k = 0; k < 2; k++) {
			sleep_ms(REST_MS);
			series_add(&ns[order[k]], time_batch(kinds[order[k]].once, 1));
		}
	}
	print_kinds("rested for 12 ms, 1 thread, one at a time", ns, 2, json);
}

/* ---- several threads ------------------------------------------------------------------------------------------- */

static long work(void (*once)(void), const atomic_bool *stop)
{
	long n = 0;
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++)
		once();
	return n;
}

static long work_dbha(struct worker *worker, const atomic_bool *stop)
{
	(void)worker;
	return work(once_dbha, stop);
}

static long work_hand(struct worker *worker, const atomic_bool *stop)
{
	(void)worker;
	return work(once_hand, stop);
}

static void contended(int threads, long slices, long ms, uint64_t *random, FILE *json)
{
	static const work_function works[2] = {work_dbha, work_hand};
	struct series rate[2] = {0};
	struct crew crew;
	crew_start(&crew, threads, random);
	for (long slice = 0; slice < slices; slice++) {
		int order[2];
		shuffle(order, 2, random);
		for (int k = 0; k < 2; k++)
			series_add(&rate[order[k]], crew_slice(&crew, works[order[k]], ms, NULL));
	}
	crew_end(&crew);

	printf("%d threads on a pool of %d\n", threads, POOL_SIZE);
	if (json)
		fprintf(json, ", \"threads_%d\": {", threads);
	for (int kind = 0; kind < 2; kind++) {
		struct spread spread = series_spread(&rate[kind]);
		printf("    %-5s  %6.2f million pairs/s  (quartiles %.2f %.2f)  %7.1f ns a pair, %7.1f ns a thread\n",
		       kinds[kind].name, spread.median / 1e6, spread.q1 / 1e6, spread.q3 / 1e6, 1e9 / spread.median,
		       1e9 * threads / spread.median);
		if (json && kind > 0)
			fputs(", ", json);
		json_spread(json, kinds[kind].name, &spread);
		series_free(&rate[kind]);
	}
	if (json)
		fputs("}", json);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void run_once(const char *side, long n)
{
	for (int kind = 0; kind < 2; kind++) {
		if (strcmp(side, kinds[kind].name) != 0)
			continue;
		for (long i = 0; i < n; i++)
			kinds[kind].once();
		return;
	}
	die("--side: hand or dbha");
}

static void measure(const struct args *args, const char *url)
{
	int threads[16];
	int n = args_list(args, "--threads", "2,8", threads, 16);
	long batches = args_number(args, "--batches", 4000, 1, 1000000);
	long batch = args_number(args, "--batch", 1000, 1, 1000000);
	long slices = args_number(args, "--slices", 20, 1, 100000);
	long ms = args_number(args, "--slice-ms", 100, 1, 60000);
	uint64_t seed = (uint64_t)args_number(args, "--seed", (long)(now_ns() % 1000000), 0, 1000000000);
	uint64_t random = seed;
	FILE *json = json_open(args_text(args, "--json", NULL));
	print_where(url, seed);
	if (json)
		fprintf(json, "{\"benchmark\": \"acquire_release\", \"seed\": %llu, \"uncontended_ns\": {",
		        (unsigned long long)seed);
	uncontended(batches, batch, &random, json);
	if (json)
		fputs("}, \"rested_ns\": {", json);
	rested(200, &random, json);
	if (json)
		fputs("}", json);
	for (int i = 0; i < n; i++)
		contended(threads[i], slices, ms, &random, json);
	if (json) {
		fputs("}\n", json);
		fclose(json);
	}
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--batches", "--batch", "--threads", "--slices", "--slice-ms",
	                                    "--seed",    "--json",  "--once",    "--side",   NULL};
	struct args args = {argc, argv};
	const char *url = args_url(&args, names, usage);
	long once = args_number(&args, "--once", 0, 1, 1000000000);
	hand_pool_open(&pool, url, POOL_SIZE);
	handle = open_handle(url, POOL_SIZE, POOL_SIZE);
	if (once)
		run_once(args_text(&args, "--side", "dbha"), once);
	else
		measure(&args, url);
	dbha_close(handle, 1000);
	hand_pool_close(&pool);
	return 0;
}
