/*
 * drill_workers.c: the threads of the drill. A writer inserts one row per call, each with a number never used before;
 * a reader asks for the highest number of one writer after the other.
 */
#include "drill.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* --------------------------------------------------------------------------------------------------------------- */

/* Keeps a thread to its rate. A thread that was held up does not catch up: the rate is a limit, not a target. */
struct pace {
	int64_t step_us; /* 0: no limit */
	int64_t next_us;
};

static struct pace pace_for(const struct drill_worker *w, int workers)
{
	int rate = w->drill->options.rate;
	int64_t step_us = rate > 0 ? 1000000 / rate : 0;
	/* The threads begin one after the other, so that they do not all call at the same moment. */
	return (struct pace){.step_us = step_us, .next_us = cli_monotonic_us() + step_us * w->number / workers};
}

static void pace_wait(struct pace *pace, const atomic_bool *stop)
{
	const int64_t slice_us = 20000; /* how late a thread may notice that it is to stop */
	for (;;) {
		int64_t left_us = pace->next_us - cli_monotonic_us();
		if (left_us <= 0 || atomic_load(stop))
			break;
		nanosleep(&(struct timespec){.tv_nsec = (left_us < slice_us ? left_us : slice_us) * 1000}, NULL);
	}
	int64_t now_us = cli_monotonic_us();
	pace->next_us = (pace->next_us + pace->step_us > now_us ? pace->next_us : now_us) + pace->step_us;
}

/* A call that fails at once must not become a loop that does nothing else. */
static void pause_after_failure(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* --------------------------------------------------------------------------------------------------------------- */

static enum drill_result result_of_failure(const dbha_error *err)
{
	if (err->outcome_unknown)
		return DRILL_UNKNOWN;
	return err->retry_safe ? DRILL_NOT_DONE : DRILL_REFUSED;
}

static enum drill_result write_row(struct drill_worker *w, const char *sql, int64_t row)
{
	struct drill *d = w->drill;
	char number[16], seq[24];
	snprintf(number, sizeof(number), "%d", w->number);
	snprintf(seq, sizeof(seq), "%" PRId64, row);
	const char *values[] = {number, seq};
	dbha_request request = DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE, .timeout_ms = d->options.call_timeout_ms,
	                                    .n_params = 2, .values = values);
	dbha_error err;
	PGresult *result;
	int64_t began_us = cli_monotonic_us();
	int code = dbha_exec(d->h, &request, &result, &err);
	struct drill_instant now = drill_now();
	PQclear(result);
	if (code == DBHA_OK) {
		drill_gauge_answer(&d->write_gauge, now);
		drill_latency_add(&w->latency, now.monotonic_us - began_us);
		atomic_store(&w->acked_row, row);
		atomic_fetch_add(&d->counts.acked, 1);
		return DRILL_ACKED;
	}
	drill_gauge_trouble(&d->write_gauge, err.message);
	atomic_fetch_add(err.outcome_unknown ? &d->counts.unknown : &d->counts.failed, 1);
	pause_after_failure();
	return result_of_failure(&err);
}

static void *writer_main(void *argument)
{
	struct drill_worker *w = argument;
	struct drill *d = w->drill;
	struct pace pace = pace_for(w, d->options.writers);
	char sql[128];
	snprintf(sql, sizeof(sql), "INSERT INTO %s (writer, seq) VALUES ($1, $2)", d->table);
	while (!atomic_load(&d->stop)) {
		int64_t row = drill_ledger_begin(&w->ledger);
		if (row < 0) {
			drill_gauge_trouble(&d->write_gauge, "the drill has no memory for its ledger; a writer has stopped");
			break;
		}
		drill_ledger_end(&w->ledger, row, write_row(w, sql, row));
		pace_wait(&pace, &d->stop);
	}
	drill_gauge_end(&d->write_gauge, drill_now());
	return NULL;
}

/* --------------------------------------------------------------------------------------------------------------- */

static void note_read(struct drill_worker *w, int writer, int64_t acked, int64_t seen)
{
	struct drill_counts *counts = &w->drill->counts;
	atomic_fetch_add(&counts->reads, 1);
	if (seen < acked)
		atomic_fetch_add(&counts->behind_reads, 1);
	if (seen < w->highest[writer])
		atomic_fetch_add(&counts->stale_reads, 1);
	else
		w->highest[writer] = seen;
}

/*
 * A standby that has not replayed the creation of the table yet answers "undefined table". The drill has waited for
 * those it started with; one that joins later shows the past, and that is what is counted.
 */
static bool is_before_creation(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	return sqlstate != NULL && strcmp(sqlstate, "42P01") == 0;
}

static void read_writer(struct drill_worker *w, const char *sql, int writer)
{
	struct drill *d = w->drill;
	char number[16];
	snprintf(number, sizeof(number), "%d", writer);
	const char *values[] = {number};
	dbha_request request = DBHA_REQUEST(.sql = sql, .intent = DBHA_READ, .timeout_ms = d->options.call_timeout_ms,
	                                    .n_params = 1, .values = values);
	dbha_error err;
	PGresult *result;
	int64_t acked = atomic_load(&d->writers[writer].acked_row);
	int64_t began_us = cli_monotonic_us();
	int code = dbha_exec(d->h, &request, &result, &err);
	struct drill_instant now = drill_now();
	if (code == DBHA_OK || is_before_creation(result)) {
		drill_gauge_answer(&d->read_gauge, now);
		drill_latency_add(&w->latency, now.monotonic_us - began_us);
		bool empty = code != DBHA_OK || PQntuples(result) == 0 || PQgetisnull(result, 0, 0);
		note_read(w, writer, acked, empty ? -1 : strtoll(PQgetvalue(result, 0, 0), NULL, 10));
	} else {
		drill_gauge_trouble(&d->read_gauge, err.message);
		atomic_fetch_add(&d->counts.read_errors, 1);
		pause_after_failure();
	}
	PQclear(result);
}

static void *reader_main(void *argument)
{
	struct drill_worker *w = argument;
	struct drill *d = w->drill;
	struct pace pace = pace_for(w, d->options.readers);
	char sql[128];
	snprintf(sql, sizeof(sql), "SELECT max(seq) FROM %s WHERE writer = $1", d->table);
	for (int writer = w->number; !atomic_load(&d->stop); writer++) {
		read_writer(w, sql, writer % d->options.writers);
		pace_wait(&pace, &d->stop);
	}
	drill_gauge_end(&d->read_gauge, drill_now());
	return NULL;
}

/* --------------------------------------------------------------------------------------------------------------- */

static void init_workers(struct drill *d, struct drill_worker *workers, int n)
{
	for (int i = 0; i < n; i++) {
		workers[i].drill = d;
		workers[i].number = i;
		atomic_init(&workers[i].acked_row, -1);
	}
}

static bool init_reader(struct drill_worker *reader, int writers)
{
	reader->highest = malloc((size_t)writers * sizeof(*reader->highest));
	for (int i = 0; reader->highest != NULL && i < writers; i++)
		reader->highest[i] = -1;
	return reader->highest != NULL;
}

static bool start_workers(struct drill_worker *workers, int n, void *(*body)(void *))
{
	for (int i = 0; i < n; i++) {
		int code = pthread_create(&workers[i].thread, NULL, body, &workers[i]);
		if (code != 0) {
			cli_complain("cannot start a thread: %s", strerror(code));
			return false;
		}
		workers[i].started = true;
	}
	return true;
}

bool drill_workers_start(struct drill *d)
{
	init_workers(d, d->writers, d->options.writers);
	init_workers(d, d->readers, d->options.readers);
	for (int i = 0; i < d->options.readers; i++)
		if (!init_reader(&d->readers[i], d->options.writers)) {
			cli_complain("out of memory");
			return false;
		}
	drill_gauge_start(&d->write_gauge);
	drill_gauge_start(&d->read_gauge);
	return start_workers(d->writers, d->options.writers, writer_main) &&
	       start_workers(d->readers, d->options.readers, reader_main);
}

static void join_workers(struct drill_worker *workers, int n)
{
	for (int i = 0; i < n; i++)
		if (workers[i].started)
			pthread_join(workers[i].thread, NULL);
}

void drill_workers_join(struct drill *d)
{
	atomic_store(&d->stop, true);
	join_workers(d->writers, d->options.writers);
	join_workers(d->readers, d->options.readers);
}
