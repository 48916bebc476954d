/*
 * herd: many processes at a node that dies and comes back. How many connections do they make, and when are they served?
 *
 *   herd URL --cluster DIR --harness PGCLUSTER --side dbha|loop|pause [--processes 50] [--threads 1] [--pool 3]
 *            [--dead-ms 5000] [--counter "nft list counter inet herd syns"]
 *
 * Meant to be run by herd.sh, which puts it and the cluster into a network namespace where a packet filter counts the
 * connections. Each process has `--threads` callers, each of which writes a row, rests 10 ms, and so on. Three sides:
 *
 *   dbha    one handle a process, a pool of `--pool` connections
 *   loop    a connection for each caller, as ad-hoc classes do it: on an error PQconnectdb again until it works
 *   pause   the same with 100 ms between two tries
 *
 * When everybody has been served, node 1 of the cluster is killed, left dead for --dead-ms, and started. Connections are
 * counted by their SYN packets each 100 ms, so that what the server's kernel refuses is counted too. Times are from the
 * command that starts the server, and so contain its recovery, which a stampede prolongs. Prints one line of the table:
 * connections a second (most in a sample, mean) while dead and in the 3 s after the start, and the time until the first
 * and the last caller was served.
 */
#include "bench.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCESSES_MAX 200
#define THREADS_MAX   16
#define SAMPLE_NS     100000000LL
#define BACK_NS       3000000000LL
#define PATIENCE_NS   60000000000LL

static const char usage[] = "herd URL --cluster DIR --harness PGCLUSTER --side dbha|loop|pause [--processes 50]\n"
                            "     [--threads 1] [--pool 3] [--dead-ms 5000] [--counter COMMAND]";

enum side {
	DBHA,
	LOOP,
	PAUSE,
	N_SIDES,
};

static const char *const side_names[N_SIDES] = {"dbha", "loop", "pause"};

static const char *url;
static enum side side;
static int n_processes, n_threads, pool_size;
static const char write_sql[] = "INSERT INTO herd VALUES (1)";

/* Shared by all processes: when each caller was served last (0: never yet). */
static _Atomic int64_t *served_ns;

static int n_callers(void)
{
	return n_processes * n_threads;
}

/* ---- one caller -------------------------------------------------------------------------------------------------- */

static dbha *handle; /* of this process */

static bool write_by_library(void)
{
	PGresult *result;
	dbha_request request = DBHA_REQUEST(.sql = write_sql, .intent = DBHA_WRITE);
	int code = dbha_exec(handle, &request, &result, NULL);
	PQclear(result);
	return code == DBHA_OK;
}

static void say_nothing(void *arg, const char *message)
{
	(void)arg, (void)message;
}

static bool write_by_hand(PGconn **conn)
{
	while (!*conn) {
		*conn = PQconnectdb(url);
		PQsetNoticeProcessor(*conn, say_nothing, NULL);
		if (PQstatus(*conn) == CONNECTION_OK)
			break;
		PQfinish(*conn);
		*conn = NULL;
		if (side == PAUSE)
			sleep_ms(100);
	}
	PGresult *result = PQexec(*conn, write_sql);
	bool ok = PQresultStatus(result) == PGRES_COMMAND_OK;
	PQclear(result);
	if (!ok) {
		PQfinish(*conn);
		*conn = NULL;
	}
	return ok;
}

static void *call(void *arg)
{
	_Atomic int64_t *served = arg;
	PGconn *conn = NULL;
	for (;;) {
		if (side == DBHA ? write_by_library() : write_by_hand(&conn))
			atomic_store(served, now_ns());
		sleep_ms(10);
	}
	return NULL;
}

/* A process: until it is killed. */
_Noreturn static void be_a_process(int index)
{
	if (side == DBHA)
		handle = open_handle(url, pool_size, 1);
	for (int i = 0; i < n_threads; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, call, (void *)&served_ns[index * n_threads + i]) != 0)
			die("no more threads");
	}
	for (;;)
		pause();
}

/* ---- the incident ------------------------------------------------------------------------------------------------- */

static pid_t processes[PROCESSES_MAX];

static void start_processes(void)
{
	fflush(NULL);
	for (int i = 0; i < n_processes; i++) {
		processes[i] = fork();
		if (processes[i] < 0)
			die("no more processes");
		if (processes[i] == 0)
			be_a_process(i);
	}
}

static void end_processes(void)
{
	for (int i = 0; i < n_processes; i++)
		if (processes[i] > 0)
			kill(processes[i], SIGKILL);
	for (int i = 0; i < n_processes; i++)
		if (processes[i] > 0)
			waitpid(processes[i], NULL, 0);
}

static int n_served_since(int64_t since)
{
	int n = 0;
	for (int i = 0; i < n_callers(); i++)
		n += atomic_load(&served_ns[i]) > since;
	return n;
}

/* The harness in the background: it returns when the server is ready, and we have to count meanwhile. */
static pid_t run_harness(const struct args *args, const char *command)
{
	pid_t pid = fork();
	if (pid == 0) {
		const char *harness = args_text(args, "--harness", "pgcluster");
		execl(harness, harness, command, args_text(args, "--cluster", ""), "1", (char *)NULL);
		_exit(127);
	}
	return pid;
}

static void must_end_well(pid_t pid, const char *what)
{
	int status;
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) {
		end_processes();
		die("%s failed", what);
	}
}

/* The packets that the counter has seen. */
static long connections(const char *command)
{
	char text[1024] = "";
	FILE *pipe = popen(command, "r");
	size_t n = pipe ? fread(text, 1, sizeof text - 1, pipe) : 0;
	text[n] = '\0';
	const char *packets = strstr(text, "packets ");
	if (!pipe || pclose(pipe) != 0 || !packets) {
		end_processes();
		die("cannot read the counter by: %s", command);
	}
	return strtol(packets + strlen("packets "), NULL, 10);
}

struct rates {
	double most, mean; /* per second */
};

/* Counts for so long, in samples. until_served: and until every caller has been served since then; 0: no such thing. */
static struct rates count_for(const char *command, int64_t ns, int64_t until_served)
{
	struct rates rates = {0};
	int64_t began = now_ns(), last = began, counted = began;
	long first = connections(command), before = first, at_end = first;
	while (last - began < ns || (until_served && n_served_since(until_served) < n_callers())) {
		sleep_ms(SAMPLE_NS / 1000000);
		long seen = connections(command);
		int64_t now = now_ns();
		double rate = (double)(seen - before) * 1e9 / (double)(now - last);
		if (now - began <= ns + SAMPLE_NS) {
			rates.most = rate > rates.most ? rate : rates.most;
			at_end = seen;
			counted = now;
		}
		before = seen;
		last = now;
		if (now - began > ns + PATIENCE_NS)
			break;
	}
	rates.mean = (double)(at_end - first) * 1e9 / (double)(counted - began);
	return rates;
}

/* The times of all callers, in ms since the start; 0 where one was never served. */
static void first_and_last(int64_t since, const int64_t *first_served, double *first, double *last)
{
	*first = *last = 0;
	for (int i = 0; i < n_callers(); i++) {
		double ms = (double)(first_served[i] - since) / 1e6;
		*first = i == 0 || ms < *first ? ms : *first;
		*last = ms > *last ? ms : *last;
	}
}

/* A thread of the parent: notes when each caller was served for the first time after the start, to a millisecond. */
struct watch {
	int64_t since;
	int64_t first_served[PROCESSES_MAX * THREADS_MAX];
	atomic_bool stop;
};

static void *keep_watch(void *arg)
{
	struct watch *watch = arg;
	while (!atomic_load(&watch->stop)) {
		for (int i = 0; i < n_callers(); i++) {
			int64_t served = atomic_load(&served_ns[i]);
			if (!watch->first_served[i] && served > watch->since)
				watch->first_served[i] = served;
		}
		sleep_ms(1);
	}
	return NULL;
}

static void wait_for_everybody(void)
{
	int64_t end = now_ns() + PATIENCE_NS;
	while (n_served_since(0) < n_callers() && now_ns() < end)
		sleep_ms(10);
	if (n_served_since(0) < n_callers()) {
		end_processes();
		die("only %d of %d callers were ever served", n_served_since(0), n_callers());
	}
}

static void run(const struct args *args)
{
	static struct watch watch;
	const char *counter = args_text(args, "--counter", "nft list counter inet herd syns");
	int64_t dead_ns = args_number(args, "--dead-ms", 5000, 100, 60000) * 1000000;
	pthread_t watcher;
	start_processes();
	wait_for_everybody();

	must_end_well(run_harness(args, "kill"), "the kill");
	struct rates dead = count_for(counter, dead_ns, 0);

	watch.since = now_ns();
	if (pthread_create(&watcher, NULL, keep_watch, &watch) != 0)
		die("no more threads");
	pid_t starting = run_harness(args, "start");
	struct rates back = count_for(counter, BACK_NS, watch.since);
	must_end_well(starting, "the start");
	atomic_store(&watch.stop, true);
	pthread_join(watcher, NULL);
	bool all = n_served_since(watch.since) == n_callers();
	end_processes();

	double first, last;
	first_and_last(watch.since, watch.first_served, &first, &last);
	printf("%-6s %9d %8d %10.0f %8.0f %10.0f %8.0f %10.0f %10.0f%s\n", side_names[side], n_processes, n_threads,
	       dead.most, dead.mean, back.most, back.mean, first, last, all ? "" : "  (not all served)");
}

int main(int argc, char **argv)
{
	static const char *const names[] = {"--cluster", "--harness", "--side",    "--processes", "--threads",
	                                    "--pool",    "--dead-ms", "--counter", NULL};
	struct args args = {argc, argv};
	url = args_url(&args, names, usage);
	const char *name = args_text(&args, "--side", "dbha");
	for (side = 0; side < N_SIDES && strcmp(side_names[side], name) != 0; side++)
		;
	if (side == N_SIDES)
		die("--side: \"%s\": dbha, loop or pause is expected", name);
	n_processes = (int)args_number(&args, "--processes", 50, 1, PROCESSES_MAX);
	n_threads = (int)args_number(&args, "--threads", 1, 1, THREADS_MAX);
	pool_size = (int)args_number(&args, "--pool", 3, 1, 100);
	served_ns = mmap(NULL, sizeof *served_ns * PROCESSES_MAX * THREADS_MAX, PROT_READ | PROT_WRITE,
	                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (served_ns == MAP_FAILED)
		die("no shared memory");
	run(&args);
	return 0;
}
