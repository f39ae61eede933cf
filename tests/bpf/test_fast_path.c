/* Forwarding in the kernel, run by BPF_PROG_TEST_RUN: what it does to a frame is what user space
 * does (frame/checksum.c), and what it may not forward goes to the socket. */
#include "steer_bed.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <string.h>

#include "../unit/bytes.h"
#include "frame/checksum.h"

#define ROUNDS	  20000
#define FRAME_MAX 4096u

enum { TCP = 6, UDP = 17, ICMP = 1, HOP = 0, ROUTING = 43, FRAGMENT = 44, DESTINATION = 60 };

struct packet {
	uint8_t bytes[FRAME_MAX];
	uint32_t len;
	uint32_t segment, segment_len; /* TCP or UDP, with its header */
	uint32_t pseudo;	       /* sum of 16-bit words, not folded */
	uint8_t protocol;
};

static uint64_t seed = 88172645463325252ULL;

/* xorshift64: the same frames in every run. */
static uint32_t below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 11) % n;
}

static uint32_t put_ipv4(struct packet *p, uint32_t at)
{
	uint8_t *ip = p->bytes + at;
	uint32_t options = below(3) ? 0 : 4 * below(11);

	ip[0] = (uint8_t)(0x45 + options / 4);
	put16(ip + 2, 20 + options + p->segment_len);
	put16(ip + 6, below(8) ? 0x4000 : 1u << below(16));
	ip[9] = p->protocol;
	p->pseudo = sum16(ip + 12, 8, 0);
	return at + 20 + options;
}

static uint32_t put_ipv6(struct packet *p, uint32_t at)
{
	static const uint8_t kinds[] = {HOP, ROUTING, FRAGMENT, DESTINATION};
	uint8_t *ip = p->bytes + at, *next = ip + 6;
	uint32_t destination = at + 24, start = at + 40, n = below(2) ? 0 : below(10);

	ip[0] = 0x60;
	at = start;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t longer = below(4);

		*next = kinds[below(4)];
		if (*next == ROUTING) {
			p->bytes[at + 2] = (uint8_t)(2 + 2 * below(3)); /* 6: not known */
			p->bytes[at + 3] = (uint8_t)below(2);
			if (p->bytes[at + 3])
				destination = at + 8;
		}
		next = p->bytes + at;
		next[1] = (uint8_t)longer;
		at += 8 + 8 * longer;
	}
	*next = p->protocol;
	put16(ip + 4, at - start + p->segment_len);
	p->pseudo = sum16(ip + 8, 16, sum16(p->bytes + destination, 16, 0));
	return at;
}

static uint32_t field_of(const struct packet *p)
{
	return p->segment + (p->protocol == TCP ? 16 : 6);
}

static void put_partial(struct packet *p)
{
	put16(p->bytes + field_of(p), sum16(NULL, 0, p->pseudo + p->protocol + p->segment_len));
}

/* A correct checksum that equals the sum of the pseudo-header. */
static void put_lookalike(struct packet *p)
{
	uint8_t *word = p->bytes + p->segment + 20; /* payload, or TCP options */
	uint32_t sum;

	put16(word, 0);
	put_partial(p);
	sum = sum16(
		p->bytes + p->segment, p->segment_len, p->pseudo + p->protocol + p->segment_len);
	put16(word, 0xffff - sum);
}

static void spoil(struct packet *p)
{
	for (uint32_t n = below(3); n-- > 0;)
		p->bytes[below(p->len < 120 ? p->len : 120)] = (uint8_t)below(256);
	if (below(4) == 0)
		p->len = 14 + below(p->len - 13);
}

/* Any frame one can think of; most have a partial checksum. */
static void make(struct packet *p)
{
	static const uint8_t protocols[] = {TCP, UDP, TCP, UDP, ICMP};
	uint32_t at = 12;
	bool six = below(2);

	*p = (struct packet){.protocol = protocols[below(5)], .segment_len = 22 + below(1400)};
	for (uint32_t i = 0; i < FRAME_MAX; i++)
		p->bytes[i] = (uint8_t)below(256);
	for (uint32_t tags = below(2) ? 0 : below(4); tags > 0; tags--, at += 4)
		put16(p->bytes + at, below(2) ? 0x8100 : 0x88a8);
	put16(p->bytes + at, six ? 0x86dd : 0x0800);
	p->segment = six ? put_ipv6(p, at + 2) : put_ipv4(p, at + 2);
	p->len = p->segment + p->segment_len + below(2) * below(40);
	if (p->protocol == UDP)
		put16(p->bytes + p->segment + 4, p->segment_len);
	switch (below(8)) {
	case 0: break; /* nonsense */
	case 1: put_lookalike(p); break;
	case 2: put16(p->bytes + field_of(p), 0); break;
	default: put_partial(p);
	}
	if (below(3) == 0)
		spoil(p);
}

static void settle(bool with_peer)
{
	struct culvert_fast_path *f = &program->bss->fast_path;
	uint32_t zero = 0, lo = if_nametoindex("lo");

	assert_int_not_equal(lo, 0);
	program->bss->settings = (struct culvert_settings){0};
	*f = (struct culvert_fast_path){.on = 1, .length_max = FRAME_MAX, .queues = 1};
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(program->maps.sockets), &zero, &socket_fd, BPF_ANY),
		0);
	bpf_map_delete_elem(bpf_map__fd(program->maps.peer), &zero);
	if (with_peer)
		assert_int_equal(
			bpf_map_update_elem(bpf_map__fd(program->maps.peer), &zero, &lo, BPF_ANY),
			0);
}

/* The action; bytes of the frame as the program left them. */
static uint32_t run(const uint8_t *bytes, uint32_t len, uint8_t *ret_bytes)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = bytes, .data_size_in = len,
		.data_out = ret_bytes, .data_size_out = FRAME_MAX, .repeat = 1);

	assert_int_equal(
		bpf_prog_test_run_opts(bpf_program__fd(program->progs.steer_fast), &options), 0);
	assert_int_equal(options.data_size_out, len);
	return options.retval;
}

static void does_what_user_space_does(void **state)
{
	uint8_t got[FRAME_MAX];
	uint64_t completed = 0, bytes = 0;
	struct culvert_outcomes before, after;
	struct packet p;

	settle(true);
	before = outcomes();
	for (uint32_t i = 0; i < ROUNDS; i++) {
		make(&p);
		bytes += p.len;
		assert_int_equal(run(p.bytes, p.len, got), XDP_REDIRECT);
		completed += checksum_complete(p.bytes, p.len);
		if (memcmp(got, p.bytes, p.len) != 0)
			fail_msg("frame %u, %u bytes, differs from user space's", i, p.len);
	}
	after = outcomes();
	assert_int_equal(
		after.frames[CULVERT_OUTCOME_FORWARDED] - before.frames[CULVERT_OUTCOME_FORWARDED],
		ROUNDS);
	assert_int_equal(after.forwarded_bytes - before.forwarded_bytes, bytes);
	assert_int_equal(after.checksums_completed - before.checksums_completed, completed);
	assert_in_range(completed, ROUNDS / 8, ROUNDS);
}

static void the_longest_segment_is_summed(void **state)
{
	uint8_t got[FRAME_MAX];
	struct packet p;

	settle(true);
	for (uint32_t len = 3000; len <= 3514; len++) {
		p = (struct packet){.protocol = TCP, .segment_len = len - 34};
		memset(p.bytes, (int)len, sizeof(p.bytes));
		put16(p.bytes + 12, 0x0800);
		p.bytes[14] = 0x45;
		put16(p.bytes + 16, len - 14);
		put16(p.bytes + 20, 0);
		p.bytes[23] = TCP;
		p.segment = 34;
		p.pseudo = sum16(p.bytes + 26, 8, 0);
		put_partial(&p);
		assert_int_equal(run(p.bytes, len, got), XDP_REDIRECT);
		assert_true(checksum_complete(p.bytes, len));
		assert_memory_equal(got, p.bytes, len);
	}
}

/* Runs a short frame: is it forwarded? Else it went to the socket. */
static bool is_forwarded(uint32_t len)
{
	struct culvert_outcomes before = outcomes(), after;
	uint8_t bytes[FRAME_MAX] = {0}, got[FRAME_MAX];
	uint64_t forwarded, redirected;

	assert_int_equal(run(bytes, len, got), XDP_REDIRECT);
	after = outcomes();
	forwarded =
		after.frames[CULVERT_OUTCOME_FORWARDED] - before.frames[CULVERT_OUTCOME_FORWARDED];
	redirected = after.frames[CULVERT_OUTCOME_REDIRECTED] -
		     before.frames[CULVERT_OUTCOME_REDIRECTED];
	assert_int_equal(forwarded + redirected, 1);
	return forwarded == 1;
}

static void what_it_may_not_forward_goes_to_the_socket(void **state)
{
	struct culvert_fast_path *f = &program->bss->fast_path;

	settle(true);
	assert_true(is_forwarded(14));
	f->on = 0;
	assert_false(is_forwarded(60));
	f->on = 1;
	f->length_max = 100;
	assert_true(is_forwarded(100));
	assert_false(is_forwarded(101));
	f->queues = 0;
	assert_false(is_forwarded(60));
	settle(false);
	assert_false(is_forwarded(60));
}

static void the_hosts_frames_stay_with_the_kernel(void **state)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1}, address[4] = {192, 0, 2, 1};
	struct culvert_host_address own = {.version = 4};
	uint8_t bytes[60] = {0}, got[FRAME_MAX], yes = 1;

	settle(true);
	memcpy(own.bytes, address, 4);
	memcpy(program->bss->settings.mac, mac, 6);
	program->bss->settings.keep_host = 1;
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(program->maps.host_addresses), &own, &yes, BPF_ANY),
		0);
	memcpy(bytes, mac, 6);
	put16(bytes + 12, 0x0800);
	bytes[14] = 0x45;
	memcpy(bytes + 30, address, 4);
	assert_int_equal(run(bytes, sizeof(bytes), got), XDP_PASS);
	bytes[33]++;
	assert_int_equal(run(bytes, sizeof(bytes), got), XDP_REDIRECT);
}

static int load(void)
{
	int err;

	program = steer__open();
	if (!program)
		return -errno;
	bpf_program__set_autoload(program->progs.steer, false);
	bpf_program__set_autoload(program->progs.steer_fast, true);
	program->rodata->complete_checksums = 1;
	err = steer__load(program);
	if (err) {
		steer__destroy(program);
		program = NULL;
	}
	return err;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(does_what_user_space_does),
		cmocka_unit_test(the_longest_segment_is_summed),
		cmocka_unit_test(what_it_may_not_forward_goes_to_the_socket),
		cmocka_unit_test(the_hosts_frames_stay_with_the_kernel),
	};
	int err = steer_bed_make(load);

	if (!err)
		err = cmocka_run_group_tests(tests, NULL, NULL);
	steer_bed_end();
	return err;
}
