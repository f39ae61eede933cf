/* Reads batches of datagrams and their control messages, and writes these for the way out. */
#include "relay/datagram.h"

#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <string.h>

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif
#ifndef UDP_GRO
#define UDP_GRO 104
#endif

void datagram_prepare(int fd, bool local)
{
	int one = 1;

	(void)setsockopt(fd, SOL_UDP, UDP_GRO, &one, sizeof(one));
	(void)setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof(one));
	if (!local)
		return;
	/* A socket of the wrong family refuses one of them. */
	(void)setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one));
}

socklen_t client_size(const struct client *c)
{
	return c->sa.sa_family == AF_INET ? sizeof(c->in) : sizeof(c->in6);
}

int datagram_receive(struct datagram_batch *b, int fd)
{
	int n;

	for (unsigned int i = 0; i < DATAGRAM_BATCH; i++) {
		b->parts[i] = (struct iovec){b->bytes[i], DATAGRAM_SIZE};
		b->messages[i].msg_hdr = (struct msghdr){
			.msg_name = &b->peers[i],
			.msg_namelen = sizeof(b->peers[i]),
			.msg_iov = &b->parts[i],
			.msg_iovlen = 1,
			.msg_control = b->control[i],
			.msg_controllen = DATAGRAM_CONTROL,
		};
	}
	do {
		n = recvmmsg(fd, b->messages, DATAGRAM_BATCH, MSG_DONTWAIT, NULL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

void datagram_read(struct datagram_batch *b, unsigned int idx, struct datagram_local *ret_local,
	uint32_t *lost)
{
	struct msghdr *m = &b->messages[idx].msg_hdr;
	int size = 0;

	ret_local->known = false;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		if (c->cmsg_level == SOL_UDP && c->cmsg_type == UDP_GRO) {
			memcpy(&size, CMSG_DATA(c), sizeof(size));
		} else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL) {
			memcpy(lost, CMSG_DATA(c), sizeof(*lost));
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
	b->pieces[idx] = (uint16_t)size;
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

void datagram_write(struct datagram_batch *b, unsigned int idx, struct client *peer,
	const struct datagram_local *local)
{
	struct msghdr *m = &b->messages[idx].msg_hdr;
	uint16_t piece = b->pieces[idx];

	m->msg_name = peer;
	m->msg_namelen = peer ? client_size(peer) : 0;
	b->parts[idx].iov_len = b->messages[idx].msg_len;
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

unsigned int datagram_count(const struct datagram_batch *b, unsigned int idx)
{
	uint16_t piece = b->pieces[idx];
	unsigned int size = b->messages[idx].msg_len;

	return piece && size ? (size + piece - 1) / piece : 1;
}

uint32_t datagram_lost(int fd)
{
	uint32_t info[SK_MEMINFO_VARS] = {0};
	socklen_t size = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &size) < 0)
		return 0;
	return info[SK_MEMINFO_DROPS];
}
