/*
 * witness: sessions that write, read, and remember, and so notice when a read shows them less than they knew before.
 *
 * The world is the table "rows (id int PRIMARY KEY, n bigint)": one row for each witness, which nobody else changes, and one that all
 * of them change. A row's n only ever goes up. So two promises become one rule for each row of each read:
 *
 *   - read-your-writes: a witness's own row is not below its last write that was acknowledged;
 *   - monotonic reads: no row is below what the witness has seen of it, in whatever way.
 *
 * A token carries the rule to whoever takes it: another session, one of another handle, one of another process. What its giver knew, its taker
 * has to see.
 *
 * What is honest to demand. A write whose end is unknown binds nobody. What a transaction shows of its own writes counts once it is
 * committed. A failover may lose what no survivor has, and no client can bring that back; so where the rule is to hold across one, nothing that
 * anybody could have seen may be lost: commits wait for a standby (a primary shows a commit only when that wait is over), nobody
 * cancels that wait, both standbys are there when the primary dies, and the one that has received more is promoted. Whatever either
 * of them has shown, it has received. And the primary has to die at one moment, as in a power cut: a backend that sees its postmaster dead
 * no longer waits, and for some microseconds shows what nobody else has; so all of it is stopped before any of it is killed.
 *
 * One thing is PostgreSQL's own: a primary shows a commit later than its standbys may, because a backend sends its commit record, waits for
 * a standby to confirm it, and only then lets others see it. So who comes from a standby to the primary may miss for that moment what others were
 * just committing. No position tells of it. What was seen on a standby alone is therefore demanded of the primary only after a while
 * (`early` counts how often); what was seen on a primary, or written, is demanded at once, everywhere.
 */
#ifndef WITNESS_H
#define WITNESS_H

#include "cluster.h"

#define WITNESSES 16
#define SHARED    WITNESSES /* the id of the row of all */
#define ROWS      (WITNESSES + 1)

/* What somebody knows of each row. */
struct past {
	long n[ROWS];
	long by_primary[ROWS]; /* as far as a primary has shown it, or acknowledged */
};

struct tally {
	long reads, from_standby, writes, transactions, read_only, streams, copies;
	long given, taken, token_reads;        /* tokens, and dbha_exec with one */
	long early;                            /* the primary did not show yet what a standby had, see above */
	long own_writes, backwards, lost;      /* violations: read-your-writes, monotonic reads, a write undone */
	long read_errors, write_errors, wrong; /* errors that a failover explains, and those that nothing does */
	long reasons[16];                      /* of the reads, by dbha_reason */
};

struct witness {
	int number;
	dbha *h;
	dbha_session *s;
	uint64_t random;
	struct past past;
	long written; /* its own row, as last acknowledged */
	struct tally tally;
	bool is_early;                   /* what the primary still has to show is known */
	char violation[400], error[400]; /* the first of each */
};

extern struct witness witnesses[WITNESSES];
extern atomic_long witness_reads; /* answered, of all of them, since they were started */

/* The table, as new; role app may use it. */
void witness_table(const struct cluster *c);

/* All of them, by turns on these handles. with_tokens: they give and take tokens too. */
void witnesses_start(dbha *const *handles, int n_handles, uint64_t seed, bool with_tokens);

/* Tells them to stop, waits, and closes their sessions. */
void witnesses_stop(void);

/* The sum; prints it behind `name`, with the first violations and errors. */
struct tally witnesses_tally(const char *name);

/* A token that has been given, with what its giver knew; false: there is none yet. */
bool token_given(uint64_t *random, char token[DBHA_TOKEN_MAX], struct past *past);

/* What a read has shown, as witness_read_sql writes it; false: it cannot be read. */
extern const char *const witness_read_sql;
bool past_parse(const char *text, struct past *past);

/* How what a node has shown compares with what was known: the first row that is behind goes to *row. */
enum compared { HOLDS, EARLY, BEHIND };
enum compared past_compare(const struct past *shown, const struct past *known, bool by_primary, int *row);

#endif
