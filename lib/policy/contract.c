#include "contract.h"

/* It has failed its statement, and would fail it again. */
#define ORDINARY                                                                                                       \
	{                                                                                                                  \
		EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false                                                                   \
	}
/* It was the victim of others, whom it may not meet a second time. */
#define VICTIM                                                                                                         \
	{                                                                                                                  \
		EFFECT_ROLLED_BACK, AGAIN_HERE, true, false                                                                    \
	}
/* The last words of a session that came to an end we cannot place. */
#define UNEXPLAINED                                                                                                    \
	{                                                                                                                  \
		EFFECT_UNKNOWN, AGAIN_ELSEWHERE, false, true                                                                   \
	}

static const struct contract_row errors[] = {
    {"00", "successful completion", ORDINARY, false, "No error of a server; a RAISE may name it."},
    {"01", "warning", ORDINARY, false, "A warning that was raised as an error."},
    {"02", "no data", ORDINARY, false, "The same data would be missing again."},
    {"03", "SQL statement not yet complete", ORDINARY, false, "A mistake of the client's."},
    {"08", "connection exception", ORDINARY, true,
     "On a connection that lives it is that of a foreign server, or a pooler's; ours has rolled back."},
    {"08007", "transaction resolution unknown", ORDINARY, false,
     "What it is about may have been committed: it is never run again."},
    {"08P01", "protocol violation", ORDINARY, false, "Most often a wrong number of parameters."},
    {"09", "triggered action exception", ORDINARY, false, "The trigger would do the same again."},
    {"0A", "feature not supported", ORDINARY, false,
     "Of a read on a standby it may mean that only a primary can do it: then that is tried. Of a cached plan: "
     "repaired."},
    {"0B", "invalid transaction initiation", ORDINARY, false, "A mistake in the order of commands."},
    {"0F", "locator exception", ORDINARY, false, "The locator stays invalid."},
    {"0L", "invalid grantor", ORDINARY, false, "Rights do not change by asking again."},
    {"0P", "invalid role specification", ORDINARY, false, "The role stays what it is."},
    {"0Z", "diagnostics exception", ORDINARY, false, "A mistake in a function."},
    {"10", "XQuery error", ORDINARY, false, "The expression stays wrong."},
    {"20", "case not found", ORDINARY, false, "A mistake in a function."},
    {"21", "cardinality violation", ORDINARY, false, "The same data would give as many rows."},
    {"22", "data exception", ORDINARY, false,
     "The data is at fault. 22023 is also what libpq's refusal to send is reported as: nothing has left."},
    {"23", "integrity constraint violation", ORDINARY, false,
     "The row is there, or missing; also when it comes at the commit."},
    {"24", "invalid cursor state", ORDINARY, false, "A mistake in the order of commands."},
    {"25", "invalid transaction state", ORDINARY, false, "A mistake in the order of commands."},
    {"25006",
     "read-only SQL transaction",
     {EFFECT_NONE, AGAIN_ELSEWHERE, false, true},
     true,
     "The node is a standby, or its sessions were made read-only: news of the topology. Nothing was done."},
    {"26", "invalid SQL statement name", ORDINARY, false,
     "A prepared statement is gone. One of the library's own is repaired outside a transaction, without the caller "
     "seeing it."},
    {"27", "triggered data change violation", ORDINARY, false, "The trigger would do the same again."},
    {"28", "invalid authorization specification", ORDINARY, false, "Rights do not change by asking again."},
    {"2B", "dependent privilege descriptors still exist", ORDINARY, false, "They would still exist."},
    {"2D", "invalid transaction termination", ORDINARY, false,
     "A COMMIT where there may be none, such as that of a procedure inside a transaction."},
    {"2F", "SQL routine exception", ORDINARY, false, "The routine would do the same again."},
    {"34", "invalid cursor name", ORDINARY, false, "There is no such cursor; it may have ended with its connection."},
    {"38", "external routine exception", ORDINARY, false, "The routine would do the same again."},
    {"39", "external routine invocation exception", ORDINARY, false, "The routine would do the same again."},
    {"3B", "savepoint exception", ORDINARY, false, "There is no such savepoint."},
    {"3D", "invalid catalog name", ORDINARY, false, "There is no such database."},
    {"3F", "invalid schema name", ORDINARY, false, "There is no such schema."},
    {"40", "transaction rollback", ORDINARY, false, "Rolled back for a reason that stays."},
    {"40000", "transaction rollback", ORDINARY, true,
     "As the library reports a transaction whose connection was lost before COMMIT: nothing of it is left."},
    {"40001", "serialization failure", VICTIM, true,
     "Another transaction was first; on a standby, a conflict with recovery."},
    {"40P01", "deadlock detected", VICTIM, true, "This transaction was chosen to end the deadlock."},
    {"42", "syntax error or access rule violation", ORDINARY, false, "The text stays wrong, the rights stay the same."},
    {"44", "WITH CHECK OPTION violation", ORDINARY, false, "The row stays outside the view."},
    {"53", "insufficient resources", ORDINARY, false,
     "More load is no help to a server that has run out; whether to come back later is the caller's decision."},
    {"53100", "disk full", ORDINARY, false, "The same, and the node is shown as disk-full."},
    {"54", "program limit exceeded", ORDINARY, false, "The statement is too much for any server."},
    {"55", "object not in prerequisite state", ORDINARY, false,
     "Of a read on a standby it may mean that only a primary can do it: then that is tried."},
    {"55P03", "lock not available", ORDINARY, false, "lock_timeout or NOWAIT: the caller has said how long he waits."},
    {"57", "operator intervention", ORDINARY, false, "Somebody has decided so."},
    {"57014", "query canceled", ORDINARY, false,
     "By an administrator, a statement_timeout, or dbha_cancel: it was meant. At the deadline of a call see the ends."},
    {"57P01", "admin shutdown", ORDINARY, true, "As an error only out of a function; see the last words."},
    {"57P02", "crash shutdown", ORDINARY, true, "As an error only out of a function; see the last words."},
    {"57P03", "cannot connect now", ORDINARY, true, "As an error only out of a function; see the last words."},
    {"58", "system error", ORDINARY, false, "A file or a device of the server's; an administrator has to look."},
    {"72", "snapshot failure", ORDINARY, false, "The snapshot is too old (up to PostgreSQL 16): it was held too long."},
    {"F0", "configuration file error", ORDINARY, false, "The file stays wrong."},
    {"HV", "foreign data wrapper error", ORDINARY, false,
     "The foreign server's. What was done there is outside of our transaction."},
    {"P0", "PL/pgSQL error", ORDINARY, false, "RAISE: the application's own word."},
    {"XX", "internal error", ORDINARY, false,
     "A defect, or damaged data: running it again would hide that and help nobody."},
    {"", "any other", ORDINARY, false, "The server refused it and lives: whatever it was, it is rolled back."},
};

static const struct contract_row last_words[] = {
    {"25P03",
     "idle in transaction session timeout",
     {EFFECT_ROLLED_BACK, AGAIN_HERE, false, false},
     false,
     "The session waited too long for its client."},
    {"53300", "too many connections", {EFFECT_NONE, AGAIN_ELSEWHERE, false, false}, false, "The session never began."},
    {"57P01",
     "admin shutdown",
     {EFFECT_ROLLED_BACK, AGAIN_ELSEWHERE, false, true},
     true,
     "Said only where the transaction can still be rolled back, unless its result had come before."},
    {"57P02", "crash shutdown", UNEXPLAINED, true,
     "Another backend has crashed; said at any moment, perhaps behind the commit record."},
    {"57P03",
     "cannot connect now",
     {EFFECT_NONE, AGAIN_ELSEWHERE, false, true},
     true,
     "Starting up, shutting down or recovering: never began."},
    {"57P05", "idle session timeout", {EFFECT_NONE, AGAIN_HERE, false, false}, false, "Ended between two statements."},
    {"08", "connection exception", UNEXPLAINED, true, "What a pooler or a proxy says, it may say at any moment."},
    {"", "any other", UNEXPLAINED, false, "The session ended in the middle of something."},
};

static const struct contract_end ends[] = {
    [ATTEMPT_OK] = {"done", {EFFECT_NONE, AGAIN_NEVER, true, false}, "goes on", "There is nothing to decide."},
    [ATTEMPT_NO_CONNECTION] = {"no connection",
                               {EFFECT_NONE, AGAIN_ELSEWHERE, false, false},
                               "has not begun: its first statement waits or goes elsewhere",
                               "There was none to try it on before the deadline."},
    [ATTEMPT_NOT_SENT] = {"not sent",
                          {EFFECT_NONE, AGAIN_HERE, false, true},
                          "again as a whole (40000)",
                          "The connection was found dead before a byte of the statement had left."},
    [ATTEMPT_ERROR] = {"error", ORDINARY, "see the errors", "The server refused it, and the connection lives."},
    [ATTEMPT_LOST] = {"connection lost", UNEXPLAINED, "again as a whole (40000); during COMMIT: resolved, else 08007",
                      "The server may have done it before, or do it after, the connection ended."},
    [ATTEMPT_TIMEOUT] =
        {"deadline passed",
         {EFFECT_UNKNOWN, AGAIN_NEVER, false, true},
         "rolled back, no time is left; during COMMIT: 08007",
         "The server was asked to stop and did not say in time what has become of it. Slow is not dead, but a look "
         "costs little."},
    [ATTEMPT_FATAL] = {"last words", UNEXPLAINED, "see the last words; during COMMIT: resolved, else 08007",
                       "The server, or a pooler, gave an error and ended the connection: see the last words."},
    [ATTEMPT_CANCELLED] = {"stopped at the deadline",
                           {EFFECT_ROLLED_BACK, AGAIN_NEVER, true, false},
                           "failed, it can only be rolled back; no time is left",
                           "The server was asked to stop, and said that it has (57014)."},
};

const struct contract_row *dbha__contract_errors(size_t *n)
{
	*n = sizeof errors / sizeof errors[0];
	return errors;
}

const struct contract_row *dbha__contract_last_words(size_t *n)
{
	*n = sizeof last_words / sizeof last_words[0];
	return last_words;
}

const struct contract_end *dbha__contract_ends(size_t *n)
{
	*n = sizeof ends / sizeof ends[0];
	return ends;
}
