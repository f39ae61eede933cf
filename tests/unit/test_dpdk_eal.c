/* DPDK's environment in our process: whom of its log we hear, and that it leaves ours alone. */
#include "dpdk_ports.h"

#include <pthread.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <sched.h>
#include <signal.h>

#include "engine/dpdk/eal.h"

static void *complain(void *worker)
{
	if (worker)
		rte_thread_register();
	rte_log(RTE_LOG_ERR, RTE_LOGTYPE_USER1, "one complains\n");
	if (worker)
		rte_thread_unregister();
	return NULL;
}

/* Workers go on with other ports while control opens one: what those complain of is no reason. */
static void test_a_worker_is_not_listened_to(void **state)
{
	for (int worker = 0; worker < 2; worker++) {
		pthread_t thread;

		eal_listen();
		assert_int_equal(
			pthread_create(&thread, NULL, complain, worker ? &worker : NULL), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_string_equal(eal_listen_end(), worker ? "" : "one complains");
	}
}

/* Before the first port of this process, and while it was open. Not within a test: there cmocka has
 * handlers of its own. */
static struct {
	struct sigaction actions[NSIG];
	cpu_set_t cpus;
} seen[2];

static void see(int when)
{
	assert_int_equal(sched_getaffinity(0, sizeof(seen[when].cpus), &seen[when].cpus), 0);
	for (int i = 1; i < NSIG; i++)
		sigaction(i, NULL, &seen[when].actions[i]);
}

static void test_the_process_is_left_alone(void **state)
{
	assert_true(CPU_EQUAL(&seen[0].cpus, &seen[1].cpus));
	for (int i = 1; i < NSIG; i++)
		assert_ptr_equal(seen[0].actions[i].sa_handler, seen[1].actions[i].sa_handler);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_worker_is_not_listened_to),
		cmocka_unit_test(test_the_process_is_left_alone),
	};
	struct port *p;

	see(0);
	p = first_port();
	if (!p)
		return SKIPPED;
	see(1);
	close_port(p);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
