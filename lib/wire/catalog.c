#include "catalog.h"

#include <string.h>

/*
 * How the query works. A verdict is 0 (the user's write_functions), 1 (the library's list), 2 (volatile), 3 (harmless); of several
 * objects of a name in a schema the smallest counts.
 *
 * named      every function with its verdict by its own declaration and the lists
 * fn         the same, where an aggregate is no better than the worst function that it is made of: pg_proc calls every aggregate
 *            immutable; nor a function than its arguments' domains, see bad_type, and defaults
 * doubt      a pattern that finds built-in functions of verdict < 3, and doubtful system views, in the text of a stored expression:
 *            pg_depend does not mention what initdb has made. What a user has made it does.
 * bad_check  constraints of domains that call such functions
 * bad_type   types that run something doubtful when a value is cast to them: such domains, what is made of them, and targets
 *            of explicit casts by doubtful functions
 * bad_rel    relations that are not tables or that hide something doubtful: sequences, foreign, unlogged and temporary
 *            tables; views and row security with doubtful functions; whatever reads or inherits from these
 *
 * Support functions of extensions (casts, operators, comparison) are taken to be what their authors mean, since many are volatile
 * only because nobody said otherwise. An implicit cast, a comparison or a sort order that runs a user's volatile function can hide in any
 * statement: then the book says "everything is doubtful" (kind g).
 *
 * Names with a control character are left out, and what is not in the book is doubtful. $5 and $6 are the system views that are
 * harmless, and the number of relations to tell.
 */
static const char catalog_sql[] =
    "WITH RECURSIVE "
    "named AS MATERIALIZED (SELECT p.oid, n.nspname, p.proargdefaults, p.proname, p.prokind, p.pronargs, "
    "p.pronargdefaults, "
    "p.provariadic, "
    "p.proargtypes, p.prorettype, e.objid IS NOT NULL AS extension, CASE "
    "WHEN p.proname ~ $4 OR n.nspname || '.' || p.proname ~ $4 THEN 0 "
    "WHEN p.proname ~ $3 OR n.nspname || '.' || p.proname ~ $3 THEN 3 "
    "WHEN (n.nspname = 'pg_catalog' OR e.objid IS NOT NULL) AND p.proname ~ $1 THEN 1 "
    "WHEN p.prokind = 'p' THEN 2 "
    "WHEN p.provolatile <> 'v' THEN 3 "
    "WHEN (n.nspname = 'pg_catalog' OR e.objid IS NOT NULL) AND p.proname ~ $2 THEN 3 "
    "ELSE 2 END AS verdict "
    "FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
    "LEFT JOIN pg_catalog.pg_depend e ON e.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND e.objid = p.oid "
    "AND e.objsubid = 0 AND e.deptype = 'e'), "
    "agg AS MATERIALIZED (SELECT a.aggfnoid::oid AS oid, min(f.verdict) AS verdict FROM pg_catalog.pg_aggregate a "
    "CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, "
    "a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS part (oid) "
    "JOIN named f ON f.oid = part.oid WHERE a.aggfnoid::oid >= 16384 GROUP BY 1), "
    "own AS MATERIALIZED (SELECT f.*, CASE WHEN f.verdict = 0 OR g.verdict IS NULL THEN f.verdict "
    "ELSE least(f.verdict, g.verdict) END AS worst FROM named f LEFT JOIN agg g ON g.oid = f.oid), "
    "sysview AS MATERIALIZED (SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n "
    "ON n.oid = c.relnamespace WHERE c.relkind = 'v' AND c.oid < 16384 AND n.nspname || '.' || c.relname !~ $5), "
    "doubt AS MATERIALIZED (SELECT ':(?:funcid|opfuncid|aggfnoid|winfnoid|tsmhandler) (?:' || "
    "(SELECT string_agg(oid::text, '|') FROM own WHERE worst < 3 AND oid < 16384) || ')\\M|:relid (?:0' || "
    "COALESCE((SELECT '|' || string_agg(oid::text, '|') FROM sysview), '') || ')\\M' AS pattern), "
    /* What an object is made from, as far as users have made it: an operator counts as its function. */
    "uses AS MATERIALIZED (SELECT d.classid, d.objid, d.refclassid, CASE WHEN o.oid IS NULL THEN d.refobjid "
    "ELSE o.oprcode::oid END AS refobjid FROM pg_catalog.pg_depend d LEFT JOIN pg_catalog.pg_operator o "
    "ON d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass AND o.oid = d.refobjid "
    "WHERE d.classid IN ('pg_catalog.pg_rewrite'::pg_catalog.regclass, 'pg_catalog.pg_policy'::pg_catalog.regclass, "
    "'pg_catalog.pg_constraint'::pg_catalog.regclass, 'pg_catalog.pg_proc'::pg_catalog.regclass)), "
    "bad_fn AS MATERIALIZED (SELECT oid FROM own WHERE worst < 3), "
    "bad_user AS MATERIALIZED (SELECT u.classid, u.objid FROM uses u JOIN bad_fn b ON b.oid = u.refobjid "
    "WHERE u.refclassid IN ('pg_catalog.pg_proc'::pg_catalog.regclass, "
    "'pg_catalog.pg_operator'::pg_catalog.regclass)), "
    "bad_check AS (SELECT k.contypid AS oid FROM pg_catalog.pg_constraint k, doubt WHERE k.contypid >= 16384 "
    "AND (k.conbin::text ~ doubt.pattern OR k.oid IN (SELECT objid FROM bad_user "
    "WHERE classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass))), "
    "made_of AS MATERIALIZED (SELECT oid AS whole, typbasetype AS part FROM pg_catalog.pg_type WHERE typbasetype >= "
    "16384 "
    "UNION ALL SELECT oid, typelem FROM pg_catalog.pg_type WHERE typelem >= 16384 "
    "UNION ALL SELECT c.reltype, a.atttypid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_attribute a "
    "ON a.attrelid = c.oid WHERE c.reltype >= 16384 AND a.atttypid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped "
    "UNION ALL SELECT rngtypid, rngsubtype FROM pg_catalog.pg_range WHERE rngsubtype >= 16384), "
    "bad_cast AS MATERIALIZED (SELECT k.casttarget, k.castcontext FROM pg_catalog.pg_cast k "
    "JOIN own f ON f.oid = k.castfunc WHERE k.oid >= 16384 AND f.worst < 3 AND NOT f.extension), "
    "bad_type(oid) AS (SELECT oid FROM bad_check UNION SELECT casttarget FROM bad_cast "
    "UNION SELECT m.whole FROM made_of m JOIN bad_type b ON m.part = b.oid), "
    /* A default is computed where the function is called, and not by it. A body that is stored parsed counts with it. */
    "fn AS MATERIALIZED (SELECT f.*, CASE WHEN f.worst = 3 AND (EXISTS (SELECT FROM bad_type b "
    "WHERE b.oid >= 16384 AND b.oid = ANY (f.proargtypes)) OR (f.pronargdefaults > 0 AND f.oid >= 16384 "
    "AND (f.proargdefaults::text ~ doubt.pattern OR f.oid IN (SELECT objid FROM bad_user "
    "WHERE classid = 'pg_catalog.pg_proc'::pg_catalog.regclass)))) THEN 2 ELSE f.worst END AS final FROM own f, "
    "doubt), "
    "rule AS MATERIALIZED (SELECT r.* FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class "
    "WHERE r.ev_class >= 16384 AND r.ev_type = '1' AND c.relkind = 'v'), "
    "bad_rule AS (SELECT r.ev_class AS oid FROM rule r, doubt WHERE r.ev_action::text ~ doubt.pattern "
    "OR r.oid IN (SELECT objid FROM bad_user WHERE classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass) "
    "OR r.oid IN (SELECT u.objid FROM uses u JOIN bad_type b ON b.oid = u.refobjid "
    "WHERE u.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass "
    "AND u.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass)), "
    "bad_policy AS (SELECT p.polrelid AS oid FROM pg_catalog.pg_policy p, doubt WHERE p.polqual::text ~ doubt.pattern "
    "OR p.oid IN (SELECT objid FROM bad_user WHERE classid = 'pg_catalog.pg_policy'::pg_catalog.regclass)), "
    "reads AS MATERIALIZED (SELECT r.ev_class AS reader, u.refobjid AS oid FROM uses u JOIN rule r "
    "ON r.oid = u.objid WHERE u.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass "
    "AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND u.refobjid <> r.ev_class "
    "UNION SELECT p.polrelid, u.refobjid FROM uses u JOIN pg_catalog.pg_policy p ON p.oid = u.objid "
    "WHERE u.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass "
    "AND u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND u.refobjid <> p.polrelid "
    "UNION SELECT inhparent, inhrelid FROM pg_catalog.pg_inherits), "
    "bad_rel(oid) AS (SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relkind IN ('f', 'S') "
    "OR (c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 'p') "
    "UNION SELECT oid FROM sysview UNION SELECT oid FROM bad_rule UNION SELECT oid FROM bad_policy "
    "UNION SELECT r.reader FROM reads r JOIN bad_rel b ON b.oid = r.oid), "
    "rel AS (SELECT n.nspname, c.relname, CASE WHEN b.oid IS NULL THEN 3 ELSE 2 END AS verdict "
    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "LEFT JOIN bad_rel b ON b.oid = c.oid WHERE c.relkind IN ('r', 'p', 'm', 'v', 'f', 'S') "
    "AND n.nspname !~ '^pg_(?:toast|temp)' ORDER BY b.oid IS NULL, c.oid LIMIT $6::pg_catalog.int4), "
    "found AS ("
    "SELECT 'f' AS kind, nspname AS schema, proname AS name, min(final) AS verdict FROM fn "
    "WHERE final < 3 OR prorettype NOT IN (SELECT oid FROM pg_catalog.pg_type WHERE oid < 16384 AND typname IN "
    "('internal', 'cstring', 'trigger', 'event_trigger', 'language_handler', 'index_am_handler', 'table_am_handler', "
    "'fdw_handler', 'tsm_handler')) AND NOT proargtypes::text ~ '(?:^| )2281(?: |$)' GROUP BY 2, 3 "
    "UNION ALL SELECT 'a', f.nspname, f.proname, min(f.final) FROM fn f JOIN pg_catalog.pg_type t "
    "ON t.oid IN (f.proargtypes[0], f.provariadic) WHERE f.final < 3 AND f.prokind <> 'p' AND f.pronargs > 0 "
    "AND (f.pronargs - f.pronargdefaults <= 1 OR f.provariadic <> 0) AND (t.typtype = 'c' OR t.oid = 2249 "
    "OR (t.typtype = 'p' AND t.typname LIKE 'any%') OR t.typbasetype >= 16384) GROUP BY 2, 3 "
    "UNION ALL SELECT 'o', n.nspname, o.oprname, min(CASE WHEN f.extension AND f.final = 2 THEN 3 ELSE f.final END) "
    "FROM pg_catalog.pg_operator o "
    "JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace JOIN fn f ON f.oid = o.oprcode GROUP BY 2, 3 "
    "UNION ALL SELECT 't', n.nspname, t.typname, CASE WHEN b.oid IS NULL THEN 3 ELSE 2 END FROM pg_catalog.pg_type t "
    "JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace LEFT JOIN bad_type b ON b.oid = t.oid "
    "LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid WHERE (t.typrelid = 0 OR c.relkind = 'c') "
    "AND NOT (t.typelem <> 0 AND t.typlen = -1) AND n.nspname !~ '^pg_(?:toast|temp)' "
    "UNION ALL SELECT 'r', nspname, relname, verdict FROM rel "
    "UNION ALL SELECT 'g', '', 'an implicit cast', 2 FROM bad_cast WHERE castcontext = 'i' "
    "UNION ALL SELECT 'g', '', 'the input of a type', 2 FROM pg_catalog.pg_type t "
    "CROSS JOIN LATERAL pg_catalog.unnest(ARRAY[t.typinput, t.typoutput, t.typreceive, t.typsend]::oid[]) AS part "
    "(oid) "
    "JOIN own f ON f.oid = part.oid "
    "WHERE t.oid >= 16384 AND f.oid >= 16384 AND f.worst < 3 AND NOT f.extension "
    "UNION ALL SELECT 'g', '', 'a comparison', 2 FROM pg_catalog.pg_operator o JOIN own f ON f.oid = o.oprcode "
    "WHERE o.oid >= 16384 AND f.worst < 3 AND NOT f.extension AND o.oprname IN ('=', '<>', '<', '<=', '>', '>=') "
    "UNION ALL SELECT 'g', '', 'a sort order', 2 FROM pg_catalog.pg_amproc p JOIN pg_catalog.pg_opfamily y "
    "ON y.oid = p.amprocfamily AND y.opfmethod IN (403, 405) JOIN own f ON f.oid = p.amproc "
    "WHERE p.oid >= 16384 AND f.oid >= 16384 AND f.worst < 3 AND NOT f.extension "
    "UNION ALL SELECT 'g', '', 'a sort order', 2 FROM pg_catalog.pg_amop p JOIN pg_catalog.pg_operator o "
    "ON o.oid = p.amopopr AND p.amopmethod IN (403, 405) JOIN own f ON f.oid = o.oprcode "
    "WHERE p.oid >= 16384 AND f.oid >= 16384 AND f.worst < 3 AND NOT f.extension) "
    "SELECT kind, schema::text, verdict::text, string_agg(DISTINCT name::text, E'\\n') FROM found "
    "WHERE name::text !~ '[\\x01-\\x1f\\x7f]' GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

enum column {
	COL_KIND,
	COL_SCHEMA,
	COL_VERDICT,
	COL_NAMES,
	N_COLUMNS,
};

/* The relations of a database with more than these are told in part: some 3 MB at most. */
#define RELATIONS_MAX "50000"

const char *dbha__catalog_sql(void)
{
	return catalog_sql;
}

void dbha__catalog_params(const struct book_patterns *patterns, const char *values[CATALOG_PARAMS])
{
	values[0] = patterns->deny;
	values[1] = patterns->allow;
	values[2] = patterns->read;
	values[3] = patterns->write;
	values[4] = patterns->views;
	values[5] = RELATIONS_MAX;
}

static bool is_answer(const PGresult *result)
{
	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQnfields(result) != N_COLUMNS || PQntuples(result) == 0)
		return false;
	for (int i = 0; i < N_COLUMNS; i++)
		if (PQfformat(result, i) != 0)
			return false;
	return true;
}

struct function_book *dbha__catalog_read(const PGresult *result)
{
	if (!is_answer(result))
		return NULL;
	struct function_book *book = dbha__function_book_new();
	bool good = book != NULL;
	for (int i = 0; good && i < PQntuples(result); i++) {
		const char *kind = PQgetvalue(result, i, COL_KIND);
		const char *verdict = PQgetvalue(result, i, COL_VERDICT);
		good = strlen(kind) == 1 && strlen(verdict) == 1 &&
		       dbha__function_book_add(book, kind[0], PQgetvalue(result, i, COL_SCHEMA), verdict[0],
		                               PQgetvalue(result, i, COL_NAMES));
	}
	if (good && dbha__function_book_finish(book))
		return book;
	dbha__function_book_free(book);
	return NULL;
}

static bool is_set_to(const PGconn *pg, const char *setting, const char *value)
{
	const char *told = PQparameterStatus(pg, setting);
	return told && strcmp(told, value) == 0;
}

void dbha__catalog_settings(const PGconn *pg, struct classify_limits *limits)
{
	limits->utf8 = is_set_to(pg, "client_encoding", "UTF8");
	limits->standard_strings = is_set_to(pg, "standard_conforming_strings", "on");
}
