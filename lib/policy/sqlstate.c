#include "sqlstate.h"

#include <string.h>

#include "contract.h"

/* The row of the code, else of its class, else the last one. Failures only: a few dozen comparisons do not matter. */
static const struct contract_row *look_up(const struct contract_row *rows, size_t n, const char *sqlstate)
{
	const struct contract_row *found = &rows[n - 1];
	for (size_t i = 0; i + 1 < n; i++) {
		if (strncmp(sqlstate, rows[i].code, 2) != 0)
			continue;
		if (!rows[i].code[2])
			found = &rows[i];
		else if (strcmp(sqlstate, rows[i].code) == 0)
			return &rows[i];
	}
	return found;
}

static struct verdict judge_error(const char *sqlstate)
{
	size_t n;
	const struct contract_row *rows = dbha__contract_errors(&n);
	return look_up(rows, n, sqlstate)->verdict;
}

/*
 * With the extended protocol an autocommit statement reports its completion first and commits at the Sync after it. A
 * deferred constraint that fails there is an ordinary error, rolled back. A connection that ends there is not: the commit
 * may have been made, whatever the last words are.
 */
static struct verdict judge_fatal(const char *sqlstate, bool answered)
{
	size_t n;
	const struct contract_row *rows = dbha__contract_last_words(&n);
	struct verdict verdict = look_up(rows, n, sqlstate)->verdict;
	if (answered)
		verdict.effect = EFFECT_UNKNOWN;
	return verdict;
}

struct verdict dbha__sqlstate_judge(enum attempt_end end, const char *sqlstate, bool answered)
{
	size_t n;
	const struct contract_end *ends = dbha__contract_ends(&n);
	if (end == ATTEMPT_ERROR)
		return judge_error(sqlstate);
	if (end == ATTEMPT_FATAL)
		return judge_fatal(sqlstate, answered);
	return ends[end].verdict;
}

bool dbha__sqlstate_transaction(const char *sqlstate)
{
	size_t n;
	const struct contract_row *rows = dbha__contract_errors(&n);
	return look_up(rows, n, sqlstate)->transaction;
}
