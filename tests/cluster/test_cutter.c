/*
 * test_cutter: that the tool which loses answers loses what it says and nothing else. The test is both sides itself: each byte that
 * it sends is compared with what comes out, for every place of a cut, in both directions.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"
#include "cutter.h"
#include "relay.h"

#define MARKER "the marked one"

static const char startup[] = "\0\0\0\x08\0\x03\0\0";
static const char welcome[] = "R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x30\x39\0\0\0\0Z\0\0\0\x05I";
static const char probe[] = "Q\0\0\0\x0dSELECT 1\0";
static const char request[] = "P\0\0\0\x16\0" MARKER "\0\0\0B\0\0\0\x05\0E\0\0\0\x04S\0\0\0\x04";
static const char reply[] = "1\0\0\0\x04\x32\0\0\0\x04"
                            "C\0\0\0\x0bINSERT\0Z\0\0\0\x05I";

#define SIZE(text) ((int)sizeof(text) - 1)

static struct cutter cutter;
static int listener = -1, client = -1, server = -1;

enum { OPEN = 0, ENDED = -1, WAS_RESET = -2 };

/* Exactly these bytes come out, soon; -1 for n: only look how the connection is. */
static int hear(int fd, const char *expected, int n)
{
	char data[256];
	int got = 0;
	struct pollfd item = {.fd = fd, .events = POLLIN};
	while (got < n && poll(&item, 1, PATIENCE_MS) > 0) {
		ssize_t more = recv(fd, data + got, (size_t)(n - got), 0);
		ck_assert_int_gt(more, 0);
		got += (int)more;
	}
	ck_assert_int_eq(got, n);
	ck_assert(n == 0 || memcmp(data, expected, (size_t)n) == 0);
	return got;
}

/* What follows: nothing (within some ms), the end, or a reset. */
static int what_follows(int fd, int patience_ms)
{
	char byte;
	struct pollfd item = {.fd = fd, .events = POLLIN};
	if (poll(&item, 1, patience_ms) == 0)
		return OPEN;
	ssize_t n = recv(fd, &byte, 1, 0);
	ck_assert_msg(n <= 0, "one byte too many");
	return n == 0 ? ENDED : WAS_RESET;
}

static void say(int fd, const char *data, int n)
{
	ck_assert_int_eq(send(fd, data, (size_t)n, MSG_NOSIGNAL), n);
}

static void both_sides(void)
{
	int port;
	listener = listen_local(&port);
	cutter_start(&cutter, port);
}

static void nobody(void)
{
	close(client);
	close(server);
	close(listener);
	cutter_stop(&cutter);
	listener = client = server = -1;
}

static void connect_both(void)
{
	close(client);
	close(server);
	client = connect_local(cutter.port);
	struct pollfd item = {.fd = listener, .events = POLLIN};
	ck_assert_int_eq(poll(&item, 1, PATIENCE_MS), 1);
	server = accept(listener, NULL, NULL);
	ck_assert(client >= 0 && server >= 0);
	say(client, startup, SIZE(startup));
	hear(server, startup, SIZE(startup));
	say(server, welcome, SIZE(welcome));
	hear(client, welcome, SIZE(welcome));
	say(client, probe, SIZE(probe)); /* has no marker, and is let through whatever is armed */
	hear(server, probe, SIZE(probe));
	say(server, "Z\0\0\0\x05I", 6);
	hear(client, "Z\0\0\0\x05I", 6);
}

static void arm(enum cut_kind kind, enum direction direction, long at)
{
	struct cut cut = {.marker = MARKER, .kind = kind, .direction = direction, .at = at, .delay_ms = 30};
	cutter_arm(&cutter, &cut);
	connect_both();
}

/* In two pieces, and with half a message at its end: the request must come through as it is. */
static void ask(void)
{
	say(client, request, 9);
	say(client, request + 9, SIZE(request) - 9);
}

static struct cut_report *report_now(void)
{
	static struct cut_report report;
	cutter_disarm(&cutter, &report);
	ck_assert(report.found);
	ck_assert_int_eq(report.pid, 12345);
	ck_assert_int_eq(memcmp(report.bytes[REQUEST], request, (size_t)report.forwarded[REQUEST]), 0);
	ck_assert_int_eq(memcmp(report.bytes[REPLY], reply, (size_t)report.forwarded[REPLY]), 0);
	return &report;
}

START_TEST(a_request_is_cut_after_exactly_so_many_bytes)
{
	static const enum cut_kind kinds[] = {CUT_RESET, CUT_END, CUT_DROP, CUT_SILENT};
	for (int at = 0; at <= SIZE(request); at++) {
		enum cut_kind kind = kinds[at % 4];
		arm(kind, REQUEST, at);
		ask();
		hear(server, request, at);
		if (kind == CUT_SILENT) {
			ck_assert_int_eq(what_follows(server, 10), OPEN);
			ck_assert_int_eq(what_follows(client, 10), OPEN);
		} else if (kind == CUT_DROP) { /* the client waits for the end of the server */
			ck_assert_int_eq(what_follows(server, PATIENCE_MS), ENDED);
			ck_assert_int_eq(what_follows(client, 10), OPEN);
			say(server, reply, SIZE(reply));
			close(server);
			server = -1;
			ck_assert_int_eq(what_follows(client, PATIENCE_MS), WAS_RESET);
		} else {
			ck_assert_int_eq(what_follows(server, PATIENCE_MS), kind == CUT_END ? ENDED : WAS_RESET);
			ck_assert_int_eq(what_follows(client, PATIENCE_MS), kind == CUT_END ? ENDED : WAS_RESET);
		}
		struct cut_report *report = report_now();
		ck_assert(report->done);
		ck_assert_int_eq(report->forwarded[REQUEST], at);
		ck_assert_int_eq(report->forwarded[REPLY], 0);
	}
}
END_TEST

START_TEST(a_reply_is_cut_after_exactly_so_many_bytes)
{
	static const enum cut_kind kinds[] = {CUT_RESET, CUT_END, CUT_DROP, CUT_SILENT};
	for (int at = 0; at < SIZE(reply); at++) {
		for (int i = 0; i < 4; i++) {
			enum cut_kind kind = kinds[i];
			arm(kind, REPLY, at);
			ask();
			hear(server, request, SIZE(request));
			say(server, reply, SIZE(reply));
			hear(client, reply, at);
			if (kind == CUT_SILENT)
				ck_assert_int_eq(what_follows(client, 5), OPEN);
			else
				ck_assert_int_eq(what_follows(client, PATIENCE_MS), kind == CUT_END ? ENDED : WAS_RESET);
			struct cut_report *report = report_now();
			ck_assert(report->done);
			ck_assert_int_eq(report->forwarded[REQUEST], SIZE(request));
			ck_assert_int_eq(report->forwarded[REPLY], at);
		}
	}
}
END_TEST

START_TEST(a_dropped_reply_resets_the_client_when_the_server_has_said_all)
{
	arm(CUT_DROP, REPLY, 5);
	ask();
	hear(server, request, SIZE(request));
	say(server, reply, 12);
	hear(client, reply, 5);
	ck_assert_int_eq(what_follows(client, 30), OPEN);
	say(server, reply + 12, SIZE(reply) - 12);
	ck_assert_int_eq(what_follows(client, PATIENCE_MS), WAS_RESET);
	ck_assert(report_now()->done);
}
END_TEST

START_TEST(a_delayed_reply_comes_whole_and_late)
{
	arm(CUT_DELAY, REPLY, 7);
	ask();
	hear(server, request, SIZE(request));
	int64_t began = now_ms();
	say(server, reply, SIZE(reply));
	hear(client, reply, SIZE(reply));
	ck_assert_int_ge(now_ms() - began, 29);
	ck_assert_int_eq(report_now()->forwarded[REPLY], SIZE(reply));
	say(client, probe, SIZE(probe));
	hear(server, probe, SIZE(probe));
}
END_TEST

START_TEST(what_is_not_reached_is_not_cut_and_only_once_is)
{
	arm(CUT_RESET, REPLY, SIZE(reply) + 1);
	for (int i = 0; i < 2; i++) {
		ask();
		hear(server, request, SIZE(request));
		say(server, reply, SIZE(reply));
		hear(client, reply, SIZE(reply));
		if (i == 0)
			ck_assert(!report_now()->done);
	}
	ck_assert_int_eq(what_follows(client, 20), OPEN);
}
END_TEST

START_TEST(the_report_knows_the_place)
{
	char text[128];
	arm(CUT_NONE, REPLY, 0);
	ask();
	hear(server, request, SIZE(request));
	say(server, reply, SIZE(reply));
	hear(client, reply, SIZE(reply));
	struct cut_report *report = report_now();
	ck_assert_int_eq(report->n_messages, 8);
	ASSERT_HAS(cut_place(report, REQUEST, 0, text, sizeof text), "byte 0 of 23 of 'P' \"." MARKER);
	ASSERT_HAS(cut_place(report, REPLY, 12, text, sizeof text), "byte 2 of 12 of 'C' \"INSERT");
	ASSERT_HAS(cut_place(report, REPLY, SIZE(reply), text, sizeof text), "the end");
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("cutter");
	ADD_TEST(suite, a_request_is_cut_after_exactly_so_many_bytes, both_sides, nobody, 60);
	ADD_TEST(suite, a_reply_is_cut_after_exactly_so_many_bytes, both_sides, nobody, 60);
	ADD_TEST(suite, a_dropped_reply_resets_the_client_when_the_server_has_said_all, both_sides, nobody, 30);
	ADD_TEST(suite, a_delayed_reply_comes_whole_and_late, both_sides, nobody, 30);
	ADD_TEST(suite, what_is_not_reached_is_not_cut_and_only_once_is, both_sides, nobody, 30);
	ADD_TEST(suite, the_report_knows_the_place, both_sides, nobody, 30);
	return run_suite(suite, NULL);
}
