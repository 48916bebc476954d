#include "fork.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "canceller.h"
#include "shared.h"
#include "sync.h"

static struct mutex registry_lock = {.m = PTHREAD_MUTEX_INITIALIZER, .rank = RANK_REGISTRY};
static dbha *registry;
static _Atomic unsigned generation;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int atfork_error;
/* Opened in time: at fork there may be no descriptor left, or no /dev. */
static int dev_null = -1;

unsigned dbha__fork_generation(void)
{
	return atomic_load_explicit(&generation, memory_order_relaxed);
}

/* The analysis cannot follow locks taken in one function and given back in another, for every handle there is. */
static void lock_handle(dbha *h) NO_ANALYSIS
{
	dbha__mutex_lock_for_fork(&h->lock);
	dbha__mutex_lock_for_fork(&h->loop.stepping);
	for (int i = 0; i < h->n_places; i++)
		dbha__mutex_lock_for_fork(&h->pools[i].lock);
	dbha__mutex_lock_for_fork(&h->view.lock);
	if (h->resolver)
		dbha__resolver_lock_for_fork(h->resolver);
	dbha__mutex_lock_for_fork(&h->events.lock);
	dbha__bookshelf_lock_for_fork(&h->bookshelf);
}

static void unlock_handle(dbha *h) NO_ANALYSIS
{
	dbha__bookshelf_unlock_after_fork(&h->bookshelf);
	dbha__mutex_unlock_after_fork(&h->events.lock);
	if (h->resolver)
		dbha__resolver_unlock_after_fork(h->resolver);
	dbha__mutex_unlock_after_fork(&h->view.lock);
	for (int i = h->n_places - 1; i >= 0; i--)
		dbha__mutex_unlock_after_fork(&h->pools[i].lock);
	dbha__mutex_unlock_after_fork(&h->loop.stepping);
	dbha__mutex_unlock_after_fork(&h->lock);
}

static void before_fork(void) NO_ANALYSIS
{
	dbha__mutex_lock_for_fork(&registry_lock);
	for (dbha *h = registry; h; h = h->next)
		lock_handle(h);
	dbha__shared_lock_for_fork();
}

static void unlock_all(void) NO_ANALYSIS
{
	dbha__shared_unlock_after_fork();
	for (dbha *h = registry; h; h = h->next)
		unlock_handle(h);
	dbha__mutex_unlock_after_fork(&registry_lock);
}

static void after_fork_in_child(void)
{
	atomic_fetch_add(&generation, 1);
	dbha__canceller_reset_after_fork();
	for (dbha *h = registry; h; h = h->next) {
		for (int i = 0; i < h->n_places; i++)
			dbha__pool_abandon(&h->pools[i], dev_null);
		if (atomic_load(&h->started)) {
			dbha__monitor_abandon(&h->monitor, dev_null);
			dbha__connector_abandon(&h->connector, dev_null);
		}
	}
	unlock_all();
}

static void install(void)
{
	dev_null = open("/dev/null", O_RDWR | O_CLOEXEC);
	atfork_error = dev_null < 0 ? errno : pthread_atfork(before_fork, unlock_all, after_fork_in_child);
}

int dbha__fork_register(dbha *h)
{
	pthread_once(&once, install);
	if (atfork_error)
		return atfork_error;
	dbha__mutex_lock(&registry_lock);
	h->prev = NULL;
	h->next = registry;
	if (registry)
		registry->prev = h;
	registry = h;
	dbha__mutex_unlock(&registry_lock);
	return 0;
}

void dbha__fork_unregister(dbha *h)
{
	dbha__mutex_lock(&registry_lock);
	if (h->prev)
		h->prev->next = h->next;
	else
		registry = h->next;
	if (h->next)
		h->next->prev = h->prev;
	dbha__mutex_unlock(&registry_lock);
}
