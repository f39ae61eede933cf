/* What the files of engine/dpdk/ share of a port. */
#pragma once

#include <rte_ethdev.h>
#include <stdatomic.h>

#include "engine/dpdk/device.h"
#include "engine/engine.h"

struct rte_mempool;
struct slots;

struct dpdk_queue {
	struct queue base; /* first */
	uint16_t port_id;
	struct rte_mempool *mbufs;
	struct slots *slots; /* whose mempool it is; NULL: one of mbufs.h */
	uint32_t n_mbufs;    /* reserved there */
	uint32_t rx_ring;    /* descriptors */
	/* Waiting: a descriptor, and whether the device must be told to make it readable. */
	int wait_fd; /* -1: poll only */
	bool is_eventfd;
	uint32_t n_empty; /* receive calls in a row without a frame */
	/* Frames the driver handed over in pieces that no mbuf of ours can hold; the worker counts.
	 */
	struct counter rx_scattered;
};

struct dpdk_port {
	struct port base; /* first */
	struct dpdk_device device;
	const struct memory *memory;
	const char *own_memory; /* why its mbufs are DPDK's own; NULL: they are slots */
	uint16_t port_id;
	struct rte_eth_dev_info info;
	uint32_t ifindex;
	int promiscuous_fd; /* a packet socket that holds the network device so; -1: none */
	struct dpdk_queue *queues;
	struct queue **queue_list;
	struct rte_eth_xstat_name *xstat_names; /* [n_xstats] */
	struct rte_eth_xstat *xstats;		/* likewise, room to read them */
	uint32_t n_xstats;
	/* Of a device that connects to its peer, ns on the monotonic clock: when it was opened, and
	 * since when it has lost it (0: it hasn't). Control's. */
	uint64_t opened_ns, lost_ns;
	bool was_up;
	/* A PCI device that must be let go. Written by a thread of EAL's, read by control. */
	atomic_bool wanted;
	/* net_af_packet's sockets, and what the kernel dropped at them. Control's. */
	int packet_fds[16];
	uint32_t n_packet_fds;
	uint64_t packet_drops;
};

extern const struct queue_ops dpdk_queue_ops;

/* Two VLAN tags. */
#define DPDK_TAGS_SIZE 8

/* configure.c */
/* The port's MTU: the network device's, the one asked for, or the driver's. */
int dpdk_choose_mtu(struct dpdk_port *p, uint32_t *ret_mtu, struct reason *r);
/* One try to configure and start it, with receive interrupts or without; its queues keep what they
 * got for the next. room: bytes of a buffer that the longest frame takes. */
int dpdk_bring_up(struct dpdk_port *p, const struct port_settings *s, uint32_t mtu, uint32_t room,
	bool interrupts, struct reason *r);
/* Of a port that was started with interrupts. */
void dpdk_find_wait_fds(struct dpdk_port *p);

/* counters.c */
int dpdk_counters_make(struct dpdk_port *p);
uint32_t dpdk_counters(
	const struct port *base, uint32_t queue, struct engine_counter *ret, uint32_t n);
