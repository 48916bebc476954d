/*
 * fence: what outlives a process: which cluster is ours, and the highest timeline that was seen of it.
 *
 * The text is made for people to read, and for a torn or foreign file to be told from a whole one:
 *
 *   dbha-fence 1
 *   cluster 7311245089271830642 timeline 4
 *   check 5f0a1b6c7d8e9f01
 *
 * The first cluster is the accepted one; those behind it were accepted before, and their timelines still bind whoever goes back
 * to them. What does not print to the very same bytes is not taken. Pure: no files here, see runtime/fence_file.
 */
#ifndef DBHA_POLICY_FENCE_H
#define DBHA_POLICY_FENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "topology.h"

/* A cluster that was rebuilt more often than this is forgotten, the one accepted longest ago first. */
#define FENCE_ENTRIES_MAX 8
/* The longest text: a line is at most 49 bytes. */
#define FENCE_TEXT_MAX    512

struct fence_entry {
	uint64_t system_identifier;
	uint32_t timeline; /* the highest one seen; 0: none yet */
};

struct fence {
	int n;
	struct fence_entry entries[FENCE_ENTRIES_MAX];
};

enum fence_text {
	FENCE_TEXT_GOOD,
	FENCE_TEXT_DAMAGED, /* torn, changed by hand, or some other file */
	FENCE_TEXT_NEWER,   /* of a version of the library that knows more */
};

/* The accepted cluster; NULL: there is none yet. */
const struct fence_entry *dbha__fence_first(const struct fence *fence);

/* A timeline of a cluster has been seen: raises its entry, which never goes down, or adds one behind the others. */
void dbha__fence_note(struct fence *fence, uint64_t system_identifier, uint32_t timeline);

/* Puts a cluster first; what was seen of it before still counts. */
void dbha__fence_accept(struct fence *fence, uint64_t system_identifier);

/*
 * Whether the option accept_cluster may put a cluster first: not where it is or was in the file, so that an option that somebody
 * forgot to take out does not undo a later decision.
 */
bool dbha__fence_may_accept(const struct fence *fence, uint64_t system_identifier);

/*
 * What the file should hold: `stored` is what it holds, `known` what a process has seen, `ours` the cluster that it takes for its
 * own (0: not known yet), `accept` the option accept_cluster (0: not set). Where the file has another cluster first, it is not
 * touched. Returns whether `next` is another one than `stored`.
 */
bool dbha__fence_next(const struct fence *stored, const struct fence *known, uint64_t ours, uint64_t accept,
                      struct fence *next);

/*
 * What the fence means for a view. The other cluster: the system identifier of nodes that answer while none of ours ever has, as where
 * a cluster was rebuilt; 0: that is not so. Alone: the timeline is known from the fence only, no node has shown it.
 */
uint64_t dbha__fence_other_cluster(const struct view *view);
bool dbha__fence_knows_alone(const struct view *view);

/* Returns the length, without the NUL. */
size_t dbha__fence_print(const struct fence *fence, char text[FENCE_TEXT_MAX]);

/* On anything but GOOD, fence is empty. */
enum fence_text dbha__fence_parse(struct fence *fence, const char *text, size_t length);

#endif
