/*
 * Rates: a limit lets through one unit every 1/rate seconds on average and up to `burst_ns`
 * worth of units at once. What is let through is charged afterwards, so that a chunk may be as
 * large as it likes and the next one waits for it. Any number of threads may share one.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct limit {
	uint64_t per_s;		  /* units; 0: no limit */
	uint64_t burst_ns;	  /* how much unused time is saved up */
	_Atomic uint64_t paid_ns; /* everything up to this moment is used; any thread */
};

void limit_init(struct limit *l, uint64_t per_s, uint64_t burst_ns);
/* How long to wait before something may pass: 0 is now. */
uint64_t limit_wait_ns(const struct limit *l, uint64_t now_ns);
void limit_charge(struct limit *l, uint64_t units, uint64_t now_ns);
/* The units that fit into slice_ns, at least min: a chunk that keeps the stream smooth. */
uint64_t limit_chunk(const struct limit *l, uint64_t slice_ns, uint64_t min);
