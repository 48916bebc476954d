/*
 * hear: what the tests of notifications share: listeners that are closed when a test ends, what comes of them, and a numbered stream of
 * notifications that goes on through faults while its listener keeps account of what it missed.
 */
#ifndef HEAR_H
#define HEAR_H

#include "cluster.h"

/* Opens a listener that listeners_close() closes, and listens to a channel (NULL: to none). Must succeed. */
dbha_listener *listen_to(dbha *h, const char *channel);
void close_listener(dbha_listener *l);
void listeners_close(void);

/* The next one within the time; must come. Good until the listener's next. */
dbha_notification hear(dbha_listener *l, int timeout_ms);
void expect_notify(dbha_listener *l, const char *channel, const char *payload);
dbha_notification expect_gap(dbha_listener *l);

/* Nothing comes for so long. */
void expect_nothing(dbha_listener *l, int timeout_ms);

/* pg_notify over the handle; must succeed. */
void notify(dbha *h, const char *channel, const char *payload);

/* Ends the server processes that listen; returns how many. */
int terminate_listeners(const struct cluster *c, int node);

/*
 * One thread sends 0, 1, 2 ... on the channel "stream", about a thousand a second; the test hears them. A number whose commit was
 * acknowledged may be missing only where a gap was told after it had been begun, and before the next number came.
 */
#define STREAM_MAX 200000

struct stream {
	dbha *h;
	dbha_listener *l;
	atomic_bool stop;
	atomic_long next;
	atomic_long acknowledged, unknown, errors;
	atomic_bool known[STREAM_MAX]; /* acknowledged */
	pthread_t thread;
	long last;  /* the highest that was heard */
	long floor; /* numbers from here on were begun after the last gap had been told; -1: no gap since `last` */
	long heard, gaps, missed;
	int64_t gap_us; /* when the last gap was told */
	dbha_notification gap;
	dbha_error first_error;
};

struct stream *stream_start(dbha *h, dbha_listener *l);
void stream_hear(struct stream *s, long more);                           /* this many more numbers */
dbha_notification stream_hear_nothing(struct stream *s, int timeout_ms); /* until none comes for so long */
void stream_hear_gap(struct stream *s);                                  /* until a gap is told */
void stream_end(struct stream *s); /* stops, and hears everything that is still to come */
void stream_free(struct stream *s);

#endif
