/* The timer wheel: never early, never later than a tick, whatever is started and stopped. */
#include <stdlib.h>
#include <string.h>

#include "relay/timer.h"
#include "unit.h"

#define N 2000

struct item {
	struct timer timer; /* first */
	uint64_t due_ns, ran_ns;
	unsigned int runs;
};

static uint64_t now_ns;

static void note(struct timer *t, void *context)
{
	struct item *item = (struct item *)(void *)t;

	item->ran_ns = now_ns;
	item->runs++;
}

static void all_run_once_in_time(void **state)
{
	static struct item items[N];
	struct timer_wheel w;
	unsigned int stopped = 0, waits = 0;
	uint64_t end = 0;

	memset(items, 0, sizeof(items));
	srandom(1);
	now_ns = 123456789012345ULL;
	timer_wheel_init(&w, now_ns);
	for (unsigned int i = 0; i < N; i++) {
		/* from 0 to 9 hours, most of them short */
		uint64_t after = (uint64_t)random() << (random() % 15);

		items[i].timer.fn = note;
		items[i].due_ns = now_ns + after;
		timer_start(&w, &items[i].timer, items[i].due_ns);
		if (items[i].due_ns > end)
			end = items[i].due_ns;
	}
	for (unsigned int i = 0; i < N; i += 7, stopped++)
		timer_stop(&w, &items[i].timer);
	for (int wait; (wait = timer_wait_ms(&w, now_ns)) >= 0; waits++) {
		now_ns += (uint64_t)wait * 1000000 + 1;
		timer_run(&w, now_ns, NULL);
		assert_true(now_ns < end + 10 * 3600 * 1000000000ULL);
	}
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(items[i].runs, i % 7 != 0);
		if (!items[i].runs)
			continue;
		assert_true(items[i].ran_ns >= items[i].due_ns);
		assert_true(items[i].ran_ns <= items[i].due_ns + 3 * TIMER_TICK_NS);
	}
	/* Each timer wakes its loop at most once a level, and the wheel never spins. */
	assert_true(waits < N * TIMER_LEVELS);
}

static void far_ones_are_not_early(void **state)
{
	struct item item = {.timer.fn = note};
	struct timer_wheel w;
	uint64_t day = 86400ULL * 1000000000ULL;

	now_ns = 1;
	timer_wheel_init(&w, now_ns);
	timer_start(&w, &item.timer, 3 * day); /* beyond the wheel's reach of 18 hours */
	for (int hour = 1; hour < 72; hour++) {
		now_ns = (uint64_t)hour * 3600 * 1000000000ULL;
		timer_run(&w, now_ns, NULL);
		assert_int_equal(item.runs, 0);
	}
	now_ns = 3 * day + 2 * TIMER_TICK_NS;
	timer_run(&w, now_ns, NULL);
	assert_int_equal(item.runs, 1);
	assert_int_equal(timer_wait_ms(&w, now_ns), -1);
}

static struct timer_wheel wheel;

static void again(struct timer *t, void *context)
{
	note(t, context);
	timer_start(&wheel, t, now_ns);
}

static void a_timer_may_restart_itself(void **state)
{
	struct item item = {.timer.fn = again};

	now_ns = 0;
	timer_wheel_init(&wheel, now_ns);
	timer_start(&wheel, &item.timer, 0);
	for (int i = 1; i <= 100; i++) {
		now_ns = (uint64_t)i * TIMER_TICK_NS;
		timer_run(&wheel, now_ns, NULL);
	}
	assert_in_range(item.runs, 90, 100);
	timer_stop(&wheel, &item.timer);
	timer_stop(&wheel, &item.timer);
	assert_false(timer_running(&item.timer));
	assert_int_equal(timer_wait_ms(&wheel, now_ns), -1);
}

static struct item victim;

static void stop_victim(struct timer *t, void *context)
{
	note(t, context);
	timer_stop(&wheel, &victim.timer);
}

static void a_timer_may_stop_its_neighbour(void **state)
{
	struct item first = {.timer.fn = stop_victim};

	memset(&victim, 0, sizeof(victim));
	victim.timer.fn = stop_victim;
	now_ns = 0;
	timer_wheel_init(&wheel, now_ns);
	timer_start(&wheel, &victim.timer, 8 * TIMER_TICK_NS);
	timer_start(&wheel, &first.timer, 8 * TIMER_TICK_NS);
	now_ns = 20 * TIMER_TICK_NS;
	timer_run(&wheel, now_ns, NULL);
	assert_int_equal(first.runs, 1);
	assert_int_equal(victim.runs, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_run_once_in_time),
		cmocka_unit_test(far_ones_are_not_early),
		cmocka_unit_test(a_timer_may_restart_itself),
		cmocka_unit_test(a_timer_may_stop_its_neighbour),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
