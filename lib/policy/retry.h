/*
 * retry: a failed attempt -> again, elsewhere, or report. All of P2 is decided here. Pure.
 */
#ifndef DBHA_POLICY_RETRY_H
#define DBHA_POLICY_RETRY_H

#include <stdbool.h>
#include <stdint.h>

#include "dbha.h"
#include "sqlstate.h"

/* What is known of the statement. */
struct statement_facts {
	bool reads;       /* the caller said that it only reads: done twice or half done, it has done nothing */
	bool repeatable;  /* the caller said that it is idempotent */
	bool atomic;      /* it cannot commit in the middle of itself, see dbha__retry_atomic */
	bool uncommitted; /* in a transaction whose COMMIT has not been sent: whatever the server did, it is rolled back */
	bool runs_code;   /* it may have run any statements by the time it fails, see dbha__retry_runs_code */
};

enum retry_action {
	RETRY_REPORT,
	RETRY_HERE,
	RETRY_ELSEWHERE,
};

struct retry {
	enum retry_action action;
	int code;             /* a dbha_code, for the report now or when the deadline ends the retries */
	bool retry_safe;      /* for the report */
	bool outcome_unknown; /* for the report */
};

struct retry dbha__retry(enum attempt_end end, const struct verdict *verdict, const struct statement_facts *facts);

/*
 * Whether a statement is certainly a single transaction, so that "rolled back" means all of it. True for SELECT, INSERT,
 * UPDATE, DELETE, MERGE, WITH, VALUES and TABLE by their first word; false for everything else, because CALL, DO, VACUUM,
 * CREATE INDEX CONCURRENTLY and others commit on the way. A text that does not begin with a word (a comment) is not looked
 * into: false is always safe.
 */
bool dbha__retry_atomic(const char *sql);

/*
 * Whether an error of a statement may come from statements inside it, after others that have been committed: CALL and DO,
 * and what cannot be told because the text does not begin with a word. Then even "read-only" is no proof that nothing was
 * done.
 */
bool dbha__retry_runs_code(const char *sql);

/* Whether a transaction that failed with this error, and is rolled back, is to be run again as a whole: policy/contract. */
bool dbha__retry_transaction(const char *sqlstate);

#endif
