/*
 * What the tests of the AF_XDP engine stand on: two veth pairs, near0-far0 and near1-far1, of which
 * the engine has the near ends, in a network namespace of the test's own.
 */
#pragma once

#include "../unit/unit.h"

#include "engine/af_xdp/internal.h"
#include "frame/pool.h"
#include "worker/worker.h"

#define POOLS_MAX  2
#define PATIENCE_S 20

struct bed {
	int far[2]; /* packet sockets */
	struct memory memory;
	struct pool pools[POOLS_MAX];
	struct port *ports[2];
	struct queue *rx[POOLS_MAX][16];
	struct snapshot snaps[POOLS_MAX];
	struct reason why;
};

/* Makes the namespace. 0, or 77 after saying why these tests can't be had here. */
int bed_ready(void);
/* A shell command that must succeed. */
void run(const char *format, ...) __attribute__((format(printf, 1, 2)));
double now(void); /* seconds */

/* Queues on every device; a pool for each worker. */
void bed_make(struct bed *t, unsigned int mtu, unsigned int queues, uint32_t n_pools);
/* Port i, 0 or -errno with t->why. */
int bed_open(struct bed *t, int i, struct port_settings s);
/* Both, joined; they must open. */
void bed_open_both(struct bed *t, struct port_settings s);
/* Every slot must have come back. */
void bed_close_ports(struct bed *t);
void bed_end(struct bed *t);

/* One turn of every worker. */
void turn(struct bed *t);
/* No slot is lost; closed: and all are free. */
void law_holds(const struct bed *t, bool closed);
void frame_write(uint8_t *frame, uint32_t len, uint32_t seed);
/* The next of our frames that came in at the far end; 0: none yet. */
uint32_t frame_read(int fd, uint8_t *frame, size_t size);
/* Turns until this one has come. */
void await_frame(struct bed *t, int fd, const uint8_t *want, uint32_t len);
/* Every length, in both directions, a few on their way at a time. */
void every_length(struct bed *t, uint32_t first, uint32_t last);
uint64_t counter_of(const struct port *p, uint32_t queue, const char *name);
void nothing_was_lost(const struct bed *t);
