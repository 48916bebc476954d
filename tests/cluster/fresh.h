/*
 * fresh: how fresh a read is, and why it went where it did, in one line of a test. The table is "rows (id int PRIMARY KEY, n bigint)", with
 * one row, 1, whose n only ever goes up.
 */
#ifndef FRESH_H
#define FRESH_H

#include "cluster.h"

/* What a read has shown. */
struct look {
	int code;
	long n; /* of row 1; -1: none */
	dbha_result_route route;
	dbha_error err;
	int64_t took_ms;
};

/*
 * Before a test: a cluster with that row, the one that is there if the test before has said `intact` at its end. In it role app may read
 * pg_stat_wal_receiver, so that a standby's timeline is known at once.
 */
void fresh_cluster(struct cluster *c, const char *arguments);

struct look look(dbha_session *s);
struct look look_as(dbha_session *s, int consistency);
struct look look_within(dbha_session *s, int consistency, int timeout_ms);
struct look look_stream(dbha_session *s);
struct look look_copy(dbha_session *s);
struct look look_with(dbha *h, const char *token, int timeout_ms); /* dbha_exec */

/* One up, by the session; what it is then. */
long raise_row(dbha_session *s);

/* A session that is closed by close_session, or at the end of the test. Must succeed. */
dbha_session *open_session(dbha *h);
void close_session(dbha_session *s);

/* A session that has read, so that the positions of its writes are known from now on. */
dbha_session *placed_session(dbha *h);

/* Its token; must succeed. */
void token_of(dbha_session *s, char token[DBHA_TOKEN_MAX]);

void hold_replay(const struct cluster *c, int node); /* returns once it is held */
void go_on_replay(const struct cluster *c, int node);

#define ASSERT_LOOK(l, value, because, by)                                                                             \
	do {                                                                                                               \
		struct look got_look = (l);                                                                                    \
		ASSERT_OK(got_look.code, got_look.err);                                                                        \
		ck_assert_msg(got_look.n == (value), "shows %ld, not %ld: %s, %s, %s", got_look.n, (long)(value),              \
		              got_look.route.node, dbha_reason_name(got_look.route.reason), got_look.route.why);               \
		ck_assert_msg(got_look.route.reason == DBHA_REASON_##because, "%s, not " #because ": %s",                      \
		              dbha_reason_name(got_look.route.reason), got_look.route.why);                                    \
		ck_assert_str_eq(dbha_role_name(got_look.route.role), dbha_role_name(DBHA_ROLE_##by));                         \
	} while (0)

#endif
