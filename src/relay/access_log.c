/* Collects access log lines and writes them from a thread of its own. */
#include "relay/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/reason.h"

#define BUFFER_SIZE (1U << 20)
/* Lines wait this long for company. */
#define FLUSH_NS 100000000L

struct access_log {
	pthread_t thread;
	char path[256];	      /* empty: standard error */
	int fd;		      /* the thread's, after the start */
	pthread_mutex_t lock; /* of all below; held while copying a line, never while writing */
	pthread_cond_t changed;
	bool quit;
	unsigned long long dropped;
	size_t used;
	char *filling, *writing; /* BUFFER_SIZE each */
};

static int open_file(const char *path)
{
	return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

/* After a rotation the path names another file, or none. */
static void follow(struct access_log *log)
{
	struct stat now, held;
	int fd;

	if (!log->path[0] || fstat(log->fd, &held) < 0)
		return;
	if (stat(log->path, &now) == 0 && now.st_ino == held.st_ino && now.st_dev == held.st_dev)
		return;
	fd = open_file(log->path);
	if (fd < 0)
		return;
	close(log->fd);
	log->fd = fd;
}

static void write_all(int fd, const char *bytes, size_t size)
{
	while (size) {
		ssize_t n = write(fd, bytes, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			log_warn("relay: access log: %s; lines are lost", strerror(errno));
			return;
		}
		bytes += n;
		size -= (size_t)n;
	}
}

/* Called with the lock; lets go of it while writing. */
static void flush(struct access_log *log)
{
	char *bytes = log->filling;
	size_t size = log->used;
	unsigned long long dropped = log->dropped;

	log->filling = log->writing;
	log->writing = bytes;
	log->used = 0;
	log->dropped = 0;
	pthread_mutex_unlock(&log->lock);
	follow(log);
	write_all(log->fd, bytes, size);
	if (dropped)
		log_warn("relay: access log: %llu lines dropped, its disk is too slow", dropped);
	pthread_mutex_lock(&log->lock);
}

static void *run(void *arg)
{
	struct access_log *log = arg;
	struct timespec pause = {.tv_nsec = FLUSH_NS};

	pthread_mutex_lock(&log->lock);
	while (!log->quit || log->used) {
		if (!log->used) {
			pthread_cond_wait(&log->changed, &log->lock);
			continue;
		}
		if (!log->quit) {
			pthread_mutex_unlock(&log->lock);
			nanosleep(&pause, NULL);
			pthread_mutex_lock(&log->lock);
		}
		flush(log);
	}
	pthread_mutex_unlock(&log->lock);
	return NULL;
}

int access_log_open(struct access_log **ret_log, const char *where, struct reason *reason)
{
	struct access_log *log = calloc(1, sizeof(*log));
	int err = ENOMEM;

	if (!log)
		goto fail;
	log->fd = STDERR_FILENO;
	if (strcmp(where, "stderr") != 0) {
		strncpy(log->path, where, sizeof(log->path) - 1);
		log->fd = open_file(where);
		if (log->fd < 0) {
			err = errno;
			goto fail;
		}
	}
	log->filling = malloc(BUFFER_SIZE);
	log->writing = malloc(BUFFER_SIZE);
	if (!log->filling || !log->writing)
		goto fail;
	pthread_mutex_init(&log->lock, NULL);
	pthread_cond_init(&log->changed, NULL);
	err = pthread_create(&log->thread, NULL, run, log);
	if (err)
		goto fail;
	*ret_log = log;
	return 0;
fail:
	if (log) {
		if (log->path[0] && log->fd >= 0)
			close(log->fd);
		free(log->filling);
		free(log->writing);
		free(log);
	}
	return reason_set(reason, -err, "check that the directory exists and may be written to",
		"access_log: %s: %s", where, strerror(err));
}

void access_log_close(struct access_log *log)
{
	if (!log)
		return;
	pthread_mutex_lock(&log->lock);
	log->quit = true;
	pthread_cond_signal(&log->changed);
	pthread_mutex_unlock(&log->lock);
	pthread_join(log->thread, NULL);
	if (log->path[0])
		close(log->fd);
	pthread_cond_destroy(&log->changed);
	pthread_mutex_destroy(&log->lock);
	free(log->filling);
	free(log->writing);
	free(log);
}

void access_log_line(struct access_log *log, const char *line, size_t size)
{
	pthread_mutex_lock(&log->lock);
	if (size > BUFFER_SIZE - log->used) {
		log->dropped++;
	} else {
		memcpy(log->filling + log->used, line, size);
		if (!log->used)
			pthread_cond_signal(&log->changed);
		log->used += size;
	}
	pthread_mutex_unlock(&log->lock);
}
