/*
 * minimal.c: the smallest program worth reading: opens a cluster, writes to its primary, reads from a standby.
 *
 * cc minimal.c $(pkg-config --cflags --libs dbha libpq) -o minimal && ./minimal postgresql://h1,h2,h3/mydb
 */
#include <dbha.h>
#include <libpq-fe.h>
#include <stdio.h>

/* Runs one statement and prints the first value of its result. Every failure says what became of the statement. */
static int run(dbha *db, const char *sql, dbha_intent intent, const char *param)
{
	dbha_error err;
	PGresult *result;
	int code = dbha_exec(db, &DBHA_REQUEST(.sql = sql, .intent = intent, .n_params = param ? 1 : 0, .values = &param),
	                     &result, &err);
	if (code == DBHA_OK && PQntuples(result) > 0)
		printf("%s\n", PQgetvalue(result, 0, 0));
	if (code != DBHA_OK)
		fprintf(stderr, "%s (%s)%s\n", err.message, err.sqlstate,
		        err.outcome_unknown ? ": it may have been executed" : "");
	PQclear(result);
	return code;
}

int main(int argc, char **argv)
{
	dbha_error err;
	dbha *db = dbha_open(argc > 1 ? argv[1] : NULL, &err); /* NULL: DATABASE_URL or DB_HOST, DB_NAME ... */
	if (db == NULL) {
		fprintf(stderr, "%s\n", err.message);
		return 2;
	}
	int code =
	    run(db, "CREATE TABLE IF NOT EXISTS dbha_minimal (said text, at timestamptz DEFAULT now())", DBHA_WRITE, NULL);
	if (code == DBHA_OK)
		code = run(db, "INSERT INTO dbha_minimal (said) VALUES ($1) RETURNING 'the primary took it at ' || at",
		           DBHA_WRITE, "hello");
	if (code == DBHA_OK)
		code = run(db, "SELECT CASE WHEN pg_is_in_recovery() THEN 'a standby' ELSE 'the primary' END || ' answers'",
		           DBHA_READ, NULL);
	dbha_close(db, 1000); /* running calls have a second to end */
	return code == DBHA_OK ? 0 : 1;
}
