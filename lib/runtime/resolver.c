#include "resolver.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "sync.h"
#include "thread.h"

#define REFRESH_US (30 * (int64_t)1000000)
#define RETRY_US   ((int64_t)1000000)

struct name {
	const char *host; /* NULL: this node needs no lookup */
	bool running;
	bool known; /* a lookup has ended */
	int error;  /* of getaddrinfo, 0 if `addresses` holds */
	int64_t asked_us;
	struct addresses addresses;
};

struct resolver {
	struct mutex lock;
	int refs; /* the handle, and one per running lookup */
	bool closed;
	struct wake *wake;
	int n;
	struct name names[CONFIG_NODES_MAX];
};

struct lookup {
	struct resolver *resolver;
	int node;
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
	resolver->n = config->n_nodes;
	for (int i = 0; i < config->n_nodes; i++) {
		struct name *name = &resolver->names[i];
		name->host = needs_lookup(&config->nodes[i]) ? config->nodes[i].host : NULL;
		name->asked_us = -RETRY_US;
	}
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

static void keep_addresses(struct addresses *addresses, const struct addrinfo *list)
{
	addresses->n = 0;
	for (const struct addrinfo *ai = list; ai && addresses->n < DIAL_ADDRESSES_MAX; ai = ai->ai_next) {
		char *to = addresses->list[addresses->n];
		if (getnameinfo(ai->ai_addr, ai->ai_addrlen, to, DIAL_ADDRESS_LENGTH, NULL, 0, NI_NUMERICHOST) == 0)
			addresses->n++;
	}
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
	struct name *name = &resolver->names[lookup->node];
	name->running = false;
	/* A failure does not take away what is known: the resolver being down is not the host having moved. */
	if (!error && addresses.n > 0)
		name->addresses = addresses;
	name->error = error;
	name->known = true;
	if (!resolver->closed)
		dbha__wake_signal(resolver->wake);
	unref_and_unlock(resolver);
	free(lookup);
	return NULL;
}

static void start_lookup(struct resolver *resolver, int node, int64_t now) REQUIRES(resolver->lock)
{
	struct name *name = &resolver->names[node];
	if (name->running || now - name->asked_us < RETRY_US)
		return;
	name->asked_us = now;
	struct lookup *lookup = malloc(sizeof *lookup);
	if (!lookup)
		return;
	lookup->resolver = resolver;
	lookup->node = node;
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

enum resolve_end dbha__resolver_lookup(struct resolver *resolver, int node, int64_t now, struct addresses *out,
                                       char *why, size_t why_size)
{
	struct name *name = &resolver->names[node];
	out->n = 0;
	if (!name->host)
		return RESOLVED;
	dbha__mutex_lock(&resolver->lock);
	bool old = now - name->asked_us > REFRESH_US;
	if (!name->known || old || name->addresses.n == 0)
		start_lookup(resolver, node, now);
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
	if (!resolver->names[node].host)
		return;
	dbha__mutex_lock(&resolver->lock);
	start_lookup(resolver, node, now);
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
