/*
 * client: the application: threads that make calls, one after the other, until they are told to stop.
 */
#ifndef SIM_CLIENT_H
#define SIM_CLIENT_H

#include "world.h"

/* Starts a client of `user`. Counts itself out of user->clients_left at its end. */
void client_start(struct user *user);

/* One call, on the caller's thread. Returns its code. */
int client_call(struct user *user, enum op_kind kind, int timeout_ms);

#endif
