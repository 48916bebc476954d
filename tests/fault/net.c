#include "net.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cluster.h"

#define LEADS_MAX 16

static const char tables[] =
    "table inet fault {\n"
    "  set dark { type inet_service; }\n"
    "  set syns { type inet_service; flags dynamic; size 1024; counter; }\n"
    "  chain arriving {\n"
    "    type filter hook prerouting priority raw;\n" /* before addresses are translated back */
    "    tcp flags & (syn | ack) == syn update @syns { tcp dport }\n"
    "    tcp dport @dark drop\n"
    "    tcp sport @dark drop\n"
    "  }\n"
    "}\n"
    "table ip names {\n"
    "  map leads { type ipv4_addr . inet_service : ipv4_addr . inet_service; }\n"
    "  chain leaving {\n"
    "    type nat hook output priority -100;\n"
    "    dnat to ip daddr . tcp dport map @leads\n"
    "  }\n"
    "}\n";

/* Check's assertions are for tests: before the first one this is used without. */
static bool load_rules(const char *rules)
{
	FILE *nft = popen("nft -f -", "w");
	if (!nft)
		return false;
	fputs(rules, nft);
	return pclose(nft) == 0;
}

static void filter(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void filter(const char *format, ...)
{
	char rules[512];
	va_list args;
	va_start(args, format);
	vsnprintf(rules, sizeof rules, format, args);
	va_end(args);
	ck_assert_msg(load_rules(rules), "nft refuses: %s", rules);
}

void net_require(void)
{
	char inner[64] = "";
	const char *outer = getenv("DBHA_OUTER_NETWORK");
	if (!outer || readlink("/proc/self/ns/net", inner, sizeof inner - 1) < 0 || strcmp(inner, outer) == 0) {
		fputs("this program changes the packet filter: run it by tests/fault/enter.sh PROGRAM\n", stderr);
		exit(EXIT_FAILURE);
	}
	if (!load_rules(tables)) {
		fputs("nft refuses the tables of tests/fault/net.c\n", stderr);
		exit(EXIT_FAILURE);
	}
}

void black_hole(int port)
{
	filter("add element inet fault dark { %d }\n", port);
}

void heal(int port)
{
	filter("delete element inet fault dark { %d }\n", port);
}

void heal_all(void)
{
	filter("flush set inet fault dark\n");
}

/* The list has elements such as "20001 counter packets 5 bytes 300". */
long net_syns(int port)
{
	char text[16384], key[64];
	FILE *nft = popen("nft list set inet fault syns", "r");
	ck_assert(nft != NULL);
	text[fread(text, 1, sizeof text - 1, nft)] = '\0';
	ck_assert_int_eq(pclose(nft), 0);
	snprintf(key, sizeof key, " %d counter packets ", port);
	const char *at = strstr(text, key);
	return at ? atol(at + strlen(key)) : 0;
}

/* What leads where. The map of the filter is written anew, since an element that is there takes no other value. */
static struct {
	char from[64];
	int to_port;
} leads[LEADS_MAX];

void net_lead(const char *address, int port, int to_port)
{
	char from[64], rules[LEADS_MAX * 128] = "flush map ip names leads\n";
	int i = 0;
	snprintf(from, sizeof from, "%s . %d", address, port);
	while (i < LEADS_MAX && leads[i].to_port && strcmp(leads[i].from, from) != 0)
		i++;
	ck_assert_int_lt(i, LEADS_MAX);
	memcpy(leads[i].from, from, sizeof from);
	leads[i].to_port = to_port;
	for (i = 0; i < LEADS_MAX && leads[i].to_port; i++) {
		size_t used = strlen(rules);
		snprintf(rules + used, sizeof rules - used, "add element ip names leads { %s : 127.0.0.1 . %d }\n",
		         leads[i].from, leads[i].to_port);
	}
	ck_assert_msg(load_rules(rules), "nft refuses: %s", rules);
}

void net_lead_nowhere(void)
{
	memset(leads, 0, sizeof leads);
	filter("flush map ip names leads\n");
}
