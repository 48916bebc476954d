/*
 * test_outcome: what the library says of a write against what the server did. The connection is cut at every byte of a scripted
 * transaction, in both directions and in several ways (see cutter.h), and each verdict is held against the rows that are there when
 * every server process is gone: done means that they are there, all of them, once; safe to run again means that they are not, and never
 * will be; unknown is never wrong, and is counted.
 *
 * Of flows that differ little from others every few bytes only are tried; CUT_STEP=N in the environment
 * tries every N-th byte of all of them.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "cutter.h"
#include "relay.h"
#include "work.h"

#define WORKERS    4
#define POINTS_MAX 40000
#define TIMEOUT_MS 10000
#define SILENCE_MS 300 /* the deadline of a call whose server has fallen silent */
#define SILENCES   48  /* points of a flow at which it does: each costs SILENCE_MS */
#define LIES_SHOWN 10
#define SLOW_US    2000000
#define FIRST_ID   100000000L /* all ids have as many digits, so that all runs have as many bytes */
#define FLOW_IDS   1000000L
#define WARM_IDS   500000L /* from here on they are of runs that only make a connection warm */
#define WARM_RUNS  3       /* after so many a statement is prepared, and the exchange stays as it is */
#define NOTICED_MS 20      /* a connection that has rested this long is looked at before it is used */

static struct cluster c;

struct worker;

/* A way to write some rows with an id; what the library says of it. */
struct flow {
	const char *name;
	const char *marker;  /* of its first request; "": the id */
	const char *options; /* of the handle */
	int rows;            /* that it writes */
	int step;            /* every so many bytes; 0: every byte */
	bool reads_first;    /* its transaction */
	bool placed;         /* there is another node, so that the position comes behind what is written */
	bool trusting;       /* takes each error for a rollback: must be found out */
	int (*run)(struct worker *worker, const char *id, int timeout_ms, dbha_error *err);
};

/* One cut and what came of it. */
struct point {
	enum cut_kind kind;
	enum direction direction;
	long at;
	bool found, done; /* of the report */
	int pid;
	int code;
	bool retry_safe, unknown;
	bool absent;     /* the call succeeded, and the rows were not there */
	bool stuck;      /* a transaction that had failed could not be rolled back */
	bool miscounted; /* the function was told another number of its run */
	bool later;      /* a transaction of which this was said had a successful COMMIT afterwards */
	int64_t took_us;
	char message[160];
};

struct worker {
	const struct flow *flow;
	struct cutter cutter;
	dbha *h;
	PGconn *oracle;
	pthread_t thread;
	atomic_bool done;
	struct point *point; /* at work on */
	bool warm;           /* each cut is of a connection that has done the same before; else of a new one */
	bool is_new;         /* the connection that the next run will have */
	long warm_runs;
	struct point unused; /* while a connection gets warm */
};

static struct worker workers[WORKERS];
static struct point points[POINTS_MAX];
static int n_points;
static atomic_int next_point;
static long first_id = FIRST_ID;
static struct cut_report reference;

/* ---- flows ------------------------------------------------------------------------------------------------------- */

#define INSERT_ONE "INSERT INTO rows (id, step) VALUES ($1, 1)"
#define UPDATE_ONE "UPDATE rows SET seen = true WHERE id = $1 AND step = 1"
#define SELECT_ONE "SELECT seen FROM rows WHERE id = $1"
#define INSERT_TWO "INSERT INTO rows (id, step, seen) VALUES ($1, 2, true)"

static int write_one_row(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	PGresult *result;
	dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows (id, step, seen) VALUES ($1, 1, true)",
	                               .intent = DBHA_WRITE, .n_params = 1, .values = &id, .timeout_ms = timeout_ms);
	int code = dbha_exec(worker->h, &rq, &result, err);
	PQclear(result);
	return code;
}

/* The same by way of an engine. */
static int submit_one_row(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	dbha_engine *e = dbha_engine_open(worker->h, &DBHA_ENGINE_OPTIONS(.connections = 1), err);
	if (!e)
		return err->code;
	dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows (id, step, seen) VALUES ($1, 1, true)",
	                               .intent = DBHA_WRITE, .n_params = 1, .values = &id, .timeout_ms = timeout_ms);
	int code = dbha_submit(e, &rq, 1, err);
	dbha_completion done = {.size = sizeof done, .code = DBHA_ERR_SYSTEM};
	if (code == DBHA_OK && dbha_next_completion(e, &done, 2 * TIMEOUT_MS, err) == 1)
		*err = done.error;
	PQclear(done.result);
	dbha_engine_close(e);
	return code == DBHA_OK ? done.code : code;
}

static bool plainly(PGconn *pg, const char *sql, const char *id)
{
	PGresult *result = id ? PQexecParams(pg, sql, 1, NULL, &id, NULL, NULL, 0) : PQexec(pg, sql);
	ExecStatusType status = PQresultStatus(result);
	PQclear(result);
	return status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK;
}

/* The script over libpq by hand, by somebody who takes a failed COMMIT for a rollback. */
static int trust_errors(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	dbha_conn *lease = dbha_acquire(worker->h, DBHA_WRITE, timeout_ms, err);
	if (!lease)
		return err->code;
	PGconn *pg = dbha_conn_pq(lease);
	bool good = plainly(pg, "BEGIN", NULL) && plainly(pg, INSERT_ONE, id) && plainly(pg, UPDATE_ONE, id) &&
	            plainly(pg, SELECT_ONE, id) && plainly(pg, "SAVEPOINT here", NULL) && plainly(pg, INSERT_TWO, id) &&
	            plainly(pg, "COMMIT", NULL);
	dbha_release(lease);
	if (good)
		return DBHA_OK;
	*err = (dbha_error){.code = DBHA_ERR_ROLLED_BACK, .retry_safe = true, .message = "trusted"};
	return err->code;
}

static int execute(dbha_session *s, const char *sql, const char *id, int timeout_ms, dbha_error *err)
{
	PGresult *result;
	dbha_request rq = DBHA_REQUEST(.sql = sql, .n_params = 1, .values = &id, .timeout_ms = timeout_ms);
	int code = dbha_session_exec(s, &rq, &result, err);
	PQclear(result);
	return code;
}

static int execute_words(dbha_session *s, const char *sql, int timeout_ms, dbha_error *err)
{
	PGresult *result;
	dbha_request rq = DBHA_REQUEST(.sql = sql, .flags = DBHA_UNPREPARED, .timeout_ms = timeout_ms);
	int code = dbha_session_exec(s, &rq, &result, err);
	PQclear(result);
	return code;
}

static int write_two_rows(const struct flow *flow, dbha_session *s, const char *id, int timeout_ms, dbha_error *err)
{
	static const char *const before[] = {SELECT_ONE, INSERT_ONE, UPDATE_ONE, SELECT_ONE};
	int code = DBHA_OK;
	for (int i = flow->reads_first ? 0 : 1; i < 4 && code == DBHA_OK; i++)
		code = execute(s, before[i], id, timeout_ms, err);
	if (code == DBHA_OK)
		code = dbha_savepoint(s, "here", timeout_ms, err);
	if (code == DBHA_OK)
		code = execute(s, INSERT_TWO, id, timeout_ms, err);
	return code;
}

/* After a statement of it has failed, a transaction is over: it rolls back without an error, and never commits. */
static void end_failed(struct point *point, dbha_session *s, int timeout_ms)
{
	dbha_error err;
	if ((point - points) % 2 == 0)
		point->later = dbha_session_commit(s, timeout_ms, &err) == DBHA_OK;
	else
		point->stuck = dbha_session_rollback(s, timeout_ms, &err) != DBHA_OK;
}

static int run_session(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	dbha_session *s = dbha_session_open(worker->h, err);
	if (!s)
		return err->code;
	int code = dbha_session_begin(s, &DBHA_TRANSACTION(.timeout_ms = timeout_ms), err);
	if (code == DBHA_OK)
		code = write_two_rows(worker->flow, s, id, timeout_ms, err);
	if (code != DBHA_OK)
		end_failed(worker->point, s, timeout_ms);
	else
		code = dbha_session_commit(s, timeout_ms, err);
	dbha_session_close(s);
	return code;
}

/* The same, in words of SQL. */
static int run_words(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	dbha_session *s = dbha_session_open(worker->h, err);
	if (!s)
		return err->code;
	int code = execute_words(s, "BEGIN", timeout_ms, err);
	bool begun = code == DBHA_OK;
	if (code == DBHA_OK)
		code = execute(s, INSERT_ONE, id, timeout_ms, err);
	if (code == DBHA_OK)
		code = execute(s, UPDATE_ONE, id, timeout_ms, err);
	if (code == DBHA_OK)
		code = execute_words(s, "SAVEPOINT here", timeout_ms, err);
	if (code == DBHA_OK)
		code = execute(s, INSERT_TWO, id, timeout_ms, err);
	if (code == DBHA_OK)
		code = execute_words(s, "COMMIT", timeout_ms, err);
	else if (begun)
		end_failed(worker->point, s, timeout_ms);
	dbha_session_close(s);
	return code;
}

/* A session that has read, and so wants to know the position behind what it writes; in a message behind its end. */
static int run_placed(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	dbha_session *s = dbha_session_open(worker->h, err);
	PGresult *result = NULL;
	if (!s)
		return err->code;
	int code = dbha_session_exec(s, &DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_READ), &result, err);
	PQclear(result);
	if (code == DBHA_OK)
		code = execute(s, "INSERT INTO rows (id, step, seen) VALUES ($1, 1, true)", id, timeout_ms, err);
	dbha_session_close(s);
	return code;
}

struct work {
	struct worker *worker;
	const char *id;
	int runs;
};

static int run_function(dbha_session *s, int attempt, void *argument)
{
	struct work *work = argument;
	dbha_error err;
	work->runs++;
	if (attempt != work->runs)
		work->worker->point->miscounted = true;
	return write_two_rows(work->worker->flow, s, work->id, TIMEOUT_MS, &err);
}

static int run_transaction(struct worker *worker, const char *id, int timeout_ms, dbha_error *err)
{
	struct work work = {.worker = worker, .id = id};
	return dbha_transaction(worker->h, &DBHA_TRANSACTION(.timeout_ms = timeout_ms), run_function, &work, err);
}

static const struct flow trusting = {
    .name = "libpq by hand, errors trusted", .marker = "BEGIN", .rows = 2, .trusting = true, .run = trust_errors};
static const struct flow single = {.name = "dbha_exec", .rows = 1, .run = write_one_row};
static const struct flow placed = {
    .name = "dbha_session, a write with its position", .rows = 1, .placed = true, .step = 2, .run = run_placed};
static const struct flow verified = {
    .name = "dbha_exec, verify_commit=on", .options = "verify_commit=on", .rows = 1, .step = 3, .run = write_one_row};
static const struct flow piped = {.name = "dbha_submit, verify_commit=on",
                                  .options = "verify_commit=on",
                                  .rows = 1,
                                  .step = 3,
                                  .run = submit_one_row};
static const struct flow session = {.name = "dbha_session", .marker = "BEGIN", .rows = 2, .run = run_session};
static const struct flow reading_first = {.name = "dbha_session, reading first",
                                          .marker = "BEGIN",
                                          .rows = 2,
                                          .step = 7,
                                          .reads_first = true,
                                          .run = run_session};
static const struct flow words = {
    .name = "dbha_session_exec, words", .marker = "BEGIN", .rows = 2, .step = 5, .run = run_words};
static const struct flow transaction = {
    .name = "dbha_transaction", .marker = "BEGIN", .rows = 2, .step = 3, .run = run_transaction};

/* ---- one cut ------------------------------------------------------------------------------------------------------ */

static long rows_now(PGconn *oracle, const char *id)
{
	PGresult *result =
	    PQexecParams(oracle, "SELECT count(*) FROM rows WHERE id = $1 AND seen", 1, NULL, &id, NULL, NULL, 0);
	long rows = PQntuples(result) == 1 ? atol(PQgetvalue(result, 0, 0)) : -1;
	PQclear(result);
	return rows;
}

/* Every run on a connection like every other: a new one, or one that has done the same before. */
static void prepare_connection(struct worker *worker)
{
	char id[24];
	dbha_error err;
	worker->point = &worker->unused;
	for (int i = 0; i < WARM_RUNS && worker->warm; i++) {
		snprintf(id, sizeof id, "%ld", first_id + WARM_IDS + WORKERS * worker->warm_runs++ + (worker - workers));
		worker->flow->run(worker, id, TIMEOUT_MS, &err);
	}
	if (worker->warm || worker->is_new)
		return;
	cutter_reset_all(&worker->cutter);
	poll(NULL, 0, NOTICED_MS);
}

static void try_point(struct worker *worker, struct point *point, struct cut_report *report)
{
	const struct flow *flow = worker->flow;
	struct cut cut = {.kind = point->kind, .direction = point->direction, .at = point->at, .delay_ms = 20};
	dbha_error err = {0};
	char id[24];
	prepare_connection(worker);
	snprintf(id, sizeof id, "%ld", first_id + (point - points));
	snprintf(cut.marker, sizeof cut.marker, "%s", flow->marker ? flow->marker : id);
	worker->point = point;
	cutter_arm(&worker->cutter, &cut);
	int64_t began = now_us();
	point->code = flow->run(worker, id, point->kind == CUT_SILENT ? SILENCE_MS : TIMEOUT_MS, &err);
	point->took_us = now_us() - began;
	cutter_disarm(&worker->cutter, report);
	point->found = report->found;
	point->done = report->done;
	point->pid = report->pid;
	/* A call that succeeded after a cut has run again, on the next connection. */
	worker->is_new = report->done && point->code != DBHA_OK;
	if (point->code == DBHA_OK) {
		point->absent = rows_now(worker->oracle, id) != flow->rows;
		return;
	}
	point->retry_safe = err.retry_safe;
	point->unknown = err.outcome_unknown;
	snprintf(point->message, sizeof point->message, "%s %.100s", dbha_code_name(point->code), err.message);
}

static void *work_on_points(void *arg)
{
	struct worker *worker = arg;
	struct cut_report report;
	for (int i; (i = atomic_fetch_add(&next_point, 1)) < n_points && !atomic_load(&threads_stop);)
		try_point(worker, &points[i], &report);
	atomic_store(&worker->done, true);
	return NULL;
}

/* ---- many cuts ---------------------------------------------------------------------------------------------------- */

static void start_worker(struct worker *worker, const struct flow *flow, bool warm)
{
	char hosts[64], options[256];
	dbha_error err;
	memset(worker, 0, sizeof *worker);
	worker->flow = flow;
	worker->warm = warm;
	cutter_start(&worker->cutter, cluster_port(&c, 1));
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d%s", worker->cutter.port, flow->placed ? ",127.0.0.1:1" : "");
	/* Every cut costs connections; what is tested is not how soon they come back, or how often something is sent again. */
	snprintf(options, sizeof options, "sslmode=disable&gssencmode=disable&retry_budget=100&pool_max_size=1%s%s",
	         flow->options ? "&" : "", flow->options ? flow->options : "");
	worker->h = open_hosts(&c, hosts, options);
	ASSERT_OK(dbha_wait(worker->h, flow->placed ? DBHA_WAIT_PRIMARY : DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	worker->oracle = cluster_admin(&c, 1);
}

static void stop_workers(void)
{
	handles_close();
	for (int i = 0; i < WORKERS; i++) {
		cutter_stop(&workers[i].cutter);
		PQfinish(workers[i].oracle);
		workers[i].oracle = NULL;
	}
}

static void add_point(enum cut_kind kind, enum direction direction, long at)
{
	ck_assert_int_lt(n_points, POINTS_MAX);
	points[n_points++] = (struct point){.kind = kind, .direction = direction, .at = at};
}

/* How the flow looks uncut, once it looks as it will. */
static void take_reference(struct worker *worker)
{
	n_points = 0;
	for (int i = 0; i < 4; i++) {
		add_point(CUT_NONE, REPLY, 0);
		try_point(worker, &points[i], &reference);
		ck_assert_msg(points[i].code == DBHA_OK, "uncut: %s", points[i].message);
	}
	ck_assert(reference.found);
	ck_assert_int_lt(reference.n_messages, CUTTER_MESSAGES);
	first_id += FLOW_IDS;
	n_points = 0;
}

/* One byte more than there are: an exchange is not always of the same length (a position in the WAL has 9 digits or 10). */
static void add_points(const struct flow *flow, enum direction direction)
{
	const char *text = getenv("CUT_STEP");
	long step = text ? atol(text) : flow->step ? flow->step : 1;
	if (SANITIZED && !flow->trusting)
		step *= 7;
	long n = reference.forwarded[direction] + 2;
	for (long at = 0; at < n; at += step) {
		add_point(CUT_RESET, direction, at);
		add_point(CUT_DROP, direction, at);
		if (at % 4 == 0)
			add_point(CUT_END, direction, at);
	}
	int silences = flow->trusting ? 0 : SILENCES / 2; /* libpq would wait for ever */
	for (long i = 0; i < silences; i++)
		add_point(CUT_SILENT, direction, n * i / silences);
	for (long i = 0; i < SILENCES / 2 && direction == REPLY; i++)
		add_point(CUT_DELAY, direction, n * i / (SILENCES / 2));
}

static bool all_done(void)
{
	bool all = true;
	for (int i = 0; i < WORKERS; i++)
		all = all && atomic_load(&workers[i].done);
	return all;
}

static void run_points(void)
{
	atomic_store(&next_point, 0);
	for (int i = 0; i < WORKERS; i++)
		workers[i].thread = start_thread(work_on_points, &workers[i]);
	WAIT_FOR(all_done(), 170000);
	for (int i = 0; i < WORKERS; i++)
		join_thread(workers[i].thread);
}

/* ---- the truth ---------------------------------------------------------------------------------------------------- */

struct truth {
	short rows[POINTS_MAX];
	short seen[POINTS_MAX];
};

static void ask_truth(struct truth *truth)
{
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") == 0, PATIENCE_MS);
	PGconn *pg = cluster_admin(&c, 1);
	char sql[160];
	snprintf(
	    sql, sizeof sql,
	    "SELECT id - %ld, count(*), count(*) FILTER (WHERE seen) FROM rows WHERE id >= %ld AND id < %ld GROUP BY id",
	    first_id, first_id, first_id + WARM_IDS);
	PGresult *result = PQexec(pg, sql);
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	memset(truth, 0, sizeof *truth);
	for (int i = 0; i < PQntuples(result); i++) {
		long at = atol(PQgetvalue(result, i, 0));
		ck_assert_int_lt(at, n_points);
		truth->rows[at] = (short)atoi(PQgetvalue(result, i, 1));
		truth->seen[at] = (short)atoi(PQgetvalue(result, i, 2));
	}
	PQclear(result);
	PQfinish(pg);
}

/* What is wrong with a verdict; NULL: nothing. */
static const char *lie_in(const struct flow *flow, const struct point *point, int rows, int seen)
{
	if (rows > flow->rows)
		return "done twice";
	if (rows != 0 && (rows != flow->rows || seen != rows))
		return "done in part";
	if (point->later)
		return "a COMMIT succeeded after the transaction was said to be lost";
	if (point->stuck)
		return "a failed transaction could not be rolled back";
	if (point->miscounted)
		return "the attempts are not counted 1, 2, 3";
	if (point->code == DBHA_OK && rows == 0)
		return "said to be done, and was not";
	if (point->code == DBHA_OK && point->absent)
		return "said to be done before it was";
	if (point->code != DBHA_OK && !point->unknown && rows != 0)
		return point->retry_safe ? "said to be safe to run again, and was done"
		                         : "an error without a doubt, and was done";
	if (point->retry_safe && point->unknown)
		return "both safe to run again and unknown";
	return NULL;
}

struct tally {
	int ok, not_done, unknown, silent_unknown, lies, unreached;
	int unsaid;       /* errors that are neither unknown nor safe to run again */
	int64_t worst_us; /* where nothing was silent */
};

static void show_point(const char *what, const struct point *point)
{
	static const char *const kinds[] = {"none", "reset", "end", "drop", "silent", "delay"};
	char place[128];
	printf("# %s: %s at %s: %s\n", what, kinds[point->kind],
	       cut_place(&reference, point->direction, point->at, place, sizeof place),
	       point->code ? point->message : "OK");
}

static void count_verdict(struct tally *tally, const struct point *point)
{
	bool silent = point->kind == CUT_SILENT;
	if (point->code == DBHA_OK)
		tally->ok++;
	else if (!point->unknown)
		tally->not_done++;
	else if (silent)
		tally->silent_unknown++;
	else
		tally->unknown++;
	tally->unsaid += point->code != DBHA_OK && !point->unknown && !point->retry_safe;
	tally->unreached += !point->done;
	if (!silent && point->took_us > tally->worst_us)
		tally->worst_us = point->took_us;
}

static struct tally judge(const struct flow *flow)
{
	static struct truth truth;
	struct tally tally = {0};
	ask_truth(&truth);
	for (int i = 0; i < n_points; i++) {
		const struct point *point = &points[i];
		const char *lie = lie_in(flow, point, truth.rows[i], truth.seen[i]);
		count_verdict(&tally, point);
		if (lie && tally.lies++ < LIES_SHOWN)
			show_point(lie, point);
		if (point->kind != CUT_SILENT && point->took_us > SLOW_US)
			show_point("slow", point);
		if (getenv("CUT_SHOW_UNKNOWN") && point->unknown && point->kind != CUT_SILENT)
			show_point("unknown", point);
	}
	return tally;
}

static struct tally cut_everywhere(const struct flow *flow, bool warm)
{
	int64_t began = now_ms();
	for (int i = 0; i < WORKERS; i++)
		start_worker(&workers[i], flow, warm);
	take_reference(&workers[0]);
	add_points(flow, REQUEST);
	add_points(flow, REPLY);
	run_points();
	stop_workers();
	struct tally tally = judge(flow);
	printf("# %s, %s: %d points (%ld bytes of requests, %ld of replies), ok %d, not done %d, unknown %d (silence: %d "
	       "more), "
	       "lies %d, not reached %d, unsaid %d, worst call %.1f ms, %.1f s\n",
	       flow->name, warm ? "warm" : "cold", n_points, reference.forwarded[REQUEST], reference.forwarded[REPLY],
	       tally.ok, tally.not_done, tally.unknown, tally.silent_unknown, tally.lies, tally.unreached, tally.unsaid,
	       (double)tally.worst_us / 1000, (double)(now_ms() - began) / 1000);
	return tally;
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

/* Connections are made for nearly every point: without passwords some ms sooner each. */
static void without_passwords(void)
{
	char path[160];
	snprintf(path, sizeof path, "%s/node1.hba.conf", c.dir);
	FILE *file = fopen(path, "w");
	ck_assert(file != NULL);
	fputs("local all postgres trust\nhost all app 127.0.0.1/32 trust\n", file);
	fclose(file);
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_hba_file_rules") == 2, PATIENCE_MS);
}

static void server(void)
{
	if (c.keeper)
		return;
	cluster_with_rows(&c, "1", "id bigint, step int, seen bool DEFAULT false");
	cluster_ask(&c, 1, "CREATE INDEX ON rows (id)");
	without_passwords();
}

static void no_workers(void)
{
	stop_workers();
}

/* 0 lies is what counts; what else, each test says. */
static struct tally true_everywhere(const struct flow *flow, bool warm)
{
	struct tally tally = cut_everywhere(flow, warm);
	ck_assert_int_eq(tally.lies, 0);
	ck_assert_int_eq(tally.unsaid, 0);
	ck_assert_int_le(tally.unreached, n_points / 10);
	ck_assert_int_gt(tally.ok, 20);
	return tally;
}

START_TEST(somebody_who_takes_a_failed_commit_for_a_rollback_is_found_out)
{
	struct tally tally = cut_everywhere(&trusting, false);
	ck_assert_int_gt(tally.lies, 20); /* at every byte of the answer to COMMIT */
	ck_assert_int_eq(tally.unknown, 0);
	ck_assert_int_gt(tally.not_done, 20);
}
END_TEST

START_TEST(what_is_said_of_a_single_write_is_true_wherever_it_is_cut)
{
	for (int warm = 0; warm < 2; warm++)
		ck_assert_int_gt(true_everywhere(&single, warm).unknown, 20);
}
END_TEST

START_TEST(what_is_said_of_a_write_is_not_touched_by_its_position)
{
	ck_assert_int_gt(true_everywhere(&placed, false).ok, 20);
	/* In the answer to the question for the position it is done already. */
	ck_assert_int_gt(true_everywhere(&placed, true).ok, n_points * 2 / 5);
}
END_TEST

START_TEST(with_verify_commit_what_is_said_of_a_single_write_is_never_unknown)
{
	for (int warm = 0; warm < 2; warm++)
		ck_assert_int_eq(true_everywhere(&verified, warm).unknown, 0);
}
END_TEST

START_TEST(with_verify_commit_what_an_engine_says_of_a_write_is_never_unknown)
{
	for (int warm = 0; warm < 2; warm++)
		ck_assert_int_eq(true_everywhere(&piped, warm).unknown, 0);
}
END_TEST

/* A COMMIT that is lost is asked for, and this server answers. */
static void known_everywhere(const struct flow *flow)
{
	struct tally cold = true_everywhere(flow, false), warm = true_everywhere(flow, true);
	ck_assert_int_gt(cold.not_done, n_points / 5);
	ck_assert_int_gt(warm.not_done, n_points / 5);
	ck_assert_int_eq(cold.unknown + warm.unknown, 0);
}

START_TEST(what_is_said_of_a_transaction_is_true_and_known_wherever_it_is_cut)
{
	known_everywhere(&session);
}
END_TEST

START_TEST(what_is_said_of_a_transaction_that_reads_first_is_true_and_known_wherever_it_is_cut)
{
	known_everywhere(&reading_first);
}
END_TEST

START_TEST(what_is_said_of_a_transaction_in_words_is_true_and_known_wherever_it_is_cut)
{
	known_everywhere(&words);
}
END_TEST

START_TEST(a_function_is_run_to_one_commit_wherever_it_is_cut)
{
	struct tally cold = true_everywhere(&transaction, false), warm = true_everywhere(&transaction, true);
	ck_assert_int_eq(cold.unknown + warm.unknown, 0);
}
END_TEST

#define ADD(test) ADD_TEST(suite, test, server, no_workers, 400)

int main(void)
{
	Suite *suite = suite_create("outcome");
	ADD(somebody_who_takes_a_failed_commit_for_a_rollback_is_found_out);
	ADD(what_is_said_of_a_single_write_is_true_wherever_it_is_cut);
	ADD(what_is_said_of_a_write_is_not_touched_by_its_position);
	ADD(with_verify_commit_what_is_said_of_a_single_write_is_never_unknown);
	ADD(with_verify_commit_what_an_engine_says_of_a_write_is_never_unknown);
	ADD(what_is_said_of_a_transaction_is_true_and_known_wherever_it_is_cut);
	ADD(what_is_said_of_a_transaction_that_reads_first_is_true_and_known_wherever_it_is_cut);
	ADD(what_is_said_of_a_transaction_in_words_is_true_and_known_wherever_it_is_cut);
	ADD(a_function_is_run_to_one_commit_wherever_it_is_cut);
	return run_suite(suite, &c);
}
