/*
 * test_classify: what is a read, with a small book made by hand; and the book itself. What real catalogs say is the business of
 * tests/cluster/test_classify.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "classify.h"
#include "parsetree.h"
#include "unit.h"

static struct function_book *book;
static const struct classify_limits limits = {65536, 2000, true, true};

static void add(struct function_book *to, char kind, const char *schema, char verdict, const char *names)
{
	ck_assert(dbha__function_book_add(to, kind, schema, verdict, names));
}

static struct function_book *small_book(void)
{
	struct function_book *made = dbha__function_book_new();
	ck_assert_ptr_nonnull(made);
	add(made, 'f', "pg_catalog", '3',
	    "count\nsum\nlower\nextract\ngenerate_series\nnow\nrow_number\nunnest\nnormalize");
	add(made, 'f', "pg_catalog", '2', "nextval\npg_advisory_lock\npg_notify");
	add(made, 'f', "pg_catalog", '1', "txid_current\npg_backend_pid");
	add(made, 'f', "app", '3', "full_name\nmixed");
	add(made, 'f', "other", '2', "mixed\nlower");
	add(made, 'f', "app", '0', "listed");
	add(made, 'a', "app", '2', "next_number");
	add(made, 'o', "pg_catalog", '3', "=\n<\n>\n+\n||\n~~\n*\n-");
	add(made, 'o', "app", '2', "<+>");
	add(made, 't', "pg_catalog", '3', "int4\ntext\nnumeric\nbool");
	add(made, 't', "app", '2', "guarded");
	add(made, 'r', "app", '3', "users\norders");
	add(made, 'r', "app", '2', "numbers\nhiding");
	add(made, 'r', "old", '2', "orders");
	ck_assert(dbha__function_book_finish(made));
	return made;
}

static void setup(void)
{
	book = small_book();
}

static void teardown(void)
{
	dbha__function_book_free(book);
}

struct sample {
	const char *sql;
	enum classify_why why; /* WHY_READ: it is a read */
	const char *name;
};

static void check(const struct sample *sample)
{
	char text[200];
	struct classify_verdict verdict = dbha__classify(sample->sql, &limits, book);
	bool is_read = sample->why == WHY_READ || sample->why == WHY_HINT_STANDBY;
	dbha__classify_reason(&verdict, text, sizeof text);
	ck_assert_msg(verdict.why == sample->why, "%s: %s", sample->sql, text);
	ck_assert_msg((verdict.is == CLASS_READ) == is_read, "%s", sample->sql);
	if (sample->name)
		ck_assert_msg(strcmp(verdict.name, sample->name) == 0, "%s: \"%s\"", sample->sql, verdict.name);
}

/* ---- statements ------------------------------------------------------------------------------------------------- */

static const struct sample samples[] = {
    {"SELECT 1", WHY_READ, ""},
    {"select * from users u, lateral (select 1) x where u.id = $1 order by 1 limit 10", WHY_READ, ""},
    {"  -- one\n/* two /* nested */ */ (SELECT id FROM app.users) UNION ALL VALUES (1)", WHY_READ, ""},
    {"TABLE users;", WHY_READ, ""},
    {"WITH RECURSIVE t(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t) SELECT sum(n) FROM t", WHY_READ, ""},
    {"SELECT * FROM t UNION SELECT * FROM (WITH t AS (SELECT 1) SELECT * FROM t) x", WHY_READ, ""},
    {"SELECT a.b.c[1].d, (u).*, row_number() OVER (PARTITION BY x ORDER BY y) FROM users u", WHY_READ, ""},
    {"SELECT U&\"\\0075sers\".id FROM users, unnest(ARRAY[1,2]) WITH ORDINALITY AS n(a,b)", WHY_READ, ""},
    {"SELECT $$nextval('x'); DROP TABLE users$$, E'\\'; DELETE FROM users --', 'it''s'", WHY_READ, ""},
    {"SELECT a NOT BETWEEN SYMMETRIC 1 AND 2, CURRENT_CATALOG, EXTRACT(year FROM now()) FROM users", WHY_READ, ""},
    {"EXPLAIN (COSTS off, FORMAT json) SELECT 1", WHY_READ, ""},
    {"COPY users TO STDOUT WITH (FORMAT csv, HEADER)", WHY_READ, ""},
    {"COPY (SELECT 1) TO STDOUT", WHY_READ, ""},
    {"SHOW TimeZone", WHY_READ, ""},
    {"SHOW TIME ZONE", WHY_READ, ""},
    {"SHOW transaction_read_only", WHY_SETTING, "transaction_read_only"},
    {"SHOW ALL", WHY_SETTING, "all"},
    {"", WHY_EMPTY, ""},
    {" ; ; -- SELECT 1", WHY_EMPTY, ""},
    {"SELECT 1; SELECT 2", WHY_TWO_STATEMENTS, ""},
    {"SELECT 1;; DELETE FROM users", WHY_TWO_STATEMENTS, ""},
    {"SELEC 1", WHY_NOT_PARSED, ""},
    {"SELECT 'open", WHY_NOT_PARSED, ""},
    {"INSERT INTO users VALUES (1)", WHY_STATEMENT, "InsertStmt"},
    {"BEGIN", WHY_STATEMENT, "TransactionStmt"},
    {"SET search_path = app", WHY_STATEMENT, "VariableSetStmt"},
    {"EXPLAIN ANALYZE SELECT 1", WHY_EXPLAIN_ANALYZE, ""},
    {"EXPLAIN (VERBOSE, ANALYSE false) SELECT 1", WHY_EXPLAIN_ANALYZE, ""},
    {"EXPLAIN DELETE FROM users", WHY_WRITING_CTE, ""},
    {"EXPLAIN EXECUTE x", WHY_PART, "ExecuteStmt"},
    {"COPY users FROM STDIN", WHY_COPY, ""},
    {"COPY users TO '/tmp/x'", WHY_COPY, ""},
    {"COPY users TO PROGRAM 'cat'", WHY_COPY, ""},
    {"COPY (DELETE FROM users RETURNING 1) TO STDOUT", WHY_WRITING_CTE, ""},
    {"COPY app.numbers TO STDOUT", WHY_RELATION, "numbers"},
    {"SELECT 1 INTO x", WHY_INTO, ""},
    {"SELECT * FROM users FOR UPDATE", WHY_LOCKING, ""},
    {"SELECT * FROM (SELECT 1 FROM users FOR KEY SHARE SKIP LOCKED) x", WHY_LOCKING, ""},
    {"SELECT 1 WHERE EXISTS (SELECT FROM users FOR NO KEY UPDATE)", WHY_LOCKING, ""},
    {"WITH a AS (WITH b AS (DELETE FROM users RETURNING 1) SELECT * FROM b) SELECT * FROM a", WHY_WRITING_CTE, ""},
    {"SELECT nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT pg_catalog.nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT \"nextval\"('s')", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT U&\"n\\0065xtval\"('s')", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT 1 FROM users ORDER BY nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT 1 LIMIT nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
    {"VALUES (1), (nextval('s'))", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT count(*) FILTER (WHERE nextval('s') > 0)", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT sum(1) OVER (ORDER BY 1 ROWS nextval('s') PRECEDING)", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT CASE WHEN false THEN ARRAY[[nextval('s')]] END", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT (ARRAY[1])[nextval('s')]", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT 1 FROM users GROUP BY ROLLUP (nextval('s'))", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT DISTINCT ON (nextval('s')) 1", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT * FROM users TABLESAMPLE bernoulli (nextval('s'))", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT * FROM users TABLESAMPLE system_rows (3)", WHY_SAMPLE, "system_rows"},
    {"SELECT * FROM users TABLESAMPLE bernoulli (3) REPEATABLE (1)", WHY_READ, ""},
    {"SELECT * FROM ROWS FROM (generate_series(1, 2), pg_notify('a', 'b')) x", WHY_FUNCTION_VOLATILE, "pg_notify"},
    {"SELECT xmlelement(name a, nextval('s'))", WHY_FUNCTION_VOLATILE, "nextval"},
    {"SELECT xmlelement(name a, xmlattributes(1 AS b), 'c')", WHY_READ, ""},
    {"SELECT * FROM xmltable('/a' PASSING '<a/>' COLUMNS b int PATH 'b' DEFAULT nextval('s'))", WHY_FUNCTION_VOLATILE,
     "nextval"},
    {"SELECT txid_current()", WHY_FUNCTION_DENIED, "txid_current"},
    {"SELECT listed()", WHY_FUNCTION_WRITE, "listed"},
    {"SELECT nobody_knows()", WHY_FUNCTION_UNKNOWN, "nobody_knows"},
    {"SELECT a.b.c()", WHY_PART, NULL},
    {"SELECT lower('A')", WHY_FUNCTION_VOLATILE, "lower"}, /* other.lower might be meant */
    {"SELECT pg_catalog.lower('A')", WHY_READ, ""},
    {"SELECT app.mixed()", WHY_READ, ""},
    {"SELECT mixed()", WHY_FUNCTION_VOLATILE, "mixed"},
    {"SELECT u.next_number FROM users u", WHY_ATTRIBUTE, "next_number"},
    {"SELECT (u).next_number FROM users u", WHY_ATTRIBUTE, "next_number"},
    {"SELECT (u).a[1].next_number FROM users u", WHY_ATTRIBUTE, "next_number"},
    {"SELECT next_number FROM users", WHY_READ, ""}, /* a column: a function needs a row before it */
    {"SELECT 1 <+> 2", WHY_OPERATOR, "<+>"},
    {"SELECT 1 OPERATOR(app.<+>) 2", WHY_OPERATOR, "<+>"},
    {"SELECT 1 OPERATOR(pg_catalog.+) 2", WHY_READ, ""},
    {"SELECT 1 FROM users ORDER BY 1 USING >>>", WHY_OPERATOR, ">>>"},
    {"SELECT 1 <+> ANY (SELECT 1)", WHY_OPERATOR, "<+>"},
    {"SELECT '1'::guarded", WHY_TYPE, "guarded"},
    {"SELECT '1'::app.unknown[]", WHY_TYPE, "unknown"},
    {"SELECT '{1}'::numeric(3,1)[]", WHY_READ, ""},
    {"SELECT * FROM numbers", WHY_RELATION, "numbers"},
    {"SELECT * FROM app.hiding", WHY_RELATION, "hiding"},
    {"SELECT * FROM orders", WHY_RELATION, "orders"}, /* old.orders is no table */
    {"SELECT * FROM app.orders", WHY_READ, ""},
    {"SELECT * FROM pg_temp.users", WHY_RELATION_UNKNOWN, "users"},
    {"SELECT * FROM nobody", WHY_RELATION_UNKNOWN, "nobody"},
    {"WITH numbers AS (SELECT 1) SELECT * FROM numbers", WHY_RELATION, "numbers"},
    {"SELECT * FROM postgres.app.users", WHY_PART, "catalogname"},
    {"SELECT \"a\nb\".c FROM users", WHY_PART, NULL},
};

START_TEST(statements_are_reads_only_by_the_tree_and_the_book)
{
	if (!dbha__classify_available())
		return;
	for (size_t i = 0; i < sizeof samples / sizeof samples[0]; i++)
		check(&samples[i]);
}
END_TEST

START_TEST(a_hint_is_the_whole_of_a_comment_before_the_first_word)
{
	static const struct sample hints[] = {
	    {"/* dbha:standby */ SELECT nextval('s')", WHY_HINT_STANDBY, ""},
	    {"-- why\n/*dbha:standby*/INSERT INTO users VALUES (1)", WHY_HINT_STANDBY, ""},
	    {" /* a */ /*\tdbha:primary\n*/ SELECT 1", WHY_HINT_PRIMARY, ""},
	    {"/* dbha:standby *//* dbha:primary */ SELECT 1", WHY_HINT_PRIMARY, ""},
	    {"/* dbha:primary *//* dbha:standby */ SELECT 1", WHY_HINT_PRIMARY, ""},
	};
	static const struct sample no_hints[] = {
	    {"SELECT nextval('s') /* dbha:standby */", WHY_FUNCTION_VOLATILE, "nextval"},
	    {"/* /* dbha:standby */ */ SELECT nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
	    {"-- /* dbha:standby */\nSELECT nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
	    {"/* dbha:standby please */ SELECT nextval('s')", WHY_FUNCTION_VOLATILE, "nextval"},
	    {"/* dbha:standby", WHY_NOT_PARSED, ""},
	};
	for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++)
		check(&hints[i]);
	for (size_t i = 0; dbha__classify_available() && i < sizeof no_hints / sizeof no_hints[0]; i++)
		check(&no_hints[i]);
}
END_TEST

START_TEST(what_the_parser_may_read_otherwise_than_the_server_is_not_read)
{
	if (!dbha__classify_available())
		return;
	struct classify_limits other = limits;
	other.utf8 = false;
	ck_assert_int_eq(dbha__classify("SELECT 'a'", &other, book).why, WHY_READ);
	ck_assert_int_eq(dbha__classify("SELECT '\xe4'", &other, book).why, WHY_ENCODING);
	other = limits;
	other.standard_strings = false;
	ck_assert_int_eq(dbha__classify("SELECT 'a'", &other, book).why, WHY_READ);
	ck_assert_int_eq(dbha__classify("SELECT '\\'", &other, book).why, WHY_BACKSLASH);
	other = limits;
	other.length_max = 8;
	ck_assert_int_eq(dbha__classify("SELECT 1", &other, book).why, WHY_READ);
	ck_assert_int_eq(dbha__classify("SELECT 12", &other, book).why, WHY_TOO_LONG);
	ck_assert_int_eq(dbha__classify("SELECT 1", &limits, NULL).why, WHY_NO_BOOK);
}
END_TEST

START_TEST(something_volatile_that_can_hide_anywhere_makes_all_doubtful)
{
	struct function_book *made = dbha__function_book_new();
	add(made, 'g', "", '2', "an implicit cast");
	ck_assert(dbha__function_book_finish(made));
	ck_assert_str_eq(dbha__function_book_trouble(made), "an implicit cast");
	ck_assert_ptr_null(dbha__function_book_trouble(book));
	char text[200];
	struct classify_verdict verdict = dbha__classify("SELECT 1", &limits, made);
	if (dbha__classify_available())
		ck_assert_str_eq(dbha__classify_reason(&verdict, text, sizeof text),
		                 "the database has an implicit cast that runs a volatile function");
	dbha__function_book_free(made);
}
END_TEST

/* ---- depth ------------------------------------------------------------------------------------------------------ */

/* before, then n times `open`, middle, n times `close`. */
static char *nested(const char *before, const char *open, const char *middle, const char *close, int n)
{
	char *text = malloc(strlen(before) + strlen(middle) + (size_t)n * (strlen(open) + strlen(close)) + 1);
	ck_assert_ptr_nonnull(text);
	char *at = stpcpy(text, before);
	for (int i = 0; i < n; i++)
		at = stpcpy(at, open);
	at = stpcpy(at, middle);
	for (int i = 0; i < n; i++)
		at = stpcpy(at, close);
	return text;
}

struct nest {
	const char *before, *open, *middle, *close;
};

static const struct nest nests[] = {
    {"SELECT ", "(", "1", ")"},
    {"SELECT 1", "+1", "", ""},
    {"SELECT ", "NOT ", "true", ""},
    {"", "SELECT (", "SELECT 1", ")"},
    {"SELECT ", "-", "1", ""},
    {"SELECT ", "- ", "1", ""},
    {"SELECT ARRAY", "[", "1", "]"},
    {"SELECT ", "now(", "", ")"},
    {"SELECT ", "CASE WHEN ", "true", " THEN 1 END"},
    {"SELECT 1", "::int", "", ""},
    {"SELECT ", "((1,", "1", "))"},
    {"SELECT 1", " UNION SELECT 1", "", ""},
    {"SELECT * FROM ", "(", "users", " JOIN users ON true)"},
    {"SELECT 'a'", "||'a'", "", ""},
    {"SELECT 1", " IS NULL", "", ""},
    {"SELECT ", "~", "1", ""},
    {"SELECT 'a'", " COLLATE a", "", ""},
    {"", "WITH a AS (", "SELECT 1", ") SELECT 1"},
    {"SELECT x", " AT TIME ZONE y", "", ""},
};

static void *classify_nests(void *stack_kb)
{
	for (size_t i = 0; i < sizeof nests / sizeof nests[0]; i++) {
		const struct nest *nest = &nests[i];
		for (int n = 1; n <= 32768; n *= 2) {
			char *text = nested(nest->before, nest->open, nest->middle, nest->close, n);
			struct classify_verdict verdict = dbha__classify(text, &limits, book);
			if (n == 32768)
				ck_assert_msg(verdict.is == CLASS_WRITE, "%s", nest->open);
			free(text);
		}
	}
	return stack_kb;
}

/* On a stack of 768 kB, most of which nobody needs: see CLASSIFY_LIMITS. A sanitizer's frames are several times as large. */
START_TEST(no_nesting_overflows_a_small_stack)
{
	pthread_t thread;
	pthread_attr_t attr;
	pthread_attr_init(&attr);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	pthread_attr_setstacksize(&attr, 8 << 20);
#else
	pthread_attr_setstacksize(&attr, 768 << 10);
#endif
	ck_assert_int_eq(pthread_create(&thread, &attr, classify_nests, NULL), 0);
	pthread_join(thread, NULL);
	pthread_attr_destroy(&attr);
}
END_TEST

START_TEST(nesting_is_never_counted_too_low_and_lists_are_flat)
{
	ck_assert_int_ge(dbha__parsetree_nesting("SELECT ((((1))))"), 4);
	ck_assert_int_ge(dbha__parsetree_nesting("SELECT NOT NOT NOT a"), 3);
	ck_assert_int_ge(dbha__parsetree_nesting("SELECT 1OR 2OR 3OR 4"), 3);
	char *list = nested("SELECT 1 IN (1", ",1000", ")", "", 5000);
	ck_assert_int_le(dbha__parsetree_nesting(list), 10);
	if (dbha__classify_available())
		ck_assert_int_eq(dbha__classify(list, &limits, book).why, WHY_READ);
	free(list);
}
END_TEST

/* ---- the book --------------------------------------------------------------------------------------------------- */

START_TEST(a_name_without_a_schema_is_as_good_as_its_worst)
{
	ck_assert_int_eq(dbha__function_book_ask(book, 'f', "app", "mixed"), BOOK_HARMLESS);
	ck_assert_int_eq(dbha__function_book_ask(book, 'f', "other", "mixed"), BOOK_VOLATILE);
	ck_assert_int_eq(dbha__function_book_ask(book, 'f', NULL, "mixed"), BOOK_VOLATILE);
	ck_assert_int_eq(dbha__function_book_ask(book, 'f', "pg_catalog", "mixed"), BOOK_UNKNOWN);
	ck_assert_int_eq(dbha__function_book_ask(book, 'r', NULL, "mixed"), BOOK_UNKNOWN);
	ck_assert_int_eq(dbha__function_book_ask(book, 'f', NULL, ""), BOOK_UNKNOWN);
}
END_TEST

START_TEST(a_book_refuses_nonsense)
{
	struct function_book *made = dbha__function_book_new();
	ck_assert(!dbha__function_book_add(made, 'x', "a", '3', "b"));
	ck_assert(!dbha__function_book_add(made, '\0', "a", '3', "b"));
	ck_assert(!dbha__function_book_add(made, 'f', "a", '4', "b"));
	ck_assert(dbha__function_book_add(made, 'f', "a", '3', ""));
	ck_assert(dbha__function_book_finish(made));
	ck_assert(!dbha__function_book_add(made, 'f', "a", '3', "b"));
	ck_assert_int_eq(dbha__function_book_ask(made, 'f', NULL, "b"), BOOK_UNKNOWN);
	dbha__function_book_free(made);
	dbha__function_book_free(NULL);
}
END_TEST

START_TEST(a_book_of_many_names_finds_each)
{
	struct function_book *made = dbha__function_book_new();
	char names[16000], *at = names;
	for (int i = 0; i < 2000; i++)
		at += sprintf(at, "f%d\n", i);
	for (int s = 0; s < 10; s++)
		add(made, 'f', s == 7 ? "seven" : "s", s == 7 ? '2' : '3', names);
	ck_assert(dbha__function_book_finish(made));
	ck_assert_int_eq(dbha__function_book_ask(made, 'f', "s", "f1999"), BOOK_HARMLESS);
	ck_assert_int_eq(dbha__function_book_ask(made, 'f', NULL, "f0"), BOOK_VOLATILE);
	ck_assert_int_eq(dbha__function_book_ask(made, 'f', NULL, "f2000"), BOOK_UNKNOWN);
	size_t bytes;
	ck_assert_uint_eq(dbha__function_book_names(made, &bytes), 20000);
	dbha__function_book_free(made);
}
END_TEST

START_TEST(lists_become_patterns_and_nonsense_is_refused)
{
	struct book_patterns patterns;
	const char *wrong;
	ck_assert(dbha__book_patterns_init(&patterns, " a.b, c*\tD$1", NULL, &wrong));
	ck_assert_str_eq(patterns.read, "^(?:a\\.b|c.*|D\\$1|\\n)$");
	ck_assert_str_eq(patterns.write, "^(?:\\n)$");
	dbha__book_patterns_fini(&patterns);
	static const char *const bad[] = {"a b(", "*", "a*b", "a|b", "a'", "\\", "x, y^"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		ck_assert_msg(!dbha__book_patterns_init(&patterns, bad[i], NULL, &wrong), "%s", bad[i]);
		ck_assert_ptr_nonnull(wrong);
		ck_assert(!dbha__book_patterns_init(&patterns, NULL, bad[i], &wrong));
	}
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("classify");
	TCase *tests = tcase_create("classify");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, statements_are_reads_only_by_the_tree_and_the_book);
	tcase_add_test(tests, a_hint_is_the_whole_of_a_comment_before_the_first_word);
	tcase_add_test(tests, what_the_parser_may_read_otherwise_than_the_server_is_not_read);
	tcase_add_test(tests, something_volatile_that_can_hide_anywhere_makes_all_doubtful);
	tcase_add_test(tests, no_nesting_overflows_a_small_stack);
	tcase_add_test(tests, nesting_is_never_counted_too_low_and_lists_are_flat);
	tcase_add_test(tests, a_name_without_a_schema_is_as_good_as_its_worst);
	tcase_add_test(tests, a_book_refuses_nonsense);
	tcase_add_test(tests, a_book_of_many_names_finds_each);
	tcase_add_test(tests, lists_become_patterns_and_nonsense_is_refused);
	suite_add_tcase(suite, tests);
	return suite;
}

UNIT_MAIN(make_suite)
