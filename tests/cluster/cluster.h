/*
 * cluster: what the programs of tests/cluster share. Runs the harness (pgcluster) that makes and breaks real servers, asks
 * the servers themselves what they have seen, and keeps track of handles, so that a failed test leaves nothing behind.
 *
 * The tests run in one process (Check's CK_NOFORK): the library has fork handlers, and a test must not depend on them unless
 * it is about fork. A test that hangs is ended by SIGALRM with the whole program; each cluster has a keeper, a process
 * that destroys it as soon as the program is gone, however it ended. Threads of a test never assert: they record.
 */
#ifndef CLUSTER_H
#define CLUSTER_H

#include <check.h>
#include <libpq-fe.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "dbha.h"

/*
 * ThreadSanitizer ends a child whose new thread gets the stack of one that the parent had ("dup thread with used id"): under
 * it only those children are tried that start none.
 */
#ifdef __SANITIZE_THREAD__
#define CHILD_MAY_HAVE_THREADS 0
#else
#define CHILD_MAY_HAVE_THREADS 1
#endif

/* What a call may take beyond its deadline; a sanitizer makes everything slower. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#define SLACK_MS  500
#else
#define SANITIZED 0
#define SLACK_MS  50
#endif

/* How long an effect may take to show before the test has failed. */
#define PATIENCE_MS 15000

struct cluster {
	char dir[128];
	int nodes;
	int ports[10]; /* by node, from 1 on */
	pid_t keeper;
	int keeper_fd; /* closed: the keeper destroys the cluster */
	bool intact;   /* as it was made, so the test says that has just ended: the next one may have it */
};

/*
 * A text that a function below returns is good for the next 60 of them: what lives longer is copied, or a number.
 */

/* ---- the harness -------------------------------------------------------------------------------------------- */

/* "create" with these arguments, separated by blanks: "3", "2 --set max_connections=20". */
void cluster_create(struct cluster *c, const char *arguments);
void cluster_destroy(struct cluster *c);

/* A cluster with a table "rows" of these columns, which role app may use, on all nodes. One that is there already is kept. */
void cluster_with_rows(struct cluster *c, const char *arguments, const char *columns);

/* The same; one that was not left intact is replaced. Before a test: from now on it is not. */
void cluster_intact_with_rows(struct cluster *c, const char *arguments, const char *columns);

/* The last words of a test that has mended what it broke, and whose primary is node 1: empties "rows", says `intact`. */
void cluster_as_before(struct cluster *c, dbha *h);

/* A command of the harness that must succeed: cluster_do(&c, "rejoin %d %d", 1, 2). */
void cluster_do(const struct cluster *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The URL of the nodes in an order such as "3 1 2" (NULL: all), with options "a=b&c=d" (NULL: none). */
const char *cluster_url(const struct cluster *c, const char *order, const char *options);
int cluster_port(const struct cluster *c, int node);
const char *cluster_password(const struct cluster *c);

/* The superuser's own connection to a node, past the library; the caller ends it. */
PGconn *cluster_admin(const struct cluster *c, int node);

/* Asks a node itself: the first value of a query, or "" for NULL or no row. */
const char *cluster_ask(const struct cluster *c, int node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
long cluster_count(const struct cluster *c, int node, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Until a node has replayed everything that another has written. */
void cluster_catch_up(const struct cluster *c, int node, int primary);
void cluster_all_catch_up(const struct cluster *c); /* with node 1 */

/* ---- the library -------------------------------------------------------------------------------------------- */

/* Opens a handle that handles_close() closes. Must succeed. */
dbha *open_handle(const char *url);
dbha *open_all(const struct cluster *c, const char *options); /* of all nodes; returns when it has found them all up */

/* The same for hosts of one's own choice, as role app of the cluster. */
dbha *open_hosts(const struct cluster *c, const char *hosts, const char *options);
void close_handle(dbha *h, int drain_ms);
void handles_close(void);

/* What is closed before them; NULL: nothing. */
extern void (*before_handles_close)(void);

/* One statement without parameters; timeout 0: call_timeout. Returns the code. */
int run(dbha *h, dbha_intent intent, int timeout_ms, const char *sql, dbha_error *err);

/* The same; must succeed. The first value, or "". */
const char *fetch(dbha *h, dbha_intent intent, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* On the connection of a lease; must succeed. The first value, or "". */
const char *lease_fetch(const dbha_conn *lease, const char *sql);

dbha_cluster_status cluster_status(dbha *h);
dbha_node_status node_status(dbha *h, int node);
dbha_counters counters(dbha *h, int node);

/* Whether an event of this kind comes within the time; older events of other kinds are dropped. */
bool event_within(dbha *h, int kind, int timeout_ms, dbha_event *event);

/*
 * A thread of the test. What it uses must outlive the test (static or on the heap): a test that fails ends in the middle, and
 * only then are its threads told to stop and joined. A loop ends when `threads_stop` is set.
 */
extern atomic_bool threads_stop;
pthread_t start_thread(void *(*function)(void *), void *arg);
void join_thread(pthread_t thread);
void join_threads(void); /* all that are left, without telling them to stop */

/* ---- time and ends ------------------------------------------------------------------------------------------- */

int64_t now_ms(void);
void short_pause(void); /* 2 ms between two looks */

/* Waits for an effect, with a bound. */
#define WAIT_FOR(condition, ms)                                                                                        \
	do {                                                                                                               \
		int64_t wait_end = now_ms() + (ms);                                                                            \
		while (!(condition)) {                                                                                         \
			ck_assert_msg(now_ms() < wait_end, "not within %d ms: %s", (int)(ms), #condition);                         \
			short_pause();                                                                                             \
		}                                                                                                              \
	} while (0)

/* A call ended with this code; its message is shown where it did not. */
#define ASSERT_CODE(code, expected, err)                                                                               \
	do {                                                                                                               \
		int got_code = (code);                                                                                         \
		ck_assert_msg(got_code == DBHA_ERR_##expected, "%s, not %s: %s", dbha_code_name(got_code), #expected,          \
		              got_code ? (err).message : "");                                                                  \
	} while (0)

#define ASSERT_OK(code, err)       ASSERT_CODE(code, OK, err)
#define ASSERT_HAS(text, part)     ck_assert_msg(strstr(text, part) != NULL, "\"%s\" is not in: %s", part, text)
#define ASSERT_HAS_NOT(text, part) ck_assert_msg(strstr(text, part) == NULL, "\"%s\" is in: %s", part, text)

/* Adds a test case of one function, with its own limit; before and after may be NULL. */
void add_test(Suite *suite, const char *name, const TTest *test, SFun before, SFun after, int limit_s);
#define ADD_TEST(suite, test, before, after, limit_s) add_test(suite, #test, test, before, after, limit_s)

/* Runs a suite; the exit status of the program. once: destroyed at the end, may be NULL. */
int run_suite(Suite *suite, struct cluster *once);

#endif
