/*
 * nameserver: a real name server on 127.0.0.1:53, for the namespace that enter.sh has made, where /etc/resolv.conf leads to
 * it. Answers A queries from a small table, says that other names do not exist, and takes its time where it is told to.
 */
#ifndef NAMESERVER_H
#define NAMESERVER_H

/* Starts it; it ends with the test. Nothing is known, nothing is delayed. */
void nameserver_start(void);

/* Answers for a name from now on; NULL: it does not exist. */
void nameserver_set(const char *name, const char *address);

/* Every answer leaves this long after its question came. */
void nameserver_delay(int ms);

/* Questions that have come, since the start. */
long nameserver_questions(void);

#endif
