/*
 * drill.h: the failover drill, `dbha drill`: what its parts share.
 *
 *   cmd_drill.c      arguments, and the drill as a story
 *   drill_table.c    creates the table, waits until the standbys have it, drops it
 *   drill_workers.c  the threads that write and read, and what they note
 *   drill_live.c     what is shown meanwhile: counts, events, outages
 *   drill_verdict.c  compares the ledgers with the table, and looks for rows on a stale primary
 *   drill_report.c   the verdict for people and for programs
 *   drill_node.c     one node of the cluster by itself
 *   drill_ledger.c, drill_gauge.c, drill_latency.c   rows, outages, durations: plain data, no database
 */
#ifndef DRILL_H
#define DRILL_H

#include "cli.h"
#include "drill_gauge.h"
#include "drill_latency.h"
#include "drill_ledger.h"

#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>

struct drill_options {
	const char *url; /* NULL: the environment */
	int writers;
	int readers;
	int duration_ms;
	int rate; /* calls per second of each thread; 0: as many as it can */
	int call_timeout_ms;
	const char *json_path; /* "-": standard output, last line; NULL: none */
	bool keep_table;
};

struct drill;

/* A thread. Its fields belong to it until it was joined, except the atomic one. */
struct drill_worker {
	struct drill *drill;
	int number;
	pthread_t thread;
	bool started;
	struct drill_latency latency; /* of calls that were answered */
	/* A writer's: */
	struct drill_ledger ledger;
	atomic_llong acked_row; /* the highest row acknowledged so far, -1: none */
	/* A reader's: */
	int64_t *highest; /* the highest row of each writer that this reader has seen, -1: none */
};

/* Counts for showing while the drill runs. The verdict on writes comes from the ledgers. */
struct drill_counts {
	atomic_llong acked;
	atomic_llong failed;
	atomic_llong unknown;
	atomic_llong reads;
	atomic_llong read_errors;
	atomic_llong stale_reads;  /* showed less than the same reader had seen before */
	atomic_llong behind_reads; /* showed less than had been acknowledged when they began */
};

/* What was found on one node in the end. */
struct drill_node {
	dbha_node_status status;
	int64_t stale_rows;         /* -1: it could not be asked */
	char why[DBHA_MESSAGE_MAX]; /* why not; else the reason of its state */
};

struct drill_verdict {
	bool complete; /* the table was read; otherwise `why` says why not, and the tally means nothing */
	char why[DBHA_MESSAGE_MAX];
	struct drill_tally tally;
	int64_t stale_writes;
	int n_nodes;
	struct drill_node *nodes;
	bool kept; /* the table is still there */
};

struct drill {
	struct drill_options options;
	FILE *json; /* where the verdict goes as JSON; NULL: nowhere */
	dbha *h;
	char table[32];
	struct drill_worker *writers;
	struct drill_worker *readers;
	struct drill_counts counts;
	struct drill_gauge write_gauge;
	struct drill_gauge read_gauge;
	atomic_bool stop;
	/* What the library reported, kept for the causes of the outages. */
	dbha_event *events;
	int n_events;
	struct drill_verdict verdict;
};

/* How long the drill waits for things that are not part of the measurement: replay of the new table, the final read. */
#define DRILL_PATIENCE_MS 30000

/* --------------------------------------------------------------------------------------------------------------- */

/* Creates the table under a random name. Complains and returns false if it cannot. */
bool drill_table_create(struct drill *d);

/* Waits until every standby that is up has the table; says so if one does not get it in time. */
void drill_table_await(struct drill *d);

/* Drops the table; complains if it cannot. Sets verdict.kept. */
void drill_table_drop(struct drill *d);

/* Starts all threads. On failure complains and returns false; those already started run and must be joined. */
bool drill_workers_start(struct drill *d);

/* Tells all threads to stop and waits for the call that each of them is in. */
void drill_workers_join(struct drill *d);

/* Shows the drill until its duration is over or SIGINT or SIGTERM, which the caller has blocked, is pending. */
void drill_watch(struct drill *d);

/* Fetches the events there are, remembers them, and prints them. */
void drill_drain_events(struct drill *d);

/* Fills d->verdict. */
void drill_judge(struct drill *d);

/* Whether nothing was lost, duplicated, written to a stale primary, lied about or not readable. */
bool drill_passed(const struct drill *d);

void drill_report(const struct drill *d);
void drill_report_json(const struct drill *d, FILE *out);

/*
 * A handle for one node alone, whatever the cluster thinks of it; `index` is its place in the URL. What runs with
 * DBHA_DEFAULT goes to that node. NULL with a reason in `err`. The caller closes it.
 */
dbha *drill_node_open(const struct drill *d, int index, const char *name, dbha_error *err);

#endif
