/*
 * talk: one line for what a session does in a test.
 */
#ifndef TALK_H
#define TALK_H

#include "cluster.h"

/* A session of a handle; must succeed. The caller closes it. */
dbha_session *talk_open(dbha *h);

/* One statement. Returns the code. */
int talk(dbha_session *s, const char *sql, dbha_error *err);
int talk_as(dbha_session *s, dbha_intent intent, const char *sql, dbha_error *err);

/* The same; must succeed. The first value, or the command tag where there is no row. */
const char *talk_ask(dbha_session *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

dbha_session_status talk_status(dbha_session *s);

/* Ends the server's side of the connection that the session holds, and waits until it is gone. */
void talk_terminate(const struct cluster *c, int node, dbha_session *s);

/* A call ended with this code and this SQLSTATE. */
#define ASSERT_STATE(code, expected, state, err)                                                                       \
	do {                                                                                                               \
		ASSERT_CODE(code, expected, err);                                                                              \
		ck_assert_str_eq((err).sqlstate, state);                                                                       \
	} while (0)

#endif
