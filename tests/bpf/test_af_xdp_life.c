/* Ports of the AF_XDP engine that open, close and lose their device: no slot, frame or descriptor
 * goes with them. Needs root: it makes a network namespace. */
#include "bed.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_and_closes_many_times),
		cmocka_unit_test(counts_what_waits_when_it_stops),
		cmocka_unit_test(waits_for_the_kernel_to_let_go),
		cmocka_unit_test(survives_a_device_that_goes),
	};
	int err = bed_ready();

	return err ? err : cmocka_run_group_tests(tests, NULL, NULL);
}
