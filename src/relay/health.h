/* Which targets of a route are up: what connections find out, and probes that connect. */
#pragma once

#include <stdint.h>

struct loop;
struct route;
struct target;

/* Any loop: an attempt to connect went well, or failed. The ticket is name_pick's, or 0. The
 * target has not failed while its name has other addresses. */
void health_good(struct route *route, struct target *target, uint32_t ticket);
void health_bad(struct route *route, struct target *target, uint32_t ticket, int err);
/* The thread of loop: probes every target that wants it; stops. */
int health_start(struct loop *loop, struct route *route);
void health_stop(struct loop *loop, struct route *route);
