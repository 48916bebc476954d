/*
 * lease: dbha_acquire and dbha_release, a connection of the caller's own for a while.
 */
#include "call.h"
#include "clock.h"
#include "dbha.h"
#include "error.h"
#include "sessionstate.h"

dbha_conn *dbha_acquire(dbha *h, dbha_intent intent, int timeout_ms, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (timeout_ms < 0 || intent < DBHA_DEFAULT || intent > DBHA_WRITE) {
		dbha__fail(err, DBHA_ERR_USAGE,
		           "dbha_acquire: intent %d, timeout %d ms: an intent of the header and 0 ms or more", (int)intent,
		           timeout_ms);
		return NULL;
	}
	if (dbha__life_enter(h, err) != DBHA_OK)
		return NULL;
	struct call call;
	dbha__call_begin(&call, h, intent, timeout_ms);
	dbha_conn *slot = dbha__call_connection(&call, err);
	if (slot)
		dbha__conn_lend(slot->conn); /* the reference of this call becomes the lease's */
	else
		dbha__life_leave(h);
	return slot;
}

PGconn *dbha_conn_pq(const dbha_conn *conn)
{
	if (!conn)
		return NULL;
	conn->conn->used |= USE_ASKED; /* what is done with it is not seen here */
	return conn->conn->pg;
}

const char *dbha_conn_node(const dbha_conn *conn)
{
	return conn ? conn->node_name : NULL;
}

void dbha_release(dbha_conn *conn)
{
	if (!conn)
		return;
	/* In a forked child a lease of the parent's time is only memory: /dev/null is in the place of its socket. */
	if (!conn->orphan)
		dbha__life_follow_fork(conn->handle);
	if (conn->orphan) {
		dbha__pool_dispose(conn);
		return;
	}
	dbha *h = conn->handle;
	dbha__conn_take_back(conn->conn);
	dbha__call_return(h, conn, true);
	dbha__life_leave(h);
}
