/* Arguments of DPDK's devices: what is known, and what would be passed over or found out late. */
#include "unit.h"

#include <errno.h>
#include <string.h>

#include "engine/dpdk/arguments.h"
#include "engine/engine.h"

static void test_known_ones_are_let_through(void **state)
{
	static const char *const good[][2] = {{"net_tap0", "iface=t0"}, {"net_tap0", "persist"},
		{"net_memif3", "socket-abstract=no"}, {"net_memif3", "queues=2"},
		{"net_memif3", "zero-copy=yes"}, {"net_virtio_user0", "path=/run/v"},
		{"net_pcap0", "rx_iface_in=eth0"}, {"net_null0", "no-rx=1"},
		{"net_vhost0", "client=1"}, {"net_af_packet_lan", "framesz=4096"},
		{"net_af_xdp0", "start_queue=1"}, {"net_bonding0", "mode=1"},
		{"0000:03:00.0", "anything=1"}};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		struct reason why = {0};

		if (argument_check(good[i][0], good[i][1], &why))
			fail_msg("%s,%s: %s", good[i][0], good[i][1], why.what);
	}
}

static void test_others_are_named(void **state)
{
	static const char *const bad[][3] = {{"net_tap0", "ifac=t0", "no argument \"ifac=t0\""},
		{"net_memif0", "sokket=/x", "no argument \"sokket=/x\""},
		{"net_memif0", "abstract=no", "no argument"}, {"net_null0", "=", "no argument"},
		{"net_ring0", "foo=1", "no argument"}, {"net_vhost0", "iface=", "has no value"},
		{"net_virtio_user0", "path", "has no value"},
		{"net_af_packet0", "face=eth0", "no argument"}};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct reason why = {0};

		assert_int_equal(argument_check(bad[i][0], bad[i][1], &why), -EINVAL);
		if (!strstr(why.what, bad[i][2]) || !strstr(why.what, bad[i][0]) || !why.remedy[0])
			fail_msg("%s,%s: %s; %s", bad[i][0], bad[i][1], why.what, why.remedy);
	}
}

/* Before anything is opened, and closed for it. */
static void test_wrong_ones_are_told_from_the_name_alone(void **state)
{
	static const char *const bad[] = {"dpdk:net_tap0,ifac=t0", "dpdk:net_null0,mtu=no",
		"dpdk:net_null0=64", "dpdk:net_null 0", "dpdk:net_vhost0,iface="};
	const struct engine_ops *dpdk = engine_find("dpdk:net_null0", NULL);
	struct reason why;
	char netdev[16];
	uint32_t queues;

	(void)state;
	assert_non_null(dpdk);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		why = (struct reason){0};
		assert_int_equal(dpdk->describe(bad[i], netdev, &queues, &why), -EINVAL);
		assert_true(why.what[0] && why.remedy[0]);
	}
	assert_int_equal(
		dpdk->describe("dpdk:net_af_packet0,,iface=eth0,qpairs=2,", netdev, &queues, &why),
		0);
	assert_string_equal(netdev, "eth0");
	assert_int_equal(queues, 2);
}

static void test_unknown_drivers_are_told_in_a_check(void **state)
{
	const struct engine_ops *dpdk = engine_find("dpdk:net_null0", NULL);
	struct port_settings s = {.name = "p", .device = "dpdk:net_nul0"};
	struct reason why = {0};
	enum port_mode mode;

	(void)state;
	assert_int_equal(dpdk->probe(&s, &mode, &why), 0);
	assert_non_null(strstr(why.what, "net_nul0"));
	assert_non_null(strstr(why.remedy, "net_null"));
	why = (struct reason){0};
	s.device = "dpdk:net_null0";
	assert_int_equal(dpdk->probe(&s, &mode, &why), 0);
	assert_string_equal(why.what, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_ones_are_let_through),
		cmocka_unit_test(test_others_are_named),
		cmocka_unit_test(test_wrong_ones_are_told_from_the_name_alone),
		cmocka_unit_test(test_unknown_drivers_are_told_in_a_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
