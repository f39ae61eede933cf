/*
 * One turn of the loop: every queue's frames in, the function's verdict, out again or dropped.
 *
 * A patched port's frames all leave by one port, so a batch goes on as it came, without grouping.
 * No allocation, lock, log, clock or unbounded wait here; the only system calls are the engines'.
 */
#include <string.h>

#include "frame/checksum.h"
#include "worker/worker.h"

#define PREFETCH_AHEAD 4 /* frames whose headers are fetched before they are read */

static void drop(struct queue *in, const struct batch *b, enum drop_reason reason)
{
	if (b->n == 0)
		return;
	counter_add(&in->stats.drops[reason], b->n);
	in->ops->put(in, b);
}

/* Partial checksums: left to the device that sends the frame where that can do it (out may be
 * NULL), else completed here. */
static void complete_checksums(struct queue *in, const struct queue *out, struct batch *b)
{
	bool offload = out && out->offload_checksums;
	uint32_t completed = 0, offloaded = 0;
	struct checksum_place place;

	for (uint32_t i = 0; i < b->n && i < PREFETCH_AHEAD; i++)
		__builtin_prefetch(b->frames[i].data);
	for (uint32_t i = 0; i < b->n; i++) {
		struct frame *f = &b->frames[i];

		if (i + PREFETCH_AHEAD < b->n)
			__builtin_prefetch(b->frames[i + PREFETCH_AHEAD].data);
		f->flags &= ~FRAME_CHECKSUM_PARTIAL;
		if (offload && checksum_is_partial(f->data, f->len, &place)) {
			f->flags |= FRAME_CHECKSUM_PARTIAL;
			offloaded++;
		} else {
			completed += checksum_complete(f->data, f->len);
		}
	}
	counter_add(&in->stats.checksums_completed, completed);
	counter_add(&in->stats.checksums_offloaded, offloaded);
}

/* Leaves in b what out can send; the rest is dropped. */
static void drop_too_long(struct queue *in, const struct queue *out, struct batch *b)
{
	struct batch longer = {.n = 0};
	uint32_t kept = 0;

	for (uint32_t i = 0; i < b->n; i++) {
		if (b->frames[i].len > out->frame_len_max)
			longer.frames[longer.n++] = b->frames[i];
		else
			b->frames[kept++] = b->frames[i];
	}
	b->n = kept;
	drop(in, &longer, DROP_TOO_LONG);
}

/* The frames are in memory that out cannot send from. */
static void send_copies(struct queue *in, struct queue *out, const struct batch *b)
{
	struct batch copies;
	uint32_t dropped;

	copies.n = out->ops->take(out, copies.frames, b->n);
	for (uint32_t i = 0; i < copies.n; i++) {
		copies.frames[i].len = b->frames[i].len;
		copies.frames[i].flags = b->frames[i].flags;
		memcpy(copies.frames[i].data, b->frames[i].data, b->frames[i].len);
	}
	counter_add(&in->stats.copied, copies.n);
	counter_add(&in->stats.drops[DROP_NO_SLOT], b->n - copies.n);
	in->ops->put(in, b);
	if (copies.n == 0)
		return;
	dropped = out->ops->tx(out, &copies);
	counter_add(&in->stats.drops[DROP_TX_FULL], dropped);
}

static void send(struct queue *in, struct queue *out, struct batch *b)
{
	uint32_t len_max = 0;
	uint32_t dropped;

	for (uint32_t i = 0; i < b->n; i++)
		len_max = b->frames[i].len > len_max ? b->frames[i].len : len_max;
	if (__builtin_expect(len_max > out->frame_len_max, 0)) {
		drop_too_long(in, out, b);
		if (b->n == 0)
			return;
	}
	if (__builtin_expect(in->memory != out->memory, 0)) {
		send_copies(in, out, b);
		return;
	}
	dropped = out->ops->tx(out, b);
	if (__builtin_expect(dropped != 0, 0))
		counter_add(&in->stats.drops[DROP_TX_FULL], dropped);
}

/* Nobody has to look at in's frames, and out can send them from where they are. */
static inline bool may_pass(const struct queue *in, const struct queue *out)
{
	return in->ops->pass && out && out->ops == in->ops && out->memory == in->memory &&
	       !in->complete_checksums;
}

static uint32_t queue_turn(const struct snapshot *snap, struct queue *in)
{
	verdict v = patch_run(&snap->patch, in->port->index);
	struct queue *out = verdict_is_drop(v) ? NULL : snap->tx[v];
	struct batch b;
	uint32_t n;

	if (may_pass(in, out)) {
		n = in->ops->pass(in, out, &b);
	} else {
		in->ops->rx(in, &b);
		n = b.n;
	}
	if (b.n == 0)
		return n;
	if (in->complete_checksums)
		complete_checksums(in, out, &b);
	if (verdict_is_drop(v))
		drop(in, &b, v & ~VERDICT_DROP);
	else if (!out)
		drop(in, &b, DROP_PORT_DOWN);
	else
		send(in, out, &b);
	return n;
}

uint32_t worker_turn(const struct snapshot *snap)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < snap->n_rx; i++)
		n += queue_turn(snap, snap->rx[i]);
	for (uint32_t i = 0; i < snap->n_rx; i++)
		snap->rx[i]->ops->reap(snap->rx[i]);
	return n;
}
