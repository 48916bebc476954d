/*
 * test_loop_examples: the servers of examples/ that have an engine in their event loop, with a hundred clients, through failovers: each line is
 * answered once and by what belongs to it, and the loop never stands still, which is seen from outside by a line that it answers by itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "errand.h"
#include "work.h"

#define CLIENTS             100
#define BEAT_MS             10
/* How long the loop may take to answer PING. An interpreter has work for tens of ms in one turn of its loop with so many clients. */
#define LATE_MS             200
#define INTERPRETED_LATE_MS 500

static struct cluster c;

/* One of them beats: it only says PING, every 10 ms. The others put a text and get it back, by turns, each under ids of its own. */
struct client {
	int fd;
	long id, sent, answered;
	bool getting, waits;
	char in[8192];
	size_t in_n;
};

static struct crowd {
	struct client clients[CLIENTS], heart;
	int64_t beat_ms, worst_ms; /* when the heart said PING; the longest that it waited */
	int64_t looked_ms;         /* when there was last nothing to hear */
	long oks, values, nones, unknowns;
	bool stops; /* nobody says anything more */
} crowd;

static pid_t server;
static char path[100];

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static int try_connect(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

static void say(struct client *client, const char *line)
{
	ck_assert_int_eq(send(client->fd, line, strlen(line), MSG_NOSIGNAL), (ssize_t)strlen(line));
	client->sent++;
	client->waits = true;
}

static void say_next(struct client *client)
{
	char line[128];
	if (client == &crowd.heart) {
		crowd.beat_ms = now_ms();
		say(client, "PING\n");
		return;
	}
	client->id += !client->getting;
	snprintf(line, sizeof line, client->getting ? "GET %ld\n" : "PUT %ld text of %ld\n", client->id, client->id);
	say(client, line);
}

static void note_answer(struct client *client, const char *line)
{
	char text[64];
	client->waits = false;
	client->answered++;
	if (client == &crowd.heart) {
		ck_assert_str_eq(line, "PONG");
		/* At least so long: we may be late ourselves. */
		int64_t took = crowd.looked_ms - crowd.beat_ms;
		crowd.worst_ms = took > crowd.worst_ms ? took : crowd.worst_ms;
		return;
	}
	/* An answer that belongs to another client has another number in it. */
	snprintf(text, sizeof text, "VALUE text of %ld", client->id);
	bool unknown = strncmp(line, "UNKNOWN ", 8) == 0;
	crowd.unknowns += unknown;
	crowd.oks += strcmp(line, "OK") == 0;
	crowd.values += strcmp(line, text) == 0;
	crowd.nones += strcmp(line, "NONE") == 0;
	bool expected =
	    client->getting ? strcmp(line, text) == 0 || strcmp(line, "NONE") == 0 : strcmp(line, "OK") == 0 || unknown;
	ck_assert_msg(expected, "the answer to %s %ld is: %s", client->getting ? "GET" : "PUT", client->id, line);
	client->getting = !client->getting;
}

static void hear(struct client *client)
{
	ssize_t n = recv(client->fd, client->in + client->in_n, sizeof client->in - client->in_n, MSG_DONTWAIT);
	if (n < 0 && errno == EAGAIN)
		return;
	ck_assert_msg(n > 0, "the server has hung up");
	client->in_n += (size_t)n;
	for (char *end; (end = memchr(client->in, '\n', client->in_n));) {
		*end = '\0';
		note_answer(client, client->in);
		client->in_n -= (size_t)(end + 1 - client->in);
		memmove(client->in, end + 1, client->in_n);
	}
}

/* Everybody who has his answer says the next line; the heart, when it is time. At most some ms. */
static void live(void)
{
	struct pollfd items[CLIENTS + 1];
	for (int i = 0; i <= CLIENTS; i++) {
		struct client *client = i < CLIENTS ? &crowd.clients[i] : &crowd.heart;
		bool due = i < CLIENTS || now_ms() - crowd.beat_ms >= BEAT_MS;
		if (!client->waits && due && !crowd.stops)
			say_next(client);
		items[i] = (struct pollfd){.fd = client->fd, .events = POLLIN};
	}
	crowd.looked_ms = now_ms();
	poll(items, CLIENTS + 1, BEAT_MS / 2);
	for (int i = 0; i <= CLIENTS; i++)
		if (items[i].revents)
			hear(i < CLIENTS ? &crowd.clients[i] : &crowd.heart);
	/* One that never comes is no lateness that could be told. */
	if (crowd.heart.waits)
		ck_assert_msg(now_ms() - crowd.beat_ms < PATIENCE_MS, "no answer to PING");
}

#define LIVE_UNTIL(condition)                                                                                          \
	do {                                                                                                               \
		int64_t live_end = now_ms() + PATIENCE_MS;                                                                     \
		while (!(condition)) {                                                                                         \
			ck_assert_msg(now_ms() < live_end, "not within %d ms: %s", PATIENCE_MS, #condition);                       \
			live();                                                                                                    \
		}                                                                                                              \
	} while (0)

static bool all_answered(void)
{
	for (int i = 0; i < CLIENTS; i++)
		if (crowd.clients[i].waits)
			return false;
	return !crowd.heart.waits;
}

/* ---- around a test ---------------------------------------------------------------------------------------------- */

static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id bigint");
	/* The servers make it where there is none; a standby would not have it in the first moments. */
	cluster_ask(&c, 1, "CREATE TABLE dbha_kv (id bigint PRIMARY KEY, said text NOT NULL)");
	cluster_ask(&c, 1, "ALTER TABLE dbha_kv OWNER TO app");
	cluster_all_catch_up(&c);
}

static void done(void)
{
	for (int i = 0; i <= CLIENTS; i++) {
		struct client *client = i < CLIENTS ? &crowd.clients[i] : &crowd.heart;
		if (client->fd > 0)
			close(client->fd);
	}
	memset(&crowd, 0, sizeof crowd);
	errands_kill();
	if (*path)
		unlink(path);
	*path = '\0';
}

static void start_server(const char *command)
{
	ck_assert_int_lt(snprintf(path, sizeof path, "%.80s/example.sock", c.dir), (int)sizeof path);
	server = errand_start("exec %s %s '%s'", command, path,
	                      cluster_url(&c, NULL, "probe_interval=200ms&probe_timeout=200ms&probe_failures=2"));
	int fd;
	WAIT_FOR((fd = try_connect()) >= 0, PATIENCE_MS);
	crowd.heart.fd = fd;
	for (int i = 0; i < CLIENTS; i++) {
		ck_assert_int_ge(crowd.clients[i].fd = try_connect(), 0);
		crowd.clients[i].id = 1000000L * (i + 1);
	}
}

/* ---- the story -------------------------------------------------------------------------------------------------- */

/* Everybody goes on until the errand is done, and then until so many more texts are put. */
static void live_through(pid_t errand, int more)
{
	while (!errand_done(errand))
		live();
	long goal = crowd.oks + more;
	LIVE_UNTIL(crowd.oks >= goal);
}

/* Says a line and is gone, while there is no primary that could have done it. */
static void hang_up_while_nothing_can_be_done(void)
{
	struct client hasty = {.fd = try_connect()};
	ck_assert_int_ge(hasty.fd, 0);
	say(&hasty, "PUT 42 nobody wants that any more\n");
	long beats = crowd.heart.answered;
	LIVE_UNTIL(crowd.heart.answered >= beats + 5); /* it is read, and waits */
	close(hasty.fd);
	beats = crowd.heart.answered;
	LIVE_UNTIL(crowd.heart.answered >= beats + 5);
}

static long waiting_for_lock(int node)
{
	return cluster_count(&c, node,
	                     "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND wait_event_type = 'Lock'");
}

/* The same while the server is at it: that has to be told. */
static void hang_up_while_it_is_done(int node)
{
	struct client hasty = {.fd = try_connect()};
	ck_assert_int_ge(hasty.fd, 0);
	PGconn *admin = cluster_admin(&c, node);
	PQclear(PQexec(admin, "BEGIN"));
	PQclear(PQexec(admin, "LOCK TABLE dbha_kv"));
	say(&hasty, "PUT 42 nobody wants that any more\n");
	WAIT_FOR(waiting_for_lock(node) == 1, PATIENCE_MS);
	close(hasty.fd);
	WAIT_FOR(waiting_for_lock(node) == 0, 5000);
	PQfinish(admin);
}

/* How often the loop has slept, and how long it has worked: of the first thread, which has the loop in all of them. */
struct rest {
	long sleeps;
	long long busy_ns;
};

static struct rest rest_of(pid_t pid)
{
	char name[64], line[128];
	struct rest rest = {-1, -1};
	snprintf(name, sizeof name, "/proc/%d/task/%d/status", (int)pid, (int)pid);
	FILE *f = fopen(name, "r");
	while (f && fgets(line, sizeof line, f))
		sscanf(line, "voluntary_ctxt_switches: %ld", &rest.sleeps);
	if (f)
		fclose(f);
	snprintf(name, sizeof name, "/proc/%d/task/%d/schedstat", (int)pid, (int)pid);
	f = fopen(name, "r");
	if (f && fgets(line, sizeof line, f))
		sscanf(line, "%lld", &rest.busy_ns);
	if (f)
		fclose(f);
	ck_assert(rest.sleeps >= 0 && rest.busy_ns >= 0);
	return rest;
}

static void stop_talking(void)
{
	crowd.stops = true;
	LIVE_UNTIL(all_answered());
	for (int i = 0; i < CLIENTS; i++)
		ck_assert_int_eq(crowd.clients[i].answered, crowd.clients[i].sent);
}

static void expect_sleep(void)
{
	int64_t until = now_ms() + 300; /* connections go back */
	while (now_ms() < until)
		live();
	struct rest before = rest_of(server);
	until = now_ms() + 1500;
	while (now_ms() < until)
		live();
	struct rest after = rest_of(server);
	long sleeps = after.sleeps - before.sleeps;
	ck_assert_msg(sleeps <= 3, "an idle loop woke up %ld times in 1.5 s", sleeps);
	long long busy_us = (after.busy_ns - before.busy_ns) / 1000;
	ck_assert_msg(busy_us < 100000, "an idle loop was busy for %lld us of 1.5 s", busy_us);
}

static void through_two_failovers(const char *name, const char *command, int late_ms)
{
	const char *tool = getenv("DBHA_PGCLUSTER");
	start_server(command);
	LIVE_UNTIL(crowd.oks >= 500 && crowd.values >= 300);
	pid_t errand = errand_start("%s kill %s 1", tool, c.dir);
	while (!errand_done(errand))
		live();
	hang_up_while_nothing_can_be_done();
	/* The third follows the second, or its own promotion would make it a primary of the same timeline. */
	live_through(errand_start("%s promote %s 2 && timeout 10 sh -c 'until %s follow %s 3 2; do sleep 0.1; done'", tool,
	                          c.dir, tool, c.dir),
	             300);
	live_through(errand_start("%s pause %s 2 && sleep 0.5 && %s promote %s 3", tool, c.dir, tool, c.dir), 300);
	stop_talking();
	expect_sleep();
	hang_up_while_it_is_done(3);
	printf("%s: %ld put, %ld got, %ld none, %ld unknown; %ld beats, the slowest took %lld ms\n", name, crowd.oks,
	       crowd.values, crowd.nones, crowd.unknowns, crowd.heart.answered, (long long)crowd.worst_ms);
	ck_assert_int_le(crowd.worst_ms, late_ms);
	/* Each time at most what was on its way. */
	ck_assert_int_le(crowd.unknowns, 2 * CLIENTS);
	errand_end(server, SIGTERM);
	cluster_do(&c, "resume 2");
	ck_assert_int_eq(cluster_count(&c, 3, "SELECT count(*) FROM dbha_kv WHERE id = 42"), 0);
	ck_assert_int_eq(cluster_count(&c, 3, "SELECT count(*) FROM dbha_kv WHERE said <> 'text of ' || id"), 0);
	done();
}

START_TEST(the_epoll_server)
{
	through_two_failovers("epoll", "./examples/engine_epoll", LATE_MS);
}
END_TEST

START_TEST(the_libuv_server)
{
	if (access("./examples/engine_uv", X_OK) != 0)
		printf("there is no libuv, and so no examples/engine_uv\n");
	else
		through_two_failovers("libuv", "./examples/engine_uv", LATE_MS);
}
END_TEST

START_TEST(the_asyncio_server)
{
	char command[512];
	const char *tool = getenv("DBHA_PGCLUSTER");
	if (SANITIZED) {
		printf("a sanitizer is not loaded into Python: examples/engine_asyncio.py is not run\n");
		return;
	}
	snprintf(command, sizeof command,
	         "env DBHA_LIBRARY=./.libs/libdbha.so python3 %.*s/../../examples/engine_asyncio.py",
	         (int)(strrchr(tool, '/') - tool), tool);
	through_two_failovers("asyncio", command, INTERPRETED_LATE_MS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("loop_examples");
	ADD_TEST(suite, the_epoll_server, servers, done, 90);
	ADD_TEST(suite, the_libuv_server, servers, done, 90);
	ADD_TEST(suite, the_asyncio_server, servers, done, 90);
	return run_suite(suite, &c);
}
