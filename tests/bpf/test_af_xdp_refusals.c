/* What the AF_XDP engine says where it can't: what is wrong, and what helps. Needs root: it makes a
 * network namespace. */
#include "bed.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_who_holds_the_device),
		cmocka_unit_test(refuses_what_is_no_ethernet),
		cmocka_unit_test(explains_bad_devices),
		cmocka_unit_test(names_the_missing_capability),
		cmocka_unit_test(probe_says_what_open_would_get),
	};
	int err = bed_ready();

	return err ? err : cmocka_run_group_tests(tests, NULL, NULL);
}
