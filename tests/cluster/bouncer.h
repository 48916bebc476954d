/*
 * bouncer: a PgBouncer in front of one node of a cluster.
 */
#ifndef BOUNCER_H
#define BOUNCER_H

#include <stdio.h>

#include "cluster.h"

/*
 * pool_mode: "transaction" or "session". Returns once it answers at *port; no password is asked for there. The caller ends it with
 * bouncer_stop; else it ends with this program, because its standard input does.
 */
FILE *bouncer_start(const struct cluster *c, int node, const char *pool_mode, int *port);
void bouncer_stop(FILE *bouncer); /* may be NULL */

#endif
