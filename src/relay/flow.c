/* The life of a connection: events, ends, resets, times. */
#include "relay/flow.h"

#include <assert.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/file.h"
#include "relay/listener.h"
#include "relay/relay_internal.h"
#include "relay/share.h"
#include "relay/source.h"

/* After a reset, what was sent before it gets this long to arrive at the other side. */
#define RESET_LINGER_NS 30000000000ULL
#define RESET_POLL_NS	5000000ULL
#define RESET_POLL_PART 8 /* or, when it takes long, after this part of the time it took */

static struct flow *flow_of(struct end *e)
{
	struct end *first = e - e->side;

	return (struct flow *)(void *)((char *)first - offsetof(struct flow, end));
}

void flow_later(struct flow *f)
{
	if (f->ready)
		return;
	f->ready = true;
	f->ready_next = NULL;
	*f->loop->ready_end = f;
	f->loop->ready_end = &f->ready_next;
}

static void close_end(struct flow *f, struct end *e, bool reset)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};

	if (e->fd < 0)
		return;
	if (reset && e->inet)
		(void)setsockopt(e->fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(e->fd);
	e->fd = -1;
}

static void tell_end(struct flow *f, unsigned int how)
{
	struct ending e = {
		.route = f->route,
		.target = f->target,
		.client = f->source ? NULL : &f->client.sa,
		.bytes = {f->dir[0].bytes, f->dir[1].bytes},
		.used = f->dir[0].used | f->dir[1].used,
		.duration_ns = f->loop->now_ns - f->started_ns,
		.attempts = f->attempts,
	};

	ending_tell(&e, f->counters, how);
}

void flow_finish(struct flow *f, unsigned int how)
{
	struct loop *loop = f->loop;
	struct route *route = f->route;

	assert(f->state != FLOW_OVER);
	f->state = FLOW_OVER;
	timer_stop(&loop->timers, &f->timer);
	share_leave(f);
	if (f->source)
		source_over(f->source, f, how);
	for (unsigned int i = 0; i < 2; i++)
		direction_drop(f, i);
	/* Whoever did not end the connection properly himself sees a reset. */
	file_release(f);
	close_end(f, &f->end[0], how != FLOW_END_DONE);
	close_end(f, &f->end[1], how != FLOW_END_DONE);
	tell_end(f, how);
	if (f->target)
		atomic_fetch_sub_explicit(&f->target->active, 1, memory_order_relaxed);
	*f->link = f->next;
	if (f->next)
		f->next->link = f->link;
	f->dead_next = loop->dead;
	loop->dead = f;
	atomic_fetch_sub_explicit(&loop->load, 1, memory_order_relaxed);
	/* The last touch of the route: from here on control may free it. */
	atomic_fetch_sub_explicit(&route->active, 1, memory_order_release); /* B */
	listeners_resume(loop);
}

void flow_cut(struct flow *f)
{
	flow_finish(f, FLOW_END_CUT);
}

/* When the flow must be looked at though nothing happens; 0: never. */
static uint64_t due(const struct flow *f)
{
	const struct route_settings *s = &f->route->s;
	uint64_t at = f->deadline_ns ? f->deadline_ns : UINT64_MAX, now = f->loop->now_ns, t;

	if (f->state == FLOW_OPEN && s->idle_timeout_ns) {
		t = f->last_ns + s->idle_timeout_ns;
		at = t < at ? t : at;
	}
	if (f->half_ns && s->half_close_timeout_ns) {
		t = (f->half_ns > f->last_ns ? f->half_ns : f->last_ns) + s->half_close_timeout_ns;
		at = t < at ? t : at;
	}
	if (f->reset >= 0) {
		t = (now + RESET_LINGER_NS - f->deadline_ns) / RESET_POLL_PART;
		t = now + (t > RESET_POLL_NS ? t : RESET_POLL_NS);
		at = t < at ? t : at;
	}
	if (f->wait_ns)
		at = f->wait_ns < at ? f->wait_ns : at;
	return at == UINT64_MAX ? 0 : at;
}

/* Starts the timer unless it runs early enough anyway: traffic moves its end out of the way
 * without touching the wheel, and on_timer sees to the rest. */
void flow_arm(struct flow *f)
{
	uint64_t at;

	if (f->state == FLOW_OVER)
		return;
	at = due(f);
	if (!at)
		return;
	if (timer_running(&f->timer) && f->timer.due <= at / TIMER_TICK_NS + 1)
		return;
	timer_start(&f->loop->timers, &f->timer, at);
}

static void on_timer(struct timer *t, void *context)
{
	struct flow *f = (struct flow *)(void *)((char *)t - offsetof(struct flow, timer));
	const struct route_settings *s = &f->route->s;
	uint64_t now = f->loop->now_ns;

	if (f->deadline_ns && now >= f->deadline_ns) {
		f->deadline_ns = 0;
		if (f->state == FLOW_CONNECTING)
			flow_connect_failed(f, ETIMEDOUT);
		else if (f->state == FLOW_PROXY)
			flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_PROXY);
		else
			flow_finish(f, FLOW_END_ERROR + (f->reset == 1 ? RELAY_ERROR_RESET_TARGET
								       : RELAY_ERROR_RESET_CLIENT));
		return;
	}
	if (f->limited) /* its bytes wait for us, and not we for them */
		f->last_ns = now;
	if (f->state == FLOW_OPEN && s->idle_timeout_ns && now >= f->last_ns + s->idle_timeout_ns) {
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_IDLE);
		return;
	}
	if (f->half_ns && s->half_close_timeout_ns &&
		now >= f->half_ns + s->half_close_timeout_ns &&
		now >= f->last_ns + s->half_close_timeout_ns) {
		flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_HALF_CLOSE);
		return;
	}
	if (f->state == FLOW_CONNECTING && f->wait_ns && now >= f->wait_ns) {
		flow_connect_again(f);
		return;
	}
	if ((f->wait_ns && now >= f->wait_ns) || f->reset >= 0) {
		flow_run(f);
		return;
	}
	flow_arm(f);
}

/* Whether the send queue still holds bytes that can arrive. A connection that is gone keeps
 * counting them: only its state tells. */
static bool end_delivers(const struct end *e)
{
	struct tcp_info info;
	socklen_t size = sizeof(info);
	int queued = 0;

	if (!e->inet || e->lost || ioctl(e->fd, SIOCOUTQ, &queued) < 0 || queued == 0)
		return false;
	return getsockopt(e->fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0 ||
	       info.tcpi_state != TCP_CLOSE;
}

/* One side reset the connection: the other one gets its bytes first, then a reset. */
static void carry_reset(struct flow *f)
{
	unsigned int from = (unsigned int)f->reset;

	if (!f->dir[1 - from].closed)
		direction_drop(f, 1 - from);
	direction_settle(f, from);
	if (!f->deadline_ns)
		f->deadline_ns = f->loop->now_ns + RESET_LINGER_NS;
	if (direction_pending(&f->dir[from]))
		return;
	/* A reset throws away what the send queue holds; wait until it has arrived. */
	if (end_delivers(&f->end[1 - from]))
		return;
	flow_finish(f,
		FLOW_END_ERROR + (from == 0 ? RELAY_ERROR_RESET_CLIENT : RELAY_ERROR_RESET_TARGET));
}

/* Tells the sink that its source has ended and everything is delivered. */
static void carry_end(struct flow *f, unsigned int i)
{
	struct direction *d = &f->dir[i];
	struct end *sink = &f->end[1 - i];

	if (d->closed || !d->ended)
		return;
	direction_settle(f, i);
	if (d->closed || direction_pending(d))
		return;
	d->closed = true;
	if (f->source && i == 0) {
		f->sent = true;
		source_read(f->source);
	}
	if (f->dir[1 - i].closed) /* close(2) says the same to both sides */
		return;
	f->half_ns = f->loop->now_ns;
	if (!sink->plain)
		(void)shutdown(sink->fd, SHUT_WR);
}

/* Nobody but us can tell whether a file has arrived: an end that waits for nothing could hide
 * that what is in the send queue never does. */
static bool delivered(struct flow *f)
{
	if (!f->source || !end_delivers(&f->end[1]))
		return true;
	f->wait_ns = f->loop->now_ns + RESET_POLL_NS;
	return false;
}

void flow_run(struct flow *f)
{
	unsigned int first = 0;
	bool more = false;

	if (f->state != FLOW_OPEN)
		return;
	f->wait_ns = 0;
	f->limited = false;
	if (f->loop->served == f) {
		first = f->back_first;
		f->back_first = !f->back_first;
	}
	for (unsigned int k = 0; k < 2; k++) {
		unsigned int i = first ^ k;

		more |= direction_move(f, i);
		if (f->reset < 0)
			carry_end(f, i);
	}
	/* The first direction could go on because of what the second found out. */
	if (f->reset < 0 && f->dir[first].ended && !f->dir[first].closed)
		carry_end(f, first);
	if (f->reset >= 0) {
		carry_reset(f);
		if (f->state == FLOW_OVER)
			return;
	} else if (f->dir[0].closed && f->dir[1].closed && delivered(f)) {
		flow_finish(f, FLOW_END_DONE);
		return;
	}
	if (more)
		flow_later(f);
	flow_arm(f);
}

static void on_event(struct loop *loop, struct handle *h, uint32_t events)
{
	struct end *e = (struct end *)(void *)h;
	struct flow *f = flow_of(e);

	if (f->state == FLOW_OVER)
		return;
	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI))
		e->readable = true;
	if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
		e->writable = true;
	if (events & (EPOLLRDHUP | EPOLLHUP))
		e->hung_up = true;
	if (events & EPOLLERR)
		e->failed = true;
	if (events & EPOLLPRI)
		e->urgent = true;
	if (f->state == FLOW_PROXY) {
		flow_greeted(f);
		return;
	}
	if (f->state == FLOW_CONNECTING) {
		if (e->side == 1)
			flow_connected(f);
		else if ((events & EPOLLERR) && !e->plain && end_error(e))
			flow_finish(f, FLOW_END_ERROR + RELAY_ERROR_RESET_CLIENT);
		return;
	}
	/* Nobody reads an ended source any more; only its error can tell of a reset. */
	if ((events & EPOLLERR) && f->dir[e->side].ended && f->reset < 0 && !e->plain &&
		end_error(e)) {
		e->lost = true;
		f->reset = (int8_t)e->side;
	}
	flow_run(f);
}

static void init_directions(struct flow *f)
{
	const struct route_settings *s = &f->route->s;

	for (unsigned int i = 0; i < 2; i++) {
		f->end[i].handle.fn = on_event;
		f->end[i].side = (uint8_t)i;
		f->end[i].fd = -1;
		f->dir[i].mode = s->engine == ROUTE_ENGINE_SPLICE ? MODE_SPLICE : MODE_COPY;
		f->dir[i].no_splice = s->engine == ROUTE_ENGINE_COPY;
		limit_init(&f->dir[i].limit, s->connection_rate, 10000000);
	}
	f->end[0].writable = true;
}

static void take_address(struct client *c, const struct sockaddr *address)
{
	memset(c, 0, sizeof(*c));
	if (address->sa_family == AF_INET)
		memcpy(&c->in, address, sizeof(c->in));
	else if (address->sa_family == AF_INET6)
		memcpy(&c->in6, address, sizeof(c->in6));
	else
		c->sa.sa_family = AF_UNIX;
}

void flow_start(struct loop *loop, struct route *route, int fd, const struct sockaddr *client,
	struct source *source)
{
	struct flow *f = calloc(1, sizeof(*f));
	bool always;
	int r = -ENOMEM;

	if (f)
		r = loop_watch(loop, fd, &f->end[0].handle,
			EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET);
	always = source && r == -EPERM; /* what no epoll watches */
	if (r < 0 && !always) {
		struct counters *c = &route->counters[loop->idx];

		loop_exhausted(loop, "epoll_ctl", -r);
		if (source)
			source_refused(source, -r);
		free(f);
		close(fd);
		counter_add(&c->errors[RELAY_ERROR_SYSTEM], 1);
		atomic_fetch_sub_explicit(&loop->load, 1, memory_order_relaxed);
		atomic_fetch_sub_explicit(&route->active, 1, memory_order_release); /* B */
		return;
	}
	f->loop = loop;
	f->route = route;
	f->counters = &route->counters[loop->idx];
	f->reset = -1;
	f->timer.fn = on_timer;
	f->started_ns = f->last_ns = loop->now_ns;
	init_directions(f);
	f->end[0].fd = fd;
	f->end[0].inet = client->sa_family != AF_UNIX;
	take_address(&f->client, client);
	if (source) {
		f->source = source;
		file_source(f, 0);
		f->end[0].file = always;
	}
	f->next = loop->flows;
	f->link = &loop->flows;
	if (f->next)
		f->next->link = &f->next;
	loop->flows = f;
	if (route->s.proxy_accept)
		flow_greet(f);
	else
		flow_connect(f);
	flow_arm(f);
}
