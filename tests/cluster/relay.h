/*
 * relay: a forwarder in front of a real server, which counts the connections that are made to it and may slow the server
 * down. While the server is dead every connection is counted and then reset, as the server's own host would do.
 */
#ifndef RELAY_H
#define RELAY_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define RELAY_MAX 256 /* connections at one time; beyond it they wait */

/* One connection; `held` is what the server has said and the client may not hear before due_ms. */
struct relay_pair {
	int client, server;
	int64_t due_ms;
	int n_held;
	char held[16384];
};

struct relay {
	int listener;
	int port;        /* its own */
	int server_port; /* of 127.0.0.1 */
	pthread_t thread;
	bool running;
	atomic_bool stop;
	atomic_int delay_ms;  /* of whatever the server says */
	atomic_long accepted; /* connections that were made */
	atomic_int open, most_open;
	struct relay_pair pairs[RELAY_MAX]; /* the thread's own */
	int n_pairs;
};

/* The relay is static or on the heap; it is stopped with relay_stop, after the handles that use it. */
void relay_start(struct relay *relay, int server_port);
void relay_stop(struct relay *relay);

#endif
