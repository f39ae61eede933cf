/*
 * The other end of memif and vhost-user devices: a socket where it listens, or where we do.
 * Inside engine/dpdk/ only.
 */
#pragma once

#include <stdbool.h>

#include "base/reason.h"
#include "engine/dpdk/device.h"

/* Reads from the device's arguments whose socket it is. 0, -EINVAL with the reason. */
int peer_parse(struct dpdk_device *d, struct reason *r);
/* Does somebody listen where this device will connect? 0 (also when none is needed, or it can't be
 * told), -ENOTCONN with the reason. */
int peer_check(const struct dpdk_device *d, struct reason *r);
/* Makes way where this device will listen: removes what a dead process left. 0, -EBUSY with the
 * reason: somebody listens there (net_vhost would take it from them). */
int peer_take_socket(const struct dpdk_device *d, struct reason *r);
/* After plugging it, and after unplugging it: closes the socket that its driver forgets. */
void peer_plugged(const struct dpdk_device *d);
void peer_unplugged(const struct dpdk_device *d);
