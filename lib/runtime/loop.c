#include "loop.h"

#include <stdlib.h>

#include "clock.h"
#include "thread.h"

/*
 * The longest wait of a caller's turn. What it waits for may come by another way than the poll set (a connection that another thread
 * gives back), and then it looks up after this time.
 */
#define TURN_US 5000

static bool reserve(struct loop *loop, int n)
{
	if (loop->items && n <= loop->size)
		return true;
	struct pollfd *items = realloc(loop->items, (size_t)n * 2 * sizeof *items);
	if (!items)
		return false;
	loop->items = items;
	loop->size = n * 2;
	return true;
}

/* First the wake-up descriptor, then the probes, then the connects. Returns how many, or -1 when out of memory. */
static int watch(struct loop *loop)
{
	int probes = loop->monitor->view.n_nodes;
	int n = 1 + probes + dbha__connector_count(loop->connector);
	if (!reserve(loop, n))
		return -1;
	loop->items[0] = (struct pollfd){.fd = loop->wake->read_fd, .events = POLLIN};
	dbha__monitor_watch(loop->monitor, &loop->items[1]);
	dbha__connector_watch(loop->connector, &loop->items[1 + probes]);
	return n;
}

static int64_t step(struct loop *loop)
{
	int64_t now = dbha__clock_now();
	int64_t a = dbha__monitor_step(loop->monitor, now, &loop->items[1]);
	int64_t b = dbha__connector_step(loop->connector, now, &loop->items[1 + loop->monitor->view.n_nodes]);
	return a < b ? a : b;
}

/* One turn by whoever leads: waits until something is due, `until`, or there is news; then steps. */
static void turn(struct loop *loop, int64_t until)
{
	dbha__mutex_lock(&loop->stepping);
	int n = watch(loop);
	dbha__mutex_unlock(&loop->stepping);
	if (n < 0) {
		/* Not even memory for a few descriptors: wait for better times rather than spin. */
		poll(NULL, 0, 100);
		return;
	}
	int64_t wake = atomic_load_explicit(&loop->wake_us, memory_order_relaxed);
	poll(loop->items, (nfds_t)n, dbha__clock_poll_ms(dbha__clock_now(), wake < until ? wake : until));
	if (loop->items[0].revents)
		dbha__wake_drain(loop->wake);
	dbha__mutex_lock(&loop->stepping);
	wake = step(loop);
	dbha__mutex_unlock(&loop->stepping);
	atomic_store_explicit(&loop->wake_us, wake, memory_order_relaxed);
}

static void *run(void *arg)
{
	struct loop *loop = arg;
	while (!atomic_load(&loop->stop))
		turn(loop, CLOCK_NEVER);
	return NULL;
}

int dbha__loop_init(struct loop *loop, struct monitor *monitor, struct connector *connector, struct wake *wake)
{
	loop->monitor = monitor;
	loop->connector = connector;
	loop->wake = wake;
	loop->running = false;
	loop->left_us = 0;
	loop->items = NULL;
	loop->size = 0;
	atomic_init(&loop->stop, false);
	atomic_init(&loop->led, false);
	atomic_init(&loop->wake_us, 0);
	return dbha__mutex_init(&loop->stepping, RANK_STEPPING);
}

void dbha__loop_fini(struct loop *loop)
{
	free(loop->items);
	dbha__mutex_fini(&loop->stepping);
}

int dbha__loop_start(struct loop *loop)
{
	atomic_store(&loop->led, true);
	int rc = dbha__thread_start(&loop->thread, run, loop);
	loop->running = rc == 0;
	if (rc)
		atomic_store(&loop->led, false);
	return rc;
}

void dbha__loop_stop(struct loop *loop)
{
	/* Whose turn it is leaves within a few milliseconds; then nobody gets one any more. */
	while (!loop->running && atomic_exchange(&loop->led, true))
		poll(NULL, 0, 1);
	if (!loop->running)
		return;
	atomic_store(&loop->stop, true);
	dbha__wake_signal(loop->wake);
	pthread_join(loop->thread, NULL);
	loop->running = false;
}

/* Between two turns nobody looked: a server that answered meanwhile has not been slow. */
static void skip(struct loop *loop, int64_t gap_us)
{
	dbha__mutex_lock(&loop->stepping);
	dbha__monitor_skip(loop->monitor, gap_us);
	dbha__connector_skip(loop->connector, gap_us);
	dbha__mutex_unlock(&loop->stepping);
}

bool dbha__loop_turn(struct loop *loop, int64_t until)
{
	if (atomic_exchange_explicit(&loop->led, true, memory_order_acquire))
		return false;
	int64_t now = dbha__clock_now();
	if (loop->left_us)
		skip(loop, now - loop->left_us);
	turn(loop, until < now + TURN_US ? until : now + TURN_US);
	loop->left_us = dbha__clock_now();
	atomic_store_explicit(&loop->led, false, memory_order_release);
	return true;
}

void dbha__loop_reset_after_fork(struct loop *loop)
{
	loop->running = false;
	loop->left_us = 0;
	atomic_store(&loop->stop, false);
	atomic_store(&loop->led, false);
	atomic_store(&loop->wake_us, 0);
	/* A thread of the parent may have been growing it. */
	loop->items = NULL;
	loop->size = 0;
}
