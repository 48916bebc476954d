/*
 * test_loops: an engine in the event loops of others: poll, select, epoll level- and edge-triggered, libev. The loop goes through
 * failovers without standing still, loses no wake-up, and sleeps when there is nothing to do.
 */
#include "dbha_build.h"

#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/timerfd.h>
#include <unistd.h>
#ifdef HAVE_EV
#include <ev.h>
#endif

#include "errand.h"
#include "pipe_work.h"
#include "work.h"

#define BEAT_MS       10
/* How late a beat of the loop may be. */
#define LATE_MS       (SANITIZED ? 1000 : 200)
#define IN_FLIGHT_MAX 128

static struct cluster c;
static struct book book;

/* What the loop serves: an engine, and a heart that beats every 10 ms. */
static struct app {
	dbha_engine *e;
	bool threaded;
	int engine_fd, beat_fd;
	int64_t last_beat_ms, worst_ms;
	long engine_events;
	int goal; /* this many requests are to be submitted */
} app;

/* ---- the application -------------------------------------------------------------------------------------------- */

static void on_engine(void)
{
	dbha_error err;
	dbha_completion got = {.size = sizeof got};
	app.engine_events++;
	if (!app.threaded)
		ASSERT_OK(dbha_engine_step(app.e, NULL, &err), err);
	while (dbha_next_completion(app.e, &got, 0, NULL) == 1)
		book_enter(&book, &got);
	for (; book.submitted < app.goal && book.submitted - book.completed < IN_FLIGHT_MAX; book.submitted++) {
		if (book.submitted % 2)
			submit_insert(app.e, (uint64_t)book.submitted);
		else
			submit_read(app.e, (uint64_t)book.submitted);
	}
}

static void on_beat(void)
{
	uint64_t beats;
	if (read(app.beat_fd, &beats, sizeof beats) != (ssize_t)sizeof beats)
		return;
	int64_t now = now_ms();
	if (app.last_beat_ms && now - app.last_beat_ms - BEAT_MS > app.worst_ms)
		app.worst_ms = now - app.last_beat_ms - BEAT_MS;
	app.last_beat_ms = now;
}

static void set_beat(int ms)
{
	struct itimerspec every = {.it_value = {.tv_nsec = ms * 1000000L}, .it_interval = {.tv_nsec = ms * 1000000L}};
	app.last_beat_ms = 0;
	ck_assert_int_eq(timerfd_settime(app.beat_fd, 0, &every, NULL), 0);
}

/* ---- the loops: one turn each ----------------------------------------------------------------------------------- */

static void turn_poll(int timeout_ms)
{
	struct pollfd items[2] = {{.fd = app.engine_fd, .events = POLLIN}, {.fd = app.beat_fd, .events = POLLIN}};
	poll(items, 2, timeout_ms);
	if (items[0].revents)
		on_engine();
	if (items[1].revents)
		on_beat();
}

static void turn_select(int timeout_ms)
{
	fd_set set;
	struct timeval wait = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};
	FD_ZERO(&set);
	FD_SET(app.engine_fd, &set);
	FD_SET(app.beat_fd, &set);
	int most = app.engine_fd > app.beat_fd ? app.engine_fd : app.beat_fd;
	if (select(most + 1, &set, NULL, NULL, &wait) <= 0)
		return;
	if (FD_ISSET(app.engine_fd, &set))
		on_engine();
	if (FD_ISSET(app.beat_fd, &set))
		on_beat();
}

static int epoll_fd = -1;

static void begin_epoll(uint32_t how)
{
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event engine = {.events = EPOLLIN | how, .data.u32 = 1};
	struct epoll_event beat = {.events = EPOLLIN | how, .data.u32 = 2};
	ck_assert_int_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, app.engine_fd, &engine), 0);
	ck_assert_int_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, app.beat_fd, &beat), 0);
}

static void begin_level(void)
{
	begin_epoll(0);
}

static void begin_edge(void)
{
	begin_epoll(EPOLLET);
}

static void turn_epoll(int timeout_ms)
{
	struct epoll_event events[2];
	int n = epoll_wait(epoll_fd, events, 2, timeout_ms);
	for (int i = 0; i < n; i++) {
		if (events[i].data.u32 == 1)
			on_engine();
		else
			on_beat();
	}
}

static void end_epoll(void)
{
	close(epoll_fd);
	epoll_fd = -1;
}

#ifdef HAVE_EV
static struct ev_loop *ev;
static ev_io ev_engine, ev_beat;
static ev_timer ev_limit;

static void ev_on_engine(struct ev_loop *loop, ev_io *w, int events)
{
	(void)loop, (void)w, (void)events;
	on_engine();
}

static void ev_on_beat(struct ev_loop *loop, ev_io *w, int events)
{
	(void)loop, (void)w, (void)events;
	on_beat();
}

static void ev_on_limit(struct ev_loop *loop, ev_timer *w, int events)
{
	(void)w, (void)events;
	ev_break(loop, EVBREAK_ONE);
}

static void begin_ev(void)
{
	ev = ev_loop_new(EVFLAG_AUTO);
	ev_io_init(&ev_engine, ev_on_engine, app.engine_fd, EV_READ);
	ev_io_init(&ev_beat, ev_on_beat, app.beat_fd, EV_READ);
	ev_io_start(ev, &ev_engine);
	ev_io_start(ev, &ev_beat);
}

static void turn_ev(int timeout_ms)
{
	ev_now_update(ev);
	ev_timer_init(&ev_limit, ev_on_limit, timeout_ms / 1000.0, 0);
	ev_timer_start(ev, &ev_limit);
	ev_run(ev, EVRUN_ONCE);
	ev_timer_stop(ev, &ev_limit);
}

static void end_ev(void)
{
	ev_loop_destroy(ev);
	ev = NULL;
}
#endif

static const struct loop {
	const char *name;
	void (*begin)(void);
	void (*turn)(int timeout_ms);
	void (*end)(void);
} loops[] = {
    {"poll", NULL, turn_poll, NULL},
    {"select", NULL, turn_select, NULL},
    {"epoll", begin_level, turn_epoll, end_epoll},
    {"edge-triggered epoll", begin_edge, turn_epoll, end_epoll},
#ifdef HAVE_EV
    {"libev", begin_ev, turn_ev, end_ev},
#endif
};

#define LOOPS ((int)(sizeof loops / sizeof loops[0]))

static const struct loop *current;

/* ---- around a test ---------------------------------------------------------------------------------------------- */

static void servers(void)
{
	cluster_intact_with_rows(&c, "3", "id bigint");
}

static void begin(dbha *h, const struct loop *loop, int thread, int connections)
{
	memset(&book, 0, sizeof book);
	app = (struct app){.threaded = thread};
	app.e = open_engine(h, (dbha_engine_options){.thread = thread, .connections = connections});
	app.engine_fd = dbha_engine_fd(app.e, NULL);
	app.beat_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	current = loop;
	if (loop->begin)
		loop->begin();
}

static void end(void)
{
	if (current && current->end)
		current->end();
	current = NULL;
	if (app.beat_fd > 0)
		close(app.beat_fd);
	app.beat_fd = -1;
	engines_close();
}

static void done(void)
{
	end();
	errands_kill();
}

/* The loop turns until then. */
#define TURN_UNTIL(condition)                                                                                          \
	do {                                                                                                               \
		int64_t turn_end = now_ms() + PATIENCE_MS;                                                                     \
		while (!(condition)) {                                                                                         \
			ck_assert_msg(now_ms() < turn_end, "%s: not within %d ms: %s (%d of %d completed)", current->name,         \
			              PATIENCE_MS, #condition, book.completed, book.submitted);                                    \
			current->turn(100);                                                                                        \
		}                                                                                                              \
	} while (0)

/* ---- failovers -------------------------------------------------------------------------------------------------- */

/* Requests all the time, until the errand is done and so many more are. */
static void turn_through(pid_t errand, int more)
{
	app.goal = INT_MAX;
	on_engine(); /* nothing may be on its way that would bring us there */
	while (!errand_done(errand)) {
		ck_assert_int_lt(book.submitted, BOOK_MAX - 4000);
		current->turn(100);
	}
	app.goal = book.submitted + more;
	TURN_UNTIL(book.completed == app.goal);
}

static void expect_few_unknown(int n)
{
	int unknown = book_count(&book, 0, book.submitted, DBHA_ERR_UNKNOWN);
	book_expect_once(&book);
	ck_assert_int_le(unknown, n * IN_FLIGHT_MAX);
	int done = book_count(&book, 0, book.submitted, DBHA_OK);
	ck_assert_msg(done == book.submitted - unknown, "%d of %d done, %d unknown; first error: %s", done, book.submitted,
	              unknown, book.first_error.message);
}

static void fail_over_twice(const struct loop *loop, int thread)
{
	dbha *h = open_all(&c, "probe_interval=200ms&probe_timeout=200ms&probe_failures=2");
	begin(h, loop, thread, 4);
	set_beat(BEAT_MS);
	app.goal = 500;
	on_engine();
	TURN_UNTIL(book.completed == app.goal);
	const char *tool = getenv("DBHA_PGCLUSTER");
	/* The third follows the second, or its own promotion would make it a primary of the same timeline. */
	turn_through(
	    errand_start("%s kill %s 1 && %s promote %s 2 && timeout 10 sh -c 'until %s follow %s 3 2; do sleep 0.1; done'",
	                 tool, c.dir, tool, c.dir, tool, c.dir),
	    500);
	turn_through(errand_start("%s pause %s 2 && sleep 0.5 && %s promote %s 3", tool, c.dir, tool, c.dir), 500);
	turn_through(errand_start("%s resume %s 2", tool, c.dir), 100);
	printf("%s%s: %d requests, %d unknown; the latest beat was %lld ms late\n", loop->name, thread ? ", thread" : "",
	       book.submitted, book_count(&book, 0, book.submitted, DBHA_ERR_UNKNOWN), (long long)app.worst_ms);
	expect_few_unknown(2);
	ck_assert_int_gt(app.last_beat_ms, 0);
	ck_assert_int_le(app.worst_ms, LATE_MS);
	ck_assert_int_eq(dbha_engine_fd(app.e, NULL), app.engine_fd);
	end();
}

START_TEST(two_failovers_under_poll)
{
	fail_over_twice(&loops[0], 0);
}
END_TEST

START_TEST(two_failovers_under_select)
{
	fail_over_twice(&loops[1], 0);
}
END_TEST

START_TEST(two_failovers_under_edge_triggered_epoll)
{
	fail_over_twice(&loops[3], 0);
}
END_TEST

START_TEST(two_failovers_under_edge_triggered_epoll_with_a_thread)
{
	fail_over_twice(&loops[3], 1);
}
END_TEST

#ifdef HAVE_EV
START_TEST(two_failovers_under_libev)
{
	fail_over_twice(&loops[4], 0);
}
END_TEST
#endif

/* ---- wake-ups --------------------------------------------------------------------------------------------------- */

/*
 * More has come than one read takes in, and nothing will come after it: whoever watches for edges is told once. The application was busy
 * meanwhile, so that all of it is there. On one connection: the timer of another would hide that nothing was told.
 */
START_TEST(what_is_left_after_a_step_is_told_again)
{
	dbha *h = open_all(&c, NULL);
	for (int i = 0; i < LOOPS; i++) {
		begin(h, &loops[i], 0, 1);
		app.goal = 1;
		on_engine();
		TURN_UNTIL(book.completed == 1);
		/* Its connection is still open, and takes these at once. */
		for (int k = 1; k <= 2; k++)
			submit_sql(app.e, DBHA_READ, 10000, "SELECT repeat('x', 25000)", (uint64_t)k);
		book.submitted = app.goal = 3;
		on_engine();
		int64_t busy_until = now_ms() + 300;
		while (now_ms() < busy_until)
			short_pause();
		int64_t began = now_ms();
		TURN_UNTIL(book.completed == 3);
		ck_assert_int_le(now_ms() - began, 2000);
		ck_assert_int_eq(book_count(&book, 0, 3, DBHA_OK), 3);
		end();
	}
	cluster_as_before(&c, h);
}
END_TEST

/* How often a thread of ours has slept. */
static long own_sleeps(void)
{
	char line[128];
	long n = -1;
	FILE *f = fopen("/proc/thread-self/status", "r");
	while (f && fgets(line, sizeof line, f))
		sscanf(line, "voluntary_ctxt_switches: %ld", &n);
	if (f)
		fclose(f);
	ck_assert_int_ge(n, 0);
	return n;
}

START_TEST(an_idle_loop_sleeps)
{
	dbha *h = open_all(&c, NULL);
	for (int i = 0; i < LOOPS; i++) {
		begin(h, &loops[i], 0, 4);
		app.goal = 1000;
		on_engine();
		TURN_UNTIL(book.completed == 1000);
		/* The connections go back. */
		int64_t until = now_ms() + 300;
		while (now_ms() < until)
			current->turn(50);
		long events = app.engine_events;
		long sleeps = own_sleeps();
		until = now_ms() + 2000;
		while (now_ms() < until)
			current->turn((int)(until - now_ms()) + 1);
		printf("%s: %ld sleeps and %ld events of the engine in 2 s\n", loops[i].name, own_sleeps() - sleeps,
		       app.engine_events - events);
		/* One that was armed for a deadline may go off and find nothing; the view may change. */
		ck_assert_int_le(app.engine_events - events, 2);
		ck_assert_int_le(own_sleeps() - sleeps, 4);
		end();
	}
	cluster_as_before(&c, h);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("loops");
	ADD_TEST(suite, what_is_left_after_a_step_is_told_again, servers, done, 60);
	ADD_TEST(suite, an_idle_loop_sleeps, servers, done, 60);
	ADD_TEST(suite, two_failovers_under_poll, servers, done, 60);
	ADD_TEST(suite, two_failovers_under_select, servers, done, 60);
	ADD_TEST(suite, two_failovers_under_edge_triggered_epoll, servers, done, 60);
	ADD_TEST(suite, two_failovers_under_edge_triggered_epoll_with_a_thread, servers, done, 60);
#ifdef HAVE_EV
	ADD_TEST(suite, two_failovers_under_libev, servers, done, 60);
#endif
	return run_suite(suite, &c);
}
