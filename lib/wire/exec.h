/*
 * exec: runs one statement on one connection with a deadline, prepared where it comes back, and says exactly how it ended.
 */
#ifndef DBHA_WIRE_EXEC_H
#define DBHA_WIRE_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"
#include "dbha.h"
#include "sqlstate.h"

struct attempt {
	enum attempt_end end;
	PGresult *result;           /* with ATTEMPT_OK, _ERROR and _FATAL; the caller's */
	bool answered;              /* the statement's own result had come before the end */
	bool prepared_only;         /* ATTEMPT_TIMEOUT or _CANCELLED while preparing: the statement itself was never sent */
	bool copied_out;            /* ATTEMPT_ERROR: a COPY TO, refused by us after the server had begun with it */
	bool in_doubt;              /* a cancel request may still reach the session: nothing else may run on it */
	char sqlstate[6];           /* "" where the server gave none */
	char message[DBHA_WHY_MAX]; /* one line, the server's or libpq's; "" with ATTEMPT_OK */
};

/*
 * Blocks until the statement ends, or until `deadline` (monotonic us); then the server is asked to stop, and has CONN_DRAIN_US
 * to say what has become of the statement, see dbha__wait_drain.
 */
void dbha__exec(struct conn *conn, const dbha_request *request, int64_t deadline, struct attempt *attempt);

/* Runs a statement of the library's own. True if the server did it before the deadline. */
bool dbha__exec_command(struct conn *conn, const char *sql, int64_t deadline);

#endif
