#include "cluster.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX    24
#define HANDLES_MAX 128
#define THREADS_MAX 256
#define TEXT_MAX    2048
#define TEXTS       64

extern char **environ;

/* ---- small things -------------------------------------------------------------------------------------------- */

/* Room for an answer that lives until this thread has asked for some more. */
static char *text_buffer(void)
{
	static _Thread_local char texts[TEXTS][TEXT_MAX];
	static _Thread_local int next;
	return texts[next++ % TEXTS];
}

static char *format_text(const char *format, va_list args)
{
	char *text = text_buffer();
	int n = vsnprintf(text, TEXT_MAX, format, args);
	ck_assert(n >= 0 && n < TEXT_MAX);
	return text;
}

int64_t now_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void short_pause(void)
{
	poll(NULL, 0, 2);
}

/* ---- the harness --------------------------------------------------------------------------------------------- */

static const char *harness(void)
{
	static char path[1024];
	const char *named = getenv("DBHA_PGCLUSTER");
	const char *srcdir = getenv("srcdir");
	if (named)
		return named;
	snprintf(path, sizeof path, "%s/tests/cluster/pgcluster", srcdir ? srcdir : ".");
	return path;
}

static pid_t spawn(char *const argv[], int input, int output, bool own_session)
{
	pid_t pid;
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	if (input >= 0)
		posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	else
		posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (output >= 0)
		posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	if (own_session)
		posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID);
	int rc = posix_spawnp(&pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	ck_assert_msg(rc == 0, "%s cannot be run: %s", argv[0], strerror(rc));
	return pid;
}

static int end_of(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		ck_assert_int_eq(errno, EINTR);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Runs the harness; what it printed on standard output, without the last newline. Must succeed. */
static char *run_harness(char *const argv[])
{
	char *out = text_buffer();
	size_t used = 0;
	int fds[2];
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	pid_t pid = spawn(argv, -1, fds[1], false);
	close(fds[1]);
	for (ssize_t n; (n = read(fds[0], out + used, TEXT_MAX - 1 - used)) != 0;) {
		if (n < 0 && errno != EINTR)
			break;
		used += n > 0 ? (size_t)n : 0;
	}
	close(fds[0]);
	int status = end_of(pid);
	ck_assert_msg(status == 0, "pgcluster %s %s: exit status %d", argv[1], argv[2] ? argv[2] : "", status);
	while (used > 0 && out[used - 1] == '\n')
		used--;
	out[used] = '\0';
	return out;
}

/* The words of a text, cut out in place. */
static int split(char *text, char **words, int max)
{
	int n = 0;
	char *rest = NULL;
	for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
		ck_assert_int_lt(n, max);
		words[n++] = word;
	}
	return n;
}

/* The keeper waits for the end of its standard input, which comes when this program ends in whatever way. */
static void start_keeper(struct cluster *c)
{
	int fds[2];
	char script[] = "cat >/dev/null; exec \"$0\" destroy \"$1\"";
	char *argv[] = {(char[]){"/bin/sh"}, (char[]){"-c"}, script, (char *)harness(), c->dir, NULL};
	ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
	c->keeper = spawn(argv, fds[0], -1, true);
	close(fds[0]);
	c->keeper_fd = fds[1];
}

/* "promote 2" becomes: pgcluster promote DIR 2. */
static char *command(const struct cluster *c, char *text)
{
	char *argv[ARGS_MAX + 3] = {(char *)harness()};
	char *words[ARGS_MAX];
	int n = split(text, words, ARGS_MAX);
	argv[1] = words[0];
	argv[2] = (char *)c->dir;
	memcpy(argv + 3, words + 1, sizeof *words * (size_t)(n - 1));
	return run_harness(argv);
}

void cluster_create(struct cluster *c, const char *arguments)
{
	char *words = text_buffer();
	char *argv[ARGS_MAX + 3] = {(char *)harness(), (char[]){"create"}};
	snprintf(words, TEXT_MAX, "%s", arguments);
	split(words, argv + 2, ARGS_MAX);
	snprintf(c->dir, sizeof c->dir, "%s", run_harness(argv));
	c->nodes = atoi(arguments);
	start_keeper(c);
	for (int node = 1; node <= c->nodes; node++) {
		snprintf(words, TEXT_MAX, "port %d", node);
		c->ports[node] = atoi(command(c, words));
	}
}

void cluster_destroy(struct cluster *c)
{
	if (!c->keeper)
		return;
	close(c->keeper_fd);
	end_of(c->keeper);
	c->keeper = 0;
}

void cluster_do(const struct cluster *c, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	char *text = format_text(format, args);
	va_end(args);
	command(c, text);
}

const char *cluster_url(const struct cluster *c, const char *order, const char *options)
{
	char text[64];
	snprintf(text, sizeof text, "url %s", order ? order : "");
	char *url = command(c, text);
	if (options) {
		size_t used = strlen(url);
		snprintf(url + used, TEXT_MAX - used, "?%s", options);
	}
	return url;
}

int cluster_port(const struct cluster *c, int node)
{
	ck_assert_int_le(node, c->nodes);
	return c->ports[node];
}

const char *cluster_password(const struct cluster *c)
{
	char *password = text_buffer();
	snprintf(password, TEXT_MAX, "%s", strstr(cluster_url(c, "1", NULL), "app:") + 4);
	password[strcspn(password, "@")] = '\0';
	ck_assert_uint_gt(strlen(password), 8);
	return password;
}

PGconn *cluster_admin(const struct cluster *c, int node)
{
	char conninfo[512];
	snprintf(conninfo, sizeof conninfo,
	         "host=%s port=%d user=postgres dbname=app application_name=oracle connect_timeout=10", c->dir,
	         cluster_port(c, node));
	PGconn *pg = PQconnectdb(conninfo);
	ck_assert_msg(PQstatus(pg) == CONNECTION_OK, "node %d: %s", node, PQerrorMessage(pg));
	return pg;
}

static const char *first_value(PGconn *pg, const char *sql)
{
	char *value = text_buffer();
	PGresult *result = PQexec(pg, sql);
	ExecStatusType status = PQresultStatus(result);
	ck_assert_msg(status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK, "%s: %s", sql, PQerrorMessage(pg));
	value[0] = '\0';
	if (PQntuples(result) > 0)
		snprintf(value, TEXT_MAX, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

static const char *ask(const struct cluster *c, int node, const char *sql)
{
	PGconn *pg = cluster_admin(c, node);
	const char *value = first_value(pg, sql);
	PQfinish(pg);
	return value;
}

const char *cluster_ask(const struct cluster *c, int node, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	char *sql = format_text(format, args);
	va_end(args);
	return ask(c, node, sql);
}

long cluster_count(const struct cluster *c, int node, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	char *sql = format_text(format, args);
	va_end(args);
	return atol(ask(c, node, sql));
}

void cluster_catch_up(const struct cluster *c, int node, int primary)
{
	char lsn[32];
	snprintf(lsn, sizeof lsn, "%s", cluster_ask(c, primary, "SELECT pg_current_wal_lsn()"));
	WAIT_FOR(*cluster_ask(c, node, "SELECT pg_last_wal_replay_lsn() >= '%s'", lsn) == 't', PATIENCE_MS);
}

void cluster_all_catch_up(const struct cluster *c)
{
	for (int node = 2; node <= c->nodes; node++)
		cluster_catch_up(c, node, 1);
}

void cluster_with_rows(struct cluster *c, const char *arguments, const char *columns)
{
	if (c->keeper)
		return;
	cluster_create(c, arguments);
	cluster_ask(c, 1, "CREATE TABLE rows (%s)", columns);
	cluster_ask(c, 1, "GRANT ALL ON rows TO app");
	cluster_all_catch_up(c);
}

void cluster_intact_with_rows(struct cluster *c, const char *arguments, const char *columns)
{
	if (!c->intact)
		cluster_destroy(c);
	c->intact = false;
	cluster_with_rows(c, arguments, columns);
}

void cluster_as_before(struct cluster *c, dbha *h)
{
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	handles_close();
	cluster_ask(c, 1, "TRUNCATE rows");
	cluster_all_catch_up(c);
	c->intact = true;
}

/* ---- the library --------------------------------------------------------------------------------------------- */

static dbha *handles[HANDLES_MAX];

dbha *open_handle(const char *url)
{
	dbha_error err;
	dbha *h = dbha_open(url, &err);
	ck_assert_msg(h != NULL, "%s", h ? "" : err.message);
	for (int i = 0; i < HANDLES_MAX; i++) {
		if (!handles[i]) {
			handles[i] = h;
			return h;
		}
	}
	ck_abort_msg("too many handles in one test");
	return NULL;
}

dbha *open_all(const struct cluster *c, const char *options)
{
	dbha *h = open_handle(cluster_url(c, NULL, options));
	dbha_error err;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	return h;
}

dbha *open_hosts(const struct cluster *c, const char *hosts, const char *options)
{
	char url[1024];
	snprintf(url, sizeof url, "postgresql://app:%s@%s/app%s%s", cluster_password(c), hosts, options ? "?" : "",
	         options ? options : "");
	return open_handle(url);
}

void close_handle(dbha *h, int drain_ms)
{
	for (int i = 0; i < HANDLES_MAX; i++)
		if (handles[i] == h)
			handles[i] = NULL;
	dbha_close(h, drain_ms);
}

void (*before_handles_close)(void);

void handles_close(void)
{
	if (before_handles_close)
		before_handles_close();
	for (int i = 0; i < HANDLES_MAX; i++) {
		dbha_close(handles[i], 0);
		handles[i] = NULL;
	}
}

int run(dbha *h, dbha_intent intent, int timeout_ms, const char *sql, dbha_error *err)
{
	PGresult *result;
	int code = dbha_exec(h, &DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = timeout_ms), &result, err);
	PQclear(result);
	return code;
}

const char *fetch(dbha *h, dbha_intent intent, const char *format, ...)
{
	PGresult *result;
	dbha_error err;
	char *value = text_buffer();
	va_list args;
	va_start(args, format);
	char *sql = format_text(format, args);
	va_end(args);
	int code = dbha_exec(h, &DBHA_REQUEST(.sql = sql, .intent = intent), &result, &err);
	ck_assert_msg(code == DBHA_OK, "%s: %s: %s", sql, dbha_code_name(code), code ? err.message : "");
	value[0] = '\0';
	if (PQntuples(result) > 0)
		snprintf(value, TEXT_MAX, "%s", PQgetvalue(result, 0, 0));
	PQclear(result);
	return value;
}

const char *lease_fetch(const dbha_conn *lease, const char *sql)
{
	return first_value(dbha_conn_pq(lease), sql);
}

dbha_cluster_status cluster_status(dbha *h)
{
	dbha_error err;
	dbha_cluster_status status = {.size = sizeof status};
	ck_assert_msg(dbha_status(h, &status, NULL, 0, &err) == 0, "dbha_status failed");
	return status;
}

dbha_node_status node_status(dbha *h, int node)
{
	dbha_error err;
	dbha_cluster_status status = {.size = sizeof status};
	dbha_node_status nodes[9] = {{.size = sizeof nodes[0]}};
	ck_assert_int_gt(dbha_status(h, &status, nodes, 9, &err), node);
	return nodes[node];
}

dbha_counters counters(dbha *h, int node)
{
	dbha_error err;
	dbha_counters sum = {.size = sizeof sum};
	ASSERT_OK(dbha_stats(h, node, &sum, &err), err);
	return sum;
}

bool event_within(dbha *h, int kind, int timeout_ms, dbha_event *event)
{
	dbha_event own;
	int64_t end = now_ms() + timeout_ms;
	if (!event)
		event = &own;
	event->size = sizeof *event;
	for (;;) {
		while (dbha_next_event(h, event, NULL) == 1)
			if (event->kind == kind)
				return true;
		if (now_ms() >= end)
			return false;
		short_pause();
	}
}

/* ---- threads --------------------------------------------------------------------------------------------------- */

atomic_bool threads_stop;
static pthread_t threads[THREADS_MAX];
static int n_threads;

pthread_t start_thread(void *(*function)(void *), void *arg)
{
	ck_assert_int_lt(n_threads, THREADS_MAX);
	ck_assert_int_eq(pthread_create(&threads[n_threads], NULL, function, arg), 0);
	return threads[n_threads++];
}

void join_thread(pthread_t thread)
{
	pthread_join(thread, NULL);
	for (int i = 0; i < n_threads; i++) {
		if (pthread_equal(threads[i], thread)) {
			threads[i] = threads[--n_threads];
			return;
		}
	}
}

void join_threads(void)
{
	while (n_threads > 0)
		pthread_join(threads[--n_threads], NULL);
}

/* ---- suites -------------------------------------------------------------------------------------------------- */

static const char *running;
static const char *names[HANDLES_MAX];
static int limits[HANDLES_MAX];
static int n_tests, next_test;

/* The limit of a test has passed, or it crashed: says which one it was. The default action ends the program. */
static void on_end(int sig)
{
	const char *what = sig == SIGALRM ? ": the time limit of this test has passed\n" : ": crashed\n";
	signal(sig, SIG_DFL);
	if (!running || write(STDERR_FILENO, running, strlen(running)) < 0 || write(STDERR_FILENO, what, strlen(what)) < 0)
		_exit(3);
	raise(sig);
}

/* The test cases run in the order in which they were added, unless CK_RUN_CASE picks some: then every limit is long. */
static void begin_test(void)
{
	bool picked = getenv("CK_RUN_CASE") != NULL;
	running = picked ? getenv("CK_RUN_CASE") : names[next_test];
	alarm(picked ? 120 : (unsigned)limits[next_test]);
	next_test++;
}

static void end_test(void)
{
	atomic_store(&threads_stop, true);
	join_threads();
	atomic_store(&threads_stop, false);
	handles_close();
	alarm(0);
}

void add_test(Suite *suite, const char *name, const TTest *test, SFun before, SFun after, int limit_s)
{
	TCase *tc = tcase_create(name);
	names[n_tests] = name;
	limits[n_tests++] = limit_s;
	/* Teardowns run in the reverse order: handles are closed before the servers go. */
	tcase_add_checked_fixture(tc, begin_test, NULL);
	tcase_add_checked_fixture(tc, before, after);
	tcase_add_checked_fixture(tc, NULL, end_test);
	tcase_add_test(tc, test);
	suite_add_tcase(suite, tc);
}

static void forget_environment(void)
{
	static const char *const kept[] = {"DBHA_PGCLUSTER=", "DBHA_PGUSER=", "DBHA_FIRST_WRITE=", "DBHA_SEED=", "PGBIN="};
	for (char **entry = environ; *entry;) {
		bool keep =
		    strncmp(*entry, "PG", 2) != 0 && strncmp(*entry, "DB", 2) != 0 && strncmp(*entry, "DATABASE_URL=", 13);
		for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
			keep = keep || strncmp(*entry, kept[i], strlen(kept[i])) == 0;
		if (keep) {
			entry++;
			continue;
		}
		char name[128];
		snprintf(name, sizeof name, "%.*s", (int)strcspn(*entry, "="), *entry);
		unsetenv(name); /* moves the others up */
	}
}

int run_suite(Suite *suite, struct cluster *once)
{
	forget_environment();
	signal(SIGALRM, on_end);
	if (!SANITIZED) { /* a sanitizer reports crashes itself */
		signal(SIGSEGV, on_end);
		signal(SIGBUS, on_end);
		signal(SIGABRT, on_end);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	SRunner *runner = srunner_create(suite);
	srunner_set_fork_status(runner, CK_NOFORK);
	srunner_run_all(runner, CK_ENV);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	if (once)
		cluster_destroy(once);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
