/*
 * The slots of the shared memory as mbufs, so that frames pass between DPDK and the other engines
 * without a copy: every slot has one mbuf header for good, and DPDK's mempool of a worker takes
 * slots from the worker's pool and gives them there. Inside engine/dpdk/ only.
 *
 * A header whose slot is free is as drivers expect a fresh one (one segment, one reference),
 * whoever had the slot in between: other engines do not look at headers, and what DPDK received
 * is made so before they get it.
 */
#pragma once

#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <stdbool.h>
#include <stdint.h>

#include "frame/pool.h"

/* Of a header and what the mempool keeps before it. */
#define SLOTS_STRIDE (RTE_CACHE_LINE_SIZE + sizeof(struct rte_mbuf))

struct slots {
	struct pool *pool; /* the worker's; NULL: free entry */
	/* That of the thread that opens or closes ports: the same, or one beside it. Written by
	 * that, read by control. */
	_Atomic(struct pool *) control;
	struct rte_mempool *mempool;
	uint8_t *headers;  /* of the pool's first slot; SLOTS_STRIDE apart */
	uint8_t *first;	   /* byte of the first slot */
	uint32_t shift;	   /* of the slots' size */
	uint32_t n_strays; /* written under strays_lock; read by the owner */
	rte_spinlock_t strays_lock;
	struct rte_mbuf **strays; /* [pool->slots] */
	bool ready;
	uint32_t users; /* reservations; control's */
};

/* Control's, or of a thread that it waits for, before what takes or gives mbufs there: it does so
 * with `pool`, which is the worker's while that one stands still, or lies beside it. */
void slots_use(struct slots *s, struct pool *pool);
/* n slots of that pool, or of what it lies beside, for a queue that receives frames of up to `room`
 * bytes; control uses that pool from now on. Returns 0; -ENOBUFS: too few are left, -EMSGSIZE: a
 * slot is too small, -ENOMEM. */
int slots_reserve(struct pool *pool, uint32_t room, uint32_t n, struct slots **ret_slots);
/* Gives a reservation back, and to the pool what DPDK keeps at hand; its driver is stopped. With
 * the last reservation it returns how many slots DPDK did not give back (0: the law holds). */
uint64_t slots_release(struct slots *s, uint32_t n);
/* In drivers' hands: neither free nor at hand for the next one. */
uint32_t slots_in_use(const struct slots *s);
/* Memory of EAL's for slots, touched, on that NUMA node if it has enough (-1: on any); NULL: there
 * is not enough. */
void *slots_memory_take(size_t size, int node);
void slots_memory_give(void *base);
/* This thread may use the pools from now on: it is a worker, or has called slots_use. */
void slots_enter(void);

/* From now on its buffer begins where its slot does. */
void slots_widen(const struct slots *s, struct rte_mbuf *m);

static inline struct rte_mbuf *slots_mbuf(const struct slots *s, const uint8_t *data)
{
	uint64_t slot = (uint64_t)(data - s->first) >> s->shift;

	return (struct rte_mbuf *)(s->headers + slot * SLOTS_STRIDE);
}
