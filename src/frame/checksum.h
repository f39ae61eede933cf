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
