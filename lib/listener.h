/*
 * listener: what a dbha_listener is made of, and how it gets, keeps and replaces its connection.
 *
 * Nothing here waits but dbha__listener_wait: each public call steps the listener until it has what it was called for, or its
 * deadline has passed; what was under way goes on at the next call.
 */
#ifndef DBHA_LISTENER_H
#define DBHA_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

#include "channels.h"
#include "life.h"
#include "listen.h"
#include "poller.h"
#include "pool.h"
#include "view.h"
#include "wake.h"

/* Something for the owner, in the order in which it happened: a notification of a connection that is gone, or a gap. */
struct heard {
	struct heard *next;
	PGnotify *notify; /* NULL: a gap */
	const char *node;
	int64_t down_us;
	char text[DBHA_WHY_MAX];
};

struct dbha_listener {
	dbha *h;
	struct channels channels;
	unsigned fork_generation; /* of the process that opened it */
	struct wake wake;         /* the view has changed; a connection was handed to us; there is more to take */
	bool nudged;              /* the last of these: see dbha__listener_fd_arm */
	bool queued;              /* `place` stands in the queue of `pool` */
	bool talking;             /* a command is under way */
	bool checking;            /* it is not LISTEN: a look whether somebody is there, or the reset of the last user */
	bool fresh;               /* something was heard since `heard_us` */
	bool owed;                /* the owner has to be told of a gap, once everything is listened to again */
	struct view_watcher watcher;
	struct waiter place;
	struct pool *pool;

	struct dbha_conn *slot; /* NULL: there is no connection */
	uint64_t way;           /* the view's write_way when it was taken */
	const char *node_name;  /* of the last connection; lives as long as the handle */
	int64_t sent_us;
	int64_t heard_us;
	int64_t not_up_us;  /* when the view last said that the node may not be able to answer */
	int64_t settled_us; /* when everything wanted was confirmed on this connection; 0: not yet */
	int node;
	unsigned refusals;
	struct refusal refusal; /* of the command under way, or the last */

	char lost[DBHA_WHY_MAX];    /* how the connection ended that the gap is of */
	char trouble[DBHA_WHY_MAX]; /* why there is no connection, for people */
	int64_t down_since_us;      /* since when not everything wanted is listened to; 0: it is */
	int64_t retry_us;
	uint64_t version; /* of the view, when the pause began */
	int64_t timer_us; /* when to step again though nothing has happened */

	struct heard *first, *last;
	PGnotify *given; /* what `payload` of the owner's last notification points into */

	int tries;
	struct poller poller; /* of dbha_listener_fd; closed before */
};

/* Does what there is to do now, without waiting, and sets `timer_us`. */
void dbha__listener_step(dbha_listener *l, int64_t now);

/* Until there may be something to do, or until `deadline`. */
void dbha__listener_wait(dbha_listener *l, int64_t deadline);

/* The next one for the owner. False: there is none now. The caller owns what is in `heard`, and the notification. */
bool dbha__listener_take(dbha_listener *l, struct heard *heard);

/* Throws away what has come of channels that are not wanted any more. */
void dbha__listener_purge(dbha_listener *l);

/* Gives the connection, or the place in the queue, back: there is nothing left to listen to. */
void dbha__listener_let_go(dbha_listener *l);

/* How long an answer is waited for from a node that is up. */
int64_t dbha__listener_patience_us(const dbha_listener *l);

/* Says that the listener is not this process's. Returns the code. */
int dbha__listener_forked(dbha_error *err);

/* ---- the descriptor (listener_fd.c) -------------------------------------------------------------------------- */

/* The connection's socket joins, and leaves before it is closed. Nothing where nobody has asked for the descriptor. */
void dbha__listener_fd_attach(dbha_listener *l);
void dbha__listener_fd_detach(dbha_listener *l);

/* At the end of a call: the descriptor becomes readable at `timer_us`, and stays so while there may be more to take. */
void dbha__listener_fd_arm(dbha_listener *l, bool more);

void dbha__listener_fd_close(dbha_listener *l);

#endif
