/*
 * test_classify: the classifier against real servers. Every statement of tests/cluster/classify is classified with the catalog of the
 * primary, and run on a real standby. What is classified as a read must succeed there, with the answer of the primary, and leave
 * nothing behind: not in the session, not in the server, and not in the data when it is run on the primary, where it could.
 *
 * Prints how many true reads go to the primary for nothing, by file, and what a classification costs.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "catalog.h"
#include "classcache.h"
#include "classify.h"
#include "cluster.h"
#include "corpus.h"

static struct cluster c;
static struct corpus corpus;
static struct function_book *book;
static const struct classify_limits limits = {65536, 2000, true, true};

static const char *const files[] = {"pgbench.txt", "django.txt", "rails.txt", "statements.txt", "traps.txt"};
#define N_FILES 5
#define N_USUAL 3 /* the first of them are what applications send */

static const char *directory(void)
{
	static char path[400];
	const char *harness = getenv("DBHA_PGCLUSTER");
	ck_assert_ptr_nonnull(harness);
	snprintf(path, sizeof path, "%.*s/classify", (int)(strrchr(harness, '/') - harness), harness);
	return path;
}

static PGconn *connect_to(int node)
{
	char order[4];
	snprintf(order, sizeof order, "%d", node);
	PGconn *pg = PQconnectdb(cluster_url(&c, order, NULL));
	ck_assert_msg(PQstatus(pg) == CONNECTION_OK, "node %d: %s", node, PQerrorMessage(pg));
	return pg;
}

static struct function_book *read_book(int node, const char *read_functions, const char *write_functions)
{
	struct book_patterns patterns;
	const char *wrong, *values[CATALOG_PARAMS];
	ck_assert(dbha__book_patterns_init(&patterns, read_functions, write_functions, &wrong));
	dbha__catalog_params(&patterns, values);
	PGconn *pg = connect_to(node);
	PGresult *result = PQexecParams(pg, dbha__catalog_sql(), CATALOG_PARAMS, NULL, values, NULL, NULL, 0);
	ck_assert_msg(PQresultStatus(result) == PGRES_TUPLES_OK, "%s", PQerrorMessage(pg));
	struct function_book *made = dbha__catalog_read(result);
	ck_assert_ptr_nonnull(made);
	PQclear(result);
	PQfinish(pg);
	dbha__book_patterns_fini(&patterns);
	return made;
}

static void make_objects(void)
{
	char *schema = corpus_text(directory(), "schema.sql");
	ck_assert_ptr_nonnull(schema);
	PGconn *admin = cluster_admin(&c, 1);
	PGresult *result = PQexec(admin, schema);
	ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQerrorMessage(admin));
	PQclear(result);
	PQclear(PQexec(admin, "ANALYZE"));
	PQfinish(admin);
	free(schema);
}

/* Once for all tests. */
static void servers(void)
{
	if (book)
		return;
	cluster_create(&c, "2");
	make_objects();
	cluster_all_catch_up(&c);
	for (int i = 0; i < N_FILES; i++)
		ck_assert_msg(corpus_add(&corpus, directory(), files[i]), "%s", files[i]);
	book = read_book(1, "lazy", "locking_liar");
}

/* ---- running ------------------------------------------------------------------------------------------------------- */

/* What a statement answered, as one text: rows, COPY data, tags; an error as its SQLSTATE. */
struct answer {
	char text[60000];
	size_t length;
	char sqlstate[6];
};

static void say(struct answer *answer, const char *text, size_t length)
{
	if (length > sizeof answer->text - 2 - answer->length)
		length = sizeof answer->text - 2 - answer->length;
	memcpy(answer->text + answer->length, text, length);
	answer->length += length;
	answer->text[answer->length++] = '|';
	answer->text[answer->length] = '\0';
	if (answer->length > sizeof answer->text - 2)
		answer->length = sizeof answer->text - 2;
}

static void say_rows(struct answer *answer, const PGresult *result)
{
	for (int row = 0; row < PQntuples(result); row++)
		for (int field = 0; field < PQnfields(result); field++)
			say(answer, PQgetvalue(result, row, field), (size_t)PQgetlength(result, row, field));
}

static void say_copy(PGconn *pg, struct answer *answer)
{
	char *data;
	for (int n; (n = PQgetCopyData(pg, &data, 0)) > 0; PQfreemem(data))
		say(answer, data, (size_t)n);
}

static void say_result(PGconn *pg, struct answer *answer, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	switch (PQresultStatus(result)) {
	case PGRES_COPY_OUT:
		say_copy(pg, answer);
		break;
	case PGRES_COPY_IN:
		PQputCopyEnd(pg, "not today");
		break;
	default:
		say_rows(answer, result);
		say(answer, PQcmdStatus((PGresult *)result), strlen(PQcmdStatus((PGresult *)result)));
	}
	if (state)
		snprintf(answer->sqlstate, sizeof answer->sqlstate, "%s", state);
}

/* With $1 and $2 as 1; otherwise by the simple protocol, which runs several statements at once. */
static void run_on(PGconn *pg, const char *sql, struct answer *answer)
{
	static const char *const ones[] = {"1", "1"};
	int n = strstr(sql, "$2") ? 2 : strstr(sql, "$1 ") || strstr(sql, "= $1") ? 1 : 0;
	answer->length = 0;
	answer->text[0] = answer->sqlstate[0] = '\0';
	ck_assert(n ? PQsendQueryParams(pg, sql, n, NULL, ones, NULL, NULL, 0) : PQsendQuery(pg, sql));
	for (PGresult *result; (result = PQgetResult(pg)) != NULL; PQclear(result))
		say_result(pg, answer, result);
}

static const char *value_of(PGconn *pg, const char *sql)
{
	static struct answer answers[8];
	static int next;
	struct answer *answer = &answers[next++ % 8];
	run_on(pg, sql, answer);
	ck_assert_msg(answer->sqlstate[0] == '\0', "%s: %s", sql, PQerrorMessage(pg));
	return answer->text;
}

/* ---- effects -------------------------------------------------------------------------------------------------------- */

static const char session_sql[] =
    "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), "
    "(SELECT count(*) FROM pg_prepared_statements WHERE name <> ''), (SELECT count(*) FROM pg_cursors WHERE name <> "
    "''), "
    "(SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_settings WHERE source = 'session'), "
    "(SELECT count(*) FROM pg_listening_channels()), current_user, session_user";

/* Of any server; pg_is_wal_replay_paused() is an error on a primary. */
static const char server_sql[] =
    "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() END, "
    "(SELECT count(*) FROM pg_replication_slots), pg_conf_load_time(), "
    "(SELECT stats_reset FROM pg_stat_bgwriter), (SELECT stats_reset FROM pg_stat_database WHERE datname = 'app'), "
    "pg_postmaster_start_time(), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')";

/* Everything that a write can have touched in this database. */
static const char data_sql[] =
    "SELECT (SELECT string_agg(last_value::text, ',' ORDER BY sequencename) FROM pg_sequences), "
    "(SELECT md5(string_agg(query_to_xml('SELECT * FROM ' || c.oid::regclass, true, true, '')::text, '' ORDER BY "
    "c.oid)) "
    "FROM pg_class c WHERE c.relkind = 'r' AND c.relnamespace::regnamespace::text IN ('public', 'other')), "
    "(SELECT md5(string_agg(oid::text || relname || relfilenode || relnatts, ',' ORDER BY oid)) FROM pg_class "
    "WHERE oid >= 16384), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_largeobject_metadata), "
    "(SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_type)";

struct watch {
	PGconn *admin[3]; /* by node */
	char server[3][2000];
	char data[2000];
	int n_failed;
};

static void watch_begin(struct watch *watch)
{
	for (int node = 1; node <= 2; node++) {
		watch->admin[node] = cluster_admin(&c, node);
		snprintf(watch->server[node], sizeof watch->server[node], "%s", value_of(watch->admin[node], server_sql));
	}
	snprintf(watch->data, sizeof watch->data, "%s", value_of(watch->admin[1], data_sql));
	watch->n_failed = 0;
}

static void watch_end(struct watch *watch)
{
	PQfinish(watch->admin[1]);
	PQfinish(watch->admin[2]);
}

static void complain(struct watch *watch, const struct corpus_statement *s, const char *what, const char *before,
                     const char *after)
{
	printf("%s:%d: %s\n  %s\n  before: %.300s\n  after:  %.300s\n", s->file, s->line, s->sql, what, before, after);
	watch->n_failed++;
}

static void look_at_server(struct watch *watch, const struct corpus_statement *s, int node)
{
	/* The session of the statement has ended; its locks go with it a moment later. */
	char now[2000];
	int64_t end = now_ms() + 2000;
	do
		snprintf(now, sizeof now, "%s", value_of(watch->admin[node], server_sql));
	while (strcmp(now, watch->server[node]) != 0 && now_ms() < end);
	if (strcmp(now, watch->server[node]) != 0)
		complain(watch, s, "changes the server", watch->server[node], now);
	snprintf(watch->server[node], sizeof watch->server[node], "%s", now);
}

/* In a session of its own, as the library has them. */
static void run_read(struct watch *watch, const struct corpus_statement *s, int node, struct answer *answer)
{
	PGconn *pg = connect_to(node);
	if (node == 2)
		PQclear(PQexec(pg, "SET default_transaction_read_only = on"));
	char before[2000];
	snprintf(before, sizeof before, "%s", value_of(pg, session_sql));
	run_on(pg, s->sql, answer);
	const char *after = value_of(pg, session_sql);
	if (strcmp(before, after) != 0)
		complain(watch, s, "leaves something in its session", before, after);
	PQfinish(pg);
	look_at_server(watch, s, node);
}

static void check_read(struct watch *watch, const struct corpus_statement *s)
{
	static struct answer standby, primary;
	run_read(watch, s, 2, &standby);
	if (s->is == 'S') {
		if (strcmp(standby.sqlstate, "25006") != 0)
			complain(watch, s, "is not refused with 25006", "25006", standby.sqlstate);
		return;
	}
	run_read(watch, s, 1, &primary);
	if (s->is == 'E') {
		if (!standby.sqlstate[0] || strcmp(standby.sqlstate, primary.sqlstate) != 0)
			complain(watch, s, "is another error", primary.sqlstate, standby.sqlstate);
		return;
	}
	if (standby.sqlstate[0])
		complain(watch, s, "fails", "", standby.sqlstate);
	if (s->is == 'R' && strcmp(standby.text, primary.text) != 0)
		complain(watch, s, "has another answer", primary.text, standby.text);
	const char *data = value_of(watch->admin[1], data_sql);
	if (strcmp(data, watch->data) != 0)
		complain(watch, s, "changes data", watch->data, data);
	snprintf(watch->data, sizeof watch->data, "%s", data);
}

/* ---- the tests ------------------------------------------------------------------------------------------------------ */

struct tally {
	int reads, needless, writes, errors, wrong;
};

static struct tally *tally_of(struct tally *tallies, const struct corpus_statement *s)
{
	for (int i = 0; i < N_FILES; i++)
		if (s->file == files[i])
			return &tallies[i];
	abort();
}

static void print_tallies(const struct tally *tallies)
{
	for (int i = 0; i < N_FILES; i++) {
		const struct tally *t = &tallies[i];
		printf("%-15s %3d reads, %d of them to the primary for nothing (%.1f %%); %3d others, %d of them called reads; "
		       "%d errors\n",
		       files[i], t->reads, t->needless, 100.0 * t->needless / (t->reads ? t->reads : 1), t->writes, t->wrong,
		       t->errors);
	}
}

START_TEST(what_is_called_a_read_has_no_effect_and_the_same_answer_on_a_standby)
{
	static struct watch watch;
	static struct tally tallies[N_FILES];
	if (!dbha__classify_available())
		return;
	watch_begin(&watch);
	for (int i = 0; i < corpus.n; i++) {
		const struct corpus_statement *s = &corpus.statements[i];
		struct tally *tally = tally_of(tallies, s);
		char why[200];
		struct classify_verdict verdict = dbha__classify(s->sql, &limits, book);
		bool called_read = verdict.is == CLASS_READ, is_read = s->is == 'R' || s->is == 'V';
		*(is_read || s->is == 'S' ? &tally->reads : s->is == 'E' ? &tally->errors : &tally->writes) += 1;
		if (is_read && !called_read)
			printf("needless: %s:%d: %.200s: %s\n", s->file, s->line, s->sql,
			       dbha__classify_reason(&verdict, why, sizeof why));
		tally->needless += is_read && !called_read;
		if (s->is == 'W' && called_read) {
			tally->wrong++;
			complain(&watch, s, "is called a read", "", "");
		}
		/* Reads that are not called so are run all the same: a mark of the corpus has to be true. */
		if (called_read || is_read)
			check_read(&watch, s);
	}
	watch_end(&watch);
	print_tallies(tallies);
	printf("%d statements\n", corpus.n);
	fflush(stdout);
	ck_assert_int_ge(corpus.n, 400);
	ck_assert_int_eq(watch.n_failed, 0);
	for (int i = 0; i < N_USUAL; i++)
		ck_assert_msg(tallies[i].needless * 20 < tallies[i].reads, "%s", files[i]);
}
END_TEST

/* How the rest ends on a standby: which of them it would have taken without a word is what the classifier is for. */
START_TEST(everything_else_is_run_on_the_standby_too)
{
	static struct answer answer;
	int refused = 0, other = 0, silent = 0;
	PGconn *admin = cluster_admin(&c, 2);
	char before[2000];
	snprintf(before, sizeof before, "%s", value_of(admin, server_sql));
	for (int i = 0; i < corpus.n; i++) {
		const struct corpus_statement *s = &corpus.statements[i];
		if (s->is != 'W' && s->is != 'E')
			continue;
		PGconn *pg = connect_to(2);
		PQclear(PQexec(pg, "SET default_transaction_read_only = on"));
		PQclear(PQexec(pg, "SET statement_timeout = '5s'"));
		run_on(pg, s->sql, &answer);
		PQfinish(pg);
		*(strcmp(answer.sqlstate, "25006") == 0 ? &refused : answer.sqlstate[0] ? &other : &silent) += 1;
		ck_assert_msg(s->is != 'E' || answer.sqlstate[0], "%s:%d: no error", s->file, s->line);
	}
	printf("not reads: a standby refuses %d with 25006, %d with another code, and takes %d without a word\n", refused,
	       other, silent);
	WAIT_FOR(strcmp(before, value_of(admin, server_sql)) == 0, PATIENCE_MS);
	PQfinish(admin);
	ck_assert_int_gt(silent, 50);
}
END_TEST

/* A standby has the same catalog, once it has caught up. */
START_TEST(the_book_of_a_standby_is_the_same)
{
	struct function_book *other = read_book(2, "lazy", "locking_liar");
	size_t bytes;
	ck_assert_uint_eq(dbha__function_book_names(other, &bytes), dbha__function_book_names(book, &bytes));
	for (int i = 0; i < corpus.n; i++) {
		struct classify_verdict a = dbha__classify(corpus.statements[i].sql, &limits, book);
		struct classify_verdict b = dbha__classify(corpus.statements[i].sql, &limits, other);
		ck_assert_int_eq(a.why, b.why);
	}
	dbha__function_book_free(other);
}
END_TEST

/*
 * The list of harmless system views is compiled in. This server's own say, view by view: none runs a doubtful function or reads
 * a doubtful view.
 */
START_TEST(the_harmless_system_views_are_harmless_on_this_server)
{
	struct book_patterns patterns;
	const char *wrong;
	ck_assert(dbha__book_patterns_init(&patterns, NULL, NULL, &wrong));
	const char *values[] = {patterns.deny, patterns.allow, patterns.views};
	PGconn *admin = cluster_admin(&c, 1);
	PGresult *result = PQexecParams(
	    admin,
	    "WITH v AS (SELECT c.oid, n.nspname || '.' || c.relname AS name, r.ev_action::text AS action FROM pg_class c "
	    "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_rewrite r ON r.ev_class = c.oid WHERE c.oid < 16384), "
	    "p AS (SELECT ':(?:funcid|opfuncid|aggfnoid|winfnoid) (?:' || (SELECT string_agg(oid::text, '|') FROM pg_proc "
	    "WHERE proname ~ $1 OR (provolatile = 'v' AND proname !~ $2)) || ')\\M|:relid (?:' || "
	    "(SELECT string_agg(oid::text, '|') FROM v WHERE name !~ $3) || ')\\M' AS pattern) "
	    "SELECT string_agg(name, ' ') FILTER (WHERE name ~ $3 AND action ~ pattern), count(*) FILTER (WHERE name ~ "
	    "$3), "
	    "count(*) FILTER (WHERE name !~ $3 AND action ~ pattern) FROM v, p",
	    3, NULL, values, NULL, NULL, 0);
	ck_assert_msg(PQresultStatus(result) == PGRES_TUPLES_OK, "%s", PQerrorMessage(admin));
	ck_assert_msg(PQgetisnull(result, 0, 0), "doubtful: %s", PQgetvalue(result, 0, 0));
	ck_assert_int_gt(atoi(PQgetvalue(result, 0, 1)), 60);
	ck_assert_int_gt(atoi(PQgetvalue(result, 0, 2)), 40); /* and the pattern finds those that are not */
	PQclear(result);
	PQfinish(admin);
	dbha__book_patterns_fini(&patterns);
}
END_TEST

/* Something volatile where no name shows it. Rolled back: the next test wants the book as it was. */
START_TEST(what_can_hide_anywhere_is_found_in_the_catalog)
{
	static const char *const hiding[] = {
	    "CREATE CAST (order_state AS int) WITH FUNCTION state_lock(order_state) AS IMPLICIT",
	    "CREATE TYPE mine; CREATE FUNCTION mine_in(cstring) RETURNS mine LANGUAGE internal STRICT AS 'int4in';"
	    "CREATE FUNCTION mine_out(mine) RETURNS cstring LANGUAGE internal STRICT AS 'int4out';"
	    "CREATE TYPE mine (INPUT = mine_in, OUTPUT = mine_out, LIKE = int4)",
	    "CREATE FUNCTION eq_lock(int, bool) RETURNS bool LANGUAGE sql AS 'SELECT lock_ok($1)';"
	    "CREATE OPERATOR = (FUNCTION = eq_lock, LEFTARG = int, RIGHTARG = bool)",
	    "CREATE OPERATOR <! (FUNCTION = op_lock, LEFTARG = int, RIGHTARG = int);"
	    "CREATE FUNCTION cmp(int, int) RETURNS int LANGUAGE sql AS 'SELECT 0';"
	    "CREATE OPERATOR CLASS locking FOR TYPE int USING btree AS OPERATOR 1 <!, FUNCTION 1 cmp(int, int)",
	};
	struct book_patterns patterns;
	const char *wrong, *values[CATALOG_PARAMS];
	ck_assert(dbha__book_patterns_init(&patterns, NULL, NULL, &wrong));
	dbha__catalog_params(&patterns, values);
	PGconn *admin = cluster_admin(&c, 1);
	for (size_t i = 0; i < sizeof hiding / sizeof hiding[0]; i++) {
		PQclear(PQexec(admin, "BEGIN"));
		PGresult *result = PQexec(admin, hiding[i]);
		ck_assert_msg(PQresultStatus(result) == PGRES_COMMAND_OK, "%s", PQerrorMessage(admin));
		PQclear(result);
		result = PQexecParams(admin, dbha__catalog_sql(), CATALOG_PARAMS, NULL, values, NULL, NULL, 0);
		struct function_book *made = dbha__catalog_read(result);
		ck_assert_ptr_nonnull(made);
		ck_assert_msg(dbha__function_book_trouble(made) != NULL, "%s", hiding[i]);
		dbha__function_book_free(made);
		PQclear(result);
		PQclear(PQexec(admin, "ROLLBACK"));
	}
	ck_assert_ptr_null(dbha__function_book_trouble(book));
	PQfinish(admin);
	dbha__book_patterns_fini(&patterns);
}
END_TEST

/* ---- threads and figures ------------------------------------------------------------------------------------------- */

static enum classify_why expected[CORPUS_MAX];

static void *classify_all(void *failed)
{
	for (int round = 0; round < 5; round++)
		for (int i = 0; i < corpus.n; i++)
			if (dbha__classify(corpus.statements[i].sql, &limits, book).why != expected[i])
				return failed;
	return NULL;
}

START_TEST(threads_come_to_the_same_verdicts)
{
	pthread_t threads[4];
	for (int i = 0; i < corpus.n; i++)
		expected[i] = dbha__classify(corpus.statements[i].sql, &limits, book).why;
	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, classify_all, &c), 0);
	for (int i = 0; i < 4; i++) {
		void *failed;
		pthread_join(threads[i], &failed);
		ck_assert_ptr_null(failed);
	}
}
END_TEST

/* What this thread has computed, whoever else wants the processor. */
static double cpu_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void measure(const char *file, int n_rounds)
{
	struct classcache *cache = dbha__classcache_new(CORPUS_MAX, 4 << 20);
	ck_assert_ptr_nonnull(cache);
	double parse = 0, hit = 0;
	int n = 0;
	for (int round = 0; round < n_rounds; round++) {
		for (int i = 0; i < corpus.n; i++) {
			const struct corpus_statement *s = &corpus.statements[i];
			struct classify_verdict verdict;
			if (strcmp(s->file, file) != 0 || s->is != 'R')
				continue;
			double begin = cpu_us();
			dbha__classify(s->sql, &limits, book);
			double parsed = cpu_us();
			dbha__classify_intent(cache, book, 1, &limits, s->sql, &verdict);
			double ready = cpu_us();
			for (int k = 0; k < 20; k++)
				dbha__classify_intent(cache, book, 1, &limits, s->sql, &verdict);
			hit += (cpu_us() - ready) / 20;
			parse += parsed - begin;
			n++;
		}
	}
	printf("%-12s %.1f us to classify, %.3f us for a hit (processor time, means of the reads)\n", file, parse / n,
	       hit / n);
	ck_assert_msg(SANITIZED || hit / n < 1, "a hit costs %.3f us", hit / n);
	dbha__classcache_free(cache);
}

START_TEST(what_it_costs)
{
	size_t bytes, names = dbha__function_book_names(book, &bytes);
	printf("the book: %zu names, %zu bytes\n", names, bytes);
	for (int i = 0; i < N_USUAL; i++)
		measure(files[i], 50);
}
END_TEST

static Suite *make_suite(void)
{
	Suite *suite = suite_create("classify");
	ADD_TEST(suite, what_is_called_a_read_has_no_effect_and_the_same_answer_on_a_standby, servers, NULL, 240);
	ADD_TEST(suite, everything_else_is_run_on_the_standby_too, servers, NULL, 120);
	ADD_TEST(suite, the_book_of_a_standby_is_the_same, servers, NULL, 60);
	ADD_TEST(suite, the_harmless_system_views_are_harmless_on_this_server, servers, NULL, 60);
	ADD_TEST(suite, what_can_hide_anywhere_is_found_in_the_catalog, servers, NULL, 60);
	ADD_TEST(suite, threads_come_to_the_same_verdicts, servers, NULL, 60);
	ADD_TEST(suite, what_it_costs, servers, NULL, 60);
	return suite;
}

int main(void)
{
	int status = run_suite(make_suite(), &c);
	dbha__function_book_free(book);
	corpus_free(&corpus);
	return status;
}
