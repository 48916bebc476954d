#include "sqlstate.h"

#include <string.h>

struct row {
	const char *sqlstate;
	struct verdict verdict;
};

/* Errors on a connection that lives. Any other error has failed its statement, and would fail it again. */
static const struct row errors[] = {
    /* The node is a standby, or became read-only: news of the topology. The statement had no effect. */
    {"25006", {EFFECT_NONE, AGAIN_ELSEWHERE, false, true}},
    /* serialization_failure; on a standby, a conflict with recovery: harmless to run again. */
    {"40001", {EFFECT_ROLLED_BACK, AGAIN_HERE, true, false}},
    /* deadlock_detected: this transaction was the victim. */
    {"40P01", {EFFECT_ROLLED_BACK, AGAIN_HERE, true, false}},
};

static const struct verdict ordinary_error = {EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false};

/* The last words of a connection that ended. */
static const struct row ends[] = {
    /* admin_shutdown: a FATAL error, raised only where the transaction can still be aborted. */
    {"57P01", {EFFECT_ROLLED_BACK, AGAIN_ELSEWHERE, false, true}},
    /* cannot_connect_now: starting up, shutting down, recovering. */
    {"57P03", {EFFECT_NONE, AGAIN_ELSEWHERE, false, true}},
    /* idle_session_timeout: ended between statements. */
    {"57P05", {EFFECT_NONE, AGAIN_HERE, false, false}},
    /* idle_in_transaction_session_timeout. */
    {"25P03", {EFFECT_ROLLED_BACK, AGAIN_HERE, false, false}},
    /* too_many_connections: the session never began. */
    {"53300", {EFFECT_NONE, AGAIN_ELSEWHERE, false, false}},
};

/*
 * Any other end: crash_shutdown (57P02) is told by quickdie() at any moment, perhaps after the commit record; what a proxy
 * says (class 08) it may say at any moment too.
 */
static const struct verdict unexplained_end = {EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true};

static struct verdict look_up(const struct row *rows, size_t n, const char *sqlstate, struct verdict otherwise)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(sqlstate, rows[i].sqlstate) == 0)
			return rows[i].verdict;
	return otherwise;
}

static struct verdict judge_error(const char *sqlstate)
{
	return look_up(errors, sizeof errors / sizeof errors[0], sqlstate, ordinary_error);
}

/*
 * With the extended protocol an autocommit statement reports its completion first and commits at the Sync after it. A
 * deferred constraint that fails there is an ordinary error, rolled back. A connection that ends there is not: the commit
 * may have been made, whatever the last words are.
 */
static struct verdict judge_fatal(const char *sqlstate, bool answered)
{
	struct verdict verdict = look_up(ends, sizeof ends / sizeof ends[0], sqlstate, unexplained_end);
	if (answered)
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
		return judge_error(sqlstate);
	case ATTEMPT_FATAL:
		return judge_fatal(sqlstate, answered);
	case ATTEMPT_LOST:
		return (struct verdict){EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true};
	case ATTEMPT_CANCELLED:
		return (struct verdict){EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false};
	case ATTEMPT_TIMEOUT:
		break;
	}
	/* Slow is not dead, but a look costs little. There is no time left to try again. */
	return (struct verdict){EFFECT_UNKNOWN, AGAIN_NEVER, false, true};
}
