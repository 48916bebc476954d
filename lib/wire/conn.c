#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cancel.h"
#include "stmtcache.h"

/*
 * A library prints nothing: libpq's default would write notices to stderr. One of them takes the meaning out of a success: a
 * commit whose wait for a synchronous standby was cancelled is reported as done, behind a warning. Its text is translated,
 * the name of the function that raised it is not.
 */
static void take_notice(void *arg, const PGresult *result)
{
	struct conn *conn = arg;
	const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);
	if (function && strcmp(function, "SyncRepWaitForLSN") == 0)
		conn->unreplicated = true;
}

/* Keywords and values for PQconnectStartParams: the user's, then this one host. The caller frees both arrays. */
static bool make_params(const struct config *config, const struct config_node *node, const char *address,
                        const char ***keywords, const char ***values)
{
	size_t n = (size_t)config->n_pairs + 6;
	const char **keys = calloc(n, sizeof *keys);
	const char **vals = calloc(n, sizeof *vals);
	*keywords = keys;
	*values = vals;
	if (!keys || !vals)
		return false;
	int at = 0;
	for (; at < config->n_pairs; at++) {
		keys[at] = config->pairs[at].keyword;
		vals[at] = config->pairs[at].value;
	}
	const char *const own[][2] = {
	    {"host", node->host},
	    {"hostaddr", address ? address : node->hostaddr},
	    {"port", node->port},
	    /* The role is judged by the topology. libpq's own check would cost a query and hide what it found. */
	    {"target_session_attrs", "any"},
	};
	for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
		keys[at] = own[i][0];
		vals[at] = own[i][1];
		at += own[i][1] != NULL;
	}
	/* The last key may have been written without its value: the list ends before it. */
	keys[at] = NULL;
	return true;
}

struct conn *dbha__conn_start(const struct config *config, const struct config_node *node, const char *address,
                              int statements)
{
	const char **keywords = NULL;
	const char **values = NULL;
	struct conn *conn = calloc(1, sizeof *conn);
	if (!conn)
		return NULL;
	conn->guard_fd = -1;
	conn->cancels = dbha__cancel_count_new();
	if (statements > 0)
		conn->statements = dbha__stmtcache_new(statements);
	if (conn->cancels && (statements == 0 || conn->statements) &&
	    make_params(config, node, address, &keywords, &values))
		conn->pg = PQconnectStartParams(keywords, values, 0);
	free(keywords);
	free(values);
	if (!conn->pg) {
		dbha__conn_close(conn);
		return NULL;
	}
	PQsetNoticeReceiver(conn->pg, take_notice, conn);
	/* libpq keeps the SQLSTATE of a refused connection to itself; the verbose form of its message has it. */
	PQsetErrorVerbosity(conn->pg, PQERRORS_VERBOSE);
	return conn;
}

static bool finish_connecting(struct conn *conn)
{
	conn->guard_fd = fcntl(PQsocket(conn->pg), F_DUPFD_CLOEXEC, 0);
	if (conn->guard_fd < 0)
		return false;
	PQsetErrorVerbosity(conn->pg, PQERRORS_DEFAULT);
	return PQsetnonblocking(conn->pg, 1) == 0;
}

enum conn_poll dbha__conn_poll(struct conn *conn)
{
	if (PQstatus(conn->pg) == CONNECTION_BAD)
		return CONN_FAILED;
	switch (PQconnectPoll(conn->pg)) {
	case PGRES_POLLING_READING:
		return CONN_WANT_READ;
	case PGRES_POLLING_WRITING:
		return CONN_WANT_WRITE;
	case PGRES_POLLING_OK:
		return finish_connecting(conn) ? CONN_READY : CONN_FAILED;
	default:
		return CONN_FAILED;
	}
}

bool dbha__conn_reached(const struct conn *conn)
{
	ConnStatusType status = PQstatus(conn->pg);
	return status != CONNECTION_BAD && status != CONNECTION_NEEDED && status != CONNECTION_STARTED;
}

static bool is_sqlstate(const char *text)
{
	return strspn(text, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 && text[5] == ':';
}

/* In "FATAL:  53300: sorry, too many clients already" the code stands after a colon and two blanks. NULL if there is none. */
static const char *find_sqlstate(const char *message)
{
	for (const char *at = strstr(message, ":  "); at; at = strstr(at + 3, ":  "))
		if (is_sqlstate(at + 3))
			return at + 3;
	return NULL;
}

void dbha__conn_first_line(char *out, size_t size, const char *message)
{
	size_t length = strcspn(message, "\r\n");
	if (length >= size)
		length = size - 1;
	memcpy(out, message, length);
	out[length] = '\0';
}

static enum failure failure_of_sqlstate(const char *state)
{
	if (strncmp(state, "57P", 3) == 0)
		return FAILURE_STARTING; /* starting up, shutting down, recovering */
	if (strncmp(state, "53300", 5) == 0)
		return FAILURE_FULL;
	if (strncmp(state, "08", 2) == 0)
		return FAILURE_UNREACHABLE; /* a pooler that cannot reach its server */
	return FAILURE_REFUSED;
}

enum failure dbha__conn_failure(const struct conn *conn, char *why, size_t size)
{
	const char *message = PQerrorMessage(conn->pg);
	const char *state = find_sqlstate(message);
	if (!*message)
		/* libpq has said nothing: the end of the stream was seen before it looked, or it is our own step that failed. */
		message =
		    conn->guard_fd < 0 ? "no file descriptor is left for the connection" : "the server closed the connection";
	dbha__conn_first_line(why, size, message);
	if (state)
		return failure_of_sqlstate(state);
	return PQconnectionNeedsPassword(conn->pg) ? FAILURE_REFUSED : FAILURE_UNREACHABLE;
}

int dbha__conn_fd(const struct conn *conn)
{
	return PQsocket(conn->pg);
}

const char *dbha__conn_address(const struct conn *conn)
{
	const char *address = PQhostaddr(conn->pg);
	return address ? address : "";
}

bool dbha__conn_is_dead(struct conn *conn)
{
	char byte;
	ssize_t n = recv(conn->guard_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n < 0)
		return errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR;
	if (n == 0)
		return true;
	/*
	 * Something was said while nobody asked: a notice, a changed parameter (fine), or the FATAL message of a server that
	 * closes this session. libpq takes it in; if the end of the stream is behind it, the second look sees that.
	 */
	if (!PQconsumeInput(conn->pg) || PQstatus(conn->pg) == CONNECTION_BAD)
		return true;
	return recv(conn->guard_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

bool dbha__conn_was_promoted(struct conn *conn)
{
	if (!conn->standby || !conn->direct)
		return false;
	const char *in_hot_standby = PQparameterStatus(conn->pg, "in_hot_standby");
	if (!in_hot_standby || strcmp(in_hot_standby, "off") != 0)
		return false;
	conn->standby = false;
	return true;
}

bool dbha__conn_peer_closed(const struct conn *conn)
{
	/* POLLRDHUP: the end of the stream is seen also behind a last message that nobody has read. */
	struct pollfd item = {.fd = conn->guard_fd, .events = POLLRDHUP};
	return poll(&item, 1, 0) > 0;
}

enum conn_state dbha__conn_state(const struct conn *conn)
{
	if (PQstatus(conn->pg) != CONNECTION_OK || PQpipelineStatus(conn->pg) != PQ_PIPELINE_OFF)
		return CONN_UNUSABLE;
	switch (PQtransactionStatus(conn->pg)) {
	case PQTRANS_IDLE:
		return CONN_IDLE;
	case PQTRANS_INTRANS:
	case PQTRANS_INERROR:
		return CONN_IN_TRANSACTION;
	default:
		return CONN_UNUSABLE;
	}
}

bool dbha__conn_has_failed(const struct conn *conn)
{
	return PQtransactionStatus(conn->pg) == PQTRANS_INERROR;
}

int dbha__conn_backend_pid(const struct conn *conn)
{
	return PQbackendPID(conn->pg);
}

void dbha__conn_lend(struct conn *conn)
{
	PQsetnonblocking(conn->pg, 0);
}

void dbha__conn_take_back(struct conn *conn)
{
	PQsetnonblocking(conn->pg, 1);
	PQsetNoticeReceiver(conn->pg, take_notice, conn);
	PQuntrace(conn->pg);
}

void dbha__conn_cut(struct conn *conn)
{
	if (conn->guard_fd >= 0)
		shutdown(conn->guard_fd, SHUT_RDWR);
}

void dbha__conn_cut_off(struct conn *conn)
{
	/* The close that follows resets the connection and throws away what is still to be sent. */
	static const struct linger reset = {.l_onoff = 1, .l_linger = 0};
	if (conn->guard_fd >= 0)
		setsockopt(conn->guard_fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	dbha__conn_cut(conn);
}

void dbha__conn_close(struct conn *conn)
{
	if (!conn)
		return;
	/* The good-bye is written without waiting: libpq's socket never blocks, and the mode is still non-blocking. */
	if (conn->pg)
		PQfinish(conn->pg);
	if (conn->guard_fd >= 0)
		close(conn->guard_fd);
	dbha__cancel_count_drop(conn->cancels);
	dbha__stmtcache_free(conn->statements);
	free(conn);
}

void dbha__conn_abandon(struct conn *conn, int dev_null)
{
	int fd = PQsocket(conn->pg);
	if (fd >= 0)
		dup3(dev_null, fd, O_CLOEXEC);
	if (conn->guard_fd >= 0)
		dup3(dev_null, conn->guard_fd, O_CLOEXEC);
}
