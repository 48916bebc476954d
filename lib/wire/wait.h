/*
 * wait: waits for one connection's socket, with a deadline.
 */
#ifndef DBHA_WIRE_WAIT_H
#define DBHA_WIRE_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "conn.h"

enum waited {
	WAITED_READY,
	WAITED_BROKEN,
	WAITED_TIMEOUT,
};

/* Before a statement: what was said of the one before (conn->late and others) no longer counts. */
void dbha__wait_begin(struct conn *conn);

/* Until the socket is ready for `events` (POLLIN, POLLOUT), or until `deadline` (monotonic us). */
enum waited dbha__wait_socket(struct conn *conn, short events, int64_t deadline);

/* Gets everything out. The server may be talking instead of listening, so that what it says is taken in meanwhile. */
enum waited dbha__wait_flush(struct conn *conn, int64_t deadline);

/* Until PQgetResult does not block. READY also where the connection broke: PQgetResult then has a last result, which says why. */
enum waited dbha__wait_result(struct conn *conn, int64_t deadline);

/*
 * For who has waited for the result of a statement until its deadline: asks the server to stop, unless the patrol has, and puts the
 * deadline off by CONN_DRAIN_US, once a statement. What the server says until then is believed; conn->late says that it
 * was said behind the deadline. False: there is nobody to send the request.
 */
bool dbha__wait_drain(struct conn *conn, int64_t *deadline);

#endif
