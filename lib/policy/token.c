#include "token.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Fowler, Noll and Vo's FNV-1a hash of 32 bits, folded to 16. */
static unsigned sum(const char *text)
{
	uint32_t hash = 2166136261u;
	for (; *text; text++)
		hash = (hash ^ (unsigned char)*text) * 16777619u;
	return (hash >> 16 ^ hash) & 0xffff;
}

void dbha__token_print(const struct token *token, char text[DBHA_TOKEN_MAX])
{
	int used = snprintf(text, DBHA_TOKEN_MAX, "1.%" PRIu64 ".%" PRIu32 ".%" PRIX64, token->system_identifier,
	                    token->timeline, token->lsn);
	snprintf(text + used, DBHA_TOKEN_MAX - (size_t)used, ".%04x", sum(text));
}

/* A number up to the dot behind it, where `text` then stands. False: there is none. */
static bool read_number(const char **text, int base, uint64_t max, uint64_t *number)
{
	const char *digits = base == 16 ? "0123456789ABCDEF" : "0123456789";
	size_t n = strspn(*text, digits);
	if (n < 1 || n > 20 || (*text)[n] != '.')
		return false;
	*number = strtoull(*text, NULL, base);
	*text += n + 1;
	return *number <= max;
}

bool dbha__token_read(const char *text, struct token *token)
{
	struct token read = {0};
	uint64_t timeline;
	const char *at = text;
	if (!text || strlen(text) >= DBHA_TOKEN_MAX || strncmp(at, "1.", 2) != 0)
		return false;
	at += 2;
	if (!read_number(&at, 10, UINT64_MAX, &read.system_identifier) || !read_number(&at, 10, UINT32_MAX, &timeline) ||
	    !read_number(&at, 16, UINT64_MAX, &read.lsn) || timeline == 0)
		return false;
	read.timeline = (uint32_t)timeline;
	/* Overflow, zeros in front and a wrong sum: whatever is not what would be printed. */
	char printed[DBHA_TOKEN_MAX];
	dbha__token_print(&read, printed);
	if (strcmp(printed, text) != 0)
		return false;
	*token = read;
	return true;
}

bool dbha__token_beyond(const struct token *a, const struct token *b)
{
	return a->timeline > b->timeline || (a->timeline == b->timeline && a->lsn > b->lsn);
}
