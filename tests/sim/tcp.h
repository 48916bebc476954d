/*
 * tcp: one TCP connection with the session at its end, and the messages on it.
 */
#ifndef SIM_TCP_H
#define SIM_TCP_H

#include "world.h"

enum message_kind {
	/* to the server */
	ASK_STARTUP,
	ASK_IDENTITY,
	ASK_SETTING,
	ASK_PREPARE,
	ASK_EXEC,
	ASK_CANCEL,
	ASK_FIN,
	/* to the client */
	SAY_STARTED,
	SAY_IDENTITY,
	SAY_DONE,
	SAY_ERROR, /* and the session lives */
	SAY_FATAL, /* last words */
	SAY_END,   /* the end of the stream */
	SAY_RESET,
};

struct message {
	struct link *link;
	struct message *next;
	enum message_kind kind;
	struct op *op;
	bool
	    flag; /* ASK_IDENTITY: make a reader; ASK_SETTING: read only; SAY_IDENTITY: made a reader; SAY_DONE: no standby */
	bool answered; /* SAY_FATAL: the statement itself had been done, its commit was open */
	char sqlstate[6];
	struct observation seen;
	uint32_t timeline; /* SAY_DONE of a write: where it was executed */
	struct cancel *cancel;
};

/* A cancel request: it names the session, not the statement that it was meant for. */
struct cancel {
	struct link *link;
	const struct op *op; /* what was in progress when it was made; NULL: something of the library's own */
	struct co *sender;   /* waits for the server to have acted */
	bool acted;
};

enum link_phase {
	LINK_CONNECTING,
	LINK_OPEN,
	LINK_FAILED, /* refused, reset, or ended by the server */
};

struct link {
	struct server *server;
	struct link *next; /* of the server's */
	int fd;
	int64_t last_arrival[2]; /* so that messages of one way keep their order */
	/* ---- the client's end ---- */
	enum link_phase phase;
	int syn_tries;
	bool ended; /* the stream has ended, behind what is in the inbox */
	bool cut;   /* shut down by ourselves */
	bool closed;
	bool lossy; /* what is on its way to the client is lost */
	struct message *inbox;
	int cancels_pending;
	/* ---- the server's end ---- */
	uint64_t life; /* of the server that accepted */
	bool session;
	bool fin;
	bool read_only;
	const struct cancel *cancelled; /* what is being worked on is to be given up, by this */
	struct message *queue;
	struct message *current; /* being worked on */
	bool stalled;            /* it was done while the server was paused */
};

/* Begins to connect. */
struct link *link_open(struct server *server);
void link_send(struct link *link, enum way way, const struct message *message);
/* Not in order with what is on its way on the link itself. */
void link_send_cancel(struct cancel *cancel);
void link_cut(struct link *link);
void link_close(struct link *link);
/* Cuts, and what has not left our kernel never will. */
void link_cut_off(struct link *link);
/* Takes the oldest message; NULL: there is none. */
struct message *link_receive(struct link *link);

/* By net.c, for server.c: a message has come, or the processes may go on. */
void session_take(struct link *link, struct message *message);
void session_go_on(struct link *link);

#endif
