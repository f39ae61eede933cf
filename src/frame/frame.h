/*
 * The currency: a frame, a batch of frames, and the verdict on each.
 *
 * A frame is a view of bytes that lie in some engine's memory: a slot of the memory shared by
 * all ports, or an mbuf of a DPDK port that can't have that. Who holds the struct frame holds the
 * buffer.
 */
#pragma once

#include <stdint.h>

#define BATCH_SIZE 64 /* frames; the kernel's NAPI weight (include/linux/netdevice.h) */

/* Largest number of ports in one process; verdicts are port indices below it. */
#define PORTS_MAX 64

struct frame {
	uint8_t *data;	/* first byte of the Ethernet header */
	void *buf;	/* the engine's own handle (an rte_mbuf); unused for slots */
	uint32_t len;	/* bytes, without the checksum (FCS) */
	uint32_t flags; /* FRAME_* */
};

/* The TCP/UDP checksum field holds only the pseudo-header's sum (CHECKSUM_PARTIAL): engines of
 * virtual devices set it where the driver says so; else checksum_complete() finds out. */
#define FRAME_CHECKSUM_PARTIAL (1u << 0)

struct batch {
	uint32_t n;
	struct frame frames[BATCH_SIZE];
};

/* What a forwarding function says of one frame: the index of the port to leave by, or
 * VERDICT_DROP + enum drop_reason. */
typedef uint16_t verdict;
#define VERDICT_DROP ((verdict)0x8000)

static inline int verdict_is_drop(verdict v)
{
	return (v & VERDICT_DROP) != 0;
}
