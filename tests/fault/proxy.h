/*
 * proxy: a forwarder in front of a real server that falls silent in the middle of a conversation: after so many bytes of
 * the server's, on connections that come after it was told so. What was open before goes on.
 */
#ifndef PROXY_H
#define PROXY_H

/* Forwards to this port of 127.0.0.1; returns its own port. One at a time; it ends with the test. */
int proxy_start(int target);

/* Connections made from now on hear this many bytes from the server, then nothing; -1: everything. */
void proxy_mute_after(long bytes);

/* The same after so many answers: what the server says until the client speaks again is one. */
void proxy_mute_after_answers(int answers);

/* Connections that were ever taken. */
long proxy_connections(void);

#endif
