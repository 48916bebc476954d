/*
 * cancel: asks the server of one connection to stop what it does there, and knows whether a request may still be on its way.
 *
 * A cancel request names a session and not a statement: one that is late stops whatever that session does by then. So a
 * connection for which a request was made is used again only when the server is known to have acted on it. Whoever sends
 * the request waits for the server to close the connection it came by, which the server does after it has signalled the
 * session (twice: the process and its group, so that an answer to the first signal is no proof); a session takes a signal at the
 * latest when it reads its next message, and drops it there. So what is sent after that close is safe from it.
 */
#ifndef DBHA_WIRE_CANCEL_H
#define DBHA_WIRE_CANCEL_H

#include <stdbool.h>

struct conn;

/* How many requests of a connection are in doubt. Shared by the connection and its requests, which may outlive it. */
struct cancel_count;
struct cancel_count *dbha__cancel_count_new(void);
void dbha__cancel_count_drop(struct cancel_count *count); /* NULL is allowed */

/*
 * A request to stop what `conn` is doing. NULL: there is nothing to stop, or no memory. Ends with one of the two below. Does not
 * block. Any thread, while its owner uses the connection, as long as dbha__conn_close cannot run.
 */
struct conn_cancel;
struct conn_cancel *dbha__conn_cancel_new(const struct conn *conn);

/* Sends it, waits for the server to act, blocking for as long as the network likes, and frees it. */
void dbha__conn_cancel_run(struct conn_cancel *cancel);

/* Frees one that has not been sent. NULL is allowed. */
void dbha__conn_cancel_free(struct conn_cancel *cancel);

/* Whether a request may still reach the server. Any thread. */
bool dbha__conn_cancel_under_way(const struct conn *conn);

#endif
