/*
 * test_bank: counters that go up by one and money that moves between accounts, by 16 threads, while the servers are killed, frozen,
 * stopped, restarted and promoted, their backends terminated and their connections cut. In the end the books must be what the clients
 * were told. Each transaction writes a row with an id of the client's own, which tells afterwards what became of it: one that was said to
 * be committed is there once, one that was said not to be is not, and one of unknown outcome is there once or not at all.
 *
 * DBHA_SEED repeats the faults of a run (their times are the machine's own); BANK_FAULTS says how many.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "cutter.h"
#include "relay.h"
#include "work.h"

#define CLIENTS      16
#define ENTRIES_MAX  40000 /* of one client */
#define COUNTERS     4
#define ACCOUNTS     10
#define FIRST_MONEY  1000
#define TIMEOUT_MS   20000
#define PAUSE_MS     10
#define SWITCHES_MAX 400
#define CUT_BYTES    700 /* a transaction is about so long, in each direction */

/* What the client was told. */
enum told { NOTHING, COMMITTED, ROLLED_BACK, UNKNOWN };

struct entry {
	enum told told;
	bool transfers;
	int from, to, amount; /* a counter is only `to` */
	int64_t began_us, told_us;
	uint64_t lsn; /* behind its first write */
};

struct client {
	int number;
	uint64_t random;
	int n;
	char doubt[200]; /* the last error of unknown outcome */
	struct entry entries[ENTRIES_MAX];
};

/* A promotion: what was written behind `lsn` before is lost, unless it was replicated synchronously. */
struct change {
	int64_t at_us;
	uint64_t lsn;
};

static struct cluster c;
static struct cutter cutters[4]; /* by node */
static struct client clients[CLIENTS];
static dbha *h;
static atomic_bool stop_clients;
static atomic_long committed;
static int primary;
static uint64_t random_state;
static struct change changes[SWITCHES_MAX];
static int n_changes;

static uint64_t next_random(uint64_t *state, uint64_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % below;
}

static int one_of(int below)
{
	return (int)next_random(&random_state, (uint64_t)below);
}

/* ---- clients ------------------------------------------------------------------------------------------------------ */

struct deposit {
	struct entry *entry;
	char id[24];
};

static int change_balance(dbha_session *s, const char *sql, int which, int amount)
{
	char account[16], money[16];
	const char *values[] = {account, money};
	PGresult *result;
	snprintf(account, sizeof account, "%d", which);
	snprintf(money, sizeof money, "%d", amount);
	dbha_request rq = DBHA_REQUEST(.sql = sql, .n_params = 2, .values = values);
	int code = dbha_session_exec(s, &rq, &result, NULL);
	PQclear(result);
	return code;
}

static int write_journal(dbha_session *s, const struct deposit *deposit)
{
	const char *values[] = {deposit->id};
	PGresult *result;
	dbha_request rq = DBHA_REQUEST(.sql = "INSERT INTO journal (id) VALUES ($1)", .n_params = 1, .values = values);
	int code = dbha_session_exec(s, &rq, &result, NULL);
	PQclear(result);
	dbha_session_status status = {.size = sizeof status};
	if (code == DBHA_OK && dbha_session_status_get(s, &status, NULL) == DBHA_OK)
		deposit->entry->lsn = status.lsn;
	return code;
}

static int do_business(dbha_session *s, int attempt, void *argument)
{
	static const char *const count = "UPDATE counters SET n = n + $2::int WHERE id = $1";
	static const char *const move = "UPDATE accounts SET balance = balance + $2::int WHERE id = $1";
	const struct deposit *deposit = argument;
	const struct entry *entry = deposit->entry;
	(void)attempt;
	if (write_journal(s, deposit) != DBHA_OK)
		return 1;
	if (!entry->transfers)
		return change_balance(s, count, entry->to, 1);
	return change_balance(s, move, entry->from, -entry->amount) || change_balance(s, move, entry->to, entry->amount);
}

static void plan(struct client *client, struct entry *entry)
{
	*entry = (struct entry){.began_us = now_us()};
	entry->transfers = next_random(&client->random, 2);
	int places = entry->transfers ? ACCOUNTS : COUNTERS;
	entry->from = (int)next_random(&client->random, (uint64_t)places);
	entry->to = (int)next_random(&client->random, (uint64_t)places);
	entry->amount = 1 + (int)next_random(&client->random, 20);
}

static void *do_much_business(void *arg)
{
	struct client *client = arg;
	while (!atomic_load(&stop_clients) && !atomic_load(&threads_stop) && client->n < ENTRIES_MAX) {
		struct entry *entry = &client->entries[client->n];
		struct deposit deposit = {.entry = entry};
		dbha_error err;
		plan(client, entry);
		snprintf(deposit.id, sizeof deposit.id, "%d", client->number * ENTRIES_MAX + client->n);
		int code = dbha_transaction(h, &DBHA_TRANSACTION(.timeout_ms = TIMEOUT_MS), do_business, &deposit, &err);
		if (code == DBHA_OK)
			entry->told = COMMITTED;
		else
			entry->told = err.outcome_unknown ? UNKNOWN : ROLLED_BACK;
		entry->told_us = now_us();
		if (code == DBHA_OK)
			atomic_fetch_add(&committed, 1);
		if (entry->told == UNKNOWN)
			snprintf(client->doubt, sizeof client->doubt, "%.190s", err.message);
		client->n++;
		poll(NULL, 0, PAUSE_MS);
	}
	return NULL;
}

static void expect_commits(long more)
{
	long from = atomic_load(&committed);
	WAIT_FOR(atomic_load(&committed) >= from + more, 2 * PATIENCE_MS);
}

/* ---- faults ------------------------------------------------------------------------------------------------------- */

static void standbys_stream(void)
{
	WAIT_FOR(cluster_count(&c, primary, "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'") == 2,
	         2 * PATIENCE_MS);
}

static long long received(int node)
{
	return atoll(cluster_ask(&c, node, "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')"));
}

/* Of the two standbys, the one that has more; what is still on its way to either has come. */
static int most_advanced(void)
{
	int a = primary % 3 + 1, b = a % 3 + 1;
	long long of_a, of_b;
	do {
		of_a = received(a);
		of_b = received(b);
		poll(NULL, 0, 10);
	} while (of_a != received(a) || of_b != received(b));
	return of_a >= of_b ? a : b;
}

/* The primary is dead or frozen: the better standby takes over, and the other one follows it. */
static int fail_over(void)
{
	int next = most_advanced(), other = 6 - primary - next;
	struct change *change = &changes[n_changes++];
	ck_assert_int_lt(n_changes, SWITCHES_MAX);
	change->at_us = promote(&c, next);
	change->lsn = (uint64_t)atoll(cluster_ask(&c, next, "SELECT pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')"));
	cluster_do(&c, "follow %d %d", other, next);
	return next;
}

static void rejoin(int next)
{
	cluster_do(&c, "rejoin %d %d", primary, next);
	primary = next;
}

static void kill_and_promote(void)
{
	cluster_do(&c, "kill %d", primary);
	rejoin(fail_over());
}

/* The old primary thaws, believes that it still is one, and is there for a while. */
static void freeze_and_promote(void)
{
	cluster_do(&c, "pause %d", primary);
	int next = fail_over();
	expect_commits(20);
	cluster_do(&c, "resume %d", primary);
	expect_commits(50);
	rejoin(next);
}

/* The primary lets nobody replicate, or does again. */
static void replication(const char *method)
{
	char path[160];
	snprintf(path, sizeof path, "%s/node%d.hba.conf", c.dir, primary);
	FILE *file = fopen(path, "w");
	ck_assert(file != NULL);
	fprintf(file, "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n");
	fprintf(file, "host replication repl 127.0.0.1/32 %s\n", method);
	fclose(file);
}

/* What is committed after the standbys are cut off is lost. */
static void lose_and_promote(void)
{
	replication("reject");
	cluster_ask(&c, primary, "SELECT pg_reload_conf()");
	cluster_ask(&c, primary, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication");
	WAIT_FOR(cluster_count(&c, primary, "SELECT count(*) FROM pg_stat_replication") == 0, PATIENCE_MS);
	expect_commits(100);
	cluster_do(&c, "kill %d", primary);
	replication("scram-sha-256");
	rejoin(fail_over());
}

static void stop_and_promote(void)
{
	cluster_do(&c, "stop %d fast", primary);
	rejoin(fail_over());
}

static void restart(void)
{
	cluster_do(&c, "restart %d", primary);
}

static void crash(void)
{
	cluster_do(&c, "kill %d", primary);
	cluster_do(&c, "start %d", primary);
}

static void terminate_some(void)
{
	for (int i = 0; i < 10; i++) {
		cluster_ask(&c, primary,
		            "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity WHERE usename = "
		            "'app' ORDER BY random() LIMIT %d) AS chosen",
		            1 + one_of(6));
		poll(NULL, 0, one_of(50));
	}
}

static void reset_connections(void)
{
	for (int i = 0; i < 5; i++) {
		cutter_reset_all(&cutters[one_of(2) ? primary : 1 + one_of(3)]);
		poll(NULL, 0, one_of(100));
	}
}

/* Somewhere in the next transaction that begins, again and again. */
static void cut_transactions(void)
{
	static const enum cut_kind kinds[] = {CUT_RESET, CUT_END, CUT_DROP, CUT_DELAY};
	struct cut_report report;
	for (int i = 0; i < 20; i++) {
		struct cut cut = {.marker = "BEGIN", .kind = kinds[one_of(4)], .at = one_of(CUT_BYTES), .delay_ms = 50};
		cut.direction = cut.kind == CUT_DELAY || one_of(2) ? REPLY : REQUEST;
		cutter_arm(&cutters[primary], &cut);
		poll(NULL, 0, 50);
		cutter_disarm(&cutters[primary], &report);
	}
}

static const struct fault {
	const char *name;
	void (*happen)(void);
} faults[] = {
    {"kill and promote", kill_and_promote},
    {"freeze and promote", freeze_and_promote},
    {"stop and promote", stop_and_promote},
    {"restart", restart},
    {"crash", crash},
    {"terminate backends", terminate_some},
    {"reset connections", reset_connections},
    {"cut transactions", cut_transactions},
    {"lose and promote", lose_and_promote}, /* only where nobody waits for a standby */
};
#define FAULTS ((int)(sizeof faults / sizeof faults[0]))

/* Each kind in turn would be a pattern; drawn at random, but each as often as any other. */
static void have_faults(int kinds, int n)
{
	int order[FAULTS];
	for (int i = 0; i < n; i++) {
		for (int k = 0; i % kinds == 0 && k < kinds; k++) {
			int at = one_of(k + 1);
			order[k] = order[at];
			order[at] = k;
		}
		standbys_stream();
		if (getenv("BANK_TRACE"))
			printf("# %.1f s: %s, primary %d, %ld committed\n", (double)now_ms() / 1000, faults[order[i % kinds]].name,
			       primary, atomic_load(&committed));
		faults[order[i % kinds]].happen();
		expect_commits(50);
	}
}

/* ---- the books ---------------------------------------------------------------------------------------------------- */

struct books {
	short rows[CLIENTS * ENTRIES_MAX]; /* of the journal, by id */
	long counted, told[4], present[4]; /* by what was told */
	long twice;
	long lost;        /* said to be committed and absent; of these: */
	long lost_behind; /* ... their first write was behind the switch */
	long lost_late;   /* ... and it was said after the promotion */
	long counters[COUNTERS], accounts[ACCOUNTS];
};

static void read_journal(struct books *books)
{
	PGconn *pg = cluster_admin(&c, primary);
	PGresult *result = PQexec(pg, "SELECT id, count(*) FROM journal GROUP BY id");
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	memset(books, 0, sizeof *books);
	for (int i = 0; i < PQntuples(result); i++)
		books->rows[atol(PQgetvalue(result, i, 0))] = (short)atoi(PQgetvalue(result, i, 1));
	PQclear(result);
	PQfinish(pg);
}

/* The promotion that a lost entry fell victim to: the first one after it was begun. */
static const struct change *change_after(const struct entry *entry)
{
	for (int i = 0; i < n_changes; i++)
		if (entry->began_us < changes[i].at_us)
			return &changes[i];
	return NULL;
}

/* Said to be committed, and absent. A primary that has died since may have said so; one that answered later cannot. */
static void book_lost(struct books *books, const struct entry *entry)
{
	const struct change *change = change_after(entry);
	books->lost++;
	books->lost_behind += change && entry->lsn > change->lsn;
	books->lost_late += !change || entry->told_us > change->at_us;
}

static void book(struct books *books, const struct entry *entry, int rows)
{
	books->told[entry->told]++;
	books->present[entry->told] += rows > 0;
	books->twice += rows > 1;
	if (entry->told == COMMITTED && rows == 0)
		book_lost(books, entry);
	if (rows == 0)
		return;
	if (!entry->transfers)
		books->counters[entry->to]++;
	books->accounts[entry->from] -= entry->transfers ? entry->amount : 0;
	books->accounts[entry->to % ACCOUNTS] += entry->transfers ? entry->amount : 0;
}

static struct books *close_books(void)
{
	static struct books books;
	WAIT_FOR(cluster_count(&c, primary, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'") == 0,
	         PATIENCE_MS);
	read_journal(&books);
	for (int i = 0; i < CLIENTS; i++)
		for (int k = 0; k < clients[i].n; k++)
			book(&books, &clients[i].entries[k], books.rows[i * ENTRIES_MAX + k]);
	return &books;
}

/* Counters and accounts are what the transactions of the journal make them: none was done in half. */
static void expect_sums(const struct books *books)
{
	long sum = 0;
	for (int i = 0; i < COUNTERS; i++)
		ck_assert_int_eq(cluster_count(&c, primary, "SELECT n FROM counters WHERE id = %d", i), books->counters[i]);
	for (int i = 0; i < ACCOUNTS; i++) {
		long balance = cluster_count(&c, primary, "SELECT balance FROM accounts WHERE id = %d", i);
		ck_assert_int_eq(balance, FIRST_MONEY + books->accounts[i]);
		sum += balance;
	}
	ck_assert_int_eq(sum, (long)ACCOUNTS * FIRST_MONEY);
}

/* ---- runs --------------------------------------------------------------------------------------------------------- */

static void make_bank(const char *settings)
{
	cluster_create(&c, settings);
	primary = 1;
	n_changes = 0;
	cluster_ask(&c, 1, "CREATE TABLE journal (id bigint)");
	cluster_ask(&c, 1, "CREATE TABLE counters (id int, n bigint)");
	cluster_ask(&c, 1, "CREATE TABLE accounts (id int, balance bigint)");
	cluster_ask(&c, 1, "INSERT INTO counters SELECT id, 0 FROM generate_series(0, %d) AS id", COUNTERS - 1);
	cluster_ask(&c, 1, "INSERT INTO accounts SELECT id, %d FROM generate_series(0, %d) AS id", FIRST_MONEY,
	            ACCOUNTS - 1);
	cluster_ask(&c, 1, "GRANT ALL ON journal, counters, accounts TO app");
	cluster_all_catch_up(&c);
}

static void open_bank(void)
{
	char hosts[128];
	dbha_error err;
	for (int node = 1; node <= 3; node++)
		cutter_start(&cutters[node], cluster_port(&c, node));
	snprintf(hosts, sizeof hosts, "127.0.0.1:%d,127.0.0.1:%d,127.0.0.1:%d", cutters[1].port, cutters[2].port,
	         cutters[3].port);
	h = open_hosts(&c, hosts, "sslmode=disable&gssencmode=disable&pool_max_size=16");
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
}

static void close_bank(void)
{
	for (int node = 1; node <= 3; node++)
		cutter_stop(&cutters[node]);
	cluster_destroy(&c);
}

static struct books *run_bank(const char *name, int kinds, int n)
{
	pthread_t threads[CLIENTS];
	const char *seed = getenv("DBHA_SEED"), *count = getenv("BANK_FAULTS");
	int64_t began = now_ms();
	random_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)now_us();
	printf("# %s: DBHA_SEED=%llu\n", name, (unsigned long long)random_state);
	n = count ? atoi(count) : n;
	open_bank();
	atomic_store(&stop_clients, false);
	atomic_store(&committed, 0);
	for (int i = 0; i < CLIENTS; i++) {
		clients[i].number = i;
		clients[i].n = 0;
		clients[i].doubt[0] = '\0';
		clients[i].random = random_state + (uint64_t)i + 1;
		threads[i] = start_thread(do_much_business, &clients[i]);
	}
	expect_commits(100);
	have_faults(kinds, n);
	atomic_store(&stop_clients, true);
	for (int i = 0; i < CLIENTS; i++)
		join_thread(threads[i]);
	close_handle(h, 0);
	struct books *books = close_books();
	printf("# %s: %d faults, %d promotions: told committed %ld, of them absent %ld; told not %ld, of them there %ld; "
	       "unknown %ld, "
	       "of them there %ld; twice %ld; %.0f s\n",
	       name, n, n_changes, books->told[COMMITTED], books->lost, books->told[ROLLED_BACK],
	       books->present[ROLLED_BACK], books->told[UNKNOWN], books->present[UNKNOWN], books->twice,
	       (double)(now_ms() - began) / 1000);
	for (int i = 0, shown = 0; i < CLIENTS && shown < 3; i++)
		if (clients[i].doubt[0] && ++shown)
			printf("# unknown: %s\n", clients[i].doubt);
	ck_assert_int_eq(books->twice, 0);
	ck_assert_int_eq(books->lost_late, 0);
	ck_assert_int_eq(books->present[ROLLED_BACK], 0);
	expect_sums(books);
	return books;
}

/* "ANY 1" of all three, and the setting is every node's: whichever is the primary waits for one of the others. */
static void synchronous_bank(void)
{
	make_bank("3 --set synchronous_standby_names=ANY\t1(node1,node2,node3) --set synchronous_commit=local --set "
	          "deadlock_timeout=50ms");
	cluster_ask(&c, 1, "ALTER ROLE app SET synchronous_commit = remote_apply");
}

static void asynchronous_bank(void)
{
	make_bank("3 --set deadlock_timeout=50ms");
}

START_TEST(with_a_synchronous_standby_the_books_are_what_the_clients_were_told)
{
	const struct books *books = run_bank("synchronous", FAULTS - 1, SANITIZED ? 12 : 30);
	ck_assert_int_eq(books->lost, 0);
}
END_TEST

/* What a failover loses was written behind its switch, but for the transactions that were in the middle of it: one a client. */
START_TEST(without_one_only_what_a_failover_loses_is_missing)
{
	const struct books *books = run_bank("asynchronous", FAULTS, FAULTS);
	printf("# asynchronous: lost by failover %ld, begun behind the switch %ld, in the middle of it %ld\n", books->lost,
	       books->lost_behind, books->lost - books->lost_behind);
	ck_assert_int_ge(books->lost_behind, 100);
	ck_assert_int_le(books->lost - books->lost_behind, (long)CLIENTS * n_changes);
}
END_TEST

/*
 * A COMMIT that waits for a standby is done on its own server already. A cancel ends the wait with a warning and the answer "COMMIT",
 * although no standby has it: where it was the library's own cancel, at the deadline of a call, that must not be called done.
 */
START_TEST(a_commit_whose_wait_for_a_standby_is_ended_by_its_deadline_is_not_called_done)
{
	dbha_error err;
	dbha *handle = open_all(&c, NULL);
	standbys_stream();
	replication("reject");
	cluster_ask(&c, 1, "SELECT pg_reload_conf()");
	cluster_ask(&c, 1, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_replication");
	WAIT_FOR(cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_replication") == 0, PATIENCE_MS);
	int single = run(handle, DBHA_WRITE, 400, "INSERT INTO journal VALUES (1)", &err);
	printf("# dbha_exec: %s\n", single ? err.message : "OK");
	bool single_unknown = single && err.outcome_unknown;
	dbha_session *s = dbha_session_open(handle, &err);
	PGresult *result;
	ASSERT_OK(dbha_session_begin(s, NULL, &err), err);
	ASSERT_OK(dbha_session_exec(s, &DBHA_REQUEST(.sql = "INSERT INTO journal VALUES (2)"), &result, &err), err);
	PQclear(result);
	int commit = dbha_session_commit(s, 400, &err);
	printf("# dbha_session_commit: %s\n", commit ? err.message : "OK");
	bool commit_unknown = commit && err.outcome_unknown;
	dbha_session_close(s);
	cluster_do(&c, "kill 1");
	promote(&c, 2);
	long there = cluster_count(&c, 2, "SELECT count(*) FROM journal WHERE id IN (1, 2)");
	ck_assert_int_eq(there, 0);
	ck_assert_msg(single_unknown, "dbha_exec said %s of a row that is gone", dbha_code_name(single));
	ck_assert_msg(commit_unknown, "dbha_session_commit said %s of a row that is gone", dbha_code_name(commit));
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("bank");
	const char *count = getenv("BANK_FAULTS");
	int limit_s = count ? 60 + 15 * atoi(count) : 240;
	ADD_TEST(suite, with_a_synchronous_standby_the_books_are_what_the_clients_were_told, synchronous_bank, close_bank,
	         limit_s);
	ADD_TEST(suite, without_one_only_what_a_failover_loses_is_missing, asynchronous_bank, close_bank, limit_s);
	ADD_TEST(suite, a_commit_whose_wait_for_a_standby_is_ended_by_its_deadline_is_not_called_done, synchronous_bank,
	         close_bank, 60);
	return run_suite(suite, &c);
}
