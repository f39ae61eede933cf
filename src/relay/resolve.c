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

static void store(struct name *n, const struct addrinfo *list)
{
	n->n = 0;
	for (const struct addrinfo *a = list; a && n->n < ADDRESSES_MAX; a = a->ai_next) {
		struct address *to = &n->addresses[n->n];

		if (a->ai_addrlen > sizeof(to->un))
			continue;
		memcpy(&to->sa, a->ai_addr, a->ai_addrlen);
		to->size = a->ai_addrlen;
		n->n++;
	}
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

int name_pick(struct name *n, struct address *ret_address)
{
	int err = -EHOSTUNREACH;

	pthread_mutex_lock(&n->resolver->lock);
	if (n->n) {
		*ret_address = n->addresses[n->turn++ % n->n];
		err = 0;
	}
	pthread_mutex_unlock(&n->resolver->lock);
	return err;
}
