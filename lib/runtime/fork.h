/*
 * fork: keeps a child from touching the parent's connections.
 *
 * pthread_atfork handlers, installed once per process: before fork() every mutex of every handle is taken, so that the child
 * finds whole structures; in the child every inherited socket is replaced by /dev/null before any other code runs. The
 * handle itself starts anew at its next call, which it knows by the generation.
 */
#ifndef DBHA_RUNTIME_FORK_H
#define DBHA_RUNTIME_FORK_H

#include "life.h"

/* Goes up by one in every forked child. */
unsigned dbha__fork_generation(void);

/* Adds and removes a handle. 0, or an errno. */
int dbha__fork_register(dbha *h);
void dbha__fork_unregister(dbha *h);

#endif
