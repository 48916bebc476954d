/*
 * check: the promises, looked after while a history runs. What each one means exactly is said in check.c.
 */
#ifndef SIM_CHECK_H
#define SIM_CHECK_H

#include "tcp.h"

/* A view was published. */
void check_view(struct user *user, const struct view *view);
/* A statement is about to be sent. */
void check_send(const struct op *op, const struct link *link);
/* A server has executed a write. */
void check_execution(struct op *op, const struct server *s);
/* A statement was given up because of a cancel request. */
void check_cancel(const struct op *op, const struct cancel *cancel);
/* An answer has reached the client's socket; op may be NULL. */
void check_answer(const struct op *op, const struct message *message);
/* A call has returned. */
void check_return(struct op *op);
/* Something has changed about a server: what it means for P6. */
void check_health(void);
/* The history is over. */
void check_end(void);

#endif
