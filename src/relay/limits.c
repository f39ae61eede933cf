/* Rate limits: one moment in time says all there is to say (the generic cell rate algorithm). */
#include "relay/limits.h"

#define SECOND 1000000000ULL

void limit_init(struct limit *l, uint64_t per_s, uint64_t burst_ns)
{
	l->per_s = per_s;
	l->burst_ns = burst_ns;
	atomic_init(&l->paid_ns, 0);
}

uint64_t limit_wait_ns(const struct limit *l, uint64_t now_ns)
{
	uint64_t paid;

	if (!l->per_s)
		return 0;
	paid = atomic_load_explicit(&l->paid_ns, memory_order_relaxed);
	return paid > now_ns ? paid - now_ns : 0;
}

void limit_charge(struct limit *l, uint64_t units, uint64_t now_ns)
{
	uint64_t paid, next, oldest, cost;

	if (!l->per_s)
		return;
	cost = (uint64_t)((double)units * (double)SECOND / (double)l->per_s);
	oldest = now_ns > l->burst_ns ? now_ns - l->burst_ns : 0;
	paid = atomic_load_explicit(&l->paid_ns, memory_order_relaxed);
	do {
		next = (paid < oldest ? oldest : paid) + cost;
	} while (!atomic_compare_exchange_weak_explicit(
		&l->paid_ns, &paid, next, memory_order_relaxed, memory_order_relaxed));
}

uint64_t limit_chunk(const struct limit *l, uint64_t slice_ns, uint64_t min)
{
	double units;

	if (!l->per_s)
		return UINT64_MAX;
	units = (double)l->per_s * (double)slice_ns / (double)SECOND;
	return units < (double)min ? min : (uint64_t)units;
}
