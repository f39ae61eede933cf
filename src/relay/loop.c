/* The event loop of a relay thread. */
#include "relay/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "relay/flow.h"
#include "relay/send_batch.h"
#include "relay/udp.h"

#define EVENTS_MAX 256

uint64_t loop_clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

int loop_watch(struct loop *loop, int fd, struct handle *h, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = h};

	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

void loop_post(struct loop *loop, struct message *m)
{
	uint64_t one = 1;
	struct message *first = atomic_load_explicit(&loop->inbox, memory_order_relaxed);

	do {
		m->next = first;
	} while (!atomic_compare_exchange_weak_explicit(
		&loop->inbox, &first, m, memory_order_release, memory_order_relaxed)); /* A */
	/* Only the first of a row has to wake the loop. The eventfd never fills. */
	if (!first && write(loop->event_fd, &one, sizeof(one)) < 0)
		return;
}

static void on_wake(struct loop *loop, struct handle *h, uint32_t events)
{
	uint64_t count;

	(void)h;
	(void)events;
	if (read(loop->event_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return;
	loop->woken = true;
}

/* Messages may free what events point at: they have their turn behind all events. */
static void read_inbox(struct loop *loop)
{
	struct message *m, *oldest = NULL;

	loop->woken = false;
	m = atomic_exchange_explicit(&loop->inbox, NULL, memory_order_acquire); /* A */
	while (m) {
		struct message *next = m->next;

		m->next = oldest;
		oldest = m;
		m = next;
	}
	while (oldest) {
		m = oldest;
		oldest = m->next;
		m->fn(loop, m);
	}
}

int loop_open(
	struct loop *loop, struct relay *relay, unsigned int idx, const struct pipe_budget *pipes)
{
	int r;

	loop->relay = relay;
	loop->idx = idx;
	loop->wake.fn = on_wake;
	loop->ready_end = &loop->ready;
	loop->epoll_fd = loop->event_fd = -1;
	pipe_pool_init(&loop->pipes, pipes);
	loop->now_ns = loop_clock_ns();
	timer_wheel_init(&loop->timers, loop->now_ns);
	loop->buffer = malloc(LOOP_BUFFER_SIZE);
	if (!loop->buffer)
		return -ENOMEM;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0)
		return -errno;
	loop->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (loop->event_fd < 0)
		return -errno;
	r = loop_watch(loop, loop->event_fd, &loop->wake, EPOLLIN);
	return r;
}

void loop_close(struct loop *loop)
{
	if (loop->event_fd >= 0)
		close(loop->event_fd);
	if (loop->epoll_fd >= 0)
		close(loop->epoll_fd);
	pipe_pool_close(&loop->pipes);
	free(loop->buffer);
}

/* Each flow of the list once; those that come back into it wait for the next turn. */
static void run_ready(struct loop *loop)
{
	struct flow *f = loop->ready;

	loop->ready = NULL;
	loop->ready_end = &loop->ready;
	while (f) {
		struct flow *next = f->ready_next;

		f->ready = false;
		if (f->state != FLOW_OVER)
			flow_run(f);
		f = next;
	}
}

/* A dead flow that is still in the ready list is freed one turn later. */
static void bury(struct loop *loop)
{
	struct flow **at = &loop->dead;

	while (*at) {
		struct flow *f = *at;

		if (f->ready) {
			at = &f->dead_next;
			continue;
		}
		*at = f->dead_next;
		free(f);
	}
}

void *loop_run(void *arg)
{
	struct loop *loop = arg;
	struct epoll_event events[EVENTS_MAX];

	loop->sends = send_batch_open(direction_sent); /* the ring is its thread's */
	while (!loop->quit) {
		int wait = loop->ready ? 0 : timer_wait_ms(&loop->timers, loop->now_ns), n;

		n = epoll_wait(loop->epoll_fd, events, EVENTS_MAX, wait);
		loop->now_ns = loop_clock_ns();
		loop->turn++;
		/* A lone message goes at once. */
		loop->batching = n > 1 && send_batch_works(loop->sends);
		for (int i = 0; i < n; i++) {
			struct handle *h = events[i].data.ptr;

			h->fn(loop, h, events[i].events);
		}
		loop->batching = false;
		send_batch_flush(loop->sends);
		if (loop->woken)
			read_inbox(loop);
		if (loop->ready)
			run_ready(loop);
		timer_run(&loop->timers, loop->now_ns, loop);
		if (loop->dead)
			bury(loop);
		if (loop->dead_sessions)
			udp_bury(loop);
	}
	while (loop->flows)
		flow_cut(loop->flows);
	run_ready(loop);
	bury(loop);
	send_batch_close(loop->sends);
	return NULL;
}
