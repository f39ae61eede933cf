/* The addresses of a device, and which devices carry a default route. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/reason.h"

struct host_address {
	uint8_t family;	    /* AF_INET or AF_INET6 */
	uint8_t prefix_len; /* bits */
	uint8_t bytes[16];  /* network order; IPv4 is the first four, the rest is zero */
};

/* The device's own addresses (not its peer's), in an array that the caller frees; NULL when
 * there are none. */
int host_addresses_get(uint32_t ifindex, struct host_address **ret_addresses, size_t *ret_n,
	struct reason *ret_reason);

/* ifindexes of the devices that carry an IPv4 or IPv6 default route, in any table, every next
 * hop; each once; the caller frees. */
int host_default_routes(uint32_t **ret_ifindexes, size_t *ret_n, struct reason *ret_reason);
