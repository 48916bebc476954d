#include "resolver.h"

#include <netdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "clock.h"
#include "sync.h"
#include "thread.h"

/* Two lookups of one name begin at least so far apart. */
#define RETRY_US ((int64_t)1000000)

/* A host name, of one or more nodes. */
struct name {
	const char *host; /* of the configuration */
	bool running;
	bool known; /* a lookup has ended */
	int error;  /* of getaddrinfo, in the last one */
	int64_t asked_us;
	struct addresses addresses; /* of the last lookup that found any */
};

struct resolver {
	struct mutex lock;
	int refs; /* the handle, and one per running lookup */
	bool closed;
	struct wake *wake;
	int64_t refresh_us;
	_Atomic unsigned version;
	int n_nodes;
	int name_of[CONFIG_NODES_MAX]; /* by node; -1: it needs no lookup */
	int n;
	struct name names[CONFIG_NODES_MAX];
};

struct lookup {
	struct resolver *resolver;
	int name;
	char host[256];
};

static bool is_numeric(const char *host)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	bool numeric = getaddrinfo(host, NULL, &hints, &list) == 0;
	if (list)
		freeaddrinfo(list);
	return numeric;
}

/* A Unix socket is named by a directory, or by @ in the abstract namespace. */
static bool needs_lookup(const struct config_node *node)
{
	return !node->hostaddr && node->host && node->host[0] && node->host[0] != '/' && node->host[0] != '@' &&
	       !is_numeric(node->host);
}

/* Nodes that differ in their ports alone share their name's lookups. */
static int add_name(struct resolver *resolver, const struct config_node *node)
{
	if (!needs_lookup(node))
		return -1;
	for (int i = 0; i < resolver->n; i++)
		if (strcasecmp(resolver->names[i].host, node->host) == 0)
			return i;
	resolver->names[resolver->n] = (struct name){.host = node->host, .asked_us = -RETRY_US};
	return resolver->n++;
}

struct resolver *dbha__resolver_new(const struct config *config, struct wake *wake)
{
	struct resolver *resolver = calloc(1, sizeof *resolver);
	if (!resolver)
		return NULL;
	if (dbha__mutex_init(&resolver->lock, RANK_RESOLVER) != 0) {
		free(resolver);
		return NULL;
	}
	resolver->refs = 1;
	resolver->wake = wake;
	resolver->refresh_us = ms_to_us(config->options.resolve_interval_ms);
	atomic_init(&resolver->version, 0);
	resolver->n_nodes = config->n_nodes;
	for (int i = 0; i < config->n_nodes; i++)
		resolver->name_of[i] = add_name(resolver, &config->nodes[i]);
	return resolver;
}

static void unref_and_unlock(struct resolver *resolver) RELEASES(resolver->lock)
{
	bool last = --resolver->refs == 0;
	dbha__mutex_unlock(&resolver->lock);
	if (!last)
		return;
	dbha__mutex_fini(&resolver->lock);
	free(resolver);
}

void dbha__resolver_close(struct resolver *resolver)
{
	if (!resolver)
		return;
	dbha__mutex_lock(&resolver->lock);
	resolver->closed = true;
	unref_and_unlock(resolver);
}

/* ---- one lookup --------------------------------------------------------------------------------------------- */

static void keep_addresses(struct addresses *addresses, const struct addrinfo *list)
{
	addresses->n = addresses->left_out = 0;
	for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
		char text[ADDRESS_LENGTH];
		/* A file of hosts may name an address twice. */
		if (getnameinfo(ai->ai_addr, ai->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST) != 0 ||
		    dbha__addresses_hold(addresses, text))
			continue;
		if (addresses->n < ADDRESSES_MAX)
			memcpy(addresses->list[addresses->n++], text, sizeof text);
		else
			addresses->left_out++;
	}
}

/* The order is no change: name servers turn it with every answer. */
static bool same_addresses(const struct addresses *a, const struct addresses *b)
{
	for (int i = 0; i < a->n; i++)
		if (!dbha__addresses_hold(b, a->list[i]))
			return false;
	return a->n == b->n && a->left_out == b->left_out;
}

static void finish_lookup(struct resolver *resolver, struct name *name, int error, const struct addresses *found)
    REQUIRES(resolver->lock)
{
	name->running = false;
	/* A failure does not take away what is known: the resolver being down is not the host having moved. */
	if (!error && found->n > 0) {
		if (!same_addresses(&name->addresses, found))
			atomic_fetch_add(&resolver->version, 1);
		name->addresses = *found;
	}
	name->error = error;
	name->known = true;
	if (!resolver->closed)
		dbha__wake_signal(resolver->wake);
}

static void *run_lookup(void *arg)
{
	struct lookup *lookup = arg;
	struct resolver *resolver = lookup->resolver;
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_family = AF_UNSPEC};
	struct addrinfo *list = NULL;
	struct addresses addresses;
	int error = getaddrinfo(lookup->host, NULL, &hints, &list);
	keep_addresses(&addresses, error ? NULL : list);
	if (!error && list)
		freeaddrinfo(list);

	dbha__mutex_lock(&resolver->lock);
	finish_lookup(resolver, &resolver->names[lookup->name], error, &addresses);
	unref_and_unlock(resolver);
	free(lookup);
	return NULL;
}

static void start_lookup(struct resolver *resolver, int index, int64_t now) REQUIRES(resolver->lock)
{
	struct name *name = &resolver->names[index];
	if (name->running || now - name->asked_us < RETRY_US)
		return;
	name->asked_us = now;
	struct lookup *lookup = malloc(sizeof *lookup);
	if (!lookup)
		return;
	lookup->resolver = resolver;
	lookup->name = index;
	snprintf(lookup->host, sizeof lookup->host, "%s", name->host);
	if (dbha__thread_start(NULL, run_lookup, lookup) == 0) {
		name->running = true;
		resolver->refs++;
	} else {
		name->known = true;
		name->error = EAI_MEMORY;
		free(lookup);
	}
}

/* ---- asking ------------------------------------------------------------------------------------------------- */

/* When a name that nobody has trouble with is to be looked up again. */
static int64_t due(const struct resolver *resolver, const struct name *name, bool urgent)
{
	return name->asked_us + (urgent || name->addresses.n == 0 ? RETRY_US : resolver->refresh_us);
}

enum resolve_end dbha__resolver_lookup(struct resolver *resolver, int node, int64_t now, struct addresses *out,
                                       char *why, size_t why_size)
{
	int index = resolver->name_of[node];
	out->n = 0;
	if (index < 0)
		return RESOLVED;
	struct name *name = &resolver->names[index];
	dbha__mutex_lock(&resolver->lock);
	if (now >= due(resolver, name, false))
		start_lookup(resolver, index, now);
	*out = name->addresses;
	bool known = name->known;
	int error = name->error;
	dbha__mutex_unlock(&resolver->lock);
	if (out->n > 0)
		return RESOLVED;
	if (!known)
		return RESOLVE_PENDING;
	snprintf(why, why_size, "could not translate host name \"%s\" to address: %s", name->host,
	         error ? gai_strerror(error) : "no address");
	return RESOLVE_FAILED;
}

void dbha__resolver_refresh(struct resolver *resolver, int node, int64_t now)
{
	int index = resolver->name_of[node];
	if (index < 0)
		return;
	dbha__mutex_lock(&resolver->lock);
	start_lookup(resolver, index, now);
	dbha__mutex_unlock(&resolver->lock);
}

uint32_t dbha__resolver_names(const struct resolver *resolver)
{
	uint32_t bits = 0;
	for (int i = 0; i < resolver->n_nodes; i++)
		if (resolver->name_of[i] >= 0)
			bits |= UINT32_C(1) << i;
	return bits;
}

unsigned dbha__resolver_version(const struct resolver *resolver)
{
	return atomic_load(&resolver->version);
}

int64_t dbha__resolver_keep_fresh(struct resolver *resolver, int64_t now, bool urgent)
{
	int64_t next = CLOCK_NEVER;
	dbha__mutex_lock(&resolver->lock);
	for (int i = 0; i < resolver->n; i++) {
		struct name *name = &resolver->names[i];
		if (now >= due(resolver, name, urgent))
			start_lookup(resolver, i, now);
		/* One that is running wakes the loop when it ends. */
		int64_t at = due(resolver, name, urgent);
		if (!name->running && at < next)
			next = at;
	}
	dbha__mutex_unlock(&resolver->lock);
	return next;
}

void dbha__resolver_known(struct resolver *resolver, int node, struct addresses *out)
{
	int index = resolver->name_of[node];
	out->n = out->left_out = 0;
	if (index < 0)
		return;
	dbha__mutex_lock(&resolver->lock);
	*out = resolver->names[index].addresses;
	dbha__mutex_unlock(&resolver->lock);
}

/* Taken here, given back below: the analysis looks at one function at a time. */
void dbha__resolver_lock_for_fork(struct resolver *resolver) NO_ANALYSIS
{
	dbha__mutex_lock_for_fork(&resolver->lock);
}

void dbha__resolver_unlock_after_fork(struct resolver *resolver) NO_ANALYSIS
{
	dbha__mutex_unlock_after_fork(&resolver->lock);
}
