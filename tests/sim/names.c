/*
 * The names of the hosts: what stands in for getaddrinfo, which takes its time, fails, or leads elsewhere than yesterday. The
 * resolver of the library above it is the real one.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "world.h"

struct answer {
	struct addrinfo info;
	struct sockaddr_in address;
};

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *list);

static struct addrinfo *new_answer(struct in_addr address)
{
	struct answer *answer = calloc(1, sizeof *answer);
	if (!answer)
		return NULL;
	answer->address.sin_family = AF_INET;
	answer->address.sin_addr = address;
	answer->info.ai_family = AF_INET;
	answer->info.ai_socktype = SOCK_STREAM;
	answer->info.ai_addr = (struct sockaddr *)&answer->address;
	answer->info.ai_addrlen = sizeof answer->address;
	return &answer->info;
}

/* "n0" is the host of server 0, as long as nobody moves it. */
static int look_up(const char *name, struct in_addr *address)
{
	char text[32];
	int i = atoi(name + 1);
	co_sleep(sim_between(100, 2000));
	if (world.names_slow_us > 0)
		co_sleep(sim_between(0, world.names_slow_us));
	if (world.names_fail)
		return EAI_AGAIN;
	snprintf(text, sizeof text, "10.0.0.%d", world.name_leads_to[i] + 1);
	return inet_pton(AF_INET, text, address) == 1 ? 0 : EAI_NONAME;
}

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
	(void)service;
	struct in_addr address;
	*out = NULL;
	bool numeric = inet_pton(AF_INET, node, &address) == 1;
	if (!numeric && (hints->ai_flags & AI_NUMERICHOST))
		return EAI_NONAME;
	int error = numeric ? 0 : look_up(node, &address);
	if (!error)
		*out = new_answer(address);
	return error;
}

void __wrap_freeaddrinfo(struct addrinfo *list)
{
	free(list);
}
