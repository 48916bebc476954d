#include "tell.h"

#include <stdio.h>

#include "clock.h"

static dbha_event event_of(dbha *h, enum dbha_event_kind kind, int node)
{
	dbha_event event = {.size = sizeof event, .kind = kind, .node = node};
	event.unix_us = dbha__clock_unix();
	event.monotonic_us = dbha__clock_now();
	event.timeline = dbha__view_borrow(&h->view)->timeline;
	dbha__view_return(&h->view);
	return event;
}

void dbha__tell_lost(dbha *h, const struct token *token, const struct token *floor)
{
	/* Many sessions find it out, each for itself. */
	unsigned told = atomic_load(&h->lost_told);
	do {
		if (told >= floor->timeline)
			return;
	} while (!atomic_compare_exchange_weak(&h->lost_told, &told, floor->timeline));
	dbha_event event = event_of(h, DBHA_EVENT_LOST_WRITES, -1);
	snprintf(event.text, sizeof event.text,
	         "%X/%X of timeline %u had been seen, but timeline %u has nothing behind %X/%X of it",
	         (unsigned)(token->lsn >> 32), (unsigned)token->lsn, (unsigned)token->timeline, (unsigned)floor->timeline,
	         (unsigned)(floor->lsn >> 32), (unsigned)floor->lsn);
	if (dbha__events_push(&h->events, &event))
		STATS_ADD(&h->handle_stats, events_dropped, 1);
}

void dbha__tell_rerouted(dbha *h, const char *from, int node, enum dbha_reason reason, const char *trouble)
{
	dbha_event event = event_of(h, DBHA_EVENT_REROUTED, node);
	snprintf(event.text, sizeof event.text, "%.60s to %.60s (%s)%s%.100s", from, dbha__life_node_name(h, node),
	         dbha_reason_name((int)reason), trouble[0] ? ": " : "", trouble);
	/* There may be many: they do not push out what happened to the cluster. */
	if (!dbha__events_offer(&h->events, &event))
		STATS_ADD(&h->handle_stats, events_dropped, 1);
}
