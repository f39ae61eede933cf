/* Pools of mbufs, made as ports need them and freed with the last port. */
#include "engine/dpdk/mbufs.h"

#include <errno.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <stdio.h>
#include <string.h>

#include "engine/dpdk/eal.h"

#define POOLS_MAX   256
#define POOL_LEAST  8191u /* mbufs; one below a power of two fits the ring best (rte_mempool.h) */
#define CACHE_SIZE  256u
#define ROOM_FACTOR 1024u /* drivers have buffer sizes in KiB */

struct mbuf_pool {
	struct rte_mempool *mempool; /* NULL: free entry */
	uint32_t worker;
	int socket;
	uint32_t room;
	uint32_t users;	   /* reservations */
	uint32_t reserved; /* mbufs */
	bool kept;	   /* by a driver that never gives all back */
};

static struct mbuf_pool pools[POOLS_MAX];

static struct mbuf_pool *find_room(uint32_t worker, int socket, uint32_t room, uint32_t n)
{
	for (uint32_t i = 0; i < POOLS_MAX; i++) {
		struct mbuf_pool *p = &pools[i];

		if (p->mempool && p->worker == worker && p->socket == socket && p->room == room &&
			p->mempool->size - p->reserved >= n)
			return p;
	}
	return NULL;
}

static struct mbuf_pool *make(uint32_t worker, int socket, uint32_t room, uint32_t n)
{
	static uint32_t made;
	struct mbuf_pool *p = pools;
	uint32_t size = POOL_LEAST;
	char name[RTE_MEMPOOL_NAMESIZE];

	while (p < pools + POOLS_MAX && p->mempool)
		p++;
	if (p == pools + POOLS_MAX)
		return NULL;
	while (size < n)
		size = 2 * size + 1;
	snprintf(name, sizeof(name), "culvert_%u", made++);
	*p = (struct mbuf_pool){
		.mempool = rte_pktmbuf_pool_create(
			name, size, CACHE_SIZE, 0, (uint16_t)(room + RTE_PKTMBUF_HEADROOM), socket),
		.worker = worker,
		.socket = socket,
		.room = room,
	};
	return p->mempool ? p : NULL;
}

int mbufs_reserve(uint32_t worker, int socket, uint32_t room, uint32_t n,
	struct rte_mempool **ret_pool, struct reason *r)
{
	struct mbuf_pool *p;

	if (!eal_has_huge_pages())
		socket = SOCKET_ID_ANY; /* one node has it all */
	if (room < RTE_MBUF_DEFAULT_DATAROOM)
		room = RTE_MBUF_DEFAULT_DATAROOM;
	room = (room + ROOM_FACTOR - 1) / ROOM_FACTOR * ROOM_FACTOR;
	n += 2 * CACHE_SIZE; /* the caches of the worker and of control */
	if (room > UINT16_MAX - RTE_PKTMBUF_HEADROOM)
		return reason_set(r, -EINVAL, "ask for a smaller MTU",
			"mbufs can't hold frames of %u bytes", room);
	p = find_room(worker, socket, room, n);
	if (!p)
		p = make(worker, socket, room, n);
	if (!p)
		return reason_set(r, -ENOMEM,
			eal_has_huge_pages() ? "free huge pages: vm.nr_hugepages; or smaller rings"
					     : "smaller rings, fewer queues, or huge pages",
			"no memory for %u mbufs of %u bytes: %s", n, room, rte_strerror(rte_errno));
	p->reserved += n;
	p->users++;
	*ret_pool = p->mempool;
	return 0;
}

/* No port is left, so no driver writes to what did not come back. */
static uint64_t free_all(void)
{
	uint64_t lost = 0;

	for (uint32_t i = 0; i < POOLS_MAX; i++) {
		struct rte_mempool *m = pools[i].mempool;

		if (m && !pools[i].kept)
			lost += rte_mempool_in_use_count(m);
		rte_mempool_free(m);
		pools[i] = (struct mbuf_pool){0};
	}
	return lost;
}

uint64_t mbufs_release(struct rte_mempool *pool, uint32_t n, bool kept)
{
	uint32_t users = 0;

	for (uint32_t i = 0; i < POOLS_MAX; i++) {
		struct mbuf_pool *p = &pools[i];

		if (p->mempool == pool) {
			p->users--;
			p->kept = p->kept || kept;
			if (!kept)
				p->reserved -= n + 2 * CACHE_SIZE;
		}
		users += p->users;
	}
	return users ? 0 : free_all();
}
