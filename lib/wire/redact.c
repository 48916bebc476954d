#include "redact.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

void dbha__c_locale_enter(struct c_locale *l)
{
	l->c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	l->before = l->c ? uselocale(l->c) : (locale_t)0;
}

void dbha__c_locale_leave(const struct c_locale *l)
{
	if (!l->c)
		return;
	uselocale(l->before);
	freelocale(l->c);
}

/* Whether what stands between quotes may stay: libpq's own punctuation, or the one value the caller allows. */
static bool may_show(const char *quoted, size_t length, const char *allowed)
{
	static const char *const punctuation[] = {"=", "]", ":", "/"};
	for (size_t i = 0; i < sizeof punctuation / sizeof punctuation[0]; i++)
		if (length == 1 && *quoted == *punctuation[i])
			return true;
	return allowed && strlen(allowed) == length && memcmp(allowed, quoted, length) == 0;
}

/*
 * A message of libpq in one line, without what it quotes from the input. A quoted piece may hold quotes itself, so that
 * from the first piece not known to be harmless everything goes, up to the last quote of the message.
 */
struct redacted dbha__redact(const char *message, const char *allowed)
{
	struct redacted out;
	const char *last = strrchr(message, '"');
	size_t n = 0;
	while (*message && n < sizeof out.text - 8) {
		char c = *message++;
		if (c != '\n')
			out.text[n++] = c;
		if (c != '"')
			continue;
		const char *end = strchr(message, '"');
		if (!end || !may_show(message, (size_t)(end - message), allowed)) {
			memcpy(out.text + n, "...\"", 4);
			n += 4;
			message = last >= message ? last + 1 : message + strlen(message);
			continue;
		}
		n += (size_t)snprintf(out.text + n, sizeof out.text - n, "%.*s\"", (int)(end - message), message);
		n = n < sizeof out.text ? n : sizeof out.text - 1;
		message = end + 1;
	}
	out.text[n] = '\0';
	return out;
}
