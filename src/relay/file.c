/*
 * Files as ends of a flow.
 *
 * splice(2) refuses files opened with O_APPEND, so connections that append to one file, of
 * whatever route and by whatever name, share the place where the next bytes go: each chunk takes
 * its room there and is then written into it. Chunks of different connections follow each other
 * whole. Other programs that write to the file meanwhile, or truncate it, are not seen until no
 * connection appends any more.
 */
#include "relay/file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/flow.h"
#include "relay/relay_internal.h"

/* A file that connections append to now. */
struct append {
	struct append *next;
	dev_t dev;
	ino_t ino;
	uint32_t n;	     /* connections; under the lock */
	_Atomic uint64_t at; /* where the next bytes go; any loop */
};

/* Of the list. Never held while bytes move. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct append *appends;

static int take_append(int fd, struct append **ret_append)
{
	struct append *a = NULL;
	struct stat st;
	int r = 0;

	pthread_mutex_lock(&lock);
	/* The size of now: another connection may have appended and gone since it was opened. */
	if (fstat(fd, &st) < 0) {
		r = -errno;
		goto out;
	}
	for (a = appends; a && (a->dev != st.st_dev || a->ino != st.st_ino); a = a->next)
		;
	if (!a) {
		a = malloc(sizeof(*a));
		r = a ? 0 : -ENOMEM;
		if (r < 0)
			goto out;
		*a = (struct append){.next = appends,
			.dev = st.st_dev,
			.ino = st.st_ino,
			.at = (uint64_t)st.st_size};
		appends = a;
	}
	a->n++;
	*ret_append = a;
out:
	pthread_mutex_unlock(&lock);
	return r;
}

static void give_append(struct append *append)
{
	struct append **at = &appends;

	if (!append)
		return;
	pthread_mutex_lock(&lock);
	if (--append->n == 0) {
		while (*at != append)
			at = &(*at)->next;
		*at = append->next;
		free(append);
	}
	pthread_mutex_unlock(&lock);
}

void file_source(struct flow *f, unsigned int i)
{
	struct end *e = &f->end[i];
	struct stat st;

	e->plain = e->readable = true;
	e->fifo = e->file = false;
	if (fstat(e->fd, &st) == 0) {
		e->file = S_ISREG(st.st_mode);
		e->fifo = S_ISFIFO(st.st_mode);
	}
	f->dir[i].mode = e->file ? MODE_SENDFILE : MODE_COPY;
	f->dir[1 - i].mode = MODE_DISCARD;
	/* Pages are read ahead of sendfile. */
	if (e->file)
		(void)posix_fadvise(e->fd, 0, 0, POSIX_FADV_SEQUENTIAL);
}

static int open_sink(struct flow *f, int fd, const struct stat *st)
{
	f->dir[1].ended = f->dir[1].closed = true; /* nothing comes back */
	f->end[1].file = S_ISREG(st->st_mode);
	if (!S_ISREG(st->st_mode))
		return 0;
	return take_append(fd, &f->append);
}

int file_open(struct flow *f)
{
	const struct endpoint *e = &f->target->settings->endpoint;
	int flags = e->append ? O_WRONLY | O_CREAT : O_RDONLY;
	struct stat st;

	f->end[1].fd = open(e->name, flags | O_NONBLOCK | O_CLOEXEC | O_NOCTTY, 0640);
	if (f->end[1].fd < 0)
		return -errno;
	if (fstat(f->end[1].fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	f->end[1].plain = true;
	if (e->append)
		return open_sink(f, f->end[1].fd, &st);
	file_source(f, 1);
	return 0;
}

void file_release(struct flow *f)
{
	give_append(f->append);
	f->append = NULL;
	f->file_room = 0;
}

/* Room for size bytes: what is left of an earlier chunk comes first. */
static off_t *take_room(struct flow *f, uint32_t size, off_t *at)
{
	if (!f->append)
		return NULL;
	if (!f->file_room) {
		f->file_room = size;
		f->file_at = atomic_fetch_add_explicit(&f->append->at, size, memory_order_relaxed);
	}
	*at = (off_t)f->file_at;
	return at;
}

static ssize_t used_room(struct flow *f, ssize_t n)
{
	int err = errno;

	if (n > 0 && f->append) {
		f->file_at += (uint64_t)n;
		f->file_room -= (uint32_t)n;
	}
	/* A refused splice is no harm: copying will tell. EPIPE is a reader that left. */
	if (n < 0 && err != EAGAIN && err != EINTR && err != EINVAL && err != EPIPE &&
		loop_may_tell(f->loop))
		log_warn("route %s: %s: %s; %s", f->route->s.name,
			f->target->settings->endpoint.name, strerror(err),
			err == ENOSPC || err == EDQUOT ? "make room there"
			: err == EFBIG		       ? "it can't be larger: name another file"
						       : "the kernel's log (dmesg) may say why");
	errno = err;
	return n;
}

ssize_t file_write(struct flow *f, const void *bytes, uint32_t size)
{
	off_t at, *room = take_room(f, size, &at);

	if (!room)
		return used_room(f, write(f->end[1].fd, bytes, size));
	if (size > f->file_room)
		size = f->file_room;
	return used_room(f, pwrite(f->end[1].fd, bytes, size, at));
}

ssize_t file_splice(struct flow *f, int pipe_fd, uint32_t size)
{
	off_t at, *room = take_room(f, size, &at);

	if (room && size > f->file_room)
		size = f->file_room;
	return used_room(f,
		splice(pipe_fd, NULL, f->end[1].fd, room, size, SPLICE_F_MOVE | SPLICE_F_NONBLOCK));
}
