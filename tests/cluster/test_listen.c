/*
 * test_listen: notifications while the cluster is as it was made: channels, order, amounts, the descriptor, what waiting costs, the end of
 * the handle, fork, and a connection that is ended. What becomes of them in a failover is tested in test_listen_failover.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"
#include "hear.h"
#include "work.h"

static struct cluster c;

static void servers(void)
{
	cluster_intact_with_rows(&c, "2", "id int");
}

static void done(void)
{
	listeners_close();
	c.intact = true;
}

/* ---- channels and payloads --------------------------------------------------------------------------------------- */

START_TEST(a_notification_comes_with_all_its_parts)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "orders");
	dbha_error err;
	expect_nothing(l, 0);
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	int pid = PQbackendPID(dbha_conn_pq(lease));
	lease_fetch(lease, "NOTIFY orders, 'first'");
	dbha_notification got = hear(l, PATIENCE_MS);
	ck_assert_int_eq(got.kind, DBHA_NOTIFY);
	ck_assert_str_eq(got.channel, "orders");
	ck_assert_str_eq(got.payload, "first");
	ck_assert_int_eq(got.backend_pid, pid);
	ck_assert_int_eq(got.down_ms, 0);
	ck_assert_str_eq(got.text, "");
	ck_assert_str_eq(got.node, node_status(h, 0).name);
	lease_fetch(lease, "NOTIFY orders");
	expect_notify(l, "orders", "");
	/* Not before its commit, and not at all without one. */
	lease_fetch(lease, "BEGIN; NOTIFY orders, 'rolled back'");
	lease_fetch(lease, "ROLLBACK");
	lease_fetch(lease, "BEGIN; NOTIFY orders, 'late'");
	expect_nothing(l, 100);
	lease_fetch(lease, "COMMIT");
	expect_notify(l, "orders", "late");
	dbha_release(lease);
	expect_nothing(l, 0);
}
END_TEST

START_TEST(any_name_is_a_channel_and_the_longest_payload_arrives)
{
	static const char *const names[] = {
	    "UPPER", "upper",  "with space", "we\"ird\"\"", "it's",      "; DROP TABLE rows", "select",
	    "",      "\\back", "tab\t",      "line\nfeed",  "sch.table", "канал-日本",        "$1",
	};
	char payload[8000], longest[64];
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, NULL);
	dbha_error err;
	memset(payload, 'p', sizeof payload - 1);
	payload[sizeof payload - 1] = '\0';
	memset(longest, 'n', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const char *name = names[i][0] ? names[i] : longest;
		ASSERT_OK(dbha_listen(l, name, 0, &err), err);
		notify(h, name, payload);
		expect_notify(l, name, payload);
	}
	expect_nothing(l, 50);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT count(*) FROM rows"), "0");
}
END_TEST

START_TEST(a_name_that_cannot_be_is_refused_and_harms_nothing)
{
	char long_name[65];
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "good");
	dbha_error err;
	memset(long_name, 'n', 64);
	long_name[64] = '\0';
	ASSERT_CODE(dbha_listen(l, long_name, 0, &err), USAGE, err);
	ASSERT_HAS(err.message, "63");
	ASSERT_CODE(dbha_listen(l, "", 0, &err), USAGE, err);
	ASSERT_CODE(dbha_unlisten(l, long_name, 0, &err), USAGE, err);
	/* No text in the encoding of the connection. */
	ASSERT_CODE(dbha_listen(l, "bad \xff", 0, &err), SERVER, err);
	ck_assert_str_eq(err.sqlstate, "22021");
	ASSERT_CODE(dbha_listen(l, "cut \xe6\x97", 0, &err), SERVER, err);
	notify(h, "good", "1");
	expect_notify(l, "good", "1");
	dbha_listener *fresh = listen_to(h, NULL);
	ASSERT_CODE(dbha_listen(fresh, "bad \xff", 0, &err), SERVER, err);
	ASSERT_OK(dbha_listen(fresh, "good", 0, &err), err);
	notify(h, "good", "2");
	expect_notify(l, "good", "2");
	expect_notify(fresh, "good", "2");
}
END_TEST

START_TEST(nonsense_is_refused)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, NULL);
	dbha_error err;
	dbha_notification out = {.size = sizeof out};
	ck_assert(dbha_listener_open(NULL, &err) == NULL);
	ASSERT_CODE(err.code, USAGE, err);
	ck_assert(dbha_listener_open(NULL, NULL) == NULL);
	ASSERT_CODE(dbha_listen(NULL, "x", 0, &err), USAGE, err);
	ASSERT_CODE(dbha_listen(l, NULL, 0, &err), USAGE, err);
	ASSERT_CODE(dbha_listen(l, "x", -1, &err), USAGE, err);
	ck_assert_int_eq(dbha_listen(l, NULL, 0, NULL), DBHA_ERR_USAGE);
	ASSERT_CODE(dbha_unlisten(NULL, "x", 0, &err), USAGE, err);
	ASSERT_CODE(dbha_unlisten(l, "x", -1, &err), USAGE, err);
	ASSERT_OK(dbha_unlisten(l, "never", 0, &err), err);
	ASSERT_OK(dbha_unlisten(l, NULL, 0, &err), err);
	ck_assert_int_eq(dbha_listener_next(NULL, 0, &out, &err), -1);
	ASSERT_CODE(err.code, USAGE, err);
	ck_assert_int_eq(dbha_listener_next(l, 0, NULL, &err), -1);
	ck_assert_int_eq(dbha_listener_next(l, -1, &out, &err), -1);
	ck_assert_int_eq(dbha_listener_next(l, 0, &(dbha_notification){.size = 0}, NULL), -1);
	ck_assert_int_eq(dbha_listener_fd(NULL, &err), -1);
	ASSERT_CODE(err.code, USAGE, err);
	dbha_listener_close(NULL);
	/* Without a channel nothing comes, and nothing is connected. */
	expect_nothing(l, 30);
	ck_assert_int_eq(out.size, sizeof out);
	ck_assert_int_eq(node_status(h, 0).pool_used, 0);
	/* Who was compiled with a smaller struct gets no more than that. */
	ASSERT_OK(dbha_listen(l, "x", 0, &err), err);
	notify(h, "x", "small");
	memset(&out, 'z', sizeof out);
	out.size = offsetof(dbha_notification, channel);
	ck_assert_int_eq(dbha_listener_next(l, PATIENCE_MS, &out, &err), 1);
	ck_assert_str_eq(out.payload, "small");
	ck_assert_int_eq(out.channel[0], 'z');
}
END_TEST

START_TEST(a_channel_listened_to_twice_is_heard_once)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "twice");
	dbha_error err;
	ASSERT_OK(dbha_listen(l, "twice", 0, &err), err);
	notify(h, "twice", "1");
	expect_notify(l, "twice", "1");
	expect_nothing(l, 100);
	ASSERT_OK(dbha_unlisten(l, "twice", 0, &err), err);
	notify(h, "twice", "2");
	expect_nothing(l, 100);
}
END_TEST

START_TEST(a_thousand_channels_on_one_connection)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, NULL);
	dbha_error err;
	char name[32];
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "channel %d", i * 7919 % 1000);
		ASSERT_OK(dbha_listen(l, name, 0, &err), err);
	}
	ck_assert_int_eq(node_status(h, 0).pool_used, 1);
	/* All of them again, in one go. */
	ck_assert_int_eq(terminate_listeners(&c, 1), 1);
	expect_gap(l);
	cluster_ask(&c, 1, "SELECT count(pg_notify('channel ' || i, i::text)) FROM generate_series(0, 999) i");
	for (int i = 0; i < 1000; i++) {
		char number[16];
		snprintf(name, sizeof name, "channel %d", i);
		snprintf(number, sizeof number, "%d", i);
		expect_notify(l, name, number);
	}
	expect_nothing(l, 0);
}
END_TEST

START_TEST(a_hundred_thousand_come_in_order)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "many");
	for (int chunk = 0; chunk < 10; chunk++)
		cluster_ask(&c, 1, "SELECT count(pg_notify('many', i::text)) FROM generate_series(%d, %d) i", chunk * 10000,
		            chunk * 10000 + 9999);
	int64_t began = now_us();
	for (int i = 0; i < 100000; i++) {
		dbha_notification got = hear(l, PATIENCE_MS);
		ck_assert_int_eq(got.kind, DBHA_NOTIFY);
		ck_assert_int_eq(atoi(got.payload), i);
	}
	int64_t took = now_us() - began;
	printf("# 100000 notifications taken in %.1f ms\n", (double)took / 1000);
	ck_assert_int_lt(took, SANITIZED ? 30000000 : 5000000);
	expect_nothing(l, 0);
}
END_TEST

/* ---- UNLISTEN ---------------------------------------------------------------------------------------------------- */

START_TEST(after_unlisten_nothing_of_the_channel_is_given)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "a");
	dbha_error err;
	ASSERT_OK(dbha_listen(l, "b", 0, &err), err);
	for (int i = 0; i < 3; i++) {
		notify(h, "a", "from a");
		notify(h, "b", "from b");
	}
	expect_notify(l, "a", "from a"); /* so that the others have come, or are coming */
	ASSERT_OK(dbha_unlisten(l, "a", 0, &err), err);
	notify(h, "a", "too late");
	for (int i = 0; i < 3; i++)
		expect_notify(l, "b", "from b");
	expect_nothing(l, 100);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT pg_notification_queue_usage()"), "0");
	/* Again: what was sent in between is not heard. */
	ASSERT_OK(dbha_listen(l, "a", 0, &err), err);
	expect_nothing(l, 50);
	notify(h, "a", "again");
	expect_notify(l, "a", "again");

	notify(h, "b", "gone");
	ASSERT_OK(dbha_unlisten(l, NULL, 0, &err), err);
	expect_nothing(l, 50);
	ck_assert_int_eq(node_status(h, 0).pool_used, 0);
	ASSERT_OK(dbha_listen(l, "b", 0, &err), err);
	notify(h, "b", "new");
	expect_notify(l, "b", "new");
}
END_TEST

START_TEST(the_listener_holds_one_connection_of_the_pool)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha_listener *l = listen_to(h, "one");
	dbha_error err;
	ASSERT_CODE(run(h, DBHA_WRITE, 100, "SELECT 1", &err), POOL, err);
	dbha_listener *other = listen_to(h, NULL);
	ASSERT_CODE(dbha_listen(other, "one", 100, &err), POOL, err);
	ck_assert(err.retry_safe);
	close_listener(l);
	ck_assert_str_eq(fetch(h, DBHA_WRITE, "SELECT count(*) FROM pg_listening_channels()"), "0");
	ASSERT_OK(dbha_listen(other, "one", 0, &err), err);
}
END_TEST

/* What a session has left behind is being undone on the connection when the listener gets it. */
START_TEST(a_connection_that_is_being_reset_serves_a_listener)
{
	dbha *h = open_all(&c, "pool_max_size=1");
	dbha *sender = open_all(&c, NULL);
	dbha_error err;
	for (int i = 0; i < 30; i++) {
		dbha_session *session = dbha_session_open(h, &err);
		PGresult *result;
		int code = dbha_session_exec(
		    session,
		    &DBHA_REQUEST(.sql = i % 2 ? "SELECT pg_advisory_lock(1)" : "SET statement_timeout = '1h'",
		                  .intent = DBHA_WRITE),
		    &result, &err);
		ASSERT_OK(code, err);
		PQclear(result);
		dbha_session_close(session);
		dbha_listener *l = listen_to(h, "reset");
		notify(sender, "reset", "1");
		expect_notify(l, "reset", "1");
		expect_nothing(l, 0);
		ck_assert_str_eq(cluster_ask(&c, 1, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
		close_listener(l);
	}
}
END_TEST

/* ---- a connection that is ended ---------------------------------------------------------------------------------- */

START_TEST(a_connection_that_is_ended_is_replaced_and_one_gap_is_told)
{
	static struct figures figures = {.name = "connection terminated, gap told after"};
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "ended");
	dbha_error err;
	ASSERT_OK(dbha_listen(l, "Ended \"too\"", 0, &err), err);
	for (int i = 0; i < 5; i++) {
		/* What had come before is given first. */
		notify(h, "ended", "before");
		ck_assert_int_eq(terminate_listeners(&c, 1), 1);
		int64_t began = now_us();
		expect_notify(l, "ended", "before");
		dbha_notification gap = expect_gap(l);
		figures_add(&figures, now_us() - began);
		ASSERT_HAS(gap.text, "was lost");
		ck_assert_str_eq(gap.node, node_status(h, 0).name);
		ck_assert_int_lt(gap.down_ms, PATIENCE_MS);
		notify(h, "ended", "after");
		notify(h, "Ended \"too\"", "after");
		expect_notify(l, "ended", "after");
		expect_notify(l, "Ended \"too\"", "after");
		expect_nothing(l, 20);
	}
	figures_print(&figures);
}
END_TEST

/* While nobody waits in dbha_listener_next: the next call notices, with whatever timeout. */
START_TEST(a_loss_that_nobody_waited_for_is_told_by_the_next_calls)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "idle");
	dbha_error err;
	notify(h, "idle", "before");
	ck_assert_int_eq(terminate_listeners(&c, 1), 1);
	/* dbha_listen notices too, and owes the gap, behind what had come before. */
	ASSERT_OK(dbha_listen(l, "more", 0, &err), err);
	notify(h, "more", "1");
	expect_notify(l, "idle", "before");
	expect_gap(l);
	expect_notify(l, "more", "1");

	ck_assert_int_eq(terminate_listeners(&c, 1), 1);
	dbha_notification got = {.size = sizeof got};
	int calls = 0, noticed = 0, rc;
	int64_t slowest = 0;
	for (int64_t end = now_ms() + PATIENCE_MS; now_ms() < end;) {
		int64_t began = now_us();
		rc = dbha_listener_next(l, 0, &got, &err);
		slowest = now_us() - began > slowest ? now_us() - began : slowest;
		calls++;
		ck_assert_int_ge(rc, 0);
		if (rc)
			break;
		if (got.down_ms > 0) {
			ASSERT_HAS(got.text, "lost");
			noticed++;
		}
		short_pause();
	}
	ck_assert_int_eq(rc, 1);
	ck_assert_int_eq(got.kind, DBHA_GAP);
	ck_assert_int_ge(noticed, 1); /* the call that notices cannot be the one that is done with it */
	printf("# re-subscribed by %d calls with a timeout of 0, the slowest %.1f ms\n", calls, (double)slowest / 1000);
	ck_assert_int_lt(slowest / 1000, SLACK_MS);
	notify(h, "idle", "2");
	expect_notify(l, "idle", "2");

	/* A gap of which no channel is left is not told. */
	ck_assert_int_eq(terminate_listeners(&c, 1), 1);
	ASSERT_OK(dbha_unlisten(l, NULL, 0, &err), err);
	ASSERT_OK(dbha_listen(l, "idle", 0, &err), err);
	expect_nothing(l, 50);
}
END_TEST

/* The server takes too long: that is an error, it is not listened to later all the same, and the other channels have missed nothing. */
START_TEST(a_listen_that_is_not_confirmed_in_time_is_taken_back)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "there");
	dbha_error err;
	for (int i = 0; i < 2; i++) {
		cluster_do(&c, "pause 1");
		int64_t began = now_ms();
		int code = i == 0 ? dbha_listen(l, "late", 300, &err) : dbha_unlisten(l, "late", 300, &err);
		ASSERT_CODE(code, TIMEOUT, err);
		ck_assert_int_lt(now_ms() - began, 300 + SLACK_MS);
		cluster_do(&c, "resume 1");
		expect_nothing(l, 200);
		notify(h, "late", "not wanted");
		notify(h, "there", "wanted");
		expect_notify(l, "there", "wanted");
		expect_nothing(l, 50);
		ASSERT_OK(dbha_listen(l, "late", 0, &err), err);
		expect_nothing(l, 50);
		notify(h, "late", "wanted now");
		expect_notify(l, "late", "wanted now");
	}
}
END_TEST

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

static int64_t thread_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static long wakeups(void)
{
	struct rusage usage;
	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

static void measure_waiting(const char *options, const char *name, int most_wakeups, int most_cpu_ms)
{
	dbha *h = open_all(&c, options);
	dbha_listener *l = listen_to(h, "quiet");
	expect_nothing(l, 100);
	long before = wakeups();
	int64_t cpu = thread_us();
	int64_t began = now_ms();
	expect_nothing(l, 5000);
	printf("# waiting 5 s, %s: %ld wake-ups, %.1f ms of processor\n", name, wakeups() - before,
	       (double)(thread_us() - cpu) / 1000);
	ck_assert_int_ge(now_ms() - began, 5000);
	ck_assert_int_lt(now_ms() - began, 5000 + SLACK_MS);
	if (SANITIZED)
		return;
	ck_assert_int_le(wakeups() - before, most_wakeups);
	ck_assert_int_le((thread_us() - cpu) / 1000, most_cpu_ms);
}

START_TEST(waiting_costs_next_to_nothing)
{
	measure_waiting(NULL, "defaults", 25, 20);
	listeners_close();
	handles_close();
	measure_waiting("monitor=off", "monitor=off", 700, 100);
}
END_TEST

static void *notify_in_a_while(void *arg)
{
	struct timespec pause = {.tv_nsec = 200 * 1000000};
	nanosleep(&pause, NULL);
	notify(arg, "soon", "now");
	return NULL;
}

START_TEST(a_waiting_call_wakes_at_once)
{
	static struct figures figures = {.name = "notification sent, taken after (with the statement that sends it)"};
	for (int off = 0; off < 2; off++) {
		dbha *h = open_all(&c, off ? "monitor=off" : NULL);
		dbha *sender = open_all(&c, NULL);
		dbha_listener *l = listen_to(h, "soon");
		for (int i = 0; i < 5; i++) {
			notify(sender, "soon", "warm");
			expect_notify(l, "soon", "warm");
			pthread_t thread = start_thread(notify_in_a_while, sender);
			int64_t began = now_us();
			expect_notify(l, "soon", "now");
			figures_add(&figures, now_us() - began - 200000);
			join_thread(thread);
		}
	}
	figures_print(&figures);
	ck_assert_int_lt(figures_worst_us(&figures) / 1000, 2 * SLACK_MS);
}
END_TEST

/* ---- the descriptor ---------------------------------------------------------------------------------------------- */

/* Sooner than the timer would do it, which brings the loop round every two seconds. */
#define AT_ONCE_MS (500 + SLACK_MS)

static bool is_readable(int fd, int timeout_ms)
{
	struct pollfd item = {.fd = fd, .events = POLLIN};
	return poll(&item, 1, timeout_ms) > 0;
}

/* As an event loop does: one call with 0 ms at each wake-up. 1, or 0 after the time. */
static int loop_next(dbha_listener *l, int timeout_ms, dbha_notification *got, int *calls)
{
	dbha_error err;
	int fd = dbha_listener_fd(l, &err);
	ck_assert_int_ge(fd, 0);
	int64_t end = now_ms() + timeout_ms;
	while (is_readable(fd, end > now_ms() ? (int)(end - now_ms()) : 0)) {
		*got = (dbha_notification){.size = sizeof *got};
		int rc = dbha_listener_next(l, 0, got, &err);
		ck_assert_msg(rc >= 0, "%s", err.message);
		(*calls)++;
		if (rc)
			return 1;
	}
	return 0;
}

static void use_the_descriptor(const char *options)
{
	dbha *h = open_all(&c, options);
	dbha_listener *l = listen_to(h, NULL);
	dbha_error err;
	dbha_notification got;
	int calls = 0;
	int fd = dbha_listener_fd(l, &err); /* before there is a connection */
	ASSERT_OK(dbha_listen(l, "loop", 0, &err), err);
	ck_assert_int_eq(loop_next(l, 300, &got, &calls), 0);
	notify(h, "loop", "1");
	notify(h, "loop", "2");
	notify(h, "loop", "3");
	/* One at each wake-up: it stays readable while there is more. */
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(loop_next(l, AT_ONCE_MS, &got, &calls), 1);
		ck_assert_int_eq(atoi(got.payload), i + 1);
	}
	ck_assert_int_eq(loop_next(l, 300, &got, &calls), 0);
	/* What comes while dbha_listen talks to the server is not forgotten. */
	notify(h, "loop", "4");
	ASSERT_OK(dbha_listen(l, "loop two", 0, &err), err);
	ck_assert_int_eq(loop_next(l, AT_ONCE_MS, &got, &calls), 1);
	ck_assert_str_eq(got.payload, "4");
	for (int i = 0; i < 3; i++) {
		ck_assert_int_eq(terminate_listeners(&c, 1), 1);
		calls = 0;
		ck_assert_int_eq(loop_next(l, PATIENCE_MS, &got, &calls), 1);
		ck_assert_int_eq(got.kind, DBHA_GAP);
		ck_assert_int_eq(dbha_listener_fd(l, &err), fd);
		if (!options)
			ck_assert_int_lt(calls, 50);
		notify(h, "loop two", "5");
		ck_assert_int_eq(loop_next(l, AT_ONCE_MS, &got, &calls), 1);
		ck_assert_str_eq(got.payload, "5");
	}
	calls = 0;
	ck_assert_int_eq(loop_next(l, 5000, &got, &calls), 0);
	printf("# an event loop, 5 s in which nothing came%s: %d calls\n", options ? ", monitor=off" : "", calls);
	ck_assert_int_le(calls, options ? 400 : 25);
	close_listener(l);
	close_handle(h, 0);
}

START_TEST(a_descriptor_stands_for_whatever_connection_there_is)
{
	use_the_descriptor(NULL);
	use_the_descriptor("monitor=off");
}
END_TEST

/* ---- the end, and fork ------------------------------------------------------------------------------------------- */

struct waiter {
	dbha_listener *l;
	atomic_bool waits;
	int rc;
	dbha_error err;
};

static void *wait_for_one(void *arg)
{
	struct waiter *waiter = arg;
	dbha_notification got = {.size = sizeof got};
	atomic_store(&waiter->waits, true);
	waiter->rc = dbha_listener_next(waiter->l, 30000, &got, &waiter->err);
	return NULL;
}

START_TEST(closing_the_handle_ends_a_wait_and_waits_for_no_listener)
{
	static struct waiter waiter;
	for (int i = 0; i < 4; i++) {
		dbha *h = open_all(&c, i % 2 ? "monitor=off" : NULL);
		dbha_listener *l = listen_to(h, "closed");
		dbha_error err;
		memset(&waiter, 0, sizeof waiter);
		waiter.l = l;
		if (i < 2) {
			start_thread(wait_for_one, &waiter);
			WAIT_FOR(atomic_load(&waiter.waits), PATIENCE_MS);
		}
		int64_t began = now_ms();
		close_handle(h, 10000);
		ck_assert_int_lt(now_ms() - began, 1000);
		join_threads();
		if (i < 2) {
			ck_assert_int_eq(waiter.rc, -1);
			ASSERT_CODE(waiter.err.code, CLOSED, waiter.err);
		}
		dbha_notification got = {.size = sizeof got};
		ck_assert_int_eq(dbha_listener_next(l, 1000, &got, &err), -1);
		ASSERT_CODE(err.code, CLOSED, err);
		ASSERT_CODE(dbha_listen(l, "more", 0, &err), CLOSED, err);
		ASSERT_CODE(dbha_unlisten(l, NULL, 0, &err), CLOSED, err);
		close_listener(l);
		WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") == 0, PATIENCE_MS);
	}
}
END_TEST

static bool refuses_the_parents(dbha *h, dbha_listener *l, int order)
{
	dbha_error err;
	dbha_notification got = {.size = sizeof got};
	bool ok = dbha_listener_next(l, 100, &got, &err) == -1 && err.code == DBHA_ERR_FORKED;
	ok = ok && dbha_listen(l, "child", 100, &err) == DBHA_ERR_FORKED;
	ok = ok && dbha_unlisten(l, NULL, 100, &err) == DBHA_ERR_FORKED;
	ok = ok && dbha_listener_fd(l, &err) == -1 && err.code == DBHA_ERR_FORKED;
	if (order == 0) {
		dbha_listener_close(l);
		dbha_close(h, 100);
		return ok;
	}
	if (order == 1) {
		dbha_close(h, 100);
		dbha_listener_close(l);
		return ok;
	}
	/* One of its own works. */
	dbha_listener *own = dbha_listener_open(h, &err);
	ok = ok && own && dbha_listen(own, "child", 5000, &err) == DBHA_OK;
	ok = ok && run(h, DBHA_WRITE, 5000, "NOTIFY child, 'hello'", &err) == DBHA_OK;
	ok = ok && dbha_listener_next(own, 5000, &got, &err) == 1 && strcmp(got.payload, "hello") == 0;
	dbha_listener_close(l);
	dbha_listener_close(own);
	dbha_close(h, 100);
	return ok;
}

START_TEST(a_listener_is_the_parents_over_fork)
{
	dbha *h = open_all(&c, NULL);
	dbha_listener *l = listen_to(h, "parent");
	dbha_error err;
	ck_assert_int_ge(dbha_listener_fd(l, &err), 0);
	for (int order = 0; order < (SANITIZED ? 2 : 3); order++) {
		notify(h, "parent", "before"); /* it is in the socket, or taken in, when the child begins */
		fflush(NULL);
		pid_t pid = fork();
		ck_assert_int_ge(pid, 0);
		if (pid == 0) {
			alarm(20);
			_exit(refuses_the_parents(h, l, order) ? 0 : 1);
		}
		int status;
		ck_assert_int_eq(waitpid(pid, &status, 0), pid);
		ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: %d", order, status);
		expect_notify(l, "parent", "before");
		notify(h, "parent", "after");
		int calls = 0;
		dbha_notification got;
		ck_assert_int_eq(loop_next(l, PATIENCE_MS, &got, &calls), 1);
		ck_assert_str_eq(got.payload, "after");
		expect_nothing(l, 20);
	}
}
END_TEST

START_TEST(it_works_without_a_thread)
{
	dbha *h = open_handle(cluster_url(&c, NULL, "monitor=off"));
	dbha_listener *l = listen_to(h, "off");
	notify(h, "off", "1");
	expect_notify(l, "off", "1");
	ck_assert_int_eq(terminate_listeners(&c, 1), 1);
	expect_gap(l);
	notify(h, "off", "2");
	expect_notify(l, "off", "2");
	expect_nothing(l, 50);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("listen");
	ADD_TEST(suite, a_notification_comes_with_all_its_parts, servers, done, 30);
	ADD_TEST(suite, any_name_is_a_channel_and_the_longest_payload_arrives, servers, done, 30);
	ADD_TEST(suite, a_name_that_cannot_be_is_refused_and_harms_nothing, servers, done, 30);
	ADD_TEST(suite, nonsense_is_refused, servers, done, 30);
	ADD_TEST(suite, a_channel_listened_to_twice_is_heard_once, servers, done, 30);
	ADD_TEST(suite, a_thousand_channels_on_one_connection, servers, done, 60);
	ADD_TEST(suite, a_hundred_thousand_come_in_order, servers, done, 60);
	ADD_TEST(suite, after_unlisten_nothing_of_the_channel_is_given, servers, done, 30);
	ADD_TEST(suite, the_listener_holds_one_connection_of_the_pool, servers, done, 30);
	ADD_TEST(suite, a_connection_that_is_being_reset_serves_a_listener, servers, done, 60);
	ADD_TEST(suite, a_connection_that_is_ended_is_replaced_and_one_gap_is_told, servers, done, 30);
	ADD_TEST(suite, a_loss_that_nobody_waited_for_is_told_by_the_next_calls, servers, done, 60);
	ADD_TEST(suite, a_listen_that_is_not_confirmed_in_time_is_taken_back, servers, done, 30);
	ADD_TEST(suite, waiting_costs_next_to_nothing, servers, done, 60);
	ADD_TEST(suite, a_waiting_call_wakes_at_once, servers, done, 60);
	ADD_TEST(suite, a_descriptor_stands_for_whatever_connection_there_is, servers, done, 90);
	ADD_TEST(suite, closing_the_handle_ends_a_wait_and_waits_for_no_listener, servers, done, 60);
	ADD_TEST(suite, a_listener_is_the_parents_over_fork, servers, done, 90);
	ADD_TEST(suite, it_works_without_a_thread, servers, done, 30);
	return run_suite(suite, &c);
}
