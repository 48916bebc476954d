/*
 * test_fence_file: the fence in real files: torn ones, foreign ones, many writers at once, writers that are killed, directories
 * that may not be written, locks that nobody gives back.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "fence_file.h"
#include "rng.h"
#include "unit.h"

#define OURS    7001
#define THEIRS  9009
#define WRITERS 8
#define ROUNDS  25
#define KILLS   60

static char directory[1024], path[1040];

static void begin(void)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(directory, sizeof directory, "%s/dbha-fence-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(directory));
	snprintf(path, sizeof path, "%s/fence", directory);
}

static const char *beside(const char *suffix)
{
	static char name[1056];
	snprintf(name, sizeof name, "%s%s", path, suffix);
	return name;
}

static void end(void)
{
	static const char *const suffixes[] = {"", ".lock", ".new", ".other"};
	chmod(directory, 0700);
	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
		if (unlink(beside(suffixes[i])) != 0)
			rmdir(beside(suffixes[i]));
	ck_assert_int_eq(rmdir(directory), 0);
}

static void write_bytes(const char *name, const char *text, size_t length)
{
	FILE *file = fopen(name, "w");
	ck_assert_ptr_nonnull(file);
	ck_assert_uint_eq(fwrite(text, 1, length, file), length);
	fclose(file);
}

static size_t read_bytes(char text[FENCE_TEXT_MAX])
{
	FILE *file = fopen(path, "r");
	ck_assert_ptr_nonnull(file);
	size_t length = fread(text, 1, FENCE_TEXT_MAX, file);
	fclose(file);
	return length;
}

/* A handle's file object, opened; must succeed. */
static struct fence_file opened(uint64_t accept)
{
	struct fence_file file;
	dbha_error err;
	dbha__fence_file_init(&file, path, accept);
	ck_assert_msg(dbha__fence_file_open(&file, &err) == DBHA_OK, "%s", err.message);
	return file;
}

static void keep(struct fence_file *file, uint64_t cluster, uint32_t timeline)
{
	dbha__fence_file_keep(file, cluster, timeline, dbha__clock_now());
}

/* What a new process would learn of a cluster: its timeline, -1 if it is not the first one. */
static int64_t learned(uint64_t cluster)
{
	struct fence_file file = opened(0);
	const struct fence_entry *first = dbha__fence_first(&file.stored);
	int64_t timeline = first && first->system_identifier == cluster ? (int64_t)first->timeline : -1;
	dbha__fence_file_fini(&file);
	return timeline;
}

static void refused(const char *because)
{
	struct fence_file file;
	dbha_error err;
	dbha__fence_file_init(&file, path, 0);
	ck_assert_int_eq(dbha__fence_file_open(&file, &err), DBHA_ERR_CONFIG);
	ck_assert_msg(strstr(err.message, path) && strstr(err.message, because), "%s", err.message);
	dbha__fence_file_fini(&file);
}

/* ---- one process -------------------------------------------------------------------------------------------------- */

START_TEST(a_file_that_is_not_there_is_made_and_outlives_its_writer)
{
	struct fence_file file = opened(0);
	struct stat st;
	keep(&file, 0, 0);
	ck_assert_int_ne(stat(path, &st), 0); /* nothing is known yet */
	keep(&file, OURS, 3);
	ck_assert_str_eq(file.trouble, "");
	ck_assert_int_eq(stat(path, &st), 0);
	ck_assert_int_eq(st.st_mode & 07777, 0600);
	ck_assert_int_ne(stat(beside(".new"), &st), 0);
	keep(&file, OURS, 2);
	ck_assert_int_eq(learned(OURS), 3);
	keep(&file, OURS, 4);
	ck_assert_int_eq(learned(OURS), 4);
	dbha__fence_file_fini(&file);
	ck_assert_int_eq(learned(OURS), 4);
}
END_TEST

START_TEST(nothing_new_costs_no_write)
{
	struct fence_file file = opened(0);
	struct stat before, after;
	keep(&file, OURS, 3);
	stat(path, &before);
	for (int i = 0; i < 100; i++)
		keep(&file, OURS, 3);
	stat(path, &after);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	ck_assert_int_eq(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
	dbha__fence_file_fini(&file);
}
END_TEST

START_TEST(one_without_a_path_does_nothing)
{
	struct fence_file file;
	dbha__fence_file_init(&file, NULL, 0);
	ck_assert_int_eq(dbha__fence_file_open(&file, NULL), DBHA_OK);
	keep(&file, OURS, 3);
	ck_assert_uint_eq(dbha__fence_file_acceptable(&file), 0);
	ck_assert_str_eq(file.trouble, "");
	dbha__fence_file_fini(&file);
}
END_TEST

START_TEST(a_file_torn_at_any_byte_is_refused_and_left_alone)
{
	char text[FENCE_TEXT_MAX], now[FENCE_TEXT_MAX];
	struct fence_file file = opened(0);
	keep(&file, OURS, 3);
	dbha__fence_file_fini(&file);
	size_t length = read_bytes(text);
	for (size_t n = 0; n < length; n++) {
		ck_assert_int_eq(truncate(path, (off_t)n), 0);
		refused("damaged");
		ck_assert_uint_eq(read_bytes(now), n);
		write_bytes(path, text, length);
	}
	ck_assert_int_eq(learned(OURS), 3);
}
END_TEST

/* A handle that runs knows what it knows; what lies there now may be somebody else's. */
START_TEST(a_file_that_is_overwritten_while_a_handle_runs_is_reported_and_left_alone)
{
	char text[FENCE_TEXT_MAX];
	struct fence_file file = opened(0);
	keep(&file, OURS, 3);
	write_bytes(path, "poems\n", 6);
	keep(&file, OURS, 4);
	ck_assert_msg(strstr(file.trouble, path) && strstr(file.trouble, "damaged"), "%s", file.trouble);
	ck_assert_uint_eq(read_bytes(text), 6);
	unlink(path);
	keep(&file, OURS, 4);
	ck_assert_str_eq(file.trouble, "");
	ck_assert_int_eq(learned(OURS), 4);
	dbha__fence_file_fini(&file);
}
END_TEST

START_TEST(what_is_no_plain_file_is_refused)
{
	ck_assert_int_eq(symlink(beside(".other"), path), 0);
	refused("symbolic link");
	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	refused("no regular file"); /* and nobody waits for a writer */
	unlink(path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	refused("cannot be read");
	rmdir(path);
	write_bytes(path, "dbha-fence 2\n", 13);
	refused("newer version");
	unlink(path);
	/* A link in the place of the lock or of the new file leads nobody to write elsewhere. */
	ck_assert_int_eq(symlink("/dev/null", beside(".new")), 0);
	struct fence_file file = opened(0);
	keep(&file, OURS, 3);
	ck_assert_int_eq(learned(OURS), 3);
	dbha__fence_file_fini(&file);
	struct stat st;
	ck_assert_int_eq(lstat(path, &st), 0);
	ck_assert(S_ISREG(st.st_mode));
}
END_TEST

START_TEST(another_cluster_is_left_alone_until_it_is_accepted)
{
	dbha_error err;
	struct fence_file first = opened(0), second = opened(0), third = opened(THEIRS);
	keep(&first, OURS, 3);
	keep(&second, THEIRS, 1);
	ck_assert_int_eq(learned(OURS), 3);
	ck_assert_uint_eq(dbha__fence_first(&second.stored)->system_identifier, OURS);
	keep(&third, 0, 0);
	ck_assert_uint_eq(dbha__fence_file_acceptable(&third), THEIRS);
	keep(&third, THEIRS, 1);
	ck_assert_int_eq(learned(THEIRS), 1);
	ck_assert_uint_eq(dbha__fence_file_acceptable(&third), 0);
	/* Going back is a decision for people, and what was known of the timeline still counts. */
	struct fence_file fourth = opened(OURS);
	ck_assert_uint_eq(dbha__fence_file_acceptable(&fourth), 0);
	ck_assert_msg(dbha__fence_file_accept(path, OURS, &err) == DBHA_OK, "%s", err.message);
	ck_assert_int_eq(learned(OURS), 3);
	keep(&third, THEIRS, 1);
	ck_assert_uint_eq(dbha__fence_first(&third.stored)->system_identifier, OURS);
	struct fence_file *all[] = {&first, &second, &third, &fourth};
	for (int i = 0; i < 4; i++)
		dbha__fence_file_fini(all[i]);
}
END_TEST

/* ---- several processes ------------------------------------------------------------------------------------------- */

/* Runs in a child, which leaves with 0 if it returns true. */
static pid_t start_child(bool (*function)(int), int arg)
{
	fflush(NULL);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0)
		_exit(function(arg) ? 0 : 1);
	return pid;
}

static int end_of(pid_t pid)
{
	int status;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* A lock that is busy is not waited for long; the next look tries again. Returns what the file then has, at least this; 0: nothing. */
static uint32_t raise_to(struct fence_file *file, uint32_t timeline)
{
	for (int tries = 0; tries < 50; tries++) {
		file->retry_us = 0;
		keep(file, OURS, timeline);
		if (!file->trouble[0])
			break;
	}
	const struct fence_entry *first = dbha__fence_first(&file->stored);
	return !file->trouble[0] && first && first->timeline >= timeline ? first->timeline : 0;
}

static int
    asked[2]; /* the timelines that the writers saw come through this pipe, before they ask for them to be kept */

/* Each one sees higher timelines than all before it; and is never told less than it knew. */
static bool raise_many(int seed)
{
	struct fence_file file;
	struct rng rng = {.state = (uint64_t)seed};
	uint32_t timeline = 0;
	dbha__fence_file_init(&file, path, 0);
	if (dbha__fence_file_open(&file, NULL) != DBHA_OK)
		return false;
	for (int i = 0; i < ROUNDS; i++) {
		uint32_t seen = timeline + 1 + (uint32_t)dbha__rng_below(&rng, 40);
		if (write(asked[1], &seen, sizeof seen) != (ssize_t)sizeof seen)
			return false;
		timeline = raise_to(&file, seen);
		if (timeline == 0)
			return false;
	}
	return true;
}

START_TEST(many_writers_at_once_and_the_timeline_never_goes_down)
{
	ck_assert_int_eq(pipe(asked), 0);
	for (int i = 0; i < WRITERS; i++)
		start_child(raise_many, i);
	struct fence_file reader = opened(0);
	uint32_t last = 0, highest = 0, seen;
	int left = WRITERS, failed = 0;
	while (left > 0) {
		keep(&reader, 0, 0);
		ck_assert_str_eq(reader.trouble, "");
		const struct fence_entry *first = dbha__fence_first(&reader.stored);
		ck_assert_uint_ge(first ? first->timeline : 0, last);
		last = first ? first->timeline : 0;
		int status;
		if (waitpid(-1, &status, WNOHANG) > 0) {
			left--;
			failed += status != 0;
		}
	}
	ck_assert_int_eq(failed, 0);
	close(asked[1]);
	while (read(asked[0], &seen, sizeof seen) == (ssize_t)sizeof seen)
		highest = seen > highest ? seen : highest;
	close(asked[0]);
	ck_assert_int_eq(learned(OURS), highest);
	dbha__fence_file_fini(&reader);
}
END_TEST

static bool write_until_killed(int from)
{
	struct fence_file file;
	dbha__fence_file_init(&file, path, 0);
	if (dbha__fence_file_open(&file, NULL) != DBHA_OK)
		return false;
	for (uint32_t timeline = (uint32_t)from;; timeline++)
		keep(&file, OURS, timeline);
}

START_TEST(a_writer_killed_at_any_moment_leaves_a_whole_file)
{
	struct rng rng = {.state = 1};
	int64_t known = 0;
	for (int i = 0; i < KILLS; i++) {
		pid_t pid = start_child(write_until_killed, (int)known + 1);
		int64_t until = dbha__clock_now() + 5000000;
		while (learned(OURS) <= known && dbha__clock_now() < until)
			;
		struct timespec ts = {.tv_nsec = (long)dbha__rng_below(&rng, 2000000)};
		nanosleep(&ts, NULL); /* so that the moment is another one each time */
		kill(pid, SIGKILL);
		ck_assert_int_eq(end_of(pid), 128 + SIGKILL);
		int64_t now = learned(OURS); /* which asserts that it can be read */
		ck_assert_int_gt(now, known);
		known = now;
	}
}
END_TEST

static bool hold_lock(int fd)
{
	int lock = open(beside(".lock"), O_RDWR | O_CREAT, 0600);
	bool held = lock >= 0 && flock(lock, LOCK_EX) == 0 && write(fd, "x", 1) == 1;
	while (held)
		pause();
	return false;
}

START_TEST(a_lock_that_nobody_gives_back_is_not_waited_for_long)
{
	int fds[2];
	char byte;
	struct fence_file file = opened(0);
	keep(&file, OURS, 3);
	ck_assert_int_eq(pipe(fds), 0);
	pid_t pid = start_child(hold_lock, fds[1]);
	ck_assert_int_eq(read(fds[0], &byte, 1), 1);
	int64_t began = dbha__clock_now();
	keep(&file, OURS, 4);
	int64_t took = dbha__clock_now() - began;
	ck_assert_int_ge(took, 35000);
	ck_assert_int_lt(took, 1000000);
	ck_assert_msg(strstr(file.trouble, "lock"), "%s", file.trouble);
	began = dbha__clock_now();
	dbha__fence_file_keep(&file, OURS, 4, file.retry_us - 1); /* not tried again before its time */
	ck_assert_int_lt(dbha__clock_now() - began, 50000);
	ck_assert_int_eq(learned(OURS), 3); /* readers need no lock */
	kill(pid, SIGKILL);
	end_of(pid);
	dbha__fence_file_keep(&file, OURS, 4, file.retry_us);
	ck_assert_str_eq(file.trouble, "");
	ck_assert_int_eq(learned(OURS), 4);
	dbha__fence_file_fini(&file);
	close(fds[0]);
	close(fds[1]);
}
END_TEST

/* Permissions do not bind root: what is about them is tried as somebody else. */
static bool drop_root(void)
{
	return geteuid() != 0 || (setgid(65534) == 0 && setuid(65534) == 0);
}

static bool open_is_refused(int arg)
{
	(void)arg;
	struct fence_file file;
	dbha_error err;
	dbha__fence_file_init(&file, path, 0);
	bool refusal = drop_root() && dbha__fence_file_open(&file, &err) == DBHA_ERR_CONFIG;
	bool good = refusal && strstr(err.message, path) && strstr(err.message, "Permission denied");
	if (!good)
		fprintf(stderr, "in the child: %s\n", refusal ? err.message : "was not refused");
	return good;
}

static bool runs_without_writing(int arg)
{
	(void)arg;
	struct fence_file file;
	dbha__fence_file_init(&file, path, 0);
	if (!drop_root() || dbha__fence_file_open(&file, NULL) != DBHA_OK)
		return false;
	keep(&file, OURS, 3);
	bool quiet = !file.trouble[0];
	keep(&file, OURS, 4);
	return quiet && strstr(file.trouble, path) && strstr(file.trouble, "cannot be written: Permission denied");
}

START_TEST(a_directory_that_may_not_be_written)
{
	/* Where there is no file, there would never be one. */
	ck_assert_int_eq(chmod(directory, 0555), 0);
	ck_assert_int_eq(end_of(start_child(open_is_refused, 0)), 0);
	ck_assert_int_eq(chmod(directory, 0700), 0);
	struct fence_file file = opened(0);
	keep(&file, OURS, 3);
	dbha__fence_file_fini(&file);
	/* A file that may be read binds its reader, who goes on and says what is wrong. */
	unlink(beside(".lock"));
	ck_assert_int_eq(chmod(path, 0644), 0);
	ck_assert_int_eq(chmod(directory, 0555), 0);
	ck_assert_int_eq(end_of(start_child(runs_without_writing, 0)), 0);
	/* One that may not be read does not count as a missing one. */
	ck_assert_int_eq(chmod(directory, 0755), 0);
	ck_assert_int_eq(chmod(path, geteuid() == 0 ? 0600 : 0), 0);
	ck_assert_int_eq(end_of(start_child(open_is_refused, 0)), 0);
	ck_assert_int_eq(chmod(path, 0600), 0);
	ck_assert_int_eq(learned(OURS), 3);
}
END_TEST

START_TEST(a_directory_that_does_not_exist)
{
	struct fence_file file;
	dbha_error err;
	dbha__fence_file_init(&file, "/nonexistent/directory/fence", 0);
	ck_assert_int_eq(dbha__fence_file_open(&file, &err), DBHA_ERR_CONFIG);
	ck_assert_msg(strstr(err.message, "its directory must exist"), "%s", err.message);
	dbha__fence_file_fini(&file);
}
END_TEST

/* The new file cannot be made, for a reason that binds root too; then it can. */
START_TEST(what_could_not_be_written_is_written_later)
{
	struct fence_file file = opened(0);
	keep(&file, OURS, 3);
	ck_assert_int_eq(mkdir(beside(".new"), 0700), 0);
	keep(&file, OURS, 4);
	ck_assert_msg(strstr(file.trouble, "cannot be written"), "%s", file.trouble);
	ck_assert_int_eq(learned(OURS), 3);
	ck_assert_int_eq(rmdir(beside(".new")), 0);
	dbha__fence_file_keep(&file, OURS, 4, file.retry_us - 1);
	ck_assert_str_ne(file.trouble, "");
	dbha__fence_file_keep(&file, OURS, 4, file.retry_us);
	ck_assert_str_eq(file.trouble, "");
	ck_assert_int_eq(learned(OURS), 4);
	dbha__fence_file_fini(&file);
}
END_TEST

static Suite *fence_file_suite(void)
{
	Suite *suite = suite_create("fence_file");
	TCase *one = tcase_create("one process"), *several = tcase_create("several processes");
	tcase_add_checked_fixture(one, begin, end);
	tcase_add_test(one, a_file_that_is_not_there_is_made_and_outlives_its_writer);
	tcase_add_test(one, nothing_new_costs_no_write);
	tcase_add_test(one, one_without_a_path_does_nothing);
	tcase_add_test(one, a_file_torn_at_any_byte_is_refused_and_left_alone);
	tcase_add_test(one, a_file_that_is_overwritten_while_a_handle_runs_is_reported_and_left_alone);
	tcase_add_test(one, what_is_no_plain_file_is_refused);
	tcase_add_test(one, another_cluster_is_left_alone_until_it_is_accepted);
	tcase_add_test(one, a_directory_that_does_not_exist);
	tcase_add_test(one, what_could_not_be_written_is_written_later);
	suite_add_tcase(suite, one);
	tcase_add_checked_fixture(several, begin, end);
	tcase_set_timeout(several, 120);
	tcase_add_test(several, many_writers_at_once_and_the_timeline_never_goes_down);
	tcase_add_test(several, a_writer_killed_at_any_moment_leaves_a_whole_file);
	tcase_add_test(several, a_lock_that_nobody_gives_back_is_not_waited_for_long);
	tcase_add_test(several, a_directory_that_may_not_be_written);
	suite_add_tcase(suite, several);
	return suite;
}

UNIT_MAIN(fence_file_suite)
