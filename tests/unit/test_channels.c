/*
 * test_channels: what is wanted, what the server has confirmed, and what is sent for the difference; against a naive model as well.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "channels.h"
#include "rng.h"

static struct channels channels;

static void begin(void)
{
	channels = (struct channels){.list = NULL};
}

static void end(void)
{
	dbha__channels_free(&channels);
	ck_assert_int_eq(channels.n, 0);
}

/* "+a -b": what a command sent now would do. */
static const char *difference(void)
{
	static char text[512];
	text[0] = '\0';
	for (int i = 0; i < channels.n; i++) {
		const struct channel *channel = &channels.list[i];
		if (dbha__channels_differs(channel))
			snprintf(text + strlen(text), sizeof text - strlen(text), "%s%c%s", text[0] ? " " : "",
			         channel->wanted ? '+' : '-', channel->name);
	}
	ck_assert_int_eq(dbha__channels_settled(&channels), text[0] == '\0');
	return text;
}

static void send_and_confirm(void)
{
	dbha__channels_sent(&channels);
	dbha__channels_answered(&channels, true);
}

START_TEST(names_have_1_to_63_bytes)
{
	char name[66];
	memset(name, 'x', sizeof name);
	name[65] = '\0';
	ck_assert(!dbha__channels_accepts(name));
	name[64] = '\0';
	ck_assert(!dbha__channels_accepts(name));
	name[63] = '\0';
	ck_assert(dbha__channels_accepts(name));
	name[1] = '\0';
	ck_assert(dbha__channels_accepts(name));
	ck_assert(!dbha__channels_accepts(""));
}
END_TEST

START_TEST(what_is_wanted_is_sent_once)
{
	ck_assert(dbha__channels_settled(&channels));
	ck_assert(dbha__channels_want(&channels, "b"));
	ck_assert(dbha__channels_want(&channels, "a"));
	ck_assert(dbha__channels_want(&channels, "b"));
	ck_assert_int_eq(channels.n_wanted, 2);
	ck_assert_str_eq(difference(), "+a +b");
	send_and_confirm();
	ck_assert_str_eq(difference(), "");
	ck_assert(dbha__channels_want(&channels, "a"));
	ck_assert_str_eq(difference(), "");
	dbha__channels_unwant(&channels, "a");
	dbha__channels_unwant(&channels, "never");
	ck_assert_str_eq(difference(), "-a");
	ck_assert_int_eq(channels.n_wanted, 1);
	/* Known until the server has done it. */
	ck_assert(dbha__channels_find(&channels, "a") != NULL);
	send_and_confirm();
	ck_assert(dbha__channels_find(&channels, "a") == NULL);
	ck_assert(dbha__channels_find(&channels, "b")->listening);
}
END_TEST

START_TEST(a_mind_changed_under_way_is_sent_again)
{
	ck_assert(dbha__channels_want(&channels, "a"));
	dbha__channels_sent(&channels);
	dbha__channels_unwant(&channels, "a");
	ck_assert(dbha__channels_want(&channels, "b"));
	dbha__channels_answered(&channels, true);
	ck_assert_str_eq(difference(), "-a +b");
	dbha__channels_sent(&channels);
	ck_assert(dbha__channels_want(&channels, "a"));
	dbha__channels_answered(&channels, true);
	ck_assert_str_eq(difference(), "+a");
	send_and_confirm();
	ck_assert_str_eq(difference(), "");
	ck_assert_int_eq(channels.n_wanted, 2);
}
END_TEST

START_TEST(what_was_refused_was_not_done)
{
	ck_assert(dbha__channels_want(&channels, "a"));
	send_and_confirm();
	ck_assert(dbha__channels_want(&channels, "b"));
	dbha__channels_sent(&channels);
	dbha__channels_answered(&channels, false);
	ck_assert_str_eq(difference(), "+b");
	dbha__channels_unwant(&channels, "b");
	ck_assert_str_eq(difference(), "");
	ck_assert(dbha__channels_find(&channels, "a")->listening);
}
END_TEST

START_TEST(a_loss_counts_only_where_something_could_be_missed)
{
	ck_assert(!dbha__channels_lost(&channels));
	ck_assert(dbha__channels_want(&channels, "a"));
	ck_assert(!dbha__channels_lost(&channels));
	dbha__channels_sent(&channels);
	ck_assert(!dbha__channels_lost(&channels)); /* it was not confirmed */
	dbha__channels_answered(&channels, true);   /* of nothing: the command went with the connection */
	ck_assert_str_eq(difference(), "+a");
	send_and_confirm();
	ck_assert(dbha__channels_lost(&channels));
	ck_assert_str_eq(difference(), "+a");
	ck_assert(!dbha__channels_lost(&channels)); /* once */
	send_and_confirm();
	dbha__channels_unwant(&channels, NULL);
	ck_assert_int_eq(channels.n_wanted, 0);
	ck_assert(!dbha__channels_lost(&channels));
	ck_assert_int_eq(channels.n, 0);
}
END_TEST

/* Against an array of flags: 40 channels, everything in a random order. */
START_TEST(any_order_of_events_comes_to_what_is_wanted)
{
	struct {
		bool wanted, listening, sent, sent_wanted;
	} model[40] = {{false}};
	struct rng rng = {.state = 7};
	bool under_way = false;
	for (int step = 0; step < 20000; step++) {
		int k = (int)dbha__rng_below(&rng, 40);
		char name[8];
		snprintf(name, sizeof name, "c%d", k);
		switch (dbha__rng_below(&rng, 8)) {
		case 0:
		case 1:
		case 2:
			ck_assert(dbha__channels_want(&channels, name));
			model[k].wanted = true;
			break;
		case 3:
		case 4:
			dbha__channels_unwant(&channels, name);
			model[k].wanted = false;
			break;
		case 5:
			if (!under_way)
				dbha__channels_sent(&channels);
			for (int i = 0; i < 40 && !under_way; i++) {
				model[i].sent = model[i].wanted != model[i].listening;
				model[i].sent_wanted = model[i].wanted;
			}
			under_way = true;
			break;
		case 6: {
			bool done = dbha__rng_below(&rng, 2) == 0;
			dbha__channels_answered(&channels, done);
			for (int i = 0; i < 40; i++) {
				model[i].listening = model[i].sent && done ? model[i].sent_wanted : model[i].listening;
				model[i].sent = false;
			}
			under_way = false;
			break;
		}
		default:
			if (dbha__rng_below(&rng, 20))
				break;
			dbha__channels_lost(&channels);
			for (int i = 0; i < 40; i++)
				model[i].listening = model[i].sent = false;
			under_way = false;
		}
		int wanted = 0;
		int wrong = 0;
		for (int i = 0; i < 40; i++) {
			snprintf(name, sizeof name, "c%d", i);
			const struct channel *channel = dbha__channels_find(&channels, name);
			wrong += (channel && channel->wanted) != model[i].wanted ||
			         (channel && channel->listening) != model[i].listening;
			wanted += model[i].wanted;
		}
		ck_assert_int_eq(wrong, 0);
		ck_assert_int_eq(channels.n_wanted, wanted);
	}
}
END_TEST

int main(void)
{
	TCase *tcase = tcase_create("channels");
	tcase_add_checked_fixture(tcase, begin, end);
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, names_have_1_to_63_bytes);
	tcase_add_test(tcase, what_is_wanted_is_sent_once);
	tcase_add_test(tcase, a_mind_changed_under_way_is_sent_again);
	tcase_add_test(tcase, what_was_refused_was_not_done);
	tcase_add_test(tcase, a_loss_counts_only_where_something_could_be_missed);
	tcase_add_test(tcase, any_order_of_events_comes_to_what_is_wanted);
	Suite *suite = suite_create("channels");
	suite_add_tcase(suite, tcase);
	SRunner *runner = srunner_create(suite);
	srunner_run_all(runner, CK_NORMAL);
	int failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
