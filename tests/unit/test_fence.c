/*
 * test_fence: the fence as text, what a file should hold next, and what a remembered fence means for a view.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fence.h"
#include "unit.h"

#define OURS   7001
#define THEIRS 9009
#define OLDER  5005

/* "7001/4 9009/2": cluster and timeline, the first one first. */
static struct fence fence_of(const char *text)
{
	struct fence fence = {0};
	char *rest;
	while (*text) {
		fence.entries[fence.n].system_identifier = strtoull(text, &rest, 10);
		fence.entries[fence.n++].timeline = (uint32_t)strtoul(rest + 1, &rest, 10);
		text = rest + (*rest == ' ');
	}
	return fence;
}

static const char *text_of(const struct fence *fence)
{
	static char text[FENCE_TEXT_MAX];
	size_t used = 0;
	text[0] = '\0';
	for (int i = 0; i < fence->n; i++)
		used += (size_t)snprintf(text + used, sizeof text - used, "%s%llu/%u", i ? " " : "",
		                         (unsigned long long)fence->entries[i].system_identifier,
		                         (unsigned)fence->entries[i].timeline);
	return text;
}

static struct fence fullest(void)
{
	struct fence fence = {0};
	for (int i = 0; i < FENCE_ENTRIES_MAX; i++)
		fence.entries[fence.n++] = (struct fence_entry){UINT64_MAX - (uint64_t)i, UINT32_MAX};
	return fence;
}

/* ---- text ------------------------------------------------------------------------------------------------------- */

START_TEST(what_is_printed_can_be_read_by_people_and_by_us)
{
	char text[FENCE_TEXT_MAX];
	struct fence fence = fence_of("7001/4 9009/0"), again;
	size_t length = dbha__fence_print(&fence, text);
	const char *expected = "dbha-fence 1\ncluster 7001 timeline 4\ncluster 9009 timeline 0\ncheck ";
	ck_assert_msg(strncmp(text, expected, strlen(expected)) == 0, "%s", text);
	ck_assert_uint_eq(length, strlen(text));
	ck_assert_int_eq(dbha__fence_parse(&again, text, length), FENCE_TEXT_GOOD);
	ck_assert_str_eq(text_of(&again), "7001/4 9009/0");

	fence = fullest();
	length = dbha__fence_print(&fence, text);
	ck_assert_uint_lt(length, FENCE_TEXT_MAX);
	ck_assert_int_eq(dbha__fence_parse(&again, text, length), FENCE_TEXT_GOOD);
	ck_assert_int_eq(memcmp(&again, &fence, sizeof fence), 0);
}
END_TEST

/* Torn at every byte, and every byte changed in every bit. */
START_TEST(a_damaged_text_is_never_taken)
{
	char text[FENCE_TEXT_MAX];
	const struct fence fences[] = {fence_of("7001/4"), fence_of("7001/4 9009/12"), fullest()};
	for (size_t f = 0; f < sizeof fences / sizeof fences[0]; f++) {
		struct fence again;
		size_t length = dbha__fence_print(&fences[f], text);
		for (size_t n = 0; n < length; n++) {
			ck_assert_msg(dbha__fence_parse(&again, text, n) == FENCE_TEXT_DAMAGED, "cut at %zu", n);
			ck_assert_int_eq(again.n, 0);
		}
		for (size_t n = 0; n < length; n++) {
			for (int bit = 0; bit < 8; bit++) {
				text[n] ^= (char)(1 << bit);
				ck_assert_msg(dbha__fence_parse(&again, text, length) != FENCE_TEXT_GOOD, "byte %zu bit %d", n, bit);
				ck_assert_int_eq(again.n, 0);
				text[n] ^= (char)(1 << bit);
			}
		}
		ck_assert_int_eq(dbha__fence_parse(&again, text, length), FENCE_TEXT_GOOD);
	}
}
END_TEST

START_TEST(other_texts_are_told_for_what_they_are)
{
	static const struct {
		const char *text;
		enum fence_text is;
	} cases[] = {
	    {"", FENCE_TEXT_DAMAGED},
	    {"\n", FENCE_TEXT_DAMAGED},
	    {"dbha-fence 1\n", FENCE_TEXT_DAMAGED},
	    {"dbha-fence 1\ncheck 0000000000000000\n", FENCE_TEXT_DAMAGED},
	    {"dbha-fence 1\ncluster 7001 timeline 4\ncheck 0000000000000000\n", FENCE_TEXT_DAMAGED},
	    {"dbha-fence 1\r\ncluster 7001 timeline 4\r\n", FENCE_TEXT_DAMAGED},
	    {"dbha-fence 2\nsomething else\n", FENCE_TEXT_NEWER},
	    {"dbha-fence x\n", FENCE_TEXT_DAMAGED},
	    {"#!/bin/sh\nexit 0\n", FENCE_TEXT_DAMAGED},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct fence fence = fence_of("1/1");
		ck_assert_msg(dbha__fence_parse(&fence, cases[i].text, strlen(cases[i].text)) == cases[i].is, "%s",
		              cases[i].text);
		ck_assert_int_eq(fence.n, 0);
	}
	char text[FENCE_TEXT_MAX + 100], good[FENCE_TEXT_MAX];
	struct fence fence = fence_of("7001/4");
	size_t length = dbha__fence_print(&fence, good);
	memcpy(text, good, length);
	memset(text + length, 0, sizeof text - length);
	ck_assert_int_eq(dbha__fence_parse(&fence, text, length + 1), FENCE_TEXT_DAMAGED); /* a NUL behind it */
	ck_assert_int_eq(dbha__fence_parse(&fence, text, sizeof text), FENCE_TEXT_DAMAGED);
	memcpy(text + length, good, length);
	ck_assert_int_eq(dbha__fence_parse(&fence, text, 2 * length), FENCE_TEXT_DAMAGED);
}
END_TEST

/* ---- what the file should hold ---------------------------------------------------------------------------------- */

static const struct {
	const char *name, *stored, *known;
	uint64_t ours, accept;
	const char *next; /* NULL: nothing to write */
} next_cases[] = {
    {"nothing is known", "", "", 0, 0, NULL},
    {"first use", "", "7001/1", 7001, 0, "7001/1"},
    {"a cluster without a timeline is remembered too", "", "7001/0", 7001, 0, "7001/0"},
    {"nothing new", "7001/4", "7001/4", 7001, 0, NULL},
    {"a timeline rises", "7001/4", "7001/5", 7001, 0, "7001/5"},
    {"and never goes down", "7001/5", "7001/4", 7001, 0, NULL},
    {"not known yet whose nodes they are", "7001/4", "", 0, 9009, NULL},
    {"the file has another cluster", "9009/2", "7001/5", 7001, 0, NULL},
    {"accepted by the option", "9009/2", "7001/5", 7001, 7001, "7001/5 9009/2"},
    {"the option names another one", "9009/2", "7001/5", 7001, 5005, NULL},
    {"the option is for a cluster that was replaced", "9009/2 7001/5", "7001/6", 7001, 7001, NULL},
    {"the option has done its work", "7001/5 9009/2", "7001/5", 7001, 7001, NULL},
    {"what was seen of an earlier cluster counts", "7001/5 9009/2", "7001/5 9009/3", 7001, 0, "7001/5 9009/3"},
    {"the file was removed", "", "7001/5", 7001, 7001, "7001/5"},
};

START_TEST(what_the_file_should_hold_next)
{
	struct fence stored = fence_of(next_cases[_i].stored), known = fence_of(next_cases[_i].known), next;
	bool write = dbha__fence_next(&stored, &known, next_cases[_i].ours, next_cases[_i].accept, &next);
	ck_assert_msg(write == (next_cases[_i].next != NULL), "%s", next_cases[_i].name);
	if (write)
		ck_assert_msg(strcmp(text_of(&next), next_cases[_i].next) == 0, "%s: %s", next_cases[_i].name, text_of(&next));
}
END_TEST

START_TEST(accepting_puts_first_and_forgets_no_timeline)
{
	struct fence fence = fence_of("7001/4 9009/2 5005/3");
	dbha__fence_accept(&fence, OLDER);
	ck_assert_str_eq(text_of(&fence), "5005/3 7001/4 9009/2");
	dbha__fence_accept(&fence, OLDER);
	ck_assert_str_eq(text_of(&fence), "5005/3 7001/4 9009/2");
	dbha__fence_accept(&fence, 1);
	ck_assert_str_eq(text_of(&fence), "1/0 5005/3 7001/4 9009/2");
	fence = fullest();
	dbha__fence_accept(&fence, 1);
	ck_assert_int_eq(fence.n, FENCE_ENTRIES_MAX);
	ck_assert_uint_eq(dbha__fence_first(&fence)->system_identifier, 1);
	ck_assert_uint_eq(fence.entries[1].system_identifier, UINT64_MAX);
	/* The one accepted longest ago is forgotten. */
	ck_assert(dbha__fence_may_accept(&fence, UINT64_MAX - FENCE_ENTRIES_MAX + 1));
}
END_TEST

/* ---- meaning ------------------------------------------------------------------------------------------------------ */

static void see(struct view *view, int node, uint64_t system_identifier, uint32_t timeline, bool in_recovery)
{
	struct topology_events events = {0};
	struct observation o = {
	    .node = node,
	    .system_identifier = system_identifier,
	    .timeline = timeline,
	    .in_recovery = in_recovery,
	    .started_us = 1000 * (node + 1),
	    .lsn = 1,
	};
	dbha__topology_apply(view, &o, 3, &events);
}

static void see_dead(struct view *view, int node)
{
	struct topology_events events = {0};
	struct observation o = {.node = node, .failure = FAILURE_UNREACHABLE};
	dbha__topology_apply(view, &o, 3, &events);
}

static void remember(struct view *view, uint64_t system_identifier, uint32_t timeline)
{
	struct topology_events events = {0};
	dbha__topology_remember(view, system_identifier, timeline, &events);
}

/* A view of two nodes, as a handle with a fence file begins. */
static struct view begin(uint64_t system_identifier, uint32_t timeline)
{
	struct view view;
	dbha__topology_init(&view, 2);
	view.identified_only = true;
	if (system_identifier)
		remember(&view, system_identifier, timeline);
	return view;
}

START_TEST(a_stale_primary_alone_is_fenced_by_what_is_remembered)
{
	struct view view = begin(0, 0);
	see(&view, 0, OURS, 1, false);
	see_dead(&view, 1);
	ck_assert_int_eq(view.primary, 0); /* nobody could know */
	ck_assert(!dbha__fence_knows_alone(&view));

	view = begin(OURS, 2);
	see(&view, 0, OURS, 1, false);
	see_dead(&view, 1);
	ck_assert_int_eq(view.primary, -1);
	ck_assert_int_eq(view.nodes[0].state, DBHA_STATE_FENCED);
	ck_assert(dbha__fence_knows_alone(&view));
	ck_assert_uint_eq(dbha__fence_other_cluster(&view), 0);

	see(&view, 1, OURS, 2, false);
	ck_assert_int_eq(view.primary, 1);
	ck_assert(!dbha__fence_knows_alone(&view));
}
END_TEST

START_TEST(what_another_process_has_seen_fences_a_running_one)
{
	struct view view = begin(0, 0);
	see(&view, 0, OURS, 1, false);
	see_dead(&view, 1);
	uint64_t version = view.version, generation = view.nodes[0].generation;
	remember(&view, OURS, 1);
	ck_assert_uint_eq(view.version, version); /* no news */
	remember(&view, OURS, 2);
	ck_assert_int_eq(view.primary, -1);
	ck_assert(view.nodes[0].fenced);
	ck_assert_uint_gt(view.nodes[0].generation, generation); /* its connections are cut */
	ck_assert_uint_gt(view.version, version);
	remember(&view, OURS, 1);
	ck_assert_uint_eq(view.timeline, 2);
}
END_TEST

START_TEST(a_rebuilt_cluster_is_foreign_until_it_is_accepted)
{
	struct view view = begin(OURS, 7);
	see(&view, 0, THEIRS, 1, false);
	see(&view, 1, THEIRS, 1, true);
	ck_assert_int_eq(view.primary, -1);
	ck_assert_int_eq(view.nodes[0].state, DBHA_STATE_FOREIGN);
	ck_assert_int_eq(view.nodes[1].state, DBHA_STATE_FOREIGN);
	ck_assert_uint_eq(dbha__fence_other_cluster(&view), THEIRS);

	remember(&view, THEIRS, 0); /* accepted by somebody else; no need to wait for another answer */
	ck_assert_int_eq(view.nodes[0].state, DBHA_STATE_UP);
	ck_assert_str_eq(view.nodes[0].why, "");
	ck_assert_int_eq(view.primary, 0);
	ck_assert_uint_eq(view.timeline, 1); /* not 7: that was another history */
	ck_assert_uint_eq(dbha__fence_other_cluster(&view), 0);
}
END_TEST

START_TEST(an_acceptable_cluster_takes_over_when_one_of_its_nodes_answers)
{
	struct view view = begin(OURS, 7);
	view.acceptable = THEIRS;
	see(&view, 0, OURS, 7, true);
	ck_assert_uint_eq(view.system_identifier, OURS);
	see_dead(&view, 1);
	ck_assert_uint_eq(view.system_identifier, OURS);
	uint64_t version = view.version;
	see(&view, 1, THEIRS, 1, false);
	ck_assert_uint_eq(view.system_identifier, THEIRS);
	ck_assert_uint_eq(view.timeline, 1);
	ck_assert_int_eq(view.primary, 1);
	ck_assert(view.nodes[0].foreign);
	ck_assert_uint_gt(view.version, version);

	view = begin(OURS, 7);
	view.acceptable = OLDER;
	see(&view, 0, THEIRS, 1, false);
	see(&view, 1, THEIRS, 1, true);
	ck_assert_uint_eq(view.system_identifier, OURS);
	ck_assert_int_eq(view.primary, -1);
}
END_TEST

START_TEST(a_node_that_cannot_be_identified_is_not_used_with_a_fence)
{
	struct view view = begin(OURS, 2);
	see(&view, 0, 0, 0, false);
	see(&view, 1, 0, 0, true);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(view.nodes[i].state, DBHA_STATE_FOREIGN);
		ck_assert_ptr_nonnull(strstr(view.nodes[i].why, "pg_control_system"));
	}
	ck_assert_int_eq(view.primary, -1);
	ck_assert_uint_eq(dbha__fence_other_cluster(&view), 0); /* there is none to accept */

	view = begin(0, 0); /* nor at first use */
	see(&view, 0, 0, 0, false);
	see(&view, 1, 0, 0, true);
	ck_assert_int_eq(view.primary, -1);

	view = begin(0, 0);
	view.identified_only = false; /* no fence file: as ever */
	see(&view, 0, 0, 0, false);
	see(&view, 1, 0, 0, true);
	ck_assert_int_eq(view.primary, 0);
}
END_TEST

static Suite *fence_suite(void)
{
	Suite *suite = suite_create("fence");
	TCase *text = tcase_create("text");
	tcase_add_test(text, what_is_printed_can_be_read_by_people_and_by_us);
	tcase_add_test(text, a_damaged_text_is_never_taken);
	tcase_add_test(text, other_texts_are_told_for_what_they_are);
	suite_add_tcase(suite, text);
	TCase *rules = tcase_create("rules");
	tcase_add_loop_test(rules, what_the_file_should_hold_next, 0, (int)(sizeof next_cases / sizeof next_cases[0]));
	tcase_add_test(rules, accepting_puts_first_and_forgets_no_timeline);
	suite_add_tcase(suite, rules);
	TCase *meaning = tcase_create("meaning");
	tcase_add_test(meaning, a_stale_primary_alone_is_fenced_by_what_is_remembered);
	tcase_add_test(meaning, what_another_process_has_seen_fences_a_running_one);
	tcase_add_test(meaning, a_rebuilt_cluster_is_foreign_until_it_is_accepted);
	tcase_add_test(meaning, an_acceptable_cluster_takes_over_when_one_of_its_nodes_answers);
	tcase_add_test(meaning, a_node_that_cannot_be_identified_is_not_used_with_a_fence);
	suite_add_tcase(suite, meaning);
	return suite;
}

UNIT_MAIN(fence_suite)
