/* mem ports: queues dealt to workers, full and empty rings counted, everything given back. */
#include "unit.h"

#include <errno.h>

#include "mem_pair.h"

static void devices(void **state)
{
	assert_true(mem_engine.claims("mem:a"));
	assert_false(mem_engine.claims("eth0"));
	assert_false(mem_engine.claims("member"));
}

static void refuses(const struct port_settings *s, int expected)
{
	struct umem u;
	struct port *p = NULL;
	struct reason why = {0};

	umem_make(&u, 256);
	assert_int_equal(mem_engine.open(s, &u.memory, &p, &why), expected);
	assert_null(p);
	assert_true(why.what[0] != 0 && why.remedy[0] != 0);
	assert_int_equal(u.pool.n_free, 256);
	pool_fini(&u.pool);
	free(u.memory.base);
}

static void bad_settings(void **state)
{
	struct port_settings s = {.name = "a", .device = "mem:a", .rx_ring = 100};

	refuses(&s, -EINVAL);
	s.rx_ring = 32;
	refuses(&s, -EINVAL);
	s.rx_ring = 64;
	s.tx_ring = 65;
	refuses(&s, -EINVAL);
	s.tx_ring = 64;
	s.require = PORT_MODE_DPDK;
	refuses(&s, -EOPNOTSUPP);
}

static void queues_go_to_workers_in_turn(void **state)
{
	const struct port_settings s = {
		.name = "a", .device = "mem:a", .queues = 4, .rx_ring = 64, .tx_ring = 64};
	struct pool pools[2];
	struct umem u;
	struct memory m;
	struct port *p;
	struct reason why;

	umem_make(&u, 512);
	m = u.memory;
	m.n_pools = 2;
	m.pools = pools;
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(
			pool_init(&pools[i], m.base, i * 256 * SLOT_SIZE, 256, SLOT_SIZE, HEADROOM),
			0);
	assert_int_equal(mem_engine.open(&s, &m, &p, &why), 0);
	assert_int_equal(p->n_queues, 4);
	assert_int_equal(p->mode, PORT_MODE_ZERO_COPY);
	assert_string_equal(p->device, "mem:a");
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(p->queues[i]->idx, i);
		assert_int_equal(p->queues[i]->worker, i % 2);
		assert_ptr_equal(p->queues[i]->pool, &pools[i % 2]);
		assert_int_equal(p->queues[i]->frame_len_max, LONGEST);
	}
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(pools[i].held[HOLDER_FILL], 128); /* before any frame */
		assert_int_equal(pool_lost(&pools[i]), 0);
	}
	mem_engine.close(p);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(pools[i].n_free, 256);
		pool_fini(&pools[i]);
	}
	pool_fini(&u.pool);
	free(m.base);
	mem_engine.close(NULL);
}

/* 64 buffers wait; frame 65 finds none, and is counted. Nobody takes them before the port stops:
 * each is counted as received and dropped. */
static void nobody_receives(void **state)
{
	struct engine_counter c[3];
	struct pair t;
	uint8_t bytes[60] = {0};

	pair_make(&t, false, 64, 0);
	for (int i = 0; i < 64; i++)
		assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), -ENOBUFS);
	assert_int_equal(mem_engine.counters(t.ports[0], 0, c, 3), 3);
	assert_string_equal(c[1].name, "rx_fill_empty");
	assert_int_equal(c[1].value, 1);
	mem_engine.stop(t.ports[0]);
	assert_int_equal(counter_read(&t.rx[0]->stats.rx_frames), 64);
	assert_int_equal(counter_read(&t.rx[0]->stats.drops[DROP_SHUTDOWN]), 64);
	mem_engine.stop(t.ports[1]);
	assert_int_equal(counter_read(&t.rx[1]->stats.drops[DROP_SHUTDOWN]), 0);
	pair_end(&t);
}

static void taken_buffers_are_empty_frames(void **state)
{
	struct pair t;
	struct batch b = {.n = 5};

	pair_make(&t, false, 64, 0);
	assert_int_equal(t.rx[0]->ops->take(t.rx[0], b.frames, 5), 5);
	assert_int_equal(t.umems[0].pool.held[HOLDER_WORKER], 5);
	for (int i = 0; i < 5; i++)
		assert_int_equal((b.frames[i].data - t.umems[0].memory.base) % SLOT_SIZE, HEADROOM);
	t.rx[0]->ops->put(t.rx[0], &b);
	pair_end(&t);
}

/* What mem_play moves is what mem_inject and mem_collect would. */
static void played(void **state)
{
	struct pair t;
	uint8_t bytes[64];

	pair_make(&t, false, 64, 0);
	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t asked = 1 + i % 40; /* so the rings wrap at every place */
		uint32_t n = mem_play(t.rx[0], 64, asked);

		assert_in_range(n, 1, asked);
		assert_int_equal(worker_turn(&t.snap), n);
		assert_int_equal(t.umems[0].pool.held[HOLDER_TX], n);
		for (; n > 0; n--)
			assert_int_equal(mem_collect(t.rx[1], bytes, sizeof(bytes)), 64);
		assert_int_equal(mem_collect(t.rx[1], bytes, sizeof(bytes)), -EAGAIN);
		worker_turn(&t.snap);
		assert_int_equal(t.umems[0].pool.held[HOLDER_TX], 0);
		law_holds(&t.umems[0]);
	}
	assert_in_range(mem_play(t.rx[1], 64, 10), 1, 10);
	worker_turn(&t.snap);
	assert_int_equal(mem_play(t.rx[0], 64, 10), 10);
	worker_turn(&t.snap); /* reaps what mem_play completed */
	assert_int_equal(t.umems[0].pool.held[HOLDER_TX], 10);
	pair_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(devices),
		cmocka_unit_test(bad_settings),
		cmocka_unit_test(queues_go_to_workers_in_turn),
		cmocka_unit_test(nobody_receives),
		cmocka_unit_test(taken_buffers_are_empty_frames),
		cmocka_unit_test(played),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
