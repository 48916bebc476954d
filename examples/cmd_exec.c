/*
 * cmd_exec.c: `dbha exec`, one statement through dbha_exec and its result as a table, CSV or JSON.
 */
#include "cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <stdlib.h>
#include <string.h>

static const char exec_help[] =
    "usage: dbha exec [URL] SQL [OPTION]...\n"
    "\n"
    "Runs one statement on the right node, again where that is certainly harmless, and prints its result.\n"
    "\n"
    "      --read           it changes nothing: a standby if there is one, else the primary\n"
    "      --write          the primary\n"
    "                       (neither: the node that target_session_attrs of the URL names; with routing=auto\n"
    "                       the statement itself decides)\n"
    "      --idempotent     it may be executed more than once: run it again when its fate is unknown\n"
    "  -p, --param VALUE    the next parameter, $1, $2 ...\n"
    "      --null           the next parameter is NULL\n"
    "      --format FORMAT  aligned (the default), csv or json\n"
    "      --timeout TIME   for everything: name lookup, connecting, waiting, execution, retries (call_timeout)\n"
    "      --consistency WORD  how fresh a read has to be: session, bounded, eventual or primary (consistency)\n"
    "      --token TOKEN    a read sees at least what is behind it: what another session had written or seen\n"
    "      --where          say on stderr which node did it, in how many attempts, and how long it took\n"
    "      --explain-route  say on stderr where it went, and why\n"
    "\n"
    "With one argument, it is SQL, and the URL comes from the environment.\n"
    "\n"
    "Exit status: 0 done; 1 failed, and certainly not executed; 2 a bad argument, option or URL; 3 failed, and "
    "whether\n"
    "it was executed cannot be known.\n";

struct exec_args {
	const char *url;
	const char *sql;
	dbha_intent intent;
	uint32_t flags;
	enum cli_format format;
	int timeout_ms;
	bool where, explain;
	int consistency; /* a dbha_consistency */
	const char *token;
	int n_params;
	const char **params; /* owned; room for as many as there are arguments */
};

enum {
	OPT_READ = CLI_OPT_FIRST,
	OPT_WRITE,
	OPT_IDEMPOTENT,
	OPT_NULL,
	OPT_FORMAT,
	OPT_TIMEOUT,
	OPT_WHERE,
	OPT_EXPLAIN,
	OPT_CONSISTENCY,
	OPT_TOKEN
};

static const struct option accepted[] = {{"read", no_argument, NULL, OPT_READ},
                                         {"write", no_argument, NULL, OPT_WRITE},
                                         {"idempotent", no_argument, NULL, OPT_IDEMPOTENT},
                                         {"param", required_argument, NULL, 'p'},
                                         {"null", no_argument, NULL, OPT_NULL},
                                         {"format", required_argument, NULL, OPT_FORMAT},
                                         {"timeout", required_argument, NULL, OPT_TIMEOUT},
                                         {"where", no_argument, NULL, OPT_WHERE},
                                         {"explain-route", no_argument, NULL, OPT_EXPLAIN},
                                         {"consistency", required_argument, NULL, OPT_CONSISTENCY},
                                         {"token", required_argument, NULL, OPT_TOKEN},
                                         {"help", no_argument, NULL, 'h'},
                                         {NULL, 0, NULL, 0}};

static bool set_intent(struct exec_args *args, dbha_intent intent)
{
	if (args->intent != DBHA_DEFAULT && args->intent != intent) {
		cli_complain("--read and --write contradict each other");
		return false;
	}
	args->intent = intent;
	return true;
}

static bool set_format(struct exec_args *args, const char *word)
{
	static const char *const words[] = {"aligned", "csv", "json", NULL};
	int choice = cli_choice("--format", word, words);
	args->format = choice == 1 ? CLI_CSV : choice == 2 ? CLI_JSON : CLI_ALIGNED;
	return choice >= 0;
}

static bool set_consistency(struct exec_args *args, const char *word)
{
	static const char *const words[] = {"session", "bounded", "eventual", "primary", NULL};
	int choice = cli_choice("--consistency", word, words);
	args->consistency = choice + DBHA_CONSISTENCY_SESSION;
	return choice >= 0;
}

static bool take_option(struct exec_args *args, int c)
{
	switch (c) {
	case OPT_READ:
		return set_intent(args, DBHA_READ);
	case OPT_WRITE:
		return set_intent(args, DBHA_WRITE);
	case OPT_IDEMPOTENT:
		args->flags |= DBHA_IDEMPOTENT;
		return true;
	case 'p':
		args->params[args->n_params++] = optarg;
		return true;
	case OPT_NULL:
		args->params[args->n_params++] = NULL;
		return true;
	case OPT_FORMAT:
		return set_format(args, optarg);
	case OPT_TIMEOUT:
		return cli_duration("--timeout", optarg, &args->timeout_ms);
	case OPT_WHERE:
		args->where = true;
		return true;
	case OPT_EXPLAIN:
		args->explain = true;
		return true;
	case OPT_CONSISTENCY:
		return set_consistency(args, optarg);
	case OPT_TOKEN:
		args->token = optarg;
		return true;
	default:
		return false; /* getopt has said what is wrong */
	}
}

static bool take_positional(struct exec_args *args, int n, char **argv)
{
	if (n < 1 || n > 2) {
		cli_complain(n < 1 ? "a statement is missing; see dbha exec --help"
		                   : "too many arguments: a statement with spaces must be quoted");
		return false;
	}
	args->url = n == 2 ? argv[0] : NULL;
	args->sql = argv[n - 1];
	return true;
}

/* --------------------------------------------------------------------------------------------------------------- */

/* How the values of a type are written in JSON. The numbers are those of pg_type.dat, which never change. */
static enum cli_kind kind_of_type(Oid type)
{
	switch (type) {
	case 16: /* boolean */
		return CLI_BOOLEAN;
	case 20:   /* bigint */
	case 21:   /* smallint */
	case 23:   /* integer */
	case 26:   /* oid */
	case 700:  /* real */
	case 701:  /* double precision */
	case 1700: /* numeric */
		return CLI_NUMBER;
	case 114:  /* json */
	case 3802: /* jsonb */
		return CLI_VERBATIM;
	default:
		return CLI_TEXT;
	}
}

static bool print_rows(const PGresult *result, enum cli_format format)
{
	int columns = PQnfields(result);
	int rows = PQntuples(result);
	const char **names = calloc((size_t)columns + 1, sizeof(*names));
	enum cli_kind *kinds = calloc((size_t)columns + 1, sizeof(*kinds));
	const char **cells = calloc((size_t)columns * (size_t)rows + 1, sizeof(*cells));
	bool printed = false;
	if (names == NULL || kinds == NULL || cells == NULL)
		goto done;
	for (int column = 0; column < columns; column++) {
		names[column] = PQfname(result, column);
		kinds[column] = kind_of_type(PQftype(result, column));
	}
	size_t i = 0;
	for (int row = 0; row < rows; row++)
		for (int column = 0; column < columns; column++)
			cells[i++] = PQgetisnull(result, row, column) ? NULL : PQgetvalue(result, row, column);
	printed = cli_table_print(stdout, &(struct cli_table){columns, rows, names, kinds, cells}, format);
	if (format == CLI_ALIGNED)
		printf("(%d %s)\n", rows, rows == 1 ? "row" : "rows");
done:
	free(cells);
	free(kinds);
	free(names);
	return printed;
}

/* A statement without rows: psql's command tag for people and in JSON; nothing in CSV, which has no place for it. */
static void print_tag(PGresult *result, enum cli_format format)
{
	if (format == CLI_ALIGNED)
		puts(PQcmdStatus(result));
	if (format != CLI_JSON)
		return;
	printf("{\"command\": ");
	cli_json_string(stdout, PQcmdStatus(result));
	printf(", \"rows\": %s}\n", *PQcmdTuples(result) != '\0' ? PQcmdTuples(result) : "null");
}

static int print_result(PGresult *result, enum cli_format format)
{
	switch (PQresultStatus(result)) {
	case PGRES_TUPLES_OK:
		if (print_rows(result, format))
			return CLI_DONE;
		cli_complain("out of memory");
		return CLI_FAILED;
	case PGRES_COMMAND_OK:
	case PGRES_EMPTY_QUERY:
		print_tag(result, format);
		return CLI_DONE;
	default:
		cli_complain("dbha exec cannot show such a result: %s", PQresStatus(PQresultStatus(result)));
		return CLI_FAILED;
	}
}

static void print_field(const PGresult *result, const char *label, int field)
{
	const char *text = PQresultErrorField(result, field);
	if (text != NULL)
		fprintf(stderr, "      %s: %s\n", label, text);
}

static int print_failure(const dbha_error *err, const PGresult *result)
{
	cli_print_error(err);
	if (result != NULL) {
		print_field(result, "DETAIL", PG_DIAG_MESSAGE_DETAIL);
		print_field(result, "HINT", PG_DIAG_MESSAGE_HINT);
		print_field(result, "CONTEXT", PG_DIAG_CONTEXT);
		print_field(result, "at character", PG_DIAG_STATEMENT_POSITION);
	}
	return err->outcome_unknown ? CLI_UNKNOWN : CLI_FAILED;
}

static void print_attempts(const dbha_result_route *route)
{
	fprintf(stderr, "%d %s", (int)route->attempts, route->attempts == 1 ? "attempt" : "attempts");
}

static void print_where(const dbha_result_route *route, int64_t started_us)
{
	double ms = (double)(cli_monotonic_us() - started_us) / 1000;
	if (route->node[0] != '\0')
		fprintf(stderr, "node %s (%s), ", route->node, dbha_role_name(route->role));
	print_attempts(route);
	fprintf(stderr, ", %.1f ms with connecting\n", ms);
}

/* In one line: "route: read on h2:5432 (standby, lag 12 ms, 0 bytes), 1 attempt; read: a read, which any standby may serve". */
static void print_route(const dbha_result_route *route)
{
	static const char *const intents[] = {"default", "read", "write"};
	bool known = route->intent >= DBHA_DEFAULT && route->intent <= DBHA_WRITE;
	fprintf(stderr, "route: %s", known ? intents[route->intent] : "?");
	if (route->node[0] != '\0')
		fprintf(stderr, " on %s (%s", route->node, dbha_role_name(route->role));
	if (route->node[0] != '\0' && route->role == DBHA_ROLE_STANDBY && route->lag_ms >= 0)
		fprintf(stderr, ", lag %" PRId64 " ms, %" PRId64 " bytes", route->lag_ms, route->lag_bytes);
	fprintf(stderr, "%s, ", route->node[0] != '\0' ? ")" : "");
	print_attempts(route);
	fprintf(stderr, "; %s: %s%s%s\n", dbha_reason_name(route->reason), dbha_reason_text(route->reason),
	        route->why[0] != '\0' ? "; " : "", route->why);
}

static int run_statement(dbha *h, const struct exec_args *args)
{
	dbha_result_route route = {.size = sizeof(route)};
	dbha_request request =
	    DBHA_REQUEST(.sql = args->sql, .intent = args->intent, .flags = args->flags | DBHA_UNPREPARED,
	                 .timeout_ms = args->timeout_ms, .n_params = args->n_params, .values = args->params,
	                 .consistency = args->consistency, .token = args->token, .route = &route);
	dbha_error err;
	PGresult *result;
	int64_t started_us = cli_monotonic_us();
	int status = dbha_exec(h, &request, &result, &err) == DBHA_OK ? print_result(result, args->format)
	                                                              : print_failure(&err, result);
	if (args->where)
		print_where(&route, started_us);
	if (args->explain)
		print_route(&route);
	PQclear(result);
	return status;
}

int cmd_exec(int argc, char **argv)
{
	struct exec_args args = {.format = CLI_ALIGNED, .params = calloc((size_t)argc + 1, sizeof(char *))};
	dbha *h = NULL;
	int status = CLI_USAGE;
	if (args.params == NULL)
		goto done;
	for (int c; (c = getopt_long(argc, argv, "p:h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(exec_help, stdout);
			status = CLI_DONE;
			goto done;
		}
		if (!take_option(&args, c))
			goto done;
	}
	if (!take_positional(&args, argc - optind, argv + optind))
		goto done;
	h = cli_open(args.url);
	if (h != NULL)
		status = run_statement(h, &args);
done:
	dbha_close(h, 0);
	free(args.params);
	return status;
}
