/*
 * events: the bounded queue of what happened to the cluster. The application drains it; the newest 256 are kept.
 */
#ifndef DBHA_RUNTIME_EVENTS_H
#define DBHA_RUNTIME_EVENTS_H

#include <stdbool.h>

#include "dbha.h"
#include "sync.h"

#define EVENTS_MAX 256

struct events {
	struct mutex lock;
	int first;
	int n;
	dbha_event ring[EVENTS_MAX];
};

int dbha__events_init(struct events *events);
void dbha__events_fini(struct events *events);

/* Appends a copy; true if the oldest one had to go for it. */
bool dbha__events_push(struct events *events, const dbha_event *event);

/* Appends a copy if half of the queue is free; false if not. */
bool dbha__events_offer(struct events *events, const dbha_event *event);

/* Takes the oldest one; false if there is none. */
bool dbha__events_pop(struct events *events, dbha_event *event);

#endif
