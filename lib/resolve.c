#include "resolve.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "call.h"
#include "clock.h"
#include "error.h"
#include "outcome_table.h"
#include "xactstatus.h"

/* The old backend may still be finishing: between two looks at it. */
#define FIRST_PAUSE_US ((int64_t)5000)
#define LAST_PAUSE_US  ((int64_t)100000)
/* How long the view is waited for, where the server that answers is in a life that the monitor has not seen yet. */
#define VIEW_WAIT_US   ((int64_t)1000000)

struct resolving {
	dbha *h;
	struct resolve *what;
	struct call call; /* its deadline is how long anything is waited for now */
	bool over;        /* there is no other answer to wait for */
	char *why;
	size_t why_size;
	char *node;
};

/* One look: it is over, or to be taken again at once, or after a pause. */
enum look {
	LOOK_DONE,
	LOOK_SOON,  /* the transaction is in progress */
	LOOK_LATER, /* the server gave no answer, or is not the one to ask */
};

static bool has_written(const struct resolving *r)
{
	return r->what->mark && r->what->mark->xid;
}

static void say(struct resolving *r, const char *text)
{
	snprintf(r->why, r->why_size, "%s", text);
}

/* Until when a question may take. */
static int64_t patience(const struct resolving *r)
{
	const struct resolve *what = r->what;
	int64_t until = what->ask_us ? dbha__clock_now() + what->ask_us : what->deadline;
	return until < what->deadline ? until : what->deadline;
}

/* The row that the transaction wrote itself. over: it is certain that it does not run any more. */
static enum outcome ask_table(struct resolving *r, struct dbha_conn *slot, bool over, struct attempt *attempt)
{
	const char *name = r->h->config.options.outcome_table;
	char sql[OUTCOME_SQL_MAX];
	if (!name || !r->what->token)
		return OUTCOME_UNKNOWN;
	dbha__outcome_table_look_up(name, sql);
	bool found = dbha__xact_look_up(slot->conn, sql, r->what->token, patience(r), attempt);
	if (attempt->end != ATTEMPT_OK) {
		snprintf(r->why, r->why_size, "outcome_table could not be read: %s", attempt->message);
		return OUTCOME_UNKNOWN;
	}
	if (found) {
		say(r, "its row is in outcome_table");
		return OUTCOME_COMMITTED;
	}
	say(r, over ? "its row is not in outcome_table" : "its row is not in outcome_table, but it may still be running");
	return over ? OUTCOME_ABORTED : OUTCOME_UNKNOWN;
}

/* The rule on what the view knows now. *unseen: the view has not seen the life of that server. */
static enum outcome_rule judge(struct resolving *r, const struct incarnation *asked, bool *unseen)
{
	struct shared_view *shared = dbha__view_take(&r->h->view);
	enum outcome_rule rule = dbha__outcome_rule(r->what->mark, asked, &shared->view.history, r->why, r->why_size);
	*unseen = dbha__history_find(&shared->view.history, asked) < 0;
	if (asked->timeline < shared->view.timeline)
		rule = OUTCOME_STALE;
	dbha__view_drop(shared);
	return rule;
}

/* Where the view may come to know more in a moment, that is waited for once. */
static bool awaits_view(struct resolving *r)
{
	int64_t now = dbha__clock_now();
	if (!r->what->view_us)
		r->what->view_us = now + VIEW_WAIT_US;
	return now < r->what->view_us && now < r->what->deadline;
}

static bool is_own_life(const struct resolving *r, const struct incarnation *asked)
{
	struct incarnation mine = dbha__outcome_incarnation(r->what->mark);
	return dbha__incarnation_same(&mine, asked);
}

static void terminate_if_due(struct resolving *r, struct dbha_conn *slot, const struct incarnation *asked)
{
	if (dbha__clock_now() < r->what->terminate_us || !is_own_life(r, asked))
		return;
	r->what->terminate_us = INT64_MAX;
	if (dbha__xact_terminate(slot->conn, r->what->mark, patience(r)))
		dbha__trace(&r->h->trace, TRACE_WARNING, "commit_terminate: ended backend %d, which still ran transaction %llu",
		            (int)r->what->mark->pid, (unsigned long long)r->what->mark->xid);
}

/*
 * Whether the table is asked although the status may be believed: a first write to temporary tables leaves no WAL, so that in another life
 * than its own the number may be another transaction's all the same. The row cannot.
 */
static bool knows_better(const struct resolving *r, const struct incarnation *asked)
{
	return r->h->config.options.outcome_table && r->what->token && !is_own_life(r, asked);
}

/* The status is of this transaction. */
static enum look believe(struct resolving *r, struct dbha_conn *slot, struct xact_answer *answer, enum outcome *outcome)
{
	switch (answer->status) {
	case XACT_COMMITTED:
		say(r, "the server says that it has committed");
		*outcome = OUTCOME_COMMITTED;
		return LOOK_DONE;
	case XACT_IN_PROGRESS:
		say(r, "the server says that it is still in progress");
		terminate_if_due(r, slot, &answer->is);
		return LOOK_SOON;
	case XACT_TOO_OLD:
		say(r, "it is so old that the server no longer knows how it ended");
		*outcome = ask_table(r, slot, true, &answer->attempt);
		return LOOK_DONE;
	case XACT_ABORTED:
	case XACT_NEVER:
	case XACT_FAILED:
		break;
	}
	say(r, "the server says that it was rolled back");
	*outcome = OUTCOME_ABORTED;
	return LOOK_DONE;
}

/*
 * The number may be another transaction's by now. Where it has not committed, ours has not: in a history with our commit in it the number
 * would be ours for ever. In another life than its own it does not run any more.
 */
static enum look doubt(struct resolving *r, struct dbha_conn *slot, struct xact_answer *answer, enum outcome *outcome)
{
	if (answer->status != XACT_COMMITTED && answer->status != XACT_TOO_OLD) {
		say(r, "no transaction of its number has committed on the primary of now");
		*outcome = OUTCOME_ABORTED;
		return LOOK_DONE;
	}
	*outcome = ask_table(r, slot, true, &answer->attempt);
	return LOOK_DONE;
}

static enum look weigh(struct resolving *r, struct dbha_conn *slot, struct xact_answer *answer, enum outcome *outcome)
{
	bool unseen;
	if (answer->status == XACT_FAILED) {
		say(r, answer->attempt.message);
		/* A role that may not ask will not be told later either. */
		return answer->attempt.end == ATTEMPT_ERROR ? LOOK_DONE : LOOK_LATER;
	}
	switch (judge(r, &answer->is, &unseen)) {
	case OUTCOME_ASK:
		if (knows_better(r, &answer->is))
			return doubt(r, slot, answer, outcome);
		return believe(r, slot, answer, outcome);
	case OUTCOME_NOT_COMMITTED:
		*outcome = OUTCOME_ABORTED;
		return LOOK_DONE;
	case OUTCOME_DOUBT:
		if (unseen && awaits_view(r))
			return LOOK_LATER;
		return doubt(r, slot, answer, outcome);
	case OUTCOME_STALE:
		break;
	}
	return LOOK_LATER;
}

static enum look ask(struct resolving *r, struct dbha_conn *slot, enum outcome *outcome)
{
	struct xact_answer answer = {.status = XACT_FAILED};
	enum look look = LOOK_DONE;
	if (has_written(r)) {
		dbha__xact_ask(slot->conn, r->what->mark->xid, patience(r), &answer);
		look = weigh(r, slot, &answer, outcome);
	} else {
		say(r, "its number is not known");
		*outcome = ask_table(r, slot, false, &answer.attempt);
	}
	snprintf(r->node, DBHA_NODE_NAME_MAX, "%s", slot->node_name);
	/* One whose last statement did not come to its end is found unusable, and closed. */
	dbha__call_return(r->h, slot, true);
	return look;
}

/* Sleeps until the next look; a change of the cluster ends it. False: it is time to go. */
static bool pause_for(struct resolving *r, enum look look)
{
	if (look == LOOK_LATER) {
		dbha__monitor_alarm(&r->h->monitor);
		return dbha__call_pause(&r->call);
	}
	int64_t until = dbha__clock_now() + r->what->pause_us;
	if (until > r->what->terminate_us)
		until = r->what->terminate_us;
	if (until > r->call.deadline)
		until = r->call.deadline;
	r->what->pause_us = 2 * r->what->pause_us < LAST_PAUSE_US ? 2 * r->what->pause_us : LAST_PAUSE_US;
	struct shared_view *shared = dbha__view_take(&r->h->view);
	uint64_t version = shared->view.version;
	dbha__view_drop(shared);
	dbha__life_wait_view(r->h, version, until);
	return dbha__clock_now() < r->call.deadline;
}

/* One round: a connection to the primary, and a look. True: it is over. */
static bool look_once(struct resolving *r, enum outcome *outcome)
{
	dbha_error err;
	if (dbha__clock_now() >= r->what->deadline) {
		say(r, "there was no time left to ask");
		r->over = true;
		return true;
	}
	r->call.avoid = 0;
	struct dbha_conn *slot = dbha__call_connection(&r->call, &err);
	if (!slot) {
		say(r, err.message);
		/* Refused, and not waited for in vain. */
		r->over = dbha__clock_now() < r->call.deadline;
		return true;
	}
	enum look look = ask(r, slot, outcome);
	r->over = look == LOOK_DONE;
	return r->over || !pause_for(r, look);
}

/* There is time left, and nobody has ended the waiting. */
static bool comes_again(const struct resolving *r)
{
	const struct cancel *cancel = r->what->cancel;
	bool ended = atomic_load(&r->h->closed) || (cancel && atomic_load(&cancel->asked));
	return r->what->until && !r->over && !ended && dbha__clock_now() < r->what->deadline;
}

/* Whoever looks for it later needs its number and its position. */
static void add_mark(struct resolving *r)
{
	const struct xact_mark *mark = r->what->mark;
	size_t used = strlen(r->why);
	if (has_written(r))
		snprintf(r->why + used, r->why_size - used, "%stransaction %" PRIu64 " at %X/%X of timeline %u",
		         used ? "; " : "", mark->xid, (unsigned)(mark->lsn >> 32), (unsigned)mark->lsn,
		         (unsigned)mark->timeline);
}

static void begin(struct resolving *r, dbha *h, struct resolve *what)
{
	int64_t now = dbha__clock_now();
	bool first = what->pause_us == 0;
	r->h = h;
	r->what = what;
	r->why[0] = r->node[0] = '\0';
	if (first) {
		what->terminate_us = h->config.options.commit_terminate ? now + (what->deadline - now) / 2 : INT64_MAX;
		what->pause_us = FIRST_PAUSE_US;
	}
	dbha__call_begin(&r->call, h, DBHA_WRITE, 0);
	r->call.began_us = now;
	r->call.ticket = what->ticket;
	r->call.cancel = what->cancel;
	r->call.deadline = what->until && what->until < what->deadline ? what->until : what->deadline;
}

enum outcome dbha__resolve(dbha *h, struct resolve *what, char *why, size_t why_size, char node[DBHA_NODE_NAME_MAX])
{
	enum outcome outcome = OUTCOME_UNKNOWN;
	struct resolving r = {.why = why, .why_size = why_size, .node = node};
	begin(&r, h, what);
	while (!look_once(&r, &outcome))
		;
	what->ticket = r.call.ticket;
	if (outcome == OUTCOME_UNKNOWN && comes_again(&r))
		return OUTCOME_LATER;
	if (outcome == OUTCOME_UNKNOWN)
		add_mark(&r);
	return outcome;
}

int dbha__resolve_fail(dbha *h, const char *why, const char *node, dbha_error *err)
{
	STATS_ADD(&h->handle_stats, unknown_outcomes, 1);
	dbha__fail(err, DBHA_ERR_UNKNOWN,
	           "the connection was lost during COMMIT, and whether it is committed is unknown: %s", why);
	snprintf(err->node, sizeof err->node, "%s", node);
	err->outcome_unknown = true;
	return err->code;
}
