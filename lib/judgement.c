#include "judgement.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "budget.h"
#include "clock.h"
#include "error.h"

/* How long to wait for a second opinion on a node that refused a write. */
#define SECOND_LOOK_US ((int64_t)500000)
/*
 * What a healthy server needs until its sessions follow a reload. It is no bound, since each backend rereads its configuration when
 * it is next idle: where the probe's takes longer, a write that should have waited is reported.
 */
#define RELOAD_US      ((int64_t)20000)

/* What the message says beside the server's or libpq's own words. */
static const char *advice_for(const struct retry *retry, bool continued)
{
	switch (retry->code) {
	case DBHA_ERR_TIMEOUT:
		return retry->outcome_unknown ? "; it may still be executed" : "";
	case DBHA_ERR_UNKNOWN:
		return "; whether it was executed is unknown: do not repeat it unless that is harmless";
	case DBHA_ERR_LOST:
		return continued ? "; the rest of it did not come" : "; it was not executed";
	default:
		return "";
	}
}

int dbha__judge_report(const struct call *call, const struct attempt *attempt, const struct judgement *judged,
                       dbha_error *err)
{
	const struct retry *retry = &judged->retry;
	dbha *h = call->h;
	/* What became of a COMMIT is asked first. */
	if (retry->outcome_unknown && !judged->may_commit)
		STATS_ADD(&h->stats[call->last_node], unknown_outcomes, 1);
	if (retry->code == DBHA_ERR_TIMEOUT)
		STATS_ADD(&h->stats[call->last_node], timeouts, 1);
	char refused[96] = "";
	if (call->over_budget)
		snprintf(refused, sizeof refused, "; not sent again: retry_budget (%d %% of the statements) is used up",
		         h->config.options.retry_budget);
	dbha__fail(err, retry->code, "%s%s%s (%s, after %lld ms)", attempt->message, advice_for(retry, judged->continued),
	           refused, call->last_name, (long long)(dbha__clock_now() - call->began_us) / 1000);
	if (retry->code == DBHA_ERR_SERVER)
		snprintf(err->sqlstate, sizeof err->sqlstate, "%s", attempt->sqlstate);
	err->retry_safe = retry->retry_safe && !call->maybe_done;
	err->outcome_unknown = retry->outcome_unknown || call->maybe_done;
	err->attempts = call->sent;
	snprintf(err->node, sizeof err->node, "%s", call->last_name);
	return retry->code;
}

void dbha__judge_begin_look(const struct call *call, int64_t refused_us, struct second_look *look)
{
	*look = (struct second_look){.refused_us = refused_us, .until = refused_us + SECOND_LOOK_US};
	if (look->until > call->deadline)
		look->until = call->deadline;
}

enum looked dbha__judge_look(struct call *call, struct second_look *look)
{
	int node = call->last_node;
	struct shared_view *shared = dbha__view_take(&call->h->view);
	const struct node_view *seen = &shared->view.nodes[node];
	bool looked = seen->seen_us > look->refused_us;
	bool was_writable = seen->was_writable;
	bool passing = looked && seen->read_only && was_writable;
	/* Each session of the server reads a changed configuration for itself, the probe's may be the last. */
	bool for_sure = seen->seen_us - seen->latency_us > look->refused_us + RELOAD_US;
	bool primary = shared->view.primary == node;
	dbha__view_drop(shared);
	if (!primary)
		return LOOKED_AGAIN;
	if ((looked && !was_writable) || (for_sure && !passing))
		return look->waited ? LOOKED_AGAIN : LOOKED_FINAL;
	look->waited = look->waited || passing;
	if (look->waited)
		look->until = call->deadline;
	else
		dbha__monitor_alarm(&call->h->monitor);
	return LOOKED_LATER;
}

/*
 * A read that turned out to be something only a primary does: a write (25006), an unlogged or temporary table, a sequence
 * or WAL function (0A000, 55000). Without effect on the standby, it is run on the primary, as a write. The codes have other
 * uses; then the primary says the same, and that is reported.
 */
bool dbha__judge_standby_says_no(const struct call *call, const struct attempt *attempt)
{
	static const char *const codes[] = {"25006", "0A000", "55000"};
	if (call->intent != DBHA_READ || !call->on_standby || attempt->end != ATTEMPT_ERROR)
		return false;
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(attempt->sqlstate, codes[i]) == 0)
			return true;
	return false;
}

enum finality dbha__judge_finality(const struct call *call, const struct attempt *attempt, const struct retry *retry)
{
	if (retry->action == RETRY_REPORT)
		return FINAL;
	if (attempt->end != ATTEMPT_ERROR || strcmp(attempt->sqlstate, "25006") != 0)
		return NOT_FINAL;
	/* Sent to a standby on purpose, and refused by this one before: no other has another answer. */
	bool refused_before = call->on_standby && (call->avoid & 1u << call->last_node);
	return refused_before ? FINAL : FINAL_IF_REFUSED_FOR_GOOD;
}

/*
 * What has been sent for the first time: each attempt took a connection, and each but the first was counted as a retry. Leases
 * count as traffic too. Read off counters that are kept anyway, so that a statement pays nothing for the budget.
 */
static int64_t first_attempts(dbha *h)
{
	uint64_t n = (uint64_t)atomic_load_explicit(&h->piped, memory_order_relaxed);
	for (int i = 0; i < h->n_places; i++) {
		n += atomic_load_explicit(&h->stats[i].acquires, memory_order_relaxed);
		n -= atomic_load_explicit(&h->stats[i].retries, memory_order_relaxed);
	}
	/* Last: the counts of a node that leaves move here (discover=dns), and rather count twice than not at all. */
	n += atomic_load_explicit(&h->handle_stats.acquires, memory_order_relaxed);
	n -= atomic_load_explicit(&h->handle_stats.retries, memory_order_relaxed);
	return (int64_t)n;
}

bool dbha__judge_spend_retry(dbha *h)
{
	struct budget budget = {
	    .percent = h->config.options.retry_budget,
	    .connections =
	        h->n_places * h->config.options.pool_max_size + atomic_load_explicit(&h->piped_most, memory_order_relaxed),
	};
	int64_t earned = dbha__budget_earned(&budget, first_attempts(h), dbha__clock_now() - h->began_us);
	int64_t spent = atomic_load_explicit(&h->retries_spent, memory_order_relaxed);
	for (int64_t wanted = spent; dbha__budget_spend(&budget, earned, &wanted); wanted = spent)
		if (atomic_compare_exchange_weak_explicit(&h->retries_spent, &spent, wanted, memory_order_relaxed,
		                                          memory_order_relaxed))
			return true;
	return false;
}

/*
 * A statement that has never been sent spends nothing: waiting for the new primary, or trying another connection because this one was
 * found dead, puts no load on anybody.
 */
bool dbha__judge_may_send_again(struct call *call)
{
	if (call->sent == 0 || dbha__judge_spend_retry(call->h))
		return true;
	call->over_budget = true;
	STATS_ADD(&call->h->stats[call->last_node], retries_refused, 1);
	return false;
}

void dbha__judge_again(struct call *call, const struct attempt *attempt, const struct judgement *judged)
{
	int node = call->last_node;
	bool conflict = call->on_standby && strcmp(attempt->sqlstate, "40001") == 0; /* with recovery, of this standby */
	/* A read that was none is no retry of a failure: the answer was clear, and comes once in a call. */
	if (dbha__judge_standby_says_no(call, attempt)) {
		call->intent = DBHA_WRITE;
		call->refused = true;
	} else if (judged->retry.action == RETRY_ELSEWHERE || conflict)
		call->avoid |= 1u << node;
	snprintf(call->trouble, sizeof call->trouble, "%.80s: %.160s", call->last_name, attempt->message);
	/* One that was not committed yet is rolled back, whatever became of its connection. */
	if (judged->retry.outcome_unknown && call->intent != DBHA_READ)
		call->maybe_done = true;
	STATS_ADD(&call->h->stats[node], retries, 1);
}

void dbha__judge_count(const struct call *call, const struct attempt *attempt)
{
	struct stats *stats = &call->h->stats[call->last_node];
	bool refused = attempt->end == ATTEMPT_ERROR || attempt->end == ATTEMPT_FATAL;
	if (attempt->end == ATTEMPT_OK || refused)
		STATS_ADD(stats, statements, 1);
	if (refused)
		STATS_ADD(stats, statement_errors, 1);
}

/* Two ends of which more is known than their kind says. */
static void refine(struct retry *retry, const struct attempt *attempt, bool reads)
{
	if (attempt->prepared_only) {
		retry->retry_safe = true;
		retry->outcome_unknown = false;
	}
	if (attempt->copied_out) {
		retry->retry_safe = reads;
		retry->outcome_unknown = !reads;
	}
}

void dbha__judge(struct call *call, const struct statement_facts *facts, const struct attempt *attempt,
                 struct judgement *judged)
{
	judged->verdict = dbha__sqlstate_judge(attempt->end, attempt->sqlstate, attempt->answered);
	judged->verdict.keep = judged->verdict.keep && !attempt->in_doubt;
	if (attempt->end == ATTEMPT_OK)
		return;
	if (strcmp(attempt->sqlstate, "53100") == 0)
		dbha__monitor_report(&call->h->monitor, call->last_node, FAILURE_DISK_FULL, attempt->message);
	if (judged->verdict.alarm)
		dbha__monitor_alarm(&call->h->monitor);
	judged->retry = dbha__retry(attempt->end, &judged->verdict, facts);
	refine(&judged->retry, attempt, facts->reads || facts->uncommitted);
}
