/* What the engine reads of a network device; it changes nothing there. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

struct device {
	char name[64];
	char driver[32]; /* ethtool's name of it; "" where it tells none */
	uint32_t kernel; /* KERNEL_VERSION of the running one, whose driver it is; 0: not known */
	uint32_t ifindex;
	uint32_t mtu; /* bytes */
	uint8_t mac[6];
	bool up;
	bool ethernet; /* its frames begin with an Ethernet header */
	uint32_t rx_queues;
};

/* name: the interface's, or an alternative one of it. ret_device->name is its own. */
int device_read(const char *name, struct device *ret_device, struct reason *r);

/* features.c: enum netdev_xdp_act of linux/netdev.h. */
#define XDP_FEATURES_FORWARD  0x3ULL /* basic actions and redirect */
#define XDP_FEATURE_TARGET    0x4ULL /* frames can be redirected to it */
#define XDP_FEATURE_ZERO_COPY 0x8ULL
#define XDP_FEATURE_RX_FRAGS  0x20ULL
int device_xdp_features(uint32_t ifindex, uint64_t *ret_features);

/* quirks.c: what is known of a driver and can't be asked of the kernel. */
struct quirk {
	const char *driver;
	uint32_t mtu_native; /* largest MTU for native XDP without frags, 4 KiB pages; 0: unknown */
	bool zero_copy;	     /* some kernel has zero-copy for it */
	uint32_t zero_copy_since; /* KERNEL_VERSION of the first; 0: all that have AF_XDP for us */
	/* The peer's TSO makes frames that fit into no slot, unless native XDP without frags
	 * makes the kernel cut them. */
	bool long_from_peer;
	uint32_t zero_copy_slot; /* smallest slot that works with zero-copy, bytes; 0: any */
	const char *note;	 /* when native XDP or zero-copy is refused; may be NULL */
	const char *remedy;	 /* %s: the device; may be NULL */
};
/* Never NULL. */
const struct quirk *quirk_of(const char *driver);
/* The driver is known to have zero-copy, but only in later kernels than this one. */
bool quirk_zero_copy_is_later(const struct device *d);
