/*
 * session: a logical connection, see dbha_session_open. It holds a real one (`slot`) while it is in a transaction that has begun on
 * the server, or is pinned by what it has set there; else it has none.
 */
#ifndef DBHA_SESSION_H
#define DBHA_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "outcome.h"
#include "statement.h"

/* Where a session is in its transaction. */
enum tx {
	TX_NONE,
	TX_BEGUN, /* dbha_session_begin was called; BEGIN goes with the first statement, and until then there is no connection */
	TX_OPEN,   /* on the server; it may have failed there, the connection knows */
	TX_FAILED, /* its first statement failed, and nothing is left of it on a server: it can only be rolled back */
	TX_LOST,   /* its connection is lost, and so everything was rolled back; the caller has been told, or is to be */
};

/* What is read or written step by step, see session_stream.c. */
struct streaming {
	enum stream_kind open; /* as the caller sees it: until he has been told the end, or has given it up */
	bool opening;          /* the statement of this call is to begin it */
	bool canceled;         /* a cancel request was sent for it */
	struct stream wire;
	/* Of its request, by which its end is judged. */
	char verb[24];
	dbha_intent intent;
	int attempts;
};

struct dbha_session {
	dbha *h;
	unsigned fork_generation; /* of the process whose reference to h this is */
	struct cancel cancel;
	struct dbha_conn *slot; /* NULL: holds none */
	enum tx tx;
	bool read_only;    /* the transaction */
	bool serializable; /* the transaction, as far as dbha_session_begin was told */
	bool notified;     /* the transaction has something that takes effect at COMMIT and leaves no mark before: NOTIFY */
	char begin[160];   /* the statement that begins it; "": not known, it was too long */
	unsigned used_before; /* what had been used of the connection before the transaction */
	struct xact_mark mark;
	struct streaming streaming;
	struct batch *batch;  /* what the statement of this call stands for; NULL: it is one */
	struct causal causal; /* what it has written and seen */
	int consistency;      /* a dbha_consistency; DEFAULT: the handle's */
	bool state_lost;
	char lost_state[64];  /* what it was, for people */
	int64_t deadline_cap; /* no call goes on beyond; 0: no such limit. See dbha_transaction */
	dbha_error last;      /* the error of the last call that failed, of the transaction of now */
	char cause[6];        /* the SQLSTATE of the error that the transaction failed with; "": it has not */
	char node[DBHA_NODE_NAME_MAX];
};

/* A session on somebody's stack, or in memory of its own. Takes a reference to h, which must be entered. */
int dbha__session_init(dbha_session *s, dbha *h, dbha_error *err);
void dbha__session_fini(dbha_session *s);

/*
 * Enters a public call of a session: follows a fork, enters the handle, refuses where the state was lost. Leave it with
 * dbha__session_leave. DBHA_OK, or the code of the error reported.
 */
int dbha__session_enter(dbha_session *s, const char *what, dbha_error *err);

/* The same for a call that goes on with what is open, which has to be of this kind. */
int dbha__session_enter_stream(dbha_session *s, const char *what, enum stream_kind kind, dbha_error *err);

/* Leaves; remembers the error of a call that failed. Returns `code`. */
int dbha__session_leave(dbha_session *s, int code, const dbha_error *err);

/* Holds this connection, or none; it stays with the session. */
void dbha__session_hold(dbha_session *s, struct dbha_conn *slot);

/* The connection has been given back by somebody else. */
void dbha__session_forget_slot(dbha_session *s);

/* Gives the connection back, if there is one; what was used of it is reset. */
void dbha__session_let_go(dbha_session *s, bool reusable);

/* After the connection was lost: what that means for the transaction and for what was set. */
void dbha__session_lost(dbha_session *s);

/* After a transaction has ended, or a statement outside one: gives the connection back unless the session is pinned to it. */
void dbha__session_settle(dbha_session *s);

/* Begins the statement of a session: its deadline, and who can cancel it. */
void dbha__session_statement(dbha_session *s, struct statement *st, const dbha_request *request, PGresult **result,
                             dbha_error *err);

/*
 * Before a statement that looks for its node: what it has to have seen; and if it may go to a standby, the session knows the positions of
 * what it does from now on. DBHA_OK, or the code of the error reported.
 */
int dbha__session_follow(dbha_session *s, struct statement *st);

/* The same for one on the connection that the session is pinned to, which cannot go anywhere else. */
int dbha__session_follow_pinned(dbha_session *s, struct statement *st);

/* Behind what ends with this statement on the primary, its position is asked for, if the session needs it. */
void dbha__session_place(const dbha_session *s, struct statement *st);

/* If the statement is to begin a stream, or stands for a batch: how. */
void dbha__session_opening(dbha_session *s, struct statement *st);

/* Forgets the stream, wherever it is. */
void dbha__session_end_stream(dbha_session *s);

/* Runs a step of the stream on the connection that is held, and follows it: after its end the session is as after any statement. */
int dbha__session_go_on(dbha_session *s, struct statement *st);

/* Opens a stream of this kind, not entered: all of dbha_session_query, dbha_session_copy_in and dbha_session_copy_out. */
int dbha__session_open_stream(dbha_session *s, const char *what, enum stream_kind kind, const dbha_request *request,
                              dbha_error *err);

/* A step on its way: its deadline, and what is known of the statement. */
void dbha__session_step(dbha_session *s, struct statement *st, dbha_request *request, int timeout_ms, PGresult **result,
                        dbha_error *err);

/* One statement, entered: dbha_session_exec and whatever is built on it. */
int dbha__session_run(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err);

/* The end of a transaction, entered. timeout_ms as in dbha_session_commit. */
int dbha__session_commit(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err);
int dbha__session_rollback(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err);

/* What a statement says of the transaction that it is in, before it is run. */
void dbha__session_note(dbha_session *s, const char *sql);

/* Nothing is known of the transaction that may begin now. */
void dbha__session_new_transaction(dbha_session *s);

/* Begins, entered; nothing is sent. */
int dbha__session_begin(dbha_session *s, const char *what, const dbha_transaction_options *options, dbha_error *err);

/* Before a transaction is run again, after so many pauses: with full jitter, as before every attempt. False: the time is up. */
bool dbha__session_pause(dbha_session *s, int pauses);

/* verify_commit=on: whether this statement is to be verified, and its way. */
bool dbha__verified_wanted(const dbha *h, const dbha_request *request);
int dbha__verified_run(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err);

/* The same for a batch outside of a session, within this deadline. */
int dbha__batch_verified(dbha *h, struct batch *b, int64_t deadline, PGresult **result, dbha_error *err);

#endif
