/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A bounds-checked cursor over the headers of a frame, in the form the verifier follows. */
#pragma once

#include <linux/bpf.h>
#include <linux/icmpv6.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

struct cursor {
	void *at, *end;
};

static __always_inline struct cursor cursor_open(const struct xdp_md *ctx)
{
	return (struct cursor){.at = (void *)(long)ctx->data, .end = (void *)(long)ctx->data_end};
}

/* Returns the next size bytes and moves behind them, or NULL where the frame ends before. */
static __always_inline void *cursor_take(struct cursor *c, __u32 size)
{
	void *at = c->at;

	if (at + size > c->end)
		return NULL;
	c->at = at + size;
	return at;
}

/* IEEE 802.1Q tag behind the addresses: TCI and the type of what follows. */
struct vlan_tag {
	__be16 tci;
	__be16 type;
};
#define VLAN_ID_MASK 0x0fff

/* The Ethernet and IPv4 form of RFC 826. */
#define ARP_HARDWARE_ETHERNET 1

struct arp_ipv4 {
	__be16 hardware, protocol;
	__u8 hardware_len, protocol_len;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender[4];
	__u8 target_mac[6];
	__u8 target[4];
} __attribute__((packed));
