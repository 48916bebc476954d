#include "retry.h"

#include <string.h>
#include <strings.h>

/* Whether the first word of a statement is one of `words`; with NULL for them, whether there is a first word at all. */
static bool begins_with(const char *sql, const char *const *words, size_t n)
{
	sql += strspn(sql, " \t\r\n\f\v");
	size_t length = strspn(sql, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789");
	for (size_t i = 0; i < n; i++)
		if (strlen(words[i]) == length && strncasecmp(sql, words[i], length) == 0)
			return true;
	return !words && length > 0;
}

bool dbha__retry_atomic(const char *sql)
{
	static const char *const words[] = {"select", "insert", "update", "delete", "merge", "with", "values", "table"};
	return begins_with(sql, words, sizeof words / sizeof words[0]);
}

bool dbha__retry_runs_code(const char *sql)
{
	static const char *const words[] = {"call", "do"};
	return begins_with(sql, words, sizeof words / sizeof words[0]) || !begins_with(sql, NULL, 0);
}

/* What the server did, in the light of what the statement is. */
static enum effect effect_on(enum attempt_end end, const struct verdict *verdict, const struct statement_facts *facts)
{
	bool said_no = end == ATTEMPT_ERROR || end == ATTEMPT_FATAL || end == ATTEMPT_CANCELLED;
	if (facts->reads)
		return EFFECT_NONE;
	if (facts->uncommitted)
		return EFFECT_ROLLED_BACK;
	if (said_no && facts->runs_code)
		return EFFECT_UNKNOWN;
	if (verdict->effect == EFFECT_ROLLED_BACK && !facts->atomic)
		return EFFECT_UNKNOWN;
	return verdict->effect;
}

static int code_of(enum attempt_end end, enum effect effect, const struct verdict *verdict)
{
	if (end == ATTEMPT_OK)
		return DBHA_OK;
	if (end == ATTEMPT_NO_CONNECTION)
		return DBHA_ERR_NO_NODE;
	if (end == ATTEMPT_TIMEOUT || end == ATTEMPT_CANCELLED)
		return DBHA_ERR_TIMEOUT;
	bool said_no = end == ATTEMPT_ERROR || end == ATTEMPT_FATAL;
	if (said_no && (verdict->keep || effect != EFFECT_UNKNOWN))
		return DBHA_ERR_SERVER;
	return effect == EFFECT_UNKNOWN ? DBHA_ERR_UNKNOWN : DBHA_ERR_LOST;
}

struct retry dbha__retry(enum attempt_end end, const struct verdict *verdict, const struct statement_facts *facts)
{
	enum effect effect = effect_on(end, verdict, facts);
	struct retry retry = {.action = RETRY_REPORT, .code = code_of(end, effect, verdict)};
	if (end == ATTEMPT_OK)
		return retry;

	bool harmless = effect != EFFECT_UNKNOWN || facts->repeatable;
	/*
	 * An ordinary error (a syntax error, a constraint) leaves no doubt for an atomic statement, and for a CALL the doubt
	 * is the caller's own: the server answered and the session lives. It is not "unknown" in the sense of P3.
	 */
	bool answered_alive = end == ATTEMPT_ERROR && verdict->keep;
	retry.outcome_unknown = effect == EFFECT_UNKNOWN && !answered_alive;
	retry.retry_safe = effect != EFFECT_UNKNOWN;
	if (verdict->again != AGAIN_NEVER && harmless)
		retry.action = verdict->again == AGAIN_HERE ? RETRY_HERE : RETRY_ELSEWHERE;
	return retry;
}

bool dbha__retry_transaction(const char *sqlstate)
{
	return dbha__sqlstate_transaction(sqlstate);
}
