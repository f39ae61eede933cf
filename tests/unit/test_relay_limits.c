/* Rates on average and in bursts; the budget of pipes. */
#include <errno.h>
#include <sys/resource.h>

#include "relay/limits.h"
#include "relay/pipe_pool.h"
#include "unit.h"

#define SECOND 1000000000ULL

static void the_average_is_kept(void **state)
{
	struct limit l;
	uint64_t now = 5 * SECOND, moved = 0;

	limit_init(&l, 1000000, 10000000);
	while (now < 15 * SECOND) {
		uint64_t wait = limit_wait_ns(&l, now);

		if (wait) {
			now += wait;
			continue;
		}
		limit_charge(&l, 7777, now);
		moved += 7777;
	}
	assert_in_range(moved, 9990000, 10030000);
}

static void rest_saves_up_a_burst_and_no_more(void **state)
{
	struct limit l;
	uint64_t now = 100 * SECOND;
	unsigned int n = 0;

	limit_init(&l, 100, SECOND / 10); /* 10 at once */
	for (; limit_wait_ns(&l, now) == 0; n++)
		limit_charge(&l, 1, now);
	assert_in_range(n, 10, 11);
	assert_in_range(limit_wait_ns(&l, now), 1, SECOND / 50);
}

static void no_rate_never_waits(void **state)
{
	struct limit l;

	limit_init(&l, 0, 0);
	limit_charge(&l, UINT64_MAX, 1);
	assert_int_equal(limit_wait_ns(&l, 1), 0);
	assert_int_equal(limit_chunk(&l, 1, 1), UINT64_MAX);
	limit_init(&l, 1000, 0);
	assert_int_equal(limit_chunk(&l, SECOND / 10, 10), 100);
	assert_int_equal(limit_chunk(&l, SECOND / 1000, 10), 10);
}

static uint64_t pages(const struct pipe_budget *b, unsigned int loops)
{
	return loops * (b->large * (uint64_t)(b->large_size / 4096) +
			       b->small * (uint64_t)(PIPE_SMALL_SIZE / 4096));
}

static void pipes_fit_into_what_the_system_allows(void **state)
{
	struct pipe_limits limits = {16384, 1 << 20, 1 << 20, false};
	struct pipe_budget b = pipe_plan(&limits, 1);

	/* pipe(7): 16384 pages are 64 pipes of 1 MiB; some stay free for others. */
	assert_int_equal(b.large_size, 1 << 20);
	assert_in_range(b.large, 16, 60);
	assert_true(b.small > b.large);
	assert_in_range(pages(&b, 1), 12000, 16384);
	b = pipe_plan(&limits, 4);
	assert_in_range(pages(&b, 4), 10000, 16384);
	limits.privileged = true;
	b = pipe_plan(&limits, 1);
	assert_true(b.large > 1000);
	limits.descriptors = 80;
	b = pipe_plan(&limits, 1);
	assert_true((b.large + b.small) * 2 <= 80 / 4);
	limits.descriptors = 4;
	b = pipe_plan(&limits, 1);
	assert_int_equal(b.large + b.small, 0);
	limits = (struct pipe_limits){0, 4096, 1 << 20, false};
	b = pipe_plan(&limits, 1);
	assert_int_equal(b.large_size, PIPE_SMALL_SIZE);
}

static void empty_pipes_are_used_again(void **state)
{
	struct pipe_budget budget = {2, 1, 1 << 18};
	struct pipe_pool pool;
	struct pipe *a, *b, *c;

	pipe_pool_init(&pool, &budget);
	a = pipe_take(&pool, 1);
	b = pipe_take(&pool, 1);
	c = pipe_take(&pool, 1);
	assert_true(a && b && c);
	assert_null(pipe_take(&pool, 1));
	pipe_give(&pool, b);
	assert_ptr_equal(pipe_take(&pool, 1), b);
	pipe_discard(&pool, b); /* full: never used again */
	b = pipe_take(&pool, 1);
	assert_non_null(b);
	pipe_give(&pool, a);
	pipe_give(&pool, b);
	pipe_give(&pool, c);
	assert_int_equal(pool.held, 0);
	pipe_pool_close(&pool);
	assert_int_equal(pool.n_large + pool.n_small, 0);
}

/* A size that no kernel grants, and then one that it does. */
static void pipes_that_are_too_small_are_used_and_grow(void **state)
{
	struct pipe_budget budget = {8, 0, UINT32_MAX};
	struct pipe_pool pool;
	struct pipe *a, *b;

	pipe_pool_init(&pool, &budget);
	a = pipe_take(&pool, 1);
	assert_non_null(a);
	assert_true(a->size <= PIPE_SMALL_SIZE);
	pipe_give(&pool, a);
	assert_ptr_equal(pipe_take(&pool, 3 * SECOND), a);
	assert_int_equal(pool.n_large + pool.n_small, 1);
	pipe_give(&pool, a);
	pool.budget.large_size = 1 << 18;
	assert_ptr_equal(pipe_take(&pool, 3 * SECOND), a); /* not asked again so soon */
	assert_true(a->size <= PIPE_SMALL_SIZE);
	pipe_give(&pool, a);
	assert_ptr_equal(pipe_take(&pool, 5 * SECOND), a);
	assert_int_equal(a->size, 1 << 18);
	assert_int_equal(pool.n_large, 1);
	assert_int_equal(pool.n_small, 0);
	b = pipe_take(&pool, 5 * SECOND);
	assert_int_equal(b->size, 1 << 18);
	pipe_give(&pool, a);
	pipe_give(&pool, b);
	pipe_pool_close(&pool);
	assert_int_equal(pool.n_large + pool.n_small, 0);
}

static void a_refused_pipe_is_told_and_tried_again(void **state)
{
	struct pipe_budget budget = {8, 0, 1 << 18};
	struct rlimit before, none;
	struct pipe_pool pool;
	struct pipe *a;

	pipe_pool_init(&pool, &budget);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	a = pipe_take(&pool, SECOND);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_null(a);
	assert_int_equal(pool.error, EMFILE);
	assert_null(pipe_take(&pool, SECOND + 1));
	a = pipe_take(&pool, 3 * SECOND);
	assert_non_null(a);
	pipe_give(&pool, a);
	pipe_pool_close(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_average_is_kept),
		cmocka_unit_test(rest_saves_up_a_burst_and_no_more),
		cmocka_unit_test(no_rate_never_waits),
		cmocka_unit_test(pipes_fit_into_what_the_system_allows),
		cmocka_unit_test(empty_pipes_are_used_again),
		cmocka_unit_test(pipes_that_are_too_small_are_used_and_grow),
		cmocka_unit_test(a_refused_pipe_is_told_and_tried_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
