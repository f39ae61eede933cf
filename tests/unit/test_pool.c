/* The pool hands out every slot once, takes it back by any byte in it, and keeps the frame law. */
#include "unit.h"

#include <errno.h>
#include <stdlib.h>

#include "frame/pool.h"

#define SLOTS 128
#define FIRST (64 * 4096)

static uint8_t umem[FIRST + SLOTS * 4096];

static void law_holds(
	const struct pool *p, uint32_t n_free, uint32_t n_fill, uint32_t n_worker, uint32_t n_tx)
{
	assert_int_equal(p->n_free, n_free);
	assert_int_equal(p->held[HOLDER_FREE], n_free);
	assert_int_equal(p->held[HOLDER_FILL], n_fill);
	assert_int_equal(p->held[HOLDER_WORKER], n_worker);
	assert_int_equal(p->held[HOLDER_TX], n_tx);
	assert_int_equal(pool_lost(p), 0);
}

static int setup(void **state)
{
	struct pool *p = calloc(1, sizeof(*p));

	*state = p;
	return p ? pool_init(p, umem, FIRST, SLOTS, 4096, 256) : -1;
}

static int teardown(void **state)
{
	pool_fini(*state);
	free(*state);
	return 0;
}

static void every_slot_once(void **state)
{
	struct pool *p = *state;
	uint64_t offsets[SLOTS + 1];
	uint8_t seen[SLOTS] = {0};

	assert_int_equal(pool_take(p, offsets, 100, HOLDER_FILL), 100);
	law_holds(p, SLOTS - 100, 100, 0, 0);
	assert_int_equal(pool_take(p, offsets + 100, SLOTS, HOLDER_FILL), SLOTS - 100);
	law_holds(p, 0, SLOTS, 0, 0);
	assert_int_equal(pool_take(p, offsets, 1, HOLDER_WORKER), 0);
	for (uint32_t i = 0; i < SLOTS; i++) {
		uint64_t slot = (offsets[i] - FIRST) / 4096;

		assert_int_equal(offsets[i] % 4096, 0);
		assert_true(slot < SLOTS);
		assert_int_equal(seen[slot]++, 0);
	}
	pool_give(p, offsets, SLOTS, HOLDER_FILL);
	law_holds(p, SLOTS, 0, 0, 0);
}

static void a_slot_goes_round(void **state)
{
	struct pool *p = *state;
	uint64_t offsets[8];
	uint64_t again[SLOTS];

	assert_int_equal(pool_take(p, offsets, 8, HOLDER_FILL), 8);
	pool_move(p, offsets, 5, HOLDER_FILL, HOLDER_WORKER);
	law_holds(p, SLOTS - 8, 3, 5, 0);
	pool_move(p, offsets, 4, HOLDER_WORKER, HOLDER_TX);
	law_holds(p, SLOTS - 8, 3, 1, 4);
	for (int i = 0; i < 8; i++)
		offsets[i] += 256 + (uint64_t)i; /* any byte of the slot names it */
	pool_give(p, offsets, 4, HOLDER_TX);
	pool_give(p, offsets + 4, 1, HOLDER_WORKER);
	pool_give(p, offsets + 5, 3, HOLDER_FILL);
	law_holds(p, SLOTS, 0, 0, 0);
	assert_int_equal(pool_take(p, again, SLOTS, HOLDER_TX), SLOTS);
	for (uint32_t i = 0; i < SLOTS; i++)
		assert_int_equal(again[i] % 4096, 0);
	pool_give(p, again, SLOTS, HOLDER_TX);
}

static void frames_move_by_their_data(void **state)
{
	struct pool *p = *state;
	uint64_t offsets[3];
	struct frame frames[3];

	assert_int_equal(pool_take(p, offsets, 3, HOLDER_WORKER), 3);
	for (int i = 0; i < 3; i++)
		frames[i] = (struct frame){.data = p->base + offsets[i] + 256, .len = 60};
	pool_move_frames(p, frames, 1, HOLDER_WORKER, HOLDER_TX);
	pool_give_frames(p, frames + 1, 2);
	law_holds(p, SLOTS - 1, 0, 0, 1);
	pool_give(p, offsets, 1, HOLDER_TX);
	law_holds(p, SLOTS, 0, 0, 0);
}

/* Slots that are lent are gone from the pool, and all that came of them comes back. */
static void lent_and_taken_back(void **state)
{
	struct pool *p = *state, beside;
	uint64_t ours[SLOTS], theirs[SLOTS];

	assert_int_equal(pool_take(p, ours, 28, HOLDER_FILL), 28);
	assert_int_equal(pool_beside_init(&beside, p), 0);
	assert_int_equal(pool_take(&beside, theirs, 1, HOLDER_FILL), 0);
	pool_lend(p, &beside, 60);
	assert_int_equal(p->n_free, SLOTS - 28 - 60);
	assert_int_equal(pool_take(&beside, theirs, SLOTS, HOLDER_FILL), 60);
	for (uint32_t i = 0; i < 60; i++) {
		for (uint32_t k = 0; k < 28; k++)
			assert_int_not_equal(theirs[i], ours[k]);
	}
	pool_give(&beside, theirs, 20, HOLDER_FILL);
	pool_take_back(p, &beside); /* the port is open: 40 are in its ring */
	law_holds(p, SLOTS - 28 - 40, 28 + 40, 0, 0);
	/* It closes: what p counts is given back beside it. */
	pool_give(&beside, theirs + 20, 40, HOLDER_FILL);
	pool_take_back(p, &beside);
	law_holds(p, SLOTS - 28, 28, 0, 0);
	pool_lend(p, &beside, SLOTS); /* more than there are */
	assert_int_equal(p->n_free, 0);
	pool_take_back(p, &beside);
	pool_beside_fini(&beside);
	pool_give(p, ours, 28, HOLDER_FILL);
	law_holds(p, SLOTS, 0, 0, 0);
}

/* What was promised is not there a second time because some of it is lent. */
static void lent_and_promised(void **state)
{
	struct pool *p = *state, beside;
	uint64_t theirs[SLOTS];

	assert_int_equal(pool_beside_init(&beside, p), 0);
	p->promised = SLOTS - 10;
	pool_lend(p, &beside, 40);
	assert_int_equal(pool_available(&beside), 10);
	assert_int_equal(pool_take(&beside, theirs, 30, HOLDER_DRIVER), 30);
	assert_int_equal(pool_held(&beside, HOLDER_DRIVER), 30);
	assert_int_equal(pool_available(&beside), 10);
	pool_take_back(p, &beside);
	assert_int_equal(pool_available(p), 10);
	assert_int_equal(pool_held(&beside, HOLDER_DRIVER), 30);
	pool_give(&beside, theirs, 30, HOLDER_DRIVER); /* it closes */
	assert_int_equal(pool_held(&beside, HOLDER_DRIVER), 0);
	assert_int_equal(pool_available(&beside), 10);
	pool_take_back(p, &beside);
	pool_beside_fini(&beside);
	p->promised = 0;
	law_holds(p, SLOTS, 0, 0, 0);
}

static void bad_shapes(void **state)
{
	struct pool p;

	assert_int_equal(pool_init(&p, NULL, 0, 0, 4096, 256), -EINVAL);
	assert_int_equal(pool_init(&p, NULL, 0, 8, 3000, 256), -EINVAL);
	assert_int_equal(pool_init(&p, NULL, 100, 8, 4096, 256), -EINVAL);
	assert_int_equal(pool_init(&p, NULL, 0, 8, 4096, 4096), -EINVAL);
}

static void names(void **state)
{
	assert_string_equal(holder_name(HOLDER_FREE), "free");
	assert_string_equal(holder_name(HOLDER_TX), "tx");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(every_slot_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_slot_goes_round, setup, teardown),
		cmocka_unit_test_setup_teardown(frames_move_by_their_data, setup, teardown),
		cmocka_unit_test_setup_teardown(lent_and_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(lent_and_promised, setup, teardown),
		cmocka_unit_test(bad_shapes),
		cmocka_unit_test(names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
