/*
 * listener: dbha_listener_open, dbha_listen, dbha_unlisten, dbha_listener_next, dbha_listener_close.
 */
#include "listener.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "dbha.h"
#include "error.h"
#include "fork.h"
#include "route.h"
#include "sqlstate.h"

dbha_listener *dbha_listener_open(dbha *h, dbha_error *err)
{
	if (dbha__life_enter(h, err) != DBHA_OK)
		return NULL;
	dbha_listener *l = calloc(1, sizeof *l);
	if (!l) {
		dbha__no_memory(err);
		dbha__life_leave(h);
		return NULL;
	}
	l->h = h;
	l->fork_generation = dbha__fork_generation();
	l->poller = POLLER_CLOSED;
	l->timer_us = CLOCK_NEVER;
	if (dbha__wake_init(&l->wake) != 0) {
		dbha__fail(err, DBHA_ERR_SYSTEM, "no descriptor for a listener: %s", strerror(errno));
		free(l);
		dbha__life_leave(h);
		return NULL;
	}
	l->watcher.wake = &l->wake;
	dbha__view_watch(&h->view, &l->watcher);
	atomic_fetch_add(&h->kept, 1); /* closing tells it, and does not wait for it */
	return l;
}

static void forget_given(dbha_listener *l)
{
	dbha__listen_free(l->given);
	l->given = NULL;
}

/* In a forked child everything shared with the parent is left alone: its sockets, its eventfd, what its epoll descriptor watches. */
static void close_in_child(dbha_listener *l)
{
	/* If the handle has not begun anew here it is still there, and must forget the listener; else it has, or is gone. */
	if (l->watcher.watching)
		dbha__life_follow_fork(l->h);
	dbha__pool_dispose(l->slot);
	if (l->queued)
		dbha__pool_dispose(l->place.slot); /* handed to us, and not taken yet */
	l->slot = NULL;
	l->queued = false;
}

void dbha_listener_close(dbha_listener *l)
{
	if (!l)
		return;
	bool parents = l->fork_generation != dbha__fork_generation();
	if (parents)
		close_in_child(l);
	dbha__listener_let_go(l);
	if (!parents) {
		dbha__view_unwatch(&l->h->view, &l->watcher);
		atomic_fetch_sub(&l->h->kept, 1);
		dbha__life_leave(l->h);
	}
	forget_given(l);
	dbha__listener_fd_close(l);
	dbha__wake_fini(&l->wake);
	dbha__channels_free(&l->channels);
	free(l);
}

/* ---- what every call begins with ----------------------------------------------------------------------------- */

int dbha__listener_forked(dbha_error *err)
{
	return dbha__fail(err, DBHA_ERR_FORKED,
	                  "the listener was opened before fork() and is the parent's: open another one");
}

static int enter(dbha_listener *l, dbha_error *err)
{
	if (l->fork_generation != dbha__fork_generation())
		return dbha__listener_forked(err);
	if (atomic_load_explicit(&l->h->closed, memory_order_acquire))
		return dbha__fail(err, DBHA_ERR_CLOSED, "the handle of the listener is closed");
	return DBHA_OK;
}

static int64_t deadline_of(const dbha_listener *l, int timeout_ms)
{
	return dbha__clock_now() + ms_to_us(timeout_ms > 0 ? timeout_ms : l->h->config.options.call_timeout_ms);
}

static bool has_more(const dbha_listener *l)
{
	return l->first || l->slot;
}

/* ---- LISTEN and UNLISTEN ------------------------------------------------------------------------------------- */

/* There is no primary, and waiting does not help: DBHA_OK if it does. */
static int hopeless(dbha_listener *l, dbha_error *err)
{
	if (l->slot || l->queued)
		return DBHA_OK;
	const struct route_query query = {.intent = DBHA_WRITE};
	enum route_end end = dbha__route(dbha__view_borrow(&l->h->view), &query).end;
	dbha__view_return(&l->h->view);
	int code = DBHA_OK;
	if (end == ROUTE_SPLIT_BRAIN)
		code = dbha__fail(err, DBHA_ERR_SPLIT_BRAIN, "two primaries on the same timeline, nobody listens to either: ");
	else if (end == ROUTE_FOREIGN)
		code = dbha__fail(err, DBHA_ERR_FOREIGN, "no node belongs to this cluster: ");
	else if (end == ROUTE_REFUSED)
		code = dbha__fail(err, DBHA_ERR_NO_NODE, "every node refuses the connection: ");
	if (code != DBHA_OK)
		dbha__call_describe_nodes(l->h, err->message, sizeof err->message);
	return code;
}

static int not_in_time(dbha_listener *l, int64_t began, dbha_error *err)
{
	long long ms = (long long)(dbha__clock_now() - began) / 1000;
	const char *trouble = l->trouble[0] ? "; last trouble: " : "";
	if (l->slot) {
		dbha__fail(err, DBHA_ERR_TIMEOUT, "%s has not confirmed it within %lld ms", l->node_name, ms);
		snprintf(err->node, sizeof err->node, "%s", l->node_name);
	} else if (l->queued) {
		dbha__fail(err, DBHA_ERR_POOL, "no connection to the primary came free in %lld ms%s%s", ms, trouble,
		           l->trouble);
	} else {
		dbha__fail(err, DBHA_ERR_NO_NODE, "looked for a primary for %lld ms and found none%s%s; ", ms, trouble,
		           l->trouble);
		dbha__call_describe_fence(l->h, err->message, sizeof err->message);
		dbha__call_describe_nodes(l->h, err->message, sizeof err->message);
	}
	return err->code;
}

/* The command was refused, or could not be made. DBHA_OK: on another connection, or later, it may be taken. */
static int judge_refusal(dbha_listener *l, dbha_error *err)
{
	const struct refusal *refusal = &l->refusal;
	if (!refusal->sqlstate[0])
		return dbha__no_memory(err);
	if (dbha__sqlstate_judge(ATTEMPT_ERROR, refusal->sqlstate, false).again != AGAIN_NEVER)
		return DBHA_OK;
	dbha__fail(err, DBHA_ERR_SERVER, "%s", refusal->message);
	snprintf(err->sqlstate, sizeof err->sqlstate, "%s", refusal->sqlstate);
	snprintf(err->node, sizeof err->node, "%s", l->node_name);
	return DBHA_ERR_SERVER;
}

/* Until the server does for a channel what the owner wants. */
static int await(dbha_listener *l, const char *name, int64_t deadline, dbha_error *err)
{
	int64_t began = dbha__clock_now();
	unsigned refusals = l->refusals;
	dbha__life_refresh(l->h, deadline);
	for (;;) {
		int64_t now = dbha__clock_now();
		int code = enter(l, err);
		if (code == DBHA_OK)
			dbha__listener_step(l, now);
		const struct channel *channel = dbha__channels_find(&l->channels, name);
		if (code == DBHA_OK && (!channel || !dbha__channels_differs(channel)))
			return DBHA_OK;
		if (code == DBHA_OK && l->refusals != refusals)
			code = judge_refusal(l, err);
		refusals = l->refusals;
		if (code == DBHA_OK)
			code = hopeless(l, err);
		if (code == DBHA_OK && now >= deadline)
			code = not_in_time(l, began, err);
		if (code != DBHA_OK) {
			err->retry_safe = code != DBHA_ERR_CLOSED && code != DBHA_ERR_SERVER;
			return code;
		}
		dbha__listener_wait(l, deadline);
	}
}

/* Nothing is wanted any more: then there is no need of a connection either. */
static void unwant(dbha_listener *l, const char *name)
{
	dbha__channels_unwant(&l->channels, name);
	if (l->channels.n_wanted == 0)
		dbha__listener_let_go(l);
	else
		dbha__listener_purge(l);
}

int dbha_listen(dbha_listener *l, const char *channel, int timeout_ms, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!l || !channel || timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "dbha_listen: the listener and the channel must not be NULL, the timeout 0 ms or more");
	if (!dbha__channels_accepts(channel))
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_listen: the name of a channel has 1 to %d bytes, this one has %zu",
		                  CHANNEL_NAME_MAX - 1, strlen(channel));
	int code = enter(l, err);
	if (code != DBHA_OK)
		return code;
	const struct channel *known = dbha__channels_find(&l->channels, channel);
	bool wanted_before = known && known->wanted;
	if (!dbha__channels_want(&l->channels, channel))
		return dbha__no_memory(err);
	code = await(l, channel, deadline_of(l, timeout_ms), err);
	if (code != DBHA_OK && !wanted_before)
		unwant(l, channel);
	dbha__listener_fd_arm(l, has_more(l));
	return code;
}

int dbha_unlisten(dbha_listener *l, const char *channel, int timeout_ms, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!l || timeout_ms < 0 || (channel && !dbha__channels_accepts(channel)))
		return dbha__fail(
		    err, DBHA_ERR_USAGE,
		    "dbha_unlisten: the listener must not be NULL, the timeout 0 ms or more, the name of a channel "
		    "has 1 to %d bytes",
		    CHANNEL_NAME_MAX - 1);
	int code = enter(l, err);
	if (code != DBHA_OK)
		return code;
	unwant(l, channel);
	/* Without a connection the server has forgotten it, or will. */
	if (channel && l->slot)
		code = await(l, channel, deadline_of(l, timeout_ms), err);
	dbha__listener_fd_arm(l, has_more(l));
	return code;
}

/* ---- notifications ------------------------------------------------------------------------------------------- */

static void give(dbha_listener *l, const struct heard *heard, dbha_notification *out)
{
	size_t size = out->size;
	dbha_notification it = {
	    .size = size,
	    .kind = heard->notify ? DBHA_NOTIFY : DBHA_GAP,
	    .backend_pid = heard->notify ? heard->notify->be_pid : 0,
	    .down_ms = heard->down_us / 1000,
	    .payload = heard->notify ? heard->notify->extra : "",
	};
	snprintf(it.channel, sizeof it.channel, "%s", heard->notify ? heard->notify->relname : "");
	snprintf(it.node, sizeof it.node, "%s", heard->node);
	snprintf(it.text, sizeof it.text, "%s", heard->text);
	l->given = heard->notify;
	memcpy(out, &it, size < sizeof it ? size : sizeof it);
}

/* That nothing came, and whether anything could have come. */
static void give_nothing(const dbha_listener *l, int64_t now, dbha_notification *out)
{
	size_t size = out->size;
	dbha_notification it = {.size = size, .kind = DBHA_NOTHING, .payload = ""};
	snprintf(it.node, sizeof it.node, "%s", l->slot ? l->node_name : "");
	bool owes = l->slot && l->talking && now - l->sent_us > dbha__listener_patience_us(l);
	if (l->channels.n_wanted && l->down_since_us) {
		it.down_ms = (now - l->down_since_us) / 1000;
		snprintf(it.text, sizeof it.text, "%s", l->trouble[0] ? l->trouble : "not connected yet");
	} else if (owes) {
		it.down_ms = (now - l->sent_us) / 1000;
		snprintf(it.text, sizeof it.text, "%.140s has not answered for %lld ms", l->node_name, (long long)it.down_ms);
	}
	it.down_ms += it.text[0] && !it.down_ms; /* 0 means that all is well */
	memcpy(out, &it, size < sizeof it ? size : sizeof it);
}

static int next(dbha_listener *l, int64_t deadline, dbha_notification *out, dbha_error *err)
{
	struct heard heard;
	if (dbha__listener_take(l, &heard)) {
		give(l, &heard, out);
		return 1;
	}
	dbha__life_refresh(l->h, deadline);
	for (;;) {
		int64_t now = dbha__clock_now();
		if (enter(l, err) != DBHA_OK)
			return -1;
		dbha__listener_step(l, now);
		if (dbha__listener_take(l, &heard)) {
			give(l, &heard, out);
			return 1;
		}
		if (now >= deadline) {
			give_nothing(l, now, out);
			return 0;
		}
		dbha__listener_wait(l, deadline);
	}
}

int dbha_listener_next(dbha_listener *l, int timeout_ms, dbha_notification *out, dbha_error *err)
{
	if (!l || !out || out->size < sizeof out->size || timeout_ms < 0) {
		dbha__fail(err, DBHA_ERR_USAGE,
		           "dbha_listener_next: the listener and the notification must not be NULL, its size must be set, the "
		           "timeout 0 ms or more");
		return -1;
	}
	if (enter(l, err) != DBHA_OK)
		return -1;
	forget_given(l);
	int64_t deadline = timeout_ms > 0 ? dbha__clock_now() + ms_to_us(timeout_ms) : 0;
	int got = next(l, deadline, out, err);
	dbha__listener_fd_arm(l, got > 0);
	return got;
}
