/*
 * connector: makes the pools' connections, in the background and without blocking.
 *
 * A call that needs a connection only queues up; whichever comes first, a connection given back or a new one, serves it. So
 * nobody's thread is bound to a slow connect, a spike does not become a storm (pool_max_connecting per node at a time, one
 * at first after an outage, and a backoff with jitter after a failure), and a connect that is no longer needed still
 * finishes and is kept.
 * A step function like the monitor's.
 */
#ifndef DBHA_RUNTIME_CONNECTOR_H
#define DBHA_RUNTIME_CONNECTOR_H

#include <poll.h>
#include <stdint.h>

#include "monitor.h"

/* One connect under way. */
struct connect_attempt {
	int node;
	uint64_t generation;
	struct dbha_conn *slot;
	struct dial dial;
	struct connect_attempt *next;
};

struct connector {
	struct monitor_world world;
	struct monitor *monitor;
	dbha *handle; /* written into each lease */
	struct connect_attempt *attempts;
	int n_attempts;
	int failures[CONFIG_NODES_MAX];          /* in a row */
	int width[CONFIG_NODES_MAX];             /* connects that may be under way at a time, see follow_node */
	int64_t back_us[CONFIG_NODES_MAX];       /* the return that was followed last */
	enum dbha_role role[CONFIG_NODES_MAX];   /* that was followed last */
	int64_t not_before_us[CONFIG_NODES_MAX]; /* the pause after a failure */
	int64_t maintain_us;                     /* when old connections are looked for next */
	int64_t patrol_us;                       /* when waits beyond their deadline are looked for next */
	struct rng rng;
};

void dbha__connector_init(struct connector *connector, struct monitor *monitor, dbha *handle, int64_t now);

/* Gives up every connect under way. */
void dbha__connector_fini(struct connector *connector);

/* How many pollfds dbha__connector_watch fills. */
int dbha__connector_count(const struct connector *connector);
void dbha__connector_watch(const struct connector *connector, struct pollfd *items);

/* `items` as filled by dbha__connector_watch and poll. Returns when it wants to be called next. */
int64_t dbha__connector_step(struct connector *connector, int64_t now, const struct pollfd *items);

/* As dbha__monitor_skip. */
void dbha__connector_skip(struct connector *connector, int64_t gap_us);

/* In a forked child. */
void dbha__connector_abandon(struct connector *connector, int dev_null);

#endif
