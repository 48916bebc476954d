/*
 * cmd_outcome_table.c: `dbha outcome-table`: makes the table in which write transactions leave a row each, deletes its old rows, or
 * takes it away. Its name is that of the option outcome_table.
 */
#include "cli.h"

#include <getopt.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

/* A row must outlive every call that may still ask for it. */
#define AGE_MIN_MS 60000

static const char help[] =
    "usage: dbha outcome-table [URL] --create | --prune AGE | --drop\n"
    "\n"
    "The table that the option outcome_table names. Each transaction of a session that writes leaves a row in it, by "
    "which\n"
    "the library finds out what became of a COMMIT whose answer was lost, also where the server's own status cannot "
    "tell.\n"
    "\n"
    "      --create     makes the table, if there is none\n"
    "      --prune AGE  deletes the rows of transactions that began longer ago, 1min at least: more than the longest\n"
    "                   transaction and call_timeout together\n"
    "      --drop       takes the table away; while sessions use outcome_table, their transactions then fail\n"
    "\n"
    "Exit status: 0 done; 1 it failed; 2 a bad argument, option or URL, or outcome_table is not set.\n";

enum action { ACTION_NONE, ACTION_CREATE, ACTION_PRUNE, ACTION_DROP };

/* Quotes the name as the library does: what is before a dot is the schema, and each part is taken literally. */
static bool quote(dbha *h, const char *name, char *quoted, size_t size)
{
	dbha_error err;
	dbha_conn *lease = dbha_acquire(h, DBHA_WRITE, 0, &err);
	if (lease == NULL) {
		cli_print_error(&err);
		return false;
	}
	PGconn *pg = dbha_conn_pq(lease);
	const char *dot = strchr(name, '.');
	const char *table = dot != NULL ? dot + 1 : name;
	char *schema_text = dot != NULL ? PQescapeIdentifier(pg, name, (size_t)(dot - name)) : NULL;
	char *table_text = PQescapeIdentifier(pg, table, strlen(table));
	bool good = table_text != NULL && (dot == NULL || schema_text != NULL);
	if (good)
		snprintf(quoted, size, "%s%s%s", dot != NULL ? schema_text : "", dot != NULL ? "." : "", table_text);
	else
		cli_complain("outcome_table \"%s\": %s", name, PQerrorMessage(pg));
	PQfreemem(schema_text);
	PQfreemem(table_text);
	dbha_release(lease);
	return good;
}

static int run(dbha *h, const char *sql, const char *param)
{
	const char *const params[] = {param};
	PGresult *result;
	dbha_error err;
	dbha_request request = DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE, .flags = DBHA_IDEMPOTENT | DBHA_UNPREPARED,
	                                    .n_params = param != NULL, .values = params);
	int code = dbha_exec(h, &request, &result, &err);
	if (code != DBHA_OK)
		cli_print_error(&err);
	else
		puts(PQcmdStatus(result));
	PQclear(result);
	return code == DBHA_OK ? CLI_DONE : CLI_FAILED;
}

static int act(dbha *h, enum action action, const char *name, int age_ms)
{
	char quoted[300], sql[400], age[40];
	if (!quote(h, name, quoted, sizeof(quoted)))
		return CLI_FAILED;
	switch (action) {
	case ACTION_CREATE:
		snprintf(sql, sizeof(sql),
		         "CREATE TABLE IF NOT EXISTS %s (token uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now())",
		         quoted);
		return run(h, sql, NULL);
	case ACTION_PRUNE:
		snprintf(sql, sizeof(sql), "DELETE FROM %s WHERE at < now() - $1::interval", quoted);
		snprintf(age, sizeof(age), "%d milliseconds", age_ms);
		return run(h, sql, age);
	case ACTION_DROP:
		snprintf(sql, sizeof(sql), "DROP TABLE IF EXISTS %s", quoted);
		return run(h, sql, NULL);
	case ACTION_NONE:
		break;
	}
	return CLI_USAGE;
}

/* Exactly one of the three. */
static bool choose(enum action *action, enum action chosen)
{
	if (*action != ACTION_NONE) {
		cli_complain("one of --create, --prune and --drop, not several");
		return false;
	}
	*action = chosen;
	return true;
}

static int open_and_act(const char *url, enum action action, int age_ms)
{
	dbha_config *config = cli_config(url);
	if (config == NULL)
		return CLI_USAGE;
	const char *set = dbha_config_get(config, "outcome_table");
	char *name = set != NULL ? strdup(set) : NULL;
	dbha_config_free(config);
	if (name == NULL) {
		cli_complain(
		    "outcome_table is not set: name the table in the URL (?outcome_table=NAME) or in DBHA_OUTCOME_TABLE");
		return CLI_USAGE;
	}
	dbha *h = cli_open(url);
	int status = h != NULL ? act(h, action, name, age_ms) : CLI_USAGE;
	dbha_close(h, 0);
	free(name);
	return status;
}

int cmd_outcome_table(int argc, char **argv)
{
	static const struct option accepted[] = {{"create", no_argument, NULL, 'c'},
	                                         {"prune", required_argument, NULL, 'p'},
	                                         {"drop", no_argument, NULL, 'd'},
	                                         {"help", no_argument, NULL, 'h'},
	                                         {NULL, 0, NULL, 0}};
	enum action action = ACTION_NONE;
	const char *url;
	int age_ms = 0;
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(help, stdout);
			return CLI_DONE;
		}
		if (c == '?' || !choose(&action, c == 'c' ? ACTION_CREATE : c == 'p' ? ACTION_PRUNE : ACTION_DROP))
			return CLI_USAGE;
		if (c == 'p' && !cli_duration("--prune", optarg, &age_ms))
			return CLI_USAGE;
	}
	if (action == ACTION_PRUNE && age_ms < AGE_MIN_MS) {
		cli_complain("--prune: at least 1min, or rows would go that are still asked for");
		return CLI_USAGE;
	}
	if (action == ACTION_NONE) {
		cli_complain("one of --create, --prune AGE and --drop is needed");
		return CLI_USAGE;
	}
	return cli_url(argc, argv, &url) ? open_and_act(url, action, age_ms) : CLI_USAGE;
}
