/* The life of a mem port: rings made, filled, emptied into the pool again. */
#include "engine/mem/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/mem/queue.h"
#include "frame/pool.h"

#define PREFIX	     "mem:"
#define RING_DEFAULT 2048 /* descriptors */
#define RING_MIN     BATCH_SIZE
#define RING_MAX     (1u << 20)

static bool mem_claims(const char *device)
{
	return strncmp(device, PREFIX, strlen(PREFIX)) == 0;
}

static bool ring_size_good(uint32_t n)
{
	return n >= RING_MIN && n <= RING_MAX && (n & (n - 1)) == 0;
}

static uint32_t or_default(uint32_t n)
{
	return n ? n : RING_DEFAULT;
}

static int mem_probe(
	const struct port_settings *s, enum port_mode *ret_mode, struct reason *ret_reason)
{
	if (!ring_size_good(or_default(s->rx_ring)) || !ring_size_good(or_default(s->tx_ring)))
		return reason_set(ret_reason, -EINVAL,
			"set rx_ring and tx_ring to powers of two from 64 to 1048576",
			"%s: rings of %u and %u descriptors cannot be had", s->name,
			or_default(s->rx_ring), or_default(s->tx_ring));
	if (s->mode == PORT_MODE_DPDK || s->require == PORT_MODE_DPDK)
		return reason_set(ret_reason, -EOPNOTSUPP, "leave out mode and require",
			"%s: a mem port has no DPDK mode", s->name);
	*ret_mode = PORT_MODE_ZERO_COPY;
	return 0;
}

static int ring_init(struct mem_ring *r, uint32_t size, size_t entry_size)
{
	r->entries = calloc(size, entry_size);
	r->size = size;
	return r->entries ? 0 : -ENOMEM;
}

/* Gives back what a ring holds; entries begin with their address. */
static void ring_drain(struct mem_ring *r, size_t entry_size, struct pool *pool, enum holder from)
{
	uint32_t n = r->entries ? ring_ready(r, r->size) : 0;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t at = (ring_tail(r) + i) & (r->size - 1);
		const uint8_t *entry = (const uint8_t *)r->entries + at * entry_size;
		uint64_t addr;

		memcpy(&addr, entry, sizeof(addr));
		pool_give(pool, &addr, 1, from);
	}
	free(r->entries);
}

static void queue_free(struct mem_queue *mq)
{
	struct pool *pool;

	if (!mq)
		return;
	pool = mq->queue.pool;
	ring_drain(&mq->fill, sizeof(uint64_t), pool, HOLDER_FILL);
	ring_drain(&mq->rx, sizeof(struct mem_desc), pool, HOLDER_FILL);
	ring_drain(&mq->tx, sizeof(struct mem_desc), pool, HOLDER_TX);
	ring_drain(&mq->completion, sizeof(uint64_t), pool, HOLDER_TX);
	free(mq);
}

static struct mem_queue *queue_new(
	const struct port_settings *s, const struct memory *m, struct port *p, uint32_t idx)
{
	struct mem_queue *mq = aligned_alloc(CACHE_LINE, sizeof(*mq));
	uint32_t rx_size = or_default(s->rx_ring), tx_size = or_default(s->tx_ring);
	uint32_t worker = idx % m->n_pools;

	if (!mq)
		return NULL;
	*mq = (struct mem_queue){
		.queue =
			{
				.ops = &mem_queue_ops,
				.port = p,
				.pool = &m->pools[worker],
				.memory = m->base,
				.idx = idx,
				.worker = worker,
				.frame_len_max = m->slot_size - m->pools[worker].headroom,
				.complete_checksums = s->complete_checksums,
			},
	};
	if (ring_init(&mq->fill, rx_size, sizeof(uint64_t)) < 0 ||
		ring_init(&mq->rx, rx_size, sizeof(struct mem_desc)) < 0 ||
		ring_init(&mq->tx, tx_size, sizeof(struct mem_desc)) < 0 ||
		ring_init(&mq->completion, tx_size, sizeof(uint64_t)) < 0) {
		queue_free(mq);
		return NULL;
	}
	mem_refill(mq);
	return mq;
}

static void mem_stop(struct port *p)
{
	for (uint32_t i = 0; i < p->n_queues; i++)
		queue_drop_waiting(p->queues[i], ((struct mem_queue *)p->queues[i])->rx.size);
}

static void mem_close(struct port *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; p->queues && i < p->n_queues; i++)
		queue_free((struct mem_queue *)p->queues[i]);
	free(p->queues);
	free(p);
}

static int mem_open(const struct port_settings *s, const struct memory *m, struct port **ret_port,
	struct reason *ret_reason)
{
	enum port_mode mode = PORT_MODE_AUTO;
	struct port *p;
	int err = mem_probe(s, &mode, ret_reason);

	if (err < 0)
		return err;
	p = calloc(1, sizeof(*p));
	if (!p)
		goto no_memory;
	p->engine = &mem_engine;
	p->mode = mode;
	snprintf(p->name, sizeof(p->name), "%s", s->name);
	snprintf(p->device, sizeof(p->device), "%s", s->device);
	p->n_queues = s->queues ? s->queues : m->n_pools;
	p->queues = calloc(p->n_queues, sizeof(p->queues[0]));
	if (!p->queues)
		goto no_memory;
	for (uint32_t i = 0; i < p->n_queues; i++) {
		struct mem_queue *mq = queue_new(s, m, p, i);

		if (!mq)
			goto no_memory;
		p->queues[i] = &mq->queue;
	}
	*ret_port = p;
	return 0;

no_memory:
	mem_close(p);
	return reason_set(ret_reason, -ENOMEM, "set smaller rings or fewer queues",
		"%s: no memory for its rings", s->name);
}

static uint32_t mem_counters(
	const struct port *p, uint32_t queue, struct engine_counter *ret, uint32_t n)
{
	const struct mem_queue *mq = (const struct mem_queue *)p->queues[queue];
	const struct engine_counter all[] = {
		{"rx_ring_full", counter_read(&mq->rx_ring_full)},
		{"rx_fill_empty", counter_read(&mq->rx_fill_empty)},
		{"rx_too_long", counter_read(&mq->rx_too_long)},
	};
	uint32_t i;

	for (i = 0; i < n && i < sizeof(all) / sizeof(all[0]); i++)
		ret[i] = all[i];
	return i;
}

static uint32_t mem_ifindex(const struct port *p)
{
	return 0;
}

const struct engine_ops mem_engine = {
	.name = "mem",
	.claims = mem_claims,
	.probe = mem_probe,
	.open = mem_open,
	.stop = mem_stop,
	.close = mem_close,
	.counters = mem_counters,
	.ifindex = mem_ifindex,
};
