/*
 * loop: the handle's one background thread, a thin shell: it waits in poll(2) and steps the monitor and the connector.
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
	bool running; /* a thread exists that has to be joined */
	pthread_t thread;
};

int dbha__loop_init(struct loop *loop, struct monitor *monitor, struct connector *connector, struct wake *wake);
void dbha__loop_fini(struct loop *loop);

/* Starts the thread. 0, or an errno. */
int dbha__loop_start(struct loop *loop);

/* Asks the thread to stop and waits for it: it never blocks for longer than a step. */
void dbha__loop_stop(struct loop *loop);

#endif
