#include "bouncer.h"

#include <string.h>

FILE *bouncer_start(const struct cluster *c, int node, const char *pool_mode, int *port)
{
	char ini[192], shell[1024], server[64];
	*port = cluster_port(c, node) - (strcmp(pool_mode, "session") == 0 ? 11000 : 10000);
	snprintf(ini, sizeof ini, "%s/%s.ini", c->dir, pool_mode);
	FILE *file = fopen(ini, "w");
	ck_assert(file != NULL);
	fprintf(file,
	        "[databases]\napp = host=127.0.0.1 port=%d dbname=app user=app password=%s\n[pgbouncer]\n"
	        "listen_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\npool_mode = %s\n"
	        "default_pool_size = 6\nlogfile = %s/%s.log\nlog_stats = 0\n",
	        cluster_port(c, node), cluster_password(c), *port, pool_mode, c->dir, pool_mode);
	fclose(file);
	snprintf(shell, sizeof shell,
	         "export PATH=$PATH:/usr/sbin; chown --reference=%s/node1 %s; owner=$(stat -c %%U %s/node1); "
	         "if [ $(id -u) = 0 ]; then as=\"-u $owner\"; fi; pgbouncer -q $as %s 2>/dev/null & cat >/dev/null; kill "
	         "$!; wait",
	         c->dir, ini, c->dir, ini);
	FILE *bouncer = popen(shell, "we");
	ck_assert(bouncer != NULL);
	snprintf(server, sizeof server, "host=127.0.0.1 port=%d", *port);
	WAIT_FOR(PQping(server) == PQPING_OK, PATIENCE_MS);
	return bouncer;
}

void bouncer_stop(FILE *bouncer)
{
	if (bouncer)
		pclose(bouncer);
}
