/*
 * sqlstate: what a failed attempt means, by the tables of policy/contract.
 *
 * For every SQLSTATE, and for every way a connection can end: did the server do it, is the connection still good, does the
 * node have to be looked at, and is it worth trying here, elsewhere, or not at all.
 */
#ifndef DBHA_POLICY_SQLSTATE_H
#define DBHA_POLICY_SQLSTATE_H

#include <stdbool.h>

/* How an attempt ended, as far as the connection can tell. */
enum attempt_end {
	ATTEMPT_OK,
	ATTEMPT_NO_CONNECTION, /* there was no connection to try it on */
	ATTEMPT_NOT_SENT,      /* the connection was found dead before a byte of the statement was sent */
	ATTEMPT_ERROR,         /* the server refused it and the connection lives; see the SQLSTATE */
	ATTEMPT_LOST,          /* the connection ended after the statement had been sent, without an answer */
	ATTEMPT_TIMEOUT,       /* the deadline passed after it had been sent */
	ATTEMPT_FATAL,         /* the server, or a pooler, gave an error and ended the connection; see the SQLSTATE */
	ATTEMPT_CANCELLED,     /* the deadline passed, the server was asked to stop the statement, and said that it has */
};

/* What the server did with the statement. */
enum effect {
	EFFECT_NONE,        /* it never began */
	EFFECT_ROLLED_BACK, /* it began, and its transaction was rolled back as a whole */
	EFFECT_UNKNOWN,
};

enum again {
	AGAIN_NEVER,     /* it would fail the same way */
	AGAIN_HERE,      /* on any connection, this node included */
	AGAIN_ELSEWHERE, /* not on this node, as long as it is what it is now */
};

struct verdict {
	enum effect effect;
	enum again again;
	bool keep;  /* the connection may be used again */
	bool alarm; /* all nodes are to be probed now */
};

/*
 * Judges an attempt. sqlstate: five characters, "" where there is none. answered: a result had arrived before the end, so
 * that the statement itself had been done and only its commit is open.
 */
struct verdict dbha__sqlstate_judge(enum attempt_end end, const char *sqlstate, bool answered);

/* Whether a transaction that failed with this error, and is rolled back, may end better when it is run again as a whole. */
bool dbha__sqlstate_transaction(const char *sqlstate);

#endif
