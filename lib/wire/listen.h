/*
 * listen: LISTEN, UNLISTEN and what comes of them on one connection, without ever waiting. One command at a time is under way; the
 * notifications that the server sends meanwhile stay in libpq's queue, in order, also when the connection breaks.
 */
#ifndef DBHA_WIRE_LISTEN_H
#define DBHA_WIRE_LISTEN_H

#include <stdbool.h>

#include "channels.h"
#include "conn.h"
#include "dbha.h"

/* Why a server refused a command, or how a connection ended. */
struct refusal {
	char sqlstate[6];
	char message[DBHA_WHY_MAX];
};

/*
 * The command for everything that differs, as one transaction: all of it is done, or nothing. The caller frees it. NULL: out of memory
 * (no SQLSTATE), or a name that is no text in the connection's encoding (22021).
 */
char *dbha__listen_sql(struct conn *conn, const struct channels *channels, struct refusal *refusal);

/* Sends a command; "" is one that does nothing, and the answer to it tells that somebody is there. False: the connection broke. */
bool dbha__listen_send(struct conn *conn, const char *sql);

/* Takes in what the server has said. False: the connection broke; what came before can still be taken. */
bool dbha__listen_hear(struct conn *conn, struct refusal *refusal);

enum listen_answer {
	LISTEN_BUSY,
	LISTEN_UNSENT, /* busy, and the command is not out as a whole yet: ask again soon */
	LISTEN_DONE,
	LISTEN_REFUSED, /* by the server; nothing of it was done */
	LISTEN_BROKEN,
};

/* How far the command under way has come. */
enum listen_answer dbha__listen_answer(struct conn *conn, struct refusal *refusal);

/* The next notification; NULL: none has come. The caller frees it. */
PGnotify *dbha__listen_take(struct conn *conn);
void dbha__listen_free(PGnotify *notify); /* NULL is allowed */

#endif
