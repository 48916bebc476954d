#include "again.h"

#include "clock.h"

/*
 * 25006 on a write. The node may no longer be the primary: then the view will say so, and the write goes where it belongs.
 * Its sessions may have been made read-only, as some do around a switchover: then the write waits until that is over. Or they have
 * never been anything else, or it is the statement itself: then asking again would give the same answer for ever.
 */
static bool refused_for_good(struct call *call)
{
	struct second_look look;
	dbha__judge_begin_look(call, dbha__clock_now(), &look);
	for (;;) {
		enum looked looked = dbha__judge_look(call, &look);
		if (looked != LOOKED_LATER)
			return looked == LOOKED_FINAL;
		if (dbha__clock_now() >= look.until || !dbha__call_pause(call))
			return look.waited;
	}
}

/* Whether another attempt could end no better. */
static bool is_final(struct call *call, const struct attempt *attempt, const struct retry *retry)
{
	enum finality finality = dbha__judge_finality(call, attempt, retry);
	return finality == FINAL || (finality == FINAL_IF_REFUSED_FOR_GOOD && refused_for_good(call));
}

/* The pause before the next attempt: none the first time, because the cause is most often this one connection. */
static bool pause_before_next(struct call *call)
{
	if (call->rounds > 1)
		return dbha__call_pause(call);
	return dbha__clock_now() < call->deadline;
}

bool dbha__again(struct call *call, const struct attempt *attempt, const struct judgement *judged)
{
	if (!dbha__judge_standby_says_no(call, attempt) &&
	    (is_final(call, attempt, &judged->retry) || !dbha__judge_may_send_again(call)))
		return false;
	dbha__judge_again(call, attempt, judged);
	return pause_before_next(call);
}
