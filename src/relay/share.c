/* Gives each connection its turn at its route's rate. */
#include "relay/share.h"

#include <stddef.h>
#include <stdlib.h>

#include "relay/flow.h"
#include "relay/relay_internal.h"

#define SLICE_NS 8000000ULL
/* Everyone has had a turn after this time; shorter slices make room for many. */
#define ROUND_NS 50000000ULL

static void on_timer(struct timer *t, void *context);

struct share *shares_new(struct route *route, struct loop *loops, unsigned int n)
{
	struct share *shares = calloc(n, sizeof(*shares));

	for (unsigned int i = 0; shares && i < n; i++) {
		shares[i].timer.fn = on_timer;
		shares[i].loop = &loops[i];
		shares[i].route = route;
		shares[i].end = &shares[i].first;
	}
	return shares;
}

static struct share *share_of(const struct flow *f)
{
	return &f->route->shares[f->loop->idx];
}

static uint32_t queued(const struct share *s)
{
	return atomic_load_explicit(&s->n, memory_order_relaxed);
}

/* Whether connections of another loop wait, too, and have waited longer. */
static bool behind(const struct share *s)
{
	const struct share *shares = s->route->shares;
	uint64_t served = atomic_load_explicit(&s->served_ns, memory_order_relaxed);

	for (unsigned int i = 0; i < s->loop->relay->n_loops; i++) {
		if (queued(&shares[i]) &&
			atomic_load_explicit(&shares[i].served_ns, memory_order_relaxed) < served)
			return true;
	}
	return false;
}

/* Who gives way is a tick late: the rate is not idle for it, for the other one is there. */
static void start(struct share *s)
{
	uint64_t now = s->loop->now_ns, at = now + limit_wait_ns(&s->route->rate, now);

	timer_start(&s->loop->timers, &s->timer, behind(s) ? at + TIMER_TICK_NS : at);
}

static uint32_t add(struct share *s, uint32_t n)
{
	n += queued(s);
	atomic_store_explicit(&s->n, n, memory_order_relaxed);
	return n;
}

bool share_wait(struct flow *f)
{
	struct share *s = share_of(f);

	if (f->share_link)
		return true;
	/* Who comes while others wait goes behind them, and a turn is one chunk. */
	if ((f->loop->served == f || (!s->first && !behind(s))) &&
		!limit_wait_ns(&f->route->rate, f->loop->now_ns)) {
		f->loop->served = NULL;
		atomic_store_explicit(&s->served_ns, f->loop->now_ns, memory_order_relaxed);
		return false;
	}
	f->share_next = NULL;
	f->share_link = s->end;
	*s->end = f;
	s->end = &f->share_next;
	if (add(s, 1) == 1)
		start(s);
	return true;
}

void share_leave(struct flow *f)
{
	struct share *s;

	if (!f->share_link)
		return;
	s = share_of(f);
	*f->share_link = f->share_next;
	if (f->share_next)
		f->share_next->share_link = f->share_link;
	else
		s->end = f->share_link;
	f->share_link = NULL;
	if (add(s, -1U) == 0)
		timer_stop(&s->loop->timers, &s->timer);
}

static void on_timer(struct timer *t, void *context)
{
	struct share *s = (struct share *)(void *)((char *)t - offsetof(struct share, timer));
	struct loop *loop = s->loop;

	while (queued(s) && !limit_wait_ns(&s->route->rate, loop->now_ns)) {
		struct flow *f = s->first;
		bool last = queued(s) == 1;

		share_leave(f);
		loop->served = f;
		flow_run(f);
		loop->served = NULL;
		if (last) /* it may be over, and with it the route; or it has started the timer */
			return;
	}
	if (queued(s))
		start(s);
}

uint64_t share_slice_ns(const struct flow *f)
{
	uint64_t n = queued(share_of(f));

	return n * SLICE_NS > ROUND_NS ? ROUND_NS / n : SLICE_NS;
}
