/* Two joined mem ports, of one memory or of two, and the frame law over them. */
#pragma once

#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "engine/mem/mem.h"
#include "frame/pool.h"
#include "worker/worker.h"

#define SLOTS	  1024
#define SLOT_SIZE 4096
#define HEADROOM  256
#define LONGEST	  (SLOT_SIZE - HEADROOM)

struct umem {
	struct memory memory;
	struct pool pool;
};

/* Two joined ports, of one memory or of two. */
struct pair {
	struct umem umems[2];
	struct port *ports[2];
	struct queue *rx[2];
	struct snapshot snap;
};

static inline void umem_make(struct umem *u, uint32_t slots)
{
	u->memory = (struct memory){
		.base = aligned_alloc(SLOT_SIZE, (size_t)slots * SLOT_SIZE),
		.size = (size_t)slots * SLOT_SIZE,
		.slot_size = SLOT_SIZE,
		.fd = -1,
		.n_pools = 1,
		.pools = &u->pool,
	};
	assert_non_null(u->memory.base);
	assert_int_equal(pool_init(&u->pool, u->memory.base, 0, slots, SLOT_SIZE, HEADROOM), 0);
}

static inline void pair_make(struct pair *t, bool two_memories, uint32_t tx_ring, uint32_t slots_b)
{
	memset(t, 0, sizeof(*t));
	umem_make(&t->umems[0], SLOTS);
	if (two_memories)
		umem_make(&t->umems[1], slots_b);
	patch_init(&t->snap.patch);
	patch_join(&t->snap.patch, 0, 1);
	for (uint32_t i = 0; i < 2; i++) {
		struct umem *u = &t->umems[two_memories ? i : 0];
		struct port_settings s = {
			.name = i ? "b" : "a",
			.device = i ? "mem:b" : "mem:a",
			.rx_ring = 64,
			.tx_ring = tx_ring,
		};
		struct reason why;

		assert_ptr_equal(engine_find(s.device, &why), &mem_engine);
		assert_int_equal(mem_engine.open(&s, &u->memory, &t->ports[i], &why), 0);
		t->ports[i]->index = i;
		t->rx[i] = t->ports[i]->queues[0];
		t->snap.tx[i] = t->rx[i];
	}
	t->snap.rx = t->rx;
	t->snap.n_rx = 2;
}

static inline void law_holds(const struct umem *u)
{
	if (!u->memory.base)
		return;
	assert_int_equal(pool_lost(&u->pool), 0);
	assert_int_equal(u->pool.held[HOLDER_WORKER], 0);
}

/* After close every slot is free again. */
static inline void pair_end(struct pair *t)
{
	for (int i = 0; i < 2; i++)
		law_holds(&t->umems[i]);
	for (int i = 0; i < 2; i++)
		mem_engine.close(t->ports[i]);
	for (int i = 0; i < 2; i++) {
		if (!t->umems[i].memory.base)
			continue;
		assert_int_equal(t->umems[i].pool.n_free, t->umems[i].pool.slots);
		assert_int_equal(t->umems[i].pool.held[HOLDER_FREE], t->umems[i].pool.slots);
		pool_fini(&t->umems[i].pool);
		free(t->umems[i].memory.base);
	}
}
