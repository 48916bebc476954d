/*
 * drill_table.c: the life of the drill's table.
 *
 * Each row says who wrote it, when by the server's clock, and on which timeline: the first eight digits of a WAL file
 * name, which only a primary can tell. There is no unique constraint, so that a row executed twice can be seen.
 */
#include "drill.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

/* How long a standby may take to replay the creation of the table before the drill goes on without it. */
#define REPLAY_PATIENCE_US (10 * 1000000)

static bool run_ddl(struct drill *d, const char *sql, dbha_error *err)
{
	PGresult *result;
	dbha_request request = DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE, .flags = DBHA_IDEMPOTENT | DBHA_UNPREPARED,
	                                    .timeout_ms = DRILL_PATIENCE_MS);
	int code = dbha_exec(d->h, &request, &result, err);
	PQclear(result);
	return code == DBHA_OK;
}

bool drill_table_create(struct drill *d)
{
	uint32_t random;
	char sql[512];
	dbha_error err;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		random = (uint32_t)cli_monotonic_us();
	snprintf(d->table, sizeof(d->table), "dbha_drill_%08" PRIx32, random);
	snprintf(sql, sizeof(sql),
	         "CREATE TABLE IF NOT EXISTS %s (writer integer, seq bigint,"
	         " at timestamptz DEFAULT clock_timestamp(),"
	         " timeline text COLLATE \"C\" DEFAULT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))",
	         d->table);
	if (run_ddl(d, sql, &err)) {
		d->verdict.kept = true;
		snprintf(sql, sizeof(sql), "CREATE INDEX IF NOT EXISTS %s_seq ON %s (writer, seq)", d->table, d->table);
		if (run_ddl(d, sql, &err))
			return true;
	}
	cli_print_error(&err);
	fprintf(stderr, "      The drill needs the right to create a table in the first schema of search_path.\n");
	return false;
}

void drill_table_drop(struct drill *d)
{
	char sql[64];
	dbha_error err;
	snprintf(sql, sizeof(sql), "DROP TABLE IF EXISTS %s", d->table);
	if (run_ddl(d, sql, &err)) {
		d->verdict.kept = false;
		return;
	}
	cli_print_error(&err);
	fprintf(stderr, "      The table %s is still there; drop it when the cluster is up.\n", d->table);
}

/* --------------------------------------------------------------------------------------------------------------- */

static bool node_has_table(dbha *node, const struct drill *d)
{
	const char *values[] = {d->table};
	PGresult *result;
	dbha_request request =
	    DBHA_REQUEST(.sql = "SELECT to_regclass($1) IS NOT NULL", .timeout_ms = 2000, .n_params = 1, .values = values);
	bool has = dbha_exec(node, &request, &result, NULL) == DBHA_OK && PQntuples(result) == 1 &&
	           PQgetvalue(result, 0, 0)[0] == 't';
	PQclear(result);
	return has;
}

static void await_on_node(struct drill *d, int index, const char *name)
{
	dbha_error err;
	dbha *node = drill_node_open(d, index, name, &err);
	if (node == NULL) {
		cli_print_error(&err);
		return;
	}
	int64_t end_us = cli_monotonic_us() + REPLAY_PATIENCE_US;
	bool has;
	while (!(has = node_has_table(node, d)) && cli_monotonic_us() < end_us)
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
	if (!has)
		cli_complain("standby %s has not replayed the new table in %d s; its reads will count as stale", name,
		             REPLAY_PATIENCE_US / 1000000);
	dbha_close(node, 0);
}

void drill_table_await(struct drill *d)
{
	dbha_cluster_status cluster;
	dbha_node_status *nodes = cli_nodes(d->h, &cluster);
	for (int i = 0; nodes != NULL && i < cluster.nodes; i++)
		if (nodes[i].state == DBHA_STATE_UP && nodes[i].role == DBHA_ROLE_STANDBY)
			await_on_node(d, i, nodes[i].name);
	free(nodes);
}
