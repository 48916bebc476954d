/*
 * test_pool: checkout, hand-over, limits, generations and drain, without a server: a connection is one end of a socket
 * pair, and the other end tells whether it was cut.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "pool.h"
#include "rng.h"
#include "unit.h"
#include "wake.h"

#define FAR_US ((int64_t)600 * 1000000) /* further than any test may last */
#define MANY   64

/* The pool under test, with the far ends of its connections. */
struct bench {
	struct pool pool;
	struct stats stats;
	struct wake connector;
};

/* A connection as the connector makes it, and its far end. */
struct link {
	struct dbha_conn *slot;
	int far;
};

static const struct pool_limits wide = {.max_size = 100, .max_connecting = 100, .max_idle_ms = 1000};

static void setup(struct bench *bench, const struct pool_limits *limits)
{
	memset(bench, 0, sizeof *bench);
	ck_assert_int_eq(dbha__pool_init(&bench->pool, "node:1", limits, &bench->stats), 0);
	ck_assert_int_eq(dbha__wake_init(&bench->connector), 0);
	ck_assert_ptr_null(dbha__pool_follow(&bench->pool, true, 1));
}

static void teardown(struct bench *bench)
{
	dbha__pool_dispose(dbha__pool_stop(&bench->pool, true));
	ck_assert_ptr_null(bench->pool.all);
	ck_assert_int_eq(bench->pool.counts.waiting, 0);
	dbha__pool_fini(&bench->pool);
	dbha__wake_fini(&bench->connector);
}

static struct link make_link(uint64_t generation, int64_t expires_us)
{
	int fds[2];
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	struct link link = {.slot = calloc(1, sizeof *link.slot), .far = fds[1]};
	ck_assert_ptr_nonnull(link.slot);
	link.slot->conn = calloc(1, sizeof *link.slot->conn);
	ck_assert_ptr_nonnull(link.slot->conn);
	link.slot->conn->guard_fd = fds[0];
	link.slot->generation = generation;
	link.slot->expires_us = expires_us;
	return link;
}

/* As if so many connects were under way. */
static void set_connecting(struct bench *bench, int n)
{
	dbha__mutex_lock(&bench->pool.lock);
	bench->pool.counts.connecting = n;
	dbha__mutex_unlock(&bench->pool.lock);
}

/* A connect from the reservation to the end. */
static struct link connect_one(struct bench *bench, int64_t now)
{
	struct link link = make_link(bench->pool.generation, INT64_MAX);
	set_connecting(bench, bench->pool.counts.connecting + 1);
	ck_assert_ptr_null(dbha__pool_connected(&bench->pool, link.slot, now));
	return link;
}

/* The near end was shut down or closed. */
static bool is_cut(int far)
{
	char byte;
	ssize_t n = recv(far, &byte, 1, MSG_DONTWAIT);
	ck_assert(n == 0 || (n < 0 && errno == EAGAIN));
	return n == 0;
}

static void dispose(struct dbha_conn *slot)
{
	ck_assert_ptr_nonnull(slot);
	slot->all_next = NULL;
	dbha__pool_dispose(slot);
}

static struct acquire asking(struct bench *bench, uint64_t ticket, int64_t deadline)
{
	return (struct acquire){.ticket = ticket,
	                        .generation = bench->pool.generation,
	                        .now = 1000,
	                        .deadline = deadline,
	                        .connector = &bench->connector};
}

/* Takes what is idle; never waits. */
static struct dbha_conn *take(struct bench *bench)
{
	struct acquire how = asking(bench, 1, 0);
	struct dbha_conn *slot;
	ck_assert_int_eq((int)dbha__pool_acquire(&bench->pool, &how, &slot), ACQUIRED);
	ck_assert_ptr_nonnull(slot);
	return slot;
}

static enum acquire_end fail_to_take(struct bench *bench, uint64_t generation)
{
	struct acquire how = asking(bench, 1, 0);
	how.generation = generation;
	struct dbha_conn *slot = (struct dbha_conn *)&how;
	enum acquire_end end = dbha__pool_acquire(&bench->pool, &how, &slot);
	ck_assert_int_ne((int)end, ACQUIRED);
	ck_assert_ptr_null(slot);
	return end;
}

static void check_counts(struct bench *bench, int idle, int used, int connecting, int waiting)
{
	struct pool_report report;
	dbha__pool_report(&bench->pool, 0, &report);
	ck_assert_msg(report.counts.idle == idle && report.counts.used == used && report.counts.connecting == connecting &&
	                  report.counts.waiting == waiting,
	              "idle %d, used %d, connecting %d, waiting %d; expected %d %d %d %d", report.counts.idle,
	              report.counts.used, report.counts.connecting, report.counts.waiting, idle, used, connecting, waiting);
	ck_assert_int_eq(bench->pool.load, used + waiting);
}

/* ---- callers in threads of their own ------------------------------------------------------------------------ */

/*
 * A caller who has to wait asks for a connect once it stands in the queue; each has a wake-up of its own, so the test
 * knows without waiting for time to pass. Works while the pool has room to grow.
 */
struct caller {
	pthread_t thread;
	struct pool *pool;
	struct acquire how;
	struct wake queued;
	enum acquire_end end;
	struct dbha_conn *slot;
};

static void *call(void *arg)
{
	struct caller *caller = arg;
	caller->end = dbha__pool_acquire(caller->pool, &caller->how, &caller->slot);
	return NULL;
}

static void start_caller(struct caller *caller, struct bench *bench, uint64_t ticket)
{
	memset(caller, 0, sizeof *caller);
	caller->pool = &bench->pool;
	ck_assert_int_eq(dbha__wake_init(&caller->queued), 0);
	caller->how = asking(bench, ticket, dbha__clock_now() + FAR_US);
	caller->how.connector = &caller->queued;
	ck_assert_int_eq(pthread_create(&caller->thread, NULL, call, caller), 0);
	struct pollfd item = {.fd = caller->queued.read_fd, .events = POLLIN};
	ck_assert_int_eq(poll(&item, 1, -1), 1);
}

static void start_callers(struct caller *callers, struct bench *bench, int n)
{
	for (int i = 0; i < n; i++)
		start_caller(&callers[i], bench, (uint64_t)i + 1);
	check_counts(bench, 0, bench->pool.counts.used, bench->pool.counts.connecting, n);
}

static enum acquire_end end_of(struct caller *caller)
{
	pthread_join(caller->thread, NULL);
	dbha__wake_fini(&caller->queued);
	ck_assert((caller->slot != NULL) == (caller->end == ACQUIRED));
	return caller->end;
}

/* ---- one caller --------------------------------------------------------------------------------------------- */

START_TEST(a_pool_is_closed_until_the_topology_opens_it)
{
	struct bench bench;
	memset(&bench, 0, sizeof bench);
	ck_assert_int_eq(dbha__pool_init(&bench.pool, "node:1", &wide, &bench.stats), 0);
	ck_assert_int_eq(dbha__wake_init(&bench.connector), 0);
	ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_REROUTE);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 10), 0);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 1));
	ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_TIMEOUT);
	teardown(&bench);
}
END_TEST

START_TEST(the_connection_used_last_is_used_next)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link links[3];
	for (int i = 0; i < 3; i++)
		links[i] = connect_one(&bench, i);
	check_counts(&bench, 3, 0, 0, 0);
	ck_assert_ptr_eq(take(&bench), links[2].slot);
	ck_assert_int_eq(links[2].slot->rested_us, 1000 - 2);
	ck_assert_ptr_eq(take(&bench), links[1].slot);
	check_counts(&bench, 1, 2, 0, 0);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, links[2].slot, true, 2000));
	ck_assert_ptr_eq(take(&bench), links[2].slot);
	ck_assert_ptr_eq(take(&bench), links[0].slot);
	check_counts(&bench, 0, 3, 0, 0);
	for (int i = 0; i < 3; i++)
		ck_assert_ptr_null(dbha__pool_release(&bench.pool, links[i].slot, true, 2000));
	check_counts(&bench, 3, 0, 0, 0);
	ck_assert_uint_eq(bench.stats.acquires, 4);
	ck_assert_uint_eq(bench.stats.acquires_waited, 0);
	teardown(&bench);
	for (int i = 0; i < 3; i++)
		close(links[i].far);
}
END_TEST

START_TEST(a_broken_connection_does_not_come_back)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link link = connect_one(&bench, 0);
	ck_assert_ptr_eq(take(&bench), link.slot);
	ck_assert_ptr_eq(dbha__pool_release(&bench.pool, link.slot, false, 10), link.slot);
	check_counts(&bench, 0, 0, 0, 0);
	ck_assert_ptr_null(bench.pool.all);
	ck_assert(!is_cut(link.far));
	dispose(link.slot);
	ck_assert(is_cut(link.far));
	ck_assert_uint_eq(bench.stats.closed_broken, 1);
	ck_assert_uint_eq(bench.stats.closed_lifetime + bench.stats.closed_generation, 0);
	close(link.far);
	teardown(&bench);
}
END_TEST

START_TEST(a_connection_at_the_end_of_its_life_does_not_come_back)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link link = connect_one(&bench, 0);
	link.slot->expires_us = 5000;
	ck_assert_ptr_eq(take(&bench), link.slot);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 4999));
	ck_assert_ptr_eq(take(&bench), link.slot);
	ck_assert_ptr_eq(dbha__pool_release(&bench.pool, link.slot, true, 5000), link.slot);
	ck_assert_uint_eq(bench.stats.closed_lifetime, 1);
	dispose(link.slot);
	close(link.far);
	teardown(&bench);
}
END_TEST

START_TEST(who_gives_up_leaves_the_queue)
{
	struct bench bench;
	setup(&bench, &wide);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_TIMEOUT);
	check_counts(&bench, 0, 0, 0, 0);
	ck_assert_ptr_null(bench.pool.first);
	ck_assert_ptr_null(bench.pool.last);
	/* It had asked for a connection; when that comes it is idle. */
	struct pollfd item = {.fd = bench.connector.read_fd, .events = POLLIN};
	ck_assert_int_eq(poll(&item, 1, 0), 1);
	struct link link = connect_one(&bench, 0);
	check_counts(&bench, 1, 0, 0, 0);
	close(link.far);
	teardown(&bench);
}
END_TEST

START_TEST(the_longest_use_is_reported)
{
	struct bench bench;
	struct pool_report report;
	setup(&bench, &wide);
	struct link a = connect_one(&bench, 0);
	struct link b = connect_one(&bench, 0);
	dbha__pool_report(&bench.pool, 9000, &report);
	ck_assert_int_eq(report.longest_use_us, 0);
	take(&bench); /* at 1000 */
	take(&bench);
	dbha__pool_report(&bench.pool, 9000, &report);
	ck_assert_int_eq(report.longest_use_us, 8000);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, a.slot, true, 9000));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, b.slot, true, 9000));
	dbha__pool_report(&bench.pool, 99000, &report);
	ck_assert_int_eq(report.longest_use_us, 0);
	close(a.far);
	close(b.far);
	teardown(&bench);
}
END_TEST

/* ---- waiting ------------------------------------------------------------------------------------------------ */

/* Arrival in the queue and order of tickets differ: a call keeps its place when it is sent on from another node. */
START_TEST(waiters_are_served_by_ticket)
{
	static const uint64_t tickets[] = {30, 10, 50, 20, 40, 5, 60};
	static const int place[] = {3, 1, 5, 2, 4, 0, 6};
	enum { N = sizeof tickets / sizeof tickets[0] };
	for (int by_release = 0; by_release < 2; by_release++) {
		struct bench bench;
		struct caller callers[N];
		struct link links[N];
		setup(&bench, &wide);
		for (int i = 0; i < N; i++) {
			links[i] = make_link(1, INT64_MAX);
			set_connecting(&bench, bench.pool.counts.connecting + 1);
			if (by_release) {
				ck_assert_ptr_null(dbha__pool_connected(&bench.pool, links[i].slot, 0));
				take(&bench);
			}
		}
		/* Connects under way would keep the waiters from asking for one, and the test from knowing that they wait. */
		int connecting = bench.pool.counts.connecting;
		set_connecting(&bench, 0);
		for (int i = 0; i < N; i++)
			start_caller(&callers[i], &bench, tickets[i]);
		set_connecting(&bench, connecting);
		for (int i = 0; i < N; i++) {
			if (by_release)
				ck_assert_ptr_null(dbha__pool_release(&bench.pool, links[i].slot, true, i));
			else
				ck_assert_ptr_null(dbha__pool_connected(&bench.pool, links[i].slot, i));
			check_counts(&bench, 0, by_release ? N : i + 1, by_release ? 0 : N - 1 - i, N - 1 - i);
		}
		for (int i = 0; i < N; i++) {
			ck_assert_int_eq((int)end_of(&callers[i]), ACQUIRED);
			ck_assert_msg(callers[i].slot == links[place[i]].slot, "ticket %d was not served as number %d",
			              (int)tickets[i], place[i]);
			ck_assert_ptr_null(dbha__pool_release(&bench.pool, callers[i].slot, true, 99));
		}
		ck_assert_uint_eq(bench.stats.acquires_waited, N);
		teardown(&bench);
		for (int i = 0; i < N; i++)
			close(links[i].far);
	}
}
END_TEST

/* Given back while somebody waits, a connection is never idle: a newcomer, however early its ticket, finds nothing. */
START_TEST(a_connection_is_handed_over_directly)
{
	struct bench bench;
	struct caller callers[2];
	setup(&bench, &wide);
	struct link link = connect_one(&bench, 0);
	take(&bench);
	start_callers(callers, &bench, 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 50));
		check_counts(&bench, 0, 1, 0, 1 - i);
		ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_TIMEOUT);
		ck_assert(link.slot->used);
		ck_assert_int_eq(link.slot->rested_us, 0);
		ck_assert_int_eq(link.slot->since_us, 50);
		ck_assert_int_eq((int)end_of(&callers[i]), ACQUIRED);
		ck_assert_ptr_eq(callers[i].slot, link.slot);
	}
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 99));
	check_counts(&bench, 1, 0, 0, 0);
	close(link.far);
	teardown(&bench);
}
END_TEST

/* Two connections come for one waiter: the first is his, the newcomer gets the second. */
START_TEST(nobody_overtakes)
{
	struct bench bench;
	struct caller caller;
	setup(&bench, &wide);
	start_callers(&caller, &bench, 1);
	struct link a = connect_one(&bench, 0);
	struct link b = connect_one(&bench, 0);
	check_counts(&bench, 1, 1, 0, 0);
	ck_assert_ptr_eq(take(&bench), b.slot);
	ck_assert_int_eq((int)end_of(&caller), ACQUIRED);
	ck_assert_ptr_eq(caller.slot, a.slot);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, a.slot, true, 1));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, b.slot, true, 1));
	close(a.far);
	close(b.far);
	teardown(&bench);
}
END_TEST

START_TEST(too_many_waiters_are_told_at_once)
{
	struct pool_limits limits = wide;
	limits.max_waiting = 2;
	struct bench bench;
	struct caller callers[2];
	setup(&bench, &limits);
	start_callers(callers, &bench, 2);
	struct acquire how = asking(&bench, 99, CLOCK_NEVER);
	struct dbha_conn *slot;
	ck_assert_int_eq((int)dbha__pool_acquire(&bench.pool, &how, &slot), ACQUIRE_TOO_MANY);
	ck_assert_ptr_null(slot);
	check_counts(&bench, 0, 0, 0, 2);
	struct link link = connect_one(&bench, 0);
	ck_assert_int_eq((int)end_of(&callers[0]), ACQUIRED);
	/* One has gone: there is room for one more. */
	struct caller third;
	start_caller(&third, &bench, 3);
	dbha__pool_follow(&bench.pool, false, 1);
	ck_assert_int_eq((int)end_of(&callers[1]), ACQUIRE_REROUTE);
	ck_assert_int_eq((int)end_of(&third), ACQUIRE_REROUTE);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 1));
	close(link.far);
	teardown(&bench);
}
END_TEST

/* ---- the topology ------------------------------------------------------------------------------------------- */

START_TEST(waiters_of_a_pool_that_closes_are_sent_away)
{
	struct bench bench;
	struct caller callers[3];
	setup(&bench, &wide);
	struct link used = connect_one(&bench, 0);
	take(&bench);
	start_callers(callers, &bench, 3);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 1)); /* nothing new: they stay */
	check_counts(&bench, 0, 1, 0, 3);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, false, 1));
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq((int)end_of(&callers[i]), ACQUIRE_REROUTE);
	ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_REROUTE);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 10), 0);
	/* The node may come back as it was: what is in use is not cut, and what comes back stays. */
	ck_assert(!is_cut(used.far));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, used.slot, true, 1));
	check_counts(&bench, 1, 0, 0, 0);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 1));
	ck_assert_ptr_eq(take(&bench), used.slot);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, used.slot, true, 1));
	close(used.far);
	teardown(&bench);
}
END_TEST

START_TEST(a_new_generation_cuts_everything_older)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link used[2], idle[2];
	for (int i = 0; i < 2; i++)
		used[i] = connect_one(&bench, 0);
	take(&bench);
	take(&bench);
	for (int i = 0; i < 2; i++)
		idle[i] = connect_one(&bench, 0);
	struct dbha_conn *list = dbha__pool_follow(&bench.pool, true, 2);
	/* In use: cut while its user holds it, who then gives it back. Idle: taken out, for the caller to close. */
	for (int i = 0; i < 2; i++)
		ck_assert(is_cut(used[i].far) && !is_cut(idle[i].far));
	check_counts(&bench, 0, 2, 0, 0);
	ck_assert((list == idle[0].slot && list->all_next == idle[1].slot) ||
	          (list == idle[1].slot && list->all_next == idle[0].slot));
	ck_assert_ptr_null(list->all_next->all_next);
	dbha__pool_dispose(list);
	for (int i = 0; i < 2; i++)
		ck_assert(is_cut(idle[i].far));
	ck_assert_uint_eq(bench.stats.closed_generation, 2);
	/* Good as it may look to its user, it does not serve anybody else. */
	for (int i = 0; i < 2; i++) {
		ck_assert_ptr_eq(dbha__pool_release(&bench.pool, used[i].slot, true, 1), used[i].slot);
		dispose(used[i].slot);
	}
	ck_assert_uint_eq(bench.stats.closed_generation, 4);
	check_counts(&bench, 0, 0, 0, 0);
	struct link fresh = connect_one(&bench, 0);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 2));
	ck_assert(!is_cut(fresh.far));
	ck_assert_ptr_eq(take(&bench), fresh.slot);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 2));
	ck_assert(!is_cut(fresh.far));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, fresh.slot, true, 1));
	for (int i = 0; i < 2; i++) {
		close(used[i].far);
		close(idle[i].far);
	}
	close(fresh.far);
	teardown(&bench);
}
END_TEST

START_TEST(a_new_generation_sends_waiters_away)
{
	struct bench bench;
	struct caller callers[3];
	setup(&bench, &wide);
	start_callers(callers, &bench, 3);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 2));
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq((int)end_of(&callers[i]), ACQUIRE_REROUTE);
	check_counts(&bench, 0, 0, 0, 0);
	teardown(&bench);
}
END_TEST

START_TEST(a_connection_of_another_generation_does_not_join)
{
	struct bench bench;
	setup(&bench, &wide);
	set_connecting(&bench, 2);
	struct link old = make_link(1, INT64_MAX);
	struct link fresh = make_link(2, INT64_MAX);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 2));
	ck_assert_ptr_eq(dbha__pool_connected(&bench.pool, old.slot, 0), old.slot);
	check_counts(&bench, 0, 0, 1, 0);
	dispose(old.slot);
	ck_assert_ptr_null(dbha__pool_connected(&bench.pool, fresh.slot, 0));
	check_counts(&bench, 1, 0, 0, 0);
	/* Nor one that is ready when the pool is closed: it was made for a node that is not what it was. */
	set_connecting(&bench, 1);
	struct link late = make_link(2, INT64_MAX);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, false, 2));
	ck_assert_ptr_eq(dbha__pool_connected(&bench.pool, late.slot, 0), late.slot);
	check_counts(&bench, 1, 0, 0, 0);
	dispose(late.slot);
	close(old.far);
	close(fresh.far);
	close(late.far);
	teardown(&bench);
}
END_TEST

START_TEST(who_was_routed_by_an_old_view_is_routed_anew)
{
	struct bench bench;
	setup(&bench, &wide);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 3));
	struct link link = connect_one(&bench, 0);
	ck_assert_int_eq((int)fail_to_take(&bench, 2), ACQUIRE_REROUTE);
	ck_assert_int_eq((int)fail_to_take(&bench, 4), ACQUIRE_REROUTE);
	ck_assert_ptr_eq(take(&bench), link.slot);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 0));
	close(link.far);
	teardown(&bench);
}
END_TEST

/* ---- the connector ------------------------------------------------------------------------------------------ */

START_TEST(a_failed_connect_sends_away_who_waits_for_nothing_else)
{
	struct bench bench;
	struct caller callers[2];
	struct pool_report report;
	setup(&bench, &wide);
	start_callers(callers, &bench, 2);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 100), 2);
	dbha__pool_connect_failed(&bench.pool, "refused", 77);
	check_counts(&bench, 0, 0, 1, 2); /* the other one is still under way */
	dbha__pool_connect_failed(&bench.pool, "refused again", 78);
	ck_assert_int_eq((int)end_of(&callers[0]), ACQUIRE_NO_CONNECTION);
	ck_assert_int_eq((int)end_of(&callers[1]), ACQUIRE_NO_CONNECTION);
	dbha__pool_report(&bench.pool, 100, &report);
	ck_assert_int_eq(report.connect_failed_us, 78);
	ck_assert_str_eq(report.connect_why, "refused again");
	struct link link = connect_one(&bench, 0);
	dbha__pool_report(&bench.pool, 100, &report);
	ck_assert_int_eq(report.connect_failed_us, 0);
	close(link.far);
	teardown(&bench);
}
END_TEST

/* Two places are wanted at all times: each connect that fails leaves another one under way, which fails in its turn. */
START_TEST(connects_that_fail_in_turns_keep_nobody_waiting)
{
	static const struct pool_limits limits = {.min_size = 2, .max_size = 8, .max_connecting = 3, .max_idle_ms = 1000};
	struct bench bench;
	struct caller caller;
	setup(&bench, &limits);
	start_callers(&caller, &bench, 1);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 100), 2);
	for (int i = 1; i <= 3; i++) {
		dbha__pool_connect_failed(&bench.pool, "no", i);
		check_counts(&bench, 0, 0, 1, 1);
		ck_assert_int_eq(dbha__pool_claim(&bench.pool, 100), 1);
	}
	dbha__pool_connect_failed(&bench.pool, "no", 4);
	ck_assert_int_eq((int)end_of(&caller), ACQUIRE_NO_CONNECTION);
	check_counts(&bench, 0, 0, 1, 0);
	dbha__pool_connect_failed(&bench.pool, "no", 5);
	teardown(&bench);
}
END_TEST

START_TEST(a_failed_connect_leaves_who_can_wait_for_another_connection)
{
	struct bench bench;
	struct caller caller;
	setup(&bench, &wide);
	struct link link = connect_one(&bench, 0);
	take(&bench);
	start_callers(&caller, &bench, 1);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 100), 1);
	dbha__pool_connect_failed(&bench.pool, "too many connections", 77);
	check_counts(&bench, 0, 1, 0, 1);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 80));
	ck_assert_int_eq((int)end_of(&caller), ACQUIRED);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 90));
	close(link.far);
	teardown(&bench);
}
END_TEST

START_TEST(a_long_reason_is_cut)
{
	char much[3 * DBHA_WHY_MAX];
	struct bench bench;
	struct pool_report report;
	setup(&bench, &wide);
	memset(much, 'w', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	set_connecting(&bench, 1);
	dbha__pool_connect_failed(&bench.pool, much, 1);
	dbha__pool_report(&bench.pool, 2, &report);
	ck_assert_uint_eq(strlen(report.connect_why), DBHA_WHY_MAX - 1);
	teardown(&bench);
}
END_TEST

START_TEST(a_claim_leaves_no_more_under_way_than_asked)
{
	static const struct pool_limits limits = {.min_size = 5, .max_size = 8, .max_connecting = 4};
	struct bench bench;
	setup(&bench, &limits);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 0), 0);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 1), 1);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 1), 0); /* one at a time */
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 3), 2);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 2), 0);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 9), 1); /* pool_max_connecting */
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 9), 0);
	dbha__pool_connect_failed(&bench.pool, "no", 1);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 3), 0);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 4), 1);
	check_counts(&bench, 0, 0, 4, 0);
	dbha__pool_stop(&bench.pool, false);
	for (int i = 0; i < 4; i++)
		dbha__pool_connect_failed(&bench.pool, "no", 1);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 3), 0);
	teardown(&bench);
}
END_TEST

/* ---- patrol ------------------------------------------------------------------------------------------------- */

/* These have no libpq behind them, so that there is nothing to send; the word and the cut are what is looked at. */
START_TEST(a_patrol_asks_first_and_cuts_when_the_time_to_answer_is_over)
{
	enum { CUT_AT = 5000 + CONN_DRAIN_US };
	struct bench bench;
	setup(&bench, &wide);
	struct link links[4];
	for (int i = 0; i < 4; i++)
		links[i] = connect_one(&bench, 0);
	/* The last is idle; nobody waits on what is idle, whatever it says. */
	static const int64_t until[4] = {5000, CUT_AT + 1, 0, 1};
	for (int i = 0; i < 3; i++) {
		links[i].slot = dbha__pool_try(&bench.pool, 1, 100);
		ck_assert_ptr_nonnull(links[i].slot);
	}
	links[3].slot = bench.pool.idle_newest;
	for (int i = 0; i < 4; i++)
		dbha__overdue_begin(&links[i].slot->conn->wait_until, until[i]);
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, 4999), 5000);
	ck_assert_int_eq(atomic_load(&links[0].slot->conn->wait_until), 5000);
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, 5000), CUT_AT);
	ck_assert_int_eq(atomic_load(&links[0].slot->conn->wait_until), -5000); /* asked, and not cut */
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, CUT_AT - 1), CUT_AT);
	for (int i = 0; i < 4; i++)
		ck_assert(!links[i].slot->cut);
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, CUT_AT), CUT_AT + 1);
	for (int i = 0; i < 4; i++)
		ck_assert(links[i].slot->cut == (i == 0));
	ck_assert_int_eq(dbha__overdue_end(&links[0].slot->conn->wait_until), OVERDUE_CUT);
	ck_assert_int_eq(dbha__overdue_end(&links[1].slot->conn->wait_until), CUT_AT + 1);
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, CUT_AT + 1), CUT_AT + 1 + CONN_PATROL_US);
	/* The result may have come in the last moment: the connection is not lent again all the same. */
	dispose(dbha__pool_release(&bench.pool, links[0].slot, true, CUT_AT + 2));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, links[1].slot, true, CUT_AT + 2));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, links[2].slot, true, CUT_AT + 2));
	ck_assert_uint_eq(bench.stats.closed_broken, 1);
	teardown(&bench);
}
END_TEST

/* A patrol that was held up does both at once; and what ends between two visits is left alone. */
START_TEST(a_patrol_that_comes_late_cuts_at_once_and_an_ended_wait_is_left_alone)
{
	struct bench bench;
	setup(&bench, &wide);
	connect_one(&bench, 0);
	struct dbha_conn *slot = take(&bench);
	dbha__overdue_begin(&slot->conn->wait_until, 5000);
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, 5000), 5000 + CONN_DRAIN_US);
	ck_assert_int_eq(dbha__overdue_end(&slot->conn->wait_until), -5000);
	ck_assert_int_eq(dbha__pool_patrol(&bench.pool, 900000), 900000 + CONN_PATROL_US);
	ck_assert(!slot->cut);
	/* What the patrol has seen of the first wait does not count for the second. */
	dbha__overdue_begin(&slot->conn->wait_until, 6000);
	ck_assert(!dbha__overdue_step(&slot->conn->wait_until, 5000, -5000));
	dbha__pool_patrol(&bench.pool, 6000 + CONN_DRAIN_US);
	ck_assert(slot->cut);
	ck_assert_int_eq(dbha__overdue_end(&slot->conn->wait_until), OVERDUE_CUT);
	dispose(dbha__pool_release(&bench.pool, slot, true, 7000));
	teardown(&bench);
}
END_TEST

/* ---- expiry ------------------------------------------------------------------------------------------------- */

START_TEST(what_is_too_old_or_idle_too_long_is_taken_out)
{
	static const struct pool_limits limits = {.min_size = 2, .max_size = 9, .max_connecting = 9, .max_idle_ms = 10};
	struct bench bench;
	setup(&bench, &limits);
	struct link links[5];
	for (int i = 0; i < 5; i++)
		links[i] = connect_one(&bench, (int64_t)i * 1000);
	ck_assert_ptr_null(dbha__pool_expired(&bench.pool, 10000));
	struct dbha_conn *list = dbha__pool_expired(&bench.pool, 11001); /* the first two, idle since 0 and 1000 */
	ck_assert_ptr_eq(list, links[1].slot);
	ck_assert_ptr_eq(list->all_next, links[0].slot);
	ck_assert_ptr_null(list->all_next->all_next);
	dbha__pool_dispose(list);
	ck_assert(is_cut(links[0].far) && is_cut(links[1].far) && !is_cut(links[2].far));
	list = dbha__pool_expired(&bench.pool, 1000000); /* all are idle for long, but two have to stay */
	ck_assert_ptr_eq(list, links[2].slot);
	ck_assert_ptr_null(list->all_next);
	dbha__pool_dispose(list);
	check_counts(&bench, 2, 0, 0, 0);
	ck_assert_uint_eq(bench.stats.closed_idle, 3);
	/* The end of a lifetime knows no minimum; the newest may be the first to reach it. */
	links[4].slot->expires_us = 2000000;
	ck_assert_ptr_null(dbha__pool_expired(&bench.pool, 1999999));
	list = dbha__pool_expired(&bench.pool, 2000000);
	ck_assert_ptr_eq(list, links[4].slot);
	ck_assert_ptr_null(list->all_next);
	dbha__pool_dispose(list);
	ck_assert_uint_eq(bench.stats.closed_lifetime, 1);
	check_counts(&bench, 1, 0, 0, 0);
	ck_assert_ptr_eq(take(&bench), links[3].slot);
	links[3].slot->expires_us = 1;
	ck_assert_ptr_null(dbha__pool_expired(&bench.pool, 9000000)); /* in use: not before it comes back */
	ck_assert_ptr_eq(dbha__pool_release(&bench.pool, links[3].slot, true, 9000000), links[3].slot);
	dispose(links[3].slot);
	for (int i = 0; i < 5; i++)
		close(links[i].far);
	teardown(&bench);
}
END_TEST

/* ---- the end ------------------------------------------------------------------------------------------------ */

START_TEST(a_stop_sends_everybody_away)
{
	bool cut = _i;
	struct bench bench;
	struct caller callers[3];
	setup(&bench, &wide);
	struct link used = connect_one(&bench, 0);
	take(&bench);
	start_callers(callers, &bench, 3);
	struct dbha_conn *list = dbha__pool_stop(&bench.pool, cut);
	ck_assert_ptr_null(list);
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq((int)end_of(&callers[i]), ACQUIRE_STOPPED);
	ck_assert_int_eq(is_cut(used.far), cut);
	ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_STOPPED);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 1)); /* for good: the topology does not open it again */
	ck_assert_int_eq((int)fail_to_take(&bench, 1), ACQUIRE_STOPPED);
	set_connecting(&bench, 1);
	struct link late = make_link(1, INT64_MAX);
	ck_assert_ptr_eq(dbha__pool_connected(&bench.pool, late.slot, 0), late.slot);
	dispose(late.slot);
	ck_assert_ptr_eq(dbha__pool_release(&bench.pool, used.slot, true, 1), used.slot);
	dispose(used.slot);
	close(used.far);
	close(late.far);
	teardown(&bench);
}
END_TEST

START_TEST(a_stop_returns_what_is_idle)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link links[3];
	for (int i = 0; i < 3; i++)
		links[i] = connect_one(&bench, 0);
	struct dbha_conn *used = take(&bench);
	int n = 0;
	struct dbha_conn *list = dbha__pool_stop(&bench.pool, true);
	for (const struct dbha_conn *slot = list; slot; slot = slot->all_next, n++)
		ck_assert_ptr_ne(slot, used);
	ck_assert_int_eq(n, 2);
	dbha__pool_dispose(list);
	for (int i = 0; i < 3; i++)
		ck_assert(is_cut(links[i].far));
	/* The second phase finds nothing twice. */
	ck_assert_ptr_null(dbha__pool_stop(&bench.pool, true));
	dispose(dbha__pool_release(&bench.pool, used, true, 1));
	for (int i = 0; i < 3; i++)
		close(links[i].far);
	teardown(&bench);
}
END_TEST

/* ---- a node that leaves ------------------------------------------------------------------------------------- */

START_TEST(draining_lets_end_what_runs_and_nothing_begin)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link used = connect_one(&bench, 0);
	take(&bench);
	struct link idle = connect_one(&bench, 0);
	struct link late = make_link(bench.pool.generation, INT64_MAX);
	set_connecting(&bench, 1);
	ck_assert(!dbha__pool_is_empty(&bench.pool));

	struct dbha_conn *list = dbha__pool_drain(&bench.pool, true);
	ck_assert_ptr_eq(list, idle.slot);
	dispose(list);
	ck_assert(is_cut(idle.far) && !is_cut(used.far));
	ck_assert_int_eq((int)fail_to_take(&bench, bench.pool.generation), ACQUIRE_REROUTE);
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 5), 0);
	/* A connect that was under way comes too late, and what ran does not come back for use. */
	ck_assert_ptr_eq(dbha__pool_connected(&bench.pool, late.slot, 1), late.slot);
	dispose(late.slot);
	ck_assert(!dbha__pool_is_empty(&bench.pool));
	ck_assert_ptr_eq(dbha__pool_release(&bench.pool, used.slot, true, 1), used.slot);
	dispose(used.slot);
	ck_assert(dbha__pool_is_empty(&bench.pool));
	close(used.far);
	close(idle.far);
	close(late.far);

	ck_assert_ptr_null(dbha__pool_drain(&bench.pool, false));
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 2));
	struct link fresh = connect_one(&bench, 0);
	ck_assert_ptr_eq(take(&bench), fresh.slot);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, fresh.slot, true, 1));
	close(fresh.far);
	teardown(&bench);
}
END_TEST

/* A primary that leaves and is superseded meanwhile: what still runs on it is cut (P1). */
START_TEST(draining_does_not_shield_from_a_fence)
{
	struct bench bench;
	setup(&bench, &wide);
	struct link used = connect_one(&bench, 0);
	take(&bench);
	ck_assert_ptr_null(dbha__pool_drain(&bench.pool, true));
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, false, 1));
	ck_assert(!is_cut(used.far));
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, false, 2));
	ck_assert(is_cut(used.far));
	dispose(dbha__pool_release(&bench.pool, used.slot, true, 1));
	close(used.far);
	teardown(&bench);
}
END_TEST

/* ---- fork --------------------------------------------------------------------------------------------------- */

/* In a child: nothing of the parent's is touched, and a lease is an orphan that can only be freed. */
static int forked_child(struct bench *bench, struct dbha_conn *lease)
{
	int dev_null = open("/dev/null", O_RDWR | O_CLOEXEC);
	dbha__pool_abandon(&bench->pool, dev_null);
	close(dev_null);
	bench->pool.draining = true; /* as if the node had been leaving the parent */
	dbha__pool_reset_after_fork(&bench->pool);
	if (!lease->orphan || bench->pool.all || bench->pool.idle_newest || bench->pool.idle_oldest || bench->pool.open)
		return 1;
	if (bench->pool.counts.idle || bench->pool.counts.used || bench->pool.load || bench->pool.generation != 1)
		return 2;
	if (write(lease->conn->guard_fd, "x", 1) != 1) /* into /dev/null */
		return 3;
	lease->all_next = NULL;
	dbha__pool_dispose(lease);
	dbha__pool_follow(&bench->pool, true, 1);
	struct link link = connect_one(bench, 0);
	return take(bench) == link.slot ? 0 : 4;
}

START_TEST(a_child_leaves_the_parents_connections_alone)
{
	struct bench bench;
	setup(&bench, &wide);
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 5));
	struct link idle = connect_one(&bench, 0);
	struct link used = connect_one(&bench, 0);
	ck_assert_ptr_eq(take(&bench), used.slot);
	pid_t child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0)
		_exit(forked_child(&bench, used.slot));
	int status = -1;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
	ck_assert(!is_cut(idle.far)); /* and not a byte came: is_cut would have seen it */
	ck_assert(!is_cut(used.far));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, used.slot, true, 1));
	check_counts(&bench, 2, 0, 0, 0);
	close(idle.far);
	close(used.far);
	teardown(&bench);
}
END_TEST

/* ---- whatever happens --------------------------------------------------------------------------------------- */

static void check_lists(struct bench *bench, uint64_t seed, int step)
{
	const struct pool *pool = &bench->pool;
	const struct pool_counts *counts = &pool->counts;
	int all = 0;
	int used = 0;
	int idle = 0;
	int back = 0;
	for (const struct dbha_conn *slot = pool->all; slot; slot = slot->all_next, all++)
		used += slot->used;
	for (const struct dbha_conn *slot = pool->idle_newest; slot; slot = slot->idle_next)
		idle++;
	for (const struct dbha_conn *slot = pool->idle_oldest; slot; slot = slot->idle_prev)
		back++;
	int total = counts->idle + counts->used + counts->connecting;
	if (idle != counts->idle || back != idle || used != counts->used || all != idle + used ||
	    pool->load != used + counts->waiting || counts->waiting != 0 || total > pool->limits.max_size ||
	    counts->connecting > pool->limits.max_connecting)
		ck_abort_msg("seed %llu, step %d: all %d, idle %d (%d back), used %d; counts %d %d %d %d",
		             (unsigned long long)seed, step, all, idle, back, used, counts->idle, counts->used,
		             counts->connecting, counts->waiting);
}

struct load {
	struct rng rng;
	struct dbha_conn *used[MANY];
	int n_used;
	int connecting;
	uint64_t generation;
	int64_t now;
};

/* Without a socket: thousands of these are made. */
static struct dbha_conn *make_plain_slot(const struct load *load)
{
	struct dbha_conn *slot = calloc(1, sizeof *slot);
	slot->conn = calloc(1, sizeof *slot->conn);
	slot->conn->guard_fd = -1;
	slot->generation = load->generation - (load->now % 7 == 0);
	slot->expires_us = load->now + 500;
	return slot;
}

static void finish_connect(struct load *load, struct pool *pool)
{
	if (load->connecting == 0)
		return;
	load->connecting--;
	if (dbha__rng_below(&load->rng, 4) == 0)
		dbha__pool_connect_failed(pool, "no", load->now);
	else
		dbha__pool_dispose(dbha__pool_connected(pool, make_plain_slot(load), load->now));
}

static void acquire_idle(struct load *load, struct bench *bench)
{
	struct acquire how = asking(bench, 1, 0);
	how.now = load->now;
	if (load->n_used < MANY && dbha__pool_acquire(&bench->pool, &how, &load->used[load->n_used]) == ACQUIRED)
		load->n_used++;
}

static void release_one(struct load *load, struct pool *pool)
{
	if (load->n_used == 0)
		return;
	int i = (int)dbha__rng_below(&load->rng, (uint64_t)load->n_used);
	struct dbha_conn *slot = load->used[i];
	load->used[i] = load->used[--load->n_used];
	bool old = slot->generation != pool->generation || load->now >= slot->expires_us;
	bool reusable = dbha__rng_below(&load->rng, 5) != 0;
	struct dbha_conn *back = dbha__pool_release(pool, slot, reusable, load->now);
	if ((back != NULL) != (old || !reusable))
		ck_abort_msg("a connection that is %s and %s was %s", old ? "old" : "current", reusable ? "good" : "broken",
		             back ? "given back" : "kept");
	if (back)
		back->all_next = NULL;
	dbha__pool_dispose(back);
}

static void random_step(struct load *load, struct bench *bench)
{
	struct pool *pool = &bench->pool;
	load->now++;
	switch (dbha__rng_below(&load->rng, 12)) {
	case 0:
	case 1:
	case 2:
		/* Waiters are counted in for the moment of the claim. */
		pool->counts.waiting = (int)dbha__rng_below(&load->rng, 20);
		load->connecting += dbha__pool_claim(pool, (int)dbha__rng_below(&load->rng, 6));
		pool->counts.waiting = 0;
		break;
	case 3:
	case 4:
	case 5:
		finish_connect(load, pool);
		break;
	case 6:
	case 7:
		acquire_idle(load, bench);
		break;
	case 8:
	case 9:
		release_one(load, pool);
		break;
	case 10:
		dbha__pool_dispose(dbha__pool_expired(pool, load->now));
		break;
	default:
		load->generation += dbha__rng_below(&load->rng, 20) == 0;
		dbha__pool_dispose(dbha__pool_follow(pool, dbha__rng_below(&load->rng, 4) != 0, load->generation));
		break;
	}
}

START_TEST(no_load_breaks_a_limit_or_a_list)
{
	uint64_t seed = dbha__rng_entropy(&wide);
	struct load load = {.rng = {seed}, .generation = 1};
	struct bench bench;
	printf("pool: seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	struct pool_limits limits = {.min_size = 3, .max_size = 12, .max_connecting = 4, .max_idle_ms = 0};
	setup(&bench, &limits);
	for (int step = 0; step < 200000; step++) {
		random_step(&load, &bench);
		check_lists(&bench, seed, step);
	}
	while (load.n_used > 0)
		release_one(&load, &bench.pool);
	while (load.connecting > 0)
		finish_connect(&load, &bench.pool);
	teardown(&bench);
}
END_TEST

#define CROWD  8
#define TURNS  1500
#define PLACES 3

struct crowd {
	struct bench bench;
	_Atomic uint64_t tickets;
	_Atomic int inside, most;
	_Atomic int holders[PLACES]; /* of each connection */
	_Atomic int wrong;
	struct link links[PLACES];
};

static int place_of(const struct crowd *crowd, const struct dbha_conn *slot)
{
	int i = 0;
	while (i < PLACES && crowd->links[i].slot != slot)
		i++;
	return i;
}

static void *take_turns(void *arg)
{
	struct crowd *crowd = arg;
	struct pool *pool = &crowd->bench.pool;
	for (int turn = 0; turn < TURNS; turn++) {
		struct acquire how = {.ticket = crowd->tickets++,
		                      .generation = 1,
		                      .now = dbha__clock_now(),
		                      .deadline = dbha__clock_now() + FAR_US,
		                      .connector = &crowd->bench.connector};
		struct dbha_conn *slot;
		if (dbha__pool_acquire(pool, &how, &slot) != ACQUIRED) {
			crowd->wrong++;
			continue;
		}
		int place = place_of(crowd, slot);
		int inside = ++crowd->inside;
		if (inside > crowd->most)
			crowd->most = inside;
		if (place == PLACES || ++crowd->holders[place] != 1)
			crowd->wrong++;
		crowd->holders[place]--;
		crowd->inside--;
		if (dbha__pool_release(pool, slot, true, dbha__clock_now()))
			crowd->wrong++;
	}
	return NULL;
}

/* Eight threads, three connections: everybody is served, and no connection has two holders. */
START_TEST(a_crowd_shares_few_connections)
{
	static struct crowd crowd;
	pthread_t threads[CROWD];
	struct pool_limits limits = wide;
	limits.max_size = PLACES;
	setup(&crowd.bench, &limits);
	for (int i = 0; i < PLACES; i++)
		crowd.links[i] = connect_one(&crowd.bench, 0);
	for (int i = 0; i < CROWD; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, take_turns, &crowd), 0);
	for (int i = 0; i < CROWD; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(crowd.wrong, 0);
	ck_assert_int_le(crowd.most, PLACES);
	ck_assert_uint_eq(crowd.bench.stats.acquires, CROWD * TURNS);
	check_counts(&crowd.bench, PLACES, 0, 0, 0);
	for (int i = 0; i < PLACES; i++)
		close(crowd.links[i].far);
	teardown(&crowd.bench);
}
END_TEST

/* ---- who does not wait in the queue ------------------------------------------------------------------------------ */

static bool was_woken(struct wake *wake)
{
	struct pollfd item = {.fd = wake->read_fd, .events = POLLIN};
	bool woken = poll(&item, 1, 0) > 0;
	dbha__wake_drain(wake);
	return woken;
}

START_TEST(who_asks_without_waiting_keeps_its_place_and_is_told)
{
	struct bench bench;
	struct wake wake;
	setup(&bench, &(struct pool_limits){.max_size = 2, .max_connecting = 2, .max_waiting = 2, .max_idle_ms = 1000});
	ck_assert_int_eq(dbha__wake_init(&wake), 0);
	struct waiter first = {.wake = &wake};
	struct waiter second = {.wake = &wake};
	struct waiter third = {.wake = &wake};
	struct acquire how = asking(&bench, 1, 0);
	/* Nothing is there: in the queue, and a connect is asked for. */
	ck_assert(!dbha__pool_ask(&bench.pool, &how, &first));
	ck_assert(was_woken(&bench.connector));
	ck_assert_int_eq(dbha__pool_claim(&bench.pool, 2), 1);
	ck_assert(!dbha__pool_answered(&bench.pool, &first));
	how.ticket = 2;
	ck_assert(!dbha__pool_ask(&bench.pool, &how, &second));
	ck_assert(dbha__pool_ask(&bench.pool, &how, &third));
	ck_assert_int_eq((int)third.end, ACQUIRE_TOO_MANY);
	check_counts(&bench, 0, 0, 1, 2);
	ck_assert(!was_woken(&wake));
	/* The first is served first. */
	struct link link = make_link(bench.pool.generation, INT64_MAX);
	ck_assert_ptr_null(dbha__pool_connected(&bench.pool, link.slot, 1000));
	ck_assert(was_woken(&wake));
	ck_assert(dbha__pool_answered(&bench.pool, &first) && first.end == ACQUIRED && first.slot == link.slot);
	ck_assert(!dbha__pool_answered(&bench.pool, &second));
	/* Who leaves is passed over; who had been served by then gets what it has to give back. */
	ck_assert_ptr_null(dbha__pool_unask(&bench.pool, &second));
	check_counts(&bench, 0, 1, 0, 0);
	ck_assert(!dbha__pool_ask(&bench.pool, &how, &second));
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, first.slot, true, 2000));
	ck_assert(dbha__pool_unask(&bench.pool, &second) == link.slot);
	ck_assert_ptr_null(dbha__pool_release(&bench.pool, link.slot, true, 3000));
	/* What is idle is given at once. */
	ck_assert(dbha__pool_ask(&bench.pool, &how, &third));
	ck_assert_int_eq((int)third.end, ACQUIRED);
	ck_assert(!dbha__pool_ask(&bench.pool, &how, &first));
	was_woken(&wake);
	/* A new generation sends away. */
	ck_assert_ptr_null(dbha__pool_follow(&bench.pool, true, 9));
	ck_assert(was_woken(&wake) && dbha__pool_answered(&bench.pool, &first));
	ck_assert_int_eq((int)first.end, ACQUIRE_REROUTE);
	ck_assert_ptr_null(dbha__pool_unask(&bench.pool, &first));
	dispose(dbha__pool_release(&bench.pool, third.slot, true, 4000));
	close(link.far);
	dbha__wake_fini(&wake);
	teardown(&bench);
}
END_TEST

static TCase *make_tests(void)
{
	TCase *tcase = tcase_create("pool");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, a_pool_is_closed_until_the_topology_opens_it);
	tcase_add_test(tcase, the_connection_used_last_is_used_next);
	tcase_add_test(tcase, a_broken_connection_does_not_come_back);
	tcase_add_test(tcase, a_connection_at_the_end_of_its_life_does_not_come_back);
	tcase_add_test(tcase, who_gives_up_leaves_the_queue);
	tcase_add_test(tcase, the_longest_use_is_reported);
	tcase_add_test(tcase, waiters_are_served_by_ticket);
	tcase_add_test(tcase, a_connection_is_handed_over_directly);
	tcase_add_test(tcase, nobody_overtakes);
	tcase_add_test(tcase, too_many_waiters_are_told_at_once);
	tcase_add_test(tcase, waiters_of_a_pool_that_closes_are_sent_away);
	tcase_add_test(tcase, a_new_generation_cuts_everything_older);
	tcase_add_test(tcase, a_new_generation_sends_waiters_away);
	tcase_add_test(tcase, a_connection_of_another_generation_does_not_join);
	tcase_add_test(tcase, who_was_routed_by_an_old_view_is_routed_anew);
	tcase_add_test(tcase, a_failed_connect_sends_away_who_waits_for_nothing_else);
	tcase_add_test(tcase, connects_that_fail_in_turns_keep_nobody_waiting);
	tcase_add_test(tcase, a_failed_connect_leaves_who_can_wait_for_another_connection);
	tcase_add_test(tcase, a_long_reason_is_cut);
	tcase_add_test(tcase, a_claim_leaves_no_more_under_way_than_asked);
	tcase_add_test(tcase, a_patrol_asks_first_and_cuts_when_the_time_to_answer_is_over);
	tcase_add_test(tcase, a_patrol_that_comes_late_cuts_at_once_and_an_ended_wait_is_left_alone);
	tcase_add_test(tcase, what_is_too_old_or_idle_too_long_is_taken_out);
	tcase_add_loop_test(tcase, a_stop_sends_everybody_away, 0, 2);
	tcase_add_test(tcase, a_stop_returns_what_is_idle);
	tcase_add_test(tcase, draining_lets_end_what_runs_and_nothing_begin);
	tcase_add_test(tcase, draining_does_not_shield_from_a_fence);
	tcase_add_test(tcase, a_child_leaves_the_parents_connections_alone);
	tcase_add_test(tcase, no_load_breaks_a_limit_or_a_list);
	tcase_add_test(tcase, a_crowd_shares_few_connections);
	tcase_add_test(tcase, who_asks_without_waiting_keeps_its_place_and_is_told);
	return tcase;
}

static Suite *pool_suite(void)
{
	Suite *suite = suite_create("pool");
	suite_add_tcase(suite, make_tests());
	return suite;
}

UNIT_MAIN(pool_suite)
