/*
 * copy: the data of COPY, in and out, between its beginning and its end; see stream.h.
 */
#include <poll.h>
#include <sys/socket.h>

#include "clock.h"
#include "stream_end.h"
#include "wait.h"

/*
 * What is put collects in libpq's buffer, which has no bound of its own: beyond this everything is sent before more is taken. As
 * large as a socket takes in one go, so that a server that keeps up costs one system call for all of it.
 */
#define UNSENT_MAX ((size_t)65536)
/* And when this much time has passed, for whoever puts little: otherwise an error would be told at the end only. */
#define UNSENT_US  ((int64_t)100000)

/* ---- in --------------------------------------------------------------------------------------------------------- */

static uint32_t message_length(const unsigned char *at)
{
	return (uint32_t)at[1] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 8 | at[4];
}

/*
 * Whether the server has refused already, or gone. libpq would tell only at the end, after gigabytes for nothing, so this looks at
 * what waits in the socket: behind the notices, is there an error? Its first field is always the severity, 'S', and where this looks into
 * the middle of a message, because libpq has taken its beginning, no text has these bytes. What is missed (an error
 * that is encrypted, or that libpq took in first) is found at the end.
 */
static bool is_over(const struct conn *conn)
{
	unsigned char head[2048];
	ssize_t n = recv(conn->guard_fd, head, sizeof head, MSG_PEEK | MSG_DONTWAIT);
	if (n == 0)
		return true;
	if (PQsslInUse(conn->pg) || PQgssEncInUse(conn->pg))
		return false;
	for (size_t at = 0; n > 0 && at + 6 <= (size_t)n;) {
		uint32_t length = message_length(head + at);
		if (length < 4 || length > 1 << 20)
			return false;
		if (head[at] == 'E' && head[at + 5] == 'S')
			return true;
		at += 1 + (size_t)length;
	}
	return false;
}

/*
 * The COPY is over before its end. That it is refused brings libpq to the point where it reads what the server has said,
 * whether the server still listens or not.
 */
static void over_early(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	PQputCopyEnd(s->conn->pg, "the connection failed");
	dbha__stream_read_end(s, deadline, attempt);
	/* It has kept nothing, so that this is no success whatever it says. */
	if (attempt->end == ATTEMPT_OK)
		dbha__stream_broke_off(s, false, attempt);
}

/* Gets everything out, and takes in meanwhile what the server says. False: that was the end, see `attempt`. */
static bool send_all(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	PGconn *pg = s->conn->pg;
	int rc = is_over(s->conn) ? -1 : PQflush(pg);
	while (rc > 0) {
		enum waited waited = dbha__wait_socket(s->conn, POLLIN | POLLOUT, deadline);
		if (waited == WAITED_TIMEOUT) {
			dbha__stream_broke_off(s, true, attempt);
			return false;
		}
		bool failed = waited == WAITED_BROKEN || is_over(s->conn) || !PQconsumeInput(pg);
		rc = failed ? -1 : PQflush(pg);
	}
	if (rc < 0 || PQstatus(pg) != CONNECTION_OK) {
		over_early(s, deadline, attempt);
		return false;
	}
	s->unsent = 0;
	s->sent_us = dbha__clock_coarse();
	return true;
}

static bool is_due(const struct stream *s, size_t more)
{
	return s->unsent + more > UNSENT_MAX || dbha__clock_coarse() - s->sent_us > UNSENT_US;
}

void dbha__stream_put(struct stream *s, const char *data, size_t length, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	while (length > 0) {
		size_t piece = length < UNSENT_MAX ? length : UNSENT_MAX;
		if (is_due(s, piece) && !send_all(s, deadline, attempt))
			return;
		/* Never "would block": libpq makes its buffer larger instead. What fails here is memory, or the connection. */
		if (PQputCopyData(s->conn->pg, data, (int)piece) != 1) {
			over_early(s, deadline, attempt);
			return;
		}
		s->unsent += piece;
		data += piece;
		length -= piece;
	}
}

bool dbha__stream_put_at_once(struct stream *s, const char *data, size_t length)
{
	if (length > UNSENT_MAX || is_due(s, length) || PQputCopyData(s->conn->pg, data, (int)length) != 1)
		return false;
	s->unsent += length;
	return true;
}

void dbha__stream_end(struct stream *s, const char *refusal, int64_t deadline, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	/* As long as data is on its way the end is not, so that a failure meanwhile leaves no doubt. */
	if (!refusal && !send_all(s, deadline, attempt))
		return;
	s->undone = refusal != NULL;
	PQputCopyEnd(s->conn->pg, refusal); /* what fails here, reading says better */
	dbha__stream_read_end(s, deadline, attempt);
}

/* ---- out -------------------------------------------------------------------------------------------------------- */

/* Until there is data, or the end of it (-1), or the deadline (0). */
static int next_data(struct stream *s, int64_t deadline, char **data)
{
	bool broken = false;
	for (;;) {
		int n = PQgetCopyData(s->conn->pg, data, 1);
		if (n != 0 || broken)
			return n != 0 ? n : -1;
		enum waited waited = dbha__wait_socket(s->conn, POLLIN, deadline);
		if (waited == WAITED_TIMEOUT)
			return 0;
		/* Something may have come before the end of the connection: one look more. */
		broken = waited == WAITED_BROKEN || !PQconsumeInput(s->conn->pg);
	}
}

void dbha__stream_drain_copy(struct stream *s, int64_t deadline, struct attempt *attempt)
{
	char *data = NULL;
	int n;
	while ((n = next_data(s, deadline, &data)) > 0 && dbha__clock_now() < deadline)
		PQfreemem(data);
	if (n < 0) {
		dbha__stream_read_end(s, deadline, attempt);
		return;
	}
	if (n > 0)
		PQfreemem(data);
	dbha__stream_broke_off(s, true, attempt);
}

void dbha__stream_get(struct stream *s, int64_t deadline, char **data, size_t *length, struct attempt *attempt)
{
	dbha__attempt_begin(attempt);
	*data = NULL;
	*length = 0;
	if (s->kind != STREAM_COPY_OUT)
		return;
	int n = next_data(s, deadline, data);
	if (n > 0 && !s->conn->late) {
		*length = (size_t)n;
		return;
	}
	PQfreemem(*data);
	*data = NULL;
	if (n < 0) {
		dbha__stream_read_end(s, deadline, attempt);
		return;
	}
	if (!dbha__stream_ask_to_stop(s, &deadline)) {
		dbha__stream_broke_off(s, true, attempt);
		return;
	}
	s->late_rows = true;
	dbha__stream_drain_copy(s, deadline, attempt);
}

char *dbha__stream_get_at_once(struct stream *s, size_t *length)
{
	char *data = NULL;
	int n = PQgetCopyData(s->conn->pg, &data, 1);
	*length = n > 0 ? (size_t)n : 0;
	return data;
}
