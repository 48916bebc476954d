/*
 * session_copy: COPY FROM STDIN and COPY TO STDOUT in a session. They hold their connection until their end, as a result that is read row by
 * row does; see session_stream.c.
 */
#include "error.h"
#include "session.h"

/* What a step of a COPY takes along. */
struct copy {
	struct statement st; /* first: the step is given this */
	dbha_request request;
	const char *in;
	size_t length;
	const char *refusal;
	char *out;
};

static struct copy *copy_of(struct statement *st)
{
	return (struct copy *)st;
}

static void begin(dbha_session *s, struct copy *copy, statement_step *step, int timeout_ms, PGresult **result,
                  dbha_error *err)
{
	dbha__session_step(s, &copy->st, &copy->request, timeout_ms, result, err);
	copy->st.step = step;
}

/* ---- in ------------------------------------------------------------------------------------------------------------- */

int dbha_session_copy_in(dbha_session *s, const dbha_request *request, dbha_error *err)
{
	return dbha__session_open_stream(s, "dbha_session_copy_in", STREAM_COPY_IN, request, err);
}

static void put(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	struct copy *copy = copy_of(st);
	(void)conn;
	dbha__stream_put(st->stream, copy->in, copy->length, st->call.deadline, attempt);
}

static int put_entered(dbha_session *s, const char *data, size_t length, int timeout_ms, dbha_error *err)
{
	if (dbha__stream_put_at_once(&s->streaming.wire, data, length))
		return DBHA_OK;
	PGresult *result = NULL;
	struct copy copy = {.in = data, .length = length};
	begin(s, &copy, put, timeout_ms, &result, err);
	int code = dbha__session_go_on(s, &copy.st);
	PQclear(result);
	if (code != DBHA_OK)
		dbha__session_end_stream(s);
	return code;
}

int dbha_session_copy_put(dbha_session *s, const char *data, size_t length, int timeout_ms, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!data && length > 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_copy_put: data is NULL, and length %zu", length);
	if (timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_copy_put: timeout_ms is %d: 0 or more", timeout_ms);
	int code = dbha__session_enter_stream(s, "dbha_session_copy_put", STREAM_COPY_IN, err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, put_entered(s, data ? data : "", length, timeout_ms, err), err);
}

static void end(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	(void)conn;
	dbha__stream_end(st->stream, copy_of(st)->refusal, st->call.deadline, attempt);
}

static int end_entered(dbha_session *s, const char *refusal, int timeout_ms, PGresult **result, dbha_error *err)
{
	struct copy copy = {.refusal = refusal};
	dbha_error met;
	bool in_transaction = s->tx != TX_NONE;
	begin(s, &copy, end, timeout_ms, result, &met);
	int code = dbha__session_go_on(s, &copy.st);
	dbha__session_end_stream(s);
	/* That nothing is kept is what was asked for. Where its connection was lost over it, that is more than was asked. */
	bool as_wanted = refusal && (code == DBHA_ERR_SERVER || !in_transaction) && !s->state_lost;
	if (code == DBHA_OK || as_wanted)
		return DBHA_OK;
	*err = met;
	return code;
}

int dbha_session_copy_end(dbha_session *s, const char *refusal, int timeout_ms, PGresult **result, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!result)
		return dbha__fail(err, DBHA_ERR_USAGE,
		                  "dbha_session_copy_end: result is NULL: give it the address of a PGresult *");
	*result = NULL;
	if (timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_copy_end: timeout_ms is %d: 0 or more", timeout_ms);
	int code = dbha__session_enter_stream(s, "dbha_session_copy_end", STREAM_COPY_IN, err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, end_entered(s, refusal, timeout_ms, result, err), err);
}

/* ---- out ------------------------------------------------------------------------------------------------------------ */

int dbha_session_copy_out(dbha_session *s, const dbha_request *request, dbha_error *err)
{
	return dbha__session_open_stream(s, "dbha_session_copy_out", STREAM_COPY_OUT, request, err);
}

static void get(struct statement *st, struct conn *conn, struct attempt *attempt)
{
	struct copy *copy = copy_of(st);
	(void)conn;
	dbha__stream_get(st->stream, st->call.deadline, &copy->out, &copy->length, attempt);
}

static int get_entered(dbha_session *s, int timeout_ms, char **data, size_t *length, dbha_error *err)
{
	*data = dbha__stream_get_at_once(&s->streaming.wire, length);
	if (*data)
		return DBHA_OK;
	PGresult *result = NULL;
	struct copy copy = {.out = NULL};
	begin(s, &copy, get, timeout_ms, &result, err);
	int code = dbha__session_go_on(s, &copy.st);
	PQclear(result);
	*data = copy.out;
	*length = copy.length;
	if (!*data)
		dbha__session_end_stream(s);
	return code;
}

int dbha_session_copy_get(dbha_session *s, int timeout_ms, char **data, size_t *length, dbha_error *err)
{
	dbha_error unwanted;
	if (!err)
		err = &unwanted;
	if (!data || !length)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_copy_get: data or length is NULL");
	*data = NULL;
	*length = 0;
	if (timeout_ms < 0)
		return dbha__fail(err, DBHA_ERR_USAGE, "dbha_session_copy_get: timeout_ms is %d: 0 or more", timeout_ms);
	int code = dbha__session_enter_stream(s, "dbha_session_copy_get", STREAM_COPY_OUT, err);
	if (code != DBHA_OK)
		return code;
	return dbha__session_leave(s, get_entered(s, timeout_ms, data, length, err), err);
}
