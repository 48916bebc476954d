/*
 * canceller: asks a server to stop a statement whose caller has gone at its deadline.
 *
 * libpq's cancel request (before version 17) blocks while it connects, and the host may be a black hole; so each runs on a
 * detached thread of its own, few at a time, and nobody waits for it. It is a courtesy to the server: what it means for the
 * statement is not known either way.
 */
#ifndef DBHA_RUNTIME_CANCELLER_H
#define DBHA_RUNTIME_CANCELLER_H

struct conn;

/* Sends a cancel request for what runs on `conn`, which may be closed right afterwards. Does not block. */
void dbha__canceller_send(const struct conn *conn);

/* In a forked child: the threads that were running are not in this process. */
void dbha__canceller_reset_after_fork(void);

#endif
