/* The DPDK engine over devices that need nothing: net_null, net_ring, net_pcap. */
#include "unit.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/dpdk/dpdk.h"
#include "engine/dpdk/eal.h"
#include "engine/mem/mem.h"
#include "frame/pool.h"
#include "worker/worker.h"

#define SLOTS	  4096
#define SLOT_SIZE 4096
#define HEADROOM  256
#define SKIPPED	  77

static struct pool pools[2];
static struct memory memory = {.slot_size = SLOT_SIZE, .fd = -1, .n_pools = 1, .pools = pools};

static void memory_make(void)
{
	memory.size = 2 * SLOTS * SLOT_SIZE;
	memory.base = aligned_alloc(SLOT_SIZE, memory.size);
	assert_non_null(memory.base);
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(pool_init(&pools[i], memory.base, i * SLOTS * SLOT_SIZE, SLOTS,
					 SLOT_SIZE, HEADROOM),
			0);
}

static int try_open(const char *device, struct port **ret, struct reason *why)
{
	const struct port_settings s = {
		.name = "p", .device = device, .rx_ring = 256, .tx_ring = 256};

	*why = (struct reason){0};
	return engine_find(device, why)->open(&s, &memory, ret, why);
}

static struct port *open_port(const char *device)
{
	struct port *p = NULL;
	struct reason why;

	if (try_open(device, &p, &why) < 0)
		fail_msg("%s: %s; %s", device, why.what, why.remedy);
	return p;
}

static void close_port(struct port *p)
{
	p->engine->close(p);
}

static uint64_t counter(const struct port *p, const char *name)
{
	struct engine_counter all[128];
	uint32_t n = p->engine->counters(p, 0, all, 128);

	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) == 0)
			return all[i].value;
	}
	return 0;
}

/* Two ports joined; only those of `rx` are polled. */
static struct snapshot join(struct port *a, struct port *b, struct queue **rx, uint32_t n_rx)
{
	struct snapshot snap = {.n_rx = n_rx, .rx = rx};

	a->index = 0;
	b->index = 1;
	rx[0] = a->queues[0];
	if (n_rx > 1)
		rx[1] = b->queues[0];
	snap.tx[0] = a->queues[0];
	snap.tx[1] = b->queues[0];
	patch_init(&snap.patch);
	patch_join(&snap.patch, 0, 1);
	return snap;
}

static void write_frame(struct frame *f, uint32_t number, uint32_t len)
{
	f->len = len;
	for (uint32_t i = 0; i < len; i++)
		f->data[i] = (uint8_t)(number + i);
}

static void check_frame(const struct frame *f, uint32_t number, uint32_t len)
{
	assert_int_equal(f->len, len);
	for (uint32_t i = 0; i < len; i++)
		assert_int_equal(f->data[i], (uint8_t)(number + i));
}

/* On a net_ring what is sent is received again. */
static void send_frames(struct queue *q, uint32_t n, uint32_t len)
{
	struct batch b;

	b.n = q->ops->take(q, b.frames, n);
	assert_int_equal(b.n, n);
	for (uint32_t i = 0; i < n; i++)
		write_frame(&b.frames[i], i, len);
	assert_int_equal(q->ops->tx(q, &b), 0);
}

static void expect_frames(struct queue *q, uint32_t n, uint32_t len)
{
	struct batch b;

	q->ops->rx(q, &b);
	assert_int_equal(b.n, n);
	for (uint32_t i = 0; i < n; i++)
		check_frame(&b.frames[i], i, len);
	q->ops->put(q, &b);
}

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

static uint32_t n_slots_held; /* by the test itself */

static void expect_law(const struct pool *p)
{
	assert_int_equal(pool_lost(p), 0);
	assert_int_equal(p->held[HOLDER_WORKER], 0);
}

static void expect_all_free(const struct pool *p)
{
	expect_law(p);
	assert_int_equal(p->n_free, p->slots - n_slots_held);
	assert_int_equal(p->held[HOLDER_FREE], p->n_free);
}

/* To an engine of another kind and back; n_copied: of them, each way. */
static void cross(const char *device, uint32_t n_copied)
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
	expect_all_free(&pools[0]);
}

static void test_frames_cross_to_other_engines_without_a_copy(void **state)
{
	cross("dpdk:net_ring0", 0);
}

static void test_a_port_without_slots_has_memory_of_its_own(void **state)
{
	static uint64_t taken[SLOTS];
	uint32_t n = pool_take(&pools[0], taken, SLOTS - 512, HOLDER_WORKER);

	/* DPDK would keep more than are left; frames are copied then. */
	pool_move(&pools[0], taken, n, HOLDER_WORKER, HOLDER_TX);
	n_slots_held = n;
	cross("dpdk:net_ring0", 10);
	n_slots_held = 0;
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
	expect_all_free(&pools[0]);
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
	expect_all_free(&pools[0]);
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
	expect_all_free(&pools[0]);
}

static void test_what_waits_at_a_stop_is_counted(void **state)
{
	struct port *a = open_port("dpdk:net_ring0");
	const struct queue_stats *stats = &a->queues[0]->stats;

	for (int i = 0; i < 3; i++)
		send_frames(a->queues[0], BATCH_SIZE - i, 60);
	a->engine->stop(a);
	assert_int_equal(counter_read(&stats->rx_frames), 3 * BATCH_SIZE - 3);
	assert_int_equal(counter_read(&stats->drops[DROP_SHUTDOWN]), 3 * BATCH_SIZE - 3);
	assert_int_equal(counter(a, "mbufs_in_use"), 0);
	close_port(a);
	expect_all_free(&pools[0]);
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

static void test_queues_are_dealt_to_workers(void **state)
{
	struct port *p;

	memory.n_pools = 2;
	p = open_port("dpdk:net_null0");
	memory.n_pools = 1;
	assert_int_equal(p->n_queues, 2);
	assert_int_equal(p->queues[0]->worker, 0);
	assert_int_equal(p->queues[1]->worker, 1);
	close_port(p);
}

static int n_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_ports_come_and_go(void **state)
{
	static const char *const devices[] = {"dpdk:net_null0", "dpdk:net_null1", "dpdk:net_null2",
		"dpdk:net_ring0", "dpdk:net_null_again"};
	struct port *ports[5];
	int before = 0;

	for (int round = 0; round < 20; round++) {
		struct queue *rx[2];
		struct snapshot snap;

		for (int i = 0; i < 5; i++)
			ports[i] = open_port(devices[i]);
		snap = join(ports[0], ports[1], rx, 2);
		assert_int_equal(worker_turn(&snap), 2 * BATCH_SIZE);
		close_port(ports[2]); /* others go on */
		assert_int_equal(worker_turn(&snap), 2 * BATCH_SIZE);
		for (int i = 0; i < 5; i++) {
			if (i != 2)
				close_port(ports[i]);
		}
		if (round == 1)
			before = n_fds();
	}
	assert_int_equal(n_fds(), before);
}

static void refused(const char *device, int err, const char *what)
{
	struct port *p;
	struct reason why;
	int got = try_open(device, &p, &why);

	if (got != err || !strstr(why.what, what) || !why.remedy[0])
		fail_msg("%s: %d: %s; %s", device, got, why.what, why.remedy);
}

static void test_refusals_say_why(void **state)
{
	struct port *p = open_port("dpdk:net_null0");

	refused("dpdk:net_null0", -EBUSY, "in use by another port");
	refused("dpdk:", -EINVAL, "neither");
	refused("dpdk:eth0", -EINVAL, "neither");
	refused("dpdk:ffff:ff:1f.7", -ENODEV, "no PCI device ffff:ff:1f.7");
	refused("dpdk:ff:1f.7", -ENODEV, "no PCI device 0000:ff:1f.7");
	refused("dpdk:net_nosuch0", -ENODEV, "net_nosuch0");
	refused("dpdk:net_null1,nosuch=1", -ENODEV, "net_null1");
	refused("dpdk:net_af_packet0", -EINVAL, "iface=");
	refused("dpdk:net_af_packet0,iface=nosuch0", -ENODEV, "no network device nosuch0");
	refused("dpdk:net_null1,mtu=no", -EINVAL, "no MTU");
	refused("dpdk:net_pcap0,rx_pcap=/nosuch/file", -ENODEV, "net_pcap0");
	refused("dpdk:net_virtio_user0", -EINVAL, "needs path=");
	refused("dpdk:net_virtio_user0,path=/nosuch/s,server=1", -EINVAL, "answer nobody");
	refused("dpdk:net_virtio_user0,path=/nosuch/s", -ENOTCONN, "nobody listens at /nosuch/s");
	refused("dpdk:net_memif0,socket=culvert-nosuch", -ENOTCONN, "culvert-nosuch (abstract)");
	refused("dpdk:net_memif0,role=middle", -EINVAL, "no role middle");
	refused("dpdk:net_memif0,role=server,socket=/nosuch/s,socket-abstract=no", -ENODEV,
		"directory");
	refused("dpdk:net_vhost0,iface=/nosuch/s", -EIO, "/nosuch/s");
	/* After all that one can be had. */
	close_port(open_port("dpdk:net_null1"));
	close_port(p);
}

static void *complain(void *worker)
{
	if (worker)
		rte_thread_register();
	rte_log(RTE_LOG_ERR, RTE_LOGTYPE_USER1, "one complains\n");
	if (worker)
		rte_thread_unregister();
	return NULL;
}

/* Workers go on with other ports while control opens one: what those complain of is no reason. */
static void test_a_worker_is_not_listened_to(void **state)
{
	for (int worker = 0; worker < 2; worker++) {
		pthread_t thread;

		eal_listen();
		assert_int_equal(
			pthread_create(&thread, NULL, complain, worker ? &worker : NULL), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_string_equal(eal_listen_end(), worker ? "" : "one complains");
	}
}

/* Before the first port of this process, and while it was open. */
static struct {
	struct sigaction actions[NSIG];
	cpu_set_t cpus;
} seen[2];

static void see(int when)
{
	assert_int_equal(sched_getaffinity(0, sizeof(seen[when].cpus), &seen[when].cpus), 0);
	for (int i = 1; i < NSIG; i++)
		sigaction(i, NULL, &seen[when].actions[i]);
}

static void test_the_process_is_left_alone(void **state)
{
	assert_true(CPU_EQUAL(&seen[0].cpus, &seen[1].cpus));
	for (int i = 1; i < NSIG; i++)
		assert_ptr_equal(seen[0].actions[i].sa_handler, seen[1].actions[i].sa_handler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frames_cross_without_a_copy),
		cmocka_unit_test(test_frames_cross_to_other_engines_without_a_copy),
		cmocka_unit_test(test_a_port_without_slots_has_memory_of_its_own),
		cmocka_unit_test(test_what_others_were_promised_is_not_lent_to_a_port),
		cmocka_unit_test(test_what_drivers_write_is_spread_over_cache_sets),
		cmocka_unit_test(test_frames_may_begin_early_in_their_slots),
		cmocka_unit_test(test_a_thread_that_is_no_worker_may_free),
		cmocka_unit_test(test_what_lies_in_a_closing_port_comes_back),
		cmocka_unit_test(test_odd_mbufs_become_frames),
		cmocka_unit_test(test_what_waits_at_a_stop_is_counted),
		cmocka_unit_test(test_a_full_ring_drops_and_counts),
		cmocka_unit_test(test_what_is_too_long_is_dropped_with_a_reason),
		cmocka_unit_test(test_queues_are_dealt_to_workers),
		cmocka_unit_test(test_ports_come_and_go),
		cmocka_unit_test(test_refusals_say_why),
		cmocka_unit_test(test_a_worker_is_not_listened_to),
		cmocka_unit_test(test_the_process_is_left_alone),
	};
	struct reason why;
	struct port *p;

	memory_make();
	see(0);
	if (try_open("dpdk:net_null0", &p, &why) < 0) {
		printf("skipped: DPDK can't be had here: %s\n", why.what);
		return SKIPPED;
	}
	see(1);
	close_port(p);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
