/* Brings a connection to a target: chooses one, connects without waiting, goes on to the next
 * when that fails. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/reason.h"
#include "relay/file.h"
#include "relay/flow.h"
#include "relay/health.h"
#include "relay/relay_internal.h"
#include "relay/resolve.h"
#include "relay/sockopt.h"

/* A full target is asked again after this part of the time that it took already. */
#define FULL_POLL_PART	 8
#define FULL_POLL_MAX_NS 100000000ULL
/* With fast open, of what the client has sent this much is offered to the SYN: the kernel takes no
 * more than goes into one segment. */
#define AHEAD_BYTES 9000U

static int open_now(struct flow *f)
{
	/* With fast open the header may be on its way already. */
	int r = f->dir[0].held ? 0 : flow_introduce(f);

	if (r < 0)
		return r;
	f->state = FLOW_OPEN;
	f->opened = true;
	f->deadline_ns = 0;
	f->last_ns = f->loop->now_ns;
	f->end[1].writable = true;
	health_good(f->route, f->target, f->ticket);
	return 0;
}

static void release_target(struct flow *f)
{
	struct end *e = &f->end[1];

	file_release(f);
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
	free(f->dir[0].held); /* a PROXY header at most */
	f->dir[0].held = NULL;
	f->dir[0].held_size = f->header_left = f->ahead = 0;
	f->wait_ns = 0;
	if (e->plain) { /* what file_open set: the next target may be no file */
		f->dir[1].ended = f->dir[1].closed = false;
		for (unsigned int i = 0; i < 2; i++)
			f->dir[i].mode =
				f->route->s.engine == ROUTE_ENGINE_SPLICE ? MODE_SPLICE : MODE_COPY;
	}
	e->inet = e->plain = e->fifo = e->file = false;
	e->readable = e->writable = e->hung_up = e->failed = e->urgent = false;
	atomic_fetch_sub_explicit(&f->target->active, 1, memory_order_relaxed);
	f->target = NULL;
}

/* What no epoll watches (EPERM) is always ready. */
static int attempt_file(struct flow *f)
{
	int r = file_open(f);

	if (r == 0 && !f->end[1].file)
		r = loop_watch(
			f->loop, f->end[1].fd, &f->end[1].handle, EPOLLIN | EPOLLOUT | EPOLLET);
	if (r == -EPERM) {
		f->end[1].file = true;
		r = 0;
	}
	if (r == 0)
		r = open_now(f);
	if (r == 0)
		flow_later(f);
	return r;
}

/* Fast open, where connect(2) only promised that bytes go with the SYN. The client's are copied and
 * stay in its queue until the target has answered: the next target can have them if it does not.
 * The target may be who speaks first: when there are no bytes yet, a SYN alone asks it. */
static int connect_with_bytes(struct flow *f)
{
	uint8_t *bytes = f->loop->buffer;
	struct direction *d = &f->dir[0];
	uint64_t most = direction_allowed(f, 0);
	size_t size;
	ssize_t n;
	int r = flow_introduce(f);

	f->wait_ns = 0; /* the rates are asked again when it is open */
	f->limited = false;
	if (r < 0)
		return r;
	size = d->held_size;
	if (size)
		memcpy(bytes, d->held, size);
	n = recv(f->end[0].fd, bytes + size, most < AHEAD_BYTES ? (size_t)most : AHEAD_BYTES,
		MSG_PEEK | MSG_DONTWAIT);
	size += n > 0 ? (size_t)n : 0;
	n = send(f->end[1].fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n < 0 && errno != EINPROGRESS)
		return -errno;
	f->ahead = n > 0 ? (uint32_t)n : 0;
	return -EINPROGRESS;
}

static int begin_connect(struct flow *f, const struct address *address)
{
	struct end *e = &f->end[1];
	int r;

	e->fd = sockopt_socket(&f->route->s, address->sa.sa_family);
	if (e->fd < 0) {
		r = e->fd;
		e->fd = -1;
		return r;
	}
	e->inet = address->sa.sa_family != AF_UNIX;
	r = sockopt_target(e->fd, &f->route->s, address->sa.sa_family, &f->client, NULL);
	if (r < 0)
		return r;
	if (connect(e->fd, &address->sa, address->size) < 0)
		return -errno;
	return e->inet && f->route->s.fast_open ? connect_with_bytes(f) : 0;
}

/* 0 when the attempt is under way or done, else -errno. */
static int attempt(struct flow *f)
{
	const struct endpoint *to = &f->target->settings->endpoint;
	struct end *e = &f->end[1];
	const struct address *address = &to->address;
	struct address resolved;
	/* A port of the source range may be taken for this very target: the next one then. */
	uint32_t range = f->route->s.source_port_max - f->route->s.source_port_min;
	uint32_t ports = range < 64 ? range : 64;
	int r;

	if (to->kind == ENDPOINT_FILE)
		return attempt_file(f);
	if (f->target->name) {
		r = name_pick(f->target->name, &resolved, &f->ticket);
		if (r < 0)
			return r;
		address = &resolved;
	}
	do {
		if (e->fd >= 0)
			close(e->fd);
		r = begin_connect(f, address);
	} while ((r == -EADDRNOTAVAIL || r == -EADDRINUSE) && ports-- > 0);
	if (r < 0 && r != -EINPROGRESS)
		return r;
	if (r == 0)
		r = open_now(f);
	if (r < 0 && r != -EINPROGRESS)
		return r;
	return loop_watch(
		f->loop, e->fd, &e->handle, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET);
}

/* Likewise, but a unix target whose queue is full is asked again a little later, until the time
 * for connecting is over: it lives, and (unix(7)) no event tells when it has room. */
static int attempt_or_wait(struct flow *f)
{
	uint64_t now = f->loop->now_ns, pause;
	int r = attempt(f);

	if (r != -EAGAIN || f->target->settings->endpoint.kind != ENDPOINT_UNIX)
		return r;
	close(f->end[1].fd);
	f->end[1].fd = -1;
	pause = (now - f->last_ns) / FULL_POLL_PART; /* last_ns: when it came */
	f->wait_ns = now + (pause < TIMER_TICK_NS	      ? TIMER_TICK_NS
				   : pause < FULL_POLL_MAX_NS ? pause
							      : FULL_POLL_MAX_NS);
	return 0;
}

void flow_connect_again(struct flow *f)
{
	int r;

	f->wait_ns = 0;
	r = attempt_or_wait(f);
	if (r < 0)
		flow_connect_failed(f, -r);
	else
		flow_arm(f);
}

static void attempt_failed(struct flow *f, int err)
{
	f->last_err = err;
	if (loop_is_to_blame(err))
		loop_exhausted(f->loop, "connect", err);
	else
		health_bad(f->route, f->target, f->ticket, err);
	release_target(f);
}

/* The target of the next attempt: one that was not tried yet, then other addresses of those that
 * were, or NULL. */
static struct target *next_target(struct flow *f)
{
	struct target *t = balance_pick(f->route, &f->client.sa, f->tried);

	if (t || loop_is_to_blame(f->last_err))
		return t;
	f->tried &= ~balance_names_left(f->route);
	return balance_pick(f->route, &f->client.sa, f->tried);
}

void flow_connect(struct flow *f)
{
	int err = EHOSTUNREACH;

	f->state = FLOW_CONNECTING;
	while (f->attempts <= f->route->s.retries) {
		struct target *t = next_target(f);

		if (!t)
			break;
		if (f->attempts++)
			counter_add(&f->counters->retries, 1);
		f->tried |= 1U << (t - f->route->targets);
		f->target = t;
		f->ticket = 0;
		atomic_fetch_add_explicit(&t->active, 1, memory_order_relaxed);
		f->state = FLOW_CONNECTING;
		f->deadline_ns = f->route->s.connect_timeout_ns
					 ? f->loop->now_ns + f->route->s.connect_timeout_ns
					 : 0;
		err = -attempt_or_wait(f);
		if (err == 0)
			return;
		attempt_failed(f, err);
	}
	log_debug("route %s: no target can be reached: %s", f->route->s.name,
		strerrordesc_np(f->last_err ? f->last_err : err));
	if (f->last_err && loop_is_to_blame(f->last_err))
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_SYSTEM);
	else
		flow_finish(
			f, FLOW_END_ERROR + (f->last_err == ETIMEDOUT ? RELAY_ERROR_CONNECT_TIMEOUT
								      : RELAY_ERROR_CONNECT));
}

void flow_connect_failed(struct flow *f, int err)
{
	attempt_failed(f, err);
	flow_connect(f);
	flow_arm(f);
}

/* A connection that was there is no more, and its target had the client's bytes: it may have done
 * what they ask, so that no other one gets them. A SYN is refused with another error. */
static bool had_bytes(const struct flow *f, int err)
{
	return f->ahead > f->header_left && (err == ECONNRESET || err == EPIPE);
}

void flow_connected(struct flow *f)
{
	struct end *e = &f->end[1];
	int err = e->failed ? end_error(e) : 0;

	if (err && had_bytes(f, err)) {
		e->lost = true;
		err = 0;
	}
	if (err) {
		flow_connect_failed(f, err);
		return;
	}
	if (!e->writable)
		return;
	e->failed = false;
	if (open_now(f) < 0) {
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_SYSTEM);
		return;
	}
	if (f->ahead && !direction_sent_ahead(f, f->ahead)) {
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_RESET_CLIENT);
		return;
	}
	flow_run(f);
	/* There is nothing to send yet, and the target may be who speaks first. */
	if (f->state == FLOW_OPEN && e->inet && !f->dir[0].bytes && !f->dir[0].queued)
		sockopt_send_ack(e->fd);
}
