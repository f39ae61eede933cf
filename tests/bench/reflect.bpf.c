/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Free ends of a relay: what the relay sends turns round on the loopback and comes back to it as
 * the next answer or request.
 *
 * The relay sees two real TCP connections whose other ends answer at once and cost nothing. Only
 * the headers change, so the message stays as it was. Nothing has to be done to checksums: on the
 * loopback no one has computed that of TCP, and IP's is the same for swapped addresses; nor to MAC
 * addresses, which are all zero.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "reflect.h"

#define WINDOW	   512	      /* of every answer: the same, as header prediction likes it */
#define TIMESTAMPS 0x0101080a /* NOP NOP and the option, as Linux has it in every segment */

struct timestamps {
	__be32 kinds;
	__be32 value, echo;
};

/* Written by user space. */
__u16 relay_port, server_port; /* in network order */
int reflecting;

/* Read by user space. */
__u64 rounds;
__u64 last_ns[65536]; /* when a message last came to the client of this port */
__u64 buckets[REFLECT_BUCKETS];

/* A message has come all the way round to the client. */
static __always_inline void round_add(__u16 client_port)
{
	__u64 now_ns = bpf_ktime_get_ns(), begin_ns = last_ns[client_port];
	__u64 bucket = (now_ns - begin_ns) >> REFLECT_BUCKET_SHIFT;

	last_ns[client_port] = now_ns;
	if (!begin_ns)
		return;
	barrier_var(bucket); /* else the check is on another value than the verifier looks at */
	if (bucket >= REFLECT_BUCKETS)
		bucket = REFLECT_BUCKETS - 1;
	__sync_fetch_and_add(&rounds, 1);
	__sync_fetch_and_add(&buckets[bucket], 1);
}

static __always_inline void turn_round(
	struct iphdr *ip, struct tcphdr *tcp, struct timestamps *stamps, __u32 size)
{
	__be32 address = ip->saddr, seq = tcp->seq, value = stamps->value;
	__be16 port = tcp->source;

	ip->saddr = ip->daddr;
	ip->daddr = address;
	tcp->source = tcp->dest;
	tcp->dest = port;
	tcp->seq = tcp->ack_seq;
	tcp->ack_seq = bpf_htonl(bpf_ntohl(seq) + size);
	tcp->window = bpf_htons(WINDOW);
	stamps->value = stamps->echo;
	stamps->echo = value;
}

SEC("tc")
int reflect(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + sizeof(struct ethhdr);
	struct tcphdr *tcp = (void *)(ip + 1);
	struct timestamps *stamps = (void *)(tcp + 1);
	__u32 headers, size;

	if (!reflecting || (void *)(stamps + 1) > end || skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	if (ip->ihl != 5 || ip->protocol != IPPROTO_TCP)
		return TC_ACT_OK;
	if (tcp->source != relay_port && tcp->dest != server_port)
		return TC_ACT_OK;
	headers = sizeof(*ip) + tcp->doff * 4;
	size = bpf_ntohs(ip->tot_len);
	if (tcp->syn || tcp->fin || tcp->rst || size < headers)
		return TC_ACT_OK;
	/* An acknowledgement, as of a relay that was stopped for a while: it would meet no one and
	 * be reset. To drop is all that both hooks (reflect.c) know. */
	if (size == headers)
		return TC_ACT_SHOT;
	if (tcp->doff * 4 != sizeof(*tcp) + sizeof(*stamps) ||
		stamps->kinds != bpf_htonl(TIMESTAMPS))
		return TC_ACT_OK;
	if (tcp->source == relay_port)
		round_add(tcp->dest);
	turn_round(ip, tcp, stamps, size - headers);
	return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
