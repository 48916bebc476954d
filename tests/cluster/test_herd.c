/*
 * test_herd: what many callers do to servers together. How reads are shared by standbys, fast, slow, just back; how often a
 * failing statement is sent again; how many connections an outage costs, during it and after it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "relay.h"

#define NODES   4
#define HANDLES 10
#define THREADS 4 /* of each handle */

static struct cluster c;
static struct relay relay;

static void four_nodes(void)
{
	if (c.keeper)
		return;
	cluster_create(&c, "4");
	cluster_ask(&c, 1, "CREATE SEQUENCE tries");
	cluster_ask(&c, 1, "GRANT ALL ON SEQUENCE tries TO app");
	cluster_ask(&c, 1,
	            "CREATE FUNCTION fail(until int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN "
	            "IF nextval('tries') < until THEN RAISE EXCEPTION 'as told' USING ERRCODE = '40001'; END IF; "
	            "RETURN until; END $$");
	for (int node = 2; node <= NODES; node++)
		cluster_catch_up(&c, node, 1);
}

static void no_relay(void)
{
	relay_stop(&relay);
}

/* The URL of some nodes in this order; one of them may be reached by the relay only. */
static const char *url_by_relay(const int *nodes, int n, int relayed, const char *options)
{
	static char url[512];
	int used = snprintf(url, sizeof url, "postgresql://app:%s@", cluster_password(&c));
	for (int i = 0; i < n; i++)
		used += snprintf(url + used, sizeof url - (size_t)used, "%s127.0.0.1:%d", i ? "," : "",
		                 nodes[i] == relayed ? relay.port : cluster_port(&c, nodes[i]));
	snprintf(url + used, sizeof url - (size_t)used, "/app?%s", options);
	return url;
}

static const int in_list_order[] = {1, 2, 3, 4};

/* Reads one after the other; counts the node that each one says it was run on. */
static void count_reads(dbha *h, int n, int times[NODES + 1])
{
	memset(times, 0, sizeof *times * (NODES + 1));
	for (int i = 0; i < n; i++) {
		int port = atoi(fetch(h, DBHA_READ, "SELECT inet_server_port()"));
		for (int node = 1; node <= NODES; node++)
			times[node] += port == cluster_port(&c, node);
	}
}

/*
 * Whether of 1500 reads the last standby gets a number within these bounds, and the others about half of what is left each. A
 * busy machine may make any of them look slow for a while: it is looked again.
 */
static bool shares_within(dbha *h, int low, int high, int times[NODES + 1])
{
	int64_t end = now_ms() + PATIENCE_MS;
	do {
		count_reads(h, 1500, times);
		ck_assert_int_eq(times[1], 0);
		int others = 1500 - times[4];
		bool even = times[2] * 5 > others * 2 && times[3] * 5 > others * 2;
		if (even && times[4] >= low && times[4] <= high)
			return true;
	} while (now_ms() < end);
	return false;
}

static bool all_up(dbha *h)
{
	dbha_error err;
	return dbha_wait(h, DBHA_WAIT_ALL, 1, &err) == DBHA_OK;
}

/* ---- balance ----------------------------------------------------------------------------------------------------- */

START_TEST(equal_standbys_share_the_reads_and_a_slow_one_gets_less)
{
	int times[NODES + 1];
	relay_start(&relay, cluster_port(&c, 4));
	dbha *h = open_handle(url_by_relay(in_list_order, NODES, 4, "probe_interval=100ms"));
	WAIT_FOR(all_up(h), PATIENCE_MS);
	ck_assert_msg(shares_within(h, 400, 600, times), "%d, %d, %d of 1500", times[2], times[3], times[4]);

	/* One caller alone, so that nothing is ever in flight: only the probes can tell. */
	atomic_store(&relay.delay_ms, 30);
	WAIT_FOR(node_status(h, 3).latency_us > 25000, PATIENCE_MS);
	ck_assert_msg(shares_within(h, 0, 75, times), "the slow one: %d of 1500", times[4]);

	/* What was slow is not so for ever. */
	atomic_store(&relay.delay_ms, 0);
	int64_t end = now_ms() + PATIENCE_MS;
	do
		count_reads(h, 300, times);
	while (times[4] < 60 && now_ms() < end);
	ck_assert_msg(times[4] >= 60, "%d of 300 after its recovery", times[4]);
}
END_TEST

START_TEST(disable_keeps_the_order_of_the_list)
{
	int times[NODES + 1];
	dbha *h = open_handle(cluster_url(&c, "1 3 2 4", "load_balance_hosts=disable&probe_interval=100ms"));
	WAIT_FOR(all_up(h), PATIENCE_MS);
	count_reads(h, 300, times);
	ck_assert_int_eq(times[3], 300);
	cluster_do(&c, "stop 3 fast");
	count_reads(h, 300, times); /* the first of them may find out; none fails */
	ck_assert_int_eq(times[2], 300);
	cluster_do(&c, "start 3");
	int64_t end = now_ms() + PATIENCE_MS;
	do
		count_reads(h, 100, times);
	while (times[3] < 100 && now_ms() < end);
	ck_assert_int_eq(times[3], 100);
	ck_assert_uint_eq(counters(h, -1).retries_refused, 0);
}
END_TEST

START_TEST(a_standby_that_comes_back_takes_its_share_by_and_by)
{
	int times[NODES + 1];
	dbha *h = open_handle(cluster_url(&c, NULL, "probe_interval=100ms"));
	WAIT_FOR(all_up(h), PATIENCE_MS);
	cluster_do(&c, "kill 2");
	WAIT_FOR(node_status(h, 1).state == DBHA_STATE_DOWN, PATIENCE_MS);
	cluster_do(&c, "start 2");
	WAIT_FOR(node_status(h, 1).state == DBHA_STATE_UP, PATIENCE_MS);
	/* In its first second: a sixteenth of the choices. A second is enough for these on any machine that is not stuck. */
	int64_t began = now_ms();
	count_reads(h, 200, times);
	if (now_ms() - began < 1000)
		ck_assert_msg(times[2] <= 20, "%d of 200 at once", times[2]);
	int64_t end = now_ms() + PATIENCE_MS;
	do
		count_reads(h, 300, times);
	while (times[2] < 60 && now_ms() < end);
	ck_assert_msg(times[2] >= 60, "%d of 300 later", times[2]);
}
END_TEST

/* ---- the retry budget ---------------------------------------------------------------------------------------------- */

struct caller {
	dbha *h;
	dbha_intent intent;
	const char *sql;
	int rounds;         /* 0: until threads_stop */
	atomic_int ok, bad; /* how they ended */
	dbha_error err;     /* of the last one that went bad */
	atomic_llong ok_ms; /* when the last good one ended */
};

static struct caller callers[HANDLES * THREADS];

static void *call(void *arg)
{
	struct caller *caller = arg;
	for (int i = 0; caller->rounds ? i < caller->rounds : !atomic_load(&threads_stop); i++) {
		dbha_error err;
		if (run(caller->h, caller->intent, 0, caller->sql, &err) == DBHA_OK) {
			atomic_store(&caller->ok_ms, now_ms());
			atomic_fetch_add(&caller->ok, 1);
		} else {
			caller->err = err;
			atomic_fetch_add(&caller->bad, 1);
		}
	}
	return NULL;
}

static void start_caller(int i, dbha *h, dbha_intent intent, const char *sql, int rounds)
{
	callers[i] = (struct caller){.h = h, .intent = intent, .sql = sql, .rounds = rounds};
	start_thread(call, &callers[i]);
}

START_TEST(statements_that_always_fail_are_sent_again_within_the_budget)
{
	dbha *h = open_handle(cluster_url(
	    &c, "1", "call_timeout=1s&pool_max_size=2&retry_budget=10&retry_backoff=1ms&retry_backoff_max=1ms"));
	int64_t began = now_ms();
	for (int i = 0; i < 4; i++)
		start_caller(i, h, DBHA_WRITE, "SELECT fail(2000000000)", 10);
	join_threads();
	int64_t took = now_ms() - began;
	dbha_counters seen = counters(h, -1);
	/* The bucket: two connections and ten; a tenth of the statements; ten a second. And what threads see a moment late. */
	int64_t most = 2 + 10 + 40 / 10 + took / 100 + 8;
	ck_assert_msg((int64_t)seen.retries <= most, "%d retries in %d ms, at most %d expected", (int)seen.retries,
	              (int)took, (int)most);
	ck_assert_uint_ge(seen.retries, 12);
	ck_assert_uint_eq(seen.retries_refused, 40); /* each of them in the end */
	for (int i = 0; i < 4; i++) {
		ck_assert_int_eq(callers[i].bad, 10);
		ck_assert_int_eq(callers[i].err.code, DBHA_ERR_SERVER);
		ck_assert_str_eq(callers[i].err.sqlstate, "40001");
		ASSERT_HAS(callers[i].err.message, "retry_budget (10 %");
		ck_assert(callers[i].err.retry_safe);
	}
}
END_TEST

START_TEST(a_quiet_handle_may_try_again_after_it_has_spent_all)
{
	dbha *h =
	    open_handle(cluster_url(&c, "1", "pool_max_size=1&retry_budget=1&retry_backoff=1ms&retry_backoff_max=1ms"));
	dbha_error err;
	ASSERT_CODE(run(h, DBHA_WRITE, 10000, "SELECT fail(2000000000)", &err), SERVER, err);
	ck_assert_int_ge(err.attempts, 11);
	/* Fails once and then not: as soon as there is a retry again. */
	char sql[64];
	int64_t end = now_ms() + PATIENCE_MS;
	do {
		short_pause();
		snprintf(sql, sizeof sql, "SELECT fail(%ld)", cluster_count(&c, 1, "SELECT last_value FROM tries") + 2);
	} while (run(h, DBHA_WRITE, 10000, sql, &err) != DBHA_OK && now_ms() < end);
	ck_assert_int_lt(now_ms(), end);
}
END_TEST

START_TEST(a_budget_of_0_is_no_limit)
{
	dbha *h =
	    open_handle(cluster_url(&c, "1", "pool_max_size=1&retry_budget=0&retry_backoff=1ms&retry_backoff_max=1ms"));
	dbha_error err;
	ck_assert_int_ne(run(h, DBHA_WRITE, 1000, "SELECT fail(2000000000)", &err), DBHA_OK);
	ck_assert_int_gt(err.attempts, 40);
	ck_assert_uint_eq(counters(h, -1).retries_refused, 0);
}
END_TEST

/* P6: every statement in flight on the standby fails at one moment, and none of them is refused its second try. */
START_TEST(the_loss_of_standbys_under_load_costs_no_read)
{
	dbha *h = open_handle(cluster_url(&c, NULL, "pool_max_size=10"));
	WAIT_FOR(all_up(h), PATIENCE_MS);
	for (int i = 0; i < 24; i++)
		start_caller(i, h, DBHA_READ, "SELECT pg_sleep(0.002)", 0);
	WAIT_FOR(callers[23].ok > 100, PATIENCE_MS);
	cluster_do(&c, "kill 3");
	cluster_do(&c, "stop 4 fast");
	int after = callers[23].ok;
	WAIT_FOR(callers[23].ok > after + 200, PATIENCE_MS);
	atomic_store(&threads_stop, true);
	join_threads();
	atomic_store(&threads_stop, false);
	for (int i = 0; i < 24; i++)
		ck_assert_msg(callers[i].bad == 0, "%d errors: %s", (int)callers[i].bad, callers[i].err.message);
	dbha_counters seen = counters(h, -1);
	ck_assert_uint_gt(seen.retries, 0);
	ck_assert_uint_eq(seen.retries_refused, 0);
	cluster_do(&c, "start 3");
	cluster_do(&c, "start 4");
}
END_TEST

/* ---- an outage ------------------------------------------------------------------------------------------------------- */

static bool all_served_since(int64_t since)
{
	for (int i = 0; i < HANDLES * THREADS; i++)
		if (atomic_load(&callers[i].ok_ms) <= since)
			return false;
	return true;
}

/*
 * P7: many handles, each with more callers than connections, at a node that dies and comes back. The bounds are generous: a
 * loop that connects until it works, even one that pauses for 100 ms, exceeds them by far.
 */
START_TEST(an_outage_is_no_stampede)
{
	static const int only[] = {1};
	const int size = 3;
	relay_start(&relay, cluster_port(&c, 1));
	for (int i = 0; i < HANDLES; i++) {
		dbha *h = open_handle(url_by_relay(only, 1, 1, "pool_max_size=3&pool_min_size=2&call_timeout=10s"));
		for (int k = 0; k < THREADS; k++)
			start_caller(i * THREADS + k, h, DBHA_WRITE, "SELECT 1 /* a write */", 0);
	}
	WAIT_FOR(all_served_since(0), PATIENCE_MS);
	cluster_do(&c, "kill 1");
	WAIT_FOR(atomic_load(&relay.open) == 0, PATIENCE_MS);

	/* Dead: one prober per handle, not more often than every 50 ms once it has slowed down. */
	long before = atomic_load(&relay.accepted);
	int64_t began = now_ms();
	WAIT_FOR(now_ms() - began >= 3000, 4000);
	long dead = atomic_load(&relay.accepted) - before;
	ck_assert_msg(dead <= HANDLES * (3000 / 50 + 10), "%ld connections in 3 s while the node is dead", dead);
	ck_assert_msg(dead >= HANDLES * 3000 / 500, "%ld: nobody looks whether it comes back", dead);
	printf("herd: %ld connections of %d handles to a dead node in 3 s\n", dead, HANDLES);

	/* Back: as many as are needed, and some of the prober while it starts up. */
	before = atomic_load(&relay.accepted);
	atomic_store(&relay.most_open, 0);
	began = now_ms();
	cluster_do(&c, "start 1");
	int64_t started = now_ms();
	WAIT_FOR(all_served_since(started), PATIENCE_MS);
	int64_t took = now_ms() - began;
	long back = atomic_load(&relay.accepted) - before;
	ck_assert_msg(back <= HANDLES * (size + 1 + 2 + took / 50), "%ld connections in %d ms when it came back", back,
	              (int)took);
	ck_assert_int_le(atomic_load(&relay.most_open), HANDLES * (size + 1));
	printf("herd: %ld connections in the %d ms until all were served, at most %d at a time\n", back, (int)took,
	       atomic_load(&relay.most_open));

	/* And no more afterwards. */
	WAIT_FOR(atomic_load(&relay.open) == HANDLES * (size + 1), PATIENCE_MS);
	before = atomic_load(&relay.accepted);
	int64_t settled = now_ms();
	WAIT_FOR(now_ms() - settled >= 1000, 2000);
	ck_assert_int_le(atomic_load(&relay.accepted) - before, 2);
	for (int i = 0; i < HANDLES * THREADS; i++)
		ck_assert_int_le(atomic_load(&callers[i].bad), size); /* what was in flight when it died */
}
END_TEST

static void *take_one(void *arg)
{
	struct caller *caller = arg;
	dbha_conn *lease = dbha_acquire(caller->h, DBHA_WRITE, 20000, &caller->err);
	atomic_fetch_add(lease ? &caller->ok : &caller->bad, 1);
	while (!atomic_load(&threads_stop))
		short_pause(); /* holds it, so that everybody needs a connection of his own */
	dbha_release(lease);
	return NULL;
}

START_TEST(connects_begin_one_by_one_when_a_node_comes_back)
{
	static const int only[] = {1};
	relay_start(&relay, cluster_port(&c, 1));
	dbha *h = open_handle(url_by_relay(only, 1, 1, "pool_max_size=8&pool_max_connecting=8&pool_min_size=0"));
	WAIT_FOR(all_up(h), PATIENCE_MS);
	cluster_do(&c, "kill 1");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_DOWN, PATIENCE_MS);
	for (int i = 0; i < 8; i++) {
		callers[i] = (struct caller){.h = h};
		start_thread(take_one, &callers[i]);
	}
	/* A connect takes long enough to see what is begun beside it. */
	atomic_store(&relay.delay_ms, 40);
	cluster_do(&c, "start 1");
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_UP, PATIENCE_MS);
	long before = atomic_load(&relay.accepted);
	WAIT_FOR(counters(h, 0).connects > 0, PATIENCE_MS);
	long begun = atomic_load(&relay.accepted) - before;
	/* The first, and the two that it has allowed; a look by the prober. */
	ck_assert_msg(begun <= 4, "%ld connects begun by the time the first was made", begun);
	for (int i = 0; i < 8; i++)
		WAIT_FOR(atomic_load(&callers[i].ok) == 1, PATIENCE_MS);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("herd");
	ADD_TEST(suite, equal_standbys_share_the_reads_and_a_slow_one_gets_less, four_nodes, no_relay, 60);
	ADD_TEST(suite, disable_keeps_the_order_of_the_list, four_nodes, NULL, 60);
	ADD_TEST(suite, a_standby_that_comes_back_takes_its_share_by_and_by, four_nodes, NULL, 60);
	ADD_TEST(suite, statements_that_always_fail_are_sent_again_within_the_budget, four_nodes, NULL, 60);
	ADD_TEST(suite, a_quiet_handle_may_try_again_after_it_has_spent_all, four_nodes, NULL, 60);
	ADD_TEST(suite, a_budget_of_0_is_no_limit, four_nodes, NULL, 30);
	ADD_TEST(suite, the_loss_of_standbys_under_load_costs_no_read, four_nodes, NULL, 60);
	ADD_TEST(suite, an_outage_is_no_stampede, four_nodes, no_relay, 90);
	ADD_TEST(suite, connects_begin_one_by_one_when_a_node_comes_back, four_nodes, no_relay, 60);
	return run_suite(suite, &c);
}
