/* The steering program over packet fixtures, run by BPF_PROG_TEST_RUN: which frames it leaves to
 * the kernel, which it redirects, and that each is counted once. */
#include "steer_bed.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <string.h>

/* Byte strings by which fixtures are written. */
#define OWN_MAC	  "\x02\x00\x00\x00\x00\x01"
#define OTHER_MAC "\x02\x00\x00\x00\x00\x02"
#define BROADCAST "\xff\xff\xff\xff\xff\xff"
#define GROUP_V6  "\x33\x33\xff\x00\x00\x01"
#define OWN_V4	  "\xc0\x00\x02\x01" /* 192.0.2.1 */
#define OTHER_V4  "\xc0\x00\x02\x02"
#define V6_HEAD	  "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0"
#define OWN_V6	  V6_HEAD "\x01" /* 2001:db8::1 */
#define OTHER_V6  V6_HEAD "\x02"
#define SOLICITED "\xff\x02\0\0\0\0\0\0\0\0\0\x01\xff\0\0\x01"
#define ALL_NODES "\xff\x02\0\0\0\0\0\0\0\0\0\0\0\0\0\x01"

#define TO(mac)		 mac OTHER_MAC
#define IPV4(to)	 "\x08\x00\x45\0\0\x1c\0\0\0\0\x40\x11\0\0" OTHER_V4 to "\0\x35\0\x35\0\x08\0\0"
#define IPV6(next, to)	 "\x86\xdd\x60\0\0\0\0\x18" next "\xff" OTHER_V6 to
#define NEIGHBOUR(t, of) t "\0\0\0\0\0\0\0" of
#define ARP(op, target)	 "\x08\x06\0\x01\x08\0\x06\x04\0" op OTHER_MAC OTHER_V4 "\0\0\0\0\0\0" target

enum verdict_wanted { HOST, FORWARD, UNREAD /* forwarded, and counted as malformed */ };

struct fixture {
	const char *what;
	const char *bytes;
	size_t size;
	enum verdict_wanted want;
};
#define FIXTURE(what, want, bytes)                   \
	{                                            \
		what, bytes, sizeof(bytes) - 1, want \
	}

static const struct fixture fixtures[] = {
	FIXTURE("IPv4 to an own address", HOST, TO(OWN_MAC) IPV4(OWN_V4)),
	FIXTURE("IPv4 to another's address", FORWARD, TO(OWN_MAC) IPV4(OTHER_V4)),
	FIXTURE("own IPv4 at another's MAC", FORWARD, TO(OTHER_MAC) IPV4(OWN_V4)),
	FIXTURE("own IPv4 in a broadcast", FORWARD, TO(BROADCAST) IPV4(OWN_V4)),
	FIXTURE("IPv4 broadcast", FORWARD, TO(BROADCAST) IPV4("\xff\xff\xff\xff")),
	FIXTURE("IPv4 multicast", FORWARD, TO("\x01\0\x5e\0\0\x01") IPV4("\xe0\0\0\x01")),
	FIXTURE("ARP request for an own address", HOST, TO(BROADCAST) ARP("\x01", OWN_V4)),
	FIXTURE("ARP request for another's", FORWARD, TO(BROADCAST) ARP("\x01", OTHER_V4)),
	FIXTURE("ARP request by unicast", HOST, TO(OWN_MAC) ARP("\x01", OWN_V4)),
	FIXTURE("ARP reply to an own address", HOST, TO(OWN_MAC) ARP("\x02", OWN_V4)),
	FIXTURE("ARP reply to another", FORWARD, TO(OTHER_MAC) ARP("\x02", OWN_V4)),
	FIXTURE("ARP of another kind of address", FORWARD,
		TO(BROADCAST) "\x08\x06\0\x06\x08\0\x08\x04\0\x01" OTHER_MAC OTHER_V4 OWN_MAC
			OWN_V4),
	FIXTURE("ARP cut short", UNREAD, TO(BROADCAST) "\x08\x06\0\x01\x08\0\x06\x04\0\x01"),
	FIXTURE("IPv6 to an own address", HOST, TO(OWN_MAC) IPV6("\x11", OWN_V6)),
	FIXTURE("IPv6 to another's address", FORWARD, TO(OWN_MAC) IPV6("\x11", OTHER_V6)),
	FIXTURE("own IPv6 at another's MAC", FORWARD, TO(OTHER_MAC) IPV6("\x11", OWN_V6)),
	FIXTURE("solicitation for an own address", HOST,
		TO(GROUP_V6) IPV6("\x3a", SOLICITED) NEIGHBOUR("\x87", OWN_V6)),
	FIXTURE("solicitation for another's address", FORWARD,
		TO(GROUP_V6) IPV6("\x3a", SOLICITED) NEIGHBOUR("\x87", OTHER_V6)),
	FIXTURE("solicitation by unicast", HOST,
		TO(OWN_MAC) IPV6("\x3a", OWN_V6) NEIGHBOUR("\x87", OWN_V6)),
	FIXTURE("solicitation cut short", UNREAD,
		TO(GROUP_V6) IPV6("\x3a", SOLICITED) "\x87\0\0\0\0\0\0\0\x20\x01"),
	FIXTURE("advertisement to an own address", HOST,
		TO(OWN_MAC) IPV6("\x3a", OWN_V6) NEIGHBOUR("\x88", OTHER_V6)),
	FIXTURE("advertisement to all", FORWARD,
		TO("\x33\x33\0\0\0\x01") IPV6("\x3a", ALL_NODES) NEIGHBOUR("\x88", OTHER_V6)),
	FIXTURE("router advertisement", FORWARD,
		TO("\x33\x33\0\0\0\x01") IPV6("\x3a", ALL_NODES) NEIGHBOUR("\x86", OTHER_V6)),
	FIXTURE("priority tag", HOST, TO(OWN_MAC) "\x81\0\xe0\0" IPV4(OWN_V4)),
	FIXTURE("VLAN 5", FORWARD, TO(OWN_MAC) "\x81\0\0\x05" IPV4(OWN_V4)),
	FIXTURE("VLAN in VLAN", FORWARD, TO(OWN_MAC) "\x88\xa8\0\x05\x81\0\0\x06" IPV4(OWN_V4)),
	FIXTURE("tag cut short", UNREAD, TO(OWN_MAC) "\x81\0\0\x05"),
	FIXTURE("IPv4 that says version 6", UNREAD,
		TO(OWN_MAC) "\x08\x00\x65\0\0\x1c\0\0\0\0\x40\x11\0\0" OTHER_V4 OWN_V4),
	FIXTURE("IPv4 header of 16 bytes", UNREAD,
		TO(OWN_MAC) "\x08\x00\x44\0\0\x1c\0\0\0\0\x40\x11\0\0" OTHER_V4 OWN_V4),
	FIXTURE("IPv6 that says version 4", UNREAD,
		TO(OWN_MAC) "\x86\xdd\x40\0\0\0\0\0\x11\xff" OTHER_V6 OWN_V6),
	FIXTURE("unknown type", FORWARD, TO(OWN_MAC) "\x88\xb5 and some bytes"),
	FIXTURE("spanning tree", FORWARD, TO("\x01\x80\xc2\0\0\0") "\0\x26\x42\x42\x03\0\0\0"),
};
#define N_FIXTURES (sizeof(fixtures) / sizeof(fixtures[0]))

static void settle(bool keep_host, bool with_socket)
{
	struct culvert_host_address own4 = {.version = 4}, own6 = {.version = 6};
	uint32_t queue = 0;
	uint8_t yes = 1;

	memcpy(own4.bytes, OWN_V4, 4);
	memcpy(own6.bytes, OWN_V6, 16);
	memcpy(program->bss->settings.mac, OWN_MAC, 6);
	program->bss->settings.keep_host = keep_host;
	assert_int_equal(bpf_map_update_elem(
				 bpf_map__fd(program->maps.host_addresses), &own4, &yes, BPF_ANY),
		0);
	assert_int_equal(bpf_map_update_elem(
				 bpf_map__fd(program->maps.host_addresses), &own6, &yes, BPF_ANY),
		0);
	bpf_map_delete_elem(bpf_map__fd(program->maps.sockets), &queue);
	if (with_socket)
		assert_int_equal(bpf_map_update_elem(bpf_map__fd(program->maps.sockets), &queue,
					 &socket_fd, BPF_ANY),
			0);
}

static uint32_t run(const void *bytes, size_t size)
{
	uint8_t in[256] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = in, .data_size_in = (uint32_t)size,
		.repeat = 1);

	memcpy(in, bytes, size);
	assert_int_equal(
		bpf_prog_test_run_opts(bpf_program__fd(program->progs.steer), &options), 0);
	return options.retval;
}

/* How much each outcome grew by one frame. */
static struct culvert_outcomes run_and_count(const void *bytes, size_t size, uint32_t *ret_action)
{
	struct culvert_outcomes before = outcomes(), after;

	*ret_action = run(bytes, size);
	after = outcomes();
	for (int i = 0; i < CULVERT_OUTCOME_COUNT; i++)
		after.frames[i] -= before.frames[i];
	return after;
}

static void each_frame_goes_where_it_should(void **state)
{
	settle(true, true);
	for (size_t i = 0; i < N_FIXTURES; i++) {
		const struct fixture *f = &fixtures[i];
		bool host = f->want == HOST;
		uint32_t action;
		struct culvert_outcomes grew = run_and_count(f->bytes, f->size, &action);

		if (action != (host ? XDP_PASS : XDP_REDIRECT) ||
			grew.frames[CULVERT_OUTCOME_TO_HOST] != host ||
			grew.frames[CULVERT_OUTCOME_REDIRECTED] != !host ||
			grew.frames[CULVERT_OUTCOME_MALFORMED] != (f->want == UNREAD) ||
			grew.frames[CULVERT_OUTCOME_NO_SOCKET] != 0)
			fail_msg("%s: action %u", f->what, action);
	}
}

static void without_a_socket_all_is_the_kernels(void **state)
{
	settle(true, false);
	for (size_t i = 0; i < N_FIXTURES; i++) {
		uint32_t action;
		struct culvert_outcomes grew =
			run_and_count(fixtures[i].bytes, fixtures[i].size, &action);

		assert_int_equal(action, XDP_PASS);
		assert_int_equal(grew.frames[CULVERT_OUTCOME_NO_SOCKET], fixtures[i].want != HOST);
		assert_int_equal(grew.frames[CULVERT_OUTCOME_REDIRECTED], 0);
	}
}

static void without_keep_host_all_is_forwarded(void **state)
{
	settle(false, true);
	for (size_t i = 0; i < N_FIXTURES; i++) {
		uint32_t action;
		struct culvert_outcomes grew =
			run_and_count(fixtures[i].bytes, fixtures[i].size, &action);

		assert_int_equal(action, XDP_REDIRECT);
		assert_int_equal(grew.frames[CULVERT_OUTCOME_REDIRECTED], 1);
		assert_int_equal(grew.frames[CULVERT_OUTCOME_MALFORMED], 0);
	}
}

/* Cut anywhere, a frame is never the host's unless the part that says so is there, and it is
 * counted once. */
static void every_cut_is_counted_once(void **state)
{
	settle(true, true);
	for (size_t i = 0; i < N_FIXTURES; i++) {
		for (size_t size = 14; size < fixtures[i].size; size++) {
			uint32_t action;
			struct culvert_outcomes grew =
				run_and_count(fixtures[i].bytes, size, &action);

			assert_int_equal(grew.frames[CULVERT_OUTCOME_TO_HOST], action == XDP_PASS);
			assert_int_equal(
				grew.frames[CULVERT_OUTCOME_REDIRECTED], action == XDP_REDIRECT);
			if (action == XDP_PASS)
				assert_int_equal(fixtures[i].want, HOST);
		}
	}
}

static int load(void)
{
	program = steer__open_and_load();
	return program ? 0 : -errno;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_frame_goes_where_it_should),
		cmocka_unit_test(without_a_socket_all_is_the_kernels),
		cmocka_unit_test(without_keep_host_all_is_forwarded),
		cmocka_unit_test(every_cut_is_counted_once),
	};
	int err = steer_bed_make(load);

	if (!err)
		err = cmocka_run_group_tests(tests, NULL, NULL);
	steer_bed_end();
	return err;
}
