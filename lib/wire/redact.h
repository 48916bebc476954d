/*
 * redact: what libpq says about a text, without what it quotes from it. A message may hold a piece of a password wherever
 * libpq took it for something else.
 */
#ifndef DBHA_WIRE_REDACT_H
#define DBHA_WIRE_REDACT_H

#include <locale.h>

/*
 * libpq translates its messages; the redaction has to know their quotes, and ours are English anyway. The locale of the
 * thread is changed, not that of the process.
 */
struct c_locale {
	locale_t c;
	locale_t before;
};

void dbha__c_locale_enter(struct c_locale *l);
void dbha__c_locale_leave(const struct c_locale *l);

struct redacted {
	char text[320];
};

/*
 * A message of libpq in one line, without what it quotes from the input; `allowed`, if not NULL, is the one value that may
 * stay.
 */
struct redacted dbha__redact(const char *message, const char *allowed);

#endif
