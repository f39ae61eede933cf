/* The worker's thread: snapshots change under traffic, and an idle worker sleeps and is woken. */
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "mem_pair.h"

#define DEADLINE_S 120
#define FOREVER_US 1000000000u /* longer than the deadline: only a wake-up ends such a sleep */

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void pause_us(long us)
{
	const struct timespec t = {.tv_nsec = us * 1000};

	nanosleep(&t, NULL);
}

/* Plays both ports' NICs. */
struct nic {
	struct pair *pair;
	atomic_bool stop;
	_Atomic uint64_t injected, collected;
	atomic_bool disorder;
};

static void nic_collect(struct nic *n, uint64_t *last)
{
	uint8_t bytes[64];
	uint64_t number;

	while (mem_collect(n->pair->rx[1], bytes, sizeof(bytes)) > 0) {
		memcpy(&number, bytes, sizeof(number));
		if (number <= *last)
			atomic_store(&n->disorder, true);
		*last = number;
		atomic_fetch_add(&n->collected, 1);
	}
}

static void *nic_main(void *arg)
{
	struct nic *n = arg;
	uint8_t bytes[64] = {0};
	uint64_t number = 0, last = 0;

	while (!atomic_load(&n->stop)) {
		number++;
		memcpy(bytes, &number, sizeof(number));
		if (mem_inject(n->pair->rx[0], bytes, sizeof(bytes)) == 0)
			atomic_fetch_add(&n->injected, 1);
		nic_collect(n, &last);
	}
	return NULL;
}

static uint64_t all_dropped(const struct queue *q)
{
	uint64_t sum = 0;

	for (int i = 0; i < DROP_REASON_COUNT; i++)
		sum += counter_read(&q->stats.drops[i]);
	return sum;
}

static struct snapshot *snapshot_copy(const struct snapshot *from)
{
	struct snapshot *snap = malloc(sizeof(*snap));

	assert_non_null(snap);
	*snap = *from;
	return snap;
}

static void snapshot_free(struct snapshot *snap)
{
	if (snap)
		memset(snap, 0xa5, sizeof(*snap)); /* whoever still looks, falls */
	free(snap);
}

/* Joined, without a peer, nothing at all, in turn. */
static void publish_in_turn(struct worker *w, struct nic *n, int times)
{
	struct snapshot *former = NULL;

	for (int i = 0; i < times; i++) {
		struct snapshot *snap = i % 3 == 2 ? NULL : snapshot_copy(&n->pair->snap);
		uint64_t before = atomic_load(&n->injected);

		if (i % 3 == 1)
			patch_init(&snap->patch);
		worker_publish(w, snap);
		snapshot_free(former);
		former = snap;
		if (i % 3 != 2) /* let traffic run under it */
			for (double end = now_s() + 0.05;
				atomic_load(&n->injected) == before && now_s() < end;)
				pause_us(10);
	}
	worker_publish(w, &n->pair->snap);
	snapshot_free(former);
}

static void snapshots_change_under_traffic(void **state)
{
	const struct worker_settings settings = {.idx = 7, .cpu = -1};
	struct pair t;
	struct nic n = {.pair = &t};
	struct worker *w;
	struct worker_stats stats;
	pthread_t thread;
	double end = now_s() + DEADLINE_S;
	uint64_t last = 0;

	pair_make(&t, false, 64, 0);
	assert_int_equal(worker_create(&settings, &w), 0);
	assert_int_equal(worker_start(w), 0);
	assert_int_equal(pthread_create(&thread, NULL, nic_main, &n), 0);
	publish_in_turn(w, &n, 300);
	while (atomic_load(&n.collected) < 1000 && now_s() < end)
		pause_us(1000);
	atomic_store(&n.stop, true);
	pthread_join(thread, NULL);
	/* The join made this thread the NIC: what is still inside comes out. */
	while (now_s() < end &&
		atomic_load(&n.collected) + all_dropped(t.rx[0]) < atomic_load(&n.injected)) {
		last = 0;
		nic_collect(&n, &last);
		pause_us(100);
	}
	worker_stats_read(w, &stats);
	worker_destroy(w);
	worker_turn(&t.snap);

	assert_true(stats.turns > stats.idle_turns);
	assert_true(atomic_load(&n.collected) >= 1000);
	assert_false(atomic_load(&n.disorder));
	assert_int_equal(
		atomic_load(&n.collected) + all_dropped(t.rx[0]), atomic_load(&n.injected));
	assert_int_equal(counter_read(&t.rx[1]->stats.tx_frames), atomic_load(&n.collected));
	pair_end(&t);
}

static bool collect_in_time(struct queue *q, double end)
{
	uint8_t bytes[64];

	while (now_s() < end) {
		if (mem_collect(q, bytes, sizeof(bytes)) > 0)
			return true;
		pause_us(1000);
	}
	return false;
}

static bool sleeps_in_time(const struct worker *w, uint64_t more_than, double end)
{
	struct worker_stats stats = {0};

	while (stats.sleeps <= more_than && now_s() < end) {
		pause_us(1000);
		worker_stats_read(w, &stats);
	}
	return stats.sleeps > more_than;
}

static struct queue_ops waiting_ops;
static int waiting_fd;

static int waiting(const struct queue *q)
{
	return waiting_fd;
}

/* One queue has a descriptor, the other none and so bounds the sleep, by more than the deadline. */
static void an_idle_worker_sleeps_until_woken(void **state)
{
	const struct worker_settings settings = {.cpu = -1, .idle_us = FOREVER_US};
	const uint64_t one = 1;
	uint64_t count;
	uint8_t bytes[60] = {0};
	double end = now_s() + DEADLINE_S;
	struct worker *w;
	struct pair t;

	pair_make(&t, false, 64, 0);
	waiting_fd = eventfd(0, EFD_NONBLOCK);
	assert_true(waiting_fd >= 0);
	waiting_ops = *t.rx[0]->ops;
	waiting_ops.wait_fd = waiting;
	t.rx[0]->ops = &waiting_ops;
	assert_int_equal(worker_create(&settings, &w), 0);
	assert_int_equal(worker_start(w), 0);
	assert_true(sleeps_in_time(w, 0, end));
	worker_publish(w, &t.snap); /* returns: the sleeping worker was woken */
	assert_true(sleeps_in_time(w, 1, end));

	assert_int_equal(mem_inject(t.rx[0], bytes, sizeof(bytes)), 0);
	assert_int_equal(write(waiting_fd, &one, sizeof(one)), sizeof(one));
	assert_true(collect_in_time(t.rx[1], end));
	assert_int_equal(read(waiting_fd, &count, sizeof(count)), sizeof(count));
	/* What was sent is reaped although nothing else arrives. */
	while (atomic_load(&t.umems[0].pool.held[HOLDER_TX]) != 0 && now_s() < end)
		pause_us(1000);
	assert_int_equal(atomic_load(&t.umems[0].pool.held[HOLDER_TX]), 0);

	worker_destroy(w);
	assert_true(now_s() < end);
	close(waiting_fd);
	pair_end(&t);
}

static void a_busy_worker_never_sleeps(void **state)
{
	const struct worker_settings settings = {.cpu = 0};
	uint8_t bytes[60] = {0};
	double end = now_s() + DEADLINE_S;
	struct worker_stats stats;
	struct worker *w;
	struct pair t;
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0 || !CPU_ISSET(0, &cpus))
		skip(); /* not allowed on CPU 0 here */
	pair_make(&t, false, 64, 0);
	assert_int_equal(worker_create(&settings, &w), 0);
	t.snap.busy = true;
	worker_publish(w, &t.snap); /* before the start: at once */
	assert_int_equal(worker_start(w), 0);
	do {
		pause_us(1000);
		worker_stats_read(w, &stats);
	} while (stats.idle_turns < 1000 && now_s() < end);
	assert_int_equal(stats.sleeps, 0);
	assert_int_equal(mem_inject(t.rx[1], bytes, sizeof(bytes)), 0);
	assert_true(collect_in_time(t.rx[0], end));
	worker_publish(w, NULL);
	assert_int_equal(mem_inject(t.rx[1], bytes, sizeof(bytes)), 0);
	worker_stats_read(w, &stats);
	worker_destroy(w);
	assert_int_equal(counter_read(&t.rx[1]->stats.rx_frames), 1);
	assert_true(stats.idle_turns >= 1000);
	worker_turn(&t.snap);
	pair_end(&t);
}

static void a_cpu_that_is_not_there(void **state)
{
	const struct worker_settings settings = {.cpu = CPU_SETSIZE};
	struct worker *w;

	assert_int_equal(worker_create(&settings, &w), 0);
	assert_int_equal(worker_start(w), -EINVAL);
	worker_destroy(w);
	worker_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(snapshots_change_under_traffic),
		cmocka_unit_test(an_idle_worker_sleeps_until_woken),
		cmocka_unit_test(a_busy_worker_never_sleeps),
		cmocka_unit_test(a_cpu_that_is_not_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
