/*
 * A ring in plain memory with the shape of AF_XDP's (include/uapi/linux/if_xdp.h): one producer,
 * one consumer, free-running indices, descriptors of {addr, len, options}; fill and completion
 * rings hold addresses only. Each side keeps its own copy of the other's index and looks at the
 * shared one only when that copy says "too few".
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define CACHE_LINE 64 /* bytes; wrong elsewhere costs speed only */

struct mem_desc {
	uint64_t addr; /* offset in the UMEM, bytes */
	uint32_t len;
	uint32_t options;
};

struct mem_ring {
	uint32_t size; /* a power of two */
	union {
		uint64_t *addrs;
		struct mem_desc *descs;
		void *entries;
	};
	/* Written by the producer. */
	_Alignas(CACHE_LINE) _Atomic uint32_t head;
	uint32_t tail_seen;
	/* Written by the consumer. */
	_Alignas(CACHE_LINE) _Atomic uint32_t tail;
	uint32_t head_seen;
};

/* Producer: how many entries may be written, exact only when below want. */
static inline uint32_t ring_room(struct mem_ring *r, uint32_t want)
{
	uint32_t head = atomic_load_explicit(&r->head, memory_order_relaxed);
	uint32_t room = r->size - (head - r->tail_seen);

	if (room >= want)
		return room;
	r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire); /* pairs with B */
	return r->size - (head - r->tail_seen);
}

/* Producer: the index of the next entry to write, to be masked. */
static inline uint32_t ring_head(const struct mem_ring *r)
{
	return atomic_load_explicit(&r->head, memory_order_relaxed);
}

/* Producer: the next n entries are written. */
static inline void ring_submit(struct mem_ring *r, uint32_t n)
{
	atomic_store_explicit(&r->head, ring_head(r) + n, memory_order_release); /* A */
}

/* Consumer: how many entries may be read, exact only when below want. */
static inline uint32_t ring_ready(struct mem_ring *r, uint32_t want)
{
	uint32_t tail = atomic_load_explicit(&r->tail, memory_order_relaxed);
	uint32_t ready = r->head_seen - tail;

	if (ready >= want)
		return ready;
	r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire); /* pairs with A */
	return r->head_seen - tail;
}

/* Consumer: the index of the next entry to read, to be masked. */
static inline uint32_t ring_tail(const struct mem_ring *r)
{
	return atomic_load_explicit(&r->tail, memory_order_relaxed);
}

/* Consumer: the next n entries are read, and may be overwritten. */
static inline void ring_release(struct mem_ring *r, uint32_t n)
{
	atomic_store_explicit(&r->tail, ring_tail(r) + n, memory_order_release); /* B */
}

/* Of n entries from index at, those before the ring's end. */
static inline uint32_t ring_before_wrap(const struct mem_ring *r, uint32_t at, uint32_t n)
{
	uint32_t left = r->size - (at & (r->size - 1));

	return n < left ? n : left;
}
