/*
 * A route's rate, shared out: connections that have bytes to move and wait for the rate stand in a
 * queue, one a loop, and each moves a chunk when it is its turn. Without it whoever looks first
 * after a pause would have all of the rate, and that is always the same one. So it is with loops:
 * one that other connections keep awake finds the rate free before the others do, and gives way.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "relay/timer.h"

struct flow;
struct loop;
struct route;

struct share {
	struct timer timer; /* when the rate lets the first one through; only while there is one */
	struct loop *loop;
	struct route *route;
	struct flow *first, **end;
	/* Its loop writes these, the others read them. */
	_Atomic uint32_t n;	    /* in the queue */
	_Atomic uint64_t served_ns; /* when the rate last let one of this loop's through */
};

/* Those of a route with a rate; NULL without memory. */
struct share *shares_new(struct route *route, struct loop *loops, unsigned int n);
/* The loop's thread: whether f has to wait for its turn; it is in the queue then, and flow_run is
 * called. */
bool share_wait(struct flow *f);
/* Takes it out of the queue, if it is there. */
void share_leave(struct flow *f);
/* How long the rate is one connection's before the next one's turn. */
uint64_t share_slice_ns(const struct flow *f);
