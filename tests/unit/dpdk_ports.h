/* Ports of DPDK's devices that need nothing (net_null, net_ring, net_pcap) in a memory that they
 * share, frames that are known again, and the frame law over the memory. */
#pragma once

#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/dpdk/dpdk.h"
#include "frame/pool.h"
#include "worker/worker.h"

#define SLOTS	  4096
#define SLOT_SIZE 4096
#define HEADROOM  256
#define SKIPPED	  77

static struct pool pools[2];
static struct memory memory = {.slot_size = SLOT_SIZE, .fd = -1, .n_pools = 1, .pools = pools};

static inline void memory_make(void)
{
	memory.size = 2 * SLOTS * SLOT_SIZE;
	memory.base = aligned_alloc(SLOT_SIZE, memory.size);
	assert_non_null(memory.base);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(pool_init(&pools[i], memory.base, i * SLOTS * SLOT_SIZE, SLOTS,
					 SLOT_SIZE, HEADROOM),
			0);
}

static inline int try_open(const char *device, struct port **ret, struct reason *why)
{
	const struct port_settings s = {
		.name = "p", .device = device, .rx_ring = 256, .tx_ring = 256};

	*why = (struct reason){0};
	return engine_find(device, why)->open(&s, &memory, ret, why);
}

static inline struct port *open_port(const char *device)
{
	struct port *p = NULL;
	struct reason why;

	if (try_open(device, &p, &why) < 0)
		fail_msg("%s: %s; %s", device, why.what, why.remedy);
	return p;
}

static inline void close_port(struct port *p)
{
	p->engine->close(p);
}

/* In main: the memory, and in it the first port, which starts DPDK. NULL, with a line that says
 * why, where DPDK can't be had. */
static inline struct port *first_port(void)
{
	struct port *p = NULL;
	struct reason why;

	memory_make();
	if (try_open("dpdk:net_null0", &p, &why) < 0)
		printf("skipped: DPDK can't be had here: %s\n", why.what);
	return p;
}

/* In main, where the first port is nothing special. */
static inline bool dpdk_works(void)
{
	struct port *p = first_port();

	if (p)
		close_port(p);
	return p;
}

static inline uint64_t counter(const struct port *p, const char *name)
{
	struct engine_counter all[128];
	uint32_t n = p->engine->counters(p, 0, all, 128);

	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) == 0)
			return all[i].value;
	}
	return 0;
}

/* Two ports joined; only those of `rx` are polled. */
static inline struct snapshot join(struct port *a, struct port *b, struct queue **rx, uint32_t n_rx)
{
	struct snapshot snap = {.n_rx = n_rx, .rx = rx};

	a->index = 0;
	b->index = 1;
	rx[0] = a->queues[0];
	if (n_rx > 1)
		rx[1] = b->queues[0];
	snap.tx[0] = a->queues[0];
	snap.tx[1] = b->queues[0];
	patch_init(&snap.patch);
	patch_join(&snap.patch, 0, 1);
	return snap;
}

static inline void write_frame(struct frame *f, uint32_t number, uint32_t len)
{
	f->len = len;
	for (uint32_t i = 0; i < len; i++)
		f->data[i] = (uint8_t)(number + i);
}

static inline void check_frame(const struct frame *f, uint32_t number, uint32_t len)
{
	assert_int_equal(f->len, len);
	for (uint32_t i = 0; i < len; i++)
		assert_int_equal(f->data[i], (uint8_t)(number + i));
}

/* On a net_ring what is sent is received again. */
static inline void send_frames(struct queue *q, uint32_t n, uint32_t len)
{
	struct batch b;

	b.n = q->ops->take(q, b.frames, n);
	assert_int_equal(b.n, n);
	for (uint32_t i = 0; i < n; i++)
		write_frame(&b.frames[i], i, len);
	assert_int_equal(q->ops->tx(q, &b), 0);
}

static inline void expect_frames(struct queue *q, uint32_t n, uint32_t len)
{
	struct batch b;

	q->ops->rx(q, &b);
	assert_int_equal(b.n, n);
	for (uint32_t i = 0; i < n; i++)
		check_frame(&b.frames[i], i, len);
	q->ops->put(q, &b);
}

static inline void expect_law(const struct pool *p)
{
	assert_int_equal(pool_lost(p), 0);
	assert_int_equal(p->held[HOLDER_WORKER], 0);
}

/* Where every port is closed; the test itself may hold the others. */
static inline void expect_free(const struct pool *p, uint32_t n)
{
	expect_law(p);
	assert_int_equal(p->n_free, n);
	assert_int_equal(p->held[HOLDER_FREE], n);
}
