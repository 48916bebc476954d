/*
 * sim: the library in a simulated cluster, through random histories; every seed is one, and gives the same one every time.
 *
 *   sim                                histories 1, 2, ... 1000
 *   sim --from N --count N             these
 *   sim --seed N --trace               one, in readable lines
 *   sim --until-violation              stops at the first that breaks a promise
 *   sim --digest                       prints a number for all that happened in each, to compare two runs by
 *   sim --names-move                   the names of the hosts lead elsewhere now and then
 *
 * What is real: everything of the library above the connection, as it is linked into libdbha: the public calls, the pools, the connector,
 * the monitor, the loop and its threads, the resolver, dialling, the published view, and all of lib/policy. What is modelled: a
 * connection with its protocol (wire.c), the servers at its other end (server.c, session.c), the network (net.c), the names
 * (names.c), and the machine: time, threads, mutexes, poll (machine.c, vtime.c). The seam is the linker.
 *
 * A history: a cluster of one to four nodes, one or two handles with a few clients each, some seconds in which things go wrong;
 * then everything is mended, and the library has to find that out.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "history.h"
#include "machine.h"

struct world world;

static bool quiet;
static bool names_move;

void trace(const char *format, ...)
{
	if (!world.tracing)
		return;
	va_list args;
	printf("%12.3f ms  ", (double)(sim_now() - 1000 * SIM_S) / 1000);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
}

void violation(const char *format, ...)
{
	va_list args;
	if (world.violations++ > 0 && !world.tracing)
		return; /* the first one tells; the others are most often its consequences */
	if (quiet)
		return;
	printf("%s%.3f ms: ", world.tracing ? "VIOLATION at " : "violation at ", (double)(sim_now() - 1000 * SIM_S) / 1000);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf("\n  replay: tests/sim/sim --seed %llu --trace\n", (unsigned long long)world.seed);
	fflush(stdout);
}

void digest(uint64_t what)
{
	world.digest = (world.digest ^ what ^ (uint64_t)sim_now()) * 0x100000001b3ULL;
}

struct arguments {
	uint64_t from;
	uint64_t count;
	bool tracing;
	bool until_violation;
	bool digest;
};

static bool parse(int argc, char **argv, struct arguments *out)
{
	*out = (struct arguments){.from = 1, .count = 1000};
	for (int i = 1; i < argc; i++) {
		bool more = i + 1 < argc;
		if (strcmp(argv[i], "--trace") == 0)
			out->tracing = true;
		else if (strcmp(argv[i], "--until-violation") == 0)
			out->until_violation = true;
		else if (strcmp(argv[i], "--digest") == 0)
			out->digest = true;
		else if (strcmp(argv[i], "--names-move") == 0)
			names_move = true;
		else if (strcmp(argv[i], "--quiet") == 0)
			quiet = true;
		else if (strcmp(argv[i], "--from") == 0 && more)
			out->from = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--count") == 0 && more)
			out->count = strtoull(argv[++i], NULL, 10);
		else if (strcmp(argv[i], "--seed") == 0 && more) {
			out->from = strtoull(argv[++i], NULL, 10);
			out->count = 1;
		} else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct arguments arguments;
	if (!parse(argc, argv, &arguments)) {
		fprintf(stderr,
		        "usage: %s [--from N --count N | --seed N] [--trace] [--until-violation] [--digest] [--quiet]\n",
		        argv[0]);
		return 2;
	}
	uint64_t histories = 0;
	uint64_t violations = 0;
	for (; histories < arguments.count; histories++) {
		if (violations > 0 && arguments.until_violation)
			break;
		history_run(arguments.from + histories, arguments.tracing, names_move);
		violations += world.violations > 0;
		if (arguments.digest)
			printf("%llu %016llx\n", (unsigned long long)world.seed, (unsigned long long)world.digest);
	}
	printf("%llu histories, %llu violations\n", (unsigned long long)histories, (unsigned long long)violations);
	return violations > 0;
}
