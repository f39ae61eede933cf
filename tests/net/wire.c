/* Packet sockets in other network namespaces (packet(7), setns(2)). */
#include "wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what, const char *name)
{
	fprintf(stderr, "%s %s: %s\n", what, name, strerror(errno));
	exit(1);
}

static void socket_open(struct wire *w)
{
	struct sockaddr_ll addr = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int buffer = 64 << 20; /* bytes: holds whatever a window sends, and floods for a while */
	int on = 1;

	w->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	w->ifindex = (int)if_nametoindex(w->name);
	addr.sll_ifindex = w->ifindex;
	if (w->fd < 0 || w->ifindex == 0)
		die("device", w->name);
	if (setsockopt(w->fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof(buffer)) < 0)
		setsockopt(w->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
	if (setsockopt(w->fd, SOL_PACKET, PACKET_AUXDATA, &on, sizeof(on)) < 0 ||
		setsockopt(w->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) < 0)
		die("packet socket on", w->name);
	if (bind(w->fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		die("bind to", w->name);
	struct packet_mreq promisc = {.mr_ifindex = w->ifindex, .mr_type = PACKET_MR_PROMISC};
	if (setsockopt(w->fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &promisc, sizeof(promisc)) < 0)
		die("promiscuous", w->name);
}

void wire_open(struct wire *w, const char *spec)
{
	const char *colon = strchr(spec, ':');
	int here, there;

	w->name = colon ? colon + 1 : spec;
	if (!colon) {
		socket_open(w);
		return;
	}
	char *path = strndup(spec, (size_t)(colon - spec));
	here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	there = open(path, O_RDONLY | O_CLOEXEC);
	if (here < 0 || there < 0 || setns(there, CLONE_NEWNET) < 0)
		die("namespace", path);
	socket_open(w);
	if (setns(here, CLONE_NEWNET) < 0)
		die("namespace", "of the caller");
	close(here);
	close(there);
	free(path);
}

bool wire_send(struct wire *w, const uint8_t *frame, uint32_t size)
{
	struct pollfd p = {.fd = w->fd, .events = POLLOUT};

	for (int tries = 0; tries < 10000; tries++) {
		if (send(w->fd, frame, size, MSG_DONTWAIT) == (ssize_t)size)
			return true;
		if (errno != EAGAIN && errno != ENOBUFS)
			return false;
		if (poll(&p, 1, 10) < 0)
			return false;
	}
	return false;
}

static uint32_t vlan_put_back(struct msghdr *m, uint8_t *buf, uint32_t size, uint32_t size_max)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		struct tpacket_auxdata aux;

		if (c->cmsg_level != SOL_PACKET || c->cmsg_type != PACKET_AUXDATA)
			continue;
		memcpy(&aux, CMSG_DATA(c), sizeof(aux));
		if (!(aux.tp_status & TP_STATUS_VLAN_VALID) || size + 4 > size_max)
			continue;
		uint16_t tag[2] = {htons(aux.tp_vlan_tpid), htons(aux.tp_vlan_tci)};
		memmove(buf + 16, buf + 12, size - 12);
		memcpy(buf + 12, tag, 4);
		return size + 4;
	}
	return size;
}

uint32_t wire_receive(struct wire *w, uint8_t *buf, uint32_t size_max, int timeout_ms)
{
	char control[CMSG_SPACE(sizeof(struct tpacket_auxdata)) + 64];
	struct iovec io = {.iov_base = buf, .iov_len = size_max};
	struct msghdr m = {.msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct pollfd p = {.fd = w->fd, .events = POLLIN};
	ssize_t n = recvmsg(w->fd, &m, MSG_DONTWAIT);

	if (n < 0 && timeout_ms > 0 && poll(&p, 1, timeout_ms) > 0) {
		m.msg_controllen = sizeof(control);
		n = recvmsg(w->fd, &m, MSG_DONTWAIT);
	}
	if (n < 14)
		return 0;
	return vlan_put_back(&m, buf, (uint32_t)n, size_max);
}

uint32_t wire_lost(struct wire *w)
{
	struct tpacket_stats stats = {0};
	socklen_t size = sizeof(stats);

	if (getsockopt(w->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) < 0)
		return 0;
	return stats.tp_drops;
}
