#include "causal.h"

/* A standby that was this far behind when it was seen last has most likely not caught up since: it is not asked. */
#define FAR_BEHIND_MS 1000

void dbha__causal_on_standby(struct causal *causal, int node, uint64_t generation, int64_t now)
{
	/* What was done on the primary before is not known to be there, unless the standby was chosen for having it. */
	if (causal->seen == SEEN_PRIMARY)
		return;
	causal->seen = SEEN_STANDBY;
	causal->node = node;
	causal->generation = generation;
	causal->at_us = now;
}

void dbha__causal_again(struct causal *causal, int node, uint64_t generation, int64_t now)
{
	if (causal->seen == SEEN_STANDBY && causal->node == node && causal->generation == generation)
		causal->at_us = now;
}

void dbha__causal_on_primary(struct causal *causal)
{
	causal->seen = SEEN_PRIMARY;
}

bool dbha__causal_at(struct causal *causal, const struct token *position)
{
	bool short_of = dbha__token_beyond(&causal->floor, position);
	/* Of an older timeline it is not the primary that the session knows of: it was shut out, and has not been told yet. */
	if (position->timeline < causal->floor.timeline) {
		causal->seen = SEEN_PRIMARY;
		return false;
	}
	causal->floor = *position;
	causal->seen = SEEN_NOTHING;
	return short_of;
}

bool dbha__causal_is_since(const struct causal *causal, int64_t connected_us)
{
	return connected_us <= causal->at_us;
}

void dbha__causal_doubt(struct causal *causal)
{
	causal->generation = 0;
}

void dbha__causal_see(struct causal *causal, const struct token *token)
{
	if (!dbha__token_beyond(token, &causal->floor))
		return;
	/* The standby that had the old floor is not known to have this one, and what was seen there is not in the token. */
	if (causal->seen == SEEN_STANDBY)
		causal->seen = SEEN_PRIMARY;
	causal->floor = *token;
}

/* Where the history of the newest primary left that of `timeline`: the lowest switch point on the way; UINT64_MAX: not known. */
static uint64_t left_at(const struct history *history, uint32_t timeline)
{
	uint64_t lowest = UINT64_MAX;
	int i = history->n - 1;
	while (i >= 0 && history->list[i].is.timeline > timeline) {
		const struct history_entry *life = &history->list[i];
		/* What ended a recovery is no less than where its timeline began. */
		if (life->is.replay_lsn && life->is.replay_lsn < lowest)
			lowest = life->is.replay_lsn;
		if (!life->back)
			break;
		i -= life->back;
	}
	return lowest;
}

bool dbha__causal_follow(struct causal *causal, const struct view *view, struct token *lost)
{
	struct token *floor = &causal->floor;
	const struct history *history = &view->history;
	bool led = view->primary >= 0 && history->n > 0 && history->list[history->n - 1].is.timeline == view->timeline;
	if (!floor->timeline || floor->timeline >= view->timeline || !led)
		return false;
	*lost = *floor;
	uint64_t switched = left_at(history, floor->timeline);
	floor->timeline = view->timeline;
	if (floor->lsn <= switched)
		return false;
	floor->lsn = switched;
	return true;
}

static bool is_same_standby(const struct causal *causal, const struct view *view, uint32_t avoid)
{
	const struct node_view *node = &view->nodes[causal->node];
	return node->role == DBHA_ROLE_STANDBY && node->generation == causal->generation && dbha__topology_usable(node) &&
	       node->state == DBHA_STATE_UP && !node->behind && !(avoid & 1u << causal->node);
}

/* The primary's position, if it was looked at after the last read. */
static bool primary_since(const struct causal *causal, const struct view *view, struct token *position)
{
	if (view->primary < 0)
		return false;
	const struct node_view *node = &view->nodes[view->primary];
	if (node->seen_us < 0 || node->seen_us - node->latency_us <= causal->at_us || !node->lsn || !node->timeline)
		return false;
	*position = (struct token){view->system_identifier, node->timeline, node->lsn};
	return true;
}

struct causal_need dbha__causal_need(const struct causal *causal, const struct view *view, uint32_t avoid)
{
	struct causal_need need = {.floor = causal->floor, .stick = -1, .primary = causal->seen == SEEN_PRIMARY};
	if (causal->seen != SEEN_STANDBY)
		return need;
	struct token position;
	if (is_same_standby(causal, view, avoid))
		need.stick = causal->node;
	else if (!primary_since(causal, view, &position))
		need.primary = true;
	else if (dbha__token_beyond(&position, &need.floor))
		need.floor = position;
	return need;
}

bool dbha__causal_has(const struct node_view *node, const struct token *floor)
{
	return node->timeline >= floor->timeline && node->lsn >= floor->lsn;
}

bool dbha__causal_may_have(const struct node_view *node, const struct token *floor)
{
	return node->timeline >= floor->timeline && node->lag_ms <= FAR_BEHIND_MS;
}
