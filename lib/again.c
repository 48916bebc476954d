#include "again.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "budget.h"
#include "clock.h"

/* How long to wait for a second opinion on a node that refused a write. */
#define SECOND_LOOK_US ((int64_t)500000)
/*
 * What a healthy server needs until its sessions follow a reload. It is no bound, since each backend rereads its configuration when
 * it is next idle: where the probe's takes longer, a write that should have waited is reported.
 */
#define RELOAD_US      ((int64_t)20000)

/*
 * 25006 on a write. The node may no longer be the primary: then the view will say so, and the write goes where it belongs.
 * Its sessions may have been made read-only, as some do around a switchover: then the write waits until that is over. Or they have
 * never been anything else, or it is the statement itself: then asking again would give the same answer for ever.
 */
static bool refused_for_good(struct call *call, int node, int64_t refused_us)
{
	dbha *h = call->h;
	int64_t until = refused_us + SECOND_LOOK_US < call->deadline ? refused_us + SECOND_LOOK_US : call->deadline;
	bool waited = false;
	for (;;) {
		struct shared_view *shared = dbha__view_take(&h->view);
		const struct node_view *seen = &shared->view.nodes[node];
		bool looked = seen->seen_us > refused_us;
		bool was_writable = seen->was_writable;
		bool passing = looked && seen->read_only && was_writable;
		/* Each session of the server reads a changed configuration for itself, the probe's may be the last. */
		bool for_sure = seen->seen_us - seen->latency_us > refused_us + RELOAD_US;
		bool primary = shared->view.primary == node;
		dbha__view_drop(shared);
		if (!primary)
			return false;
		if ((looked && !was_writable) || (for_sure && !passing))
			return !waited;
		waited = waited || passing;
		if (waited)
			until = call->deadline;
		else
			dbha__monitor_alarm(&h->monitor);
		if (dbha__clock_now() >= until || !dbha__call_pause(call))
			return waited;
	}
}

/* The pause before the next attempt: none the first time, because the cause is most often this one connection. */
static bool pause_before_next(struct call *call)
{
	if (call->rounds > 1)
		return dbha__call_pause(call);
	return dbha__clock_now() < call->deadline;
}

bool dbha__again_standby_says_no(const struct call *call, const struct attempt *attempt)
{
	static const char *const codes[] = {"25006", "0A000", "55000"};
	if (call->intent != DBHA_READ || !call->on_standby || attempt->end != ATTEMPT_ERROR)
		return false;
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
		if (strcmp(attempt->sqlstate, codes[i]) == 0)
			return true;
	return false;
}

/* Whether another attempt could end no better. */
static bool is_final(struct call *call, const struct attempt *attempt, const struct retry *retry)
{
	if (retry->action == RETRY_REPORT)
		return true;
	if (attempt->end != ATTEMPT_ERROR || strcmp(attempt->sqlstate, "25006") != 0)
		return false;
	/* Sent to a standby on purpose, and refused by this one before: no other has another answer. */
	bool refused_before = call->on_standby && (call->avoid & 1u << call->last_node);
	return refused_before || refused_for_good(call, call->last_node, dbha__clock_now());
}

/*
 * What has been sent for the first time: each attempt took a connection, and each but the first was counted as a retry. Leases
 * count as traffic too. Read off counters that are kept anyway, so that a statement pays nothing for the budget.
 */
static int64_t first_attempts(dbha *h)
{
	uint64_t n = 0;
	for (int i = 0; i < h->n_places; i++) {
		n += atomic_load_explicit(&h->stats[i].acquires, memory_order_relaxed);
		n -= atomic_load_explicit(&h->stats[i].retries, memory_order_relaxed);
	}
	/* Last: the counts of a node that leaves move here (discover=dns), and rather count twice than not at all. */
	n += atomic_load_explicit(&h->handle_stats.acquires, memory_order_relaxed);
	n -= atomic_load_explicit(&h->handle_stats.retries, memory_order_relaxed);
	return (int64_t)n;
}

bool dbha__again_spend(dbha *h)
{
	struct budget budget = {
	    .percent = h->config.options.retry_budget,
	    .connections = h->n_places * h->config.options.pool_max_size,
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
static bool may_send_again(struct call *call)
{
	if (call->sent == 0 || dbha__again_spend(call->h))
		return true;
	call->over_budget = true;
	STATS_ADD(&call->h->stats[call->last_node], retries_refused, 1);
	return false;
}

bool dbha__again(struct call *call, const struct attempt *attempt, const struct verdict *verdict,
                 const struct retry *retry)
{
	int node = call->last_node;
	bool conflict = call->on_standby && strcmp(attempt->sqlstate, "40001") == 0; /* with recovery, of this standby */
	/* A read that was none is no retry of a failure: the answer was clear, and comes once in a call. */
	if (dbha__again_standby_says_no(call, attempt)) {
		call->intent = DBHA_WRITE;
		call->refused = true;
	} else if (is_final(call, attempt, retry) || !may_send_again(call))
		return false;
	else if (retry->action == RETRY_ELSEWHERE || conflict)
		call->avoid |= 1u << node;
	snprintf(call->trouble, sizeof call->trouble, "%.80s: %.160s", call->last_name, attempt->message);
	if (verdict->effect == EFFECT_UNKNOWN && call->intent != DBHA_READ)
		call->maybe_done = true;
	STATS_ADD(&call->h->stats[node], retries, 1);
	return pause_before_next(call);
}
