#include "vtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#define THREADS_MAX 4096 /* in one history: every lookup of a name and every cancel request is one */
#define STACK_BYTES ((size_t)256 * 1024)
#define ARENA_BYTES ((size_t)64 * 1024 * 1024)
#define EVENTS_MAX  3000000 /* more than any history needs: something runs in a circle */

struct event {
	int64_t at;
	uint64_t order;
	void (*fn)(void *arg, uint64_t number);
	void *arg;
	uint64_t number;
};

/* A stack and where it stands; used again by later threads. */
struct context {
	ucontext_t uc;
	void *stack;
	struct context *next_free;
};

static struct {
	int64_t now;
	uint64_t order;
	struct rng rng;
	struct event *heap;
	size_t n, size;
	struct co *running;
	ucontext_t main;
	struct co threads[THREADS_MAX];
	int n_threads, n_alive;
	struct context *free;
	char *arena;
	size_t used;
	long long n_run;
} s;

int64_t sim_now(void)
{
	return s.now;
}

int64_t sim_between(int64_t low, int64_t high)
{
	return low + (int64_t)dbha__rng_below(&s.rng, (uint64_t)(high - low) + 1);
}

bool sim_chance(int per_mille)
{
	return (int)dbha__rng_below(&s.rng, 1000) < per_mille;
}

/* ---- memory ------------------------------------------------------------------------------------------------ */

static void *map(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		perror("sim: mmap");
		exit(2);
	}
	return memory;
}

void *sched_alloc(size_t size)
{
	size = (size + 15) & ~(size_t)15;
	if (s.used + size > ARENA_BYTES) {
		fprintf(stderr, "sim: a history needs more memory than it should\n");
		exit(2);
	}
	void *memory = s.arena + s.used;
	s.used += size;
	memset(memory, 0, size);
	return memory;
}

/* ---- events ------------------------------------------------------------------------------------------------ */

static bool before(const struct event *a, const struct event *b)
{
	return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void swap(size_t a, size_t b)
{
	struct event event = s.heap[a];
	s.heap[a] = s.heap[b];
	s.heap[b] = event;
}

void sched_at(int64_t at, void (*fn)(void *arg, uint64_t number), void *arg, uint64_t number)
{
	if (s.n == s.size) {
		s.size = s.size ? 2 * s.size : 1024;
		s.heap = realloc(s.heap, s.size * sizeof *s.heap);
		if (!s.heap) {
			perror("sim");
			exit(2);
		}
	}
	size_t i = s.n++;
	s.heap[i] = (struct event){at > s.now ? at : s.now, s.order++, fn, arg, number};
	for (; i > 0 && before(&s.heap[i], &s.heap[(i - 1) / 2]); i = (i - 1) / 2)
		swap(i, (i - 1) / 2);
}

static struct event next_event(void)
{
	struct event first = s.heap[0];
	s.heap[0] = s.heap[--s.n];
	for (size_t i = 0;;) {
		size_t least = i;
		for (size_t child = 2 * i + 1; child <= 2 * i + 2; child++)
			if (child < s.n && before(&s.heap[child], &s.heap[least]))
				least = child;
		if (least == i)
			return first;
		swap(i, least);
		i = least;
	}
}

/* ---- threads ----------------------------------------------------------------------------------------------- */

static void give_way(void)
{
	struct context *own = s.running->context;
	swapcontext(&own->uc, &s.main);
}

static void body(void)
{
	struct co *co = s.running;
	co->run(co->arg);
	co->done = true;
	if (co->joiner)
		co_wake(co->joiner);
	give_way(); /* for good */
}

static void go_on(void *arg, uint64_t number)
{
	struct co *co = arg;
	if (co->done || co->waits != number)
		return;
	co->waiting = false;
	s.running = co;
	struct context *context = co->context;
	swapcontext(&s.main, &context->uc);
	s.running = NULL;
	if (!co->done)
		return;
	context->next_free = s.free;
	s.free = context;
	s.n_alive--;
}

static struct context *new_context(void)
{
	struct context *context = s.free;
	if (context) {
		s.free = context->next_free;
		return context;
	}
	context = calloc(1, sizeof *context);
	if (!context) {
		perror("sim");
		exit(2);
	}
	context->stack = map(STACK_BYTES);
	return context;
}

/* On its own, since getcontext() is one of the functions that may return twice. */
static void begin_context(struct context *context)
{
	getcontext(&context->uc);
	context->uc.uc_stack.ss_sp = context->stack;
	context->uc.uc_stack.ss_size = STACK_BYTES;
	makecontext(&context->uc, body, 0);
}

struct co *co_start(void *(*run)(void *arg), void *arg, bool detached)
{
	if (s.n_threads == THREADS_MAX) {
		fprintf(stderr, "sim: more than %d threads in one history\n", THREADS_MAX);
		exit(2);
	}
	struct co *co = &s.threads[s.n_threads++];
	struct context *context = new_context();
	memset(co, 0, sizeof *co);
	co->run = run;
	co->arg = arg;
	co->detached = detached;
	co->context = context;
	begin_context(context);
	s.n_alive++;
	sched_at(s.now, go_on, co, 0);
	return co;
}

struct co *co_self(void)
{
	return s.running;
}

bool co_wait(int64_t until)
{
	struct co *co = s.running;
	co->waits++;
	co->waiting = true;
	co->woken = false;
	if (until != SIM_NEVER)
		sched_at(until, go_on, co, co->waits);
	give_way();
	return co->woken;
}

void co_wake(struct co *co)
{
	if (!co->waiting)
		return;
	co->waiting = false;
	co->woken = true;
	co->waits++; /* its alarm, if it has one, has lost its meaning */
	sched_at(s.now, go_on, co, co->waits);
}

void co_sleep(int64_t us)
{
	int64_t until = s.now + us;
	while (s.now < until)
		co_wait(until);
}

void co_join(struct co *co)
{
	co->joiner = s.running;
	while (!co->done)
		co_wait(SIM_NEVER);
}

/* ---- a history --------------------------------------------------------------------------------------------- */

void sched_reset(uint64_t seed)
{
	for (int i = 0; i < s.n_threads; i++) {
		struct context *context = s.threads[i].context;
		if (s.threads[i].done)
			continue;
		context->next_free = s.free;
		s.free = context;
	}
	if (!s.arena)
		s.arena = map(ARENA_BYTES);
	s.now = 1000 * SIM_S;
	s.order = 0;
	s.rng.state = seed;
	s.n = 0;
	s.n_threads = s.n_alive = 0;
	s.used = 0;
	s.n_run = 0;
	s.running = NULL;
}

const char *sched_run(void)
{
	while (s.n_alive > 0) {
		if (s.n == 0)
			return "a thread waits for what never comes";
		if (++s.n_run > EVENTS_MAX)
			return "something runs in a circle";
		struct event event = next_event();
		s.now = event.at;
		event.fn(event.arg, event.number);
	}
	return NULL;
}
