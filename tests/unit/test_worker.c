/* The worker loop over mem ports: every frame crosses untouched, or is dropped with a reason. */
#include "unit.h"

#include <errno.h>

#include "mem_pair.h"

static void pattern(uint8_t *bytes, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++) {
		seed = seed * 1664525 + 1013904223;
		bytes[i] = (uint8_t)(seed >> 24);
	}
}

static uint64_t dropped(const struct queue *q, enum drop_reason reason)
{
	return counter_read(&q->stats.drops[reason]);
}

static void crosses(struct pair *t, uint32_t from, uint32_t len)
{
	uint8_t sent[LONGEST], got[LONGEST + 1];

	pattern(sent, len, len * 2 + from);
	assert_int_equal(mem_inject(t->rx[from], sent, len), 0);
	assert_int_equal(worker_turn(&t->snap), 1);
	assert_int_equal(mem_collect(t->rx[!from], got, sizeof(got)), len);
	assert_memory_equal(got, sent, len);
	assert_int_equal(mem_collect(t->rx[0], got, sizeof(got)), -EAGAIN);
	assert_int_equal(mem_collect(t->rx[1], got, sizeof(got)), -EAGAIN);
}

static void every_size(struct pair *t)
{
	uint64_t bytes = 0;

	for (uint32_t len = 14; len <= LONGEST; len += len < 1600 ? 1 : 13) {
		crosses(t, 0, len);
		crosses(t, 1, len);
		bytes += len;
	}
	crosses(t, 0, LONGEST);
	assert_int_equal(counter_read(&t->rx[0]->stats.rx_bytes), bytes + LONGEST);
	assert_int_equal(counter_read(&t->rx[1]->stats.tx_bytes), bytes + LONGEST);
	assert_int_equal(counter_read(&t->rx[1]->stats.rx_bytes), bytes);
}

static void frames_cross_untouched(void **state)
{
	struct pair t;

	pair_make(&t, false, 64, 0);
	every_size(&t);
	assert_int_equal(counter_read(&t.rx[0]->stats.copied), 0);
	pair_end(&t);
}

static void copies_between_memories(void **state)
{
	struct pair t;

	pair_make(&t, true, 64, SLOTS);
	every_size(&t);
	assert_int_equal(
		counter_read(&t.rx[0]->stats.copied), counter_read(&t.rx[0]->stats.rx_frames));
	pair_end(&t);
}

static void too_long_for_a_slot(void **state)
{
	struct engine_counter c[8];
	struct pair t;
	uint8_t bytes[LONGEST + 1] = {0};

	pair_make(&t, false, 64, 0);
	assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), -EMSGSIZE);
	assert_int_equal(mem_engine.counters(t.ports[0], 0, c, 8), 3);
	assert_string_equal(c[2].name, "rx_too_long");
	assert_int_equal(c[2].value, 1);
	pair_end(&t);
}

/* Nobody collects: 64 fit, the rest is counted where it arrived. */
static void tx_full(void **state)
{
	struct pair t;
	uint8_t bytes[60] = {0};
	uint32_t n;

	pair_make(&t, false, 64, 0);
	for (n = 0; n < 200; n++) {
		assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
		worker_turn(&t.snap);
		law_holds(&t.umems[0]);
	}
	assert_int_equal(counter_read(&t.rx[1]->stats.tx_frames), 64);
	assert_int_equal(dropped(t.rx[0], DROP_TX_FULL), 200 - 64);
	assert_int_equal(t.umems[0].pool.held[HOLDER_TX], 64);
	while (mem_collect(t.rx[1], bytes, sizeof(bytes)) > 0)
		;
	worker_turn(&t.snap);
	assert_int_equal(t.umems[0].pool.held[HOLDER_TX], 0);
	crosses(&t, 0, 60);
	pair_end(&t);
}

static void part_of_a_batch_fits(void **state)
{
	struct pair t;
	uint8_t bytes[60] = {0}, got[60];

	pair_make(&t, false, 64, 0);
	for (uint32_t n = 0; n < 40; n++)
		assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(worker_turn(&t.snap), 40);
	assert_int_equal(worker_turn(&t.snap), 0); /* refills */
	for (uint8_t n = 0; n < 40; n++) {
		bytes[0] = n;
		assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	}
	assert_int_equal(worker_turn(&t.snap), 40);
	assert_int_equal(dropped(t.rx[0], DROP_TX_FULL), 16);
	for (uint32_t n = 0; n < 64; n++) {
		assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), 60);
		assert_int_equal(got[0], n < 40 ? 0 : n - 40);
	}
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), -EAGAIN);
	pair_end(&t);
}

static void no_slot_for_the_copy(void **state)
{
	struct pair t;
	uint8_t bytes[60] = {0};

	/* 64 slots in the fill ring of b leave 8 for copies. */
	pair_make(&t, true, 64, 72);
	for (uint32_t n = 0; n < 20; n++)
		assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(worker_turn(&t.snap), 20);
	assert_int_equal(counter_read(&t.rx[0]->stats.copied), 8);
	assert_int_equal(dropped(t.rx[0], DROP_NO_SLOT), 12);
	pair_end(&t);
}

static void longer_than_the_port_sends(void **state)
{
	struct pair t;
	uint8_t bytes[1514] = {0}, got[1514];

	pair_make(&t, false, 64, 0);
	t.rx[1]->frame_len_max = 1000;
	for (uint32_t len = 998; len <= 1003; len++)
		assert_int_equal(mem_inject(t.rx[0], bytes, len), 0);
	assert_int_equal(mem_inject(t.rx[0], bytes, 60), 0);
	assert_int_equal(worker_turn(&t.snap), 7);
	assert_int_equal(dropped(t.rx[0], DROP_TOO_LONG), 3);
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), 998);
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), 999);
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), 1000);
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), 60);
	for (uint32_t n = 0; n < 3; n++)
		assert_int_equal(mem_inject(t.rx[0], bytes, 1001), 0);
	worker_turn(&t.snap);
	assert_int_equal(dropped(t.rx[0], DROP_TOO_LONG), 6);
	pair_end(&t);
}

static void no_peer_and_port_down(void **state)
{
	struct pair t;
	uint8_t bytes[60] = {0};

	pair_make(&t, false, 64, 0);
	patch_init(&t.snap.patch);
	assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(worker_turn(&t.snap), 1);
	assert_int_equal(dropped(t.rx[0], DROP_NO_PEER), 1);
	patch_join(&t.snap.patch, 0, 1);
	t.snap.tx[1] = NULL;
	assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(worker_turn(&t.snap), 1);
	assert_int_equal(dropped(t.rx[0], DROP_PORT_DOWN), 1);
	pair_end(&t);
}

/* UDP over IPv4 with the pseudo-header's sum in its checksum field. */
static void partial_checksums(void **state)
{
	static const uint8_t partial[] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 32,
		0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x30, 0x39, 0, 53, 0, 12, 0x14,
		0x20, 'a', 'b', 'c', 'd'};
	uint8_t got[sizeof(partial)];
	struct pair t;

	pair_make(&t, false, 64, 0);
	assert_int_equal(mem_inject(t.rx[0], partial, sizeof(partial)), 0);
	worker_turn(&t.snap);
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), sizeof(partial));
	assert_memory_equal(got, partial, sizeof(partial)); /* nobody asked */

	t.rx[0]->complete_checksums = true;
	assert_int_equal(mem_inject(t.rx[0], partial, sizeof(partial)), 0);
	worker_turn(&t.snap);
	assert_int_equal(mem_collect(t.rx[1], got, sizeof(got)), sizeof(partial));
	/* ~(0x1420 + 0x3039 + 53 + 12 + 0x6162 + 0x6364) */
	assert_int_equal(got[40] << 8 | got[41], 0xf69e);
	assert_int_equal(counter_read(&t.rx[0]->stats.checksums_completed), 1);
	pair_end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames_cross_untouched),
		cmocka_unit_test(copies_between_memories),
		cmocka_unit_test(too_long_for_a_slot),
		cmocka_unit_test(tx_full),
		cmocka_unit_test(part_of_a_batch_fits),
		cmocka_unit_test(no_slot_for_the_copy),
		cmocka_unit_test(longer_than_the_port_sends),
		cmocka_unit_test(no_peer_and_port_down),
		cmocka_unit_test(partial_checksums),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
