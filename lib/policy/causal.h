/*
 * causal: what a session has written and seen, and what follows for its next read: which standby may serve it. Pure.
 *
 * What is known of it as a position is its floor: a read needs a node that has replayed at least that. Fetching a position costs a
 * little, so it is not done for everything. Behind a write it travels in the same flush. Behind a read from a standby it is not
 * asked for: as long as the session goes on reading from that standby, it does not go back in time, because a server in recovery never
 * does until it is restarted, which is another generation of its connections. When the session has to leave the standby,
 * any position that the primary was seen at since then is enough: a standby has nothing that the primary had not flushed before.
 */
#ifndef DBHA_POLICY_CAUSAL_H
#define DBHA_POLICY_CAUSAL_H

#include <stdbool.h>
#include <stdint.h>

#include "token.h"
#include "topology.h"

/* What has been seen beyond the floor. */
enum seen {
	SEEN_NOTHING,
	SEEN_STANDBY, /* what `node` had at `at_us`; and it had the floor */
	SEEN_PRIMARY, /* what the primary had: its position has to be asked for */
};

struct causal {
	struct token floor; /* timeline 0: there is none */
	bool tracks;        /* positions are fetched behind what is done on the primary: from the first read on */
	enum seen seen;
	int node;
	uint64_t generation;
	int64_t at_us; /* monotonic */
};

/* What the next read needs. */
struct causal_need {
	struct token floor; /* timeline 0: nothing */
	int stick;          /* the standby that has it in any case; -1: none */
	bool primary;       /* only the primary has it in any case */
};

/*
 * A statement has been executed on a standby that was chosen, or asked, for having the floor; and on the primary, without its position
 * being known.
 */
void dbha__causal_on_standby(struct causal *causal, int node, uint64_t generation, int64_t now);
void dbha__causal_on_primary(struct causal *causal);

/*
 * One on a standby that nobody has asked: further on in a transaction, or where any standby would do. It counts only where that
 * is the one that the session has read from before.
 */
void dbha__causal_again(struct causal *causal, int node, uint64_t generation, int64_t now);

/*
 * The position of the primary behind everything that was done. True: it is short of what had been seen before on its timeline, so the
 * primary has lost something.
 */
bool dbha__causal_at(struct causal *causal, const struct token *position);

/*
 * The standby may have crashed since: after the crash of one backend it begins its recovery anew, from behind, with the same start time. Who
 * has a connection that is older than what was seen there knows that it has not.
 */
bool dbha__causal_is_since(const struct causal *causal, int64_t connected_us);
void dbha__causal_doubt(struct causal *causal);

/* Somebody else's token: to be seen as well. */
void dbha__causal_see(struct causal *causal, const struct token *token);

/*
 * After a failover: the floor is of an older timeline, and is taken over to the one of now. True, once: some of it is not in the new
 * primary's history, and *lost is what was the floor.
 */
bool dbha__causal_follow(struct causal *causal, const struct view *view, struct token *lost);

/* What a read needs now. avoid: nodes (bits) that have just failed it. */
struct causal_need dbha__causal_need(const struct causal *causal, const struct view *view, uint32_t avoid);

/* Whether a node is known to have replayed it, and whether it could have, so that asking it makes sense. */
bool dbha__causal_has(const struct node_view *node, const struct token *floor);
bool dbha__causal_may_have(const struct node_view *node, const struct token *floor);

#endif
