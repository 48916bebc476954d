/*
 * test_base: the floor of libc and pthreads: clock, randomness, wake-up, log, errors, ranked mutexes.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dbha_build.h"

#include "clock.h"
#include "error.h"
#include "rng.h"
#include "sync.h"
#include "trace.h"
#include "unit.h"
#include "wake.h"

/* ---- clock -------------------------------------------------------------------------------------------------- */

START_TEST(monotonic_time_never_goes_back)
{
	int64_t before = dbha__clock_now();
	ck_assert_int_gt(before, 0);
	for (int i = 0; i < 100000; i++) {
		int64_t now = dbha__clock_now();
		if (now < before)
			ck_abort_msg("%lld after %lld", (long long)now, (long long)before);
		before = now;
	}
	ck_assert_int_gt(dbha__clock_unix(), 1700000000000000); /* microseconds since 1970: later than 2023 */
	ck_assert_int_lt(dbha__clock_unix(), 17000000000000000);
	ck_assert_int_eq(ms_to_us(30000), 30000000);
}
END_TEST

static const struct {
	int64_t now, deadline;
	int ms;
} polls[] = {
    {1000, 1000, 0},
    {1000, 999, 0},
    {1000, 0, 0},
    {1000, 1001, 1},
    {1000, 2000, 1},
    {1000, 2001, 2},
    {1000, 1000000, 999},
    {0, 30000000, 30000},
    {0, 1, 1},
    {5, CLOCK_NEVER, -1},
    {0, (int64_t)INT_MAX * 1000, INT_MAX},
    {0, (int64_t)INT_MAX * 1000 + 1, INT_MAX},
    {0, INT64_MAX / 2, INT_MAX},
};

/* poll(2) must not return before the deadline, or a loop around it would spin. */
START_TEST(poll_is_told_to_wait_long_enough)
{
	ck_assert_int_eq(dbha__clock_poll_ms(polls[_i].now, polls[_i].deadline), polls[_i].ms);
}
END_TEST

/* ---- randomness --------------------------------------------------------------------------------------------- */

/* The first numbers of splitmix64 with seed 1234567, as its author's program prints them. */
START_TEST(a_seed_gives_the_known_numbers)
{
	static const uint64_t known[] = {6457827717110365317u, 3203168211198807973u, 9817491932198370423u,
	                                 4593380528125082431u, 16408922859458223821u};
	struct rng rng = {1234567};
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
		ck_assert_uint_eq(dbha__rng_next(&rng), known[i]);
}
END_TEST

START_TEST(below_stays_below)
{
	static const uint64_t limits[] = {1, 2, 3, 10, 1000, 0xffffffff, 0x100000000, 0x100000001, 1ull << 63, UINT64_MAX};
	struct rng rng = {99};
	ck_assert_uint_eq(dbha__rng_below(&rng, 0), 0);
	for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
		uint64_t most = 0;
		uint64_t least = UINT64_MAX;
		for (int k = 0; k < 10000; k++) {
			uint64_t n = dbha__rng_below(&rng, limits[i]);
			most = n > most ? n : most;
			least = n < least ? n : least;
		}
		ck_assert_uint_lt(most, limits[i]);
		ck_assert_uint_le(least, limits[i] / 100);
		ck_assert_uint_ge(most, limits[i] - 1 - limits[i] / 100);
	}
}
END_TEST

/* Against the arithmetic that C11 does not have: the high half of the product of two numbers of 64 bits. */
START_TEST(below_is_the_high_half_of_a_product)
{
	struct rng rng = {5};
	for (int i = 0; i < 100000; i++) {
		struct rng same = rng;
		uint64_t n = dbha__rng_next(&same) >> (i % 64);
		struct rng a = same;
		struct rng b = same;
		__extension__ typedef unsigned __int128 wide;
		uint64_t expected = (uint64_t)((wide)dbha__rng_next(&a) * n >> 64);
		if (dbha__rng_below(&b, n) != expected)
			ck_abort_msg("below %llu, draw %d", (unsigned long long)n, i);
		rng = a;
	}
}
END_TEST

START_TEST(every_handle_has_its_own_seed)
{
	int a = 0;
	int b = 0;
	uint64_t seeds[100] = {0};
	ck_assert_uint_ne(dbha__rng_entropy(&a), dbha__rng_entropy(&b));
	for (int i = 0; i < 100; i++) {
		seeds[i] = dbha__rng_entropy(&seeds[i]);
		for (int k = 0; k < i; k++)
			ck_assert_uint_ne(seeds[i], seeds[k]);
	}
}
END_TEST

/* ---- wake-up ------------------------------------------------------------------------------------------------ */

static bool is_readable(const struct wake *wake)
{
	struct pollfd item = {.fd = wake->read_fd, .events = POLLIN};
	return poll(&item, 1, 0) == 1;
}

START_TEST(many_signals_count_as_one)
{
	struct wake wake;
	ck_assert_int_eq(dbha__wake_init(&wake), 0);
	ck_assert(!is_readable(&wake));
	dbha__wake_drain(&wake); /* nothing there: must not block */
	for (int i = 0; i < 100000; i++)
		dbha__wake_signal(&wake); /* more than a pipe holds: must not block */
	ck_assert(is_readable(&wake));
	ck_assert(is_readable(&wake));
	dbha__wake_drain(&wake);
	ck_assert(!is_readable(&wake));
	dbha__wake_signal(&wake);
	ck_assert(is_readable(&wake));
	ck_assert(fcntl(wake.read_fd, F_GETFD) & FD_CLOEXEC);
	dbha__wake_fini(&wake);
	dbha__wake_fini(&wake);
	ck_assert_int_eq(wake.read_fd, -1);
}
END_TEST

static void *signal_wake(void *arg)
{
	dbha__wake_signal(arg);
	return NULL;
}

START_TEST(another_thread_ends_a_poll)
{
	struct wake wake;
	pthread_t thread;
	ck_assert_int_eq(dbha__wake_init(&wake), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, signal_wake, &wake), 0);
	struct pollfd item = {.fd = wake.read_fd, .events = POLLIN};
	ck_assert_int_eq(poll(&item, 1, -1), 1);
	pthread_join(thread, NULL);
	dbha__wake_fini(&wake);
}
END_TEST

/* ---- log ---------------------------------------------------------------------------------------------------- */

static size_t read_file(const char *path, char *out, size_t size)
{
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	size_t n = fread(out, 1, size - 1, file);
	out[n] = '\0';
	fclose(file);
	return n;
}

static void temporary_path(char path[32])
{
	snprintf(path, 32, "/tmp/dbha_base_XXXXXX");
	int fd = mkstemp(path);
	ck_assert_int_ge(fd, 0);
	close(fd);
}

START_TEST(the_log_is_lines_of_its_level_and_above)
{
	char path[32], text[2000];
	struct trace trace;
	temporary_path(path);
	ck_assert_int_eq(dbha__trace_init(&trace, TRACE_WARNING, path), 0);
	dbha__trace(&trace, TRACE_ERROR, "node %d is %s", 3, "gone");
	dbha__trace(&trace, TRACE_WARNING, "take care");
	dbha__trace(&trace, TRACE_INFO, "not for here");
	dbha__trace(&trace, TRACE_DEBUG, "nor this");
	dbha__trace_fini(&trace);
	dbha__trace(&trace, TRACE_ERROR, "after the end");
	dbha__trace_fini(&trace);
	read_file(path, text, sizeof text);
	ck_assert_ptr_nonnull(strstr(text, " dbha ERROR: node 3 is gone\n"));
	ck_assert_ptr_nonnull(strstr(text, " dbha WARNING: take care\n"));
	ck_assert_ptr_null(strstr(text, "not for here"));
	ck_assert_ptr_null(strstr(text, "nor this"));
	ck_assert_ptr_null(strstr(text, "after the end"));
	int year, month, day;
	ck_assert_int_eq(sscanf(text, "%4d-%2d-%2dT", &year, &month, &day), 3);
	unlink(path);
}
END_TEST

/* Every length around the size of the buffer: always one whole line, and none over the other. */
START_TEST(a_long_line_is_cut_and_still_a_line)
{
	static char text[4000], much[2000];
	char path[32];
	temporary_path(path);
	memset(much, 'z', sizeof much - 1);
	for (int length = 940; length < 1100; length++) {
		struct trace trace;
		ck_assert_int_eq(truncate(path, 0), 0);
		ck_assert_int_eq(dbha__trace_init(&trace, TRACE_DEBUG, path), 0);
		dbha__trace(&trace, TRACE_INFO, "%.*s", length, much);
		dbha__trace_fini(&trace);
		size_t n = read_file(path, text, sizeof text);
		if (n == 0 || n > 1024 || text[n - 1] != '\n' || text[n - 2] != 'z' || strchr(text, '\n') != text + n - 1 ||
		    strlen(text) != n)
			ck_abort_msg("a message of %d makes a line of %zu", length, n);
	}
	unlink(path);
}
END_TEST

START_TEST(no_log_unless_asked_for)
{
	struct trace trace;
	ck_assert_int_eq(dbha__trace_init(&trace, TRACE_OFF, "/tmp/dbha_must_not_be_made"), 0);
	ck_assert_int_eq(trace.fd, -1);
	ck_assert_int_ne(access("/tmp/dbha_must_not_be_made", F_OK), 0);
	dbha__trace(&trace, TRACE_ERROR, "nobody hears this");
	ck_assert_int_eq(dbha__trace_init(&trace, TRACE_DEBUG, NULL), 0);
	ck_assert_int_eq(trace.fd, -1);
	dbha__trace_fini(&trace);
	errno = 0;
	ck_assert_int_eq(dbha__trace_init(&trace, TRACE_DEBUG, "/nonexistent/directory/log"), -1);
	ck_assert_int_eq(errno, ENOENT);
	ck_assert_int_eq(trace.fd, -1);
}
END_TEST

START_TEST(closing_the_log_leaves_stderr_open)
{
	struct trace trace;
	ck_assert_int_eq(dbha__trace_init(&trace, TRACE_ERROR, "stderr"), 0);
	ck_assert_int_gt(trace.fd, 2);
	dbha__trace_fini(&trace);
	ck_assert_int_ne(fcntl(2, F_GETFD), -1);
}
END_TEST

/* ---- errors ------------------------------------------------------------------------------------------------- */

START_TEST(an_error_is_filled_whole)
{
	dbha_error err;
	memset(&err, 0xff, sizeof err);
	ck_assert_int_eq(dbha__fail(&err, DBHA_ERR_NO_NODE, "tried %d nodes: %s", 3, "none"), DBHA_ERR_NO_NODE);
	ck_assert_int_eq(err.code, DBHA_ERR_NO_NODE);
	ck_assert_str_eq(err.sqlstate, "08001");
	ck_assert_str_eq(err.message, "tried 3 nodes: none");
	ck_assert_str_eq(err.node, "");
	ck_assert_int_eq(err.attempts, 0);
	ck_assert(!err.retry_safe);
	ck_assert(!err.outcome_unknown);
}
END_TEST

START_TEST(an_error_needs_no_place_and_a_long_one_is_cut)
{
	static char much[2 * DBHA_MESSAGE_MAX];
	dbha_error err;
	memset(much, 'm', sizeof much - 1);
	ck_assert_int_eq(dbha__fail(NULL, DBHA_ERR_POOL, "%s", much), DBHA_ERR_POOL);
	ck_assert_int_eq(dbha__fail(&err, DBHA_ERR_POOL, "%s", much), DBHA_ERR_POOL);
	ck_assert_uint_eq(strlen(err.message), DBHA_MESSAGE_MAX - 1);
	dbha__fail(&err, 12345, "no such code");
	ck_assert_str_eq(err.sqlstate, "");
}
END_TEST

/* ---- mutexes and conditions --------------------------------------------------------------------------------- */

START_TEST(mutexes_are_taken_in_rising_rank)
{
	struct mutex mutexes[RANK_EVENTS + 1];
	for (int rank = RANK_REGISTRY; rank <= RANK_EVENTS; rank++)
		ck_assert_int_eq(dbha__mutex_init(&mutexes[rank], (enum mutex_rank)rank), 0);
	for (int rank = RANK_REGISTRY; rank <= RANK_EVENTS; rank++)
		dbha__mutex_lock(&mutexes[rank]);
	/* In whatever order they are given back. */
	dbha__mutex_unlock(&mutexes[RANK_POOL]);
	dbha__mutex_unlock(&mutexes[RANK_EVENTS]);
	dbha__mutex_unlock(&mutexes[RANK_REGISTRY]);
	dbha__mutex_unlock(&mutexes[RANK_RESOLVER]);
	dbha__mutex_unlock(&mutexes[RANK_HANDLE]);
	dbha__mutex_unlock(&mutexes[RANK_ENGINE]);
	dbha__mutex_unlock(&mutexes[RANK_STEPPING]);
	dbha__mutex_unlock(&mutexes[RANK_VIEW]);
	dbha__mutex_unlock(&mutexes[RANK_SESSION]);
	dbha__mutex_lock(&mutexes[RANK_REGISTRY]);
	dbha__mutex_unlock(&mutexes[RANK_REGISTRY]);
	for (int rank = RANK_REGISTRY; rank <= RANK_EVENTS; rank++)
		dbha__mutex_fini(&mutexes[rank]);
}
END_TEST

START_TEST(fork_may_take_several_of_one_rank)
{
	struct mutex a, b;
	dbha__mutex_init(&a, RANK_POOL);
	dbha__mutex_init(&b, RANK_POOL);
	dbha__mutex_lock_for_fork(&a);
	dbha__mutex_lock_for_fork(&b);
	dbha__mutex_unlock_after_fork(&a);
	dbha__mutex_unlock_after_fork(&b);
	dbha__mutex_fini(&a);
	dbha__mutex_fini(&b);
}
END_TEST

#ifdef DBHA_DEVELOPER
/* What only we can do wrong. Each runs in a child of its own, which must end by abort(). */
static void wrong_order(void)
{
	struct mutex pool, handle;
	dbha__mutex_init(&pool, RANK_POOL);
	dbha__mutex_init(&handle, RANK_HANDLE);
	dbha__mutex_lock(&pool);
	dbha__mutex_lock(&handle);
}

static void same_rank(void)
{
	struct mutex a, b;
	dbha__mutex_init(&a, RANK_POOL);
	dbha__mutex_init(&b, RANK_POOL);
	dbha__mutex_lock(&a);
	dbha__mutex_lock(&b);
}

static void order_is_kept_after_a_release_in_the_middle(void)
{
	struct mutex handle, pool, events;
	dbha__mutex_init(&handle, RANK_HANDLE);
	dbha__mutex_init(&pool, RANK_POOL);
	dbha__mutex_init(&events, RANK_EVENTS);
	dbha__mutex_lock(&handle);
	dbha__mutex_lock(&events);
	dbha__mutex_unlock(&handle);
	dbha__mutex_lock(&pool);
}

static void unlock_of_what_is_not_held(void)
{
	struct mutex pool;
	dbha__mutex_init(&pool, RANK_POOL);
	pthread_mutex_lock(&pool.m);
	dbha__mutex_unlock(&pool);
}

static void (*const wrongs[])(void) = {
    wrong_order,
    same_rank,
    order_is_kept_after_a_release_in_the_middle,
    unlock_of_what_is_not_held,
};

START_TEST(a_broken_order_stops_a_developer_build)
{
	pid_t child = fork();
	ck_assert_int_ge(child, 0);
	if (child == 0) {
		signal(SIGABRT, SIG_DFL);
		wrongs[_i]();
		_exit(0);
	}
	int status = 0;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "case %d: status %x", _i, (unsigned)status);
}
END_TEST
#endif

struct gate {
	struct mutex lock;
	struct cond changed;
	int waiting, open;
};

static void *wait_at_gate(void *arg)
{
	struct gate *gate = arg;
	dbha__mutex_lock(&gate->lock);
	gate->waiting++;
	dbha__cond_broadcast(&gate->changed);
	while (!gate->open)
		dbha__cond_wait(&gate->changed, &gate->lock, CLOCK_NEVER);
	gate->waiting--;
	dbha__mutex_unlock(&gate->lock);
	return NULL;
}

START_TEST(a_broadcast_wakes_everybody)
{
	struct gate gate = {.waiting = 0};
	pthread_t threads[8];
	dbha__mutex_init(&gate.lock, RANK_VIEW);
	dbha__cond_init(&gate.changed);
	for (int i = 0; i < 8; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, wait_at_gate, &gate), 0);
	dbha__mutex_lock(&gate.lock);
	while (gate.waiting < 8)
		dbha__cond_wait(&gate.changed, &gate.lock, CLOCK_NEVER);
	gate.open = 1;
	dbha__cond_broadcast(&gate.changed);
	dbha__mutex_unlock(&gate.lock);
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(gate.waiting, 0);
	dbha__cond_fini(&gate.changed);
	dbha__mutex_fini(&gate.lock);
}
END_TEST

START_TEST(a_wait_ends_at_its_deadline)
{
	struct mutex mutex;
	struct cond cond;
	dbha__mutex_init(&mutex, RANK_VIEW);
	ck_assert_int_eq(dbha__cond_init(&cond), 0);
	dbha__mutex_lock(&mutex);
	ck_assert(!dbha__cond_wait(&cond, &mutex, 0));
	ck_assert(!dbha__cond_wait(&cond, &mutex, dbha__clock_now()));
	/* On the monotonic clock: a deadline of the other one would be decades away, and this would not come back. */
	int64_t deadline = dbha__clock_now() + 2000;
	while (dbha__cond_wait(&cond, &mutex, deadline))
		;
	ck_assert_int_ge(dbha__clock_now(), deadline);
	dbha__mutex_unlock(&mutex);
	dbha__cond_fini(&cond);
	dbha__mutex_fini(&mutex);
}
END_TEST

static TCase *make_tests(void)
{
	TCase *tcase = tcase_create("base");
	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, monotonic_time_never_goes_back);
	tcase_add_loop_test(tcase, poll_is_told_to_wait_long_enough, 0, sizeof polls / sizeof polls[0]);
	tcase_add_test(tcase, a_seed_gives_the_known_numbers);
	tcase_add_test(tcase, below_stays_below);
	tcase_add_test(tcase, below_is_the_high_half_of_a_product);
	tcase_add_test(tcase, every_handle_has_its_own_seed);
	tcase_add_test(tcase, many_signals_count_as_one);
	tcase_add_test(tcase, another_thread_ends_a_poll);
	tcase_add_test(tcase, the_log_is_lines_of_its_level_and_above);
	tcase_add_test(tcase, a_long_line_is_cut_and_still_a_line);
	tcase_add_test(tcase, no_log_unless_asked_for);
	tcase_add_test(tcase, closing_the_log_leaves_stderr_open);
	tcase_add_test(tcase, an_error_is_filled_whole);
	tcase_add_test(tcase, an_error_needs_no_place_and_a_long_one_is_cut);
	tcase_add_test(tcase, mutexes_are_taken_in_rising_rank);
	tcase_add_test(tcase, fork_may_take_several_of_one_rank);
#ifdef DBHA_DEVELOPER
	tcase_add_loop_test(tcase, a_broken_order_stops_a_developer_build, 0, sizeof wrongs / sizeof wrongs[0]);
#endif
	tcase_add_test(tcase, a_broadcast_wakes_everybody);
	tcase_add_test(tcase, a_wait_ends_at_its_deadline);
	return tcase;
}

static Suite *base_suite(void)
{
	Suite *suite = suite_create("base");
	suite_add_tcase(suite, make_tests());
	return suite;
}

UNIT_MAIN(base_suite)
