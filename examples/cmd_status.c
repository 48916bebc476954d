/*
 * cmd_status.c: `dbha status`, one look at every node of a cluster.
 *
 * Its exit status is that of pg_isready, so that it can stand in a health check: 0 a primary accepts writes, 1 nodes
 * answer but none of them is a primary to write to, 2 no node answers, 3 nothing was tried.
 */
#include "cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define STATUS_ACCEPTING   0
#define STATUS_REJECTING   1
#define STATUS_NO_RESPONSE 2
#define STATUS_NO_ATTEMPT  3

static const char status_help[] =
    "usage: dbha status [URL] [--json] [--timeout TIME] [--accept-cluster]\n"
    "\n"
    "Looks at every node once and prints what it is: role, state, timeline, position, lag, latency, and why.\n"
    "\n"
    "      --json           one JSON object, for programs\n"
    "      --timeout TIME   how long nodes may take to answer (5s)\n"
    "      --accept-cluster after a cluster was rebuilt: makes the cluster that the nodes belong to now the one that\n"
    "                       fence_file remembers, and says what it was and what it is\n"
    "\n"
    "Exit status: 0 a primary accepts writes; 1 nodes answer, but none is a primary to write to; 2 no node answers;\n"
    "3 nothing was tried (a bad argument or URL).\n";

/* A node that says no has answered; one that is down, silent or not seen yet has not. */
static bool answers(const dbha_node_status *node)
{
	switch ((dbha_state)node->state) {
	case DBHA_STATE_UP:
	case DBHA_STATE_STARTING:
	case DBHA_STATE_FULL:
	case DBHA_STATE_REFUSED:
	case DBHA_STATE_FENCED:
	case DBHA_STATE_FOREIGN:
	case DBHA_STATE_DISK_FULL:
		return true;
	case DBHA_STATE_UNKNOWN:
	case DBHA_STATE_SUSPECT:
	case DBHA_STATE_SILENT:
	case DBHA_STATE_DOWN:
	case DBHA_STATE_ABSENT:
		return false;
	}
	return false;
}

static int verdict(const dbha_cluster_status *cluster, const dbha_node_status *nodes)
{
	if (cluster->primary >= 0 && !cluster->split_brain)
		return STATUS_ACCEPTING;
	for (int i = 0; i < cluster->nodes; i++)
		if (answers(&nodes[i]))
			return STATUS_REJECTING;
	return STATUS_NO_RESPONSE;
}

/* --------------------------------------------------------------------------------------------------------------- */

/* The texts of one row of the table. */
struct row {
	char timeline[12];
	char lsn[CLI_LSN_MAX];
	char lag[48];
	char latency[24];
};

static const char *lag_text(const dbha_node_status *node, char *buffer, size_t size)
{
	if (node->role != DBHA_ROLE_STANDBY || (node->lag_ms < 0 && node->lag_bytes < 0))
		return "-";
	if (node->lag_bytes < 0)
		snprintf(buffer, size, "%" PRId64 " ms", node->lag_ms);
	else if (node->lag_ms < 0)
		snprintf(buffer, size, "%" PRId64 " B", node->lag_bytes);
	else
		snprintf(buffer, size, "%" PRId64 " ms, %" PRId64 " B", node->lag_ms, node->lag_bytes);
	return buffer;
}

static void fill_row(const dbha_node_status *node, struct row *row, const char **cells)
{
	snprintf(row->timeline, sizeof(row->timeline), "%" PRIu32, node->timeline);
	snprintf(row->latency, sizeof(row->latency), "%.1f ms", (double)node->latency_us / 1000);
	cells[0] = node->name;
	cells[1] = dbha_role_name(node->role);
	cells[2] = dbha_state_name(node->state);
	cells[3] = node->timeline != 0 ? row->timeline : "-";
	cells[4] = cli_lsn(node->lsn, row->lsn);
	cells[5] = lag_text(node, row->lag, sizeof(row->lag));
	cells[6] = node->latency_us >= 0 ? row->latency : "-";
	cells[7] = node->why;
}

/* What keeps the fence file from its work, if anything does. */
static void print_fence_line(const dbha_cluster_status *cluster)
{
	if (cluster->fence_trouble[0] != '\0')
		printf("%s\n", cluster->fence_trouble);
}

static void print_cluster_line(const dbha_cluster_status *cluster, const dbha_node_status *nodes, int status)
{
	if (cluster->split_brain) {
		printf("SPLIT BRAIN: two primaries on timeline %" PRIu32 "; writes are refused until one goes away\n",
		       cluster->timeline);
		return;
	}
	if (status == STATUS_ACCEPTING)
		printf("%s accepts writes", nodes[cluster->primary].name);
	else
		printf(status == STATUS_REJECTING ? "no node accepts writes" : "no node answers");
	if (cluster->timeline != 0)
		printf("; timeline %" PRIu32, cluster->timeline);
	if (cluster->system_identifier != 0)
		printf(", system identifier %" PRIu64, cluster->system_identifier);
	putchar('\n');
}

static bool print_for_people(const dbha_cluster_status *cluster, const dbha_node_status *nodes, int status)
{
	enum { COLUMNS = 8 };
	static const char *const names[COLUMNS] = {"node", "role", "state", "timeline", "LSN", "lag", "latency", "why"};
	static const enum cli_kind kinds[COLUMNS] = {CLI_TEXT,   CLI_TEXT,   CLI_TEXT,   CLI_NUMBER,
	                                             CLI_NUMBER, CLI_NUMBER, CLI_NUMBER, CLI_TEXT};
	size_t n = (size_t)cluster->nodes;
	struct row *rows = calloc(n + 1, sizeof(*rows));
	const char **cells = calloc(n * COLUMNS + 1, sizeof(*cells));
	bool printed = false;
	if (rows == NULL || cells == NULL)
		goto done;
	for (size_t i = 0; i < n; i++)
		fill_row(&nodes[i], &rows[i], cells + i * COLUMNS);
	struct cli_table table = {COLUMNS, cluster->nodes, names, kinds, cells};
	printed = cli_table_print(stdout, &table, CLI_ALIGNED);
	print_cluster_line(cluster, nodes, status);
	print_fence_line(cluster);
done:
	free(cells);
	free(rows);
	return printed;
}

/* --------------------------------------------------------------------------------------------------------------- */

/* `"name": value`, or null where the library says that it does not know. */
static void json_known(const char *name, int64_t value, bool known)
{
	if (known)
		printf(", \"%s\": %" PRId64, name, value);
	else
		printf(", \"%s\": null", name);
}

static void json_node(const dbha_node_status *node)
{
	char lsn[CLI_LSN_MAX];
	printf("{\"name\": ");
	cli_json_string(stdout, node->name);
	printf(", \"role\": \"%s\", \"state\": \"%s\"", dbha_role_name(node->role), dbha_state_name(node->state));
	json_known("timeline", node->timeline, node->timeline != 0);
	printf(", \"lsn\": ");
	cli_json_string(stdout, node->lsn != 0 ? cli_lsn(node->lsn, lsn) : NULL);
	json_known("lag_ms", node->lag_ms, node->lag_ms >= 0);
	json_known("lag_bytes", node->lag_bytes, node->lag_bytes >= 0);
	json_known("latency_us", node->latency_us, node->latency_us >= 0);
	json_known("seen_ms_ago", node->seen_ms_ago, node->seen_ms_ago >= 0);
	/* A text: it has more bits than a number in JavaScript keeps. */
	if (node->system_identifier != 0)
		printf(", \"system_identifier\": \"%" PRIu64 "\"", node->system_identifier);
	else
		printf(", \"system_identifier\": null");
	printf(", \"why\": ");
	cli_json_string(stdout, node->why);
	putchar('}');
}

static void print_for_programs(const dbha_cluster_status *cluster, const dbha_node_status *nodes, int status)
{
	static const char *const words[] = {"accepting", "rejecting", "no response"};
	printf("{\"status\": \"%s\", \"primary\": ", words[status]);
	cli_json_string(stdout, status == STATUS_ACCEPTING ? nodes[cluster->primary].name : NULL);
	json_known("timeline", cluster->timeline, cluster->timeline != 0);
	/* A text: it has more bits than a number in JavaScript keeps. */
	if (cluster->system_identifier != 0)
		printf(", \"system_identifier\": \"%" PRIu64 "\"", cluster->system_identifier);
	else
		printf(", \"system_identifier\": null");
	printf(", \"split_brain\": %s, \"fence_trouble\": ", cluster->split_brain ? "true" : "false");
	cli_json_string(stdout, cluster->fence_trouble[0] != '\0' ? cluster->fence_trouble : NULL);
	printf(", \"nodes\": [");
	for (int i = 0; i < cluster->nodes; i++) {
		if (i > 0)
			printf(", ");
		json_node(&nodes[i]);
	}
	printf("]}\n");
}

/* --------------------------------------------------------------------------------------------------------------- */

/*
 * The one other cluster that all nodes that answer belong to; 0 after a word on why there is none. One node of the remembered cluster is
 * enough to refuse: which of the two is ours is then for people to say, by leaving nodes out of the URL.
 */
static uint64_t other_cluster(const dbha_cluster_status *cluster, const dbha_node_status *nodes)
{
	uint64_t other = 0;
	for (int i = 0; i < cluster->nodes; i++) {
		const dbha_node_status *node = &nodes[i];
		if (node->system_identifier == 0)
			continue;
		if (node->system_identifier == cluster->system_identifier) {
			cli_complain("nothing to accept: %s belongs to the remembered cluster, %" PRIu64, node->name,
			             cluster->system_identifier);
			return 0;
		}
		if (other != 0 && other != node->system_identifier) {
			cli_complain("the nodes belong to several clusters, %" PRIu64 " and %" PRIu64
			             "; give only the nodes of the one to accept",
			             other, node->system_identifier);
			return 0;
		}
		other = node->system_identifier;
	}
	if (other == 0)
		cli_complain("nothing to accept: no node has told its system identifier");
	return other;
}

/* Accepts, and waits until this very handle sees the cluster as its own. */
static bool accept_cluster(dbha *h, int timeout_ms)
{
	dbha_error err;
	dbha_cluster_status cluster;
	dbha_wait(h, DBHA_WAIT_PROBED, timeout_ms, NULL);
	dbha_node_status *nodes = cli_nodes(h, &cluster);
	uint64_t other = nodes != NULL ? other_cluster(&cluster, nodes) : 0;
	free(nodes);
	if (other == 0)
		return false;
	uint64_t old = cluster.system_identifier;
	if (dbha_accept_cluster(h, other, &err) != DBHA_OK) {
		cli_print_error(&err);
		return false;
	}
	fprintf(stderr, "accepted cluster %" PRIu64 " in the place of %" PRIu64 "\n", other, old);
	dbha_wait(h, DBHA_WAIT_PRIMARY, timeout_ms, NULL);
	return true;
}

/* Takes out the places where no node is, which have no name. */
static void close_ranks(dbha_cluster_status *cluster, dbha_node_status *nodes)
{
	int n = 0;
	int primary = cluster->primary;
	for (int i = 0; i < cluster->nodes; i++) {
		if (nodes[i].name[0] == '\0')
			continue;
		if (i == primary)
			cluster->primary = n;
		nodes[n++] = nodes[i];
	}
	cluster->nodes = n;
}

static int show_status(dbha *h, int timeout_ms, bool json)
{
	/* A node that has not answered in time is shown as such; only what says nothing of the nodes is an error here. */
	dbha_error err;
	int code = dbha_wait(h, DBHA_WAIT_PROBED, timeout_ms, &err);
	if (code == DBHA_ERR_USAGE || code == DBHA_ERR_MEMORY || code == DBHA_ERR_SYSTEM || code == DBHA_ERR_CLOSED) {
		cli_print_error(&err);
		return STATUS_NO_ATTEMPT;
	}
	dbha_cluster_status cluster;
	dbha_node_status *nodes = cli_nodes(h, &cluster);
	if (nodes == NULL)
		return STATUS_NO_ATTEMPT;
	close_ranks(&cluster, nodes);
	int status = verdict(&cluster, nodes);
	if (json)
		print_for_programs(&cluster, nodes, status);
	else if (!print_for_people(&cluster, nodes, status))
		cli_complain("out of memory");
	free(nodes);
	return status;
}

int cmd_status(int argc, char **argv)
{
	static const struct option accepted[] = {{"json", no_argument, NULL, 'j'},
	                                         {"timeout", required_argument, NULL, 't'},
	                                         {"accept-cluster", no_argument, NULL, 'a'},
	                                         {"help", no_argument, NULL, 'h'},
	                                         {NULL, 0, NULL, 0}};
	bool json = false, accept = false;
	int timeout_ms = 5000;
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(status_help, stdout);
			return STATUS_ACCEPTING;
		}
		if (c == 'j')
			json = true;
		else if (c == 'a')
			accept = true;
		else if (c != 't' || !cli_duration("--timeout", optarg, &timeout_ms))
			return STATUS_NO_ATTEMPT;
	}
	const char *url;
	if (!cli_url(argc, argv, &url))
		return STATUS_NO_ATTEMPT;
	dbha *h = cli_open(url);
	if (h == NULL)
		return STATUS_NO_ATTEMPT;
	int status = accept && !accept_cluster(h, timeout_ms) ? STATUS_NO_ATTEMPT : show_status(h, timeout_ms, json);
	dbha_close(h, 0);
	return status;
}
