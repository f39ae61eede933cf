/* Test frames of every kind, from a seed: sender and checker craft the same bytes. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define CRAFT_SIZE_MAX 4096u

enum craft_kind {
	CRAFT_ARP,
	CRAFT_IPV4_UDP,
	CRAFT_IPV4_UDP_NO_CHECKSUM,
	CRAFT_IPV4_TCP,
	CRAFT_IPV4_TCP_BAD_CHECKSUM,
	CRAFT_IPV4_OPTIONS,
	CRAFT_IPV4_FRAGMENT,
	CRAFT_IPV4_CUT, /* the header promises more than the frame has */
	CRAFT_IPV4_BAD_VERSION,
	CRAFT_IPV6_UDP,
	CRAFT_IPV6_EXTENSIONS,
	CRAFT_IPV6_CUT,
	CRAFT_VLAN_IPV4,
	CRAFT_VLAN_DOUBLE_IPV6,
	CRAFT_VLAN_UNKNOWN,
	CRAFT_MULTICAST_IPV4,
	CRAFT_MULTICAST_IPV6,
	CRAFT_BROADCAST,
	CRAFT_UNKNOWN_TYPE,
	CRAFT_LINK_LOCAL, /* 01:80:c2:00:00:0e: bridges keep it, a patch doesn't */
	CRAFT_LLC,	  /* a length where the type would be */
	CRAFT_MPLS,
	CRAFT_KINDS
};

const char *craft_name(enum craft_kind k);
/* The shortest frame of the kind that the kernel on either side lets pass. */
uint32_t craft_size_min(enum craft_kind k);
/* Writes size bytes (at most CRAFT_SIZE_MAX) at buf; src is the sender's address, 6 bytes. */
void craft(enum craft_kind k, uint32_t size, uint64_t seed, const uint8_t *src, uint8_t *buf);
/* A UDP frame of one flow: src and dst ports say the flow, the payload begins with its number. */
void craft_flow(uint32_t flow, uint64_t number, uint32_t size, const uint8_t *src, uint8_t *buf);
/* Where craft_flow puts the flow (4 bytes) and the number (8 bytes). */
#define CRAFT_FLOW_AT 42u
