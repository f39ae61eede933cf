/* A worker's pool of slots as a mempool of DPDK: its operations, its headers, its end. */
#include "engine/dpdk/slots.h"

#include <assert.h>
#include <errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_spinlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENTRIES_MAX 256
#define CACHE_SIZE  256u
/* A cache holds half as much again before it gives back (rte_mempool.c, CACHE_FLUSHTHRESH). */
#define CACHE_MOST (CACHE_SIZE + CACHE_SIZE / 2)
#define CACHES	   (2 * CACHE_MOST) /* the worker's and control's */
#define OPS_NAME   "culvert_slots"

/* Buffers begin 0, 64, 128 or 192 bytes behind their slots' begin. Slots are a page apart: the
 * first lines of a burst's frames would otherwise all fall into one set of a first-level cache,
 * which holds 8 or 12 of them. What other engines receive begins further behind (pool->headroom).
 */
#define SPREAD	     4u
#define SPREAD_STEP  64u
#define SPREAD_BYTES ((SPREAD - 1) * SPREAD_STEP)

static struct slots entries[ENTRIES_MAX];
static __thread bool entered, control;

void slots_enter(void)
{
	entered = true;
}

void slots_use(struct slots *s, struct pool *pool)
{
	entered = control = true;
	s->control = pool;
}

static struct pool *pool_of(const struct slots *s)
{
	return control ? s->control : s->pool;
}

void *slots_memory_take(size_t size, int node)
{
	unsigned int page = (unsigned int)sysconf(_SC_PAGESIZE);
	void *base = NULL;

	if (node >= 0)
		base = rte_malloc_socket("culvert_frames", size, page, node);
	if (!base) /* without huge pages there are no nodes; and far memory is better than none */
		base = rte_malloc("culvert_frames", size, page);
	if (base)
		memset(base, 0, size);
	return base;
}

void slots_memory_give(void *base)
{
	rte_free(base);
}

static uint64_t offset_of(const struct slots *s, const void *mbuf)
{
	uint64_t slot = (uint64_t)((const uint8_t *)mbuf - s->headers) / SLOTS_STRIDE;

	return s->pool->first + (slot << s->shift);
}

static void *mbuf_at(const struct slots *s, uint64_t offset)
{
	return s->headers + ((offset - s->pool->first) >> s->shift) * SLOTS_STRIDE;
}

static void give(struct slots *s, void *const *mbufs, uint32_t n)
{
	struct pool *pool = pool_of(s);
	uint64_t offsets[BATCH_SIZE];

	for (uint32_t done = 0, part; done < n; done += part) {
		part = n - done < BATCH_SIZE ? n - done : BATCH_SIZE;
		for (uint32_t i = 0; i < part; i++)
			offsets[i] = offset_of(s, mbufs[done + i]);
		pool_give(pool, offsets, part, HOLDER_DRIVER);
	}
}

/* What other threads gave. */
static void collect_strays(struct slots *s)
{
	if (__atomic_load_n(&s->n_strays, __ATOMIC_RELAXED) == 0)
		return;
	rte_spinlock_lock(&s->strays_lock);
	give(s, (void *const *)s->strays, s->n_strays);
	__atomic_store_n(&s->n_strays, 0, __ATOMIC_RELAXED);
	rte_spinlock_unlock(&s->strays_lock);
}

static int ops_alloc(struct rte_mempool *mp)
{
	mp->pool_data = mp->pool_config;
	return 0;
}

static void ops_free(struct rte_mempool *mp)
{
}

/* A pool is its worker's, or control's, alone. Drivers have threads of their own that free mbufs
 * when a peer leaves: what they give lies aside until the worker takes some. */
static int ops_enqueue(struct rte_mempool *mp, void *const *mbufs, unsigned int n)
{
	struct slots *s = mp->pool_data;

	if (!s->ready)
		return 0; /* being made: the slot of every header is in the pool, or in use */
	if (entered) {
		give(s, mbufs, n);
		return 0;
	}
	rte_spinlock_lock(&s->strays_lock);
	memcpy(s->strays + s->n_strays, mbufs, n * sizeof(mbufs[0]));
	__atomic_store_n(&s->n_strays, s->n_strays + n, __ATOMIC_RELAXED);
	rte_spinlock_unlock(&s->strays_lock);
	return 0;
}

/* All or none, as DPDK wants it. */
static int ops_dequeue(struct rte_mempool *mp, void **mbufs, unsigned int n)
{
	struct slots *s = mp->pool_data;
	uint64_t offsets[BATCH_SIZE];
	struct pool *pool;

	if (!entered || !s->ready) /* a mempool that is freed empties itself */
		return -ENOBUFS;
	collect_strays(s);
	pool = pool_of(s);
	if (pool->n_free < n)
		return -ENOBUFS;
	for (uint32_t done = 0, part; done < n; done += part) {
		part = n - done < BATCH_SIZE ? n - done : BATCH_SIZE;
		pool_take(pool, offsets, part, HOLDER_DRIVER);
		for (uint32_t i = 0; i < part; i++)
			mbufs[done + i] = mbuf_at(s, offsets[i]);
	}
	return 0;
}

static unsigned int ops_get_count(const struct rte_mempool *mp)
{
	const struct slots *s = mp->pool_data;

	return atomic_load_explicit(&s->pool->held[HOLDER_FREE], memory_order_relaxed);
}

/* Headers one after the other, so that a slot's number is its header's; DPDK's own way leaves gaps
 * at the ends of pages. */
static int ops_populate(struct rte_mempool *mp, unsigned int n, void *memory, rte_iova_t iova,
	size_t size, rte_mempool_populate_obj_cb_t *made, void *made_arg)
{
	for (unsigned int i = 0; i < n; i++)
		made(mp, made_arg, (uint8_t *)memory + RTE_CACHE_LINE_SIZE + i * SLOTS_STRIDE,
			RTE_BAD_IOVA);
	return (int)n;
}

static int ops_register(void)
{
	static const struct rte_mempool_ops ops = {
		.name = OPS_NAME,
		.alloc = ops_alloc,
		.free = ops_free,
		.enqueue = ops_enqueue,
		.dequeue = ops_dequeue,
		.get_count = ops_get_count,
		.populate = ops_populate,
	};
	static int registered = -1;

	if (registered < 0)
		registered = rte_mempool_register_ops(&ops);
	return registered < 0 ? registered : 0;
}

static void headers_init(struct slots *s)
{
	for (uint32_t i = 0; i < s->pool->slots; i++) {
		struct rte_mbuf *m = (struct rte_mbuf *)(s->headers + i * SLOTS_STRIDE);
		uint32_t behind = i % SPREAD * SPREAD_STEP;

		rte_pktmbuf_init(s->mempool, NULL, m, i);
		m->buf_addr = s->first + ((uint64_t)i << s->shift) + behind;
		m->buf_len = (uint16_t)(s->pool->slot_size - behind);
		rte_mbuf_iova_set(m, rte_mem_virt2iova(m->buf_addr));
		m->data_off = RTE_PKTMBUF_HEADROOM;
	}
}

void slots_widen(const struct slots *s, struct rte_mbuf *m)
{
	uint8_t *slot = s->pool->base + offset_of(s, m);

	m->buf_len = (uint16_t)(m->buf_len + ((uint8_t *)m->buf_addr - slot));
	m->buf_addr = slot;
	rte_mbuf_iova_set(m, rte_mem_virt2iova(slot));
}

static void unmake(struct slots *s)
{
	s->ready = false;
	rte_mempool_free(s->mempool);
	rte_free(s->headers ? s->headers - RTE_CACHE_LINE_SIZE : NULL);
	free(s->strays);
	*s = (struct slots){0};
}

static int mempool_make(struct slots *s)
{
	static uint32_t made;
	struct rte_pktmbuf_pool_private private = {
		.mbuf_data_room_size = (uint16_t)(s->pool->slot_size - SPREAD_BYTES)};
	size_t size = s->pool->slots * SLOTS_STRIDE;
	char name[RTE_MEMPOOL_NAMESIZE];
	uint8_t *memory;

	snprintf(name, sizeof(name), OPS_NAME "_%u", made++);
	s->mempool = rte_mempool_create_empty(name, s->pool->slots, sizeof(struct rte_mbuf),
		CACHE_SIZE, sizeof(private), SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_SPREAD);
	memory = rte_zmalloc(name, size, RTE_CACHE_LINE_SIZE);
	if (!s->mempool || !memory) {
		rte_free(memory);
		return -ENOMEM;
	}
	s->headers = memory + RTE_CACHE_LINE_SIZE;
	memcpy(rte_mempool_get_priv(s->mempool), &private, sizeof(private));
	if (rte_mempool_set_ops_byname(s->mempool, OPS_NAME, s) != 0 ||
		rte_mempool_populate_iova(s->mempool, (char *)memory, RTE_BAD_IOVA, size, NULL,
			NULL) != (int)s->pool->slots)
		return -ENOMEM;
	headers_init(s);
	return 0;
}

static int make(struct slots *s, struct pool *pool)
{
	int err = ops_register();

	if (err)
		return err;
	*s = (struct slots){
		.pool = pool,
		.first = pool->base + pool->first,
		.shift = (uint32_t)__builtin_ctz(pool->slot_size),
		.strays_lock = RTE_SPINLOCK_INITIALIZER,
		.strays = calloc(pool->slots, sizeof(s->strays[0])),
	};
	err = s->strays ? mempool_make(s) : -ENOMEM;
	if (err)
		unmake(s);
	else
		pool->promised += CACHES;
	s->ready = !err;
	return err;
}

static struct slots *find(const struct pool *pool)
{
	for (uint32_t i = 0; i < ENTRIES_MAX; i++) {
		if (entries[i].pool == pool)
			return &entries[i];
	}
	return NULL;
}

int slots_reserve(struct pool *given, uint32_t room, uint32_t n, struct slots **ret_slots)
{
	struct pool *pool = given->worker ? given->worker : given;
	struct slots *s = find(pool);
	int err;

	if (room + RTE_PKTMBUF_HEADROOM + SPREAD_BYTES > pool->slot_size)
		return -EMSGSIZE;
	assert(SPREAD_BYTES <= pool->headroom);
	if (pool_available(given) < n + (s ? 0 : CACHES))
		return -ENOBUFS;
	if (!s) {
		s = find(NULL);
		err = s ? make(s, pool) : -ENOMEM;
		if (err)
			return err;
	}
	slots_use(s, given);
	pool->promised += n;
	s->users++;
	*ret_slots = s;
	return 0;
}

uint64_t slots_release(struct slots *s, uint32_t n)
{
	uint64_t lost;

	s->pool->promised -= n;
	if (--s->users)
		return 0; /* the caches are their threads': the worker goes on with other ports */
	for (unsigned int i = 0; i < RTE_MAX_LCORE; i++) {
		if (s->mempool->local_cache[i].len)
			rte_mempool_cache_flush(&s->mempool->local_cache[i], s->mempool);
	}
	collect_strays(s);
	s->pool->promised -= CACHES;
	lost = pool_held(s->control, HOLDER_DRIVER);
	unmake(s);
	return lost;
}

uint32_t slots_in_use(const struct slots *s)
{
	uint32_t n = pool_held(s->control, HOLDER_DRIVER), at_hand = 0;

	for (unsigned int i = 0; i < RTE_MAX_LCORE; i++)
		at_hand += s->mempool->local_cache[i].len;
	return n > at_hand ? n - at_hand : 0;
}
