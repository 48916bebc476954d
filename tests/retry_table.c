/*
 * retry_table: prints the tables of the retry contract (lib/policy/contract.c) as docs/retry.md has them.
 */
#include <stdio.h>

#include "contract.h"
#include "retry.h"

static const char *effect_word(enum effect effect)
{
	switch (effect) {
	case EFFECT_NONE:
		return "no";
	case EFFECT_ROLLED_BACK:
		return "no, rolled back";
	case EFFECT_UNKNOWN:
		break;
	}
	return "unknown";
}

static const char *again_word(enum again again)
{
	switch (again) {
	case AGAIN_NEVER:
		return "no";
	case AGAIN_HERE:
		return "here or elsewhere";
	case AGAIN_ELSEWHERE:
		break;
	}
	return "elsewhere";
}

static void print_verdict(const struct verdict *verdict, const char *effect)
{
	printf(" %s | %s | %s | %s |", effect, verdict->keep ? "usable" : "closed",
	       verdict->alarm ? "looked at" : "as before", again_word(verdict->again));
}

static void print_rows(const char *title, const struct contract_row *rows, size_t n)
{
	printf("### %s\n\n", title);
	printf("| SQLSTATE | name | did the server do it | connection | node | the statement again | the transaction again "
	       "| why |\n|---|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < n; i++) {
		const char *code = rows[i].code;
		printf("| %s%s | %s |", *code ? code : "others", *code && !code[2] ? "..." : "", rows[i].name);
		print_verdict(&rows[i].verdict, effect_word(rows[i].verdict.effect));
		printf(" %s | %s |\n", rows[i].transaction ? "yes" : "no", rows[i].why);
	}
	putchar('\n');
}

static void print_ends(const struct contract_end *ends, size_t n)
{
	printf("### How an attempt can end\n\n");
	printf("| end | did the server do it | connection | node | the statement again | a transaction | why |\n"
	       "|---|---|---|---|---|---|---|\n");
	for (size_t i = 0; i < n; i++) {
		printf("| %s |", ends[i].name);
		print_verdict(&ends[i].verdict, i == ATTEMPT_OK ? "yes" : effect_word(ends[i].verdict.effect));
		printf(" %s | %s |\n", ends[i].transaction, ends[i].why);
	}
	putchar('\n');
}

int main(void)
{
	size_t n;
	const struct contract_end *ends = dbha__contract_ends(&n);
	print_ends(ends, n);
	const struct contract_row *rows = dbha__contract_errors(&n);
	print_rows("Errors on a connection that lives", rows, n);
	rows = dbha__contract_last_words(&n);
	print_rows("The last words of a connection that ends", rows, n);
	return 0;
}
