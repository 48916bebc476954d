/*
 * test_sessionstate: what a statement leaves behind in its session, told by its text and its tag; what a rollback leaves of that; and
 * the text that undoes it.
 */
#include <string.h>

#include "sessionstate.h"
#include "unit.h"

static const struct {
	const char *sql;
	unsigned use;
} texts[] = {
    /* The common ones. */
    {"SELECT 1", 0},
    {"INSERT INTO t VALUES ($1)", 0},
    {"UPDATE t SET a = 1", 0},
    {"", 0},
    /* Settings. */
    {"SET x = 1", USE_SETTINGS},
    {"set x to 1", USE_SETTINGS},
    {"SET SESSION x = 1", USE_SETTINGS},
    {"SET ROLE r", USE_SETTINGS},
    {"SET SESSION AUTHORIZATION r", USE_SETTINGS},
    {"SET TIME ZONE 'UTC'", USE_SETTINGS},
    {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", USE_SETTINGS},
    {"SET application_name = 'local transaction'", USE_SETTINGS},
    {"SET x = local", USE_SETTINGS},
    {"/* who: me */ SET x = 1", USE_SETTINGS},
    {"-- why\nSET x = 1", USE_SETTINGS},
    {";SET x = 1", USE_SETTINGS},
    {"SELECT set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT pg_catalog.SET_CONFIG($1, $2, $3)", USE_SETTINGS},
    {"SELECT '--', set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT 'image/*', set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT \"a--\", set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT 'it''s --', set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT 1 /* ' */, set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT 1 -- don't\n, set_config('a', 'b', false)", USE_SETTINGS},
    {"SELECT setseed(0.5)", USE_SETTINGS},
    {"SET LOCAL x = 1", 0},
    {"/* a */ SET /* b */ LOCAL x = 1", 0},
    {"SET TRANSACTION READ ONLY", 0},
    {"SET CONSTRAINTS ALL DEFERRED", 0},
    {"SELECT 1 -- set_config", 0},
    {"/* set_config(a) */ SELECT 1", 0},
    {"SELECT set_configuration()", 0},
    /* Temporary tables; a column may be called so. */
    {"CREATE TEMP TABLE t (a int)", USE_TEMP},
    {"create temporary table t (a int)", USE_TEMP},
    {"CREATE LOCAL TEMP TABLE t (a int)", USE_TEMP},
    {"CREATE GLOBAL TEMPORARY TABLE t (a int)", USE_TEMP},
    {"CREATE OR REPLACE TEMP VIEW v AS SELECT 1", USE_TEMP},
    {"CREATE /* a */ TEMP -- b\n SEQUENCE s", USE_TEMP},
    {"CREATE TABLE pg_temp.t (a int)", USE_TEMP},
    {"SELECT 1 INTO TEMP t", USE_TEMP},
    {"SELECT 1 INTO LOCAL TEMPORARY t", USE_TEMP},
    {"SET search_path = pg_temp", USE_TEMP | USE_SETTINGS},
    {"SELECT temp FROM readings", 0},
    {"INSERT INTO readings (temp, temporary) VALUES (1, 2)", 0},
    {"CREATE TABLE readings (at timestamptz, temp real)", 0},
    {"SELECT temperature, template FROM t", 0},
    /* Advisory locks: of the session only. */
    {"SELECT pg_advisory_lock(1)", USE_LOCKS},
    {"SELECT pg_advisory_lock_shared(1)", USE_LOCKS},
    {"SELECT pg_try_advisory_lock(1, 2)", USE_LOCKS},
    {"SELECT pg_try_advisory_lock_shared(1)", USE_LOCKS},
    {"SELECT pg_advisory_xact_lock(1)", 0},
    {"SELECT pg_advisory_unlock(1)", 0},
    /* Cursors. */
    {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", USE_CURSORS},
    {"/*a*/ declare c cursor with hold for select 1", USE_CURSORS},
    {"DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1", 0},
    {"DECLARE c CURSOR FOR SELECT hold FROM t", 0},
    {"SELECT a FROM t WHERE hold", 0},
    /* Others. */
    {"SELECT dblink_connect('a', 'b')", USE_LIBRARY},
    {"DO $$BEGIN SET x = 1; END$$", USE_SETTINGS},
    {"-- a\nDO $$BEGIN PERFORM set_config('a', 'b', false); END$$", USE_SETTINGS},
    {"DO $$BEGIN CREATE TEMP TABLE t (a int); END$$", USE_TEMP},
    {"DO $$BEGIN LISTEN a; LOAD 'b'; END$$", USE_LISTEN | USE_LIBRARY},
    {"DO $$BEGIN EXECUTE 'x'; END$$", USE_ASKED},
};

START_TEST(a_text_tells_what_it_may_leave)
{
	unsigned use = dbha__sessionstate_hints(texts[_i].sql);
	ck_assert_msg(use == texts[_i].use, "\"%s\": %u, not %u", texts[_i].sql, use, texts[_i].use);
}
END_TEST

#define ALL 255u

static const struct {
	unsigned used, hints;
	const char *tag;
	unsigned after;
} tags[] = {
    {0, 0, "SELECT 1", 0},
    {0, 0, "", 0},
    {0, 0, "LISTEN", USE_LISTEN},
    {0, 0, "LOAD", USE_LIBRARY},
    {0, 0, "LOCK TABLE", 0},
    {0, 0, "PREPARE", USE_PREPARED},
    {0, 0, "PREPARE TRANSACTION", 0},
    {0, USE_SETTINGS, "SET", USE_SETTINGS},
    {USE_TEMP, USE_LOCKS, "SELECT 1", USE_TEMP | USE_LOCKS},
    {ALL, 0, "DISCARD ALL", USE_LIBRARY},
    {USE_SETTINGS | USE_ASKED, 0, "DISCARD ALL", 0},
    {USE_TEMP | USE_LISTEN, 0, "DISCARD TEMP", USE_LISTEN},
    {USE_SETTINGS, 0, "DISCARD PLANS", USE_SETTINGS},
    {USE_PREPARED | USE_TEMP, 0, "DEALLOCATE ALL", USE_TEMP},
    {USE_PREPARED, 0, "DEALLOCATE", USE_PREPARED},
    {USE_CURSORS | USE_TEMP, 0, "CLOSE CURSOR ALL", USE_TEMP},
    {USE_CURSORS, 0, "CLOSE CURSOR", USE_CURSORS},
    {USE_CURSORS, 0, "COMMIT", USE_CURSORS},
    {0, 0, "DELETE 1", 0},
    /* The role that SET ROLE has set is not reset by RESET ALL. */
    {USE_SETTINGS, 0, "RESET", USE_SETTINGS},
};

START_TEST(a_tag_tells_what_is_left)
{
	unsigned after = dbha__sessionstate_after(tags[_i].used, tags[_i].hints, tags[_i].tag);
	ck_assert_msg(after == tags[_i].after, "%u, %u, %s: %u, not %u", tags[_i].used, tags[_i].hints, tags[_i].tag, after,
	              tags[_i].after);
}
END_TEST

START_TEST(a_rollback_undoes_what_is_transactional)
{
	ck_assert_uint_eq(dbha__sessionstate_survivors(0), 0);
	ck_assert_uint_eq(dbha__sessionstate_survivors(USE_SETTINGS | USE_TEMP | USE_LISTEN | USE_CURSORS), 0);
	ck_assert_uint_eq(dbha__sessionstate_survivors(ALL), USE_LOCKS | USE_PREPARED | USE_LIBRARY | USE_ASKED);
}
END_TEST

static const char *reset(unsigned used, bool rollback, bool on_standby)
{
	static char sql[1024];
	return dbha__sessionstate_reset(used, rollback, on_standby, sql, sizeof sql);
}

#define ASSERT_HAS(text, part)     ck_assert_msg(strstr(text, part), "\"%s\" is not in: %s", part, text)
#define ASSERT_HAS_NOT(text, part) ck_assert_msg(!strstr(text, part), "\"%s\" is in: %s", part, text)

START_TEST(a_reset_undoes_what_was_used_and_no_more)
{
	ck_assert_str_eq(reset(0, false, false), "");
	ck_assert_str_eq(reset(0, true, false), "ROLLBACK");
	ck_assert_str_eq(reset(USE_TEMP, false, false), "DISCARD TEMP");
	ck_assert_str_eq(reset(USE_TEMP, true, false), "ROLLBACK; DISCARD TEMP");
	ck_assert_str_eq(reset(USE_LISTEN, false, false), "UNLISTEN *");
	ck_assert_str_eq(reset(USE_LISTEN, false, true), "");
	ck_assert_str_eq(reset(USE_CURSORS, false, false), "CLOSE ALL");
	ck_assert_str_eq(reset(USE_LOCKS, false, true), "SELECT pg_catalog.pg_advisory_unlock_all()");
	ASSERT_HAS(reset(USE_SETTINGS, false, false), "RESET ALL");
	ASSERT_HAS(reset(USE_SETTINGS, false, false), "SET SESSION AUTHORIZATION DEFAULT");
	ASSERT_HAS(reset(USE_PREPARED, false, false), "DEALLOCATE");
	ck_assert_ptr_null(reset(USE_LIBRARY | USE_TEMP, true, false));
	const char *all = reset(USE_ASKED, true, false);
	const char *parts[] = {"ROLLBACK",   "CLOSE ALL",  "RESET ALL",    "UNLISTEN *",
	                       "unlock_all", "DEALLOCATE", "DISCARD TEMP", "DISCARD SEQUENCES"};
	for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
		ASSERT_HAS(all, parts[i]);
	ASSERT_HAS_NOT(all, "DISCARD ALL"); /* it would take the library's prepared statements along */
	ASSERT_HAS_NOT(reset(USE_ASKED, false, true), "UNLISTEN");
	/* There is room for more: reset.c adds a statement of its own. */
	ck_assert_uint_lt(strlen(reset(ALL & ~(unsigned)USE_LIBRARY, true, false)), 900);
}
END_TEST

START_TEST(words_are_for_people_and_never_too_many)
{
	char text[64];
	dbha__sessionstate_words(0, text, sizeof text);
	ck_assert_str_eq(text, "");
	dbha__sessionstate_words(USE_SETTINGS | USE_LOCKS, text, sizeof text);
	ck_assert_str_eq(text, "settings, advisory locks");
	for (unsigned used = 0; used <= ALL; used++)
		for (size_t size = 1; size <= sizeof text; size++) {
			memset(text, 'x', sizeof text);
			dbha__sessionstate_words(used, text, size);
			ck_assert_uint_lt(strnlen(text, sizeof text), size);
		}
}
END_TEST

START_TEST(what_may_change_a_setting_is_told_by_its_name)
{
	static const char *const harmless[] = {
	    "SELECT 1",
	    "SELECT v FROM t WHERE id = $1",
	    "SELECT count(*), Max (v) FROM t WHERE id IN ($1, $2) AND (a OR b)",
	    "SELECT (a + b) * (c) FROM t JOIN u USING (id)",
	    "",
	};
	static const char *const may_set[] = {
	    "SELECT docs_of($1)",         "SELECT app.count($1)",
	    "SELECT \"count\"($1)",       "SELECT count/* */($1)",
	    "SELECT z\xc3\xa4hle($1)",    "SELECT f\n ($1)",
	    "SELECT 1 OPERATOR(app.+) 2", "SELECT pg_catalog.set_config('a', 'b', true)",
	};
	for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++)
		ck_assert_msg(!dbha__sessionstate_may_set(harmless[i]), "%s", harmless[i]);
	for (size_t i = 0; i < sizeof may_set / sizeof may_set[0]; i++)
		ck_assert_msg(dbha__sessionstate_may_set(may_set[i]), "%s", may_set[i]);
}
END_TEST

static Suite *sessionstate_suite(void)
{
	TCase *tcase = tcase_create("sessionstate");
	tcase_add_loop_test(tcase, a_text_tells_what_it_may_leave, 0, sizeof texts / sizeof texts[0]);
	tcase_add_loop_test(tcase, a_tag_tells_what_is_left, 0, sizeof tags / sizeof tags[0]);
	tcase_add_test(tcase, a_rollback_undoes_what_is_transactional);
	tcase_add_test(tcase, a_reset_undoes_what_was_used_and_no_more);
	tcase_add_test(tcase, what_may_change_a_setting_is_told_by_its_name);
	tcase_add_test(tcase, words_are_for_people_and_never_too_many);
	Suite *suite = suite_create("sessionstate");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(sessionstate_suite)
