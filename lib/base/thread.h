/*
 * thread: starts a thread of the library. All signals are blocked in it: signals are the application's.
 */
#ifndef DBHA_BASE_THREAD_H
#define DBHA_BASE_THREAD_H

#include <pthread.h>

/* Starts run(arg). `thread` NULL: detached. 0, or an errno. */
int dbha__thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

#endif
