#include "outcome.h"

#include <stdio.h>

struct incarnation dbha__outcome_incarnation(const struct xact_mark *mark)
{
	return (struct incarnation){
	    .timeline = mark->timeline,
	    .started_us = mark->started_us,
	    .replay_lsn = mark->replay_lsn,
	};
}

/* Whether the life `mine` (number `at` of the history, or -1) did not come out of `other`. */
static bool is_not_later(const struct incarnation *mine, int at, const struct incarnation *other, int other_at)
{
	if (at >= 0)
		return at < other_at;
	/* On one timeline each recovery ends further on than the one before. */
	return mine->timeline < other->timeline || (mine->replay_lsn && mine->replay_lsn < other->replay_lsn);
}

static enum outcome_rule behind(const struct xact_mark *mark, const struct incarnation *is, char *why, size_t size)
{
	snprintf(why, size,
	         "it first wrote before %X/%X of timeline %u, and of that the primary has nothing behind %X/%X: its commit "
	         "is not in "
	         "this history",
	         (unsigned)(mark->lsn >> 32), (unsigned)mark->lsn, (unsigned)mark->timeline,
	         (unsigned)(is->replay_lsn >> 32), (unsigned)is->replay_lsn);
	return OUTCOME_NOT_COMMITTED;
}

static enum outcome_rule in_doubt(const char *reason, char *why, size_t size)
{
	snprintf(why, size, "%s: its number may have been used again", reason);
	return OUTCOME_DOUBT;
}

/*
 * Goes back from the life that is asked, from each to the one it came out of, until the one in which the transaction ran. Each
 * ended its recovery at a position: behind it, nothing of an earlier life has come over.
 */
static enum outcome_rule go_back(const struct xact_mark *mark, int at, const struct history *history, char *why,
                                 size_t size)
{
	const struct incarnation mine = dbha__outcome_incarnation(mark);
	int mine_at = dbha__history_find(history, &mine);
	bool loose = false;
	while (at >= 0) {
		const struct history_entry *entry = &history->list[at];
		if (at == mine_at && !loose)
			return OUTCOME_ASK;
		if (at == mine_at)
			return in_doubt("the primary it ran on has had lives since that nobody may have seen", why, size);
		if (entry->is.replay_lsn && mark->lsn > entry->is.replay_lsn && is_not_later(&mine, mine_at, &entry->is, at))
			return behind(mark, &entry->is, why, size);
		if (!entry->back)
			break;
		at -= entry->back;
		loose = loose || (at >= 0 && entry->loose && mark->lsn > history->list[at].flushed_lsn);
	}
	return in_doubt("how this primary came out of the one that it ran on is not known", why, size);
}

enum outcome_rule dbha__outcome_rule(const struct xact_mark *mark, const struct incarnation *asked,
                                     const struct history *history, char *why, size_t why_size)
{
	char unwanted[1];
	if (!why) {
		why = unwanted;
		why_size = sizeof unwanted;
	}
	const struct incarnation mine = dbha__outcome_incarnation(mark);
	why[0] = '\0';
	if (dbha__incarnation_same(&mine, asked))
		return OUTCOME_ASK;
	if (asked->timeline < mine.timeline) {
		snprintf(why, why_size, "the server asked is on timeline %u, the transaction ran on %u",
		         (unsigned)asked->timeline, (unsigned)mine.timeline);
		return OUTCOME_STALE;
	}
	/* Whatever came before the life that goes on now, and however it went: this is where it ended. */
	if (asked->replay_lsn && mark->lsn > asked->replay_lsn)
		return behind(mark, asked, why, why_size);
	return go_back(mark, dbha__history_find(history, asked), history, why, why_size);
}
