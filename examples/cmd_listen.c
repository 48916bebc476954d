/*
 * cmd_listen.c: `dbha listen`: prints notifications as they come, and says where some may have been missed.
 */
#include "cli.h"

#include <getopt.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

static const char listen_help[] =
    "usage: dbha listen [URL] CHANNEL... [--duration TIME] [--count N] [--json]\n"
    "\n"
    "Listens to channels on the primary, through any failover, and prints one line per notification: when, channel "
    "and\n"
    "payload. A line \"gap\" says that the connection was lost and is back: what was sent in between may have been "
    "missed.\n"
    "The first argument is the URL if it has \"://\" or \"=\" in it; otherwise the URL comes from the environment.\n"
    "\n"
    "      --duration TIME  stop after this time (never; Ctrl-C ends it)\n"
    "      --count N        stop after so many notifications\n"
    "      --json           one JSON object per line\n"
    "\n"
    "Exit status: 0 stopped after --duration or --count; 1 an error; 2 a bad argument, option or URL.\n";

/* Once a second the loop looks whether it is time to stop, and whether nothing could come. */
#define LOOK_MS    1000
/* Trouble that is over sooner is not worth a line. */
#define TROUBLE_MS 1000
#define LISTEN_MS  30000
#define COUNT_MAX  1000000000

struct listen_args {
	const char *url;
	char **channels;
	int n_channels;
	int duration_ms; /* 0: until killed */
	int count;       /* 0: any number */
	bool json;
};

/* --------------------------------------------------------------------------------------------------------------- */

static int64_t unix_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void print_json(const dbha_notification *got)
{
	printf("{\"unix_us\": %" PRId64 ", \"kind\": \"%s\"", unix_us(), got->kind == DBHA_GAP ? "gap" : "notify");
	if (got->kind == DBHA_GAP) {
		printf(", \"down_ms\": %" PRId64 ", \"text\": ", got->down_ms);
		cli_json_string(stdout, got->text);
	} else {
		fputs(", \"channel\": ", stdout);
		cli_json_string(stdout, got->channel);
		fputs(", \"payload\": ", stdout);
		cli_json_string(stdout, got->payload);
		printf(", \"backend_pid\": %" PRId32, got->backend_pid);
	}
	fputs(", \"node\": ", stdout);
	cli_json_string(stdout, got->node);
	puts("}");
}

static void print_notification(const dbha_notification *got, bool json)
{
	char moment[CLI_MOMENT_MAX];
	if (json)
		print_json(got);
	else if (got->kind == DBHA_GAP)
		printf("%s  gap     %" PRId64 " ms: %s\n", cli_moment(unix_us(), moment), got->down_ms, got->text);
	else
		printf("%s  notify  %s  %s\n", cli_moment(unix_us(), moment), got->channel, got->payload);
	fflush(stdout);
}

/* That nothing can come is said once, when it has lasted a while, and again when it is over. */
static void say_trouble(const dbha_notification *nothing, bool *told)
{
	if (nothing->down_ms >= TROUBLE_MS && !*told)
		cli_complain("nothing can come: %s", nothing->text);
	*told = nothing->down_ms >= TROUBLE_MS;
}

static int print_all(dbha_listener *l, const struct listen_args *args)
{
	int64_t end_us = args->duration_ms > 0 ? cli_monotonic_us() + (int64_t)args->duration_ms * 1000 : INT64_MAX;
	bool told = false;
	for (int n = 0; args->count == 0 || n < args->count;) {
		int64_t left_ms = (end_us - cli_monotonic_us()) / 1000;
		if (left_ms <= 0 || ferror(stdout))
			break;
		dbha_error err;
		dbha_notification got = {.size = sizeof(got)};
		int rc = dbha_listener_next(l, left_ms < LOOK_MS ? (int)left_ms : LOOK_MS, &got, &err);
		if (rc < 0) {
			cli_print_error(&err);
			return CLI_FAILED;
		}
		if (rc > 0)
			print_notification(&got, args->json);
		else
			say_trouble(&got, &told);
		n += rc > 0 && got.kind == DBHA_NOTIFY;
	}
	return CLI_DONE;
}

static int listen_and_print(dbha *h, const struct listen_args *args)
{
	dbha_error err;
	int status = CLI_DONE;
	dbha_listener *l = dbha_listener_open(h, &err);
	if (l == NULL)
		status = CLI_FAILED;
	for (int i = 0; i < args->n_channels && status == CLI_DONE; i++)
		if (dbha_listen(l, args->channels[i], LISTEN_MS, &err) != DBHA_OK)
			status = CLI_FAILED;
	if (status == CLI_DONE)
		status = print_all(l, args);
	else
		cli_print_error(&err);
	dbha_listener_close(l);
	return status;
}

/* --------------------------------------------------------------------------------------------------------------- */

static bool take_positional(struct listen_args *args, int n, char **rest)
{
	bool url = n > 0 && (strstr(rest[0], "://") != NULL || strchr(rest[0], '=') != NULL);
	args->url = url ? rest[0] : NULL;
	args->channels = rest + url;
	args->n_channels = n - url;
	if (args->n_channels > 0)
		return true;
	cli_complain("which channel? usage: dbha listen [URL] CHANNEL...");
	return false;
}

int cmd_listen(int argc, char **argv)
{
	static const struct option accepted[] = {{"duration", required_argument, NULL, 'd'},
	                                         {"count", required_argument, NULL, 'n'},
	                                         {"json", no_argument, NULL, 'j'},
	                                         {"help", no_argument, NULL, 'h'},
	                                         {NULL, 0, NULL, 0}};
	struct listen_args args = {.url = NULL};
	for (int c; (c = getopt_long(argc, argv, "h", accepted, NULL)) != -1;) {
		if (c == 'h') {
			fputs(listen_help, stdout);
			return CLI_DONE;
		}
		if (c == 'j')
			args.json = true;
		if (c == '?' || (c == 'd' && !cli_duration("--duration", optarg, &args.duration_ms)) ||
		    (c == 'n' && !cli_integer("--count", optarg, 1, COUNT_MAX, &args.count)))
			return CLI_USAGE;
	}
	dbha *h = take_positional(&args, argc - optind, argv + optind) ? cli_open(args.url) : NULL;
	if (h == NULL)
		return CLI_USAGE;
	int status = listen_and_print(h, &args);
	dbha_close(h, 0);
	return status;
}
