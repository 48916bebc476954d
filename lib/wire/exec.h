/*
 * exec: runs one statement on one connection with a deadline, prepared where it comes back, and says exactly how it ended.
 */
#ifndef DBHA_WIRE_EXEC_H
#define DBHA_WIRE_EXEC_H

#include <stdbool.h>
#include <stdint.h>

#include "attempt.h"
#include "conn.h"
#include "dbha.h"

/*
 * Blocks until the statement ends, or until `deadline` (monotonic us); then the server is asked to stop, and has CONN_DRAIN_US
 * to say what has become of the statement, see dbha__wait_drain.
 */
void dbha__exec(struct conn *conn, const dbha_request *request, int64_t deadline, struct attempt *attempt);

/* Runs a statement of the library's own. True if the server did it before the deadline. */
bool dbha__exec_command(struct conn *conn, const char *sql, int64_t deadline);

#endif
