/* What the parts of the relay know of the whole. */
#pragma once

#include "relay/live.h"
#include "relay/loop.h"

struct resolver;

struct relay {
	unsigned int n_loops;
	struct loop *loops;
	uint64_t max_connections;
	unsigned int n_started; /* threads */
	struct resolver *resolver;
	struct route *routes;	  /* control's list, newest last */
	bool once;		  /* sources are sent once, FIFOs too, and control waits for that */
	int over_fd;		  /* an eventfd: one more of them is over; -1: not once */
	_Atomic uint32_t sources; /* not over yet; any loop */
	_Atomic uint32_t unsent;  /* over, and not all was delivered; any loop */
};

/* Connections on all loops, or on their way to one. */
static inline uint64_t relay_load(struct relay *relay)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < relay->n_loops; i++)
		n += atomic_load_explicit(&relay->loops[i].load, memory_order_relaxed);
	return n;
}

/* Trouble on this machine says nothing about the target. */
bool loop_is_to_blame(int err);
/* Whether it is time for another line about what connections meet: at most every 10 s. */
bool loop_may_tell(struct loop *loop);
/* Says, at most as often, that this machine refused a system call, and what helps. */
void loop_exhausted(struct loop *loop, const char *call, int err);
