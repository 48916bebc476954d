/*
 * errand: a program that runs while the test goes on: an example under test, or a command of the harness that must not hold up a loop. It
 * is killed when the test program ends, however that ends.
 */
#ifndef ERRAND_H
#define ERRAND_H

#include "cluster.h"

/* Starts a command line of the shell: "exec PROGRAM" where it is to get signals. Must succeed. Its process. */
pid_t errand_start(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Whether it has ended. What it ended with is asserted to be 0. */
bool errand_done(pid_t pid);

/* A signal; then it must end, with 0, within PATIENCE_MS. */
void errand_end(pid_t pid, int signal);

/* Those that a failed test has left. */
void errands_kill(void);

#endif
