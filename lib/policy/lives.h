/*
 * lives: what the looks at the nodes tell of the lives of their servers, and the view's memory of them (policy/history).
 *
 * A standby that is promoted has ended its recovery at the switch point, and tells it for as long as that life of its processes
 * lasts. A connection that was open before and is open after proves that it is the same one: a server that crashes ends
 * all of them. So a promotion counts as seen only where the kept connection of the probe has seen both sides of it.
 */
#ifndef DBHA_POLICY_LIVES_H
#define DBHA_POLICY_LIVES_H

#include "topology.h"

/*
 * A server that nobody has looked at for longer may have come up, let others write, and gone again. A failover ends in a few hundred
 * milliseconds where it is awaited, with looks in between every 150 ms at most.
 */
#define LIVES_BLIND_US ((int64_t)2000000)

/* Before an observation is taken over into `node`. */
void dbha__lives_look(struct node_view *node, const struct observation *o);

/* After the view was judged: takes the primary, if there is one, into the view's history. */
void dbha__lives_follow(struct view *view);

#endif
