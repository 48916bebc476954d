#include "kv.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How many requests may wait in the engine. The clients beyond that wait where they are, unread. */
#define QUEUE 64

static bool make_table(dbha *db)
{
	dbha_error err;
	PGresult *result;
	const char *sql = "CREATE TABLE IF NOT EXISTS dbha_kv (id bigint PRIMARY KEY, said text NOT NULL)";
	int code = dbha_exec(db, &DBHA_REQUEST(.sql = sql, .intent = DBHA_WRITE), &result, &err);
	PQclear(result);
	if (code != DBHA_OK)
		fprintf(stderr, "%s\n", err.message);
	return code == DBHA_OK;
}

dbha_engine *kv_open(const char *url, dbha **db)
{
	dbha_error err;
	*db = dbha_open(url, &err);
	dbha_engine *engine = *db ? dbha_engine_open(*db, &DBHA_ENGINE_OPTIONS(.queue = QUEUE), &err) : NULL;
	if (!engine)
		fprintf(stderr, "%s\n", err.message);
	/* The loop does not run yet, so that this may wait. */
	if (engine && make_table(*db))
		return engine;
	dbha_engine_close(engine);
	dbha_close(*db, 0);
	*db = NULL;
	return NULL;
}

static enum kv_said submit(dbha_engine *engine, const dbha_request *request, uint64_t tag, char *answer)
{
	dbha_error err;
	int code = dbha_submit(engine, request, tag, &err);
	if (code == DBHA_OK)
		return KV_SUBMITTED;
	if (code == DBHA_ERR_POOL)
		return KV_FULL;
	snprintf(answer, KV_ANSWER_MAX, "ERROR %s\n", err.message);
	return KV_ANSWERED;
}

enum kv_said kv_line(dbha_engine *engine, const char *line, uint64_t tag, char *answer)
{
	char id[24];
	int begin = 0;
	snprintf(answer, KV_ANSWER_MAX, "ERROR say GET id, PUT id text, or PING\n");
	if (strcmp(line, "PING") == 0) {
		strcpy(answer, "PONG\n");
	} else if (sscanf(line, "GET %23[0-9]%n", id, &begin) == 1 && line[begin] == '\0') {
		const char *values[] = {id};
		return submit(engine,
		              &DBHA_REQUEST(.sql = "SELECT said FROM dbha_kv WHERE id = $1", .intent = DBHA_READ, .n_params = 1,
		                            .values = values),
		              tag, answer);
	} else if (sscanf(line, "PUT %23[0-9]%n", id, &begin) == 1 && line[begin] == ' ') {
		const char *values[] = {id, line + begin + 1};
		return submit(engine,
		              &DBHA_REQUEST(.sql = "INSERT INTO dbha_kv VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET said = "
		                                   "excluded.said",
		                            .intent = DBHA_WRITE, .n_params = 2, .values = values),
		              tag, answer);
	}
	return KV_ANSWERED;
}

/* A line of the protocol ends at its newline, so that there must be none in it. */
static void say(char *answer, const char *word, const char *text)
{
	snprintf(answer, KV_ANSWER_MAX - 1, "%s%s", word, text);
	for (char *at = answer; (at = strpbrk(at, "\r\n"));)
		*at = ' ';
	strcat(answer, "\n");
}

void kv_completed(dbha_completion *done, char *answer)
{
	if (done->code != DBHA_OK)
		say(answer, done->error.outcome_unknown ? "UNKNOWN " : "ERROR ", done->error.message);
	else if (PQresultStatus(done->result) != PGRES_TUPLES_OK)
		say(answer, "OK", "");
	else if (PQntuples(done->result) > 0)
		say(answer, "VALUE ", PQgetvalue(done->result, 0, 0));
	else
		say(answer, "NONE", "");
	PQclear(done->result);
}
