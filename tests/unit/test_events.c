/*
 * test_events: the queue of events keeps their order, the newest 256, and gives each one to one caller.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "events.h"
#include "unit.h"

static dbha_event numbered(int number)
{
	dbha_event event = {.size = sizeof event, .kind = DBHA_EVENT_NODE, .node = number};
	snprintf(event.text, sizeof event.text, "number %d", number);
	return event;
}

static bool push(struct events *events, int number)
{
	dbha_event event = numbered(number);
	return dbha__events_push(events, &event);
}

/* -1: there was none. */
static int pop(struct events *events)
{
	dbha_event event;
	char expected[32];
	if (!dbha__events_pop(events, &event))
		return -1;
	snprintf(expected, sizeof expected, "number %d", event.node);
	ck_assert_str_eq(event.text, expected);
	return event.node;
}

START_TEST(events_come_in_order)
{
	struct events events;
	ck_assert_int_eq(dbha__events_init(&events), 0);
	ck_assert_int_eq(pop(&events), -1);
	for (int i = 0; i < 10; i++)
		ck_assert(!push(&events, i));
	for (int i = 0; i < 10; i++)
		ck_assert_int_eq(pop(&events), i);
	ck_assert_int_eq(pop(&events), -1);
	dbha__events_fini(&events);
}
END_TEST

START_TEST(an_empty_queue_leaves_the_event_alone)
{
	struct events events;
	dbha_event event = numbered(7);
	ck_assert_int_eq(dbha__events_init(&events), 0);
	ck_assert(!dbha__events_pop(&events, &event));
	ck_assert_int_eq(event.node, 7);
	dbha__events_fini(&events);
}
END_TEST

START_TEST(the_newest_are_kept_and_each_loss_is_told)
{
	struct events events;
	ck_assert_int_eq(dbha__events_init(&events), 0);
	for (int i = 0; i < EVENTS_MAX; i++)
		ck_assert_msg(!push(&events, i), "event %d pushed one out", i);
	for (int i = EVENTS_MAX; i < 3 * EVENTS_MAX + 5; i++)
		ck_assert_msg(push(&events, i), "event %d pushed none out", i);
	for (int i = 2 * EVENTS_MAX + 5; i < 3 * EVENTS_MAX + 5; i++)
		ck_assert_int_eq(pop(&events), i);
	ck_assert_int_eq(pop(&events), -1);
	ck_assert(!push(&events, 1));
	ck_assert_int_eq(pop(&events), 1);
	dbha__events_fini(&events);
}
END_TEST

START_TEST(what_is_offered_pushes_nothing_out)
{
	struct events events;
	dbha_event event = numbered(1000);
	ck_assert_int_eq(dbha__events_init(&events), 0);
	for (int i = 0; i < EVENTS_MAX / 2 - 1; i++)
		ck_assert(!push(&events, i));
	ck_assert(dbha__events_offer(&events, &event));
	ck_assert(!dbha__events_offer(&events, &event));
	/* What has to be said has room. */
	for (int i = EVENTS_MAX / 2; i < EVENTS_MAX; i++)
		ck_assert_msg(!push(&events, i), "event %d pushed one out", i);
	for (int i = 0; i < EVENTS_MAX; i++)
		ck_assert_int_eq(pop(&events), i == EVENTS_MAX / 2 - 1 ? 1000 : i);
	dbha__events_fini(&events);
}
END_TEST

/* In and out at every fill level, many times around the ring. */
START_TEST(the_ring_goes_round)
{
	struct events events;
	int in = 0;
	int out = 0;
	ck_assert_int_eq(dbha__events_init(&events), 0);
	for (int round = 0; round < 600; round++) {
		for (int i = 0; i < round % EVENTS_MAX + 1; i++)
			if (push(&events, in++))
				out++;
		for (int i = 0; i < round % 200; i++) {
			int got = pop(&events);
			if (got != (out < in ? out : -1))
				ck_abort_msg("round %d: got %d, expected %d", round, got, out);
			out += got >= 0;
		}
	}
	dbha__events_fini(&events);
}
END_TEST

#define PRODUCERS 4
#define CONSUMERS 4
#define EACH      2000

struct shared {
	struct events events;
	_Atomic int lost;
	_Atomic int producing;
	_Atomic int seen[PRODUCERS * EACH];
};

struct producer {
	struct shared *shared;
	int first;
};

static void *produce(void *arg)
{
	const struct producer *producer = arg;
	for (int i = 0; i < EACH; i++)
		if (push(&producer->shared->events, producer->first + i))
			producer->shared->lost++;
	producer->shared->producing--;
	return NULL;
}

/* Takes until all have been produced and none is left; the events of one producer must come in its order. */
static void *consume(void *arg)
{
	struct shared *shared = arg;
	int last[PRODUCERS] = {-1, -1, -1, -1};
	intptr_t disorder = 0;
	for (;;) {
		bool over = shared->producing == 0;
		dbha_event event;
		if (dbha__events_pop(&shared->events, &event)) {
			int producer = event.node / EACH;
			disorder += event.node <= last[producer];
			last[producer] = event.node;
			shared->seen[event.node]++;
		} else if (over) {
			return (void *)disorder;
		}
	}
}

START_TEST(each_event_goes_to_one_caller)
{
	static struct shared shared;
	pthread_t producers[PRODUCERS], consumers[CONSUMERS];
	struct producer from[PRODUCERS];
	ck_assert_int_eq(dbha__events_init(&shared.events), 0);
	shared.producing = PRODUCERS;
	for (int i = 0; i < CONSUMERS; i++)
		ck_assert_int_eq(pthread_create(&consumers[i], NULL, consume, &shared), 0);
	for (int i = 0; i < PRODUCERS; i++) {
		from[i] = (struct producer){&shared, i * EACH};
		ck_assert_int_eq(pthread_create(&producers[i], NULL, produce, &from[i]), 0);
	}
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(producers[i], NULL);
	for (int i = 0; i < CONSUMERS; i++) {
		void *disorder;
		pthread_join(consumers[i], &disorder);
		ck_assert_ptr_null(disorder);
	}
	int got = 0;
	for (int i = 0; i < PRODUCERS * EACH; i++) {
		if (shared.seen[i] > 1)
			ck_abort_msg("event %d came %d times", i, shared.seen[i]);
		got += shared.seen[i];
	}
	ck_assert_int_eq(got + shared.lost, PRODUCERS * EACH);
	dbha__events_fini(&shared.events);
}
END_TEST

static Suite *events_suite(void)
{
	TCase *tcase = tcase_create("events");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, events_come_in_order);
	tcase_add_test(tcase, an_empty_queue_leaves_the_event_alone);
	tcase_add_test(tcase, the_newest_are_kept_and_each_loss_is_told);
	tcase_add_test(tcase, what_is_offered_pushes_nothing_out);
	tcase_add_test(tcase, the_ring_goes_round);
	tcase_add_test(tcase, each_event_goes_to_one_caller);
	Suite *suite = suite_create("events");
	suite_add_tcase(suite, tcase);
	return suite;
}

UNIT_MAIN(events_suite)
