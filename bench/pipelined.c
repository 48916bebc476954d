/*
 * pipelined: many statements in flight from one thread, dbha_engine beside eight threads of libpq and beside pipelining by hand.
 *
 *   pipelined URL [--slices 40] [--slice-ms 250] [--connections 4] [--depth 64] [--threads 8] [--group 16]
 *             [--seed N] [--json FILE]
 *   pipelined URL --once N --side by_hand|by_hand_grouped|by_hand_same|engine [--statement update]   for callgrind: that and nothing else
 *
 * How it measures. In a slice one side works for slice-ms and then waits for what is in flight. Slices come in rounds, one of each side in
 * random order, and the ratios are made within a round, so that what else the machine is doing falls on all. The first round is not
 * counted.
 *
 * What is the same: the server, the URL, the statement, the keys, the text parameter, what is done with each result. By hand and through the
 * engine one thread keeps connections * depth statements in flight. The threads have a connection each and wait for each answer.
 *
 *   threads         PQexecPrepared
 *   by_hand         pipelined, a Sync for each statement
 *   by_hand_grouped pipelined, a Sync for so many reads as in the engine (--group), for each write
 *   by_hand_same    the same, with what the engine sends besides: a guard before each such group, which makes its transaction read-only; and
 *                   with TCP_CORK as the engine does it, where libpq has no PQsendPipelineSync (before 17) and each Sync is a send()
 *   engine          dbha_engine
 *
 * What is not: by hand there is one server, no deadline, no queue, no copy of the statement, nothing that would send it elsewhere, and an
 * error ends the program.
 */
#include "bench.h"

#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ROWS            10000
#define CONNECTIONS_MAX 32
/* What the engine sends before reads that share a Sync, where the session could write. */
#define GUARD                                                                                                          \
	"SELECT pg_catalog.current_setting('transaction_isolation'), "                                                     \
	"pg_catalog.set_config('transaction_read_only', 'on', true)"

static const char usage[] =
    "pipelined URL [--slices 40] [--slice-ms 250] [--connections 4] [--depth 64] [--threads 8] [--seed N] "
    "[--json FILE]";

enum side {
	THREADS,
	HAND,
	GROUPED,
	SAME,
	ENGINE,
	N_SIDES,
};

static const char *const side_names[N_SIDES] = {"threads", "by_hand", "by_hand_grouped", "by_hand_same", "engine"};

static char table[64];
static char statement[160];
static bool writes;
static long connections, depth, group;
static long limit = LONG_MAX; /* with --once: so many are sent, or a few more */
static dbha *handle;
static dbha_engine *engine;
static PGconn *piped[CONNECTIONS_MAX], **threaded;

static void make_table(PGconn *conn)
{
	char sql[512];
	snprintf(table, sizeof table, "dbha_bench_accounts_%ld", (long)getpid());
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

static void print_key(char text[12], uint64_t *random)
{
	snprintf(text, 12, "%d", (int)(random_next(random) % ROWS) + 1);
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

static long work_threads(struct worker *worker, const atomic_bool *stop)
{
	long n = 0;
	char text[12];
	const char *values[] = {text};
	for (; !atomic_load_explicit(stop, memory_order_relaxed); n++) {
		print_key(text, &worker->random);
		use_result(PQexecPrepared(threaded[worker->index], "by_key", 1, values, NULL, NULL, 0));
	}
	return n;
}

/* ---- by hand --------------------------------------------------------------------------------------------------- */

static void cork(PGconn *conn, int on)
{
	setsockopt(PQsocket(conn), IPPROTO_TCP, TCP_CORK, &on, sizeof on);
}

/* How a side pipelines by hand. */
struct manner {
	long group; /* statements to a Sync */
	bool guard, cork;
};

/* What is in flight on a connection. */
struct flight {
	long n;
	long open; /* behind the last Sync */
};

static void check_sent(PGconn *conn, int sent)
{
	if (!sent)
		die("by hand: %s", PQerrorMessage(conn));
}

static void fill(PGconn *conn, struct flight *flight, const struct manner *manner, uint64_t *random)
{
	char text[12];
	const char *values[] = {text};
	int syncs = 0;
	for (; flight->n < depth; flight->n++) {
		print_key(text, random);
		if (manner->guard && flight->open == 0)
			check_sent(conn, PQsendQueryPrepared(conn, "guard", 0, NULL, NULL, NULL, 0));
		check_sent(conn, PQsendQueryPrepared(conn, "by_key", 1, values, NULL, NULL, 0));
		if (++flight->open < manner->group && flight->n + 1 < depth)
			continue;
		if (manner->cork && ++syncs == 2)
			cork(conn, 1);
		check_sent(conn, PQpipelineSync(conn));
		flight->open = 0;
	}
	if (syncs >= 2)
		cork(conn, 0);
	if (PQflush(conn) < 0)
		die("by hand: %s", PQerrorMessage(conn));
}

static long take(PGconn *conn, struct flight *flight)
{
	long n = 0;
	if (!PQconsumeInput(conn))
		die("by hand: %s", PQerrorMessage(conn));
	while (flight->n > 0 && !PQisBusy(conn)) {
		PGresult *result = PQgetResult(conn);
		if (!result)
			continue;
		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
			PQclear(result);
		} else if (PQnfields(result) == 2) {
			PQclear(result); /* of a guard */
		} else {
			use_result(result);
			flight->n--;
			n++;
		}
	}
	return n;
}

static long work_hand(struct worker *worker, const atomic_bool *stop, struct manner manner)
{
	long n = 0, all = 1;
	struct flight flights[CONNECTIONS_MAX] = {0};
	struct pollfd items[CONNECTIONS_MAX];
	for (int i = 0; i < connections; i++)
		items[i] = (struct pollfd){.fd = PQsocket(piped[i]), .events = POLLIN};
	while (all > 0) {
		bool over = atomic_load_explicit(stop, memory_order_relaxed) || n >= limit;
		for (int i = 0; i < connections && !over; i++)
			if (flights[i].n < depth)
				fill(piped[i], &flights[i], &manner, &worker->random);
		poll(items, (nfds_t)connections, 1000);
		all = over ? 0 : 1;
		for (int i = 0; i < connections; i++) {
			if (items[i].revents)
				n += take(piped[i], &flights[i]);
			all += flights[i].n;
		}
	}
	return n;
}

static long work_by_hand(struct worker *worker, const atomic_bool *stop)
{
	return work_hand(worker, stop, (struct manner){.group = 1});
}

static long work_grouped(struct worker *worker, const atomic_bool *stop)
{
	return work_hand(worker, stop, (struct manner){.group = writes ? 1 : group});
}

static long work_same(struct worker *worker, const atomic_bool *stop)
{
	return work_hand(worker, stop, (struct manner){.group = writes ? 1 : group, .guard = !writes, .cork = true});
}

/* ---- the engine ------------------------------------------------------------------------------------------------ */

static void submit(uint64_t *random)
{
	char text[12];
	const char *values[] = {text};
	dbha_error err;
	print_key(text, random);
	dbha_intent intent = writes ? DBHA_WRITE : DBHA_READ;
	dbha_request rq = DBHA_REQUEST(.sql = statement, .intent = intent, .n_params = 1, .values = values);
	if (dbha_submit(engine, &rq, 0, &err) != DBHA_OK)
		die("dbha: %s", err.message);
}

static bool complete(int timeout_ms)
{
	dbha_error err;
	dbha_completion done = {.size = sizeof done};
	int got = dbha_next_completion(engine, &done, timeout_ms, &err);
	if (got < 0 || (got && done.code != DBHA_OK))
		die("dbha: %s", got < 0 ? err.message : done.error.message);
	if (got)
		use_result(done.result);
	return got;
}

static long work_engine(struct worker *worker, const atomic_bool *stop)
{
	long n = 0, in_flight = 0;
	for (;;) {
		bool over = atomic_load_explicit(stop, memory_order_relaxed) || n >= limit;
		for (; !over && in_flight < connections * depth; in_flight++)
			submit(&worker->random);
		if (in_flight == 0)
			return n;
		for (int timeout_ms = 10000; complete(timeout_ms); timeout_ms = 0) {
			in_flight--;
			n++;
			if (in_flight == 0)
				break;
		}
	}
}

/* ---- measuring ------------------------------------------------------------------------------------------------- */

static PGconn *prepared(const char *url, bool pipeline)
{
	PGconn *conn = connect_by_hand(url);
	PGresult *result = PQprepare(conn, "by_key", statement, 1, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("libpq: %s", PQerrorMessage(conn));
	PQclear(result);
	if (pipeline)
		PQclear(PQprepare(conn, "guard", GUARD, 0, NULL));
	if (pipeline && (PQsetnonblocking(conn, 1) != 0 || !PQenterPipelineMode(conn)))
		die("libpq: %s", PQerrorMessage(conn));
	return conn;
}

static void open_sides(const char *url, int threads)
{
	dbha_error err;
	dbha_engine_options options = DBHA_ENGINE_OPTIONS(.connections = (int)connections, .depth = (int)depth,
	                                                  .queue = (int)(2 * connections * depth));
	threaded = calloc((size_t)threads, sizeof(PGconn *));
	for (int i = 0; threaded && i < threads; i++)
		threaded[i] = prepared(url, false);
	for (int i = 0; i < connections; i++)
		piped[i] = prepared(url, true);
	handle = open_handle(url, (int)connections, (int)connections);
	engine = dbha_engine_open(handle, &options, &err);
	if (!threaded || !engine)
		die("dbha: %s", engine ? "out of memory" : err.message);
}

static void close_sides(int threads)
{
	dbha_engine_close(engine);
	dbha_close(handle, 1000);
	for (int i = 0; i < connections; i++)
		PQfinish(piped[i]);
	for (int i = 0; i < threads; i++)
		PQfinish(threaded[i]);
	free(threaded);
}

static void print_ratio(const char *name, struct series *series, FILE *json)
{
	struct spread spread = series_spread(series);
	printf("  engine / %-15s %.3f  (95 %%: %.3f to %.3f; quartiles %.3f %.3f)\n", name, spread.median, spread.low,
	       spread.high, spread.q1, spread.q3);
	if (json)
		fputs(", ", json);
	json_spread(json, name, &spread);
	series_free(series);
}

/* So many of one side and nothing else, for callgrind: on this thread. */
static void once(const struct args *args, const char *url, uint64_t *random)
{
	static const work_function works[N_SIDES] = {NULL, work_by_hand, work_grouped, work_same, work_engine};
	const char *name = args_text(args, "--side", "engine");
	atomic_bool stop = false;
	struct worker worker = {.random = random_next(random)};
	int side = HAND;
	while (side < N_SIDES && strcmp(side_names[side], name) != 0)
		side++;
	if (side == N_SIDES)
		die("--side %s: one that pipelines", name);
	limit = args_number(args, "--once", 0, 1, 100000000);
	open_sides(url, 1);
	works[side](&worker, &stop);
	close_sides(1);
}

static void measure(const struct args *args, const char *url, uint64_t *random, FILE *json)
{
	static const work_function works[N_SIDES] = {work_threads, work_by_hand, work_grouped, work_same, work_engine};
	long rounds = args_number(args, "--slices", 40, 1, 100000);
	long ms = args_number(args, "--slice-ms", 250, 1, 60000);
	int threads = (int)args_number(args, "--threads", 8, 1, 256);
	struct series rates[N_SIDES] = {0}, cpus[N_SIDES] = {0}, ratios[N_SIDES] = {0};
	struct crew one, many;
	open_sides(url, threads);
	crew_start(&one, 1, random);
	crew_start(&many, threads, random);
	for (long round = -1; round < rounds; round++) {
		double rate[N_SIDES], cpu[N_SIDES];
		int first = (int)(random_next(random) % N_SIDES);
		for (int i = 0; i < N_SIDES; i++) {
			int side = (first + i) % N_SIDES;
			rate[side] = crew_slice(side == THREADS ? &many : &one, works[side], ms, &cpu[side]);
		}
		for (int side = 0; round >= 0 && side < N_SIDES; side++) {
			series_add(&rates[side], rate[side]);
			series_add(&cpus[side], cpu[side] / 1000);
			series_add(&ratios[side], rate[ENGINE] / rate[side]);
		}
	}
	crew_end(&many);
	crew_end(&one);
	close_sides(threads);
	printf("%s\n", writes ? "UPDATE by key" : "SELECT by key");
	if (json)
		fprintf(json, "{\"statement\": \"%s\"", writes ? "update" : "select");
	for (int side = 0; side < N_SIDES; side++) {
		struct spread rate = series_spread(&rates[side]), cpu = series_spread(&cpus[side]);
		printf("  %-15s %9.0f /s  (quartiles %.0f %.0f)  client CPU %.2f us\n", side_names[side], rate.median, rate.q1,
		       rate.q3, cpu.median);
		series_free(&rates[side]);
		series_free(&cpus[side]);
	}
	for (int side = 0; side < ENGINE; side++)
		print_ratio(side_names[side], &ratios[side], json);
	series_free(&ratios[ENGINE]);
	if (json)
		fputs("}", json);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--slices",  "--slice-ms",  "--connections", "--depth",
	                                    "--threads", "--group",     "--seed",        "--once",
	                                    "--side",    "--statement", "--json",        NULL};
	struct args args = {argc, argv};
	const char *url = args_url(&args, names, usage);
	connections = args_number(&args, "--connections", 4, 1, CONNECTIONS_MAX);
	depth = args_number(&args, "--depth", 64, 1, 4096);
	group = args_number(&args, "--group", 16, 1, 4096);
	uint64_t seed = (uint64_t)args_number(&args, "--seed", (long)(now_ns() % 1000000), 0, 1000000000);
	uint64_t random = seed;
	FILE *json = json_open(args_text(&args, "--json", NULL));
	PGconn *conn = connect_by_hand(url);
	print_where(url, seed);
	make_table(conn);
	if (json)
		fputs("{\"benchmark\": \"pipelined\", \"results\": [", json);
	for (int i = 0; i < 2; i++) {
		writes = i == 1;
		snprintf(statement, sizeof statement,
		         writes ? "UPDATE %s SET abalance = abalance + 1 WHERE aid = $1"
		                : "SELECT abalance FROM %s WHERE aid = $1",
		         table);
		if (args_text(&args, "--once", NULL)) {
			if (writes == (strcmp(args_text(&args, "--statement", "select"), "update") == 0))
				once(&args, url, &random);
			continue;
		}
		if (json && i)
			fputs(", ", json);
		measure(&args, url, &random, json);
	}
	if (json) {
		fputs("]}\n", json);
		fclose(json);
	}
	char sql[160];
	snprintf(sql, sizeof sql, "DROP TABLE %s", table);
	command(conn, sql);
	PQfinish(conn);
	return 0;
}
