/*
 * stream_end: what stream.c and copy.c share: how a step of a stream ends.
 */
#ifndef DBHA_WIRE_STREAM_END_H
#define DBHA_WIRE_STREAM_END_H

#include "stream.h"

/* The deadline has passed (timeout), or the connection is lost and no last word is to be had. */
void dbha__stream_broke_off(struct stream *s, bool timeout, struct attempt *attempt);

/* The deadline has passed: asks the server to stop, once a stream, and puts the deadline off. False: there is no more time. */
bool dbha__stream_ask_to_stop(struct stream *s, int64_t *deadline);

/* The data of COPY TO, thrown away. */
void dbha__stream_drain_copy(struct stream *s, int64_t deadline, struct attempt *attempt);

/* Sends what is left to be sent, then reads to the end of the answer, which only then is final: a commit may be behind it. */
void dbha__stream_read_end(struct stream *s, int64_t deadline, struct attempt *attempt);

#endif
