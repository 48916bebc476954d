#include "canceller.h"

#include <poll.h>
#include <stdatomic.h>
#include <stddef.h>

#include "cancel.h"
#include "clock.h"
#include "thread.h"

/* More at once would only mean that nobody answers: then statements are left to find out by themselves. */
#define RUNNING_MAX 16

static _Atomic int running;

static void *run(void *arg)
{
	dbha__conn_cancel_run(arg);
	atomic_fetch_sub(&running, 1);
	return NULL;
}

bool dbha__canceller_start(struct conn_cancel *cancel)
{
	if (!cancel)
		return false;
	if (atomic_fetch_add(&running, 1) < RUNNING_MAX && dbha__thread_start(NULL, run, cancel) == 0)
		return true;
	atomic_fetch_sub(&running, 1);
	dbha__conn_cancel_free(cancel);
	return false;
}

bool dbha__canceller_send(const struct conn *conn)
{
	return dbha__canceller_start(dbha__conn_cancel_new(conn));
}

/* Looked at by the millisecond: it is for a few of them at most, and the thread that sends must not need anything of ours. */
bool dbha__canceller_settle(const struct conn *conn, int64_t until)
{
	while (dbha__conn_cancel_under_way(conn)) {
		if (dbha__clock_now() >= until)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

void dbha__canceller_reset_after_fork(void)
{
	atomic_store(&running, 0);
}
