/*
 * relay: a forwarder in front of a real server, which counts the connections that are made to it and may slow the server
 * down, fall silent in the middle of a conversation, or lead to another server. While the server is dead every connection is
 * counted and then reset, as the server's own host would do.
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
	bool server_spoke; /* last */
	int answers_left;  /* that the client may still hear; -1: no limit */
	long bytes_left;   /* the same in bytes */
	int64_t due_ms;
	int n_held;
	char held[16384];
};

struct relay {
	int listener;
	int port;               /* its own */
	atomic_int server_port; /* of 127.0.0.1, for connections that are made from now on */
	pthread_t thread;
	bool running;
	atomic_bool stop;
	atomic_int delay_ms;  /* of whatever the server says */
	atomic_long accepted; /* connections that were made */
	atomic_long mute_after;
	atomic_int mute_after_answers;
	atomic_int open, most_open;
	struct relay_pair pairs[RELAY_MAX]; /* the thread's own */
	int n_pairs;
};

/* The relay is static or on the heap; it is stopped with relay_stop, after the handles that use it. */
void relay_start(struct relay *relay, int server_port);
void relay_stop(struct relay *relay);

/* Connections made from now on hear this many bytes from the server, then nothing; -1: everything. What is open goes on. */
void relay_mute_after(struct relay *relay, long bytes);

/* The same after so many answers: what the server says until the client speaks again is one. */
void relay_mute_after_answers(struct relay *relay, int answers);

/* What forwarders are made of: a listener on a port of its own, a connection (or -1), an end with RST, no waiting for more. */
int listen_local(int *port);
int connect_local(int port);
void close_with_reset(int fd);
void send_at_once(int fd);

#endif
