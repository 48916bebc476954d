/*
 * test_resolve: what became of a transaction whose COMMIT was lost, on real servers that are killed, restarted and promoted. The
 * transactions run over plain libpq, their marks are taken as a session takes them, and what is asked afterwards is dbha__resolve.
 * The truth is what the servers' tables say.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "clock.h"
#include "cluster.h"
#include "life.h"
#include "mark.h"
#include "outcome_table.h"
#include "resolve.h"
#include "xactstatus.h"

static struct cluster c;

static void servers(void)
{
	cluster_intact_with_rows(&c, "3 --set wal_writer_delay=10000", "id bigint");
}

/* ---- transactions ------------------------------------------------------------------------------------------------ */

struct xact {
	PGconn *pg;
	struct xact_mark mark;
	char token[OUTCOME_TOKEN_MAX];
};

static void sql(PGconn *pg, const char *text)
{
	PGresult *result = PQexec(pg, text);
	ExecStatusType status = PQresultStatus(result);
	ck_assert_msg(status == PGRES_COMMAND_OK || status == PGRES_TUPLES_OK, "%s: %s", text, PQerrorMessage(pg));
	PQclear(result);
}

/* A server that crashes says so to everybody. */
static void ignore(void *arg, const char *message)
{
	(void)arg;
	(void)message;
}

static PGconn *connect_to(int node)
{
	char order[4];
	snprintf(order, sizeof order, "%d", node);
	PGconn *pg = PQconnectdb(cluster_url(&c, order, NULL));
	ck_assert_msg(PQstatus(pg) == CONNECTION_OK, "node %d: %s", node, PQerrorMessage(pg));
	PQsetNoticeProcessor(pg, ignore, NULL);
	return pg;
}

static void take_mark(struct xact *x)
{
	PGresult *result = PQexec(x->pg, dbha__mark_sql());
	ck_assert_msg(dbha__mark_read(result, &x->mark), "no mark: %s", PQerrorMessage(x->pg));
	PQclear(result);
}

/* BEGIN, a row, its mark. */
static struct xact begin_row(int node, int id)
{
	struct xact x = {.pg = connect_to(node)};
	char text[80];
	snprintf(text, sizeof text, "INSERT INTO rows (id) VALUES (%d)", id);
	sql(x.pg, "BEGIN");
	sql(x.pg, text);
	take_mark(&x);
	return x;
}

/* A row in the outcome table, as a session with that option writes it. */
static void write_token(struct xact *x, int id, const char *table)
{
	char text[OUTCOME_SQL_MAX];
	const char *params[] = {x->token};
	dbha__outcome_token(0xdba, (uint64_t)id, x->token);
	dbha__outcome_table_insert(table, text);
	PGresult *result = PQexecParams(x->pg, text, 1, NULL, params, NULL, NULL, 0);
	ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQerrorMessage(x->pg));
	PQclear(result);
}

static struct xact begin_row_with_token(int node, int id, const char *table)
{
	struct xact x = begin_row(node, id);
	write_token(&x, id, table);
	return x;
}

static void commit(struct xact *x)
{
	sql(x->pg, "COMMIT");
	PQfinish(x->pg);
	x->pg = NULL;
}

static struct xact committed_row(int node, int id)
{
	struct xact x = begin_row(node, id);
	commit(&x);
	return x;
}

static bool has_row(int node, int id)
{
	return cluster_count(&c, node, "SELECT count(*) FROM rows WHERE id = %d", id) > 0;
}

/* Unrelated writes until the number has been given out again, and committed. */
static void use_again(int node, uint64_t xid)
{
	PGconn *pg = cluster_admin(&c, node);
	for (int i = 0; i < 200; i++) {
		sql(pg, "INSERT INTO rows (id) VALUES (-1)");
		if ((uint64_t)cluster_count(&c, node, "SELECT pg_snapshot_xmax(pg_current_snapshot())") > xid)
			break;
	}
	PQfinish(pg);
	ck_assert_str_eq(cluster_ask(&c, node, "SELECT pg_xact_status('%" PRIu64 "')", xid), "committed");
}

/* ---- asking ------------------------------------------------------------------------------------------------------ */

static char why[DBHA_MESSAGE_MAX];
static char where[DBHA_NODE_NAME_MAX];

static enum outcome resolve_with(dbha *h, const struct xact *x, int timeout_ms)
{
	dbha_error err;
	struct resolve what = {
	    .mark = &x->mark,
	    .deadline = dbha__clock_now() + ms_to_us(timeout_ms),
	    .token = x->token[0] ? x->token : NULL,
	};
	ASSERT_OK(dbha__life_enter(h, &err), err);
	enum outcome outcome = dbha__resolve(h, &what, why, sizeof why, where);
	dbha__life_leave(h);
	return outcome;
}

static enum outcome resolve(dbha *h, const struct xact *x)
{
	return resolve_with(h, x, PATIENCE_MS);
}

static const char *const outcomes[] = {"committed", "aborted", "unknown"};
#define ASSERT_OUTCOME(got, expected)                                                                                  \
	do {                                                                                                               \
		enum outcome got_outcome = (got);                                                                              \
		ck_assert_msg(got_outcome == OUTCOME_##expected, "%s: %s", outcomes[got_outcome], why);                        \
	} while (0)

/* ---- on the server where it ran ---------------------------------------------------------------------------------- */

START_TEST(the_status_of_a_living_primary_is_believed)
{
	dbha *h = open_all(&c, NULL);
	struct xact x = committed_row(1, 1);
	ASSERT_OUTCOME(resolve(h, &x), COMMITTED);
	ASSERT_HAS(where, ":");

	struct xact y = begin_row(1, 2);
	sql(y.pg, "ROLLBACK");
	ASSERT_OUTCOME(resolve(h, &y), ABORTED);

	/* The connection goes before COMMIT: the server rolls back when it notices. */
	struct xact z = begin_row(1, 3);
	PQfinish(z.pg);
	ASSERT_OUTCOME(resolve(h, &z), ABORTED);

	/* With savepoints the number is that of the whole transaction, also where only its parts have written. */
	struct xact s = {.pg = connect_to(1)};
	sql(s.pg, "BEGIN; SAVEPOINT a; INSERT INTO rows (id) VALUES (4); ROLLBACK TO a; INSERT INTO rows (id) VALUES (5)");
	take_mark(&s);
	sql(s.pg, "COMMIT");
	ASSERT_OUTCOME(resolve(h, &s), COMMITTED);
	PQfinish(s.pg);
	PQfinish(y.pg);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(a_transaction_that_has_not_written_has_no_mark)
{
	struct xact x = {.pg = connect_to(1)};
	sql(x.pg, "BEGIN");
	sql(x.pg, "SELECT * FROM rows");
	PGresult *result = PQexec(x.pg, dbha__mark_sql());
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	ck_assert(!dbha__mark_read(result, &x.mark));
	PQclear(result);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT backend_xid FROM pg_stat_activity WHERE pid = %d", PQbackendPID(x.pg)),
	                 "");
	PQfinish(x.pg);
	/* On a standby it is no error either. */
	x.pg = connect_to(2);
	result = PQexec(x.pg, dbha__mark_sql());
	ck_assert_int_eq(PQresultStatus(result), PGRES_TUPLES_OK);
	ck_assert(!dbha__mark_read(result, &x.mark));
	PQclear(result);
	PQfinish(x.pg);
	cluster_as_before(&c, open_all(&c, NULL));
}
END_TEST

struct asking {
	dbha *h;
	struct xact x;
	enum outcome outcome;
};

static void *ask_in_thread(void *arg)
{
	struct asking *asking = arg;
	struct resolve what = {.mark = &asking->x.mark, .deadline = dbha__clock_now() + ms_to_us(PATIENCE_MS)};
	dbha_error err;
	asking->outcome = OUTCOME_UNKNOWN;
	if (dbha__life_enter(asking->h, &err) != DBHA_OK)
		return NULL;
	asking->outcome = dbha__resolve(asking->h, &what, why, sizeof why, where);
	dbha__life_leave(asking->h);
	return NULL;
}

START_TEST(one_in_progress_is_waited_for)
{
	static struct asking asking;
	dbha *h = open_all(&c, NULL);
	asking = (struct asking){.h = h, .x = begin_row(1, 1)};
	int64_t began = now_ms();
	ASSERT_OUTCOME(resolve_with(h, &asking.x, 300), UNKNOWN);
	ck_assert_int_ge(now_ms() - began, 300);
	ck_assert_int_le(now_ms() - began, 300 + SLACK_MS);
	char number[40];
	snprintf(number, sizeof number, "transaction %" PRIu64 " at ", asking.x.mark.xid);
	ASSERT_HAS(why, "in progress");
	ASSERT_HAS(why, number);

	pthread_t thread = start_thread(ask_in_thread, &asking);
	WAIT_FOR(cluster_count(&c, 1,
	                       "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND query ~ 'pg_xact_status' "
	                       "AND backend_start > now() - interval '1 hour'") > 0,
	         PATIENCE_MS);
	commit(&asking.x);
	join_thread(thread);
	ASSERT_OUTCOME(asking.outcome, COMMITTED);
	cluster_as_before(&c, h);
}
END_TEST

START_TEST(one_in_progress_is_ended_where_that_is_wanted)
{
	dbha *h = open_all(&c, "commit_terminate=on");
	struct xact x = begin_row(1, 1);
	int64_t began = now_ms();
	ASSERT_OUTCOME(resolve_with(h, &x, 1000), ABORTED);
	ck_assert_int_ge(now_ms() - began, 500);
	ck_assert_int_lt(now_ms() - began, 1000);
	ck_assert(!has_row(1, 1));
	PQfinish(x.pg);

	/* A backend that does not run this very transaction is left alone. */
	struct xact y = begin_row(1, 2), other = begin_row(1, 3);
	int pid = y.mark.pid;
	y.mark.pid = other.mark.pid;
	ASSERT_OUTCOME(resolve_with(h, &y, 400), UNKNOWN);
	ck_assert_int_eq(
	    cluster_count(&c, 1, "SELECT count(*) FROM pg_stat_activity WHERE pid IN (%d, %d)", pid, other.mark.pid), 2);
	commit(&other);
	commit(&y);
	ASSERT_OUTCOME(resolve(h, &y), COMMITTED);
	cluster_as_before(&c, h);
}
END_TEST

/* ---- promotions -------------------------------------------------------------------------------------------------- */

/* No WAL comes to the standbys any more, as if the network between the servers were cut. */
static void cut_off_standbys(void)
{
	for (int node = 2; node <= 3; node++) {
		cluster_ask(&c, node, "ALTER SYSTEM SET primary_conninfo = ''");
		cluster_ask(&c, node, "SELECT pg_reload_conf()");
	}
	for (int node = 2; node <= 3; node++)
		WAIT_FOR(cluster_count(&c, node, "SELECT count(*) FROM pg_stat_wal_receiver") == 0, PATIENCE_MS);
}

static void follow_again(int node, int primary)
{
	cluster_ask(&c, node, "ALTER SYSTEM RESET primary_conninfo");
	cluster_do(&c, "follow %d %d", node, primary);
	WAIT_FOR(cluster_count(&c, node, "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'") == 1,
	         PATIENCE_MS);
}

static void promote_and_wait(dbha *h, int node, int index)
{
	cluster_do(&c, "promote %d", node);
	WAIT_FOR(cluster_status(h).primary == index, PATIENCE_MS);
}

START_TEST(after_a_promotion_the_position_decides)
{
	dbha *h = open_all(&c, NULL);
	struct xact kept = committed_row(1, 1);
	struct xact open = begin_row(1, 2);
	cluster_all_catch_up(&c);
	cut_off_standbys();
	struct xact lost[3];
	for (int i = 0; i < 3; i++)
		lost[i] = committed_row(1, 10 + i);
	cluster_do(&c, "kill 1");
	promote_and_wait(h, 2, 1);

	/* At first nobody has had their numbers there, then others have. */
	ASSERT_OUTCOME(resolve(h, &lost[0]), ABORTED);
	use_again(2, lost[2].mark.xid);
	for (int i = 0; i < 3; i++) {
		ck_assert_str_eq(cluster_ask(&c, 2, "SELECT pg_xact_status('%" PRIu64 "')", lost[i].mark.xid), "committed");
		ASSERT_OUTCOME(resolve(h, &lost[i]), ABORTED);
		ASSERT_HAS(why, "not in this history");
		ck_assert(!has_row(2, 10 + i));
	}
	ASSERT_OUTCOME(resolve(h, &kept), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &open), ABORTED);
	ck_assert(has_row(2, 1) && !has_row(2, 2));

	/* Who was not there can say that a transaction is lost, and not that another one is not. */
	dbha *late = open_handle(cluster_url(&c, NULL, NULL)), *poor = open_handle(cluster_url(&c, NULL, "monitor=off"));
	ASSERT_OUTCOME(resolve(late, &lost[1]), ABORTED);
	ASSERT_OUTCOME(resolve(poor, &lost[1]), ABORTED);
	ASSERT_OUTCOME(resolve(late, &open), ABORTED);
	ASSERT_OUTCOME(resolve(late, &kept), UNKNOWN);
	ASSERT_HAS(why, "used again");
	PQfinish(open.pg);
}
END_TEST

START_TEST(two_promotions_in_a_row_are_followed)
{
	dbha *h = open_all(&c, NULL);
	struct xact old = committed_row(1, 1);
	cluster_all_catch_up(&c);
	cut_off_standbys();
	struct xact lost_first = committed_row(1, 2);
	cluster_do(&c, "kill 1");
	promote_and_wait(h, 2, 1);
	follow_again(3, 2);
	/* What a standby says of its timeline lags behind until it has flushed something of the new one. */
	struct xact early = committed_row(2, 3);
	cluster_ask(&c, 2, "CHECKPOINT");
	cluster_catch_up(&c, 3, 2);
	cluster_ask(&c, 3, "CHECKPOINT");
	WAIT_FOR(node_status(h, 2).timeline == 2, PATIENCE_MS);
	cluster_ask(&c, 3, "ALTER SYSTEM SET primary_conninfo = ''");
	cluster_ask(&c, 3, "SELECT pg_reload_conf()");
	WAIT_FOR(cluster_count(&c, 3, "SELECT count(*) FROM pg_stat_wal_receiver") == 0, PATIENCE_MS);
	struct xact lost_second = committed_row(2, 4);
	cluster_do(&c, "kill 2");
	promote_and_wait(h, 3, 2);
	use_again(3, lost_second.mark.xid);

	ASSERT_OUTCOME(resolve(h, &old), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &lost_first), ABORTED);
	ASSERT_OUTCOME(resolve(h, &early), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &lost_second), ABORTED);
	ck_assert(has_row(3, 1) && !has_row(3, 2) && has_row(3, 3) && !has_row(3, 4));
}
END_TEST

static void outcome_table_command(const char *arguments, int expected)
{
	char command[1024];
	snprintf(command, sizeof command, "./examples/dbha outcome-table %s '%s' >/dev/null 2>&1", arguments,
	         cluster_url(&c, NULL, "outcome_table=public.Out%20%22comes"));
	int status = system(command);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == expected, "%s: %d", command, status);
}

#define TABLE "public.Out \"comes"

START_TEST(a_promoted_server_that_has_restarted_is_known_to_who_saw_it)
{
	outcome_table_command("--create", 0);
	outcome_table_command("--create", 0); /* again is no error */
	dbha *h = open_all(&c, NULL);
	struct xact kept = begin_row_with_token(1, 1, TABLE);
	commit(&kept);
	cluster_all_catch_up(&c);
	cut_off_standbys();
	struct xact lost = begin_row_with_token(1, 2, TABLE);
	commit(&lost);
	cluster_do(&c, "kill 1");
	promote_and_wait(h, 2, 1);
	use_again(2, lost.mark.xid);
	struct xact kept_plain = kept, lost_plain = lost;
	kept_plain.token[0] = lost_plain.token[0] = '\0';

	for (int round = 0; round < 2; round++) {
		if (round == 0)
			cluster_do(&c, "restart 2");
		else
			cluster_do(&c, "kill 2"), cluster_do(&c, "start 2");
		ASSERT_OUTCOME(resolve(h, &kept_plain), COMMITTED);
		ASSERT_OUTCOME(resolve(h, &lost_plain), ABORTED);

		/* The switch point is gone from the server: who has not seen it is honest, or asks the table. */
		dbha *late = open_handle(cluster_url(&c, NULL, NULL));
		ASSERT_OUTCOME(resolve(late, &kept_plain), UNKNOWN);
		ASSERT_OUTCOME(resolve(late, &lost_plain), UNKNOWN);
		ASSERT_OUTCOME(resolve(late, &kept), UNKNOWN); /* the option is not set */
		dbha *asks = open_handle(cluster_url(&c, NULL, "outcome_table=public.Out%20%22comes"));
		ASSERT_OUTCOME(resolve(asks, &kept), COMMITTED);
		ASSERT_OUTCOME(resolve(asks, &lost), ABORTED);
		ASSERT_HAS(why, "outcome_table");
	}
	ck_assert(has_row(2, 1) && !has_row(2, 2));

	outcome_table_command("--prune 1s", 2);
	outcome_table_command("--prune 1h", 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM public.\"Out \"\"comes\""), 1);
	cluster_ask(&c, 2, "UPDATE public.\"Out \"\"comes\" SET at = now() - interval '2 hours'");
	outcome_table_command("--prune 1h", 0);
	ck_assert_int_eq(cluster_count(&c, 2, "SELECT count(*) FROM public.\"Out \"\"comes\""), 0);
	outcome_table_command("--drop", 0);
	ck_assert_str_eq(cluster_ask(&c, 2, "SELECT to_regclass('public.\"Out \"\"comes\"')"), "");
	dbha *without = open_handle(cluster_url(&c, NULL, "outcome_table=public.Out%20%22comes"));
	ASSERT_OUTCOME(resolve(without, &kept), UNKNOWN);
	ASSERT_HAS(why, "outcome_table could not be read");
}
END_TEST

/*
 * A first write to a temporary table leaves no WAL: the mark lies before the switch point, and the number is used again there. The
 * status cannot tell it (see the limits in docs/outcome.md); the row can.
 */
START_TEST(the_table_knows_better_than_a_mark_without_wal)
{
	outcome_table_command("--create", 0);
	dbha *h = open_all(&c, "outcome_table=public.Out%20%22comes");
	struct xact x = {.pg = connect_to(1)};
	sql(x.pg, "CREATE TEMP TABLE scratch (id bigint)");
	cluster_all_catch_up(&c);
	sql(x.pg, "BEGIN");
	sql(x.pg, "INSERT INTO scratch VALUES (1)");
	take_mark(&x);
	cluster_ask(&c, 1, "SELECT pg_switch_wal()");
	cluster_all_catch_up(&c);
	cut_off_standbys();
	sql(x.pg, "INSERT INTO rows (id) VALUES (1)");
	write_token(&x, 1, TABLE);
	commit(&x);
	cluster_do(&c, "kill 1");
	promote_and_wait(h, 2, 1);
	ck_assert_uint_ge((uint64_t)cluster_count(&c, 2, "SELECT pg_last_wal_replay_lsn() - '0/0'"), x.mark.lsn);
	use_again(2, x.mark.xid);
	ASSERT_OUTCOME(resolve(h, &x), ABORTED);
	ASSERT_HAS(why, "outcome_table");
	ck_assert(!has_row(2, 1));
}
END_TEST

/* ---- restarts in place ------------------------------------------------------------------------------------------- */

/* One backend is killed: the postmaster ends the others, and starts anew with the start time that it had. */
static void crash_backend(void)
{
	const char *started = cluster_ask(&c, 1, "SELECT pg_postmaster_start_time()");
	const char *recovered = cluster_ask(&c, 1, "SELECT coalesce(pg_last_wal_replay_lsn()::text, '')");
	PGconn *victim = cluster_admin(&c, 1);
	PGconn *witness = cluster_admin(&c, 1);
	PQsetNoticeProcessor(witness, ignore, NULL);
	kill(PQbackendPID(victim), SIGKILL);
	/* The witness is ended when the postmaster has seen it; then the server comes back. */
	WAIT_FOR((PQclear(PQexec(witness, "SELECT 1")), PQstatus(witness) == CONNECTION_BAD), PATIENCE_MS);
	PQfinish(victim);
	PQfinish(witness);
	char conninfo[300];
	snprintf(conninfo, sizeof conninfo, "host=%s port=%d user=postgres dbname=app", c.dir, cluster_port(&c, 1));
	WAIT_FOR(PQping(conninfo) == PQPING_OK, PATIENCE_MS);
	ck_assert_str_eq(cluster_ask(&c, 1, "SELECT pg_postmaster_start_time()"), started);
	ck_assert_str_ne(cluster_ask(&c, 1, "SELECT coalesce(pg_last_wal_replay_lsn()::text, '')"), recovered);
}

static void crash_server(void)
{
	cluster_do(&c, "kill 1");
	cluster_do(&c, "start 1");
}

/* A transaction that was acknowledged without having been flushed, and is gone after the crash. */
static struct xact lost_in_crash(void (*crash)(void), int id)
{
	for (int i = 0; i < 10; i++) {
		struct xact x = begin_row(1, id + i);
		sql(x.pg, "SET LOCAL synchronous_commit = off");
		sql(x.pg, "COMMIT");
		crash();
		PQfinish(x.pg);
		if (!has_row(1, id + i))
			return x;
	}
	ck_abort_msg("every transaction was flushed before the crash");
	return (struct xact){0};
}

static void taken_by(void (*crash)(void))
{
	dbha *h = open_all(&c, NULL);
	struct xact x = lost_in_crash(crash, 100);
	ASSERT_OUTCOME(resolve(h, &x), ABORTED);
	use_again(1, x.mark.xid);
	ASSERT_OUTCOME(resolve(h, &x), ABORTED);
	dbha *late = open_handle(cluster_url(&c, NULL, NULL));
	ASSERT_OUTCOME(resolve(late, &x), ABORTED);
	/* After a second crash the end of recovery lies behind it; who saw the first still knows. */
	WAIT_FOR(cluster_status(h).primary == 0, PATIENCE_MS);
	crash();
	ASSERT_OUTCOME(resolve(h, &x), ABORTED);
	late = open_handle(cluster_url(&c, NULL, NULL));
	ASSERT_OUTCOME(resolve(late, &x), UNKNOWN);
	cluster_as_before(&c, h);
}

START_TEST(what_a_crash_of_the_server_has_taken_is_not_committed)
{
	taken_by(crash_server);
}
END_TEST

START_TEST(what_a_crash_of_one_backend_has_taken_is_not_committed)
{
	taken_by(crash_backend);
}
END_TEST

START_TEST(what_was_seen_flushed_outlives_every_restart)
{
	dbha *h = open_all(&c, "probe_interval=100ms");
	struct xact x = committed_row(1, 1), y = begin_row(1, 2);
	sql(y.pg, "COMMIT");
	WAIT_FOR(node_status(h, 0).lsn >= y.mark.lsn, PATIENCE_MS);
	struct xact open = begin_row(1, 3);
	crash_backend();
	PQfinish(y.pg);
	ASSERT_OUTCOME(resolve(h, &x), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &y), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &open), ABORTED);
	crash_server();
	ASSERT_OUTCOME(resolve(h, &x), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &open), ABORTED);
	cluster_do(&c, "restart 1");
	ASSERT_OUTCOME(resolve(h, &x), COMMITTED);
	ASSERT_OUTCOME(resolve(h, &open), ABORTED);
	PQfinish(open.pg);
	cluster_as_before(&c, h);
}
END_TEST

/* Nobody looks meanwhile: the new connection may be the first to meet the new life, and the view has to be waited for. */
START_TEST(without_a_thread_the_view_is_waited_for)
{
	dbha *h = open_all(&c, "monitor=off&probe_interval=1min");
	struct xact x = committed_row(1, 1);
	dbha *seen = open_handle(cluster_url(&c, NULL, "monitor=off&probe_interval=1min&application_name=seen"));
	fetch(seen, DBHA_WRITE, "INSERT INTO rows (id) VALUES (2)");
	for (int i = 0; i < 5; i++) {
		crash_backend();
		ASSERT_OUTCOME(resolve(seen, &x), COMMITTED);
	}
	cluster_as_before(&c, h);
}
END_TEST

/* It is committed; but a server that crashes twice could say the same of a number that was used again. */
START_TEST(a_commit_just_before_a_crash_is_unknown_or_in_the_table)
{
	outcome_table_command("--create", 0);
	dbha *h = open_all(&c, "probe_interval=1min"), *asks = open_all(&c, "outcome_table=public.Out%20%22comes");
	struct xact x = begin_row_with_token(1, 1, TABLE), gone = begin_row_with_token(1, 2, TABLE);
	commit(&x);
	crash_server();
	ASSERT_OUTCOME(resolve(h, &x), UNKNOWN);
	ASSERT_HAS(why, "nobody may have seen");
	ASSERT_OUTCOME(resolve(asks, &x), COMMITTED);
	ASSERT_OUTCOME(resolve(asks, &gone), ABORTED);
	ck_assert(has_row(1, 1) && !has_row(1, 2));
	PQfinish(gone.pg);
	outcome_table_command("--drop", 0);
	cluster_as_before(&c, h);
}
END_TEST

/* ---- no primary -------------------------------------------------------------------------------------------------- */

START_TEST(without_a_primary_the_outcome_is_unknown_in_time)
{
	dbha *h = open_all(&c, NULL);
	struct xact x = committed_row(1, 1);
	cluster_do(&c, "kill 1");
	int64_t began = now_ms();
	ASSERT_OUTCOME(resolve_with(h, &x, 500), UNKNOWN);
	ck_assert_int_ge(now_ms() - began, 500);
	ck_assert_int_le(now_ms() - began, 500 + SLACK_MS);
	ASSERT_HAS(why, "transaction ");
	cluster_do(&c, "start 1");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("resolve");
	ADD_TEST(suite, the_status_of_a_living_primary_is_believed, servers, NULL, 60);
	ADD_TEST(suite, a_transaction_that_has_not_written_has_no_mark, servers, NULL, 60);
	ADD_TEST(suite, one_in_progress_is_waited_for, servers, NULL, 60);
	ADD_TEST(suite, one_in_progress_is_ended_where_that_is_wanted, servers, NULL, 60);
	ADD_TEST(suite, what_a_crash_of_the_server_has_taken_is_not_committed, servers, NULL, 90);
	ADD_TEST(suite, what_a_crash_of_one_backend_has_taken_is_not_committed, servers, NULL, 90);
	ADD_TEST(suite, what_was_seen_flushed_outlives_every_restart, servers, NULL, 90);
	ADD_TEST(suite, without_a_thread_the_view_is_waited_for, servers, NULL, 90);
	ADD_TEST(suite, a_commit_just_before_a_crash_is_unknown_or_in_the_table, servers, NULL, 90);
	ADD_TEST(suite, after_a_promotion_the_position_decides, servers, NULL, 90);
	ADD_TEST(suite, two_promotions_in_a_row_are_followed, servers, NULL, 90);
	ADD_TEST(suite, a_promoted_server_that_has_restarted_is_known_to_who_saw_it, servers, NULL, 90);
	ADD_TEST(suite, the_table_knows_better_than_a_mark_without_wal, servers, NULL, 90);
	ADD_TEST(suite, without_a_primary_the_outcome_is_unknown_in_time, servers, NULL, 60);
	return run_suite(suite, &c);
}
