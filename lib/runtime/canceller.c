#include "canceller.h"

#include <stdatomic.h>
#include <stddef.h>

#include "conn.h"
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

void dbha__canceller_send(const struct conn *conn)
{
	if (atomic_fetch_add(&running, 1) < RUNNING_MAX) {
		struct conn_cancel *cancel = dbha__conn_cancel_new(conn);
		if (cancel && dbha__thread_start(NULL, run, cancel) == 0)
			return;
		dbha__conn_cancel_free(cancel);
	}
	atomic_fetch_sub(&running, 1);
}

void dbha__canceller_reset_after_fork(void)
{
	atomic_store(&running, 0);
}
