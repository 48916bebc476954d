#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"

static struct sockaddr_in local(int port)
{
	return (struct sockaddr_in){
	    .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

/* To the loopback a connect ends at once, one way or the other. */
int connect_local(int port)
{
	struct sockaddr_in address = local(port);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

void close_with_reset(int fd)
{
	struct linger linger = {.l_onoff = 1};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
	close(fd);
}

void send_at_once(int fd)
{
	int on = 1;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int listen_local(int *port)
{
	struct sockaddr_in address = local(0);
	socklen_t size = sizeof address;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, size), 0);
	ck_assert_int_eq(listen(fd, 128), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	*port = ntohs(address.sin_port);
	return fd;
}

static void take_connection(struct relay *relay)
{
	int client = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
	if (client < 0)
		return;
	atomic_fetch_add(&relay->accepted, 1);
	int server = connect_local(atomic_load(&relay->server_port));
	if (server < 0) {
		close_with_reset(client);
		return;
	}
	send_at_once(client);
	send_at_once(server);
	struct relay_pair *pair = &relay->pairs[relay->n_pairs++];
	pair->client = client;
	pair->server = server;
	pair->n_held = 0;
	pair->server_spoke = false;
	pair->bytes_left = atomic_load(&relay->mute_after);
	pair->answers_left = atomic_load(&relay->mute_after_answers);
	atomic_store(&relay->open, relay->n_pairs);
	if (relay->n_pairs > atomic_load(&relay->most_open))
		atomic_store(&relay->most_open, relay->n_pairs);
}

/* What is forwarded is small, so that a socket's buffer always takes it. */
static bool send_all(int fd, const char *data, int n)
{
	return send(fd, data, (size_t)n, MSG_NOSIGNAL) == n;
}

static bool is_mute(const struct relay_pair *pair)
{
	return pair->bytes_left == 0 || pair->answers_left == 0;
}

static bool hear_client(struct relay_pair *pair)
{
	char data[16384];
	ssize_t n = recv(pair->client, data, sizeof data, 0);
	if (pair->server_spoke && pair->answers_left > 0)
		pair->answers_left--;
	pair->server_spoke = false;
	return n > 0 && send_all(pair->server, data, (int)n);
}

static bool hear_server(struct relay_pair *pair, int64_t due_ms)
{
	size_t room = sizeof pair->held;
	if (pair->bytes_left >= 0 && (size_t)pair->bytes_left < room)
		room = (size_t)pair->bytes_left;
	ssize_t n = recv(pair->server, pair->held, room, 0);
	if (n <= 0)
		return false;
	if (pair->bytes_left > 0)
		pair->bytes_left -= n;
	pair->server_spoke = true;
	pair->n_held = (int)n;
	pair->due_ms = due_ms;
	return true;
}

/* False: one of the two has gone. */
static bool forward(struct relay *relay, struct relay_pair *pair, const struct pollfd items[2], int64_t now)
{
	if (items[0].revents && !hear_client(pair))
		return false;
	if (items[1].revents && !hear_server(pair, now + atomic_load(&relay->delay_ms)))
		return false;
	if (pair->n_held && now >= pair->due_ms) {
		if (!send_all(pair->client, pair->held, pair->n_held))
			return false;
		pair->n_held = 0;
	}
	return true;
}

static void step(struct relay *relay, const struct pollfd *items, int64_t now)
{
	for (int i = relay->n_pairs - 1; i >= 0; i--) {
		struct relay_pair *pair = &relay->pairs[i];
		if (forward(relay, pair, &items[1 + 2 * i], now))
			continue;
		close(pair->server);
		close_with_reset(pair->client);
		*pair = relay->pairs[--relay->n_pairs];
	}
	atomic_store(&relay->open, relay->n_pairs);
	if (items[0].revents && relay->n_pairs < RELAY_MAX)
		take_connection(relay);
}

static void *serve(void *arg)
{
	struct relay *relay = arg;
	struct pollfd items[1 + 2 * RELAY_MAX];
	while (!atomic_load(&relay->stop)) {
		int64_t now = now_ms(), next = now + 20;
		items[0] = (struct pollfd){.fd = relay->listener, .events = POLLIN};
		for (int i = 0; i < relay->n_pairs; i++) {
			struct relay_pair *pair = &relay->pairs[i];
			items[1 + 2 * i] = (struct pollfd){.fd = pair->client, .events = POLLIN};
			bool deaf = pair->n_held || is_mute(pair);
			items[2 + 2 * i] = (struct pollfd){.fd = deaf ? -1 : pair->server, .events = POLLIN};
			if (pair->n_held && pair->due_ms < next)
				next = pair->due_ms;
		}
		poll(items, 1 + 2 * (nfds_t)relay->n_pairs, next > now ? (int)(next - now) : 0);
		step(relay, items, now_ms());
	}
	return NULL;
}

void relay_start(struct relay *relay, int server_port)
{
	memset(relay, 0, sizeof *relay);
	atomic_store(&relay->server_port, server_port);
	relay_mute_after(relay, -1);
	relay->listener = listen_local(&relay->port);
	ck_assert_int_eq(pthread_create(&relay->thread, NULL, serve, relay), 0);
	relay->running = true;
}

void relay_stop(struct relay *relay)
{
	if (!relay->running)
		return;
	atomic_store(&relay->stop, true);
	pthread_join(relay->thread, NULL);
	while (relay->n_pairs > 0) {
		struct relay_pair *pair = &relay->pairs[--relay->n_pairs];
		close(pair->server);
		close(pair->client);
	}
	close(relay->listener);
	relay->running = false;
}

void relay_mute_after(struct relay *relay, long bytes)
{
	atomic_store(&relay->mute_after, bytes);
	atomic_store(&relay->mute_after_answers, -1);
}

void relay_mute_after_answers(struct relay *relay, int answers)
{
	atomic_store(&relay->mute_after, -1);
	atomic_store(&relay->mute_after_answers, answers);
}
