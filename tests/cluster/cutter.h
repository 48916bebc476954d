/*
 * cutter: a forwarder in front of a real server that loses answers. It reads the PostgreSQL protocol in both directions, finds the
 * one request that a test has marked, counts bytes from its first one on, and at the byte that the test has named
 * it cuts the connection, drops what the server says, or holds it up. Everything before that byte is forwarded exactly, also where one
 * read has brought more, and everything that was forwarded can be looked at afterwards.
 *
 * Until the marked request is found, a request is held back until it is whole (to its Sync), so that the connections of a library
 * (probes, siblings in its pool) can be told apart by what they ask. No TLS: sslmode=disable.
 */
#ifndef CUTTER_H
#define CUTTER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CUTTER_PAIRS_MAX 64
#define CUTTER_READ_MAX  16384
#define CUTTER_MESSAGES  256

enum direction { REQUEST, REPLY };

enum cut_kind {
	CUT_NONE,   /* only look on */
	CUT_RESET,  /* both sides at once, with RST */
	CUT_END,    /* both sides at once, with FIN */
	CUT_DROP,   /* the client hears no more; it is reset when the server has done what it was told to */
	CUT_SILENT, /* the client hears no more, and nothing else happens until it gives up */
	CUT_DELAY,  /* the client hears the rest after delay_ms (REPLY only) */
};

/*
 * Exactly `at` bytes pass in the direction, counted from the first byte of the request that has the marker in it (REPLY: from the
 * answer to it). A REQUEST that is dropped after `at` bytes is ended there for the server, with FIN. One that has fallen silent stays open.
 */
struct cut {
	char marker[64]; /* what the request must have in it */
	enum cut_kind kind;
	enum direction direction;
	long at;
	int delay_ms;
};

/* One message of the protocol, of which all or a part was forwarded. */
struct cut_message {
	enum direction direction;
	char type;   /* 'P', 'B', 'Q' ...; 0: none (a startup packet) */
	long start;  /* its first byte, counted as above */
	long length; /* with its type byte; 0: its header was not forwarded whole */
};

struct cut_report {
	bool found;   /* the marked request came */
	bool cutting; /* the byte was reached */
	bool done;    /* ... and the cut was made: its connection is gone, or as silent as it will stay */
	int pid;      /* of the server's process; 0: not told */
	long forwarded[2];
	uint8_t bytes[2][CUTTER_READ_MAX]; /* the first of them */
	int n_messages;
	struct cut_message messages[CUTTER_MESSAGES];
};

/* Where in the protocol one direction of a connection is. */
struct cut_stream {
	bool untyped; /* the next message is a startup packet, or the server's one byte to a request for encryption */
	uint8_t header[5];
	int n_header;
	long left; /* of the message's body */
	char type;
	uint32_t first_word; /* of the body: which startup packet, which process */
	int n_first;
};

struct cut_pair {
	int client, server;
	bool chosen;        /* its request has the marker, and the cut is still to come */
	unsigned serial;    /* of the cut */
	bool deaf;          /* nothing goes to the client any more */
	bool mute;          /* nothing goes to the server any more */
	bool resets_client; /* when the server has answered */
	int pid;
	int questions; /* Syncs and simple queries sent, less those answered */
	bool dropped;  /* something that the server has said */
	struct cut cut;
	struct cut_stream streams[2]; /* of what was forwarded */
	struct cut_stream scan;       /* of what has come from the client */
	int n_held;                   /* of a request that is not whole yet */
	char held[CUTTER_READ_MAX];
	int n_late; /* of a reply that is held up */
	int64_t late_ms;
	char late[CUTTER_READ_MAX];
};

struct cutter {
	int listener;
	int port;               /* its own */
	atomic_int server_port; /* of 127.0.0.1, for connections that are made from now on */
	pthread_t thread;
	bool running;
	atomic_bool stop;
	atomic_bool reset_all;
	atomic_long accepted, n_cut; /* connections */
	pthread_mutex_t lock;        /* over the next three */
	unsigned serial;             /* of what is armed */
	struct cut armed;            /* kind and marker; an empty marker: nothing is armed */
	struct cut_report report;
	struct cut_pair *pairs[CUTTER_PAIRS_MAX]; /* the thread's own */
	int n_pairs;
};

/* The cutter is static or on the heap; it is stopped with cutter_stop, after the handles that use it. */
void cutter_start(struct cutter *cutter, int server_port);
void cutter_stop(struct cutter *cutter);

/* The next request with the marker, on whichever connection. Forgets the report of the one before. */
void cutter_arm(struct cutter *cutter, const struct cut *cut);

/*
 * No cut any more, if it was not made yet, and what became of it. Waits until a cut in progress is done, for at most a second. A
 * connection that has fallen silent is reset.
 */
void cutter_disarm(struct cutter *cutter, struct cut_report *report);

/* Resets every connection that is open. */
void cutter_reset_all(struct cutter *cutter);

/* Where a byte is, for people: "byte 0 of COMMIT's 'Q' (request)". */
const char *cut_place(const struct cut_report *report, enum direction direction, long at, char *text, int size);

#endif
