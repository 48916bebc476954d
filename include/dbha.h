/*
 * dbha.h: the whole public interface of libdbha, a high-availability client library for PostgreSQL over libpq.
 *
 * A program opens one handle (`dbha`) for a cluster, from a multi-host URL, and calls it from any number of threads.
 * The library finds the primary and follows it, sends reads to standbys, pools connections per node, and says for
 * every failure whether the statement was executed, was not, or whether that cannot be known.
 *
 * Every comment below answers, in this order: what the function does; its parameters with unit, NULL rule and owner;
 * Returns; Errors (dbha_code, SQLSTATE); Threads; Blocking; Ownership; Fork. "Any thread" means: from any thread, at
 * any time between dbha_open and dbha_close, without a lock of the caller's. A NULL `dbha_error *` is always allowed.
 *
 * Time is in milliseconds, int. A timeout of 0 means the option `call_timeout`; there is no "for ever".
 */
#ifndef DBHA_H
#define DBHA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define DBHA_API __attribute__((visibility("default")))
#else
#define DBHA_API
#endif

/* The same declarations as in libpq-fe.h, which an application includes itself to read its results. */
typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;

/* ---------------------------------------------------------------------------------------------------------------
 * Errors
 */

/*
 * Every error code: name, number, default SQLSTATE, one sentence. Numbers are never changed or used again. SERVER
 * carries the SQLSTATE of the server; the others the one given here unless a more precise one is known.
 */
#define DBHA_ERROR_MAP(XX)                                                                                             \
	XX(OK, 0, "00000", "no error")                                                                                     \
	XX(USAGE, 1, "22023", "the call was made in a way that makes no sense, such as NULL for a handle")                 \
	XX(CONFIG, 2, "22023", "an option, a URL or an environment variable was refused")                                  \
	XX(MEMORY, 3, "53200", "out of memory")                                                                            \
	XX(TIMEOUT, 4, "57014", "the deadline of the call passed while its statement was running")                         \
	XX(NO_NODE, 5, "08001", "no node of the kind asked for could be reached before the deadline")                      \
	XX(POOL, 6, "53300", "no connection came free in the pool before its deadline, or too many callers wait")          \
	XX(LOST, 7, "08006", "the connection was lost and the statement was certainly not executed or rolled back")        \
	XX(UNKNOWN, 8, "08007", "the connection was lost and whether the statement was executed cannot be known")          \
	XX(SERVER, 9, "", "the server refused the statement; the SQLSTATE is the server's")                                \
	XX(SPLIT_BRAIN, 10, "08004", "two primaries on one timeline: writes are refused until one goes away")              \
	XX(FOREIGN, 11, "08004", "a host belongs to another cluster (another system identifier)")                          \
	XX(CLOSED, 12, "08003", "the handle is closed")                                                                    \
	XX(FORKED, 13, "08003", "the connection was inherited over fork() and belongs to the parent process")              \
	XX(SYSTEM, 14, "58000", "the operating system refused something the library needs, such as a thread")              \
	XX(ROLLED_BACK, 15, "40000", "the transaction was rolled back as a whole: it may be run again from its beginning") \
	XX(STATE_LOST, 16, "08006", "the session's connection was lost, and with it the state the session had set there")  \
	XX(CANCELED, 17, "57014", "the call was canceled by dbha_cancel")

typedef enum dbha_code {
#define DBHA_XX(name, number, sqlstate, text) DBHA_ERR_##name = number,
	DBHA_ERROR_MAP(DBHA_XX)
#undef DBHA_XX
	    DBHA_OK = 0
} dbha_code;

#define DBHA_NODE_NAME_MAX 136 /* "host:port", "host[address]:port" or "/socket/directory:port", with its NUL */
#define DBHA_MESSAGE_MAX   840
#define DBHA_WHY_MAX       256

/*
 * What went wrong. Owned by the caller, of fixed size, written by every call that fails; no call allocates to report
 * an error. A call that succeeds leaves it untouched. `message` never holds a password.
 */
typedef struct dbha_error {
	int32_t code;                  /* a dbha_code */
	char sqlstate[6];              /* five characters and NUL */
	bool retry_safe;               /* the work was certainly not done: the caller may do it again */
	bool outcome_unknown;          /* the work may have been done; do not repeat it unless it is idempotent */
	int32_t attempts;              /* how many times the statement was sent to a server */
	char node[DBHA_NODE_NAME_MAX]; /* the node concerned, or "" */
	char message[DBHA_MESSAGE_MAX];
} dbha_error;

/*
 * dbha_code_name: the name of an error code, such as "NO_NODE".
 * code: a dbha_code. Returns: a constant string; "?" for a number that is no code.
 * Errors: none. Threads: any. Blocking: no. Ownership: the string is the library's. Fork: no effect.
 */
DBHA_API const char *dbha_code_name(int code);

/*
 * dbha_version: the version of the library at run time, such as "0.1.0".
 * Returns: a constant string. Errors: none. Threads: any. Blocking: no. Ownership: the library's. Fork: no effect.
 */
DBHA_API const char *dbha_version(void);

/* ---------------------------------------------------------------------------------------------------------------
 * Configuration
 *
 * Precedence, highest first: dbha_config_set; the URL or conninfo text; the environment DBHA_* (library options
 * only); where no text is given, DATABASE_URL, else DB_HOST DB_PORT DB_NAME DB_USER DB_PASS; libpq's own PG*
 * variables and service file; defaults. The README has the table of options.
 */
typedef struct dbha_config dbha_config;

/*
 * dbha_config_new: reads a URL or a conninfo text, and the environment, into a configuration.
 * conninfo: "postgresql://u:p@h1:5432,h2/db?...", any "postgresql+DRIVER://", "postgres://", or "host=h1,h2 ..."; NULL
 *   or "" takes DATABASE_URL or DB_* from the environment. Borrowed for the call.
 * err: filled on failure; may be NULL.
 * Returns: a new configuration, or NULL.
 * Errors: CONFIG with the option's name, its value and what is accepted; MEMORY.
 * Threads: any (reads the environment: no setenv at the same time). Blocking: reads libpq's service file only.
 * Ownership: the caller frees it with dbha_config_free. Fork: plain memory, usable in a child.
 */
DBHA_API dbha_config *dbha_config_new(const char *conninfo, dbha_error *err);

/*
 * dbha_config_set: sets one option, of the library or of libpq, over whatever was there.
 * config: not NULL. name, value: not NULL, borrowed. Units as PostgreSQL writes them: "200ms", "5s", "1min".
 * Returns: DBHA_OK or an error code. Errors: CONFIG (unknown option, bad value: the option keeps its old value), USAGE,
 *   MEMORY. Two options that contradict each other are refused later, by dbha_open_config.
 * Threads: one at a time per configuration. Blocking: no. Ownership: copies both strings. Fork: plain memory.
 */
DBHA_API int dbha_config_set(dbha_config *config, const char *name, const char *value, dbha_error *err);

/*
 * dbha_config_get: the value an option has now, as text.
 * config, name: not NULL. Returns: the text, or NULL where the option is unknown or not set. "password" and
 *   "sslpassword" answer "********" where set.
 * Errors: none. Threads: one at a time per configuration. Blocking: no.
 * Ownership: the configuration's, valid until the next call with it. Fork: plain memory.
 */
DBHA_API const char *dbha_config_get(dbha_config *config, const char *name);

/*
 * dbha_config_free: frees a configuration; NULL is allowed. Handles opened from it keep their own copy.
 * config: from dbha_config_new, or NULL. Returns: nothing. Errors: none. Threads: one. Blocking: no.
 * Ownership: takes it. Fork: plain memory.
 */
DBHA_API void dbha_config_free(dbha_config *config);

/*
 * An option of the library, for programs that print or complete them: dbha_option(0), dbha_option(1), ... until NULL.
 */
typedef struct dbha_option_info {
	const char *name;          /* as in the URL; DBHA_ and the name in capitals in the environment */
	const char *type;          /* "time", "time or size", "integer", "enum", "text" */
	const char *default_value; /* as text, with its unit */
	const char *accepted;      /* what is accepted, for people: "1ms to 1d" */
	const char *text;          /* what it does, one sentence or two */
} dbha_option_info;

/*
 * dbha_option: describes the library's options, one after the other.
 * index: 0 and up. Returns: the option, or NULL past the last one. Errors: none. Threads: any. Blocking: no.
 * Ownership: constant. Fork: no effect.
 */
DBHA_API const dbha_option_info *dbha_option(int index);

/* ---------------------------------------------------------------------------------------------------------------
 * The handle
 */
typedef struct dbha dbha;

/*
 * dbha_open: dbha_config_new and dbha_open_config in one.
 * conninfo: as in dbha_config_new; may be NULL. err: may be NULL. Returns: a handle, or NULL.
 * Errors: CONFIG, MEMORY, SYSTEM. Threads: any. Blocking: reads fence_file, if set; nothing is connected before the first other call on the handle, which also
 *   starts its one background thread (none with monitor=off). That first call of a process, whichever it is, may also fail with CONFIG
 *   (fence_file cannot be read), SYSTEM (no thread, no descriptor) or MEMORY.
 * Ownership: the caller ends it with dbha_close. Fork: a handle may be opened before fork(); in the child it starts anew.
 */
DBHA_API dbha *dbha_open(const char *conninfo, dbha_error *err);

/*
 * dbha_open_config: opens a handle from a configuration.
 * config: not NULL, borrowed for the call. Returns: a handle, or NULL.
 * Errors: CONFIG (options that contradict each other; a file that cannot be read or made), USAGE, MEMORY, SYSTEM.
 * Threads: one at a time per configuration. Blocking: reads fence_file, if set. Ownership: as dbha_open. Fork: as dbha_open.
 */
DBHA_API dbha *dbha_open_config(const dbha_config *config, dbha_error *err);

/*
 * dbha_close: refuses new calls, lets running ones finish for a while, then cuts their connections and frees the handle.
 * h: may be NULL. drain_ms: how long running calls and leases may go on, in ms; 0: cut them at once.
 * Returns: nothing. Errors: none; calls of other threads that are cut fail with CLOSED or as a lost connection does.
 * Threads: once per handle; other threads may be inside calls, none may begin one afterwards. Blocking: up to drain_ms and
 *   the few ms it takes to stop the thread. A lease still held is cut; it must still be given back with dbha_release,
 *   and the last release frees the memory of the handle.
 * Ownership: takes h. Fork: in a child closes the child's copy only; the parent's connections see nothing of it.
 */
DBHA_API void dbha_close(dbha *h, int drain_ms);

/* ---------------------------------------------------------------------------------------------------------------
 * Statements
 */

/* What the caller means to do; it decides where the statement may go and whether it may be run again. */
typedef enum dbha_intent {
	DBHA_DEFAULT = 0, /* nothing said: the node that `target_session_attrs` names; treated as a write for retries */
	DBHA_READ = 1,    /* changes nothing: a standby if there is one, else the primary; may be run again */
	DBHA_WRITE = 2    /* the primary */
} dbha_intent;

/*
 * How fresh a read has to be: an option of the handle (`consistency`), of a session, and of the single call, the last one that is named
 * counts. It says nothing about writes, and nothing inside a transaction after its first statement. See docs/consistency.md.
 */
typedef enum dbha_consistency {
	DBHA_CONSISTENCY_DEFAULT = 0,  /* of a call: the session's; of a session: the handle's */
	DBHA_CONSISTENCY_SESSION = 1,  /* a session sees what it has written, and never goes back behind what it has seen */
	DBHA_CONSISTENCY_BOUNDED = 2,  /* not older than max_lag */
	DBHA_CONSISTENCY_EVENTUAL = 3, /* whatever a standby has */
	DBHA_CONSISTENCY_PRIMARY = 4   /* the primary's */
} dbha_consistency;

/* Why a statement went where it did: name, number, the word that dbha_reason_name gives, one sentence. Numbers are never used again. */
#define DBHA_REASON_MAP(XX)                                                                                            \
	XX(NONE, 0, "none", "it went nowhere")                                                                             \
	XX(WRITE, 1, "write", "it writes, or may: the primary")                                                            \
	XX(TARGET, 2, "target", "nothing was said of it: the node that target_session_attrs names")                        \
	XX(TRANSACTION, 3, "transaction", "the connection of the transaction it is in")                                    \
	XX(PINNED, 4, "pinned", "the connection that its session is pinned to")                                            \
	XX(CONSISTENCY, 5, "consistency", "a read, with consistency=primary")                                              \
	XX(READ, 6, "read", "a read, which any standby may serve")                                                         \
	XX(SAME, 7, "same", "a read, on the standby that the session has read from before")                                \
	XX(REPLAYED, 8, "replayed", "a read, on a standby that is known to have replayed the token")                       \
	XX(GUARDED, 9, "guarded", "a read, on a standby that has said with it that it has replayed the token")             \
	XX(BEHIND, 10, "behind", "a read, on the primary: no standby is known to have replayed the token")                 \
	XX(UNPLACED, 11, "unplaced", "a read, on the primary: how far the session has seen is not known otherwise")        \
	XX(NO_STANDBY, 12, "no-standby",                                                                                   \
	   "a read, on the primary: no standby can be used, or all lag by more than max_lag")                              \
	XX(REFUSED, 13, "refused", "not a read after all: a standby has refused it, and it went to the primary")

typedef enum dbha_reason {
#define DBHA_XX(name, number, word, text) DBHA_REASON_##name = number,
	DBHA_REASON_MAP(DBHA_XX)
#undef DBHA_XX
} dbha_reason;

/*
 * dbha_reason_name: the word for a reason: "replayed". dbha_reason_text: its sentence.
 * reason: a number. Returns: a constant string, "?" for a number that means nothing. Errors: none. Threads: any. Blocking: no.
 * Ownership: the library's. Fork: no effect.
 */
DBHA_API const char *dbha_reason_name(int reason);
DBHA_API const char *dbha_reason_text(int reason);

#define DBHA_TOKEN_MAX 64 /* the longest token, with its NUL */

/*
 * Where a statement went, and why. The caller sets `size` and gives its address in the request; it is written before the call returns,
 * also where that fails. With a stream it is of the call that began it.
 */
typedef struct dbha_result_route {
	size_t size;
	int32_t
	    intent; /* a dbha_intent: what it was taken for in the end; routing=auto has decided where the caller had not */
	int32_t reason;   /* a dbha_reason */
	int32_t role;     /* a dbha_role: of the node as it was last seen */
	int32_t attempts; /* how many times it was sent to a server; a standby that had not replayed the token counts */
	int64_t lag_ms;   /* of a standby, when it was seen last; 0 of the primary; -1: not known */
	int64_t lag_bytes;
	char node[DBHA_NODE_NAME_MAX]; /* the last one it went to; "" */
	char why
	    [DBHA_WHY_MAX]; /* what else there is to say, for people: what routing=auto took it for, what sent it elsewhere; "" */
	char token
	    [DBHA_TOKEN_MAX]; /* with DBHA_TOKEN and DBHA_OK: what it has written and seen, at least the request's; "": that is not known */
} dbha_result_route;

#define DBHA_IDEMPOTENT 0x1u /* the statement may be executed more than once: run it again when its fate is unknown */
#define DBHA_UNPREPARED 0x2u /* do not keep a prepared statement for this text */
#define DBHA_SERVER_TIMEOUT                                                                                            \
	0x4u /* the server gets the remaining time as statement_timeout; in a transaction it stays until its end */

#define DBHA_PIN                                                                                                       \
	0x8u /* in a session: the statement changes the state of its server session in a way that its text does not show */

/*
 * dbha_exec and dbha_submit: the route tells a token, which is asked for in the same round trip: whoever gives it to a read sees what this
 * one has written, or nothing older than what it has read. Where it is not known, `why` says so: the statement was done all the same, and the
 * carrier reads with DBHA_CONSISTENCY_PRIMARY, and this flag, until he has a token again. With an error there is none: he
 * keeps the one he had, and where the outcome is unknown he does the same.
 */
#define DBHA_TOKEN 0x10u

/*
 * One statement. Set `size` to sizeof(dbha_request), or use DBHA_REQUEST; members left out are 0 and mean the default.
 * Everything pointed to is borrowed until the call returns. Parameters are as in PQexecParams: `values[i]` NULL is SQL
 * NULL; `lengths` matters for binary values only; `formats[i]` is 0 for text, 1 for binary; `types` may be NULL.
 */
typedef struct dbha_request {
	size_t size;
	const char *sql; /* one statement, with $1, $2 ... */
	dbha_intent intent;
	uint32_t flags; /* DBHA_IDEMPOTENT, DBHA_UNPREPARED, DBHA_SERVER_TIMEOUT, DBHA_PIN, DBHA_TOKEN */
	int timeout_ms; /* deadline for everything: DNS, connect, waiting, execution, retries. 0: call_timeout */
	int n_params;
	const unsigned *types; /* OIDs */
	const char *const *values;
	const int *lengths;
	const int *formats;
	int result_format; /* 0 text, 1 binary */
	int consistency;   /* a dbha_consistency, of a read */
	const char *token; /* a read sees at least what is behind it, and in a session every later one; NULL or "": none */
	dbha_result_route *route; /* filled in. NULL: not asked for */
} dbha_request;

/* DBHA_REQUEST(.sql = "SELECT 1", .intent = DBHA_READ): a request with its size set (C only). */
#define DBHA_REQUEST(...) ((dbha_request){.size = sizeof(dbha_request), __VA_ARGS__})

/*
 * dbha_exec: runs one statement on the right node, with its own connection, again where that is certainly harmless.
 * h: not NULL. request: not NULL, borrowed. result: not NULL; set to NULL first, then to the server's result, also where
 *   the server refused the statement (for PQresultErrorField). err: may be NULL.
 * Returns: DBHA_OK or an error code.
 * Errors: SERVER; TIMEOUT (retry_safe where the server has said that it stopped the statement, outcome_unknown for a write where it has
 *   not); NO_NODE and POOL (never sent, retry_safe); LOST (not executed, retry_safe); UNKNOWN (08007, may have been executed:
 *   outcome_unknown); SPLIT_BRAIN; FOREIGN; CLOSED; USAGE; MEMORY; at the first call those of dbha_open.
 * Threads: any. Blocking: up to timeout_ms and at most 50 ms. Ownership: the caller frees the result with PQclear.
 * Fork: usable in a child, with connections of its own.
 */
DBHA_API int dbha_exec(dbha *h, const dbha_request *request, PGresult **result, dbha_error *err);

/* ---------------------------------------------------------------------------------------------------------------
 * Sessions
 *
 * A session is a logical connection for one user of the library: what a driver's connection object is. In a transaction
 * it holds one connection; outside, it takes one for each statement, wherever that has to go. A statement that changes
 * the state of its server session (SET, a temporary table, LISTEN, an advisory lock, a cursor WITH HOLD, PREPARE) pins
 * the session to its connection until it is closed or reset. See docs/sessions.md.
 *
 * A session is used by one thread at a time; dbha_cancel alone may be called by any thread.
 */
typedef struct dbha_session dbha_session;

/*
 * dbha_session_open: opens a session. Nothing is connected.
 * h: not NULL. err: may be NULL. Returns: a session, or NULL. Errors: USAGE, CLOSED, MEMORY, SYSTEM; at the first call on
 *   the handle those of dbha_open.
 * Threads: any. Blocking: no. Ownership: the caller ends it with dbha_session_close; it keeps the memory of the handle alive, but does
 *   not keep dbha_close from closing. Fork: in a child a session that held a connection has lost it; others go on, but not
 *   after dbha_close there: only the parent's sessions keep the memory of the parent's handle.
 */
DBHA_API dbha_session *dbha_session_open(dbha *h, dbha_error *err);

/*
 * dbha_session_close: ends a session. An open transaction is rolled back, and what the session has set on its connection is reset
 *   before another one gets it.
 * s: may be NULL. Returns: nothing. Errors: none. Threads: the session's. Blocking: no. Ownership: takes s.
 * Fork: in a child frees the child's copy only.
 */
DBHA_API void dbha_session_close(dbha_session *s);

/*
 * dbha_session_exec: runs one statement in a session: in its transaction, on the connection it is pinned to, or as dbha_exec does.
 *   BEGIN, COMMIT, ROLLBACK and SAVEPOINT as text work as the functions below do.
 * s: not NULL. request: not NULL, borrowed; in a transaction, or pinned, its intent decides nothing. result: not NULL, as in
 *   dbha_exec. err: may be NULL.
 * Returns: DBHA_OK or an error code.
 * Errors: those of dbha_exec; ROLLED_BACK (40000, retry_safe): the connection was lost in a transaction whose COMMIT had not been
 *   sent, all of it was rolled back, further statements fail with SERVER 25P02 until it is ended; STATE_LOST (08006): a
 *   pinned session lost its connection, every call fails until dbha_session_reset; CANCELED.
 * Threads: the session's. Blocking: up to timeout_ms and at most 50 ms. Ownership: the caller frees the result with PQclear.
 * Fork: see dbha_session_open.
 */
DBHA_API int dbha_session_exec(dbha_session *s, const dbha_request *request, PGresult **result, dbha_error *err);

/*
 * dbha_session_set_consistency: how fresh the session's reads have to be, from the next one on.
 * s: not NULL. consistency: a dbha_consistency; DEFAULT: the handle's. err: may be NULL. Returns: DBHA_OK or an error code.
 * Errors: USAGE; CONFIG: BOUNDED without max_lag. Threads: the session's. Blocking: no. Ownership: nothing changes hands. Fork: usable.
 */
DBHA_API int dbha_session_set_consistency(dbha_session *s, int consistency, dbha_error *err);

/*
 * dbha_session_token: what the session has written and seen, as a text for another session, in this process or elsewhere: whoever gives it to
 *   dbha_session_set_token, or in a dbha_request, sees at least that much. Letters, digits and dots: it fits a cookie or an HTTP
 *   header. It is no secret and no proof: who changes it changes what he reads himself.
 * s: not NULL, not in a transaction (so there is none of a dbha_transaction). token: not NULL, DBHA_TOKEN_MAX bytes; set to "" where there is nothing to be seen yet. timeout_ms: 0:
 *   call_timeout. err: may be NULL.
 * Returns: DBHA_OK or an error code: then token is "". Errors: USAGE, STATE_LOST; those of dbha_exec where a server has to be asked: after
 *   reads from a standby, which are not on the token yet, and after what the session did before its first read.
 * Threads: the session's. Blocking: after writes not at all, else up to timeout_ms. Ownership: the caller's memory.
 * Fork: in a child the session knows what it knew in the parent.
 */
DBHA_API int dbha_session_token(dbha_session *s, char token[DBHA_TOKEN_MAX], int timeout_ms, dbha_error *err);

/*
 * dbha_session_set_token: from now on the session's reads see at least what is behind the token, beside what they would see anyway.
 * s: not NULL. token: from dbha_session_token, borrowed; NULL or "": no change. err: may be NULL.
 * Returns: DBHA_OK or an error code: then nothing has changed. Errors: USAGE: no token, or a damaged one; FOREIGN: of another cluster; where
 *   the cluster has not been looked at yet, it is the first read that fails with it.
 * Threads: the session's. Blocking: no. Ownership: nothing changes hands. Fork: usable.
 */
DBHA_API int dbha_session_set_token(dbha_session *s, const char *token, dbha_error *err);

/* Isolation levels. DEFAULT: the server's default_transaction_isolation. */
typedef enum dbha_isolation {
	DBHA_ISOLATION_DEFAULT = 0,
	DBHA_READ_COMMITTED = 1,
	DBHA_REPEATABLE_READ = 2,
	DBHA_SERIALIZABLE = 3
} dbha_isolation;

/* A transaction. Set `size`, or use DBHA_TRANSACTION; members left out are 0 and mean the default. */
typedef struct dbha_transaction_options {
	size_t size;
	int isolation; /* a dbha_isolation */
	int read_only; /* 1: READ ONLY, on a standby if there is one; SERIALIZABLE, which a standby does not have, on the primary */
	int deferrable;   /* 1: DEFERRABLE, for SERIALIZABLE READ ONLY */
	int timeout_ms;   /* of the call it is given to; 0: call_timeout */
	int attempts_max; /* dbha_transaction: how often it is run at most; 0: until the deadline */
} dbha_transaction_options;

#define DBHA_TRANSACTION(...) ((dbha_transaction_options){.size = sizeof(dbha_transaction_options), __VA_ARGS__})

/*
 * dbha_session_begin: begins a transaction. Nothing is sent: BEGIN travels with the first statement, which is therefore run again
 *   elsewhere where its connection is lost, as a statement on its own is.
 * s: not NULL. options: may be NULL; its timeout_ms means nothing here. err: may be NULL. Returns: DBHA_OK or an error code.
 * Errors: USAGE (also in a transaction: SQLSTATE 25001), STATE_LOST, CLOSED. Threads: the session's. Blocking: no.
 * Ownership: nothing changes hands. Fork: the transaction is the process's that began it.
 */
DBHA_API int dbha_session_begin(dbha_session *s, const dbha_transaction_options *options, dbha_error *err);

/*
 * dbha_session_commit: commits. Where the connection is lost meanwhile, the cluster is asked what became of the transaction, within the same
 *   deadline (docs/outcome.md).
 * s: not NULL. timeout_ms: 0: call_timeout. err: may be NULL. Returns: DBHA_OK (it is committed) or an error code. The transaction has
 *   ended in either case.
 * Errors: ROLLED_BACK (retry_safe): it is not committed and never will be; SERVER with the server's SQLSTATE for the same (40001, a
 *   deferred constraint); UNKNOWN (08007, outcome_unknown): cannot be known, with xid and LSN in the message; USAGE (25P01)
 *   outside a transaction. Threads: the session's. Blocking: up to timeout_ms and at most 50 ms. Ownership: nothing changes hands.
 * Fork: see dbha_session_begin.
 */
DBHA_API int dbha_session_commit(dbha_session *s, int timeout_ms, dbha_error *err);

/*
 * dbha_session_rollback: rolls back. Succeeds also where the connection is lost: the server rolls back by itself.
 * s: not NULL. timeout_ms: 0: call_timeout. err: may be NULL. Returns: DBHA_OK or an error code. Errors: USAGE (25P01) outside a transaction;
 *   STATE_LOST where the session was pinned. Threads: the session's. Blocking: up to timeout_ms and at most 50 ms.
 * Ownership: nothing changes hands. Fork: see dbha_session_begin.
 */
DBHA_API int dbha_session_rollback(dbha_session *s, int timeout_ms, dbha_error *err);

/*
 * dbha_savepoint, dbha_savepoint_release, dbha_savepoint_rollback: SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO SAVEPOINT.
 * s: not NULL, in a transaction. name: not NULL, not empty; quoted by the library. timeout_ms: 0: call_timeout. err: may be NULL.
 * Returns: DBHA_OK or an error code. Errors: those of dbha_session_exec. Threads: the session's.
 * Blocking: up to timeout_ms and at most 50 ms. Ownership: nothing changes hands. Fork: see dbha_session_begin.
 */
DBHA_API int dbha_savepoint(dbha_session *s, const char *name, int timeout_ms, dbha_error *err);
DBHA_API int dbha_savepoint_release(dbha_session *s, const char *name, int timeout_ms, dbha_error *err);
DBHA_API int dbha_savepoint_rollback(dbha_session *s, const char *name, int timeout_ms, dbha_error *err);

/*
 * dbha_session_reset: makes a session as new: rolls an open transaction back, resets what it has set, unpins it, and acknowledges
 *   that a state was lost.
 * s: not NULL. err: may be NULL. Returns: DBHA_OK or an error code. Errors: USAGE. Threads: the session's. Blocking: no.
 * Ownership: nothing changes hands. Fork: usable in a child.
 */
DBHA_API int dbha_session_reset(dbha_session *s, dbha_error *err);

/* What a session is doing. */
typedef enum dbha_session_state {
	DBHA_SESSION_IDLE = 0,           /* no transaction */
	DBHA_SESSION_IN_TRANSACTION = 1, /* one that can go on */
	DBHA_SESSION_IN_ERROR = 2,       /* one that can only be rolled back */
	DBHA_SESSION_LOST = 3            /* its state was lost, see STATE_LOST */
} dbha_session_state;

/* A session as it is now. The caller sets `size`. */
typedef struct dbha_session_status {
	size_t size;
	int32_t state;      /* a dbha_session_state */
	int32_t pinned;     /* 1: bound to its connection by what it has set */
	char pinned_by[64]; /* for people: "settings, temporary tables"; "" */
	uint64_t xid; /* of the transaction that is open or was committed last, once it is known; 0: it wrote nothing */
	uint64_t lsn; /* position in the WAL behind its first write; 0: not known */
	int32_t backend_pid;           /* of the connection it holds; 0: none */
	char node[DBHA_NODE_NAME_MAX]; /* of that connection, or of the last statement's; "" */
} dbha_session_status;

/*
 * dbha_session_status_get: copies what is known of a session, without asking a server.
 * s: not NULL. out: not NULL, `size` set. err: may be NULL. Returns: DBHA_OK or an error code. Errors: USAGE. Threads: the session's.
 * Blocking: no. Ownership: the caller's memory. Fork: usable.
 */
DBHA_API int dbha_session_status_get(dbha_session *s, dbha_session_status *out, dbha_error *err);

/*
 * dbha_cancel: ends the call that another thread has in progress on a session: it stops waiting, or a cancel request is sent to the
 *   server. The call reports CANCELED, unless the server was done before. A COMMIT that has been sent is not canceled.
 * s: not NULL, not being closed meanwhile. err: may be NULL. Returns: DBHA_OK, also where nothing is in progress; or an error code.
 * Errors: USAGE. Threads: any. Blocking: no. Ownership: nothing changes hands. Fork: cancels nothing of the parent's.
 */
DBHA_API int dbha_cancel(dbha_session *s, dbha_error *err);

/*
 * What dbha_transaction runs. session: in the transaction, to be used with the functions above, but not begun, committed or rolled
 * back. attempt: 1, 2, ...: everything before was rolled back. Returns 0 to commit; anything else rolls back and, unless the last
 * error of the session says that running again helps, ends dbha_transaction.
 */
typedef int (*dbha_transaction_function)(dbha_session *session, int attempt, void *argument);

/*
 * dbha_transaction: runs a function as a transaction, and again from its beginning where that helps: after 40001, 40P01, 25006, 57P01 to
 *   57P03, or a connection lost before COMMIT; with exponential backoff and full jitter, within the deadline and retry_budget. Never after
 *   a COMMIT whose fate is unknown.
 * h: not NULL. options: may be NULL; timeout_ms is for everything, 0: call_timeout. function: not NULL. argument: given to it.
 * err: may be NULL. Returns: DBHA_OK: committed; else an error code.
 * Errors: those of dbha_session_begin and dbha_session_commit; the error of the statement that made the function give up; ROLLED_BACK
 *   where it gave up without one. Threads: any; the function runs in the caller's. Blocking: up to timeout_ms, at most 50 ms, and whatever
 *   the function itself takes: once the deadline has passed its statements fail with TIMEOUT.
 * Ownership: nothing changes hands. Fork: usable in a child.
 */
DBHA_API int dbha_transaction(dbha *h, const dbha_transaction_options *options, dbha_transaction_function function,
                              void *argument, dbha_error *err);

/*
 * Large results and COPY. A result that is read row by row, and a COPY, are held in memory by neither side. They hold their connection until
 * their end; until then every other call with the session fails with USAGE, except dbha_session_finish, dbha_session_close,
 * dbha_session_reset, dbha_session_status_get and dbha_cancel. Each call has its own deadline; where that passes, the result is over.
 */

/*
 * dbha_session_query: begins a statement whose rows are fetched step by step. Returns when its first rows are there, or its end. Up to then it
 *   is run as dbha_session_exec does it, wherever that has to be, and again where that is harmless; afterwards it is not.
 * s: not NULL. request: not NULL, borrowed; it is not prepared, and DBHA_SERVER_TIMEOUT is refused. err: may be NULL.
 * Returns: DBHA_OK (fetch until NULL comes, or call dbha_session_finish), or an error code (there is nothing to fetch).
 * Errors: those of dbha_session_exec. Threads: the session's. Blocking: up to timeout_ms and at most 50 ms.
 * Ownership: nothing changes hands. Fork: the result is the process's that asked for it.
 */
DBHA_API int dbha_session_query(dbha_session *s, const dbha_request *request, dbha_error *err);

/*
 * dbha_session_fetch: the next rows: one (PGRES_SINGLE_TUPLE), or with libpq 17 some (PGRES_TUPLES_CHUNK). Behind them comes one result
 *   without rows, with the columns and the command tag (PGRES_TUPLES_OK or PGRES_COMMAND_OK): now the statement is done, and, outside
 *   a transaction, committed. Then comes NULL, and the session is free.
 * s: not NULL. timeout_ms: 0: call_timeout. rows: not NULL; set to NULL first, and to the server's result also where it reports an
 *   error. err: may be NULL.
 * Returns: DBHA_OK (with *rows NULL: that was all) or an error code: then the rows that came before are not all there are, and nothing more
 *   comes.
 * Errors: SERVER; TIMEOUT; LOST (it only reads: it may be asked again, from the beginning); UNKNOWN (a write); in a transaction
 *   ROLLED_BACK; in a pinned session STATE_LOST; CANCELED; USAGE where no result is being read. Threads: the session's.
 * Blocking: up to timeout_ms and at most 50 ms. Ownership: the caller frees *rows with PQclear. Fork: see dbha_session_query.
 */
DBHA_API int dbha_session_fetch(dbha_session *s, int timeout_ms, PGresult **rows, dbha_error *err);

/*
 * dbha_session_finish: gives up what is still to come of a result or a COPY. A short rest is read to its end; else the server is asked to
 *   stop, and what does not end soon is closed with its connection. Outside a transaction, what became of a statement that writes is not
 *   told: fetch to the end to know. A COPY FROM STDIN keeps nothing. In a transaction the server's answer to that is an error, as
 *   any other: the transaction, or what came behind the last savepoint, has to be rolled back.
 * s: not NULL. err: may be NULL. Returns: DBHA_OK, also where nothing is in progress; or an error code: the session is free nonetheless.
 * Errors: in a transaction SERVER (57014: it has failed) and ROLLED_BACK (its connection was closed); in a pinned session STATE_LOST;
 *   USAGE, CLOSED. Threads: the session's. Blocking: at most 50 ms. Ownership: nothing changes hands. Fork: gives up nothing of the
 *   parent's.
 */
DBHA_API int dbha_session_finish(dbha_session *s, dbha_error *err);

/*
 * dbha_session_copy_in: begins a COPY ... FROM STDIN. Returns when the server waits for data.
 * s: not NULL. request: not NULL, borrowed; sql begins with the word COPY, there are no parameters, DBHA_SERVER_TIMEOUT is refused. err: may
 *   be NULL.
 * Returns: DBHA_OK (put, then end or finish) or an error code. Errors: those of dbha_session_exec; USAGE also where the statement was
 *   a COPY between the server and a file of its own, which has been executed then. Threads: the session's.
 * Blocking: up to timeout_ms and at most 50 ms. Ownership: nothing changes hands. Fork: the COPY is the process's that began it.
 */
DBHA_API int dbha_session_copy_in(dbha_session *s, const dbha_request *request, dbha_error *err);

/*
 * dbha_session_copy_put: gives data to the COPY in progress, cut wherever it is convenient. Little data is collected, and goes out
 *   with more, after a while, or with the end.
 * s: not NULL. data: `length` bytes, borrowed; NULL if that is 0. timeout_ms: 0: call_timeout. err: may be NULL.
 * Returns: DBHA_OK or an error code: the COPY is over, and nothing of it is kept.
 * Errors: SERVER (it may be about data that was put long before); TIMEOUT, LOST (retry_safe); in a transaction ROLLED_BACK; in a pinned session
 *   STATE_LOST; CANCELED; USAGE where no COPY is in progress. Threads: the session's.
 * Blocking: while the server is behind, up to timeout_ms and at most 50 ms. Ownership: nothing changes hands. Fork: see
 *   dbha_session_copy_in.
 */
DBHA_API int dbha_session_copy_put(dbha_session *s, const char *data, size_t length, int timeout_ms, dbha_error *err);

/*
 * dbha_session_copy_end: ends the COPY in progress. The session is free afterwards.
 * s: not NULL. refusal: NULL: what was put is complete; else why it is not to be kept, for the server's log. timeout_ms: 0: call_timeout.
 *   result: not NULL; set to NULL first, then to the server's result, whose command tag says how many rows there were; after a refusal
 *   to the server's error. err: may be NULL.
 * Returns: DBHA_OK (it is kept, and outside a transaction committed; or it is refused: outside a transaction nothing is kept, a transaction
 *   has failed) or an error code.
 * Errors: SERVER, nothing is kept; LOST and TIMEOUT with retry_safe, the end was not sent and nothing is kept; UNKNOWN (08007), and
 *   TIMEOUT with outcome_unknown: it was sent; in a transaction ROLLED_BACK; in a pinned session STATE_LOST; CANCELED; USAGE where no
 *   COPY is in progress. Threads: the session's. Blocking: up to timeout_ms and at most 50 ms.
 * Ownership: the caller frees the result with PQclear. Fork: see dbha_session_copy_in.
 */
DBHA_API int dbha_session_copy_end(dbha_session *s, const char *refusal, int timeout_ms, PGresult **result,
                                   dbha_error *err);

/*
 * dbha_session_copy_out: begins a COPY ... TO STDOUT. Returns when the server has begun to send.
 * s: not NULL. request: as in dbha_session_copy_in; DBHA_READ goes to a standby. err: may be NULL.
 * Returns: DBHA_OK (get until NULL comes, or finish) or an error code. Errors: those of dbha_session_copy_in. Threads: the session's.
 * Blocking: up to timeout_ms and at most 50 ms. Ownership: nothing changes hands. Fork: see dbha_session_copy_in.
 */
DBHA_API int dbha_session_copy_out(dbha_session *s, const dbha_request *request, dbha_error *err);

/*
 * dbha_session_copy_get: the next data of the COPY in progress: a whole row in the formats text and csv.
 * s: not NULL. timeout_ms: 0: call_timeout. data, length: not NULL; set to NULL and 0 first; data ends with a NUL that length does not
 *   count. err: may be NULL.
 * Returns: DBHA_OK (with *data NULL: that was all, the session is free) or an error code: then it was not all.
 * Errors: those of dbha_session_fetch. Threads: the session's. Blocking: up to timeout_ms and at most 50 ms.
 * Ownership: the caller frees *data with PQfreemem. Fork: see dbha_session_copy_in.
 */
DBHA_API int dbha_session_copy_get(dbha_session *s, int timeout_ms, char **data, size_t *length, dbha_error *err);

/* ---------------------------------------------------------------------------------------------------------------
 * Notifications
 *
 * A listener is LISTEN that survives a failover: it subscribes again on the primary of now, and tells its owner that something may have been
 * missed. It has no thread: all of it happens in the calls below. It holds one connection of the primary's pool while it listens to
 * anything. See docs/notifications.md.
 *
 * A listener is used by one thread at a time.
 */
typedef struct dbha_listener dbha_listener;

typedef enum dbha_notification_kind {
	DBHA_NOTHING = 0, /* there was none, see dbha_listener_next */
	DBHA_NOTIFY = 1,  /* what a NOTIFY has sent */
	DBHA_GAP = 2      /* the connection was lost and is back: what was sent in between may have been missed */
} dbha_notification_kind;

/* What dbha_listener_next gives. The caller sets `size`; the library writes at most that much. */
typedef struct dbha_notification {
	size_t size;
	int32_t kind;        /* a dbha_notification_kind */
	int32_t backend_pid; /* NOTIFY: of the server process that sent it */
	/* GAP: from the loss being noticed to being subscribed again. NOTHING: how long nothing could come; 0: all is well. */
	int64_t down_ms;
	const char *payload; /* NOTIFY: its text; else "". The listener's until its next dbha_listener_next or its end */
	char channel[64];    /* NOTIFY: its channel; else "" */
	char node[DBHA_NODE_NAME_MAX]; /* of the connection it came over; GAP: of the new one; "" where there is none */
	char text[DBHA_WHY_MAX]; /* GAP: what was lost, for people. NOTHING: why nothing could come; "": all is well */
} dbha_notification;

/*
 * dbha_listener_open: opens a listener. It listens to nothing yet, and nothing is connected.
 * h: not NULL. err: may be NULL. Returns: a listener, or NULL. Errors: USAGE, CLOSED, MEMORY, SYSTEM (no descriptor); at the first call on
 *   the handle those of dbha_open.
 * Threads: any. Blocking: no. Ownership: the caller ends it with dbha_listener_close; it keeps the memory of the handle alive, but does not
 *   keep dbha_close from closing. Fork: a listener is the parent's; in a child its calls fail with FORKED, and it can only be closed.
 */
DBHA_API dbha_listener *dbha_listener_open(dbha *h, dbha_error *err);

/*
 * dbha_listen: LISTEN on the primary. Returns when the server has confirmed: what is committed from then on is heard. From then on
 *   the channel is listened to on each later primary too.
 * l: not NULL. channel: not NULL, 1 to 63 bytes, quoted by the library, so that upper case and any character count; borrowed.
 *   timeout_ms: 0: call_timeout. err: may be NULL.
 * Returns: DBHA_OK, also where it is listened to already; or an error code: then the channel is not listened to, unless it was before.
 * Errors: NO_NODE, POOL, SPLIT_BRAIN, FOREIGN, TIMEOUT (all retry_safe); SERVER; USAGE (a name that is too long is refused, not cut);
 *   CLOSED, FORKED, MEMORY. Threads: the listener's. Blocking: up to timeout_ms. Ownership: nothing changes hands.
 * Fork: see dbha_listener_open.
 */
DBHA_API int dbha_listen(dbha_listener *l, const char *channel, int timeout_ms, dbha_error *err);

/*
 * dbha_unlisten: UNLISTEN. Of the channel nothing is given any more, whatever has come already; with the last channel the connection is
 *   given up, and a gap that is still owed is not told.
 * l: not NULL. channel: NULL: all of them; one that is not listened to is no error. timeout_ms: for the server to confirm; 0: call_timeout.
 *   err: may be NULL. Returns: DBHA_OK or an error code. Errors: TIMEOUT (nothing is given of it all the same); USAGE, CLOSED, FORKED.
 * Threads: the listener's. Blocking: up to timeout_ms. Ownership: nothing changes hands. Fork: see dbha_listener_open.
 */
DBHA_API int dbha_unlisten(dbha_listener *l, const char *channel, int timeout_ms, dbha_error *err);

/*
 * dbha_listener_next: gives the next notification, or gap, in order. While it waits, and whenever it is called, the connection is looked
 *   after: one that has ended, whose node is fenced or is not the primary any more, or that does not answer while its node does, is replaced,
 *   and all channels are subscribed again. Then, before anything that comes over the new connection, one GAP is given for each
 *   such loss. What this call cannot finish in time the next one goes on with.
 * l: not NULL. timeout_ms: how long to wait for one; 0: do not wait (unlike everywhere else). out: not NULL, `size` set. err: may be
 *   NULL.
 * Returns: 1: there was one; 0: there was none in time, `out` says in `down_ms` and `text` whether one could have come; -1: an error.
 * Errors: CLOSED, FORKED, USAGE. Being without a primary is none: it goes on looking for one.
 * Threads: the listener's. Blocking: up to timeout_ms (with monitor=off and an old view up to probe_timeout, not with timeout_ms 0).
 * Ownership: the caller's memory; `payload` is the listener's. Fork: see dbha_listener_open.
 */
DBHA_API int dbha_listener_next(dbha_listener *l, int timeout_ms, dbha_notification *out, dbha_error *err);

/*
 * dbha_listener_fd: a descriptor for a program with an event loop of its own: one for the listener's whole life, whatever becomes of its
 *   connections. Readable means: call dbha_listener_next with 0 ms (until it returns 0, or once at each wake-up: it stays readable while there
 *   is more). It becomes readable also where the listener only wants to look after its connection, at least every 2 probe_intervals.
 *   For poll, epoll, select and the like, nothing else.
 * l: not NULL. err: may be NULL. Returns: the descriptor, or -1. Errors: SYSTEM (no descriptor is left; a system without epoll);
 *   USAGE, FORKED. Threads: the listener's; polled by any. Blocking: no. Ownership: the listener's, which closes it. Fork: of no use in a child.
 */
DBHA_API int dbha_listener_fd(dbha_listener *l, dbha_error *err);

/*
 * dbha_listener_close: ends a listener. Its connection is closed, not given to others: what was sent for it may still be on its way.
 * l: may be NULL. Returns: nothing. Errors: none. Threads: the listener's. Blocking: no. Ownership: takes l, its descriptor and the payload
 *   given last. Fork: in a child frees the child's copy only; the parent's connection sees nothing of it.
 */
DBHA_API void dbha_listener_close(dbha_listener *l);

/* ---------------------------------------------------------------------------------------------------------------
 * A connection of one's own for a while
 */
typedef struct dbha_conn dbha_conn;

/*
 * dbha_acquire: takes a connection to the right node out of the pool, for whatever dbha_exec does not cover.
 * h: not NULL. intent: as for a statement. timeout_ms: for DNS, connect and waiting; 0: call_timeout. err: may be NULL.
 * Returns: a lease, or NULL. Waiters are served in order of arrival.
 * Errors: NO_NODE, POOL, SPLIT_BRAIN, FOREIGN (all retry_safe); CLOSED, USAGE, MEMORY, SYSTEM.
 * Threads: any; a lease is used by one thread at a time. Blocking: up to timeout_ms; not at all if one is idle (with
 *   monitor=off it may first look at the cluster, up to probe_timeout).
 * Ownership: the caller gives it back with dbha_release. Fork: a lease is the parent's; in a child its connection is dead.
 */
DBHA_API dbha_conn *dbha_acquire(dbha *h, dbha_intent intent, int timeout_ms, dbha_error *err);

/*
 * dbha_conn_pq: the libpq connection of a lease. Do not call PQfinish or PQreset on it.
 * conn: not NULL. Returns: the connection, in blocking mode; NULL for NULL. Errors: none. Threads: the lease's.
 * Blocking: no; libpq's blocking calls on it have no deadline of ours. When the node is fenced its socket is shut down and
 *   the call in progress fails. Ownership: the lease's. Fork: in a child it is dead.
 */
DBHA_API PGconn *dbha_conn_pq(const dbha_conn *conn);

/*
 * dbha_conn_node: the name of the node a lease is connected to, as in the URL; with discover=dns with its address.
 * conn: not NULL. Returns: "host:port" or "host[address]:port"; NULL for NULL. Errors: none. Threads: the lease's. Blocking: no.
 * Ownership: valid until the lease is released. Fork: usable.
 */
DBHA_API const char *dbha_conn_node(const dbha_conn *conn);

/*
 * dbha_release: gives a connection back to the pool, or straight to the caller who has waited longest.
 * conn: may be NULL. Returns: nothing. An open transaction is rolled back, and if dbha_conn_pq was called, the session is made as it
 *   was (settings, temporary tables, advisory locks, LISTEN, cursors, prepared statements of the caller's); a connection that is
 *   busy, broken, or of an older generation of its node is closed instead. Errors: none.
 * Threads: the lease's. Blocking: no. Ownership: takes conn. Fork: in a child frees memory.
 */
DBHA_API void dbha_release(dbha_conn *conn);

/* ---------------------------------------------------------------------------------------------------------------
 * Batches
 *
 * Many statements that travel together: in one transaction, or each for itself. See docs/batch.md.
 */

/*
 * n statements. Set `size`, or use DBHA_BATCH; members left out are 0 and mean the default. Everything pointed to is borrowed until the
 * call returns. What comes back is written before it does, also where it fails.
 */
typedef struct dbha_batch_request {
	size_t size;
	/*
	 * In this order. Of each its size, sql, parameters, result_format and DBHA_UNPREPARED; what is left is the batch's. Each begins with
	 * SELECT, INSERT, UPDATE, DELETE, MERGE, WITH, VALUES or TABLE, and leaves nothing in its session.
	 */
	const dbha_request *requests;
	int n;              /* 0 (then nothing is done) to 1000000 */
	int each;           /* 0: all or nothing, one transaction. 1: each for itself, an error of one touches no other */
	dbha_intent intent; /* of all of them: with routing=auto and nothing said a read only where each of them is one */
	uint32_t flags;     /* DBHA_IDEMPOTENT (each of them), DBHA_UNPREPARED */
	int timeout_ms;     /* for all of it. 0: call_timeout */
	int consistency;    /* as in a dbha_request, of reads */
	const char *token;
	PGresult **results; /* n; NULL: not wanted. NULL in it: there is none. The caller frees each with PQclear */
	int *
	    codes; /* n; NULL: not wanted. UNKNOWN where it may have been executed; any other but OK: it certainly was not */
	int *failed; /* the first that failed; -1: none, or all of them and it was no one's error. NULL: not asked for */
	dbha_result_route *route; /* of the last connection. NULL: not asked for */
} dbha_batch_request;

/* DBHA_BATCH(.requests = requests, .n = 3): a batch with its size set (C only). */
#define DBHA_BATCH(...) ((dbha_batch_request){.size = sizeof(dbha_batch_request), __VA_ARGS__})

/*
 * dbha_batch: runs n statements on the right node, one behind the other, in one flush.
 *   each=0: one transaction, one round trip. An error of one is the error of the batch, in `err` with its index; codes has it there
 *   and ROLLED_BACK for the others, results only its own. A connection that is lost before the end was sent has done nothing: the
 *   batch goes again. Behind that it is UNKNOWN, unless with verify_commit the cluster can say, or it is DBHA_IDEMPOTENT.
 *   each=1: each is a transaction of its own, begun in this order. What was answered stays; what was certainly not begun goes on
 *   elsewhere. `err` is of the first that failed. What has to be sent again comes behind those that were on their way.
 * h: not NULL. batch: not NULL, borrowed. err: may be NULL.
 * Returns: DBHA_OK if each was done, else the code of the first that failed.
 * Errors: those of dbha_exec.
 * Threads: any. Blocking: up to timeout_ms and at most 50 ms. Ownership: the caller frees the results. Fork: as dbha_exec.
 */
DBHA_API int dbha_batch(dbha *h, const dbha_batch_request *batch, dbha_error *err);

/*
 * dbha_session_batch: the same in a session: in its transaction, on the connection that it is pinned to, or as dbha_batch does; a read of the
 *   session sees what the batch has written. In a transaction each=1 is refused, an error leaves it failed, and intent decides nothing.
 * s: not NULL. batch: not NULL, borrowed. err: may be NULL.
 * Returns: DBHA_OK if each was done, else the code of the first that failed.
 * Errors: those of dbha_session_exec. dbha_cancel ends it: of each=1 those that were not done then are CANCELED.
 * Threads: the session's. Blocking: up to timeout_ms and at most 50 ms. Ownership: the caller frees the results.
 * Fork: see dbha_session_open.
 */
DBHA_API int dbha_session_batch(dbha_session *s, const dbha_batch_request *batch, dbha_error *err);

/* ---------------------------------------------------------------------------------------------------------------
 * Asynchronous requests
 *
 * An engine carries many statements at a time over few connections: they are sent one behind the other, and none waits for the answer to
 * another. Each is a statement on its own, as with dbha_exec: with its own transaction, its own error, its own deadline, its own way
 * through a failover. Their order means nothing: what has to come behind something else is submitted when that has been answered.
 * Each accepted request is completed exactly once. See docs/engine.md.
 */
typedef struct dbha_engine dbha_engine;

/* Set `size`, or use DBHA_ENGINE_OPTIONS; members left out are 0 and mean the default. */
typedef struct dbha_engine_options {
	size_t size;
	int connections; /* at most, of each node, out of the handle's pools: 1 to 32; 0: 4 */
	int depth;       /* requests that are on their way on one connection, at most: 1 to 4096; 0: 64 */
	int queue;       /* requests that have not been sent, or whose completions nobody has fetched, at most; 0: 1024 */
	int thread;      /* 1: a thread of the library does the work; 0: the application does, with dbha_engine_step */
} dbha_engine_options;

#define DBHA_ENGINE_OPTIONS(...) ((dbha_engine_options){.size = sizeof(dbha_engine_options), __VA_ARGS__})

/*
 * dbha_engine_open: opens an engine. Nothing is connected.
 * h: not NULL. options: may be NULL; borrowed. err: may be NULL. Returns: an engine, or NULL.
 * Errors: USAGE; CLOSED, MEMORY, SYSTEM (always, but on Linux); at the first call on the handle those of dbha_open.
 * Threads: any. Blocking: no. Ownership: the caller ends it with dbha_engine_close; it keeps the memory of the handle alive, but does not keep
 *   dbha_close from closing. Fork: in a child it is dead: every call fails with FORKED, nothing is sent.
 */
DBHA_API dbha_engine *dbha_engine_open(dbha *h, const dbha_engine_options *options, dbha_error *err);

/*
 * dbha_submit: hands a request over. What is a transaction or a session to the server (BEGIN, SET, a temporary table, COPY, DDL) gets a connection
 *   to itself, and that is reset behind it, as with dbha_exec.
 * e: not NULL. request: not NULL; copied with everything it points to, `route` and DBHA_SERVER_TIMEOUT and DBHA_PIN are refused. tag: whatever
 *   the caller wants to find in the completion. err: may be NULL.
 * Returns: DBHA_OK: there will be a completion; or an error code: there will be none.
 * Errors: USAGE; POOL (`queue` of them wait: nothing was done, retry_safe); CLOSED, FORKED, MEMORY, FOREIGN (its token).
 * Threads: any. Blocking: no. Ownership: nothing is borrowed afterwards. Fork: FORKED.
 */
DBHA_API int dbha_submit(dbha_engine *e, const dbha_request *request, uint64_t tag, dbha_error *err);

/*
 * dbha_submit_batch: hands a batch over, each=0: n statements in one transaction, with one completion for all of them. It has a connection to
 *   itself while it is on its way. What dbha_batch says of an error, and of a lost connection, is true here as well.
 * e: not NULL. batch: not NULL; copied with everything it points to; n from 1 on, flags DBHA_TOKEN too; each=1 (use dbha_submit), `results`, `codes`,
 *   `failed` and `route` are refused. tag: as above. err: may be NULL.
 * Returns: DBHA_OK: there will be a completion; or an error code: there will be none.
 * Errors: those of dbha_submit; CONFIG (verify_commit=on, and it is no read).
 * Threads: any. Blocking: no. Ownership: nothing is borrowed afterwards. Fork: FORKED.
 */
DBHA_API int dbha_submit_batch(dbha_engine *e, const dbha_batch_request *batch, uint64_t tag, dbha_error *err);

/*
 * dbha_submit_cancel: gives up what was submitted with this tag. What has not been sent is completed with CANCELED; for what is being
 *   executed the server is asked to stop, once. There is one completion in any case, and it says what became of it.
 * e: not NULL. err: may be NULL. Returns: DBHA_OK, or an error code. Errors: USAGE (no request has this tag, or not any more); FORKED.
 * Threads: any. Blocking: no. Ownership: nothing changes hands. Fork: FORKED.
 */
DBHA_API int dbha_submit_cancel(dbha_engine *e, uint64_t tag, dbha_error *err);

/*
 * dbha_engine_fd: one descriptor for the engine's whole life, to be watched for reading. Without a thread of the library it is readable when
 *   dbha_engine_step has something to do, also because of the time; with one, when there are completions. It may be watched for its level or for
 *   edges; completions are then taken until there are none.
 * e: not NULL. err: may be NULL. Returns: the descriptor, or -1. Errors: USAGE, FORKED. Threads: any. Blocking: no.
 * Ownership: the engine's: do not read it, do not close it. Fork: FORKED.
 */
DBHA_API int dbha_engine_fd(dbha_engine *e, dbha_error *err);

/*
 * dbha_engine_step: does what can be done without waiting: sends, takes answers in, looks at deadlines.
 * e: not NULL, without a thread. wait_us: set to how long there is nothing to do but for what the descriptor tells, in us; -1: for ever; may be
 *   NULL, since the descriptor has that in it. err: may be NULL.
 * Returns: DBHA_OK or an error code. Errors: USAGE (also with a thread), FORKED. Threads: any, one at a time works. Blocking: no.
 * Ownership: nothing changes hands. Fork: FORKED.
 */
DBHA_API int dbha_engine_step(dbha_engine *e, int64_t *wait_us, dbha_error *err);

/* The end of a request. The caller sets `size`, and frees the results: with dbha_completion_clear, or of a single request with PQclear. */
typedef struct dbha_completion {
	size_t size;
	uint64_t tag;
	int32_t code;     /* a dbha_code */
	PGresult *result; /* as dbha_exec gives it: also where the server has refused the statement; else NULL */
	dbha_error error; /* with DBHA_OK all 0 */
	dbha_result_route route;
	PGresult **results; /* of a batch that was done: n_results of them, in its order; else NULL */
	int n_results;
	int failed; /* of a batch that was not: whose error it was, and `result`; -1: no one's */
} dbha_completion;

/*
 * dbha_next_completion: takes the oldest completion.
 * e: not NULL. out: not NULL, `size` set. timeout_ms: how long to wait for one; 0: not at all. Without a thread, who waits here steps
 *   the engine meanwhile. err: may be NULL.
 * Returns: 1: there was one; 0: not in time; -1: an error. Errors: USAGE, FORKED. After dbha_engine_stop those that are left can still be
 *   fetched. Threads: any; each completion goes to one of them. Blocking: up to timeout_ms. Ownership: the result becomes the caller's.
 * Fork: FORKED.
 */
DBHA_API int dbha_next_completion(dbha_engine *e, dbha_completion *out, int timeout_ms, dbha_error *err);

/*
 * dbha_completion_clear: frees the results of a completion, and leaves none in it.
 * completion: may be NULL; one that was filled by dbha_next_completion, or all 0 but its size. Returns: nothing. Errors: none.
 * Threads: any. Blocking: no. Ownership: the completion itself stays the caller's. Fork: any process.
 */
DBHA_API void dbha_completion_clear(dbha_completion *completion);

/*
 * dbha_engine_stop: takes nothing more, and ends what was accepted: within drain_ms as it ends by itself, then by force. What has not been
 *   sent by then is completed with CLOSED, what has been with LOST or UNKNOWN, as is true. Afterwards every completion is there to be fetched.
 * e: may be NULL. drain_ms: 0: at once. Returns: nothing. Errors: none. Threads: any, once. Blocking: up to drain_ms. Ownership: nothing changes
 *   hands. Fork: in a child nothing.
 */
DBHA_API void dbha_engine_stop(dbha_engine *e, int drain_ms);

/*
 * dbha_engine_close: dbha_engine_stop, if that has not been called, with all connections cut at once; and frees the engine with the completions that
 *   nobody has fetched.
 * e: may be NULL. Returns: nothing. Errors: none. Threads: once; no other call may be under way. Blocking: for the thread, a few ms.
 * Ownership: takes e. Fork: in a child frees the child's descriptors only.
 */
DBHA_API void dbha_engine_close(dbha_engine *e);

/* ---------------------------------------------------------------------------------------------------------------
 * Seen from inside
 */
typedef enum dbha_role { DBHA_ROLE_UNKNOWN = 0, DBHA_ROLE_PRIMARY = 1, DBHA_ROLE_STANDBY = 2 } dbha_role;

/* State of a node: name, number, the word that dbha_state_name gives, one sentence. Numbers are never used again. */
#define DBHA_STATE_MAP(XX)                                                                                             \
	XX(UNKNOWN, 0, "unknown", "not seen yet")                                                                          \
	XX(UP, 1, "up", "answers probes")                                                                                  \
	XX(SUSPECT, 2, "suspect", "something failed; its own probe will decide")                                           \
	XX(SILENT, 3, "silent", "accepts no connection or answers no probe in time")                                       \
	XX(DOWN, 4, "down", "refuses connections, or its address cannot be reached")                                       \
	XX(STARTING, 5, "starting", "the server is starting up, shutting down or in crash recovery (57P03)")               \
	XX(FULL, 6, "full", "every connection slot of the server is in use (53300)")                                       \
	XX(REFUSED, 7, "refused", "the server refuses us: password, pg_hba.conf, database or role")                        \
	XX(FENCED, 8, "fenced", "a primary of a lower timeline than the cluster has been seen on: never written to")       \
	XX(FOREIGN, 9, "foreign", "a server of another cluster (another system identifier)")                               \
	XX(DISK_FULL, 10, "disk-full", "answers, but a statement has just failed there for want of disk space (53100)")    \
	XX(ABSENT, 11, "absent", "its address is gone from the name server's answer: no new work (discover=dns)")

typedef enum dbha_state {
#define DBHA_XX(name, number, word, text) DBHA_STATE_##name = number,
	DBHA_STATE_MAP(DBHA_XX)
#undef DBHA_XX
} dbha_state;

/*
 * dbha_role_name, dbha_state_name: the word for a role or a state: "primary", "fenced".
 * role, state: a number. Returns: a constant string, "?" for a number that means nothing. Errors: none. Threads: any.
 * Blocking: no. Ownership: the library's. Fork: no effect.
 */
DBHA_API const char *dbha_role_name(int role);
DBHA_API const char *dbha_state_name(int state);

/* The cluster as the handle sees it now. The caller sets `size`; the library writes at most that much. */
typedef struct dbha_cluster_status {
	size_t size;
	uint64_t system_identifier; /* 0: not known yet */
	uint32_t timeline;          /* the highest one seen on any node; 0: none yet */
	int32_t primary;            /* index of the primary a write would go to, or -1 */
	int32_t nodes;              /* how many dbha_status gives; with discover=dns, vacant places between them count */
	bool split_brain;           /* two primaries on one timeline */
	uint64_t version;           /* goes up whenever a statement may be routed differently */
	char fence_trouble[DBHA_WHY_MAX]; /* why fence_file does not hold what is known; "": it does, or is not set */
} dbha_cluster_status;

/* One node as the handle sees it now, and the state of its pool. The caller sets `size`. */
typedef struct dbha_node_status {
	size_t size;
	char name[DBHA_NODE_NAME_MAX];
	int32_t role;        /* a dbha_role, as last seen */
	int32_t state;       /* a dbha_state */
	uint32_t timeline;   /* 0: not known */
	uint64_t lsn;        /* a primary's write position, a standby's replay position; 0: not known */
	int64_t lag_ms;      /* age of what a standby has replayed; 0 on a primary; -1: not known */
	int64_t lag_bytes;   /* -1: not known */
	int64_t latency_us;  /* of the last probe that was answered; -1: none yet */
	int64_t seen_ms_ago; /* since the last answer; -1: never */
	uint64_t generation; /* of the connections that are valid now */
	int32_t pool_idle;
	int32_t pool_used;
	int32_t pool_connecting;
	int32_t pool_waiting;
	char why[DBHA_WHY_MAX];     /* the reason of the state, for people; "" if all is well */
	uint64_t system_identifier; /* 0: not known */
} dbha_node_status;

/*
 * dbha_status: copies the view of the cluster and its nodes, in the order of the URL. With discover=dns nodes come and go; each
 *   keeps its index as long as it is there, and an index where no node is has the name "" and the state ABSENT.
 * h: not NULL. cluster: not NULL, `size` set. nodes: an array of nodes_max elements, the first one's `size` set; may be
 *   NULL if nodes_max is 0.
 * Returns: how many nodes were written, or -1. Errors: USAGE, CLOSED.
 * Threads: any. Blocking: no (with monitor=off up to probe_timeout, where the view is old); call dbha_wait first to see the
 *   cluster probed once. Ownership: the caller's memory.
 * Fork: in a child everything is unknown until its own first call.
 */
DBHA_API int dbha_status(dbha *h, dbha_cluster_status *cluster, dbha_node_status *nodes, int nodes_max,
                         dbha_error *err);

/*
 * dbha_accept_cluster: accepts a cluster that was rebuilt, or restored under another system identifier: it takes the place of the one
 *   that fence_file remembers, for every process that shares the file. Those that run notice within a probe_interval.
 * h: not NULL, opened with fence_file. system_identifier: not 0; as dbha_status gives it for a node. err: may be NULL.
 * Returns: DBHA_OK or an error code. Errors: USAGE (also where fence_file is not set), CONFIG (the file cannot be read),
 *   SYSTEM (it cannot be written), CLOSED.
 * Threads: any. Blocking: for the file's lock, at most 2 s, and for writing it. Ownership: nothing changes hands.
 * Fork: usable in a child.
 */
DBHA_API int dbha_accept_cluster(dbha *h, uint64_t system_identifier, dbha_error *err);

/*
 * Counters: member name and what it counts, since the handle was opened. `dbha_stats` gives them for one node or for
 * all; those of calls that never reached a node are only in the sum.
 */
#define DBHA_STATS_MAP(XX)                                                                                             \
	XX(statements, "statements that a server answered")                                                                \
	XX(statement_errors, "statements that a server refused")                                                           \
	XX(retries, "attempts after the first one")                                                                        \
	XX(reroutes, "attempts that went to another node than the one before")                                             \
	XX(unknown_outcomes, "calls that ended with an unknown outcome")                                                   \
	XX(timeouts, "calls that ended at their deadline")                                                                 \
	XX(acquires, "connections handed out")                                                                             \
	XX(acquires_waited, "of these, after waiting")                                                                     \
	XX(wait_us, "microseconds spent waiting for a connection, in all")                                                 \
	XX(pool_refused, "acquires that failed: pool exhausted or too many waiters")                                       \
	XX(connects, "connections made")                                                                                   \
	XX(connects_failed, "connects that failed")                                                                        \
	XX(closed_broken, "connections closed because they broke")                                                         \
	XX(closed_generation, "connections closed because their node was fenced, restarted or left")                       \
	XX(closed_lifetime, "connections closed at the end of their lifetime")                                             \
	XX(closed_idle, "connections closed because nobody needed them")                                                   \
	XX(rollbacks, "transactions rolled back when their connection came back")                                          \
	XX(probes, "health probes answered")                                                                               \
	XX(probes_failed, "health probes that failed")                                                                     \
	XX(primary_changes, "times another node became the primary")                                                       \
	XX(events_dropped, "events nobody fetched in time")                                                                \
	XX(retries_refused, "statements not sent again because retry_budget was used up")                                  \
	XX(resets, "connections whose session had been changed and was reset when they came back")                         \
	XX(transactions, "transactions committed")                                                                         \
	XX(transactions_rolled_back, "transactions that ended otherwise")                                                  \
	XX(commits_resolved, "COMMITs whose answer was lost and whose outcome the cluster told")                           \
	XX(guards, "reads sent to a standby with the question how far it has replayed")                                    \
	XX(guards_behind, "of these, those it had not replayed far enough for")                                            \
	XX(not_reads, "reads that a standby refused and the primary executed")

typedef struct dbha_counters {
	size_t size;
#define DBHA_XX(name, text) uint64_t name;
	DBHA_STATS_MAP(DBHA_XX)
#undef DBHA_XX
} dbha_counters;

/*
 * dbha_stats: copies the counters.
 * h: not NULL. node: an index as in dbha_status, or -1 for the sum. out: not NULL, `size` set.
 * Returns: DBHA_OK or an error code. Errors: USAGE, CLOSED. Threads: any. Blocking: no. Ownership: the caller's memory.
 * Fork: a child counts from zero.
 */
DBHA_API int dbha_stats(dbha *h, int node, dbha_counters *out, dbha_error *err);

/* What dbha_wait waits for. */
typedef enum dbha_wait_for {
	DBHA_WAIT_PRIMARY = 0, /* a primary that takes writes */
	DBHA_WAIT_STANDBY = 1, /* a standby that serves reads */
	DBHA_WAIT_ANY = 2,     /* any node */
	DBHA_WAIT_ALL = 3,     /* every node up; with discover=dns, each address found */
	DBHA_WAIT_PROBED = 4   /* every node probed once, whatever came out */
} dbha_wait_for;

/*
 * dbha_wait: waits until the cluster is in a state.
 * h: not NULL. what: a dbha_wait_for. timeout_ms: 0: call_timeout. err: may be NULL.
 * Returns: DBHA_OK or an error code. Errors: NO_NODE (not in time, with the state of every node), SPLIT_BRAIN,
 *   CLOSED, USAGE. Threads: any. Blocking: up to timeout_ms. Ownership: nothing changes hands. Fork: usable in a child.
 */
DBHA_API int dbha_wait(dbha *h, dbha_wait_for what, int timeout_ms, dbha_error *err);

/* Kinds of events: name, number, word, one sentence. */
#define DBHA_EVENT_MAP(XX)                                                                                             \
	XX(PRIMARY, 1, "primary", "a primary was found, or another node became it")                                        \
	XX(NO_PRIMARY, 2, "no-primary", "the primary was lost and no other is known yet")                                  \
	XX(NODE, 3, "node", "a node changed its state or role")                                                            \
	XX(FENCED, 4, "fenced", "a primary of an older timeline was seen and shut out")                                    \
	XX(FOREIGN, 5, "foreign", "a host answered for another cluster")                                                   \
	XX(SPLIT_BRAIN, 6, "split-brain", "two primaries on one timeline")                                                 \
	XX(HEALED, 7, "healed", "the split brain ended")                                                                   \
	XX(RESTARTED, 8, "restarted", "a node restarted; its older connections were closed")                               \
	XX(FENCE_FILE, 9, "fence-file", "the fence file cannot be written or read, or can again; the text says which")     \
	XX(REROUTED, 10, "rerouted", "a statement went on to another node than the one it was tried on first")             \
	XX(LOST_WRITES, 11, "lost-writes", "a token is not in the history of the primary: writes were lost in a failover")

typedef enum dbha_event_kind {
#define DBHA_XX(name, number, word, text) DBHA_EVENT_##name = number,
	DBHA_EVENT_MAP(DBHA_XX)
#undef DBHA_XX
} dbha_event_kind;

/* Something that happened to the cluster. The caller sets `size`. */
typedef struct dbha_event {
	size_t size;
	int32_t kind;         /* a dbha_event_kind */
	int32_t node;         /* index of the node, or -1 */
	uint32_t timeline;    /* the cluster's, after it */
	int64_t unix_us;      /* wall clock, microseconds since 1970 */
	int64_t monotonic_us; /* CLOCK_MONOTONIC, for durations */
	char text[DBHA_WHY_MAX];
} dbha_event;

/*
 * dbha_event_name: the word for a kind of event: "primary".
 * kind: a number. Returns: a constant string, "?" for a number that means nothing. Errors: none. Threads: any.
 * Blocking: no. Ownership: the library's. Fork: no effect.
 */
DBHA_API const char *dbha_event_name(int kind);

/*
 * dbha_next_event: takes the oldest event out of the handle's queue, which holds the newest 256.
 * h: not NULL. event: not NULL, `size` set. Returns: 1 if there was one, 0 if not, -1 on error. Errors: USAGE, CLOSED.
 * Threads: any; each event goes to one of the callers. Blocking: no. Ownership: the caller's memory. Fork: empty in a child.
 */
DBHA_API int dbha_next_event(dbha *h, dbha_event *event, dbha_error *err);

#ifdef __cplusplus
}
#endif
#endif
