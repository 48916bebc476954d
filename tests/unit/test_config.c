/*
 * test_config: layers, precedence, contradictions and nodes in policy/config; then the public calls dbha_config_*.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "classify.h"
#include "config_internal.h"
#include "option.h"
#include "unit.h"

#define PASSWORD "Pl4nted-S3cret"

/* ---- policy/config, without environment and without libpq ---- */

/* A layer from "keyword", "value", ..., NULL. The strings are not owned. */
struct layer {
	struct config_pair items[12];
	struct config_pairs pairs;
};

static const struct config_pairs *layer(struct layer *l, const char *const *words)
{
	l->pairs = (struct config_pairs){l->items, 0};
	for (; words && words[0]; words += 2) {
		l->items[l->pairs.n].keyword = (char *)(uintptr_t)words[0];
		l->items[l->pairs.n++].value = (char *)(uintptr_t)words[1];
	}
	return &l->pairs;
}

#define WORDS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Builds from one layer, and expects the code. */
static void build(struct config *out, const char *const *words, int code, dbha_error *err)
{
	struct layer l;
	struct config_layer layers[] = {{layer(&l, words), NULL}};
	struct config_input input = {.layers = layers, .n_layers = 1, .default_host = "/sock", .default_port = "6000"};
	dbha_error mine = {0};
	int rc = dbha__config_init(out, &input, &mine);
	ck_assert_msg(rc == code, "%d: %s", rc, mine.message);
	ck_assert_int_eq(mine.code, code);
	if (err)
		*err = mine;
}

static const char *env_of_words(const char *name, void *data)
{
	for (const char *const *words = data; *words; words += 2)
		if (strcmp(words[0], name) == 0)
			return words[1];
	return NULL;
}

START_TEST(nothing_gives_the_defaults_and_one_node)
{
	struct config config;
	build(&config, NULL, DBHA_OK, NULL);
	ck_assert_int_eq(config.options.target_session_attrs, TARGET_PRIMARY);
	ck_assert_int_eq(config.options.call_timeout_ms, 30000);
	ck_assert_int_eq(config.n_nodes, 1);
	ck_assert_str_eq(config.nodes[0].host, "/sock");
	ck_assert_str_eq(config.nodes[0].name, "/sock:6000");
	ck_assert_ptr_null(config.nodes[0].hostaddr);
	dbha__config_fini(&config);
	dbha__config_fini(&config);
}
END_TEST

START_TEST(without_words_from_libpq_the_node_is_localhost)
{
	struct config config;
	struct config_input input = {0};
	ck_assert_int_eq(dbha__config_init(&config, &input, NULL), DBHA_OK);
	ck_assert_str_eq(config.nodes[0].name, "localhost:5432");
	dbha__config_fini(&config);
}
END_TEST

/* Each layer is removed in turn; the next one must win. */
START_TEST(precedence_of_layers_and_environment)
{
	struct layer l[3];
	struct config_layer layers[] = {{layer(&l[0], WORDS("call_timeout", "1s")), "a"},
	                                {layer(&l[1], WORDS("call_timeout", "2s")), "b"},
	                                {layer(&l[2], WORDS("call_timeout", "4s")), "c"}};
	const char *env[] = {"DBHA_CALL_TIMEOUT", "3s", NULL};
	struct config_input input = {layers, 3, 2, env_of_words, env, NULL, NULL};
	const int order[] = {1000, 2000, 3000, 4000, 30000};
	for (int i = 0; i < 5; i++) {
		struct config_options options;
		ck_assert_int_eq(dbha__config_read_options(&options, &input, NULL), DBHA_OK);
		ck_assert_int_eq(options.call_timeout_ms, order[i]);
		dbha__options_fini(&options);
		if (i < 2)
			l[i].pairs.n = 0;
		else if (i == 2)
			env[1] = ""; /* a variable set to nothing counts as not set */
		else
			l[2].pairs.n = 0;
	}
}
END_TEST

START_TEST(every_option_has_its_variable)
{
	static const char *const env[] = {"DBHA_TARGET_SESSION_ATTRS",
	                                  "standby",
	                                  "DBHA_CALL_TIMEOUT",
	                                  "11s",
	                                  "DBHA_CONNECT_TIMEOUT",
	                                  "12",
	                                  "DBHA_POOL_MIN_SIZE",
	                                  "13",
	                                  "DBHA_POOL_MAX_SIZE",
	                                  "14",
	                                  "DBHA_POOL_TIMEOUT",
	                                  "15ms",
	                                  "DBHA_POOL_MAX_WAITING",
	                                  "16",
	                                  "DBHA_POOL_MAX_IDLE",
	                                  "17s",
	                                  "DBHA_POOL_MAX_LIFETIME",
	                                  "18s",
	                                  "DBHA_POOL_MAX_CONNECTING",
	                                  "19",
	                                  "DBHA_PROBE_INTERVAL",
	                                  "20s",
	                                  "DBHA_PROBE_INTERVAL_FAST",
	                                  "21ms",
	                                  "DBHA_PROBE_TIMEOUT",
	                                  "22s",
	                                  "DBHA_PROBE_FAILURES",
	                                  "23",
	                                  "DBHA_MAX_LAG",
	                                  "24s",
	                                  "DBHA_RETRY_BACKOFF",
	                                  "25ms",
	                                  "DBHA_RETRY_BACKOFF_MAX",
	                                  "26s",
	                                  "DBHA_STATEMENT_CACHE_SIZE",
	                                  "27",
	                                  "DBHA_LOG_LEVEL",
	                                  "info",
	                                  "DBHA_LOG_FILE",
	                                  "/l",
	                                  NULL};
	struct config_input input = {.getenv = env_of_words, .getenv_data = (void *)(uintptr_t)env};
	struct config c;
	dbha_error err = {0};
	ck_assert_msg(dbha__config_init(&c, &input, &err) == DBHA_OK, "%s", err.message);
	const struct config_options *o = &c.options;
	ck_assert_int_eq(o->target_session_attrs, TARGET_STANDBY);
	const int got[] = {
	    o->call_timeout_ms,      o->connect_timeout_ms, o->pool_min_size,          o->pool_max_size,
	    o->pool_timeout_ms,      o->pool_max_waiting,   o->pool_max_idle_ms,       o->pool_max_lifetime_ms,
	    o->pool_max_connecting,  o->probe_interval_ms,  o->probe_interval_fast_ms, o->probe_timeout_ms,
	    o->probe_failures,       o->max_lag_ms,         o->retry_backoff_ms,       o->retry_backoff_max_ms,
	    o->statement_cache_size, o->log_level};
	const int want[] = {11000, 12000, 13, 14, 15, 16, 17000, 18000, 19, 20000, 21, 22000, 23, 24000, 25, 26000, 27, 3};
	for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
		ck_assert_msg(got[i] == want[i], "%zu: %d is not %d", i, got[i], want[i]);
	ck_assert_str_eq(o->log_file, "/l");
	dbha__config_fini(&c);
}
END_TEST

START_TEST(a_bad_variable_is_named)
{
	static const char *const env[] = {"DBHA_POOL_MAX_SIZE", "many", NULL};
	struct config_input input = {.getenv = env_of_words, .getenv_data = (void *)(uintptr_t)env};
	struct config c;
	dbha_error err;
	ck_assert_int_eq(dbha__config_init(&c, &input, &err), DBHA_ERR_CONFIG);
	ck_assert_str_eq(
	    err.message,
	    "pool_max_size: \"many\" from DBHA_POOL_MAX_SIZE is not accepted; accepted: 1 to 10000 (a whole number)");
}
END_TEST

/* What contradicts, the words that its message must hold, and a neighbour that is accepted. */
static const struct contradiction {
	const char *bad[6], *says[4], *good[6];
} contradictions[] = {
    {{"pool_min_size", "11"}, {"pool_min_size \"11\"", "pool_max_size \"10\""}, {"pool_min_size", "10"}},
    {{"pool_min_size", "3", "pool_max_size", "2"},
     {"pool_min_size \"3\"", "pool_max_size \"2\"", "accepted"},
     {"pool_min_size", "2", "pool_max_size", "2"}},
    {{"probe_interval_fast", "2s"},
     {"probe_interval_fast \"2s\"", "probe_interval \"1s\""},
     {"probe_interval_fast", "1s"}},
    {{"retry_backoff", "2s"}, {"retry_backoff \"2s\"", "retry_backoff_max \"1s\""}, {"retry_backoff", "1s"}},
    {{"retry_backoff_max", "9ms"},
     {"retry_backoff \"10ms\"", "retry_backoff_max \"9ms\""},
     {"retry_backoff_max", "10ms"}},
    {{"host", "a,b,c", "port", "1,2"}, {"port", "list of 2", "3 hosts"}, {"host", "a,b,c", "port", "1,2,3"}},
    {{"port", "1,2"}, {"port", "list of 2", "1 hosts"}, {"port", "1"}},
    {{"host", "a", "port", "1,2"}, {"port", "list of 2"}, {"host", "a,b,c", "port", "1"}},
    {{"hostaddr", "1.1.1.1,2.2.2.2", "port", "1,2,3"},
     {"port", "list of 3"},
     {"hostaddr", "1.1.1.1,2.2.2.2", "port", "1,2"}},
    {{"host", "a,b", "hostaddr", "1.1.1.1"},
     {"hostaddr", "list of 1", "list of 2"},
     {"host", "a,b", "hostaddr", "1.1.1.1,2.2.2.2"}},
    {{"host", "a", "hostaddr", "1.1.1.1,2.2.2.2"},
     {"hostaddr", "list of 2", "list of 1"},
     {"hostaddr", "1.1.1.1,2.2.2.2"}},
    {{"host", "a,b,a"}, {"host", "\"a:6000\"", "twice"}, {"host", "a,b,a", "port", "1,2,3"}},
    {{"host", "a,A"}, {"\"A:6000\"", "twice"}, {"host", "/a,/A"}},
    {{"host", "a,a", "port", "6000,06000"}, {"twice"}, {"host", "a,a", "port", "6000,6001"}},
    {{"host", "a,a", "port", "6000,"}, {"twice"}, {"host", "a,a", "port", "6001,"}},
    {{"host", ",/sock"}, {"twice"}, {"host", ",/sock2"}},
    {{"host", "a,b", "hostaddr", "1.1.1.1,1.1.1.1"}, {"twice"}, {"host", "a,a", "hostaddr", "1.1.1.1,1.1.1.2"}},
    {{"port", "0"}, {"port: \"0\"", "1 to 65535"}, {"port", "1"}},
    {{"port", "65536"}, {"port: \"65536\"", "1 to 65535"}, {"port", "65535"}},
    {{"port", "54x2"}, {"port: \"54x2\"", "1 to 65535"}, {"port", "05432"}},
    {{"port", "-1"}, {"port: \"-1\""}, {"host", "a,b", "port", ",1"}},
    {{"host", "a", "port", " 1"}, {"port: \" 1\""}, {"host", "a", "port", "1"}},
    {{"host", "a,b", "port", "1,99999999999999999999"}, {"entry 2"}, {"host", "a,b", "port", "1,"}},
    {{"host", "a b"}, {"host: entry 1"}, {"host", "/a b"}},
    {{"host", "ss@h"}, {"host: entry 1", "%40"}, {"host", "@abstract"}},
    {{"host", "a,h:5433"}, {"host: entry 2", "port"}, {"host", "a,::1,fe80::1%eth0"}},
    {{"host", "a/b"}, {"host: entry 1"}, {"host", "a-b.example."}},
    {{"hostaddr", "name"}, {"hostaddr: entry 1"}, {"hostaddr", "fe80::1%eth0"}},
    {{"fence_file", "fence"}, {"fence_file: \"fence\"", "absolute"}, {"fence_file", "/var/lib/app/fence"}},
    {{"outcome_table", "a.b.c"}, {"outcome_table: \"a.b.c\"", "SCHEMA.TABLE"}, {"outcome_table", "a.\"B; c\""}},
    {{"outcome_table", ".a"}, {"outcome_table: \".a\""}, {"outcome_table", "a"}},
    {{"outcome_table", "a."}, {"outcome_table: \"a.\""}, {"outcome_table", "a"}},
    {{"outcome_table", "a\nb"}, {"outcome_table: \"a?b\""}, {"outcome_table", "a b"}},
    {{"outcome_table", "a123456789012345678901234567890123456789012345678901234567890123"},
     {"outcome_table:", "63"},
     {"outcome_table", "a12345678901234567890123456789012345678901234567890123456789012"}},
    {{"accept_cluster", "7"}, {"accept_cluster \"7\"", "fence_file"}, {"accept_cluster", "7", "fence_file", "/f"}},
    {{"consistency", "bounded"},
     {"consistency \"bounded\"", "max_lag", "16MB"},
     {"consistency", "bounded", "max_lag", "1B"}},
    {{"consistency", "bounded", "max_lag", "2s"},
     {"max_lag \"2s\"", "probe_interval \"1s\"", "twice"},
     {"consistency", "bounded", "max_lag", "2001ms"}},
    {{"consistency", "bounded", "max_lag", "400ms", "probe_interval", "200ms"},
     {"max_lag \"400ms\"", "probe_interval \"200ms\""},
     {"consistency", "bounded", "max_lag", "401ms", "probe_interval", "200ms"}},
    {{"consistency", "bounded", "max_lag", "1ms"}, {"max_lag \"1ms\""}, {"consistency", "session", "max_lag", "1ms"}},
    {{"read_functions", "lazy, to;tal"},
     {"read_functions: \"lazy, to;tal\"", "at \";tal\""},
     {"read_functions", "lazy, total*"}},
    {{"write_functions", "a*b"}, {"write_functions: \"a*b\"", "at \"*b\""}, {"write_functions", "b.a$*"}},
};

START_TEST(contradictions_are_refused)
{
	const struct contradiction *c = &contradictions[_i];
	struct config config;
	dbha_error err;
	build(&config, c->bad, DBHA_ERR_CONFIG, &err);
	for (int i = 0; i < 4 && c->says[i]; i++)
		ck_assert_msg(strstr(err.message, c->says[i]), "no %s in: %s", c->says[i], err.message);
	/* Nothing is left behind, and the neighbour passes. */
	ck_assert_int_eq(config.n_nodes, 0);
	ck_assert_ptr_null(config.pairs);
	build(&config, c->good, DBHA_OK, NULL);
	dbha__config_fini(&config);
}
END_TEST

START_TEST(routing_by_statement_needs_the_parser)
{
	struct config config;
	dbha_error err;
	build(&config, WORDS("routing", "intent"), DBHA_OK, NULL);
	dbha__config_fini(&config);
	if (dbha__classify_available()) {
		build(&config, WORDS("routing", "auto"), DBHA_OK, NULL);
		ck_assert_int_eq(config.options.routing, ROUTING_AUTO);
		dbha__config_fini(&config);
		return;
	}
	build(&config, WORDS("routing", "auto"), DBHA_ERR_CONFIG, &err);
	ck_assert_ptr_nonnull(strstr(err.message, "routing: \"auto\""));
	ck_assert_ptr_nonnull(strstr(err.message, "--with-pg-query"));
	ck_assert_ptr_nonnull(strstr(err.message, "apt-get install libpg-query-dev"));
}
END_TEST

START_TEST(a_later_set_may_mend_options_that_contradict)
{
	struct layer l;
	struct config_layer layers[] = {{layer(&l, WORDS("pool_min_size", "50")), NULL}};
	struct config_input input = {.layers = layers, .n_layers = 1};
	ck_assert_int_eq(dbha__config_check(&input, NULL), DBHA_OK);
	layer(&l, WORDS("pool_min_size", "5000"));
	ck_assert_int_eq(dbha__config_check(&input, NULL), DBHA_ERR_CONFIG);
	layer(&l, WORDS("port", "x"));
	ck_assert_int_eq(dbha__config_check(&input, NULL), DBHA_ERR_CONFIG);
}
END_TEST

/* hosts h1,h2,...,hn */
static const char *host_list(char *out, int n)
{
	char *at = out;
	for (int i = 1; i <= n; i++)
		at += sprintf(at, "%sh%d", i > 1 ? "," : "", i);
	return out;
}

START_TEST(the_number_of_nodes_is_limited)
{
	char list[400];
	struct config config;
	dbha_error err;
	build(&config, WORDS("host", host_list(list, CONFIG_NODES_MAX)), DBHA_OK, NULL);
	ck_assert_int_eq(config.n_nodes, CONFIG_NODES_MAX);
	ck_assert_str_eq(config.nodes[31].name, "h32:6000");
	dbha__config_fini(&config);
	build(&config, WORDS("host", host_list(list, CONFIG_NODES_MAX + 1)), DBHA_ERR_CONFIG, &err);
	ck_assert_ptr_nonnull(strstr(err.message, "33"));
	ck_assert_ptr_nonnull(strstr(err.message, "at most 32"));
}
END_TEST

static const struct nodes {
	const char *words[7];
	const char *names[4];
} node_cases[] = {
    {{"host", "a"}, {"a:6000"}},
    {{"host", "a,b", "port", "1"}, {"a:1", "b:1"}},
    {{"host", "a,b", "port", "1,2"}, {"a:1", "b:2"}},
    {{"host", "a,,b", "port", ",2,"}, {"a:6000", "/sock:2", "b:6000"}},
    {{"host", ""}, {"/sock:6000"}},
    {{"host", ",", "port", "1,2"}, {"/sock:1", "/sock:2"}},
    {{"host", "::1,fe80::2%eth0"}, {"[::1]:6000", "[fe80::2%eth0]:6000"}},
    {{"host", "/a:b,@x:y"}, {"/a:b:6000", "@x:y:6000"}},
    {{"hostaddr", "10.0.0.1,::2"}, {"10.0.0.1:6000", "[::2]:6000"}},
    {{"host", "a,,c", "hostaddr", "10.0.0.1,10.0.0.2,"}, {"a:6000", "10.0.0.2:6000", "c:6000"}},
    {{"host", "a,a", "hostaddr", "10.0.0.1,10.0.0.2"}, {"10.0.0.1:6000", "10.0.0.2:6000"}},
    {{"host", "a,a", "hostaddr", "10.0.0.1,"}, {"10.0.0.1:6000", "a:6000"}},
};

START_TEST(nodes_have_names_people_know)
{
	const struct nodes *n = &node_cases[_i];
	struct config config;
	build(&config, n->words, DBHA_OK, NULL);
	int i = 0;
	for (; n->names[i]; i++)
		ck_assert_msg(i < config.n_nodes && strcmp(config.nodes[i].name, n->names[i]) == 0, "%s", config.nodes[i].name);
	ck_assert_int_eq(config.n_nodes, i);
	dbha__config_fini(&config);
}
END_TEST

START_TEST(a_long_host_keeps_its_end_and_its_port)
{
	char host[300];
	struct config config;
	memset(host, 'x', sizeof host);
	strcpy(host + 250, ".example");
	build(&config, WORDS("host", host, "port", "54321"), DBHA_OK, NULL);
	ck_assert_str_eq(config.nodes[0].host, host);
	ck_assert_uint_lt(strlen(config.nodes[0].name), DBHA_NODE_NAME_MAX);
	ck_assert_ptr_nonnull(strstr(config.nodes[0].name, ".example:54321"));
	ck_assert_int_eq(strncmp(config.nodes[0].name, "...x", 4), 0);
	dbha__config_fini(&config);
}
END_TEST

static const char *pair(const struct config *config, const char *keyword)
{
	return dbha__pairs_get(&(struct config_pairs){config->pairs, config->n_pairs}, keyword);
}

START_TEST(libpq_gets_the_rest_and_nothing_of_ours)
{
	struct layer l[2];
	struct config_layer layers[] = {{layer(&l[0], WORDS("user", "u", "dbname", "", "sslmode", "require")), NULL},
	                                {layer(&l[1], WORDS("dbname", "d", "user", "v", "host", "a", "port", "1",
	                                                    "connect_timeout", "3", "target_session_attrs", "standby")),
	                                 NULL}};
	struct config_input input = {.layers = layers, .n_layers = 2};
	struct config config;
	ck_assert_int_eq(dbha__config_init(&config, &input, NULL), DBHA_OK);
	ck_assert_str_eq(pair(&config, "user"), "u");
	ck_assert_str_eq(pair(&config, "dbname"), "d"); /* an empty value hides nothing */
	ck_assert_str_eq(pair(&config, "sslmode"), "require");
	ck_assert_str_eq(pair(&config, "fallback_application_name"), "dbha");
	ck_assert_str_eq(pair(&config, "target_session_attrs"), "any");
	ck_assert_str_eq(pair(&config, "tcp_user_timeout"), "15000");
	ck_assert_int_eq(config.n_pairs, 9);
	ck_assert_int_eq(config.options.target_session_attrs, TARGET_STANDBY);
	ck_assert_int_eq(config.options.connect_timeout_ms, 3000);
	dbha__config_fini(&config);
}
END_TEST

START_TEST(a_given_fallback_name_stays)
{
	struct config config;
	build(&config, WORDS("fallback_application_name", "mine"), DBHA_OK, NULL);
	ck_assert_str_eq(pair(&config, "fallback_application_name"), "mine");
	dbha__config_fini(&config);
}
END_TEST

START_TEST(keepalives_that_are_set_stay)
{
	struct config config;
	build(&config, WORDS("tcp_user_timeout", "0", "keepalives_idle", "77"), DBHA_OK, NULL);
	ck_assert_str_eq(pair(&config, "tcp_user_timeout"), "0");
	ck_assert_str_eq(pair(&config, "keepalives_idle"), "77");
	ck_assert_str_eq(pair(&config, "keepalives_interval"), "3");
	ck_assert_str_eq(pair(&config, "keepalives_count"), "3");
	dbha__config_fini(&config);
}
END_TEST

START_TEST(a_profile_moves_defaults_and_nothing_else)
{
	struct config config;
	build(&config, WORDS("probe_profile", "aggressive"), DBHA_OK, NULL);
	ck_assert_int_eq(config.options.probe_interval_ms, 250);
	ck_assert_int_eq(config.options.probe_timeout_ms, 200);
	ck_assert_int_eq(config.options.probe_failures, 3);
	dbha__config_fini(&config);
	build(&config, WORDS("probe_profile", "aggressive", "probe_timeout", "300ms"), DBHA_OK, NULL);
	ck_assert_int_eq(config.options.probe_interval_ms, 250);
	ck_assert_int_eq(config.options.probe_timeout_ms, 300);
	dbha__config_fini(&config);
}
END_TEST

START_TEST(a_copy_shares_nothing)
{
	struct config a, b;
	build(&a,
	      WORDS("host", "x,y", "hostaddr", ",10.0.0.1", "password", PASSWORD, "log_file", "/l", "pool_max_size", "7",
	            "write_functions", "audit", "max_lag", "3MB"),
	      DBHA_OK, NULL);
	ck_assert_int_eq(dbha__config_copy(&b, &a, NULL), DBHA_OK);
	ck_assert_ptr_ne(a.pairs, b.pairs);
	dbha__config_fini(&a);
	ck_assert_int_eq(b.n_nodes, 2);
	ck_assert_str_eq(b.nodes[0].host, "x");
	ck_assert_ptr_null(b.nodes[0].hostaddr);
	ck_assert_str_eq(b.nodes[1].hostaddr, "10.0.0.1");
	ck_assert_str_eq(b.nodes[1].name, "y:6000");
	ck_assert_str_eq(b.nodes[1].port, "6000");
	ck_assert_str_eq(pair(&b, "password"), PASSWORD);
	ck_assert_str_eq(b.options.log_file, "/l");
	ck_assert_int_eq(b.options.pool_max_size, 7);
	ck_assert_str_eq(b.options.write_functions, "audit");
	ck_assert_int_eq(b.options.max_lag_bytes, 3 << 20);
	dbha__config_fini(&b);
}
END_TEST

START_TEST(pairs_replace_and_keep_order)
{
	struct config_pairs pairs = {0};
	ck_assert_int_eq(dbha__pairs_set(&pairs, "a", "1", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__pairs_set(&pairs, "b", "2", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__pairs_set(&pairs, "a", "3", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__pairs_set(&pairs, "c", "", NULL), DBHA_OK);
	ck_assert_int_eq(pairs.n, 3);
	ck_assert_str_eq(pairs.items[0].value, "3");
	ck_assert_str_eq(dbha__pairs_get(&pairs, "b"), "2");
	ck_assert_ptr_null(dbha__pairs_get(&pairs, "c"));
	ck_assert_ptr_null(dbha__pairs_get(&pairs, "d"));
	dbha__pairs_fini(&pairs);
	ck_assert_int_eq(pairs.n, 0);
}
END_TEST

/* ---- The public calls ---- */

static char service_path[] = "/tmp/dbha-service-XXXXXX";

/* Every test starts without a variable that matters (each runs in a process of its own). */
static void clean_environment(void)
{
	static const char *const prefixes[] = {"PG", "DB_", "DBHA_", "DATABASE_URL"};
	extern char **environ;
	for (char **at = environ; *at;) {
		char name[256];
		bool drop = false;
		snprintf(name, sizeof name, "%.*s", (int)strcspn(*at, "="), *at);
		for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
			drop = drop || strncmp(name, prefixes[i], strlen(prefixes[i])) == 0;
		if (drop)
			unsetenv(name);
		at = drop ? environ : at + 1;
	}
	setenv("HOME", "/nonexistent", 1);
	setenv("PGSYSCONFDIR", "/nonexistent", 1);
}

static void write_service(const char *text)
{
	int fd = mkstemp(service_path);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	setenv("PGSERVICEFILE", service_path, 1);
}

static void remove_service(void)
{
	unlink(service_path);
}

static dbha_config *make(const char *text)
{
	dbha_error err = {0};
	dbha_config *config = dbha_config_new(text, &err);
	ck_assert_msg(config, "%s: %s", text ? text : "NULL", err.message);
	return config;
}

static void check_get(dbha_config *config, const char *name, const char *want)
{
	const char *got = dbha_config_get(config, name);
	ck_assert_msg(want ? got && strcmp(got, want) == 0 : !got, "%s is %s, not %s", name, got ? got : "NULL",
	              want ? want : "NULL");
}

START_TEST(null_is_refused_or_allowed_as_documented)
{
	dbha_error err = {0};
	dbha_config *config = dbha_config_new(NULL, NULL);
	ck_assert_ptr_nonnull(config);
	ck_assert_int_eq(dbha_config_set(NULL, "host", "a", &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(err.code, DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_config_set(config, NULL, "a", &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_config_set(config, "host", NULL, &err), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_config_set(config, "host", NULL, NULL), DBHA_ERR_USAGE);
	ck_assert_int_eq(dbha_config_set(config, "nonsense", "1", NULL), DBHA_ERR_CONFIG);
	ck_assert_ptr_null(dbha_config_get(NULL, "host"));
	ck_assert_ptr_null(dbha_config_get(config, NULL));
	ck_assert_ptr_null(dbha_config_get(config, "nonsense"));
	ck_assert_ptr_null(dbha_config_new("nonsense", NULL));
	ck_assert_ptr_null(dbha_option(-1));
	ck_assert_ptr_null(dbha_option(1000));
	dbha_config_free(NULL);
	dbha_config_free(config);
}
END_TEST

START_TEST(options_can_be_listed)
{
	int n = 0;
	bool seen = false;
	for (; dbha_option(n); n++) {
		const dbha_option_info *info = dbha_option(n);
		ck_assert(info->name && info->type && info->default_value && info->accepted && info->text);
		seen = seen || strcmp(info->name, "retry_backoff_max") == 0;
	}
	ck_assert_int_eq(n, 36);
	ck_assert(seen);
}
END_TEST

/* All layers of an own option that libpq has too; the highest is taken away, and the next one must show. */
START_TEST(precedence_with_a_text)
{
	write_service("[s]\nconnect_timeout=7\n");
	setenv("DBHA_CONNECT_TIMEOUT", "4s", 1);
	setenv("PGSERVICE", "s", 1);
	setenv("PGCONNECT_TIMEOUT", "6", 1);
	setenv("DATABASE_URL", "postgresql://other/?connect_timeout=99", 1);
	setenv("DB_HOST", "another", 1);

	dbha_config *config = make("host=a connect_timeout=3");
	check_get(config, "connect_timeout", "3s");
	check_get(config, "host", "a");
	ck_assert_int_eq(dbha_config_set(config, "connect_timeout", "2", NULL), DBHA_OK);
	check_get(config, "connect_timeout", "2s");
	dbha_config_free(config);

	static const char *const order[][2] = {
	    {"DBHA_CONNECT_TIMEOUT", "4s"}, {"PGSERVICE", "7s"}, {"PGCONNECT_TIMEOUT", "6s"}, {"", "5s"}};
	for (size_t i = 0; i < 4; i++) {
		config = make("host=a");
		check_get(config, "connect_timeout", order[i][1]); /* the last one is the default */
		dbha_config_free(config);
		unsetenv(order[i][0]);
	}
	remove_service();
}
END_TEST

START_TEST(precedence_without_a_text)
{
	setenv("DBHA_CALL_TIMEOUT", "1s", 1);
	setenv("DATABASE_URL", "postgresql+psycopg://url/db?call_timeout=2s&pool_max_size=3", 1);
	setenv("DB_HOST", "h1,h2", 1);
	setenv("PGHOST", "pg", 1);
	setenv("PGDATABASE", "pgdb", 1);

	dbha_config *config = make("");
	check_get(config, "host", "url");
	check_get(config, "dbname", "db");
	check_get(config, "call_timeout", "1s"); /* DBHA_* is above DATABASE_URL */
	check_get(config, "pool_max_size", "3");
	dbha_config_free(config);

	unsetenv("DBHA_CALL_TIMEOUT");
	config = make(NULL);
	check_get(config, "call_timeout", "2s");
	dbha_config_free(config);

	setenv("DATABASE_URL", "", 1);
	config = make(NULL);
	check_get(config, "host", "h1,h2");
	check_get(config, "dbname", "pgdb");
	check_get(config, "call_timeout", "30s");
	dbha_config_free(config);

	unsetenv("DB_HOST");
	config = make(NULL);
	check_get(config, "host", "pg");
	dbha_config_free(config);
}
END_TEST

START_TEST(precedence_of_a_libpq_keyword)
{
	write_service("[s]\ndbname=by_service\nsslmode=prefer\n");
	setenv("PGSERVICE", "s", 1);
	setenv("PGDATABASE", "by_pg", 1);
	setenv("PGSSLMODE", "require", 1);
	setenv("DB_NAME", "by_db", 1);
	dbha_config *config = make("dbname=by_text");
	check_get(config, "dbname", "by_text");
	/* libpq's default, but the service says it against a variable, so that it must be passed on. */
	check_get(config, "sslmode", "prefer");
	ck_assert_int_eq(dbha_config_set(config, "dbname", "by_set", NULL), DBHA_OK);
	check_get(config, "dbname", "by_set");
	dbha_config_free(config);

	static const char *const order[][2] = {{"DB_NAME", "by_db"}, {"PGSERVICE", "by_service"}, {"PGDATABASE", "by_pg"}};
	for (size_t i = 0; i < 3; i++) {
		config = make(NULL);
		check_get(config, "dbname", order[i][1]);
		dbha_config_free(config);
		unsetenv(order[i][0]);
	}
	remove_service();
}
END_TEST

START_TEST(db_variables_make_a_cluster)
{
	struct config built;
	setenv("DB_HOST", "h1,h2,h3", 1);
	setenv("DB_PORT", "6432", 1);
	setenv("DB_NAME", "app", 1);
	setenv("DB_USER", "me", 1);
	setenv("DB_PASS", "p@ss word/%41", 1);
	dbha_config *config = make(NULL);
	ck_assert_int_eq(dbha__config_build(config, &built, NULL), DBHA_OK);
	ck_assert_int_eq(built.n_nodes, 3);
	ck_assert_str_eq(built.nodes[2].name, "h3:6432");
	ck_assert_str_eq(pair(&built, "dbname"), "app");
	ck_assert_str_eq(pair(&built, "user"), "me");
	ck_assert_str_eq(pair(&built, "password"), "p@ss word/%41");
	dbha__config_fini(&built);
	dbha_config_free(config);
}
END_TEST

/* What is wrong in the environment, and what the message names. */
static const struct bad_environment {
	const char *name, *value, *says;
} bad_environments[] = {
    {"DBHA_CALL_TIMEOUT", "soon", "from DBHA_CALL_TIMEOUT"},
    {"DATABASE_URL", "postgresql://h/db?pool_max_size=0", "DATABASE_URL"},
    {"DATABASE_URL", "postgresql://u:" PASSWORD "@x@h/db", "DATABASE_URL"},
    {"DATABASE_URL", "mysql://u:" PASSWORD "@h/db", "DATABASE_URL"},
    {"DB_PORT", "54x2", "port: \"54x2\""},
    {"DB_PORT", "1,2", "DB_*"},
    {"DB_HOST", "a, b", "host: entry 2"},
    {"PGCONNECT_TIMEOUT", "0", "libpq's environment"},
    {"PGTARGETSESSIONATTRS", "master", "target_session_attrs: \"master\""},
    {"PGSSLMODE", "maybe", "invalid sslmode value: \"maybe\""},
    {"PGSERVICE", "none", "service"},
    {"PGPORT", "1,2", "port: the list of 2"},
};

START_TEST(a_bad_environment_is_refused_by_name)
{
	const struct bad_environment *b = &bad_environments[_i];
	dbha_error err = {0};
	setenv(b->name, b->value, 1);
	ck_assert_ptr_null(dbha_config_new(NULL, &err));
	ck_assert_int_eq(err.code, DBHA_ERR_CONFIG);
	ck_assert_msg(strstr(err.message, b->says), "%s", err.message);
	ck_assert_ptr_null(strstr(err.message, PASSWORD));
}
END_TEST

START_TEST(target_session_attrs_has_our_default_and_all_values)
{
	static const char *const words[] = {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"};
	char text[200];
	for (int i = 0; i < 6; i++) {
		struct config built;
		snprintf(text, sizeof text, "postgresql://h/db?target_session_attrs=%s", words[i]);
		dbha_config *config = make(text);
		ck_assert_int_eq(dbha__config_build(config, &built, NULL), DBHA_OK);
		ck_assert_int_eq(built.options.target_session_attrs, i);
		ck_assert_str_eq(pair(&built, "target_session_attrs"), "any");
		check_get(config, "target_session_attrs", words[i]);
		dbha__config_fini(&built);
		dbha_config_free(config);
	}
	dbha_config *config = make("postgresql://h/db");
	check_get(config, "target_session_attrs", "primary");
	dbha_config_free(config);

	setenv("PGTARGETSESSIONATTRS", "any", 1);
	config = make("postgresql://h/db");
	check_get(config, "target_session_attrs", "any");
	dbha_config_free(config);
}
END_TEST

static const struct setting {
	const char *name, *value, *says; /* says NULL: accepted */
} settings[] = {
    {"call_timeout", "7s", NULL},
    {"call_timeout", "7x", "call_timeout: \"7x\""},
    {"call_timeout", "", "call_timeout: \"\""},
    {"log_file", "stderr", NULL},
    {"host", "a,b", NULL},
    {"host", "a b", "host: entry 1"},
    {"port", "1,2", NULL}, /* lengths are compared later, when both lists can be known */
    {"port", "1,x", "port: \"x\""},
    {"hostaddr", "1.2.3.4", NULL},
    {"hostaddr", "name", "hostaddr: entry 1"},
    {"sslmode", "verify-full", NULL},
    {"sslmode", "sometimes", "sslmode: \"sometimes\""},
    {"channel_binding", "maybe", "channel_binding: \"maybe\""},
    {"gssencmode", "maybe", "gssencmode: \"maybe\""},
    {"service", "nope", "\"nope\""},
    {"dbname", "x y'z", NULL},
    {"password", PASSWORD, NULL},
    {"application_name", "app", NULL},
    {"sslmod", "require", "did you mean sslmode?"},
    {"pool_size", "3", "did you mean pool_max_size?"},
    {"load_balance_hosts", "random", NULL},
    {"load_balance_hosts", "even", "load_balance_hosts: \"even\""},
    {"", "x", "unknown option \"\""},
};

START_TEST(set_validates_at_once_and_keeps_the_old_value)
{
	const struct setting *s = &settings[_i];
	dbha_error err = {0};
	dbha_config *config = make("postgresql://old/db?call_timeout=9s");
	char before[200];
	const char *got = dbha_config_get(config, s->name);
	snprintf(before, sizeof before, "%s", got ? got : "NULL");
	int rc = dbha_config_set(config, s->name, s->value, &err);
	if (s->says) {
		ck_assert_int_eq(rc, DBHA_ERR_CONFIG);
		ck_assert_msg(strstr(err.message, s->says), "%s", err.message);
		got = dbha_config_get(config, s->name);
		ck_assert_str_eq(got ? got : "NULL", before);
	} else {
		ck_assert_msg(rc == DBHA_OK, "%s", err.message);
		check_get(config, s->name, strcmp(s->name, "password") == 0 ? "********" : s->value);
	}
	dbha_config_free(config);
}
END_TEST

START_TEST(contradictions_show_at_build_and_can_be_mended)
{
	struct config built;
	dbha_error err = {0};
	dbha_config *config = make("host=a,b port=1,2 pool_min_size=20");
	ck_assert_int_eq(dbha__config_build(config, &built, &err), DBHA_ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.message, "pool_min_size \"20\""));
	ck_assert_int_eq(dbha_config_set(config, "pool_max_size", "30", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__config_build(config, &built, &err), DBHA_OK);
	dbha__config_fini(&built);
	ck_assert_int_eq(dbha_config_set(config, "host", "a,b,c", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__config_build(config, &built, &err), DBHA_ERR_CONFIG);
	ck_assert_ptr_nonnull(strstr(err.message, "port: the list of 2"));
	check_get(config, "pool_max_size", "30");
	ck_assert_int_eq(dbha_config_set(config, "port", "1", NULL), DBHA_OK);
	ck_assert_int_eq(dbha__config_build(config, &built, &err), DBHA_OK);
	ck_assert_int_eq(built.n_nodes, 3);
	dbha__config_fini(&built);
	dbha_config_free(config);
}
END_TEST

START_TEST(secrets_are_never_shown)
{
	setenv("PGSSLMODE", "prefer", 1);
	dbha_config *config = make("postgresql://u:" PASSWORD "@h/db?sslpassword=" PASSWORD);
	check_get(config, "password", "********");
	check_get(config, "sslpassword", "********");
	check_get(config, "user", "u");
	dbha_config_free(config);
	config = make("host=h");
	check_get(config, "password", NULL);
	dbha_config_free(config);
	setenv("PGPASSWORD", PASSWORD, 1);
	config = make("host=h");
	check_get(config, "password", "********");
	dbha_config_free(config);
}
END_TEST

static TCase *policy_case(void)
{
	TCase *tcase = tcase_create("policy");
	tcase_add_test(tcase, nothing_gives_the_defaults_and_one_node);
	tcase_add_test(tcase, without_words_from_libpq_the_node_is_localhost);
	tcase_add_test(tcase, precedence_of_layers_and_environment);
	tcase_add_test(tcase, every_option_has_its_variable);
	tcase_add_test(tcase, a_bad_variable_is_named);
	tcase_add_loop_test(tcase, contradictions_are_refused, 0, sizeof contradictions / sizeof contradictions[0]);
	tcase_add_test(tcase, routing_by_statement_needs_the_parser);
	tcase_add_test(tcase, a_later_set_may_mend_options_that_contradict);
	tcase_add_test(tcase, the_number_of_nodes_is_limited);
	tcase_add_loop_test(tcase, nodes_have_names_people_know, 0, sizeof node_cases / sizeof node_cases[0]);
	tcase_add_test(tcase, a_long_host_keeps_its_end_and_its_port);
	tcase_add_test(tcase, libpq_gets_the_rest_and_nothing_of_ours);
	tcase_add_test(tcase, a_given_fallback_name_stays);
	tcase_add_test(tcase, keepalives_that_are_set_stay);
	tcase_add_test(tcase, a_profile_moves_defaults_and_nothing_else);
	tcase_add_test(tcase, a_copy_shares_nothing);
	tcase_add_test(tcase, pairs_replace_and_keep_order);
	return tcase;
}

static TCase *public_case(void)
{
	TCase *tcase = tcase_create("public");
	tcase_add_checked_fixture(tcase, clean_environment, NULL);
	tcase_add_test(tcase, null_is_refused_or_allowed_as_documented);
	tcase_add_test(tcase, options_can_be_listed);
	tcase_add_test(tcase, precedence_with_a_text);
	tcase_add_test(tcase, precedence_without_a_text);
	tcase_add_test(tcase, precedence_of_a_libpq_keyword);
	tcase_add_test(tcase, db_variables_make_a_cluster);
	tcase_add_loop_test(tcase, a_bad_environment_is_refused_by_name, 0,
	                    sizeof bad_environments / sizeof bad_environments[0]);
	tcase_add_test(tcase, target_session_attrs_has_our_default_and_all_values);
	tcase_add_loop_test(tcase, set_validates_at_once_and_keeps_the_old_value, 0, sizeof settings / sizeof settings[0]);
	tcase_add_test(tcase, contradictions_show_at_build_and_can_be_mended);
	tcase_add_test(tcase, secrets_are_never_shown);
	return tcase;
}

static Suite *config_suite(void)
{
	Suite *suite = suite_create("config");
	suite_add_tcase(suite, policy_case());
	suite_add_tcase(suite, public_case());
	return suite;
}

UNIT_MAIN(config_suite)
