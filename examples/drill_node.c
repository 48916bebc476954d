/*
 * drill_node.c: opens one node of a cluster by itself, to see what only that node has.
 *
 * A handle for the whole cluster never shows a stale primary: it is fenced. A handle whose URL has one host knows
 * nothing of the others, so it talks to whatever answers there; this is how rows on a stale primary are found.
 */
#include "drill.h"

#include <string.h>

/* The element of a comma-separated list, NULL if it is missing or empty. Writes into `buffer`. */
static const char *list_element(const char *list, int index, char *buffer, size_t size)
{
	for (; list != NULL && index > 0; index--) {
		list = strchr(list, ',');
		if (list != NULL)
			list++;
	}
	if (list == NULL)
		return NULL;
	snprintf(buffer, size, "%.*s", (int)strcspn(list, ","), list);
	return buffer[0] != '\0' ? buffer : NULL;
}

/* Splits "host:port", "[::1]:port" or "/socket/directory:port". */
static void split_name(const char *name, char host[DBHA_NODE_NAME_MAX], char port[DBHA_NODE_NAME_MAX])
{
	const char *colon = strrchr(name, ':');
	int length = colon != NULL ? (int)(colon - name) : (int)strlen(name);
	snprintf(port, DBHA_NODE_NAME_MAX, "%s", colon != NULL ? colon + 1 : "5432");
	if (name[0] == '[' && length > 2 && name[length - 1] == ']') {
		name++;
		length -= 2;
	}
	snprintf(host, DBHA_NODE_NAME_MAX, "%.*s", length, name);
}

dbha *drill_node_open(const struct drill *d, int index, const char *name, dbha_error *err)
{
	char host[DBHA_NODE_NAME_MAX], port[DBHA_NODE_NAME_MAX], address[DBHA_NODE_NAME_MAX];
	split_name(name, host, port);
	dbha_config *config = dbha_config_new(d->options.url, err);
	if (config == NULL)
		return NULL;
	dbha *h = NULL;
	const char *hostaddr = list_element(dbha_config_get(config, "hostaddr"), index, address, sizeof(address));
	if (dbha_config_set(config, "host", host, err) == DBHA_OK &&
	    dbha_config_set(config, "port", port, err) == DBHA_OK &&
	    (hostaddr == NULL || dbha_config_set(config, "hostaddr", hostaddr, err) == DBHA_OK) &&
	    dbha_config_set(config, "target_session_attrs", "any", err) == DBHA_OK)
		h = dbha_open_config(config, err);
	dbha_config_free(config);
	return h;
}
