/* The timer wheel: level L holds what is due within 64^(L+1) ticks; a slot comes down a level
 * when the level below has gone round. */
#include "relay/timer.h"

#include <stddef.h>
#include <string.h>

#define LEVEL_BITS 6
#define TICKS_MAX  ((1ULL << (LEVEL_BITS * TIMER_LEVELS)) - 1)

void timer_wheel_init(struct timer_wheel *w, uint64_t now_ns)
{
	memset(w, 0, sizeof(*w));
	w->now = now_ns / TIMER_TICK_NS;
}

static unsigned int shift_of(unsigned int level)
{
	return level * LEVEL_BITS;
}

static void place(struct timer_wheel *w, struct timer *t)
{
	uint64_t due = t->due, delta = due - w->now;
	unsigned int level = 0, slot;
	struct timer **head;

	if (delta > TICKS_MAX) { /* farther than the wheel reaches: placed again on its way */
		delta = TICKS_MAX;
		due = w->now + TICKS_MAX;
	}
	while (delta >> shift_of(level + 1))
		level++;
	slot = (unsigned int)(due >> shift_of(level)) % TIMER_SLOTS;
	head = &w->slots[level][slot];
	t->next = *head;
	t->link = head;
	if (t->next)
		t->next->link = &t->next;
	*head = t;
	w->used[level] |= 1ULL << slot;
}

void timer_start(struct timer_wheel *w, struct timer *t, uint64_t due_ns)
{
	timer_stop(w, t);
	t->due = due_ns / TIMER_TICK_NS + 1;
	if (t->due <= w->now)
		t->due = w->now + 1;
	place(w, t);
}

void timer_stop(struct timer_wheel *w, struct timer *t)
{
	struct timer **first = &w->slots[0][0];

	if (!t->link)
		return;
	*t->link = t->next;
	if (t->next)
		t->next->link = t->link;
	/* The last one of a slot clears its bit; a link into the table is a slot's head. */
	if (!t->next && t->link >= first && t->link < first + TIMER_LEVELS * TIMER_SLOTS) {
		size_t idx = (size_t)(t->link - first);

		w->used[idx / TIMER_SLOTS] &= ~(1ULL << idx % TIMER_SLOTS);
	}
	t->link = NULL;
	t->next = NULL;
}

/* Takes a slot's list off the wheel onto *list. */
static void take(struct timer_wheel *w, unsigned int level, unsigned int slot, struct timer **list)
{
	*list = w->slots[level][slot];
	w->slots[level][slot] = NULL;
	w->used[level] &= ~(1ULL << slot);
	if (*list)
		(*list)->link = list;
}

static struct timer *pop(struct timer **list)
{
	struct timer *t = *list;

	*list = t->next;
	if (t->next)
		t->next->link = list;
	t->link = NULL;
	t->next = NULL;
	return t;
}

/* The next tick at which a slot must be looked at; UINT64_MAX when all are empty. */
static uint64_t next_tick(const struct timer_wheel *w)
{
	uint64_t best = UINT64_MAX;

	for (unsigned int level = 0; level < TIMER_LEVELS; level++) {
		uint64_t at = w->now >> shift_of(level), turned, tick;
		unsigned int from = (unsigned int)(at + 1) % TIMER_SLOTS;

		if (!w->used[level])
			continue;
		turned = from ? w->used[level] >> from | w->used[level] << (TIMER_SLOTS - from)
			      : w->used[level];
		tick = (at + 1 + (uint64_t)__builtin_ctzll(turned)) << shift_of(level);
		if (tick < best)
			best = tick;
	}
	return best;
}

void timer_run(struct timer_wheel *w, uint64_t now_ns, void *context)
{
	uint64_t until = now_ns / TIMER_TICK_NS;
	struct timer *list;

	while (w->now < until) {
		uint64_t tick = next_tick(w);

		if (tick > until) {
			w->now = until;
			return;
		}
		w->now = tick;
		for (unsigned int level = TIMER_LEVELS - 1; level > 0; level--) {
			if (tick & ((1ULL << shift_of(level)) - 1))
				continue;
			take(w, level, (unsigned int)(tick >> shift_of(level)) % TIMER_SLOTS,
				&list);
			while (list) {
				struct timer *t = pop(&list);

				if (t->due < w->now)
					t->due = w->now;
				place(w, t);
			}
		}
		take(w, 0, (unsigned int)tick % TIMER_SLOTS, &list);
		while (list) {
			struct timer *t = pop(&list);

			if (t->due > w->now)
				place(w, t);
			else
				t->fn(t, context);
		}
	}
}

int timer_wait_ms(const struct timer_wheel *w, uint64_t now_ns)
{
	uint64_t tick = next_tick(w), at, ms;

	if (tick == UINT64_MAX)
		return -1;
	at = tick * TIMER_TICK_NS;
	if (at <= now_ns)
		return 0;
	ms = (at - now_ns + 999999) / 1000000;
	return ms > 3600000 ? 3600000 : (int)ms;
}
