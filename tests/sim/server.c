/*
 * The servers: their lives and roles, timelines and positions.
 *
 * A primary's timeline is one more than the highest its own history knows, so that two standbys promoted apart from each other
 * end up on timelines of one number. Positions grow with time and with writes; a standby follows its upstream at a delay.
 */
#include <stdio.h>
#include <string.h>

#include "check.h"
#include "tcp.h"

void server_init(int i, uint32_t timeline, bool in_recovery)
{
	struct server *s = &world.servers[i];
	memset(s, 0, sizeof *s);
	s->index = i;
	s->state = SERVER_UP;
	s->life = 1;
	s->in_recovery = in_recovery;
	s->upstream = -1;
	s->timeline = timeline;
	s->system_identifier = OUR_CLUSTER;
	s->lsn = (uint64_t)timeline * 1000000;
	s->lsn_us = sim_now();
	s->replay_delay_us = sim_between(0, 20 * SIM_MS);
	s->latency_us = sim_between(40, 400);
	s->started_us = 1790000000 * SIM_S + (int64_t)i * 1000 * SIM_S + sim_between(0, SIM_S);
	s->good_since_us = SIM_NEVER;
}

bool server_is_ours(const struct server *s)
{
	return s->system_identifier == OUR_CLUSTER;
}

/* ---- positions --------------------------------------------------------------------------------------------- */

static bool is_streaming(const struct server *s)
{
	if (s->state != SERVER_UP || !s->in_recovery || s->upstream < 0 || s->replay_paused || s->paused)
		return false;
	const struct server *up = &world.servers[s->upstream];
	return up->state == SERVER_UP && !up->paused && server_is_ours(up) && server_is_ours(s) &&
	       up->timeline >= s->timeline;
}

uint64_t server_lsn(struct server *s)
{
	if (s->state == SERVER_UP && !s->in_recovery) {
		s->lsn += (uint64_t)(sim_now() - s->lsn_us) / 100;
		s->lsn_us = sim_now();
	}
	server_catch_up(s);
	return s->lsn;
}

void server_catch_up(struct server *s)
{
	if (!is_streaming(s))
		return;
	struct server *up = &world.servers[s->upstream];
	uint64_t behind = (uint64_t)s->replay_delay_us / 100;
	uint64_t theirs = server_lsn(up);
	if (theirs > s->lsn + behind)
		s->lsn = theirs - behind;
	s->timeline = up->timeline;
}

static void catch_up_all(void)
{
	for (int i = 0; i < world.n; i++)
		server_lsn(&world.servers[i]);
}

/* ---- lives ------------------------------------------------------------------------------------------------- */

/* What one session is told when its server goes. */
static void end_session(struct link *link, const char *words)
{
	struct message message = {.kind = SAY_FATAL};
	link->session = false;
	/* A process that is killed leaves unread data behind: then the kernel resets, and what was on its way is lost. */
	if (!words && sim_chance(500)) {
		link->lossy = true;
		message.kind = SAY_RESET;
		link_send(link, TO_CLIENT, &message);
		return;
	}
	if (words) {
		struct op *op = link->current && link->current->kind == ASK_EXEC ? link->current->op : NULL;
		snprintf(message.sqlstate, sizeof message.sqlstate, "%s", words);
		/* Between the statement's completion and the commit: told as done, and then it may be, or not. */
		message.answered = op && sim_chance(200);
		if (message.answered && op->kind != OP_READ && !link->server->in_recovery && !link->read_only &&
		    sim_chance(500))
			check_execution(op, link->server);
		link_send(link, TO_CLIENT, &message);
	}
	message.kind = SAY_END;
	link_send(link, TO_CLIENT, &message);
}

void server_stop(struct server *s, const char *words, bool quiet)
{
	trace("server %d stops%s%s%s", s->index, words ? ", saying " : "", words ? words : "",
	      quiet ? ", without a word" : "");
	catch_up_all();
	for (struct link *link = s->links; link; link = link->next)
		if (link->session && link->life == s->life && !quiet)
			end_session(link, words);
	s->links = NULL;
	s->state = SERVER_DOWN;
	s->paused = false;
	s->life++;
	check_health();
}

static void started(void *arg, uint64_t life)
{
	struct server *s = arg;
	if (s->life != life || s->state != SERVER_STARTING)
		return;
	trace("server %d is up: %s, timeline %u", s->index, s->in_recovery ? "standby" : "primary", (unsigned)s->timeline);
	s->state = SERVER_UP;
	s->recovered_lsn = s->lsn;
	s->lsn_us = sim_now();
	check_health();
}

void server_start(struct server *s)
{
	if (s->state != SERVER_DOWN)
		return;
	s->state = SERVER_STARTING;
	s->started_us = 1800000000 * SIM_S + sim_now() + s->wall_offset_us + s->index;
	sched_at(sim_now() + sim_between(5 * SIM_MS, 300 * SIM_MS), started, s, s->life);
	trace("server %d starts", s->index);
	check_health();
}

void server_pause(struct server *s, bool paused)
{
	if (s->state == SERVER_DOWN || s->paused == paused)
		return;
	trace("server %d is %s", s->index, paused ? "frozen" : "thawed");
	catch_up_all();
	s->paused = paused;
	for (struct link *link = s->links; link && !paused; link = link->next)
		if (link->session && link->life == s->life)
			session_go_on(link);
	check_health();
}

/* ---- roles ------------------------------------------------------------------------------------------------- */

static void promoted(void *arg, uint64_t life)
{
	struct server *s = arg;
	if (s->life != life || s->state != SERVER_UP || s->paused || !s->in_recovery)
		return;
	catch_up_all();
	s->in_recovery = false;
	s->upstream = -1;
	s->replay_paused = false;
	s->timeline++;
	s->recovered_lsn = s->lsn;
	s->lsn += 1000;
	s->lsn_us = sim_now();
	trace("server %d is promoted to timeline %u", s->index, (unsigned)s->timeline);
	check_health();
}

void server_promote(struct server *s)
{
	if (s->state != SERVER_UP || s->paused || !s->in_recovery)
		return;
	sched_at(sim_now() + sim_between(20 * SIM_MS, 80 * SIM_MS), promoted, s, s->life);
}

void server_follow(struct server *s, int upstream)
{
	const struct server *up = &world.servers[upstream];
	if (upstream == s->index || s->state != SERVER_UP || !s->in_recovery || up->timeline < s->timeline ||
	    !server_is_ours(s) || !server_is_ours(up))
		return;
	trace("server %d follows server %d", s->index, upstream);
	server_catch_up(s);
	s->upstream = upstream;
	server_catch_up(s);
	check_health();
}

void server_rejoin(struct server *s, int upstream)
{
	if (upstream == s->index)
		return;
	if (s->state != SERVER_DOWN)
		server_stop(s, "57P01", false);
	struct server *up = &world.servers[upstream];
	s->in_recovery = true;
	s->system_identifier = OUR_CLUSTER;
	s->was_foreign = false;
	s->upstream = upstream;
	s->replay_paused = false;
	s->timeline = up->timeline;
	s->lsn = up->lsn;
	trace("server %d rejoins as a standby of %d", s->index, upstream);
	server_start(s);
}

void server_become_foreign(struct server *s, bool primary)
{
	if (s->state != SERVER_DOWN)
		server_stop(s, NULL, false);
	trace("a foreign server takes the place of %d", s->index);
	if (!s->was_foreign) {
		s->own_timeline = s->timeline;
		s->own_in_recovery = s->in_recovery;
	}
	s->was_foreign = true;
	world.had_foreign = true;
	s->system_identifier = THEIR_CLUSTER;
	s->in_recovery = !primary;
	s->upstream = -1;
	s->timeline = (uint32_t)sim_between(1, 9);
	server_start(s);
}
