/*
 * first_write: tells when a node accepts its first write.
 *
 *     first_write CONNINFO [--timeout SECONDS]
 *
 * Asks one node over and over, on one connection of plain libpq, for a transaction id, which only a primary can give:
 * a standby refuses with SQLSTATE 25006. Prints the wall clock, in microseconds since 1970, of the moment just before the
 * first try that succeeded was sent. It shares no code with the library, and so can judge how fast the library is.
 *
 * Exit status: 0 printed; 1 the time is over, or the server answered with something unexpected; 2 wrong usage.
 */
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Between two tries. A try takes about 100 us, so the answer is at most some 300 us late. */
#define PAUSE_NS     200000
/* Between two connects to a server that does not answer. */
#define RECONNECT_NS 5000000

static int64_t clock_us(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void pause_ns(long ns)
{
	struct timespec wait = {.tv_sec = 0, .tv_nsec = ns};
	nanosleep(&wait, NULL);
}

enum answer { ACCEPTED, REFUSED, DISCONNECTED, UNEXPECTED };

/* One try. *sent_us: the wall clock just before it was sent. */
static enum answer try_write(PGconn *conn, int64_t *sent_us)
{
	*sent_us = clock_us(CLOCK_REALTIME);
	PGresult *result = PQexec(conn, "SELECT pg_current_xact_id()");
	enum answer answer = UNEXPECTED;
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	if (PQresultStatus(result) == PGRES_TUPLES_OK)
		answer = ACCEPTED;
	else if (PQstatus(conn) != CONNECTION_OK)
		answer = DISCONNECTED;
	else if (sqlstate != NULL && strcmp(sqlstate, "25006") == 0)
		answer = REFUSED;
	else
		fprintf(stderr, "first_write: SQLSTATE %s: %s", sqlstate != NULL ? sqlstate : "?", PQerrorMessage(conn));
	PQclear(result);
	return answer;
}

/* Connects until the deadline. Returns NULL if there is no connection by then. */
static PGconn *connect_until(const char *conninfo, int64_t deadline_us)
{
	for (;;) {
		PGconn *conn = PQconnectdb(conninfo);
		if (PQstatus(conn) == CONNECTION_OK)
			return conn;
		if (clock_us(CLOCK_MONOTONIC) >= deadline_us) {
			fprintf(stderr, "first_write: %s", PQerrorMessage(conn));
			PQfinish(conn);
			return NULL;
		}
		PQfinish(conn);
		pause_ns(RECONNECT_NS);
	}
}

static int watch(const char *conninfo, int64_t deadline_us)
{
	PGconn *conn = connect_until(conninfo, deadline_us);
	while (conn != NULL && clock_us(CLOCK_MONOTONIC) < deadline_us) {
		int64_t sent_us;
		enum answer answer = try_write(conn, &sent_us);
		if (answer == ACCEPTED) {
			printf("%lld\n", (long long)sent_us);
			PQfinish(conn);
			return 0;
		}
		if (answer == UNEXPECTED)
			break;
		if (answer == DISCONNECTED) {
			PQfinish(conn);
			conn = connect_until(conninfo, deadline_us);
		} else {
			pause_ns(PAUSE_NS);
		}
	}
	if (conn != NULL && clock_us(CLOCK_MONOTONIC) >= deadline_us)
		fprintf(stderr, "first_write: the node accepted no write in time\n");
	PQfinish(conn);
	return 1;
}

/* Returns the number of seconds that the text says, or 0 for one that makes no sense. */
static double parse_seconds(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	return end != text && *end == '\0' && seconds > 0 && seconds < 1e6 ? seconds : 0;
}

int main(int argc, char **argv)
{
	double seconds = 0;
	if (argc == 2)
		seconds = 60;
	else if (argc == 4 && strcmp(argv[2], "--timeout") == 0)
		seconds = parse_seconds(argv[3]);
	if (seconds == 0) {
		fprintf(stderr, "usage: first_write CONNINFO [--timeout SECONDS]\n");
		return 2;
	}
	return watch(argv[1], clock_us(CLOCK_MONOTONIC) + (int64_t)(seconds * 1e6));
}
