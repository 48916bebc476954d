#include "nameserver.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"

#define RECORDS_MAX 16
#define ANSWERS_MAX 256
#define HEADER      12
#define TYPE_A      1
#define NXDOMAIN    3

/* An answer that waits for its time. */
struct answer {
	int64_t due_ms;
	struct sockaddr_in to;
	size_t length;
	unsigned char bytes[576];
};

static struct {
	int fd;
	atomic_int delay_ms;
	atomic_long questions;
	pthread_mutex_t lock; /* of the records */
	struct {
		char name[64];
		char address[INET_ADDRSTRLEN];
	} records[RECORDS_MAX];
	int n_records;
	struct answer answers[ANSWERS_MAX]; /* of the thread alone */
	int n_answers;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The name of a question as text; the offset behind it, 0 if it makes no sense. */
static size_t read_name(const unsigned char *bytes, size_t length, char *name, size_t size)
{
	size_t at = HEADER, used = 0;
	while (at < length && bytes[at]) {
		size_t label = bytes[at++];
		if (label > 63 || at + label >= length || used + label + 2 > size)
			return 0;
		memcpy(name + used, bytes + at, label);
		used += label;
		name[used++] = '.';
		at += label;
	}
	name[used ? used - 1 : 0] = '\0';
	return at + 5 <= length ? at + 1 : 0;
}

static bool find(const char *name, struct in_addr *address)
{
	bool found = false;
	pthread_mutex_lock(&server.lock);
	for (int i = 0; i < server.n_records && !found; i++)
		if (strcasecmp(server.records[i].name, name) == 0)
			found = inet_pton(AF_INET, server.records[i].address, address) == 1;
	pthread_mutex_unlock(&server.lock);
	return found;
}

/* Turns the question into its answer: the question itself, and one record that names it by a pointer. Never cached. */
static bool make_answer(struct answer *answer, size_t length)
{
	char name[256];
	struct in_addr address;
	unsigned char *bytes = answer->bytes;
	size_t after = length > HEADER ? read_name(bytes, length, name, sizeof name) : 0;
	if (!after)
		return false;
	bool known = find(name, &address);
	bool wanted = bytes[after] == 0 && bytes[after + 1] == TYPE_A;
	bytes[2] = 0x84 | (bytes[2] & 0x01); /* an answer, authoritative */
	bytes[3] = (unsigned char)(0x80 | (known ? 0 : NXDOMAIN));
	memset(bytes + 6, 0, 6);
	answer->length = after + 4;
	if (!known || !wanted)
		return true;
	static const unsigned char record[] = {0xc0, HEADER, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4};
	bytes[7] = 1;
	memcpy(bytes + answer->length, record, sizeof record);
	memcpy(bytes + answer->length + sizeof record, &address, 4);
	answer->length += sizeof record + 4;
	return true;
}

static void take_question(void)
{
	struct answer *answer = &server.answers[server.n_answers];
	socklen_t size = sizeof answer->to;
	ssize_t n = recvfrom(server.fd, answer->bytes, 512, MSG_DONTWAIT, (struct sockaddr *)&answer->to, &size);
	if (n <= 0)
		return;
	atomic_fetch_add(&server.questions, 1);
	answer->due_ms = now_ms() + atomic_load(&server.delay_ms);
	if (make_answer(answer, (size_t)n) && server.n_answers < ANSWERS_MAX - 1)
		server.n_answers++;
}

static void send_due(void)
{
	for (int i = 0; i < server.n_answers;) {
		struct answer *answer = &server.answers[i];
		if (answer->due_ms > now_ms()) {
			i++;
			continue;
		}
		sendto(server.fd, answer->bytes, answer->length, 0, (struct sockaddr *)&answer->to, sizeof answer->to);
		*answer = server.answers[--server.n_answers];
	}
}

static void *serve(void *arg)
{
	(void)arg;
	while (!atomic_load(&threads_stop)) {
		struct pollfd item = {server.fd, POLLIN, 0};
		poll(&item, 1, server.n_answers ? 1 : 20);
		if (item.revents)
			take_question();
		send_due();
	}
	close(server.fd);
	return NULL;
}

void nameserver_start(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server.n_records = server.n_answers = 0;
	atomic_store(&server.delay_ms, 0);
	atomic_store(&server.questions, 0);
	server.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(server.fd, (struct sockaddr *)&address, sizeof address), 0);
	start_thread(serve, NULL);
}

static void set_locked(const char *name, const char *address)
{
	int i = 0;
	while (i < server.n_records && strcasecmp(server.records[i].name, name) != 0)
		i++;
	ck_assert_int_lt(i, RECORDS_MAX);
	snprintf(server.records[i].name, sizeof server.records[i].name, "%s", name);
	snprintf(server.records[i].address, sizeof server.records[i].address, "%s", address ? address : "");
	server.n_records += i == server.n_records;
}

void nameserver_set(const char *name, const char *address)
{
	pthread_mutex_lock(&server.lock);
	set_locked(name, address);
	pthread_mutex_unlock(&server.lock);
}

void nameserver_delay(int ms)
{
	atomic_store(&server.delay_ms, ms);
}

long nameserver_questions(void)
{
	return atomic_load(&server.questions);
}
