/*
 * What the BPF programs and user space share: map keys and values, outcomes, settings.
 *
 * Included by bpf/ (clang, target bpf) and by src/ (the host's compiler); the assertions below run
 * in both, so a difference in layout stops the build.
 */
/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#pragma once

#include <linux/types.h>

/* What became of a frame: the index in struct culvert_outcomes. Each frame counts once, save that
 * MALFORMED is counted beside the outcome. */
#define CULVERT_OUTCOMES(X)                                                             \
	X(REDIRECTED, "bpf_redirected", "handed to the socket of its queue")            \
	X(TO_HOST, "bpf_to_host", "kept for this host: its address, ARP or neighbours") \
	X(NO_SOCKET, "bpf_no_socket", "its queue has no socket: left to the kernel")    \
	X(MALFORMED, "bpf_malformed", "headers cut short: forwarded unread")            \
	X(FORWARDED, "bpf_forwarded", "sent to the peer port without user space")

enum culvert_outcome {
#define X(id, name, text) CULVERT_OUTCOME_##id,
	CULVERT_OUTCOMES(X)
#undef X
		CULVERT_OUTCOME_COUNT
};

/* Map `outcomes`: per CPU, key: receive queue (__u32). */
struct culvert_outcomes {
	__u64 frames[CULVERT_OUTCOME_COUNT];
	__u64 forwarded_bytes;	   /* of the frames FORWARDED */
	__u64 checksums_completed; /* likewise */
};

/* Key of map `host_addresses` (value: __u8, always 1). An IPv4 address lies in the first four of
 * bytes, network order, the rest is zero. */
struct culvert_host_address {
	__u8 version; /* 4 or 6 */
	__u8 zero[3];
	__u8 bytes[16];
};

/* Addresses one device may keep for its host. */
#define CULVERT_HOST_ADDRESSES_MAX 1024

/* The program's global data; written by user space at any time, one aligned word each. */
struct culvert_settings {
	__u32 keep_host; /* 0: every frame goes to the socket */
	__u8 mac[6];	 /* of the device */
	__u8 zero[2];
};

/* The fast path of one port, also global data: where the kernel may send frames by itself. The
 * programs write error, lost_* and, when a redirect fails, on; user space the rest. */
struct culvert_fast_path {
	__u32 on;	    /* 0: every frame goes to the socket */
	__u32 length_max;   /* bytes; longer frames go to the socket */
	__u32 from, to;	    /* interface indexes, of this port and its peer */
	__u64 netns_cookie; /* of both: an interface index is not unique among namespaces */
	__u32 queues;	    /* the first ones have sockets; frames of others are the kernel's */
	__u32 zero;
	__u32 map_id;	    /* of map `peer` */
	__s32 error;	    /* -errno of the redirect that turned `on` off; 0: none */
	__u64 lost_full;    /* frames: the peer's ring was full, or they were too long for it */
	__u64 lost_refused; /* frames: the peer takes none */
};

_Static_assert(sizeof(struct culvert_fast_path) == 56, "layout");
_Static_assert(sizeof(struct culvert_outcomes) == 56, "layout");
_Static_assert(sizeof(struct culvert_host_address) == 20, "layout");
_Static_assert(sizeof(struct culvert_settings) == 12, "layout");
