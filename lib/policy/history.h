/*
 * history: the lives of the cluster's primary, one behind the other, and how each came out of another.
 *
 * An incarnation is one life of one server as the primary: its timeline, the start of its postmaster, and the position at
 * which it ended its recovery. Any change of the three is a break: a promotion, a restart, or the re-initialisation after one
 * backend has crashed, which has no new start time but does have a new position. What the earlier life wrote behind
 * the position does not exist in the later one, and its transaction ids are given out again. docs/outcome.md says what was
 * measured and what follows. Pure.
 */
#ifndef DBHA_POLICY_HISTORY_H
#define DBHA_POLICY_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

struct incarnation {
	uint32_t timeline;
	int64_t started_us;  /* pg_postmaster_start_time(), unix us */
	uint64_t replay_lsn; /* pg_last_wal_replay_lsn(); 0: NULL, it began without a recovery */
};

/* Failovers of some days; what fell out is answered with "unknown". */
#define HISTORY_MAX 16

struct history_entry {
	struct incarnation is;
	uint64_t flushed_lsn; /* the furthest position that was seen flushed to disk in this life */
	/*
	 * The life it came out of: so many entries before this one; 0: not known. loose: there may have been others in between that
	 * nobody saw, so that only what had been flushed in that life is certain to be in this one.
	 */
	uint8_t back;
	bool loose;
	int8_t node; /* its place */
};

struct history {
	int n;
	struct history_entry list[HISTORY_MAX]; /* the newest is the last */
};

/* What is seen of the node that is the primary now. */
struct sighting {
	struct incarnation is;
	uint64_t flushed_lsn;
	int node;
	/* The timeline of which it was a standby, in this very life of its processes; 0: not seen, or not for certain. */
	uint32_t followed;
	/* The last life seen on that timeline may have ended, and others come and gone, before this one began. */
	bool unwatched;
};

/* Takes in a sighting of the primary. One of the life that is the newest already only moves its flushed position. */
void dbha__history_see(struct history *history, const struct sighting *seen);

/* The entry of that life, and the newest of any life on a timeline; -1: there is none. */
int dbha__history_find(const struct history *history, const struct incarnation *is);
int dbha__history_last_on(const struct history *history, uint32_t timeline);

bool dbha__incarnation_same(const struct incarnation *a, const struct incarnation *b);

#endif
