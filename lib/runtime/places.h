/*
 * places: which server has which place, at run time: the resolver's answers brought to policy/discover, and the names.
 *
 * Of the stepping thread alone, except the names: each is made once, never changes, and lives as long as the handle, so
 * that whoever has seen one in a view, in a lease or in a call may go on reading it. That costs some hundred bytes for every
 * address that a name has ever had.
 */
#ifndef DBHA_RUNTIME_PLACES_H
#define DBHA_RUNTIME_PLACES_H

#include <stdbool.h>
#include <stdint.h>

#include "addresses.h"
#include "config.h"
#include "discover.h"
#include "resolver.h"

/* The names that a handle has given to nodes. Zeroed: none. */
struct kept_names {
	struct kept_name *first;
};

void dbha__names_free(struct kept_names *names);

struct places {
	const struct config *config;
	struct resolver *resolver;
	struct kept_names *names;
	struct discovery discovery;
	bool discovers;     /* discover=dns */
	bool freed;         /* since the last update a place has become vacant */
	bool said_too_many; /* once in the life of the handle's thread */
	unsigned version;   /* of the resolver's, that has been applied */
};

void dbha__places_init(struct places *places, const struct config *config, struct resolver *resolver,
                       struct kept_names *names);

/* Host and port of a place that is not vacant. */
const struct config_node *dbha__places_node(const struct places *places, int place);

/* Where to dial for a place that is not vacant; as dbha__resolver_lookup. */
enum resolve_end dbha__places_lookup(const struct places *places, int place, int64_t now, struct addresses *out,
                                     char *why, size_t why_size);

/* Its addresses did not work: see dbha__resolver_refresh. */
void dbha__places_refresh(const struct places *places, int place, int64_t now);

/* Whether some name has other addresses than at the last call. */
bool dbha__places_news(struct places *places);

/* Applies what the resolver knows now. */
struct discover_changes dbha__places_update(struct places *places);

/* The last connection of a place that was leaving is gone. */
void dbha__places_vacate(struct places *places, int place);

/* The name of the node that has taken a place. Never NULL. */
const char *dbha__places_name(const struct places *places, int place);

#endif
