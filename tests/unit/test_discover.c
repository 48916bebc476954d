/*
 * test_discover: answers of the resolver in, places out. Scripts of answers with who must have which place after each, and
 * random ones after which no address may have two places and no place may have changed hands without having been vacant.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "discover.h"
#include "rng.h"
#include "unit.h"

#define STEPS_MAX 8
#define SEEDS_MAX 3

/*
 * One look at what is known, and the places afterwards.
 * known: addresses per seed, "" for nothing. vacate: a place whose connections are gone before this look, counted from 1.
 * places: use, seed and address of each that is not vacant: "0:T0a 2:W1" is place 0 taken by address "a" of seed 0, and
 *   place 2 where seed 1 waits; F fixed, L leaving. changes: "+0" taken, "-0" left, "~0" back, "x0" freed, "!2" two unplaced.
 */
struct step {
	const char *known[SEEDS_MAX];
	int vacate;
	const char *places;
	const char *changes;
};

struct script {
	const char *name;
	const char *hosts;            /* "name:port"; one that begins with a digit needs no lookup */
	struct step steps[STEPS_MAX]; /* ends where places is NULL */
};

static const struct script scripts[] = {
    {"each address of a name has a place of its own, the first one where the name waited",
     "pg:1",
     {
         {{""}, 0, "0:W0", ""},
         {{"a b c"}, 0, "0:T0a 1:T0b 2:T0c", "+0 +1 +2"},
         {{"a b c"}, 0, "0:T0a 1:T0b 2:T0c", ""},
     }},
    {"the order of an answer moves nobody",
     "pg:1",
     {
         {{"a b c"}, 0, "0:T0a 1:T0b 2:T0c", "+0 +1 +2"},
         {{"c a b"}, 0, "0:T0a 1:T0b 2:T0c", ""},
     }},
    {"an address that is gone leaves, and its place is vacant when it has drained",
     "pg:1",
     {
         {{"a b c"}, 0, "0:T0a 1:T0b 2:T0c", "+0 +1 +2"},
         {{"a c"}, 0, "0:T0a 1:L0b 2:T0c", "-1"},
         {{"a c"}, 0, "0:T0a 1:L0b 2:T0c", ""},
         {{"a c"}, 2, "0:T0a 2:T0c", ""},
     }},
    {"who comes back while leaving has never been away",
     "pg:1",
     {
         {{"a b"}, 0, "0:T0a 1:T0b", "+0 +1"},
         {{"a"}, 0, "0:T0a 1:L0b", "-1"},
         {{"a b"}, 0, "0:T0a 1:T0b", "~1"},
     }},
    {"who comes back later has the old place, others take new ones first",
     "pg:1",
     {
         {{"a b"}, 0, "0:T0a 1:T0b", "+0 +1"},
         {{"a"}, 0, "0:T0a 1:L0b", "-1"},
         {{"a"}, 2, "0:T0a", ""},
         {{"a c"}, 0, "0:T0a 2:T0c", "+2"},
         {{"a c b"}, 0, "0:T0a 1:T0b 2:T0c", "+1"},
     }},
    {"a place that still drains is nobody else's",
     "pg:1",
     {
         {{"a b"}, 0, "0:T0a 1:T0b", "+0 +1"},
         {{"c d"}, 0, "0:L0a 1:L0b 2:T0c 3:T0d", "+2 +3 -0 -1"},
     }},
    {"nothing known changes nothing for those who wait",
     "pg:1,other:1",
     {
         {{"", ""}, 0, "0:W0 1:W1", ""},
         {{"", "x"}, 0, "0:W0 1:T1x", "+1"},
         {{"a b", "x"}, 0, "0:T0a 1:T1x 2:T0b", "+0 +2"},
     }},
    {"one server under two names has one place, and the second name waits no more",
     "pg:1,other:1",
     {
         {{"", "a"}, 0, "0:W0 1:T1a", "+1"},
         {{"a", "a"}, 0, "1:T1a", "x0"},
         {{"a", ""}, 0, "0:T0a 1:L1a", "+0 -1"},
     }},
    {"who comes back under its own name, but has a new place under another, goes on leaving",
     "pg:1,other:1",
     {
         {{"a", "b"}, 0, "0:T0a 1:T1b", "+0 +1"},
         {{"c", "b a"}, 0, "0:L0a 1:T1b 2:T0c 3:T1a", "+2 +3 -0"},
         {{"c a", "b a"}, 0, "0:L0a 1:T1b 2:T0c 3:T1a", ""},
     }},
    {"another port is another server",
     "pg:1,pg:2",
     {
         {{"a b", "a b"}, 0, "0:T0a 1:T1a 2:T0b 3:T1b", "+0 +1 +2 +3"},
     }},
    {"hosts without a lookup keep their places; a name that leads to one of them adds nothing",
     "1a:1,pg:1",
     {
         {{"", ""}, 0, "0:F0 1:W1", ""},
         {{"", "1a b"}, 0, "0:F0 1:T1b", "+1"},
     }},
};

static void make_config(struct config *config, const char *hosts)
{
	struct config_pairs pairs = {0};
	char host[256] = "", port[256] = "", text[256];
	snprintf(text, sizeof text, "%s", hosts);
	char *rest = NULL;
	for (char *entry = strtok_r(text, ",", &rest); entry; entry = strtok_r(NULL, ",", &rest)) {
		char *colon = strchr(entry, ':');
		*colon = '\0';
		snprintf(host + strlen(host), sizeof host - strlen(host), "%s%s", *host ? "," : "", entry);
		snprintf(port + strlen(port), sizeof port - strlen(port), "%s%s", *port ? "," : "", colon + 1);
	}
	dbha__pairs_set(&pairs, "host", host, NULL);
	dbha__pairs_set(&pairs, "port", port, NULL);
	dbha__pairs_set(&pairs, "discover", "dns", NULL);
	struct config_layer layer = {&pairs, NULL};
	struct config_input input = {.layers = &layer, .n_layers = 1, .env_rank = 1};
	dbha_error err;
	ck_assert_msg(dbha__config_init(config, &input, &err) == DBHA_OK, "%s", err.message);
	dbha__pairs_fini(&pairs);
}

static uint32_t names_of(const struct config *config)
{
	uint32_t bits = 0;
	for (int i = 0; i < config->n_nodes; i++)
		if (config->nodes[i].host[0] > '9')
			bits |= UINT32_C(1) << i;
	return bits;
}

static void read_known(struct addresses *known, const char *text)
{
	char copy[256];
	char *rest = NULL;
	known->n = known->left_out = 0;
	snprintf(copy, sizeof copy, "%s", text ? text : "");
	for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		snprintf(known->list[known->n++], ADDRESS_LENGTH, "%s", word);
}

static void add(char *text, size_t size, const char *word)
{
	size_t used = strlen(text);
	snprintf(text + used, size - used, "%s%s", used ? " " : "", word);
}

static void show_places(const struct discovery *discovery, char *text, size_t size)
{
	text[0] = '\0';
	for (int i = 0; i < discovery->n_places; i++) {
		const struct place *place = &discovery->places[i];
		char word[ADDRESS_LENGTH + 16];
		bool addressed = place->use == PLACE_TAKEN || place->use == PLACE_LEAVING;
		snprintf(word, sizeof word, "%d:%c%d%s", i, "VFWTL"[place->use], place -> seed,
		         addressed ? place -> address : "");
		if (place->use != PLACE_VACANT)
			add(text, size, word);
	}
}

static void show_bits(char *text, size_t size, char sign, uint32_t bits)
{
	for (int i = 0; i < CONFIG_NODES_MAX; i++) {
		char word[16];
		snprintf(word, sizeof word, "%c%d", sign, i);
		if (bits & UINT32_C(1) << i)
			add(text, size, word);
	}
}

static void show_changes(const struct discover_changes *changes, char *text, size_t size)
{
	char word[16];
	text[0] = '\0';
	show_bits(text, size, '+', changes->taken);
	show_bits(text, size, '-', changes->left);
	show_bits(text, size, '~', changes->back);
	show_bits(text, size, 'x', changes->freed);
	snprintf(word, sizeof word, "!%d", changes->unplaced);
	if (changes->unplaced)
		add(text, size, word);
}

START_TEST(script_is_followed)
{
	const struct script *script = &scripts[_i];
	struct config config;
	struct discovery discovery;
	make_config(&config, script->hosts);
	dbha__discover_init(&discovery, &config, names_of(&config));
	for (const struct step *step = script->steps; step->places; step++) {
		struct addresses known[SEEDS_MAX];
		char places[1024], changes[256];
		for (int i = 0; i < SEEDS_MAX; i++)
			read_known(&known[i], step->known[i]);
		if (step->vacate)
			dbha__discover_vacate(&discovery, step->vacate - 1);
		struct discover_changes got = dbha__discover_apply(&discovery, &config, known);
		show_places(&discovery, places, sizeof places);
		show_changes(&got, changes, sizeof changes);
		int number = (int)(step - script->steps) + 1;
		ck_assert_msg(strcmp(places, step->places) == 0, "%s, step %d: %s", script->name, number, places);
		ck_assert_msg(strcmp(changes, step->changes) == 0, "%s, step %d: %s", script->name, number, changes);
	}
	dbha__config_fini(&config);
}
END_TEST

static struct addresses numbered(int first, int n)
{
	struct addresses known = {.n = n};
	for (int i = 0; i < n; i++)
		snprintf(known.list[i], ADDRESS_LENGTH, "10.0.0.%d", first + i);
	return known;
}

/* The first ones of the answer have the places; who had one keeps it; a place that becomes vacant goes to the next. */
START_TEST(more_addresses_than_places)
{
	struct config config;
	struct discovery discovery;
	make_config(&config, "pg:1");
	dbha__discover_init(&discovery, &config, 1);
	struct addresses known = numbered(1, ADDRESSES_MAX);
	known.left_out = 5;
	struct discover_changes changes = dbha__discover_apply(&discovery, &config, &known);
	ck_assert_uint_eq(changes.taken, UINT32_MAX);
	ck_assert_int_eq(changes.unplaced, 5);
	known = numbered(2, ADDRESSES_MAX);
	changes = dbha__discover_apply(&discovery, &config, &known);
	ck_assert_uint_eq(changes.left, 1);
	ck_assert_uint_eq(changes.taken, 0);
	ck_assert_int_eq(changes.unplaced, 1);
	dbha__discover_vacate(&discovery, 0);
	changes = dbha__discover_apply(&discovery, &config, &known);
	ck_assert_uint_eq(changes.taken, 1);
	ck_assert_int_eq(changes.unplaced, 0);
	ck_assert_str_eq(discovery.places[0].address, "10.0.0.33");
	dbha__config_fini(&config);
}
END_TEST

START_TEST(only_who_leaves_can_be_vacated)
{
	struct config config;
	struct discovery discovery;
	make_config(&config, "pg:1,1a:1");
	dbha__discover_init(&discovery, &config, 1);
	struct addresses known[2] = {numbered(1, 2), {0}};
	dbha__discover_apply(&discovery, &config, known);
	for (int i = 0; i < 3; i++)
		dbha__discover_vacate(&discovery, i);
	ck_assert_int_eq(discovery.places[0].use, PLACE_TAKEN);
	ck_assert_int_eq(discovery.places[1].use, PLACE_FIXED);
	ck_assert_int_eq(discovery.places[2].use, PLACE_TAKEN);
	dbha__config_fini(&config);
}
END_TEST

START_TEST(without_discover_every_host_is_one_node)
{
	struct config config;
	struct discovery discovery;
	make_config(&config, "pg:1,other:1");
	config.options.discover = DISCOVER_OFF;
	ck_assert_int_eq(dbha__discover_places(&config), 2);
	dbha__discover_init(&discovery, &config, 3);
	struct addresses known[2] = {numbered(1, 3), numbered(5, 2)};
	struct discover_changes changes = dbha__discover_apply(&discovery, &config, known);
	ck_assert_uint_eq(changes.taken | changes.left | changes.back | changes.freed, 0);
	ck_assert_int_eq(changes.unplaced, 0);
	ck_assert_int_eq(discovery.places[0].use, PLACE_FIXED);
	ck_assert_int_eq(discovery.places[1].use, PLACE_FIXED);
	config.options.discover = DISCOVER_DNS;
	ck_assert_int_eq(dbha__discover_places(&config), CONFIG_NODES_MAX);
	dbha__config_fini(&config);
}
END_TEST

/* ---- at random ------------------------------------------------------------------------------------------------- */

static void random_answer(struct rng *rng, struct addresses *known)
{
	known->n = 0;
	for (int i = 0; i < 40 && known->n < ADDRESSES_MAX; i++)
		if (dbha__rng_below(rng, 3) == 0)
			snprintf(known->list[known->n++], ADDRESS_LENGTH, "10.0.0.%d", i);
}

static void check_places(const struct discovery *before, const struct discovery *now, const struct addresses *known)
{
	int present = 0;
	for (int i = 0; i < now->n_places; i++) {
		const struct place *was = &before->places[i], *is = &now->places[i];
		/* From hand to hand only through a time of being vacant. */
		if ((was->use == PLACE_TAKEN || was->use == PLACE_LEAVING) && is->use != PLACE_VACANT)
			ck_assert(strcmp(was->address, is->address) == 0 && was->seed == is->seed);
		ck_assert(was->use != PLACE_TAKEN || is->use == PLACE_TAKEN || is->use == PLACE_LEAVING);
		if (is->use != PLACE_TAKEN)
			continue;
		ck_assert(dbha__addresses_hold(&known[is->seed], is->address));
		present++;
		for (int k = 0; k < i; k++)
			ck_assert(now->places[k].use != PLACE_TAKEN || strcmp(now->places[k].address, is->address) != 0);
	}
	ck_assert(present > 0 || (known[0].n == 0 && known[1].n == 0));
}

START_TEST(random_answers)
{
	struct rng rng = {.state = 4000 + (uint64_t)_i};
	struct config config;
	struct discovery discovery;
	struct addresses known[2] = {0};
	make_config(&config, "pg:1,other:1");
	dbha__discover_init(&discovery, &config, 3);
	for (int round = 0; round < 2000; round++) {
		struct discovery before = discovery;
		random_answer(&rng, &known[dbha__rng_below(&rng, 2)]);
		dbha__discover_apply(&discovery, &config, known);
		check_places(&before, &discovery, known);
		for (int i = 0; i < discovery.n_places; i++)
			if (discovery.places[i].use == PLACE_LEAVING && dbha__rng_below(&rng, 2) == 0)
				dbha__discover_vacate(&discovery, i);
	}
	dbha__config_fini(&config);
}
END_TEST

/* ---- names ----------------------------------------------------------------------------------------------------- */

START_TEST(names_say_host_and_address)
{
	char name[DBHA_NODE_NAME_MAX], host[300];
	struct config_node seed = {.host = host, .port = (char[]){"5432"}};
	snprintf(host, sizeof host, "pg.example");
	dbha__discover_name(&seed, "10.1.2.3", name);
	ck_assert_str_eq(name, "pg.example[10.1.2.3]:5432");
	dbha__discover_name(&seed, "fd00::1", name);
	ck_assert_str_eq(name, "pg.example[fd00::1]:5432");
	for (size_t length = 100; length < 255; length++) {
		memset(host, 'x', length);
		snprintf(host + length - 4, 5, ".end");
		dbha__discover_name(&seed, "fe80:1111:2222:3333:4444:5555:6666:7777%interface0", name);
		ck_assert_ptr_nonnull(strstr(name, ".end[fe80:1111:2222:3333:4444:5555:6666:7777%interface0]:5432"));
	}
}
END_TEST

static Suite *discover_suite(void)
{
	Suite *suite = suite_create("discover");
	TCase *tc = tcase_create("discover");
	tcase_add_loop_test(tc, script_is_followed, 0, (int)(sizeof scripts / sizeof scripts[0]));
	tcase_add_test(tc, more_addresses_than_places);
	tcase_add_test(tc, only_who_leaves_can_be_vacated);
	tcase_add_test(tc, without_discover_every_host_is_one_node);
	tcase_add_loop_test(tc, random_answers, 0, 5);
	tcase_add_test(tc, names_say_host_and_address);
	suite_add_tcase(suite, tc);
	return suite;
}

UNIT_MAIN(discover_suite)
