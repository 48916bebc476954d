/*
 * config: everything a handle is told, as one plain struct.
 *
 * Built from keyword/value pairs (text already taken apart by wire/conninfo) and the environment. Precedence is decided
 * here, and contradictions are refused here, with the option's name, the value and what is accepted. All memory belongs
 * to the struct. Pure: the environment comes in through a function.
 */
#ifndef DBHA_POLICY_CONFIG_H
#define DBHA_POLICY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dbha.h"

#define CONFIG_NODES_MAX 32

/* libpq's values of target_session_attrs, with libpq's meaning, for work that does not say what it means to do. */
enum target {
	TARGET_ANY,
	TARGET_READ_WRITE,
	TARGET_READ_ONLY,
	TARGET_PRIMARY,
	TARGET_STANDBY,
	TARGET_PREFER_STANDBY,
};

enum monitor_mode {
	MONITOR_OFF, /* no background thread: calls refresh the view */
	MONITOR_ON,
};

/* libpq's values of load_balance_hosts. */
enum load_balance {
	LOAD_BALANCE_DISABLE,
	LOAD_BALANCE_RANDOM,
};

enum discover {
	DISCOVER_OFF,
	DISCOVER_DNS,
};

/* Who says what a statement means to do, where its caller has not. */
enum routing {
	ROUTING_INTENT, /* nobody: see target_session_attrs */
	ROUTING_AUTO,   /* its text, see policy/classify */
};

enum probe_profile {
	PROBE_NORMAL,
	PROBE_AGGRESSIVE,
};

/* One keyword and its value, for libpq. */
struct config_pair {
	char *keyword;
	char *value;
};

/* One server of the URL. `host` or `hostaddr` may be NULL, not both; `name` is what people see: "host:port". */
struct config_node {
	char *host;
	char *hostaddr;
	char *port;
	char name[DBHA_NODE_NAME_MAX];
};

/* The library's own options. Every member ends in its unit; lib/policy/option.c names each one's member by offsetof. */
struct config_options {
	int target_session_attrs; /* an enum target */
	int load_balance_hosts;   /* an enum load_balance */
	int call_timeout_ms;
	int connect_timeout_ms;
	int pool_min_size;
	int pool_max_size;
	int pool_timeout_ms;  /* 0: the deadline of the call alone decides */
	int pool_max_waiting; /* 0: no limit */
	int pool_max_idle_ms;
	int pool_max_lifetime_ms; /* 0: no limit */
	int pool_max_connecting;
	int monitor;  /* an enum monitor_mode */
	int discover; /* an enum discover */
	int resolve_interval_ms;
	int probe_profile; /* an enum probe_profile */
	int probe_interval_ms;
	int probe_interval_fast_ms;
	int probe_timeout_ms;
	int probe_failures;
	int max_lag_ms;                         /* 0: no limit in time */
	int64_t max_lag_bytes;                  /* 0: no limit in bytes */
	int consistency;                        /* an enum dbha_consistency less one: SESSION is 0 */
	int max_wait_ms;                        /* 0: not at all */
	int routing;                            /* an enum routing */
	char *read_functions, *write_functions; /* lists of names, or NULL */
	int retry_backoff_ms;
	int retry_backoff_max_ms;
	int retry_budget;         /* percent; 0: no limit */
	int verify_commit;        /* bool, see docs/outcome.md */
	int statement_cache_size; /* per connection; 0: nothing is prepared */
	int log_level;            /* enum trace_level of base/trace.h */
	char *log_file;           /* path, "stderr", or NULL */
	char *fence_file;         /* absolute path, or NULL */
	char *outcome_table;      /* a name that dbha__outcome_table_quote accepts, or NULL */
	int commit_terminate;     /* 0 or 1 */
	uint64_t accept_cluster;  /* a system identifier; 0: not set */
};

struct config {
	struct config_node nodes[CONFIG_NODES_MAX];
	int n_nodes;
	struct config_pair *pairs; /* for libpq: everything but host, hostaddr, port and what the library takes itself */
	int n_pairs;
	struct config_options options;
};

/* ---- Pairs: a small ordered map from keyword to value ---- */

struct config_pairs {
	struct config_pair *items;
	int n;
};

/* Sets or replaces; copies both strings. DBHA_OK or DBHA_ERR_MEMORY. */
int dbha__pairs_set(struct config_pairs *pairs, const char *keyword, const char *value, dbha_error *err);

/* NULL where the keyword is not set. An empty value counts as not set, as in PQconnectdbParams. */
const char *dbha__pairs_get(const struct config_pairs *pairs, const char *keyword);
void dbha__pairs_fini(struct config_pairs *pairs);

/* ---- From layers to a configuration ---- */

typedef const char *config_getenv(const char *name, void *data);

/* One source of options. Borrowed. */
struct config_layer {
	const struct config_pairs *pairs;
	const char *origin; /* for messages: "DATABASE_URL"; NULL where it needs no word */
};

/* All sources, highest precedence first. Defaults come below the last one. */
struct config_input {
	const struct config_layer *layers;
	int n_layers;
	int env_rank;          /* this many layers outrank the variables DBHA_* */
	config_getenv *getenv; /* NULL: no environment */
	void *getenv_data;
	const char *default_host; /* for an empty entry of the host list; NULL: "localhost" */
	const char *default_port; /* NULL: "5432" */
};

/* The library's own options alone, without looking for contradictions. Afterwards dbha__options_fini(out). */
int dbha__config_read_options(struct config_options *out, const struct config_input *input, dbha_error *err);

/*
 * Everything. Refuses values out of range and values that contradict each other. What libpq is to get has
 * fallback_application_name, keepalives and target_session_attrs=any added: the last because libpq would otherwise take one
 * from PGTARGETSESSIONATTRS or the service file and refuse nodes we mean to use. On failure out holds nothing.
 */
int dbha__config_init(struct config *out, const struct config_input *input, dbha_error *err);

/* Each value and the nodes alone: options that contradict each other pass, as a later dbha_config_set may mend them. */
int dbha__config_check(const struct config_input *input, dbha_error *err);

int dbha__config_copy(struct config *out, const struct config *in, dbha_error *err);
void dbha__config_fini(struct config *config);

/* Checks the entries of one of the lists host, hostaddr, port; their numbers are compared by dbha__config_init. */
int dbha__config_check_list(const char *keyword, const char *value, dbha_error *err);

/* The numbers of entries: hostaddr as many as host, port one or as many. NULL: not set. */
int dbha__config_check_counts(const char *host, const char *hostaddr, const char *port, dbha_error *err);

#endif
