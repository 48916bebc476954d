/*
 * test_topology: observations in, view and events out. Scripts of observations with what must be known after each, and
 * random sequences whose views must keep promise P1 whatever happened.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "rng.h"
#include "topology.h"
#include "unit.h"

#define OURS           7001
#define THEIRS         9009
#define PROBE_FAILURES 3
#define STEPS_MAX      16

/*
 * One observation and what must be seen afterwards. nodes: state/role/generation of each, from the first one on.
 * cluster: the primary's index, "-" for none, "split", or "?" while unsettled; then "@" and the cluster's timeline.
 * events: kind:node, sorted by both and not in the order of the queue; "" for none.
 */
struct step {
	struct observation o;
	const char *nodes;
	const char *cluster;
	const char *events;
};

struct script {
	const char *name;
	int n_nodes;
	struct step steps[STEPS_MAX]; /* ends where nodes is NULL */
};

/* No two servers start in the same microsecond: 10 ms lie between those of two nodes. 0: not readable. */
#define STARTED(n, start) ((start) != 0 ? (start) + 10000 * (int64_t)(n) : 0)
#define ANSWER(n, tl, recovery, id, start)                                                                             \
	{                                                                                                                  \
		.node = (n), .timeline = (tl), .in_recovery = (recovery), .system_identifier = (id),                           \
		.started_us = STARTED(n, start), .lsn = 1000, .latency_us = 100                                                \
	}
#define PRIMARY(n, tl)              ANSWER(n, tl, false, OURS, 1000)
#define STANDBY(n, tl)              ANSWER(n, tl, true, OURS, 1000)
#define PRIMARY_SINCE(n, tl, start) ANSWER(n, tl, false, OURS, start)
#define STANDBY_SINCE(n, tl, start) ANSWER(n, tl, true, OURS, start)
#define FOREIGN_PRIMARY(n, tl)      ANSWER(n, tl, false, THEIRS, 1000)
#define FOREIGN_STANDBY(n, tl)      ANSWER(n, tl, true, THEIRS, 1000)
#define FAILED(n, kind)                                                                                                \
	{                                                                                                                  \
		.node = (n), .failure = FAILURE_##kind, .why = "for a reason"                                                  \
	}

/* Over the connection that was open already, or of a failure, at a time in seconds. */
#define KEPT(n, tl, at)                                                                                                \
	{                                                                                                                  \
		.node = (n), .at_us = (int64_t)((at)*1e6), .kept = true, .timeline = (tl), .system_identifier = OURS,          \
		.started_us = STARTED(n, 1000), .lsn = 1000                                                                    \
	}
#define FAILED_AT(n, kind, at)                                                                                         \
	{                                                                                                                  \
		.node = (n), .at_us = (int64_t)((at)*1e6), .failure = FAILURE_##kind, .why = "for a reason"                    \
	}

/* Node n is another name for node 0. */
#define PRIMARY_NAMED_TWICE(n, tl) ANSWER(n, tl, false, OURS, 1000 - 10000 * (n))

static const struct script scripts[] = {
    {"the first to answer after all were down does not decide alone whose cluster it is",
     3,
     {
         {FAILED(0, UNREACHABLE), "down/unknown/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {FAILED(1, UNREACHABLE), "down/unknown/1 down/unknown/1 unknown/unknown/1", "?@0", "node:1"},
         {FAILED(2, UNREACHABLE), "down/unknown/1 down/unknown/1 down/unknown/1", "-@0", "node:2"},
         {FOREIGN_PRIMARY(0, 7), "up/primary/1 down/unknown/1 down/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 1), "up/primary/1 up/primary/1 down/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), "foreign/primary/1 up/primary/1 up/standby/1", "1@1", "primary:1 node:2 foreign:0"},
     }},
    {"one server under two names is one primary",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY_NAMED_TWICE(1, 1), "up/primary/1 up/primary/1", "0@1", "primary:0 node:1"},
         {FAILED(0, UNREACHABLE), "down/primary/1 up/primary/1", "1@1", "primary:1 node:0"},
     }},
    {"a server under two names restarts: the name that was not asked since makes no second primary",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY_NAMED_TWICE(1, 1), "up/primary/1 up/primary/1", "0@1", "primary:0 node:1"},
         {FAILED(1, LOST), "up/primary/1 suspect/primary/1", "0@1", "node:1"},
         {PRIMARY_SINCE(0, 1, 20000), "up/primary/3 suspect/primary/2", "-@1", "no-primary:0 restarted:0"},
         {ANSWER(1, 1, false, OURS, 10000), "up/primary/3 up/primary/3", "0@1", "primary:0 node:1 restarted:1"},
     }},
    /* ---- settling ---- */
    {"nothing is a primary before every node has been seen",
     3,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", ""},
         {STANDBY(1, 1), "up/primary/1 up/standby/1 unknown/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), "up/primary/1 up/standby/1 up/standby/1", "0@1", "primary:0 node:2"},
     }},
    {"a failure counts as seen",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {FAILED(1, UNREACHABLE), "up/primary/1 down/unknown/1", "0@1", "primary:0 node:1"},
     }},
    {"a first silence settles too",
     2,
     {
         {FAILED(1, SILENT), "unknown/unknown/1 silent/unknown/1", "?@0", "node:1"},
         {PRIMARY(0, 1), "up/primary/1 silent/unknown/1", "0@1", "primary:0 node:0"},
     }},
    {"a stale primary that is listed first and answers first is never the primary",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 2), "fenced/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
     }},
    {"no node at all",
     2,
     {
         {FAILED(0, UNREACHABLE), "down/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {FAILED(1, REFUSED), "down/unknown/1 refused/unknown/1", "-@0", "node:1"},
     }},
    /* ---- fencing ---- */
    {"a lower primary that answers is fenced, once, and freed only as a standby",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {PRIMARY(1, 2), "fenced/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
         {PRIMARY(0, 1), "fenced/primary/2 up/primary/1", "1@2", ""},
         {PRIMARY(1, 2), "fenced/primary/2 up/primary/1", "1@2", ""},
         {PRIMARY(0, 1), "fenced/primary/2 up/primary/1", "1@2", ""},
         {FAILED(1, UNREACHABLE), "fenced/primary/2 down/primary/1", "-@2", "no-primary:1 node:1"},
         {PRIMARY(0, 1), "fenced/primary/2 down/primary/1", "-@2", ""},
         {STANDBY(0, 2), "up/standby/2 down/primary/1", "-@2", "node:0"},
         {PRIMARY(1, 2), "up/standby/2 up/primary/1", "1@2", "primary:1 node:1"},
     }},
    {"a lower primary is fenced while it is down, and stays so when it returns",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {FAILED(0, UNREACHABLE), "down/primary/1 up/standby/1", "-@1", "no-primary:0 node:0"},
         {PRIMARY(1, 2), "down/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
         {FAILED(0, UNREACHABLE), "down/primary/2 up/primary/1", "1@2", ""},
         {PRIMARY(0, 1), "fenced/primary/2 up/primary/1", "1@2", "node:0"},
         {FAILED(0, FULL), "full/primary/2 up/primary/1", "1@2", "node:0"},
         {FAILED(1, UNREACHABLE), "full/primary/2 down/primary/1", "-@2", "no-primary:1 node:1"},
         {FAILED(0, REFUSED), "refused/primary/2 down/primary/1", "-@2", "node:0"},
         {PRIMARY(0, 1), "fenced/primary/2 down/primary/1", "-@2", "node:0"},
     }},
    {"a lower primary is fenced while it is silent: its open connections are what must not write",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {FAILED(0, SILENT), "suspect/primary/1 up/standby/1", "0@1", "node:0"},
         {PRIMARY(1, 2), "suspect/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
         {FAILED(0, SILENT), "suspect/primary/2 up/primary/1", "1@2", ""},
         {FAILED(0, SILENT), "silent/primary/2 up/primary/1", "1@2", "node:0"},
         {PRIMARY(0, 1), "fenced/primary/2 up/primary/1", "1@2", "node:0"},
         {FAILED(0, LOST), "fenced/primary/2 up/primary/1", "1@2", ""},
         {FAILED(0, SILENT), "fenced/primary/2 up/primary/1", "1@2", ""},
     }},
    {"a standby of a higher timeline fences the primary: somebody was promoted",
     3,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1 unknown/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), "up/primary/1 up/standby/1 up/standby/1", "0@1", "primary:0 node:2"},
         {STANDBY(2, 2), "fenced/primary/2 up/standby/1 up/standby/1", "-@2", "no-primary:0 fenced:0"},
         {PRIMARY(0, 1), "fenced/primary/2 up/standby/1 up/standby/1", "-@2", ""},
         {PRIMARY(1, 2), "fenced/primary/2 up/primary/1 up/standby/1", "1@2", "primary:1 node:1"},
     }},
    {"the highest timeline wins although two lower primaries agree",
     3,
     {
         {PRIMARY(0, 3), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 3), "up/primary/1 up/primary/1 unknown/unknown/1", "?@0", "node:1"},
         {PRIMARY(2, 4), "fenced/primary/2 fenced/primary/2 up/primary/1", "2@4", "primary:2 node:2 fenced:0 fenced:1"},
     }},
    {"the timeline does not fall when the node that had it is gone",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 5), "fenced/primary/2 up/primary/1", "1@5", "primary:1 node:1 fenced:0"},
         {FAILED(1, UNREACHABLE), "fenced/primary/2 down/primary/1", "-@5", "no-primary:1 node:1"},
         {STANDBY(1, 4), "fenced/primary/2 up/standby/1", "-@5", "node:1"},
         {PRIMARY(1, 4), "fenced/primary/2 fenced/primary/2", "-@5", "node:1 fenced:1"},
     }},
    {"a fenced server that was rewound and promoted itself comes back on the highest timeline",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 2), "fenced/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
         {PRIMARY_SINCE(0, 3, 2000), "up/primary/3 fenced/primary/2", "0@3", "primary:0 node:0 fenced:1 restarted:0"},
     }},
    {"an unreadable timeline does not lift a fence",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 2), "fenced/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
         {FAILED(1, UNREACHABLE), "fenced/primary/2 down/primary/1", "-@2", "no-primary:1 node:1"},
         {PRIMARY(0, 0), "fenced/primary/2 down/primary/1", "-@2", ""},
     }},
    {"where no timeline can be read, the only primary is the primary",
     2,
     {
         {PRIMARY(0, 0), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 0), "up/primary/1 up/standby/1", "0@0", "primary:0 node:1"},
         {PRIMARY(1, 0), "up/primary/2 up/primary/2", "split@0", "node:1 split-brain:-1"},
     }},
    {"a switchover: the old primary becomes a standby, then the other is promoted",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {FAILED(0, LOST), "suspect/primary/1 up/standby/1", "0@1", "node:0"},
         {FAILED(0, STARTING), "starting/primary/1 up/standby/1", "-@1", "no-primary:0 node:0"},
         {PRIMARY(1, 2), "starting/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
         {STANDBY_SINCE(0, 2, 2000), "up/standby/3 up/primary/1", "1@2", "node:0 restarted:0"},
     }},
    /* ---- split brain ---- */
    {"two primaries on one timeline are a split brain until one is gone",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {PRIMARY(1, 1), "up/primary/2 up/primary/2", "split@1", "node:1 split-brain:-1"},
         {PRIMARY(0, 1), "up/primary/2 up/primary/2", "split@1", ""},
         {FAILED(1, LOST), "up/primary/2 suspect/primary/2", "split@1", "node:1"},
         {FAILED(1, FULL), "up/primary/2 full/primary/2", "split@1", "node:1"},
         {FAILED(1, UNREACHABLE), "up/primary/2 down/primary/2", "0@1", "primary:0 node:1 healed:-1"},
         {PRIMARY(1, 1), "up/primary/3 up/primary/2", "split@1", "node:1 split-brain:-1"},
         {STANDBY(0, 1), "up/standby/3 up/primary/2", "1@1", "primary:1 node:0 healed:-1"},
     }},
    {"a split brain found at settling gives no primary first",
     2,
     {
         {PRIMARY(0, 4), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 4), "up/primary/2 up/primary/2", "split@4", "node:1 split-brain:-1"},
     }},
    {"a higher timeline ends a split brain and fences both sides",
     3,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 1), "up/primary/1 up/primary/1 unknown/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), "up/primary/2 up/primary/2 up/standby/1", "split@1", "node:2 split-brain:-1"},
         {PRIMARY(2, 2), "fenced/primary/3 fenced/primary/3 up/primary/1", "2@2",
          "primary:2 node:2 fenced:0 fenced:1 healed:-1"},
     }},
    {"a split brain in which both sides go away is healed without a primary",
     3,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 1), "up/primary/1 up/primary/1 unknown/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), "up/primary/2 up/primary/2 up/standby/1", "split@1", "node:2 split-brain:-1"},
         {STANDBY(2, 2), "fenced/primary/3 fenced/primary/3 up/standby/1", "-@2", "fenced:0 fenced:1 healed:-1"},
     }},
    /* ---- another cluster ---- */
    {"the majority tells which cluster is ours, not the first answer",
     3,
     {
         {FOREIGN_PRIMARY(0, 9), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {PRIMARY(1, 1), "up/primary/1 up/primary/1 unknown/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), "foreign/primary/1 up/primary/1 up/standby/1", "1@1", "primary:1 node:2 foreign:0"},
         {FAILED(1, UNREACHABLE), "foreign/primary/1 down/primary/1 up/standby/1", "-@1", "no-primary:1 node:1"},
     }},
    {"on a tie the host listed first tells, in whatever order they answer",
     2,
     {
         {FOREIGN_PRIMARY(1, 1), "unknown/unknown/1 up/primary/1", "?@0", "node:1"},
         {PRIMARY(0, 1), "up/primary/1 foreign/primary/1", "0@1", "primary:0 node:0 foreign:1"},
     }},
    {"a foreign host is told once, not with every probe",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {FOREIGN_PRIMARY(1, 1), "up/primary/1 foreign/primary/1", "0@1", "primary:0 node:1 foreign:1"},
         {FOREIGN_PRIMARY(1, 1), "up/primary/1 foreign/primary/1", "0@1", ""},
         {FOREIGN_PRIMARY(1, 2), "up/primary/1 foreign/primary/1", "0@1", ""},
     }},
    {"a host that was rebuilt as another cluster is foreign from then on, its timeline is nothing to us",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {ANSWER(1, 7, false, THEIRS, 2000), "up/primary/1 foreign/primary/2", "0@1", "node:1 foreign:1 restarted:1"},
         {STANDBY_SINCE(1, 1, 3000), "up/primary/1 up/standby/3", "0@1", "node:1 restarted:1"},
     }},
    {"the primary is lost when its host turns foreign",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {FOREIGN_PRIMARY(0, 3), "foreign/primary/1 up/standby/1", "-@1", "no-primary:0 node:0 foreign:0"},
     }},
    {"a foreign host that is full now is foreign all the same",
     2,
     {
         {STANDBY(0, 1), "up/standby/1 unknown/unknown/1", "?@0", "node:0"},
         {FOREIGN_PRIMARY(1, 1), "up/standby/1 foreign/primary/1", "-@1", "node:1 foreign:1"},
         {FAILED(1, FULL), NULL, "-@1", NULL},
     }},
    {"a foreign host that refuses us now is foreign all the same",
     2,
     {
         {STANDBY(0, 1), "up/standby/1 unknown/unknown/1", "?@0", "node:0"},
         {FOREIGN_PRIMARY(1, 1), "up/standby/1 foreign/primary/1", "-@1", "node:1 foreign:1"},
         {FAILED(1, REFUSED), NULL, "-@1", NULL},
     }},
    {"a foreign host that is full makes no split brain",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {FOREIGN_PRIMARY(1, 1), "up/primary/1 foreign/primary/1", "0@1", "primary:0 node:1 foreign:1"},
         {FAILED(1, FULL), NULL, "0@1", NULL},
     }},
    {"a foreign host that was only suspected when it came out is foreign too",
     3,
     {
         {FOREIGN_PRIMARY(0, 1), "up/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {FAILED(0, LOST), "suspect/primary/1 unknown/unknown/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "suspect/primary/1 up/standby/1 unknown/unknown/1", "?@0", "node:1"},
         {STANDBY(2, 1), NULL, "-@1", NULL},
     }},
    {"an unreadable system identifier does not make a foreign host ours",
     2,
     {
         {STANDBY(0, 1), "up/standby/1 unknown/unknown/1", "?@0", "node:0"},
         {FOREIGN_PRIMARY(1, 1), "up/standby/1 foreign/primary/1", "-@1", "node:1 foreign:1"},
         {ANSWER(1, 0, false, 0, 1000), "up/standby/1 foreign/primary/1", "-@1", ""},
     }},
    {"a host whose identifier cannot be read is not foreign for that",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {ANSWER(1, 0, true, 0, 0), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
     }},
    {"a foreign standby is no reader",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {FOREIGN_STANDBY(1, 8), "up/primary/1 foreign/standby/1", "0@1", "primary:0 node:1 foreign:1"},
         {FAILED(1, SILENT), "up/primary/1 foreign/standby/1", "0@1", ""},
         {FAILED(1, LOST), "up/primary/1 foreign/standby/1", "0@1", ""},
     }},
    /* ---- states ---- */
    {"a primary is silent only after three silences in a row",
     1,
     {
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED(0, SILENT), "suspect/primary/1", "0@1", "node:0"},
         {FAILED(0, SILENT), "suspect/primary/1", "0@1", ""},
         {PRIMARY(0, 1), "up/primary/1", "0@1", "node:0"},
         {FAILED(0, SILENT), "suspect/primary/1", "0@1", "node:0"},
         {FAILED(0, SILENT), "suspect/primary/1", "0@1", ""},
         {FAILED(0, SILENT), "silent/primary/1", "-@1", "no-primary:0 node:0"},
         {FAILED(0, LOST), "silent/primary/1", "-@1", ""},
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
     }},
    {"lost connections are no silences: one slow probe after them dethrones nobody",
     1,
     {
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED(0, LOST), "suspect/primary/1", "0@1", "node:0"},
         {FAILED(0, LOST), "suspect/primary/1", "0@1", ""},
         {FAILED(0, SILENT), "suspect/primary/1", "0@1", ""},
     }},
    {"refusals are no silences: one slow probe after them dethrones nobody",
     1,
     {
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED(0, FULL), "full/primary/1", "0@1", "node:0"},
         {FAILED(0, FULL), "full/primary/1", "0@1", ""},
         {FAILED(0, FULL), "full/primary/1", "0@1", ""},
         {FAILED(0, SILENT), NULL, "0@1", NULL},
     }},
    {"full and refused concern new connections: a working primary stays",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {FAILED(0, FULL), "full/primary/1 up/standby/1", "0@1", "node:0"},
         {FAILED(0, REFUSED), "refused/primary/1 up/standby/1", "0@1", "node:0"},
         {FAILED(0, LOST), "refused/primary/1 up/standby/1", "0@1", ""},
         {PRIMARY(1, 2), "refused/primary/2 up/primary/1", "1@2", "primary:1 node:1 fenced:0"},
     }},
    {"a server that was full when first seen has no role",
     1,
     {
         {FAILED(0, FULL), "full/unknown/1", "-@0", "node:0"},
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
     }},
    /* ---- troubles that probes do not meet ---- */
    {"a full server is shown as full while it answers over an open connection, and stays the primary",
     1,
     {
         {KEPT(0, 1, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED_AT(0, FULL, 2), "full/primary/1", "0@1", "node:0"},
         {KEPT(0, 1, 3), "full/primary/1", "0@1", ""},
         {KEPT(0, 1, 6.9), "full/primary/1", "0@1", ""},
         {KEPT(0, 1, 7), "up/primary/1", "0@1", "node:0"},
         {FAILED_AT(0, REFUSED, 8), "refused/primary/1", "0@1", "node:0"},
         {KEPT(0, 1, 9), "refused/primary/1", "0@1", ""},
         {PRIMARY(0, 1), "up/primary/1", "0@1", "node:0"}, /* it has let somebody in */
     }},
    {"a full disk is shown until nobody has met it for a while, a new connection says nothing of it",
     1,
     {
         {KEPT(0, 1, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED_AT(0, DISK_FULL, 2), "disk-full/primary/1", "0@1", "node:0"},
         {FAILED_AT(0, DISK_FULL, 5), "disk-full/primary/1", "0@1", ""},
         {PRIMARY(0, 1), "disk-full/primary/1", "0@1", ""},
         {KEPT(0, 1, 9.9), "disk-full/primary/1", "0@1", ""},
         {KEPT(0, 1, 10), "up/primary/1", "0@1", "node:0"},
     }},
    {"a full disk that a call met before the node died revives nobody",
     1,
     {
         {KEPT(0, 1, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED_AT(0, UNREACHABLE, 2), "down/primary/1", "-@1", "no-primary:0 node:0"},
         {FAILED_AT(0, DISK_FULL, 2.1), "down/primary/1", "-@1", ""},
     }},
    {"a trouble does not outlive what is worse",
     1,
     {
         {KEPT(0, 1, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED_AT(0, DISK_FULL, 2), "disk-full/primary/1", "0@1", "node:0"},
         {FAILED_AT(0, UNREACHABLE, 3), "down/primary/1", "-@1", "no-primary:0 node:0"},
         {KEPT(0, 1, 4), "up/primary/1", "0@1", "primary:0 node:0"},
     }},
    /* ---- timelines that cannot be read ---- */
    {"a primary whose timeline cannot be read is not written to where that of others can",
     2,
     {
         {PRIMARY(0, 0), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 2), "fenced/primary/2 up/standby/1", "-@2", "node:1 fenced:0"},
         {PRIMARY(0, 2), "up/primary/2 up/standby/1", "0@2", "primary:0 node:0"},
         {PRIMARY(0, 0), "up/primary/2 up/standby/1", "0@2", ""}, /* the same server: it is known */
         {FAILED(0, UNREACHABLE), "down/primary/2 up/standby/1", "-@2", "no-primary:0 node:0"},
         {STANDBY(0, 0), "up/standby/2 up/standby/1", "-@2", "node:0"},
         {PRIMARY(0, 0), "fenced/primary/3 up/standby/1", "-@2", "node:0 fenced:0"},
     }},
    {"where no timeline can be read, the role is all there is",
     2,
     {
         {PRIMARY(0, 0), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 0), "up/primary/1 up/standby/1", "0@0", "primary:0 node:1"},
     }},
    {"a starting server is no primary yet",
     1,
     {
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED(0, STARTING), "starting/primary/1", "-@1", "no-primary:0 node:0"},
         {FAILED(0, SILENT), "starting/primary/1", "-@1", ""},
         {FAILED(0, LOST), "starting/primary/1", "-@1", ""},
         {PRIMARY_SINCE(0, 1, 2000), "up/primary/2", "0@1", "primary:0 node:0 restarted:0"},
         {PRIMARY_SINCE(0, 1, 2000), "up/primary/2", "0@1", ""},
     }},
    {"a server that cannot be reached is down at once, a loss or a silence after that says nothing new",
     1,
     {
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {FAILED(0, UNREACHABLE), "down/primary/1", "-@1", "no-primary:0 node:0"},
         {FAILED(0, LOST), "down/primary/1", "-@1", ""},
         {FAILED(0, SILENT), NULL, "-@1", NULL},
     }},
    {"flapping moves no primary and no generation",
     2,
     {
         {PRIMARY(0, 1), "up/primary/1 unknown/unknown/1", "?@0", "node:0"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "primary:0 node:1"},
         {FAILED(0, LOST), "suspect/primary/1 up/standby/1", "0@1", "node:0"},
         {PRIMARY(0, 1), "up/primary/1 up/standby/1", "0@1", "node:0"},
         {FAILED(0, SILENT), "suspect/primary/1 up/standby/1", "0@1", "node:0"},
         {PRIMARY(0, 1), "up/primary/1 up/standby/1", "0@1", "node:0"},
         {FAILED(1, SILENT), "up/primary/1 suspect/standby/1", "0@1", "node:1"},
         {STANDBY(1, 1), "up/primary/1 up/standby/1", "0@1", "node:1"},
     }},
    {"a restart nobody saw is told by the start time; one that cannot be read tells nothing",
     1,
     {
         {PRIMARY(0, 1), "up/primary/1", "0@1", "primary:0 node:0"},
         {PRIMARY_SINCE(0, 1, 0), "up/primary/1", "0@1", ""},
         {PRIMARY(0, 1), "up/primary/1", "0@1", ""},
         {PRIMARY_SINCE(0, 1, 1001), "up/primary/2", "0@1", "restarted:0"},
         {PRIMARY_SINCE(0, 1, 0), "up/primary/2", "0@1", ""},
         {PRIMARY_SINCE(0, 1, 1002), "up/primary/3", "0@1", "restarted:0"},
     }},
};

/* ---- printing a view ---------------------------------------------------------------------------------------- */

static const char *print_nodes(const struct view *view, char *out, size_t size)
{
	size_t used = 0;
	*out = '\0';
	for (int i = 0; i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		used +=
		    (size_t)snprintf(out + used, size - used, "%s%s/%s/%llu", i ? " " : "", dbha_state_name((int)node->state),
		                     dbha_role_name((int)node->role), (unsigned long long)node->generation);
	}
	return out;
}

static const char *print_cluster(const struct view *view, char *out, size_t size)
{
	char primary[16];
	snprintf(primary, sizeof primary, "%d", view->primary);
	const char *who = !view->settled ? "?" : view->split_brain ? "split" : view->primary < 0 ? "-" : primary;
	snprintf(out, size, "%s@%u", who, (unsigned)view->timeline);
	return out;
}

static const char *print_events(const struct topology_events *events, char *out, size_t size)
{
	size_t used = 0;
	*out = '\0';
	for (int kind = 0; kind <= DBHA_EVENT_RESTARTED; kind++)
		for (int node = -1; node < CONFIG_NODES_MAX; node++)
			for (int i = 0; i < events->n; i++)
				if ((int)events->list[i].kind == kind && events->list[i].node == node)
					used += (size_t)snprintf(out + used, size - used, "%s%s:%d", used ? " " : "", dbha_event_name(kind),
					                         node);
	return out;
}

static void check_step(const struct script *script, int at, const struct view *view,
                       const struct topology_events *events)
{
	const struct step *step = &script->steps[at];
	char got[512];
	if (step->nodes)
		ck_assert_msg(strcmp(print_nodes(view, got, sizeof got), step->nodes) == 0,
		              "%s, step %d: nodes: %s\nexpected %s", script->name, at, got, step->nodes);
	ck_assert_msg(strcmp(print_cluster(view, got, sizeof got), step->cluster) == 0,
	              "%s, step %d: cluster: %s\nexpected %s", script->name, at, got, step->cluster);
	if (step->events)
		ck_assert_msg(strcmp(print_events(events, got, sizeof got), step->events) == 0,
		              "%s, step %d: events: %s\nexpected %s", script->name, at, got, step->events);
}

/* Everything that a route can depend on; where it changes, the version has to. */
struct routed {
	bool settled, split_brain;
	int primary;
	uint32_t timeline;
	struct {
		enum dbha_state state;
		enum dbha_role role;
		bool fenced, read_only, usable;
		uint64_t generation;
	} nodes[CONFIG_NODES_MAX];
};

static struct routed routing_of(const struct view *view)
{
	struct routed routing;
	memset(&routing, 0, sizeof routing);
	routing.settled = view->settled;
	routing.split_brain = view->split_brain;
	routing.primary = view->primary;
	routing.timeline = view->timeline;
	for (int i = 0; i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		routing.nodes[i].state = node->state;
		routing.nodes[i].role = node->role;
		routing.nodes[i].fenced = node->fenced;
		routing.nodes[i].read_only = node->read_only;
		routing.nodes[i].usable = dbha__topology_usable(node);
		routing.nodes[i].generation = node->generation;
	}
	return routing;
}

static bool routes_alike(const struct view *a, const struct view *b)
{
	struct routed ra = routing_of(a);
	struct routed rb = routing_of(b);
	return memcmp(&ra, &rb, sizeof ra) == 0;
}

START_TEST(a_script_is_followed)
{
	const struct script *script = &scripts[_i];
	struct view view;
	dbha__topology_init(&view, script->n_nodes);
	for (int at = 0; at < STEPS_MAX && script->steps[at].cluster; at++) {
		struct view before = view;
		struct topology_events events = {0};
		dbha__topology_apply(&view, &script->steps[at].o, PROBE_FAILURES, &events);
		check_step(script, at, &view, &events);
		ck_assert_msg(routes_alike(&before, &view) || view.version > before.version,
		              "%s, step %d: routes come out differently, but the version is still %llu", script->name, at,
		              (unsigned long long)view.version);
	}
}
END_TEST

/* ---- single facts ------------------------------------------------------------------------------------------- */

static void apply(struct view *view, struct observation o)
{
	struct topology_events events = {0};
	dbha__topology_apply(view, &o, PROBE_FAILURES, &events);
}

static struct view two_nodes_settled(void)
{
	struct view view;
	dbha__topology_init(&view, 2);
	apply(&view, (struct observation)PRIMARY(0, 1));
	apply(&view, (struct observation)STANDBY(1, 1));
	return view;
}

START_TEST(a_new_view_knows_nothing)
{
	struct view view;
	memset(&view, 0xff, sizeof view);
	dbha__topology_init(&view, CONFIG_NODES_MAX);
	ck_assert_int_eq(view.primary, -1);
	ck_assert(!view.settled);
	ck_assert(!view.split_brain);
	ck_assert_uint_eq(view.timeline, 0);
	ck_assert_int_eq(view.n_nodes, CONFIG_NODES_MAX);
	for (int i = 0; i < view.n_nodes; i++) {
		const struct node_view *node = &view.nodes[i];
		ck_assert(!dbha__topology_usable(node));
		ck_assert_int_eq((int)node->state, DBHA_STATE_UNKNOWN);
		ck_assert_uint_eq(node->generation, 1);
		ck_assert(node->lag_ms == -1 && node->lag_bytes == -1 && node->latency_us == -1 && node->seen_us == -1);
		ck_assert_str_eq(node->why, "");
	}
}
END_TEST

START_TEST(an_answer_is_taken_over_whole)
{
	struct view view = two_nodes_settled();
	struct observation o = STANDBY(1, 1);
	o.at_us = 777;
	o.latency_us = 33;
	o.lsn = 0x1600000020;
	o.read_only = true;
	apply(&view, o);
	ck_assert_int_eq(view.nodes[1].seen_us, 777);
	ck_assert_int_eq(view.nodes[1].latency_us, 33);
	ck_assert_uint_eq(view.nodes[1].lsn, 0x1600000020);
	ck_assert(view.nodes[1].read_only);
	apply(&view, (struct observation)FAILED(1, SILENT));
	ck_assert_int_eq(view.nodes[1].seen_us, 777);
	ck_assert_uint_eq(view.nodes[1].lsn, 0x1600000020);
	ck_assert_int_eq((int)view.nodes[1].role, DBHA_ROLE_STANDBY);
}
END_TEST

START_TEST(a_heartbeat_wakes_nobody)
{
	struct view view = two_nodes_settled();
	uint64_t version = view.version;
	for (int i = 0; i < 5; i++) {
		struct observation o = PRIMARY(0, 1);
		o.lsn = 2000 + (uint64_t)i;
		o.at_us = i;
		apply(&view, o);
		apply(&view, (struct observation)STANDBY(1, 1));
	}
	ck_assert_uint_eq(view.version, version);
	apply(&view, (struct observation)FAILED(1, UNREACHABLE));
	version = view.version;
	apply(&view, (struct observation)FAILED(1, UNREACHABLE));
	ck_assert_uint_eq(view.version, version);
}
END_TEST

START_TEST(read_only_sessions_are_news)
{
	struct view view = two_nodes_settled();
	uint64_t version = view.version;
	struct observation o = PRIMARY(0, 1);
	o.read_only = true;
	apply(&view, o);
	ck_assert_uint_gt(view.version, version);
	ck_assert_int_eq(view.primary, 0);
	ck_assert(view.nodes[0].was_writable);
	/* A standby has no say in it, nor what the node was before it became one. */
	o = (struct observation)STANDBY(0, 1);
	apply(&view, o);
	ck_assert(!view.nodes[0].was_writable);
	o = (struct observation)PRIMARY(0, 1);
	o.read_only = true;
	apply(&view, o);
	ck_assert(!view.nodes[0].was_writable);
}
END_TEST

START_TEST(an_observation_of_no_node_is_ignored)
{
	struct view view = two_nodes_settled();
	struct view before = view;
	apply(&view, (struct observation)PRIMARY(-1, 9));
	apply(&view, (struct observation)PRIMARY(2, 9));
	apply(&view, (struct observation)FAILED(CONFIG_NODES_MAX, UNREACHABLE));
	ck_assert_mem_eq(&view, &before, sizeof view);
}
END_TEST

START_TEST(the_reason_is_told_to_people)
{
	char much[3 * DBHA_WHY_MAX];
	memset(much, 'y', sizeof much - 1);
	much[sizeof much - 1] = '\0';
	struct view view = two_nodes_settled();
	struct observation o = FAILED(1, UNREACHABLE);
	o.why = "connection refused";
	apply(&view, o);
	ck_assert_str_eq(view.nodes[1].why, "connection refused");
	o.why = NULL;
	apply(&view, o);
	ck_assert_str_eq(view.nodes[1].why, "");
	o.why = much;
	apply(&view, o);
	ck_assert_uint_eq(strlen(view.nodes[1].why), DBHA_WHY_MAX - 1);
	apply(&view, (struct observation)PRIMARY(1, 12));
	ck_assert_str_eq(view.nodes[1].why, "");
	ck_assert_ptr_nonnull(strstr(view.nodes[0].why, "timeline 1,"));
	ck_assert_ptr_nonnull(strstr(view.nodes[0].why, "timeline 12"));
	apply(&view, (struct observation)FOREIGN_STANDBY(0, 1));
	ck_assert_ptr_nonnull(strstr(view.nodes[0].why, "7001"));
	ck_assert_ptr_nonnull(strstr(view.nodes[0].why, "9009"));
}
END_TEST

/* The first state of each: with the role known, and what it means for work. */
START_TEST(usable_follows_state_role_and_fence)
{
	static const bool usable[] = {[DBHA_STATE_UP] = true,
	                              [DBHA_STATE_SUSPECT] = true,
	                              [DBHA_STATE_FULL] = true,
	                              [DBHA_STATE_REFUSED] = true,
	                              [DBHA_STATE_FOREIGN] = false};
	for (int state = DBHA_STATE_UNKNOWN; state <= DBHA_STATE_FOREIGN; state++) {
		struct node_view node = {.state = (enum dbha_state)state, .role = DBHA_ROLE_STANDBY};
		ck_assert_msg(dbha__topology_usable(&node) == usable[state], "standby, %s", dbha_state_name(state));
		node.role = DBHA_ROLE_PRIMARY;
		ck_assert_msg(dbha__topology_usable(&node) == usable[state], "primary, %s", dbha_state_name(state));
		node.fenced = true;
		ck_assert_msg(!dbha__topology_usable(&node), "fenced, %s", dbha_state_name(state));
		node.fenced = false;
		node.role = DBHA_ROLE_UNKNOWN;
		ck_assert_msg(!dbha__topology_usable(&node), "no role, %s", dbha_state_name(state));
	}
}
END_TEST

/* As many events as one observation can cause: every other node of the largest cluster is fenced by it. */
START_TEST(the_largest_cluster_loses_no_event)
{
	struct view view;
	struct topology_events events = {0};
	dbha__topology_init(&view, CONFIG_NODES_MAX);
	for (int i = 0; i < CONFIG_NODES_MAX; i++)
		apply(&view, (struct observation)PRIMARY(i, 1));
	ck_assert(view.split_brain);
	struct observation o = PRIMARY_SINCE(5, 2, 2000);
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	int fenced = 0;
	for (int i = 0; i < events.n; i++)
		fenced += events.list[i].kind == DBHA_EVENT_FENCED;
	ck_assert_int_eq(fenced, CONFIG_NODES_MAX - 1);
	ck_assert_int_eq(view.primary, 5);
	ck_assert_int_eq(events.n, fenced + 3); /* healed, primary, restarted */
}
END_TEST

START_TEST(every_setting_of_probe_failures_is_kept_to)
{
	for (int limit = 1; limit <= 20; limit++) {
		struct view view;
		struct topology_events events = {0};
		struct observation silence = FAILED(0, SILENT);
		dbha__topology_init(&view, 1);
		apply(&view, (struct observation)PRIMARY(0, 1));
		for (int n = 1; n <= limit; n++) {
			ck_assert_msg(view.primary == 0, "%d of %d silences", n - 1, limit);
			dbha__topology_apply(&view, &silence, limit, &events);
			events.n = 0;
		}
		ck_assert_int_eq((int)view.nodes[0].state, DBHA_STATE_SILENT);
		ck_assert_int_eq(view.primary, -1);
	}
}
END_TEST

/* Whether a view is old is told by the nodes as they are after an observation, and not by what they were before it. */
START_TEST(a_view_is_as_old_as_what_it_was_told_last)
{
	struct view view;
	struct topology_events events = {0};
	struct observation silence = FAILED_AT(0, SILENT, 2), answer = KEPT(0, 1, 3), other = KEPT(1, 1, 4);
	dbha__topology_init(&view, 1);
	apply(&view, (struct observation)KEPT(0, 1, 1));
	ck_assert_int_eq(view.observed_us, 1000000);
	/* It is silent now: nobody is left who was looked at. */
	dbha__topology_apply(&view, &silence, 1, &events);
	ck_assert_int_eq((int)view.nodes[0].state, DBHA_STATE_SILENT);
	ck_assert_int_eq(view.observed_us, -1);
	dbha__topology_apply(&view, &answer, 1, &events);
	ck_assert_int_eq(view.observed_us, 3000000);

	/* Of two the one that was silent does not count, until it answers. */
	view = two_nodes_settled();
	apply(&view, (struct observation)KEPT(0, 1, 1));
	apply(&view, (struct observation)KEPT(1, 1, 1));
	silence.node = 1;
	dbha__topology_apply(&view, &silence, 1, &events);
	ck_assert_int_eq(view.observed_us, 1000000);
	apply(&view, answer);
	ck_assert_int_eq(view.observed_us, 3000000);
	other.in_recovery = true;
	apply(&view, other);
	ck_assert_int_eq(view.observed_us, 3000000);
}
END_TEST

/* ---- whatever happens --------------------------------------------------------------------------------------- */

/* What a world may do to us, beside answering honestly. */
static const struct world {
	const char *name;
	bool foreigners; /* servers of another cluster answer now and then */
	bool unreadable; /* timelines and identifiers are hidden now and then */
} worlds[] = {
    {"one cluster", false, false},
    {"one cluster and servers of another", true, false},
    {"one cluster, not always readable", false, true},
};

static bool one_in(struct rng *rng, uint64_t n)
{
	return dbha__rng_below(rng, n) == 0;
}

static struct observation random_observation(struct rng *rng, const struct world *world, int n_nodes)
{
	struct observation o = {.node = (int)dbha__rng_below(rng, (uint64_t)n_nodes)};
	if (one_in(rng, 3)) {
		o.failure = (enum failure)(1 + dbha__rng_below(rng, FAILURE_REFUSED));
		o.why = "for a reason";
		return o;
	}
	o.in_recovery = !one_in(rng, 3);
	o.timeline = (uint32_t)(1 + dbha__rng_below(rng, 5));
	o.system_identifier = OURS;
	int64_t started = one_in(rng, 10) ? (int64_t)dbha__rng_below(rng, 4) : 1000;
	o.started_us = STARTED(o.node, started);
	o.read_only = one_in(rng, 8);
	if (world->foreigners && one_in(rng, 4))
		o.system_identifier = THEIRS;
	if (world->unreadable && one_in(rng, 6))
		o.timeline = 0;
	return o;
}

struct where {
	const struct world *world;
	uint64_t seed;
	int step;
};

/* Not ck_assert_msg: that reports every success to the parent process too, and there are millions. */
#define HOLDS(where, what)                                                                                             \
	do {                                                                                                               \
		if (!(what))                                                                                                   \
			ck_abort_msg("%s: world \"%s\", seed %llu, step %d", #what, (where)->world->name,                          \
			             (unsigned long long)(where)->seed, (where)->step);                                            \
	} while (0)

static void check_node(const struct where *where, const struct view *before, const struct view *after, int i)
{
	const struct node_view *node = &after->nodes[i];
	bool foreign =
	    after->system_identifier && node->system_identifier && node->system_identifier != after->system_identifier;
	bool primary = node->role == DBHA_ROLE_PRIMARY;
	HOLDS(where, node->generation >= before->nodes[i].generation);
	HOLDS(where, !(node->fenced && dbha__topology_usable(node)));
	HOLDS(where, !(foreign && dbha__topology_usable(node)));
	HOLDS(where, !(primary && !foreign && node->timeline && node->timeline < after->timeline && !node->fenced));
	HOLDS(where, node->fenced || !before->nodes[i].fenced || !primary || foreign || node->timeline == after->timeline);
	HOLDS(where, !node->fenced || before->nodes[i].fenced || node->generation > before->nodes[i].generation);
}

static bool anybody_answered(const struct view *view)
{
	bool answered = false;
	for (int i = 0; i < view->n_nodes; i++)
		answered = answered || view->nodes[i].seen_us >= 0;
	return answered;
}

static bool primary_at_all(const struct view *view)
{
	for (int i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].role == DBHA_ROLE_PRIMARY && dbha__topology_usable(&view->nodes[i]))
			return true;
	return false;
}

static void check_view(const struct where *where, const struct view *before, const struct view *after)
{
	HOLDS(where, after->version >= before->version);
	HOLDS(where, routes_alike(before, after) || after->version > before->version);
	HOLDS(where, after->timeline >= before->timeline);
	/* Settling begins anew only if nobody had answered when it ended. */
	HOLDS(where, after->settled || !before->settled || !anybody_answered(before));
	HOLDS(where, after->settled || (after->primary < 0 && !after->split_brain));
	HOLDS(where, !(after->split_brain && after->primary >= 0));
	int primaries = 0, answering = 0, disputed = 0;
	for (int i = 0; i < after->n_nodes; i++) {
		const struct node_view *node = &after->nodes[i];
		check_node(where, before, after, i);
		bool primary = node->role == DBHA_ROLE_PRIMARY && dbha__topology_usable(node);
		primaries += primary;
		answering += primary && node->state != DBHA_STATE_SUSPECT;
		disputed += node->disputed && dbha__topology_usable(node);
		/* Nothing is asked of a node of which nothing is known, so whatever is usable can lead or has been seen. */
		HOLDS(where, node->seen || !dbha__topology_usable(node));
		/* What is open to one of two primaries is shut down, and to one that may come back beside another. */
		HOLDS(where, !node->disputed || node->role == DBHA_ROLE_PRIMARY);
		HOLDS(where, !node->disputed || primary || primary_at_all(after));
		HOLDS(where, !node->disputed || before->nodes[i].disputed || node->generation > before->nodes[i].generation);
	}
	HOLDS(where, !after->split_brain || primaries > 1);
	HOLDS(where, !after->split_brain || disputed == primaries);
	/* Of a suspect only the past is known, which makes no new split brain. */
	HOLDS(where, !after->settled || answering < 2 || after->split_brain);
	HOLDS(where, !after->settled || (after->primary >= 0) == (primaries == 1));
	if (after->primary < 0)
		return;
	const struct node_view *primary = &after->nodes[after->primary];
	HOLDS(where, primary->role == DBHA_ROLE_PRIMARY);
	HOLDS(where, dbha__topology_usable(primary));
	HOLDS(where, primary->timeline == after->timeline || (primary->timeline == 0 && where->world->unreadable));
}

/* After one observation the events must say what changed, and nothing else. */
static void check_told(const struct where *where, const struct view *before, const struct view *after,
                       const struct topology_events *events)
{
	int told[DBHA_EVENT_RESTARTED + 1] = {0};
	int newly_fenced = 0;
	HOLDS(where, events->n <= TOPOLOGY_EVENTS_MAX);
	for (int i = 0; i < events->n; i++)
		told[events->list[i].kind]++;
	for (int i = 0; i < after->n_nodes; i++)
		newly_fenced += after->nodes[i].fenced && !before->nodes[i].fenced;
	HOLDS(where, told[DBHA_EVENT_FENCED] == newly_fenced);
	HOLDS(where, told[DBHA_EVENT_PRIMARY] == (after->primary >= 0 && after->primary != before->primary));
	HOLDS(where, told[DBHA_EVENT_SPLIT_BRAIN] == (after->split_brain && !before->split_brain));
	HOLDS(where, told[DBHA_EVENT_HEALED] == (!after->split_brain && before->split_brain));
	HOLDS(where, told[DBHA_EVENT_NO_PRIMARY] == (before->primary >= 0 && after->primary < 0 && !after->split_brain));
}

static void run_sequence(const struct world *world, uint64_t seed)
{
	struct rng rng = {seed};
	struct where where = {.world = world, .seed = seed};
	struct view view;
	int n_nodes = 1 + (int)dbha__rng_below(&rng, 5);
	int probe_failures = 1 + (int)dbha__rng_below(&rng, 4);
	dbha__topology_init(&view, n_nodes);
	for (where.step = 0; where.step < 50; where.step++) {
		struct view before = view;
		struct topology_events events = {0};
		struct observation o = random_observation(&rng, world, n_nodes);
		dbha__topology_apply(&view, &o, probe_failures, &events);
		check_view(&where, &before, &view);
		check_told(&where, &before, &view, &events);
	}
}

START_TEST(random_sequences_keep_the_promise)
{
	const struct world *world = &worlds[_i];
	uint64_t seed = dbha__rng_entropy(world);
	const char *given = getenv("TEST_SEED");
	if (given)
		seed = strtoull(given, NULL, 0);
	printf("topology, %s: TEST_SEED=%llu\n", world->name, (unsigned long long)seed);
	fflush(stdout);
	for (uint64_t i = 0; i < 20000; i++)
		run_sequence(world, seed + i);
}
END_TEST

/* A standby is observed at a time in seconds; whether it warms up afterwards, and how far it has got. */
static const struct warming_script {
	const char *name;
	struct {
		struct observation o;
		int warming;
	} steps[10]; /* ends where at_us is 0 */
} warming_scripts[] = {
    {"the first sight of a node is no return", {{KEPT(1, 1, 1), 0}, {KEPT(1, 1, 2), 0}}},
    {"a node that was down takes on work by and by",
     {{KEPT(1, 1, 1), 0},
      {FAILED_AT(1, UNREACHABLE, 2), 0},
      {KEPT(1, 1, 3), 4},
      {KEPT(1, 1, 3.9), 4},
      {KEPT(1, 1, 4), 3},
      {KEPT(1, 1, 5.5), 2},
      {KEPT(1, 1, 6), 1},
      {KEPT(1, 1, 7), 0}}},
    {"a node that was down before it was ever up", {{FAILED_AT(1, STARTING, 1), 0}, {KEPT(1, 1, 2), 4}}},
    {"a node that was silent",
     {{KEPT(1, 1, 1), 0},
      {FAILED_AT(1, SILENT, 2), 0},
      {FAILED_AT(1, SILENT, 3), 0},
      {FAILED_AT(1, SILENT, 4), 0},
      {KEPT(1, 1, 5), 4}}},
    {"a suspicion that is cleared up is no outage",
     {{KEPT(1, 1, 1), 0}, {FAILED_AT(1, SILENT, 2), 0}, {FAILED_AT(1, LOST, 3), 0}, {KEPT(1, 1, 5), 0}}},
    {"a full node is none either", {{KEPT(1, 1, 1), 0}, {FAILED_AT(1, FULL, 2), 0}, {KEPT(1, 1, 9), 0}}},
    {"a node that goes again begins again",
     {{KEPT(1, 1, 1), 0},
      {FAILED_AT(1, UNREACHABLE, 2), 0},
      {KEPT(1, 1, 3), 4},
      {KEPT(1, 1, 5), 2},
      {FAILED_AT(1, UNREACHABLE, 6), 1},
      {KEPT(1, 1, 6.5), 4}}},
};

START_TEST(a_node_that_comes_back_warms_up)
{
	const struct warming_script *script = &warming_scripts[_i];
	struct view view;
	struct topology_events events = {0};
	dbha__topology_init(&view, 2);
	for (size_t i = 0; script->steps[i].o.at_us; i++) {
		dbha__topology_apply(&view, &script->steps[i].o, PROBE_FAILURES, &events);
		ck_assert_msg(view.nodes[1].warming == script->steps[i].warming, "%s, step %d: %d, expected %d", script->name,
		              (int)i, view.nodes[1].warming, script->steps[i].warming);
	}
}
END_TEST

/* A restart between two probes leaves no other trace than the time of the start. */
START_TEST(a_node_that_restarted_unseen_warms_up)
{
	struct view view;
	struct topology_events events = {0};
	struct observation o = KEPT(0, 1, 1);
	dbha__topology_init(&view, 1);
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	o.at_us += 1000000;
	o.started_us += 7;
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	ck_assert_int_eq(view.nodes[0].warming, WARMING_STEPS);
	ck_assert_int_eq(view.nodes[0].back_us, o.at_us);
}
END_TEST

/* A dispute is an incident of both: the connections of the one that nobody has just asked are made anew as well. */
START_TEST(both_of_two_disputed_nodes_warm_up)
{
	struct view view = two_nodes_settled();
	struct observation o = KEPT(1, 1, 5);
	apply(&view, o);
	ck_assert(view.nodes[0].disputed && view.nodes[1].disputed);
	ck_assert_int_eq(view.nodes[1].back_us, o.at_us);
	ck_assert_int_eq(view.nodes[0].back_us, o.at_us);
	/* Each counts for itself from then on, and a dispute that goes on is no news. */
	struct observation later = KEPT(0, 1, 6);
	apply(&view, later);
	ck_assert_int_eq(view.nodes[0].back_us, o.at_us);
	ck_assert_int_eq(view.nodes[0].warming, WARMING_STEPS - 1);
}
END_TEST

/*
 * A primary goes out of sight, and another one shows itself on the same timeline: a standby that did not know of its promotion has got the
 * same number. What is open to the first is shut down before it comes back, once; the second is the primary.
 */
START_TEST(an_unseen_primary_is_shut_out_by_another)
{
	struct view view = two_nodes_settled();
	uint64_t first = view.nodes[0].generation, second = view.nodes[1].generation;
	ck_assert_int_eq(view.primary, 0);
	for (int i = 0; i < PROBE_FAILURES; i++)
		apply(&view, (struct observation){.node = 0, .at_us = 10 + i, .failure = FAILURE_SILENT});
	ck_assert_uint_eq(view.nodes[0].generation, first);
	for (int i = 0; i < 2; i++) {
		struct observation o = KEPT(1, 1, 20 + i);
		o.timeline = view.timeline;
		apply(&view, o);
		ck_assert_int_eq(view.primary, 1);
		ck_assert(view.nodes[0].disputed && !view.nodes[1].disputed);
		ck_assert_uint_eq(view.nodes[0].generation, first + 1);
		ck_assert_uint_eq(view.nodes[1].generation, second);
	}
}
END_TEST

START_TEST(round_trips_are_smoothed)
{
	struct view view;
	struct topology_events events = {0};
	struct observation o = KEPT(0, 1, 1);
	const struct node_view *node = &view.nodes[0];
	dbha__topology_init(&view, 1);
	/* The time of a connect, with its passwords and keys, is none. */
	o.kept = false;
	o.latency_us = 90000;
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	ck_assert_int_eq(node->round_trip_us, 0);
	ck_assert_int_eq(node->latency_us, 90000);
	o.kept = true;
	o.latency_us = 400;
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	ck_assert_int_eq(node->round_trip_us, 400);
	/* One slow one alone is taken for an accident, the second shows at once, and is forgotten in the end. */
	o.latency_us = 400400;
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	ck_assert_int_eq(node->round_trip_us, 400);
	o.latency_us = 400800;
	dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	ck_assert_int_eq(node->round_trip_us, 100400);
	o.latency_us = 400;
	for (int i = 0; i < 20; i++)
		dbha__topology_apply(&view, &o, PROBE_FAILURES, &events);
	ck_assert_int_lt(node->round_trip_us, 1000);
	ck_assert_int_gt(node->round_trip_us, 399);
}
END_TEST

/* ---- places (discover=dns) --------------------------------------------------------------------------------------- */

static struct topology_events observe_events;

static void observe(struct view *view, struct observation o)
{
	observe_events.n = 0;
	dbha__topology_apply(view, &o, PROBE_FAILURES, &observe_events);
}

static bool said(const struct topology_events *events, enum dbha_event_kind kind, int node)
{
	for (int i = 0; i < events->n; i++)
		if (events->list[i].kind == kind && events->list[i].node == node)
			return true;
	return false;
}

/* A primary at place 0, a standby at 1, vacant places behind them. */
static struct view discovered(void)
{
	struct view view;
	dbha__topology_init(&view, 5);
	dbha__topology_reserve(&view, 1);
	dbha__topology_arrive(&view, 0, "a");
	dbha__topology_arrive(&view, 1, "b");
	observe(&view, (struct observation)PRIMARY(0, 1));
	ck_assert(!view.settled);
	observe(&view, (struct observation)STANDBY(1, 1));
	ck_assert(view.settled);
	ck_assert_int_eq(view.primary, 0);
	return view;
}

START_TEST(vacant_places_do_not_keep_from_settling)
{
	struct view view = discovered();
	for (int i = 2; i < 5; i++) {
		ck_assert_int_eq(view.nodes[i].presence, VACANT);
		ck_assert_int_eq(view.nodes[i].state, DBHA_STATE_ABSENT);
		ck_assert_str_eq(view.nodes[i].name, "");
		ck_assert(!dbha__topology_usable(&view.nodes[i]));
	}
}
END_TEST

START_TEST(who_arrives_before_settling_is_waited_for)
{
	struct view view;
	dbha__topology_init(&view, 3);
	dbha__topology_reserve(&view, 1);
	/* The name is resolved: its first address is where it waited, the second one is new. */
	dbha__topology_arrive(&view, 0, "a");
	dbha__topology_arrive(&view, 1, "b");
	observe(&view, (struct observation)PRIMARY(0, 1));
	ck_assert(!view.settled);
	observe(&view, (struct observation)PRIMARY(1, 2));
	ck_assert(view.settled);
	ck_assert_int_eq(view.primary, 1);
	ck_assert(view.nodes[0].fenced);
}
END_TEST

/* A lookup that took too long counted as one failed node; who answers first afterwards does not decide alone. */
START_TEST(who_arrives_after_a_failed_lookup_is_waited_for_too)
{
	struct view view;
	dbha__topology_init(&view, 3);
	dbha__topology_reserve(&view, 1);
	observe(&view, (struct observation)FAILED(0, SILENT));
	ck_assert(view.settled);
	dbha__topology_arrive(&view, 0, "a");
	dbha__topology_arrive(&view, 1, "b");
	observe(&view, (struct observation)PRIMARY(0, 1));
	ck_assert(!view.settled);
	ck_assert_int_eq(view.primary, -1);
	observe(&view, (struct observation)PRIMARY(1, 2));
	ck_assert(view.settled);
	ck_assert_int_eq(view.primary, 1);
}
END_TEST

START_TEST(who_leaves_gets_no_work_and_is_not_heard)
{
	struct view view = discovered();
	struct topology_events events = {0};
	uint64_t version = view.version, generation = view.nodes[0].generation;
	dbha__topology_leave(&view, 0, "gone", &events);
	ck_assert_int_eq(view.primary, -1);
	ck_assert(said(&events, DBHA_EVENT_NO_PRIMARY, 0));
	ck_assert(said(&events, DBHA_EVENT_NODE, 0));
	ck_assert_uint_gt(view.version, version);
	ck_assert_uint_eq(view.nodes[0].generation, generation); /* what runs may end */
	ck_assert_str_eq(view.nodes[0].why, "gone");
	ck_assert_int_eq(view.nodes[0].state, DBHA_STATE_ABSENT);
	observe(&view, (struct observation)PRIMARY(0, 1));
	ck_assert_int_eq(view.primary, -1);
	ck_assert_int_eq(view.nodes[0].state, DBHA_STATE_ABSENT);
}
END_TEST

/* P1 holds for those who still work on a primary that is leaving. */
START_TEST(who_leaves_is_fenced_all_the_same)
{
	struct view view = discovered();
	struct topology_events events = {0};
	dbha__topology_leave(&view, 0, "gone", &events);
	uint64_t generation = view.nodes[0].generation;
	observe(&view, (struct observation)PRIMARY(1, 2));
	ck_assert_int_eq(view.primary, 1);
	ck_assert_uint_gt(view.nodes[0].generation, generation);
	ck_assert(said(&observe_events, DBHA_EVENT_FENCED, 0));
}
END_TEST

START_TEST(who_returns_is_used_when_it_has_answered)
{
	struct view view = discovered();
	struct topology_events events = {0};
	uint64_t generation = view.nodes[0].generation;
	dbha__topology_leave(&view, 0, "gone", &events);
	dbha__topology_return(&view, 0);
	ck_assert_int_eq(view.primary, -1);
	ck_assert_int_eq(view.nodes[0].state, DBHA_STATE_UNKNOWN);
	observe(&view, (struct observation)PRIMARY(0, 1));
	ck_assert_int_eq(view.primary, 0);
	ck_assert_uint_eq(view.nodes[0].generation, generation);
}
END_TEST

START_TEST(a_place_changes_hands_in_a_new_generation)
{
	struct view view = discovered();
	struct topology_events events = {0};
	dbha__topology_leave(&view, 1, "gone", &events);
	uint64_t generation = view.nodes[1].generation;
	dbha__topology_vacate(&view, 1, &events);
	ck_assert_uint_gt(view.nodes[1].generation, generation);
	ck_assert_int_eq(view.nodes[1].role, DBHA_ROLE_UNKNOWN);
	generation = view.nodes[1].generation;
	dbha__topology_arrive(&view, 1, "c");
	ck_assert_uint_gt(view.nodes[1].generation, generation);
	ck_assert_str_eq(view.nodes[1].name, "c");
	ck_assert(!dbha__topology_usable(&view.nodes[1]));
	ck_assert(view.settled);
	/* Whoever comes is judged by what has been seen before. */
	observe(&view, (struct observation)PRIMARY(0, 3));
	observe(&view, (struct observation)PRIMARY(1, 2));
	ck_assert(view.nodes[1].fenced);
	ck_assert_int_eq(view.primary, 0);
}
END_TEST

static Suite *topology_suite(void)
{
	TCase *tcase = tcase_create("topology");
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, a_script_is_followed, 0, sizeof scripts / sizeof scripts[0]);
	tcase_add_test(tcase, a_new_view_knows_nothing);
	tcase_add_test(tcase, an_answer_is_taken_over_whole);
	tcase_add_test(tcase, a_heartbeat_wakes_nobody);
	tcase_add_test(tcase, read_only_sessions_are_news);
	tcase_add_test(tcase, an_observation_of_no_node_is_ignored);
	tcase_add_test(tcase, the_reason_is_told_to_people);
	tcase_add_test(tcase, usable_follows_state_role_and_fence);
	tcase_add_test(tcase, the_largest_cluster_loses_no_event);
	tcase_add_test(tcase, every_setting_of_probe_failures_is_kept_to);
	tcase_add_test(tcase, a_view_is_as_old_as_what_it_was_told_last);
	tcase_add_loop_test(tcase, a_node_that_comes_back_warms_up, 0, sizeof warming_scripts / sizeof warming_scripts[0]);
	tcase_add_test(tcase, a_node_that_restarted_unseen_warms_up);
	tcase_add_test(tcase, both_of_two_disputed_nodes_warm_up);
	tcase_add_test(tcase, an_unseen_primary_is_shut_out_by_another);
	tcase_add_test(tcase, round_trips_are_smoothed);
	tcase_add_test(tcase, vacant_places_do_not_keep_from_settling);
	tcase_add_test(tcase, who_arrives_before_settling_is_waited_for);
	tcase_add_test(tcase, who_arrives_after_a_failed_lookup_is_waited_for_too);
	tcase_add_test(tcase, who_leaves_gets_no_work_and_is_not_heard);
	tcase_add_test(tcase, who_leaves_is_fenced_all_the_same);
	tcase_add_test(tcase, who_returns_is_used_when_it_has_answered);
	tcase_add_test(tcase, a_place_changes_hands_in_a_new_generation);
	tcase_add_loop_test(tcase, random_sequences_keep_the_promise, 0, sizeof worlds / sizeof worlds[0]);
	Suite *suite = suite_create("topology");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(topology_suite)
