/*
 * drill_verdict.c: what became of every row. The truth is the table on the primary of the highest timeline.
 *
 * Stale writes are looked for on every other node that answers: rows written on an older timeline after the primary's
 * own, newer one had its first row, and which the primary does not have. The clocks of the servers are compared there,
 * so they should agree to better than the time of a failover; a row that the primary has is never counted.
 */
#include "drill.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Rows per query, so that neither side needs memory for the whole table. */
#define ROWS_PER_QUERY 100000

/* How long a node other than the primary may take to be asked; it may well be down. */
#define NODE_PATIENCE_MS 5000

/* A read that must see the truth, on the primary. Returns a result with rows, or NULL with a reason in `err`. */
static PGresult *ask_primary(struct drill *d, const char *sql, int n, const char *const *values, dbha_error *err)
{
	int patience_ms = d->options.call_timeout_ms > DRILL_PATIENCE_MS ? d->options.call_timeout_ms : DRILL_PATIENCE_MS;
	dbha_request request = DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE, .flags = DBHA_IDEMPOTENT | DBHA_UNPREPARED,
	                                    .timeout_ms = patience_ms, .n_params = n, .values = values);
	PGresult *result;
	if (dbha_exec(d->h, &request, &result, err) == DBHA_OK)
		return result;
	PQclear(result);
	return NULL;
}

/* --------------------------------------------------------------------------------------------------------------- */

static bool find_rows(struct drill *d, struct drill_worker *writer, int64_t from, dbha_error *err)
{
	char sql[192], number[16], first[24], end[24];
	snprintf(sql, sizeof(sql), "SELECT seq, count(*) FROM %s WHERE writer = $1 AND seq >= $2 AND seq < $3 GROUP BY seq",
	         d->table);
	snprintf(number, sizeof(number), "%d", writer->number);
	snprintf(first, sizeof(first), "%" PRId64, from);
	snprintf(end, sizeof(end), "%" PRId64, from + ROWS_PER_QUERY);
	const char *values[] = {number, first, end};
	PGresult *result = ask_primary(d, sql, 3, values, err);
	if (result == NULL)
		return false;
	for (int i = 0; i < PQntuples(result); i++)
		drill_ledger_found(&writer->ledger, strtoll(PQgetvalue(result, i, 0), NULL, 10),
		                   strtoll(PQgetvalue(result, i, 1), NULL, 10));
	PQclear(result);
	return true;
}

static bool compare_ledgers(struct drill *d, dbha_error *err)
{
	for (int i = 0; i < d->options.writers; i++) {
		struct drill_worker *writer = &d->writers[i];
		for (int64_t from = 0; from < writer->ledger.used; from += ROWS_PER_QUERY)
			if (!find_rows(d, writer, from, err))
				return false;
		drill_ledger_tally(&writer->ledger, &d->verdict.tally);
	}
	return true;
}

/* --------------------------------------------------------------------------------------------------------------- */

/*
 * The rows of one node that were written late: on an older timeline, after a newer one had its first row. The result
 * has one row: their writers, numbers and timelines, as arrays, NULL if there are none. `firsts` is of first_rows.
 */
static PGresult *late_rows(const struct drill *d, dbha *node, const PGresult *firsts, dbha_error *err)
{
	char sql[512];
	snprintf(sql, sizeof(sql),
	         "SELECT array_agg(writer)::text, array_agg(seq)::text, array_agg(timeline)::text FROM %s AS r"
	         " WHERE EXISTS (SELECT FROM unnest($1::text[], $2::bigint[]) AS newer (timeline, first_us)"
	         " WHERE r.timeline < newer.timeline AND (extract(epoch FROM r.at) * 1000000)::bigint > newer.first_us)",
	         d->table);
	const char *values[2];
	for (int i = 0; i < 2; i++)
		values[i] = PQgetisnull(firsts, 0, i) ? NULL : PQgetvalue(firsts, 0, i);
	dbha_request request = DBHA_REQUEST(.sql = sql, .flags = DBHA_UNPREPARED | DBHA_IDEMPOTENT,
	                                    .timeout_ms = NODE_PATIENCE_MS, .n_params = 2, .values = values);
	PGresult *result;
	if (dbha_exec(node, &request, &result, err) == DBHA_OK)
		return result;
	PQclear(result);
	return NULL;
}

/* How many different rows of these arrays the primary does not have; -1 if it could not be asked. */
static int64_t missing_on_primary(struct drill *d, const char *const arrays[3], dbha_error *err)
{
	char sql[384];
	snprintf(sql, sizeof(sql),
	         "SELECT count(DISTINCT (writer, seq, timeline))"
	         " FROM unnest($1::integer[], $2::bigint[], $3::text[]) AS r (writer, seq, timeline)"
	         " WHERE NOT EXISTS (SELECT FROM %s AS p"
	         " WHERE p.writer = r.writer AND p.seq = r.seq AND p.timeline = r.timeline)",
	         d->table);
	PGresult *result = ask_primary(d, sql, 3, arrays, err);
	int64_t missing = result != NULL ? strtoll(PQgetvalue(result, 0, 0), NULL, 10) : -1;
	PQclear(result);
	return missing;
}

/* Appends "{3,4}" to "{1,2}" and gives "{1,2,3,4}"; takes `array`, which may be NULL. NULL without memory. */
static char *join_arrays(char *array, const char *more)
{
	char *joined = NULL;
	int length = array != NULL ? (int)strlen(array) - 1 : 0;
	if (asprintf(&joined, "%.*s%s%s", length, array != NULL ? array : "", array != NULL ? "," : "{", more + 1) < 0)
		joined = NULL;
	free(array);
	return joined;
}

/*
 * Asks one node for its late rows and the primary which of them it lacks. Those are added to `all`, because a standby
 * of a stale primary has the same rows as that.
 */
static int64_t stale_rows(struct drill *d, int index, const char *name, const PGresult *firsts, char *all[3],
                          dbha_error *err)
{
	dbha *node = drill_node_open(d, index, name, err);
	if (node == NULL)
		return -1;
	int64_t stale = -1;
	PGresult *rows = late_rows(d, node, firsts, err);
	bool no_table = rows == NULL && strcmp(err->sqlstate, "42P01") == 0;
	if (no_table || (rows != NULL && PQgetisnull(rows, 0, 0))) {
		stale = 0;
	} else if (rows != NULL) {
		const char *arrays[3];
		for (int i = 0; i < 3; i++) {
			arrays[i] = PQgetvalue(rows, 0, i);
			all[i] = join_arrays(all[i], arrays[i]);
		}
		stale = missing_on_primary(d, arrays, err);
	}
	PQclear(rows);
	dbha_close(node, 0);
	return stale;
}

/* When each timeline had its first row, by the primary's table: two arrays, of timelines and of microseconds. */
static PGresult *first_rows(struct drill *d, dbha_error *err)
{
	char sql[256];
	snprintf(sql, sizeof(sql),
	         "SELECT array_agg(timeline)::text, array_agg(first_us)::text FROM (SELECT timeline,"
	         " min((extract(epoch FROM at) * 1000000)::bigint) AS first_us FROM %s GROUP BY timeline) AS t",
	         d->table);
	return ask_primary(d, sql, 0, NULL, err);
}

static void look_at_node(struct drill *d, int index, bool is_primary, const PGresult *firsts, char *all[3])
{
	struct drill_node *node = &d->verdict.nodes[index];
	dbha_error reason = {.message = ""};
	node->stale_rows = is_primary ? 0 : stale_rows(d, index, node->status.name, firsts, all, &reason);
	snprintf(node->why, sizeof(node->why), "%s", node->stale_rows < 0 ? reason.message : node->status.why);
}

/* Fills verdict.nodes and verdict.stale_writes. A node that cannot be asked is no failure; it is reported as such. */
static bool look_at_nodes(struct drill *d, dbha_error *err)
{
	dbha_cluster_status cluster;
	dbha_node_status *nodes = cli_nodes(d->h, &cluster);
	PGresult *firsts = first_rows(d, err);
	char *all[3] = {NULL, NULL, NULL};
	bool looked = false;
	if (nodes == NULL || firsts == NULL)
		goto done;
	d->verdict.nodes = calloc((size_t)cluster.nodes + 1, sizeof(*d->verdict.nodes));
	if (d->verdict.nodes == NULL)
		goto done;
	d->verdict.n_nodes = cluster.nodes;
	bool any = false;
	for (int i = 0; i < cluster.nodes; i++) {
		d->verdict.nodes[i].status = nodes[i];
		look_at_node(d, i, i == cluster.primary, firsts, all);
		any = any || d->verdict.nodes[i].stale_rows > 0;
	}
	if (any && all[0] != NULL && all[1] != NULL && all[2] != NULL)
		d->verdict.stale_writes = missing_on_primary(d, (const char *const *)all, err);
	/* Where there was no memory for the arrays, or the primary went away, nothing is known: that is no 0. */
	looked = !any || d->verdict.stale_writes > 0;
done:
	for (int i = 0; i < 3; i++)
		free(all[i]);
	PQclear(firsts);
	free(nodes);
	return looked;
}

/* --------------------------------------------------------------------------------------------------------------- */

void drill_judge(struct drill *d)
{
	dbha_error err = {.message = "no memory, or the nodes could not be listed"};
	d->verdict.complete = compare_ledgers(d, &err) && look_at_nodes(d, &err);
	if (!d->verdict.complete)
		snprintf(d->verdict.why, sizeof(d->verdict.why), "%s", err.message);
	drill_drain_events(d);
	drill_gauge_finish(&d->write_gauge, d->events, d->n_events);
	drill_gauge_finish(&d->read_gauge, d->events, d->n_events);
}

bool drill_passed(const struct drill *d)
{
	const struct drill_verdict *v = &d->verdict;
	return v->complete && v->tally.acked > 0 && v->tally.lost == 0 && v->tally.duplicated == 0 && v->tally.lies == 0 &&
	       v->stale_writes == 0 && atomic_load(&d->counts.read_errors) == 0;
}
