/*
 * call: what every public call that needs a connection has in common: its deadline, its place in the order of arrival, the
 * nodes that have failed it, and the way from an intent to a connection.
 */
#ifndef DBHA_CALL_H
#define DBHA_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "life.h"
#include "pool.h"
#include "route.h"
#include "sync.h"

/* What lets another thread end a call: see dbha_cancel. */
struct cancel {
	struct mutex lock;
	_Atomic bool asked;   /* of the call in progress */
	struct conn *running; /* under the lock: the connection its statement runs on; NULL: none, or not to be canceled */
	bool sent;            /* under the lock: a cancel request was sent for that */
};

/* Where a call is to go, and what that was decided on. */
struct decision {
	struct route route;
	uint64_t version; /* of the view it was made on */
	uint64_t generation;
};

struct call {
	dbha *h;
	dbha_intent intent;
	int64_t timeout_us;
	int64_t began_us; /* these two by dbha__call_set_deadline; 0 before */
	int64_t deadline;
	int64_t pool_deadline; /* of the wait for a connection; 0: it has not begun */
	uint64_t ticket;       /* taken when it has to wait; 0 before */
	uint32_t avoid;        /* nodes that have failed this call, see struct route_query */
	uint32_t behind;       /* nodes that have not replayed what this read has to see, likewise */
	int consistency;       /* a dbha_consistency, never DEFAULT: of a read */
	struct causal *causal; /* with SESSION: what has been seen, and is not to be unseen; NULL: nothing */
	/* How the last connection was come by. */
	bool guard; /* what it has replayed is to be asked with the read: whether it has `floor` */
	struct token floor;
	int64_t known_us; /* see struct route */
	enum dbha_reason reason;
	bool refused;      /* a standby has refused it, as no read: it is one for the primary */
	int64_t behind_us; /* when a standby was found behind first; 0: none was */
	int pauses;        /* backoffs taken */
	bool on_standby;   /* the last connection was to a standby */
	int last_node;     /* the last connection was to; -1: there was none */
	const char *last_name;
	int rounds;            /* connections it was tried on */
	int sent;              /* times the statement was sent */
	bool over_budget;      /* it would have been sent again, but retry_budget is used up */
	bool maybe_done;       /* an attempt that is being repeated may have been executed (only where that is allowed) */
	struct cancel *cancel; /* NULL: nobody can cancel it */
	char trouble[DBHA_WHY_MAX]; /* what went wrong last, for the message at the deadline */
};

/*
 * Begins. timeout_ms: 0 takes call_timeout. The deadline is set by dbha__call_set_deadline before anything that may block,
 * and the place in the order of arrival is taken where a connection has to be waited for.
 */
void dbha__call_begin(struct call *call, dbha *h, dbha_intent intent, int timeout_ms);

void dbha__call_set_deadline(struct call *call);

/* A connection to the right node, before the deadline; or NULL with `err` (not NULL) filled. */
struct dbha_conn *dbha__call_connection(struct call *call, dbha_error *err);

/* Of a call that can be canceled: its statement runs on this connection now; NULL: not any more. */
void dbha__call_running(struct call *call, struct conn *conn);

/* The node of a connection. */
int dbha__call_node(const struct call *call, const struct dbha_conn *slot);

/*
 * Pauses before the next attempt: exponential backoff with full jitter, cut short when the topology changes. False: the
 * deadline has passed.
 */
bool dbha__call_pause(struct call *call);

/* The same, so long. */
bool dbha__call_nap(struct call *call, int64_t us);

/* How long such a pause is. */
int64_t dbha__call_backoff_us(struct call *call);

/* At the deadline: no node was of the kind that is wanted. */
void dbha__call_found_none(struct call *call, dbha_error *err);

/* ---- the steps of it, for who does not wait (engine) ---- */

/* Where it is to go now. */
void dbha__call_decide(struct call *call, struct decision *decision);

/* The connection it gets was come by in this way. */
void dbha__call_note_route(struct call *call, const struct route *route);

/*
 * What is known of a standby is known of its life until now; a connection that is younger than that, or goes by way of a pooler, may lead to
 * another one: then it is to be asked with the read. False: nobody knows for what; the read is to be routed anew.
 */
bool dbha__call_is_of_known_life(struct call *call, const struct dbha_conn *slot);

/*
 * The standby has not replayed what the read has to see: another one is asked, or, within max_wait, the same again; else the primary serves
 * it. Where there is none, the standbys are all there is: they are asked until the deadline. True: after CALL_BEHIND_NAP_US.
 */
#define CALL_BEHIND_NAP_US ((int64_t)3000)
bool dbha__call_note_behind(struct call *call, int node, int64_t now);

/* A decision for no node. DBHA_OK: waiting for another view may help; else the code of the error reported in `err` (not NULL). */
int dbha__call_judge_route(struct call *call, const struct decision *decision, dbha_error *err);

/* The node could not be connected to: remembers why, and has all nodes looked at. */
void dbha__call_avoid(struct call *call, int node);

/*
 * Gives a connection back, after use. reusable: as far as the caller knows. What was left in the session, an open transaction too, is
 * undone without waiting for it.
 */
void dbha__call_return(dbha *h, struct dbha_conn *slot, bool reusable);

/*
 * Appends to a message, with "; " behind it, what fence_file has to do with there being no node, and what can be done. Returns the system
 * identifier of the cluster that the nodes belong to where it is another one than the file's; else 0.
 */
uint64_t dbha__call_describe_fence(dbha *h, char *message, size_t size);

/* Appends "NAME is STATE (why)" for every node to a message of `size`. */
void dbha__call_describe_nodes(dbha *h, char *message, size_t size);

#endif
