/*
 * reset: makes a session as it was when it began, by what was used of it. Sent when the connection comes back, and not waited
 * for: whoever uses the connection next meets the answer, which has most often come by then.
 */
#ifndef DBHA_WIRE_RESET_H
#define DBHA_WIRE_RESET_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"

/*
 * Sends what conn->used asks for, and a ROLLBACK if a transaction is open. True: sent, or nothing to do. False: it cannot be reset,
 * or is broken.
 */
bool dbha__reset_send(struct conn *conn);

/* The answer, as far as it has come. Does not wait: what has been read from the socket is looked at. */
enum reset_step {
	RESET_BUSY,
	RESET_DONE,
	RESET_FAILED, /* the session is not as it was, close it */
};
enum reset_step dbha__reset_step(struct conn *conn);

/* The same, once what has come is read. */
enum reset_step dbha__reset_hear(struct conn *conn);

/* Before the next use: waits for the answer, if one is owed. False: the session is not as it was, close it. */
bool dbha__reset_finish(struct conn *conn, int64_t deadline);

#endif
