#include "life.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "error.h"
#include "fork.h"
#include "rng.h"
#include "shared.h"

static int init_pools(dbha *h)
{
	const struct config_options *options = &h->config.options;
	struct pool_limits limits = {
	    /* Without a thread nobody keeps connections for later. */
	    .min_size = options->monitor == MONITOR_ON ? options->pool_min_size : 0,
	    .max_size = options->pool_max_size,
	    .max_connecting = options->pool_max_connecting,
	    .max_waiting = options->pool_max_waiting,
	    .max_idle_ms = options->pool_max_idle_ms,
	    .max_lifetime_ms = options->pool_max_lifetime_ms,
	};
	for (int i = 0; i < h->n_places; i++) {
		int rc = dbha__pool_init(&h->pools[i], h->config.nodes[i].name, &limits, &h->stats[i]);
		if (rc)
			return rc;
	}
	return 0;
}

static int init_parts(dbha *h)
{
	const struct config_options *options = &h->config.options;
	int rc = dbha__mutex_init(&h->lock, RANK_HANDLE);
	if (!rc && dbha__trace_init(&h->trace, (enum trace_level)options->log_level, options->log_file) != 0)
		rc = errno;
	if (!rc)
		rc = dbha__view_init(&h->view, h->n_places);
	if (!rc)
		rc = dbha__events_init(&h->events);
	if (!rc)
		rc = dbha__loop_init(&h->loop, &h->monitor, &h->connector, &h->wake);
	if (!rc)
		rc = init_pools(h);
	if (!rc)
		rc = dbha__bookshelf_init(&h->bookshelf, options->routing == ROUTING_AUTO);
	if (!rc && options->monitor == MONITOR_OFF && !(h->shared_key = dbha__shared_key(&h->config)))
		rc = ENOMEM;
	return rc;
}

dbha *dbha__life_new(const struct config *config, dbha_error *err)
{
	dbha *h = aligned_alloc(_Alignof(dbha), sizeof *h);
	if (!h) {
		dbha__fail(err, DBHA_ERR_MEMORY, "out of memory while opening a handle");
		return NULL;
	}
	memset(h, 0, sizeof *h);
	if (dbha__config_copy(&h->config, config, err) != DBHA_OK) {
		free(h);
		return NULL;
	}
	h->n_places = dbha__discover_places(&h->config);
	atomic_init(&h->refs, 1);
	atomic_init(&h->fork_generation, dbha__fork_generation());
	atomic_init(&h->randomness, dbha__rng_entropy(h));
	h->wake.read_fd = h->wake.write_fd = -1;
	h->trace.fd = -1;
	dbha__fence_file_init(&h->fence, h->config.options.fence_file, h->config.options.accept_cluster);
	if (dbha__fence_file_open(&h->fence, err) != DBHA_OK) {
		dbha__fence_file_fini(&h->fence);
		dbha__config_fini(&h->config);
		free(h);
		return NULL;
	}
	int rc = init_parts(h);
	if (!rc)
		rc = dbha__fork_register(h);
	if (!rc)
		return h;
	if (h->config.options.log_file && h->trace.fd < 0 && h->config.options.log_level != TRACE_OFF)
		dbha__fail(err, DBHA_ERR_CONFIG, "log_file \"%s\" cannot be opened: %s", h->config.options.log_file,
		           strerror(rc));
	else
		dbha__fail(err, DBHA_ERR_SYSTEM, "a handle could not be set up: %s", strerror(rc));
	/* What has been initialised is memory and nothing else: mutexes that were never used need no end of their own. */
	dbha__trace_fini(&h->trace);
	dbha__fence_file_fini(&h->fence);
	free(h->view.current);
	dbha__classcache_free(atomic_load(&h->bookshelf.verdicts));
	free(h->shared_key);
	dbha__config_fini(&h->config);
	free(h);
	return NULL;
}

static void free_handle(dbha *h)
{
	for (int i = 0; i < h->n_places; i++)
		dbha__pool_fini(&h->pools[i]);
	dbha__monitor_fini(&h->monitor); /* a call that outlived the drain may have left a report */
	dbha__loop_fini(&h->loop);
	dbha__events_fini(&h->events);
	dbha__view_fini(&h->view);
	dbha__resolver_close(h->resolver);
	dbha__wake_fini(&h->wake);
	dbha__trace_fini(&h->trace);
	dbha__mutex_fini(&h->lock);
	dbha__fence_file_fini(&h->fence);
	dbha__bookshelf_fini(&h->bookshelf);
	free(h->shared_key);
	dbha__names_free(&h->names);
	dbha__config_fini(&h->config);
	free(h);
}

/* ---- starting ---------------------------------------------------------------------------------------------- */

static int start_locked(dbha *h) REQUIRES(h->lock)
{
	int64_t now = dbha__clock_now();
	struct monitor_world world = {
	    .config = &h->config,
	    .holder = &h->view,
	    .pools = h->pools,
	    .stats = h->stats,
	    .handle_stats = &h->handle_stats,
	    .names = &h->names,
	    .events = &h->events,
	    .trace = &h->trace,
	    .wake = &h->wake,
	    .fence = &h->fence,
	    .shared_key = h->shared_key,
	};
	if (h->wake.read_fd < 0 && dbha__wake_init(&h->wake) != 0)
		return errno;
	if (!h->resolver)
		h->resolver = dbha__resolver_new(&h->config, &h->wake);
	if (!h->resolver)
		return ENOMEM;
	world.resolver = h->resolver;
	h->began_us = now;
	dbha__monitor_init(&h->monitor, &world, now);
	dbha__connector_init(&h->connector, &h->monitor, h, now);
	/* So that nobody takes the vacant places of the very first view for nodes. */
	if (!dbha__view_publish(&h->view, &h->monitor.view))
		return ENOMEM;
	dbha__monitor_adopt(&h->monitor, now);
	int rc = h->shared_key ? 0 : dbha__loop_start(&h->loop);
	if (!rc)
		atomic_store_explicit(&h->started, true, memory_order_release);
	return rc;
}

static int start(dbha *h, dbha_error *err)
{
	dbha__mutex_lock(&h->lock);
	bool closed = atomic_load(&h->closed);
	bool idle = !closed && !atomic_load(&h->started);
	/* Again, for what others have seen since the handle was opened, or since the parent of this process began. */
	int code = idle ? dbha__fence_file_open(&h->fence, err) : DBHA_OK;
	int rc = idle && code == DBHA_OK ? start_locked(h) : 0;
	dbha__mutex_unlock(&h->lock);
	if (code != DBHA_OK)
		return code;
	if (closed)
		return dbha__fail(err, DBHA_ERR_CLOSED, "the handle is closed");
	if (rc)
		return dbha__fail(err, DBHA_ERR_SYSTEM, "the handle's background thread could not be started: %s",
		                  strerror(rc));
	return DBHA_OK;
}

/*
 * The first call in a forked child. Everything is as it was in the parent between two steps of its loop (the locks taken at
 * fork see to that), all sockets lead to /dev/null, and no thread of the parent exists here.
 */
static void revive_locked(dbha *h) REQUIRES(h->lock)
{
	if (atomic_load(&h->started)) {
		dbha__connector_fini(&h->connector);
		dbha__monitor_fini(&h->monitor);
	}
	for (int i = 0; i < h->n_places; i++)
		dbha__pool_reset_after_fork(&h->pools[i]);
	dbha__loop_reset_after_fork(&h->loop);
	/* A lookup that was running in the parent keeps its reference for ever: the resolver is left behind, not freed. */
	dbha__resolver_close(h->resolver);
	h->resolver = NULL;
	/* An eventfd is shared with the parent: signals must not cross. */
	dbha__wake_fini(&h->wake);
	dbha__events_fini(&h->events);
	dbha__events_init(&h->events);
	memset(h->stats, 0, sizeof h->stats);
	memset(&h->handle_stats, 0, sizeof h->handle_stats);
	dbha__view_reset_after_fork(&h->view, h->n_places);
	dbha__bookshelf_reset_after_fork(&h->bookshelf);
	atomic_store(&h->randomness, dbha__rng_entropy(h));
	atomic_store(&h->retries_spent, 0);
	atomic_store(&h->piped, 0);
	atomic_store(&h->piped_most, 0);
	atomic_store(&h->refs, 1);
	atomic_store(&h->kept, 0);
	atomic_store(&h->marks_refused, false);
	atomic_store(&h->started, false);
}

void dbha__life_follow_fork(dbha *h)
{
	unsigned generation = dbha__fork_generation();
	if (atomic_load_explicit(&h->fork_generation, memory_order_relaxed) == generation)
		return;
	dbha__mutex_lock(&h->lock);
	if (atomic_load(&h->fork_generation) != generation) {
		revive_locked(h);
		atomic_store(&h->fork_generation, generation);
	}
	dbha__mutex_unlock(&h->lock);
}

int dbha__life_enter(dbha *h, dbha_error *err)
{
	if (!h)
		return dbha__fail(err, DBHA_ERR_USAGE, "the handle is NULL: open one with dbha_open");
	dbha__life_follow_fork(h);
	atomic_fetch_add_explicit(&h->refs, 1, memory_order_relaxed);
	int code = DBHA_OK;
	if (atomic_load_explicit(&h->closed, memory_order_acquire))
		code = dbha__fail(err, DBHA_ERR_CLOSED, "the handle is closed");
	else if (!atomic_load_explicit(&h->started, memory_order_acquire))
		code = start(h, err);
	if (code != DBHA_OK)
		dbha__life_leave(h);
	return code;
}

/* ---- monitor=off ------------------------------------------------------------------------------------------- */

/* How long somebody waits while another thread is at it, before it looks whether it is its turn. */
#define LOOK_UP_US 5000

bool dbha__life_turn(void *h, int64_t until)
{
	return dbha__loop_turn(&((dbha *)h)->loop, until);
}

bool dbha__life_wait_view(dbha *h, uint64_t version, int64_t deadline)
{
	if (!h->shared_key)
		return dbha__view_wait(&h->view, version, deadline);
	for (;;) {
		bool turned = dbha__loop_turn(&h->loop, deadline);
		int64_t now = dbha__clock_now();
		int64_t until = turned ? now : now + LOOK_UP_US;
		if (dbha__view_wait(&h->view, version, until < deadline ? until : deadline))
			return true;
		if (now >= deadline || atomic_load(&h->closed))
			return false;
	}
}

static int64_t observed(dbha *h)
{
	const struct view *view = dbha__view_borrow(&h->view);
	int64_t at = view->settled ? view->observed_us : INT64_MAX;
	dbha__view_return(&h->view);
	return at;
}

void dbha__life_refresh(dbha *h, int64_t deadline)
{
	if (!h->shared_key)
		return;
	int64_t now = dbha__clock_now();
	if (now >= atomic_load_explicit(&h->loop.wake_us, memory_order_relaxed))
		dbha__loop_turn(&h->loop, 0);
	/* What nobody has looked at for two intervals is old; what does not answer counts as looked at after its timeout. */
	int64_t interval = ms_to_us(h->config.options.probe_interval_ms);
	int64_t patience = now + ms_to_us(h->config.options.probe_timeout_ms);
	int64_t until = patience < deadline ? patience : deadline;
	while (now - observed(h) > 2 * interval && dbha__clock_now() < until)
		if (!dbha__loop_turn(&h->loop, until))
			poll(NULL, 0, 1);
}

void dbha__life_leave(dbha *h)
{
	if (atomic_fetch_sub_explicit(&h->refs, 1, memory_order_acq_rel) == 1)
		free_handle(h);
}

/* ---- stopping ---------------------------------------------------------------------------------------------- */

static void stop_pools(dbha *h, bool cut)
{
	for (int i = 0; i < h->n_places; i++)
		dbha__pool_dispose(dbha__pool_stop(&h->pools[i], cut));
}

/*
 * Calls, leases and sessions hold references; a session without a connection has nothing to end. Closing is rare and its waiting
 * coarse; a condition variable would have to be signalled by somebody who may be freeing the very memory it lies in.
 */
static void wait_for_others(dbha *h, int64_t deadline)
{
	while (atomic_load_explicit(&h->refs, memory_order_acquire) - atomic_load(&h->kept) > 1 &&
	       dbha__clock_now() < deadline)
		poll(NULL, 0, 1);
}

void dbha__life_close(dbha *h, int drain_ms)
{
	dbha__life_follow_fork(h);
	/* First phase: nothing new, and those who wait for something leave. */
	dbha__mutex_lock(&h->lock);
	atomic_store_explicit(&h->closed, true, memory_order_release);
	dbha__mutex_unlock(&h->lock);
	dbha__view_close(&h->view);
	stop_pools(h, false);
	wait_for_others(h, dbha__clock_now() + ms_to_us(drain_ms > 0 ? drain_ms : 0));
	/* Second phase: what still runs is cut; the thread goes; what it held is closed. */
	stop_pools(h, true);
	dbha__mutex_lock(&h->lock);
	if (atomic_load(&h->started)) {
		dbha__loop_stop(&h->loop);
		dbha__connector_fini(&h->connector);
		dbha__monitor_fini(&h->monitor);
	}
	dbha__mutex_unlock(&h->lock);
	stop_pools(h, true); /* a connect may have succeeded in between */
	dbha__fork_unregister(h);
	dbha__life_leave(h);
}

uint64_t dbha__life_random(dbha *h)
{
	struct rng rng = {.state = atomic_fetch_add_explicit(&h->randomness, 0x9e3779b97f4a7c15ULL, memory_order_relaxed)};
	return dbha__rng_next(&rng);
}

const char *dbha__life_name_in(const dbha *h, const struct view *view, int place)
{
	const char *name = view->nodes[place].name;
	return name ? name : h->config.nodes[place].name;
}

const char *dbha__life_node_name(dbha *h, int place)
{
	const char *name = dbha__life_name_in(h, dbha__view_borrow(&h->view), place);
	dbha__view_return(&h->view);
	return name;
}
