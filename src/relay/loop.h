/*
 * One thread's event loop: descriptors, timers, messages from other threads, and what its
 * connections share. Everything here belongs to that thread unless a field says otherwise.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "relay/pipe_pool.h"
#include "relay/timer.h"

struct flow;
struct loop;
struct relay;

/* What epoll points at; the first member of whatever owns the descriptor. */
struct handle {
	void (*fn)(struct loop *loop, struct handle *h, uint32_t events);
};

/* Something to be done by the loop's thread; freed by fn. */
struct message {
	struct message *next;
	void (*fn)(struct loop *loop, struct message *m);
};

#define LOOP_BUFFER_SIZE (256U * 1024)

struct loop {
	struct handle wake; /* the eventfd */
	int epoll_fd, event_fd;
	unsigned int idx;
	struct relay *relay;
	pthread_t thread;
	bool quit;
	bool woken; /* there are messages */

	uint64_t now_ns; /* of this turn */
	uint64_t turn;	 /* its number */
	struct timer_wheel timers;
	struct pipe_pool pipes;
	uint8_t *buffer;	  /* LOOP_BUFFER_SIZE, for bytes on their way through */
	struct send_batch *sends; /* or NULL; empty between turns */
	bool batching;		  /* this turn's small messages are sent together */

	struct flow *flows;		 /* all of them */
	struct flow *ready, **ready_end; /* those with more to do in the next turn */
	struct flow *dead;   /* freed at the end of the turn: events may still name them */
	struct flow *served; /* whose turn at its route's rate it is, or NULL */
	struct listener *listeners;
	struct source *sources;
	struct probe *probes;
	struct udp *udps;
	struct session *dead_sessions;
	uint64_t told_ns; /* when the log last heard of what connections meet; 0 */

	_Atomic(struct message *) inbox; /* pushed by any thread, newest first */
	_Atomic uint32_t load;		 /* connections here or on their way; any thread */
};

int loop_open(
	struct loop *loop, struct relay *relay, unsigned int idx, const struct pipe_budget *pipes);
/* Runs until loop->quit; a pthread start routine. */
void *loop_run(void *loop);
void loop_close(struct loop *loop);
/* Any thread: m->fn runs in the loop's thread soon. */
void loop_post(struct loop *loop, struct message *m);
int loop_watch(struct loop *loop, int fd, struct handle *h, uint32_t events);
uint64_t loop_clock_ns(void);
