#include "dial.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "identity.h"

static void start_address(struct dial *dial, int64_t now)
{
	const char *address = dial->addresses.n ? dial->addresses.list[dial->address] : NULL;
	int left = dial->addresses.n ? dial->addresses.n - dial->address : 1;
	int64_t end = dial->deadline;
	if (dial->plan.reach_us && dial->began_us + dial->plan.reach_us < end)
		end = dial->began_us + dial->plan.reach_us;
	dial->address_deadline = now + (end - now) / left;
	dial->asking = false;
	dial->events = POLLOUT; /* as PQconnectPoll wants it: the first wait is for writing */
	dial->conn = dbha__conn_start(dial->plan.config, dial->plan.node, address, dial->plan.statements);
}

void dbha__dial_begin(struct dial *dial, const struct dial_plan *plan, const struct addresses *addresses, int64_t now,
                      int64_t deadline)
{
	memset(dial, 0, sizeof *dial);
	dial->plan = *plan;
	dial->addresses = *addresses;
	dial->began_us = now;
	dial->deadline = deadline;
	start_address(dial, now);
}

static enum dial_end fail(struct dial *dial, enum failure failure)
{
	dbha__conn_close(dial->conn);
	dial->conn = NULL;
	dial->observation.failure = failure;
	dial->observation.why = dial->why;
	return DIAL_FAILED;
}

/*
 * This address did not work. The next one is another way to the same server: it is tried only where this one led to none.
 */
static enum dial_end next_address(struct dial *dial, enum failure failure, int64_t now)
{
	bool reached = failure != FAILURE_UNREACHABLE && failure != FAILURE_SILENT;
	if (reached || (dial->plan.reach_us && now >= dial->began_us + dial->plan.reach_us) ||
	    dial->address + 1 >= dial->addresses.n || now >= dial->deadline)
		return fail(dial, failure);
	dbha__conn_close(dial->conn);
	dial->address++;
	start_address(dial, now);
	return DIAL_BUSY;
}

static enum dial_end timed_out(struct dial *dial, int64_t now)
{
	snprintf(dial->why, sizeof dial->why, "no answer within %lld ms (%s)", (long long)(now - dial->began_us) / 1000,
	         dial->asking ? "connected, asked who it is" : "connecting");
	return next_address(dial, FAILURE_SILENT, now);
}

static enum conn_poll poll_once(struct dial *dial)
{
	if (dial->asking)
		return dbha__identity_answer(dial->conn, &dial->observation);
	enum conn_poll poll = dbha__conn_poll(dial->conn);
	if (poll != CONN_READY)
		return poll;
	dial->asking = true;
	if (!dbha__identity_ask(dial->conn, dial->plan.reader))
		return CONN_FAILED;
	return CONN_WANT_READ;
}

enum dial_end dbha__dial_step(struct dial *dial, int64_t now, bool ready)
{
	if (!dial->conn) {
		snprintf(dial->why, sizeof dial->why, "out of memory");
		return fail(dial, FAILURE_UNREACHABLE);
	}
	/* A connect that failed at once has no socket to wait for. */
	bool dead = dbha__conn_fd(dial->conn) < 0;
	enum conn_poll poll = dial->events & POLLOUT ? CONN_WANT_WRITE : CONN_WANT_READ;
	if (ready || dead)
		poll = poll_once(dial);
	switch (poll) {
	case CONN_READY:
		return DIAL_READY;
	case CONN_FAILED: {
		enum failure failure = dbha__conn_failure(dial->conn, dial->why, sizeof dial->why);
		return next_address(dial, failure, now);
	}
	case CONN_WANT_WRITE:
		dial->events = POLLOUT;
		break;
	case CONN_WANT_READ:
		dial->events = POLLIN;
		break;
	}
	/* Who has accepted may take its time over TLS and passwords. */
	if (dial->plan.reach_us && now >= dial->address_deadline && dbha__conn_reached(dial->conn))
		dial->address_deadline = dial->deadline;
	return now >= dial->address_deadline ? timed_out(dial, now) : DIAL_BUSY;
}

int64_t dbha__dial_wake(const struct dial *dial)
{
	/* Nothing to wait for on a socket that does not exist: step again at once. */
	if (!dial->conn || dbha__conn_fd(dial->conn) < 0)
		return 0;
	return dial->address_deadline;
}

void dbha__dial_skip(struct dial *dial, int64_t gap_us)
{
	dial->began_us += gap_us;
	dial->deadline += gap_us;
	dial->address_deadline += gap_us;
}

struct conn *dbha__dial_take(struct dial *dial)
{
	struct conn *conn = dial->conn;
	dial->conn = NULL;
	return conn;
}

void dbha__dial_drop(struct dial *dial)
{
	dbha__conn_close(dial->conn);
	dial->conn = NULL;
}
