/*
 * monitor_parts: what the files of the monitor have of each other. All of it by the stepping thread.
 */
#ifndef DBHA_RUNTIME_MONITOR_PARTS_H
#define DBHA_RUNTIME_MONITOR_PARTS_H

#include "monitor.h"

/* ---- monitor.c: the probes ---- */

/* Whether there is no primary, and has not been for so short that it is looked for at a higher pace. */
bool dbha__monitor_searching(const struct monitor *monitor, int64_t now);

/* Every node that rests is probed now; one that could not be connected to, when its pause is over. */
void dbha__monitor_probe_all(struct monitor *monitor, int64_t now);

/* The kept connection may lead to another server than a new one would: a new one is made. */
void dbha__monitor_ask_anew(struct monitor *monitor, int node, int64_t now);

/* ---- monitor_view.c: what follows from an observation ---- */

void dbha__monitor_observe(struct monitor *monitor, int node, const struct observation *seen, int64_t now);
void dbha__monitor_observe_failure(struct monitor *monitor, int node, enum failure failure, const char *why,
                                   int64_t now);

/* The topology has changed: whoever depends on it learns of it. `events` may get more. */
void dbha__monitor_changed(struct monitor *monitor, struct topology_events *events, int64_t now);

/* ---- monitor_places.c: where names lead ---- */

/* With discover=dns: takes in what the resolver knows. Returns when it is to be asked again. */
int64_t dbha__monitor_discover(struct monitor *monitor, int64_t now);

/* Without it. */
void dbha__monitor_follow_names(struct monitor *monitor, int64_t now);

#endif
