#include "discover.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIT(i) (UINT32_C(1) << (i))
_Static_assert(CONFIG_NODES_MAX <= 32, "a bit for each place");

int dbha__discover_places(const struct config *config)
{
	return config->options.discover == DISCOVER_DNS ? CONFIG_NODES_MAX : config->n_nodes;
}

void dbha__discover_init(struct discovery *discovery, const struct config *config, uint32_t looked_up)
{
	memset(discovery, 0, sizeof *discovery);
	discovery->n_seeds = config->n_nodes;
	discovery->n_places = dbha__discover_places(config);
	for (int i = 0; i < config->n_nodes; i++) {
		bool discovers = config->options.discover == DISCOVER_DNS && looked_up & BIT(i);
		discovery->places[i] = (struct place){.use = discovers ? PLACE_WAITING : PLACE_FIXED, .seed = i};
	}
}

static bool same_port(const struct config *config, int a, int b)
{
	return strtol(config->nodes[a].port, NULL, 10) == strtol(config->nodes[b].port, NULL, 10);
}

/* The address that a place is known to have; "" if it is none that could be compared. */
static const char *address_of(const struct config *config, const struct place *place)
{
	const struct config_node *seed = &config->nodes[place->seed];
	if (place->use == PLACE_TAKEN)
		return place->address;
	if (place->use != PLACE_FIXED)
		return "";
	return seed->hostaddr ? seed->hostaddr : seed->host ? seed->host : "";
}

/* Two names may lead to one server: it has one place. */
static bool has_place(const struct discovery *discovery, const struct config *config, int seed, const char *address)
{
	for (int i = 0; i < discovery->n_places; i++) {
		const struct place *place = &discovery->places[i];
		if (place->use != PLACE_VACANT && same_port(config, place->seed, seed) &&
		    strcmp(address_of(config, place), address) == 0)
			return true;
	}
	return false;
}

/* Who was here leaves; who was leaving comes back, unless another name has brought it a new place meanwhile. */
static void review(struct discovery *discovery, const struct config *config, const struct addresses *known,
                   struct discover_changes *changes)
{
	for (int i = 0; i < discovery->n_places; i++) {
		struct place *place = &discovery->places[i];
		if (place->use != PLACE_TAKEN && place->use != PLACE_LEAVING)
			continue;
		bool listed = dbha__addresses_hold(&known[place->seed], place->address);
		if (place->use == PLACE_TAKEN && !listed) {
			place->use = PLACE_LEAVING;
			changes->left |= BIT(i);
		} else if (place->use == PLACE_LEAVING && listed &&
		           !has_place(discovery, config, place->seed, place->address)) {
			place->use = PLACE_TAKEN;
			changes->back |= BIT(i);
		}
	}
}

/*
 * The place for a new address: where its seed waits for one; else where it was before, so that what comes and goes keeps its
 * place; else where nobody has been; else any that is vacant; else -1.
 */
static int find_place(const struct discovery *discovery, int seed, const char *address)
{
	int best = -1, best_rank = 0;
	for (int i = 0; i < discovery->n_places; i++) {
		const struct place *place = &discovery->places[i];
		int rank = 0;
		if (place->use == PLACE_WAITING && place->seed == seed)
			rank = 4;
		else if (place->use == PLACE_VACANT && place->seed == seed && strcmp(place->address, address) == 0)
			rank = 3;
		else if (place->use == PLACE_VACANT)
			rank = place->address[0] ? 1 : 2;
		if (rank > best_rank) {
			best = i;
			best_rank = rank;
		}
	}
	return best;
}

static void admit(struct discovery *discovery, const struct config *config, int seed, const struct addresses *addresses,
                  struct discover_changes *changes)
{
	changes->unplaced += addresses->left_out;
	for (int k = 0; k < addresses->n; k++) {
		const char *address = addresses->list[k];
		if (has_place(discovery, config, seed, address))
			continue;
		int i = find_place(discovery, seed, address);
		if (i < 0) {
			changes->unplaced++;
			continue;
		}
		struct place *place = &discovery->places[i];
		*place = (struct place){.use = PLACE_TAKEN, .seed = seed};
		snprintf(place->address, sizeof place->address, "%s", address);
		changes->taken |= BIT(i);
	}
}

/* A seed that is known by now and still waits: all its addresses are nodes by other names. */
static void free_waiting(struct discovery *discovery, const struct addresses *known, struct discover_changes *changes)
{
	for (int i = 0; i < discovery->n_places; i++) {
		struct place *place = &discovery->places[i];
		if (place->use == PLACE_WAITING && known[place->seed].n > 0) {
			place->use = PLACE_VACANT;
			changes->freed |= BIT(i);
		}
	}
}

struct discover_changes dbha__discover_apply(struct discovery *discovery, const struct config *config,
                                             const struct addresses *known)
{
	struct discover_changes changes = {0};
	review(discovery, config, known, &changes);
	for (int seed = 0; seed < discovery->n_seeds; seed++)
		if (discovery->places[seed].use != PLACE_FIXED) /* what is fixed stays so, at its own index */
			admit(discovery, config, seed, &known[seed], &changes);
	free_waiting(discovery, known, &changes);
	return changes;
}

void dbha__discover_vacate(struct discovery *discovery, int place)
{
	if (discovery->places[place].use == PLACE_LEAVING)
		discovery->places[place].use = PLACE_VACANT;
}

void dbha__discover_name(const struct config_node *seed, const char *address, char name[DBHA_NODE_NAME_MAX])
{
	size_t taken = sizeof "...[]:" + strlen(address) + strlen(seed->port);
	size_t room = taken < DBHA_NODE_NAME_MAX ? DBHA_NODE_NAME_MAX - taken : 0, length = strlen(seed->host);
	bool cut = length > room;
	snprintf(name, DBHA_NODE_NAME_MAX, "%s%s[%s]:%s", cut ? "..." : "", cut ? seed->host + length - room : seed->host,
	         address, seed->port);
}
