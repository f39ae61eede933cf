/* The life of a DPDK port: plugged in, brought up, its queues dealt to the workers; and back. */
#include <errno.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <rte_ethdev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* From the driver's word that the peer is gone until the port is closed: meanwhile it tidies up in
 * a thread of its own, and must not be asked again (virtio_user_dev.c, delayed disconnect). */
#define PEER_GONE_NS 250000000ULL
/* Of the drivers whose arguments say how many they have. */
#define MORE_QUEUES                                                                      \
	"give it more in its arguments: qpairs=N (net_af_packet), queues=N (net_vhost, " \
	"net_virtio_user, net_memif)"
/* Time for a peer that listens to answer. */
#define PEER_ANSWER_NS 2000000000ULL

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
	struct dpdk_device d = {0};
	int err = check(s, &d, ret_reason);

	if (err)
		return err;
	*ret_mode = PORT_MODE_DPDK;
	if (!d.pci && !arguments_known(d.name))
		reason_set(ret_reason, 0, "is one of these meant: " ARGUMENTS_DRIVERS "?",
			"whether DPDK has a driver for %s is seen when it is opened", d.name);
	return 0;
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
		return reason_set(r, -EINVAL, "fewer `workers:` or `queues:`, or " MORE_QUEUES,
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
	if ((err = make_queues(p, s, m, r)) || (err = dpdk_choose_mtu(p, &mtu, r)))
		return err;
	frame_len_max = mtu + RTE_ETHER_HDR_LEN + DPDK_TAGS_SIZE;
	room = p->device.frame_size > frame_len_max ? p->device.frame_size : frame_len_max;
	for (uint32_t i = 0; i < p->base.n_queues; i++)
		p->queues[i].base.frame_len_max = frame_len_max;
	err = dpdk_bring_up(p, s, mtu, room, interrupts, r);
	if (err && interrupts)
		err = dpdk_bring_up(p, s, mtu, room, false, r);
	if (err)
		return err;
	if (interrupts)
		dpdk_find_wait_fds(p);
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
	.more_queues = MORE_QUEUES,
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
