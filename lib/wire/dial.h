/*
 * dial: from an address list to a connection whose server has said who it is, without blocking.
 *
 * libpq's own walk over hosts and addresses ends at the first authentication error and has no deadline when it does not
 * block; here one address after the other is tried, each with its share of the time, and the identity query follows.
 */
#ifndef DBHA_WIRE_DIAL_H
#define DBHA_WIRE_DIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "addresses.h"
#include "config.h"
#include "conn.h"
#include "topology.h"

struct dial_plan {
	const struct config *config;
	const struct config_node *node;
	int statements; /* prepared statements to keep, 0: none */
	bool reader;    /* make a session on a standby read-only */
	/* From the beginning: an address that has not even accepted by then is given up. 0: no limit but the deadline. */
	int64_t reach_us;
};

enum dial_end {
	DIAL_BUSY,
	DIAL_READY,
	DIAL_FAILED,
};

struct dial {
	struct dial_plan plan;
	struct addresses addresses;
	int address; /* index of the one being tried */
	int64_t began_us;
	int64_t deadline;
	int64_t address_deadline;
	struct conn *conn;
	bool asking;
	short events; /* what it waits for on its socket */
	/* With DIAL_READY: who answered. With DIAL_FAILED: the kind, and why below. node and at_us are the caller's to fill. */
	struct observation observation;
	char why[DBHA_WHY_MAX];
};

/* Begins. `addresses` is copied. Goes on with dbha__dial_step, at once. */
void dbha__dial_begin(struct dial *dial, const struct dial_plan *plan, const struct addresses *addresses, int64_t now,
                      int64_t deadline);

/*
 * Does what can be done now. ready: poll(2) reported the socket. DIAL_READY: the connection is dial->conn and becomes the
 * caller's (dbha__dial_take).
 */
enum dial_end dbha__dial_step(struct dial *dial, int64_t now, bool ready);

/* When to step again even if the socket stays quiet. */
int64_t dbha__dial_wake(const struct dial *dial);

/* The time that has passed since the last step does not count. */
void dbha__dial_skip(struct dial *dial, int64_t gap_us);

/* Takes the connection out of a dial that is ready. */
struct conn *dbha__dial_take(struct dial *dial);

/* Gives up: closes what is open. */
void dbha__dial_drop(struct dial *dial);

#endif
