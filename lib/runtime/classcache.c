#include "classcache.h"

#include <stdlib.h>
#include <string.h>

#include "sync.h"

#define N_PARTS        8
#define ANY_GENERATION 0

struct kept {
	struct kept *next_in_bucket;
	struct kept *newer, *older;
	uint64_t hash, generation;
	struct classify_verdict verdict;
	size_t length;
	char sql[];
};

/* Aligned, so that the locks of two parts are never in one line of the processor's cache. */
struct part {
	_Alignas(64) struct mutex lock;
	struct kept **buckets;
	struct kept *newest, *oldest;
	size_t n, bytes, mask;
};

struct classcache {
	struct part parts[N_PARTS];
	size_t part_entries, part_bytes;
};

/*
 * Eight bytes at a time, with a multiplication each: a hash that costs a tenth of one byte by byte. It need not be good against an enemy:
 * the cache is bounded, and texts are compared.
 */
static uint64_t hash_of(const char *text, size_t length)
{
	uint64_t hash = 0x9e3779b97f4a7c15u ^ length;
	for (; length > 0; length -= length < 8 ? length : 8) {
		uint64_t word = 0;
		memcpy(&word, text, length < 8 ? length : 8);
		hash = (hash ^ word) * 0xff51afd7ed558ccdu;
		hash ^= hash >> 32;
		text += length < 8 ? length : 8;
	}
	return hash;
}

static struct part *part_of(struct classcache *cache, uint64_t hash)
{
	return &cache->parts[hash >> 56 & (N_PARTS - 1)];
}

static bool part_init(struct part *part, size_t entries)
{
	size_t size = 16;
	while (size < entries)
		size *= 2;
	part->mask = size - 1;
	part->buckets = calloc(size, sizeof(struct kept *));
	if (part->buckets && dbha__mutex_init(&part->lock, RANK_CLASSCACHE) == 0)
		return true;
	free(part->buckets);
	part->buckets = NULL;
	return false;
}

struct classcache *dbha__classcache_new(size_t entries_max, size_t bytes_max)
{
	struct classcache *cache = aligned_alloc(64, sizeof *cache);
	if (!cache)
		return NULL;
	memset(cache, 0, sizeof *cache);
	cache->part_entries = entries_max / N_PARTS + 1;
	cache->part_bytes = bytes_max / N_PARTS;
	for (int i = 0; i < N_PARTS; i++)
		if (!part_init(&cache->parts[i], cache->part_entries)) {
			dbha__classcache_free(cache);
			return NULL;
		}
	return cache;
}

void dbha__classcache_free(struct classcache *cache)
{
	for (int i = 0; cache && i < N_PARTS; i++) {
		struct part *part = &cache->parts[i];
		for (struct kept *kept = part->newest, *older; kept; kept = older) {
			older = kept->older;
			free(kept);
		}
		if (part->buckets)
			dbha__mutex_fini(&part->lock);
		free(part->buckets);
	}
	free(cache);
}

/* ---- under the lock of a part --------------------------------------------------------------------------------------- */

static struct kept *find_locked(const struct part *part, const char *sql, size_t length, uint64_t hash)
{
	struct kept *kept = part->buckets[hash & part->mask];
	while (kept && (kept->hash != hash || kept->length != length || memcmp(kept->sql, sql, length) != 0))
		kept = kept->next_in_bucket;
	return kept;
}

static void unlink_locked(struct part *part, struct kept *kept)
{
	*(kept->newer ? &kept->newer->older : &part->newest) = kept->older;
	*(kept->older ? &kept->older->newer : &part->oldest) = kept->newer;
	kept->newer = kept->older = NULL;
}

static void make_newest_locked(struct part *part, struct kept *kept)
{
	kept->older = part->newest;
	kept->newer = NULL;
	*(part->newest ? &part->newest->newer : &part->oldest) = kept;
	part->newest = kept;
}

static void forget_locked(struct part *part, struct kept *kept)
{
	struct kept **at = &part->buckets[kept->hash & part->mask];
	while (*at != kept)
		at = &(*at)->next_in_bucket;
	*at = kept->next_in_bucket;
	unlink_locked(part, kept);
	part->n--;
	part->bytes -= sizeof *kept + kept->length;
	free(kept);
}

static void add_locked(const struct classcache *cache, struct part *part, struct kept *kept)
{
	part->n++;
	part->bytes += sizeof *kept + kept->length;
	while (part->oldest && (part->n > cache->part_entries || part->bytes > cache->part_bytes))
		forget_locked(part, part->oldest);
	struct kept **bucket = &part->buckets[kept->hash & part->mask];
	kept->next_in_bucket = *bucket;
	*bucket = kept;
	make_newest_locked(part, kept);
}

/* ---- what others call ------------------------------------------------------------------------------------------------- */

bool dbha__classcache_find(struct classcache *cache, const char *sql, uint64_t generation,
                           struct classify_verdict *verdict)
{
	size_t length = strlen(sql);
	uint64_t hash = hash_of(sql, length);
	struct part *part = part_of(cache, hash);
	dbha__mutex_lock(&part->lock);
	struct kept *kept = find_locked(part, sql, length, hash);
	bool found = kept && (kept->generation == generation || kept->generation == ANY_GENERATION);
	if (found) {
		*verdict = kept->verdict;
		if (kept != part->newest) {
			unlink_locked(part, kept);
			make_newest_locked(part, kept);
		}
	}
	dbha__mutex_unlock(&part->lock);
	return found;
}

/* A refusal is never replaced by a verdict that another thread has come to meanwhile. */
void dbha__classcache_put(struct classcache *cache, const char *sql, uint64_t generation,
                          const struct classify_verdict *verdict)
{
	size_t length = strlen(sql);
	if (sizeof(struct kept) + length > cache->part_bytes / 4)
		return;
	struct kept *fresh = malloc(sizeof *fresh + length + 1);
	if (!fresh)
		return;
	*fresh =
	    (struct kept){.hash = hash_of(sql, length), .generation = generation, .verdict = *verdict, .length = length};
	memcpy(fresh->sql, sql, length + 1);
	struct part *part = part_of(cache, fresh->hash);
	dbha__mutex_lock(&part->lock);
	struct kept *old = find_locked(part, sql, length, fresh->hash);
	bool refused = old && old->generation == ANY_GENERATION;
	if (old && !refused)
		forget_locked(part, old);
	if (!refused)
		add_locked(cache, part, fresh);
	dbha__mutex_unlock(&part->lock);
	if (refused)
		free(fresh);
}

void dbha__classcache_remember_write(struct classcache *cache, const char *sql)
{
	struct classify_verdict refused = {.is = CLASS_WRITE, .why = WHY_REFUSED_BEFORE};
	dbha__classcache_put(cache, sql, ANY_GENERATION, &refused);
}

size_t dbha__classcache_size(struct classcache *cache, size_t *bytes)
{
	size_t n = 0;
	*bytes = 0;
	for (int i = 0; i < N_PARTS; i++) {
		struct part *part = &cache->parts[i];
		dbha__mutex_lock(&part->lock);
		n += part->n;
		*bytes += part->bytes;
		dbha__mutex_unlock(&part->lock);
	}
	return n;
}

void dbha__classcache_lock_for_fork(struct classcache *cache) NO_ANALYSIS
{
	for (int i = 0; i < N_PARTS; i++)
		dbha__mutex_lock_for_fork(&cache->parts[i].lock);
}

void dbha__classcache_unlock_after_fork(struct classcache *cache) NO_ANALYSIS
{
	for (int i = N_PARTS - 1; i >= 0; i--)
		dbha__mutex_unlock_after_fork(&cache->parts[i].lock);
}

dbha_intent dbha__classify_intent(struct classcache *cache, const struct function_book *book, uint64_t generation,
                                  const struct classify_limits *limits, const char *sql,
                                  struct classify_verdict *verdict)
{
	if (!book || !dbha__classcache_find(cache, sql, generation, verdict)) {
		*verdict = dbha__classify(sql, limits, book);
		if (book)
			dbha__classcache_put(cache, sql, generation, verdict);
	}
	return verdict->is == CLASS_READ ? DBHA_READ : DBHA_WRITE;
}
