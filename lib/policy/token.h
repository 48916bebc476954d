/*
 * token: a position in the history of a cluster, and its text: how far somebody has to have come to see what has been written. Pure.
 *
 * The text is "1.SYSTEM_IDENTIFIER.TIMELINE.LSN.SUM": a version, two decimal numbers, the LSN in hexadecimal digits without its
 * slash, and four digits that a cut or mistyped text does not fit. They are no signature: who wants to change a token can.
 */
#ifndef DBHA_POLICY_TOKEN_H
#define DBHA_POLICY_TOKEN_H

#include <stdbool.h>
#include <stdint.h>

#include "dbha.h"

struct token {
	uint64_t system_identifier; /* 0: not known */
	uint32_t timeline;          /* 0: nothing */
	uint64_t lsn;
};

void dbha__token_print(const struct token *token, char text[DBHA_TOKEN_MAX]);

/* False: it is none, and `token` stays as it was. Every token has one text only. */
bool dbha__token_read(const char *text, struct token *token);

/*
 * Whether a is further than b. By the timeline first: who is on the higher one has all of the lower one that still exists. They are
 * taken to be of one cluster.
 */
bool dbha__token_beyond(const struct token *a, const struct token *b);

#endif
