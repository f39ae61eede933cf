/*
 * Mbufs of DPDK's own, for ports that can't have the shared memory (slots.h). A pool belongs to one
 * worker, one NUMA node and one size of buffers; it lives until the last port is closed, as any
 * port may have any other's mbufs on their way out. Inside engine/dpdk/ only; called by control
 * alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/reason.h"

struct rte_mempool;

/* n more mbufs for that worker, with room for frames of `room` bytes. 0, or -ENOMEM with the
 * reason. */
int mbufs_reserve(uint32_t worker, int socket, uint32_t room, uint32_t n,
	struct rte_mempool **ret_pool, struct reason *r);
/* Gives a reservation back; n as reserved. With the last one all pools are freed: returns how many
 * mbufs had not come back (0: the law holds). kept: the driver is known to keep some for good, so
 * that no other port may count on them; then they are no loss. */
uint64_t mbufs_release(struct rte_mempool *pool, uint32_t n, bool kept);
