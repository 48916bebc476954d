/*
 * attempt: how a statement ended on one connection, put together from what libpq gives.
 */
#ifndef DBHA_WIRE_ATTEMPT_H
#define DBHA_WIRE_ATTEMPT_H

#include <stdbool.h>

#include "conn.h"
#include "dbha.h"
#include "sqlstate.h"

struct attempt {
	enum attempt_end end;
	PGresult *result;           /* with ATTEMPT_OK, _ERROR and _FATAL; the caller's */
	bool answered;              /* the statement's own result had come before the end */
	bool prepared_only;         /* ATTEMPT_TIMEOUT or _CANCELLED while preparing: the statement itself was never sent */
	bool copied_out;            /* ATTEMPT_ERROR: a COPY TO, refused by us after the server had begun with it */
	bool in_doubt;              /* a cancel request is still on its way: the connection is of no use to anybody */
	char sqlstate[6];           /* "" where the server gave none */
	char message[DBHA_WHY_MAX]; /* one line, the server's or libpq's; "" with ATTEMPT_OK */
};

/* An attempt of which nothing is known yet. */
void dbha__attempt_begin(struct attempt *attempt);

/*
 * One result more, whose owner `attempt` becomes. The first error stays: behind a server's FATAL message libpq adds one of its own,
 * without a SQLSTATE, when the connection ends. An error that comes after a good result is of the commit, and takes its place.
 */
void dbha__attempt_take(struct attempt *attempt, PGresult *result);

/* After the last result: a connection that broke without a word from the server is a lost one; with a word, the word counts. */
void dbha__attempt_judge(struct conn *conn, struct attempt *attempt);

/* libpq refused to send. */
void dbha__attempt_not_sent(struct conn *conn, struct attempt *attempt);

/* The connection has broken without a word. */
void dbha__attempt_lost(struct conn *conn, struct attempt *attempt);

/* COPY needs a conversation that one call cannot hold: the connection is cut. The result is freed. */
bool dbha__attempt_is_copy(const PGresult *result);
void dbha__attempt_refuse_copy(struct conn *conn, struct attempt *attempt, PGresult *result);

/* The deadline has passed, and nothing has come. */
void dbha__attempt_timed_out(struct attempt *attempt);

/*
 * The last word on an attempt, for conn->late: behind the deadline, when the server had been asked to stop, its answer counts as
 * at any other time. But a commit that was stopped in its wait for a synchronous standby is called done by the server and
 * is less than the caller has asked for.
 */
void dbha__attempt_judge_late(const struct conn *conn, struct attempt *attempt);

/*
 * Two errors of a prepared statement are about the preparation, and say that nothing was executed. Where `result` is one of them for
 * `name`, the cache is mended and it is true. The server no longer has it (26000): then it has lost the others too, as a
 * rule. Or its result changed shape with a table ("cached plan must not change result type", which has only the general
 * code 0A000; the name of the function that raised it is not translated, unlike the text).
 */
bool dbha__attempt_mend_cache(struct conn *conn, const PGresult *result, const char *name);

/* What a statement has left in its session, see policy/sessionstate. hints: of its text. */
void dbha__attempt_note_use(struct conn *conn, const dbha_request *request, unsigned hints,
                            const struct attempt *attempt);

/* The result of a command that no server had to be asked for; NULL when out of memory. */
PGresult *dbha__attempt_empty_result(void);

/* Whether the answer to COMMIT was that of a transaction that had failed: it is rolled back, which to the server is no error. */
bool dbha__attempt_was_rolled_back(const PGresult *result);

#endif
