/*
 * test_route: a view and a query in, a node or what stands in the way out. Every case is asked with many random
 * numbers, so that the set of nodes that can be chosen is known, and not one of them.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rng.h"
#include "route.h"

#define ASKED 200
#define SPLIT (-2)

/*
 * nodes: one word each. Role: P primary, S standby, N not known. State: u up, s suspect, q silent, d down, t starting,
 * f full, r refused, x fenced, o foreign, n unknown. Then: "!" its sessions are read-only, "+900" it lags 900 ms and is
 * behind, with more than 500.
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

static struct route_query query_of(const struct row *row)
{
	return (struct route_query){
	    .intent = row->intent, .target = row->target, .max_lag_ms = row->max_lag_ms, .avoid = row->avoid};
}

START_TEST(a_query_is_routed)
{
	const struct row *row = &rows[_i];
	struct view view = view_of(&row->scene);
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
	struct view view = view_of(&row->scene);
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

static void count_choices(int n, const int *in_use, int asked, int *times)
{
	struct view view = many_standbys(n);
	struct route_query query = {.intent = DBHA_READ, .in_use = in_use};
	struct rng rng = {42};
	memset(times, 0, (size_t)n * sizeof *times);
	for (int i = 0; i < asked; i++) {
		query.random = dbha__rng_next(&rng);
		struct route route = dbha__route(&view, &query);
		ck_assert_int_eq((int)route.end, ROUTE_NODE);
		times[route.node]++;
	}
}

START_TEST(equal_standbys_share_the_reads)
{
	static const int idle[CONFIG_NODES_MAX];
	int times[CONFIG_NODES_MAX];
	for (int n = 1; n <= CONFIG_NODES_MAX; n++) {
		count_choices(n, n % 2 ? idle : NULL, 200 * n, times);
		for (int i = 0; i < n; i++)
			ck_assert_msg(times[i] > 120 && times[i] < 300, "%d of %d standbys: %d of %d reads", i, n, times[i],
			              200 * n);
	}
}
END_TEST

/* Two are drawn and the busier one loses: with three nodes it gets only what is drawn twice, one read in nine. */
START_TEST(the_busy_standby_gets_less)
{
	static const int in_use[] = {9, 1, 1};
	int times[3];
	count_choices(3, in_use, 9000, times);
	ck_assert_int_gt(times[0], 700);
	ck_assert_int_lt(times[0], 1300);
	ck_assert_int_gt(times[1], 3500);
	ck_assert_int_gt(times[2], 3500);
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

int main(void)
{
	TCase *tcase = tcase_create("route");
	tcase_add_loop_test(tcase, a_query_is_routed, 0, sizeof rows / sizeof rows[0]);
	tcase_add_loop_test(tcase, nothing_is_routed_before_settling, 0, sizeof rows / sizeof rows[0]);
	tcase_add_test(tcase, equal_standbys_share_the_reads);
	tcase_add_test(tcase, the_busy_standby_gets_less);
	tcase_add_test(tcase, the_last_of_32_nodes_can_be_avoided);
	tcase_add_test(tcase, a_message_says_what_was_looked_for);
	Suite *suite = suite_create("route");
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
