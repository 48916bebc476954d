/*
 * machine: the computer the library runs on: descriptors that can be polled, and how often its threads are preempted.
 */
#ifndef SIM_MACHINE_H
#define SIM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "vtime.h"

/* What poll(2) reports of a descriptor: asked whenever somebody looks. */
typedef short sim_ready(void *object);

void machine_reset(void);

/* Of 1000 operations on a mutex, at how many the thread loses the processor. */
void machine_set_preemption(int per_mille);

/* The wall clock of the client's computer jumps. */
void machine_step_clock(int64_t us);

/* A descriptor; never used again in this history. */
int machine_open(sim_ready *ready, void *object);

/* Something may have become ready: whoever polls the descriptor looks. */
void machine_notify(int fd);

#endif
