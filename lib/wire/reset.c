#include "reset.h"

#include <string.h>

#include "sessionstate.h"
#include "wait.h"

bool dbha__reset_send(struct conn *conn)
{
	char sql[1024];
	bool rollback = dbha__conn_state(conn) == CONN_IN_TRANSACTION;
	if (!rollback && conn->used == 0)
		return true;
	unsigned used = conn->used;
	/* Set by us, see identity.h: RESET ALL would take it away. */
	bool reader = used & (USE_SETTINGS | USE_ASKED) && conn->read_only_set;
	if (!dbha__sessionstate_reset(used, rollback, conn->standby, sql, sizeof sql))
		return false;
	if (reader) {
		const char again[] = "; SET default_transaction_read_only = on";
		strncat(sql, again, sizeof sql - strlen(sql) - 1);
	}
	conn->used = 0;
	conn->resetting = true;
	return PQsendQuery(conn->pg, sql) && PQflush(conn->pg) == 0;
}

enum reset_step dbha__reset_step(struct conn *conn)
{
	while (!PQisBusy(conn->pg)) {
		PGresult *result = PQgetResult(conn->pg);
		if (!result) {
			conn->resetting = false;
			return dbha__conn_state(conn) == CONN_IDLE ? RESET_DONE : RESET_FAILED;
		}
		ExecStatusType status = PQresultStatus(result);
		PQclear(result);
		if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK)
			return RESET_FAILED;
	}
	return RESET_BUSY;
}

enum reset_step dbha__reset_hear(struct conn *conn)
{
	/* That it failed shows in the step. */
	PQconsumeInput(conn->pg);
	return dbha__reset_step(conn);
}

bool dbha__reset_finish(struct conn *conn, int64_t deadline)
{
	enum reset_step step = conn->resetting ? RESET_BUSY : RESET_DONE;
	while (step == RESET_BUSY && dbha__wait_result(conn, deadline) == WAITED_READY)
		step = dbha__reset_step(conn);
	conn->resetting = false;
	return step == RESET_DONE;
}
