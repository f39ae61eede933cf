/*
 * Arguments of DPDK's virtual devices: some drivers pass over what they don't know, and others say
 * so only once their peer is there. Inside engine/dpdk/ only.
 */
#pragma once

#include <stdbool.h>

#include "base/reason.h"

/* Those that are known here. */
#define ARGUMENTS_DRIVERS                                                                     \
	"net_af_packet, net_tap, net_memif, net_virtio_user, net_vhost, net_pcap, net_null, " \
	"net_ring, net_af_xdp"

/* Of the device `name`, one argument, "iface=eth0": 0, or -EINVAL with the reason. What a driver
 * that is not known here has is its own matter. */
int argument_check(const char *name, const char *argument, struct reason *r);
/* Is it one of the drivers whose arguments are known here? */
bool arguments_known(const char *name);
