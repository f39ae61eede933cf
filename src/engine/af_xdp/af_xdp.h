/* engine_ops.host_addresses of this engine. */
#pragma once

#include <stddef.h>

#include "base/reason.h"
#include "culvert/abi.h"

struct port;

/* Replaces the addresses of the device that stay with the kernel (keep_host): new ones are added
 * before old ones go, so an address in both lists is never missing. Also reads the device's MAC
 * address again. At most CULVERT_HOST_ADDRESSES_MAX (-E2BIG: the first ones are kept). p must be a
 * port opened by this engine; frames may be passing. */
int af_xdp_host_addresses(struct port *p, const struct culvert_host_address *addresses, size_t n,
	struct reason *ret_reason);
