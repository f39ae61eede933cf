/*
 * Carries datagrams. A client is known by its address and port; each has a socket of its own,
 * connected to the target, so that answers find their way back.
 *
 * Where the kernel joins equal datagrams (UDP_GRO) they travel as one and are cut again by the
 * kernel on their way out (UDP_SEGMENT): never joined for who receives them.
 */
#include "relay/udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/flow.h"
#include "relay/relay_internal.h"
#include "relay/resolve.h"
#include "relay/sockopt.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

#define BATCH	      16
#define DATAGRAM_SIZE 65536
#define CONTROL_SIZE  128
/* Batches from one socket before the loop looks at the others. */
#define BATCHES_PER_TURN 8
#define BUCKETS		 4096U
/* Datagrams say no goodbye: a session ends when it rests. RFC 4787 asks for 2 min at least. */
#define IDLE_DEFAULT_NS 120000000000ULL

struct pktinfo {
	bool known;
	bool v6;
	union {
		struct in_pktinfo v4;
		struct in6_pktinfo v6_info;
	};
};

struct session {
	struct handle handle;
	struct session *next; /* of its bucket */
	struct udp *udp;
	struct timer timer;
	struct target *target;
	int fd;
	uint64_t started_ns, last_ns, bytes[2];
	struct client client;
	struct pktinfo local; /* where the client sent to: answers come from there */
};

/* A batch on its way through; one for each route. */
struct batch {
	struct mmsghdr messages[BATCH];
	struct iovec parts[BATCH];
	struct client peers[BATCH];
	uint8_t control[BATCH][CONTROL_SIZE] __attribute__((aligned(8)));
	uint8_t bytes[BATCH][DATAGRAM_SIZE];
};

struct udp {
	struct handle handle;
	struct udp *next; /* the loop's list */
	struct loop *loop;
	struct route *route;
	struct counters *counters;
	struct batch *batch;
	struct session *buckets[BUCKETS];
};

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
	return (uint32_t)(h >> 40) % BUCKETS;
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

static socklen_t client_size(const struct client *c)
{
	return c->sa.sa_family == AF_INET ? sizeof(c->in) : sizeof(c->in6);
}

static void drop(struct udp *u)
{
	counter_add(&u->counters->dropped, 1);
}

static void session_end(struct session *s, unsigned int how)
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
		.attempts = 1,
	};

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	timer_stop(&u->loop->timers, &s->timer);
	close(s->fd);
	s->fd = -1;
	ending_tell(&e, u->counters, how);
	atomic_fetch_sub_explicit(&s->target->active, 1, memory_order_relaxed);
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

/* The size of the pieces that the kernel joined, 0 if it did not; notes where it came to. */
static uint16_t read_control(struct msghdr *m, struct pktinfo *ret_local)
{
	int size = 0;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&size, CMSG_DATA(c), sizeof(size));
		} else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&ret_local->v4, CMSG_DATA(c), sizeof(ret_local->v4));
			ret_local->known = true;
			ret_local->v6 = false;
		} else if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			memcpy(&ret_local->v6_info, CMSG_DATA(c), sizeof(ret_local->v6_info));
			ret_local->known = true;
			ret_local->v6 = true;
		}
	}
	return (uint16_t)size;
}

static void add_control(struct msghdr *m, int level, int type, const void *data, size_t size)
{
	struct cmsghdr *c =
		(struct cmsghdr *)(void *)((uint8_t *)m->msg_control + m->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(size);
	memcpy(CMSG_DATA(c), data, size);
	m->msg_controllen += CMSG_SPACE(size);
}

static void write_control(struct msghdr *m, uint16_t piece, const struct pktinfo *local)
{
	m->msg_controllen = 0;
	if (piece)
		add_control(m, SOL_UDP, UDP_SEGMENT, &piece, sizeof(piece));
	if (local && local->known && local->v6) {
		add_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &local->v6_info, sizeof(local->v6_info));
	} else if (local && local->known) {
		struct in_pktinfo info = {.ipi_spec_dst = local->v4.ipi_spec_dst};

		add_control(m, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
}

/* One by one what the kernel won't cut: pieces larger than the way out allows, for one. */
static void send_pieces(
	struct udp *u, int fd, struct msghdr *m, uint16_t piece, const struct pktinfo *local)
{
	struct iovec *part = m->msg_iov;
	uint8_t *bytes = part->iov_base;
	size_t left = part->iov_len;

	write_control(m, 0, local);
	while (left) {
		part->iov_base = bytes;
		part->iov_len = left < piece ? left : piece;
		if (sendmsg(fd, m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			drop(u);
		bytes += part->iov_len;
		left -= part->iov_len;
	}
}

/* Sends n messages of a batch from first on; pieces[i] cuts message i. What can't be sent now is
 * dropped, as a router would. */
static void send_batch(struct udp *u, int fd, unsigned int first, unsigned int n,
	const uint16_t *pieces, const struct pktinfo *local)
{
	struct mmsghdr *m = &u->batch->messages[first];
	bool retried = false;

	while (n) {
		int sent = sendmmsg(fd, m, n, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (sent > 0) {
			m += sent;
			first += (unsigned int)sent;
			n -= (unsigned int)sent;
			retried = false;
			continue;
		}
		/* An answer to something earlier: this message is not to blame. */
		if ((errno == ECONNREFUSED || errno == EINTR) && !retried) {
			retried = true;
			continue;
		}
		if (pieces[first] && errno != EAGAIN)
			send_pieces(u, fd, &m->msg_hdr, pieces[first], local);
		else
			drop(u);
		m++;
		first++;
		n--;
		retried = false;
	}
}

/* Fills the batch from fd: how many, or -errno. */
static int receive(struct udp *u, int fd)
{
	struct batch *b = u->batch;
	int n;

	for (unsigned int i = 0; i < BATCH; i++) {
		b->parts[i] = (struct iovec){b->bytes[i], DATAGRAM_SIZE};
		b->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &b->peers[i],
			.msg_namelen = sizeof(b->peers[i]),
			.msg_iov = &b->parts[i],
			.msg_iovlen = 1,
			.msg_control = b->control[i],
			.msg_controllen = CONTROL_SIZE,
		};
	}
	do {
		n = recvmmsg(fd, b->messages, BATCH, MSG_DONTWAIT, NULL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static void account(struct session *s, unsigned int direction, uint64_t bytes)
{
	struct udp *u = s->udp;

	s->bytes[direction] += bytes;
	s->last_ns = u->loop->now_ns;
	counter_add(&u->counters->bytes[direction], bytes);
	counter_add(&u->counters->copied, bytes);
	limit_charge(&u->route->rate, bytes, u->loop->now_ns);
}

/* Answers of the target. */
static void on_session(struct loop *loop, struct handle *h, uint32_t events)
{
	struct session *s = (struct session *)(void *)h;
	struct udp *u = s->udp;
	uint16_t pieces[BATCH];

	for (int turn = 0; turn < BATCHES_PER_TURN && s->fd >= 0; turn++) {
		int n = receive(u, s->fd);

		if (n == -ECONNREFUSED || n == -EHOSTUNREACH || n == -ENETUNREACH) {
			counter_add(&u->counters->errors[RELAY_ERROR_CONNECT], 1);
			continue; /* reading took the error; the socket lives */
		}
		if (n <= 0)
			return;
		for (int i = 0; i < n; i++) {
			struct mmsghdr *m = &u->batch->messages[i];
			struct pktinfo ignored;

			pieces[i] = read_control(&m->msg_hdr, &ignored);
			m->msg_hdr.msg_name = &s->client;
			m->msg_hdr.msg_namelen = client_size(&s->client);
			u->batch->parts[i].iov_len = m->msg_len;
			write_control(&m->msg_hdr, pieces[i], &s->local);
			account(s, 1, m->msg_len);
		}
		send_batch(u, u->route->listen_fd, 0, (unsigned int)n, pieces, &s->local);
		if (n < BATCH)
			return;
	}
}

static int connect_session(struct session *s)
{
	struct udp *u = s->udp;
	const struct address *address = &s->target->settings->endpoint.address;
	struct address resolved;
	int r, one = 1;

	if (s->target->name) {
		r = name_pick(s->target->name, &resolved);
		if (r < 0)
			return r;
		address = &resolved;
	}
	s->fd = socket(address->sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		return -errno;
	r = sockopt_datagram(s->fd, &u->route->s, address->sa.sa_family, &s->client, NULL);
	if (r < 0)
		return r;
	if (connect(s->fd, &address->sa, address->size) < 0)
		return -errno;
	(void)setsockopt(s->fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
	return loop_watch(u->loop, s->fd, &s->handle, EPOLLIN);
}

/* NULL: no room, or not allowed; it was counted. */
static struct session *session_begin(struct udp *u, const struct client *client)
{
	struct route *route = u->route;
	struct loop *loop = u->loop;
	uint64_t most = route->s.max_connections;
	struct session *s;
	struct target *t;
	uint32_t bucket = bucket_of(client);
	int r;

	if (!route_admits(&route->s, &client->sa)) {
		counter_add(&u->counters->refused, 1);
		return NULL;
	}
	if ((most && atomic_load_explicit(&route->active, memory_order_relaxed) >= most) ||
		relay_load(loop->relay) >= loop->relay->max_connections ||
		limit_wait_ns(&route->accept, loop->now_ns)) {
		drop(u);
		return NULL;
	}
	t = balance_pick(route, &client->sa, 0);
	s = t ? calloc(1, sizeof(*s)) : NULL;
	if (!s) {
		drop(u);
		return NULL;
	}
	s->handle.fn = on_session;
	s->timer.fn = on_idle;
	s->udp = u;
	s->target = t;
	s->fd = -1;
	s->client = *client;
	s->started_ns = s->last_ns = loop->now_ns;
	r = connect_session(s);
	if (r < 0) {
		bool ours = loop_is_to_blame(-r);

		counter_add(
			&u->counters->errors[ours ? RELAY_ERROR_SYSTEM : RELAY_ERROR_CONNECT], 1);
		if (ours)
			loop_exhausted(loop, "udp session", -r);
		if (s->fd >= 0)
			close(s->fd);
		free(s);
		drop(u);
		return NULL;
	}
	limit_charge(&route->accept, 1, loop->now_ns);
	s->next = u->buckets[bucket];
	u->buckets[bucket] = s;
	counter_add(&u->counters->connections, 1);
	atomic_fetch_add_explicit(&t->active, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&loop->load, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&route->active, 1, memory_order_relaxed);
	timer_start(&loop->timers, &s->timer, loop->now_ns + idle_ns(u));
	return s;
}

static struct session *session_find(struct udp *u, const struct client *client)
{
	struct session *s = u->buckets[bucket_of(client)];

	while (s && !same_client(&s->client, client))
		s = s->next;
	return s ? s : session_begin(u, client);
}

/* Sends what came from clients: runs of one session together. */
static void forward(struct udp *u, unsigned int n)
{
	struct batch *b = u->batch;
	struct session *run = NULL;
	uint16_t pieces[BATCH];
	unsigned int first = 0;

	for (unsigned int i = 0; i < n; i++) {
		struct pktinfo local = {0};
		struct msghdr *m = &b->messages[i].msg_hdr;
		struct session *s;

		pieces[i] = read_control(m, &local);
		s = limit_wait_ns(&u->route->rate, u->loop->now_ns) ? NULL
								    : session_find(u, &b->peers[i]);
		if (!s && limit_wait_ns(&u->route->rate, u->loop->now_ns))
			drop(u);
		if (s != run && run)
			send_batch(u, run->fd, first, i - first, pieces, NULL);
		if (s != run)
			first = i;
		run = s;
		if (!s)
			continue;
		s->local = local;
		m->msg_name = NULL;
		m->msg_namelen = 0;
		b->parts[i].iov_len = b->messages[i].msg_len;
		write_control(m, pieces[i], NULL);
		account(s, 0, b->messages[i].msg_len);
	}
	if (run)
		send_batch(u, run->fd, first, n - first, pieces, NULL);
}

static void on_clients(struct loop *loop, struct handle *h, uint32_t events)
{
	struct udp *u = (struct udp *)(void *)h;

	for (int turn = 0; turn < BATCHES_PER_TURN; turn++) {
		int n = receive(u, u->route->listen_fd);

		if (n <= 0)
			return;
		forward(u, (unsigned int)n);
		if (n < BATCH)
			return;
	}
}

int udp_start(struct loop *loop, struct route *route)
{
	struct udp *u = calloc(1, sizeof(*u));
	int r = -ENOMEM, one = 1;

	if (!u)
		return r;
	u->handle.fn = on_clients;
	u->loop = loop;
	u->route = route;
	u->counters = &route->counters[loop->idx];
	/* Not cleared: pages that no datagram touches are never used. */
	u->batch = malloc(sizeof(*u->batch));
	if (!u->batch)
		goto fail;
	(void)setsockopt(route->listen_fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
	/* A socket of the wrong family refuses one of them. */
	(void)setsockopt(route->listen_fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
	(void)setsockopt(route->listen_fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one));
	r = loop_watch(loop, route->listen_fd, &u->handle, EPOLLIN);
	if (r < 0)
		goto fail;
	u->next = loop->udps;
	loop->udps = u;
	return 0;
fail:
	free(u->batch);
	free(u);
	return r;
}

void udp_stop(struct loop *loop, struct route *route)
{
	struct udp **at = &loop->udps, *u;

	while (*at && (*at)->route != route)
		at = &(*at)->next;
	u = *at;
	if (!u)
		return;
	*at = u->next;
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, route->listen_fd, NULL);
	for (unsigned int i = 0; i < BUCKETS; i++) {
		while (u->buckets[i])
			session_end(u->buckets[i], FLOW_END_DONE);
	}
	udp_bury(loop);
	free(u->batch);
	free(u);
}
