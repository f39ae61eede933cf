/* One queue of a mem port: the worker's side in queue.c, the NIC's in nic.c. */
#pragma once

#include "engine/engine.h"
#include "engine/mem/ring.h"

struct mem_queue {
	struct queue queue; /* first */
	struct mem_ring fill, rx, tx, completion;
	/* Written by the NIC's side. */
	struct counter rx_ring_full, rx_fill_empty, rx_too_long;
};

static inline struct mem_queue *mem_queue_of(struct queue *q)
{
	return (struct mem_queue *)q;
}

/* Moves slots from the pool to the fill ring while a block of them fits. */
void mem_refill(struct mem_queue *mq);

extern const struct queue_ops mem_queue_ops;
