/*
 * trace: the log. Nothing is written unless the application asked for it with `log_level` and `log_file`.
 *
 * A line is made in a buffer on the stack and written with one write(2) to a descriptor of our own; there is no callback,
 * so that no code of the application runs on a thread of ours. It never blocks: a line
 * that a pipe has no room for is lost.
 */
#ifndef DBHA_BASE_TRACE_H
#define DBHA_BASE_TRACE_H

enum trace_level {
	TRACE_OFF = 0,
	TRACE_ERROR,
	TRACE_WARNING,
	TRACE_INFO,
	TRACE_DEBUG,
};

struct trace {
	int fd; /* -1: no log */
	enum trace_level level;
};

/* Opens `path` for appending ("stderr": descriptor 2). NULL or TRACE_OFF: no log. 0, or -1 with errno. */
int dbha__trace_init(struct trace *trace, enum trace_level level, const char *path);
void dbha__trace_fini(struct trace *trace);

void dbha__trace(const struct trace *trace, enum trace_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
