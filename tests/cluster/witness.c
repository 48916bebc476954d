/*
 * The witnesses, see witness.h. Each has a thread, and what it does next is drawn from its own seed. They never assert: they record.
 */
#include "witness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TIMEOUT_MS 25000
#define SETTLE_MS  15000
#define TRAY       8 /* tokens that lie around to be taken */

const char *const witness_read_sql = "SELECT string_agg(n::text, ' ' ORDER BY id) FROM rows";

struct witness witnesses[WITNESSES];
atomic_long witness_reads;

static pthread_t threads[WITNESSES];
static atomic_bool stop;
static bool use_tokens;
static dbha *handles[8];
static int n_handles;

static struct {
	pthread_mutex_t lock;
	int n;
	struct {
		char token[DBHA_TOKEN_MAX];
		struct past past;
	} given[TRAY];
} tray = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t draw(uint64_t *state, uint64_t below)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return (*state >> 11) % below;
}

/* ---- what is known ------------------------------------------------------------------------------------------------ */

bool past_parse(const char *text, struct past *past)
{
	char *end;
	*past = (struct past){0};
	for (int i = 0; i < ROWS; i++) {
		past->n[i] = strtol(text, &end, 10);
		if (end == text)
			return false;
		text = end;
	}
	return *text == '\0' || *text == '\n';
}

static int first_behind(const struct past *shown, const long *known)
{
	for (int i = 0; i < ROWS; i++)
		if (shown->n[i] < known[i])
			return i;
	return -1;
}

enum compared past_compare(const struct past *shown, const struct past *known, bool by_primary, int *row)
{
	*row = first_behind(shown, known->n);
	if (*row < 0)
		return HOLDS;
	if (!by_primary)
		return BEHIND;
	int settled = first_behind(shown, known->by_primary);
	if (settled < 0)
		return EARLY;
	*row = settled;
	return BEHIND;
}

static void raise_to(long *to, const long *from)
{
	for (int i = 0; i < ROWS; i++)
		if (from[i] > to[i])
			to[i] = from[i];
}

static void past_add(struct past *past, const struct past *more)
{
	raise_to(past->n, more->n);
	raise_to(past->by_primary, more->by_primary);
}

/* ---- what is recorded --------------------------------------------------------------------------------------------- */

static dbha_result_route fresh_route(void)
{
	return (dbha_result_route){.size = sizeof(dbha_result_route)};
}

static void record_violation(struct witness *w, const char *how, int row, long shown, long known,
                             const dbha_result_route *route)
{
	if (!w->violation[0])
		snprintf(w->violation, sizeof w->violation, "witness %d, %s: row %d shows %ld, known %ld; %s, %s, %.150s",
		         w->number, how, row, shown, known, route->node, dbha_reason_name(route->reason), route->why);
}

/* Errors that the loss of a node explains. What a server says itself is none of them, where the statement is one that can be run again. */
static bool is_explained(const dbha_error *err, const char *how, bool reads)
{
	bool again = strcmp(how, "read") == 0 || strcmp(how, "read with a token") == 0;
	switch (err->code) {
	case DBHA_ERR_NO_NODE:
	case DBHA_ERR_LOST:
	case DBHA_ERR_ROLLED_BACK:
		return true;
	case DBHA_ERR_UNKNOWN:
		return !reads;
	case DBHA_ERR_SERVER: /* a recovery conflict, a connection that was ended */
		return !again && (strcmp(err->sqlstate, "40001") == 0 || strcmp(err->sqlstate, "57P01") == 0);
	default:
		return false;
	}
}

static void record_error(struct witness *w, const char *how, const dbha_error *err, bool reads)
{
	long *count = reads ? &w->tally.read_errors : &w->tally.write_errors;
	bool wrong = !is_explained(err, how, reads);
	(*count)++;
	w->tally.wrong += wrong;
	if (!w->error[0] || (wrong && !strstr(w->error, "wrong")))
		snprintf(w->error, sizeof w->error, "witness %d, %s%s: %s %s: %.250s", w->number, how, wrong ? ", wrong" : "",
		         dbha_code_name(err->code), err->sqlstate, err->message);
}

static void count_read(struct witness *w, const dbha_result_route *route)
{
	w->tally.reads++;
	w->tally.from_standby += route->role == DBHA_ROLE_STANDBY;
	w->tally.reasons[route->reason & 15]++;
	atomic_fetch_add(&witness_reads, 1);
}

/* A read against what was known. */
static enum compared compare(struct witness *w, const char *how, const struct past *shown, const struct past *known,
                             const dbha_result_route *route)
{
	int row;
	enum compared compared = past_compare(shown, known, route->role == DBHA_ROLE_PRIMARY, &row);
	w->tally.early += compared == EARLY;
	if (compared != BEHIND)
		return compared;
	bool own = known == &w->past && shown->n[w->number] < w->written;
	row = own ? w->number : row;
	w->tally.own_writes += own;
	w->tally.backwards += !own;
	record_violation(w, how, row, shown->n[row], known->n[row], route);
	return compared;
}

/* What is known from now on. What was undone stays so: it is a violation once. */
static void learn(struct witness *w, const struct past *shown, enum compared compared, const dbha_result_route *route)
{
	w->is_early = w->is_early || compared == EARLY;
	for (int i = 0; i < ROWS && compared == BEHIND; i++) {
		w->past.n[i] = shown->n[i] < w->past.n[i] ? shown->n[i] : w->past.n[i];
		w->past.by_primary[i] = shown->n[i] < w->past.by_primary[i] ? shown->n[i] : w->past.by_primary[i];
	}
	raise_to(w->past.n, shown->n);
	if (route->role == DBHA_ROLE_PRIMARY)
		raise_to(w->past.by_primary, shown->n);
}

/* A read of the session: it must not be behind, and is known from now on. */
static void witness_saw(struct witness *w, const char *how, const char *text, const dbha_result_route *route)
{
	struct past shown;
	if (!past_parse(text, &shown)) {
		w->tally.wrong++;
		snprintf(w->error, sizeof w->error, "witness %d, %s, wrong: no answer: \"%.200s\"", w->number, how, text);
		return;
	}
	learn(w, &shown, compare(w, how, &shown, &w->past, route), route);
}

/* ---- writes ------------------------------------------------------------------------------------------------------- */

/* One up; what the row is then, or -1. */
static long increment(struct witness *w, int row, dbha_intent intent)
{
	static const char sql[] = "UPDATE rows SET n = n + 1 WHERE id = $1 RETURNING n";
	char id[16];
	const char *values[] = {id};
	PGresult *result;
	dbha_error err;
	long n = -1;
	snprintf(id, sizeof id, "%d", row);
	dbha_request rq =
	    DBHA_REQUEST(.sql = sql, .intent = intent, .timeout_ms = TIMEOUT_MS, .n_params = 1, .values = values);
	if (dbha_session_exec(w->s, &rq, &result, &err) == DBHA_OK)
		n = atol(PQgetvalue(result, 0, 0));
	else
		record_error(w, "write", &err, false);
	PQclear(result);
	return n;
}

/* An acknowledged write: the row is above what was known of it, or something was undone. */
static void acknowledge(struct witness *w, int row, long n)
{
	dbha_result_route route = fresh_route();
	if (n <= w->past.n[row]) {
		w->tally.lost++;
		record_violation(w, "write", row, n, w->past.n[row] + 1, &route);
		return;
	}
	w->past.n[row] = n;
	w->past.by_primary[row] = n;
	if (row == w->number)
		w->written = n;
}

static void write_once(struct witness *w)
{
	int row = draw(&w->random, 4) ? w->number : SHARED;
	long n = increment(w, row, draw(&w->random, 4) ? DBHA_WRITE : DBHA_DEFAULT);
	w->tally.writes++;
	if (n >= 0)
		acknowledge(w, row, n);
}

static bool begin(struct witness *w, const dbha_transaction_options *options, bool reads)
{
	dbha_error err;
	if (dbha_session_begin(w->s, options, &err) == DBHA_OK)
		return true;
	record_error(w, "begin", &err, reads);
	return false;
}

static bool finish(struct witness *w, bool good, bool reads)
{
	dbha_error err;
	int code = good ? dbha_session_commit(w->s, TIMEOUT_MS, &err) : dbha_session_rollback(w->s, TIMEOUT_MS, &err);
	if (code != DBHA_OK)
		record_error(w, good ? "commit" : "rollback", &err, reads);
	return good && code == DBHA_OK;
}

/* One read in whatever the session is in; its text into `text`. */
static bool read_text(struct witness *w, const char *how, bool reads, dbha_result_route *route, char *text, size_t size)
{
	PGresult *result;
	dbha_error err;
	dbha_request rq =
	    DBHA_REQUEST(.sql = witness_read_sql, .intent = DBHA_READ, .timeout_ms = TIMEOUT_MS, .route = route);
	int code = dbha_session_exec(w->s, &rq, &result, &err);
	if (code == DBHA_OK)
		snprintf(text, size, "%s", PQgetvalue(result, 0, 0));
	else
		record_error(w, how, &err, reads);
	PQclear(result);
	return code == DBHA_OK;
}

/* Own row, read, shared row. What the transaction shows of its own writes is known only once it is committed. */
static void write_in_transaction(struct witness *w)
{
	char text[512];
	struct past shown;
	dbha_result_route route = fresh_route();
	w->tally.transactions++;
	if (!begin(w, NULL, false))
		return;
	long own = increment(w, w->number, DBHA_WRITE), all = -1;
	bool good = own >= 0 && read_text(w, "read in a transaction", false, &route, text, sizeof text);
	if (good && draw(&w->random, 2))
		good = (all = increment(w, SHARED, DBHA_WRITE)) >= 0;
	if (good && past_parse(text, &shown)) {
		enum compared compared = compare(w, "read in a transaction", &shown, &w->past, &route);
		shown.n[w->number] = w->past.n[w->number];
		learn(w, &shown, compared, &route);
	}
	if (!finish(w, good && draw(&w->random, 8), false))
		return;
	acknowledge(w, w->number, own);
	if (all >= 0)
		acknowledge(w, SHARED, all);
}

/* ---- reads -------------------------------------------------------------------------------------------------------- */

static void read_once(struct witness *w)
{
	char text[512];
	dbha_result_route route = fresh_route();
	if (!read_text(w, "read", true, &route, text, sizeof text))
		return;
	count_read(w, &route);
	witness_saw(w, "read", text, &route);
}

static void read_in_transaction(struct witness *w)
{
	char text[512];
	dbha_result_route route = fresh_route();
	int isolation = draw(&w->random, 2) ? DBHA_REPEATABLE_READ : DBHA_READ_COMMITTED;
	w->tally.read_only++;
	if (!begin(w, &DBHA_TRANSACTION(.read_only = 1, .isolation = isolation), true))
		return;
	bool good = true;
	for (int i = 0; i < 2 && good; i++) {
		good = read_text(w, "read-only transaction", true, &route, text, sizeof text);
		if (good) {
			count_read(w, &route);
			witness_saw(w, "read-only transaction", text, &route);
		}
	}
	finish(w, good, true);
}

static void read_stream(struct witness *w)
{
	dbha_error err;
	PGresult *rows;
	dbha_result_route route = fresh_route();
	dbha_request rq =
	    DBHA_REQUEST(.sql = witness_read_sql, .intent = DBHA_READ, .timeout_ms = TIMEOUT_MS, .route = &route);
	int code = dbha_session_query(w->s, &rq, &err);
	bool more = code == DBHA_OK;
	w->tally.streams++;
	while (more) {
		code = dbha_session_fetch(w->s, TIMEOUT_MS, &rows, &err);
		more = code == DBHA_OK && rows;
		if (more && PQntuples(rows) > 0) {
			count_read(w, &route);
			witness_saw(w, "stream", PQgetvalue(rows, 0, 0), &route);
		}
		PQclear(rows);
	}
	if (code != DBHA_OK)
		record_error(w, "stream", &err, true);
}

static void read_copy(struct witness *w)
{
	dbha_error err;
	char sql[128], *data;
	size_t length;
	dbha_result_route route = fresh_route();
	snprintf(sql, sizeof sql, "COPY (%s) TO STDOUT", witness_read_sql);
	dbha_request rq = DBHA_REQUEST(.sql = sql, .intent = DBHA_READ, .timeout_ms = TIMEOUT_MS, .route = &route);
	int code = dbha_session_copy_out(w->s, &rq, &err);
	bool more = code == DBHA_OK;
	w->tally.copies++;
	while (more) {
		code = dbha_session_copy_get(w->s, TIMEOUT_MS, &data, &length, &err);
		more = code == DBHA_OK && data;
		if (more) {
			count_read(w, &route);
			witness_saw(w, "copy", data, &route);
			PQfreemem(data);
		}
	}
	if (code != DBHA_OK)
		record_error(w, "copy", &err, true);
}

/* The primary was early: it has to show soon what its standbys had. */
static void settle(struct witness *w)
{
	int64_t end = now_ms() + SETTLE_MS;
	dbha_result_route route = fresh_route();
	struct past shown;
	char text[512];
	dbha_error err;
	PGresult *result;
	dbha_request rq = DBHA_REQUEST(.sql = witness_read_sql, .intent = DBHA_READ, .timeout_ms = TIMEOUT_MS,
	                               .consistency = DBHA_CONSISTENCY_PRIMARY, .route = &route);
	w->is_early = false;
	do {
		text[0] = '\0';
		if (dbha_session_exec(w->s, &rq, &result, &err) == DBHA_OK)
			snprintf(text, sizeof text, "%s", PQgetvalue(result, 0, 0));
		PQclear(result);
		if (past_parse(text, &shown) && first_behind(&shown, w->past.n) < 0)
			return;
	} while (now_ms() < end && !atomic_load(&threads_stop));
	w->tally.backwards++;
	record_violation(w, "what a standby had shown never came", 0, 0, 0, &route);
}

/* ---- tokens ------------------------------------------------------------------------------------------------------- */

static bool take_own_token(struct witness *w, char token[DBHA_TOKEN_MAX])
{
	dbha_error err;
	if (dbha_session_token(w->s, token, TIMEOUT_MS, &err) == DBHA_OK)
		return true;
	record_error(w, "token", &err, true);
	return false;
}

bool token_given(uint64_t *random, char token[DBHA_TOKEN_MAX], struct past *past)
{
	pthread_mutex_lock(&tray.lock);
	bool any = tray.n > 0;
	if (any) {
		int i = (int)draw(random, tray.n < TRAY ? (uint64_t)tray.n : TRAY);
		memcpy(token, tray.given[i].token, DBHA_TOKEN_MAX);
		*past = tray.given[i].past;
	}
	pthread_mutex_unlock(&tray.lock);
	return any;
}

static void give_token(struct witness *w)
{
	char token[DBHA_TOKEN_MAX];
	if (!take_own_token(w, token))
		return;
	w->tally.given++;
	pthread_mutex_lock(&tray.lock);
	int i = tray.n++ % TRAY;
	memcpy(tray.given[i].token, token, DBHA_TOKEN_MAX);
	tray.given[i].past = w->past;
	pthread_mutex_unlock(&tray.lock);
}

static void set_token(struct witness *w, const char *token)
{
	dbha_error err;
	w->tally.taken++;
	if (dbha_session_set_token(w->s, token, &err) != DBHA_OK)
		record_error(w, "set token", &err, true);
}

static void take_token(struct witness *w)
{
	char token[DBHA_TOKEN_MAX];
	struct past past;
	if (!token_given(&w->random, token, &past))
		return;
	set_token(w, token);
	past_add(&w->past, &past);
}

/* As a web application does: the next request is another session, perhaps of another process, and has only the cookie. */
static void begin_anew(struct witness *w)
{
	char token[DBHA_TOKEN_MAX];
	dbha_error err;
	if (!take_own_token(w, token))
		return;
	dbha_session *next = dbha_session_open(handles[draw(&w->random, (uint64_t)n_handles)], &err);
	if (!next) {
		record_error(w, "session", &err, true);
		return;
	}
	dbha_session_close(w->s);
	w->s = next;
	set_token(w, token);
}

/* Without a session: the token alone, of this session or another one. */
static void read_with_token(struct witness *w)
{
	char token[DBHA_TOKEN_MAX];
	struct past known = w->past, shown;
	PGresult *result;
	dbha_error err;
	dbha_result_route route = fresh_route();
	if (draw(&w->random, 2) ? !take_own_token(w, token) : !token_given(&w->random, token, &known))
		return;
	dbha_request rq = DBHA_REQUEST(.sql = witness_read_sql, .intent = DBHA_READ, .timeout_ms = TIMEOUT_MS,
	                               .token = token, .route = &route);
	w->tally.token_reads++;
	if (dbha_exec(handles[draw(&w->random, (uint64_t)n_handles)], &rq, &result, &err) != DBHA_OK) {
		record_error(w, "read with a token", &err, true);
	} else if (past_parse(PQgetvalue(result, 0, 0), &shown)) {
		count_read(w, &route);
		compare(w, "read with a token", &shown, &known, &route);
	}
	PQclear(result);
}

/* ---- lives -------------------------------------------------------------------------------------------------------- */

/* What they do, in a thousand. What is left is reading. */
static const struct habit {
	int weight;
	bool tokens;
	void (*act)(struct witness *w);
} habits[] = {
    {30, false, write_once},          {10, false, write_in_transaction},
    {20, false, read_in_transaction}, {15, false, read_stream},
    {15, false, read_copy},           {10, true, give_token},
    {10, true, take_token},           {10, true, begin_anew},
    {20, true, read_with_token},
};

static void act(struct witness *w)
{
	int drawn = (int)draw(&w->random, 1000);
	for (size_t i = 0; i < sizeof habits / sizeof habits[0]; i++) {
		drawn -= habits[i].weight;
		if (drawn < 0 && (use_tokens || !habits[i].tokens)) {
			habits[i].act(w);
			return;
		}
	}
	read_once(w);
}

static void *live(void *arg)
{
	struct witness *w = arg;
	while (!atomic_load(&stop) && !atomic_load(&threads_stop)) {
		act(w);
		if (w->is_early)
			settle(w);
	}
	return NULL;
}

void witness_table(const struct cluster *c)
{
	cluster_ask(c, 1, "CREATE TABLE rows (id int PRIMARY KEY, n bigint)");
	cluster_ask(c, 1, "INSERT INTO rows SELECT id, 0 FROM generate_series(0, %d) AS id", ROWS - 1);
	cluster_ask(c, 1, "GRANT ALL ON rows TO app");
	cluster_all_catch_up(c);
}

void witnesses_start(dbha *const *of, int n, uint64_t seed, bool with_tokens)
{
	dbha_error err;
	atomic_store(&stop, false);
	atomic_store(&witness_reads, 0);
	use_tokens = with_tokens;
	tray.n = 0;
	n_handles = n;
	memcpy(handles, of, (size_t)n * sizeof handles[0]);
	for (int i = 0; i < WITNESSES; i++) {
		struct witness *w = &witnesses[i];
		*w = (struct witness){.number = i, .h = of[i % n], .random = seed + (uint64_t)i + 1};
		w->s = dbha_session_open(w->h, &err);
		ck_assert_msg(w->s != NULL, "%s", w->s ? "" : err.message);
		threads[i] = start_thread(live, w);
	}
}

void witnesses_stop(void)
{
	atomic_store(&stop, true);
	for (int i = 0; i < WITNESSES; i++)
		join_thread(threads[i]);
	for (int i = 0; i < WITNESSES; i++)
		dbha_session_close(witnesses[i].s);
}

static void tally_add(struct tally *sum, const struct tally *more)
{
	long *to = (long *)sum;
	const long *from = (const long *)more;
	for (size_t i = 0; i < sizeof *sum / sizeof *to; i++)
		to[i] += from[i];
}

static void print_tally(const char *name, const struct tally *t)
{
	printf("# %s: %ld reads, %.1f %% by standbys; %ld writes, %ld transactions, %ld read-only ones, %ld streams, %ld "
	       "copies; tokens: %ld given, %ld taken, %ld reads with one\n",
	       name, t->reads, t->reads ? 100.0 * (double)t->from_standby / (double)t->reads : 0.0, t->writes,
	       t->transactions, t->read_only, t->streams, t->copies, t->given, t->taken, t->token_reads);
	printf("# %s: violations: %ld of read-your-writes, %ld of monotonic reads, %ld writes undone; %ld early; errors: "
	       "%ld of reads, "
	       "%ld of writes, %ld unexplained\n",
	       name, t->own_writes, t->backwards, t->lost, t->early, t->read_errors, t->write_errors, t->wrong);
	printf("# %s: reasons:", name);
	for (int i = 0; i < 16; i++)
		if (t->reasons[i])
			printf(" %s %ld", dbha_reason_name(i), t->reasons[i]);
	printf("\n");
}

struct tally witnesses_tally(const char *name)
{
	struct tally sum = {0};
	for (int i = 0; i < WITNESSES; i++)
		tally_add(&sum, &witnesses[i].tally);
	print_tally(name, &sum);
	for (int i = 0, shown = 0; i < WITNESSES && shown < 4; i++)
		if (witnesses[i].violation[0] && ++shown)
			printf("# %s\n", witnesses[i].violation);
	for (int i = 0, shown = 0; i < WITNESSES && shown < 4; i++)
		if (witnesses[i].error[0] && ++shown)
			printf("# %s\n", witnesses[i].error);
	return sum;
}
