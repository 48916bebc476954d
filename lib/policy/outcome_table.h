/*
 * outcome_table: the table that knows what the status cannot say: one row per write transaction, written by it, so that the row is there
 * if and only if the transaction has committed. Its name, as the option has it, and the texts of its statements. Pure.
 *
 * token uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(); `dbha outcome-table URL --create` makes it.
 */
#ifndef DBHA_POLICY_OUTCOME_TABLE_H
#define DBHA_POLICY_OUTCOME_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#define OUTCOME_NAME_BYTES 63 /* of an identifier; PostgreSQL would cut what is longer, and find another table */

/* A schema and a table, each in quotes with every quote doubled, a dot and the NUL. */
#define OUTCOME_TABLE_MAX (2 * (2 * OUTCOME_NAME_BYTES + 2) + 2)
#define OUTCOME_SQL_MAX   (OUTCOME_TABLE_MAX + 80)
#define OUTCOME_TOKEN_MAX 33 /* 16 bytes as hexadecimal digits, and the NUL */

/*
 * "outcomes" or "app.outcomes", each part taken literally, upper case as well. False: it is no such name; `quoted` is "" then.
 */
bool dbha__outcome_table_quote(const char *name, char quoted[OUTCOME_TABLE_MAX]);

/* One parameter, the token. The name has been accepted by dbha__outcome_table_quote. */
void dbha__outcome_table_insert(const char *name, char sql[OUTCOME_SQL_MAX]);
void dbha__outcome_table_look_up(const char *name, char sql[OUTCOME_SQL_MAX]);

/* A token of 128 random bits. */
void dbha__outcome_token(uint64_t high, uint64_t low, char token[OUTCOME_TOKEN_MAX]);

#endif
