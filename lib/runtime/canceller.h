/*
 * canceller: sends the requests to stop a statement, each on a thread of its own, and waits for them where that matters.
 *
 * Sending one blocks while it connects, and the host may be a black hole; so each has a detached thread, few at a time. What a
 * request means for the statement is told by the server's answer to the statement, or by nobody.
 */
#ifndef DBHA_RUNTIME_CANCELLER_H
#define DBHA_RUNTIME_CANCELLER_H

#include <stdbool.h>
#include <stdint.h>

struct conn;
struct conn_cancel;

/*
 * Sends a cancel request for what runs on `conn`. False: it could not. Does not block. Any thread, while the connection's owner uses
 * it, as long as something (a lock of the caller's) keeps it from being closed; afterwards it may be closed at once. What is
 * stopped is whatever the session does when the request arrives: the connection may not be used for anything else before
 * dbha__canceller_settle has said so.
 */
bool dbha__canceller_send(const struct conn *conn);

/* The same for a request that was made before, under a lock. Takes it. NULL is allowed, and false. */
bool dbha__canceller_start(struct conn_cancel *cancel);

/* Waits until no request can reach the server any more, at most until `until`. False: one still may. */
bool dbha__canceller_settle(const struct conn *conn, int64_t until);

/* In a forked child: the threads that were running are not in this process. */
void dbha__canceller_reset_after_fork(void);

#endif
