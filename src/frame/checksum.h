/*
 * Partial checksums: virtual devices hand over TCP and UDP whose checksum field holds only the
 * pseudo-header's sum (CHECKSUM_PARTIAL of the kernel's include/linux/skbuff.h), for hardware
 * that is not there to complete.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Completes the checksum of the Ethernet frame at data when its field holds just the folded,
 * not complemented sum of the pseudo-header; true: it did. Sees TCP and UDP over IPv4 (with
 * options) and IPv6 (through hop-by-hop, routing and destination options), behind at most two VLAN
 * tags. A correct checksum, a fragment, a truncated or malformed packet stays as it is. Reads the
 * payload only where the field matches. */
bool checksum_complete(uint8_t *data, uint32_t len);

/* What a device has to know to complete a partial checksum by itself. */
struct checksum_place {
	uint32_t l2_len; /* bytes before the IP header */
	uint32_t l3_len; /* bytes of the IP header, with options */
	uint8_t version; /* of IP */
	uint8_t proto;	 /* IPPROTO_TCP or IPPROTO_UDP */
};

/* Whether the checksum field holds just the pseudo-header's sum, so that a device can complete it:
 * the same packets as above, but for IPv6 with extension headers. The payload is not read: one
 * correct checksum in 65536 looks partial, and is correct again when the device is done. */
bool checksum_is_partial(uint8_t *data, uint32_t len, struct checksum_place *ret_place);
