/*
 * backoff: exponential backoff with full jitter. Pure.
 *
 * The pause before retry n is drawn evenly from 0 to min(cap, base * 2^n): with "full jitter" the clients that failed
 * together come back spread over the whole interval (Marc Brooker, "Exponential Backoff And Jitter", AWS, 2015).
 */
#ifndef DBHA_POLICY_BACKOFF_H
#define DBHA_POLICY_BACKOFF_H

#include <stdint.h>

#include "rng.h"

/* The pause before retry number n (0: the first) in microseconds. base_ms, cap_ms: 0 and up. */
int64_t dbha__backoff_us(struct rng *rng, int base_ms, int cap_ms, int n);

#endif
