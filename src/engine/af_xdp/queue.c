/* The hot path of one queue: receive, transmit, and give finished frames back. */
#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

#include "engine/af_xdp/internal.h"

/* Slots are handed over in blocks: one publication for many. At most this many are missing. */
#define REFILL_BLOCK 32
/* System calls in one go to empty the tx ring. Copy mode sends 32 frames a call where the kernel
 * doesn't know XDP_MAX_TX_SKB_BUDGET (net/xdp/xsk.c, TX_BATCH_SIZE): a batch takes two. */
#define KICKS_MAX 8
/* Tries to make room in a full tx ring before frames are dropped. */
#define TX_TRIES 4

static struct xdp_queue *of(struct queue *q)
{
	return (struct xdp_queue *)q;
}

static inline uint8_t *lent(struct xdp_queue *q, uint64_t address)
{
	const struct pool *p = q->base.pool;
	uint64_t slot = (address - p->first) / p->slot_size;

	assert(address >= p->first && slot < p->slots);
	return &q->lent[slot];
}

static void refill_block(struct xdp_queue *q, uint32_t n)
{
	uint64_t offsets[REFILL_BLOCK];

	n = ring_room(&q->fill, n < REFILL_BLOCK ? n : REFILL_BLOCK);
	n = pool_take(q->base.pool, offsets, n, HOLDER_FILL);
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++) {
		*lent(q, offsets[i]) = HOLDER_FILL;
		*ring_address(&q->fill, q->fill.ours + i) = offsets[i];
	}
	ring_submit(&q->fill, n);
	q->n_fill += n;
}

void xdp_queue_refill(struct xdp_queue *q)
{
	uint32_t had;

	do {
		had = q->n_fill;
		refill_block(q, q->fill_target - q->n_fill);
	} while (q->n_fill != had && q->n_fill < q->fill_target);
}

static void rx(struct queue *base, struct batch *b)
{
	struct xdp_queue *q = of(base);
	struct pool *pool = base->pool;
	uint64_t bytes = 0;
	uint32_t n;

	if (q->fill_target - q->n_fill >= REFILL_BLOCK)
		xdp_queue_refill(q);
	if (q->busy || ring_needs_wakeup(&q->fill))
		recvfrom(q->fd, NULL, 0, MSG_DONTWAIT, NULL, NULL);

	n = ring_ready(&q->rx, BATCH_SIZE);
	b->n = n;
	if (n == 0)
		return;
	for (uint32_t i = 0; i < n; i++) {
		const struct xdp_desc *d = ring_desc(&q->rx, q->rx.ours + i);

		b->frames[i] = (struct frame){.data = pool->base + d->addr, .len = d->len};
		bytes += d->len;
		assert(*lent(q, d->addr) == HOLDER_FILL);
		*lent(q, d->addr) = HOLDER_FREE;
	}
	ring_release(&q->rx, n);
	q->n_fill -= n;
	pool_move_frames(pool, b->frames, n, HOLDER_FILL, HOLDER_WORKER);
	counter_add(&base->stats.rx_frames, n);
	counter_add(&base->stats.rx_bytes, bytes);
}

/* Takes finished transmissions back. */
static void collect(struct xdp_queue *q)
{
	uint64_t offsets[BATCH_SIZE];
	uint32_t n;

	while ((n = ring_ready(&q->done, BATCH_SIZE)) > 0) {
		for (uint32_t i = 0; i < n; i++) {
			offsets[i] = *ring_address(&q->done, q->done.ours + i);
			assert(*lent(q, offsets[i]) == HOLDER_TX);
			*lent(q, offsets[i]) = HOLDER_FREE;
		}
		ring_release(&q->done, n);
		q->n_tx -= n;
		pool_give(q->base.pool, offsets, n, HOLDER_TX);
	}
}

/* Copy mode stops after a few frames (EAGAIN), or for want of memory or room in the device's queue
 * (ENOBUFS, EBUSY): what is left waits for the next turn. A device that is down keeps it. */
static void kick(struct xdp_queue *q)
{
	for (int i = 0; i < KICKS_MAX && ring_needs_wakeup(&q->tx); i++) {
		ssize_t err = sendto(q->fd, NULL, 0, MSG_DONTWAIT, NULL, 0);

		counter_add(&q->base.stats.tx_kicks, 1);
		if (ring_drained(&q->tx) || (err < 0 && errno != EAGAIN))
			break;
	}
}

void xdp_queue_reap(struct xdp_queue *q)
{
	if (q->n_tx == 0)
		return;
	/* Also when the ring is empty but completions lag: zero-copy drivers finish them only when
	 * woken, and say so by the flag. Copy mode always has the flag set, and nothing to do. */
	if (!ring_drained(&q->tx) || q->base.port->mode == PORT_MODE_ZERO_COPY)
		kick(q);
	collect(q);
}

static void reap(struct queue *base)
{
	xdp_queue_reap(of(base));
}

static uint32_t tx(struct queue *base, const struct batch *b)
{
	struct xdp_queue *q = of(base);
	const uint8_t *memory = base->pool->base;
	uint64_t bytes = 0;
	uint32_t n = ring_room(&q->tx, b->n);

	for (int i = 0; n < b->n && i < TX_TRIES; i++) {
		kick(q);
		collect(q);
		n = ring_room(&q->tx, b->n);
	}
	for (uint32_t i = 0; i < n; i++) {
		const struct frame *f = &b->frames[i];
		uint64_t address = (uint64_t)(f->data - memory);

		*lent(q, address) = HOLDER_TX;
		*ring_desc(&q->tx, q->tx.ours + i) =
			(struct xdp_desc){.addr = address, .len = f->len};
		bytes += f->len;
	}
	if (n > 0) {
		pool_move_frames(base->pool, b->frames, n, HOLDER_WORKER, HOLDER_TX);
		ring_submit(&q->tx, n);
		q->n_tx += n;
		counter_add(&base->stats.tx_frames, n);
		counter_add(&base->stats.tx_bytes, bytes);
	}
	if (n < b->n)
		pool_give_frames(base->pool, b->frames + n, b->n - n);
	return b->n - n;
}

static uint32_t take(struct queue *base, struct frame *frames, uint32_t n)
{
	return pool_take_frames(base->pool, frames, n);
}

static void put(struct queue *base, const struct batch *b)
{
	pool_give_frames(base->pool, b->frames, b->n);
}

static int wait_fd(const struct queue *base)
{
	return ((const struct xdp_queue *)base)->fd;
}

const struct queue_ops af_xdp_queue_ops = {
	.rx = rx,
	.tx = tx,
	.reap = reap,
	.take = take,
	.put = put,
	.wait_fd = wait_fd,
};
