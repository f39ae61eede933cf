/* What a DPDK port's queues receive and send: whole and in order, or dropped with a reason. */
#include "dpdk_ports.h"

#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <unistd.h>

static void test_frames_cross_without_a_copy(void **state)
{
	struct port *a = open_port("dpdk:net_ring0"), *b = open_port("dpdk:net_ring1");
	struct queue *rx[2];
	struct snapshot snap = join(a, b, rx, 1);
	static const uint32_t lens[] = {14, 60, 64, 1514, 1518};
	uint64_t bytes = 0;

	assert_ptr_equal(a->queues[0]->memory, b->queues[0]->memory);
	assert_int_equal(a->mode, PORT_MODE_DPDK);
	for (uint32_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		send_frames(a->queues[0], BATCH_SIZE, lens[i]);
		assert_int_equal(worker_turn(&snap), BATCH_SIZE);
		expect_frames(b->queues[0], BATCH_SIZE, lens[i]);
		bytes += BATCH_SIZE * lens[i];
	}
	assert_int_equal(counter_read(&a->queues[0]->stats.copied), 0);
	assert_int_equal(counter_read(&a->queues[0]->stats.rx_frames), 5 * BATCH_SIZE);
	assert_int_equal(counter_read(&a->queues[0]->stats.rx_bytes), bytes);
	assert_int_equal(counter_read(&b->queues[0]->stats.tx_frames), 5 * BATCH_SIZE);
	assert_int_equal(counter_read(&b->queues[0]->stats.tx_bytes), bytes);
	assert_int_equal(counter(a, "mbufs_in_use"), 0);
	close_port(a);
	close_port(b);
}

/* Of a driver that strips tags and one that fills several mbufs, among others: all arrive whole. */
static void test_odd_mbufs_become_frames(void **state)
{
	struct port *a = open_port("dpdk:net_ring0"), *b = open_port("dpdk:net_ring1");
	static const uint8_t tag[] = {0x81, 0x00, 0x00, 0x05};
	struct queue *rx[2];
	struct snapshot snap = join(a, b, rx, 1);
	struct rte_mbuf *m[4];
	struct frame f[3];
	uint16_t in, out;

	assert_int_equal(rte_eth_dev_get_port_by_name("net_ring0", &in), 0);
	assert_int_equal(rte_eth_dev_get_port_by_name("net_ring1", &out), 0);
	send_frames(a->queues[0], 4, 100);
	assert_int_equal(rte_eth_rx_burst(in, 0, m, 4), 4);
	m[1]->ol_flags |= RTE_MBUF_F_RX_VLAN_STRIPPED | RTE_MBUF_F_RX_VLAN;
	m[1]->vlan_tci = 5;
	for (uint32_t i = 0; i < 100; i++) /* it goes on where the third ends */
		rte_pktmbuf_mtod(m[3], uint8_t *)[i] = (uint8_t)(2 + 100 + i);
	assert_int_equal(rte_pktmbuf_chain(m[2], m[3]), 0);
	for (int i = 0; i < 3; i++) { /* none makes another's burst odd */
		assert_int_equal(rte_eth_tx_burst(in, 0, &m[i], 1), 1);
		assert_int_equal(worker_turn(&snap), 1);
	}
	b->queues[0]->frame_len_max = 99;
	send_frames(a->queues[0], 1, 100);
	assert_int_equal(worker_turn(&snap), 1);
	assert_int_equal(counter_read(&a->queues[0]->stats.drops[DROP_TOO_LONG]), 1);
	assert_int_equal(counter_read(&a->queues[0]->stats.rx_bytes), 100 + 104 + 200 + 100);
	assert_int_equal(counter_read(&b->queues[0]->stats.tx_bytes), 100 + 104 + 200);

	assert_int_equal(rte_eth_rx_burst(out, 0, m, 4), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(m[i]->nb_segs, 1);
		f[i] = (struct frame){
			.data = rte_pktmbuf_mtod(m[i], uint8_t *), .len = m[i]->pkt_len};
	}
	check_frame(&f[0], 0, 100);
	assert_int_equal(f[1].len, 104);
	assert_memory_equal(f[1].data + 12, tag, sizeof(tag));
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(f[1].data[i < 12 ? i : i + 4], (uint8_t)(1 + i));
	check_frame(&f[2], 2, 200);
	rte_pktmbuf_free_bulk(m, 3);
	assert_int_equal(counter(a, "mbufs_in_use"), 0);
	close_port(a);
	close_port(b);
}

static void test_a_full_ring_drops_and_counts(void **state)
{
	struct port *a = open_port("dpdk:net_ring0"), *b = open_port("dpdk:net_null0");
	struct queue *rx[2];
	struct snapshot snap = join(b, a, rx, 1);
	uint64_t dropped = 0, in_use;

	/* Nobody takes what net_null makes out of the ring again. */
	for (int i = 0; i < 2000 && !dropped; i++) {
		worker_turn(&snap);
		dropped = counter_read(&b->queues[0]->stats.drops[DROP_TX_FULL]);
	}
	assert_true(dropped > 0);
	in_use = counter(a, "mbufs_in_use");
	assert_int_equal(in_use, counter_read(&a->queues[0]->stats.tx_frames));
	assert_int_equal(counter_read(&b->queues[0]->stats.rx_frames), in_use + dropped);
	assert_int_equal(counter_read(&a->queues[0]->stats.tx_bytes), in_use * 64); /* net_null's */
	for (int i = 0; i < 100; i++) {
		struct batch batch;

		a->queues[0]->ops->rx(a->queues[0], &batch);
		a->queues[0]->ops->put(a->queues[0], &batch);
	}
	assert_int_equal(counter(a, "mbufs_in_use"), 0);
	close_port(a);
	close_port(b);
}

static void write_pcap(const char *path, const uint32_t *lens, uint32_t n)
{
	const uint32_t header[] = {0xa1b2c3d4, 4 << 16 | 2, 0, 0, 65535, 1};
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_int_equal(fwrite(header, sizeof(header), 1, f), 1);
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t record[] = {0, 0, lens[i], lens[i]};

		assert_int_equal(fwrite(record, sizeof(record), 1, f), 1);
		for (uint32_t k = 0; k < lens[i]; k++)
			fputc((uint8_t)(i + k), f);
	}
	assert_int_equal(fclose(f), 0);
}

/* The frames of a file, compared with those that may have passed; returns how many. */
static uint32_t check_pcap(const char *path, const uint32_t *lens)
{
	uint32_t header[6], record[4], n = 0;
	uint8_t bytes[65536];
	FILE *f = fopen(path, "re");

	assert_non_null(f);
	assert_int_equal(fread(header, sizeof(header), 1, f), 1);
	for (; fread(record, sizeof(record), 1, f) == 1; n++) {
		struct frame frame = {.data = bytes, .len = record[2]};

		assert_int_equal(record[3], lens[n]);
		assert_int_equal(fread(bytes, 1, record[2], f), record[2]);
		check_frame(&frame, n, lens[n]);
	}
	fclose(f);
	return n;
}

static void test_what_is_too_long_is_dropped_with_a_reason(void **state)
{
	/* 5000: the driver hands it over in pieces; 1600: longer than the other end's MTU. */
	static const uint32_t lens[] = {60, 64, 1000, 1514, 1600, 5000};
	char in[64], out[64], device[256];
	struct port *a, *b;
	struct queue *rx[2];
	struct snapshot snap;

	snprintf(in, sizeof(in), "/tmp/culvert-in-%d.pcap", (int)getpid());
	snprintf(out, sizeof(out), "/tmp/culvert-out-%d.pcap", (int)getpid());
	write_pcap(in, lens, 6);
	snprintf(device, sizeof(device), "dpdk:net_pcap0,rx_pcap=%s,tx_pcap=%s", in, out);
	a = open_port(device);
	b = open_port("dpdk:net_ring0");
	snap = join(a, b, rx, 1);
	for (int i = 0; i < 10; i++)
		worker_turn(&snap);
	assert_int_equal(counter_read(&a->queues[0]->stats.drops[DROP_TOO_LONG]), 1);
	assert_int_equal(counter(a, "rx_scattered"), 1);
	/* Back into the file. */
	snap.rx = &b->queues[0];
	for (int i = 0; i < 10; i++)
		worker_turn(&snap);
	assert_int_equal(counter(a, "mbufs_in_use"), 0);
	close_port(a);
	close_port(b);
	assert_int_equal(check_pcap(out, lens), 4);
	unlink(in);
	unlink(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_cross_without_a_copy),
		cmocka_unit_test(test_odd_mbufs_become_frames),
		cmocka_unit_test(test_a_full_ring_drops_and_counts),
		cmocka_unit_test(test_what_is_too_long_is_dropped_with_a_reason),
	};

	if (!dpdk_works())
		return SKIPPED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
