/* Resolves names in a thread of its own. */
#include "relay/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"

#define ADDRESSES_MAX 16
/* A ticket: whether the address had failed, and a hash of it, for an attempt may take longer than
 * an answer holds. */
#define TICKET_TRIAL   1U
#define TICKET_ADDRESS 2U /* always: a ticket is not 0 */
/* getaddrinfo(3) does not tell how long an answer holds. */
#define AGAIN_S 30
/* After a failure sooner. */
#define RETRY_S 3

struct name {
	struct name *next;
	char host[256];
	char port[8];
	/* All below: under the resolver's lock. */
	struct resolver *resolver;
	struct timespec due;
	bool busy;  /* in getaddrinfo, which nobody waits for: */
	bool freed; /* meanwhile, so the thread does it afterwards */
	bool asked; /* at least once, with this result: */
	int result;
	bool failed_logged;
	unsigned int n, turn;
	uint32_t failed;   /* addresses, a bit each */
	uint32_t doubtful; /* those of them that one attempt may try */
	struct address addresses[ADDRESSES_MAX];
};

struct resolver {
	pthread_t thread;
	pthread_mutex_t lock; /* held for a few instructions at most, never while resolving */
	pthread_cond_t changed;
	struct name *names;
	bool asking; /* the thread is in getaddrinfo */
	bool quit;
	bool freed; /* while asking: the thread frees what is left */
};

static struct timespec from_now(uint64_t ns)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	ns += (uint64_t)ts.tv_nsec;
	ts.tv_sec += (time_t)(ns / 1000000000ULL);
	ts.tv_nsec = (long)(ns % 1000000000ULL);
	return ts;
}

static bool before(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec < b->tv_sec || (a->tv_sec == b->tv_sec && a->tv_nsec < b->tv_nsec);
}

static bool has_failed(
	const struct address *old, unsigned int n, uint32_t failed, const struct address *a)
{
	for (unsigned int i = 0; i < n; i++) {
		if (failed & 1U << i && old[i].size == a->size &&
			memcmp(&old[i].un, &a->un, a->size) == 0)
			return true;
	}
	return false;
}

static void store(struct name *n, const struct addrinfo *list)
{
	struct address old[ADDRESSES_MAX];
	unsigned int n_old = n->n;
	uint32_t failed = n->failed;

	memcpy(old, n->addresses, n_old * sizeof(old[0]));
	n->failed = n->n = 0;
	for (const struct addrinfo *a = list; a && n->n < ADDRESSES_MAX; a = a->ai_next) {
		struct address *to = &n->addresses[n->n];

		if (a->ai_addrlen > sizeof(to->un))
			continue;
		memcpy(&to->sa, a->ai_addr, a->ai_addrlen);
		to->size = a->ai_addrlen;
		if (has_failed(old, n_old, failed, to))
			n->failed |= 1U << n->n;
		n->n++;
	}
	n->doubtful = n->failed;
}

/* Called with the lock; lets go of it while the answer is on its way. */
static void ask(struct resolver *r, struct name *n)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG},
			*list = NULL;
	int err;

	n->busy = r->asking = true;
	pthread_mutex_unlock(&r->lock);
	err = getaddrinfo(n->host, n->port, &hints, &list);
	if (err == EAI_NONAME || err == EAI_FAMILY || err == EAI_NODATA) {
		/* Without a configured address AI_ADDRCONFIG hides even the loopback's. */
		hints.ai_flags = 0;
		err = getaddrinfo(n->host, n->port, &hints, &list);
	}
	pthread_mutex_lock(&r->lock);
	n->busy = r->asking = false;
	if (n->freed) {
		if (!err)
			freeaddrinfo(list);
		free(n);
		return;
	}
	n->asked = true;
	n->result = err ? -ENOENT : 0;
	if (!err) {
		store(n, list);
		freeaddrinfo(list);
	} else if (!n->failed_logged) {
		log_warn("relay: %s can't be resolved: %s; trying again every %d s", n->host,
			gai_strerror(err), RETRY_S);
	}
	n->failed_logged = err != 0;
	n->due = from_now((err ? RETRY_S : AGAIN_S) * 1000000000ULL);
	pthread_cond_broadcast(&r->changed);
}

static struct name *most_due(struct resolver *r)
{
	struct name *due = r->names;

	for (struct name *n = r->names; n; n = n->next) {
		if (before(&n->due, &due->due))
			due = n;
	}
	return due;
}

static void destroy(struct resolver *r)
{
	pthread_cond_destroy(&r->changed);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

static void *run(void *arg)
{
	struct resolver *r = arg;
	bool freed;

	pthread_mutex_lock(&r->lock);
	while (!r->quit) {
		struct name *n = most_due(r);
		struct timespec now = from_now(0);

		if (!n)
			pthread_cond_wait(&r->changed, &r->lock);
		else if (before(&now, &n->due))
			pthread_cond_timedwait(&r->changed, &r->lock, &n->due);
		else
			ask(r, n);
	}
	freed = r->freed;
	pthread_mutex_unlock(&r->lock);
	if (freed)
		destroy(r);
	return NULL;
}

int resolver_create(struct resolver **ret_resolver)
{
	struct resolver *r = calloc(1, sizeof(*r));
	pthread_condattr_t monotonic;
	int err;

	if (!r)
		return -ENOMEM;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&r->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	err = pthread_create(&r->thread, NULL, run, r);
	if (err) {
		destroy(r);
		return -err;
	}
	*ret_resolver = r;
	return 0;
}

void resolver_free(struct resolver *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->quit = true;
	if (r->asking) { /* a name server that is silent may take a minute */
		r->freed = true;
		pthread_detach(r->thread);
		pthread_mutex_unlock(&r->lock);
		return;
	}
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	destroy(r);
}

struct name *name_new(struct resolver *r, const char *host, uint16_t port)
{
	struct name *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	snprintf(n->host, sizeof(n->host), "%s", host);
	snprintf(n->port, sizeof(n->port), "%u", port);
	n->resolver = r;
	pthread_mutex_lock(&r->lock);
	n->next = r->names;
	r->names = n;
	pthread_cond_broadcast(&r->changed);
	pthread_mutex_unlock(&r->lock);
	return n;
}

void name_free(struct resolver *r, struct name *n)
{
	struct name **at = &r->names;
	bool busy;

	if (!n)
		return;
	pthread_mutex_lock(&r->lock);
	while (*at != n)
		at = &(*at)->next;
	*at = n->next;
	busy = n->freed = n->busy;
	pthread_mutex_unlock(&r->lock);
	if (!busy)
		free(n);
}

int name_wait(struct name *n, uint64_t wait_ns)
{
	struct resolver *r = n->resolver;
	struct timespec until = from_now(wait_ns);
	int err = 0;

	pthread_mutex_lock(&r->lock);
	while (!n->asked && err == 0)
		err = pthread_cond_timedwait(&r->changed, &r->lock, &until);
	err = n->asked ? n->result : -ETIMEDOUT;
	pthread_mutex_unlock(&r->lock);
	return err;
}

static uint32_t not_failed(const struct name *n)
{
	return ((1U << n->n) - 1) & ~n->failed;
}

static uint32_t ticket_of(const struct address *a)
{
	const uint8_t *bytes = (const uint8_t *)&a->un;
	uint32_t h = 2166136261U; /* FNV-1a */

	for (socklen_t i = 0; i < a->size; i++)
		h = (h ^ bytes[i]) * 16777619U;
	return (h | TICKET_ADDRESS) & ~TICKET_TRIAL;
}

int name_pick(struct name *n, struct address *ret_address, uint32_t *ret_ticket)
{
	uint32_t set, idx;
	int err = -EHOSTUNREACH;

	pthread_mutex_lock(&n->resolver->lock);
	if (n->n) {
		set = n->doubtful ? n->doubtful : not_failed(n);
		do {
			idx = n->turn++ % n->n;
		} while (set && !(set & 1U << idx));
		n->doubtful &= ~(1U << idx);
		*ret_address = n->addresses[idx];
		*ret_ticket = ticket_of(ret_address) | (n->failed & 1U << idx ? TICKET_TRIAL : 0);
		err = 0;
	}
	pthread_mutex_unlock(&n->resolver->lock);
	return err;
}

static void mark(struct name *n, uint32_t ticket, bool failed)
{
	pthread_mutex_lock(&n->resolver->lock);
	for (unsigned int i = 0; i < n->n; i++) {
		uint32_t bit = 1U << i;

		if (ticket_of(&n->addresses[i]) != (ticket & ~TICKET_TRIAL))
			continue;
		n->failed = failed ? n->failed | bit : n->failed & ~bit;
		n->doubtful &= ~bit;
	}
	pthread_mutex_unlock(&n->resolver->lock);
}

void name_reached(struct name *n, uint32_t ticket)
{
	if (ticket & TICKET_TRIAL) /* the others say nothing new */
		mark(n, ticket, false);
}

void name_failed(struct name *n, uint32_t ticket)
{
	if (ticket)
		mark(n, ticket, true);
}

bool name_has_more(struct name *n)
{
	bool more;

	pthread_mutex_lock(&n->resolver->lock);
	more = not_failed(n) != 0;
	pthread_mutex_unlock(&n->resolver->lock);
	return more;
}
