/* Addresses of this host on devices that stand on another: VLANs, bridges, bonds and their like. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

/* Does a device above ifindex, at any depth, have an address (other than IPv6 link-local)? Then
 * frames for it come in by ifindex and are for this host, though not by its own addresses: the
 * reason says so of the first one found. Tunnels don't count: their frames are for addresses of the
 * device below. false also when it can't be told. */
bool host_stacked(uint32_t ifindex, const char *name, struct reason *ret_reason);
