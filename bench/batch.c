/*
 * batch: many INSERTs at a time: dbha_batch beside PQexecPrepared one by one and beside pipelining by hand.
 *
 *   batch URL [--rounds 20] [--rows 10000] [--bytes 100] [--seed N] [--json FILE]
 *
 * How it measures. In a round each way inserts the same rows into an empty table, in random order of the ways; the ratios are made within a
 * round, so that what else the machine is doing falls on all. The first round is not counted.
 *
 * What is the same: the server, the text, the values, the transaction (one for all rows; with `each` one per row), and that every result is
 * looked at. What is not: by hand nothing knows a deadline, and an error ends the program. One by one without BEGIN is not
 * measured: it waits for the disk more than for anything else.
 */
#include "bench.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] = "batch URL [--rounds 20] [--rows 10000] [--bytes 100] [--seed N] [--json FILE]";

enum way {
	ONE_BY_ONE,
	PIPELINED,
	BATCH,
	PIPELINED_EACH,
	BATCH_EACH,
	N_WAYS,
};

static const char *const way_names[N_WAYS] = {"one by one, in BEGIN", "pipelined by hand", "dbha_batch",
                                              "pipelined by hand, each", "dbha_batch, each"};

static char table[64], statement[160];
static long rows;
static PGconn *conn;
static dbha *handle;
static dbha_request *requests;
static const char *(*values)[2];
static PGresult **results;

static void check(PGresult *result)
{
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("libpq: %s", PQresultErrorMessage(result));
	PQclear(result);
}

static void one_by_one(void)
{
	command(conn, "BEGIN");
	for (long i = 0; i < rows; i++)
		check(PQexecPrepared(conn, "put", 2, values[i], NULL, NULL, 0));
	command(conn, "COMMIT");
}

/* What has come, without waiting. Returns how many statements are answered. */
static long take(long answered, bool each)
{
	while (!PQisBusy(conn) && answered < rows) {
		PGresult *result = PQgetResult(conn);
		if (!result || PQresultStatus(result) == PGRES_PIPELINE_SYNC) {
			PQclear(result);
			continue;
		}
		check(result);
		answered++;
		if (!each && answered == rows)
			break;
	}
	return answered;
}

/* Both sides may be writing: what has come is read while more is sent. */
static void pipelined(bool each)
{
	long sent = 0, answered = 0;
	PQsetnonblocking(conn, 1);
	if (!PQenterPipelineMode(conn))
		die("libpq: no pipeline");
	while (answered < rows) {
		for (int n = 0; n < 128 && sent < rows; n++, sent++) {
			if (!PQsendQueryPrepared(conn, "put", 2, values[sent], NULL, NULL, 0))
				die("libpq: %s", PQerrorMessage(conn));
			if ((each || sent + 1 == rows) && !PQpipelineSync(conn))
				die("libpq: %s", PQerrorMessage(conn));
		}
		int unsent = PQflush(conn);
		if (unsent || sent == rows) {
			struct pollfd item = {.fd = PQsocket(conn), .events = (short)(POLLIN | (unsent ? POLLOUT : 0))};
			poll(&item, 1, -1);
		}
		if (!PQconsumeInput(conn))
			die("libpq: %s", PQerrorMessage(conn));
		answered = take(answered, each);
	}
	PGresult *result;
	int empty = 0;
	PQsetnonblocking(conn, 0);
	while (empty < 2) {
		result = PQgetResult(conn);
		empty = result ? 0 : empty + 1;
		bool synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
		PQclear(result);
		if (synced)
			break;
	}
	if (!PQexitPipelineMode(conn))
		die("libpq: %s", PQerrorMessage(conn));
}

static void batch(bool each)
{
	dbha_error err;
	dbha_batch_request rq = DBHA_BATCH(.requests = requests, .n = (int)rows, .each = each, .intent = DBHA_WRITE,
	                                   .results = results, .timeout_ms = 120000);
	if (dbha_batch(handle, &rq, &err) != DBHA_OK)
		die("dbha: %s", err.message);
	for (long i = 0; i < rows; i++)
		check(results[i]);
}

static void go(enum way way)
{
	switch (way) {
	case ONE_BY_ONE:
		one_by_one();
		return;
	case PIPELINED:
	case PIPELINED_EACH:
		pipelined(way == PIPELINED_EACH);
		return;
	case BATCH:
	case BATCH_EACH:
	case N_WAYS:
		break;
	}
	batch(way == BATCH_EACH);
}

static void round_of_all(uint64_t *random, double rates[N_WAYS])
{
	enum way order[N_WAYS] = {ONE_BY_ONE, PIPELINED, BATCH, PIPELINED_EACH, BATCH_EACH};
	char sql[96];
	snprintf(sql, sizeof sql, "TRUNCATE %s", table);
	for (int i = N_WAYS - 1; i > 0; i--) {
		int j = (int)(random_next(random) % (uint64_t)(i + 1));
		enum way other = order[j];
		order[j] = order[i];
		order[i] = other;
	}
	for (int i = 0; i < N_WAYS; i++) {
		command(conn, sql);
		int64_t began = now_ns();
		go(order[i]);
		rates[order[i]] = (double)rows * 1e9 / (double)(now_ns() - began);
	}
}

static void print_ratio(FILE *json, const char *name, struct series *ratios, const char *end)
{
	struct spread spread = series_spread(ratios);
	printf("%-42s %.2f (%.2f to %.2f)\n", name, spread.median, spread.low, spread.high);
	json_spread(json, name, &spread);
	if (json)
		fprintf(json, "%s\n", end);
	series_free(ratios);
}

static void measure(FILE *json, long rounds, uint64_t *random)
{
	struct series rates[N_WAYS] = {0}, to_one = {0}, to_hand = {0}, each_to_hand = {0};
	double rate[N_WAYS];
	round_of_all(random, rate);
	for (long i = 0; i < rounds; i++) {
		round_of_all(random, rate);
		for (int way = 0; way < N_WAYS; way++)
			series_add(&rates[way], rate[way]);
		series_add(&to_one, rate[BATCH] / rate[ONE_BY_ONE]);
		series_add(&to_hand, rate[BATCH] / rate[PIPELINED]);
		series_add(&each_to_hand, rate[BATCH_EACH] / rate[PIPELINED_EACH]);
	}
	for (int way = 0; way < N_WAYS; way++) {
		printf("%-26s %.0f rows/s\n", way_names[way], series_spread(&rates[way]).median);
		series_free(&rates[way]);
	}
	print_ratio(json, "dbha_batch / one by one", &to_one, ",");
	print_ratio(json, "dbha_batch / pipelined by hand", &to_hand, ",");
	print_ratio(json, "dbha_batch, each / pipelined by hand, each", &each_to_hand, "");
}

static void make_rows(long bytes)
{
	char *filler = calloc(1, (size_t)bytes + 1), (*keys)[12] = calloc((size_t)rows, sizeof *keys);
	requests = calloc((size_t)rows, sizeof *requests);
	values = calloc((size_t)rows, sizeof *values);
	results = calloc((size_t)rows, sizeof(PGresult *));
	if (!filler || !keys || !requests || !values || !results)
		die("no memory");
	memset(filler, 'x', (size_t)bytes);
	for (long i = 0; i < rows; i++) {
		snprintf(keys[i], sizeof keys[i], "%d", (int)i);
		values[i][0] = keys[i];
		values[i][1] = filler;
		requests[i] = DBHA_REQUEST(.sql = statement, .n_params = 2, .values = values[i]);
	}
}

static void make_table(void)
{
	char sql[160];
	snprintf(table, sizeof table, "dbha_bench_batch_%ld", (long)getpid());
	snprintf(sql, sizeof sql, "CREATE TABLE %s (n int, filler text)", table);
	command(conn, sql);
	snprintf(statement, sizeof statement, "INSERT INTO %s VALUES ($1, $2)", table);
	check(PQprepare(conn, "put", statement, 2, NULL));
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--rounds", "--rows", "--bytes", "--seed", "--json", NULL};
	struct args args = {argc, argv};
	char sql[96];
	const char *url = args_url(&args, names, usage);
	long rounds = args_number(&args, "--rounds", 20, 1, 100000);
	rows = args_number(&args, "--rows", 10000, 1, 1000000);
	uint64_t random = (uint64_t)args_number(&args, "--seed", (long)(now_ns() & 0xffffff), 0, 1L << 40);
	FILE *json = json_open(args_text(&args, "--json", NULL));
	print_where(url, random);
	conn = connect_by_hand(url);
	handle = open_handle(url, 2, 1);
	make_table();
	make_rows(args_number(&args, "--bytes", 100, 0, 1000000));
	if (json)
		fprintf(json, "{\n");
	measure(json, rounds, &random);
	if (json) {
		fprintf(json, "}\n");
		fclose(json);
	}
	dbha_close(handle, 1000);
	snprintf(sql, sizeof sql, "DROP TABLE %s", table);
	command(conn, sql);
	PQfinish(conn);
	return 0;
}
