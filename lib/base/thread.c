#include "thread.h"

#include <signal.h>

int dbha__thread_start(pthread_t *thread, void *(*run)(void *), void *arg)
{
	pthread_attr_t attr;
	pthread_t detached;
	sigset_t all, old;
	int rc = pthread_attr_init(&attr);
	if (rc)
		return rc;
	if (!thread) {
		pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
		thread = &detached;
	}
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	rc = pthread_create(thread, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return rc;
}
