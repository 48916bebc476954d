/*
 * cmd_wait.c: `dbha wait` and `dbha events`, the two commands that watch a cluster change: one until it is as asked
 * for, the other for as long as you like.
 */
#include "cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char wait_help[] =
    "usage: dbha wait [URL] --for primary|standby|any|all [--timeout TIME]\n"
    "\n"
    "Waits until there is a primary that takes writes, a standby that serves reads, any node at all, or until all "
    "nodes\n"
    "of the URL are up. Prints the nodes it found, one per line: name, role, state, timeline, position.\n"
    "\n"
    "      --for WHAT       primary (the default), standby, any or all\n"
    "      --timeout TIME   how long to wait (30s)\n"
    "\n"
    "Exit status: 0 found; 1 not in time, with the reasons on stderr; 2 a bad argument, option or URL.\n";

static const char events_help[] =
    "usage: dbha events [URL] [--duration TIME] [--json]\n"
    "\n"
    "Prints what happens to the cluster, one line per event: when, what, and on which node.\n"
    "\n"
    "      --duration TIME  stop after this time (never; Ctrl-C ends it)\n"
    "      --json           one JSON object per line\n"
    "\n"
    "Exit status: 0 stopped after --duration; 1 an error; 2 a bad argument, option or URL.\n";

/* --------------------------------------------------------------------------------------------------------------- */

/* Whether a node is (part of) what was waited for. */
static bool is_found(const dbha_cluster_status *cluster, const dbha_node_status *node, int index, int what)
{
	bool up = node->state == DBHA_STATE_UP;
	if (what == DBHA_WAIT_PRIMARY)
		return index == cluster->primary;
	return up && (what != DBHA_WAIT_STANDBY || node->role == DBHA_ROLE_STANDBY);
}

static int wait_for(dbha *h, int what, int timeout_ms)
{
	dbha_error err;
	if (dbha_wait(h, (dbha_wait_for)what, timeout_ms, &err) != DBHA_OK) {
		cli_print_error(&err);
		return CLI_FAILED;
	}
	dbha_cluster_status cluster;
	dbha_node_status *nodes = cli_nodes(h, &cluster);
	if (nodes == NULL)
		return CLI_FAILED;
	for (int i = 0; i < cluster.nodes; i++) {
		char lsn[CLI_LSN_MAX];
		if (is_found(&cluster, &nodes[i], i, what))
			printf("%s %s %s %" PRIu32 " %s\n", nodes[i].name, dbha_role_name(nodes[i].role),
			       dbha_state_name(nodes[i].state), nodes[i].timeline, cli_lsn(nodes[i].lsn, lsn));
	}
	free(nodes);
	return CLI_DONE;
}

int cmd_wait(int argc, char **argv)
{
	static const struct option accepted[] = {{"for", required_argument, NULL, 'f'},
	                                         {"timeout", required_argument, NULL, 't'},
	                                         {"help", no_argument, NULL, 'h'},
	                                         {NULL, 0, NULL, 0}};
	static const char *const words[] = {"primary", "standby", "any", "all", NULL};
	static const dbha_wait_for kinds[] = {DBHA_WAIT_PRIMARY, DBHA_WAIT_STANDBY, DBHA_WAIT_ANY, DBHA_WAIT_ALL};
	int choice = 0;
	int timeout_ms = 30000;
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(wait_help, stdout);
			return CLI_DONE;
		}
		if (c == 'f')
			choice = cli_choice("--for", optarg, words);
		if (c == '?' || choice < 0 || (c == 't' && !cli_duration("--timeout", optarg, &timeout_ms)))
			return CLI_USAGE;
	}
	const char *url;
	dbha *h = cli_url(argc, argv, &url) ? cli_open(url) : NULL;
	if (h == NULL)
		return CLI_USAGE;
	int status = wait_for(h, kinds[choice], timeout_ms);
	dbha_close(h, 0);
	return status;
}

/* --------------------------------------------------------------------------------------------------------------- */

static void print_event(const dbha_event *event, const char *node, bool json)
{
	char moment[CLI_MOMENT_MAX];
	if (json) {
		printf("{\"unix_us\": %" PRId64 ", \"event\": \"%s\", \"node\": ", event->unix_us,
		       dbha_event_name(event->kind));
		cli_json_string(stdout, node);
		printf(", \"timeline\": %" PRIu32 ", \"text\": ", event->timeline);
		cli_json_string(stdout, event->text);
		puts("}");
	} else {
		printf("%s  %-11s  %s\n", cli_moment(event->unix_us, moment), dbha_event_name(event->kind), event->text);
	}
	fflush(stdout);
}

/* With the name that its node has now: with discover=dns nodes come and go. */
static void print_with_name(dbha *h, const dbha_event *event, bool json)
{
	dbha_cluster_status cluster;
	dbha_node_status *nodes = cli_nodes(h, &cluster);
	bool named = nodes != NULL && event->node >= 0 && event->node < cluster.nodes && nodes[event->node].name[0] != '\0';
	print_event(event, named ? nodes[event->node].name : NULL, json);
	free(nodes);
}

/* Prints all events there are. Returns false on an error, after printing it. */
static bool drain_events(dbha *h, bool json)
{
	dbha_error err;
	dbha_event event = {.size = sizeof(event)};
	int got;
	while ((got = dbha_next_event(h, &event, &err)) > 0)
		print_with_name(h, &event, json);
	if (got < 0)
		cli_print_error(&err);
	return got == 0;
}

/* duration_ms 0: until killed. */
static int follow_events(dbha *h, int duration_ms, bool json)
{
	/* The first call that needs the cluster starts the observation; what it finds comes as events. */
	dbha_wait(h, DBHA_WAIT_ANY, 1, NULL);
	int64_t end_us = cli_monotonic_us() + (int64_t)duration_ms * 1000;
	int status = CLI_DONE;
	for (;;) {
		bool last = duration_ms > 0 && cli_monotonic_us() >= end_us;
		if (!drain_events(h, json))
			status = CLI_FAILED;
		if (last || status != CLI_DONE)
			break;
		nanosleep(&(struct timespec){.tv_nsec = 20 * 1000000}, NULL);
	}
	return status;
}

int cmd_events(int argc, char **argv)
{
	static const struct option accepted[] = {{"duration", required_argument, NULL, 'd'},
	                                         {"json", no_argument, NULL, 'j'},
	                                         {"help", no_argument, NULL, 'h'},
	                                         {NULL, 0, NULL, 0}};
	bool json = false;
	int duration_ms = 0;
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(events_help, stdout);
			return CLI_DONE;
		}
		if (c == 'j')
			json = true;
		else if (c != 'd' || !cli_duration("--duration", optarg, &duration_ms))
			return CLI_USAGE;
	}
	const char *url;
	dbha *h = cli_url(argc, argv, &url) ? cli_open(url) : NULL;
	if (h == NULL)
		return CLI_USAGE;
	int status = follow_events(h, duration_ms, json);
	dbha_close(h, 0);
	return status;
}
