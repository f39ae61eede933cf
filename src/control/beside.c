/*
 * Ports are opened and closed while the workers go on with the others.
 *
 * An open takes a tenth of a second, and seconds where the kernel is still busy with the device;
 * but it takes slots from the pools, which have no lock. So it gets pools of its own, beside the
 * workers': slots are lent to them before an open, and what they have is taken back after an open
 * or a close. Only for these two moments do the workers stand still.
 */
#include <errno.h>
#include <stdlib.h>

#include "control/state.h"
#include "frame/pool.h"

int beside_make(struct daemon *d, struct reason *r)
{
	d->lent = d->memory;
	d->lent.n_pools = 0;
	d->lent.pools = calloc(d->memory.n_pools, sizeof(*d->lent.pools));
	for (uint32_t i = 0; d->lent.pools && i < d->memory.n_pools; i++) {
		if (pool_beside_init(&d->lent.pools[i], &d->memory.pools[i]))
			break;
		d->lent.n_pools++;
	}
	if (d->lent.n_pools == d->memory.n_pools)
		return 0;
	beside_free(d);
	return reason_set(r, -ENOMEM, NULL, "out of memory");
}

void beside_free(struct daemon *d)
{
	for (uint32_t i = 0; i < d->lent.n_pools; i++)
		pool_beside_fini(&d->lent.pools[i]);
	free(d->lent.pools);
	d->lent = (struct memory){0};
}

static void lend(struct daemon *d, const struct plan_port *plan, uint32_t n_a_queue)
{
	uint32_t queues = (plan->queues + d->n_workers - 1) / d->n_workers;

	for (uint32_t i = 0; i < d->lent.n_pools; i++)
		pool_lend(&d->memory.pools[i], &d->lent.pools[i], queues * n_a_queue);
}

static void take_back(struct daemon *d)
{
	for (uint32_t i = 0; i < d->lent.n_pools; i++)
		pool_take_back(&d->memory.pools[i], &d->lent.pools[i]);
}

static void set_pools(struct port *port, const struct memory *from, const struct memory *to)
{
	for (uint32_t i = 0; port && i < port->n_queues; i++) {
		struct queue *q = port->queues[i];

		if (q->pool == &from->pools[q->worker])
			q->pool = &to->pools[q->worker];
	}
}

int beside_open(struct daemon *d, uint32_t idx, struct reason *r)
{
	struct daemon_port *p = &d->ports[idx];
	int err;

	p->apart = true;
	workers_pause(d);
	lend(d, &p->plan, p->plan.settings.rx_ring);
	workers_resume(d);
	err = port_open(d, idx, &d->lent, r);
	workers_pause(d);
	set_pools(p->port, &d->lent, &d->memory);
	take_back(d);
	workers_resume(d);
	return err;
}

void beside_close(struct daemon *d, uint32_t idx)
{
	struct daemon_port *p = &d->ports[idx];

	p->apart = true;
	workers_pause(d);
	lend(d, &p->plan, BATCH_SIZE); /* for what comes while what waits is counted */
	set_pools(p->port, &d->memory, &d->lent);
	workers_resume(d);
	port_close(d, idx);
	workers_pause(d);
	take_back(d);
	workers_resume(d);
}

void beside_join(struct daemon *d)
{
	for (uint32_t i = 0; i < PORTS_MAX; i++)
		d->ports[i].apart = false;
	workers_resume(d);
}
