/*
 * test_route: a view and a query in, a node or what stands in the way out. Every case is asked with many random
 * numbers, so that the set of nodes that can be chosen is known, and not one of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "route.h"
#include "unit.h"

#define ASKED 200
#define SPLIT (-2)

/*
 * nodes: one word each. Role: P primary, S standby, N not known. State: u up, s suspect, q silent, d down, t starting,
 * f full, r refused, x fenced, o foreign, n unknown. Then: "!" its sessions are read-only, "+900" it lags 900 ms and is
 * behind, with more than 500; "<" it is leaving, "_" nobody is there.
 */
struct scene {
	const char *nodes;
	int primary; /* index, -1 for none, SPLIT */
};

struct row {
	struct scene scene;
	enum dbha_intent intent;
	enum target target;
	int max_lag_ms;
	uint32_t avoid;
	enum route_end end;
	const char *chosen; /* with ROUTE_NODE: every index that can come out, each a digit */
	bool writes;
};

#define R                    DBHA_READ
#define W                    DBHA_WRITE
#define D                    DBHA_DEFAULT
#define NODE(chosen, writes) ROUTE_NODE, chosen, writes
#define NONE(end)            ROUTE_##end, "", false

static const struct row rows[] = {
    /* Writes: the primary and nothing else. */
    {{"Pu Su Su", 0}, W, TARGET_PRIMARY, 0, 0, NODE("0", true)},
    {{"Su Pu", 1}, W, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Su Ps", 1}, W, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Su Pf", 1}, W, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Su Pr", 1}, W, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Su Pd", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Su Pq", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Su Pt", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Su Px", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Su Su", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Su Pu!", 1}, W, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Pu Su", 0}, W, TARGET_STANDBY, 0, 0, NODE("0", true)},
    {{"Su Pu", 1}, W, TARGET_ANY, 0, 0, NODE("1", true)},
    {{"Su Pu", 1}, W, TARGET_READ_ONLY, 0, 0, NODE("1", true)},
    /* Who is leaving, and who is not there, gets nothing, whatever else is known of him; and his refusal is no verdict. */
    {{"Su< Su Su_ Pu", 3}, R, TARGET_PRIMARY, 0, 0, NODE("1", false)},
    {{"Pu< Su<", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Pu< Su<", -1}, R, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Pu< Su", -1}, D, TARGET_ANY, 0, 0, NODE("1", false)},
    {{"Nr Nr< Nn_", -1}, W, TARGET_PRIMARY, 0, 0, NONE(REFUSED)},
    {{"Po So< Nn_", -1}, W, TARGET_PRIMARY, 0, 0, NONE(FOREIGN)},
    {{"Nr< Nr_", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    /* A primary that has just failed is tried again: there is no other. */
    {{"Su Pu", 1}, W, TARGET_PRIMARY, 0, 1 << 1, NODE("1", true)},
    /* Reads: a standby first, one that is up before one that is suspected. */
    {{"Pu Su Su", 0}, R, TARGET_PRIMARY, 0, 0, NODE("12", false)},
    {{"Pu Su Ss", 0}, R, TARGET_PRIMARY, 0, 0, NODE("1", false)},
    {{"Pu Sf Ss Sr", 0}, R, TARGET_PRIMARY, 0, 0, NODE("0", true)},
    {{"Ps Sf Ss Sr", 0}, R, TARGET_PRIMARY, 0, 0, NODE("123", false)},
    {{"Pu Sd Sq St", 0}, R, TARGET_PRIMARY, 0, 0, NODE("0", true)},
    {{"Pu Su Su So", 0}, R, TARGET_PRIMARY, 0, 1 << 1, NODE("2", false)},
    {{"Pu Su Ss", 0}, R, TARGET_PRIMARY, 0, 1 << 1, NODE("0", true)},
    {{"Pu Su Ss", 0}, R, TARGET_PRIMARY, 0, 3, NODE("2", false)},
    {{"Pu Su Su", 0}, R, TARGET_PRIMARY, 0, 3 << 1, NODE("0", true)},
    {{"Pd Su Su", -1}, R, TARGET_PRIMARY, 0, 3 << 1, NODE("12", false)},
    {{"Pd Su", -1}, R, TARGET_PRIMARY, 0, 0, NODE("1", false)},
    {{"Px Su", -1}, R, TARGET_PRIMARY, 0, 0, NODE("1", false)},
    {{"Px Sd", -1}, R, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Px", -1}, R, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Pu So", 0}, R, TARGET_PRIMARY, 0, 0, NODE("0", true)},
    {{"Pu Nf", 0}, R, TARGET_PRIMARY, 0, 0, NODE("0", true)},
    {{"Su Pu", 1}, R, TARGET_READ_WRITE, 0, 0, NODE("0", false)},
    /* Lag: what is over the limit serves nothing, whatever else fails. */
    {{"Pu Su+900 Su+100", 0}, R, TARGET_PRIMARY, 500, 0, NODE("2", false)},
    {{"Pu Su+500 Su+501", 0}, R, TARGET_PRIMARY, 500, 0, NODE("1", false)},
    {{"Pu Su+900 Su+900", 0}, R, TARGET_PRIMARY, 500, 0, NODE("0", true)},
    {{"Pu Su+900 Ss+10", 0}, R, TARGET_PRIMARY, 500, 0, NODE("0", true)},
    {{"Pd Su+900", -1}, R, TARGET_PRIMARY, 500, 0, NONE(WAIT)},
    {{"Pu Su+900 Su", 0}, R, TARGET_PRIMARY, 0, 0, NODE("12", false)},
    {{"Pu Su+900", 0}, D, TARGET_STANDBY, 500, 0, NONE(WAIT)},
    {{"Pu Su+900", 0}, D, TARGET_READ_ONLY, 500, 0, NONE(WAIT)},
    /* Work that says nothing goes by the target, with libpq's meaning. */
    {{"Su Pu", 1}, D, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Su Pu!", 1}, D, TARGET_PRIMARY, 0, 0, NODE("1", true)},
    {{"Su Pu", 1}, D, TARGET_READ_WRITE, 0, 0, NODE("1", true)},
    {{"Su Pu!", 1}, D, TARGET_READ_WRITE, 0, 0, NONE(WAIT)},
    {{"Pu Su", 0}, D, TARGET_READ_ONLY, 0, 0, NODE("1", false)},
    {{"Pu! Sd", 0}, D, TARGET_READ_ONLY, 0, 0, NODE("0", true)},
    {{"Pu Sd", 0}, D, TARGET_READ_ONLY, 0, 0, NONE(WAIT)},
    {{"Pu Su", 0}, D, TARGET_STANDBY, 0, 0, NODE("1", false)},
    {{"Pu Sd", 0}, D, TARGET_STANDBY, 0, 0, NONE(WAIT)},
    {{"Pu! Sd", 0}, D, TARGET_STANDBY, 0, 0, NONE(WAIT)},
    {{"Pu Su", 0}, D, TARGET_PREFER_STANDBY, 0, 0, NODE("1", false)},
    {{"Pu Sd", 0}, D, TARGET_PREFER_STANDBY, 0, 0, NODE("0", true)},
    {{"Su Pu", 1}, D, TARGET_ANY, 0, 0, NODE("0", false)},
    {{"Pu Su", 0}, D, TARGET_ANY, 0, 0, NODE("0", true)},
    {{"Pu Su", 0}, D, TARGET_ANY, 0, 1 << 0, NODE("1", false)},
    {{"Pu Su", 0}, D, TARGET_ANY, 0, 3 << 0, NODE("0", true)},
    {{"Px Sd Su", -1}, D, TARGET_ANY, 0, 0, NODE("2", false)},
    {{"Po Su", -1}, D, TARGET_ANY, 0, 0, NODE("1", false)},
    /* A split brain: no write is guessed; reads go on. */
    {{"Pu Pu", SPLIT}, W, TARGET_PRIMARY, 0, 0, NONE(SPLIT_BRAIN)},
    {{"Pu Pu Su", SPLIT}, W, TARGET_PRIMARY, 0, 0, NONE(SPLIT_BRAIN)},
    {{"Pu Ps", SPLIT}, W, TARGET_PRIMARY, 0, 1 << 0, NONE(SPLIT_BRAIN)},
    {{"Pu Pu", SPLIT}, D, TARGET_PRIMARY, 0, 0, NONE(SPLIT_BRAIN)},
    {{"Pu Pu", SPLIT}, D, TARGET_READ_WRITE, 0, 0, NONE(SPLIT_BRAIN)},
    {{"Pu Pu Su", SPLIT}, R, TARGET_PRIMARY, 0, 0, NODE("2", false)},
    {{"Pu Pu Sd", SPLIT}, R, TARGET_PRIMARY, 0, 0, NODE("0", false)},
    {{"Pu Pu Sd", SPLIT}, R, TARGET_PRIMARY, 0, 1 << 0, NODE("1", false)},
    {{"Pr Pu Sd", SPLIT}, R, TARGET_PRIMARY, 0, 0, NODE("1", false)},
    {{"Ps Pu Sd", SPLIT}, R, TARGET_PRIMARY, 0, 1 << 1, NODE("0", false)},
    {{"Pu Pu Su", SPLIT}, D, TARGET_STANDBY, 0, 0, NODE("2", false)},
    {{"Pu Pu Su", SPLIT}, D, TARGET_PREFER_STANDBY, 0, 0, NODE("2", false)},
    /* ... and work that may write is not a read because the target is wide: it may not land on either side. */
    {{"Pu Pu", SPLIT}, D, TARGET_ANY, 0, 0, NONE(SPLIT_BRAIN)},
    {{"Pu Pu Su", SPLIT}, D, TARGET_ANY, 0, 0, NODE("2", false)},
    {{"Pu Pu Sd", SPLIT}, D, TARGET_PREFER_STANDBY, 0, 0, NONE(SPLIT_BRAIN)},
    /* What waiting would not mend. */
    {{"Nr Nr", -1}, W, TARGET_PRIMARY, 0, 0, NONE(REFUSED)},
    {{"Nr Nr", -1}, R, TARGET_PRIMARY, 0, 0, NONE(REFUSED)},
    {{"Nr Nd", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Nr Nt", -1}, R, TARGET_ANY, 0, 0, NONE(WAIT)},
    {{"Po So", -1}, W, TARGET_PRIMARY, 0, 0, NONE(FOREIGN)},
    {{"Po So", -1}, R, TARGET_PRIMARY, 0, 0, NONE(FOREIGN)},
    {{"Po So", -1}, D, TARGET_ANY, 0, 0, NONE(FOREIGN)},
    {{"Po Su", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Nd Nd", -1}, W, TARGET_PRIMARY, 0, 0, NONE(WAIT)},
    {{"Nq", -1}, R, TARGET_ANY, 0, 0, NONE(WAIT)},
};

static enum dbha_state state_of(char letter)
{
	static const char letters[] = "nusqdtfrxo";
	const char *at = strchr(letters, letter);
	ck_assert_msg(at && letter, "no state is called %c", letter);
	return (enum dbha_state)(at - letters);
}

static struct view view_of(const struct scene *scene)
{
	struct view view;
	dbha__topology_init(&view, 0);
	for (const char *word = scene->nodes; *word; word += strspn(word, " ")) {
		struct node_view *node = &view.nodes[view.n_nodes++];
		*node = (struct node_view){.seen = true, .lag_ms = -1, .lag_bytes = -1, .generation = 1};
		node->role = word[0] == 'P' ? DBHA_ROLE_PRIMARY : word[0] == 'S' ? DBHA_ROLE_STANDBY : DBHA_ROLE_UNKNOWN;
		node->state = state_of(word[1]);
		node->fenced = node->state == DBHA_STATE_FENCED;
		size_t length = strcspn(word, " ");
		for (const char *mark = word + 2; mark < word + length; mark++) {
			if (*mark == '!')
				node->read_only = true;
			else if (*mark == '<' || *mark == '_')
				node->presence = *mark == '<' ? LEAVING : VACANT;
			else if (*mark == '+')
				node->behind = (node->lag_ms = strtol(mark + 1, NULL, 10)) > 500;
		}
		word += length;
	}
	view.settled = true;
	view.split_brain = scene->primary == SPLIT;
	view.primary = view.split_brain ? -1 : scene->primary;
	return view;
}

/* Without a max_lag nobody is behind. */
static struct view view_for(const struct row *row)
{
	struct view view = view_of(&row->scene);
	for (int i = 0; i < view.n_nodes && row->max_lag_ms == 0; i++)
		view.nodes[i].behind = false;
	return view;
}

static struct route_query query_of(const struct row *row)
{
	return (struct route_query){.intent = row->intent, .target = row->target, .avoid = row->avoid};
}

START_TEST(a_query_is_routed)
{
	const struct row *row = &rows[_i];
	struct view view = view_for(row);
	struct route_query query = query_of(row);
	struct rng rng = {(uint64_t)_i};
	int times[10] = {0};
	for (int i = 0; i < ASKED; i++) {
		query.random = dbha__rng_next(&rng);
		struct route route = dbha__route(&view, &query);
		ck_assert_msg(route.end == row->end, "\"%s\": ends with %d (node %d), expected %d", row->scene.nodes,
		              (int)route.end, route.node, (int)row->end);
		ck_assert_msg((route.node >= 0) == (route.end == ROUTE_NODE), "\"%s\": node %d", row->scene.nodes, route.node);
		if (route.node < 0)
			continue;
		ck_assert_msg(strchr(row->chosen, '0' + route.node) != NULL, "\"%s\": node %d, expected one of %s",
		              row->scene.nodes, route.node, row->chosen);
		ck_assert_msg(route.writes == row->writes, "\"%s\": writes", row->scene.nodes);
		times[route.node]++;
	}
	for (const char *digit = row->chosen; *digit; digit++)
		ck_assert_msg(times[*digit - '0'] > 0, "\"%s\": node %c never came out", row->scene.nodes, *digit);
}
END_TEST

/* The same view while it is not settled: nobody goes anywhere, and no verdict is given early. */
START_TEST(nothing_is_routed_before_settling)
{
	const struct row *row = &rows[_i];
	struct view view = view_for(row);
	struct route_query query = query_of(row);
	view.settled = false;
	struct route route = dbha__route(&view, &query);
	ck_assert_int_eq((int)route.end, ROUTE_WAIT);
	ck_assert_int_eq(route.node, -1);
}
END_TEST

static struct view many_standbys(int n)
{
	struct view view;
	dbha__topology_init(&view, n);
	for (int i = 0; i < n; i++) {
		view.nodes[i].role = DBHA_ROLE_STANDBY;
		view.nodes[i].state = DBHA_STATE_UP;
	}
	view.settled = true;
	return view;
}

static void count_choices(const struct view *view, const int *load, bool in_order, int asked, int *times)
{
	struct route_query query = {.intent = DBHA_READ, .load = load, .in_order = in_order};
	struct rng rng = {42};
	memset(times, 0, (size_t)view->n_nodes * sizeof *times);
	for (int i = 0; i < asked; i++) {
		query.random = dbha__rng_next(&rng);
		struct route route = dbha__route(view, &query);
		ck_assert_int_eq((int)route.end, ROUTE_NODE);
		times[route.node]++;
	}
}

START_TEST(equal_standbys_share_the_reads)
{
	static const int idle[CONFIG_NODES_MAX];
	int times[CONFIG_NODES_MAX];
	for (int n = 1; n <= CONFIG_NODES_MAX; n++) {
		struct view view = many_standbys(n);
		count_choices(&view, n % 2 ? idle : NULL, false, 200 * n, times);
		for (int i = 0; i < n; i++)
			ck_assert_msg(times[i] > 120 && times[i] < 300, "%d of %d standbys: %d of %d reads", i, n, times[i],
			              200 * n);
	}
}
END_TEST

/*
 * Three standbys, 9000 reads at a moment that does not pass. Of each pair that is drawn one wins, so that the best of three gets
 * two thirds, the second a third, the last nothing; equals halve what they get together.
 */
static const struct shares {
	int load[3];
	int round_trip_us[3];
	int share[3]; /* in sixths */
} shares[] = {
    /* By load alone. */
    {{0, 0, 0}, {0, 0, 0}, {2, 2, 2}},
    {{9, 1, 1}, {0, 0, 0}, {0, 3, 3}},
    {{0, 1, 2}, {0, 0, 0}, {4, 2, 0}},
    /* Below a millisecond, and up to twice as long, round trips are alike. */
    {{0, 0, 0}, {90, 250, 999}, {2, 2, 2}},
    {{0, 0, 0}, {100, 1990, 1500}, {2, 2, 2}},
    {{0, 0, 0}, {3000, 3100, 6000}, {2, 2, 2}},
    {{1, 0, 1}, {3000, 5900, 3000}, {1, 4, 1}},
    /* Beyond that, work times time. */
    {{0, 0, 0}, {100, 100, 2001}, {3, 3, 0}},
    {{0, 0, 0}, {3000, 6001, 3000}, {3, 0, 3}},
    {{4, 4, 0}, {200, 200, 4000}, {1, 1, 4}},
    {{2, 2, 0}, {200, 200, 4000}, {3, 3, 0}},
    {{0, 0, 50}, {300000, 9000000, 200}, {2, 0, 4}},
    /* A round trip that is not known yet is no reason against anybody. */
    {{0, 0, 0}, {0, 40000, 0}, {3, 0, 3}},
};

START_TEST(of_two_standbys_the_one_wins_that_would_answer_sooner)
{
	const struct shares *row = &shares[_i];
	struct view view = many_standbys(3);
	int times[3];
	for (int i = 0; i < 3; i++)
		view.nodes[i].round_trip_us = row->round_trip_us[i];
	count_choices(&view, row->load, false, 9000, times);
	for (int i = 0; i < 3; i++)
		ck_assert_msg(abs(times[i] - 1500 * row->share[i]) < (row->share[i] ? 250 : 1), "row %d, node %d: %d of 9000",
		              _i, i, times[i]);
}
END_TEST

START_TEST(two_standbys_are_both_asked)
{
	static const int load[] = {3, 0};
	struct view view = many_standbys(2);
	int times[2];
	count_choices(&view, NULL, false, 2000, times);
	ck_assert_int_gt(times[0], 850);
	ck_assert_int_gt(times[1], 850);
	count_choices(&view, load, false, 2000, times);
	ck_assert_int_eq(times[0], 0); /* it may hang: not one read in four */
}
END_TEST

START_TEST(in_order_the_first_usable_standby_serves)
{
	static const int load[] = {90, 0, 0};
	struct view view = many_standbys(3);
	int times[3];
	view.nodes[0].round_trip_us = 500000;
	count_choices(&view, load, true, 500, times);
	ck_assert_int_eq(times[0], 500);
	view.nodes[0].state = DBHA_STATE_SUSPECT;
	count_choices(&view, load, true, 500, times);
	ck_assert_int_eq(times[1], 500);
	view.nodes[1].state = DBHA_STATE_DOWN;
	count_choices(&view, load, true, 500, times);
	ck_assert_int_eq(times[2], 500);
	view.nodes[2].state = DBHA_STATE_DOWN;
	count_choices(&view, load, true, 500, times);
	ck_assert_int_eq(times[0], 500);
}
END_TEST

/* Reads per thousand that a standby takes beside one that is warm: half of them, when it is drawn in. */
START_TEST(a_standby_that_came_back_takes_its_share_by_and_by)
{
	static const int per_mille[WARMING_STEPS + 1] = {500, 250, 125, 62, 31};
	struct view view = many_standbys(2);
	int times[2];
	for (int warming = 0; warming <= WARMING_STEPS; warming++) {
		view.nodes[1].warming = warming;
		count_choices(&view, NULL, false, 20000, times);
		int expected = 20 * per_mille[warming];
		ck_assert_msg(times[1] > expected * 3 / 4 && times[1] < expected * 5 / 4, "warming %d: %d, expected about %d",
		              warming, times[1], expected);
	}
	/* It spares nobody where there is no other. */
	view.nodes[0].state = DBHA_STATE_DOWN;
	count_choices(&view, NULL, false, 1000, times);
	ck_assert_int_eq(times[1], 1000);
	view.nodes[0].state = DBHA_STATE_UP;
	view.nodes[0].warming = WARMING_STEPS;
	count_choices(&view, NULL, false, 20000, times);
	ck_assert_int_gt(times[0], 9000);
	ck_assert_int_gt(times[1], 9000);
}
END_TEST

START_TEST(the_last_of_32_nodes_can_be_avoided)
{
	struct view view = many_standbys(CONFIG_NODES_MAX);
	struct rng rng = {7};
	for (int i = 0; i < 2000; i++) {
		struct route_query query = {.intent = DBHA_READ, .avoid = 0x80000000u | 1u, .random = dbha__rng_next(&rng)};
		int node = dbha__route(&view, &query).node;
		ck_assert(node > 0 && node < CONFIG_NODES_MAX - 1);
	}
}
END_TEST

static const struct {
	enum dbha_intent intent;
	enum target target;
	const char *words;
} wanted[] = {
    {W, TARGET_STANDBY, "a primary"},
    {R, TARGET_PRIMARY, "a standby or a primary"},
    {D, TARGET_PRIMARY, "a primary"},
    {D, TARGET_READ_WRITE, "a primary with read-write sessions"},
    {D, TARGET_READ_ONLY, "a node with read-only sessions"},
    {D, TARGET_STANDBY, "a standby"},
    {D, TARGET_PREFER_STANDBY, "a standby or a primary"},
    {D, TARGET_ANY, "any node"},
};

START_TEST(a_message_says_what_was_looked_for)
{
	for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
		struct route_query query = {.intent = wanted[i].intent, .target = wanted[i].target};
		ck_assert_str_eq(dbha__route_wanted(&query), wanted[i].words);
	}
}
END_TEST

static Suite *route_suite(void)
{
	TCase *tcase = tcase_create("route");
	tcase_add_loop_test(tcase, a_query_is_routed, 0, sizeof rows / sizeof rows[0]);
	tcase_add_loop_test(tcase, nothing_is_routed_before_settling, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, equal_standbys_share_the_reads);
	tcase_add_loop_test(tcase, of_two_standbys_the_one_wins_that_would_answer_sooner, 0,
	                    sizeof shares / sizeof shares[0]);
	tcase_add_test(tcase, two_standbys_are_both_asked);
	tcase_add_test(tcase, in_order_the_first_usable_standby_serves);
	tcase_add_test(tcase, a_standby_that_came_back_takes_its_share_by_and_by);
	tcase_add_test(tcase, the_last_of_32_nodes_can_be_avoided);
	tcase_add_test(tcase, a_message_says_what_was_looked_for);
	Suite *suite = suite_create("route");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(route_suite)
