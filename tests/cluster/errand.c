#include "errand.h"

#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#define ERRANDS_MAX 8

extern char **environ;

static pid_t running[ERRANDS_MAX];

pid_t errand_start(const char *format, ...)
{
	char line[2048];
	char words[5][12] = {"setpriv", "--pdeathsig", "KILL", "sh", "-c"};
	char *argv[] = {words[0], words[1], words[2], words[3], words[4], line, NULL};
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	pid_t pid;
	/* Not fork(): the library's handlers for that are not what is tested here. */
	ck_assert_int_eq(posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ), 0);
	for (int i = 0; i < ERRANDS_MAX; i++) {
		if (!running[i]) {
			running[i] = pid;
			return pid;
		}
	}
	ck_abort_msg("too many errands");
	return 0;
}

static void forget(pid_t pid)
{
	for (int i = 0; i < ERRANDS_MAX; i++)
		running[i] = running[i] == pid ? 0 : running[i];
}

bool errand_done(pid_t pid)
{
	int status;
	pid_t got = waitpid(pid, &status, WNOHANG);
	if (got == 0)
		return false;
	forget(pid);
	ck_assert_int_eq(got, pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "an errand ended with wait status %#x", status);
	return true;
}

void errand_end(pid_t pid, int signal)
{
	kill(pid, signal);
	WAIT_FOR(errand_done(pid), PATIENCE_MS);
}

void errands_kill(void)
{
	for (int i = 0; i < ERRANDS_MAX; i++) {
		if (!running[i])
			continue;
		kill(running[i], SIGKILL);
		waitpid(running[i], NULL, 0);
		running[i] = 0;
	}
}
