/*
 * faults: what happens in a history: how it begins, what goes wrong, and that everything is mended at its end.
 */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "world.h"

/* The servers as a history finds them, and how the client's machine behaves. */
void faults_begin(void);

/* Starts what goes wrong from now on, until `until`. */
void faults_start(int64_t until);

/* Mends everything: one primary, everybody else its standby, no trouble. Returns the primary. */
int faults_mend(void);

#endif
