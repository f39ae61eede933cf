/* The driver's counters: the basic ones under names of ours, the extended ones under its own. */
#include <dirent.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/dpdk/internal.h"
#include "engine/dpdk/slots.h"

/* The driver's, one a queue: it does not ask them what the kernel dropped (DPDK 22.11,
 * rte_eth_af_packet.c, eth_stats_get). */
static void find_packet_sockets(struct dpdk_port *p)
{
	DIR *fds = p->ifindex ? opendir("/proc/self/fd") : NULL;
	const struct dirent *e;

	while (fds && (e = readdir(fds))) {
		struct sockaddr_ll at = {0};
		socklen_t size = sizeof(at);
		int fd = atoi(e->d_name);

		if (fd > STDERR_FILENO && p->n_packet_fds < RTE_DIM(p->packet_fds) &&
			getsockname(fd, (struct sockaddr *)&at, &size) == 0 &&
			at.sll_family == AF_PACKET && at.sll_ifindex == (int)p->ifindex)
			p->packet_fds[p->n_packet_fds++] = fd;
	}
	if (fds)
		closedir(fds);
}

/* The kernel forgets what it told. */
static uint64_t packet_drops(struct dpdk_port *p)
{
	for (uint32_t i = 0; i < p->n_packet_fds; i++) {
		struct tpacket_stats s = {0};
		socklen_t size = sizeof(s);

		if (getsockopt(p->packet_fds[i], SOL_PACKET, PACKET_STATISTICS, &s, &size) == 0)
			p->packet_drops += s.tp_drops;
	}
	return p->packet_drops;
}

int dpdk_counters_make(struct dpdk_port *p)
{
	int n = rte_eth_xstats_get_names(p->port_id, NULL, 0);

	find_packet_sockets(p);
	if (n <= 0)
		return 0; /* a driver without */
	p->xstat_names = calloc((size_t)n, sizeof(p->xstat_names[0]));
	p->xstats = calloc((size_t)n, sizeof(p->xstats[0]));
	if (!p->xstat_names || !p->xstats)
		return -ENOMEM;
	if (rte_eth_xstats_get_names(p->port_id, p->xstat_names, (unsigned int)n) == n)
		p->n_xstats = (uint32_t)n;
	return 0;
}

/* Extended names that say again what the basic ones say, which come first in every driver's list
 * (rte_ethdev.c, eth_dev_stats_strings), or by queue what ours count. */
static bool is_repeated(const char *name)
{
	static const char *const basic[] = {"rx_good_packets", "tx_good_packets", "rx_good_bytes",
		"tx_good_bytes", "rx_missed_errors", "rx_errors", "tx_errors",
		"rx_mbuf_allocation_errors", NULL};

	for (int i = 0; basic[i]; i++) {
		if (strcmp(name, basic[i]) == 0)
			return true;
	}
	return strncmp(name, "rx_q", 4) == 0 || strncmp(name, "tx_q", 4) == 0;
}

static uint32_t extended(
	const struct dpdk_port *p, struct engine_counter *ret, uint32_t at, uint32_t n)
{
	int got = p->n_xstats ? rte_eth_xstats_get(p->port_id, p->xstats, p->n_xstats) : 0;

	for (int i = 0; i < got && (uint32_t)got <= p->n_xstats && at < n; i++) {
		const struct rte_eth_xstat *x = &p->xstats[i];

		if (x->value && x->id < p->n_xstats && !is_repeated(p->xstat_names[x->id].name))
			ret[at++] = (struct engine_counter){
				.name = p->xstat_names[x->id].name, .value = x->value};
	}
	return at;
}

/* The device's counters are shown with its first queue. */
uint32_t dpdk_counters(
	const struct port *base, uint32_t queue, struct engine_counter *ret, uint32_t n)
{
	struct dpdk_port *p = (struct dpdk_port *)base;
	const struct dpdk_queue *q;
	struct rte_eth_stats s = {0};
	uint32_t i = 0;

	if (queue >= base->n_queues)
		return 0;
	q = &p->queues[queue];
	if (queue == 0)
		rte_eth_stats_get(p->port_id, &s);
	const struct engine_counter all[] = {
		{"mbufs", q->mbufs->size, true},
		{"mbufs_in_use",
			q->slots ? slots_in_use(q->slots) : rte_mempool_in_use_count(q->mbufs),
			true},
		{"rx_scattered", counter_read(&q->rx_scattered)},
		{"rx_packets", s.ipackets},
		{"tx_packets", s.opackets},
		{"rx_ring_full", s.imissed + (queue == 0 ? packet_drops(p) : 0)},
		{"rx_errors", s.ierrors},
		{"tx_errors", s.oerrors},
		{"rx_no_mbuf", s.rx_nombuf},
	};
	uint32_t n_all = queue == 0 ? sizeof(all) / sizeof(all[0]) : 3;

	for (; i < n && i < n_all; i++)
		ret[i] = all[i];
	return queue == 0 ? extended(p, ret, i, n) : i;
}
