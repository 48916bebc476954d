#include "proxy.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"

#define PAIRS_MAX 256

enum side {
	CLIENT,
	SERVER,
};

struct pair {
	int fds[2];       /* by enum side */
	long left;        /* bytes the client may still hear; -1: no limit */
	int answers_left; /* and answers */
	enum side spoke;  /* who did last */
};

static struct {
	int listener;
	int target;
	atomic_long mute_after;
	atomic_int mute_after_answers;
	atomic_long connections;
	struct pair pairs[PAIRS_MAX]; /* of the thread alone */
	int n;
} proxy;

static int connect_to(int port)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
		return fd;
	close(fd);
	return -1;
}

static void take_connection(void)
{
	int client = accept(proxy.listener, NULL, NULL);
	int server = connect_to(proxy.target);
	if (client < 0 || server < 0 || proxy.n == PAIRS_MAX) {
		close(client);
		close(server);
		return;
	}
	atomic_fetch_add(&proxy.connections, 1);
	proxy.pairs[proxy.n++] = (struct pair){.fds = {client, server},
	                                       .left = atomic_load(&proxy.mute_after),
	                                       .answers_left = atomic_load(&proxy.mute_after_answers),
	                                       .spoke = CLIENT};
}

static bool is_mute(const struct pair *pair)
{
	return pair->left == 0 || pair->answers_left == 0;
}

/* Moves what there is from one side to the other. False: the connection has ended. */
static bool forward(struct pair *pair, enum side from)
{
	char buffer[16384];
	size_t room = sizeof buffer;
	if (from == SERVER && pair->left >= 0 && (size_t)pair->left < room)
		room = (size_t)pair->left;
	ssize_t n = read(pair->fds[from], buffer, room);
	if (n <= 0 || send(pair->fds[!from], buffer, (size_t)n, MSG_NOSIGNAL) != n)
		return false;
	if (from == SERVER && pair->left > 0)
		pair->left -= n;
	if (from == CLIENT && pair->spoke == SERVER && pair->answers_left > 0)
		pair->answers_left--;
	pair->spoke = from;
	return true;
}

static void drop_pair(int i)
{
	close(proxy.pairs[i].fds[CLIENT]);
	close(proxy.pairs[i].fds[SERVER]);
	proxy.pairs[i] = proxy.pairs[--proxy.n];
}

static void *run_proxy(void *arg)
{
	static struct pollfd items[1 + 2 * PAIRS_MAX];
	(void)arg;
	while (!atomic_load(&threads_stop)) {
		int n = proxy.n;
		items[0] = (struct pollfd){proxy.listener, POLLIN, 0};
		for (int i = 0; i < n; i++) {
			bool mute = is_mute(&proxy.pairs[i]);
			items[1 + 2 * i] = (struct pollfd){proxy.pairs[i].fds[CLIENT], POLLIN, 0};
			items[2 + 2 * i] = (struct pollfd){mute ? -1 : proxy.pairs[i].fds[SERVER], POLLIN, 0};
		}
		poll(items, (nfds_t)(1 + 2 * n), 20);
		/* From the end: a pair that is dropped is replaced by the last one, which has had its turn. */
		for (int i = n - 1; i >= 0; i--)
			if ((items[1 + 2 * i].revents && !forward(&proxy.pairs[i], CLIENT)) ||
			    (items[2 + 2 * i].revents && !forward(&proxy.pairs[i], SERVER)))
				drop_pair(i);
		if (items[0].revents)
			take_connection();
	}
	while (proxy.n > 0)
		drop_pair(proxy.n - 1);
	close(proxy.listener);
	return NULL;
}

int proxy_start(int target)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t length = sizeof address;
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	proxy.target = target;
	proxy_mute_after(-1);
	atomic_store(&proxy.connections, 0);
	proxy.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(proxy.listener, (struct sockaddr *)&address, sizeof address), 0);
	ck_assert_int_eq(listen(proxy.listener, 64), 0);
	ck_assert_int_eq(getsockname(proxy.listener, (struct sockaddr *)&address, &length), 0);
	start_thread(run_proxy, NULL);
	return ntohs(address.sin_port);
}

void proxy_mute_after(long bytes)
{
	atomic_store(&proxy.mute_after, bytes);
	atomic_store(&proxy.mute_after_answers, -1);
}

void proxy_mute_after_answers(int answers)
{
	atomic_store(&proxy.mute_after, -1);
	atomic_store(&proxy.mute_after_answers, answers);
}

long proxy_connections(void)
{
	return atomic_load(&proxy.connections);
}
