/*
 * monitor_places: names that lead elsewhere: with discover=dns nodes come and go, without it the primary is asked again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "monitor_parts.h"

/* Nothing of the node that was here is to meet the next one. */
static void begin_place_anew(struct monitor *monitor, int i, int64_t now)
{
	struct probe *probe = &monitor->probes[i];
	dbha__dial_drop(&probe->dial);
	dbha__conn_close(probe->conn);
	free(atomic_exchange(&monitor->reports[i], NULL));
	memset(probe, 0, sizeof *probe);
	probe->due_us = now;
}

static void arrive(struct monitor *monitor, int i, int64_t now)
{
	begin_place_anew(monitor, i, now);
	dbha__pool_dispose(dbha__pool_drain(&monitor->world.pools[i], false));
	dbha__topology_arrive(&monitor->view, i, dbha__places_name(&monitor->places, i));
	dbha__trace(monitor->world.trace, TRACE_INFO, "%s is a new node", dbha__monitor_name(monitor, i));
}

static void leave(struct monitor *monitor, int i, struct topology_events *events, int64_t now)
{
	char why[DBHA_WHY_MAX];
	snprintf(why, sizeof why, "its address is gone from the answer for %.180s",
	         dbha__places_node(&monitor->places, i)->host);
	begin_place_anew(monitor, i, now);
	dbha__topology_leave(&monitor->view, i, why, events);
	dbha__pool_dispose(dbha__pool_drain(&monitor->world.pools[i], true));
}

static void come_back(struct monitor *monitor, int i, int64_t now)
{
	dbha__pool_dispose(dbha__pool_drain(&monitor->world.pools[i], false));
	dbha__topology_return(&monitor->view, i);
	monitor->probes[i].due_us = now;
}

/* Those whose last connection has come back are gone. What they counted stays in the sum of the handle. */
static bool let_go(struct monitor *monitor, struct topology_events *events)
{
	bool any = false;
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		if (monitor->view.nodes[i].presence != LEAVING || !dbha__pool_is_empty(&monitor->world.pools[i]))
			continue;
		dbha__trace(monitor->world.trace, TRACE_INFO, "%s has left", dbha__monitor_name(monitor, i));
		dbha__places_vacate(&monitor->places, i);
		dbha__topology_vacate(&monitor->view, i, events);
		dbha__stats_move(&monitor->world.stats[i], monitor->world.handle_stats);
		any = true;
	}
	return any;
}

static void say_too_many(struct monitor *monitor, int unplaced)
{
	if (unplaced == 0 || monitor->places.said_too_many)
		return;
	monitor->places.said_too_many = true;
	dbha__trace(monitor->world.trace, TRACE_WARNING,
	            "discover=dns: more addresses than the %d places for nodes: %d are left out", CONFIG_NODES_MAX,
	            unplaced);
}

static void take_changes(struct monitor *monitor, const struct discover_changes *changes,
                         struct topology_events *events, int64_t now)
{
	/* First who comes: a view must not settle because somebody leaves while a newcomer has not been asked. */
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		uint32_t bit = UINT32_C(1) << i;
		if (changes->back & bit)
			come_back(monitor, i, now);
		if (changes->taken & bit)
			arrive(monitor, i, now);
	}
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		uint32_t bit = UINT32_C(1) << i;
		if (changes->left & bit)
			leave(monitor, i, events, now);
		if (changes->freed & bit) {
			begin_place_anew(monitor, i, now);
			dbha__topology_vacate(&monitor->view, i, events);
		}
	}
	say_too_many(monitor, changes->unplaced);
}

/* With discover=dns: nodes come and go with the answers of the resolver. Returns when it is to be asked again. */
int64_t dbha__monitor_discover(struct monitor *monitor, int64_t now)
{
	struct topology_events events = {0};
	bool changed = let_go(monitor, &events);
	/* In the search for a primary a new address may be the answer, and nothing fails that would ask for it. */
	int64_t wake = dbha__resolver_keep_fresh(monitor->world.resolver, now, dbha__monitor_searching(monitor, now));
	if (dbha__places_news(&monitor->places)) {
		struct discover_changes changes = dbha__places_update(&monitor->places);
		take_changes(monitor, &changes, &events, now);
		changed = true;
	}
	if (changed)
		dbha__monitor_changed(monitor, &events, now);
	return wake;
}

/*
 * Without it: a name that has moved away from a primary. The old one may live on and answer as if nothing had happened: who
 * has the address now is asked. (A standby is left alone: the name of several may lead to each of them by turns.)
 */
void dbha__monitor_follow_names(struct monitor *monitor, int64_t now)
{
	if (!dbha__places_news(&monitor->places))
		return;
	for (int i = 0; i < monitor->view.n_nodes; i++) {
		struct addresses known;
		const struct conn *conn = monitor->probes[i].conn;
		dbha__resolver_known(monitor->world.resolver, i, &known);
		if (known.n > 0 && conn && monitor->view.nodes[i].role == DBHA_ROLE_PRIMARY &&
		    !dbha__addresses_hold(&known, dbha__conn_address(conn)))
			dbha__monitor_ask_anew(monitor, i, now);
	}
}
