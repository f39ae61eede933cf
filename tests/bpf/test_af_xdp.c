/* The AF_XDP engine under the worker's loop: real frames over veth, byte for byte, in every mode
 * that veth has; and what it says where it can't. Needs root: it makes a network namespace. */
#include "../unit/unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "culvert/abi.h"
#include "engine/af_xdp/internal.h"
#include "frame/pool.h"
#include "worker/worker.h"

#define SLOT_SIZE  4096
#define SLOTS	   2048 /* a worker */
#define POOLS_MAX  2
#define TYPE_OURS  0x88b5 /* IEEE 802, local experimental */
#define PATIENCE_S 20

static void run(const char *format, ...)
{
	char command[512];
	va_list list;

	va_start(list, format);
	vsnprintf(command, sizeof(command), format, list);
	va_end(list);
	if (system(command) != 0)
		fail_msg("failed: %s", command);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Two veth pairs, near0-far0 and near1-far1: the engine has the near ends. */
struct bed {
	int far[2]; /* packet sockets */
	struct memory memory;
	struct pool pools[POOLS_MAX];
	struct port *ports[2];
	struct queue *rx[POOLS_MAX][16];
	struct snapshot snaps[POOLS_MAX];
	struct reason why;
};

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

static void bed_make(struct bed *t, unsigned int mtu, unsigned int queues, uint32_t n_pools)
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

static int bed_open(struct bed *t, int i, struct port_settings s)
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

static void bed_open_both(struct bed *t, struct port_settings s)
{
	for (int i = 0; i < 2; i++) {
		if (bed_open(t, i, s) != 0)
			fail_msg("near%d: %s; %s", i, t->why.what, t->why.remedy);
	}
	bed_join(t);
}

static void law_holds(const struct bed *t, bool closed)
{
	for (uint32_t i = 0; i < t->memory.n_pools; i++) {
		assert_int_equal(pool_lost(&t->pools[i]), 0);
		if (closed)
			assert_int_equal(t->pools[i].n_free, t->pools[i].slots);
	}
}

static void bed_close_ports(struct bed *t)
{
	for (int i = 0; i < 2; i++) {
		if (t->ports[i])
			t->ports[i]->engine->close(t->ports[i]);
		t->ports[i] = NULL;
	}
	memset(t->snaps, 0, sizeof(t->snaps));
	law_holds(t, true);
}

static void bed_end(struct bed *t)
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

static void turn(struct bed *t)
{
	for (uint32_t w = 0; w < t->memory.n_pools; w++)
		worker_turn(&t->snaps[w]);
}

static void frame_write(uint8_t *frame, uint32_t len, uint32_t seed)
{
	for (uint32_t i = 0; i < len; i++)
		frame[i] = (uint8_t)(seed * 31 + i * 7 + (i >> 8));
	memcpy(frame, "\x02\x00\x00\x00\xfe\x01\x02\x00\x00\x00\xfe\x02", 12);
	frame[12] = TYPE_OURS >> 8;
	frame[13] = TYPE_OURS & 0xff;
}

/* The next of our frames that came in at the far end; 0: none yet. */
static uint32_t frame_read(int fd, uint8_t *frame, size_t size)
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

static void await_frame(struct bed *t, int fd, const uint8_t *want, uint32_t len)
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

/* Every length, in both directions, a few on their way at a time. */
static void every_length(struct bed *t, uint32_t first, uint32_t last)
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

static uint64_t counter_of(const struct port *p, uint32_t queue, const char *name)
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

static void nothing_was_lost(const struct bed *t)
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

static void forwards(enum port_mode mode, enum port_mode got, unsigned int mtu, uint32_t first)
{
	struct bed t;

	bed_make(&t, mtu, 1, 1);
	bed_open_both(&t, (struct port_settings){.mode = mode, .keep_host = true});
	assert_int_equal(t.ports[0]->mode, got);
	assert_int_equal(t.ports[1]->mode, got);
	assert_true(t.ports[0]->step_down.what[0]);
	assert_int_equal(strstr(t.ports[0]->step_down.what, "uncut") != NULL, got == PORT_MODE_SKB);
	every_length(&t, first, mtu + 14);
	nothing_was_lost(&t);
	bed_end(&t);
}

static void forwards_in_copy_mode(void **state)
{
	forwards(PORT_MODE_COPY, PORT_MODE_COPY, 1500, 14);
}

static void forwards_in_skb_mode(void **state)
{
	forwards(PORT_MODE_SKB, PORT_MODE_SKB, 1500, 14);
}

static void forwards_long_frames(void **state)
{
	forwards(PORT_MODE_AUTO, PORT_MODE_COPY, 3498, 1515);
	forwards(PORT_MODE_SKB, PORT_MODE_SKB, 3498, 1515);
}

static void follows_the_mtu(void **state)
{
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	bed_open_both(&t, (struct port_settings){0});
	for (int i = 0; i < 2; i++) {
		run("ip link set far%d mtu 2000 && ip link set near%d mtu 2000", i, i);
		t.ports[i]->engine->mtu_changed(t.ports[i], 2000);
	}
	every_length(&t, 1510, 2014);
	nothing_was_lost(&t);
	bed_end(&t);
}

/* veth's native limit is 3520: above it the ladder leads to skb mode, up to what a slot holds. */
static void mtu_decides_the_mode(void **state)
{
	struct bed t;

	forwards(PORT_MODE_AUTO, PORT_MODE_SKB, 3800, 3500);
	bed_make(&t, 9000, 1, 1);
	assert_int_equal(bed_open(&t, 0, (struct port_settings){0}), -EINVAL);
	assert_non_null(strstr(t.why.what, "9000"));
	assert_non_null(strstr(t.why.remedy, "ip link set dev near0 mtu 3520"));
	bed_end(&t);
}

/* Prefer-busy-poll: the device's work is done by our own system calls. */
static void forwards_when_busy(void **state)
{
	struct bed t;

	bed_make(&t, 1500, 2, 1);
	bed_open_both(&t, (struct port_settings){.busy = true, .rx_ring = 128, .tx_ring = 128});
	every_length(&t, 60, 400);
	nothing_was_lost(&t);
	bed_end(&t);
}

static void steps_down_with_a_reason(void **state)
{
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	bed_open_both(&t, (struct port_settings){0});
	assert_int_equal(t.ports[0]->mode, PORT_MODE_COPY);
	assert_non_null(strstr(t.ports[0]->step_down.what, "no zero-copy"));
	bed_close_ports(&t);

	assert_int_equal(bed_open(&t, 0, (struct port_settings){.require = PORT_MODE_ZERO_COPY}),
		-EOPNOTSUPP);
	assert_non_null(strstr(t.why.what, "no zero-copy"));
	assert_int_equal(
		bed_open(&t, 0, (struct port_settings){.mode = PORT_MODE_ZERO_COPY}), -EOPNOTSUPP);
	bed_end(&t);
}

/* Frames on four queues, two workers; flows are spread by the sender's queue. */
static void binds_every_queue(void **state)
{
	struct bed t;
	uint8_t frame[100];

	bed_make(&t, 1500, 4, 2);
	bed_open_both(&t, (struct port_settings){.keep_host = true});
	assert_int_equal(t.ports[0]->n_queues, 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(t.ports[0]->queues[i]->worker, i % 2);
	for (uint32_t i = 0; i < 400; i++) {
		frame_write(frame, sizeof(frame), i);
		frame[11] = (uint8_t)i;
		assert_int_equal(send(t.far[0], frame, sizeof(frame), 0), sizeof(frame));
		await_frame(&t, t.far[1], frame, sizeof(frame));
	}
	nothing_was_lost(&t);
	bed_end(&t);
}

static void too_few_queues_are_bound(void **state)
{
	struct bed t;

	bed_make(&t, 1500, 4, 1);
	assert_int_equal(bed_open(&t, 0, (struct port_settings){.queues = 5}), -EINVAL);
	assert_non_null(strstr(t.why.remedy, "ethtool -L near0 combined 5"));
	assert_int_equal(bed_open(&t, 0, (struct port_settings){.queues = 2}), 0);
	assert_int_equal(t.ports[0]->n_queues, 2);
	assert_non_null(strstr(t.ports[0]->step_down.what, "queues 2 to 3 of near0 are not bound"));
	bed_end(&t);
}

/* More than the rings hold, and nobody turns the loop: the kernel counts, nothing leaks, and it
 * goes on. */
static void survives_overload(void **state)
{
	static const char *const full[] = {"rx_ring_full", "rx_dropped", "rx_fill_ring_empty"};
	uint64_t n_got = 0, n_full = 0;
	uint8_t frame[60];
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	bed_open_both(&t, (struct port_settings){.rx_ring = 256, .tx_ring = 64});
	frame_write(frame, sizeof(frame), 1);
	for (int i = 0; i < 5000; i++)
		send(t.far[0], frame, sizeof(frame), 0);
	for (double end = now() + PATIENCE_S; now() < end && (n_got < 256 || n_full == 0);) {
		turn(&t);
		n_got = counter_read(&t.ports[0]->queues[0]->stats.rx_frames);
		n_full = 0;
		for (size_t i = 0; i < sizeof(full) / sizeof(full[0]); i++)
			n_full += counter_of(t.ports[0], 0, full[i]);
	}
	assert_true(n_got >= 256);
	assert_true(n_full > 0);
	law_holds(&t, false);
	while (frame_read(t.far[1], frame, sizeof(frame)) > 0)
		turn(&t);
	every_length(&t, 61, 64);
	bed_end(&t);
}

static void keeps_what_is_the_hosts(void **state)
{
	struct culvert_host_address own = {.version = 4, .bytes = {192, 0, 2, 1}};
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	run("ip addr add 192.0.2.1/24 dev near0");
	run("ip link set far0 address 02:00:00:00:00:99");
	bed_open_both(
		&t, (struct port_settings){
			    .keep_host = true, .host_addresses = &own, .n_host_addresses = 1});

	/* who-has 192.0.2.1 and 192.0.2.2 */
	uint8_t ask[42] = "\xff\xff\xff\xff\xff\xff\x02\0\0\0\0\x99\x08\x06\0\1\x08\0\6\4\0\1"
			  "\x02\0\0\0\0\x99\xc0\0\2\x09\0\0\0\0\0\0\xc0\0\2\1";
	assert_int_equal(send(t.far[0], ask, sizeof(ask), 0), sizeof(ask));
	ask[41] = 2;
	assert_int_equal(send(t.far[0], ask, sizeof(ask), 0), sizeof(ask));
	for (double end = now() + PATIENCE_S; now() < end; turn(&t)) {
		if (counter_of(t.ports[0], 0, "bpf_to_host") >= 1 &&
			counter_read(&t.ports[0]->queues[0]->stats.rx_frames) >= 1)
			break;
	}
	assert_int_equal(counter_of(t.ports[0], 0, "bpf_to_host"), 1);
	assert_true(counter_read(&t.ports[0]->queues[0]->stats.rx_frames) >= 1);

	/* Forgotten: the same question is forwarded. */
	assert_int_equal(t.ports[0]->engine->host_addresses(t.ports[0], NULL, 0, &t.why), 0);
	ask[41] = 1;
	assert_int_equal(send(t.far[0], ask, sizeof(ask), 0), sizeof(ask));
	for (double end = now() + PATIENCE_S; now() < end; turn(&t)) {
		if (counter_read(&t.ports[0]->queues[0]->stats.rx_frames) >= 2)
			break;
	}
	assert_int_equal(counter_of(t.ports[0], 0, "bpf_to_host"), 1);

	/* And learned again. */
	assert_int_equal(t.ports[0]->engine->host_addresses(t.ports[0], &own, 1, &t.why), 0);
	assert_int_equal(send(t.far[0], ask, sizeof(ask), 0), sizeof(ask));
	for (double end = now() + PATIENCE_S; now() < end; turn(&t)) {
		if (counter_of(t.ports[0], 0, "bpf_to_host") >= 2)
			break;
	}
	assert_int_equal(counter_of(t.ports[0], 0, "bpf_to_host"), 2);
	bed_end(&t);
}

static void names_who_holds_the_device(void **state)
{
	struct bed t;
	struct port *second;
	struct port_settings s = {.name = "c", .device = "near0"};

	bed_make(&t, 1500, 1, 1);
	bed_open_both(&t, (struct port_settings){0});
	assert_int_equal(t.ports[0]->engine->open(&s, &t.memory, &second, &t.why), -EBUSY);
	assert_non_null(strstr(t.why.what, "another XDP program (steer, id "));
	assert_non_null(strstr(t.why.remedy, "ip link set dev near0 xdp off"));
	every_length(&t, 60, 61); /* the first one was not disturbed */
	bed_end(&t);
}

/* A tunnel's packets begin with the IP header: taken for Ethernet they would be nonsense. */
static void refuses_what_is_no_ethernet(void **state)
{
	struct port_settings s = {.name = "c", .device = "flat"};
	const struct engine_ops *engine = engine_find(s.device, NULL);
	enum port_mode mode;
	struct port *port;
	struct bed t;

	if (access("/dev/net/tun", R_OK | W_OK) != 0)
		skip();
	bed_make(&t, 1500, 1, 1);
	run("ip tuntap add dev flat mode tun && ip link set flat up");
	assert_int_equal(engine->probe(&s, &mode, &t.why), -EINVAL);
	assert_non_null(strstr(t.why.what, "no Ethernet device"));
	assert_int_equal(engine->open(&s, &t.memory, &port, &t.why), -EINVAL);
	assert_non_null(strstr(t.why.remedy, "tap"));
	run("ip link del flat");
	bed_end(&t);
}

static int descriptors(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void opens_and_closes_many_times(void **state)
{
	uint8_t frame[200];
	struct bed t;
	int before;

	bed_make(&t, 1500, 2, 1);
	before = descriptors();
	frame_write(frame, sizeof(frame), 1);
	for (int i = 0; i < 30; i++) {
		bed_open_both(&t, (struct port_settings){.mode = i & 1 ? PORT_MODE_SKB : 0});
		for (int k = 0; k < 40; k++)
			assert_int_equal(send(t.far[k & 1], frame, sizeof(frame), 0), 200);
		turn(&t);
		bed_close_ports(&t); /* with frames in every ring */
		assert_int_equal(descriptors(), before);
	}
	run("! ip link show near0 | grep -q xdp");
	bed_end(&t);
}

/* What the kernel delivered and no worker took is counted as received and dropped. */
static void counts_what_waits_when_it_stops(void **state)
{
	const uint64_t sent = 40;
	uint8_t frame[60];
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	frame_write(frame, sizeof(frame), 1);
	for (int mode = PORT_MODE_SKB; mode <= PORT_MODE_COPY; mode++) {
		const struct queue_stats *s;
		struct port *p;

		assert_int_equal(
			bed_open(&t, 0, (struct port_settings){.mode = (enum port_mode)mode}), 0);
		p = t.ports[0];
		s = &p->queues[0]->stats;
		for (uint64_t i = 0; i < sent; i++)
			assert_int_equal(send(t.far[0], frame, sizeof(frame), 0), sizeof(frame));
		for (double end = now() + PATIENCE_S;
			counter_of(p, 0, "bpf_redirected") < sent && now() < end;)
			usleep(1000);
		assert_int_equal(counter_read(&s->rx_frames), 0);
		/* The program counts a frame just before its ring has it: on a machine that stands
		 * still in between, one more look finds the last ones. */
		for (double end = now() + PATIENCE_S; now() < end;) {
			p->engine->stop(p);
			if (counter_read(&s->rx_frames) == sent)
				break;
		}
		assert_int_equal(counter_read(&s->rx_frames), sent);
		assert_int_equal(counter_read(&s->drops[DROP_SHUTDOWN]), sent);
		send(t.far[0], frame, sizeof(frame), 0); /* no more arrive */
		p->engine->stop(p);
		assert_int_equal(counter_read(&s->rx_frames), sent);
		law_holds(&t, false);
		bed_close_ports(&t);
	}
	bed_end(&t);
}

/* Busy while a port has it, free soon after. */
static void waits_for_the_kernel_to_let_go(void **state)
{
	struct device d;
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	bed_open_both(&t, (struct port_settings){0});
	assert_int_equal(device_read("near0", &d, &t.why), 0);
	assert_int_equal(xdp_socket_await_release(&d, 0), -EBUSY);
	bed_close_ports(&t);
	assert_int_equal(xdp_socket_await_release(&d, 0), 0);
	bed_open_both(&t, (struct port_settings){0});
	every_length(&t, 60, 70);
	bed_end(&t);
}

/* A device that goes away takes no slot with it, and the other port goes on. */
static void survives_a_device_that_goes(void **state)
{
	uint8_t frame[100];
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	bed_open_both(&t, (struct port_settings){0});
	every_length(&t, 60, 64);
	run("ip link del near1");
	frame_write(frame, sizeof(frame), 1);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(send(t.far[0], frame, sizeof(frame), 0), sizeof(frame));
		turn(&t);
	}
	law_holds(&t, false);
	t.ports[1]->engine->close(t.ports[1]);
	t.ports[1] = NULL;
	law_holds(&t, false);
	run("ip link add near1 type veth peer name far1");
	bed_end(&t);
}

static void explains_bad_devices(void **state)
{
	struct bed t;
	struct port_settings s = {.name = "x", .device = "nosuch"};
	struct port *p;

	bed_make(&t, 1500, 1, 1);
	assert_int_equal(engine_find("nosuch", &t.why)->open(&s, &t.memory, &p, &t.why), -ENODEV);
	assert_non_null(strstr(t.why.what, "nosuch"));
	run("ip link set near0 down");
	assert_int_equal(bed_open(&t, 0, (struct port_settings){0}), -ENETDOWN);
	assert_string_equal(t.why.remedy, "ip link set dev near0 up");
	bed_end(&t);
}

static void capabilities_drop(uint32_t first, uint32_t second)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	assert_int_equal(syscall(SYS_capget, &head, data), 0);
	data[first / 32].effective &= ~(1u << first % 32);
	data[second / 32].effective &= ~(1u << second % 32);
	assert_int_equal(syscall(SYS_capset, &head, data), 0);
}

/* In a child, as limits and capabilities can't be had back. */
static void refused_without(uint32_t first, uint32_t second, bool small_memlock, int want,
	const char *what, const char *remedy)
{
	struct rlimit small = {64 << 10, 64 << 10};
	int status;
	struct bed t;
	pid_t child;

	bed_make(&t, 1500, 1, 1);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		int err;

		if (small_memlock && setrlimit(RLIMIT_MEMLOCK, &small))
			_exit(2);
		capabilities_drop(first, second);
		err = bed_open(&t, 0, (struct port_settings){0});
		if (err == want && strstr(t.why.what, what) && strstr(t.why.remedy, remedy))
			_exit(0);
		fprintf(stderr, "%d: %s; %s\n", err, t.why.what, t.why.remedy);
		_exit(1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	bed_end(&t);
}

static void names_the_missing_capability(void **state)
{
	refused_without(
		CAP_NET_RAW, CAP_NET_RAW, false, -EPERM, "CAP_NET_RAW is missing", "CAP_NET_RAW");
	refused_without(CAP_BPF, CAP_SYS_ADMIN, false, -EPERM,
		"CAP_BPF (or CAP_SYS_ADMIN) is missing", "CAP_BPF");
	refused_without(
		CAP_NET_ADMIN, CAP_SYS_ADMIN, false, -EPERM, "CAP_NET_ADMIN", "CAP_NET_ADMIN");
	refused_without(
		CAP_IPC_LOCK, CAP_SYS_RESOURCE, true, -EPERM, "64 KiB", "LimitMEMLOCK=infinity");
}

static int probe(struct bed *t, struct port_settings s, enum port_mode *ret_mode)
{
	s.name = s.device = "near0";
	return engine_find("near0", &t->why)->probe(&s, ret_mode, &t->why);
}

static void probe_says_what_open_would_get(void **state)
{
	enum port_mode mode;
	struct bed t;

	bed_make(&t, 1500, 1, 1);
	assert_int_equal(probe(&t, (struct port_settings){0}, &mode), 0);
	assert_int_equal(mode, PORT_MODE_COPY);
	assert_non_null(strstr(t.why.what, "no zero-copy"));
	assert_int_equal(probe(&t, (struct port_settings){.mode = PORT_MODE_SKB}, &mode), 0);
	assert_int_equal(mode, PORT_MODE_SKB);
	assert_int_equal(probe(&t, (struct port_settings){.require = PORT_MODE_ZERO_COPY}, &mode),
		-EOPNOTSUPP);
	run("ip link set near0 mtu 3700 && ip link set far0 mtu 3700");
	assert_int_equal(probe(&t, (struct port_settings){0}, &mode), 0);
	assert_int_equal(mode, PORT_MODE_SKB);
	assert_non_null(strstr(t.why.remedy, "mtu 3520"));
	run("! ip link show near0 | grep -q xdp"); /* it changes nothing */
	assert_int_equal(bed_open(&t, 0, (struct port_settings){0}), 0);
	assert_int_equal(probe(&t, (struct port_settings){0}, &mode), -EBUSY);
	assert_non_null(strstr(t.why.what, "steer"));
	bed_end(&t);
}

/* 77: skipped, with the reason. */
static int skip_for(const char *why)
{
	fprintf(stderr, "skipped: %s\n", why);
	return 77;
}

static int ready(void)
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forwards_in_copy_mode),
		cmocka_unit_test(forwards_in_skb_mode),
		cmocka_unit_test(forwards_long_frames),
		cmocka_unit_test(mtu_decides_the_mode),
		cmocka_unit_test(forwards_when_busy),
		cmocka_unit_test(steps_down_with_a_reason),
		cmocka_unit_test(binds_every_queue),
		cmocka_unit_test(too_few_queues_are_bound),
		cmocka_unit_test(survives_overload),
		cmocka_unit_test(keeps_what_is_the_hosts),
		cmocka_unit_test(follows_the_mtu),
		cmocka_unit_test(names_who_holds_the_device),
		cmocka_unit_test(refuses_what_is_no_ethernet),
		cmocka_unit_test(opens_and_closes_many_times),
		cmocka_unit_test(counts_what_waits_when_it_stops),
		cmocka_unit_test(waits_for_the_kernel_to_let_go),
		cmocka_unit_test(survives_a_device_that_goes),
		cmocka_unit_test(explains_bad_devices),
		cmocka_unit_test(names_the_missing_capability),
		cmocka_unit_test(probe_says_what_open_would_get),
	};
	int err = ready();

	return err ? err : cmocka_run_group_tests(tests, NULL, NULL);
}
