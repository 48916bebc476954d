/*
 * conn: one connection to one node. Connects without blocking, is cut, checked, and closed (also after fork).
 *
 * Never a lock: a conn belongs to one thread at a time. The exceptions are dbha__conn_cut and dbha__conn_cut_off, see there.
 */
#ifndef DBHA_WIRE_CONN_H
#define DBHA_WIRE_CONN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libpq-fe.h>

#include "config.h"
#include "overdue.h"
#include "topology.h"

struct cancel_count;
struct stmtcache;

struct conn {
	PGconn *pg;
	struct stmtcache *statements; /* NULL: nothing is prepared */
	/*
	 * A duplicate of libpq's descriptor. libpq closes its own when a connection breaks, and the number may be used again by
	 * another thread at once; what a second thread shuts down must be this one, which only dbha__conn_close closes.
	 */
	int guard_fd;
	bool patrolled; /* a long wait needs no timer, see overdue.h */
	overdue_word wait_until;
	struct cancel_count *cancels; /* of the requests to stop what it does, see cancel.h */
	/* Sends such a request on a thread of its own; false: it could not. NULL: none is ever sent. A floor up there are threads. */
	bool (*ask_to_stop)(const struct conn *conn);
	_Atomic bool uncancelable; /* what runs is a COMMIT: no request is sent at its deadline */
	bool late;          /* of the statement in progress: its deadline has passed, and the server was asked to stop */
	bool unreplicated;  /* of the same: it was committed, but its wait for a synchronous standby was broken off */
	bool direct;        /* the backend is the one libpq was told of: no pooler shares it with others */
	bool standby;       /* when it was asked last, the server was one */
	bool read_only_set; /* we have set default_transaction_read_only for this session */
	unsigned used;      /* enum session_use: what its user has left in the session */
	/* Nobody else may have it: a cancel request may still hit whatever runs here, or its server is not what it was taken for. */
	bool doubtful;
	bool guards_apart; /* its transactions keep the snapshot of their first statement, see flush.h */
	enum {
		SHARING_UNKNOWN,
		SHARING_ASKED,
		SHARING_YES,
		SHARING_NO,
	} sharing;           /* whether reads may share a transaction here, see dbha__pipe_guard */
	bool resetting;      /* a reset is under way, see reset.h */
	bool wants_reader;   /* the identity query in flight makes a standby's session read-only */
	bool basic_identity; /* the role may not read everything the identity query asks for */
	enum {
		IDENTITY_ASKED,
		IDENTITY_READ,
		IDENTITY_REFUSED,
	} identity; /* how far the answer to the identity query has come */
};

/* A patrol comes by at least this often; it is relied on for what ends later than two of them from now. */
#define CONN_PATROL_US ((int64_t)1000000)
/*
 * How long a server that was asked to stop at a deadline may take to say what has become of the statement. A call has to
 * return within 50 ms of its deadline, and 20 of these are for what comes before and after on a busy machine; a server
 * in the same region answers within a few.
 */
#define CONN_DRAIN_US  ((int64_t)30000)

enum conn_poll {
	CONN_WANT_READ,
	CONN_WANT_WRITE,
	CONN_READY,
	CONN_FAILED,
};

/*
 * Begins to connect to `node` of `config`, at `address` (numeric, or NULL where no name has to be resolved). Returns NULL
 * only when out of memory; any other failure comes out of the first poll. Does not block: names are resolved by the
 * caller, and only this one address is tried. statements: how many to keep prepared, 0: none.
 */
struct conn *dbha__conn_start(const struct config *config, const struct config_node *node, const char *address,
                              int statements);

/* Goes on connecting; call it when the socket is ready for what the last call wanted, the first time for writing. */
enum conn_poll dbha__conn_poll(struct conn *conn);

/* Whether the other side's kernel has accepted the connection. */
bool dbha__conn_reached(const struct conn *conn);

/* Why the connection failed or was lost, as a kind and as one line for people; never a password. */
enum failure dbha__conn_failure(const struct conn *conn, char *why, size_t size);

/* The first line of a message, without its end; libpq's have several. */
void dbha__conn_first_line(char *out, size_t size, const char *message);

/* libpq's socket, or -1. */
int dbha__conn_fd(const struct conn *conn);

/* The server's numeric address, "" for a Unix socket. */
const char *dbha__conn_address(const struct conn *conn);

/* Whether the other side has closed an idle connection. No round trip; one system call. */
bool dbha__conn_is_dead(struct conn *conn);

/* The same for a glance at many: without libpq, and without a word from the server being taken in. Does not block. */
bool dbha__conn_peer_closed(const struct conn *conn);

/*
 * Whether the server has told, with the reply to a statement, that it was promoted; true once. A promotion is reported as
 * in_hot_standby = off before the next ReadyForQuery (PostgreSQL 14 and newer). Behind a pooler it means nothing.
 */
bool dbha__conn_was_promoted(struct conn *conn);

/* The state a connection comes back in. */
enum conn_state {
	CONN_IDLE,           /* good for the next one */
	CONN_IN_TRANSACTION, /* alive, a transaction is open or failed */
	CONN_UNUSABLE,       /* broken, or a query is still running */
};

enum conn_state dbha__conn_state(const struct conn *conn);

/* CONN_IN_TRANSACTION: in one that has failed and can only be rolled back. */
bool dbha__conn_has_failed(const struct conn *conn);

/* The pid of its backend, as libpq was told it at connect. */
int dbha__conn_backend_pid(const struct conn *conn);

/* For a lease: libpq's blocking mode, as applications expect it. */
void dbha__conn_lend(struct conn *conn);

/* And back, with what the application may have hooked into the connection taken out: it must not run for others. */
void dbha__conn_take_back(struct conn *conn);

/*
 * Shuts the socket down at once, so that whoever waits on it wakes up with an error. Any thread, while the caller makes
 * sure that dbha__conn_close does not run. A system call that does not block.
 */
void dbha__conn_cut(struct conn *conn);

/*
 * The same for a server that is shut out: what has not reached it yet never will. Without this the kernel goes on
 * delivering, and a statement that was sent into a black hole would be executed when the old primary is back.
 */
void dbha__conn_cut_off(struct conn *conn);

/* Says good-bye and frees. Does not block. NULL is allowed. */
void dbha__conn_close(struct conn *conn);

/*
 * In a forked child: puts /dev/null in the place of the parent's socket, so that not a byte can reach the server. Only
 * async-signal-safe calls. Afterwards dbha__conn_close is harmless.
 */
void dbha__conn_abandon(struct conn *conn, int dev_null);

#endif
