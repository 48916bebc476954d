/*
 * test_poller: one descriptor that stands for others and for a moment in time, or the word that this system has none.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dbha_build.h"

#include "clock.h"
#include "poller.h"
#include "unit.h"
#include "wake.h"

#if defined(HAVE_SYS_EPOLL_H) && defined(HAVE_SYS_TIMERFD_H)

/* As an application's loop would find it, within 5 s. */
static bool becomes_readable(const struct poller *p)
{
	struct pollfd item = {.fd = p->fd, .events = POLLIN};
	return poll(&item, 1, 5000) == 1;
}

START_TEST(it_tells_who_is_ready_until_that_is_taken)
{
	struct poller p;
	struct wake one, other;
	void *who[4];
	ck_assert_int_eq(dbha__poller_init(&p), 0);
	ck_assert_int_eq(dbha__wake_init(&one), 0);
	ck_assert_int_eq(dbha__wake_init(&other), 0);
	ck_assert(dbha__poller_add(&p, one.read_fd, &one));
	ck_assert(dbha__poller_add(&p, other.read_fd, &other));
	ck_assert(!dbha__poller_is_ready(&p));
	ck_assert_int_eq(dbha__poller_look(&p, who, 4), 0);
	dbha__wake_signal(&other);
	for (int i = 0; i < 3; i++) {
		ck_assert(dbha__poller_is_ready(&p));
		ck_assert_int_eq(dbha__poller_look(&p, who, 4), 1);
		ck_assert_ptr_eq(who[0], &other);
	}
	dbha__wake_signal(&one);
	ck_assert_int_eq(dbha__poller_look(&p, who, 1), 1);
	ck_assert_int_eq(dbha__poller_look(&p, who, 4), 2);
	dbha__wake_drain(&other);
	dbha__poller_remove(&p, one.read_fd);
	ck_assert(!dbha__poller_is_ready(&p));
	dbha__poller_fini(&p);
	dbha__poller_fini(&p);
	ck_assert_int_eq(p.fd, -1);
	dbha__wake_fini(&one);
	dbha__wake_fini(&other);
}
END_TEST

START_TEST(it_tells_of_room_to_write_only_where_that_is_wanted)
{
	struct poller p;
	int pair[2];
	void *who[4];
	ck_assert_int_eq(dbha__poller_init(&p), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	ck_assert(dbha__poller_add(&p, pair[0], pair));
	ck_assert_int_eq(dbha__poller_look(&p, who, 4), 0);
	ck_assert(dbha__poller_change(&p, pair[0], pair, true));
	ck_assert_int_eq(dbha__poller_look(&p, who, 4), 1);
	ck_assert_ptr_eq(who[0], pair);
	ck_assert(dbha__poller_change(&p, pair[0], pair, false));
	ck_assert_int_eq(dbha__poller_look(&p, who, 4), 0);
	dbha__poller_fini(&p);
	close(pair[0]);
	close(pair[1]);
}
END_TEST

START_TEST(its_timer_goes_off_at_its_time_and_stays_so_until_it_is_set)
{
	struct poller p;
	void *who[4];
	ck_assert_int_eq(dbha__poller_init(&p), 0);
	ck_assert_int_eq(p.armed_us, CLOCK_NEVER);
	ck_assert(fcntl(p.fd, F_GETFD) & FD_CLOEXEC);
	int64_t at = dbha__clock_now() + 20000;
	dbha__poller_arm(&p, at);
	ck_assert_int_eq(p.armed_us, at);
	ck_assert(becomes_readable(&p));
	ck_assert_int_ge(dbha__clock_now(), at);
	ck_assert_int_eq(dbha__poller_look(&p, who, 4), 1);
	ck_assert_ptr_null(who[0]);
	ck_assert(dbha__poller_is_ready(&p));
	dbha__poller_arm(&p, dbha__clock_now() + 3600000000);
	ck_assert(!dbha__poller_is_ready(&p));
	/* The beginning of time is not "never". */
	dbha__poller_arm(&p, 0);
	ck_assert(becomes_readable(&p));
	dbha__poller_arm(&p, CLOCK_NEVER);
	ck_assert(!dbha__poller_is_ready(&p));
	dbha__poller_fini(&p);
}
END_TEST

static Suite *poller_suite(void)
{
	Suite *suite = suite_create("poller");
	TCase *tcase = tcase_create("poller");
	tcase_add_test(tcase, it_tells_who_is_ready_until_that_is_taken);
	tcase_add_test(tcase, it_tells_of_room_to_write_only_where_that_is_wanted);
	tcase_add_test(tcase, its_timer_goes_off_at_its_time_and_stays_so_until_it_is_set);
	suite_add_tcase(suite, tcase);
	return suite;
}

#else

START_TEST(it_says_that_there_is_none)
{
	struct poller p;
	errno = 0;
	ck_assert_int_eq(dbha__poller_init(&p), -1);
	ck_assert_int_eq(errno, ENOSYS);
	dbha__poller_fini(&p);
}
END_TEST

static Suite *poller_suite(void)
{
	Suite *suite = suite_create("poller");
	TCase *tcase = tcase_create("poller");
	tcase_add_test(tcase, it_says_that_there_is_none);
	suite_add_tcase(suite, tcase);
	return suite;
}

#endif

UNIT_MAIN(poller_suite)
