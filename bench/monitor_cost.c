/*
 * monitor_cost: what a handle costs that nobody uses: the processor time of its background thread, as a share of one core.
 *
 *   monitor_cost URL [--seconds 10] [--rounds 5] [--json FILE]
 *
 * A handle is opened with the default probes (each node once a second, jittered) and left alone; the processor time of the process,
 * user and system, is taken around each round. The main thread only sleeps. The servers' own time is not in it. The figure to
 * reach with three nodes: below 0.1 % of one core.
 */
#include "bench.h"

static const char usage[] = "monitor_cost URL [--seconds 10] [--rounds 5] [--json FILE]";

int main(int argc, char **argv)
{
	static const char *const names[] = {"--seconds", "--rounds", "--json", NULL};
	struct args args = {argc, argv};
	const char *url = args_url(&args, names, usage);
	long seconds = args_number(&args, "--seconds", 10, 1, 3600);
	long rounds = args_number(&args, "--rounds", 5, 1, 1000);
	FILE *json = json_open(args_text(&args, "--json", NULL));
	struct series percent = {0};
	dbha_error err;
	dbha *h = dbha_open(url, &err);
	if (!h || dbha_wait(h, DBHA_WAIT_ALL, 10000, &err) != DBHA_OK)
		die("%s", err.message);
	dbha_cluster_status cluster = {.size = sizeof cluster};
	dbha_status(h, &cluster, NULL, 0, NULL);
	sleep_ms(2000); /* the connects are over */
	for (long i = 0; i < rounds; i++) {
		int64_t began = now_ns(), cpu = process_cpu_ns();
		sleep_ms(seconds * 1000);
		series_add(&percent, 100.0 * (double)(process_cpu_ns() - cpu) / (double)(now_ns() - began));
	}
	dbha_close(h, 0);
	struct spread spread = series_spread(&percent);
	print_where(url, 0);
	printf("monitor of %d nodes at 1 s: %.4f %% of a core (%.4f to %.4f, %d rounds of %ld s)\n", cluster.nodes,
	       spread.median, spread.min, spread.max, spread.n, seconds);
	if (json) {
		fprintf(json, "{\"benchmark\": \"monitor_cost\", \"nodes\": %d, ", cluster.nodes);
		json_spread(json, "percent_of_a_core", &spread);
		fputs("}\n", json);
		fclose(json);
	}
	series_free(&percent);
	return 0;
}
