/* Collects entries of the access log and writes them from a thread of its own. */
#include "relay/access_log.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/reason.h"

#define BUFFER_SIZE (1U << 20)
/* systemd's Native Journal Protocol: a datagram an entry. */
#define JOURNAL "/run/systemd/journal/socket"
/* A journal that takes nothing for so long loses what is there to write. */
#define JOURNAL_WAIT_S 1
/* Entries wait this long for company. */
#define FLUSH_NS 100000000L

struct access_log {
	pthread_t thread;
	char path[256]; /* empty: standard error, or the journal */
	bool journal;
	int fd;		      /* the thread's, after the start */
	pthread_mutex_t lock; /* of all below; held while copying an entry, never while writing */
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

static const struct sockaddr_un journal_address = {.sun_family = AF_UNIX, .sun_path = JOURNAL};

static int open_journal(void)
{
	const struct timeval wait = {.tv_sec = JOURNAL_WAIT_S};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), err;

	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof(wait)) == 0 &&
		access(JOURNAL, W_OK) == 0)
		return fd;
	err = errno;
	close(fd);
	errno = err;
	return -1;
}

/* After the first that can't be written the others would wait, too. */
static void write_journal(int fd, const char *entries, size_t size)
{
	const char *end = entries + size, *next;
	unsigned long long lost = 0;
	int err = 0;

	for (; entries < end; entries = next) {
		next = (const char *)memmem(entries, (size_t)(end - entries), "\n\n", 2) + 2;
		while (!err && sendto(fd, entries, (size_t)(next - entries) - 1, MSG_NOSIGNAL,
				       (const struct sockaddr *)&journal_address,
				       sizeof(journal_address)) < 0)
			err = errno == EINTR ? 0 : errno;
		lost += err != 0;
	}
	if (lost)
		log_warn("relay: access log: %llu entries lost, the journal does not take them: "
			 "%s; `systemctl status systemd-journald`",
			lost, strerror(err));
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
	if (log->journal)
		write_journal(log->fd, bytes, size);
	else
		write_all(log->fd, bytes, size);
	if (dropped)
		log_warn("relay: access log: %llu entries dropped, %s is too slow", dropped,
			log->journal ? "the journal" : "its disk");
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
	if (strcmp(where, "journal") == 0) {
		log->journal = true;
		log->fd = open_journal();
		if (log->fd < 0) {
			err = errno;
			goto fail;
		}
	} else if (strcmp(where, "stderr") != 0) {
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
		bool journal = log->journal;

		if (log->fd >= 0 && log->fd != STDERR_FILENO)
			close(log->fd);
		free(log->filling);
		free(log->writing);
		free(log);
		if (journal)
			return reason_set(reason, -err,
				"write access_log: file:/path, or start systemd-journald",
				"access_log: there is no journal at " JOURNAL ": %s",
				strerror(err));
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
	if (log->fd != STDERR_FILENO)
		close(log->fd);
	pthread_cond_destroy(&log->changed);
	pthread_mutex_destroy(&log->lock);
	free(log->filling);
	free(log->writing);
	free(log);
}

bool access_log_is_journal(const struct access_log *log)
{
	return log->journal;
}

void access_log_write(struct access_log *log, const char *entry, size_t size)
{
	pthread_mutex_lock(&log->lock);
	if (size > BUFFER_SIZE - log->used) {
		log->dropped++;
	} else {
		memcpy(log->filling + log->used, entry, size);
		if (!log->used)
			pthread_cond_signal(&log->changed);
		log->used += size;
	}
	pthread_mutex_unlock(&log->lock);
}
