/*
 * drill_report.c: the verdict of a drill, as text that says what each number means, and as one JSON object.
 */
#include "drill.h"

#include <inttypes.h>
#include <stdlib.h>

/* --------------------------------------------------------------------------------------------------------------- */

static void accuse(int64_t n, const char *one, const char *many)
{
	if (n > 0)
		printf("  - %" PRId64 " %s\n", n, n == 1 ? one : many);
}

static void print_headline(const struct drill *d)
{
	const struct drill_verdict *v = &d->verdict;
	if (!v->complete) {
		printf("\nNO VERDICT: the table could not be read: %s\n", v->why);
		return;
	}
	if (drill_passed(d)) {
		puts("\nPASSED: every acknowledged write is there exactly once, and every read was answered.");
		return;
	}
	puts("\nFAILED:");
	if (v->tally.acked == 0)
		puts("  - not one write was acknowledged");
	accuse(v->tally.lost, "acknowledged write is lost", "acknowledged writes are lost");
	accuse(v->tally.duplicated, "row is there more than once", "rows are there more than once");
	accuse(v->tally.lies, "write failed with \"nothing was done\", and yet its row is there",
	       "writes failed with \"nothing was done\", and yet their rows are there");
	accuse(v->stale_writes, "row was written on a stale primary", "rows were written on a stale primary");
	accuse(atomic_load(&d->counts.read_errors), "read failed", "reads failed");
	if (v->tally.lost > 0)
		puts("    (With asynchronous replication a primary that dies takes along what it had not sent yet. No client "
		     "can\n"
		     "    bring that back; synchronous_standby_names prevents it.)");
}

static void print_writes(const struct drill *d)
{
	const struct drill_tally *t = &d->verdict.tally;
	if (!d->verdict.complete)
		return;
	printf("writes   %" PRId64 " acknowledged: %" PRId64 " lost, %" PRId64 " duplicated\n", t->acked, t->lost,
	       t->duplicated);
	printf("         %" PRId64 " of unknown outcome: %" PRId64 " of them are there\n", t->unknown, t->unknown_present);
	printf("         %" PRId64 " failed with nothing done: %" PRId64 " of them are there all the same\n", t->failed,
	       t->lies);
	if (d->write_gauge.first_failure[0] != '\0')
		printf("         the first that was not acknowledged: %s\n", d->write_gauge.first_failure);
}

static void print_reads(const struct drill *d)
{
	const struct drill_counts *c = &d->counts;
	printf("reads    %lld answered, %lld failed\n", (long long)atomic_load(&c->reads),
	       (long long)atomic_load(&c->read_errors));
	printf("         %lld showed less than the same reader had seen before\n", (long long)atomic_load(&c->stale_reads));
	printf("         %lld showed less than was acknowledged when they began\n",
	       (long long)atomic_load(&c->behind_reads));
	if (d->read_gauge.first_failure[0] != '\0')
		printf("         the first that failed: %s\n", d->read_gauge.first_failure);
}

static void print_latency(const char *label, const struct drill_worker *workers, int n)
{
	struct drill_latency all = {0};
	for (int i = 0; i < n; i++)
		drill_latency_merge(&all, &workers[i].latency);
	if (all.count > 0)
		printf("%s %.2f ms median, %.2f ms 95 %%, %.2f ms 99 %%, %.2f ms longest\n", label,
		       (double)drill_latency_percentile(&all, 50) / 1000, (double)drill_latency_percentile(&all, 95) / 1000,
		       (double)drill_latency_percentile(&all, 99) / 1000, (double)all.max_us / 1000);
}

static void print_outages(const struct drill_gauge *gauge)
{
	const char *label = gauge->reads ? "read" : "write";
	if (gauge->n_outages == 0)
		printf("outages  none of %ss\n", label);
	for (int i = 0; i < gauge->n_outages; i++) {
		const struct drill_outage *o = &gauge->outages[i];
		char moment[CLI_MOMENT_MAX];
		printf("outage   of %ss from %s, %.1f ms%s: %s\n", label, cli_moment(o->start.unix_us, moment),
		       (double)(o->end.monotonic_us - o->start.monotonic_us) / 1000,
		       o->open ? ", not over when the drill ended" : "", o->cause);
	}
}

static void print_nodes(const struct drill_verdict *v)
{
	for (int i = 0; i < v->n_nodes; i++) {
		const struct drill_node *node = &v->nodes[i];
		printf("node     %s: %s, %s, timeline %" PRIu32, node->status.name, dbha_role_name(node->status.role),
		       dbha_state_name(node->status.state), node->status.timeline);
		if (node->stale_rows < 0)
			printf("; could not be asked for stale rows: %s\n", node->why);
		else
			printf("; %" PRId64 " stale rows\n", node->stale_rows);
	}
}

void drill_report(const struct drill *d)
{
	print_headline(d);
	putchar('\n');
	print_writes(d);
	print_reads(d);
	print_latency("latency  writes:", d->writers, d->options.writers);
	print_latency("latency  reads: ", d->readers, d->options.readers);
	print_outages(&d->write_gauge);
	if (d->options.readers > 0)
		print_outages(&d->read_gauge);
	print_nodes(&d->verdict);
	if (d->verdict.kept)
		printf("table    %s is still there\n", d->table);
	fflush(stdout);
}

/* --------------------------------------------------------------------------------------------------------------- */

static void json_outages(FILE *out, const struct drill_gauge *gauge, bool *first)
{
	for (int i = 0; i < gauge->n_outages; i++) {
		const struct drill_outage *o = &gauge->outages[i];
		char cause[sizeof(o->cause) + 64];
		snprintf(cause, sizeof(cause), "%s%s", o->cause, o->open ? " (not over when the drill ended)" : "");
		fprintf(out, "%s{\"kind\":\"%s\",\"start_unix_us\":%" PRId64 ",\"end_unix_us\":%" PRId64 ",\"length_ms\":%.3f",
		        *first ? "" : ",", gauge->reads ? "read" : "write", o->start.unix_us, o->end.unix_us,
		        (double)(o->end.monotonic_us - o->start.monotonic_us) / 1000);
		fputs(",\"cause\":", out);
		cli_json_string(out, cause);
		fputc('}', out);
		*first = false;
	}
}

static void json_node(FILE *out, const struct drill_node *node)
{
	char lsn[CLI_LSN_MAX];
	fputs("{\"name\":", out);
	cli_json_string(out, node->status.name);
	fprintf(out,
	        ",\"role\":\"%s\",\"state\":\"%s\",\"timeline\":%" PRIu32 ",\"lsn\":", dbha_role_name(node->status.role),
	        dbha_state_name(node->status.state), node->status.timeline);
	cli_json_string(out, node->status.lsn != 0 ? cli_lsn(node->status.lsn, lsn) : NULL);
	if (node->stale_rows >= 0)
		fprintf(out, ",\"stale_rows\":%" PRId64, node->stale_rows);
	else
		fputs(",\"stale_rows\":null", out);
	fputs(",\"why\":", out);
	cli_json_string(out, node->why);
	fputc('}', out);
}

/* A number that only a complete verdict knows; null otherwise, never a 0 that would look like a good result. */
static void json_judged(FILE *out, const struct drill_verdict *v, const char *name, int64_t number)
{
	if (v->complete)
		fprintf(out, "\"%s\":%" PRId64 ",", name, number);
	else
		fprintf(out, "\"%s\":null,", name);
}

/* One line. A program that reads it must also look at null: there was no verdict, and "error" says why. */
void drill_report_json(const struct drill *d, FILE *out)
{
	const struct drill_verdict *v = &d->verdict;
	const struct drill_counts *c = &d->counts;
	fprintf(out, "{\"acked\":%lld,", (long long)atomic_load(&c->acked));
	json_judged(out, v, "lost", v->tally.lost);
	json_judged(out, v, "duplicated", v->tally.duplicated);
	fprintf(out, "\"unknown\":%lld,", (long long)atomic_load(&c->unknown));
	json_judged(out, v, "unknown_present", v->tally.unknown_present);
	json_judged(out, v, "lies", v->tally.lies);
	fprintf(out, "\"write_errors\":%lld,\"reads\":%lld,\"read_errors\":%lld,\"stale_reads\":%lld,",
	        (long long)atomic_load(&c->failed), (long long)atomic_load(&c->reads),
	        (long long)atomic_load(&c->read_errors), (long long)atomic_load(&c->stale_reads));
	json_judged(out, v, "stale_writes", v->stale_writes);
	fprintf(out, "\"table\":\"%s\",\"kept\":%s,\"outages\":[", d->table, v->kept ? "true" : "false");
	bool first = true;
	json_outages(out, &d->write_gauge, &first);
	json_outages(out, &d->read_gauge, &first);
	fprintf(out, "],\"write_outage_ms\":%.3f,\"nodes\":[", (double)drill_gauge_longest_us(&d->write_gauge) / 1000);
	for (int i = 0; i < v->n_nodes; i++) {
		if (i > 0)
			fputc(',', out);
		json_node(out, &v->nodes[i]);
	}
	fprintf(out, "],\"behind_reads\":%lld,\"passed\":%s,\"error\":", (long long)atomic_load(&c->behind_reads),
	        drill_passed(d) ? "true" : "false");
	cli_json_string(out, v->complete ? NULL : v->why);
	fputs("}\n", out);
}
