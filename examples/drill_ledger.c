/*
 * drill_ledger.c: the book of what was sent, what was answered, and what is there.
 */
#include "drill_ledger.h"

#include <stdlib.h>

#define RESULT_MASK 0x07u
#define FOUND       0x10u
#define FOUND_AGAIN 0x20u

#define FIRST_ALLOCATION 4096

int64_t drill_ledger_begin(struct drill_ledger *ledger)
{
	if (ledger->used == ledger->allocated) {
		int64_t larger = ledger->allocated > 0 ? ledger->allocated * 2 : FIRST_ALLOCATION;
		uint8_t *rows = realloc(ledger->rows, (size_t)larger);
		if (rows == NULL)
			return -1;
		ledger->rows = rows;
		ledger->allocated = larger;
	}
	ledger->rows[ledger->used] = DRILL_UNKNOWN;
	return ledger->used++;
}

void drill_ledger_end(struct drill_ledger *ledger, int64_t row, enum drill_result result)
{
	ledger->rows[row] = (uint8_t)result;
}

void drill_ledger_found(struct drill_ledger *ledger, int64_t row, int64_t copies)
{
	if (row < 0 || row >= ledger->used || copies < 1)
		return;
	bool again = copies > 1 || (ledger->rows[row] & FOUND) != 0;
	ledger->rows[row] |= (uint8_t)(again ? FOUND | FOUND_AGAIN : FOUND);
}

void drill_ledger_tally(const struct drill_ledger *ledger, struct drill_tally *tally)
{
	for (int64_t i = 0; i < ledger->used; i++) {
		bool found = (ledger->rows[i] & FOUND) != 0;
		tally->duplicated += (ledger->rows[i] & FOUND_AGAIN) != 0;
		switch ((enum drill_result)(ledger->rows[i] & RESULT_MASK)) {
		case DRILL_ACKED:
			tally->acked++;
			tally->lost += !found;
			break;
		case DRILL_NOT_DONE:
		case DRILL_REFUSED:
			tally->failed++;
			tally->lies += found;
			break;
		case DRILL_UNKNOWN:
		case DRILL_RESULTS:
			tally->unknown++;
			tally->unknown_present += found;
			break;
		}
	}
}

void drill_ledger_free(struct drill_ledger *ledger)
{
	free(ledger->rows);
	*ledger = (struct drill_ledger){0};
}
