#include "stmtcache.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sessionstate.h"

#define NONE (-1)

struct entry {
	uint64_t hash;
	char *sql; /* NULL: the entry is free */
	unsigned *types;
	int n_types;
	unsigned hints; /* dbha__sessionstate_hints */
	bool prepared;
	char name[24];    /* never used twice on a connection */
	int chain;        /* next entry in its bucket */
	int newer, older; /* the LRU list */
};

struct stmtcache {
	int size;
	int n_buckets; /* a power of two */
	int *buckets;
	struct entry *entries;
	int newest, oldest; /* every entry is in the list, free ones at its old end */
	uint64_t next_id;
};

static void unlink_lru(struct stmtcache *cache, int i)
{
	struct entry *entry = &cache->entries[i];
	if (entry->newer != NONE)
		cache->entries[entry->newer].older = entry->older;
	else
		cache->newest = entry->older;
	if (entry->older != NONE)
		cache->entries[entry->older].newer = entry->newer;
	else
		cache->oldest = entry->newer;
}

static void push_newest(struct stmtcache *cache, int i)
{
	struct entry *entry = &cache->entries[i];
	entry->newer = NONE;
	entry->older = cache->newest;
	if (cache->newest != NONE)
		cache->entries[cache->newest].newer = i;
	cache->newest = i;
	if (cache->oldest == NONE)
		cache->oldest = i;
}

/* A free entry is taken before any other: it goes to the old end. */
static void push_oldest(struct stmtcache *cache, int i)
{
	struct entry *entry = &cache->entries[i];
	entry->older = NONE;
	entry->newer = cache->oldest;
	if (cache->oldest != NONE)
		cache->entries[cache->oldest].older = i;
	cache->oldest = i;
	if (cache->newest == NONE)
		cache->newest = i;
}

struct stmtcache *dbha__stmtcache_new(int size)
{
	struct stmtcache *cache = calloc(1, sizeof *cache);
	if (!cache)
		return NULL;
	cache->size = size;
	cache->n_buckets = 8;
	while (cache->n_buckets < size)
		cache->n_buckets *= 2;
	cache->buckets = malloc((size_t)cache->n_buckets * sizeof *cache->buckets);
	cache->entries = calloc((size_t)size, sizeof *cache->entries);
	if (!cache->buckets || !cache->entries) {
		dbha__stmtcache_free(cache);
		return NULL;
	}
	for (int i = 0; i < cache->n_buckets; i++)
		cache->buckets[i] = NONE;
	cache->newest = cache->oldest = NONE;
	for (int i = 0; i < size; i++)
		push_newest(cache, i);
	return cache;
}

static void free_entry(struct entry *entry)
{
	free(entry->sql);
	free(entry->types);
	entry->sql = NULL;
	entry->types = NULL;
	entry->n_types = 0;
	entry->prepared = false;
}

void dbha__stmtcache_free(struct stmtcache *cache)
{
	if (!cache)
		return;
	for (int i = 0; cache->entries && i < cache->size; i++)
		free_entry(&cache->entries[i]);
	free(cache->entries);
	free(cache->buckets);
	free(cache);
}

/* FNV-1a (Fowler, Noll, Vo), 64 bits, over eight bytes at a time where there are as many: statements are short. */
static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length)
{
	const unsigned char *p = bytes;
	for (; length >= 8; length -= 8, p += 8) {
		uint64_t word;
		memcpy(&word, p, 8);
		hash = (hash ^ word) * 0x100000001b3ULL;
		hash ^= hash >> 29; /* the multiplication carries upwards only */
	}
	for (; length > 0; length--, p++)
		hash = (hash ^ *p) * 0x100000001b3ULL;
	return hash;
}

static uint64_t hash_statement(const char *sql, size_t length, int n_types, const unsigned *types)
{
	uint64_t hash = hash_bytes(0xcbf29ce484222325ULL, sql, length);
	return n_types ? hash_bytes(hash, types, (size_t)n_types * sizeof *types) : hash;
}

static int *bucket_of(struct stmtcache *cache, uint64_t hash)
{
	return &cache->buckets[(hash ^ (hash >> 32)) & (uint64_t)(cache->n_buckets - 1)];
}

static bool is_for(const struct entry *entry, const char *sql, int n_types, const unsigned *types)
{
	return entry->sql && entry->n_types == n_types && strcmp(entry->sql, sql) == 0 &&
	       (n_types == 0 || memcmp(entry->types, types, (size_t)n_types * sizeof *types) == 0);
}

static int find(struct stmtcache *cache, uint64_t hash, const char *sql, int n_types, const unsigned *types)
{
	for (int i = *bucket_of(cache, hash); i != NONE; i = cache->entries[i].chain)
		if (cache->entries[i].hash == hash && is_for(&cache->entries[i], sql, n_types, types))
			return i;
	return NONE;
}

static void drop_from_bucket(struct stmtcache *cache, int i)
{
	int *link = bucket_of(cache, cache->entries[i].hash);
	while (*link != i)
		link = &cache->entries[*link].chain;
	*link = cache->entries[i].chain;
}

static void name_entry(struct stmtcache *cache, struct entry *entry)
{
	snprintf(entry->name, sizeof entry->name, "dbha_%llu", (unsigned long long)++cache->next_id);
}

/* Takes the oldest entry for a new statement. The name of what it held, if the server has it, goes to `evicted`. */
static int replace_oldest(struct stmtcache *cache, uint64_t hash, const char *sql, size_t length, char evicted[24])
{
	char *copy = malloc(length + 1);
	if (!copy)
		return NONE;
	memcpy(copy, sql, length + 1);
	int i = cache->oldest;
	struct entry *entry = &cache->entries[i];
	if (entry->sql) {
		if (entry->prepared)
			memcpy(evicted, entry->name, sizeof entry->name);
		drop_from_bucket(cache, i);
		free_entry(entry);
	}
	entry->sql = copy;
	entry->hash = hash;
	entry->hints = dbha__sessionstate_hints(sql);
	name_entry(cache, entry);
	int *bucket = bucket_of(cache, hash);
	entry->chain = *bucket;
	*bucket = i;
	return i;
}

static bool keep_types(struct entry *entry, int n_types, const unsigned *types)
{
	if (n_types == 0)
		return true;
	entry->types = malloc((size_t)n_types * sizeof *types);
	if (!entry->types)
		return false;
	memcpy(entry->types, types, (size_t)n_types * sizeof *types);
	entry->n_types = n_types;
	return true;
}

void dbha__stmtcache_use(struct stmtcache *cache, const char *sql, int n_params, const unsigned *types,
                         struct stmt *out)
{
	int n_types = types ? n_params : 0;
	out->evicted[0] = '\0';
	out->name = "";
	/* Many connections run one statement again and again. */
	const struct entry *newest = &cache->entries[cache->newest];
	if (is_for(newest, sql, n_types, types)) {
		out->advice = newest->prepared ? STMT_PREPARED : STMT_PREPARE;
		out->name = newest->name;
		out->hints = newest->hints;
		return;
	}
	size_t length = strlen(sql);
	uint64_t hash = hash_statement(sql, length, n_types, types);
	int i = find(cache, hash, sql, n_types, types);
	if (i == NONE) {
		out->advice = STMT_ONCE;
		i = replace_oldest(cache, hash, sql, length, out->evicted);
		if (i == NONE) {
			out->hints = dbha__sessionstate_hints(sql); /* out of memory: it runs unnamed */
			return;
		}
		out->hints = cache->entries[i].hints;
		if (!keep_types(&cache->entries[i], n_types, types)) {
			drop_from_bucket(cache, i);
			free_entry(&cache->entries[i]);
			return;
		}
	} else {
		out->advice = cache->entries[i].prepared ? STMT_PREPARED : STMT_PREPARE;
		out->name = cache->entries[i].name;
		out->hints = cache->entries[i].hints;
	}
	if (cache->newest != i) {
		unlink_lru(cache, i);
		push_newest(cache, i);
	}
}

static int find_name(struct stmtcache *cache, const char *name)
{
	for (int i = cache->newest; i != NONE; i = cache->entries[i].older)
		if (cache->entries[i].sql && strcmp(cache->entries[i].name, name) == 0)
			return i;
	return NONE;
}

void dbha__stmtcache_prepared(struct stmtcache *cache, const char *name)
{
	int i = find_name(cache, name);
	if (i != NONE)
		cache->entries[i].prepared = true;
}

void dbha__stmtcache_refused(struct stmtcache *cache, const char *name)
{
	int i = find_name(cache, name);
	if (i == NONE)
		return;
	drop_from_bucket(cache, i);
	free_entry(&cache->entries[i]);
	unlink_lru(cache, i);
	push_oldest(cache, i);
}

void dbha__stmtcache_clear(struct stmtcache *cache)
{
	if (!cache)
		return;
	for (int i = 0; i < cache->size; i++) {
		struct entry *entry = &cache->entries[i];
		if (!entry->sql || !entry->prepared)
			continue;
		entry->prepared = false;
		name_entry(cache, entry);
	}
}
