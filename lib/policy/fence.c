#include "fence.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADING "dbha-fence "
#define VERSION "1\n"

const struct fence_entry *dbha__fence_first(const struct fence *fence)
{
	return fence->n > 0 ? &fence->entries[0] : NULL;
}

/* -1: it is not there. */
static int index_of(const struct fence *fence, uint64_t system_identifier)
{
	for (int i = 0; i < fence->n; i++)
		if (fence->entries[i].system_identifier == system_identifier)
			return i;
	return -1;
}

void dbha__fence_note(struct fence *fence, uint64_t system_identifier, uint32_t timeline)
{
	int i = index_of(fence, system_identifier);
	if (system_identifier == 0 || (i < 0 && fence->n == FENCE_ENTRIES_MAX))
		return;
	if (i < 0) {
		i = fence->n++;
		fence->entries[i] = (struct fence_entry){system_identifier, 0};
	}
	if (timeline > fence->entries[i].timeline)
		fence->entries[i].timeline = timeline;
}

/* Notes everything that `from` has. */
static void merge(struct fence *fence, const struct fence *from)
{
	for (int i = 0; i < from->n; i++)
		dbha__fence_note(fence, from->entries[i].system_identifier, from->entries[i].timeline);
}

void dbha__fence_accept(struct fence *fence, uint64_t system_identifier)
{
	int i = index_of(fence, system_identifier);
	struct fence_entry first = {system_identifier, i >= 0 ? fence->entries[i].timeline : 0};
	if (i < 0 && fence->n < FENCE_ENTRIES_MAX)
		i = fence->n++;
	else if (i < 0)
		i = FENCE_ENTRIES_MAX - 1; /* the one accepted longest ago makes room */
	memmove(&fence->entries[1], &fence->entries[0], (size_t)i * sizeof fence->entries[0]);
	fence->entries[0] = first;
}

bool dbha__fence_may_accept(const struct fence *fence, uint64_t system_identifier)
{
	return system_identifier != 0 && index_of(fence, system_identifier) < 0;
}

static bool is_equal(const struct fence *a, const struct fence *b)
{
	bool equal = a->n == b->n;
	for (int i = 0; equal && i < a->n; i++)
		equal = a->entries[i].system_identifier == b->entries[i].system_identifier &&
		        a->entries[i].timeline == b->entries[i].timeline;
	return equal;
}

bool dbha__fence_next(const struct fence *stored, const struct fence *known, uint64_t ours, uint64_t accept,
                      struct fence *next)
{
	*next = *stored;
	bool new_here = stored->n == 0 || (ours == accept && dbha__fence_may_accept(stored, accept));
	if (ours != 0 && new_here)
		dbha__fence_accept(next, ours);
	if (ours == 0 || next->entries[0].system_identifier != ours)
		return false;
	merge(next, known);
	return !is_equal(next, stored);
}

/* ---- meaning --------------------------------------------------------------------------------------------------- */

uint64_t dbha__fence_other_cluster(const struct view *view)
{
	uint64_t other = 0;
	for (int i = 0; i < view->n_nodes; i++) {
		const struct node_view *node = &view->nodes[i];
		if (node->role != DBHA_ROLE_UNKNOWN && !node->foreign)
			return 0;
		if (node->foreign && other == 0)
			other = node->system_identifier;
	}
	return other;
}

bool dbha__fence_knows_alone(const struct view *view)
{
	for (int i = 0; i < view->n_nodes; i++)
		if (!view->nodes[i].foreign && view->nodes[i].timeline == view->timeline)
			return false;
	return view->timeline > 0;
}

/* ---- text ------------------------------------------------------------------------------------------------------ */

/* FNV-1a: against torn and mistaken files, not against people who mean it. */
static uint64_t check_of(const char *text, size_t length)
{
	uint64_t hash = 14695981039346656037u;
	for (size_t i = 0; i < length; i++)
		hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
	return hash;
}

size_t dbha__fence_print(const struct fence *fence, char text[FENCE_TEXT_MAX])
{
	size_t used = (size_t)snprintf(text, FENCE_TEXT_MAX, HEADING VERSION);
	for (int i = 0; i < fence->n; i++)
		used += (size_t)snprintf(text + used, FENCE_TEXT_MAX - used, "cluster %" PRIu64 " timeline %" PRIu32 "\n",
		                         fence->entries[i].system_identifier, fence->entries[i].timeline);
	return used + (size_t)snprintf(text + used, FENCE_TEXT_MAX - used, "check %016" PRIx64 "\n", check_of(text, used));
}

/* One line "cluster N timeline N" at *line, which moves behind it. False: it is another line. */
static bool read_entry(const char **line, struct fence *fence)
{
	char *rest;
	if (strncmp(*line, "cluster ", 8) != 0 || fence->n == FENCE_ENTRIES_MAX)
		return false;
	uint64_t system_identifier = strtoull(*line + 8, &rest, 10);
	if (strncmp(rest, " timeline ", 10) != 0)
		return false;
	uint32_t timeline = (uint32_t)strtoul(rest + 10, &rest, 10);
	if (*rest != '\n')
		return false;
	fence->entries[fence->n++] = (struct fence_entry){system_identifier, timeline};
	*line = rest + 1;
	return true;
}

/* Reads what there is, and takes it if it prints to the same bytes: the one definition of the text is its printer. */
enum fence_text dbha__fence_parse(struct fence *fence, const char *text, size_t length)
{
	char copy[FENCE_TEXT_MAX] = "", again[FENCE_TEXT_MAX];
	*fence = (struct fence){0};
	if (length >= sizeof copy || strnlen(text, length) < length)
		return FENCE_TEXT_DAMAGED;
	memcpy(copy, text, length);
	copy[length] = '\0';
	if (strncmp(copy, HEADING, strlen(HEADING)) != 0)
		return FENCE_TEXT_DAMAGED;
	const char *line = copy + strlen(HEADING);
	if (strncmp(line, VERSION, strlen(VERSION)) != 0)
		return *line >= '2' && *line <= '9' ? FENCE_TEXT_NEWER : FENCE_TEXT_DAMAGED;
	for (line += strlen(VERSION); read_entry(&line, fence);)
		;
	size_t printed = dbha__fence_print(fence, again);
	if (fence->n > 0 && printed == length && memcmp(again, text, length) == 0)
		return FENCE_TEXT_GOOD;
	*fence = (struct fence){0};
	return FENCE_TEXT_DAMAGED;
}
