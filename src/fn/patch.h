/* Patch: what comes in by a port leaves by its peer, untouched. */
#pragma once

#include "frame/frame.h"

struct patch {
	verdict out[PORTS_MAX]; /* by port of arrival; VERDICT_DROP | DROP_NO_PEER where there is
				   none */
};

void patch_init(struct patch *p);
/* Joins two ports in both directions. */
void patch_join(struct patch *p, uint32_t a, uint32_t b);
/* All frames of a batch arrived by one port, so one verdict does for all. */
static inline verdict patch_run(const struct patch *p, uint32_t port_in)
{
	return p->out[port_in];
}
