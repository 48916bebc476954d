/*
 * loop: waits in poll(2) and steps the monitor and the connector. By a thread of the handle's own; or, with monitor=off, by the
 * threads of the application while they wait for something (one of them at a time) and, for a look, between two calls.
 */
#ifndef DBHA_RUNTIME_LOOP_H
#define DBHA_RUNTIME_LOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "connector.h"
#include "monitor.h"
#include "sync.h"

struct loop {
	/*
	 * Held while stepping. Nobody else wants it but fork(), which must find the probes and connects between two steps; so
	 * libpq's non-blocking calls may be made under this one mutex.
	 */
	struct mutex stepping;
	struct monitor *monitor;
	struct connector *connector;
	struct wake *wake;
	_Atomic bool stop;
	_Atomic bool led;        /* somebody is at it: the thread for good, or a caller for one turn */
	_Atomic int64_t wake_us; /* when a turn is due next, whatever the sockets say */
	int64_t left_us;         /* without a thread: when the last turn ended */
	bool running;            /* a thread exists that has to be joined */
	pthread_t thread;
	struct pollfd *items; /* the poll set, of whoever leads; grown as needed */
	int size;
};

int dbha__loop_init(struct loop *loop, struct monitor *monitor, struct connector *connector, struct wake *wake);
void dbha__loop_fini(struct loop *loop);

/* Starts the thread. 0, or an errno. */
int dbha__loop_start(struct loop *loop);

/* Asks the thread to stop and waits for it: it never blocks for longer than a step. Without a thread: ends the turns. */
void dbha__loop_stop(struct loop *loop);

/*
 * Without a thread: one turn by the caller. Waits for news until `until` (monotonic us; 0: not at all), a few milliseconds at most, and
 * steps. False: another thread is at it. No lock may be held.
 */
bool dbha__loop_turn(struct loop *loop, int64_t until);

/* In a forked child: whoever led is not here. */
void dbha__loop_reset_after_fork(struct loop *loop);

#endif
