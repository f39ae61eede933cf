/*
 * What one packet costs the worker loop: 64-byte frames patched between two mem ports, in both
 * directions, on one core. The time includes playing both NICs (descriptors moved from ring to
 * ring, as net_null's receive and transmit do theirs), and no byte of a frame is touched.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "engine/mem/mem.h"
#include "frame/pool.h"
#include "worker/worker.h"

#define SLOTS	   8192
#define SLOT_SIZE  4096
#define FRAME_LEN  64
#define RUNS	   7
#define RUN_S	   0.5
#define CHECK_EACH 1024 /* turns between looks at the clock */

struct bench {
	struct memory memory;
	struct pool pool;
	struct port *ports[2];
	struct queue *rx[2];
	struct snapshot snap;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int bench_make(struct bench *b)
{
	void *base = mmap(NULL, (size_t)SLOTS * SLOT_SIZE, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (base == MAP_FAILED || pool_init(&b->pool, base, 0, SLOTS, SLOT_SIZE, 256) < 0)
		return -1;
	b->memory = (struct memory){
		.base = base,
		.size = (size_t)SLOTS * SLOT_SIZE,
		.slot_size = SLOT_SIZE,
		.fd = -1,
		.n_pools = 1,
		.pools = &b->pool,
	};
	patch_init(&b->snap.patch);
	patch_join(&b->snap.patch, 0, 1);
	for (uint32_t i = 0; i < 2; i++) {
		const struct port_settings s = {.name = i ? "b" : "a", .device = "mem:"};
		struct reason why;

		if (mem_engine.open(&s, &b->memory, &b->ports[i], &why) < 0) {
			fprintf(stderr, "worker_loop: %s; %s\n", why.what, why.remedy);
			return -1;
		}
		b->ports[i]->index = i;
		b->rx[i] = b->ports[i]->queues[0];
		b->snap.tx[i] = b->rx[i];
	}
	b->snap.rx = b->rx;
	b->snap.n_rx = 2;
	return 0;
}

static uint64_t sent(const struct bench *b)
{
	return counter_read(&b->rx[0]->stats.tx_frames) + counter_read(&b->rx[1]->stats.tx_frames);
}

/* Nanoseconds a packet. */
static double run(struct bench *b)
{
	uint64_t before = sent(b);
	double start = now_s(), end;

	do {
		for (int i = 0; i < CHECK_EACH; i++) {
			mem_play(b->rx[0], FRAME_LEN, BATCH_SIZE);
			mem_play(b->rx[1], FRAME_LEN, BATCH_SIZE);
			worker_turn(&b->snap);
		}
		end = now_s();
	} while (end - start < RUN_S);
	return (end - start) * 1e9 / (double)(sent(b) - before);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	struct bench *b = calloc(1, sizeof(*b));
	double ns[RUNS];
	int cpu = sched_getcpu();
	cpu_set_t one;

	if (!b || bench_make(b) < 0)
		return 1;
	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	sched_setaffinity(0, sizeof(one), &one); /* unpinned it is measured as well */
	run(b);
	for (int i = 0; i < RUNS; i++)
		ns[i] = run(b);
	qsort(ns, RUNS, sizeof(ns[0]), compare);
	for (uint32_t i = 0; i < 2; i++) {
		for (int r = 0; r < DROP_REASON_COUNT; r++) {
			if (counter_read(&b->rx[i]->stats.drops[r]) > 0) {
				fprintf(stderr, "worker_loop: frames dropped: %s\n",
					drop_reason_text((enum drop_reason)r));
				return 1;
			}
		}
	}
	printf("%.2f %.2f %.2f\n", ns[RUNS / 2], ns[0], ns[RUNS - 1]);
	for (int i = 0; i < 2; i++)
		mem_engine.close(b->ports[i]);
	pool_fini(&b->pool);
	free(b);
	return 0;
}
