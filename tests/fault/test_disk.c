/*
 * test_disk: a primary that is out of disk. What does not fit fails with the server's words, what fits is done, reads go on, and
 * nobody is promoted for it. The disk is a small file system of the test's own, under a tablespace of the primary.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "net.h"
#include "work.h"

static struct cluster c;
static char disk[256];

static void must_do(PGconn *pg, const char *sql)
{
	PGresult *result = PQexec(pg, sql);
	ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK, "%s: %s", sql, PQerrorMessage(pg));
	PQclear(result);
}

/* In place: every node has its own directory for the tablespace, below its data. The primary's becomes a small disk. */
static void make_small_disk(void)
{
	char shell[2400];
	PGconn *pg = cluster_admin(&c, 1);
	must_do(pg, "SET allow_in_place_tablespaces = on");
	must_do(pg, "CREATE TABLESPACE tiny LOCATION ''");
	must_do(pg, "GRANT CREATE ON TABLESPACE tiny TO app");
	PQfinish(pg);
	snprintf(disk, sizeof disk, "%s/node1/pg_tblspc/%s", c.dir,
	         cluster_ask(&c, 1, "SELECT oid FROM pg_tablespace WHERE spcname = 'tiny'"));
	/* The server's own directory in it is made again, for the disk hides it. */
	snprintf(shell, sizeof shell,
	         "cd %s && inner=$(ls) && owner=$(stat -c %%u:%%g .) && mount -t tmpfs -o size=4m none %s && "
	         "mkdir -m 700 %s/$inner && chown $owner %s %s/$inner && chmod 700 %s",
	         disk, disk, disk, disk, disk, disk);
	ck_assert_msg(system(shell) == 0, "cannot make a small disk");
}

static void servers(void)
{
	cluster_create(&c, "2");
	make_small_disk();
	cluster_ask(&c, 1, "CREATE TABLE rows (id bigint)");
	cluster_ask(&c, 1, "CREATE TABLE big (id bigint, text text) TABLESPACE tiny");
	cluster_ask(&c, 1, "GRANT ALL ON rows, big TO app");
	cluster_catch_up(&c, 2, 1);
}

static void no_disk(void)
{
	char shell[300];
	snprintf(shell, sizeof shell, "umount -l %s", disk);
	if (disk[0] && system(shell) != 0)
		fputs("cannot unmount the small disk\n", stderr);
	disk[0] = '\0';
	cluster_destroy(&c);
}

START_TEST(a_primary_out_of_disk_is_not_left_and_says_so)
{
	dbha *h = open_handle(cluster_url(&c, NULL, NULL));
	dbha_error err;
	dbha_event event;
	ASSERT_OK(dbha_wait(h, DBHA_WAIT_ALL, PATIENCE_MS, &err), err);
	int code = DBHA_OK;
	long fitted = 0;
	static const char insert[] =
	    "INSERT INTO big SELECT 1, repeat(md5(random()::text), 30) FROM generate_series(1, 300)";
	for (; code == DBHA_OK && fitted < 100; fitted += code == DBHA_OK)
		code = run(h, DBHA_WRITE, 10000, insert, &err);
	ASSERT_CODE(code, SERVER, err);
	ck_assert_str_eq(err.sqlstate, "53100");
	ck_assert(!err.outcome_unknown);
	ck_assert_int_gt(fitted, 2);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM big"), fitted * 300);

	/*
	 * The node says what is wrong with it, and is the primary still. This handle knows, since its statements were told; `dbha
	 * status` is another process, which writes nothing and so is told nothing: to it the node is up.
	 */
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_DISK_FULL, 2000);
	dbha_node_status node = node_status(h, 0);
	ck_assert_str_eq(dbha_state_name(node.state), "disk-full");
	ASSERT_HAS(node.why, "No space left");
	ck_assert_int_eq(cluster_status(h).primary, 0);
	for (int i = 0; i < 20; i++) {
		fetch(h, DBHA_WRITE, "INSERT INTO rows VALUES (1)");
		ck_assert_str_eq(fetch(h, DBHA_READ, "SELECT pg_is_in_recovery()"), "t");
		ASSERT_CODE(run(h, DBHA_WRITE, 10000, insert, &err), SERVER, err);
	}
	ck_assert(!event_within(h, DBHA_EVENT_NO_PRIMARY, 0, &event));
	ck_assert_uint_eq(counters(h, -1).primary_changes, 1);
	ck_assert_uint_eq(node_status(h, 0).generation, 1);
	ck_assert_int_eq(node_status(h, 1).state, DBHA_STATE_UP);

	/* Somebody makes room, and it is well again. */
	char shell[300];
	snprintf(shell, sizeof shell, "mount -o remount,size=64m %s", disk);
	ck_assert_int_eq(system(shell), 0);
	WAIT_FOR(node_status(h, 0).state == DBHA_STATE_UP, PATIENCE_MS);
	ck_assert_str_eq(node_status(h, 0).why, "");
	ASSERT_OK(run(h, DBHA_WRITE, 10000, insert, &err), err);
	ck_assert_int_eq(cluster_count(&c, 1, "SELECT count(*) FROM rows"), 20);
}
END_TEST

int main(void)
{
	net_require();
	Suite *suite = suite_create("disk");
	ADD_TEST(suite, a_primary_out_of_disk_is_not_left_and_says_so, servers, no_disk, 60);
	return run_suite(suite, &c);
}
