/*
 * drill_gauge.c: turns the moments of answers, failures and events into outages.
 */
#include "drill_gauge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOTABLE_US 10000

/* Pauses of 10 ms come a hundred times a second at most; this is a quarter of an hour of nothing else. */
#define OUTAGES_MAX 100000

struct drill_instant drill_now(void)
{
	struct timespec monotonic, real;
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_REALTIME, &real);
	return (struct drill_instant){.monotonic_us = (int64_t)monotonic.tv_sec * 1000000 + monotonic.tv_nsec / 1000,
	                              .unix_us = (int64_t)real.tv_sec * 1000000 + real.tv_nsec / 1000};
}

void drill_gauge_init(struct drill_gauge *gauge, bool reads, int64_t quiet_us)
{
	*gauge = (struct drill_gauge){.reads = reads, .quiet_us = quiet_us};
	pthread_mutex_init(&gauge->lock, NULL);
}

void drill_gauge_start(struct drill_gauge *gauge)
{
	gauge->last = gauge->ended = drill_now();
}

void drill_gauge_free(struct drill_gauge *gauge)
{
	pthread_mutex_destroy(&gauge->lock);
	free(gauge->outages);
}

/* Whether a pause is an outage by its length alone. */
static bool is_long_locked(const struct drill_gauge *gauge, int64_t pause_us)
{
	return pause_us >= gauge->quiet_us && pause_us >= 5 * drill_latency_percentile(&gauge->pauses, 50);
}

static struct drill_outage *add_outage_locked(struct drill_gauge *gauge, struct drill_instant end)
{
	if (gauge->n_outages == gauge->allocated) {
		int larger = gauge->allocated > 0 ? gauge->allocated * 2 : 16;
		struct drill_outage *outages = NULL;
		if (larger <= OUTAGES_MAX)
			outages = realloc(gauge->outages, (size_t)larger * sizeof(*outages));
		if (outages == NULL)
			return NULL;
		gauge->outages = outages;
		gauge->allocated = larger;
	}
	struct drill_outage *outage = &gauge->outages[gauge->n_outages++];
	*outage = (struct drill_outage){.start = gauge->last, .end = end};
	outage->certain = gauge->troubled || is_long_locked(gauge, end.monotonic_us - gauge->last.monotonic_us);
	snprintf(outage->cause, sizeof(outage->cause), "%s",
	         gauge->troubled ? gauge->trouble
	                         : "no call failed and no event was seen: slow, or a pause of this machine");
	return outage;
}

void drill_gauge_answer(struct drill_gauge *gauge, struct drill_instant now)
{
	pthread_mutex_lock(&gauge->lock);
	int64_t pause_us = now.monotonic_us - gauge->last.monotonic_us;
	if (pause_us >= NOTABLE_US)
		add_outage_locked(gauge, now);
	/* Otherwise another thread took its time later and this lock sooner. */
	if (pause_us > 0) {
		gauge->last = now;
		drill_latency_add(&gauge->pauses, pause_us);
	}
	gauge->troubled = false;
	pthread_mutex_unlock(&gauge->lock);
}

/* Messages of libpq have several lines; a cause has one. */
static void copy_line(char line[DBHA_WHY_MAX], const char *text)
{
	size_t used = 0;
	for (; *text != '\0' && used < DBHA_WHY_MAX - 1; text++) {
		bool space = strchr(" \t\r\n", *text) != NULL;
		if (!space)
			line[used++] = *text;
		else if (used > 0 && line[used - 1] != ' ')
			line[used++] = ' ';
	}
	while (used > 0 && line[used - 1] == ' ')
		used--;
	line[used] = '\0';
}

void drill_gauge_trouble(struct drill_gauge *gauge, const char *message)
{
	pthread_mutex_lock(&gauge->lock);
	if (!gauge->troubled)
		copy_line(gauge->trouble, message);
	if (gauge->first_failure[0] == '\0')
		copy_line(gauge->first_failure, message);
	gauge->troubled = true;
	pthread_mutex_unlock(&gauge->lock);
}

void drill_gauge_end(struct drill_gauge *gauge, struct drill_instant now)
{
	pthread_mutex_lock(&gauge->lock);
	if (now.monotonic_us > gauge->ended.monotonic_us)
		gauge->ended = now;
	pthread_mutex_unlock(&gauge->lock);
}

bool drill_gauge_next(struct drill_gauge *gauge, int *seen, struct drill_outage *outage)
{
	bool found = false;
	pthread_mutex_lock(&gauge->lock);
	while (!found && *seen < gauge->n_outages) {
		*outage = gauge->outages[(*seen)++];
		found = outage->certain;
	}
	pthread_mutex_unlock(&gauge->lock);
	return found;
}

/* --------------------------------------------------------------------------------------------------------------- */

/* Whether an event of this kind can stop calls. Losing a standby stops no write. */
static bool explains(const struct drill_gauge *gauge, int kind)
{
	return gauge->reads || kind == DBHA_EVENT_PRIMARY || kind == DBHA_EVENT_NO_PRIMARY ||
	       kind == DBHA_EVENT_SPLIT_BRAIN || kind == DBHA_EVENT_FENCED || kind == DBHA_EVENT_RESTARTED;
}

/*
 * The cause of an outage is told by the first event in it, which says what was lost, and by the last, which says what
 * came instead. The messages of failed calls only repeat that at length.
 */
static bool explain(const struct drill_gauge *gauge, struct drill_outage *outage, const dbha_event *events,
                    int n_events)
{
	const dbha_event *first = NULL, *last = NULL;
	for (int i = 0; i < n_events; i++) {
		int64_t at = events[i].monotonic_us;
		if (at < outage->start.monotonic_us || at > outage->end.monotonic_us || !explains(gauge, events[i].kind))
			continue;
		if (first == NULL)
			first = &events[i];
		last = &events[i];
	}
	if (first == NULL)
		return false;
	snprintf(outage->cause, sizeof(outage->cause), "%s: %s", dbha_event_name(first->kind), first->text);
	size_t used = strlen(outage->cause);
	if (last != first)
		snprintf(outage->cause + used, sizeof(outage->cause) - used, "; then %s: %s", dbha_event_name(last->kind),
		         last->text);
	return true;
}

/* What was still going on when the last thread stopped. */
static void close_last_locked(struct drill_gauge *gauge)
{
	int64_t pause_us = gauge->ended.monotonic_us - gauge->last.monotonic_us;
	if (pause_us < NOTABLE_US || !(gauge->troubled || is_long_locked(gauge, pause_us)))
		return;
	struct drill_outage *outage = add_outage_locked(gauge, gauge->ended);
	if (outage != NULL)
		outage->open = true;
}

void drill_gauge_finish(struct drill_gauge *gauge, const dbha_event *events, int n_events)
{
	pthread_mutex_lock(&gauge->lock);
	close_last_locked(gauge);
	int kept = 0;
	for (int i = 0; i < gauge->n_outages; i++) {
		struct drill_outage outage = gauge->outages[i];
		if (explain(gauge, &outage, events, n_events) || outage.certain)
			gauge->outages[kept++] = outage;
	}
	gauge->n_outages = kept;
	pthread_mutex_unlock(&gauge->lock);
}

int64_t drill_gauge_longest_us(const struct drill_gauge *gauge)
{
	int64_t longest_us = 0;
	for (int i = 0; i < gauge->n_outages; i++) {
		int64_t length_us = gauge->outages[i].end.monotonic_us - gauge->outages[i].start.monotonic_us;
		if (length_us > longest_us)
			longest_us = length_us;
	}
	return longest_us;
}
