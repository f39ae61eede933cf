/* Patch sends each port's frames to its peer and drops those of a port without one. */
#include "unit.h"

#include "fn/patch.h"
#include "frame/drop.h"

static void joins_both_ways(void **state)
{
	struct patch p;

	patch_init(&p);
	patch_join(&p, 3, 7);
	assert_int_equal(patch_run(&p, 3), 7);
	assert_int_equal(patch_run(&p, 7), 3);
}

static void no_peer_is_a_drop(void **state)
{
	struct patch p;

	patch_init(&p);
	assert_true(verdict_is_drop(patch_run(&p, 0)));
	assert_int_equal(patch_run(&p, 0) & ~VERDICT_DROP, DROP_NO_PEER);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(joins_both_ways),
		cmocka_unit_test(no_peer_is_a_drop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
