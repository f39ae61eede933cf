/* Gives each connection its turn at its route's rate. */
#include "relay/share.h"

#include <stddef.h>
#include <stdlib.h>

#include "relay/flow.h"

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

static void start(struct share *s)
{
	uint64_t now = s->loop->now_ns;

	timer_start(&s->loop->timers, &s->timer, now + limit_wait_ns(&s->route->rate, now));
}

bool share_wait(struct flow *f)
{
	struct share *s = share_of(f);

	if (f->share_link)
		return true;
	/* Who comes while others wait goes behind them, and a turn is one chunk. */
	if ((!s->first || f->loop->served == f) &&
		!limit_wait_ns(&f->route->rate, f->loop->now_ns)) {
		f->loop->served = NULL;
		return false;
	}
	f->share_next = NULL;
	f->share_link = s->end;
	*s->end = f;
	s->end = &f->share_next;
	if (s->n++ == 0)
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
	if (--s->n == 0)
		timer_stop(&s->loop->timers, &s->timer);
}

static void on_timer(struct timer *t, void *context)
{
	struct share *s = (struct share *)(void *)((char *)t - offsetof(struct share, timer));
	struct loop *loop = s->loop;

	while (s->n && !limit_wait_ns(&s->route->rate, loop->now_ns)) {
		struct flow *f = s->first;
		bool last = s->n == 1;

		share_leave(f);
		loop->served = f;
		flow_run(f);
		loop->served = NULL;
		if (last) /* it may be over, and with it the route; or it has started the timer */
			return;
	}
	if (s->n)
		start(s);
}

uint64_t share_slice_ns(const struct flow *f)
{
	uint64_t n = share_of(f)->n;

	return n * SLICE_NS > ROUND_NS ? ROUND_NS / n : SLICE_NS;
}
