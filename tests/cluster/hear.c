#include "hear.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "work.h"

#define LISTENERS_MAX 32

static dbha_listener *listeners[LISTENERS_MAX];

dbha_listener *listen_to(dbha *h, const char *channel)
{
	dbha_error err;
	dbha_listener *l = dbha_listener_open(h, &err);
	ck_assert_msg(l != NULL, "%s", l ? "" : err.message);
	int at = 0;
	while (listeners[at])
		ck_assert_int_lt(++at, LISTENERS_MAX);
	listeners[at] = l;
	if (channel)
		ASSERT_OK(dbha_listen(l, channel, PATIENCE_MS, &err), err);
	return l;
}

void close_listener(dbha_listener *l)
{
	for (int i = 0; i < LISTENERS_MAX; i++)
		if (listeners[i] == l)
			listeners[i] = NULL;
	dbha_listener_close(l);
}

void listeners_close(void)
{
	for (int i = 0; i < LISTENERS_MAX; i++)
		close_listener(listeners[i]);
}

dbha_notification hear(dbha_listener *l, int timeout_ms)
{
	dbha_error err;
	dbha_notification got = {.size = sizeof got};
	int rc = dbha_listener_next(l, timeout_ms, &got, &err);
	ck_assert_msg(rc == 1, "nothing came in %d ms: %s", timeout_ms, rc < 0 ? err.message : got.text);
	return got;
}

void expect_notify(dbha_listener *l, const char *channel, const char *payload)
{
	dbha_notification got = hear(l, PATIENCE_MS);
	ck_assert_msg(got.kind == DBHA_NOTIFY, "not a notification: %s", got.text);
	ck_assert_str_eq(got.channel, channel);
	ck_assert_str_eq(got.payload, payload);
}

dbha_notification expect_gap(dbha_listener *l)
{
	dbha_notification got = hear(l, PATIENCE_MS);
	ck_assert_msg(got.kind == DBHA_GAP, "not a gap: %s \"%s\"", got.channel, got.payload);
	ck_assert_str_eq(got.channel, "");
	ck_assert_str_eq(got.payload, "");
	ck_assert(got.node[0] && got.text[0]);
	return got;
}

void expect_nothing(dbha_listener *l, int timeout_ms)
{
	dbha_error err;
	dbha_notification got = {.size = sizeof got};
	int rc = dbha_listener_next(l, timeout_ms, &got, &err);
	ck_assert_msg(rc == 0, "%d: kind %d, \"%s\" \"%s\" %s", rc, rc > 0 ? (int)got.kind : -1, rc > 0 ? got.channel : "",
	              rc > 0 ? got.payload : "", rc < 0 ? err.message : got.text);
	ck_assert_int_eq(got.kind, DBHA_NOTHING);
}

void notify(dbha *h, const char *channel, const char *payload)
{
	const char *values[] = {channel, payload};
	PGresult *result;
	dbha_error err;
	dbha_request rq =
	    DBHA_REQUEST(.sql = "SELECT pg_notify($1, $2)", .intent = DBHA_WRITE, .n_params = 2, .values = values);
	int code = dbha_exec(h, &rq, &result, &err);
	ASSERT_OK(code, err);
	PQclear(result);
}

int terminate_listeners(const struct cluster *c, int node)
{
	/* Its last command was LISTEN, or the one that does nothing. */
	return (int)cluster_count(c, node,
	                          "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app' AND "
	                          "(query LIKE 'LISTEN %%' OR query = '' AND state = 'idle')");
}

/* ---- the stream -------------------------------------------------------------------------------------------------- */

static void *send_numbers(void *arg)
{
	struct stream *s = arg;
	while (!atomic_load(&s->stop) && !atomic_load(&threads_stop) && atomic_load(&s->next) < STREAM_MAX) {
		char text[24];
		const char *values[] = {text};
		PGresult *result;
		dbha_error err;
		long number = atomic_fetch_add(&s->next, 1);
		snprintf(text, sizeof text, "%ld", number);
		dbha_request rq = DBHA_REQUEST(.sql = "SELECT pg_notify('stream', $1)", .intent = DBHA_WRITE, .n_params = 1,
		                               .values = values, .timeout_ms = 20000);
		int code = dbha_exec(s->h, &rq, &result, &err);
		PQclear(result);
		atomic_store(&s->known[number], code == DBHA_OK);
		if (code == DBHA_OK)
			atomic_fetch_add(&s->acknowledged, 1);
		else if (err.outcome_unknown)
			atomic_fetch_add(&s->unknown, 1);
		else if (atomic_fetch_add(&s->errors, 1) == 0)
			s->first_error = err;
		struct timespec pause = {.tv_nsec = 500000};
		nanosleep(&pause, NULL);
	}
	return NULL;
}

struct stream *stream_start(dbha *h, dbha_listener *l)
{
	struct stream *s = calloc(1, sizeof *s);
	ck_assert(s != NULL);
	s->h = h;
	s->l = l;
	s->last = s->floor = -1;
	s->thread = start_thread(send_numbers, s);
	return s;
}

/*
 * All that is between two numbers that came and was acknowledged is missing. Acknowledged it was before the later one was begun, as one
 * thread sends them all.
 */
static void account(struct stream *s, long number)
{
	for (long missing = s->last + 1; missing < number; missing++) {
		if (!atomic_load(&s->known[missing]))
			continue;
		ck_assert_msg(s->floor >= 0, "%ld is missing before %ld, and no gap was told", missing, number);
		ck_assert_msg(missing < s->floor, "%ld is missing, which was sent after the gap had been told (at %ld)",
		              missing, s->floor);
		s->missed++;
	}
	/* What is of unknown outcome may come late: the old server process may still commit it. */
	ck_assert_msg(number > s->last || !atomic_load(&s->known[number]), "%ld came after %ld", number, s->last);
	if (number > s->last)
		s->last = number;
	s->floor = -1;
	s->heard++;
}

static void take(struct stream *s, const dbha_notification *got)
{
	if (got->kind == DBHA_GAP) {
		s->gap_us = now_us();
		s->gap = *got;
		s->gap.payload = "";
		s->gaps++;
		s->floor = atomic_load(&s->next);
	} else {
		ck_assert_str_eq(got->channel, "stream");
		account(s, atol(got->payload));
	}
}

static void take_one(struct stream *s)
{
	dbha_notification got = hear(s->l, PATIENCE_MS);
	take(s, &got);
}

dbha_notification stream_hear_nothing(struct stream *s, int timeout_ms)
{
	dbha_error err;
	dbha_notification got = {.size = sizeof got};
	int rc;
	while ((rc = dbha_listener_next(s->l, timeout_ms, &got, &err)) == 1)
		take(s, &got);
	ck_assert_msg(rc == 0, "%s", err.message);
	return got;
}

void stream_hear(struct stream *s, long more)
{
	for (long end = s->heard + more; s->heard < end;)
		take_one(s);
}

void stream_hear_gap(struct stream *s)
{
	for (long before = s->gaps; s->gaps == before;)
		take_one(s);
}

void stream_end(struct stream *s)
{
	atomic_store(&s->stop, true);
	join_thread(s->thread);
	long last = atomic_load(&s->next) - 1;
	while (last > s->last && !atomic_load(&s->known[last]))
		last--;
	while (s->last < last)
		take_one(s);
	ck_assert_msg(atomic_load(&s->errors) == 0, "%s", s->first_error.message);
	printf("# stream: %ld sent, %ld acknowledged, %ld unknown; %ld heard, %ld gaps, %ld missed in them\n",
	       atomic_load(&s->next), atomic_load(&s->acknowledged), atomic_load(&s->unknown), s->heard, s->gaps,
	       s->missed);
}

void stream_free(struct stream *s)
{
	free(s);
}
