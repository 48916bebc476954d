/*
 * fence_file: keeps the fence (policy/fence) in a file that processes share.
 *
 * Readers need no lock: the file is only ever replaced as a whole (a new one beside it, fsync, rename, fsync of the directory). Who
 * writes holds PATH.lock by flock(2), reads again what is there and only adds to it, so that a timeline never goes down. A
 * lock that somebody else holds is tried for a bounded time. What is there but cannot be read is never overwritten.
 *
 * An object belongs to one thread at a time: the handle's loop, or whoever starts the handle.
 */
#ifndef DBHA_RUNTIME_FENCE_FILE_H
#define DBHA_RUNTIME_FENCE_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "dbha.h"
#include "fence.h"

struct fence_file {
	const char *path;    /* borrowed; NULL: no fence file is wanted, and nothing is done below */
	uint64_t accept;     /* the option accept_cluster; 0: not set */
	struct fence stored; /* as the file was read last; empty: there is none */
	struct fence known;  /* what this handle has seen itself */
	int fd; /* of the file that was read, -1: none. Open, so that its inode number cannot be another file's */
	struct stat stamp;          /* of it, when it was read */
	bool unreadable;            /* what is there is not to be overwritten */
	int64_t retry_us;           /* after a failed write: not before; 0: now */
	char trouble[DBHA_WHY_MAX]; /* why the file does not hold what it should; "": it does */
};

void dbha__fence_file_init(struct fence_file *file, const char *path, uint64_t accept);
void dbha__fence_file_fini(struct fence_file *file);

/*
 * Reads it. A file that does not exist is a first use; one that exists and cannot be read, or that could never be made, is an
 * error: who asked for a fence does not get a handle without one. DBHA_OK or an error code.
 */
int dbha__fence_file_open(struct fence_file *file, dbha_error *err);

/*
 * Looks whether the file is another one than at the last look (one stat where it is not), and sees to it that it holds this
 * timeline of this cluster (0: not known yet) before it returns. Afterwards `stored` may say that another process has seen
 * more, or has accepted another cluster. Where it could not be written, `trouble` says so, and it is tried again a second
 * later. Blocks for a write and two syncs if there is something new, and for a lock at most 40 ms.
 */
void dbha__fence_file_keep(struct fence_file *file, uint64_t system_identifier, uint32_t timeline, int64_t now);

/* The cluster that the option accept_cluster lets take the place of the one in the file; 0: none. */
uint64_t dbha__fence_file_acceptable(const struct fence_file *file);

/* Puts a cluster first, whatever the file had. Any thread, with an object of its own. Blocks for a lock at most 2 s. */
int dbha__fence_file_accept(const char *path, uint64_t system_identifier, dbha_error *err);

#endif
