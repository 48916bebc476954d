/*
 * drill_live.c: what the drill shows while it runs: on a terminal one line that is kept up to date, elsewhere a line
 * per second; and a line for every event of the library and every outage that ended.
 */
#include "drill.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 50

/* More than any drill has; what comes after them is shown but explains no outage. */
#define EVENTS_MAX 4096

struct live {
	bool terminal;
	int64_t began_us;
	int64_t shown_us;
	long long shown_acked;
	long long shown_reads;
	int seen_writes; /* outages shown already */
	int seen_reads;
};

/* --------------------------------------------------------------------------------------------------------------- */

/* Removes the line that is kept up to date, so that a lasting one can take its place. */
static void clear_line(void)
{
	if (isatty(STDOUT_FILENO))
		fputs("\r\033[K", stdout);
}

static void remember_event(struct drill *d, const dbha_event *event)
{
	if (d->n_events == EVENTS_MAX)
		return;
	/* Grown at every power of two. */
	if ((d->n_events & (d->n_events - 1)) == 0) {
		size_t room = d->n_events > 0 ? (size_t)d->n_events * 2 : 1;
		dbha_event *events = realloc(d->events, room * sizeof(*events));
		if (events == NULL)
			return;
		d->events = events;
	}
	d->events[d->n_events++] = *event;
}

void drill_drain_events(struct drill *d)
{
	char moment[CLI_MOMENT_MAX];
	dbha_event event = {.size = sizeof(event)};
	while (dbha_next_event(d->h, &event, NULL) > 0) {
		remember_event(d, &event);
		clear_line();
		printf("%s  %-11s  %s\n", cli_moment(event.unix_us, moment), dbha_event_name(event.kind), event.text);
	}
	fflush(stdout);
}

static void show_outages(struct drill_gauge *gauge, int *seen)
{
	char moment[CLI_MOMENT_MAX];
	struct drill_outage outage;
	while (drill_gauge_next(gauge, seen, &outage)) {
		clear_line();
		printf("%s  %-11s  %s are answered again after %.1f ms\n", cli_moment(outage.end.unix_us, moment),
		       "outage over", gauge->reads ? "reads" : "writes",
		       (double)(outage.end.monotonic_us - outage.start.monotonic_us) / 1000);
	}
}

/* --------------------------------------------------------------------------------------------------------------- */

static void print_primary(struct drill *d)
{
	dbha_cluster_status cluster;
	dbha_node_status *nodes = cli_nodes(d->h, &cluster);
	if (nodes != NULL && cluster.split_brain)
		printf("SPLIT BRAIN");
	else if (nodes != NULL && cluster.primary >= 0)
		printf("primary %s, timeline %" PRIu32, nodes[cluster.primary].name, cluster.timeline);
	else
		printf("no primary");
	free(nodes);
}

static void show_counts(struct drill *d, struct live *live, int64_t now_us)
{
	long long acked = atomic_load(&d->counts.acked);
	long long reads = atomic_load(&d->counts.reads);
	double seconds = (double)(now_us - live->shown_us) / 1000000;
	clear_line();
	printf("%6.1f s  writes %lld (%.0f/s), failed %lld, unknown %lld; reads %lld (%.0f/s), failed %lld; ",
	       (double)(now_us - live->began_us) / 1000000, acked, (double)(acked - live->shown_acked) / seconds,
	       (long long)atomic_load(&d->counts.failed), (long long)atomic_load(&d->counts.unknown), reads,
	       (double)(reads - live->shown_reads) / seconds, (long long)atomic_load(&d->counts.read_errors));
	print_primary(d);
	if (!live->terminal)
		putchar('\n');
	fflush(stdout);
	live->shown_us = now_us;
	live->shown_acked = acked;
	live->shown_reads = reads;
}

/* Waits a tick, or less if SIGINT or SIGTERM arrives. Returns false if one did. */
static bool wait_tick(void)
{
	sigset_t signals;
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	return sigtimedwait(&signals, NULL, &(struct timespec){.tv_nsec = TICK_MS * 1000000}) < 0;
}

void drill_watch(struct drill *d)
{
	int64_t now_us = cli_monotonic_us();
	struct live live = {.terminal = isatty(STDOUT_FILENO) != 0, .began_us = now_us, .shown_us = now_us};
	int64_t period_us = live.terminal ? 200000 : 1000000;
	int64_t end_us = now_us + (int64_t)d->options.duration_ms * 1000;
	bool interrupted = false;
	while (!interrupted && now_us < end_us) {
		interrupted = !wait_tick();
		now_us = cli_monotonic_us();
		drill_drain_events(d);
		show_outages(&d->write_gauge, &live.seen_writes);
		show_outages(&d->read_gauge, &live.seen_reads);
		if (now_us - live.shown_us >= period_us)
			show_counts(d, &live, now_us);
	}
	clear_line();
	if (interrupted)
		puts("interrupted: the calls under way are awaited, then comes the verdict");
	fflush(stdout);
}
