/* The AF_XDP engine under the worker's loop: real frames over veth, byte for byte, in every mode
 * that veth has. Needs root: it makes a network namespace. */
#include "bed.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "culvert/abi.h"

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
	};
	int err = bed_ready();

	return err ? err : cmocka_run_group_tests(tests, NULL, NULL);
}
