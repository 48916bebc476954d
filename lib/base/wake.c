#include "wake.h"

#include "dbha_build.h"

#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>
#ifdef HAVE_SYS_EVENTFD_H
#include <sys/eventfd.h>
#endif

int dbha__wake_init(struct wake *wake)
{
#ifdef HAVE_SYS_EVENTFD_H
	wake->read_fd = wake->write_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return wake->read_fd < 0 ? -1 : 0;
#else
	int fds[2];
	if (pipe(fds) != 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		fcntl(fds[i], F_SETFD, FD_CLOEXEC);
		fcntl(fds[i], F_SETFL, O_NONBLOCK);
	}
	wake->read_fd = fds[0];
	wake->write_fd = fds[1];
	return 0;
#endif
}

void dbha__wake_fini(struct wake *wake)
{
	if (wake->read_fd < 0)
		return;
	close(wake->read_fd);
	if (wake->write_fd != wake->read_fd)
		close(wake->write_fd);
	wake->read_fd = wake->write_fd = -1;
}

void dbha__wake_signal(struct wake *wake)
{
	/* A full pipe or counter means that a wake-up is under way already. */
	uint64_t one = 1;
	ssize_t n = write(wake->write_fd, &one, sizeof one);
	(void)n;
}

void dbha__wake_drain(struct wake *wake)
{
	uint64_t buffer[16];
	while (read(wake->read_fd, buffer, sizeof buffer) == (ssize_t)sizeof buffer)
		;
}
