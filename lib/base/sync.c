#include "sync.h"

#include "dbha_build.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "clock.h"

#ifdef DBHA_DEVELOPER
/* The ranks this thread holds, one bit each. abort() is for developers only: the library never ends a user's process. */
static _Thread_local unsigned held;

static void rank_taken(const struct mutex *mutex)
{
	unsigned bit = 1u << mutex->rank;
	if (held >= bit)
		abort(); /* a mutex of this or a higher rank is held already */
	held |= bit;
}

static void rank_given(const struct mutex *mutex)
{
	unsigned bit = 1u << mutex->rank;
	if (!(held & bit))
		abort(); /* it is not held by this thread */
	held &= ~bit;
}
#else
static void rank_taken(const struct mutex *mutex)
{
	(void)mutex;
}

static void rank_given(const struct mutex *mutex)
{
	(void)mutex;
}
#endif

int dbha__mutex_init(struct mutex *mutex, enum mutex_rank rank)
{
	mutex->rank = rank;
	return pthread_mutex_init(&mutex->m, NULL);
}

void dbha__mutex_fini(struct mutex *mutex)
{
	pthread_mutex_destroy(&mutex->m);
}

/* The four bodies below are what the annotations describe; the analysis cannot see through pthreads. */
void dbha__mutex_lock(struct mutex *mutex) NO_ANALYSIS
{
	rank_taken(mutex);
	pthread_mutex_lock(&mutex->m);
}

void dbha__mutex_unlock(struct mutex *mutex) NO_ANALYSIS
{
	/* Before the unlock: afterwards whoever takes it may free what it lies in. */
	rank_given(mutex);
	pthread_mutex_unlock(&mutex->m);
}

void dbha__mutex_lock_for_fork(struct mutex *mutex) NO_ANALYSIS
{
	pthread_mutex_lock(&mutex->m);
}

void dbha__mutex_unlock_after_fork(struct mutex *mutex) NO_ANALYSIS
{
	pthread_mutex_unlock(&mutex->m);
}

int dbha__cond_init(struct cond *cond)
{
	pthread_condattr_t attr;
	int rc = pthread_condattr_init(&attr);
	if (rc)
		return rc;
	rc = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (!rc)
		rc = pthread_cond_init(&cond->c, &attr);
	pthread_condattr_destroy(&attr);
	return rc;
}

void dbha__cond_fini(struct cond *cond)
{
	pthread_cond_destroy(&cond->c);
}

void dbha__cond_signal(struct cond *cond)
{
	pthread_cond_signal(&cond->c);
}

void dbha__cond_broadcast(struct cond *cond)
{
	pthread_cond_broadcast(&cond->c);
}

bool dbha__cond_wait(struct cond *cond, struct mutex *mutex, int64_t deadline) NO_ANALYSIS
{
	if (deadline == CLOCK_NEVER)
		return pthread_cond_wait(&cond->c, &mutex->m) == 0;
	struct timespec until = {.tv_sec = deadline / 1000000, .tv_nsec = (deadline % 1000000) * 1000};
	return pthread_cond_timedwait(&cond->c, &mutex->m, &until) != ETIMEDOUT;
}
