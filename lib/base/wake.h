/*
 * wake: makes a thread that sits in poll(2) return: an eventfd, or a pipe where there is none.
 */
#ifndef DBHA_BASE_WAKE_H
#define DBHA_BASE_WAKE_H

struct wake {
	int read_fd; /* poll it for POLLIN */
	int write_fd;
};

/* 0, or -1 with errno. */
int dbha__wake_init(struct wake *wake);
void dbha__wake_fini(struct wake *wake);

/* Any thread; never blocks. Several signals before a drain count as one. */
void dbha__wake_signal(struct wake *wake);

/* Makes read_fd unreadable again until the next signal. */
void dbha__wake_drain(struct wake *wake);

#endif
