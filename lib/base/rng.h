/*
 * rng: seeded pseudo-randomness (splitmix64) for jitter and balancing. Not for secrets. A seed replays a run.
 */
#ifndef DBHA_BASE_RNG_H
#define DBHA_BASE_RNG_H

#include <stdint.h>

struct rng {
	uint64_t state;
};

/* A seed that differs between processes and handles: clocks, pid and an address mixed together. */
uint64_t dbha__rng_entropy(const void *salt);

/* The next 64 bits. */
uint64_t dbha__rng_next(struct rng *rng);

/* Evenly from 0 to n - 1; 0 if n is 0. The bias of the multiplication is below n / 2^64 and of no matter here. */
uint64_t dbha__rng_below(struct rng *rng, uint64_t n);

#endif
