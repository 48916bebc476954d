#include "cutter.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"
#include "relay.h"

#define STARTUP_PROTOCOL_3 196608u
#define STARTUP_SSL        80877103u
#define STARTUP_GSS        80877104u

/* ---- the protocol ------------------------------------------------------------------------------------------------ */

/* One byte more of a direction. True: with it a message is whole. */
static bool stream_feed(struct cut_stream *stream, uint8_t byte)
{
	int size = stream->untyped ? 4 : 5;
	if (stream->n_header < size) {
		stream->header[stream->n_header++] = byte;
		if (stream->n_header < size)
			return false;
		const uint8_t *length = stream->header + size - 4;
		stream->type = stream->untyped ? '\0' : (char)stream->header[0];
		stream->left = ((long)length[0] << 24 | length[1] << 16 | length[2] << 8 | length[3]) - 4;
		stream->n_first = 0;
		stream->first_word = 0;
	} else {
		if (stream->n_first++ < 4)
			stream->first_word = stream->first_word << 8 | byte;
		stream->left--;
	}
	return stream->left <= 0;
}

/* A parameter of the protocol: until a Sync, a Flush or a simple query, more belongs to the same request. */
static bool request_goes_on(char type)
{
	return type && strchr("PBDEC", type);
}

/* What a whole message from the client means to what comes next. */
static void client_said(struct cut_pair *pair, const struct cut_stream *stream)
{
	if (stream->type && strchr("QSF", stream->type))
		pair->questions++;
	if (stream->type == '\0' && (stream->first_word == STARTUP_SSL || stream->first_word == STARTUP_GSS))
		pair->streams[REPLY].untyped = true;
}

static void server_said(struct cut_pair *pair, const struct cut_stream *stream)
{
	if (stream->type == 'K')
		pair->pid = (int)stream->first_word;
	if (stream->type == 'Z' && pair->questions > 0)
		pair->questions--;
}

/* The next message begins. A client's startup packet is the last without a type; to a request for encryption one follows. */
static void next_message(struct cut_stream *stream)
{
	stream->n_header = 0;
	if (stream->untyped && stream->first_word == STARTUP_PROTOCOL_3)
		stream->untyped = false;
}

/* A server's answer to a request for encryption is one byte without a header. */
static bool is_bare_byte(enum direction direction, struct cut_stream *stream)
{
	bool bare = direction == REPLY && stream->untyped;
	if (bare)
		stream->untyped = false;
	return bare;
}

/* Follows the protocol over some bytes that have gone on, or would have. */
static void follow(struct cut_pair *pair, enum direction direction, const char *data, long n)
{
	struct cut_stream *stream = &pair->streams[direction];
	for (long i = 0; i < n; i++) {
		if (is_bare_byte(direction, stream) || !stream_feed(stream, (uint8_t)data[i]))
			continue;
		if (direction == REQUEST)
			client_said(pair, stream);
		else
			server_said(pair, stream);
		next_message(stream);
	}
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

static void note_byte(struct cut_report *report, enum direction direction, const struct cut_stream *stream,
                      uint8_t byte)
{
	long at = report->forwarded[direction]++;
	if (at < CUTTER_READ_MAX)
		report->bytes[direction][at] = byte;
	if (stream->n_header == 0 && report->n_messages < CUTTER_MESSAGES)
		report->messages[report->n_messages++] =
		    (struct cut_message){.direction = direction, .type = (char)byte, .start = at};
}

static void note_length(struct cut_report *report, enum direction direction, long body)
{
	for (int i = report->n_messages - 1; i >= 0; i--) {
		if (report->messages[i].direction == direction) {
			report->messages[i].length = body + 5;
			return;
		}
	}
}

/* What is forwarded on the chosen connection, before `follow` does the same for the connection itself. */
static void note(struct cut_report *report, const struct cut_pair *pair, enum direction direction, const char *data,
                 long n)
{
	struct cut_stream stream = pair->streams[direction];
	for (long i = 0; i < n; i++) {
		note_byte(report, direction, &stream, (uint8_t)data[i]);
		bool whole = stream_feed(&stream, (uint8_t)data[i]);
		if (stream.n_header == 5 && stream.n_first == 0)
			note_length(report, direction, stream.left);
		if (whole)
			next_message(&stream);
	}
	report->pid = pair->pid;
}

static const struct cut_message *message_at(const struct cut_report *report, enum direction direction, long at)
{
	for (int i = 0; i < report->n_messages; i++) {
		const struct cut_message *message = &report->messages[i];
		if (message->direction == direction && at >= message->start && at < message->start + message->length)
			return message;
	}
	return NULL;
}

/* A copy of a message's body that can be printed. */
static void quote(const struct cut_report *report, const struct cut_message *message, char *text, int size)
{
	int n = 0;
	for (long i = message->start + 5; i < message->start + message->length && i < CUTTER_READ_MAX && n < size - 1;
	     i++) {
		uint8_t byte = report->bytes[message->direction][i];
		text[n++] = byte >= ' ' && byte < 127 ? (char)byte : '.';
	}
	text[n] = '\0';
}

const char *cut_place(const struct cut_report *report, enum direction direction, long at, char *text, int size)
{
	const char *word = direction == REQUEST ? "request" : "reply";
	const struct cut_message *message = message_at(report, direction, at);
	char body[40];
	if (!message) {
		snprintf(text, (size_t)size, "%s byte %ld, the end", word, at);
		return text;
	}
	quote(report, message, body, sizeof body);
	snprintf(text, (size_t)size, "%s byte %ld, byte %ld of %ld of '%c' \"%s\"", word, at, at - message->start,
	         message->length, message->type, body);
	return text;
}

/* ---- the cut ----------------------------------------------------------------------------------------------------- */

static void done(struct cutter *cutter, struct cut_pair *pair)
{
	if (!pair->chosen)
		return;
	cutter->report.done = true;
	pair->chosen = false;
	atomic_fetch_add(&cutter->n_cut, 1);
}

static void reset(int *fd)
{
	if (*fd >= 0)
		close_with_reset(*fd);
	*fd = -1;
}

static void end(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The byte has been reached; `rest` is what came with it. */
static void make_cut(struct cutter *cutter, struct cut_pair *pair, const char *rest, long n_rest)
{
	const struct cut *cut = &pair->cut;
	bool of_request = cut->direction == REQUEST;
	cutter->report.cutting = true;
	switch (cut->kind) {
	case CUT_NONE:
		return;
	case CUT_RESET:
		reset(&pair->server);
		reset(&pair->client);
		done(cutter, pair);
		return;
	case CUT_END:
		shutdown(pair->client, SHUT_WR);
		shutdown(pair->server, SHUT_WR);
		pair->deaf = pair->mute = true;
		done(cutter, pair);
		return;
	case CUT_DROP:
		pair->deaf = pair->resets_client = true;
		pair->mute = of_request;
		if (of_request)
			shutdown(pair->server, SHUT_WR);
		return;
	case CUT_SILENT:
		pair->deaf = true;
		pair->mute = of_request;
		done(cutter, pair);
		return;
	case CUT_DELAY:
		memcpy(pair->late, rest, (size_t)n_rest);
		pair->n_late = (int)n_rest;
		pair->late_ms = now_ms() + cut->delay_ms;
		pair->cut.kind = CUT_NONE;
		return;
	}
}

static bool is_reached(const struct cut_report *report, const struct cut_pair *pair, enum direction direction)
{
	return pair->chosen && pair->cut.kind != CUT_NONE && pair->cut.direction == direction &&
	       report->forwarded[direction] == pair->cut.at;
}

/* Forwards what may be forwarded, byte by byte up to the cut. */
static void pass(struct cutter *cutter, struct cut_pair *pair, enum direction direction, const char *data, long n)
{
	struct cut_report *report = &cutter->report;
	long room = n;
	bool limited = pair->chosen && pair->cut.kind != CUT_NONE && pair->cut.direction == direction;
	if (limited && room > pair->cut.at - report->forwarded[direction])
		room = pair->cut.at - report->forwarded[direction];
	if (room > 0)
		send(direction == REQUEST ? pair->server : pair->client, data, (size_t)room, MSG_NOSIGNAL);
	if (pair->chosen)
		note(report, pair, direction, data, room);
	follow(pair, direction, data, room);
	if (!is_reached(report, pair, direction))
		return;
	/* What the server said beyond the cut is still read, to know when it has answered. */
	if (direction == REPLY && pair->cut.kind != CUT_DELAY)
		follow(pair, direction, data + room, n - room);
	make_cut(cutter, pair, data + room, n - room);
	pair->dropped = direction == REPLY && room < n;
}

/* Dropped, and the server has done everything it was told to: the client need not wait for its deadline. */
static void end_of_drop(struct cutter *cutter, struct cut_pair *pair)
{
	bool answered = pair->dropped && pair->questions == 0;
	if (!pair->resets_client || !(answered || pair->server < 0))
		return;
	reset(&pair->client);
	done(cutter, pair);
}

/* ---- one connection ---------------------------------------------------------------------------------------------- */

/* Whether the held request has the marker; then it is the one, and nothing is armed any more. */
static void choose(struct cutter *cutter, struct cut_pair *pair)
{
	struct cut *armed = &cutter->armed;
	if (!armed->marker[0] || !memmem(pair->held, (size_t)pair->n_held, armed->marker, strlen(armed->marker)))
		return;
	pair->cut = *armed;
	pair->chosen = true;
	pair->serial = cutter->serial;
	armed->marker[0] = '\0';
	cutter->report.found = true;
}

/* Follows what the client says, held or not. True: with it a request is whole. */
static bool ends_request(struct cut_pair *pair, const char *data, long n)
{
	bool whole = false;
	for (long i = 0; i < n; i++) {
		bool message = stream_feed(&pair->scan, (uint8_t)data[i]);
		whole = message && !request_goes_on(pair->scan.type);
		if (message)
			next_message(&pair->scan);
	}
	return whole;
}

static void hold(struct cutter *cutter, struct cut_pair *pair, const char *data, long n)
{
	memcpy(pair->held + pair->n_held, data, (size_t)n);
	pair->n_held += (int)n;
	if (!ends_request(pair, data, n) && pair->n_held < CUTTER_READ_MAX)
		return;
	choose(cutter, pair);
	int held = pair->n_held;
	pair->n_held = 0;
	pass(cutter, pair, REQUEST, pair->held, held);
}

static void hear_client(struct cutter *cutter, struct cut_pair *pair)
{
	char data[CUTTER_READ_MAX];
	ssize_t n = recv(pair->client, data, sizeof data - (size_t)pair->n_held, 0);
	if (n <= 0) {
		end(&pair->client);
		return;
	}
	if (pair->mute)
		return;
	if (pair->chosen) {
		ends_request(pair, data, n);
		pass(cutter, pair, REQUEST, data, n);
	} else {
		hold(cutter, pair, data, n);
	}
}

static void hear_server(struct cutter *cutter, struct cut_pair *pair)
{
	char data[CUTTER_READ_MAX];
	ssize_t n = recv(pair->server, data, sizeof data, 0);
	if (n <= 0) {
		end(&pair->server);
	} else if (pair->deaf) {
		follow(pair, REPLY, data, n);
		pair->dropped = true;
	} else {
		pass(cutter, pair, REPLY, data, n);
	}
}

static void send_late(struct cut_pair *pair, struct cutter *cutter)
{
	int n = pair->n_late;
	pair->n_late = 0;
	pass(cutter, pair, REPLY, pair->late, n);
	done(cutter, pair);
}

/* Its cut was disarmed. What was not reached never will be, and whoever still waits in a silence is let go. */
static void forget_cut(struct cut_pair *pair)
{
	pair->chosen = false;
	if (!pair->deaf)
		return;
	reset(&pair->client);
	reset(&pair->server);
}

/* False: nothing is left of it. */
static bool step_pair(struct cutter *cutter, struct cut_pair *pair, const struct pollfd items[2], int64_t now)
{
	if (pair->serial && pair->serial != cutter->serial)
		forget_cut(pair);
	if (items[0].revents && pair->client >= 0)
		hear_client(cutter, pair);
	if (items[1].revents && pair->server >= 0)
		hear_server(cutter, pair);
	if (pair->n_late && now >= pair->late_ms)
		send_late(pair, cutter);
	end_of_drop(cutter, pair);
	/* One that is to be silent outlives its server; one that is ended with FIN waits for both. */
	bool stays_silent = pair->deaf && pair->client >= 0;
	bool ending = pair->deaf && pair->mute && pair->server >= 0 && pair->cut.kind == CUT_END;
	if (stays_silent || ending || (pair->client >= 0 && pair->server >= 0))
		return true;
	done(cutter, pair);
	end(&pair->client);
	end(&pair->server);
	return false;
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static void take_connection(struct cutter *cutter)
{
	int client = accept4(cutter->listener, NULL, NULL, SOCK_CLOEXEC);
	if (client < 0)
		return;
	atomic_fetch_add(&cutter->accepted, 1);
	int server = connect_local(atomic_load(&cutter->server_port));
	struct cut_pair *pair = server >= 0 ? calloc(1, sizeof *pair) : NULL;
	if (!pair) {
		close_with_reset(client);
		return;
	}
	send_at_once(client);
	send_at_once(server);
	pair->client = client;
	pair->server = server;
	pair->streams[REQUEST].untyped = pair->scan.untyped = true;
	cutter->pairs[cutter->n_pairs++] = pair;
}

static void drop_pair(struct cutter *cutter, int i)
{
	free(cutter->pairs[i]);
	cutter->pairs[i] = cutter->pairs[--cutter->n_pairs];
}

static void reset_pairs(struct cutter *cutter)
{
	for (int i = cutter->n_pairs - 1; i >= 0; i--) {
		reset(&cutter->pairs[i]->client);
		reset(&cutter->pairs[i]->server);
		drop_pair(cutter, i);
	}
}

static void step(struct cutter *cutter, const struct pollfd *items)
{
	pthread_mutex_lock(&cutter->lock);
	for (int i = cutter->n_pairs - 1; i >= 0; i--)
		if (!step_pair(cutter, cutter->pairs[i], &items[1 + 2 * i], now_ms()))
			drop_pair(cutter, i);
	if (atomic_load(&cutter->reset_all))
		reset_pairs(cutter);
	atomic_store(&cutter->reset_all, false);
	pthread_mutex_unlock(&cutter->lock);
	if (items[0].revents && cutter->n_pairs < CUTTER_PAIRS_MAX)
		take_connection(cutter);
}

static void *serve(void *arg)
{
	struct cutter *cutter = arg;
	struct pollfd items[1 + 2 * CUTTER_PAIRS_MAX];
	while (!atomic_load(&cutter->stop)) {
		int64_t now = now_ms(), next = now + 10;
		items[0] = (struct pollfd){.fd = cutter->listener, .events = POLLIN};
		for (int i = 0; i < cutter->n_pairs; i++) {
			struct cut_pair *pair = cutter->pairs[i];
			items[1 + 2 * i] = (struct pollfd){.fd = pair->client, .events = POLLIN};
			items[2 + 2 * i] = (struct pollfd){.fd = pair->n_late ? -1 : pair->server, .events = POLLIN};
			if (pair->n_late && pair->late_ms < next)
				next = pair->late_ms;
		}
		poll(items, 1 + 2 * (nfds_t)cutter->n_pairs, next > now ? (int)(next - now) : 0);
		step(cutter, items);
	}
	return NULL;
}

void cutter_start(struct cutter *cutter, int server_port)
{
	memset(cutter, 0, sizeof *cutter);
	atomic_store(&cutter->server_port, server_port);
	pthread_mutex_init(&cutter->lock, NULL);
	cutter->listener = listen_local(&cutter->port);
	ck_assert_int_eq(pthread_create(&cutter->thread, NULL, serve, cutter), 0);
	cutter->running = true;
}

void cutter_stop(struct cutter *cutter)
{
	if (!cutter->running)
		return;
	atomic_store(&cutter->stop, true);
	pthread_join(cutter->thread, NULL);
	reset_pairs(cutter);
	close(cutter->listener);
	pthread_mutex_destroy(&cutter->lock);
	cutter->running = false;
}

void cutter_arm(struct cutter *cutter, const struct cut *cut)
{
	pthread_mutex_lock(&cutter->lock);
	cutter->serial++;
	cutter->armed = *cut;
	memset(&cutter->report, 0, sizeof cutter->report);
	pthread_mutex_unlock(&cutter->lock);
}

/* Whether a cut has begun that is not done yet. */
static bool is_cutting(struct cutter *cutter)
{
	pthread_mutex_lock(&cutter->lock);
	bool cutting = cutter->report.cutting && !cutter->report.done;
	pthread_mutex_unlock(&cutter->lock);
	return cutting;
}

void cutter_disarm(struct cutter *cutter, struct cut_report *report)
{
	for (int64_t wait_end = now_ms() + 1000; is_cutting(cutter) && now_ms() < wait_end; short_pause())
		;
	pthread_mutex_lock(&cutter->lock);
	cutter->serial++;
	cutter->armed.marker[0] = '\0';
	*report = cutter->report;
	pthread_mutex_unlock(&cutter->lock);
}

void cutter_reset_all(struct cutter *cutter)
{
	atomic_store(&cutter->reset_all, true);
	while (atomic_load(&cutter->reset_all))
		short_pause();
}
