#include "shared.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "keywords.h"
#include "sync.h"

/* Clusters that one process talks to; the one that was stored longest ago makes room. */
#define CLUSTERS_MAX 8

struct cluster {
	char *key;
	struct view view;
	struct lag_history lag;
};

static struct mutex lock = {.m = PTHREAD_MUTEX_INITIALIZER, .rank = RANK_SHARED};
static struct cluster *clusters[CLUSTERS_MAX]; /* the one stored last comes first */

static size_t append(char *key, size_t used, const char *text)
{
	if (!text)
		text = "";
	size_t length = strlen(text) + 1;
	if (key)
		snprintf(key + used, length + 1, "%s\n", text);
	return used + length;
}

/* Returns the length; key NULL: only that. */
static size_t write_key(const struct config *config, char *key)
{
	size_t used = 0;
	for (int i = 0; i < config->n_nodes; i++) {
		used = append(key, used, config->nodes[i].host);
		used = append(key, used, config->nodes[i].hostaddr);
		used = append(key, used, config->nodes[i].port);
	}
	for (int i = 0; i < config->n_pairs; i++) {
		if (dbha__keyword_is_secret(config->pairs[i].keyword))
			continue;
		used = append(key, used, config->pairs[i].keyword);
		used = append(key, used, config->pairs[i].value);
	}
	used = append(key, used, config->options.fence_file);
	return used;
}

char *dbha__shared_key(const struct config *config)
{
	size_t length = write_key(config, NULL);
	char *key = malloc(length + 1);
	if (!key)
		return NULL;
	key[0] = '\0';
	write_key(config, key);
	return key;
}

/* The place of a key, or the first free one, or the last of all. */
static int find_locked(const char *key) REQUIRES(lock)
{
	int i = 0;
	while (i < CLUSTERS_MAX - 1 && clusters[i] && strcmp(clusters[i]->key, key) != 0)
		i++;
	return i;
}

static struct cluster *new_cluster(const char *key)
{
	struct cluster *cluster = malloc(sizeof *cluster);
	char *copy = strdup(key);
	if (cluster && copy) {
		cluster->key = copy;
		return cluster;
	}
	free(cluster);
	free(copy);
	return NULL;
}

static void free_cluster(struct cluster *cluster)
{
	if (cluster)
		free(cluster->key);
	free(cluster);
}

/* A handle that has asked only the old primary so far must not make the others forget the new timeline (P1). */
static bool knows_better(const struct view *old, const struct view *fresh)
{
	return old->system_identifier == fresh->system_identifier && old->timeline > fresh->timeline;
}

void dbha__shared_store(const char *key, const struct view *view, const struct lag_history *lag)
{
	struct cluster *mine = new_cluster(key);
	if (!mine)
		return;
	mine->view = *view;
	mine->lag = *lag;
	dbha__mutex_lock(&lock);
	int i = find_locked(key);
	struct cluster *old = clusters[i];
	if (old && strcmp(old->key, key) == 0 && knows_better(&old->view, view)) {
		old = mine;
	} else {
		memmove(&clusters[1], &clusters[0], (size_t)i * sizeof(struct cluster *));
		clusters[0] = mine;
	}
	dbha__mutex_unlock(&lock);
	free_cluster(old);
}

bool dbha__shared_load(const char *key, struct view *view, struct lag_history *lag)
{
	dbha__mutex_lock(&lock);
	const struct cluster *known = clusters[find_locked(key)];
	bool found = known && strcmp(known->key, key) == 0;
	if (found) {
		*view = known->view;
		*lag = known->lag;
	}
	dbha__mutex_unlock(&lock);
	return found;
}

void dbha__shared_lock_for_fork(void) NO_ANALYSIS
{
	dbha__mutex_lock_for_fork(&lock);
}

void dbha__shared_unlock_after_fork(void) NO_ANALYSIS
{
	dbha__mutex_unlock_after_fork(&lock);
}
