#include "places.h"

#include <stdlib.h>
#include <string.h>

struct kept_name {
	struct kept_name *next;
	char text[];
};

void dbha__names_free(struct kept_names *names)
{
	while (names->first) {
		struct kept_name *name = names->first;
		names->first = name->next;
		free(name);
	}
}

/* NULL: out of memory. */
static const char *keep(struct kept_names *names, const char *text)
{
	for (struct kept_name *name = names->first; name; name = name->next)
		if (strcmp(name->text, text) == 0)
			return name->text;
	size_t size = strlen(text) + 1;
	struct kept_name *name = malloc(sizeof *name + size);
	if (!name)
		return NULL;
	memcpy(name->text, text, size);
	name->next = names->first;
	names->first = name;
	return name->text;
}

void dbha__places_init(struct places *places, const struct config *config, struct resolver *resolver,
                       struct kept_names *names)
{
	memset(places, 0, sizeof *places);
	places->config = config;
	places->resolver = resolver;
	places->names = names;
	places->discovers = config->options.discover == DISCOVER_DNS;
	dbha__discover_init(&places->discovery, config, dbha__resolver_names(resolver));
}

static int seed_of(const struct places *places, int place)
{
	return places->discovery.places[place].seed;
}

const struct config_node *dbha__places_node(const struct places *places, int place)
{
	return &places->config->nodes[seed_of(places, place)];
}

enum resolve_end dbha__places_lookup(const struct places *places, int place, int64_t now, struct addresses *out,
                                     char *why, size_t why_size)
{
	const struct place *at = &places->discovery.places[place];
	if (at->use == PLACE_TAKEN || at->use == PLACE_LEAVING) {
		out->n = 1;
		out->left_out = 0;
		memcpy(out->list[0], at->address, sizeof at->address);
		return RESOLVED;
	}
	enum resolve_end end = dbha__resolver_lookup(places->resolver, at->seed, now, out, why, why_size);
	/* Found in this very moment: each address gets its place at the next step. */
	return end == RESOLVED && at->use == PLACE_WAITING ? RESOLVE_PENDING : end;
}

void dbha__places_refresh(const struct places *places, int place, int64_t now)
{
	dbha__resolver_refresh(places->resolver, seed_of(places, place), now);
}

bool dbha__places_news(struct places *places)
{
	unsigned version = dbha__resolver_version(places->resolver);
	bool news = places->version != version || places->freed;
	places->version = version;
	places->freed = false;
	return news;
}

struct discover_changes dbha__places_update(struct places *places)
{
	struct addresses known[CONFIG_NODES_MAX];
	for (int i = 0; i < places->config->n_nodes; i++)
		dbha__resolver_known(places->resolver, i, &known[i]);
	return dbha__discover_apply(&places->discovery, places->config, known);
}

void dbha__places_vacate(struct places *places, int place)
{
	dbha__discover_vacate(&places->discovery, place);
	places->freed = true;
}

const char *dbha__places_name(const struct places *places, int place)
{
	const struct config_node *seed = dbha__places_node(places, place);
	char name[DBHA_NODE_NAME_MAX];
	dbha__discover_name(seed, places->discovery.places[place].address, name);
	const char *kept = keep(places->names, name);
	return kept ? kept : seed->name;
}
