/*
 * Files as sources: a route that listens on file:/path sends what it reads there to a target.
 * Regular files and devices are sent once; a FIFO is opened again after its end, and each of its
 * writers (or all that overlap) makes one connection.
 */
#pragma once

#include "relay/loop.h"

struct flow;
struct reason;
struct route;
struct source;

/* Control's thread: opens the file. Its descriptor, or -errno with the reason. */
int source_open(const struct route *route, struct reason *reason);
/* The loop's thread: begins to send; takes route->listen_fd. 0 or -ENOMEM. */
int source_start(struct loop *loop, struct route *route);
/* The loop's thread: what is under way goes on, nothing new begins. */
void source_stop(struct loop *loop, struct route *route);

/* What a flow tells its source. The file is read to its end and everything was written. */
void source_read(struct source *s);
/* The flow ends, in the way of flow_finish; its descriptor is still open. */
void source_over(struct source *s, const struct flow *f, unsigned int how);
/* There was not even a flow. */
void source_refused(struct source *s, int err);
