/*
 * engine_epoll: a server with an epoll loop of its own, in one thread: many clients, few connections to PostgreSQL, no call that waits.
 *
 *     engine_epoll SOCKET [URL]            then, for instance: socat - UNIX-CONNECT:SOCKET
 *
 * The engine is one more descriptor in the loop. What is worth copying:
 *
 * - A tag finds the client of a completion, and says whether he is still the same one.
 * - A client has one line under way. Until it is answered nothing is read from him, so that what he may occupy is bounded; where the engine
 *   takes no more either, his line stays where it is until there is room.
 * - Who hangs up does not want the answer: his request is given up. Its completion comes all the same, and finds nobody.
 * - Signals are blocked before the library starts its thread, and read from a descriptor.
 *
 * The protocol is in kv.h.
 */
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "kv.h"

#define CLIENTS_MAX 1024
#define DRAIN_MS    2000
#define EVENTS      64

/* What an event is about: a client by his number, or one of these. */
enum { LISTENER = CLIENTS_MAX, ENGINE, SIGNALS };

struct client {
	int fd;       /* -1: this place is free */
	uint64_t tag; /* of his last request: it differs from every other, and modulo CLIENTS_MAX it is his number */
	bool waits;   /* for the completion of that one */
	bool stalled; /* his line is in `in`, and the engine has no room for it */
	uint32_t watched;
	size_t in_n, out_n;
	char in[KV_LINE_MAX], out[KV_ANSWER_MAX];
};

static struct server {
	int epoll_fd, listen_fd, signal_fd;
	dbha *db;
	dbha_engine *engine;
	int n_clients, n_stalled;
	unsigned turn; /* whose it is among those who are stalled */
	struct client clients[CLIENTS_MAX];
} server;

static bool watch(int how, int fd, uint32_t events, unsigned who)
{
	struct epoll_event event = {.events = events, .data.u32 = who};
	return epoll_ctl(server.epoll_fd, how, fd, &event) == 0;
}

static unsigned number_of(const struct client *c)
{
	return (unsigned)(c - server.clients);
}

/* ---- clients ---------------------------------------------------------------------------------------------------- */

static void enter(int fd)
{
	struct client *c = server.clients;
	while (c->fd >= 0)
		c++;
	c->fd = fd;
	c->watched = EPOLLIN | EPOLLRDHUP;
	c->in_n = c->out_n = 0;
	watch(EPOLL_CTL_ADD, fd, c->watched, number_of(c));
	if (++server.n_clients == CLIENTS_MAX)
		watch(EPOLL_CTL_MOD, server.listen_fd, 0, LISTENER);
}

static void leave(struct client *c)
{
	if (c->waits)
		dbha_submit_cancel(server.engine, c->tag, NULL);
	server.n_stalled -= c->stalled;
	c->waits = c->stalled = false;
	close(c->fd); /* which takes it out of the loop */
	c->fd = -1;
	if (server.n_clients-- == CLIENTS_MAX)
		watch(EPOLL_CTL_MOD, server.listen_fd, EPOLLIN, LISTENER);
}

/* What there is to wait for: that he takes his answer, that his request is completed, or his next line. */
static void watch_client(struct client *c)
{
	uint32_t events = EPOLLRDHUP;
	if (c->out_n > 0)
		events |= EPOLLOUT;
	else if (!c->waits && !c->stalled)
		events |= EPOLLIN;
	if (events != c->watched)
		watch(EPOLL_CTL_MOD, c->fd, events, number_of(c));
	c->watched = events;
}

/* Sends what there is to say. False: he is gone. */
static bool send_answer(struct client *c)
{
	ssize_t n = send(c->fd, c->out, c->out_n, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		leave(c);
		return false;
	}
	size_t sent = n > 0 ? (size_t)n : 0;
	memmove(c->out, c->out + sent, c->out_n -= sent);
	return true;
}

/* Takes the first line that is there; `end` is its newline. */
static void take_line(struct client *c, char *end)
{
	*end = '\0';
	enum kv_said said = kv_line(server.engine, c->in, c->tag + CLIENTS_MAX, c->out);
	server.n_stalled += (said == KV_FULL) - c->stalled;
	c->stalled = said == KV_FULL;
	if (c->stalled) {
		*end = '\n';
		return;
	}
	c->in_n -= (size_t)(end + 1 - c->in);
	memmove(c->in, end + 1, c->in_n);
	c->waits = said == KV_SUBMITTED;
	c->tag += c->waits ? CLIENTS_MAX : 0;
	c->out_n = said == KV_ANSWERED ? strlen(c->out) : 0;
}

/* As far as it goes without waiting. */
static void serve(struct client *c)
{
	do {
		if (c->out_n > 0 && !send_answer(c))
			return;
		char *end = memchr(c->in, '\n', c->in_n);
		if (c->out_n > 0 || c->waits || !end)
			break;
		take_line(c, end);
	} while (!c->stalled);
	if (c->in_n == sizeof c->in && !memchr(c->in, '\n', c->in_n))
		leave(c); /* no line of the protocol is so long */
	else
		watch_client(c);
}

static void client_event(struct client *c, uint32_t events)
{
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		leave(c);
		return;
	}
	if (events & EPOLLIN) {
		ssize_t n = recv(c->fd, c->in + c->in_n, sizeof c->in - c->in_n, MSG_DONTWAIT);
		c->in_n += n > 0 ? (size_t)n : 0;
	}
	serve(c);
}

/* ---- the engine ------------------------------------------------------------------------------------------------- */

static void take_completion(dbha_completion *done)
{
	char answer[KV_ANSWER_MAX];
	struct client *c = &server.clients[done->tag % CLIENTS_MAX];
	kv_completed(done, answer);
	if (!c->waits || c->tag != done->tag)
		return;
	c->waits = false;
	c->out_n = strlen(answer);
	memcpy(c->out, answer, c->out_n);
	serve(c);
}

/* Those who were stalled come before those who have not been read yet, and take turns. */
static void serve_stalled(void)
{
	for (unsigned i = 0; i < CLIENTS_MAX && server.n_stalled > 0; i++) {
		struct client *c = &server.clients[(server.turn + i) % CLIENTS_MAX];
		if (!c->stalled)
			continue;
		serve(c);
		if (c->stalled) {
			server.turn = number_of(c);
			return;
		}
	}
}

static void engine_event(void)
{
	dbha_completion done = {.size = sizeof done};
	dbha_engine_step(server.engine, NULL, NULL);
	while (dbha_next_completion(server.engine, &done, 0, NULL) == 1)
		take_completion(&done);
	serve_stalled();
}

/* ---- the loop --------------------------------------------------------------------------------------------------- */

static bool set_up(const char *path, const char *url)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	sigset_t ends;
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	sigprocmask(SIG_BLOCK, &ends, NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		server.clients[i] = (struct client){.fd = -1, .tag = i};
	if (!(server.engine = kv_open(url, &server.db)))
		return false;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	server.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	server.signal_fd = signalfd(-1, &ends, SFD_CLOEXEC);
	server.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool good = bind(server.listen_fd, (struct sockaddr *)&address, sizeof address) == 0 &&
	            listen(server.listen_fd, SOMAXCONN) == 0 && watch(EPOLL_CTL_ADD, server.listen_fd, EPOLLIN, LISTENER) &&
	            watch(EPOLL_CTL_ADD, server.signal_fd, EPOLLIN, SIGNALS) &&
	            watch(EPOLL_CTL_ADD, dbha_engine_fd(server.engine, NULL), EPOLLIN, ENGINE);
	if (!good)
		perror(path);
	return good;
}

static void run(void)
{
	for (bool ends = false; !ends;) {
		struct epoll_event events[EVENTS];
		int n = epoll_wait(server.epoll_fd, events, EVENTS, -1);
		bool engine = false, listener = false;
		for (int i = 0; i < n; i++) {
			uint32_t who = events[i].data.u32;
			engine = engine || who == ENGINE;
			listener = listener || who == LISTENER;
			ends = ends || who == SIGNALS;
			if (who < CLIENTS_MAX)
				client_event(&server.clients[who], events[i].events);
		}
		/* Behind the events of clients, each of which must still find the client that it is about. */
		if (engine)
			engine_event();
		int fd = listener ? accept4(server.listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd >= 0)
			enter(fd);
	}
}

/* What is under way has a moment to end; its answers are sent as far as they go. */
static void finish(void)
{
	dbha_completion done = {.size = sizeof done};
	dbha_engine_stop(server.engine, DRAIN_MS);
	while (dbha_next_completion(server.engine, &done, 0, NULL) == 1)
		take_completion(&done);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (server.clients[i].fd >= 0)
			leave(&server.clients[i]);
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: engine_epoll SOCKET [URL]\n");
		return 2;
	}
	bool good = set_up(argv[1], argc > 2 ? argv[2] : NULL);
	if (good) {
		run();
		finish();
		unlink(argv[1]);
	}
	dbha_engine_close(server.engine);
	dbha_close(server.db, 0);
	return good ? 0 : 1;
}
