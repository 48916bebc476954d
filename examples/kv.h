/*
 * kv: the service that the event loop examples have in common: short texts under numbers, kept in a table of PostgreSQL, behind a
 * protocol of lines. It knows nothing of sockets and loops: a line becomes a request, a completion becomes a line.
 *
 *     GET id          VALUE text, or NONE (a standby may answer, which may be a moment behind)
 *     PUT id text     OK, or UNKNOWN message: the server was lost before it said what became of it; look, or put it again
 *     PING            PONG, at once
 *     anything        ERROR message: it was not done
 */
#ifndef KV_H
#define KV_H

#include <dbha.h>
#include <stddef.h>
#include <stdint.h>

#define KV_LINE_MAX   4096
#define KV_ANSWER_MAX (KV_LINE_MAX + 64)

/* Opens the cluster, makes the table where there is none, opens an engine. NULL, with a message on stderr. */
dbha_engine *kv_open(const char *url, dbha **db);

enum kv_said {
	KV_ANSWERED,  /* `answer` is what to say */
	KV_SUBMITTED, /* there will be a completion with the tag */
	KV_FULL       /* the engine takes nothing more now: try the line again when something is completed */
};

/* One line, without its newline. answer: KV_ANSWER_MAX bytes, a line with its newline. */
enum kv_said kv_line(dbha_engine *engine, const char *line, uint64_t tag, char *answer);

/* What a completion says to its client; frees its result. */
void kv_completed(dbha_completion *done, char *answer);

#endif
