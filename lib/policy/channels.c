#include "channels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool dbha__channels_accepts(const char *name)
{
	size_t length = strnlen(name, CHANNEL_NAME_MAX);
	return length > 0 && length < CHANNEL_NAME_MAX;
}

/* Where a name is, or would have to be. */
static int place_of(const struct channels *channels, const char *name)
{
	int low = 0;
	int high = channels->n;
	while (low < high) {
		int middle = low + (high - low) / 2;
		if (strcmp(channels->list[middle].name, name) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct channel *find(const struct channels *channels, const char *name)
{
	int at = place_of(channels, name);
	return at < channels->n && strcmp(channels->list[at].name, name) == 0 ? &channels->list[at] : NULL;
}

const struct channel *dbha__channels_find(const struct channels *channels, const char *name)
{
	return find(channels, name);
}

static bool make_room(struct channels *channels)
{
	if (channels->n < channels->size)
		return true;
	int size = channels->size ? 2 * channels->size : 8;
	struct channel *list = realloc(channels->list, (size_t)size * sizeof *list);
	if (!list)
		return false;
	channels->list = list;
	channels->size = size;
	return true;
}

bool dbha__channels_want(struct channels *channels, const char *name)
{
	struct channel *channel = find(channels, name);
	if (!channel) {
		if (!make_room(channels))
			return false;
		int at = place_of(channels, name);
		channel = &channels->list[at];
		memmove(channel + 1, channel, (size_t)(channels->n - at) * sizeof *channel);
		*channel = (struct channel){.wanted = false};
		snprintf(channel->name, sizeof channel->name, "%s", name);
		channels->n++;
	}
	channels->n_wanted += !channel->wanted;
	channel->wanted = true;
	return true;
}

/* What nobody wants, and no server listens to or is being asked to, need not be remembered. */
static void forget(struct channels *channels)
{
	int kept = 0;
	for (int i = 0; i < channels->n; i++) {
		const struct channel *channel = &channels->list[i];
		if (channel->wanted || channel->listening || channel->sent)
			channels->list[kept++] = *channel;
	}
	channels->n = kept;
}

void dbha__channels_unwant(struct channels *channels, const char *name)
{
	for (int i = 0; i < channels->n; i++)
		if (!name || strcmp(channels->list[i].name, name) == 0) {
			channels->n_wanted -= channels->list[i].wanted;
			channels->list[i].wanted = false;
		}
}

bool dbha__channels_settled(const struct channels *channels)
{
	for (int i = 0; i < channels->n; i++)
		if (dbha__channels_differs(&channels->list[i]))
			return false;
	return true;
}

void dbha__channels_sent(struct channels *channels)
{
	for (int i = 0; i < channels->n; i++) {
		struct channel *channel = &channels->list[i];
		channel->sent = dbha__channels_differs(channel);
		channel->sent_wanted = channel->wanted;
	}
}

void dbha__channels_answered(struct channels *channels, bool done)
{
	for (int i = 0; i < channels->n; i++) {
		struct channel *channel = &channels->list[i];
		if (channel->sent && done)
			channel->listening = channel->sent_wanted;
		channel->sent = false;
	}
	forget(channels);
}

bool dbha__channels_lost(struct channels *channels)
{
	bool missed = false;
	for (int i = 0; i < channels->n; i++) {
		struct channel *channel = &channels->list[i];
		missed = missed || (channel->wanted && channel->listening);
		channel->listening = false;
		channel->sent = false;
	}
	forget(channels);
	return missed;
}

void dbha__channels_free(struct channels *channels)
{
	free(channels->list);
	*channels = (struct channels){.list = NULL};
}
