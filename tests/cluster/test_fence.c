/*
 * test_fence: fence_file on real servers: a process that meets only the stale primary, processes that share the file, a cluster that
 * was rebuilt, a file that cannot be written, a forked child. What was written where, the servers themselves are asked.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"

/* ThreadSanitizer cannot bear threads in a forked child, see test_fork. */
#ifdef __SANITIZE_THREAD__
#define CHILD_MAY_HAVE_THREADS 0
#else
#define CHILD_MAY_HAVE_THREADS 1
#endif
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "die_after_fork=0";
}

static int is_child;
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
	return is_child;
}

static struct cluster c, rebuilt;
static bool intact; /* nobody was promoted: the next test may have it */
static char directory[300], path[320];

static void servers(void)
{
	if (!intact) {
		cluster_destroy(&c);
		cluster_with_rows(&c, "2", "id int");
	}
	intact = true;
	const char *tmp = getenv("TMPDIR");
	snprintf(directory, sizeof directory, "%s/dbha-fence-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/fence", directory);
}

static void two_clusters(void)
{
	cluster_with_rows(&rebuilt, "1", "id int");
	servers();
}

static const char *beside(const char *suffix)
{
	static char name[340];
	snprintf(name, sizeof name, "%s%s", path, suffix);
	return name;
}

static void end(void)
{
	static const char *const suffixes[] = {"", ".lock", ".new"};
	handles_close();
	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
		if (unlink(beside(suffixes[i])) != 0)
			rmdir(beside(suffixes[i]));
	rmdir(directory);
}

/* ---- handles ---------------------------------------------------------------------------------------------------- */

static const char *fenced_url(const struct cluster *cluster, const char *order, const char *more)
{
	char options[600];
	snprintf(options, sizeof options, "fence_file=%s&probe_interval=200ms%s%s", path, more ? "&" : "",
	         more ? more : "");
	return cluster_url(cluster, order, options);
}

static dbha *open_fenced(const struct cluster *cluster, const char *order, const char *more)
{
	return open_handle(fenced_url(cluster, order, more));
}

static int insert(dbha *h, int id, int timeout_ms, dbha_error *err)
{
	char sql[64];
	snprintf(sql, sizeof sql, "INSERT INTO rows VALUES (%d)", id);
	return run(h, DBHA_WRITE, timeout_ms, sql, err);
}

static void insert_ok(dbha *h, int id)
{
	dbha_error err;
	ASSERT_OK(insert(h, id, PATIENCE_MS, &err), err);
}

static long rows(const struct cluster *cluster, int node, int id)
{
	return cluster_count(cluster, node, "SELECT count(*) FROM rows WHERE id = %d", id);
}

static void file_text(char text[600])
{
	FILE *file = fopen(path, "r");
	ck_assert_msg(file != NULL, "%s is not there", path);
	text[fread(text, 1, 599, file)] = '\0';
	fclose(file);
}

static bool file_has(const char *part)
{
	char text[600];
	file_text(text);
	return strstr(text, part) != NULL;
}

static const char *identifier(const struct cluster *cluster)
{
	return cluster_ask(cluster, 1, "SELECT system_identifier FROM pg_control_system()");
}

static void promote(int node)
{
	intact = false;
	cluster_do(&c, "promote %d", node);
	WAIT_FOR(*cluster_ask(&c, node, "SELECT pg_is_in_recovery()") == 'f', PATIENCE_MS);
}

/* A process has followed a failover to node 2 and has ended; then node 2 goes, and node 1, on timeline 1, is all there is. */
static void leave_the_stale_primary_alone(void)
{
	dbha *h = open_fenced(&c, NULL, NULL);
	insert_ok(h, 1);
	cluster_do(&c, "stop 1");
	promote(2);
	insert_ok(h, 2);
	close_handle(h, 1000);
	ck_assert(file_has(" timeline 2\n"));
	cluster_do(&c, "stop 2");
	cluster_do(&c, "start 1");
}

/* ---- a new process ------------------------------------------------------------------------------------------------ */

static void only_the_stale_primary(const char *options)
{
	dbha_error err;
	/* By a handle with a thread: what those without one share within this process must not help. */
	leave_the_stale_primary_alone();
	/* Without the file nobody can know: this is what the file is for. */
	dbha *unfenced = open_handle(cluster_url(&c, NULL, options));
	insert_ok(unfenced, 3);
	ck_assert_int_eq(rows(&c, 1, 3), 1);
	close_handle(unfenced, 0);

	dbha *h = open_fenced(&c, NULL, options);
	ASSERT_CODE(insert(h, 4, 1000, &err), NO_NODE, err);
	ck_assert(err.retry_safe);
	ASSERT_HAS(err.message, "timeline 2 is known from fence_file");
	ASSERT_HAS(err.message, path);
	ASSERT_HAS(err.message, "is fenced as a primary");
	ASSERT_CODE(run(h, DBHA_DEFAULT, 300, "INSERT INTO rows VALUES (4)", &err), NO_NODE, err);
	ASSERT_CODE(dbha_wait(h, DBHA_WAIT_PRIMARY, 300, &err), NO_NODE, err);
	ASSERT_HAS(err.message, path);
	ck_assert_int_eq(node_status(h, 0).state, DBHA_STATE_FENCED);
	ck_assert_uint_eq(cluster_status(h).timeline, 2);
	ck_assert_str_eq(cluster_status(h).fence_trouble, "");
	ck_assert_int_eq(rows(&c, 1, 4), 0);
	/* And it goes on when the right one is there again. */
	cluster_do(&c, "start 2");
	insert_ok(h, 5);
	ck_assert_int_eq(rows(&c, 1, 5), 0);
	ck_assert_int_eq(rows(&c, 2, 5), 1);
}

START_TEST(a_process_that_meets_only_the_stale_primary_does_not_write)
{
	only_the_stale_primary(NULL);
}
END_TEST

START_TEST(nor_does_one_without_a_thread)
{
	only_the_stale_primary("monitor=off");
}
END_TEST

/* A program of its own; returns its exit status. */
static int run_dbha(char output[2048], const char *format, ...) __attribute__((format(printf, 2, 3)));
static int run_dbha(char output[2048], const char *format, ...)
{
	char arguments[1500], command[1600];
	va_list args;
	va_start(args, format);
	vsnprintf(arguments, sizeof arguments, format, args);
	va_end(args);
	snprintf(command, sizeof command, "./examples/dbha %s 2>&1", arguments);
	FILE *pipe = popen(command, "r");
	ck_assert_ptr_nonnull(pipe);
	output[fread(output, 1, 2047, pipe)] = '\0';
	int status = pclose(pipe);
	ck_assert(WIFEXITED(status));
	return WEXITSTATUS(status);
}

START_TEST(another_program_knows_it_too)
{
	char output[2048];
	leave_the_stale_primary_alone();
	ck_assert_int_eq(run_dbha(output, "status '%s'", fenced_url(&c, NULL, NULL)), 1);
	ASSERT_HAS(output, "fenced");
	ck_assert_int_eq(run_dbha(output, "status '%s'", cluster_url(&c, NULL, NULL)), 0);
	ck_assert_int_ne(
	    run_dbha(output, "exec --write '%s' 'INSERT INTO rows VALUES (6)'", fenced_url(&c, NULL, "call_timeout=1s")),
	    0);
	ck_assert_int_eq(rows(&c, 1, 6), 0);
}
END_TEST

static bool write_is_refused(const char *url)
{
	dbha_error err = {0};
	PGresult *result;
	dbha *h = dbha_open(url, &err);
	dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows VALUES (7)", .intent = DBHA_WRITE, .timeout_ms = 1000);
	int code = h ? dbha_exec(h, &rq, &result, &err) : DBHA_OK;
	bool refused = code == DBHA_ERR_NO_NODE && strstr(err.message, "fence_file");
	if (!refused)
		fprintf(stderr, "in the child: %d %s\n", code, err.message);
	return refused;
}

/* The handle is the parent's, used before by it or not; the child is told when the others have moved on. */
static pid_t child_with(dbha *h, int go)
{
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid != 0)
		return pid;
	char byte;
	dbha_error err = {0};
	PGresult *result;
	is_child = 1;
	alarm(40);
	dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO rows VALUES (7)", .intent = DBHA_WRITE, .timeout_ms = 1000);
	bool told = read(go, &byte, 1) == 1;
	int code = told ? dbha_exec(h, &rq, &result, &err) : DBHA_OK;
	bool refused = code == DBHA_ERR_NO_NODE && strstr(err.message, "fence_file");
	if (!refused)
		fprintf(stderr, "in the child: %d %s\n", code, err.message);
	_exit(refused ? 0 : 1);
}

START_TEST(a_forked_child_reads_again_what_others_have_seen)
{
	int go[2], status;
	if (!CHILD_MAY_HAVE_THREADS)
		return;
	ck_assert_int_eq(pipe2(go, O_CLOEXEC), 0);
	dbha *used = open_fenced(&c, "1", NULL), *unused = open_fenced(&c, "1", NULL);
	insert_ok(used, 1);
	pid_t pids[] = {child_with(used, go[0]), child_with(unused, go[0])};
	handles_close();
	leave_the_stale_primary_alone();
	ck_assert_int_eq(write(go[1], "xx", 2), 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
		ck_assert_int_eq(status, 0);
	}
	ck_assert_int_eq(rows(&c, 1, 7), 0);
	ck_assert(write_is_refused(fenced_url(&c, "1", NULL)));
	close(go[0]);
	close(go[1]);
}
END_TEST

/* ---- several processes ---------------------------------------------------------------------------------------------- */

START_TEST(a_timeline_that_one_handle_sees_fences_the_others)
{
	dbha_error err;
	dbha *blind = open_fenced(&c, "1", NULL), *without = open_handle(cluster_url(&c, "1", "probe_interval=200ms"));
	insert_ok(blind, 1);
	insert_ok(without, 1);
	dbha_conn *lease = dbha_acquire(blind, DBHA_WRITE, 0, NULL);
	dbha *seeing = open_fenced(&c, NULL, NULL);
	insert_ok(seeing, 1);
	promote(2); /* and node 1 lives on */
	WAIT_FOR(cluster_status(seeing).timeline == 2, PATIENCE_MS);
	insert_ok(seeing, 2);
	ck_assert_int_eq(rows(&c, 2, 2), 1);
	int64_t seen = now_ms();
	WAIT_FOR(node_status(blind, 0).state == DBHA_STATE_FENCED, PATIENCE_MS);
	ck_assert_int_lt(now_ms() - seen, 200 + 10 * SLACK_MS);
	ck_assert(event_within(blind, DBHA_EVENT_FENCED, 1000, NULL));
	ASSERT_CODE(insert(blind, 3, 500, &err), NO_NODE, err);
	PGresult *result = PQexec(dbha_conn_pq(lease), "INSERT INTO rows VALUES (3)");
	ck_assert_int_eq(PQresultStatus(result), PGRES_FATAL_ERROR); /* cut */
	PQclear(result);
	dbha_release(lease);
	ck_assert_int_eq(rows(&c, 1, 3), 0);
	insert_ok(without, 4); /* the contrast */
	ck_assert_int_eq(rows(&c, 1, 4), 1);
}
END_TEST

struct background {
	dbha *h;
	pthread_t thread;
	atomic_bool done;
	int code;
	int64_t ended_ms;
	dbha_error err;
};

static void *insert_in_background(void *arg)
{
	struct background *b = arg;
	b->code = insert(b->h, 2, PATIENCE_MS, &b->err);
	b->ended_ms = now_ms();
	atomic_store(&b->done, true);
	return NULL;
}

/* While the file cannot be written, for somebody holds its lock, no write is let through: 100 ms, or until it can. */
START_TEST(the_file_has_a_timeline_before_anybody_writes_on_it)
{
	static struct background b;
	memset(&b, 0, sizeof b);
	b.h = open_fenced(&c, NULL, NULL);
	insert_ok(b.h, 1);
	ck_assert(file_has(" timeline 1\n"));
	cluster_do(&c, "kill 1");
	WAIT_FOR(cluster_status(b.h).primary < 0, PATIENCE_MS);
	b.thread = start_thread(insert_in_background, &b);
	int lock = open(beside(".lock"), O_RDWR | O_CLOEXEC);
	ck_assert_int_eq(flock(lock, LOCK_EX), 0);
	intact = false;
	cluster_do(&c, "promote 2");
	int64_t last_standby = now_ms();
	while (*cluster_ask(&c, 2, "SELECT pg_is_in_recovery()") != 'f')
		last_standby = now_ms();
	for (int64_t until = now_ms() + 30; now_ms() < until;)
		short_pause();
	int64_t released = now_ms();
	close(lock);
	WAIT_FOR(atomic_load(&b.done), PATIENCE_MS);
	join_thread(b.thread);
	ASSERT_OK(b.code, b.err);
	int64_t limit = released < last_standby + 100 ? released : last_standby + 100;
	ck_assert_msg(b.ended_ms >= limit, "written %d ms too early", (int)(limit - b.ended_ms));
	WAIT_FOR(file_has(" timeline 2\n") && !*cluster_status(b.h).fence_trouble, PATIENCE_MS);
}
END_TEST

START_TEST(a_file_that_cannot_be_written_stops_nobody_and_is_reported)
{
	dbha_event event = {.size = sizeof event};
	dbha *h = open_fenced(&c, NULL, NULL);
	insert_ok(h, 1);
	ck_assert_int_eq(mkdir(beside(".new"), 0700), 0);
	cluster_do(&c, "kill 1");
	promote(2);
	insert_ok(h, 2);
	ck_assert(event_within(h, DBHA_EVENT_FENCE_FILE, 1000, &event));
	ASSERT_HAS(event.text, path);
	ASSERT_HAS(cluster_status(h).fence_trouble, "cannot be written");
	ck_assert(file_has(" timeline 1\n"));
	ck_assert_int_eq(rmdir(beside(".new")), 0);
	WAIT_FOR(file_has(" timeline 2\n"), PATIENCE_MS);
	WAIT_FOR(!*cluster_status(h).fence_trouble, PATIENCE_MS);
	ck_assert(event_within(h, DBHA_EVENT_FENCE_FILE, 1000, NULL));
}
END_TEST

START_TEST(a_damaged_file_is_refused_at_open)
{
	dbha_error err;
	dbha *h = open_fenced(&c, NULL, NULL);
	insert_ok(h, 1);
	ck_assert_int_eq(truncate(path, 30), 0);
	ck_assert_ptr_null(dbha_open(fenced_url(&c, NULL, NULL), &err));
	ck_assert_int_eq(err.code, DBHA_ERR_CONFIG);
	ASSERT_HAS(err.message, path);
	ASSERT_HAS(err.message, "damaged");
	ASSERT_HAS(err.message, "remove it");
	insert_ok(h, 2); /* who knew it goes on, and says so */
	WAIT_FOR(strstr(cluster_status(h).fence_trouble, "damaged"), PATIENCE_MS);
	unlink(path);
	WAIT_FOR(access(path, F_OK) == 0 && !*cluster_status(h).fence_trouble, PATIENCE_MS);
	ck_assert(file_has(identifier(&c)));
}
END_TEST

/* ---- which cluster --------------------------------------------------------------------------------------------------- */

static void refused_as_foreign(dbha *h, const char *now, const char *remembered)
{
	dbha_error err;
	ASSERT_CODE(insert(h, 9, 1000, &err), FOREIGN, err);
	ck_assert(err.retry_safe);
	ck_assert_str_eq(err.sqlstate, "08004");
	ASSERT_HAS(err.message, now);
	ASSERT_HAS(err.message, remembered);
	ASSERT_HAS(err.message, path);
	ASSERT_HAS(err.message, "--accept-cluster");
	char option[80];
	snprintf(option, sizeof option, "accept_cluster=%s", now);
	ASSERT_HAS(err.message, option);
}

START_TEST(a_rebuilt_cluster_is_refused_until_it_is_accepted)
{
	char ours[32], theirs[32], output[2048], dead[2600];
	snprintf(ours, sizeof ours, "%s", identifier(&c));
	snprintf(theirs, sizeof theirs, "%s", identifier(&rebuilt));
	insert_ok(open_fenced(&c, NULL, NULL), 1);
	handles_close();
	dbha *running = open_fenced(&rebuilt, NULL, NULL);
	refused_as_foreign(running, theirs, ours);
	ck_assert_int_eq(node_status(running, 0).state, DBHA_STATE_FOREIGN);
	/* A node that does not answer may be ours, so that the call waits for it; and then says the same. */
	snprintf(dead, sizeof dead, "postgresql://app:%s@127.0.0.1:%d,127.0.0.1:1/app?fence_file=%s",
	         cluster_password(&rebuilt), cluster_port(&rebuilt, 1), path);
	refused_as_foreign(open_handle(dead), theirs, ours);
	ck_assert_int_eq(rows(&rebuilt, 1, 9), 0);

	ck_assert_int_eq(run_dbha(output, "status --accept-cluster '%s'", fenced_url(&c, NULL, NULL)), 3);
	ASSERT_HAS(output, "nothing to accept");
	ck_assert_int_eq(run_dbha(output, "status --accept-cluster '%s'", fenced_url(&rebuilt, NULL, NULL)), 0);
	ASSERT_HAS(output, ours);
	ASSERT_HAS(output, theirs);
	ASSERT_HAS(output, "accepts writes");
	WAIT_FOR(node_status(running, 0).state == DBHA_STATE_UP, PATIENCE_MS); /* no restart is needed */
	insert_ok(running, 10);
	ck_assert_int_eq(rows(&rebuilt, 1, 10), 1);
	refused_as_foreign(open_fenced(&c, NULL, NULL), ours, theirs);
}
END_TEST

START_TEST(a_service_accepts_by_an_option_which_undoes_nothing_later)
{
	char ours[32], theirs[32], option[80];
	dbha_error err;
	snprintf(ours, sizeof ours, "%s", identifier(&c));
	snprintf(theirs, sizeof theirs, "%s", identifier(&rebuilt));
	dbha *h = open_fenced(&c, NULL, NULL);
	insert_ok(h, 1);
	refused_as_foreign(open_fenced(&rebuilt, NULL, "accept_cluster=12345"), theirs, ours);
	snprintf(option, sizeof option, "accept_cluster=%s", theirs);
	insert_ok(open_fenced(&rebuilt, NULL, option), 11);
	ck_assert(file_has(theirs));
	/* One that runs follows the file: it is what people have decided. */
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_FOREIGN, PATIENCE_MS);
	refused_as_foreign(h, ours, theirs);
	/* Back again by decision; the option that somebody forgot in a service does not undo it. */
	ASSERT_OK(dbha_accept_cluster(h, strtoull(ours, NULL, 10), &err), err);
	WAIT_FOR(cluster_status(h).primary == 0, PATIENCE_MS);
	insert_ok(h, 12);
	refused_as_foreign(open_fenced(&rebuilt, NULL, option), theirs, ours);
	ASSERT_CODE(dbha_accept_cluster(h, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_accept_cluster(NULL, 1, &err), USAGE, err);
	ASSERT_CODE(dbha_accept_cluster(open_handle(cluster_url(&c, NULL, NULL)), 1, &err), USAGE, err);
}
END_TEST

START_TEST(a_node_that_may_not_be_identified_is_refused_with_a_reason)
{
	dbha_error err;
	cluster_ask(&c, 1, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC");
	cluster_catch_up(&c, 2, 1);
	dbha *h = open_fenced(&c, NULL, NULL);
	ASSERT_CODE(insert(h, 9, 1000, &err), FOREIGN, err);
	ASSERT_HAS(err.message, "pg_control_system");
	ASSERT_HAS_NOT(err.message, "accept_cluster");
	ck_assert_int_eq(access(path, F_OK), -1);
	insert_ok(open_handle(cluster_url(&c, NULL, NULL)), 13);
	cluster_ask(&c, 1, "GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC");
	cluster_catch_up(&c, 2, 1);
	insert_ok(open_fenced(&c, NULL, NULL), 14);
	ck_assert(file_has(identifier(&c)));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fence");
	ADD_TEST(suite, a_damaged_file_is_refused_at_open, servers, end, 60);
	ADD_TEST(suite, a_node_that_may_not_be_identified_is_refused_with_a_reason, servers, end, 60);
	ADD_TEST(suite, a_rebuilt_cluster_is_refused_until_it_is_accepted, two_clusters, end, 60);
	ADD_TEST(suite, a_service_accepts_by_an_option_which_undoes_nothing_later, two_clusters, end, 60);
	ADD_TEST(suite, a_process_that_meets_only_the_stale_primary_does_not_write, servers, end, 60);
	ADD_TEST(suite, nor_does_one_without_a_thread, servers, end, 60);
	ADD_TEST(suite, another_program_knows_it_too, servers, end, 60);
	ADD_TEST(suite, a_forked_child_reads_again_what_others_have_seen, servers, end, 60);
	ADD_TEST(suite, a_timeline_that_one_handle_sees_fences_the_others, servers, end, 60);
	ADD_TEST(suite, the_file_has_a_timeline_before_anybody_writes_on_it, servers, end, 60);
	ADD_TEST(suite, a_file_that_cannot_be_written_stops_nobody_and_is_reported, servers, end, 60);
	int status = run_suite(suite, &c);
	cluster_destroy(&rebuilt);
	return status;
}
