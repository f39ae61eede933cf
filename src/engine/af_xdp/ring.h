/*
 * The four rings an AF_XDP socket shares with the kernel, by the batch.
 *
 * One side writes the producer's number, the other the consumer's; numbers run free and are masked
 * at use (Documentation/networking/af_xdp.rst). Barriers, in pairs with the kernel's
 * (net/xdp/xsk_queue.h): A) what we store release in *producer, it loads acquire; B) what it stores
 * in *producer, we load acquire; C) what we store release in *consumer, it loads acquire; D) what
 * it stores in *consumer, we load acquire.
 */
#pragma once

#include <linux/if_xdp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ring {
	uint32_t *producer, *consumer, *flags; /* in the mapping */
	void *entries; /* struct xdp_desc (rx, tx) or uint64_t (fill, completion) */
	uint32_t mask;
	uint32_t size;	 /* entries, a power of two */
	uint32_t ours;	 /* our own number, not yet published */
	uint32_t theirs; /* the other side's, as last seen */
	void *map;
	size_t map_size; /* bytes */
};

/* Producer (fill, tx): how many of n entries may be written at r->ours. */
static inline uint32_t ring_room(struct ring *r, uint32_t n)
{
	uint32_t room = r->size - (r->ours - r->theirs);

	if (room < n) {
		r->theirs = __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE); /* D */
		room = r->size - (r->ours - r->theirs);
	}
	return room < n ? room : n;
}

static inline void ring_submit(struct ring *r, uint32_t n)
{
	r->ours += n;
	__atomic_store_n(r->producer, r->ours, __ATOMIC_RELEASE); /* A */
}

/* Has the kernel taken everything we submitted? */
static inline bool ring_drained(const struct ring *r)
{
	return __atomic_load_n(r->consumer, __ATOMIC_ACQUIRE) == r->ours;
}

/* Consumer (rx, completion): how many of n entries may be read at r->ours. */
static inline uint32_t ring_ready(struct ring *r, uint32_t n)
{
	uint32_t ready = r->theirs - r->ours;

	if (ready == 0) {
		r->theirs = __atomic_load_n(r->producer, __ATOMIC_ACQUIRE); /* B */
		ready = r->theirs - r->ours;
	}
	return ready < n ? ready : n;
}

static inline void ring_release(struct ring *r, uint32_t n)
{
	r->ours += n;
	__atomic_store_n(r->consumer, r->ours, __ATOMIC_RELEASE); /* C */
}

/* Without XDP_USE_NEED_WAKEUP in the kernel the flag is never set, and sockets that lack it are
 * not made (socket.c). */
static inline bool ring_needs_wakeup(const struct ring *r)
{
	return (__atomic_load_n(r->flags, __ATOMIC_RELAXED) & XDP_RING_NEED_WAKEUP) != 0;
}

static inline struct xdp_desc *ring_desc(const struct ring *r, uint32_t number)
{
	return (struct xdp_desc *)r->entries + (number & r->mask);
}

static inline uint64_t *ring_address(const struct ring *r, uint32_t number)
{
	return (uint64_t *)r->entries + (number & r->mask);
}
