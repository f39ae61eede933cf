/*
 * The loop: rx -> fn -> group by verdict -> tx, over the queues one thread owns.
 *
 * Control publishes a snapshot; the worker picks it up at its quiet point (no frame in hand) and
 * from then on never looks at the old one, which control may free when worker_publish returns.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/engine.h"
#include "fn/patch.h"

/* Everything a worker may look at; immutable once published. */
struct snapshot {
	uint32_t n_rx;
	struct queue **rx;	     /* [n_rx] queues this worker polls and reaps: all it owns */
	struct queue *tx[PORTS_MAX]; /* by port index: this worker's queue there, one of rx; NULL:
					port down */
	struct patch patch;
	bool busy; /* never sleep while there is a queue */
};

struct worker_settings {
	uint32_t idx;
	int cpu;	  /* -1: not pinned */
	uint32_t idle_us; /* longest sleep when no descriptor wakes it; 0: 1000 */
};

/* Written by the worker, read by control. */
struct worker_stats {
	uint64_t turns, idle_turns, sleeps;
};

struct worker;

/* Does not start the thread. 0, -ENOMEM or another -errno. */
int worker_create(const struct worker_settings *s, struct worker **ret_worker);
int worker_start(struct worker *w);
/* Makes snap (NULL: nothing to poll) the worker's; returns when the worker has let go of the former
 * one, at its quiet point. snap stays the caller's, who frees it after the next publish. Before
 * worker_start it takes effect at once. */
void worker_publish(struct worker *w, const struct snapshot *snap);
void worker_stats_read(const struct worker *w, struct worker_stats *ret);
/* Stops and joins the thread; takes NULL. */
void worker_destroy(struct worker *w);

/* One turn of the loop, for unit tests, fuzzers and benchmarks; returns how many frames it
 * received. */
uint32_t worker_turn(const struct snapshot *snap);
