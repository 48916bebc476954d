#include "outcome_table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Appends one part in quotes. Returns the length of the part in `name`; 0: it is no identifier. */
static int quote_part(const char *name, char *quoted)
{
	int n = 0;
	size_t used = strlen(quoted);
	quoted[used++] = '"';
	for (; name[n] && name[n] != '.'; n++) {
		unsigned char c = (unsigned char)name[n];
		if (c < 0x20 || c == 0x7f || n >= OUTCOME_NAME_BYTES)
			return 0;
		if (c == '"')
			quoted[used++] = '"';
		quoted[used++] = name[n];
	}
	quoted[used++] = '"';
	quoted[used] = '\0';
	return n;
}

bool dbha__outcome_table_quote(const char *name, char quoted[OUTCOME_TABLE_MAX])
{
	quoted[0] = '\0';
	int n = quote_part(name, quoted);
	if (n && name[n] == '.') {
		const char *table = name + n + 1;
		size_t used = strlen(quoted);
		quoted[used] = '.';
		quoted[used + 1] = '\0';
		n = quote_part(table, quoted);
		name = table;
	}
	bool good = n > 0 && !name[n];
	if (!good)
		quoted[0] = '\0';
	return good;
}

void dbha__outcome_table_insert(const char *name, char sql[OUTCOME_SQL_MAX])
{
	char quoted[OUTCOME_TABLE_MAX];
	dbha__outcome_table_quote(name, quoted);
	snprintf(sql, OUTCOME_SQL_MAX, "INSERT INTO %s (token) VALUES ($1::pg_catalog.uuid)", quoted);
}

void dbha__outcome_table_look_up(const char *name, char sql[OUTCOME_SQL_MAX])
{
	char quoted[OUTCOME_TABLE_MAX];
	dbha__outcome_table_quote(name, quoted);
	snprintf(sql, OUTCOME_SQL_MAX, "SELECT 1 FROM %s WHERE token = $1::pg_catalog.uuid", quoted);
}

void dbha__outcome_token(uint64_t high, uint64_t low, char token[OUTCOME_TOKEN_MAX])
{
	snprintf(token, OUTCOME_TOKEN_MAX, "%016" PRIx64 "%016" PRIx64, high, low);
}
