/*
 * test_verb: the first words of a statement, with everything that may stand before and between them.
 */
#include "verb.h"
#include "unit.h"

static const struct {
	const char *sql;
	enum verb verb;
} verbs[] = {
    {"COMMIT", VERB_COMMIT},
    {"commit;", VERB_COMMIT},
    {" \t\r\n\f\vCommit", VERB_COMMIT},
    {"COMMIT WORK", VERB_COMMIT},
    {"COMMIT TRANSACTION AND CHAIN", VERB_COMMIT},
    {"COMMIT AND NO CHAIN", VERB_COMMIT},
    {"COMMIT -- done", VERB_COMMIT},
    {"END", VERB_COMMIT},
    {"END TRANSACTION", VERB_COMMIT},
    {"/* a */ COMMIT", VERB_COMMIT},
    {"/* a /* nested */ COMMIT */ ROLLBACK", VERB_ROLLBACK},
    {"-- COMMIT\nROLLBACK", VERB_ROLLBACK},
    {"-- a\rCOMMIT", VERB_COMMIT},
    {"--\n--\n/**/COMMIT", VERB_COMMIT},
    {";;COMMIT", VERB_COMMIT},
    {"/*a*/;--b\n;COMMIT", VERB_COMMIT},
    /* These end no transaction. */
    {"COMMIT PREPARED 'x'", VERB_OTHER},
    {"COMMIT/**/PREPARED 'x'", VERB_OTHER},
    {"ROLLBACK PREPARED 'x'", VERB_OTHER},
    {"ROLLBACK TO a", VERB_QUIET},
    {"ROLLBACK TO SAVEPOINT a", VERB_QUIET},
    {"ROLLBACK TRANSACTION TO SAVEPOINT a", VERB_QUIET},
    {"ROLLBACK /* x */ WORK -- y\n TO a", VERB_QUIET},
    {"commits", VERB_OTHER},
    {"COMMIT_", VERB_OTHER},
    {"commit2", VERB_OTHER},
    /* These do. */
    {"ROLLBACK", VERB_ROLLBACK},
    {"ROLLBACK ; ", VERB_ROLLBACK},
    {"ABORT WORK", VERB_ROLLBACK},
    {"ROLLBACK WORK AND CHAIN", VERB_ROLLBACK},
    {"PREPARE TRANSACTION 'x'", VERB_PREPARE_TRANSACTION},
    {"PREPARE /* p */ TRANSACTION 'x'", VERB_PREPARE_TRANSACTION},
    {"PREPARE p AS SELECT 1", VERB_OTHER},
    {"PREPARE", VERB_OTHER},
    {"BEGIN", VERB_BEGIN},
    {"START TRANSACTION READ ONLY", VERB_BEGIN},
    {"begin isolation level serializable", VERB_BEGIN},
    {"COPY t FROM STDIN", VERB_COPY},
    {"SET LOCAL x = 1", VERB_QUIET},
    {"SAVEPOINT a", VERB_QUIET},
    {"RELEASE a", VERB_QUIET},
    {"LOCK TABLE t", VERB_QUIET},
    {"SHOW x", VERB_QUIET},
    {"SELECT 1", VERB_OTHER},
    {"(SELECT 1)", VERB_OTHER},
    {"WITH a AS (SELECT 1) SELECT * FROM a", VERB_OTHER},
    {"EXECUTE p", VERB_OTHER},
    {"FETCH c", VERB_OTHER},
    {"CALL p()", VERB_OTHER},
    /* No statement at all, or none that a server would take. */
    {"", VERB_UNKNOWN},
    {";", VERB_UNKNOWN},
    {"/* COMMIT", VERB_UNKNOWN},
    {"/* a */", VERB_UNKNOWN},
    {"\"COMMIT\"", VERB_UNKNOWN},
    {"/", VERB_UNKNOWN},
    {"-", VERB_UNKNOWN},
};

START_TEST(a_verb_is_known)
{
	enum verb verb = dbha__verb(verbs[_i].sql);
	ck_assert_msg(verb == verbs[_i].verb, "\"%s\": %d, not %d", verbs[_i].sql, (int)verb, (int)verbs[_i].verb);
}
END_TEST

static const struct {
	const char *sql;
	bool chains;
} chains[] = {
    {"COMMIT", false},
    {"COMMIT AND CHAIN", true},
    {"commit and chain;", true},
    {"COMMIT WORK AND CHAIN", true},
    {"ROLLBACK TRANSACTION AND/**/CHAIN", true},
    {"-- a\nABORT AND CHAIN", true},
    {"COMMIT AND NO CHAIN", false},
    {"COMMIT WORK AND NO CHAIN", false},
    {"COMMIT CHAIN", false},
    {"", false},
};

START_TEST(and_chain_is_seen)
{
	ck_assert_msg(dbha__verb_chains(chains[_i].sql) == chains[_i].chains, "\"%s\"", chains[_i].sql);
}
END_TEST

START_TEST(a_word_is_found_whole_and_in_any_case)
{
	ck_assert(dbha__verb_has_word("SELECT Pg_Notify('a', 'b')", "pg_notify"));
	ck_assert(!dbha__verb_has_word("SELECT my_pg_notify('a')", "pg_notify"));
	ck_assert(!dbha__verb_has_word("SELECT notifying", "notify"));
	ck_assert(!dbha__verb_has_word("", "notify"));
	ck_assert(dbha__verb_has_word("notify", "notify"));
	ck_assert(dbha__verb_begins("/*a*/ SET --b\nLOCAL x", "set", "local"));
	ck_assert(dbha__verb_begins("SET x", "set", NULL));
	ck_assert(!dbha__verb_begins("SET x = local", "set", "local"));
	ck_assert(!dbha__verb_begins("SETS local", "set", "local"));
	ck_assert(!dbha__verb_begins("", "set", NULL));
}
END_TEST

static Suite *verb_suite(void)
{
	TCase *tcase = tcase_create("verb");
	tcase_add_loop_test(tcase, a_verb_is_known, 0, sizeof verbs / sizeof verbs[0]);
	tcase_add_loop_test(tcase, and_chain_is_seen, 0, sizeof chains / sizeof chains[0]);
	tcase_add_test(tcase, a_word_is_found_whole_and_in_any_case);
	Suite *suite = suite_create("verb");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(verb_suite)
