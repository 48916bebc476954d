/*
 * addresses: the numeric addresses of a host, as a lookup has found them.
 */
#ifndef DBHA_POLICY_ADDRESSES_H
#define DBHA_POLICY_ADDRESSES_H

#include <stdbool.h>
#include <string.h>

#include "config.h"

#define ADDRESSES_MAX  CONFIG_NODES_MAX
#define ADDRESS_LENGTH 64 /* an IPv6 address with its zone */

/* Each once, in the resolver's order. n = 0: not known, or the host needs none (hostaddr, a numeric host, a Unix socket). */
struct addresses {
	int n;
	int left_out; /* there were so many more */
	char list[ADDRESSES_MAX][ADDRESS_LENGTH];
};

static inline bool dbha__addresses_hold(const struct addresses *addresses, const char *address)
{
	for (int i = 0; i < addresses->n; i++)
		if (strcmp(addresses->list[i], address) == 0)
			return true;
	return false;
}

#endif
