/*
 * zone: a real name server on 127.0.0.1:53, inside the test program, for a namespace whose /etc/resolv.conf leads to it.
 *
 * A name has several addresses, which change as the test says; the order turns with every answer, as it does with real ones.
 * It takes its time where it is told to.
 */
#ifndef ZONE_H
#define ZONE_H

enum zone_mood {
	ZONE_ANSWERS,
	ZONE_FAILS,  /* SERVFAIL to everything */
	ZONE_EMPTY,  /* NOERROR with no address to everything */
	ZONE_SILENT, /* not a word */
};

/* Starts it with no name, ZONE_ANSWERS and no delay; it ends with the test. */
void zone_start(void);

/* From now on the name has these addresses, separated by blanks; none: it does not exist. */
void zone_set(const char *name, const char *addresses);
void zone_mood(enum zone_mood mood);

/* From now on an answer leaves this long after its question came. */
void zone_delay(int ms);

/* Questions that have come since zone_start, for A records. */
long zone_questions(void);

#endif
