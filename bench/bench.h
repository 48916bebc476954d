/*
 * bench: what the benchmarks have in common: arguments, clocks, spreads, threads that start and stop together, and a
 * pool as one writes it by hand over libpq.
 */
#ifndef BENCH_H
#define BENCH_H

#include <dbha.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Prints to stderr and ends the program with 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

int64_t now_ns(void);

/* CPU time of the whole process, user and system. */
int64_t process_cpu_ns(void);

void sleep_ms(long ms);

/* splitmix64 (Steele, Lea, Flood, 2014). */
uint64_t random_next(uint64_t *state);

/* ---- arguments: PROGRAM URL [--name value]... ------------------------------------------------------------------ */

struct args {
	int argc;
	char **argv;
};

/* Ends the program with `usage` on --help, without a URL, and for a name that is not in `names` (NULL at its end). */
const char *args_url(const struct args *args, const char *const *names, const char *usage);
const char *args_text(const struct args *args, const char *name, const char *otherwise);
long args_number(const struct args *args, const char *name, long otherwise, long least, long most);

/* "1,8" into `list` of `size`; returns how many. */
int args_list(const struct args *args, const char *name, const char *otherwise, int *list, int size);

/* ---- spreads --------------------------------------------------------------------------------------------------- */

struct series {
	double *values;
	int n, size;
};

struct spread {
	int n;
	double min, q1, median, q3, max, mean;
	double low, high; /* 95 % confidence limits of the median, by ranks: nothing is assumed of the distribution */
};

void series_add(struct series *series, double value);
void series_free(struct series *series);
struct spread series_spread(const struct series *series);

/* "NAME": {"median": ..., ...}; no comma behind it. NULL for file does nothing. */
void json_spread(FILE *json, const char *name, const struct spread *spread);

/* The file for --json, or NULL; it ends the program where it cannot be written. */
FILE *json_open(const char *path);

/* ---- the two sides --------------------------------------------------------------------------------------------- */

/* A connection to the primary among the hosts of the URL. */
PGconn *connect_by_hand(const char *url);

/* One or more statements without a result; ends the program where they fail. */
void command(PGconn *conn, const char *sql);

/* A handle with a pool of `size`; `ready` of them are open when this returns. */
dbha *open_handle(const char *url, int size, int ready);

/* A line that says which server, library and machine this was. */
void print_where(const char *url, uint64_t seed);

/* ---- threads that work in slices ------------------------------------------------------------------------------- */

struct crew;

struct worker {
	struct crew *crew;
	int index;
	uint64_t random;
	pthread_t thread;
	long count;
	int64_t began, ended, cpu;
};

/* Works until *stop; returns how much it has done. */
typedef long (*work_function)(struct worker *worker, const atomic_bool *stop);

struct crew {
	int n;
	struct worker *workers;
	pthread_barrier_t begin, end;
	work_function work; /* NULL: go home */
	atomic_bool stop;
};

void crew_start(struct crew *crew, int n, uint64_t *random);

/* One slice; returns the rate of all together, per second. cpu_each: CPU time of these threads per piece (ns), or NULL. */
double crew_slice(struct crew *crew, work_function work, long ms, double *cpu_each);
void crew_end(struct crew *crew);

/* ---- a pool by hand -------------------------------------------------------------------------------------------- */

/*
 * What one writes in an afternoon: a mutex, a condition variable, a stack of connections. It knows no deadline, no
 * order of arrival, no second node, and never replaces a connection that has died; it only looks at what comes back.
 */
struct hand_pool {
	pthread_mutex_t lock;
	pthread_cond_t given_back;
	PGconn **idle;
	int n_idle, size;
};

void hand_pool_open(struct hand_pool *pool, const char *url, int size);
void hand_pool_close(struct hand_pool *pool);
PGconn *hand_pool_acquire(struct hand_pool *pool);
void hand_pool_release(struct hand_pool *pool, PGconn *conn);

#endif
