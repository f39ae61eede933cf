/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Forwards a frame to the peer port in the kernel, and watches what becomes of it.
 *
 * Does what user space would do with the frame, by the same rules (src/frame/checksum.c): a partial
 * checksum is completed, as the redirect loses the mark that it is one. Only frames longer than the
 * peer takes go to user space, which counts them as dropped: so all frames of a flow take one path
 * and stay in order, save in the moment in which the fast path is turned on or off.
 */
#pragma once

#include <bpf/bpf_core_read.h>

#include "culvert/abi.h"
#include "parse.bpf.h"

#define ETH_P_QINQ	 0x88a8
#define TAGS_MAX	 2
#define EXTENSIONS_MAX	 8
#define ROUTING_HOME	 2 /* home address at byte 8, RFC 6275 section 6.4 */
#define ROUTING_SEGMENTS 4 /* last segment at byte 8, RFC 8754 section 2 */
/* Longest segment summed: no frame is longer than a slot. */
#define SEGMENT_MAX 4096
#define EMSGSIZE    90
#define ENOSPC	    28
#define EBUSY	    16
#define EAGAIN	    11
#define ENOBUFS	    105
#define ENOMEM	    12

struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} peer SEC(".maps");

struct culvert_fast_path fast_path;

/* Set before loading. */
const volatile __u32 complete_checksums;

/* Where the checksum is and what it covers. */
struct transport {
	__be16 *field;
	__u32 frame;  /* its length, bytes */
	__u32 offset; /* of the segment (first, of the packet) in the frame, bytes */
	__u32 length; /* covered, bytes */
	__u32 protocol;
	__u64 pseudo; /* sum of the pseudo-header, not folded */
};

enum judgement { AS_IT_IS, TO_COMPLETE };

/* Sums are of words in memory order (RFC 1071, section 2). */
static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u32)sum;
}

/* Keeps the compiler from bounds of its own making, such as data_end + 1, which the verifier
 * forbids. */
#define opaque(pointer) asm volatile("" : "+r"(pointer))

/* Folded sum of length bytes from offset, or -1. A function of its own, which the verifier walks
 * through once. */
__noinline int segment_sum(struct xdp_md *ctx, __u32 offset, __u32 length)
{
	void *end = (void *)(long)ctx->data_end;
	void *at = (void *)(long)ctx->data;
	__u64 sum = 0;

	if (offset > SEGMENT_MAX || length > SEGMENT_MAX)
		return -1;
	at += offset;
	for (int i = 0; i < SEGMENT_MAX / 8 && length >= 8; i++) {
		__u64 words;

		opaque(at);
		if (at + 8 > end)
			return -1;
		words = *(__u64 *)at;
		sum += (words & 0xffffffff) + (words >> 32);
		at += 8;
		length -= 8;
	}
	for (int i = 0; i < 3 && length >= 2; i++) {
		opaque(at);
		if (at + 2 > end)
			return -1;
		sum += *(__u16 *)at;
		at += 2;
		length -= 2;
	}
	if (length == 1) {
		if (at + 1 > end)
			return -1;
		sum += bpf_htons((__u16)(*(__u8 *)at << 8));
	}
	return (int)fold(sum);
}

static __always_inline __u64 words_sum(const __u32 *words, int n, __u64 sum)
{
	for (int i = 0; i < n; i++)
		sum += words[i];
	return sum;
}

/* at: the segment, left bytes to the end of the packet, which are in the frame. */
static __always_inline enum judgement transport(
	struct transport *t, void *at, void *end, __u32 left, __u32 protocol)
{
	t->protocol = protocol;
	t->length = left;
	if (protocol == IPPROTO_TCP) {
		if (left < 20 || at + 20 > end)
			return AS_IT_IS;
		t->field = at + 16;
	} else if (protocol == IPPROTO_UDP) {
		if (left < 8 || at + 8 > end)
			return AS_IT_IS;
		t->length = bpf_ntohs(*(__be16 *)(at + 4));
		if (t->length < 8 || t->length > left)
			return AS_IT_IS;
		t->field = at + 6;
	} else {
		return AS_IT_IS;
	}
	/* RFC 9293 section 3.1, RFC 8200 section 8.1 */
	t->pseudo += (__u64)bpf_htons((__u16)protocol) + bpf_htons((__u16)t->length);
	return *t->field == (__be16)fold(t->pseudo) ? TO_COMPLETE : AS_IT_IS;
}

static __always_inline enum judgement transport_ipv4(struct transport *t, void *at, void *end)
{
	struct iphdr *ip = at;
	__u32 head, total;

	if (at + sizeof(*ip) > end || ip->version != 4)
		return AS_IT_IS;
	head = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (head < sizeof(*ip) || total < head || total > t->frame - t->offset)
		return AS_IT_IS;
	if (ip->frag_off & bpf_htons(0x3fff)) /* more fragments, or not the first */
		return AS_IT_IS;
	t->pseudo = words_sum(&ip->saddr, 2, 0);
	t->offset += head;
	return transport(t, at + head, end, total - head, ip->protocol);
}

static __always_inline enum judgement transport_ipv6(struct transport *t, void *at, void *end)
{
	struct ipv6hdr *ip = at;
	__u64 source;
	__u32 left, next;

	if (at + sizeof(*ip) > end || ip->version != 6)
		return AS_IT_IS;
	left = bpf_ntohs(ip->payload_len);
	at += sizeof(*ip);
	t->offset += sizeof(*ip);
	if (left > t->frame - t->offset)
		return AS_IT_IS;
	next = ip->nexthdr;
	source = words_sum(ip->saddr.s6_addr32, 4, 0);
	t->pseudo = words_sum(ip->daddr.s6_addr32, 4, source);
	for (int i = 0; i < EXTENSIONS_MAX; i++) {
		const __u8 *header = at;
		__u32 length;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
			break;
		if (left < 8 || at + 8 > end)
			return AS_IT_IS;
		length = 8 + header[1] * 8;
		if (length > left)
			return AS_IT_IS;
		/* The checksum is of the final destination. */
		if (next == IPPROTO_ROUTING && header[3] != 0) {
			if (header[2] != ROUTING_HOME && header[2] != ROUTING_SEGMENTS)
				return AS_IT_IS;
			if (length < 24 || at + 24 > end)
				return AS_IT_IS;
			t->pseudo = words_sum((const __u32 *)(header + 8), 4, source);
		}
		next = header[0];
		t->offset += length;
		left -= length;
		at += length;
	}
	return transport(t, at, end, left, next);
}

/* TO_COMPLETE: the field of t holds just the sum of the pseudo-header. */
static __always_inline enum judgement judge_checksum(const struct xdp_md *ctx, struct transport *t)
{
	void *at = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;

	at += 2 * ETH_ALEN;
	t->offset = 2 * ETH_ALEN + 2;
	for (int tags = 0; tags <= TAGS_MAX; tags++) {
		__be16 type;

		if (at + 2 > end)
			return AS_IT_IS;
		type = *(__be16 *)at;
		if (type == bpf_htons(ETH_P_IP))
			return transport_ipv4(t, at + 2, end);
		if (type == bpf_htons(ETH_P_IPV6))
			return transport_ipv6(t, at + 2, end);
		if (type != bpf_htons(ETH_P_8021Q) && type != bpf_htons(ETH_P_QINQ))
			return AS_IT_IS;
		at += sizeof(struct vlan_tag);
		t->offset += sizeof(struct vlan_tag);
	}
	return AS_IT_IS;
}

/* 1: done. 0: it had a correct checksum, which one in 65536 has that looks partial. -1: can't. */
static __always_inline int complete(struct xdp_md *ctx, const struct transport *t)
{
	int sum = segment_sum(ctx, t->offset, t->length);
	__u16 whole;

	if (sum < 0)
		return -1;
	if (fold((__u32)sum + t->pseudo) == 0xffff)
		return 0;
	whole = (__u16)~sum;
	if (whole == 0 && t->protocol == IPPROTO_UDP) /* 0 means "no checksum", RFC 768 */
		whole = 0xffff;
	*t->field = whole;
	return 1;
}

/* 1: the frame goes to the peer, as soon as the program returns XDP_REDIRECT. */
static __always_inline int forward(struct xdp_md *ctx, struct culvert_outcomes *count)
{
	__u32 length = (__u32)(ctx->data_end - ctx->data);
	int completed = 0;

	if (!fast_path.on || length > fast_path.length_max ||
		ctx->rx_queue_index >= fast_path.queues)
		return 0;
	if (complete_checksums) {
		struct transport t = {.frame = length};
		enum judgement j = judge_checksum(ctx, &t);

		if (j == TO_COMPLETE)
			completed = complete(ctx, &t);
		if (completed < 0)
			return 0;
	}
	if (bpf_redirect_map(&peer, 0, XDP_ABORTED) != XDP_REDIRECT)
		return 0;
	count->frames[CULVERT_OUTCOME_FORWARDED]++;
	count->forwarded_bytes += length;
	count->checksums_completed += (__u32)completed;
	return 1;
}

/* ---- what becomes of them, by the kernel's tracepoints ---- */

struct net {
	__u64 net_cookie;
} __attribute__((preserve_access_index));

typedef struct {
	struct net *net;
} __attribute__((preserve_access_index)) possible_net_t;

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} __attribute__((preserve_access_index));

/* A full ring passes; a device that takes nothing would swallow all until somebody looks, so the
 * fast path ends here and now, and user space has the frames. */
static __always_inline void lost(__u32 frames, int err)
{
	switch (-err) {
	case 0:
	case EAGAIN:
	case ENOMEM:
	case EBUSY:
	case ENOSPC:
	case EMSGSIZE:
	case ENOBUFS: __sync_fetch_and_add(&fast_path.lost_full, frames); break;
	default:
		__sync_fetch_and_add(&fast_path.lost_refused, frames);
		fast_path.error = err;
		fast_path.on = 0;
	}
}

/* Frames are handed to the peer in bundles; of this one some were lost.
 * (from, to, sent, drops, err) */
SEC("?tp_btf/xdp_devmap_xmit")
int watch_sent(__u64 *arguments)
{
	const struct net_device *from = (void *)arguments[0], *to = (void *)arguments[1];
	int drops = (int)arguments[3];

	if (drops > 0 && (__u32)from->ifindex == fast_path.from &&
		(__u32)to->ifindex == fast_path.to &&
		BPF_CORE_READ(to, nd_net.net, net_cookie) == fast_path.netns_cookie)
		lost((__u32)drops, (int)arguments[4]);
	return 0;
}

/* A frame that didn't get so far. (from, program, target, err, map_type, map_id, index) */
SEC("?tp_btf/xdp_redirect_err")
int watch_redirect(__u64 *arguments)
{
	if ((__u32)arguments[5] == fast_path.map_id)
		lost(1, (int)arguments[3]);
	return 0;
}
