/*
 * One history: the settings, the handles and their clients, the time in which things go wrong, and the end, at which the
 * library must have found out within a bounded time that all is well again: its view agrees with the truth, a write and a read
 * succeed, and everything that was started ends.
 */
#include "history.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "client.h"
#include "faults.h"
#include "machine.h"
#include "view.h"

/* No history takes so long: the code under test runs in a circle in which no virtual time passes. */
#define REAL_SECONDS_MAX 30

/* ---- settings ---------------------------------------------------------------------------------------------- */

static const char *one_of(const char *const *words, int n)
{
	return words[sim_between(0, n - 1)];
}

#define ONE_OF(...)                                                                                                    \
	one_of((const char *const[]){__VA_ARGS__}, (int)(sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)))

static const char *hosts(char *text, size_t size)
{
	size_t used = 0;
	for (int i = 0; i < world.n; i++)
		used += (size_t)snprintf(text + used, size - used, world.by_name ? "%sn%d" : "%s10.0.0.%d", i ? "," : "",
		                         world.by_name ? i : i + 1);
	return text;
}

/* Most options stay as they are by default; what sets the pace varies. */
static void make_config(struct config *config)
{
	char list[128];
	char name[32];
	struct config_pairs pairs = {0};
	dbha_error err = {0};
	/* What the process remembers of the clusters of earlier histories must not be taken for this one's. */
	snprintf(name, sizeof name, "sim%llu", (unsigned long long)world.seed);
	const char *const settings[][2] = {
	    {"host", hosts(list, sizeof list)},
	    {"dbname", name},
	    {"connect_timeout", ONE_OF("500ms", "1s", "2s", "5s")},
	    {"probe_interval", ONE_OF("200ms", "500ms", "1s", "1s")},
	    {"probe_timeout", ONE_OF("50ms", "200ms", "600ms")},
	    {"probe_failures", ONE_OF("1", "2", "3", "3")},
	    {"probe_interval_fast", ONE_OF("5ms", "20ms", "50ms")},
	    {"retry_backoff", ONE_OF("1ms", "10ms", "10ms")},
	    {"retry_backoff_max", ONE_OF("100ms", "1s")},
	    {"max_lag", ONE_OF("0", "0", "500ms", "2s")},
	    {"pool_min_size", ONE_OF("0", "1", "2")},
	    {"monitor", ONE_OF("on", "on", "on", "on", "off")},
	};
	for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++)
		dbha__pairs_set(&pairs, settings[i][0], settings[i][1], &err);
	struct config_layer layer = {.pairs = &pairs};
	struct config_input input = {.layers = &layer, .n_layers = 1};
	if (dbha__config_init(config, &input, &err) != DBHA_OK) {
		fprintf(stderr, "sim: %s\n", err.message);
		exit(2);
	}
	for (int i = 0; i < pairs.n; i++) {
		free(pairs.items[i].keyword);
		free(pairs.items[i].value);
	}
	free(pairs.items);
}

/* See P6 in check.c. */
static int64_t notice(const struct config_options *o)
{
	int64_t ms = (int64_t)o->probe_interval_ms + (int64_t)(o->probe_failures + 1) * o->probe_timeout_ms +
	             o->retry_backoff_max_ms + 1000;
	return ms * SIM_MS;
}

/* A name may have been asked for, and be looked up slowly. */
static int64_t patience(const struct config_options *o)
{
	int64_t ms = (int64_t)o->connect_timeout_ms + o->probe_interval_ms + o->retry_backoff_max_ms;
	return notice(o) + ms * SIM_MS + (world.by_name ? 5 * SIM_S : 0);
}

static struct user *open_handle(void)
{
	struct user *user = &world.users[world.n_users];
	dbha_error err = {0};
	make_config(&user->config);
	user->h = dbha__life_new(&user->config, &err);
	if (!user->h) {
		fprintf(stderr, "sim: %s\n", err.message);
		exit(2);
	}
	world.n_users++;
	const struct config_options *o = &user->config.options;
	trace("a handle is opened: monitor %s, probes each %d ms, %d times %d ms, connects in %d ms, max_lag %d ms",
	      o->monitor == MONITOR_ON ? "on" : "off", o->probe_interval_ms, o->probe_failures, o->probe_timeout_ms,
	      o->connect_timeout_ms, o->max_lag_ms);
	user->patience_us = patience(&user->config.options);
	user->notice_us = notice(&user->config.options);
	for (int i = (int)sim_between(1, 4); i > 0; i--)
		client_start(user);
	return user;
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

/* What of the view is not as it is. NULL: nothing. */
static const char *what_is_wrong(const struct user *user, int primary)
{
	const struct view *view = &user->h->view.current->view;
	static char text[100];
	if (view->primary != primary) {
		snprintf(text, sizeof text, "the primary is %d, not %d", primary, view->primary);
		return text;
	}
	if (view->timeline != world.servers[primary].timeline)
		return "the timeline";
	/*
	 * Without a thread of its own its time stands still between calls, and calls that need not wait take none: a probe that
	 * hangs there ends when TCP has tried again, which may be a minute.
	 */
	int n = user->config.options.monitor == MONITOR_ON ? world.n : 0;
	for (int i = 0; i < n; i++) {
		enum dbha_role role = world.servers[i].in_recovery ? DBHA_ROLE_STANDBY : DBHA_ROLE_PRIMARY;
		if (view->nodes[i].role == role && view->nodes[i].state == DBHA_STATE_UP)
			continue;
		snprintf(text, sizeof text, "node %d is a %s, not %s as a %s", i, dbha_role_name((int)role),
		         dbha_state_name((int)view->nodes[i].state), dbha_role_name((int)view->nodes[i].role));
		return text;
	}
	return NULL;
}

static bool is_refused(const struct user *user)
{
	/* It has taken another cluster for its own, because most of those that answered at first were of it. */
	return user->met_foreign && user->h->view.current->view.system_identifier != OUR_CLUSTER;
}

static void check_recovery(struct user *user, int primary)
{
	/* A trouble is shown for a while after the last report of it. */
	int64_t bound = user->patience_us + TROUBLE_HOLD_US + 2 * SIM_S;
	int64_t until = sim_now() + bound;
	int timeout_ms = (int)(user->patience_us / SIM_MS) + 2000;
	const char *wrong = NULL;
	co_sleep(2 * SIM_S); /* what was said before may still be on its way */
	/* Nor has who has no thread read what came in since its last call. */
	for (int i = 0; i < 3 && user->config.options.monitor == MONITOR_OFF; i++) {
		client_call(user, OP_READ, timeout_ms);
		co_sleep(100 * SIM_MS);
	}
	while ((wrong = what_is_wrong(user, primary)) && sim_now() < until) {
		/* Without a thread of its own it looks while it is called, and only then. */
		if (user->config.options.monitor == MONITOR_OFF)
			client_call(user, OP_IDEMPOTENT, timeout_ms);
		co_sleep(50 * SIM_MS);
	}
	if (is_refused(user))
		return;
	if (wrong)
		violation("liveness: %lld ms after everything was mended the view is wrong: %s", (long long)(bound / SIM_MS),
		          wrong);
	/* A single error of the model's is possible, such as a conflict, twice is not. */
	int code = client_call(user, OP_IDEMPOTENT, timeout_ms);
	if (code != DBHA_OK)
		violation("liveness: after everything was mended a write fails: %s", dbha_code_name(code));
	code = client_call(user, OP_READ, timeout_ms);
	if (code != DBHA_OK)
		violation("liveness: after everything was mended a read fails: %s", dbha_code_name(code));
}

static void close_handle(struct user *user)
{
	while (user->clients_left > 0)
		co_sleep(10 * SIM_MS);
	dbha__life_close(user->h, 100);
	user->h = NULL;
	dbha__config_fini(&user->config);
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

static void *tell(void *arg)
{
	(void)arg;
	faults_begin();
	bool early = sim_chance(500); /* the handle is opened into the trouble */
	int64_t until = sim_now() + sim_between(2 * SIM_S, 8 * SIM_S);
	if (early)
		faults_start(until);
	co_sleep(sim_between(0, 1500 * SIM_MS));
	open_handle();
	if (sim_chance(250)) {
		co_sleep(sim_between(0, 3 * SIM_S));
		open_handle();
	}
	if (!early)
		faults_start(until);
	if (sim_now() < until)
		co_sleep(until - sim_now());
	int primary = faults_mend();
	world.stop = true;
	for (int i = 0; i < world.n_users; i++)
		check_recovery(&world.users[i], primary);
	for (int i = 0; i < world.n_users; i++)
		close_handle(&world.users[i]);
	return NULL;
}

static void out_of_time(int signal)
{
	char text[120];
	(void)signal;
	int n =
	    snprintf(text, sizeof text, "violation: no virtual time passes\n  replay: tests/sim/sim --seed %llu --trace\n",
	             (unsigned long long)world.seed);
	(void)!write(STDOUT_FILENO, text, (size_t)n);
	_exit(1);
}

void history_run(uint64_t seed, bool tracing, bool names_move)
{
	memset(&world, 0, sizeof world);
	world.seed = seed;
	world.tracing = tracing;
	world.names_move = names_move;
	world.digest = seed;
	sched_reset(seed * 0x9e3779b97f4a7c15ULL + 12345);
	machine_reset();
	signal(SIGALRM, out_of_time);
	alarm(REAL_SECONDS_MAX);
	co_start(tell, NULL, true);
	const char *wrong = sched_run();
	alarm(0);
	if (wrong)
		violation("P5: %s", wrong);
	check_end();
}

bool __real_dbha__view_publish(struct view_holder *holder, const struct view *view);
bool __wrap_dbha__view_publish(struct view_holder *holder, const struct view *view);

bool __wrap_dbha__view_publish(struct view_holder *holder, const struct view *view)
{
	bool done = __real_dbha__view_publish(holder, view);
	for (int i = 0; i < world.n_users; i++)
		if (world.users[i].h && &world.users[i].h->view == holder)
			check_view(&world.users[i], view);
	return done;
}
