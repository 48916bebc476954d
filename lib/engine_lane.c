/*
 * engine_lane: a connection of an engine: a place in a pool's queue, a reset that is waited for, a pipe, and the way back.
 */
#include <string.h>

#include "canceller.h"
#include "clock.h"
#include "engine.h"
#include "reset.h"
#include "wait.h"

/* How long a connection is kept without anything to send: who submits one request after the other does not meet the pool each time. */
#define LINGER_US     ((int64_t)20000)
/* One that has rested this long may have been closed by its server; see call.c. */
#define LOOK_AFTER_US 8000
/* How long a connection is kept at least where others wait for one. */
#define TURN_US       ((int64_t)20000)
/* A pool that has no place in its queue, or is not what it was thought to be, is asked again after this. */
#define ASK_AGAIN_US  1000

/* ---- the descriptor --------------------------------------------------------------------------------------------- */

/* The descriptor that only we close, see listener_fd. Where the kernel has no memory for it, the alarms bring us here. */
static void watch(dbha_engine *e, struct lane *lane)
{
	dbha__poller_add(&e->poller, lane->slot->conn->guard_fd, lane);
	lane->watched = false;
}

/* ---- coming and going ------------------------------------------------------------------------------------------- */

static void reset_lane(struct lane *lane)
{
	int node = lane->node;
	memset(lane, 0, sizeof *lane);
	lane->node = node;
}

static void drop(dbha_engine *e, struct lane *lane, bool reusable)
{
	dbha__poller_remove(&e->poller, lane->slot->conn->guard_fd);
	atomic_store_explicit(&lane->slot->movable, false, memory_order_relaxed);
	dbha__call_return(e->h, lane->slot, reusable);
	reset_lane(lane);
}

void dbha__lane_give_back(dbha_engine *e, struct lane *lane)
{
	if (lane->state == LANE_ASKED) {
		struct dbha_conn *slot = dbha__pool_unask(&e->h->pools[lane->node], &lane->place);
		if (slot)
			dbha__call_return(e->h, slot, true);
		reset_lane(lane);
	} else if (lane->state == LANE_RESETTING) {
		drop(e, lane, false);
	} else if (lane->state == LANE_OPEN) {
		bool good = dbha__pipe_end(&lane->pipe);
		lane->slot->conn->doubtful = lane->slot->conn->doubtful || lane->canceled;
		drop(e, lane, good);
	}
}

static void open_lane(dbha_engine *e, struct lane *lane)
{
	lane->idle_us = lane->open_us = e->now;
	dbha__wait_begin(lane->slot->conn);
	lane->state = LANE_OPEN;
	if (dbha__pipe_begin(&lane->pipe, lane->slot->conn))
		return;
	lane->state = LANE_RESETTING;
	dbha__lane_give_back(e, lane);
}

static void adopt(dbha_engine *e, struct lane *lane, struct dbha_conn *slot)
{
	lane->slot = slot;
	lane->state = LANE_RESETTING;
	watch(e, lane);
	if (!slot->conn->resetting)
		open_lane(e, lane);
}

static void no_connection(dbha_engine *e, struct lane *lane, enum acquire_end end)
{
	struct node_lanes *node = &e->nodes[lane->node];
	reset_lane(lane);
	node->failed = end == ACQUIRE_NO_CONNECTION;
	node->not_before_us =
	    e->now + (node->failed ? ms_to_us(e->h->config.options.retry_backoff_ms) + ASK_AGAIN_US : ASK_AGAIN_US);
}

static void pool_answered(dbha_engine *e, struct lane *lane)
{
	struct dbha_conn *slot = lane->place.slot;
	enum acquire_end end = lane->place.end;
	if (end != ACQUIRED) {
		no_connection(e, lane, end);
		return;
	}
	e->nodes[lane->node].failed = false;
	e->nodes[lane->node].not_before_us = 0;
	adopt(e, lane, slot);
}

static void ask(dbha_engine *e, struct lane *lane, uint64_t generation)
{
	dbha *h = e->h;
	struct acquire how = {
	    .ticket = 1 + atomic_fetch_add_explicit(&h->next_ticket, 1, memory_order_relaxed),
	    .generation = generation,
	    .now = e->now,
	    .connector = &h->wake,
	};
	lane->place.wake = &e->wake;
	lane->state = LANE_ASKED;
	if (dbha__pool_ask(&h->pools[lane->node], &how, &lane->place))
		pool_answered(e, lane);
}

/* ---- choosing --------------------------------------------------------------------------------------------------- */

struct offer {
	struct lane *best;  /* the one with the least work, of those that can be used; NULL: none */
	int work;           /* its */
	struct lane *spare; /* one without a connection; NULL: none */
	int alone;          /* that one statement has to itself */
	int pending;        /* connections that are on their way */
	bool held;          /* one is being emptied already */
};

/* An idle connection that its server has closed tells so before anything is sent. */
static bool is_alive(dbha_engine *e, struct lane *lane)
{
	if (lane->pipe.broken || lane->pipe.dead)
		return false;
	if (lane->pipe.n > 0 || e->now - lane->idle_us < LOOK_AFTER_US)
		return true;
	lane->idle_us = e->now;
	if (!dbha__conn_is_dead(lane->slot->conn))
		return true;
	dbha__monitor_alarm(&e->h->monitor);
	lane->pipe.dead = true;
	return false;
}

/*
 * What is sent together wakes its server once: so a burst goes on where it has begun, as long as it is not too long, and as long as
 * there is no other connection that has nothing to do.
 */
static int work_of(const dbha_engine *e, const struct lane *lane, bool shares)
{
	int n = lane->pipe.n;
	int most = e->depth / 4;
	if (n == 0)
		return 0;
	/* Reads that are to share a Sync: the next one joins, and who cannot does not end it where he can help it. */
	if (lane->pipe.open > 0)
		return shares ? lane->group < ENGINE_GROUP_MIN ? -1 : 1 : n + most;
	if (lane->pipe.burst == 0 || lane->pipe.burst >= most)
		return n;
	return n > most ? n - most : 1;
}

static void look_at(dbha_engine *e, struct lane *lane, const struct decision *decision, bool shares,
                    struct offer *offer)
{
	if (lane->state == LANE_NONE) {
		offer->spare = offer->spare ? offer->spare : lane;
		return;
	}
	if (lane->state != LANE_OPEN) {
		offer->pending++;
		return;
	}
	offer->held = offer->held || lane->held;
	offer->alone += lane->alone && !lane->verifying;
	bool room = !lane->closing && !lane->alone && !dbha__lane_is_slow(e, lane) &&
	            lane->pipe.n - lane->pipe.ours < e->depth && (!lane->held || lane->pipe.n == 0) &&
	            !dbha__pipe_has_news(&lane->pipe);
	if (!room || lane->slot->generation != decision->generation || !is_alive(e, lane))
		return;
	int work = work_of(e, lane, shares);
	if (offer->best && work >= offer->work)
		return;
	offer->best = lane;
	offer->work = work;
}

/* More connections make sense where each has something to do, and more is waiting than those on their way will take. */
static bool wants_more(const dbha_engine *e, const struct offer *offer)
{
	if (!offer->spare || (offer->best && offer->best->pipe.n == 0))
		return false;
	int n_alone = e->verifies ? e->ready[1].n + e->ready[2].n : e->ready[2].n;
	return offer->pending == 0 || e->ready[0].n + e->ready[1].n > offer->pending * e->depth || n_alone > offer->pending;
}

struct lane *dbha__lane_choose(dbha_engine *e, const struct decision *decision, const struct request *request)
{
	bool alone = request->alone || request->verified;
	bool shares = request->quick && request->call.intent == DBHA_READ;
	struct node_lanes *node = &e->nodes[decision->route.node];
	struct offer offer = {0};
	for (int i = 0; i < e->connections; i++)
		look_at(e, &node->lanes[i], decision, shares, &offer);
	/* One is left for those that are quick. */
	if (request->alone && e->connections > 1 && offer.alone >= e->connections - 1)
		return NULL;
	if (e->now >= node->not_before_us && wants_more(e, &offer)) {
		ask(e, offer.spare, decision->generation);
		if (offer.spare->state == LANE_OPEN)
			offer.best = offer.spare;
	}
	if (!offer.best)
		return NULL;
	bool empty = offer.best->pipe.n == 0;
	if (alone && !empty && !offer.held)
		offer.best->held = true;
	if (alone && !empty)
		return NULL;
	offer.best->held = false;
	return offer.best;
}

/* ---- in between ------------------------------------------------------------------------------------------------- */

void dbha__lane_hear(dbha_engine *e, struct lane *lane)
{
	if (lane->state == LANE_ASKED && e->wake_heard && dbha__pool_answered(&e->h->pools[lane->node], &lane->place))
		pool_answered(e, lane);
	bool heard = lane->heard;
	lane->heard = false;
	lane->read = heard;
	if (!heard || lane->state < LANE_RESETTING)
		return;
	if (lane->state == LANE_OPEN) {
		dbha__pipe_hear(&lane->pipe);
		return;
	}
	enum reset_step step = dbha__reset_hear(lane->slot->conn);
	if (step == RESET_DONE)
		open_lane(e, lane);
	else if (step == RESET_FAILED)
		dbha__lane_give_back(e, lane);
}

bool dbha__lane_may_have_left(const struct lane *lane)
{
	return lane->read && (lane->state == LANE_RESETTING || (lane->state == LANE_OPEN && lane->pipe.n > 0));
}

void dbha__lane_push(dbha_engine *e, struct lane *lane)
{
	/* A batch has its own when it is whole. */
	if (lane->state == LANE_OPEN && lane->pipe.open > 0 && !lane->bundle)
		dbha__pipe_sync(&lane->pipe);
	if (lane->state != LANE_OPEN || !(lane->pipe.unsent || lane->pipe.corked || lane->watched))
		return;
	dbha__pipe_push(&lane->pipe);
	if (lane->pipe.unsent == lane->watched)
		return;
	dbha__poller_change(&e->poller, lane->slot->conn->guard_fd, lane, lane->pipe.unsent);
	lane->watched = lane->pipe.unsent;
}

/*
 * A connection that always has something to do would never go back, and whoever else waits for one of a full pool, another engine or a
 * call, would never get it. So they take turns. Our own places in the queue do not count.
 */
void dbha__lane_make_way(dbha_engine *e, int node)
{
	const struct pool *pool = &e->h->pools[node];
	int others = atomic_load_explicit(&pool->load, memory_order_relaxed) - pool->limits.max_size;
	struct lane *oldest = NULL;
	for (int i = 0; others > 0 && i < e->connections; i++) {
		struct lane *lane = &e->nodes[node].lanes[i];
		if (lane->state == LANE_ASKED || (lane->state == LANE_OPEN && lane->closing))
			others--;
		else if (lane->state == LANE_OPEN && (!oldest || lane->open_us < oldest->open_us))
			oldest = lane;
	}
	if (others > 0 && oldest && e->now - oldest->open_us >= TURN_US)
		oldest->closing = true;
}

/* Nobody is served by it any more. */
static bool is_useless(const dbha_engine *e, const struct lane *lane)
{
	if (lane->bundle)
		return false;
	if (lane->pipe.n > 0)
		return (lane->closing || lane->canceled) && !dbha__pipe_has_owner(&lane->pipe);
	return lane->pipe.broken || lane->pipe.dead || lane->closing || lane->canceled ||
	       e->now - lane->idle_us >= LINGER_US;
}

int64_t dbha__lane_tend(dbha_engine *e, struct lane *lane)
{
	if (lane->state != LANE_OPEN)
		return CLOCK_NEVER;
	struct dbha_conn *slot = lane->slot;
	bool old = slot->generation != e->nodes[lane->node].generation || e->now >= slot->expires_us;
	lane->closing = lane->closing || old || lane->canceled;
	if (is_useless(e, lane)) {
		dbha__lane_give_back(e, lane);
		return CLOCK_NEVER;
	}
	bool movable = lane->pipe.n > 0 && lane->writes == 0;
	if (atomic_load_explicit(&slot->movable, memory_order_relaxed) != movable)
		atomic_store_explicit(&slot->movable, movable, memory_order_relaxed);
	/* No descriptor tells of that. */
	if (dbha__pipe_has_news(&lane->pipe) || dbha__bundle_wants_more(lane))
		return e->now;
	return lane->pipe.n > 0 || lane->bundle ? CLOCK_NEVER : lane->idle_us + LINGER_US;
}

bool dbha__lane_is_slow(const dbha_engine *e, const struct lane *lane)
{
	return lane->pipe.n > 0 && e->now - lane->head_us > ENGINE_SLOW_US;
}

void dbha__lane_cancel(struct lane *lane)
{
	lane->canceled = lane->closing = true;
	dbha__canceller_send(lane->slot->conn);
}
