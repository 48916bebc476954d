/*
 * test_consistency: sixteen sessions read and write (witness.h says what they demand) while replay is held back, paused and frozen,
 * standbys crash and come back with less than they had shown, and primaries die. With consistency=session nothing of that may show. With
 * consistency=eventual it has to: a checker that finds nothing there would find nothing anywhere.
 *
 * Where a failover loses writes, that is said once, and reads go on.
 *
 * CHECK_READS says how many reads at least (a long run: 200000, with four failovers); DBHA_SEED repeats the disturbances of a run.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cluster.h"
#include "talk.h"
#include "witness.h"
#include "work.h"

#define READS          (SANITIZED ? 20000 : 100000)
#define READS_FAILOVER 50000 /* one in so many */
#define DISTURBANCES   8     /* at least so many between two of them, too */

static struct cluster c;
static int primary;
static uint64_t random_state;

static long wanted_reads(void)
{
	return getenv("CHECK_READS") ? atol(getenv("CHECK_READS")) : READS;
}

static int one_of(int below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (int)((random_state >> 11) % (uint64_t)below);
}

static void seed(const char *name)
{
	const char *text = getenv("DBHA_SEED");
	random_state = text ? strtoull(text, NULL, 10) : (uint64_t)now_us();
	printf("# %s: DBHA_SEED=%llu\n", name, (unsigned long long)random_state);
}

/* ---- disturbances -------------------------------------------------------------------------------------------------- */

/* One standby has its replay delayed, the other one paused. */
static int delayed(void)
{
	return primary == 1 ? 2 : 1;
}

static int paused(void)
{
	return 6 - primary - delayed();
}

static int either(void)
{
	return one_of(2) ? delayed() : paused();
}

static void standbys_stream(void)
{
	WAIT_FOR(cluster_count(&c, primary, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2,
	         2 * PATIENCE_MS);
}

/* In the node's own file, which a base backup does not take to another node. */
static void set_delay(int node, int ms)
{
	char path[160];
	snprintf(path, sizeof path, "%s/node%d.sync.conf", c.dir, node);
	FILE *file = fopen(path, "w");
	ck_assert(file != NULL);
	fprintf(file, "recovery_min_apply_delay = %d\n", ms);
	fclose(file);
}

static void delay(void)
{
	static const int delays[] = {0, 5, 30, 100, 500, 2000};
	set_delay(delayed(), delays[one_of(6)]);
	cluster_ask(&c, delayed(), "SELECT pg_reload_conf()");
	poll(NULL, 0, one_of(300));
}

static void pause_replay(void)
{
	int node = paused();
	cluster_ask(&c, node, "SELECT pg_wal_replay_pause()");
	poll(NULL, 0, one_of(400));
	cluster_ask(&c, node, "SELECT pg_wal_replay_resume()");
}

static void freeze(void)
{
	int node = either();
	cluster_do(&c, "pause %d", node);
	poll(NULL, 0, one_of(300));
	cluster_do(&c, "resume %d", node);
}

/*
 * A standby that crashes comes back with what it had on disk: less than it had shown. Replaying the rest is held back, so that there
 * is time to see it.
 */
static void crash_standby(void)
{
	int node = either();
	cluster_do(&c, "kill %d", node);
	set_delay(node, 3000);
	cluster_do(&c, "start %d", node);
	poll(NULL, 0, one_of(500));
	set_delay(node, 0);
	cluster_ask(&c, node, "SELECT pg_reload_conf()");
	standbys_stream();
}

/* The same server, other connections. */
static void cut_connections(void)
{
	cluster_ask(&c, either(), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'");
}

/* What a standby has, once nothing more can come. A dead receiver's last bytes may be replayed before they count as received. */
static long long received(int node)
{
	return atoll(cluster_ask(
	    &c, node, "SELECT pg_wal_lsn_diff(greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')"));
}

static bool receives(int node)
{
	return cluster_count(&c, node, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") > 0;
}

/* Of the two standbys, the one that has more. The primary is dead: its last bytes have come once the receiver has met their end. */
static int most_advanced(void)
{
	WAIT_FOR(!receives(delayed()) && !receives(paused()), PATIENCE_MS);
	return received(delayed()) >= received(paused()) ? delayed() : paused();
}

static void fail_over(void)
{
	standbys_stream();
	cluster_do(&c, "pause %d", primary);
	cluster_do(&c, "kill %d", primary);
	int next = most_advanced(), other = 6 - primary - next, old = primary;
	promote(&c, next);
	cluster_do(&c, "follow %d %d", other, next);
	primary = next;
	long from = atomic_load(&witness_reads);
	WAIT_FOR(atomic_load(&witness_reads) > from + 200, PATIENCE_MS);
	set_delay(old, 0);
	cluster_do(&c, "rejoin %d %d", old, next);
	standbys_stream();
}

static void disturb(void)
{
	static void (*const disturbances[])(void) = {delay,  delay,         pause_replay,   pause_replay,
	                                             freeze, crash_standby, cut_connections};
	disturbances[one_of(7)]();
}

/* Until there are enough reads and failovers; the failovers are spread over the reads. */
static void disturb_until(long reads, int failovers)
{
	int64_t end = now_ms() + 30000 + reads; /* a ms each, and more */
	for (int parts = 1; parts <= failovers + 1; parts++) {
		for (int n = 0; n < DISTURBANCES || atomic_load(&witness_reads) < reads * parts / (failovers + 1); n++) {
			ck_assert_msg(now_ms() < end, "only %ld reads in all this time", atomic_load(&witness_reads));
			disturb();
		}
		if (parts <= failovers)
			fail_over();
	}
}

/* ---- another process ------------------------------------------------------------------------------------------------ */

/* It gets a token, and answers with what it sees. */
struct order {
	char token[DBHA_TOKEN_MAX];
	struct past known;
};

struct answer {
	int code;
	bool by_primary;
	char message[200];
	struct past shown;
};

static struct foreigner {
	pid_t pid;
	int orders, answers; /* our ends of two pipes */
	pthread_t courier;
	atomic_bool stop;
	long asked, errors, behind, early;
	char first[300];
} foreigner;

static void answer_order(dbha *h, const struct order *order, struct answer *answer)
{
	PGresult *result;
	dbha_error err;
	dbha_result_route route = {.size = sizeof route};
	dbha_request rq = DBHA_REQUEST(.sql = witness_read_sql, .intent = DBHA_READ, .timeout_ms = 25000,
	                               .token = order->token, .route = &route);
	answer->code = dbha_exec(h, &rq, &result, &err);
	if (answer->code != DBHA_OK)
		snprintf(answer->message, sizeof answer->message, "%.190s", err.message);
	else if (!past_parse(PQgetvalue(result, 0, 0), &answer->shown))
		answer->code = -1;
	answer->by_primary = route.role == DBHA_ROLE_PRIMARY;
	PQclear(result);
}

/* Ends when the pipe does, which it does with our process. */
_Noreturn static void be_foreigner(const char *url, int orders, int answers)
{
	struct order order;
	dbha *h = dbha_open(url, NULL);
	while (h && read(orders, &order, sizeof order) == sizeof order) {
		struct answer answer = {.code = -1};
		answer_order(h, &order, &answer);
		if (write(answers, &answer, sizeof answer) != sizeof answer)
			break;
	}
	dbha_close(h, 0);
	_exit(0);
}

static bool ask_foreigner(const struct order *order, struct answer *answer)
{
	foreigner.asked++;
	return write(foreigner.orders, order, sizeof *order) == sizeof *order &&
	       read(foreigner.answers, answer, sizeof *answer) == sizeof *answer;
}

/* Where the primary is early (witness.h), it is asked again until it is not. */
static bool carry(const struct order *order)
{
	struct answer answer;
	enum compared compared;
	int row = -1;
	int64_t end = now_ms() + PATIENCE_MS;
	do {
		if (!ask_foreigner(order, &answer))
			return false;
		compared = answer.code ? HOLDS : past_compare(&answer.shown, &order->known, answer.by_primary, &row);
		foreigner.early += compared == EARLY;
	} while (compared == EARLY && now_ms() < end);
	foreigner.errors += answer.code != DBHA_OK;
	foreigner.behind += compared != HOLDS;
	if (!foreigner.first[0] && (answer.code != DBHA_OK || compared != HOLDS))
		snprintf(foreigner.first, sizeof foreigner.first, "code %d %.190s; row %d", answer.code, answer.message, row);
	return true;
}

static void *carry_tokens(void *arg)
{
	uint64_t random = 4711;
	struct order order;
	bool there = true;
	(void)arg;
	while (there && !atomic_load(&foreigner.stop) && !atomic_load(&threads_stop)) {
		if (token_given(&random, order.token, &order.known))
			there = carry(&order);
		short_pause();
	}
	foreigner.errors += !there;
	return NULL;
}

/* Before there is any thread. */
static void foreigner_start(const char *url)
{
	int orders[2], answers[2];
	memset(&foreigner, 0, sizeof foreigner);
	ck_assert_int_eq(pipe(orders), 0);
	ck_assert_int_eq(pipe(answers), 0);
	foreigner.pid = fork();
	ck_assert_int_ge(foreigner.pid, 0);
	if (foreigner.pid == 0) {
		close(orders[1]);
		close(answers[0]);
		close(c.keeper_fd);
		be_foreigner(url, orders[0], answers[1]);
	}
	close(orders[0]);
	close(answers[1]);
	foreigner.orders = orders[1];
	foreigner.answers = answers[0];
}

static void foreigner_stop(void)
{
	atomic_store(&foreigner.stop, true);
	join_thread(foreigner.courier);
	close(foreigner.orders);
	close(foreigner.answers);
	waitpid(foreigner.pid, NULL, 0);
	printf("# another process: %ld reads with a token, %ld behind it, %ld early, %ld errors%s%s\n", foreigner.asked,
	       foreigner.behind, foreigner.early, foreigner.errors, foreigner.first[0] ? ": " : "", foreigner.first);
}

/* ---- clusters ------------------------------------------------------------------------------------------------------- */

static void made(const char *arguments)
{
	cluster_create(&c, arguments);
	primary = 1;
	witness_table(&c);
	/* Who may read pg_stat_wal_receiver knows a standby's timeline at once. */
	cluster_ask(&c, 1, "GRANT pg_read_all_stats TO app");
	cluster_all_catch_up(&c);
}

/* Whichever is the primary waits for one of the others to have written it, which is far from having replayed it. */
static void synchronous_cluster(void)
{
	made("3 --set synchronous_standby_names=ANY\t1(node1,node2,node3) --set synchronous_commit=local");
	cluster_ask(&c, 1, "ALTER ROLE app SET synchronous_commit = remote_write");
	cluster_all_catch_up(&c);
}

static void asynchronous_cluster(void)
{
	made("3");
}

/* A standby that crashes has the table at least. (Where reads are to be right, it need not have.) */
static void cluster_with_a_checkpoint(void)
{
	asynchronous_cluster();
	cluster_ask(&c, 1, "CHECKPOINT");
	cluster_all_catch_up(&c);
	cluster_ask(&c, 2, "CHECKPOINT");
	cluster_ask(&c, 3, "CHECKPOINT");
}

static void no_cluster(void)
{
	cluster_destroy(&c);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void expect_none(const struct tally *t)
{
	ck_assert_int_eq(t->own_writes, 0);
	ck_assert_int_eq(t->backwards, 0);
	ck_assert_int_eq(t->lost, 0);
	ck_assert_int_eq(t->wrong, 0);
}

/* An error proves nothing, and the primary is never behind: most of it has to be answers, and many of them from standbys. */
static void expect_answers(const struct tally *t, int failovers)
{
	ck_assert_int_le(t->read_errors, WITNESSES * (1 + failovers));
	ck_assert_int_le(t->write_errors, WITNESSES * (1 + failovers));
	ck_assert_int_ge(t->from_standby, t->reads / 4);
	ck_assert_int_gt(t->token_reads, 0);
	ck_assert_int_gt(t->taken, 0);
}

START_TEST(a_session_sees_what_it_has_written_and_never_goes_back)
{
	long reads = wanted_reads();
	int failovers = reads / READS_FAILOVER > 1 ? (int)(reads / READS_FAILOVER) : 1;
	seed("session");
	foreigner_start(cluster_url(&c, NULL, NULL));
	dbha *handles[] = {open_all(&c, NULL), open_all(&c, "pool_max_size=3"), open_all(&c, "monitor=off"),
	                   open_all(&c, "max_wait=50ms")};
	int64_t began = now_ms();
	witnesses_start(handles, 4, random_state, true);
	foreigner.courier = start_thread(carry_tokens, NULL);
	disturb_until(reads, failovers);
	witnesses_stop();
	foreigner_stop();
	struct tally t = witnesses_tally("session");
	printf("# session: %d failovers, %.1f s\n", failovers, (double)(now_ms() - began) / 1000);
	expect_none(&t);
	expect_answers(&t, failovers);
	ck_assert_int_gt(foreigner.asked, 0);
	ck_assert_int_eq(foreigner.behind, 0);
	ck_assert_int_le(foreigner.errors, failovers);
}
END_TEST

/* The same witnesses, and what they have to find. */
START_TEST(the_same_sessions_find_violations_where_consistency_is_eventual)
{
	seed("eventual");
	dbha *handles[] = {open_all(&c, "consistency=eventual")};
	witnesses_start(handles, 1, random_state, false);
	disturb_until(4000, 0);
	witnesses_stop();
	struct tally t = witnesses_tally("eventual");
	ck_assert_int_gt(t.own_writes, 0);
	ck_assert_int_gt(t.backwards, 0);
	ck_assert_int_eq(t.lost, 0);
	ck_assert_int_eq(t.wrong, 0);
	ck_assert_int_ge(t.from_standby, t.reads / 2);
}
END_TEST

/* ---- writes that are lost -------------------------------------------------------------------------------------------- */

/* Nobody replicates from the node any more, or may again. */
static void replication(int node, const char *method)
{
	char path[160];
	snprintf(path, sizeof path, "%s/node%d.hba.conf", c.dir, node);
	FILE *file = fopen(path, "w");
	ck_assert(file != NULL);
	fprintf(file, "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
	fprintf(file, "host replication repl 127.0.0.1/32 %s\n", method);
	fclose(file);
}

static void cut_off(void)
{
	replication(primary, "reject");
	cluster_ask(&c, primary, "SELECT pg_reload_conf()");
	cluster_ask(&c, primary, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication");
	WAIT_FOR(cluster_count(&c, primary, "SELECT count(*) FROM pg_stat_replication") == 0, PATIENCE_MS);
}

/* What was written since cut_off() is gone. The old primary comes back as a standby. */
static void lose(void)
{
	int next = delayed(), other = paused(), old = primary;
	cluster_do(&c, "kill %d", old);
	promote(&c, next);
	cluster_do(&c, "follow %d %d", other, next);
	replication(old, "scram-sha-256");
	cluster_do(&c, "rejoin %d %d", old, next);
	primary = next;
	standbys_stream();
}

static int lost_events(dbha *h)
{
	dbha_event event = {.size = sizeof event};
	int n = 0;
	while (dbha_next_event(h, &event, NULL) == 1) {
		n += event.kind == DBHA_EVENT_LOST_WRITES;
		if (event.kind == DBHA_EVENT_LOST_WRITES)
			printf("# %s\n", event.text);
	}
	return n;
}

static long own_row(dbha_session *s, int row, dbha_result_route *route)
{
	char sql[64];
	PGresult *result;
	dbha_error err;
	snprintf(sql, sizeof sql, "SELECT n FROM rows WHERE id = %d", row);
	dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = DBHA_READ, .timeout_ms = 20000, .route = route);
	ASSERT_OK(dbha_session_exec(s, &rq, &result, &err), err);
	long n = atol(PQgetvalue(result, 0, 0));
	PQclear(result);
	return n;
}

/* By a standby, within a bounded time; what it is then. */
static long own_row_by_standby(dbha_session *s, int row)
{
	dbha_result_route route = {.size = sizeof route};
	long n = -1;
	WAIT_FOR((n = own_row(s, row, &route)) >= 0 && route.role == DBHA_ROLE_STANDBY, PATIENCE_MS);
	return n;
}

static void add_one(dbha_session *s, int row)
{
	char sql[64];
	PGresult *result;
	dbha_error err;
	snprintf(sql, sizeof sql, "UPDATE rows SET n = n + 1 WHERE id = %d", row);
	ASSERT_OK(dbha_session_exec(s, &DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE), &result, &err), err);
	PQclear(result);
}

/* Two handles know of the lost writes, one by a session of its own and by a token; a third one does not. */
static void lose_and_read(dbha *const h[3], dbha_session *const s[4])
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	long before[4], n;
	for (int i = 0; i < 4; i++) {
		add_one(s[i], i);
		before[i] = own_row(s[i], i, NULL);
	}
	cluster_catch_up(&c, delayed(), primary);
	cluster_catch_up(&c, paused(), primary);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(own_row_by_standby(s[i], i), before[i]);
	cut_off();
	for (int i = 0; i < 2; i++) {
		add_one(s[i], i);
		ck_assert_int_eq(own_row(s[i], i, NULL), before[i] + 1);
	}
	ASSERT_OK(dbha_session_token(s[0], token, 0, &err), err);
	ASSERT_OK(dbha_session_set_token(s[2], token, &err), err);
	lose();
	/* It is found out by whatever comes first, be it a write, and be the new primary an old acquaintance of the handle. */
	ASSERT_OK(run(h[1], DBHA_WRITE, 20000, "SELECT 1", &err), err);
	add_one(s[2], 2);
	before[2]++;
	for (int round = 0; round < 3; round++)
		for (int i = 0; i < 4; i++)
			ck_assert_int_eq(own_row(s[i], i, NULL), before[i]);
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(own_row_by_standby(s[i], i), before[i]);
	PGresult *result;
	dbha_request rq = DBHA_REQUEST(.sql = witness_read_sql, .intent = DBHA_READ, .token = token);
	ASSERT_OK(dbha_exec(h[0], &rq, &result, &err), err);
	PQclear(result);
	add_one(s[0], 0);
	n = own_row(s[0], 0, NULL);
	ck_assert_int_eq(n, before[0] + 1);
	ck_assert_int_eq(lost_events(h[0]), 1);
	ck_assert_int_eq(lost_events(h[1]), 1);
	ck_assert_int_eq(lost_events(h[2]), 0);
}

START_TEST(what_a_failover_has_lost_is_reported_once_and_reads_go_on)
{
	dbha *h[3];
	dbha_session *s[4];
	for (int i = 0; i < 3; i++)
		h[i] = open_all(&c, i == 1 ? "monitor=off" : NULL);
	s[0] = talk_open(h[0]);
	s[1] = talk_open(h[0]);
	s[2] = talk_open(h[1]);
	s[3] = talk_open(h[2]);
	lose_and_read(h, s);
	lose_and_read(h, s);
	for (int i = 0; i < 4; i++)
		dbha_session_close(s[i]);
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("consistency");
	ADD_TEST(suite, the_same_sessions_find_violations_where_consistency_is_eventual, cluster_with_a_checkpoint,
	         no_cluster, 120);
	ADD_TEST(suite, what_a_failover_has_lost_is_reported_once_and_reads_go_on, asynchronous_cluster, no_cluster, 120);
	ADD_TEST(suite, a_session_sees_what_it_has_written_and_never_goes_back, synchronous_cluster, no_cluster,
	         120 + (int)(wanted_reads() / 200));
	return run_suite(suite, &c);
}
