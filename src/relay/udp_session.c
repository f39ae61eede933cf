/*
 * The sessions of UDP routes: who is one client's, to which target it goes, when it ends.
 *
 * Datagrams know no connecting that could fail. What stands for it is an ICMP message, which the
 * kernel reports on the session's socket: it counts against the target, and the session goes on
 * with another one.
 */
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/health.h"
#include "relay/resolve.h"
#include "relay/sockopt.h"
#include "relay/udp.h"
#include "relay/udp_internal.h"

/* Datagrams say no goodbye: a session ends when it rests. RFC 4787 asks for 2 min at least. */
#define IDLE_DEFAULT_NS 120000000000ULL
/* No probe can ask a target that is down; after this rest a new session may try it. */
#define REST_DEFAULT_NS 2000000000ULL

static uint32_t bucket_of(const struct client *c)
{
	uint64_t h = c->in.sin_port;
	uint64_t words[2];

	if (c->sa.sa_family == AF_INET) {
		h += (uint64_t)c->in.sin_addr.s_addr << 16;
	} else {
		memcpy(words, &c->in6.sin6_addr, sizeof(words));
		h += words[0] * 31 + words[1];
	}
	h *= 0x9e3779b97f4a7c15ULL;
	return (uint32_t)(h >> 40) % UDP_BUCKETS;
}

static bool same_client(const struct client *a, const struct client *b)
{
	if (a->sa.sa_family != b->sa.sa_family || a->in.sin_port != b->in.sin_port)
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->in.sin_addr.s_addr == b->in.sin_addr.s_addr;
	return memcmp(&a->in6.sin6_addr, &b->in6.sin6_addr, sizeof(a->in6.sin6_addr)) == 0 &&
	       a->in6.sin6_scope_id == b->in6.sin6_scope_id;
}

static void leave_target(struct session *s)
{
	if (s->fd >= 0) {
		udp_count_lost(s->udp, &s->lost, datagram_lost(s->fd));
		close(s->fd);
	}
	s->fd = -1;
	if (s->target)
		atomic_fetch_sub_explicit(&s->target->active, 1, memory_order_relaxed);
	s->target = NULL;
}

void session_end(struct session *s, unsigned int how)
{
	struct udp *u = s->udp;
	struct session **at = &u->buckets[bucket_of(&s->client)];
	struct ending e = {
		.route = u->route,
		.target = s->target,
		.client = &s->client.sa,
		.bytes = {s->bytes[0], s->bytes[1]},
		.used = s->bytes[0] || s->bytes[1] ? USED_COPY : 0,
		.duration_ns = u->loop->now_ns - s->started_ns,
		.attempts = s->attempts,
	};

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	timer_stop(&u->loop->timers, &s->timer);
	leave_target(s);
	ending_tell(&e, u->counters, how);
	atomic_fetch_sub_explicit(&u->loop->load, 1, memory_order_relaxed);
	atomic_fetch_sub_explicit(&u->route->active, 1, memory_order_release);
	/* Events of this turn may still name it. */
	s->next = u->loop->dead_sessions;
	u->loop->dead_sessions = s;
}

void udp_bury(struct loop *loop)
{
	while (loop->dead_sessions) {
		struct session *s = loop->dead_sessions;

		loop->dead_sessions = s->next;
		free(s);
	}
}

static uint64_t idle_ns(const struct udp *u)
{
	return u->route->s.idle_timeout_ns ? u->route->s.idle_timeout_ns : IDLE_DEFAULT_NS;
}

static void on_idle(struct timer *t, void *context)
{
	struct session *s = (struct session *)(void *)((char *)t - offsetof(struct session, timer));
	uint64_t due = s->last_ns + idle_ns(s->udp);

	if (s->udp->loop->now_ns >= due)
		session_end(s, FLOW_END_DONE);
	else
		timer_start(&s->udp->loop->timers, t, due);
}

/* A target that is down and has rested: one session tries it, unless it is a backup that
 * nobody needs. */
static struct target *rested(struct udp *u, uint32_t tried)
{
	struct route *route = u->route;
	uint64_t now = u->loop->now_ns, rest = route->s.health_ns, until;
	bool main_up = false;

	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		struct target *t = &route->targets[i];

		main_up |= !t->settings->backup &&
			   !atomic_load_explicit(&t->down, memory_order_relaxed);
	}
	for (uint32_t i = 0; i < route->s.n_targets; i++) {
		struct target *t = &route->targets[i];

		if (tried & 1U << i || !atomic_load_explicit(&t->down, memory_order_relaxed) ||
			(main_up && t->settings->backup))
			continue;
		until = atomic_load_explicit(&t->rested_ns, memory_order_relaxed);
		if (now >= until && atomic_compare_exchange_strong_explicit(&t->rested_ns, &until,
					    now + (rest ? rest : REST_DEFAULT_NS),
					    memory_order_relaxed, memory_order_relaxed))
			return t;
	}
	return NULL;
}

static void count_failure(struct session *s, int err)
{
	struct udp *u = s->udp;
	uint64_t rest = u->route->s.health_ns;

	atomic_store_explicit(&s->target->rested_ns,
		u->loop->now_ns + (rest ? rest : REST_DEFAULT_NS), memory_order_relaxed);
	health_bad(u->route, s->target, s->ticket, err);
}

static int open_socket(struct session *s, struct target *t)
{
	struct udp *u = s->udp;
	const struct address *address = &t->settings->endpoint.address;
	struct address resolved;
	int r;

	s->ticket = 0;
	if (t->name) {
		r = name_pick(t->name, &resolved, &s->ticket);
		if (r < 0)
			return r;
		address = &resolved;
	}
	r = sockopt_datagram_socket(address->sa.sa_family);
	if (r < 0)
		return r;
	s->fd = r;
	s->lost = 0;
	r = sockopt_datagram(s->fd, &u->route->s, address->sa.sa_family, &s->client, NULL);
	if (r < 0)
		return r;
	if (connect(s->fd, &address->sa, address->size) < 0)
		return -errno;
	datagram_prepare(s->fd, false);
	return loop_watch(u->loop, s->fd, &s->handle, EPOLLIN);
}

/* One that was not tried yet, then other addresses of those that were, or NULL. */
static struct target *next_target(struct session *s)
{
	struct udp *u = s->udp;
	struct target *t = rested(u, s->tried);

	if (!t)
		t = balance_pick(u->route, &s->client.sa, s->tried);
	if (t)
		return t;
	s->tried &= ~balance_names_left(u->route);
	return balance_pick(u->route, &s->client.sa, s->tried);
}

/* To a target that it has not tried yet: 0, or -errno of the last attempt. */
static int find_target(struct session *s)
{
	struct udp *u = s->udp;
	int r = -EHOSTUNREACH;

	while (s->attempts <= u->route->s.retries) {
		struct target *t = next_target(s);

		if (!t)
			break;
		if (s->attempts++)
			counter_add(&u->counters->retries, 1);
		s->tried |= 1U << (t - u->route->targets);
		s->target = t;
		atomic_fetch_add_explicit(&t->active, 1, memory_order_relaxed);
		r = open_socket(s, t);
		if (r == 0)
			return 0;
		if (loop_is_to_blame(-r))
			loop_exhausted(u->loop, "udp session", -r);
		else
			count_failure(s, -r);
		leave_target(s);
	}
	return r;
}

void session_answered(struct session *s)
{
	s->attempts = 1;
	s->tried = 1U << (s->target - s->udp->route->targets);
	health_good(s->udp->route, s->target, s->ticket);
}

/* icmp(7): what the kernel makes of the messages that end a connected socket's hopes. */
bool session_is_refusal(int err)
{
	return err == ECONNREFUSED || err == EHOSTUNREACH || err == ENETUNREACH ||
	       err == EHOSTDOWN || err == ENONET || err == ENOPROTOOPT;
}

void session_refused(struct session *s, int err)
{
	struct udp *u = s->udp;
	int r;

	count_failure(s, err);
	if (u->route->s.n_targets == 1 && !balance_names_left(u->route)) {
		counter_add(&u->counters->errors[RELAY_ERROR_CONNECT], 1);
		return;
	}
	leave_target(s);
	r = find_target(s);
	if (r < 0)
		session_end(s, FLOW_END_ERROR + (loop_is_to_blame(-r) ? RELAY_ERROR_SYSTEM
								      : RELAY_ERROR_CONNECT));
}

static struct session *begin(struct udp *u, const struct client *client)
{
	struct session *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return NULL;
	s->handle.fn = udp_on_answers;
	s->timer.fn = on_idle;
	s->udp = u;
	s->fd = -1;
	s->client = *client;
	s->started_ns = s->last_ns = u->loop->now_ns;
	r = find_target(s);
	if (r < 0) {
		counter_add(&u->counters->errors[loop_is_to_blame(-r) ? RELAY_ERROR_SYSTEM
								      : RELAY_ERROR_CONNECT],
			1);
		free(s);
		return NULL;
	}
	return s;
}

struct session *session_of(struct udp *u, const struct client *client, unsigned int n)
{
	uint32_t bucket = bucket_of(client);
	struct route *route = u->route;
	struct loop *loop = u->loop;
	uint64_t most = route->s.max_connections;
	struct session *s = u->buckets[bucket];

	while (s && !same_client(&s->client, client))
		s = s->next;
	if (s)
		return s;
	if (!route_admits(&route->s, &client->sa)) {
		counter_add(&u->counters->refused, n);
		return NULL;
	}
	if ((most && atomic_load_explicit(&route->active, memory_order_relaxed) >= most) ||
		relay_load(loop->relay) >= loop->relay->max_connections ||
		limit_wait_ns(&route->accept, loop->now_ns) || !(s = begin(u, client))) {
		udp_drop(u, n);
		return NULL;
	}
	limit_charge(&route->accept, 1, loop->now_ns);
	s->next = u->buckets[bucket];
	u->buckets[bucket] = s;
	counter_add(&u->counters->connections, 1);
	atomic_fetch_add_explicit(&loop->load, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&route->active, 1, memory_order_relaxed);
	timer_start(&loop->timers, &s->timer, loop->now_ns + idle_ns(u));
	return s;
}
