/*
 * Faults, drawn at random: each of a list, and now and then a failover as people make it, whole, with the old primary
 * coming back as it was.
 */
#include "faults.h"

#include "check.h"
#include "machine.h"

/* ---- single faults; each ends by itself or is one that a later one takes back ------------------------------- */

static struct server *some_server(void)
{
	return &world.servers[sim_between(0, world.n - 1)];
}

static struct server *some_primary(void)
{
	int first = (int)sim_between(0, world.n - 1);
	for (int i = 0; i < world.n; i++) {
		struct server *s = &world.servers[(first + i) % world.n];
		if (!s->in_recovery && server_is_ours(s))
			return s;
	}
	return NULL;
}

static struct server *some_standby(void)
{
	int first = (int)sim_between(0, world.n - 1);
	for (int i = 0; i < world.n; i++) {
		struct server *s = &world.servers[(first + i) % world.n];
		if (s->in_recovery && s->state == SERVER_UP && server_is_ours(s))
			return s;
	}
	return NULL;
}

/* Half of the troubles hit a primary, where they hurt most. */
static struct server *victim(void)
{
	struct server *primary = sim_chance(500) ? some_primary() : NULL;
	return primary ? primary : some_server();
}

static int64_t some_time(void)
{
	if (sim_chance(200))
		return 3600 * SIM_S; /* until everything is mended */
	return sim_chance(300) ? sim_between(1 * SIM_MS, 100 * SIM_MS) : sim_between(100 * SIM_MS, 4 * SIM_S);
}

static void crash(struct server *s)
{
	static const char *const words[] = {"57P01", "57P02", NULL, NULL};
	if (s->state != SERVER_DOWN)
		server_stop(s, words[sim_between(0, 3)], sim_chance(200));
}

static void start(void *arg, uint64_t number)
{
	(void)number;
	if (!world.mended)
		server_start(arg);
}

static void crash_and_return(struct server *s)
{
	crash(s);
	sched_at(sim_now() + some_time(), start, s, 0);
}

static void thaw(void *arg, uint64_t number)
{
	(void)number;
	server_pause(arg, false);
}

static void freeze(struct server *s)
{
	server_pause(s, true);
	sched_at(sim_now() + some_time(), thaw, s, 0);
}

static void close_holes(void *arg, uint64_t number)
{
	struct server *s = arg;
	(void)number;
	trace("server %d can be reached", s->index);
	for (enum way way = TO_SERVER; way <= TO_CLIENT; way++)
		if (s->hole[way])
			net_hole(s, way, false);
	check_health();
}

/* Packets are swallowed, most often both ways; one way only: statements that arrive and answers that do not. */
static void open_holes(struct server *s)
{
	bool both = sim_chance(600);
	enum way way = sim_chance(500) ? TO_SERVER : TO_CLIENT;
	trace("server %d: packets are swallowed%s", s->index, both ? "" : way == TO_SERVER ? ", to it" : ", from it");
	net_hole(s, way, true);
	if (both)
		net_hole(s, way == TO_SERVER ? TO_CLIENT : TO_SERVER, true);
	sched_at(sim_now() + some_time(), close_holes, s, 0);
	check_health();
}

static void promote(void)
{
	struct server *s = some_standby();
	if (s)
		server_promote(s);
}

static int best_primary(void)
{
	int best = -1;
	for (int i = 0; i < world.n; i++) {
		const struct server *s = &world.servers[i];
		bool candidate = s->state == SERVER_UP && !s->in_recovery && server_is_ours(s);
		if (candidate && (best < 0 || s->timeline > world.servers[best].timeline))
			best = i;
	}
	return best;
}

static void rejoin(struct server *s)
{
	int primary = best_primary();
	/* Nobody throws the newest branch of history away: a client that has seen it would rightly refuse all others. */
	if (primary >= 0 && world.servers[primary].timeline >= (s->was_foreign ? s->own_timeline : s->timeline))
		server_rejoin(s, primary);
}

static void follow_all(void *arg, uint64_t number)
{
	(void)arg;
	(void)number;
	int primary = world.mended ? -1 : best_primary();
	for (int i = 0; i < world.n && primary >= 0; i++)
		if (sim_chance(800))
			server_follow(&world.servers[i], primary);
}

static void toggle(bool *trouble, const char *name, const struct server *s)
{
	*trouble = !*trouble;
	trace("server %d: %s is %s", s->index, name, *trouble ? "on" : "off");
	check_health();
}

static void move_name(void)
{
	if (!world.names_move)
		return;
	int name = (int)sim_between(0, world.n - 1);
	world.name_leads_to[name] = sim_chance(500) ? name : (int)sim_between(0, world.n - 1);
	trace("name n%d leads to server %d", name, world.name_leads_to[name]);
	check_health();
}

static void trouble_names(void)
{
	world.names_fail = sim_chance(300);
	world.names_slow_us = sim_chance(500) ? 3 * SIM_S : 0;
	trace("names %s, %s", world.names_fail ? "fail" : "are found", world.names_slow_us ? "slowly" : "at once");
	check_health();
}

static void step_clock(struct server *s)
{
	s->wall_offset_us += sim_between(-3600 * SIM_S, 3600 * SIM_S);
	machine_step_clock(sim_between(-3600 * SIM_S, 3600 * SIM_S));
}

/* From a time before the last promotion, as a primary; while others have that promotion. */
static void restore_backup(struct server *s)
{
	bool others = false;
	for (int i = 0; i < world.n; i++)
		others =
		    others || (i != s->index && world.servers[i].timeline >= s->timeline && server_is_ours(&world.servers[i]));
	if (!others || s->timeline < 2 || !server_is_ours(s))
		return;
	if (s->state != SERVER_DOWN)
		server_stop(s, "57P01", false);
	trace("server %d is restored from a backup", s->index);
	s->timeline--;
	s->lsn /= 2;
	s->in_recovery = false;
	s->upstream = -1;
	server_start(s);
}

/* ---- failovers --------------------------------------------------------------------------------------------- */

static void promote_later(void *arg, uint64_t number)
{
	(void)arg;
	(void)number;
	if (world.mended)
		return;
	promote();
	sched_at(sim_now() + sim_between(50 * SIM_MS, SIM_S), follow_all, NULL, 0);
}

static void rejoin_later(void *arg, uint64_t number)
{
	(void)number;
	if (!world.mended)
		rejoin(arg);
}

/* The primary goes in one of the ways there are, a standby is promoted, the others follow it, the old one comes back. */
static void fail_over(void)
{
	struct server *s = some_primary();
	if (!s)
		return;
	switch (sim_between(0, 3)) {
	case 0:
		crash_and_return(s);
		break;
	case 1:
		freeze(s);
		break;
	case 2:
		open_holes(s);
		break;
	default:
		break; /* a promotion while the primary lives */
	}
	sched_at(sim_now() + sim_between(0, 2 * SIM_S), promote_later, NULL, 0);
	if (sim_chance(600))
		sched_at(sim_now() + SIM_S + some_time(), rejoin_later, s, 0);
}

static void switch_over(void)
{
	struct server *s = some_primary();
	if (!s || s->state != SERVER_UP || world.n < 2)
		return;
	server_stop(s, "57P01", false);
	sched_at(sim_now() + sim_between(0, 200 * SIM_MS), promote_later, NULL, 0);
	sched_at(sim_now() + sim_between(500 * SIM_MS, SIM_S), rejoin_later, s, 0);
}

/* ---- the list ---------------------------------------------------------------------------------------------- */

static void small_trouble(struct server *s)
{
	switch (sim_between(0, 8)) {
	case 0:
		toggle(&s->full, "full", s);
		break;
	case 1:
		toggle(&s->refusing, "refusing", s);
		break;
	case 2:
		toggle(&s->disk_full, "disk full", s);
		break;
	case 3:
		toggle(&s->slow, "slow", s);
		break;
	case 4:
	case 5:
		server_catch_up(s);
		toggle(&s->replay_paused, "replay paused", s);
		break;
	case 6:
		step_clock(s);
		break;
	case 7:
		move_name();
		break;
	default:
		trouble_names();
		break;
	}
}

static void one_fault(void)
{
	struct server *s = victim();
	switch (sim_between(0, 15)) {
	case 0:
	case 1:
		crash_and_return(s);
		break;
	case 2:
		freeze(s);
		break;
	case 3:
	case 4:
		open_holes(s);
		break;
	case 5:
		trace("server %d: its connections are reset", s->index);
		net_reset(s);
		break;
	case 6:
		promote();
		break;
	case 7:
		rejoin(s);
		break;
	case 8:
	case 9:
	case 10:
		fail_over();
		break;
	case 11:
		switch_over();
		break;
	case 12:
		if (sim_chance(200))
			server_become_foreign(s, sim_chance(700));
		else if (sim_chance(400))
			restore_backup(s);
		else
			follow_all(NULL, 0);
		break;
	default:
		small_trouble(s);
		break;
	}
}

static void next_fault(void *arg, uint64_t until)
{
	(void)arg;
	if (sim_now() >= (int64_t)until || world.mended)
		return;
	one_fault();
	sched_at(sim_now() + sim_between(1 * SIM_MS, 1200 * SIM_MS), next_fault, NULL, until);
}

void faults_start(int64_t until)
{
	next_fault(NULL, (uint64_t)until);
}

/* ---- beginning and end ------------------------------------------------------------------------------------- */

void faults_begin(void)
{
	static const int sizes[] = {1, 2, 2, 3, 3, 3, 3, 4};
	static const int preemptions[] = {0, 5, 20, 100};
	world.n = sizes[sim_between(0, 7)];
	world.by_name = sim_chance(300);
	machine_set_preemption(preemptions[sim_between(0, 3)]);
	uint32_t timeline = (uint32_t)sim_between(1, 3);
	int primary = (int)sim_between(0, world.n - 1);
	for (int i = 0; i < world.n; i++) {
		world.name_leads_to[i] = i;
		server_init(i, timeline, i != primary);
		world.servers[i].upstream = i == primary ? -1 : primary;
	}
	check_health();
	for (int troubles = sim_chance(300) ? 2 : 0; troubles > 0; troubles--)
		one_fault();
	/* A stale primary that nobody has told. */
	struct server *s = some_server();
	if (sim_chance(100) && s->in_recovery && s->state == SERVER_UP) {
		s->in_recovery = false;
		s->upstream = -1;
		s->timeline -= s->timeline > 1;
		check_health();
	}
}

static int highest(void)
{
	int best = -1;
	for (int i = 0; i < world.n; i++) {
		const struct server *s = &world.servers[i];
		bool better =
		    best < 0 || s->timeline > world.servers[best].timeline ||
		    (s->timeline == world.servers[best].timeline && world.servers[best].in_recovery && !s->in_recovery);
		if (better)
			best = i;
	}
	return best;
}

static void mend(struct server *s)
{
	if (s->was_foreign) {
		server_stop(s, NULL, false);
		s->was_foreign = false;
		s->system_identifier = OUR_CLUSTER;
		s->timeline = s->own_timeline;
		s->in_recovery = s->own_in_recovery;
	}
	s->full = s->refusing = s->disk_full = s->slow = s->replay_paused = false;
	server_pause(s, false);
	for (enum way way = TO_SERVER; way <= TO_CLIENT; way++)
		if (s->hole[way])
			net_hole(s, way, false);
	world.name_leads_to[s->index] = s->index;
}

int faults_mend(void)
{
	world.mended = true;
	co_sleep(200 * SIM_MS); /* a promotion may be under way */
	trace("everything is mended");
	world.names_fail = false;
	world.names_slow_us = 0;
	for (int i = 0; i < world.n; i++)
		mend(&world.servers[i]);
	int primary = highest();
	struct server *s = &world.servers[primary];
	server_start(s);
	while (s->state != SERVER_UP)
		co_sleep(10 * SIM_MS);
	server_promote(s);
	while (s->in_recovery)
		co_sleep(10 * SIM_MS);
	for (int i = 0; i < world.n; i++) {
		struct server *other = &world.servers[i];
		bool fine = other->state == SERVER_UP && other->in_recovery && other->timeline <= s->timeline;
		if (i == primary)
			continue;
		if (fine)
			server_follow(other, primary);
		else
			server_rejoin(other, primary);
	}
	check_health();
	return primary;
}
