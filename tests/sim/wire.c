/*
 * What stands in for lib/wire/conn, identity and exec: the same contracts over a simulated connection. lib/wire/dial above them
 * is the real one.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cancel.h"
#include "check.h"
#include "clock.h"
#include "conn.h"
#include "exec.h"
#include "identity.h"
#include "tcp.h"

struct sim_conn {
	struct conn base;
	struct link *link;
	bool asked_to_start;
	bool dead;          /* its last words, or its end, have been read */
	bool busy;          /* an answer is owed */
	bool told_promoted; /* the last reply said that the server is no standby any more */
	struct op *op;      /* the statement in progress */
	char last_words[6];
	char address[24];
};

static struct sim_conn *sim(const struct conn *conn)
{
	return (struct sim_conn *)conn;
}

/* ---- connecting -------------------------------------------------------------------------------------------- */

/* "10.0.0.1" is server 0. */
static struct server *server_at(const char *address)
{
	const char *dot = strrchr(address, '.');
	return &world.servers[dot ? atoi(dot + 1) - 1 : 0];
}

struct conn *dbha__conn_start(const struct config *config, const struct config_node *node, const char *address,
                              int statements)
{
	(void)config;
	(void)statements;
	struct sim_conn *conn = calloc(1, sizeof *conn);
	if (!conn)
		return NULL;
	conn->base.guard_fd = -1;
	snprintf(conn->address, sizeof conn->address, "%s", address ? address : node->host);
	conn->link = link_open(server_at(conn->address));
	return &conn->base;
}

static bool is_over(const struct sim_conn *conn)
{
	return conn->dead || conn->link->cut || conn->link->phase == LINK_FAILED || conn->link->ended;
}

static void take_last_words(struct sim_conn *conn, const struct message *message)
{
	conn->dead = true;
	snprintf(conn->last_words, sizeof conn->last_words, "%s", message->sqlstate);
}

static void transmit(struct sim_conn *conn, const struct message *message)
{
	conn->busy = true;
	if (conn->link->phase == LINK_OPEN && !conn->link->cut)
		link_send(conn->link, TO_SERVER, message);
}

enum conn_poll dbha__conn_poll(struct conn *base)
{
	struct sim_conn *conn = sim(base);
	if (conn->link->phase == LINK_CONNECTING)
		return CONN_WANT_WRITE;
	if (!conn->asked_to_start && conn->link->phase == LINK_OPEN) {
		conn->asked_to_start = true;
		transmit(conn, &(struct message){.kind = ASK_STARTUP});
		return CONN_WANT_READ;
	}
	const struct message *message = link_receive(conn->link);
	if (!message)
		return is_over(conn) ? CONN_FAILED : CONN_WANT_READ;
	conn->busy = false;
	if (message->kind == SAY_STARTED)
		return CONN_READY;
	take_last_words(conn, message);
	return CONN_FAILED;
}

bool dbha__conn_reached(const struct conn *conn)
{
	return sim(conn)->link->phase == LINK_OPEN;
}

enum failure dbha__conn_failure(const struct conn *conn, char *why, size_t size)
{
	const char *state = sim(conn)->last_words;
	snprintf(why, size, "%s", state[0] ? state : "connection refused or closed");
	if (strncmp(state, "57P", 3) == 0)
		return FAILURE_STARTING;
	if (strcmp(state, "53300") == 0)
		return FAILURE_FULL;
	return state[0] ? FAILURE_REFUSED : FAILURE_UNREACHABLE;
}

void dbha__conn_first_line(char *out, size_t size, const char *message)
{
	snprintf(out, size, "%s", message);
}

int dbha__conn_fd(const struct conn *conn)
{
	return sim(conn)->link->fd;
}

bool dbha__conn_is_dead(struct conn *conn)
{
	return is_over(sim(conn));
}

bool dbha__conn_peer_closed(const struct conn *conn)
{
	return is_over(sim(conn));
}

enum conn_state dbha__conn_state(const struct conn *conn)
{
	return sim(conn)->dead || sim(conn)->busy ? CONN_UNUSABLE : CONN_IDLE;
}

bool dbha__conn_has_failed(const struct conn *conn)
{
	(void)conn;
	return false;
}

int dbha__conn_backend_pid(const struct conn *conn)
{
	return sim(conn)->link->fd;
}

void dbha__conn_lend(struct conn *conn)
{
	(void)conn;
}

void dbha__conn_take_back(struct conn *conn)
{
	(void)conn;
}

void dbha__conn_cut(struct conn *conn)
{
	link_cut(sim(conn)->link);
}

void dbha__conn_cut_off(struct conn *conn)
{
	link_cut_off(sim(conn)->link);
}

const char *dbha__conn_address(const struct conn *conn)
{
	return sim(conn)->address;
}

bool dbha__conn_was_promoted(struct conn *conn)
{
	bool promoted = conn->standby && sim(conn)->told_promoted;
	conn->standby = conn->standby && !promoted;
	return promoted;
}

void dbha__conn_close(struct conn *conn)
{
	if (!conn)
		return;
	link_close(sim(conn)->link);
	free(conn);
}

void dbha__conn_abandon(struct conn *conn, int dev_null)
{
	(void)conn;
	(void)dev_null;
}

/* ---- cancel ------------------------------------------------------------------------------------------------ */

struct conn_cancel *dbha__conn_cancel_new(const struct conn *conn)
{
	struct cancel *cancel = sched_alloc(sizeof *cancel);
	cancel->link = sim(conn)->link;
	cancel->op = sim(conn)->op;
	cancel->link->cancels_pending++;
	return (struct conn_cancel *)cancel;
}

/* Over a connection of its own, which takes a moment; then until the server has closed it, if it ever does. */
void dbha__conn_cancel_run(struct conn_cancel *request)
{
	struct cancel *cancel = (struct cancel *)request;
	co_sleep(sim_between(200, 3000));
	cancel->sender = co_self();
	link_send_cancel(cancel);
	if (cancel->acted || co_wait(sim_now() + 2 * SIM_S))
		cancel->link->cancels_pending--;
	cancel->sender = NULL;
}

void dbha__conn_cancel_free(struct conn_cancel *request)
{
	if (request)
		((struct cancel *)request)->link->cancels_pending--;
}

bool dbha__conn_cancel_under_way(const struct conn *conn)
{
	return sim(conn)->link->cancels_pending > 0;
}

/* ---- identity ---------------------------------------------------------------------------------------------- */

bool dbha__identity_ask(struct conn *conn, bool make_reader)
{
	if (sim(conn)->dead)
		return false;
	transmit(sim(conn), &(struct message){.kind = ASK_IDENTITY, .flag = make_reader});
	return true;
}

enum conn_poll dbha__identity_answer(struct conn *base, struct observation *observation)
{
	struct sim_conn *conn = sim(base);
	const struct message *message = link_receive(conn->link);
	if (!message)
		return is_over(conn) ? CONN_FAILED : CONN_WANT_READ;
	conn->busy = false;
	if (message->kind != SAY_IDENTITY) {
		take_last_words(conn, message);
		return CONN_FAILED;
	}
	*observation = message->seen;
	base->direct = true;
	base->standby = observation->in_recovery;
	base->read_only_set = base->read_only_set || message->flag;
	return CONN_READY;
}

/* ---- statements -------------------------------------------------------------------------------------------- */

enum waited {
	WAITED_READY,
	WAITED_TIMEOUT,
};

/* As wait.c has it: a long wait has no timer, the patrol of the pool ends it. */
static enum waited wait_for_answer(struct sim_conn *conn, int64_t deadline)
{
	struct conn *base = &conn->base;
	struct pollfd item = {.fd = conn->link->fd, .events = POLLIN};
	if (base->patrolled && deadline - dbha__clock_coarse() > 2 * CONN_PATROL_US) {
		dbha__overdue_begin(&base->wait_until, deadline);
		poll(&item, 1, -1);
		int64_t word = dbha__overdue_end(&base->wait_until);
		base->late = base->late || word < 0;
		return word == OVERDUE_CUT ? WAITED_TIMEOUT : WAITED_READY;
	}
	int64_t now = dbha__clock_now();
	if (now >= deadline)
		return WAITED_TIMEOUT;
	poll(&item, 1, dbha__clock_poll_ms(now, deadline));
	return WAITED_READY;
}

static bool drain(struct conn *base, int64_t *deadline)
{
	if (!base->late && !(base->ask_to_stop && base->ask_to_stop(base)))
		return false;
	base->late = true;
	*deadline += CONN_DRAIN_US;
	return true;
}

static void take_answer(struct sim_conn *conn, const struct message *message, struct attempt *attempt)
{
	conn->busy = false;
	switch (message->kind) {
	case SAY_DONE:
		conn->told_promoted = message->flag;
		attempt->answered = true;
		attempt->end = ATTEMPT_OK;
		return;
	case SAY_ERROR:
		attempt->end = ATTEMPT_ERROR;
		break;
	default:
		take_last_words(conn, message);
		attempt->answered = message->answered;
		attempt->end = ATTEMPT_FATAL;
	}
	snprintf(attempt->sqlstate, sizeof attempt->sqlstate, "%s", message->sqlstate);
	snprintf(attempt->message, sizeof attempt->message, "error %s", message->sqlstate);
}

static void timed_out(struct attempt *attempt, enum attempt_end end)
{
	attempt->end = end;
	snprintf(attempt->message, sizeof attempt->message, "no answer before the deadline of the call");
}

/* False: nothing came. */
static bool take_results(struct sim_conn *conn, int64_t deadline, struct attempt *attempt)
{
	for (;;) {
		const struct message *message = link_receive(conn->link);
		if (message) {
			take_answer(conn, message, attempt);
			return true;
		}
		if (is_over(conn)) {
			conn->dead = true;
			attempt->end = ATTEMPT_LOST;
			snprintf(attempt->message, sizeof attempt->message, "the connection was lost");
			return true;
		}
		if (wait_for_answer(conn, deadline) == WAITED_TIMEOUT)
			return false;
	}
}

static void collect(struct sim_conn *conn, int64_t deadline, bool drains, struct attempt *attempt)
{
	memset(attempt, 0, sizeof *attempt);
	conn->base.late = false;
	if (!take_results(conn, deadline, attempt) &&
	    !(drains && drain(&conn->base, &deadline) && take_results(conn, deadline, attempt)))
		timed_out(attempt, ATTEMPT_TIMEOUT);
	if (!conn->base.late)
		return;
	if (attempt->end == ATTEMPT_ERROR && strcmp(attempt->sqlstate, "57014") == 0)
		timed_out(attempt, ATTEMPT_CANCELLED);
	else if (attempt->end == ATTEMPT_LOST)
		timed_out(attempt, ATTEMPT_TIMEOUT);
}

/* Whatever became of a preparation, the statement itself was not sent. */
static bool prepare(struct sim_conn *conn, int64_t deadline, struct attempt *attempt)
{
	transmit(conn, &(struct message){.kind = ASK_PREPARE});
	collect(conn, deadline, false, attempt);
	attempt->answered = false;
	if (attempt->end == ATTEMPT_LOST || attempt->end == ATTEMPT_FATAL)
		attempt->end = ATTEMPT_NOT_SENT;
	if (attempt->end == ATTEMPT_OK && (conn->base.late || dbha__clock_now() >= deadline))
		timed_out(attempt, ATTEMPT_TIMEOUT);
	attempt->prepared_only = attempt->end == ATTEMPT_TIMEOUT || attempt->end == ATTEMPT_CANCELLED;
	return attempt->end == ATTEMPT_OK;
}

/* The client gives its op away as the one parameter of the statement. */
void dbha__exec(struct conn *base, const dbha_request *rq, int64_t deadline, struct attempt *attempt)
{
	struct sim_conn *conn = sim(base);
	struct op *op = (struct op *)(uintptr_t)rq->values[0];
	conn->op = NULL;
	if (sim_chance(100) && !prepare(conn, deadline, attempt))
		return;
	if (conn->link->phase == LINK_OPEN && !conn->link->cut)
		check_send(op, conn->link);
	op->sent++;
	conn->op = op;
	transmit(conn, &(struct message){.kind = ASK_EXEC, .op = op});
	collect(conn, deadline, true, attempt);
	trace("op %llu on server %d: %s", (unsigned long long)op->id, conn->link->server->index,
	      attempt->end == ATTEMPT_OK ? "done" : attempt->message);
}

bool dbha__exec_command(struct conn *base, const char *sql, int64_t deadline)
{
	struct attempt attempt;
	transmit(sim(base), &(struct message){.kind = ASK_SETTING, .flag = strncmp(sql, "SET", 3) == 0});
	sim(base)->op = NULL;
	collect(sim(base), deadline, false, &attempt);
	return attempt.end == ATTEMPT_OK && !base->late;
}
