/*
 * How far two processors are from each other: the time in nanoseconds that a cache line takes from
 * the first to the second and back, the least of many short rows.
 *
 *   cache_line CPU CPU
 *
 * A hypervisor may move a virtual machine's processors: onto one core, onto cores that share a
 * cache, onto others. What two threads hand to each other takes several times as long then.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define ROWS  20
#define TRIPS 500 /* a row */

static _Alignas(128) _Atomic uint32_t line;
static int cpus[2];

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Also before whatever else polls on that processor; without the right to it, in turn with that. */
static void enter(int cpu)
{
	struct sched_param first = {.sched_priority = 1};
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set)) {
		perror("sched_setaffinity");
		exit(1);
	}
	sched_setscheduler(0, SCHED_FIFO, &first);
}

static void until(uint32_t value)
{
	while (atomic_load_explicit(&line, memory_order_acquire) != value)
		;
}

static void *answer(void *arg)
{
	enter(cpus[1]);
	for (uint32_t i = 0; i < ROWS * TRIPS; i++) {
		until(2 * i + 1);
		atomic_store_explicit(&line, 2 * i + 2, memory_order_release);
	}
	return arg;
}

int main(int argc, char **argv)
{
	uint64_t least = UINT64_MAX;
	pthread_t thread;

	if (argc != 3 || atoi(argv[1]) == atoi(argv[2])) {
		fprintf(stderr, "usage: cache_line CPU CPU\n");
		return 2;
	}
	cpus[0] = atoi(argv[1]);
	cpus[1] = atoi(argv[2]);
	if (pthread_create(&thread, NULL, answer, NULL)) {
		perror("pthread_create");
		return 1;
	}
	enter(cpus[0]);
	for (uint32_t row = 0, i = 0; row < ROWS; row++) {
		uint64_t begin = now_ns(), took;

		for (uint32_t end = i + TRIPS; i < end; i++) {
			atomic_store_explicit(&line, 2 * i + 1, memory_order_release);
			until(2 * i + 2);
		}
		took = (now_ns() - begin) / TRIPS;
		least = took < least ? took : least;
	}
	pthread_join(thread, NULL);
	printf("%llu\n", (unsigned long long)least);
	return 0;
}
