#include "trace.h"

#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

int dbha__trace_init(struct trace *trace, enum trace_level level, const char *path)
{
	trace->level = level;
	trace->fd = -1;
	if (level == TRACE_OFF || !path)
		return 0;
	/* stderr is duplicated so that closing the handle does not close it, and 2 may be re-opened by the application. */
	trace->fd = strcmp(path, "stderr") == 0 ? fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)
	                                        : open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0640);
	return trace->fd < 0 ? -1 : 0;
}

void dbha__trace_fini(struct trace *trace)
{
	if (trace->fd >= 0)
		close(trace->fd);
	trace->fd = -1;
}

static int print_prefix(char *line, size_t size, enum trace_level level)
{
	static const char *const names[] = {"", "ERROR", "WARNING", "INFO", "DEBUG"};
	struct timespec ts;
	struct tm tm;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	return snprintf(line, size, "%04d-%02d-%02dT%02d:%02d:%02d.%06ldZ [%ld] dbha %s: ", tm.tm_year + 1900,
	                tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec, ts.tv_nsec / 1000, (long)getpid(),
	                names[level]);
}

/* A pipe whose reader is stuck loses lines; it must not stop a failover. */
static bool has_room(int fd)
{
	struct pollfd item = {.fd = fd, .events = POLLOUT};
	return poll(&item, 1, 0) == 1 && (item.revents & POLLOUT);
}

void dbha__trace(const struct trace *trace, enum trace_level level, const char *format, ...)
{
	if (trace->fd < 0 || level > trace->level || !has_room(trace->fd))
		return;
	char line[LINE_MAX_BYTES];
	int used = print_prefix(line, sizeof line, level);
	va_list args;
	va_start(args, format);
	int more = vsnprintf(line + used, sizeof line - (size_t)used - 1, format, args);
	va_end(args);
	if (more < 0)
		return;
	size_t end = (size_t)used + (size_t)more;
	if (end > sizeof line - 2)
		end = sizeof line - 2;
	line[end] = '\n';
	ssize_t n = write(trace->fd, line, end + 1);
	(void)n; /* a log that cannot be written must not disturb the caller */
}
