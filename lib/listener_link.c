/*
 * listener_link: the connection of a listener: a place in the primary's pool, LISTEN for everything that is wanted, a look whether
 * the server is still there, and the end, from which it all begins again.
 *
 * What a dead connection looks like: its socket ends (a server that stops, a node that is fenced: the monitor shuts the socket
 * down); the view says that another node is the primary; or nothing at all is heard, which is also how a quiet channel looks.
 * So a connection that has been quiet is asked, and is given up if its node answers others (the probes) but not it. While the node
 * answers nobody, the question stays open: a server that was only frozen has lost nothing, and there is nowhere else to listen.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backoff.h"
#include "call.h"
#include "clock.h"
#include "listener.h"

/* While an answer is awaited: how often the view is asked what the node does, and a command that is not out yet is pushed on. */
#define LOOK_US          ((int64_t)100000)
#define PUSH_US          ((int64_t)10000)
/* A first LISTEN may have to read through the server's whole queue of notifications. */
#define LISTEN_PATIENCES 5
/* A connection that lasted this long was a good one: the next is not waited for. */
#define LASTING_US       ((int64_t)1000000)
/* monitor=off: how often a caller who waits looks at the cluster, while connected and while not. */
#define TURN_SLOW_US     ((int64_t)50000)
#define TURN_FAST_US     ((int64_t)5000)

int64_t dbha__listener_patience_us(const dbha_listener *l)
{
	const struct config_options *options = &l->h->config.options;
	return ms_to_us((int64_t)options->probe_timeout_ms * options->probe_failures);
}

/* How long silence lasts before a sign of life is asked for. */
static int64_t quiet_us(const dbha_listener *l)
{
	return 2 * ms_to_us(l->h->config.options.probe_interval_ms);
}

static void at_latest(dbha_listener *l, int64_t at)
{
	if (at < l->timer_us)
		l->timer_us = at;
}

/* ---- what was heard ------------------------------------------------------------------------------------------ */

static void append(dbha_listener *l, struct heard *heard)
{
	heard->next = NULL;
	if (l->last)
		l->last->next = heard;
	else
		l->first = heard;
	l->last = heard;
}

/* libpq's queue into ours, which outlives the connection. False: memory ran out, and something is missing. */
static bool take_over(dbha_listener *l)
{
	PGnotify *notify;
	bool whole = true;
	while ((notify = dbha__listen_take(l->slot->conn))) {
		struct heard *heard = calloc(1, sizeof *heard);
		whole = whole && heard;
		if (!whole) {
			free(heard);
			dbha__listen_free(notify);
			continue;
		}
		heard->notify = notify;
		heard->node = l->node_name;
		append(l, heard);
	}
	return whole;
}

/* Of a channel that the owner has given up; one that is not known was written in another way by the server than by the owner. */
static bool is_unwanted(const dbha_listener *l, const PGnotify *notify)
{
	if (!notify || l->channels.n == l->channels.n_wanted)
		return false;
	const struct channel *channel = dbha__channels_find(&l->channels, notify->relname);
	return channel && !channel->wanted;
}

static void drop_unwanted(dbha_listener *l)
{
	struct heard *list = l->first;
	l->first = l->last = NULL;
	for (struct heard *next; list; list = next) {
		next = list->next;
		if (!is_unwanted(l, list->notify)) {
			append(l, list);
			continue;
		}
		dbha__listen_free(list->notify);
		free(list);
	}
}

bool dbha__listener_take(dbha_listener *l, struct heard *heard)
{
	struct heard *first = l->first;
	if (first) {
		l->first = first->next;
		if (!l->first)
			l->last = NULL;
		*heard = *first;
		free(first);
		return true;
	}
	if (!l->slot)
		return false;
	*heard = (struct heard){.node = l->node_name};
	while ((heard->notify = dbha__listen_take(l->slot->conn))) {
		l->fresh = true;
		if (!is_unwanted(l, heard->notify))
			return true;
		dbha__listen_free(heard->notify);
	}
	return false;
}

/* ---- the end of a connection --------------------------------------------------------------------------------- */

static void back_off(dbha_listener *l, int64_t now)
{
	const struct config_options *options = &l->h->config.options;
	struct rng rng = {.state = dbha__life_random(l->h)};
	l->retry_us = now + dbha__backoff_us(&rng, options->retry_backoff_ms, options->retry_backoff_max_ms, l->tries++);
	l->version = dbha__view_borrow(&l->h->view)->version;
	dbha__view_return(&l->h->view);
}

/*
 * The connection is closed and not used by others: what was sent for us may still be on its way, and with a command under way
 * nobody knows what it is listening to.
 */
static void drop_connection(dbha_listener *l)
{
	dbha__listener_fd_detach(l);
	dbha__call_return(l->h, l->slot, false);
	l->slot = NULL;
	l->talking = false;
	l->settled_us = 0;
}

static void lose(dbha_listener *l, int64_t now, const char *why)
{
	snprintf(l->trouble, sizeof l->trouble, "the connection to %.90s was lost: %.130s", l->node_name, why);
	take_over(l); /* where memory runs out for it, the gap covers it */
	drop_unwanted(l);
	bool missed = dbha__channels_lost(&l->channels);
	if (missed && !l->owed)
		memcpy(l->lost, l->trouble, sizeof l->lost);
	l->owed = l->owed || missed;
	if (!l->down_since_us)
		l->down_since_us = now;
	if (l->settled_us && now - l->settled_us > LASTING_US)
		l->tries = 0;
	back_off(l, now);
	if (l->tries == 1)
		l->retry_us = now;
	drop_connection(l);
	dbha__monitor_alarm(&l->h->monitor);
	at_latest(l, l->retry_us);
}

void dbha__listener_purge(dbha_listener *l)
{
	bool whole = !l->slot || take_over(l);
	drop_unwanted(l);
	if (!whole)
		lose(l, dbha__clock_now(), "out of memory");
}

static void leave_queue(dbha_listener *l)
{
	if (!l->queued)
		return;
	struct dbha_conn *slot = dbha__pool_unask(l->pool, &l->place);
	l->queued = false;
	if (slot)
		dbha__call_return(l->h, slot, true);
}

void dbha__listener_let_go(dbha_listener *l)
{
	leave_queue(l);
	if (l->slot) {
		take_over(l);
		dbha__channels_lost(&l->channels);
		drop_connection(l);
	}
	l->owed = false;
	l->down_since_us = 0;
	for (struct heard *next; l->first; l->first = next) {
		next = l->first->next;
		dbha__listen_free(l->first->notify);
		free(l->first);
	}
	l->last = NULL;
}

/* ---- a new connection ---------------------------------------------------------------------------------------- */

static void begin_talking(dbha_listener *l, int64_t now, bool checking)
{
	l->talking = true;
	l->checking = checking;
	l->sent_us = now;
	l->refusal = (struct refusal){.sqlstate = ""};
}

static void adopt(dbha_listener *l, struct dbha_conn *slot, int64_t now)
{
	l->slot = slot;
	l->node = (int)(slot->pool - l->h->pools);
	l->node_name = slot->node_name;
	l->heard_us = now;
	l->not_up_us = 0;
	l->settled_us = 0;
	l->talking = false;
	l->retry_us = now;
	/* What its last user left in it is being undone, and the answer to that comes before ours. */
	if (slot->conn->resetting)
		begin_talking(l, now, true);
	slot->conn->resetting = false;
	dbha__listener_fd_attach(l);
}

static void no_connection(dbha_listener *l, int64_t now)
{
	const char *name = dbha__life_node_name(l->h, (int)(l->pool - l->h->pools));
	struct pool_report report;
	switch (l->place.end) {
	case ACQUIRE_NO_CONNECTION:
		dbha__pool_report(l->pool, now, &report);
		snprintf(l->trouble, sizeof l->trouble, "%.80s: %.160s", name, report.connect_why);
		dbha__monitor_alarm(&l->h->monitor);
		break;
	case ACQUIRE_TOO_MANY:
		snprintf(l->trouble, sizeof l->trouble, "pool_max_waiting callers wait for a connection to %.100s", name);
		break;
	default: /* the node is not what it was, or the handle is being closed */
		break;
	}
	back_off(l, now);
	at_latest(l, l->retry_us);
}

/* The pause after a failure is cut short when the topology changes. */
static bool may_try(dbha_listener *l, int64_t now)
{
	if (now >= l->retry_us)
		return true;
	uint64_t version = dbha__view_borrow(&l->h->view)->version;
	dbha__view_return(&l->h->view);
	if (version != l->version)
		return true;
	at_latest(l, l->retry_us);
	return false;
}

/* Queues up for a connection to the primary of now. */
static void ask_for_connection(dbha_listener *l, int64_t now)
{
	l->way = atomic_load_explicit(&l->h->view.write_way, memory_order_acquire);
	if (l->way == 0)
		return; /* the view wakes us when there is a primary */
	struct acquire how = {
	    .ticket = 1 + atomic_fetch_add_explicit(&l->h->next_ticket, 1, memory_order_relaxed),
	    .generation = l->way >> 8,
	    .now = now,
	    .connector = &l->h->wake,
	};
	l->pool = &l->h->pools[(l->way & 0xff) - 1];
	l->place.wake = &l->wake;
	l->queued = !dbha__pool_ask(l->pool, &how, &l->place);
}

static void seek(dbha_listener *l, int64_t now)
{
	if (l->queued && !dbha__pool_answered(l->pool, &l->place))
		return;
	if (!l->queued) {
		if (!may_try(l, now))
			return;
		ask_for_connection(l, now);
		if (l->way == 0 || l->queued)
			return;
	}
	l->queued = false;
	if (l->place.end == ACQUIRED)
		adopt(l, l->place.slot, now);
	else
		no_connection(l, now);
}

/* ---- a connection -------------------------------------------------------------------------------------------- */

/* Why the node is not where to listen any more; NULL: it is, or there is no better one. */
static const char *why_not_here(dbha_listener *l)
{
	if (atomic_load_explicit(&l->h->view.write_way, memory_order_acquire) == l->way)
		return NULL;
	const char *why = NULL;
	const struct view *view = dbha__view_borrow(&l->h->view);
	const struct node_view *node = &view->nodes[l->node];
	if (node->generation != l->slot->generation)
		why = "its node was fenced or restarted";
	else if (node->presence != PRESENT)
		why = "its node has left";
	else if ((view->primary >= 0 && view->primary != l->node) || node->role == DBHA_ROLE_STANDBY)
		why = "its node is not the primary any more";
	dbha__view_return(&l->h->view);
	return why;
}

/* An answer has been owed for too long, by a node that can answer. */
static bool is_overdue(dbha_listener *l, int64_t now)
{
	enum dbha_state state = dbha__view_borrow(&l->h->view)->nodes[l->node].state;
	dbha__view_return(&l->h->view);
	if (state == DBHA_STATE_SILENT || state == DBHA_STATE_SUSPECT || state == DBHA_STATE_STARTING)
		l->not_up_us = now;
	int64_t since = l->sent_us > l->not_up_us ? l->sent_us : l->not_up_us;
	return now - since > dbha__listener_patience_us(l) * (l->checking ? 1 : LISTEN_PATIENCES);
}

/* Everything is listened to. False: there is no memory to tell of the gap. */
static bool settle(dbha_listener *l, int64_t now)
{
	struct heard *gap = l->owed ? calloc(1, sizeof *gap) : NULL;
	if (l->owed && !gap)
		return false;
	if (gap) {
		gap->node = l->node_name;
		gap->down_us = now - l->down_since_us;
		snprintf(gap->text, sizeof gap->text, "%.170s; listening again on %.60s", l->lost, l->node_name);
		append(l, gap);
	}
	if (!l->settled_us)
		l->settled_us = now;
	l->down_since_us = 0;
	l->owed = false;
	return true;
}

static void subscribe(dbha_listener *l, int64_t now)
{
	if (!may_try(l, now))
		return;
	char *sql = dbha__listen_sql(l->slot->conn, &l->channels, &l->refusal);
	if (!sql) {
		l->refusals++;
		back_off(l, now);
		at_latest(l, l->retry_us);
		return;
	}
	begin_talking(l, now, false);
	dbha__channels_sent(&l->channels);
	dbha__listen_send(l->slot->conn, sql); /* that it could not be sent shows at the next look */
	free(sql);
}

static void answered(dbha_listener *l, int64_t now)
{
	l->talking = false;
	l->heard_us = now;
	if (l->checking)
		return;
	if (l->channels.n != l->channels.n_wanted)
		dbha__listener_purge(l); /* while it is still known what was unwanted */
	if (!l->slot)
		return;
	dbha__channels_answered(&l->channels, true);
	if (dbha__channels_settled(&l->channels) && !settle(l, now))
		lose(l, now, "out of memory");
}

/* Nothing of the command was done. Where nothing else is listened to, another connection may do better. */
static void refused(dbha_listener *l, int64_t now)
{
	l->talking = false;
	l->refusals += !l->checking;
	dbha__channels_answered(&l->channels, false);
	if (!l->settled_us) {
		l->tries += l->tries == 0; /* not at once */
		lose(l, now, l->refusal.message);
		return;
	}
	back_off(l, now);
}

static void follow_answer(dbha_listener *l, int64_t now)
{
	switch (dbha__listen_answer(l->slot->conn, &l->refusal)) {
	case LISTEN_DONE:
		answered(l, now);
		return;
	case LISTEN_REFUSED:
		refused(l, now);
		return;
	case LISTEN_BROKEN:
		lose(l, now, l->refusal.message);
		return;
	case LISTEN_UNSENT:
		at_latest(l, now + PUSH_US);
		break;
	case LISTEN_BUSY:
		break;
	}
	if (is_overdue(l, now))
		lose(l, now, "it did not answer, while its node did");
	else
		at_latest(l, now + LOOK_US);
}

static void attend(dbha_listener *l, int64_t now)
{
	const char *why = why_not_here(l);
	if (l->fresh)
		l->heard_us = now;
	l->fresh = false;
	if (why)
		lose(l, now, why);
	else if (!dbha__listen_hear(l->slot->conn, &l->refusal))
		lose(l, now, l->refusal.message);
	else if (l->talking)
		follow_answer(l, now);
	if (!l->slot || l->talking)
		return;
	if (!dbha__channels_settled(&l->channels)) {
		subscribe(l, now);
	} else if (now - l->heard_us >= quiet_us(l)) {
		begin_talking(l, now, true);
		dbha__listen_send(l->slot->conn, "");
	}
	at_latest(l, l->talking ? now + LOOK_US : l->heard_us + quiet_us(l));
}

void dbha__listener_step(dbha_listener *l, int64_t now)
{
	bool turns = l->h->shared_key != NULL;
	if (turns)
		dbha__life_turn(l->h, 0);
	/* First the signal, then what it may stand for. */
	dbha__wake_drain(&l->wake);
	l->nudged = false;
	l->timer_us = CLOCK_NEVER;
	if (l->channels.n_wanted == 0)
		return;
	if (!l->settled_us && !l->down_since_us)
		l->down_since_us = now;
	if (!l->slot)
		seek(l, now);
	if (l->slot)
		attend(l, now);
	if (turns)
		at_latest(l, now + (l->slot ? TURN_SLOW_US : TURN_FAST_US));
}

void dbha__listener_wait(dbha_listener *l, int64_t deadline)
{
	int64_t until = deadline < l->timer_us ? deadline : l->timer_us;
	/* Without a connection it is the turns that bring one. */
	if (l->h->shared_key && !l->slot && dbha__life_turn(l->h, until))
		return;
	struct pollfd items[] = {
	    {.fd = l->wake.read_fd, .events = POLLIN},
	    {.fd = l->slot ? l->slot->conn->guard_fd : -1, .events = POLLIN},
	};
	poll(items, 2, dbha__clock_poll_ms(dbha__clock_now(), until));
}
