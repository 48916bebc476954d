/*
 * judgement: what an attempt means for its call: again, elsewhere, or what to report. For statements whose callers wait (statement) and
 * for those of an engine, which nobody waits for: nothing here waits.
 */
#ifndef DBHA_JUDGEMENT_H
#define DBHA_JUDGEMENT_H

#include <stdbool.h>
#include <stdint.h>

#include "attempt.h"
#include "call.h"
#include "retry.h"
#include "sqlstate.h"

struct judgement {
	struct verdict verdict;
	struct retry retry;
	/* For the report. */
	bool continued;  /* an earlier call has begun it */
	bool may_commit; /* it may be a COMMIT, whose outcome is asked for first */
};

/* Judges an attempt, and has the node or the cluster looked at where it says something about them. */
void dbha__judge(struct call *call, const struct statement_facts *facts, const struct attempt *attempt,
                 struct judgement *judged);

/* Counts it. */
void dbha__judge_count(const struct call *call, const struct attempt *attempt);

/* Whether a standby has refused it as something that only a primary does: it is run there, as a write. */
bool dbha__judge_standby_says_no(const struct call *call, const struct attempt *attempt);

/* Whether another attempt could end no better. */
enum finality {
	NOT_FINAL,
	FINAL,
	FINAL_IF_REFUSED_FOR_GOOD, /* 25006: that takes a second look */
};
enum finality dbha__judge_finality(const struct call *call, const struct attempt *attempt, const struct retry *retry);

/* A second look at a node that has refused a write with 25006: what it is now, or what its sessions may do, is news. */
struct second_look {
	int64_t refused_us;
	int64_t until; /* without an answer by then: it was refused for good if `waited`, and else it goes again */
	bool waited;
};

enum looked {
	LOOKED_AGAIN, /* things have changed: it goes again */
	LOOKED_FINAL, /* they have not, and will not */
	LOOKED_LATER, /* not known yet */
};

void dbha__judge_begin_look(const struct call *call, int64_t refused_us, struct second_look *look);
enum looked dbha__judge_look(struct call *call, struct second_look *look);

/* Whether the budget allows it to be sent again; spends a retry. What was never sent costs nothing. */
bool dbha__judge_may_send_again(struct call *call);

/* It goes again: notes why, and where not. */
void dbha__judge_again(struct call *call, const struct attempt *attempt, const struct judgement *judged);

/* It does not. Returns the code. */
int dbha__judge_report(const struct call *call, const struct attempt *attempt, const struct judgement *judged,
                       dbha_error *err);

/* Spends a retry of the handle's budget. False: there is none left. */
bool dbha__judge_spend_retry(dbha *h);

#endif
