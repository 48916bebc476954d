#include "lives.h"

static struct incarnation life_of(const struct node_view *node)
{
	return (struct incarnation){
	    .timeline = node->timeline,
	    .started_us = node->started_us,
	    .replay_lsn = node->replay_lsn,
	};
}

/* Whether it goes on with the life in which it was seen last; a promotion does not end one. */
static bool same_life(const struct node_view *node, const struct observation *o)
{
	if (!node->started_us || node->started_us != o->started_us)
		return false;
	if (node->role == DBHA_ROLE_STANDBY)
		return o->kept || o->in_recovery;
	return node->role == DBHA_ROLE_PRIMARY && !o->in_recovery && node->replay_lsn == o->replay_lsn;
}

void dbha__lives_look(struct node_view *node, const struct observation *o)
{
	if (node->observed_us >= 0 && o->at_us - node->observed_us > LIVES_BLIND_US)
		node->unwatched = true;
	if (o->failure == FAILURE_STARTING)
		node->unwatched = true; /* it is coming up, and may have been up when nobody looked */
	if (o->failure != FAILURE_NONE)
		return;
	bool same = same_life(node, o);
	if (same)
		node->unwatched = false;
	if (o->in_recovery)
		node->followed = o->timeline;
	else if (!same)
		node->followed = 0;
}

/*
 * Whether the last life that was seen on a timeline may have been followed by others: it was seen to start again, or was out of sight for
 * a while, or its server is in another life by now.
 */
static bool is_unwatched(const struct view *view, uint32_t timeline)
{
	int last = dbha__history_last_on(&view->history, timeline);
	if (last < 0)
		return true;
	const struct history_entry *entry = &view->history.list[last];
	const struct node_view *node = &view->nodes[entry->node];
	struct incarnation life = life_of(node);
	return node->unwatched || !dbha__incarnation_same(&life, &entry->is);
}

void dbha__lives_follow(struct view *view)
{
	if (view->primary < 0)
		return;
	const struct node_view *node = &view->nodes[view->primary];
	if (node->role != DBHA_ROLE_PRIMARY)
		return;
	struct sighting seen = {
	    .is = life_of(node),
	    .flushed_lsn = node->lsn,
	    .node = view->primary,
	    .followed = node->followed,
	    .unwatched = node->followed && is_unwatched(view, node->followed),
	};
	dbha__history_see(&view->history, &seen);
}
