/* The life of a DPDK port: plugged in, configured, its queues dealt to the workers; and back. */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "engine/dpdk/arguments.h"
#include "engine/dpdk/dpdk.h"
#include "engine/dpdk/eal.h"
#include "engine/dpdk/internal.h"
#include "engine/dpdk/mbufs.h"
#include "engine/dpdk/peer.h"
#include "engine/dpdk/slots.h"
#include "engine/dpdk/wanted.h"

#define RING_DEFAULT 2048 /* descriptors */
#define TX_CHECKSUMS (RTE_ETH_TX_OFFLOAD_TCP_CKSUM | RTE_ETH_TX_OFFLOAD_UDP_CKSUM)
/* net_tap's receive descriptors are pieces of one frame, each read with all of them. */
#define TAP_RX_RING 16
/* Two VLAN tags. */
#define TAGS_SIZE 8
/* What precedes the frame in a slot of a packet socket's ring: TPACKET2_HDRLEN and the room for a
 * link-layer header, aligned (net/packet/af_packet.c, tpacket_rcv). */
#define PACKET_RING_OVERHEAD 66
/* From the driver's word that the peer is gone until the port is closed: meanwhile it tidies up in
 * a thread of its own, and must not be asked again (virtio_user_dev.c, delayed disconnect). */
#define PEER_GONE_NS 250000000ULL
/* Time for a peer that listens to answer. */
#define PEER_ANSWER_NS 2000000000ULL

/* Of ports that can't have the shared memory: each sends the others' frames as they are. */
static const char memory_of_all[] = "mbufs";

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ULL + (uint64_t)t.tv_nsec;
}

static bool claims(const char *device)
{
	return strncmp(device, "dpdk:", 5) == 0;
}

static int check(const struct port_settings *s, struct dpdk_device *ret_device, struct reason *r)
{
	if (s->mode != PORT_MODE_AUTO && s->mode != PORT_MODE_DPDK)
		return reason_set(r, -EINVAL, "leave out mode", "a DPDK port has no mode %s",
			port_mode_name(s->mode));
	return device_parse(s->device, ret_device, r);
}

static int probe(const struct port_settings *s, enum port_mode *ret_mode, struct reason *ret_reason)
{
	struct dpdk_device d;
	int err = check(s, &d, ret_reason);

	if (err)
		return err;
	*ret_mode = PORT_MODE_DPDK;
	if (!d.pci && !arguments_known(d.name))
		reason_set(ret_reason, 0, "is one of these meant: " ARGUMENTS_DRIVERS "?",
			"whether DPDK has a driver for %s is seen when it is opened", d.name);
	return 0;
}

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

/* The port's MTU: the network device's, the one asked for, or the driver's. */
static int choose_mtu(struct dpdk_port *p, uint32_t *ret_mtu, struct reason *r)
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
			d->frame_size > PACKET_RING_OVERHEAD + RTE_ETHER_HDR_LEN + TAGS_SIZE
				? d->frame_size - PACKET_RING_OVERHEAD - RTE_ETHER_HDR_LEN -
					  TAGS_SIZE
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

/* One try, with receive interrupts or without. */
static int bring_up(struct dpdk_port *p, const struct port_settings *s, uint32_t mtu, uint32_t room,
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

static void find_wait_fds(struct dpdk_port *p)
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

/* A network device is held so by a socket, which also a crash lets go of. */
static void promiscuous(struct dpdk_port *p)
{
	struct packet_mreq membership = {.mr_type = PACKET_MR_PROMISC};
	int err;

	if (!p->device.iface[0]) {
		eal_listen(); /* virtual devices have no such mode */
		err = rte_eth_promiscuous_enable(p->port_id);
		eal_listen_end();
		if (err && p->device.pci)
			log_warn("port %s: %s may not be promiscuous (%s): it gets frames to its "
				 "own address only; of a virtual function: `ip link set DEVICE vf "
				 "NUMBER trust on`",
				p->base.name, p->device.name, strerror(-err));
		return;
	}
	membership.mr_ifindex = (int)p->ifindex;
	p->promiscuous_fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	err = p->promiscuous_fd < 0
		      ? -1
		      : setsockopt(p->promiscuous_fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP,
				&membership, sizeof(membership));
	if (err < 0)
		log_warn("port %s: %s can't be made promiscuous (%s): it gets frames to its own "
			 "address only; `ip link set %s promisc on`",
			p->base.name, p->device.iface, strerror(errno), p->device.iface);
}

static int make_queues(struct dpdk_port *p, const struct port_settings *s, const struct memory *m,
	struct reason *r)
{
	uint32_t n = s->queues ? s->queues : p->info.max_rx_queues;

	if (!s->queues && n > m->n_pools)
		n = m->n_pools; /* a virtual device has up to 1024 of them, and no use for more */
	if (n > p->info.max_rx_queues || n > p->info.max_tx_queues)
		return reason_set(r, -EINVAL,
			"fewer `workers:` or `queues:`, or more in its arguments: qpairs=N "
			"(net_af_packet), queues=N (net_vhost, net_virtio_user, net_memif)",
			"%s has %u queue%s, not %u", p->device.name,
			RTE_MIN(p->info.max_rx_queues, p->info.max_tx_queues),
			RTE_MIN(p->info.max_rx_queues, p->info.max_tx_queues) == 1 ? "" : "s", n);
	p->queues = calloc(n, sizeof(p->queues[0]));
	p->queue_list = calloc(n, sizeof(p->queue_list[0]));
	if (!p->queues || !p->queue_list)
		return reason_set(r, -ENOMEM, NULL, "%s: out of memory", p->device.name);
	for (uint32_t i = 0; i < n; i++) {
		struct dpdk_queue *q = &p->queues[i];

		*q = (struct dpdk_queue){
			.base =
				{
					.ops = &dpdk_queue_ops,
					.port = &p->base,
					.idx = i,
					.worker = i % m->n_pools,
					.complete_checksums = s->complete_checksums,
				},
			.port_id = p->port_id,
			.wait_fd = -1,
		};
		p->queue_list[i] = &q->base;
	}
	p->base.queues = p->queue_list;
	p->base.n_queues = n;
	return 0;
}

/* What the operator should know of drivers that have a better one beside them. */
static void note_driver(struct dpdk_port *p)
{
	if (strncmp(p->device.name, "net_af_packet", 13) == 0)
		reason_set(&p->base.step_down, 0, NULL,
			"packet sockets reassemble IPv4 fragments (and then drop what is longer "
			"than the MTU) and make 802.1ad tags 802.1Q; AF_XDP doesn't: write device: "
			"%s",
			p->device.iface);
	else if (strncmp(p->device.name, "net_af_xdp", 10) == 0)
		reason_set(&p->base.step_down, 0, NULL,
			"culvert's own AF_XDP is faster: write device: %s", p->device.iface);
}

static void note_memory(struct dpdk_port *p)
{
	struct reason *r = &p->base.step_down;
	size_t at = strlen(r->what);

	if (p->own_memory)
		snprintf(r->what + at, sizeof(r->what) - at,
			"%smbufs of its own (%s): frames to and from ports without are copied",
			at ? "; " : "", p->own_memory);
}

static int set_up(struct dpdk_port *p, const struct port_settings *s, const struct memory *m,
	struct reason *r)
{
	uint32_t mtu, room, frame_len_max;
	bool interrupts = !s->busy;
	int err;

	err = rte_eth_dev_info_get(p->port_id, &p->info);
	if (err)
		return reason_set(r, err, NULL, "%s says nothing of itself", p->device.name);
	p->ifindex = if_nametoindex(p->device.iface); /* 0 without one */
	if ((err = make_queues(p, s, m, r)) || (err = choose_mtu(p, &mtu, r)))
		return err;
	frame_len_max = mtu + RTE_ETHER_HDR_LEN + TAGS_SIZE;
	room = p->device.frame_size > frame_len_max ? p->device.frame_size : frame_len_max;
	for (uint32_t i = 0; i < p->base.n_queues; i++)
		p->queues[i].base.frame_len_max = frame_len_max;
	err = bring_up(p, s, mtu, room, interrupts, r);
	if (err && interrupts)
		err = bring_up(p, s, mtu, room, false, r);
	if (err)
		return err;
	if (interrupts)
		find_wait_fds(p);
	promiscuous(p);
	note_driver(p);
	note_memory(p);
	eal_listen();
	err = dpdk_counters_make(p);
	eal_listen_end();
	return err ? reason_set(r, err, NULL, "%s: out of memory", p->device.name) : 0;
}

/* net_af_xdp forgets what lies in its fill ring (DPDK 22.11, rte_eth_af_xdp.c, eth_dev_close). */
static bool keeps_mbufs(const struct dpdk_port *p)
{
	return strncmp(p->device.name, "net_af_xdp", 10) == 0;
}

/* The port is unplugged first, then its mbufs are given back. */
static void port_free(struct dpdk_port *p, bool plugged)
{
	uint64_t lost = 0;

	if (plugged) {
		if (p->device.pci)
			wanted_forget(p->device.name, &p->wanted);
		device_unplug(p->port_id);
		peer_unplugged(&p->device);
	}
	for (uint32_t i = 0; p->queues && i < p->base.n_queues; i++) {
		struct dpdk_queue *q = &p->queues[i];

		if (q->slots)
			lost += slots_release(q->slots, q->n_mbufs);
		else if (q->mbufs)
			lost += mbufs_release(q->mbufs, q->n_mbufs, keeps_mbufs(p));
	}
	if (lost)
		log_error("port %s: %llu mbufs did not come back", p->base.name,
			(unsigned long long)lost);
	if (p->promiscuous_fd >= 0)
		close(p->promiscuous_fd);
	free(p->xstat_names);
	free(p->xstats);
	free(p->queues);
	free(p->queue_list);
	free(p);
}

/* Control is about to take and give what is the port's. */
static void use_pools(struct dpdk_port *p)
{
	for (uint32_t i = 0; i < p->base.n_queues; i++) {
		if (p->queues[i].slots)
			slots_use(p->queues[i].slots, p->queues[i].base.pool);
	}
}

/* Drivers know no way to let nothing more in and keep what is there: what comes after this, before
 * the device is closed, is the device's to count. */
static void stop_port(struct port *base)
{
	struct dpdk_port *p = (struct dpdk_port *)base;

	use_pools(p);
	for (uint32_t i = 0; i < p->base.n_queues; i++)
		queue_drop_waiting(&p->queues[i].base, p->queues[i].rx_ring);
}

static void close_port(struct port *base)
{
	struct dpdk_port *p = (struct dpdk_port *)base;

	if (!p)
		return;
	use_pools(p);
	port_free(p, true);
}

static int open_port(const struct port_settings *s, const struct memory *m, struct port **ret_port,
	struct reason *ret_reason)
{
	struct dpdk_port *p = calloc(1, sizeof(*p));
	struct reason why = {0}, again;
	bool plugged = false;
	int err;

	if (!p)
		return reason_set(ret_reason, -ENOMEM, NULL, "%s: out of memory", s->device);
	p->promiscuous_fd = -1;
	p->memory = m;
	p->base.engine = &dpdk_engine;
	p->base.mode = PORT_MODE_DPDK;
	snprintf(p->base.name, sizeof(p->base.name), "%s", s->name);
	snprintf(p->base.device, sizeof(p->base.device), "%s", s->device);
	err = check(s, &p->device, &why);
	if (!err)
		err = eal_start(m->n_pools, 0, &why);
	if (!err)
		err = device_plug(&p->device, &p->port_id, &why);
	plugged = !err;
	if (!err && p->device.pci && wanted_watch(p->device.name, &p->wanted) < 0)
		log_warn("port %s: who unbinds or unplugs %s has to wait until it is detached: "
			 "out of memory",
			s->name, p->device.name);
	if (!err)
		err = set_up(p, s, m, &why);
	if (!err) {
		p->opened_ns = now_ns();
		p->base.link_comes = p->device.pci;
		*ret_port = &p->base;
		return 0;
	}
	/* Perhaps it went just then. */
	if (p->device.peer[0] && peer_check(&p->device, &again) == -ENOTCONN) {
		err = -ENOTCONN;
		why = again;
	}
	port_free(p, plugged);
	if (ret_reason)
		*ret_reason = why;
	return err;
}

static int memory_take(const char *const *devices, uint32_t n_devices, size_t size,
	uint32_t n_pools, void **ret_base, bool *ret_huge, struct reason *r)
{
	int node = -1, err = eal_start(n_pools, size, r);

	if (err)
		return err;
	for (uint32_t i = 0; i < n_devices && node < 0; i++)
		node = device_numa_node(devices[i]);
	*ret_base = slots_memory_take(size, node);
	*ret_huge = eal_has_huge_pages();
	return *ret_base ? 0 : reason_set(r, -ENOMEM, NULL, "DPDK has no %zu MiB", size >> 20);
}

static uint32_t ifindex(const struct port *base)
{
	return ((const struct dpdk_port *)base)->ifindex;
}

/* Drivers that connect to their peer do so once: when it is gone, only opening them again helps. */
static int link_of(struct port *base)
{
	struct dpdk_port *p = (struct dpdk_port *)base;
	struct rte_eth_link link = {0};
	int up;

	if (atomic_load_explicit(&p->wanted, memory_order_relaxed))
		return -ENODEV;
	if (p->lost_ns && now_ns() - p->lost_ns < PEER_GONE_NS)
		return 0;
	if (p->lost_ns)
		return p->was_up ? -ENOTCONN : -ETIMEDOUT;
	eal_listen(); /* some complain of a peer that is gone, each time */
	up = rte_eth_link_get_nowait(p->port_id, &link) < 0 /* it does not know */ ||
	     link.link_status == RTE_ETH_LINK_UP;
	eal_listen_end();
	p->was_up = p->was_up || up;
	if (!up && p->device.peer[0] && (p->was_up || now_ns() - p->opened_ns > PEER_ANSWER_NS))
		p->lost_ns = now_ns();
	return up;
}

const struct engine_ops dpdk_engine = {
	.name = "dpdk",
	.claims = claims,
	.probe = probe,
	.open = open_port,
	.may_hang = true,
	.stop = stop_port,
	.close = close_port,
	.memory_take = memory_take,
	.memory_give = slots_memory_give,
	.counters = dpdk_counters,
	.ifindex = ifindex,
	.link = link_of,
	.describe = device_describe,
};
