/*
 * consistency: what it costs that reads see what their session has written.
 *
 *   consistency URL [--slices 100] [--slice-ms 100] [--seed N] [--json FILE]
 *
 * The URL names a primary and one standby. One thread. The ways, each a row of a table; first the reads, a prepared SELECT by primary key on the
 * standby:
 *   libpq       PQexecPrepared on a connection lent by the handle, the very one that the next ways use: where the scheduler has put
 *               its server process makes more of a difference than all that is measured here
 *   eventual    dbha_session_exec, consistency=eventual
 *   session     the same, consistency=session: the session has read from this standby before, so it needs to ask for nothing
 *   token       dbha_exec with a token that the standby is known to have replayed
 *   guarded     dbha_exec with a token of which it is not known: the standby is asked with each read whether it has replayed it. It
 *               has a handle of its own, which never looks at the nodes again, and so another server process than the other ways:
 *               compare it over several runs
 * then the writes, a prepared INSERT on the primary:
 *   libpq       PQexecPrepared, likewise
 *   untracked   dbha_session_exec, in a session that has never read: nothing is asked
 *   tracked     dbha_session_exec, in a session that reads: the position behind the write comes in the same flush
 *
 * How it measures. In a slice one way is gone again and again; slices come in rounds, one of each way in random order, and the ratios are
 * made within a round, so that what else the machine is doing falls on all. The table that is written to is emptied after every round.
 * Before the first round each way runs once and is not counted. That the session reads from the standby, and that each guarded read
 * was guarded, is checked, not hoped.
 *
 * How to read it. The ratios are of times: 1.05 means five per cent longer. Whether the server writes to disk (fsync) decides how much the
 * question for the position weighs: the head of the output says whether it did. The server is on the same machine.
 */
#include "bench.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS 10000

static const char usage[] = "consistency URL [--slices 100] [--slice-ms 100] [--seed N] [--json FILE]";

enum way {
	READ_LIBPQ,
	READ_EVENTUAL,
	READ_SESSION,
	READ_TOKEN,
	READ_GUARDED,
	WRITE_LIBPQ,
	WRITE_UNTRACKED,
	WRITE_TRACKED,
	N_WAYS
};

static const char *const way_names[N_WAYS] = {"read, libpq",   "read, eventual", "read, session",    "read, token",
                                              "read, guarded", "write, libpq",   "write, untracked", "write, tracked"};

/* What is compared: the time of the first over that of the second. */
static const struct ratio {
	const char *name;
	enum way way, to;
} ratios[] = {
    {"session / libpq", READ_SESSION, READ_LIBPQ},
    {"session / eventual", READ_SESSION, READ_EVENTUAL},
    {"token / libpq", READ_TOKEN, READ_LIBPQ},
    {"guarded / libpq", READ_GUARDED, READ_LIBPQ},
    {"guarded / token", READ_GUARDED, READ_TOKEN},
    {"tracked / untracked", WRITE_TRACKED, WRITE_UNTRACKED},
    {"tracked / libpq write", WRITE_TRACKED, WRITE_LIBPQ},
};
#define RATIOS ((int)(sizeof ratios / sizeof ratios[0]))

static char keys[64], rows[64];
static char select_sql[160], insert_sql[160];
static PGconn *primary, *hand;
static dbha *handle, *unprobed;
static dbha_session *eventual, *session, *writer, *tracker;
static char known[DBHA_TOKEN_MAX], unknown[DBHA_TOKEN_MAX];
static dbha_result_route route = {.size = sizeof route};
static uint64_t key_state = 1;

static void check(PGresult *result, ExecStatusType expected)
{
	if (PQresultStatus(result) != expected)
		die("libpq: %s", PQresultErrorMessage(result));
	PQclear(result);
}

static void check_dbha(int code, const dbha_error *err)
{
	if (code != DBHA_OK)
		die("dbha: %s", err->message);
}

/* In the session, or, without one, by the handle. */
static void run(dbha_session *s, dbha *h, const dbha_request *request)
{
	PGresult *result;
	dbha_error err;
	int code = s ? dbha_session_exec(s, request, &result, &err) : dbha_exec(h, request, &result, &err);
	check_dbha(code, &err);
	PQclear(result);
}

/* ---- the ways ---------------------------------------------------------------------------------------------------- */

static void read_by(enum way way)
{
	char key[16];
	const char *values[] = {key};
	snprintf(key, sizeof key, "%d", (int)(random_next(&key_state) % KEYS));
	dbha_request request = DBHA_REQUEST(.sql = select_sql, .intent = DBHA_READ, .n_params = 1, .values = values);
	if (way == READ_LIBPQ) {
		check(PQexecPrepared(hand, "get", 1, values, NULL, NULL, 0), PGRES_TUPLES_OK);
	} else if (way == READ_EVENTUAL || way == READ_SESSION) {
		run(way == READ_SESSION ? session : eventual, NULL, &request);
	} else {
		request.token = way == READ_TOKEN ? known : unknown;
		run(NULL, way == READ_TOKEN ? handle : unprobed, &request);
	}
}

static void write_by(enum way way)
{
	static const char *const values[] = {"4711"};
	dbha_request request = DBHA_REQUEST(.sql = insert_sql, .intent = DBHA_WRITE, .n_params = 1, .values = values);
	if (way == WRITE_LIBPQ)
		check(PQexecPrepared(hand, "put", 1, values, NULL, NULL, 0), PGRES_COMMAND_OK);
	else
		run(way == WRITE_TRACKED ? tracker : writer, NULL, &request);
}

/* The first time, until the standby has the tables. */
static void prepare(PGconn *conn, const char *name, const char *sql)
{
	int64_t end = now_ns() + 10000000000;
	PGresult *result;
	while (PQresultStatus(result = PQprepare(conn, name, sql, 1, NULL)) != PGRES_COMMAND_OK) {
		if (now_ns() > end)
			die("libpq: %s", PQresultErrorMessage(result));
		PQclear(result);
		sleep_ms(5);
	}
	PQclear(result);
}

static dbha_conn *lend(enum way way)
{
	dbha_error err;
	bool reads = way == READ_LIBPQ;
	dbha_conn *lease = dbha_acquire(handle, reads ? DBHA_READ : DBHA_WRITE, 0, &err);
	if (!lease)
		die("dbha: %s", err.message);
	hand = dbha_conn_pq(lease);
	prepare(hand, reads ? "get" : "put", reads ? select_sql : insert_sql);
	return lease;
}

/* The rate, per second. */
static double slice(enum way way, long ms)
{
	dbha_conn *lease = way == READ_LIBPQ || way == WRITE_LIBPQ ? lend(way) : NULL;
	int64_t began = now_ns(), until = began + ms * 1000000, now = began;
	long n = 0;
	for (; now < until; n++, now = now_ns()) {
		if (way < WRITE_LIBPQ)
			read_by(way);
		else
			write_by(way);
	}
	dbha_release(lease);
	return (double)n * 1e9 / (double)(now - began);
}

/* ---- what is what it says ----------------------------------------------------------------------------------------- */

static enum dbha_reason reason_of(dbha_session *s, dbha *h, const char *token)
{
	const char *values[] = {"1"};
	dbha_request request = DBHA_REQUEST(.sql = select_sql, .intent = DBHA_READ, .n_params = 1, .values = values,
	                                    .token = token, .route = &route);
	run(s, h, &request);
	return route.reason;
}

static void until_reason(dbha_session *s, dbha *h, const char *token, enum dbha_reason reason)
{
	int64_t end = now_ns() + 10000000000;
	while (reason_of(s, h, token) != reason) {
		if (now_ns() > end)
			die("expected reads to be %s, and they are %s (%s)", dbha_reason_name(reason),
			    dbha_reason_name(route.reason), route.why);
		sleep_ms(1);
	}
}

static void check_ways(void)
{
	until_reason(eventual, NULL, NULL, DBHA_REASON_READ);
	until_reason(session, NULL, NULL, DBHA_REASON_SAME);
	until_reason(NULL, handle, known, DBHA_REASON_REPLAYED);
	until_reason(NULL, unprobed, unknown, DBHA_REASON_GUARDED);
}

/* ---- rounds -------------------------------------------------------------------------------------------------------- */

static void round_of(uint64_t *random, long ms, enum way first, enum way behind, double rates[N_WAYS])
{
	enum way order[N_WAYS];
	int n = 0;
	for (enum way way = first; way < behind; way++)
		order[n++] = way;
	for (int i = n - 1; i > 0; i--) {
		int j = (int)(random_next(random) % (uint64_t)(i + 1));
		enum way other = order[j];
		order[j] = order[i];
		order[i] = other;
	}
	for (int i = 0; i < n; i++)
		rates[order[i]] = slice(order[i], ms);
}

static void empty_table(void)
{
	char sql[96];
	snprintf(sql, sizeof sql, "TRUNCATE %s", rows);
	command(primary, sql);
}

static void print_ratio(FILE *json, const char *name, struct series *times, const char *end)
{
	struct spread spread = series_spread(times);
	printf("%-22s %.3f (%.3f to %.3f), quartiles %.3f %.3f\n", name, spread.median, spread.low, spread.high, spread.q1,
	       spread.q3);
	json_spread(json, name, &spread);
	if (json)
		fprintf(json, "%s\n", end);
	series_free(times);
}

static void measure(FILE *json, long slices, long ms, uint64_t *random)
{
	struct series rates[N_WAYS] = {0}, times[RATIOS] = {0};
	double rate[N_WAYS];
	for (long i = -1; i < slices; i++) {
		round_of(random, ms, READ_LIBPQ, WRITE_LIBPQ, rate);
		round_of(random, ms, WRITE_LIBPQ, N_WAYS, rate);
		empty_table();
		check_ways();
		for (int way = 0; way < N_WAYS && i >= 0; way++)
			series_add(&rates[way], rate[way]);
		for (int k = 0; k < RATIOS && i >= 0; k++)
			series_add(&times[k], rate[ratios[k].to] / rate[ratios[k].way]);
	}
	for (int way = 0; way < N_WAYS; way++) {
		printf("%-22s %.0f /s\n", way_names[way], series_spread(&rates[way]).median);
		series_free(&rates[way]);
	}
	for (int k = 0; k < RATIOS; k++)
		print_ratio(json, ratios[k].name, &times[k], k + 1 < RATIOS ? "," : "");
}

/* ---- beginning and end ---------------------------------------------------------------------------------------------- */

static PGconn *connect_to(const char *url, const char *attributes)
{
	char text[1024];
	snprintf(text, sizeof text, "%s%starget_session_attrs=%s", url, strchr(url, '?') ? "&" : "?", attributes);
	PGconn *conn = PQconnectdb(text);
	if (PQstatus(conn) != CONNECTION_OK)
		die("libpq: %s", PQerrorMessage(conn));
	return conn;
}

static void make_tables(void)
{
	char sql[320];
	snprintf(keys, sizeof keys, "dbha_bench_keys_%ld", (long)getpid());
	snprintf(rows, sizeof rows, "dbha_bench_rows_%ld", (long)getpid());
	snprintf(sql, sizeof sql, "CREATE TABLE %s (n int)", rows);
	command(primary, sql);
	snprintf(sql, sizeof sql, "CREATE TABLE %s AS SELECT id, 'row ' || id AS text FROM generate_series(0, %d) AS id",
	         keys, KEYS - 1);
	command(primary, sql);
	snprintf(sql, sizeof sql, "ALTER TABLE %s ADD PRIMARY KEY (id)", keys);
	command(primary, sql);
	snprintf(select_sql, sizeof select_sql, "SELECT text FROM %s WHERE id = $1::int", keys);
	snprintf(insert_sql, sizeof insert_sql, "INSERT INTO %s VALUES ($1)", rows);
}

static dbha_session *open_session(dbha *h, int consistency)
{
	dbha_error err;
	dbha_session *s = dbha_session_open(h, &err);
	if (!s)
		die("dbha: %s", err.message);
	check_dbha(dbha_session_set_consistency(s, consistency, &err), &err);
	return s;
}

static void make_tokens(const char *url)
{
	char text[1024];
	dbha_error err;
	write_by(WRITE_TRACKED);
	check_dbha(dbha_session_token(tracker, known, 0, &err), &err);
	snprintf(text, sizeof text, "%s%sprobe_interval=1h", url, strchr(url, '?') ? "&" : "?");
	unprobed = open_handle(text, 4, 1);
	write_by(WRITE_TRACKED); /* what comes after the only look that this handle takes */
	check_dbha(dbha_session_token(tracker, unknown, 0, &err), &err);
}

static void print_fsync(void)
{
	PGresult *result = PQexec(primary, "SHOW fsync");
	printf("fsync %s, one primary, one standby, one thread\n", PQgetvalue(result, 0, 0));
	PQclear(result);
}

static void open_all(const char *url)
{
	primary = connect_to(url, "primary");
	make_tables();
	handle = open_handle(url, 4, 1);
	dbha_release(lend(READ_LIBPQ));
	eventual = open_session(handle, DBHA_CONSISTENCY_EVENTUAL);
	session = open_session(handle, DBHA_CONSISTENCY_SESSION);
	writer = open_session(handle, DBHA_CONSISTENCY_SESSION);
	tracker = open_session(handle, DBHA_CONSISTENCY_SESSION);
	reason_of(tracker, NULL, NULL); /* from its first read on it knows its positions */
	make_tokens(url);
	check_ways();
	print_fsync();
}

static void close_all(void)
{
	char sql[160];
	snprintf(sql, sizeof sql, "DROP TABLE %s, %s", keys, rows);
	dbha_session_close(eventual);
	dbha_session_close(session);
	dbha_session_close(writer);
	dbha_session_close(tracker);
	dbha_close(handle, 1000);
	dbha_close(unprobed, 1000);
	command(primary, sql);
	PQfinish(primary);
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
