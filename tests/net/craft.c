/* Crafts frames: a header for the kind, seeded bytes behind it, checksums where the kind has them.
 */
#include "craft.h"

#include <arpa/inet.h>
#include <string.h>

static const char *const names[CRAFT_KINDS] = {
	[CRAFT_ARP] = "arp",
	[CRAFT_IPV4_UDP] = "ipv4-udp",
	[CRAFT_IPV4_UDP_NO_CHECKSUM] = "ipv4-udp-no-checksum",
	[CRAFT_IPV4_TCP] = "ipv4-tcp",
	[CRAFT_IPV4_TCP_BAD_CHECKSUM] = "ipv4-tcp-bad-checksum",
	[CRAFT_IPV4_OPTIONS] = "ipv4-options",
	[CRAFT_IPV4_FRAGMENT] = "ipv4-fragment",
	[CRAFT_IPV4_CUT] = "ipv4-cut",
	[CRAFT_IPV4_BAD_VERSION] = "ipv4-bad-version",
	[CRAFT_IPV6_UDP] = "ipv6-udp",
	[CRAFT_IPV6_EXTENSIONS] = "ipv6-extensions",
	[CRAFT_IPV6_CUT] = "ipv6-cut",
	[CRAFT_VLAN_IPV4] = "vlan-ipv4",
	[CRAFT_VLAN_DOUBLE_IPV6] = "vlan-double-ipv6",
	[CRAFT_VLAN_UNKNOWN] = "vlan-unknown",
	[CRAFT_MULTICAST_IPV4] = "multicast-ipv4",
	[CRAFT_MULTICAST_IPV6] = "multicast-ipv6",
	[CRAFT_BROADCAST] = "broadcast",
	[CRAFT_UNKNOWN_TYPE] = "unknown-type",
	[CRAFT_LINK_LOCAL] = "link-local",
	[CRAFT_LLC] = "llc",
	[CRAFT_MPLS] = "mpls",
};

const char *craft_name(enum craft_kind k)
{
	return names[k];
}

uint32_t craft_size_min(enum craft_kind k)
{
	switch (k) {
	case CRAFT_VLAN_IPV4:
	case CRAFT_VLAN_DOUBLE_IPV6:
	case CRAFT_VLAN_UNKNOWN: return 20; /* skb_vlan_untag() frees what is shorter */
	default: return 14;
	}
}

/* splitmix64: every seed gives a stream of its own. */
static uint64_t next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15u);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void fill(uint8_t *buf, uint32_t size, uint64_t seed)
{
	uint64_t state = seed;

	for (uint32_t i = 0; i < size; i += 8) {
		uint64_t v = next(&state);

		memcpy(buf + i, &v, 8);
	}
}

static void put16(uint8_t *at, uint32_t v)
{
	at[0] = (uint8_t)(v >> 8);
	at[1] = (uint8_t)v;
}

static uint32_t sum(const uint8_t *at, uint32_t size, uint32_t start)
{
	uint32_t s = start;

	for (uint32_t i = 0; i + 1 < size; i += 2)
		s += (uint32_t)at[i] << 8 | at[i + 1];
	if (size & 1)
		s += (uint32_t)at[size - 1] << 8;
	return s;
}

static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

/* RFC 768/9293 over the pseudo-header of either family; addrs are addr_size bytes, both. */
static void checksum(uint8_t *l4, uint32_t size, uint8_t proto, const uint8_t *addrs,
	uint32_t addr_size, uint32_t field)
{
	uint16_t v;

	put16(l4 + field, 0);
	v = fold(sum(l4, size, sum(addrs, addr_size, proto + size)));
	put16(l4 + field, v || proto != 17 ? v : 0xffff);
}

static void udp(uint8_t *at, uint32_t size, const uint8_t *addrs, uint32_t addr_size)
{
	put16(at + 4, size);
	checksum(at, size, 17, addrs, addr_size, 6);
}

static void tcp(uint8_t *at, uint32_t size, const uint8_t *addrs, uint32_t addr_size)
{
	at[12] = 0x50;
	at[13] = 0x10;
	checksum(at, size, 6, addrs, addr_size, 16);
}

/* size: what is left of the frame. Headers that don't fit stay as they are: a runt. */
static void ipv4(enum craft_kind k, uint8_t *at, uint32_t size)
{
	uint32_t hdr = k == CRAFT_IPV4_OPTIONS ? 40 : 20;
	bool is_tcp = k == CRAFT_IPV4_TCP || k == CRAFT_IPV4_TCP_BAD_CHECKSUM;

	if (size < hdr + 20)
		return;
	at[0] = (uint8_t)((k == CRAFT_IPV4_BAD_VERSION ? 0x50 : 0x40) | hdr / 4);
	put16(at + 2, k == CRAFT_IPV4_CUT ? size + 100 : size);
	put16(at + 6, k == CRAFT_IPV4_FRAGMENT ? 0x2000 | 100 : 0x4000);
	at[8] = 64;
	at[9] = is_tcp ? 6 : 17;
	memcpy(at + 12, (uint8_t[]){10, 77, 0, 1, 10, 77, 0, 2}, 8);
	if (hdr > 20)
		memset(at + 20, 1, hdr - 20); /* no-operation options, RFC 791 */
	put16(at + 10, 0);
	put16(at + 10, fold(sum(at, hdr, 0)));
	if (is_tcp)
		tcp(at + hdr, size - hdr, at + 12, 8);
	else
		udp(at + hdr, size - hdr, at + 12, 8);
	if (k == CRAFT_IPV4_TCP_BAD_CHECKSUM)
		at[hdr + 16] ^= 0x55;
	if (k == CRAFT_IPV4_UDP_NO_CHECKSUM)
		put16(at + hdr + 6, 0);
}

static void ipv6(enum craft_kind k, uint8_t *at, uint32_t size)
{
	uint32_t ext = k == CRAFT_IPV6_EXTENSIONS ? 8 : 0;

	if (size < 40 + ext + 20)
		return;
	at[0] = 0x60;
	put16(at + 4, k == CRAFT_IPV6_CUT ? size + 60 : size - 40);
	at[6] = ext ? 60 : 17; /* destination options, RFC 8200 */
	at[7] = 64;
	memset(at + 8, 0, 32);
	at[8] = at[24] = 0xfd;
	at[23] = 1;
	at[39] = 2;
	if (ext)
		memcpy(at + 40, (uint8_t[]){17, 0, 1, 4, 0, 0, 0, 0}, 8);
	udp(at + 40 + ext, size - 40 - ext, at + 8, 32);
}

static void arp(uint8_t *at, uint32_t size)
{
	if (size < 28)
		return;
	memcpy(at, (uint8_t[]){0, 1, 8, 0, 6, 4, 0, 1}, 8);
	memcpy(at + 14, (uint8_t[]){10, 77, 0, 1}, 4);
	memcpy(at + 24, (uint8_t[]){10, 77, 0, 2}, 4);
}

static uint32_t ether_type(enum craft_kind k, uint32_t size)
{
	switch (k) {
	case CRAFT_ARP: return 0x0806;
	case CRAFT_IPV6_UDP:
	case CRAFT_IPV6_EXTENSIONS:
	case CRAFT_IPV6_CUT:
	case CRAFT_MULTICAST_IPV6: return 0x86dd;
	case CRAFT_VLAN_IPV4:
	case CRAFT_VLAN_UNKNOWN: return 0x8100;
	case CRAFT_VLAN_DOUBLE_IPV6: return 0x88a8;
	case CRAFT_UNKNOWN_TYPE: return 0x88b5; /* IEEE 802 local experiments */
	case CRAFT_LINK_LOCAL: return 0x88cc;
	case CRAFT_LLC: return size - 14 < 1500 ? size - 14 : 1500;
	case CRAFT_MPLS: return 0x8847;
	default: return 0x0800;
	}
}

static void address(enum craft_kind k, uint8_t *dst)
{
	static const uint8_t link_local[6] = {0x01, 0x80, 0xc2, 0, 0, 0x0e};

	dst[0] = 0x02; /* of a machine behind the far end: unicast, local */
	if (k == CRAFT_MULTICAST_IPV4) {
		memcpy(dst, (uint8_t[]){0x01, 0x00, 0x5e}, 3);
		dst[3] &= 0x7f;
	} else if (k == CRAFT_MULTICAST_IPV6) {
		memcpy(dst, (uint8_t[]){0x33, 0x33}, 2);
	} else if (k == CRAFT_BROADCAST || k == CRAFT_ARP) {
		memset(dst, 0xff, 6);
	} else if (k == CRAFT_LINK_LOCAL) {
		memcpy(dst, link_local, 6);
	}
}

void craft(enum craft_kind k, uint32_t size, uint64_t seed, const uint8_t *src, uint8_t *buf)
{
	static const uint8_t inner_ipv6[] = {0x81, 0x00, 0x20, 0x65, 0x86, 0xdd};
	uint8_t whole[CRAFT_SIZE_MAX + 8];
	uint8_t *at = whole + 14;
	uint32_t left = size - 14;

	fill(whole, size, seed);
	address(k, whole);
	memcpy(whole + 6, src, 6);
	put16(whole + 12, ether_type(k, size));
	switch (k) {
	case CRAFT_ARP: arp(at, left); break;
	case CRAFT_IPV6_UDP:
	case CRAFT_IPV6_EXTENSIONS:
	case CRAFT_IPV6_CUT:
	case CRAFT_MULTICAST_IPV6: ipv6(k, at, left); break;
	case CRAFT_VLAN_IPV4:
		put16(at, 0x6000 | 100); /* priority 3, VLAN 100 */
		put16(at + 2, 0x0800);
		ipv4(k, at + 4, left - 4);
		break;
	case CRAFT_VLAN_DOUBLE_IPV6:
		put16(at, 200);
		if (left >= 8) {
			memcpy(at + 2, inner_ipv6, 6);
			ipv6(k, at + 8, left - 8);
		}
		break;
	case CRAFT_VLAN_UNKNOWN:
		put16(at, 4094);
		put16(at + 2, 0x88b5);
		break;
	case CRAFT_UNKNOWN_TYPE:
	case CRAFT_LINK_LOCAL:
	case CRAFT_LLC:
	case CRAFT_MPLS: break;
	default: ipv4(k, at, left); break;
	}
	memcpy(buf, whole, size);
}

void craft_flow(uint32_t flow, uint64_t number, uint32_t size, const uint8_t *src, uint8_t *buf)
{
	uint8_t *at = buf + 14;

	fill(buf + CRAFT_FLOW_AT, size - CRAFT_FLOW_AT - 8, number * 1000003u + flow);
	memset(buf + size - 8, (int)(number & 0xff), 8);
	memcpy(buf, (uint8_t[]){0x02, 0, 0, 0, 0, 0x02}, 6);
	memcpy(buf + 6, src, 6);
	put16(buf + 12, 0x0800);
	memset(at, 0, 20);
	at[0] = 0x45;
	put16(at + 2, size - 14);
	at[8] = 64;
	at[9] = 17;
	memcpy(at + 12, (uint8_t[]){10, 77, 0, 1, 10, 77, 0, 2}, 8);
	put16(at + 10, fold(sum(at, 20, 0)));
	put16(at + 20, 1024 + flow);
	put16(at + 22, 5000);
	memcpy(buf + CRAFT_FLOW_AT, &flow, 4);
	memcpy(buf + CRAFT_FLOW_AT + 4, &number, 8);
	udp(at + 20, size - 34, at + 12, 8);
}
