/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Whose frame is it: our socket's, or the kernel's.
 *
 * Kept for the kernel, while keep_host is on, is what only this host can want: IP to one of the
 * device's own addresses in a frame to its own MAC address; ARP, and neighbour solicitations, whose
 * target is one of them. Everything else is forwarded: multicast and broadcast too (DHCP, router
 * advertisements, unsolicited neighbour advertisements), as the hosts on the other side want them,
 * and XDP can't give one frame to two. So the host gets no address or route by them (DHCP, SLAAC):
 * what it has on a port must be static. A device without addresses forwards everything.
 *
 * Addresses of VLAN devices above this one are not its own: frames of a VLAN are forwarded. A
 * priority tag (VLAN 0, IEEE 802.1Q) is no VLAN.
 */
#include "culvert/abi.h"
#include "parse.bpf.h"

#include "fast_path.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 1); /* user space: one for each receive queue */
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, CULVERT_HOST_ADDRESSES_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct culvert_host_address);
	__type(value, __u8);
} host_addresses SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1); /* user space: one for each receive queue */
	__type(key, __u32);
	__type(value, struct culvert_outcomes);
} outcomes SEC(".maps");

struct culvert_settings settings;

enum whose { OURS, HOSTS, UNREADABLE };

static __always_inline void copy(__u8 *to, const __u8 *from, __u32 size)
{
	__builtin_memcpy(to, from, size);
}

static __always_inline enum whose by_ipv4(const void *address)
{
	struct culvert_host_address key = {.version = 4};

	copy(key.bytes, address, 4);
	return bpf_map_lookup_elem(&host_addresses, &key) ? HOSTS : OURS;
}

static __always_inline enum whose by_ipv6(const void *address)
{
	struct culvert_host_address key = {.version = 6};

	copy(key.bytes, address, 16);
	return bpf_map_lookup_elem(&host_addresses, &key) ? HOSTS : OURS;
}

static __always_inline int is_own_mac(const __u8 *mac)
{
	int differ = 0;

	for (int i = 0; i < 6; i++)
		differ |= mac[i] ^ settings.mac[i];
	return !differ;
}

static __always_inline enum whose arp(struct cursor *c)
{
	const struct arp_ipv4 *a = cursor_take(c, sizeof(*a));

	if (!a)
		return UNREADABLE;
	if (a->hardware != bpf_htons(ARP_HARDWARE_ETHERNET) || a->protocol != bpf_htons(ETH_P_IP) ||
		a->hardware_len != 6 || a->protocol_len != 4)
		return OURS;
	return by_ipv4(a->target);
}

static __always_inline enum whose ipv4(struct cursor *c, int own_mac)
{
	const struct iphdr *ip = cursor_take(c, sizeof(*ip));

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return UNREADABLE;
	return own_mac ? by_ipv4(&ip->daddr) : OURS;
}

/* A solicitation goes to the solicited-node multicast group, whose members may be on both sides:
 * the target inside decides (RFC 4861, 4.3). */
static __always_inline enum whose ipv6(struct cursor *c, int own_mac)
{
	const struct ipv6hdr *ip = cursor_take(c, sizeof(*ip));
	const struct icmp6hdr *icmp;
	const void *target;

	if (!ip || ip->version != 6)
		return UNREADABLE;
	if (own_mac && by_ipv6(&ip->daddr) == HOSTS)
		return HOSTS;
	if (ip->nexthdr != IPPROTO_ICMPV6)
		return OURS;
	icmp = cursor_take(c, sizeof(*icmp));
	if (!icmp)
		return UNREADABLE;
	if (icmp->icmp6_type != 135 /* neighbour solicitation */)
		return OURS;
	target = cursor_take(c, 16);
	return target ? by_ipv6(target) : UNREADABLE;
}

static __always_inline enum whose judge(struct cursor *c)
{
	const struct ethhdr *eth = cursor_take(c, sizeof(*eth));
	__be16 type;
	int own_mac;

	if (!eth)
		return UNREADABLE;
	type = eth->h_proto;
	own_mac = is_own_mac(eth->h_dest);
	/* Frames to another station's address are nothing to this host, whatever is in them. */
	if (!own_mac && !(eth->h_dest[0] & 1))
		return OURS;
	if (type == bpf_htons(ETH_P_8021Q)) {
		const struct vlan_tag *tag = cursor_take(c, sizeof(*tag));

		if (!tag)
			return UNREADABLE;
		if (tag->tci & bpf_htons(VLAN_ID_MASK))
			return OURS;
		type = tag->type;
	}
	switch (type) {
	case bpf_htons(ETH_P_ARP): return arp(c);
	case bpf_htons(ETH_P_IP): return ipv4(c, own_mac);
	case bpf_htons(ETH_P_IPV6): return ipv6(c, own_mac);
	default: return OURS;
	}
}

static __always_inline int steer_frame(struct xdp_md *ctx, int fast)
{
	__u32 queue = ctx->rx_queue_index;
	struct culvert_outcomes *count = bpf_map_lookup_elem(&outcomes, &queue);

	/* A queue added after the maps were made: the kernel's. */
	if (!count)
		return XDP_PASS;
	if (settings.keep_host) {
		struct cursor c = cursor_open(ctx);
		enum whose whose = judge(&c);

		if (whose == HOSTS) {
			count->frames[CULVERT_OUTCOME_TO_HOST]++;
			return XDP_PASS;
		}
		if (whose == UNREADABLE)
			count->frames[CULVERT_OUTCOME_MALFORMED]++;
	}
	if (fast && forward(ctx, count))
		return XDP_REDIRECT;
	if (bpf_redirect_map(&sockets, queue, XDP_PASS) == XDP_REDIRECT) {
		count->frames[CULVERT_OUTCOME_REDIRECTED]++;
		return XDP_REDIRECT;
	}
	count->frames[CULVERT_OUTCOME_NO_SOCKET]++;
	return XDP_PASS;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	return steer_frame(ctx, 0);
}

/* Loaded in its place where the fast path is allowed. */
SEC("?xdp")
int steer_fast(struct xdp_md *ctx)
{
	return steer_frame(ctx, 1);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
