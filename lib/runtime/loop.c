#include "loop.h"

#include <stdlib.h>

#include "clock.h"
#include "thread.h"

/* The poll set, grown as needed by the loop's thread alone. */
struct poll_set {
	struct pollfd *items;
	int size;
};

static bool reserve(struct poll_set *set, int n)
{
	if (set->items && n <= set->size)
		return true;
	struct pollfd *items = realloc(set->items, (size_t)n * 2 * sizeof *items);
	if (!items)
		return false;
	set->items = items;
	set->size = n * 2;
	return true;
}

/* First the wake-up descriptor, then the probes, then the connects. Returns how many, or -1 when out of memory. */
static int watch(const struct loop *loop, struct poll_set *set)
{
	int probes = loop->monitor->view.n_nodes;
	int n = 1 + probes + dbha__connector_count(loop->connector);
	if (!reserve(set, n))
		return -1;
	set->items[0] = (struct pollfd){.fd = loop->wake->read_fd, .events = POLLIN};
	dbha__monitor_watch(loop->monitor, &set->items[1]);
	dbha__connector_watch(loop->connector, &set->items[1 + probes]);
	return n;
}

static int64_t step(struct loop *loop, const struct poll_set *set)
{
	int64_t now = dbha__clock_now();
	int64_t a = dbha__monitor_step(loop->monitor, now, &set->items[1]);
	int64_t b = dbha__connector_step(loop->connector, now, &set->items[1 + loop->monitor->view.n_nodes]);
	return a < b ? a : b;
}

static void *run(void *arg)
{
	struct loop *loop = arg;
	struct poll_set set = {0};
	int64_t wake = 0;
	while (!atomic_load(&loop->stop)) {
		dbha__mutex_lock(&loop->stepping);
		int n = watch(loop, &set);
		dbha__mutex_unlock(&loop->stepping);
		if (n < 0) {
			/* Not even memory for a few descriptors: wait for better times rather than spin. */
			poll(NULL, 0, 100);
			continue;
		}
		poll(set.items, (nfds_t)n, dbha__clock_poll_ms(dbha__clock_now(), wake));
		if (set.items[0].revents)
			dbha__wake_drain(loop->wake);
		dbha__mutex_lock(&loop->stepping);
		wake = step(loop, &set);
		dbha__mutex_unlock(&loop->stepping);
	}
	free(set.items);
	return NULL;
}

int dbha__loop_init(struct loop *loop, struct monitor *monitor, struct connector *connector, struct wake *wake)
{
	loop->monitor = monitor;
	loop->connector = connector;
	loop->wake = wake;
	loop->running = false;
	atomic_init(&loop->stop, false);
	return dbha__mutex_init(&loop->stepping, RANK_STEPPING);
}

void dbha__loop_fini(struct loop *loop)
{
	dbha__mutex_fini(&loop->stepping);
}

int dbha__loop_start(struct loop *loop)
{
	int rc = dbha__thread_start(&loop->thread, run, loop);
	loop->running = rc == 0;
	return rc;
}

void dbha__loop_stop(struct loop *loop)
{
	if (!loop->running)
		return;
	atomic_store(&loop->stop, true);
	dbha__wake_signal(loop->wake);
	pthread_join(loop->thread, NULL);
	loop->running = false;
}
