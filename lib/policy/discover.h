/*
 * discover: which server has which place, where each address of a host name is a node of its own (discover=dns).
 *
 * A handle has CONFIG_NODES_MAX places for nodes, each with its pool, its probe and its row in the view. The hosts of the
 * URL are seeds: one that needs no lookup has its place for good; one whose name is not resolved yet waits at a place, so
 * that it is seen to fail; and each address of a name takes a place when a lookup first finds it. An address that is gone from
 * the answer leaves: its place is given no new work, and is vacant when its last connection has come back. What has
 * not been found (a failed lookup) changes nothing. Pure.
 */
#ifndef DBHA_POLICY_DISCOVER_H
#define DBHA_POLICY_DISCOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "addresses.h"
#include "config.h"

enum place_use {
	PLACE_VACANT,
	PLACE_FIXED,   /* a host of the URL, whatever its addresses */
	PLACE_WAITING, /* a host of the URL whose addresses are not known yet */
	PLACE_TAKEN,   /* one address of a host of the URL */
	PLACE_LEAVING, /* as TAKEN, but the address is gone from the answer */
};

struct place {
	enum place_use use;
	int seed;                     /* which host of the URL */
	char address[ADDRESS_LENGTH]; /* TAKEN, LEAVING; VACANT: of the last one that was here, or "" */
};

struct discovery {
	int n_seeds;
	int n_places;
	struct place places[CONFIG_NODES_MAX];
};

/* What has become of the places: bit i is place i. */
struct discover_changes {
	uint32_t taken; /* by a new address: TAKEN now */
	uint32_t left;  /* LEAVING now */
	uint32_t back;  /* was LEAVING, is TAKEN again */
	uint32_t freed; /* was WAITING for what other places have already: VACANT now */
	int unplaced;   /* addresses for which there was no place, and those that the lookup left out */
};

/* How many places a handle needs. */
int dbha__discover_places(const struct config *config);

/* Every host of the URL at the place of its own index. looked_up: bit i: its addresses are looked up, and are nodes. */
void dbha__discover_init(struct discovery *discovery, const struct config *config, uint32_t looked_up);

/* Brings the places up to date with what is known of each seed (by index; n = 0: nothing). */
struct discover_changes dbha__discover_apply(struct discovery *discovery, const struct config *config,
                                             const struct addresses *known);

/* The last connection of a LEAVING place is gone. */
void dbha__discover_vacate(struct discovery *discovery, int place);

/* "host[address]:port", for people; the end of a host that is too long. */
void dbha__discover_name(const struct config_node *seed, const char *address, char name[DBHA_NODE_NAME_MAX]);

#endif
