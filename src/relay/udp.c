/* Carries datagrams between the clients of a UDP route and their sessions. */
#include "relay/udp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "relay/udp_internal.h"

/* Batches from one socket before the loop looks at the others. */
#define BATCHES_PER_TURN 8

static void account(struct session *s, unsigned int direction, uint64_t bytes)
{
	struct udp *u = s->udp;

	s->bytes[direction] += bytes;
	counter_add(&u->counters->bytes[direction], bytes);
	counter_add(&u->counters->copied, bytes);
	limit_charge(&u->route->rate, bytes, u->loop->now_ns);
}

/* One by one what the kernel won't cut: pieces larger than the way out allows, for one. */
static void send_pieces(struct session *s, unsigned int direction, int fd, unsigned int idx)
{
	struct datagram_batch *b = s->udp->batch;
	struct msghdr *m = &b->messages[idx].msg_hdr;
	struct iovec *part = m->msg_iov;
	uint8_t *bytes = part->iov_base;
	size_t left = part->iov_len;
	uint16_t piece = b->pieces[idx];

	b->pieces[idx] = 0;
	datagram_write(b, idx, m->msg_name, direction == 1 ? &s->local : NULL);
	while (left) {
		part->iov_base = bytes;
		part->iov_len = left < piece ? left : piece;
		if (sendmsg(fd, m, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			udp_drop(s->udp, 1);
		else
			account(s, direction, part->iov_len);
		bytes += part->iov_len;
		left -= part->iov_len;
	}
}

/* Sends messages of a batch, from first on up to end: to the session's target, or its answers to
 * the client. What can't be sent now is dropped, as a router would. */
static void send_batch(
	struct session *s, unsigned int direction, unsigned int first, unsigned int end)
{
	struct udp *u = s->udp;
	struct datagram_batch *b = u->batch;
	unsigned int refusals = 0;

	while (first < end) {
		int fd = direction == 0 ? s->fd : u->fd, err;
		int sent = fd < 0 ? -1
				  : sendmmsg(fd, &b->messages[first], end - first,
					    MSG_DONTWAIT | MSG_NOSIGNAL);

		err = fd < 0 ? EPIPE : errno;
		if (sent > 0) {
			for (unsigned int n = (unsigned int)sent; n; n--, first++)
				account(s, direction, b->parts[first].iov_len);
			refusals = 0;
			continue;
		}
		/* The answer to something earlier: this message is not to blame. */
		if (direction == 0 && fd >= 0 && session_is_refusal(err) &&
			refusals++ < u->route->s.n_targets) {
			session_refused(s, err);
			continue;
		}
		if (b->pieces[first] && err != EAGAIN && fd >= 0)
			send_pieces(s, direction, fd, first);
		else
			udp_drop(u, datagram_count(b, first));
		first++;
		refusals = 0;
	}
}

void udp_on_answers(struct loop *loop, struct handle *h, uint32_t events)
{
	struct session *s = (struct session *)(void *)h;
	struct udp *u = s->udp;

	for (int turn = 0; turn < BATCHES_PER_TURN && s->fd >= 0; turn++) {
		uint32_t lost = s->lost;
		int n = datagram_receive(u->batch, s->fd);

		if (n < 0 && session_is_refusal(-n)) {
			session_refused(s, -n);
			continue;
		}
		if (n <= 0)
			return;
		for (unsigned int i = 0; i < (unsigned int)n; i++) {
			struct datagram_local ignored;

			datagram_read(u->batch, i, &ignored, &lost);
			datagram_write(u->batch, i, &s->client, &s->local);
		}
		udp_count_lost(u, &s->lost, lost);
		s->last_ns = loop->now_ns;
		session_answered(s);
		send_batch(s, 1, 0, (unsigned int)n);
		if (n < DATAGRAM_BATCH)
			return;
	}
}

/* Sends what came from clients: runs of one session together. */
static void forward(struct udp *u, unsigned int n)
{
	struct datagram_batch *b = u->batch;
	struct session *run = NULL;
	unsigned int first = 0;
	uint32_t lost = u->lost;

	for (unsigned int i = 0; i < n; i++) {
		struct datagram_local local;
		struct session *s = NULL;

		datagram_read(b, i, &local, &lost);
		if (limit_wait_ns(&u->route->rate, u->loop->now_ns))
			udp_drop(u, datagram_count(b, i));
		else
			s = session_of(u, &b->peers[i], datagram_count(b, i));
		if (s != run) {
			if (run)
				send_batch(run, 0, first, i);
			first = i;
		}
		run = s;
		if (!s)
			continue;
		s->local = local;
		s->last_ns = u->loop->now_ns;
		datagram_write(b, i, NULL, NULL);
	}
	if (run)
		send_batch(run, 0, first, n);
	udp_count_lost(u, &u->lost, lost);
}

static void on_clients(struct loop *loop, struct handle *h, uint32_t events)
{
	struct udp *u = (struct udp *)(void *)h;

	for (int turn = 0; turn < BATCHES_PER_TURN; turn++) {
		int n = datagram_receive(u->batch, u->fd);

		if (n <= 0)
			return;
		forward(u, (unsigned int)n);
		if (n < DATAGRAM_BATCH)
			return;
	}
}

/* A socket beside listen_fd, at the same place. */
static int open_beside(int listen_fd)
{
	struct address a = {.size = sizeof(a.un)};
	int one = 1, only = 0, fd, r;
	socklen_t size = sizeof(only);

	if (getsockname(listen_fd, &a.sa, &a.size) < 0)
		return -errno;
	fd = socket(a.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (getsockopt(listen_fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &size) == 0)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, sizeof(only));
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) == 0 &&
		bind(fd, &a.sa, a.size) == 0)
		return fd;
	r = -errno;
	close(fd);
	return r;
}

int udp_open(struct route *route, const struct route *old, unsigned int n)
{
	int one = 1;

	route->udp_fds = malloc(n * sizeof(int));
	if (!route->udp_fds)
		return -ENOMEM;
	for (unsigned int i = 0; i < n; i++)
		route->udp_fds[i] = -1;
	/* Only now: who bound it first did so alone, and learned if another process is there. */
	if (n > 1 && setsockopt(route->listen_fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) < 0)
		return -errno;
	for (unsigned int i = 0; i < n; i++) {
		int fd;

		if (i == 0 || old) {
			fd = fcntl(i ? old->udp_fds[i] : route->listen_fd, F_DUPFD_CLOEXEC, 3);
			fd = fd < 0 ? -errno : fd;
		} else {
			fd = open_beside(route->listen_fd);
		}
		if (fd < 0)
			return fd;
		route->udp_fds[i] = fd;
	}
	return 0;
}

void udp_close(struct route *route, unsigned int n)
{
	for (unsigned int i = 0; route->udp_fds && i < n; i++) {
		if (route->udp_fds[i] >= 0)
			close(route->udp_fds[i]);
	}
	free(route->udp_fds);
	route->udp_fds = NULL;
}

int udp_start(struct loop *loop, struct route *route)
{
	struct udp *u = calloc(1, sizeof(*u));
	int r = -ENOMEM;

	if (!u)
		return r;
	u->handle.fn = on_clients;
	u->loop = loop;
	u->route = route;
	u->counters = &route->counters[loop->idx];
	u->fd = route->udp_fds[loop->idx];
	/* Not cleared: pages that no datagram touches are never used. */
	u->batch = malloc(sizeof(*u->batch));
	if (!u->batch)
		goto fail;
	datagram_prepare(u->fd, true);
	/* Answers go out marked, too. It is permitted: relay_add has tried it. */
	(void)setsockopt(u->fd, SOL_SOCKET, SO_MARK, &route->s.mark, sizeof(route->s.mark));
	u->lost = datagram_lost(u->fd);
	r = loop_watch(loop, u->fd, &u->handle, EPOLLIN);
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
	(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, u->fd, NULL);
	udp_count_lost(u, &u->lost, datagram_lost(u->fd));
	for (unsigned int i = 0; i < UDP_BUCKETS; i++) {
		while (u->buckets[i])
			session_end(u->buckets[i], FLOW_END_DONE);
	}
	udp_bury(loop);
	free(u->batch);
	free(u);
}
