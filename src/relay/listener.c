/* Accepts connections. Every loop watches every listening socket; who accepts gives the
 * connection to the loop that has the fewest. */
#include "relay/listener.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/flow.h"
#include "relay/live.h"
#include "relay/relay_internal.h"

/* One loop takes this many connections before it looks at its other descriptors. */
#define ACCEPTS_PER_TURN 64
/* One that closes takes what is queued, which is no more than this (listen(2), somaxconn). */
#define QUEUED_MAX   65536
#define PAUSE_NS     100000000ULL
#define LOG_EVERY_NS 10000000000ULL

struct handover {
	struct message message;
	struct route *route;
	int fd;
	struct client client;
};

static void take_over(struct loop *loop, struct message *m)
{
	struct handover *h = (struct handover *)(void *)m;

	flow_start(loop, h->route, h->fd, &h->client.sa, NULL);
	free(h);
}

static void pause_until(struct listener *l, uint64_t until_ns)
{
	if (!l->paused)
		(void)epoll_ctl(l->loop->epoll_fd, EPOLL_CTL_DEL, l->route->listen_fd, NULL);
	l->paused = true;
	timer_start(&l->loop->timers, &l->timer, until_ns);
}

static int watch(struct listener *l)
{
	uint32_t exclusive = l->loop->relay->n_loops > 1 ? EPOLLEXCLUSIVE : 0;

	return loop_watch(l->loop, l->route->listen_fd, &l->handle, EPOLLIN | exclusive);
}

static void resume(struct listener *l)
{
	timer_stop(&l->loop->timers, &l->timer);
	l->paused = l->full = false;
	if (watch(l) < 0)
		pause_until(l, l->loop->now_ns + PAUSE_NS);
}

static void on_timer(struct timer *t, void *context)
{
	resume((struct listener *)(void *)((char *)t - offsetof(struct listener, timer)));
}

void listeners_resume(struct loop *loop)
{
	for (struct listener *l = loop->listeners; l; l = l->next) {
		if (l->full)
			resume(l);
	}
}

static struct loop *least_loaded(struct loop *self)
{
	struct relay *relay = self->relay;
	struct loop *best = self;
	uint32_t least = atomic_load_explicit(&self->load, memory_order_relaxed);

	for (unsigned int i = 0; i < relay->n_loops; i++) {
		uint32_t load = atomic_load_explicit(&relay->loops[i].load, memory_order_relaxed);

		if (load < least) {
			least = load;
			best = &relay->loops[i];
		}
	}
	return best;
}

/* Gives an accepted descriptor to a loop. */
static void place(struct listener *l, int fd, const struct address *client)
{
	struct loop *to = l->loop;
	struct handover *h;

	if (l->loop->relay->n_loops > 1)
		to = least_loaded(l->loop);
	atomic_fetch_add_explicit(&l->route->active, 1, memory_order_relaxed);
	h = to == l->loop ? NULL : malloc(sizeof(*h));
	if (!h) {
		atomic_fetch_add_explicit(&l->loop->load, 1, memory_order_relaxed);
		flow_start(l->loop, l->route, fd, &client->sa, NULL);
		return;
	}
	atomic_fetch_add_explicit(&to->load, 1, memory_order_relaxed);
	h->message.fn = take_over;
	h->route = l->route;
	h->fd = fd;
	if (client->sa.sa_family == AF_INET6)
		h->client.in6 = client->in6;
	else if (client->sa.sa_family == AF_INET)
		h->client.in = client->in;
	else
		h->client.sa.sa_family = client->sa.sa_family;
	loop_post(to, &h->message);
}

/* False when the route has to wait before it may accept. */
static bool may_accept(struct listener *l)
{
	struct route *r = l->route;
	uint64_t most = r->s.max_connections, all = l->loop->relay->max_connections, wait;

	if ((most && atomic_load_explicit(&r->active, memory_order_relaxed) >= most) ||
		relay_load(l->loop->relay) >= all) {
		l->full = true;
		pause_until(l, l->loop->now_ns + PAUSE_NS);
		return false;
	}
	wait = limit_wait_ns(&r->accept, l->loop->now_ns);
	if (wait) {
		pause_until(l, l->loop->now_ns + wait);
		return false;
	}
	return true;
}

static void accept_failed(struct listener *l, int err)
{
	struct loop *loop = l->loop;

	/* The peer went away, or the network reported its trouble: accept(2). */
	if (err == EAGAIN || err == EINTR || err == ECONNABORTED || err == EPROTO ||
		err == ENETDOWN || err == ENOPROTOOPT || err == EHOSTDOWN || err == ENONET ||
		err == EHOSTUNREACH || err == EOPNOTSUPP || err == ENETUNREACH)
		return;
	counter_add(&l->route->counters[loop->idx].errors[RELAY_ERROR_SYSTEM], 1);
	loop_exhausted(loop, "accept", err);
	if (!l->closing)
		pause_until(l, loop->now_ns + PAUSE_NS);
}

bool loop_is_to_blame(int err)
{
	return err == EMFILE || err == ENFILE || err == ENOMEM || err == ENOBUFS || err == ENOSPC ||
	       err == EADDRNOTAVAIL || err == EPERM || err == EACCES || err == EADDRINUSE;
}

/* What helps against it. */
static const char *remedy(int err)
{
	switch (err) {
	case EMFILE: return "raise LimitNOFILE (ulimit -n), or lower max_connections";
	case ENFILE: return "raise fs.file-max";
	case ENOSPC: return "raise fs.epoll.max_user_watches, or make room on the disk";
	case EADDRNOTAVAIL:
	case EADDRINUSE:
		return "local ports are used up: widen net.ipv4.ip_local_port_range, or set source";
	case EPERM:
	case EACCES: return "a firewall rule or a missing right is in the way";
	default: return "free memory, or lower max_connections";
	}
}

bool loop_may_tell(struct loop *loop)
{
	if (loop->told_ns && loop->now_ns < loop->told_ns + LOG_EVERY_NS)
		return false;
	loop->told_ns = loop->now_ns;
	return true;
}

void loop_exhausted(struct loop *loop, const char *call, int err)
{
	if (loop_may_tell(loop))
		log_error("relay: %s: %s; %s", call, strerrordesc_np(err), remedy(err));
}

bool route_admits(const struct route_settings *s, const struct sockaddr *client)
{
	if (client->sa_family != AF_INET && client->sa_family != AF_INET6)
		return true;
	if (s->deny.n && route_networks_contain(&s->deny, client))
		return false;
	return s->allow.n == 0 || route_networks_contain(&s->allow, client);
}

static void refuse(struct listener *l, int fd)
{
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	struct counters *c = &l->route->counters[l->loop->idx];

	(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
	counter_add(&c->connections, 1);
	counter_add(&c->refused, 1);
}

/* How many to take in this turn. To ask an empty queue costs nearly as much as to accept: the
 * kernel makes the socket before it looks. So where connections come one by one, nobody asks for
 * a second one until epoll says that there is one. */
static uint32_t accepts(struct listener *l)
{
	bool again = l->loop->turn - l->seen_turn == 1;

	l->seen_turn = l->loop->turn;
	if (l->closing)
		return QUEUED_MAX;
	return l->lone && !again ? 1 : ACCEPTS_PER_TURN;
}

static void on_readable(struct loop *loop, struct handle *h, uint32_t events)
{
	struct listener *l = (struct listener *)(void *)h;
	struct address client;
	uint32_t most;

	if (l->paused)
		return;
	most = accepts(l);
	l->lone = false;
	for (uint32_t i = 0; i < most; i++) {
		int fd;

		if (!l->closing && !may_accept(l))
			return;
		client.size = sizeof(client.un);
		client.sa.sa_family = AF_UNIX;
		fd = accept4(l->route->listen_fd, &client.sa, &client.size,
			SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0) {
			accept_failed(l, errno);
			return;
		}
		l->lone = i == 0;
		limit_charge(&l->route->accept, 1, loop->now_ns);
		/* With PROXY headers it is the client behind the trusted peer that counts. */
		if (!l->route->s.proxy_accept && !route_admits(&l->route->s, &client.sa)) {
			refuse(l, fd);
			continue;
		}
		counter_add(&l->route->counters[loop->idx].connections, 1);
		place(l, fd, &client);
	}
}

int listener_start(struct loop *loop, struct route *route)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->handle.fn = on_readable;
	l->loop = loop;
	l->route = route;
	l->timer.fn = on_timer;
	r = watch(l);
	if (r < 0) {
		free(l);
		return r;
	}
	l->next = loop->listeners;
	loop->listeners = l;
	return 0;
}

void listener_stop(struct loop *loop, struct route *route)
{
	struct listener **at = &loop->listeners, *l;

	while (*at && (*at)->route != route)
		at = &(*at)->next;
	l = *at;
	if (!l)
		return;
	*at = l->next;
	timer_stop(&loop->timers, &l->timer);
	if (!l->paused)
		(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, route->listen_fd, NULL);
	l->paused = false;
	l->closing = true;
	on_readable(loop, &l->handle, EPOLLIN);
	free(l);
}
