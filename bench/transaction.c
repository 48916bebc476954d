/*
 * transaction: a transaction of one INSERT, and the single INSERT: what the library's care for them costs.
 *
 *   transaction URL [--slices 100] [--slice-ms 100] [--seed N] [--json FILE]
 *
 * One thread. The ways, each a row of the table:
 *   by hand     PQexec BEGIN, PQexecPrepared INSERT, PQexec COMMIT: three round trips, as drivers do it
 *   pipelined   by hand in two: BEGIN and INSERT in one flush, then COMMIT; the least there can be if the caller is to see the
 *               result of the INSERT before he commits
 *   session     dbha_session_begin, _exec, _commit: two as well, and the mark of the transaction comes with the first
 *   insert      the single INSERT, dbha_exec
 *   verified    the same with verify_commit=on
 *
 * How it measures. In a slice one way is gone again and again; slices come in rounds, one of each way in random order, and the
 * ratios are made within a round, so that what else the machine is doing falls on all. Rows go into a table without an index,
 * which is emptied after every round. Before the first round each way runs once and is not counted.
 *
 * How to read it. More is better. `session / pipelined` is the price of the mark and of the library; `session / by hand` is what a user
 * of an ordinary driver gains; `verified / insert` is the price of verify_commit.
 */
#include "bench.h"

#include <string.h>
#include <unistd.h>

static const char usage[] = "transaction URL [--slices 100] [--slice-ms 100] [--seed N] [--json FILE]";

enum way {
	BY_HAND,
	PIPELINED,
	SESSION,
	INSERT,
	VERIFIED,
	N_WAYS,
};

static const char *const way_names[N_WAYS] = {"by hand", "pipelined", "session", "insert", "verified"};

static char table[64];
static char statement[160];
static const char *const values[] = {"4711"};
static PGconn *conn;
static dbha *plain, *verifying;
static dbha_session *session;

static void check(PGresult *result)
{
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		die("libpq: %s", PQresultErrorMessage(result));
	PQclear(result);
}

static void check_dbha(int code, const dbha_error *err)
{
	if (code != DBHA_OK)
		die("dbha: %s", err->message);
}

static void by_hand(void)
{
	check(PQexec(conn, "BEGIN"));
	check(PQexecPrepared(conn, "put", 1, values, NULL, NULL, 0));
	check(PQexec(conn, "COMMIT"));
}

static void pipelined(void)
{
	if (!PQenterPipelineMode(conn) || !PQsendQueryParams(conn, "BEGIN", 0, NULL, NULL, NULL, NULL, 0) ||
	    !PQsendQueryPrepared(conn, "put", 1, values, NULL, NULL, 0) || !PQpipelineSync(conn))
		die("libpq: %s", PQerrorMessage(conn));
	for (int i = 0; i < 2; i++) {
		check(PQgetResult(conn));
		PQclear(PQgetResult(conn)); /* the NULL behind it */
	}
	PQclear(PQgetResult(conn)); /* the Sync */
	if (!PQexitPipelineMode(conn))
		die("libpq: %s", PQerrorMessage(conn));
	check(PQexec(conn, "COMMIT"));
}

static void in_session(void)
{
	PGresult *result;
	dbha_error err;
	dbha_request request = DBHA_REQUEST(.sql = statement, .n_params = 1, .values = values);
	check_dbha(dbha_session_begin(session, NULL, &err), &err);
	check_dbha(dbha_session_exec(session, &request, &result, &err), &err);
	PQclear(result);
	check_dbha(dbha_session_commit(session, 0, &err), &err);
}

static void single(dbha *h)
{
	PGresult *result;
	dbha_error err;
	dbha_request request = DBHA_REQUEST(.sql = statement, .intent = DBHA_WRITE, .n_params = 1, .values = values);
	check_dbha(dbha_exec(h, &request, &result, &err), &err);
	PQclear(result);
}

static void go(enum way way)
{
	switch (way) {
	case BY_HAND:
		by_hand();
		return;
	case PIPELINED:
		pipelined();
		return;
	case SESSION:
		in_session();
		return;
	case INSERT:
		single(plain);
		return;
	case VERIFIED:
	case N_WAYS:
		break;
	}
	single(verifying);
}

/* The rate, per second. */
static double slice(enum way way, long ms)
{
	int64_t began = now_ns(), until = began + ms * 1000000, now = began;
	long n = 0;
	for (; now < until; n++, now = now_ns())
		go(way);
	return (double)n * 1e9 / (double)(now - began);
}

static void empty_table(void)
{
	char sql[96];
	snprintf(sql, sizeof sql, "TRUNCATE %s", table);
	command(conn, sql);
}

static void round_of_all(uint64_t *random, long ms, double rates[N_WAYS])
{
	enum way order[N_WAYS] = {BY_HAND, PIPELINED, SESSION, INSERT, VERIFIED};
	for (int i = N_WAYS - 1; i > 0; i--) {
		int j = (int)(random_next(random) % (uint64_t)(i + 1));
		enum way other = order[j];
		order[j] = order[i];
		order[i] = other;
	}
	for (int i = 0; i < N_WAYS; i++)
		rates[order[i]] = slice(order[i], ms);
	empty_table();
}

static void print_ratio(FILE *json, const char *name, struct series *ratios, const char *end)
{
	struct spread spread = series_spread(ratios);
	printf("%-22s %.3f (%.3f to %.3f), quartiles %.3f %.3f\n", name, spread.median, spread.low, spread.high, spread.q1,
	       spread.q3);
	json_spread(json, name, &spread);
	if (json)
		fprintf(json, "%s\n", end);
	series_free(ratios);
}

static void measure(FILE *json, long slices, long ms, uint64_t *random)
{
	struct series rates[N_WAYS] = {0}, to_pipelined = {0}, to_hand = {0}, to_insert = {0};
	double rate[N_WAYS];
	round_of_all(random, ms, rate);
	for (long i = 0; i < slices; i++) {
		round_of_all(random, ms, rate);
		for (int way = 0; way < N_WAYS; way++)
			series_add(&rates[way], rate[way]);
		series_add(&to_pipelined, rate[SESSION] / rate[PIPELINED]);
		series_add(&to_hand, rate[SESSION] / rate[BY_HAND]);
		series_add(&to_insert, rate[VERIFIED] / rate[INSERT]);
	}
	for (int way = 0; way < N_WAYS; way++) {
		printf("%-22s %.0f /s\n", way_names[way], series_spread(&rates[way]).median);
		series_free(&rates[way]);
	}
	print_ratio(json, "session / pipelined", &to_pipelined, ",");
	print_ratio(json, "session / by hand", &to_hand, ",");
	print_ratio(json, "verified / insert", &to_insert, "");
}

static void make_table(void)
{
	char sql[160];
	snprintf(table, sizeof table, "dbha_bench_rows_%ld", (long)getpid());
	snprintf(sql, sizeof sql, "CREATE TABLE %s (n int)", table);
	command(conn, sql);
	snprintf(statement, sizeof statement, "INSERT INTO %s VALUES ($1)", table);
	check(PQprepare(conn, "put", statement, 1, NULL));
}

static void open_all(const char *url)
{
	char text[1024];
	dbha_error err;
	conn = connect_by_hand(url);
	plain = open_handle(url, 2, 1);
	snprintf(text, sizeof text, "%s%sverify_commit=on", url, strchr(url, '?') ? "&" : "?");
	verifying = open_handle(text, 2, 1);
	session = dbha_session_open(plain, &err);
	if (!session)
		die("dbha: %s", err.message);
	make_table();
}

static void close_all(void)
{
	char sql[96];
	snprintf(sql, sizeof sql, "DROP TABLE %s", table);
	dbha_session_close(session);
	dbha_close(plain, 1000);
	dbha_close(verifying, 1000);
	command(conn, sql);
	PQfinish(conn);
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--slices", "--slice-ms", "--seed", "--json", NULL};
	struct args args = {argc, argv};
	const char *url = args_url(&args, names, usage);
	long slices = args_number(&args, "--slices", 100, 1, 100000);
	long ms = args_number(&args, "--slice-ms", 100, 1, 10000);
	uint64_t random = (uint64_t)args_number(&args, "--seed", (long)(now_ns() & 0xffffff), 0, 1L << 40);
	FILE *json = json_open(args_text(&args, "--json", NULL));
	print_where(url, random);
	open_all(url);
	if (json)
		fprintf(json, "{\n");
	measure(json, slices, ms, &random);
	if (json) {
		fprintf(json, "}\n");
		fclose(json);
	}
	close_all();
	return 0;
}
