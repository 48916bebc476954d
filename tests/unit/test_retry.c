/*
 * test_retry: a failed attempt and what is known of its statement in, what to do and what to report out. Promise P2:
 * nothing whose effect is unknown is done again, unless it reads or the caller called it repeatable.
 */
#include <stdio.h>
#include <string.h>

#include "retry.h"
#include "unit.h"

/* Kinds of statements. */
#define READ                                                                                                           \
	{                                                                                                                  \
		.reads = true, .atomic = true                                                                                  \
	}
#define INSERT                                                                                                         \
	{                                                                                                                  \
		.atomic = true                                                                                                 \
	}
#define UPSERT                                                                                                         \
	{                                                                                                                  \
		.atomic = true, .repeatable = true                                                                             \
	}
#define CALL                                                                                                           \
	{                                                                                                                  \
		.atomic = false                                                                                                \
	}
#define CALL_AGAIN                                                                                                     \
	{                                                                                                                  \
		.repeatable = true                                                                                             \
	}

/* In a transaction, whatever it is; its COMMIT is another statement. */
#define INSIDE                                                                                                         \
	{                                                                                                                  \
		.atomic = true, .uncommitted = true                                                                            \
	}
#define RUNS_CODE                                                                                                      \
	{                                                                                                                  \
		.runs_code = true                                                                                              \
	}

struct row {
	enum attempt_end end;
	const char *sqlstate;
	bool answered;
	struct statement_facts facts;
	enum retry_action action;
	int code;
	bool safe, unknown;
};

#define ERROR(state)              ATTEMPT_ERROR, state, false
#define ERROR_AFTER_ANSWER(state) ATTEMPT_ERROR, state, true
#define FATAL(state)              ATTEMPT_FATAL, state, false
#define FATAL_AFTER_ANSWER(state) ATTEMPT_FATAL, state, true
#define ENDED(end)                ATTEMPT_##end, "", false
#define ENDED_AFTER_ANSWER(end)   ATTEMPT_##end, "", true
#define DO(action, code)          RETRY_##action, DBHA_ERR_##code

static const struct row rows[] = {
    {ENDED_AFTER_ANSWER(OK), INSERT, DO(REPORT, OK), false, false},
    {ENDED_AFTER_ANSWER(OK), CALL, DO(REPORT, OK), false, false},
    /* Never sent: anything may be tried again. */
    {ENDED(NO_CONNECTION), READ, DO(ELSEWHERE, NO_NODE), true, false},
    {ENDED(NO_CONNECTION), INSERT, DO(ELSEWHERE, NO_NODE), true, false},
    {ENDED(NO_CONNECTION), CALL, DO(ELSEWHERE, NO_NODE), true, false},
    {ENDED(NOT_SENT), READ, DO(HERE, LOST), true, false},
    {ENDED(NOT_SENT), INSERT, DO(HERE, LOST), true, false},
    {ENDED(NOT_SENT), CALL, DO(HERE, LOST), true, false},
    /* Lost on the way: only what reads, or may be done twice. */
    {ENDED(LOST), READ, DO(ELSEWHERE, LOST), true, false},
    {ENDED(LOST), INSERT, DO(REPORT, UNKNOWN), false, true},
    {ENDED(LOST), CALL, DO(REPORT, UNKNOWN), false, true},
    {ENDED(LOST), UPSERT, DO(ELSEWHERE, UNKNOWN), false, true},
    {ENDED(LOST), CALL_AGAIN, DO(ELSEWHERE, UNKNOWN), false, true},
    {ENDED_AFTER_ANSWER(LOST), READ, DO(ELSEWHERE, LOST), true, false},
    {ENDED_AFTER_ANSWER(LOST), INSERT, DO(REPORT, UNKNOWN), false, true},
    {ENDED_AFTER_ANSWER(LOST), CALL, DO(REPORT, UNKNOWN), false, true},
    /* Before COMMIT nothing is in doubt, and the transaction's first statement may be run again. */
    {ENDED(LOST), INSIDE, DO(ELSEWHERE, LOST), true, false},
    {ENDED_AFTER_ANSWER(LOST), INSIDE, DO(ELSEWHERE, LOST), true, false},
    {ENDED(NOT_SENT), INSIDE, DO(HERE, LOST), true, false},
    {ENDED(TIMEOUT), INSIDE, DO(REPORT, TIMEOUT), true, false},
    {ENDED_AFTER_ANSWER(TIMEOUT), INSIDE, DO(REPORT, TIMEOUT), true, false},
    {FATAL("57P01"), INSIDE, DO(ELSEWHERE, SERVER), true, false},
    {FATAL_AFTER_ANSWER("57P01"), INSIDE, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("57P02"), INSIDE, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("08P01"), INSIDE, DO(ELSEWHERE, SERVER), true, false},
    {ERROR("40001"), INSIDE, DO(HERE, SERVER), true, false},
    {ERROR("25006"), INSIDE, DO(ELSEWHERE, SERVER), true, false},
    {ERROR("23505"), INSIDE, DO(REPORT, SERVER), true, false},
    {ERROR("57014"), INSIDE, DO(REPORT, SERVER), true, false},
    /* The deadline: nothing again, and a write may still be going on. */
    {ENDED(TIMEOUT), READ, DO(REPORT, TIMEOUT), true, false},
    {ENDED(TIMEOUT), INSERT, DO(REPORT, TIMEOUT), false, true},
    {ENDED(TIMEOUT), UPSERT, DO(REPORT, TIMEOUT), false, true},
    {ENDED(TIMEOUT), CALL, DO(REPORT, TIMEOUT), false, true},
    {ENDED_AFTER_ANSWER(TIMEOUT), INSERT, DO(REPORT, TIMEOUT), false, true},
    /* ... unless the server has said that it stopped it. */
    {ENDED(CANCELLED), READ, DO(REPORT, TIMEOUT), true, false},
    {ENDED(CANCELLED), INSERT, DO(REPORT, TIMEOUT), true, false},
    {ENDED(CANCELLED), UPSERT, DO(REPORT, TIMEOUT), true, false},
    {ENDED(CANCELLED), CALL, DO(REPORT, TIMEOUT), false, true},
    {ENDED(CANCELLED), RUNS_CODE, DO(REPORT, TIMEOUT), false, true},
    {ENDED_AFTER_ANSWER(CANCELLED), INSERT, DO(REPORT, TIMEOUT), true, false},
    /* Rejected as read-only: it goes where it belongs. */
    {ERROR("25006"), INSERT, DO(ELSEWHERE, SERVER), true, false},
    {ERROR("25006"), READ, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("57P03"), INSERT, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("53300"), INSERT, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("57P05"), INSERT, DO(HERE, SERVER), true, false},
    {ERROR("26000"), INSERT, DO(REPORT, SERVER), true, false},
    /* Rolled back as a whole: again, if it was one transaction. */
    {ERROR("40001"), INSERT, DO(HERE, SERVER), true, false},
    {ERROR("40001"), READ, DO(HERE, SERVER), true, false},
    {ERROR("40001"), CALL, DO(REPORT, SERVER), false, false},
    {ERROR("40001"), CALL_AGAIN, DO(HERE, SERVER), false, false},
    {ERROR("40P01"), INSERT, DO(HERE, SERVER), true, false},
    {ERROR("40P01"), CALL, DO(REPORT, SERVER), false, false},
    {ERROR_AFTER_ANSWER("40001"), INSERT, DO(HERE, SERVER), true, false},
    {ERROR_AFTER_ANSWER("40001"), CALL, DO(REPORT, SERVER), false, false},
    {FATAL("57P01"), INSERT, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("57P01"), READ, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("57P01"), CALL, DO(REPORT, UNKNOWN), false, true},
    {FATAL("25P03"), CALL, DO(REPORT, UNKNOWN), false, true},
    /* After the answer of the statement only its commit was open. */
    {FATAL_AFTER_ANSWER("57P01"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("57P01"), UPSERT, DO(ELSEWHERE, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("57P01"), READ, DO(ELSEWHERE, SERVER), true, false},
    {FATAL_AFTER_ANSWER("57P01"), CALL, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("25P03"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("57P05"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("57P03"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("53300"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("40001"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("XX000"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL_AFTER_ANSWER("XX000"), READ, DO(ELSEWHERE, SERVER), true, false},
    /* Nobody can say. */
    {FATAL("08P01"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL("57P02"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL("57P02"), READ, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("08006"), INSERT, DO(REPORT, UNKNOWN), false, true},
    {FATAL("08006"), READ, DO(ELSEWHERE, SERVER), true, false},
    {FATAL("40003"), INSERT, DO(REPORT, UNKNOWN), false, true},
    /* Ordinary errors are reported: the caller knows them, and they would come again. */
    {ERROR("23505"), INSERT, DO(REPORT, SERVER), true, false},
    {ERROR("23505"), UPSERT, DO(REPORT, SERVER), true, false},
    {ERROR("42601"), READ, DO(REPORT, SERVER), true, false},
    {ERROR("23505"), CALL, DO(REPORT, SERVER), false, false},
    {ERROR("57014"), INSERT, DO(REPORT, SERVER), true, false},
    {ERROR("57014"), CALL, DO(REPORT, SERVER), false, false},
    {ERROR_AFTER_ANSWER("23503"), INSERT, DO(REPORT, SERVER), true, false},
};

static struct retry decide(enum attempt_end end, const char *sqlstate, bool answered,
                           const struct statement_facts *facts)
{
	struct verdict verdict = dbha__sqlstate_judge(end, sqlstate, answered);
	return dbha__retry(end, &verdict, facts);
}

static const char *describe(char *out, size_t size, enum attempt_end end, const char *sqlstate, bool answered,
                            const struct statement_facts *facts)
{
	snprintf(out, size, "end %d \"%s\"%s,%s%s%s", (int)end, sqlstate, answered ? " answered" : "",
	         facts->reads ? " reads" : "", facts->repeatable ? " repeatable" : "", facts->atomic ? " atomic" : "");
	return out;
}

START_TEST(a_failure_is_decided)
{
	const struct row *row = &rows[_i];
	struct retry retry = decide(row->end, row->sqlstate, row->answered, &row->facts);
	char what[100];
	describe(what, sizeof what, row->end, row->sqlstate, row->answered, &row->facts);
	ck_assert_msg(retry.action == row->action, "%s: action %d, expected %d", what, (int)retry.action, (int)row->action);
	ck_assert_msg(retry.code == row->code, "%s: code %s, expected %s", what, dbha_code_name(retry.code),
	              dbha_code_name(row->code));
	ck_assert_msg(retry.outcome_unknown == row->unknown, "%s: outcome_unknown %d", what, retry.outcome_unknown);
	ck_assert_msg(retry.retry_safe == row->safe, "%s: retry_safe %d", what, retry.retry_safe);
}
END_TEST

/* ---- every combination -------------------------------------------------------------------------------------- */

static const char *const sqlstates[] = {
    "",      "00000", "08000", "08001", "08003", "08006", "08007", "08P01", "0A000", "22023",
    "23503", "23505", "25001", "25006", "25P02", "25P03", "25P04", "26000", "40000", "40001",
    "40002", "40003", "40P01", "42501", "42601", "53100", "53200", "53300", "55000", "55P03",
    "57014", "57P01", "57P02", "57P03", "57P04", "57P05", "58000", "58030", "P0001", "XX000",
};

/* Last words that a server says only before it begins with a statement, or while it can still roll it back. */
static bool said_in_time(const char *sqlstate, bool atomic)
{
	static const char *const codes[] = {"53300", "57P03", "57P05", "57P01", "25P03"};
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(sqlstate, codes[i]) == 0)
			return i < 3 || atomic;
	return false;
}

/* Whether it is certain that nothing was done. Not taken from the library's table. */
static bool certainly_not_done(enum attempt_end end, const char *sqlstate, bool answered, bool atomic)
{
	if (end == ATTEMPT_NO_CONNECTION || end == ATTEMPT_NOT_SENT)
		return true;
	if (end == ATTEMPT_FATAL)
		return !answered && said_in_time(sqlstate, atomic);
	if (end == ATTEMPT_CANCELLED)
		return atomic;
	return end == ATTEMPT_ERROR && (atomic || strcmp(sqlstate, "25006") == 0);
}

static void check_combination(enum attempt_end end, const char *sqlstate, bool answered,
                              const struct statement_facts *facts)
{
	struct retry retry = decide(end, sqlstate, answered, facts);
	char what[100];
	describe(what, sizeof what, end, sqlstate, answered, facts);
	bool harmless = facts->reads || certainly_not_done(end, sqlstate, answered, facts->atomic);
	ck_assert_msg(harmless || facts->repeatable || retry.action == RETRY_REPORT, "%s: done again", what);
	ck_assert_msg(harmless || !retry.retry_safe || end == ATTEMPT_OK, "%s: called safe", what);
	ck_assert_msg(!(retry.retry_safe && retry.outcome_unknown), "%s: safe and unknown", what);
	ck_assert_msg(!(facts->reads && retry.outcome_unknown), "%s: a read with an unknown outcome", what);
	ck_assert_msg((retry.code == DBHA_OK) == (end == ATTEMPT_OK), "%s: code %d", what, retry.code);
	ck_assert_msg(retry.code != DBHA_ERR_UNKNOWN || retry.outcome_unknown, "%s: UNKNOWN without outcome_unknown", what);
	ck_assert_msg(retry.code != DBHA_ERR_LOST || !retry.outcome_unknown, "%s: LOST with outcome_unknown", what);
	bool ended = end == ATTEMPT_LOST || end == ATTEMPT_TIMEOUT;
	ck_assert_msg(!ended || facts->reads || retry.outcome_unknown, "%s: called known", what);
}

START_TEST(no_combination_does_anything_twice)
{
	bool answered = _i & 8;
	struct statement_facts facts = {.reads = _i & 1, .repeatable = _i & 2, .atomic = _i & 4};
	for (size_t i = 0; i < sizeof sqlstates / sizeof sqlstates[0]; i++) {
		check_combination(ATTEMPT_ERROR, sqlstates[i], answered, &facts);
		check_combination(ATTEMPT_FATAL, sqlstates[i], answered, &facts);
	}
	check_combination(ATTEMPT_OK, "", answered, &facts);
	check_combination(ATTEMPT_LOST, "", answered, &facts);
	check_combination(ATTEMPT_TIMEOUT, "", answered, &facts);
	check_combination(ATTEMPT_CANCELLED, "57014", answered, &facts);
	check_combination(ATTEMPT_NOT_SENT, "", false, &facts);
	check_combination(ATTEMPT_NO_CONNECTION, "", false, &facts);
}
END_TEST

/* ---- one transaction or not --------------------------------------------------------------------------------- */

static const struct {
	const char *sql;
	bool atomic;
} texts[] = {
    {"SELECT 1", true},
    {"select 1", true},
    {"SeLeCt 1", true},
    {" \t\r\n\f\vselect 1", true},
    {"INSERT INTO t VALUES (1)", true},
    {"UPDATE t SET a = 1", true},
    {"DELETE FROM t", true},
    {"MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE", true},
    {"WITH a AS (SELECT 1) SELECT * FROM a", true},
    {"VALUES (1)", true},
    {"TABLE t", true},
    {"SELECT", true},
    {"SELECT(1)", true},
    {"INSERT\nINTO t VALUES (1)", true},
    {"SELECT/* a comment */1", true},
    {"CALL p()", false},
    {"call p()", false},
    {"DO $$ BEGIN COMMIT; END $$", false},
    {"VACUUM", false},
    {"VACUUM FULL t", false},
    {"CREATE INDEX CONCURRENTLY i ON t (a)", false},
    {"CREATE TABLE t (a int)", false},
    {"CREATE DATABASE d", false},
    {"REINDEX TABLE CONCURRENTLY t", false},
    {"ALTER TABLE t DETACH PARTITION p CONCURRENTLY", false},
    {"CLUSTER", false},
    {"COMMIT", false},
    {"PREPARE TRANSACTION 'x'", false},
    {"COMMIT PREPARED 'x'", false},
    {"EXECUTE p", false},
    {"EXPLAIN ANALYZE INSERT INTO t VALUES (1)", false},
    {"COPY t FROM STDIN", false},
    {"-- SELECT\nCALL p()", false},
    {"/* SELECT */ CALL p()", false},
    {"/* a comment */ SELECT 1", false},
    {"(SELECT 1)", false},
    {"SELECTED", false},
    {"SELECT1", false},
    {"SELECT_1", false},
    {"INSERTS", false},
    {"SEL", false},
    {"WITHOUT", false},
    {";SELECT 1", false},
    {"", false},
    {"   ", false},
    {"1", false},
};

/* ---- a transaction as a whole --------------------------------------------------------------------------------- */

static const struct {
	const char *sqlstate;
	bool again;
} transactions[] = {
    {"40001", true},  {"40P01", true},  {"25006", true},  {"40000", true},  {"57P01", true},  {"57P02", true},
    {"57P03", true},  {"08000", true},  {"08001", true},  {"08003", true},  {"08006", true},  {"08007", false},
    {"08P01", false}, {"40002", false}, {"40003", false}, {"40999", false}, {"25001", false}, {"25P02", false},
    {"25P03", false}, {"26000", false}, {"23505", false}, {"42601", false}, {"53100", false}, {"53300", false},
    {"55P03", false}, {"57014", false}, {"57P00", false}, {"57P04", false}, {"57P05", false}, {"0A000", false},
    {"P0001", false}, {"XX000", false}, {"00000", false}, {"22023", false}, {"18006", false}, {"", false},
};

START_TEST(a_transaction_is_run_again_or_not)
{
	ck_assert_msg(dbha__retry_transaction(transactions[_i].sqlstate) == transactions[_i].again, "\"%s\"",
	              transactions[_i].sqlstate);
}
END_TEST

START_TEST(a_statement_is_atomic_or_not)
{
	ck_assert_msg(dbha__retry_atomic(texts[_i].sql) == texts[_i].atomic, "\"%s\"", texts[_i].sql);
}
END_TEST

static Suite *retry_suite(void)
{
	TCase *tcase = tcase_create("retry");
	tcase_add_loop_test(tcase, a_failure_is_decided, 0, sizeof rows / sizeof rows[0]);
	tcase_add_loop_test(tcase, no_combination_does_anything_twice, 0, 16);
	tcase_add_loop_test(tcase, a_transaction_is_run_again_or_not, 0, sizeof transactions / sizeof transactions[0]);
	tcase_add_loop_test(tcase, a_statement_is_atomic_or_not, 0, sizeof texts / sizeof texts[0]);
	Suite *suite = suite_create("retry");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(retry_suite)
