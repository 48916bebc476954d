/*
 * channels: what a listener listens to: which channels its owner wants, and which of them the server of the connection of now
 * has confirmed. What the two differ in is what has to be sent. Pure.
 */
#ifndef DBHA_POLICY_CHANNELS_H
#define DBHA_POLICY_CHANNELS_H

#include <stdbool.h>

/* PostgreSQL's identifiers have 63 bytes at most (NAMEDATALEN); longer ones it would cut, and the listener wait for another name. */
#define CHANNEL_NAME_MAX 64

struct channel {
	char name[CHANNEL_NAME_MAX];
	bool wanted;    /* by the owner */
	bool listening; /* confirmed by the server */
	bool sent;      /* a command under way is about to make `listening` what `wanted` was when it was sent: */
	bool sent_wanted;
};

struct channels {
	struct channel *list; /* by name */
	int n;
	int size;
	int n_wanted;
};

/* Whether a name can be a channel's: not empty, and not longer than the server takes it. */
bool dbha__channels_accepts(const char *name);

/* The owner wants a channel; wanted already: nothing changes. False: out of memory. */
bool dbha__channels_want(struct channels *channels, const char *name);

/*
 * The owner does not want it any more; NULL: none at all. It stays in the list, so that what still comes of it is known for what it
 * is, until the server has answered a command or the connection is gone.
 */
void dbha__channels_unwant(struct channels *channels, const char *name);

/* NULL: it is not known. Valid until the list changes. */
const struct channel *dbha__channels_find(const struct channels *channels, const char *name);

/* What the server does is what the owner wants. */
bool dbha__channels_settled(const struct channels *channels);

/* Whether a command has to be sent for a channel. */
static inline bool dbha__channels_differs(const struct channel *channel)
{
	return channel->wanted != channel->listening;
}

/* A command for everything that differs has been sent; and later: the server has done it, or has refused it as a whole. */
void dbha__channels_sent(struct channels *channels);
void dbha__channels_answered(struct channels *channels, bool done);

/* The connection is gone. Returns whether a channel that is wanted was listened to on it: whether something may have been missed. */
bool dbha__channels_lost(struct channels *channels);

void dbha__channels_free(struct channels *channels);

#endif
