/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Free ends of a relay: what the relay sends turns round on the loopback and comes back to it as
 * what its other end would say.
 *
 * The relay sees two real TCP connections whose other ends answer at once and cost nothing. Nothing
 * has to be done to checksums of turned segments: on the loopback no one has computed that of TCP,
 * and IP's is the same for swapped addresses; nor to MAC addresses, which are all zero.
 *
 * Messages: the target's side and the client's both send back what they get.
 *
 * Connections, segment by segment ("ends once" and "ends connect", ends.c, in this order):
 *
 *   the relay says           to the client, who answers      to the target, who answers
 *   SYN                                                      SYN ACK
 *   SYN ACK                  ACK; request
 *   data                     ACK                             the same as its answer; FIN
 *   FIN                      FIN                             ACK
 *   ACK of the last FIN      SYN of another connection
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/pkt_cls.h>
#include <linux/tcp.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "reflect.h"

#define WINDOW	   512	      /* of every answer: the same, as header prediction likes it */
#define TIMESTAMPS 0x0101080a /* NOP NOP and the option, as Linux has it in every segment */
#define CLOSING	   1	      /* instead of when a connection began */
#define CLIENT_SEQ 0x10000000 /* of each client's SYN */
#define PORT_FIRST 1024	      /* and below those that Linux chooses, the relay's among them */
#define PORTS	   30000
#define CLIENTS	   0x7f010001 /* 127.1.0.1: the first client's address */

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define PSH 0x08
#define ACK 0x10

struct timestamps {
	__be32 kinds;
	__be32 value, echo;
};

/* As Linux has them in each SYN. */
struct syn_options {
	__be32 mss;
	__be32 kinds; /* SACK permitted, timestamps */
	__be32 value, echo;
	__be32 scale;
};

#define MSS_LOOPBACK   0x0204ffd7
#define SACK_AND_TIMES 0x0402080a
#define SCALE	       0x01030307

struct segment {
	struct iphdr ip;
	struct tcphdr tcp;
	struct timestamps stamps;
};

struct syn_segment {
	struct iphdr ip;
	struct tcphdr tcp;
	struct syn_options options;
};

#define HEADERS	    sizeof(struct segment)
#define SYN_HEADERS sizeof(struct syn_segment)

/* Written by user space. */
__u16 relay_port, server_port; /* in network order */
int mode;		       /* enum reflect_mode */

/* Read by user space. */
__u64 rounds;
__u64 last_ns[65536]; /* when a message last came to the client of this port, or it began */
__u64 buckets[REFLECT_BUCKETS];
__u64 n_open;	   /* sides of connections that have not ended */
__u64 n_failed;	   /* that were reset, or whose answer was not as long as it should be */
bool asked[65536]; /* the relay has not ended its connection to the target from this port */

static __u64 n_clients;
static __be32 answers[65536]; /* the sequence number with which the answer of this port begins */

static __always_inline void latency_add(__u64 ns)
{
	__u64 bucket = ns >> REFLECT_BUCKET_SHIFT;

	barrier_var(bucket); /* else the check is on another value than the verifier looks at */
	if (bucket >= REFLECT_BUCKETS)
		bucket = REFLECT_BUCKETS - 1;
	__sync_fetch_and_add(&rounds, 1);
	__sync_fetch_and_add(&buckets[bucket], 1);
}

/* A message has come all the way round to the client. */
static __always_inline void round_add(__u16 client_port)
{
	__u64 now_ns = bpf_ktime_get_ns(), begin_ns = last_ns[client_port];

	last_ns[client_port] = now_ns;
	if (begin_ns)
		latency_add(now_ns - begin_ns);
}

static __always_inline struct segment *segment_of(struct __sk_buff *skb)
{
	struct segment *s = (void *)(long)skb->data + sizeof(struct ethhdr);

	return (void *)(s + 1) <= (void *)(long)skb->data_end ? s : NULL;
}

static __always_inline __u8 *flags_of(struct tcphdr *tcp)
{
	return (__u8 *)tcp + 13;
}

/* The segment goes the other way, and takes `size` bytes of it as received. */
static __always_inline void turn_round(struct iphdr *ip, struct tcphdr *tcp, __u32 size)
{
	__be32 address = ip->saddr, seq = tcp->seq;
	__be16 port = tcp->source;

	ip->saddr = ip->daddr;
	ip->daddr = address;
	tcp->source = tcp->dest;
	tcp->dest = port;
	tcp->seq = tcp->ack_seq;
	tcp->ack_seq = bpf_htonl(bpf_ntohl(seq) + size);
	tcp->window = bpf_htons(WINDOW);
}

static __always_inline void swap_stamps(struct timestamps *stamps)
{
	__be32 value = stamps->value;

	stamps->value = stamps->echo;
	stamps->echo = value;
}

/* The ones' complement sum (RFC 1071) as headers have it. */
static __always_inline __u16 folded(__u64 sum)
{
	for (int i = 0; i < 3; i++)
		sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)~sum;
}

/* Cuts or extends the segment to `size` bytes from the IP header on. */
static __always_inline struct segment *resized(struct __sk_buff *skb, __u32 size)
{
	struct segment *s;

	if (bpf_skb_change_tail(skb, sizeof(struct ethhdr) + size, 0))
		return NULL;
	s = segment_of(skb);
	if (!s)
		return NULL;
	s->ip.tot_len = bpf_htons((__u16)size);
	s->ip.check = 0;
	s->ip.check = folded(bpf_csum_diff(NULL, 0, (__be32 *)&s->ip, sizeof(s->ip), 0));
	return s;
}

/* A copy of the segment as it is goes to the relay; the other is here to be changed. By way of the
 * loopback's egress, so that it keeps the route it has: from outside no one has such addresses. */
static __always_inline struct segment *sent_too(struct __sk_buff *skb)
{
	return bpf_clone_redirect(skb, skb->ifindex, 0) ? NULL : segment_of(skb);
}

/* What is at hand becomes a new client's SYN. */
static __always_inline int call(struct __sk_buff *skb)
{
	struct segment *s = resized(skb, SYN_HEADERS);
	__u64 n = __sync_fetch_and_add(&n_clients, 1);
	struct syn_segment *syn;
	__be32 value;
	__u64 sum;

	syn = (void *)s;
	if (!s || (void *)(syn + 1) > (void *)(long)skb->data_end) {
		__sync_fetch_and_add(&n_failed, 1);
		return TC_ACT_SHOT;
	}
	value = s->stamps.value;
	syn->ip.saddr = bpf_htonl(CLIENTS + (__u32)(n / PORTS << 8));
	syn->ip.daddr = bpf_htonl(INADDR_LOOPBACK);
	syn->ip.check = 0;
	syn->ip.check = folded(bpf_csum_diff(NULL, 0, (__be32 *)&syn->ip, sizeof(syn->ip), 0));
	__builtin_memset(&syn->tcp, 0, sizeof(syn->tcp));
	syn->tcp.source = bpf_htons((__u16)(PORT_FIRST + n % PORTS));
	syn->tcp.dest = relay_port;
	syn->tcp.seq = bpf_htonl(CLIENT_SEQ);
	syn->tcp.doff = (sizeof(syn->tcp) + sizeof(syn->options)) / 4;
	syn->tcp.syn = 1;
	syn->tcp.window = bpf_htons(65495);
	syn->options = (struct syn_options){
		bpf_htonl(MSS_LOOPBACK), bpf_htonl(SACK_AND_TIMES), value, 0, bpf_htonl(SCALE)};
	/* The kernel computes the sum of what it says for a socket that is gone; it looks only at
	 * such sums, so that it does no harm where there was none. */
	sum = bpf_csum_diff(NULL, 0, (__be32 *)&syn->tcp, SYN_HEADERS - sizeof(syn->ip), 0);
	sum = bpf_csum_diff(NULL, 0, &syn->ip.saddr, 8, (__u32)sum);
	syn->tcp.check =
		folded(sum + bpf_htons(IPPROTO_TCP) + bpf_htons(SYN_HEADERS - sizeof(syn->ip)));
	last_ns[syn->tcp.source] = bpf_ktime_get_ns();
	__sync_fetch_and_add(&n_open, 1);
	return TC_ACT_OK;
}

static __always_inline int hang_up(struct __sk_buff *skb, __u16 client_port)
{
	last_ns[client_port] = 0;
	__sync_fetch_and_sub(&n_open, 1);
	return mode == REFLECT_CONNECTIONS ? call(skb) : TC_ACT_SHOT;
}

/* The relay's SYN ACK becomes the client's ACK, and its request. */
static __always_inline int ask(struct __sk_buff *skb, struct segment *s)
{
	struct syn_segment *syn = (void *)s;
	__be32 value, echo;

	if ((void *)(syn + 1) > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	value = syn->options.value;
	echo = syn->options.echo;
	turn_round(&s->ip, &s->tcp, 1);
	answers[s->tcp.source] = s->tcp.ack_seq;
	s->stamps = (struct timestamps){bpf_htonl(TIMESTAMPS), echo, value};
	s->tcp.doff = (sizeof(s->tcp) + sizeof(s->stamps)) / 4;
	*flags_of(&s->tcp) = ACK;
	if (!resized(skb, HEADERS) || !sent_too(skb))
		return TC_ACT_SHOT;
	s = resized(skb, HEADERS + REFLECT_MESSAGE);
	if (!s)
		return TC_ACT_SHOT;
	*flags_of(&s->tcp) = PSH | ACK;
	return TC_ACT_OK;
}

/* The answer has ended with this segment of `size` bytes. */
static __always_inline void answered(struct segment *s, __u32 size, __u64 begin_ns)
{
	__u16 port = s->tcp.dest;

	latency_add(bpf_ktime_get_ns() - begin_ns);
	last_ns[port] = CLOSING;
	if (bpf_ntohl(s->tcp.seq) + size != bpf_ntohl(answers[port]) + REFLECT_MESSAGE)
		__sync_fetch_and_add(&n_failed, 1);
}

/* The client's side of a connection. */
static __always_inline int client(struct __sk_buff *skb, struct segment *s, __u32 size)
{
	__u8 flags = *flags_of(&s->tcp);
	__u64 begin_ns = last_ns[s->tcp.dest];

	if (!begin_ns)
		return TC_ACT_SHOT;
	if (flags & RST) {
		__sync_fetch_and_add(&n_failed, 1);
		return hang_up(skb, s->tcp.dest);
	}
	if (flags & SYN)
		return ask(skb, s);
	if (!size && !(flags & FIN)) {
		if (begin_ns != CLOSING ||
			s->tcp.ack_seq != bpf_htonl(CLIENT_SEQ + REFLECT_MESSAGE + 2))
			return TC_ACT_SHOT;
		return hang_up(skb, s->tcp.dest);
	}
	if ((flags & FIN) && begin_ns != CLOSING)
		answered(s, size, begin_ns);
	turn_round(&s->ip, &s->tcp, size + (flags & FIN));
	swap_stamps(&s->stamps);
	*flags_of(&s->tcp) = ACK | (flags & FIN);
	return !size || resized(skb, HEADERS) ? TC_ACT_OK : TC_ACT_SHOT;
}

/* The relay has ended its side, with a FIN or a reset. */
static __always_inline void left(__u16 relay_side, bool reset)
{
	if (!asked[relay_side])
		return;
	asked[relay_side] = false;
	__sync_fetch_and_sub(&n_open, 1);
	if (reset)
		__sync_fetch_and_add(&n_failed, 1);
}

/* The target's side of a connection. */
static __always_inline int target(struct __sk_buff *skb, struct segment *s, __u32 size)
{
	__u8 flags = *flags_of(&s->tcp);
	struct syn_segment *syn = (void *)s;

	if (flags & SYN) {
		if ((void *)(syn + 1) > (void *)(long)skb->data_end)
			return TC_ACT_SHOT;
		if (!asked[s->tcp.source])
			__sync_fetch_and_add(&n_open, 1);
		asked[s->tcp.source] = true;
		turn_round(&s->ip, &s->tcp, 1);
		syn->options.echo = syn->options.value;
		*flags_of(&s->tcp) = SYN | ACK;
		return TC_ACT_OK;
	}
	if (flags & (FIN | RST))
		left(s->tcp.source, flags & RST);
	if ((flags & RST) || (!size && !(flags & FIN)))
		return TC_ACT_SHOT;
	turn_round(&s->ip, &s->tcp, size + (flags & FIN));
	swap_stamps(&s->stamps);
	*flags_of(&s->tcp) = ACK;
	if (!size)
		return TC_ACT_OK;
	*flags_of(&s->tcp) = PSH | ACK;
	if (!sent_too(skb))
		return TC_ACT_SHOT;
	s = resized(skb, HEADERS);
	if (!s)
		return TC_ACT_SHOT;
	s->tcp.seq = bpf_htonl(bpf_ntohl(s->tcp.seq) + size);
	*flags_of(&s->tcp) = FIN | ACK;
	return TC_ACT_OK;
}

static __always_inline int message(struct segment *s, __u32 size)
{
	if (s->tcp.syn || s->tcp.fin || s->tcp.rst)
		return TC_ACT_OK;
	/* An acknowledgement, as of a relay that was stopped for a while: it would meet no one and
	 * be reset. To drop is all that both hooks (reflect.c) know. */
	if (!size)
		return TC_ACT_SHOT;
	if (s->tcp.source == relay_port)
		round_add(s->tcp.dest);
	turn_round(&s->ip, &s->tcp, size);
	swap_stamps(&s->stamps);
	return TC_ACT_OK;
}

SEC("tc")
int reflect(struct __sk_buff *skb)
{
	struct segment *s = segment_of(skb);
	__u32 headers, size;

	if (mode == REFLECT_NOT || !s || skb->protocol != bpf_htons(ETH_P_IP))
		return TC_ACT_OK;
	if (s->ip.ihl != 5 || s->ip.protocol != IPPROTO_TCP)
		return TC_ACT_OK;
	headers = sizeof(s->ip) + s->tcp.doff * 4;
	size = bpf_ntohs(s->ip.tot_len);
	if (size < headers)
		return TC_ACT_OK;
	size -= headers;
	if (mode >= REFLECT_CONNECTIONS && s->tcp.dest == relay_port && s->tcp.syn)
		return call(skb);
	if (s->tcp.source != relay_port && s->tcp.dest != server_port)
		return TC_ACT_OK;
	if (!s->tcp.syn && (headers != HEADERS || s->stamps.kinds != bpf_htonl(TIMESTAMPS)))
		return TC_ACT_OK;
	if (mode == REFLECT_MESSAGES)
		return message(s, size);
	return s->tcp.source == relay_port ? client(skb, s, size) : target(skb, s, size);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
