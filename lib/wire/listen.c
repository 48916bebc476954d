#include "listen.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A text that grows. Once memory has run out it stays NULL. */
struct text {
	char *bytes;
	size_t length;
	size_t size;
};

static bool append(struct text *text, const char *part)
{
	size_t length = strlen(part);
	if (text->length + length + 1 > text->size) {
		size_t size = 2 * (text->length + length) + 256;
		char *bytes = realloc(text->bytes, size);
		if (!bytes)
			return false;
		text->bytes = bytes;
		text->size = size;
	}
	memcpy(text->bytes + text->length, part, length + 1);
	text->length += length;
	return true;
}

static bool append_command(struct text *text, struct conn *conn, const struct channel *channel, struct refusal *refusal)
{
	char *name = PQescapeIdentifier(conn->pg, channel->name, strlen(channel->name));
	if (!name) {
		snprintf(refusal->sqlstate, sizeof refusal->sqlstate, "22021");
		dbha__conn_first_line(refusal->message, sizeof refusal->message, PQerrorMessage(conn->pg));
		return false;
	}
	bool done = append(text, channel->wanted ? "LISTEN " : "UNLISTEN ") && append(text, name) && append(text, ";");
	PQfreemem(name);
	return done;
}

char *dbha__listen_sql(struct conn *conn, const struct channels *channels, struct refusal *refusal)
{
	struct text text = {.bytes = NULL};
	*refusal = (struct refusal){.message = "out of memory"};
	for (int i = 0; i < channels->n; i++) {
		const struct channel *channel = &channels->list[i];
		if (!dbha__channels_differs(channel) || append_command(&text, conn, channel, refusal))
			continue;
		free(text.bytes);
		return NULL;
	}
	return text.bytes;
}

bool dbha__listen_send(struct conn *conn, const char *sql)
{
	return PQsendQuery(conn->pg, sql) && PQflush(conn->pg) >= 0;
}

static void how_it_ended(struct conn *conn, struct refusal *refusal)
{
	const char *message = PQerrorMessage(conn->pg);
	*refusal = (struct refusal){.sqlstate = ""};
	dbha__conn_first_line(refusal->message, sizeof refusal->message, *message ? message : "the connection was closed");
}

bool dbha__listen_hear(struct conn *conn, struct refusal *refusal)
{
	if (PQconsumeInput(conn->pg) && PQstatus(conn->pg) == CONNECTION_OK)
		return true;
	how_it_ended(conn, refusal);
	return false;
}

static void keep_error(struct refusal *refusal, const PGresult *result)
{
	const char *state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	dbha__conn_first_line(refusal->sqlstate, sizeof refusal->sqlstate, state ? state : "");
	dbha__conn_first_line(refusal->message, sizeof refusal->message, message ? message : PQresultErrorMessage(result));
}

/* An error stays in `refusal` while the answer is not there as a whole: it is the caller's, from one call to the next. */
enum listen_answer dbha__listen_answer(struct conn *conn, struct refusal *refusal)
{
	int unsent = PQflush(conn->pg);
	while (!PQisBusy(conn->pg)) {
		PGresult *result = PQgetResult(conn->pg);
		ExecStatusType status = PQresultStatus(result);
		bool good = status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY || status == PGRES_TUPLES_OK;
		if (result && !good && !refusal->message[0])
			keep_error(refusal, result);
		PQclear(result);
		if (result)
			continue;
		if (PQstatus(conn->pg) == CONNECTION_OK)
			return refusal->message[0] ? LISTEN_REFUSED : LISTEN_DONE;
		if (!refusal->message[0])
			how_it_ended(conn, refusal);
		return LISTEN_BROKEN;
	}
	return unsent ? LISTEN_UNSENT : LISTEN_BUSY;
}

PGnotify *dbha__listen_take(struct conn *conn)
{
	return PQnotifies(conn->pg);
}

void dbha__listen_free(PGnotify *notify)
{
	PQfreemem(notify);
}
