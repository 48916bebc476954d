/*
 * The network: connections, messages with latency and in order, holes that swallow packets, resets.
 *
 * As TCP does, what falls into a hole is sent again once the hole has closed: also what belongs to a connection that its
 * client has shut down or closed in the meantime. So a server may execute late what was sent early. What is not modelled: that
 * TCP itself gives a connection up (the holes here are shorter than tcp_user_timeout), and that data which arrives at a
 * socket between its shutdown and the next look at it can still be read on Linux.
 */
#include <poll.h>

#include "check.h"
#include "tcp.h"
#include "machine.h"

static void append(struct message **list, struct message *message)
{
	while (*list)
		list = &(*list)->next;
	message->next = NULL;
	*list = message;
}

static struct message *take_first(struct message **list)
{
	struct message *first = *list;
	if (first)
		*list = first->next;
	return first;
}

/* ---- the client's end -------------------------------------------------------------------------------------- */

static short link_ready(void *object)
{
	const struct link *link = object;
	short ready = 0;
	if (link->phase == LINK_FAILED || link->cut)
		return POLLIN | POLLOUT | POLLHUP;
	if (link->inbox || link->ended)
		ready |= POLLIN;
	if (link->phase == LINK_OPEN)
		ready |= POLLOUT;
	return ready;
}

static void fail(struct link *link)
{
	link->phase = LINK_FAILED;
	link->ended = true;
	machine_notify(link->fd);
}

static void try_connect(void *arg, uint64_t number)
{
	struct link *link = arg;
	struct server *s = link->server;
	(void)number;
	if (link->closed)
		return;
	if (s->hole[TO_SERVER] || s->hole[TO_CLIENT]) {
		/* The first packet is sent again after 1, 2, 4 ... seconds. */
		if (link->syn_tries < 5)
			sched_at(sim_now() + (SIM_S << link->syn_tries++), try_connect, link, 0);
		return;
	}
	if (s->state == SERVER_DOWN) {
		fail(link);
		return;
	}
	link->phase = LINK_OPEN;
	link->life = s->life;
	link->session = true;
	link->next = s->links;
	s->links = link;
	machine_notify(link->fd);
}

struct link *link_open(struct server *server)
{
	struct link *link = sched_alloc(sizeof *link);
	link->server = server;
	link->fd = machine_open(link_ready, link);
	sched_at(sim_now() + 2 * server->latency_us, try_connect, link, 0);
	return link;
}

static bool is_current(const struct link *link)
{
	return link->session && link->life == link->server->life;
}

static void arrive_at_client(struct message *message)
{
	struct link *link = message->link;
	if (link->closed || link->cut || link->phase != LINK_OPEN || link->ended)
		return;
	if (link->lossy && message->kind != SAY_RESET)
		return;
	if (message->kind == SAY_RESET) {
		fail(link);
		return;
	}
	check_answer(message->op, message);
	if (message->kind == SAY_END)
		link->ended = true;
	else
		append(&link->inbox, message);
	machine_notify(link->fd);
}

static void arrive(void *arg, uint64_t number)
{
	struct message *message = arg;
	struct link *link = message->link;
	enum way way = (enum way)number;
	if (link->server->hole[way]) {
		append(&link->server->held[way], message);
		return;
	}
	if (way == TO_CLIENT) {
		arrive_at_client(message);
	} else if (is_current(link)) {
		session_take(link, message);
	} else if (message->kind != ASK_FIN && message->kind != ASK_CANCEL) {
		/* Nobody is there any more, and the kernel says so. */
		struct message reset = {.kind = SAY_RESET};
		link_send(link, TO_CLIENT, &reset);
	}
}

static void schedule(struct message *message, enum way way, int64_t at)
{
	int64_t *last = &message->link->last_arrival[way];
	*last = at > *last ? at : *last;
	sched_at(*last, arrive, message, (uint64_t)way);
}

void link_send(struct link *link, enum way way, const struct message *message)
{
	struct message *copy = sched_alloc(sizeof *copy);
	*copy = *message;
	copy->link = link;
	copy->next = NULL;
	int64_t latency = link->server->latency_us;
	schedule(copy, way, sim_now() + sim_between(latency / 2, 2 * latency));
}

void link_send_cancel(struct cancel *cancel)
{
	struct message *message = sched_alloc(sizeof *message);
	*message = (struct message){.kind = ASK_CANCEL, .link = cancel->link, .cancel = cancel};
	int64_t latency = cancel->link->server->latency_us;
	sched_at(sim_now() + sim_between(latency / 2, 2 * latency), arrive, message, TO_SERVER);
}

static void hang_up(struct link *link)
{
	struct message fin = {.kind = ASK_FIN};
	if (link->phase == LINK_OPEN && !link->fin)
		link_send(link, TO_SERVER, &fin);
}

void link_cut(struct link *link)
{
	if (link->cut || link->closed)
		return;
	link->cut = true;
	hang_up(link);
	machine_notify(link->fd);
}

void link_cut_off(struct link *link)
{
	struct message *kept = NULL;
	link_cut(link);
	/* The server hears of the end all the same, some time: else its session would stay for ever. */
	for (struct message *message; (message = take_first(&link->server->held[TO_SERVER]));)
		if (message->link != link || message->kind == ASK_FIN)
			append(&kept, message);
	link->server->held[TO_SERVER] = kept;
}

void link_close(struct link *link)
{
	if (!link->cut && !link->closed)
		hang_up(link);
	link->closed = true;
}

struct message *link_receive(struct link *link)
{
	return take_first(&link->inbox);
}

/* ---- faults ------------------------------------------------------------------------------------------------ */

void net_hole(struct server *s, enum way way, bool open)
{
	s->hole[way] = open;
	if (open)
		return;
	/* Sent again at the next time TCP tries: soon, or later if it has waited long. */
	int64_t at = sim_now() + sim_between(1 * SIM_MS, sim_chance(500) ? 20 * SIM_MS : 800 * SIM_MS);
	for (struct message *message; (message = take_first(&s->held[way]));)
		schedule(message, way, at);
}

void net_reset(struct server *s)
{
	for (struct link *link = s->links; link; link = link->next) {
		if (!is_current(link) || link->phase != LINK_OPEN)
			continue;
		struct message reset = {.kind = SAY_RESET};
		link->lossy = true;
		link_send(link, TO_CLIENT, &reset);
		/* The server hears of it too, behind what had come before. */
		struct message fin = {.kind = ASK_FIN};
		link_send(link, TO_SERVER, &fin);
	}
}
