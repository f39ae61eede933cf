/* Which target a connection gets. */
#include <arpa/inet.h>
#include <string.h>

#include "relay/live.h"
#include "unit.h"

static struct route route;

static void make(enum route_balance balance, const uint32_t *weights, uint32_t n)
{
	memset(&route, 0, sizeof(route));
	route.s.balance = balance;
	route.s.n_targets = n;
	for (uint32_t i = 0; i < n; i++) {
		route.s.targets[i].weight = weights[i];
		route.targets[i].settings = &route.s.targets[i];
	}
}

static struct sockaddr *client(uint32_t number)
{
	static struct sockaddr_in in = {.sin_family = AF_INET};

	in.sin_addr.s_addr = htonl(0x0a000000 + number);
	return (struct sockaddr *)(void *)&in;
}

static uint32_t pick(uint32_t number, uint32_t tried)
{
	struct target *t = balance_pick(&route, client(number), tried);

	assert_non_null(t);
	return (uint32_t)(t - route.targets);
}

static void round_robin_keeps_weights_in_every_round(void **state)
{
	uint32_t counts[3] = {0};

	make(ROUTE_ROUND_ROBIN, (const uint32_t[]){3, 1, 2}, 3);
	for (int round = 1; round <= 10; round++) {
		for (int i = 0; i < 6; i++)
			counts[pick(0, 0)]++;
		assert_int_equal(counts[0], 3 * round);
		assert_int_equal(counts[1], round);
		assert_int_equal(counts[2], 2 * round);
	}
}

static void round_robin_interleaves(void **state)
{
	uint32_t before, same = 0;

	make(ROUTE_ROUND_ROBIN, (const uint32_t[]){2, 2}, 2);
	before = pick(0, 0);
	for (int i = 0; i < 40; i++) {
		uint32_t now = pick(0, 0);

		same += now == before;
		before = now;
	}
	assert_int_equal(same, 0);
}

static void least_connections_fills_the_emptiest(void **state)
{
	make(ROUTE_LEAST_CONNECTIONS, (const uint32_t[]){1, 3}, 2);
	for (int i = 0; i < 400; i++)
		route.targets[pick(0, 0)].active++;
	assert_in_range(route.targets[0].active, 99, 101);
	assert_in_range(route.targets[1].active, 299, 301);
}

static void a_source_keeps_its_target(void **state)
{
	uint32_t counts[3] = {0}, moved = 0, was[3000];

	make(ROUTE_SOURCE_HASH, (const uint32_t[]){1, 1, 2}, 3);
	for (uint32_t i = 0; i < 3000; i++) {
		was[i] = pick(i, 0);
		counts[was[i]]++;
		assert_int_equal(pick(i, 0), was[i]);
	}
	assert_in_range(counts[0], 600, 900);
	assert_in_range(counts[1], 600, 900);
	assert_in_range(counts[2], 1300, 1700);
	/* Only the clients of a target that went are moved. */
	route.targets[0].down = true;
	for (uint32_t i = 0; i < 3000; i++) {
		uint32_t now = pick(i, 0);

		assert_int_not_equal(now, 0);
		moved += now != was[i];
	}
	assert_int_equal(moved, counts[0]);
}

static void backups_wait_for_the_others_to_fail(void **state)
{
	make(ROUTE_ROUND_ROBIN, (const uint32_t[]){1, 1, 1}, 3);
	route.s.targets[2].backup = true;
	for (int i = 0; i < 20; i++)
		assert_int_not_equal(pick(0, 0), 2);
	route.targets[0].down = route.targets[1].down = true;
	assert_int_equal(pick(0, 0), 2);
	route.targets[2].down = true; /* all down: a wrong probe must not close the route */
	assert_int_not_equal(pick(0, 0), 2);
	assert_int_equal(pick(0, 3), 2);
	assert_null(balance_pick(&route, client(0), 7));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_robin_keeps_weights_in_every_round),
		cmocka_unit_test(round_robin_interleaves),
		cmocka_unit_test(least_connections_fills_the_emptiest),
		cmocka_unit_test(a_source_keeps_its_target),
		cmocka_unit_test(backups_wait_for_the_others_to_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
