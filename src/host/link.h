/*
 * What a network device is, read fresh from the kernel at each call: nothing is cached.
 *
 * Everything is of the network namespace of the calling thread, by netlink and ethtool ioctls;
 * sysfs shows the namespace it was mounted in and is used only for PCI facts.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

enum host_xdp { HOST_XDP_NONE, HOST_XDP_DRIVER, HOST_XDP_SKB, HOST_XDP_HARDWARE, HOST_XDP_MULTI };

struct host_link {
	uint32_t ifindex;
	char name[16];	 /* as it is called now; IFNAMSIZ */
	char kind[32];	 /* rtnetlink's: "veth", "tun", "bridge"; empty for a NIC */
	char driver[32]; /* ethtool's: "virtio_net", "igb"; empty when there is none to ask */
	char pci[32];	 /* "0000:03:00.0", or empty */
	uint8_t mac[6];	 /* of an Ethernet device, else zero */
	bool ethernet;	 /* ARPHRD_ETHER (lo counts not) */
	bool loopback;
	bool up;		 /* administratively: IFF_UP */
	bool carrier;		 /* has a link: IFF_LOWER_UP */
	uint8_t operstate;	 /* IF_OPER_UP and so on, linux/if.h */
	uint32_t mtu;		 /* bytes */
	uint32_t rx_queues;	 /* in use now (ethtool -l); at least 1 */
	uint32_t tx_queues;	 /* likewise */
	uint32_t rx_queues_max;	 /* that it could have */
	uint32_t tx_queues_max;	 /* likewise */
	int numa_node;		 /* -1: none known */
	enum host_xdp xdp;	 /* how a program is attached already */
	uint32_t xdp_program_id; /* its id, 0: none */
	uint32_t master;	 /* ifindex of the bridge or bond it is in; 0: none */
};

/* By name, alternative names too. -ENODEV: no such device, with the reason. */
int host_link_get(const char *name, struct host_link *ret_link, struct reason *ret_reason);
int host_link_get_index(uint32_t ifindex, struct host_link *ret_link, struct reason *ret_reason);

/* "driver", "skb", ...: the words of `ip link`. */
const char *host_xdp_name(enum host_xdp xdp);
/* "up", "down", "lowerlayerdown", ...: the kernel's words for operstate. */
const char *host_operstate_name(uint8_t operstate);

/* Brings it up or down. -EPERM with the reason without CAP_NET_ADMIN. */
int host_link_set_up(uint32_t ifindex, bool up, struct reason *ret_reason);
