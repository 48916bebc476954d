/*
 * resolver: host names to addresses, off everybody's path.
 *
 * getaddrinfo() blocks, for as long as the system's resolver likes, and cannot be interrupted; so each lookup runs on a
 * thread of its own, at most one per name at a time, detached, and nobody waits for it: what was known last is used
 * meanwhile, for as long as no other answer comes. getaddrinfo rather than a DNS library because it is what libpq itself would
 * ask: /etc/hosts, nsswitch, search lists, mDNS.
 * The state is shared by reference, so that a handle can be closed while a lookup still hangs.
 */
#ifndef DBHA_RUNTIME_RESOLVER_H
#define DBHA_RUNTIME_RESOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "addresses.h"
#include "config.h"
#include "wake.h"

struct resolver;

enum resolve_end {
	RESOLVED, /* `out` holds the addresses; n = 0: this node needs none */
	RESOLVE_PENDING,
	RESOLVE_FAILED, /* `why` says so */
};

/* NULL when out of memory. `config` and `wake` must outlive dbha__resolver_close; `wake` is signalled when a lookup ends. */
struct resolver *dbha__resolver_new(const struct config *config, struct wake *wake);

/* From now on lookups that end are thrown away. NULL is allowed. */
void dbha__resolver_close(struct resolver *resolver);

/*
 * The addresses of a node of the configuration, from memory; starts a lookup where none is known, or the last one is older than
 * resolve_interval.
 */
enum resolve_end dbha__resolver_lookup(struct resolver *resolver, int node, int64_t now, struct addresses *out,
                                       char *why, size_t why_size);

/* The addresses of a node did not work: look it up again, at most once a second. */
void dbha__resolver_refresh(struct resolver *resolver, int node, int64_t now);

/* Which nodes of the configuration need lookups: bit i is node i. */
uint32_t dbha__resolver_names(const struct resolver *resolver);

/* Goes up whenever a name has other addresses than before. Any thread. */
unsigned dbha__resolver_version(const struct resolver *resolver);

/*
 * Starts the lookups that are due, without anybody asking for an address; urgent: those older than a second are. Returns when
 * the next one is due.
 */
int64_t dbha__resolver_keep_fresh(struct resolver *resolver, int64_t now, bool urgent);

/* The addresses of a node as known now; n = 0: not known, or it needs none. */
void dbha__resolver_known(struct resolver *resolver, int node, struct addresses *out);

/* Around fork(): holds the lock, so that the child finds the state whole. */
void dbha__resolver_lock_for_fork(struct resolver *resolver);
void dbha__resolver_unlock_after_fork(struct resolver *resolver);

#endif
