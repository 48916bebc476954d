#include "parsetree.h"

#include "dbha_build.h"

#include <stddef.h>
#include <string.h>

#ifdef HAVE_PG_QUERY
#include <pg_query.h>

bool dbha__parsetree_available(void)
{
	return true;
}

void dbha__parsetree_make(const char *sql, struct parsetree *tree)
{
	PgQueryParseResult result = pg_query_parse(sql);
	tree->error = result.error;
	tree->stderr_buffer = result.stderr_buffer;
	tree->json = result.parse_tree;
}

void dbha__parsetree_free(struct parsetree *tree)
{
	pg_query_free_parse_result((PgQueryParseResult){tree->json, tree->stderr_buffer, tree->error});
	*tree = (struct parsetree){NULL, NULL, NULL};
}

#else

bool dbha__parsetree_available(void)
{
	return false;
}

void dbha__parsetree_make(const char *sql, struct parsetree *tree)
{
	(void)sql;
	*tree = (struct parsetree){NULL, NULL, NULL};
}

void dbha__parsetree_free(struct parsetree *tree)
{
	(void)tree;
}
#endif

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80);
}

static bool is_word(char c)
{
	return is_letter(c) || c == '_' || (c >= '0' && c <= '9');
}

/* A digit may stand before a keyword without a blank (1OR 2, before PostgreSQL 15), so it begins no word. */
int dbha__parsetree_nesting(const char *sql)
{
	int n = 0;
	while (*sql) {
		if (is_letter(*sql)) {
			const char *begin = sql;
			while (is_word(*sql))
				sql++;
			n += sql - begin >= 2;
		} else {
			n += strchr("([+-*/<>=~!@#%^&|`?:\\{", *sql) != NULL;
			sql++;
		}
	}
	return n;
}
