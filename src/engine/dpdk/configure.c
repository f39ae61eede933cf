/* What a port asks of its driver, and what its queues get: MTU, offloads, rings, slots, descriptors
 * to wait at. */
#include <errno.h>
#include <net/if.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/dpdk/dpdk.h"
#include "engine/dpdk/eal.h"
#include "engine/dpdk/internal.h"
#include "engine/dpdk/mbufs.h"
#include "engine/dpdk/slots.h"

#define RING_DEFAULT 2048 /* descriptors */
#define TX_CHECKSUMS (RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)
/* net_tap's receive descriptors are pieces of one frame, each read with all of them. */
#define TAP_RX_RING 16
/* What precedes the frame in a slot of a packet socket's ring: TPACKET2_HDRLEN and the room for a
 * link-layer header, aligned (net/packet/af_packet.c, tpacket_rcv). */
#define PACKET_RING_OVERHEAD 66

/* Of ports that can't have the shared memory: each sends the others' frames as they are. */
static const char memory_of_all[] = "mbufs";

/* The MTU of the network device beneath; 0: none, or not to be read. */
static uint32_t netdev_mtu(const char *iface)
{
	struct ifreq request = {0};
	uint32_t mtu = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", iface);
	if (fd >= 0 && ioctl(fd, SIOCGIFMTU, &request) == 0)
		mtu = (uint32_t)request.ifr_mtu;
	if (fd >= 0)
		close(fd);
	return mtu;
}

/* net_memif takes frames of any length, in pieces, but says that it has no more than 1518 bytes
 * (rte_eth_memif.c, memif_dev_info): it is not told of an MTU. */
static bool is_told_mtu(const struct dpdk_port *p)
{
	return p->device.mtu && strncmp(p->device.name, "net_memif", 9) != 0;
}

/* Some say it only as the length of a frame. */
static uint32_t mtu_max(const struct dpdk_port *p)
{
	const uint32_t overhead = RTE_ETHER_HDR_LEN + RTE_ETHER_CRC_LEN;
	uint32_t most = p->info.max_mtu;

	if (is_told_mtu(p) && p->info.max_rx_pktlen > overhead &&
		p->info.max_rx_pktlen - overhead < most)
		most = p->info.max_rx_pktlen - overhead;
	return most;
}

int dpdk_choose_mtu(struct dpdk_port *p, uint32_t *ret_mtu, struct reason *r)
{
	const struct dpdk_device *d = &p->device;
	uint16_t mtu = 0;

	rte_eth_dev_get_mtu(p->port_id, &mtu);
	*ret_mtu = mtu ? mtu : RTE_ETHER_MTU;
	if (d->iface[0]) {
		if (d->mtu)
			return reason_set(r, -EINVAL, "set it with `ip link set mtu`",
				"%s: its MTU is that of %s", d->name, d->iface);
		*ret_mtu = netdev_mtu(d->iface);
		if (*ret_mtu == 0)
			return reason_set(r, -ENODEV, NULL, "%s is gone", d->iface);
	} else if (d->mtu) {
		if (d->mtu > mtu_max(p) || d->mtu < p->info.min_mtu)
			return reason_set(r, -EINVAL, "another mtu=",
				"%s: its driver allows an MTU from %u to %u, not %u", d->name,
				p->info.min_mtu, mtu_max(p), d->mtu);
		*ret_mtu = d->mtu;
	}
	if (d->frame_size) {
		p->base.mtu_max =
			d->frame_size > PACKET_RING_OVERHEAD + RTE_ETHER_HDR_LEN + DPDK_TAGS_SIZE
				? d->frame_size - PACKET_RING_OVERHEAD - RTE_ETHER_HDR_LEN -
					  DPDK_TAGS_SIZE
				: 0;
		if (*ret_mtu > p->base.mtu_max)
			return reason_set(r, -EINVAL,
				"add framesz=16384,blocksz=16384,framecnt=256 to its arguments",
				"%s: frames of %s (MTU %u) do not fit its ring's slots of %u bytes",
				d->name, d->iface, *ret_mtu, d->frame_size);
	}
	return 0;
}

/* Hardware completes checksums, and so does net_tap. Another virtual device's peer would be told
 * that they are partial: not every peer listens. */
static bool offloads_checksums(const struct dpdk_port *p)
{
	return (p->device.pci || strcmp(p->info.driver_name, "net_tap") == 0) &&
	       (p->info.tx_offload_capa & TX_CHECKSUMS) == TX_CHECKSUMS;
}

static int configure(
	struct dpdk_port *p, const struct port_settings *s, uint32_t mtu, bool interrupts)
{
	/* Some drivers are slower with it: not where no partial checksum comes. */
	bool offload = s->partial_checksums && offloads_checksums(p);
	struct rte_eth_conf conf = {
		.rxmode.mtu = is_told_mtu(p) ? mtu : 0,
		.txmode.offloads = offload ? TX_CHECKSUMS : 0,
		.intr_conf.rxq = interrupts,
	};
	uint16_t n = (uint16_t)p->base.n_queues;
	uint64_t hashes = p->info.flow_type_rss_offloads &
			  (RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP);

	if (n > 1 && hashes) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = hashes;
	}
	for (uint16_t i = 0; i < n; i++)
		p->queues[i].base.offload_checksums = offload;
	return rte_eth_dev_configure(p->port_id, n, n, &conf);
}

static uint16_t ring_of(uint32_t asked)
{
	uint32_t n = asked ? asked : RING_DEFAULT;

	return n > UINT16_MAX ? UINT16_MAX : (uint16_t)n;
}

/* Why this driver can't have the shared memory: NULL, it can. */
static const char *needs_own_memory(const struct dpdk_port *p)
{
	const char *name = p->device.name, *arguments = p->device.devargs;
	bool from_eal = p->memory->engine == &dpdk_engine;

	/* The IOMMU is told of memory that EAL allocated. */
	if (p->device.pci && !from_eal)
		return "the device reaches only memory from before the ports";
	/* These register the memory of a mempool's objects, which are headers here
	 * (mlx5_mr_mempool_ register and the like). */
	if (strstr(p->info.driver_name, "mlx") || strstr(p->info.driver_name, "mana"))
		return "the device reaches no other";
	/* Tells its peer of memory that EAL allocated only (vhost_user.c, add_memory_region). */
	if (strncmp(name, "net_virtio_user", 15) == 0 && !from_eal)
		return "its peer is told only of memory from before the ports";
	/* It knows one region of frames, which is EAL's first (rte_eth_memif.c,
	 * memif_region_init_zc). */
	if (strncmp(name, "net_memif", 9) == 0 && strstr(arguments, "zero-copy=yes"))
		return "its peer is told of no other";
	/* Registers its mempool as UMEM, headers and all (rte_eth_af_xdp.c, xdp_umem_configure). */
	if (strncmp(name, "net_af_xdp", 10) == 0)
		return "its sockets have no other";
	return NULL;
}

/* Does the driver keep mbufs in its rings? Those of virtual devices copy, but for this one. */
static bool keeps_rings(const struct dpdk_port *p)
{
	return p->device.pci || strncmp(p->device.name, "net_virtio_user", 15) == 0;
}

/* n mbufs for a queue: slots of the shared memory, or where that can't be, mbufs of DPDK's own. */
static int reserve(
	struct dpdk_port *p, struct dpdk_queue *q, uint32_t room, uint32_t n, struct reason *r)
{
	uint32_t n_slots = keeps_rings(p) ? n : 2 * BATCH_SIZE;
	const char *why = needs_own_memory(p);
	int err = 0;

	if (!why)
		err = slots_reserve(&p->memory->pools[q->base.worker], room, n_slots, &q->slots);
	if (err == -EMSGSIZE)
		why = "its frames are longer than a slot";
	else if (err == -ENOBUFS)
		why = "too few slots are left: give more with `slots:`, or smaller rings";
	else if (err)
		why = "no memory for slots";
	q->n_mbufs = why ? n : n_slots;
	if (!why) {
		q->mbufs = q->slots->mempool;
		q->base.pool = &p->memory->pools[q->base.worker];
		q->base.memory = p->memory->base;
		return 0;
	}
	q->base.memory = memory_of_all;
	p->own_memory = why;
	return mbufs_reserve(
		q->base.worker, rte_eth_dev_socket_id(p->port_id), room, n, &q->mbufs, r);
}

static int setup_queue(struct dpdk_port *p, struct dpdk_queue *q, const struct port_settings *s,
	uint32_t room, struct reason *r)
{
	uint16_t n_rx = ring_of(s->rx_ring), n_tx = ring_of(s->tx_ring);
	int socket = rte_eth_dev_socket_id(p->port_id), err;

	if (strcmp(p->info.driver_name, "net_tap") == 0)
		n_rx = TAP_RX_RING;
	rte_eth_dev_adjust_nb_rx_tx_desc(p->port_id, &n_rx, &n_tx);
	q->rx_ring = n_rx;
	if (!q->mbufs) {
		uint32_t n = n_rx + n_tx + 2u * BATCH_SIZE;

		err = reserve(p, q, room, n, r);
		if (err)
			return err;
	}
	err = rte_eth_rx_queue_setup(p->port_id, (uint16_t)q->base.idx, n_rx, (unsigned int)socket,
		&p->info.default_rxconf, q->mbufs);
	if (!err)
		err = rte_eth_tx_queue_setup(p->port_id, (uint16_t)q->base.idx, n_tx,
			(unsigned int)socket, &p->info.default_txconf);
	return err;
}

int dpdk_bring_up(struct dpdk_port *p, const struct port_settings *s, uint32_t mtu, uint32_t room,
	bool interrupts, struct reason *r)
{
	const char *said;
	int err;

	eal_listen();
	reason_set(r, 0, NULL, "%s", "");
	err = configure(p, s, mtu, interrupts);
	for (uint32_t i = 0; !err && i < p->base.n_queues; i++)
		err = setup_queue(p, &p->queues[i], s, room, r);
	if (!err)
		err = rte_eth_dev_start(p->port_id);
	said = eal_listen_end();
	if (err && !r->what[0])
		err = reason_set(r, device_error(err, said), device_remedy(&p->device, said),
			"%s does not start: %s", p->device.name, *said ? said : strerror(-err));
	return err;
}

static bool is_a(int fd, const char *kind)
{
	char path[64], target[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n < 0)
		return false;
	target[n] = '\0';
	return strstr(target, kind) != NULL;
}

void dpdk_find_wait_fds(struct dpdk_port *p)
{
	eal_listen(); /* most drivers have none, and say so */
	for (uint32_t i = 0; i < p->base.n_queues; i++) {
		struct dpdk_queue *q = &p->queues[i];
		int fd = rte_eth_dev_rx_intr_ctl_q_get_fd(p->port_id, (uint16_t)i);

		/* net_vhost's collects events that nobody reads, and none that its peer sends with
		 * frames (rte_eth_vhost.c, eth_vhost_update_intr): it would never sleep again. */
		if (fd < 0 || is_a(fd, "[eventpoll]"))
			continue;
		q->is_eventfd = is_a(fd, "[eventfd]");
		if (!q->is_eventfd || rte_eth_dev_rx_intr_enable(p->port_id, (uint16_t)i) == 0)
			q->wait_fd = fd;
	}
	eal_listen_end();
}
