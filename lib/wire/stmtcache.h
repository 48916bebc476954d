/*
 * stmtcache: the prepared statements of one connection, by text and parameter types; least recently used first out.
 */
#ifndef DBHA_WIRE_STMTCACHE_H
#define DBHA_WIRE_STMTCACHE_H

#include <stddef.h>
#include <stdint.h>

struct stmtcache;

#define STMT_NAME_MAX 24

/* What the cache says of a statement. */
enum stmt_advice {
	STMT_ONCE,     /* seen for the first time: run it unnamed, a statement that never returns costs nothing more */
	STMT_PREPARE,  /* it came back: prepare it under `name`, then dbha__stmtcache_prepared */
	STMT_PREPARED, /* run `name` */
};

struct stmt {
	enum stmt_advice advice;
	const char *name;            /* valid until the next call with the cache */
	unsigned hints;              /* of its text, see policy/sessionstate */
	char evicted[STMT_NAME_MAX]; /* a name the server still has and is to deallocate; "" if none */
};

/* A cache for `size` statements, 1 and up; NULL when out of memory. */
struct stmtcache *dbha__stmtcache_new(int size);
void dbha__stmtcache_free(struct stmtcache *cache);

/* Looks a statement up and counts the use. sql is copied where it is kept. */
void dbha__stmtcache_use(struct stmtcache *cache, const char *sql, int n_params, const unsigned *types,
                         struct stmt *out);

/* The server has prepared `name`, or has refused to: it is forgotten. */
void dbha__stmtcache_prepared(struct stmtcache *cache, const char *name);
void dbha__stmtcache_refused(struct stmtcache *cache, const char *name);

/* The server has forgotten all of them: DEALLOCATE ALL, DISCARD ALL. The statements stay known, their names are not used again. */
void dbha__stmtcache_clear(struct stmtcache *cache);

#endif
