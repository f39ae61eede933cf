/* The worker's side of a mem queue: the same ring work as AF_XDP's, without the kernel. */
#include "engine/mem/queue.h"

#include "frame/pool.h"

#define BLOCK BATCH_SIZE /* slots moved to the fill ring at once; fewer in a small ring */

void mem_refill(struct mem_queue *mq)
{
	struct mem_ring *r = &mq->fill;
	struct pool *pool = mq->queue.pool;
	uint32_t block = r->size / 4 < BLOCK ? r->size / 4 : BLOCK;

	while (ring_room(r, block) >= block && pool->n_free > 0) {
		uint32_t at = ring_head(r);
		uint32_t part = ring_before_wrap(r, at, block);
		uint32_t n = pool_take(pool, r->addrs + (at & (r->size - 1)), part, HOLDER_FILL);

		if (n == part && part < block)
			n += pool_take(pool, r->addrs, block - part, HOLDER_FILL);
		ring_submit(r, n);
	}
}

/* Both loops run over one stretch of the ring: no masking, and nothing they read can change under
 * what they write. */
static inline uint64_t descs_read(struct frame *restrict frames,
	const struct mem_desc *restrict descs, uint32_t n, uint8_t *base)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++) {
		frames[i].data = base + descs[i].addr;
		frames[i].len = descs[i].len;
		frames[i].flags = 0;
		bytes += descs[i].len;
	}
	return bytes;
}

static inline uint64_t descs_write(struct mem_desc *restrict descs,
	const struct frame *restrict frames, uint32_t n, const uint8_t *base)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < n; i++) {
		descs[i].addr = (uint64_t)(frames[i].data - base);
		descs[i].len = frames[i].len;
		descs[i].options = 0;
		bytes += frames[i].len;
	}
	return bytes;
}

static void mem_rx(struct queue *q, struct batch *b)
{
	struct mem_queue *mq = mem_queue_of(q);
	struct mem_ring *r = &mq->rx;
	uint8_t *base = q->pool->base;
	uint32_t n, at, part;
	uint64_t bytes;

	mem_refill(mq);
	n = ring_ready(r, BATCH_SIZE);
	if (n > BATCH_SIZE)
		n = BATCH_SIZE;
	b->n = n;
	if (n == 0)
		return;
	at = ring_tail(r);
	part = ring_before_wrap(r, at, n);
	bytes = descs_read(b->frames, r->descs + (at & (r->size - 1)), part, base);
	bytes += descs_read(b->frames + part, r->descs, n - part, base);
	ring_release(r, n);
	pool_move_frames(q->pool, b->frames, n, HOLDER_FILL, HOLDER_WORKER);
	counter_add(&q->stats.rx_frames, n);
	counter_add(&q->stats.rx_bytes, bytes);
}

static uint32_t mem_tx(struct queue *q, const struct batch *b)
{
	struct mem_ring *r = &mem_queue_of(q)->tx;
	uint32_t at = ring_head(r), n = ring_room(r, b->n), part;
	const uint8_t *base = q->pool->base;
	uint64_t bytes;

	if (n > b->n)
		n = b->n;
	part = ring_before_wrap(r, at, n);
	bytes = descs_write(r->descs + (at & (r->size - 1)), b->frames, part, base);
	bytes += descs_write(r->descs, b->frames + part, n - part, base);
	pool_move_frames(q->pool, b->frames, n, HOLDER_WORKER, HOLDER_TX);
	ring_submit(r, n);
	counter_add(&q->stats.tx_frames, n);
	counter_add(&q->stats.tx_bytes, bytes);
	if (n < b->n)
		pool_give_frames(q->pool, b->frames + n, b->n - n);
	return b->n - n;
}

static void mem_reap(struct queue *q)
{
	struct mem_ring *r = &mem_queue_of(q)->completion;
	uint32_t n = ring_ready(r, BATCH_SIZE), at, part;

	if (n == 0)
		return;
	at = ring_tail(r);
	part = ring_before_wrap(r, at, n);
	pool_give(q->pool, r->addrs + (at & (r->size - 1)), part, HOLDER_TX);
	if (part < n)
		pool_give(q->pool, r->addrs, n - part, HOLDER_TX);
	ring_release(r, n);
}

static uint32_t mem_take(struct queue *q, struct frame *frames, uint32_t n)
{
	return pool_take_frames(q->pool, frames, n);
}

static void mem_put(struct queue *q, const struct batch *b)
{
	pool_give_frames(q->pool, b->frames, b->n);
}

static int mem_wait_fd(const struct queue *q)
{
	return -1;
}

const struct queue_ops mem_queue_ops = {
	.rx = mem_rx,
	.tx = mem_tx,
	.reap = mem_reap,
	.take = mem_take,
	.put = mem_put,
	.wait_fd = mem_wait_fd,
};
