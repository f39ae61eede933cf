/* The hot path of one queue: mbufs in and out by the burst. */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <unistd.h>

#include "engine/dpdk/internal.h"
#include "engine/dpdk/slots.h"
#include "frame/checksum.h"
#include "frame/pool.h"

/* Empty receive calls after which the device is asked for an interrupt: half of those after which
 * the worker sleeps (worker.c, IDLE_TURNS), so that what comes meanwhile is polled. */
#define ARM_AFTER 32

#define KEPT_FLAGS (RTE_MBUF_F_EXTERNAL | RTE_MBUF_F_INDIRECT)
static struct dpdk_queue *of(struct queue *q)
{
	return (struct dpdk_queue *)q;
}

static pthread_key_t exit_key;
static pthread_once_t exit_once = PTHREAD_ONCE_INIT;

static void thread_leave(void *registered)
{
	rte_thread_unregister();
}

static void exit_key_make(void)
{
	pthread_key_create(&exit_key, thread_leave);
}

/* A thread known to DPDK has a cache of mbufs of its own; without one all still works. Once a
 * thread: no cost later. */
static void thread_enter(void)
{
	pthread_once(&exit_once, exit_key_make);
	if (rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0)
		pthread_setspecific(exit_key, &exit_key);
}

static inline void thread_known(void)
{
	static __thread bool known;

	if (__builtin_expect(known, 1))
		return;
	known = true;
	slots_enter();
	thread_enter();
}

/* The worker is about to sleep: from now on a frame makes wait_fd readable. */
static void arm(struct dpdk_queue *q)
{
	uint64_t count;
	ssize_t n;

	if (!q->is_eventfd)
		return;
	n = read(q->wait_fd, &count, sizeof(count)); /* not blocking */
	(void)n;
	rte_eth_dev_rx_intr_enable(q->port_id, (uint16_t)q->base.idx);
}

/* Makes one contiguous piece with its tag inside, in the mbuf's own buffer, of what some drivers
 * hand over otherwise. */
static bool straighten(const struct dpdk_queue *q, struct rte_mbuf **m)
{
	if ((*m)->ol_flags & KEPT_FLAGS) {
		struct rte_mbuf *copy = rte_pktmbuf_copy(*m, q->mbufs, 0, UINT32_MAX);

		if (!copy)
			return false;
		rte_pktmbuf_free(*m);
		*m = copy;
	}
	if ((*m)->nb_segs > 1 && rte_pktmbuf_linearize(*m) < 0)
		return false;
	if ((*m)->ol_flags & RTE_MBUF_F_RX_VLAN_STRIPPED)
		return rte_vlan_insert(m) == 0;
	return true;
}

#define ODD_FLAGS (RTE_MBUF_F_RX_VLAN_STRIPPED | KEPT_FLAGS)

static inline bool is_odd(const struct rte_mbuf *m)
{
	return m->nb_segs != 1 || (m->ol_flags & ODD_FLAGS);
}

static uint16_t straighten_all(struct dpdk_queue *q, struct rte_mbuf **mbufs, uint16_t n)
{
	uint16_t kept = 0;

	for (uint16_t i = 0; i < n; i++) {
		if (is_odd(mbufs[i]) && !straighten(q, &mbufs[i])) {
			rte_pktmbuf_free(mbufs[i]);
			counter_add(&q->rx_scattered, 1);
			continue;
		}
		mbufs[kept++] = mbufs[i];
	}
	return kept;
}

/* RTE_MBUF_F_RX_L4_CKSUM_NONE: the data is good, the checksum field is not yet. */
static inline uint32_t flags_of(const struct rte_mbuf *m)
{
	bool partial = (m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_NONE;

	return partial ? FRAME_CHECKSUM_PARTIAL : 0;
}

/* True: some are odd, so that it must be done again once they are not. */
static inline bool frames_of(struct rte_mbuf *const *restrict mbufs, uint16_t n,
	struct frame *restrict frames, uint64_t *ret_bytes)
{
	uint64_t bytes = 0;
	bool odd = false;

	for (uint16_t i = 0; i < n; i++) {
		struct rte_mbuf *m = mbufs[i];

		frames[i] = (struct frame){
			.data = rte_pktmbuf_mtod(m, uint8_t *),
			.buf = m,
			.len = m->pkt_len,
			.flags = flags_of(m),
		};
		bytes += m->pkt_len;
		odd |= is_odd(m);
	}
	*ret_bytes = bytes;
	return odd;
}

static inline uint16_t receive(struct dpdk_queue *q, struct rte_mbuf **mbufs)
{
	uint16_t n;

	thread_known();
	n = rte_eth_rx_burst(q->port_id, (uint16_t)q->base.idx, mbufs, BATCH_SIZE);
	if (n == 0 && ++q->n_empty % ARM_AFTER == 0) {
		/* Again and again: some devices wake us for nothing (vhost), and an event that
		 * nobody reads would keep the worker awake. */
		arm(q);
		/* What came before wakes nobody. */
		n = rte_eth_rx_burst(q->port_id, (uint16_t)q->base.idx, mbufs, BATCH_SIZE);
	}
	if (n > 0)
		q->n_empty = 0;
	return n;
}

/* Mbufs become the frames of b. */
static void hand_over(struct dpdk_queue *q, struct rte_mbuf **mbufs, uint16_t n, struct batch *b)
{
	uint64_t bytes;

	if (__builtin_expect(frames_of(mbufs, n, b->frames, &bytes), 0)) {
		n = straighten_all(q, mbufs, n);
		frames_of(mbufs, n, b->frames, &bytes);
	}
	b->n = n;
	if (q->slots)
		pool_move_frames(q->base.pool, b->frames, n, HOLDER_DRIVER, HOLDER_WORKER);
	counter_add(&q->base.stats.rx_frames, n);
	counter_add(&q->base.stats.rx_bytes, bytes);
}

static void rx(struct queue *base, struct batch *b)
{
	struct rte_mbuf *mbufs[BATCH_SIZE];
	uint16_t n = receive(of(base), mbufs);

	b->n = 0;
	if (n > 0)
		hand_over(of(base), mbufs, n, b);
}

/* What the functions made of the frame is told to its mbuf: mostly there is nothing to tell. */
static inline struct rte_mbuf *mbuf_of(const struct slots *s, const struct frame *f)
{
	struct rte_mbuf *m = s ? slots_mbuf(s, f->data) : f->buf;
	/* What the receiving driver said is nothing to the sending one. */
	uint64_t said = m->ol_flags & ~KEPT_FLAGS;

	if (__builtin_expect(
		    f->data != rte_pktmbuf_mtod(m, uint8_t *) || f->len != m->pkt_len || said, 0)) {
		/* Someone put much before the frame, as an XDP program beside ours may. */
		if (f->data < (uint8_t *)m->buf_addr)
			slots_widen(s, m);
		m->data_off = (uint16_t)(f->data - (uint8_t *)m->buf_addr);
		m->data_len = (uint16_t)f->len;
		m->pkt_len = f->len;
		m->ol_flags &= KEPT_FLAGS;
	}
	return m;
}

/* As long as the driver takes some; what does not fit is freed. bytes: of all n. Returns how many
 * were sent. */
static uint16_t transmit(struct queue *base, struct rte_mbuf **mbufs, uint16_t n, uint64_t bytes)
{
	struct dpdk_queue *q = of(base);
	uint16_t sent = 0, taken;

	do {
		taken = rte_eth_tx_burst(
			q->port_id, (uint16_t)base->idx, mbufs + sent, (uint16_t)(n - sent));
		sent = (uint16_t)(sent + taken);
	} while (sent < n && taken > 0);
	if (__builtin_expect(sent < n, 0)) {
		for (uint16_t i = sent; i < n; i++)
			bytes -= mbufs[i]->pkt_len;
		rte_pktmbuf_free_bulk(mbufs + sent, (unsigned int)(n - sent));
	}
	counter_add(&base->stats.tx_frames, sent);
	counter_add(&base->stats.tx_bytes, bytes);
	return sent;
}

/* The driver finds the pseudo-header's sum in the field, as it wants it (rte_mbuf_core.h,
 * RTE_MBUF_F_TX_L4_MASK). */
static void ask_checksum(struct rte_mbuf *m, const struct frame *f)
{
	struct checksum_place place;

	if (!checksum_is_partial(f->data, f->len, &place))
		return;
	m->l2_len = place.l2_len & 0x7f; /* widths of the fields; a header is far smaller */
	m->l3_len = place.l3_len & 0x1ff;
	m->ol_flags |=
		(place.version == 4 ? RTE_MBUF_F_TX_IPV4 : RTE_MBUF_F_TX_IPV6) |
		(place.proto == IPPROTO_TCP ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM);
}

static uint32_t tx(struct queue *base, const struct batch *b)
{
	struct dpdk_queue *q = of(base);
	struct rte_mbuf *mbufs[BATCH_SIZE];
	uint16_t n = (uint16_t)b->n;
	uint64_t bytes = 0;

	for (uint16_t i = 0; i < n; i++) {
		mbufs[i] = mbuf_of(q->slots, &b->frames[i]);
		bytes += b->frames[i].len;
		if (base->offload_checksums && b->frames[i].flags & FRAME_CHECKSUM_PARTIAL)
			ask_checksum(mbufs[i], &b->frames[i]);
	}
	if (q->slots)
		pool_move_frames(base->pool, b->frames, n, HOLDER_WORKER, HOLDER_DRIVER);
	return (uint32_t)(n - transmit(base, mbufs, n, bytes));
}

/* May they be sent as they are? The same that is_odd() says of one, and their length. */
static inline bool may_pass(
	struct rte_mbuf *const *mbufs, uint16_t n, uint32_t len_max, uint64_t *ret_bytes)
{
	uint64_t bytes = 0, flags = 0;
	uint32_t segments = 0, longest = 0;

	for (uint16_t i = 0; i < n; i++) {
		const struct rte_mbuf *m = mbufs[i];

		bytes += m->pkt_len;
		longest = m->pkt_len > longest ? m->pkt_len : longest;
		segments |= m->nb_segs;
		flags |= m->ol_flags;
	}
	*ret_bytes = bytes;
	return segments == 1 && longest <= len_max && !(flags & ODD_FLAGS);
}

static uint32_t pass(struct queue *in, struct queue *out, struct batch *b)
{
	struct rte_mbuf *mbufs[BATCH_SIZE];
	uint16_t n = receive(of(in), mbufs), sent;
	uint64_t bytes;

	b->n = 0;
	if (n == 0)
		return 0;
	if (__builtin_expect(!may_pass(mbufs, n, out->frame_len_max, &bytes), 0)) {
		hand_over(of(in), mbufs, n, b);
		return b->n;
	}
	counter_add(&in->stats.rx_frames, n);
	counter_add(&in->stats.rx_bytes, bytes);
	sent = transmit(out, mbufs, n, bytes);
	if (__builtin_expect(sent < n, 0))
		counter_add(&in->stats.drops[DROP_TX_FULL], (uint32_t)(n - sent));
	return n;
}

/* Drivers take finished mbufs back when they send the next ones; rings are part of the pools'
 * size, so none are missing meanwhile. */
static void reap(struct queue *base)
{
}

static uint32_t take(struct queue *base, struct frame *frames, uint32_t n)
{
	struct rte_mbuf *mbufs[BATCH_SIZE];

	if (base->pool)
		return pool_take_frames(base->pool, frames, n);
	n = n < BATCH_SIZE ? n : BATCH_SIZE;
	if (rte_pktmbuf_alloc_bulk(of(base)->mbufs, mbufs, n) != 0)
		return 0;
	for (uint32_t i = 0; i < n; i++)
		frames[i] = (struct frame){
			.data = rte_pktmbuf_mtod(mbufs[i], uint8_t *), .buf = mbufs[i]};
	return n;
}

static void put(struct queue *base, const struct batch *b)
{
	struct rte_mbuf *mbufs[BATCH_SIZE];

	if (base->pool) {
		pool_give_frames(base->pool, b->frames, b->n);
		return;
	}
	for (uint32_t i = 0; i < b->n; i++)
		mbufs[i] = b->frames[i].buf;
	rte_pktmbuf_free_bulk(mbufs, b->n);
}

static int wait_fd(const struct queue *base)
{
	return ((const struct dpdk_queue *)base)->wait_fd;
}

const struct queue_ops dpdk_queue_ops = {
	.rx = rx,
	.tx = tx,
	.reap = reap,
	.take = take,
	.put = put,
	.wait_fd = wait_fd,
	.pass = pass,
};
