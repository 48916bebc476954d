/*
 * engine: what a dbha_engine is made of. Many requests, few connections; see docs/engine.md.
 *
 *   engine.c          the public calls, and the thread that waits and steps, if there is one
 *   engine_batch.c    a batch: n statements that are one request, on a lane to themselves
 *   engine_fresh.c    how fresh it is: what a standby is asked before a read, what is asked behind it for its token, the catalog
 *   engine_request.c  a request: its copy, the queues it stands in, its alarm
 *   engine_lane.c     a connection of the engine: out of a pool, through its pipe, and back
 *   engine_place.c    where a request is, and how it gets there
 *   engine_follow.c   what becomes of it when an attempt has ended
 *   engine_answer.c   what has come on a connection
 *   engine_send.c     what can be sent
 *   engine_step.c     the step: all of that in turn, and what is due
 *   engine_verify.c   verify_commit: a write whose commit is held back until it could be asked for, and what became of those that were lost
 *
 * A request is in one place at a time: handed over and not looked at yet; ready, to be sent as soon as there is room; parked, until a
 * moment or until the view changes; on its way in a lane; with the one who asks what became of its COMMIT; done, and waiting for its token;
 * completed. Only the step moves it, and it holds `stepping`.
 */
#ifndef DBHA_ENGINE_H
#define DBHA_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "call.h"
#include "classify.h"
#include "dbha.h"
#include "judgement.h"
#include "outcome_table.h"
#include "pipe.h"
#include "poller.h"
#include "resolve.h"
#include "sync.h"
#include "view.h"
#include "wake.h"

#define ENGINE_LANES_MAX 32
/* What takes longer than this is not to be waited for by those behind it. What a busy disk does to a commit now and then is to stay below. */
#define ENGINE_SLOW_US   ((int64_t)50000)
/* What has taken no longer than this by itself may share a Sync with others, until together they take longer than the above. */
#define ENGINE_QUICK_US  ((int64_t)5000)
/* So many reads share a Sync, at most. */
#define ENGINE_GROUP     16
/* And so many at least, or it is not worth it, unless they are not there after all. While there are idle connections they are no more. */
#define ENGINE_GROUP_MIN 4

enum request_state {
	REQUEST_READY,
	REQUEST_PARKED,
	REQUEST_SENT,
	REQUEST_PLACING, /* done; how far its server has come is being asked, for its token */
	REQUEST_RESOLVING,
	REQUEST_OVER,
};

/* A write that was refused with 25006, until it is known whether that is for good. */
struct refused {
	struct attempt attempt;
	struct judgement judged;
	struct second_look look;
};

/* Whether the standby has replayed what a read has to see: what has come of the question that was sent with it. */
enum guard {
	GUARD_NONE,
	GUARD_SENT,
	GUARD_HAS,
	GUARD_BEHIND,
	GUARD_AGAIN, /* the question itself is to be put again, for a reason that will not come twice */
};

/* Of a request of the engine's own, for the catalog (routing=auto). */
struct fetch {
	struct classify_limits limits;
	int64_t began_us;
};

/* A write with verify_commit. */
struct verify {
	struct pipe_hold hold;
	char token[OUTCOME_TOKEN_MAX]; /* of its row in outcome_table; "": it has none */
	/* Its COMMIT was lost. With REQUEST_RESOLVING this is the verifier's, else the step's. */
	struct resolve what;
	enum outcome outcome;
	char why[DBHA_WHY_MAX + 128];
	char node[DBHA_NODE_NAME_MAX]; /* that has answered */
};

/*
 * A batch (each=0): its statements, and how far they have come on the lane that it has to itself. They have come to their end where `end` says
 * what it was, or all are answered, and their Sync is, if there was one.
 */
struct bundle {
	dbha_request *requests;
	int n;
	int next;        /* to be given to libpq */
	int out;         /* of those, how many were answered */
	bool is_long;    /* it did not leave in one burst: its Sync is held back until all is answered */
	bool asked;      /* for the answers */
	bool synced;     /* the Sync was sent */
	bool committing; /* and it commits, for nothing had failed until then: the outcome is the server's from there on */
	bool over;       /* the Sync is answered */
	bool unreplicated;
	bool mended;        /* it failed because a prepared statement was gone */
	int culprit;        /* whose error `end` is; -1: no one's */
	struct attempt end; /* ATTEMPT_OK as long as nothing has failed */
	PGresult **results; /* n, by malloc; the completion's in the end. NULL: it has them */
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
	struct lane *lane;                  /* with REQUEST_SENT, REQUEST_PLACING */
	struct refused *refused;            /* parked because of that; else NULL */
	struct fetch *fetch;                /* NULL: it is of the application */
	struct bundle *bundle;              /* NULL: it is one statement */
	struct verify *verify;              /* of the last attempt; NULL: it was not verified */
	const char *no_token;               /* DBHA_TOKEN: why `causal` does not have what was seen; NULL: it has */
	struct classify_verdict classified; /* what its text was taken for, where that was looked at */
	enum guard guard;                   /* as it was sent last */
	bool guard_apart;                   /* the question has a transaction of its own */
	bool asks_first;                    /* the question was sent, and it itself was not */
	bool claimed;                       /* routing=auto: the catalog is to be fetched, by its submitter */
	unsigned char group;                /* of its submitter, see struct ready */
	bool soils;                         /* it may leave something behind on its connection, which is reset */
	bool alone;                         /* it gets a connection to itself: because of that, or because it takes long */
	bool verified;   /* it gets one to itself until it is committed, and its COMMIT is asked for where it is lost */
	bool unprepared; /* what was prepared for it was gone */
	bool quick;      /* its text is known to be, see struct memo */
	bool shares;     /* with REQUEST_SENT: its Sync, with other reads */
	bool guarded;    /* the same, in a session that can write: behind a guard */
	bool apart;      /* another's error was in its way: it shares no more */
	bool spare;      /* its memory is a block that the engine keeps */
	bool late;       /* its deadline has passed, and the server was asked to stop it */
	bool canceled;   /* by dbha_submit_cancel */
	bool cancel_sent;
	/* With REQUEST_OVER. */
	int code;
	bool retry_safe, outcome_unknown; /* for when there is no memory for `error` */
	PGresult *result;
	dbha_error *error; /* NULL: none */
};

/* Of a request in flight, beside its parameters and its result. */
_Static_assert(sizeof(struct request) < 1024, "a request in flight takes too much memory");

struct request_list {
	struct request *first, *last;
};

/*
 * Requests come and go by the hundred thousand a second, each freed long after it was made: malloc is at its slowest there. Blocks of
 * one size are kept, so many at most; what needs more is not.
 */
#define REQUEST_BLOCK  1016
#define REQUEST_SPARES 1024

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
	uint64_t replayed;           /* its standby has, as far as it was asked here */
	struct request *bundle;      /* the batch that is on its way here; NULL: none */
	int unplaced;                /* sent with DBHA_TOKEN, and not asked for yet */
	int asked;                   /* questions for tokens on their way */
	struct request_list placing; /* wait for the next answer to one: a question is on their way, or due in this step */
	int writes;                  /* on their way here, that are not reads */
	int group;                   /* place of the last that was sent, among those that share its Sync */
	int64_t since_us;            /* head_us, before what this step has brought */
	bool held;                   /* nothing more is sent, so that one that is to be alone gets its turn */
	bool alone;                  /* what is on its way here is alone */
	bool verifying;              /* because it is verified, and not because it takes long */
	bool closing;                /* nothing more is sent; when it is empty it goes back */
	bool stops;                  /* something that is on its way here was canceled by its caller */
	bool canceled;               /* the server was asked to stop something here: it may have stopped something else */
	bool heard;                  /* there is something to read */
	bool read;                   /* in this step something was read */
	bool watched;                /* for becoming writable, too */
	int64_t head_us;             /* since when the server is at the oldest, as far as can be known */
	int64_t idle_us;             /* since when nothing is on its way here */
	int64_t open_us;             /* since when it is open */
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
	bool may_set; /* see sessionstate: it shares its transaction with nobody */
	bool quick;   /* it was answered quickly the last time that it was by itself, and as well in company */
	bool no_read; /* submitted as a read it was refused as a write */
};

/* Asks what became of lost COMMITs, one after the other, on a thread of its own: it waits for the next primary. */
struct verifier {
	struct request_list lost, found; /* under the engine's lock */
	struct cond wanted;              /* there is a lost one, or the end */
	struct cancel cancel;            /* cuts it short */
	bool stop;                       /* under the engine's lock */
	bool running;                    /* from the first lost one on */
	pthread_t thread;
};

struct dbha_engine {
	dbha *h;
	int connections, depth, queue;
	bool threaded;
	bool verifies; /* verify_commit */
	unsigned fork_generation;
	struct wake wake; /* something was submitted, the view has changed, a pool has answered */
	struct wake told; /* there are completions; not threaded: only where somebody waits for one */
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
	int taken;                /* answers, in this step */
	int first_heard;          /* the lane that is heard first in the next step */
	bool aborting;            /* nothing goes again */
	struct memo memo[MEMO_SIZE];
	struct memo *last_memo; /* NULL: none was asked for */
	bool wake_heard;        /* somebody has signalled */
	unsigned turn;

	struct mutex lock;
	struct cond news; /* there are completions, or nothing is left */
	struct request_list submitted, completed;
	struct request *spares; /* memory of requests that are over, REQUEST_BLOCK each */
	int n_spares;
	int live;      /* submitted and not completed */
	int expecting; /* not threaded: who wait for a completion */
	bool told_set; /* not threaded: `told` was signalled for one of them */
	bool closed;   /* nothing more is taken */
	bool abort;    /* what is live is to end now */

	struct verifier verifier;

	_Atomic bool watched; /* somebody has asked for the descriptor */
	_Atomic int waiting;  /* not sent, or not fetched */
	_Atomic bool stop;    /* the thread */
	bool running, stopped;
	pthread_t thread;
};

/* ---- engine_request.c ---- */

/* A copy, and what it means to do. NULL with `err` filled. `lock` is not held. */
struct request *dbha__request_new(dbha_engine *e, const dbha_request *rq, uint64_t tag, dbha_error *err);
/* The same of a batch, which is in order. */
struct request *dbha__request_new_batch(dbha_engine *e, const dbha_batch_request *rq, uint64_t tag, dbha_error *err);
void dbha__request_free(dbha_engine *e, struct request *request);
void dbha__request_free_spares(dbha_engine *e);

/* What is known of the text of a request. */
struct memo *dbha__memo_of(dbha_engine *e, const struct request *request);

void dbha__request_append(struct request_list *list, struct request *request);
void dbha__request_remove(struct request_list *list, struct request *request);

/* first: before the others of its group, since it has had its turn. */
void dbha__ready_add(struct ready *ready, struct request *request, bool first);
struct request *dbha__ready_peek(const struct ready *ready); /* NULL: none */
void dbha__ready_remove(struct ready *ready, struct request *request);

/* A request has to be looked at at another time. False: out of memory, only when it is new. */
bool dbha__alarm_set(dbha_engine *e, struct request *request, int64_t at);
void dbha__alarm_remove(dbha_engine *e, struct request *request);

/* ---- engine_batch.c ---- */

/* It is this lane's turn now. Nothing is sent before dbha__bundle_feed. */
void dbha__bundle_begin(struct lane *lane, struct request *request);

/* In a step: gives libpq as much of it as goes at once, and its Sync when that is due. */
void dbha__bundle_feed(struct lane *lane);

/* Whether another step would send more of it, although nothing comes. */
bool dbha__bundle_wants_more(const struct lane *lane);

/* Whether it was the batch of the lane that was answered. If so it is taken. */
bool dbha__bundle_take(struct lane *lane, struct pipe_answer *answer);

/* Whether it has come to its end, which is in its `end` then. */
bool dbha__bundle_is_over(struct lane *lane);

/* Whether what becomes of a request is up to its server: of a batch its Sync was sent. */
bool dbha__bundle_is_committing(const struct request *request);

/* The results of those that were done are thrown away. */
void dbha__bundle_clear(struct bundle *bundle);
void dbha__bundle_free(struct request *request);

/* ---- engine_fresh.c ---- */

/* It needs a Sync of its own, since something is asked with it. Of one that is about to be sent. */
bool dbha__fresh_concerns(const struct request *request);

/* Whether its standby has to be asked, now that it is known which connection it gets. */
void dbha__fresh_meet(const struct lane *lane, struct request *request);

/* Sends it with what has to be asked before it, or that alone. As dbha__pipe_send, `how` without PIPE_OPEN. */
bool dbha__fresh_send(struct lane *lane, struct request *request, unsigned how, struct attempt *refused);

/* Of one that asks first, once it has been answered: itself. */
bool dbha__fresh_send_asked(struct lane *lane, struct request *request, struct attempt *refused);

/* The answer to the question before a request. */
void dbha__fresh_take_guard(struct lane *lane, struct request *request, const struct pipe_answer *answer);

/* Whether what has become of a request does not count, since its standby is behind, or has not said. */
bool dbha__fresh_is_void(const struct request *request, const struct pipe_answer *answer);

/* At the end of a burst: asks how far the server has come, for those in it that are to have a token. */
void dbha__fresh_ask(struct lane *lane);

/* The answer. Each of lane->placing has its token now, or why there is none. */
void dbha__fresh_place(dbha_engine *e, struct lane *lane, const struct pipe_answer *answer);

/* The time for it has passed. */
void dbha__fresh_give_up(struct request *request);

/* The engine's own request for the catalog; has been claimed. NULL: out of memory, and the claim is given back. */
struct request *dbha__fresh_fetch_new(dbha_engine *e);

/* Its answer is here: what only the connection knows. And its end, in any case. */
void dbha__fresh_fetched(struct request *request, const struct lane *lane);
void dbha__fresh_fetch_end(dbha_engine *e, struct request *request);

/* ---- engine_lane.c ---- */

/* One to send on, asking for more connections where that makes sense; NULL: there is no room now. */
struct lane *dbha__lane_choose(dbha_engine *e, const struct decision *decision, const struct request *request);

/* Takes what has come for it. What it has to say is in its pipe. */
void dbha__lane_hear(dbha_engine *e, struct lane *lane);

/* Whether this step may have left something in its socket: what is complete has no more behind it. */
bool dbha__lane_may_have_left(const struct lane *lane);

/* Lets what was sent go, and has the descriptor wait for what cannot. */
void dbha__lane_push(dbha_engine *e, struct lane *lane);

/* Gives the connection, or the place in the queue, back. Nothing that has an owner may be on its way. */
void dbha__lane_give_back(dbha_engine *e, struct lane *lane);

/* Where others wait for a connection to a node, because the engines have them all: one goes back. */
void dbha__lane_make_way(dbha_engine *e, int node);

/* Between two steps: whether it should go back, when to look again. */
int64_t dbha__lane_tend(dbha_engine *e, struct lane *lane);

/* The server is at one statement for longer than others should wait behind it. */
bool dbha__lane_is_slow(const dbha_engine *e, const struct lane *lane);

/* Asks the server to stop what it does there. */
void dbha__lane_cancel(struct lane *lane);

/* ---- engine_verify.c ---- */

/* Before an attempt of a request that is to be verified; how: gets what the pipe has to be told. False: out of memory. */
bool dbha__verify_begin(struct request *request, unsigned *how);
void dbha__verify_free(struct request *request);

/* It has been executed: its commit is sent, with its row for outcome_table. */
void dbha__verify_commit(struct request *request, struct pipe *pipe);

/* Whether that was: what becomes of it is up to its server from then on, and nobody stops it. */
bool dbha__verify_is_committing(const struct request *request);

/* Whether it failed because the role may not ask for its mark: from now on nobody does. */
bool dbha__verify_is_unmarked(const struct request *request);

/*
 * The answer to its commit was lost. True: what became of it is known, as far as it ever will be. False: somebody is asking, and the engine is
 * woken when it is in dbha__verify_found.
 */
bool dbha__verify_lost(dbha_engine *e, struct request *request);

/* The list of those of which it is known now; NULL: there are none. */
struct request *dbha__verify_found(dbha_engine *e);

/* What became of it. DBHA_OK, with its result; or the code of the error reported; with DBHA_ERR_LOST it can go again. */
int dbha__verify_report(struct request *request, dbha_error *err);

bool dbha__verifier_init(struct verifier *verifier);
void dbha__verifier_fini(struct verifier *verifier);

/* Nothing is waited for any more: what is not known now is unknown. */
void dbha__verifier_cut(struct verifier *verifier);

/* Ends its thread, behind that. */
void dbha__verifier_stop(dbha_engine *e);

/* ---- engine_place.c ---- */

/* first: before the others of its group, since it has had its turn. */
void dbha__engine_make_ready(dbha_engine *e, struct request *request, bool first);

/* Until then, or until the view changes. */
void dbha__engine_park(dbha_engine *e, struct request *request, int64_t until);

/* Out of the queue it stands in. */
void dbha__engine_take_out(dbha_engine *e, struct request *request);

/* Of one that is in no queue any more. err: with a code other than DBHA_OK. */
void dbha__engine_complete(dbha_engine *e, struct request *request, int code, const dbha_error *err);

/* One that ends without an attempt that could be judged: earlier ones may have been made. */
void dbha__engine_fail_unsent(dbha_engine *e, struct request *request, dbha_error *err);

/* ---- engine_follow.c ---- */

/* The end of an attempt. lane: that it was answered on; NULL: it was not. */
void dbha__engine_follow(dbha_engine *e, struct lane *lane, struct request *request, struct attempt *attempt);

/* One that was sent and is in a queue again counts. */
void dbha__engine_recount(dbha_engine *e, const struct request *request);

/* It has waited for its token long enough, or has it. */
void dbha__engine_complete_placed(dbha_engine *e, struct request *request);

/* One that was refused with 25006: what its node is now. */
void dbha__engine_look_again(dbha_engine *e, struct request *request);

/* What the verifier has found out. */
void dbha__engine_take_found(dbha_engine *e);

/* ---- engine_answer.c ---- */

/* All that has come. */
void dbha__engine_take_answers(dbha_engine *e, struct lane *lane);

/* It is not on its way any more. */
void dbha__engine_leave(dbha_engine *e, struct lane *lane, struct request *request);

/* What was canceled and has come to its turn is stopped now. */
void dbha__engine_stop_canceled(dbha_engine *e, struct lane *lane);

/* A batch: all of it has been answered; whether it can still be rolled back, by closing its connection; and that. */
void dbha__engine_end_batch(dbha_engine *e, struct lane *lane);
bool dbha__engine_may_abandon(const struct lane *lane);
void dbha__engine_abandon(dbha_engine *e, struct lane *lane);

/* ---- engine_send.c ---- */

/* All that there is room for. */
void dbha__engine_send(dbha_engine *e);

/* ---- engine_step.c ---- */

/* One step; returns when to come again (monotonic us). `stepping` is held. */
int64_t dbha__engine_step(dbha_engine *e) REQUIRES(e->stepping);

/* Cancels a request by its tag. False: there is none. */
bool dbha__engine_cancel(dbha_engine *e, uint64_t tag) REQUIRES(e->stepping);

#endif
