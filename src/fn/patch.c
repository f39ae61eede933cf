/* Patch: what comes in by a port leaves by its peer, untouched. */
#include "fn/patch.h"

#include "frame/drop.h"

void patch_init(struct patch *p)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		p->out[i] = VERDICT_DROP | DROP_NO_PEER;
}

void patch_join(struct patch *p, uint32_t a, uint32_t b)
{
	p->out[a] = (verdict)b;
	p->out[b] = (verdict)a;
}
