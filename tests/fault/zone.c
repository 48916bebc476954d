#include "zone.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster.h"

#define NAMES_MAX     8
#define ADDRESSES_MAX 64
#define WAITING_MAX   256
#define HEADER        12
#define TYPE_A        1
#define SERVFAIL      2
#define NXDOMAIN      3

struct record {
	char name[64];
	int n;
	struct in_addr addresses[ADDRESSES_MAX];
};

/* An answer that waits for its time. */
struct answer {
	int64_t due_ms;
	struct sockaddr_in to;
	size_t length;
	unsigned char bytes[512 + ADDRESSES_MAX * 16];
};

static struct {
	int fd;
	atomic_int mood;
	atomic_int delay_ms;
	atomic_long questions;
	pthread_mutex_t lock; /* of the records */
	struct record records[NAMES_MAX];
	int n;
	struct answer waiting[WAITING_MAX]; /* of the thread alone */
	int n_waiting;
} zone = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* A question: its name as text, its type, and how many bytes it is long, 0 if it makes no sense. */
struct question {
	char name[256];
	int type;
	size_t length;
};

static void read_question(const unsigned char *bytes, size_t length, struct question *out)
{
	size_t at = HEADER, used = 0;
	out->length = 0;
	while (at < length && bytes[at]) {
		size_t label = bytes[at++];
		if (label > 63 || at + label >= length || used + label + 2 > sizeof out->name)
			return;
		memcpy(out->name + used, bytes + at, label);
		used += label;
		out->name[used++] = '.';
		at += label;
	}
	out->name[used ? used - 1 : 0] = '\0';
	if (at + 5 > length)
		return;
	out->type = bytes[at + 1] << 8 | bytes[at + 2];
	out->length = at + 5;
}

static struct record *find_locked(const char *name)
{
	for (int i = 0; i < zone.n; i++)
		if (strcasecmp(zone.records[i].name, name) == 0)
			return &zone.records[i];
	return NULL;
}

/* The addresses, each as a record that names the question by a pointer, never to be cached. Returns the new length. */
static size_t append_addresses(unsigned char *bytes, size_t used, const struct record *record, long turn)
{
	static const unsigned char head[] = {0xc0, HEADER, 0, TYPE_A, 0, 1, 0, 0, 0, 0, 0, 4};
	for (int i = 0; i < record->n; i++) {
		memcpy(bytes + used, head, sizeof head);
		memcpy(bytes + used + sizeof head, &record->addresses[(i + turn) % record->n], 4);
		used += sizeof head + 4;
	}
	bytes[7] = (unsigned char)record->n;
	return used;
}

/* Turns the question in `bytes` into its answer, in place; its length. */
static size_t make_answer(unsigned char *bytes, const struct question *question)
{
	int mood = atomic_load(&zone.mood);
	size_t used = question->length;
	long turn = question->type == TYPE_A ? atomic_fetch_add(&zone.questions, 1) : 0;
	pthread_mutex_lock(&zone.lock);
	const struct record *record = find_locked(question->name);
	bool known = record && record->n > 0;
	int code = mood == ZONE_FAILS ? SERVFAIL : mood == ZONE_ANSWERS && !known ? NXDOMAIN : 0;
	bytes[2] = 0x84 | (bytes[2] & 0x01); /* an answer, authoritative */
	bytes[3] = (unsigned char)(0x80 | code);
	memset(bytes + 6, 0, 6);
	if (mood == ZONE_ANSWERS && known && question->type == TYPE_A)
		used = append_addresses(bytes, used, record, turn);
	pthread_mutex_unlock(&zone.lock);
	return used;
}

/* Beyond WAITING_MAX there is no answer, as from a server that has too much to do. */
static void take_question(void)
{
	struct answer *answer = &zone.waiting[zone.n_waiting];
	socklen_t size = sizeof answer->to;
	struct question question;
	ssize_t n = recvfrom(zone.fd, answer->bytes, 512, MSG_DONTWAIT, (struct sockaddr *)&answer->to, &size);
	if (n <= HEADER)
		return;
	read_question(answer->bytes, (size_t)n, &question);
	if (!question.length)
		return;
	answer->due_ms = now_ms() + atomic_load(&zone.delay_ms);
	answer->length = make_answer(answer->bytes, &question);
	if (atomic_load(&zone.mood) != ZONE_SILENT && zone.n_waiting < WAITING_MAX - 1)
		zone.n_waiting++;
}

static void send_due(void)
{
	for (int i = zone.n_waiting - 1; i >= 0; i--) {
		const struct answer *answer = &zone.waiting[i];
		if (answer->due_ms > now_ms())
			continue;
		sendto(zone.fd, answer->bytes, answer->length, 0, (const struct sockaddr *)&answer->to, sizeof answer->to);
		zone.waiting[i] = zone.waiting[--zone.n_waiting];
	}
}

static void *serve(void *arg)
{
	(void)arg;
	while (!atomic_load(&threads_stop)) {
		struct pollfd item = {zone.fd, POLLIN, 0};
		poll(&item, 1, zone.n_waiting ? 1 : 20);
		if (item.revents)
			take_question();
		send_due();
	}
	close(zone.fd);
	return NULL;
}

void zone_start(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(53)};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	zone.n = zone.n_waiting = 0;
	atomic_store(&zone.mood, ZONE_ANSWERS);
	atomic_store(&zone.delay_ms, 0);
	atomic_store(&zone.questions, 0);
	zone.fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(bind(zone.fd, (struct sockaddr *)&address, sizeof address), 0);
	start_thread(serve, NULL);
}

void zone_set(const char *name, const char *addresses)
{
	char copy[2048];
	char *rest = NULL;
	snprintf(copy, sizeof copy, "%s", addresses);
	pthread_mutex_lock(&zone.lock);
	struct record *record = find_locked(name);
	if (!record) {
		ck_assert_int_lt(zone.n, NAMES_MAX);
		record = &zone.records[zone.n++];
		snprintf(record->name, sizeof record->name, "%s", name);
	}
	record->n = 0;
	for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		ck_assert_int_eq(inet_pton(AF_INET, word, &record->addresses[record->n++]), 1);
	pthread_mutex_unlock(&zone.lock);
}

void zone_mood(enum zone_mood mood)
{
	atomic_store(&zone.mood, (int)mood);
}

void zone_delay(int ms)
{
	atomic_store(&zone.delay_ms, ms);
}

long zone_questions(void)
{
	return atomic_load(&zone.questions);
}
