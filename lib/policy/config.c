/*
 * config: layers of keyword/value pairs -> struct config. Precedence and contradictions are decided here.
 */
#include "config.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "classify.h"
#include "error.h"
#include "option.h"
#include "outcome_table.h"

/* ---- Pairs ---- */

static struct config_pair *pair_find(const struct config_pairs *pairs, const char *keyword)
{
	for (int i = 0; i < pairs->n; i++)
		if (strcmp(pairs->items[i].keyword, keyword) == 0)
			return &pairs->items[i];
	return NULL;
}

static int pair_append(struct config_pairs *pairs, const char *keyword, char *value, dbha_error *err)
{
	struct config_pair *items = realloc(pairs->items, (size_t)(pairs->n + 1) * sizeof *items);
	if (!items)
		return dbha__no_memory(err);
	pairs->items = items;
	items[pairs->n].keyword = strdup(keyword);
	items[pairs->n].value = value;
	if (!items[pairs->n].keyword)
		return dbha__no_memory(err);
	pairs->n++;
	return DBHA_OK;
}

int dbha__pairs_set(struct config_pairs *pairs, const char *keyword, const char *value, dbha_error *err)
{
	struct config_pair *pair = pair_find(pairs, keyword);
	char *copy = strdup(value);
	if (!copy)
		return dbha__no_memory(err);
	if (pair) {
		free(pair->value);
		pair->value = copy;
		return DBHA_OK;
	}
	int rc = pair_append(pairs, keyword, copy, err);
	if (rc != DBHA_OK)
		free(copy);
	return rc;
}

const char *dbha__pairs_get(const struct config_pairs *pairs, const char *keyword)
{
	const struct config_pair *pair = pair_find(pairs, keyword);
	return pair && *pair->value ? pair->value : NULL;
}

void dbha__pairs_fini(struct config_pairs *pairs)
{
	for (int i = 0; i < pairs->n; i++) {
		free(pairs->items[i].keyword);
		free(pairs->items[i].value);
	}
	free(pairs->items);
	*pairs = (struct config_pairs){0};
}

/* ---- Precedence ---- */

struct found {
	const char *value; /* NULL: in no layer */
	const char *origin;
};

static struct found find_in_layers(const struct config_input *input, const char *keyword, int first, int end)
{
	struct found found = {0};
	for (int i = first; i < end && !found.value; i++) {
		/* Not dbha__pairs_get: an own option that was set to nothing is a mistake to be refused. */
		const struct config_pair *pair = pair_find(input->layers[i].pairs, keyword);
		if (pair && (*pair->value || dbha__option_find(keyword)))
			found = (struct found){pair->value, input->layers[i].origin};
	}
	return found;
}

/* The value of an own option; env gets the variable's name, to which the answer may point. */
static struct found find_option(const struct config_input *input, const struct option *option, char env[OPTION_ENV_MAX])
{
	dbha__option_env(option, env);
	struct found found = find_in_layers(input, option->info.name, 0, input->env_rank);
	if (!found.value && input->getenv) {
		const char *value = input->getenv(env, input->getenv_data);
		if (value && *value)
			found = (struct found){value, env};
	}
	return found.value ? found : find_in_layers(input, option->info.name, input->env_rank, input->n_layers);
}

static const char *find_keyword(const struct config_input *input, const char *keyword)
{
	return find_in_layers(input, keyword, 0, input->n_layers).value;
}

int dbha__config_read_options(struct config_options *out, const struct config_input *input, dbha_error *err)
{
	const struct option *option;
	int rc = dbha__options_init(out, err);
	for (int i = 0; rc == DBHA_OK && (option = dbha__option_at(i)); i++) {
		char env[OPTION_ENV_MAX];
		struct found found = find_option(input, option, env);
		if (!found.value)
			found.value = dbha__option_of_profile(option, out->probe_profile);
		if (found.value)
			rc = dbha__option_parse(option, found.value, found.origin, out, err);
	}
	if (rc != DBHA_OK)
		dbha__options_fini(out);
	return rc;
}

/* ---- Contradictions between options ---- */

/* The first one of each pair may not be greater than the second. */
static const char *const orders[][2] = {
    {"pool_min_size", "pool_max_size"},
    {"probe_interval_fast", "probe_interval"},
    {"retry_backoff", "retry_backoff_max"},
};

static int check_order(const struct config_options *options, const char *low_name, const char *high_name,
                       dbha_error *err)
{
	const struct option *low = dbha__option_find(low_name), *high = dbha__option_find(high_name);
	const char *base = (const char *)options;
	char low_text[OPTION_PRINT_MAX], high_text[OPTION_PRINT_MAX];
	if (*(const int *)(const void *)(base + low->offset) <= *(const int *)(const void *)(base + high->offset))
		return DBHA_OK;
	return dbha__fail(err, DBHA_ERR_CONFIG, "%s \"%s\" contradicts %s \"%s\"; accepted: %s not greater than %s",
	                  low_name, dbha__option_print(low, options, low_text), high_name,
	                  dbha__option_print(high, options, high_text), low_name, high_name);
}

static int check_orders(const struct config_options *options, dbha_error *err)
{
	int rc = DBHA_OK;
	for (size_t i = 0; rc == DBHA_OK && i < sizeof orders / sizeof orders[0]; i++)
		rc = check_order(options, orders[i][0], orders[i][1], err);
	return rc;
}

/* A relative path would be another file in each directory that a service is started in, and so no fence. */
static int check_fence(const struct config_options *options, dbha_error *err)
{
	if (options->fence_file && options->fence_file[0] != '/')
		return dbha__fail(err, DBHA_ERR_CONFIG, "fence_file: \"%s\" is not accepted; accepted: an absolute path",
		                  dbha__option_shown(options->fence_file).text);
	if (options->accept_cluster && !options->fence_file)
		return dbha__fail(
		    err, DBHA_ERR_CONFIG,
		    "accept_cluster \"%llu\" contradicts fence_file, which is not set: without it nothing remembers "
		    "another cluster",
		    (unsigned long long)options->accept_cluster);
	return DBHA_OK;
}

static int check_outcome_table(const struct config_options *options, dbha_error *err)
{
	char quoted[OUTCOME_TABLE_MAX];
	if (!options->outcome_table || dbha__outcome_table_quote(options->outcome_table, quoted))
		return DBHA_OK;
	return dbha__fail(
	    err, DBHA_ERR_CONFIG,
	    "outcome_table: \"%s\" is not accepted; accepted: TABLE or SCHEMA.TABLE, taken literally, each 1 to %d bytes "
	    "without a dot",
	    dbha__option_shown(options->outcome_table).text, OUTCOME_NAME_BYTES);
}

/* What is known of a standby is up to a probe_interval old, and the bound counts that age: a short one would leave no standby. */
static int check_bounded(const struct config_options *options, dbha_error *err)
{
	char lag[OPTION_PRINT_MAX], interval[OPTION_PRINT_MAX];
	if (options->consistency + DBHA_CONSISTENCY_SESSION != DBHA_CONSISTENCY_BOUNDED)
		return DBHA_OK;
	if (!options->max_lag_ms && !options->max_lag_bytes)
		return dbha__fail(
		    err, DBHA_ERR_CONFIG,
		    "consistency \"bounded\" contradicts max_lag, which is not set; accepted: with max_lag=5s, or "
		    "max_lag=16MB");
	if (!options->max_lag_ms || options->max_lag_ms > 2 * (int64_t)options->probe_interval_ms)
		return DBHA_OK;
	return dbha__fail(
	    err, DBHA_ERR_CONFIG,
	    "max_lag \"%s\" contradicts probe_interval \"%s\" with consistency \"bounded\"; accepted: max_lag "
	    "longer than twice probe_interval, since what is known of a standby is that old",
	    dbha__option_print(dbha__option_find("max_lag"), options, lag),
	    dbha__option_print(dbha__option_find("probe_interval"), options, interval));
}

static int check_list(const char *name, const char *read, const char *write, dbha_error *err)
{
	struct book_patterns patterns;
	const char *wrong = NULL, *list = read ? read : write;
	if (dbha__book_patterns_init(&patterns, read, write, &wrong)) {
		dbha__book_patterns_fini(&patterns);
		return DBHA_OK;
	}
	if (!wrong)
		return dbha__no_memory(err);
	return dbha__fail(err, DBHA_ERR_CONFIG, "%s: \"%s\" is not accepted at \"%s\"; accepted: %s", name,
	                  dbha__option_shown(list).text, dbha__option_shown(wrong).text,
	                  dbha__option_find(name)->info.accepted);
}

static int check_routing(const struct config_options *options, dbha_error *err)
{
	int rc = check_list("read_functions", options->read_functions, NULL, err);
	if (rc == DBHA_OK)
		rc = check_list("write_functions", NULL, options->write_functions, err);
	if (rc == DBHA_OK && options->routing == ROUTING_AUTO && !dbha__classify_available())
		rc = dbha__fail(
		    err, DBHA_ERR_CONFIG,
		    "routing: \"auto\" is not accepted; accepted: intent. This library was built without libpg_query: "
		    "install it (apt-get install libpg-query-dev) and build with ./configure --with-pg-query");
	return rc;
}

/* ---- Nodes ---- */

/* Entries of a comma list, as libpq counts: an empty text has none, "a,,b" has three. */
static int list_count(const char *list)
{
	if (!list || !*list)
		return 0;
	int n = 1;
	for (; *list; list++)
		n += *list == ',';
	return n;
}

/* The entry at an index, borrowed, not ended by NUL. */
struct entry {
	const char *text;
	size_t length;
};

static struct entry list_entry(const char *list, int index)
{
	if (!list || index >= list_count(list))
		return (struct entry){"", 0};
	while (index-- > 0)
		list += strcspn(list, ",") + 1;
	return (struct entry){list, strcspn(list, ",")};
}

static int check_port(struct entry port, int position, dbha_error *err)
{
	int number = 0;
	bool good = port.length <= 5;
	for (size_t i = 0; good && i < port.length; i++) {
		good = port.text[i] >= '0' && port.text[i] <= '9';
		number = number * 10 + (port.text[i] - '0');
	}
	if (port.length == 0 || (good && number >= 1 && number <= 65535))
		return DBHA_OK;
	char copy[OPTION_SHOWN_MAX];
	snprintf(copy, sizeof copy, "%.*s", (int)(port.length < 70 ? port.length : 70), port.text);
	return dbha__fail(err, DBHA_ERR_CONFIG, "port: \"%s\" (entry %d) is not accepted; accepted: 1 to 65535",
	                  dbha__option_shown(copy).text, position);
}

/*
 * A host with an "@" or a space in it is most often the rest of a password that was not percent-encoded, so the message
 * does not repeat it. Socket directories ("/run/pg", "@abstract") may hold any character.
 */
static int check_host(struct entry host, int position, dbha_error *err)
{
	if (host.length == 0 || host.text[0] == '/' || host.text[0] == '@')
		return DBHA_OK;
	int colons = 0;
	for (size_t i = 0; i < host.length; i++) {
		unsigned char c = (unsigned char)host.text[i];
		if (c == '@' || c == '/' || isspace(c) || c < 0x20 || c == 0x7f)
			return dbha__fail(err, DBHA_ERR_CONFIG,
			                  "host: entry %d (not shown) holds a space, \"/\" or \"@\"; accepted: a host name, an "
			                  "address, or a socket directory that begins with \"/\"; special characters of a "
			                  "password in a URL must be percent-encoded (\"@\" is %%40)",
			                  position);
		colons += c == ':';
	}
	/* An IPv6 address has at least two. */
	if (colons == 1)
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "host: entry %d (not shown) holds a \":\"; accepted: a host name or an address; ports go "
		                  "into port, in the order of the hosts, or behind each host in the URL",
		                  position);
	return DBHA_OK;
}

static int check_hostaddr(struct entry addr, int position, dbha_error *err)
{
	/* Hexadecimal digits, dots, colons, and a zone such as %eth0; whether it is an address libpq says at connect. */
	for (size_t i = 0; i < addr.length && addr.text[i] != '%'; i++)
		if (!addr.text[i] || !strchr("0123456789abcdefABCDEF.:", addr.text[i]))
			return dbha__fail(err, DBHA_ERR_CONFIG,
			                  "hostaddr: entry %d (not shown) is no numeric address; accepted: IPv4 or IPv6 "
			                  "addresses; names go into host",
			                  position);
	return DBHA_OK;
}

int dbha__config_check_list(const char *keyword, const char *value, dbha_error *err)
{
	int (*check)(struct entry, int, dbha_error *) = strcmp(keyword, "port") == 0       ? check_port
	                                                : strcmp(keyword, "hostaddr") == 0 ? check_hostaddr
	                                                                                   : check_host;
	int n = list_count(value), rc = DBHA_OK;
	if (n > CONFIG_NODES_MAX)
		return dbha__fail(err, DBHA_ERR_CONFIG, "%s: %d entries are too many; accepted: at most %d", keyword, n,
		                  CONFIG_NODES_MAX);
	for (int i = 0; rc == DBHA_OK && i < n; i++)
		rc = check(list_entry(value, i), i + 1, err);
	return rc;
}

int dbha__config_check_counts(const char *host, const char *hostaddr, const char *port, dbha_error *err)
{
	int n_host = list_count(host), n_addr = list_count(hostaddr), n_port = list_count(port);
	int n = n_addr ? n_addr : n_host ? n_host : 1;
	if (n_addr && n_host && n_addr != n_host)
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "hostaddr: the list of %d does not match the list of %d in host; accepted: as many as hosts, "
		                  "or none",
		                  n_addr, n_host);
	if (n_port > 1 && n_port != n)
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "port: the list of %d does not match the list of %d hosts; accepted: one port for all hosts, "
		                  "or as many as hosts",
		                  n_port, n);
	if (n > CONFIG_NODES_MAX)
		return dbha__fail(err, DBHA_ERR_CONFIG, "host: %d hosts are too many; accepted: at most %d", n,
		                  CONFIG_NODES_MAX);
	return DBHA_OK;
}

/* A copy of an entry; NULL stays NULL for an empty one. False: out of memory. */
static bool entry_copy(char **out, struct entry entry)
{
	*out = entry.length ? strndup(entry.text, entry.length) : NULL;
	return *out || !entry.length;
}

/* The last of the host is kept where it is too long, with the port: it tells nodes apart better than the beginning. */
static void node_name(struct config_node *node, const char *host)
{
	bool bracket = strchr(host, ':') && host[0] != '/' && host[0] != '@';
	size_t room = sizeof node->name - sizeof "...[]:65535", length = strlen(host);
	const char *end = length > room ? host + length - room : host;
	snprintf(node->name, sizeof node->name, "%s%s%s%s:%s", bracket ? "[" : "", length > room ? "..." : "", end,
	         bracket ? "]" : "", node->port);
}

static int node_init(struct config_node *node, struct entry host, struct entry addr, struct entry port, dbha_error *err)
{
	if (!entry_copy(&node->host, host) || !entry_copy(&node->hostaddr, addr) || !entry_copy(&node->port, port))
		return dbha__no_memory(err);
	const char *named = node->host ? node->host : node->hostaddr;
	node_name(node, named ? named : "");
	return DBHA_OK;
}

/* Names of hosts have no case; directories have. */
static bool same_host(const char *a, const char *b)
{
	return a[0] == '/' || a[0] == '@' ? strcmp(a, b) == 0 : strcasecmp(a, b) == 0;
}

/* Two nodes of one host are told apart by address; and then the address is what people must see. */
static int check_twins(struct config_node *node, struct config_node *earlier, dbha_error *err)
{
	const char *a = node->hostaddr ? node->hostaddr : node->host;
	const char *b = earlier->hostaddr ? earlier->hostaddr : earlier->host;
	if (strtol(node->port, NULL, 10) != strtol(earlier->port, NULL, 10))
		return DBHA_OK;
	if (same_host(a, b))
		return dbha__fail(err, DBHA_ERR_CONFIG, "host: \"%s\" is listed twice; accepted: each node once", node->name);
	if (node->host && earlier->host && same_host(node->host, earlier->host)) {
		node_name(node, a);
		node_name(earlier, b);
	}
	return DBHA_OK;
}

struct lists {
	const char *host, *hostaddr, *port;
	const char *default_host, *default_port;
};

static int add_node(struct config *out, const struct lists *lists, int index, dbha_error *err)
{
	struct entry host = list_entry(lists->host, index), addr = list_entry(lists->hostaddr, index);
	struct entry port = list_entry(lists->port, list_count(lists->port) == 1 ? 0 : index);
	if (!host.length && !addr.length)
		host = (struct entry){lists->default_host, strlen(lists->default_host)};
	if (!port.length)
		port = (struct entry){lists->default_port, strlen(lists->default_port)};

	struct config_node *node = &out->nodes[out->n_nodes++];
	int rc = node_init(node, host, addr, port, err);
	for (int i = 0; rc == DBHA_OK && i < index; i++)
		rc = check_twins(node, &out->nodes[i], err);
	return rc;
}

static int read_nodes(struct config *out, const struct config_input *input, dbha_error *err)
{
	struct lists lists = {
	    .host = find_keyword(input, "host"),
	    .hostaddr = find_keyword(input, "hostaddr"),
	    .port = find_keyword(input, "port"),
	    .default_host = input->default_host ? input->default_host : "localhost",
	    .default_port = input->default_port ? input->default_port : "5432",
	};
	int rc = dbha__config_check_counts(lists.host, lists.hostaddr, lists.port, err);
	if (rc == DBHA_OK && lists.host)
		rc = dbha__config_check_list("host", lists.host, err);
	if (rc == DBHA_OK && lists.hostaddr)
		rc = dbha__config_check_list("hostaddr", lists.hostaddr, err);
	if (rc == DBHA_OK && lists.port)
		rc = dbha__config_check_list("port", lists.port, err);

	int n = list_count(lists.hostaddr) ? list_count(lists.hostaddr) : list_count(lists.host);
	for (int i = 0; rc == DBHA_OK && i < (n ? n : 1); i++)
		rc = add_node(out, &lists, i, err);
	return rc;
}

/* ---- What libpq gets ---- */

static bool is_ours(const char *keyword)
{
	return strcmp(keyword, "host") == 0 || strcmp(keyword, "hostaddr") == 0 || strcmp(keyword, "port") == 0 ||
	       dbha__option_find(keyword);
}

/*
 * The system's own keepalives come after two hours, and data that nobody acknowledges is given up after a quarter of an
 * hour. With these a connection whose peer is gone without a word ends within 16 s (Linux asks after 10 s and again each 3 s, and
 * gives up at the first time beyond tcp_user_timeout), and a network that was away for less is survived.
 */
static const char *const keepalives[][2] = {
    {"keepalives_idle", "10"},
    {"keepalives_interval", "3"},
    {"keepalives_count", "3"},
    {"tcp_user_timeout", "15000"},
};

static int add_missing(struct config_pairs *out, const char *keyword, const char *value, dbha_error *err)
{
	return dbha__pairs_get(out, keyword) ? DBHA_OK : dbha__pairs_set(out, keyword, value, err);
}

static int read_pairs(struct config_pairs *out, const struct config_input *input, dbha_error *err)
{
	int rc = DBHA_OK;
	for (int i = 0; i < input->n_layers; i++) {
		const struct config_pairs *layer = input->layers[i].pairs;
		for (int j = 0; rc == DBHA_OK && j < layer->n; j++)
			if (*layer->items[j].value && !is_ours(layer->items[j].keyword))
				rc = add_missing(out, layer->items[j].keyword, layer->items[j].value, err);
	}
	if (rc == DBHA_OK)
		rc = add_missing(out, "fallback_application_name", "dbha", err);
	for (size_t i = 0; rc == DBHA_OK && i < sizeof keepalives / sizeof keepalives[0]; i++)
		rc = add_missing(out, keepalives[i][0], keepalives[i][1], err);
	if (rc == DBHA_OK)
		rc = dbha__pairs_set(out, "target_session_attrs", "any", err);
	return rc;
}

/* ---- The whole ---- */

int dbha__config_init(struct config *out, const struct config_input *input, dbha_error *err)
{
	struct config_pairs pairs = {0};
	memset(out, 0, sizeof *out);
	int rc = dbha__config_read_options(&out->options, input, err);
	if (rc == DBHA_OK)
		rc = check_orders(&out->options, err);
	if (rc == DBHA_OK)
		rc = check_fence(&out->options, err);
	if (rc == DBHA_OK)
		rc = check_outcome_table(&out->options, err);
	if (rc == DBHA_OK)
		rc = check_bounded(&out->options, err);
	if (rc == DBHA_OK)
		rc = check_routing(&out->options, err);
	if (rc == DBHA_OK)
		rc = read_nodes(out, input, err);
	if (rc == DBHA_OK)
		rc = read_pairs(&pairs, input, err);
	out->pairs = pairs.items;
	out->n_pairs = pairs.n;
	if (rc != DBHA_OK)
		dbha__config_fini(out);
	return rc;
}

int dbha__config_check(const struct config_input *input, dbha_error *err)
{
	struct config scratch = {0};
	int rc = dbha__config_read_options(&scratch.options, input, err);
	if (rc == DBHA_OK)
		rc = read_nodes(&scratch, input, err);
	dbha__config_fini(&scratch);
	return rc;
}

static bool copy_text(char **out, const char *in)
{
	*out = in ? strdup(in) : NULL;
	return *out || !in;
}

int dbha__config_copy(struct config *out, const struct config *in, dbha_error *err)
{
	struct config_pairs pairs = {0};
	memset(out, 0, sizeof *out);
	int rc = dbha__options_copy(&out->options, &in->options, err);
	for (int i = 0; rc == DBHA_OK && i < in->n_nodes; i++) {
		struct config_node *node = &out->nodes[out->n_nodes++];
		memcpy(node->name, in->nodes[i].name, sizeof node->name);
		if (!copy_text(&node->host, in->nodes[i].host) || !copy_text(&node->hostaddr, in->nodes[i].hostaddr) ||
		    !copy_text(&node->port, in->nodes[i].port))
			rc = dbha__no_memory(err);
	}
	for (int i = 0; rc == DBHA_OK && i < in->n_pairs; i++)
		rc = dbha__pairs_set(&pairs, in->pairs[i].keyword, in->pairs[i].value, err);
	out->pairs = pairs.items;
	out->n_pairs = pairs.n;
	if (rc != DBHA_OK)
		dbha__config_fini(out);
	return rc;
}

void dbha__config_fini(struct config *config)
{
	for (int i = 0; i < config->n_nodes; i++) {
		free(config->nodes[i].host);
		free(config->nodes[i].hostaddr);
		free(config->nodes[i].port);
	}
	struct config_pairs pairs = {config->pairs, config->n_pairs};
	dbha__pairs_fini(&pairs);
	dbha__options_fini(&config->options);
	memset(config, 0, sizeof *config);
}
