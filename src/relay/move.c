/*
 * Moves bytes from one end of a flow to the other: copies small messages, splices bulk, and
 * changes between the two as it goes. The order of bytes is: held, then the pipe, then the
 * source's queue; nothing is taken from one place while an earlier one has bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/file.h"
#include "relay/flow.h"
#include "relay/relay_internal.h"
#include "relay/send_batch.h"
#include "relay/share.h"
#include "relay/sockopt.h"

/* What one direction may move in one turn of the loop before others have theirs. */
#define TURN_BYTES (1U << 20)
/* A copy reads this much at once; a read that fills it, or a connection that begins with more
 * than it, says that there is bulk. */
#define COPY_BYTES 16384U
/* Where splicing is not to be had, reads of this size make the best of copying. */
#define COPY_BULK_BYTES LOOP_BUFFER_SIZE
/* Turns that splice less than this are small; after SMALL_TURNS in a row bytes are copied. */
#define SMALL_BYTES 8192U
#define SMALL_TURNS 2
/* With a rate of its own, a connection's bytes move in chunks of this much time. */
#define SLICE_NS  8000000ULL
#define SLICE_MIN 1024U

enum step {
	STEP_AGAIN, /* did something; there may be more */
	STEP_WAIT,  /* nothing more until an event */
};

bool direction_pending(const struct direction *d)
{
	return d->held_size > 0 || d->pipe_bytes > 0;
}

/* Those to the target took the handshake's acknowledgement along, unless its window is closed
 * (SYNPROXY's is at first). Those from it are acknowledged at once, as on every new connection: a
 * promise of bytes counts as talk to and fro for the kernel, which then delays acknowledgements,
 * and the target may keep its next bytes until there is one (RFC 896). */
static void first_bytes(struct flow *f, unsigned int i)
{
	struct end *target = &f->end[1];

	if (target->inet && sockopt_holds_ack(&f->route->s) && !(i == 1 && target->hung_up))
		sockopt_send_ack(target->fd);
}

static void account(struct flow *f, unsigned int i, uint64_t n, enum used engine)
{
	struct counters *c = f->counters;

	if (n && !f->dir[i].bytes)
		first_bytes(f, i);
	f->dir[i].used |= (uint8_t)engine;
	f->dir[i].bytes += n;
	f->last_ns = f->loop->now_ns;
	counter_add(&c->bytes[i], n);
	counter_add(engine == USED_COPY	    ? &c->copied
		    : engine == USED_SPLICE ? &c->spliced
					    : &c->sendfile,
		n);
	limit_charge(&f->dir[i].limit, n, f->loop->now_ns);
	limit_charge(&f->route->rate, n, f->loop->now_ns);
}

void direction_settle(struct flow *f, unsigned int i)
{
	if (f->dir[i].queued)
		send_batch_flush(f->loop->sends);
}

void direction_drop(struct flow *f, unsigned int i)
{
	struct direction *d = &f->dir[i];

	direction_settle(f, i);
	free(d->held);
	d->held = NULL;
	d->held_size = d->held_at = 0;
	if (d->pipe && d->pipe_bytes)
		pipe_discard(&f->loop->pipes, d->pipe);
	else if (d->pipe)
		pipe_give(&f->loop->pipes, d->pipe);
	d->pipe = NULL;
	d->pipe_bytes = 0;
	d->ended = d->closed = true;
}

/* The sink is gone. What it sent before that still goes to the source: the reverse direction
 * reads on and finds the reset behind the last byte. */
static void sink_lost(struct flow *f, unsigned int i)
{
	struct end *sink = &f->end[1 - i];

	direction_drop(f, i);
	if (sink->plain && f->reset < 0) /* a full disk: there is nothing left to read */
		f->reset = (int8_t)(1 - i);
	if (!f->half_ns) /* what is left has as long as after an end */
		f->half_ns = f->loop->now_ns;
	sink->lost = true;
	sink->readable = true;
	if (f->dir[1 - i].ended && f->reset < 0)
		f->reset = (int8_t)(1 - i);
}

int end_error(const struct end *e)
{
	int err = 0;
	socklen_t size = sizeof(err);

	if (getsockopt(e->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
		return errno;
	return err;
}

/* The source said that it ends, with -errno or (0) by its FIN. A FIN that the kernel shows
 * after it reported a reset elsewhere is none. */
static void source_ended(struct flow *f, unsigned int i, int err)
{
	struct end *source = &f->end[i];

	f->dir[i].ended = true;
	source->readable = false;
	if (!err && source->failed && !source->plain)
		err = end_error(source);
	if ((err || source->lost) && f->reset < 0)
		f->reset = (int8_t)i;
}

/* Whether these are the last bytes for the sink: carry_end shuts it down in this very turn, and the
 * FIN takes them along, one segment in place of two. (MPTCP has an end of its own.) */
static bool end_follows(const struct flow *f, unsigned int i)
{
	return f->dir[i].ended && !f->dir[i].pipe_bytes && f->reset < 0 && f->end[1 - i].inet &&
	       !f->route->s.mptcp;
}

static ssize_t put(struct flow *f, unsigned int i, const uint8_t *bytes, uint32_t size)
{
	int flags = MSG_NOSIGNAL | MSG_DONTWAIT | (end_follows(f, i) ? MSG_MORE : 0);
	ssize_t n;

	do {
		n = f->end[1 - i].plain ? file_write(f, bytes, size)
					: send(f->end[1 - i].fd, bytes, size, flags);
	} while (n < 0 && errno == EINTR);
	return n;
}

static ssize_t get(struct flow *f, unsigned int i, uint32_t size)
{
	ssize_t n;

	do {
		n = f->end[i].plain ? read(f->end[i].fd, f->loop->buffer, size)
				    : recv(f->end[i].fd, f->loop->buffer, size, MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	return n;
}

/* Sending bytes that are in memory came to n, or -errno; keeps what the sink has no room for. */
static enum step sent(
	struct flow *f, unsigned int i, const uint8_t *bytes, uint32_t size, ssize_t n)
{
	struct direction *d = &f->dir[i];
	struct end *sink = &f->end[1 - i];

	if (n < 0 && n != -EAGAIN) {
		sink_lost(f, i);
		return STEP_WAIT;
	}
	if (n < 0)
		n = 0;
	account(f, i, (uint64_t)n, USED_COPY);
	if ((uint32_t)n == size)
		return STEP_AGAIN;
	sink->writable = sink->file;
	d->held = malloc(size - (uint32_t)n);
	if (!d->held) { /* these bytes are lost: so is the connection, and visibly */
		f->reset = (int8_t)i;
		direction_drop(f, i);
		return STEP_WAIT;
	}
	memcpy(d->held, bytes + n, size - (uint32_t)n);
	d->held_size = size - (uint32_t)n;
	d->held_at = 0;
	return STEP_WAIT;
}

static enum step send_bytes(struct flow *f, unsigned int i, const uint8_t *bytes, uint32_t size)
{
	ssize_t n = put(f, i, bytes, size);

	return sent(f, i, bytes, size, n < 0 ? -errno : n);
}

/* Whether nothing more can happen to this direction in this turn than that these bytes are
 * sent: then they may wait for the others'. */
static bool can_queue(const struct flow *f, unsigned int i, uint32_t size)
{
	const struct direction *d = &f->dir[i];

	return f->loop->batching && size <= SEND_BATCH_BYTES && d->mode == MODE_COPY &&
	       !f->end[i].readable && !d->ended && f->reset < 0 && !f->end[1 - i].plain &&
	       !d->limit.per_s && !f->route->rate.per_s;
}

void direction_sent(void *owner, unsigned int i, const uint8_t *bytes, uint32_t size, ssize_t n)
{
	struct flow *f = owner;

	f->dir[i].queued = false;
	(void)sent(f, i, bytes, size, n);
	/* The sink is gone: what that means is found out as if something had happened to it. */
	if (f->dir[i].closed)
		flow_later(f);
}

/* n of the bytes held were sent. */
static void held_sent(struct flow *f, unsigned int i, uint32_t n)
{
	struct direction *d = &f->dir[i];
	uint32_t header = i == 0 ? f->header_left : 0;

	if (header) { /* our own bytes are not the client's */
		header = header < n ? header : n;
		f->header_left -= header;
	}
	if (n > header)
		account(f, i, n - header, USED_COPY);
	d->held_at += n;
	d->held_size -= n;
	if (d->held_size)
		return;
	free(d->held);
	d->held = NULL;
}

bool direction_sent_ahead(struct flow *f, uint32_t n)
{
	uint32_t held = n < f->dir[0].held_size ? n : f->dir[0].held_size;
	ssize_t got;

	if (held)
		held_sent(f, 0, held);
	for (n -= held; n; n -= (uint32_t)got) {
		got = get(f, 0, n);
		if (got <= 0)
			return false;
		account(f, 0, (uint64_t)got, USED_COPY);
	}
	return true;
}

static enum step send_held(struct flow *f, unsigned int i)
{
	struct direction *d = &f->dir[i];
	struct end *sink = &f->end[1 - i];
	ssize_t n;

	n = put(f, i, d->held + d->held_at, d->held_size);
	if (n < 0 && errno == EAGAIN) {
		sink->writable = false;
		return STEP_WAIT;
	}
	if (n < 0) {
		sink_lost(f, i);
		return STEP_WAIT;
	}
	held_sent(f, i, (uint32_t)n);
	if (d->held_size && !sink->file) {
		sink->writable = false;
		return STEP_WAIT;
	}
	return STEP_AGAIN;
}

static bool refused(int err)
{
	return err == EINVAL || err == ENOSYS || err == EPERM || err == EOPNOTSUPP ||
	       err == EACCES || err == ENOMEM;
}

static void splice_refused(struct flow *f, unsigned int i, int err)
{
	struct direction *d = &f->dir[i];

	d->no_splice = true;
	d->mode = MODE_COPY;
	counter_add(&f->counters->fallbacks, 1);
	if (!atomic_exchange_explicit(&f->route->splice_logged, true, memory_order_relaxed))
		log_warn("route %s: splice is refused here (%s); its bytes are copied instead",
			f->route->s.name, strerror(err));
}

/* Pipe to sink. */
static enum step send_pipe(struct flow *f, unsigned int i)
{
	struct direction *d = &f->dir[i];
	struct end *sink = &f->end[1 - i];
	ssize_t n;

	if (d->drain_by_copy) {
		uint32_t most = d->pipe_bytes < COPY_BULK_BYTES ? d->pipe_bytes : COPY_BULK_BYTES;

		n = read(d->pipe->read_fd, f->loop->buffer, most);
		if (n <= 0) { /* can't be: it holds pipe_bytes. Lost bytes end the flow. */
			f->reset = (int8_t)i;
			direction_drop(f, i);
			return STEP_WAIT;
		}
		d->pipe_bytes -= (uint32_t)n;
		return send_bytes(f, i, f->loop->buffer, (uint32_t)n);
	}
	do {
		n = sink->plain ? file_splice(f, d->pipe->read_fd, d->pipe_bytes)
				: splice(d->pipe->read_fd, NULL, sink->fd, NULL, d->pipe_bytes,
					  SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		d->pipe_bytes -= (uint32_t)n;
		account(f, i, (uint64_t)n, USED_SPLICE);
		return STEP_AGAIN;
	}
	if (n < 0 && errno == EAGAIN) {
		sink->writable = false;
		return STEP_WAIT;
	}
	if (n < 0 && refused(errno)) {
		splice_refused(f, i, errno);
		d->drain_by_copy = true;
		return STEP_AGAIN;
	}
	sink_lost(f, i);
	return STEP_WAIT;
}

/* Source to sink through the loop's buffer. */
static enum step copy(struct flow *f, unsigned int i, uint64_t most)
{
	struct direction *d = &f->dir[i];
	struct end *source = &f->end[i];
	uint32_t size = d->no_splice ? COPY_BULK_BYTES : COPY_BYTES;
	ssize_t n;

	if (size > most)
		size = (uint32_t)most;
	n = get(f, i, size);
	if (n < 0 && errno == EAGAIN) {
		source->readable = false;
		return STEP_WAIT;
	}
	/* Nobody has come to write yet. The kernel tells a hang-up only of writers that were there
	 * after it was opened: one whose bytes were queued already needs none. */
	if (n == 0 && source->fifo && !source->hung_up && !d->bytes) {
		source->readable = false;
		return STEP_WAIT;
	}
	if (n <= 0) {
		source_ended(f, i, n < 0 ? errno : 0);
		return STEP_WAIT;
	}
	if ((uint32_t)n < size && source->inet && !source->urgent) {
		/* epoll(7): a short read means that the queue is empty. */
		source->readable = source->failed;
		if (source->hung_up && !source->failed)
			source_ended(f, i, 0);
	} else if (!d->no_splice && (uint32_t)n == size && d->mode == MODE_COPY) {
		d->mode = MODE_SPLICE;
		d->small_turns = 0;
	}
	if (can_queue(f, i, (uint32_t)n)) {
		send_batch_add(
			f->loop->sends, f->end[1 - i].fd, f, i, f->loop->buffer, (uint32_t)n);
		d->queued = true;
		f->last_ns = f->loop->now_ns;
		return STEP_WAIT;
	}
	if ((uint32_t)n > SEND_BATCH_BYTES)
		send_batch_flush(f->loop->sends); /* small messages don't wait for this one */
	return send_bytes(f, i, f->loop->buffer, (uint32_t)n);
}

/* Source to pipe. */
static enum step fill_pipe(struct flow *f, unsigned int i, uint64_t most)
{
	struct direction *d = &f->dir[i];
	struct end *source = &f->end[i];
	ssize_t n;

	if (!d->pipe) {
		d->pipe = pipe_take(&f->loop->pipes, f->loop->now_ns);
		if (!d->pipe) {
			if (f->loop->pipes.error)
				loop_exhausted(f->loop, "pipe2", f->loop->pipes.error);
			f->loop->pipes.error = 0;
			return copy(f, i, most);
		}
	}
	do {
		n = splice(source->fd, NULL, d->pipe->write_fd, NULL,
			most < TURN_BYTES ? (size_t)most : TURN_BYTES,
			SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		d->pipe_bytes += (uint32_t)n;
		return STEP_AGAIN;
	}
	/* The pipe is empty here: EAGAIN speaks of the source. At an urgent mark it speaks of
	 * the mark, and 0 is no end. recv tells. */
	if (n < 0 && errno == EAGAIN && !source->urgent) {
		source->readable = false;
		return STEP_WAIT;
	}
	if (n < 0 && errno != EAGAIN && !refused(errno)) { /* the kernel says it only once */
		source_ended(f, i, errno);
		return STEP_WAIT;
	}
	if (n < 0 && refused(errno))
		splice_refused(f, i, errno);
	return copy(f, i, most);
}

/* A regular file to a socket. A file that shrinks meanwhile ends early, one that grows is sent to
 * its new end. */
static enum step send_file(struct flow *f, unsigned int i, uint64_t most)
{
	struct end *source = &f->end[i], *sink = &f->end[1 - i];
	ssize_t n;

	if (!sink->writable)
		return STEP_WAIT;
	do {
		n = sendfile(
			sink->fd, source->fd, NULL, most < TURN_BYTES ? (size_t)most : TURN_BYTES);
	} while (n < 0 && errno == EINTR);
	if (n > 0) {
		account(f, i, (uint64_t)n, USED_SENDFILE);
		return STEP_AGAIN;
	}
	if (n == 0) {
		source_ended(f, i, 0);
		return STEP_WAIT;
	}
	if (errno == EAGAIN) {
		sink->writable = false;
		return STEP_WAIT;
	}
	if (refused(errno)) {
		splice_refused(f, i, errno);
		return STEP_AGAIN;
	}
	if (errno == EIO) /* the disk's fault, not the sink's */
		source_ended(f, i, EIO);
	else
		sink_lost(f, i);
	return STEP_WAIT;
}

/* What the client sends to a file that is only read. */
static enum step discard(struct flow *f, unsigned int i)
{
	ssize_t n = get(f, i, LOOP_BUFFER_SIZE);

	if (n > 0) /* one read a turn: these bytes have no hurry */
		flow_later(f);
	else if (n < 0 && errno == EAGAIN)
		f->end[i].readable = false;
	else
		source_ended(f, i, n < 0 ? errno : 0);
	return STEP_WAIT;
}

uint64_t direction_allowed(struct flow *f, unsigned int i)
{
	struct limit *own = &f->dir[i].limit, *route = &f->route->rate;
	uint64_t now = f->loop->now_ns, chunk = TURN_BYTES, wait, most;

	if (!own->per_s && !route->per_s)
		return TURN_BYTES;
	wait = limit_wait_ns(own, now);
	if (wait && (!f->wait_ns || now + wait < f->wait_ns))
		f->wait_ns = now + wait;
	if (wait || (route->per_s && share_wait(f))) {
		f->limited = true;
		return 0;
	}
	most = limit_chunk(own, SLICE_NS, SLICE_MIN);
	chunk = most < chunk ? most : chunk;
	if (route->per_s)
		most = limit_chunk(route, share_slice_ns(f), SLICE_MIN);
	return most < chunk ? most : chunk;
}

/* Whether the source's first bytes are bulk. Reading a part of what a new connection has queued
 * makes TCP tell a sender of large segments, as on loopback, that the window is closed, and soon
 * after that it is open again. Later windows are wider, and each message would pay for asking. */
static bool begins_with_bulk(const struct flow *f, unsigned int i)
{
	const struct direction *d = &f->dir[i];
	int queued = 0;

	return d->mode == MODE_COPY && d->bytes == 0 && !d->no_splice && !f->end[i].plain &&
	       ioctl(f->end[i].fd, SIOCINQ, &queued) == 0 && queued > (int)COPY_BYTES;
}

static enum step step(struct flow *f, unsigned int i, uint64_t most)
{
	struct direction *d = &f->dir[i];
	struct end *source = &f->end[i], *sink = &f->end[1 - i];

	if (direction_pending(d) && !sink->writable)
		return STEP_WAIT;
	if (direction_pending(d))
		send_batch_flush(f->loop->sends); /* small messages don't wait for bulk */
	if (d->held_size)
		return send_held(f, i);
	if (d->pipe_bytes)
		return send_pipe(f, i);
	d->drain_by_copy = false;
	if (d->ended || !source->readable)
		return STEP_WAIT;
	if (begins_with_bulk(f, i))
		d->mode = MODE_SPLICE;
	if (d->mode != MODE_COPY)
		send_batch_flush(f->loop->sends);
	if (d->mode == MODE_SENDFILE)
		return send_file(f, i, most);
	if (d->mode == MODE_DISCARD)
		return discard(f, i);
	if (d->mode == MODE_SPLICE)
		return fill_pipe(f, i, most);
	return copy(f, i, most);
}

bool direction_move(struct flow *f, unsigned int i)
{
	struct direction *d = &f->dir[i];
	uint64_t before = d->bytes, most, moved = 0;
	enum direction_mode mode = d->mode;
	bool more = false;

	if (d->queued && !f->end[i].readable)
		return false;
	direction_settle(f, i);
	if (d->closed)
		return false;
	for (;;) {
		most = TURN_BYTES; /* what was read already was let through */
		if (!direction_pending(d) && f->end[i].readable && !d->ended)
			most = direction_allowed(f, i);
		if (!most)
			break;
		if (moved >= TURN_BYTES) {
			more = true;
			break;
		}
		if (step(f, i, most) == STEP_WAIT)
			break;
		moved = d->bytes - before;
	}
	moved = d->bytes - before;
	if (d->pipe && !d->pipe_bytes) {
		pipe_give(&f->loop->pipes, d->pipe);
		d->pipe = NULL;
	}
	if (mode == MODE_SPLICE && d->mode == MODE_SPLICE && moved &&
		f->route->s.engine == ROUTE_ENGINE_AUTO && !f->limited) {
		d->small_turns = moved < SMALL_BYTES ? d->small_turns + 1 : 0;
		if (d->small_turns >= SMALL_TURNS)
			d->mode = MODE_COPY;
	}
	return more;
}
