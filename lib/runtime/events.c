#include "events.h"

int dbha__events_init(struct events *events)
{
	events->first = events->n = 0;
	return dbha__mutex_init(&events->lock, RANK_EVENTS);
}

void dbha__events_fini(struct events *events)
{
	dbha__mutex_fini(&events->lock);
}

bool dbha__events_push(struct events *events, const dbha_event *event)
{
	dbha__mutex_lock(&events->lock);
	bool full = events->n == EVENTS_MAX;
	if (full) {
		events->first = (events->first + 1) % EVENTS_MAX;
		events->n--;
	}
	events->ring[(events->first + events->n++) % EVENTS_MAX] = *event;
	dbha__mutex_unlock(&events->lock);
	return full;
}

bool dbha__events_offer(struct events *events, const dbha_event *event)
{
	dbha__mutex_lock(&events->lock);
	bool room = events->n < EVENTS_MAX / 2;
	if (room)
		events->ring[(events->first + events->n++) % EVENTS_MAX] = *event;
	dbha__mutex_unlock(&events->lock);
	return room;
}

bool dbha__events_pop(struct events *events, dbha_event *event)
{
	dbha__mutex_lock(&events->lock);
	bool any = events->n > 0;
	if (any) {
		*event = events->ring[events->first];
		events->first = (events->first + 1) % EVENTS_MAX;
		events->n--;
	}
	dbha__mutex_unlock(&events->lock);
	return any;
}
