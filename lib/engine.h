/*
 * engine: what a dbha_engine is made of. Many requests, few connections; see docs/engine.md.
 *
 *   engine.c          the public calls, and the thread that waits and steps, if there is one
 *   engine_request.c  a request: its copy, the queues it stands in, its alarm
 *   engine_lane.c     a connection of the engine: out of a pool, through its pipe, and back
 *   engine_step.c     the step: what has come, what is due, what can be sent
 *
 * A request is in one place at a time: handed over and not looked at yet; ready, to be sent as soon as there is room; parked, until a
 * moment or until the view changes; on its way in a lane; completed. Only the step moves it, and it holds `stepping`.
 */
#ifndef DBHA_ENGINE_H
#define DBHA_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "dbha.h"
#include "judgement.h"
#include "pipe.h"
#include "poller.h"
#include "sync.h"
#include "view.h"
#include "wake.h"

#define ENGINE_LANES_MAX 32
/* What takes longer than this is not to be waited for by those behind it. What a busy disk does to a commit now and then is to stay below. */
#define ENGINE_SLOW_US   ((int64_t)50000)

enum request_state {
	REQUEST_READY,
	REQUEST_PARKED,
	REQUEST_SENT,
	REQUEST_OVER,
};

/* A write that was refused with 25006, until it is known whether that is for good. */
struct refused {
	struct attempt attempt;
	struct judgement judged;
	struct second_look look;
};

struct request {
	struct request *next, *prev; /* of the list it is in */
	struct call call;
	dbha_request rq; /* what it points to lies behind this struct */
	struct causal causal;
	uint64_t tag;
	int64_t due_us; /* parked: until then */
	int64_t pool_deadline;
	int64_t alarm_us; /* when it has to be looked at */
	int heap_at;      /* its place in the heap of the alarms; -1: none */
	enum request_state state;
	struct lane *lane;       /* with REQUEST_SENT */
	struct refused *refused; /* parked because of that; else NULL */
	unsigned char group;     /* of its submitter, see struct ready */
	bool soils;              /* it may leave something behind on its connection, which is reset */
	bool alone;              /* it gets a connection to itself: because of that, or because it takes long */
	bool unprepared;         /* what was prepared for it was gone */
	bool late;               /* its deadline has passed, and the server was asked to stop it */
	bool canceled;           /* by dbha_submit_cancel */
	bool cancel_sent;
	/* With REQUEST_OVER. */
	int code;
	bool retry_safe, outcome_unknown; /* for when there is no memory for `error` */
	PGresult *result;
	dbha_error *error; /* NULL: none */
};

struct request_list {
	struct request *first, *last;
};

/*
 * Those that are ready. Fair: each thread that submits is in one of the groups, and the groups take turns, so that who submits a
 * thousand does not stand before who submits one.
 */
#define GROUPS 64

struct ready {
	struct request_list groups[GROUPS];
	uint64_t some; /* bit i: group i has any */
	unsigned turn;
	int n;
};

enum lane_state {
	LANE_NONE,
	LANE_ASKED,     /* in the queue of the pool */
	LANE_RESETTING, /* its last user's traces are being undone */
	LANE_OPEN,
};

struct lane {
	enum lane_state state;
	int node;
	struct waiter place;
	struct dbha_conn *slot;
	struct pipe pipe;
	int writes;      /* on their way here, that are not reads */
	bool held;       /* nothing more is sent, so that one that is to be alone gets its turn */
	bool alone;      /* what is on its way here is alone */
	bool closing;    /* nothing more is sent; when it is empty it goes back */
	bool canceled;   /* the server was asked to stop something here: it may have stopped something else */
	bool heard;      /* there is something to read */
	bool read;       /* in this step something was read */
	bool watched;    /* for becoming writable, too */
	int64_t head_us; /* since when the server is at the oldest, as far as can be known */
	int64_t idle_us; /* since when nothing is on its way here */
};

struct node_lanes {
	int64_t not_before_us; /* when a connection may be asked for again */
	bool failed;           /* because none could be made */
	uint64_t generation;   /* of the node, in the view of the last step */
	struct lane lanes[ENGINE_LANES_MAX];
};

/*
 * What is known of a text. Whether it soils its connection takes longer to find out than all else that is done with it before it is sent.
 * That it takes long is known once it has: from then on it is alone, so that nobody waits behind it, until it is quick again.
 */
#define MEMO_SIZE    64
#define MEMO_SQL_MAX 4096

struct memo {
	char *sql; /* NULL: none */
	bool soils;
	bool slow;
};

struct dbha_engine {
	dbha *h;
	int connections, depth, queue;
	bool threaded;
	unsigned fork_generation;
	struct wake wake; /* something was submitted, the view has changed, a pool has answered */
	struct wake told; /* threaded: there are completions */
	struct poller poller;

	struct mutex stepping;
	struct view_watcher watcher;
	uint64_t version; /* of the view, at the last step */
	int64_t now;
	struct node_lanes *nodes; /* one per place */
	struct ready ready
	    [3]; /* reads, others, those that are alone: where there is no room for the ones there may be for the others */
	struct request_list parked;
	struct request **heap; /* of all that are not over, by their alarm */
	int heap_n, heap_size;
	struct request_list over; /* of this step */
	int64_t sent;             /* in this step */
	bool aborting;            /* nothing goes again */
	struct memo memo[MEMO_SIZE];
	bool wake_heard; /* somebody has signalled */
	unsigned turn;

	struct mutex lock;
	struct cond news; /* there are completions, or nothing is left */
	struct request_list submitted, completed;
	int live;    /* submitted and not completed */
	bool closed; /* nothing more is taken */
	bool abort;  /* what is live is to end now */

	_Atomic bool watched; /* somebody has asked for the descriptor */
	_Atomic int waiting;  /* not sent, or not fetched */
	_Atomic bool stop;    /* the thread */
	bool running, stopped;
	pthread_t thread;
};

/* ---- engine_request.c ---- */

/* A copy. NULL with `err` filled. */
struct request *dbha__request_new(dbha *h, const dbha_request *rq, uint64_t tag, dbha_error *err);
void dbha__request_free(struct request *request);

/* What is known of a text. */
struct memo *dbha__memo_of(dbha_engine *e, const char *sql);

void dbha__request_append(struct request_list *list, struct request *request);
void dbha__request_remove(struct request_list *list, struct request *request);

/* first: before the others of its group, since it has had its turn. */
void dbha__ready_add(struct ready *ready, struct request *request, bool first);
struct request *dbha__ready_peek(const struct ready *ready); /* NULL: none */
void dbha__ready_remove(struct ready *ready, struct request *request);

/* A request has to be looked at at another time. False: out of memory, only when it is new. */
bool dbha__alarm_set(dbha_engine *e, struct request *request, int64_t at);
void dbha__alarm_remove(dbha_engine *e, struct request *request);

/* ---- engine_lane.c ---- */

/* One to send on, asking for more connections where that makes sense; NULL: there is no room now. */
struct lane *dbha__lane_choose(dbha_engine *e, const struct decision *decision, bool alone);

/* Takes what has come for it. What it has to say is in its pipe. */
void dbha__lane_hear(dbha_engine *e, struct lane *lane);

/* Whether this step may have left something in its socket: what is complete has no more behind it. */
bool dbha__lane_may_have_left(const struct lane *lane);

/* Lets what was sent go, and has the descriptor wait for what cannot. */
void dbha__lane_push(dbha_engine *e, struct lane *lane);

/* Gives the connection, or the place in the queue, back. Nothing that has an owner may be on its way. */
void dbha__lane_give_back(dbha_engine *e, struct lane *lane);

/* Between two steps: whether it should go back, when to look again. */
int64_t dbha__lane_tend(dbha_engine *e, struct lane *lane);

/* The server is at one statement for longer than others should wait behind it. */
bool dbha__lane_is_slow(const dbha_engine *e, const struct lane *lane);

/* Asks the server to stop what it does there. */
void dbha__lane_cancel(struct lane *lane);

/* ---- engine_step.c ---- */

/* One step; returns when to come again (monotonic us). `stepping` is held. */
int64_t dbha__engine_step(dbha_engine *e) REQUIRES(e->stepping);

/* Cancels a request by its tag. False: there is none. */
bool dbha__engine_cancel(dbha_engine *e, uint64_t tag) REQUIRES(e->stepping);

#endif
