/*
 * Timers of one loop: a hierarchical wheel (four levels of 64 slots, ticks of 4 ms), so that
 * starting and stopping cost the same with one timer and with a million. Not thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct timer;
typedef void timer_fn(struct timer *t, void *context);

struct timer {
	struct timer *next, **link; /* link: what points at this one; NULL when stopped */
	uint64_t due;		    /* in ticks */
	timer_fn *fn;
};

#define TIMER_LEVELS  4
#define TIMER_SLOTS   64
#define TIMER_TICK_NS 4000000ULL

struct timer_wheel {
	uint64_t now;		     /* the tick up to which everything has run */
	uint64_t used[TIMER_LEVELS]; /* a bit for each slot that is not empty */
	struct timer *slots[TIMER_LEVELS][TIMER_SLOTS];
};

void timer_wheel_init(struct timer_wheel *w, uint64_t now_ns);
/* (Re)starts t: t->fn runs once, not before due_ns. */
void timer_start(struct timer_wheel *w, struct timer *t, uint64_t due_ns);
void timer_stop(struct timer_wheel *w, struct timer *t);
static inline bool timer_running(const struct timer *t)
{
	return t->link != 0;
}
/* Runs what is due. A timer may start and stop any timer, itself too. */
void timer_run(struct timer_wheel *w, uint64_t now_ns, void *context);
/* Milliseconds until timer_run has something to do; -1 when nothing is started. */
int timer_wait_ms(const struct timer_wheel *w, uint64_t now_ns);
