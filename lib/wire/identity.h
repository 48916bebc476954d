/*
 * identity: asks a node who it is: role, system identifier, timeline, position, start time. One query, one round trip,
 * sent and read without blocking. Both a health probe and the check of every new connection.
 */
#ifndef DBHA_WIRE_IDENTITY_H
#define DBHA_WIRE_IDENTITY_H

#include <stdbool.h>

#include "conn.h"
#include "topology.h"

/*
 * Sends the question. make_reader: a session on a standby is made read-only in the same message, so that a misrouted
 * write is refused even if the standby is promoted under it; only where nothing stands between us and the server, because
 * behind a pooler the setting would fall on other people's sessions. The server itself compares: the backend that runs the
 * query must be the one libpq was told of at connect. False: the connection is broken.
 */
bool dbha__identity_ask(struct conn *conn, bool make_reader);

/*
 * Takes in what has come. CONN_READY: everything in `observation` that the server knows is filled in (not node, at_us,
 * latency_us). CONN_WANT_READ or _WRITE: call again when the socket is ready. CONN_FAILED: see dbha__conn_failure.
 */
enum conn_poll dbha__identity_answer(struct conn *conn, struct observation *observation);

#endif
