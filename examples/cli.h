/*
 * cli.h: what the commands of `dbha` share: their entry points, exit statuses, the reading of arguments, and output.
 */
#ifndef CLI_H
#define CLI_H

#include <dbha.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Exit statuses of every command except `status`, which has those of pg_isready (see cmd_status.c). */
#define CLI_DONE    0 /* done */
#define CLI_FAILED  1 /* it was tried and failed, or the verdict is bad */
#define CLI_USAGE   2 /* nothing was tried: a bad argument, option or URL */
#define CLI_UNKNOWN 3 /* `exec` only: the statement may or may not have been executed */

/* Values of options that have no letter; `getopt_long` returns them. */
#define CLI_OPT_FIRST 256

/*
 * The commands. argv[0] is "dbha NAME", for getopt's own messages; the rest is what follows the name of the command.
 * Each returns the exit status of the process.
 */
int cmd_status(int argc, char **argv);
int cmd_exec(int argc, char **argv);
int cmd_wait(int argc, char **argv);
int cmd_events(int argc, char **argv);
int cmd_listen(int argc, char **argv);
int cmd_drill(int argc, char **argv);
int cmd_outcome_table(int argc, char **argv);

/* ---------------------------------------------------------------------------------------------------------------
 * Arguments and errors (cli_main.c)
 */

/* Prints "dbha: " and the message on stderr. */
void cli_complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints an error of the library on stderr, with its SQLSTATE, its node, and whether a retry is safe. */
void cli_print_error(const dbha_error *err);

/* Reads "200ms", "5s", "1.5min", "1h", "1d" into milliseconds, 1 at least. Otherwise complains and returns false. */
bool cli_duration(const char *option, const char *text, int *ms);

/* Reads a whole number from min to max. Otherwise complains and returns false. */
bool cli_integer(const char *option, const char *text, int min, int max, int *value);

/* The index of a word in a list that NULL ends, or -1 after a complaint that names all of them. */
int cli_choice(const char *option, const char *text, const char *const *words);

/*
 * The one positional argument that a command may have, its URL; NULL (the environment) if it was left out. Complains
 * and returns false if there are more.
 */
bool cli_url(int argc, char **argv, const char **url);

/* A configuration from the URL (NULL: the environment), talking UTF-8 as this program does. NULL after a complaint. */
dbha_config *cli_config(const char *url);

/* The same, opened. NULL after a complaint. The caller ends it with dbha_close. */
dbha *cli_open(const char *url);

/*
 * The cluster and all of its nodes as the handle sees them now; `cluster->nodes` says how many. NULL after a complaint.
 * The caller frees the array.
 */
dbha_node_status *cli_nodes(dbha *h, dbha_cluster_status *cluster);

int64_t cli_monotonic_us(void);

/* ---------------------------------------------------------------------------------------------------------------
 * Output (cli_output.c)
 */
enum cli_format {
	CLI_ALIGNED, /* for people, as psql draws it */
	CLI_CSV,     /* RFC 4180 with a header; NULL is empty, an empty text is "" */
	CLI_JSON,    /* an array of one object per row */
	CLI_MARKDOWN
};

enum cli_kind {
	CLI_TEXT,
	CLI_NUMBER,  /* a number in JSON, unless it is NaN or Infinity; to the right in a table */
	CLI_BOOLEAN, /* PostgreSQL's "t" and "f" */
	CLI_VERBATIM /* JSON already */
};

/* A table of texts. Everything is borrowed; `cells` goes row by row, and NULL in it is SQL NULL. */
struct cli_table {
	int columns;
	int rows;
	const char *const *names;
	const enum cli_kind *kinds;
	const char *const *cells;
};

/* Prints a table. Returns false if there was no memory for it. */
bool cli_table_print(FILE *out, const struct cli_table *table, enum cli_format format);

/* Prints a JSON string with its quotes, or null for NULL. Bytes that are not UTF-8 become U+FFFD. */
void cli_json_string(FILE *out, const char *text);

/* A WAL position as PostgreSQL writes it, "0/3000148"; "-" for 0. */
#define CLI_LSN_MAX 24
const char *cli_lsn(uint64_t lsn, char buffer[CLI_LSN_MAX]);

/* A moment as "2025-11-21 10:02:03.123456", local time. */
#define CLI_MOMENT_MAX 40
const char *cli_moment(int64_t unix_us, char buffer[CLI_MOMENT_MAX]);

#endif
