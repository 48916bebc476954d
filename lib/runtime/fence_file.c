#include "fence_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "error.h"

/* A lock is held for one write and its syncs. Who does not get it in this time is no reason for a failover to wait. */
#define LOCK_MS        40
#define LOCK_ACCEPT_MS 2000
/* After a write that failed. */
#define RETRY_US       ((int64_t)1000000)
/* Longest part of a path in a message. */
#define SHOWN          "%.100s"

void dbha__fence_file_init(struct fence_file *file, const char *path, uint64_t accept)
{
	memset(file, 0, sizeof *file);
	file->path = path;
	file->accept = accept;
	file->fd = -1;
}

static void forget(struct fence_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	file->fd = -1;
	file->stored = (struct fence){0};
}

void dbha__fence_file_fini(struct fence_file *file)
{
	if (file->path)
		forget(file);
	file->path = NULL;
}

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static const char *reason(int error)
{
	return error == ELOOP ? "it is a symbolic link: name the file itself" : strerror(error);
}

static void cannot_read(struct fence_file *file, const char *why)
{
	forget(file);
	file->unreadable = true;
	snprintf(file->trouble, sizeof file->trouble, "fence_file \"" SHOWN "\" cannot be read: %s", file->path, why);
}

static ssize_t read_whole(int fd, char *text, size_t size)
{
	size_t used = 0;
	while (used < size) {
		ssize_t n = read(fd, text + used, size - used);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			return -1;
		used += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)used;
}

static void take_text(struct fence_file *file, const char *text, size_t length)
{
	switch (dbha__fence_parse(&file->stored, text, length)) {
	case FENCE_TEXT_GOOD:
		file->unreadable = false;
		return;
	case FENCE_TEXT_DAMAGED:
		cannot_read(file, "it is damaged, or no fence file");
		return;
	case FENCE_TEXT_NEWER:
		cannot_read(file, "a newer version of libdbha has written it");
		return;
	}
}

/* Takes over the file as it is; fd is kept. */
static void take_file(struct fence_file *file, int fd)
{
	char text[FENCE_TEXT_MAX];
	forget(file);
	file->fd = fd;
	ssize_t n = fstat(fd, &file->stamp) == 0 ? read_whole(fd, text, sizeof text) : -1;
	if (n < 0)
		cannot_read(file, strerror(errno));
	else if (!S_ISREG(file->stamp.st_mode))
		cannot_read(file, "it is no regular file");
	else
		take_text(file, text, (size_t)n);
}

static void read_now(struct fence_file *file)
{
	/* O_NONBLOCK: should it be a FIFO, nobody waits for somebody to write into it. */
	int fd = open(file->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		take_file(file, fd);
	} else if (errno == ENOENT) {
		forget(file);
		file->unreadable = false;
	} else {
		cannot_read(file, reason(errno));
	}
}

static bool is_as_it_was(const struct fence_file *file)
{
	struct stat now;
	if (file->fd < 0 || lstat(file->path, &now) != 0)
		return false;
	return now.st_dev == file->stamp.st_dev && now.st_ino == file->stamp.st_ino && now.st_size == file->stamp.st_size &&
	       now.st_mtim.tv_sec == file->stamp.st_mtim.tv_sec && now.st_mtim.tv_nsec == file->stamp.st_mtim.tv_nsec;
}

/* ---- writing ----------------------------------------------------------------------------------------------------- */

static int beside(const struct fence_file *file, const char *suffix, char path[PATH_MAX])
{
	int n = snprintf(path, PATH_MAX, "%s%s", file->path, suffix);
	return n < PATH_MAX ? 0 : ENAMETOOLONG;
}

/* The lock's descriptor, or -1 with errno. It is given back by closing. */
static int open_lock(const struct fence_file *file)
{
	char path[PATH_MAX];
	errno = beside(file, ".lock", path);
	return errno ? -1 : open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

/* Given back by hand: a child that was forked meanwhile has the descriptor too, and would keep the lock. */
static void give_back(int lock)
{
	flock(lock, LOCK_UN);
	close(lock);
}

static bool wants_write(const struct fence_file *file, uint64_t ours, struct fence *next)
{
	return dbha__fence_next(&file->stored, &file->known, ours, file->accept, next);
}

/* flock, not fcntl: it excludes the other handles of this process too, and closing another descriptor does not end it. */
static int take_lock(int fd, int patience_ms)
{
	for (int waited = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; waited += 2) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			return errno;
		if (waited >= patience_ms)
			return EWOULDBLOCK;
		poll(NULL, 0, 2);
	}
	return 0;
}

static int write_whole(int fd, const char *text, size_t length)
{
	for (size_t done = 0; done < length;) {
		ssize_t n = write(fd, text + done, length - done);
		if (n < 0 && errno != EINTR)
			return errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return fsync(fd) == 0 ? 0 : errno;
}

/* So that the new name outlives a power cut. A file system that cannot do this says EINVAL, and has done what it can. */
static int sync_directory(const char *path)
{
	char directory[PATH_MAX];
	snprintf(directory, sizeof directory, "%s", path);
	*(strrchr(directory, '/') + 1) = '\0';
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int rc = fsync(fd) == 0 || errno == EINVAL ? 0 : errno;
	close(fd);
	return rc;
}

/* Under the lock: whatever bears the new file's name was left behind by somebody who was killed. 0, or an errno. */
static int replace(const struct fence_file *file, const struct fence *fence)
{
	char text[FENCE_TEXT_MAX], fresh[PATH_MAX];
	size_t length = dbha__fence_print(fence, text);
	int rc = beside(file, ".new", fresh);
	if (rc)
		return rc;
	unlink(fresh);
	int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno;
	rc = write_whole(fd, text, length);
	close(fd);
	if (rc == 0 && rename(fresh, file->path) != 0)
		rc = errno;
	if (rc != 0)
		unlink(fresh);
	return rc ? rc : sync_directory(file->path);
}

/* Adds what is known to what is there now. 0, or an errno; where the file cannot be read, `trouble` says so by itself. */
static int add_under_lock(struct fence_file *file, uint64_t ours)
{
	struct fence next;
	read_now(file);
	if (file->unreadable || !wants_write(file, ours, &next))
		return 0;
	int rc = replace(file, &next);
	read_now(file);
	return rc;
}

static int add(struct fence_file *file, uint64_t ours)
{
	int lock = open_lock(file);
	if (lock < 0)
		return errno;
	int rc = take_lock(lock, LOCK_MS);
	if (rc == 0)
		rc = add_under_lock(file, ours);
	give_back(lock);
	return rc;
}

static void cannot_write(struct fence_file *file, int error, int64_t now)
{
	file->retry_us = now + RETRY_US;
	snprintf(file->trouble, sizeof file->trouble,
	         "fence_file \"" SHOWN "\" cannot be written: %s; new processes may not know the timeline", file->path,
	         error == EWOULDBLOCK ? "another process holds its lock" : reason(error));
}

/* ---- for the handle ---------------------------------------------------------------------------------------------- */

void dbha__fence_file_keep(struct fence_file *file, uint64_t system_identifier, uint32_t timeline, int64_t now)
{
	struct fence next;
	if (!file->path)
		return;
	dbha__fence_note(&file->known, system_identifier, timeline);
	if (!is_as_it_was(file))
		read_now(file);
	if (file->unreadable)
		return;
	if (!wants_write(file, system_identifier, &next)) {
		file->trouble[0] = '\0';
		file->retry_us = 0;
		return;
	}
	if (now < file->retry_us)
		return;
	int rc = add(file, system_identifier);
	/* While the lock was waited for, its holder may have written the very same. */
	if (rc == EWOULDBLOCK)
		read_now(file);
	if (file->unreadable)
		return;
	if (rc && wants_write(file, system_identifier, &next)) {
		cannot_write(file, rc, now);
		return;
	}
	file->trouble[0] = '\0';
	file->retry_us = 0;
}

uint64_t dbha__fence_file_acceptable(const struct fence_file *file)
{
	return file->path && dbha__fence_may_accept(&file->stored, file->accept) ? file->accept : 0;
}

static int fail_unreadable(const struct fence_file *file, dbha_error *err)
{
	return dbha__fail(
	    err, DBHA_ERR_CONFIG,
	    "%s; restore it or make it readable, or remove it: then what it knew of timelines is forgotten, and "
	    "is learned anew from the nodes that can be reached",
	    file->trouble);
}

int dbha__fence_file_open(struct fence_file *file, dbha_error *err)
{
	if (!file->path)
		return DBHA_OK;
	file->trouble[0] = '\0';
	read_now(file);
	if (file->unreadable)
		return fail_unreadable(file, err);
	int lock = file->stored.n == 0 ? open_lock(file) : -1;
	if (lock < 0 && file->stored.n == 0)
		return dbha__fail(err, DBHA_ERR_CONFIG,
		                  "fence_file \"" SHOWN
		                  "\" does not exist and cannot be made: %s; its directory must exist, and "
		                  "this process must be allowed to write into it",
		                  file->path, strerror(errno));
	if (lock >= 0)
		close(lock);
	return DBHA_OK;
}

static int accept_under_lock(struct fence_file *file, uint64_t system_identifier, dbha_error *err)
{
	read_now(file);
	if (file->unreadable)
		return fail_unreadable(file, err);
	struct fence next = file->stored;
	dbha__fence_accept(&next, system_identifier);
	int rc = replace(file, &next);
	if (rc)
		return dbha__fail(err, DBHA_ERR_SYSTEM, "fence_file \"" SHOWN "\" cannot be written: %s", file->path,
		                  reason(rc));
	return DBHA_OK;
}

int dbha__fence_file_accept(const char *path, uint64_t system_identifier, dbha_error *err)
{
	struct fence_file file;
	dbha__fence_file_init(&file, path, 0);
	int code;
	int lock = open_lock(&file);
	int rc = lock < 0 ? errno : take_lock(lock, LOCK_ACCEPT_MS);
	if (rc)
		code = dbha__fail(err, DBHA_ERR_SYSTEM, "fence_file \"" SHOWN "\" cannot be locked: %s", path,
		                  rc == EWOULDBLOCK ? "another process holds its lock" : reason(rc));
	else
		code = accept_under_lock(&file, system_identifier, err);
	if (lock >= 0)
		close(lock);
	dbha__fence_file_fini(&file);
	return code;
}
