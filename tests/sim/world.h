/*
 * world: the servers, the network between them and the client, and what is true of them, which the library can only guess.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "life.h"
#include "vtime.h"
#include "topology.h"

#define SERVERS_MAX   4
#define OUR_CLUSTER   7001
#define THEIR_CLUSTER 9009

enum way {
	TO_SERVER,
	TO_CLIENT,
};

enum server_state {
	SERVER_DOWN, /* the host is up and refuses */
	SERVER_STARTING,
	SERVER_UP,
};

struct link;
struct message;

struct server {
	int index;
	enum server_state state;
	uint64_t life;  /* goes up when its processes end: what belongs to an older one is gone */
	bool paused;    /* SIGSTOP: the kernel goes on, the processes do not */
	bool full;      /* 53300 */
	bool refusing;  /* 28P01 */
	bool disk_full; /* 53100 for every write */
	bool slow;
	bool in_recovery;
	bool replay_paused; /* or cut off from its primary */
	int upstream;       /* of a standby; -1: none */
	uint32_t timeline;
	uint64_t system_identifier;
	uint64_t lsn;           /* at lsn_us; a primary's grows with time and with writes */
	uint64_t recovered_lsn; /* where its recovery ended, see struct observation */
	int64_t lsn_us;
	int64_t replay_delay_us;
	int64_t started_us; /* by the wall clock of its host */
	int64_t wall_offset_us;
	int64_t latency_us;
	bool hole[2];            /* per enum way: packets are swallowed */
	struct message *held[2]; /* what TCP goes on trying to send */
	struct link *links;
	/* For P6: since when a read would have been served; SIM_NEVER: it would not now. */
	int64_t good_since_us;
	bool was_foreign; /* it has its own data put aside */
	uint32_t own_timeline;
	bool own_in_recovery;
};

enum op_kind {
	OP_READ,
	OP_WRITE,
	OP_IDEMPOTENT,
	OP_CALL,         /* commits in the middle of itself */
	OP_HIDDEN_WRITE, /* the caller said that it reads */
};

/* A handle and its clients. */
struct user {
	dbha *h;
	struct config config;
	char url[64];
	int clients;
	int clients_left;
	int64_t patience_us; /* see P6 in check.c */
	int64_t notice_us;
	/* What was published, and when: see check.c. */
	bool split;
	int64_t split_us;
	uint32_t timeline;
	uint64_t system_identifier;
	bool met_foreign; /* a foreign server had been there when it settled */
};

/* One statement of one client. */
struct op {
	uint64_t id;
	enum op_kind kind;
	struct user *user;
	int64_t began_us;
	int64_t deadline_us;
	int64_t work_us; /* how long a server is busy with it */
	int sent;
	int executed;
	int server; /* that executed it last, on which timeline */
	uint32_t timeline;
	bool over;
	int code;
	bool retry_safe;
	bool outcome_unknown;
};

struct world {
	uint64_t seed;
	bool tracing;
	int n;
	struct server servers[SERVERS_MAX];
	bool by_name;
	int name_leads_to[SERVERS_MAX];
	int64_t names_slow_us;
	bool names_fail;
	bool names_move; /* not by default, see main.c */
	struct user users[2];
	int n_users;
	struct op *ops[8192];
	int n_ops;
	bool had_foreign; /* a foreign server was among them, now or before */
	bool mended;      /* nothing goes wrong any more */
	bool stop;        /* the clients finish what they are at and leave */
	int violations;
	uint64_t digest;
};

extern struct world world;

/* ---- what happens (server.c) ------------------------------------------------------------------------------- */

void server_init(int i, uint32_t timeline, bool in_recovery);
/* The processes end. words: the SQLSTATE of their last words; NULL: none. quiet: not even the end of the stream is told. */
void server_stop(struct server *s, const char *words, bool quiet);
/* As it was, in the same role, after a while in state STARTING. */
void server_start(struct server *s);
void server_promote(struct server *s);
void server_follow(struct server *s, int upstream);
void server_rejoin(struct server *s, int upstream);
void server_become_foreign(struct server *s, bool primary);
void server_pause(struct server *s, bool paused);
uint64_t server_lsn(struct server *s);
/* Before something happens to a standby's replication: what it has replayed by now. */
void server_catch_up(struct server *s);
bool server_is_ours(const struct server *s);

/* ---- the network (net.c) ----------------------------------------------------------------------------------- */

void net_hole(struct server *s, enum way way, bool open);
/* Every connection to the server is reset, and what was on its way is lost. */
void net_reset(struct server *s);

/* ---- reports (main.c, check.c) ----------------------------------------------------------------------------- */

void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Something of which two runs of one seed must agree. */
void digest(uint64_t what);

#endif
