#include "rng.h"

#include <unistd.h>

#include "clock.h"

/* Sebastiano Vigna's splitmix64 finalizer constants: https://prng.di.unimi.it/splitmix64.c */
static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

uint64_t dbha__rng_entropy(const void *salt)
{
	uint64_t seed = mix((uint64_t)dbha__clock_now());
	seed = mix(seed ^ (uint64_t)dbha__clock_unix());
	seed = mix(seed ^ (uint64_t)getpid());
	return mix(seed ^ (uint64_t)(uintptr_t)salt);
}

uint64_t dbha__rng_next(struct rng *rng)
{
	rng->state += 0x9e3779b97f4a7c15ULL;
	return mix(rng->state);
}

uint64_t dbha__rng_below(struct rng *rng, uint64_t n)
{
	/* The high half of a 64 by 64 bit product, from 32 bit halves: C11 has no 128 bit integer. */
	uint64_t x = dbha__rng_next(rng);
	uint64_t high = (x >> 32) * (n >> 32);
	uint64_t middle = (x >> 32) * (n & 0xffffffffu) + (((x & 0xffffffffu) * (n & 0xffffffffu)) >> 32);
	uint64_t middle2 = (x & 0xffffffffu) * (n >> 32) + (middle & 0xffffffffu);
	return high + (middle >> 32) + (middle2 >> 32);
}
