/* How the losses of a UDP route's socket are counted. */
#include "relay/udp_internal.h"
#include "unit.h"

static struct counters counters;
static struct udp udp = {.counters = &counters};

static uint64_t lost(uint32_t *seen, uint32_t now)
{
	atomic_store(&counters.dropped, 0);
	udp_count_lost(&udp, seen, now);
	return atomic_load(&counters.dropped);
}

static void losses_are_counted_once(void **state)
{
	uint32_t seen = 10;

	assert_int_equal(lost(&seen, 12), 2);
	assert_int_equal(lost(&seen, 12), 0);
	assert_int_equal(lost(&seen, 13), 1);
}

static void the_kernels_number_wraps(void **state)
{
	uint32_t seen = UINT32_MAX;

	assert_int_equal(lost(&seen, 3), 4);
}

/* After a reload a queue holds datagrams from before the losses that the new route begins with. */
static void an_older_number_is_no_loss(void **state)
{
	uint32_t seen = 10;

	assert_int_equal(lost(&seen, 5), 0);
	assert_int_equal(lost(&seen, 11), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(losses_are_counted_once),
		cmocka_unit_test(the_kernels_number_wraps),
		cmocka_unit_test(an_older_number_is_no_loss),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
