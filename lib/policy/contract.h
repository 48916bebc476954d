/*
 * contract: what every error means, as tables. policy/sqlstate looks them up, docs/retry.md is printed from them.
 *
 * A row for each class of PostgreSQL's appendix A, and one for each code that means something else than its class. The
 * sources are that appendix and PostgreSQL's tcop/postgres.c.
 */
#ifndef DBHA_POLICY_CONTRACT_H
#define DBHA_POLICY_CONTRACT_H

#include <stdbool.h>
#include <stddef.h>

#include "sqlstate.h"

struct contract_row {
	const char *code; /* five characters; two, the class; none, whatever has no row of its own */
	const char *name;
	struct verdict verdict;
	bool transaction; /* a transaction that has failed with it may end better when it is run again as a whole */
	const char *why;
};

/* Errors on a connection that lives. Classes before their codes; the last row is for the rest. */
const struct contract_row *dbha__contract_errors(size_t *n);

/* The last words of a connection that ended; the last row is for the rest. */
const struct contract_row *dbha__contract_last_words(size_t *n);

struct contract_end {
	const char *name;
	struct verdict verdict; /* of ATTEMPT_ERROR and ATTEMPT_FATAL: where no other row says more */
	const char *transaction;
	const char *why;
};

/* Every way in which an attempt can end, by enum attempt_end. */
const struct contract_end *dbha__contract_ends(size_t *n);

#endif
