/* One worker's slots of the UMEM: a stack of free ones, and a count for every kind of holder. */
#include "frame/pool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *holder_name(enum holder h)
{
	static const char *const names[] = {"free", "fill", "worker", "tx", "driver"};

	_Static_assert(sizeof(names) / sizeof(names[0]) == HOLDER_COUNT, "one name a holder");
	return names[h];
}

/* One writer: a load and a store do, and no lock prefix is paid. */
static void held_add(struct pool *p, enum holder h, uint32_t n)
{
	uint32_t now = atomic_load_explicit(&p->held[h], memory_order_relaxed);

	atomic_store_explicit(&p->held[h], now + n, memory_order_relaxed);
}

#ifdef NDEBUG
static void holders_move(
	struct pool *p, const uint64_t *offsets, uint32_t n, enum holder from, enum holder to)
{
}
#else
static void holders_move(
	struct pool *p, const uint64_t *offsets, uint32_t n, enum holder from, enum holder to)
{
	for (uint32_t i = 0; i < n; i++) {
		uint64_t slot = (offsets[i] - p->first) / p->slot_size;

		assert(offsets[i] >= p->first && slot < p->slots);
		assert(p->holder[slot] == from);
		p->holder[slot] = (uint8_t)to;
	}
}
#endif

int pool_init(struct pool *p, uint8_t *umem_base, uint64_t first, uint32_t slots,
	uint32_t slot_size, uint32_t headroom)
{
	if (slots == 0 || slot_size == 0 || (slot_size & (slot_size - 1)) != 0 ||
		first % slot_size != 0 || headroom >= slot_size)
		return -EINVAL;

	*p = (struct pool){
		.base = umem_base,
		.first = first,
		.slots = slots,
		.slot_size = slot_size,
		.headroom = headroom,
		.n_free = slots,
	};
	p->free = malloc(slots * sizeof(p->free[0]));
	if (!p->free)
		return -ENOMEM;
#ifndef NDEBUG
	p->holder = calloc(slots, 1); /* HOLDER_FREE is 0 */
	if (!p->holder) {
		pool_fini(p);
		return -ENOMEM;
	}
#endif
	/* The top of the stack is the lowest slot, so that few slots are touched at low load. */
	for (uint32_t i = 0; i < slots; i++)
		p->free[i] = first + (uint64_t)(slots - 1 - i) * slot_size;
	atomic_store_explicit(&p->held[HOLDER_FREE], slots, memory_order_relaxed);
	return 0;
}

void pool_fini(struct pool *p)
{
	free(p->free);
	free(p->holder);
	*p = (struct pool){0};
}

int pool_beside_init(struct pool *beside, struct pool *p)
{
	*beside = (struct pool){
		.base = p->base,
		.first = p->first,
		.slots = p->slots,
		.slot_size = p->slot_size,
		.headroom = p->headroom,
		.holder = p->holder,
		.worker = p,
	};
	beside->free = malloc(p->slots * sizeof(p->free[0]));
	return beside->free ? 0 : -ENOMEM;
}

void pool_beside_fini(struct pool *beside)
{
	free(beside->free);
	*beside = (struct pool){0};
}

static void free_move(struct pool *from, struct pool *to, uint32_t n)
{
	from->n_free -= n;
	memcpy(to->free + to->n_free, from->free + from->n_free, n * sizeof(to->free[0]));
	to->n_free += n;
}

void pool_lend(struct pool *p, struct pool *beside, uint32_t n)
{
	if (n > p->n_free)
		n = p->n_free;
	free_move(p, beside, n);
	held_add(p, HOLDER_FREE, -n);
	held_add(beside, HOLDER_FREE, n);
}

void pool_take_back(struct pool *p, struct pool *beside)
{
	free_move(beside, p, beside->n_free);
	for (int h = 0; h < HOLDER_COUNT; h++) {
		/* Below zero (it wraps) where a port gave back what p counted. */
		uint32_t n = atomic_load_explicit(&beside->held[h], memory_order_relaxed);

		held_add(p, h, n);
		held_add(beside, h, -n);
	}
}

uint32_t pool_take(struct pool *p, uint64_t *offsets, uint32_t n, enum holder to)
{
	if (n > p->n_free)
		n = p->n_free;
	p->n_free -= n;
	memcpy(offsets, p->free + p->n_free, n * sizeof(offsets[0]));
	holders_move(p, offsets, n, HOLDER_FREE, to);
	held_add(p, HOLDER_FREE, -n);
	held_add(p, to, n);
	return n;
}

void pool_give(struct pool *p, const uint64_t *offsets, uint32_t n, enum holder from)
{
	uint64_t mask = ~(uint64_t)(p->slot_size - 1);
	uint64_t *top = p->free + p->n_free;

	assert(n <= p->slots - p->n_free);
	holders_move(p, offsets, n, from, HOLDER_FREE);
	for (uint32_t i = 0; i < n; i++)
		top[i] = offsets[i] & mask;
	p->n_free += n;
	held_add(p, from, -n);
	held_add(p, HOLDER_FREE, n);
}

void pool_move(
	struct pool *p, const uint64_t *offsets, uint32_t n, enum holder from, enum holder to)
{
	holders_move(p, offsets, n, from, to);
	held_add(p, from, -n);
	held_add(p, to, n);
}

uint32_t pool_held(const struct pool *p, enum holder h)
{
	uint32_t n = atomic_load_explicit(&p->held[h], memory_order_relaxed);

	/* Beside alone it may be below zero (it wraps). */
	return p->worker ? n + pool_held(p->worker, h) : n;
}

uint32_t pool_available(const struct pool *p)
{
	uint32_t promised = p->worker ? p->worker->promised : p->promised;
	uint32_t had = pool_held(p, HOLDER_DRIVER), n_free = pool_held(p, HOLDER_FREE);
	uint32_t awaited = promised > had ? promised - had : 0;

	return n_free > awaited ? n_free - awaited : 0;
}

int64_t pool_lost(const struct pool *p)
{
	int64_t sum = 0;

	for (int h = 0; h < HOLDER_COUNT; h++)
		sum += atomic_load_explicit(&p->held[h], memory_order_relaxed);
	return (int64_t)p->slots - sum;
}
