/* Devices are read, changed, and put back, also after a kill and a removal: on veth pairs in a
 * network namespace of this test's own. */
#include "../unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/addresses.h"
#include "host/link.h"
#include "host/monitor.h"
#include "host/settings.h"

#define SKIPPED 77

static char state_dir[64];

__attribute__((format(printf, 1, 2))) static int try_run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

#define run(...) assert_int_equal(try_run(__VA_ARGS__), 0)

/* Is feature on, as `ethtool -k` says? */
static bool feature_on(const char *device, const char *feature)
{
	return try_run("ethtool -k %s | grep -q '^%s: on'", device, feature) == 0;
}

static bool is_up(const char *device)
{
	struct host_link link;

	assert_int_equal(host_link_get(device, &link, NULL), 0);
	return link.up;
}

static int undo_files(void)
{
	return WEXITSTATUS(try_run("exit $(ls %s 2>/dev/null | wc -l)", state_dir));
}

static int make_pair(void **state)
{
	(void)state;
	run("ip link add left type veth peer name right");
	run("ip link property add dev left altname a-much-longer-name-of-left");
	run("ethtool -K left gro on >/dev/null");
	run("ip link set right up");
	return 0;
}

static int remove_pair(void **state)
{
	(void)state;
	try_run("ip link del right 2>/dev/null");
	run("rm -rf %s", state_dir);
	return 0;
}

static struct host_settings *take(const char *device)
{
	struct host_settings_wanted wanted = HOST_SETTINGS_FRAMES;
	struct host_settings *s = NULL;
	struct reason why = {0};

	wanted.state_dir = state_dir;
	if (host_settings_take(device, &wanted, &s, &why))
		fail_msg("%s (%s)", why.what, why.remedy);
	return s;
}

static void assert_taken(const char *device)
{
	assert_false(feature_on(device, "generic-receive-offload"));
	assert_false(feature_on(device, "rx-vlan-offload"));
	assert_true(is_up(device));
	assert_int_equal(try_run("ip -d link show %s | grep -q 'promiscuity [1-9]'", device), 0);
}

static void assert_as_before(const char *device)
{
	assert_true(feature_on(device, "generic-receive-offload"));
	assert_true(feature_on(device, "rx-vlan-offload"));
	assert_false(is_up(device));
	assert_int_equal(try_run("ip -d link show %s | grep -q 'promiscuity 0'", device), 0);
	assert_int_equal(undo_files(), 0);
}

static void reads_a_link(void **state)
{
	struct host_link link, again;

	(void)state;
	assert_int_equal(host_link_get("left", &link, NULL), 0);
	assert_string_equal(link.name, "left");
	assert_string_equal(link.kind, "veth");
	assert_string_equal(link.driver, "veth");
	assert_string_equal(link.pci, "");
	assert_int_equal(link.ifindex, if_nametoindex("left"));
	assert_int_equal(link.mtu, 1500);
	assert_true(link.rx_queues >= 1 && link.tx_queues >= 1);
	assert_true(link.ethernet && !link.loopback && !link.up && !link.carrier);
	assert_int_equal(link.numa_node, -1);
	assert_int_equal(link.xdp, HOST_XDP_NONE);
	assert_int_equal(host_link_get("a-much-longer-name-of-left", &again, NULL), 0);
	assert_int_equal(again.ifindex, link.ifindex);
	assert_int_equal(host_link_get_index(link.ifindex, &again, NULL), 0);
	assert_memory_equal(again.mac, link.mac, 6);
	run("ip link set left up");
	assert_int_equal(host_link_get("left", &link, NULL), 0);
	assert_true(link.up && link.carrier);
}

/* It could have 256, and says that it uses none. */
static void a_tap_without_a_reader_has_one_queue(void **state)
{
	struct host_link link;
	struct reason r;

	if (access("/dev/net/tun", R_OK | W_OK) != 0)
		skip();
	run("ip tuntap add dev tap mode tap multi_queue");
	assert_int_equal(host_link_get("tap", &link, &r), 0);
	run("ip link del tap");
	assert_int_equal(link.rx_queues, 1);
	assert_int_equal(link.tx_queues, 1);
}

static void says_what_does_not_exist(void **state)
{
	struct host_link link;
	struct reason why = {0};

	(void)state;
	assert_int_equal(host_link_get("nowhere0", &link, &why), -ENODEV);
	assert_non_null(strstr(why.what, "nowhere0"));
	assert_int_equal(host_link_get("", &link, &why), -ENODEV);
	assert_int_equal(host_link_get_index(123456, &link, &why), -ENODEV);
}

static void reads_addresses(void **state)
{
	struct host_address *addresses = NULL;
	uint32_t *routes = NULL;
	size_t n = 0;
	bool v4 = false, v6 = false;
	char text[INET6_ADDRSTRLEN];

	(void)state;
	run("ip address add 192.0.2.1/24 dev left");
	run("ip address add 2001:db8::1/64 dev left nodad");
	run("ip address add 198.51.100.1/24 dev right");
	assert_int_equal(host_addresses_get(if_nametoindex("left"), &addresses, &n, NULL), 0);
	for (size_t i = 0; i < n; i++) {
		inet_ntop(addresses[i].family, addresses[i].bytes, text, sizeof(text));
		assert_string_not_equal(text, "198.51.100.1");
		v4 |= strcmp(text, "192.0.2.1") == 0 && addresses[i].prefix_len == 24;
		v6 |= strcmp(text, "2001:db8::1") == 0 && addresses[i].prefix_len == 64;
	}
	free(addresses);
	assert_true(v4 && v6);

	assert_int_equal(host_default_routes(&routes, &n, NULL), 0);
	assert_int_equal(n, 0);
	run("ip route add default via 198.51.100.2 dev right table 77");
	assert_int_equal(host_default_routes(&routes, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_int_equal(routes[0], if_nametoindex("right"));
	free(routes);
}

static int bpf(int command, union bpf_attr *attr)
{
	return (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
}

/* Attaches `return XDP_PASS` to ifindex for as long as the returned link is open; -1: not here. */
static int attach_program(unsigned int ifindex)
{
	const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = XDP_PASS},
		{.code = BPF_JMP | BPF_EXIT},
	};
	union bpf_attr load = {.prog_type = BPF_PROG_TYPE_XDP, .insn_cnt = 2};
	union bpf_attr attach = {0};
	int program, link;

	load.insns = (uint64_t)(uintptr_t)insns;
	load.license = (uint64_t)(uintptr_t) "GPL";
	program = bpf(BPF_PROG_LOAD, &load);
	if (program < 0)
		return -1;
	attach.link_create.prog_fd = (uint32_t)program;
	attach.link_create.target_ifindex = ifindex;
	attach.link_create.attach_type = BPF_XDP;
	attach.link_create.flags = 1U << 2; /* XDP_FLAGS_DRV_MODE */
	link = bpf(BPF_LINK_CREATE, &attach);
	close(program);
	return link;
}

static void sees_an_xdp_program(void **state)
{
	struct host_link link;
	int fd;

	(void)state;
	fd = attach_program(if_nametoindex("left"));
	if (fd < 0)
		skip(); /* no XDP on this machine */
	assert_int_equal(host_link_get("left", &link, NULL), 0);
	assert_int_equal(link.xdp, HOST_XDP_DRIVER);
	assert_true(link.xdp_program_id > 0);
	close(fd);
}

/* While a native program is attached veth turns GRO on by itself; what was asked for counts. */
static void restores_across_xdp(void **state)
{
	struct host_settings *s;
	int fd;

	(void)state;
	s = take("left");
	fd = attach_program(if_nametoindex("left"));
	if (fd >= 0)
		close(fd);
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_as_before("left");
}

static void takes_and_restores(void **state)
{
	struct host_settings *s;

	(void)state;
	s = take("a-much-longer-name-of-left");
	assert_taken("left");
	assert_non_null(strstr(host_settings_changes(s), "rx-gro off"));
	assert_non_null(strstr(host_settings_changes(s), "up"));
	assert_int_equal(undo_files(), 1);
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_as_before("left");
}

/* What was so before is not ours to undo, nor is what somebody changed after us. */
static void leaves_what_is_not_its_own(void **state)
{
	struct host_settings *s;

	(void)state;
	run("ip link set left up");
	run("ethtool -K left gro off rxvlan on >/dev/null");
	s = take("left");
	assert_null(strstr(host_settings_changes(s), "gro"));
	run("ethtool -K left rxvlan on >/dev/null");
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_true(is_up("left"));
	assert_false(feature_on("left", "generic-receive-offload"));
	assert_true(feature_on("left", "rx-vlan-offload"));
	assert_int_equal(undo_files(), 0);
}

/* Has left taken by a process that then waits; it is killed with KILL by the caller. */
static pid_t taken_by_another(void)
{
	int fds[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		take("left");
		if (write(fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(fds[1]);
	assert_int_equal(read(fds[0], &byte, 1), 1);
	close(fds[0]);
	return pid;
}

static void end(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void keep_line(const char *line, void *data)
{
	snprintf(data, 320, "%s", line);
}

static void recovers_after_a_kill(void **state)
{
	char line[320] = "";
	pid_t pid;

	(void)state;
	pid = taken_by_another();
	assert_taken("left");
	/* Its owner lives: not ours to touch. */
	assert_int_equal(host_settings_recover(state_dir, NULL, NULL, NULL), 0);
	assert_taken("left");
	end(pid);
	assert_int_equal(undo_files(), 1);
	assert_int_equal(host_settings_recover(state_dir, keep_line, line, NULL), 1);
	assert_non_null(strstr(line, "left: put back rx-gro on"));
	assert_as_before("left");
	assert_int_equal(host_settings_recover(state_dir, NULL, NULL, NULL), 0);
}

static void recovers_under_a_new_name(void **state)
{
	pid_t pid;

	(void)state;
	pid = taken_by_another();
	end(pid);
	run("ip link set left down && ip link set left name renamed && ip link set renamed up");
	assert_int_equal(host_settings_recover(state_dir, NULL, NULL, NULL), 1);
	assert_as_before("renamed");
}

static void restores_under_a_new_name(void **state)
{
	struct host_settings *s;

	(void)state;
	s = take("left");
	run("ip link set left down && ip link set left name renamed && ip link set renamed up");
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_as_before("renamed");
}

static void restores_with_a_new_mac(void **state)
{
	struct host_settings *s;

	(void)state;
	s = take("left");
	run("ip link set left address 02:00:00:00:00:77");
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_as_before("left");
}

static void a_removed_device_is_no_error(void **state)
{
	struct host_settings *s;
	pid_t pid;

	(void)state;
	s = take("left");
	run("ip link del left");
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_int_equal(undo_files(), 0);

	make_pair(NULL);
	pid = taken_by_another();
	end(pid);
	run("ip link del left");
	assert_int_equal(host_settings_recover(state_dir, NULL, NULL, NULL), 0);
	assert_int_equal(undo_files(), 0);
}

/* A new device under the index and the name of the one that was changed isn't it. */
static void another_device_is_left_alone(void **state)
{
	unsigned int ifindex = if_nametoindex("left");
	pid_t pid;

	(void)state;
	pid = taken_by_another();
	end(pid);
	run("ip link del left");
	run("ip link add left index %u type veth peer name right", ifindex);
	run("ip link set left up && ethtool -K left gro off rxvlan off >/dev/null");
	assert_int_equal(host_settings_recover(state_dir, NULL, NULL, NULL), 0);
	assert_true(is_up("left"));
	assert_false(feature_on("left", "generic-receive-offload"));
	assert_false(feature_on("left", "rx-vlan-offload"));
	assert_int_equal(undo_files(), 0);
}

static void two_owners_are_refused(void **state)
{
	struct host_settings_wanted wanted = HOST_SETTINGS_FRAMES;
	struct host_settings *s = NULL;
	struct reason why = {0};
	char expected[64];
	pid_t pid;

	(void)state;
	wanted.state_dir = state_dir;
	pid = taken_by_another();
	assert_int_equal(host_settings_take("left", &wanted, &s, &why), -EBUSY);
	assert_null(s);
	snprintf(expected, sizeof(expected), "process %ld", (long)pid);
	assert_non_null(strstr(why.what, expected));
	assert_taken("left");
	end(pid);
	/* Taken again: what the dead one had changed is undone at the end. */
	s = take("left");
	assert_taken("left");
	assert_int_equal(host_settings_restore(s, NULL), 0);
	assert_as_before("left");
}

/* Cut short by a kill while it was written: then nothing had been changed. */
static void a_short_undo_file_is_removed(void **state)
{
	char path[160], line[256];
	size_t len;
	FILE *f;
	pid_t pid;

	(void)state;
	pid = taken_by_another();
	end(pid);
	f = popen("exec ls -d $STATE/undo-*", "r");
	assert_non_null(f);
	assert_non_null(fgets(path, sizeof(path), f));
	pclose(f);
	path[strcspn(path, "\n")] = '\0';
	f = fopen(path, "r");
	assert_non_null(f);
	len = fread(line, 1, sizeof(line), f);
	fclose(f);
	assert_true(len > 40);
	assert_int_equal(truncate(path, (off_t)len - 2), 0);
	assert_int_equal(host_settings_recover(state_dir, NULL, NULL, NULL), 0);
	assert_true(is_up("left"));
	assert_int_equal(undo_files(), 0);
}

static void no_undo_file_no_change(void **state)
{
	struct host_settings_wanted wanted = HOST_SETTINGS_FRAMES;
	struct host_settings *s = NULL;
	struct reason why = {0};

	(void)state;
	wanted.state_dir = "/proc/none/such";
	assert_true(host_settings_take("left", &wanted, &s, &why) < 0);
	assert_non_null(strstr(why.what, "left"));
	assert_true(feature_on("left", "generic-receive-offload"));
	assert_false(is_up("left"));
	/* Nothing to change: nothing to note. */
	run("ethtool -K left gro off rxvlan off rx-vlan-stag-hw-parse off >/dev/null");
	run("ip link set left up");
	assert_int_equal(host_settings_take("left", &wanted, &s, &why), 0);
	assert_int_equal(host_settings_restore(s, NULL), 0);
}

static void previews(void **state)
{
	struct host_settings_wanted wanted = HOST_SETTINGS_FRAMES;
	char text[256];

	(void)state;
	assert_int_equal(host_settings_preview("left", &wanted, text, sizeof(text), NULL), 0);
	assert_non_null(strstr(text, "rx-gro off"));
	assert_true(feature_on("left", "generic-receive-offload"));
}

struct seen {
	uint32_t ifindex;
	bool up, down, gone, addresses;
};

static void see(const struct host_event *e, void *data)
{
	struct seen *seen = data;

	if (e->ifindex != seen->ifindex)
		return;
	seen->up |= e->kind == HOST_EVENT_LINK && e->up;
	seen->down |= e->kind == HOST_EVENT_LINK && !e->up;
	seen->gone |= e->kind == HOST_EVENT_LINK_GONE;
	seen->addresses |= e->kind == HOST_EVENT_ADDRESSES;
}

/* Reads until *what is true; a minute is for machines that are very slow. */
static void wait_for(struct host_monitor *m, struct seen *seen, const bool *what)
{
	struct pollfd pollfd = {.fd = host_monitor_fd(m), .events = POLLIN};

	while (!*what) {
		assert_int_equal(poll(&pollfd, 1, 60000), 1);
		assert_true(host_monitor_read(m, see, seen) >= 0);
	}
}

static void watches_links(void **state)
{
	struct seen seen = {.ifindex = if_nametoindex("left")};
	struct host_monitor *m = NULL;

	(void)state;
	assert_int_equal(host_monitor_open(&m, NULL), 0);
	assert_int_equal(host_monitor_read(m, see, &seen), 0);
	run("ip link set left up");
	wait_for(m, &seen, &seen.up);
	run("ip address add 192.0.2.1/24 dev left");
	wait_for(m, &seen, &seen.addresses);
	seen.down = false;
	run("ip link set right down"); /* carrier lost, still administratively up */
	wait_for(m, &seen, &seen.down);
	/* To be a bridge's port and to leave it is not to be gone. */
	run("ip link add bridge type bridge && ip link set left master bridge");
	run("ip link set left nomaster && ip link del bridge");
	seen.down = false;
	run("ip link set left down");
	wait_for(m, &seen, &seen.down);
	assert_false(seen.gone);
	run("ip link del left");
	wait_for(m, &seen, &seen.gone);
	host_monitor_close(m);
}

#define with_pair(test) cmocka_unit_test_setup_teardown(test, make_pair, remove_pair)

int main(void)
{
	const struct CMUnitTest tests[] = {
		with_pair(reads_a_link),
		with_pair(a_tap_without_a_reader_has_one_queue),
		with_pair(says_what_does_not_exist),
		with_pair(reads_addresses),
		with_pair(sees_an_xdp_program),
		with_pair(restores_across_xdp),
		with_pair(takes_and_restores),
		with_pair(leaves_what_is_not_its_own),
		with_pair(recovers_after_a_kill),
		with_pair(recovers_under_a_new_name),
		with_pair(restores_under_a_new_name),
		with_pair(restores_with_a_new_mac),
		with_pair(a_removed_device_is_no_error),
		with_pair(another_device_is_left_alone),
		with_pair(two_owners_are_refused),
		with_pair(a_short_undo_file_is_removed),
		with_pair(no_undo_file_no_change),
		with_pair(previews),
		with_pair(watches_links),
	};

	if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
		printf("skipped: needs root for a network namespace of its own\n");
		return SKIPPED;
	}
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	if (try_run("ip -V >/dev/null 2>&1 && ethtool --version >/dev/null 2>&1") != 0) {
		printf("skipped: needs ip (iproute2) and ethtool\n");
		return SKIPPED;
	}
	snprintf(state_dir, sizeof(state_dir), "/tmp/culvert-test-host-%ld", (long)getpid());
	setenv("STATE", state_dir, 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
