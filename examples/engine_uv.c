/*
 * engine_uv: the server of engine_epoll.c in a libuv loop.
 *
 *     engine_uv SOCKET [URL]            then, for instance: socat - UNIX-CONNECT:SOCKET
 *
 * The engine's descriptor is watched by a uv_poll_t, for reading, for the whole life of the loop: failovers happen behind it. Everything
 * else is as in engine_epoll.c: a tag finds its client, a client has one line under way, who hangs up does not want the answer.
 *
 * libuv hears of an end only while it reads. So what a client says while he waits is read as well, until the room for it is full.
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

#include "kv.h"

#define CLIENTS_MAX 1024
#define DRAIN_MS    2000

struct client {
	uv_pipe_t pipe;
	uv_write_t write;
	unsigned number;
	uint64_t tag; /* of his last request: it differs from every other, and modulo CLIENTS_MAX it is his number */
	bool waits;   /* for the completion of that one */
	bool stalled; /* his line is in `in`, and the engine has no room for it */
	bool writing; /* `out` is on its way to him */
	size_t in_n;
	char in[KV_LINE_MAX], out[KV_ANSWER_MAX];
};

static struct server {
	uv_loop_t *loop;
	uv_pipe_t listener;
	uv_poll_t engine_poll;
	uv_signal_t signals[2];
	dbha *db;
	dbha_engine *engine;
	int n_stalled;
	unsigned turn;                       /* whose it is among those who are stalled */
	uint64_t last;                       /* how many tags there were */
	struct client *clients[CLIENTS_MAX]; /* by number; NULL: this place is free */
} server;

static void serve(struct client *c);

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void leave(struct client *c)
{
	if (uv_is_closing((uv_handle_t *)&c->pipe))
		return;
	if (c->waits)
		dbha_submit_cancel(server.engine, c->tag, NULL);
	server.n_stalled -= c->stalled;
	server.clients[c->number] = NULL;
	uv_close((uv_handle_t *)&c->pipe, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	struct client *c = handle->data;
	(void)suggested;
	*buf = uv_buf_init(c->in + c->in_n, (unsigned)(sizeof c->in - c->in_n));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *c = stream->data;
	(void)buf;
	if (n < 0) {
		leave(c);
		return;
	}
	c->in_n += (size_t)n;
	serve(c);
}

static void on_written(uv_write_t *write, int status)
{
	struct client *c = write->data;
	c->writing = false;
	if (status == 0)
		serve(c);
	else if (status != UV_ECANCELED)
		leave(c);
}

static void answer(struct client *c)
{
	uv_buf_t buf = uv_buf_init(c->out, (unsigned)strlen(c->out));
	c->writing = true;
	if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, on_written) != 0)
		leave(c);
}

/* Takes the first line that is there; `end` is its newline. */
static void take_line(struct client *c, char *end)
{
	*end = '\0';
	c->tag = ++server.last * CLIENTS_MAX + c->number;
	enum kv_said said = kv_line(server.engine, c->in, c->tag, c->out);
	server.n_stalled += (said == KV_FULL) - c->stalled;
	c->stalled = said == KV_FULL;
	if (c->stalled) {
		*end = '\n';
		return;
	}
	c->in_n -= (size_t)(end + 1 - c->in);
	memmove(c->in, end + 1, c->in_n);
	c->waits = said == KV_SUBMITTED;
	if (said == KV_ANSWERED)
		answer(c);
}

/* The next line, if he has none under way; goes on reading where there is room. */
static void serve(struct client *c)
{
	if (uv_is_closing((uv_handle_t *)&c->pipe))
		return;
	char *end = memchr(c->in, '\n', c->in_n);
	if (end && !c->waits && !c->writing)
		take_line(c, end);
	if (uv_is_closing((uv_handle_t *)&c->pipe))
		return;
	if (c->in_n < sizeof c->in)
		uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read); /* no harm if it does already */
	else if (memchr(c->in, '\n', c->in_n))
		uv_read_stop((uv_stream_t *)&c->pipe);
	else
		leave(c); /* no line of the protocol is so long */
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct client *c = status == 0 ? calloc(1, sizeof *c) : NULL;
	unsigned i = 0;
	if (!c)
		return;
	while (i < CLIENTS_MAX && server.clients[i])
		i++;
	c->number = i;
	uv_pipe_init(server.loop, &c->pipe, 0);
	c->pipe.data = c->write.data = c;
	if (uv_accept(listener, (uv_stream_t *)&c->pipe) != 0 || i == CLIENTS_MAX) {
		uv_close((uv_handle_t *)&c->pipe, on_closed);
		return;
	}
	server.clients[i] = c;
	serve(c);
}

/* ---- the engine ------------------------------------------------------------------------------------------------- */

static void take_completion(dbha_completion *done)
{
	char text[KV_ANSWER_MAX];
	struct client *c = server.clients[done->tag % CLIENTS_MAX];
	kv_completed(done, text);
	if (!c || !c->waits || c->tag != done->tag)
		return;
	c->waits = false;
	memcpy(c->out, text, sizeof text);
	answer(c);
}

static void serve_stalled(void)
{
	for (unsigned i = 0; i < CLIENTS_MAX && server.n_stalled > 0; i++) {
		unsigned number = (server.turn + i) % CLIENTS_MAX;
		struct client *c = server.clients[number];
		if (!c || !c->stalled)
			continue;
		serve(c);
		if (server.clients[number] && c->stalled) {
			server.turn = number;
			return;
		}
	}
}

static void take_completions(void)
{
	dbha_completion done = {.size = sizeof done};
	while (dbha_next_completion(server.engine, &done, 0, NULL) == 1)
		take_completion(&done);
}

static void on_engine(uv_poll_t *poll, int status, int events)
{
	(void)poll, (void)status, (void)events;
	dbha_engine_step(server.engine, NULL, NULL);
	take_completions();
	serve_stalled();
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

/* What is under way has a moment to end; its answers are sent as far as they go. */
static void on_signal(uv_signal_t *signal, int number)
{
	(void)signal, (void)number;
	dbha_engine_stop(server.engine, DRAIN_MS);
	take_completions();
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (server.clients[i])
			leave(server.clients[i]);
	uv_close((uv_handle_t *)&server.engine_poll, NULL); /* before the engine, whose descriptor it watches */
	uv_close((uv_handle_t *)&server.listener, NULL);
	uv_close((uv_handle_t *)&server.signals[0], NULL);
	uv_close((uv_handle_t *)&server.signals[1], NULL);
}

static int set_up(const char *path)
{
	static const int ends[2] = {SIGTERM, SIGINT};
	for (int i = 0; i < 2; i++) {
		uv_signal_init(server.loop, &server.signals[i]);
		uv_signal_start(&server.signals[i], on_signal, ends[i]);
	}
	uv_pipe_init(server.loop, &server.listener, 0);
	int rc = uv_poll_init(server.loop, &server.engine_poll, dbha_engine_fd(server.engine, NULL));
	if (rc == 0)
		rc = uv_poll_start(&server.engine_poll, UV_READABLE, on_engine);
	if (rc == 0)
		rc = uv_pipe_bind(&server.listener, path);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&server.listener, 1024, on_connection);
	if (rc != 0)
		fprintf(stderr, "%s: %s\n", path, uv_strerror(rc));
	return rc;
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: engine_uv SOCKET [URL]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	server.loop = uv_default_loop();
	server.engine = kv_open(argc > 2 ? argv[2] : NULL, &server.db);
	int rc = server.engine ? set_up(argv[1]) : -1;
	if (rc == 0)
		uv_run(server.loop, UV_RUN_DEFAULT);
	dbha_engine_close(server.engine);
	dbha_close(server.db, 0);
	return rc == 0 ? 0 : 1;
}
