/*
 * The sessions: what a server does with what it is told, one message after the other, each taking its time.
 *
 * A write is executed when its time is over and not before: until then the server may die, or the statement be cancelled. From
 * then on it is executed, whatever becomes of the answer.
 */
#include <stdio.h>

#include "check.h"
#include "tcp.h"

static void begin_next(struct link *link);

static bool is_current(const struct link *link)
{
	return link->session && link->life == link->server->life;
}

static void say(struct link *link, enum message_kind kind, const char *sqlstate)
{
	struct message message = {.kind = kind, .op = link->current ? link->current->op : NULL};
	snprintf(message.sqlstate, sizeof message.sqlstate, "%s", sqlstate ? sqlstate : "");
	link_send(link, TO_CLIENT, &message);
}

static void end(struct link *link, const char *sqlstate)
{
	if (sqlstate)
		say(link, SAY_FATAL, sqlstate);
	say(link, SAY_END, NULL);
	link->session = false;
}

static void start_session(struct link *link)
{
	const struct server *s = link->server;
	if (s->state == SERVER_STARTING)
		end(link, "57P03");
	else if (s->refusing)
		end(link, "28P01");
	else if (s->full)
		end(link, "53300");
	else
		say(link, SAY_STARTED, NULL);
}

static void tell_identity(struct link *link, bool make_reader)
{
	struct server *s = link->server;
	struct message message = {.kind = SAY_IDENTITY};
	message.flag = make_reader && s->in_recovery;
	link->read_only = link->read_only || message.flag;
	message.seen = (struct observation){
	    .in_recovery = s->in_recovery,
	    .lsn = server_lsn(s),
	    .system_identifier = s->system_identifier,
	    .timeline = s->timeline,
	    .started_us = s->started_us,
	    .replay_lsn = s->in_recovery ? 0 : s->recovered_lsn,
	};
	link_send(link, TO_CLIENT, &message);
}

static void write_row(struct link *link, struct op *op)
{
	struct server *s = link->server;
	check_execution(op, s);
	server_lsn(s);
	s->lsn += 100;
}

static void execute(struct link *link, struct op *op)
{
	const struct server *s = link->server;
	bool writes = op->kind != OP_READ;
	struct message done = {.kind = SAY_DONE, .op = op, .flag = !s->in_recovery, .timeline = s->timeline};
	if (link->cancelled) {
		check_cancel(op, link->cancelled);
		say(link, SAY_ERROR, "57014");
		return;
	}
	/* On a standby a conflict with recovery, on a primary a serialization failure. */
	bool conflict = sim_chance(8);
	if (op->kind == OP_CALL && conflict && !s->in_recovery && !link->read_only)
		write_row(link, op); /* its first half was committed before */
	if (conflict)
		say(link, SAY_ERROR, "40001");
	else if (writes && (s->in_recovery || link->read_only))
		say(link, SAY_ERROR, "25006");
	else if (writes && s->disk_full)
		say(link, SAY_ERROR, "53100");
	else {
		if (writes)
			write_row(link, op);
		link_send(link, TO_CLIENT, &done);
	}
}

static void finish(void *arg, uint64_t life)
{
	const struct message *message = arg;
	struct link *link = message->link;
	struct server *s = link->server;
	if (!link->session || link->life != life || life != s->life || link->current != message)
		return;
	if (s->paused) {
		link->stalled = true;
		return;
	}
	switch (message->kind) {
	case ASK_STARTUP:
		start_session(link);
		break;
	case ASK_IDENTITY:
		tell_identity(link, message->flag);
		break;
	case ASK_SETTING:
		link->read_only = message->flag;
		say(link, SAY_DONE, NULL);
		break;
	case ASK_PREPARE:
		say(link, SAY_DONE, NULL);
		break;
	case ASK_EXEC:
		execute(link, message->op);
		break;
	default:
		break;
	}
	link->current = NULL;
	link->cancelled = NULL;
	begin_next(link);
}

static int64_t time_for(const struct link *link)
{
	const struct message *message = link->current;
	int64_t us = message->kind == ASK_STARTUP ? sim_between(400, 3000) : sim_between(20, 200);
	if (message->kind == ASK_EXEC)
		us += message->op->work_us;
	if (link->server->slow)
		us += sim_between(100 * SIM_MS, 2 * SIM_S);
	return us;
}

static void begin_next(struct link *link)
{
	if (!is_current(link) || link->current || link->server->paused)
		return;
	link->current = link->queue;
	if (link->current) {
		link->queue = link->current->next;
		sched_at(sim_now() + time_for(link), finish, link->current, link->life);
	} else if (link->fin) {
		link->session = false;
	}
}

/* The server closes the connection that the request has come by; that is all it ever says to it. */
static void close_to_sender(void *arg, uint64_t number)
{
	struct cancel *cancel = arg;
	(void)number;
	if (cancel->link->server->hole[TO_CLIENT])
		return; /* it will not be heard in time */
	cancel->acted = true;
	if (cancel->sender)
		co_wake(cancel->sender);
}

/* What runs is given up, half of the time at once and half of the time when it would have been done. */
static void cancel_current(void *arg, uint64_t life)
{
	struct cancel *cancel = arg;
	struct link *link = cancel->link;
	struct server *s = link->server;
	if (life != s->life)
		return;
	if (s->paused) {
		/* The kernel has taken it; the processes see it some time after they go on. */
		sched_at(sim_now() + sim_between(SIM_MS, 50 * SIM_MS), cancel_current, cancel, life);
		return;
	}
	if (link->session && link->current && link->current->kind == ASK_EXEC) {
		link->cancelled = cancel;
		if (sim_chance(700))
			finish(link->current, link->life);
	}
	sched_at(sim_now() + sim_between(s->latency_us / 2, 2 * s->latency_us), close_to_sender, cancel, 0);
}

void session_take(struct link *link, struct message *message)
{
	if (message->kind == ASK_CANCEL) {
		cancel_current(message->cancel, link->life);
		return;
	}
	if (message->kind == ASK_FIN) {
		link->fin = true;
	} else {
		struct message **last = &link->queue;
		while (*last)
			last = &(*last)->next;
		message->next = NULL;
		*last = message;
	}
	begin_next(link);
}

void session_go_on(struct link *link)
{
	if (link->stalled && link->current) {
		link->stalled = false;
		sched_at(sim_now() + sim_between(10, 500), finish, link->current, link->life);
	}
	begin_next(link);
}
