/*
 * One AF_XDP socket: its memory, its four rings, its place at a queue.
 *
 * One memory (a memfd made by control) serves all ports, yet each port registers it anew, by the
 * socket of its first queue; the port's other queues share that registration (XDP_SHARED_UMEM). A
 * registration shared by ports would belong to the first port's socket, and couldn't be closed
 * before the last. Addresses are offsets in the same memory, so a frame still crosses from port to
 * port without a copy. Every queue has fill and completion rings of its own.
 *
 * The calls are made here and not by libxdp's xsk.h, as that makes the fill ring of a sharing
 * socket and binds it in one step: drivers want slots there before they are bound (ice drops its
 * queue's first buffers otherwise), and an error should say which step met it.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "engine/af_xdp/explain.h"
#include "engine/af_xdp/internal.h"

/* Newer than the headers of Debian 12 (include/uapi/linux/if_xdp.h, asm-generic/socket.h). */
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif
#ifndef SO_PREFER_BUSY_POLL
#define SO_PREFER_BUSY_POLL 69
#define SO_BUSY_POLL_BUDGET 70
#endif

/* Frames a system call may send in copy mode, where the kernel lets us say so (6.17). */
#define TX_BUDGET 128
/* Documentation/networking/af_xdp.rst and napi.rst: what prefer-busy-poll wants. */
#define BUSY_POLL_US	 20
#define BUSY_POLL_BUDGET BATCH_SIZE
/* The kernel frees a queue some time after its last socket closed (a work item that takes the
 * rtnl lock): wait in all about 2 s, in steps of 1, 2, 4 ... 256 ms. */
#define BIND_TRIES	 15
#define BIND_WAIT_MAX_MS 256
/* Wait for transmissions to finish when closing. */
#define DRAIN_TRIES   50
#define DRAIN_WAIT_MS 2
/* Memory of a socket that only asks whether a queue is free, bytes: one chunk. */
#define PROBE_SIZE 4096

static void wait_ms(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

/* A failing setrlimit is no error: since 5.11 (bpf) nothing needs it there, and with CAP_IPC_LOCK
 * the memory needs none either; who needs it is told by the registration. */
static void raise_memlock(void)
{
	setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY});
}

static int register_memory(int fd, const struct memory *m)
{
	struct xdp_umem_reg reg = {
		.addr = (uintptr_t)m->base,
		.len = m->size,
		.chunk_size = m->slot_size,
	};

	raise_memlock();
	return setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)) ? -errno : 0;
}

static int ring_map(struct ring *r, int fd, const struct xdp_ring_offset *at, uint32_t size,
	size_t entry_size, uint64_t page_offset)
{
	size_t map_size = (size_t)at->desc + size * entry_size;
	uint8_t *map = mmap(NULL, map_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd,
		(off_t)page_offset);

	if (map == MAP_FAILED)
		return -errno;
	*r = (struct ring){
		.producer = (uint32_t *)(map + at->producer),
		.consumer = (uint32_t *)(map + at->consumer),
		.flags = (uint32_t *)(map + at->flags),
		.entries = map + at->desc,
		.mask = size - 1,
		.size = size,
		.map = map,
		.map_size = map_size,
	};
	return 0;
}

static void ring_unmap(struct ring *r)
{
	if (r->map)
		munmap(r->map, r->map_size);
	*r = (struct ring){0};
}

static int ring_size_set(int fd, int option, uint32_t size)
{
	return setsockopt(fd, SOL_XDP, option, &size, sizeof(size)) ? -errno : 0;
}

static int make_rings(struct xdp_queue *q, const struct socket_settings *s)
{
	struct xdp_mmap_offsets at;
	socklen_t at_size = sizeof(at);
	int err;

	if ((err = ring_size_set(q->fd, XDP_UMEM_FILL_RING, s->rx_ring)) ||
		(err = ring_size_set(q->fd, XDP_UMEM_COMPLETION_RING, s->tx_ring)) ||
		(err = ring_size_set(q->fd, XDP_RX_RING, s->rx_ring)) ||
		(err = ring_size_set(q->fd, XDP_TX_RING, s->tx_ring)))
		return err;
	if (getsockopt(q->fd, SOL_XDP, XDP_MMAP_OFFSETS, &at, &at_size))
		return -errno;
	if (at_size != sizeof(at)) /* before 5.4: no need_wakeup */
		return -EOPNOTSUPP;
	if ((err = ring_map(&q->fill, q->fd, &at.fr, s->rx_ring, sizeof(uint64_t),
		     XDP_UMEM_PGOFF_FILL_RING)) ||
		(err = ring_map(&q->done, q->fd, &at.cr, s->tx_ring, sizeof(uint64_t),
			 XDP_UMEM_PGOFF_COMPLETION_RING)) ||
		(err = ring_map(&q->rx, q->fd, &at.rx, s->rx_ring, sizeof(struct xdp_desc),
			 XDP_PGOFF_RX_RING)) ||
		(err = ring_map(&q->tx, q->fd, &at.tx, s->tx_ring, sizeof(struct xdp_desc),
			 XDP_PGOFF_TX_RING)))
		return err;
	return 0;
}

static int bind_to_queue(const struct xdp_queue *q, const struct socket_settings *s)
{
	struct sockaddr_xdp address = {
		.sxdp_family = AF_XDP,
		.sxdp_ifindex = s->device->ifindex,
		.sxdp_queue_id = s->queue,
	};
	long ms = 1;

	if (s->umem_fd >= 0) { /* mode and wakeup are those of the first socket */
		address.sxdp_flags = XDP_SHARED_UMEM;
		address.sxdp_shared_umem_fd = (uint32_t)s->umem_fd;
	} else {
		address.sxdp_flags = s->bind_flags | XDP_USE_NEED_WAKEUP;
	}
	for (int i = 0; i < BIND_TRIES; i++) {
		if (bind(q->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return 0;
		if (errno != EBUSY)
			return -errno;
		wait_ms(ms);
		ms = ms * 2 < BIND_WAIT_MAX_MS ? ms * 2 : BIND_WAIT_MAX_MS;
	}
	return -EBUSY;
}

/* What a kernel doesn't know of these it does without; they change speed only. */
static void tune(const struct xdp_queue *q, const struct socket_settings *s)
{
	int budget = TX_BUDGET, on = 1, busy_us = BUSY_POLL_US, busy_budget = BUSY_POLL_BUDGET;

	setsockopt(q->fd, SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &budget, sizeof(budget));
	if (!s->busy)
		return;
	setsockopt(q->fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &on, sizeof(on));
	setsockopt(q->fd, SOL_SOCKET, SO_BUSY_POLL, &busy_us, sizeof(busy_us));
	setsockopt(q->fd, SOL_SOCKET, SO_BUSY_POLL_BUDGET, &busy_budget, sizeof(busy_budget));
}

int xdp_socket_open(struct xdp_queue *q, const struct socket_settings *s, struct reason *r)
{
	int err;

	q->fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (q->fd < 0)
		return explain_socket(-errno, r);
	if (s->umem_fd < 0 && (err = register_memory(q->fd, s->memory))) {
		err = explain_memory(err, s->memory->size, r);
		goto close;
	}
	err = make_rings(q, s);
	if (err) {
		explain_rings(err, s, r);
		goto close;
	}
	xdp_queue_refill(q); /* before the bind: the driver takes its first buffers there */
	if (q->n_fill < q->fill_target) {
		err = reason_set(r, -ENOBUFS, "raise `slots:`, or lower `rx_ring:` or `queues:`",
			"queue %u of %s: only %u free slots for the %u it should receive into",
			s->queue, s->device->name, q->n_fill, q->fill_target);
		goto close;
	}
	tune(q, s);
	err = bind_to_queue(q, s);
	if (err) {
		explain_bind(err, s, r);
		goto close;
	}
	q->busy = s->busy;
	return 0;
close:
	xdp_socket_close(q, s->device);
	return err;
}

/* 0 once the kernel has let go of the queue, -EBUSY while it has not; by what only then works. */
static int try_released(const struct device *d, uint32_t queue, void *page)
{
	struct xdp_umem_reg reg = {
		.addr = (uintptr_t)page, .len = PROBE_SIZE, .chunk_size = PROBE_SIZE};
	struct sockaddr_xdp address = {
		.sxdp_family = AF_XDP,
		.sxdp_flags = XDP_COPY,
		.sxdp_ifindex = d->ifindex,
		.sxdp_queue_id = queue,
	};
	int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	int err = 0;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &reg, sizeof(reg)) ||
		ring_size_set(fd, XDP_UMEM_FILL_RING, 2) ||
		ring_size_set(fd, XDP_UMEM_COMPLETION_RING, 2) ||
		ring_size_set(fd, XDP_RX_RING, 2) ||
		bind(fd, (struct sockaddr *)&address, sizeof(address)))
		err = -errno;
	close(fd);
	return err;
}

int xdp_socket_await_release(const struct device *d, uint32_t queue)
{
	void *page =
		mmap(NULL, PROBE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int err = -EBUSY;
	long ms = 1;

	if (page == MAP_FAILED)
		return -errno;
	for (int i = 0; i < BIND_TRIES && err == -EBUSY; i++) {
		err = try_released(d, queue, page);
		if (err == -EBUSY)
			wait_ms(ms);
		ms = ms * 2 < BIND_WAIT_MAX_MS ? ms * 2 : BIND_WAIT_MAX_MS;
	}
	munmap(page, PROBE_SIZE);
	return err;
}

/* Bounded: a device that is down finishes nothing. */
static void drain(struct xdp_queue *q)
{
	for (int i = 0; i < DRAIN_TRIES && q->n_tx > 0; i++) {
		xdp_queue_reap(q);
		if (q->n_tx > 0)
			wait_ms(DRAIN_WAIT_MS);
	}
}

/* What the kernel still had is ours again, as the socket that lent it is gone. */
static void reclaim(struct xdp_queue *q)
{
	struct pool *p = q->base.pool;

	for (uint32_t i = 0; i < p->slots; i++) {
		uint64_t offset = p->first + (uint64_t)i * p->slot_size;

		if (q->lent[i] == HOLDER_FREE)
			continue;
		if (q->lent[i] == HOLDER_FILL)
			q->n_fill--;
		else
			q->n_tx--;
		pool_give(p, &offset, 1, q->lent[i]);
		q->lent[i] = HOLDER_FREE;
	}
	assert(q->n_fill == 0 && q->n_tx == 0);
}

void xdp_socket_close(struct xdp_queue *q, const struct device *d)
{
	bool zero_copy;

	if (q->fd < 0)
		return;
	if (q->tx.map)
		drain(q);
	zero_copy = xdp_socket_is_zero_copy(q);
	close(q->fd);
	q->fd = -1;
	ring_unmap(&q->rx);
	ring_unmap(&q->tx);
	ring_unmap(&q->fill);
	ring_unmap(&q->done);
	/* The kernel tells the driver later, by a work item; until then the device may write into
	 * slots that it was given. In copy mode nothing is written after the close. */
	if (zero_copy)
		xdp_socket_await_release(d, q->base.idx);
	reclaim(q);
}

bool xdp_socket_is_zero_copy(const struct xdp_queue *q)
{
	struct xdp_options options = {0};
	socklen_t size = sizeof(options);

	return getsockopt(q->fd, SOL_XDP, XDP_OPTIONS, &options, &size) == 0 &&
	       (options.flags & XDP_OPTIONS_ZEROCOPY);
}
