/*
 * From what is asked for and what the machine has to what will be done: pure, so that `check`
 * shows what `run` would do and tests need no machine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/configuration.h"

#define PLAN_SLOT_SIZE	  4096	/* bytes: igb zero-copy splits frames in smaller ones */
#define PLAN_SLOTS_MIN	  8192	/* a worker, when the operator leaves it to us */
#define PLAN_SLOTS_MAX	  65536 /* likewise (256 MiB), unless even the smallest rings need more */
#define PLAN_DPDK_SPARE	  4096	/* for what is attached later, as DPDK's drivers keep all theirs */
#define PLAN_DPDK_SLOTS	  512	/* beside a queue's rings: in its hands, and DPDK's caches */
#define PLAN_RING_DEFAULT 2048	/* descriptors */
#define PLAN_RING_LEAST	  256	/* rings are not made smaller than this by themselves */

/* What the machine has for one port of the configuration. */
struct plan_facts {
	uint32_t ifindex; /* 0: no network interface (mem, dpdk) */
	uint32_t queues;  /* receive queues; 0: not known, as many as asked for */
	char kind[32];	  /* rtnetlink's */
	char driver[32];  /* ethtool's */
};

struct plan_port {
	const struct config_port *asked; /* in the configuration */
	const struct engine_ops *engine;
	struct port_settings settings; /* for the engine; strings in the configuration */
	uint32_t queues;	       /* that it will have */
	int peer;		       /* index of the port it is patched to, or -1 */
};

struct plan {
	uint32_t workers;
	struct reason fewer; /* why fewer workers than asked for; else empty */
	uint32_t slots;	     /* per worker */
	struct reason rings; /* why rings are smaller than usual; else empty */
	uint32_t n_ports;
	struct plan_port ports[PORTS_MAX];
	bool frames;		       /* ports are opened */
	bool fallback;		       /* without XDP the routes run; else that is an error */
	uint32_t n_fallback, n_always; /* routes */
};

/* facts[i] belongs to c->ports[i]; c must outlive the plan. 0, or -errno with the reason. */
int plan_make(const struct config *c, const struct plan_facts *facts, struct plan *ret_plan,
	struct reason *r);

/* Does err say that this port can have no XDP at all here, so that the relay may stand in? Not if
 * it asked for a mode that is not there. */
bool plan_is_unavailable(const struct config_port *asked, int err);
/* A port that came later into a running memory: rings that fit what is free of a worker's slots
 * (of a DPDK port: half of that, or it has memory of its own and its rings stay).
 * 0, or -ENOBUFS with the reason. */
int plan_fit(struct plan_port *p, uint32_t workers, uint32_t slots_free, struct reason *r);
