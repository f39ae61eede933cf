/* Which targets of a route are up: what connections find out, and probes that connect. */
#pragma once

struct loop;
struct route;
struct target;

/* Any loop: an attempt to connect went well, or failed. */
void health_good(struct route *route, struct target *target);
void health_bad(struct route *route, struct target *target, int err);
/* The thread of loop: probes every target that wants it; stops. */
int health_start(struct loop *loop, struct route *route);
void health_stop(struct loop *loop, struct route *route);
