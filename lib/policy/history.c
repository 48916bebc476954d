#include "history.h"

#include <string.h>

bool dbha__incarnation_same(const struct incarnation *a, const struct incarnation *b)
{
	return a->timeline == b->timeline && a->started_us == b->started_us && a->replay_lsn == b->replay_lsn;
}

int dbha__history_find(const struct history *history, const struct incarnation *is)
{
	int i = history->n - 1;
	while (i >= 0 && !dbha__incarnation_same(&history->list[i].is, is))
		i--;
	return i;
}

int dbha__history_last_on(const struct history *history, uint32_t timeline)
{
	int i = history->n - 1;
	while (i >= 0 && history->list[i].is.timeline != timeline)
		i--;
	return i;
}

/*
 * Two servers that were promoted apart from each other have timelines of one number. Who followed "timeline 2" then followed one of
 * them, and nobody can say which: only where all lives on it came out of each other is it one timeline.
 */
static bool is_one_timeline(const struct history *history, uint32_t timeline)
{
	int origins = 0;
	for (int i = 0; i < history->n; i++) {
		const struct history_entry *entry = &history->list[i];
		bool restart = entry->back && entry->back <= i && history->list[i - entry->back].is.timeline == timeline;
		origins += entry->is.timeline == timeline && !restart;
	}
	return origins == 1;
}

/*
 * A promotion. The number of the new timeline is above every one that the server knew, so where it is the very next one, the server
 * followed the one that it said: what it says may lag behind what it follows, but is never ahead of it.
 */
static void link_promotion(const struct history *history, struct history_entry *entry, const struct sighting *seen)
{
	int from = dbha__history_last_on(history, seen->followed);
	if (from < 0 || seen->is.timeline != seen->followed + 1 || !seen->is.replay_lsn)
		return;
	if (!is_one_timeline(history, seen->followed))
		return;
	entry->back = (uint8_t)(history->n - from);
	entry->loose = seen->unwatched;
}

/*
 * The same server in another life. How many lives it has had in between nobody can say: a server that crashes again and again comes up
 * for moments in which others write and we do not look. What had been flushed is in all of them.
 */
static void link_restart(const struct history *history, struct history_entry *entry, const struct sighting *seen)
{
	int from = dbha__history_last_on(history, seen->is.timeline);
	if (from < 0 || history->list[from].node != seen->node)
		return;
	if (seen->is.replay_lsn && seen->is.replay_lsn < history->list[from].flushed_lsn)
		return; /* another server at the same place */
	entry->back = (uint8_t)(history->n - from);
	entry->loose = true;
}

/* What the server replayed it had flushed first. */
static uint64_t flushed_by(const struct sighting *seen)
{
	return seen->flushed_lsn > seen->is.replay_lsn ? seen->flushed_lsn : seen->is.replay_lsn;
}

static void append(struct history *history, const struct history_entry *entry)
{
	if (history->n == HISTORY_MAX) {
		memmove(&history->list[0], &history->list[1], (HISTORY_MAX - 1) * sizeof history->list[0]);
		history->n--;
	}
	history->list[history->n++] = *entry;
}

void dbha__history_see(struct history *history, const struct sighting *seen)
{
	/* Lives that cannot be told apart are not kept: whoever looks for one finds none. */
	if (!seen->is.timeline || !seen->is.started_us)
		return;
	int known = dbha__history_find(history, &seen->is);
	if (known >= 0) {
		if (flushed_by(seen) > history->list[known].flushed_lsn)
			history->list[known].flushed_lsn = flushed_by(seen);
		return;
	}
	struct history_entry entry = {.is = seen->is, .flushed_lsn = flushed_by(seen), .node = (int8_t)seen->node};
	if (seen->followed)
		link_promotion(history, &entry, seen);
	else
		link_restart(history, &entry, seen);
	append(history, &entry);
}
