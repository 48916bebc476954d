/*
 * work: what an application does while its servers are in trouble: single statements in threads of their own, and a load
 * of reads and writes that is counted.
 */
#ifndef WORK_H
#define WORK_H

#include "cluster.h"

int64_t now_us(void);

/* One statement in a thread of its own. Static or on the heap. */
struct statement {
	pthread_t thread;
	dbha *h;
	dbha_request rq;
	PGconn *pg; /* instead of the handle: PQexec on it, and DBHA_ERR_LOST for a failure */
	atomic_bool done;
	int code;
	int64_t began_us, ended_us;
	dbha_error err;
};

void statement_start(struct statement *s, dbha *h, dbha_intent intent, int timeout_ms, const char *sql);
void statement_start_request(struct statement *s, dbha *h, const dbha_request *rq);
void statement_start_on(struct statement *s, PGconn *pg, const char *sql);
void statement_join(struct statement *s);

/* Until a statement with this text (a pattern of LIKE) runs on the node. */
void expect_running(const struct cluster *c, int node, const char *text);

/*
 * One thread that inserts rows into "rows (id)", 0, 1, 2 ..., and one that reads: as fast as they can, or, gently, at
 * most some hundred a second. Acknowledged means that a call returned DBHA_OK.
 */
#define LOAD_IDS_MAX 400000

struct load {
	dbha *h;
	bool gently;
	atomic_bool stop;
	pthread_t writer, reader;
	atomic_long writes, unknown, write_errors, reads, read_errors;
	atomic_llong mark_us;   /* of load_mark */
	atomic_llong marked_us; /* when the first write that was begun after it was acknowledged; 0: not yet */
	atomic_long next_id;
	dbha_error first_error;
	bool acknowledged[LOAD_IDS_MAX];
};

struct load *load_start(dbha *h, bool gently);
void load_stop(struct load *load);
void load_free(struct load *load);

void load_mark(struct load *load);

/* This many more writes are acknowledged. */
void load_expect_writes(struct load *load, long more);
void load_expect_reads(struct load *load, long more);

/* Once it has stopped: nothing has failed, and of no more writes than this it is unknown what became of them. */
void load_expect_no_errors(const struct load *load, long unknown);

/* Acknowledged rows that the node does not have, and rows it has twice. */
long load_missing(const struct load *load, const struct cluster *c, int node);
long load_duplicates(const struct cluster *c, int node);

/* Asks for a promotion and waits until the node accepts writes; when that was. */
int64_t promote(const struct cluster *c, int node);

/* Of three nodes, node 1 is the primary again, and both others are its standbys. */
void back_to_node_1(const struct cluster *c, int primary);

/* Median and worst of some times, printed as one line "name: median M ms, worst W ms of N". */
struct figures {
	const char *name;
	int64_t us[64];
	int n;
};

void figures_add(struct figures *figures, int64_t us);
int64_t figures_median_us(struct figures *figures);
int64_t figures_worst_us(struct figures *figures);
void figures_print(struct figures *figures);

/* How often a text is in a file. */
int count_in_file(const char *path, const char *text);

#endif
