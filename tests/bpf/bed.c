/* Two veth pairs with the AF_XDP engine on their near ends, made, turned and taken down. */
#include "bed.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SLOT_SIZE 4096
#define SLOTS	  2048	 /* a worker */
#define TYPE_OURS 0x88b5 /* IEEE 802, local experimental */

void run(const char *format, ...)
{
	char command[512];
	va_list list;

	va_start(list, format);
	vsnprintf(command, sizeof(command), format, list);
	va_end(list);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int packet_socket(const char *device)
{
	struct sockaddr_ll at = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(device),
	};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(ETH_P_ALL));
	int size = 8 << 20;

	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	return fd;
}

void bed_make(struct bed *t, unsigned int mtu, unsigned int queues, uint32_t n_pools)
{
	memset(t, 0, sizeof(*t));
	for (int i = 0; i < 2; i++) {
		run("ip link add near%d mtu %u numrxqueues %u numtxqueues %u type veth peer name "
		    "far%d mtu %u numrxqueues %u numtxqueues %u",
			i, mtu, queues, queues, i, mtu, queues, queues);
		run("ip link set near%d up && ip link set far%d up", i, i);
		t->far[i] = packet_socket(i ? "far1" : "far0");
	}
	t->memory = (struct memory){
		.size = (size_t)SLOTS * SLOT_SIZE * n_pools,
		.slot_size = SLOT_SIZE,
		.fd = memfd_create("culvert-test", MFD_CLOEXEC),
		.n_pools = n_pools,
		.pools = t->pools,
	};
	assert_int_equal(ftruncate(t->memory.fd, (off_t)t->memory.size), 0);
	t->memory.base =
		mmap(NULL, t->memory.size, PROT_READ | PROT_WRITE, MAP_SHARED, t->memory.fd, 0);
	assert_ptr_not_equal(t->memory.base, MAP_FAILED);
	for (uint32_t i = 0; i < n_pools; i++)
		assert_int_equal(pool_init(&t->pools[i], t->memory.base,
					 (uint64_t)i * SLOTS * SLOT_SIZE, SLOTS, SLOT_SIZE, 256),
			0);
}

int bed_open(struct bed *t, int i, struct port_settings s)
{
	s.name = i ? "b" : "a";
	s.device = i ? "near1" : "near0";
	return engine_find(s.device, &t->why)->open(&s, &t->memory, &t->ports[i], &t->why);
}

static void bed_join(struct bed *t)
{
	for (uint32_t w = 0; w < t->memory.n_pools; w++) {
		t->snaps[w].rx = t->rx[w];
		patch_init(&t->snaps[w].patch);
		patch_join(&t->snaps[w].patch, 0, 1);
	}
	for (uint32_t i = 0; i < 2; i++) {
		t->ports[i]->index = i;
		for (uint32_t q = 0; q < t->ports[i]->n_queues; q++) {
			struct queue *queue = t->ports[i]->queues[q];
			struct snapshot *snap = &t->snaps[queue->worker];

			snap->rx[snap->n_rx++] = queue;
			if (!snap->tx[i])
				snap->tx[i] = queue;
		}
	}
}

void bed_open_both(struct bed *t, struct port_settings s)
{
	for (int i = 0; i < 2; i++) {
		if (bed_open(t, i, s) != 0)
			fail_msg("near%d: %s; %s", i, t->why.what, t->why.remedy);
	}
	bed_join(t);
}

void law_holds(const struct bed *t, bool closed)
{
	for (uint32_t i = 0; i < t->memory.n_pools; i++) {
		assert_int_equal(pool_lost(&t->pools[i]), 0);
		if (closed)
			assert_int_equal(t->pools[i].n_free, t->pools[i].slots);
	}
}

void bed_close_ports(struct bed *t)
{
	for (int i = 0; i < 2; i++) {
		if (t->ports[i])
			t->ports[i]->engine->close(t->ports[i]);
		t->ports[i] = NULL;
	}
	memset(t->snaps, 0, sizeof(t->snaps));
	law_holds(t, true);
}

void bed_end(struct bed *t)
{
	bed_close_ports(t);
	for (uint32_t i = 0; i < t->memory.n_pools; i++)
		pool_fini(&t->pools[i]);
	munmap(t->memory.base, t->memory.size);
	close(t->memory.fd);
	for (int i = 0; i < 2; i++) {
		close(t->far[i]);
		run("ip link del near%d", i);
	}
}

void turn(struct bed *t)
{
	for (uint32_t w = 0; w < t->memory.n_pools; w++)
		worker_turn(&t->snaps[w]);
}

void frame_write(uint8_t *frame, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
	memcpy(frame, "\x02\x00\x00\x00\xfe\x01\x02\x00\x00\x00\xfe\x02", 12);
	frame[12] = TYPE_OURS >> 8;
	frame[13] = TYPE_OURS & 0xff;
}

uint32_t frame_read(int fd, uint8_t *frame, size_t size)
{
	struct sockaddr_ll from;
	socklen_t from_size = sizeof(from);
	ssize_t n;

	while ((n = recvfrom(fd, frame, size, 0, (struct sockaddr *)&from, &from_size)) > 0) {
		if (from.sll_pkttype != PACKET_OUTGOING && n >= 14 && frame[12] == TYPE_OURS >> 8 &&
			frame[13] == (TYPE_OURS & 0xff))
			return (uint32_t)n;
		from_size = sizeof(from);
	}
	return 0;
}

void await_frame(struct bed *t, int fd, const uint8_t *want, uint32_t len)
{
	double end = now() + PATIENCE_S;
	uint8_t got[8192];
	uint32_t n;

	while ((n = frame_read(fd, got, sizeof(got))) == 0) {
		if (now() > end)
			fail_msg("a frame of %u bytes did not arrive", len);
		turn(t);
	}
	assert_int_equal(n, len);
	assert_memory_equal(got, want, len);
}

void every_length(struct bed *t, uint32_t first, uint32_t last)
{
	static uint8_t frames[16][8192];

	for (int from = 0; from < 2; from++) {
		for (uint32_t len = first; len <= last;) {
			uint32_t n = 0;

			for (; n < 16 && len + n <= last; n++) {
				frame_write(frames[n], len + n, len + n + (uint32_t)from);
				assert_int_equal(
					send(t->far[from], frames[n], len + n, 0), len + n);
			}
			for (uint32_t i = 0; i < n; i++)
				await_frame(t, t->far[!from], frames[i], len + i);
			len += n;
		}
	}
	law_holds(t, false);
}

uint64_t counter_of(const struct port *p, uint32_t queue, const char *name)
{
	struct engine_counter all[32];
	uint32_t n = p->engine->counters(p, queue, all, 32);

	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(all[i].name, name) == 0)
			return all[i].value;
	}
	fail_msg("no counter %s", name);
	return 0;
}

void nothing_was_lost(const struct bed *t)
{
	static const char *const bad[] = {
		"rx_dropped", "rx_ring_full", "rx_invalid", "tx_invalid", "bpf_no_socket"};

	for (int i = 0; i < 2; i++) {
		for (uint32_t q = 0; q < t->ports[i]->n_queues; q++) {
			for (size_t c = 0; c < sizeof(bad) / sizeof(bad[0]); c++)
				assert_int_equal(counter_of(t->ports[i], q, bad[c]), 0);
		}
	}
}

/* 77: skipped, with the reason. */
static int skip_for(const char *why)
{
	fprintf(stderr, "skipped: %s\n", why);
	return 77;
}

int bed_ready(void)
{
	struct port_settings s = {.name = "lo", .device = "test0"};
	enum port_mode mode;
	struct reason why;
	int fd;

	if (geteuid() != 0)
		return skip_for("needs root, to make a network namespace");
	if (unshare(CLONE_NEWNET) != 0)
		return skip_for("no network namespace can be made here");
	fd = open("/proc/sys/net/ipv6/conf/default/disable_ipv6", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "1", 1) != 1)
			fprintf(stderr, "IPv6 stays on\n");
		close(fd);
	}
	if (system("ip link add test0 type veth peer name test1 && ip link set test0 up && "
		   "ip link set test1 up") != 0)
		return skip_for("no veth devices can be made here");
	if (engine_find("test0", &why)->probe(&s, &mode, &why) == -EPERM)
		return skip_for(why.what);
	return 0;
}
