/*
 * A route at work: what all loops share of it. Settings never change; the rest is atomic, and
 * each loop has counters of its own.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "relay/limits.h"
#include "relay/relay.h"
#include "relay/route.h"

struct access_log;
struct name;
struct share;

/* Written by one loop with relaxed stores, read by control with relaxed loads. */
struct counters {
	_Atomic uint64_t connections;
	_Atomic uint64_t bytes[2]; /* [0] client to target, [1] back */
	_Atomic uint64_t spliced, copied, sendfile;
	_Atomic uint64_t refused, retries, cut, fallbacks, dropped;
	_Atomic uint64_t errors[RELAY_ERRORS];
} __attribute__((aligned(64)));

static inline void counter_add(_Atomic uint64_t *counter, uint64_t n)
{
	atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n,
		memory_order_relaxed);
}

struct target {
	const struct route_target *settings;
	struct name *name;	    /* when there is a name to resolve */
	_Atomic uint32_t active;    /* connections; any loop */
	_Atomic uint32_t failures;  /* in a row; any loop */
	_Atomic bool down;	    /* any loop */
	_Atomic uint64_t rested_ns; /* udp, down: not tried before; any loop */
};

struct route {
	struct route_settings s;
	struct target targets[ROUTE_TARGETS_MAX];
	struct limit rate, accept;
	_Atomic uint32_t turn;	    /* round robin */
	_Atomic uint32_t active;    /* connections and sessions; any loop */
	_Atomic bool splice_logged; /* a refusal is worth one line */
	int listen_fd;		    /* control's; of a source only until it starts, then -1 */
	int *udp_fds;		    /* control's: a UDP route's sockets, one a loop; or NULL */
	char listen_text[ENDPOINT_TEXT_SIZE];
	struct access_log *log;	   /* NULL: off */
	struct counters *counters; /* one a loop */
	struct share *shares;	   /* likewise, with a rate; or NULL */
	bool retired;		   /* control's: no longer listens */
	struct relay_stats before; /* control's: of those that it replaced and that are gone */
	struct route *next;	   /* control's list */
};

/* Whether allow and deny let the client in. */
bool route_admits(const struct route_settings *s, const struct sockaddr *client);
/* The target for the next attempt, or NULL when all were tried (bit i of tried: target i). */
struct target *balance_pick(struct route *route, const struct sockaddr *client, uint32_t tried);
/* The targets, likewise, whose names have addresses that have not failed. */
uint32_t balance_names_left(const struct route *route);
