#include "view.h"

#include <errno.h>
#include <stdlib.h>

#include "clock.h"

int dbha__view_init(struct view_holder *holder, int n_nodes)
{
	holder->closed = false;
	holder->watchers = NULL;
	atomic_init(&holder->write_way, 0);
	holder->current = malloc(sizeof *holder->current);
	if (!holder->current)
		return ENOMEM;
	atomic_init(&holder->current->refs, 1);
	dbha__topology_init(&holder->current->view, n_nodes);
	int rc = dbha__mutex_init(&holder->lock, RANK_VIEW);
	if (!rc)
		rc = dbha__cond_init(&holder->changed);
	return rc;
}

void dbha__view_fini(struct view_holder *holder)
{
	dbha__view_drop(holder->current);
	dbha__cond_fini(&holder->changed);
	dbha__mutex_fini(&holder->lock);
}

/* Under the lock, so that no watcher goes away meanwhile; writing to an eventfd does not block. */
static void wake_everybody(struct view_holder *holder) REQUIRES(holder->lock)
{
	dbha__cond_broadcast(&holder->changed);
	for (struct view_watcher *watcher = holder->watchers; watcher; watcher = watcher->next)
		dbha__wake_signal(watcher->wake);
}

void dbha__view_watch(struct view_holder *holder, struct view_watcher *watcher)
{
	dbha__mutex_lock(&holder->lock);
	watcher->prev = NULL;
	watcher->next = holder->watchers;
	if (watcher->next)
		watcher->next->prev = watcher;
	holder->watchers = watcher;
	watcher->watching = true;
	dbha__mutex_unlock(&holder->lock);
}

void dbha__view_unwatch(struct view_holder *holder, struct view_watcher *watcher)
{
	dbha__mutex_lock(&holder->lock);
	if (watcher->prev)
		watcher->prev->next = watcher->next;
	else
		holder->watchers = watcher->next;
	if (watcher->next)
		watcher->next->prev = watcher->prev;
	watcher->watching = false;
	dbha__mutex_unlock(&holder->lock);
}

static uint64_t write_way(const struct view *view)
{
	if (!view->settled || view->split_brain || view->primary < 0)
		return 0;
	const struct node_view *node = &view->nodes[view->primary];
	return node->role == DBHA_ROLE_PRIMARY ? node->generation << 8 | (uint64_t)(view->primary + 1) : 0;
}

bool dbha__view_publish(struct view_holder *holder, const struct view *view)
{
	struct shared_view *fresh = malloc(sizeof *fresh);
	if (!fresh)
		return false;
	atomic_init(&fresh->refs, 1);
	fresh->view = *view;

	dbha__mutex_lock(&holder->lock);
	struct shared_view *old = holder->current;
	holder->current = fresh;
	uint64_t way = write_way(view);
	if (atomic_load_explicit(&holder->write_way, memory_order_relaxed) != way)
		atomic_store_explicit(&holder->write_way, way, memory_order_release);
	if (old->view.version != fresh->view.version)
		wake_everybody(holder);
	dbha__mutex_unlock(&holder->lock);
	dbha__view_drop(old);
	return true;
}

struct shared_view *dbha__view_take(struct view_holder *holder)
{
	dbha__mutex_lock(&holder->lock);
	struct shared_view *shared = holder->current;
	atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
	dbha__mutex_unlock(&holder->lock);
	return shared;
}

void dbha__view_drop(struct shared_view *shared)
{
	if (shared && atomic_fetch_sub_explicit(&shared->refs, 1, memory_order_acq_rel) == 1)
		free(shared);
}

const struct view *dbha__view_borrow(struct view_holder *holder)
{
	dbha__mutex_lock(&holder->lock);
	return &holder->current->view;
}

void dbha__view_return(struct view_holder *holder)
{
	dbha__mutex_unlock(&holder->lock);
}

bool dbha__view_wait(struct view_holder *holder, uint64_t version, int64_t deadline)
{
	dbha__mutex_lock(&holder->lock);
	while (!holder->closed && holder->current->view.version == version)
		if (!dbha__cond_wait(&holder->changed, &holder->lock, deadline))
			break;
	bool changed = !holder->closed && holder->current->view.version != version;
	dbha__mutex_unlock(&holder->lock);
	return changed;
}

void dbha__view_close(struct view_holder *holder)
{
	dbha__mutex_lock(&holder->lock);
	holder->closed = true;
	wake_everybody(holder);
	dbha__mutex_unlock(&holder->lock);
}

void dbha__view_reset_after_fork(struct view_holder *holder, int n_nodes)
{
	/* Others may have waited in the parent: what they left in the condition variable is not to be looked at again. */
	dbha__cond_init(&holder->changed);
	/* A watcher's eventfd is the parent's too. */
	for (; holder->watchers; holder->watchers = holder->watchers->next)
		holder->watchers->watching = false;
	/* A reference held by a thread of the parent is never given back here: that view is left behind, this one is ours. */
	uint64_t version = holder->current->view.version;
	struct view empty;
	dbha__topology_init(&empty, n_nodes);
	empty.version = version + 1;
	empty.timeline = holder->current->view.timeline;
	empty.system_identifier = holder->current->view.system_identifier;
	if (!dbha__view_publish(holder, &empty))
		holder->current->view = empty;
	atomic_store_explicit(&holder->write_way, 0, memory_order_release);
}
