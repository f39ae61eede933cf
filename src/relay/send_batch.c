/* Sends small messages together through a ring of the loop's thread. To receive in the same way
 * gains nothing: sending is 80 % of a relayed message's cost, recv 12 % with its system call. */
#include "relay/send_batch.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "config.h"

#if HAVE_IO_URING
#include <liburing.h>
#include <stdatomic.h>

#define FLAGS (MSG_DONTWAIT | MSG_NOSIGNAL)
/* Fewer than this are sent one by one: a batch costs a little itself. */
#define WORTH 2
/* A place in the arena starts at a cache line of its own. */
#define ALIGN	   64U
#define ARENA_SIZE (SEND_BATCH_SENDS * 2048U)

struct entry {
	void *owner;
	uint8_t *bytes;
	unsigned int tag;
	int fd;
	uint32_t size;
	bool sent; /* n holds what became of it */
	ssize_t n;
};

struct send_batch {
	struct io_uring ring;
	bool works; /* the ring is open */
	bool flushing;
	unsigned int n;
	uint32_t used; /* bytes of the arena */
	send_batch_done *done;
	struct entry entries[SEND_BATCH_SENDS];
	uint8_t arena[ARENA_SIZE] __attribute__((aligned(ALIGN)));
};

static void tell(const char *what, int err)
{
	static atomic_bool told;

	if (!atomic_exchange_explicit(&told, true, memory_order_relaxed))
		log_info("relay: io_uring is refused (%s: %s); small messages are sent one by one",
			what, strerror(err));
}

static int open_ring(struct io_uring *ring)
{
	/* Linux 6.0 and 5.18; an older one takes the ring without them. */
	unsigned int wanted =
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL;
	int r = io_uring_queue_init(SEND_BATCH_SENDS, ring, wanted);

	if (r == -EINVAL)
		r = io_uring_queue_init(SEND_BATCH_SENDS, ring, 0);
	if (r == 0) /* saves a look-up of the descriptor each time; not necessary */
		(void)io_uring_register_ring_fd(ring);
	return r;
}

struct send_batch *send_batch_open(send_batch_done *done)
{
	struct send_batch *b = aligned_alloc(ALIGN, sizeof(*b));
	int r = -ENOMEM;

	if (b)
		r = open_ring(&b->ring);
	if (r < 0) {
		tell("io_uring_setup", -r);
		free(b);
		return NULL;
	}
	b->works = true;
	b->flushing = false;
	b->n = 0;
	b->used = 0;
	b->done = done;
	return b;
}

static void give_up(struct send_batch *b, int err)
{
	tell("io_uring_enter", err);
	io_uring_queue_exit(&b->ring);
	b->works = false;
}

void send_batch_close(struct send_batch *b)
{
	if (!b)
		return;
	send_batch_flush(b);
	if (b->works)
		io_uring_queue_exit(&b->ring);
	free(b);
}

bool send_batch_works(const struct send_batch *b)
{
	return b && b->works;
}

void send_batch_add(struct send_batch *b, int fd, void *owner, unsigned int tag,
	const uint8_t *bytes, uint32_t size)
{
	struct entry *e;

	assert(size <= SEND_BATCH_BYTES && !b->flushing);
	if (b->n == SEND_BATCH_SENDS || size > ARENA_SIZE - b->used)
		send_batch_flush(b);
	e = &b->entries[b->n++];
	*e = (struct entry){
		.owner = owner, .bytes = b->arena + b->used, .tag = tag, .fd = fd, .size = size};
	memcpy(e->bytes, bytes, size);
	b->used += (size + ALIGN - 1) & ~(ALIGN - 1);
}

static void send_one(struct entry *e)
{
	do {
		e->n = send(e->fd, e->bytes, e->size, FLAGS);
	} while (e->n < 0 && errno == EINTR);
	if (e->n < 0)
		e->n = -errno;
	e->sent = true;
}

/* Results that say that nothing was tried, and nothing of the socket: send(2) will tell. */
static bool not_tried(int r)
{
	return r == -EINTR || r == -EINVAL || r == -EOPNOTSUPP || r == -EPERM || r == -EACCES ||
	       r == -ENOMEM || r == -ECANCELED;
}

/* Takes the results of the first n entries, which the kernel has accepted. */
static int reap(struct send_batch *b, unsigned int n)
{
	struct io_uring_cqe *cqe;
	int refused = 0;

	while (n) {
		int r = io_uring_peek_cqe(&b->ring, &cqe);
		struct entry *e;

		/* They are all there, unless the kernel put one off to do it in a moment. */
		if (r == -EAGAIN)
			r = io_uring_wait_cqe(&b->ring, &cqe);
		if (r == -EINTR || r == -EAGAIN)
			continue;
		if (r < 0)
			return r;
		e = &b->entries[io_uring_cqe_get_data64(cqe)];
		e->n = cqe->res;
		e->sent = !not_tried(cqe->res);
		if (cqe->res == -EINVAL || cqe->res == -EOPNOTSUPP)
			refused = cqe->res;
		io_uring_cqe_seen(&b->ring, cqe);
		n--;
	}
	return refused;
}

static void submit(struct send_batch *b, unsigned int n)
{
	int accepted, r;

	for (unsigned int i = 0; i < n; i++) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&b->ring);
		const struct entry *e = &b->entries[i];

		assert(sqe);
		io_uring_prep_send(sqe, e->fd, e->bytes, e->size, FLAGS);
		io_uring_sqe_set_data64(sqe, i);
	}
	do {
		accepted = io_uring_submit(&b->ring);
	} while (accepted == -EINTR);
	if (accepted < 0) {
		give_up(b, -accepted);
		return;
	}
	/* Should a result get lost, its connection must end: nobody knows what was sent. */
	for (int i = 0; i < accepted; i++) {
		b->entries[i].n = -EIO;
		b->entries[i].sent = true;
	}
	r = reap(b, (unsigned int)accepted);
	if (r < 0 || (unsigned int)accepted < n)
		give_up(b, r < 0 ? -r : EAGAIN);
}

void send_batch_flush(struct send_batch *b)
{
	unsigned int n = b ? b->n : 0;

	if (!n)
		return;
	assert(!b->flushing);
	b->flushing = true;
	if (b->works && n >= WORTH)
		submit(b, n);
	for (unsigned int i = 0; i < n; i++) {
		if (!b->entries[i].sent)
			send_one(&b->entries[i]);
	}
	for (unsigned int i = 0; i < n; i++) {
		const struct entry *e = &b->entries[i];

		b->done(e->owner, e->tag, e->bytes, e->size, e->n);
	}
	b->n = 0;
	b->used = 0;
	b->flushing = false;
}

#else /* built without liburing: every message is sent by itself */

struct send_batch *send_batch_open(send_batch_done *done)
{
	(void)done;
	return NULL;
}

void send_batch_close(struct send_batch *b)
{
	(void)b;
}

bool send_batch_works(const struct send_batch *b)
{
	(void)b;
	return false;
}

void send_batch_add(struct send_batch *b, int fd, void *owner, unsigned int tag,
	const uint8_t *bytes, uint32_t size)
{
	(void)b, (void)fd, (void)owner, (void)tag, (void)bytes, (void)size;
	assert(!"added to no batch");
}

void send_batch_flush(struct send_batch *b)
{
	(void)b;
}
#endif
