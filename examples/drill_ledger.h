/*
 * drill_ledger.h: what one writer was told about each row it sent, and what the table says in the end.
 *
 * A row's number is its place in the ledger; a number is used for one call only. One byte per row holds the result of
 * the call and, after the drill, whether the row was found. No threads, no database: one writer owns one ledger.
 */
#ifndef DRILL_LEDGER_H
#define DRILL_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

enum drill_result {
	DRILL_UNKNOWN, /* sent, or perhaps sent; nobody could say what became of it. Also: the call has not returned yet. */
	DRILL_ACKED,   /* the library said that it is done */
	DRILL_NOT_DONE, /* failed; the library said that nothing was done and a retry is safe */
	DRILL_REFUSED,  /* failed; the server refused it, so nothing was done either */
	DRILL_RESULTS
};

struct drill_ledger {
	uint8_t *rows;
	int64_t used;
	int64_t allocated;
};

/* The comparison of ledgers with the table. */
struct drill_tally {
	int64_t acked;
	int64_t lost;       /* acknowledged, but not there */
	int64_t duplicated; /* there more than once */
	int64_t unknown;
	int64_t unknown_present; /* of these, there */
	int64_t failed;
	int64_t lies; /* failed with "nothing was done", but there */
};

/* Opens an entry for the next row, with DRILL_UNKNOWN as its result. Returns its number, or -1 without memory. */
int64_t drill_ledger_begin(struct drill_ledger *ledger);

void drill_ledger_end(struct drill_ledger *ledger, int64_t row, enum drill_result result);

/* Notes that the table holds a row this many times. A number that was never given out is ignored. */
void drill_ledger_found(struct drill_ledger *ledger, int64_t row, int64_t copies);

/* Adds this ledger to a tally. Call it after all rows found were noted. */
void drill_ledger_tally(const struct drill_ledger *ledger, struct drill_tally *tally);

void drill_ledger_free(struct drill_ledger *ledger);

#endif
