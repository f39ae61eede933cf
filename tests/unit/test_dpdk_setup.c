/* DPDK ports are opened, stopped and closed, again and again, or refused with a reason. */
#include "dpdk_ports.h"

#include <dirent.h>
#include <errno.h>

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
	expect_free(&pools[0], SLOTS);
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
	refused("dpdk:net_null1,nosuch=1", -EINVAL, "net_null1: there is no argument");
	refused("dpdk:net_af_packet0", -EINVAL, "iface=");
	refused("dpdk:net_af_packet0,iface=nosuch0", -ENODEV, "no network device nosuch0");
	refused("dpdk:net_null1,mtu=no", -EINVAL, "no MTU");
	refused("dpdk:net_pcap0,rx_pcap=/nosuch/file", -ENODEV, "net_pcap0");
	refused("dpdk:net_virtio_user0", -EINVAL, "needs path=");
	refused("dpdk:net_virtio_user0,path=/nosuch/s,server=1", -EINVAL, "answer nobody");
	refused("dpdk:net_virtio_user0,path=/nosuch/s", -ENOTCONN, "nobody listens at /nosuch/s");
	refused("dpdk:net_memif0,socket=culvert-nosuch", -ENOTCONN, "culvert-nosuch (abstract)");
	refused("dpdk:net_virtio_user0,path=/dev/culvert-nosuch", -ENODEV, "there is no /dev/");
	refused("dpdk:net_virtio_user0,path=/proc", -EEXIST, "/proc is there, and is no socket");
	refused("dpdk:net_memif0,socket=/proc,socket-abstract=no", -EEXIST, "no socket");
	refused("dpdk:net_vhost0,iface=/proc", -EEXIST, "no socket");
	refused("dpdk:net_memif0,role=server,id=x", -EINVAL, "id=x is no number");
	refused("dpdk:net_memif0,role=middle", -EINVAL, "no role middle");
	refused("dpdk:net_memif0,role=server,socket=/nosuch/s,socket-abstract=no", -ENODEV,
		"directory");
	refused("dpdk:net_vhost0,iface=/nosuch/s", -EIO, "/nosuch/s");
	/* After all that one can be had. */
	close_port(open_port("dpdk:net_null1"));
	close_port(p);
}

/* It might be a disk: nobody is told how to bind that. */
static void test_pci_devices_of_other_classes(void **state)
{
	DIR *devices = opendir("/sys/bus/pci/devices");
	const struct dirent *e;

	while (devices && (e = readdir(devices))) {
		unsigned int class = 0x020000;
		char text[300];
		FILE *f;

		snprintf(text, sizeof(text), "/sys/bus/pci/devices/%s/class", e->d_name);
		f = fopen(text, "re");
		if (!f)
			continue;
		assert_int_equal(fscanf(f, "%x", &class), 1);
		fclose(f);
		snprintf(text, sizeof(text), "dpdk:%s", e->d_name);
		if (class >> 16 != 2)
			refused(text, -EINVAL, "is no network device");
	}
	if (devices)
		closedir(devices);
}

/* One name on a socket may be taken once; a refusal leaves nothing, so that the other name does. */
static void test_memifs_share_a_socket(void **state)
{
	struct port *a = open_port("dpdk:net_memif0,role=server,socket=culvert-shared"), *b;

	for (int i = 0; i < 2; i++) {
		refused("dpdk:net_memif1,role=server,socket=culvert-shared", -EBUSY, "id=0");
		b = open_port("dpdk:net_memif1,role=server,socket=culvert-shared,id=1");
		close_port(a);
		refused("dpdk:net_memif0,role=server,socket=culvert-shared,id=1", -EBUSY, "id=1");
		a = open_port("dpdk:net_memif0,role=server,socket=culvert-shared");
		close_port(b);
	}
	close_port(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_queues_are_dealt_to_workers),
		cmocka_unit_test(test_what_waits_at_a_stop_is_counted),
		cmocka_unit_test(test_ports_come_and_go),
		cmocka_unit_test(test_refusals_say_why),
		cmocka_unit_test(test_pci_devices_of_other_classes),
		cmocka_unit_test(test_memifs_share_a_socket),
	};

	if (!dpdk_works())
		return SKIPPED;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
