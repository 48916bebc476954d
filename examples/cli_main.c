/*
 * cli_main.c: the entry of the command `dbha`: finds the command asked for, and reads the kinds of arguments that
 * several commands have. The commands themselves are in cmd_*.c; none of them uses more of the library than dbha.h.
 */
#include "cli.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int cmd_options(int argc, char **argv);

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *text;
} commands[] = {
    {"status", cmd_status, "show the nodes of a cluster: role, state, timeline, lag"},
    {"exec", cmd_exec, "run one statement on the right node"},
    {"wait", cmd_wait, "wait until there is a primary, a standby, any node or all of them"},
    {"events", cmd_events, "print what happens to the cluster, as it happens"},
    {"listen", cmd_listen, "print notifications as they come, through any failover"},
    {"drill", cmd_drill, "write and read through a failover, and judge what became of every row"},
    {"outcome-table", cmd_outcome_table, "make, prune or drop the table that tells the outcome of lost COMMITs"},
    {"options", cmd_options, "list the options of the library"},
};

#define N_COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* --------------------------------------------------------------------------------------------------------------- */

void cli_complain(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	fputs("dbha: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
}

void cli_print_error(const dbha_error *err)
{
	cli_complain("%s", err->message);
	fprintf(stderr, "      SQLSTATE %s (%s)", err->sqlstate, dbha_code_name(err->code));
	if (err->node[0] != '\0')
		fprintf(stderr, ", node %s", err->node);
	if (err->attempts > 1)
		fprintf(stderr, ", %d attempts", err->attempts);
	if (err->outcome_unknown)
		fputs("; whether it was executed cannot be known", stderr);
	else if (err->retry_safe)
		fputs("; nothing was done, it may be run again", stderr);
	fputc('\n', stderr);
}

bool cli_duration(const char *option, const char *text, int *ms)
{
	static const struct {
		const char *name;
		double ms;
	} units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}, {"d", 86400000}};

	char *unit;
	double value = strtod(text, &unit);
	while (*unit == ' ')
		unit++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		double total = value * units[i].ms;
		if (strcmp(unit, units[i].name) == 0 && total >= 1 && total <= INT_MAX) {
			*ms = (int)total;
			return true;
		}
	}
	cli_complain("%s: \"%s\" is not a time: a number and a unit, such as 200ms, 5s, 1min, from 1ms to 24d", option,
	             text);
	return false;
}

bool cli_integer(const char *option, const char *text, int min, int max, int *value)
{
	char *end;
	errno = 0;
	long number = strtol(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || number < min || number > max) {
		cli_complain("%s: \"%s\" is not a whole number from %d to %d", option, text, min, max);
		return false;
	}
	*value = (int)number;
	return true;
}

int cli_choice(const char *option, const char *text, const char *const *words)
{
	for (int i = 0; words[i] != NULL; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	fprintf(stderr, "dbha: %s: \"%s\" is none of:", option, text);
	for (int i = 0; words[i] != NULL; i++)
		fprintf(stderr, " %s", words[i]);
	fputc('\n', stderr);
	return -1;
}

bool cli_url(int argc, char **argv, const char **url)
{
	*url = optind < argc ? argv[optind] : NULL;
	if (optind + 1 >= argc)
		return true;
	cli_complain("too many arguments: \"%s\"", argv[optind + 1]);
	return false;
}

int64_t cli_monotonic_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* --------------------------------------------------------------------------------------------------------------- */

dbha_config *cli_config(const char *url)
{
	dbha_error err;
	dbha_config *config = dbha_config_new(url, &err);
	if (config != NULL && dbha_config_set(config, "client_encoding", "UTF8", &err) == DBHA_OK &&
	    dbha_config_set(config, "fallback_application_name", "dbha", &err) == DBHA_OK)
		return config;
	cli_print_error(&err);
	dbha_config_free(config);
	return NULL;
}

dbha *cli_open(const char *url)
{
	dbha_config *config = cli_config(url);
	if (config == NULL)
		return NULL;
	dbha_error err;
	dbha *h = dbha_open_config(config, &err);
	if (h == NULL)
		cli_print_error(&err);
	dbha_config_free(config);
	return h;
}

dbha_node_status *cli_nodes(dbha *h, dbha_cluster_status *cluster)
{
	dbha_error err;
	*cluster = (dbha_cluster_status){.size = sizeof(*cluster)};
	if (dbha_status(h, cluster, NULL, 0, &err) < 0) {
		cli_print_error(&err);
		return NULL;
	}
	int room = cluster->nodes;
	dbha_node_status *nodes = calloc((size_t)room + 1, sizeof(*nodes));
	if (nodes == NULL) {
		cli_complain("out of memory");
		return NULL;
	}
	nodes[0].size = sizeof(nodes[0]);
	cluster->nodes = dbha_status(h, cluster, nodes, room, &err);
	if (cluster->nodes < 0) {
		cli_print_error(&err);
		free(nodes);
		return NULL;
	}
	return nodes;
}

/* --------------------------------------------------------------------------------------------------------------- */

static const char options_help[] =
    "usage: dbha options [--markdown]\n"
    "\n"
    "Lists the library's own options: for the URL, for dbha_config_set, and, in capitals with DBHA_ in front, for the\n"
    "environment. Those of libpq (sslmode, passfile, application_name ...) are accepted as well.\n"
    "\n"
    "      --markdown       a table for a README\n";

/* For a terminal: the texts are too long for a table. */
static void list_options(void)
{
	const dbha_option_info *option;
	for (int i = 0; (option = dbha_option(i)) != NULL; i++)
		printf("%s (%s, default %s)\n    %s\n    %s\n", option->name, option->type,
		       option->default_value[0] != '\0' ? option->default_value : "none", option->accepted, option->text);
}

static bool tabulate_options(void)
{
	static const char *const names[] = {"option", "type", "default", "accepted", "what it does"};
	static const enum cli_kind kinds[] = {CLI_TEXT, CLI_TEXT, CLI_TEXT, CLI_TEXT, CLI_TEXT};
	int rows = 0;
	while (dbha_option(rows) != NULL)
		rows++;
	const char **cells = calloc((size_t)rows * 5 + 1, sizeof(*cells));
	if (cells == NULL)
		return false;
	for (int i = 0; i < rows; i++) {
		const dbha_option_info *option = dbha_option(i);
		const char **row = cells + (size_t)i * 5;
		row[0] = option->name;
		row[1] = option->type;
		row[2] = option->default_value;
		row[3] = option->accepted;
		row[4] = option->text;
	}
	bool printed = cli_table_print(stdout, &(struct cli_table){5, rows, names, kinds, cells}, CLI_MARKDOWN);
	free(cells);
	return printed;
}

static int cmd_options(int argc, char **argv)
{
	static const struct option accepted[] = {
	    {"markdown", no_argument, NULL, 'm'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	bool markdown = false;
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(options_help, stdout);
			return CLI_DONE;
		}
		if (c != 'm')
			return CLI_USAGE;
		markdown = true;
	}
	if (optind < argc) {
		cli_complain("too many arguments: \"%s\"", argv[optind]);
		return CLI_USAGE;
	}
	if (markdown)
		return tabulate_options() ? CLI_DONE : CLI_FAILED;
	list_options();
	return CLI_DONE;
}

/* --------------------------------------------------------------------------------------------------------------- */

static void print_help(FILE *out)
{
	fputs("usage: dbha COMMAND [URL] [OPTION]...\n\n", out);
	for (size_t i = 0; i < N_COMMANDS; i++)
		fprintf(out, "  %-13s  %s\n", commands[i].name, commands[i].text);
	fputs("\n"
	      "`dbha COMMAND --help` says more about a command; `dbha --version` prints the version.\n"
	      "\n"
	      "URL is postgresql://user@host1:5432,host2:5432/database?option=value or \"host=host1,host2 ...\". Left out, "
	      "it\n"
	      "is taken from DATABASE_URL, else from DB_HOST DB_PORT DB_NAME DB_USER DB_PASS, else from libpq's PG* "
	      "variables.\n",
	      out);
}

/* argv[1] is the name of the command; it becomes the command's argv[0], for getopt's messages. */
static int run_command(const struct command *command, int argc, char **argv)
{
	char title[32];
	snprintf(title, sizeof(title), "dbha %s", command->name);
	argv[1] = title;
	int status = command->run(argc - 1, argv + 1);
	/* A full disk or a closed pipe is a failure too: what the caller asked for is not there. */
	if (fflush(stdout) != 0 || ferror(stdout)) {
		cli_complain("cannot write to standard output");
		if (status == CLI_DONE)
			status = CLI_FAILED;
	}
	return status;
}

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(name, commands[i].name) == 0)
			return run_command(&commands[i], argc, argv);
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
		printf("dbha %s\n", dbha_version());
		return CLI_DONE;
	}
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
		print_help(stdout);
		return CLI_DONE;
	}
	if (name[0] != '\0')
		cli_complain("there is no command \"%s\"", name);
	print_help(stderr);
	return CLI_USAGE;
}
