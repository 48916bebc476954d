#include "sqlstate.h"

#include <string.h>

struct row {
	const char *prefix; /* a SQLSTATE, or the two characters of its class */
	struct verdict verdict;
};

/* The first row whose prefix fits is taken; exact codes come before their class. */
static const struct row rows[] = {
    /* The node is a standby, or became read-only: news of the topology. The statement had no effect. */
    {"25006", {EFFECT_NONE, AGAIN_ELSEWHERE, false, true}},
    /* serialization_failure; on a standby, a conflict with recovery: harmless to run again. */
    {"40001", {EFFECT_ROLLED_BACK, AGAIN_HERE, true, false}},
    /* deadlock_detected: this transaction was the victim. */
    {"40P01", {EFFECT_ROLLED_BACK, AGAIN_HERE, true, false}},
    /* statement_completion_unknown, transaction_resolution_unknown: said so by the server or a proxy. */
    {"40003", {EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true}},
    /* The rest of class 08 can only come from a proxy such as PgBouncer, which lost its server in the middle. */
    {"08", {EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true}},
    /* admin_shutdown: a FATAL error, raised only where the transaction can still be aborted. */
    {"57P01", {EFFECT_ROLLED_BACK, AGAIN_ELSEWHERE, false, true}},
    /*
     * crash_shutdown is told by quickdie(), at any moment, perhaps after the commit record: PostgreSQL cannot say, and
     * neither can we.
     */
    {"57P02", {EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true}},
    /* cannot_connect_now: starting up, shutting down, recovering. */
    {"57P03", {EFFECT_NONE, AGAIN_ELSEWHERE, false, true}},
    /* idle_session_timeout: ended between statements. */
    {"57P05", {EFFECT_NONE, AGAIN_HERE, false, false}},
    /* idle_in_transaction_session_timeout. */
    {"25P03", {EFFECT_ROLLED_BACK, AGAIN_HERE, false, false}},
    /* too_many_connections: only ever at connect. */
    {"53300", {EFFECT_NONE, AGAIN_ELSEWHERE, false, false}},
    /* invalid_sql_statement_name: a prepared statement of ours was deallocated behind our back. */
    {"26000", {EFFECT_NONE, AGAIN_HERE, true, false}},
    /* query_canceled: statement_timeout, or somebody asked for it. */
    {"57014", {EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false}},
};

/* Any other error: the statement failed and its transaction with it; it would fail again. */
static const struct verdict ordinary_error = {EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false};

static struct verdict judge_error(const char *sqlstate, bool fatal, bool answered)
{
	struct verdict verdict = ordinary_error;
	/* protocol_violation on a living connection is PostgreSQL's word for a wrong number of parameters. */
	if (!fatal && strcmp(sqlstate, "08P01") == 0)
		return verdict;
	/* An end that the table does not know may have been put there by a pooler, at any moment. */
	if (fatal)
		verdict.effect = EFFECT_UNKNOWN;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (strncmp(sqlstate, rows[i].prefix, strlen(rows[i].prefix)) == 0) {
			verdict = rows[i].verdict;
			break;
		}
	}
	if (fatal) {
		verdict.keep = false;
		verdict.alarm = true;
	}
	/*
	 * With the extended protocol an autocommit statement reports its completion first and commits at the Sync after it.
	 * A deferred constraint that fails there is an ordinary error, rolled back. A connection that ends there is not: the
	 * commit may have been made.
	 */
	if (answered && !verdict.keep)
		verdict.effect = EFFECT_UNKNOWN;
	return verdict;
}

struct verdict dbha__sqlstate_judge(enum attempt_end end, const char *sqlstate, bool answered)
{
	switch (end) {
	case ATTEMPT_OK:
		return (struct verdict){EFFECT_NONE, AGAIN_NEVER, true, false};
	case ATTEMPT_NO_CONNECTION:
		return (struct verdict){EFFECT_NONE, AGAIN_ELSEWHERE, false, false};
	case ATTEMPT_NOT_SENT:
		return (struct verdict){EFFECT_NONE, AGAIN_HERE, false, true};
	case ATTEMPT_ERROR:
	case ATTEMPT_FATAL:
		return judge_error(sqlstate, end == ATTEMPT_FATAL, answered);
	case ATTEMPT_LOST:
		return (struct verdict){EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true};
	case ATTEMPT_TIMEOUT:
		break;
	}
	/* Slow is not dead, but a look costs little. There is no time left to try again. */
	return (struct verdict){EFFECT_UNKNOWN, AGAIN_NEVER, false, true};
}
