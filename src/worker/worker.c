/*
 * The thread around the loop: it turns, picks up snapshots between turns, and sleeps when idle.
 *
 * Publication: control writes `next`, then counts `asked` up (release, A); the worker sees that
 * (acquire, A), takes `next`, and stores what it saw in `taken` (release, B), after its last look
 * at the former snapshot; control sees it (acquire, B) and may free the former one.
 */
#include "worker/worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "frame/pool.h"

#define IDLE_TURNS	  64	 /* turns without a frame before it sleeps */
#define IDLE_US_DEFAULT	  1000	 /* longest sleep while some queue has no descriptor */
#define SLEEP_US_MAX	  100000 /* longest sleep while every queue has one */
#define SLEEP_US_SENT	  50	 /* first sleep while frames are on their way out */
#define SLEEP_US_SENT_MAX 1000	 /* it doubles up to this */
#define WAITS_MAX	  1024	 /* descriptors slept on; with more queues sleeps are bounded */
#define PUBLISH_POLL_NS	  20000	 /* how often control looks whether the worker took a snapshot */

struct worker {
	struct worker_settings settings;
	pthread_t thread;
	bool started;
	int wake_fd; /* control writes, the worker reads */

	const struct snapshot *next; /* written by control before A, read by the worker after A */
	_Atomic uint64_t asked;	     /* written by control */
	_Atomic uint64_t taken;	     /* written by the worker */
	atomic_bool stop;	     /* written by control */

	/* The worker's own. */
	const struct snapshot *snap;
	struct pollfd waits[1 + WAITS_MAX]; /* wake_fd first */
	uint32_t n_waits;
	bool all_wait; /* every queue has a descriptor in waits */
	uint32_t sent_us;

	struct counter turns, idle_turns, sleeps; /* written by the worker */
};

static const struct snapshot nothing;

static void wake(const struct worker *w)
{
	uint64_t one = 1;
	ssize_t n = write(w->wake_fd, &one, sizeof(one));

	(void)n; /* fails only when it is readable already, which wakes as well */
}

int worker_create(const struct worker_settings *s, struct worker **ret_worker)
{
	struct worker *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->settings = *s;
	if (w->settings.idle_us == 0)
		w->settings.idle_us = IDLE_US_DEFAULT;
	w->snap = &nothing;
	w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (w->wake_fd < 0) {
		err = -errno;
		free(w);
		return err;
	}
	*ret_worker = w;
	return 0;
}

/* What to sleep on with this snapshot. */
static void waits_set(struct worker *w)
{
	w->waits[0] = (struct pollfd){.fd = w->wake_fd, .events = POLLIN};
	w->n_waits = 1;
	w->all_wait = true;
	w->sent_us = SLEEP_US_SENT;
	for (uint32_t i = 0; i < w->snap->n_rx; i++) {
		const struct queue *q = w->snap->rx[i];
		int fd = q->ops->wait_fd(q);

		if (fd < 0 || w->n_waits == 1 + WAITS_MAX)
			w->all_wait = false;
		else
			w->waits[w->n_waits++] = (struct pollfd){.fd = fd, .events = POLLIN};
	}
}

/* Frames handed to a device and not yet given back: they may need another kick. */
static bool sends_pending(const struct snapshot *snap)
{
	const struct pool *seen = NULL;

	for (uint32_t i = 0; i < snap->n_rx; i++) {
		const struct pool *p = snap->rx[i]->pool;

		if (!p || p == seen)
			continue;
		seen = p;
		if (atomic_load_explicit(&p->held[HOLDER_TX], memory_order_relaxed) > 0)
			return true;
	}
	return false;
}

static uint32_t sleep_us(struct worker *w)
{
	uint32_t us = w->all_wait ? SLEEP_US_MAX : w->settings.idle_us;

	if (!sends_pending(w->snap))
		return us;
	us = w->sent_us < us ? w->sent_us : us;
	if (w->sent_us < SLEEP_US_SENT_MAX)
		w->sent_us *= 2;
	return us;
}

/* Until frames arrive, control has something, or time is up. */
static void idle_sleep(struct worker *w)
{
	uint32_t us = sleep_us(w);
	struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000L};
	uint64_t count;
	ssize_t got;

	counter_add(&w->sleeps, 1);
	if (ppoll(w->waits, w->n_waits, &t, NULL) <= 0)
		return;
	if (w->waits[0].revents) {
		got = read(w->wake_fd, &count, sizeof(count));
		(void)got;
	}
	/* A descriptor in error is always ready: without it the sleep is bounded, not a spin. */
	for (uint32_t i = 1; i < w->n_waits; i++) {
		if (w->waits[i].revents & ~POLLIN) {
			w->waits[i].fd = -1;
			w->all_wait = false;
		}
	}
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	uint64_t generation = 0;
	uint32_t idle = 0;
	char name[16];

	snprintf(name, sizeof(name), "worker-%u", w->settings.idx);
	pthread_setname_np(pthread_self(), name);
	waits_set(w);
	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		uint64_t asked = atomic_load_explicit(&w->asked, memory_order_acquire); /* A */

		if (asked != generation) {
			generation = asked;
			w->snap = w->next;
			waits_set(w);
			atomic_store_explicit(&w->taken, asked, memory_order_release); /* B */
		}
		counter_add(&w->turns, 1);
		if (worker_turn(w->snap) > 0) {
			idle = 0;
			w->sent_us = SLEEP_US_SENT;
			continue;
		}
		counter_add(&w->idle_turns, 1);
		if (w->snap->busy && w->snap->n_rx > 0)
			continue;
		if (++idle > IDLE_TURNS || w->snap->n_rx == 0) {
			idle = IDLE_TURNS;
			idle_sleep(w);
		}
	}
	return NULL;
}

int worker_start(struct worker *w)
{
	pthread_attr_t attr;
	sigset_t all, old;
	cpu_set_t cpus;
	int err = pthread_attr_init(&attr);

	if (err)
		return -err;
	if (w->settings.cpu >= CPU_SETSIZE) {
		err = EINVAL;
		goto out;
	}
	if (w->settings.cpu >= 0) {
		CPU_ZERO(&cpus);
		CPU_SET(w->settings.cpu, &cpus);
		err = pthread_attr_setaffinity_np(&attr, sizeof(cpus), &cpus);
		if (err)
			goto out;
	}
	sigfillset(&all); /* signals are control's */
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	w->started = err == 0;
out:
	pthread_attr_destroy(&attr);
	return -err;
}

void worker_publish(struct worker *w, const struct snapshot *snap)
{
	const struct timespec pause = {.tv_nsec = PUBLISH_POLL_NS};
	uint64_t ask;

	if (!snap)
		snap = &nothing;
	if (!w->started) {
		w->snap = snap;
		return;
	}
	w->next = snap;
	ask = atomic_load_explicit(&w->asked, memory_order_relaxed) + 1;
	atomic_store_explicit(&w->asked, ask, memory_order_release); /* A */
	wake(w);
	while (atomic_load_explicit(&w->taken, memory_order_acquire) != ask) /* B */
		nanosleep(&pause, NULL);
}

void worker_stats_read(const struct worker *w, struct worker_stats *ret)
{
	*ret = (struct worker_stats){
		.turns = counter_read(&w->turns),
		.idle_turns = counter_read(&w->idle_turns),
		.sleeps = counter_read(&w->sleeps),
	};
}

void worker_destroy(struct worker *w)
{
	if (!w)
		return;
	if (w->started) {
		atomic_store_explicit(&w->stop, true, memory_order_relaxed);
		wake(w);
		pthread_join(w->thread, NULL);
	}
	close(w->wake_fd);
	free(w);
}
