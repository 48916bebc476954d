/*
 * effective: what libpq would make of given options at connect: its service file, its environment, its checks, without
 * connecting.
 */
#ifndef DBHA_WIRE_EFFECTIVE_H
#define DBHA_WIRE_EFFECTIVE_H

#include "config.h"

/*
 * Whether libpq knows a keyword and takes the value, for a keyword that is no option of ours. What the value says
 * together with others is not looked at.
 */
int dbha__effective_check(const char *keyword, const char *value, dbha_error *err);

struct effective {
	struct config_pairs pairs; /* everything given explicitly, by libpq's environment, or by its service file */
	char *default_host;        /* where libpq goes for an empty host: its socket directory, or "localhost" */
	char *default_port;
};

/*
 * Completes given pairs the way libpq would at connect: service file, PG* variables. Values that are libpq's compiled
 * defaults are left out, so that whichever libpq connects applies its own. Own options in `given` are passed over; but
 * connect_timeout and target_session_attrs come out where the environment or the service file sets them (the service
 * file's target_session_attrs=any cannot be told from libpq's default and is taken for it). Password files are left to
 * libpq. Reads files, but no network and no DNS. dbha__effective_fini(out) in either case.
 */
int dbha__effective_resolve(const struct config_pairs *given, struct effective *out, dbha_error *err);
void dbha__effective_fini(struct effective *resolved);

#endif
