/*
 * The promises, looked after while a history runs. What the library has seen is taken from what the published views say of the
 * single nodes; what it makes of that (the timeline, the primary, whether it is settled or split) is what is being tested.
 *
 * P1. A statement that may write is sent over a connection that may write only to a primary on the highest timeline that any
 *     view published until then has shown, never to another cluster than the view's, and not before every node has been
 *     looked at. What was sent before may still be executed, as no client can prevent; but no answer of a lower timeline that comes in after the
 *     publication is received. Two primaries on one timeline: nothing is sent to either by a call that began to look for a
 *     connection after the view that knew of both was published, or that was still looking SPLIT_GRACE later.
 * P2. Nothing that is not idempotent is executed twice, on whatever server or branch of history; nothing reported as done was not
 *     done; nothing reported as certainly not done is ever executed, not even late.
 * P5. A call returns by its deadline and SLACK. What is cancelled for it is its own statement, and no other call's.
 * P6. A read does not fail while some node could have served it: one that lives, is reachable by its name, lets new sessions in and
 *     is neither a stale primary nor behind, and has been all that for PATIENCE: the time after which the library knows it
 *     by its settings, since a connect and a probe that hang in the past have to end before the next ones can succeed. A
 *     read whose own time is shorter than NOTICE may have spent it waiting for another node that was silent, and was not yet
 *     known as such. With monitor=off neither is noticed while nobody waits, so that only reads which fail for other reasons count.
 * Liveness is in faults.c.
 */
#include "check.h"

#include <string.h>

#include "view.h"

#define SPLIT_GRACE (20 * SIM_MS)
/* Real time says 50 ms; here only the preemptions of the model come on top of a deadline. */
#define SLACK       (50 * SIM_MS)

static const struct view *view_of(const struct user *user)
{
	return &user->h->view.current->view;
}

static bool writes(const struct op *op)
{
	return op->kind != OP_READ;
}

/* ---- the view ---------------------------------------------------------------------------------------------- */

static bool is_of_ours(const struct view *view, const struct node_view *node)
{
	return !view->system_identifier || !node->system_identifier || node->system_identifier == view->system_identifier;
}

/* The highest timeline of the cluster that any node was seen on. Before every node has been seen nothing is concluded. */
static uint32_t seen_timeline(const struct view *view)
{
	uint32_t highest = view->timeline;
	for (int i = 0; view->settled && i < view->n_nodes; i++)
		if (is_of_ours(view, &view->nodes[i]) && view->nodes[i].timeline > highest)
			highest = view->nodes[i].timeline;
	return highest;
}

static bool is_alive(const struct node_view *node)
{
	return node->state == DBHA_STATE_UP || node->state == DBHA_STATE_SUSPECT || node->state == DBHA_STATE_FULL ||
	       node->state == DBHA_STATE_REFUSED || node->state == DBHA_STATE_DISK_FULL;
}

/* Two servers that both say that they are the primary on the highest timeline. */
static bool is_split(const struct view *view)
{
	int64_t first = 0;
	for (int i = 0; view->settled && i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		if (node->role != DBHA_ROLE_PRIMARY || !is_alive(node) || !is_of_ours(view, node) ||
		    node->timeline != seen_timeline(view))
			continue;
		if (first && node->started_us != first)
			return true;
		first = node->started_us;
	}
	return false;
}

static bool has_seen_all(const struct view *view)
{
	for (int i = 0; i < view->n_nodes; i++)
		if (view->nodes[i].observed_us < 0)
			return false;
	return true;
}

static void trace_view(const struct view *view)
{
	char text[200];
	int used = 0;
	for (int i = 0; i < view->n_nodes && used < (int)sizeof text - 40; i++)
		used += snprintf(text + used, sizeof text - (size_t)used, " %s/%s/%u", dbha_state_name(view->nodes[i].state),
		                 dbha_role_name(view->nodes[i].role), (unsigned)view->nodes[i].timeline);
	trace("view %llu:%s, primary %d, timeline %u%s%s", (unsigned long long)view->version, text, view->primary,
	      (unsigned)view->timeline, view->split_brain ? ", split brain" : "", view->settled ? "" : ", not settled");
}

void check_view(struct user *user, const struct view *view)
{
	static uint64_t last_version;
	bool split = is_split(view);
	if (split && !user->split)
		user->split_us = sim_now();
	user->split = split;
	if (view->system_identifier && !user->system_identifier)
		user->met_foreign = world.had_foreign;
	user->system_identifier = view->system_identifier;
	uint32_t timeline = seen_timeline(view);
	user->timeline = timeline > user->timeline ? timeline : user->timeline;
	if (view->version != last_version && world.tracing)
		trace_view(view);
	last_version = view->version;
	digest(view->version);
}

/* ---- P1, P2 ------------------------------------------------------------------------------------------------ */

void check_send(const struct op *op, const struct link *link)
{
	const struct server *s = link->server;
	const struct user *user = op->user;
	const struct view *view = view_of(user);
	if (!writes(op) || s->in_recovery || link->read_only || s->state != SERVER_UP || link->life != s->life)
		return;
	unsigned long long id = op->id;
	if (!has_seen_all(view))
		violation("P1: write %llu was sent before every node had been seen", id);
	if (view->system_identifier && s->system_identifier != view->system_identifier)
		violation("P1: write %llu was sent to another cluster, on server %d", id, s->index);
	else if (s->timeline < user->timeline)
		violation("P1: write %llu was sent to server %d on timeline %u, but %u had been seen", id, s->index,
		          (unsigned)s->timeline, (unsigned)user->timeline);
	/* Both: what the thread that publishes has told check_view may be a moment behind. */
	if (user->split && is_split(view) && (op->began_us > user->split_us || sim_now() > user->split_us + SPLIT_GRACE))
		violation("P1: write %llu was sent to server %d, %lld us after the split brain was published", id, s->index,
		          (long long)(sim_now() - user->split_us));
}

void check_execution(struct op *op, const struct server *s)
{
	op->executed++;
	op->server = s->index;
	op->timeline = s->timeline;
	trace("op %llu is executed on server %d, timeline %u", (unsigned long long)op->id, s->index, (unsigned)s->timeline);
	digest(op->id << 8 | (uint64_t)s->index);
	bool once = op->kind == OP_WRITE || op->kind == OP_CALL;
	if (once && op->executed > 1)
		violation("P2: write %llu was executed twice", (unsigned long long)op->id);
	if (once && op->over && op->retry_safe)
		violation("P2: write %llu was executed after it had been reported as certainly not done",
		          (unsigned long long)op->id);
}

void check_answer(const struct op *op, const struct message *message)
{
	if (message->kind != SAY_DONE || !op || !writes(op) || message->link->read_only)
		return;
	if (!op->over && message->timeline < op->user->timeline)
		violation("P1: the answer to write %llu, of timeline %u, was received after %u had been seen",
		          (unsigned long long)op->id, (unsigned)message->timeline, (unsigned)op->user->timeline);
}

void check_cancel(const struct op *op, const struct cancel *cancel)
{
	if (cancel->op != op)
		violation("P5: statement %llu was stopped by a cancel request that was meant for what ran before it",
		          (unsigned long long)op->id);
}

/* ---- P6 ---------------------------------------------------------------------------------------------------- */

static bool is_reachable(const struct server *s)
{
	bool named =
	    !world.by_name || (world.name_leads_to[s->index] == s->index && !world.names_fail && !world.names_slow_us);
	return s->state == SERVER_UP && !s->paused && !s->full && !s->refusing && !s->slow && !s->hole[TO_SERVER] &&
	       !s->hole[TO_CLIENT] && named && server_is_ours(s);
}

static uint32_t highest_timeline(void)
{
	static uint64_t seed;
	static uint32_t highest;
	if (seed != world.seed)
		highest = 0;
	seed = world.seed;
	for (int i = 0; i < world.n; i++)
		if (server_is_ours(&world.servers[i]) && world.servers[i].timeline > highest)
			highest = world.servers[i].timeline;
	return highest;
}

static bool would_serve(const struct server *s)
{
	if (!is_reachable(s))
		return false;
	if (!s->in_recovery)
		return s->timeline == highest_timeline();
	/* With max_lag a standby counts while it follows the primary that the library measures it by. */
	if (world.users[0].config.options.max_lag_ms == 0)
		return true;
	return s->upstream >= 0 && !s->replay_paused && !world.servers[s->upstream].in_recovery &&
	       would_serve(&world.servers[s->upstream]);
}

void check_health(void)
{
	for (int i = 0; i < world.n; i++) {
		struct server *s = &world.servers[i];
		bool good = would_serve(s);
		if (!good)
			s->good_since_us = SIM_NEVER;
		else if (s->good_since_us == SIM_NEVER)
			s->good_since_us = sim_now();
	}
}

static void check_read(const struct op *op)
{
	bool ran_out = op->code == DBHA_ERR_NO_NODE || op->code == DBHA_ERR_TIMEOUT || op->code == DBHA_ERR_POOL ||
	               sim_now() >= op->deadline_us - 5 * SIM_MS;
	bool patient = op->deadline_us - op->began_us >= op->user->notice_us + 2 * op->work_us;
	if (op->code == DBHA_OK || op->user->met_foreign || (ran_out && !patient))
		return;
	if ((ran_out || op->code == DBHA_ERR_FOREIGN) && op->user->config.options.monitor == MONITOR_OFF)
		return;
	for (int i = 0; i < world.n; i++)
		if (world.servers[i].good_since_us <= sim_now() - op->user->patience_us)
			violation("P6: read %llu failed (%s) although server %d could have served for %lld ms",
			          (unsigned long long)op->id, dbha_code_name(op->code), i,
			          (long long)(sim_now() - world.servers[i].good_since_us) / 1000);
}

/* ---- what a call reports ----------------------------------------------------------------------------------- */

void check_return(struct op *op)
{
	unsigned long long id = op->id;
	op->over = true;
	digest(op->id << 16 | (uint64_t)op->code << 8 | (uint64_t)op->executed);
	if (sim_now() > op->deadline_us + SLACK)
		violation("P5: call %llu returned %lld ms after its deadline", id,
		          (long long)(sim_now() - op->deadline_us) / 1000);
	if (op->kind == OP_READ)
		check_read(op);
	if (writes(op) && op->code == DBHA_OK && op->executed == 0)
		violation("P2: write %llu was reported as done and was not", id);
	if (op->code != DBHA_OK && op->retry_safe && op->executed > 0 && op->kind != OP_HIDDEN_WRITE)
		violation("P2: write %llu was reported as certainly not done (%s), and was", id, dbha_code_name(op->code));
}

void check_end(void)
{
	/* What was late has had its time: a CALL whose second half failed was told so, and is half done. */
	for (int i = 0; i < world.n_ops; i++) {
		const struct op *op = world.ops[i];
		bool told = op->outcome_unknown || op->kind == OP_HIDDEN_WRITE || op->kind == OP_CALL;
		if (op->code != DBHA_OK && !told && writes(op) && op->executed > 0)
			violation("P2: write %llu was executed, and reported as neither done nor unknown (%s)",
			          (unsigned long long)op->id, dbha_code_name(op->code));
	}
}
