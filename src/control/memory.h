/* The memory of all engines, cut into one pool of slots for each worker. */
#pragma once

#include "engine/engine.h"

struct memory_need {
	const struct engine_ops *from;	/* who allocates it if he can; NULL: no engine must */
	const char *devices[PORTS_MAX]; /* of that engine */
	uint32_t n_devices;
	uint32_t n_pools;   /* one a worker */
	uint32_t slots;	    /* in each */
	uint32_t slot_size; /* bytes */
};

/* A memfd, or what need->from allocates if that can be had. Huge pages where there are enough of
 * them. 0, or -errno with the reason. */
int memory_make(const struct memory_need *need, struct memory *ret_memory, struct reason *r);
/* Takes one that was never made (all zero). No engine may hold slots. */
void memory_free(struct memory *m);
