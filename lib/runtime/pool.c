#include "pool.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cancel.h"
#include "canceller.h"
#include "clock.h"
#include "wake.h"

/* How long a caller waits while another thread does what there is to do, before it looks whether it is its turn. */
#define LOOK_UP_US  5000
/* Cancel requests of one patrol; no more would be sent at one time. */
#define CANCELS_MAX 16

int dbha__pool_init(struct pool *pool, const char *name, const struct pool_limits *limits, struct stats *stats)
{
	memset(pool, 0, sizeof *pool);
	pool->name = name;
	pool->limits = *limits;
	pool->generation = 1;
	pool->stats = stats;
	return dbha__mutex_init(&pool->lock, RANK_POOL);
}

void dbha__pool_fini(struct pool *pool)
{
	dbha__mutex_fini(&pool->lock);
}

/* ---- lists ------------------------------------------------------------------------------------------------- */

static void push_all(struct pool *pool, struct dbha_conn *slot)
{
	slot->all_prev = NULL;
	slot->all_next = pool->all;
	if (pool->all)
		pool->all->all_prev = slot;
	pool->all = slot;
}

static void unlink_all(struct pool *pool, struct dbha_conn *slot)
{
	if (slot->all_prev)
		slot->all_prev->all_next = slot->all_next;
	else
		pool->all = slot->all_next;
	if (slot->all_next)
		slot->all_next->all_prev = slot->all_prev;
	slot->all_next = slot->all_prev = NULL;
}

static void push_idle(struct pool *pool, struct dbha_conn *slot, int64_t now)
{
	slot->used = false;
	slot->since_us = now;
	slot->idle_next = pool->idle_newest;
	slot->idle_prev = NULL;
	if (pool->idle_newest)
		pool->idle_newest->idle_prev = slot;
	else
		pool->idle_oldest = slot;
	pool->idle_newest = slot;
	pool->counts.idle++;
}

static void unlink_idle(struct pool *pool, struct dbha_conn *slot)
{
	if (slot->idle_prev)
		slot->idle_prev->idle_next = slot->idle_next;
	else
		pool->idle_newest = slot->idle_next;
	if (slot->idle_next)
		slot->idle_next->idle_prev = slot->idle_prev;
	else
		pool->idle_oldest = slot->idle_prev;
	slot->idle_next = slot->idle_prev = NULL;
	pool->counts.idle--;
}

static void show_load(struct pool *pool)
{
	atomic_store_explicit(&pool->load, pool->counts.used + pool->counts.waiting, memory_order_relaxed);
}

static void set_used(struct pool *pool, int used)
{
	pool->counts.used = used;
	show_load(pool);
}

/* By ticket, from the end: a newcomer stands last, one who was sent here from another node gets its place back. */
static void enqueue(struct pool *pool, struct waiter *waiter)
{
	struct waiter *after = pool->last;
	while (after && after->ticket > waiter->ticket)
		after = after->prev;
	waiter->prev = after;
	waiter->next = after ? after->next : pool->first;
	if (waiter->next)
		waiter->next->prev = waiter;
	else
		pool->last = waiter;
	if (after)
		after->next = waiter;
	else
		pool->first = waiter;
	pool->counts.waiting++;
	show_load(pool);
}

static void dequeue(struct pool *pool, struct waiter *waiter)
{
	if (waiter->prev)
		waiter->prev->next = waiter->next;
	else
		pool->first = waiter->next;
	if (waiter->next)
		waiter->next->prev = waiter->prev;
	else
		pool->last = waiter->prev;
	pool->counts.waiting--;
	show_load(pool);
}

/* ---- serving ----------------------------------------------------------------------------------------------- */

static void hand_out(struct pool *pool, struct dbha_conn *slot, int64_t now)
{
	slot->used = true;
	slot->rested_us = 0;
	slot->since_us = now;
	set_used(pool, pool->counts.used + 1);
	STATS_ADD(pool->stats, acquires, 1);
}

static void finish_waiter(struct pool *pool, struct waiter *waiter, enum acquire_end end, struct dbha_conn *slot)
{
	dequeue(pool, waiter);
	waiter->done = true;
	waiter->end = end;
	waiter->slot = slot;
	/* Writing to an eventfd does not block, and under the lock the waiter cannot go away meanwhile. */
	if (waiter->wake)
		dbha__wake_signal(waiter->wake);
	else
		dbha__cond_signal(&waiter->served);
}

static void send_away(struct pool *pool, enum acquire_end end)
{
	while (pool->first)
		finish_waiter(pool, pool->first, end, NULL);
}

/* An idle connection to the one who has waited longest, else to the idle ones. */
static void offer(struct pool *pool, struct dbha_conn *slot, int64_t now)
{
	if (!pool->first) {
		push_idle(pool, slot, now);
		return;
	}
	hand_out(pool, slot, now);
	STATS_ADD(pool->stats, acquires_waited, 1);
	finish_waiter(pool, pool->first, ACQUIRED, slot);
}

static bool is_current(const struct pool *pool, const struct dbha_conn *slot)
{
	return !pool->stopped && !pool->draining && slot->generation == pool->generation;
}

/* Until it is served, or something happens; false: the deadline has passed. */
static bool wait_once(struct pool *pool, const struct acquire *how, struct waiter *self) REQUIRES(pool->lock)
{
	if (!how->turn)
		return dbha__cond_wait(&self->served, &pool->lock, how->deadline);
	dbha__mutex_unlock(&pool->lock);
	bool turned = how->turn(how->arg, how->deadline);
	int64_t now = dbha__clock_now();
	dbha__mutex_lock(&pool->lock);
	/* Somebody else is at it, who will not tell us when it stops. */
	if (!turned && !self->done)
		dbha__cond_wait(&self->served, &pool->lock,
		                now + LOOK_UP_US < how->deadline ? now + LOOK_UP_US : how->deadline);
	return now < how->deadline;
}

/* Takes a place in the queue, and asks for a connect if one is wanted for it. */
static void queue_up(struct pool *pool, const struct acquire *how, struct waiter *waiter) REQUIRES(pool->lock)
{
	enqueue(pool, waiter);
	if (dbha__pool_wanted(&pool->limits, &pool->counts) <= 0)
		return;
	/* Not under the lock: the connector needs it to reserve the place. */
	dbha__mutex_unlock(&pool->lock);
	dbha__wake_signal(how->connector);
	dbha__mutex_lock(&pool->lock);
}

static enum acquire_end wait_in_queue(struct pool *pool, const struct acquire *how, struct dbha_conn **out)
    REQUIRES(pool->lock)
{
	struct waiter self = {.ticket = how->ticket};
	if (dbha__cond_init(&self.served) != 0)
		return ACQUIRE_TIMEOUT;
	queue_up(pool, how, &self);
	while (!self.done && wait_once(pool, how, &self))
		;
	if (!self.done) {
		dequeue(pool, &self);
		self.end = ACQUIRE_TIMEOUT;
	}
	dbha__cond_fini(&self.served);
	*out = self.slot;
	return self.end;
}

static struct dbha_conn *try_locked(struct pool *pool, uint64_t generation, int64_t now) REQUIRES(pool->lock)
{
	struct dbha_conn *slot = pool->idle_newest;
	if (!slot || pool->first || !pool->open || pool->generation != generation)
		return NULL;
	int64_t rested = now - slot->since_us;
	unlink_idle(pool, slot);
	hand_out(pool, slot, now);
	slot->rested_us = rested;
	return slot;
}

struct dbha_conn *dbha__pool_try(struct pool *pool, uint64_t generation, int64_t now)
{
	dbha__mutex_lock(&pool->lock);
	struct dbha_conn *slot = try_locked(pool, generation, now);
	dbha__mutex_unlock(&pool->lock);
	return slot;
}

/* What there is to say without waiting: ACQUIRE_TIMEOUT, that there is something to wait for. */
static enum acquire_end at_once(struct pool *pool, const struct acquire *how, struct dbha_conn **out)
    REQUIRES(pool->lock)
{
	if (pool->stopped)
		return ACQUIRE_STOPPED;
	if (!pool->open || pool->generation != how->generation)
		return ACQUIRE_REROUTE;
	*out = try_locked(pool, how->generation, how->now);
	if (*out)
		return ACQUIRED;
	return dbha__pool_may_wait(&pool->limits, &pool->counts) ? ACQUIRE_TIMEOUT : ACQUIRE_TOO_MANY;
}

static enum acquire_end acquire_locked(struct pool *pool, const struct acquire *how, struct dbha_conn **out)
    REQUIRES(pool->lock)
{
	enum acquire_end end = at_once(pool, how, out);
	return end == ACQUIRE_TIMEOUT ? wait_in_queue(pool, how, out) : end;
}

enum acquire_end dbha__pool_acquire(struct pool *pool, const struct acquire *how, struct dbha_conn **out)
{
	*out = NULL;
	dbha__mutex_lock(&pool->lock);
	enum acquire_end end = acquire_locked(pool, how, out);
	dbha__mutex_unlock(&pool->lock);
	return end;
}

bool dbha__pool_ask(struct pool *pool, const struct acquire *how, struct waiter *waiter)
{
	waiter->ticket = how->ticket;
	waiter->slot = NULL;
	dbha__mutex_lock(&pool->lock);
	waiter->end = at_once(pool, how, &waiter->slot);
	waiter->done = waiter->end != ACQUIRE_TIMEOUT;
	bool done = waiter->done;
	if (!done)
		queue_up(pool, how, waiter);
	dbha__mutex_unlock(&pool->lock);
	return done;
}

bool dbha__pool_answered(struct pool *pool, struct waiter *waiter)
{
	dbha__mutex_lock(&pool->lock);
	bool done = waiter->done;
	dbha__mutex_unlock(&pool->lock);
	return done;
}

struct dbha_conn *dbha__pool_unask(struct pool *pool, struct waiter *waiter)
{
	dbha__mutex_lock(&pool->lock);
	if (!waiter->done)
		dequeue(pool, waiter);
	waiter->done = true;
	struct dbha_conn *slot = waiter->slot;
	waiter->slot = NULL;
	dbha__mutex_unlock(&pool->lock);
	return slot;
}

struct dbha_conn *dbha__pool_release(struct pool *pool, struct dbha_conn *slot, bool reusable, int64_t now)
{
	dbha__mutex_lock(&pool->lock);
	set_used(pool, pool->counts.used - 1);
	bool current = is_current(pool, slot);
	bool expired = now >= slot->expires_us;
	/* Cut at the last moment it may still look well. */
	reusable = reusable && !slot->cut;
	bool keep = reusable && current && !expired;
	if (keep) {
		offer(pool, slot, now);
		slot = NULL;
	} else {
		unlink_all(pool, slot);
	}
	dbha__mutex_unlock(&pool->lock);

	if (slot && !current)
		STATS_ADD(pool->stats, closed_generation, 1);
	else if (slot && !reusable)
		STATS_ADD(pool->stats, closed_broken, 1);
	else if (slot)
		STATS_ADD(pool->stats, closed_lifetime, 1);
	return slot;
}

void dbha__pool_dispose(struct dbha_conn *list)
{
	while (list) {
		struct dbha_conn *next = list->all_next;
		dbha__conn_close(list->conn);
		free(list);
		list = next;
	}
}

/* ---- connector --------------------------------------------------------------------------------------------- */

int dbha__pool_claim(struct pool *pool, int most)
{
	dbha__mutex_lock(&pool->lock);
	int n = pool->open && !pool->stopped ? dbha__pool_wanted(&pool->limits, &pool->counts) : 0;
	if (n > most - pool->counts.connecting)
		n = most - pool->counts.connecting;
	n = n > 0 ? n : 0;
	pool->counts.connecting += n;
	dbha__mutex_unlock(&pool->lock);
	return n;
}

struct dbha_conn *dbha__pool_connected(struct pool *pool, struct dbha_conn *slot, int64_t now)
{
	dbha__mutex_lock(&pool->lock);
	pool->counts.connecting--;
	pool->connect_failed_us = 0;
	pool->connects_failed = 0;
	if (pool->open && is_current(pool, slot)) {
		push_all(pool, slot);
		offer(pool, slot, now);
		slot = NULL;
	}
	dbha__mutex_unlock(&pool->lock);
	return slot;
}

void dbha__pool_connect_failed(struct pool *pool, const char *why, int64_t now)
{
	char line[DBHA_WHY_MAX];
	snprintf(line, sizeof line, "%s", why);
	dbha__mutex_lock(&pool->lock);
	pool->counts.connecting--;
	pool->connect_failed_us = now;
	memcpy(pool->connect_why, line, sizeof line);
	pool->connects_failed++;
	/* Connects that fail in turns, each begun before the one before it has failed, would else keep everybody waiting. */
	bool hopeless = pool->counts.connecting == 0 || pool->connects_failed > pool->limits.max_connecting;
	if (hopeless && pool->counts.idle + pool->counts.used == 0)
		send_away(pool, ACQUIRE_NO_CONNECTION);
	dbha__mutex_unlock(&pool->lock);
}

/* Why an idle connection is to go; NULL: it stays. */
static _Atomic uint64_t *reason_to_go(struct pool *pool, const struct dbha_conn *slot, int64_t now)
{
	if (now >= slot->expires_us)
		return &pool->stats->closed_lifetime;
	if (dbha__pool_idle_too_long(&pool->limits, &pool->counts, now, slot->since_us))
		return &pool->stats->closed_idle;
	/* A system call under the lock that does not block: what it looks at must not be closed meanwhile. */
	if (dbha__conn_peer_closed(slot->conn))
		return &pool->stats->closed_broken;
	return NULL;
}

struct dbha_conn *dbha__pool_expired(struct pool *pool, int64_t now)
{
	struct dbha_conn *list = NULL;
	dbha__mutex_lock(&pool->lock);
	for (struct dbha_conn *slot = pool->idle_oldest, *newer; slot; slot = newer) {
		newer = slot->idle_prev;
		_Atomic uint64_t *counter = reason_to_go(pool, slot, now);
		if (!counter)
			continue;
		atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
		unlink_idle(pool, slot);
		unlink_all(pool, slot);
		slot->all_next = list;
		list = slot;
	}
	dbha__mutex_unlock(&pool->lock);
	return list;
}

/* ---- monitor ----------------------------------------------------------------------------------------------- */

/* Takes the idle connections out, as a list. */
static struct dbha_conn *take_idle(struct pool *pool)
{
	struct dbha_conn *list = NULL;
	while (pool->idle_newest) {
		struct dbha_conn *slot = pool->idle_newest;
		unlink_idle(pool, slot);
		unlink_all(pool, slot);
		slot->all_next = list;
		list = slot;
	}
	return list;
}

/*
 * shutdown(2), and setsockopt(2) before it, under the lock are the only system calls made there: they do not block, and the
 * lock is what keeps a connection in use from being closed by its user at the same moment.
 */
static void cut(struct dbha_conn *slot)
{
	slot->cut = true;
	dbha__conn_cut(slot->conn);
}

static void cut_used(struct pool *pool)
{
	for (struct dbha_conn *slot = pool->all; slot; slot = slot->all_next)
		if (slot->used)
			cut(slot);
}

/* Of a generation that is over: what was sent and has not arrived is not to be executed either. */
static void cut_off_used(struct pool *pool)
{
	for (struct dbha_conn *slot = pool->all; slot; slot = slot->all_next) {
		if (!slot->used)
			continue;
		slot->cut = true;
		dbha__conn_cut_off(slot->conn);
	}
}

/*
 * One connection on the patrol's way. Returns when to look again; CLOCK_NEVER: nobody waits. *cancel: a request to send once the lock
 * has been given back. It is made here, because the lock keeps the connection from being closed, and before the wait is told
 * of it, so that who has been told finds it pending.
 */
static int64_t look_at(struct dbha_conn *slot, int64_t now, struct conn_cancel **cancel)
{
	overdue_word *word = &slot->conn->wait_until;
	int64_t seen = atomic_load_explicit(word, memory_order_acquire);
	if (!slot->used || seen == 0 || seen == OVERDUE_CUT)
		return CLOCK_NEVER;
	if (seen > now)
		return seen;
	bool cancelable = !atomic_load_explicit(&slot->conn->uncancelable, memory_order_relaxed);
	if (seen > 0 && cancelable) {
		struct conn_cancel *request = cancel ? dbha__conn_cancel_new(slot->conn) : NULL;
		if (!dbha__overdue_step(word, seen, -seen)) {
			dbha__conn_cancel_free(request);
			return CLOCK_NEVER;
		}
		if (cancel)
			*cancel = request;
		seen = -seen;
	}
	if (seen < 0 && now < -seen + CONN_DRAIN_US)
		return -seen + CONN_DRAIN_US;
	if (dbha__overdue_step(word, seen, OVERDUE_CUT))
		cut(slot);
	return CLOCK_NEVER;
}

int64_t dbha__pool_patrol(struct pool *pool, int64_t now)
{
	struct conn_cancel *requests[CANCELS_MAX];
	int n = 0;
	int64_t next = now + CONN_PATROL_US;
	dbha__mutex_lock(&pool->lock);
	for (struct dbha_conn *slot = pool->all; slot; slot = slot->all_next) {
		struct conn_cancel *request = NULL;
		int64_t again = look_at(slot, now, n < CANCELS_MAX ? &request : NULL);
		next = again < next ? again : next;
		if (request)
			requests[n++] = request;
	}
	dbha__mutex_unlock(&pool->lock);
	for (int i = 0; i < n; i++)
		dbha__canceller_start(requests[i]);
	return next;
}

void dbha__pool_cut_movable(struct pool *pool)
{
	dbha__mutex_lock(&pool->lock);
	for (struct dbha_conn *slot = pool->all; slot; slot = slot->all_next)
		if (slot->used && atomic_load_explicit(&slot->movable, memory_order_relaxed))
			cut(slot);
	dbha__mutex_unlock(&pool->lock);
}

static int length_of(const struct dbha_conn *list)
{
	int n = 0;
	for (; list; list = list->all_next)
		n++;
	return n;
}

struct dbha_conn *dbha__pool_follow(struct pool *pool, bool open, uint64_t generation)
{
	struct dbha_conn *list = NULL;
	dbha__mutex_lock(&pool->lock);
	bool renewed = pool->generation != generation;
	pool->generation = generation;
	pool->open = open;
	if (renewed) {
		pool->connects_failed = 0;
		cut_off_used(pool);
		list = take_idle(pool);
	}
	if (renewed || !open)
		send_away(pool, ACQUIRE_REROUTE);
	dbha__mutex_unlock(&pool->lock);
	STATS_ADD(pool->stats, closed_generation, length_of(list));
	return list;
}

struct dbha_conn *dbha__pool_drain(struct pool *pool, bool draining)
{
	dbha__mutex_lock(&pool->lock);
	pool->draining = draining;
	struct dbha_conn *list = draining ? take_idle(pool) : NULL;
	if (draining) {
		pool->open = false;
		send_away(pool, ACQUIRE_REROUTE);
	}
	dbha__mutex_unlock(&pool->lock);
	STATS_ADD(pool->stats, closed_generation, length_of(list));
	return list;
}

bool dbha__pool_is_empty(struct pool *pool)
{
	dbha__mutex_lock(&pool->lock);
	bool empty = pool->counts.idle + pool->counts.used + pool->counts.connecting == 0;
	dbha__mutex_unlock(&pool->lock);
	return empty;
}

struct dbha_conn *dbha__pool_stop(struct pool *pool, bool cut)
{
	dbha__mutex_lock(&pool->lock);
	pool->stopped = true;
	pool->open = false;
	send_away(pool, ACQUIRE_STOPPED);
	if (cut)
		cut_used(pool);
	struct dbha_conn *list = take_idle(pool);
	dbha__mutex_unlock(&pool->lock);
	return list;
}

void dbha__pool_report(struct pool *pool, int64_t now, struct pool_report *report)
{
	dbha__mutex_lock(&pool->lock);
	report->counts = pool->counts;
	report->connect_failed_us = pool->connect_failed_us;
	report->longest_use_us = 0;
	memcpy(report->connect_why, pool->connect_why, sizeof report->connect_why);
	for (const struct dbha_conn *slot = pool->all; slot; slot = slot->all_next)
		if (slot->used && now - slot->since_us > report->longest_use_us)
			report->longest_use_us = now - slot->since_us;
	dbha__mutex_unlock(&pool->lock);
}

/* ---- fork -------------------------------------------------------------------------------------------------- */

void dbha__pool_abandon(struct pool *pool, int dev_null)
{
	for (struct dbha_conn *slot = pool->all; slot; slot = slot->all_next)
		dbha__conn_abandon(slot->conn, dev_null);
}

void dbha__pool_reset_after_fork(struct pool *pool)
{
	struct dbha_conn *idle = take_idle(pool);
	while (pool->all) {
		struct dbha_conn *slot = pool->all;
		unlink_all(pool, slot);
		slot->orphan = true;
	}
	memset(&pool->counts, 0, sizeof pool->counts);
	set_used(pool, 0);
	pool->first = pool->last = NULL; /* the threads that waited are not in this process */
	pool->open = pool->draining = false;
	pool->generation = 1;
	pool->connect_failed_us = 0;
	pool->connects_failed = 0;
	dbha__pool_dispose(idle);
}
