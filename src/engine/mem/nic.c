/* The NIC's side of a mem queue, played by tests and benchmarks. */
#include <errno.h>
#include <string.h>

#include "engine/mem/mem.h"
#include "engine/mem/queue.h"
#include "frame/pool.h"

int mem_inject(struct queue *q, const void *bytes, uint32_t len)
{
	struct mem_queue *mq = mem_queue_of(q);
	const struct pool *pool = q->pool;
	uint64_t addr;

	if (len > pool->slot_size - pool->headroom) {
		counter_add(&mq->rx_too_long, 1);
		return -EMSGSIZE;
	}
	if (ring_ready(&mq->fill, 1) == 0) {
		counter_add(&mq->rx_fill_empty, 1);
		return -ENOBUFS;
	}
	if (ring_room(&mq->rx, 1) == 0) {
		counter_add(&mq->rx_ring_full, 1);
		return -ENOBUFS;
	}
	addr = mq->fill.addrs[ring_tail(&mq->fill) & (mq->fill.size - 1)] + pool->headroom;
	ring_release(&mq->fill, 1);
	memcpy(pool->base + addr, bytes, len);
	mq->rx.descs[ring_head(&mq->rx) & (mq->rx.size - 1)] = (struct mem_desc){addr, len, 0};
	ring_submit(&mq->rx, 1);
	return 0;
}

/* The longest stretch of at most n entries that neither of two rings wraps in. */
static uint32_t stretch(const struct mem_ring *a, uint32_t at_a, const struct mem_ring *b,
	uint32_t at_b, uint32_t n)
{
	return ring_before_wrap(a, at_a, ring_before_wrap(b, at_b, n));
}

/* Sent frames become completions; there is always room for them, as tx bounds what is out. */
static uint32_t complete(struct mem_queue *mq, uint32_t n)
{
	struct mem_ring *tx = &mq->tx, *done = &mq->completion;
	uint32_t ready = ring_ready(tx, n), room = ring_room(done, n);
	uint32_t from = ring_tail(tx), to = ring_head(done), part;

	n = n < ready ? n : ready;
	n = n < room ? n : room;
	for (uint32_t moved = 0; moved < n; moved += part) {
		const struct mem_desc *restrict descs =
			tx->descs + ((from + moved) & (tx->size - 1));
		uint64_t *restrict addrs = done->addrs + ((to + moved) & (done->size - 1));

		part = stretch(tx, from + moved, done, to + moved, n - moved);
		for (uint32_t i = 0; i < part; i++)
			addrs[i] = descs[i].addr;
	}
	ring_release(tx, n);
	ring_submit(done, n);
	return n;
}

int mem_collect(struct queue *q, void *bytes, uint32_t size)
{
	struct mem_queue *mq = mem_queue_of(q);
	struct mem_desc d;

	if (ring_ready(&mq->tx, 1) == 0 || ring_room(&mq->completion, 1) == 0)
		return -EAGAIN;
	d = mq->tx.descs[ring_tail(&mq->tx) & (mq->tx.size - 1)];
	memcpy(bytes, q->pool->base + d.addr, d.len < size ? d.len : size);
	complete(mq, 1);
	return (int)d.len;
}

uint32_t mem_play(struct queue *q, uint32_t len, uint32_t n)
{
	struct mem_queue *mq = mem_queue_of(q);
	struct mem_ring *fill = &mq->fill, *rx = &mq->rx;
	uint32_t ready = ring_ready(fill, n), room = ring_room(rx, n);
	uint32_t from = ring_tail(fill), to = ring_head(rx), part;
	uint32_t arrive = n < ready ? n : ready;
	uint64_t headroom = q->pool->headroom;

	arrive = arrive < room ? arrive : room;
	for (uint32_t moved = 0; moved < arrive; moved += part) {
		const uint64_t *restrict addrs = fill->addrs + ((from + moved) & (fill->size - 1));
		struct mem_desc *restrict descs = rx->descs + ((to + moved) & (rx->size - 1));

		part = stretch(fill, from + moved, rx, to + moved, arrive - moved);
		for (uint32_t i = 0; i < part; i++) {
			descs[i].addr = addrs[i] + headroom;
			descs[i].len = len;
			descs[i].options = 0;
		}
	}
	ring_release(fill, arrive);
	ring_submit(rx, arrive);
	complete(mq, n);
	return arrive;
}
