/*
 * The application. Its calls are the public ones, dbha_exec, dbha_acquire and dbha_release, as lib/statement.c, lease.c and
 * call.c have them; nothing of them is modelled.
 */
#include "client.h"

#include <stdio.h>

#include "check.h"
#include "dbha.h"

static const char *const texts[] = {
    [OP_READ] = "select * from t",
    [OP_WRITE] = "insert into t values ($1)",
    [OP_IDEMPOTENT] = "insert into t values ($1) on conflict do nothing",
    [OP_CALL] = "call p($1)",
    [OP_HIDDEN_WRITE] = "select f($1)",
};

static struct op *new_op(struct user *user, enum op_kind kind, int timeout_ms)
{
	struct op *op = sched_alloc(sizeof *op);
	op->id = (uint64_t)world.n_ops + 1;
	op->kind = kind;
	op->user = user;
	op->began_us = sim_now();
	op->deadline_us = sim_now() + timeout_ms * SIM_MS;
	op->work_us = sim_chance(30) ? sim_between(50 * SIM_MS, 2 * SIM_S) : sim_between(50, 3 * SIM_MS);
	world.ops[world.n_ops++] = op;
	return op;
}

int client_call(struct user *user, enum op_kind kind, int timeout_ms)
{
	struct op *op = new_op(user, kind, timeout_ms);
	const char *value = (const char *)op; /* for dbha__exec in wire.c */
	bool reads = kind == OP_READ || kind == OP_HIDDEN_WRITE;
	dbha_request request = {
	    .size = sizeof request,
	    .sql = texts[kind],
	    .intent = reads             ? DBHA_READ
	              : sim_chance(200) ? DBHA_DEFAULT
	                                : DBHA_WRITE,
	    .flags = kind == OP_IDEMPOTENT ? DBHA_IDEMPOTENT : 0,
	    .timeout_ms = timeout_ms,
	    .n_params = 1,
	    .values = &value,
	};
	dbha_error err = {0};
	PGresult *result;
	trace("op %llu begins: %s, %d ms", (unsigned long long)op->id, texts[kind], timeout_ms);
	op->code = dbha_exec(user->h, &request, &result, &err);
	op->retry_safe = op->code != DBHA_OK && err.retry_safe;
	op->outcome_unknown = op->code != DBHA_OK && err.outcome_unknown;
	trace("op %llu ends: %s%s%s%s", (unsigned long long)op->id, dbha_code_name(op->code),
	      op->code != DBHA_OK ? ", " : "", op->code != DBHA_OK ? err.message : "",
	      op->outcome_unknown ? ", unknown" : "");
	check_return(op);
	return op->code;
}

/* Impatient ones, some that have just the time in which the library notices what is wrong, and a few with much. */
static int some_timeout(const struct user *user)
{
	int notice_ms = (int)(user->notice_us / SIM_MS);
	if (sim_chance(300))
		return notice_ms + (int)sim_between(50, 2000);
	return (int)(sim_chance(50) ? sim_between(8000, 20000) : sim_between(20, 3000));
}

/* A connection of one's own for a while: what holds places in the pools. */
static void borrow(struct user *user)
{
	dbha_error err = {0};
	int timeout_ms = some_timeout(user);
	int64_t began = sim_now();
	dbha_conn *conn = dbha_acquire(user->h, sim_chance(500) ? DBHA_READ : DBHA_WRITE, timeout_ms, &err);
	if (sim_now() > began + timeout_ms * SIM_MS + 50 * SIM_MS)
		violation("P5: dbha_acquire returned %lld ms after its deadline",
		          (long long)(sim_now() - began) / 1000 - timeout_ms);
	if (!conn)
		return;
	co_sleep(sim_between(0, 200 * SIM_MS));
	dbha_release(conn);
}

static void *run(void *arg)
{
	struct user *user = arg;
	static const enum op_kind kinds[] = {OP_READ,  OP_READ,       OP_READ,       OP_WRITE, OP_WRITE,
	                                     OP_WRITE, OP_IDEMPOTENT, OP_IDEMPOTENT, OP_CALL,  OP_HIDDEN_WRITE};
	int64_t think = sim_between(5 * SIM_MS, 200 * SIM_MS);
	while (!world.stop && world.n_ops < (int)(sizeof world.ops / sizeof world.ops[0]) - 100) {
		if (sim_chance(50))
			borrow(user);
		else
			client_call(user, kinds[sim_between(0, 9)], some_timeout(user));
		co_sleep(sim_between(0, think));
	}
	user->clients_left--;
	return NULL;
}

void client_start(struct user *user)
{
	user->clients++;
	user->clients_left++;
	co_start(run, user, true);
}
