/* The memory of all engines, cut into one pool of slots for each worker. */
#pragma once

#include "engine/engine.h"

/* A memfd, or what `from` allocates if that can be had (NULL: need not be tried). Huge pages where
 * there are enough of them. 0, or -errno with the reason. */
int memory_make(const struct engine_ops *from, uint32_t n_pools, uint32_t slots, uint32_t slot_size,
	struct memory *ret_memory, struct reason *r);
/* Takes one that was never made (all zero). No engine may hold slots. */
void memory_free(struct memory *m);
