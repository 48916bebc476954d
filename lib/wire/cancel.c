#include "cancel.h"

#include <stdatomic.h>
#include <stdlib.h>

#include <libpq-fe.h>

#include "conn.h"
#include "dbha_build.h"

struct cancel_count {
	_Atomic int refs;
	_Atomic int pending; /* goes down only when the server has acted, or the request was never sent */
};

/*
 * libpq 17 has requests that are encrypted where the connection is, and that end in success only when the server has closed in
 * an orderly way. Older ones take a reset for such a close: see statement.c, which asks for the server's own word as well.
 */
#ifdef HAVE_PQCANCELCREATE
typedef PGcancelConn libpq_cancel;
#else
typedef PGcancel libpq_cancel;
#endif

struct conn_cancel {
	libpq_cancel *libpq;
	struct cancel_count *count;
};

#ifdef HAVE_PQCANCELCREATE
static libpq_cancel *create(PGconn *pg)
{
	return PQcancelCreate(pg);
}

static bool send_and_wait(libpq_cancel *cancel)
{
	return PQcancelBlocking(cancel) == 1;
}

static void finish(libpq_cancel *cancel)
{
	PQcancelFinish(cancel);
}
#else
static libpq_cancel *create(PGconn *pg)
{
	return PQgetCancel(pg);
}

static bool send_and_wait(libpq_cancel *cancel)
{
	char why[256];
	return PQcancel(cancel, why, sizeof why) == 1;
}

static void finish(libpq_cancel *cancel)
{
	PQfreeCancel(cancel);
}
#endif

struct cancel_count *dbha__cancel_count_new(void)
{
	struct cancel_count *count = calloc(1, sizeof *count);
	if (count)
		atomic_init(&count->refs, 1);
	return count;
}

void dbha__cancel_count_drop(struct cancel_count *count)
{
	if (count && atomic_fetch_sub_explicit(&count->refs, 1, memory_order_acq_rel) == 1)
		free(count);
}

/*
 * What libpq copies here (the server's address, the session's pid and key, connection parameters) it does not change once a
 * connection is made; that is why the owner may be in the middle of a libpq call in another thread.
 */
struct conn_cancel *dbha__conn_cancel_new(const struct conn *conn)
{
	struct conn_cancel *cancel = calloc(1, sizeof *cancel);
	if (!cancel)
		return NULL;
	cancel->libpq = conn->cancels ? create(conn->pg) : NULL;
	if (!cancel->libpq) {
		free(cancel);
		return NULL;
	}
	cancel->count = conn->cancels;
	atomic_fetch_add_explicit(&cancel->count->refs, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&cancel->count->pending, 1, memory_order_relaxed);
	return cancel;
}

static void end(struct conn_cancel *cancel, bool settled)
{
	if (settled)
		atomic_fetch_sub_explicit(&cancel->count->pending, 1, memory_order_release);
	dbha__cancel_count_drop(cancel->count);
	finish(cancel->libpq);
	free(cancel);
}

void dbha__conn_cancel_run(struct conn_cancel *cancel)
{
	end(cancel, send_and_wait(cancel->libpq));
}

void dbha__conn_cancel_free(struct conn_cancel *cancel)
{
	if (cancel)
		end(cancel, true);
}

bool dbha__conn_cancel_under_way(const struct conn *conn)
{
	return conn->cancels && atomic_load_explicit(&conn->cancels->pending, memory_order_acquire) > 0;
}
