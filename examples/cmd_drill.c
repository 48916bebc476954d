/*
 * cmd_drill.c: `dbha drill`, a failover drill against any cluster: its arguments, and the drill as a story.
 *
 * Threads write rows with numbers of their own and read them back, all through the library, while somebody kills,
 * promotes and restarts servers. In the end every row is compared with what its writer was told.
 */
#include "drill.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

static const char drill_help[] =
    "usage: dbha drill [URL] [OPTION]...\n"
    "\n"
    "Writes numbered rows and reads them through the library while you make the cluster fail over, then says what "
    "became\n"
    "of every row: acknowledged, lost, duplicated, unknown; which reads failed; how long nothing was answered, and "
    "why;\n"
    "and whether anything was written to a stale primary. It works in a table of its own, dbha_drill_*, which it "
    "drops.\n"
    "\n"
    "      --writers N         threads that write (4)\n"
    "      --readers N         threads that read (4)\n"
    "      --duration TIME     how long (30s); Ctrl-C ends it earlier, a second one without a verdict\n"
    "      --rate N            calls per second of each thread at most (200); 0: as many as it can\n"
    "      --call-timeout TIME deadline of each call (10s)\n"
    "      --json FILE         write the verdict as one line of JSON; -: to standard output, as its last line\n"
    "      --keep-table        do not drop the table\n"
    "\n"
    "Reads prefer standbys; on an asynchronous one they may show the past. That is counted and is no failure.\n"
    "\n"
    "Exit status: 0 something was acknowledged, and nothing is lost, duplicated, stale, reported wrongly or "
    "unreadable;\n"
    "1 otherwise; 2 a bad argument, option or URL.\n";

enum { OPT_WRITERS = CLI_OPT_FIRST, OPT_READERS, OPT_DURATION, OPT_RATE, OPT_CALL_TIMEOUT, OPT_JSON, OPT_KEEP_TABLE };

static const struct option accepted[] = {{"writers", required_argument, NULL, OPT_WRITERS},
                                         {"readers", required_argument, NULL, OPT_READERS},
                                         {"duration", required_argument, NULL, OPT_DURATION},
                                         {"rate", required_argument, NULL, OPT_RATE},
                                         {"call-timeout", required_argument, NULL, OPT_CALL_TIMEOUT},
                                         {"json", required_argument, NULL, OPT_JSON},
                                         {"keep-table", no_argument, NULL, OPT_KEEP_TABLE},
                                         {"help", no_argument, NULL, 'h'},
                                         {NULL, 0, NULL, 0}};

static bool take_option(struct drill_options *options, int c)
{
	switch (c) {
	case OPT_WRITERS:
		return cli_integer("--writers", optarg, 1, 1000, &options->writers);
	case OPT_READERS:
		return cli_integer("--readers", optarg, 0, 1000, &options->readers);
	case OPT_DURATION:
		return cli_duration("--duration", optarg, &options->duration_ms);
	case OPT_RATE:
		return cli_integer("--rate", optarg, 0, 100000, &options->rate);
	case OPT_CALL_TIMEOUT:
		return cli_duration("--call-timeout", optarg, &options->call_timeout_ms);
	case OPT_JSON:
		options->json_path = optarg;
		return true;
	case OPT_KEEP_TABLE:
		options->keep_table = true;
		return true;
	default:
		return false; /* getopt has said what is wrong */
	}
}

/* --------------------------------------------------------------------------------------------------------------- */

/* SIGINT and SIGTERM wait until drill_watch asks for them; every thread inherits this. */
static void hold_signals(int how)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	pthread_sigmask(how, &signals, NULL);
}

/*
 * How long without an answer is an outage although nothing failed: 100 ms, unless the drill itself calls so rarely that
 * this is its ordinary pause.
 */
static int64_t quiet_us(int workers, int rate)
{
	int64_t pace_us = workers > 0 && rate > 0 ? 1000000 / ((int64_t)workers * rate) : 0;
	return pace_us * 5 > 100000 ? pace_us * 5 : 100000;
}

static bool init_drill(struct drill *d)
{
	const struct drill_options *o = &d->options;
	drill_gauge_init(&d->write_gauge, false, quiet_us(o->writers, o->rate));
	drill_gauge_init(&d->read_gauge, true, quiet_us(o->readers, o->rate));
	d->writers = calloc((size_t)o->writers, sizeof(*d->writers));
	d->readers = calloc((size_t)o->readers + 1, sizeof(*d->readers));
	if (d->writers != NULL && d->readers != NULL)
		return true;
	cli_complain("out of memory");
	return false;
}

static void fini_drill(struct drill *d)
{
	for (int i = 0; d->writers != NULL && i < d->options.writers; i++)
		drill_ledger_free(&d->writers[i].ledger);
	for (int i = 0; d->readers != NULL && i < d->options.readers; i++)
		free(d->readers[i].highest);
	free(d->writers);
	free(d->readers);
	free(d->events);
	free(d->verdict.nodes);
	drill_gauge_free(&d->write_gauge);
	drill_gauge_free(&d->read_gauge);
	dbha_close(d->h, 0);
}

/* Waits for the cluster, says what the drill will do, and makes its table. */
static bool prepare(struct drill *d)
{
	const struct drill_options *o = &d->options;
	dbha_error err;
	if (dbha_wait(d->h, DBHA_WAIT_PRIMARY, o->call_timeout_ms, &err) != DBHA_OK) {
		cli_print_error(&err);
		return false;
	}
	/* The standbys are wanted too, but a drill of a cluster that lacks one is a fair drill. */
	dbha_wait(d->h, DBHA_WAIT_PROBED, o->call_timeout_ms, NULL);
	if (!drill_table_create(d))
		return false;
	drill_table_await(d);
	printf("%d writers and %d readers for %.1f s, ", o->writers, o->readers, (double)o->duration_ms / 1000);
	if (o->rate > 0)
		printf("each at most %d calls per second", o->rate);
	else
		printf("as fast as they can");
	printf("; table %s\n", d->table);
	drill_drain_events(d);
	return true;
}

static int run_drill(struct drill *d)
{
	if (!prepare(d)) {
		if (d->verdict.kept)
			drill_table_drop(d);
		return CLI_FAILED;
	}
	bool started = drill_workers_start(d);
	if (started)
		drill_watch(d);
	hold_signals(SIG_UNBLOCK);
	drill_workers_join(d);
	drill_judge(d);
	if (!d->options.keep_table)
		drill_table_drop(d);
	drill_report(d);
	if (d->json != NULL)
		drill_report_json(d, d->json);
	return started && drill_passed(d) ? CLI_DONE : CLI_FAILED;
}

/* Opened before the drill: one whose result has nowhere to go should not begin. */
static bool open_json(struct drill *d)
{
	const char *path = d->options.json_path;
	if (path != NULL)
		d->json = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
	if (path == NULL || d->json != NULL)
		return true;
	cli_complain("cannot write %s: %s", path, strerror(errno));
	return false;
}

static bool close_json(struct drill *d)
{
	if (d->json == NULL || d->json == stdout)
		return true;
	bool written = ferror(d->json) == 0;
	if (fclose(d->json) == 0 && written)
		return true;
	cli_complain("cannot write %s: %s", d->options.json_path, strerror(errno));
	return false;
}

int cmd_drill(int argc, char **argv)
{
	struct drill d = {
	    .options = {.writers = 4, .readers = 4, .duration_ms = 30000, .rate = 200, .call_timeout_ms = 10000}};
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(drill_help, stdout);
			return CLI_DONE;
		}
		if (!take_option(&d.options, c))
			return CLI_USAGE;
	}
	if (!cli_url(argc, argv, &d.options.url) || !open_json(&d))
		return CLI_USAGE;
	int status = CLI_USAGE;
	hold_signals(SIG_BLOCK);
	d.h = init_drill(&d) ? cli_open(d.options.url) : NULL;
	if (d.h != NULL)
		status = run_drill(&d);
	if (!close_json(&d) && status == CLI_DONE)
		status = CLI_FAILED;
	fini_drill(&d);
	return status;
}
