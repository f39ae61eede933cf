/* DPDK's mbufs are the slots of the memory that all ports share: who holds which, and when not. */
#include "dpdk_ports.h"

#include <pthread.h>

#include "engine/mem/mem.h"

/* To an engine of another kind and back; n_copied: of the frames, each way; n_free: slots before
 * and after. */
static void cross(const char *device, uint32_t n_copied, uint32_t n_free)
{
	struct port *a = open_port(device), *m = open_port("mem:m");
	struct queue *rx[2];
	struct snapshot snap = join(a, m, rx, 2);
	uint8_t bytes[2048];

	send_frames(a->queues[0], 10, 777);
	assert_int_equal(worker_turn(&snap), 10);
	assert_int_equal(counter_read(&a->queues[0]->stats.copied), n_copied);
	expect_law(&pools[0]);
	for (uint32_t i = 0; i < 10; i++) {
		struct frame f = {.data = bytes};

		assert_int_equal(mem_collect(m->queues[0], bytes, sizeof(bytes)), 777);
		f.len = 777;
		check_frame(&f, i, 777);
	}
	for (uint32_t i = 0; i < 10; i++) {
		struct frame f = {.data = bytes};

		write_frame(&f, i, 555);
		assert_int_equal(mem_inject(m->queues[0], bytes, 555), 0);
	}
	snap.n_rx = 1;
	snap.rx = &rx[1];
	assert_int_equal(worker_turn(&snap), 10);
	expect_frames(a->queues[0], 10, 555);
	assert_int_equal(counter_read(&m->queues[0]->stats.copied), n_copied);
	assert_int_equal(counter(a, "mbufs_in_use"), 0);
	expect_law(&pools[0]);
	close_port(a);
	close_port(m);
	expect_free(&pools[0], n_free);
}

static void test_frames_cross_to_other_engines_without_a_copy(void **state)
{
	cross("dpdk:net_ring0", 0, SLOTS);
}

static void test_a_port_without_slots_has_memory_of_its_own(void **state)
{
	static uint64_t taken[SLOTS];
	uint32_t n = pool_take(&pools[0], taken, SLOTS - 512, HOLDER_WORKER);

	/* DPDK would keep more than are left; frames are copied then. */
	pool_move(&pools[0], taken, n, HOLDER_WORKER, HOLDER_TX);
	cross("dpdk:net_ring0", 10, SLOTS - n);
	pool_give(&pools[0], taken, n, HOLDER_TX);
}

static void test_what_others_were_promised_is_not_lent_to_a_port(void **state)
{
	struct pool lent;
	struct port *p;

	assert_int_equal(pool_beside_init(&lent, &pools[0]), 0);
	pools[0].promised += SLOTS - 100;
	pool_lend(&pools[0], &lent, SLOTS / 2);
	memory.pools = &lent;
	p = open_port("dpdk:net_null0");
	assert_null(p->queues[0]->pool);
	close_port(p);
	memory.pools = pools;
	pool_take_back(&pools[0], &lent);
	pool_beside_fini(&lent);
	pools[0].promised -= SLOTS - 100;
	expect_free(&pools[0], SLOTS);
}

static void test_what_drivers_write_is_spread_over_cache_sets(void **state)
{
	struct port *p = open_port("dpdk:net_null_spread");
	struct batch b;
	uint32_t n_at[SLOT_SIZE / 64] = {0};

	p->queues[0]->ops->rx(p->queues[0], &b);
	assert_int_equal(b.n, BATCH_SIZE);
	for (uint32_t i = 0; i < b.n; i++)
		n_at[(uintptr_t)b.frames[i].data % SLOT_SIZE / 64]++;
	/* 128 bytes of headroom, and up to 192 more. */
	for (uint32_t i = 2; i < 6; i++)
		assert_int_equal(n_at[i], BATCH_SIZE / 4);
	p->queues[0]->ops->put(p->queues[0], &b);
	close_port(p);
}

static void test_frames_may_begin_early_in_their_slots(void **state)
{
	struct port *p = open_port("dpdk:net_ring_early");
	struct queue *q = p->queues[0];
	struct batch b;

	for (uint32_t turn = 0; turn < 2; turn++) {
		b.n = q->ops->take(q, b.frames, BATCH_SIZE);
		assert_int_equal(b.n, BATCH_SIZE);
		for (uint32_t i = 0; i < b.n; i++) {
			b.frames[i].data -= (uintptr_t)b.frames[i].data % SLOT_SIZE - i;
			write_frame(&b.frames[i], i, 100);
		}
		assert_int_equal(q->ops->tx(q, &b), 0);
		q->ops->rx(q, &b);
		assert_int_equal(b.n, BATCH_SIZE);
		for (uint32_t i = 0; i < b.n; i++)
			check_frame(&b.frames[i], i, 100);
		q->ops->put(q, &b);
	}
	close_port(p);
}

static void *send_from_elsewhere(void *arg)
{
	struct queue *q = arg;

	send_frames(q, BATCH_SIZE, 60);
	return NULL;
}

/* As drivers do when a peer leaves. */
static void test_a_thread_that_is_no_worker_may_free(void **state)
{
	struct port *a = open_port("dpdk:net_null0");
	struct batch b;
	pthread_t thread;

	for (int i = 0; i < 3; i++) {
		uint32_t before = pools[0].n_free;

		assert_int_equal(
			pthread_create(&thread, NULL, send_from_elsewhere, a->queues[0]), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(pools[0].n_free, before - BATCH_SIZE);
		expect_law(&pools[0]);
	}
	a->queues[0]->ops->rx(a->queues[0], &b);
	a->queues[0]->ops->put(a->queues[0], &b);
	assert_true(pools[0].held[HOLDER_DRIVER] < 512); /* no more than a cache has */
	close_port(a);
	expect_free(&pools[0], SLOTS);
}

static void test_what_lies_in_a_closing_port_comes_back(void **state)
{
	struct port *a = open_port("dpdk:net_ring0"), *b = open_port("dpdk:net_ring1");
	struct port *m = open_port("mem:m");
	struct queue *rx[2];
	struct snapshot snap = join(a, m, rx, 1);

	send_frames(a->queues[0], BATCH_SIZE, 60);
	assert_int_equal(worker_turn(&snap), BATCH_SIZE); /* they lie in the other's tx ring */
	close_port(a);
	expect_law(&pools[0]);
	assert_int_equal(pools[0].held[HOLDER_TX], BATCH_SIZE);
	close_port(m);
	send_frames(b->queues[0], BATCH_SIZE, 60); /* the others go on */
	expect_frames(b->queues[0], BATCH_SIZE, 60);
	close_port(b);
	expect_free(&pools[0], SLOTS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_cross_to_other_engines_without_a_copy),
		cmocka_unit_test(test_a_port_without_slots_has_memory_of_its_own),
		cmocka_unit_test(test_what_others_were_promised_is_not_lent_to_a_port),
		cmocka_unit_test(test_what_drivers_write_is_spread_over_cache_sets),
		cmocka_unit_test(test_frames_may_begin_early_in_their_slots),
		cmocka_unit_test(test_a_thread_that_is_no_worker_may_free),
		cmocka_unit_test(test_what_lies_in_a_closing_port_comes_back),
	};

	if (!dpdk_works())
		return SKIPPED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
