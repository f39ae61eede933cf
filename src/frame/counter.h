/*
 * A counter with one writer: a plain addition for the thread that counts, never torn and never a
 * data race for those who read it (control, metrics). No lock prefix on any machine.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

struct counter {
	_Atomic uint64_t value;
};

/* By the one writer. */
static inline void counter_add(struct counter *c, uint64_t n)
{
	uint64_t now = atomic_load_explicit(&c->value, memory_order_relaxed);

	atomic_store_explicit(&c->value, now + n, memory_order_relaxed);
}

/* By anyone. */
static inline uint64_t counter_read(const struct counter *c)
{
	return atomic_load_explicit(&c->value, memory_order_relaxed);
}
