/*
 * One worker's slots of the UMEM, and who holds each: no lock, as a slot never changes worker.
 *
 *   FREE -> FILL -> WORKER -> TX -> FREE      drop: WORKER -> FREE      close: FILL -> FREE
 *   DPDK ports: FREE -> DRIVER -> WORKER -> DRIVER -> FREE
 *   the frame law: free + fill + worker + tx + driver == slots, always
 *
 * Written by its worker; the counts are read by control with relaxed loads. A debug build
 * (NDEBUG not defined) keeps the holder of every slot and asserts each move.
 */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "frame/frame.h"

/* DRIVER: DPDK's, in its drivers' rings both ways and in its caches. */
enum holder { HOLDER_FREE, HOLDER_FILL, HOLDER_WORKER, HOLDER_TX, HOLDER_DRIVER, HOLDER_COUNT };

/* "free", "fill", "worker", "tx", "driver". */
const char *holder_name(enum holder h);

struct pool {
	uint8_t *base;	    /* of the whole UMEM: an AF_XDP address is data - base */
	uint64_t first;	    /* offset of this slice in the UMEM, bytes */
	uint32_t slots;	    /* in this slice */
	uint32_t slot_size; /* bytes, a power of two: 2048 or 4096 */
	uint32_t headroom;  /* bytes free before a frame that is written into a slot */
	uint32_t n_free;
	uint32_t promised; /* slots that DPDK's ports may hold, as HOLDER_DRIVER; control's */
	uint64_t *free;	   /* stack of slot offsets in the UMEM (first byte of the slot) */
	_Atomic uint32_t held[HOLDER_COUNT]; /* slots; sums to slots at the worker's quiet point */
	uint8_t *holder;		     /* debug builds: per slot; else NULL */
	struct pool *worker;		     /* of a pool beside another: that one; else NULL */
};

/* slot_size a power of two; slices: pool i of n gets slots [i*slots, (i+1)*slots).
 * Returns 0, -EINVAL, -ENOMEM. */
int pool_init(struct pool *p, uint8_t *umem_base, uint64_t first, uint32_t slots,
	uint32_t slot_size, uint32_t headroom);
void pool_fini(struct pool *p);

/* A pool beside p, of the same slots but with none of its own: control opens and closes ports with
 * slots that are lent to it, while p's worker goes on with the others. It shares p's holders, so p
 * outlives it. Returns 0, -ENOMEM. */
int pool_beside_init(struct pool *beside, struct pool *p);
void pool_beside_fini(struct pool *beside);
/* The next two while p's worker stands at its quiet point. Lends up to n free slots. */
void pool_lend(struct pool *p, struct pool *beside, uint32_t n);
/* All that beside has, and what it counts for each holder, is p's again. */
void pool_take_back(struct pool *p, struct pool *beside);

/* Takes up to n free slots, moves them FREE -> to; writes their UMEM offsets. Returns how many. */
uint32_t pool_take(struct pool *p, uint64_t *offsets, uint32_t n, enum holder to);
/* Gives n slots back: from -> FREE. Any offset inside a slot names it. */
void pool_give(struct pool *p, const uint64_t *offsets, uint32_t n, enum holder from);
/* n slots change hands without becoming free. offsets may be NULL in release builds only. */
void pool_move(
	struct pool *p, const uint64_t *offsets, uint32_t n, enum holder from, enum holder to);
/* The next two count, of a pool beside another, both pools' slots. */
uint32_t pool_held(const struct pool *p, enum holder h);
/* Free slots that no port was promised. Control's; exact while no worker polls. */
uint32_t pool_available(const struct pool *p);
/* slots - (free + fill + worker + tx + driver): 0, or frames were lost or made. */
int64_t pool_lost(const struct pool *p);

/* pool_move for frames in hand; n at most BATCH_SIZE. */
static inline void pool_move_frames(
	struct pool *p, const struct frame *frames, uint32_t n, enum holder from, enum holder to)
{
#ifdef NDEBUG
	pool_move(p, NULL, n, from, to);
#else
	uint64_t offsets[BATCH_SIZE];

	for (uint32_t i = 0; i < n; i++)
		offsets[i] = (uint64_t)(frames[i].data - p->base);
	pool_move(p, offsets, n, from, to);
#endif
}

/* Frees frames in hand; n at most BATCH_SIZE. */
static inline void pool_give_frames(struct pool *p, const struct frame *frames, uint32_t n)
{
	uint64_t offsets[BATCH_SIZE];

	for (uint32_t i = 0; i < n; i++)
		offsets[i] = (uint64_t)(frames[i].data - p->base);
	pool_give(p, offsets, n, HOLDER_WORKER);
}

/* Takes up to n free slots for frames in hand, empty, data behind the headroom; n at most
 * BATCH_SIZE. Returns how many. */
static inline uint32_t pool_take_frames(struct pool *p, struct frame *frames, uint32_t n)
{
	uint64_t offsets[BATCH_SIZE];

	n = pool_take(p, offsets, n < BATCH_SIZE ? n : BATCH_SIZE, HOLDER_WORKER);
	for (uint32_t i = 0; i < n; i++)
		frames[i] = (struct frame){.data = p->base + offsets[i] + p->headroom};
	return n;
}
