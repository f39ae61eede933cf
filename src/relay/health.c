/* Marks targets up and down, and probes them by connecting. */
#include "relay/health.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/flow.h"
#include "relay/resolve.h"
#include "relay/sockopt.h"

/* A target that connections found down is probed this often when `health` is off. */
#define PROBE_DOWN_NS 2000000000ULL

struct probe {
	struct handle handle;
	struct timer timer; /* the next probe, or the end of patience with this one */
	struct loop *loop;
	struct route *route;
	struct target *target;
	struct probe *next; /* the loop's list */
	int fd;		    /* -1: none under way */
	uint32_t ticket;    /* of the address that it asks, if there is a name */
};

void health_good(struct route *route, struct target *target, uint32_t ticket)
{
	char text[ENDPOINT_TEXT_SIZE];

	if (target->name)
		name_reached(target->name, ticket);
	if (atomic_load_explicit(&target->failures, memory_order_relaxed))
		atomic_store_explicit(&target->failures, 0, memory_order_relaxed);
	if (!atomic_load_explicit(&target->down, memory_order_relaxed) ||
		!atomic_exchange_explicit(&target->down, false, memory_order_relaxed))
		return;
	endpoint_format(&target->settings->endpoint, text, sizeof(text));
	log_info("route %s: target %s is up again", route->s.name, text);
}

void health_bad(struct route *route, struct target *target, uint32_t ticket, int err)
{
	char text[ENDPOINT_TEXT_SIZE];
	uint32_t failures;

	if (target->name)
		name_failed(target->name, ticket);
	if (target->name && name_has_more(target->name))
		return;
	failures = atomic_fetch_add_explicit(&target->failures, 1, memory_order_relaxed) + 1;
	if (failures < route->s.health_failures ||
		atomic_exchange_explicit(&target->down, true, memory_order_relaxed))
		return;
	endpoint_format(&target->settings->endpoint, text, sizeof(text));
	log_warn("route %s: target %s is down after %u failures: %s", route->s.name, text, failures,
		strerror(err));
}

static uint64_t interval(const struct probe *p)
{
	return p->route->s.health_ns ? p->route->s.health_ns : PROBE_DOWN_NS;
}

static void ask_later(struct probe *p)
{
	if (p->fd >= 0)
		close(p->fd);
	p->fd = -1;
	timer_start(&p->loop->timers, &p->timer, p->loop->now_ns + interval(p));
}

static void finish(struct probe *p, int err)
{
	if (err)
		health_bad(p->route, p->target, p->ticket, err);
	else
		health_good(p->route, p->target, p->ticket);
	ask_later(p);
}

static void on_event(struct loop *loop, struct handle *h, uint32_t events)
{
	struct probe *p = (struct probe *)(void *)h;
	int err = 0;
	socklen_t size = sizeof(err);

	if (p->fd < 0)
		return;
	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &err, &size) < 0)
		err = errno;
	if (err || (events & EPOLLOUT))
		finish(p, err);
}

static int begin(struct probe *p)
{
	const struct address *address = &p->target->settings->endpoint.address;
	struct address resolved;
	int r;

	p->ticket = 0;
	if (p->target->name) {
		r = name_pick(p->target->name, &resolved, &p->ticket);
		if (r < 0)
			return r;
		address = &resolved;
	}
	p->fd = sockopt_socket(&p->route->s, address->sa.sa_family);
	if (p->fd < 0)
		return p->fd;
	r = sockopt_target(p->fd, &p->route->s, address->sa.sa_family, NULL, NULL);
	if (r < 0)
		return r;
	if (connect(p->fd, &address->sa, address->size) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	r = loop_watch(p->loop, p->fd, &p->handle, EPOLLOUT | EPOLLET);
	return r < 0 ? r : -EINPROGRESS;
}

static void on_timer(struct timer *t, void *context)
{
	struct probe *p = (struct probe *)(void *)((char *)t - offsetof(struct probe, timer));
	uint64_t patience = p->route->s.connect_timeout_ns;
	int r;

	if (p->fd >= 0) {
		finish(p, ETIMEDOUT);
		return;
	}
	if (!p->route->s.health_ns &&
		!atomic_load_explicit(&p->target->down, memory_order_relaxed)) {
		timer_start(&p->loop->timers, &p->timer, p->loop->now_ns + interval(p));
		return;
	}
	r = begin(p);
	if (r == -EAGAIN) /* a unix target whose queue is full lives, and connections wait for it */
		ask_later(p);
	else if (r != -EINPROGRESS)
		finish(p, -r);
	else
		timer_start(&p->loop->timers, &p->timer,
			p->loop->now_ns + (patience ? patience : PROBE_DOWN_NS));
}

int health_start(struct loop *loop, struct route *route)
{
	if (route->s.n_targets < 2 && !route->s.health_ns)
		return 0; /* whatever a probe said, there is no choice */
	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		struct probe *p;

		if (route->targets[i].settings->endpoint.kind == ENDPOINT_FILE)
			continue;
		p = calloc(1, sizeof(*p));
		if (!p)
			return -ENOMEM;
		p->handle.fn = on_event;
		p->timer.fn = on_timer;
		p->loop = loop;
		p->route = route;
		p->target = &route->targets[i];
		p->fd = -1;
		p->next = loop->probes;
		loop->probes = p;
		timer_start(&loop->timers, &p->timer, loop->now_ns);
	}
	return 0;
}

void health_stop(struct loop *loop, struct route *route)
{
	struct probe **at = &loop->probes;

	while (*at) {
		struct probe *p = *at;

		if (p->route != route) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		timer_stop(&loop->timers, &p->timer);
		if (p->fd >= 0)
			close(p->fd);
		free(p);
	}
}
